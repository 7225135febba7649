"""Volumes in MNI space onto the surface: which voxels of the cortex each vertex shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from explorer.brain.parcels import HEMISPHERE_VERTICES
from explorer.brain.surfaces import bundled
from explorer.types import FSAVERAGE5_VERTICES, UserError

if TYPE_CHECKING:
    import scipy.sparse as sp

DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)  # from white matter to pial surface; our choice
FINENESS = 4  # parts of an edge; finds 97 % of the 1.8 mm voxels that more parts would find


def project_volume(mask: np.ndarray, affine: np.ndarray) -> sp.csr_matrix:
    """Return the projection float32 (20,484, V) of a volume in MNI space onto fsaverage5.

    A vertex shows the mean of the voxels in the cortex around it: each face is sampled at 15
    points and 5 depths between the white and the pial surface, the nearest voxel is taken, and a
    point counts for the corner it is closest to. Rows sum to 1; rows without voxels are empty.
    ``nilearn.surface.vol_to_surf`` samples in the same way at the vertices alone, which on this
    mesh passes by half of the 1.8 mm voxels of the cortex; those would be in no parcel.

    fsaverage lies in MNI305 space, volumes usually in MNI152: the two differ by a few millimetres,
    and group surfaces do not follow one person's folds. So this is approximate.

    Parameters
    ----------
    mask
        bool (X, Y, Z) with V voxels, which are in C order (``np.flatnonzero(mask)``).
    affine
        (4, 4), from voxel indices to millimetres in MNI space.

    Raises
    ------
    UserError
        Where no voxel lies in the cortex: then the affine is not one to MNI space.
    """
    import scipy.sparse as sp

    mask, affine = np.asarray(mask), np.asarray(affine, dtype=np.float64)
    if mask.ndim != 3 or mask.dtype != bool or affine.shape != (4, 4):
        raise UserError(
            "A volume is projected with a bool mask (X, Y, Z) and an affine (4, 4), found "
            f"{mask.dtype} {mask.shape} and {affine.shape}."
        )
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < 4:
        raise UserError("The volume's affine cannot be inverted; check the file's header.")
    inverse = np.linalg.inv(affine)
    number = np.where(mask.ravel(), np.cumsum(mask) - 1, -1)  # position among the V voxels
    grid = [(i, j, FINENESS - i - j) for i in range(FINENESS + 1) for j in range(FINENESS + 1 - i)]
    weights = np.array(grid) / FINENESS  # (15, 3): the points of a face
    closest = weights == weights.max(axis=1, keepdims=True)  # ties are shared
    rows, columns, shares = [], [], []
    for start, side in ((0, "left"), (HEMISPHERE_VERTICES, "right")):
        (white, faces), (pial, _) = bundled(f"white_{side}"), bundled(f"pial_{side}")
        for depth in DEPTHS:
            vertices = (white + depth * (pial - white)) @ inverse[:3, :3].T + inverse[:3, 3]
            corners = vertices[faces]  # (m, 3 corners, 3)
            for weight, near in zip(weights, closest, strict=True):
                index = np.rint(np.einsum("c,mcx->mx", weight, corners)).astype(np.int64)
                inside = ((index >= 0) & (index < mask.shape)).all(axis=1)
                found = np.full(len(faces), -1)
                found[inside] = number[np.ravel_multi_index(index[inside].T, mask.shape)]
                for corner in np.flatnonzero(near):
                    rows.append(start + faces[found >= 0, corner])
                    columns.append(found[found >= 0])
                    shares.append(np.full(len(columns[-1]), 1 / near.sum()))
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    if not len(rows):
        raise UserError(
            f"None of the {int(mask.sum())} voxels lies in the cortex of fsaverage5; check that "
            "the affine leads to millimetres in MNI space."
        )
    shape = (FSAVERAGE5_VERTICES, int(mask.sum()))
    summed = sp.csr_matrix((np.concatenate(shares), (rows, columns)), shape=shape)
    total = np.asarray(summed.sum(axis=1)).ravel()
    scale = sp.diags(np.divide(1, total, out=np.zeros_like(total), where=total > 0))
    return (scale @ summed).tocsr().astype(np.float32)
