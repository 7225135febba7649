"""One trial of a site: what the page shows of it, and its importance as what differs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from explorer.brain.maps import parcel_importance
from explorer.decoding import decode, undecoded, unexplained
from explorer.drawing import reconstruct
from explorer.evidence.badges import badges
from explorer.page import brain, links, trial
from explorer.page.lab_choices import QUESTIONS
from explorer.page.lab_trial import Parts, controls_view
from explorer.request import Request, View
from explorer.site.scripts import SAME, differs
from explorer.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from explorer.finished import Frame
    from explorer.workbench import Workbench

PLOTLY = "page/plotly.min.js"  # of the site


@dataclass
class Maps:
    """The brain view of a group's trials: whole for the first one, then what differs from it.

    ``bases``: atlas and method, as `key` joins them -> the value of the page's brain component.
    """

    views: tuple[View, ...]
    bases: dict[str, dict[str, Any]] = field(default_factory=dict)

    def first_of_each_atlas(self) -> list[View]:
        """Return a view of each atlas, of the first method."""
        return list({view.atlas: view for view in reversed(self.views)}.values())[::-1]

    def of(self, bench: Workbench, request: Request) -> dict[str, Any]:
        """Return key -> what differs from the base in a trial; a text says why there is no map."""
        if reason := unexplained(bench, request):
            return {key(view): reason for view in self.views}
        found = {}
        for view in self.views:
            try:
                shown = parcel_importance(bench, request, view)
            except UserError as error:
                found[key(view)] = str(error)
                continue
            frame = brain.alone(brain.frame(request, view, bench, PLOTLY))
            value = brain.with_map(frame, shown)
            base = self.bases.setdefault(key(view), value)
            changed = differs(base, value)
            found[key(view)] = {} if changed is SAME else changed
        return found


def key(view: View) -> str:
    """Return how a site calls a map of importance: atlas and method."""
    return f"{view.atlas}|{view.method}"


def views(bench: Workbench, request: Request, methods: tuple[str, ...]) -> tuple[View, ...]:
    """Return a view for every atlas of a subject and every method."""
    voxels = bench.catalogue.trials(request.dataset, request.subject).subject.voxels
    atlases = list(voxels.parcellations) or [""]
    return tuple(View(atlas=atlas, method=method) for atlas in atlases for method in methods)


def trial_value(bench: Workbench, request: Request) -> tuple[dict[str, Any], list[Frame]]:
    """Return the page's trial view of a request, finished, and its pictures."""
    drawn = trial.drawn_request(request, bench)
    value = trial.opening(request, bench)
    cells, frames = list(value["cells"]), []
    for frame in reconstruct(bench, drawn):
        if frame.done:
            frames.append(frame)
            near = trial.neighbours(frame, drawn, bench) if frame.neighbours else ()
            place = trial.place(drawn, frame)
            cells[place] = trial.with_frame(cells[place], frame, near)
    reason = undecoded(bench, request)
    found = {} if reason else {"decoding": trial.decoded(decode(bench, request), request, bench)}
    made = cells[0]["made"]
    told = f"{request.generator}, {request.steps} steps, seed {request.seed}"
    shown = {
        **value,
        **found,
        "cells": cells,
        "progress": trial.progress("done", reason or (told if made == "generated" else ""), 1.0),
        "attention": trial.attention(None, request, View()),
        "badges": [] if reason else badges(bench, request),
        "map_waits": False,
        "link": links.query(request, View()),
    }
    return shown, frames


def parcel_table(bench: Workbench, request: Request, view: View) -> pd.DataFrame:
    """Return a trial's numbers of every parcel, as the page exports them; empty without a map."""
    if unexplained(bench, request):
        return pd.DataFrame()
    return parcel_importance(bench, request, view).table


def numbered(table: pd.DataFrame) -> np.ndarray:
    """Return which columns of a table change with the trial."""
    return np.array([kind.kind == "f" for kind in table.dtypes], dtype=bool)


def evidence(
    name: str, show: Callable[..., Parts], bench: Workbench, request: Request, view: View
) -> dict[str, Any]:
    """Return the evidence ``name`` of a trial, finished, as the page's section shows it."""
    content: dict[str, Any] = {}
    sentence = ""
    try:
        for content, _, _ in show(bench, request, view):  # noqa: B007
            pass
    except UserError as error:
        sentence = str(error)
    return {
        "panel": name,
        "state": "none" if sentence else "done",
        "question": QUESTIONS[name],
        "sentence": sentence,
        "settings": {},
        "content": content or None,
        "progress": trial.progress("done", "", 1.0),
    }


def controls_of(bench: Workbench, request: Request, view: View) -> dict[str, Any]:
    """Return the controls of a trial, from the same seed."""
    return evidence("controls", controls_view, bench, request, view)
