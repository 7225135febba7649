"""What masked modelling brings is measured on the same trials, and is something."""

import numpy as np
import pytest

from backends.mappers.masked import Masked
from backends.reports.pretraining import pretraining_gain
from backends.training.fewer import fewer
from explorer.metrics import two_way_identification
from tests.backends.mappers.toy_masked import IMAGE, SMALL, VOXELS, only, planted


def test_what_pretraining_brings_is_measured_on_the_same_trials():
    trials, targets = planted()
    settings = SMALL | {"batch": 8, "epochs": 2}
    rows = pretraining_gain(trials, only(targets, IMAGE), share=0.5, seeds=(0, 1), **settings)
    assert [(r["seed"], r["pretrained"], r["subject"]) for r in rows] == [
        (seed, pretrained, subject)
        for seed in (0, 1) for pretrained in (False, True) for subject in VOXELS
    ]  # fmt: skip
    alone = Masked.fit(
        trials, only(targets, IMAGE), seed=1, share=0.5, **settings | {"pretrain_epochs": 0}
    )
    one, stimuli = trials[1], trials[1].stimuli("test")
    truth = np.stack([targets[IMAGE][s] for s in stimuli])
    decoded = alone.decode(one.betas[one.rows("test")], one.subject.name)[IMAGE]
    few = {s for one in trials for s in fewer(one, share=0.5, seed=1).stimuli("train")}
    mean = np.mean([targets[IMAGE][s] for s in few], axis=0)
    by_hand = np.square(decoded - truth).mean() / np.square(mean - truth).mean()
    assert rows[5]["error"] == pytest.approx(by_hand, rel=1e-4)
    assert rows[5]["two_way"] == pytest.approx(two_way_identification(decoded, truth))
    assert rows[7]["error"] != rows[5]["error"] and rows[5]["space"] == "toy/image"


def test_pretraining_helps_where_labels_are_few():
    # 40 labelled trials of 192 voxels, 400 without labels; a picture explains 0.3 of the variance
    sizes = {"width": 32, "depth": 1, "latents": 16, "batch": 32, "validation": 0.0}
    course = {"pretrain_epochs": 20, "pretrain_lr": 3e-3, "epochs": 60, "lr": 2e-3}
    errors = []
    for seed in (0, 1):
        trials, targets = planted(
            400, (0.7 / 0.3) ** 0.5, causes=8, seed=seed, voxels={"sub-01": 192}
        )
        rows = pretraining_gain(
            trials, only(targets, IMAGE), share=0.1, seeds=(seed,), **sizes, **course
        )
        errors.append([row["error"] for row in rows])
        assert rows[1]["pretrained"] and rows[1]["two_way"] > 0.9
    without, with_it = np.mean(errors, axis=0)
    assert with_it < 0.95 * without < 0.5  # the mean embedding has 1
