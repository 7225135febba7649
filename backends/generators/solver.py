"""The steps from noise to picture: DPM-Solver++ in any number, or a few that were fitted.

The fitted ones are a bespoke non-stationary solver (Shaul et al. 2024, arXiv 2403.01329): the
noise levels at which the denoiser is asked, and after each step the weights of the starting noise
and of all pictures expected so far, x̂0. Every multistep solver is of this form.
`backends.commands.demo.pocket_solver` fits them to the paths that many steps take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.files import read_object
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

FILE = "solver.json"
STRONG = 5.0  # guidance scales above have weights of their own


@dataclass(frozen=True)
class Fitted:
    """As many steps as there are ``sigmas``, noise levels that fall from about 1.

    ``weights``: a row a step, (S, 1 + S), of the starting noise and of x̂0 of every step; 0 for
    steps yet to come. The last row gives the latents. ``strong``: those of pictures whose guidance
    scale is above `STRONG`, whose paths bend otherwise; () for the same.
    """

    sigmas: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    strong: tuple[tuple[float, ...], ...] = ()

    def begin(self, noise: torch.Tensor, scales: torch.Tensor) -> Walk:
        """Return the way of latents (n, ...) that begins at noise, at guidance scales (n,)."""
        import torch

        sigmas = torch.tensor(self.sigmas, device=noise.device)
        sets = torch.tensor([self.weights, self.strong or self.weights]).to(noise)
        return _FittedWalk(sigmas * 1000, sigmas, sets[(scales > STRONG).long()], noise)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, ready for JSON."""
        found = {"sigmas": list(self.sigmas), "weights": [list(row) for row in self.weights]}
        return found | ({"strong": [list(row) for row in self.strong]} if self.strong else {})


@dataclass(frozen=True)
class Multistep:
    """DPM-Solver++ in a number of steps (Lu et al. 2022); ``scheduler``: of diffusers."""

    steps: int
    scheduler: Mapping[str, Any]

    def begin(self, noise: torch.Tensor, scales: torch.Tensor | None = None) -> Walk:
        """Return the way of latents (n, ...) that begins at noise, the same at all ``scales``."""
        from diffusers import DPMSolverMultistepScheduler

        scheduler = DPMSolverMultistepScheduler(**self.scheduler)
        scheduler.set_timesteps(self.steps, device=noise.device)
        return _MultistepWalk(scheduler.timesteps, scheduler.sigmas, scheduler)


@dataclass
class Walk:
    """One way from noise to latents: ``timesteps`` and noise levels ``sigmas`` of its steps."""

    timesteps: torch.Tensor
    sigmas: torch.Tensor

    def next(
        self, latents: torch.Tensor, velocity: torch.Tensor, clean: torch.Tensor
    ) -> torch.Tensor:
        """Return the next latents (n, ...) after a velocity and the x̂0 that it means."""
        raise NotImplementedError


@dataclass
class _FittedWalk(Walk):
    weights: torch.Tensor  # (n, S, 1 + S)
    noise: torch.Tensor
    cleans: list[torch.Tensor] = field(default_factory=list)

    def next(
        self, latents: torch.Tensor, velocity: torch.Tensor, clean: torch.Tensor
    ) -> torch.Tensor:
        weights = self.weights[:, len(self.cleans), :, None, None, None]
        self.cleans.append(clean)
        latents = weights[:, 0] * self.noise
        for number, one in enumerate(self.cleans, start=1):  # the rest is yet to come
            latents = latents + weights[:, number] * one
        return latents


@dataclass
class _MultistepWalk(Walk):
    scheduler: Any

    def next(
        self, latents: torch.Tensor, velocity: torch.Tensor, clean: torch.Tensor
    ) -> torch.Tensor:
        timestep = self.timesteps[self.scheduler.step_index or 0]
        return self.scheduler.step(velocity, timestep, latents, return_dict=False)[0]


def read_solver(folder: Path) -> Fitted | None:
    """Return a checkpoint's fitted steps, None without any; damaged ones raise `UserError`."""
    file = folder / FILE
    if not file.is_file():
        return None
    held = read_object(file)
    try:
        sigmas = np.asarray(held["sigmas"], float)
        sets = [np.asarray(held[key], float) for key in ("weights", "strong") if key in held]
        n = len(sigmas)
        ahead = np.triu(np.ones((n, n + 1)), 2) > 0  # what is not known yet
        fits = "weights" in held and (np.diff([1.0001, *sigmas, 0]) < 0).all()
        fits &= all(
            weights.shape == (n, n + 1) and np.isfinite(weights).all() and not weights[ahead].any()
            for weights in sets
        )
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(
            f"{file} does not hold fitted steps, expected falling noise levels between 1 and 0 "
            "and one row of weights for each; fetch the file again, or remove it to draw with "
            "DPM-Solver++."
        )
    rows = [tuple(tuple(row) for row in weights.tolist()) for weights in sets]
    return Fitted(tuple(sigmas.tolist()), *rows)
