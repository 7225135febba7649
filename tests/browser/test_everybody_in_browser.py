"""The page by keyboard alone, for screen readers, in the dark and on a phone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.driving import problems

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}


def focused(page: Any, what: str = "id") -> str:
    """Return an attribute of what has the keyboard."""
    return page.evaluate(f"document.activeElement.getAttribute('{what}') || ''")


def test_axe_finds_nothing_on_page_panels_and_lecture(open_page: Any) -> None:
    page = open_page("trial=test-04")
    assert problems(page) == []
    for name in ("controls", "lesion", "compare", "curve", "statistics"):
        page.click(f"#tab-{name}")
        page.wait_for_selector(f'.ai-lab[data-panel="{name}"][data-state="done"]')
        assert problems(page) == [], name
    page.click("#keys-open")
    assert problems(page) == []
    page.keyboard.press("Escape")
    page.click("#lecture-open")
    page.wait_for_selector(".ai-lecture-figure > *")
    assert problems(page) == []


@pytest.mark.parametrize("look", ["dark", "phone", "no places"])
def test_axe_finds_nothing_however_it_is_looked_at(open_page: Any, look: str) -> None:
    query = "data=nowhere" if look == "no places" else "panel=lesion"
    page = open_page(query, viewport=PHONE) if look == "phone" else open_page(query)
    if look == "dark":
        page.click("#theme")
        assert page.evaluate("document.body.classList.contains('dark')")
    if look != "no places":
        page.wait_for_selector('.ai-lab[data-panel="lesion"][data-state="done"]')
    assert problems(page) == []


def test_the_first_tab_stop_leads_to_the_trial(open_page: Any) -> None:
    page = open_page("trial=test-04")
    before = page.url
    page.locator("body").press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the trial"
    page.keyboard.press("Enter")
    assert "ai-caption" in focused(page, "class")
    assert page.url == before  # a link that is copied now stays a link to the trial
    assert page.locator("h1").count() == 1


def test_tabs_and_tables_keep_their_arrow_keys(open_page: Any) -> None:
    page = open_page("trial=test-04")
    page.focus("#tab-controls")
    page.keyboard.press("ArrowRight")
    assert focused(page) == "tab-lesion"
    page.keyboard.press("End")
    last = focused(page)
    page.keyboard.press("ArrowRight")  # round to the first
    assert (last != "tab-controls", focused(page)) == (True, "tab-controls")
    assert page.locator('.ai-tabs [tabindex="0"]').count() == 1
    rows = page.locator(".ai-brain tbody tr")
    page.locator(".ai-brain .ai-row-button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    second = rows.nth(1).get_attribute("data-parcel")
    assert page.get_attribute("tr.ai-chosen", "data-parcel") == second
    # the rows were written anew, and the keys are still in the same one
    assert page.evaluate("document.activeElement.closest('tr').dataset.parcel") == second
    assert "trial=test-04" in page.url


def test_keys_are_listed_and_can_be_switched_off(open_page: Any) -> None:
    page = open_page("trial=test-04")
    page.locator("body").press("?")
    assert page.locator("dialog.ai-keys").is_visible()
    assert "a random trial" in page.locator("dialog.ai-keys").text_content()
    page.uncheck("#keys-on")
    page.keyboard.press("Escape")
    page.locator("body").press("ArrowRight")
    page.locator("body").press("?")
    assert not page.locator("dialog.ai-keys").is_visible()
    page.reload()
    page.wait_for_selector('.ai-trial[data-state="done"]')
    page.locator("body").press("ArrowRight")
    page.wait_for_timeout(300)
    assert "trial=test-04" in page.url
    page.click("#keys-open")
    page.check("#keys-on")
    page.keyboard.press("Escape")
    page.locator("body").press("ArrowRight")
    page.wait_for_function("new URL(location).searchParams.get('trial') === 'test-05'")


def test_the_brain_turns_grows_and_picks_parcels_by_keys(open_page: Any) -> None:
    page = open_page("trial=test-04", surface=True)
    page.locator(".ai-stage").scroll_into_view_if_needed()
    page.wait_for_selector(".ai-canvas .gl-container canvas", state="attached")
    page.wait_for_function("document.querySelector('.ai-surface-text').hidden")
    state = """() => { const { scene, scene2 } = document.querySelector('.ai-canvas').layout;
        return [scene, scene2].map(s => [s.camera.eye.x, s.camera.eye.y, s.aspectratio.z,
                                         s.domain.x[0], s.domain.x[1]]); }"""
    left, right = page.evaluate(state)
    assert left[4] <= right[3]  # beside each other: neither can turn into the other
    assert page.locator(".ai-sides span").all_text_contents() == ["L", "R"]
    page.focus(".ai-stage")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"({state})()[0][0] > 0.3")
    turned = page.evaluate(state)
    assert turned[0][:2] == pytest.approx(turned[1][:2])  # both by as much
    page.keyboard.press("+")
    page.wait_for_function(f"({state})()[0][2] > {turned[0][2] * 1.2}")
    page.keyboard.press("0")
    page.wait_for_function(f"Math.abs(({state})()[0][0]) < 1e-6")
    assert page.evaluate(state)[0] == pytest.approx(left)
    page.keyboard.press(".")
    first = page.locator(".ai-brain tbody tr").first.get_attribute("data-parcel")
    assert page.get_attribute("tr.ai-chosen", "data-parcel") == first
    assert "trial=test-04" in page.url
    page.check('.ai-pick-camera input[value="ventral"]')  # from below the left one is on the right
    page.wait_for_function("document.querySelector('.ai-sides').textContent === 'RL'")


def test_lesion_this_brings_its_panel_to_the_reader(open_page: Any) -> None:
    page = open_page("trial=test-04")
    page.click('.ai-brain tr[data-parcel="precentral L"]')
    page.click("#lesion-this")
    page.wait_for_selector('.ai-lab[data-panel="lesion"][data-state="done"]')
    assert focused(page) == "lab-panel"
    top = page.evaluate("document.querySelector('.ai-lab').getBoundingClientRect().top")
    assert -2 < top < 200


def test_a_phone_reaches_every_picker_before_the_trial_and_reads_the_measure(
    open_page: Any,
) -> None:
    page = open_page("trial=test-04&panel=statistics", viewport=PHONE)
    places = [page.locator(f"#{name}").bounding_box()["y"] for name in ("pick", "decode", "main")]
    assert places == sorted(places)
    page.wait_for_selector("#mapper input", state="hidden")  # folded at first
    page.click("#decoder > button")
    page.wait_for_selector("#mapper input", state="visible")
    heads = page.locator(".ai-brain th:visible button").all_text_contents()
    assert [head.strip("▾▴") for head in heads] == ["Parcel", "", "Voxels", "Enrichment"]
    box = page.locator('.ai-brain th [data-column="enrichment"]').bounding_box()
    assert box["x"] + box["width"] <= PHONE["width"]
    used = page.locator("#tab-statistics").bounding_box()
    assert used["x"] >= 0
    assert used["x"] + used["width"] <= PHONE["width"]


def test_a_trial_number_is_read_whole_at_1024_pixels(open_page: Any) -> None:
    page = open_page("trial=test-04", viewport={"width": 1024, "height": 768})
    page.evaluate("document.querySelector('#number input').value = '10000'")
    assert page.evaluate(
        "(n => n.scrollWidth <= n.clientWidth)(document.querySelector('#number input'))"
    )


@pytest.mark.parametrize("panel", ["controls", "lesion", "compare", "curve", "statistics"])
def test_every_panel_saves_its_numbers(open_page: Any, panel: str) -> None:
    page = open_page(f"trial=test-04&panel={panel}")
    page.wait_for_selector(f'.ai-lab[data-panel="{panel}"][data-state="done"]')
    with page.expect_download() as saved:
        page.locator(".ai-lab .ai-saves button", has_text="CSV").first.click()
    text = saved.value.path().read_text("utf-8")
    assert len(text.splitlines()) > 1
    assert "," in text.splitlines()[0]


def test_a_dot_of_the_evaluation_brings_its_trial_into_view(open_page: Any, shipped: str) -> None:
    page = open_page("trial=test-0012&steps=2&scales=1&panel=evaluation", at=shipped)
    page.wait_for_selector('.ai-lab[data-panel="evaluation"][data-state="done"]')
    page.evaluate("document.querySelector('.ai-lab').scrollIntoView()")
    dot = page.locator('.ai-strip-figure circle:not([data-stimulus="test-0012"])').first
    stimulus = dot.get_attribute("data-stimulus")
    dot.dispatch_event("click")
    page.wait_for_function(
        "name => document.querySelector('.ai-kicker').textContent.endsWith(name)", arg=stimulus
    )
    assert abs(page.evaluate("document.querySelector('#trial').getBoundingClientRect().top")) < 40
