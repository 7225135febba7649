"""BOLD5000's betas by region: one array (trials, voxels) a region and side, read by rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backends.datasets.bold5000_files import HEMISPHERES, PEOPLE, ROIS, Found, whose
from backends.datasets.reading import LazyRows, mat_array, mat_sizes, standardised
from explorer.files import read_array
from explorer.types import Label, Origin, Parcellation, UserError, VoxelSpace, voxel_hash

if TYPE_CHECKING:
    import pandas as pd


class Part(NamedTuple):
    """Some columns of the betas: a label, how many, and ``read(rows)`` as stored."""

    label: Label
    width: int
    path: Path
    read: Callable[[np.ndarray], np.ndarray]


def load_regions(
    found: Found, subject: str, kind: str, table: pd.DataFrame, norm: str, source: str
) -> tuple[VoxelSpace, LazyRows, int]:
    """Return a subject's voxels, betas, and how many voxels were left out.

    ``kind`` is the type of estimate, A to D; ``table`` the trials; ``norm`` session or none;
    ``source`` the name that a message gives the data.
    """
    parts = _parts(found, subject, kind)
    n, session = len(table), table["session"].to_numpy()
    train = (table["split"] == "train").to_numpy()
    early = np.flatnonzero(np.r_[True, np.diff(session) > 0])
    early = np.stack([early, early + 1])  # the first two trials of each session
    look = np.concatenate([part.read(early.ravel()) for part in parts], axis=1)
    keep = usable(look.reshape(*early.shape, -1))
    if not keep.any():
        raise UserError(f"{source}: no voxel has finite betas that vary; copy the files again.")
    of_part = np.repeat(np.arange(len(parts)), [part.width for part in parts])

    def read(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([part.read(rows) for part in parts], axis=1)[:, keep]

    def lies(row: int) -> list[Origin]:
        return [Origin(str(part.path), row, note=part.label.key) for part in parts]

    betas = LazyRows((n, int(keep.sum())), read, source, lies)
    if norm == "session":
        betas = standardised(betas, session, train)
    labels = tuple(part.label for part in parts)
    # These columns have no coordinates: regions, their sizes and what was left out name them.
    widths = np.array([part.width for part in parts])
    digest = voxel_hash("bold5000", subject, *(label.key for label in labels), widths, keep)
    rois = Parcellation("ROIs", "partition", labels, of_part[keep], digest)
    space = VoxelSpace(betas.shape[1], digest, parcellations={"ROIs": rois})
    return space, betas, int((~keep).sum())


def _parts(found: Found, subject: str, wanted: str) -> list[Part]:
    """Return a subject's arrays, checked: EarlyVis, LOC, OPA, PPA, RSC, each left first.

    Any other region comes behind. ``.npy`` is preferred to ``.mat``: it is read by rows.
    """
    mine: dict[tuple[str, str], Path] = {}
    for (who, kind, side, roi, ending), path in found.rois.items():
        if (who, kind) == (subject, wanted) and (ending == "npy" or (roi, side) not in mine):
            mine[roi, side] = path
    known = [*ROIS, *sorted({roi for roi, _ in mine} - set(ROIS))]
    order = [(roi, side) for roi in known for side in HEMISPHERES if (roi, side) in mine]
    parts, expected = [], PEOPLE[subject].trials
    for roi, side in order:
        path = mine[roi, side]
        shape, read = (_npy if path.suffix == ".npy" else _mat)(path)
        if len(shape) != 2 or shape[0] != expected:
            raise UserError(
                f"{path} has shape {shape}{whose(shape[0] if shape else 0)}, expected "
                f"({expected}, voxels) for {subject}'s {expected} trials; copy it again."
            )
        label = Label(roi, HEMISPHERES[side], ROIS.get(roi, (128, 128, 128)))
        parts.append(Part(label, shape[1], path, read))
    return parts


def usable(looks: np.ndarray) -> np.ndarray:
    """Return bool (...,) from two trials of each session (2, sessions, ...): finite and alive."""
    alive = (looks[0] != looks[1]).any(axis=0)
    return np.isfinite(looks).all(axis=(0, 1)) & alive


def _npy(path: Path) -> tuple[tuple[int, ...], Callable]:
    """Return shape and row reader of an array that stays on disk."""
    array = read_array(path)
    _check_numbers(path, array.dtype)
    return array.shape, lambda rows: np.asarray(array[rows], dtype=np.float32)


def _mat(path: Path) -> tuple[tuple[int, ...], Callable]:
    """Return shape and row reader of a MATLAB file's one array; read as a whole when needed."""
    sizes = mat_sizes(path)
    if len(sizes) != 1:
        raise UserError(
            f"{path} should hold one array, found {', '.join(sizes) or 'none'}; take the .npy "
            "files instead."
        )
    ((key, shape),) = sizes.items()
    whole = cache(lambda: mat_array(path, key))
    return shape, lambda rows: np.asarray(whole()[rows], dtype=np.float32)


def _check_numbers(path: Path, dtype: np.dtype) -> None:
    if dtype.kind not in "fiu":
        raise UserError(f"{path} holds {dtype}, expected numbers; copy it again.")
