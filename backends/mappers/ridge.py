"""Ridge regression from betas to embeddings, its penalty chosen for every target by itself.

The mathematics is in `backends.linear`: X are standardised voxels (n, V), Y centred targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch

from backends.linear import ALPHAS, cross_validate, grouped_folds, solve, stack
from explorer.mapper import ROWS_AT_ONCE, Mapper
from explorer.types import EmbeddingSpace, Trials, UserError


class Ridge(Mapper):
    """A linear map per subject, ``z = ((betas - mean) / sd) @ weight + intercept``.

    ``metrics`` describes a fit by its held-out folds, per subject and target space: ``cv_r2``
    (mean over targets of the explained share of variance; higher is better, 0 is the training
    mean), ``cv_correlation`` (mean over targets; higher is better, chance 0), the smallest, median
    and largest ``alpha``, and ``n`` trials. It is for the card: a loaded mapper has none.
    """

    def __init__(self, targets: Sequence[EmbeddingSpace], voxels: Mapping[str, int]) -> None:
        super().__init__(targets, voxels)
        self.metrics: dict[str, Any] = {}
        for subject, v in voxels.items():
            for i, space in enumerate(self.targets):
                weight, intercept = torch.zeros(v, space.size), torch.zeros(space.size)
                self.register_parameter(f"weight_{subject}_{i}", torch.nn.Parameter(weight))
                self.register_parameter(f"intercept_{subject}_{i}", torch.nn.Parameter(intercept))

    def weights(self, subject: str, space: EmbeddingSpace) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight (V, D) per SD of a voxel and intercept (D,), D the space's size."""
        i = self.targets.index(space)
        return getattr(self, f"weight_{subject}_{i}"), getattr(self, f"intercept_{subject}_{i}")

    def forward(self, betas: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return raw embeddings (n, ...) per target for betas (n, V) in the data's own unit."""
        voxels = self.standardise(betas, subject)
        embeddings = {}
        for space in self.targets:
            weight, intercept = self.weights(subject, space)
            embeddings[space] = (voxels @ weight + intercept).reshape(-1, *space.shape)
        return embeddings

    @classmethod
    def fit(
        cls,
        trials: Sequence[Trials],
        targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
        *,
        seed: int,
        progress: Callable[[str], None] | None = None,
        alphas: Sequence[float] = ALPHAS,
        folds: int = 5,
        device: str = "cpu",
    ) -> Self:
        """Return a mapper fitted to the training rows, every trial a row of its own.

        Parameters
        ----------
        trials
            One entry a subject.
        targets
            Space -> stimulus -> embedding of the space's shape, for every training stimulus.
        seed
            Decides which stimuli form a fold; all trials of a stimulus are in one. Where train and
            test share stimuli (a study with too few, split by repeat), repeats form the folds.
        progress
            Called with one sentence a fold.
        alphas
            Penalties to choose from, positive.
        folds
            Number of folds, from 2 to the number of training stimuli (or repeats).
        device
            Where to compute; the mapper returned is on the CPU.
        """
        if not len(alphas) or min(alphas) <= 0:
            raise UserError(f"alphas must be positive numbers, found {list(alphas)}.")
        mapper = cls(tuple(targets), {t.subject.name: t.subject.voxels.n_voxels for t in trials})
        for one in trials:
            subject = one.subject.name
            mapper.set_statistics(one)
            voxels, rows = _training_voxels(mapper, one, device)
            stimuli = one.table["stimulus"].iloc[rows].to_numpy()
            goals = torch.cat([stack(space, targets[space], stimuli) for space in targets], 1)
            goals = goals.to(voxels)
            by_repeat = set(stimuli) & set(one.stimuli("test"))
            groups = one.table["repeat"].iloc[rows].to_numpy() if by_repeat else stimuli
            held_out = grouped_folds(groups, folds, seed)
            result = cross_validate(voxels, goals, held_out, alphas, _sayer(progress, subject))
            weight, intercept = solve(voxels, goals, result.alpha)
            sizes = [space.size for space in targets]
            for space, w, b, alpha, r2, r in zip(
                targets,
                weight.float().cpu().split(sizes, dim=1),
                intercept.float().cpu().split(sizes),
                *(v.cpu().split(sizes) for v in (result.alpha, result.r2, result.correlation)),
                strict=True,
            ):
                for parameter, value in zip(mapper.weights(subject, space), (w, b), strict=True):
                    parameter.data.copy_(value)
                mapper.metrics.setdefault(subject, {})[space.name] = {
                    "cv_r2": float(r2.mean()),
                    "cv_correlation": float(r.mean()),
                    "alpha": [float(alpha.min()), float(alpha.median()), float(alpha.max())],
                    "n": len(rows),
                }
        return mapper.eval()


def _training_voxels(
    mapper: Ridge, trials: Trials, device: str
) -> tuple[torch.Tensor, np.ndarray]:
    """Return the standardised training rows, and which rows of the trials they are."""
    rows = trials.rows("train")
    voxels = torch.empty(len(rows), trials.subject.voxels.n_voxels)
    for i in range(0, len(rows), ROWS_AT_ONCE):
        block = torch.as_tensor(np.asarray(trials.betas[rows[i : i + ROWS_AT_ONCE]], np.float32))
        voxels[i : i + len(block)] = mapper.standardise(block, trials.subject.name)
    return voxels.to(device), rows


def _sayer(progress: Callable[[str], None] | None, subject: str) -> Callable[[str], None]:
    return lambda sentence: progress(f"Ridge for {subject}: {sentence}") if progress else None
