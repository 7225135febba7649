"""Trials that arrive while somebody looks: files of a plain folder that are still being written.

A file is read when it is whole, never before. ``new/*.npz`` hold a trial each: a zip's list of
contents is written last, and every part has a checksum, so half of one cannot be taken for a
whole. ``betas.npy`` may grow too: its header says how long it is, and ``trials.tsv``, which has as
many rows, ends with a line's end. Whoever writes need not rename anything, and may be killed.
"""

from __future__ import annotations

import functools
import os
import re
import zipfile
import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.reading import LazyRows, npz_array, npz_names, stacked
from explorer import files
from explorer.types import SPLITS, Origin, UserError

if TYPE_CHECKING:
    import pandas as pd

NEW = "new"  # the folder of a subject in which trials arrive
KEPT_TRIALS = 4096  # as they were read: 63 kB each at 15,724 voxels
FIELDS = {"stimulus": "", "split": "test", "session": 1, "run": 1}  # beside betas; with defaults
USUAL_ROWS = 32  # earlier trials that a new one's spread is held against
FAR = 30.0  # times their spread: another unit, not another trial; our choice


@dataclass(frozen=True, eq=False)
class Arrived:
    """One trial of ``new/``: betas float32 (V,), and what ``trials.tsv`` says of others."""

    file: Path
    betas: np.ndarray
    row: Mapping[str, Any]


class UnfinishedError(UserError):
    """A file that is not whole: it is being written, or whoever wrote it was killed."""


def stamp(files_: Sequence[Path]) -> Hashable:
    """Return what changes whenever one of some files, or of the trials in ``new/``, does."""
    found = []
    for path in files_:
        try:
            inside = sorted(path.glob("*.npz")) if path.name == NEW else [path]
            about = [(str(one), one.stat()) for one in inside]
        except OSError:  # not there (yet), or moved between listing and looking
            about = []
        found += [(name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in about]
    return tuple(found)


def read_new(folder: Path, unfinished: list[str] | None = None) -> list[Arrived]:
    """Return the trials of a subject's ``new/``, in the order of their names, 9 before 10.

    A file that is not whole raises `UnfinishedError`, and one that holds no trial `UserError`; or
    either adds its sentence to ``unfinished``: one bad file must not hold up the others.
    """
    found = []
    for file in sorted((folder / NEW).glob("*.npz"), key=_by_name):
        try:
            about = file.stat()
            found.append(_read(file, (about.st_ino, about.st_size, about.st_mtime_ns)))
        except FileNotFoundError:  # taken away since it was listed
            continue
        except UserError as error:
            if unfinished is None:
                raise
            unfinished.append(str(error))
    return found


def sound(
    arrived: Sequence[Arrived],
    table: pd.DataFrame,
    known: Any,
    stored: LazyRows,
    by_stimulus: bool,
    unfinished: list[str] | None = None,
) -> list[Arrived]:
    """Return the trials that fit those of ``betas.npy``; others raise, or add their sentences.

    Parameters
    ----------
    arrived
        As `read_new` gives them.
    table
        The trials of ``trials.tsv``.
    known
        Ids of the stimuli, which a trial may show.
    stored
        Betas (n, V) of those trials: a new one has as many, in the same unit.
    by_stimulus
        Whether a stimulus is train or test and never both.
    unfinished
        As in `read_new`.
    """
    split = dict(zip(table["stimulus"], table["split"], strict=True)) if by_stimulus else {}
    usual = 0.0
    if arrived and len(stored):
        rows = stored.unchecked(np.arange(len(stored))[-USUAL_ROWS:])
        usual = float(np.median(np.std(rows, axis=1)))
    found = []
    for one in arrived:
        why = _unfit(one, known, stored.shape[1], usual, split)
        if not why:
            found.append(one)
            if by_stimulus:
                split.setdefault(one.row["stimulus"], one.row["split"])
        elif unfinished is None:
            raise UserError(why)
        else:
            unfinished.append(why)
    return found


def _unfit(one: Arrived, known: Any, v: int, usual: float, split: Mapping[str, str]) -> str:
    """Return why a trial does not belong to the others, one sentence, "" where it does."""
    stimulus, spread = one.row["stimulus"], float(np.std(one.betas))
    if stimulus not in known:
        return f"{one.file} shows the stimulus {stimulus!r}, which stimuli.tsv does not name."
    if split.get(stimulus, one.row["split"]) != one.row["split"]:
        return (
            f"{one.file} shows the stimulus {stimulus!r} as {one.row['split']}, which is "
            f"{split[stimulus]} in the trials before it; splits are by stimulus."
        )
    if len(one.betas) != v:
        return (
            f"{one.file} has {len(one.betas)} betas, betas.npy has {v} a trial; save the same "
            "voxels in the same order."
        )
    if usual > 0 and not usual / FAR < spread < usual * FAR:
        return (
            f"{one.file}: the SD over its voxels is {spread:.3g}, that of the trials in betas.npy "
            f"about {usual:.3g}; save it in the same unit."
        )
    return ""


def _by_name(file: Path) -> list[tuple[int, str]]:
    """Return what sorts names with the numbers in them as numbers."""
    parts = re.split(r"([0-9]+)", file.stem)
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)] + [
        (0, file.stem)
    ]


@functools.lru_cache(maxsize=KEPT_TRIALS)
def _read(file: Path, _: Hashable) -> Arrived:
    """Return one trial; the second argument is the file's stamp, by which it is kept."""
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()  # every byte against its checksum
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        # the last: a damaged byte that asks for a password or an unknown packing
        raise _unfinished(file, str(error)) from error
    if broken:
        raise _unfinished(file, f"{broken} fails its checksum")
    names = npz_names(file)
    lacking = {"betas", "stimulus"} - set(names)
    other = set(names) - {"betas", *FIELDS}
    if lacking or other:
        raise UserError(
            f"{file} needs betas and stimulus, and may have split, session and run; it has "
            f"{files.short(', '.join(names)) or 'nothing'}; write it with np.savez(file, "
            "betas=..., stimulus=...)."
        )
    betas = npz_array(file, "betas")
    if betas.ndim != 1 or betas.dtype.kind != "f" or not len(betas):
        raise UserError(
            f"{file}: betas are the floating-point numbers of one trial (V,), found "
            f"{betas.dtype} {betas.shape}; write one file a trial."
        )
    if not np.isfinite(betas).all():
        raise UserError(f"{file}: betas hold a value that is not finite; leave that trial out.")
    row = {name: _cell(file, name, names) for name in FIELDS}
    if row["split"] not in SPLITS:
        raise UserError(f"{file} has the split {row['split']!r}; it is train or test.")
    return Arrived(file, np.array(betas, dtype=np.float32), row)


def _cell(file: Path, name: str, names: Sequence[str]) -> str:
    """Return one entry of a trial as text, as a table would have it."""
    if name not in names:
        return str(FIELDS[name])
    value = npz_array(file, name)
    if value.size != 1 or value.dtype.kind not in "Uiu":
        wanted = "a text" if isinstance(FIELDS[name], str) else "a whole number"
        raise UserError(
            f"{file}: {name} is {wanted} (numpy's str, not object), found {value.dtype} "
            f"{value.shape}."
        )
    return str(value.reshape(-1)[0])


def appended(table: pd.DataFrame, arrived: Sequence[Arrived]) -> pd.DataFrame:
    """Return a table of trials, cells as text, with those that arrived below.

    Where the table numbers repeats, those of the new rows go on from it.
    """
    import pandas as pd

    if not arrived:
        return table
    rows = pd.DataFrame([one.row for one in arrived]).astype(str)
    usual = {name: str(value) for name, value in FIELDS.items() if name not in table}
    table = table.assign(**usual)
    if "repeat" in table:
        both = pd.concat([table, rows], ignore_index=True)
        counted = both.groupby(["stimulus", "split"]).cumcount().astype(str)
        rows["repeat"] = counted.to_numpy()[len(table) :]
    return pd.concat([table, rows], ignore_index=True).fillna("")


def below(stored: LazyRows, arrived: Sequence[Arrived]) -> LazyRows:
    """Return betas (n, V) with the trials that arrived below, see `sound`."""
    if not arrived:
        return stored
    rows = np.stack([one.betas for one in arrived])

    def lies(row: int) -> list[Origin]:
        return [Origin(str(arrived[row].file), 0, "betas")]

    new = LazyRows(rows.shape, lambda which: rows[which], str(arrived[0].file.parent), lies)
    return stacked([stored, new], stored.source)


def whole_betas(file: Path, **said: str) -> np.ndarray:
    """Return ``betas.npy`` in memory, so that a writer who begins it anew takes nothing away.

    A memory map of a file that is cut off under it ends the process. A row of zeros alone was
    never written (a file may be made at its full length first). ``said``: as in
    `explorer.files.read_array`.
    """
    about = file.stat() if file.exists() else None
    stamped = about and (about.st_ino, about.st_size, about.st_mtime_ns)
    return _whole_betas(file, stamped, **said)


@functools.lru_cache(maxsize=4)
def _whole_betas(file: Path, _: Hashable, **said: str) -> np.ndarray:
    stored = files.read_array(file, mmap=False, **said)
    if stored.ndim == 2 and stored.shape[1]:
        empty = np.flatnonzero(~stored.any(axis=1))
        if len(empty):
            raise _unfinished(file, f"row {empty[0]} (from 0) holds zeros alone")
    return stored


def whole_table(file: Path) -> None:
    """Refuse a table whose last line has no end: half an id would be another's."""
    try:
        with file.open("rb") as opened:
            opened.seek(-1, os.SEEK_END)
            ended = opened.read(1) == b"\n"
    except OSError:
        return  # missing or empty: said by whoever reads it
    if not ended:
        raise _unfinished(file, "its last line has no end")


def _unfinished(file: Path, why: str) -> UnfinishedError:
    return UnfinishedError(
        f"{file} is not whole ({why.rstrip('.')}): it is being written, or whoever wrote it was "
        "stopped; write it again, or take it away."
    )
