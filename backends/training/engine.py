"""Two training loops: `fit` for the models that ship, `train_network` for mappers.

Both say how much time is left and resume to the same result after an interruption. `train_network`
reads trials by rows, holds stimuli out for early stopping, and runs on one process or, under
``accelerate launch``, on several.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.types import EmbeddingSpace, Trials, UserError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

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
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "averaged": averaged,
        "step": step,
        "seconds": seconds,
        "plan": repr(plan),
    }
    _put(state, file)


def _put(state: Mapping[str, Any], file: Path) -> None:
    """Write a state whole or not at all."""
    import torch

    part = file.with_suffix(".part")
    try:
        torch.save(state, part)
    except (OSError, RuntimeError):
        part.unlink(missing_ok=True)  # it would fill what is left of the disk
        raise
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


# ---------------------------------------------------------------------------------------- mappers

STATE = "state.pt"
TRACKERS = ("tensorboard", "wandb")
DRAWN = 6  # validation trials whose pictures a tracker shows
DRAWING = 0.05  # of the training time so far, at most, before more pictures are drawn
Outputs = Mapping[Any, "torch.Tensor"]


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


class TrialRows:
    """The training rows of one or several subjects and what they should become.

    Betas stay where they are and are read by rows. A sample is a training row of a subject;
    samples are numbered subject after subject, in the order of the rows. A subject's synthetic
    rows, if any, are samples too, but are never held out.

    Parameters
    ----------
    trials
        One entry a subject.
    targets
        Space -> stimulus -> embedding of the space's shape, for every training stimulus; empty
        where nothing but the betas is learned from.
    """

    def __init__(
        self,
        trials: Sequence[Trials],
        targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        from backends.training.ridge_solver import stack

        self.trials = {one.subject.name: one for one in trials}
        rows = {name: one.rows("train") for name, one in self.trials.items()}
        for name, found in rows.items():
            if not len(found):
                raise UserError(f"{name} has no training trials; a mapper learns from those.")
            if self.trials[name].table["stimulus"].iloc[found].nunique() < 2:
                raise UserError(
                    f"{name} has {len(found)} training trial(s) of one stimulus, too few to learn "
                    "from; leave that subject out, or mark more of its trials as train."
                )
        extra = {name: one.synthetic() for name, one in self.trials.items()}
        rows = {name: np.concatenate([found, extra[name]]) for name, found in rows.items()}
        self.rows = np.concatenate(list(rows.values()))
        self.subject = np.repeat(np.arange(len(rows)), [len(r) for r in rows.values()])
        self.measured = np.concatenate([~np.isin(rows[name], extra[name]) for name in rows])
        every = [one.table["stimulus"].iloc[rows[n]].to_numpy() for n, one in self.trials.items()]
        self.names, self.stimulus = np.unique(np.concatenate(every), return_inverse=True)
        repeats = [one.table["repeat"].iloc[rows[n]].to_numpy() for n, one in self.trials.items()]
        # a study with too few stimuli is split by repeat, so repeats are what can be held out
        shared = any(set(self.names) & set(one.stimuli("test")) for one in trials)
        self.group = np.concatenate(repeats) if shared else self.stimulus
        self.goals = {
            space: stack(space, found, self.names).reshape(-1, *space.shape)
            for space, found in (targets or {}).items()
        }

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.rows)

    def split(self, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the samples to learn from and those held out, all trials of a stimulus together.

        A stimulus that is held out for one subject is held out for all. ``share`` is that of the
        stimuli (of the repeats, where train and test share stimuli), at least one.
        """
        if not share:
            return np.arange(len(self)), np.arange(0)
        groups = np.unique(self.group[self.measured])
        count = max(1, round(share * len(groups)))
        if count >= len(groups):
            raise UserError(
                f"validation={share:g} of {len(groups)} training stimuli (or repeats) leaves none "
                "to learn from; choose a smaller share, or validation=0."
            )
        chosen = np.random.default_rng([seed, len(groups)]).permutation(groups)[:count]
        held_out = np.isin(self.group, chosen) & self.measured
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def fingerprint(self) -> str:
        """Return a short hash of which trials of which voxels are learned from, and to what."""
        digest = hashlib.sha256(" ".join(self.names).encode())
        for array in (self.rows, self.subject, self.stimulus):
            digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
        for one in self.trials.values():
            digest.update(f"{one.subject.name} {one.subject.voxels.hash}".encode())
        for space, goals in self.goals.items():
            some = goals[:: max(1, len(goals) // 64)].contiguous()  # all can be gigabytes
            digest.update(f"{space}".encode() + some.numpy().tobytes())
        return digest.hexdigest()[:16]


class Batch:
    """Some samples of `TrialRows`; betas and goals are read when they are asked for.

    ``samples`` int (n,); ``epoch`` from 0; ``training`` is False for validation, where nothing may
    be random.
    """

    def __init__(
        self,
        data: TrialRows,
        samples: np.ndarray,
        *,
        epoch: int = 0,
        seed: int = 0,
        training: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        self.data, self.samples, self.epoch = data, samples, epoch
        self.seed, self.training, self.device = seed, training, device

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    @cached_property
    def places(self) -> dict[str, np.ndarray]:
        """Subject -> int (n_s,), where in the batch that subject's samples are; none is empty."""
        owner = self.data.subject[self.samples]
        found = {name: np.flatnonzero(owner == i) for i, name in enumerate(self.data.trials)}
        return {name: places for name, places in found.items() if len(places)}

    @cached_property
    def betas(self) -> dict[str, torch.Tensor]:
        """Subject -> float32 (n_s, V), in the data's own unit."""
        import torch

        found = {}
        for name, places in self.places.items():
            rows = self.data.rows[self.samples[places]]
            order = np.argsort(rows)  # files are read forwards
            read = np.asarray(self.data.trials[name].betas[rows[order]], np.float32)
            betas = np.empty_like(read)
            betas[order] = read
            found[name] = torch.from_numpy(betas).to(self.device)
        return found

    @cached_property
    def stimuli(self) -> torch.Tensor:
        """int64 (n,): equal numbers are one stimulus, also across subjects."""
        import torch

        return torch.from_numpy(self.data.stimulus[self.samples]).to(self.device)

    @cached_property
    def goals(self) -> dict[EmbeddingSpace, torch.Tensor]:
        """Space -> float32 (n, *shape)."""
        rows = self.stimuli.cpu()
        return {space: z[rows].to(self.device) for space, z in self.data.goals.items()}

    def merge(self, parts: Mapping[str, Outputs]) -> dict[Any, torch.Tensor]:
        """Return outputs (n, ...) in the order of the batch from those of each subject."""
        import torch

        back = torch.from_numpy(np.argsort(np.concatenate([self.places[name] for name in parts])))
        back = back.to(self.device)
        keys = next(iter(parts.values()))
        return {key: torch.cat([part[key] for part in parts.values()])[back] for key in keys}

    def random(self, purpose: str, shape: Sequence[int], subject: str = "") -> torch.Tensor:
        """Return uniform numbers in [0, 1), float32 (n, *shape), or for one subject's samples.

        They depend on seed, epoch, sample and purpose alone: not on the batch that a sample is in,
        nor on the process that computes it.
        """
        import torch

        chosen = self.samples[self.places[subject]] if subject else self.samples
        word = zlib.crc32(purpose.encode())
        drawn = [
            np.random.default_rng([self.seed, self.epoch, sample, word]).random(shape, np.float32)
            for sample in chosen
        ]
        return torch.from_numpy(np.stack(drawn)).to(self.device)


def launched() -> tuple[int, int]:
    """Return the rank and the number of processes that ``accelerate launch`` gave this one."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def train_network(
    name: str,
    model: torch.nn.Module,
    predict: Callable[[Batch], Outputs],
    loss: Callable[[Outputs, Batch], torch.Tensor],
    data: TrialRows,
    course: Course,
    *,
    run: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    trackers: Collection[str] = ("tensorboard",),
    measure: Callable[[Outputs, Batch], Mapping[str, float]] | None = None,
    pictures: Callable[[Any, Batch], np.ndarray] | None = None,
) -> History:
    """Train the parameters of ``model`` that need a gradient, in place, and keep the best epoch.

    A step has two halves. Each process computes the outputs of its own samples; all outputs are
    gathered, and every process takes the loss over the whole batch, so that a contrastive loss
    sees every negative. The gradient of the outputs then goes back through the model where they
    were computed, and parameters' gradients are summed over processes. The result is that of one
    process and one piece, whatever ``accumulate`` and the number of processes (the two-pass scheme
    of Gao et al. 2021, arXiv 2101.06983).

    Parameters
    ----------
    name
        What progress lines and the tracker call it.
    model
        Left in eval mode on the CPU, with the weights of the best epoch (the last one without
        validation).
    predict
        Outputs (n, ...) of a batch's samples under any keys, in the order of the batch. All
        randomness must come from ``batch.random``.
    loss
        The scalar loss of gathered outputs (float32) and their batch; it has no parameters.
    data
        What is learned from.
    course
        How.
    run
        Folder for ``state.pt``, from which an interrupted run goes on, and for what trackers
        write. None keeps nothing.
    device
        Where to compute; under ``accelerate launch`` each process has its own.
    trackers
        "tensorboard", "wandb"; used only with a ``run`` folder.
    measure
        Further figures of all validation outputs, for the tracker.
    pictures
        Called with ``model`` and some validation samples for what trackers show of them, uint8
        (n, H, W, 3): after epochs, as long as that takes little of the time, and with the best
        weights at the end. It changes nothing about what is learned.

    Raises
    ------
    UserError
        When the loss is not finite before one epoch is finished. Later, training stops there, the
        best weights so far are kept, and ``History.stopped`` says so.
    """
    return _Training(
        *(name, model, predict, loss, data, course, run, device, progress, trackers, measure),
        pictures,
    ).go()


@dataclass(eq=False)
class _Training:
    """One run of `train_network`, whose arguments these are: what its parts share."""

    name: str
    model: torch.nn.Module
    predict: Callable[[Batch], Outputs]
    loss: Callable[[Outputs, Batch], torch.Tensor]
    data: TrialRows
    course: Course
    run: Path | None
    wanted: str
    progress: Progress | None
    trackers: Collection[str]
    measure: Callable[[Outputs, Batch], Mapping[str, float]] | None
    pictures: Callable[[Any, Batch], np.ndarray] | None

    def __post_init__(self) -> None:
        """Share out the work and prepare the optimiser."""
        import torch

        course, data, model = self.course, self.data, self.model
        self.tracked = bool(self.run and self.trackers)
        self.accelerator = _accelerator(self.wanted, self.run, self.trackers)
        self.rank, self.processes = (
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        self.device = self.accelerator.device if self.processes > 1 else torch.device(self.wanted)
        self.half = course.precision == "bf16" or (
            course.precision == "auto"
            and self.device.type == "cuda"
            and torch.cuda.is_bf16_supported()
        )
        silent = self.rank or not self.progress
        self.say = (lambda sentence: None) if silent else self.progress
        self.train, held_out = data.split(course.validation, course.seed)
        # shuffled, so that a batch of validation mixes subjects and stimuli as one of training
        self.held_out = np.random.default_rng(course.seed).permutation(held_out)
        self.size = min(course.batch, len(self.train))
        self.per_epoch = len(self.train) // self.size
        pieces = self.processes * course.accumulate
        if self.size < pieces:
            raise UserError(
                f"A batch of {self.size} trials cannot be cut into {pieces} pieces "
                f"({self.processes} process(es), accumulate={course.accumulate}); choose a larger "
                "batch or fewer pieces."
            )
        steps = self.per_epoch * course.epochs
        self.plan = Plan(
            steps, course.lr, course.weight_decay, round(course.warmup * steps), course.clip
        )
        model.to(self.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=course.lr, betas=(0.9, 0.99), weight_decay=course.weight_decay
        )
        self.step, self.spent, self.stopped, self.running = 0, 0.0, "", math.nan
        self.drawing = 0.0  # seconds
        self.validation: list[float] = []
        self.best: dict[str, torch.Tensor] = {}

    def go(self) -> History:
        """Train from where the run folder stands to the end."""
        self._resume()
        self._open_trackers()
        self.first = self.step
        self.began = self.saved = self.told = time.monotonic()
        try:
            self._steps()
            if self.step > self.first:
                if self.stopped:
                    self.say(f"{self.name}: {self.stopped}")
                self._save()
            self.model.load_state_dict(self.best)
            if self.step > self.first:
                self._draw(last=True)
        finally:  # not end_training, which would end the processes' group for the next training
            for tracker in self.accelerator.trackers:
                tracker.finish()
        self.model.to("cpu").eval()
        done = self.step // self.per_epoch
        kept = 1 + int(np.argmin(self.validation)) if self.validation else done
        return History(done, kept, tuple(self.validation), self._seconds(), self.stopped)

    def _steps(self) -> None:
        self.model.train()
        while self.step < self.plan.steps and not self.stopped:
            epoch = self.step // self.per_epoch
            rows = batches(len(self.train), self.size, self.step, self.course.seed)
            value = self._learn(self.train[rows], epoch)
            if not math.isfinite(value):
                self._diverged(value, epoch)
                return
            new = self.step == self.first
            self.running = value if new else 0.9 * self.running + 0.1 * value
            self._log({"loss": value, "learning rate": self.plan.rate(self.step)})
            self.step += 1
            if self.step % self.per_epoch == 0:
                self._finish_epoch()
            self._report()
            if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
                self._save()

    # ------------------------------------------------------------------------------------ one step

    def _learn(self, samples: np.ndarray, epoch: int) -> float:
        """Take one optimiser step and return the loss of its batch, the same on every process.

        A loss or a gradient that is not finite changes no weight.
        """
        import torch

        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.rate(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        places = np.array_split(np.arange(len(samples)), self.processes)[self.rank]
        pieces = np.array_split(places, self.course.accumulate)
        once = len(pieces) == 1
        with nullcontext() if once else torch.no_grad():  # pieces are computed again below
            parts = [self._predict(samples[piece], epoch) for piece in pieces]
        whole = self._gather(parts, len(samples))
        for outputs in whole.values():
            outputs.requires_grad_()
        value = self.loss(whole, self._batch(samples, epoch))
        value.backward()
        for piece in pieces:
            part = parts[0] if once else self._predict(samples[piece], epoch)
            used = [k for k, z in part.items() if z.requires_grad and whole[k].grad is not None]
            rows = torch.from_numpy(piece).to(self.device)
            torch.autograd.backward([part[k] for k in used], [whole[k].grad[rows] for k in used])
        number = self._sum_gradients(value.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.plan.clip)
        if not norm.isfinite():
            return math.nan
        if math.isfinite(number):
            self.optimiser.step()
        return number

    def _batch(self, samples: np.ndarray, epoch: int, training: bool = True) -> Batch:
        return Batch(
            self.data,
            samples,
            epoch=epoch,
            seed=self.course.seed,
            training=training,
            device=self.device,
        )

    def _predict(
        self, samples: np.ndarray, epoch: int, training: bool = True
    ) -> dict[Any, torch.Tensor]:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        kind = self.device.type
        # on a CPU plain products are faster than PyTorch's fused attention, above all backwards
        attention = sdpa_kernel(SDPBackend.MATH) if kind == "cpu" else nullcontext()
        with attention, torch.autocast(kind, dtype=torch.bfloat16, enabled=self.half):
            outputs = self.predict(self._batch(samples, epoch, training))
        return {key: z.float() for key, z in outputs.items()}

    def _gather(self, parts: Sequence[Outputs], total: int) -> dict[Any, torch.Tensor]:
        """Return this process's outputs with those of all others, (total, ...), no gradient."""
        import torch

        local = {key: torch.cat([part[key].detach() for part in parts]) for key in parts[0]}
        if self.processes == 1:
            return local
        counts = [len(c) for c in np.array_split(np.arange(total), self.processes)]
        longest = max(counts)  # what is gathered must be of one size
        keep = np.concatenate([longest * i + np.arange(c) for i, c in enumerate(counts)])
        rows = torch.from_numpy(keep).to(self.device)
        found = {}
        for key, z in local.items():
            padded = z.new_zeros(longest, *z.shape[1:])
            padded[: len(z)] = z
            found[key] = self.accelerator.gather(padded)[rows]
        return found

    def _sum_gradients(self, value: torch.Tensor) -> float:
        """Add up all processes' gradients; return the mean of their values of the loss.

        Parameters that no sample reached get zeros, so that all processes step alike.
        """
        import torch

        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.processes == 1:
            return float(value)
        grads = [parameter.grad for parameter in self.parameters]
        flat = torch.cat([*(g.reshape(-1) for g in grads), value.reshape(1)])
        flat = self.accelerator.reduce(flat, "sum")
        for grad, part in zip(grads, flat.split([*(g.numel() for g in grads), 1]), strict=False):
            grad.copy_(part.view_as(grad))
        return float(flat[-1]) / self.processes

    # ----------------------------------------------------------------------------------- one epoch

    def _finish_epoch(self) -> None:
        """Validate, remember the best weights, and decide whether more is worth it."""
        epoch = self.step // self.per_epoch
        if len(self.held_out):
            value, figures = self._validate()
            if not math.isfinite(value):
                self._diverged(value, epoch - 1)
                return
            self.validation.append(value)
            self._log({"validation loss": value} | figures)
            self._draw()
        if not self.validation or self.validation[-1] == min(self.validation):
            self.best = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
            return
        since = len(self.validation) - 1 - int(np.argmin(self.validation))
        if since >= self.course.patience > 0 and self.step < self.plan.steps:
            self.stopped = (
                f"The validation loss has not improved for {since} epochs; the weights of epoch "
                f"{epoch - since} are kept."
            )

    def _validate(self) -> tuple[float, dict[str, float]]:
        """Return the mean loss of the held-out samples in batches, and further figures."""
        import torch

        self.model.eval()
        parts = np.array_split(self.held_out, -(-len(self.held_out) // self.size))
        total, found = 0.0, []
        with torch.no_grad():
            for samples in parts:
                if len(samples) < self.processes:  # too few to share out
                    outputs = self._predict(samples, 0, training=False)
                else:
                    mine = np.array_split(samples, self.processes)[self.rank]
                    outputs = self._gather([self._predict(mine, 0, False)], len(samples))
                total += len(samples) * float(self.loss(outputs, self._batch(samples, 0, False)))
                if self.measure:
                    found.append({key: z.cpu() for key, z in outputs.items()})
        self.model.train()
        value = torch.tensor(total / len(self.held_out), device=self.device)
        if self.processes > 1:  # all must come to the same decision
            value = self.accelerator.reduce(value, "mean")
        if not self.measure or self.rank:
            return float(value), {}
        whole = {key: torch.cat([part[key] for part in found]) for key in found[0]}
        batch = Batch(self.data, self.held_out)
        return float(value), dict(self.measure(whole, batch))

    def _diverged(self, value: float, epoch: int) -> None:
        """Stop at a loss that is not finite; without one good epoch there is nothing to keep.

        ``epoch`` (from 0) is the one in which that happened.
        """
        advice = (
            f"try a lower lr (now {self.course.lr:g}), a smaller clip (now {self.course.clip:g})"
            + (" or precision=fp32" if self.half else "")
        )
        if not self.best:
            if self.run and not self.rank:
                (self.run / STATE).unlink(missing_ok=True)  # nothing to go on from
            raise UserError(
                f"{self.name}: the loss became {value} at step {self.step + 1}, before one epoch "
                f"was done; {advice}."
            )
        self.model.load_state_dict(self.best)
        self.stopped = (
            f"The loss became {value} in epoch {epoch + 1}; the best weights of the {epoch} "
            f"epoch(s) before it are kept; {advice}."
        )

    # ------------------------------------------------------------------------- what a person sees

    def _report(self) -> None:
        now, steps = time.monotonic(), self.plan.steps
        done = self.step == steps or self.stopped
        if now - self.told < 10 and not done:
            return
        self.told = now
        left = (now - self.began) / (self.step - self.first) * (steps - self.step)
        validation = ""
        if self.validation:
            validation = (
                f", validation {self.validation[-1]:.4f} (best {min(self.validation):.4f})"
            )
        epoch = -(-self.step // self.per_epoch)
        self.say(
            f"{self.name}: epoch {epoch}/{self.course.epochs}, step {self.step}/{steps}, loss "
            f"{self.running:.4f}{validation}, {clock(0 if self.stopped else left)} left"
        )

    def _open_trackers(self) -> None:
        if not self.tracked:
            return
        # a resumed run writes some steps again; the earlier record of them is dropped
        options = {
            "tensorboard": {"purge_step": self.step},
            "wandb": {"name": self.name, "dir": str(self.run)},
        }
        self.accelerator.init_trackers("afterimage", asdict(self.course), options)

    def _log(self, values: Mapping[str, float]) -> None:
        if self.tracked:
            self.accelerator.log(dict(values), step=self.step)

    def _draw(self, last: bool = False) -> None:
        """Let trackers show pictures of some validation trials, each of another stimulus."""
        import torch

        began = time.monotonic()
        if not (self.pictures and self.tracked and len(self.held_out)) or self.rank:
            return
        if not last and self.drawing > DRAWING * (began - self.began):
            return
        stimuli = self.data.stimulus[self.held_out]
        first = np.sort(np.unique(stimuli, return_index=True)[1])[:DRAWN]
        here = [self.device] if self.device.type == "cuda" else []
        self.model.eval()
        with torch.random.fork_rng(here), torch.no_grad():
            batch = self._batch(self.held_out[first], 0, False)
            images = self.pictures(self.model, batch)
        self.model.train()
        for tracker in self.accelerator.trackers:
            order = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"validation trials": images}, step=self.step, **order)
        self.drawing += time.monotonic() - began

    def _seconds(self) -> float:
        return self.spent + time.monotonic() - self.began

    # -------------------------------------------------------------------------------- interruption

    def _key(self) -> str:
        """Return what a state must agree in with this run: not the processes, nor the device."""
        shapes = [tuple(p.shape) for p in self.parameters]
        return f"{self.course}; {self.data.fingerprint()}; {shapes}"

    def _save(self) -> None:
        self.saved = time.monotonic()
        if not self.run or self.rank:
            return
        state = {
            "key": self._key(),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best": self.best,
            "validation": self.validation,
            "step": self.step,
            "seconds": self._seconds(),
            "stopped": self.stopped,
        }
        try:
            self.run.mkdir(parents=True, exist_ok=True)
            _put(state, self.run / STATE)
        except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError
            raise UserError(
                f"{self.name}: {self.run / STATE} cannot be written ({error}); make room on that "
                "disk and give the same command again, it goes on from the last state."
            ) from error

    def _resume(self) -> None:
        import torch

        file = self.run / STATE if self.run else None
        if file is None or not file.exists():
            return
        state = torch.load(file, map_location="cpu", weights_only=True)
        if state["key"] != self._key():
            raise UserError(
                f"{self.name}: {file} was left by a run with other settings or other trials; "
                "delete it to begin anew, or give the settings of that run to go on with it."
            )
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best, self.validation = state["best"], list(state["validation"])
        self.step, self.spent = int(state["step"]), float(state["seconds"])
        self.stopped = state["stopped"]
        self.say(f"{self.name}: goes on from step {self.step}/{self.plan.steps}")


def _accelerator(device: str, run: Path | None, trackers: Collection[str]) -> Accelerator:
    for tracker in trackers:
        if tracker not in TRACKERS:
            raise UserError(f"A tracker is one of {', '.join(TRACKERS)}, found {tracker!r}.")
    if "wandb" in trackers and find_spec("wandb") is None:
        raise UserError(
            "Weights & Biases was asked for, but the package wandb is not installed; install it "
            "with pip install wandb, or go without: TensorBoard's files are written anyway."
        )
    from accelerate import Accelerator

    wanted = list(trackers) if run else None
    return Accelerator(cpu=str(device) == "cpu", log_with=wanted or None, project_dir=run)
