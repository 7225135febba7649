"""The page's own view of one trial as one HTML text that needs no server and no network."""

from __future__ import annotations

import base64
import gzip
import html
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.brain import display
from explorer.brain.maps import parcel_importance, parcellation_of
from explorer.choosing import check_request
from explorer.decoding import unexplained
from explorer.page import ASSETS, brain
from explorer.page.about import footer
from explorer.page.parts import document, plotly_script
from explorer.request import IMPORTANCE, SURFACES, Request, View
from explorer.site.pages import component, styles
from explorer.site.scripts import pooled, script
from explorer.site.trials import trial_value
from explorer.types import UserError
from explorer.writing import write_whole

if TYPE_CHECKING:
    from explorer.notebook.trial import Trial
    from explorer.workbench import Workbench

COMPONENTS = {"trial": "trial", "brain": "brain", "footer": "footer", "app": "alone_app"}
STYLES = ("page", "lab", "site")
HEIGHT, HEIGHT_WITH_BRAIN = 760, 1620  # pixels, where a notebook lets no frame fit its content


@dataclass(frozen=True, eq=False)
class TrialView:
    """A view that shows itself in Jupyter, VS Code and Colab.

    Attributes
    ----------
    title : str
        What it shows.
    document : str
        The whole HTML: pictures, scripts and styles are in it.
    height : int
        Of the frame in pixels, where it cannot take what it needs.
    """

    title: str
    document: str = field(repr=False)
    height: int = HEIGHT
    fits: bool = True

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the view as one HTML file, which opens from the disk, and return its path."""
        place = Path(path).expanduser()
        if place.suffix.lower() not in (".html", ".htm"):
            raise UserError(f"A view is saved as .html, found {place.name!r}; add .html to it.")
        return write_whole(
            place, self.document.encode(), "make room there, or choose another path"
        )

    def _repr_html_(self) -> str:
        """Return a frame with the document inside it: styles and scripts touch nothing else."""
        fit = ' data-fit="yes"' if self.fits else ""
        return (
            f'<iframe srcdoc="{html.escape(self.document, quote=True)}"{fit} '
            f'title="{html.escape(self.title, quote=True)}" loading="lazy" '
            f'style="width:100%;height:{self.height}px;border:0"></iframe>'
        )


def trial_view(trial: Trial, with_brain: bool = True, height: int = 0) -> TrialView:
    """Return the view of a trial, drawn now where it is not; see `Trial.show`."""
    bench, request = trial.study.bench, trial.request
    check_request(bench.catalogue, request)
    value: dict[str, Any] = {"trial": trial_value(bench, request)[0], "brain": None}
    value["lines"] = footer(bench, request)["lines"]
    data = []
    if with_brain and not unexplained(bench, request):
        value["brain"] = _brain(bench, request)
        data.append(script("packed", _packed(bench, request)))
    data.insert(0, script("trial", pooled(value)))
    usual = HEIGHT_WITH_BRAIN if value["brain"] else HEIGHT
    title = f"{value['trial']['trial']['caption']} · {request.subject}"
    return TrialView(title, _document(title, data), height or usual, not height)


def _brain(bench: Workbench, request: Request) -> dict[str, Any]:
    """Return the page's brain view with the one map that is here."""
    view = View()
    frame = brain.alone(brain.frame(request, view, bench, ""))
    shown = brain.with_map(frame, parcel_importance(bench, request, view))
    return shown | {
        "offered": [one for one in frame["offered"] if one[0] == IMPORTANCE],
        "atlases": [frame["key"]["atlas"]],
        "methods": [view.method],
        "targets": frame["targets"][:1],
    }


def _packed(bench: Workbench, request: Request) -> dict[str, str]:
    """Return what the surface is drawn with, each as gzip in base64: 3.8 MB instead of 8."""
    place = request.dataset, request.subject
    space = bench.catalogue.trials(*place).subject.voxels
    parcellation = parcellation_of(bench, *place)
    surfaces: dict[str, Any] = {}
    for name in SURFACES:
        try:
            surfaces[name] = display.surface_payload(parcellation, space, name)
        except UserError as error:  # there are no places: the table says the same
            surfaces[name] = {"problem": str(error)}
    drawn = not any("problem" in one for one in surfaces.values())
    return {
        "surfaces": _zipped(json.dumps(surfaces).encode()),
        "plotly": _zipped(plotly_script().read_bytes() if drawn else b""),
    }


def _zipped(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode("ascii")


def _document(title: str, data: list[bytes]) -> str:
    """Return the HTML; data are scripts in which no text can end a script."""
    scripts = [(ASSETS / "site.js").read_text("utf-8")]
    scripts += [component(name, own) for name, own in COMPONENTS.items()]
    scripts += [one.decode() for one in data]
    tags = "\n".join(f"<script>{text}</script>" for text in scripts)
    body = f'<div id="site"></div>\n{tags}'
    looks = "gradio-container ai-site ai-alone"
    return document(title, f"<style>{styles(STYLES)}</style>", body, looks)
