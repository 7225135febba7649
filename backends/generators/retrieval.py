"""retrieval: the gallery picture nearest to what was decoded. A photograph, not a reconstruction.

The gallery is the data set's own training stimuli, or a folder of pictures. It is the plainest
baseline of any generator, and shows how near a study's training stimuli lie to its test stimuli.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from backends.embedders.pocket import PocketClip
from backends.generators.gallery import Galleries, Gallery
from backends.generators.sampling import decoded_in
from explorer.protocols import Condition, Neighbour, Option, Step
from explorer.types import UserError

NEIGHBOURS = 5
NOTE = "retrieved photograph, not a reconstruction: the nearest of {} {}"


class Retrieval:
    """The nearest of the training stimuli, never a test stimulus, or of a folder's pictures.

    Parameters
    ----------
    checkpoints
        The folder of ``pocket-clip``, which embeds the gallery.
    device
        Where it computes.
    source
        A folder of pictures; None takes the training stimuli of the condition's data set.
    cache
        Where embeddings are kept; None is $AFTERIMAGE_CACHE or ~/.cache/afterimage.
    """

    accepts = PocketClip.spaces
    provenance = "retrieved"
    guided = False
    needs = ("dataset",)
    options: tuple[Option, ...] = ()
    default_steps = 1

    def __init__(
        self,
        checkpoints: Path,
        device: str = "cpu",
        source: str | Path | None = None,
        cache: Path | None = None,
    ) -> None:
        self._embedder = PocketClip(checkpoints, device)
        self._galleries = Galleries("retrieval", source, cache)

    def sweep(
        self, condition: Condition, scales: Sequence[float], steps: int, seed: int
    ) -> Iterator[Step]:
        """Yield the same finished picture for every scale: there is no guidance to turn."""
        found = self.neighbours(condition)
        gallery = self._galleries.of(condition)
        image, note = self._picture(gallery, found[0]), NOTE.format(len(gallery), gallery.title)
        for index, scale in enumerate(scales):
            yield Step(index, float(scale), steps, steps, image, True, note, found)

    def generate(
        self, conditions: Sequence[Condition], scale: float, seeds: Sequence[int], steps: int
    ) -> np.ndarray:
        """Return uint8 (n, H, W, 3), of the size of the gallery's first picture."""
        found = [(self.neighbours(one)[0], self._galleries.of(one)) for one in conditions]
        return np.stack([self._picture(gallery, nearest) for nearest, gallery in found])

    def neighbours(self, condition: Condition) -> tuple[Neighbour, ...]:
        """Return the five nearest pictures, best first."""
        space = next((space for space in self.accepts if space in condition.embeddings), None)
        if space is None:
            found = ", ".join(space.name for space in condition.embeddings) or "none"
            known = " or ".join(space.name for space in self.accepts)
            raise UserError(
                f"retrieval compares {known}, the mapper gave {found}; choose a mapper with such "
                "a target."
            )
        sought = decoded_in("retrieval", condition.embeddings, space).cpu().numpy()
        return self._galleries.of(condition).nearest(sought, space, self._embedder, NEIGHBOURS)

    def _picture(self, gallery: Gallery, found: Neighbour) -> np.ndarray:
        """Return a picture, cut and resized where it is not as large as the gallery's first."""
        image = gallery.image(found.picture)
        height, width = gallery.image(gallery.ids[0]).shape[:2]
        if image.shape[:2] == (height, width):
            return image
        return np.asarray(ImageOps.fit(Image.fromarray(image), (width, height)))
