"""Published predictions: looked up by trial, never decoded; what they can and cannot answer."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from backends.mappers import published
from backends.mappers.published import Published as Predictions
from explorer.brain.maps import parcel_importance
from explorer.choosing import default_request
from explorer.decoding import decode
from explorer.drawing import reconstruct, warm
from explorer.evidence import standing
from explorer.request import View
from explorer.types import EmbeddingSpace, UserError
from tests.miniatures.published import APPEARANCE, ASCENDING, Components


def test_predictions_are_looked_up_by_trial(open_results, predictions, fakes):
    bench = open_results(predictions, space="fake-clip/image")
    assert bench.catalogue.mapper_names("fake", "sub-01") == ["theirs"]
    for stimulus in ASCENDING:
        request = default_request(bench.catalogue, "fake", "sub-01", stimulus=stimulus)
        assert (request.mapper, request.generator) == ("theirs", "painter")
        decoding = decode(bench, request)
        assert decoding.rank == 1 and decoding.similarity > 0.99
        assert decoding.space == fakes.space
    assert all(frame.done for frame in reconstruct(bench, request) if frame.step == frame.steps)
    assert bench.models.card(request).cls == "published"
    hashes = bench.checkpoint_hashes(request)
    assert re.fullmatch("[0-9a-f]{16}", hashes["mapper"])


def test_the_wrong_order_decodes_others_images(open_results, predictions):
    bench = open_results(predictions, space="fake-clip/image", order="appearance")
    ranks = [
        decode(bench, default_request(bench.catalogue, "fake", "sub-01", stimulus=stimulus)).rank
        for stimulus in ASCENDING
    ]
    agree = sum(a == b for a, b in zip(APPEARANCE, ASCENDING, strict=True))
    assert ranks.count(1) == agree < 5


def test_predictions_have_no_importance_and_no_single_repeats(open_results, predictions):
    bench = open_results(predictions, space="fake-clip/image")
    request = default_request(bench.catalogue, "fake", "sub-01")
    with pytest.raises(UserError, match="theirs was published: its embeddings are looked up"):
        parcel_importance(bench, request, View())
    warm(bench, request)
    single = default_request(bench.catalogue, "fake", "sub-01", repeats=(1,))
    with pytest.raises(UserError, match="theirs was made by others from the average"):
        decode(bench, single)
    mapper = bench.models.mapper("fake", "sub-01", "theirs")
    with pytest.raises(UserError, match="looked up by trial; it cannot decode betas"):
        mapper(torch.zeros(1, 3), "sub-01")
    with pytest.raises(UserError, match="read, not trained; open them with"):
        Predictions.fit([], {}, seed=0)
    with pytest.raises(UserError, match="no prediction for train-01"):
        mapper.lookup("train-01")


def test_predictions_have_the_controls_that_need_no_betas(open_results, predictions):
    from explorer.evidence import controls, lesions, standing

    bench = open_results(predictions, space="fake-clip/image")
    request = default_request(bench.catalogue, "fake", "sub-01", seed=0)
    found = {one.name: one for one in controls.controls(bench, request)}
    there = [name for name, one in found.items() if not one.reason]
    assert there == [controls.TRUE, controls.AVERAGE, controls.ANOTHER, controls.NONE]
    assert found[controls.ANOTHER].decoded.rank > 1 == found[controls.AVERAGE].decoded.rank
    assert "no other betas can be put in" in found[controls.MEAN].reason
    assert "from the average of all repeats" in found[controls.SINGLES[0]].reason
    with pytest.raises(UserError, match="theirs was published: .* no other betas can be put in"):
        lesions.lesion(bench, request, lesions.Lesion(("fusiform L",)))
    assert standing.standing(bench, request).n == 10
    assert standing.collapse(bench, request).predicted > 2

    fewer, none = (open_results(predictions, space="fake-clip/image") for _ in range(2))
    fewer.models.mapper("fake", "sub-01", "theirs")._rows.popitem()  # part was published
    assert len(standing.decoded_test(fewer, request)[0]) == 9
    none.models.mapper("fake", "sub-01", "theirs")._rows.clear()
    with pytest.raises(UserError, match="theirs has no usable prediction for any test image"):
        standing.decoded_test(none, request)


def test_a_page_with_predictions_shows_pictures_without_a_map(open_results, predictions):
    from explorer.page.handlers import Handlers
    from explorer.page.session import Session

    bench = open_results(predictions, space="fake-clip/image")
    handlers = Handlers(bench, Components(), "plotly.js")
    session = Session()
    handlers.open_link(session, SimpleNamespace(query_params={"scales": "1,4"}))
    updates = list(handlers.work(session))
    assert session.shown["decoding"]["rank"] == 1
    (brain,) = [update["brain"] for update in updates if "brain" in update]
    assert "there is no gradient and no importance of parcels" in brain["note"]
    assert session.shown["progress"]["state"] == "done"


def test_what_nothing_here_can_compare_is_said(open_results, tmp_path):
    np.save(tmp_path / "nsdgeneral.npy", np.ones((10, 12), np.float32))
    given = {"path": tmp_path / "nsdgeneral.npy", "order": "appearance"}
    with pytest.raises(UserError, match=r"shape \(12,\); say what they are of with [?]space="):
        open_results(**given)
    bench = open_results(**given, space="ViT-L-14/context", shape="3x4")
    (space,) = bench.catalogue.offer("fake", "sub-01", "theirs").targets
    assert space == EmbeddingSpace("ViT-L-14", "context", (3, 4))
    assert bench.models.mapper("fake", "sub-01", "theirs").lookup(APPEARANCE[0])[space].shape == (
        (3, 4)
    )
    request = default_request(bench.catalogue, "fake", "sub-01", mapper="theirs", generator="")
    with pytest.raises(UserError, match="No embedder here puts images into ViT-L-14/context"):
        decode(bench, request)
    for options, sentence in (
        ({"space": "ViT-L-14/context", "shape": "3x5"}, "12 values a row, .* has 15"),
        ({"space": "fake-clip/image"}, r"12 values a row, .*shape \(8,\) has 8"),
        ({"space": "ViT-L-14/context", "shape": "3by4"}, "whole numbers joined by x"),
        ({"space": "ViT-L-14"}, "MODEL/LAYER, found 'ViT-L-14'"),
    ):
        with pytest.raises(UserError, match=sentence):
            open_results(**given, **options)


def test_predictions_that_are_not_finite_are_refused_where_they_are_used(open_results, tmp_path):
    rows = np.ones((10, 8), np.float32)
    rows[4, 2] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    bench = open_results(tmp_path / "rows.npy", order="ascending", space="fake-clip/image")
    mapper = bench.models.mapper("fake", "sub-01", "theirs")
    mapper.lookup(ASCENDING[3])
    with pytest.raises(UserError, match=r"row 4 \(from 0\) holds values that are not finite"):
        mapper.lookup(ASCENDING[4])


def test_a_large_file_is_opened_without_reading_its_rows(open_results, tmp_path, monkeypatch):
    """Of the size of MindEye2's clipvoxels; the rows are checked as they are looked up."""
    shape, asked = (10, 256, 166_400), []
    np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float32, shape)  # holes: no disk
    own = published.row
    monkeypatch.setattr(published, "row", lambda stored, i: asked.append(i) or own(stored, i))
    given = {"order": "ascending", "space": "bigG/tokens"}
    bench = open_results(tmp_path / "rows.npy", **given)
    mapper = bench.models.mapper("fake", "sub-01", "theirs")
    assert (tmp_path / "rows.npy").stat().st_size > 1.7e9 and not asked
    mapper.lookup(ASCENDING[3])
    assert asked == [3]


def test_rows_of_a_large_file_that_are_not_finite_are_counted(open_results, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "CHECKED", 0)
    rows = np.random.default_rng(0).standard_normal((10, 8)).astype(np.float32)
    rows[4, 2] = rows[7, 0] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    bench = open_results(tmp_path / "rows.npy", order="ascending", space="fake-clip/image")
    request = default_request(bench.catalogue, "fake", "sub-01", stimulus=ASCENDING[0])
    for said in (standing.standing(bench, request), standing.collapse(bench, request)):
        assert said.n == 8
        assert "2 of 10 test images are left out: " in said.sentence
    with pytest.raises(UserError, match=r"row 4 \(from 0\) holds values that are not finite"):
        decode(bench, default_request(bench.catalogue, "fake", "sub-01", stimulus=ASCENDING[4]))
