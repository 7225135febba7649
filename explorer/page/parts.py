"""The scripts of the page's components, for the page and for a site of plain files. No Gradio."""

from __future__ import annotations

import html
from importlib.util import find_spec
from pathlib import Path

from explorer.page import ASSETS
from explorer.types import UserError

SMALL_BRAIN = ("lab_trial.js", "lab_brain.js")
# Component -> the scripts that it has before its own; all begin with common.js.
PARTS = {
    "brain": ("brain_surface.js", "brain_look.js"),
    "lab": (
        *SMALL_BRAIN,
        "lab_pairs.js",
        "lab_tables.js",
        "lab_critique.js",
        "lab_parcel.js",
        "lab_own.js",
        "sheet.js",
        "lab_sheet.js",
    ),
    "lecture": SMALL_BRAIN,
    "site_sheet": ("sheet.js",),
    "site_app": ("site_figure.js",),
}


def script(name: str) -> str:
    """Return a component's scripts as one text.

    It reads ``element``, ``props``, ``watch``, ``trigger`` and ``server``, as Gradio gives them.
    """
    files = ("common.js", *PARTS.get(name, ()), f"{name}.js")
    return "\n".join((ASSETS / file).read_text("utf-8") for file in files)


def plotly_script() -> Path:
    """Return where the plotly package has its script."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise UserError("The surface needs the package plotly; run: pip install plotly.")
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


def document(title: str, head: str, body: str, looks: str = "") -> str:
    """Return an HTML document that tells nobody where its reader came from.

    Parameters
    ----------
    title
        A text, escaped here.
    head, body
        HTML, each of whole lines.
    looks
        The classes of the body.
    """
    classes = f' class="{looks}"' if looks else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{html.escape(title)} · Afterimage</title>
{head}
</head>
<body{classes}>
{body}
</body>
</html>
"""
