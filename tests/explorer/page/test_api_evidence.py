"""The endpoints of evidence answer what the modules behind them say, ready for JSON."""

import base64
import io
import json
from dataclasses import replace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from explorer import page
from explorer.choosing import default_request
from explorer.evidence import comparison, controls, lesions
from explorer.page.api_evidence import Evidence
from explorer.request import View


@pytest.fixture
def ask(workbench):
    return Evidence(workbench)


@pytest.fixture
def request_(workbench):
    request = default_request(workbench.catalogue, "fake", "sub-01", seed=0)
    return replace(request, stimulus="test-03", scales=(4.0,), seed=9, repeats=(1,))


ARGUMENTS = {"trial": "test-03", "scale": 4, "seed": 9, "repeat": 2}


def pixels(address):
    data = base64.b64decode(address.partition(",")[2])
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)


def test_they_are_on_the_page(workbench):
    names = {fn.api_name for fn in page.build(workbench).fns.values()}
    assert {"controls", "lesion", "compare"} <= names


def test_controls(ask, workbench, request_):
    sent = json.loads(json.dumps(ask.controls(**ARGUMENTS), allow_nan=False))
    found = list(controls.controls(workbench, request_))
    assert [one["name"] for one in sent["controls"]] == list(controls.CONTROLS)
    for one, own in zip(sent["controls"], found, strict=True):
        assert one["sentence"] == own.sentence
        if own.reason:
            assert one["reason"] == own.reason and "image" not in one
            continue
        np.testing.assert_array_equal(pixels(one["image"]), own.image)
        assert one["scores"] == pytest.approx(dict(own.scores))
        assert one["drawn"]["identification"] == own.drawn.identification
        assert one["drawn"]["margin"] is None
    two = ask.controls(**ARGUMENTS, names="no brain; true embedding")["controls"]
    assert [one["name"] for one in two] == ["no brain", "true embedding"]
    assert "panel=controls" in sent["link"] and "scales=4" in sent["link"]


def test_lesion(ask, workbench, request_):
    parcels = ("fusiform L", "fusiform R")
    sent = ask.lesion(**ARGUMENTS, parcels="fusiform L; fusiform R", gain=0.5)
    sent = json.loads(json.dumps(sent, allow_nan=False))
    how = lesions.Lesion(parcels, 0.5)
    found = lesions.lesion(workbench, request_, how)
    assert (sent["voxels"], sent["shift"]) == (50, found.shift)
    assert sent["lesioned"]["rank"] == found.lesioned.rank
    drawn = lesions.lesion_pictures(workbench, request_, how)
    np.testing.assert_array_equal(
        pixels(sent["images"]["lesioned"]["image"]), drawn.lesioned.image
    )
    np.testing.assert_array_equal(pixels(sent["images"]["difference"]), drawn.difference)
    effects = lesions.lesion_effects(workbench, request_).table
    assert [row["parcel"] for row in sent["effects"]] == list(effects["parcel"])
    known = [row["effect"] for row in sent["effects"] if row["effect"] is not None]
    assert known == list(effects["effect"].dropna())
    assert "gain=0.5" in sent["link"]
    for wrong, told in {
        "moon": "no parcel 'moon'",
        "": "at least one parcel",
        "insula L": "has no voxels",
    }.items():
        with pytest.raises(gr.Error, match=told):
            ask.lesion(**ARGUMENTS, parcels=wrong)


def test_compare(ask, workbench, request_):
    sent = ask.compare(**ARGUMENTS, other_generator="unguided", metric="similarity")
    sent = json.loads(json.dumps(sent, allow_nan=False))
    b = replace(request_, generator="unguided")
    pair = comparison.compare(workbench, request_, b)
    for side, own in ((sent["a"], pair.a), (sent["b"], pair.b)):
        np.testing.assert_array_equal(pixels(side["image"]), own.frame.image)
        assert side["decoded"]["rank"] == own.decoded.rank
    np.testing.assert_array_equal(pixels(sent["difference"]), pair.difference)
    assert sent["paired"]["difference"] == 0 and sent["paired"]["chance"] is None
    shown = comparison.compare_maps(workbench, request_, b, View()).table
    assert [row["parcel"] for row in sent["parcels"]] == list(shown["parcel"])
    other = workbench.catalogue.mapper_names("fake", "sub-02")[0]
    sent = ask.compare(**ARGUMENTS, other_subject="sub-02", other_mapper=other)
    assert "subject=sub-02" in sent["b"]["link"] and sent["paired"]["n"] == 10
    with pytest.raises(gr.Error, match="no mapper 'linear' for fake/sub-02"):
        ask.compare(**ARGUMENTS, other_subject="sub-02")
