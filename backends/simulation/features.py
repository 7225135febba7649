"""What a visual cortex could read from a scene: named groups of numbers per picture.

The retinotopic groups come from the rendered pixels alone. The others mix the scene's written
causes (category, setting ...) with measures of the pixels under its objects. `scene_features`
gives one flat row; `GROUPS` says which part of it belongs to which group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from backends.simulation.pen import COLOURS
from backends.simulation.scenery import LIGHTS
from backends.simulation.scenes import (
    CATEGORIES,
    SETTINGS,
    SUPERCATEGORIES,
    Scene,
    object_mask,
    render,
)

GRID = 16  # retinotopic maps are kept on 16 x 16 cells, 8 pixels each
FREQUENCIES = (4, 8, 16)  # cycles per image, an octave apart like V1's channels (De Valois 1982)
ORIENTATIONS = 4  # 0, 45, 90 and 135 degrees
PIXELS = 64  # the energy is computed at half size: 16 cycles still have four pixels each
BORDER = 16  # pixels of mirrored margin, so that opposite edges do not meet in the FFT
CHANNELS = len(FREQUENCIES) * ORIENTATIONS
OPPONENCIES = 3  # luminance, red-green, blue-yellow (Derrington, Krauskopf & Lennie 1984)
SHAPE_CELLS = 8  # an object's outline in its own frame, 8 x 8
LAYOUT_CELLS = 4  # the picture's coarse colours, 4 x 4
PLACES = 5  # centres per axis that code where the objects are
SIZE_CENTRES = (0.28, 0.40, 0.52, 0.64)  # preferred sizes, in image widths
COUNTS = (1, 2, 3)

_SIZES = {
    "energy": CHANNELS * GRID**2,
    "opponent": OPPONENCIES * GRID**2,
    "shape": SHAPE_CELLS**2 + 8,
    "category": len(CATEGORIES),
    "supercategory": len(SUPERCATEGORIES),
    "colour": len(COLOURS) + 3,
    "setting": len(SETTINGS),
    "layout": 3 * LAYOUT_CELLS**2,
    "light": len(LIGHTS) + 1,
    "position": PLACES**2,
    "size": len(SIZE_CENTRES) + 1,
    "number": len(COUNTS),
}
_ENDS = np.cumsum(list(_SIZES.values())).tolist()
GROUPS: dict[str, slice] = {
    name: slice(end - n, end) for (name, n), end in zip(_SIZES.items(), _ENDS, strict=True)
}
N_FEATURES: int = _ENDS[-1]


@lru_cache(maxsize=1)
def gabor_filters() -> np.ndarray:
    """Return the Gabor channels in the frequency domain: float32 (CHANNELS, P, P), P is padded.

    Each is one Gaussian at (frequency, orientation), on one side of the origin only, so the
    modulus of the filtered picture is the quadrature-pair energy (Adelson & Bergen 1985) in one
    pass. The bandwidth is about one octave at half height, as in V1 (De Valois et al. 1982).
    """
    padded = PIXELS + 2 * BORDER
    axis = np.fft.fftfreq(padded) * PIXELS  # cycles per image
    fy, fx = np.meshgrid(axis, axis, indexing="ij")
    filters = []
    for frequency in FREQUENCIES:
        for i in range(ORIENTATIONS):
            angle = np.pi * i / ORIENTATIONS
            away = (fx - frequency * np.cos(angle)) ** 2 + (fy - frequency * np.sin(angle)) ** 2
            filters.append(np.exp(-away / (2 * (0.3 * frequency) ** 2)))
    return np.stack(filters).astype(np.float32)


def pool(maps: np.ndarray, cells: int) -> np.ndarray:
    """Average maps (..., H, W) into (..., cells, cells) equal blocks; H and W are multiples."""
    *lead, height, width = maps.shape
    blocks = maps.reshape(*lead, cells, height // cells, cells, width // cells)
    return blocks.mean(axis=(-3, -1))


def gabor_energy(luminance: np.ndarray) -> np.ndarray:
    """Return the Gabor energy of a picture.

    Parameters
    ----------
    luminance
        (PIXELS, PIXELS), in [0, 1].

    Returns
    -------
    numpy.ndarray
        float32 (CHANNELS, GRID, GRID), non-negative: amplitude per channel and cell.
    """
    from scipy import fft

    framed = np.pad(luminance.astype(np.float32) - luminance.mean(), BORDER, mode="reflect")
    filtered = fft.ifft2(fft.fft2(framed)[None] * gabor_filters())  # (CHANNELS, P, P)
    inside = slice(BORDER, BORDER + PIXELS)
    return pool(np.abs(filtered[:, inside, inside]), GRID).astype(np.float32)


def opponency(image: np.ndarray) -> np.ndarray:
    """Return luminance, red-green and blue-yellow of an image in [0, 1]: (3, H, W)."""
    red, green, blue = np.moveaxis(image, -1, 0)
    yellow = (red + green) / 2
    return np.stack([0.299 * red + 0.587 * green + 0.114 * blue, red - green, blue - yellow])


def _shape(mask: np.ndarray) -> np.ndarray:
    """Return the outline in the objects' own frame (8 x 8) and its edge orientations (8).

    Both are 0 where there is no object.
    """
    if mask.max() <= 0.5:
        return np.zeros(SHAPE_CELLS**2 + 8)
    rows, columns = np.flatnonzero(mask.max(1) > 0.5), np.flatnonzero(mask.max(0) > 0.5)
    picture = Image.fromarray(np.round(255 * mask).astype(np.uint8))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    outline = picture.resize((SHAPE_CELLS, SHAPE_CELLS), Image.Resampling.BOX, box=box)
    dy, dx = np.gradient(mask)
    strength = np.hypot(dx, dy)
    bins = np.round(np.arctan2(dy, dx) / (2 * np.pi) * 8).astype(int) % 8
    histogram = np.bincount(bins.ravel(), strength.ravel(), minlength=8)
    return np.concatenate(
        [np.asarray(outline, np.float32).ravel() / 255, histogram / (strength.sum() + 1e-6)]
    )


def _one_hot(value: object, values: Sequence) -> np.ndarray:
    return np.array([value == v for v in values], np.float32)


def scene_features(scene: Scene) -> np.ndarray:
    """Return everything a simulated cortex may read from one scene.

    Parameters
    ----------
    scene
        Rendered here at 128 pixels.

    Returns
    -------
    numpy.ndarray
        float16 (N_FEATURES,): half precision here, so that rows kept on disk equal rows made anew.
    """
    return picture_features(render(scene), object_mask(scene), named_groups(scene))


def named_groups(scene: Scene) -> dict[str, np.ndarray]:
    """Return what is read from a scene's written causes, group -> values.

    A category or setting that is never trained has no channel: its group is all 0.
    """
    centres = np.linspace(0.1, 0.9, PLACES)
    across = np.exp(-((scene.x - centres) ** 2) / (2 * 0.15**2))
    down = np.exp(-((scene.y - centres) ** 2) / (2 * 0.15**2))
    # Numerosity is coded by tuning that is Gaussian on a logarithmic axis (Harvey et al. 2013).
    numbers = np.exp(-(np.log(scene.count / np.array(COUNTS)) ** 2) / (2 * 0.35**2))
    return {
        "category": _one_hot(scene.category, tuple(CATEGORIES)),
        "supercategory": _one_hot(scene.supercategory, SUPERCATEGORIES),
        "colour": _one_hot(scene.colour, tuple(COLOURS)),
        "setting": _one_hot(scene.setting, SETTINGS),
        "light": _one_hot(scene.light, LIGHTS),
        "position": np.outer(down, across),
        "size": np.exp(-(np.log(scene.size / np.array(SIZE_CENTRES)) ** 2) / (2 * 0.2**2)),
        "number": numbers,
    }


def picture_features(
    pixels: np.ndarray, mask: np.ndarray, named: dict[str, np.ndarray]
) -> np.ndarray:
    """Return everything a simulated cortex may read from one picture.

    Parameters
    ----------
    pixels
        uint8 RGB (128, 128, 3).
    mask
        Share of each pixel that objects cover, float32 (128, 128); all 0 where there is none.
    named
        What `named_groups` gives; colour, light and size are completed by measures of the pixels.

    Returns
    -------
    numpy.ndarray
        float16 (N_FEATURES,).
    """
    image = pixels.astype(np.float32) / 255
    opponent = opponency(image)
    half = pool(opponent[0], PIXELS)
    covered = mask[..., None] / (mask.sum() + 1e-6)
    groups = named | {
        "energy": gabor_energy(half),
        "opponent": pool(opponent, GRID),
        "shape": _shape(mask),
        "colour": np.append(named["colour"], (image * covered).sum((0, 1))),
        "layout": pool(opponent, LAYOUT_CELLS),
        "light": np.append(named["light"], opponent[0].mean()),
        "size": np.append(named["size"], mask.mean()),
    }
    row = np.concatenate([np.ravel(groups[name]) for name in GROUPS])
    return row.astype(np.float16)


def features(
    scenes: Sequence[Scene], progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Return float16 (n, N_FEATURES) for n scenes; calls ``progress(done, n)`` now and then."""
    rows = np.empty((len(scenes), N_FEATURES), np.float16)
    for i, scene in enumerate(scenes):
        rows[i] = scene_features(scene)
        if progress and (i % 50 == 49 or i + 1 == len(scenes)):
            progress(i + 1, len(scenes))
    return rows
