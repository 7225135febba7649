"""What fine-tuning sees of a generator, and how fine-tuned weights are kept and put back.

After system 3 (NeuroLens): of the UNet its cross-attention and what tells it the time are trained,
together with a projection of what was decoded, and a share of conditions is dropped for one null.
The original drops to zeros and samples with its encoder's answer to a zero brain; here the same
learned null is meant in both.

A fine-tuned checkpoint holds only what was trained, beside the weights that it began with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from explorer.mapper import read_card, read_weights
from explorer.types import CARD, Card, EmbeddingSpace, UserError

HIDDEN = 256  # of the projection: our choice
TOLD = ("time_embedding", "class_embedding")
TOLD_BY_CARD = ("base", "base hash", "mapper", "guidance")


def trained_names(unet: torch.nn.Module) -> list[str]:
    """Return which parameters of a diffusers UNet are fine-tuned, by the components' names.

    ``attn2`` and ``norm2`` of every transformer block, and `TOLD`. Residual blocks have a
    ``norm2`` too, which is left as it is.
    """
    found = []
    for name, _ in unet.named_parameters():
        parts = name.split(".")
        crossed = "transformer_blocks" in parts and ("attn2" in parts or "norm2" in parts)
        if crossed or parts[0] in TOLD:
            found.append(name)
    return found


class Projection(torch.nn.Module):
    """What was decoded (n, *shape) plus what a small network makes of it, position by position.

    It starts as nothing added. In a space of unit norm only the direction is read and kept.
    ``mean`` and ``sd`` (D,) are those of decoded training trials.
    """

    def __init__(self, space: EmbeddingSpace) -> None:
        super().__init__()
        width = space.shape[-1]
        self._unit = space.unit_norm
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("sd", torch.ones(width))
        self.down, self.up = torch.nn.Linear(width, HIDDEN), torch.nn.Linear(HIDDEN, width)
        torch.nn.init.zeros_(self.up.weight)
        torch.nn.init.zeros_(self.up.bias)

    def forward(self, decoded: torch.Tensor) -> torch.Tensor:
        """Return embeddings (n, *shape)."""
        x = self._ready(decoded)
        hidden = torch.nn.functional.gelu(self.down((x - self.mean) / self.sd))
        return x + self.sd * self.up(hidden)

    @torch.no_grad()
    def set_statistics(self, decoded: torch.Tensor) -> None:
        """Take mean and SD from decoded training trials (n, *shape)."""
        rows = self._ready(decoded).flatten(0, -2)
        self.mean.copy_(rows.mean(dim=0))
        sd = rows.std(dim=0)
        self.sd.copy_(torch.where(sd > 0.01 * sd.mean(), sd, sd.mean().clamp_min(1e-6)))

    def _ready(self, decoded: torch.Tensor) -> torch.Tensor:
        x = decoded.float()
        return torch.nn.functional.normalize(x, dim=-1) if self._unit else x


class Learned(torch.nn.Module):
    """All that fine-tuning changes: parameters of the UNet, the projection, and the null (T, W).

    The UNet's own parameters are held, not copies.
    """

    def __init__(self, space: EmbeddingSpace, unet: torch.nn.Module, null: torch.Tensor) -> None:
        super().__init__()
        names = trained_names(unet)
        if not any("attn2" in name for name in names):
            raise UserError(
                f"{type(unet).__name__} has no cross-attention under the name attn2, so there is "
                "nothing to fine-tune with decoded embeddings; choose another generator."
            )
        self.projection = Projection(space)
        self.null = torch.nn.Parameter(null.detach().clone())
        held = dict(unet.named_parameters())
        # a dot in a name would be a module of its own
        self.denoiser = torch.nn.ParameterDict({n.replace(".", "/"): held[n] for n in names})

    def stored(self) -> dict[str, torch.Tensor]:
        """Return the tensors of a checkpoint, by the UNet's own names."""
        return {name.replace("/", "."): value for name, value in self.state_dict().items()}

    def put(self, stored: Mapping[str, torch.Tensor]) -> None:
        """Take the tensors of a checkpoint, in the UNet too."""
        own = {name.replace("/", "."): name for name in self.state_dict()}
        self.load_state_dict({own[name]: value for name, value in stored.items()})


def tuned_card(source: str | Path | None, generator: str) -> Card | None:
    """Return the card of a fine-tuned checkpoint, None where ``source`` is none.

    One of another generator raises `UserError`.
    """
    if not source or not (Path(source).expanduser() / CARD).is_file():
        return None
    card = read_card(Path(source).expanduser())
    if card.kind != "generator" or card.cls != generator:
        raise UserError(
            f"{source} is a checkpoint of the {card.kind} {card.cls}, expected what python -m "
            f"backends finetune {generator} wrote; name that folder."
        )
    if lacking := [key for key in TOLD_BY_CARD if key not in card.settings]:
        raise UserError(
            f"The card.json in {source} lacks {lacking[0]!r} among its settings; it is damaged or "
            f"of another version: fine-tune again with python -m backends finetune {generator}"
        )
    return card


def read_tuned(source: str | Path, card: Card, learned: Learned, base: str) -> None:
    """Put a fine-tuned checkpoint's weights into ``learned``.

    ``base``: the hash of the weights that they go with; others raise `UserError`.
    """
    expected = card.settings["base hash"]
    if base != expected:
        raise UserError(
            f"{source} was fine-tuned from other weights of {card.cls} (hash {expected}) than "
            f"those here (hash {base}); fine-tune again with: python -m backends finetune "
            f"{card.cls}"
        )
    learned.put(read_weights(Path(source).expanduser(), learned.stored()))
    learned.eval().requires_grad_(False)


def tuned_remarks(card: Card) -> list[str]:
    """Return what must be known of fine-tuned weights."""
    how = f"{card.settings['mapper']} of {card.dataset} ({', '.join(card.subjects)})"
    remarks = [
        f"{card.cls} draws with weights that were fine-tuned on what {how} decodes; with other "
        "mappers it may be worse than before."
    ]
    if not card.settings["guidance"]:
        remarks.append(
            f"{card.cls} was fine-tuned without a null, so other guidance scales than 1 mix in "
            "what it no longer is."
        )
    return remarks


class Trainee:
    """A generator that is being fine-tuned; a family says how its UNet is told and noised.

    Parameters
    ----------
    generator
        Its name.
    space
        What it draws from.
    unet
        Its UNet, in float32.
    null
        What it is told without the brain (T, W), from which the learned null starts.
    frozen
        The networks that stay as they are (and hold the UNet), to be brought to a device.
    base, source
        The hash of its weights, and where they are ("" in checkpoints).
    shape
        Of its latents, (C, S, S).
    side
        Of its pictures, in pixels.
    """

    def __init__(
        self,
        generator: str,
        space: EmbeddingSpace,
        unet: torch.nn.Module,
        null: torch.Tensor,
        *,
        frozen: tuple[torch.nn.Module, ...],
        base: str,
        source: str,
        shape: tuple[int, int, int],
        side: int,
    ) -> None:
        self.generator, self.space, self.unet = generator, space, unet
        self.base, self.source, self.shape, self.side = base, source, shape, side
        self.frozen = frozen
        for network in frozen:
            network.requires_grad_(False)
        self.learned = Learned(space, unet, null)
        for parameter in self.learned.parameters():
            parameter.requires_grad_(True)

    def told(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the tokens (n, T, W) for embeddings (n, *shape), differentiable."""
        raise NotImplementedError

    def predict(
        self, noisy: torch.Tensor, tokens: torch.Tensor, time: torch.Tensor
    ) -> torch.Tensor:
        """Return the UNet's prediction (n, C, S, S)."""
        raise NotImplementedError

    def noised(
        self, clean: torch.Tensor, noise: torch.Tensor, drawn: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return noisy latents, their times (n,) and what is to be predicted.

        ``drawn`` (n,): uniform numbers in [0, 1) that decide the times.
        """
        raise NotImplementedError

    def clean(
        self, noisy: torch.Tensor, prediction: torch.Tensor, time: torch.Tensor
    ) -> torch.Tensor:
        """Return the clean latents that a prediction expects."""
        raise NotImplementedError

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return latents of pixels (n, 3, side, side) in -1 ... 1."""
        raise NotImplementedError

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels in about -1 ... 1, differentiable."""
        raise NotImplementedError


class FlowTrainee(Trainee):
    """pocket-diffusion: a rectified flow, told an embedding as tokens (`networks`)."""

    def __init__(self, networks: Any, shift: float, **about: Any) -> None:
        self.networks, self.shift = networks, shift
        super().__init__(
            frozen=(networks,),
            unet=networks.denoiser,
            null=networks.condition.null[0],
            shape=tuple(networks.latent_shape),
            **about,
        )

    def told(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the tokens that the denoiser was trained to read, (n, 8, 128)."""
        return self.networks.condition(embeddings)

    def predict(
        self, noisy: torch.Tensor, tokens: torch.Tensor, time: torch.Tensor
    ) -> torch.Tensor:
        """Return the flow's velocity."""
        return self.networks.velocity(noisy, tokens, time)

    def noised(
        self, clean: torch.Tensor, noise: torch.Tensor, drawn: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mix at times as the denoiser was trained: logit-normal, shifted towards noise."""
        share = torch.special.ndtri(drawn.clamp(1e-6, 1 - 1e-6)).sigmoid()
        share = self.shift * share / (1 + (self.shift - 1) * share)
        return torch.lerp(clean, noise, _wide(share)), share * 1000, noise - clean

    def clean(
        self, noisy: torch.Tensor, prediction: torch.Tensor, time: torch.Tensor
    ) -> torch.Tensor:
        """Follow the straight line of a rectified flow to its end."""
        return noisy - _wide(time / 1000) * prediction

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return standardised latents."""
        return self.networks.encode(pixels)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels of standardised latents."""
        return self.networks.decode(latents)


class NoiseTrainee(Trainee):
    """Stable Diffusion: told a context as it is, its UNet predicts noise or velocity."""

    def __init__(self, autoencoder: Any, scheduler: Mapping[str, Any], **about: Any) -> None:
        from diffusers import DDPMScheduler

        self.autoencoder = autoencoder
        self.scheduler = DDPMScheduler.from_config(scheduler)
        kind = self.scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction"):
            raise UserError(
                f"{about['generator']} predicts {kind!r}, expected noise (epsilon) or velocity "
                "(v_prediction); name other weights with --generator."
            )
        self._velocity = kind == "v_prediction"
        super().__init__(frozen=(about["unet"], autoencoder), **about)

    def told(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the context itself, (n, 77, 768)."""
        return embeddings

    def predict(
        self, noisy: torch.Tensor, tokens: torch.Tensor, time: torch.Tensor
    ) -> torch.Tensor:
        """Return noise or velocity, as the weights were trained."""
        return self.unet(noisy, time, encoder_hidden_states=tokens).sample

    def noised(
        self, clean: torch.Tensor, noise: torch.Tensor, drawn: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Add noise by the published schedule, at times drawn evenly."""
        time = (drawn * self.scheduler.config.num_train_timesteps).long()
        noisy = self.scheduler.add_noise(clean, noise, time)
        goal = self.scheduler.get_velocity(clean, noise, time) if self._velocity else noise
        return noisy, time, goal

    def clean(
        self, noisy: torch.Tensor, prediction: torch.Tensor, time: torch.Tensor
    ) -> torch.Tensor:
        """Solve the schedule's mixture for the picture."""
        kept = _wide(self.scheduler.alphas_cumprod.to(noisy)[time])
        if self._velocity:  # Salimans & Ho 2022, arXiv 2202.00512, appendix D
            return kept.sqrt() * noisy - (1 - kept).sqrt() * prediction
        return (noisy - (1 - kept).sqrt() * prediction) / kept.sqrt()

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return scaled latents, the mean of what the autoencoder says."""
        found = self.autoencoder.encode(pixels).latent_dist.mean
        return found * self.autoencoder.config.scaling_factor

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels of scaled latents."""
        return self.autoencoder.decode(latents / self.autoencoder.config.scaling_factor).sample


def _wide(numbers: torch.Tensor) -> torch.Tensor:
    """Return numbers (n,) as (n, 1, 1, 1)."""
    return numbers[:, None, None, None]
