"""What happens when somebody chooses something. A `UserError` becomes a sentence on the page."""

from __future__ import annotations

import base64
import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import gradio as gr
import numpy as np

from explorer.brain.maps import shown_map
from explorer.choosing import check_request
from explorer.decoding import decode, undecoded, unexplained
from explorer.drawing import draw_samples, finished_pictures, reconstruct, seconds_needed
from explorer.page import brain, export, links, pickers, trial
from explorer.page.badges import badges
from explorer.page.choices import Choices, settle
from explorer.page.lab import Lab
from explorer.page.lecture import Lecture
from explorer.page.session import Session
from explorer.records import changes, from_record
from explorer.request import IMPORTANCE, Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.drawing import Frame
    from explorer.workbench import Workbench

Updates = dict[Any, Any]
PREVIEW_SECONDS = 0.2  # between previews: fast enough to watch, slow enough for a phone


def told(handler: Callable[..., Updates]) -> Callable[..., Updates]:
    """Turn a `UserError` of a handler into a notice, and leave everything else as it was."""

    @functools.wraps(handler)
    def guarded(self: Handlers, *args: Any) -> Updates:
        try:
            # an empty dict would be taken for the value of the first component
            return handler(self, *args) or {self.ui.notices: gr.skip()}
        except UserError as error:
            return {self.ui.notices: notices(str(error))}

    return guarded


def notices(*sentences: str) -> dict[str, Any]:
    """Return what the notices show; the time makes an equal sentence appear again."""
    return {"notices": list(sentences), "at": time.time()}


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
    """

    def __init__(self, workbench: Workbench, ui: SimpleNamespace, plotly: str) -> None:
        self.workbench, self.ui, self.plotly = workbench, ui, plotly
        self.lab, self.lecture = Lab(workbench, ui), Lecture(workbench, ui)

    # ------------------------------------------------------------------------------ opening, links

    @told
    def open_link(self, session: Session, request: gr.Request) -> Updates:
        """Show what the address asks for; a random trial where it asks for nothing."""
        wanted = dict(request.query_params)
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
        rows = trial.stimuli(self.workbench, self._request(session), session.category)
        return self._change(session, trial=trial.step(rows.index, session.request.stimulus, by))

    @told
    def go_anywhere(self, session: Session) -> Updates:
        """Show a random stimulus of the gallery, another than now."""
        rows = trial.stimuli(self.workbench, self._request(session), session.category)
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
        """Go on with a sweep that was stopped."""
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
        session.category = category or ""
        rows = trial.stimuli(self.workbench, self._request(session), session.category)
        session.page = trial.page_of(rows, session.request.stimulus)
        return {self.ui.gallery: self._gallery(session)}

    @told
    def turn_page(self, session: Session, event: gr.EventData) -> Updates:
        """Show another page of the gallery."""
        self._request(session)
        session.page = max(0, links.parse_whole(event._data.get("page"), "The page"))
        return {self.ui.gallery: self._gallery(session)}

    # --------------------------------------------------------------------------------- the decoder

    @told
    def take_dataset(self, session: Session, dataset: str) -> Updates:
        """Show a random trial of another study."""
        session.category = ""
        return self._change(session, data=dataset)

    @told
    def take_subject(self, session: Session, subject: str) -> Updates:
        """Show the same stimulus as another subject saw it."""
        return self._change(session, subject=subject)

    @told
    def take_mapper(self, session: Session, mapper: str) -> Updates:
        """Decode with another mapper."""
        return self._change(session, mapper=mapper)

    @told
    def take_generator(self, session: Session, generator: str) -> Updates:
        """Draw with another generator."""
        return self._change(session, generator=generator)

    @told
    def take_scales(self, session: Session, text: str) -> Updates:
        """Draw at other guidance scales."""
        scales = links.parse_scales(text)
        return self._replace(session, scales=scales)

    @told
    def take_steps(self, session: Session, steps: float | None) -> Updates:
        """Draw with another number of steps."""
        return self._replace(session, steps=links.parse_whole(steps, "The number of steps"))

    @told
    def take_seed(self, session: Session, seed: float | None) -> Updates:
        """Draw from another seed."""
        return self._replace(session, seed=links.parse_whole(seed, "The seed"))

    @told
    def take_space(self, session: Session, space: str) -> Updates:
        """Decode another of the mapper's targets."""
        return self._change(session, space=space)

    @told
    def take_repeats(self, session: Session, repeats: str) -> Updates:
        """Decode one repeat, or the average of all."""
        return self._change(session, repeats=repeats)

    @told
    def take_samples(self, session: Session, samples: str) -> Updates:
        """Draw so many samples of the mapper beside the sweep, or none."""
        return self._change(session, samples=samples)

    @told
    def take_axis(self, session: Session, axis: str) -> Updates:
        """Vary the seed or an option from row to row, or draw one row."""
        return self._change(session, axis=axis)

    @told
    def take_values(self, session: Session, text: str) -> Updates:
        """Draw a row for each of these values."""
        return self._change(session, values=text or " ")

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
        session.view = replace(session.view, **change)
        if {"shows", "method", "target", "atlas"} & set(change):
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
        """Keep the parcel that was clicked in the link."""
        session.view = replace(session.view, parcel=str(event._data.get("parcel", "")))
        return {self.ui.masthead: self._masthead(session)}

    # ------------------------------------------------------------------------------------- working

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

    def work(self, session: Session) -> Iterator[Updates]:
        """Decode, map and draw what the session wants, and send each thing when it is there."""
        if not session.wanted or session.request is None:
            return
        session.wanted = False
        ticket, request, view = session.ticket, session.request, session.view
        try:
            # A map of the subject's voxels needs no model, so it does not wait for one.
            first = [self._decode, self._map]
            first = first if view.shows == IMPORTANCE else first[::-1]
            for part in (*first, self._attend, self._sweep, self._badges):
                yield from part(session, ticket, request, view)
        except UserError as error:
            yield self._failed(session, ticket, str(error))
        except Exception:
            # A bug: the log gets the traceback from Gradio, the page must not look busy for ever.
            yield self._failed(
                session, ticket, "This failed for a reason that the app's log gives."
            )
            raise
        problems = [p for p in self.workbench.catalogue.problems() if p not in session.told]
        if problems and session.ticket == ticket:
            session.told.update(problems)
            yield {self.ui.notices: notices(*problems)}

    def export(self, session: Session, event: gr.EventData) -> Updates:
        """Send the present trial as a file for the browser to save."""
        form = str(event._data.get("format", ""))
        file: dict[str, Any] = {"id": time.time()}
        updates: Updates = {}
        try:
            request, told = self._request(session), self.lab.told(session)
            made = export.make(self.workbench, request, session.view, form, told)
            data = base64.b64encode(made.content).decode("ascii")
            file |= {"name": made.name, "mime": made.mime, "data": data}
        except UserError as error:
            updates[self.ui.notices] = notices(str(error))
        return {self.ui.masthead: {**self._masthead(session), "file": file}, **updates}

    def _failed(self, session: Session, ticket: int, text: str) -> Updates:
        """Say why nothing more comes, unless something else is shown by now."""
        if not session.show(ticket, progress=trial.progress("failed", text)):
            return {}
        if brain.decided_by(session.request, session.view) == session.mapped:
            return {self.ui.trial: session.shown}  # the map was there before something failed
        session.mapped = ()
        place = brain.frame(session.request, session.view, self.workbench, self.plotly)
        return {
            self.ui.trial: session.shown,
            self.ui.brain: {**place, "state": "failed", "note": text},
        }

    def _decode(
        self, session: Session, ticket: int, request: Request, view: View
    ) -> Iterator[Updates]:
        """Send rank and neighbours, unless the browser has them already or there are none."""
        if session.drawn == request:
            return
        if request.generator and (reason := undecoded(self.workbench, request)):
            yield {self.ui.notices: notices(reason)}
            return
        decoding = trial.decoded(decode(self.workbench, request), request, self.workbench)
        if session.show(ticket, decoding=decoding):
            yield {self.ui.trial: session.shown}

    def _map(
        self, session: Session, ticket: int, request: Request, view: View
    ) -> Iterator[Updates]:
        """Send the brain, unless the browser has it already."""
        wanted = brain.decided_by(request, view)
        if wanted == session.mapped or session.ticket != ticket:
            return
        reason = unexplained(self.workbench, request) if view.shows == IMPORTANCE else ""
        if reason:
            session.mapped = wanted
            place = brain.frame(request, session.view, self.workbench, self.plotly)
            yield {self.ui.brain: {**place, "state": "failed", "note": reason}}
            return
        shown = shown_map(self.workbench, request, view)
        if session.ticket != ticket:
            return
        session.mapped = wanted
        place = brain.frame(request, session.view, self.workbench, self.plotly)
        yield {self.ui.brain: brain.filled(place, shown, request, view, self.workbench)}

    def _attend(
        self, session: Session, ticket: int, request: Request, view: View
    ) -> Iterator[Updates]:
        """Send what lies over the shown image, where that is wanted and not there yet."""
        if session.shown["attention"]["state"] != "waiting":
            return
        found = trial.attention(self.workbench, request, view)
        if session.show(ticket, attention=found):
            yield {self.ui.trial: session.shown}

    def _badges(
        self, session: Session, ticket: int, request: Request, view: View
    ) -> Iterator[Updates]:
        """Send what stands in the head, last, and once for a trial."""
        if "badges" in session.shown or session.ticket != ticket:
            return
        if undecoded(self.workbench, request):
            return
        if session.show(ticket, badges=badges(self.workbench, request)):
            yield {self.ui.trial: session.shown}

    def _sweep(
        self, session: Session, ticket: int, request: Request, view: View
    ) -> Iterator[Updates]:
        """Send pictures as they finish, previews a few times a second, and say how it ended."""
        if session.drawn == request or session.ticket != ticket:
            return
        drawn = trial.drawn_request(request, self.workbench)
        cells, fresh = list(session.shown["cells"]), {}
        check_request(self.workbench.catalogue, drawn)
        # to tell what is there and how long it takes, a generator is loaded and a step timed
        session.show(ticket, progress=trial.announced(0.0, 0.0, cells[0]["made"]))
        yield {self.ui.trial: session.shown}
        there = len(finished_pictures(self.workbench, drawn)) / len(cells)
        expected = seconds_needed(self.workbench, drawn) if there < 1 else 0.0
        if expected > trial.LONG:
            session.show(ticket, progress=trial.announced(expected, there, cells[0]["made"]))
            yield {self.ui.trial: session.shown}
        begun = last = time.monotonic()
        with contextlib.closing(reconstruct(self.workbench, drawn)) as frames:
            for frame in frames:
                if session.ticket != ticket:
                    return
                fresh[trial.place(drawn, frame)] = frame
                row = cells[trial.place(drawn, replace(frame, index=0)) :][: len(drawn.scales)]
                open_ = sum(cell["state"] != "done" for cell in row)
                # Previews of a batch come together: wait for the last of them, but not for long.
                wait = PREVIEW_SECONDS * (1 if len(fresh) == open_ else 4)
                if not frame.done and time.monotonic() - last < wait:
                    continue
                for index, newest in fresh.items():
                    cells[index] = self._filled(drawn, cells[index], newest)
                fresh.clear()
                last = time.monotonic()
                told = trial.running(cells, last - begun, there, expected)
                if not session.show(ticket, cells=list(cells), progress=told):
                    return
                yield {self.ui.trial: session.shown}
        if drawn.samples > 1:
            told = trial.progress("running", f"Drawing {drawn.samples} samples", 1.0)
            if not session.show(ticket, progress=told):
                return
            yield {self.ui.trial: session.shown}
            strip = trial.samples(drawn, self.workbench, draw_samples(self.workbench, drawn))
            if not session.show(ticket, samples=strip):
                return
        text = f"{len(cells)} finished in {time.monotonic() - begun:.1f} s"
        if session.show(ticket, progress=trial.progress("done", text, 1.0)):
            session.drawn = request
            yield {self.ui.trial: session.shown}

    def _filled(self, drawn: Request, cell: dict[str, Any], frame: Frame) -> dict[str, Any]:
        near = trial.neighbours(frame, drawn, self.workbench) if frame.neighbours else ()
        return trial.with_frame(cell, frame, near)

    # ------------------------------------------------------------------------------------- showing

    def _request(self, session: Session) -> Request:
        if session.request is None:
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
        if session.category not in trial.categories(self.workbench, request):
            session.category = ""
        rows = trial.stimuli(self.workbench, request, session.category)
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
        if session.gallery != self._gallery_page(session):
            updates[ui.gallery] = self._gallery(session)
        if not everything and before is not None:
            return updates
        updates |= pickers.offers(ui, self.workbench, request, choices.view, session.category)
        if looks_other:
            session.mapped = ()
            updates[ui.brain] = brain.frame(request, choices.view, self.workbench, self.plotly)
        return updates

    def _gallery_page(self, session: Session) -> tuple:
        request = session.request
        return request.dataset, request.subject, session.category, session.page

    def _gallery(self, session: Session) -> dict[str, Any]:
        session.gallery = self._gallery_page(session)
        rows = trial.stimuli(self.workbench, session.request, session.category)
        return trial.gallery(self.workbench, session.request, rows, session.page)

    def _masthead(self, session: Session) -> dict[str, Any]:
        return pickers.masthead(self.workbench, session.request, session.view)
