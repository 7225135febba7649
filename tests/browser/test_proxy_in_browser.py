"""Behind a proxy, under a path of its own, the page is whole: pictures, brain, and programs."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from explorer import page
from explorer.page.edge import rules_for
from tests.explorer.page.proxying import behind
from tests.explorer.page.serving import OLD_NAME, leaving_loops_open

pytestmark = [pytest.mark.browser, OLD_NAME]


@pytest.fixture(scope="module")
def beneath(study: Any) -> Iterator[str]:
    """Serve the fake study to a proxy; give the server's own address."""
    from explorer.workbench import Workbench

    workbench = Workbench(
        {"fake": study.Study},
        {"pocket-clip": study.Embedder},
        {"linear": study.Linear, "ridge": study.Linear},
        {"painter": study.Generator},
        checkpoints=study.checkpoints,
    )
    with leaving_loops_open():
        blocks = page.build(workbench)
        _, address, _ = blocks.launch(
            server_name="127.0.0.1",
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            **page.launch_options(rules_for("127.0.0.1", beneath="/afterimage")),
        )
    yield address
    with leaving_loops_open():
        blocks.close(verbose=False)


@pytest.mark.parametrize(
    ("strips", "host"), [(True, "127.0.0.1:7860"), (False, "")], ids=["inside", "whole"]
)
def test_the_whole_page_is_there_under_a_path(
    open_page: Callable[..., Any], beneath: str, strips: bool, host: str
) -> None:
    with behind(beneath, "/afterimage", strips, host) as shown:
        # it refuses other addresses; the surface, drawn in software here, comes once
        tab = open_page("trial=test-02", at=shown, surface=strips)
        pictures = "[...document.querySelectorAll('.ai-trial img[src]')].map(i => i.naturalWidth)"
        widths = tab.evaluate(pictures)
        assert len(widths) > 2 and min(widths) > 0
        tab.wait_for_selector('.ai-brain[data-state="done"]')
        before = tab.url
        tab.locator("#next").click()
        tab.wait_for_function("before => location.href !== before", arg=before)
        assert urlsplit(tab.url).path == "/afterimage/"


def test_a_program_asks_through_the_proxy(beneath: str) -> None:
    with behind(beneath, "/afterimage") as shown:
        with leaving_loops_open():
            from gradio_client import Client

            client = Client(shown, verbose=False)
        trials = client.predict(api_name="/trials")["trials"]
        drawn = client.predict(trial=trials[0]["stimulus"], api_name="/reconstruct")
        assert drawn["images"][0]["image"].startswith("data:image/png;base64,")
        with leaving_loops_open():
            client.close()
        place = urlsplit(shown)
        line = http.client.HTTPConnection(place.netloc, timeout=30)
        line.request("GET", "/afterimage/healthz")
        assert json.loads(line.getresponse().read())["status"] == "ok"
        line.close()
