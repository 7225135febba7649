"""One training of a checkpoint at a time, which first puts right what a killed one left."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from backends.training.machine import launched
from backends.training.plan import Progress
from explorer.folders import held, mend
from explorer.types import FILES

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def holding(
    folder: Path, progress: Progress | None = None, work: str = "training"
) -> Iterator[None]:
    """Hold a checkpoint's folder while it is made; `UserError` where another process does.

    Of several processes that ``accelerate launch`` started, the first holds it for them all.
    ``progress`` is told what was left of it and mended.
    """
    if launched()[0]:
        yield
        return
    from explorer.mapper import is_whole

    with held(folder, work):
        for sentence in mend(folder.parent, is_whole, FILES, folder.name):
            if progress:
                progress(sentence)
        yield


def alone(train: Callable[P, R]) -> Callable[P, R]:
    """Make a function that trains hold its argument ``folder``, and tell its ``progress``."""
    signature = inspect.signature(train)

    @functools.wraps(train)
    def holds(*args: P.args, **named: P.kwargs) -> R:
        given = signature.bind(*args, **named).arguments
        with holding(Path(given["folder"]), given.get("progress")):
            return train(*args, **named)

    return holds
