"""Which stimulus a published picture is of: by its name, a list, or a number and an order."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.datasets.picture_files import IDS, PictureFile, pictures_in
from backends.datasets.published import NSD_ID, named_stimuli, nsd_id, stimuli_in_order
from explorer.protocols import Dataset
from explorer.types import UserError

NUMBERED = re.compile(r"(\D*)\d+", re.ASCII)
COMPARED = 12  # copies of shown images that are compared at once: our choice


def named(
    folder: Path,
    files: list[PictureFile],
    shown: Sequence[str],
    who: str,
    truths: Mapping[str, PictureFile],
) -> tuple[dict[str, PictureFile], dict[str, PictureFile]]:
    """Return stimulus -> its picture, and its copy of what was shown, by names of files."""
    like = [f for f in files if f.stem in set(shown) or nsd_id(f.stem) or NSD_ID.fullmatch(f.stem)]
    if not set(shown) & {f.stem if f.stem in set(shown) else nsd_id(f.stem) for f in like}:
        first = files[0].stem if files else next(iter(truths))
        raise UserError(
            f"No picture in {folder} is named like a test image of {who} ({first} is none, "
            f"{shown[0]} is one); "
            + (
                "numbers from 0 need ?order=ascending, ?order=appearance or ?order=FILE."
                if first.isdecimal()
                else "rename them, or choose the data set and subject that they are of."
            )
        )
    stimuli = named_stimuli([f.stem for f in like], shown, str(folder), who)
    return _with_truths(once(list(zip(stimuli, like, strict=True))), truths)


def by_ids(
    folder: Path,
    files: list[PictureFile],
    ids: Mapping[str, str],
    shown: Sequence[str],
    who: str,
    truths: Mapping[str, PictureFile],
) -> tuple[dict[str, PictureFile], dict[str, PictureFile]]:
    """Return stimulus -> its picture, and its copy of what was shown, by ``image_ids.csv``."""
    there = {file.name: file for file in files}
    absent = [name for name in ids if name not in there]
    if absent:
        raise UserError(
            f"{folder}: {IDS} names {len(absent)} of {len(ids)} files that are not there (first "
            f"{absent[0]}); copy the pictures and the list together."
        )
    unnamed = [name for name in there if name not in ids]
    if unnamed:
        raise UserError(
            f"{folder} has {len(unnamed)} pictures that {IDS} does not name (first {unnamed[0]}); "
            "copy the list again, or take them out."
        )
    stimuli = named_stimuli(list(ids.values()), shown, f"{folder}, {IDS}", who)
    return _with_truths(once([(s, there[n]) for s, n in zip(stimuli, ids, strict=True)]), truths)


def _with_truths(
    named: dict[str, PictureFile], truths: Mapping[str, PictureFile]
) -> tuple[dict[str, PictureFile], dict[str, PictureFile]]:
    return named, {s: truths[f.stem] for s, f in named.items() if f.stem in truths}


def numbered(
    folder: Path,
    files: list[PictureFile],
    whose: tuple[Dataset, str],
    order: tuple[str, str],
    first: str,
    truths: Mapping[str, PictureFile],
) -> tuple[dict[str, PictureFile], dict[str, PictureFile]]:
    """Return stimulus -> its picture, and its copy of what was shown, by an order.

    Numbers may follow one and the same text in every name (``img_0.png``, ``img_1.png``).
    """
    starts = {match[1] for f in files if (match := NUMBERED.fullmatch(f.stem))}
    start = next(iter(starts)) if len(starts) == 1 else ""
    stems = [(f.stem.removeprefix(start), f) for f in files]
    numbers = once([(int(stem), f) for stem, f in stems if stem.isdecimal()])
    begin = _first_number(folder, numbers, first)
    highest = max(numbers, default=-1)
    # numbers with gaps are examples; without gaps they must be all there are
    count = len(numbers) if highest + 1 - begin == len(numbers) else None
    stimuli = stimuli_in_order(folder, count, *whose, *order)
    if highest - begin >= len(stimuli):
        last = len(stimuli) - 1 + begin
        raise UserError(
            f"{folder} has a picture {highest}, and the {len(stimuli)} images in this "
            f"order have the numbers {begin} to {last}; choose another order"
            + (", or ?first=1 if the first number is 1." if not begin else ".")
        )
    return _with_truths({stimuli[i - begin]: f for i, f in sorted(numbers.items())}, truths)


def _first_number(folder: Path, numbers: Collection[int], first: str) -> int:
    """Return the number of the first picture, 0 or 1: a part of them may not show which."""
    if first:
        return int(first)
    if numbers and 0 not in numbers:
        raise UserError(
            f"{folder} has no picture 0 (the lowest is {min(numbers)}), so whether its "
            "numbers begin with 0 or with 1 is not known; say it with ?first=0 or ?first=1."
        )
    return 0


def once(pairs: list[tuple[Any, PictureFile]]) -> dict[Any, PictureFile]:
    """Return name -> file; two files of one name (0.png, 00000.png, 0.jpg) are refused."""
    found: dict[Any, PictureFile] = {}
    for name, file in pairs:
        other = found.setdefault(name, file)
        if other is not file:
            raise UserError(
                f"{other.parent} has two pictures for {name}: {other.name} and {file.name}; "
                "remove one of them."
            )
    return found


def some(files: Mapping[str, PictureFile]) -> dict[str, PictureFile]:
    """Return a few of some files, spread over all."""
    names = list(files)
    kept = np.unique(np.linspace(0, len(names) - 1, min(len(names), COMPARED)).astype(int))
    return {names[i]: files[names[i]] for i in kept}


def numbered_folders(path: Path) -> dict[float, dict[float, Path]]:
    """Return scale -> strength -> folder that holds pictures."""

    def by_number(folder: Path) -> dict[float, Path]:
        inner = sorted(p for p in folder.iterdir() if p.is_dir() and _is_number(p.name))
        return {float(p.name): p for p in inner}

    found = {
        scale: {at: inner for at, inner in by_number(folder).items() if pictures_in(inner)}
        for scale, folder in by_number(path).items()
    }
    return {scale: inner for scale, inner in sorted(found.items()) if inner}


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text)) and float(text) >= 0
    except ValueError:
        return False


def number(text: str, name: str) -> float:
    """Return the number in an option, from 0."""
    if not _is_number(text):
        raise UserError(f"{name} is a number from 0, found {text!r}.")
    return float(text)


def listed(numbers: Collection[float]) -> str:
    """Return numbers for a sentence."""
    return ", ".join(f"{number:.10g}" for number in numbers)
