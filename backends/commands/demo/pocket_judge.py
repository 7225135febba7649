"""The stage that trains pocket-judge."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from backends.commands.demo.build import Build, shifted
from backends.simulation.judge import judge_network, names
from backends.simulation.scenes import CATEGORIES, SETTINGS
from backends.training.plan import batches


def train(build: Build) -> None:
    """Train pocket-judge: category and setting, on pictures slightly blurred and noised."""
    sizes = build.sizes
    torch.manual_seed(sizes.judge.seed)
    model = judge_network().to(build.device, memory_format=torch.channels_last)
    categories = list(CATEGORIES)
    category = torch.tensor([categories.index(s.category) for s in build.library])
    setting = torch.tensor([SETTINGS.index(s.setting) for s in build.library])

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = batches(len(build.library), sizes.judge_batch, step, sizes.judge.seed)
        pixels = build.batch(build.pictures, rows)
        dx, dy = torch.randint(-6, 7, (2,), generator=generator).tolist()
        pixels = shifted(pixels, dx, dy)
        amount = torch.rand((len(rows), 1, 1, 1), generator=generator).to(pixels)
        soft = F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
        pixels = torch.lerp(pixels, soft, amount)
        pixels = pixels + 0.05 * torch.randn(pixels.shape, generator=generator).to(pixels)
        logits = model(pixels).float()
        right = category[rows].to(build.device), setting[rows].to(build.device)
        return F.cross_entropy(
            logits[:, : len(categories)], right[0], label_smoothing=0.05
        ) + F.cross_entropy(logits[:, len(categories) :], right[1], label_smoothing=0.05)

    seconds = build.fit("pocket-judge", model, loss, sizes.judge)
    with torch.inference_mode():
        logits = torch.cat([model(part).float().cpu() for part in build.held_out_batches()])
    said = names(logits.numpy())
    metrics = {
        f"{what} accuracy": float(
            np.mean(
                [
                    getattr(s, what) == name
                    for s, name in zip(build.held_out, said[what], strict=True)
                ]
            )
        )
        for what in ("category", "supercategory", "setting")
    } | {"N": len(build.held_out)}
    plan = {"architecture": {"width": 32}, "plan": repr(sizes.judge)}
    build.write("pocket-judge", "judge", model, seconds, plan, metrics)
