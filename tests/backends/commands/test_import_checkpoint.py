"""Published checkpoints: what is told of a file, what is refused, and what comes out of it."""

import sys
import types
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from backends import MAPPERS
from backends.__main__ import main
from backends.commands.foreign_checkpoints import open_checkpoint
from backends.commands.import_checkpoint import convert, place, use
from backends.mappers.masked import Masked
from backends.mappers.mixer import Mixer
from explorer.types import EmbeddingSpace, Subject, UserError, VoxelSpace
from tests.miniatures.checkpoints import (
    HEADS,
    PATCH,
    PEOPLE,
    TOKENS,
    WIDTH,
    D,
    H,
    T,
    converted,
    mind_vis,
    mindeye2,
    pair,
    random,
    saved,
    with_prior,
)


@pytest.fixture
def config(monkeypatch):
    """Return a configuration as MinD-Vis pickles it: of a class of a module called config."""
    module = types.ModuleType("config")
    for bare in ("Config_MBM_fMRI", "Config_Generative_Model"):
        setattr(module, bare, type(bare, (), {"__module__": "config"}))
    monkeypatch.setitem(sys.modules, "config", module)
    made = module.Config_MBM_fMRI()
    made.__dict__.update(num_heads=HEADS, lr=2.5e-4, roi="VC", focus_range=None, kam_subs=["s3"])
    return made


def test_minds_eye_2_is_recognised_part_by_part(tmp_path):
    path = tmp_path / "last.pth"
    beside = {"epoch": 149, "optimizer_state_dict": {"state": {}}, "train_losses": [0.5, 0.25]}
    torch.save({"model_state_dict": mindeye2(), **beside}, path)
    found = open_checkpoint(path)
    assert found.kind == "mindeye2" and found.unknown == found.missing == ()
    assert found.beside == ("epoch", "optimizer_state_dict", "train_losses")
    parts = {part.name: part for part in found.parts}
    layers = parts["ridge.linears."]
    assert (layers.tensors, layers.values) == (4, H * 7 + H + H * 5 + H)
    assert layers.shapes[0] == f"ridge.linears.0.weight ({H}, 7)" and len(layers.shapes) == 3
    assert parts["backbone.blin1."].what == "low-level branch" and "diffusion_prior." not in parts
    text = "\n".join(found.told())
    assert text.startswith("last.pth: MindEye2's training checkpoint")
    assert "Unknown: none\nMissing: none\nAlso in the file, not used: epoch, opt" in text
    assert f"      ridge.linears.1.bias ({H},) float32" in found.told(tensors=True)


def test_neural_diffuser_calls_its_layers_otherwise_and_safetensors_are_read(tmp_path):
    path = tmp_path / "c.safetensors"
    save_file({f"module.{name}": z for name, z in mindeye2("voxelenc").items()}, path)
    found = open_checkpoint(path)
    assert found.kind == "neuraldiffuser" and found.missing == ()
    mapper, card, left_out = convert(
        found, PEOPLE, "clip/text", title="c", command="a test", known={}
    )
    assert mapper.targets == card.targets == (EmbeddingSpace("clip", "text", (T, D)),)
    assert left_out == ("backbone.blin1 (2 tensor(s)): the low-level branch",)


def test_unknown_and_missing_names_are_told(tmp_path):
    state = mindeye2()
    odd = {name: z for name, z in state.items() if not name.startswith("backbone.clip_proj.")}
    odd["backbone.extra.weight"] = torch.zeros(2)
    path = tmp_path / "odd.pt"
    torch.save(odd, path)
    found = open_checkpoint(path)
    assert found.kind == "mindeye2" and found.unknown == ("backbone.extra.weight",)
    assert found.missing == ("backbone.clip_proj.",)
    assert found.told()[-2:] == ["Unknown: backbone.extra.weight", "Missing: backbone.clip_proj."]
    with pytest.raises(UserError, match="lacks backbone.clip_proj.0.weight"):
        convert(found, PEOPLE, "a/b", title="", command="", known={})
    torch.save(state | {"backbone.extra.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="unknown are backbone.extra.weight; missing are none"):
        convert(open_checkpoint(path), PEOPLE, "a/b", title="", command="", known={})


def test_the_card_says_how_the_prior_is_sampled(tmp_path):
    found, told = saved(tmp_path / "last.pth", with_prior()), {}
    asked = {"title": "", "command": "", "known": {}}
    for sampler in ("published", "ddim"):
        mapper, card, _ = convert(found, PEOPLE, "bigG/tokens", sampler=sampler, **asked)
        assert mapper.architecture["sampler"] == sampler
        told[sampler] = card.settings["published"]["prior"]
    noise = "the noise of seed 0 for every trial"
    assert told == {
        "published": f"as published: DDIM with eta 1 over 20 of 100 levels, {noise}",
        "ddim": f"DDIM without noise in its steps: 20 of 100 levels, {noise}",
    }


def test_a_converted_mapper_is_a_checkpoint_of_ours(tmp_path):
    path = tmp_path / "subj01.pth"
    torch.save({"model_state_dict": mindeye2()}, path)
    mapper, card, _ = convert(
        open_checkpoint(path), PEOPLE, "bigG/tokens", title="mindeye2", command="a test",
        known={"bigG/tokens": TOKENS},
    )  # fmt: skip
    folder = place(tmp_path / "checkpoints", card)
    assert folder.relative_to(tmp_path).as_posix() == (
        "checkpoints/mappers/mine/mindeye2-subj01-subj02"
    )
    mapper.save_pretrained(folder, card)
    loaded = Mixer.from_pretrained(folder)
    assert loaded.card.cls in MAPPERS and loaded.card.voxels["subj02"] == (5, "hash-5")
    origin = loaded.card.settings["published"]
    assert origin["file"] == "subj01.pth" and origin["left out"]
    betas = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)
    found = loaded.decode(betas, "subj01")[TOKENS]
    direct, _ = Mixer.from_published(mindeye2(), {"subj01": 7, "subj02": 5}, TOKENS)
    np.testing.assert_allclose(found, direct.decode(betas, "subj01")[TOKENS], rtol=1e-5)
    assert found.shape == (3, T, D) and found.std() > 0
    assert "open its data set in the app" in use(folder, card)


@pytest.mark.parametrize(
    "wrap",
    [
        *("module.{}", "_orig_mod.{}", "module._orig_mod.{}", "model.{}", "model.module.{}"),
        "_orig_mod.model.{}",
    ],
)
def test_what_wraps_a_model_is_no_part_of_its_names(tmp_path, wrap):
    plain = converted(saved(tmp_path / "plain.pth", mindeye2()))
    found = saved(tmp_path / "wrapped.pth", {wrap.format(k): v for k, v in mindeye2().items()})
    assert found.kind == "mindeye2" and found.unknown == found.missing == ()
    for name, z in converted(found).items():
        torch.testing.assert_close(z, plain[name], rtol=0, atol=0, msg=name)


def test_a_part_that_was_wrapped_alone_is_read_and_twice_is_refused(tmp_path):
    compiled = {k.replace("backbone.", "backbone._orig_mod."): v for k, v in mindeye2().items()}
    assert saved(tmp_path / "a.pth", compiled).missing == ()
    with pytest.raises(UserError, match=r"holds ridge\.linears\.0\.weight twice, once as mod"):
        saved(tmp_path / "b.pth", mindeye2() | {"module.ridge.linears.0.weight": torch.zeros(2)})
    fine = mind_vis("cond_stage_model.mae.") | random(pair("model.diffusion_model.out", 3, 3))
    found = saved(tmp_path / "c.pth", fine)  # here model. belongs to the names
    assert found.kind == "mind-vis-finetuned" and "model.diffusion_model.out.bias" in found.state


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_floating_type_is_read_and_no_gradient_is_kept(tmp_path, dtype):
    state = {k: torch.nn.Parameter(v.to(dtype)) for k, v in mindeye2().items()}
    found = converted(saved(tmp_path / "a.pth", state))
    wanted = state["ridge.linears.1.weight"].detach().float()
    assert torch.equal(found["layers.of_subj02.weight"], wanted)
    assert not any(z.requires_grad for z in found.values())
    encoder, _, _ = convert(
        saved(tmp_path / "b.pth", {k: torch.nn.Parameter(z) for k, z in mind_vis().items()}),
        *([], ""), heads=HEADS, title="", command="", known={},
    )  # fmt: skip
    assert torch.equal(encoder.encoder.norm.weight, mind_vis()["norm.weight"])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda z: torch.quantize_per_tensor(z, 0.1, 0, torch.qint8), "is quantised, expected a"),
        (lambda z: z.to_sparse(), "is sparse, expected a plain tensor"),
        (lambda z: z[:1].clone().expand(z.shape), r"288 bytes, of which 24 are stored; save it"),
        (lambda z: z[0], r"has the shape \(6,\), expected 2 axes, none of them empty"),
        (lambda z: z[:, :0], r"has the shape \(12, 0\), expected 2 axes, none of them empty"),
        (lambda z: z[:11], "gives 11 numbers, which are no tokens of 3 as the projection takes"),
        (lambda z: z[:, :4], r"do not belong together: heads\.0\.linear\.weight \(our names\)"),
    ],
)
def test_tensors_that_are_no_plain_weights_are_one_sentence(tmp_path, spoil, sentence):
    state, name = mindeye2(), "backbone.backbone_linear.weight"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it will drop quantised tensors
        state[name] = spoil(state[name])
        with pytest.raises(UserError, match=sentence):
            converted(saved(tmp_path / "odd.pth", state))


def test_a_numbering_with_a_gap_is_a_name_missing(tmp_path):
    state = mindeye2()
    state["ridge.linears.999999999.weight"] = state.pop("ridge.linears.1.weight")
    with pytest.raises(UserError, match=r"unknown are ridge\.linears\.999999999\.weight; missing"):
        convert(
            saved(tmp_path / "gap.pth", state),
            *([*PEOPLE, Subject("mine", "subj03", VoxelSpace(5, "h"))], "a/b"),
            title="", command="", known={},
        )  # fmt: skip
    state = mind_vis()
    state["blocks.888888888.norm1.weight"] = state.pop("blocks.0.norm1.weight")
    with pytest.raises(UserError, match=r"unknown blocks\.888888888\.norm1\.weight"):
        found = saved(tmp_path / "far.pth", state)
        convert(found, [], "", heads=HEADS, title="", command="", known={})


def test_time_steps_are_refused_and_no_layer_stays_random(tmp_path):
    found = saved(tmp_path / "steps.pth", mindeye2(steps=3))
    with pytest.raises(
        UserError, match=r"reads 3 time steps of every voxel \(seq_len\), and a trial here has one"
    ):
        converted(found)
    one, other = (converted(saved(tmp_path / "one.pth", mindeye2())) for _ in range(2))
    assert all(torch.equal(z, other[name]) for name, z in one.items())


def test_heads_that_nothing_tells_are_asked_for(tmp_path, config):
    path = tmp_path / "fmri_encoder.pth"
    torch.save({"model": mind_vis()}, path)
    silent = open_checkpoint(path)
    asked = {"title": "", "command": "", "known": {}}
    with pytest.raises(
        UserError, match="does not say how many attention heads .* add --heads 16 if it is as Min"
    ):
        convert(silent, [], "", **asked)
    mapper, _, _ = convert(silent, [], "", heads=4, **asked)
    assert mapper.architecture["heads"] == 4
    torch.save({"model": mind_vis(), "config": config}, path)
    with pytest.raises(UserError, match="says 2 attention heads, asked for were 4; leave out --h"):
        convert(open_checkpoint(path), [], "", heads=4, **asked)
    config.num_heads = "two"
    torch.save({"model": mind_vis(), "config": config}, path)
    with pytest.raises(UserError, match="a whole number from 1, found 'two' in"):
        convert(open_checkpoint(path), [], "", **asked)


def test_an_encoder_of_mind_vis_begins_a_training_here(tmp_path, config):
    path = tmp_path / "fmri_encoder.pth"
    beside = {"optimizer": {}, "epoch": 3, "scaler": {}}
    torch.save({"model": mind_vis(), "config": config, **beside}, path)
    found = open_checkpoint(path)
    assert found.kind == "mind-vis" and found.unknown == found.missing == ()
    assert found.config["num_heads"] == HEADS and found.config["roi"] == "VC"
    mapper, card, left_out = convert(found, [], "", title="", command="a test", known={})
    assert [line.split(":")[1] for line in left_out] == [" decoder of masked patches"] * 2
    folder = place(tmp_path, card)
    assert folder == tmp_path / "imported" / "mind-vis"
    mapper.save_pretrained(folder, card)
    loaded = Masked.from_pretrained(folder)
    assert (loaded.architecture["heads"], loaded.architecture["patch"]) == (HEADS, PATCH)
    for name, z in loaded.encoder.state_dict().items():
        torch.testing.assert_close(z, mind_vis()[name], msg=name)
    assert f"train masked --set from_checkpoint={folder}" in use(folder, card)


def test_a_fine_tuned_model_of_mind_vis_gives_its_encoder(tmp_path, config):
    state = mind_vis("cond_stage_model.mae.")
    del state["cond_stage_model.mae.mask_token"]
    state |= random(
        {
            **pair("cond_stage_model.dim_mapper", 4, WIDTH),
            **pair("model.diffusion_model.out.2", 3, 3),
            "betas": (10,),
            "sqrt_alphas_cumprod": (10,),
        }
    )
    made = type(config)  # the generative model's config knows no heads
    other = sys.modules[made.__module__].Config_Generative_Model()
    path = tmp_path / "finetuned.pth"
    torch.save({"model_state_dict": state, "config": other, "state": torch.zeros(3)}, path)
    found = open_checkpoint(path)
    assert found.kind == "mind-vis-finetuned" and found.unknown == found.missing == ()
    with pytest.raises(UserError, match="8 wide, which 16 attention heads cannot share"):
        convert(found, [], "", heads=16, title="", command="", known={})  # this one has two
    mapper, card, left_out = convert(found, [], "", heads=HEADS, title="", command="", known={})
    assert mapper.architecture["heads"] == HEADS
    whole = mind_vis("cond_stage_model.mae.")
    for name, z in mapper.encoder.state_dict().items():
        torch.testing.assert_close(z, whole[f"cond_stage_model.mae.{name}"], msg=name)
    assert {line.split(" (")[0] for line in left_out} == {
        "cond_stage_model.dim_mapper", "model.diffusion_model", "betas", "sqrt_",
    }  # fmt: skip


def test_what_is_not_known_is_listed_and_not_converted(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"state_dict": random(pair("encoder.first", 3, 2) | pair("head", 2, 3))}, path)
    found = open_checkpoint(path)
    assert found.kind == "" and [part.name for part in found.parts] == ["encoder", "head"]
    assert found.told()[0] == "other.pt: no published checkpoint known here"
    with pytest.raises(UserError, match="none of the checkpoints that can be converted: MindEye2"):
        convert(found, [], "", title="", command="", known={})
    torch.save(mindeye2(), path)
    with pytest.raises(UserError, match=r"--subject a layer .* found 0 subject\(s\) and the spa"):
        convert(open_checkpoint(path), [], "a/b", title="", command="", known={})


def test_the_command_lists_and_converts(tmp_path, monkeypatch, capsys, config):
    path = tmp_path / "fmri_encoder.pth"
    torch.save({"model": mind_vis(), "config": config}, path)
    kept = tmp_path / "kept"
    command = ["backends", "import-checkpoint", str(path), "--checkpoints", str(kept)]
    for more in ([], ["--convert", "--name", "mbm"]):
        monkeypatch.setattr(sys, "argv", [*command, *more])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code and kept.exists() == bool(more)
    out = capsys.readouterr().out
    assert out.count("MinD-Vis' fMRI encoder (fmri_encoder.pth)") == 2
    assert "Not converted:\n  mask_token (1 tensor(s)): decoder of masked patches" in out
    assert Masked.from_pretrained(kept / "imported" / "mbm").card.command.endswith("--name mbm")
