"""The contract of Stable Diffusion's families on tiny models: rows, scales, nulls, options."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from backends import EMBEDDERS, GENERATORS
from backends.generators.guidance import Level
from backends.generators.latent_diffusion import SD1_COLOURS, LatentDiffusion
from backends.generators.weights import taesd
from explorer.metrics import match_size
from explorer.protocols import Condition, Generator
from explorer.types import EmbeddingSpace, UserError, resolve

FAMILIES = {
    name: cls
    for name, entry in GENERATORS.items()
    if issubclass(cls := resolve(entry), LatentDiffusion)
    and name not in ("mind-vis", "neurolens")  # of one file each: test_mindvis.py
}
# Whose steps are not spaced by diffusers; its sampler is held to another in test_sdxl_unclip.py
SPACED = [name for name in FAMILIES if name != "sdxl-unclip"]
TAESD = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "taesd"
SIDE = 8  # latents of the tiny models
STEPS = 3


def noise(seed, side=SIDE):
    return torch.randn((1, 4, side, side), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_contract(name, made, given):
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
    elsewhere = Condition({EmbeddingSpace("elsewhere", "image", (4,)): torch.zeros(4)})
    with pytest.raises(UserError, match=f"{name} .*the mapper gave elsewhere/image; choose"):
        generator.generate([elsewhere], 1.0, [0], 2)
    with pytest.raises(UserError, match="Give one seed a condition: 1 and 2 found"):
        generator.generate([one], 1.0, [0, 1], 2)


@torch.no_grad()
@pytest.mark.parametrize("name", SPACED)
def test_scale_1_is_the_conditional_call_and_0_the_unconditional(name, made, given):
    generator = made[name]
    cond, null = generator._inputs(
        generator._decoded(given(name))[1][None],
        [given(name)],
        [source := torch.Generator().manual_seed(3)],
        generator._chosen({}),
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


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_an_autoencoder_gives_back_what_its_latents_keep(name, made):
    generator = made[name]
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    found = generator.autoencoded([image, image])
    assert found.shape == (2, 16, 16, 3) and found.dtype == np.uint8
    small = torch.from_numpy(match_size(image, 16, 16).copy()).permute(2, 0, 1)[None]
    rows, vae = small.float() / 127.5 - 1, generator.decoder
    if name == "kandinsky":
        by_hand = vae.decode(vae.encode(rows).latents, force_not_quantize=True).sample
    else:
        by_hand = vae.decode(vae.encode(rows).latent_dist.mean).sample
    expected = by_hand.clamp(-1, 1).add(1).mul(127.5).round()[0].permute(1, 2, 0)
    assert np.abs(found[1].astype(int) - expected.numpy()).max() <= 1


def counted(generator, monkeypatch):
    rows, forward = [], generator.unet.forward

    def count(latents, *args, **kwargs):
        rows.append(len(latents))
        return forward(latents, *args, **kwargs)

    monkeypatch.setattr(generator.unet, "forward", count)
    return rows


def test_only_rows_that_matter_are_computed_and_stopping_stops(made, monkeypatch, given):
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


def test_an_interval_of_no_steps_is_plain_conditional_sampling(made, given):
    generator, one = made["ip-adapter"], [given("ip-adapter")]
    plain = generator.latents(one, 1.0, [3], 4)
    never = generator.latents(one, 9.0, [3], 4, guidance_to=0.0)
    torch.testing.assert_close(never, plain, atol=1e-5, rtol=1e-5)
    early = generator.latents(one, 9.0, [3], 4, guidance_to=0.5)
    assert not torch.allclose(early, plain, atol=1e-3)


def test_a_null_that_the_mapper_learned_is_what_scale_0_shows(made, given):
    generator, one = made["sd15-context"], given("sd15-context")
    learned = given("sd15-context", 4).embeddings
    with_null = Condition(one.embeddings, nulls=learned)
    expected = generator.latents([Condition(learned)], 1.0, [3], 3)
    found = generator.latents([one, with_null], 0.0, [3, 3], 3)
    torch.testing.assert_close(found[1:], expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-4)


def test_rescaled_predictions_have_the_unguided_contrast(made, given):
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
def test_options_out_of_range_are_refused(options, said, made, given):
    with pytest.raises(UserError, match=said):
        made["sd15-context"].generate([given("sd15-context")], 1.0, [0], 2, **options)
    for cls in FAMILIES.values():
        assert all(o.low <= o.default <= o.high and o.sentence.endswith(".") for o in cls.options)


def test_spaces_are_those_that_embedders_give():
    known = set()
    for cls in map(resolve, EMBEDDERS.values()):
        known |= {*cls.spaces, *getattr(cls, "text_spaces", ())}
    assert {space for cls in FAMILIES.values() for space in cls.accepts} <= known


@pytest.mark.parametrize("name", ["sd15-context", "unclip"])
def test_self_attention_guidance_depends_on_no_other_row(name, made, monkeypatch, given):
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


needs_taesd = pytest.mark.skipif(not TAESD.is_dir(), reason="taesd is not in ../shared/data")


@needs_taesd
@torch.inference_mode()
def test_colours_without_decoding_are_those_of_the_picture():
    """The linear factors that stand in for a tiny autoencoder, on latents of a photograph."""
    import skimage

    photograph = skimage.data.astronaut()[:256, :256].copy()
    pixels = torch.from_numpy(photograph).permute(2, 0, 1)[None] / 127.5 - 1
    latents = taesd(TAESD).encode(pixels).latents
    rough = torch.einsum("nchw,cr->nrhw", latents, torch.tensor(SD1_COLOURS))
    small = torch.nn.functional.avg_pool2d(pixels, 8)
    assert torch.corrcoef(torch.stack([rough.flatten(), small.flatten()]))[0, 1] > 0.9
