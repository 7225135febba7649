"""pocket-diffusion: a small latent diffusion model for the simulated scenes, from diffusers parts.

An autoencoder (principal components of 8 x 8 pixel blocks plus what an `AutoencoderDC` adds; 128 x
128 pixels to 16 x 16 latents), a transformer denoiser (`PixArtTransformer2DModel`) that attends to
a few tokens made of one pocket-clip image embedding, and DPM-Solver++ on a rectified flow. The
parts are put together here: a pipeline class inside a checkpoint folder would run that folder's
code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderDC,
    DPMSolverMultistepScheduler,
    PixArtTransformer2DModel,
)
from diffusers.models.attention_processor import AttnProcessor

from explorer.mapper import read_card, read_weights
from explorer.types import Condition, EmbeddingSpace, Option, Step, UserError

IMAGE = EmbeddingSpace("pocket-clip", "image", (128,), unit_norm=True)
LATENT = (16, 16, 16)
BLOCK = 8  # pixels a latent spans in each direction
TOKENS, TOKEN_WIDTH = 8, 128
PREVIEWS = 3  # looks at the unfinished pictures of a sweep; each costs one decoding
ROWS_AT_ONCE = 32


class ConditionTokens(torch.nn.Module):
    """An embedding (n, 128) to the tokens (n, 8, 128) that the denoiser attends to.

    ``null`` are the learned tokens of "no brain": used for dropped conditions in training and, the
    same, at guidance scale 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(IMAGE.size, TOKENS * TOKEN_WIDTH)
        self.null = torch.nn.Parameter(torch.randn(1, TOKENS, TOKEN_WIDTH) * 0.5)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Return tokens for embeddings of any length: only their direction is used."""
        unit = torch.nn.functional.normalize(embedding.float(), dim=-1)
        # entries of a 128-d unit vector have variance 1/128: bring them to 1
        return self.linear(unit * IMAGE.size**0.5).unflatten(1, (TOKENS, TOKEN_WIDTH))


class Autoencoder(torch.nn.Module):
    """Pixels (n, 3, 128, 128) to latents (n, 16, 16, 16) and back: a linear map plus a correction.

    The linear map of 8 x 8 blocks starts as their principal components, which alone give about
    27 dB on the simulated scenes; an `AutoencoderDC` beside it starts at zero and learns the rest.
    From random weights the same network needs most of its training to get as far.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        channels = config["latent_channels"]
        self.linear_in = torch.nn.Conv2d(3, channels, BLOCK, BLOCK)
        self.linear_out = torch.nn.ConvTranspose2d(channels, 3, BLOCK, BLOCK)
        self.correction = AutoencoderDC(**config)
        for layer in (self.correction.encoder.conv_out, self.correction.decoder.conv_out.conv):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def start_from_principal_components(self, pixels: torch.Tensor) -> None:
        """Set the linear map from pixels (n, 3, 128, 128) in -1 ... 1.

        Components are divided by the square root of their SD, between none (the first would
        outweigh all) and whitening (fine detail would weigh as much as the layout), and scaled to
        a mean variance of 1.
        """
        blocks = torch.nn.functional.unfold(pixels.float(), BLOCK, stride=BLOCK)
        rows = blocks.transpose(1, 2).reshape(-1, 3 * BLOCK * BLOCK)
        mean = rows.mean(dim=0)
        values, vectors = torch.linalg.eigh(torch.cov(rows.T))
        keep = values.argsort(descending=True)[: self.linear_in.out_channels]
        sd, axes = values[keep].clamp(min=1e-12).sqrt(), vectors[:, keep].T  # (16,), (16, 192)
        scale = sd.sqrt() * sd.mean().sqrt()  # variances after division: sd / mean sd
        encode, decode = axes / scale[:, None], axes * scale[:, None]
        self.linear_in.weight.copy_(encode.view_as(self.linear_in.weight))
        self.linear_in.bias.copy_(-(encode @ mean))
        self.linear_out.weight.copy_(decode.view_as(self.linear_out.weight))
        # the mean block is no constant colour: what a bias per colour cannot hold is tiny
        self.linear_out.bias.copy_(mean.view(3, -1).mean(dim=1))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return latents (n, 16, 16, 16) of pixels (n, 3, 128, 128) in -1 ... 1."""
        return self.linear_in(pixels) + self.correction.encode(pixels).latent

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels (n, 3, 128, 128) in about -1 ... 1."""
        return self.linear_out(latents) + self.correction.decode(latents).sample


class PocketNetworks(torch.nn.Module):
    """All trained parts in one module, so that they are saved and checked as one."""

    def __init__(self, autoencoder: Mapping[str, Any], denoiser: Mapping[str, Any]) -> None:
        super().__init__()
        self.autoencoder = Autoencoder(**autoencoder)
        self.denoiser = PixArtTransformer2DModel(**denoiser)
        # PyTorch's fused CPU attention is slower than plain products at 64 tokens
        self.denoiser.set_attn_processor(AttnProcessor())
        self.condition = ConditionTokens()
        self.register_buffer("latent_mean", torch.zeros(1, LATENT[0], 1, 1))
        self.register_buffer("latent_sd", torch.ones(()))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return standardised latents (n, 16, 16, 16) of pixels (n, 3, 128, 128) in -1 ... 1."""
        return (self.autoencoder.encode(pixels) - self.latent_mean) / self.latent_sd

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels (n, 3, 128, 128) in about -1 ... 1 of standardised latents."""
        return self.autoencoder.decode(latents * self.latent_sd + self.latent_mean)

    def velocity(
        self, latents: torch.Tensor, tokens: torch.Tensor, timestep: torch.Tensor
    ) -> torch.Tensor:
        """Return the flow's velocity, noise minus picture; ``timestep`` (n,) runs 1000 to 0."""
        return self.denoiser(
            latents,
            encoder_hidden_states=tokens,
            timestep=timestep,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample


AUTOENCODER = {
    "in_channels": 3,
    "latent_channels": LATENT[0],
    "attention_head_dim": 32,
    "encoder_out_shortcut": False,
    "encoder_block_types": "ResBlock",
    "decoder_block_types": "ResBlock",
    "encoder_block_out_channels": (32, 32, 64, 128),
    "decoder_block_out_channels": (32, 32, 64, 128),
    "encoder_layers_per_block": (0, 2, 2, 2),
    "decoder_layers_per_block": (0, 2, 2, 2),
    "encoder_qkv_multiscales": ((), (), (), ()),
    "decoder_qkv_multiscales": ((), (), (), ()),
    "downsample_block_type": "pixel_unshuffle",
    "upsample_block_type": "pixel_shuffle",
    "decoder_norm_types": "rms_norm",
    "decoder_act_fns": "silu",
}

DENOISER = {
    "num_attention_heads": 4,
    "attention_head_dim": 64,
    "in_channels": LATENT[0],
    "out_channels": LATENT[0],
    "num_layers": 7,
    "cross_attention_dim": 256,
    "sample_size": LATENT[1],
    "patch_size": 2,
    "caption_channels": TOKEN_WIDTH,
    "use_additional_conditions": False,
}

SCHEDULER = {
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "flow_shift": 1.0,
    "solver_order": 2,
}


class PocketDiffusion:
    """Pictures of a decoded pocket-clip image embedding, with classifier-free guidance.

    ``prediction = uncond + scale * (cond - uncond)``: scale 0 is the generator without the brain,
    1 the plain conditional model.
    """

    accepts = (IMAGE,)
    provenance = "generated"
    guided = True
    needs = ()
    options: tuple[Option, ...] = ()
    default_steps = 20

    def __init__(self, checkpoints: Path, device: str = "cpu") -> None:
        """Load ``pocket-diffusion`` from the checkpoints; damaged files raise `UserError`."""
        folder = Path(checkpoints) / "pocket-diffusion"
        settings = read_card(folder).settings
        networks = PocketNetworks(**settings["architecture"])
        networks.load_state_dict(read_weights(folder, networks.state_dict()))
        self.networks = networks.to(device).eval().requires_grad_(False)
        self.device = device
        self.scheduler = dict(settings["scheduler"])

    @torch.inference_mode()
    def sweep(
        self, condition: Condition, scales: Sequence[float], steps: int, seed: int
    ) -> Iterator[Step]:
        """Yield previews and one finished `Step` per scale, all scales in one batch.

        Only rows that matter are computed: no conditional row at scale 0, no unconditional one at
        scale 1, and the first step once for all scales, as they all start from the same noise.
        """
        looks = {round(steps * k / (PREVIEWS + 1)) for k in range(1, PREVIEWS + 1)}
        guidance = torch.tensor(list(scales), device=self.device)
        tokens = self.networks.condition(self._embedding(condition)[None])
        tokens = tokens.expand(len(guidance), -1, -1)
        noise = self._noise(seed).expand(len(guidance), -1, -1, -1)
        for step, clean in self._denoise(noise, tokens, guidance, steps, shared_start=True):
            if step in looks or step == steps:
                for index, image in enumerate(self._pictures(clean)):
                    yield Step(index, float(scales[index]), step, steps, image, step == steps)

    @torch.inference_mode()
    def generate(
        self, conditions: Sequence[Condition], scale: float, seeds: Sequence[int], steps: int
    ) -> np.ndarray:
        """Return uint8 (n, 128, 128, 3): each condition's finished picture, with its own seed."""
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
        if IMAGE not in condition.embeddings:
            found = ", ".join(space.name for space in condition.embeddings) or "none"
            raise UserError(
                f"pocket-diffusion draws from {IMAGE.name}, the mapper gave {found}; choose a "
                "mapper with that target."
            )
        return torch.as_tensor(condition.embeddings[IMAGE]).reshape(128).float().to(self.device)

    def _noise(self, seed: int) -> torch.Tensor:
        """Return the starting noise (1, 16, 16, 16) of a seed, the same on every device."""
        generator = torch.Generator().manual_seed(int(seed))
        return torch.randn((1, *LATENT), generator=generator).to(self.device)

    def _pictures(self, latents: torch.Tensor) -> np.ndarray:
        pixels = self.networks.decode(latents).clamp(-1, 1).add(1).mul(127.5).round()
        return pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
