"""A small ``finetuned.pth`` as MinD-Vis' training wrote it, and one as NeuroLens' did.

MinD-Vis: CompVis' names, with 32 and 64 channels, one residual block a level and attention on the
second, and an encoder of voxels as wide as its context would need. NeuroLens: diffusers' names.
"""

import math
from argparse import Namespace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from backends.generators.mindvis import MindVis, NeuroLens
from tests.miniatures import unclip6
from tests.miniatures.unclip6 import layer

SIDE = 8  # latents of the small files
CONTEXT, TIME, PATCHES, WIDTH, PATCH = 512, 128, 6, 32, 16


class Small(MindVis):
    """Draws latents of 8 x 8."""

    def _adapted(self, unet):
        unet.register_to_config(sample_size=SIDE)
        return unet


class SmallLens(NeuroLens):
    """Draws latents of 8 x 8."""

    _adapted = Small._adapted


def residual(name, inputs, outputs):
    found = unclip6.residual(name, inputs, outputs)
    return found | layer(f"{name}.emb_layers.1", outputs, TIME)


def transformer(name, width):
    found = {}
    for key, shape in unclip6.transformer(name, width, 1).items():
        if key.endswith(("proj_in.weight", "proj_out.weight")):
            shape = (*shape, 1, 1)
        elif "attn2" in key and key.endswith(("to_k.weight", "to_v.weight")):
            shape = (width, CONTEXT)
        found[key] = shape
    return found


def unet(told=True):
    more = {
        **layer("time_embed_condtion.0", 38, 77, 1),
        **layer("time_embed_condtion.1", 1, 38, 1),
        **layer("time_embed_condtion.2", TIME, CONTEXT),
    }
    return {
        **layer("time_embed.0", TIME, 32),
        **layer("time_embed.2", TIME, TIME),
        **(more if told else {}),
        **layer("input_blocks.0.0", 32, 3, 3, 3),
        **residual("input_blocks.1.0", 32, 32),
        **layer("input_blocks.2.0.op", 32, 32, 3, 3),
        **residual("input_blocks.3.0", 32, 64),
        **transformer("input_blocks.3.1", 64),
        **residual("middle_block.0", 64, 64),
        **transformer("middle_block.1", 64),
        **residual("middle_block.2", 64, 64),
        **residual("output_blocks.0.0", 128, 64),
        **transformer("output_blocks.0.1", 64),
        **residual("output_blocks.1.0", 96, 64),
        **transformer("output_blocks.1.1", 64),
        **layer("output_blocks.1.2.conv", 64, 64, 3, 3),
        **residual("output_blocks.2.0", 96, 32),
        **residual("output_blocks.3.0", 64, 32),
        **layer("out.0", 32),
        **layer("out.2", 3, 32, 3, 3),
    }


def quantiser():
    changed = {
        **layer("encoder.conv_out", 3, 64, 3, 3),
        **layer("quant_conv", 3, 3, 1, 1),
        **layer("post_quant_conv", 3, 3, 1, 1),
        **layer("decoder.conv_in", 64, 3, 3, 3),
        "quantize.embedding.weight": (16, 3),
    }
    return unclip6.autoencoder() | changed


def encoder():
    """Return the shapes of the fMRI encoder with one block, and of both mappers."""
    found = {
        "mae.cls_token": (1, 1, WIDTH),
        "mae.pos_embed": (1, 1 + PATCHES, WIDTH),
        "mae.mask_token": (1, 1, WIDTH),
        **layer("mae.patch_embed.proj", WIDTH, 1, PATCH),
        **layer("mae.norm", WIDTH),
        **layer("mae.blocks.0.norm1", WIDTH),
        **layer("mae.blocks.0.norm2", WIDTH),
        **layer("mae.blocks.0.attn.qkv", 3 * WIDTH, WIDTH),
        **layer("mae.blocks.0.attn.proj", WIDTH, WIDTH),
        **layer("mae.blocks.0.mlp.fc1", WIDTH, WIDTH),
        **layer("mae.blocks.0.mlp.fc2", WIDTH, WIDTH),
        **layer("channel_mapper.0", PATCHES // 2, PATCHES, 1),
        **layer("channel_mapper.1", 77, PATCHES // 2, 1),
        **layer("dim_mapper", CONTEXT, WIDTH),
    }
    return found


def filled(shapes):
    """Return tensors of these shapes, random by their names' order."""
    source, found = torch.Generator().manual_seed(0), {}
    for name in sorted(shapes):
        drawn, shape = torch.randn(shapes[name], generator=source), shapes[name]
        gain = len(shape) == 1 and name.endswith("weight")
        found[name] = (
            drawn * 0.1 + gain if len(shape) == 1 else drawn / math.prod(shape[1:]) ** 0.5
        )
    return found


def state(told=True):
    """Return the whole model's tensors."""
    parts = {
        "model.diffusion_model.": unet(told),
        "first_stage_model.": quantiser(),
        "cond_stage_model.": encoder(),
    }
    shapes = {f"{b}{name}": shape for b, part in parts.items() for name, shape in part.items()}
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
    schedule = {"betas": betas.float(), "alphas_cumprod": (1 - betas).cumprod(0).float()}
    return filled(shapes) | schedule


def neurolens():
    """Return the whole model's tensors under diffusers' names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            attention_head_dim=8,
            cross_attention_dim=768,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
        vae = AutoencoderKL(
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        )
    found = {f"unet.{name}": value for name, value in unet.state_dict().items()}
    found |= {f"vae.{name}": value for name, value in vae.state_dict().items()}
    beside = ("cond_stage_model.dim_mapper.bias", "clip_model.logit_scale", "logvar")
    return found | {name: torch.zeros(3) for name in beside}


def save(folder, tensors, changes=(), name="finetuned.pth"):
    """Write a file as the trainings do, with an object of theirs beside the tensors.

    ``changes``: tensors by name, None for removed.
    """
    whole = {**tensors, **dict(changes)}
    whole = {key: value for key, value in whole.items() if value is not None}
    file = Path(folder) / name
    config = Namespace(ddim_steps=250, num_samples=5)
    torch.save({"model_state_dict": whole, "config": config, "state": torch.zeros(8)}, file)
    return file
