"""Generators: the contract over the dict literal, and the sweep held to one plain call a scale."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionSAGPipeline

from backends import GENERATORS
from backends.generators.guidance import blur
from backends.generators.pixels import GRID
from backends.generators.pixels import Pixels as PixelsGenerator
from backends.generators.pocket import IMAGE, PocketDiffusion
from backends.simulation.scenes import render, sample_scenes
from explorer.metrics import pixcorr
from explorer.protocols import Condition, Generator
from explorer.types import EmbeddingSpace, UserError, resolve

SAG = sys.modules[StableDiffusionSAGPipeline.__module__]  # whose place depends on the version
CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"
SCALES = (0.0, 1.0, 2.0, 4.0, 8.0)


def condition(space, seed=0, **trial):
    values = torch.randn(space.shape, generator=torch.Generator().manual_seed(seed))
    return Condition({space: values}, **trial)


@pytest.fixture(scope="module")
def pocket():
    return PocketDiffusion(CHECKPOINTS)


# published pictures are read from files, and published weights do not ship:
# test_latent_diffusion.py
SHIPPED = [n for n, e in GENERATORS.items() if n != "published" and not hasattr(resolve(e), "hub")]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_generator_keeps_the_contract(name, fakes, monkeypatch, tmp_path):
    monkeypatch.setenv("AFTERIMAGE_CACHE", str(tmp_path))
    cls = resolve(GENERATORS[name])
    assert all(isinstance(space, EmbeddingSpace) for space in cls.accepts)
    assert cls.provenance in ("generated", "retrieved", "published")
    assert set(cls.needs) <= {"betas", "stimulus", "dataset"} and cls.default_steps >= 1
    generator = cls(CHECKPOINTS, "cpu")
    assert isinstance(generator, Generator)
    study = fakes.Study()
    trial = {"dataset": study, "subject": study.load("sub-01").subject} if cls.needs else {}
    given = condition(cls.accepts[0], **trial)
    steps = list(generator.sweep(given, (1.0, 3.0), 3, seed=5))
    done = [step for step in steps if step.done]
    assert [(s.index, s.scale) for s in done] == [(0, 1.0), (1, 3.0)]
    assert all(s.image.dtype == np.uint8 and s.image.shape[2] == 3 for s in steps)
    assert all(1 <= s.step <= s.steps == 3 for s in steps)
    many = generator.generate([condition(cls.accepts[0], 7, **trial), given], 3.0, [1, 5], 3)
    assert np.abs(many[1].astype(int) - done[1].image).mean() <= 1  # never depends on its batch
    other = EmbeddingSpace("elsewhere", "image", (4,))
    with pytest.raises(UserError, match=f"{name} .*the mapper gave elsewhere/image; choose"):
        generator.generate([condition(other)], 1.0, [0], 2)


def test_the_pocket_autoencoder_nearly_gives_back_a_scene(pocket):
    scene = render(sample_scenes(1, 3)[0])
    (found,) = pocket.autoencoded([scene])
    assert found.shape == scene.shape and pixcorr(scene, found) > 0.97
    assert pixcorr(scene, pocket.autoencoded([255 - scene])[0]) < -0.9  # of this image, no other


@torch.inference_mode()
def plain_call(pocket, given, scale, steps, seed, begin=0, rescale=0, self_attention=0):
    """One scale as a diffusers pipeline would do it: both rows at every step, one loop a scale.

    ``begin``: from which step on the scale counts. Self-attention guidance for noise, of which a
    flow's velocity is noise minus picture.
    """
    networks = pocket.networks
    scheduler = DPMSolverMultistepScheduler(**pocket.scheduler)
    scheduler.set_timesteps(steps)
    tokens = networks.condition(given.embeddings[IMAGE][None])
    context = torch.cat([networks.condition.null, tokens])
    latents = torch.randn((1, 16, 16, 16), generator=torch.Generator().manual_seed(seed))
    layer = networks.denoiser.mid_block.attentions[0].transformer_blocks[0].attn1
    for step, timestep in enumerate(scheduler.timesteps):
        rows = torch.cat([latents, latents])
        usual, layer.processor = layer.processor, SAG.CrossAttnStoreProcessor()
        uncond, cond = networks.velocity(rows, context, timestep.expand(2)).chunk(2)
        seen, layer.processor = layer.processor.attention_probs.float(), usual
        now = scale if step >= begin else min(scale, 1)
        velocity = uncond + now * (cond - uncond)
        if rescale and now not in (0, 1):
            same_contrast = velocity * cond.std() / velocity.std()
            velocity = rescale * same_contrast + (1 - rescale) * velocity
        if self_attention:
            sigma, row = scheduler.sigmas[step].item(), int(now == 1)
            base = cond if now == 1 else uncond
            noise, picture = latents + (1 - sigma) * base, latents - sigma * base
            blurred = blur(picture, seen.view(2, -1, *seen.shape[1:])[row].mean(0).sum(0)[None])
            noisy = (1 - sigma) * blurred + sigma * noise
            again = networks.velocity(noisy, context[row : row + 1], timestep.expand(1))
            found = noisy + (1 - sigma) * again
            towards = latents + (1 - sigma) * velocity + self_attention * (noise - found)
            velocity = (towards - latents) / (1 - sigma)
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
    pixels = networks.decode(latents).clamp(-1, 1)[0]
    return ((pixels + 1) * 127.5).round().permute(1, 2, 0).numpy()


def test_a_sweep_equals_one_plain_call_a_scale(pocket):
    given = condition(IMAGE, 3)
    done = [s for s in pocket.sweep(given, SCALES, 4, seed=11) if s.done]
    assert [s.scale for s in done] == list(SCALES)
    for step in done:
        plain = plain_call(pocket, given, step.scale, 4, seed=11)
        assert np.abs(plain - step.image).mean() <= 1, step.scale


@pytest.fixture(scope="module")
def usual(pocket):
    """Return pictures at scales 0, 1 and 4 without options."""
    swept = pocket.sweep(condition(IMAGE, 3), (0.0, 1.0, 4.0), 4, 11)
    return [step.image.astype(int) for step in swept if step.done]


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({"rescale": 0.7}, {"rescale": 0.7}),
        ({"self_attention": 1.0}, {"self_attention": 1.0}),
        ({"guidance_from": 0.25, "self_attention": 0.5}, {"begin": 1, "self_attention": 0.5}),
    ],
)
def test_rescale_interval_and_self_attention_are_those_of_a_plain_call(
    pocket, usual, options, plain
):
    given = condition(IMAGE, 3)
    done = [s for s in pocket.sweep(given, (0.0, 1.0, 4.0), 4, 11, **options) if s.done]
    for step in done:
        expected = plain_call(pocket, given, step.scale, 4, 11, **plain)
        assert np.abs(expected - step.image).mean() <= 1, step.scale
        (alone,) = pocket.generate([given], step.scale, [11], 4, **options)
        assert np.abs(alone.astype(int) - step.image).mean() <= 1, step.scale
    assert np.abs(done[2].image - usual[2]).mean() > 2
    changed = [
        np.abs(step.image - image).mean() > 0.2 for step, image in zip(done, usual, strict=True)
    ]
    assert changed[:2] == ["self_attention" in options] * 2


def test_in_no_step_scale_4_is_scale_1_and_options_off_change_nothing(pocket):
    given = condition(IMAGE, 3)
    one, four = (pocket.generate([given], scale, [11], 6)[0] for scale in (1.0, 4.0))
    never = pocket.generate([given], 4.0, [11], 6, guidance_to=0.0)[0]
    assert np.array_equal(one, never) and not np.array_equal(one, four)
    off = {"rescale": 0.0, "self_attention": 0.0, "guidance_from": 0.0, "guidance_to": 1.0}
    assert np.array_equal(four, pocket.generate([given], 4.0, [11], 6, **off)[0])


def test_an_image_is_the_same_whatever_else_is_in_the_sweep(pocket):
    given = condition(IMAGE, 3)
    together = {s.scale: s.image for s in pocket.sweep(given, SCALES, 4, 11) if s.done}
    for scales in ((4.0,), (8.0, 0.0), (2.0, 1.0, 6.0)):
        for step in pocket.sweep(given, scales, 4, 11):
            if step.done and step.scale in together:
                gap = np.abs(together[step.scale].astype(int) - step.image).mean()
                assert gap <= 1, (step.scale, scales)


def test_no_brain_at_scale_0_and_seeds_matter(pocket):
    def picture(given, scale, seed):
        return pocket.generate([given], scale, [seed], 6)[0].astype(int)

    one, two = condition(IMAGE, 1), condition(IMAGE, 2)
    assert np.array_equal(picture(one, 0.0, 4), picture(two, 0.0, 4))
    assert np.abs(picture(one, 3.0, 4) - picture(two, 3.0, 4)).mean() > 5
    assert np.abs(picture(one, 3.0, 4) - picture(one, 3.0, 5)).mean() > 1
    longer = Condition({IMAGE: one.embeddings[IMAGE] * 7})
    assert np.abs(picture(one, 3.0, 4) - picture(longer, 3.0, 4)).mean() < 1  # direction alone


def test_only_rows_that_matter_are_computed(pocket, monkeypatch):
    rows = []
    velocity = pocket.networks.velocity

    def counted(latents, tokens, timestep):
        rows.append(len(latents))
        return velocity(latents, tokens, timestep)

    monkeypatch.setattr(pocket.networks, "velocity", counted)
    list(pocket.sweep(condition(IMAGE), SCALES, 4, 0))
    assert rows == [2, 8, 8, 8]  # scale 0 and 1 one row each, three scales two rows
    rows.clear()
    list(pocket.sweep(condition(IMAGE), SCALES, 4, 0, guidance_from=0.5, self_attention=0.5))
    assert rows == [2, 2, 5, 5, 8, 5, 8, 5]  # once more a picture; early ones as at scale 1
    rows.clear()
    next(iterator := pocket.sweep(condition(IMAGE), SCALES, 40, 0))
    iterator.close()
    assert len(rows) == 10  # the first preview; closing stops the rest


def test_one_seed_a_condition(pocket):
    with pytest.raises(UserError, match="Give one seed a condition: 1 and 2 found"):
        pocket.generate([condition(IMAGE)], 1.0, [0, 1], 2)


def test_the_grid_is_shown_as_it_is():
    grid = torch.zeros(100)
    grid[1], grid[10], grid[99] = 1.0, 2.0, -1.0  # clipped to white and black
    (image,) = PixelsGenerator().generate([Condition({GRID: grid})], 1.0, [0], 1)
    assert image.shape == (160, 160, 3)
    assert (image[:16, 16:32] == 255).all() and (image[16:32, :16] == 255).all()
    assert image.sum() == 2 * 16 * 16 * 3 * 255
