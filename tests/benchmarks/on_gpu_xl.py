"""MindEye2's SDXL unCLIP and ViT-bigG/14 with random weights, against plain calls.

Beside the sweep: the same with its weights kept in the computer's memory (offloaded), and two
requests at once, as two visitors of a server for others would make them.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from on_models import Line, resident

SWEEP = (0.0, 1.0, 2.0, 5.0, 8.0)
PAIRS = 7  # of runs, A B A B
UNET = {
    "full": {
        "sample_size": 96,
        "block_out_channels": (320, 640, 1280),
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
    },
    "small": {
        "sample_size": 8,
        "block_out_channels": (16, 16, 32),
        "layers_per_block": 1,
        "transformer_layers_per_block": (1, 1, 1),
        "attention_head_dim": (2, 2, 2),
        "norm_num_groups": 8,
    },
}
VAE = {"full": (128, 256, 512, 512), "small": (8, 8, 8, 8)}
STEPS = {"full": 38, "small": 2}
BIGG = {
    "full": "ViT-bigG-14",
    "small": {
        "embed_dim": 1280,
        "vision_cfg": {
            "image_size": 224,
            "layers": 1,
            "width": 1664,
            "head_width": 104,
            "mlp_ratio": 0.1,
            "patch_size": 14,
        },
        "text_cfg": {
            "context_length": 4,
            "vocab_size": 49408,
            "width": 8,
            "heads": 2,
            "layers": 1,
        },
    },
}
IMAGES = {"full": 64, "small": 2}


def measure_xl(small: bool) -> list[Line]:
    """Return the lines of SDXL unCLIP and ViT-bigG; ``small``: in miniature, on any device."""
    import torch

    size, device = "small" if small else "full", "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder) / "unclip", size)
        lines = of_sweeps(Path(folder) / "unclip", device, size)
        return [*lines, *of_embedding(Path(folder) / "bigG", device, size)]


def build(folder: Path, size: str) -> None:
    """Write random weights of the unCLIP's architecture, in diffusers' layout and bfloat16."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        **UNET[size],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=1664,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=1024,
        use_linear_projection=True,
    )
    vae = AutoencoderKL(
        block_out_channels=VAE[size],
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=UNET[size]["layers_per_block"],
        latent_channels=4,
        norm_num_groups=UNET[size].get("norm_num_groups", 32),
        scaling_factor=0.13025,
    )
    for name, network in (("unet", unet), ("vae", vae)):
        torch.nn.Module.to(network, torch.bfloat16).save_pretrained(folder / name)
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    DDIMScheduler(**schedule, clip_sample=False).save_pretrained(folder / "scheduler")


def of_sweeps(folder: Path, device: str, size: str) -> list[Line]:
    """Time sweeps: together against a call a scale, offloaded, and two at once."""
    import torch

    from backends.generators.sdxl_unclip import TOKENS, SDXLUnCLIP
    from explorer.protocols import Condition

    rng = torch.Generator().manual_seed(1)
    condition = Condition({TOKENS: torch.randn(TOKENS.shape, generator=rng)})
    steps = STEPS[size]

    def sweep(generator: Any, scales: tuple[float, ...] = SWEEP) -> list[np.ndarray]:
        return [s.image for s in generator.sweep(condition, scales, steps, 7) if s.done]

    generator = SDXLUnCLIP(folder / "none", device, folder)
    plain = plain_calls(generator, condition, steps, device)
    together, apart = interleaved([lambda: sweep(generator), plain], device)
    peak = peak_memory(device, lambda: sweep(generator))
    kind = str(generator.dtype).removeprefix("torch.")
    side = 8 * UNET[size]["sample_size"]
    what = f"SDXL unCLIP, {len(SWEEP)} scales, {steps} steps, {side} px, {kind}"
    lines = [
        (
            f"{what}: {len(SWEEP)} plain calls of diffusers' UNet and VAE over one sweep",
            f"{spread(apart)} / {spread(together)} = {ratio(apart, together):.2f}x",
            ">= 1.8x",
        ),
        ("... its peak memory", f"{peak:.1f} GB", ""),
    ]
    one, both = interleaved(
        [lambda: [sweep(generator), sweep(generator)], lambda: at_once(generator, sweep)], device
    )
    lines.append(
        (
            "... two requests one after the other, over both at once",
            f"{spread(one)} / {spread(both)} = {ratio(one, both):.2f}x",
            "",
        )
    )
    if device != "cuda":
        return [*lines, ("... offloaded", "not measured: no GPU is here", "")]
    return [*lines, offloaded(folder, device, sweep)]


def offloaded(folder: Path, device: str, sweep: Callable[[Any], Any]) -> Line:
    """Time a sweep whose weights come over layer by layer, as on a card that is full."""
    from backends.generators import memory
    from backends.generators.sdxl_unclip import SDXLUnCLIP

    known = memory.free_memory
    memory.free_memory = lambda _: 0
    try:
        generator = SDXLUnCLIP(folder / "none", device, folder)
    finally:
        memory.free_memory = known
    (slow,) = interleaved([lambda: sweep(generator)], device, pairs=2)
    peak = peak_memory(device, lambda: sweep(generator))
    return "... offloaded: seconds, peak memory", f"{spread(slow)}, {peak:.1f} GB", ""


def plain_calls(generator: Any, condition: Any, steps: int, device: str) -> Callable[[], Any]:
    """Return what draws a picture a scale with the same networks, as a script would."""
    import torch

    token = next(iter(condition.embeddings.values())).to(device, generator.dtype)[None]
    told = {
        "time_ids": torch.tensor([[768.0, 768.0, 0.0, 0.0]], device=device, dtype=generator.dtype),
        "text_embeds": torch.zeros((1, 0), device=device, dtype=generator.dtype),
    }

    @torch.inference_mode()
    def draw() -> list[torch.Tensor]:
        from diffusers import DDIMScheduler

        found = []
        for scale in SWEEP:
            scheduler = DDIMScheduler.from_config(generator.scheduler)
            scheduler.set_timesteps(steps)
            latents = torch.randn((1, *generator.latent_shape), device=device).to(generator.dtype)
            for time_ in scheduler.timesteps:
                both = torch.cat([torch.zeros_like(token), token])
                twice = {k: v.repeat(2, 1) for k, v in told.items()}
                out = generator.unet(
                    latents.repeat(2, 1, 1, 1),
                    time_.to(device),
                    encoder_hidden_states=both,
                    added_cond_kwargs=twice,
                ).sample
                null, with_it = out.chunk(2)
                guided = null + scale * (with_it - null)
                latents = scheduler.step(guided, time_, latents).prev_sample
            found.append(generator._decode(latents.float()))
        return found

    return draw


def at_once(generator: Any, sweep: Callable[[Any], Any]) -> None:
    """Make two sweeps in two threads, as they come without a line to stand in."""
    threads = [threading.Thread(target=sweep, args=(generator,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def of_embedding(folder: Path, device: str, size: str) -> list[Line]:
    """Time ViT-bigG/14's tokens of pictures, against plain calls of open_clip one by one."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from backends.embedders.clip import ViTBigG14

    torch.manual_seed(0)
    known = BIGG[size]
    config = open_clip.get_model_config(known) if isinstance(known, str) else known
    place = folder / "embedders" / "ViT-bigG-14"
    place.mkdir(parents=True)
    model = open_clip.model.CLIP(**config)
    save_file(
        {k: z.contiguous() for k, z in model.state_dict().items()}, place / ViTBigG14.files[1]
    )
    (place / ViTBigG14.files[0]).write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {}})
    )
    del model
    embedder = ViTBigG14(folder, device)
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (IMAGES[size], 64, 64, 3), dtype=np.uint8))

    @torch.inference_mode()
    def plain() -> None:
        from PIL import Image

        for picture in pictures:
            prepared = embedder.prepare(Image.fromarray(picture))[None].to(device)
            embedder.model.encode_image(prepared)

    ours, theirs = interleaved(
        [lambda: embedder.embed(pictures, ViTBigG14.spaces[1]), plain], device, pairs=3
    )
    rate = len(pictures) / float(np.median(ours))
    return [
        (
            f"ViT-bigG/14 tokens of {len(pictures)} pictures, one by one over all",
            f"{spread(theirs)} / {spread(ours)} = {ratio(theirs, ours):.2f}x; {rate:.1f} a second",
            "",
        )
    ]


def interleaved(
    works: list[Callable[[], Any]], device: str, pairs: int = 1000
) -> list[list[float]]:
    """Return the seconds of each work's runs, made in turn, after one of each that is not counted.

    A machine that slows down or speeds up meanwhile does so for all of them.
    """
    import torch

    taken: list[list[float]] = [[] for _ in works]
    for number in range(min(pairs, PAIRS) + 1):
        for work, times in zip(works, taken, strict=True):
            began = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:
                times.append(time.perf_counter() - began)
    return taken


def spread(times: list[float]) -> str:
    """Return the median and the ends of some seconds."""
    return f"{np.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"


def ratio(one: list[float], other: list[float]) -> float:
    """Return the median of the ratios of neighbouring runs."""
    return float(np.median(np.divide(one, other)))


def peak_memory(device: str, work: Callable[[], Any]) -> float:
    """Return the most memory in GB while some work is done: a GPU's, or this process's."""
    import torch

    if device != "cuda":
        work()
        return resident()[1]
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() / 1e9
