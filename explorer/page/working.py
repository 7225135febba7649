"""What is computed for a trial and sent as it is there: rank, map, overlay, pictures, badges."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from explorer import stopping
from explorer.brain.maps import is_mapped, shown_map
from explorer.choosing import check_request
from explorer.decoding import decode, is_decoded, undecoded, unexplained
from explorer.drawing import draw_samples, reconstruct, seconds_needed
from explorer.evidence.badges import badges, kept_badges
from explorer.finished import finished_pictures, is_drawn
from explorer.page import brain, trial
from explorer.page.endpoint import hung_up, who
from explorer.page.session import Session
from explorer.page.turns import PICTURES, Turns
from explorer.request import IMPORTANCE, Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.finished import Frame
    from explorer.workbench import Workbench

Updates = dict[Any, Any]
PREVIEW_SECONDS = 0.2  # between previews: fast enough to watch, slow enough for a phone


def notices(*sentences: str) -> dict[str, Any]:
    """Return what the notices show; the time makes an equal sentence appear again."""
    return {"notices": list(sentences), "at": time.time()}


def _at_once(parts: Sequence[Iterator[Updates]]) -> Updates:
    """Return the last that parts say of each component."""
    whole: Updates = {}
    for part in parts:
        for updates in part:
            whole |= updates
    return whole


class Work:
    """What answers a choice; see `Handlers`, whose parts these are."""

    def __init__(
        self,
        workbench: Workbench,
        ui: SimpleNamespace,
        plotly: str,
        turns: Turns,
    ) -> None:
        self.workbench, self.ui, self.plotly, self.turns = workbench, ui, plotly, turns

    def run(self, session: Session) -> Iterator[Updates]:
        """Decode, map and draw what the session wants, again while something is wanted."""
        while (taken := session.take()) is not None:
            yield from self._answer(session, *taken)
            self.turns.answered.set()

    def _answer(
        self, session: Session, ticket: int, request: Request, view: View
    ) -> Iterator[Updates]:
        asked = session, ticket, request, view
        try:
            # A map of the subject's voxels needs no model, so it does not wait for one.
            first = [self._decode, self._map]
            first = first if view.shows == IMPORTANCE else first[::-1]
            parts = [*first, self._attend, self._sweep, self._badges]
            if all(self._is_there(part, request, view) for part in parts):
                # each would bring all pictures again
                if whole := _at_once([part(*asked) for part in parts]):
                    yield whole
                parts = []
            for part in parts:
                if self._is_there(part, request, view):
                    yield from part(*asked)
                else:
                    yield from self._in_turn(session, ticket, part(*asked))
        except stopping.StoppedError:
            return
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

    def _is_there(self, part: Any, request: Request, view: View) -> bool:
        """Return whether a part only sends what is kept, so that it need not wait."""
        bench = self.workbench
        if part == self._decode:
            return is_decoded(bench, request)
        if part == self._map:
            return is_mapped(bench, request, view)
        if part == self._attend and view.attention == "off":
            return True
        if part == self._badges:
            return kept_badges(bench, request) is not None
        if part != self._sweep or not request.generator:
            return False
        return is_drawn(bench, trial.drawn_request(request, bench))

    def _in_turn(
        self, session: Session, ticket: int, part: Iterator[Updates]
    ) -> Iterator[Updates]:
        """Send a part while holding the models; say for whom it waits before that.

        Work that is no longer wanted ends at its next step.
        """
        turn = self.turns.ask(who(session), PICTURES, (id(session), PICTURES))
        try:
            while True:
                while not self.turns.wait(turn):
                    told = trial.progress("waiting", self.turns.told(turn))
                    if not session.show(ticket, progress=told):
                        return
                    yield {self.ui.trial: session.shown}
                with (
                    stopping.until(lambda: session.ticket != ticket or hung_up()),
                    self.turns.shared(turn),
                ):
                    updates = next(part, None)
                if updates is None:
                    return
                with self.turns.read(turn):
                    yield updates
                self.turns.pass_on(turn)
        finally:
            self.turns.leave(turn)

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
        ready = finished_pictures(self.workbench, drawn)
        if len(ready) == len(cells) and drawn.samples == 1:
            for frame in ready:
                at = trial.place(drawn, frame)
                cells[at] = self._filled(drawn, cells[at], frame)
            told = trial.kept(self.workbench, request, len(cells))
            if session.show(ticket, cells=cells, progress=told):
                session.drawn = request
                yield {self.ui.trial: session.shown}
            return
        # to tell what is there and how long it takes, a generator is loaded and a step timed
        session.show(ticket, progress=trial.announced(0.0, 0.0, cells[0]["made"]))
        yield {self.ui.trial: session.shown}
        there = len(ready) / len(cells)
        expected = seconds_needed(self.workbench, drawn) if there < 1 else 0.0
        budget = self.turns.budget
        agreed = budget.asks and session.allowed == request
        if (refusal := budget.refusal(expected)) and not agreed:
            if not budget.asks:
                raise UserError(refusal)
            asked = f"This takes {trial.duration(expected)}. Continue begins it."
            if session.show(ticket, progress=trial.progress("stopped", asked)):
                yield {self.ui.trial: session.shown}
            return
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
