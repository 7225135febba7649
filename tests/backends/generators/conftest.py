"""Tiny random models of Stable Diffusion's families, with their real architectures."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    UNet2DConditionModel,
    VersatileDiffusionDualGuidedPipeline,
    VQModel,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
    StableUnCLIPImageNormalizer,
)
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from backends import GENERATORS
from backends.embedders.pocket import PocketClip
from backends.generators.latent_diffusion import LatentDiffusion
from explorer.protocols import Condition
from explorer.types import resolve
from tests.miniatures import cascade, flux, mindvis

# whose places depend on the version
DUAL = sys.modules[VersatileDiffusionDualGuidedPipeline.__module__]
FAMILIES = {
    name: cls
    for name, entry in GENERATORS.items()
    if issubclass(cls := resolve(entry), LatentDiffusion)
    and name not in ("mind-vis", "neurolens")  # of one file each: test_mindvis.py
}
CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"
POCKET = PocketClip.spaces[0]  # its weights ship, so a gallery can be embedded
SIDE = 8  # latents of the tiny models

BLOCKS = {
    "sample_size": SIDE,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
DIFFUSION = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012}
STABLE = {**DIFFUSION, "beta_schedule": "scaled_linear", "clip_sample": False, "steps_offset": 1}


def save_text(folder, number="", width=768, cls=CLIPTextModel):
    sizes = {"hidden_size": width, "intermediate_size": 16, "projection_dim": width}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 77}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 3}
    config = CLIPTextConfig(vocab_size=4, **sizes, **layers, **ends)
    cls(config).save_pretrained(folder / f"text_encoder{number}")
    words = folder / f"tokenizer{number}"
    words.mkdir()
    ids = {"a": 0, "a</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}
    (words / "vocab.json").write_text(json.dumps(ids))
    (words / "merges.txt").write_text("#version: 0.2\n")
    about = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (words / "tokenizer_config.json").write_text(json.dumps(about))
    pad = {"pad_token": "<|endoftext|>"}
    (words / "special_tokens_map.json").write_text(json.dumps(pad))


def save_parts(folder, scheduler=STABLE, cls=DDIMScheduler, scaling=0.18215, **unet):
    UNet2DConditionModel(**{**BLOCKS, **unet}).save_pretrained(folder / "unet")
    blocks = {
        "block_out_channels": (4, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    vae = AutoencoderKL(**blocks, latent_channels=4, norm_num_groups=4, scaling_factor=scaling)
    vae.save_pretrained(folder / "vae")
    cls(**scheduler).save_pretrained(folder / "scheduler")


def save_adapter(path, unet, cross):
    """Write an IP-Adapter as published: a projection, and keys and values by layer number."""
    state = {
        "image_proj.proj.weight": 0.02 * torch.randn(4 * cross, 1024),
        "image_proj.proj.bias": torch.zeros(4 * cross),
        "image_proj.norm.weight": torch.ones(cross),
        "image_proj.norm.bias": torch.zeros(cross),
    }
    places = [name for name in unet.attn_processors if "attn2" in name]
    for number, name in enumerate(places):
        width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for kind in ("k", "v"):
            key = f"ip_adapter.{2 * number + 1}.to_{kind}_ip.weight"
            state[key] = 0.05 * torch.randn(width, cross)
    path.parent.mkdir()
    save_file(state, path)


def save_context(folder):
    save_parts(folder, cross_attention_dim=768)
    save_text(folder)


def save_label(folder):
    save_context(folder)
    colours = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    for i, colour in enumerate(colours):
        (folder / "gallery" / "_".join("a" * (i + 1))).mkdir(parents=True)
        picture = Image.fromarray(colour).resize((64, 64), Image.BILINEAR)
        picture.save(folder / "gallery" / "_".join("a" * (i + 1)) / "one.png")


def save_unclip(folder):
    told = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2048}
    scheduler = {**STABLE, "prediction_type": "v_prediction"}
    save_parts(folder, scheduler, cross_attention_dim=1024, **told)
    save_text(folder, width=1024)
    normalizer = StableUnCLIPImageNormalizer(1024)
    normalizer.mean.data.normal_()
    normalizer.std.data.uniform_(0.5, 2)
    normalizer.save_pretrained(folder / "image_normalizer")
    noising = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    noising.save_pretrained(folder / "image_noising_scheduler")


def save_sdxl_unclip(folder):
    told = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 1024,
        "transformer_layers_per_block": (1, 2),
        "use_linear_projection": True,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    save_parts(folder, scaling=0.13025, cross_attention_dim=1664, **told)


def tiny_vision(width, **picture):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    picture = {"image_size": 16, "patch_size": 8, "num_hidden_layers": 1, **picture}
    config = CLIPVisionConfig(**sizes, **picture, projection_dim=width)
    return CLIPVisionModelWithProjection(config)


def save_kandinsky(folder):
    told = {"encoder_hid_dim": 1280, "encoder_hid_dim_type": "image_proj"}
    blocks = {
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "resnet_time_scale_shift": "scale_shift",
        "addition_embed_type": "image",
        "cross_attention_dim": 16,
        "out_channels": 8,
    }
    scheduler = {**DIFFUSION, "beta_schedule": "linear", "variance_type": "learned_range"}
    save_parts(folder, scheduler, DDPMScheduler, **told, **blocks)
    shutil.rmtree(folder / "vae")
    movq = VQModel(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        num_vq_embeddings=12,
        vq_embed_dim=4,
        norm_num_groups=4,
        norm_type="spatial",
    )
    movq.save_pretrained(folder / "movq")
    tiny_vision(1280).save_pretrained(folder / "image_encoder")


def save_ip(folder):
    save_context(folder)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    save_adapter(folder / "models" / "ip-adapter_sd15.safetensors", unet, 768)


def save_xl(folder):
    told = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "transformer_layers_per_block": (1, 2),
        "use_linear_projection": True,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    save_parts(folder, scaling=0.13025, cross_attention_dim=2048, **told)
    save_text(folder)
    save_text(folder, "_2", 1280, CLIPTextModelWithProjection)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    save_adapter(folder / "sdxl_models" / "ip-adapter_sdxl_vit-h.safetensors", unet, 2048)


def save_versatile(folder):
    """Write both UNets as published: the text's has residual blocks for vectors of its own."""
    save_parts(folder, cross_attention_dim=768)
    (folder / "unet").rename(folder / "image_unet")
    blocks = {
        "down_block_types": ("CrossAttnDownBlockFlat", "DownBlockFlat"),
        "up_block_types": ("UpBlockFlat", "CrossAttnUpBlockFlat"),
        "mid_block_type": "UNetMidBlockFlatCrossAttn",
        "cross_attention_dim": 768,
    }
    DUAL.UNetFlatConditionModel(**{**BLOCKS, **blocks}).save_pretrained(folder / "text_unet")
    tiny_vision(768, image_size=32, patch_size=2).save_pretrained(folder / "image_encoder")
    save_text(folder, cls=CLIPTextModelWithProjection)


SAVE = {
    "sd15-context": save_context,
    "sd15-label": save_label,
    "unclip": save_unclip,
    "kandinsky": save_kandinsky,
    "ip-adapter": save_ip,
    "ip-adapter-xl": save_xl,
    "sdxl-unclip": save_sdxl_unclip,
    "versatile": save_versatile,
    "cascade": lambda folder: cascade.save(folder, save_text),
    "flux": lambda folder: flux.save(folder, save_text),
    "mind-vis": lambda folder: mindvis.save(folder, mindvis.state()),
    "neurolens": lambda folder: mindvis.save(folder, mindvis.neurolens()),
}
SMALL = {  # of sides that no file says
    "cascade": cascade.Small,
    "flux": flux.Small,
    "mind-vis": mindvis.Small,
    "neurolens": mindvis.SmallLens,
}


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Return the folder of each family's tiny weights."""
    root = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        for number, (name, save) in enumerate(SAVE.items()):
            torch.manual_seed(number)
            (root / name).mkdir()
            save(root / name)
    return root


@pytest.fixture(scope="session")
def made(saved, labelled, tmp_path_factory):
    """Return each family's generator on its tiny weights."""
    none = tmp_path_factory.mktemp("none")
    found = {name: cls(none, source=saved / name) for name, cls in {**FAMILIES, **SMALL}.items()}
    return found | {"sd15-label": labelled(none)}


@pytest.fixture(scope="session")
def labelled(saved):
    """Return what makes sd15-label with a folder of pictures, named relative to its weights."""

    def made(cache, gallery="gallery"):
        folder = saved / "sd15-label"
        source = f"{folder}?gallery={folder / gallery}"
        return FAMILIES["sd15-label"](CHECKPOINTS, source=source, cache=cache)

    return made


@pytest.fixture(scope="session")
def given():
    """Return what makes a condition of a family, random by its seed."""

    def condition(name, seed=0):
        spaces = (POCKET,) if name == "sd15-label" else FAMILIES[name].accepts
        source = torch.Generator().manual_seed(seed)
        return Condition({space: torch.randn(space.shape, generator=source) for space in spaces})

    return condition


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """Write a ViT-B/32 with one block where guidance looks for it; return the checkpoints."""
    import open_clip

    root = tmp_path_factory.mktemp("eyes")
    folder = root / "embedders" / "ViT-B-32"
    folder.mkdir(parents=True)
    vision = {"image_size": 224, "layers": 1, "width": 768, "head_width": 64, "patch_size": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 4, "heads": 2, "layers": 1}
    sizes = {"embed_dim": 512, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
    about = {"model_cfg": sizes, "preprocess_cfg": {"mean": [0.4] * 3, "std": [0.3] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        save_file(
            open_clip.model.CLIP(**sizes).state_dict(), folder / "open_clip_model.safetensors"
        )
    return root
