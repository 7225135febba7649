"""How long a program's request may compute, and that hanging up ends its work."""

import json
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.explorer.page.serving import OLD_NAME, served

pytestmark = OLD_NAME
PATIENCE = 20  # seconds until a test gives up


@pytest.fixture
def slow(make_workbench: Any, fakes: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """Serve a generator that waits in its second step until the test lets it go on."""
    begun, go_on, steps, others = threading.Event(), threading.Event(), [], []

    class Slow(fakes.Generator):
        def sweep(self, condition: Any, scales: Any, n: int, seed: int, **options: Any) -> Any:
            for step in super().sweep(condition, scales, n, seed, **options):
                if seed == 99:
                    steps.append(step.step)
                    if len(steps) == 2:
                        begun.set()
                        assert go_on.wait(PATIENCE)
                else:
                    others.append(len(steps))
                yield step

    bench = make_workbench(generators={"painter": Slow})
    with served(bench) as client:
        yield SimpleNamespace(
            bench=bench, client=client, begun=begun, go_on=go_on, steps=steps, others=others
        )


def test_a_caller_who_cancels_ends_the_drawing(slow: SimpleNamespace, monkeypatch: Any) -> None:
    monkeypatch.setattr("explorer.page.endpoint.seconds_needed", lambda bench, request: 0.0)
    job = slow.client.submit(
        trial="test-03", scales="1; 2; 3", steps=30, seed=99, api_name="/reconstruct"
    )
    assert slow.begun.wait(PATIENCE)
    job.cancel()
    slow.go_on.set()
    # whoever asks next has the models at once, and no further step was made for the one who left
    answer = slow.client.predict(trial="test-04", scales="1", api_name="/reconstruct")
    assert answer["images"]
    assert len(slow.steps) <= 4


def test_a_request_over_the_budget_is_refused_with_the_number(
    slow: SimpleNamespace, monkeypatch: Any
) -> None:
    monkeypatch.setattr("explorer.page.endpoint.seconds_needed", lambda bench, request: 5000.0)
    with pytest.raises(Exception, match="compute for about 83 min, more than the 10 min that one"):
        slow.client.predict(trial="test-03", scales="1; 2", api_name="/reconstruct")


def test_a_short_question_is_answered_within_anothers_long_job(
    slow: SimpleNamespace, monkeypatch: Any
) -> None:
    monkeypatch.setattr("explorer.page.endpoint.seconds_needed", lambda bench, request: 0.0)
    monkeypatch.setattr("explorer.page.turns.SLICE", 0.0)
    long = slow.client.submit(
        trial="test-03", scales="1; 2; 3", steps=30, seed=99, api_name="/reconstruct"
    )
    assert slow.begun.wait(PATIENCE)
    short = slow.client.submit(trial="test-04", scales="1", api_name="/reconstruct")
    address = slow.client.src.rstrip("/") + "/healthz"
    until = time.monotonic() + PATIENCE
    while not json.loads(httpx.get(address).text)["waiting"]:
        assert time.monotonic() < until
    slow.go_on.set()
    assert short.result(PATIENCE)["images"] and len(long.result(PATIENCE)["images"]) == 3
    assert slow.others[0] < len(slow.steps)  # the long job went on after it
