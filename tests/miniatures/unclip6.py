"""A small checkpoint of SDXL unCLIP under the names of Stability's generative-models.

The names are those of ``unclip6.yaml`` with 64, 64 and 128 channels, one residual block a level
and one and two transformer blocks.
"""

import math
from argparse import Namespace
from pathlib import Path

import torch

TOKEN = 1664
TIME = 256


def layer(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def residual(name, inputs, outputs):
    skip = layer(f"{name}.skip_connection", outputs, inputs, 1, 1) if inputs != outputs else {}
    return {
        **layer(f"{name}.in_layers.0", inputs),
        **layer(f"{name}.in_layers.2", outputs, inputs, 3, 3),
        **layer(f"{name}.emb_layers.1", outputs, TIME),
        **layer(f"{name}.out_layers.0", outputs),
        **layer(f"{name}.out_layers.3", outputs, outputs, 3, 3),
        **skip,
    }


def transformer(name, width, depth):
    found = layer(f"{name}.norm", width)
    for end in ("proj_in", "proj_out"):
        found |= layer(f"{name}.{end}", width, width)
    for i in range(depth):
        block = f"{name}.transformer_blocks.{i}"
        for attention, context in (("attn1", width), ("attn2", TOKEN)):
            found[f"{block}.{attention}.to_q.weight"] = (width, width)
            for end in ("to_k", "to_v"):
                found[f"{block}.{attention}.{end}.weight"] = (width, context)
            found |= layer(f"{block}.{attention}.to_out.0", width, width)
        found |= layer(f"{block}.ff.net.0.proj", 8 * width, width)
        found |= layer(f"{block}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            found |= layer(f"{block}.{norm}", width)
    return found


def unet():
    return {
        **layer("time_embed.0", TIME, 64),
        **layer("time_embed.2", TIME, TIME),
        **layer("label_emb.0.0", TIME, 1024),
        **layer("label_emb.0.2", TIME, TIME),
        **layer("input_blocks.0.0", 64, 4, 3, 3),
        **residual("input_blocks.1.0", 64, 64),
        **layer("input_blocks.2.0.op", 64, 64, 3, 3),
        **residual("input_blocks.3.0", 64, 64),
        **transformer("input_blocks.3.1", 64, 1),
        **layer("input_blocks.4.0.op", 64, 64, 3, 3),
        **residual("input_blocks.5.0", 64, 128),
        **transformer("input_blocks.5.1", 128, 2),
        **residual("middle_block.0", 128, 128),
        **transformer("middle_block.1", 128, 2),
        **residual("middle_block.2", 128, 128),
        **residual("output_blocks.0.0", 256, 128),
        **transformer("output_blocks.0.1", 128, 2),
        **residual("output_blocks.1.0", 192, 128),
        **transformer("output_blocks.1.1", 128, 2),
        **layer("output_blocks.1.2.conv", 128, 128, 3, 3),
        **residual("output_blocks.2.0", 192, 64),
        **transformer("output_blocks.2.1", 64, 1),
        **residual("output_blocks.3.0", 128, 64),
        **transformer("output_blocks.3.1", 64, 1),
        **layer("output_blocks.3.2.conv", 64, 64, 3, 3),
        **residual("output_blocks.4.0", 128, 64),
        **residual("output_blocks.5.0", 128, 64),
        **layer("out.0", 64),
        **layer("out.2", 4, 64, 3, 3),
    }


def block(name, inputs, outputs):
    skip = layer(f"{name}.nin_shortcut", outputs, inputs, 1, 1) if inputs != outputs else {}
    return {
        **layer(f"{name}.norm1", inputs),
        **layer(f"{name}.conv1", outputs, inputs, 3, 3),
        **layer(f"{name}.norm2", outputs),
        **layer(f"{name}.conv2", outputs, outputs, 3, 3),
        **skip,
    }


def autoencoder():
    found = {
        **layer("encoder.conv_in", 32, 3, 3, 3),
        **block("encoder.down.0.block.0", 32, 32),
        **layer("encoder.down.0.downsample.conv", 32, 32, 3, 3),
        **block("encoder.down.1.block.0", 32, 64),
        **layer("encoder.norm_out", 64),
        **layer("encoder.conv_out", 8, 64, 3, 3),
        **layer("quant_conv", 8, 8, 1, 1),
        **layer("post_quant_conv", 4, 4, 1, 1),
        **layer("decoder.conv_in", 64, 4, 3, 3),
        **block("decoder.up.1.block.0", 64, 64),
        **block("decoder.up.1.block.1", 64, 64),
        **layer("decoder.up.1.upsample.conv", 64, 64, 3, 3),
        **block("decoder.up.0.block.0", 64, 32),
        **block("decoder.up.0.block.1", 32, 32),
        **layer("decoder.norm_out", 32),
        **layer("decoder.conv_out", 3, 32, 3, 3),
    }
    for half in ("encoder", "decoder"):
        for i in (1, 2):
            found |= block(f"{half}.mid.block_{i}", 64, 64)
        found |= layer(f"{half}.mid.attn_1.norm", 64)
        for end in ("q", "k", "v", "proj_out"):
            found |= layer(f"{half}.mid.attn_1.{end}", 64, 64, 1, 1)
    return found


def state():
    """Return the whole model's tensors, random by their names' order."""
    shapes = {f"model.diffusion_model.{name}": shape for name, shape in unet().items()}
    shapes |= {f"first_stage_model.{name}": shape for name, shape in autoencoder().items()}
    source, found = torch.Generator().manual_seed(0), {}
    for name in sorted(shapes):
        shape = shapes[name]
        drawn = torch.randn(shape, generator=source)
        is_gain = len(shape) == 1 and name.endswith("weight")
        found[name] = (
            drawn * 0.1 + is_gain if len(shape) == 1 else drawn / math.prod(shape[1:]) ** 0.5
        )
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    found["denoiser.sigmas"] = ((1 - kept) / kept).sqrt().float()
    found["conditioner.embedders.0.model.visual.class_embedding"] = torch.zeros(3)
    return found


def save(folder, changes=(), name="unclip6_epoch0_step110000.ckpt"):
    """Write the checkpoint as Lightning does, with objects of its own beside the tensors.

    ``changes``: tensors by name, None for removed.
    """
    whole = {**state(), **dict(changes)}
    whole = {key: value for key, value in whole.items() if value is not None}
    file = Path(folder) / name
    beside = {"hyper_parameters": Namespace(scale_factor=0.13025), "epoch": 0}
    torch.save({**beside, "callbacks": {"clock": print}, "state_dict": whole}, file)
    return file
