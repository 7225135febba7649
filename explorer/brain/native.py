"""A subject's own cortical surface, as FreeSurfer writes it, at the places of fsaverage5.

Files of ``surf/`` that are read, ``rh`` likewise::

    lh.inflated  lh.pial  lh.sulc  lh.sphere.reg

``sphere.reg`` lies over fsaverage's sphere: each vertex of fsaverage5 takes the subject's nearest
there (surfer.nmr.mgh.harvard.edu/fswiki/SurfaceRegAndTemplates). So the surface is the subject's
own, with fsaverage5's faces, and all that is known on fsaverage5 is drawn on it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from explorer.brain.surfaces import HALF, SIDES, bundled
from explorer.files import guard
from explorer.types import UserError

SHAPES = ("inflated", "pial")
REGISTERED = "sphere.reg"
AGAIN = "copy it again from FreeSurfer's folder surf/"
Meshes = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]


def native_surface(
    folder: Path, places: Callable[[str], np.ndarray | None] | None = None
) -> Callable[[], Meshes] | None:
    """Return what reads the surface in a folder, once, or None where none of its files is there.

    Parameters
    ----------
    folder
        FreeSurfer's ``surf`` of one subject.
    places
        ``places("lh")`` gives the native vertex of each of fsaverage5's 10,242, from 0; None takes
        the nearest on ``sphere.reg``.

    Returns
    -------
    callable
        Gives ``inflated`` and ``pial``, each as `explorer.brain.surfaces.surface_mesh`; raises
        `UserError` where a file is missing, damaged, or of the other hemisphere.
    """
    if not any((folder / f"{h}.{shape}").is_file() for h in ("lh", "rh") for shape in SHAPES):
        return None

    @cache
    def read() -> dict[str, Any]:
        halves = {}
        for h, side in zip(("lh", "rh"), SIDES, strict=True):
            halves[side] = _hemisphere(folder, h, places(h) if places else None)
        left, right = (halves[side]["pial"]["vertices"][:, 0].mean() for side in SIDES)
        if left >= right:
            raise UserError(
                f"{folder}: lh.pial lies to the right of rh.pial, so the hemispheres are mixed "
                f"up; {AGAIN}."
            )
        return {shape: {side: halves[side][shape] for side in SIDES} for shape in SHAPES}

    return read


def _hemisphere(folder: Path, h: str, at: np.ndarray | None) -> dict[str, dict[str, np.ndarray]]:
    """Return one hemisphere of every shape: vertices (10,242, 3), faces and sulc."""
    import nibabel as nib

    side = SIDES[("lh", "rh").index(h)]
    points = {shape: _geometry(folder / f"{h}.{shape}") for shape in SHAPES}
    path = folder / f"{h}.sulc"
    with guard(path, "sulcal depth of FreeSurfer", AGAIN):
        sulc = np.asarray(nib.freesurfer.read_morph_data(path), dtype=np.float32)
    if at is None:
        sphere = _geometry(folder / f"{h}.{REGISTERED}")
        points[REGISTERED] = sphere
        at = _nearest(sphere, bundled(f"sphere_{side}")[0])
    counts = {name: len(array) for name, array in {**points, "sulc": sulc}.items()}
    if len(set(counts.values())) > 1 or at.shape != (HALF,) or at.max() >= len(sulc):
        told = ", ".join(f"{h}.{name} {count:,}" for name, count in counts.items())
        raise UserError(
            f"{folder}: the files of one hemisphere have the same number of vertices, and each of "
            f"fsaverage5's has its place among them; found {told}; {AGAIN}."
        )
    faces = bundled(f"pial_{side}")[1]
    return {
        shape: {"vertices": points[shape][at], "faces": faces, "sulc": sulc[at]}
        for shape in SHAPES
    }


def _geometry(path: Path) -> np.ndarray:
    """Return the vertices of a FreeSurfer surface, float32 (n, 3)."""
    import nibabel as nib

    with guard(path, "a surface of FreeSurfer", AGAIN):
        points = np.asarray(nib.freesurfer.read_geometry(path)[0], dtype=np.float32)
    if not len(points) or not np.isfinite(points).all():
        raise UserError(f"{path} has vertices that are not numbers; {AGAIN}.")
    return points


def _nearest(sphere: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Return the nearest of a sphere's vertices to each of the template's, whatever the radii."""
    from scipy.spatial import cKDTree

    unit = [points / np.linalg.norm(points, axis=1)[:, None] for points in (sphere, template)]
    return cKDTree(unit[0]).query(unit[1])[1]
