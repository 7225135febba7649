"""Where in the shown image a decoding rests: hide a part, and see how much less it agrees.

It describes one decoder and one trial. It does not say where the person looked or attended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer.choosing import check_request
from explorer.decoding import (
    deciding,
    decoded_embeddings,
    decoded_space,
    similarities,
    undecoded,
)
from explorer.request import Request
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

GRID, WINDOW = 8, 2  # cells along a side, and cells along the side of what is hidden; our choice
PICTURES = 1 + (GRID - WINDOW + 1) ** 2  # that are embedded: the whole, and one a window


@dataclass(frozen=True, eq=False)
class Attention:
    """How the similarity of image and decoding falls when a part of the image is hidden.

    ``cells`` float64 (rows, columns), from the upper left: the mean fall over all hidden windows
    that hold a cell; positive where the decoding rests on it, negative where hiding it helps.
    ``similarity``: of the whole image. ``limit``: the largest size of a cell, 0 where nothing
    matters; cells of different trials do not share it.
    """

    cells: np.ndarray
    similarity: float

    @property
    def limit(self) -> float:
        """The largest size among the cells."""
        return float(np.abs(self.cells).max())


def occlusion(
    image: np.ndarray,
    similarity: Callable[[Sequence[np.ndarray]], np.ndarray],
    grid: int = GRID,
    window: int = WINDOW,
) -> Attention:
    """Return where ``similarity`` rests, by hiding square windows behind the mean colour.

    Parameters
    ----------
    image
        uint8 (H, W, 3).
    similarity
        Images -> one number each, of what was decoded to the image; asked once for all.
    grid
        Cells along each side.
    window
        Cells along each side of a window, which moves by one cell.

    References
    ----------
    Zeiler & Fergus 2014, ECCV, arXiv 1311.2901, section 4.2.
    """
    height, width = image.shape[:2]
    if not 1 <= window <= grid <= min(height, width):
        raise UserError(
            f"An image of {width} x {height} pixels has at most {min(height, width)} cells a side "
            f"and windows of 1 to {grid} cells, found {grid} cells and windows of {window}."
        )
    rows, columns = (
        np.linspace(0, side, grid + 1).round().astype(int) for side in (height, width)
    )
    colour = image.mean(axis=(0, 1)).round().astype(np.uint8)
    corners = [(i, j) for i in range(grid - window + 1) for j in range(grid - window + 1)]
    hidden = [image]
    for i, j in corners:
        hidden.append(image.copy())
        hidden[-1][rows[i] : rows[i + window], columns[j] : columns[j + window]] = colour
    whole, *others = np.asarray(similarity(hidden), dtype=np.float64)
    fall, held = np.zeros((grid, grid)), np.zeros((grid, grid))
    for (i, j), other in zip(corners, others, strict=True):
        fall[i : i + window, j : j + window] += whole - other
        held[i : i + window, j : j + window] += 1
    return Attention(fall / held, float(whole))


def attention_of(bench: Workbench, request: Request) -> Attention:
    """Return where in the shown image the decoding of a request rests, by occlusion.

    The similarity that falls is that of `Decoding`.
    """
    check_request(bench.catalogue, request, pictures=False)
    if reason := undecoded(bench, request):
        raise UserError(reason)
    space, plain = decoded_space(bench, request), deciding(request)
    if not bench.catalogue.embedder_name(space):
        raise UserError(
            f"Attention hides parts of the image, and {space.name} is made of captions; "
            "choose another target or mapper."
        )

    def make() -> Attention:
        decoded = decoded_embeddings(bench, plain)[space][None]
        embedder = bench.models.embedder(bench.catalogue.embedder_name(space))
        return occlusion(
            bench.catalogue.image(request.dataset, request.stimulus),
            lambda images: similarities(decoded, embedder.embed(images, space), space)[0],
        )

    return bench.caches.maps.get(_key(plain), make)


def is_attended(bench: Workbench, request: Request) -> bool:
    """Return whether `attention_of` answers at once, from what is kept."""
    return bench.caches.maps.peek(_key(deciding(request))) is not None


def _key(plain: Request) -> tuple:
    return "attention", plain
