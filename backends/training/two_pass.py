"""One optimiser step in two passes, the same however many processes and pieces compute it.

Each process computes the outputs of its own samples; all outputs are gathered, and every process
takes the loss over the whole batch, so that a contrastive loss sees every negative. The gradient
of the outputs then goes back through the model where they were computed, and parameters' gradients
are summed over processes (Gao et al. 2021, arXiv 2101.06983).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.training.plan import Course
from backends.training.rows import Batch, Outputs, TrialRows

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


@dataclass(eq=False)
class TwoPass:
    """Steps and validations of a model on one device, or on several in step.

    ``predict``, ``loss``, ``data`` and ``course`` as in `backends.training.engine.train_network`.
    """

    model: torch.nn.Module
    predict: Callable[[Batch], Outputs]
    loss: Callable[[Outputs, Batch], torch.Tensor]
    data: TrialRows
    course: Course
    accelerator: Accelerator
    device: torch.device

    def __post_init__(self) -> None:
        """Put the model where it is computed, and prepare the optimiser."""
        import torch

        course = self.course
        self.rank = self.accelerator.process_index
        self.processes = self.accelerator.num_processes
        self.half = course.precision == "bf16" or (
            course.precision == "auto"
            and self.device.type == "cuda"
            and torch.cuda.is_bf16_supported()
        )
        self.model.to(self.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=course.lr, betas=(0.9, 0.99), weight_decay=course.weight_decay
        )

    def step(self, samples: np.ndarray, epoch: int, rate: float) -> float:
        """Take one optimiser step and return the loss of its batch, the same on every process.

        A loss or a gradient that is not finite changes no weight.
        """
        import torch

        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        places = np.array_split(np.arange(len(samples)), self.processes)[self.rank]
        pieces = np.array_split(places, self.course.accumulate)
        once = len(pieces) == 1
        with nullcontext() if once else torch.no_grad():  # pieces are computed again below
            parts = [self._predict(samples[piece], epoch) for piece in pieces]
        whole = self._gather(parts, len(samples))
        for outputs in whole.values():
            outputs.requires_grad_()
        value = self.loss(whole, self.batch(samples, epoch))
        value.backward()
        for piece in pieces:
            part = parts[0] if once else self._predict(samples[piece], epoch)
            used = [k for k, z in part.items() if z.requires_grad and whole[k].grad is not None]
            rows = torch.from_numpy(piece).to(self.device)
            torch.autograd.backward([part[k] for k in used], [whole[k].grad[rows] for k in used])
        number = self._sum_gradients(value.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.course.clip)
        if not norm.isfinite():
            return math.nan
        if math.isfinite(number):
            self.optimiser.step()
        return number

    def batch(self, samples: np.ndarray, epoch: int, training: bool = True) -> Batch:
        """Return these samples of an epoch as a batch on this device."""
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
            outputs = self.predict(self.batch(samples, epoch, training))
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

    def validate(
        self,
        held_out: np.ndarray,
        size: int,
        measure: Callable[[Outputs, Batch], Mapping[str, float]] | None = None,
    ) -> tuple[float, dict[str, float]]:
        """Return the mean loss of held-out samples in batches of ``size``, and further figures.

        ``measure`` gives these from the outputs of all, on the first process alone.
        """
        import torch

        self.model.eval()
        parts = np.array_split(held_out, -(-len(held_out) // size))
        total, found = 0.0, []
        with torch.no_grad():
            for samples in parts:
                if len(samples) < self.processes:  # too few to share out
                    outputs = self._predict(samples, 0, training=False)
                else:
                    mine = np.array_split(samples, self.processes)[self.rank]
                    outputs = self._gather([self._predict(mine, 0, False)], len(samples))
                total += len(samples) * float(self.loss(outputs, self.batch(samples, 0, False)))
                if measure:
                    found.append({key: z.cpu() for key, z in outputs.items()})
        self.model.train()
        value = torch.tensor(total / len(held_out), device=self.device)
        if self.processes > 1:  # all must come to the same decision
            value = self.accelerator.reduce(value, "mean")
        if not measure or self.rank:
            return float(value), {}
        whole = {key: torch.cat([part[key] for part in found]) for key in found[0]}
        batch = Batch(self.data, held_out)
        return float(value), dict(measure(whole, batch))
