"""The evidence below a trial and the lecture, used in Chromium over the fake study."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytestmark = pytest.mark.browser


def link(page: Any) -> dict[str, str]:
    """Return the query of the address bar."""
    return {k: v[0] for k, v in parse_qs(urlsplit(page.url).query).items()}


def wait_for_lab(page: Any, state: str = "done") -> None:
    page.wait_for_selector(f'.ai-lab[data-state="{state}"]')


def chips(page: Any) -> list[str]:
    """Return the parcels that are lesioned."""
    return page.eval_on_selector_all(".ai-chips li", "all => all.map(n => n.dataset.parcel)")


def lesioned(page: Any) -> list[str]:
    """Return the pictures of the lesion: intact, lesioned, difference."""
    return page.eval_on_selector_all(".ai-trio img", "all => all.map(n => n.src)")


def test_nothing_is_open_until_a_tab_is_chosen_and_it_stays_with_the_trial(open_page: Any) -> None:
    page = open_page("trial=test-04")
    assert page.locator(".ai-lab-panel").is_hidden()
    assert page.locator(".ai-tabs button").all_text_contents() == [
        *("Controls", "Lesion", "Compare", "Sweep curve", "Drivers", "Steps"),
        "Statistics",
        *("Evaluation", "Is it decoding?", "Your picture", "Identity", "All trials"),
    ]
    page.click("#tab-controls")
    wait_for_lab(page)
    assert link(page)["panel"] == "controls"
    assert page.locator(".ai-card").count() == 11
    assert "has no repeat 3" in page.locator('[data-control="repeat 3 alone"]').text_content()
    before = page.get_attribute('[data-control="true embedding"] img', "src")
    page.click("#next")
    page.wait_for_function(
        """before => document.querySelector('.ai-lab').dataset.state === 'done' && document
            .querySelector('[data-control="true embedding"] img')?.src !== before""",
        arg=before,
    )
    page.click("#tab-controls")  # and closes again
    page.wait_for_selector(".ai-lab-panel", state="hidden")
    page.wait_for_function("!new URL(location).searchParams.has('panel')")


def test_a_parcel_of_the_map_is_lesioned_and_its_gain_turned(open_page: Any) -> None:
    page = open_page("trial=test-04")
    page.click('.ai-brain tr[data-parcel="fusiform L"]')
    page.click("#lesion-this")
    wait_for_lab(page)
    assert (link(page)["panel"], link(page)["lesion"]) == ("lesion", "fusiform L")
    assert chips(page) == ["fusiform L"]
    intact, silent, _ = lesioned(page)
    assert intact != silent
    assert "Lesion effect" in page.locator(".ai-brain th").all_text_contents()[-1]
    page.click('.ai-lab-table tr[data-parcel="pericalcarine R"]')
    page.wait_for_function("document.querySelectorAll('.ai-chips li').length === 2")
    wait_for_lab(page)
    assert chips(page) == ["fusiform L", "pericalcarine R"]
    page.fill("#lesion-gain", "1")
    page.wait_for_function("new URL(location).searchParams.get('gain') === '1'")
    page.wait_for_function(
        """() => {
            const [a, b] = document.querySelectorAll('.ai-trio img');
            return a && b && a.src === b.src;
        }"""
    )
    assert re.search(r"−?\d\.\d\d rank correlation over 8 parcels", page.text_content(".ai-rho"))
    assert page.locator(".ai-figure .ai-point").count() == 8
    page.click('.ai-pick-method input[value="gradient x input"]')  # the map comes first
    page.wait_for_function(
        """() => document.querySelector('.ai-lab').dataset.state === 'done' && document
            .querySelector('.ai-rho + .ai-small').textContent.includes('gradient x input')"""
    )


def test_a_swap_puts_in_another_trials_betas_and_a_link_brings_it_back(open_page: Any) -> None:
    page = open_page("trial=test-04&panel=lesion&lesion=fusiform+L")
    wait_for_lab(page)
    page.select_option("#lesion-fill", "another trial")
    page.wait_for_function("!document.querySelector('.ai-donor').hidden")
    wait_for_lab(page)
    page.fill("#lesion-donor", "9")
    page.press("#lesion-donor", "Enter")
    page.wait_for_function("new URL(location).searchParams.get('donor') === 'test-09'")
    page.wait_for_function(
        "document.querySelector('.ai-lesion-side').textContent.includes('when test-09 was shown')"
    )
    wait_for_lab(page)
    swapped = lesioned(page)
    page.reload()
    page.wait_for_selector('.ai-trial[data-state="done"]')
    wait_for_lab(page)
    assert lesioned(page) == swapped
    assert page.input_value("#lesion-donor") == "9"


def test_two_sides_are_compared_and_what_cannot_be_says_why(open_page: Any) -> None:
    page = open_page("trial=test-04&panel=compare")
    wait_for_lab(page)
    titles = page.locator(".ai-lab .ai-trio figcaption > p > b").all_text_contents()
    assert titles == ["A · painter", "B · unguided", "Difference"]
    row = page.locator('.ai-tests tr[data-metric="two-way identification"]').text_content()
    assert "may be chance" in row and "50.0 %" in row
    assert page.locator(".ai-people .ai-card").count() == 2
    page.select_option("#compare-against", "subject:sub-02")
    page.wait_for_selector('.ai-lab[data-state="none"]')
    assert "sub-02 has no mapper linear" in page.locator(".ai-reason").text_content()
    assert link(page)["against"] == "subject:sub-02"


def test_statistics_are_told_and_stay_on_the_next_trial(open_page: Any) -> None:
    page = open_page("trial=test-04&panel=statistics")
    wait_for_lab(page)
    assert "carry evidence" in page.locator(".ai-verdict-line").text_content()
    assert page.locator('tr.ai-sure[data-parcel="fusiform L"]').count() == 1
    assert page.locator(".ai-small-brain canvas").first.is_visible()
    with page.expect_download() as download:
        page.click(".ai-saves button")
    assert b"q_evidence" in download.value.path().read_bytes()


def test_the_lecture_goes_through_five_steps_by_keys(open_page: Any) -> None:
    page = open_page("trial=test-04")
    page.click("#lecture-open")
    page.wait_for_selector(".ai-sheet:not([hidden]) .ai-photos img")
    seen = []
    for step in range(1, 6):
        page.wait_for_function(
            "step => new URL(location).searchParams.get('lecture') === step", arg=str(step)
        )
        page.wait_for_selector(f'.ai-lecture-figure[data-step="{step}"] > *')
        seen.append(page.locator(".ai-lecture-words h2").text_content())
        page.keyboard.press("ArrowRight" if step < 5 else "ArrowLeft")
    assert seen == ["A brain", "An embedding", "A search", "An image", "A lesion"]
    page.wait_for_function("new URL(location).searchParams.get('lecture') === '4'")
    assert link(page)["trial"] == "test-04"  # keys did not reach the page below
    page.keyboard.press("Escape")
    page.wait_for_function("!new URL(location).searchParams.has('lecture')")
    assert page.locator(".ai-sheet").is_hidden()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("new URL(location).searchParams.get('trial') === 'test-05'")


@pytest.mark.parametrize("panel", ["lesion", "compare"])
def test_no_view_is_wider_than_a_phone(open_page: Any, panel: str) -> None:
    page = open_page(f"trial=test-04&panel={panel}", viewport={"width": 390, "height": 844})
    wait_for_lab(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_study_without_places_or_atlas_is_still_lesioned(open_page: Any) -> None:
    page = open_page("data=nowhere&trial=test-04&panel=lesion")
    wait_for_lab(page)
    assert chips(page) == ["(unassigned)"]
    assert "no atlas divides them" in page.locator(".ai-lesion-result .ai-note").text_content()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_critics_tests_are_charts_with_chance(open_page: Any, width: int) -> None:
    page = open_page("trial=test-04")
    page.set_viewport_size({"width": width, "height": 900})
    page.click("#tab-critique")
    wait_for_lab(page)
    first = page.locator(".ai-finding").first
    assert first.locator("h4").text_content() == "Generalisation"
    bar = first.locator(".ai-bar-row").first
    for part in ("i", "b", "u"):  # the rate, its interval, chance
        assert bar.locator(f".ai-bar-track {part}").count() == 1
    track, chance = (bar.locator(s).bounding_box() for s in (".ai-bar-track", "u"))
    middle = track["x"] + track["width"] / 2
    assert abs(chance["x"] - middle) < 3  # 50 %
    figure = page.locator(".ai-finding svg").last  # the bottleneck
    assert figure.locator(".ai-series-line").count() >= 3
    scale = figure.evaluate("n => n.getBoundingClientRect().width / n.viewBox.baseVal.width")
    assert 0.9 < scale <= 1.1  # letters keep their size on a phone
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
