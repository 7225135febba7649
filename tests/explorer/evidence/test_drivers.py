"""What drives a parcel, against algebra and on a study whose tuning is planted."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from explorer.brain.maps import parcellation_of
from explorer.evidence import drivers, lesions
from explorer.evidence.drivers import MEASURED, PREDICTED, WEIGHT
from explorer.page.api_parcel import Parcels
from explorer.page.lab import VIEWS
from explorer.page.lab_parcel import drivers_settings, drivers_view
from explorer.request import Request, View
from explorer.types import UserError

REQUEST = Request("fake", "sub-01", "test-04", "linear", "painter", steps=2)
DRIVEN, SILENT = "fusiform L", "precentral L"


def found(bench: Any, parcel: str = DRIVEN) -> dict[tuple[str, str], drivers.Ranking]:
    return {(r.name, r.split): r for r in drivers.drivers(bench, REQUEST, parcel)}


def test_measured_responses_are_those_of_the_data(workbench: Any) -> None:
    trials = workbench.catalogue.trials("fake", "sub-01")
    atlas = parcellation_of(workbench, "fake", "sub-01")
    mask = atlas.masks()[[label.key for label in atlas.labels].index(DRIVEN)]
    for split, repeats in (("test", 2), ("train", 1)):
        ranking = found(workbench)[MEASURED, split]
        own = {s: trials.average(s, split=split)[mask].mean() for s in trials.stimuli(split)}
        order = sorted(own, key=own.get, reverse=True)
        assert list(ranking.table["stimulus"]) == order
        np.testing.assert_allclose(ranking.table["value"], [own[s] for s in order], atol=1e-6)
        assert ranking.table["z"].mean() == pytest.approx(0, abs=1e-9)
        assert ranking.table["z"].std(ddof=0) == pytest.approx(1)
        assert set(ranking.table["repeats"]) == {repeats}
        assert ranking.unit == "made up"
    assert (
        "each the average of 2 trials. Noise ceiling"
        in found(workbench)[MEASURED, "test"].sentence
    )
    assert "No noise ceiling: fewer than 3" in found(workbench)[MEASURED, "train"].sentence


def test_the_planted_tuning_ranks_predictions_and_measurements_alike(predicting: Any) -> None:
    rankings = found(predicting)
    both = [
        rankings[name, "test"].table.set_index("stimulus")["value"]
        for name in (MEASURED, PREDICTED)
    ]
    assert both[0].corr(both[1].loc[both[0].index]) > 0.9
    assert rankings[PREDICTED, "test"].table["repeats"].eq(0).all()
    assert "trained on their measured betas" in rankings[PREDICTED, "train"].sentence
    # a parcel without tuning drives nothing that the decoder could use
    silent = found(predicting, SILENT)
    size = [r[WEIGHT, "test"].table["value"].abs().mean() for r in (rankings, silent)]
    assert size[0] > 3 * size[1]
    moved = [r[WEIGHT, "train"].table["value"].mean() for r in (rankings, silent)]
    assert moved[0] > 5 * moved[1]


def test_the_weight_is_the_lesion_effect_of_each_trial(workbench: Any) -> None:
    table = found(workbench)[WEIGHT, "test"].table.set_index("stimulus")
    for stimulus in ("test-02", "test-09"):
        effects = lesions.lesion_effects(workbench, replace(REQUEST, stimulus=stimulus)).table
        own = effects.set_index("parcel").loc[DRIVEN, "effect"]
        assert table.loc[stimulus, "value"] == pytest.approx(own, abs=1e-4)


def test_without_an_encoding_model_two_rankings_say_why(workbench: Any) -> None:
    for split in drivers.SPLITS:
        ranking = found(workbench)[PREDICTED, split]
        assert ranking.reason.startswith("There is no encoding model for fake/sub-01; train one")
        assert ranking.table.empty


def test_betas_that_are_not_finite_are_left_out_and_counted() -> None:
    masks = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
    betas = np.array([[1, 3, 5], [np.nan, 2, np.nan]])
    np.testing.assert_array_equal(
        drivers.parcel_means(betas, masks), [[2, 5, np.nan], [2, np.nan, np.nan]]
    )
    ranking = drivers._ranking(MEASURED, "test", "z", ["a", "b", "c"], [1, np.nan, 3], [1, 1, 1])
    assert list(ranking.table["stimulus"]) == ["c", "a"]
    assert ranking.sentence == "Left out, as their betas are not finite: 1."


def test_the_ceiling_is_the_planted_one() -> None:
    rng = np.random.default_rng(0)
    index = np.repeat(np.arange(4000), 3)
    values = rng.normal(size=4000)[index] + rng.normal(size=12_000)  # ncsnr 1, three repeats
    sentence = drivers.ceiling(values, index)
    assert "by at most 0.87 (from 4,000 images with repeats)" in sentence  # sqrt(1 / (1 + 1/3))
    noise = drivers.ceiling(rng.normal(size=12_000), index)
    assert float(noise.partition("at most ")[2].split()[0]) < 0.2


@pytest.mark.parametrize("parcel", ["nowhere", "(unassigned)"])
def test_an_unknown_parcel_is_refused(workbench: Any, parcel: str) -> None:
    with pytest.raises(UserError, match="has no parcel .*choose one of its"):
        drivers.drivers(workbench, REQUEST, parcel)


def test_a_parcel_without_voxels_is_refused(workbench: Any) -> None:
    with pytest.raises(UserError, match="bankssts L has no voxels of fake/sub-01"):
        drivers.drivers(workbench, REQUEST, "bankssts L")


def test_the_view_shows_both_ends_with_their_values(workbench: Any) -> None:
    assert VIEWS["drivers"] is drivers_view
    view = View(panel="drivers", parcel=DRIVEN)
    *_, (content, _, share) = drivers_view(workbench, REQUEST, view)
    assert (share, content["label"], content["selected"]) == (1, "fusiform, left", True)
    measured = content["rankings"][0]
    assert (len(measured["highest"]), len(measured["lowest"]), measured["n"]) == (5, 5, 10)
    assert measured["highest"][0]["z"] > 0 > measured["lowest"][0]["z"]
    assert all(one["src"].startswith("data:image/") for one in measured["highest"])
    assert measured["highest"][0]["number"] > 0  # a test image opens its trial
    assert content["rankings"][1]["highest"][0]["number"] == 0
    settings = drivers_settings(workbench, REQUEST, View())
    assert settings["chosen"] in [key for key, _ in settings["parcels"]]


def test_the_endpoint_gives_all_where_asked(workbench: Any, fakes: SimpleNamespace) -> None:
    ask = Parcels(workbench).drivers
    few, every = ask(parcel=DRIVEN, n=2), ask(parcel=DRIVEN, n=0)
    assert [len(r["highest"]) for r in few["rankings"]] == [2, 2, 0, 0, 2, 2]
    assert [len(r["highest"]) for r in every["rankings"]] == [10, 60, 0, 0, 10, 60]
    assert few["rankings"][0]["lowest"][0] == every["rankings"][0]["highest"][-1]
    assert "panel=drivers" in few["link"] and "parcel=fusiform+L" in few["link"]
    with pytest.raises(gr.Error, match="n counts images and is 0 or more, found -1"):
        ask(parcel=DRIVEN, n=-1)
