"""Networks under the names of Stability's generative-models (sgm), as diffusers' networks.

Sizes are read from the tensors, names from their layout (Stability-AI/generative-models,
sgm/modules/diffusionmodules/openaimodel.py and model.py, as MedARC-AI/MindEyeV2 brings it along).
Every tensor must have a place of its shape, and no place may be left without one; what is wrong
raises `ValueError`, since the reader of a file says in its own words what to do about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

HEAD = 64  # channels of an attention head (num_head_channels), which no shape tells
TOLD = 4  # numbers beside the tokens: original height and width, top and left of the crop
NAMED = 3  # of the names that do not fit

RESIDUAL = {
    **{"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj"},
    **{"out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut"},
}
SMALL = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0", "norm": "group_norm"}

State = Mapping[str, "torch.Tensor"]


class Levels:
    """How the blocks of a UNet lie on its levels, widest pictures first.

    Attributes
    ----------
    channels, layers, depths : list of int
        Of each level: its channels, its residual blocks on the way down, and the transformer
        blocks beside each of them (0 for none).
    """

    def __init__(self, state: State) -> None:
        self.channels: list[int] = []
        self.layers: list[int] = []
        self.depths: list[int] = []
        count = counted(state, "input_blocks.")
        new = True
        for i in range(1, count):
            if f"input_blocks.{i}.0.op.weight" in state:
                new = True
                continue
            width = shape_of(state, f"input_blocks.{i}.0.in_layers.2.weight")[0]
            depth = counted(state, f"input_blocks.{i}.1.transformer_blocks.")
            if new:
                self.channels.append(width)
                self.layers.append(0)
                self.depths.append(depth)
                new = False
            self.layers[-1] += 1
            if (width, depth) != (self.channels[-1], self.depths[-1]):
                raise ValueError(f"input_blocks.{i} differs from its neighbours on one level")
        if not self.channels or len(set(self.layers)) > 1:
            raise ValueError(
                f"its levels have {self.layers} residual blocks, expected as many each"
            )


def unet(
    state: State, side: int, heads: int = 0
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return configuration and state of a `UNet2DConditionModel` for those of an sgm UNet.

    Parameters
    ----------
    state
        Names without ``model.diffusion_model.``; a UNet of sgm's ``num_classes: sequential`` that
        is told `TOLD` numbers, each as sines and cosines, beside its cross-attention.
    side
        Of the latents it is to draw.
    heads
        Of every attention, of a UNet that is told nothing beside its cross-attention (CompVis);
        0 where each has `HEAD` channels.
    """
    found = Levels(state)
    number, width, depth = len(found.channels), found.layers[0], found.depths
    told = 0 if heads else shape_of(state, "label_emb.0.0.weight")[1]
    across = [key for key in state if key.endswith("attn2.to_k.weight")]
    attends = [key for key in state if key.endswith(".proj_in.weight")]
    if not across or told % TOLD:
        raise ValueError(
            f"it is told {told} numbers beside {'' if across else 'no '}cross-attention, expected "
            f"{TOLD} sizes of one length each beside tokens"
        )
    config = {
        "sample_size": side,
        "in_channels": shape_of(state, "input_blocks.0.0.weight")[1],
        "out_channels": shape_of(state, "out.2.weight")[0],
        "block_out_channels": found.channels,
        "layers_per_block": width,
        "transformer_layers_per_block": [max(1, n) for n in depth],
        # heads, by its old name
        "attention_head_dim": [heads or max(1, c // HEAD) for c in found.channels],
        "cross_attention_dim": shape_of(state, across[0])[1],
        "use_linear_projection": len(shape_of(state, attends[0])) == 2,
        "down_block_types": ["CrossAttnDownBlock2D" if n else "DownBlock2D" for n in depth],
        "up_block_types": ["CrossAttnUpBlock2D" if n else "UpBlock2D" for n in reversed(depth)],
    }
    if told:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": told // TOLD,
            "projection_class_embeddings_input_dim": told,
        }
    places = {
        **{"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"},
        **{"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2"},
        **{"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"},
        **{"middle_block.0": "mid_block.resnets.0", "middle_block.2": "mid_block.resnets.1"},
        "middle_block.1": "mid_block.attentions.0",
    }
    for level in range(number):
        down, up = f"down_blocks.{level}", f"up_blocks.{level}"
        first, begin = 1 + level * (width + 1), level * (width + 1)
        for i in range(width):
            places[f"input_blocks.{first + i}.0"] = f"{down}.resnets.{i}"
            places[f"input_blocks.{first + i}.1"] = f"{down}.attentions.{i}"
        places[f"input_blocks.{first + width}.0.op"] = f"{down}.downsamplers.0.conv"
        for i in range(width + 1):
            places[f"output_blocks.{begin + i}.0"] = f"{up}.resnets.{i}"
            places[f"output_blocks.{begin + i}.1"] = f"{up}.attentions.{i}"
        enlarges = 2 if depth[number - 1 - level] else 1
        places[f"output_blocks.{begin + width}.{enlarges}.conv"] = f"{up}.upsamplers.0.conv"
    return config, renamed(state, places, RESIDUAL)


def autoencoder(state: State, scaling: float) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return configuration and state of an `AutoencoderKL` for those of sgm's ``AutoencoderKL``.

    Parameters
    ----------
    state
        Names without ``first_stage_model.``; no attention but in the middle.
    scaling
        What its latents are multiplied by (scale_factor of the whole model's configuration).
    """
    number = counted(state, "encoder.down.")
    layers = counted(state, "encoder.down.0.block.")
    widths = [shape_of(state, f"encoder.down.{i}.block.0.conv1.weight")[0] for i in range(number)]
    latent = shape_of(state, "post_quant_conv.weight")[1]
    pixels = shape_of(state, "encoder.conv_in.weight")[1]
    config = {
        "in_channels": pixels,
        "out_channels": shape_of(state, "decoder.conv_out.weight")[0],
        "latent_channels": latent,
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * number,
        "up_block_types": ["UpDecoderBlock2D"] * number,
        "scaling_factor": scaling,
    }
    places = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for half in ("encoder", "decoder"):
        for name, ours in (("conv_in",) * 2, ("norm_out", "conv_norm_out"), ("conv_out",) * 2):
            places[f"{half}.{name}"] = f"{half}.{ours}"
        places[f"{half}.mid.attn_1"] = f"{half}.mid_block.attentions.0"
        for i in (0, 1):
            places[f"{half}.mid.block_{i + 1}"] = f"{half}.mid_block.resnets.{i}"
    for i in range(number):
        down, up = f"encoder.down_blocks.{i}", f"decoder.up_blocks.{number - 1 - i}"
        for j in range(layers):
            places[f"encoder.down.{i}.block.{j}"] = f"{down}.resnets.{j}"
        for j in range(layers + 1):
            places[f"decoder.up.{i}.block.{j}"] = f"{up}.resnets.{j}"
        places[f"encoder.down.{i}.downsample.conv"] = f"{down}.downsamplers.0.conv"
        places[f"decoder.up.{i}.upsample.conv"] = f"{up}.upsamplers.0.conv"
    found = renamed(state, places, {"nin_shortcut": "conv_shortcut", **SMALL})
    for name in found:  # its attention is written as convolutions of one pixel
        if ".attentions.0.to_" in name and found[name].ndim == 4:
            found[name] = found[name].flatten(1)
    return config, found


def quantiser(state: State) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return configuration and state of a `VQModel` for those of CompVis' ``VQModel``.

    Its names are those of `autoencoder`, and a table of vectors.
    """
    name = "quantize.embedding.weight"
    number, size = shape_of(state, name)
    plain, found = autoencoder({k: v for k, v in state.items() if k != name}, 1.0)
    config = {
        **plain,
        "latent_channels": shape_of(state, "post_quant_conv.weight")[0],
        "num_vq_embeddings": number,
        "vq_embed_dim": size,
    }
    return config, {**found, name: state[name]}


def renamed(
    state: State, places: Mapping[str, str], within: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """Return a state under our names; a name without a place raises `ValueError`.

    ``places``: the beginning of a name, to a dot, and what it becomes. ``within``: what layers of
    a block are called; others keep their names.
    """
    ours, lost = {}, []
    for name, value in state.items():
        parts = name.split(".")
        begin = next(
            (at for n in range(len(parts) - 1, 0, -1) if (at := ".".join(parts[:n])) in places),
            None,
        )
        if begin is None:
            lost.append(name)
            continue
        rest = name[len(begin) + 1 :]
        layer, _, end = rest.rpartition(".")
        layer = within.get(layer, layer)
        ours[".".join(part for part in (places[begin], layer, end) if part)] = value
    if lost:
        raise ValueError(f"{_listed(lost)} no place in such a network")
    return ours


def filled(
    make: Callable[[], torch.nn.Module], state: State, dtype: torch.dtype
) -> torch.nn.Module:
    """Return a network with exactly these tensors, in eval mode and without gradients.

    A tensor that is missing, or has no place or another shape, raises `ValueError`.
    """
    import torch

    with torch.device("meta"):
        network = make()
    expected = network.state_dict()
    if missing := sorted(set(expected) - set(state)):
        raise ValueError(f"it lacks what {_listed(missing, '')} would be")
    if unknown := sorted(set(state) - set(expected)):
        raise ValueError(f"{_listed(unknown)} no place in such a network")
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"{name} has the shape {tuple(value.shape)}, expected "
                f"{tuple(expected[name].shape)}"
            )
    cast = {name: value.to(dtype) for name, value in state.items()}
    network.load_state_dict(cast, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def shape_of(state: State, name: str) -> tuple[int, ...]:
    """Return a tensor's shape; one that is missing, or has no two axes, raises `ValueError`."""
    if name not in state:
        raise ValueError(f"{name} is missing")
    if len(state[name].shape) < 2:
        raise ValueError(f"{name} has the shape {tuple(state[name].shape)}, expected more axes")
    return tuple(state[name].shape)


def counted(state: State, prefix: str) -> int:
    """Return how many numbers follow ``prefix`` in the names; a gap raises `ValueError`."""
    found = {int(n) for n in _numbers(state, prefix)}
    if found != set(range(len(found))):
        raise ValueError(f"of {prefix}N there are the numbers {sorted(found)}, with a gap")
    return len(found)


def _numbers(state: State, prefix: str) -> Iterator[str]:
    pattern = re.compile(re.escape(prefix) + r"(\d{1,4})\.")
    return (match[1] for name in state if (match := pattern.match(name)))


def _listed(names: list[str], verb: str = " has") -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    if verb and len(names) > 1:
        verb = " have"
    return ", ".join(names[:NAMED]) + more + verb
