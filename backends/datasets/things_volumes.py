"""THINGS-fMRI's betas as volumes: one NIfTI a run, with the file names of its pictures beside it.

``betas_vol/sub-01/ses-things01/sub-01_ses-things01_run-01_{betas.nii.gz,conditions.tsv}``; the
conditions have a row a volume, catch trials included, which the table of betas leaves out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backends.datasets.bold5000_volumes import Sessions
from backends.datasets.reading import LazyRows, lies_in
from backends.datasets.things_files import LARGEST_SD, source_of
from explorer.files import open_volume, read_table, short, volume_data
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

BETAS = re.compile(r"(sub-\d+)_ses-things(\d+)_run-(\d+)_betas\.nii(\.gz)?")
CATCH = re.compile(r"catch\d+\.\w+")
COPY = "download it again"


class Run(NamedTuple):
    """One run's files."""

    session: int
    run: int
    betas: Path
    conditions: Path


def find_runs(root: Path) -> dict[str, list[Run]]:
    """Return the runs of every subject below ``betas_vol``, in the order of time."""
    found: dict[str, dict[tuple[int, int], Run]] = {}
    for file in sorted((root / "betas_vol").glob("sub-*/ses-things*/*_betas.nii*")):
        named = BETAS.fullmatch(file.name)
        if named is None:
            continue
        stem = file.name.partition("_betas.nii")[0]
        run = Run(int(named[2]), int(named[3]), file, file.with_name(f"{stem}_conditions.tsv"))
        of = found.setdefault(named[1], {})
        of.setdefault((run.session, run.run), run)  # .nii, whose trials are read alone, is first
    return {who: [of[key] for key in sorted(of)] for who, of in sorted(found.items())}


def shown_in(run: Run) -> list[str]:
    """Return ``concept/file.jpg`` of every volume of a run, "" for a catch trial."""
    table = read_table(run.conditions, missing="it says which picture each volume is; copy it too")
    if "image_filename" not in table:
        raise UserError(
            f"{run.conditions} has the columns {short(', '.join(table.columns))}, expected "
            "image_filename; take the file as it was published."
        )
    found = []
    for name in table["image_filename"]:
        concept, _, file = name.rpartition("/")
        if not concept and CATCH.fullmatch(file):
            found.append("")
        else:
            found.append(source_of(file, concept.rpartition("/")[2], str(run.conditions)))
    return found


def trial_table(runs: list[Run]) -> tuple[pd.DataFrame, list[int]]:
    """Return every trial that is no catch trial, and how many volumes each run lists.

    ``volume`` is the position in the run's file, from 0; ``part`` that of the run in ``runs``;
    beside them stand session, run and ``source`` (concept/file).
    """
    import pandas as pd

    rows, listed = [], []
    for part, run in enumerate(runs):
        shown = shown_in(run)
        listed.append(len(shown))
        rows += [(part, run.session, run.run, i, name) for i, name in enumerate(shown) if name]
    return pd.DataFrame(rows, columns=["part", "session", "run", "volume", "source"]), listed


def brain_mask(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a brain mask bool (X, Y, Z) and its affine (4, 4)."""
    image = open_volume(file, "a brain mask", COPY, "it says which voxels the betas are; copy it")
    values = volume_data(image, file, do=COPY)
    if values.ndim != 3 or not np.isin(values, (0, 1)).all() or not values.any():
        raise UserError(
            f"{file} holds {values.dtype} of shape {values.shape}, expected a volume of 0 and 1; "
            f"{COPY}."
        )
    return values.astype(bool), np.asarray(image.affine, dtype=np.float64)


def volume_rows(
    runs: list[Run],
    table: pd.DataFrame,
    listed: list[int],
    mask: np.ndarray,
    affine: np.ndarray,
    sessions: Sessions,
    source: str,
) -> LazyRows:
    """Return the betas of `trial_table`'s trials within a mask (X, Y, Z), read run by run."""
    for run, count in zip(runs, listed, strict=True):
        image = open_volume(run.betas, "", COPY, COPY)
        if len(image.shape) != 4 or image.shape[:3] != mask.shape:
            raise UserError(
                f"{run.betas} has shape {image.shape}, expected volumes of {mask.shape} as the "
                "brain mask has; the files are of two people or two spaces."
            )
        if not np.allclose(image.affine, affine, atol=1e-3):
            raise UserError(
                f"{run.betas} lies elsewhere than the brain mask (another affine): the files are "
                "of two people or two spaces; take both from one release."
            )
        if image.shape[3] != count:
            raise UserError(
                f"{run.betas} has {image.shape[3]} volumes and {run.conditions.name} lists "
                f"{count}; each volume is one trial, copy both again."
            )
    if len(table):
        _check_unit(runs[0], mask)
    part, volume = (table[name].to_numpy() for name in ("part", "volume"))

    def read(wanted: np.ndarray) -> np.ndarray:
        values = np.empty((len(wanted), int(mask.sum())), np.float32)
        for number in dict.fromkeys(part[wanted].tolist()):
            here = part[wanted] == number
            path = runs[number].betas
            values[here] = sessions.read(path, mask, listed[number], volume[wanted[here]])
        return values

    def lies(row: int) -> list:
        return lies_in(runs[part[row]].betas)(int(volume[row]))

    return LazyRows((len(table), int(mask.sum())), read, source, lies)


def _check_unit(run: Run, mask: np.ndarray) -> None:
    """Refuse betas in another unit than that of a z-scored time series, by the first volume."""
    first = volume_data(open_volume(run.betas, "", COPY, COPY), run.betas, (..., 0), do=COPY)
    spread = float(np.std(first[mask]))
    if spread > LARGEST_SD:
        raise UserError(
            f"{run.betas}: betas of a z-scored time series have an SD of some 0.1 over voxels, "
            f"found {spread:.3g}; they were scaled, take the file as it was published."
        )
