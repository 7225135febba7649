"""What NSD's files are called, whom they are of, and maps over volumes and surfaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from explorer import files

VERTICES = 163_842  # fsaverage, one hemisphere
BUCKET = "s3://natural-scenes-dataset (after the form on naturalscenesdataset.org)"
AGAIN = f"copy it again from {BUCKET}"
MIXED = "two subjects' files are mixed; copy them again from their own folders"

SPACES = {"func1pt8mm": "func1pt8", "func1mm": "func1pt0", "fsaverage": ""}  # and in transforms
PREPARATIONS = {
    "b3": "betas_fithrf_GLMdenoise_RR",
    "b2": "betas_fithrf",
    "b1": "betas_assumehrf",
}
SIDES = {"lh": "L", "rh": "R"}


class Person(NamedTuple):
    """What is known of a participant: sessions, nsdgeneral's voxels and the volume at 1.8 mm."""

    sessions: int
    voxels: int
    shape: tuple[int, int, int]


PEOPLE = {
    "subj01": Person(40, 15724, (81, 104, 83)),
    "subj02": Person(40, 14278, (82, 106, 84)),
    "subj03": Person(32, 15226, (81, 106, 82)),
    "subj04": Person(30, 13153, (85, 99, 80)),
    "subj05": Person(40, 13039, (79, 97, 78)),
    "subj06": Person(32, 17907, (85, 113, 83)),
    "subj07": Person(40, 12682, (78, 95, 81)),
    "subj08": Person(30, 14386, (80, 103, 78)),
}  # NSD data manual; voxel counts: MindEyeV2 src/models.py


def read_map(path: Path) -> np.ndarray:
    """Return float32 values of a small volume (X, Y, Z) or surface (vertices, 1, 1 ...)."""
    return files.volume_data(open_volume(path), path, dtype=np.float32, do=AGAIN)


def open_volume(path: Path) -> Any:
    """Return a volume or surface of which only the header is read, held against the file."""
    return files.open_volume(path, what="", do=AGAIN, keep_file_open=True)


def size(shape: tuple[int, ...]) -> str:
    """Return 81 x 104 x 83."""
    return " x ".join(map(str, shape))


def whose_shape(shape: tuple[int, ...], subject: str) -> str:
    """Return whose volume this is in parentheses, or "" for nobody's or the subject's own."""
    owner = [who for who, p in PEOPLE.items() if p.shape == tuple(shape)]
    return f" (the size of {owner[0]} at 1.8 mm)" if owner and owner[0] != subject else ""
