"""All trials at once in Chromium: sorted, filtered, chosen by keys, and full size as one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from explorer.evidence import sheet as sheets
from explorer.evidence.sheet_view import ASSETS, SCRIPTS, STYLES, fragment, payload
from explorer.request import Request
from tests.browser.conftest import bench_of
from tests.browser.driving import link, problems, wait_for_trial

pytestmark = pytest.mark.browser
ORDER = "all => all.map(one => one.dataset.id)"
VALUES = "all => all.map(one => +one.textContent.replace('−', '-'))"
FOCUS = "document.activeElement.dataset.id"
SIGHT = """all => all.filter(one => one.getAttribute('src'))
    .map(one => getComputedStyle(one).transform.replaceAll(/[^-0-9.,]/g, '').split(',').slice(0, 4)
        .concat(new DOMMatrix(getComputedStyle(one).transform).e / one.clientWidth).join(' '))"""


def open_sheet(open_page: Any, **options: Any) -> Any:
    page = open_page("trial=test-04&scales=1,2&steps=4&seed=77&panel=sheet", **options)
    page.wait_for_selector('.ai-lab[data-state="done"]')
    return page


def shown(page: Any) -> list[str]:
    return page.eval_on_selector_all(".ai-contact-cell", ORDER)


def test_a_sheet_is_drawn_sorted_filtered_and_a_trial_is_opened_by_keys(open_page: Any) -> None:
    page = open_sheet(open_page)
    assert len(shown(page)) == 10 and "Simulated data" in page.text_content(".ai-contact-about")
    page.click(".ai-contact-draw")
    page.wait_for_function(
        "document.querySelector('.ai-contact-drawing').textContent.includes('10 of 10')"
    )
    page.wait_for_selector('.ai-lab[data-state="done"]')
    page.select_option(".ai-contact-controls select >> nth=0", "PixCorr")
    values = page.eval_on_selector_all(".ai-contact-value", VALUES)
    assert values == sorted(values, reverse=True) and len(set(values)) > 5
    assert page.eval_on_selector_all('[data-end="best"]', ORDER) == [shown(page)[0]]
    page.click(".ai-contact-turn")
    assert page.eval_on_selector_all(".ai-contact-value", VALUES) == sorted(values)
    assert page.eval_on_selector_all('[data-end="worst"]', ORDER) == [shown(page)[0]]
    page.fill(".ai-contact input[type=search]", "TEST-0 patches")
    page.wait_for_function("document.querySelectorAll('.ai-contact-cell').length === 8")
    page.select_option(".ai-contact-pick:has-text('Images') select", "cold")
    assert set(shown(page)) == {"test-02", "test-04", "test-06", "test-08"}
    assert "4 of 10 trials" in page.text_content(".ai-contact-count")
    first, second = shown(page)[:2]
    page.focus('.ai-contact-cell[tabindex="0"]')
    assert page.locator('.ai-contact-cell[tabindex="0"]').count() == 1
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert page.evaluate(FOCUS) == second
    chosen = page.eval_on_selector_all('[role="option"][aria-selected="true"]', ORDER)
    assert chosen == [first, second]
    assert problems(page) == []
    page.keyboard.press("z")  # those that are selected stand side by side
    assert page.locator(".ai-full-row").count() == 2
    assert problems(page) == []
    page.keyboard.press("Escape")
    assert page.evaluate(FOCUS) == second
    page.keyboard.press("Enter")
    wait_for_trial(page, second)
    assert link(page)["panel"] == "sheet" and len(shown(page)) == 4  # what was chosen stays


def test_truth_and_scales_are_enlarged_and_moved_as_one(open_page: Any) -> None:
    page = open_sheet(open_page)
    page.click('.ai-contact-cell[data-id="test-04"] .ai-contact-pair')
    page.wait_for_function("document.querySelectorAll('.ai-full-pane img[src]').length === 3")
    frames = ".ai-full-pane img"
    assert page.locator(".ai-full-pane .ai-contact-blank").count() == 0  # all three are there
    assert len(set(page.eval_on_selector_all(frames, SIGHT))) == 1
    page.keyboard.press("+")
    page.hover(".ai-full-pane >> nth=1")
    page.mouse.wheel(0, -300)
    enlarged = page.eval_on_selector_all(frames, SIGHT)
    assert len(enlarged) == 3 and len(set(enlarged)) == 1
    assert float(enlarged[0].split()[0]) > 2
    page.mouse.down()
    page.mouse.move(0, 0, steps=3)
    page.mouse.up()
    moved = page.eval_on_selector_all(frames, SIGHT)
    assert len(set(moved)) == 1 and moved != enlarged
    page.keyboard.press("0")
    page.keyboard.press("ArrowRight")  # the next trial of the sheet
    assert "test-04" not in page.text_content(".ai-full h2")


def test_plain_files_show_the_same_without_a_server(
    chromium: Any, study: SimpleNamespace, tmp_path: Any
) -> None:
    bench = bench_of(study)
    request = Request("fake", "sub-01", "test-04", "linear", "painter", (2.0,), steps=4)
    sheet = sheets.ranked(bench, sheets.begin(bench, request))
    sheet = [one for one, _, _ in sheets.draw(bench, sheet, 2.0, most=6)][-1]
    files = {"small": lambda name, scale: f"{name}-{scale}.webp"}
    value = payload(bench, sheet, **files, href=lambda name: f"#{name}")
    for tile in sheet.tiles:
        truth = sheets.shown_thumbnail(bench, request, tile.stimulus)
        (tmp_path / f"{tile.stimulus}-None.webp").write_bytes(truth)
        if drawn := sheets.thumbnail(bench, request, tile.stimulus, 2.0):
            (tmp_path / f"{tile.stimulus}-2.0.webp").write_bytes(drawn)
    parts = [f"<style>{(ASSETS / name).read_text()}</style>" for name in STYLES]
    parts += [f"<script>{(ASSETS / name).read_text()}</script>" for name in SCRIPTS]
    file = tmp_path / "all.html"
    file.write_text(f"<!doctype html><meta charset=utf-8>{''.join(parts)}{fragment(value)}")
    page, faults = chromium.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_function(
        "[...document.querySelectorAll('.ai-contact-pane img:not([hidden])')]"
        ".filter(one => one.naturalWidth).length === 16"
    )
    for score in sheet.scores:  # both sort alike, what has no value last
        page.select_option(".ai-contact-controls select >> nth=0", score.key)
        assert shown(page) == [t.stimulus for t in sheets.ordered(sheet.tiles, score, 2.0)]
        for end, marked in zip(
            ("best", "worst"), sheets.extremes(sheet.tiles, score, 2.0), strict=True
        ):
            found = page.eval_on_selector_all(f'[data-end="{end}"]', ORDER)
            assert set(found) == marked, (score.key, end)
    page.focus('.ai-contact-cell[tabindex="0"]')
    page.keyboard.press("Enter")
    assert page.url.endswith(f"#{shown(page)[0]}")
    page.close()
    assert faults == []
