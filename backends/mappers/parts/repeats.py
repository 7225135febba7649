"""What MindEye2 makes of several repeats of an image: its outputs are averaged, not the betas.

Scotti et al. 2024 (arXiv 2403.11207; MedARC-AI/MindEyeV2, src/recon_inference.ipynb): each repeat
passes the backbone; regressed tokens, the retrieval branch and latents are averaged over repeats,
and the prior is conditioned on the averaged tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from backends.mappers.parts.trunk import LatentHead
from explorer.types import EmbeddingSpace

Embeddings = dict[EmbeddingSpace, torch.Tensor]


@torch.inference_mode()
def over_repeats(
    mapper: Any, betas: torch.Tensor, repeats: Sequence[int], subject: str
) -> tuple[Embeddings, Embeddings]:
    """Return what a mixer decodes of images, and its retrieval branch, raw (n, ...) a space.

    Parameters
    ----------
    mapper
        A `Mixer`.
    betas
        (repeats of all, V), one image's after the other's.
    repeats
        How many each of n images has.
    subject
        Whose they are.
    """
    shared = mapper.shared(mapper.layer(betas, subject))
    decoded: Embeddings = {}
    retrieved: Embeddings = {}
    for i, (space, head) in enumerate(zip(mapper.targets, mapper.heads, strict=True)):
        z = _averaged(head(shared), repeats)
        if not isinstance(head, LatentHead):
            away = _averaged(head.project(head(shared)).flatten(1), repeats)
            away = functional.normalize(away, dim=1) * getattr(mapper, f"gain_{i}")
            retrieved[space] = _raw(mapper, away, i)
            if head.prior is not None:
                z = head.prior.sample(z, mapper.steps, mapper.start, mapper.sampler)
            elif mapper.answer == "contrastive":
                z = away
        decoded[space] = _raw(mapper, z, i)
    return decoded, retrieved


def _averaged(z: torch.Tensor, repeats: Sequence[int]) -> torch.Tensor:
    return torch.stack([part.mean(0) for part in z.split(list(repeats))])


def _raw(mapper: Any, z: torch.Tensor, i: int) -> torch.Tensor:
    centre, spread = mapper.coordinates(i)
    return centre + spread * z.reshape(-1, *mapper.targets[i].shape)
