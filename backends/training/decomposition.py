"""Voxels taken apart once, from which a ridge of any penalty, goals and held-out rows is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from backends.training.goals import Columns

STRIP = 512  # columns of a symmetric product that are made at once


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


def decompose(voxels: Voxels, *, overwrite: bool = False) -> Decomposition:
    """Decompose the smaller of X'X (V, V) and XX' (n, n) for voxels (n, V); the dear step.

    Beside the voxels it holds a centred copy of them, unless it may ``overwrite`` them, and four
    matrices of that size.
    """
    if isinstance(voxels, Decomposition):
        return voxels
    mean = voxels.mean(0)
    centred = voxels.sub_(mean) if overwrite else voxels - mean
    kernel = voxels.shape[1] > voxels.shape[0]
    side = centred.T if kernel else centred
    eigenvalues, vectors = torch.linalg.eigh(symmetric(side, side))
    eigenvalues = eigenvalues.clamp_min(0)  # rounding can leave a zero slightly negative
    if not kernel:
        for begin in range(0, len(centred), STRIP):
            rows = slice(begin, begin + STRIP)
            centred[rows] = centred[rows] @ vectors
        return Decomposition(eigenvalues, centred, vectors, mean, kernel)
    vectors -= vectors.mean(0)  # what is constant over trials is the intercept's
    return Decomposition(eigenvalues, vectors, centred, mean, kernel)


def symmetric(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return a'b (k, k) of (n, k) each, known to be symmetric, by little more than half of it."""
    product = a.new_empty(a.shape[1], a.shape[1])
    for begin in range(0, len(product), STRIP):
        end = begin + STRIP
        product[begin:end, begin:] = a[:, begin:end].T @ b[:, begin:]
        product[end:, begin:end] = product[begin:end, end:].T
    return product


def projecting(
    parts: Decomposition, goals: torch.Tensor | Columns
) -> Callable[[slice], torch.Tensor]:
    """Return what gives ``left'Y`` (r, D) of contiguous columns of the goals.

    Rows of one stimulus have one goal, so theirs are added up first: (stimuli, r) is held.
    """
    if not isinstance(goals, Columns):
        return lambda columns: parts.project(goals[:, columns])
    added = summed_by_stimulus(parts, goals)

    def project(columns: slice) -> torch.Tensor:
        each = goals.each(columns).to(added)
        return added.T @ (each - each.mean(0))

    return project


def summed_by_stimulus(parts: Decomposition, goals: Columns) -> torch.Tensor:
    """Return (stimuli, r): the rows of ``left`` of each stimulus, added up."""
    number = torch.from_numpy(goals.number).to(parts.left.device)
    summed = parts.left.new_zeros(len(goals.names), parts.left.shape[1])
    return summed.index_add_(0, number, parts.left)


Undo = Callable[[torch.Tensor], torch.Tensor]


def without(parts: Decomposition, rows: np.ndarray) -> Callable[[torch.Tensor], Undo]:
    """Return what gives, for a penalty, ``(I - H_gg)^-1`` of these rows int (m,).

    That is a function of residuals (m, D).
    """
    some, n, m = parts.left[rows], len(parts.left), len(rows)
    if parts.kernel or m <= parts.left.shape[1]:

        def directly(alpha: torch.Tensor) -> Undo:
            block = symmetric((some / (parts.eigenvalues + alpha)).T, some.T)
            if parts.kernel:
                block *= alpha
            else:
                block.neg_().sub_(1 / n).diagonal().add_(1)
            return _inverse(block)

        return directly
    # Many rows of few voxels: the same by a matrix of the voxels' size (Woodbury 1950), in which
    # the intercept is one voxel more.
    some = torch.cat([some, some.new_full((m, 1), n**-0.5)], dim=1)
    product = symmetric(some, some)

    def by_voxels(alpha: torch.Tensor) -> Undo:
        inner = torch.diag(torch.cat([parts.eigenvalues + alpha, alpha.new_ones(1)]))
        small = _inverse(inner - product)
        return lambda residual: residual + some @ small(some.T @ residual)

    return by_voxels


def _inverse(block: torch.Tensor) -> Undo:
    """Return the function that solves with a positive definite block (m, m)."""
    factor, failed = torch.linalg.cholesky_ex(block)
    if not failed:
        return lambda residual: torch.cholesky_solve(residual, factor)
    pivoted = torch.linalg.lu_factor(block)  # of rounding: hardly any penalty, voxels alike
    return lambda residual: torch.linalg.lu_solve(*pivoted, residual)
