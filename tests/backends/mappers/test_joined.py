"""NeuralDiffuser's encoders of c, z and g as one decoder."""

import sys

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import Decoder

from backends import MAPPERS
from backends.__main__ import main
from backends.commands.import_checkpoint import alone, convert
from backends.commands.joined_checkpoints import joined
from backends.mappers.joined import Joined
from backends.mappers.parts.voxel2sd import low_level
from explorer.types import EmbeddingSpace, UserError
from tests.miniatures.checkpoints import PEOPLE, D, H, T, V, saved, with_prior

LATENTS = EmbeddingSpace("sd-vae", "latents", (4, 4, 4))
VOXELS = {"subj01": V[0], "subj02": V[1]}
ASKED = {"title": "nd", "command": "a test", "known": {}}


@pytest.fixture(scope="module")
def z():
    """Return the z encoder of train_z.py in miniature, and its state under published names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        made = torch.nn.Module()

        def layer(inputs):
            linear = torch.nn.Linear(inputs, H, bias=False)
            norm, dropout = torch.nn.LayerNorm(H), torch.nn.Dropout(0.25)
            return torch.nn.Sequential(linear, norm, torch.nn.SiLU(), dropout)

        made.voxelenc, made.voxel2sd = torch.nn.Module(), torch.nn.Module()
        made.voxelenc.linears = torch.nn.ModuleList(map(layer, V))
        made.voxel2sd.mlp = torch.nn.ModuleList(layer(H) for _ in range(3))
        made.voxel2sd.lin1 = torch.nn.Linear(H, 64 * 2 * 2, bias=False)
        made.voxel2sd.norm = torch.nn.GroupNorm(1, 64)
        made.voxel2sd.upsampler = Decoder(
            in_channels=64,
            out_channels=4,
            up_block_types=["UpDecoderBlock2D"] * 2,
            block_out_channels=[32, 64],
            layers_per_block=1,
        )
        made.voxel2sd.maps_projector = torch.nn.Conv2d(64, 5, 1)
        for parameter in made.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape)
    return made.eval(), made.state_dict()


def published(made, betas, number):
    """Return the latents as Voxel2StableDiffusionModel's forward makes them."""
    x = made.voxelenc.linears[number](betas)
    for block in made.voxel2sd.mlp:
        x = block(x) + x
    small = made.voxel2sd.lin1(x).reshape(len(x), -1, 2, 2)
    return made.voxel2sd.upsampler(made.voxel2sd.norm(small))


def text(number):
    """Return the weights of a c or g encoder in miniature, others for each number."""
    states = with_prior().items()
    kept = {k.replace("ridge.", "voxelenc."): v for k, v in states if "blin1" not in k}
    return {k: v + 0.01 * number for k, v in kept.items()}


def converted(tmp_path, z, people=PEOPLE):
    """Return the parts of a decoder of c, z and one g."""
    files = (
        ("c.pth", text(0), "clip/text"), ("z.pth", z[1], ""), ("g_2.pth", text(1), "clip/block1"),
    )  # fmt: skip
    return [convert(saved(tmp_path / n, s), people, space, **ASKED) for n, s, space in files]


@torch.no_grad()
def test_published_weights_of_z_give_the_published_latents(z):
    made, state = z
    ours, sizes, left_out = low_level(state, VOXELS, "sd-vae/latents")
    assert ours.space == LATENTS and (sizes["blocks"], sizes["side"]) == (3, 2)
    betas = torch.randn(4, V[1], generator=torch.Generator().manual_seed(1))
    found = ours(betas, "subj02")[LATENTS]
    expected = published(made, betas, 1)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert left_out == (
        "voxel2sd.maps_projector (2 tensor(s)): the contrastive branch of its training",
    )


def test_weights_of_z_that_are_not_as_published_are_refused(z):
    state = dict(z[1])
    state["voxel2sd.surprise"] = state.pop("voxel2sd.mlp.1.1.bias")
    with pytest.raises(
        UserError, match=r"are voxel2sd\.surprise; missing are voxel2sd\.mlp\.1\.1\.bias; give the"
    ):
        low_level(state, VOXELS, "sd-vae/latents")
    with pytest.raises(UserError, match=r"layers of 2 subject\(s\); name .* found subj01\."):
        low_level(z[1], {"subj01": 7}, "sd-vae/latents")
    with pytest.raises(UserError, match=r"layers\.of_subj01\.0\.weight \(our names\) have"):
        low_level(z[1], {"subj02": V[1], "subj01": V[0]}, "sd-vae/latents")
    with pytest.raises(UserError, match=r"latents of shape \(4, 4, 4\), a/b has \(4, 8, 8\)"):
        low_level(z[1], VOXELS, EmbeddingSpace("a", "b", (4, 8, 8)))


def test_three_files_are_one_decoder_that_gives_what_each_gives(tmp_path, z):
    parts = converted(tmp_path, z)
    mapper, card, left_out = joined(parts)
    assert [space.name for space in card.targets] == ["clip/text", "sd-vae/latents", "clip/block1"]
    assert card.cls == "joined" and card.cls in MAPPERS and mapper.targets == card.targets
    files = card.settings["published"]["files"]
    assert [one["file"] for one in files] == ["c.pth", "z.pth", "g_2.pth"]
    assert files[0]["prior"].startswith("as published: DDIM with eta 1")
    assert "z.pth: voxel2sd.maps_projector" in " ".join(left_out)
    mapper.save_pretrained(tmp_path / "kept", card)
    loaded = Joined.from_pretrained(tmp_path / "kept")
    betas = np.random.default_rng(0).standard_normal((3, V[0])).astype(np.float32)
    found = loaded.decode(betas, "subj01")
    for part, _, _ in parts:
        for space, expected in part.decode(betas, "subj01").items():
            np.testing.assert_allclose(found[space], expected, rtol=1e-5, atol=1e-6)
    assert [found[s].shape[1:] for s in card.targets] == [(T, D), (4, 4, 4), (T, D)]
    row = loaded.decode(betas[1:2], "subj01")
    np.testing.assert_allclose(row[LATENTS], found[LATENTS][1:2], atol=1e-5)
    with pytest.raises(UserError, match="Two of the files give clip/text; join an encoder"):
        joined([parts[0], parts[0]])
    with pytest.raises(UserError, match="made of trained encoders, not trained: python -m"):
        Joined.fit([], {}, seed=0)


def test_one_subject_of_z_is_converted_alone(tmp_path, z):
    both, _, _ = convert(saved(tmp_path / "z.pth", z[1]), PEOPLE, "", **ASKED)
    found, names = alone(saved(tmp_path / "z.pth", z[1]), ["subj01", "subj02"], "subj02")
    assert found.kind == "neuraldiffuser-z" and found.unknown == found.missing == ()
    one, card, _ = convert(found, PEOPLE[1:], "", **ASKED)
    assert names == ["subj02"] and card.subjects == ("subj02",)
    betas = np.random.default_rng(1).standard_normal((2, V[1])).astype(np.float32)
    np.testing.assert_allclose(
        one.decode(betas, "subj02")[LATENTS], both.decode(betas, "subj02")[LATENTS], rtol=1e-5
    )


def test_the_command_recognises_z_and_asks_for_spaces(tmp_path, z, monkeypatch, capsys):
    for name, state in (("c.pth", text(0)), ("z.pth", z[1])):
        torch.save({"model_state_dict": state}, tmp_path / name)

    def run(*more):
        command = ["backends", "import-checkpoint", str(tmp_path / "c.pth"), *more]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return stop.value.code, out.out + out.err

    code, told = run("--also", f"{tmp_path / 'z.pth'}=sd-vae/latents")
    assert not code and "z.pth: the z encoder of NeuralDiffuser (latents)" in told
    assert "c.pth: a c or g encoder of NeuralDiffuser" in told and told.count("Unknown: none") == 2
    code, told = run("--also", "z.pth")
    assert code and "--also is FILE=MODEL/LAYER, such as z.pth=sd-vae/latents, found 'z.p" in told
