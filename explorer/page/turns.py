"""Whose turn it is at the models: one question at a time, visitors in turn, trials first.

Models are not locked, so whoever asks one takes a turn. What needs no model never does. A turn is
given back between the parts of a long answer, and passed on between the steps of a part, so that
nobody waits for the end of another's long job.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from explorer import stopping
from explorer.types import UserError

PICTURES = "pictures"  # the trial above: it goes before evidence
PICTURES_LESS = "give fewer scales, steps, rows or samples"
MAPS_LESS = "choose another method, or begin the app with a larger budget"
STATISTICS_LESS = "give fewer permutations or another method"
LOADING = "loading"  # before anybody asked
USUAL = 5.0  # seconds, of a kind that was never timed; our choice
LOST = 30.0  # seconds after which a turn is taken from an answer that nobody reads any more
MOST_WAITING = 64  # places in the line; our choice
HUNG_UP = "Whoever asked has hung up, so nothing more is computed."
POLL = 0.4  # seconds between two looks at the queue, and so between two sentences
SLICE = 3.0  # seconds after which a job lets others in, and goes behind those that had less
EVIDENCE_SLICE = 0.2  # ... where evidence is at work and somebody waits for a trial
OVERDUE = 20.0  # seconds after which whoever waits is next, whatever for


@dataclass(frozen=True)
class Budget:
    """How long one request may compute, in seconds; a longer one is refused, or asked about.

    ``asks``: on the owner's own machine it begins once they say so. ``questions``: how many of one
    person's may wait or be at work together, 0 for any number.
    """

    seconds: float = 600.0
    asks: bool = False
    questions: int = 0

    def __post_init__(self) -> None:
        if self.questions < 0:
            raise UserError(f"--questions is a number of 0 or more, found {self.questions}.")

    def refusal(self, expected: float, less: str = PICTURES_LESS) -> str:
        """Return why a request is too long, one sentence that ends in what to do; "" if not.

        ``less``: what to ask instead.
        """
        if expected <= self.seconds:
            return ""
        return (
            f"This would compute for about {_span(expected)}, more than the {_span(self.seconds)} "
            f"that one request may take here (--budget); {less}."
        )


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


@dataclass(eq=False)
class Turn:
    """A place in the queue: who asks, for what kind of work, and since when it is at work.

    ``place``: what of one visitor counts once, as a later choice takes the place of an earlier
    one; None counts by itself. ``since``: when its wait began; ``spent``: seconds of earlier turns
    of the same work; ``paused``: since when its answer waits to be read, None while it computes.
    """

    visitor: Hashable
    kind: str
    number: int
    since: float
    place: Hashable = None
    begun: float | None = None
    spent: float = 0.0
    paused: float | None = None
    overdue: bool = False


class Turns:
    """The queue at the models of one workbench; kept fair by visitor, not by question.

    ``budget``: how long one request may compute.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self.answered = threading.Event()  # set once a visitor has the first trial
        self._free = threading.Condition()
        self._waiting: list[Turn] = []
        self._holder: Turn | None = None
        self._asked = 0
        self._last: dict[Hashable, int] = {}  # which turn a visitor had last
        self._seconds: dict[str, float] = {}  # how long a kind of work took lately

    def ask(self, visitor: Hashable, kind: str = PICTURES, place: Hashable = None) -> Turn:
        """Return a place in the queue; give it back with `leave`.

        Raises
        ------
        UserError
            When the queue is full, or this person has too many questions in it.
        """
        with self._free:
            if len(self._waiting) >= MOST_WAITING:
                raise UserError(
                    f"{len(self._waiting)} questions wait for the models already; try again in a "
                    "minute."
                )
            here = [self._holder] if self._holder is not None else []
            own = [w for w in (*here, *self._waiting) if w.visitor == visitor]
            places = {id(w) if w.place is None else w.place for w in own} - {place}
            if kind != LOADING and 0 < self.budget.questions <= len(places):
                raise UserError(
                    f"{len(places)} of your questions wait or are at work here already, as many "
                    "as one person may have (--questions); wait until one is answered, or cancel "
                    "it."
                )
            turn = Turn(visitor, kind, self._next_number(), time.monotonic(), place)
            self._waiting.append(turn)
            return turn

    def wait(self, turn: Turn, seconds: float = POLL) -> bool:
        """Wait at most so long, and return whether it is this one's turn."""
        until = time.monotonic() + seconds
        with self._free:
            while True:
                self._take_from_the_lost()
                if self._holder is None and self._next() is turn:
                    now = time.monotonic()
                    turn.overdue = now - turn.since > OVERDUE
                    self._waiting.remove(turn)
                    self._holder, turn.begun = turn, now
                    self._last[turn.visitor] = turn.number
                if self._holder is turn:
                    return True
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._free.wait(left)

    def pass_on(self, turn: Turn) -> bool:
        """Return whether a turn was given to somebody who should go first; then `wait` again."""
        with self._free:
            if self._holder is not turn or not self._waiting:
                return False
            now = time.monotonic()
            had = now - (turn.begun or now)
            first = min(self._waiting, key=lambda one: self._order(one, now))
            trial = first.kind == PICTURES != turn.kind and not turn.overdue
            if had < (EVIDENCE_SLICE if trial and first.spent < SLICE else SLICE):
                return False
            again = (turn.spent + had >= SLICE, turn.kind != PICTURES)
            if not self._is_overdue(first, now) and self._order(first, now)[1:3] > again:
                return False  # who had more waits on: this one is short
        self.set_aside(turn)
        self.line_up(turn)
        return True

    def set_aside(self, turn: Turn) -> bool:
        """Take the turn from work that needs it later; return whether it had it."""
        with self._free:
            if self._holder is not turn:
                return False
            now = time.monotonic()
            turn.spent += now - (turn.begun or now)
            turn.begun = self._holder = None
            self._free.notify_all()
            return True

    def line_up(self, turn: Turn) -> None:
        """Put work that goes on later behind those who wait and had less."""
        with self._free:
            turn.number, turn.since = self._next_number(), time.monotonic()
            self._last[turn.visitor] = turn.number
            self._waiting.append(turn)

    def _next_number(self) -> int:
        self._asked += 1
        return self._asked

    def leave(self, turn: Turn) -> None:
        """Give a place or a turn back; twice does no harm."""
        with self._free:
            if turn in self._waiting:
                self._waiting.remove(turn)
            if self._holder is turn:
                took = turn.spent + time.monotonic() - (turn.begun or 0.0)
                known = self._seconds.get(turn.kind, took)
                self._seconds[turn.kind] = 0.5 * (known + took)
                self._holder = None
            if len(self._last) > 1000:
                self._last = dict(sorted(self._last.items(), key=lambda one: one[1])[-100:])
            self._free.notify_all()

    @contextlib.contextmanager
    def held(
        self, visitor: Hashable, kind: str = PICTURES, gone: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Hold the models while the block runs, however long that waits.

        ``gone``: whether who asked has hung up meanwhile; then `UserError`.
        """
        turn = self.ask(visitor, kind)
        try:
            while not self.wait(turn):
                if gone():
                    raise UserError(HUNG_UP)
            with self.shared(turn):
                yield
        finally:
            self.leave(turn)

    def shared(self, turn: Turn) -> contextlib.AbstractContextManager[None]:
        """Let work in the block, which has the turn, be held up between two steps by others."""
        return stopping.letting_others(Between(self, turn))

    def loading(self) -> contextlib.AbstractContextManager[None]:
        """Hold the models to load what the first visitor will need."""
        return self.held(None, LOADING)

    @contextlib.contextmanager
    def read(self, turn: Turn) -> Iterator[None]:
        """Mark that an answer is being read: it uses no model, and its reader may be gone."""
        turn.paused = time.monotonic()
        try:
            yield
        finally:
            turn.paused = None

    @property
    def waiting(self) -> int:
        """How many questions wait."""
        return len(self._waiting)

    @property
    def at_work(self) -> float | None:
        """For how many seconds the models have been held by this question, None by nobody."""
        holder = self._holder
        begun = None if holder is None else holder.begun
        return None if begun is None else time.monotonic() - begun

    def told(self, turn: Turn) -> str:
        """Return for whom, as which in line, and about how long a place waits."""
        with self._free:
            now = time.monotonic()
            own_order = self._order(turn, now)
            before = [w for w in self._waiting if self._order(w, now) < own_order]
            holder = self._holder
            if holder is None:
                return "Waiting for its turn"
            usual = self._seconds.get(holder.kind, USUAL)
            left = max(1.0, usual - holder.spent - (now - (holder.begun or 0.0)))
            left += sum(self._seconds.get(w.kind, USUAL) for w in before)
        own = holder.visitor == turn.visitor
        whose = f"your own {holder.kind}" if own else f"another visitor's {holder.kind}"
        whose = "models that are being loaded" if holder.kind == LOADING else whose
        place = f", {len(before)} before you" if before else ""
        return f"Waiting for {whose}{place}, about {round(left)} s"

    def _is_overdue(self, turn: Turn, now: float) -> bool:
        return now - turn.since > OVERDUE

    def _order(self, turn: Turn, now: float) -> tuple:
        """Return what is smallest for who is next: overdue, short, a trial, not served lately."""
        if self._is_overdue(turn, now):
            return False, turn.since, turn.number
        kind = (turn.spent >= SLICE, turn.kind != PICTURES)
        return True, *kind, self._last.get(turn.visitor, 0), turn.number

    def _next(self) -> Turn | None:
        now = time.monotonic()
        return min(self._waiting, key=lambda one: self._order(one, now), default=None)

    def _take_from_the_lost(self) -> None:
        holder = self._holder
        if holder is not None and holder.paused is not None:
            if time.monotonic() - holder.paused > LOST:
                self._holder = None


class Between:
    """What work that has a turn does between two steps: see `stopping.Others`."""

    def __init__(self, turns: Turns, turn: Turn) -> None:
        self.turns, self.turn = turns, turn

    def go_first(self) -> None:
        """Pass the turn on where somebody should be first, and wait until it comes back."""
        if self.turns.pass_on(self.turn):
            self._wait()

    @contextlib.contextmanager
    def step_aside(self) -> Iterator[None]:
        """Give the turn back while the block runs, and wait for the next one after it."""
        aside = self.turns.set_aside(self.turn)
        try:
            yield
        finally:
            if aside:
                self.turns.line_up(self.turn)
                self._wait()

    def _wait(self) -> None:
        while not self.turns.wait(self.turn):
            if stopping.unwanted():
                raise stopping.StoppedError
