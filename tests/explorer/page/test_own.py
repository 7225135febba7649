"""A picture of one's own: what is taken, how long it stays, and what is predicted for it."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from explorer.brain.maps import shown_map
from explorer.decoding import decode_betas
from explorer.drawing import condition_of
from explorer.evidence import own as evidence
from explorer.page import keeping, own
from explorer.page.edge import MOST_BODY
from explorer.page.lab import Lab
from explorer.page.session import Session
from explorer.page.turns import Turns
from explorer.request import Request, View
from explorer.types import UserError
from tests.explorer.page.visits import click

REQUEST = Request("fake", "sub-01", "test-04", "linear", "painter", (1.0, 2.0), steps=2, seed=3)


def sent(picture: np.ndarray, form: str = "png") -> str:
    """Return a picture as a browser sends it."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, form)
    return f"data:image/{form};base64,{base64.b64encode(file.getvalue()).decode()}"


def as_png(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def header(width: int, height: int) -> bytes:
    """Return a PNG that declares a size, and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9))


@pytest.fixture
def lab(predicting: Any) -> Lab:
    names = SimpleNamespace(lab="lab", masthead="masthead", notices="notices")
    return Lab(predicting, names, Turns())


def visit(lab: Lab, text: str) -> tuple[Session, dict[str, Any]]:
    session = Session()
    session.request = REQUEST
    return session, lab.choose(session, click(panel="own", picture=text))


def work(lab: Lab, session: Session) -> dict[str, Any]:
    return [part["lab"] for part in lab.work(session)][-1]


# ---------------------------------------------------------------------------------- what is taken


def test_a_picture_arrives_as_it_was(fakes: Any) -> None:
    picture = fakes.picture("test-04")
    np.testing.assert_array_equal(own.picture(own.read_own(sent(picture))), picture)
    assert own.read_own(sent(picture, "jpeg")).startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hello", "was not sent as PNG or JPEG"),
        (None, "was not sent as PNG or JPEG"),
        ({"a": 1}, "was not sent as PNG or JPEG"),
        ("data:image/svg+xml;base64,PHN2Zy8+", "was not sent as PNG or JPEG"),
        ("data:image/gif;base64,R0lGODdh", "was not sent as PNG or JPEG"),
        ("data:image/png;base64,%%%", "arrived damaged; choose it again"),
        (as_png(b"\xff\xd8\xff\xe0 something"), "is not the PNG or JPEG that it is said to be"),
        (as_png(header(1025, 1024)), "it declares 1,025 x 1,024 pixels, of which at most 1,048,"),
        (as_png(header(9000, 9000)), "it declares 9,000 x 9,000 pixels, of which at most 1,048,"),
        (as_png(header(60_000, 60_000)), "Your picture cannot be read"),  # PIL's own bound
        (as_png(header(64, 64)), "Your picture cannot be read .*truncated"),
        ("data:image/png;base64," + "A" * own.MOST_TEXT, "characters as it was sent, of at most"),
    ],
)
def test_what_is_no_bounded_picture_is_refused(text: Any, why: str) -> None:
    with pytest.raises(UserError, match=why) as told:
        own.read_own(text)
    assert len(str(told.value)) < 300


def test_the_largest_picture_fits_in_a_question() -> None:
    assert own.MOST_TEXT + 100_000 < MOST_BODY


def test_a_session_has_one_picture_for_an_hour(fakes: Any, monkeypatch: Any) -> None:
    session, first, second = Session(), *(sent(fakes.picture(s)) for s in ("test-01", "test-02"))
    own.receive(session, first)
    before = keeping.weight(session)
    own.receive(session, second)
    assert own.kept(session) == own.read_own(second)
    assert abs(keeping.weight(session) - before) < 4096  # in the place of the first
    assert keeping.weight(session) - keeping.weight(Session()) >= len(session.own)
    with pytest.raises(UserError):
        own.receive(session, "nonsense")
    assert own.kept(session) == own.read_own(second)  # what was kept stays
    now = own.time.monotonic()
    monkeypatch.setattr(own.time, "monotonic", lambda: now + own.SECONDS + 1)
    assert own.kept(session) == b"" == session.own
    own.receive(session, first)
    own.receive(session, "")
    assert session.own == b""


# ---------------------------------------------------------------------------- what is made of it


def test_the_prediction_for_a_shown_picture_is_that_of_its_map(
    predicting: Any, fakes: Any
) -> None:
    brain = evidence.predicted_brain(predicting, REQUEST, fakes.picture("test-04"))
    shown = shown_map(predicting, REQUEST, View(shows="predicted betas"))
    np.testing.assert_allclose(brain.shown.values, shown.values, atol=1e-4)
    assert brain.shown.limits == shown.limits and brain.betas.dtype == np.float32
    assert brain.sentence.startswith("Predicted, never measured: nobody looked at this picture.")


def test_mappers_decode_the_prediction_and_draw_it(predicting: Any, fakes: Any) -> None:
    picture = fakes.picture("test-04")
    betas = evidence.predicted_brain(predicting, REQUEST, picture).betas
    (found,) = evidence.own_decodings(predicting, REQUEST, picture, betas)
    one = replace(REQUEST, scales=(2.0,))
    z = decode_betas(predicting, one, betas[None])[fakes.space][0]
    true = fakes.Embedder().embed([picture])[0]
    assert found.similarity == pytest.approx(z @ true / np.linalg.norm(z), abs=1e-5)
    assert (found.rank, found.n, found.scale) == (1.5, 11, 2.0)  # it is a test image: a tie
    image = fakes.Generator().generate([condition_of(predicting, one, betas)], 2.0, [3], 2)[0]
    np.testing.assert_array_equal(found.image, image)
    assert set(found.scores) == {"PixCorr", "SSIM", "pocket-clip"}
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    betas = evidence.predicted_brain(predicting, REQUEST, noise).betas
    (other,) = evidence.own_decodings(predicting, REQUEST, noise, betas)
    assert other.rank <= 2 and not np.array_equal(other.image, image)


def test_the_panel_names_everything_predicted_and_keeps_nothing(
    lab: Lab, fakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    write = Path.write_bytes
    monkeypatch.setattr(
        Path, "write_bytes", lambda path, data: (opened.append(str(path)), write(path, data))[1]
    )
    session, updates = visit(lab, sent(fakes.picture("test-07")))
    assert updates["lab"]["state"] == "waiting" and "notices" not in updates
    assert "picture" not in updates["masthead"]["link"] and "base64" not in str(
        updates["masthead"]
    )
    kept = len(lab.workbench.caches.pictures), len(lab.workbench.caches.answers)
    shown = work(lab, session)
    assert shown["state"] == "done"
    content = shown["content"]
    assert "never measured" in content["sentence"]
    assert content["brain"]["title"].startswith("predicted betas") and content["brain"]["vertices"]
    (card,) = content["cards"]
    assert card["src"].startswith("data:image/") and card["made"] == "generated"
    assert (card["generator"], card["scale"]) == ("painter", "2")
    assert {row["parcel"] for row in content["rows"]} >= {"fusiform L"}
    assert (len(lab.workbench.caches.pictures), len(lab.workbench.caches.answers)) == kept
    assert opened == []
    assert "base64" not in str(lab.told(session))  # a record does not hold the picture


def test_another_picture_is_another_view_and_a_bad_one_changes_nothing(
    lab: Lab, fakes: Any
) -> None:
    session, _ = visit(lab, sent(fakes.picture("test-07")))
    first = work(lab, session)["content"]
    updates = lab.choose(session, click(panel="own", picture=sent(fakes.picture("test-02"))))
    assert updates["lab"]["state"] == "waiting"
    assert work(lab, session)["content"]["src"] != first["src"]
    told = lab.choose(session, click(panel="own", picture="data:image/png;base64,AAAA"))
    assert told["notices"]["notices"] == [
        "Your picture is not the PNG or JPEG that it is said to be; choose another file."
    ]
    lab.choose(session, click(panel="own", picture=""))
    assert work(lab, session)["content"] == {"src": ""}


def test_without_an_encoding_model_one_sentence_says_why(workbench: Any, fakes: Any) -> None:
    names = SimpleNamespace(lab="lab", masthead="masthead", notices="notices")
    lab = Lab(workbench, names, Turns())
    session, _ = visit(lab, sent(fakes.picture("test-07")))
    shown = work(lab, session)
    assert (shown["state"], shown["content"]) == ("none", None)
    assert shown["sentence"].startswith("There is no encoding model for fake/sub-01; train one")


def test_a_mapper_whose_generator_fails_says_so_and_the_view_goes_on(
    predicting: Any, fakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise UserError("painter ran out of memory; give fewer.")

    monkeypatch.setattr(fakes.Generator, "generate", fail)
    picture = fakes.picture("test-04")
    betas = evidence.predicted_brain(predicting, REQUEST, picture).betas
    (found,) = evidence.own_decodings(predicting, REQUEST, picture, betas)
    assert found.image is None and found.reason.startswith("painter ran out of memory")
