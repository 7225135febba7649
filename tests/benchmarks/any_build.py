"""What a script that runs in the root of any build asks of it, whatever its modules are called."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

sys.path.insert(0, os.getcwd())
SWEEP = (0.0, 1.0, 2.0, 4.0, 8.0)


def found(*names: str) -> Any:
    """Return the first module of these that this build has."""
    for name in names:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name and not name.startswith(error.name):
                raise  # a library is lacking
    raise SystemExit("this is no root of a build of this project")


def bench() -> Any:
    """Return the workbench that ``python app.py`` opens, which keeps nothing on disk."""
    app = found("app")
    given = ["--no-browser", "--device", "cpu"]
    if "--no-store" in app.arguments().format_help():
        given.append("--no-store")
    return app.open_workbench(app.arguments().parse_args(given))


def requests(bench: Any) -> Iterator[Any]:
    """Yield requests for sweeps of the embedded study's first subject, each of another trial."""
    from dataclasses import replace

    asked = {"dataset": "simulated", "seed": 0, "mapper": "ridge", "scales": SWEEP}
    if hasattr(bench, "default_request"):
        first = bench.default_request(**asked)
        gallery = bench.gallery(first.dataset, first.subject)
    else:
        first = found("explorer.choosing").default_request(bench.catalogue, **asked)
        gallery = bench.catalogue.gallery(first.dataset, first.subject)
    for stimulus in gallery.index:
        yield replace(first, stimulus=stimulus)


def pictures(bench: Any, request: Any) -> list[Any]:
    """Return the finished pictures of a request, uint8 (H, W, 3) each, in order of the scales."""
    if hasattr(bench, "reconstruct"):
        frames = bench.reconstruct(request)
    else:
        frames = found("explorer.drawing").reconstruct(bench, request)
    done = {frame.index: frame.image for frame in frames if frame.done}
    return [done[index] for index in sorted(done)]


def condition(bench: Any, request: Any) -> Any:
    """Return what a generator draws a request from."""
    if hasattr(bench, "condition"):
        return bench.condition(request)
    return found("explorer.drawing").condition_of(bench, request)
