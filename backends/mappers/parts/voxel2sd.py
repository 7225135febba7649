"""NeuralDiffuser's z encoder: from voxels to the latents of Stable Diffusion's autoencoder.

Layout after HaoyyLi/NeuralDiffuser, src/train_z.py and src/models.py (Voxel2StableDiffusionModel,
which is that of MindEye 1). Its enlarging decoder is that of `upsampler`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from backends.mappers.parts import upsampler
from backends.mappers.parts.foreign import misshapen, shape_of
from backends.mappers.parts.upsampler import UpsamplerHead
from explorer.types import EmbeddingSpace, UserError

LAYERS, NETWORK = "voxelenc.linears.", "voxel2sd."
MAPS = f"{NETWORK}maps_projector."  # for the contrastive loss of its training alone
SAME = {  # what `upsampler` calls the parts, and what they are called here
    upsampler.LINEAR: f"{NETWORK}lin1",
    upsampler.NORM: f"{NETWORK}norm",
    upsampler.DECODER: f"{NETWORK}upsampler",
}


class LowLevel(nn.Module):
    """A layer of each subject, residual blocks, and a map that convolutions enlarge.

    Parameters
    ----------
    space
        Of the latents (C, H, W).
    voxels
        Subject -> number of voxels.
    width, blocks
        Numbers between the residual blocks, and how many there are.
    **sizes
        Of `UpsamplerHead`.
    """

    def __init__(
        self,
        space: EmbeddingSpace,
        voxels: Mapping[str, int],
        width: int,
        blocks: int,
        **sizes: Any,
    ) -> None:
        super().__init__()
        self.space = space
        self.layers = nn.ModuleDict({f"of_{s}": _layer(v, width) for s, v in voxels.items()})
        self.blocks = nn.ModuleList(_layer(width, width) for _ in range(blocks))
        self.head = UpsamplerHead(width, space.shape, **sizes)

    def forward(self, betas: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return latents (n, C, H, W) by their space for betas (n, V)."""
        x = self.layers[f"of_{subject}"](betas)
        for block in self.blocks:
            x = block(x) + x
        return {self.space: self.head(x)}


def _layer(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width, bias=False), nn.LayerNorm(width), nn.SiLU())


def low_level(
    state: Mapping[str, torch.Tensor], voxels: Mapping[str, int], space: EmbeddingSpace | str
) -> tuple[LowLevel, dict[str, Any], tuple[str, ...]]:
    """Return a z encoder with published weights, its sizes, and what found no place in it.

    Parameters
    ----------
    state
        The file's ``model_state_dict``.
    voxels
        Subject -> number of voxels, in the order in which the file's layers were trained.
    space
        Of its latents; or ``model/layer``, of whatever shape it gives.
    """
    blocks = _numbers(state, rf"{re.escape(NETWORK)}mlp\.(\d{{1,3}})\.")
    layers = _numbers(state, rf"{re.escape(LAYERS)}(\d{{1,3}})\.")
    if layers != len(voxels):
        raise UserError(
            f"The checkpoint has the layers of {layers} subject(s); name as many subjects, each "
            f"once and in the order it was trained with, found {', '.join(voxels) or 'none'}."
        )
    renamed = {theirs: ours for ours, theirs in SAME.items()}
    as_branch = {_moved(name, renamed): z for name, z in state.items()}
    sizes, shape = upsampler.published_sizes(as_branch)
    sizes |= {"width": shape_of(state, f"{NETWORK}lin1.weight", 2)[1], "blocks": blocks}
    if isinstance(space, str):
        model, _, layer = space.partition("/")
        space = EmbeddingSpace(model, layer, shape)
    if space.shape != shape:
        raise UserError(
            f"The checkpoint gives latents of shape {shape}, {space.name} has {space.shape}; name "
            "the space that it was trained to."
        )

    def make() -> LowLevel:
        return LowLevel(space, voxels, **sizes)

    with torch.device("meta"):
        names = {_published(name, tuple(voxels)): name for name in make().state_dict()}
    bias = names.pop(f"{NETWORK}lin1.bias")  # the published layer has none
    left = [name for name in state if name.startswith(MAPS)]
    unknown = sorted(set(state) - set(names) - set(left))
    missing = sorted(set(names) - set(state))
    if unknown or missing:
        raise UserError(
            "These are not the weights of NeuralDiffuser's z encoder as published: unknown are "
            f"{', '.join(unknown) or 'none'}; missing are {', '.join(missing) or 'none'}; give "
            "the model_state_dict of a file that its training wrote."
        )
    ours = {mine: state[name].detach().float() for name, mine in names.items()}
    ours[bias] = torch.zeros(len(state[f"{NETWORK}lin1.weight"]))
    if odd := misshapen(make, ours):
        raise UserError(
            f"The weights do not belong together: {', '.join(odd)} (our names) have other shapes "
            "than the rest or the data's voxels ask for; name the subjects in the order of its "
            "training, or copy the file again."
        )
    made = make()
    made.load_state_dict(ours)
    told = f"{MAPS.rstrip('.')} ({len(left)} tensor(s)): the contrastive branch of its training"
    return made.eval(), sizes, (told,) if left else ()


def _numbers(names: Collection[str], pattern: str) -> int:
    return len({m[1] for name in names if (m := re.match(pattern, name))})


def _moved(name: str, prefixes: Mapping[str, str]) -> str:
    """Return a name whose beginning is one of ``prefixes`` with the other beginning."""
    for old, new in prefixes.items():
        if name.startswith(f"{old}."):
            return new + name[len(old) :]
    return name


def _published(name: str, subjects: tuple[str, ...]) -> str:
    """Return what NeuralDiffuser calls a tensor of `LowLevel`."""
    kind, _, rest = name.partition(".")
    if kind == "head":
        part, _, rest = rest.partition(".")
        theirs = {"linear": "lin1", "norm": "norm", "decoder": "upsampler"}[part]
        return f"{NETWORK}{theirs}.{rest}"
    if kind == "blocks":
        return f"{NETWORK}mlp.{rest}"
    subject, _, rest = rest.removeprefix("of_").partition(".")
    return f"{LAYERS}{subjects.index(subject)}.{rest}"
