"""The mixer's trunk and heads, after MindEye2.

Layouts after MindEye2 (Scotti et al. 2024, arXiv 2403.11207; MedARC-AI/MindEyeV2 at c184718,
src/models.py and src/Train.ipynb). Every published tensor has a place here of the same shape, so
that published weights give the published outputs. None of these networks has dropout: what is
random while learning comes from the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from backends.mappers.parts.prior import Prior


class Trunk(nn.Module):
    """Residual MLP-mixer blocks over ``streams`` tokens of ``hidden`` numbers.

    A block mixes the numbers of each token and then the tokens, and the two halves have residual
    paths of their own, as published: ``a' = f(b) + a``, ``b' = g(a') + b``. With one stream, as
    MindEye2 was trained, the second half adds constants: LayerNorm of one number is its bias.
    """

    def __init__(self, streams: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.streams, self.hidden = streams, hidden
        self.within = nn.ModuleList(mlp(hidden) for _ in range(blocks))
        self.across = nn.ModuleList(mlp(streams) for _ in range(blocks))
        for half in (*self.within, *self.across):  # learning begins at the identity
            nn.init.zeros_(half[-1].weight)
            nn.init.zeros_(half[-1].bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, streams * hidden) for (n, streams * hidden)."""
        a = b = x.reshape(len(x), self.streams, self.hidden)
        for within, across in zip(self.within, self.across, strict=True):
            a = within(b) + a
            b = across(a.mT).mT + b
        return b.flatten(1)


def mlp(size: int) -> nn.Sequential:
    """Return LayerNorm, Linear, GELU, Linear, all of one size."""
    return nn.Sequential(
        nn.LayerNorm(size), nn.Linear(size, size), nn.GELU(), nn.Linear(size, size)
    )


def projector(size: int) -> nn.Sequential:
    """Return what turns each token (..., D) into one for the contrastive loss (clip_proj)."""
    parts: list[nn.Module] = []
    for _ in range(3):
        parts += [nn.LayerNorm(size), nn.GELU(), nn.Linear(size, size)]
    return nn.Sequential(*parts)


class TokenHead(nn.Module):
    """Trunk (n, inputs) -> tokens (n, T, D), with the contrastive branch and, if any, the prior.

    ``shape`` is that of the space: (D,) is one token. ``prior`` are the arguments of `Prior`
    after the first two.
    """

    def __init__(
        self, inputs: int, shape: tuple[int, ...], prior: Mapping[str, Any] | None
    ) -> None:
        super().__init__()
        self.tokens, self.size = shape if len(shape) == 2 else (1, *shape)
        self.linear = nn.Linear(inputs, self.tokens * self.size)
        self.project = projector(self.size)
        self.prior = Prior(self.tokens, self.size, **prior) if prior else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return tokens (n, T, D)."""
        return self.linear(x).reshape(-1, self.tokens, self.size)


class LatentHead(nn.Module):
    """Trunk (n, inputs) -> latents (n, C, H, W): a small map, enlarged twice by convolutions.

    The low-level branch. MindEye2's has one more output for a teacher of picture patches, which
    is left out, and the decoder of a large autoencoder as its convolutions.
    """

    def __init__(self, inputs: int, shape: tuple[int, ...], channels: int = 32) -> None:
        super().__init__()
        self.shape, self.small = shape, (-(-shape[1] // 4), -(-shape[2] // 4))
        self.linear = nn.Linear(inputs, channels * math.prod(self.small))
        self.norm = nn.GroupNorm(1, channels)
        self.enter = nn.Conv2d(channels, channels, 3, padding=1)
        self.middle = nn.Conv2d(channels, channels, 3, padding=1)
        self.leave = nn.Conv2d(channels, shape[0], 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return latents (n, C, H, W)."""
        z = self.norm(self.linear(x).reshape(len(x), -1, *self.small))
        for convolution in (self.enter, self.middle):
            z = functional.interpolate(functional.silu(convolution(z)), scale_factor=2)
        return self.leave(z)[:, :, : self.shape[1], : self.shape[2]]
