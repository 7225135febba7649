"""A picture of one's own, picked and dropped in Chromium."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.driving import link, problems

pytestmark = pytest.mark.browser
PHONE = {"width": 390, "height": 844}


def photograph(side: int = 1100) -> dict[str, Any]:
    """Return a large file as somebody picks it: noise, the worst that a browser has to send."""
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "bmp")
    return {"name": "mine.bmp", "mimeType": "image/bmp", "buffer": file.getvalue()}


def wait_for_own(page: Any) -> None:
    page.wait_for_selector('.ai-lab[data-panel="own"][data-state="done"]')


def test_a_picture_of_ones_own_is_picked_predicted_and_forgotten(
    open_page: Any, predicting: str
) -> None:
    page = open_page("trial=test-04&panel=own", at=predicting)
    wait_for_own(page)
    assert page.locator(".ai-own-drop").is_visible()
    assert page.locator(".ai-lab .ai-cards li").count() == 0
    page.set_input_files("#own-file", photograph())
    page.wait_for_selector('.ai-card[data-mapper="linear"] img')
    wait_for_own(page)
    assert "Predicted, never measured" in page.text_content(".ai-lab .ai-banner")
    assert "From predicted betas. painter, scale 2" in page.text_content(".ai-lab .ai-card")
    size = page.eval_on_selector(".ai-own-drop img", "n => [n.naturalWidth, n.naturalHeight]")
    assert size == [320, 320]
    assert "picture" not in link(page) and "base64" not in page.url
    with page.expect_download() as saved:
        page.click('.ai-apart button:has-text("Save as CSV") >> visible=true')
    lines = saved.value.path().read_text().splitlines()
    assert "betas" in lines[0] and '"predicted, not measured"' in lines[1]
    assert problems(page) == []
    page.set_input_files(
        "#own-file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    )
    page.wait_for_selector("text=a.txt is no picture that this browser can read")
    assert page.locator(".ai-lab .ai-card img").count() == 1  # what was there stays
    page.click("#theme")
    page.set_viewport_size(PHONE)
    assert problems(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.click("text=Forget it")
    page.wait_for_selector(".ai-own-drop img", state="hidden")


def test_a_picture_dropped_anywhere_opens_the_view_and_without_a_model_it_says_why(
    open_page: Any,
) -> None:
    page = open_page("trial=test-04")
    page.evaluate(
        """async () => {
            const canvas = new OffscreenCanvas(48, 48);
            canvas.getContext('2d').fillRect(0, 0, 20, 20);
            const blob = await canvas.convertToBlob();
            const file = new File([blob], 'mine.png', { type: 'image/png' });
            const carried = new DataTransfer();
            carried.items.add(file);
            const drop = { dataTransfer: carried, bubbles: true, cancelable: true };
            document.querySelector('.ai-trial').dispatchEvent(new DragEvent('drop', drop));
        }"""
    )
    page.wait_for_selector('.ai-lab[data-panel="own"][data-state="none"]')
    assert "There is no encoding model for fake/sub-01" in page.text_content(".ai-reason")
    assert page.locator(".ai-own-drop").is_hidden()  # so none is asked for
    assert problems(page) == []
