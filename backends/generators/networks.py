"""The trained parts of pocket-diffusion, built from diffusers components.

An autoencoder (principal components of 8 x 8 pixel blocks plus what an `AutoencoderDC` adds; 128 x
128 pixels to 16 x 16 latents) and a denoiser (`UNet2DConditionModel`) that is told one pocket-clip
image embedding as a few tokens. In a file of its own, because importing diffusers takes seconds
that the page's pickers should not wait for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderDC, UNet2DConditionModel
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


class Norm(torch.nn.GroupNorm):
    """A group norm that computes in float32 whatever comes in.

    With channels last, PyTorch's own in bfloat16 takes a CPU five times as long as this, casts
    included, and at 16 x 16 positions longer than the convolution after it.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x (n, C, ...) normalised, in its own type."""
        weight, bias = self.weight.float(), self.bias.float()
        found = torch.nn.functional.group_norm(x.float(), self.num_groups, weight, bias, self.eps)
        return found.to(x.dtype)


def with_quick_norms(network: torch.nn.Module) -> None:
    """Put a `Norm` in the place of every group norm of a network; its tensors keep their names."""
    for module in list(network.modules()):
        for name, part in list(module.named_children()):
            if type(part) is torch.nn.GroupNorm:
                norm = Norm(part.num_groups, part.num_channels, part.eps)
                norm.load_state_dict(part.state_dict())
                setattr(module, name, norm)


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
        """Return pixels (n, 3, 128, 128) in about -1 ... 1; the correction in its own type."""
        told = latents.to(self.correction.decoder.conv_in.weight.dtype)
        told = told.contiguous(memory_format=torch.channels_last)
        return self.linear_out(latents) + self.correction.decode(told).sample.to(latents)


class PocketNetworks(torch.nn.Module):
    """All trained parts in one module, so that they are saved and checked as one."""

    latent_shape = LATENT

    def __init__(self, autoencoder: Mapping[str, Any], denoiser: Mapping[str, Any]) -> None:
        super().__init__()
        self.autoencoder = Autoencoder(**autoencoder)
        self.denoiser = UNet2DConditionModel(**denoiser)
        # plain products beat PyTorch's fused CPU attention at 16 positions, and a CPU's
        # convolutions are about twice as fast with channels last
        self.denoiser.set_attn_processor(AttnProcessor())
        with_quick_norms(self.denoiser)
        self.denoiser.to(memory_format=torch.channels_last)
        self.autoencoder.to(memory_format=torch.channels_last)
        self.condition = ConditionTokens()
        self.register_buffer("latent_mean", torch.zeros(1, LATENT[0], 1, 1))
        self.register_buffer("latent_scale", torch.ones(1, LATENT[0], 1, 1))

    @torch.no_grad()
    def standardise(self, latents: torch.Tensor) -> None:
        """Set mean and scale from the autoencoder's latents (n, 16, 16, 16) of many pictures.

        Afterwards the mean variance of a channel is 1, and its SD is in proportion to the square
        of the SD before: that undoes the autoencoder's division by the root of the SD, so that an
        error in latents counts about as much as in pixels and the denoiser learns the layout
        before fine detail.
        """
        mean = latents.mean(dim=(0, 2, 3), keepdim=True)
        sd = (latents - mean).std(dim=(0, 2, 3), keepdim=True)
        self.latent_mean.copy_(mean)
        self.latent_scale.copy_(sd.pow(4).mean().sqrt() / sd)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return standardised latents (n, 16, 16, 16) of pixels (n, 3, 128, 128) in -1 ... 1."""
        return (self.autoencoder.encode(pixels) - self.latent_mean) / self.latent_scale

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels (n, 3, 128, 128) in about -1 ... 1 of standardised latents."""
        return self.autoencoder.decode(latents * self.latent_scale + self.latent_mean)

    def preview(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels as `decode` does, by the linear map alone: cheap, and a bit blocky."""
        return self.autoencoder.linear_out(latents * self.latent_scale + self.latent_mean)

    def velocity(
        self, latents: torch.Tensor, tokens: torch.Tensor, timestep: torch.Tensor
    ) -> torch.Tensor:
        """Return the flow's velocity, noise minus picture; ``timestep`` (n,) runs 1000 to 0."""
        dtype = self.denoiser.conv_in.weight.dtype  # `dtype` walks through all modules
        tokens = tokens.to(dtype)
        flow = self.denoiser(
            latents.to(dtype).contiguous(memory_format=torch.channels_last),
            timestep,
            encoder_hidden_states=tokens,
            class_labels=tokens.flatten(1),
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

# The tokens are attended to where the grid is smallest; added to the timestep ("projection") they
# also reach every convolution, which a small model heeds much sooner.
DENOISER = {
    "sample_size": LATENT[1],
    "in_channels": LATENT[0],
    "out_channels": LATENT[0],
    "down_block_types": ("DownBlock2D", "DownBlock2D", "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D", "UpBlock2D", "UpBlock2D"),
    "block_out_channels": (96, 160, 160),
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "attention_head_dim": 4,
    "cross_attention_dim": TOKEN_WIDTH,
    "time_embedding_dim": 256,
    "resnet_time_scale_shift": "scale_shift",
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": TOKENS * TOKEN_WIDTH,
}

SCHEDULER = {
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "flow_shift": 1.0,
    "solver_order": 2,
}
