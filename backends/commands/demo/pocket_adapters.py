"""The stage that trains the pocket adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from backends.commands.demo.build import Build
from backends.embedders.pocket import PocketClip
from backends.generators.adapters import Adapter, as_decoded
from backends.generators.pocket import ADAPTED
from backends.simulation.scenes import Scene
from backends.training.fit import fit
from backends.training.plan import batches, in_chunks


def train(build: Build) -> None:
    """Train the adapters from pocket-clip's tokens and text context to its image embedding."""
    sizes, embedder = build.sizes, PocketClip(build.checkpoints, build.device)
    torch.manual_seed(sizes.adapters.seed)
    adapters = torch.nn.ModuleDict({space.layer: Adapter(*space.shape) for space in ADAPTED})
    made = examples(build, embedder, build.pictures, build.library)
    for layer, adapter in adapters.items():
        adapter.set_statistics(made[layer])

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = batches(len(build.library), sizes.adapters_batch, step, sizes.adapters.seed)
        goal, lost = made["image"][rows], []
        for layer, adapter in adapters.items():
            found = adapter(as_decoded(made[layer][rows], adapter, generator))
            lost.append(1 - (found.float() * goal).sum(dim=1).mean())
        return torch.stack(lost).sum()

    seconds = fit(
        "pocket-adapters",
        adapters,
        loss,
        sizes.adapters,
        work=build.work,
        progress=build.progress,
    )
    held_out = examples(build, embedder, build.held_out_pictures, build.held_out)
    metrics: dict[str, Any] = {}
    with torch.inference_mode():
        for layer, adapter in adapters.items():
            found = (adapter(held_out[layer]) * held_out["image"]).sum(dim=1)
            metrics[f"{layer} to image, cosine"] = found.mean().item()
    build.write(
        "pocket-adapters",
        "generator",
        adapters,
        seconds,
        {"architecture": {}, "plan": repr(sizes.adapters), "batch": sizes.adapters_batch},
        metrics | {"N": len(build.held_out)},
        targets=ADAPTED,
    )


@torch.inference_mode()
def examples(
    build: Build, embedder: Any, pictures: torch.Tensor, scenes: Sequence[Scene]
) -> dict[str, torch.Tensor]:
    """Return pocket-clip's image (n, 128), tokens and context of pictures, in half precision.

    The image embeddings are float32.
    """
    ids = embedder.tokenizer([scene.caption for scene in scenes])
    found: dict[str, list[torch.Tensor]] = {"image": [], "tokens": [], "context": []}
    with build.half_precision():
        for part in in_chunks(len(pictures), 128):
            pixels = build.batch(pictures, np.arange(part.start, part.stop))
            found["image"].append(embedder.encode(pixels).float().cpu())
            found["tokens"].append(embedder.encode_tokens(pixels).half().cpu())
            found["context"].append(embedder.encode_context(ids[part]).half().cpu())
    return {layer: torch.cat(parts).clone() for layer, parts in found.items()}
