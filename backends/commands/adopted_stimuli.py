"""The stimuli of somebody's own events: their ids, their pictures, and which of them are test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from backends.commands.adoption import Person
from explorer.files import read_text, short
from explorer.images import ENDINGS
from explorer.types import SPLITS, UserError


def name_stimuli(cells: Sequence[str]) -> dict[str, str]:
    """Return cell -> id: its file's name without ending; its path where two would be one."""
    stems = {}
    for cell in dict.fromkeys(cells):
        path = Path(cell)
        stems[cell] = path.stem if path.suffix.lower() in ENDINGS else path.name
    often = Counter(stems.values())
    named = {cell: cell.replace("/", "_") if often[s] > 1 else s for cell, s in stems.items()}
    if len(set(named.values())) < len(named):
        twice = next(i for i, times in Counter(named.values()).items() if times > 1)
        raise UserError(
            f"Two stimuli of the events would both be called {short(twice)!r}; rename one."
        )
    return named


def find_pictures(stimuli: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Return id -> file of the pictures in a folder: at the cell's path, else of its name."""
    if not folder.is_dir():
        raise UserError(f"--stimuli {folder} is no folder.")
    named: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in ENDINGS:
            for key in {file.name, file.stem}:
                named.setdefault(key, []).append(file)
    found = {}
    for cell, stimulus in stimuli.items():
        exact = folder / cell.lstrip("/")
        inside = exact.is_file() and exact.resolve().is_relative_to(folder.resolve())
        of_name = named.get(Path(cell).name) or named.get(stimulus, [])
        if inside and exact.suffix.lower() in ENDINGS:
            found[stimulus] = exact
        elif len(of_name) == 1:
            found[stimulus] = of_name[0]
    return found


def by_repeats(found: Sequence[Person], stimuli: Mapping[str, str], least: int) -> dict[str, str]:
    """Return id -> split: test where somebody saw it at least so many times."""
    split = dict.fromkeys(stimuli.values(), "train")
    for person in found:
        shown = person.trials["stimulus"].map(stimuli).value_counts()
        split |= dict.fromkeys(shown.index[shown >= least], "test")
    return split


def by_column(found: Sequence[Person], stimuli: Mapping[str, str], column: str) -> dict[str, str]:
    """Return id -> split as a column of the events says, train or test."""
    split: dict[str, str] = {}
    for person in found:
        if column not in person.trials:
            raise UserError(f"--split-column {column}: the events have no such column.")
        said = person.trials[column].fillna("").str.lower()
        for cell, value in zip(person.trials["stimulus"], said, strict=True):
            if value not in SPLITS:
                raise UserError(
                    f"--split-column {column} holds train or test in every trial, found "
                    f"{short(value)!r}."
                )
            if split.setdefault(stimuli[cell], value) != value:
                raise UserError(
                    f"--split-column {column}: {short(cell)!r} is both train and test; a "
                    "stimulus is one."
                )
    return split


def by_list(file: Path, stimuli: Mapping[str, str]) -> dict[str, str]:
    """Return id -> split: test where a text file has a line with the cell, name or id."""
    lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    known = {n: i for cell, i in stimuli.items() for n in (cell, Path(cell).name, i)}
    unknown = [line for line in lines if line not in known]
    if unknown:
        raise UserError(
            f"{file}: {len(unknown)} of {len(lines)} lines name no stimulus of the events, first "
            f"{short(unknown[0])!r}."
        )
    test = {known[line] for line in lines}
    return {i: "test" if i in test else "train" for i in stimuli.values()}
