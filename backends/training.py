"""One training loop for small models: time left, checkpoints, resume, averaged weights."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explorer.types import UserError

if TYPE_CHECKING:
    import torch

CHECKPOINT_SECONDS = 120.0
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How long and how fast a model learns.

    ``steps`` optimiser steps of AdamW at peak rate ``lr`` (linear warm-up, then cosine to zero).
    ``average`` is the decay of the averaged copy of the weights (0 keeps none); it warms up as
    (1 + step) / (10 + step), so that early steps are forgotten (after the schedule in the
    TensorFlow documentation of ``ExponentialMovingAverage``).
    """

    steps: int
    lr: float
    weight_decay: float = 0.01
    warmup: int = 100
    clip: float = 1.0
    average: float = 0.0
    seed: int = 0

    def rate(self, step: int) -> float:
        """Return the learning rate of a 0-based step."""
        warm = min(1.0, (step + 1) / max(1, min(self.warmup, self.steps // 5)))
        return self.lr * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def batches(n: int, size: int, step: int, seed: int) -> np.ndarray:
    """Return the rows of one batch: each row once an epoch, in an order of step and seed alone.

    A resumed run therefore sees the rows that an uninterrupted one would have seen.
    """
    per_epoch = max(1, n // size)
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return order[position * size : (position + 1) * size]


def best_device(wanted: str = "auto") -> str:
    """Return a torch device string: the one asked for, or a GPU when there is one."""
    import torch

    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of installed packages, for a card."""
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def clock(seconds: float) -> str:
    """Return a duration as people write it: ``42 s``, ``7 min 05 s``."""
    minutes, rest = divmod(int(round(seconds)), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def fit(
    name: str,
    model: torch.nn.Module,
    loss: Callable[[int, torch.Generator], torch.Tensor],
    plan: Plan,
    *,
    work: Path,
    device: str = "cpu",
    progress: Progress | None = None,
) -> float:
    """Train ``model`` in place and return the seconds it took over all resumed runs.

    Parameters
    ----------
    name : what progress lines and the resume file are called.
    model : the module to optimise; left in eval mode with the averaged weights.
    loss : ``loss(step, generator)`` gives the scalar loss of a 0-based step. All randomness must
        come from the generator (CPU, seeded with plan and step), so that a resumed run repeats.
    work : folder for ``<name>.state.pt``, written every two minutes and kept at the end.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    work.mkdir(parents=True, exist_ok=True)
    state_file = work / f"{name}.state.pt"
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=plan.lr, betas=(0.9, 0.99), weight_decay=plan.weight_decay
    )
    averaged = (
        {k: v.detach().clone() for k, v in model.state_dict().items()} if plan.average else {}
    )
    start, spent = 0, 0.0
    if state_file.exists():
        start, spent = _resume(state_file, model, optimiser, averaged, plan, name)
    model.train()
    began = saved = told = time.monotonic()
    running = None
    for step in range(start, plan.steps):
        generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(step)
        # on a CPU plain products are faster than PyTorch's fused attention, above all backwards
        attention = sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()
        with attention, torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
            value = loss(step, generator)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        optimiser.step()
        _average(averaged, model, plan, step)
        number = float(value.detach())
        if not math.isfinite(number):
            raise UserError(
                f"{name}: the loss became {number} at step {step}; lower the learning rate."
            )
        running = number if running is None else 0.98 * running + 0.02 * number
        now = time.monotonic()
        if progress and (now - told > 10 or step + 1 == plan.steps):
            told, done = now, step + 1
            left = (now - began) / (done - start) * (plan.steps - done)
            progress(f"{name}: step {done}/{plan.steps}, loss {running:.4f}, {clock(left)} left")
        if now - saved > CHECKPOINT_SECONDS:
            _save(state_file, model, optimiser, averaged, step + 1, spent + now - began, plan)
            saved = time.monotonic()
    total = spent + time.monotonic() - began
    if start < plan.steps:
        _save(state_file, model, optimiser, averaged, plan.steps, total, plan)
    if averaged:
        model.load_state_dict(averaged)
    model.eval()
    return total


def _average(
    averaged: dict[str, torch.Tensor], model: torch.nn.Module, plan: Plan, step: int
) -> None:
    """Move the averaged copy towards the model's weights."""
    import torch

    decay = min(plan.average, (1 + step) / (10 + step))
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if not averaged:
                return
            if value.is_floating_point():
                averaged[key].lerp_(value, 1 - decay)
            else:
                averaged[key].copy_(value)


def _save(
    file: Path,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    averaged: dict[str, torch.Tensor],
    step: int,
    seconds: float,
    plan: Plan,
) -> None:
    import torch

    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "averaged": averaged,
        "step": step,
        "seconds": seconds,
        "plan": repr(plan),
    }
    part = file.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, file)


def _resume(
    file: Path,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    averaged: dict[str, torch.Tensor],
    plan: Plan,
    name: str,
) -> tuple[int, float]:
    import torch

    state = torch.load(file, map_location="cpu", weights_only=True)
    if state["plan"] != repr(plan):
        raise UserError(
            f"{name}: {file.name} belongs to another training plan ({state['plan']}, not "
            f"{plan!r}); delete it to begin anew."
        )
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    for key, value in state["averaged"].items():
        averaged[key].copy_(value)
    return int(state["step"]), float(state["seconds"])


def in_chunks(n: int, size: int) -> Iterator[slice]:
    """Yield slices that cover ``range(n)`` in pieces of at most ``size``."""
    for begin in range(0, n, size):
        yield slice(begin, min(n, begin + size))
