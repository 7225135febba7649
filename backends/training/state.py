"""The state of an interrupted training on disk, from which it goes on.

torch writes a zip with a CRC-32 of every part and does not look at it when it reads; `read_state`
does, so that a changed byte is noticed.
"""

from __future__ import annotations

import itertools
import os
import time
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.files import guard, plain_tensor, reason

if TYPE_CHECKING:
    import torch

STATE = "state.pt"  # of a mapper's training, one a stage
EVERY = 120.0  # seconds from one state to the next
WHAT, ANEW = "the state of a training", "delete it to begin anew"


def due(saved: float) -> bool:
    """Return whether the last state, of this monotonic time, is old enough for another."""
    return time.monotonic() - saved > EVERY


def write_state(state: Mapping[str, Any], file: Path) -> None:
    """Write a state whole or not at all."""
    import torch

    part = file.with_suffix(".part")
    try:
        with part.open("wb") as whole:
            torch.save(state, whole)
            whole.flush()
            os.fsync(whole.fileno())  # after a power cut the name would stand for an empty file
        os.replace(part, file)
    except (OSError, RuntimeError):
        part.unlink(missing_ok=True)  # it would fill what is left of the disk
        raise


def read_state(
    file: Path, keys: Collection[str], say: Callable[[str], None], mine: bool = True
) -> dict[str, Any] | None:
    """Return a state, None where there is none; a damaged one is set aside, which is said.

    Parameters
    ----------
    file
        As `write_state` wrote it.
    keys
        What a state has.
    say
        Called with a sentence where the training begins anew.
    mine
        Whether this process may rename it; of several, one.
    """
    import torch

    if not file.exists():
        return None
    try:
        with zipfile.ZipFile(file) as parts:
            if wrong := parts.testzip():
                raise ValueError(f"{wrong} in it has changed")
        state = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or set(state) != set(keys):
            raise ValueError("it is no state of a training")
    except Exception as error:  # whatever zipfile and torch raise of damaged files
        why = "it is empty" if not file.stat().st_size else reason(error)
        told = f"{file} cannot be gone on from ({why})"
        if mine:
            aside = _aside(file)
            file.rename(aside)
            say(f"{told}; it is now called {aside.name}, and the training begins anew.")
        return None
    return state


def _aside(file: Path) -> Path:
    """Return a name that is free for a damaged file."""
    numbers = itertools.count(2)
    aside = file.with_name(f"{file.name}.damaged")
    while aside.exists():
        aside = file.with_name(f"{file.name}.damaged-{next(numbers)}")
    return aside


@contextmanager
def resuming(file: Path) -> Iterator[None]:
    """Turn what a state of other names, types or shapes leads to into one `UserError`."""
    with guard(file, WHAT, ANEW):
        yield


def tensors_like(found: Any, expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors by name after comparing names, shapes and types; `ValueError` for others."""
    if not isinstance(found, dict) or set(found) != set(expected):
        raise ValueError("its tensors are those of another model")
    for name, value in found.items():
        tensor, own = plain_tensor(value, repr(name)), expected[name]
        if tensor.shape != own.shape or tensor.dtype != own.dtype:
            raise ValueError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {own.dtype} "
                f"{tuple(own.shape)}"
            )
    return found


def load_optimiser(optimiser: torch.optim.Optimizer, found: Any) -> None:
    """Load the state of an optimiser, of whose tensors torch does not compare the shapes."""
    import torch

    optimiser.load_state_dict(found)
    for parameter, values in optimiser.state.items():
        for name, value in values.items():
            if not isinstance(value, torch.Tensor) or value.shape not in ((), parameter.shape):
                raise ValueError(f"{name} of its optimiser does not fit the model")


def steps_done(state: Mapping[str, Any], most: int) -> tuple[int, float]:
    """Return the step, 0 to ``most``, and the seconds that a state was written after."""
    step, seconds = state["step"], float(state["seconds"])
    if type(step) is not int or not 0 <= step <= most or not 0 <= seconds < float("inf"):
        raise ValueError(f"it says step {step!r} of {most} after {seconds:g} seconds")
    return step, seconds
