"""CNeuroMod-THINGS' HDF5 files: betas of trials by session and run, or means of images."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.cneuromod_files import MODEL, Kind, fetched, in_mask
from backends.datasets.reading import LazyRows, hdf5_array, hdf5_rows, hdf5_values, stacked
from backends.datasets.things_files import ncsnr_of_percent
from explorer.files import guard, short
from explorer.types import Origin, UserError

if TYPE_CHECKING:
    import h5py

REPEATS = 3  # showings that the authors' noise ceilings are for
LARGEST_SQUARE = 25  # mean square of z-scored trials, which is 1 over all of them


def runs_of(file: h5py.File, path: Path) -> list[tuple[int, int]]:
    """Return the sessions and runs of a file of trials, in the order of their numbers."""
    found = []
    with guard(path):
        groups = {name: file.get(name) for name in file if not name.startswith("mask_")}
        listed = {name: list(g) if hasattr(g, "keys") else [] for name, g in groups.items()}
    for session, runs in listed.items():
        if not session.isdecimal() or not runs or not all(run.isdecimal() for run in runs):
            raise UserError(
                f"{path}: betas of trials lie in groups session/run, both numbers, found "
                f"{short(repr(session))} with {short(', '.join(runs)) or 'nothing'}; take the "
                "file as it was published."
            )
        found += [(int(session), int(run)) for run in runs]
    return sorted(found)


def read_mask(file: h5py.File, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the betas' mask bool (X, Y, Z) and its affine (4, 4)."""
    mask = hdf5_values(hdf5_array(file, "mask_array", 3))
    affine = hdf5_values(hdf5_array(file, "mask_affine", 2))
    if not np.isin(mask, (0, 1)).all() or not mask.any() or affine.shape != (4, 4):
        raise UserError(
            f"{where}: mask_array is a volume of 0 and 1 and mask_affine (4, 4), found values "
            f"{mask.min():g} to {mask.max():g} and {affine.shape}; fetch the file again."
        )
    return mask.astype(bool), affine.astype(np.float64)


def trial_rows(
    file: h5py.File,
    lengths: dict[tuple[int, int], int],
    columns: np.ndarray,
    zscored: bool,
    where: str,
) -> LazyRows:
    """Return betas (trials, len(columns)) of runs in the order of ``lengths``, their trials."""
    parts, arrays, v = [], [], int(read_mask(file, where)[0].sum())
    for (session, run), trials in lengths.items():
        array = hdf5_array(file, f"{session}/{run}/betas", 2, "f")
        if array.shape != (trials, v):
            raise UserError(
                f"{where} has betas {array.shape} for session {session}, run {run}; its events "
                f"list {trials} trials and mask_array {v} voxels. A row is one trial, so both "
                "must be of one release; fetch them again."
            )
        arrays.append(array)
        parts.append(hdf5_rows(array, where, columns if len(columns) < v else None))
    if zscored and arrays:
        of = (arrays[0], arrays[len(arrays) // 2], arrays[-1])
        _check_zscored([hdf5_values(array, len(array) // 2) for array in of], where)
    return stacked(parts, where)


def image_rows(
    file: h5py.File, names: list[str], columns: np.ndarray, zscored: bool, where: str
) -> LazyRows:
    """Return the means of images (len(names), len(columns)), one array each."""
    lock, v = threading.Lock(), int(read_mask(file, where)[0].sum())

    def read(wanted: np.ndarray) -> np.ndarray:
        values = np.empty((len(wanted), len(columns)), np.float32)
        for at, row in enumerate(wanted):
            with lock:
                array = hdf5_array(file, f"{names[row]}/betas", 1, "f")
                if array.shape != (v,):
                    raise UserError(
                        f"{where}: {short(names[row])} has {array.shape} betas, mask_array {v} "
                        "voxels; fetch the file again."
                    )
                values[at] = hdf5_values(array)[columns]
        return values

    if zscored and names:
        _check_zscored(list(read(np.array([0, len(names) // 2, len(names) - 1]))), where)

    def lies(row: int) -> list[Origin]:
        return [Origin(where, 0, f"{names[row]}/betas", "a mean of its showings")]

    return LazyRows((len(names), len(columns)), read, where, lies)


def _check_zscored(rows: list[np.ndarray], where: str) -> None:
    """Refuse a file that calls itself z-scored and is scaled otherwise (percent, times 300)."""
    square = float(np.mean(np.square(rows)))
    if not 1 / LARGEST_SQUARE <= square <= LARGEST_SQUARE:
        raise UserError(
            f"{where} is named desc-zscore, so its trials have a mean square of about 1, found "
            f"{square:.3g}; it was scaled, take the file as it was published."
        )


def unit_of(kind: Kind) -> str:
    """Return what a beta of 1 means in a file."""
    if kind.of == "image":
        within = "z-scores within session" if kind.zscored else "GLMsingle's betas (type D)"
        return f"mean over an image's answered trials of {within}"
    if kind.zscored:
        return "z-score over all of a person's trials (GLMsingle type D)"
    return "GLMsingle's beta (type D), not z-scored"


def read_ceiling(
    betas: Path, kind: Kind, mask: np.ndarray, affine: np.ndarray
) -> np.ndarray | None:
    """Return ncsnr (V,) from the authors' ceilings, where they lie beside the betas."""
    stem = f"{kind.subject}_task-things_space-{kind.space}_{MODEL}_stat-noiseCeilings"
    file = betas.with_name(f"{stem}_statmap.nii.gz")
    if not fetched(file):
        return None
    values = in_mask(file, mask, affine, "a map of noise ceilings")
    return ncsnr_of_percent(values, REPEATS, str(file))
