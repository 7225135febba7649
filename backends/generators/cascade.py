"""cascade: Stable Cascade, told a ViT-L/14 image embedding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import cos, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.embedders.clip import ViTL14
from backends.generators.guidance import SCALED, Level, asking, at_step, predicted
from backends.generators.memory import Denoiser, best_dtype, place, slower
from backends.generators.sampling import Sampling, Sources, Wanted, one_by_one, through
from backends.generators.weights import Part, Weights, text_parts
from explorer.files import guard
from explorer.protocols import Condition, Option, TrainedOn
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

    from backends.generators.memory import Inputs

IMAGE = ViTL14.spaces[0]
TEXT = 1280  # values of a text token, of CLIP ViT-bigG/14
WORKING = 1.5e9  # bytes one row may take besides the weights: our choice
PICTURES_AT_ONCE = 16
FINER = 10.67  # sides of the decoder's latents over the prior's (StableCascadeDecoderPipeline)
FULL_SIDE = 1024  # pixels


class Cascade(Sampling):
    """Stable Cascade (Pernias et al. 2023, arXiv 2306.00637), told a ViT-L/14 image embedding.

    As MIRAGE draws: a prior denoises 16 x 24 x 24 latents told the embedding, with guidance; a
    decoder told these draws 4 x 256 x 256 ones in few steps, without; a VQGAN makes pixels of
    them. Without the brain the embedding is zeros, as the published pipelines have it; the prompt
    is empty either way. Both samplers add noise at every step, from each picture's own source.

    Parameters
    ----------
    checkpoints, device, source
        As `LatentDiffusion`; one folder holds what comes from both repositories.
    """

    name, size = "cascade", "about 24 GB"
    hub = "stabilityai/stable-cascade-prior"
    trained_on = TrainedOn("web pictures (LAION-5B, filtered)")
    accepts = (IMAGE,)
    provenance = "generated"
    guided = True
    needs = ()
    options = (
        *SCALED,
        Option(
            *("decoder_steps", 1, 100, 10),
            "In how many steps fine detail is drawn over what the prior laid out; guidance is on "
            "the prior alone.",
            whole=True,
        ),
    )
    default_steps = 20
    side = 24  # of the prior's latents

    def __init__(
        self, checkpoints: Path, device: str = "cpu", source: str | Path | None = None
    ) -> None:
        usual = Path(checkpoints) / "generators" / self.name
        self.weights = Weights(self.name, self.hub, self.size, self.parts(), usual, source)
        self.device, self.dtype = device, best_dtype(device)
        self.remarks: list[str] = []
        parts = {part.folder: part for part in self.weights.parts}
        self.prior = self._placed(parts["prior"])
        self.decoder = self._placed(parts["decoder"])
        self.vqgan = self.weights.load(parts["vqgan"]).to(device)
        config = self.weights.config(parts["scheduler"])
        unlike = config.get("_class_name", "DDPMWuerstchenScheduler") != "DDPMWuerstchenScheduler"
        try:
            self.schedule = float(config.get("scaler", 1.0)), float(config.get("s", 0.008))
        except (TypeError, ValueError):
            unlike = True
        if unlike or min(self.schedule) <= 0:
            raise UserError(
                f"{self.weights.path(parts['scheduler'])} is no schedule of Stable Cascade "
                f"(DDPMWuerstchenScheduler); get it again with: {self.weights.command}."
            )
        self.latent_shape = (self.prior.unet.config.in_channels, self.side, self.side)
        self._prompt = self._said(parts)

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts, from the repositories of prior and decoder."""
        unet, hub = "diffusers:StableCascadeUNet", "stabilityai/stable-cascade"
        told = {"clip_image_in_channels": IMAGE.size, "clip_text_in_channels": TEXT}
        vqgan = "diffusers.pipelines.stable_cascade.pipeline_stable_cascade:PaellaVQModel"
        return (
            Part("prior", unet, expects={"in_channels": 16, **told}),
            Part("scheduler", "", ("scheduler_config.json",)),
            *text_parts(cls="CLIPTextModelWithProjection"),
            Part("decoder", unet, expects={"in_channels": 4, "effnet_in_channels": 16}, hub=hub),
            Part("vqgan", vqgan, expects={"latent_channels": 4}, hub=hub),
        )

    @property
    def fingerprint(self) -> str:
        """Names the exact files of its weights; reading them all takes seconds, once."""
        return self.weights.fingerprint

    def _placed(self, part: Part) -> Asked:
        network = self.weights.load(part, self.dtype)
        placement = place(network, self.device, WORKING)
        self.remarks += slower(self.name, part.folder, self.device, placement)
        return Asked(network, self.name, self.size, self.device, self.dtype)

    def _said(self, parts: Mapping[str, Part]) -> Inputs:
        """Return what both networks are told of the empty prompt, whose padding is not read."""
        import torch

        words, encoder = self.weights.words(parts)
        with guard(
            self.weights.path(parts["text_encoder"]),
            f"the text encoder of {self.name}",
            f"get its files and those of its tokenizer again with: {self.weights.command}",
        ):
            shape = {"padding": "max_length", "max_length": 77, "truncation": True}
            given = words("", **shape, return_tensors="pt")
            with torch.inference_mode():
                read = encoder(
                    given.input_ids,
                    attention_mask=given.attention_mask,
                    output_hidden_states=True,
                )
            told = {"text": read.hidden_states[-1], "pooled": read.text_embeds[:, None]}
            if told["text"].shape[-1] != TEXT or told["pooled"].shape[-1] != TEXT:
                raise ValueError(f"it is not that of CLIP ViT-bigG/14, {TEXT} values a token")
        return {name: value.to(self.device) for name, value in told.items()}

    # ------------------------------------------------------------------------------------- drawing

    def autoencoded(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return images uint8 (H, W, 3) through the VQGAN alone, uint8 (n, S, S, 3)."""

        def encode(rows: torch.Tensor) -> torch.Tensor:
            # its `encode`, which in diffusers 0.35.2 ends in that version's own deprecation
            found = self.vqgan.down_blocks(self.vqgan.in_block((rows + 1) / 2))
            return found / self.vqgan.config.scale_factor

        return through(encode, self._decode, images, self.side * FULL_SIDE // 24, self.device)

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
        sources = Sources(seeds, n, self.device)
        embeddings = torch.stack([self._decoded(condition)[1] for condition in conditions])
        nulls = self._untold(conditions, IMAGE, [torch.zeros_like(one) for one in embeddings])
        told = {name: value.expand(n, -1, -1) for name, value in self._prompt.items()}
        cond = {**told, "image": embeddings[:, None].expand(n, -1, -1)}
        null = {**told, "image": torch.stack(nulls)[:, None].expand(n, -1, -1)}
        guidance = torch.tensor([float(s) for s in scales], device=self.device).expand(n)
        latents, sampler = sources.noise(self.latent_shape), Noising(steps, *self.schedule)
        shared = len(conditions) < len(scales)
        for step in range(1, steps + 1):
            level = sampler.level(step - 1)
            predict = asking(self.prior, level.timestep, cond, null)
            scale, same = at_step(guidance, step, steps, how), shared and step == 1
            prediction = predicted(latents, level, scale, predict, self.prior.unet, how, same=same)
            fresh = sources.noise(self.latent_shape)
            latents, clean = sampler.step(latents, prediction, step - 1, fresh)
            if step < steps:
                yield step, clean
        yield steps, self._detailed(latents, sources, how)

    def _detailed(
        self, laid_out: torch.Tensor, sources: Sources, how: Mapping[str, float]
    ) -> torch.Tensor:
        """Return the decoder's latents (n, 4, S', S') of the prior's (n, 16, S, S)."""
        n, side = len(laid_out), int(self.side * FINER)
        shape, steps = (self.decoder.unet.config.in_channels, side, side), how["decoder_steps"]
        told = {"pooled": self._prompt["pooled"].expand(n, -1, -1), "effnet": laid_out}
        latents, sampler = sources.noise(shape), Noising(int(steps), *self.schedule)
        for step in range(int(steps)):
            prediction = self.decoder(latents, sampler.level(step).timestep, told)
            latents, _ = sampler.step(latents, prediction, step, sources.noise(shape))
        return latents

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels (1, 3, H, W) in -1 ... 1 of the decoder's latents (1, 4, S, S)."""
        return 2 * self.vqgan.decode(self.vqgan.config.scale_factor * latents).sample - 1

    def _finished(
        self, latents: torch.Tensor, wanted: Sequence[Wanted], how: Mapping[str, float]
    ) -> Iterator[tuple[np.ndarray, str]]:
        if latents.shape[1] == self.latent_shape[0]:  # of a step on the way: detail of one seed
            latents = self._detailed(latents, Sources([0], len(latents), self.device), how)
        return one_by_one(latents, self._decode, self.decoder)

    def _previews(self, latents: torch.Tensor, how: Mapping[str, float]) -> np.ndarray:
        return np.empty((0, 1, 1, 3), np.uint8)  # the prior's latents are no picture


class Asked(Denoiser):
    """A network of Stable Cascade: told its noise level as a number from 1 to 0."""

    def _ask(self, latents: torch.Tensor, timestep: Any, told: Inputs) -> torch.Tensor:
        names = {"pooled": "clip_text_pooled", "text": "clip_text", "image": "clip_img"}
        given = {names.get(name, name): value for name, value in told.items()}
        ratio = latents.new_full((len(latents),), float(timestep))
        return self.unet(sample=latents, timestep_ratio=ratio, **given).sample


class Noising:
    """Steps from noise to clean latents that add noise again, on a cosine schedule.

    Ancestral sampling (Ho et al. 2020, arXiv 2006.11239, algorithm 2) between the levels 1 ... 0
    of Würstchen's schedule (diffusers, scheduling_ddpm_wuerstchen.py); the network predicts noise.

    Parameters
    ----------
    steps
        How many.
    scaler, offset
        How the schedule is bent, and what keeps it from beginning at no noise.
    """

    def __init__(self, steps: int, scaler: float, offset: float) -> None:
        self.steps, self.scaler, self.offset = steps, scaler, offset

    def kept(self, step: int) -> float:
        """Return the share of the picture in the variance before a step, and after the last."""
        t = 1 - step / self.steps
        t = 1 - (1 - t) ** self.scaler if self.scaler > 1 else t**self.scaler
        first, now = (cos((x + self.offset) / (1 + self.offset) * pi / 2) ** 2 for x in (0, t))
        return min(max(now / first, 0.0001), 0.9999)

    def level(self, step: int) -> Level:
        """Return the noise level at which a step asks, 0-based."""
        kept = self.kept(step)
        return Level(1 - step / self.steps, kept**0.5, (1 - kept) ** 0.5, "epsilon")

    def step(
        self, latents: torch.Tensor, prediction: torch.Tensor, step: int, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the latents of the next step, and the clean ones that are expected."""
        kept, after = self.kept(step), self.kept(step + 1)
        alpha = kept / after
        mean = (latents - (1 - alpha) / (1 - kept) ** 0.5 * prediction) / alpha**0.5
        spread = ((1 - alpha) * (1 - after) / (1 - kept)) ** 0.5 if step + 1 < self.steps else 0
        return mean + spread * noise, self.level(step).clean(latents, prediction)
