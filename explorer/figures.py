"""One trial as a figure to publish: pictures, brain, and the line that says how to make it again.

No Gradio here.
"""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.brain.display import (
    COLOURS,
    DIVERGING,
    label_colours,
    map_values,
    parcel_values,
    vertex_values,
)
from explorer.brain.parcels import UNASSIGNED, VoxelMap
from explorer.brain.surfaces import HALF, SIDES, background, centred, drawn_parcels, surface_mesh
from explorer.request import SEED, Request
from explorer.types import Parcellation, UserError, VoxelSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, MARGIN = 7.2, 0.12  # inches: 183 mm, two columns of a journal
INK = "#222222"
BRAINS = 3.0  # inches for four views of two hemispheres, and their colour bar
FORMATS = {"png": "Description", "svg": "Description", "pdf": "Subject"}  # and where words go
OPAQUE = 0.85  # of the strongest part of a heat map over an image
ROW_TITLE = 0.26  # inches above a row's pictures
TRUTH = "ground truth"
Panel = tuple[str, list[np.ndarray], list[str]]  # its name, what lies over each other, lines below
_DRAWING = threading.Lock()


def provenance_line(
    request: Request,
    *,
    dataset: str,
    simulated: bool,
    averaged: int,
    checkpoints: Mapping[str, str],
    versions: Mapping[str, str] | None = None,
) -> str:
    """Return one line that says what a figure shows and how to make it again.

    ``dataset``: the study's title; ``averaged``: trials averaged; ``checkpoints``: name -> hash,
    of which 8 digits are printed; ``versions``: those of the installed libraries by default.
    """
    repeats = f"mean of {averaged} trials"
    if averaged == 1:
        repeats = f"repeat {request.repeats[0] + 1}" if request.repeats else "its only trial"
    options = "".join(f", {name} {value:g}" for name, value in request.options)
    values = ", ".join(f"{value:g}" for value in request.values)
    seed = f"seed {request.seed}"
    if request.axis == SEED:
        seed = f"seeds {values}"
    elif request.axis:
        options += f", {request.axis} {values}"
    if request.rois:
        options += f", betas of {' and '.join(request.rois)}"
    hashes = ", ".join(f"{name} {digest[:8]}" for name, digest in checkpoints.items())
    libraries = installed_versions() if versions is None else versions
    return (
        f"{'Simulated data' if simulated else 'Data'}: {dataset}, {request.subject}, stimulus "
        f"{request.stimulus}, {repeats}. Mapper {request.mapper}, generator {request.generator}, "
        f"{request.steps} steps, {seed}{options}."
        + (f" Checkpoints: {hashes}." if hashes else "")
        + f" Made with Afterimage ({', '.join(f'{k} {v}' for k, v in libraries.items())})."
    )


def installed_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide a figure, of those installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "diffusers", "nilearn", "matplotlib"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def trial_figure(
    truth: np.ndarray,
    frames: Sequence[Any],
    provenance: str,
    *,
    caption: str = "",
    guided: bool = True,
    made: str = "generated",
    rows: Sequence[str] = (),
    samples: Sequence[Any] = (),
    decoding: Any = None,
    attention: Any = None,
    parcel_map: Any = None,
    measure: str = "enrichment",
    parcellation: Parcellation | None = None,
    voxel_space: VoxelSpace | None = None,
    surface: str = "inflated",
) -> Figure:
    """Return one trial as a figure 183 mm wide: pictures, then the brain or a bar chart.

    Parameters
    ----------
    truth
        The picture that was shown, uint8 (H, W, 3).
    frames
        What ``Workbench.reconstruct`` yielded; the finished ones are drawn, by their ``index``.
    provenance
        The line at the foot, see `provenance_line`; it also goes into the saved file's metadata.
    caption
        Of the picture, shown as it is: never read as mathematics.
    guided
        False for a generator that knows no guidance scale.
    made
        How the pictures came about: generated, retrieved or published; printed under each.
    rows
        Names of the frames' rows, where there is more than one.
    samples
        What ``Workbench.samples`` gave, drawn after the sweep.
    decoding
        With ``rank`` and ``n``, to print the retrieval rank with N and chance.
    attention
        With ``cells`` and ``limit``: a second picture of the truth has it laid over.
    parcel_map, measure
        Importance per parcel and which column of it is drawn; or a `VoxelMap`.
    parcellation, voxel_space, surface
        Where the parcels lie. Without a projection the highest parcels are drawn as bars; a study
        without parcels gets pictures only.
    """
    from matplotlib.figure import Figure

    done = sorted((f for f in frames if f.done), key=lambda f: (f.row, f.index))
    panels = _panels(truth, done, guided, samples, attention, made)
    widest = max([f.index + 1 for f in done], default=1) if rows else len(panels)
    columns = max(4, min(widest, 6))
    cell = (WIDTH - 2 * MARGIN - (columns - 1) * 0.08) / columns
    lines = _in_lines(panels, done, rows, len(samples), columns)
    told = [max(len(below) for _, _, below in line) for _, line in lines]
    heights = [0.17 + cell + 0.11 * count + 0.1 for count in told]
    drawn = "none" if parcel_map is None else _evidence(parcel_map, parcellation, voxel_space)
    below = {"none": 0.0, "bars": 2.0, "surface": BRAINS}[drawn]
    foot = textwrap.wrap(provenance, 170)
    head = 0.3 if caption or decoding is not None else 0.05
    pictures_height = sum(heights) + sum(ROW_TITLE for title, _ in lines if title)
    height = 2 * MARGIN + head + pictures_height + below + 0.1 * len(foot) + 0.1
    figure = Figure(figsize=(WIDTH, height), dpi=150, facecolor="white", label=provenance)

    def place(left: float, top: float, width: float, tall: float, **kind: Any) -> Axes:
        """Return axes of a size in inches, measured from the figure's upper left corner."""
        box = (left / WIDTH, 1 - (top + tall) / height, width / WIDTH, tall / height)
        return figure.add_axes(box, **kind)

    def write(left: float, top: float, text: str, size: float = 6.5, **kind: Any) -> None:
        style = {"va": "top", "color": INK, **kind}
        spot = (left / WIDTH, 1 - top / height)
        figure.text(*spot, text, fontsize=size, parse_math=False, **style)

    top = MARGIN
    write(MARGIN, top, textwrap.shorten(caption, 100, placeholder=" …"), 8, weight="bold")
    if decoding is not None:
        rank = (
            f"retrieval rank {decoding.rank:g} of {decoding.n} (chance {(decoding.n + 1) / 2:g})"
        )
        write(WIDTH - MARGIN, top, rank, ha="right")
    top += head
    for (title, line), row_height in zip(lines, heights, strict=True):
        if title:
            write(MARGIN, top + 0.06, title, 7, weight="bold")
            top += ROW_TITLE
        for i, (name, pictures, scores) in enumerate(line):
            left = MARGIN + i * (cell + 0.08)
            write(left, top, name, 7, weight="bold" if name == TRUTH else "normal")
            axes = place(left, top + 0.17, cell, cell)
            for picture in pictures:
                axes.imshow(picture)
            axes.set_axis_off()
            write(left, top + 0.17 + cell + 0.05, "\n".join(scores), 6, linespacing=1.25)
        top += row_height
    if drawn == "bars":
        _draw_bars(place(2.0, top + 0.2, 3.4, below - 0.6), parcel_map, measure)
    elif drawn == "surface":
        _draw_surface(place, write, top, parcel_map, measure, parcellation, voxel_space, surface)
    write(MARGIN, height - MARGIN - 0.1 * len(foot), "\n".join(foot), 5.5, color="#666666")
    return figure


def heat_overlay(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return cells (rows, columns) as colours to lay over an image, uint8 RGBA (H, W, 4).

    Red where positive, blue where negative, each as opaque as its cell is large; clear where all
    are zero.
    """
    from PIL import Image

    small = Image.fromarray(np.asarray(cells, dtype=np.float32))
    values = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))
    size = np.abs(values) / (np.abs(cells).max() or 1.0)
    red, blue = ([int(DIVERGING[i][k : k + 2], 16) for k in (1, 3, 5)] for i in (-2, 1))
    colours = np.where(values[..., None] > 0, red, blue)
    return np.dstack([colours, 255 * OPAQUE * size]).round().astype(np.uint8)


def _in_lines(
    panels: Sequence[Panel], done: Sequence[Any], rows: Sequence[str], samples: int, columns: int
) -> list[tuple[str, list[Panel]]]:
    """Return the panels line by line, with a title ("" for none): the rows of a sweep apart."""
    groups = [("", list(panels))]
    if rows:
        first = len(panels) - len(done) - samples
        groups = [("", list(panels[:first]))]
        for number, title in enumerate(rows):
            own = [first + i for i, frame in enumerate(done) if frame.row == number]
            groups.append((title, [panels[i] for i in own]))
        groups.append(("", list(panels[len(panels) - samples :]) if samples else []))
    return [
        ("" if begin else title, group[begin : begin + columns])
        for title, group in groups
        for begin in range(0, len(group), columns)
    ]


def _panels(
    truth: np.ndarray,
    done: Sequence[Any],
    guided: bool,
    samples: Sequence[Any],
    attention: Any,
    made: str,
) -> list[Panel]:
    """Return the pictures of a figure: name, what lies over each other, and lines below."""
    panels: list[Panel] = [(TRUTH, [truth], [])]
    if attention is not None:
        heat = heat_overlay(attention.cells, *truth.shape[:2])
        lines = ["similarity lost when hidden", f"red {attention.limit:.2g}, blue gained"]
        panels.append(("what the decoding rests on", [truth, heat], lines))
    for i, frame in enumerate([*done, *samples]):
        name = f"scale {frame.scale:g}" if guided else "reconstruction"
        name = name if i < len(done) else f"sample {frame.index + 1}, {name}"
        scores = [f"{k} {v:.2f}" for k, v in frame.scores.items()]
        panels.append((name, [frame.image], [made, *scores]))
    return panels


def save_figure(figure: Figure, path: str | Path, format: str | None = None) -> Path:
    """Write a figure as png (300 dpi), svg or pdf, whole or not at all, and return its path.

    Text in svg and pdf stays text. The same figure gives the same bytes.
    """
    import matplotlib

    path = Path(path)
    kind = (format or path.suffix.lstrip(".")).lower()
    if kind not in FORMATS:
        raise UserError(f"A figure is saved as {', '.join(FORMATS)}, found {kind!r}.")
    described = {"Title": "Afterimage", FORMATS[kind]: figure.get_label()}
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    settings = {"svg.fonttype": "none", "svg.hashsalt": "afterimage", "pdf.fonttype": 42}
    temporary = path.with_name(f".{path.name}.part")
    try:
        # matplotlib reads these settings, and its font cache, from shared state while it draws
        with _DRAWING, matplotlib.rc_context(settings):
            figure.savefig(temporary, format=kind, dpi=300, metadata={**described, **undated})
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}).") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _evidence(
    parcel_map: Any, parcellation: Parcellation | None, voxel_space: VoxelSpace | None
) -> str:
    """Return how a map can be drawn: on a "surface", as "bars", or "none"."""
    painted = parcellation is not None and parcellation.surface is not None
    located = voxel_space is not None and (voxel_space.projection is not None or painted)
    on_voxels = isinstance(parcel_map, VoxelMap) and parcel_map.values is not None
    parcels = (parcel_map.table["parcel"] != UNASSIGNED).any()
    if located and parcellation is not None and (parcels or on_voxels):
        return "surface"
    return "bars" if parcels and (on_voxels or not isinstance(parcel_map, VoxelMap)) else "none"


def _told(parcel_map: Any, measure: str) -> dict[str, Any]:
    if isinstance(parcel_map, VoxelMap):
        return map_values(parcel_map)
    return parcel_values(parcel_map, measure)


def _on_vertices(
    parcel_map: Any, told: Mapping[str, Any], parcellation: Parcellation, voxel_space: VoxelSpace
) -> np.ndarray:
    """Return what each vertex shows (20,484,): a value, or a label's position; NaN for nothing."""
    drawn = drawn_parcels(parcellation, voxel_space.projection)
    if told["kind"] == "labels":
        return np.where(drawn < 0, np.nan, drawn)
    if isinstance(parcel_map, VoxelMap):
        return vertex_values(parcel_map, parcellation, voxel_space)
    values = np.array([np.nan if v is None else v for v in told["values"]])
    values[told["small"]] = np.nan
    return np.append(values, np.nan)[drawn]


def _draw_surface(
    place: Callable[..., Axes],
    write: Callable[..., None],
    top: float,
    parcel_map: Any,
    measure: str,
    parcellation: Parcellation,
    voxel_space: VoxelSpace,
    surface: str,
) -> None:
    """Draw four views of each hemisphere with one colour bar, by nilearn."""
    from matplotlib.colorbar import ColorbarBase
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize
    from nilearn.plotting import plot_surf

    told = _told(parcel_map, measure)
    on_vertices = _on_vertices(parcel_map, told, parcellation, voxel_space)
    by_label, by_vertex = told["kind"] == "labels", isinstance(parcel_map, VoxelMap)
    low, high = told["limits"]
    high = high if high > low else low + 1
    if by_label:
        low, high = -0.5, len(parcellation.labels) - 0.5
        colours = ListedColormap(label_colours(parcellation))
    else:
        colours = LinearSegmentedColormap.from_list(told["kind"], COLOURS[told["kind"]])
    on_flat = surface == "flat"
    views = ((90, 270),) if on_flat else ("lateral", "medial", "ventral", "posterior")
    columns = len(SIDES) if on_flat else len(views)
    wide = (WIDTH - 2 * MARGIN - 0.2) / columns
    side_length = 2.6 if on_flat else wide  # of the square axes, which may overlap: they are clear
    mesh = surface_mesh(surface)
    for row, side in enumerate(SIDES):
        middle = top + (1.35 if on_flat else 0.8 + 1.2 * row)
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
                on_vertices[row * HALF :][:HALF],
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
            _fit(axes, mesh[side])
    foot = top + BRAINS - 0.35
    if by_label:
        write(WIDTH / 2, foot, told["title"], 6.5, ha="center")
    else:
        bar = place(WIDTH / 2 - 1.4, foot, 2.8, 0.08)
        scale = ColorbarBase(
            bar, cmap=colours, norm=Normalize(low, high), orientation="horizontal"
        )
        scale.set_label(told["title"], fontsize=6.5, color=INK, labelpad=2)
        scale.outline.set_visible(False)
        bar.tick_params(labelsize=6, length=2, width=0.5, pad=1.5, colors=INK)
        if told["reference"] is not None and low < told["reference"] < high:
            bar.axvline(told["reference"], color=INK, linewidth=0.8)
    note = "grey: no voxels, or fewer than 10 in the parcel"
    if by_vertex:
        note = "grey: no voxels"
    if told["flat"]:
        note = "the gradient is zero for every voxel: nothing to map"
    lines = [note, *textwrap.wrap(parcellation.note, 52)]
    write(MARGIN, foot, "\n".join(lines), 5.5, color="#666666")


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


def _draw_bars(axes: Axes, parcel_map: Any, measure: str) -> None:
    """Draw the ten highest parcels (the furthest from zero where signed)."""
    told = _told(parcel_map, measure)
    measure, table = told["measure"], parcel_map.table
    table = table[(table["parcel"] != UNASSIGNED) & table[measure].notna()]
    table = table[~table["small"]] if "small" in table else table
    top = table.sort_values(measure, key=abs, ascending=False).head(10)[::-1]
    axes.barh(range(len(top)), top[measure], color=COLOURS["sequential"][6], height=0.7)
    axes.set_yticks(range(len(top)), [str(key) for key in top["parcel"]], parse_math=False)
    axes.set_xlabel(told["title"], fontsize=6.5, color=INK)
    axes.tick_params(labelsize=6, length=2, width=0.5, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(linewidth=0.5, color=INK)
    if told["reference"] is not None:
        axes.axvline(told["reference"], color=INK, linewidth=0.8)
    if told["flat"]:
        axes.text(0.5, 0.5, "the gradient is zero for every voxel", transform=axes.transAxes)
