"""Scores against the guidance scale: over seeds, and of the test images behind."""

from dataclasses import replace

import numpy as np
import pytest

from explorer.choosing import default_request
from explorer.drawing import picture_scores, reconstruct
from explorer.evidence import curves
from explorer.types import UserError

SCALES = (0.0, 2.0, 6.0)


@pytest.fixture
def request_(workbench):
    wanted = default_request(workbench.catalogue, "fake", "sub-01", seed=0)
    return replace(wanted, stimulus="test-03", scales=SCALES, seed=7)


def finished(bench, request):
    frames = {f.index: f for f in reconstruct(bench, request) if f.done}
    return [frames[i] for i in range(len(request.scales))]


def test_a_curve_grows_by_seeds_and_is_the_sweeps_scores(workbench, request_):
    steps = list(curves.curve(workbench, request_, seeds=3))
    assert [step.seeds for step in steps] == [(7,), (7, 8), (7, 8, 9)]
    last = steps[-1]
    sweeps = [finished(workbench, replace(request_, seed=seed)) for seed in last.seeds]
    rows = np.array([[f.scores["PixCorr"] for f in frames] for frames in sweeps])
    np.testing.assert_array_equal(last.values["PixCorr"], rows)
    np.testing.assert_allclose(last.mean("PixCorr"), rows.mean(axis=0))
    np.testing.assert_allclose(last.spread("PixCorr"), rows.std(axis=0, ddof=1))
    assert np.isnan(steps[0].spread("PixCorr")).all()
    for image, frame in zip(last.images, sweeps[0], strict=True):
        np.testing.assert_array_equal(image, frame.image)
    assert set(last.values) == {"PixCorr", "SSIM", "pocket-clip", "identification"}


def test_a_curve_stops_and_keeps_what_is_finished(workbench, request_):
    generator = workbench.models.generator("painter")
    steps = curves.curve(workbench, request_, seeds=3)
    next(steps)
    painted = type(generator).painted
    steps.close()
    next(curves.curve(workbench, request_, seeds=3))
    assert type(generator).painted == painted


def test_behind_it_are_test_images_and_a_measured_chance(workbench, request_):
    steps = list(curves.background(workbench, request_, sample=4))
    assert [step.n for step in steps] == [1, 2, 3, 4] and {step.of for step in steps} == {4}
    names = [f"test-{i:02d}" for i in (1, 4, 7, 10)]
    own, other = [], []
    for name, another in zip(names, names[1:] + names[:1], strict=True):
        frames = finished(workbench, replace(request_, stimulus=name))
        own.append([f.scores["SSIM"] for f in frames])
        scored = [picture_scores(workbench, "fake", another, f.image)["SSIM"] for f in frames]
        other.append(scored)
    last = steps[-1]
    np.testing.assert_allclose(last.mean["SSIM"], np.mean(own, axis=0))
    np.testing.assert_allclose(last.chance["SSIM"], np.mean(other, axis=0))
    np.testing.assert_array_equal(last.chance["identification"], [0.5] * 3)
    low, high = last.interval["SSIM"].T
    assert (low <= last.mean["SSIM"]).all() and (last.mean["SSIM"] <= high).all()
    assert np.isnan(steps[0].interval["SSIM"]).all()
    assert last.remark == ""  # all is defined
    painted = workbench.models.generator("painter").painted
    list(curves.background(workbench, replace(request_, stimulus="test-09"), sample=4))
    assert workbench.models.generator("painter").painted == painted  # another trial's curve too


def test_what_has_no_curve_says_why(workbench, request_):
    unguided = replace(request_, generator="unguided")
    assert "unguided has no guidance" in curves.no_curve(workbench, unguided)
    with pytest.raises(UserError, match="unguided has no guidance"):
        curves.curve(workbench, unguided)
    with pytest.raises(UserError, match="at least 2 of them; add one"):
        curves.background(workbench, replace(request_, scales=(2.0,)))
    with pytest.raises(UserError, match="between 1 and 16, found 0"):
        curves.curve(workbench, request_, seeds=0)
    with pytest.raises(UserError, match="at least 2 of them, found 1"):
        curves.background(workbench, request_, sample=1)
    assert "no generator here" in curves.no_curve(workbench, replace(request_, generator=""))


def test_a_bad_request_or_a_gallery_of_one_image_raises_at_once(
    workbench, make_workbench, fakes, request_
):
    for ask in (curves.curve, curves.background):
        with pytest.raises(UserError, match="no test stimulus 'nothing'"):
            ask(workbench, replace(request_, stimulus="nothing"))
    bench = make_workbench(datasets={"fake": fakes.OneImage})
    name = bench.catalogue.mapper_names("fake", "sub-01")[0]
    with pytest.raises(UserError, match="at least 2 of them, found 1"):
        curves.background(bench, replace(request_, stimulus="test-01", mapper=name))


def test_two_test_images_are_enough(workbench, make_workbench, fakes, request_):
    *_, last = curves.background(workbench, request_, sample=2)
    assert last.n == last.of == 2

    class Two(fakes.Study):
        def load(self, subject):  # noqa: ANN001, ANN202
            trials = super().load(subject)
            names = trials.table["stimulus"]
            kept = np.flatnonzero((trials.table["split"] == "train") | (names <= "test-02"))
            table = trials.table.iloc[kept].reset_index(drop=True)
            return replace(trials, betas=trials.betas[kept], table=table)

    bench = make_workbench(datasets={"fake": Two})
    name = bench.catalogue.mapper_names("fake", "sub-01")[0]
    first = next(curves.background(bench, replace(request_, stimulus="test-01", mapper=name)))
    assert first.of == 2
