"""Whoever leaves while an endpoint computes ends the work at its next step, and frees the models.

The page is served, and a program asks it as any HTTP client would, then closes its connection.
"""

from __future__ import annotations

import contextlib
import http.client
import inspect
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from explorer.workbench import Caches, Workbench
from tests.explorer.page.serving import OLD_NAME, hosted

pytestmark = OLD_NAME
PATIENCE = 20  # seconds until a test gives up
TRIAL = "test-03"


@pytest.fixture(scope="module")
def served(fakes: SimpleNamespace, fake_checkpoints: Path) -> Iterator[SimpleNamespace]:
    """Serve models that count their steps and, once ``armed``, wait in one until told to go on."""
    told = SimpleNamespace(steps=[])

    def step(of: str) -> None:
        if told.armed.is_set():
            told.steps.append(of)
            told.begun.set()
            assert told.go_on.wait(PATIENCE)

    class Painter(fakes.Generator):
        def sweep(self, *args: Any, **options: Any) -> Any:
            for one in super().sweep(*args, **options):
                step("picture")
                yield one

    class Linear(fakes.Linear):
        def forward(self, betas: Any, subject: str) -> Any:
            step("mapper")
            return super().forward(betas, subject)

    class Embedder(fakes.Embedder):
        def embed(self, images: Any, *space: Any) -> Any:
            step("embedder")
            return super().embed(images, *space)

    told.bench = Workbench(
        {"fake": fakes.Study},
        {"pocket-clip": Embedder},
        {"linear": Linear, "ridge": Linear},
        {"painter": Painter, "unguided": fakes.Unguided},
        checkpoints=fake_checkpoints,
    )
    with hosted(told.bench) as told.blocks:
        yield told


@pytest.fixture
def held(served: SimpleNamespace) -> SimpleNamespace:
    """Return the page with nothing computed yet and nobody waited for."""
    served.bench.caches = Caches()
    served.armed, served.begun, served.go_on = (threading.Event() for _ in range(3))
    served.steps.clear()
    return served


def ask(blocks: Any, name: str, *data: Any) -> http.client.HTTPConnection:
    """Ask an endpoint and open the stream of its answer."""
    at = urlsplit(blocks.local_url)
    path = f"/gradio_api/call/{name}"
    asked = http.client.HTTPConnection(at.hostname, at.port, timeout=PATIENCE)
    asked.request(
        "POST", path, json.dumps({"data": list(data)}), {"Content-Type": "application/json"}
    )
    event = json.loads(asked.getresponse().read())["event_id"]
    asked.request("GET", f"{path}/{event}")
    return asked


def given(blocks: Any, name: str, **chosen: Any) -> list[Any]:
    """Return an endpoint's arguments in their order, the defaults where nothing is chosen."""
    (fn,) = (fn for fn in blocks.fns.values() if fn.api_name == name)
    parameters = inspect.signature(fn.fn).parameters.values()
    return [chosen.get(one.name, one.default) for one in parameters]


def until(said: Any) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not said():
        assert time.monotonic() < end
        time.sleep(0.01)


def answer(connection: http.client.HTTPConnection) -> tuple[int, str]:
    """Return status and text of an answer, and close its connection."""
    with contextlib.closing(connection):
        found = connection.getresponse()
        return found.status, found.read().decode()


COMPUTING = {
    "reconstruct": {"trial": TRIAL, "seed": 5},
    "controls": {"trial": TRIAL, "seed": 5},
    "lesion": {"trial": TRIAL, "parcels": "fusiform L", "seed": 5},
    "compare": {"trial": TRIAL, "other_generator": "unguided", "seed": 5},
    "curve": {"trial": TRIAL, "seed": 5},
    "figure": {"link": f"trial={TRIAL}&seed=5"},
    "record": {"link": f"trial={TRIAL}&seed=5"},
    "table": {"link": f"trial={TRIAL}&show=importance"},
    "map_file": {"link": f"trial={TRIAL}&show=importance"},
    "importance": {"trial": TRIAL},
    "attention": {"trial": TRIAL},
    "statistics": {"permutations": 20},
    "sheet": {},
    "drivers": {"parcel": "fusiform L"},
    "steps": {"trial": TRIAL, "parcels": "fusiform L", "seed": 5},
}


@pytest.mark.parametrize("name", COMPUTING)
def test_a_caller_who_hangs_up_ends_the_work_within_a_step(
    held: SimpleNamespace, name: str
) -> None:
    arguments = given(held.blocks, name, **COMPUTING[name])
    held.armed.set()
    stream = ask(held.blocks, name, *arguments)
    assert held.begun.wait(PATIENCE)
    queue = held.blocks._queue
    stream.close()
    until(lambda: not any(job.alive for jobs in queue.active_jobs for job in jobs or ()))
    assert len(held.steps) == 1
    held.go_on.set()
    # the turn is given back: whoever asks next has the models
    turns = [fn.fn.__self__ for fn in held.blocks.fns.values() if fn.api_name == name][0].turns
    until(lambda: turns._holder is None and not any(queue.active_jobs))
    assert len(held.steps) == 1
    held.armed.clear()
    again = ask(held.blocks, "importance", *given(held.blocks, "importance", trial="test-05"))
    assert "Desikan-Killiany" in answer(again)[1]


def test_no_endpoint_that_computes_is_left_out(held: SimpleNamespace) -> None:
    public = {fn.api_name for fn in held.blocks.fns.values() if fn.api_visibility == "public"}
    assert public - set(COMPUTING) == {"trials", "identity", "map", "evaluation"}


def test_endpoints_are_asked_through_the_queue_alone(held: SimpleNamespace) -> None:
    # asked directly, nobody could be told from one who has hung up
    at = urlsplit(held.blocks.local_url)
    direct = http.client.HTTPConnection(at.hostname, at.port, timeout=PATIENCE)
    body = json.dumps({"data": given(held.blocks, "importance", trial=TRIAL)})
    direct.request(
        "POST", "/gradio_api/run/importance", body, {"Content-Type": "application/json"}
    )
    status, said = answer(direct)
    assert status == 404
    assert "join the queue" in said
