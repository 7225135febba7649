"""What the server tells the browser is kept: no script of another host, and logins work."""

from __future__ import annotations

from typing import Any

import pytest

from explorer import page as explorer_page
from explorer.page.edge import Rules
from explorer.page.logins import Logins, hash_password
from tests.browser.conftest import PATIENCE
from tests.explorer.page.serving import OLD_NAME, leaving_loops_open

pytestmark = [pytest.mark.browser, OLD_NAME]
LOADS = """async () => await new Promise(found => {
  const script = document.createElement('script');
  script.src = 'https://example.org/x.js';
  script.onload = () => found('it ran');
  addEventListener('securitypolicyviolation', e => found(e.effectiveDirective));
  document.head.append(script);
})"""


def test_a_script_of_another_host_is_refused(chromium: Any, address: str) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(address, wait_until="domcontentloaded")
    assert page.evaluate(LOADS) == "script-src-elem"
    context.close()


def test_a_visitor_logs_in_through_the_page(chromium: Any, workbench: Any) -> None:
    door = Logins({"ann": hash_password("right one")})
    with leaving_loops_open():
        blocks = explorer_page.build(workbench)
        options = explorer_page.launch_options(Rules(logins=door))
        _, url, _ = blocks.launch(
            server_name="127.0.0.1",
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            auth=door,
            **options,
        )
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    broken = []
    page.on("console", lambda m: broken.append(m.text) if "Security Policy" in m.text else None)
    page.goto(url)
    for text in ("wrong one", "right one"):
        page.get_by_label("username").fill("ann")
        page.get_by_label("password").fill(text)
        page.get_by_role("button", name="Login").click()
        if text == "wrong one":
            page.get_by_text("Incorrect").wait_for()
    page.wait_for_selector('.ai-trial[data-state="done"]')
    assert broken == []
    context.close()
    with leaving_loops_open():
        blocks.close(verbose=False)
