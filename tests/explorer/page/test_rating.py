"""The rating page without a browser: who rates, what is told, and that nothing gives a hint."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from explorer.evidence.rating import Method, Ratings, plan
from explorer.page.pictures import data_uri
from explorer.page.rating import Rating, build_rating
from tests.explorer.page.visits import click

SHOWN = [f"test-{i:02d}" for i in range(1, 6)]


def asking(user: str | None = None) -> Any:
    return SimpleNamespace(username=user)


@pytest.fixture
def make(fakes: Any, tmp_path: Path) -> Any:
    """Return a function that makes the handlers over two methods."""

    def made(*raters: str) -> Rating:
        methods = [
            Method(name, {s: partial(fakes.picture, f"{name}-{s}") for s in SHOWN}, SHOWN)
            for name in ("ridge", "flow")
        ]
        ratings = Ratings(tmp_path / "ratings", plan(methods, 5), 5, {})
        return Rating(ratings, methods, fakes.picture, raters)

    return made


def test_who_logged_in_rates_under_that_name_whatever_a_browser_says(make: Any) -> None:
    do = make()
    rater, shown = do.open(asking("ann"))
    assert (rater, shown["stage"], shown["rater"]) == ("ann", "choice", "ann")
    rater, _ = do.begin("", click(rater="ben"), asking("ann"))
    assert rater == "ann"
    do.answer("ben", click(order=1, kind="choice", value="left", seconds=1), asking("ann"))
    assert len(do.ratings.rows("ann")) == 1 and do.ratings.rows("ben") == []


def test_without_a_login_a_name_is_asked_for_and_may_be_one_of_a_list(make: Any) -> None:
    do = make("ann", "ben")
    rater, shown = do.open(asking())
    assert rater == "" and shown == {"stage": "name", "raters": ["ann", "ben"], "problem": ""}
    rater, shown = do.begin("", click(rater="eve"), asking())
    assert rater == "" and shown["problem"] == "'eve' is not among the raters (ann, ben)."
    rater, shown = do.begin("", click(rater=" ben "), asking())
    assert (rater, shown["stage"], shown["of"]) == ("ben", "choice", 20)
    answer = click(order=1, kind="choice", value="left", seconds=1)
    assert do.answer("eve", answer, asking())["stage"] == "name"  # a state that was made up
    assert not (do.ratings.folder / "eve.csv").exists()


def test_what_is_sent_tells_neither_method_nor_the_right_image(make: Any, fakes: Any) -> None:
    do = make()
    rights = []
    for _ in range(10):
        asked = do.ratings.next("ann")
        shown = do._shown("ann")
        assert set(shown) == {"stage", "rater", "order", "done", "of", "problem", "pictures"}
        assert set(shown["pictures"]) == {"made", "left", "right"}
        text = str({k: v for k, v in shown.items() if k != "pictures"})
        assert not any(word in text for word in ("ridge", "flow", "test-"))
        q = asked.question
        own, other = (data_uri(fakes.picture(s)) for s in (q.stimulus, q.distractor))
        sides = shown["pictures"]["left"], shown["pictures"]["right"]
        assert sides == ((own, other) if asked.left else (other, own))
        rights.append(asked.left)
        do.answer(
            "ann", click(order=asked.order, kind="choice", value="left", seconds=1), asking()
        )
    assert {row["correct"] for row in do.ratings.rows("ann")} == {"0", "1"}
    assert [row["correct"] == "1" for row in do.ratings.rows("ann")] == rights
    assert set(do._shown("ann")["pictures"]) == {"made", "shown"}


def test_a_problem_is_told_beside_the_same_question(make: Any) -> None:
    do = make()
    shown = do.answer("ann", click(order=1, kind="choice", value="both", seconds=1), asking())
    assert shown["problem"] == "A choice is left or right, found 'both'."
    assert (shown["stage"], shown["order"]) == ("choice", 1)
    (do.ratings.folder / "ann.csv").write_text("nonsense\n1\n")
    shown = do.answer("ann", click(order=1, kind="choice", value="left", seconds=1), asking())
    assert shown["stage"] == "name" and "expected rater, seed, order" in shown["problem"]


def test_the_page_has_no_endpoint_for_programs(make: Any, fakes: Any) -> None:
    do = make()
    blocks = build_rating(do.ratings, list(do._methods.values()), fakes.picture)
    assert all(fn.api_visibility == "private" for fn in blocks.fns.values())
