"""MinD-Vis' and NeuroLens' files: names, sampler, null, and the latents of the authors' code."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from backends.generators.ddim import DDIM, PLMS
from backends.generators.finetuned_weights import NEUROLENS
from backends.generators.mindvis import MindVis, NeuroLens
from explorer.protocols import Condition, Generator
from explorer.types import UserError
from tests.miniatures import mindvis as miniature
from tests.miniatures.mindvis import SIDE, Small

# Drawn by the authors' own networks and sampler (zjc062/mind-vis, code/dc_ldm) from the small
# file, the same noise and 5 steps: latents [:, 3, 5] by scale; at 0 they were given zeros alone
THEIRS = {
    0.0: (12.894891738891602, 13.869214057922363, -15.084383964538574),
    0.5: (13.26719856262207, 13.972853660583496, -13.700132369995117),
    1.0: (13.589826583862305, 14.213526725769043, -12.39810562133789),
    3.0: (14.86779499053955, 15.355585098266602, -8.5864896774292),
}


@pytest.fixture(scope="module")
def drawn(made):
    return made["mind-vis"]


@pytest.fixture(scope="module")
def lens(made):
    return made["neurolens"]


def given(cls, seed=1):
    (space,) = cls.accepts
    values = torch.randn(space.shape, generator=torch.Generator().manual_seed(seed))
    return Condition({space: values})


def test_latents_and_pictures_are_those_of_the_authors_code(drawn):
    assert isinstance(drawn, Generator) and drawn.default_steps == 250
    for scale, theirs in THEIRS.items():
        latents = drawn.latents([given(MindVis)], scale, [7], 5)
        torch.testing.assert_close(latents[0, :, 3, 5], torch.tensor(theirs), atol=1e-3, rtol=0)
    (picture,) = drawn.generate([given(MindVis)], 1.0, [7], 5)
    assert picture.shape == (16, 16, 3)
    assert (
        np.abs(picture[0, :3] - np.array([[75, 93, 99], [106, 108, 94], [175, 39, 78]])).max() <= 1
    )
    ramp = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)
    encoded = (0.9305137991905212, -0.5659462213516235, -0.8327124118804932)
    with torch.no_grad():
        found = drawn._encode(ramp)[0, :, 3, 5]
    torch.testing.assert_close(found, torch.tensor(encoded), atol=1e-4, rtol=0)


def test_steps_lie_as_published_where_they_divide_the_training_s(drawn):
    for steps in (5, 50, 250, 1000):
        published = sorted((k + 1 for k in range(0, 1000, 1000 // steps)), reverse=True)
        published = [min(t, 999) for t in published]  # theirs runs over the end at 1000 steps
        assert drawn._sampler(steps).timesteps == published
    assert len(drawn._sampler(30).timesteps) == 30


def test_the_extrapolated_steps_are_of_fourth_order_and_the_first_asks_twice(drawn):
    """Of a prediction that is a straight line in the step, Adams and Bashforth take the middle."""
    sampler, asked = PLMS(drawn.scheduler, 6, [901, 741, 581, 421, 261, 101]), []
    plain = DDIM(drawn.scheduler, 6, sampler.timesteps)
    latents = torch.zeros(1, 3, 2, 2)

    def again(noisy, step):
        asked.append(step)
        return torch.full_like(noisy, float(step))

    for step in range(6):
        found, _ = sampler.step(latents, torch.full_like(latents, float(step)), step, again)
        expected, _ = plain.step(latents, torch.full_like(latents, step + 0.5), step)
        torch.testing.assert_close(found, expected)
    assert asked == [1]


def test_what_else_is_drawn_changes_nothing(drawn, lens):
    for generator, cls in ((drawn, MindVis), (lens, NeuroLens)):
        one, two = given(cls), given(cls, 2)
        swept = {s.scale: s.image for s in generator.sweep(one, (3.0, 0.0, 1.0), 4, 5) if s.done}
        alone = generator.latents([one], 3.0, [5], 4)
        among = generator.latents([two, one], 3.0, [9, 5], 4)
        torch.testing.assert_close(among[1:], alone, atol=1e-4, rtol=1e-4)
        for scale, image in swept.items():
            shown = generator.generate([one], scale, [5], 4)[0]
            assert np.abs(shown.astype(int) - image).max() <= 1, scale
        zero = generator.latents([one], 0.0, [5], 4)
        assert torch.equal(zero, generator.latents([two], 0.0, [5], 4))
        learned = Condition(one.embeddings, nulls=two.embeddings)
        found = generator.latents([learned], 0.0, [5], 4)
        expected = generator.latents([two], 1.0, [5], 4)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert (found - zero).abs().mean() > 1e-3
        assert torch.equal(generator.latents([learned], 0.0, [5], 4, zero_null=1), zero)


@torch.inference_mode()
def test_neurolens_draws_as_its_code_with_diffusers(lens):
    """DDIM on the schedule of Stable Diffusion 1.5 with both rows, zeros without the brain."""
    state = miniature.neurolens()
    networks = []
    for cls, begin in ((UNet2DConditionModel, "unet."), (AutoencoderKL, "vae.")):
        folder = "unet" if cls is UNet2DConditionModel else "vae"
        part = next(part for part in lens.weights.parts if part.folder == folder)
        config = lens.weights.config(part)
        network = cls(**config).eval()
        own = {k.removeprefix(begin): v for k, v in state.items() if k.startswith(begin)}
        network.load_state_dict(own)
        networks.append(network)
    unet, vae = networks
    scheduler = DDIMScheduler.from_config(dict(NEUROLENS.schedule))
    scheduler.set_timesteps(4)
    context = given(NeuroLens).embeddings[NeuroLens.accepts[0]]
    both = torch.stack([torch.zeros_like(context), context])
    z = torch.randn((1, 4, SIDE, SIDE), generator=torch.Generator().manual_seed(7))
    for timestep in scheduler.timesteps:
        without, told = unet(torch.cat([z, z]), timestep, both).sample.chunk(2)
        z = scheduler.step(without + 3.0 * (told - without), timestep, z).prev_sample
    found = lens.latents([given(NeuroLens)], 3.0, [7], 4)
    torch.testing.assert_close(found, z, atol=1e-4, rtol=1e-4)
    shown = vae.decode(z / 0.18215).sample.clamp(-1, 1).add(1).mul(127.5)[0].permute(1, 2, 0)
    (picture,) = lens.generate([given(NeuroLens)], 3.0, [7], 4)
    assert np.abs(picture - shown.numpy()).max() <= 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.diffusion_model.out.2.bias": None}, "it lacks what conv_out.bias would be"),
        ({"model.diffusion_model.extra.0.weight": torch.zeros(2, 2)}, "extra.0.weight has no pla"),
        ({"somewhere.weight": torch.zeros(2)}, "nothing is known of somewhere.weight"),
        ({"betas": torch.linspace(1e-4, 0.02, 1000)}, "its noise schedule is not the published"),
        (
            {"model.diffusion_model.time_embed_condtion.2.bias": torch.zeros(3)},
            "tells its network the context in another way",
        ),
        (
            {"first_stage_model.quantize.embedding.weight": torch.zeros(16, 4)},
            "post_quant_conv.weight has the shape",
        ),
    ],
)
def test_a_file_that_is_not_as_published_is_refused(changes, said, tmp_path):
    miniature.save(tmp_path, miniature.state(), changes)
    with pytest.raises(UserError, match=said):
        Small(tmp_path, source=tmp_path)


def test_without_its_time_conditioning_the_context_is_attended_to_alone(tmp_path, drawn):
    miniature.save(tmp_path, miniature.state(told=False))
    plain = Small(tmp_path, source=tmp_path)
    found = plain.latents([given(MindVis)], 1.0, [7], 3)
    assert (found - drawn.latents([given(MindVis)], 1.0, [7], 3)).abs().mean() > 1e-2


def test_an_absent_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="mind-vis needs the file finetuned.pth of zjc062"):
        MindVis(tmp_path)
