"""The page: the only room with Gradio. `build` makes it, `launch_options` says how to serve it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.page.theme import theme
from explorer.page.turns import MOST_WAITING, Budget

if TYPE_CHECKING:
    import gradio as gr

    from explorer.page.edge import Rules
    from explorer.workbench import Workbench

ASSETS = Path(__file__).parents[2] / "assets" / "page"
STYLES = ("page", "lab", "lecture", "rating", "sheet")
TITLE = "Afterimage"


def build(
    workbench: Workbench,
    budget: Budget | None = None,
    watched: str = "",
    say: Callable[[str], None] = lambda sentence: None,
) -> gr.Blocks:
    """Return the page over a workbench; launch it with ``**launch_options()``.

    ``budget``: how long one request may compute. Its ``turns`` are the queue at its models.
    ``watched``: the data set to which trials are added; its ``watch`` is to be started, and tells
    each to ``say``.
    """
    # After every event Gradio sums up all events so far with pandas, for a monitoring page that is
    # not used here: each costs more than the one before.
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")  # and goes through all it keeps

    from explorer.page.layout import build_page

    return build_page(workbench, budget or Budget(), watched, say)


def launch_options(rules: Rules | None = None) -> dict[str, Any]:
    """Return the arguments of ``Blocks.launch`` that belong to the page.

    ``rules``: whom its server answers; by default this machine alone.
    """
    from starlette.middleware import Middleware

    from explorer.page.edge import Edge, Rules
    from explorer.page.keeping import bounded

    rules = rules or Rules()
    return {
        "theme": theme(),
        "css_paths": [ASSETS / f"{name}.css" for name in STYLES],
        "footer_links": [],
        "ssr_mode": False,  # no Node process: one server, one language
        "enable_monitoring": False,
        "root_path": rules.beneath or None,  # else GRADIO_ROOT_PATH
        "max_threads": MOST_WAITING + 40,  # who waits for the models keeps no kept answer waiting
        "show_error": False,  # a bug's words are for the log, not for visitors
        "favicon_path": ASSETS / "favicon.svg",
        "app_kwargs": {
            "lifespan": bounded,
            "middleware": [Middleware(Edge, rules=rules)],
        },
    }
