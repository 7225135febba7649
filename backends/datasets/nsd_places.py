"""Where NSD's voxels lie on fsaverage5, through NSD's own transforms.

Files, below the folder of the release::

    nsddata/freesurfer/fsaverage/surf/lh.sphere
    nsddata/ppdata/subj01/transforms/lh.func1pt8-to-layerB2.mgz    where vertices lie in volumes
    nsddata/ppdata/subj01/transforms/lh.white-to-fsaverage.mgz     native and fsaverage vertices

github.com/cvnlab/nsdcode, nsd_mapdata.m, and preprocess_nsd_calculatetransformations.m of
github.com/cvnlab/nsddatapaper: coordinates of volumes count from 1 at the centre of the first
voxel, 9999 is nowhere; ``white-to-fsaverage`` holds for each fsaverage vertex the nearest native
vertex, from 1; layerB1, B2 and B3 lie at 25, 50 and 75 % of the depth of the grey matter; func1mm
is func1pt0 there.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.nsd_files import AGAIN, MIXED, SIDES, SPACES, VERTICES, read_map
from explorer.files import guard
from explorer.types import FSAVERAGE5_VERTICES, UserError

if TYPE_CHECKING:
    import scipy.sparse as sp

NOWHERE = 9999
LEAST = 0.5  # of a cubic weight that must lie on voxels that are read: our choice
LAYERS = ("layerB1", "layerB2", "layerB3")


def nearest_of_fsaverage5(root: Path) -> np.ndarray:
    """Return for each fsaverage vertex (2 x 163842) the nearest of fsaverage5, -1 where unknown.

    fsaverage5 are the first 10,242 vertices of each hemisphere; what lies between them is
    known from NSD's copy of fsaverage's sphere.
    """
    import nibabel as nib
    from scipy.spatial import cKDTree

    half = FSAVERAGE5_VERTICES // 2
    nearest = []
    for i, path in enumerate(_spheres(root)):
        own = np.full(VERTICES, -1)
        own[:half] = np.arange(half)
        if path.is_file():
            with guard(path, do=AGAIN):
                points = nib.freesurfer.read_geometry(path)[0]
            if len(points) != VERTICES:
                raise UserError(
                    f"{path} has {len(points)} vertices, expected fsaverage's {VERTICES}; "
                    "copy it again."
                )
            own = cKDTree(points[:half]).query(points)[1]
        nearest.append(np.where(own >= 0, own + i * half, -1))
    return np.concatenate(nearest)


def _spheres(root: Path) -> list[Path]:
    return [root / f"nsddata/freesurfer/fsaverage/surf/{h}.sphere" for h in SIDES]


def lacking_spheres(root: Path) -> tuple[str, ...]:
    """Return the spheres that are not there."""
    return tuple(str(p.relative_to(root)) for p in _spheres(root) if not p.is_file())


def project_surface(mask: np.ndarray, nearest: np.ndarray) -> sp.csr_matrix:
    """Return the sparse (20484, V) from the vertices of a mask, see `nearest_of_fsaverage5`."""
    vertices = np.flatnonzero(mask)
    v, ones = len(vertices), np.ones(len(vertices))
    return _projection(nearest[vertices], np.arange(v), ones, v)


def project_volume(
    root: Path,
    space: str,
    subject: str,
    mask: np.ndarray,
    nearest: Callable[[], np.ndarray],
    mapping: str = "linear",
) -> tuple[sp.csr_matrix | None, tuple[str, ...]]:
    """Return the mean over depths of what lies at each vertex, or None and what is missing.

    ``mapping``: between voxels by the weights of one of `MAPPINGS`, as nsd_mapdata.m's interptype
    (its default is cubic); voxels that are not read have no weight, and what is left is made to
    sum to 1. ``nearest`` gives `nearest_of_fsaverage5`, where it is needed.
    """
    folder = root / "nsddata/ppdata" / subject / "transforms"
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    pieces, lacking = [], []
    for i, h in enumerate(SIDES):
        native = native_vertices(root, subject, h)
        layers = [folder / f"{h}.{SPACES[space]}-to-{layer}.mgz" for layer in LAYERS]
        there = [path for path in layers if path.is_file()]
        if native is None:
            lacking.append(f"{h}.white-to-fsaverage.mgz")
        if not there:
            lacking.append(layers[1].name)  # the middle one is enough
        if native is None or not there:
            continue
        own = nearest()[i * VERTICES : (i + 1) * VERTICES]
        known = own >= 0
        for path in there:
            at = read_map(path).reshape(-1, 3, order="F")
            at = np.nan_to_num(at_vertices(at, native[known], path), nan=NOWHERE) - 1
            vertex, voxel, weight = _weights(at, number, mapping)
            pieces.append((own[known][vertex], voxel, weight))
    if lacking:
        place = folder.relative_to(root)
        return None, tuple(f"{place}/{name}" for name in lacking)
    rows, columns, weights = (np.concatenate(part) for part in zip(*pieces, strict=True))
    return _projection(rows, columns, weights, int(mask.sum())), lacking_spheres(root)


def native_vertices(root: Path, subject: str, h: str) -> np.ndarray | None:
    """Return for each fsaverage vertex the native one, from 0, or None where it is unknown."""
    path = root / "nsddata/ppdata" / subject / f"transforms/{h}.white-to-fsaverage.mgz"
    if not path.is_file():
        return None
    native = np.nan_to_num(read_map(path)).ravel().astype(np.int64) - 1
    if native.shape != (VERTICES,) or native.min() < 0:
        raise UserError(
            f"{path} needs one native vertex, counted from 1, for each of {VERTICES}, found "
            f"{len(native)} down to {native.min() + 1}; copy it again."
        )
    return native


def at_vertices(values: np.ndarray, native: np.ndarray, path: Path) -> np.ndarray:
    """Return values of native vertices; a surface that is too small is another subject's."""
    if native.max() >= len(values):
        raise UserError(
            f"{path} has {len(values)} native vertices, but white-to-fsaverage.mgz asks for "
            f"vertex {native.max() + 1}: {MIXED}."
        )
    return values[native]


def _weights(
    at: np.ndarray, number: np.ndarray, mapping: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return point, voxel and weight of the voxels around points.

    Parameters
    ----------
    at
        (n, 3), coordinates in voxels from 0; those outside the volume touch nothing.
    number
        int (X, Y, Z), the number of each voxel, -1 for none.
    mapping
        One of `MAPPINGS`.
    """
    last = np.array(number.shape) - 1
    within = np.flatnonzero(((at >= 0) & (at <= last)).all(axis=1))
    first, along = MAPPINGS[mapping](at[within])
    points, voxels, weights = [], [], []
    for step in product(range(along.shape[2]), repeat=3):
        place = np.clip(first + step, 0, last)  # what lies outside repeats the border
        weight = np.prod([along[:, axis, s] for axis, s in enumerate(step)], axis=0)
        voxel = number[tuple(place.T)]
        here = np.flatnonzero((voxel >= 0) & (weight != 0))
        points.append(within[here])
        voxels.append(voxel[here])
        weights.append(weight[here])
    point, voxel, weight = (np.concatenate(part) for part in (points, voxels, weights))
    if mapping == "cubic":  # weights below 0: a small rest is no measure of the whole
        kept = np.bincount(point, weight, len(at))[point] >= LEAST
        point, voxel, weight = point[kept], voxel[kept], weight[kept]
    return point, voxel, weight


def _nearest_weights(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.floor(at + 0.5).astype(np.int64), np.ones((*at.shape, 1))


def _linear_weights(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    base = np.floor(at).astype(np.int64)
    part = at - base
    return base, np.stack([1 - part, part], axis=2)


def _cubic_weights(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Catmull and Rom's weights (Keys 1981 with a = -1/2), as ba_interp3 has them."""
    base = np.floor(at).astype(np.int64)
    t = at - base
    weights = (
        (-t + 2 * t**2 - t**3) / 2,
        (2 - 5 * t**2 + 3 * t**3) / 2,
        (t + 4 * t**2 - 3 * t**3) / 2,
        (-(t**2) + t**3) / 2,
    )
    return base - 1, np.stack(weights, axis=2)


# The first voxel (n, 3) and the weights (n, 3, k) of the k voxels from there along each axis.
MAPPINGS = {"linear": _linear_weights, "nearest": _nearest_weights, "cubic": _cubic_weights}


def _projection(
    rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, v: int
) -> sp.csr_matrix:
    """Return the sparse (20484, V) with rows that sum to 1; a row of -1 is left out."""
    import scipy.sparse as sp

    known = rows >= 0
    shape = (FSAVERAGE5_VERTICES, v)
    matrix = sp.csr_matrix((weights[known], (rows[known], columns[known])), shape=shape)
    total = np.asarray(matrix.sum(axis=1)).ravel()
    matrix.data /= np.repeat(total, np.diff(matrix.indptr))
    return matrix.astype(np.float32)
