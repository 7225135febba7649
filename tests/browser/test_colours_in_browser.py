"""The page's colour bar says where a value lies beyond it, in Chromium over the fake study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from explorer.brain.display import parcel_values
from explorer.brain.maps import parcel_importance
from explorer.request import Request, View

pytestmark = pytest.mark.browser


def test_a_value_beyond_the_colour_bar_is_told_at_its_end(
    open_page: Any, make_workbench: Callable[..., Any]
) -> None:
    bench, told = make_workbench(), {}
    request = Request("fake", "sub-01", "", "linear", "painter")
    for stimulus in bench.catalogue.gallery("fake", "sub-01").index:
        shown = parcel_importance(bench, replace(request, stimulus=stimulus), View())
        told[parcel_values(shown, "enrichment")["beyond"][1]] = stimulus, shown
    for above, (stimulus, shown) in told.items():
        page = open_page(f"trial={stimulus}&mapper=linear")
        page.wait_for_selector(".ai-table td.ai-measured")
        end = page.locator(".ai-colourbar .ai-ends span").last.text_content()
        most = shown.limits["enrichment"][1]
        assert end == f"{'≥ ' * above}{most:.2f} ×"
        assert page.locator(".ai-colourbar .ai-above").count() == above
        fills = page.eval_on_selector_all(
            ".ai-table tr:not(.ai-few) td.ai-measured",
            """cells => cells.map(cell => [
                parseFloat(cell.textContent),
                parseFloat(cell.style.getPropertyValue('--fill')),
                cell.classList.contains('ai-beyond'),
            ])""",
        )
        for value, fill, beyond in fills:
            assert fill == pytest.approx(min(100, 100 * value / most), abs=1)
            assert beyond == (value > most) or value == pytest.approx(most, abs=0.006)
        assert any(beyond for *_, beyond in fills) == above
    assert set(told) == {False, True}, "the fake study has no trial beyond its limits, or no other"
