"""Warm sweeps of five scales: ``python sweep_run.py [SWEEPS]``.

Run it in the root of any build of this project; it prints one line of JSON: the median processor
and wall seconds of a sweep with that build's own number of steps, each of another trial, scores
and previews too. Where the build's networks can be called one by one, also those of the plain way:
one guided call of diffusers' solver a scale, 20 steps, in the same dtype, of diffusers' own UNet
with the same weights, channels last.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from any_build import SWEEP, bench, condition, pictures, requests

PLAIN_STEPS = 20


def main(sweeps: int) -> None:
    """Measure, and print the line."""
    workbench = bench()
    trials = requests(workbench)
    pictures(workbench, next(trials))  # loads
    pictures(workbench, next(trials))
    processor, wall = median_of(sweeps, lambda: pictures(workbench, next(trials)))
    result: dict[str, Any] = {"processor_s": processor, "wall_s": wall}
    request = next(trials)
    generator = workbench.models.generator(request.generator)
    try:
        calls = list(plain_calls(generator, condition(workbench, request), request.seed))
    except (AttributeError, TypeError):  # a build whose networks are called otherwise
        calls = []
    if calls:
        result["plain_processor_s"], result["plain_wall_s"] = median_of(
            3, lambda: [call() for call in calls]
        )
    sys.stdout.write(json.dumps(result) + "\n")


def median_of(times: int, work: Callable[[], Any]) -> tuple[float, float]:
    """Return the median processor and wall seconds of some runs."""
    taken = []
    for _ in range(times):
        before = time.process_time(), time.perf_counter()
        work()
        taken.append((time.process_time() - before[0], time.perf_counter() - before[1]))
    processor, wall = zip(*taken, strict=True)
    return statistics.median(processor), statistics.median(wall)


def plain_calls(generator: Any, drawn_from: Any, seed: int) -> Iterator[Callable[[], Any]]:
    """Yield one plain guided call for each scale, each once done."""
    import torch
    from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel

    networks = generator.networks
    unet = UNet2DConditionModel.from_config(dict(networks.denoiser.config))
    unet.load_state_dict(networks.denoiser.state_dict())
    unet.to(networks.denoiser.dtype, memory_format=torch.channels_last)
    unet.eval().requires_grad_(False)
    dtype = unet.dtype  # once: it walks through all modules

    @torch.inference_mode()
    def plain(scale: float) -> Any:
        scheduler = DPMSolverMultistepScheduler(**generator.scheduler)
        scheduler.set_timesteps(PLAIN_STEPS)
        within = networks.condition(generator._embedding(drawn_from)[None])
        tokens = torch.cat([networks.condition.null, within]).to(dtype)
        told = {"encoder_hidden_states": tokens, "class_labels": tokens.flatten(1)}
        latents = generator._noise(seed)
        for timestep in scheduler.timesteps:
            rows = torch.cat([latents, latents]).to(dtype)
            plain_, guided = unet(rows, timestep, **told).sample.float().chunk(2)
            velocity = plain_ + scale * (guided - plain_)
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        pixels = networks.decode(latents).clamp(-1, 1)[0]
        return ((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()

    for scale in SWEEP:
        plain(scale)
        yield lambda scale=scale: plain(scale)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
