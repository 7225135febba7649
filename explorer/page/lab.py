"""The evidence below a trial: one question at a time, computed when it is opened."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gradio as gr

from explorer import stopping
from explorer.drawing import seconds_needed
from explorer.evidence import comparison, controls, critics, curves, group, statistics
from explorer.evidence.own import own_mappers
from explorer.page import (
    about,
    lab_choices,
    lab_pairs,
    lab_parcel,
    lab_tables,
    lab_trial,
    links,
    own,
    sheet,
    trial,
)
from explorer.page.endpoint import hung_up, who
from explorer.page.session import Session
from explorer.page.turns import Turns
from explorer.request import PANELS, Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

Updates = dict[Any, Any]
Show = Callable[["Workbench", Request, View], lab_trial.Parts]
"""A view sends what it has so far, what comes next, and the share of its work that is done."""

VIEWS: dict[str, Show] = {
    "controls": lab_trial.controls_view,
    "lesion": lab_trial.lesion_view,
    "compare": lab_pairs.compare_view,
    "curve": lab_pairs.curve_view,
    "drivers": lab_parcel.drivers_view,
    "steps": lab_parcel.steps_view,
    "statistics": lab_tables.statistics_view,
    "evaluation": lab_tables.evaluation_view,
    "critique": lab_tables.critique_view,
    "own": own.own_view,
    "identity": lab_tables.identity_view,
    "sheet": sheet.sheet_view,
}
SETTINGS: dict[str, Callable[[Workbench, Request, View], dict[str, Any]]] = {
    "lesion": lab_trial.lesion_settings,
    "compare": lab_pairs.compare_settings,
    "drivers": lab_parcel.drivers_settings,
    "steps": lab_parcel.steps_settings,
    "statistics": lab_tables.statistics_settings,
    "own": own.own_settings,
}
# Pictures, or for the curve sweeps, that a view draws at most.
PICTURES = {
    "controls": len(controls.CONTROLS),
    "lesion": 2,
    "compare": 2 + 2 * comparison.SAMPLE,
    "curve": curves.SEEDS + curves.SAMPLE,
    "steps": 3,  # two, and a decoding a step
}
# How many first parts of a view need no model, so that they wait for nobody.
FREE = {"identity": math.inf, "sheet": sheet.WITHOUT_MODEL}
TELLING = 2.0  # seconds of work after which the time that is left is told
DRAWN = {"src", "images", "truth", "brains", "maps", "targets"}


class Lab:
    """The section's event handlers over one workbench; what a browser has lies in its `Session`.

    Parameters
    ----------
    workbench
        Answers every question.
    ui
        The page's components by name.
    turns
        Whose turn it is at the models.
    """

    def __init__(self, workbench: Workbench, ui: SimpleNamespace, turns: Turns) -> None:
        self.workbench, self.ui, self.turns = workbench, ui, turns

    def renew(self, session: Session) -> Updates:
        """Return the section for what the session shows now: nothing is computed here.

        The browser asks for the work where there is some. Work that runs for an earlier choice
        ends at its next part, so that the pictures above do not wait for it.
        """
        request, view = session.request, session.view
        key = (*decided_by(request, view), session.own_at if view.panel == "own" else 0)
        if key == session.lab.key and session.lab.shown.get("state") not in ("waiting", "running"):
            return {}
        session.lab.begin(key, self._frame(request, view))
        return {self.ui.lab: session.lab.shown}

    def choose(self, session: Session, event: gr.EventData) -> Updates:
        """Open another view, or change what an open one is of."""
        if session.request is None:
            return {}
        wanted = {k: str(v) for k, v in event._data.items() if k in links.VIEW_KEYS}
        notices: list[str] = []
        try:
            if "picture" in event._data:
                own.receive(session, event._data["picture"])
        except UserError as error:
            notices.append(str(error))
        opened = wanted.get("panel")
        if opened:
            session.sheet = None
        if opened == lab_choices.NONE:
            wanted["panel"] = ""
            session.view = replace(session.view, panel="")
        asked = {key: value for key, value in wanted.items() if value}
        if asked.pop("parcel", "") in lab_choices.lesionable(
            self.workbench, session.request, session.view.atlas
        ):
            session.view = replace(session.view, parcel=wanted["parcel"])
        session.view = lab_choices.settle(
            asked, self.workbench, session.request, session.view, notices
        )
        masthead = about.masthead(self.workbench, session.request, session.view)
        updates = {self.ui.masthead: masthead, **self.renew(session)}
        if notices:
            updates[self.ui.notices] = {"notices": notices, "at": time.time()}
        return updates

    def stop(self, session: Session) -> Updates:
        """End what runs and keep what is finished."""
        session.lab.stop()
        return {self.ui.lab: session.lab.shown}

    def again(self, session: Session) -> Updates:
        """Go on with what was stopped; what was made is kept."""
        session.lab.begin(session.lab.key, {**session.lab.shown, "state": "waiting"})
        return {self.ui.lab: session.lab.shown}

    def draw(self, session: Session, event: gr.EventData) -> Updates:
        """Draw the pictures of all trials that are not there yet, at the scale that was asked."""
        if session.request is None or session.view.panel != "sheet":
            return {}
        try:
            (scale,) = links.parse_scales(str(event._data.get("scale", "")))
        except (UserError, ValueError):
            return {}
        key = decided_by(session.request, session.view)
        session.sheet = sheet.Drawing(key, scale)
        session.lab.begin(session.lab.key, {**session.lab.shown, "state": "waiting"})
        return {self.ui.lab: session.lab.shown}

    def told(self, session: Session) -> dict[str, Any] | None:
        """Return what the open view shows in words and numbers, for a record; None for nothing."""
        shown = session.lab.shown
        if not shown.get("content"):
            return None
        content = _plain(shown["content"])
        if shown["panel"] == "sheet":  # hundreds of rows, which are no part of one trial's record
            content.pop("trials", None)
        return {"panel": shown["panel"], "state": shown["state"], **content}

    def work(self, session: Session) -> Iterator[Updates]:
        """Compute the open view and send each part when it is there."""
        free = session.view.panel in FREE
        # The pictures above come first, but before what needs no model.
        if session.request is None or (session.wanted and not free):
            return
        ticket = session.lab.take()
        if ticket is None:
            return
        request, view = session.request, session.view
        try:
            with contextlib.closing(self._affordable(session, request, view)) as parts:
                yield from self._parts(session, ticket, view.panel, parts)
            if session.lab.show(ticket, state="done", progress=trial.progress("done", "", 1.0)):
                session.sheet = None  # what was asked for is there; more is asked for anew
                yield {self.ui.lab: session.lab.shown}
        except stopping.StoppedError:
            return
        except UserError as error:
            if session.lab.show(ticket, state="none", sentence=str(error)):
                yield {self.ui.lab: session.lab.shown}
        except Exception:
            # A bug: the log gets the traceback from Gradio, the page must not look busy for ever.
            told = "This failed for a reason that the app's log gives."
            if session.lab.show(ticket, state="none", sentence=told):
                yield {self.ui.lab: session.lab.shown}
            raise

    def _affordable(self, session: Session, request: Request, view: View) -> lab_trial.Parts:
        """Compute a view within the budget; on the owner's own machine, as long as it takes.

        There the time left is told and it can be stopped.
        """
        if not self.turns.budget.asks and (view.panel != "own" or own.kept(session)):
            expected = 0.0
            with contextlib.suppress(UserError):  # what cannot be had says so itself
                expected = seconds_expected(self.workbench, request, view)
            if refusal := self.turns.budget.refusal(expected):
                raise UserError(refusal)
        also = (own.kept(session),) if view.panel == "own" else ()
        if view.panel == "sheet":
            wish = session.sheet
            wanted = wish is not None and wish.key == decided_by(request, view)
            also = (self.turns.budget, wish if wanted else None)
        yield from VIEWS[view.panel](self.workbench, request, view, *also)

    def _parts(
        self, session: Session, ticket: int, panel: str, parts: lab_trial.Parts
    ) -> Iterator[Updates]:
        """Send each part when it is there; between two of them others have their turn."""
        spent, asking = 0.0, (who(session), panel)
        for number in itertools.count():
            free = number < FREE.get(panel, 0)
            turn = None if free else self.turns.ask(*asking, (id(session), panel))
            try:
                while turn is not None and not self.turns.wait(turn):
                    told = trial.progress("running", self.turns.told(turn))
                    if not session.lab.show(ticket, progress=told):
                        return
                    yield {self.ui.lab: session.lab.shown}
                began = stopping.clock()
                shared = contextlib.nullcontext() if turn is None else self.turns.shared(turn)
                with stopping.until(lambda: session.lab.ticket != ticket or hung_up()), shared:
                    part = next(parts, None)
                spent += stopping.clock() - began
            finally:
                if turn is not None:
                    self.turns.leave(turn)
            if part is None:
                return
            content, text, fraction = part
            if spent > TELLING and 0 < fraction < 1:
                text = f"{text}, {trial.duration(spent * (1 - fraction) / fraction)} left"
            progress = trial.progress("running", text, fraction)
            if not session.lab.show(ticket, content=content, progress=progress):
                return
            yield {self.ui.lab: session.lab.shown}

    def _frame(self, request: Request, view: View) -> dict[str, Any]:
        """Return the open view before anything is computed."""
        frame = {
            "panel": view.panel,
            "offered": [name for name in PANELS if name in VIEWS],
            "state": "waiting" if view.panel in VIEWS else "off",
            "question": lab_choices.QUESTIONS.get(view.panel, ""),
            "sentence": "",
            "settings": {},
            "content": None,
            "progress": trial.progress("waiting", "Waiting for the pictures above…"),
        }
        if view.panel in SETTINGS:
            frame["settings"] = SETTINGS[view.panel](self.workbench, request, view)
        return frame


def seconds_expected(bench: Workbench, request: Request, view: View) -> float:
    """Return about how long a view computes that is not there yet; 0 where nothing is drawn."""
    if view.panel == "statistics":
        over = group if view.people == "group" else statistics
        return over.seconds_needed(bench, request, view)
    if view.panel == "critique":
        return critics.seconds_needed(bench, request)
    pictures = PICTURES.get(view.panel, 0)
    if view.panel == "own":
        pictures = len(own_mappers(bench, request))
    if not request.generator or not pictures:
        return 0.0
    alone = replace(request, scales=request.scales[:1], axis="", values=(), samples=1)
    several = replace(request, axis="", values=(), samples=1) if view.panel == "curve" else alone
    fresh = replace(several, seed=(several.seed + 1) % 2**31)  # of which no picture is kept
    return pictures * seconds_needed(bench, fresh)


def _plain(value: Any) -> Any:
    """Return values without what is only drawn: pictures, surfaces, and tables that are files."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k not in DRAWN}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def decided_by(request: Request, view: View) -> tuple:
    """Return what the open view depends on: two equal tuples are the same view."""
    shown = view.method, view.target, view.atlas, view.measure
    place = request.dataset, request.subject, request.mapper, request.generator, request.space
    lesion = view.gain, view.fill, view.donor
    of = {
        "controls": (request,),
        "lesion": (request, *shown, view.parcels, *lesion),
        "compare": (request, *shown, view.against),
        "curve": (request,),
        "drivers": (*place, view.atlas, view.parcel),
        "steps": (request, view.atlas, view.parcels, view.parcel, *lesion),
        "statistics": (*place, request.repeats, *shown, view.people),
        "evaluation": (*place, request.stimulus),
        "critique": (*place, request.repeats),
        "own": (replace(request, stimulus="", repeats=()), view.atlas),
        "identity": (request.dataset, request.subject, request.stimulus, request.repeats),
        "sheet": (replace(request, stimulus="", samples=1, axis="", values=()),),
    }
    return (view.panel, *of.get(view.panel, ()))
