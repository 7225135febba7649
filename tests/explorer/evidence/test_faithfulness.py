"""Whether the importance of parcels says what their lesions do, over a linear mapper."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from explorer.brain.maps import parcel_importance
from explorer.choosing import default_request
from explorer.evidence import lesions
from explorer.evidence.faithfulness import _faithful, faithfulness, mean_faithfulness
from explorer.request import View


@pytest.fixture
def request_(workbench):
    return replace(
        default_request(workbench.catalogue, "fake", "sub-01", seed=0), stimulus="test-03"
    )


def test_lesions_of_informative_parcels_move_the_margin_most(workbench, request_, fakes):
    *_, last = mean_faithfulness(workbench, request_, View(measure="share"))
    there = last.table[last.table["voxels"] > 0]
    informative = there["name"].isin(fakes.informative)
    assert there["size"][informative].min() > there["size"][~informative].max()
    assert last.correlation > 0.7
    assert last.n == last.of == 10 and last.parcels == 8


def test_of_one_trial_it_is_the_rank_correlation_of_two_tables(workbench, request_):
    from scipy.stats import spearmanr

    for measure, column in {"signed": "effect", "share": "size"}.items():
        view = View(method="gradient x input", measure=measure)
        found = faithfulness(workbench, request_, view)
        shown = parcel_importance(workbench, request_, view).table[measure]
        effect = lesions.lesion_effects(workbench, request_).table["effect"]
        np.testing.assert_array_equal(found.table["importance"], shown)
        known = effect.notna() & shown.notna()
        against = effect if column == "effect" else effect.abs()
        expected = spearmanr(shown[known], against[known]).statistic
        assert found.correlation == pytest.approx(expected)
        signed = spearmanr(shown[known], effect[known]).statistic
        assert found.signed_correlation == pytest.approx(signed)
        assert (found.n, found.of, found.parcels) == (1, 1, 8)
        assert f"{column} of lesions" in found.sentence and "this trial" in found.sentence


def test_means_over_trials_grow_and_are_those_of_single_trials(workbench, request_, monkeypatch):
    monkeypatch.setattr("explorer.evidence.faithfulness.TRIALS_AT_ONCE", 4)
    view = View(method="gradient x input", measure="signed")
    steps = list(mean_faithfulness(workbench, request_, view))
    assert [step.n for step in steps] == [4, 8, 10] and {step.of for step in steps} == {10}
    stimuli = workbench.catalogue.gallery("fake", "sub-01").index
    each = [replace(request_, stimulus=name) for name in stimuli]
    effects = [lesions.lesion_effects(workbench, one).table["effect"] for one in each]
    shown = [parcel_importance(workbench, one, view).table["signed"] for one in each]
    last = steps[-1].table
    np.testing.assert_allclose(last["effect"], np.mean(effects, axis=0), atol=1e-4)
    np.testing.assert_allclose(last["size"], np.mean(np.abs(effects), axis=0), atol=1e-4)
    np.testing.assert_allclose(last["importance"], np.mean(shown, axis=0), atol=1e-4)
    assert steps[-1].correlation > 0.8  # the mapper is linear
    few = list(mean_faithfulness(workbench, request_, view, limit=3))
    assert [step.of for step in few] == [3]


def test_flat_trials_are_counted_and_leave_importance_alone():
    table = pd.DataFrame({"parcel": list("abcde")})
    weights = np.array([[1.0, 2, 3, 4, 5], [np.nan] * 5, [1, 2, 3, 4, 5]])
    effects = np.array([[1.0, 2, 3, 4, 5], [6, 6, 6, 6, 6], [5, 4, 3, 2, 1]])
    found = _faithful(table, weights, effects, View(measure="share"), 9)
    assert found.table["importance"].tolist() == [1, 2, 3, 4, 5]
    assert found.table["effect"].tolist() == [4, 4, 4, 4, 4]
    assert (found.n, found.of, found.parcels) == (3, 9, 5)
    found = _faithful(table, weights, effects[[0] * 3], View(measure="share"), 9)
    assert found.correlation == pytest.approx(1)
    assert "In 1 of them the gradient is zero; importance leaves those out." in found.sentence
    assert "in 3 test trials" in found.sentence
    flat = _faithful(table, weights[1:2], effects[:1], View(measure="share"), 1)
    assert np.isnan(flat.correlation) and flat.parcels == 0
    assert flat.sentence.startswith("0 parcels are too few, or too alike")
