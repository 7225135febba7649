"""Which stimulus each trial showed, from BIDS ``events.tsv`` files, one a run.

Runs come in the order of their names' entities: subject, then session, then run (numbers by value,
other labels by the alphabet). Within a run, trials come in the order of their onsets. That is the
order of GLMsingle's betas where its runs were given in this order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explorer.files import read_table, short
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("stim_file", "stimulus", "trial_type")  # where a stimulus may be named, best first
ABSENT = ("", "n/a")  # BIDS writes n/a in an empty cell
ENTITY = re.compile(r"(?:^|_)([a-zA-Z]+)-([a-zA-Z0-9+]+)(?=_|\.|$)")
ENDING = "_events.tsv"


def entities(path: Path) -> dict[str, str]:
    """Return the BIDS entities of a path, ``{"sub": "01", "ses": "02"}``; the file's own win."""
    found: dict[str, str] = {}
    for part in path.parts:
        found |= dict(ENTITY.findall(part))
    return found


def in_order(label: str) -> tuple[int, int, str]:
    """Return what sorts labels: none, then numbers by value, then other words."""
    if not label:
        return 0, 0, ""
    return (1, int(label), label) if label.isdecimal() else (2, 0, label)


@dataclass(frozen=True, eq=False)
class Run:
    """The trials of a run in the order of their onsets.

    ``trials``: columns ``stimulus`` (the cell that names it), ``row`` (in the file, from 0, the
    header not counted), ``onset`` and every column of the file. ``left_out``: rows that are none.
    """

    file: Path
    subject: str
    session: str
    run: str
    trials: pd.DataFrame
    left_out: int

    @property
    def name(self) -> str:
        """What a sentence calls it, ``ses-01 run-2``."""
        parts = [("ses", self.session), ("run", self.run)]
        return " ".join(f"{key}-{value}" for key, value in parts if value) or self.file.name


def find_events(given: str) -> list[Path]:
    """Return the events files that a file, a folder or a pattern (``**/*_events.tsv``) names."""
    path = Path(given).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        files = sorted(path.rglob(f"*{ENDING}"))
    else:
        root = Path(path.anchor or ".")
        pattern = str(path.relative_to(path.anchor)) if path.anchor else str(path)
        try:
            files = sorted(f for f in root.glob(pattern) if f.is_file())
        except (ValueError, OSError) as error:
            raise UserError(f"--events {given!r} is no pattern of files ({error}).") from error
    if not files:
        raise UserError(
            f"--events {given}: no events file is there; give a file, a folder with "
            f"*{ENDING} or a pattern in quotes."
        )
    return files


def read_runs(
    files: Sequence[Path], column: str = "", leave_out: Sequence[str] = ()
) -> tuple[list[Run], str]:
    """Return the runs in order, and the column that names their stimuli.

    Parameters
    ----------
    files
        Events files.
    column
        Which column names the stimulus; "" is the first of `COLUMNS` that every file has.
    leave_out
        Patterns (``blank*``): a row is no trial where its ``trial_type`` or its stimulus fits one.
    """
    tables = {file: read_table(file, do="mend it") for file in files}
    if not column:
        shared = [c for c in COLUMNS if all(c in table for table in tables.values())]
        if not shared:
            names = short(", ".join(map(str, next(iter(tables.values())))))
            raise UserError(
                f"{files[0]}: the events have none of the columns {', '.join(COLUMNS)} in every "
                f"file, so say which names the stimulus with --column; it has {names}."
            )
        column = shared[0]
    runs = [_run(file, table, column, leave_out) for file, table in tables.items()]
    runs.sort(key=_place)
    for before, after in zip(runs, runs[1:], strict=False):
        if _place(before) == _place(after):
            raise UserError(
                f"{before.file.name} and {after.file.name} name the same session and run, so "
                "nothing says which comes first; give the files of one task with --events, as a "
                "pattern in quotes."
            )
    for pattern in leave_out:
        if not any(_fits(t, column, [pattern]).any() for t in tables.values()):
            raise UserError(
                f"--leave-out {pattern!r} fits no row; trial_type and {column} hold "
                f"{_values(tables.values(), column)}."
            )
    return runs, column


def excess(runs: Sequence[Run], column: str, count: int) -> str:
    """Return which value's trials are as many as the events have too many, "" for none.

    Catch trials and blanks stand in events files and are often no part of a GLM.
    """
    too_many = sum(len(run.trials) for run in runs) - count
    for where in dict.fromkeys(("trial_type", column)):
        cells = [c for run in runs if where in run.trials for c in run.trials[where]]
        for value in dict.fromkeys(cells):
            if too_many > 0 and cells.count(value) == too_many < len(cells):
                return value
    return ""


def _run(file: Path, table: pd.DataFrame, column: str, leave_out: Sequence[str]) -> Run:
    for needed in ("onset", column):
        if needed not in table:
            raise UserError(
                f"{file} lacks the column {needed!r}; it has {short(', '.join(map(str, table)))}."
            )
    try:
        onset = table["onset"].astype(float).to_numpy()
    except ValueError as error:
        raise UserError(f"{file}: onset needs seconds in every row ({error}).") from error
    if not np.isfinite(onset).all():
        raise UserError(f"{file}: onset needs seconds in every row, found {onset.min():g}.")
    keep = ~table[column].isin(ABSENT).to_numpy() & ~_fits(table, column, leave_out)
    trials = table.assign(stimulus=table[column], row=np.arange(len(table)), onset=onset)[keep]
    twice = trials["onset"][trials["onset"].duplicated()]
    if len(twice):
        raise UserError(
            f"{file}: two trials begin at {twice.iloc[0]:g} s, so their order is unknown; leave "
            "out the rows that are no trials with --leave-out."
        )
    named = entities(file)
    who = [named.get(key, "") for key in ("sub", "ses", "run")]
    return Run(file, *who, trials.sort_values("onset", ignore_index=True), int((~keep).sum()))


def _place(run: Run) -> tuple[tuple[int, int, str], ...]:
    return in_order(run.subject), in_order(run.session), in_order(run.run)


def _fits(table: pd.DataFrame, column: str, patterns: Sequence[str]) -> np.ndarray:
    """Return bool (rows,): whose trial type or stimulus fits a pattern."""
    fits = np.zeros(len(table), bool)
    for where in {"trial_type", column} & set(table):
        found = [any(fnmatchcase(cell, p) for p in patterns) for cell in table[where]]
        fits |= np.array(found, dtype=bool)
    return fits


def _values(tables: object, column: str) -> str:
    """Return some of the values by which rows can be told apart, for a sentence."""
    found = dict.fromkeys(
        cell for t in tables for where in ("trial_type", column) if where in t for cell in t[where]
    )
    return short(", ".join(found)) or "nothing"
