"""Sweeps and importance of the shipped models, against the plain way to do the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from explorer.brain.maps import parcel_importance, parcellation_of
from explorer.choosing import default_request
from explorer.drawing import condition_of, reconstruct

SWEEP = (0.0, 1.0, 2.0, 4.0, 8.0)
TRIALS = 100
Line = tuple[str, str, str]


def seconds(work: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """Return the shortest of some runs, and what the last returned."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - began)
    return min(taken), result


def resident() -> tuple[float, float]:
    """Return this process's resident memory in GB, now and at most so far."""
    return resident_of("self")


def resident_of(process: int | str) -> tuple[float, float]:
    """Return a process's resident memory in GB, now and at most so far."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return tuple(int(fields[key].split()[0]) * 1024 / 1e9 for key in ("VmRSS", "VmHWM"))


def measure_models(checkpoints: Path, simulated: Path | None) -> list[Line]:
    """Return the lines of the models' part."""
    from backends import DATASETS, EMBEDDERS, GENERATORS, MAPPERS
    from explorer.workbench import Workbench

    paths = {"simulated": simulated} if simulated else {}
    bench = Workbench(
        DATASETS, EMBEDDERS, MAPPERS, GENERATORS, checkpoints=checkpoints, paths=paths
    )
    began = time.perf_counter()
    request = default_request(bench.catalogue, "simulated", seed=0, scales=SWEEP)
    frames = list(reconstruct(bench, request))
    cold = time.perf_counter() - began
    others = iter(bench.catalogue.gallery("simulated", request.subject).index)

    def next_trial() -> list[Any]:
        stimulus = next(s for s in others if s != request.stimulus)
        return [f for f in reconstruct(bench, replace(request, stimulus=stimulus)) if f.done]

    warm, _ = seconds(next_trial)
    again, _ = seconds(lambda: list(reconstruct(bench, request)))
    lines = [
        (f"sweep {SWEEP}, cold (libraries and weights too)", f"{cold:.1f} s", "<= 10 s"),
        ("the same, warm, another trial", f"{warm:.2f} s", "<= 2 s"),
        ("the same trial again, from memory", f"{again * 1000:.0f} ms", ""),
    ]
    finished = {frame.scale: frame.image for frame in frames if frame.done}
    lines += against_plain_calls(bench, request, finished)
    lines += against_captum(bench, request)
    lines += of_lesions(bench, request, others)
    lines += over_test_images(bench, request)
    lines.append(
        (
            "resident memory of this part, now and at most",
            "{:.2f} and {:.2f} GB".format(*resident()),
            "",
        )
    )
    return lines


def over_test_images(bench: Any, request: Any) -> list[Line]:
    """Time a subject's map over all test images, and one trial's integrated gradients."""
    from explorer.evidence.inference import PERMUTATIONS
    from explorer.evidence.statistics import subject_map
    from explorer.request import View

    request = replace(request, mapper="ridge")
    found, again = View(), View(measure="share")
    made, one = seconds(lambda: subject_map(bench, request, found), 1)
    other, _ = seconds(lambda: subject_map(bench, request, again))
    path = View(method="integrated gradients")
    parcel_importance(bench, request, path)  # colour limits are made once
    stimuli = iter(bench.catalogue.gallery(request.dataset, request.subject).index[:9])
    integrated, _ = seconds(
        lambda: parcel_importance(bench, replace(request, stimulus=next(stimuli)), path)
    )
    what = f"map over {one.stimuli} test images, one subject, {PERMUTATIONS} permutations"
    return [
        (what, f"{made:.1f} s", "<= 5 s"),
        ("the same in another measure", f"{other * 1000:.0f} ms", ""),
        ("integrated gradients of one trial", f"{integrated * 1000:.0f} ms", ""),
    ]


def against_plain_calls(bench: Any, request: Any, finished: dict[float, np.ndarray]) -> list[Line]:
    """Time one sweep, previews left out, against one plain guided call a scale."""
    import torch
    from diffusers import DPMSolverMultistepScheduler

    generator = bench.models.generator(request.generator)
    condition = condition_of(bench, request)
    networks, steps = generator.networks, request.steps

    @torch.inference_mode()
    def plain(scale: float) -> np.ndarray:
        scheduler = DPMSolverMultistepScheduler(**generator.scheduler)
        scheduler.set_timesteps(steps)
        cond = networks.condition(generator._embedding(condition)[None])
        tokens = torch.cat([networks.condition.null, cond])
        latents = generator._noise(request.seed)
        for timestep in scheduler.timesteps:
            rows = torch.cat([latents, latents])
            without, within = networks.velocity(rows, tokens, timestep.expand(2)).chunk(2)
            velocity = without + scale * (within - without)
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        pixels = networks.decode(latents).clamp(-1, 1)[0]
        return ((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()

    def one_sweep() -> list[np.ndarray]:
        frames = generator.sweep(condition, SWEEP, steps, request.seed)
        return [frame.image for frame in frames if frame.done]

    def one_call_a_scale() -> list[np.ndarray]:
        return [plain(scale) for scale in SWEEP]

    one_sweep(), one_call_a_scale()
    swept, images = seconds(one_sweep)
    called, expected = seconds(one_call_a_scale)
    apart = max(np.abs(a.astype(float) - b).mean() for a, b in zip(images, expected, strict=True))
    kept = max(
        np.abs(a.astype(float) - finished[s]).mean() for a, s in zip(images, SWEEP, strict=True)
    )
    return [
        (
            f"{len(SWEEP)} plain guided calls over one sweep, {steps} steps, fp32",
            f"{called:.2f} s / {swept:.2f} s = {called / swept:.2f}x",
            ">= 1.8x",
        ),
        ("grey levels between both, at most over scales", f"{max(apart, kept):.2g}", "<= 1"),
    ]


def against_captum(bench: Any, request: Any) -> list[Line]:
    """Time importance for many trials against one batched captum call on the same target."""
    import torch
    from captum.attr import Saliency

    from explorer.brain import importance

    dataset, subject = request.dataset, request.subject
    trials, mapper = (
        bench.catalogue.trials(dataset, subject),
        bench.models.mapper(dataset, subject, request.mapper),
    )
    stimuli = list(bench.catalogue.gallery(dataset, subject).index)
    shown = [stimuli[i % len(stimuli)] for i in range(TRIALS)]
    betas = np.stack([trials.average(stimulus) for stimulus in shown])
    space = mapper.targets[0]
    gallery = bench.models.embed(dataset, stimuli, space)
    rows = [stimuli.index(stimulus) for stimulus in shown]
    target = importance.retrieval_margin(gallery, rows)
    sd = mapper.statistics(subject)[1]

    def ours() -> np.ndarray:
        return importance.attribute(mapper, betas, subject, target, space=space)

    def captums() -> np.ndarray:
        saliency = Saliency(lambda batch: target(mapper(batch, subject)[space]))
        inputs = torch.from_numpy(betas).requires_grad_()
        return (saliency.attribute(inputs, abs=False) * sd).detach().numpy()

    ours(), captums()
    mine, a = seconds(ours, 10)
    theirs, b = seconds(captums, 10)
    return [
        (
            f"importance of {TRIALS} trials x {betas.shape[1]} voxels over captum",
            f"{mine * 1000:.1f} ms / {theirs * 1000:.1f} ms = {mine / theirs:.2f}x",
            "<= 1.2x",
        ),
        (
            "largest difference of values, relative to the largest value",
            f"{np.abs(a - b).max() / np.abs(b).max():.1g}",
            "equal",
        ),
    ]


def of_lesions(bench: Any, request: Any, others: Any) -> list[Line]:
    """Time the lesions of a trial that is new to the workbench, and the controls of one."""
    from explorer.evidence import controls, lesions

    def new_trial() -> Any:
        return replace(request, stimulus=next(others))

    parcels = len(parcellation_of(bench, request.dataset, request.subject).labels)
    lesions.lesion_effects(bench, request)
    effects, _ = seconds(lambda: lesions.lesion_effects(bench, new_trial()))
    drawn = [new_trial() for _ in range(3)]
    for one in drawn:  # the intact picture stands on the page already
        list(reconstruct(bench, one))
    waiting, how = iter(drawn), lesions.Lesion(("fusiform L", "fusiform R"))
    picture, _ = seconds(lambda: lesions.lesion_pictures(bench, next(waiting), how))
    names = [name for name in controls.CONTROLS if name != controls.NEAREST]
    strip, _ = seconds(lambda: list(controls.controls(bench, new_trial(), names)))
    return [
        (f"lesion effects of {parcels + 1} parcels, one trial", f"{effects:.3f} s", "<= 0.5 s"),
        ("one lesioned picture, warm", f"{picture:.2f} s", "<= 1 s"),
        (f"strip of {len(names)} controls, warm", f"{strip:.1f} s", ""),
    ]
