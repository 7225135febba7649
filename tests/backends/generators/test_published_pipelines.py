"""Stable Diffusion's families give the latents of diffusers' own pipelines on the same weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    KandinskyV22Pipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionSAGPipeline,
    StableDiffusionXLPipeline,
    StableUnCLIPImg2ImgPipeline,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
    StableUnCLIPImageNormalizer,
)
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from backends import GENERATORS
from backends.generators.latent_diffusion import LatentDiffusion
from backends.generators.low_level import LATENTS
from backends.generators.sd15_context import CONTEXT, StableContext
from explorer.protocols import Condition
from explorer.types import UserError, resolve

FAMILIES = {
    name: cls
    for name, entry in GENERATORS.items()
    if issubclass(cls := resolve(entry), LatentDiffusion)
    and name not in ("mind-vis", "neurolens")  # of one file each: test_mindvis.py
}
SIDE = 8  # latents of the tiny models
STEPS = 3
ELSEWHERE = (
    "sdxl-unclip",
    "versatile",
)  # held to theirs in test_sdxl_unclip.py, test_versatile.py


def published(name, folder, condition, prompt=""):
    """Return diffusers' pipeline of a family with the same weights, and what it is called with.

    ``condition``: what it draws from. ``prompt``: what is said beside the embedding, or in its
    place.
    """
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    config.pop("variance_type", None)  # the pipeline would hand DDIM the variances too
    scheduler = DDIMScheduler.from_config(config)
    (embedding,) = (z[None] for z in condition.embeddings.values())
    if name == "kandinsky":
        movq = VQModel.from_pretrained(folder / "movq").eval()
        encoder = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder").eval()
        null = encoder(torch.zeros(1, 3, 16, 16)).image_embeds
        size = {"height": 2 * SIDE, "width": 2 * SIDE}  # pixels: the tiny MoVQ halves them
        return KandinskyV22Pipeline(unet, scheduler, movq), {
            "image_embeds": embedding,
            "negative_image_embeds": null,
            **size,
        }
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    words = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    if name == "unclip":
        pipeline = StableUnCLIPImg2ImgPipeline(
            feature_extractor=None,
            image_encoder=text,  # asked for its dtype alone
            image_normalizer=StableUnCLIPImageNormalizer.from_pretrained(
                folder / "image_normalizer"
            ),
            image_noising_scheduler=DDPMScheduler.from_pretrained(
                folder / "image_noising_scheduler"
            ),
            tokenizer=words,
            text_encoder=text,
            unet=unet,
            scheduler=scheduler,
            vae=vae,
        )
        return pipeline, {"prompt": "", "image_embeds": embedding, "noise_level": 200}
    parts = {"vae": vae, "text_encoder": text, "tokenizer": words, "unet": unet}
    if name == "ip-adapter-xl":
        two = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2").eval()
        also = CLIPTokenizer.from_pretrained(folder / "tokenizer_2")
        parts |= {"text_encoder_2": two, "tokenizer_2": also, "scheduler": scheduler}
        pipeline = StableDiffusionXLPipeline(**parts, add_watermarker=False)
        called = {"prompt": "", "negative_prompt": "", "guidance_rescale": 0.7}
    else:
        pipeline = StableDiffusionPipeline(
            **parts,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        called = {"prompt": prompt}
    if name == "sd15-label":
        return pipeline, called
    if name == "sd15-context":
        return pipeline, {
            "prompt_embeds": embedding,
            "negative_prompt": "",
            "guidance_rescale": 0.4,
        }
    folder_, file = FAMILIES[name].adapter
    pipeline.load_ip_adapter(
        str(folder), subfolder=folder_, weight_name=file, image_encoder_folder=None
    )
    pair = torch.stack([torch.zeros_like(embedding), embedding])  # (2, one picture, 1024)
    return pipeline, {**called, "ip_adapter_image_embeds": [pair]}


OPTIONS = {
    "sd15-context": {"rescale": 0.4},
    "unclip": {"noise_level": 200},
    "ip-adapter-xl": {"rescale": 0.7},
}


@torch.inference_mode()
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ELSEWHERE])
def test_our_loop_gives_the_latents_of_the_published_pipeline(name, saved, made, given):
    prompt = made[name].prompt(given(name))[0] if name == "sd15-label" else ""
    pipeline, called = published(name, saved / name, given(name), prompt)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(7)
    expected = pipeline(
        **called,
        guidance_scale=4.0,
        num_inference_steps=STEPS,
        generator=generator,
        output_type="latent",
    )[0]
    found = made[name].latents([given(name)], 4.0, [7], STEPS, **OPTIONS.get(name, {}))
    assert found.shape == (1, 4, SIDE, SIDE)
    assert found.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    # and the picture is that of the published decoder
    (image,) = made[name].generate([given(name)], 4.0, [7], STEPS, **OPTIONS.get(name, {}))
    if name == "kandinsky":
        pixels = pipeline.movq.decode(expected, force_not_quantize=True).sample
    else:
        pixels = pipeline.vae.decode(expected / pipeline.vae.config.scaling_factor).sample
    shown = ((pixels[0] / 2 + 0.5).clamp(0, 1) * 255).permute(1, 2, 0)
    assert np.abs(image - shown.numpy()).max() <= 1


@torch.inference_mode()
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_self_attention_guidance_gives_the_latents_of_the_published_pipeline(
    scale, saved, made, given
):
    """For noise alone: of a velocity the pipeline adds differences of velocities.

    The paper's are of noise, as here whatever a network predicts (test_guidance.py).
    """
    plain, called = published("sd15-context", saved / "sd15-context", given("sd15-context"))
    pipeline = StableDiffusionSAGPipeline(**plain.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 4, "guidance_scale": scale, "output_type": "latent"}
    called = {name: called[name] for name in ("prompt_embeds", "negative_prompt")}
    generator, given_ = made["sd15-context"], [given("sd15-context")]
    apart = []
    for strength in (0.0, 0.75):
        expected = pipeline(
            **called, **call, sag_scale=strength, generator=torch.Generator().manual_seed(7)
        )[0]
        found = generator.latents(given_, scale, [7], 4, self_attention=strength)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        apart.append(found)
    assert (apart[1] - apart[0]).abs().mean() > 1e-3


@torch.inference_mode()
def test_drawing_starts_from_decoded_latents(saved, tmp_path, given):
    shutil.copytree(saved / "sd15-context", tmp_path / "sd")
    config = dict(UNet2DConditionModel.load_config(tmp_path / "sd" / "unet"))
    blocks = {  # attention where 64 x 64 latents are 32 x 32
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    unet = UNet2DConditionModel.from_config(config | blocks | {"sample_size": 64})
    unet.save_pretrained(tmp_path / "sd" / "unet")
    generator = StableContext(tmp_path, source=tmp_path / "sd")
    z = torch.randn(LATENTS.shape, generator=torch.Generator().manual_seed(5))
    context = given("sd15-context").embeddings[CONTEXT]
    both = Condition({CONTEXT: context, LATENTS: z})
    found = generator.latents([both], 3.0, [7], 4, strength=0.6)
    pipeline, _ = published("sd15-context", tmp_path / "sd", given("sd15-context"))
    pipeline = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        image=z[None],  # four channels: taken as latents
        prompt_embeds=context[None],
        negative_prompt="",
        strength=0.6,
        guidance_scale=3.0,
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    )[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    # the less is drawn anew the nearer it stays
    near = generator.latents([both], 3.0, [7], 4, strength=0.25)
    assert (near - z).norm() < (found - z).norm()
    with pytest.raises(UserError, match="Of 2 conditions 1 have sd-vae/latents"):
        generator.latents([both, given("sd15-context")], 3.0, [7, 8], 4)


def test_small_weights_cannot_start_from_full_latents(made):
    both = Condition({s: torch.zeros(s.shape) for s in (CONTEXT, LATENTS)})
    with pytest.raises(UserError, match=r"weights draw latents \(4, 8, 8\); name weights of 512"):
        made["sd15-context"].latents([both], 3.0, [7], 4)
