"""The page: the only room with Gradio. `build` makes it, `launch_options` says how to serve it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.page.theme import theme

if TYPE_CHECKING:
    import gradio as gr

    from explorer.workbench import Workbench

ASSETS = Path(__file__).parents[2] / "assets" / "page"
TITLE = "Afterimage"


def build(workbench: Workbench) -> gr.Blocks:
    """Return the page over a workbench; launch it with ``**launch_options()``."""
    from explorer.page.layout import build_page

    return build_page(workbench)


def launch_options() -> dict[str, Any]:
    """Return the arguments of ``Blocks.launch`` that belong to the page."""
    return {
        "theme": theme(),
        "css_paths": [ASSETS / "page.css"],
        "footer_links": [],
        "ssr_mode": False,  # no Node process: one server, one language
        "show_error": False,
        "favicon_path": ASSETS / "favicon.svg",
    }
