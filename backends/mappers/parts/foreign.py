"""Weights of others: sizes read from tensors, held against a network before it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from explorer.types import UserError


def shape_of(state: Mapping[str, torch.Tensor], name: str, axes: int) -> tuple[int, ...]:
    """Return the shape of a tensor that must have so many axes, none of them empty."""
    shape = tuple(state[name].shape)
    if len(shape) != axes or 0 in shape:
        raise UserError(
            f"{name} has the shape {shape}, expected {axes} axes, none of them empty; the file is "
            "damaged or not as published: copy it again."
        )
    return shape


def misshapen(make: Callable[[], nn.Module], state: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of tensors whose shapes a network would not have; nothing is allocated."""
    with torch.device("meta"):
        expected = make().state_dict()
    return [name for name, z in state.items() if z.shape != expected[name].shape]
