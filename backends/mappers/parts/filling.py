"""Masked modelling of betas (He et al. 2022, arXiv 2111.06377): patches that were left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from backends.mappers.parts.patches import Block, initialise, sine_positions, wide
from backends.training.engine import train_network
from backends.training.plan import Course
from backends.training.rows import Batch, TrialRows
from explorer.types import Trials, UserError

READ = {False: "training trials", True: "training and test trials, as pretrain_on_test asked for"}


class Filling(nn.Module):
    """The encoder of a `Masked` mapper over some patches, and a decoder that fills in the others.

    A hidden patch's token begins as the mask token plus the mean of what is shown: on as little
    as one study's trials, attention alone was slow to find that there is something to carry over.
    What a voxel is predicted to be is a linear map of its patch's token, shared by all patches,
    plus the product of another with the voxel's own tuning.
    """

    def __init__(self, mapper: Any, width: int, depth: int, mask_ratio: float) -> None:
        super().__init__()
        sizes = mapper.architecture
        self.mapper, self.mask_ratio = mapper, mask_ratio
        self.enter = nn.Linear(sizes["width"], width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        positions = sine_positions(sizes["positions"], width)
        self.register_buffer("pos_embed", positions, persistent=False)
        self.blocks = nn.ModuleList(
            Block(width, sizes["heads"], sizes["mlp_ratio"]) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.voxels = nn.Linear(width, sizes["patch"])
        if sizes["tuning"]:
            self.tuned = nn.Linear(width, sizes["tuning"])
        for module in (self.enter, self.blocks):
            module.apply(initialise)
        for layer in (self.voxels, *([self.tuned] if sizes["tuning"] else [])):
            nn.init.zeros_(layer.weight)  # learning begins at the mean of each voxel
            nn.init.zeros_(layer.bias)

    def forward(
        self, betas: torch.Tensor, subject: str, drawn: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return predicted patches (n, L, patch) and which voxels were hidden, bool of that shape.

        Parameters
        ----------
        betas
            (n, V) in the data's own unit; predictions are standardised.
        drawn
            Numbers (n, L); the patches with the lowest are shown. Padding is never counted as
            hidden.
        """
        patches = self.mapper.patches(betas, subject)
        n, count, _ = patches.shape
        shown = max(1, int(count * (1 - self.mask_ratio)))
        places = drawn.argsort(1)[:, :shown]
        entered = self.enter(self.mapper.tokens(patches, subject, places))
        seen = entered[:, 1:].mean(1, keepdim=True)
        tokens = (seen + self.mask_token.to(seen.dtype)).repeat(1, count, 1)
        tokens = tokens.scatter(1, wide(places, entered), entered[:, 1:])
        tokens = torch.cat([entered[:, :1], tokens], dim=1) + self.pos_embed[:, : 1 + count]
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)[:, 1:]
        predicted = self.voxels(tokens)
        own = self.mapper.of(subject)
        if hasattr(own, "tuning"):
            theirs = torch.einsum("nlr,lpr->nlp", self.tuned(tokens), own.tuning)
            predicted = predicted + theirs
        hidden = torch.ones(n, count, dtype=torch.bool, device=betas.device)
        hidden = hidden.scatter(1, places, False)
        real = (own.order >= 0).view(count, -1)
        return predicted, hidden[..., None] & real

    def errors(self, betas: torch.Tensor, subject: str, drawn: torch.Tensor) -> torch.Tensor:
        """Return each trial's mean squared error (n, 1) over hidden voxels; 1 is their mean's."""
        predicted, hidden = self(betas, subject, drawn)
        wrong = (predicted - self.mapper.patches(betas, subject)).square() * hidden
        return (wrong.sum((1, 2)) / hidden.sum((1, 2)))[:, None]

    def learn(
        self, trials: Sequence[Trials], course: Course, *, on_test: bool, **options: Any
    ) -> dict[str, Any]:
        """Train encoder, tunings and decoder; return what was read, and how that went.

        ``on_test``: on the test rows too; ``options`` are those of `train_network`.
        """
        mapper = self.mapper
        for subject, count in mapper.architecture["patches"].items():
            if count < 2:
                raise UserError(
                    f"All voxels of {subject} fit into one patch of "
                    f"{mapper.architecture['patch']}, and masked modelling hides some patches and "
                    "shows others; choose a smaller patch, or pretrain_epochs=0."
                )

        def predict(batch: Batch) -> dict[str, torch.Tensor]:
            parts = {}
            for subject, betas in batch.betas.items():
                count = mapper.architecture["patches"][subject]
                drawn = batch.random("mask", (count,), subject)
                parts[subject] = {"error": self.errors(betas, subject, drawn)}
            return batch.merge(parts)

        # what masked modelling does not reach must not decay
        mapper.requires_grad_(False)
        for key, parameter in mapper.named_parameters():
            reached = key.startswith(("encoder.", "tuned.")) or key.endswith(".tuning")
            parameter.requires_grad_(reached)
        history = train_network(
            f"Masked modelling for {', '.join(mapper.subjects)}",
            self,
            predict,
            lambda found, _: found["error"].mean(),
            TrialRows([_all_training(one) for one in trials] if on_test else trials),
            course,
            **options,
        )
        mapper.requires_grad_(True)
        return {"betas": READ[on_test], **history.to_dict()}


def _all_training(trials: Trials) -> Trials:
    return replace(trials, table=trials.table.assign(split="train"))


def pretrained(source: Any) -> dict[str, Any]:
    """Return what a card tells of the masked modelling that ``source``, if any, has behind it."""
    if source is None or source.card is None:
        return {}
    before = source.card.metrics.get("training", {}).get("pretraining", {})
    return {"before": {"checkpoint": source.card.name, **before}}
