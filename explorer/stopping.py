"""Work that may no longer be wanted by the time it is half done: it asks at every step, and ends.

Whoever begins work says how to find out, with `until`; whoever computes calls `look` between two
steps, or walks through `steps`. Nothing has to be handed from one to the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
_unwanted: ContextVar[Callable[[], bool] | None] = ContextVar("unwanted", default=None)


class StoppedError(Exception):
    """Raised inside work that nobody wants any more; what was finished before is kept.

    No `UserError`, which work on several things takes for one that cannot be had, and goes on.
    """


@contextlib.contextmanager
def until(unwanted: Callable[[], bool]) -> Iterator[None]:
    """Let work in the block end at its next step once ``unwanted`` says so, in this thread."""
    token = _unwanted.set(unwanted)
    try:
        yield
    finally:
        _unwanted.reset(token)


def look() -> None:
    """Raise `StoppedError` where the work around is no longer wanted."""
    unwanted = _unwanted.get()
    if unwanted is not None and unwanted():
        raise StoppedError


def steps(work: Iterable[T]) -> Iterator[T]:
    """Yield what work yields, and `look` before each step of it."""
    look()
    for step in work:
        yield step
        look()
