"""pocket-diffusion: a small latent diffusion model for the simulated scenes, from diffusers parts.

The networks (``networks``) and DPM-Solver++ on a rectified flow are put together here: a pipeline
class inside a checkpoint folder would run that folder's code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explorer.types import Condition, EmbeddingSpace, Option, Step, UserError

if TYPE_CHECKING:
    import torch

IMAGE = EmbeddingSpace("pocket-clip", "image", (128,), unit_norm=True)
TOKENS = EmbeddingSpace("pocket-clip", "tokens", (64, 192))
CONTEXT = EmbeddingSpace("pocket-clip", "context", (24, 96))
ADAPTED = (TOKENS, CONTEXT)  # by `adapters` into an image embedding
PREVIEWS = 3  # looks at the unfinished pictures of a sweep
ROWS_AT_ONCE = 32


class PocketDiffusion:
    """Pictures of a decoded pocket-clip image embedding, with classifier-free guidance.

    Decoded tokens or text context go through an adapter into an image embedding first.

    ``prediction = uncond + scale * (cond - uncond)``: scale 0 is the generator without the brain,
    1 the plain conditional model.
    """

    accepts = (IMAGE, *ADAPTED)
    provenance = "generated"
    guided = True
    needs = ()
    options: tuple[Option, ...] = ()
    default_steps = 20

    def __init__(self, checkpoints: Path, device: str = "cpu") -> None:
        """Load ``pocket-diffusion`` from the checkpoints; damaged files raise `UserError`."""
        import torch

        from backends.generators.networks import PocketNetworks
        from explorer.mapper import read_card, read_weights

        self._checkpoints = Path(checkpoints)
        folder = self._checkpoints / "pocket-diffusion"
        settings = read_card(folder).settings
        networks = PocketNetworks(**settings["architecture"])
        networks.load_state_dict(read_weights(folder, networks.state_dict()))
        self.networks = networks.to(device).eval().requires_grad_(False)
        if has_fast_bfloat16(device):
            # Module.to itself: diffusers' own warns of layers to keep exact, and here are none
            torch.nn.Module.to(networks.denoiser, torch.bfloat16)
        self.device = device
        self.scheduler = dict(settings["scheduler"])

    def sweep(
        self, condition: Condition, scales: Sequence[float], steps: int, seed: int
    ) -> Iterator[Step]:
        """Yield previews and one finished `Step` per scale, all scales in one batch.

        Only rows that matter are computed: no conditional row at scale 0, no unconditional one at
        scale 1, and the first step once for all scales, as they all start from the same noise.
        """
        import torch

        looks = {round(steps * k / (PREVIEWS + 1)) for k in range(1, PREVIEWS + 1)}
        guidance = torch.tensor(list(scales), device=self.device)
        tokens = self.networks.condition(self._embedding(condition)[None])
        tokens = tokens.expand(len(guidance), -1, -1)
        noise = self._noise(seed).expand(len(guidance), -1, -1, -1)
        for step, clean in self._denoise(noise, tokens, guidance, steps, shared_start=True):
            if step in looks or step == steps:
                done = step == steps
                pictures = self._pictures(clean) if done else self._previews(clean)
                for index, image in enumerate(pictures):
                    yield Step(index, float(scales[index]), step, steps, image, done)

    def generate(
        self, conditions: Sequence[Condition], scale: float, seeds: Sequence[int], steps: int
    ) -> np.ndarray:
        """Return uint8 (n, 128, 128, 3): each condition's finished picture, with its own seed."""
        import torch

        if len(conditions) != len(seeds):
            raise UserError(
                f"Give one seed a condition: {len(conditions)} and {len(seeds)} found."
            )
        pictures = []
        for begin in range(0, len(conditions), ROWS_AT_ONCE):
            part = slice(begin, begin + ROWS_AT_ONCE)
            embeddings = torch.stack([self._embedding(c) for c in conditions[part]])
            noise = torch.cat([self._noise(seed) for seed in seeds[part]])
            guidance = torch.full((len(noise),), float(scale), device=self.device)
            tokens = self.networks.condition(embeddings)
            for _, clean in self._denoise(noise, tokens, guidance, steps):
                last = clean
            pictures.append(self._pictures(last))
        return np.concatenate(pictures)

    def _denoise(
        self,
        latents: torch.Tensor,
        tokens: torch.Tensor,
        guidance: torch.Tensor,
        steps: int,
        shared_start: bool = False,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (1-based step, estimate of the clean latents (n, 16, 16, 16)) for n rows.

        ``shared_start``: all rows begin with the same noise and tokens, so the first step needs
        one conditional and one unconditional row only.
        """
        import torch
        from diffusers import DPMSolverMultistepScheduler

        scheduler = DPMSolverMultistepScheduler(**self.scheduler)
        scheduler.set_timesteps(steps, device=self.device)
        with_brain = (guidance != 0).nonzero().flatten()
        without = (guidance != 1).nonzero().flatten()
        null = self.networks.condition.null
        factor = guidance[:, None, None, None]
        for step, timestep in enumerate(scheduler.timesteps, start=1):
            shared = shared_start and step == 1
            c = with_brain[:1] if shared else with_brain
            u = without[:1] if shared else without
            rows = torch.cat([latents[c], latents[u]])
            context = torch.cat([tokens[c], null.expand(len(u), -1, -1)])
            both = self.networks.velocity(rows, context, timestep.expand(len(rows)))
            cond, uncond = torch.zeros_like(latents), torch.zeros_like(latents)
            cond[with_brain], uncond[without] = both[: len(c)], both[len(c) :]
            # rows at scale 0 lack cond and rows at scale 1 lack uncond: their factors are 0 there
            velocity = uncond * (1 - factor) + factor * cond
            sigma = scheduler.sigmas[step - 1].to(latents)
            clean = latents - sigma * velocity
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            yield step, latents if step == steps else clean

    def _embedding(self, condition: Condition) -> torch.Tensor:
        """Return the condition's embedding (128,) on the device; none raises `UserError`."""
        import torch

        space = next((space for space in self.accepts if space in condition.embeddings), None)
        if space is None:
            found = ", ".join(space.name for space in condition.embeddings) or "none"
            known = ", ".join(space.name for space in self.accepts)
            raise UserError(
                f"pocket-diffusion draws from {known}, the mapper gave {found}; choose a mapper "
                "with such a target."
            )
        decoded = torch.as_tensor(condition.embeddings[space]).float().to(self.device)
        if space == IMAGE:
            return decoded.reshape(128)
        with torch.inference_mode():
            return self._adapters[space.layer](decoded.reshape(1, *space.shape))[0]

    @cached_property
    def _adapters(self) -> torch.nn.ModuleDict:
        """Layer -> its adapter; loaded by the first mapper that needs one."""
        from torch.nn import ModuleDict

        from backends.generators.adapters import Adapter
        from explorer.mapper import read_weights

        adapters = ModuleDict({space.layer: Adapter(*space.shape) for space in ADAPTED})
        weights = read_weights(self._checkpoints / "pocket-adapters", adapters.state_dict())
        adapters.load_state_dict(weights)
        return adapters.to(self.device).eval().requires_grad_(False)

    def _noise(self, seed: int) -> torch.Tensor:
        """Return the starting noise (1, 16, 16, 16) of a seed, the same on every device."""
        import torch

        generator = torch.Generator().manual_seed(int(seed))
        return torch.randn((1, *self.networks.latent_shape), generator=generator).to(self.device)

    def _pictures(self, latents: torch.Tensor) -> np.ndarray:
        return _pixels(self.networks.decode(latents))

    def _previews(self, latents: torch.Tensor) -> np.ndarray:
        return _pixels(self.networks.preview(latents))


def has_fast_bfloat16(device: str) -> bool:
    """Return whether products in bfloat16 are faster than in float32 on a device.

    On two cores with AVX-512 BF16 a sweep takes half the time, and the pictures differ by about
    one grey level at most from those in float32.
    """
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return device == "cpu" and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _pixels(decoded: torch.Tensor) -> np.ndarray:
    """Return uint8 (n, H, W, 3) of pixels (n, 3, H, W) in about -1 ... 1."""
    import torch

    grey_levels = decoded.clamp(-1, 1).add(1).mul(127.5).round()
    return grey_levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
