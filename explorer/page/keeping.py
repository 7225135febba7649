"""What a server keeps for callers who may not come back, bounded by bytes and by age.

Gradio keeps the answers of 2,000 callers and the sessions of 10,000 pages, whatever they hold.
Here answers that nobody reads and pages that were left go first; a page in use stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, MutableMapping
from copy import copy
from typing import Any

import gradio as gr
from gradio.server_messages import ProcessCompletedMessage, ProcessGeneratingMessage
from gradio.state_holder import SessionState, StateHolder
from gradio.utils import error_payload

from explorer.page.session import Evidence, Session

# All bounds are our choice.
UNREAD_BYTES, UNREAD_SECONDS, MOST_CALLERS = 64 * 2**20, 900.0, 2000
VISITS_BYTES, LEFT_SECONDS, IDLE_SECONDS, MOST_VISITS = 256 * 2**20, 600.0, 86_400.0, 10_000
ASKED_SECONDS = 60.0  # a caller without a page has nothing that could be missed
SWEEP_SECONDS = 5.0
SMALL, LARGE = 256, 8192  # bytes that a text or message takes at least; not worth giving up below
GIVEN_UP = (
    "Nobody fetched this answer for too long, so it was given up to make room; ask again and read "
    "the answer while it comes."
)


@contextlib.asynccontextmanager
async def bounded(app: Any) -> AsyncIterator[None]:
    """Bound what a served page keeps; the ``lifespan`` of its app."""
    blocks = app.get_blocks()
    queue = blocks._queue
    queue.pending_messages_per_session = Unread(lambda ids: _hang_up(queue, ids))
    app.state_holder = visits = Visits()
    visits.set_blocks(blocks)
    sweeping = asyncio.create_task(_sweep(queue, visits))
    try:
        yield
    finally:
        sweeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sweeping


async def _sweep(queue: Any, visits: Visits) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        visits.bound()
        unread, ids = queue.pending_messages_per_session, queue.pending_event_ids_session
        unread.bound(queue.event_ids_to_events)
        for caller in [caller for caller in ids if caller not in unread]:
            del ids[caller]


def _hang_up(queue: Any, ids: Iterable[str]) -> None:
    """Take callers for gone whose work still runs: it ends at its next step."""
    for jobs in queue.active_jobs:
        for job in jobs or ():
            if job._id in ids:
                job.alive = False


def weight(value: Any, seen: set[int] | None = None) -> int:
    """Return about how many bytes a value takes; what is in it twice counts once."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, str | bytes | bytearray):
        return SMALL + len(value)
    if isinstance(value, Mapping):
        return SMALL + sum(weight(part, seen) for part in list(value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return SMALL + sum(weight(part, seen) for part in list(value))
    if hasattr(value, "nbytes"):
        return SMALL + int(value.nbytes)
    if isinstance(value, gr.blocks.Block):  # what a session changed; the rest is the page's
        return SMALL + weight([getattr(value, name, None) for name in ("value", "choices")], seen)
    if isinstance(value, Session | Evidence):
        return weight(vars(value), seen)
    return SMALL // 8


# ----------------------------------------------------------------------------------------- answers


class Messages(asyncio.Queue):
    """What one caller was sent and has not read, and how many ``bytes`` that is."""

    def __init__(self, changed: Callable[[int], None]) -> None:
        super().__init__()
        self._changed, self._weights = changed, deque[int]()
        self.bytes, self._sentences, self.touched = 0, 0, time.monotonic()

    def _put(self, item: Any) -> None:
        self._weights.append(SMALL + weight(getattr(item, "output", None)))
        super()._put(item)
        self._count(self._weights[-1])

    def _get(self) -> Any:
        self._count(-self._weights.popleft())
        return super()._get()

    def _count(self, bytes_: int) -> None:
        self.bytes += bytes_
        self._changed(bytes_)

    @property
    def heavy(self) -> bool:
        """Whether there is more than what `give_up` leaves."""
        return self.bytes > LARGE + self._sentences

    def forget(self) -> None:
        """Count no more; somebody may still read on."""
        self._changed = lambda bytes_: None

    def give_up(self) -> list[str]:
        """Put one sentence in the place of all that was sent; return whose answers are lost."""
        lost = []
        while not self.empty():
            message = self.get_nowait()
            answer = isinstance(message, ProcessCompletedMessage | ProcessGeneratingMessage)
            if answer and message.event_id and message.event_id not in lost:
                lost.append(message.event_id)
        for event in lost:
            told = error_payload(gr.Error(GIVEN_UP, print_exception=False), True)
            self.put_nowait(ProcessCompletedMessage(output=told, success=False, event_id=event))
        self._sentences = self.bytes
        self.touched = time.monotonic()  # the sentence stays as long as an answer would
        return lost


class Unread(MutableMapping):
    """`Messages` by caller, those touched last at the end; in the place of Gradio's own.

    ``hang_up``: called with the events whose answers are lost.
    """

    def __init__(self, hang_up: Callable[[Iterable[str]], None]) -> None:
        self._queues: OrderedDict[str, Messages] = OrderedDict()
        self._hang_up, self._making_room, self.bytes = hang_up, False, 0

    def __setitem__(self, caller: str, queue: asyncio.Queue) -> None:
        """Begin a caller's queue; the one that Gradio made is empty."""
        self.pop(caller, None)
        self._queues[caller] = Messages(self._changed)

    def __getitem__(self, caller: str) -> Messages:
        """Return a caller's queue, which is written to or read."""
        queue = self._queues[caller]
        queue.touched = time.monotonic()
        self._queues.move_to_end(caller)
        return queue

    def __delitem__(self, caller: str) -> None:
        """Forget a caller who is gone."""
        queue = self._queues.pop(caller)
        self.bytes -= queue.bytes
        queue.forget()

    def __contains__(self, caller: object) -> bool:
        """Return whether a caller has a queue."""
        return caller in self._queues

    def __iter__(self) -> Iterator[str]:
        """Iterate over the callers, those touched longest ago first."""
        return iter(list(self._queues))

    def __len__(self) -> int:
        """Return how many callers have a queue."""
        return len(self._queues)

    def _changed(self, bytes_: int) -> None:
        self.bytes += bytes_
        if self._making_room or bytes_ <= 0:
            return
        self._making_room = True  # what is put in their place changes the sum too
        for oldest in self._queues.values():
            if self.bytes <= UNREAD_BYTES:
                break
            if oldest.heavy:
                self._hang_up(oldest.give_up())
        self._making_room = False

    def bound(self, running: Mapping[str, Any]) -> None:
        """Give up what waits for too long, and forget callers who have nothing more to read.

        ``running``: the events that wait or are at work.
        """
        now, busy = time.monotonic(), {event.session_hash for event in running.values()}
        for caller, queue in list(self._queues.items()):
            unused = now - queue.touched
            if unused > UNREAD_SECONDS and queue.heavy:
                self._hang_up(queue.give_up())
            elif caller not in busy and unused > (
                ASKED_SECONDS if queue.empty() else UNREAD_SECONDS
            ):
                del self[caller]
        for caller in [caller for caller in self if caller not in busy]:
            if len(self) <= MOST_CALLERS:
                break
            del self[caller]


# ------------------------------------------------------------------------------------------ visits


class Visit(SessionState):
    """What Gradio keeps for one caller, without a copy of the page's settings.

    Those copies serve links by which Gradio opens a page with everybody's fields; the page has its
    own. ``again``: whether what this caller had before was given up.
    """

    def __init__(self, blocks: gr.Blocks, again: bool) -> None:
        self.blocks_config = copy(blocks.default_config)
        self.shared = blocks.default_config.blocks
        self.config_values: dict = {}
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict = {}
        self.is_closed, self.STATE_TTL_WHEN_CLOSED = False, LEFT_SECONDS
        self.again, self.touched, self.weighed, self.bytes = again, time.monotonic(), 0.0, SMALL

    def __getitem__(self, key: int) -> Any:
        """Return a component, or a state's value; a new `Session` says whether there was one."""
        value = super().__getitem__(key)
        if self.again and isinstance(value, Session) and value.request is None:
            value.given_up = True
        return value

    def __setitem__(self, key: int, value: Any) -> None:
        """Keep a component's or a state's value."""
        if isinstance(self.blocks_config.blocks.get(key), gr.State):
            self.state_data[key] = value
        else:
            self.blocks_config.blocks[key] = value

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass

    def weigh(self) -> None:
        """Set ``bytes`` to about what this visit takes."""
        own = {k: v for k, v in self.blocks_config.blocks.items() if v is not self.shared.get(k)}
        fixed = 100 * (len(self.blocks_config.blocks) + len(self.blocks_config.fns))
        self.bytes, self.weighed = fixed + weight([self.state_data, own]), time.monotonic()


class Visits(StateHolder):
    """The `Visit` of every caller; in the place of Gradio's own."""

    def __init__(self) -> None:
        super().__init__()
        self.given_up: OrderedDict[str, None] = OrderedDict()

    def __getitem__(self, caller: str) -> Visit:
        """Return a caller's visit, a new one where there is none."""
        with self.lock:
            if caller not in self.session_data:
                self.session_data[caller] = Visit(self.blocks, caller in self.given_up)
            visit = self.session_data[caller]
            visit.touched = time.monotonic()
            return visit

    def update(self, caller: str) -> None:
        """Do nothing: what is used is marked where it is asked for."""

    def delete_all_expired_state(self) -> None:
        """Do nothing: `bound` decides what goes."""

    @property
    def bytes(self) -> int:
        """About how much all visits take."""
        return sum(visit.bytes for visit in list(self.session_data.values()))

    def bound(self) -> None:
        """Forget visits that ended, and beyond the bounds those used longest ago.

        First go callers without a page, then pages that were left, then those that lie idle.
        """
        now = time.monotonic()
        for visit in list(self.session_data.values()):
            if visit.touched >= visit.weighed:
                visit.weigh()
        with self.lock:
            for caller, visit in list(self.session_data.items()):
                if now - visit.touched > _patience(visit):
                    self._forget(caller, visit)
            total, count = self.bytes, len(self.session_data)
            for caller, visit in sorted(self.session_data.items(), key=lambda one: _worth(one[1])):
                if total <= VISITS_BYTES and count <= MOST_VISITS:
                    break
                self._forget(caller, visit)
                total, count = total - visit.bytes, count - 1

    def _forget(self, caller: str, visit: Visit) -> None:
        del self.session_data[caller]
        if visit.state_data:
            self.given_up[caller] = None
            while len(self.given_up) > MOST_VISITS:
                self.given_up.popitem(last=False)


def _patience(visit: Visit) -> float:
    """Return for how many seconds a visit is kept without being used."""
    if not visit.state_data:
        return ASKED_SECONDS
    return LEFT_SECONDS if visit.is_closed else IDLE_SECONDS


def _worth(visit: Visit) -> tuple[bool, bool, float]:
    return bool(visit.state_data), not visit.is_closed, visit.touched
