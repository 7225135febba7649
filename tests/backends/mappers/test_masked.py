"""The masked mapper: patches, masked modelling, the null, two stages."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from backends.mappers.masked import Masked
from backends.mappers.parts.filling import Filling
from backends.training.fewer import fewer
from backends.training.mapper_training import train_mapper
from backends.training.rows import Batch, TrialRows
from backends.training.settings import settings_of
from backends.training.state import STATE
from explorer.types import EmbeddingSpace, UserError, VoxelSpace
from tests.backends.mappers.toy_masked import (
    IMAGE,
    SMALL,
    TOKENS,
    VOXELS,
    only,
    planted,
    save,
)


@pytest.fixture(scope="module")
def data():
    return planted()


@pytest.fixture(scope="module")
def both(data):
    return Masked.fit(*data, seed=0, **SMALL)


@pytest.fixture
def betas(data):
    return torch.from_numpy(data[0][0].betas[:6])


# ----------------------------------------------------------------------------------------- patches


def test_an_order_by_parcels_needs_parcels(data):
    with pytest.raises(UserError, match="the atlas 'of some name' for toy/sub-01, which has none"):
        Masked.fit(*data, seed=0, patch_order="roi", **SMALL)


def test_patches_hold_standardised_voxels_in_order_and_zeros(both, betas):
    patches = both.patches(betas, "sub-01")
    assert patches.shape == (6, 8, 4)  # 30 voxels
    flat = patches.flatten(1)
    torch.testing.assert_close(flat[:, :30], both.standardise(betas, "sub-01"))
    assert not flat[:, 30:].any()
    assert both.patches(torch.zeros(2, 21), "sub-02").shape == (2, 6, 4)


@torch.no_grad()
def test_patches_left_out_are_stood_for_by_the_others(both, betas):
    patches = both.patches(betas, "sub-01")
    every = torch.rand(6, 8, generator=torch.Generator().manual_seed(1)).argsort(1)
    whole = both.brain(patches, "sub-01")
    torch.testing.assert_close(both.brain(patches, "sub-01", every), whole, rtol=1e-4, atol=1e-5)
    # the class token counts once, each of two patches four times
    few = torch.tensor([[2, 5]]).expand(6, -1)
    tokens, mix = both.tokens(patches, "sub-01", few), both.own["of_sub-01"].mix
    by_hand = sum(
        weight * tokens[:, i, None] * mix[row][:, None]
        for i, row, weight in ((0, 0, 1), (1, 3, 4), (2, 6, 4))
    )
    torch.testing.assert_close(both.brain(patches, "sub-01", few), by_hand)


# -------------------------------------------------------------------------------- masked modelling


@torch.no_grad()
def test_hidden_voxels_are_hidden_and_only_they_count(both, betas):
    filling = Filling(both, 8, 1, 0.75)
    torch.nn.init.normal_(filling.tuned.weight)
    drawn = torch.rand(6, 8, generator=torch.Generator().manual_seed(2))
    predicted, hidden = filling(betas, "sub-01", drawn)
    shown = drawn.argsort(1)[:, :2]  # a quarter of eight
    assert hidden.any(2).sum(1).tolist() == [6] * 6
    assert not hidden.gather(1, shown[..., None].expand(-1, -1, 4)).any()
    assert not hidden[:, -1, 2:].any()  # padding
    wrong = (predicted - both.patches(betas, "sub-01")).square()
    by_hand = [wrong[i][hidden[i]].mean() for i in range(6)]
    torch.testing.assert_close(
        filling.errors(betas, "sub-01", drawn)[:, 0], torch.stack(by_hand), rtol=1e-5, atol=1e-6
    )
    other = betas.clone()
    voxels = hidden.flatten(1)[:, :30]
    other[voxels] += 7
    torch.testing.assert_close(filling(other, "sub-01", drawn)[0], predicted)
    other[~voxels] += 7
    assert not torch.allclose(filling(other, "sub-01", drawn)[0], predicted)


def test_masked_modelling_finds_what_voxels_share():
    trials, targets = planted(train=150, noise=0.3)
    settings = SMALL | {"pretrain_epochs": 25, "pretrain_lr": 1e-2, "decoder_width": 16}
    mapper = Masked.fit(trials, targets, seed=0, **settings)
    # the mean of a voxel has an error of 1; a subject's four causes explain 0.92 of the variance
    assert mapper.history["pretraining"]["validation loss"] < 0.6
    assert mapper.history["pretraining"]["betas"] == "training trials"


def test_both_stages_run_in_bfloat16(both, data, betas):
    mapper = Masked.fit(*data, seed=0, precision="bf16", **SMALL)
    found, exact = (m.decode(betas.numpy(), "sub-01")[IMAGE] for m in (mapper, both))
    np.testing.assert_allclose(found, exact, atol=0.2)
    assert not np.array_equal(found, exact)


def test_a_single_patch_cannot_be_hidden(data):
    with pytest.raises(UserError, match="All voxels of sub-02 fit into one patch of 24"):
        Masked.fit(*data, seed=0, **SMALL | {"patch": 24})
    assert Masked.fit(*data, seed=0, **SMALL | {"patch": 32, "pretrain_epochs": 0})


def test_test_trials_are_read_by_name_alone(data, tmp_path):
    trials, targets = data
    spoiled = [replace(one, betas=one.betas.copy()) for one in trials]
    for one in spoiled:
        one.betas[one.rows("test")] = np.nan
    Masked.fit(spoiled, targets, seed=0, **SMALL)
    with pytest.raises(
        UserError, match="Masked modelling for sub-01, sub-02: the loss became nan"
    ):
        Masked.fit(spoiled, targets, seed=0, pretrain_on_test=True, **SMALL)
    mapper = Masked.fit(trials, targets, seed=0, pretrain_on_test=True, **SMALL)
    told = "training and test trials, as pretrain_on_test asked for"
    assert mapper.history["pretraining"]["betas"] == told
    # whoever goes on from it, without any test trial, still has to tell
    folder = save(mapper, trials, tmp_path / "transductive")
    after = Masked.fit(
        trials, targets, seed=0, from_checkpoint=folder, **SMALL | {"pretrain_epochs": 0}
    )
    assert after.history["pretraining"]["before"]["betas"] == told


# ---------------------------------------------------------------------------------------- the null


def test_the_null_is_the_same_in_training_and_in_sampling(both, data):
    rows = TrialRows(*data)
    batch = Batch(rows, np.arange(90), epoch=2, seed=0, training=True)
    left_out = (batch.random("condition", (1,)) < 0.1)[:, 0]
    assert 0 < left_out.sum() < 45
    found = both._predict(batch, patch_dropout=0.5)
    nothing = both.unconditional()
    for i, space in enumerate(both.targets):
        assert nothing[space].shape == space.shape
        centre, scale = both._unit(i)
        shown = (centre + scale * found[space]).unflatten(1, space.shape)
        torch.testing.assert_close(
            shown[left_out], nothing[space].expand_as(shown[left_out]), rtol=1e-4, atol=1e-5
        )
        apart = (shown[~left_out] - nothing[space]).abs().flatten(1).amax(1)
        assert apart.min() > 1e-3
    nothing[IMAGE].square().sum().backward()
    assert both.null.grad.abs().sum() > 0
    both.zero_grad()
    quiet = Batch(rows, np.arange(90), training=False)
    torch.testing.assert_close(
        both._predict(quiet, patch_dropout=0.5)[IMAGE],
        both._predict(quiet, patch_dropout=0.0)[IMAGE],
    )


def test_without_condition_dropout_there_is_no_null(data):
    mapper = Masked.fit(*data, seed=0, **SMALL | {"condition_dropout": 0.0})
    with pytest.raises(UserError, match="without condition dropout, so it has learned no null"):
        mapper.unconditional()


def test_the_loss_is_one_for_the_mean_and_adds_alignment(both, data):
    batch = Batch(TrialRows(*data), np.arange(20))
    goals = {space: both._goals(space, batch) for space in both.targets}
    mean = {space: torch.zeros_like(z) for space, z in goals.items()}
    every = TrialRows(*data)
    whole = Batch(every, np.arange(len(every)))
    zeros = {space: torch.zeros(len(every), space.size) for space in both.targets}
    assert both._loss(zeros, whole, 0.0, 0.1).item() == pytest.approx(1, abs=1e-5)
    assert both._loss(goals, batch, 0.0, 0.1).item() == 0
    # equal directions everywhere: chance, the logarithm of the batch, for each target
    added = both._loss(mean, batch, 0.5, 0.1) - both._loss(mean, batch, 0.0, 0.1)
    assert added.item() == pytest.approx(0.5 * math.log(20), rel=1e-4)
    better = both._loss(goals, batch, 0.5, 0.01)
    assert better < 0.1 * added


# -------------------------------------------------------------------------------------- two stages


def test_each_stage_resumes_by_itself(data, tmp_path):
    settings = SMALL | {"trackers": ()}
    first = Masked.fit(*data, seed=0, run=tmp_path, **settings)
    states = [tmp_path / stage / STATE for stage in ("pretraining", "fine-tuning")]
    assert all(state.exists() for state in states)
    states[1].unlink()  # as if it had been killed between the stages
    said: list[str] = []
    again = Masked.fit(*data, seed=0, run=tmp_path, progress=said.append, **settings)
    assert said[0] == "Masked modelling for sub-01, sub-02: goes on from step 3/3"
    assert any(s.startswith("Masked for sub-01, sub-02: epoch 1/1") for s in said)
    for key, value in first.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, msg=key)


def test_the_checkpoint_tells_of_both_stages_and_no_state_remains(data, tmp_path):
    card = train_mapper(
        *("masked", Masked, *data, tmp_path / "there"), command="test", licence="MIT",
        trackers=(), pretrain_on_test=True, **SMALL,
    )  # fmt: skip
    assert card.settings["pretrain_on_test"] is True and card.subjects == tuple(VOXELS)
    told = card.metrics["training"]
    assert told["pretraining"]["betas"].startswith("training and test trials")
    assert told["epochs"] == told["pretraining"]["epochs"] == 1
    assert not list(tmp_path.rglob(STATE))  # the same command trains anew
    loaded = Masked.from_pretrained(tmp_path / "there")
    assert loaded.unconditional()[TOKENS].shape == (3, 4)


def test_fine_tuning_reads_only_its_share(data):
    trials, targets = data
    few = [set(fewer(one, share=0.25, seed=0).stimuli("train")) for one in trials]
    assert [len(names) for names in few] == [15, 15]
    spoiled = {
        space: {s: z if s in few[0] | few[1] else np.full_like(z, 9) for s, z in named.items()}
        for space, named in targets.items()
    }
    settings = SMALL | {"share": 0.25, "batch": 8}
    one, other = (Masked.fit(trials, t, seed=0, **settings) for t in (targets, spoiled))
    for key, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


def test_learning_begins_where_a_checkpoint_ended(both, data, tmp_path):
    trials, targets = data
    folder = save(both, trials, tmp_path / "source")
    still = SMALL | {"lr": 1e-12, "weight_decay": 0.0, "pretrain_epochs": 0, "width": 32}
    new = replace(trials[0].subject, name="sub-03", voxels=VoxelSpace(30, "hash-9"))
    moved = replace(trials[1].subject, voxels=VoxelSpace(21, "hash-8"))
    group = [trials[0], replace(trials[1], subject=moved), replace(trials[0], subject=new)]
    mapper = Masked.fit(group, only(targets, TOKENS), seed=3, from_checkpoint=folder, **still)
    assert mapper.architecture["width"] == 16  # the source's
    mine, theirs = mapper.state_dict(), both.state_dict()
    same = {k for k in mine if k.startswith(("encoder.", "tuned.", "null", "own.of_sub-01."))}
    assert "own.of_sub-01.tuning" in same and "encoder.blocks.0.attn.qkv.weight" in same
    for key in same:
        torch.testing.assert_close(mine[key], theirs[key], msg=key)
    torch.testing.assert_close(mine["heads.0.values.weight"], theirs["heads.1.values.weight"])
    # another voxel space under an old name begins anew, as the new subject does
    for name in ("sub-02", "sub-03"):
        key = f"own.of_{name}.tuning"
        assert key not in theirs or not torch.allclose(mine[key], theirs[key], atol=0.1)
    assert mapper.history["pretraining"]["before"] == {
        "checkpoint": "source", **both.history["pretraining"]
    }  # fmt: skip


def test_four_brains_of_4000_voxels_fit_into_three_megabytes():
    spaces = (EmbeddingSpace("clip", "image", (128,)), EmbeddingSpace("clip", "tokens", (64, 192)))
    subjects = {f"sub-0{i}": 4000 for i in range(1, 5)}
    shipped = {"patch": 16, "width": 64, "depth": 2, "heads": 4, "mlp_ratio": 1.0, "tuning": 16}
    defaults = settings_of(Masked)
    assert {k: defaults[k] for k in shipped} == shipped and defaults["latents"] == 32
    mapper = Masked(
        *(spaces, subjects), patches=dict.fromkeys(subjects, 250), positions=250, latents=32,
        condition_dropout=0.1, **shipped,
    )  # fmt: skip
    size = 0
    for key, value in mapper.state_dict().items():
        exact = key.startswith(("mean_", "sd_")) or not value.is_floating_point()
        size += value.numel() * (4 if exact else 2)
    assert size < 3e6


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"patch_order": "random"}, "patch_order is voxel or roi, found 'random'"),
        ({"mask_ratio": 1.0}, "mask_ratio is above 0 and below 1, .* found mask_ratio=1"),
        ({"share": 0.0}, "share above 0 and up to 1, .* share=0,"),
        ({"temperature": 0.0}, "temperature above 0, .* temperature=0"),
        ({"condition_dropout": 1.0}, "are shares from 0 to below 1, .* condition_dropout=1"),
        ({"patch": 0}, "patch, depth, heads, .* are whole numbers from 1, .* found patch=0"),
        ({"width": 30}, "width is an even number that 4 heads can share, found 30"),
        ({"decoder_width": 2}, "decoder_width is an even number that 4 heads can share, found 2"),
        ({"pretrain_epochs": -1}, "epochs is a whole number from 1, found -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, sentence, data):
    with pytest.raises(UserError, match=sentence):
        Masked.fit(*data, seed=0, **settings)
