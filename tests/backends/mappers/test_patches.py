"""Patches of voxels and the encoder that reads them: MinD-Vis' own weights, orders, positions."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from backends.mappers.masked import Masked
from backends.mappers.parts.patches import order_of_voxels, published_encoder, sine_positions
from explorer.types import Label, Parcellation, Subject, UserError, VoxelSpace
from tests.backends.mappers.toy_masked import planted, save

WIDTH, HEADS, DEPTH, PATCH, LENGTH = 8, 2, 2, 4, 5


def published_state(prefix=""):
    """Names and shapes of MinD-Vis' `MAEforFMRI` in miniature, with random weights."""
    block = {"norm1": (WIDTH,), "attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
    block |= {"norm2": (WIDTH,), "mlp.fc1": (2 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 2 * WIDTH)}
    shapes = {"cls_token": (1, 1, WIDTH), "pos_embed": (1, LENGTH + 1, WIDTH)}
    shapes |= {"patch_embed.proj.weight": (WIDTH, 1, PATCH), "patch_embed.proj.bias": (WIDTH,)}
    for i in range(DEPTH):
        for name, shape in block.items():
            shapes[f"blocks.{i}.{name}.weight"] = shape
            shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
    shapes |= {"norm.weight": (WIDTH,), "norm.bias": (WIDTH,), "mask_token": (1, 1, 4)}
    shapes |= {"decoder_embed.weight": (4, WIDTH), "decoder_blocks.0.norm1.weight": (4,)}
    shapes |= {"decoder_pos_embed": (1, LENGTH + 1, 4), "nature_img_mask_token": (1, 1, 4)}
    rng = torch.Generator().manual_seed(3)
    return {prefix + k: torch.randn(s, generator=rng) for k, s in shapes.items()}


def published_forward(w, voxels, kept=None, class_token=True):
    """MinD-Vis' forward pass in plain operations: voxels (n, 1, LENGTH * PATCH) -> tokens."""
    x = functional.conv1d(
        voxels, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=PATCH
    ).transpose(1, 2)
    x = x + w["pos_embed"][:, 1:]
    if kept is not None:
        x = torch.stack([row[k] for row, k in zip(x, kept, strict=True)])
    if class_token:
        first = (w["cls_token"] + w["pos_embed"][:, :1]).repeat(len(x), 1, 1)
        x = torch.cat([first, x], 1)

    def norm(z, name):
        z = z - z.mean(-1, keepdim=True)
        z = z / (z.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return z * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(z, name):
        return z @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    size = WIDTH // HEADS
    for i in range(DEPTH):
        at = f"blocks.{i}"
        qkv = linear(norm(x, f"{at}.norm1"), f"{at}.attn.qkv")
        found = []
        for h in range(HEADS):
            q, k, v = (qkv[..., j * WIDTH + h * size :][..., :size] for j in range(3))
            found.append(torch.softmax(q @ k.transpose(1, 2) / size**0.5, -1) @ v)
        x = x + linear(torch.cat(found, -1), f"{at}.attn.proj")
        hidden = linear(norm(x, f"{at}.norm2"), f"{at}.mlp.fc1")
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
        x = x + linear(hidden, f"{at}.mlp.fc2")
    return norm(x, "norm")


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "cond_stage_model.mae."])
def test_a_published_encoder_computes_what_it_did(prefix):
    state = published_state(prefix)
    if prefix:  # further parts of finetuned.pth are none of its business
        state["model.diffusion_model.out.weight"] = torch.zeros(2)
    encoder = published_encoder(state, HEADS, prefix)
    weights = published_state()
    voxels = torch.randn(3, 1, LENGTH * PATCH, generator=torch.Generator().manual_seed(5))
    patches = voxels.view(3, LENGTH, PATCH)
    near = {"rtol": 1e-4, "atol": 1e-4}
    # with a class token and some patches in pretraining, with neither afterwards
    kept = torch.tensor([[0, 3], [4, 1], [2, 3]])
    torch.testing.assert_close(
        encoder(patches, places=kept), published_forward(weights, voxels, kept), **near
    )
    torch.testing.assert_close(
        encoder(patches, class_token=False),
        published_forward(weights, voxels, class_token=False),
        **near,
    )
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert encoder.architecture == {
        "patch": 4, "positions": 5, "width": 8, "depth": 2, "heads": 2, "mlp_ratio": 2.0
    }  # fmt: skip


def test_every_name_that_does_not_fit_is_told_at_once():
    state = published_state()
    del state["norm.bias"], state["blocks.0.attn.qkv.weight"]
    state |= {"head.weight": torch.zeros(1), "blocks.1.gamma": torch.zeros(1)}
    with pytest.raises(
        UserError,
        match=r"missing blocks.0.attn.qkv.weight, norm.bias; unknown blocks.1.gamma, head.weight;",
    ):
        published_encoder(state, HEADS)
    with pytest.raises(UserError, match="8 wide, which 3 attention heads cannot share"):
        published_encoder(published_state(), 3)
    state = published_state() | {"blocks.1.mlp.fc2.weight": torch.zeros(8, 5)}
    with pytest.raises(UserError, match="blocks.1.mlp.fc2.weight have other shapes"):
        published_encoder(state, HEADS)


def test_positions_are_sines_and_cosines():
    found = sine_positions(7, 6)[0].double().numpy()
    for p in range(7):
        for i in range(3):
            angle = p / 10_000 ** (2 * i / 6)
            assert found[1 + p, i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert found[1 + p, 3 + i] == pytest.approx(math.cos(angle), abs=1e-6)
    assert not found[0].any()


def test_learning_can_begin_at_a_published_encoder(tmp_path):
    data = planted()
    betas = torch.from_numpy(data[0][0].betas[:6])
    encoder = published_encoder(published_state(), HEADS)
    empty = Masked((), {}, {}, **encoder.architecture, tuning=3, latents=5, condition_dropout=0.1)
    empty.encoder.load_state_dict(encoder.state_dict())
    folder = save(empty, (), tmp_path / "published")
    still = {"lr": 1e-12, "pretrain_epochs": 0, "weight_decay": 0.0, "epochs": 1, "batch": 64}
    mapper = Masked.fit(data[0][:1], data[1], seed=0, from_checkpoint=folder, **still)
    assert {k: mapper.architecture[k] for k in ("patch", "width", "depth", "heads")} == {
        "patch": 4, "width": 8, "depth": 2, "heads": 2
    }  # fmt: skip
    patches = mapper.patches(betas, "sub-01")
    assert patches.shape == (6, 8, 4)  # a longer sequence than it was published with
    with torch.no_grad():
        torch.testing.assert_close(mapper.encoder(patches[:, :5]), encoder(patches[:, :5]))
    torch.testing.assert_close(mapper.encoder.pos_embed[:, 6:], sine_positions(8, 8)[:, 6:])


def parcelled(membership, kind="partition"):
    labels = tuple(Label(f"roi{i}") for i in range(3))
    count = np.shape(membership)[-1]
    atlas = Parcellation("toy-atlas", kind, labels, np.array(membership), "hash")
    return Subject("toy", "sub-01", VoxelSpace(count, "hash", parcellations={"toy-atlas": atlas}))


@pytest.mark.parametrize(("count", "patches"), [(17, 2), (32, 2), (33, 3), (5, 1)])
def test_the_last_patch_is_filled_with_nothing(count, patches):
    order = order_of_voxels(Subject("toy", "sub-01", VoxelSpace(count, "hash")), 16, "voxel")
    assert order.shape == (16 * patches,) and order.dtype == np.int32
    np.testing.assert_array_equal(order[:count], np.arange(count))
    assert (order[count:] == -1).all()


def test_no_patch_mixes_parcels():
    membership = [2, 0, 0, -1, 2, 0, 0, 0, -1, 2, 1]
    order = order_of_voxels(parcelled(membership), 4, "roi")
    np.testing.assert_array_equal(
        order.reshape(-1, 4),
        [[1, 2, 5, 6], [7, -1, -1, -1], [10, -1, -1, -1], [0, 4, 9, -1], [3, 8, -1, -1]],
    )
    masks = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], bool)
    order = order_of_voxels(parcelled(masks, "masks"), 2, "roi", "toy-atlas")
    np.testing.assert_array_equal(order.reshape(-1, 2), [[0, 1], [2, -1], [3, -1]])


def test_an_atlas_that_is_not_there_is_named():
    with pytest.raises(UserError, match="the atlas 'hcp' for toy/sub-01, which has toy-atlas;"):
        order_of_voxels(parcelled([0, 1]), 2, "roi", "hcp")
