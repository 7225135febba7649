"""MindEye2's low-level branch: every published tensor has its place and gives what it gave."""

import pytest
import torch
from diffusers.models.autoencoders.vae import Decoder

from backends.embedders.published import LowLevelLatents
from backends.mappers.mixer import Mixer
from backends.mappers.parts.upsampler import UpsamplerHead, places, published_sizes
from explorer.types import EmbeddingSpace, UserError
from tests.miniatures.checkpoints import V, mindeye2

(LOW,) = LowLevelLatents.spaces
H = 6  # numbers of the trunk, as published 4096


@pytest.fixture(scope="module")
def published():
    """Return the branch of models.py at its own sizes, but for the trunk's, and its state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        branch = torch.nn.Module()
        branch.blin1 = torch.nn.Linear(H, 4 * 28 * 28)
        branch.bnorm = torch.nn.GroupNorm(1, 64)
        branch.bupsampler = Decoder(
            in_channels=64,
            out_channels=4,
            up_block_types=["UpDecoderBlock2D"] * 3,
            block_out_channels=[32, 64, 128],
            layers_per_block=1,
        )
        for parameter in branch.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape)
    return branch.eval(), {f"backbone.{name}": z for name, z in branch.state_dict().items()}


def ours(state):
    sizes, shape = published_sizes(state)
    head = UpsamplerHead(H, shape, **sizes)
    names = places(sizes, shape, "heads.1")
    assert set(names) == set(state)
    head.load_state_dict({names[name][len("heads.1.") :]: z for name, z in state.items()})
    return head, sizes, shape


@torch.no_grad()
def test_published_weights_give_the_published_latents(published):
    branch, state = published
    head, sizes, shape = ours(state)
    assert shape == (4, 28, 28)
    assert sizes == {"channels": 64, "side": 7, "widths": [32, 64, 128], "layers": 1}
    x = torch.randn(3, H, generator=torch.Generator().manual_seed(1))
    small = branch.bnorm(branch.blin1(x).reshape(3, -1, 7, 7))
    expected = branch.bupsampler(small)
    assert expected.std() > 0.01
    torch.testing.assert_close(head(x), expected, atol=1e-5, rtol=1e-5)


def test_a_branch_that_is_not_whole_is_named(published):
    state = dict(published[1])
    del state["backbone.bnorm.weight"]
    with pytest.raises(UserError, match="part of MindEye2's low-level branch and lacks backbone"):
        published_sizes(state)
    state = dict(published[1])
    state["backbone.bupsampler.up_blocks.0.resnets.0.conv1.weight"] = torch.zeros(33, 128, 3, 3)
    with pytest.raises(UserError, match=r"has \[33, 64, 32\] channels in 2 blocks a level, expec"):
        published_sizes(state)


@torch.no_grad()
def test_a_converted_mapper_gives_tokens_and_latents(published, tmp_path):
    from tests.miniatures.checkpoints import D, H, T  # the trunk of those

    branch, state = published
    linear = 0.1 * torch.randn(4 * 28 * 28, H, generator=torch.Generator().manual_seed(2))
    state = mindeye2() | state | {"backbone.blin1.weight": linear}
    people, space = dict(zip(("one", "two"), V, strict=True)), EmbeddingSpace("x", "y", (T, D))
    mapper, left_out = Mixer.from_published(state, people, space, low=LOW)
    assert mapper.targets == (space, LOW) and left_out == ()
    betas = torch.randn(3, V[0], generator=torch.Generator().manual_seed(3))
    found = mapper(betas, "one")
    shared = mapper.shared(mapper.layer(betas, "one"))
    small = branch.bnorm((shared @ linear.T + state["backbone.blin1.bias"]).reshape(3, -1, 7, 7))
    torch.testing.assert_close(found[LOW], branch.bupsampler(small), atol=1e-4, rtol=1e-4)
    alone, named = Mixer.from_published(state, people, space)
    torch.testing.assert_close(found[space], alone(betas, "one")[space])
    assert [name.split(" ")[0] for name in named] == [
        *("backbone.blin1", "backbone.bnorm", "backbone.bupsampler"),
    ]
    other = EmbeddingSpace("sd-vae", "latents", (4, 64, 64))
    with pytest.raises(UserError, match=r"gives latents of shape \(4, 28, 28\), sd-vae/lat"):
        Mixer.from_published(state, people, space, low=other)
    again = Mixer(mapper.targets, people, **mapper.architecture)  # as from a card
    again.load_state_dict(mapper.state_dict())
    assert torch.equal(again(betas, "one")[LOW], found[LOW])
    del state["backbone.bupsampler.conv_norm_out.bias"]
    with pytest.raises(UserError, match="missing are backbone.bupsampler.conv_norm_out.bias;"):
        Mixer.from_published(state, people, space, low=LOW)


def test_the_command_takes_the_branch_where_the_file_has_it(published, tmp_path):
    from backends.commands.import_checkpoint import convert
    from tests.miniatures.checkpoints import PEOPLE, TOKENS, H, saved

    state = mindeye2() | published[1] | {"backbone.blin1.weight": torch.zeros(4 * 28 * 28, H)}
    found = saved(tmp_path / "last.pth", state)
    known = {space.name: space for space in (TOKENS, LOW)}
    mapper, card, left_out = convert(
        found, PEOPLE, TOKENS.name, title="low", command="a test", known=known
    )
    assert card.targets == mapper.targets == (TOKENS, LOW) and left_out == ()
    mapper.save_pretrained(tmp_path / "low", card)
    again = type(mapper).from_pretrained(tmp_path / "low")
    assert [type(head).__name__ for head in again.heads] == ["TokenHead", "UpsamplerHead"]
    betas = torch.ones(1, PEOPLE[0].voxels.n_voxels)
    with torch.no_grad():
        one, two = (which(betas, PEOPLE[0].name)[LOW] for which in (mapper, again))
    torch.testing.assert_close(one, two, atol=2e-2, rtol=2e-2)
