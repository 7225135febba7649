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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from backends.training.counted import Counted
from backends.training.decomposition import (
    STRIP,
    Decomposition,
    Voxels,
    decompose,
    projecting,
    summed_by_stimulus,
    symmetric,
    without,
)
from backends.training.goals import Columns
from explorer.metrics import varies
from explorer.types import UserError

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
    penalties = parts.eigenvalues.new_tensor(list(alphas))
    n, r, fold = len(parts.left), parts.left.shape[1], max(map(len, held_out))
    by_name = isinstance(goals, Columns)
    if by_name and forms_are_cheaper(n, r, goals.shape[1], len(goals.names), fold):
        found = _by_stimulus(parts, goals, held_out, penalties, say)
    else:
        found = _by_row(parts, goals, held_out, penalties, say)
    centre, total = found.centre, found.total
    tiny = torch.finfo(total.dtype).tiny
    mean = found.sums / n
    spread = (found.squares - n * mean.square()).clamp_min(0)
    sd, predicted_sd = (total / n).sqrt(), (spread / n).sqrt()
    known = varies(centre, sd)
    correlation = found.products / (total.sqrt() * spread.sqrt()).clamp_min(tiny)
    return CrossValidation(
        alpha=penalties[found.best],
        varies=known,
        r2=(1 - found.error / total.clamp_min(tiny)).where(known, 0),
        correlation=correlation.where(known, 0),
        mean=centre,
        sd=sd.where(known, 0),
        predicted_mean=centre + mean,
        predicted_sd=predicted_sd.where(known, 0),
    )


@dataclass(eq=False)
class _Found:
    """What the folds give for each target (D,): which penalty, and sums over all held-out rows.

    ``centre`` and ``total``: mean and sum of squares about it of the goals; of the predictions
    less the centre ``sums``, ``squares`` and ``products`` with the goals less the centre.
    """

    best: torch.Tensor
    error: torch.Tensor
    sums: torch.Tensor
    squares: torch.Tensor
    products: torch.Tensor
    centre: torch.Tensor
    total: torch.Tensor


def _by_row(
    parts: Decomposition,
    goals: torch.Tensor | Columns,
    held_out: Sequence[np.ndarray],
    penalties: torch.Tensor,
    say: Callable[[str], None],
) -> _Found:
    """Find the best penalties by predicting every row with each of them."""
    n, d = goals.shape
    centre, total = parts.left.new_empty(2, d)
    projected = parts.left.new_empty(len(parts.eigenvalues), d)
    project = projecting(parts, goals)
    for columns in _some(d):
        some = goals[:, columns]
        centre[columns] = some.mean(0)
        total[columns] = (some - centre[columns]).square().sum(0)
        projected[:, columns] = project(columns)
    # Sums instead of predictions: (alphas, n, D) is 27 GB for 27,000 trials of 15,724 voxels.
    sums = parts.left.new_zeros(4, len(penalties), d)
    for i, rows in enumerate(held_out):
        told = {"work": "folds", "done": i, "total": len(held_out), "unit": "folds"}
        say(Counted(f"fold {i + 1} of {len(held_out)}", **told))
        undoing = without(parts, rows)
        for a, alpha in enumerate(penalties):
            undo = undoing(alpha)
            for columns in _some(d):
                truth = goals[rows, columns] - centre[columns]
                missed = undo(parts.residual(rows, truth, projected[:, columns], alpha))
                predicted = truth - missed
                sums[0, a, columns] += missed.square().sum(0)
                sums[1, a, columns] += predicted.sum(0)
                sums[2, a, columns] += predicted.square().sum(0)
                sums[3, a, columns] += (predicted * truth).sum(0)
    best = sums[0].argmin(dim=0)
    return _Found(best, *sums.gather(1, best.expand(4, 1, d))[:, 0], centre, total)


def forms_are_cheaper(n: int, r: int, d: int, stimuli: int, fold: int) -> bool:
    """Say whether quadratic forms over stimuli take fewer products than predicting every row.

    For n rows, r eigenvalues, D targets, and folds of so many rows.
    """
    each = 2 * n * (r + fold)
    return each * stimuli + n * stimuli**2 + 1.5 * stimuli**2 * d < each * d


def _by_stimulus(
    parts: Decomposition,
    goals: Columns,
    held_out: Sequence[np.ndarray],
    penalties: torch.Tensor,
    say: Callable[[str], None],
) -> _Found:
    """Find the best penalties by quadratic forms, for more targets than stimuli.

    What a fit without a fold misses in its rows is linear in the goals, and trials of a stimulus
    have one goal: it is ``B Y`` with Y (stimuli, D). So the squared error of a target y is
    ``y' (sum of B'B) y`` whatever the number of rows, and its product with the truth another such
    form.
    """
    n, d = goals.shape
    u, summed = len(goals.names), summed_by_stimulus(parts, goals)
    number = torch.from_numpy(goals.number).to(summed.device)
    counts = number.bincount(minlength=u).to(summed)
    found = _Found(number.new_zeros(d), *summed.new_zeros(6, d))
    found.error += torch.inf
    for columns in _some(d):
        each = goals.each(columns).to(summed)
        found.centre[columns] = counts @ each / n
        found.total[columns] = counts @ (each - found.centre[columns]).square()
    # The middle first: most targets then find a better penalty a few times only.
    order = sorted(range(len(penalties)), key=lambda a: abs(a - len(penalties) // 2))
    work = [(a, i) for a in order for i in range(len(held_out))]
    for done, (a, i) in enumerate(work):
        told = {"work": "fits", "done": done, "total": len(work), "unit": "fits"}
        turn = f"penalty {done // len(held_out) + 1} of {len(penalties)}"
        say(Counted(f"{turn}, fold {i + 1} of {len(held_out)}", **told))
        if i == 0:
            square, cross = summed.new_zeros(2, u, u)
            alone = summed.new_zeros(u)
        rows, alpha = held_out[i], penalties[a]
        fitted = parts.left[rows] @ (summed / (parts.eigenvalues + alpha)).T
        if parts.kernel:
            fitted *= alpha
        else:
            fitted.neg_().sub_(counts / n)
            fitted[torch.arange(len(rows)), number[rows]] += 1
        missed = without(parts, rows)(alpha)(fitted)
        square += symmetric(missed, missed)
        cross.index_add_(0, number[rows], missed)
        alone += missed.sum(0)
        if i == len(held_out) - 1:
            cross = (cross + cross.T) / 2
            for columns in _some(d):
                _keep_better(
                    found, columns, goals.each(columns).to(summed), a, square, cross, alone
                )
    return found


def _keep_better(
    found: _Found,
    columns: slice,
    each: torch.Tensor,
    penalty: int,
    square: torch.Tensor,
    cross: torch.Tensor,
    alone: torch.Tensor,
) -> None:
    """Write into ``found`` what one penalty gives for the targets for which it is the best yet."""
    each -= found.centre[columns]
    error = _forms(square, each)
    before, index = found.error[columns], found.best[columns]
    better = (error < before) | ((error == before) & (penalty < index))
    if not better.any():
        return
    where = torch.arange(columns.start, columns.stop, device=each.device)[better]
    each, error, total = each[:, better], error[better], found.total[where]
    product = _forms(cross, each)
    found.best[where], found.error[where] = penalty, error
    found.sums[where] = -(alone @ each)
    found.products[where] = total - product
    found.squares[where] = total - 2 * product + error


def _forms(matrix: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return y'My (D,) of columns y of (u, D) and a symmetric M, by little more than half of M."""
    total = columns.new_zeros(columns.shape[1], dtype=torch.float64)
    for begin in range(0, len(matrix), STRIP):
        end = begin + STRIP
        here = columns[begin:end]
        product = matrix[begin:end, begin:end] @ here
        product += 2 * (matrix[begin:end, end:] @ columns[end:])
        total += (here * product).sum(0)
    return total.to(columns)


def _some(d: int) -> Iterator[slice]:
    for begin in range(0, d, COLUMNS_AT_ONCE):
        yield slice(begin, min(d, begin + COLUMNS_AT_ONCE))


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
