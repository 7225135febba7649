"""A cache that threads share: each value is made once, the least recently used ones go."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from explorer import stopping


def _one(_: Any) -> int:
    return 1


class Cache:
    """Values by key, at most ``limit`` in total ``size`` (None: as many as come).

    `get` holds one lock a key while it makes a value, so two threads that ask for the same thing
    wait for one making of it, and threads that ask for other things do not wait. What ``make``
    raises reaches its caller and nothing is kept. Who waits for another's making lets others at
    the models meanwhile: it may be one of them that makes it.

    Parameters
    ----------
    limit
        The largest sum of sizes that is kept; a single value above it is returned but not kept.
    size
        What a value counts, 1 by default, so that ``limit`` is a number of values.
    """

    def __init__(self, limit: int | None = None, size: Callable[[Any], int] = _one) -> None:
        self._limit, self._size = limit, size
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()
        self._making: dict[Hashable, tuple[threading.Lock, int]] = {}  # lock, threads that use it
        self._outdated: set[Hashable] = set()  # dropped while they were made

    def __len__(self) -> int:
        with self._lock:
            return len(self._values)

    @property
    def total(self) -> int:
        """The sum of the sizes of what is kept."""
        with self._lock:
            return self._total

    def peek(self, key: Hashable, default: Any = None) -> Any:
        """Return the value of ``key`` and mark it as used, or ``default``."""
        with self._lock:
            if key not in self._values:
                return default
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a value, and let the least recently used ones go that no longer fit beside it."""
        size = self._size(value)
        with self._lock:
            if key in self._values:
                self._total -= self._size(self._values.pop(key))
            if self._limit is not None and size > self._limit:
                return
            self._values[key] = value
            self._total += size
            while self._limit is not None and self._total > self._limit:
                _, old = self._values.popitem(last=False)
                self._total -= self._size(old)

    def items(self, of: Callable[[Hashable], bool]) -> list[tuple[Any, Any]]:
        """Return what is kept by keys for which ``of`` is true, the longest unused first."""
        with self._lock:
            return [(key, value) for key, value in self._values.items() if of(key)]

    def drop(self, of: Callable[[Hashable], bool]) -> None:
        """Let go what is kept by keys for which ``of`` is true; what is being made is not kept."""
        with self._lock:
            self._outdated.update(key for key in self._making if of(key))
            for key in [key for key in self._values if of(key)]:
                self._total -= self._size(self._values.pop(key))

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the value of ``key``; ``make()`` it first if it is not there.

        ``make`` may ask for other keys, of this or another cache, but never for its own.
        """
        absent = object()
        if (value := self.peek(key, absent)) is not absent:
            return value
        with self._lock:
            lock, users = self._making.get(key, (threading.Lock(), 0))
            self._making[key] = (lock, users + 1)
        try:
            stopping.acquire(lock)
            try:
                if (value := self.peek(key, absent)) is absent:  # nobody made it while we waited
                    with self._lock:
                        self._outdated.discard(key)
                    value = make()
                    with self._lock:
                        outdated = key in self._outdated
                        self._outdated.discard(key)
                    if not outdated:
                        self.put(key, value)
                return value
            finally:
                lock.release()
        finally:
            with self._lock:
                lock, users = self._making.pop(key)
                if users > 1:
                    self._making[key] = (lock, users - 1)
