"""Ridge: finds what was planted, honest about folds, and says what does not vary."""

import numpy as np
import pandas as pd
import pytest
import torch

from backends.datasets.reading import LazyRows
from backends.mappers import ridge
from backends.mappers.ridge import Ridge, bytes_needed
from backends.training import ridge_solver as linear
from backends.training.goals import Columns, stack
from backends.training.ridge_solver import ALPHAS, grouped_folds, recalibrate_test_batch
from explorer.mapper import ROWS_AT_ONCE
from explorer.types import EmbeddingSpace, Subject, Trials, UserError, VoxelSpace
from tests.backends.training.toy import fold_by_fold

SPACE = EmbeddingSpace("toy", "vector", (4,))
TOKENS = EmbeddingSpace("toy", "tokens", (3, 2))


def make_trials(n: int = 60, v: int = 12, repeats: int = 1, seed: int = 0, name: str = "sub-01"):
    """Betas that a linear map of a 4-D cause makes, with odd means and units, and some noise."""
    rng = np.random.default_rng(seed)
    causes = rng.standard_normal((n, 4))
    number = np.repeat(np.arange(n), repeats)
    betas = causes[number] @ rng.standard_normal((4, v)) + 0.3 * rng.standard_normal(
        (n * repeats, v)
    )
    betas = (5 + betas * np.linspace(0.1, 30, v)).astype(np.float32)
    table = pd.DataFrame({"stimulus": [f"s{i:03d}" for i in number], "session": 1, "run": 1})
    table["split"] = np.where(number < n * 3 // 4, "train", "test")
    table["repeat"] = np.tile(np.arange(repeats), n)
    trials = Trials(Subject("toy", name, VoxelSpace(v, f"hash{v}")), betas, "units", table)
    return trials, {f"s{i:03d}": cause.astype(np.float32) for i, cause in enumerate(causes)}


def test_fit_recovers_a_planted_linear_map():
    trials, embeddings = make_trials(repeats=2)
    mapper = Ridge.fit([trials], {SPACE: embeddings}, seed=0)
    rows = trials.rows("test")
    truth = np.stack([embeddings[s] for s in trials.table["stimulus"].iloc[rows]])
    predicted = mapper.decode(trials.betas[rows], "sub-01")[SPACE]
    assert np.corrcoef(predicted.ravel(), truth.ravel())[0, 1] > 0.97
    scores = mapper.metrics["sub-01"][SPACE.name]
    assert scores["cv_r2"] > 0.9
    assert scores["cv_correlation"] > 0.95
    assert scores["n"] == len(trials.rows("train"))


def test_goals_made_by_columns_are_those_made_at_once(monkeypatch):
    trials, embeddings = make_trials(repeats=2)
    rng = np.random.default_rng(0)
    tokens = {s: rng.standard_normal((3, 2)).astype(np.float16) for s in embeddings}
    targets = {SPACE: embeddings, TOKENS: tokens}
    stimuli = trials.table["stimulus"].to_numpy()
    whole = torch.cat([stack(space, targets[space], stimuli) for space in targets], dim=1)
    goals = Columns(targets, stimuli)
    assert goals.shape == whole.shape == (120, 10)
    rows = np.array([7, 3, 110, 3])
    for columns in (slice(0, 10), slice(0, 2), slice(3, 5), slice(4, 10), slice(9, 10)):
        assert torch.equal(goals[:, columns], whole[:, columns])
        assert torch.equal(goals[rows, columns], whole[rows, columns])
    at_once = Ridge.fit([trials], targets, seed=0, recalibrate="cross-validated")
    for module in (linear, ridge):
        monkeypatch.setattr(module, "COLUMNS_AT_ONCE", 3)
    in_pieces = Ridge.fit([trials], targets, seed=0, recalibrate="cross-validated")
    for name, value in at_once.state_dict().items():
        torch.testing.assert_close(in_pieces.state_dict()[name], value, msg=name)
    assert in_pieces.metrics["sub-01"].keys() == {SPACE.name, TOKENS.name}


def test_betas_are_read_in_blocks():
    trials, embeddings = make_trials(n=400, repeats=2)
    asked = []

    def read(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return trials.betas[rows]

    lazily = LazyRows(trials.betas.shape, read, "toy")
    found = Ridge.fit(
        [Trials(trials.subject, lazily, "units", trials.table)], {SPACE: embeddings}, seed=0
    )
    assert max(asked) == ROWS_AT_ONCE < len(trials.rows("train"))
    assert sum(asked) == 3 * len(trials.rows("train"))  # mean, SD, fit
    wanted = Ridge.fit([trials], {SPACE: embeddings}, seed=0)
    for name, value in wanted.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value)


def test_recalibrated_predictions_have_the_spread_of_the_truth():
    trials, embeddings = make_trials(n=1200)
    rng = np.random.default_rng(3)
    noise = 2 * rng.standard_normal((len(embeddings), 4))
    goals = {s: (z + e + 7).astype(np.float32) for (s, z), e in zip(
        embeddings.items(), noise, strict=True
    )}  # fmt: skip
    plain = Ridge.fit([trials], {SPACE: goals}, seed=0)
    mapper = Ridge.fit([trials], {SPACE: goals}, seed=0, recalibrate="cross-validated")
    rows = trials.rows("test")
    truth = np.stack([goals[s] for s in trials.table["stimulus"].iloc[rows]])
    before, after = (m.decode(trials.betas[rows], "sub-01")[SPACE] for m in (plain, mapper))
    assert (before.std(0) < 0.6 * truth.std(0)).all()
    assert (np.abs(after.std(0) / truth.std(0) - 1) < 0.15).all()
    assert (np.abs(after.mean(0) - truth.mean(0)) < 0.35).all()
    for k in range(4):
        assert np.corrcoef(before[:, k], after[:, k])[0, 1] > 0.99999
    # by its definition: the held-out folds' predictions get the mean and SD of training
    rows = trials.rows("train")
    stimuli = trials.table["stimulus"].iloc[rows].to_numpy()
    voxels = mapper.standardise(torch.from_numpy(trials.betas[rows]), "sub-01").double()
    truth = stack(SPACE, goals, stimuli).double()
    folds = grouped_folds(stimuli, 5, 0)
    alphas = [plain.metrics["sub-01"][SPACE.name]["alpha"][i] for i in (0, 2)]
    error, predicted = fold_by_fold(voxels, truth, folds, sorted({*alphas, *ALPHAS}))
    held_out = predicted[error.argmin(0), :, torch.arange(4)].T
    weight, _ = plain.weights("sub-01", SPACE)
    scale = truth.std(0, correction=0) / held_out.std(0, correction=0)
    changed, intercept = mapper.weights("sub-01", SPACE)
    torch.testing.assert_close(changed, (weight * scale).float(), rtol=1e-3, atol=1e-5)
    shifted = (plain.weights("sub-01", SPACE)[1] - held_out.mean(0)) * scale + truth.mean(0)
    torch.testing.assert_close(intercept, shifted.float(), rtol=1e-3, atol=1e-4)


def test_recalibration_by_the_test_batch_is_no_part_of_a_mapper():
    rng = np.random.default_rng(0)
    predicted, training = rng.standard_normal((12, 2, 3)), 5 + 3 * rng.standard_normal((40, 2, 3))
    predicted[:, 0, 0] = 4
    found = recalibrate_test_batch(predicted, training)
    np.testing.assert_allclose(found.mean(0), training.mean(0))
    varies = np.ones((2, 3), bool)
    varies[0, 0] = False
    np.testing.assert_allclose(found.std(0)[varies], training.std(0)[varies])
    assert np.corrcoef(found[:, 1, 1], predicted[:, 1, 1])[0, 1] == pytest.approx(1)
    with pytest.raises(UserError, match="needs 10 samples or more, found 9; choose recal"):
        recalibrate_test_batch(predicted[:9], training)
    trials, embeddings = make_trials()
    with pytest.raises(UserError, match="depend on the others of its batch, which no mapper may"):
        Ridge.fit([trials], {SPACE: embeddings}, seed=0, recalibrate="test-batch")
    with pytest.raises(UserError, match="none or cross-validated, found 'yes'"):
        Ridge.fit([trials], {SPACE: embeddings}, seed=0, recalibrate="yes")


def test_a_fit_that_does_not_fit_into_memory_is_refused_before_it_begins(monkeypatch):
    context = bytes_needed(27_000, 15_724, 59_136, 5)
    weights = 4 * 15_724 * 59_136
    assert 2 * weights < context < 10e9  # under 16 GB with 2.1 GB of embeddings
    assert bytes_needed(27_000, 15_724, 768, 5) < context
    assert bytes_needed(4_000, 6_000, 512, 5) > 4 * (2 * 4_000 * 6_000 + 4 * 4_000**2) - 1
    trials, embeddings = make_trials()
    monkeypatch.setattr(ridge, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(ridge, "decompose", None)
    with pytest.raises(UserError, match=r"ridge for sub-01 needs 0\.0 GB of memory, 0\.0 GB are"):
        Ridge.fit([trials], {SPACE: embeddings}, seed=0)
    monkeypatch.undo()
    assert ridge.free_bytes("cpu") > 1e7


def test_pure_noise_is_not_scored_above_the_mean_and_gets_the_largest_penalty():
    trials, embeddings = make_trials(n=160)
    rng = np.random.default_rng(5)
    noise = {name: rng.standard_normal(4).astype(np.float32) for name in embeddings}
    scores = Ridge.fit([trials], {SPACE: noise}, seed=0).metrics["sub-01"][SPACE.name]
    assert scores["cv_r2"] < 0.05
    assert scores["alpha"][1] >= 1e3


def test_what_never_varies_is_in_no_mean_of_the_card():
    trials, embeddings = make_trials(n=130)
    grey = EmbeddingSpace("pixels", "grey", (6,))  # two pixels are the same in every picture
    padded = {s: np.r_[z, 127.3, 0.1].astype(np.float32) for s, z in embeddings.items()}
    found = Ridge.fit([trials], {SPACE: embeddings, grey: padded}, seed=0).metrics["sub-01"]
    plain, with_grey = found[SPACE.name], found[grey.name]
    assert plain["cv_correlation"] > 0.9
    assert with_grey["cv_correlation"] == pytest.approx(plain["cv_correlation"])
    assert with_grey["cv_r2"] == pytest.approx(plain["cv_r2"])
    assert with_grey["constant targets"] == 2 and "constant targets" not in plain
    recalibrated = Ridge.fit([trials], {grey: padded}, seed=0, recalibrate="cross-validated")
    weight, intercept = recalibrated.weights("sub-01", grey)
    assert not weight[:, 4:].any()
    assert intercept[4:].tolist() == pytest.approx([127.3, 0.1], rel=1e-6)


def test_test_rows_are_never_looked_at():
    trials, embeddings = make_trials()
    poisoned = trials.betas.copy()
    poisoned[trials.rows("test")] = np.nan
    clean = Ridge.fit([trials], {SPACE: embeddings}, seed=0)
    train_only = {s: embeddings[s] for s in trials.stimuli("train")}
    other = Ridge.fit(
        [Trials(trials.subject, poisoned, "units", trials.table)], {SPACE: train_only}, seed=0
    )
    for name, value in clean.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)


def test_where_train_and_test_share_stimuli_repeats_form_the_folds():
    # With few stimuli a held-out stimulus says nothing about a held-out repeat: the penalty that
    # folds over stimuli would choose is the largest, which predicts the mean.
    rng = np.random.default_rng(0)
    patterns, number = rng.standard_normal((6, 30)), np.tile(np.arange(6), 8)
    betas = (patterns[number] + 0.5 * rng.standard_normal((48, 30))).astype(np.float32)
    repeat = np.repeat(np.arange(8), 6)
    table = pd.DataFrame({"stimulus": [f"p{i}" for i in number], "session": 1, "run": 1})
    table["split"] = np.where(repeat < 6, "train", "test")
    table["repeat"] = np.where(repeat < 6, repeat, repeat - 6)
    trials = Trials(Subject("toy", "s", VoxelSpace(30, "h")), betas, "units", table)
    goals = {f"p{i}": rng.standard_normal(4).astype(np.float32) for i in range(6)}
    mapper = Ridge.fit([trials], {SPACE: goals}, seed=0, folds=3)
    assert mapper.metrics["s"][SPACE.name]["cv_r2"] > 0.5


def test_several_subjects_and_a_token_space():
    (one, embeddings), (two, _) = make_trials(), make_trials(v=17, name="sub-02")
    rng = np.random.default_rng(0)
    tokens = {s: rng.standard_normal((3, 2)).astype(np.float32) for s in embeddings}
    said = []
    mapper = Ridge.fit(
        [one, two], {SPACE: embeddings, TOKENS: tokens}, seed=0, progress=said.append
    )
    assert mapper.subjects == ("sub-01", "sub-02")
    for trials in (one, two):
        found = mapper.decode(trials.betas[:3], trials.subject.name)
        assert found[TOKENS].shape == (3, 3, 2)
        assert found[SPACE].shape == (3, 4)
    assert said[0] == "Ridge for sub-01: fold 1 of 5"
    assert len(said) == 10


def test_bad_input_is_named():
    trials, embeddings = make_trials()
    with pytest.raises(UserError, match=r"'s007' has no embedding in toy/vector"):
        Ridge.fit([trials], {SPACE: {k: v for k, v in embeddings.items() if k != "s007"}}, seed=0)
    wrong = {**embeddings, "s003": np.zeros(5, np.float32)}
    with pytest.raises(
        UserError, match=r"'s003' in toy/vector needs .* \(4,\), found shape \(5,\)"
    ):
        Ridge.fit([trials], {SPACE: wrong}, seed=0)
    with pytest.raises(UserError, match="alphas must be positive"):
        Ridge.fit([trials], {SPACE: embeddings}, seed=0, alphas=(0.0, 1.0))
    with pytest.raises(UserError, match="45 training stimuli .* found folds=46"):
        Ridge.fit([trials], {SPACE: embeddings}, seed=0, folds=46)
