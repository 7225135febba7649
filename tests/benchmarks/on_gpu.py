"""Stable Diffusion with random weights on a GPU, against plain calls of diffusers."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from on_gpu_xl import measure_xl
from on_models import resident, seconds

SWEEP = (0.0, 1.0, 2.0, 4.0, 8.0)
SCALE = 4.0  # of a batch
Line = tuple[str, str, str]


@dataclass(frozen=True)
class Size:
    """How large everything is: as published, or a miniature of the same architecture.

    ``square``: of the matrices whose product says what the card can do.
    """

    unet: dict[str, Any]
    vae: tuple[int, ...]
    text: dict[str, int]
    groups: int
    steps: int
    batch: int
    square: int


FULL = Size(
    {"sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2},
    (128, 256, 512, 512),
    {
        **{"intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        "vocab_size": 49408,
    },
    *(32, 30, 16, 8192),
)
SMALL = Size(
    {"sample_size": 8, "block_out_channels": (16, 16, 32, 32), "layers_per_block": 1},
    (8, 8, 8, 8),
    {
        **{"intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        "vocab_size": 4,
    },
    *(4, 3, 2, 256),
)


def measure_gpu(checkpoints: Path, simulated: Path | None, small: bool = False) -> list[Line]:
    """Return the lines of the GPU's part; ``small``: in miniature, on whatever there is."""
    import torch

    if not (small or torch.cuda.is_available()):
        return [("Stable Diffusion 1.5 on a GPU", "not measured: no GPU is here", "")]
    from diffusers.utils import logging

    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), SMALL if small else FULL)
        lines = compare(Path(folder), device, SMALL if small else FULL)
    title = f"Stable Diffusion 1.5 with random weights{', in miniature' * small}"
    return [(title, card, ""), *lines, *measure_xl(small)]


def build(folder: Path, size: Size) -> None:
    """Write random weights of SD 1.5's architecture, in diffusers' layout and bfloat16."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        **size.unet, cross_attention_dim=768, attention_head_dim=8, norm_num_groups=size.groups
    )
    vae = AutoencoderKL(
        block_out_channels=size.vae,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=size.unet["layers_per_block"],
        latent_channels=4,
        norm_num_groups=size.groups,
    )
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 3}
    text = CLIPTextModel(CLIPTextConfig(hidden_size=768, projection_dim=768, **size.text, **ends))
    for name, network in (("unet", unet), ("vae", vae), ("text_encoder", text)):
        # Module.to itself: diffusers' own warns of layers to keep exact, and here are none
        torch.nn.Module.to(network, torch.bfloat16).save_pretrained(folder / name)
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    DDIMScheduler(**schedule, clip_sample=False, steps_offset=1).save_pretrained(
        folder / "scheduler"
    )
    words = {"a": 0, "a</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}
    (folder / "tokenizer").mkdir()
    for name, content in {
        "vocab.json": words,
        "tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77},
        "special_tokens_map.json": {"pad_token": "<|endoftext|>"},
    }.items():
        (folder / "tokenizer" / name).write_text(json.dumps(content))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")


def compare(folder: Path, device: str, size: Size) -> list[Line]:
    """Time a sweep and a batch, and count what they compute."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline

    from backends.generators.sd15_context import CONTEXT, StableContext
    from explorer.protocols import Condition

    generator = StableContext(folder / "none", device, folder)
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=generator.dtype).to(device)
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(),
        unet=generator.unet,
        scheduler=DDIMScheduler.from_config(generator.scheduler),
        **dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor")),
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    rng = torch.Generator().manual_seed(1)
    conditions = [
        Condition({CONTEXT: torch.randn(CONTEXT.shape, generator=rng)}) for _ in range(size.batch)
    ]
    null = generator._null[None].to(generator.dtype)
    told = conditions[0].embeddings[CONTEXT][None].to(device, generator.dtype)

    # the noise that the generator draws for this seed
    noise = torch.Generator().manual_seed(7)
    start = torch.randn((1, *generator.latent_shape), generator=noise)
    start = start.to(device, generator.dtype)

    def one_call_a_scale() -> list[np.ndarray]:
        images = []
        for scale in SWEEP:  # at 1 and below diffusers computes the prompt's row alone
            made = pipeline(
                prompt_embeds=told if scale else null,
                negative_prompt_embeds=null,
                guidance_scale=scale,
                latents=start,
                num_inference_steps=size.steps,
                output_type="np",
            )
            images.append((made.images[0] * 255).round())
        return images

    def one_sweep() -> list[np.ndarray]:
        steps = generator.sweep(conditions[0], SWEEP, size.steps, 7)
        return [step.image for step in steps if step.done]

    def batch() -> Any:
        return generator.latents(conditions, SCALE, range(size.batch), size.steps)

    timed(one_sweep, device), timed(one_call_a_scale, device)  # libraries choose their kernels
    swept, images = timed(one_sweep, device)
    called, expected = timed(one_call_a_scale, device)
    apart = max(np.abs(a.astype(float) - b).mean() for a, b in zip(images, expected, strict=True))
    timed(batch, device)
    drawn, _ = timed(batch, device)
    rate = matrix_rate(device, generator.dtype, size.square)
    done = size.steps * operations(generator, 2 * size.batch) / drawn
    side = 8 * size.unet["sample_size"]
    peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else resident()[1]
    kind = str(generator.dtype).removeprefix("torch.")
    return [
        (
            f"{len(SWEEP)} plain diffusers calls over one sweep {SWEEP}, {size.steps} steps, "
            f"{side} px, {kind}, pictures decoded",
            f"{called:.2f} s / {swept:.2f} s = {called / swept:.2f}x",
            ">= 1.8x",
        ),
        ("grey levels between both, mean, at most over scales", f"{apart:.2g}", ""),
        ("seconds per image of the sweep", f"{swept / len(SWEEP):.2f} s", ""),
        (
            f"seconds per image at batch {size.batch}, scale {SCALE:g}, not decoded",
            f"{drawn / size.batch:.2f} s",
            "",
        ),
        ("peak memory", f"{peak:.1f} GB", ""),
        (
            f"share of the measured {kind} matrix rate, batch {size.batch} x {side} px",
            f"{done / 1e12:.3g} of {rate / 1e12:.3g} TFLOP/s = {100 * done / rate:.0f} %",
            ">= 25 %",
        ),
    ]


def timed(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Return the shortest of three runs, waiting for the device, and what the last returned."""
    import torch

    def finished() -> Any:
        found = work()
        if device == "cuda":
            torch.cuda.synchronize()
        return found

    return seconds(finished)


def matrix_rate(device: str, dtype: Any, square: int) -> float:
    """Return the operations per second of a product of square matrices, the best of ten."""
    import torch

    a, b = (torch.randn(square, square, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * square**3 / best


def operations(generator: Any, rows: int) -> float:
    """Return how many operations one step of the UNet takes for so many rows."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    shape = (rows, *generator.latent_shape)
    latents = torch.zeros(shape, device=generator.device, dtype=generator.dtype)
    context = torch.zeros((rows, 77, 768), device=generator.device, dtype=generator.dtype)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        generator.unet(latents, torch.tensor(500, device=generator.device), context)
    return float(counter.get_total_flops())
