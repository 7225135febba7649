"""Work that may no longer be wanted by the time it is half done: it asks at every step, and ends.

Whoever begins work says how to find out, with `until`; whoever computes calls `look` between two
steps, or walks through `steps`. Nothing has to be handed from one to the other. There work may
also be held up, so that somebody else's short question gets in: `letting_others`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")
_unwanted: ContextVar[Callable[[], bool] | None] = ContextVar("unwanted", default=None)
_others: ContextVar[Others | None] = ContextVar("others", default=None)
_held_up = threading.local()  # .seconds: for how long this thread's work was held up so far


class Others(Protocol):
    """Who else asks for what is being used; every call may take as long as their work does."""

    def go_first(self) -> None:
        """Let those get in who should by now; return when the work may go on."""

    def step_aside(self) -> contextlib.AbstractContextManager[None]:
        """Let others in while the block runs, which uses nothing that they need."""


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


@contextlib.contextmanager
def letting_others(others: Others) -> Iterator[None]:
    """Let work in the block be held up between two steps, in this thread."""
    token = _others.set(others)
    try:
        yield
    finally:
        _others.reset(token)


@contextlib.contextmanager
def _not_counted() -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        _held_up.seconds = getattr(_held_up, "seconds", 0.0) + time.monotonic() - began


def clock() -> float:
    """Return seconds that go on only while this thread's work is not held up by others."""
    return time.monotonic() - getattr(_held_up, "seconds", 0.0)


def unwanted() -> bool:
    """Return whether the work around is no longer wanted."""
    ask = _unwanted.get()
    return ask is not None and ask()


def look() -> None:
    """Raise `StoppedError` where the work around is no longer wanted; let others go first."""
    if unwanted():
        raise StoppedError
    if (others := _others.get()) is not None:
        with _not_counted():
            others.go_first()
        if unwanted():
            raise StoppedError


def acquire(lock: threading.Lock) -> None:
    """Take a lock, and let others in meanwhile: whoever has it may wait for this work's turn."""
    if lock.acquire(blocking=False):
        return
    if (others := _others.get()) is None:
        lock.acquire()
        return
    with _not_counted():
        aside = others.step_aside()
        aside.__enter__()
        lock.acquire()
        try:
            aside.__exit__(None, None, None)
        except BaseException:
            lock.release()
            raise


def steps(work: Iterable[T]) -> Iterator[T]:
    """Yield what work yields, and `look` before each step of it."""
    look()
    for step in work:
        yield step
        look()
