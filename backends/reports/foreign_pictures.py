"""Pictures that others made, and what was shown for them, to be scored: no mapper, no brain.

What was shown comes from a data set, whose test images the pictures are of (the readers and orders
of ``--published``), or from pictures of its own: a folder, zip or array that holds as many
pictures, in the same order or under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.picture_files import is_zip, pictures_in
from backends.datasets.published import (
    BESIDE,
    check_range,
    is_array,
    open_array,
    row,
    to_bytes,
)
from backends.generators.published import TRUTH
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

Read = Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False)
class Shown:
    """What was shown to one person, and what was made of it.

    ``subject``: whose; ``stimuli``: n ids; ``shown``: n images uint8 (H, W, 3); ``made``: S
    samples of n pictures, in the order of ``stimuli``. ``notes``: what was left out.
    """

    subject: str
    stimuli: list[str]
    shown: list[np.ndarray]
    made: list[list[np.ndarray]]
    notes: tuple[str, ...] = ()


def pairs_of(path: Path, shown: Path | None = None, samples: str = "") -> Shown:
    """Return pictures that others made with copies of what was shown, whatever they are called.

    Parameters
    ----------
    path
        A folder or zip of pictures, or a ``.pt`` or ``.npy`` array (N, 3, H, W) or (N, H, W, 3).
    shown
        Where what was shown lies, in one of the same forms; None: beside the pictures, as
        ``all_images.pt`` (MindEye2) or as files named ``*_gt`` (DynaDiff).
    samples
        How many pictures of equal width lie side by side in a file of the folder.
    """
    if shown is None:
        made, truths = _with_copies(path)
    else:
        made, truths = pictures_by_name(path), pictures_by_name(shown)
    where = shown or "what was shown"
    both = [name for name in made if name in truths]
    rows = is_array(path) or (shown is not None and is_array(shown))
    if set(made) != set(truths) and rows:
        made, truths = _by_number(made), _by_number(truths)
        both = [name for name in made if name in truths]
    if len(both) < max(2, len(made)) or (rows and len(made) != len(truths)):  # whose is which row?
        odd = next((name for name in made if name not in truths), "")
        raise UserError(
            f"{path} holds {len(made)} pictures and {where} {len(truths)}, of which {len(both)} "
            "have the same "
            + (f"name (first without: {odd}); " if odd else "name; ")
            + "give as many of both, 2 or more, in one order or under the same names."
        )
    pictures, notes = [made[name]() for name in both], ()
    if len(both) < len(truths):
        notes = (f"{path} has pictures of {len(both)} of the {len(truths)} that were shown.",)
    seen = [truths[name]() for name in both]
    return Shown(path.stem, both, seen, _cut(pictures, samples, path), notes)


def has_copies(path: Path) -> bool:
    """Return whether copies of what was shown lie beside pictures, see `pairs_of`."""
    if is_array(path):
        return (path.parent / BESIDE).is_file() and path.name != BESIDE
    if not path.is_dir() and not is_zip(path):
        return False
    return any(file.stem.endswith(TRUTH) for file in pictures_in(path))


def _with_copies(path: Path) -> tuple[dict[str, Read], dict[str, Read]]:
    """Return pictures by name, and the copies of what was shown that lie beside them."""
    if is_array(path):
        return pictures_by_name(path), pictures_by_name(path.parent / BESIDE)
    found = pictures_by_name(path)
    truths = {k.removesuffix(TRUTH): read for k, read in found.items() if k.endswith(TRUTH)}
    return {k: read for k, read in found.items() if not k.endswith(TRUTH)}, truths


def pictures_by_name(path: Path) -> dict[str, Read]:
    """Return what reads each picture of a folder, zip or array, by name or row; else refuse."""
    if is_array(path):
        stored = open_array(path)
        shape = tuple(stored.shape)
        if len(shape) != 4 or 3 not in (shape[1], shape[3]) or min(shape) < 1:
            raise UserError(f"{path} has shape {shape}, expected pictures (N, 3, H, W).")
        check_range(stored, str(path))
        return {str(i): partial(_row, path, stored, i) for i in range(len(stored))}
    if not path.is_dir() and not is_zip(path):
        raise UserError(
            f"{path} is no folder or zip of pictures and no .pt or .npy array of them; give one "
            "of these."
        )
    files = pictures_in(path)
    if not files:
        raise UserError(
            f"{path} holds no pictures by themselves; give the folder in which they lie."
        )
    named = {file.stem: file.read for file in files}
    if len(named) < len(files):
        stems = [file.stem for file in files]
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise UserError(f"{path} holds two pictures called {twice}; take one of them away.")
    return named


def _row(path: Path, stored: object, index: int) -> np.ndarray:
    return to_bytes(row(stored, index), f"{path}, picture {index} (from 0)")


def _by_number(pictures: dict[str, Read]) -> dict[str, Read]:
    """Return pictures whose names are numbers (``0``, ``00001``) in their order, from 0."""
    if not all(name.isascii() and name.isdecimal() for name in pictures):
        return pictures
    ordered = sorted(pictures, key=int)
    numbers = [int(name) for name in ordered]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] > 1:
        return pictures  # some are missing: nobody knows which row is whose
    return {str(i): pictures[name] for i, name in enumerate(ordered)}


def _cut(pictures: Sequence[np.ndarray], samples: str, path: Path) -> list[list[np.ndarray]]:
    """Return S samples of pictures that hold S side by side."""
    height, width = pictures[0].shape[:2]
    if not samples and width > height and width % height == 0:
        raise UserError(
            f"The pictures in {path} are {width // height} times as wide as high; say ?samples="
            f"{width // height} if each holds that many side by side, else ?samples=1."
        )
    if samples and (not samples.isdecimal() or not int(samples)):
        raise UserError(f"samples is how many pictures lie side by side, found {samples!r}.")
    count = int(samples or 1)
    odd = [one.shape[1] for one in pictures if one.shape[1] % count]
    if odd:
        raise UserError(
            f"{path} holds a picture {odd[0]} pixels wide, which is not {count} of equal width."
        )
    return [
        [
            np.ascontiguousarray(one[:, k * one.shape[1] // count :][:, : one.shape[1] // count])
            for one in pictures
        ]
        for k in range(count)
    ]


def published_of(bench: Workbench, name: str) -> tuple[str, Shown]:
    """Return the data set, and the pictures, of what a bench has open as published."""
    result = bench.catalogue.pictures.get(name)
    if result is None:
        kind = "predictions, which are no pictures" if name in bench.catalogue.predictions else ""
        raise UserError(
            f"--published {name} holds {kind or 'no pictures'}; give a folder, zip or array of "
            "pictures."
        )
    if len(result.readers) > 1:
        known = ", ".join(f"{scale:g}" for scale in result.readers)
        raise UserError(
            f"{name} has pictures of the scales {known}; choose one with ?scale=, a table is of "
            "one of them."
        )
    ((_, readers),) = result.readers.items()
    counts = [int(option.high) for option in result.options if option.name == "sample"]
    test = bench.catalogue.trials(result.dataset, result.subject).stimuli("test")
    stimuli = [stimulus for stimulus in test if stimulus in readers]
    made = [[readers[s](k + 1) for s in stimuli] for k in range(counts[0] if counts else 1)]
    shown = [bench.catalogue.image(result.dataset, stimulus) for stimulus in stimuli]
    notes = list(result.problems)
    if len(stimuli) < len(test):
        notes.append(
            f"{name} has pictures of {len(stimuli)} of {len(test)} test images; the table is of "
            "those."
        )
    return result.dataset, Shown(result.subject, stimuli, shown, made, tuple(notes))
