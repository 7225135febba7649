"""THINGS-fMRI's tables: trials, voxels, and the betas that join them by name.

``betas_csv/sub-01_StimulusMetadata.csv`` has a row a trial, ``sub-01_VoxelMetadata.csv`` a row a
voxel, and ``sub-01_ResponseData.h5`` (a frame of pandas) a row a voxel and a column a trial:
``voxel_id``, then the trials' numbers from 0.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backends.datasets.pandas_hdf import Block, columns_as_rows, read_blocks
from backends.datasets.reading import LazyRows, chosen, hdf5_values
from backends.datasets.things_files import LARGEST_SD, source_of
from explorer.files import guard, read_table, short
from explorer.types import Label, UserError

if TYPE_CHECKING:
    import pandas as pd

COPY = "download it again (figshare 20492835, betas_csv)"
TRIAL_COLUMNS = ("trial_type", "session", "run", "subject_id", "trial_id", "stimulus", "concept")
PLACES = ("voxel_x", "voxel_y", "voxel_z")
NUMBERS = (  # of a voxel, shown as maps; every other column is a mask
    *("nc_singletrial", "nc_testset", "splithalf_uncorrected", "splithalf_corrected"),
    *("prf-eccentricity", "prf-polarangle", "prf-rsquared", "prf-size"),
)
SIDED = re.compile(r"([lr])(EBA|FFA|OFA|STS|PPA|RSC|TOS|LOC)")
GLASSER = "glasser-"
VOXELS = 2**14  # rows of the table of voxels in memory at once
LOOKED_AT = 8  # voxels by which the unit is checked


class Files(NamedTuple):
    """One person's three tables."""

    trials: Path
    voxels: Path
    betas: Path


def find_tables(root: Path) -> dict[str, Files]:
    """Return subject -> tables, of everybody whose betas lie in ``betas_csv`` or a folder."""
    found = {}
    for folder in (root / "betas_csv", root):
        for file in sorted(folder.glob("sub-*_ResponseData.h5")):
            who = file.name.partition("_")[0]
            kinds = ("StimulusMetadata.csv", "VoxelMetadata.csv", "ResponseData.h5")
            found.setdefault(who, Files(*(folder / f"{who}_{kind}" for kind in kinds)))
    return dict(sorted(found.items()))


# ------------------------------------------------------------------------------------------ trials


def read_trials(file: Path, subject: str) -> pd.DataFrame:
    """Return trial_id, session, run, split and ``source`` (concept/file) in the order of rows."""
    import pandas as pd

    table = read_table(file, ",", COPY, "it says which picture each trial is; copy it too")
    lacking = [name for name in TRIAL_COLUMNS if name not in table]
    if lacking:
        raise UserError(
            f"{file} has no column {lacking[0]}; it has {short(', '.join(table.columns))}."
        )
    numbers = {name: _whole(table[name], file) for name in ("session", "run", "trial_id")}
    _check_person(_whole(table["subject_id"], file), subject, file)
    for name in ("session", "run"):
        if len(table) and numbers[name].min() < 1:
            raise UserError(
                f"{file}: {name}s are counted from 1 in this study, found "
                f"{numbers[name].min()}; take the table as it was published."
            )
    if len(np.unique(numbers["trial_id"])) != len(table):
        raise UserError(f"{file}: a trial_id stands there twice; each trial has its own.")
    kinds = table["trial_type"].to_numpy()
    odd = sorted(set(kinds) - {"train", "test"})
    if odd:
        raise UserError(
            f"{file}: trial_type is train or test in the table (catch trials are in the volumes "
            f"alone), found {short(repr(odd[0]))}."
        )
    pairs = zip(table["stimulus"], table["concept"], strict=True)
    sources = [source_of(stimulus, concept, str(file)) for stimulus, concept in pairs]
    return pd.DataFrame({**numbers, "split": kinds, "source": sources})


def _whole(column: pd.Series, file: Path) -> np.ndarray:
    with guard(file, "a table of trials", COPY, at=str(column.name)):
        values = column.astype(float).to_numpy()
    if not (np.isfinite(values) & (values == np.round(values))).all():
        raise UserError(f"{file}: {column.name} has whole numbers only; {COPY}.")
    return values.astype(np.int64)


def _check_person(numbers: np.ndarray, subject: str, file: Path) -> None:
    others = sorted({int(n) for n in numbers} - {int(subject.removeprefix("sub-"))})
    if others:
        raise UserError(
            f"{file} says that it is of subject {others[0]}; two people's files are mixed up, "
            f"{COPY}."
        )


# ------------------------------------------------------------------------------------------ voxels


class Voxels(NamedTuple):
    """A person's voxels in the order of the table's rows.

    ``ids`` int (V,); ``places`` int (V, 3), indices of the volume from 0; ``maps`` name -> (V,);
    ``rois`` and ``glasser`` label -> bool (V,).
    """

    ids: np.ndarray
    places: np.ndarray
    maps: dict[str, np.ndarray]
    rois: dict[Label, np.ndarray]
    glasser: dict[Label, np.ndarray]


def read_voxels(file: Path, subject: str) -> Voxels:
    """Return what a person's VoxelMetadata.csv says of every voxel."""
    import pandas as pd

    # All 211,339 x 222 cells at once would take 190 MB as numbers, and gigabytes as texts.
    parts: list[dict[str, np.ndarray]] = []
    with (
        guard(file, "a table of numbers", COPY, "it says what each voxel is; copy it too"),
        pd.read_csv(file, dtype=np.float32, chunksize=VOXELS) as reader,
    ):
        for table in reader:
            # Two of Glasser's names are broken over two lines in the published table.
            table.columns = ["".join(str(name).split("\n")) for name in table.columns]
            parts.append(_columns(table, file))
    if not any(len(part["voxel_id"]) for part in parts):
        raise UserError(f"{file} has no row, expected one for every voxel; {COPY}.")
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _check_person(columns.pop("subject_id"), subject, file)
    ids, *places = (columns.pop(name) for name in ("voxel_id", *PLACES))
    maps = {name: columns.pop(name) for name in NUMBERS if name in columns}
    rois, glasser = {}, {}
    for name, mask in columns.items():
        sided = SIDED.fullmatch(name)
        if name.startswith(GLASSER):
            glasser[Label(name.removeprefix(GLASSER))] = mask
        elif sided:
            rois[Label(sided[2], "L" if sided[1] == "l" else "R")] = mask
        else:
            rois[Label(name)] = mask
    return Voxels(ids, np.stack(places, axis=1), maps, rois, glasser)


def _columns(table: pd.DataFrame, file: Path) -> dict[str, np.ndarray]:
    """Return the columns of some voxels: whole numbers, numbers, and bool for every region."""
    lacking = [n for n in ("voxel_id", "subject_id", *PLACES, *NUMBERS[:2]) if n not in table]
    if lacking:
        raise UserError(
            f"{file} has no column {lacking[0]}; it has {short(', '.join(table.columns))}."
        )
    found = {}
    for name in table.columns:
        values = table[name].to_numpy()
        if name in NUMBERS:
            found[name] = values.copy()
        elif name in ("voxel_id", "subject_id", *PLACES):
            found[name] = _whole(table[name], file)
        elif np.isin(values, (0, 1)).all():
            found[name] = values.astype(bool)
        else:
            raise UserError(
                f"{file}: {short(name)} marks a region with 0 and 1, found up to "
                f"{values.max():g}; {COPY}."
            )
    return found


def check_ceilings(single: np.ndarray, tested: np.ndarray, repeats: int, source: str) -> None:
    """Refuse ceilings of test images that do not follow from those of single trials.

    ``single`` and ``tested`` are ncsnr (V,), each from its own column: one and the same number.
    """
    apart = np.abs(single - tested)
    if len(apart) and apart.max() > 1e-3 + 0.01 * single[apart.argmax()]:
        at = int(apart.argmax())
        raise UserError(
            f"{source}: nc_singletrial and nc_testset give voxel {at} (from 0) the noise-ceiling "
            f"SNRs {single[at]:.4g} and {tested[at]:.4g} for 1 and {repeats} trials; both are one "
            "number, so the columns are of two files or in two units."
        )


# ------------------------------------------------------------------------------------------- betas


def read_betas(
    file: Path, trials: pd.DataFrame, ids: np.ndarray, which: np.ndarray, cache: Path
) -> LazyRows:
    """Return betas (trials, len(which)): rows as ``trials``, columns of certain voxels.

    ``ids`` int (V,): the voxel_id of each row of the table of voxels; ``which`` int, increasing:
    the rows of it that are wanted.
    """
    blocks = read_blocks(file, "it holds the betas and comes from figshare 20492835")
    owners = [block for block in blocks if "voxel_id" in block.labels]
    numbers = [b for b in blocks if b.values.dtype.kind == "f" and set(b.labels) - {"voxel_id"}]
    if len(owners) != 1 or len(numbers) != 1:
        raise UserError(
            f"{file} needs a column voxel_id and a column of real numbers for every trial, found "
            f"{len(owners)} and {len(numbers)} kinds of numbers; take it as it was published."
        )
    _check_voxels(owners[0], ids, file)
    block = numbers[0]
    at = {}
    for position, label in enumerate(block.labels):
        if str(label) != "voxel_id":
            at[str(label)] = position
    wanted = [str(number) for number in trials["trial_id"]]
    if set(at) != set(wanted):
        columns, rows = (_range(names) for names in (at, wanted))
        raise UserError(
            f"{file} has the trials {columns} and the StimulusMetadata the trial_ids {rows}; both "
            "are of one person and count from 0, so one is another person's or counts from 1."
        )
    _check_unit(block, file)
    rows = columns_as_rows(block, which, cache, str(file))
    return chosen(rows, np.array([at[number] for number in wanted], dtype=np.int64))


def _check_voxels(block: Block, ids: np.ndarray, file: Path) -> None:
    column = block.labels.index("voxel_id")
    found = hdf5_values(block.values, (slice(None), column))
    if len(found) != len(ids):
        raise UserError(
            f"{file} has {len(found):,} voxels and the VoxelMetadata {len(ids):,}; two "
            "people's files are mixed up."
        )
    other = np.flatnonzero(found != ids)
    if len(other):
        at = int(other[0])
        raise UserError(
            f"{file}: row {at} is voxel {found[at]:g} and that of the VoxelMetadata is voxel "
            f"{ids[at]}; rows are joined by voxel_id, take both as they were published."
        )


def _range(names: dict[str, int] | list[str]) -> str:
    numbers = sorted(int(name) for name in names if name.lstrip("-").isdigit())
    if len(numbers) < len(names):
        odd = next(name for name in names if not name.lstrip("-").isdigit())
        return f"named like {short(repr(odd))}"
    return f"{numbers[0]} to {numbers[-1]} ({len(numbers):,})" if numbers else "none"


def _check_unit(block: Block, file: Path) -> None:
    """Refuse betas in another unit than that of a z-scored time series (times 300, percent)."""
    rows = np.unique(np.linspace(0, len(block.values) - 1, LOOKED_AT).astype(int))
    spread = [float(np.std(hdf5_values(block.values, int(row)))) for row in rows]
    if np.nanmedian(spread) > LARGEST_SD:
        raise UserError(
            f"{file}: betas of a z-scored time series have an SD of some 0.1 over trials, found "
            f"{np.nanmedian(spread):.3g}; they were scaled, take the file as it was published."
        )
