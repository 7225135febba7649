"""The voxels of a plain folder: noise ceilings, scales, masks and places, from voxels.tsv."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.layout_tables import numbers, read_table, shown, whole_numbers
from explorer import files
from explorer.brain import fslr
from explorer.brain.native import native_surface
from explorer.brain.projection import project_volume
from explorer.files import short
from explorer.types import (
    FSAVERAGE5_VERTICES,
    Label,
    Parcellation,
    UserError,
    VoxelSpace,
    voxel_hash,
)

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

SIDES = {"L": "left", "R": "right"}
# A ratio of 3 is a noise ceiling of 90 % in a single trial, which one voxel in twenty never has.
MOST_NCSNR = 3.0
MNI = "MNI152"  # how the names of spaces begin that a volume is drawn in (templateflow.org)
FARTHEST = 1e6  # millimetres that a scan may span: our choice, beyond all
NOT_IDENTITY = ("ncsnr", "scale")  # columns of voxels.tsv that do not say which voxel it is


def read_voxels(folder: Path, v: int) -> pd.DataFrame:
    """Return ``voxels.tsv``, one row for each of v voxels; without columns where it is missing."""
    import pandas as pd

    file = folder / "voxels.tsv"
    if not file.exists():
        return pd.DataFrame(index=range(v))
    table = read_table(file)
    if len(table) != v:
        raise UserError(
            f"{folder}: betas.npy has {v} voxels, voxels.tsv has {len(table)} rows; each voxel "
            "needs one."
        )
    return table


def voxel_ncsnr(folder: Path, table: pd.DataFrame) -> np.ndarray | None:
    """Return the noise-ceiling SNR of every voxel (V,), None where voxels.tsv has none."""
    if "ncsnr" not in table:
        return None
    file = folder / "voxels.tsv"
    values = numbers(table["ncsnr"], file, "ncsnr")
    if values.min(initial=0) < 0:
        raise UserError(
            f"{file}: ncsnr is a ratio from 0, found {values.min():g}; mend it or leave "
            "the column out."
        )
    if len(values) and np.quantile(values, 0.95) > MOST_NCSNR:
        raise UserError(
            f"{file}: ncsnr is the SD of signal over the SD of noise, found up to "
            f"{values.max():g}, which looks like a noise ceiling in percent; for a ceiling p of n "
            "averaged trials write sqrt(p / (100 - p) / n)."
        )
    return values


def voxel_scale(folder: Path, table: pd.DataFrame, dtype: np.dtype) -> np.ndarray | None:
    """Return what one unit of a beta is worth, (V,); None for floating-point betas."""
    file = folder / "voxels.tsv"
    if "scale" not in table:
        if dtype.kind == "f":
            return None
        raise UserError(
            f"{folder}: betas.npy holds whole numbers ({dtype}), so voxels.tsv needs the column "
            "'scale'."
        )
    scale = numbers(table["scale"], file, "scale")
    if dtype.kind == "f" and (scale != 1).any():
        raise UserError(
            f"{file}: the column 'scale' is for whole numbers, and betas.npy holds {dtype}; leave "
            "the column out, or store the betas as int16."
        )
    if (scale <= 0).any():
        row = int(np.flatnonzero(scale <= 0)[0])
        raise UserError(
            f"{file}: row {row + 1} of the column 'scale' is {shown(scale[row])}; it says what "
            "one unit of a beta is worth and is above 0."
        )
    return scale if dtype.kind != "f" else None


def voxel_space(
    folder: Path, table: pd.DataFrame, who: str, description: dict[str, Any]
) -> VoxelSpace:
    """Return where the voxels of a subject lie, with the atlases laid over them."""
    file, v = folder / "voxels.tsv", len(table)
    identity = [c for c in table if c not in NOT_IDENTITY]
    projection, atlases, volume = None, {}, _volume(folder, v)
    if "vertex" in table:
        vertex = whole_numbers(table["vertex"], file, "vertex", nowhere=True)
        if vertex.max(initial=0) >= FSAVERAGE5_VERTICES:
            raise UserError(
                f"{file}: vertex {vertex.max()} is outside fsaverage5, which has 0 to "
                f"{FSAVERAGE5_VERTICES - 1} (left, then right)."
            )
        _check_sides(table, vertex, file)
        digest = voxel_hash("fsaverage5", vertex)
        projection = project(vertex)
    elif volume:
        mask, affine = volume
        digest = voxel_hash("volume", np.packbits(mask), str(mask.shape), np.round(affine, 4))
        if description["space"].startswith(MNI):
            projection = project_volume(mask, affine)
    elif identity:
        digest = voxel_hash(table[identity].to_csv(sep="\t", index=False))
    else:
        digest = voxel_hash(who, v)
    if "parcel" in table:
        atlas = _partition(description["atlas"], table["parcel"], digest)
        atlases[atlas.name] = atlas
    if any(c.startswith("roi_") for c in table):
        atlases["ROIs"] = _masks(table, file, digest)
    if projection is not None:
        from explorer.brain.atlases import desikan_killiany
        from explorer.brain.parcels import lay

        atlas = lay(desikan_killiany(), projection, digest)
        atlases.setdefault(atlas.name, atlas)
    mask, affine = volume or (None, None)
    space = description["space"] if volume else ""
    lr = _fslr(table, file)
    own = native_surface(folder / "surf") if projection is not None else None
    return VoxelSpace(v, digest, projection, mask, affine, atlases, space, lr, own)


def _fslr(table: pd.DataFrame, file: Path) -> np.ndarray | None:
    """Return the vertex of fsLR-32k of each voxel (V,), None where voxels.tsv does not tell."""
    if "fslr" not in table:
        return None
    vertex = whole_numbers(table["fslr"], file, "fslr", nowhere=True)
    if vertex.max(initial=0) >= fslr.VERTICES:
        raise UserError(
            f"{file}: the column 'fslr' holds {vertex.max()}, which is outside fsLR-32k: 0 to "
            f"{fslr.VERTICES - 1} (left, then right)."
        )
    if "vertex" in table:  # of the same place on fsaverage5
        other = whole_numbers(table["vertex"], file, "vertex", nowhere=True)
        left = vertex < fslr.VERTICES // 2, other < FSAVERAGE5_VERTICES // 2
        wrong = np.flatnonzero((vertex >= 0) & (other >= 0) & (left[0] != left[1]))
        if len(wrong):
            raise UserError(
                f"{file}: row {wrong[0] + 1} has fslr {vertex[wrong[0]]} in one hemisphere and "
                f"vertex {other[wrong[0]]} in the other; both are numbered left, then right."
            )
    there = vertex[vertex >= 0]
    if len(np.unique(there)) < len(there):
        raise UserError(
            f"{file}: the column 'fslr' names a vertex twice; each voxel of fsLR-32k has its own."
        )
    return vertex


def _volume(folder: Path, v: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return mask bool (X, Y, Z) of v voxels and affine (4, 4), None where there is no mask."""
    file = folder / "mask.nii.gz"
    if not file.exists():
        return None
    mask, affine = read_mask(file)
    if mask.sum() != v:
        raise UserError(
            f"{folder}: betas.npy has {v} voxels, mask.nii.gz marks {int(mask.sum())}; each voxel "
            "needs one."
        )
    return mask, affine


def read_mask(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a NIfTI mask as bool (X, Y, Z), and its affine (4, 4)."""
    image = files.open_volume(file, "a NIfTI mask", "mend it")
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise UserError(f"{file} has shape {shape}, expected a mask along three axes.")
    values = files.volume_data(image, file).reshape(shape)
    if values.dtype.kind not in "fiub" or not np.isin(values, (0, 1)).all():
        raise UserError(
            f"{file} holds more than 0 and 1, expected a mask of which voxels there are; save "
            "(values > 0) as one, where that is what it means."
        )
    if not values.any():
        raise UserError(f"{file} marks no voxel; give the mask that the betas were made with.")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not (abs(affine) < FARTHEST).all() or np.linalg.matrix_rank(affine) < 4:  # NaN too
        raise UserError(f"{file} has an affine that is none: {short(affine.tolist())}; mend it.")
    return values.astype(bool), affine


def _check_sides(table: pd.DataFrame, vertex: np.ndarray, file: Path) -> None:
    """Refuse a voxel whose vertex lies in one hemisphere and its parcel in the other."""
    sides = np.where(vertex < 0, "", np.where(vertex < FSAVERAGE5_VERTICES // 2, "L", "R"))
    named = {"parcel": table["parcel"]} if "parcel" in table else {}
    for column in (c for c in table if c.startswith("roi_")):
        named[column] = table[column].map({"1": column.removeprefix("roi_")}).fillna("")
    for column, names in named.items():
        said = np.array([_label(name).hemisphere for name in names])
        wrong = np.flatnonzero((sides != "") & (said != "") & (sides != said))
        if len(wrong):
            row = int(wrong[0])
            raise UserError(
                f"{file}: row {row + 1} has vertex {vertex[row]}, which lies {SIDES[sides[row]]}, "
                f"and the parcel {names.iloc[row]!r} of {column!r}, which lies "
                f"{SIDES[said[row]]}; vertices are numbered left (0 to 10241), then right."
            )


def project(vertex: np.ndarray) -> sp.csr_matrix:
    """Return the projection (20,484, V) of voxels that each lie at one vertex (-1: nowhere).

    Voxels at the same vertex share its weight of 1.
    """
    import scipy.sparse as sp

    placed = np.flatnonzero(vertex >= 0)
    there = vertex[placed]
    weight = 1 / np.bincount(there, minlength=FSAVERAGE5_VERTICES)[there]
    shape = (FSAVERAGE5_VERTICES, len(vertex))
    return sp.csr_matrix((weight.astype(np.float32), (there, placed)), shape=shape)


def _label(name: str) -> Label:
    """Return the label of a parcel's name; a final " L" or " R" is its hemisphere."""
    base, _, side = name.rpartition(" ")
    return Label(base, side) if base and side in ("L", "R") else Label(name)


def _partition(name: str, column: pd.Series, digest: str) -> Parcellation:
    names = [n for n in dict.fromkeys(column) if n]
    index = {n: i for i, n in enumerate(names)}
    membership = np.array([index.get(n, -1) for n in column], dtype=np.int32)
    return Parcellation(name, "partition", tuple(map(_label, names)), membership, digest)


def _masks(table: pd.DataFrame, file: Path, digest: str) -> Parcellation:
    columns = [c for c in table if c.startswith("roi_")]
    for column in columns:
        other = sorted(set(table[column]) - {"0", "1"})
        if other:
            raise UserError(f"{file}: the column {column!r} holds 0 or 1, found {other[0]!r}.")
    masks = np.array([(table[c] == "1").to_numpy() for c in columns])
    labels = tuple(_label(c.removeprefix("roi_")) for c in columns)
    return Parcellation("ROIs", "masks", labels, masks, digest)
