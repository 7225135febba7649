"""Pictures as embeddings of themselves; there are no weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from explorer.types import EmbeddingSpace


class Pixels:
    """The picture itself as an embedding: grey, 10 x 10 area means, 0 (black) to 1 (white).

    The reconstruction of Miyawaki et al. 2008 (Neuron 60) decodes contrast patches on this grid.
    """

    spaces = (EmbeddingSpace("pixels", "10x10", (100,)),)

    def __init__(self, checkpoints: Path | None = None, device: str = "cpu") -> None:
        """Take the arguments every embedder takes; there are no weights."""

    def embed(self, images: Sequence[np.ndarray], space: EmbeddingSpace) -> np.ndarray:
        """Return float32 (n, 100), row by row from the top left, for images uint8 (H, W, 3)."""
        from PIL import Image

        rows = [
            np.asarray(Image.fromarray(image).convert("L").resize((10, 10), Image.Resampling.BOX))
            for image in images
        ]
        return np.stack(rows).reshape(len(rows), 100).astype(np.float32) / 255


class GNetPixels:
    """The picture as the encoding model GNet takes it: RGB in 0 ... 1, 227 x 227 (Lanczos)."""

    spaces = (EmbeddingSpace("gnet", "pixels", (3, 227, 227)),)

    def __init__(self, checkpoints: Path | None = None, device: str = "cpu") -> None:
        """Take the arguments every embedder takes; there are no weights."""

    def embed(self, images: Sequence[np.ndarray], space: EmbeddingSpace) -> np.ndarray:
        """Return float32 (n, 3, 227, 227) for images uint8 (H, W, 3)."""
        from PIL import Image

        rows = [
            np.asarray(Image.fromarray(image).resize((227, 227), Image.Resampling.LANCZOS))
            for image in images
        ]
        return np.stack(rows).transpose(0, 3, 1, 2).astype(np.float32) / 255
