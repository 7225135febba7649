"""What has no value is left out of means and said: scores, betas, gradients."""

from dataclasses import replace

import numpy as np
import pytest

from explorer import metrics
from explorer.brain import predicted
from explorer.choosing import default_request
from explorer.evidence import comparison, curves, map_parts, standing, statistics
from explorer.evidence.faithfulness import mean_faithfulness
from explorer.evidence.inference import reliability
from explorer.request import View
from explorer.types import Label, Parcellation

NAN = float("nan")
LEFT_OUT = "1 of 10 test images is left out: no such repeats, or betas or a prediction that are"


@pytest.fixture
def damaged(make_workbench, fakes):
    """Return a workbench of a study in which one test image has betas that are not finite."""

    class Damaged(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            betas = trials.betas.copy()
            betas[trials.rows("test", "test-05")[0], 3] = np.nan
            return replace(trials, betas=betas)

    return make_workbench(datasets={"fake": Damaged})


@pytest.fixture
def request_(workbench):
    chosen = default_request(workbench.catalogue, "fake", "sub-01", seed=0)
    return replace(chosen, stimulus="test-03", mapper="linear", scales=(0.0, 2.0))


# -------------------------------------------------------------------------- pictures in one colour


def paired(monkeypatch, bench, request, a, b):
    """Return the last difference in PixCorr of two sides that have these scores."""
    scores = {0: iter(a), 1: iter(b)}

    def give(_, asked):
        return {"PixCorr": next(scores[asked.seed])}

    monkeypatch.setattr(comparison, "picture_scores", give)
    sides = replace(request, seed=0), replace(request, seed=1)
    *_, last = comparison.paired_pictures(bench, *sides, "PixCorr", sample=len(a))
    return last


def test_a_difference_is_over_the_pictures_that_both_sides_have_scores_of(
    monkeypatch, workbench, request_
):
    a, b = [0.1, 0.2, NAN, 0.3, 0.4], [0.2, 0.4, 0.9, 0.6, NAN]
    found = paired(monkeypatch, workbench, request_, a, b)
    assert (found.n, found.of, found.undefined) == (3, 5, 2)
    assert found.a == pytest.approx(0.2) and found.b == pytest.approx(0.4)
    assert found.difference == pytest.approx(0.2) and found.better == "b"
    low, high = metrics.bootstrap_interval(np.array([0.1, 0.2, 0.3]), seed=0)
    assert found.interval == pytest.approx((low, high))
    assert "is +0.2 over 3 test images" in found.sentence
    assert found.sentence.endswith(
        "2 of 5 values are undefined (one side has no value, as a picture in one colour has none) "
        "and are left out."
    )


def test_a_difference_of_nothing_is_said(monkeypatch, workbench, request_):
    found = paired(monkeypatch, workbench, request_, [NAN, 0.1], [0.2, NAN])
    assert found.n == 0 and np.isnan([found.a, found.b, found.difference]).all()
    assert found.sentence.startswith("B - A in PixCorr is not known for any of 2 test images.")
    assert found.better == ""


def test_a_curve_passes_over_seeds_without_a_score():
    values = {"PixCorr": np.array([[NAN, 1.0], [NAN, 3.0], [NAN, NAN]]), "SSIM": np.ones((3, 2))}
    found = curves.Curve((0.0, 1.0), (0, 1, 2), 3, values, ())
    np.testing.assert_array_equal(found.mean("PixCorr"), [NAN, 2.0])
    np.testing.assert_array_equal(found.spread("PixCorr"), [NAN, np.sqrt(2)])
    assert found.remark.endswith("in one colour: at one scale PixCorr of 3 of 3 pictures.")
    assert replace(found, values={"SSIM": np.ones((3, 2))}).remark == ""


def test_what_is_behind_a_curve_tells_what_it_leaves_out(monkeypatch, workbench, request_):
    rows = iter([([0.2, NAN], [NAN, 0.0]), ([0.4, 0.5], [0.1, 0.2]), ([0.6, 0.7], [0.3, 0.1])])

    def give(*_):
        own, other = next(rows)
        return {"PixCorr": np.array(own)}, {"PixCorr": np.array(other)}

    monkeypatch.setattr(curves, "_own_and_other", give)
    *_, last = curves.background(workbench, request_, sample=3)
    np.testing.assert_allclose(last.mean["PixCorr"], [0.4, 0.6])
    np.testing.assert_allclose(last.chance["PixCorr"], [0.2, 0.1])
    expected = metrics.bootstrap_interval(np.array([0.5, 0.7]), seed=0)
    np.testing.assert_allclose(last.interval["PixCorr"][1], expected)
    assert last.remark.endswith("at one scale PixCorr of 1 of 3 pictures.")


# ----------------------------------------------------------------------- betas that are not finite


def test_a_standing_says_whom_it_does_not_count(damaged, workbench, request_):
    found = standing.standing(damaged, request_)
    assert found.n == 9 and "of the other 8 test images" in found.sentence
    assert LEFT_OUT in found.sentence
    assert LEFT_OUT in standing.collapse(damaged, request_).sentence
    assert "left out" not in standing.standing(workbench, request_).sentence
    assert "left out" not in standing.collapse(workbench, request_).sentence
    assert standing.lost_images(12, 10).startswith("2 of 12 test images are left out: ")


def test_a_difference_says_whom_it_does_not_count(damaged, workbench, request_):
    sides = request_, replace(request_, repeats=(0,))
    assert LEFT_OUT in comparison.paired_difference(damaged, *sides).sentence
    assert "left out" not in comparison.paired_difference(workbench, *sides).sentence


def test_a_map_says_whom_it_does_not_count(damaged, workbench, request_):
    found = statistics.subject_map(damaged, request_, View(), permutations=20)
    assert found.stimuli == 9 and found.notes[0].startswith(LEFT_OUT)
    assert statistics.subject_map(workbench, request_, View(), permutations=20).notes == ()


# ---------------------------------------------------------------------------------- flat gradients


def test_a_map_says_how_many_trials_prefer_no_parcel(monkeypatch, workbench, request_):
    attribute = map_parts.attribute_voxels

    def flat_twice(bench, request, view, betas, shown, mapper=None):
        found = attribute(bench, request, view, betas, shown, mapper)
        found[:2] = 0
        return found

    monkeypatch.setattr(map_parts, "attribute_voxels", flat_twice)
    found = statistics.subject_map(workbench, request_, View(), permutations=20)
    assert found.stimuli == 8
    assert found.notes == (
        "In 2 of 10 trials the gradient is zero, so they prefer no parcel; importance leaves them "
        "out.",
    )


def test_faithfulness_says_how_many_trials_prefer_no_parcel(monkeypatch, workbench, request_):
    from explorer.evidence import faithfulness

    attribute = faithfulness.attribute_voxels

    def flat_once(bench, request, view, betas, shown):
        return attribute(bench, request, view, betas, shown) * (np.arange(len(betas)) > 0)[:, None]

    monkeypatch.setattr(faithfulness, "attribute_voxels", flat_once)
    *_, last = mean_faithfulness(workbench, request_, View())
    assert last.n == 10
    assert last.sentence.endswith(
        "In 1 of them the gradient is zero; importance leaves those out."
    )


# ---------------------------------------------------------------------------------------- the rest


def test_a_prediction_that_is_not_finite_identifies_nothing(monkeypatch, workbench, request_):
    shares = np.array([NAN, *[1.0] * 9])
    monkeypatch.setattr(map_parts.metrics, "identification", lambda *_: shares)
    found = statistics.subject_map(workbench, request_, View(), permutations=20)
    assert found.identification[0] == 0.9 and np.isfinite(found.identification).all()
    assert found.notes == (
        "Of the two-way identification, 1 of 10 values is undefined (what is decoded is not "
        "finite) and counts as 0.",
    )


def test_maps_that_cannot_be_correlated_are_counted():
    maps = {"a": np.arange(5.0), "b": np.arange(5.0) ** 2, "flat": np.zeros(5)}
    found = reliability("seeds", maps, "alone")
    assert found.value == pytest.approx(1)
    assert found.sentence.endswith(
        "(mean of 1 pair). 2 more cannot be compared: too few parcels, or a flat map."
    )
    del maps["flat"]
    assert reliability("seeds", maps, "alone").sentence.endswith("(mean of 1 pair).")


def test_accuracy_and_its_ceiling_are_means_over_the_same_voxels():
    labels = (Label("V1", "L"),)
    atlas = Parcellation("a", "partition", labels, np.zeros(4, int), "h")
    accuracy, ceiling = np.array([0.1, 0.3, NAN, 0.2]), np.array([0.5, 0.7, 0.1, NAN])
    shown = predicted.accuracy_map("r", accuracy, ceiling, np.zeros(2), atlas, "")
    assert shown.table["mean"][0] == pytest.approx(0.2)
    assert shown.table["r_ceiling"][0] == pytest.approx(0.6)
