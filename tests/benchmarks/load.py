"""Twenty programs at once: how long each kind of call takes, and whose answer comes back.

``python tests/benchmarks/load.py`` starts the app as a person does and asks it over HTTP. Every
client has a trial of its own, so that an answer that is another's is seen. ``--tree`` points at
another copy of the project, to hold two builds against each other.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import math
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

from on_models import Line, resident_of  # noqa: E402  (after the path is set)

CLIENTS, SECONDS, REQUESTS, UNREAD = 20, 60.0, 2000, 500
ALONE = 10  # calls of each kind that nobody disturbs
PATIENCE = 300  # seconds that a call may take
JSON = {"Content-Type": "application/json"}
MB = 1e6


class WrongError(Exception):
    """An answer that is another's."""


# ------------------------------------------------------------------------------------- one program


class Program:
    """One client of a server, asking its named endpoints about its own trial.

    ``parameters``: of each endpoint in their order, name -> default, as the server tells them.
    """

    def __init__(self, port: int, parameters: dict[str, dict[str, Any]], trial: str) -> None:
        self.port, self.parameters, self.trial = port, parameters, trial
        self.known: dict[str, Any] = {}  # what its calls are answered when nobody else asks

    def send(self, method: str, path: str, body: Any = None) -> bytes:
        """Return what the server answers; anything but success raises."""
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        ) as line:
            line.request(method, path, None if body is None else json.dumps(body), JSON)
            answer = line.getresponse()
            found = answer.read()
        if answer.status != 200:
            raise OSError(f"{path}: {answer.status} {found[:200]!r}")
        return found

    def begin(self, name: str, **chosen: Any) -> str:
        """Ask an endpoint and return the address of its answer."""
        usual = self.parameters[name]
        data = [chosen.get(one, default) for one, default in usual.items()]
        path = f"/gradio_api/call/{name}"
        return f"{path}/{json.loads(self.send('POST', path, {'data': data}))['event_id']}"

    def ask(self, name: str, **chosen: Any) -> Any:
        """Return an endpoint's answer."""
        events = self.send("GET", self.begin(name, **chosen)).decode().split("\n\n")
        kind, _, data = events[-2 if not events[-1] else -1].partition("\n")
        if kind != "event: complete":
            raise OSError(f"{name}: {kind}, {data[:200]}")
        return json.loads(data.removeprefix("data: "))[0]


def trials(program: Program) -> None:
    """List the trials."""
    found = program.ask("trials")
    _same(program, "trials", [row["stimulus"] for row in found["trials"]])


def cached(program: Program) -> None:
    """Ask for pictures that are there."""
    found = program.ask("reconstruct", trial=program.trial)
    _own(program, found)
    _same(program, "cached", [found["truth"], *(one["image"] for one in found["images"])])


def importance(program: Program) -> None:
    """Ask for the importance of parcels, which is kept after the first time."""
    found = program.ask("importance", trial=program.trial)
    numbers = [[row["share"], row["signed"]] for row in found["parcels"]]
    _same(program, "importance", np.array(numbers, float))


SEEDS = itertools.count(1000)


def new(program: Program) -> None:
    """Ask for pictures that nobody has drawn yet."""
    seed = next(SEEDS)
    found = program.ask("reconstruct", trial=program.trial, seed=seed)
    _own(program, found)
    if f"seed={seed}" not in found["link"] or found["truth"] != program.known["cached"][0]:
        raise WrongError(found["link"])


def visit(program: Program) -> None:
    """Open the page at the trial, and leave it."""
    program.send("GET", "/")
    config = json.loads(program.send("GET", "/config"))
    (load,) = (
        one["id"]
        for one in config["dependencies"]
        if any(event == "load" for _, event in one["targets"])
    )
    asked = {"fn_index": load, "data": [None], "session_hash": f"{random.random():.17f}"[2:]}
    query = urlencode({"trial": program.trial})
    shown = program.send("POST", f"/gradio_api/run/predict?{query}", asked).decode()
    if f'"stimulus":"{program.trial}"' not in shown.replace('": "', '":"'):
        raise WrongError(shown[:200])


def _own(program: Program, found: dict[str, Any]) -> None:
    if f"trial={program.trial}" not in found["link"].split("&"):
        raise WrongError(found["link"])


def _same(program: Program, what: str, value: Any) -> None:
    """Refuse an answer that differs from the one that nobody disturbed."""
    known = program.known.setdefault(what, value)
    alike = (
        np.allclose(known, value, rtol=1e-3, atol=1e-6, equal_nan=True)
        if isinstance(value, np.ndarray)
        else known == value
    )
    if not alike:
        raise WrongError(f"{what} of {program.trial}")


CALLS: dict[str, Callable[[Program], None]] = {
    "/trials": trials,
    "/reconstruct, kept": cached,
    "/reconstruct, new": new,
    "/importance": importance,
    "page visit": visit,
}


# ------------------------------------------------------------------------------------ many of them


@dataclass
class Seen:
    """Seconds by call, what failed, and whose answers were another's."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in CALLS})
    failed: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)

    def call(self, program: Program, name: str) -> None:
        """Make a call and note what came of it."""
        began = time.perf_counter()
        try:
            CALLS[name](program)
        except WrongError as error:
            self.mixed.append(f"{name} of {program.trial}: {error}")
        except Exception as error:  # whatever a connection raises is a failed call
            self.failed.append(f"{name}: {error!r}"[:200])
        self.seconds[name].append(time.perf_counter() - began)

    def part(self, name: str, share: float) -> float:
        """Return the quantile of a call's seconds, NaN without any."""
        found = self.seconds[name]
        return float(np.quantile(found, share)) if found else math.nan

    @property
    def calls(self) -> int:
        """How many calls were made."""
        return sum(map(len, self.seconds.values()))


def together(programs: list[Program], go_on: Callable[[], bool]) -> Seen:
    """Let every program call one thing after another, in an order of its own, while ``go_on``."""
    seen = Seen()

    def run(program: Program, number: int) -> None:
        rng, names = random.Random(number), list(CALLS)
        while go_on():
            seen.call(program, rng.choice(names))

    threads = [
        threading.Thread(target=run, args=(program, number), daemon=True)
        for number, program in enumerate(programs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


@contextlib.contextmanager
def serving(tree: Path, checkpoints: Path, simulated: Path | None) -> Iterator[tuple[int, int]]:
    """Start the app of a tree; give its port and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(tree / "app.py"), "--no-browser", "--port", str(port)]
    if "--no-store" in (tree / "app.py").read_text():  # older builds have none
        command += ["--no-store"]
    command += ["--checkpoints", str(checkpoints)]
    command += ["--dataset", f"simulated={simulated}"] if simulated else []
    with subprocess.Popen(command, cwd=tree, stdout=subprocess.DEVNULL) as app:
        try:
            until = time.monotonic() + PATIENCE
            while True:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    Program(port, {}, "").send("GET", "/")
                    break
                if app.poll() is not None or time.monotonic() > until:
                    raise OSError("The app did not start; its own words are above.")
                time.sleep(0.1)
            yield port, app.pid
        finally:
            app.terminate()


def described(port: int) -> dict[str, dict[str, Any]]:
    """Return the endpoints of a server with their parameters in order and the defaults."""
    told = json.loads(Program(port, {}, "").send("GET", "/gradio_api/info"))
    return {
        name.removeprefix("/"): {
            one["parameter_name"]: one.get("parameter_default") for one in said["parameters"]
        }
        for name, said in told["named_endpoints"].items()
    }


def measure_load(
    checkpoints: Path,
    simulated: Path | None,
    tree: Path = ROOT,
    clients: int = CLIENTS,
    seconds: float = SECONDS,
    requests: int = REQUESTS,
) -> list[Line]:
    """Return the lines of the part that has many users."""
    with serving(tree, checkpoints, simulated) as (port, process):
        parameters = described(port)
        everything = [
            row["stimulus"] for row in Program(port, parameters, "").ask("trials")["trials"]
        ]
        programs = [Program(port, parameters, trial) for trial in everything[:clients]]
        for program in programs:  # what each is answered alone, and what is then kept
            for call in (trials, cached, importance):
                call(program)
        alone = Seen()
        for number in range(ALONE):
            for name in CALLS:
                alone.call(programs[number % clients], name)
        until = time.monotonic() + seconds
        loaded = together(programs, lambda: time.monotonic() < until)
        lines = [line for name in CALLS for line in _times(name, alone, loaded)]
        lines += [
            (f"{clients} clients, {seconds:g} s: calls", str(loaded.calls), ""),
            ("... of which failed", str(len(loaded.failed)), "0"),
            ("... answered with another's", str(len(loaded.mixed) + len(alone.mixed)), "0"),
        ]
        lines += _memory(programs, process, requests)
    for trouble in (*alone.failed, *alone.mixed, *loaded.failed, *loaded.mixed)[:20]:
        sys.stderr.write(f"{trouble}\n")
    return lines


def _times(name: str, alone: Seen, loaded: Seen) -> Iterator[Line]:
    single, many = alone.part(name, 0.5), loaded.part(name, 0.5)
    yield (f"{name}, alone, p50 / p95", f"{single:.2f} / {alone.part(name, 0.95):.2f} s", "")
    told = f"{many:.2f} / {loaded.part(name, 0.95):.2f} s, {many / single:.0f} times"
    yield (f"{name}, with the others, p50 / p95, beside alone", told, "")


def _memory(programs: list[Program], process: int, requests: int) -> Iterator[Line]:
    """Yield resident memory before and after calls, answers nobody reads, and pages left."""
    before = resident_of(process)[0]
    left = itertools.count()
    seen = together(programs, lambda: next(left) < requests)
    after = resident_of(process)[0]
    yield (f"resident before {seen.calls} further calls", f"{before * 1e9 / MB:.0f} MB", "")
    yield ("... after them", f"{after * 1e9 / MB:.0f} MB ({(after - before) * 1e9 / MB:+.0f})", "")
    yield ("... failed / another's", f"{len(seen.failed)} / {len(seen.mixed)}", "0 / 0")
    for what, call in (("answers that nobody reads", _unread), ("pages that were left", visit)):
        before = resident_of(process)[0]
        for number in range(UNREAD):
            call(programs[number % len(programs)])
        trials(programs[0])
        change = (resident_of(process)[0] - before) * 1e9 / MB
        yield (f"... grown by {UNREAD} {what}", f"{change:+.0f} MB", "")


def _unread(program: Program) -> None:
    program.begin("reconstruct", trial=program.trial)


def main() -> int:
    """Run the part alone and print one line a figure."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/load.py", description=__doc__)
    add = parser.add_argument
    add("--tree", type=Path, default=ROOT, help="the project that is served [this one]")
    add("--checkpoints", type=Path, help="[the tree's own]")
    add("--simulated", type=Path, help="another copy of the embedded study")
    add("--clients", type=int, default=CLIENTS)
    add("--seconds", type=float, default=SECONDS)
    add("--requests", type=int, default=REQUESTS, help="between the two looks at memory")
    args = parser.parse_args()
    tree = args.tree.resolve()
    busy = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before"
    sys.stdout.write(f"{tree.name}: {busy}\n\n| what | figure | aim |\n|---|---|---|\n")
    for what, value, aim in measure_load(
        args.checkpoints or tree / "checkpoints",
        args.simulated,
        tree,
        args.clients,
        args.seconds,
        args.requests,
    ):
        sys.stdout.write(f"| {what} | {value} | {aim} |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
