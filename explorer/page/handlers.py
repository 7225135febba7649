"""What happens when somebody chooses something. A `UserError` becomes a sentence on the page."""

from __future__ import annotations

import base64
import functools
import time
from collections.abc import Callable
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import gradio as gr
import numpy as np

from explorer.page import about, arrivals, brain, export, lab_choices, links, pickers, trial
from explorer.page.choices import Choices, opened, settle
from explorer.page.endpoint import who
from explorer.page.lab import Lab
from explorer.page.lecture import Lecture
from explorer.page.session import Session
from explorer.page.turns import Turns
from explorer.page.working import Work, notices
from explorer.records import changes, from_record
from explorer.request import Request, View
from explorer.types import UserError
from explorer.watching import Watch

if TYPE_CHECKING:
    from explorer.workbench import Workbench

Updates = dict[Any, Any]


def told(handler: Callable[..., Updates]) -> Callable[..., Updates]:
    """Turn a `UserError` of a handler into a notice, and leave everything else as it was.

    Fields that were typed into show again what is in force. One choice of a browser is taken
    after the other, so that each of ten quick clicks counts.
    """

    @functools.wraps(handler)
    def guarded(self: Handlers, session: Session, *args: Any) -> Updates:
        with session.steering:
            try:
                # an empty dict would be taken for the value of the first component
                return handler(self, session, *args) or {self.ui.notices: gr.skip()}
            except UserError as error:
                updates = {self.ui.notices: notices(str(error))}
                if session.request is not None:
                    updates |= pickers.numbers(self.ui, self.workbench, session.request)
                return updates

    return guarded


class Handlers:
    """The page's event handlers over one workbench; per-browser state comes in as `Session`.

    Parameters
    ----------
    workbench
        Answers every question about data and models.
    ui
        The page's components by name.
    plotly
        Where the browser finds plotly's script.
    turns
        Whose turn it is at the models, and how long one request may compute.
    watch
        Of the data set to which trials are added.
    """

    def __init__(
        self,
        workbench: Workbench,
        ui: SimpleNamespace,
        plotly: str,
        turns: Turns | None = None,
        watch: Watch | None = None,
    ) -> None:
        turns, self.watch = turns or Turns(), watch
        self.workbench, self.ui, self.plotly, self.turns = workbench, ui, plotly, turns
        self.lab, self.lecture = Lab(workbench, ui, turns), Lecture(workbench, ui, turns)
        self.work = Work(workbench, ui, plotly, turns).run

    # ------------------------------------------------------------------------------ opening, links

    @told
    def open_link(self, session: Session, request: gr.Request) -> Updates:
        """Show what the address asks for; a random trial where it asks for nothing."""
        wanted = arrivals.opening(self.watch, self.workbench, dict(request.query_params))
        return self._show(session, opened(wanted, self.workbench), everything=True)

    arrive = told(arrivals.arrive)

    @told
    def open_place(self, session: Session, event: gr.EventData) -> Updates:
        """Show what the address asks for after the browser went back or on."""
        wanted = dict(parse_qsl(str(event._data.get("query", "")).removeprefix("?")))
        self._request(session)
        return self._show(session, settle(wanted, self.workbench), everything=True)

    @told
    def open_record(self, session: Session, event: gr.EventData) -> Updates:
        """Show what an exported JSON record holds."""
        record = links.parse_record(str(event._data.get("text", "")))
        request, view = from_record(record)
        wanted = dict(parse_qsl(links.query(request, view)))
        choices = settle(wanted, self.workbench)
        if choices.request == request:
            choices = replace(
                choices, notices=(*choices.notices, *changes(self.workbench, record))
            )
        return self._show(session, choices, everything=True)

    # ----------------------------------------------------------------------------------- the trial

    @told
    def go_back(self, session: Session) -> Updates:
        """Show the previous stimulus of the gallery."""
        return self._walk(session, -1)

    @told
    def go_on(self, session: Session) -> Updates:
        """Show the next stimulus of the gallery."""
        return self._walk(session, +1)

    def _walk(self, session: Session, by: int) -> Updates:
        rows = trial.stimuli(self.workbench, self._request(session), session.view.category)
        return self._change(session, trial=trial.step(rows.index, session.request.stimulus, by))

    @told
    def go_anywhere(self, session: Session) -> Updates:
        """Show a random stimulus of the gallery, another than now."""
        rows = trial.stimuli(self.workbench, self._request(session), session.view.category)
        others = [s for s in rows.index if s != session.request.stimulus]
        if not others:
            return {}
        return self._change(session, trial=str(np.random.default_rng().choice(others)))

    @told
    def go_to(self, session: Session, event: gr.EventData) -> Updates:
        """Show the stimulus that was clicked."""
        return self._change(session, trial=str(event._data.get("stimulus", "")))

    @told
    def go_again(self, session: Session) -> Updates:
        """Go on with a sweep that was stopped, or begin one that takes long."""
        session.allowed = session.request
        return self._show(session, Choices(self._request(session), session.view))

    @told
    def take_number(self, session: Session, number: float | None) -> Updates:
        """Show the stimulus with this number in the gallery."""
        request = self._request(session)
        rows = self.workbench.catalogue.gallery(request.dataset, request.subject)
        wanted = links.parse_whole(number, "The number of a trial")
        if not 1 <= wanted <= len(rows):
            raise UserError(
                f"Trials of {request.dataset}/{request.subject} have the numbers 1 to "
                f"{len(rows)}, found {wanted}."
            )
        return self._change(session, trial=str(rows.index[wanted - 1]))

    @told
    def take_category(self, session: Session, category: str | None) -> Updates:
        """Show the stimuli of one category in the gallery."""
        session.view = replace(session.view, category=category or "")
        rows = trial.stimuli(self.workbench, self._request(session), session.view.category)
        session.page = trial.page_of(rows, session.request.stimulus)
        return {
            self.ui.gallery: self._gallery(session),
            self.ui.masthead: self._masthead(session),
        }

    @told
    def turn_page(self, session: Session, event: gr.EventData) -> Updates:
        """Show another page of the gallery."""
        self._request(session)
        session.page = max(0, links.parse_whole(event._data.get("page"), "The page"))
        return {self.ui.gallery: self._gallery(session)}

    # --------------------------------------------------------------------------------- the decoder

    @told
    def take(self, session: Session, text: str | None, key: str) -> Updates:
        """Show a key of the link with another value; an empty text is told, not passed over."""
        return self._change(session, **{key: text or " "})

    @told
    def take_dataset(self, session: Session, dataset: str) -> Updates:
        """Show a random trial of another study."""
        session.view = replace(session.view, category="")
        return self._change(session, data=dataset)

    @told
    def take_scales(self, session: Session, text: str) -> Updates:
        """Draw at other guidance scales."""
        return self._replace(session, scales=links.parse_scales(text))

    @told
    def take_steps(self, session: Session, steps: float | None) -> Updates:
        """Draw with another number of steps."""
        return self._replace(session, steps=links.parse_whole(steps, "The number of steps"))

    @told
    def take_seed(self, session: Session, seed: float | None) -> Updates:
        """Draw from another seed."""
        return self._replace(session, seed=links.parse_whole(seed, "The seed"))

    @told
    def take_option(self, session: Session, event: gr.EventData) -> Updates:
        """Set one option of the generator."""
        name, value = (str(event._data.get(key, "")) for key in ("name", "value"))
        return self._change(session, **{links.OPTION + name: value or " "})

    @told
    def take_rois(self, session: Session, names: list[str] | None) -> Updates:
        """Let the betas of these parcels guide, of all voxels where none is chosen."""
        request, rois = self._request(session), tuple(names or ())
        atlas = request.roi_atlas if request.rois else session.view.atlas
        return self._replace(session, rois=rois, roi_atlas=atlas if rois else "")

    # ----------------------------------------------------------------------------------- the brain

    @told
    def look(self, session: Session, event: gr.EventData) -> Updates:
        """Show the evidence in another way; another map, method, target or atlas means work.

        So does an overlay of the shown image.
        """
        known = {f.name for f in fields(View)}
        change = {k: str(v) for k, v in event._data.items() if k in known}
        before, session.view = session.view, replace(session.view, **change)
        if brain.means_work(change, before, session.view):
            session.wanted = True
        updates: Updates = {self.ui.masthead: self._masthead(session)}
        if "atlas" in change:
            request = self._request(session)
            updates[self.ui.rois] = pickers.rois(self.workbench, request, session.view)
        if "attention" in change:
            session.wanted = True
            waits = trial.attention(None, self._request(session), session.view)
            session.show(session.ticket, attention=waits)
            updates[self.ui.trial] = session.shown
        return updates | self.lab.renew(session)

    @told
    def pick_parcel(self, session: Session, event: gr.EventData) -> Updates:
        """Keep the parcel that was clicked in the link; a view may be of it."""
        parcel = str(event._data.get("parcel", ""))
        session.view = replace(session.view, parcel=parcel)
        if session.view.panel == "steps" and session.request is not None:
            session.view = lab_choices.lesion_only(
                parcel, self.workbench, session.request, session.view
            )
        return {self.ui.masthead: self._masthead(session), **self.lab.renew(session)}

    def stop(self, session: Session) -> Updates:
        """Stop the sweep and keep its finished pictures."""
        session.stop()
        if not session.shown:
            return {self.ui.trial: gr.skip()}
        cells = [trial.stopped(cell) for cell in session.shown["cells"]]
        done = sum(cell["state"] == "done" for cell in cells)
        progress = trial.progress("stopped", f"Stopped: {done} of {len(cells)} finished")
        session.show(session.ticket, cells=cells, progress=progress)
        return {self.ui.trial: session.shown}

    def export(self, session: Session, event: gr.EventData) -> Updates:
        """Send the present trial as a file for the browser to save."""
        form = str(event._data.get("format", ""))
        file: dict[str, Any] = {"id": time.time()}
        updates: Updates = {}
        try:
            request, told = self._request(session), self.lab.told(session)
            made = _made(self.workbench, self.turns, session, request, form, told)
            data = base64.b64encode(made.content).decode("ascii")
            file |= {"name": made.name, "mime": made.mime, "data": data}
        except UserError as error:
            updates[self.ui.notices] = notices(str(error))
        return {self.ui.masthead: {**self._masthead(session), "file": file}, **updates}

    # ------------------------------------------------------------------------------------- showing

    def _request(self, session: Session) -> Request:
        if session.request is None:
            if session.given_up:
                raise UserError(
                    "This page was left for so long that its place was given to others; reload "
                    "it to go on: its address holds what was shown."
                )
            raise UserError("The page is still opening; try again in a moment.")
        return session.request

    def _change(self, session: Session, **wanted: str) -> Updates:
        """Show the present choices with some of them changed, as a link would."""
        before = self._request(session)
        choices = settle(wanted, self.workbench, Choices(before, session.view))
        if choices.request == before and not choices.notices:
            return {}
        return self._show(session, choices, everything="trial" not in wanted)

    def _replace(self, session: Session, **fields_: Any) -> Updates:
        request = replace(self._request(session), **fields_)
        if request == session.request:
            return {self.ui.notices: notices()}
        return self._show(session, Choices(request, session.view))

    def _show(self, session: Session, choices: Choices, everything: bool = False) -> Updates:
        """Put choices on the page at once (no model is asked) and want their pictures."""
        before, request = session.request, choices.request
        looks_other = (
            before is None
            or (before.dataset, before.subject) != (request.dataset, request.subject)
            or choices.view != session.view
        )
        session.request, session.view, session.drawn = request, choices.view, None
        waits = brain.decided_by(request, choices.view) != session.mapped
        opening = trial.opening(request, self.workbench)
        attention = trial.attention(None, request, choices.view)
        session.begin({**opening, "attention": attention, "map_waits": waits})
        rows = trial.stimuli(self.workbench, request, session.view.category)
        session.page = trial.page_of(rows, request.stimulus)
        ui = self.ui
        gallery = self.workbench.catalogue.gallery(request.dataset, request.subject)
        updates: Updates = {
            ui.masthead: self._masthead(session),
            ui.notices: notices(*choices.notices),
            ui.trial: session.shown,
            ui.number: int(gallery.loc[request.stimulus, "number"]),
            ui.repeats: pickers.repeats(self.workbench, request),
            **self.lab.renew(session),
            **self.lecture.renew(session),
        }
        if session.gallery != _gallery_page(session):
            updates[ui.gallery] = self._gallery(session)
        if not everything and before is not None:
            return updates
        updates |= pickers.offers(ui, self.workbench, request, choices.view)
        if looks_other:
            session.mapped = ()
            updates[ui.brain] = brain.frame(request, choices.view, self.workbench, self.plotly)
        return updates

    def _gallery(self, session: Session) -> dict[str, Any]:
        session.gallery = _gallery_page(session)
        rows = trial.stimuli(self.workbench, session.request, session.view.category)
        return trial.gallery(self.workbench, session.request, rows, session.page)

    def _masthead(self, session: Session) -> dict[str, Any]:
        return about.masthead(self.workbench, session.request, session.view)


def _gallery_page(session: Session) -> tuple:
    request = session.request
    return request.dataset, request.subject, session.view.category, session.page


def _made(
    workbench: Workbench,
    turns: Turns,
    session: Session,
    request: Request,
    form: str,
    told: dict[str, Any] | None,
) -> export.File:
    """Return a file; one that holds only what is on the screen waits for no model."""
    if export.is_there(workbench, request, session.view, form):
        return export.make(workbench, request, session.view, form, told)
    with turns.held(who(session), "export"):
        return export.make(workbench, request, session.view, form, told)
