"""The view of all trials without a browser: what is sent, drawn on request, and asked for."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from explorer.drawing import reconstruct
from explorer.page.api_sheet import Sheets
from explorer.page.lab import Lab, decided_by
from explorer.page.session import Session
from explorer.page.sheet import Drawing, sheet_server, sheet_view
from explorer.page.turns import Budget, Turns
from explorer.request import Request, View
from explorer.types import UserError
from tests.explorer.page.visits import click

REQUEST = Request("fake", "sub-01", "test-04", "linear", "painter", (0.0, 2.0), steps=4)
PARTS = SimpleNamespace(lab="lab", masthead="masthead", notices="notices")


def opened(lab: Lab) -> Session:
    session = Session()
    session.request, session.view = REQUEST, View(panel="sheet")
    lab.renew(session)
    return session


def work(lab: Lab, session: Session) -> list[dict[str, Any]]:
    return [part["lab"] for part in lab.work(session)]


def test_opening_draws_nothing_and_the_button_draws_the_rest_of_its_scale(
    workbench: Any, fakes: SimpleNamespace
) -> None:
    list(reconstruct(workbench, replace(REQUEST, scales=(2.0,))))
    lab = Lab(workbench, PARTS, Turns())
    session, painted = opened(lab), fakes.Generator.painted
    content = work(lab, session)[-1]["content"]
    timed = fakes.Generator.painted  # of a step, to tell how long the rest takes
    assert timed - painted <= 3 and content["lacking"] == {"0": 10, "2": 9}
    assert content["offers"]["2"].startswith("Draw the remaining 9")
    lab.draw(session, click(scale="2"))
    parts = work(lab, session)
    assert [part["content"]["lacking"]["2"] for part in parts if part["content"]][-1] == 0
    told = [part["progress"]["text"] for part in parts]
    assert any(text.startswith("At scale 2: 4 of 9") for text in told)
    assert fakes.Generator.painted == timed + 9
    assert parts[-1]["state"] == "done" and set(parts[-1]["content"]["offers"]) == {"0"}
    assert session.sheet is None  # reopened, it draws nothing that was not asked for
    assert "trials" not in lab.told(session)  # a record holds one trial


def test_another_trial_changes_nothing_and_another_seed_forgets_the_wish(workbench: Any) -> None:
    lab = Lab(workbench, PARTS, Turns())
    session = opened(lab)
    work(lab, session)
    session.request = replace(REQUEST, stimulus="test-07")
    assert lab.renew(session) == {}
    session.sheet = Drawing(decided_by(session.request, session.view), 2.0)
    session.request = replace(REQUEST, seed=9)
    lab.renew(session)
    assert work(lab, session)[-1]["content"]["lacking"]["2"] == 10


def test_stop_keeps_what_is_drawn_and_gives_the_turn_back(workbench: Any) -> None:
    lab = Lab(workbench, PARTS, Turns())
    session = opened(lab)
    work(lab, session)
    lab.draw(session, click(scale="2"))
    for sent in lab.work(session):
        if "3 of 10" in sent["lab"]["progress"]["text"]:
            lab.stop(session)
    assert session.lab.shown["state"] == "stopped"
    assert session.lab.shown["content"]["lacking"]["2"] == 7
    assert lab.turns._holder is None


def test_the_budget_of_a_server_is_held(workbench: Any, fakes: SimpleNamespace) -> None:
    bench, view = workbench, View(panel="sheet")
    bench.caches.paces["painter", ()] = 1.0  # seconds a step, so 4 a picture
    *_, (content, _, _) = sheet_view(bench, REQUEST, view, Budget(13.0))
    assert content["offers"]["2"] == "Draw 3 of the remaining 10: about 10 s"
    wish = Drawing((), 2.0)
    drawn = [c["lacking"]["2"] for c, _, _ in sheet_view(bench, REQUEST, view, Budget(13.0), wish)]
    assert drawn[-1] == 7
    bench.caches.paces["painter", ()] = 10.0
    with pytest.raises(UserError, match="more than the 13 s .* choose another generator or fewer"):
        list(sheet_view(bench, REQUEST, view, Budget(13.0), wish))


def test_the_browser_gets_thumbnails_and_whole_pictures_and_no_others(
    workbench: Any, fakes: SimpleNamespace
) -> None:
    list(reconstruct(workbench, replace(REQUEST, scales=(2.0,))))
    painted, asked = fakes.Generator.painted, sheet_server(workbench)
    *_, (content, _, _) = sheet_view(workbench, REQUEST, View(panel="sheet"))
    wanted = {"link": content["link"], "scale": "2"}
    found = asked({**wanted, "ids": ["test-04", "test-05", "train-01", "../x"]})
    assert set(found) == {"test-04", "test-05"}  # those of the training are not among the trials
    assert found["test-04"]["drawn"].startswith("data:image/webp;base64,")
    assert set(found["test-05"]) == {"truth"}
    whole = asked({**wanted, "ids": ["test-04", "test-05"], "full": True})
    assert set(whole) == {"test-04"} and set(whole["test-04"]["drawn"]) == {"2"}
    assert "asked for with link" in asked({"ids": "test-04"})["problem"]
    assert "are numbers" in asked({**wanted, "ids": ["test-04"], "scale": "x"})["problem"]
    assert fakes.Generator.painted - painted <= 3  # of a timed step


def test_the_endpoint_gives_the_same_rows_sorted_and_filtered(workbench: Any) -> None:
    endpoints = Sheets(workbench)
    found = endpoints.sheet(scale=2.0, steps=4)
    ranks = [row["scores"]["rank"] for row in found["rows"]]
    assert found["sort"] == "rank" and ranks == sorted(ranks) and found["lacking"] == 10
    assert found["rows"][0]["scores"]["PixCorr"] is None and "panel=sheet" in found["link"]
    worst = endpoints.sheet(sort="similarity", worst_first=1)["rows"]
    values = [row["scores"]["similarity"] for row in worst]
    assert values == sorted(values) and (worst[0]["end"], worst[-1]["end"]) == ("worst", "best")
    cold = endpoints.sheet(category="cold", text="PATCHES test")["rows"]
    assert {row["category"] for row in cold} == {"cold"} and len(cold) == 5
    for arguments, sentence in (
        ({"category": "hot"}, "The categories are cold, warm; found “hot”"),
        ({"sort": "speed"}, "can be sorted by PixCorr"),
    ):
        with pytest.raises(Exception, match=sentence):
            endpoints.sheet(**arguments)
