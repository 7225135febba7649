"""What Stable Diffusion's pictures are pulled towards: features of CLIP ViT-B/32, and betas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from backends.embedders.clip import ViTB32
from backends.generators.published_pull import (
    PUBLISHED,
    PublishedPull,
    seen_as_published,
    towards_as_published,
)
from backends.generators.pulls import Pull, load_encoder, towards_betas, towards_features
from backends.generators.sampling import decoded_in
from explorer.protocols import Condition, Option
from explorer.types import EmbeddingSpace, UserError

if TYPE_CHECKING:
    import torch

BLOCKS = tuple(space for space in ViTB32.spaces if space.layer.startswith("block"))
PULLS = (
    Option(
        *("feature_kappa", 0.0, 1.0, 0.0),
        "How strongly the picture's features in CLIP ViT-B/32 are pulled towards the decoded "
        "ones, as a share of the model's own prediction; 0 is off, and it acts at scale 0 too.",
    ),
    PUBLISHED,
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


class Eyes(dict[EmbeddingSpace, "Callable[[torch.Tensor], torch.Tensor]"]):
    """What guidance sees of pictures, by space; the network is loaded when first seen with.

    ``as_published``: the same features of pictures prepared as in NeuralDiffuser.
    """

    def __init__(self, checkpoints: Path, device: str) -> None:
        clip = cache(lambda: ViTB32(checkpoints, device))

        def seen(space: EmbeddingSpace) -> Callable[[torch.Tensor], torch.Tensor]:
            return lambda pixels: clip().see(pixels, space)

        def published(space: EmbeddingSpace) -> Callable[[torch.Tensor], torch.Tensor]:
            return seen_as_published(lambda prepared: clip().encode(prepared, space))

        super().__init__({space: seen(space) for space in ViTB32.spaces})
        self.as_published = {space: published(space) for space in BLOCKS}


def pulls_of(
    condition: Condition,
    how: Mapping[str, float],
    features: Eyes,
    checkpoints: Path,
    device: str,
) -> list[Pull | PublishedPull]:
    """Return what the picture of a condition is pulled towards, [] where `PULLS` are off.

    ``how``: the value of every option; a family may have none of `PULLS`.
    """
    pulls: list[Pull | PublishedPull] = []
    ours, published = how.get("feature_kappa", 0), how.get("published_kappa", 0)
    if ours > 0 and published > 0:
        raise UserError(
            "feature_kappa and published_kappa are two ways of one guidance; set one of them to 0."
        )
    if ours > 0 or published > 0:
        which = "feature_kappa" if ours > 0 else "published_kappa"
        targets = {
            space: decoded_in(which, condition.embeddings, space)[None].to(device)
            for space in features
            if space in condition.embeddings
        }
        weights = {space: how[f"{space.layer}_weight"] for space in BLOCKS}
        eta = how["feature_eta"]
        if ours > 0:
            pulls.append(Pull(towards_features(features, targets, weights), ours, eta))
        else:
            loss = towards_as_published(features.as_published, targets, weights)
            pulls.append(PublishedPull(loss, published, eta))
    if how.get("brain_kappa", 0) > 0:
        encoder = load_encoder(condition, checkpoints, features, device)
        loss = towards_betas(features, [condition], [encoder])
        pulls.append(Pull(loss, how["brain_kappa"], how["brain_alpha"]))
    return pulls
