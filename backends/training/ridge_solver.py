"""The mathematics of ridge regression, shared by decoding (betas to embeddings) and encoding.

``W(alpha) = argmin |Y - X W|^2 + alpha |W|^2`` on centred inputs X (n, V) and goals Y (n, D)
(Hoerl & Kennard 1970). One eigendecomposition serves every penalty and every fold: of the Gram
matrix ``X'X`` when there are no more inputs than trials, else of the kernel ``XX'`` (Saunders et
al. 1998). What a fit without some rows g would predict for them follows from the fit of all rows:
with its hat matrix H and residuals e, the rows' residuals would be ``(I - H_gg)^-1 e_g``, exactly
(Allen 1974, Technometrics 16:125, there for single rows). The inputs are called voxels here, as in
decoding; in encoding they are features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from backends.training.counted import Counted
from explorer.metrics import varies
from explorer.types import EmbeddingSpace, UserError

# Standardised inputs give the Gram matrix a diagonal of n, so this reaches from hardly any penalty
# to one that leaves only the strongest directions, for hundreds to tens of thousands of trials.
ALPHAS: tuple[float, ...] = tuple(np.logspace(1, 6, 16).tolist())
COLUMNS_AT_ONCE = 1024  # of the goals: 110 MB at 27,000 trials
FEWEST_IN_A_BATCH = 10  # samples whose own mean and SD say anything


def grouped_folds(groups: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """Return the rows (int) of each fold: shuffled groups dealt out, all rows of one together.

    ``groups`` (n,) names each row's stimulus or repeat; folds differ by at most one group.
    """
    names = np.unique(groups)
    if len(names) < 2:
        raise UserError("Cross-validation needs at least 2 training stimuli, found 1.")
    if not 2 <= folds <= len(names):
        raise UserError(
            f"{len(names)} training stimuli (or repeats) can form 2 to {len(names)} folds, found "
            f"folds={folds}."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = np.empty(len(names), int)
    fold_of[order] = np.arange(len(names)) % folds
    return [
        np.flatnonzero(fold_of[np.searchsorted(names, groups)] == fold) for fold in range(folds)
    ]


# ---------------------------------------------------------------------------------- decomposition


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Voxels (n, V) taken apart, from which the ridge of any penalty and goals is quickly made.

    ``eigenvalues`` L (r,), r the smaller of n and V; ``voxel_mean`` (V,); X are centred voxels.

    - Gram form, ``X'X = B L B'``: ``left`` is XB (n, V), ``right`` is B (V, V);
      ``W = right @ (left'Y / (L + alpha))``, ``I - H = I - 11'/n - left (L + alpha)^-1 left'``.
    - Kernel form, ``XX' = U L U'``: ``left`` is U (n, n), its columns centred, ``right`` is X;
      ``W = right' @ left @ (left'Y / (L + alpha))``, ``I - H = alpha left (L + alpha)^-1 left'``,
      which takes no difference where H comes near I.
    """

    eigenvalues: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    voxel_mean: torch.Tensor
    kernel: bool

    def project(self, goals: torch.Tensor) -> torch.Tensor:
        """Return ``left'Y`` (r, D) for goals (n, D)."""
        return self.left.T @ (goals - goals.mean(0))

    def weight(self, projected: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """Return W (V, D) for projected goals (r, D) and a penalty (D,) of each."""
        shrunk = projected / (self.eigenvalues[:, None] + alpha)
        return self.right.T @ (self.left @ shrunk) if self.kernel else self.right @ shrunk

    def residual(
        self, rows: np.ndarray, wanted: torch.Tensor, projected: torch.Tensor, alpha: torch.Tensor
    ) -> torch.Tensor:
        """Return ``(I - H) Y`` (m, D) at these rows (m,), ``wanted`` being centred goals there."""
        fitted = self.left[rows] @ (projected / (self.eigenvalues + alpha)[:, None])
        return alpha * fitted if self.kernel else wanted - fitted

    def unseen(self, rows: np.ndarray, alpha: torch.Tensor) -> torch.Tensor:
        """Return the blocks (..., m, m) of ``I - H`` at rows int (..., m)."""
        some = self.left[rows]
        product = (some / (self.eigenvalues + alpha)) @ some.mT
        if self.kernel:
            return alpha * product
        return torch.eye(rows.shape[-1]).to(product) - 1 / len(self.left) - product


Voxels = torch.Tensor | Decomposition  # a decomposition where several functions share one


def decompose(voxels: Voxels) -> Decomposition:
    """Decompose the smaller of X'X (V, V) and XX' (n, n) for voxels (n, V); the dear step.

    Beside the voxels it holds a centred copy of them and four matrices of that size.
    """
    if isinstance(voxels, Decomposition):
        return voxels
    mean = voxels.mean(0)
    centred = voxels - mean
    kernel = voxels.shape[1] > voxels.shape[0]
    eigenvalues, vectors = torch.linalg.eigh(
        centred @ centred.T if kernel else centred.T @ centred
    )
    eigenvalues = eigenvalues.clamp_min(0)  # rounding can leave a zero slightly negative
    if not kernel:
        return Decomposition(eigenvalues, centred @ vectors, vectors, mean, kernel)
    vectors -= vectors.mean(0)  # what is constant over trials is the intercept's
    return Decomposition(eigenvalues, vectors, centred, mean, kernel)


def solve(
    voxels: Voxels, goals: torch.Tensor, alpha: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (V, D) and intercept (D,) of the ridge with a penalty (D,) for each target."""
    parts = decompose(voxels)
    weight = parts.weight(parts.project(goals), alpha)
    return weight, goals.mean(0) - parts.voxel_mean @ weight


# ------------------------------------------------------------------------------- cross-validation


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The best penalty of each of D targets, and what comes of it on held-out rows; all (D,).

    A target that is constant in training is neither explained nor missed: ``varies`` is False, and
    its ``r2``, ``correlation``, ``sd`` and ``predicted_sd`` are 0.
    ``mean`` and ``sd`` are those of the goals, ``predicted_mean`` and ``predicted_sd`` those of
    the predictions of all rows, each made without its fold.
    """

    alpha: torch.Tensor
    varies: torch.Tensor
    r2: torch.Tensor
    correlation: torch.Tensor
    mean: torch.Tensor
    sd: torch.Tensor
    predicted_mean: torch.Tensor
    predicted_sd: torch.Tensor


def cross_validate(
    voxels: Voxels,
    goals: torch.Tensor | Columns,
    held_out: Sequence[np.ndarray],
    alphas: Sequence[float],
    say: Callable[[str], None] = lambda sentence: None,
) -> CrossValidation:
    """Choose the penalty with the least squared error over all held-out rows, target by target.

    Parameters
    ----------
    voxels, goals
        (n, V) and (n, D). Beside them (r, D) is held, and `COLUMNS_AT_ONCE` of the goals.
    held_out
        Rows of each fold; together they are all rows, each once.
    alphas
        Penalties to choose from.
    say
        Called with one sentence a fold.
    """
    parts = decompose(voxels)
    n, d = goals.shape
    penalties = parts.eigenvalues.new_tensor(list(alphas))
    centre, total = parts.left.new_empty(2, d)
    projected = parts.left.new_empty(len(parts.eigenvalues), d)
    for columns in _some(d):
        some = goals[:, columns]
        centre[columns] = some.mean(0)
        total[columns] = (some - centre[columns]).square().sum(0)
        projected[:, columns] = parts.project(some)
    # Sums instead of predictions: (alphas, n, D) is 27 GB for 27,000 trials of 15,724 voxels.
    error, sums, squares, products = parts.left.new_zeros(4, len(penalties), d)
    for i, rows in enumerate(held_out):
        told = {"work": "folds", "done": i, "total": len(held_out), "unit": "folds"}
        say(Counted(f"fold {i + 1} of {len(held_out)}", **told))
        for a, alpha in enumerate(penalties):
            undo = _without(parts, rows, alpha)
            for columns in _some(d):
                truth = goals[rows, columns] - centre[columns]
                missed = undo(parts.residual(rows, truth, projected[:, columns], alpha))
                predicted = truth - missed
                error[a, columns] += missed.square().sum(0)
                sums[a, columns] += predicted.sum(0)
                squares[a, columns] += predicted.square().sum(0)
                products[a, columns] += (predicted * truth).sum(0)
    best = error.argmin(dim=0)[None]  # (1, D)
    tiny = torch.finfo(total.dtype).tiny
    r2 = 1 - error.gather(0, best)[0] / total.clamp_min(tiny)
    mean = sums.gather(0, best)[0] / n
    spread = (squares.gather(0, best)[0] - n * mean.square()).clamp_min(0)
    sd, predicted_sd = (total / n).sqrt(), (spread / n).sqrt()
    known = varies(centre, sd)
    correlation = products.gather(0, best)[0] / (total.sqrt() * spread.sqrt()).clamp_min(tiny)
    return CrossValidation(
        alpha=penalties[best[0]],
        varies=known,
        r2=r2.where(known, 0),
        correlation=correlation.where(known, 0),
        mean=centre,
        sd=sd.where(known, 0),
        predicted_mean=centre + mean,
        predicted_sd=predicted_sd.where(known, 0),
    )


def _some(d: int) -> Iterator[slice]:
    for begin in range(0, d, COLUMNS_AT_ONCE):
        yield slice(begin, min(d, begin + COLUMNS_AT_ONCE))


def _without(
    parts: Decomposition, rows: np.ndarray, alpha: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return ``(I - H_gg)^-1`` of these rows int (m,), as a function of residuals (m, D)."""
    if parts.kernel or len(rows) <= parts.left.shape[1]:
        factor = torch.linalg.lu_factor(parts.unseen(rows, alpha))
        return lambda residual: torch.linalg.lu_solve(*factor, residual)
    # Many rows of few voxels: the same by a matrix of the voxels' size (Woodbury 1950), in which
    # the intercept is one voxel more.
    some, n = parts.left[rows], len(parts.left)
    some = torch.cat([some, some.new_full((len(rows), 1), n**-0.5)], dim=1)
    inner = torch.diag(torch.cat([parts.eigenvalues + alpha, alpha.new_ones(1)]))
    small = torch.linalg.lu_factor(inner - some.T @ some)
    return lambda residual: residual + some @ torch.linalg.lu_solve(*small, some.T @ residual)


def leave_out(
    voxels: Voxels, goals: torch.Tensor, alpha: torch.Tensor, groups: np.ndarray
) -> torch.Tensor:
    """Return (n, D): each row as the ridge without its whole group would predict it.

    ``alpha`` (D,); ``groups`` (n,) names each row's stimulus or repeat.
    """
    parts = decompose(voxels)
    projected, wanted = parts.project(goals), goals - goals.mean(0)
    every = np.arange(len(goals))
    _, number = np.unique(groups, return_inverse=True)
    rows = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    sizes = np.array([len(r) for r in rows])
    predicted = torch.empty_like(goals)
    for penalty in alpha.unique():
        columns = torch.nonzero(alpha == penalty)[:, 0]
        residual = parts.residual(every, wanted[:, columns], projected[:, columns], penalty)
        for size in np.unique(sizes):
            members = np.stack([rows[g] for g in np.flatnonzero(sizes == size)])  # (G, size)
            missed = torch.linalg.solve(parts.unseen(members, penalty), residual[members])
            predicted[members[..., None], columns] = goals[members][..., columns] - missed
    return predicted


def recalibrate_test_batch(predicted: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Return predictions (n, ...) shifted and scaled to the training embeddings' mean and SD.

    ``(predicted - its mean) / its SD * SD of training + mean of training``, dimension by
    dimension, as system 4 did ("test-batch"). **What a trial becomes depends on the other trials
    of the batch**, so it is no part of any mapper: it serves comparisons with results that were
    made so. ``recalibrate="cross-validated"`` of the ridge does the same by training trials alone.

    Parameters
    ----------
    predicted
        Decoded embeddings of a whole test set, 10 or more.
    training
        True embeddings (m, ...) of the training stimuli.
    """
    if len(predicted) < FEWEST_IN_A_BATCH:
        raise UserError(
            f'recalibrate="test-batch" takes mean and SD from the test batch, which needs '
            f"{FEWEST_IN_A_BATCH} samples or more, found {len(predicted)}; choose "
            'recalibrate="cross-validated", which decodes any trial alone.'
        )
    mean, sd = predicted.mean(axis=0), predicted.std(axis=0)
    known = varies(mean, sd)
    standard = np.where(known, predicted - mean, 0) / np.where(known, sd, 1)
    return standard * training.std(axis=0) + training.mean(axis=0)


# ------------------------------------------------------------------------------------------- goals


def stack(
    space: EmbeddingSpace, embeddings: Mapping[str, np.ndarray], stimuli: np.ndarray
) -> torch.Tensor:
    """Return one flat embedding a row, float32 (n, D)."""
    return torch.from_numpy(np.stack([_flat(space, embeddings, s) for s in stimuli]))


class Columns:
    """The goals of all rows in several spaces side by side; only what is asked for is made.

    ``goals[rows, columns]``, as of a tensor (n, D), gives float32 on ``device``. What is held is
    the caller's embeddings alone, which are looked through when it is made.

    Parameters
    ----------
    targets
        Space -> stimulus -> embedding of the space's shape.
    stimuli
        (n,), the stimulus of every row.
    """

    def __init__(
        self,
        targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
        stimuli: np.ndarray,
        device: str | torch.device = "cpu",
    ) -> None:
        self.names, self.number = np.unique(stimuli, return_inverse=True)
        self.targets, self.device = targets, device
        self.sizes = [space.size for space in targets]
        self.shape = (len(stimuli), sum(self.sizes))
        for space, embeddings in targets.items():
            for name in self.names:
                _flat(space, embeddings, name)

    def __getitem__(self, wanted: tuple[Any, slice]) -> torch.Tensor:
        """Return some rows of contiguous columns."""
        rows, columns = wanted
        chosen, back = np.unique(self.number[rows], return_inverse=True)
        begin, end, _ = columns.indices(self.shape[1])
        parts, offset = [], 0
        for size, embeddings in zip(self.sizes, self.targets.values(), strict=True):
            inside = slice(max(begin - offset, 0), max(min(end - offset, size), 0))
            if inside.start < inside.stop:
                flat = [np.reshape(embeddings[name], -1)[inside] for name in self.names[chosen]]
                parts.append(np.stack(flat).astype(np.float32, copy=False))
            offset += size
        values = torch.from_numpy(np.concatenate(parts, axis=1))
        return values[torch.from_numpy(back)].to(self.device)


def _flat(
    space: EmbeddingSpace, embeddings: Mapping[str, np.ndarray], stimulus: str
) -> np.ndarray:
    """Return a stimulus's embedding, float32 (D,); one that is missing or odd is refused."""
    if stimulus not in embeddings:
        raise UserError(
            f"The training stimulus {stimulus!r} has no embedding in {space.name}; embed "
            "every training stimulus first."
        )
    embedding = np.asarray(embeddings[stimulus], np.float32)
    if embedding.shape != space.shape or not np.isfinite(embedding).all():
        raise UserError(
            f"The embedding of {stimulus!r} in {space.name} needs finite numbers of shape "
            f"{space.shape}, found shape {embedding.shape}."
        )
    return embedding.ravel()
