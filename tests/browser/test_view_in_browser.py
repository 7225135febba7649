"""A trial's view as a notebook frames it, and a report, from the disk: neither needs a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.supplement.as_html import document
from backends.supplement.gathering import Asked, gather
from explorer.notebook.study import choose
from tests.browser.conftest import NO_WEBGL
from tests.browser.driving import problems

LOCAL = ("file:", "data:", "blob:", "about:")


@pytest.fixture
def offline(chromium):
    """Give a function that opens a file; it returns the page, and what it asked for or said."""
    context = chromium.new_context(viewport={"width": 1100, "height": 900})
    context.add_init_script(NO_WEBGL)  # drawing in software takes half a minute
    heard: list[str] = []

    def open_file(path: Path):
        page = context.new_page()
        page.on("request", lambda request: heard.append(request.url))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.goto(path.as_uri())
        return page, heard

    yield open_file
    context.close()


@pytest.mark.browser
def test_a_trial_in_a_frame_of_a_notebook(offline, make_workbench, tmp_path):
    view = choose(make_workbench(), None).trial("test-02").show()
    path = tmp_path / "notebook.html"
    path.write_text(f"<h1>A cell</h1>{view._repr_html_()}", "utf-8")
    page, heard = offline(path)
    frame = page.frame_locator("iframe")
    frame.locator("body").evaluate("() => window.afterimagePlotly.then(() => Plotly.version)")
    assert frame.locator(".ai-reconstruction img").count() == 5
    frame.locator(".ai-row-button").first.click()  # a parcel of the table is outlined
    assert frame.locator(".ai-picked").inner_text() != ""
    assert frame.locator(".ai-near button").first.is_disabled()
    tall = page.locator("iframe").evaluate(
        "node => [node.offsetHeight, node.contentDocument.documentElement.offsetHeight]"
    )
    assert abs(tall[0] - tall[1]) < 30  # the frame takes what the view needs
    assert not [one for one in heard if not one.startswith(LOCAL)]


@pytest.mark.browser
def test_a_report_opens_from_the_disk(offline, make_workbench, tmp_path):
    asked = Asked("fake", ("sub-01",), "linear", "painter", permutations=5, critique=False)
    path = tmp_path / "report.html"
    path.write_text(document(gather(make_workbench(), asked, lambda sentence: None)), "utf-8")
    page, heard = offline(path)
    images = page.locator("img").all()
    assert len(images) > 15 and all(one.evaluate("node => node.naturalWidth") for one in images)
    page.get_by_role("link", name="Limits").click()
    assert page.url.endswith("#part-7")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not problems(page)
    assert not [one for one in heard if not one.startswith(LOCAL)]
