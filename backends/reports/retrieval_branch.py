"""Rows that MindEye2's paper has beside what a mixer decodes of averaged betas.

Its retrieval numbers are of a branch of their own (``clip_voxels``), and it averages what networks
make of each repeat instead of the betas, see `backends.mappers.parts.repeats`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from explorer.types import EmbeddingSpace, Trials

BRANCH, OUTPUTS = " (retrieval branch)", " (outputs averaged)"
MEANING = {
    BRANCH: "the contrastive branch that MindEye2's published retrieval is of, of each repeat and "
    "then averaged",
    OUTPUTS: "what it decodes where the outputs of each repeat are averaged before the prior, as "
    "MindEye2 draws; the row without the words is of averaged betas",
}
AT_ONCE = 16  # images whose repeats pass the networks together

Embeddings = dict[EmbeddingSpace, np.ndarray]


def has_branch(mapper: Any) -> bool:
    """Return whether a mapper has a retrieval branch that is not what it decodes anyway."""
    if not hasattr(mapper, "retrieve"):
        return False
    return bool(mapper.architecture["prior"]) or mapper.answer != "contrastive"


def branches(
    mapper: Any, trials: Trials, subject: str, stimuli: Sequence[str]
) -> dict[str, Embeddings]:
    """Return name of the row -> space -> embeddings (N, ...) of test stimuli."""
    import torch

    from backends.mappers.parts.repeats import over_repeats

    blocks: dict[str, dict[EmbeddingSpace, list[np.ndarray]]] = {OUTPUTS: {}, BRANCH: {}}
    device = next(mapper.buffers()).device
    for begin in range(0, len(stimuli), AT_ONCE):
        rows = [trials.rows("test", stimulus) for stimulus in stimuli[begin : begin + AT_ONCE]]
        betas = np.asarray(trials.betas[np.concatenate(rows)], np.float32)
        given = torch.from_numpy(betas).to(device), [len(some) for some in rows], subject
        for name, found in zip(blocks, over_repeats(mapper, *given), strict=True):
            for space, z in found.items():
                blocks[name].setdefault(space, []).append(z.float().cpu().numpy())
    return {
        name: {space: np.concatenate(parts) for space, parts in found.items()}
        for name, found in blocks.items()
    }
