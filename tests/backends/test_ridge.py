"""Ridge: equal to an oracle in both forms, honest about folds, and finds what was planted."""

import numpy as np
import pandas as pd
import pytest
import torch

from backends.linear import (
    ALPHAS,
    cross_validate,
    decompose,
    grouped_folds,
    leave_out,
    solve,
)
from backends.mappers.ridge import Ridge
from explorer.types import EmbeddingSpace, Subject, Trials, UserError, VoxelSpace

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


@pytest.mark.parametrize(("n", "v"), [(80, 20), (40, 90)], ids=["gram", "kernel"])
def test_weights_equal_those_of_scikit_learn(n, v):
    from sklearn.linear_model import Ridge as Oracle

    rng = np.random.default_rng(1)
    voxels, goals = rng.standard_normal((n, v)) + 0.5, rng.standard_normal((n, 3))
    alpha = np.array([0.5, 30.0, 4000.0])
    weight, intercept = solve(*map(torch.from_numpy, (voxels, goals, alpha)))
    oracle = Oracle(alpha=alpha).fit(voxels, goals)
    np.testing.assert_allclose(weight.numpy(), oracle.coef_.T, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(intercept.numpy(), oracle.intercept_, rtol=1e-8)


@pytest.mark.parametrize(("n", "v"), [(90, 20), (45, 120)], ids=["gram", "kernel"])
def test_penalties_and_predictions_equal_himalayas(n, v):
    himalaya = pytest.importorskip("himalaya.ridge")
    rng = np.random.default_rng(2)
    voxels = rng.standard_normal((n, v))
    noise = np.array([0.1, 3.0, 10.0, 30.0])
    goals = voxels @ rng.standard_normal((v, 4)) + noise * rng.standard_normal((n, 4)) * v**0.5
    folds = grouped_folds(np.arange(n), 3, 0)
    rows = np.arange(n)
    alphas = np.logspace(-1, 5, 13)
    oracle = himalaya.RidgeCV(
        alphas,
        fit_intercept=True,
        cv=[(np.setdiff1d(rows, fold), fold) for fold in folds],
        solver_params={"warn": False},
    ).fit(voxels, goals)
    x, y = torch.from_numpy(voxels), torch.from_numpy(goals)
    found = cross_validate(x, y, folds, alphas)
    np.testing.assert_allclose(found.alpha.numpy(), oracle.best_alphas_, rtol=1e-6)
    assert len(set(found.alpha.tolist())) > 1
    weight, intercept = solve(x, y, found.alpha)
    new = rng.standard_normal((7, v))
    expected = oracle.predict(new)
    np.testing.assert_allclose(new @ weight.numpy() + intercept.numpy(), expected, rtol=1e-5)


def test_gram_and_kernel_agree_at_the_same_penalty():
    rng = np.random.default_rng(3)
    square = torch.from_numpy(rng.standard_normal((30, 30)))
    padded = torch.cat([square, torch.zeros(30, 5, dtype=square.dtype)], dim=1)
    goals, alpha = torch.from_numpy(rng.standard_normal((30, 2))), torch.tensor([2.0, 70.0])
    gram, b = solve(square, goals, alpha)
    kernel, c = solve(padded, goals, alpha)
    assert decompose(padded, goals).basis.shape == (35, 30)
    torch.testing.assert_close(kernel[:30], gram)
    torch.testing.assert_close(b, c)
    assert kernel[30:].abs().max() == 0


@pytest.mark.parametrize(("n", "v"), [(40, 8), (30, 50)], ids=["gram", "kernel"])
def test_leaving_out_a_stimulus_equals_fitting_without_it(n, v):
    rng = np.random.default_rng(4)
    voxels = torch.from_numpy(rng.standard_normal((n, v)) + 0.3)
    goals = torch.from_numpy(rng.standard_normal((n, 3)) + 2)
    alpha = torch.tensor([0.5, 20.0, 20.0], dtype=torch.float64)
    groups = np.array([f"s{i}" for i in rng.integers(0, n // 2, n)])  # groups of several sizes
    found = leave_out(voxels, goals, alpha, groups)
    for name in np.unique(groups):
        rows, rest = np.flatnonzero(groups == name), np.flatnonzero(groups != name)
        weight, intercept = solve(voxels[rest], goals[rest], alpha)
        torch.testing.assert_close(found[rows], voxels[rows] @ weight + intercept)


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


def test_pure_noise_is_not_scored_above_the_mean_and_gets_the_largest_penalty():
    trials, embeddings = make_trials(n=160)
    rng = np.random.default_rng(5)
    noise = {name: rng.standard_normal(4).astype(np.float32) for name in embeddings}
    scores = Ridge.fit([trials], {SPACE: noise}, seed=0).metrics["sub-01"][SPACE.name]
    assert scores["cv_r2"] < 0.05
    assert scores["alpha"][1] >= 1e3


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


def test_trials_of_a_stimulus_stay_in_one_fold():
    stimuli = np.repeat([f"s{i}" for i in range(11)], 3)
    folds = grouped_folds(stimuli, 4, seed=1)
    assert sorted(np.concatenate(folds).tolist()) == list(range(33))
    sets = [set(stimuli[fold]) for fold in folds]
    assert sum(map(len, sets)) == 11
    assert {len(s) for s in sets} == {2, 3}
    assert any(
        (a != b).any() for a, b in zip(folds[:3], grouped_folds(stimuli, 4, 2), strict=False)
    )


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


def test_default_penalties_ascend():
    assert list(ALPHAS) == sorted(ALPHAS)
    assert ALPHAS[0] == 10
    assert ALPHAS[-1] == 1e6


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
    with pytest.raises(UserError, match="at least 2 training stimuli, found 1"):
        grouped_folds(np.array(["a", "a"]), 2, 0)
