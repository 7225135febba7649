"""flux: FLUX.1 told a ViT-L/14 image embedding by an IP-Adapter, with true guidance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.embedders.clip import ViTL14
from backends.generators.guidance import SCALED, Level, asking, at_step, predicted
from backends.generators.memory import Denoiser, best_dtype, place, slower
from backends.generators.sampling import Sampling, Sources, Wanted, one_by_one, pixels, through
from backends.generators.weights import NETWORK, TRANSFORMER, Part, Weights, taesd, text_parts
from explorer.files import guard, reason
from explorer.protocols import Condition, Option, TrainedOn
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

    from backends.generators.memory import Inputs

IMAGE = ViTL14.spaces[0]
WORKING = 4e9  # bytes one row of 1024 pixels may take besides the weights: our choice
PICTURES_AT_ONCE = 8
TOKENS = 512  # of T5's prompt (FluxPipeline)
ADAPTER = ("flux-ip-adapter", "ip_adapter.safetensors")
TINY = "taef1"


class Flux(Sampling):
    """FLUX.1 dev with XLabs' IP-Adapter, told a ViT-L/14 image embedding beside an empty prompt.

    A rectified flow, in Euler steps on FLUX's own spacing. Its scale is true classifier-free
    guidance: the velocity with the embedding and that without, two passes a step. The number that
    FLUX.1 was distilled to be told in place of guidance is an option of its own
    (``told_guidance``), the same in both passes: it says nothing about the brain. Without the
    brain the embedding is zeros; the prompt is empty either way, where published calls that give
    no negative picture take the embedding of a black one.

    Parameters
    ----------
    checkpoints, device, source
        As `LatentDiffusion`; one folder holds what comes from both repositories.
    """

    name, size = "flux", "about 35 GB"
    hub = "black-forest-labs/FLUX.1-dev"
    trained_on = TrainedOn("web pictures (of FLUX.1, whose makers do not say which)")
    accepts = (IMAGE,)
    provenance = "generated"
    guided = True
    needs = ()
    options = (
        *SCALED,
        Option(
            *("told_guidance", 0.0, 10.0, 3.5),
            "A number that FLUX.1 was distilled to be told, as if it were a guidance scale: it "
            "makes pictures more regular and is no guidance towards the brain. The scales are "
            "that: true classifier-free guidance.",
        ),
    )
    default_steps = 28
    side = 128  # latents of 1024 pixels

    def __init__(
        self, checkpoints: Path, device: str = "cpu", source: str | Path | None = None
    ) -> None:
        usual = Path(checkpoints) / "generators" / self.name
        self.weights = Weights(self.name, self.hub, self.size, self.parts(), usual, source)
        self.device, self.dtype = device, best_dtype(device)
        self.remarks = [
            f"The scales of {self.name} are true classifier-free guidance; the number that it was "
            "distilled to be told is its option told_guidance."
        ]
        parts = {part.folder: part for part in self.weights.parts}
        self._prompt = self._said(parts)
        self.transformer = self._adapted(self.weights.load(parts["transformer"], self.dtype))
        placement = place(self.transformer, device, WORKING * (self.side / 128) ** 2)
        self.remarks += slower(self.name, "transformer", device, placement)
        self.denoiser = Flowing(self.transformer, self.name, self.size, device, self.dtype)
        self.decoder = self.weights.load(parts["vae"]).to(device)
        self.latent_shape = (self.transformer.config.in_channels // 4, self.side, self.side)
        self.scheduler = parts["scheduler"]
        self.sigmas(1)  # one that cannot be followed is refused now
        places = [self.weights.folder / TINY, Path(checkpoints) / TINY]
        found = next((place for place in places if place.is_dir()), None)
        self._tiny = None if found is None else taesd(found).to(device)

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts, and the adapter's file; T5 reads an empty prompt without tokenizer."""
        told = {"in_channels": 64, "joint_attention_dim": 4096, "pooled_projection_dim": 768}
        folder, file = ADAPTER
        return (
            Part("transformer", "diffusers:FluxTransformer2DModel", NETWORK, told, shards=3),
            Part("vae", "diffusers:AutoencoderKL", expects={"latent_channels": 16}),
            Part("scheduler", "", ("scheduler_config.json",)),
            *text_parts(),
            Part("text_encoder_2", "transformers:T5EncoderModel", TRANSFORMER, shards=2),
            Part(folder, "", (file,), hub="XLabs-AI/flux-ip-adapter"),
        )

    @property
    def fingerprint(self) -> str:
        """Names the exact files of its weights; reading them all takes minutes, once."""
        return self.weights.fingerprint

    def _said(self, parts: Mapping[str, Part]) -> Inputs:
        """Return what the transformer is told of the empty prompt."""
        import torch

        pooled = self.weights.empty_prompt(parts).pooler_output
        encoder = self.weights.load(parts["text_encoder_2"], self.dtype)
        with guard(
            self.weights.path(parts["text_encoder_2"]),
            f"the second text encoder of {self.name}",
            f"get it again with: {self.weights.command}",
        ):
            config = encoder.config  # an empty text is its end, and padding
            ids = torch.full((1, TOKENS), config.pad_token_id)
            ids[0, 0] = config.eos_token_id
            with torch.inference_mode():
                text = encoder(ids)[0].float()
        return {"pooled": pooled.to(self.device), "text": text.to(self.device)}

    def _adapted(self, transformer: Any) -> Any:
        from diffusers.loaders import FluxIPAdapterMixin

        class Loader(FluxIPAdapterMixin):
            """What diffusers' own loader takes for a pipeline."""

            transformer: Any

        part = next(part for part in self.weights.parts if part.folder == ADAPTER[0])
        path = self.weights.file(part, part.files[0])
        loader = Loader()
        loader.transformer = transformer
        try:
            loader.load_ip_adapter(
                str(path.parent), subfolder="", weight_name=path.name, local_files_only=True
            )
            (layer,) = transformer.encoder_hid_proj.image_projection_layers
            width = layer.image_embeds.in_features
            if width != IMAGE.size:
                raise ValueError(f"it reads embeddings of {width} values, not {IMAGE.size}")
        except Exception as error:  # whatever diffusers says of a file that does not fit
            raise UserError(
                f"{path} cannot be loaded as an IP-Adapter of {self.name} "
                f"({type(error).__name__}: {reason(error)}); get it again with: "
                f"{self.weights.command}."
            ) from error
        return transformer.eval().requires_grad_(False)

    def sigmas(self, steps: int) -> list[float]:
        """Return the noise levels before each step, and 0; spaced as FLUX's configuration says."""
        from diffusers import FlowMatchEulerDiscreteScheduler

        config = self.weights.config(self.scheduler)
        try:
            if config.get("_class_name") not in (None, "FlowMatchEulerDiscreteScheduler"):
                raise ValueError(f"its class is {config['_class_name']}")
            made = FlowMatchEulerDiscreteScheduler.from_config(config)
            about = made.config
            low, high = about.base_image_seq_len, about.max_image_seq_len
            slope = (about.max_shift - about.base_shift) / (high - low)
            positions = (self.side // 2) ** 2
            made.set_timesteps(
                sigmas=np.linspace(1.0, 1 / steps, steps),
                mu=about.base_shift + slope * (positions - low),
            )
            found = [float(sigma) for sigma in made.sigmas]
            if not all(isfinite(sigma) for sigma in found) or len(found) != steps + 1:
                raise ValueError("its noise levels are no numbers")
        except Exception as error:  # whatever diffusers says of entries that do not fit
            raise UserError(
                f"{self.weights.path(self.scheduler)} is no spacing of a flow "
                f"(FlowMatchEulerDiscreteScheduler; {reason(error)}); get it again with: "
                f"{self.weights.command}."
            ) from error
        return found

    # ------------------------------------------------------------------------------------- drawing

    def autoencoded(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return images uint8 (H, W, 3), encoded and decoded again, uint8 (n, H', W', 3)."""
        config = self.decoder.config

        def encode(rows: torch.Tensor) -> torch.Tensor:
            found = self.decoder.encode(rows).latent_dist.mean
            return (found - config.shift_factor) * config.scaling_factor

        side = self.side * 2 ** (len(config.block_out_channels) - 1)
        return through(encode, self._decode, images, side, self.device)

    def _at_once(self, how: Mapping[str, float]) -> int:
        return PICTURES_AT_ONCE

    def _draw(
        self,
        conditions: Sequence[Condition],
        scales: Sequence[float],
        seeds: Sequence[int],
        steps: int,
        how: Mapping[str, float],
    ) -> Iterator[tuple[int, torch.Tensor]]:
        import torch

        n = max(len(conditions), len(scales))
        embeddings = [self._decoded(condition)[1] for condition in conditions]
        nulls = self._untold(conditions, IMAGE, [torch.zeros_like(one) for one in embeddings])
        told = {
            "pooled": self._prompt["pooled"].expand(n, -1),
            "text": self._prompt["text"].expand(n, -1, -1),
            "guidance": torch.full((n,), float(how["told_guidance"]), device=self.device),
        }
        cond = {**told, "image": torch.stack(embeddings)[:, None].expand(n, -1, -1)}
        null = {**told, "image": torch.stack(nulls)[:, None].expand(n, -1, -1)}
        guidance = torch.tensor([float(s) for s in scales], device=self.device).expand(n)
        latents = Sources(seeds, n, self.device).noise(self.latent_shape)
        sigmas, shared = self.sigmas(steps), len(conditions) < len(scales)
        for step in range(1, steps + 1):
            sigma, after = sigmas[step - 1], sigmas[step]
            level = Level(sigma, 1 - sigma, sigma, "flow_prediction")
            predict = asking(self.denoiser, sigma, cond, null)
            scale, same = at_step(guidance, step, steps, how), shared and step == 1
            velocity = predicted(latents, level, scale, predict, self.transformer, how, same=same)
            clean = level.clean(latents, velocity)
            latents = latents + (after - sigma) * velocity
            yield step, latents if step == steps else clean

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels (1, 3, H, W) in -1 ... 1 of latents (1, 16, S, S)."""
        config = self.decoder.config
        return self.decoder.decode(latents / config.scaling_factor + config.shift_factor).sample

    def _finished(
        self, latents: torch.Tensor, wanted: Sequence[Wanted], how: Mapping[str, float]
    ) -> Iterator[tuple[np.ndarray, str]]:
        return one_by_one(latents, self._decode, self.denoiser)

    def _previews(self, latents: torch.Tensor, how: Mapping[str, float]) -> np.ndarray:
        if self._tiny is None:
            return np.empty((0, 1, 1, 3), np.uint8)
        return np.concatenate([pixels(self._tiny.decode(row).sample) for row in latents.split(1)])


class Flowing(Denoiser):
    """FLUX's transformer on latents as a picture, which it reads in squares of two by two."""

    def _ask(self, latents: torch.Tensor, timestep: Any, told: Inputs) -> torch.Tensor:
        import torch

        n, channels, high, wide = latents.shape
        squares = latents.reshape(n, channels, high // 2, 2, wide // 2, 2)
        places = torch.zeros(high // 2, wide // 2, 3, device=latents.device)
        places[..., 1] += torch.arange(high // 2, device=latents.device)[:, None]
        places[..., 2] += torch.arange(wide // 2, device=latents.device)[None]
        guided = self.unet.config.guidance_embeds
        velocity = self.unet(
            hidden_states=squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2),
            timestep=latents.new_full((n,), float(timestep)),
            guidance=told["guidance"] if guided else None,
            pooled_projections=told["pooled"],
            encoder_hidden_states=told["text"],
            txt_ids=latents.new_zeros((told["text"].shape[1], 3)),
            img_ids=places.flatten(0, 1).to(latents.dtype),
            joint_attention_kwargs={"ip_adapter_image_embeds": [told["image"]]},
        ).sample
        squares = velocity.reshape(n, high // 2, wide // 2, channels, 2, 2)
        return squares.permute(0, 3, 1, 4, 2, 5).reshape(latents.shape)
