"""The encoding model: equal to an oracle, honest about held-out trials, finds what was planted."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from backends.encoders.voxelwise import Encoding, assess, train_encoding
from backends.training.ridge_solver import cross_validate, grouped_folds
from explorer.mapper import read_card
from explorer.types import EmbeddingSpace, Subject, Trials, UserError, VoxelSpace

SEEN = EmbeddingSpace("toy", "seen", (4,))
TOKENS = EmbeddingSpace("toy", "tokens", (3, 10))
V, DRIVEN = 14, 9  # the first voxels answer to the picture, the others are noise


def make_trials(seed: int = 0, noise: float = 0.4) -> tuple[Trials, dict]:
    """120 stimuli shown twice, 20 of them for testing; voxel 3 never varies, units are odd."""
    rng = np.random.default_rng(seed)
    causes, number = rng.standard_normal((120, 4)), np.repeat(np.arange(120), 2)
    tuning = np.random.default_rng(99).standard_normal((4, V))
    tuning[:, DRIVEN:] = 0
    betas = causes[number] @ tuning + noise * rng.standard_normal((240, V))
    betas = betas * np.geomspace(1e-3, 1e3, V) + np.linspace(-50, 50, V)
    betas[:, 3] = 0.1
    table = pd.DataFrame({"stimulus": [f"s{i:03d}" for i in number], "session": 1, "run": 1})
    table["split"] = np.where(number < 100, "train", "test")
    table["repeat"] = np.tile([0, 1], 120)
    subject = Subject("toy", "sub-01", VoxelSpace(V, "h"))
    trials = Trials(subject, betas.astype(np.float32), "units", table)
    names = [f"s{i:03d}" for i in range(120)]
    seen = dict(zip(names, causes.astype(np.float32), strict=True))
    tokens = dict(zip(names, rng.standard_normal((120, 3, 10)).astype(np.float32), strict=True))
    return trials, {SEEN: seen, TOKENS: tokens}


def stacked(embeddings: dict, stimuli: list[str]) -> dict:
    return {space: np.stack([named[s] for s in stimuli]) for space, named in embeddings.items()}


@pytest.fixture(scope="module")
def fitted() -> Encoding:
    trials, embeddings = make_trials()
    return Encoding.fit(trials, embeddings, seed=0)


def test_betas_of_new_images_come_back_in_the_datas_own_unit(fitted):
    trials, embeddings = make_trials()
    stimuli = trials.stimuli("test")
    predicted = fitted.predict(stacked(embeddings, stimuli))
    assert predicted.shape == (20, V) and predicted.dtype == np.float32
    truth = make_trials(noise=0)[0]
    truth = np.stack([truth.average(s) for s in stimuli])
    sd = fitted.voxel_sd.numpy()
    error = np.abs(predicted - truth) / sd
    assert error[:, [i for i in range(DRIVEN) if i != 3]].mean() < 0.15  # 0.8 for the mean alone
    np.testing.assert_allclose(predicted[:, 3], 0.1, rtol=1e-6)  # a voxel that never varies


def test_predictions_equal_those_of_scikit_learn_at_the_chosen_penalties(fitted):
    from sklearn.linear_model import Ridge as Oracle

    trials, embeddings = make_trials()
    rows = trials.rows("train")
    shown = list(trials.table["stimulus"].iloc[rows])
    z = {k: v.reshape(len(v), -1).astype(float) for k, v in stacked(embeddings, shown).items()}
    new = stacked(embeddings, trials.stimuli("test"))

    def features(e):
        # 4 and 30 features share the 34 units of variance equally
        blocks = [
            (e[s].reshape(len(e[s]), -1) - z[s].mean(0)) / z[s].std(0) * (17 / s.size) ** 0.5
            for s in (SEEN, TOKENS)
        ]
        return np.concatenate(blocks, axis=1)

    oracle = Oracle(alpha=fitted.alpha.numpy().astype(float))
    oracle.fit(features(z), trials.betas[rows].astype(float))
    expected = oracle.predict(features(new)).astype(np.float32)
    scale = fitted.voxel_sd.numpy()
    np.testing.assert_allclose(fitted.predict(new) / scale, expected / scale, rtol=1e-4, atol=1e-4)


def test_the_correlation_is_that_of_predictions_for_stimuli_never_seen(fitted):
    from sklearn.linear_model import Ridge as Oracle

    rng = np.random.default_rng(1)
    x, folds = rng.standard_normal((60, 6)) + 2, grouped_folds(np.arange(60), 4, 0)
    noise = np.array([0.1, 3.0, 1e6])
    y = x @ rng.standard_normal((6, 3)) + noise * rng.standard_normal((60, 3)) + 100
    found = cross_validate(torch.from_numpy(x), torch.from_numpy(y), folds, (1.0, 100.0, 1e4))
    predicted = np.empty_like(y)
    for rows in folds:
        rest = np.setdiff1d(np.arange(60), rows)
        predicted[rows] = Oracle(alpha=found.alpha.numpy()).fit(x[rest], y[rest]).predict(x[rows])
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, y.T, strict=True)]
    np.testing.assert_allclose(found.correlation.numpy(), r, rtol=1e-6)
    r2 = 1 - np.square(predicted - y).sum(0) / np.square(y - y.mean(0)).sum(0)
    np.testing.assert_allclose(found.r2.numpy(), r2, rtol=1e-6)


def test_driven_voxels_are_selected_in_ascending_order(fitted):
    r = fitted.correlation.numpy()
    driven = [i for i in range(DRIVEN) if i != 3]
    assert r[driven].min() > 0.7 and np.abs(r[DRIVEN:]).max() < 0.3 and r[3] == 0
    assert fitted.select_voxels(8).tolist() == driven
    assert fitted.select_voxels(V).tolist() == list(range(V))
    with pytest.raises(UserError, match=r"14 voxels to select from, found n=15; choose 1 to 14"):
        fitted.select_voxels(15)


def test_noise_in_another_layer_does_not_drown_a_small_one():
    """A layer of 30 loud noise numbers beside one of 4 that matter costs little."""
    trials, embeddings = make_trials()
    loud = {**embeddings, TOKENS: {k: 1000 * v for k, v in embeddings[TOKENS].items()}}
    both = Encoding.fit(trials, loud, seed=0)
    alone = Encoding.fit(trials, {SEEN: embeddings[SEEN]}, seed=0)
    driven = [i for i in range(DRIVEN) if i != 3]
    assert (alone.correlation - both.correlation)[driven].max() < 0.05


def test_only_training_rows_decide(fitted):
    trials, embeddings = make_trials()
    spoiled = trials.betas.copy()
    spoiled[trials.rows("test")] = np.nan
    known = set(trials.stimuli("train"))
    embeddings = {k: {s: z for s, z in e.items() if s in known} for k, e in embeddings.items()}
    again = Encoding.fit(
        Trials(trials.subject, spoiled, "units", trials.table), embeddings, seed=0
    )
    for key, value in fitted.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, msg=key)


def test_betas_have_a_gradient_towards_the_image(fitted):
    _, embeddings = make_trials()
    given = {
        space: torch.from_numpy(z).requires_grad_()
        for space, z in stacked(embeddings, ["s001", "s002"]).items()
    }
    betas = fitted(given)
    betas[0].sum().backward()
    for z in given.values():
        assert z.grad[0].abs().min() > 0 and not z.grad[1].any()
    alone = torch.cat([fitted({k: z[i : i + 1] for k, z in given.items()}) for i in range(2)])
    torch.testing.assert_close(alone, betas)


@pytest.mark.parametrize("half", [False, True])
def test_a_checkpoint_comes_back_with_its_card(tmp_path, half):
    trials, embeddings = make_trials()
    said: list[str] = []
    card = train_encoding(
        *(trials, embeddings, tmp_path / "there"),
        **{"command": "test", "licence": "CC0", "folds": 3, "half": half},
        progress=said.append,
    )
    assert said == [f"Encoding for sub-01: fold {i} of 3" for i in (1, 2, 3)]
    assert card.settings == {"seed": 0, "folds": 3} and card.kind == "encoding"
    assert card.metrics["cross-validation"]["n"] == 200
    figures = card.metrics["test"]
    assert figures["N"] == 20 and figures["voxel correlation"] > 0.5
    low, high = figures["95 % interval over stimuli"]
    assert 0.9 < low <= figures["two-way identification"] <= high
    loaded = Encoding.load(tmp_path / "there", trials)
    fresh = Encoding.fit(trials, embeddings, seed=0, folds=3)
    new = stacked(embeddings, trials.stimuli("test"))
    near = {"atol": 5e-3} if half else {"atol": 1e-6}
    sd = fresh.voxel_sd.numpy()
    np.testing.assert_allclose(
        loaded.predict(new) / sd, fresh.predict(new) / sd, rtol=1e-6, **near
    )
    assert loaded.card == card and loaded.subject == "sub-01"
    assert not any(p.requires_grad for p in loaded.parameters())


def test_shuffled_pictures_predict_nothing():
    trials, embeddings = make_trials()
    names = trials.stimuli("train")
    mixed = dict(zip(names, np.random.default_rng(0).permutation(names), strict=True))
    wrong = {k: {**e, **{s: e[mixed[s]] for s in names}} for k, e in embeddings.items()}
    model = Encoding.fit(trials, wrong, seed=0)
    assert model.correlation.max() < 0.35
    low, high = assess(model, trials, wrong)["95 % interval over stimuli"]
    assert low < 0.6 < 0.9 > high


def test_voxels_that_never_vary_are_in_no_median():
    trials, embeddings = make_trials()
    betas = trials.betas.copy()
    betas[:, 4:] = np.geomspace(0.1, 127.3, V - 4)  # most of them: rounding would be a correlation
    trials = Trials(trials.subject, betas.astype(np.float32), "units", trials.table)
    model, stimuli = Encoding.fit(trials, embeddings, seed=0), trials.stimuli("test")
    found = assess(model, trials, embeddings)["voxel correlation"]
    predicted = model.predict(stacked(embeddings, stimuli))
    measured = np.stack([trials.average(s) for s in stimuli])
    each = [np.corrcoef(predicted[:, i], measured[:, i])[0, 1] for i in range(3)]
    assert found == pytest.approx(np.median(each), abs=1e-4)


def test_a_model_of_other_voxels_or_another_kind_is_refused(tmp_path):
    trials, embeddings = make_trials()
    folder = tmp_path / "there"
    train_encoding(trials, embeddings, folder, command="test", licence="CC0", folds=2)
    other = Subject("toy", "sub-01", VoxelSpace(V, "other"))
    with pytest.raises(UserError, match=r"trained on 14 voxels of sub-01 \(hash h\)"):
        Encoding.load(folder, Trials(other, trials.betas, "units", trials.table))
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "kind": "mapper"}))
    with pytest.raises(UserError, match="kind 'mapper' for 1 subjects, expected 'encoding'"):
        Encoding.load(folder)


def test_bad_input_is_named(fitted):
    trials, embeddings = make_trials()
    with pytest.raises(UserError, match="reads toy/tokens, found toy/seen; embed the images"):
        fitted.predict({SEEN: np.zeros((1, 4))})
    with pytest.raises(UserError, match=r"toy/tokens has the shape \(3, 10\), found \(3, 9\)"):
        fitted.predict({SEEN: np.zeros((1, 4)), TOKENS: np.zeros((1, 3, 9))})
    with pytest.raises(UserError, match="embeddings in at least one space, found 0"):
        Encoding.fit(trials, {}, seed=0)
    with pytest.raises(UserError, match="alphas must be positive"):
        Encoding.fit(trials, embeddings, seed=0, alphas=(0.0,))
    with pytest.raises(UserError, match="100 training stimuli .* found folds=101"):
        Encoding.fit(trials, embeddings, seed=0, folds=101)
    lacking = {SEEN: {k: v for k, v in embeddings[SEEN].items() if k != "s007"}}
    with pytest.raises(UserError, match="'s007' has no embedding in toy/seen"):
        Encoding.fit(trials, lacking, seed=0)
    spoiled = trials.betas.copy()
    spoiled[5, 2] = np.nan
    with pytest.raises(UserError, match=r"not finite \(first in voxel 2\)"):
        Encoding.fit(Trials(trials.subject, spoiled, "u", trials.table), embeddings, seed=0)


def test_the_command_line_trains_one_model_a_subject(tmp_path, monkeypatch, capsys):
    from PIL import Image

    from backends.__main__ import main

    rng, root = np.random.default_rng(0), tmp_path / "study"
    (root / "stimuli").mkdir(parents=True)
    (root / "sub-01").mkdir()
    grids = rng.integers(0, 2, (60, 10, 10)).astype(np.uint8) * 255
    names = [f"p{i:02d}" for i in range(60)]
    for name, grid in zip(names, grids, strict=True):
        image = Image.fromarray(grid).resize((40, 40), Image.Resampling.NEAREST).convert("RGB")
        image.save(root / "stimuli" / f"{name}.png")
    (root / "dataset.json").write_text(json.dumps({"title": "Cells", "licence": "CC0"}))
    files = pd.DataFrame({"file": [f"{name}.png" for name in names]})
    files.to_csv(root / "stimuli" / "stimuli.tsv", sep="\t", index=False)
    betas = grids.reshape(60, 100)[:, :30] / 255 + 0.1 * rng.standard_normal((60, 30))
    np.save(root / "sub-01" / "betas.npy", betas.astype(np.float32))
    pd.DataFrame({"stimulus": names, "split": ["train"] * 48 + ["test"] * 12}).to_csv(
        root / "sub-01" / "trials.tsv", sep="\t", index=False
    )
    words = ["train-encoding", "--dataset", f"cells={root}", "--space", "pixels/10x10"]
    monkeypatch.setattr(
        sys, "argv", ["backends", *words, "--folds", "4", "--checkpoints", str(tmp_path / "kept")]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert "sub-01" in capsys.readouterr().out
    folder = tmp_path / "kept" / "encoding" / "cells" / "sub-01"
    card = read_card(folder)
    assert card.settings["folds"] == 4 and "train-encoding --dataset cells=" in card.command
    assert card.metrics["test"]["two-way identification"] > 0.8
    assert Encoding.load(folder).select_voxels(3).shape == (3,)
