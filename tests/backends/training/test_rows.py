"""Rows and batches of them: what is held out, read, drawn, and refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from backends.training.rows import Batch, TrialRows
from explorer.types import UserError
from tests.backends.training.toy import SPACE, study


def test_stimuli_are_held_out_for_all_subjects_together():
    trials, targets, _ = study()
    data = TrialRows(trials, targets)
    train, held_out = data.split(0.25, seed=0)
    names = data.names[data.stimulus]
    assert sorted([*train, *held_out]) == list(range(len(data))) and len(data) == 2 * 64
    assert len(set(names[held_out])) == 8 and not set(names[held_out]) & set(names[train])
    assert set(data.subject[held_out]) == {0, 1}
    assert np.array_equal(held_out, data.split(0.25, seed=0)[1])
    assert not np.array_equal(held_out, data.split(0.25, seed=1)[1])
    assert len(data.split(0.0, seed=0)[1]) == 0


def test_repeats_are_held_out_where_train_and_test_share_stimuli():
    trials, targets, _ = study(stimuli=20, repeats=5)
    shared = []
    for one in trials:
        split = np.where(one.table["repeat"] < 4, "train", "test")
        shared.append(replace(one, table=one.table.assign(split=split)))
    data = TrialRows(shared, targets)
    train, held_out = data.split(0.25, seed=0)
    assert len(held_out) == 40 and len(train) == 120
    assert len(set(data.names[data.stimulus[held_out]])) == 20


def test_a_batch_gives_betas_goals_and_order():
    trials, targets, _ = study(noise=1.0)
    data = TrialRows(trials, targets)
    samples = np.array([70, 3, 127, 0])  # of sub-02, sub-01, sub-02, sub-01
    batch = Batch(data, samples)
    assert {name: places.tolist() for name, places in batch.places.items()} == {
        "sub-01": [1, 3],
        "sub-02": [0, 2],
    }
    first, second = (one.betas.values for one in trials)
    np.testing.assert_array_equal(batch.betas["sub-01"].numpy(), first[[3, 0]])
    np.testing.assert_array_equal(batch.betas["sub-02"].numpy(), second[[6, 63]])
    wanted = [targets[SPACE][s] for s in ("s03", "s01", "s31", "s00")]
    np.testing.assert_array_equal(batch.goals[SPACE].numpy(), np.stack(wanted))
    merged = batch.merge({n: {"row": torch.from_numpy(p)} for n, p in batch.places.items()})
    assert merged["row"].tolist() == [0, 1, 2, 3]


def test_random_numbers_belong_to_samples_not_to_batches():
    trials, targets, _ = study()
    data = TrialRows(trials, targets)
    many = Batch(data, np.arange(100), epoch=1, seed=2)
    one = Batch(data, np.array([80]), epoch=1, seed=2)
    drawn = many.random("noise", (50,))
    assert torch.equal(one.random("noise", (50,))[0], drawn[80])
    assert torch.equal(many.random("noise", (50,), "sub-02"), drawn[many.places["sub-02"]])
    assert drawn.min() >= 0 and drawn.max() < 1 and abs(float(drawn.mean()) - 0.5) < 0.02
    others = [
        Batch(data, np.array([80]), epoch=0, seed=2).random("noise", (50,)),
        Batch(data, np.array([80]), epoch=1, seed=3).random("noise", (50,)),
        one.random("dropout", (50,)),
    ]
    assert not any(torch.equal(other[0], drawn[80]) for other in others)


def test_subjects_without_training_trials_and_targets_without_stimuli_are_refused():
    trials, targets, _ = study()
    with pytest.raises(UserError, match=r"'s00' has no embedding in toy/vector"):
        TrialRows(trials, {SPACE: {}})
    none = replace(trials[1], table=trials[1].table.assign(split="test"))
    with pytest.raises(UserError, match="sub-02 has no training trials"):
        TrialRows([trials[0], none], targets)
    split = np.where(trials[1].table["stimulus"] == "s03", "train", "test")
    few = replace(trials[1], table=trials[1].table.assign(split=split))
    with pytest.raises(
        UserError, match=r"sub-02 has 2 training trial\(s\) of one stimulus, too f"
    ):
        TrialRows([trials[0], few], targets)
