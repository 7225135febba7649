"""The map of a trial in print: views of the surface with a colour bar, or bars of parcels."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.brain.display import (
    COLOURS,
    hidden,
    label_colours,
    threshold_sentence,
)
from explorer.brain.parcels import UNASSIGNED, VoxelMap
from explorer.brain.surfaces import HALF, SIDES, background, centred, drawn_parcels, surface_mesh
from explorer.brain.values import on_vertices, on_voxels, told_of
from explorer.brain.volumes import draw_volume
from explorer.brain.volumes import told as told_about
from explorer.request import PICTURED
from explorer.types import Parcellation, VoxelSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, MARGIN = 7.2, 0.12  # inches: 183 mm, two columns of a journal
INK, OUTLINE, HIDDEN = "#222222", "#4b4b4b", "#bdbdbd"
BRAINS = 3.0  # inches for four views of two hemispheres, and their colour bar
VIEWS = ("lateral", "medial", "ventral", "posterior")


def printable(
    parcel_map: Any,
    parcellation: Parcellation | None,
    voxel_space: VoxelSpace | None,
    surface: str = "",
) -> str:
    """Return how a map can be drawn: on a "surface", in "slices", as "bars", or "none"."""
    if surface in PICTURED and voxel_space is not None and voxel_space.mask is not None:
        return "slices"
    painted = parcellation is not None and parcellation.surface is not None
    located = voxel_space is not None and (voxel_space.projection is not None or painted)
    on_voxels = isinstance(parcel_map, VoxelMap) and parcel_map.values is not None
    parcels = (parcel_map.table["parcel"] != UNASSIGNED).any()
    if located and parcellation is not None and (parcels or on_voxels):
        return "surface"
    return "bars" if parcels and (on_voxels or not isinstance(parcel_map, VoxelMap)) else "none"


def draw_surface(
    place: Callable[..., Axes],
    write: Callable[..., None],
    top: float,
    parcel_map: Any,
    measure: str,
    parcellation: Parcellation,
    voxel_space: VoxelSpace,
    surface: str,
    camera: str = "",
    hemisphere: str = "both",
    parcel: str = "",
    threshold: float = 0.0,
    palettes: Mapping[str, Sequence[str]] = COLOURS,
    outlines: Parcellation | None = None,
) -> None:
    """Draw four views of one or both hemispheres with one colour bar, by nilearn.

    ``place`` and ``write`` take inches from the figure's upper left corner, `BRAINS` of height are
    theirs. ``camera`` comes first among the views; the outline of ``parcel`` is drawn in ink, and
    those of all parcels of ``outlines`` in grey. Values below ``threshold`` are not coloured.
    """
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap
    from nilearn.plotting import plot_surf, plot_surf_contours

    told = told_of(parcel_map, measure)
    shown = on_surface = on_vertices(parcel_map, told, parcellation, voxel_space)
    by_label, by_vertex = told["kind"] == "labels", isinstance(parcel_map, VoxelMap)
    low, high = told["limits"]
    high = high if high > low else low + 1
    if by_label:
        low, high = -0.5, len(parcellation.labels) - 0.5
        colours = ListedColormap(label_colours(parcellation))
    else:
        colours = LinearSegmentedColormap.from_list(told["kind"], palettes[told["kind"]])
        shown = np.where(hidden(shown, threshold), np.nan, shown)
    on_flat = surface == "flat"
    views = ((90, 270),) if on_flat else _views(camera)
    sides = SIDES if hemisphere == "both" else (hemisphere,)
    columns = len(sides) if on_flat else len(views)
    wide = (WIDTH - 2 * MARGIN - 0.2) / columns
    side_length = 2.6 if on_flat else wide  # of the square axes, which may overlap: they are clear
    mesh = surface_mesh(surface, voxel_space)
    chosen = _outlined(parcel, parcellation, voxel_space)
    others = None if outlines is None else drawn_parcels(outlines, voxel_space.projection)
    for row, side in enumerate(sides):
        half = slice(HALF * SIDES.index(side), HALF * (SIDES.index(side) + 1))
        middle = top + (1.35 if on_flat or len(sides) == 1 else 0.8 + 1.2 * row)
        label = MARGIN + (row * wide if on_flat else 0)
        write(label, middle, side[0].upper(), 7, va="center")
        for column, view in enumerate(views):
            centre = MARGIN + 0.2 + (row if on_flat else column) * wide + wide / 2
            if row == 0 and not on_flat:
                write(centre, top + 0.02, view, 7, ha="center")
            corner = (centre - side_length / 2, middle - side_length / 2)
            axes = place(*corner, side_length, side_length, projection="3d")
            plot_surf(
                [centred(mesh[side]), mesh[side]["faces"]],
                shown[half],
                bg_map=1 - background(mesh[side]["sulc"]) / 255,
                hemi=side,
                view=view,
                engine="matplotlib",
                cmap=colours,
                vmin=low,
                vmax=high,
                avg_method="mean" if by_vertex and not by_label else _inside,
                colorbar=False,
                axes=axes,
                figure=axes.figure,
            )
            lines = []
            if others is not None:
                there = [int(i) for i in np.unique(others[half]) if i >= 0]
                lines.append((others[half] + 1, [i + 1 for i in there], [OUTLINE] * len(there)))
            if chosen[half].any() and not chosen[half].all():
                lines.append((chosen[half].astype(int), [1], [INK]))
            for where, levels, inks in lines:
                faces = [centred(mesh[side]), mesh[side]["faces"]]
                drawn = {"levels": levels, "colors": inks, "axes": axes, "figure": axes.figure}
                plot_surf_contours(faces, where, hemi=side, **drawn)
            _fit(axes, mesh[side])
    note = "grey: no voxels" if by_vertex else "grey: no voxels, or fewer than 10 in the parcel"
    if threshold and not by_label:
        small = set(told["small"])
        large = [None if i in small else v for i, v in enumerate(told["values"])]
        counted = (on_surface, "vertices") if by_vertex else (large, "parcels")
        note += f"; {threshold_sentence(counted[0], threshold, counted[1])}"
    if outlines is not None:
        note += f"; outlines: {outlines.name}"
    _foot(place, write, top, told, colours, (low, high), threshold, (note, parcellation.note))


def draw_slices(
    place: Callable[..., Axes],
    write: Callable[..., None],
    top: float,
    parcel_map: Any,
    measure: str,
    parcellation: Parcellation,
    voxel_space: VoxelSpace,
    kind: str,
    threshold: float = 0.0,
    palettes: Mapping[str, Sequence[str]] = COLOURS,
) -> None:
    """Draw a map in its volume, as `explorer.brain.volumes.draw_volume`, as high as a surface."""
    from matplotlib.colors import LinearSegmentedColormap

    numbers = told_of(parcel_map, measure)
    by_label = numbers["kind"] == "labels"
    axes = place(MARGIN, top, WIDTH - 2 * MARGIN, BRAINS - 0.45)
    figure, box = axes.figure, axes.get_position().bounds
    axes.remove()
    shown = parcel_map, numbers, parcellation, voxel_space, threshold, palettes
    draw_volume(figure, box, kind, *shown)
    note = told_about(voxel_space, kind)
    if threshold and not by_label:
        values = on_voxels(parcel_map, numbers, parcellation)
        note += f" {threshold_sentence(values, threshold, 'voxels').capitalize()}."
    colours = None
    if not by_label:
        colours = LinearSegmentedColormap.from_list("chosen", palettes[numbers["kind"]])
    low, high = numbers["limits"]
    limits = low, high if high > low else low + 1
    _foot(place, write, top, numbers, colours, limits, threshold, (note,))


def _foot(
    place: Callable[..., Axes],
    write: Callable[..., None],
    top: float,
    told: Mapping[str, Any],
    colours: Any,
    limits: tuple[float, float],
    threshold: float,
    notes: Sequence[str],
) -> None:
    """Draw the colour bar of a map, or the title of labels, and write the notes beside it."""
    from matplotlib.colorbar import ColorbarBase
    from matplotlib.colors import Normalize

    foot, (low, high) = top + BRAINS - 0.35, limits
    if told["kind"] == "labels":
        write(WIDTH / 2, foot, told["title"], 6.5, ha="center")
    else:
        bar = place(WIDTH / 2 - 1.4, foot, 2.8, 0.08)
        below, above = told["beyond"]
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
        scale = ColorbarBase(
            bar, cmap=colours, norm=Normalize(low, high), orientation="horizontal", extend=extend
        )
        ends = {"va": "center", "fontsize": 6, "color": INK, "transform": bar.transAxes}
        if below:
            bar.text(-0.06, 0.5, f"\N{LESS-THAN OR EQUAL TO} {_end(low)}", ha="right", **ends)
        if above:
            bar.text(1.06, 0.5, f"\N{GREATER-THAN OR EQUAL TO} {_end(high)}", ha="left", **ends)
        scale.set_label(told["title"], fontsize=6.5, color=INK, labelpad=2)
        scale.outline.set_visible(False)
        if threshold:
            bar.axvspan(-threshold, threshold, color=HIDDEN, linewidth=0)
        bar.tick_params(labelsize=6, length=2, width=0.5, pad=1.5, colors=INK)
        if told["reference"] is not None and low < told["reference"] < high:
            bar.axvline(told["reference"], color=INK, linewidth=0.8)
    if told["flat"]:
        notes = ("the gradient is zero for every voxel: nothing to map", *notes[1:])
    lines = [line for note in notes for line in textwrap.wrap(note, 52)]
    write(MARGIN, foot, "\n".join(lines), 5.5, color="#666666")


def _end(limit: float) -> str:
    """Return a colour limit as the end of a bar shows it."""
    return f"{limit:.3g}".replace("-", "\N{MINUS SIGN}")


def _views(camera: str) -> tuple[str, ...]:
    """Return the four views that are printed, the chosen one first."""
    return tuple(dict.fromkeys([camera, *VIEWS] if camera else VIEWS))[: len(VIEWS)]


def _outlined(parcel: str, parcellation: Parcellation, voxel_space: VoxelSpace) -> np.ndarray:
    """Return bool (20,484,): where the parcel with this key is drawn, nowhere for none."""
    keys = [label.key for label in parcellation.labels]
    drawn = drawn_parcels(parcellation, voxel_space.projection)
    return drawn == keys.index(parcel) if parcel in keys else np.zeros(drawn.shape, dtype=bool)


def _inside(corners: np.ndarray) -> float:
    """Return the value of a face (3,) inside one parcel; NaN, grey, where parcels meet."""
    return float(corners[0]) if corners[0] == corners[1] == corners[2] else float("nan")


def _fit(axes: Axes, part: Mapping[str, np.ndarray]) -> None:
    """Let a mesh fill its axes, undistorted and without perspective; keep it as pixels in svg."""
    vertices = centred(part)
    reach = float(np.abs(vertices).max())
    middle = -vertices.mean(axis=0)  # nilearn moves a mesh to the mean of its vertices
    for set_limits, at in zip((axes.set_xlim, axes.set_ylim, axes.set_zlim), middle, strict=True):
        set_limits(at - reach, at + reach)
    axes.set_proj_type("ortho")
    axes.set_box_aspect((1, 1, 1), zoom=1.62)
    axes.patch.set_visible(False)
    for mesh in axes.collections:
        mesh.set_rasterized(True)  # 20,000 faces as vectors would make files of many megabytes


def draw_bars(
    axes: Axes,
    parcel_map: Any,
    measure: str,
    threshold: float = 0.0,
    palettes: Mapping[str, Sequence[str]] = COLOURS,
) -> None:
    """Draw the ten highest parcels (the furthest from zero where signed), as `draw_surface`."""
    told = told_of(parcel_map, measure)
    measure, table = told["measure"], parcel_map.table
    table = table[(table["parcel"] != UNASSIGNED) & table[measure].notna()]
    table = table[~table["small"]] if "small" in table else table
    top = table.sort_values(measure, key=abs, ascending=False).head(10)[::-1]
    stops = palettes["sequential"]
    colour = stops[round(0.75 * (len(stops) - 1))]
    under = hidden(top[measure], threshold)
    colours = [HIDDEN if one else colour for one in under]
    axes.barh(range(len(top)), top[measure], color=colours, height=0.7)
    low, high = told["limits"]  # as long as in other trials, and as far as the longest bar
    known = [0.0, *top[measure]]
    axes.set_xlim(min(low, *known), max(high, *known))
    axes.set_yticks(range(len(top)), [str(key) for key in top["parcel"]], parse_math=False)
    axes.set_xlabel(told["title"], fontsize=6.5, color=INK)
    axes.tick_params(labelsize=6, length=2, width=0.5, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(linewidth=0.5, color=INK)
    if told["reference"] is not None:
        axes.axvline(told["reference"], color=INK, linewidth=0.8)
    if told["flat"]:
        axes.text(0.5, 0.5, "the gradient is zero for every voxel", transform=axes.transAxes)
