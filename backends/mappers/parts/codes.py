"""Codes between brain and embeddings: principal components, and ridge regressions to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from backends.training.counted import prefixed
from backends.training.decomposition import decompose
from backends.training.ridge_solver import cross_validate, grouped_folds, leave_out, solve
from backends.training.rows import TrialRows
from explorer.mapper import ROWS_AT_ONCE
from explorer.metrics import varies
from explorer.types import EmbeddingSpace, Trials, UserError


def principal_axes(
    rows: torch.Tensor,
    limit: int,
    variance: float,
    seed: int,
    name: str,
    at_most: int = 4096,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean (D,), orthonormal axes (K, D) and standard deviations (K,) of rows (n, D).

    K is the number of components that hold the share ``variance``, up to ``limit``. Of more than
    ``at_most`` rows a random choice, decided by ``seed``, is looked at: components converge with
    thousands, and the cost grows with the cube.
    """
    if len(rows) > at_most:
        chosen = np.random.default_rng(seed).permutation(len(rows))[:at_most]
        rows = rows[torch.from_numpy(np.sort(chosen))]
    centre = rows.double().mean(0)
    away = rows.double() - centre
    if len(away) < away.shape[1]:
        values, vectors = torch.linalg.eigh(away @ away.T)
        vectors = away.T @ vectors / values.clamp_min(1e-300).sqrt()
    else:
        values, vectors = torch.linalg.eigh(away.T @ away)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    if not varies(centre, away.std(0, correction=0)).any():
        raise all_alike(name)
    held = values.cumsum(0) / values.sum()
    solid = int((values > 1e-9 * values[0]).sum())  # the rest is rounding
    k = min(limit, solid, 1 + int((held < variance - 1e-12).sum()))
    spread = (values[:k] / len(away)).sqrt()
    return centre.float(), vectors[:, :k].T.contiguous().float(), spread.float()


def whitening_axes(rows: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return axes (K, D) that give rows (n, D) whitened principal components, and their mean.

    K is at most ``limit``, and leaves out directions of less than a thousandth of the largest
    standard deviation.
    """
    centre = rows.double().mean(0)
    away = rows.double() - centre
    values, vectors = torch.linalg.eigh(away.T @ away / len(away))
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    if not varies(centre, away.std(0, correction=0)).any():
        raise UserError(
            "All training stimuli have the same embedding; choose another space or other stimuli."
        )
    k = min(limit, int((values > 1e-6 * values[0]).sum()))
    return (vectors[:, :k] / values[:k].sqrt()).T.float().contiguous(), centre.float()


def ridge_codes(
    name: str,
    data: TrialRows,
    goals: torch.Tensor,
    statistics: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    folds: int,
    alphas: Sequence[float],
    seed: int,
    device: str,
    progress: Callable[[str], None] | None,
) -> Iterator[tuple[str, np.ndarray, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield each subject's ridge regression to codes, and the codes of its samples without it.

    A sample's code comes from the map of all other stimuli: one fitted to the very trial would
    look better than that of a new one.

    Parameters
    ----------
    name
        What progress lines call it.
    data, goals
        What is learned from, and the codes (stimuli, C) of its stimuli.
    statistics
        Subject -> mean and standard deviation (V,) of its voxels.
    folds, alphas
        Of the regressions, see `backends.mappers.ridge.Ridge.fit`.

    Yields
    ------
    subject, its samples bool (samples,), weight (V, C), bias (C,), and its samples' codes (n, C),
    on the CPU.
    """
    for number, (subject, trials) in enumerate(data.trials.items()):
        say = prefixed(progress, f"{name} for {subject}, ridge") or (lambda sentence: None)
        mine = data.subject == number
        groups = data.group[mine]
        voxels = standardised_rows(trials, data.rows[mine], *statistics[subject])
        parts, wanted = decompose(voxels.to(device)), goals[data.stimulus[mine]].to(device)
        held_out = grouped_folds(groups, folds, seed)
        alpha = cross_validate(parts, wanted, held_out, alphas, say).alpha
        weight, bias = (z.cpu() for z in solve(parts, wanted, alpha))
        yield subject, mine, weight, bias, leave_out(parts, wanted, alpha, groups).cpu()


def standardised_rows(
    trials: Trials, rows: np.ndarray, mean: torch.Tensor, sd: torch.Tensor
) -> torch.Tensor:
    """Return betas float32 (n, V) of rows (n,), standardised, read in blocks."""
    voxels = torch.empty(len(rows), trials.subject.voxels.n_voxels)
    for i in range(0, len(rows), ROWS_AT_ONCE):
        block = torch.as_tensor(np.asarray(trials.betas[rows[i : i + ROWS_AT_ONCE]], np.float32))
        voxels[i : i + len(block)] = (block - mean) / sd
    return voxels


def check_alphas(alphas: Sequence[float]) -> None:
    """Refuse penalties that are not positive."""
    if not len(alphas) or min(alphas) <= 0:
        raise UserError(f"alphas must be positive numbers, found {list(alphas)}.")


def units(space: EmbeddingSpace, goals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean (...) of embeddings (stimuli, ...) and one standard deviation of all.

    Every stimulus counts once, whoever saw it; a space in which all are alike is refused.
    """
    centre = goals.mean(0)
    squares = (goals - centre).square()
    if not varies(centre, squares.mean(0).sqrt()).any():
        raise all_alike(space.name)
    return centre, squares.mean().sqrt()


def all_alike(name: str) -> UserError:
    """Return the error for a space, by its name, in which training stimuli do not differ."""
    return UserError(
        f"All training stimuli have the same embedding in {name}; choose another space."
    )
