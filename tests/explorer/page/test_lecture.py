"""The walkthrough of a typical trial, and how to take a trial."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from explorer.decoding import decode
from explorer.evidence.badges import badges
from explorer.page.lecture import Lecture, typical
from explorer.page.session import Session
from explorer.page.turns import Turns
from explorer.request import Request, View
from tests.explorer.page.visits import click

REQUEST = Request("fake", "sub-01", "test-04", "linear", "painter", steps=4)


@pytest.fixture
def lecture(workbench: Any) -> Lecture:
    """Return the walkthrough's handlers."""
    return Lecture(workbench, SimpleNamespace(lecture="lecture", masthead="masthead"), Turns())


def test_a_lecture_with_one_test_image_has_all_steps(alone: tuple[Any, Request]) -> None:
    bench, request = alone
    lecture = Lecture(bench, SimpleNamespace(lecture="lecture", masthead="masthead"), Turns())
    session = Session()
    session.request, session.view = request, View(lecture=1)
    lecture.renew(session)
    steps = list(lecture.work(session))[-1]["lecture"]["steps"]
    assert len(steps) == 5 and "nan" not in str([step["text"] for step in steps.values()])


def test_the_lecture_is_about_the_median_trial_whatever_trial_is_shown(lecture: Lecture) -> None:
    chosen = {
        typical(lecture.workbench, replace(REQUEST, stimulus=s, repeats=r)).stimulus
        for s, r in (("test-04", ()), ("test-09", (1,)))
    }
    (stimulus,) = chosen
    similar = [
        decode(lecture.workbench, replace(REQUEST, stimulus=f"test-{i:02d}")).similarity
        for i in range(1, 11)
    ]
    own = similar[int(stimulus[-2:]) - 1]
    assert sum(value < own for value in similar) == 4  # the lower of the two in the middle of ten


def test_the_lecture_opens_at_its_step_and_comes_step_by_step(lecture: Lecture) -> None:
    session = Session()
    session.request, session.view = REQUEST, View()
    assert lecture.renew(session) == {}  # nothing to show, and nothing is computed
    sent = lecture.go(session, click(lecture=4))
    assert "lecture=4" in sent["masthead"]["link"]
    parts = [part["lecture"] for part in lecture.work(session)]
    assert [sorted(part["steps"]) for part in parts[:2]] == [["4"], ["4", "5"]]
    steps = parts[-1]["steps"]
    assert sorted(steps) == ["1", "2", "3", "4", "5"]
    assert steps["1"]["brain"]["vertices"]["left"]["shape"] == [10_242]
    assert [len(strip["values"]) for strip in steps["2"]["strips"]] == [8, 8]
    assert [p["chosen"] for p in steps["3"]["pictures"]].count(True) <= 1
    assert [p["label"] for p in steps["4"]["pictures"]][-1] == "From no brain at all"
    assert "on both sides" in steps["5"]["text"]
    assert list(lecture.go(session, click(lecture=5))) == ["masthead"]  # all is there already
    closed = lecture.go(session, click(lecture=0))
    assert "lecture" not in closed["masthead"]["link"]
    assert closed["lecture"]["state"] == "off"


def test_a_lecture_without_a_mapper_says_why(lecture: Lecture) -> None:
    session = Session()
    session.request, session.view = replace(REQUEST, mapper=""), View(lecture=1)
    lecture.renew(session)
    (sent,) = lecture.work(session)
    assert "There is no mapper" in sent["lecture"]["sentence"]


def test_badges_say_how_to_take_a_trial(workbench: Any) -> None:
    found = {badge["label"]: badge for badge in badges(workbench, REQUEST)}
    assert [choice[0] for choice in found["This trial"]["choices"]] == [
        *("similarity", "margin", "identification")
    ]
    _, text, share, sentence = found["This trial"]["choices"][0]
    assert text == f"better than {100 * share:.0f} % of test trials"
    assert "of the other 9 test images" in sentence
    _, text, share, sentence = found["Variety"]["choices"][0]
    assert 0 < share <= 1 and "dimensions" in text and "10 test images" in sentence
    assert "Nearest training image" not in found  # no generator here retrieves


def test_badges_of_what_is_not_decoded_are_none(workbench: Any) -> None:
    assert badges(workbench, replace(REQUEST, mapper="")) == []


def test_a_lecture_that_is_left_ends_at_the_next_step_of_its_picture(
    lecture: Lecture, fakes: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, steps, sweep = Session(), [], fakes.Generator.sweep
    session.request, session.view = REQUEST, View(lecture=1)
    lecture.renew(session)

    def left(self: Any, *args: Any, **options: Any) -> Any:
        for step in sweep(self, *args, **options):
            steps.append(step.step)
            if len(steps) == 2:
                session.lecture.stop()
            yield step

    monkeypatch.setattr(fakes.Generator, "sweep", left)
    list(lecture.work(session))
    assert steps == [1, 2]
    assert lecture.turns._holder is None
