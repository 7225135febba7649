"""The load's benchmark on a small page: calls work, and an answer that is another's is seen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.explorer.page.serving import OLD_NAME, hosted

pytestmark = OLD_NAME


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module as the benchmarks import it."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import load as module

    monkeypatch.setattr(module, "UNREAD", 4)
    return module


@pytest.fixture
def two(load: Any, workbench: Any) -> Iterator[SimpleNamespace]:
    """Return two programs of a served page that know what they are answered alone."""
    with hosted(workbench) as blocks:
        port = urlsplit(blocks.local_url).port
        parameters = load.described(port)
        programs = [load.Program(port, parameters, trial) for trial in ("test-02", "test-05")]
        for program in programs:
            for call in (load.trials, load.cached, load.importance):
                call(program)
        yield programs


def test_each_call_is_answered_with_its_own(load: Any, two: Any) -> None:
    seen = load.Seen()
    for name in load.CALLS:
        for program in two:
            seen.call(program, name)
    assert (seen.failed, seen.mixed, seen.calls) == ([], [], 2 * len(load.CALLS))
    lines = list(load._memory(two, os.getpid(), 4))
    assert [value for what, value, _ in lines if "failed" in what] == ["0 / 0"]


def test_an_answer_that_is_anothers_is_seen(load: Any, two: Any) -> None:
    mine, other = two
    seen = load.Seen()
    ask = mine.ask
    mine.ask = lambda name, **chosen: ask(name, **chosen | {"trial": other.trial})
    for name in ("/reconstruct, kept", "/reconstruct, new", "/importance"):
        seen.call(mine, name)
    assert len(seen.mixed) == 3 and not seen.failed


def test_what_fails_is_counted_and_told(load: Any, two: Any) -> None:
    two[0].trial = "none of this name"
    seen = load.Seen()
    seen.call(two[0], "/reconstruct, kept")
    assert len(seen.failed) == 1 and "none of this name" in seen.failed[0]
