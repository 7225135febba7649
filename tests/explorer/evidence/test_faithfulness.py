"""Whether the importance of parcels says what their lesions do, over a linear mapper."""

from dataclasses import replace

import numpy as np
import pytest

from explorer.brain.maps import parcel_importance
from explorer.choosing import default_request
from explorer.evidence import lesions
from explorer.evidence.faithfulness import faithfulness, mean_faithfulness
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
        assert (found.n, found.parcels) == (1, 8)
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
