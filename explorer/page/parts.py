"""The scripts of the page's components, for the page and for a site of plain files. No Gradio."""

from __future__ import annotations

from explorer.page import ASSETS

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
