"""pixels: shows a decoded 10 x 10 contrast grid as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from backends.generators.sampling import decoded_in
from explorer.protocols import Condition, Option, Step
from explorer.types import EmbeddingSpace, UserError

GRID = EmbeddingSpace("pixels", "10x10", (100,))
ENLARGED = 16  # pixels a grid cell is drawn with: 10 x 10 becomes 160 x 160


class Pixels:
    """The decoded grid itself, values clipped to 0 (black) ... 1 (white); nothing is sampled."""

    accepts = (GRID,)
    provenance = "generated"
    guided = False
    needs = ()
    options: tuple[Option, ...] = ()
    default_steps = 1

    def __init__(self, checkpoints: Path | None = None, device: str = "cpu") -> None:
        """Take the arguments every generator takes; there are no weights."""

    def sweep(
        self, condition: Condition, scales: Sequence[float], steps: int, seed: int
    ) -> Iterator[Step]:
        """Yield the same finished picture for every scale: there is no guidance to turn."""
        image = self.generate([condition], 1.0, [seed], steps)[0]
        for index, scale in enumerate(scales):
            yield Step(index, float(scale), steps, steps, image, done=True)

    def generate(
        self, conditions: Sequence[Condition], scale: float, seeds: Sequence[int], steps: int
    ) -> np.ndarray:
        """Return uint8 (n, 160, 160, 3), one picture a condition."""
        pictures = []
        for condition in conditions:
            if GRID not in condition.embeddings:
                found = ", ".join(space.name for space in condition.embeddings) or "none"
                raise UserError(
                    f"pixels shows {GRID.name}, the mapper gave {found}; choose a mapper with "
                    "that target."
                )
            grid = decoded_in("pixels", condition.embeddings, GRID).cpu().numpy().reshape(10, 10)
            grey = np.clip(grid * 255, 0, 255).round().astype(np.uint8)
            large = grey.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)
            pictures.append(np.repeat(large[..., None], 3, axis=2))
        return np.stack(pictures)
