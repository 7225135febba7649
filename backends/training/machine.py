"""What a training runs on: device, processes, versions of libraries."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version


def best_device(wanted: str = "auto") -> str:
    """Return a torch device string: the one asked for, or a GPU when there is one."""
    import torch

    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of installed packages, for a card."""
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def launched() -> tuple[int, int]:
    """Return the rank and the number of processes that ``accelerate launch`` gave this one."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
