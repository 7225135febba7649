"""Where embeddings lie among the test stimuli, and a trial's badges."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from explorer import metrics
from explorer.choosing import default_request
from explorer.decoding import decode
from explorer.evidence import standing
from explorer.protocols import Neighbour
from explorer.types import EmbeddingSpace, UserError


@pytest.fixture
def request_(workbench):
    return default_request(workbench.catalogue, "fake", "sub-01", seed=0)


@pytest.fixture
def gallery(workbench, fakes):
    names = list(workbench.catalogue.gallery("fake", "sub-01").index)
    return names, workbench.models.embed("fake", names, fakes.space)


def test_a_place_is_that_of_the_decoding(workbench, request_):
    decoding = decode(workbench, request_)
    (place,) = standing.places(workbench, request_, decoding.embedding[None])
    assert np.ceil(place.rank) == decoding.rank and place.n == decoding.n == 10
    assert place.similarity == pytest.approx(decoding.similarity)
    assert place.margin == pytest.approx(decoding.margin)
    assert place.identification == pytest.approx((10 - place.rank) / 9)


def test_the_shown_image_is_first_and_its_opposite_last(workbench, request_, gallery):
    names, embeddings = gallery
    own = embeddings[names.index(request_.stimulus)]
    first, last = standing.places(workbench, request_, np.stack([own, -own]))
    assert (first.rank, first.identification) == (1, 1)
    assert first.similarity == pytest.approx(1) and last.similarity == pytest.approx(-1)
    assert (last.rank, last.identification) == (10, 0)
    assert first.margin > last.margin


def test_a_picture_is_placed_by_its_own_embedding(workbench, request_, fakes, make_workbench):
    place = standing.picture_place(workbench, request_, fakes.picture(request_.stimulus))
    assert (place.rank, place.identification) == (1, 1)
    assert place.similarity == pytest.approx(1) and np.isnan(place.margin)
    blind = make_workbench(embedders={"other": fakes.Embedder})
    assert standing.picture_place(blind, request_, fakes.picture("x")) is None


def test_a_gallery_of_one_image_has_no_rank(make_workbench, fakes):
    bench = make_workbench(datasets={"fake": fakes.OneImage})
    request = default_request(bench.catalogue, "fake", "sub-02", seed=0)
    (place,) = standing.places(bench, request, decode(bench, request).embedding[None])
    assert place.n == 1 and np.isfinite(place.similarity)
    assert np.isnan([place.rank, place.identification, place.margin]).all()
    with pytest.raises(UserError, match="among at least 2 test stimuli .* has 1"):
        standing.standing(bench, request)


def test_all_test_trials_are_decoded_as_one_by_one(workbench, request_):
    for repeats in ((), (1,)):
        wanted = replace(request_, repeats=repeats)
        names, decoded = standing.decoded_test(workbench, wanted)
        assert names == list(workbench.catalogue.gallery("fake", "sub-01").index)
        for name, z in zip(names, decoded, strict=True):
            alone = decode(workbench, replace(wanted, stimulus=name)).embedding
            np.testing.assert_allclose(z, alone, atol=1e-5)


def test_a_stimulus_without_these_repeats_or_with_bad_betas_is_left_out(make_workbench, fakes):
    class Gaps(fakes.Study):
        def load(self, subject):  # noqa: ANN001, ANN202
            trials = super().load(subject)
            trials.betas[0, 3] = np.nan  # test-01, first repeat
            kept = np.delete(np.arange(len(trials.table)), 11)  # test-02, second repeat
            table = trials.table.iloc[kept].reset_index(drop=True)
            return replace(trials, betas=trials.betas[kept], table=table)

    bench = make_workbench(datasets={"fake": Gaps})
    request = replace(
        default_request(bench.catalogue, "fake", "sub-01", seed=0), stimulus="test-05"
    )
    second = standing.betas_of_test(bench, replace(request, repeats=(1,)))[0]
    first = standing.betas_of_test(bench, replace(request, repeats=(0,)))[0]
    every = [f"test-{i:02d}" for i in range(1, 11)]
    assert second == [name for name in every if name != "test-02"]
    assert first == every[1:]
    with pytest.raises(UserError, match="no test stimulus with these repeats"):
        standing.betas_of_test(bench, replace(request, repeats=(0, 7)))


def test_a_trial_ranks_among_the_test_trials(workbench, request_, gallery):
    names, embeddings = gallery
    _, decoded = standing.decoded_test(workbench, request_)
    similar = np.diag(metrics.cosine_matrix(decoded, embeddings))
    best, worst = names[similar.argmax()], names[similar.argmin()]
    top = standing.standing(workbench, replace(request_, stimulus=best))
    assert (top.position, top.percentile, top.n) == (1, 100, 10)
    assert top.value == pytest.approx(similar.max())
    assert "better than 100 % of the other 9 test images" in top.sentence
    low = standing.standing(workbench, replace(request_, stimulus=worst))
    assert (low.position, low.percentile) == (10, 0)
    for name in names[:3]:
        one = replace(request_, stimulus=name)
        found = standing.standing(workbench, one, "margin")
        assert found.value == pytest.approx(decode(workbench, one).margin, abs=1e-4)
    with pytest.raises(UserError, match="ranked by similarity, margin, identification, found 'x'"):
        standing.standing(workbench, request_, "x")


def test_the_effective_rank_has_known_answers():
    rng = np.random.default_rng(0)
    assert standing.effective_rank(np.eye(6).repeat(5, axis=0)) == pytest.approx(6)
    same = np.tile(rng.standard_normal(20), (30, 1)) * rng.uniform(1, 9, (30, 1))
    assert standing.effective_rank(same) == pytest.approx(1)
    assert np.isnan(standing.effective_rank(np.zeros((4, 3))))
    near = same + 0.01 * rng.standard_normal(same.shape)
    assert 1 < standing.effective_rank(near) < 1.5  # a little noise does not hide a collapse
    # two singular values 3 to 1: entropy of (3/4, 1/4)
    rows = np.array([[1, 0]] * 9 + [[0, 1]])
    assert standing.effective_rank(rows) == pytest.approx(
        np.exp(-0.75 * np.log(0.75) + 0.5 * np.log(2))
    )


def test_a_mapper_that_always_says_the_same_is_called_collapsed(make_workbench, fakes, workbench):
    class Same(fakes.Linear):
        def forward(self, betas, subject):  # noqa: ANN001, ANN202
            found = super().forward(betas, subject)
            return {space: 0.01 * z + 1 for space, z in found.items()}

    bench = make_workbench(mappers={"linear": Same, "ridge": Same})
    request = default_request(bench.catalogue, "fake", "sub-01", seed=0)
    found, sound = standing.collapse(bench, request), standing.collapse(workbench, request)
    assert found.n == 10 and found.predicted < 1.5 < found.true
    assert "pictures will look alike" in found.sentence
    assert sound.predicted > 3 and "about as varied as the images" in sound.sentence
    assert sound.true == found.true


def test_the_nearest_training_image_is_asked_of_a_generator_that_retrieves(
    make_workbench, fakes, workbench, request_
):
    class Retriever(fakes.Unguided):
        needs = ("dataset",)

        def neighbours(self, condition):  # noqa: ANN001, ANN202
            study = condition.dataset
            names = [name for name in study.stimuli.index if name.startswith("train")]
            z = np.asarray(condition.embeddings[fakes.space])[None]
            seen = fakes.Embedder().embed([study.image(name) for name in names])
            similar = metrics.cosine_matrix(z, seen)[0]
            best = int(similar.argmax())
            return (Neighbour(names[best], "", float(similar[best])),)

    generators = {"painter": fakes.Generator, "retriever": Retriever}
    bench = make_workbench(generators=generators)
    request = replace(request_, options=(("contrast", 0.5),))
    decoded = standing.nearest_training(bench, request)
    assert decoded.picture.startswith("train-") and -1 <= decoded.similarity < 1
    itself = standing.nearest_training(bench, request, fakes.picture("train-07"))
    assert itself.picture == "train-07" and itself.similarity == pytest.approx(1)

    with pytest.raises(UserError, match="No generator here looks for training images"):
        standing.nearest_training(workbench, request_)
    assert "no mapper" in standing.no_retrieval(bench, replace(request_, mapper=""))


def test_where_nothing_draws_what_is_decoded_is_still_ranked(workbench, request_):
    without = replace(request_, generator="")
    for ask in (standing.standing, standing.collapse):
        assert ask(workbench, without) == ask(workbench, request_)


def test_what_is_left_out_is_said_and_nothing_otherwise():
    assert standing.lost_images(10, 10) == ""
    assert standing.lost_images(10, 9).startswith("1 of 10 test images is left out: no such")
    assert standing.lost_images(10, 7).startswith("3 of 10 test images are left out: no such")


@pytest.mark.parametrize(("predicted", "said"), [(2.0, "about as varied"), (1.9, "look alike")])
def test_half_of_the_true_rank_is_no_collapse_yet(
    workbench, request_, monkeypatch, predicted, said
):
    ranks = iter([predicted, 4.0])
    monkeypatch.setattr(standing, "effective_rank", lambda rows: next(ranks))
    assert said in standing.collapse(workbench, request_).sentence


def test_a_picture_is_placed_in_the_first_space_of_its_embedder(make_workbench, fakes, request_):
    class Two(fakes.Embedder):
        spaces = (fakes.space, EmbeddingSpace("other", "image", (8,)))

        def embed(self, images, space=fakes.space):  # noqa: ANN001, ANN202
            rows = super().embed(images)
            return rows if space == fakes.space else np.ones_like(rows)

    bench = make_workbench(embedders={"pocket-clip": Two})
    place = standing.picture_place(bench, request_, fakes.picture(request_.stimulus))
    assert (place.rank, place.identification) == (1, 1)


def test_published_predictions_are_looked_up_and_bad_ones_left_out(
    workbench, request_, monkeypatch, fakes
):
    rows = {f"test-{i:02d}": np.full(8, float(i)) for i in (2, 4, 9)}

    class Published:
        holds = staticmethod(rows.__contains__)

        def lookup(self, stimulus):  # noqa: ANN001, ANN202
            if stimulus in bad:
                raise UserError("not finite")
            return {fakes.space: rows[stimulus]}

    offered = SimpleNamespace(published=Published(), targets=(fakes.space,))
    monkeypatch.setattr(workbench.catalogue, "offer", lambda *about: offered)
    monkeypatch.setattr(workbench.models, "mapper", lambda *about: offered.published)
    bad = {"test-04"}
    names, decoded = standing._decode_test(workbench, request_)
    assert names == ["test-02", "test-09"] and decoded[:, 0].tolist() == [2, 9]
    bad |= set(rows)
    with pytest.raises(UserError, match="linear has no usable prediction for any test image of"):
        standing._decode_test(workbench, request_)
