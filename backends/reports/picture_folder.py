"""A folder of drawn pictures: how it is laid out, written whole, and read back.

It holds ``settings.json``, ``<subject>/<stimulus>-<sample>.png`` and ``metrics.parquet``, one row
a picture with its file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.images import read_picture
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

SETTINGS, METRICS = "settings.json", "metrics.parquet"


def load(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the settings and the table of a folder of pictures; anything else is refused."""
    import pandas as pd

    if not (folder / METRICS).is_file():
        hint = "it is not finished" if (folder / SETTINGS).is_file() else "it holds no such table"
        raise UserError(
            f"{folder} has no {METRICS} ({hint}); python -m backends reconstruct makes one."
        )
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    return settings, pd.read_parquet(folder / METRICS)


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


def write_whole(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    part = file.with_name(f"{file.name}.part")
    part.write_bytes(content)
    part.replace(file)


def write_table(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Write rows as Parquet, whole or not at all."""
    import pandas as pd

    part = file.with_name(f"{file.name}.part")
    pd.DataFrame(rows).to_parquet(part, index=False)
    part.replace(file)
