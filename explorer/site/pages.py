"""The page of a site: its HTML and the components' scripts and styles, as the page has them."""

from __future__ import annotations

import html
import shutil
from collections.abc import Sequence
from pathlib import Path

from explorer.page import ASSETS, parts
from explorer.page.theme import MONO, SANS
from explorer.writing import write_whole

PAGE = "page"  # the folder of scripts and styles
# What the site calls a component, and whose scripts it has: those of the page, but for two.
COMPONENTS = {name: name for name in ("masthead", "footer", "trial", "brain", "lab")}
COMPONENTS |= {"sheet": "site_sheet", "app": "site_app"}
AT_ONCE = ("masthead", "footer", "sheet", "app")  # the rest comes with the first trial
STYLES = ("page", "lab", "sheet", "site")


def write_page(site: Path, title: str, lines: Sequence[tuple[str, str]], first: str) -> None:
    """Write ``index.html`` and the folder `PAGE`.

    Parameters
    ----------
    title
        Of the study.
    lines
        Whose data these are: head and text, for those without scripts too.
    first
        The data that the page begins with, a script's name.
    """
    folder = site / PAGE
    for name, own in COMPONENTS.items():
        write_whole(folder / f"{name}.js", component(name, own).encode())
    write_whole(folder / "site.js", (ASSETS / "site.js").read_bytes())
    write_whole(folder / "page.css", styles().encode())
    shutil.copyfile(ASSETS / "favicon.svg", folder / "favicon.svg")
    shutil.copyfile(parts.plotly_script(), folder / "plotly.min.js")
    write_whole(site / "index.html", document(title, lines, first).encode())


def styles(names: Sequence[str] = STYLES) -> str:
    """Return the page's styles as one text, with the fonts that Gradio gives it on a server."""
    texts = [(ASSETS / f"{name}.css").read_text("utf-8") for name in names]
    fonts = f":root {{ --font: {_fonts(SANS)}, sans-serif; --font-mono: {_fonts(MONO)}; }}"
    return "\n".join([fonts, *texts])


def component(name: str, own: str) -> str:
    """Return a component's scripts as one function of what Gradio gives it on the page."""
    return (
        f'afterimage.component("{name}", (element, props, watch, trigger, server) => {{\n'
        f"{parts.script(own)}\n}});\n"
    )


def document(title: str, lines: Sequence[tuple[str, str]], first: str) -> str:
    """Return the HTML of a site; every text in it is escaped."""
    told = "".join(f"<p><b>{html.escape(a)}</b> {html.escape(b)}</p>" for a, b in lines)
    scripts = ["page/site.js", *(f"{PAGE}/{name}.js" for name in AT_ONCE), "data/site.js", first]
    tags = "\n".join(f'<script src="{html.escape(name)}" defer></script>' for name in scripts)
    head = f"""<link rel="icon" href="{PAGE}/favicon.svg">
<link rel="stylesheet" href="{PAGE}/page.css">
{tags}"""
    body = f"""<div id="site"></div>
<noscript><main class="ai-footer"><h1>{html.escape(title)}</h1>
<p>This page draws its pictures and maps with scripts that lie beside it; allow them to see it.
The tables are in the folder tables.</p>{told}</main></noscript>"""
    return parts.document(title, head, body, "gradio-container ai-site")


def _fonts(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' if " " in name else name for name in names)
