"""Ridge regression from betas to embeddings, its penalty chosen for every target by itself.

The mathematics is in `backends.training.ridge_solver`: X are standardised voxels (n, V), Y
centred targets.

What a fit holds beside the embeddings, which the caller has (float32, in bytes; r is the smaller
of n and V, u how many stimuli were shown; D the values of all spaces together; `bytes_needed`
adds it up):

- while X is decomposed: X, 4 n V, and four matrices of 4 r^2;
- then, while penalties are chosen: the decomposition, 4 r (n + V), its rows added up by stimulus,
  4 u r, the block of a fold, and projected goals, 4 r D, with some columns of goals at a time, or,
  of more values than stimuli, a few matrices of u^2;
- at last the decomposition and the weights, 4 V D, which are written column by column.

27,000 trials of 15,724 voxels, 9,000 stimuli, to a context of 77 x 768 = 59,136 values: 9,000
embeddings 2.1 GB, decomposing 5.7 GB, choosing 6.6 GB, solving 7.2 GB. Betas are read in blocks.
The weights, 3.7 GB, are kept float32; saving them takes no memory beside theirs, as float16 half
of it, and loading them takes theirs twice (float16: two and a half times).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch

from backends.mappers.parts.codes import all_alike, check_alphas, standardised_rows
from backends.training.counted import prefixed
from backends.training.decomposition import Decomposition, decompose, projecting
from backends.training.fewer import fewer
from backends.training.goals import Columns
from backends.training.ridge_solver import (
    ALPHAS,
    COLUMNS_AT_ONCE,
    CrossValidation,
    cross_validate,
    forms_are_cheaper,
    grouped_folds,
)
from explorer.mapper import Mapper
from explorer.types import EmbeddingSpace, Trials, UserError

RECALIBRATIONS = ("none", "cross-validated")


class Ridge(Mapper):
    """A linear map per subject, ``z = ((betas - mean) / sd) @ weight + intercept``.

    ``metrics`` describes a fit by its held-out folds, per subject and target space: ``cv_r2``
    (mean over targets of the explained share of variance; higher is better, 0 is the training
    mean), ``cv_correlation`` (mean over targets; higher is better, chance 0), the smallest, median
    and largest ``alpha``, and ``n`` trials. Targets that are constant in training are in no mean;
    ``constant targets`` counts them, if any. It is for the card: a loaded mapper has none.
    """

    def __init__(self, targets: Sequence[EmbeddingSpace], voxels: Mapping[str, int]) -> None:
        super().__init__(targets, voxels)
        self.metrics: dict[str, Any] = {}
        for subject, v in voxels.items():
            for i, space in enumerate(self.targets):
                # zeros of numpy take no memory before they are written: a fit counts on that
                weight = torch.from_numpy(np.zeros((v, space.size), np.float32))
                intercept = torch.zeros(space.size)
                self.register_parameter(f"weight_{subject}_{i}", torch.nn.Parameter(weight))
                self.register_parameter(f"intercept_{subject}_{i}", torch.nn.Parameter(intercept))

    def weights(self, subject: str, space: EmbeddingSpace) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight (V, D) per SD of a voxel and intercept (D,), D the space's size."""
        i = self.targets.index(space)
        return getattr(self, f"weight_{subject}_{i}"), getattr(self, f"intercept_{subject}_{i}")

    def voxel_weights(self, subject: str) -> dict[str, int]:
        """Return which tensors have an entry a voxel, see `Mapper`."""
        return {f"weight_{subject}_{i}": 0 for i in range(len(self.targets))}

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
        recalibrate: str = "none",
        share: float = 1.0,
        sessions: int = 0,
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
        recalibrate
            "cross-validated" gives predictions of single trials the mean and SD of the true
            embeddings, dimension by dimension: a penalty shrinks predictions, which generators
            may take for dull pictures. Mean and SD of the predictions are those of the held-out
            folds, and the change becomes part of the weights. Correlations of a dimension stay;
            squared errors rise. "test-batch" is refused: see `recalibrate_test_batch` of the
            solver.
        share, sessions
            Learn from part of the training trials, see `backends.training.fewer.fewer`.
        device
            Where to compute; the mapper returned is on the CPU.
        """
        check_alphas(alphas)
        if recalibrate == "test-batch":
            raise UserError(
                'recalibrate="test-batch" makes a trial depend on the others of its batch, which '
                "no mapper may; choose cross-validated, or apply "
                "backends.training.ridge_solver.recalibrate_test_batch to all decoded test trials."
            )
        if recalibrate not in RECALIBRATIONS:
            raise UserError(
                f"recalibrate is {' or '.join(RECALIBRATIONS)}, found {recalibrate!r}."
            )
        trials = [fewer(one, sessions=sessions, share=share, seed=seed) for one in trials]
        mapper = cls(tuple(targets), {t.subject.name: t.subject.voxels.n_voxels for t in trials})
        for one in trials:
            subject, rows = one.subject.name, one.rows("train")
            mapper.set_statistics(one)
            stimuli = one.table["stimulus"].iloc[rows].to_numpy()
            goals = Columns(targets, stimuli, device)
            by_repeat = set(stimuli) & set(one.stimuli("test"))
            groups = one.table["repeat"].iloc[rows].to_numpy() if by_repeat else stimuli
            held_out = grouped_folds(groups, folds, seed)
            size = len(rows), one.subject.voxels.n_voxels, goals.shape[1]
            needed = bytes_needed(*size, folds, len(goals.names))
            check_memory(subject, needed, free_bytes(device))
            voxels = standardised_rows(one, rows, *mapper.statistics(subject)).to(device)
            parts = decompose(voxels, overwrite=True)
            say = _sayer(progress, subject)
            result = cross_validate(parts, goals, held_out, alphas, say)
            mapper._solve(subject, parts, goals, result, recalibrate == "cross-validated")
        return mapper.eval()

    @torch.no_grad()
    def _solve(
        self,
        subject: str,
        parts: Decomposition,
        goals: Columns,
        result: CrossValidation,
        recalibrated: bool,
    ) -> None:
        """Set a subject's weights, some columns at a time, and the figures of its folds."""
        offset, project = 0, projecting(parts, goals)
        for space in self.targets:
            if not result.varies[offset : offset + space.size].any():
                raise all_alike(space.name)
            weight, intercept = self.weights(subject, space)
            for begin in range(0, space.size, COLUMNS_AT_ONCE):
                here = slice(begin, min(space.size, begin + COLUMNS_AT_ONCE))
                of = slice(offset + here.start, offset + here.stop)
                w = parts.weight(project(of), result.alpha[of])
                b = result.mean[of] - parts.voxel_mean @ w
                if recalibrated:
                    spread = result.predicted_sd[of]
                    scale = (
                        (result.sd[of] / spread).where(spread > 0, 1).where(result.varies[of], 0)
                    )
                    w, b = w * scale, (b - result.predicted_mean[of]) * scale + result.mean[of]
                weight[:, here] = w.cpu()
                intercept[here] = b.cpu()
            of = slice(offset, offset + space.size)
            alpha, known = result.alpha[of], result.varies[of]
            self.metrics.setdefault(subject, {})[space.name] = {
                "cv_r2": float(result.r2[of][known].mean()),
                "cv_correlation": float(result.correlation[of][known].mean()),
                "alpha": [float(alpha.min()), float(alpha.median()), float(alpha.max())],
                "n": goals.shape[0],
            } | ({} if known.all() else {"constant targets": int((~known).sum())})
            offset += space.size


def bytes_needed(n: int, v: int, d: int, folds: int, stimuli: int | None = None) -> int:
    """Return the most memory that a fit of n trials, V voxels and D values holds at a time.

    ``stimuli``: how many the trials are of; None: as many as trials.
    """
    r, block, some, u = min(n, v), -(-n // folds), min(d, COLUMNS_AT_ONCE), stimuli or n
    copies, summed = (1, u * r) if stimuli else (2, 0)  # voxels; rows added up by stimulus
    decomposing = copies * n * v + 4 * r * r
    # a fold's rows of the decomposition twice, its square three times
    choosing = r * (n + v) + summed + 2 * block * r + 3 * block * min(block, r)
    if stimuli and forms_are_cheaper(n, r, d, u, block):
        choosing += u * r + 4 * u * u + 2 * (block + some) * u
    else:
        choosing += r * d + 3 * n * some
    return 4 * max(decomposing, choosing, r * (n + v) + summed + v * d + (2 * v + n) * some)


def free_bytes(device: str) -> int:
    """Return how much memory of a device could be had now."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def check_memory(subject: str, needed: int, free: int) -> None:
    """Refuse a fit for which memory does not suffice, before hours are spent on it."""
    if needed > free:
        raise UserError(
            f"A ridge for {subject} needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB "
            "are free; choose a smaller target space or fewer voxels, or end other programs."
        )


def _sayer(progress: Callable[[str], None] | None, subject: str) -> Callable[[str], None]:
    return prefixed(progress, f"Ridge for {subject}") or (lambda sentence: None)
