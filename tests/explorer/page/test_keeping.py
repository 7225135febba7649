"""Answers that nobody reads and pages that were left are bounded; what is in use stays."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gradio.server_messages import (
    HeartbeatMessage,
    ProcessCompletedMessage,
    ProcessGeneratingMessage,
)

from explorer.page import keeping
from explorer.page.keeping import GIVEN_UP, Unread, weight
from tests.explorer.page.serving import OLD_NAME, hosted

pytestmark = OLD_NAME
KB = 1024


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return a clock that tests set."""
    now = SimpleNamespace(at=1000.0)
    monkeypatch.setattr(keeping, "time", SimpleNamespace(monotonic=lambda: now.at))
    return now


@pytest.fixture
def unread(clock: SimpleNamespace) -> Unread:
    """Return a mapping of unread answers, ``hung`` those whose work is to end."""
    hung: list[str] = []
    found = Unread(hung.extend)
    found.hung = hung
    return found


def answered(unread: Unread, caller: str, size: int = 100 * KB, kind: Any = None) -> None:
    """Send an answer of so many bytes to a caller."""
    if caller not in unread:
        unread[caller] = None
    sent = (kind or ProcessCompletedMessage)(output={"data": ["x" * size]}, success=True)
    sent.event_id = f"event of {caller}"
    unread[caller].put_nowait(sent)


def read(unread: Unread, caller: str) -> Any:
    return unread[caller].get_nowait()


# ----------------------------------------------------------------------------------------- answers


def test_unread_answers_take_no_more_than_their_bytes(
    unread: Unread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "UNREAD_BYTES", 1000 * KB)
    for number in range(50):
        answered(unread, f"caller {number}")
        assert unread.bytes <= 1000 * KB
    told = read(unread, "caller 3")
    assert (told.success, told.output["error"]) == (False, GIVEN_UP)
    assert told.event_id == "event of caller 3"
    assert read(unread, "caller 49").success
    assert set(unread.hung) == {f"event of caller {n}" for n in range(len(unread.hung))}
    assert unread.bytes == sum(queue.bytes for queue in unread.values())


def test_what_is_read_takes_nothing(unread: Unread) -> None:
    for number in range(20):
        answered(unread, f"caller {number % 3}")
        assert read(unread, f"caller {number % 3}").success
    assert (unread.bytes, unread.hung) == (0, [])


def test_answers_go_by_the_time_they_were_last_touched(
    unread: Unread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "UNREAD_BYTES", 350 * KB)
    for caller in "abc":
        answered(unread, caller)
    _ = unread["a"]  # somebody reads
    answered(unread, "d")
    assert unread.hung == ["event of b"]


def test_answers_that_nobody_reads_go_in_time(unread: Unread, clock: SimpleNamespace) -> None:
    answered(unread, "a")
    unread["a"].put_nowait(HeartbeatMessage())
    clock.at += keeping.UNREAD_SECONDS - 1
    answered(unread, "b")
    unread.bound({})
    assert unread.hung == []
    clock.at += 2
    unread.bound({})
    assert unread.hung == ["event of a"]
    assert 0 < unread.bytes < 120 * KB
    unread.bound({})  # the sentence stays as long
    assert read(unread, "a").output["error"] == GIVEN_UP
    clock.at += keeping.UNREAD_SECONDS + 1
    unread.bound({})
    assert list(unread) == ["b"]  # its sentence


def test_work_whose_pictures_nobody_reads_ends(
    unread: Unread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "UNREAD_BYTES", 350 * KB)
    for _ in range(5):
        answered(unread, "a", kind=ProcessGeneratingMessage)
    assert unread.hung[0] == "event of a"
    assert unread.bytes <= 350 * KB


def test_many_small_sentences_are_not_given_up_for_ever(
    unread: Unread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "UNREAD_BYTES", 50 * KB)
    unread["a"] = None
    for number in range(200):
        sent = ProcessCompletedMessage(output={"data": ["x" * KB]}, success=True)
        sent.event_id = f"event {number}"
        unread["a"].put_nowait(sent)
    assert unread["a"].qsize() <= 200


def test_callers_with_nothing_to_read_are_forgotten_but_not_while_their_work_runs(
    unread: Unread, clock: SimpleNamespace
) -> None:
    unread["a"] = unread["b"] = None
    clock.at += keeping.ASKED_SECONDS + 1
    unread.bound({"event": SimpleNamespace(session_hash="a")})
    assert list(unread) == ["a"]


def test_there_are_no_more_callers_than_their_number(
    unread: Unread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "MOST_CALLERS", 5)
    for number in range(9):
        unread[f"caller {number}"] = None
    unread.bound({"event": SimpleNamespace(session_hash="caller 0")})
    assert list(unread) == ["caller 0", *(f"caller {n}" for n in range(5, 9))]


def test_a_forgotten_queue_that_is_read_on_is_not_counted_twice(unread: Unread) -> None:
    answered(unread, "a")
    answered(unread, "b", 10)
    queue = unread["a"]
    del unread["a"]
    queue.get_nowait()
    assert unread.bytes == unread["b"].bytes


def test_weight_counts_what_is_in_a_value_once() -> None:
    text = "x" * 1000
    assert 2000 < weight({"a": [text, "y" * 1000], "b": (text,)}) < 4000


# ------------------------------------------------------------------------------------------ served


@pytest.fixture
def page(workbench: Any) -> Iterator[SimpleNamespace]:
    """Serve the page and return how to visit it and what it keeps."""
    with hosted(workbench) as blocks:
        fns = {getattr(fn.fn, "__name__", ""): index for index, fn in blocks.fns.items()}

        def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            sent = urllib.request.Request(
                f"{blocks.local_url}gradio_api/{path}",
                json.dumps(body).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(sent, timeout=20) as found:
                return json.loads(found.read())

        def do(visitor: str, handler: str) -> str:
            asked = {"fn_index": fns[handler], "data": [None], "session_hash": visitor}
            return json.dumps(post("run/predict", asked))

        def ask(trial: str) -> str:
            return post("call/trials", {"data": ["", ""]})["event_id"]

        def fetch(event: str) -> str:
            at = f"{blocks.local_url}gradio_api/call/trials/{event}"
            with urllib.request.urlopen(at, timeout=20) as found:
                return found.read().decode()

        yield SimpleNamespace(
            do=do, ask=ask, fetch=fetch, visits=blocks.app.state_holder, queue=blocks._queue
        )


def test_a_visit_takes_little_beside_what_it_shows(page: SimpleNamespace) -> None:
    page.do("me", "open_link")
    page.visits.bound()
    assert 0 < page.visits.bytes < 100 * KB


def test_pages_that_were_left_make_room_and_one_in_use_stays(
    page: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.do("me", "open_link")
    page.visits.bound()
    monkeypatch.setattr(keeping, "VISITS_BYTES", int(4.5 * page.visits.bytes))
    for number in range(12):
        page.do(f"visitor {number}", "open_link")
        page.do("me", "go_on")
        page.visits.bound()
        assert page.visits.bytes <= keeping.VISITS_BYTES
    assert "me" in page.visits and len(page.visits.session_data) < 6
    assert "its place was given" not in page.do("me", "go_on")
    assert "its place was given to others; reload it" in page.do("visitor 0", "go_on")
    page.do("visitor 0", "open_link")  # reloaded
    assert "its place was given" not in page.do("visitor 0", "go_on")


def test_closed_pages_go_first_and_soon(
    page: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    for visitor in ("left", "open"):
        page.do(visitor, "open_link")
    page.visits.session_data["left"].is_closed = True
    page.visits["program"]
    clock.at += keeping.ASKED_SECONDS + 1
    page.visits.bound()
    assert set(page.visits.session_data) == {"left", "open"}
    clock.at += keeping.LEFT_SECONDS
    page.visits.bound()
    assert set(page.visits.session_data) == {"open"}
    clock.at += keeping.IDLE_SECONDS
    page.visits.bound()
    assert not page.visits.session_data


def test_answers_that_nobody_fetches_are_bounded_where_they_are_served(
    page: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "UNREAD_BYTES", 100 * KB)
    monkeypatch.setattr(keeping, "LARGE", 1 * KB)
    events = [page.ask("test-03") for _ in range(40)]
    assert '"test-03"' in page.fetch(events[-1])
    assert page.queue.pending_messages_per_session.bytes <= 100 * KB
    assert GIVEN_UP in page.fetch(events[0])
