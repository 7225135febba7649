"""A study as plain files, in the browser: from the disk, and from a server that knows nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from explorer.site.plan import Plan
from explorer.site.publishing import publish
from tests.browser.conftest import bench_of, new_page
from tests.browser.driving import pictures, problems, wait_for_surface

PLAN = Plan("fake", ("sub-01",), ("linear",), "painter", (0, 2, 8), 2, controls=2, curves=2)
DONE = '#main[data-state="done"]'


@pytest.fixture(scope="module")
def site(study: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bench = bench_of(study)
    return publish(bench, PLAN, tmp_path_factory.mktemp("site") / "a site")


@pytest.fixture
def opened(chromium: Any, site: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that opens the site; a test fails if it asked anything else."""
    contexts, wrong = [], []

    def open_(
        words: str = "", at: str = site.as_uri(), surface: bool = False, **options: Any
    ) -> Any:
        page = new_page(chromium, contexts, surface, options)
        base = at.rpartition("/")[0]
        allowed = (base, "data:", "blob:")
        page.on("request", lambda r: r.url.startswith(allowed) or wrong.append(r.url))
        page.on("requestfailed", lambda r: wrong.append(f"not there: {r.url}"))
        page.on("console", lambda m: m.type == "error" and wrong.append(m.text))
        page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
        page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
        page.goto(f"{at}#{words}" if words else at)
        page.wait_for_selector(DONE)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    """Serve the site as any static host does, below a path."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    handler = partial(Quiet, directory=str(site.parents[1]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/a%20site/index.html"
    server.shutdown()
    server.server_close()


def words(page: Any) -> dict[str, str]:
    """Return what the address says after #."""
    return {k: v[0] for k, v in parse_qs(urlsplit(page.url).fragment).items()}


def wait_for(page: Any, stimulus: str) -> None:
    page.wait_for_selector(f'#main[data-at="{stimulus}"][data-state="done"]')


def cells(page: Any) -> list[str]:
    return page.eval_on_selector_all(".ai-contact-cell", "n => n.map(one => one.dataset.id)")


def test_the_sheet_is_searched_sorted_and_filtered(opened):
    page = opened()
    assert len(cells(page)) == 10
    page.get_by_label("Sort by").select_option("")
    assert cells(page)[0] == "test-01"
    first = page.locator(".ai-contact-cell img").first
    first.wait_for()
    assert first.get_attribute("src") == "thumbs/shown0/0001.webp"
    page.get_by_label("Text", exact=True).fill("BOLD")
    page.wait_for_function("document.querySelectorAll('.ai-contact-cell').length === 1")
    assert cells(page) == ["test-03"]
    assert page.locator(".ai-contact-caption").inner_text().startswith("<b>bold</b>")
    page.get_by_label("Text", exact=True).fill("")
    page.wait_for_function("document.querySelectorAll('.ai-contact-cell').length === 10")
    page.get_by_label("Images").select_option("cold")
    assert len(cells(page)) == 5
    page.get_by_label("Sort by").select_option("PixCorr")
    values = page.eval_on_selector_all(
        ".ai-contact-value", "n => n.map(one => Number(one.textContent.replace('−', '-')))"
    )
    assert values == sorted(values, reverse=True)
    page.get_by_label("Least value of the score").fill(str(values[1]))
    page.wait_for_function("document.querySelectorAll('.ai-contact-cell').length < 5")
    kept = page.eval_on_selector_all(".ai-contact-value", "n => n.map(one => one.textContent)")
    assert 1 <= len(kept) <= 2
    told = page.locator(".ai-contact-figures").inner_text()
    assert "N" in told and "chance" in told.lower()


def test_a_trial_from_the_sheet_its_slider_and_its_link(opened):
    page = opened()
    page.get_by_label("Sort by").select_option("")
    page.locator('.ai-contact-cell[data-id="test-02"] .ai-contact-caption').dblclick()
    wait_for(page, "test-02")
    assert words(page) == {"subject": "sub-01", "mapper": "linear", "trial": "test-02"}
    assert len(set(pictures(page))) == 3 and all(one.startswith("data:") for one in pictures(page))
    page.locator(".ai-reconstruction button").nth(2).click()
    assert "scale 8" in page.locator(".ai-compare .ai-ends").inner_text()
    page.locator("#compare-range").fill("20")
    assert "20%" in page.locator(".ai-compare-frame").get_attribute("style")
    page.keyboard.press("Escape")
    page.locator(".ai-caption").click()
    page.keyboard.press("ArrowRight")
    wait_for(page, "test-03")
    assert page.locator(".ai-caption").inner_text() == "<b>bold</b> ${alert(1)} {{value}}"
    page.go_back()
    wait_for(page, "test-02")
    page.locator(".ai-site-scores summary").click()
    assert "N 10" in page.locator(".ai-site-scores").inner_text()
    page.locator("#all-trials").click()
    page.wait_for_selector('#main[data-at=""]')
    assert words(page) == {} and page.locator("#trial").is_hidden()


def test_a_link_shows_trial_measure_and_evidence(opened):
    page = opened("trial=test-01&measure=share&panel=controls")
    page.wait_for_selector(".ai-card")
    assert page.locator(".ai-card").count() >= 8
    assert page.locator(".ai-brain th[aria-sort=descending]").inner_text().startswith("Share")
    page.locator("#tab-curve").click()
    page.wait_for_selector(".ai-lab figure svg")
    assert words(page)["panel"] == "curve"
    page.locator("#tab-statistics").click()
    page.wait_for_selector(".ai-lab-table tbody tr")
    page.locator("#next").click()
    wait_for(page, "test-02")
    page.locator("#tab-controls").click()
    told = page.locator(".ai-reason")
    told.wait_for()
    assert told.inner_text().endswith("They are there for 2 of 10 trials, evenly spaced: 1, 10.")
    page.goto(f"{page.url.partition('#')[0]}#trial=nobody")
    page.wait_for_selector(".ai-note[role=alert]:not([hidden])")
    assert "there is no trial nobody here" in page.locator("[role=alert].ai-note").inner_text()


def test_figure_and_table_are_taken_away(opened):
    page = opened("trial=test-03")
    for form, start in (("svg", "<svg xmlns="), ("csv", "parcel,")):
        page.locator("#export summary").click()
        with page.expect_download() as saved:
            page.locator(f'#export [data-format="{form}"]').click()
        text = Path(saved.value.path()).read_text("utf-8")
        assert text.startswith(start) and saved.value.suggested_filename.endswith(f".{form}")
        if form == "svg":
            assert text.count("<image") == 4 and "&lt;b&gt;bold&lt;/b&gt;" in text
            assert "Licence: CC0" in text and text.count('href="data:image/webp') == 4
    assert page.locator('#export [data-format="pdf"]').is_hidden()


def test_the_brain_is_hovered_and_clicked_from_a_plain_server(opened, served):
    page = opened("trial=test-01&surface=axial", at=served, surface=True)  # slices take a server
    wait_for_surface(page)
    page.locator(".ai-stage").scroll_into_view_if_needed()
    box = page.locator(".ai-stage").bounding_box()
    tip = page.locator(".ai-tip")
    for across in [one / 40 for one in range(8, 32)]:  # until a parcel lies under the pointer
        page.mouse.move(box["x"] + across * box["width"], box["y"] + 0.55 * box["height"])
        page.wait_for_timeout(100)
        if tip.is_visible() and tip.locator("b").count():
            break
    name = tip.locator("b").inner_text()
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector(".ai-table tr.ai-chosen")
    assert name in page.locator(".ai-picked").inner_text()
    assert words(page)["parcel"]
    page.get_by_label("Show", exact=True).select_option("noise ceiling")
    page.wait_for_function(
        "document.querySelector('.ai-brain-head h2').textContent.startsWith('How well')"
    )
    page.locator(".ai-pick-surface input[value=flat]").check()
    page.wait_for_function("document.querySelector('.ai-surface-text').hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(opened, served, scheme):
    page = opened(at=served, color_scheme=scheme)
    assert ("dark" in page.locator("body").get_attribute("class")) == (scheme == "dark")
    assert problems(page) == []
    page = opened("trial=test-01&panel=controls", at=served, color_scheme=scheme)
    page.wait_for_selector(".ai-card")
    assert problems(page) == []


def test_nothing_is_wider_than_a_phone(opened):
    for asked in ("", "trial=test-01&panel=evaluation"):
        page = opened(asked, viewport={"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
