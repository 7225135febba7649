"""MindEye2's low-level branch: from the trunk to latents by an autoencoder's decoder.

Layout after MedARC-AI/MindEyeV2, src/models.py (blin1, bnorm, bupsampler), where the decoder is
that of diffusers 0.23 with three levels. Modules have the published names, so that every published
tensor has a place here of the same shape.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from backends.mappers.parts.foreign import shape_of
from backends.mappers.parts.trunk import LatentHead, TokenHead
from explorer.types import EmbeddingSpace, UserError

GROUPS, NEAR_0 = 32, 1e-6  # of the decoder's group norms
LINEAR, NORM, DECODER = "backbone.blin1", "backbone.bnorm", "backbone.bupsampler"
LAST = f"{DECODER}.conv_out.weight"  # a file that has it has the branch


class UpsamplerHead(LatentHead):
    """Trunk (n, inputs) -> latents (n, C, H, W), as published.

    Parameters
    ----------
    inputs
        Numbers of the trunk.
    shape
        (C, H, W) of the latents.
    channels, side
        Of the small map that is enlarged.
    widths
        Channels of the decoder's levels, the finest first.
    layers
        Residual blocks of the decoder's middle; a level has as many and one more.
    """

    def __init__(
        self,
        inputs: int,
        shape: tuple[int, ...],
        channels: int,
        side: int,
        widths: Sequence[int],
        layers: int,
    ) -> None:
        nn.Module.__init__(self)
        self.shape, self.small = shape, (channels, side, side)
        self.linear = nn.Linear(inputs, math.prod(self.small))
        self.norm = nn.GroupNorm(1, channels)
        self.decoder = Decoder(channels, shape[0], widths, layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return latents (n, C, H, W)."""
        return self.decoder(self.norm(self.linear(x).reshape(len(x), *self.small)))


def head_of(
    space: EmbeddingSpace,
    inputs: int,
    prior: Mapping[str, Any] | None,
    upsampler: Mapping[str, Any] | None,
) -> TokenHead | LatentHead:
    """Return a mixer's head for a space, by its shape; arguments as the mixer has them."""
    if len(space.shape) > 3:
        raise UserError(
            f"The mixer has heads for spaces of shape (D,), (T, D) and (C, H, W), found "
            f"{space.shape} in {space.name}; choose another space."
        )
    if len(space.shape) < 3:
        return TokenHead(inputs, space.shape, prior)
    if upsampler:
        return UpsamplerHead(inputs, space.shape, **upsampler)
    return LatentHead(inputs, space.shape)


class Decoder(nn.Module):
    """A small map (n, channels, S, S) -> (n, out, S * 2 ** k, ...), k levels less one."""

    def __init__(self, channels: int, out: int, widths: Sequence[int], layers: int) -> None:
        super().__init__()
        coarse = widths[-1]
        self.conv_in = nn.Conv2d(channels, coarse, 3, padding=1)
        self.mid_block = Block(
            resnets=[Residual(coarse, coarse), Residual(coarse, coarse)],
            attentions=[Attention(coarse)],
        )
        blocks, before = [], coarse
        for number, width in enumerate(reversed(widths)):
            sizes = [before, *[width] * layers]
            parts: dict[str, Sequence[nn.Module]] = {
                "resnets": [Residual(size, width) for size in sizes]
            }
            if number < len(widths) - 1:
                parts["upsamplers"] = [Upsampler(width)]
            blocks.append(Block(**parts))
            before = width
        self.up_blocks = nn.ModuleList(blocks)
        self.conv_norm_out = nn.GroupNorm(GROUPS, before, NEAR_0)
        self.conv_out = nn.Conv2d(before, out, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the enlarged map."""
        x = self.conv_in(x)
        first, second = self.mid_block.resnets
        x = second(self.mid_block.attentions[0](first(x)))
        for block in self.up_blocks:
            for part in (*block.resnets, *getattr(block, "upsamplers", ())):
                x = part(x)
        return self.conv_out(functional.silu(self.conv_norm_out(x)))


class Block(nn.Module):
    """Modules by the names of their kinds."""

    def __init__(self, **kinds: Sequence[nn.Module]) -> None:
        super().__init__()
        for name, modules in kinds.items():
            self.add_module(name, nn.ModuleList(modules))


class Residual(nn.Module):
    """Two convolutions beside the identity, or a convolution of one pixel where widths differ."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, inputs, NEAR_0)
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, width, NEAR_0)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        if inputs != width:
            self.conv_shortcut = nn.Conv2d(inputs, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a map of the same size."""
        y = self.conv1(functional.silu(self.norm1(x)))
        y = self.conv2(functional.silu(self.norm2(y)))
        return y + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class Attention(nn.Module):
    """Each place of a map attends to all, in one head, beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(GROUPS, width, NEAR_0)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a map of the same size."""
        places = self.group_norm(x).flatten(2).mT
        q, k, v = self.to_q(places), self.to_k(places), self.to_v(places)
        found = functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])
        return x + self.to_out[0](found[:, 0]).mT.unflatten(2, x.shape[2:])


class Upsampler(nn.Module):
    """Each place four times, and a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a map of twice the size."""
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


def published_sizes(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Return the arguments of `UpsamplerHead` after its shape, and that shape.

    ``state``: published names, of which a decoder of the layout here needs more, which the caller
    checks.
    """
    numbers = re.compile(
        re.escape(DECODER) + r"\.up_blocks\.(\d{1,2})\.resnets\.(\d{1,2})\.conv1\.w"
    )
    found = [tuple(map(int, m.groups())) for name in state if (m := numbers.match(name))]
    levels, layers = (1 + max((pair[i] for pair in found), default=0) for i in (0, 1))
    needed = [
        f"{NORM}.weight",
        f"{LINEAR}.weight",
        *(f"{DECODER}.up_blocks.{i}.resnets.0.conv1.weight" for i in range(levels)),
    ]
    if lacking := [name for name in needed if name not in state]:
        raise UserError(
            f"The file has a part of MindEye2's low-level branch and lacks {', '.join(lacking)}; "
            "copy it again."
        )
    (channels,) = shape_of(state, f"{NORM}.weight", 1)
    side = math.isqrt(shape_of(state, f"{LINEAR}.weight", 2)[0] // channels)
    widths = [shape_of(state, needed[2 + i], 4)[0] for i in range(levels)]
    out, large = shape_of(state, LAST, 4)[0], side * 2 ** (levels - 1)
    if any(width % GROUPS for width in widths) or layers < 2:
        raise UserError(
            f"The low-level branch has {widths} channels in {layers} blocks a level, expected "
            f"multiples of {GROUPS} and two blocks or more; the file is damaged: copy it again."
        )
    sizes = {"channels": channels, "side": side, "widths": widths[::-1], "layers": layers - 1}
    return sizes, (out, large, large)


def places(sizes: Mapping[str, Any], shape: tuple[int, ...], ours: str) -> dict[str, str]:
    """Return published name -> ours of every tensor of the branch, ours under ``ours``."""
    with torch.device("meta"):
        head = UpsamplerHead(1, shape, **sizes)
    theirs = {"linear": LINEAR, "norm": NORM, "decoder": DECODER}
    return {
        f"{theirs[part]}.{rest}": f"{ours}.{part}.{rest}"
        for part, _, rest in (name.partition(".") for name in head.state_dict())
    }
