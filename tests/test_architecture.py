"""Who may import whom, read from the source; and that starting up stays light."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import backends
import explorer
from explorer.types import resolve

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("explorer", "backends", "app")

# Arrows run down only: a room imports from rooms on lines below its own, and from itself. The
# explorer imports nothing of the backends; a member of a kind imports no other member.
FLOORS = (
    "app",
    "backends.__main__ backends.opening",
    "backends.commands",
    "backends.supplement",
    "explorer.notebook",
    "explorer.site",
    "explorer.page",
    "backends.reports",
    "explorer.records",
    "explorer.evidence",
    "explorer.opening",
    "explorer.drawing explorer.watching",
    "explorer.finished",
    "explorer.brain.maps",
    "explorer.decoding",
    "explorer.answers",
    "explorer.workbench",
    "explorer.models explorer.choosing",
    "explorer.catalogue",
    "explorer.naming explorer.offers",
    "backends.mappers backends.generators",
    "backends.datasets backends.encoders",
    "backends.simulation",
    "backends.embedders",
    "backends.training",
    "backends explorer.figures",
    "explorer.brain",
    "explorer.mapper explorer.identity explorer.splits explorer.matching",
    "explorer.store",
    "explorer.metrics explorer.cache explorer.protocols explorer.request",
    "explorer.images",
    "explorer.inert",
    "explorer.stored_tensors explorer.files explorer.writing explorer.folders explorer.stopping",
    "explorer",
    "explorer.types",
)
KINDS = {  # what members of a kind share
    "backends.datasets": (
        "layout layout_tables layout_voxels arriving reading published picture_files declared "
        "bdata god_study miyawaki_blocks "
        "webdataset "
        "nsd_files nsd_design nsd_betas nsd_rois nsd_places nsd_space nsd_parts nsd_main "
        "nsd_synthetic nsd_imagery nsd_imagery_tables mat_cells "
        "mindeye_release mindeye1_shards mindeye2_trials "
        "bold5000_files bold5000_lists bold5000_arrays bold5000_volumes "
        "laion_files laion_sessions laion_sidecars laion_splits "
        "laion_voxels "
        "simulated_files simulated_parts "
        "pandas_hdf things_files things_tables things_volumes "
        "cneuromod_files cneuromod_betas"
    ),
    "backends.mappers": "parts",
    "backends.generators": (
        "networks adapters gallery guidance pulls clip_pulls sampling memory ddim weights tuning "
        "solver latent_diffusion low_level published_pull dual_attention picture_names sgm_names "
        "sdxl_unclip_weights finetuned_weights older_weights mindeye2"
    ),
}
HEAVY = (
    *("torch", "gradio", "nilearn", "diffusers", "open_clip", "matplotlib", "plotly"),
    *("sklearn", "scipy", "skimage", "nibabel", "transformers", "timm", "pandas"),
)


def modules() -> dict[str, Path]:
    """Return every module of ours by its dotted name; a package is ``package.__init__``."""
    files = [
        ROOT / "app.py",
        *(ROOT / "explorer").rglob("*.py"),
        *(ROOT / "backends").rglob("*.py"),
    ]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts): f for f in files}


def imports(name: str, path: Path) -> set[str]:
    """Return the modules of ours that a file imports anywhere, also inside functions."""
    known, found = set(modules()), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name.rsplit(".", node.level)[0] + "." if node.level else ""
            source = f"{package}{node.module or ''}".rstrip(".")
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                is_module = inner in known or f"{inner}.__init__" in known
                found.add(inner if is_module else source)
    return {module for module in found if module.split(".")[0] in ROOMS}


def under(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def floor(name: str) -> tuple[int, str]:
    """Return how far below the roof a module is, and its room: the longest name that fits."""
    plain = name.removesuffix(".__init__")
    rooms = {room: number for number, line in enumerate(FLOORS) for room in line.split()}
    room = max((room for room in rooms if under(plain, room)), key=len)
    return rooms[room], room


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_from_floors_below(name):
    number, room = floor(name)
    found = imports(name, modules()[name])
    wrong = [m for m in found if floor(m)[1] != room and floor(m)[0] <= number]
    assert not wrong, f"{name} imports {', '.join(wrong)}, which lie no lower than {room}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_class_and_no_file_outgrows_a_reader(name):
    """A class has 300 lines at most and a file 450; a data set's reader may have 600."""
    text = modules()[name].read_text(encoding="utf-8")
    most = 600 if name.startswith("backends.datasets.") else 450
    assert len(text.splitlines()) <= most
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno < 300, node.name


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_of_a_kind_imports_no_other_member(kind):
    shared = [f"{kind}.{name}" for name in KINDS[kind].split()]
    for name in (n for n in modules() if under(n, kind) and n not in shared):
        beside = [m for m in imports(name, modules()[name]) if under(m, kind) and m != kind]
        wrong = [m for m in beside if m != name and not any(under(m, s) for s in shared)]
        assert not wrong, f"{name} imports {', '.join(wrong)}; members share {KINDS[kind]}"


def test_the_floors_name_only_rooms_that_exist():
    known = set(modules()) | {n.removesuffix(".__init__") for n in modules()}
    named = {room for line in FLOORS for room in line.split()} | set(KINDS)
    shared = {f"{kind}.{name}" for kind, line in KINDS.items() for name in line.split()}
    assert (named | shared) - known == set()


def test_the_explorer_never_imports_the_backends():
    for name, path in modules().items():
        if under(name, "explorer"):
            assert not [m for m in imports(name, path) if under(m, "backends")], name


def test_the_explorer_names_the_backends_at_its_door_alone():
    """``explorer.open_study`` is resolved when it is asked for; nothing else may be."""
    for name, path in modules().items():
        if not under(name, "explorer"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
        named = [t for t in texts if isinstance(t, str) and re.fullmatch(r"backends[\w.]*:\w+", t)]
        expected = list(explorer.OPENS.values()) if name == "explorer.__init__" else []
        assert named == expected, name


def test_imports_are_read_as_python_reads_them(tmp_path):
    file = tmp_path / "somewhere.py"
    file.write_text(
        "import os\nfrom explorer import metrics\nfrom explorer.types import UserError\n"
        "def f():\n    import backends.embedders\n    from . import pocket\n"
    )
    found = imports("backends.generators.somewhere", file)
    expected = {"explorer.metrics", "explorer.types", "backends.embedders"}
    assert found == expected | {"backends.generators.pocket"}


@pytest.mark.parametrize("kind", ["DATASETS", "EMBEDDERS", "MAPPERS", "GENERATORS", "ENCODERS"])
def test_every_entry_of_a_dict_literal_is_a_class(kind):
    entries = getattr(backends, kind)
    assert entries
    for name, entry in entries.items():
        assert inspect.isclass(resolve(entry)), name


def test_generators_tell_what_they_can_without_being_made():
    for name, entry in backends.GENERATORS.items():
        cls = resolve(entry)
        for field in ("accepts", "provenance", "guided", "needs", "options", "default_steps"):
            assert hasattr(cls, field), f"{name}.{field}"
        assert isinstance(cls.accepts, tuple) and isinstance(cls.guided, bool)


@pytest.mark.parametrize("module", ["app", "backends.__main__", "explorer, backends.opening"])
def test_starting_up_imports_nothing_heavy(module):
    listed = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", listed], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == ""


def test_heavy_libraries_have_one_home():
    """Open_clip and timm are for embedders, diffusers for what draws, gradio for the page."""
    homes = {
        "open_clip": ("backends.embedders",),
        "timm": ("backends.embedders",),
        "diffusers": ("backends.generators", "backends.embedders"),
        "gradio": ("explorer.page", "app"),
        "nilearn": (
            "explorer.figures",
            "explorer.brain",
            "explorer.notebook",
            "backends.datasets",
            "backends.simulation",
            "backends.commands.fetch",
        ),
    }
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found = [node.module]
            for module in found:
                home = homes.get(module.split(".")[0])
                assert home is None or any(under(name, h) for h in home), f"{name}: {module}"
