"""What Stable Diffusion's pictures are pulled towards: features of CLIP ViT-B/32, and betas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from backends.embedders.clip import ViTB32
from backends.generators.pulls import Pull, load_encoder, towards_betas, towards_features
from backends.generators.sampling import decoded_in
from explorer.protocols import Condition, Option
from explorer.types import EmbeddingSpace

if TYPE_CHECKING:
    import torch

    from backends.generators.pulls import Features

BLOCKS = tuple(space for space in ViTB32.spaces if space.layer.startswith("block"))
PULLS = (
    Option(
        *("feature_kappa", 0.0, 1.0, 0.0),
        "How strongly the picture's features in CLIP ViT-B/32 are pulled towards the decoded "
        "ones, as a share of the model's own prediction; 0 is off, and it acts at scale 0 too.",
    ),
    Option(
        *("feature_eta", 0.0, 1.0, 0.2),
        "The share of the steps, from the noisy end, in which features are pulled.",
    ),
    *(
        Option(
            *(f"{space.layer}_weight", 0.0, 2.0, weight),
            f"How much the features of CLIP's {space.layer} count, where the mapper decodes them.",
        )  # as published by NeuralDiffuser
        for space, weight in zip(BLOCKS, (1.5, 1.2, 1.0, 1.0, 1.0, 1.0), strict=True)
    ),
    Option(
        *("brain_kappa", 0.0, 1.0, 0.0),
        "How strongly the picture is pulled towards one that should evoke the measured betas, by "
        "the subject's encoding model; 0 is off, and it acts at scale 0 too.",
        betas=True,
    ),
    Option(
        *("brain_alpha", 0.0, 1.0, 0.5),
        "The share of the steps, from the noisy end, in which betas pull.",
    ),
)


def eyes(checkpoints: Path, device: str) -> Features:
    """Return what guidance sees of pictures; the network is loaded when first seen with."""
    clip = cache(lambda: ViTB32(checkpoints, device))

    def seen(space: EmbeddingSpace) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda pixels: clip().see(pixels, space)

    return {space: seen(space) for space in ViTB32.spaces}


def pulls_of(
    condition: Condition,
    how: Mapping[str, float],
    features: Features,
    checkpoints: Path,
    device: str,
) -> list[Pull]:
    """Return what the picture of a condition is pulled towards, [] where `PULLS` are off.

    ``how``: the value of every option; a family may have none of `PULLS`.
    """
    pulls = []
    if how.get("feature_kappa", 0) > 0:
        targets = {
            space: decoded_in("feature_kappa", condition.embeddings, space)[None].to(device)
            for space in features
            if space in condition.embeddings
        }
        weights = {space: how[f"{space.layer}_weight"] for space in BLOCKS}
        loss = towards_features(features, targets, weights)
        pulls.append(Pull(loss, how["feature_kappa"], how["feature_eta"]))
    if how.get("brain_kappa", 0) > 0:
        encoder = load_encoder(condition, checkpoints, features, device)
        loss = towards_betas(features, [condition], [encoder])
        pulls.append(Pull(loss, how["brain_kappa"], how["brain_alpha"]))
    return pulls
