"""A folder of drawn pictures: how it is laid out, written whole, and read back.

It holds ``settings.json``, ``<subject>/<stimulus>-<sample>.png``, ``index.json`` (which file shows
which stimulus: `file_names` are not always their ids) and ``metrics.parquet``, one row a picture
with its file.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.files import guard, read_object
from explorer.images import read_picture
from explorer.types import UserError
from explorer.writing import write_whole

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

SETTINGS, METRICS, INDEX = "settings.json", "metrics.parquet", "index.json"
LONGEST = 120  # bytes of an id in a file's name
AGAIN = "make room on that disk and give the same command again, it goes on where it stopped"


def load(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the settings and the table of a folder of pictures; anything else is refused."""
    import pandas as pd

    if not (folder / METRICS).is_file():
        hint = "it is not finished" if (folder / SETTINGS).is_file() else "it holds no such table"
        raise UserError(
            f"{folder} has no {METRICS} ({hint}); make one with: python -m backends reconstruct "
            "--dataset NAME=PATH --out FOLDER"
        )
    again = "draw into a new folder"
    settings = read_object(folder / SETTINGS, again)
    with guard(folder / METRICS, "a table", again):
        table = pd.read_parquet(folder / METRICS)
    lacking = [key for key in ("dataset", "mapper", "generator") if key not in settings]
    lacking += [name for name in ("subject", "stimulus", "sample", "file") if name not in table]
    if lacking or not all(isinstance(name, str) for name in table["file"]):
        raise UserError(
            f"{folder} lacks {lacking[0] if lacking else 'names of files'!r} in {SETTINGS} or "
            f"{METRICS}; {again}."
        )
    owners = table.groupby(table["file"].map(str.casefold))["stimulus"].transform("nunique")
    shared = table[owners > 1]
    if len(shared):
        names = ", ".join(map(repr, dict.fromkeys(shared["stimulus"].head(2))))
        raise UserError(
            f"{folder} was made by a version that gave {names} one file, so pictures of one were "
            "lost; draw into a new folder with: python -m backends reconstruct --dataset "
            f"{settings['dataset']}=PATH --out FOLDER"
        )
    return settings, table


def pictures_of(
    bench: Workbench, folder: Path, subject: str
) -> tuple[list[str], list[np.ndarray], list[list[np.ndarray]]]:
    """Return the stimuli of a subject, the shown images, and S samples of drawn pictures."""
    settings, table = load(folder)
    mine = table[table["subject"] == subject]
    if mine.empty:
        known = ", ".join(dict.fromkeys(table["subject"]))
        raise UserError(f"{folder} has no pictures of {subject}; it has those of {known}.")
    stimuli = list(dict.fromkeys(mine["stimulus"]))
    shown = [bench.catalogue.image(settings["dataset"], stimulus) for stimulus in stimuli]
    made = []
    for _, one in mine.groupby("sample", sort=True):
        files = one.set_index("stimulus").loc[stimuli, "file"]
        pictures = []
        for file in files:
            pictures.append(read_picture(folder / file, missing="run reconstruct again"))
        made.append(pictures)
    return stimuli, shown, made


def file_names(stimuli: Sequence[str]) -> dict[str, str]:
    """Return stimulus -> what its files are called, without ending: readable, and each another.

    Characters that not every disk takes become ``_``. Ids that are then the same, also to a disk
    that knows no case or another Unicode form, and long ones, get a part of their hash. A name
    depends on all of ``stimuli``: give all test stimuli of a subject, whatever is drawn.
    """
    plain = {one: re.sub(r"[^\w.-]", "_", one) for one in stimuli}
    seen = Counter(map(_folded, plain.values()))
    found = {}
    for one, name in plain.items():
        digest = hashlib.sha256(one.encode("utf-8", "surrogatepass")).hexdigest()
        if seen[_folded(name)] == 1 and len(name.encode("utf-8", "replace")) <= LONGEST:
            found[one] = name
        else:
            found[one] = f"{name[: LONGEST // 4]}-{digest[:12]}"
    if len({_folded(name) for name in found.values()}) < len(found):
        raise UserError(
            "Ids of stimuli and parts of their hashes are the same as other ids, so their "
            "pictures cannot have files of their own; rename one of them."
        )
    return found


def _folded(name: str) -> str:
    """Return a name as disks compare it that know neither case nor forms of Unicode."""
    return unicodedata.normalize("NFKC", name).casefold()


def write_index(folder: Path, files: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Write which files show which stimulus: subject -> stimulus -> one file a sample."""
    content = json.dumps(files, indent=1, ensure_ascii=False) + "\n"
    write_whole(folder / INDEX, content.encode("utf-8"), AGAIN)


def write_table(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Write rows as Parquet, whole or not at all."""
    import pandas as pd

    table = pd.DataFrame(rows)
    write_whole(file, lambda path: table.to_parquet(path, index=False), AGAIN)
