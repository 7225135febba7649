"""DDIM on the configuration that any scheduler saves, against diffusers' own pipelines."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)

from backends import GENERATORS
from backends.generators.ddim import DDIM, read_schedule
from backends.generators.sd15_context import StableContext
from explorer.types import UserError, resolve

# published in folders, each with the configuration of some scheduler
SAVED = (
    *("sd15-context", "unclip", "kandinsky", "ip-adapter", "ip-adapter-xl"),
    *("sdxl-unclip", "versatile"),
)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STEPS = 4  # 999 is a multiple of one less, so Euler's evenly spaced times are whole numbers


@pytest.fixture
def saved_with(saved, tmp_path):
    """Return what gives the context family's folder with a scheduler as diffusers saves it."""

    def folder(scheduler):
        copy = tmp_path / "sd"
        shutil.copytree(saved / "sd15-context", copy)
        (copy / "scheduler" / "scheduler_config.json").unlink()
        scheduler.save_pretrained(copy / "scheduler")
        return copy

    return folder


def pipeline(generator, folder, scheduler):
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    parts = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    made = StableDiffusionPipeline(
        vae=vae, unet=generator.unet, scheduler=scheduler, **parts, requires_safety_checker=False
    )
    made.set_progress_bar_config(disable=True)
    return made


@torch.inference_mode()
@pytest.mark.parametrize(
    "cls",
    [
        *(EulerDiscreteScheduler, EulerAncestralDiscreteScheduler),
        *(DPMSolverMultistepScheduler, UniPCMultistepScheduler, PNDMScheduler),
    ],
)
def test_latents_are_those_of_the_published_pipeline_whichever_scheduler_was_saved(
    cls, saved_with, given, tmp_path
):
    """Euler's method on the same schedule is DDIM, by other formulas, and clips nothing."""
    folder = saved_with(cls(**BETAS, steps_offset=1))  # 0 is outdated to the pipeline
    assert "clip_sample" not in json.loads(
        (folder / "scheduler" / "scheduler_config.json").read_text()
    )
    generator, one = StableContext(tmp_path, source=folder), given("sd15-context")
    found = generator.latents([one], 3.0, [7], STEPS)
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(7))
    saved = cls.from_pretrained(folder / "scheduler").config
    if cls is PNDMScheduler:  # its last step does not end at no noise, as Euler's does
        scheduler = DDIMScheduler.from_config(saved, clip_sample=False)
    else:
        scheduler = EulerDiscreteScheduler.from_config(saved)
        scheduler.set_timesteps(STEPS)
        most = scheduler.sigmas[0].item()  # it begins with noise of this size, not of one
        noise = noise * (1 + most**2) ** 0.5 / most
    (z,) = one.embeddings.values()
    expected = pipeline(generator, folder, scheduler)(
        prompt_embeds=z[None],
        negative_prompt_embeds=generator._null[None],
        latents=noise,
        guidance_scale=3.0,
        num_inference_steps=STEPS,
        output_type="latent",
    )[0]
    assert expected.abs().max() > 1.5  # what would be clipped
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", SAVED)
def test_no_family_clips_latents_unless_its_configuration_says_so(name, saved, tmp_path):
    """Of a configuration without ``clip_sample``, for which DDIM itself would clip."""
    shutil.copytree(saved / name, tmp_path / name)
    file = tmp_path / name / "scheduler" / "scheduler_config.json"
    said = json.loads(file.read_text())
    said.pop("clip_sample", None)
    file.write_text(json.dumps(said))
    generator = resolve(GENERATORS[name])(tmp_path, source=tmp_path / name)
    latents, prediction = torch.full((2, 1, *generator.latent_shape), 9.0)
    _, clean = generator._sampler(3).step(latents, -prediction, 1)
    assert clean.max() > 5


def test_a_configuration_that_says_to_clip_is_heeded():
    generator = torch.Generator().manual_seed(0)
    latents, prediction = torch.randn((2, 1, 4, 8, 8), generator=generator)
    for clips in (True, False):
        scheduler = DDIMScheduler(**BETAS, clip_sample=clips, clip_sample_range=0.5)
        scheduler.set_timesteps(10)
        ddim = DDIM(read_schedule(dict(scheduler.config), "file", "name others"), 10)
        assert ddim.timesteps == scheduler.timesteps.tolist()
        expected = scheduler.step(prediction, scheduler.timesteps[3], latents)
        found, clean = ddim.step(latents, prediction, 3)
        torch.testing.assert_close(found, expected.prev_sample)
        torch.testing.assert_close(clean, expected.pred_original_sample)
        assert (clean.abs().max() <= 0.5) == clips


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_leads_to_the_picture_at_each_level(spacing, kind):
    """With the true noise predicted, every step is the picture with as much noise as is told."""
    config = {**BETAS, "timestep_spacing": spacing, "prediction_type": kind}
    ddim = DDIM(read_schedule(config, "file", "name others"), 7)
    generator = torch.Generator().manual_seed(0)
    picture, noise = torch.randn((2, 1, 4, 8, 8), generator=generator)
    latents = ddim.noised(picture, noise, 0)
    for step in range(7):
        level = ddim.level(step)
        kept = DDPMScheduler(**BETAS).alphas_cumprod[ddim.timesteps[step]].item()
        np.testing.assert_allclose([level.signal, level.noise], [kept**0.5, (1 - kept) ** 0.5])
        torch.testing.assert_close(latents, level.signal * picture + level.noise * noise)
        true = noise if kind == "epsilon" else level.signal * noise - level.noise * picture
        latents, clean = ddim.step(latents, true, step)
        torch.testing.assert_close(clean, picture, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(latents, picture, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            json.loads(EDMEulerScheduler().to_json_string()),
            r"says no beta_start \(its class is EDMEulerScheduler\)",
        ),
        (dict(FlowMatchEulerDiscreteScheduler().config), "says no beta_start .*DDIM, which needs"),
        (
            {**BETAS, "prediction_type": "flow_prediction"},
            "predicts 'flow_prediction' on a schedule of its own; .*; name others",
        ),
        (
            dict(UniPCMultistepScheduler(**BETAS, use_flow_sigmas=True).config),
            "on a schedule of its own",
        ),
        ({**BETAS, "prediction_type": "sample"}, "for a network that predicts 'sample'"),
        ({**BETAS, "thresholding": True}, "thresholds pixels, and here are none"),
        ({**BETAS, "num_train_timesteps": 10**12}, "has 1000000000000 num_train_timesteps"),
        ({**BETAS, "num_train_timesteps": "many"}, "has 'many' num_train_timesteps"),
        ({**BETAS, "beta_schedule": "magic"}, r"does not fit \(NotImplementedError: magic is"),
        ({**BETAS, "beta_start": "a"}, r"does not fit \(TypeError: "),
        ({**BETAS, "timestep_spacing": "odd"}, r"does not fit \(ValueError: odd is not supp"),
    ],
)
def test_a_schedule_that_is_none_of_ddim_is_refused(config, said):
    with pytest.raises(UserError, match=f"^a/file .*{said}"):
        read_schedule(config, "a/file", "name others")
