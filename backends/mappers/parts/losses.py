"""Contrastive losses of predicted against true embeddings, all of unit length."""

from __future__ import annotations

import torch
from torch.nn import functional


def info_nce(
    predicted: torch.Tensor, true: torch.Tensor, stimuli: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the symmetric InfoNCE of unit vectors (n, D); 0 is the best, log(n) is chance.

    Cross-entropy of the cosines over ``temperature``, from each prediction over all true vectors
    and from each true vector over all predictions, averaged. Trials of one stimulus (equal numbers
    in ``stimuli`` (n,)) are each other's right answers in equal shares, never negatives.
    """
    logits = predicted @ true.T / temperature
    same = (stimuli[:, None] == stimuli[None]).to(logits)
    share = same / same.sum(1, keepdim=True)  # symmetric: both directions use it
    return 0.5 * (
        functional.cross_entropy(logits, share) + functional.cross_entropy(logits.T, share)
    )


def bimixco(
    predicted: torch.Tensor, gallery: torch.Tensor, shares: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the contrastive loss of blends, in both directions (MindEye, arXiv 2305.18274).

    ``predicted`` (n, D) and ``gallery`` (m, D) of unit length, ``shares`` (n, m) of each image in
    each trial, rows adding up to 1. Without blends, each trial of another image, it is InfoNCE.
    """
    logits = predicted @ gallery.T / temperature
    forth = -(logits.log_softmax(1) * shares).sum()
    back = -(logits.log_softmax(0) * shares).sum()
    return (forth + back) / (2 * len(predicted))


def soft_clip(predicted: torch.Tensor, true: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the contrastive loss whose answers are the true vectors' own resemblances.

    Both (n, D) of unit length; cross-entropy of ``predicted . true`` against the softmax of
    ``true . true``, both over ``temperature``, averaged over both directions (arXiv 2305.18274).
    """
    logits = predicted @ true.T / temperature
    answers = (true @ true.T / temperature).softmax(1)
    forth = functional.cross_entropy(logits, answers)
    return (forth + functional.cross_entropy(logits.T, answers)) / 2
