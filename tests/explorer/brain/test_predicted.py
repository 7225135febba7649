"""The predicted brain: what is compared with what, against algebra and on a planted study."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest

from explorer import records
from explorer.brain import predicted
from explorer.brain.maps import map_names, parcellation_of, shown_map
from explorer.page import brain, export, links
from explorer.page.api_maps import Maps
from explorer.page.choices import settle
from explorer.records import make_record
from explorer.request import Request, View
from explorer.types import Label, Parcellation, UserError

REQUEST = Request("fake", "sub-01", "test-04", "linear", "painter", (1.0,), steps=2)


def test_correlations_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30, 5))
    b[:, 4] = 3.0
    found = predicted.correlation(a, b)
    expected = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(4)]
    np.testing.assert_allclose(found[:4], expected)
    assert np.isnan(found[4])
    a[:, 4], b[:, 4] = np.full((2, 30), 0.1)  # constants, but for the rounding of their sums
    assert (a - a.mean(axis=0))[:, 4].any() and np.isnan(predicted.correlation(a, b)[4])
    member = np.arange(30) < np.array([[30], [10], [9]])
    rois = Parcellation("R", "masks", (Label("a"), Label("b"), Label("c")), member, "h")
    whole, part, few, rest = predicted.pattern_correlation(a[:, 0], b[:, 0], rois)
    assert whole == pytest.approx(expected[0])
    assert part == pytest.approx(np.corrcoef(a[:10, 0], b[:10, 0])[0, 1])
    assert np.isnan(few) and np.isnan(rest)


def test_a_perfect_prediction_reaches_the_ceiling_and_none_passes_it() -> None:
    rng, n = np.random.default_rng(1), 20_000
    signal, repeats = rng.normal(size=n), np.tile([1, 3], n // 2)
    for ncsnr in (0.3, 1.0):
        measured = ncsnr * signal + rng.normal(size=n) / np.sqrt(repeats)
        (highest,) = predicted.correlation_ceiling(np.array([ncsnr]), repeats)
        assert float(predicted.correlation(measured, signal)) == pytest.approx(highest, abs=0.02)


def test_planted_voxels_are_predicted_and_the_rest_is_not(predicting: Any, fakes: Any) -> None:
    shown = shown_map(predicting, REQUEST, View(shows="encoding accuracy"))
    table = shown.table[shown.table["voxels"] > 0].set_index("parcel")
    informative = table["name"].isin(fakes.informative)
    assert table["mean"][informative].min() > 0.6 > 0.45 > table["mean"][~informative].max()
    assert table["r_trial"][informative].min() > 0.5
    assert ", 10 test images" in shown.title
    assert "ridge encoding model trained on this subject's training trials" in shown.sentence
    trials = predicting.catalogue.trials("fake", "sub-01")
    stimuli = trials.stimuli("test")
    encoder = predicting.models.encoder("fake", "sub-01")
    images = fakes.Embedder().embed([fakes.picture(s) for s in stimuli])
    guess, measured = encoder.predict({fakes.space: images}), map(trials.average, stimuli)
    expected = predicted.correlation(np.stack(list(measured)), guess)
    np.testing.assert_allclose(shown.values, expected, rtol=1e-5)
    highest = predicted.correlation_ceiling(trials.subject.ncsnr, [2])
    masks = parcellation_of(predicting, "fake", "sub-01").masks()[:-1]
    for ceiling, mask in zip(shown.table["r_ceiling"], masks, strict=False):
        assert (
            np.isnan(ceiling) if not mask.any() else ceiling == pytest.approx(highest[mask].mean())
        )


def test_measured_and_predicted_betas_share_unit_and_colours(predicting: Any, fakes: Any) -> None:
    measured, guess = (
        shown_map(predicting, REQUEST, View(shows=name)) for name in predicted.PREDICTIONS[:2]
    )
    trials = predicting.catalogue.trials("fake", "sub-01")
    train = trials.betas[trials.rows("train")]
    mean, sd = train.mean(0), train.std(0)
    expected = (trials.average("test-04") - mean) / sd
    np.testing.assert_allclose(measured.values, expected, atol=1e-4)
    encoder = predicting.models.encoder("fake", "sub-01")
    raw = encoder.predict({fakes.space: fakes.Embedder().embed([fakes.picture("test-04")])})[0]
    np.testing.assert_allclose(guess.values, (raw - mean) / sd, atol=1e-4)
    assert measured.limits == guess.limits and measured.limits[0] == -measured.limits[1]
    every = [trials.average(stimulus) for stimulus in trials.stimuli("test")]
    sizes = np.abs(np.stack(every) - mean) / sd
    assert measured.limits[1] == pytest.approx(np.percentile(sizes, 99), rel=1e-4)
    assert "(mean of 2 trials)" in measured.title and "trials)" not in guess.title
    masks = parcellation_of(predicting, "fake", "sub-01").masks()
    for found, mask in zip(guess.table["r_trial"], masks, strict=True):
        if mask.any():
            r = np.corrcoef(measured.values[mask], guess.values[mask])[0, 1]
            assert found == pytest.approx(r)
    one = shown_map(predicting, replace(REQUEST, repeats=(1,)), View(shows="measured betas"))
    assert "(one trial)" in one.title and not np.allclose(one.values, measured.values)


def test_a_predicted_brain_is_on_offer_only_with_a_model_that_fits(
    predicting: Any, make_workbench: Any, encoding_checkpoints: Any, tmp_path: Any
) -> None:
    assert map_names(predicting, "fake", "sub-01")[1:4] == list(predicted.PREDICTIONS)
    assert "measured betas" not in map_names(predicting, "fake", "sub-02")
    with pytest.raises(UserError, match="no encoding model for fake/sub-02; train one with"):
        predicting.models.encoder("fake", "sub-02")
    assert predicting.catalogue.problems() == []
    folder = tmp_path / "checkpoints"
    for change, sentence in (
        ({"voxels": {"sub-01": [9, "h"]}}, "was made for 9 voxels (hash h)"),
        ({"cls": "dream"}, "is of the kind 'dream', which this version does not have; it has enc"),
        ({"targets": [{"model": "m", "layer": "x", "shape": [2]}]}, "reads m/x, and no embedder"),
        ({"mood": 1}, "unknown field 'mood'"),
    ):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(encoding_checkpoints, folder)
        path = folder / "encoding" / "fake" / "sub-01" / "card.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        bench = make_workbench(checkpoints=folder, encoders={"encoding": "nowhere:Nothing"})
        assert "measured betas" not in map_names(bench, "fake", "sub-01")
        (problem,) = bench.catalogue.problems()
        assert problem.startswith("The encoding model of fake/sub-01") and sentence in problem


def test_accuracy_says_which_test_images_it_leaves_out(
    make_workbench: Any, encoding_checkpoints: Any, fakes: SimpleNamespace
) -> None:
    class Damaged(fakes.Study):
        def load(self, subject: str) -> Any:
            trials = super().load(subject)
            betas = trials.betas.copy()
            betas[trials.rows("test", "test-05")[0], 3] = np.nan
            return replace(trials, betas=betas)

    encoders = {"encoding": "backends.encoders.voxelwise:Encoding"}
    made = {"checkpoints": encoding_checkpoints, "encoders": encoders}
    view = View(shows="encoding accuracy")
    whole = shown_map(make_workbench(**made), REQUEST, view)
    lacking = shown_map(make_workbench(datasets={"fake": Damaged}, **made), REQUEST, view)
    assert "10 test images" in whole.title and "left out" not in whole.sentence
    assert "9 test images" in lacking.title
    assert lacking.sentence.endswith("left out, as their betas are not finite: 1.")


def test_it_reaches_link_page_export_record_and_api(predicting: Any, tmp_path: Any) -> None:
    view = View(shows="encoding accuracy")
    query = links.query(REQUEST, view)
    assert "show=encoding+accuracy" in query
    assert settle(dict(parse_qsl(query)), predicting).view == view
    place = brain.frame(REQUEST, view, predicting, "plotly.js")
    assert ["encoding accuracy", "Measured against predicted"] in place["offered"]
    shown = shown_map(predicting, REQUEST, view)
    value = brain.filled(place, shown, REQUEST, view, predicting)
    assert {"mean", "r_ceiling", "r_trial"} <= set(value["rows"][0])
    assert "predicted from the shown image (fake-clip/image) by" in value["sentences"]["shows"]
    other = replace(REQUEST, stimulus="test-05")
    assert brain.decided_by(REQUEST, view) != brain.decided_by(other, view)
    table = export.make(predicting, REQUEST, view, "csv").content.decode()
    assert table.splitlines()[0].endswith("known,mean,r_ceiling,r_trial,map")
    record = json.loads(export.make(predicting, REQUEST, view, "json").content)
    assert len(record["checkpoints"]["encoding model"]) == 16
    assert records.changes(predicting, record) == []
    record["checkpoints"]["encoding model"] = "0" * 16
    (sentence,) = records.changes(predicting, record)
    assert sentence.startswith("The weights of the encoding model are others")
    assert "encoding model" not in make_record(predicting, REQUEST, View())["checkpoints"]

    answer = Maps(predicting).map("measured betas", trial="test-05", repeat=2)
    expected = shown_map(
        predicting, replace(other, repeats=(1,)), View(shows="measured betas")
    ).table.set_index("parcel")
    for row in answer["parcels"]:
        if row["voxels"]:
            assert row["mean"] == pytest.approx(expected.loc[row["parcel"], "mean"])
            assert row["r_ceiling"] is None
    assert answer["trial"] == "test-05" and "ridge encoding model" in answer["sentence"]
    with pytest.raises(Exception, match="no test trial of repeat 3 of stimulus 'test-05'"):
        Maps(predicting).map("measured betas", trial="test-05", repeat=3)
