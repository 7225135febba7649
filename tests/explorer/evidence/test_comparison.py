"""Two requests side by side, all subjects on one stimulus, and paired differences."""

from dataclasses import replace

import numpy as np
import pytest

from explorer import metrics
from explorer.brain.maps import parcel_importance
from explorer.choosing import default_request
from explorer.decoding import decode, decoded_space
from explorer.drawing import reconstruct
from explorer.evidence import comparison, lesions
from explorer.evidence.comparison import RANK, SIMILAR, TWO_WAY
from explorer.request import View
from explorer.types import UserError


@pytest.fixture
def one(workbench):
    return replace(
        default_request(workbench.catalogue, "fake", "sub-01", seed=0), stimulus="test-03"
    )


@pytest.fixture
def other(one):
    """Return the same stimulus and mapper, but one repeat instead of the average."""
    return replace(one, repeats=(0,))


def embeddings(bench, request):
    """Return what is decoded from, and the true embedding of, each test image (10, D)."""
    names = list(bench.catalogue.gallery("fake", request.subject).index)
    rows = [decode(bench, replace(request, stimulus=name)).embedding for name in names]
    return np.stack(rows), bench.models.embed("fake", names, decoded_space(bench, request))


def test_a_pair_is_two_sweeps_pictures_and_their_difference(workbench, one, other):
    pair = comparison.compare(workbench, one, other, scale=4.0)
    for side, request in ((pair.a, one), (pair.b, other)):
        frames = {f.scale: f for f in reconstruct(workbench, request) if f.done}
        np.testing.assert_array_equal(side.frame.image, frames[4.0].image)
        assert side.frame.scores == frames[4.0].scores
        assert np.ceil(side.decoded.rank) == decode(workbench, request).rank
    change = lesions.difference(pair.a.frame.image, pair.b.frame.image)
    np.testing.assert_array_equal(pair.difference, change)
    assert "all their figures can be compared" in pair.sentence


def test_a_pair_is_of_one_stimulus(workbench, one):
    for ask in (
        lambda b: comparison.compare(workbench, one, b),
        lambda b: comparison.compare_maps(workbench, one, b, View()),
    ):
        with pytest.raises(UserError, match="one stimulus, found fake/test-03 and fake/test-05"):
            ask(replace(one, stimulus="test-05"))


def test_generators_are_compared_at_one_scale_and_seed(workbench, one):
    pair = comparison.compare(workbench, one, replace(one, generator="unguided", seed=one.seed))
    assert pair.a.frame.scale == pair.b.frame.scale == 2.0
    assert pair.a.decoded == pair.b.decoded


def test_maps_have_common_limits_and_a_difference(workbench, one, other):
    view = View(measure="share")
    found = comparison.compare_maps(workbench, one, other, view)
    maps = [parcel_importance(workbench, request, view) for request in (one, other)]
    shares = [m.table["share"].to_numpy() for m in maps]
    np.testing.assert_array_equal(found.table["difference"], shares[1] - shares[0])
    assert found.limits == (0, max(m.limits["share"][1] for m in maps))
    low, high = found.difference_limits
    assert -low == high == np.nanmax(np.abs(shares[1] - shares[0]))
    assert found.correlation == pytest.approx(metrics.spearman(*shares))
    same = comparison.compare_maps(workbench, one, one, view)
    assert same.correlation == pytest.approx(1)
    assert same.difference_limits == (-1, 1) and not np.nan_to_num(same.table["difference"]).any()


def test_maps_of_two_subjects_meet_by_parcel_and_only_in_shares(workbench, one):
    b = replace(
        one, subject="sub-02", mapper=workbench.catalogue.mapper_names("fake", "sub-02")[0]
    )
    found = comparison.compare_maps(workbench, one, b, View())
    own = parcel_importance(workbench, b, View()).table.set_index("parcel")["enrichment"]
    np.testing.assert_array_equal(found.table.set_index("parcel")["b"], own)
    assert "rank correlation" in found.sentence
    with pytest.raises(UserError, match="signed is in each mapper's own unit"):
        comparison.compare_maps(workbench, one, b, View(measure="signed"))
    comparison.compare_maps(workbench, one, replace(one, repeats=(0,)), View(measure="signed"))


def test_all_subjects_on_one_stimulus(workbench, one, make_workbench, fakes):
    sides = list(comparison.across_subjects(workbench, one))
    assert [side.request.subject for side in sides] == ["sub-01", "sub-02"]
    assert sides[0].frame is not None and not sides[0].reason
    # sub-02 has only a mapper that is fitted now, of another name
    assert sides[1].frame is None and "no mapper 'linear' for fake/sub-02" in sides[1].reason
    fitted = replace(
        one, subject="sub-02", mapper=workbench.catalogue.mapper_names("fake", "sub-02")[0]
    )
    back = list(comparison.across_subjects(workbench, fitted))
    assert back[0].reason and back[1].decoded is not None

    class Unseen(fakes.Study):
        def load(self, subject):  # noqa: ANN001, ANN202
            trials = super().load(subject)
            gone = (subject == "sub-02") & (trials.table["stimulus"] == "test-03")
            kept = np.flatnonzero(~gone)
            table = trials.table.iloc[kept].reset_index(drop=True)
            return replace(trials, betas=trials.betas[kept], table=table)

    sides = list(comparison.across_subjects(make_workbench(datasets={"fake": Unseen}), one))
    assert "fake/sub-02 has no test stimulus 'test-03'" in sides[1].reason


def test_paired_differences_are_means_over_the_same_stimuli(workbench, one, other):
    (za, truth), (zb, _) = embeddings(workbench, one), embeddings(workbench, other)
    index = np.arange(10)
    similar = [metrics.cosine_matrix(z, truth) for z in (za, zb)]
    expected = {
        TWO_WAY: [metrics.identification(s, index) for s in similar],
        RANK: [metrics.retrieval_rank(s, index) for s in similar],
        SIMILAR: [np.diag(s) for s in similar],
    }
    for metric, (a, b) in expected.items():
        found = comparison.paired_difference(workbench, one, other, metric)
        assert found.a == pytest.approx(a.mean(), abs=1e-6)
        assert found.b == pytest.approx(b.mean(), abs=1e-6)
        assert found.difference == pytest.approx((b - a).mean(), abs=1e-6)
        wanted = metrics.bootstrap_interval(b - a, seed=0)
        assert found.interval == pytest.approx(wanted, abs=1e-6)
        assert (found.n, found.of) == (10, 10)
        back = comparison.paired_difference(workbench, other, one, metric)
        assert back.difference == pytest.approx(-found.difference)
    assert comparison.paired_difference(workbench, one, other, RANK).chance == 5.5
    with pytest.raises(UserError, match="found 'luck'"):
        comparison.paired_difference(workbench, one, other, "luck")


def test_what_is_better_has_the_right_direction():
    rng = np.random.default_rng(0)
    low, high = rng.normal(3, 1, 200), rng.normal(5, 1, 200)
    assert comparison._paired(RANK, low, high, 1, 200).better == "a"
    assert comparison._paired(SIMILAR, low, high, 1, 200).better == "b"
    even = comparison._paired(SIMILAR, low, rng.permutation(low), 1, 200)
    assert even.better == "" and "may be chance" in even.sentence
    first = comparison._paired(SIMILAR, low[:1], high[:1], 1, 200)
    assert (
        first.better == "" and np.isnan(first.interval).all() and "interval" not in first.sentence
    )


def test_two_spaces_are_compared_by_identification_alone(make_workbench, fakes, one):
    from explorer.types import EmbeddingSpace

    wide = EmbeddingSpace("fake-wide", "image", (8,), unit_norm=True)

    class Wide(fakes.Embedder):
        spaces = (wide,)

        def embed(self, images, space=wide):  # noqa: ANN001, ANN202
            return super().embed(images)[:, ::-1].copy()

    class Both(fakes.Generator):
        accepts = (wide, fakes.space)

        def _paint(self, condition, scale, seed, contrast):  # noqa: ANN001, ANN202
            (z,) = condition.embeddings.values()
            return super()._paint(
                replace(condition, embeddings={fakes.space: z}), scale, seed, 1.0
            )

    class Fitted(fakes.Linear):
        def forward(self, betas, subject):  # noqa: ANN001, ANN202
            z = next(iter(super().forward(betas, subject).values()))
            return dict.fromkeys(self.targets, z)

    bench = make_workbench(
        embedders={"wide": Wide, "pocket-clip": fakes.Embedder},
        generators={"painter": Both},
        mappers={"linear": fakes.Linear, "ridge": Fitted},
    )
    # sub-02 is fitted to the smallest space that a generator accepts: the wide one comes first
    b = replace(one, subject="sub-02", mapper=bench.catalogue.mapper_names("fake", "sub-02")[0])
    assert decoded_space(bench, b) == wide != decoded_space(bench, one)
    told = comparison.comparable(bench, one, b)
    assert "similarities and margins of two spaces cannot be compared; ranks and" in told
    found = comparison.paired_difference(bench, one, b, TWO_WAY)
    assert found.n == 10 and found.b > 0.6
    with pytest.raises(
        UserError, match="fake-clip/image and one in fake-wide/image are different"
    ):
        comparison.paired_difference(bench, one, b, SIMILAR)


def test_pictures_are_compared_over_a_growing_sample(workbench, one, other):
    steps = list(comparison.paired_pictures(workbench, one, other, "PixCorr", sample=4, scale=2.0))
    assert [step.n for step in steps] == [1, 2, 3, 4] and {step.of for step in steps} == {4}
    names = [f"test-{i:02d}" for i in (1, 4, 7, 10)]  # evenly spaced
    scores = []
    for request in (one, other):
        at = [replace(request, stimulus=name, scales=(2.0,)) for name in names]
        frames = [[f for f in reconstruct(workbench, r) if f.done][0] for r in at]
        scores.append(np.array([f.scores["PixCorr"] for f in frames]))
    assert steps[-1].difference == pytest.approx((scores[1] - scores[0]).mean())
    painted = workbench.models.generator("painter").painted
    again = list(comparison.paired_pictures(workbench, one, other, sample=4, scale=2.0))
    assert workbench.models.generator("painter").painted == painted  # kept
    assert again[-1].chance == 0.5 and 0 <= again[-1].a <= 1
    with pytest.raises(UserError, match="no score 'beauty' here; choose PixCorr or SSIM"):
        next(comparison.paired_pictures(workbench, one, other, "beauty", sample=2))


def test_only_what_both_sides_have_is_compared(workbench, one, other, monkeypatch):
    """A stimulus that one side lost is no stimulus of the other's mean either."""
    whole = comparison.decoded_test

    def lost(bench, request):  # noqa: ANN001, ANN202
        stimuli, rows = whole(bench, request)
        gone = {one: "test-02", other: "test-05"}[request]
        kept = [i for i, stimulus in enumerate(stimuli) if stimulus != gone]
        return [stimuli[i] for i in kept], rows[kept]

    monkeypatch.setattr(comparison, "decoded_test", lost)
    found = comparison.paired_difference(workbench, one, other)
    assert found.n == 8
    (za, truth), (zb, _) = embeddings(workbench, one), embeddings(workbench, other)
    kept = [i for i in range(10) if i not in (1, 4)]
    rates = [metrics.two_way_identification(z[kept], truth[kept]) for z in (za, zb)]
    assert (found.a, found.b) == pytest.approx(tuple(rates), abs=1e-6)


def test_maps_are_of_the_parcels_that_both_have(workbench, one, other, monkeypatch):
    whole = comparison.parcel_importance

    def fewer(bench, request, view):  # noqa: ANN001, ANN202
        found = whole(bench, request, view)
        rows = found.table.iloc[2:] if request == one else found.table.iloc[:-1]
        return replace(found, table=rows)

    expected = whole(workbench, one, View()).table.set_index("parcel")
    monkeypatch.setattr(comparison, "parcel_importance", fewer)
    found = comparison.compare_maps(workbench, one, other, View()).table
    assert found["parcel"].tolist() == expected.index[2:-1].tolist()
    for column in ("name", "hemisphere"):
        assert found[column].tolist() == expected[column].iloc[2:-1].tolist()


def test_an_interval_that_touches_zero_decides_nothing():
    """Of 20 differences 18 are 0: the lower end of the bootstrap is 0 and not above it."""
    same, few = np.zeros(20), np.r_[np.zeros(18), 1, 1]
    for a, b in ((same, few), (few, same)):
        found = comparison._paired(SIMILAR, a, b, 1, 20)
        assert 0 in found.interval and found.better == ""
    assert comparison._paired(SIMILAR, same, same, 1, 20).better == ""
    assert comparison._paired(RANK, same, few + 1, 1, 20).better == "a"


def test_pictures_of_two_studies_or_of_one_image_are_not_compared(make_workbench, fakes, one):
    class Fewer(fakes.Study):
        def load(self, subject):  # noqa: ANN001, ANN202
            trials = super().load(subject)
            lost = ["test-02", "test-05", "test-06"] if subject == "sub-02" else []
            kept = np.flatnonzero(~trials.table["stimulus"].isin(lost))
            table = trials.table.iloc[kept].reset_index(drop=True)
            return replace(trials, betas=trials.betas[kept], table=table)

    bench = make_workbench(datasets={"fake": Fewer, "copy": fakes.Study})
    fitted = bench.catalogue.mapper_names("fake", "sub-02")[0]
    b = replace(one, subject="sub-02", mapper=fitted)
    for sides in ((one, b), (b, one)):
        (first, *_) = comparison.paired_pictures(bench, *sides, "PixCorr", sample=10)
        assert first.of == 7  # of ten
    refused = "at least 2 test stimuli that both have"
    name = bench.catalogue.mapper_names("copy", "sub-01")[0]
    with pytest.raises(UserError, match=refused):
        comparison.paired_pictures(bench, one, replace(one, dataset="copy", mapper=name))
    single = make_workbench(datasets={"fake": fakes.OneImage})
    name = single.catalogue.mapper_names("fake", "sub-01")[0]
    alone = replace(one, stimulus="test-01", mapper=name)
    with pytest.raises(UserError, match=refused):
        comparison.paired_pictures(single, alone, replace(alone, seed=5))
