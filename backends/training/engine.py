"""The training loop of mappers: trials by rows, held-out stimuli, early stopping, processes.

`train_network` says how much time is left, resumes to the same result after an interruption, and
runs on one process or, under ``accelerate launch``, on several.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.training.counted import Counted
from backends.training.plan import Course, History, Plan, Progress, batches, clock
from backends.training.rows import Batch, Outputs, TrialRows
from backends.training.state import (
    STATE,
    due,
    load_optimiser,
    read_state,
    resuming,
    steps_done,
    tensors_like,
    write_state,
)
from backends.training.two_pass import TwoPass
from explorer.types import UserError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

TRACKERS = ("tensorboard", "wandb")
KEYS = ("key", "model", "optimiser", "best", "validation", "step", "seconds", "stopped")
DRAWN = 6  # validation trials whose pictures a tracker shows
DRAWING = 0.05  # of the training time so far, at most, before more pictures are drawn


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

    The loss of a step is that of the whole batch, and the result that of one process and one
    piece, whatever ``accumulate`` and the number of processes; see `backends.training.two_pass`.

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

        course, data = self.course, self.data
        self.tracked = bool(self.run and self.trackers)
        self.accelerator = _accelerator(self.wanted, self.run, self.trackers)
        self.rank, self.processes = (
            self.accelerator.process_index,
            self.accelerator.num_processes,
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
        device = self.accelerator.device if self.processes > 1 else torch.device(self.wanted)
        self.computing = TwoPass(
            *(self.model, self.predict, self.loss, data, course, self.accelerator, device)
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
        self.began = self.saved = time.monotonic()
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
            value = self.computing.step(self.train[rows], epoch, self.plan.rate(self.step))
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
            if due(self.saved):
                self._save()

    # ----------------------------------------------------------------------------------- one epoch

    def _finish_epoch(self) -> None:
        """Validate, remember the best weights, and decide whether more is worth it."""
        epoch = self.step // self.per_epoch
        if len(self.held_out):
            value, figures = self.computing.validate(self.held_out, self.size, self.measure)
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

    def _diverged(self, value: float, epoch: int) -> None:
        """Stop at a loss that is not finite; without one good epoch there is nothing to keep.

        ``epoch`` (from 0) is the one in which that happened.
        """
        advice = (
            f"try a lower lr (now {self.course.lr:g}), a smaller clip (now {self.course.clip:g})"
            + (" or precision=fp32" if self.computing.half else "")
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
        steps, spent = self.plan.steps, time.monotonic() - self.began
        left = 0 if self.stopped else spent / (self.step - self.first) * (steps - self.step)
        note = f"loss {self.running:.4f}"
        if self.validation:
            note += f", validation {self.validation[-1]:.4f} (best {min(self.validation):.4f})"
        epoch = -(-self.step // self.per_epoch)
        told = f"epoch {epoch}/{self.course.epochs}, step {self.step}/{steps}, {note}"
        counted = {"work": self.name, "done": self.step, "total": steps, "unit": "steps"}
        last = self.step == steps or bool(self.stopped)
        sentence = f"{self.name}: {told}, {clock(left)} left"
        self.say(Counted(sentence, **counted, note=note, last=last))

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
        here = [self.computing.device] if self.computing.device.type == "cuda" else []
        self.model.eval()
        with torch.random.fork_rng(here), torch.no_grad():
            batch = self.computing.batch(self.held_out[first], 0, False)
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
        shapes = [tuple(p.shape) for p in self.computing.parameters]
        return f"{self.course}; {self.data.fingerprint()}; {shapes}"

    def _save(self) -> None:
        self.saved = time.monotonic()
        if not self.run or self.rank:
            return
        state = {
            "key": self._key(),
            "model": self.model.state_dict(),
            "optimiser": self.computing.optimiser.state_dict(),
            "best": self.best,
            "validation": self.validation,
            "step": self.step,
            "seconds": self._seconds(),
            "stopped": self.stopped,
        }
        try:
            self.run.mkdir(parents=True, exist_ok=True)
            write_state(state, self.run / STATE)
        except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError
            raise UserError(
                f"{self.name}: {self.run / STATE} cannot be written ({error}); make room on that "
                "disk and give the same command again, it goes on from the last state."
            ) from error

    def _resume(self) -> None:
        if not self.run:
            return
        file = self.run / STATE
        state = read_state(file, KEYS, lambda why: self.say(f"{self.name}: {why}"), not self.rank)
        if state is None:
            return
        with resuming(file):
            if state["key"] != self._key():
                raise UserError(
                    f"{self.name}: {file} was left by a run with other settings or other trials; "
                    "delete it to begin anew, or give the settings of that run to go on with it."
                )
            own = self.model.state_dict()
            self.model.load_state_dict(tensors_like(state["model"], own))
            load_optimiser(self.computing.optimiser, state["optimiser"])
            self.best = tensors_like(state["best"], own) if state["best"] else {}
            self.validation = [float(value) for value in state["validation"]]
            self.step, self.spent = steps_done(state, self.plan.steps)
            self.stopped = str(state["stopped"])
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
