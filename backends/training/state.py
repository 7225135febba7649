"""The state of an interrupted training on disk, from which it goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STATE = "state.pt"  # of a mapper's training, one a stage
EVERY = 120.0  # seconds from one state to the next


def due(saved: float) -> bool:
    """Return whether the last state, of this monotonic time, is old enough for another."""
    return time.monotonic() - saved > EVERY


def write_state(state: Mapping[str, Any], file: Path) -> None:
    """Write a state whole or not at all."""
    import torch

    part = file.with_suffix(".part")
    try:
        torch.save(state, part)
    except (OSError, RuntimeError):
        part.unlink(missing_ok=True)  # it would fill what is left of the disk
        raise
    os.replace(part, file)
