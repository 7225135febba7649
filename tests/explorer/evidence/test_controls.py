"""The controls strip: each picture is drawn from what its sentence says."""

from dataclasses import replace

import numpy as np
import pytest

from explorer.choosing import default_request
from explorer.decoding import decode_betas, decoded_space
from explorer.drawing import picture_scores, reconstruct
from explorer.evidence import controls
from explorer.evidence.controls import (
    ANOTHER,
    AVERAGE,
    CONTROLS,
    MEAN,
    NEAREST,
    NOISELESS,
    NONE,
    SINGLES,
    TRUE,
)
from explorer.protocols import Condition, Neighbour
from explorer.types import UserError


@pytest.fixture
def bench(make_workbench, fakes):
    """Return a workbench whose study knows its noiseless responses, and that can retrieve."""

    class Known(fakes.Study):
        def noiseless_trials(self, subject):  # noqa: ANN001, ANN202
            trials = self.load(subject)
            rows = trials.rows("test", repeats=(0,))
            table = trials.table.iloc[rows].reset_index(drop=True)
            return replace(trials, betas=np.zeros_like(trials.betas[rows]), table=table)

    class Retriever(fakes.Unguided):
        needs = ("dataset",)

        def neighbours(self, condition):  # noqa: ANN001, ANN202
            return (Neighbour("train-03", "", 0.25),)

    generators = {"painter": fakes.Generator, "plain": fakes.Unguided, "retriever": Retriever}
    return make_workbench(datasets={"fake": Known}, generators=generators)


@pytest.fixture
def request_(bench):
    wanted = replace(
        default_request(bench.catalogue, "fake", "sub-01", seed=0), scales=(0.0, 2.0, 4.0)
    )
    return replace(wanted, stimulus="test-03", seed=5)


def painted(bench, request, z, scale=2.0):
    """Return what the request's generator paints for an embedding."""
    generator = bench.models.generator(request.generator)
    condition = Condition({decoded_space(bench, request): z})
    return generator.generate([condition], scale, [request.seed], request.steps)[0]


def decoded(bench, request, betas):
    return decode_betas(bench, request, np.asarray(betas, np.float32)[None])[
        decoded_space(bench, request)
    ][0]


def test_every_control_is_there_in_order_or_says_why(bench, request_):
    found = list(controls.controls(bench, request_))
    assert [one.name for one in found] == list(CONTROLS)
    lacking = {one.name: one.reason for one in found if one.reason}
    assert list(lacking) == [SINGLES[2]]  # the fake study has two repeats
    assert "no repeat 3 of test-03" in lacking[SINGLES[2]]
    for one in found:
        assert one.sentence.endswith(".") and "{" not in one.sentence
        if not one.reason:
            assert one.image.dtype == np.uint8
            assert one.scores == picture_scores(bench, "fake", "test-03", one.image)
            assert 0 <= one.drawn.identification <= 1


def test_what_each_control_is_drawn_from(bench, request_, fakes):
    found = {one.name: one for one in controls.controls(bench, request_)}
    trials = bench.catalogue.trials("fake", "sub-01")
    mapper = bench.models.mapper("fake", "sub-01", "linear")
    truth = fakes.Embedder().embed([fakes.picture("test-03")])[0]
    betas = {
        NOISELESS: np.zeros(trials.betas.shape[1]),
        AVERAGE: trials.average("test-03"),
        SINGLES[0]: trials.average("test-03", (0,)),
        SINGLES[1]: trials.average("test-03", (1,)),
        ANOTHER: trials.average(found[ANOTHER].stimulus),
        MEAN: mapper.statistics("sub-01")[0].numpy(),
    }
    drawn = {name: decoded(bench, request_, rows) for name, rows in betas.items()} | {TRUE: truth}
    for name, z in drawn.items():
        np.testing.assert_array_equal(found[name].image, painted(bench, request_, z), name)
        assert found[name].decoded.similarity == pytest.approx(
            float(z @ truth / max(np.linalg.norm(z), 1e-9)), abs=1e-5
        )
    alone = painted(bench, request_, truth, scale=0.0)  # whatever the embedding is
    np.testing.assert_array_equal(found[NONE].image, alone)
    assert found[NONE].decoded is None
    assert found[TRUE].decoded.rank == 1
    np.testing.assert_array_equal(found[NEAREST].image, fakes.picture("train-03"))
    assert found[NEAREST].similarity == 0.25 and found[NEAREST].stimulus == "train-03"
    assert "retrieved photograph" in found[NEAREST].note


def test_scale_and_seed_are_the_sweeps_own(bench, request_):
    sweep = {frame.scale: frame.image for frame in reconstruct(bench, request_) if frame.done}
    painted_before = bench.models.generator("painter").painted
    for scale in (2.0, 4.0):
        (one,) = controls.controls(bench, request_, [AVERAGE], scale)
        np.testing.assert_array_equal(one.image, sweep[scale])
    (none,) = controls.controls(bench, request_, [NONE])
    np.testing.assert_array_equal(none.image, sweep[0.0])
    assert bench.models.generator("painter").painted == painted_before  # the sweep's are used


def test_controls_come_one_by_one_and_are_kept(bench, request_):
    generator = bench.models.generator("painter")
    strip = controls.controls(bench, request_, [TRUE, MEAN, ANOTHER])
    before = type(generator).painted
    first = next(strip)
    assert type(generator).painted == before + 1
    strip.close()
    again = next(controls.controls(bench, request_, [TRUE]))
    np.testing.assert_array_equal(again.image, first.image)
    assert type(generator).painted == before + 1
    other = next(controls.controls(bench, replace(request_, seed=6), [TRUE]))
    assert (other.image != first.image).any()


def test_another_trial_is_of_another_category_and_chosen_by_the_seed(bench, request_):
    gallery = bench.catalogue.gallery("fake", "sub-01")
    chosen = {controls.donor(bench, replace(request_, seed=seed)) for seed in range(30)}
    assert len(chosen) > 2
    assert {gallery.loc[name, "category"] for name in chosen} == {"cold"}
    assert gallery.loc[request_.stimulus, "category"] == "warm"
    assert controls.donor(bench, request_) == controls.donor(bench, request_)


def test_without_categories_any_other_trial_serves(make_workbench, fakes):
    class Plain(fakes.Study):
        def __init__(self, path=None, name="fake") -> None:  # noqa: ANN001
            super().__init__(path, name)
            self.stimuli = self.stimuli.assign(category="")

    bench = make_workbench(datasets={"fake": Plain})
    request = replace(
        default_request(bench.catalogue, "fake", "sub-01", seed=0), stimulus="test-03"
    )
    chosen = {controls.donor(bench, replace(request, seed=seed)) for seed in range(60)}
    assert chosen == set(bench.catalogue.gallery("fake", "sub-01").index) - {"test-03"}


def test_measured_data_have_no_noiseless_response_and_no_retriever(workbench):
    request = default_request(workbench.catalogue, "fake", "sub-01", seed=0)
    noiseless, nearest = controls.controls(workbench, request, [NOISELESS, NEAREST])
    assert "fake is measured, so nobody knows its responses without noise" in noiseless.reason
    assert "No generator here looks for training images" in nearest.reason
    assert noiseless.image is None and noiseless.sentence


def test_one_repeat_has_no_average(make_workbench, fakes):
    class Once(fakes.Study):
        def load(self, subject):  # noqa: ANN001, ANN202
            trials = super().load(subject)
            kept = np.flatnonzero(trials.table["repeat"] == 0)
            table = trials.table.iloc[kept].reset_index(drop=True)
            return replace(trials, betas=trials.betas[kept], table=table)

    bench = make_workbench(datasets={"fake": Once})
    request = replace(
        default_request(bench.catalogue, "fake", "sub-01", seed=0), stimulus="test-03"
    )
    average, first, second = controls.controls(bench, request, [AVERAGE, *SINGLES[:2]])
    assert average.reason == "test-03 was shown once, so there is nothing to average."
    assert first.image is not None
    assert "no repeat 2 of test-03" in second.reason


def test_a_generator_without_guidance_has_no_scale_0(bench, request_):
    plain = replace(request_, generator="plain")
    (none,) = controls.controls(bench, plain, [NONE])
    assert none.reason.startswith("plain cannot draw at scale 0")
    (true,) = controls.controls(bench, plain, [TRUE])
    assert true.image is not None


def test_a_generator_whose_scales_lack_0_says_so(make_workbench, fakes):
    class Strong(fakes.Generator):
        scales = (2.0, 4.0)

    bench = make_workbench(generators={"strong": Strong})
    request = replace(
        default_request(bench.catalogue, "fake", "sub-01", seed=0), scales=(2.0, 4.0)
    )
    (none,) = controls.controls(bench, request, [NONE])
    assert none.reason.startswith("strong cannot draw at scale 0")


def test_the_true_embedding_needs_an_embedder(make_workbench, fakes):
    bench = make_workbench(embedders={})
    request = default_request(bench.catalogue, "fake", "sub-01", seed=0)
    (true,) = controls.controls(bench, request, [TRUE])
    assert "No embedder here puts images into fake-clip/image" in true.reason
    (mean,) = controls.controls(bench, request, [MEAN])
    assert mean.image is not None and mean.decoded is None and mean.drawn is None


def test_a_wrong_name_is_refused_at_once(bench, request_):
    with pytest.raises(UserError, match="no control 'sham'; choose among true embedding"):
        controls.controls(bench, request_, ["sham"])
    with pytest.raises(UserError, match="no test stimulus 'nothing'"):
        controls.controls(bench, replace(request_, stimulus="nothing"))


def test_of_a_request_for_several_samples_and_scales_a_control_is_one_picture(bench, request_):
    one = controls.control(bench, replace(request_, scales=(2.0,)), AVERAGE)
    before = bench.models.generator("painter").painted
    many = controls.control(bench, replace(request_, scales=(2.0, 4.0), samples=3), AVERAGE)
    np.testing.assert_array_equal(many.image, one.image)
    assert bench.models.generator("painter").painted == before  # it is kept as that one
