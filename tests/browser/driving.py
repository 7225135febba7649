"""What browser tests do to the page, and read from it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit


def link(page: Any) -> dict[str, str]:
    """Return the query of the address bar."""
    return {k: v[0] for k, v in parse_qs(urlsplit(page.url).query).items()}


def wait_for_trial(page: Any, stimulus: str) -> None:
    """Wait until the sweep of a stimulus is finished."""
    page.wait_for_function(
        """name => new URL(location).searchParams.get('trial') === name
            && document.querySelector('.ai-kicker')?.textContent.endsWith(name)
            && document.querySelector('.ai-trial')?.dataset.state === 'done'""",
        arg=stimulus,
    )


def wait_for_surface(page: Any) -> None:
    """Wait until the surface is drawn."""
    page.locator(".ai-stage").scroll_into_view_if_needed()  # before that nothing is fetched
    page.wait_for_selector(".ai-canvas .gl-container canvas", state="attached")
    page.wait_for_function("document.querySelector('.ai-surface-text').hidden")


def pictures(page: Any) -> list[str]:
    """Return the addresses of the reconstructions."""
    return page.eval_on_selector_all(
        ".ai-reconstruction img", "nodes => nodes.map(n => n.getAttribute('src') || '')"
    )


def problems(page: Any) -> list[str]:
    """Return what axe finds wrong with the page as it stands, one line a fault."""
    from axe_playwright_python.sync_playwright import Axe

    # colours that change, and what was pale while it was computed, have come to rest
    page.wait_for_function(
        "document.getAnimations().every(one => !(one instanceof CSSTransition))"
        " && [...document.querySelectorAll('.ai-lab-body, .ai-brain-grid')]"
        ".every(node => !node.offsetParent || getComputedStyle(node).opacity === '1')"
    )
    return [
        f"{fault['id']}: {node['html'][:120]}"
        for fault in Axe().run(page).response["violations"]
        for node in fault["nodes"]
    ]
