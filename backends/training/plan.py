"""How long and how fast a model learns, in which batches, and how that is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer.types import UserError

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


def clock(seconds: float) -> str:
    """Return a duration as people write it: ``42 s``, ``7 min 05 s``."""
    minutes, rest = divmod(int(round(seconds)), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def in_chunks(n: int, size: int) -> Iterator[slice]:
    """Yield slices that cover ``range(n)`` in pieces of at most ``size``."""
    for begin in range(0, n, size):
        yield slice(begin, min(n, begin + size))


@dataclass(frozen=True)
class Course:
    """How a mapper learns.

    ``batch`` counts the trials of one optimiser step over all processes; ``accumulate`` is the
    number of pieces in which each process computes its share, which saves memory and changes no
    result. ``validation`` is the share of training stimuli held out (0 holds out none);
    training stops after ``patience`` epochs without a better validation loss (0 never stops).
    ``warmup`` is the share of steps in which the rate rises to ``lr``; then it falls to zero as a
    cosine. ``precision`` "auto" is bf16 on a GPU that has it, else float32.
    """

    epochs: int = 40
    batch: int = 256
    lr: float = 3e-4
    weight_decay: float = 0.01
    warmup: float = 0.05
    clip: float = 1.0
    patience: int = 8
    validation: float = 0.1
    accumulate: int = 1
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing can be learned."""
        for name in ("epochs", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is a whole number from 1, found {getattr(self, name)}.")
        if self.lr <= 0 or self.clip <= 0 or self.weight_decay < 0 or self.patience < 0:
            raise UserError(
                "lr and clip are above 0, weight_decay and patience are not below 0, found "
                f"lr={self.lr:g}, clip={self.clip:g}, weight_decay={self.weight_decay:g}, "
                f"patience={self.patience}."
            )
        if not (0 <= self.validation < 1 and 0 <= self.warmup < 1):
            raise UserError(
                "validation and warmup are shares from 0 to below 1, found "
                f"validation={self.validation:g}, warmup={self.warmup:g}."
            )
        if self.precision not in ("auto", "fp32", "bf16"):
            raise UserError(f"precision is auto, fp32 or bf16, found {self.precision!r}.")


@dataclass(frozen=True)
class History:
    """How a training went: one validation loss an epoch, and the epoch (from 1) that was kept.

    ``stopped`` says in one sentence why it ended before its last epoch, "" if it did not.
    """

    epochs: int
    kept: int
    validation: tuple[float, ...]
    seconds: float
    stopped: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return what a card tells of it."""
        best = self.validation[self.kept - 1] if self.validation else None
        told = {"epochs": self.epochs, "epoch kept": self.kept, "stopped": self.stopped}
        return told | {"validation loss": best if best is None else round(best, 5)}
