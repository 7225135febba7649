"""The threshold, the colours, the keys and the files of the brain view, used in Chromium."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import pytest

from tests.browser.driving import link, problems

pytestmark = pytest.mark.browser


def under(page: Any) -> int:
    """Return how many parcels of the table are marked as below the threshold."""
    return page.locator(".ai-table tr.ai-under:not(.ai-few)").count()


def wait_for_link(page: Any, key: str, value: str | None) -> None:
    page.wait_for_function(
        "([key, value]) => new URL(location).searchParams.get(key) === value", arg=[key, value]
    )


def test_a_threshold_is_set_by_slider_and_by_key_and_says_what_it_hides(open_page: Any) -> None:
    page = open_page("trial=test-04&measure=share")
    page.wait_for_selector('.ai-brain[data-state="done"]')
    text = page.locator("#threshold-text")
    assert text.text_content() == "Every value is coloured." and under(page) == 0
    top = float(page.get_attribute("#threshold", "max"))
    page.locator("#threshold").fill(str(top / 2))
    wait_for_link(page, "threshold", f"{float(f'{top / 2:.3g}'):g}")
    said = text.text_content()
    assert said.startswith(f"Not coloured: {under(page)} of ") and "parcels, below " in said
    assert said.endswith(" %.") and 0 < under(page) < page.locator(".ai-table tbody tr").count()
    page.focus(".ai-stage")
    page.keyboard.press("]")
    page.wait_for_function("new URL(location).searchParams.get('threshold') > %f" % (top / 2))
    before = under(page)
    page.keyboard.press("[")
    page.keyboard.press("[")
    page.wait_for_function("new URL(location).searchParams.get('threshold') < %f" % (top / 2))
    assert under(page) <= before
    page.keyboard.press(".")
    page.wait_for_function("document.querySelector('.ai-picked').textContent.includes('voxels')")
    assert page.get_attribute(".ai-picked", "aria-live") == "polite"
    page.click(".ai-pick-measure input[value=signed]", force=True)
    wait_for_link(page, "threshold", None)  # it was in the other measure's unit
    assert text.text_content() == "Every value is coloured."
    page.click("#keys-open")
    keys = page.text_content(".ai-keys")
    assert "on the brain: a lower, a higher threshold" in keys


def test_colours_are_chosen_by_kind_of_map_and_the_map_is_saved(open_page: Any) -> None:
    page = open_page("trial=test-04&measure=share&threshold=0.01")
    page.wait_for_selector('.ai-brain[data-state="done"]')
    page.select_option("#palette", "cividis")
    wait_for_link(page, "colours", "cividis")
    ramp = page.locator(".ai-colourbar .ai-ramp i").get_attribute("style")
    assert "rgb(0, 34, 78)" in ramp and "rgb(254, 232, 56)" in ramp
    page.click(".ai-pick-measure input[value=signed]", force=True)
    page.select_option("#palette", "vik")
    wait_for_link(page, "signed_colours", "vik")
    assert link(page)["colours"] == "cividis"
    page.click("#save-map summary")
    with page.expect_download() as saved:
        page.click('#save-map button:has-text("GIFTI, right")')
    name = "afterimage_fake_sub-01_test-04_linear_signed_space-fsaverage5_hemi-R.func.gii"
    assert saved.value.suggested_filename == name
    image = nib.GiftiImage.from_bytes(saved.value.path().read_bytes())
    assert image.meta["AnatomicalStructurePrimary"] == "CortexRight"
    assert problems(page) == []
