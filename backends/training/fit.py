"""The loop that trains the models that ship: one process, weights averaged, resumed exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.training.counted import Counted
from backends.training.plan import Plan, Progress, clock
from backends.training.state import (
    due,
    load_optimiser,
    read_state,
    resuming,
    steps_done,
    tensors_like,
    write_state,
)
from explorer.files import short
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

KEYS = ("model", "optimiser", "averaged", "step", "seconds", "plan")


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
    say = progress or (lambda sentence: None)
    state = read_state(state_file, KEYS, lambda why: say(f"{name}: {why}"))
    if state is not None:
        start, spent = _resume(state, state_file, model, optimiser, averaged, plan, name)
    model.train()
    began = saved = time.monotonic()
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
        if progress:
            done, note = step + 1, f"loss {running:.4f}"
            left = clock((now - began) / (done - start) * (plan.steps - done))
            counted = {"work": name, "done": done, "total": plan.steps, "unit": "steps"}
            sentence = f"{name}: step {done}/{plan.steps}, {note}, {left} left"
            progress(Counted(sentence, **counted, note=note))
        if due(saved):
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
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "averaged": averaged,
        "step": step,
        "seconds": seconds,
        "plan": repr(plan),
    }
    write_state(state, file)


def _resume(
    state: Mapping[str, Any],
    file: Path,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    averaged: dict[str, torch.Tensor],
    plan: Plan,
    name: str,
) -> tuple[int, float]:
    with resuming(file):
        if state["plan"] != repr(plan):
            raise UserError(
                f"{name}: {file.name} belongs to another training plan ({short(state['plan'])}, "
                f"not {plan!r}); delete it to begin anew."
            )
        model.load_state_dict(tensors_like(state["model"], model.state_dict()))
        load_optimiser(optimiser, state["optimiser"])
        for key, value in tensors_like(state["averaged"], averaged).items():
            averaged[key].copy_(value)
        return steps_done(state, plan.steps)
