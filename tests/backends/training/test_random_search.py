"""Random search: what is drawn, that it goes on where it stopped, that test stays shut."""

import json
import re
import shlex
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from backends.__main__ import main
from backends.mappers.contrastive import Contrastive
from backends.mappers.ridge import Ridge
from backends.training.counted import Counted
from backends.training.random_search import (
    BEST,
    TABLE,
    best_settings,
    held_out_score,
    hold_out,
    read_tries,
    search,
    train_command,
    write_best,
)
from backends.training.settings import read_settings
from explorer.types import EmbeddingSpace, Subject, Trials, UserError, VoxelSpace

SPACE = EmbeddingSpace("toy", "vector", (4,))


class Scaled:
    """A mapper that knows the truth up to noise of a size that is its setting; 3 diverges."""

    joint = True
    fits: list = []

    def __init__(self, noise):
        self.noise = noise

    @classmethod
    def fit(
        cls, trials, targets, *, seed, progress=None, noise=1.0, depth=2, kind="a", weights=(1.0,)
    ):
        cls.fits.append((noise, depth, kind, [sorted(one.stimuli("train")) for one in trials]))
        if depth == 3:
            raise UserError("toy: the loss became nan at step 1.")
        return cls(noise)

    def decode(self, betas, subject):
        rng = np.random.default_rng(0)
        return {SPACE: betas[:, :4] + self.noise * rng.standard_normal((len(betas), 4))}


@pytest.fixture
def study():
    """Two subjects whose first voxels are the embedding; test betas are not numbers."""
    Scaled.fits = []
    rng = np.random.default_rng(5)
    z = rng.standard_normal((40, 4)).astype(np.float32)
    number = np.repeat(np.arange(40), 2)
    table = pd.DataFrame({"stimulus": [f"s{i:02d}" for i in number], "session": 1, "run": 1})
    table["split"] = np.where(number < 30, "train", "test")
    table["repeat"] = np.tile([0, 1], 40)
    trials = []
    for name, v in (("sub-01", 6), ("sub-02", 5)):
        betas = np.hstack([z[number], rng.standard_normal((80, v - 4))]).astype(np.float32)
        betas[60:] = np.nan
        trials.append(Trials(Subject("toy", name, VoxelSpace(v, name)), betas, "units", table))
    return trials, {SPACE: {f"s{i:02d}": row for i, row in enumerate(z[:30])}}


def tried(*texts):
    return read_tries("scaled", Scaled, texts)


def test_what_is_drawn_lies_where_it_was_said(study, tmp_path):
    tries = tried("noise=0.01..10:log", "depth=1..2", "kind=a,b")
    table = search("scaled", Scaled, *study, tmp_path, tries=tries, count=24)
    drawn = table["noise"].astype(float)
    assert drawn.between(0.01, 10).all() and 0.2 < (drawn < 0.316).mean() < 0.8  # half of the log
    assert set(table["depth"]) == {1, 2} and set(table["kind"]) == {"a", "b"}
    assert table["score"].is_monotonic_decreasing and table["score"].iloc[0] == 1
    assert table["noise"].iloc[0] < 1 < table["noise"].iloc[-1]  # what decides is found
    assert sorted(table["trial"]) == list(range(1, 25))
    stored = pd.read_csv(tmp_path / TABLE)
    np.testing.assert_allclose(stored["score"], table["score"])


def test_stimuli_are_held_out_for_everybody_and_test_rows_are_never_read(study, tmp_path):
    trials, embeddings = study
    fitted, held_out = hold_out(trials, 0.2, seed=1)
    names = trials[0].table["stimulus"]
    out = [set(names[rows]) for rows in held_out.values()]
    assert out[0] == out[1] and len(out[0]) == 6
    for one, rows in zip(fitted, held_out.values(), strict=True):
        assert len(rows) == 12 and np.isfinite(one.betas[rows]).all()
        assert not set(one.stimuli("train")) & out[0] and len(one.stimuli("train")) == 24
        assert set(one.rows("test")) == {*rows, *range(60, 80)}
    assert held_out_score(Scaled, fitted, held_out, embeddings, {"noise": 0.0}, seed=0) == 1


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(study, tmp_path):
    tries = tried("noise=0.01..10:log", "kind=a,b,c")
    said = []
    whole = search(
        *("scaled", Scaled, *study, tmp_path / "whole"),
        tries=tries,
        count=6,
        seed=3,
        progress=said.append,
    )
    counted = [one for one in said if isinstance(one, Counted)]
    assert [(one.done, one.total) for one in counted] == [(i, 6) for i in range(1, 7)]

    class Stopped(Scaled):
        @classmethod
        def fit(cls, *arguments, **settings):
            if len(cls.fits) == 4:
                raise KeyboardInterrupt
            return super().fit(*arguments, **settings)

    Scaled.fits = []
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        search("scaled", Stopped, *study, broken, tries=tries, count=6, seed=3)
    assert len(pd.read_csv(broken / TABLE)) == 4
    resumed = search("scaled", Scaled, *study, broken, tries=tries, count=6, seed=3)
    pd.testing.assert_frame_equal(resumed, whole)
    done = len(Scaled.fits)
    again = search("scaled", Scaled, *study, broken, tries=tries, count=6, seed=3)
    assert len(Scaled.fits) == done  # nothing is left to do
    pd.testing.assert_frame_equal(again, whole)
    other = search("scaled", Scaled, *study, tmp_path / "other", tries=tries, count=6, seed=4)
    assert not set(other["noise"]) & set(whole["noise"])


def test_a_trial_that_cannot_be_trained_is_an_answer(study, tmp_path):
    table = search("scaled", Scaled, *study, tmp_path, tries=tried("depth=2,3"), count=8)
    failed = table["depth"] == 3
    assert 0 < failed.sum() < 8 and table["score"].isna().equals(failed)
    assert set(table["why"][failed]) == {"toy: the loss became nan at step 1."}
    assert not failed.iloc[0] and best_settings(table, tried("depth=2,3")) == {"depth": 2}
    with pytest.raises(UserError, match="None of 1 trials could be trained; the first: toy: the"):
        best_settings(table[failed].head(1), tried("depth=2,3"))


def test_another_search_in_the_same_folder_is_refused(study, tmp_path):
    search("scaled", Scaled, *study, tmp_path, tries=tried("noise=0..1"), count=1)
    with pytest.raises(
        UserError, match=r"holds a search with other seed \(0, not 1\); give --out"
    ):
        search("scaled", Scaled, *study, tmp_path, tries=tried("noise=0..1"), count=1, seed=1)
    with pytest.raises(UserError, match="holds a search with other tries"):
        search("scaled", Scaled, *study, tmp_path, tries=tried("noise=0..2"), count=1)


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ([], "nothing to search over; give one --try at least, e.g. --try noise=A,B,C"),
        (["width=1..2"], "found 'width=1..2'; its settings are noise, depth, kind, weights"),
        (["noise=1..2", "noise=3..4"], "each setting of scaled once, found 'noise=3..4'"),
        (["noise="], "found 'noise='"),
        (["noise=2..1"], "--try noise=LOW..HIGH takes two numbers, the lower first"),
        (["noise=0..1:log"], "with :log both above 0, found 'noise=0..1:log'"),
        (["noise=1..2:ln"], "found 'noise=1..2:ln'"),
        (["kind=a..b"], "takes two numbers"),
        (["kind=a,a"], "takes different values, found 'kind=a,a'"),
        (["depth=1,two"], "depth of scaled is of the kind int like its default 2, found 'two'"),
        (["weights=1,2"], "weights of scaled is a list of numbers"),
    ],
)
def test_a_wrong_try_is_one_sentence(texts, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        tried(*texts)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"count": 0}, "found 0 trials and the share 0.2"),
        ({"share": 1.0}, "found 5 trials and the share 1"),
        ({"fixed": {"noise": 1.0}}, "noise is both fixed by --set and drawn by --try"),
        ({"share": 0.01}, "too few training trials: 1 stimuli are held out, and 2 are the least"),
    ],
)
def test_a_search_that_cannot_be_run_is_one_sentence(changes, sentence, study, tmp_path):
    asked = {"tries": tried("noise=0..1"), "count": 5} | changes
    with pytest.raises(UserError, match=sentence):
        table = search("scaled", Scaled, *study, tmp_path, **asked)
        best_settings(table, asked["tries"])


def test_the_best_command_reads_back_to_the_same_settings(tmp_path):
    best = {"lr": 0.00123456789012, "width": 64, "activation": "gelu"}
    command = train_command(
        "contrastive", best, dataset="mine=/a folder?x=1", subjects=["sub-01"],
        spaces=["pixels/10x10"], seed=4,
    )  # fmt: skip
    words = shlex.split(command)
    assert words[:7] == ["python", "-m", "backends", "train", "contrastive", "--dataset",
                         "mine=/a folder?x=1"]  # fmt: skip
    pairs = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert read_settings("contrastive", Contrastive, pairs) == best
    assert words[-2:] == ["--seed", "4"]
    write_best(tmp_path, command)
    assert (tmp_path / BEST).read_text() == command + "\n"


def test_a_mapper_that_is_not_joint_is_fitted_for_each_subject(study):
    trials, embeddings = study
    fitted, held_out = hold_out(trials, 0.3, seed=0)
    settings = {"alphas": (0.01, 1.0), "folds": 3}
    assert held_out_score(Ridge, fitted, held_out, embeddings, settings, seed=0) > 0.95


def test_trials_of_a_search_are_watched_like_a_training(study, tmp_path):
    tries = read_tries("contrastive", Contrastive, ["lr=1e-3..1e-2:log"])
    fixed = {"epochs": 1, "width": 4, "hidden": 4, "batch": 8}
    table = search("contrastive", Contrastive, *study, tmp_path, tries=tries, count=1, fixed=fixed)
    assert 0 <= table["score"].iloc[0] <= 1
    (run,) = (tmp_path / "runs" / "001").iterdir()
    assert run.name == "sub-01-sub-02" and list(run.rglob("events.*"))
    assert not list(run.rglob("state.pt"))


def test_the_command_searches_and_tells_how_to_train(tmp_path, monkeypatch, capsys):
    rng, root = np.random.default_rng(0), tmp_path / "cells"
    for folder in ("stimuli", "sub-01"):
        (root / folder).mkdir(parents=True)
    grids = rng.integers(0, 2, (30, 10, 10)).astype(np.uint8) * 255
    names = [f"p{i:02d}" for i in range(30)]
    for name, grid in zip(names, grids, strict=True):
        Image.fromarray(grid).save(root / "stimuli" / f"{name}.png")
    (root / "dataset.json").write_text(json.dumps({"title": "Cells"}))
    files = pd.DataFrame({"file": [f"{name}.png" for name in names]})
    files.to_csv(root / "stimuli" / "stimuli.tsv", sep="\t", index=False)
    np.save(root / "sub-01" / "betas.npy", grids.reshape(30, 100).astype(np.float32))
    table = pd.DataFrame({"stimulus": names, "split": ["train"] * 24 + ["test"] * 6})
    table.to_csv(root / "sub-01" / "trials.tsv", sep="\t", index=False)
    out = tmp_path / "search"
    command = [
        *("backends", "search", "ridge", "--dataset", f"cells={root}", "--out", str(out)),
        *("--space", "pixels/10x10", "--set", "alphas=1,10", "--trials", "2", "--no-cache"),
    ]
    for more, sentence in ((["--try", "folds=2,3"], ""), ([], "There is nothing to search over")):
        monkeypatch.setattr(sys, "argv", [*command, *more])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        assert bool(stop.value.code) == bool(sentence) and sentence in said.err
        if not sentence:
            best = (out / BEST).read_text().strip()
            assert said.out.endswith(f"2 trials  ->  {out}\n{best}\n")
    words = shlex.split(best)
    assert words[:5] == ["python", "-m", "backends", "train", "ridge"]
    assert "alphas=1.0,10.0" in words and {"folds=2", "folds=3"} & set(words)
    assert len(pd.read_csv(out / TABLE)) == 2
