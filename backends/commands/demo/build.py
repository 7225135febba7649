"""What the stages of the embedded study share: sizes, scenes, pictures, how models are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from backends.simulation.scenes import Scene, render, sample_scenes
from backends.training.counted import count
from backends.training.fit import fit
from backends.training.machine import versions
from backends.training.plan import Plan, Progress, clock, in_chunks
from explorer.mapper import write_checkpoint
from explorer.types import Card

LICENCE = "MIT"
# The pictures the models learn from; the study's stimuli have seeds of their own.
LIBRARY_SEED = 17
HELD_OUT_SEED = 18  # the figures on the cards are measured on these


@dataclass(frozen=True)
class Sizes:
    """How much is made and for how long each model learns."""

    pictures: int
    held_out: int
    clip: Plan
    clip_batch: int
    autoencoder: Plan
    autoencoder_batch: int
    judge: Plan
    judge_batch: int
    denoiser: Plan
    denoiser_batch: int
    adapters: Plan
    adapters_batch: int
    solver_pictures: int


FULL = Sizes(
    pictures=16_000,
    held_out=512,
    clip=Plan(steps=1_500, lr=1e-3, weight_decay=0.1, warmup=100, average=0.99, seed=1),
    clip_batch=192,
    autoencoder=Plan(steps=6_000, lr=4e-4, warmup=200, average=0.998, seed=2),
    autoencoder_batch=8,
    judge=Plan(steps=1_000, lr=3e-3, weight_decay=0.05, average=0.98, seed=3),
    judge_batch=64,
    denoiser=Plan(steps=9_000, lr=7e-4, weight_decay=0.01, warmup=300, average=0.999, seed=4),
    denoiser_batch=64,
    adapters=Plan(steps=500, lr=2e-3, warmup=50, average=0.98, seed=5),
    adapters_batch=256,
    solver_pictures=128,
)
QUICK = Sizes(
    pictures=192,
    held_out=48,
    clip=Plan(steps=12, lr=1e-3, seed=1),
    clip_batch=48,
    autoencoder=Plan(steps=12, lr=1e-3, average=0.99, seed=2),
    autoencoder_batch=8,
    judge=Plan(steps=12, lr=2e-3, seed=3),
    judge_batch=48,
    denoiser=Plan(steps=12, lr=6e-4, average=0.99, seed=4),
    denoiser_batch=16,
    adapters=Plan(steps=12, lr=1e-3, seed=5),
    adapters_batch=48,
    solver_pictures=8,
)


class Build:
    """One build: where its files go and what its stages share.

    ``work`` keeps the rendered pictures and the resume files; ``checkpoints`` and ``assets`` what
    ships. Each stage is a function of a build.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        assets: Path,
        checkpoints: Path,
        work: Path,
        device: str,
        command: str,
        progress: Progress,
    ) -> None:
        self.sizes, self.assets, self.checkpoints, self.work = sizes, assets, checkpoints, work
        self.device, self.command, self.progress = device, command, progress
        self.quick = sizes is QUICK
        work.mkdir(parents=True, exist_ok=True)
        checkpoints.mkdir(parents=True, exist_ok=True)

    @cached_property
    def library(self) -> list[Scene]:
        """The scenes that the models learn from."""
        return sample_scenes(self.sizes.pictures, LIBRARY_SEED)

    @cached_property
    def held_out(self) -> list[Scene]:
        """Scenes that no model learns from."""
        return sample_scenes(self.sizes.held_out, HELD_OUT_SEED)

    @cached_property
    def pictures(self) -> torch.Tensor:
        """The library rendered: uint8 (n, 3, 128, 128), kept in the work folder."""
        return self.rendered("library", self.library)

    @cached_property
    def held_out_pictures(self) -> torch.Tensor:
        """The held-out scenes rendered: uint8 (n, 3, 128, 128)."""
        return self.rendered("held-out", self.held_out)

    def rendered(self, name: str, scenes: Sequence[Scene]) -> torch.Tensor:
        """Return the scenes as pictures uint8 (n, 3, 128, 128); drawn once, then kept."""
        file = self.work / f"{name}-{len(scenes)}.npy"
        if not file.exists():
            pixels = np.empty((len(scenes), 3, 128, 128), np.uint8)
            for i, scene in enumerate(scenes):
                pixels[i] = render(scene).transpose(2, 0, 1)
                self.progress(count(name, i + 1, len(scenes), "pictures", "rendered"))
            part = file.with_suffix(".part.npy")
            np.save(part, pixels)
            part.replace(file)
        return torch.from_numpy(np.load(file, allow_pickle=False))

    def batch(self, pictures: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Return chosen pictures as pixels float32 (n, 3, 128, 128) in [-1, 1] on the device."""
        chosen = pictures[torch.from_numpy(rows)].to(self.device)
        return chosen.float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)

    def held_out_batches(self) -> list[torch.Tensor]:
        """Return the held-out pictures as pixels, 64 at a time."""
        every = self.held_out_pictures
        return [
            self.batch(every, np.arange(part.start, part.stop))
            for part in in_chunks(len(every), 64)
        ]

    def half_precision(self) -> torch.autocast:
        """Return the context in which the examples are made: rounding does no harm there."""
        return torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16)

    def fit(
        self,
        name: str,
        model: torch.nn.Module,
        loss: Callable[[int, torch.Generator], torch.Tensor],
        plan: Plan,
    ) -> float:
        """Train a model, or go on where it stopped; gives the seconds of training in all."""
        return fit(
            name, model, loss, plan, work=self.work, device=self.device, progress=self.progress
        )

    def write(
        self,
        name: str,
        kind: str,
        model: torch.nn.Module,
        seconds: float,
        settings: Mapping[str, Any],
        metrics: Mapping[str, Any],
        **card: Any,
    ) -> None:
        """Write a trained model and its card, and say its figures."""
        settings = dict(settings)
        architecture = settings.pop("architecture")
        write_checkpoint(
            self.checkpoints / name,
            model.state_dict(),
            Card(
                kind=kind,
                name=name,
                cls=name,
                dataset="simulated",
                command=self.command,
                licence=LICENCE,
                settings={"library_seed": LIBRARY_SEED, "pictures": self.sizes.pictures}
                | settings,
                metrics=metrics,
                seconds=round(seconds, 3),
                device=device_name(self.device),
                versions=versions("torch", "diffusers", "open_clip_torch", "numpy"),
                **card,
            ),
            half=True,
            architecture=architecture,
        )
        told = ", ".join(f"{k} {v:.3g}" for k, v in metrics.items() if isinstance(v, float))
        self.progress(f"{name}: written after {clock(seconds)} of training; {told}")


def shifted(pixels: torch.Tensor, dx: int, dy: int) -> torch.Tensor:
    """Return pixels (n, 3, H, W) moved right by dx and down by dy, borders repeated."""
    room = max(abs(dx), abs(dy))
    if not room:
        return pixels
    padded = F.pad(pixels, (room,) * 4, mode="replicate")
    height, width = pixels.shape[2:]
    return padded[:, :, room - dy : room - dy + height, room - dx : room - dx + width]


def device_name(device: str) -> str:
    """Return what the card says of the hardware: the GPU's name, or the number of CPU threads."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"
