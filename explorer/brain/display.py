"""What a drawn brain shows: values and colours of parcels and vertices, ready for a browser."""

from __future__ import annotations

import base64
import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np

from explorer.brain.palettes import PALETTES
from explorer.brain.parcels import UNASSIGNED, VoxelMap
from explorer.brain.surfaces import (
    HALF,
    SIDES,
    background,
    centred,
    drawn_parcels,
    layouts,
    surface_mesh,
)
from explorer.request import MEASURES
from explorer.types import FSAVERAGE5_VERTICES, Parcellation, UserError, VoxelSpace

COLOURS = {kind: next(iter(maps.values())) for kind, maps in PALETTES.items()}  # by default
# What each measure says, for colour bars and table heads.
TITLES = {
    "enrichment": "enrichment (share of importance / share of voxels)",
    "share": "share of all importance",
    "mean": "mean importance per voxel",
    "signed": "signed sum of importance",
}
SPREAD = 2  # vertices, about 8 mm: how far a map of voxels reaches beyond them; our choice


def surface_payload(
    parcellation: Parcellation, voxel_space: VoxelSpace, surface: str
) -> dict[str, Any]:
    """Return all that a browser needs once to draw parcels on a surface, ready for JSON (0.7 MB).

    Returns
    -------
    dict
        ``surface``, ``atlas``; ``parcels``: list of ``key``, ``name``, ``hemisphere``, ``voxels``
        and ``colour`` in the order of `parcel_values`; ``colours``: per kind, hex colours from
        low to high; ``left`` and ``right``: ``vertices`` (10,242, 3) centred on the middle of
        their bounding box, ``faces`` (m, 3), ``parcel`` (10,242,) as a position in ``parcels`` or
        -1 (background only), ``background`` (10,242,) grey 0-255. Every array is ``{"dtype",
        "shape", "data"}``, the data little-endian in base64. ``layouts``: see `layouts`.
    """
    if voxel_space.projection is None and parcellation.surface is None:
        raise UserError(
            "This study gives no voxel locations, so there is no surface to draw; use the table."
        )
    mesh = surface_mesh(surface, voxel_space)
    drawn = drawn_parcels(parcellation, voxel_space.projection)
    counts = parcellation.masks().sum(axis=1)
    payload: dict[str, Any] = {
        "surface": surface,
        "atlas": parcellation.name,
        "parcels": [
            {
                "key": label.key,
                "name": label.name,
                "hemisphere": label.hemisphere,
                "voxels": int(count),
                "colour": colour,
            }
            for label, count, colour in zip(
                parcellation.labels, counts[:-1], label_colours(parcellation), strict=True
            )
        ],
        "colours": {kind: list(stops) for kind, stops in COLOURS.items()},
        "layouts": layouts(mesh, surface),
    }
    for side, rows in zip(SIDES, (slice(None, HALF), slice(HALF, None)), strict=True):
        part = mesh[side]
        payload[side] = {
            "vertices": _encoded(centred(part), np.float32),
            "faces": _encoded(part["faces"], np.uint16),  # 10,242 vertices fit in 16 bits
            "parcel": _encoded(drawn[rows], np.int16),
            "background": _encoded(background(part["sulc"]), np.uint8),
        }
    return payload


def label_colours(parcellation: Parcellation) -> list[str]:
    """Return a hex colour for each label: the atlas's own, or where it has but one, told apart.

    Then hues follow the golden angle, so that neighbours in the table differ, and both hemispheres
    of a parcel look the same.
    """
    labels = parcellation.labels
    if len({label.colour for label in labels}) > 1 or len(labels) < 2:
        return ["#{:02x}{:02x}{:02x}".format(*label.colour) for label in labels]
    names = list(dict.fromkeys(label.name for label in labels))
    made = {}
    for i, name in enumerate(names):
        rgb = colorsys.hls_to_rgb(i * 0.381966 % 1, 0.56 + 0.08 * (i % 3 - 1), 0.55)
        made[name] = "#{:02x}{:02x}{:02x}".format(*(round(255 * c) for c in rgb))
    return [made[label.name] for label in labels]


def vertex_values(
    voxel_map: VoxelMap,
    parcellation: Parcellation,
    voxel_space: VoxelSpace,
    spread: int = SPREAD,
) -> np.ndarray:
    """Return float32 (20,484,): a map of voxels on the surface, NaN where nothing is known.

    A vertex shows the mean of its voxels, by their weights. One without voxels shows the mean of
    its neighbours, up to ``spread`` vertices from the next voxel and never outside the atlas, so
    that sparse voxels can be seen. Voxels without places show their parcel's mean where the atlas
    has that parcel.
    """
    import scipy.sparse as sp

    projection = voxel_space.projection
    if projection is None:
        means = voxel_map.table["mean"].to_numpy()[:-1]
        drawn = drawn_parcels(parcellation, None)
        return np.append(means, np.nan)[drawn].astype(np.float32)
    finite, weights = np.isfinite(voxel_map.values), abs(projection)
    weight = weights @ finite.astype(np.float64)
    summed = weights @ np.where(finite, voxel_map.values, 0.0)
    values = np.full(FSAVERAGE5_VERTICES, np.nan)
    np.divide(summed, weight, out=values, where=weight > 0)
    faces = np.concatenate(
        [part["faces"] + HALF * i for i, part in enumerate(surface_mesh("pial").values())]
    )
    pairs = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).T
    shape = (FSAVERAGE5_VERTICES, FSAVERAGE5_VERTICES)
    beside = sp.csr_matrix((np.ones(pairs.shape[1]), pairs), shape)
    beside = beside + beside.T
    inside = True if parcellation.surface is None else parcellation.surface >= 0
    for _ in range(spread):
        known = np.isfinite(values)
        count = beside @ known
        near = beside @ np.where(known, values, 0.0)
        fill = ~known & (count > 0) & inside
        values[fill] = near[fill] / count[fill]
    return values.astype(np.float32)


def map_payload(
    voxel_map: VoxelMap, parcellation: Parcellation, voxel_space: VoxelSpace
) -> dict[str, Any] | None:
    """Return `vertex_values` per hemisphere, encoded for a browser; None where none are drawn."""
    located = voxel_space.projection is not None or parcellation.surface is not None
    if voxel_map.values is None or not located:
        return None
    values = vertex_values(voxel_map, parcellation, voxel_space)
    return {s: _encoded(v, np.float32) for s, v in zip(SIDES, np.split(values, 2), strict=True)}


def beyond(values: Any, limits: Sequence[float]) -> list[bool]:
    """Return whether any value lies below and above colour limits: [below, above].

    Limits are the same for many trials, so one trial's largest value may have the colour of a
    smaller one; then the end of the colour bar must say so. None and NaN are no values.
    """
    known = np.array([np.nan if value is None else value for value in values], dtype=float)
    return [bool((known < limits[0]).any()), bool((known > limits[1]).any())]


def hidden(values: Any, threshold: float) -> np.ndarray:
    """Return bool: which values lie nearer to zero than a threshold; NaN and None do not."""
    known = np.array([np.nan if value is None else value for value in values], dtype=float)
    return np.abs(known) < threshold


def threshold_sentence(values: Any, threshold: float, what: str) -> str:
    """Return what a threshold hides of ``values`` of ``what`` (parcels), "" where there is none.

    None and NaN are not counted: they have no colour anyway.
    """
    if not threshold:
        return ""
    known = np.array([np.nan if value is None else value for value in values], dtype=float)
    lost, n = int(hidden(known, threshold).sum()), int(np.isfinite(known).sum())
    at = f"{threshold:,.0f}" if threshold >= 1000 else f"{threshold:.3g}"
    where = f"between \N{MINUS SIGN}{at} and {at}" if (known < 0).any() else f"below {at}"
    return f"not coloured {where}: {lost:,} of {n:,} {what}"


def map_values(shown: VoxelMap) -> dict[str, Any]:
    """Return what `parcel_values` does, for a map of voxels: the mean of each parcel.

    ``beyond`` is of the voxels, whose values the surface shows.
    """
    means = () if shown.values is None else shown.table["mean"].to_numpy()[:-1]
    return {
        "measure": "mean",
        "title": shown.title,
        "kind": shown.kind,
        "limits": list(shown.limits),
        "beyond": beyond(() if shown.values is None else shown.values, shown.limits),
        "reference": None,
        "values": [float(f"{v:.4g}") if np.isfinite(v) else None for v in means],
        "small": [],
        "flat": False,
    }


def parcel_values(parcel_map: Any, measure: str) -> dict[str, Any]:
    """Return what changes with the trial: one value a parcel and how to colour it, ready for JSON.

    Returns
    -------
    dict
        ``values``: one number or None (no voxels, or a flat gradient) per entry of the payload's
        ``parcels``, in their order, 4 significant digits; ``small``: positions of the parcels
        with too few voxels to trust; ``limits`` [low, high], fixed over trials; ``beyond``: see
        `beyond`, of the parcels that are coloured; ``kind``, a key of the payload's ``colours``;
        ``title``; ``reference``: the value that means no preference, or None; ``flat``: the
        gradient was zero everywhere.
    """
    if measure not in MEASURES:
        raise UserError(f"measure is one of {', '.join(MEASURES)}, found {measure!r}.")
    table = parcel_map.table
    table = table[table["parcel"] != UNASSIGNED]
    values = table[measure].to_numpy(dtype=float)
    return {
        "measure": measure,
        "title": TITLES[measure],
        "kind": "diverging" if measure == "signed" else "sequential",
        "limits": [float(x) for x in parcel_map.limits[measure]],
        "beyond": beyond(values[~table["small"].to_numpy(bool)], parcel_map.limits[measure]),
        "reference": 1.0 if measure == "enrichment" else None,
        "values": [float(f"{v:.4g}") if np.isfinite(v) else None for v in values],
        "small": np.flatnonzero(table["small"]).tolist(),
        "flat": bool(parcel_map.flat),
    }


def _encoded(values: np.ndarray, dtype: type[np.generic]) -> dict[str, Any]:
    little = np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<"))
    return {
        "dtype": np.dtype(dtype).name,
        "shape": list(little.shape),
        "data": base64.b64encode(little.tobytes()).decode("ascii"),
    }
