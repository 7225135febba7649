"""The rating page by keyboard alone, blind, in Chromium."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from explorer.evidence.rating import Method, Ratings, plan
from tests.browser.conftest import launched
from tests.browser.driving import problems

pytestmark = pytest.mark.browser
PHONE = {"width": 390, "height": 844}
SHOWN = [f"test-{i:02d}" for i in range(1, 4)]


@pytest.fixture
def rated(fakes: Any, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve the page over two methods of three pictures; gives address and folder."""
    from explorer.page.rating import build_rating

    methods = [
        Method(name, {s: partial(fakes.picture, f"{name}-{s}") for s in SHOWN}, SHOWN)
        for name in ("secret-ridge", "secret-flow")
    ]
    folder = tmp_path / "ratings"
    ratings = Ratings(folder, plan(methods, 1), 1, {})
    with launched(build_rating(ratings, methods, fakes.picture)) as url:
        yield url, folder


def begin(page: Any, name: str) -> None:
    page.wait_for_selector("#rater")
    page.fill("#rater", name)
    page.keyboard.press("Enter")


def wait_for(page: Any, stage: str, order: int) -> None:
    page.wait_for_selector(f'.ai-rating[data-state="{stage}"][data-order="{order}"]')


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_rater_answers_by_keys_alone_and_goes_on_later(
    open_page: Any, rated: tuple[str, Path]
) -> None:
    address, folder = rated
    page = open_page(at=address, wait=False)
    begin(page, "a/b")
    page.wait_for_selector("text=A rater's name has 1 to 40 letters")
    assert problems(page) == []
    begin(page, "ann")
    wait_for(page, "choice", 1)
    assert "secret" not in page.content() and "test-0" not in page.content()  # blind
    assert problems(page) == []
    for number, key in enumerate(("1", "ArrowRight", "2"), start=1):
        page.keyboard.press(key)
        wait_for(page, "choice", number + 1)
    assert len(rows(folder, "ann")) == 3
    later = open_page(at=address, wait=False)
    begin(later, "ann")
    wait_for(later, "choice", 4)
    for number in (4, 5):
        later.keyboard.press("ArrowLeft")
        wait_for(later, "choice", number + 1)
    later.click("#left")
    wait_for(later, "rating", 1)
    assert problems(later) == []
    later.click("#theme")
    later.set_viewport_size(PHONE)
    assert problems(later) == []
    assert later.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    later.keyboard.press("9")  # means nothing
    for number in range(1, 7):
        wait_for(later, "rating", number)
        later.keyboard.press(str(1 + number % 5))
    later.wait_for_selector('.ai-rating[data-state="done"]')
    assert problems(later) == []
    kept = rows(folder, "ann")
    assert [row["rating"] for row in kept] == ["2", "3", "4", "5", "1", "2"]
    assert {row["method"] for row in kept} == {"secret-ridge", "secret-flow"}
    assert all(0 <= float(row["seconds"]) < 60 for row in kept)
    page.keyboard.press("1")  # the first window is behind: nothing is overwritten
    page.wait_for_selector('.ai-rating[data-state="done"]')
    assert rows(folder, "ann") == kept
