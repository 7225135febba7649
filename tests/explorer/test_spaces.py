"""A mapper with several targets: which one is decoded, drawn from and compared."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from explorer.brain.maps import parcel_importance
from explorer.choosing import check_request, space_names
from explorer.decoding import decode, undecoded
from explorer.drawing import condition_of, reconstruct
from explorer.evidence.attention import attention_of
from explorer.page import links, pickers
from explorer.page.api import Endpoints
from explorer.page.choices import settle
from explorer.request import Request, View
from explorer.types import EmbeddingSpace, UserError

WORDS = EmbeddingSpace("pocket-clip", "words", (8,))
UNSEEN = EmbeddingSpace("elsewhere", "image", (8,))
REQUEST = Request(
    "fake", "sub-01", "test-04", "linear", "painter", (0.0, 1.5), steps=2, space=WORDS.name
)


@pytest.fixture
def several(
    make_workbench: Callable, fakes: SimpleNamespace, fake_checkpoints: Path, tmp_path: Path
) -> Any:
    """Return a workbench whose mapper gives a picture's embedding, its words', and one unknown."""
    from explorer.mapper import read_card, write_card

    class Both(fakes.Linear):
        def forward(self, betas, subject):  # noqa: ANN001, ANN202
            (z,) = super().forward(betas, subject).values()
            return {fakes.space: z, WORDS: -z, UNSEEN: z}

    class Reader(fakes.Embedder):
        text_spaces = (WORDS,)

        def embed_text(self, captions, space):  # noqa: ANN001, ANN202
            numbers = [np.random.default_rng(len(c) + sum(map(ord, c))) for c in captions]
            return np.stack([n.standard_normal(8).astype(np.float32) for n in numbers])

    class Painter(fakes.Generator):
        accepts = (fakes.space, WORDS)

        def _paint(self, condition, *how):  # noqa: ANN001, ANN002, ANN202
            z = next(condition.embeddings[s] for s in self.accepts if s in condition.embeddings)
            return super()._paint(SimpleNamespace(embeddings={fakes.space: z}), *how)

    shutil.copytree(fake_checkpoints, tmp_path / "checkpoints")
    folder = tmp_path / "checkpoints" / "mappers" / "fake" / "linear-sub-01"
    card = dataclasses.replace(read_card(folder), targets=(fakes.space, WORDS, UNSEEN))
    write_card(folder, card)
    return make_workbench(
        mappers={"linear": Both, "ridge": fakes.Linear},
        embedders={"pocket-clip": Reader},
        generators={"painter": Painter},
        checkpoints=tmp_path / "checkpoints",
    )


def pictures(bench: Any, request: Request) -> list[np.ndarray]:
    return [frame.image for frame in reconstruct(bench, request) if frame.done]


def test_the_generator_decides_what_is_on_offer(several: Any, fakes: SimpleNamespace) -> None:
    place = "fake", "sub-01", "linear"
    assert space_names(several.catalogue, *place, "painter") == [fakes.space.name, WORDS.name]
    assert space_names(several.catalogue, *place, "") == [
        fakes.space.name,
        WORDS.name,
        UNSEEN.name,
    ]
    assert decode(several, dataclasses.replace(REQUEST, space="")).space == fakes.space
    assert decode(several, REQUEST).space == WORDS


def test_pictures_are_drawn_from_the_chosen_target(several: Any) -> None:
    first, words = dataclasses.replace(REQUEST, space=""), REQUEST
    at_zero, drawn = pictures(several, first)
    words_at_zero, other = pictures(several, words)
    np.testing.assert_array_equal(at_zero, words_at_zero)  # without the brain all is one
    condition = condition_of(several, words)
    assert list(condition.embeddings) == [WORDS, UNSEEN]
    assert not np.array_equal(drawn, other)
    np.testing.assert_array_equal(pictures(several, first)[1], drawn)  # each is kept for itself


def test_captions_are_compared_with_captions(several: Any) -> None:
    decoding = decode(several, REQUEST)
    stimuli = list(several.catalogue.gallery("fake", "sub-01").index)
    captions = several.catalogue.dataset("fake").stimuli.loc[stimuli, "caption"]
    gallery = several.models.embedder("pocket-clip").embed_text(list(captions), WORDS)
    r = [np.corrcoef(decoding.embedding, row)[0, 1] for row in gallery]
    assert decoding.similarity == pytest.approx(r[stimuli.index("test-04")], abs=1e-6)
    assert parcel_importance(several, REQUEST, View()).table["share"].sum() == pytest.approx(1)
    with pytest.raises(UserError, match="Attention hides parts of the image, and pocket-clip/wor"):
        attention_of(several, REQUEST)


def test_missing_captions_are_said(several: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = several.catalogue.gallery
    monkeypatch.setattr(
        several.catalogue, "gallery", lambda *place: whole(*place).assign(caption=["", *["x"] * 9])
    )
    assert "not all test images of fake have one" in undecoded(several, REQUEST)
    with pytest.raises(UserError, match="pocket-clip/words is made of captions, and not all"):
        decode(several, REQUEST)


def test_a_target_that_is_not_on_offer_is_refused(several: Any) -> None:
    with pytest.raises(UserError, match="decodes no elsewhere/image that is drawn from here; cho"):
        check_request(several.catalogue, dataclasses.replace(REQUEST, space=UNSEEN.name))
    with pytest.raises(UserError, match="The mapper linear decodes no nothing/here"):
        check_request(
            Endpoints(several).workbench.catalogue,
            dataclasses.replace(REQUEST, space="nothing/here"),
        )


def test_a_link_keeps_the_target_and_forgets_one_that_is_not_there(several: Any) -> None:
    query = links.query(REQUEST, View())
    assert "space=pocket-clip" in query
    choices = settle(
        dict(part.split("=") for part in query.replace("%2F", "/").split("&")), several
    )
    assert choices.request.space == WORDS.name and not choices.notices
    again = settle({"trial": "test-05"}, several, choices)
    assert again.request.space == WORDS.name
    first = settle({"space": "pocket-clip/image"}, several, choices)
    assert first.notices or first.request.space == ""
    odd = settle({"space": "elsewhere/image"}, several)
    assert odd.request.space == ""
    assert "to draw from, found “elsewhere/image”" in odd.notices[0]


def test_the_picker_shows_where_there_is_a_choice(
    several: Any, workbench: Any, fakes: SimpleNamespace
) -> None:
    shown = pickers.spaces(several, dataclasses.replace(REQUEST, space=""))
    assert shown["visible"] and shown["value"] == fakes.space.name
    plain = Request("fake", "sub-01", "test-04", "linear", "painter")
    assert not pickers.spaces(workbench, plain)["visible"]
