"""Embeddings that a data set publishes beside its betas; their networks have no weights here.

A mapper may be trained towards them and compared in them, since `Dataset.known_embeddings` has
them; a picture of anybody else's cannot be put into these spaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from explorer.types import EmbeddingSpace, UserError

PUBLISHED = "published"


class Sidecar:
    """A space whose embeddings lie ready; it embeds nothing."""

    spaces: tuple[EmbeddingSpace, ...] = ()
    fingerprint = PUBLISHED
    ready_only = True

    def __init__(self, checkpoints: Path, device: str = "cpu") -> None:
        pass

    @classmethod
    def fingerprint_of(cls, checkpoints: Path) -> str:
        """Return what names the makers of what is published."""
        return PUBLISHED

    def embed(self, images: Sequence[np.ndarray], space: EmbeddingSpace) -> np.ndarray:
        """Refuse: there are no weights."""
        raise UserError(
            f"{space.name} holds published embeddings of LAION-fMRI's own pictures, and its "
            "network has no weights here; choose another space for other pictures."
        )


class LaionCLIP(Sidecar):
    """LAION-fMRI's CLIP embeddings."""

    spaces = (EmbeddingSpace("laion-clip", "image", (1024,), unit_norm=True),)


class LaionDINOv2(Sidecar):
    """LAION-fMRI's DINOv2 embeddings."""

    spaces = (EmbeddingSpace("laion-dinov2", "image", (1024,), unit_norm=True),)


class LaionPEcore(Sidecar):
    """LAION-fMRI's PE-core embeddings."""

    spaces = (EmbeddingSpace("laion-pecore", "image", (1024,), unit_norm=True),)


class LaionSigLIP2(Sidecar):
    """LAION-fMRI's SigLIP 2 embeddings."""

    spaces = (EmbeddingSpace("laion-siglip2", "image", (1152,), unit_norm=True),)
