"""Whose turn it is at the models: one question at a time, visitors in turn, trials first.

Models are not locked, so whoever asks one takes a turn. What needs no model never does. A turn is
given back between the parts of a long answer, so that somebody's next trial gets in.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Budget:
    """How long one request may compute, in seconds; a longer one is refused, or asked about.

    ``asks``: on the owner's own machine it begins once they say so.
    """

    seconds: float = 600.0
    asks: bool = False

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

    ``paused``: since when its answer waits to be read, None while it computes.
    """

    visitor: Hashable
    kind: str
    number: int
    begun: float | None = None
    paused: float | None = None


class Turns:
    """The queue at the models of one workbench; kept fair by visitor, not by question.

    ``budget``: how long one request may compute.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self._free = threading.Condition()
        self._waiting: list[Turn] = []
        self._holder: Turn | None = None
        self._asked = 0
        self._last: dict[Hashable, int] = {}  # which turn a visitor had last
        self._seconds: dict[str, float] = {}  # how long a kind of work took lately

    def ask(self, visitor: Hashable, kind: str = PICTURES) -> Turn:
        """Return a place in the queue; give it back with `leave`. A full queue is `UserError`."""
        with self._free:
            if len(self._waiting) >= MOST_WAITING:
                raise UserError(
                    f"{len(self._waiting)} questions wait for the models already; try again in a "
                    "minute."
                )
            self._asked += 1
            turn = Turn(visitor, kind, self._asked)
            self._waiting.append(turn)
            return turn

    def wait(self, turn: Turn, seconds: float = POLL) -> bool:
        """Wait at most so long, and return whether it is this one's turn."""
        until = time.monotonic() + seconds
        with self._free:
            while True:
                self._take_from_the_lost()
                if self._holder is None and self._next() is turn:
                    self._waiting.remove(turn)
                    self._holder, turn.begun = turn, time.monotonic()
                    self._last[turn.visitor] = turn.number
                if self._holder is turn:
                    return True
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._free.wait(left)

    def leave(self, turn: Turn) -> None:
        """Give a place or a turn back; twice does no harm."""
        with self._free:
            if turn in self._waiting:
                self._waiting.remove(turn)
            if self._holder is turn:
                took = time.monotonic() - (turn.begun or 0.0)
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
            yield
        finally:
            self.leave(turn)

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

    def told(self, turn: Turn) -> str:
        """Return for whom, as which in line, and about how long a place waits."""
        with self._free:
            before = [w for w in self._waiting if self._order(w) < self._order(turn)]
            holder = self._holder
            if holder is None:
                return "Waiting for its turn"
            usual = self._seconds.get(holder.kind, USUAL)
            left = max(1.0, usual - (time.monotonic() - (holder.begun or 0.0)))
            left += sum(self._seconds.get(w.kind, USUAL) for w in before)
        own = holder.visitor == turn.visitor
        whose = f"your own {holder.kind}" if own else f"another visitor's {holder.kind}"
        whose = "models that are being loaded" if holder.kind == LOADING else whose
        place = f", {len(before)} before you" if before else ""
        return f"Waiting for {whose}{place}, about {round(left)} s"

    def _order(self, turn: Turn) -> tuple[bool, int, int]:
        return turn.kind != PICTURES, self._last.get(turn.visitor, 0), turn.number

    def _next(self) -> Turn | None:
        return min(self._waiting, key=self._order, default=None)

    def _take_from_the_lost(self) -> None:
        holder = self._holder
        if holder is not None and holder.paused is not None:
            if time.monotonic() - holder.paused > LOST:
                self._holder = None
