"""The trained parts of pocket-diffusion, built from diffusers components.

An autoencoder (principal components of 8 x 8 pixel blocks plus what an `AutoencoderDC` adds; 128 x
128 pixels to 16 x 16 latents) and a transformer denoiser (`PixArtTransformer2DModel`) that attends
to a few tokens made of one pocket-clip image embedding. In a file of its own, because importing
diffusers takes seconds that the page's pickers should not wait for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderDC, PixArtTransformer2DModel
from diffusers.models.attention_processor import AttnProcessor

EMBEDDING = 128  # length of a pocket-clip image embedding
LATENT = (16, 16, 16)
BLOCK = 8  # pixels a latent spans in each direction
TOKENS, TOKEN_WIDTH = 8, 128


class ConditionTokens(torch.nn.Module):
    """An embedding (n, 128) to the tokens (n, 8, 128) that the denoiser attends to.

    ``null`` are the learned tokens of "no brain": used for dropped conditions in training and, the
    same, at guidance scale 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(EMBEDDING, TOKENS * TOKEN_WIDTH)
        self.null = torch.nn.Parameter(torch.randn(1, TOKENS, TOKEN_WIDTH) * 0.5)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Return tokens for embeddings of any length: only their direction is used."""
        unit = torch.nn.functional.normalize(embedding.float(), dim=-1)
        # entries of a 128-d unit vector have variance 1/128: bring them to 1
        return self.linear(unit * EMBEDDING**0.5).unflatten(1, (TOKENS, TOKEN_WIDTH))


class ConditionedTimestep(torch.nn.Module):
    """The denoiser's timestep embedding with the condition added to it.

    Stands where `PixArtTransformer2DModel` has its ``adaln_single``. Every layer's scales and
    shifts then depend on the condition, as in class-conditional DiT (Peebles & Xie 2023): with
    cross-attention alone a small model is slow to heed it.
    """

    def __init__(self, original: torch.nn.Module) -> None:
        super().__init__()
        self.original = original
        width = original.linear.in_features
        self.condition = torch.nn.Sequential(
            torch.nn.Linear(TOKENS * TOKEN_WIDTH, 192),
            torch.nn.SiLU(),
            torch.nn.Linear(192, width),
        )

    def forward(
        self,
        timestep: torch.Tensor,
        added_cond_kwargs: Mapping[str, Any],
        batch_size: int,
        hidden_dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the modulation (n, 6 * width) and the embedding (n, width) it is made of."""
        tokens = added_cond_kwargs["tokens"]
        embedding = self.original.emb(
            timestep,
            resolution=None,
            aspect_ratio=None,
            batch_size=batch_size,
            hidden_dtype=hidden_dtype,
        ) + self.condition(tokens.flatten(1).to(hidden_dtype))
        return self.original.linear(self.original.silu(embedding)), embedding


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

    latent_shape = LATENT

    def __init__(self, autoencoder: Mapping[str, Any], denoiser: Mapping[str, Any]) -> None:
        super().__init__()
        self.autoencoder = Autoencoder(**autoencoder)
        self.denoiser = PixArtTransformer2DModel(**denoiser)
        # PyTorch's fused CPU attention is slower than plain products at 64 tokens
        self.denoiser.set_attn_processor(AttnProcessor())
        self.denoiser.adaln_single = ConditionedTimestep(self.denoiser.adaln_single)
        self.condition = ConditionTokens()
        self.register_buffer("latent_mean", torch.zeros(1, LATENT[0], 1, 1))
        self.register_buffer("latent_sd", torch.ones(()))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return standardised latents (n, 16, 16, 16) of pixels (n, 3, 128, 128) in -1 ... 1."""
        return (self.autoencoder.encode(pixels) - self.latent_mean) / self.latent_sd

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels (n, 3, 128, 128) in about -1 ... 1 of standardised latents."""
        return self.autoencoder.decode(latents * self.latent_sd + self.latent_mean)

    def preview(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels as `decode` does, by the linear map alone: cheap, and a bit blocky."""
        return self.autoencoder.linear_out(latents * self.latent_sd + self.latent_mean)

    def velocity(
        self, latents: torch.Tensor, tokens: torch.Tensor, timestep: torch.Tensor
    ) -> torch.Tensor:
        """Return the flow's velocity, noise minus picture; ``timestep`` (n,) runs 1000 to 0."""
        dtype = self.denoiser.dtype
        tokens = tokens.to(dtype)
        flow = self.denoiser(
            latents.to(dtype),
            encoder_hidden_states=tokens,
            timestep=timestep,
            added_cond_kwargs={"tokens": tokens},
        ).sample
        return flow.to(latents)


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
