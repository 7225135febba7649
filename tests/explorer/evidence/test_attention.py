"""The attention map: planted regions, algebra of the windows, and its way to page and files."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest
from PIL import Image

from explorer.decoding import decode, similarities
from explorer.evidence.attention import attention_of, occlusion
from explorer.figures import heat_overlay
from explorer.page import export, links
from explorer.page.api_maps import Maps
from explorer.page.choices import settle
from explorer.page.handlers import Handlers
from explorer.page.session import Session
from explorer.records import make_record
from explorer.request import Request, View
from explorer.types import UserError

REQUEST = Request("fake", "sub-01", "test-04", "linear", "painter", (1.0,), steps=2)


class Names:
    """Components that are their own names."""

    def __getattr__(self, name: str) -> str:
        return name


def brightness_of(rows: slice, columns: slice) -> Any:
    """Return a similarity that one region alone decides."""
    return lambda images: np.array([image[rows, columns].mean() for image in images])


def test_a_planted_region_stands_out_and_the_rest_is_zero() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[24:32, 40:48] = 255  # cell (3, 5)
    found = occlusion(image, brightness_of(slice(24, 32), slice(40, 48)))
    assert found.cells.shape == (8, 8) and found.similarity == 255
    fall = 255 - np.round(image.mean())
    expected = np.zeros((8, 8))
    for i in range(2, 5):  # of the windows that hold a cell, how many hide the planted one
        for j in range(4, 7):
            hide = [(a, b) for a in (i - 1, i) for b in (j - 1, j)]
            expected[i, j] = fall * np.mean([a in (2, 3) and b in (4, 5) for a, b in hide])
    np.testing.assert_allclose(found.cells, expected)
    assert np.unravel_index(found.cells.argmax(), (8, 8)) == (3, 5)
    assert found.limit == fall


def test_what_hinders_is_negative_and_what_does_not_matter_is_flat() -> None:
    image = np.full((20, 30, 3), 100, np.uint8)
    image[:, :15] = 200
    found = occlusion(image, brightness_of(slice(None), slice(15, None)), grid=4, window=1)
    np.testing.assert_allclose(found.cells[:, :2], 0)
    assert (found.cells[:, 2:] < 0).all()  # the mean colour is brighter than that half
    flat = occlusion(image, lambda images: np.ones(len(images)))
    assert flat.limit == 0 and not heat_overlay(flat.cells, 20, 30)[..., 3].any()


def test_windows_that_do_not_fit_are_refused() -> None:
    image = np.zeros((6, 9, 3), np.uint8)
    with pytest.raises(UserError, match="9 x 6 pixels has at most 6 cells a side .* found 8 cel"):
        occlusion(image, lambda images: np.zeros(len(images)))


def test_an_overlay_is_red_where_positive_blue_where_negative_and_clear_at_zero() -> None:
    cells = np.zeros((4, 4))
    cells[0, 0], cells[3, 3] = 1.0, -0.25
    heat = heat_overlay(cells, 40, 40)
    assert heat.dtype == np.uint8 and heat.shape == (40, 40, 4)
    red, blue, clear = heat[2, 2], heat[37, 37], heat[2, 37]
    assert red[0] > red[2] and blue[2] > blue[0] and clear[3] == 0
    assert red[3] > blue[3] > 0


def test_it_is_the_fall_of_the_similarity_that_the_rank_is_made_of(
    workbench: Any, fakes: SimpleNamespace
) -> None:
    found = attention_of(workbench, REQUEST)
    decoding = decode(workbench, REQUEST)
    assert found.similarity == pytest.approx(decoding.similarity, abs=1e-6)
    image = fakes.picture("test-04")
    image[:8, :8] = image.reshape(-1, 3).mean(axis=0).round()  # the corner's only window
    without = similarities(decoding.embedding[None], fakes.Embedder().embed([image]), fakes.space)[
        0, 0
    ]
    assert found.cells[0, 0] == pytest.approx(found.similarity - without, abs=1e-6)
    assert attention_of(workbench, replace(REQUEST, scales=(3.0,), seed=5)) is found  # kept
    other = attention_of(workbench, replace(REQUEST, repeats=(1,)))
    assert not np.allclose(other.cells, found.cells)


def test_where_no_embedder_sees_images_it_says_so_once(make_workbench: Any) -> None:
    blind = make_workbench(embedders={})
    with pytest.raises(UserError, match="No embedder here puts images into fake-clip/image"):
        attention_of(blind, REQUEST)
    handlers, session = opened(blind)
    shown = [sent["trial"] for sent in handlers.work(session) if "trial" in sent]
    assert shown[-1]["attention"]["state"] == "none"
    assert shown[-1]["attention"]["sentence"].startswith("No embedder here")
    assert make_record(blind, REQUEST, View(attention="occlusion"))["attention"] is None


def opened(workbench: Any, **query: str) -> tuple[Any, Session]:
    handlers = Handlers(workbench, Names(), "plotly.js")
    session = Session()
    wanted = {"trial": "test-04", "attention": "occlusion", "scales": "1"} | query
    handlers.open_link(session, SimpleNamespace(query_params=wanted))
    return handlers, session


def test_the_page_lays_it_over_the_truth_and_takes_it_off(workbench: Any) -> None:
    handlers, session = opened(workbench)
    assert session.shown["attention"]["state"] == "waiting"
    sent = [part["trial"]["attention"] for part in handlers.work(session) if "trial" in part]
    assert sent[0]["state"] == "waiting" and sent[-1]["state"] == "done"
    with Image.open(io.BytesIO(base64.b64decode(sent[-1]["src"].partition(",")[2]))) as overlay:
        assert overlay.mode == "RGBA" and overlay.size == (32, 32)
    assert "For this decoder and trial" in sent[-1]["sentence"]
    off = handlers.look(session, SimpleNamespace(_data={"attention": "off"}))
    assert off["trial"]["attention"]["state"] == "off"
    assert "attention" not in off["masthead"]["link"]
    assert list(handlers.work(session)) == []  # nothing to compute
    handlers.look(session, SimpleNamespace(_data={"attention": "occlusion"}))
    (again,) = handlers.work(session)  # no map, no sweep
    assert again["trial"]["attention"]["src"] == sent[-1]["src"]
    assert again["trial"]["progress"]["state"] == "done"


def test_it_is_in_link_figure_record_and_api(workbench: Any) -> None:
    view = View(attention="occlusion")
    query = links.query(REQUEST, view)
    assert query.endswith("attention=occlusion")
    assert settle(dict(parse_qsl(query)), workbench).view == view
    told = settle({"trial": "test-04", "attention": "gaze"}, workbench).notices
    assert told == ("There is no attention “gaze”; using off.",)
    record = json.loads(export.make(workbench, REQUEST, view, "json").content)
    found = attention_of(workbench, REQUEST)
    np.testing.assert_allclose(record["attention"]["cells"], found.cells, rtol=1e-3, atol=1e-9)
    assert make_record(workbench, REQUEST, View())["attention"] is None
    figure = export.make(workbench, REQUEST, view, "svg").content.decode()
    assert "what the decoding rests on" in figure
    assert "rests on" not in export.make(workbench, REQUEST, View(), "svg").content.decode()
    answer = Maps(workbench).attention("test-04")
    np.testing.assert_array_equal(answer["cells"], found.cells)
    assert answer["overlay"].startswith("data:image/png;base64,")
    assert answer["similarity"] == found.similarity and answer["space"] == "fake-clip/image"
