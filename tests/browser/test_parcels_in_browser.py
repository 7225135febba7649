"""The evidence about one parcel, used in Chromium over the fake study."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.driving import link, problems, wait_for_trial

pytestmark = pytest.mark.browser
PHONE = {"width": 390, "height": 844}


def wait_for(page: Any, panel: str) -> None:
    page.wait_for_selector(f'.ai-lab[data-panel="{panel}"][data-state="done"]')


def test_a_parcel_that_is_clicked_shows_what_drives_it(open_page: Any) -> None:
    page = open_page("trial=test-04&panel=drivers")
    wait_for(page, "drivers")
    page.click('.ai-brain tr[data-parcel="fusiform L"]')
    page.wait_for_function(
        "document.querySelector('#drivers-parcel').value === 'fusiform L'"
        " && document.querySelector('.ai-lab').dataset.state === 'done'"
    )
    measured = page.locator('[data-ranking="measured response"]')
    assert measured.locator("img").count() == 10  # five of ten at either end
    assert "averaged over all repeats. 10 test images" in measured.text_content()
    assert "no encoding model" in page.text_content('[data-ranking="predicted response"]')
    page.click('.ai-lab button:has-text("Training images")')
    assert measured.locator("img").count() == 16
    assert measured.locator("button").count() == 0  # what was learned from is no trial
    with page.expect_download() as saved:
        page.click('.ai-lab button:has-text("Save as CSV")')
    lines = saved.value.path().read_text().splitlines()
    assert lines[0].startswith("parcel,ranking,images,end,place,stimulus,value,unit,z")
    assert len(lines) == 1 + 2 * (10 + 16)  # measured and weight, test and training images
    assert problems(page) == []
    page.select_option("#drivers-parcel", "precentral R")
    page.wait_for_function("new URL(location).searchParams.get('parcel') === 'precentral R'")
    wait_for(page, "drivers")
    page.click('.ai-lab button:has-text("Test images")')
    first = measured.locator("button").first
    name = first.get_attribute("title").partition(":")[0]
    first.click()
    wait_for_trial(page, name)
    assert link(page)["panel"] == "drivers"


def test_drivers_fit_a_phone_in_the_dark(open_page: Any) -> None:
    page = open_page("trial=test-04&panel=drivers&parcel=fusiform L", viewport=PHONE)
    page.click("#theme")
    wait_for(page, "drivers")
    assert problems(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_parcel_is_followed_through_the_steps(open_page: Any) -> None:
    page = open_page("trial=test-04&steps=6&panel=steps&parcel=fusiform L")
    wait_for(page, "steps")
    assert page.locator(".ai-step-strip img").count() == 3 * 6
    assert "grows most in step" in page.text_content(".ai-lab .ai-verdict-line")
    assert page.locator(".ai-lab figure").count() == 3  # this painter has no latents
    page.click('.ai-brain tr[data-parcel="pericalcarine R"]')
    page.wait_for_function("new URL(location).searchParams.get('lesion') === 'pericalcarine R'")
    wait_for(page, "steps")
    page.select_option("#steps-parcel", "fusiform L")
    page.wait_for_function("document.querySelectorAll('.ai-chips li').length === 2")
    wait_for(page, "steps")
    with page.expect_download() as saved:
        page.click('.ai-lab button:has-text("Save as CSV")')
    lines = saved.value.path().read_text().splitlines()
    assert lines[0] == "step,latents,pixels,similarity,intact,lesioned" and len(lines) == 7
    assert problems(page) == []
    page.click("#theme")
    page.set_viewport_size(PHONE)
    assert problems(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
