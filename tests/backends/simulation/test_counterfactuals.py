"""Counterfactual scenes, and what the encoding model makes of them against the planted truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backends import DATASETS, EMBEDDERS, ENCODERS
from backends.simulation import counterfactuals as module
from backends.simulation.counterfactuals import counterfactuals
from backends.simulation.scenes import CATEGORIES, SUPERCATEGORIES, background, render
from explorer.brain.maps import parcellation_of
from explorer.evidence.counterfactual import contrasts_of, counted, reliable
from explorer.metrics import auc
from explorer.workbench import Workbench

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"
CONCEPTS = ("category", "supercategory")  # kinds of features, in the truth of parcels


def test_a_pair_differs_in_the_object_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(module, "render", lambda scene: drawn.append(scene) or render(scene))
    found = list(counterfactuals(7, 2))
    assert [pair.concept for pair in found] == [c for c in SUPERCATEGORIES for _ in range(2)]
    for pair, scene, other in zip(found, drawn[::2], drawn[1::2], strict=True):
        assert CATEGORIES[scene.category] == pair.concept != CATEGORIES[other.category]
        assert replace(other, category=scene.category) == scene
        np.testing.assert_array_equal(pair.removed, background(scene))
        assert (pair.present != pair.removed).any() and (pair.present != pair.replaced).any()
    again = list(counterfactuals(7, 2))
    np.testing.assert_array_equal(again[3].replaced, found[3].replaced)


def test_planted_concept_parcels_are_found_and_controls_rejected() -> None:
    bench = Workbench(DATASETS, EMBEDDERS, {}, {}, checkpoints=CHECKPOINTS, encoders=ENCODERS)
    study, trials = (bench.catalogue.dataset("simulated"),
                     bench.catalogue.trials("simulated", "subj01"))  # fmt: skip
    stimuli = trials.stimuli("test")
    encoder = bench.models.encoder("simulated", "subj01")
    shown = {s: bench.models.embed("simulated", stimuli, s) for s in encoder.spaces}
    measured = np.stack([trials.average(s) for s in stimuli])
    parcellation = parcellation_of(bench, "simulated", "subj01")
    names = [label.key for label in parcellation.labels]
    voxels = reliable(measured, encoder.predict(shown))
    masks, few = counted(parcellation.masks()[: len(names)], voxels)
    pairs = list(study.counterfactuals(4))
    found = contrasts_of(bench, "simulated", "subj01", pairs, masks)
    effect = np.where(few, 0, np.mean([c.replaced.mean(axis=0) for c in found], axis=0))
    truth = study.truth("subj01").parcels
    there = [i for i, name in enumerate(names) if name in truth.index]
    groups = truth["groups"].fillna("")[[names[i] for i in there]]
    planted = np.array(
        [any(part.rpartition(" ")[0] in CONCEPTS for part in g.split(", ")) for g in groups]
    )
    assert planted.sum() == 12
    assert auc(effect[there], planted) >= 0.9
    controls = truth.index[truth["role"] != "informative"]
    assert len(controls) == 20 and all(few[names.index(name)] for name in controls)
