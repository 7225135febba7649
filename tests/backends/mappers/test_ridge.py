"""Ridge: equal to an oracle in every form, honest about folds, and finds what was planted."""

import numpy as np
import pandas as pd
import pytest
import torch

from backends.datasets.reading import LazyRows
from backends.mappers import ridge
from backends.mappers.ridge import Ridge, bytes_needed
from backends.training import ridge_solver as linear
from backends.training.ridge_solver import (
    ALPHAS,
    Columns,
    cross_validate,
    decompose,
    grouped_folds,
    leave_out,
    recalibrate_test_batch,
    solve,
    stack,
)
from explorer.mapper import ROWS_AT_ONCE
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
    assert decompose(padded).kernel and not decompose(square).kernel
    torch.testing.assert_close(kernel[:30], gram)
    torch.testing.assert_close(b, c)
    assert kernel[30:].abs().max() == 0


# few voxels for the rows of a fold; fewer than the rows of all folds; more than these
FORMS = pytest.mark.parametrize(("n", "v"), [(60, 5), (60, 31), (60, 90)])


def fold_by_fold(voxels, goals, held_out, alphas):
    """Return squared errors (alphas, D) and predictions (alphas, n, D), fitted fold by fold."""
    predicted = torch.zeros(len(alphas), *goals.shape, dtype=goals.dtype)
    for rows in held_out:
        rest = np.setdiff1d(np.arange(len(goals)), rows)
        for a, alpha in enumerate(alphas):
            penalty = torch.full((goals.shape[1],), alpha, dtype=goals.dtype)
            weight, intercept = solve(voxels[rest], goals[rest], penalty)
            predicted[a, rows] = voxels[rows] @ weight + intercept
    return (predicted - goals).square().sum(1), predicted


def noisy(n: int, v: int, seed: int = 6):
    rng = np.random.default_rng(seed)
    cause = rng.standard_normal((n, 4))
    voxels = cause @ rng.standard_normal((4, v)) + rng.standard_normal((n, v)) + 0.5
    goals = cause @ rng.standard_normal((4, 7)) + np.geomspace(0.2, 20, 7) * (
        1 + rng.standard_normal((n, 7))
    )
    return torch.from_numpy(voxels), torch.from_numpy(goals)


@FORMS
def test_one_decomposition_says_what_fits_fold_by_fold_say(n, v):
    voxels, goals = noisy(n, v)
    held_out, alphas = grouped_folds(np.repeat(np.arange(n // 3), 3), 5, 0), (10.0, 300.0, 3e4)
    error, predicted = fold_by_fold(voxels, goals, held_out, alphas)
    best = error.argmin(0)
    found = cross_validate(decompose(voxels), goals, held_out, alphas)
    torch.testing.assert_close(found.alpha, torch.tensor(alphas, dtype=torch.float64)[best])
    assert len(set(found.alpha.tolist())) > 1
    chosen = predicted[best, :, torch.arange(7)].T  # (n, D)
    total = (goals - goals.mean(0)).square().sum(0)
    torch.testing.assert_close(found.r2, 1 - error.min(0).values / total)
    oracle = [np.corrcoef(a, b)[0, 1] for a, b in zip(chosen.T, goals.T, strict=True)]
    np.testing.assert_allclose(found.correlation, oracle)
    torch.testing.assert_close(found.predicted_mean, chosen.mean(0))
    torch.testing.assert_close(found.predicted_sd, chosen.std(0, correction=0))
    torch.testing.assert_close(found.mean, goals.mean(0))
    torch.testing.assert_close(found.sd, goals.std(0, correction=0))


@FORMS
def test_single_precision_is_enough(n, v):
    voxels, goals = noisy(n, v)
    held_out = grouped_folds(np.arange(n), 5, 0)
    exact = cross_validate(voxels, goals, held_out, ALPHAS)
    found = cross_validate(voxels.float(), goals.float(), held_out, ALPHAS)
    torch.testing.assert_close(found.alpha.double(), exact.alpha, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.r2.double(), exact.r2, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.correlation.double(), exact.correlation, rtol=0, atol=1e-5)
    weight, intercept = solve(voxels.float(), goals.float(), exact.alpha.float())
    wanted, also = solve(voxels, goals, exact.alpha)
    scale = wanted.abs().max().item()
    torch.testing.assert_close(weight.double(), wanted, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(intercept.double(), also, rtol=1e-5, atol=1e-5 * scale)


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
