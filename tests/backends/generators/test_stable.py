"""Stable Diffusion's families on tiny random models of their real architectures, made here.

Each is compared with the pipeline that diffusers has for it, given the same weights.
"""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from pathlib import Path

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
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from backends import EMBEDDERS, GENERATORS
from backends.embedders.pocket import PocketClip
from backends.embedders.published import ViTB32
from backends.generators import stable, weights
from backends.generators.guidance import Level
from backends.generators.pulls import towards_betas
from explorer.protocols import Condition, Generator
from explorer.types import EmbeddingSpace, UserError, resolve

FAMILIES = {
    cls.name: cls
    for cls in (
        *(stable.StableContext, stable.StableLabel, stable.StableUnCLIP, stable.Kandinsky),
        *(stable.IPAdapter, stable.IPAdapterXL),
    )
}
CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"
POCKET = PocketClip.spaces[0]  # its weights ship, so a gallery can be embedded
TAESD = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "taesd"
SIDE = 8  # latents of the tiny models
STEPS = 3


# ------------------------------------------------------------------------------------- tiny models

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


def tiny_vision(width):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    picture = {"image_size": 16, "patch_size": 8, "num_hidden_layers": 1}
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


SAVE = {
    "sd15-context": save_context,
    "sd15-label": save_label,
    "unclip": save_unclip,
    "kandinsky": save_kandinsky,
    "ip-adapter": save_ip,
    "ip-adapter-xl": save_xl,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the folder of each family's tiny weights."""
    root = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        for number, (name, save) in enumerate(SAVE.items()):
            torch.manual_seed(number)
            (root / name).mkdir()
            save(root / name)
    return root


@pytest.fixture(scope="module")
def made(saved, tmp_path_factory):
    """Return each family's generator on its tiny weights."""
    none = tmp_path_factory.mktemp("none")
    found = {name: cls(none, source=saved / name) for name, cls in FAMILIES.items()}
    return found | {"sd15-label": labelled(saved, none)}


def labelled(saved, cache, gallery="gallery"):
    source = f"{saved / 'sd15-label'}?gallery={saved / 'sd15-label' / gallery}"
    return stable.StableLabel(CHECKPOINTS, source=source, cache=cache)


def condition(space, seed=0):
    values = torch.randn(space.shape, generator=torch.Generator().manual_seed(seed))
    return Condition({space: values})


def given(name, seed=0):
    return condition(POCKET if name == "sd15-label" else FAMILIES[name].accepts[0], seed)


def noise(seed, side=SIDE):
    return torch.randn((1, 4, side, side), generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- against diffusers' own pipelines


def published(name, folder, prompt=""):
    """Return diffusers' pipeline of a family with the same weights, and what it is called with.

    ``prompt``: what is said beside the embedding, or in its place.
    """
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    config.pop("variance_type", None)  # the pipeline would hand DDIM the variances too
    scheduler = DDIMScheduler.from_config(config)
    (embedding,) = (z[None] for z in given(name).embeddings.values())
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
            image_encoder=tiny_vision(1024),  # asked for its dtype alone
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
@pytest.mark.parametrize("name", FAMILIES)
def test_our_loop_gives_the_latents_of_the_published_pipeline(name, saved, made):
    prompt = made[name].prompt(given(name))[0] if name == "sd15-label" else ""
    pipeline, called = published(name, saved / name, prompt)
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
def test_self_attention_guidance_gives_the_latents_of_the_published_pipeline(scale, saved, made):
    """For noise alone: of a velocity the pipeline adds differences of velocities.

    The paper's are of noise, as here whatever a network predicts (test_guidance.py).
    """
    plain, called = published("sd15-context", saved / "sd15-context")
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


@pytest.mark.parametrize("name", ["sd15-context", "unclip"])
def test_self_attention_guidance_depends_on_no_other_row(name, made, monkeypatch):
    generator, one = made[name], given(name)
    how = {"self_attention": 1.0}
    alone = generator.latents([one], 3.0, [5], 4, **how)
    assert (alone - generator.latents([one], 3.0, [5], 4)).abs().mean() > 1e-3
    among = generator.latents([given(name, 1), one], 3.0, [9, 5], 4, **how)
    torch.testing.assert_close(among[1:], alone, atol=1e-4, rtol=1e-4)
    rows = counted(generator, monkeypatch)
    swept = {
        s.scale: s.image for s in generator.sweep(one, (0.0, 1.0, 3.0), 4, 5, **how) if s.done
    }
    assert rows == [2, 2, 4, 3, 4, 3, 4, 3]  # the first step is that of one picture
    for scale, image in swept.items():
        shown = generator.generate([one], scale, [5], 4, **how)[0]
        assert np.abs(image.astype(int) - shown).max() <= 1, scale


@torch.inference_mode()
def test_drawing_starts_from_decoded_latents(saved, tmp_path):
    shutil.copytree(saved / "sd15-context", tmp_path / "sd")
    large = tmp_path / "sd" / "unet" / "config.json"
    config = json.loads(large.read_text()) | {"sample_size": 64}
    large.write_text(json.dumps(config))
    generator = stable.StableContext(tmp_path, source=tmp_path / "sd")
    z = torch.randn(stable.LATENTS.shape, generator=torch.Generator().manual_seed(5))
    context = given("sd15-context").embeddings[stable.CONTEXT]
    both = Condition({stable.CONTEXT: context, stable.LATENTS: z})
    found = generator.latents([both], 3.0, [7], 4, strength=0.6)
    pipeline, _ = published("sd15-context", saved / "sd15-context")
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
    both = Condition({s: torch.zeros(s.shape) for s in (stable.CONTEXT, stable.LATENTS)})
    with pytest.raises(UserError, match=r"weights draw latents \(4, 8, 8\); name weights of 512"):
        made["sd15-context"].latents([both], 3.0, [7], 4)


# ---------------------------------------------------------------------------------------- contract


@pytest.mark.parametrize("name", FAMILIES)
def test_the_contract(name, made):
    generator = made[name]
    assert resolve(GENERATORS[name]) is FAMILIES[name] and isinstance(generator, Generator)
    one, two = given(name), given(name, 1)
    steps = list(generator.sweep(one, (3.0, 0.0, 1.0), 4, seed=5))
    done = {s.scale: s.image for s in steps if s.done}
    assert [(s.index, s.scale) for s in steps if s.done] == [(0, 3.0), (1, 0.0), (2, 1.0)]
    assert all(s.image.dtype == np.uint8 and s.image.shape[2] == 3 for s in steps)
    assert all(1 <= s.step <= s.steps == 4 for s in steps)
    assert done[3.0].shape == (16, 16, 3)
    previews = len(steps) - 3
    assert previews == (0 if name == "kandinsky" else 9)
    # the order of scales, and what else is in the sweep, changes nothing
    for step in generator.sweep(one, (1.0, 3.0), 4, seed=5):
        if step.done:
            assert np.abs(done[step.scale].astype(int) - step.image).max() <= 1
    # nor do other pictures in a batch
    alone = generator.latents([one], 3.0, [5], 4)
    among = generator.latents([two, one], 3.0, [9, 5], 4)
    torch.testing.assert_close(among[1:], alone, atol=1e-4, rtol=1e-4)
    assert (among[0] - alone[0]).abs().mean() > 0.05
    assert np.abs(generator.generate([one], 3.0, [5], 4)[0].astype(int) - done[3.0]).max() <= 1
    # without the brain, and with another one
    zero = generator.latents([one], 0.0, [5], 4)
    assert torch.equal(zero, generator.latents([two], 0.0, [5], 4))
    ones = generator.latents([one], 1.0, [5], 4)
    assert not torch.allclose(ones, generator.latents([two], 1.0, [5], 4), atol=1e-4)
    elsewhere = condition(EmbeddingSpace("elsewhere", "image", (4,)))
    with pytest.raises(UserError, match=f"{name} .*the mapper gave elsewhere/image; choose"):
        generator.generate([elsewhere], 1.0, [0], 2)
    with pytest.raises(UserError, match="Give one seed a condition: 1 and 2 found"):
        generator.generate([one], 1.0, [0, 1], 2)


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_scale_1_is_the_conditional_call_and_0_the_unconditional(name, made):
    generator = made[name]
    cond, null = generator._inputs(
        generator._embedding(given(name))[None],
        [given(name)],
        [source := torch.Generator().manual_seed(3)],
        generator._checked({}),
    )
    start = torch.randn((1, 4, SIDE, SIDE), generator=source)
    for scale, inputs in ((1.0, cond), (0.0, null)):
        latents, scheduler = start, DDIMScheduler.from_config(generator.scheduler)
        scheduler.set_timesteps(STEPS)
        for timestep in scheduler.timesteps:
            predicted = generator.unet(
                latents,
                timestep,
                inputs.get("context"),
                class_labels=inputs.get("class_labels"),
                added_cond_kwargs=generator._added(inputs) or None,
            ).sample[:, :4]
            latents = scheduler.step(predicted, timestep, latents).prev_sample
        found = generator.latents([given(name)], scale, [3], STEPS)
        torch.testing.assert_close(found, latents, atol=1e-5, rtol=1e-5)


def counted(generator, monkeypatch):
    rows, forward = [], generator.unet.forward

    def count(latents, *args, **kwargs):
        rows.append(len(latents))
        return forward(latents, *args, **kwargs)

    monkeypatch.setattr(generator.unet, "forward", count)
    return rows


def test_only_rows_that_matter_are_computed_and_stopping_stops(made, monkeypatch):
    generator = made["sd15-context"]
    rows, one = counted(generator, monkeypatch), given("sd15-context")
    list(generator.sweep(one, (0.0, 1.0, 2.0, 8.0), 4, 0))
    assert rows == [2, 6, 6, 6]
    rows.clear()
    list(generator.sweep(one, (0.0, 1.0, 2.0, 8.0), 4, 0, guidance_from=0.5, guidance_to=0.75))
    assert rows == [2, 4, 6, 4]  # outside the interval only scale 0 is without the brain
    rows.clear()
    sweep = generator.sweep(one, (2.0, 3.0), 8, 0)
    assert not next(sweep).done
    sweep.close()
    assert len(rows) == 2
    sweep = generator.sweep(one, (2.0, 3.0), 2, 0)
    first = next(step for step in sweep if step.done)  # stopped while the second is decoded
    sweep.close()
    full = [step.image for step in generator.sweep(one, (2.0, 3.0), 2, 0) if step.done]
    assert np.array_equal(first.image, full[0])


def test_an_interval_of_no_steps_is_plain_conditional_sampling(made):
    generator, one = made["ip-adapter"], [given("ip-adapter")]
    plain = generator.latents(one, 1.0, [3], 4)
    never = generator.latents(one, 9.0, [3], 4, guidance_to=0.0)
    torch.testing.assert_close(never, plain, atol=1e-5, rtol=1e-5)
    early = generator.latents(one, 9.0, [3], 4, guidance_to=0.5)
    assert not torch.allclose(early, plain, atol=1e-3)


def test_a_null_that_the_mapper_learned_is_what_scale_0_shows(made):
    generator, one = made["sd15-context"], given("sd15-context")
    learned = given("sd15-context", 4).embeddings
    with_null = Condition(one.embeddings, nulls=learned)
    expected = generator.latents([Condition(learned)], 1.0, [3], 3)
    found = generator.latents([one, with_null], 0.0, [3, 3], 3)
    torch.testing.assert_close(found[1:], expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-4)


def test_rescaled_predictions_have_the_unguided_contrast(made):
    generator = made["sd15-context"]
    cond, null = generator._inputs(torch.randn(3, 77, 768), [given("sd15-context")] * 3, [], {})
    latents, scale = noise(0).expand(3, -1, -1, -1), torch.tensor([0.0, 1.0, 12.0])
    with torch.no_grad():
        level = Level(torch.tensor(500), 0.5**0.5, 0.5**0.5, "epsilon")
        call = (latents, level, cond, null)
        plain, rescaled = (
            generator._prediction(*call, scale, {"rescale": share}, same=False)
            for share in (0.0, 1.0)
        )
        told = generator._prediction(*call, torch.ones(3), {"rescale": 0.0}, same=False)
    assert torch.equal(rescaled[:2], plain[:2])
    assert plain[2].std() > 1.05 * told[2].std()
    torch.testing.assert_close(rescaled[2].std(), told[2].std())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rescale": 1.5}, "rescale lies between 0 and 1, found 1.5"),
        ({"self_attention": -0.1}, "self_attention lies between 0 and 2, found -0.1"),
        ({"kappa": 1.0}, "sd15-context has no option 'kappa', it has guidance_from"),
        ({"strength": float("nan")}, "strength lies between 0 and 1, found nan"),
    ],
)
def test_options_out_of_range_are_refused(options, said, made):
    with pytest.raises(UserError, match=said):
        made["sd15-context"].generate([given("sd15-context")], 1.0, [0], 2, **options)
    for cls in FAMILIES.values():
        assert all(o.low <= o.default <= o.high and o.sentence.endswith(".") for o in cls.options)


def test_spaces_are_those_that_embedders_give():
    known = set()
    for cls in map(resolve, EMBEDDERS.values()):
        known |= {*cls.spaces, *getattr(cls, "text_spaces", ())}
    assert {space for cls in FAMILIES.values() for space in cls.accepts} <= known


# --------------------------------------------------------------------------------------- guidance

EYE = ViTB32.spaces[1]  # block 1


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """Write a ViT-B/32 with one block where guidance looks for it; return the checkpoints."""
    import open_clip

    root = tmp_path_factory.mktemp("eyes")
    folder = root / "embedders" / "ViT-B-32"
    folder.mkdir(parents=True)
    vision = {"image_size": 224, "layers": 1, "width": 768, "head_width": 64, "patch_size": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 4, "heads": 2, "layers": 1}
    sizes = {"embed_dim": 512, "vision_cfg": vision, "text_cfg": text}
    about = {"model_cfg": sizes, "preprocess_cfg": {"mean": [0.4] * 3, "std": [0.3] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        save_file(
            open_clip.model.CLIP(**sizes).state_dict(), folder / "open_clip_model.safetensors"
        )
    return root


def test_what_guidance_sees_is_what_the_embedder_gives(eyes):
    embedder = ViTB32(eyes)
    picture = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(picture).resize((96, 96), Image.BICUBIC))
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    for space in (EYE, ViTB32.spaces[0]):
        found, expected = embedder.see(pixels, space)[0], embedder.embed([picture], space)[0]
        alike = np.corrcoef(found.flatten().numpy(), expected.flatten())[0, 1]
        assert alike > 0.9999  # Pillow rounds to grey levels


@pytest.mark.parametrize("name", ["sd15-context", "unclip"])
def test_features_pull_the_expected_picture_and_nothing_where_they_are_off(
    name, saved, made, eyes
):
    generator = FAMILIES[name](eyes, source=saved / name)
    decoded = {EYE: torch.randn(EYE.shape, generator=torch.Generator().manual_seed(2))}
    one, two = (Condition({**given(name, seed).embeddings, **decoded}) for seed in (0, 1))
    plain = made[name].latents([given(name)], 3.0, [7], 3)
    off = generator.latents([one], 3.0, [7], 3)
    torch.testing.assert_close(off, plain, atol=1e-5, rtol=1e-5)

    def error(latents):
        with torch.no_grad():
            seen = generator._features[EYE](generator._decode(latents)).flatten()
        return (seen - decoded[EYE].flatten()).square().sum()

    how = {"feature_kappa": 0.5, "feature_eta": 1.0}
    for scale in (0.0, 3.0):
        without = generator.latents([one], scale, [7], 3)
        assert error(generator.latents([one], scale, [7], 3, **how)) < error(without), scale
    # a picture is the same alone, among others and in a sweep
    alone = generator.latents([one], 3.0, [7], 3, **how)
    among = generator.latents([two, one], 3.0, [9, 7], 3, **how)
    torch.testing.assert_close(among[1:], alone, atol=1e-3, rtol=1e-3)
    swept = [s.image for s in generator.sweep(one, (0.0, 3.0), 3, 7, **how) if s.done]
    shown = generator.generate([one], 3.0, [7], 3, **how)[0]
    assert np.abs(swept[1].astype(int) - shown).max() <= 2
    # only in the first steps, and in no step
    never = generator.latents([one], 3.0, [7], 3, **how | {"feature_eta": 0.0})
    torch.testing.assert_close(never, plain, atol=1e-5, rtol=1e-5)
    early = generator.latents([one], 3.0, [7], 3, **how | {"feature_eta": 0.34})
    assert not torch.allclose(early, plain, atol=1e-4)
    assert not torch.allclose(early, alone, atol=1e-4)


def test_what_pulls_must_be_there(saved, made, eyes, fakes, tmp_path):
    generator = made["sd15-context"]
    with pytest.raises(
        UserError, match="a weight above 0 for one of the decoded layers, which ar"
    ):
        generator.latents([given("sd15-context")], 3.0, [7], 2, feature_kappa=0.1)
    with pytest.raises(UserError, match="and this condition has none; choose a subject's trial"):
        generator.latents([given("sd15-context")], 3.0, [7], 2, brain_kappa=0.1)
    decoded = {**given("sd15-context").embeddings, EYE: torch.zeros(EYE.shape)}
    with pytest.raises(
        UserError, match="ViT-B-32 needs the weights of timm/vit_base_patch32_clip"
    ):
        generator.latents([Condition(decoded)], 3.0, [7], 2, feature_kappa=0.1, feature_eta=1.0)


def test_betas_pull_through_an_encoding_model_of_features(saved, eyes, fakes):
    from backends.encoders.voxelwise import Encoding, train_encoding

    trials = fakes.Study().load("sub-01")
    names = list(dict.fromkeys(trials.table["stimulus"]))
    image = ViTB32.spaces[0]
    rows = ViTB32(eyes).embed([fakes.picture(name) for name in names], image)
    known = {image: dict(zip(names, rows, strict=True))}
    folder = eyes / "encoding" / "fake" / "sub-01"
    train_encoding(trials, known, folder, command="made by a test", licence="CC0")
    generator = stable.StableContext(eyes, source=saved / "sd15-context")
    z, betas = given("sd15-context").embeddings, trials.average("test-03")
    trial = Condition(z, betas=betas, subject=trials.subject)
    encoder = Encoding.load(folder)
    loss = towards_betas(generator._features, [trial], [encoder])
    apart = []
    for kappa in (0.0, 0.5):
        latents = generator.latents([trial], 2.0, [3], 4, brain_kappa=kappa, brain_alpha=1.0)
        with torch.no_grad():
            apart.append(loss(generator._decode(latents)).item())
    assert apart[1] < apart[0] - 1e-3


# ----------------------------------------------------------------------------------- class names


def test_a_picture_is_drawn_from_the_class_name_of_the_nearest_picture(saved, made):
    generator, clip = made["sd15-label"], PocketClip(CHECKPOINTS)
    picture = np.asarray(Image.open(saved / "sd15-label" / "gallery" / "a_a_a" / "one.png"))
    one = Condition({POCKET: torch.from_numpy(clip.embed([picture], POCKET)[0])})
    for step in generator.sweep(one, (0.0, 3.0), 2, seed=4):
        assert step.note == (
            'drawn from the words "a a a" alone, the class of the nearest of 6 pictures in '
            "gallery; nothing else of the image was decoded"
        )
        assert len(step.neighbours) == 5
        assert step.neighbours[0][:2] == ("a_a_a/one.png", "a a a")
        assert step.neighbours[0].similarity == pytest.approx(1, abs=1e-4)
    assert step.done
    # what was decoded matters by that name alone
    near = Condition({POCKET: one.embeddings[POCKET] * 3})
    assert torch.equal(*(generator.latents([c], 3.0, [4], 2) for c in (one, near)))


def test_neighbours_vote(saved, made, tmp_path):
    shutil.copytree(saved / "sd15-label" / "gallery" / "a_a_a", tmp_path / "a" / "1")
    shutil.copytree(saved / "sd15-label" / "gallery" / "a_a", tmp_path / "a_a" / "1")
    shutil.copytree(saved / "sd15-label" / "gallery" / "a", tmp_path / "a_a" / "2")
    generator, clip = labelled(saved, tmp_path, tmp_path), PocketClip(CHECKPOINTS)
    picture = np.asarray(Image.open(tmp_path / "a" / "1" / "one.png"))
    one = Condition({POCKET: torch.from_numpy(clip.embed([picture], POCKET)[0])})
    assert generator.prompt(one)[0] == "a"
    words, found = generator.prompt(one, votes=3)
    assert words == "a a" and [n.label for n in found] == ["a", "a a", "a a"]
    assert "the class of most of the 3 nearest of 3 pictures" in (
        next(generator.sweep(one, (1.0,), 1, 0, votes=3)).note
    )
    with pytest.raises(UserError, match="votes lies between 1 and 25, found 26"):
        generator.prompt(one, votes=26)
    Image.fromarray(picture).save(tmp_path / "loose.png")
    with pytest.raises(UserError, match=r"1 of 4 pictures in .* have no class name \(first loose"):
        labelled(saved, tmp_path, tmp_path).prompt(one)


def test_training_stimuli_name_what_is_seen(saved, fakes, tmp_path):
    study, clip = fakes.Study(), PocketClip(CHECKPOINTS)
    source = saved / "sd15-label"
    generator = stable.StableLabel(CHECKPOINTS, source=source, cache=tmp_path)
    z = {POCKET: torch.from_numpy(clip.embed([study.image("train-31")], POCKET)[0])}
    trial = Condition(z, dataset=study, subject=study.load("sub-01").subject)
    words, found = generator.prompt(trial)
    assert (words, found[0].picture) == ("cold", "train-31")
    with pytest.raises(
        UserError, match="sd15-label looks among a data set's training stimuli, an"
    ):
        generator.prompt(Condition(z))
    with pytest.raises(UserError, match="nowhere holds no pictures .*one sub-folder a class"):
        stable.StableLabel(CHECKPOINTS, source=f"{source}?gallery={tmp_path / 'nowhere'}")
    absent = Condition({stable.StableLabel.accepts[0]: torch.zeros(768)}, *([None] * 4), study)
    with pytest.raises(UserError, match="ViT-L-14 needs the weights of timm/vit_large_patch14"):
        generator.prompt(absent)


# ------------------------------------------------------------------------------------------ memory


def test_a_batch_that_does_not_fit_is_made_in_parts(saved, tmp_path, monkeypatch):
    generator = stable.IPAdapter(tmp_path, source=saved / "ip-adapter")
    one, forward = given("ip-adapter"), generator.unet.forward
    expected = [s.image for s in generator.sweep(one, (1.0, 2.0, 3.0, 4.0), 2, 0) if s.done]
    room, tried = 2, []

    def small(latents, *args, **kwargs):
        tried.append(len(latents))
        if len(latents) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        return forward(latents, *args, **kwargs)

    monkeypatch.setattr(generator.unet, "forward", small)
    found = [s.image for s in generator.sweep(one, (1.0, 2.0, 3.0, 4.0), 2, 0) if s.done]
    assert tried == [2, 7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(expected, found, strict=True))
    room = 0
    with pytest.raises(UserError, match="ip-adapter ran out of memory on cpu with a single pict"):
        generator.generate([one], 2.0, [0], 2)
    monkeypatch.setattr(generator.unet, "forward", forward)

    def none_left(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(generator.decoder, "decode", none_left)
    with pytest.raises(UserError, match="use a device on which its weights"):
        generator.generate([one], 1.0, [0], 2)
    monkeypatch.setattr(generator.unet, "forward", lambda *a, **k: none_left.missing)
    with pytest.raises(AttributeError):  # a mistake of ours is not called a lack of memory
        generator.generate([one], 1.0, [0], 2)


def test_attention_that_a_batch_in_parts_pays_is_that_of_the_whole(made, monkeypatch):
    generator, forward, room = made["sd15-context"], made["sd15-context"].unet.forward, 99
    call = [given("sd15-context", seed) for seed in range(3)], 3.0, [1, 2, 3], 3
    expected = generator.latents(*call, self_attention=1.0)

    def small(latents, *args, **kwargs):
        made = forward(latents, *args, **kwargs)
        if len(latents) > room:  # after the attention was seen
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        return made

    monkeypatch.setattr(generator.unet, "forward", small)
    monkeypatch.setattr(generator, "_rows_at_once", generator._rows_at_once)
    room = 2
    found = generator.latents(*call, self_attention=1.0)
    assert generator._rows_at_once <= room
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("free", "placed"), [(10**12, "whole"), (2 * 10**7, "sliced"), (0, "offloaded")]
)
def test_little_memory_changes_where_weights_lie_and_no_picture(
    free, placed, saved, made, tmp_path, monkeypatch
):
    monkeypatch.setattr(weights, "free_memory", lambda device: free)
    monkeypatch.setattr(stable, "WORKING", 64 * 1.5e7)  # of the tiny models, by their side
    generator = stable.StableContext(tmp_path, source=saved / "sd15-context")
    said = " ".join(generator.remarks)
    assert (f"its UNet is {placed}" in said) == (placed != "whole")
    call = [given("sd15-context")], 3.0, [1], 2
    expected = made["sd15-context"].latents(*call, self_attention=0.5)
    found = generator.latents(*call, self_attention=0.5)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


# ----------------------------------------------------------------------------------------- weights


@pytest.fixture
def copied(saved, tmp_path):
    """Return a copy of the context family's weights that a test may damage, and how to open it."""
    shutil.copytree(saved / "sd15-context", tmp_path / "sd")
    return tmp_path / "sd", lambda: stable.StableContext(tmp_path, source=tmp_path / "sd")


@pytest.mark.parametrize("name", FAMILIES)
def test_missing_weights_are_one_sentence_with_command_and_size(name, tmp_path):
    cls = FAMILIES[name]
    with pytest.raises(UserError) as caught:
        cls(tmp_path)
    said, usual = str(caught.value), tmp_path / "generators" / name
    assert f"{name} needs unet/config.json of {cls.hub} ({cls.size} in all), and {usual} h" in said
    assert f"hf download {cls.hub} unet/config.json unet/diffusion_pytorch_model." in said
    assert f"--local-dir {usual}" in said and f"--generator {name}=PATH_OR_ID" in said
    if "ip-adapter" in name:
        assert f"&& hf download h94/IP-Adapter {'/'.join(cls.adapter)} --local-dir" in said
    if name == "kandinsky":
        assert "&& hf download kandinsky-community/kandinsky-2-2-prior image_encoder/conf" in said


def test_weights_in_the_usual_folder_and_in_half_precision_need_no_naming(saved, tmp_path):
    shutil.copytree(saved / "sd15-context", tmp_path / "generators" / "sd15-context")
    for path in (tmp_path / "generators" / "sd15-context").glob("*/*.safetensors"):
        half = {key: value.half() for key, value in load_file(path).items()}
        save_file(half, path.with_suffix(".fp16.safetensors"), {"format": "pt"})
        path.unlink()
    generator = stable.StableContext(tmp_path)
    assert generator.unet.dtype == torch.float32  # on a CPU
    before = generator.fingerprint
    (tmp_path / "generators" / "sd15-context" / "tokenizer" / "merges.txt").write_text("#version")
    assert len(before) == 16
    assert stable.StableContext(tmp_path).fingerprint != before


def test_a_safety_checker_is_not_used_and_that_is_said(copied):
    folder, opened = copied
    (folder / "safety_checker").mkdir()
    assert "does not use the safety checker" in opened().remarks[0]


def test_a_hub_id_brings_only_what_is_needed(saved, tmp_path, monkeypatch):
    asked = {}

    def download(repository, allow_patterns):
        asked[repository] = allow_patterns
        return str(saved / "kandinsky")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    generator = stable.Kandinsky(tmp_path, source="some/decoder")
    files = [*generator.weights.path(stable._part("", "")).glob("*/*.safetensors")]
    assert list(asked) == ["some/decoder", "kandinsky-community/kandinsky-2-2-prior"]
    wanted = [name for names in asked.values() for name in names]
    assert {"/".join(f.parts[-2:]) for f in files} <= set(wanted) and len(wanted) == 7


def test_neither_folder_nor_hub_id(tmp_path):
    with pytest.raises(UserError, match="--generator unclip=/no/where is neither a folder nor a"):
        stable.StableUnCLIP(tmp_path, source="/no/where")


def cut_short(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))


def other_type(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({"conv_in.weight": torch.zeros(3, dtype=torch.int8)}, path)


def other_width(folder):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cross_attention_dim": 1024}))


def lost_tensor(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["conv_in.weight"]
    save_file(state, path, {"format": "pt"})


def misshapen(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(path) | {"conv_in.weight": torch.zeros(3, 4, 3, 3)}, path)


def misshapen_text(folder):
    path = folder / "text_encoder" / "model.safetensors"
    (name,) = [key for key in load_file(path) if key.endswith("layers.0.mlp.fc1.weight")]
    save_file(load_file(path) | {name: torch.zeros(3, 2)}, path, {"format": "pt"})


def no_json(folder):
    (folder / "scheduler" / "scheduler_config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_short, "model.safetensors is damaged or was downloaded in part .*hf download stable"),
        (pickled, "has only diffusion_pytorch_model.bin, a pickle, .*safetensors with: hf downl"),
        (
            other_type,
            r"holds numbers of the type I8 \(first in conv_in.weight\), expected float32",
        ),
        (other_width, "another architecture than sd15-context needs: its cross_attention_dim is"),
        (lost_tensor, "cannot be loaded for sd15-context .*conv_in.weight is missing.*hf downlo"),
        (misshapen, "cannot be loaded for sd15-context .*conv_in.weight"),
        (misshapen_text, r"sd15-context .*fc1.weight has the shape \(3, 2\), expected \(16, 768"),
        (no_json, "scheduler_config.json cannot be read as JSON .*get it again with: hf downloa"),
    ],
)
def test_damaged_weights_are_named(damage, said, copied):
    folder, opened = copied
    damage(folder)
    with pytest.raises(UserError, match=said):
        opened()


def test_a_misshapen_tensor_is_named_without_accelerate_too(copied, monkeypatch):
    """Which of its two loaders diffusers takes, and so what it says, depends on that library."""
    folder, opened = copied
    misshapen(folder)
    monkeypatch.setattr("diffusers.models.modeling_utils.is_accelerate_available", lambda: False)
    with pytest.raises(UserError, match="cannot be loaded for sd15-context .*conv_in.weight"):
        opened()


def test_an_adapter_for_another_model_is_named(saved, tmp_path):
    shutil.copytree(saved / "ip-adapter", tmp_path / "ip")
    shutil.copy(
        saved / "ip-adapter-xl" / "sdxl_models" / "ip-adapter_sdxl_vit-h.safetensors",
        tmp_path / "ip" / "models" / "ip-adapter_sd15.safetensors",
    )
    with pytest.raises(UserError, match="cannot be loaded as an IP-Adapter of ip-adapter"):
        stable.IPAdapter(tmp_path, source=tmp_path / "ip")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "GatedRepo", "some/model .*is gated; accept its licence .*log in with: hf auth lo"),
        (401, "GatedRepo", "some/model .*is gated; accept its licence .*hf download stable-diff"),
        (404, "RepoNotFound", "some/model .*was not found; check the spelling"),
        (401, "", "some/model .*was not found; check the spelling .*if it is private"),
        (500, "", "some/model .*could not be downloaded .*PATH"),
    ],
)
def test_a_hub_that_refuses_is_explained(status, code, said, tmp_path, monkeypatch):
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Refuses)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    try:
        with pytest.raises(UserError, match=said):
            stable.StableContext(tmp_path, source="some/model")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# ---------------------------------------------------------------------------------------- previews

needs_taesd = pytest.mark.skipif(not TAESD.is_dir(), reason="taesd is not in ../shared/data")


@needs_taesd
@torch.inference_mode()
@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
def test_the_tiny_autoencoder_keeps_photographs(name):
    import skimage

    photograph = getattr(skimage.data, name)()[:256, :384]
    pixels = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    network = weights.taesd(TAESD)
    latents = network.encode(pixels).latents
    assert latents.shape == (1, 4, 32, 48)
    shown = stable._pixels(network.decode(latents).sample)[0]
    assert skimage.metrics.peak_signal_noise_ratio(photograph, shown) >= 20


@needs_taesd
@torch.inference_mode()
def test_colours_without_decoding_are_those_of_the_picture():
    """The linear factors that stand in for a tiny autoencoder, on latents of a photograph."""
    import skimage

    pixels = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 127.5 - 1
    latents = weights.taesd(TAESD).encode(pixels).latents
    rough = torch.einsum("nchw,cr->nrhw", latents, torch.tensor(stable.SD1_COLOURS))
    small = torch.nn.functional.avg_pool2d(pixels, 8)
    assert torch.corrcoef(torch.stack([rough.flatten(), small.flatten()]))[0, 1] > 0.9


@needs_taesd
def test_previews_are_decoded_by_a_tiny_autoencoder_where_there_is_one(saved, tmp_path):
    shutil.copytree(TAESD, tmp_path / "taesd")
    generator = stable.StableContext(tmp_path, source=saved / "sd15-context")
    steps = list(generator.sweep(given("sd15-context"), (1.0, 2.0), 4, 0))
    previews = [step for step in steps if not step.done]
    assert len(previews) == 6 and previews[0].image.shape == (8 * SIDE, 8 * SIDE, 3)


def test_a_damaged_tiny_autoencoder_is_named(tmp_path):
    (tmp_path / "taesd_encoder.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="hf download madebyollin/taesd config.json diffusion"):
        weights.taesd(tmp_path)
