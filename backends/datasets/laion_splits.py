"""LAION-fMRI's own splits, from the package ``laion_fmri`` or a copy of its folder of splits.

Twelve names in six pools, ``{pool}/{name}.json`` with ``variants[0]``'s ``train_ids`` and
``test_ids``, which are labels. Names changed their meaning between versions (``random_*``), so the
version is told with them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

from explorer.files import read_object
from explorer.types import UserError

NAMES = (*(f"random_{i}" for i in range(5)), *(f"cluster_k5_{i}" for i in range(5)), "tau", "ood")
OOD = (
    *("cropped", "gabor", "gaudy", "illusion-classic", "illusion-natural", "relations"),
    *("selfmade", "shape", "unusual"),
)
OOD_NAME = re.compile(r"shared_4rep_OOD_([a-zA-Z0-9-]+)_.+")
PACKAGE = "laion_fmri"


def ood_type(label: str) -> str:
    """Return which of the nine kinds of out-of-distribution picture a label names, "" for none."""
    found = OOD_NAME.match(label)
    return found[1] if found else ""


def splits_folder(given: str, root: Path) -> tuple[Path, str]:
    """Return the folder of pools and the package's version ("" where nothing says it)."""
    if given:
        place = Path(given).expanduser()
        if not (place / "shared").is_dir():
            raise UserError(
                f"splits={given} has no folder shared; give laion_fmri/splits/data of the package."
            )
        return place, _version_beside(place)
    for place in (root / "splits", root / "splits" / "data"):
        if (place / "shared").is_dir():
            return place, _version_beside(place)
    spec = importlib.util.find_spec(PACKAGE)
    if spec is not None and spec.submodule_search_locations:
        place = Path(spec.submodule_search_locations[0]) / "splits" / "data"
        if (place / "shared").is_dir():
            return place, importlib.metadata.version("laion-fmri")
    raise UserError(
        "LAION-fMRI's splits are not here: pip install laion-fmri, or name a copy of its "
        "laion_fmri/splits/data with ?splits=FOLDER."
    )


def _version_beside(place: Path) -> str:
    for folder in (place, *list(place.parents)[:3]):
        file = folder / "pyproject.toml"
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            if found := re.search(r'^version\s*=\s*"([^"]+)"', text, re.MULTILINE):
                return found[1]
    return ""


def read_split(folder: Path, name: str, pool: str) -> tuple[set[str], set[str]]:
    """Return the labels of the training and the test pictures of a split in a pool."""
    file = folder / pool / f"{name}.json"
    if name not in NAMES or not file.is_file():
        here = sorted(p.stem for p in (folder / pool).glob("*.json"))
        raise UserError(
            f"{folder / pool} has no split {name!r}; choose one of {', '.join(here or NAMES)}, or "
            "shared."
        )
    variants = read_object(file).get("variants")
    first = variants[0] if isinstance(variants, list) and variants else {}
    parts = [
        first.get(key) if isinstance(first, dict) else None for key in ("train_ids", "test_ids")
    ]
    if not all(isinstance(p, list) and p and all(isinstance(s, str) for s in p) for p in parts):
        raise UserError(
            f"{file} needs variants[0] with train_ids and test_ids, lists of labels; take the "
            "file as it was published."
        )
    train, test = (set(part) for part in parts)
    if train & test:
        raise UserError(f"{file}: {min(train & test)!r} is in train and in test.")
    return train, test
