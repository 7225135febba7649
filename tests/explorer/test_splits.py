"""Splits as objects: written and read back, laid over trials, refused where they do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from explorer.identity import trace
from explorer.matching import check_fits, split_hash
from explorer.splits import Split, read_split, resplit, shown, split_file, write_split
from explorer.types import Card, UserError

TRAIN, TEST = frozenset({"b", "c"}), frozenset({"a"})


@pytest.fixture
def trials(fakes: SimpleNamespace) -> Any:
    """Six rows whose betas say which row they are; d is in no split below."""
    study = fakes.Study().load("sub-01")
    table = pd.DataFrame(
        {
            "stimulus": list("abadcb"),
            "split": ["train", "train", "train", "test", "test", "train"],
            "repeat": [0, 0, 1, 0, 0, 1],
            "session": [1, 1, 2, 2, 2, 2],
            "run": 1,
        }
    )
    v = study.subject.voxels.n_voxels
    betas = np.tile(np.arange(6, dtype=np.float32)[:, None], (1, v))
    return replace(study, betas=betas, table=table)


def test_rows_keep_their_betas_under_another_split(trials: Any) -> None:
    found = resplit(trials, Split("mine", "my list", "fake", TRAIN, TEST))
    assert found.table["stimulus"].tolist() == list("abacb")  # d is left out
    assert found.table["split"].tolist() == ["test", "train", "test", "train", "train"]
    assert found.table["repeat"].tolist() == [0, 0, 1, 0, 1]
    assert np.asarray(found.betas)[:, 0].tolist() == [0, 1, 2, 4, 5]
    assert found.betas[3, :2].tolist() == [4, 4]
    assert found.average("a")[0] == 1.0  # rows 0 and 2
    assert (found.split, found.split_by) == ("mine", "my list")


def test_a_trial_is_traced_through_a_split(trials: Any, fakes: SimpleNamespace) -> None:
    class Rows:
        shape, dtype = trials.betas.shape, np.dtype(np.float32)

        def __getitem__(self, rows: Any) -> np.ndarray:
            return trials.betas[rows]

        def lies(self, row: int) -> list:
            from explorer.types import Origin

            return [Origin("betas.npy", row)]

    split = Split("mine", "my list", "fake", TRAIN, TEST)
    found = resplit(replace(trials, betas=Rows()), split)
    told = trace(SimpleNamespace(title="T", image=fakes.Study().image), found, "c", "train")
    assert [row.origins[0].row for row in told.rows] == [4]
    assert told.split_by == "mine (my list)"


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        ({"a"}, {"a", "b"}, "has 1 stimuli in train and in test \\(first 'a'\\)"),
        (set(), {"a"}, "has no training stimuli"),
        ({"a"}, set(), "has no test stimuli"),
    ],
)
def test_a_split_that_cannot_be_is_refused(train: set, test: set, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Split("mine", "by me", "fake", frozenset(train), frozenset(test))


def test_a_subject_who_saw_none_of_a_part_is_refused(trials: Any) -> None:
    split = Split("mine", "by me", "fake", TRAIN, frozenset({"z"}))
    with pytest.raises(UserError, match="'mine' has no test stimulus that fake/sub-01 saw"):
        resplit(trials, split)


def test_what_is_written_is_read_back_and_else_refused(tmp_path: Path) -> None:
    split = Split("mine", "my list", "fake", TRAIN, TEST)
    path = write_split(tmp_path, split)
    assert path == tmp_path / "splits" / "fake" / "mine.json"
    assert read_split(tmp_path, "fake", "mine") == split
    with pytest.raises(UserError, match="no split 'other' here \\(mine\\); make it with: python"):
        read_split(tmp_path, "fake", "other")
    path.rename(split_file(tmp_path, "fake", "other"))
    with pytest.raises(UserError, match="is no split 'other' of fake"):
        read_split(tmp_path, "fake", "other")
    values = json.loads(split_file(tmp_path, "fake", "other").read_text()) | {"test": [1]}
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="is no split 'mine' of fake: it needs name, by, dataset"):
        read_split(tmp_path, "fake", "mine")
    with pytest.raises(UserError, match="made of letters, digits, - and _; found '../a'"):
        split_file(tmp_path, "fake", "../a")


def test_what_one_is_tested_on_is_never_trained_for_another() -> None:
    def of(train: list[str], test: list[str]) -> Any:
        return SimpleNamespace(stimuli=lambda split: train if split == "train" else test)

    assert shown([of(["a", "b"], ["c"]), of(["c", "d"], ["e"])]) == (["a", "b", "d"], ["c", "e"])


def card_of(trials: Any) -> Card:
    voxels = trials.subject.voxels
    return Card(
        *("mapper", "ridge", "ridge", "fake", "", ""),
        subjects=("sub-01",),
        voxels={"sub-01": (voxels.n_voxels, voxels.hash)},
        split_hash=split_hash(trials),
        split=trials.split,
    )


def test_a_mapper_refuses_stimuli_that_it_may_have_seen(trials: Any) -> None:
    mine = resplit(trials, Split("mine", "by me", "fake", TRAIN, TEST))
    check_fits(card_of(mine), mine)
    own = replace(trials, table=trials.table.assign(split=["train"] * 4 + ["test", "train"]))
    with pytest.raises(UserError, match="open them with --dataset fake=PATH\\?split=mine"):
        check_fits(card_of(mine), own)
    with pytest.raises(
        UserError, match="open them without \\?split=mine, or train one on it with"
    ):
        check_fits(card_of(own), mine)


def test_a_mapper_of_the_same_training_stimuli_is_tested_on_fewer(trials: Any) -> None:
    own = replace(
        trials,
        table=trials.table.assign(split=["test", "train", "test", "test", "train", "train"]),
    )
    fewer = resplit(trials, Split("tau", "far ones", "fake", TRAIN, TEST))
    check_fits(card_of(own), fewer)  # b and c were trained in both, d is only left out
    other = resplit(trials, Split("tau", "far ones", "fake", frozenset({"b"}), TEST))
    with pytest.raises(UserError, match="another choice of train stimuli"):
        check_fits(card_of(own), other)


def test_data_open_with_a_split_that_was_made(make_workbench: Any, tmp_path: Path) -> None:
    plain = make_workbench()
    stimuli = plain.catalogue.trials("fake", "sub-01").stimuli("train")
    kept = frozenset(stimuli[:4])
    where = plain.catalogue.checkpoints
    write_split(where, Split("few", "the first four", "fake", frozenset(stimuli[4:]), kept))
    bench = make_workbench(options={"fake": {"split": "few"}}, checkpoints=where)
    found = bench.catalogue.trials("fake", "sub-01")
    assert set(found.stimuli("test")) == kept and found.split == "few"
    assert set(bench.catalogue.gallery("fake", "sub-01").index) == kept
    missing = make_workbench(options={"fake": {"split": "none"}}, checkpoints=where)
    with pytest.raises(UserError, match="fake has no split 'none' here"):
        missing.catalogue.trials("fake", "sub-01")
