"""Samples of a mapper's density as pictures, and the line that says which decoder is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest

from explorer.choosing import can_sample
from explorer.decoding import decode, request_betas
from explorer.drawing import draw_samples, reconstruct
from explorer.page import export, links, pickers, trial
from explorer.page.api import Pictures
from explorer.page.choices import Choices, settle
from explorer.page.handlers import Handlers
from explorer.page.session import Session
from explorer.records import make_record
from explorer.request import Request, View
from explorer.types import UserError

REQUEST = Request(
    "fake", "sub-01", "test-04", "linear", "painter", (0.0, 1.5, 4.0), steps=2, seed=3, samples=4
)


class Names:
    """Components that are their own names."""

    def __getattr__(self, name: str) -> str:
        return name


@pytest.fixture
def sampling(make_workbench: Callable, fakes: SimpleNamespace) -> Any:
    """Return a workbench whose mapper is a Gaussian around what it decodes."""
    import torch

    class Sampler(fakes.Linear):
        def sample(self, betas, subject, n, *, seed=0, space=None):  # noqa: ANN001, ANN202
            noise = [
                torch.randn(space.shape, generator=torch.Generator().manual_seed(100 * seed + i))
                for i in range(n)
            ]
            return self(betas, subject)[space][:, None] + 0.5 * torch.stack(noise)

    return make_workbench(mappers={"linear": Sampler, "ridge": fakes.Linear})


def test_a_sample_is_painted_from_its_embedding_at_the_scale_nearest_to_two(
    sampling: Any, fakes: SimpleNamespace
) -> None:
    import torch

    frames = draw_samples(sampling, REQUEST)
    assert [(f.index, f.scale, f.done) for f in frames] == [(i, 1.5, True) for i in range(4)]
    mapper = sampling.models.mapper("fake", "sub-01", "linear")
    betas = torch.from_numpy(request_betas(sampling, REQUEST)[None])
    drawn = mapper.sample(betas, "sub-01", 4, seed=3, space=fakes.space)[0]
    for frame, z in zip(frames, drawn, strict=True):
        condition = SimpleNamespace(embeddings={fakes.space: z})
        (expected,) = fakes.Generator().generate([condition], 1.5, [3], 2)
        np.testing.assert_array_equal(frame.image, expected)
        assert set(frame.scores) == {"PixCorr", "SSIM", "pocket-clip"}
    assert len({frame.image.tobytes() for frame in frames}) == 4


def test_samples_are_kept_and_do_not_depend_on_how_many(
    sampling: Any, fakes: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes.Generator, "painted", 0)
    four = draw_samples(sampling, REQUEST)
    assert fakes.Generator.painted == 4
    eight = draw_samples(sampling, replace(REQUEST, samples=8, scales=(1.5, 9.0)))
    assert fakes.Generator.painted == 8
    for a, b in zip(four, eight, strict=False):
        np.testing.assert_array_equal(a.image, b.image)
    list(reconstruct(sampling, replace(REQUEST, samples=1)))
    done = fakes.Generator.painted
    list(reconstruct(sampling, REQUEST))  # the sweep is the same with samples and without
    assert fakes.Generator.painted == done == 11
    assert draw_samples(sampling, replace(REQUEST, samples=1)) == []
    other = draw_samples(sampling, replace(REQUEST, seed=4))
    assert not np.array_equal(other[0].image, four[0].image)


def test_they_are_on_offer_only_where_a_mapper_gives_them(
    sampling: Any, workbench: Any, make_workbench: Callable, fakes: SimpleNamespace
) -> None:
    assert can_sample(sampling.catalogue, REQUEST) and not can_sample(workbench.catalogue, REQUEST)
    with pytest.raises(UserError, match="no samples of the mapper linear for the generator paint"):
        draw_samples(workbench, REQUEST)
    for count in (0, 17):
        with pytest.raises(UserError, match=f"samples lies between 1 and 16, found {count}"):
            replace(REQUEST, samples=count)
    assert pickers.samples(sampling, REQUEST)["choices"] == [("none", "1"), ("4", "4"), ("8", "8")]
    assert pickers.samples(sampling, REQUEST)["visible"]
    assert not pickers.samples(workbench, replace(REQUEST, samples=1))["visible"]


def test_links_keep_them_and_drop_them_with_their_mapper(sampling: Any, workbench: Any) -> None:
    query = links.query(REQUEST, View())
    assert "&samples=4" in query and "samples" not in links.query(
        replace(REQUEST, samples=1), View()
    )
    assert settle(dict(parse_qsl(query)), sampling) == Choices(REQUEST, View(), ())
    told = settle(dict(parse_qsl(query)), workbench)
    assert told.request == replace(REQUEST, samples=1)
    assert told.notices == ("The mapper linear gives no samples, found 4. Showing samples 1.",)
    many = settle({"trial": "test-04", "samples": "99"}, sampling)
    assert many.notices == (
        "The number of samples lies between 1 and 16, found 99. Showing samples 1.",
    )
    before = Choices(REQUEST)
    assert settle({"trial": "test-05"}, sampling, before).request.samples == 4
    other = settle({"subject": "sub-02"}, sampling, before)  # whose ridge gives none
    assert other.request.samples == 1 and other.notices == ()


def test_the_page_shows_a_strip_after_the_sweep(sampling: Any) -> None:
    handlers, session = Handlers(sampling, Names(), "plotly.js"), Session()
    query = dict(parse_qsl(links.query(REQUEST, View())))
    sent = handlers.open_link(session, SimpleNamespace(query_params=query))
    strip = sent["trial"]["samples"]
    assert strip["heading"] == "4 samples of the decoder linear at scale 1.5"
    assert [cell["src"] for cell in strip["cells"]] == [""] * 4
    shown = [part["trial"] for part in handlers.work(session) if "trial" in part]
    assert "Drawing 4 samples" in [one["progress"]["text"] for one in shown]
    cells = shown[-1]["samples"]["cells"]
    assert len({cell["src"] for cell in cells}) == 4 and all(cell["scores"] for cell in cells)
    assert shown[-1]["progress"]["state"] == "done"
    updates = handlers.take(session, "1", "samples")
    assert updates["trial"]["samples"] is None
    assert "samples" not in updates["masthead"]["link"]


def test_figure_record_and_api_hold_them(sampling: Any) -> None:
    assert make_record(sampling, REQUEST, View())["samples"] == []  # nothing is drawn for a record
    answer = Pictures(sampling).reconstruct(
        "test-04", generator="painter", scales="0, 1.5, 4", steps=2, seed=3, samples=4
    )
    assert [one["scale"] for one in answer["samples"]] == [1.5] * 4
    assert "samples=4" in answer["link"]
    record = json.loads(export.make(sampling, REQUEST, View(), "json").content)
    assert record["request"]["samples"] == 4
    assert record["samples"] == [{"scale": 1.5, **one["scores"]} for one in answer["samples"]]
    figure = export.make(sampling, REQUEST, View(), "svg").content.decode()
    assert "sample 4, scale 1.5" in figure and "sample 5" not in figure


@pytest.mark.parametrize(
    ("tested", "sentence"),
    [
        ({}, "Decoder linear: its two-way identification has not been measured."),
        (
            {"fake-clip/image": {"two-way identification": 0.9876, "chance": 0.5, "N": 300}},
            "Decoder linear: two-way identification 98.8 % over 300 test images, chance 50 %.",
        ),
        (
            {"sub-01": {"fake-clip/image": {"two-way identification": 1, "chance": 0.5, "N": 9}}},
            "Decoder linear: two-way identification 100.0 % over 9 test images, chance 50 %.",
        ),
    ],
)
def test_the_page_says_which_decoder_is_shown_and_how_good_it_is(
    workbench: Any, tested: dict, sentence: str
) -> None:
    request, offer = (
        replace(REQUEST, samples=1),
        workbench.catalogue.offer("fake", "sub-01", "linear"),
    )
    card = replace(offer.card, metrics={"test": tested})
    object.__setattr__(offer, "card", card)
    shown = trial.decoded(decode(workbench, request), request, workbench)
    assert shown["decoder"].replace("\N{NO-BREAK SPACE}", " ") == sentence
    together = replace(card, subjects=("sub-01", "sub-02", "sub-03"))
    object.__setattr__(offer, "card", together)
    shown = trial.decoded(decode(workbench, request), request, workbench)
    assert shown["decoder"].startswith("Decoder linear (trained on 2 more subjects):")
