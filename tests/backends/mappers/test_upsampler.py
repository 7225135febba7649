"""MindEye2's low-level branch: every published tensor has its place and gives what it gave."""

import pytest
import torch
from diffusers.models.autoencoders.vae import Decoder

from backends.mappers.parts.upsampler import UpsamplerHead, places, published_sizes
from explorer.types import UserError

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
