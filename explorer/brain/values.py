"""What a map says at each voxel and at each vertex: parcels spread over what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from explorer.brain.display import SPREAD, map_values, parcel_values, vertex_values
from explorer.brain.parcels import VoxelMap, voxel_parcels
from explorer.brain.surfaces import drawn_parcels
from explorer.types import Parcellation, VoxelSpace


def told_of(parcel_map: Any, measure: str) -> dict[str, Any]:
    """Return a map's numbers by parcel, title and limits, as a browser gets them."""
    if isinstance(parcel_map, VoxelMap):
        return map_values(parcel_map)
    return parcel_values(parcel_map, measure)


def on_vertices(
    parcel_map: Any,
    told: Mapping[str, Any],
    parcellation: Parcellation,
    voxel_space: VoxelSpace,
    spread: int = SPREAD,
) -> np.ndarray:
    """Return what each vertex shows (20,484,): a value, or a label's position; NaN for nothing.

    ``spread``: how far a map of voxels reaches beyond them, see `vertex_values`.
    """
    drawn = drawn_parcels(parcellation, voxel_space.projection)
    if told["kind"] == "labels":
        return np.where(drawn < 0, np.nan, drawn)
    if isinstance(parcel_map, VoxelMap):
        return vertex_values(parcel_map, parcellation, voxel_space, spread)
    return _by_parcel(told)[drawn]


def on_voxels(parcel_map: Any, told: Mapping[str, Any], parcellation: Parcellation) -> np.ndarray:
    """Return what each voxel shows (V,), as `on_vertices`; of overlapping ROIs the smallest."""
    parcels = voxel_parcels(parcellation)
    if told["kind"] == "labels":
        return np.where(parcels < 0, np.nan, parcels)
    if isinstance(parcel_map, VoxelMap):
        return parcel_map.values
    return _by_parcel(told)[parcels]


def _by_parcel(told: Mapping[str, Any]) -> np.ndarray:
    """Return the value of each parcel, NaN for those too small to trust; the last is for none."""
    values = np.array([np.nan if v is None else v for v in told["values"]], dtype=float)
    values[told["small"]] = np.nan
    return np.append(values, np.nan)
