"""Curve, evaluation and statistics as endpoints: the numbers of the modules behind them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.reports.mapper_tables import write
from backends.reports.mappers import compare
from explorer.evidence import curves, group, statistics
from explorer.evidence.evaluation import read_evaluation
from explorer.request import Request, View
from tests.explorer.page.serving import OLD_NAME, served

pytestmark = OLD_NAME
REQUEST = Request(
    "fake", "sub-01", "test-04", "linear", "painter", scales=(0.0, 3.0), steps=4, seed=9
)


def test_a_curve_is_that_of_the_module(client: Any, workbench: Any) -> None:
    asked = {"scales": "0; 3", "seed": 9, "seeds": 2}
    told = client.predict("test-04", **asked, sample=3, api_name="/curve")
    *_, own = curves.curve(workbench, REQUEST, 2)
    *_, behind = curves.background(workbench, REQUEST, 3)
    assert (told["scales"], told["seeds"], told["sample"]) == ([0, 3], [9, 10], 3)
    assert [one["score"] for one in told["scores"]] == list(own.values)
    for one in told["scores"]:
        rows = own.values[one["score"]]
        assert one["mean"] == pytest.approx(list(rows.mean(axis=0)))
        assert one["low"] == list(rows.min(axis=0)) and one["high"] == list(rows.max(axis=0))
        assert one["test"] == pytest.approx(list(behind.mean[one["score"]]))
        assert one["test_low"] == pytest.approx(list(behind.interval[one["score"]][:, 0]))
    assert len(told["images"]) == 2 and "panel=curve" in told["link"]
    plain = client.predict("test-04", **asked, api_name="/curve")
    assert plain["sample"] == 0 and plain["scores"][0]["test"] is None
    for wrong, sentence in (
        ({"seeds": 0}, "number of seeds lies between 1 and 16, found 0"),
        ({"seeds": 1.5}, "seeds is a whole number, found “1.5”"),
        ({"scales": "2"}, "takes at least 2 of them"),
        ({"sample": 1}, "take at least 2 of them, found 1"),
        ({"sample": -1}, "sample is 0 or a number of test images, found -1"),
    ):
        with pytest.raises(Exception, match=sentence):
            client.predict("test-04", **(asked | wrong), api_name="/curve")


def test_statistics_are_those_of_the_module(client: Any, workbench: Any) -> None:
    told = client.predict(subject="sub-01", permutations=20, api_name="/statistics")
    own = statistics.subject_map(workbench, REQUEST, View(), permutations=20)
    assert told["subjects"] == ["sub-01"] and told["stimuli"] == 10
    assert told["identification"] == pytest.approx(list(own.identification))
    assert [one["parcel"] for one in told["parcels"]] == list(own.table["parcel"])
    for column in ("value", "low", "q_evidence", "p_place", "per_ceiling"):
        sent = np.array([one[column] for one in told["parcels"]], float)
        np.testing.assert_allclose(sent, own.table[column])
    assert own.repeats.sentence in told["notes"]
    both = client.predict(people="group", permutations=20, api_name="/statistics")
    of_all = group.group_map(workbench, REQUEST, View(people="group"), permutations=20)
    assert both["notes"][0] == of_all.sentence and of_all.left_out[0] in both["notes"]
    sent = [one["value"] for one in both["parcels"] if one["subjects"]]
    assert sent == pytest.approx(list(of_all.table["value"].dropna()))
    for wrong, sentence in (
        ({"permutations": 0}, "lies between 1 and 10000, found 0"),
        ({"people": "everybody"}, "people is one of subject, group, found 'everybody'"),
        ({"repeat": 3}, "no repeat 3"),
    ):
        with pytest.raises(Exception, match=sentence):
            client.predict(**({"permutations": 20} | wrong), api_name="/statistics")


def test_an_evaluation_is_that_of_its_folder(
    make_workbench: Any, fakes: SimpleNamespace, tmp_path: Path
) -> None:
    write(compare(make_workbench(generators={"painter": fakes.Generator}), "fake"), tmp_path)
    own = read_evaluation(tmp_path)
    with served(make_workbench(evaluations=[tmp_path])) as client:
        told = client.predict(api_name="/evaluation")
        assert len(told["rows"]) == len(own.table) and told["trials"] == []
        assert [one["score"] for one in told["scores"]] == list(own.scores)
        asked = {"score": "two-way", "mapper": "linear", "subject": "sub-01", "betas": "averaged"}
        told = client.predict(**asked, api_name="/evaluation")
        (row,) = told["rows"]
        known = own.rows("fake-clip/image", "two-way")
        known = known[(known["mapper"] == "linear") & (known["subject"] == "sub-01")]
        assert row["value"] == pytest.approx(known["value"].item()) and row["n"] == 10
        values = own.distribution("fake-clip/image", "two-way", "linear", "sub-01")
        assert [one["stimulus"] for one in told["trials"]] == list(values.index)
        assert [one["value"] for one in told["trials"]] == pytest.approx(list(values))
        assert told["notes"] == list(own.notes)
        schema = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
        schema = schema["/evaluation"]["returns"][0]["type"]["properties"]
        assert set(told) == set(schema)
        for part in ("rows", "trials", "scores"):
            assert set(told[part][0]) == set(schema[part]["items"]["properties"])
        with pytest.raises(Exception, match="no mapper 'magic' .*choose one of linear"):
            client.predict(mapper="magic", api_name="/evaluation")
        with pytest.raises(Exception, match="no betas 'good'"):
            client.predict(betas="good", api_name="/evaluation")


def test_without_an_evaluation_it_is_said_how_one_is_made(client: Any) -> None:
    with pytest.raises(Exception, match="mappers of fake have not been measured here: run python"):
        client.predict(api_name="/evaluation")
