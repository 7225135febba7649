"""One trial as a figure to publish: pictures, brain, and the line that says how to make it again.

No Gradio here.
"""

from __future__ import annotations

import io
import textwrap
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.brain.display import COLOURS
from explorer.brain.palettes import DIVERGING
from explorer.brain.printed import (
    BRAINS,
    INK,
    MARGIN,
    WIDTH,
    draw_bars,
    draw_slices,
    draw_surface,
    printable,
)
from explorer.request import SEED, Request
from explorer.types import Parcellation, UserError, VoxelSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    trained_on: str = "",
    versions: Mapping[str, str] | None = None,
) -> str:
    """Return one line that says what a figure shows and how to make it again.

    ``dataset``: the study's title; ``averaged``: trials averaged; ``checkpoints``: name -> hash,
    of which 8 digits are printed; ``trained_on``: a sentence on the generator's pictures, or "";
    ``versions``: those of the installed libraries by default.
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
        + (f" {trained_on}" if trained_on else "")
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
    camera: str = "",
    hemisphere: str = "both",
    parcel: str = "",
    threshold: float = 0.0,
    palettes: Mapping[str, Sequence[str]] = COLOURS,
    outlines: Parcellation | None = None,
) -> Figure:
    """Return one trial as a figure 183 mm wide: pictures, then the brain or a bar chart.

    Parameters
    ----------
    truth
        The picture that was shown, uint8 (H, W, 3).
    frames
        What `explorer.drawing.reconstruct` yielded; those that are done, by their ``index``.
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
        What `explorer.drawing.draw_samples` gave, drawn after the sweep.
    decoding
        With ``rank`` and ``n``, to print the retrieval rank with N and chance.
    attention
        With ``cells`` and ``limit``: a second picture of the truth has it laid over.
    parcel_map, measure
        Importance per parcel and which column of it is drawn; or a `VoxelMap`.
    parcellation, voxel_space, surface
        Where the parcels lie. Without a projection the highest parcels are drawn as bars; a study
        without parcels gets pictures only.
    camera, hemisphere, parcel
        The view that comes first, which halves are drawn, and the parcel with an outline.
    threshold, palettes, outlines
        Values nearer to zero are not coloured; the colours, low to high, by kind of map; an atlas
        whose parcels are outlined too.
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
    drawn = (
        "none" if parcel_map is None else printable(parcel_map, parcellation, voxel_space, surface)
    )
    below = {"none": 0.0, "bars": 2.0, "surface": BRAINS, "slices": BRAINS}[drawn]
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
        draw_bars(
            place(2.0, top + 0.2, 3.4, below - 0.6), parcel_map, measure, threshold, palettes
        )
    elif drawn == "slices":
        shown = parcel_map, measure, parcellation, voxel_space
        draw_slices(place, write, top, *shown, surface, threshold, palettes)
    elif drawn == "surface":
        shown = parcel_map, measure, parcellation, voxel_space
        chosen = surface, camera, hemisphere, parcel, threshold, palettes, outlines
        draw_surface(place, write, top, *shown, *chosen)
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
    red, blue = ([int(DIVERGING["RdBu"][i][k : k + 2], 16) for k in (1, 3, 5)] for i in (-2, 1))
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


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of a png (300 dpi), svg or pdf; nothing touches the disk.

    Text in svg and pdf stays text. The same figure gives the same bytes.
    """
    import matplotlib

    if kind not in FORMATS:
        raise UserError(f"A figure is saved as {', '.join(FORMATS)}, found {kind!r}.")
    described = {"Title": "Afterimage", FORMATS[kind]: figure.get_label()}
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    settings = {"svg.fonttype": "none", "svg.hashsalt": "afterimage", "pdf.fonttype": 42}
    drawn = io.BytesIO()
    # matplotlib reads these settings, and its font cache, from shared state while it draws
    with _DRAWING, matplotlib.rc_context(settings):
        figure.savefig(drawn, format=kind, dpi=300, metadata={**described, **undated})
    return drawn.getvalue()
