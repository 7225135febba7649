"""Choosing: by number, category, option, row; what is refused, and that each click counts."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import pytest

from explorer.page import trial
from explorer.protocols import Option
from tests.explorer.page.visits import PARTS, click, visit, work


def test_twenty_clicks_at_once_move_twenty_trials(handlers: Any, monkeypatch: Any) -> None:
    """Threads that read the trial before another has written it would move fewer."""
    from explorer.page import handlers as handlers_module

    session, _ = visit(handlers, trial="test-01")
    settled = handlers_module.settle

    def slowly(*args: Any) -> Any:
        found = settled(*args)
        time.sleep(0.005)  # long enough for every other thread to read
        return found

    monkeypatch.setattr(handlers_module, "settle", slowly)
    clicks = [threading.Thread(target=handlers.go_on, args=(session,)) for _ in range(20)]
    for click_ in clicks:
        click_.start()
    for click_ in clicks:
        click_.join()
    assert session.request.stimulus == "test-01"  # twice round the ten
    assert session.ticket == 21


def test_quick_clicks_leave_one_sweep(handlers: Any, fakes: SimpleNamespace) -> None:
    session, _ = visit(handlers, trial="test-01", seed="13")
    for _ in range(5):
        handlers.go_on(session)
    before = fakes.Generator.painted
    sent = [work(handlers, session) for _ in range(6)]  # each click asked for work
    assert [bool(parts) for parts in sent] == [True, False, False, False, False, False]
    assert fakes.Generator.painted == before + 3 + 5  # three short sweeps are timed first
    assert sent[0][-1]["trial"]["trial"]["stimulus"] == "test-06"


@pytest.mark.parametrize(
    ("handler", "value", "sentence"),
    [
        ("take_number", 11, "have the numbers 1 to 10, found 11."),
        ("take_number", None, "The number of a trial is a whole number, found “None”."),
        ("take_scales", "abc", "found “abc”."),
        ("take_scales", "40", "A guidance scale lies between 0 and 30, found 40."),
        ("take_steps", 0, "The number of steps lies between 1 and 100, found 0."),
        ("take_seed", -1, "The seed lies between 0 and 2147483647, found -1."),
        ("take_seed", 0.5, "The seed is a whole number, found “0.5”."),
        ("subject", "sub-09", "fake has no subject “sub-09”; showing sub-01."),
    ],
)
def test_bad_input_is_told_and_changes_nothing(
    handlers: Any, handler: str, value: object, sentence: str
) -> None:
    session, _ = visit(handlers, trial="test-02")
    before = session.request
    take = getattr(handlers, handler, lambda *of: handlers.take(*of, handler))
    sent = take(session, value)
    told = sent["notices"]["notices"]
    assert len(told) == 1
    assert told[0].endswith(sentence)
    assert session.request == before


def test_a_refused_field_shows_what_is_in_force(handlers: Any) -> None:
    session, _ = visit(handlers, trial="test-02", scales="1,4", seed="5")
    sent = handlers.take_scales(session, "")
    assert "the field is empty" in sent["notices"]["notices"][0]
    assert sent["scales"]["value"] == "1, 4"
    sent = handlers.take_number(session, 99)
    assert (sent["number"]["value"], sent["seed"]["value"]) == (2, 5)


def test_a_field_left_as_it_was_asks_for_no_work(handlers: Any) -> None:
    session, _ = visit(handlers, trial="test-02")
    work(handlers, session)
    handlers.take_scales(session, "0, 1, 2, 4, 8")
    handlers.take_number(session, 2)
    handlers.take_seed(session, 0.0)
    assert not session.wanted


def test_the_gallery_follows_category_page_and_trial(
    handlers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "GALLERY_PAGE", 4)
    session, sent = visit(handlers, trial="test-06")
    shown = sent["gallery"]
    assert [item["number"] for item in shown["items"]] == [5, 6, 7, 8]
    assert (shown["page"], shown["pages"], shown["total"]) == (1, 3, 10)
    assert (shown["first"], shown["last"], shown["chosen"]) == (5, 8, "test-06")
    turned = handlers.turn_page(session, click(page=2))["gallery"]
    assert [item["number"] for item in turned["items"]] == [9, 10]
    assert handlers.turn_page(session, click(page=99))["gallery"]["page"] == 2
    cold = handlers.take_category(session, "cold")["gallery"]
    assert [item["number"] for item in cold["items"]] == [2, 4, 6, 8]
    assert handlers.go_on(session)["number"] == 8
    assert handlers.go_back(session)["number"] == 6


def test_random_is_another_trial(handlers: Any) -> None:
    session, _ = visit(handlers, trial="test-06")
    seen = set()
    for _ in range(12):
        before = session.request.stimulus
        handlers.go_anywhere(session)
        assert session.request.stimulus != before
        seen.add(session.request.stimulus)
    assert len(seen) > 3


def test_options_are_shown_with_their_sentence_and_set(handlers: Any) -> None:
    session, sent = visit(handlers, trial="test-05")
    (option,) = sent["options"]["options"]
    assert option["sentence"] == "How far colours lie from grey."
    assert (option["label"], option["value"], option["range"]) == ("contrast", "1", "0 to 2")
    sent = handlers.take_option(session, click(name="contrast", value="0.5"))
    assert session.request.options == (("contrast", 0.5),)
    assert "option.contrast=0.5" in sent["masthead"]["link"]
    assert sent["options"]["options"][0]["changed"]
    for wrong, sentence in (
        ("3", "contrast lies between 0 and 2, found 3; using 0.5."),
        ("much", "contrast is a number, found “much”; using 0.5."),
        ("", "contrast is a number, found “”; using 0.5."),
    ):
        sent = handlers.take_option(session, click(name="contrast", value=wrong))
        assert sent["notices"]["notices"] == [sentence]
        assert sent["options"]["options"][0]["value"] == "0.5"
    handlers.take_option(session, click(name="contrast", value="1"))
    assert session.request.options == ()


def test_a_second_axis_makes_rows(handlers: Any) -> None:
    session, sent = visit(handlers, trial="test-05", scales="1,4", seed="7")
    assert sent["axis"]["choices"] == [
        *(("one row", "none"), ("seed", "seed"), ("contrast", "contrast"))
    ]
    assert sent["trial"]["rows"] == [] and not sent["values"]["visible"]
    sent = handlers.take(session, "seed", "axis")
    assert sent["values"] == {**sent["values"], "value": "7, 8, 9", "visible": True}
    assert sent["trial"]["rows"] == ["seed 7", "seed 8", "seed 9"]
    assert [cell["name"] for cell in sent["trial"]["cells"]][1:3] == [
        *("scale 4, seed 7", "scale 1, seed 8")
    ]
    last = work(handlers, session)[-1]["trial"]
    assert last["progress"]["text"].startswith("6 finished in")
    pictures = [cell["src"] for cell in last["cells"]]
    assert len(set(pictures)) == 6
    sent = handlers.take(session, "8", "values")
    assert work(handlers, session)[-1]["trial"]["cells"][1]["src"] == pictures[3]
    sent = handlers.take(session, "8, 0.5", "values")
    assert sent["notices"]["notices"] == [
        "A seed is a whole number between 0 and 2147483647, found 0.5. Showing seed 8."
    ]
    sent = handlers.take(session, "contrast", "axis")
    assert session.request.values == (0, 1, 2) and sent["options"]["options"] == []
    handlers.take(session, "unguided", "generator")  # its options are its own
    assert session.request.axis == ""
    handlers.take(session, "seed", "axis")
    handlers.take(session, "painter", "generator")
    assert session.request.axis == "seed"
    handlers.take(session, "none", "axis")
    assert (session.request.axis, session.request.values) == ("", ())


def test_parcels_are_offered_where_betas_guide(
    make_workbench: Any, fakes: SimpleNamespace
) -> None:
    class Guided(fakes.Generator):
        needs = ("betas",)
        options = (Option("contrast", 0, 1, 0, "Towards the betas.", betas=True),)

    from explorer.page.handlers import Handlers

    workbench = make_workbench(generators={"painter": Guided})
    handlers = Handlers(workbench, SimpleNamespace(**{p: p for p in PARTS}), "plotly.js")
    session, sent = visit(handlers, trial="test-05")
    assert not sent["rois"]["visible"]
    sent = handlers.take_option(session, click(name="contrast", value="0.5"))
    assert sent["rois"]["visible"] and len(sent["rois"]["choices"]) == 8
    sent = handlers.take_rois(session, ["fusiform L", "fusiform R"])
    assert "rois=fusiform+L;fusiform+R" in sent["masthead"]["link"]
    again, _ = visit(handlers, **dict(parse_qsl(sent["masthead"]["link"])))
    assert again.request == session.request
    wrong, sent = visit(handlers, rois="V1;fusiform L")
    assert sent["notices"]["notices"] == [
        "There is no parcel “V1” with voxels in this atlas; left out."
    ]
    assert wrong.request.rois == ("fusiform L",)
    handlers.take_rois(session, [])
    assert session.request.rois == ()


@pytest.fixture
def long_requests(workbench: Any, monkeypatch: Any) -> Any:
    """Return handlers under a budget of a minute, for a request that would take five."""
    from explorer.page.handlers import Handlers
    from explorer.page.turns import Budget, Turns

    monkeypatch.setattr("explorer.page.working.seconds_needed", lambda bench, request: 300.0)
    ui = SimpleNamespace(**{part: part for part in PARTS})
    return lambda asks: Handlers(workbench, ui, "plotly.js", Turns(Budget(60.0, asks)))


def test_a_request_over_the_budget_is_refused_with_the_number(long_requests: Any) -> None:
    handlers = long_requests(False)
    session, _ = visit(handlers, trial="test-03", seed="77")
    work(handlers, session)
    assert session.shown["progress"] == trial.progress(
        "failed",
        "This would compute for about 5 min, more than the 60 s that one request may take here "
        "(--budget); give fewer scales, steps, rows or samples.",
    )
    handlers.go_again(session)
    work(handlers, session)
    assert session.shown["progress"]["state"] == "failed"  # nobody may say so to a server


def test_on_the_owners_machine_a_long_request_asks_first(
    long_requests: Any, fakes: SimpleNamespace
) -> None:
    handlers = long_requests(True)
    session, _ = visit(handlers, trial="test-03", seed="78")
    painted = fakes.Generator.painted
    work(handlers, session)
    assert session.shown["progress"]["text"] == "This takes about 5 min. Continue begins it."
    assert fakes.Generator.painted == painted
    handlers.go_again(session)
    work(handlers, session)
    assert session.shown["progress"]["state"] == "done"
