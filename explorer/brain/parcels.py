"""Atlases on fsaverage5 and the parcels they give to voxels: voxel -> parcel -> vertex."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from explorer.types import FSAVERAGE5_VERTICES, Label, Parcellation, UserError

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

HEMISPHERE_VERTICES = FSAVERAGE5_VERTICES // 2
UNASSIGNED = "(unassigned)"


@dataclass(frozen=True, eq=False)
class Atlas:
    """A partition of fsaverage5: ``vertices`` int (20,484,) points into ``labels``, -1 is none.

    ``note``: what somebody must know of how it came onto this mesh, one sentence, or "".
    """

    name: str
    labels: tuple[Label, ...]
    vertices: np.ndarray
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse vertices that do not fit the mesh or the labels."""
        v, n = self.vertices, len(self.labels)
        keys = [label.key for label in self.labels]
        if len(set(keys)) != n:
            twice = next(key for key in keys if keys.count(key) > 1)
            raise UserError(
                f"Atlas {self.name!r} names the parcel {twice!r} twice; names must differ."
            )
        if v.shape != (FSAVERAGE5_VERTICES,) or v.min() < -1 or v.max() >= n:
            raise UserError(
                f"Atlas {self.name!r} with {n} labels needs one index from -1 to {n - 1} for each "
                f"of {FSAVERAGE5_VERTICES} vertices, found shape {v.shape} and values up to "
                f"{v.max()}."
            )


def lay(atlas: Atlas, projection: sp.csr_matrix, voxel_hash: str) -> Parcellation:
    """Return the atlas over the voxels that ``projection`` (20,484, V) puts on fsaverage5.

    A voxel belongs to the parcel on which most of its weight falls; weight on vertices without a
    parcel counts as a vote for (unassigned), and so does having no weight at all. A tie goes to
    the parcel that comes first in the atlas.
    """
    votes = _votes(atlas.vertices, len(atlas.labels), abs(projection))
    membership = np.where(votes.max(axis=0) > 0, votes.argmax(axis=0), len(atlas.labels))
    membership[membership == len(atlas.labels)] = -1
    return Parcellation(
        name=atlas.name,
        kind="partition",
        labels=atlas.labels,
        membership=membership.astype(np.int32),
        voxel_hash=voxel_hash,
        surface=atlas.vertices,
        note=atlas.note,
    )


def vertex_parcels(parcellation: Parcellation, projection: sp.csr_matrix) -> np.ndarray:
    """Return int32 (20,484,): the parcel of the voxels seen at each vertex, -1 where none are.

    Where voxels of several parcels meet, the one with the most weight wins. Of overlapping masks a
    voxel shows the smallest that holds it, so that a union never hides its parts.
    """
    if projection.shape[1] != parcellation.n_voxels:
        raise UserError(
            f"Atlas {parcellation.name!r} covers {parcellation.n_voxels} voxels, the projection "
            f"{projection.shape[1]}; both must be of one voxel space."
        )
    membership = voxel_parcels(parcellation)
    votes = _votes(membership, len(parcellation.labels), abs(projection).T)
    best = votes.argmax(axis=0)
    return np.where((votes.max(axis=0) > 0) & (best < len(parcellation.labels)), best, -1).astype(
        np.int32
    )


def voxel_parcels(parcellation: Parcellation) -> np.ndarray:
    """Return int (V,): each voxel's parcel, -1 for none; of overlapping masks the smallest."""
    membership = parcellation.membership
    if parcellation.kind == "masks":
        sizes = np.where(membership, membership.sum(axis=1, keepdims=True), np.inf)
        membership = np.where(membership.any(axis=0), sizes.argmin(axis=0), -1)
    return membership


def paint(rois: Parcellation, atlas: Atlas) -> Parcellation:
    """Return ROIs without places, drawn where an atlas has parcels of the same names.

    Names count as the same without hemisphere, case and joints: ``L_V1_ROI`` is V1. An ROI of both
    hemispheres takes the parcels of both. Voxels and labels stay what they were; the note says
    that the place is the group's. Where no name agrees `UserError` names some of both.
    """
    where = {(_bare(label.name), label.hemisphere): i for i, label in enumerate(rois.labels)}
    surface = np.empty(FSAVERAGE5_VERTICES, dtype=np.int32)
    for half, side in enumerate("LR"):
        rows = slice(half * HEMISPHERE_VERTICES, (half + 1) * HEMISPHERE_VERTICES)
        roi = np.full(len(atlas.labels) + 1, -1, dtype=np.int32)  # the last is for -1
        for i, label in enumerate(atlas.labels):
            name = _bare(label.name)
            roi[i] = where.get((name, side), where.get((name, ""), -1))
        surface[rows] = roi[atlas.vertices[rows]]
    painted = set(np.unique(surface).tolist()) - {-1}
    if not painted:
        raise UserError(
            f"None of the ROIs {_some(rois.labels)} is called like a parcel of the atlas "
            f"{atlas.name} ({_some(atlas.labels)}), so nothing can be painted on it."
        )
    lost = [label for i, label in enumerate(rois.labels) if i not in painted]
    note = (
        f"Group location, not this subject's: ROIs are painted where the atlas {atlas.name} has "
        "parcels of the same name."
    )
    note += f" It has none for {_some(lost)}." if lost else ""
    return replace(rois, name=f"{rois.name} on {atlas.name}", surface=surface, note=note)


def _bare(name: str) -> str:
    """Return a parcel's name without hemisphere, case, joints and the ending ROI."""
    name = re.sub(r"^(lh|rh|[LR])[._ -]|[._ -](lh|rh|[LR])$", "", name)
    name = re.sub(r"^ROI[._ -]|[._ -]ROI$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _some(labels: Sequence[Label], most: int = 6) -> str:
    names = list(dict.fromkeys(label.name for label in labels))
    return ", ".join(names[:most]) + (" and others" if len(names) > most else "")


def _votes(index: np.ndarray, n: int, weights: sp.csr_matrix) -> np.ndarray:
    """Sum ``weights`` (len(index), m) by label: (n + 1, m), the last row for the index -1."""
    import scipy.sparse as sp

    rows = np.where(index < 0, n, index)
    ones = np.ones(len(index), dtype=np.float32)
    by_label = sp.csr_matrix((ones, (rows, np.arange(len(index)))), shape=(n + 1, len(index)))
    return (by_label @ weights).toarray()


@dataclass(frozen=True, eq=False)
class VoxelMap:
    """Something known of each voxel beside importance, and its mean in each parcel.

    ``values`` float64 (V,), NaN where unknown, or None for a map of the parcels themselves.
    ``table``: one row a label in the atlas's order, then (unassigned): ``parcel`` (`Label.key`),
    ``name``, ``hemisphere``, ``voxels``, and with values ``known`` (voxels that have one) and
    ``mean`` over those. ``limits``: of the colours; ``kind``: sequential, diverging or labels.
    ``sentence``: what must be known to read it, where the map says that itself.
    """

    name: str
    title: str
    atlas: str
    values: np.ndarray | None
    table: pd.DataFrame
    kind: str
    limits: tuple[float, float]
    sentence: str = ""


def voxel_map(
    name: str, title: str, values: np.ndarray | None, parcellation: Parcellation
) -> VoxelMap:
    """Return a map of ``values`` (V,), or of the parcels themselves where there are none.

    Colours begin at zero and end at the 99th percentile; values of both signs get limits that are
    symmetric about zero.
    """
    import pandas as pd

    labels, masks = parcellation.labels, parcellation.masks()
    table = pd.DataFrame(
        {
            "parcel": [*(label.key for label in labels), UNASSIGNED],
            "name": [*(label.name for label in labels), UNASSIGNED],
            "hemisphere": [*(label.hemisphere for label in labels), ""],
            "voxels": masks.sum(axis=1),
        }
    )
    if values is None:
        return VoxelMap(name, title, parcellation.name, None, table, "labels", (0.0, 1.0))
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    known = (masks & finite).sum(axis=1)
    summed = masks.astype(np.float64) @ np.where(finite, values, 0.0)
    table["known"] = known
    table["mean"] = np.divide(summed, known, out=np.full(len(known), np.nan), where=known > 0)
    low, high = np.percentile(values[finite], (1, 99)) if finite.any() else (0.0, 0.0)
    kind, low, high = "sequential", min(float(low), 0.0), max(float(high), 0.0)
    if low < 0 < high:
        kind, high = "diverging", max(-low, high)
        low = -high
    if low == high:
        high = low + 1.0
    return VoxelMap(name, title, parcellation.name, values, table, kind, (low, high))
