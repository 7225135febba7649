"""Voxels as a sequence of patches, and the vision transformer that reads it, as in MinD-Vis.

The blocks are our own: their names and those of their weights are the published files' (timm's),
and timm would be seconds of import for thirty lines.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from backends.mappers.parts.foreign import misshapen, shape_of
from explorer.types import Subject, UserError

ORDERS = ("voxel", "roi")
ENCODER = ("patch", "positions", "width", "depth", "heads", "mlp_ratio")  # what makes an encoder
# In the published files beside the encoder: the decoder of masked patches, which we learn anew,
# and that of pictures (zjc062/mind-vis, code/sc_mbm/mae_for_fmri.py).
NOT_ENCODER = ("mask_token", "decoder_", "nature_img_")
BLOCK = tuple(
    f"{part}.{kind}"
    for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    for kind in ("weight", "bias")
)


class Attention(nn.Module):
    """Self-attention of tokens (n, k, width) with several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens (n, k, width)."""
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm transformer block as in timm's vision transformer."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        layers = {"fc1": nn.Linear(width, hidden), "act": nn.GELU()}
        self.mlp = nn.Sequential(OrderedDict(layers | {"fc2": nn.Linear(hidden, width)}))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens (n, k, width)."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


def sine_positions(count: int, width: int) -> torch.Tensor:
    """Return float32 (1, 1 + count, width): zeros for the class token, then one row a position.

    Sines then cosines of position / 10000^(2 i / width), as in MinD-Vis (get_1d_sincos_pos_embed).
    """
    rates = 10_000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    rows = torch.cat([angles.sin(), angles.cos()], dim=1).float()
    return torch.cat([torch.zeros(1, width), rows])[None]


class Encoder(nn.Module):
    """Patches of voxels -> tokens; module for module the encoder of MinD-Vis.

    Parameters
    ----------
    patch
        Voxels of a patch.
    positions
        The longest sequence, in patches.
    width, depth, heads, mlp_ratio
        Of its blocks; MinD-Vis has 1024, 24, 16 and 1.0.
    """

    def __init__(
        self, patch: int, positions: int, width: int, depth: int, heads: int, mlp_ratio: float
    ) -> None:
        super().__init__()
        values = (patch, positions, width, depth, heads, mlp_ratio)
        self.architecture = dict(zip(ENCODER, values, strict=True))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv1d(1, width, patch, stride=patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_embed", sine_positions(positions, width))
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.cls_token, std=0.02)
        self.apply(initialise)

    def forward(
        self,
        patches: torch.Tensor,
        added: torch.Tensor | float = 0.0,
        places: torch.Tensor | None = None,
        class_token: bool = True,
    ) -> torch.Tensor:
        """Return tokens (n, 1 + k, width), the class token first.

        Parameters
        ----------
        patches
            Standardised voxels (n, L, patch).
        added
            To the patches' embeddings, (n, L, width).
        places
            int (n, k), the patches that are read; all L without.
        class_token
            False leaves it out, (n, k, width), as MinD-Vis does after pretraining.
        """
        proj = self.patch_embed["proj"]  # a convolution whose windows do not overlap: a product
        tokens = functional.linear(patches, proj.weight[:, 0], proj.bias) + added
        tokens = tokens + self.pos_embed[:, 1 : 1 + patches.shape[1]]
        if places is not None:
            tokens = _take(tokens, places)
        if class_token:
            first = self.cls_token + self.pos_embed[:, :1]
            tokens = torch.cat([first.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    @torch.no_grad()
    def take(self, source: Encoder) -> None:
        """Take another encoder's weights; positions beyond its longest sequence stay sines."""
        state = source.state_dict()
        known = min(self.pos_embed.shape[1], source.pos_embed.shape[1])
        positions = self.pos_embed.clone()
        positions[:, :known] = source.pos_embed[:, :known]
        self.load_state_dict({**state, "pos_embed": positions})


def published_encoder(state: Mapping[str, torch.Tensor], heads: int, prefix: str = "") -> Encoder:
    """Return the encoder with the weights of a published MinD-Vis checkpoint.

    Parameters
    ----------
    state
        Names and tensors: the entry ``model`` of ``fmri_encoder.pth``, or ``model_state_dict`` of
        ``finetuned.pth``. Sizes are read from the shapes.
    heads
        Attention heads, which no shape tells.
    prefix
        Of the encoder's names: "" or "cond_stage_model.mae.". Other names are not looked at.

    Raises
    ------
    UserError
        When names are missing or unknown, with all of them, or when shapes do not belong together.
        The decoders of the same file are known and left out.
    """
    given = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    given = {k: v.detach().float() for k, v in given.items() if not k.startswith(NOT_ENCODER)}
    found = [re.match(r"blocks\.(\d+)\.", name) for name in given]
    depth = max(1, len({m[1] for m in found if m}))  # a gap among the numbers is a name missing
    wanted = {"cls_token", "pos_embed", "norm.weight", "norm.bias"}
    wanted |= {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    wanted |= {f"blocks.{i}.{name}" for i in range(depth) for name in BLOCK}
    missing, unknown = sorted(wanted - set(given)), sorted(set(given) - wanted)
    if missing or unknown:
        raise UserError(
            "These are not the weights of a MinD-Vis encoder: missing "
            f"{', '.join(missing) or 'none'}; unknown {', '.join(unknown) or 'none'}; choose a "
            "file of fmri_encoder.pth's layout."
        )
    width, _, patch = shape_of(given, "patch_embed.proj.weight", 3)
    if width % heads:
        raise UserError(
            f"This encoder is {width} wide, which {heads} attention heads cannot share; give the "
            "number of heads of its configuration."
        )
    ratio = shape_of(given, "blocks.0.mlp.fc1.weight", 2)[0] / width
    sizes = (patch, shape_of(given, "pos_embed", 3)[1] - 1, width, depth, heads, ratio)
    if odd := misshapen(lambda: Encoder(*sizes), given):
        raise UserError(
            f"The weights of this encoder do not belong together: {', '.join(odd)} have other "
            f"shapes than the width {width} and the MLPs' ratio {ratio:g} ask for; copy the file "
            "again."
        )
    encoder = Encoder(*sizes)
    encoder.load_state_dict(given)
    return encoder


class Own(nn.Module):
    """What belongs to one subject: the order of the voxels, their tuning, the patches' weights.

    ``order`` int32 (L * patch,): the voxel at each place of the sequence, -1 is padding.
    ``tuning`` (L, patch, tuning): a vector of each voxel. ``mix`` (1 + L, latents): how tokens,
    the class token first, add up to latents.
    """

    def __init__(self, patches: int, patch: int, tuning: int, latents: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.full((patches * patch,), -1, dtype=torch.int32))
        if tuning:
            self.tuning = nn.Parameter(torch.randn(patches, patch, tuning) / patch**0.5)
        self.mix = nn.Parameter(torch.randn(1 + patches, latents) / (1 + patches) ** 0.5)


class TokensHead(nn.Module):
    """Latents (n, Q, width) -> tokens (n, T, D): first the sequence, then the width is mapped.

    As MinD-Vis' ``channel_mapper`` and ``dim_mapper`` do, without what lies between them.
    """

    def __init__(self, latents: int, width: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.sequence, self.values = nn.Linear(latents, shape[0]), nn.Linear(width, shape[1])

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Return (n, T * D)."""
        return self.values(self.sequence(latents.transpose(1, 2)).transpose(1, 2)).flatten(1)


def order_of_voxels(subject: Subject, patch: int, patch_order: str, atlas: str = "") -> np.ndarray:
    """Return int32 (L * patch,): the voxel at each place of a subject's sequence, -1 is padding.

    ``patch_order`` and ``atlas`` as in `backends.mappers.masked.Masked.fit`.
    """
    if patch_order not in ORDERS:
        raise UserError(f"patch_order is {' or '.join(ORDERS)}, found {patch_order!r}.")
    count = subject.voxels.n_voxels
    groups = [np.arange(count)]
    if patch_order == "roi":
        atlases = subject.voxels.parcellations
        if not atlases or (atlas and atlas not in atlases):
            raise UserError(
                f"patch_order=roi needs the atlas {atlas or 'of some name'!r} for "
                f"{subject.dataset}/{subject.name}, which has {', '.join(atlases) or 'none'}; "
                "choose one of these, or patch_order=voxel."
            )
        masks = atlases[atlas or next(iter(atlases))].masks()
        parcel = masks.argmax(axis=0)  # the first that has a voxel; the last row is (unassigned)
        groups = [np.flatnonzero(parcel == p) for p in np.unique(parcel)]
    padded = [np.pad(g, (0, -len(g) % patch), constant_values=-1) for g in groups]
    return np.concatenate(padded).astype(np.int32)


def wide(places: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return int (n, k, width): places (n, k) for every number of the tokens (n, L, width)."""
    return places[..., None].expand(-1, -1, tokens.shape[2])


def _take(tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return the tokens (n, k, width) at places int (n, k) of tokens (n, L, width)."""
    return tokens.gather(1, wide(places, tokens))


def initialise(module: nn.Module) -> None:
    """Set first weights as published: uniform after Glorot, no bias."""
    if isinstance(module, nn.Linear | nn.Conv1d):
        nn.init.xavier_uniform_(module.weight.flatten(1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
