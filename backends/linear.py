"""The mathematics of ridge regression, shared by decoding (betas to embeddings) and encoding.

``W(alpha) = argmin |Y - X W|^2 + alpha |W|^2`` on centred inputs X (n, V) and goals Y (n, D)
(Hoerl & Kennard 1970). One eigendecomposition per fold serves every penalty: of the Gram matrix
``X'X`` when there are no more inputs than trials, else of the kernel ``XX'`` (Saunders et al.
1998). The inputs are called voxels here, as in decoding; in encoding they are features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from explorer.types import EmbeddingSpace, UserError

# Standardised inputs give the Gram matrix a diagonal of n, so this reaches from hardly any penalty
# to one that leaves only the strongest directions, for hundreds to tens of thousands of trials.
ALPHAS: tuple[float, ...] = tuple(np.logspace(1, 6, 16).tolist())


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


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The best penalty of each of D targets, and how well it does on held-out rows; all (D,)."""

    alpha: torch.Tensor
    r2: torch.Tensor
    correlation: torch.Tensor


def cross_validate(
    voxels: torch.Tensor,
    goals: torch.Tensor,
    held_out: Sequence[np.ndarray],
    alphas: Sequence[float],
    say: Callable[[str], None] = lambda sentence: None,
) -> CrossValidation:
    """Choose the penalty with the least squared error over all held-out rows, target by target.

    Parameters
    ----------
    voxels, goals
        (n, V) and (n, D).
    held_out
        Rows of each fold; together they are all rows, each once.
    alphas
        Penalties to choose from.
    say
        Called with one sentence a fold.
    """
    penalties = torch.tensor(list(alphas), dtype=goals.dtype, device=goals.device)
    n, centre = len(goals), goals.mean(0)
    total = (goals - centre).square().sum(0)
    # Sums instead of predictions: (alphas, n, D) is 27 GB for 27,000 trials of 15,724 voxels.
    error, sums, squares, products = goals.new_zeros(4, len(penalties), goals.shape[1])
    for i, rows in enumerate(held_out):
        say(f"fold {i + 1} of {len(held_out)}")
        train = np.setdiff1d(np.arange(n), rows)
        parts = decompose(voxels[train], goals[train])
        seen = (voxels[rows] - parts.voxel_mean) @ parts.basis  # (rows, r)
        truth = goals[rows] - centre
        for a, alpha in enumerate(penalties):
            coefficients = parts.projected / (parts.eigenvalues[:, None] + alpha)
            predicted = seen @ coefficients + (parts.goal_mean - centre)  # (rows, D)
            error[a] += (predicted - truth).square().sum(0)
            sums[a] += predicted.sum(0)
            squares[a] += predicted.square().sum(0)
            products[a] += (predicted * truth).sum(0)
    best = error.argmin(dim=0)[None]  # (1, D)
    tiny = torch.finfo(goals.dtype).tiny
    r2 = 1 - error.gather(0, best)[0] / total.clamp_min(tiny)
    spread = (squares.gather(0, best) - sums.gather(0, best).square() / n)[0].clamp_min(0)
    correlation = products.gather(0, best)[0] / (total * spread).sqrt().clamp_min(tiny)
    varies = total > 0  # a target that is constant in training is neither explained nor missed
    alpha = penalties[best[0]]
    return CrossValidation(alpha, r2.where(varies, 0), correlation.where(varies, 0))


def solve(
    voxels: torch.Tensor, goals: torch.Tensor, alpha: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (V, D) and intercept (D,) of the ridge with a penalty (D,) for each target."""
    parts = decompose(voxels, goals)
    weight = parts.basis @ (parts.projected / (parts.eigenvalues[:, None] + alpha))
    return weight, parts.goal_mean - parts.voxel_mean @ weight


def leave_out(
    voxels: torch.Tensor, goals: torch.Tensor, alpha: torch.Tensor, groups: np.ndarray
) -> torch.Tensor:
    """Return (n, D): each row as the ridge without its whole group would predict it.

    Exact, from one decomposition: with the hat matrix H of all rows and a group's residuals e,
    what remains without the group is ``(I - H_gg)^-1 e`` (Allen 1974, Technometrics 16:125, there
    for single rows). ``alpha`` (D,); ``groups`` (n,) names each row's stimulus or repeat.
    """
    n, parts = len(voxels), decompose(voxels, goals)
    scores = (voxels - parts.voxel_mean) @ parts.basis  # (n, r)
    norms = scores.norm(dim=0)
    turned = scores / norms.where(norms > 1e-6 * norms.max(), torch.inf)  # orthonormal, or 0
    wanted = goals - parts.goal_mean
    aligned = turned.T @ wanted  # (r, D)
    names, number = np.unique(groups, return_inverse=True)
    rows = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    sizes = np.array([len(r) for r in rows])
    predicted = torch.empty_like(goals)
    for penalty in alpha.unique():
        columns = torch.nonzero(alpha == penalty)[:, 0]
        shrunk = parts.eigenvalues / (parts.eigenvalues + penalty)  # (r,)
        residual = wanted[:, columns] - turned @ (shrunk[:, None] * aligned[:, columns])
        for size in np.unique(sizes):
            members = np.stack([rows[g] for g in np.flatnonzero(sizes == size)])  # (G, size)
            some = turned[members]
            hat = (some * shrunk) @ some.mT + 1 / n  # (G, size, size)
            left = torch.linalg.solve(torch.eye(size).to(hat) - hat, residual[members])
            found = goals[members][..., columns] - left
            predicted[members[..., None], columns] = found
    return predicted


@dataclass(frozen=True, eq=False)
class Decomposition:
    """``W(alpha) = basis @ (projected / (eigenvalues + alpha))`` for centred voxels and goals.

    ``basis`` (V, r), ``projected`` (r, D), ``eigenvalues`` (r,), r the smaller of n and V;
    ``voxel_mean`` (V,), ``goal_mean`` (D,).
    """

    basis: torch.Tensor
    projected: torch.Tensor
    eigenvalues: torch.Tensor
    voxel_mean: torch.Tensor
    goal_mean: torch.Tensor


def decompose(voxels: torch.Tensor, goals: torch.Tensor) -> Decomposition:
    """Decompose the smaller of X'X (V, V) and XX' (n, n), for voxels (n, V) and goals (n, D)."""
    voxel_mean, goal_mean = voxels.mean(0), goals.mean(0)
    centred, wanted = voxels - voxel_mean, goals - goal_mean
    if voxels.shape[1] <= voxels.shape[0]:
        eigenvalues, basis = torch.linalg.eigh(centred.T @ centred)
        projected = basis.T @ (centred.T @ wanted)
    else:
        eigenvalues, vectors = torch.linalg.eigh(centred @ centred.T)
        basis, projected = centred.T @ vectors, vectors.T @ wanted
    # Rounding can leave a zero slightly negative.
    return Decomposition(basis, projected, eigenvalues.clamp_min(0), voxel_mean, goal_mean)


def stack(
    space: EmbeddingSpace, embeddings: Mapping[str, np.ndarray], stimuli: np.ndarray
) -> torch.Tensor:
    """Return one flat embedding a row, float32 (n, D)."""
    rows = []
    for stimulus in stimuli:
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
        rows.append(embedding.ravel())
    return torch.from_numpy(np.stack(rows))
