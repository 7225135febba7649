"""The goals of a ridge: one flat embedding a trial, made when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from explorer.types import EmbeddingSpace, UserError


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
        return self._made(chosen, columns)[torch.from_numpy(back).to(self.device)]

    def each(self, columns: slice) -> torch.Tensor:
        """Return contiguous columns of every stimulus once, float32 (stimuli, D)."""
        return self._made(np.arange(len(self.names)), columns)

    def _made(self, chosen: np.ndarray, columns: slice) -> torch.Tensor:
        begin, end, _ = columns.indices(self.shape[1])
        parts, offset = [], 0
        for size, embeddings in zip(self.sizes, self.targets.values(), strict=True):
            inside = slice(max(begin - offset, 0), max(min(end - offset, size), 0))
            if inside.start < inside.stop:
                flat = [np.reshape(embeddings[name], -1)[inside] for name in self.names[chosen]]
                parts.append(np.stack(flat).astype(np.float32, copy=False))
            offset += size
        return torch.from_numpy(np.concatenate(parts, axis=1)).to(self.device)


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
