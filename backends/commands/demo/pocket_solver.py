"""The stage that fits a few steps of pocket-diffusion to the paths that many steps take."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from backends.commands.demo.build import Build
from backends.embedders.pocket import PocketClip
from backends.generators.guidance import Level, predicted
from backends.generators.pocket import IMAGE, PocketDiffusion
from backends.generators.solver import FILE, Fitted, Multistep
from backends.training.plan import clock, in_chunks
from explorer.writing import write_whole

STEPS = PocketDiffusion.default_steps
SHIFT = 2.0  # of the noise levels towards noise, where shapes are decided; best of 1 to 3
PATH = 30  # steps of DPM-Solver++ on the paths
SCALES = {0.0: 0.4, 1.0: 1.0, 2.0: 2.0, 4.0: 2.0, 8.0: 1.5}  # guidance scale -> its share
ABOVE = {6.0: 0.5, 8.0: 1.0, 12.0: 0.5}  # likewise, of those that have weights of their own
NOISE = 0.6  # of an embedding at most, relative to its length: decoded ones are never exact
HELD_OUT = 4  # one picture in so many is not fitted
SHRINKAGE = 1e-4  # of the change from DPM-Solver++'s weights, relative to what each weighs
ROWS_AT_ONCE = 32
SEED = 6


@dataclass(frozen=True, eq=False)
class Paths:
    """Pictures on their way: ``states`` (1 + `PATH`, n, 16, 16, 16), noise first, latents last.

    ``sigmas`` (1 + `PATH`,) are the noise levels, 0 at the end; ``tokens`` (n, 8, 128) and
    ``scales`` (n,) what each is drawn from.
    """

    generator: PocketDiffusion
    tokens: torch.Tensor
    scales: torch.Tensor
    states: torch.Tensor
    sigmas: torch.Tensor

    @property
    def fitted(self) -> torch.Tensor:
        """Which pictures steps are fitted to, bool (n,); the rest measures them."""
        return torch.arange(len(self.scales), device=self.scales.device) % HELD_OUT > 0


@torch.no_grad()
def fit_steps(build: Build) -> None:
    """Fit `STEPS` steps to `PATH` of DPM-Solver++, and write them beside the weights."""
    began = time.monotonic()
    generator, fitted, errors = PocketDiffusion(build.checkpoints, build.device), [], {}
    for which, shares in (("weights", SCALES), ("strong", ABOVE)):
        paths = walk_paths(build, generator, shares)
        solver, latents = fit(paths, STEPS)
        usual = _drawn(paths, Multistep(STEPS, generator.scheduler))
        fitted.append(solver)
        of_both = {"fitted": _errors(paths, latents), "DPM-Solver++": _errors(paths, usual)}
        errors[which] = of_both
    solver = replace(fitted[0], strong=fitted[1].weights)
    told = {"steps of the path": PATH, "pictures": len(paths.scales), "seed": SEED}
    told |= {"squared error of held-out latents, by guidance scale": errors}
    text = json.dumps(solver.to_dict() | {"about": told}, indent=1)
    write_whole(build.checkpoints / "pocket-diffusion" / FILE, text.encode())
    build.progress(f"{STEPS} steps fitted in {clock(time.monotonic() - began)}; {errors}")


def walk_paths(build: Build, generator: PocketDiffusion, shares: Mapping[float, float]) -> Paths:
    """Return the paths of library pictures' noised embeddings from noise, at several scales.

    ``shares``: guidance scale -> its share of the pictures.
    """
    n = build.sizes.solver_pictures
    clip = PocketClip(build.checkpoints, build.device)
    embeddings = torch.cat([clip.encode(part) for part in _pixels(build, n)]).float().cpu()
    source = torch.Generator().manual_seed(SEED)
    # a unit vector in 128 dimensions: noise of this size has `amount` of its length
    wobble = torch.randn(embeddings.shape, generator=source) / IMAGE.size**0.5
    amount = NOISE * torch.rand(n, 1, generator=source)
    noise = torch.randn(n, *generator.networks.latent_shape, generator=source)
    weights = torch.tensor(list(shares.values()))
    drawn = torch.multinomial(weights, n, replacement=True, generator=source)
    scales = torch.tensor(list(shares))[drawn].to(build.device)
    tokens = generator.networks.condition((embeddings + amount * wobble).to(build.device))
    walk = Multistep(PATH, generator.scheduler).begin(noise.to(build.device))
    paths = Paths(generator, tokens, scales, noise.to(build.device)[None], walk.sigmas)
    states = [paths.states[0]]
    for step in range(PATH):
        velocity = _velocity(paths, states[-1], walk.timesteps[step], walk.sigmas[step])
        clean = states[-1] - walk.sigmas[step] * velocity
        states.append(walk.next(states[-1], velocity, clean))
        build.progress(f"paths: step {step + 1} of {PATH}")
    return Paths(generator, tokens, scales, torch.stack(states), walk.sigmas)


def fit(paths: Paths, steps: int) -> tuple[Fitted, torch.Tensor]:
    """Return steps fitted one after the other, and the latents (n, 16, 16, 16) that they draw.

    Each is the least squares solution that takes what is known, the noise and all x̂0 so far, to
    where the path is at the next noise level. The denoiser is asked where the fitted steps are,
    not on the path, so that a step also corrects those before it. Every guidance scale counts the
    same, by its error with DPM-Solver++'s weights.
    """
    places = _places(paths, steps)
    sigmas = paths.sigmas[places]
    latents, known, rows = paths.states[0], [paths.states[0]], []
    for step, usual in enumerate(_usual(paths, sigmas)):
        velocity = _velocity(paths, latents, sigmas[step] * 1000, sigmas[step])
        known.append(latents - sigmas[step] * velocity)
        target = paths.states[places[step + 1] if step + 1 < steps else -1]
        inputs = torch.stack(known)
        weights = usual[: len(known)].to(inputs)
        lacking = target - torch.einsum("k,knchw->nchw", weights, inputs)
        weights = weights + _least_squares(inputs, lacking, _balance(paths, lacking))
        latents = torch.einsum("k,knchw->nchw", weights, inputs)
        rows.append((*weights.tolist(), *[0.0] * (steps + 1 - len(known))))
    return Fitted(tuple(sigmas.tolist()), tuple(rows)), latents


def _places(paths: Paths, steps: int) -> list[int]:
    """Return which states of the paths the steps begin at: levels evenly spaced, then shifted."""
    even = torch.arange(steps, 0, -1) / steps
    wanted = SHIFT * even / (1 + (SHIFT - 1) * even) * paths.sigmas[0].cpu()
    apart = (paths.sigmas[:-1].cpu()[:, None] - wanted).abs()
    return apart.argmin(dim=0).tolist()


def _usual(paths: Paths, sigmas: torch.Tensor) -> torch.Tensor:
    """Return DPM-Solver++'s weights at some noise levels, (S, 1 + S): it is linear in x̂0."""
    steps = len(sigmas)
    walk = Multistep(steps, paths.generator.scheduler).begin(torch.zeros(()))
    walk.scheduler.sigmas = torch.cat([sigmas.cpu(), torch.zeros(1)])
    walk.scheduler.timesteps = walk.timesteps = sigmas.cpu() * 1000
    one = torch.eye(steps + 1, dtype=torch.float64)
    latents, rows = one[:1], []
    for step, sigma in enumerate(sigmas.cpu().double()):
        clean = one[step + 1 : step + 2]
        latents = walk.next(latents, (latents - clean) / sigma, clean).double()
        rows.append(latents[0])
    return torch.stack(rows)


def _balance(paths: Paths, errors: torch.Tensor) -> torch.Tensor:
    """Return a weight a picture (n,), 0 for held-out ones, that makes scales count the same."""
    squared, weights = errors.square().mean(dim=(1, 2, 3)), torch.zeros_like(paths.scales)
    for scale in paths.scales.unique():
        these = (paths.scales == scale) & paths.fitted
        if these.any():
            weights[these] = 1 / squared[these].mean().clamp(min=1e-12)
    return weights


def _least_squares(
    inputs: torch.Tensor, target: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Return (k,): what inputs (k, n, ...) are multiplied with to give the target (n, ...)."""
    root = weights.sqrt()[:, None]
    rows = (inputs.flatten(2) * root).flatten(1).double()
    products = rows @ rows.T
    products = products + SHRINKAGE * products.diagonal().diag()
    return torch.linalg.solve(products, rows @ (target.flatten(1) * root).flatten().double()).to(
        inputs
    )


def _velocity(
    paths: Paths, latents: torch.Tensor, timestep: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """Return the guided velocity of all pictures (n, 16, 16, 16), some at a time."""
    generator, parts = paths.generator, []
    plain = {option.name: option.default for option in generator.options}
    level = Level(timestep, 1 - sigma, sigma, "flow_prediction")
    for part in in_chunks(len(latents), ROWS_AT_ONCE):
        ask = partial(generator._velocity, paths.tokens[part], timestep)
        scales, unet = paths.scales[part], generator.networks.denoiser
        parts.append(predicted(latents[part], level, scales, ask, unet, plain))
    return torch.cat(parts)


def _drawn(paths: Paths, solver: Multistep) -> torch.Tensor:
    walk, latents = solver.begin(paths.states[0]), paths.states[0]
    for timestep, sigma in zip(walk.timesteps, walk.sigmas, strict=False):
        velocity = _velocity(paths, latents, timestep, sigma)
        latents = walk.next(latents, velocity, latents - sigma * velocity)
    return latents


def _errors(paths: Paths, latents: torch.Tensor) -> dict[str, Any]:
    """Return the mean squared error of held-out latents at each scale."""
    squared = (latents - paths.states[-1]).square().mean(dim=(1, 2, 3))
    every = paths.scales.unique().tolist()
    found = {scale: squared[(paths.scales == scale) & ~paths.fitted] for scale in every}
    return {f"{scale:g}": float(f"{one.mean():.4g}") for scale, one in found.items() if len(one)}


def _pixels(build: Build, n: int) -> list[torch.Tensor]:
    """Return the first library pictures as pixels, some at a time."""
    from backends.simulation.scenes import render

    pictures = torch.stack(
        [torch.from_numpy(render(scene).transpose(2, 0, 1).copy()) for scene in build.library[:n]]
    )
    every = torch.arange(n).numpy()
    return [build.batch(pictures, every[part]) for part in in_chunks(n, ROWS_AT_ONCE)]
