"""MLP: finds what a linear map cannot, learns nothing from shuffled labels, and is as said."""

import numpy as np
import pandas as pd
import pytest
import torch

from backends.mappers.mlp import MLP, Block
from backends.mappers.ridge import Ridge
from backends.training.rows import Batch, TrialRows
from backends.training.settings import read_settings
from explorer.types import EmbeddingSpace, Subject, Trials, UserError, VoxelSpace

SPACE = EmbeddingSpace("toy", "vector", (3,))
TOKENS = EmbeddingSpace("toy", "tokens", (2, 2))
VOXELS = {"sub-01": 12, "sub-02": 9}
TRAIN, TEST = 400, 100
SETTINGS = {"width": 48, "epochs": 40, "batch": 64, "lr": 4e-3, "voxel_dropout": 0.0}


def planted(subject: str = "sub-01") -> tuple[Trials, dict]:
    """Embeddings of which two numbers bend with the cause behind the betas, and one does not."""
    rng, v = np.random.default_rng(5), VOXELS[subject]
    cause = rng.standard_normal((TRAIN + TEST, 3))
    rng = np.random.default_rng(v)
    betas = cause @ rng.standard_normal((3, v)) + 0.3 * rng.standard_normal((len(cause), v))
    names = [f"s{i:03d}" for i in range(len(cause))]
    table = pd.DataFrame({"stimulus": names, "repeat": 0, "session": 1, "run": 1})
    table["split"] = ["train"] * TRAIN + ["test"] * TEST
    who = Subject("toy", subject, VoxelSpace(v, f"hash-{subject}"))
    trials = Trials(who, (4 + 10 * betas).astype(np.float32), "units", table)
    bent = np.stack([np.abs(cause[:, 0]), cause[:, 1] * cause[:, 2], cause[:, 1]], axis=1)
    tokens = (7 + 3 * bent[:, [0, 1, 2, 0]]).reshape(-1, 2, 2)
    return trials, {
        SPACE: dict(zip(names, bent.astype(np.float32), strict=True)),
        TOKENS: dict(zip(names, tokens.astype(np.float32), strict=True)),
    }


def correlations(mapper, trials: Trials, targets: dict, space: EmbeddingSpace) -> np.ndarray:
    rows = trials.rows("test")
    truth = np.stack([targets[space][s].ravel() for s in trials.table["stimulus"].iloc[rows]])
    found = mapper.decode(trials.betas[rows], trials.subject.name)[space].reshape(truth.shape)
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(found.T, truth.T, strict=True)])


@pytest.fixture(scope="module")
def fitted() -> MLP:
    return MLP.fit([planted(s)[0] for s in VOXELS], planted()[1], seed=0, **SETTINGS)


@pytest.mark.parametrize("subject", VOXELS)
def test_it_finds_what_a_linear_map_cannot(fitted, subject):
    trials, targets = planted(subject)
    linear = correlations(Ridge.fit([trials], targets, seed=0), trials, targets, SPACE)
    assert (np.abs(linear[:2]) < 0.35).all() and linear[2] > 0.9
    assert (correlations(fitted, trials, targets, SPACE) > 0.7).all()
    assert (correlations(fitted, trials, targets, TOKENS) > 0.7).all()
    assert fitted.history["validation loss"] < 0.4  # 1 is the mean's


def test_shuffled_labels_teach_nothing_that_holds_for_new_trials():
    trials, targets = planted()
    names = trials.stimuli("train")
    order = np.random.default_rng(0).permutation(len(names))
    shuffled = {n: targets[SPACE][names[k]] for n, k in zip(names, order, strict=True)}
    mapper = MLP.fit([trials], {SPACE: shuffled}, seed=0, **(SETTINGS | {"patience": 3}))
    assert (np.abs(correlations(mapper, trials, targets, SPACE)) < 0.3).all()
    assert mapper.history["validation loss"] > 0.9
    assert mapper.history["stopped"]


def test_the_embedding_is_centre_and_scale_around_a_linear_head():
    mapper = MLP([SPACE, TOKENS], VOXELS, width=6, blocks=2)
    for block in mapper.trunk[:2]:
        torch.nn.init.zeros_(block.outer.weight)
        torch.nn.init.zeros_(block.outer.bias)
    mapper.centre_1.copy_(torch.arange(4.0))
    mapper.scale_1.fill_(3)
    betas = torch.randn(5, 9)
    h = torch.nn.functional.layer_norm(mapper.layers["of_sub-02"](betas), (6,))
    found = mapper(betas, "sub-02")
    torch.testing.assert_close(found[SPACE], mapper.heads[0](h))
    expected = torch.arange(4.0) + 3 * mapper.heads[1](h)
    torch.testing.assert_close(found[TOKENS], expected.view(5, 2, 2))
    block, h = Block(6), torch.randn(4, 6)
    inner = torch.nn.functional.gelu(block.inner(torch.nn.functional.layer_norm(h, (6,))))
    torch.testing.assert_close(block(h) - h, block.outer(inner))


def test_target_statistics_are_those_of_the_training_stimuli(fitted):
    trials, targets = planted()
    rows = np.stack([targets[TOKENS][s].ravel() for s in trials.stimuli("train")])
    np.testing.assert_allclose(fitted.centre_1, rows.mean(0), rtol=1e-5)
    spread = np.square(rows - rows.mean(0)).mean() ** 0.5
    assert fitted.scale_1.item() == pytest.approx(spread, rel=1e-5)


def test_voxels_are_dropped_in_training_alone():
    trials, targets = planted()
    data, mapper = TrialRows([trials], targets), MLP([SPACE], {"sub-01": 12}, 8, 0)
    seen = []
    mapper._embeddings = lambda voxels, subject: seen.append(voxels) or {SPACE: voxels[:, :3]}
    for training in (True, False):
        mapper._predict(Batch(data, np.arange(300), training=training), 0.4, 0.0)
    dropped, plain = seen
    gone = dropped == 0
    assert 0.35 < gone.float().mean() < 0.45 and not (plain == 0).any()
    torch.testing.assert_close(dropped[~gone], plain[~gone] / 0.6)
    mapper._predict(Batch(data, np.arange(300), training=True), 0.0, 0.5)
    assert (seen[2] - plain).std().item() == pytest.approx(0.5, rel=0.05)


def test_settings_come_from_the_command_line():
    found = read_settings("mlp", MLP, ["width=64", "blocks=0", "voxel_dropout=0.5"])
    assert found == {"width": 64, "blocks": 0, "voxel_dropout": 0.5}


def test_bad_input_is_named():
    trials, targets = planted()
    for wrong, message in (
        ({"width": 0}, "width is a whole number from 1, .* found width=0, blocks=2"),
        ({"blocks": -1}, "blocks from 0, .* blocks=-1"),
        ({"voxel_dropout": 1.0}, "from 0 to below 1 .* voxel_dropout=1"),
        ({"noise": -0.5}, "noise not below 0, .* noise=-0.5"),
        ({"epochs": 0}, "epochs is a whole number from 1, found 0"),
    ):
        with pytest.raises(UserError, match=message):
            MLP.fit([trials], targets, seed=0, **wrong)
    same = {SPACE: dict.fromkeys(targets[SPACE], np.ones(3, np.float32))}
    with pytest.raises(UserError, match="same embedding in toy/vector; choose another space"):
        MLP.fit([trials], same, seed=0)
