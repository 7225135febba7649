"""A small residual MLP from betas to embeddings, beside ridge, as system 4 planned one.

It sees what a linear map cannot, products and thresholds of voxels, and has to be held back where
trials are few: voxels are dropped while it learns, and the epoch that is best for held-out stimuli
is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from backends.mappers.parts.codes import units
from backends.mappers.parts.learned import Learned, disturbed, identified
from backends.training.engine import train_network
from backends.training.plan import Course
from backends.training.rows import Batch, TrialRows
from explorer.types import EmbeddingSpace, Trials, UserError


class Block(nn.Module):
    """``h -> h + W2 gelu(W1 norm(h))`` (He et al. 2016, arXiv 1603.05027, norm first)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Return (n, width)."""
        return h + self.outer(nn.functional.gelu(self.inner(self.norm(h))))


class MLP(Learned):
    """Voxels -> a layer of the subject -> residual blocks -> a linear layer a target.

    The embedding is ``centre + scale * output``: the target's mean over training stimuli and one
    number, its standard deviation. Subjects share all but their first layers.

    Parameters
    ----------
    targets, voxels
        See `Mapper`.
    width
        Outputs of a subject's layer and of every block.
    blocks
        Number of residual blocks; 0 leaves a linear map of low rank, normalised in between.
    """

    course = Course(lr=5e-4, weight_decay=0.05)

    def __init__(
        self,
        targets: Sequence[EmbeddingSpace],
        voxels: Mapping[str, int],
        width: int,
        blocks: int,
    ) -> None:
        super().__init__(targets, voxels, width=width, blocks=blocks)
        self.layers = nn.ModuleDict({f"of_{s}": nn.Linear(v, width) for s, v in voxels.items()})
        self.trunk = nn.Sequential(*(Block(width) for _ in range(blocks)), nn.LayerNorm(width))
        self.heads = nn.ModuleList(nn.Linear(width, space.size) for space in self.targets)
        for i, space in enumerate(self.targets):
            self.register_buffer(f"centre_{i}", torch.zeros(space.size))
            self.register_buffer(f"scale_{i}", torch.ones(()))

    def forward(self, betas: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return raw embeddings (n, ...) per target for betas (n, V) in the data's own unit."""
        return self._embeddings(self.standardise(betas, subject), subject)

    def _embeddings(
        self, voxels: torch.Tensor, subject: str
    ) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return raw embeddings (n, ...) per target for standardised voxels (n, V)."""
        shared = self.trunk(self.layers[f"of_{subject}"](voxels))
        return {
            space: (centre + scale * head(shared)).reshape(-1, *space.shape)
            for space, head, (centre, scale) in zip(
                self.targets, self.heads, map(self._unit, range(len(self.targets))), strict=True
            )
        }

    def _unit(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return getattr(self, f"centre_{i}"), getattr(self, f"scale_{i}")

    @classmethod
    def fit(
        cls,
        trials: Sequence[Trials],
        targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
        *,
        seed: int,
        progress: Callable[[str], None] | None = None,
        width: int = 512,
        blocks: int = 2,
        voxel_dropout: float = 0.3,
        noise: float = 0.0,
        **training: Any,
    ) -> Self:
        """Return a mapper trained on the training rows of all ``trials`` together.

        Parameters
        ----------
        trials
            One entry a subject.
        targets
            Space -> stimulus -> embedding of the space's shape, for every training stimulus. The
            loss is the squared error as a share of a target's variance, averaged over targets.
        seed
            Decides first weights, validation stimuli, order and what is dropped.
        progress
            Called with a sentence now and then.
        width, blocks
            See the class.
        voxel_dropout, noise
            Share of voxels that are silent in a trial of an epoch, and standard deviation of the
            noise added, in units of a voxel's own.
        **training
            Course and options of the training, see `Learned`.
        """
        if width < 1 or blocks < 0 or not 0 <= voxel_dropout < 1 or noise < 0:
            raise UserError(
                "width is a whole number from 1, blocks from 0, voxel_dropout from 0 to below 1 "
                f"and noise not below 0, found width={width}, blocks={blocks}, "
                f"voxel_dropout={voxel_dropout:g}, noise={noise:g}."
            )
        course, options = cls.how(seed, progress, training)
        data = TrialRows(trials, targets)
        mapper = cls.begin(seed, trials, targets, width, blocks)
        for i, (space, goals) in enumerate(data.goals.items()):
            centre, scale = units(space, goals.flatten(1))
            mapper.put(f"centre_{i}", centre)
            mapper.put(f"scale_{i}", scale)
        mapper.history = train_network(
            f"MLP for {', '.join(mapper.subjects)}",
            mapper,
            lambda part: mapper._predict(part, voxel_dropout, noise),
            mapper._loss,
            data,
            course,
            measure=mapper._measure,
            **options,
        ).to_dict()
        return mapper

    def _predict(
        self, batch: Batch, voxel_dropout: float, noise: float
    ) -> dict[EmbeddingSpace, torch.Tensor]:
        parts = {}
        for subject, betas in batch.betas.items():
            voxels = self.standardise(betas, subject)
            voxels = disturbed(voxels, batch, subject, voxel_dropout, noise)
            parts[subject] = self._embeddings(voxels, subject)
        return batch.merge(parts)

    def _loss(self, found: Mapping[EmbeddingSpace, torch.Tensor], batch: Batch) -> torch.Tensor:
        """Return the squared error over the variance, averaged over targets; 1 is the mean's."""
        shares = [
            ((z - batch.goals[space]) / self._unit(i)[1].to(z)).square().mean()
            for i, (space, z) in enumerate(found.items())
        ]
        return torch.stack(shares).mean()

    def _measure(
        self, found: Mapping[EmbeddingSpace, torch.Tensor], batch: Batch
    ) -> dict[str, float]:
        return identified((space, z, batch.goals[space]) for space, z in found.items())
