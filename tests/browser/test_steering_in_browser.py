"""From trial to trial: by picture, number, keys, quick clicks and the browser's own buttons."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.driving import link, wait_for_trial

pytestmark = pytest.mark.browser


def test_trials_are_picked_by_picture_number_buttons_and_keys(open_page: Any) -> None:
    page = open_page("trial=test-04")
    page.click('[data-stimulus="test-06"]')
    wait_for_trial(page, "test-06")
    assert page.input_value("#number input") == "6"
    page.click("#next")
    wait_for_trial(page, "test-07")
    page.click("#previous")
    wait_for_trial(page, "test-06")
    page.locator("body").press("ArrowLeft")
    wait_for_trial(page, "test-05")
    page.locator("body").press("ArrowRight")
    wait_for_trial(page, "test-06")
    page.fill("#number input", "10")
    page.press("#number input", "Enter")
    wait_for_trial(page, "test-10")
    page.click("#next")  # goes round
    wait_for_trial(page, "test-01")
    page.click("#random")
    page.wait_for_function("new URL(location).searchParams.get('trial') !== 'test-01'")


@pytest.mark.parametrize("pause", [60, 250])
def test_quick_clicks_each_move_one_trial_and_end_in_its_pictures(
    open_page: Any, pause: int
) -> None:
    page = open_page("trial=test-01")
    for _ in range(7):
        page.click("#next")
        page.wait_for_timeout(pause)
    wait_for_trial(page, "test-08")
    assert page.input_value("#number input") == "8"


def test_the_category_filter_decides_what_next_means(open_page: Any) -> None:
    page = open_page("trial=test-01")
    page.click("#category input")
    page.get_by_role("option", name="cold").click()
    page.wait_for_function("document.querySelectorAll('.ai-gallery li').length === 5")
    page.click("#next")
    wait_for_trial(page, "test-02")
    page.click("#next")
    wait_for_trial(page, "test-04")


def test_back_and_forward_go_from_trial_to_trial(open_page: Any) -> None:
    page = open_page("trial=test-04&scales=1")
    first = page.title()
    page.click("#next")
    wait_for_trial(page, "test-05")
    assert page.title() != first
    assert "sub-01 · Afterimage" in page.title()
    page.check('.ai-pick-measure input[value="share"]')  # changes this place, makes none
    page.wait_for_function("new URL(location).searchParams.get('measure') === 'share'")
    page.click("#next")
    wait_for_trial(page, "test-06")
    page.go_back()
    wait_for_trial(page, "test-05")
    assert link(page)["measure"] == "share"
    page.go_back()
    wait_for_trial(page, "test-04")
    assert page.title() == first
    page.go_forward()
    wait_for_trial(page, "test-05")


def test_a_category_is_in_the_link_and_comes_back_with_it(open_page: Any) -> None:
    page = open_page("trial=test-02&category=warm")
    assert page.input_value("#category input") == "warm"
    chosen = link(page)
    assert chosen["category"] == "warm"
    page.click("#category input")
    page.locator("#category [role=option]", has_text="all categories").click()
    page.wait_for_function("!new URL(location).searchParams.has('category')")


def test_fields_show_what_is_in_force(open_page: Any) -> None:
    page = open_page("trial=test-04&scales=1,4")
    page.fill("#scales :is(input, textarea)", "")
    page.press("#scales :is(input, textarea)", "Tab")
    page.wait_for_selector(".ai-notice")
    page.wait_for_function(
        "document.querySelector('#scales :is(input, textarea)').value === '1, 4'"
    )
    page.fill("#number input", "7")
    page.press("#number input", "Tab")
    wait_for_trial(page, "test-07")
    page.fill("#number input", "2")
    page.click(".ai-caption")  # left without a word: nothing was chosen
    page.wait_for_function("document.querySelector('#number input').value === '7'")
    assert link(page)["trial"] == "test-07"


def test_controls_of_one_visitor_do_not_hold_anothers_next_trial(open_page: Any) -> None:
    one, other = open_page("trial=test-02&panel=controls", wait=False), open_page("trial=test-03")
    other.click("#next")
    wait_for_trial(other, "test-04")
    one.wait_for_selector('.ai-lab[data-panel="controls"][data-state="done"]')
