"""Who may import whom, read from the source; and that starting up stays light."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import backends
from explorer.types import resolve

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("explorer", "backends", "app")

CORE = ("explorer.types", "explorer.mapper", "explorer.parcels", "explorer.metrics")
DRAWING = ("explorer.figures", "explorer.surfaces")
PAGE = (
    *("explorer.workbench", "explorer.records", "explorer.types", "explorer.predicted"),
    *("explorer.attention", "explorer.statistics", "explorer.parcels", *DRAWING),
    *("explorer.standing", "explorer.controls", "explorer.lesions", "explorer.importance"),
    *("explorer.comparison", "explorer.curves", "explorer.evaluation", "explorer.metrics"),
)
# what asks a workbench: the page shows it, the command line measures it
ASKS = ("explorer.types", "explorer.metrics", "explorer.parcels", "explorer.workbench")
TOOLS = (
    *("backends.embedders", "backends.encoding", "backends.fewer", "backends.linear"),
    "backends.training",
)
# What each module (or everything under a package) may import of ours; the longest name that fits
# decides. A package may always import from itself, except where `KINDS` says otherwise.
MAY_IMPORT = {
    "app": ("backends", "explorer"),
    "explorer": (),
    "explorer.types": (),
    "explorer.cache": (),
    "explorer.mapper": ("explorer.types",),
    "explorer.metrics": ("explorer.types",),
    "explorer.parcels": ("explorer.types",),
    "explorer.atlases": ("explorer.parcels", "explorer.types"),
    "explorer.surfaces": ("explorer.parcels", "explorer.types"),
    "explorer.figures": ("explorer.surfaces", "explorer.parcels", "explorer.types"),
    "explorer.importance": ("explorer.types", "explorer.mapper"),
    "explorer.attention": ("explorer.types",),
    "explorer.predicted": ("explorer.types", "explorer.metrics", "explorer.parcels"),
    # the workbench in four files: what is on offer, models, records, and the front over them
    "explorer.catalogue": ("explorer.types", "explorer.cache", "explorer.parcels"),
    "explorer.models": (
        *("explorer.types", "explorer.cache", "explorer.catalogue", "explorer.mapper"),
    ),
    "explorer.records": ("explorer.types", "explorer.workbench"),
    "explorer.statistics": (*CORE, "explorer.importance", "explorer.workbench"),
    "explorer.evaluation": ("explorer.types", "explorer.workbench"),
    "explorer.workbench": (
        *("explorer.importance", "explorer.metrics", "explorer.parcels", "explorer.mapper"),
        *("explorer.types", "explorer.cache", "explorer.catalogue", "explorer.models"),
        *("explorer.records", "explorer.predicted", "explorer.attention"),
    ),
    "explorer.standing": ASKS,
    "explorer.controls": (*ASKS, "explorer.standing"),
    "explorer.lesions": (*ASKS, "explorer.standing", "explorer.controls", "explorer.importance"),
    "explorer.comparison": (*ASKS, "explorer.standing", "explorer.controls", "explorer.lesions"),
    "explorer.curves": (*ASKS, "explorer.standing"),
    "explorer.page": (*PAGE, "explorer.page"),
    "backends": (*CORE, "backends.training"),
    "backends.__init__": (),
    "backends.__main__": (*CORE, "explorer.workbench", "explorer.catalogue", "backends"),
    "backends.evaluate": (*CORE, "backends.evidence"),
    "backends.compare": (
        *(*CORE, "explorer.workbench", "explorer.evaluation"),
        *("backends.evaluate", "backends.train"),
    ),
    "backends.statistics_report": (
        *(*CORE, "explorer.workbench", "explorer.importance", "explorer.statistics", "backends"),
    ),
    "backends.search": (*CORE, "backends.train", "backends.training"),
    "backends.importing": (*CORE, "backends.mappers"),
    "backends.evidence": (*CORE, "explorer.workbench", "explorer.importance", "backends"),
    "backends.evidence_report": (
        *(*CORE, "explorer.workbench", "explorer.importance", "backends.evidence"),
        *("explorer.controls", "explorer.lesions", "explorer.standing"),
    ),
    "backends.guidance_report": (*CORE, "explorer.workbench", "backends.judge"),
    "backends.finetune": (
        *(*CORE, "explorer.workbench", "backends.judge", "backends.training"),
        *("backends.simulation", "backends.generators", "backends.embedders"),
    ),
    "backends.reconstruct": (*CORE, "explorer.workbench", "backends.training"),
    "backends.scores": (*CORE, "backends.targets"),
    "backends.pictures": (
        *(*CORE, "explorer.workbench", "backends.evaluate", "backends.reconstruct"),
        *("backends.scores", "backends.judge", "backends.simulation"),
    ),
    "backends.demo": (*CORE, "explorer.workbench", "explorer.evaluation", "backends"),
    "backends.doctor": (*CORE, "explorer.catalogue", "backends.datasets"),
    "backends.fetch": (*CORE, "backends.datasets"),
    "backends.train": (*CORE, "backends", *TOOLS),
    "backends.targets": (*CORE, "backends.embedders"),
    "backends.captions": (*CORE, "backends.targets", "backends.training", "backends.augment"),
    "backends.augment": (*CORE, "backends.encoding", "backends.datasets.reading"),
    "backends.judge": (*CORE, *TOOLS, "backends.simulation"),
    "backends.datasets": (*CORE, "backends.simulation"),
    "backends.datasets.nsd": (*CORE, "backends.datasets.nsd_space"),
    "backends.simulation": (*CORE, "backends.simulation"),
    "backends.training": (*CORE, "backends.linear"),
    "backends.encoding": (*CORE, "backends.embedders", "backends.linear", "backends.training"),
    "backends.gnet": (*CORE, "backends.embedders", "backends.training"),
    # which published row is whose is one thing for pictures and for predictions
    "backends.mappers": (*CORE, *TOOLS, "backends.published"),
    "backends.generators": (*CORE, *TOOLS, "backends.published"),
    "backends.generators.gallery": (*CORE, "backends.embeddings"),
    "backends.generators.guidance": (*CORE, "backends.encoding", "backends.gnet"),
    # a class name is sought among pictures in the space that was decoded
    "backends.generators.stable": (*CORE, *TOOLS, "backends.targets"),
}
# Members of a kind never import another member; what they share is named here.
KINDS = {
    "backends.datasets": ("backends.datasets.layout", "backends.datasets.reading"),
    "backends.mappers": ("backends.mappers.mixer_parts",),
    "backends.generators": (
        *("backends.generators.networks", "backends.generators.adapters"),
        *("backends.generators.gallery", "backends.generators.guidance"),
        *("backends.generators.weights", "backends.generators.tuning"),
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


def allowed(name: str) -> tuple[str, ...]:
    plain = name if name in MAY_IMPORT else name.removesuffix(".__init__")
    return MAY_IMPORT[max((rule for rule in MAY_IMPORT if under(plain, rule)), key=len)]


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_what_its_room_may(name):
    wrong = [
        m for m in imports(name, modules()[name]) if not any(under(m, a) for a in allowed(name))
    ]
    for kind, shared in KINDS.items():
        if under(name, kind):
            wrong = [m for m in wrong if not any(under(m, s) for s in shared)]
    assert not wrong, f"{name} imports {', '.join(wrong)}; it may import {allowed(name)}"


def test_the_rules_name_only_modules_that_exist():
    known = set(modules()) | {n.removesuffix(".__init__") for n in modules()}
    assert {rule for rule in MAY_IMPORT if rule not in known} == set()
    named = {m for rule in MAY_IMPORT.values() for m in rule} | set(KINDS)
    assert named - known == set()


def test_the_explorer_never_imports_the_backends():
    for name, path in modules().items():
        if under(name, "explorer"):
            assert not [m for m in imports(name, path) if under(m, "backends")], name


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


def test_starting_up_imports_nothing_heavy():
    listed = f"import sys, app; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", listed], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == ""


def test_heavy_libraries_have_one_home():
    """Open_clip and timm are for embedders, diffusers for what draws, gradio for the page."""
    homes = {
        "open_clip": ("backends.embedders", "backends.targets"),
        "timm": ("backends.targets",),
        "diffusers": ("backends.generators", "backends.targets"),
        "gradio": ("explorer.page", "app"),
        "nilearn": (
            *DRAWING,
            "explorer.parcels",
            "explorer.atlases",
            "backends.datasets",
            "backends.simulation",
            "backends.fetch",
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
