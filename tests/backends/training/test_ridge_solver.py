"""The ridge solver: equal to oracles in every form, folds of whole stimuli, constants told."""

import numpy as np
import pytest
import torch

from backends.training import decomposition, ridge_solver
from backends.training.decomposition import decompose
from backends.training.goals import Columns
from backends.training.ridge_solver import (
    ALPHAS,
    cross_validate,
    grouped_folds,
    leave_out,
    recalibrate_test_batch,
    solve,
)
from explorer.types import EmbeddingSpace, UserError
from tests.backends.training.toy import fold_by_fold


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


def test_default_penalties_ascend():
    assert list(ALPHAS) == sorted(ALPHAS)
    assert ALPHAS[0] == 10
    assert ALPHAS[-1] == 1e6


def test_folds_need_two_groups_and_no_more_folds_than_these():
    with pytest.raises(UserError, match="at least 2 training stimuli, found 1"):
        grouped_folds(np.array(["a", "a"]), 2, 0)
    for n in (2, 5):
        names = np.repeat(np.arange(n), 2)
        for folds in {2, n}:
            every = np.concatenate(grouped_folds(names, folds, 0))
            assert sorted(every.tolist()) == list(range(2 * n))
        for folds in (1, n + 1):
            with pytest.raises(UserError, match=f"can form 2 to {n} folds, found folds={folds}"):
                grouped_folds(names, folds, 0)


@pytest.mark.parametrize("form", ["gram", "kernel"])
def test_rounding_of_a_constant_is_not_variation(form):
    # in float32 the mean of these numbers, each many times, is not exactly that number
    rng = np.random.default_rng(0)
    n, v = (977, 30) if form == "gram" else (80, 120)
    voxels = torch.from_numpy(rng.standard_normal((n, v)).astype(np.float32))
    goals = torch.tensor([0.1, 127.3, -3e4, 1e-9, 0.0]).repeat(n, 1)
    goals = torch.cat([goals, voxels[:, :1] + 5], dim=1)
    assert (goals - goals.mean(0))[:, :5].any()
    found = cross_validate(voxels, goals, grouped_folds(np.arange(n), 5, 0), ALPHAS)
    assert found.varies.tolist() == [False] * 5 + [True]
    for values in (found.r2, found.correlation, found.sd, found.predicted_sd):
        assert not values[:5].any() and values[5] > 0.4


def test_correlations_do_not_depend_on_the_unit():
    voxels, goals = (z.float() for z in noisy(60, 8))
    folds = grouped_folds(np.arange(60), 5, 0)
    usual = cross_validate(voxels, goals, folds, [1e3])
    small = cross_validate(voxels, goals * 1e-13, folds, [1e3])  # squares of squares underflow
    torch.testing.assert_close(small.correlation, usual.correlation, rtol=1e-4, atol=0)


def test_a_batch_of_equal_predictions_becomes_the_training_mean():
    rng = np.random.default_rng(0)
    predicted, training = np.full((10, 3), 0.1), 5 + rng.standard_normal((40, 3))
    assert (predicted - predicted.mean(0)).any()
    found = recalibrate_test_batch(predicted, training)
    np.testing.assert_array_equal(found, np.broadcast_to(training.mean(0), (10, 3)))


@pytest.mark.parametrize(("n", "v"), [(60, 5), (60, 31), (60, 90)])
def test_forms_over_stimuli_equal_every_row_predicted(n, v, monkeypatch):
    voxels, _ = noisy(n, v)
    rng = np.random.default_rng(8)
    stimuli = np.array([f"s{i}" for i in rng.integers(0, 15, n)])  # shown unequally often
    space = EmbeddingSpace("toy", "wide", (40, 40))
    cause = {s: voxels[stimuli == s].mean(0)[:3].numpy() for s in set(stimuli)}
    readout = rng.standard_normal((3, 1600))
    sizes = np.geomspace(0.1, 30, 1600)
    embeddings = {
        s: (c @ readout + sizes * rng.standard_normal(1600) + 3).reshape(40, 40)
        for s, c in cause.items()
    }
    goals = Columns({space: embeddings}, stimuli)
    rows = torch.from_numpy(np.stack([embeddings[s].ravel() for s in stimuli]))
    folds = grouped_folds(np.arange(n), 5, 0)  # a stimulus may lie in several
    monkeypatch.setattr(decomposition, "STRIP", 7)
    monkeypatch.setattr(ridge_solver, "STRIP", 4)
    told = []
    found = cross_validate(voxels, goals, folds, ALPHAS, told.append)
    assert told[0] == "penalty 1 of 16, fold 1 of 5" and len(told) == 80
    wanted = cross_validate(voxels, rows, folds, ALPHAS)
    assert len(set(wanted.alpha.tolist())) > 3
    same = found.alpha == wanted.alpha
    assert same.float().mean() > 0.99  # goals are float32: a tie may fall either way
    for name in ("r2", "correlation", "mean", "sd", "predicted_mean", "predicted_sd"):
        a, b = getattr(found, name)[same], getattr(wanted, name)[same]
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)
