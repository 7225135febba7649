"""The cortical surface: its meshes, how hemispheres are placed for a view, which parcels it shows.

The meshes are nilearn's bundled fsaverage5 files, read where they lie: importing
``nilearn.datasets`` for them would cost more than a second of the page's start.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.brain.parcels import vertex_parcels
from explorer.request import CAMERAS, NATIVE, SURFACES
from explorer.types import FSAVERAGE5_VERTICES, Parcellation, UserError, VoxelSpace

if TYPE_CHECKING:
    import scipy.sparse as sp

HALF = FSAVERAGE5_VERTICES // 2
SIDES = ("left", "right")
FILES = {"inflated": "infl", "pial": "pial", "flat": "flat"}

# Rows are screen right, depth away from the viewer, screen up, as directions in (right, anterior,
# superior). "lateral" and "medial" turn the hemispheres by half a turn against each other, so that
# both show the same side, mirrored; the other views look at both from one place.
_RIGHT, _FRONT, _UP = np.eye(3, dtype=int)
ROTATIONS = {
    ("lateral", "left"): (-_FRONT, _RIGHT, _UP),
    ("lateral", "right"): (_FRONT, -_RIGHT, _UP),
    ("medial", "left"): (_FRONT, -_RIGHT, _UP),
    ("medial", "right"): (-_FRONT, _RIGHT, _UP),
    **{("posterior", side): (_RIGHT, _FRONT, _UP) for side in SIDES},
    **{("anterior", side): (-_RIGHT, -_FRONT, _UP) for side in SIDES},
    **{("dorsal", side): (_RIGHT, -_UP, _FRONT) for side in SIDES},
    **{("ventral", side): (-_RIGHT, _UP, _FRONT) for side in SIDES},
}
GAP = 0.06  # between the hemispheres, in widths of one; our choice


def surface_mesh(
    surface: str, voxel_space: VoxelSpace | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Return ``left`` and ``right``: vertices float32 (10,242, 3) in mm, faces int32 (m, 3), sulc.

    ``sulc`` float32 (10,242,) is the sulcal depth, positive in sulci. Vertices are (right,
    anterior, superior); the flat map lies in the plane of the first two and leaves out the faces
    of the medial wall and along its cuts. Left, then right, is the order of all data on
    fsaverage5. A native surface is the subject's own, at the same 10,242 places of its cortex, and
    needs the voxel space that has it.
    """
    if surface in NATIVE and voxel_space is not None and voxel_space.native is not None:
        return voxel_space.native()[surface.removeprefix("native ")]
    if surface in NATIVE:
        raise UserError(
            "This data set has no surface of the subject's own; choose one of "
            f"{', '.join(SURFACES)}."
        )
    if surface not in SURFACES:
        raise UserError(f"surface is one of {', '.join(SURFACES)}, found {surface!r}.")
    meshes = {}
    for side in SIDES:
        vertices, faces = bundled(f"{FILES[surface]}_{side}")
        (sulc,) = bundled(f"sulc_{side}")
        meshes[side] = {"vertices": vertices, "faces": faces, "sulc": sulc}
    return meshes


def offered_surfaces(voxel_space: VoxelSpace, parcellation: Parcellation) -> tuple[str, ...]:
    """Return the surfaces that a map can be drawn on: none without places."""
    if voxel_space.projection is None and parcellation.surface is None:
        return ()
    return (*SURFACES, *(NATIVE if voxel_space.native is not None else ()))


def bundled(stem: str) -> tuple[np.ndarray, ...]:
    """Return the arrays of one of nilearn's bundled fsaverage5 files, e.g. ``pial_left``.

    They are read where they lie: importing ``nilearn.datasets`` for them takes over a second.
    """
    from importlib.util import find_spec

    import nibabel as nib

    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise UserError("Surfaces come with the package nilearn; run: pip install nilearn.")
    path = Path(spec.origin).parent / "datasets" / "data" / "fsaverage5" / f"{stem}.gii.gz"
    if not path.exists():
        raise UserError(
            f"The installed nilearn has no {path.name}, which the surface is drawn from; "
            "install a version that requirements.txt allows."
        )
    return tuple(array.data for array in nib.load(path).darrays)


def layouts(mesh: Mapping[str, Mapping[str, np.ndarray]], surface: str) -> dict[str, Any]:
    """Return how to place the hemispheres for each camera so that neither hides the other.

    ``layouts[camera][side]`` has ``rotation`` (3, 3) and ``offset``, the shift to the right when
    both are shown (0 when one is shown alone): place a centred vertex v at ``rotation @ v +
    (offset, 0, 0)``. Then every camera is the same one: looking along +y with +z up and +x to the
    right (in plotly: ``eye = (0, -d, 0)``, ``up = (0, 0, 1)``), best orthographic. ``extent`` is
    the width, depth and height of the pair, ``single`` that of one hemisphere, in mm. A flat map
    is seen from above whatever the camera. Seen from the front and from below, the left
    hemisphere is on the right.
    """
    out = {}
    for camera in CAMERAS:
        seen = "dorsal" if surface == "flat" else camera
        entry: dict[str, Any] = {}
        sizes = []
        for side in SIDES:
            rotation = np.stack(ROTATIONS[seen, side])
            entry[side] = {"rotation": rotation.tolist()}
            sizes.append(np.ptp(centred(mesh[side]) @ rotation.T, axis=0))
        single = np.maximum(*sizes)
        shift = float(single[0]) * (1 + GAP) / 2
        swapped = -1 if seen in ("anterior", "ventral") else 1
        entry["left"]["offset"], entry["right"]["offset"] = -swapped * shift, swapped * shift
        entry["single"] = [float(x) for x in single]
        entry["extent"] = [float(single[0]) + 2 * shift, *entry["single"][1:]]
        out[camera] = entry
    return out


def drawn_parcels(parcellation: Parcellation, projection: sp.csr_matrix | None) -> np.ndarray:
    """Return int32 (20,484,): the parcel that each vertex shows, -1 for background only.

    Where the atlas is known on the surface, a parcel with at least one voxel is drawn whole: its
    value belongs to the parcel, however densely its cortex was sampled (the voxel counts tell).
    Parcels without voxels stay blank. Where the atlas is not known, only the vertices at which
    voxels are seen are drawn, so it needs a projection.
    """
    if parcellation.surface is None:
        return vertex_parcels(parcellation, projection)
    sampled = np.append(parcellation.masks()[:-1].any(axis=1), False)  # the last is for -1
    surface = parcellation.surface
    return np.where(sampled[surface], surface, -1).astype(np.int32)


def centred(part: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return vertices with the middle of their bounding box at 0, and those of no face at 0."""
    vertices = part["vertices"]
    used = np.zeros(len(vertices), dtype=bool)
    used[part["faces"].ravel()] = True
    middle = (vertices[used].max(axis=0) + vertices[used].min(axis=0)) / 2
    return np.where(used[:, None], vertices - middle, 0).astype(np.float32)


def background(sulc: np.ndarray) -> np.ndarray:
    """Return grey uint8: gyri light, sulci darker, with a soft edge between."""
    return np.round(178 - 26 * np.tanh(2.5 * sulc)).astype(np.uint8)
