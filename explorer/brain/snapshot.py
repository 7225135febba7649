"""A quick picture of the surface: every face painted flat, the nearest last.

For a glance in a notebook, in a tenth of the time of the printed views; see `printed` for those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from explorer.brain.display import COLOURS
from explorer.brain.surfaces import HALF, SIDES, background, centred, layouts, surface_mesh

GLANCE = ("lateral", "medial", "ventral")
FINE = 2  # drawn that much larger and shrunk, which smooths edges
DARKEN = 0.22  # of the light that a face turned away by a right angle loses; our choice


def vertex_colours(
    values: np.ndarray, kind: str, limits: Sequence[float], labels: Sequence[str] = ()
) -> np.ndarray:
    """Return float32 (n, 3), 0 to 255, for values (n,), NaN where a value is unknown.

    ``kind``: "sequential" or "diverging" between ``limits``, or "labels", where values are
    positions among the hex colours ``labels``.
    """
    values = np.asarray(values, dtype=float)
    known = np.isfinite(values)
    colours = np.full((len(values), 3), np.nan, dtype=np.float32)
    stops = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in labels or COLOURS[kind]]
    stops = np.array(stops, dtype=np.float32)
    if kind == "labels":
        colours[known] = stops[values[known].astype(int)]
        return colours
    low, high = limits
    at = np.clip((values[known] - low) / ((high - low) or 1.0), 0, 1) * (len(stops) - 1)
    for channel in range(3):
        colours[known, channel] = np.interp(at, np.arange(len(stops)), stops[:, channel])
    return colours


def snapshot(
    colours: np.ndarray,
    views: Sequence[str] = GLANCE,
    surface: str = "inflated",
    height: int = 110,
) -> np.ndarray:
    """Return uint8 RGB (H, W, 3) on white: both hemispheres in each view, views side by side.

    Parameters
    ----------
    colours
        float (20,484, 3), 0 to 255; NaN shows the folding in grey.
    views
        Some of `explorer.request.CAMERAS`.
    surface
        "inflated", "pial" or "flat".
    height
        In pixels; every view is as high and as wide as its two hemispheres need.
    """
    mesh = surface_mesh(surface)
    placed = [layouts(mesh, surface)[view] for view in views]
    return np.concatenate([_view(mesh, one, colours, height) for one in placed], axis=1)


def _view(
    mesh: dict[str, Any], layout: dict[str, Any], colours: np.ndarray, tall: int
) -> np.ndarray:
    """Return one view, uint8 (H, W, 3)."""
    from PIL import Image, ImageDraw

    wide, _, high = layout["extent"]
    size = round(tall * wide / high) + tall // 8, tall
    width, height = size[0] * FINE, size[1] * FINE
    canvas = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(canvas)
    scale = 0.97 * height / high
    for number, side in enumerate(SIDES):
        part, half = mesh[side], slice(HALF * number, HALF * (number + 1))
        own = colours[half]
        grey = background(part["sulc"]).astype(np.float32)[:, None] + np.float32([22, 21, 19])
        own = np.where(np.isnan(own), grey, own)
        at = centred(part) @ np.array(layout[side]["rotation"]).T
        corners = at[part["faces"]]  # (m, 3 corners, 3): right, away, up
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        length = np.linalg.norm(normal, axis=1)
        facing = np.abs(normal[:, 1]) / np.where(length > 0, length, 1.0)
        shade = (1 - DARKEN * (1 - facing))[:, None]
        fill = np.clip(own[part["faces"]].mean(axis=1) * shade, 0, 255).astype(int)
        x = width / 2 + scale * (corners[..., 0] + layout[side]["offset"])
        y = height / 2 - scale * corners[..., 2]
        outlines = np.stack([x, y], axis=-1).reshape(len(x), 6)
        for i in np.argsort(-corners[..., 1].mean(axis=1)):
            pen.polygon(outlines[i].tolist(), fill=tuple(fill[i].tolist()))
    return np.asarray(canvas.resize(size, Image.Resampling.LANCZOS))
