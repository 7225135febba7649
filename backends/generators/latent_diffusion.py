"""What Stable Diffusion and its kin share: decoded embeddings in the place of a prompt.

One loop draws for all families; a family says which weights it needs and how its UNet is told an
embedding, and no embedding. The loop is ours because the published pipelines compute both rows at
every scale, one scale a call, and a pipeline class in a folder would run that folder's code.

Two families can further be pulled (`pulls`) towards decoded features of CLIP ViT-B/32, as in
NeuralDiffuser but on the textbook x̂0, and towards betas. They also have its self-attention
guidance, which there is on without being mentioned and here an option that is off.

Sampling is DDIM without added noise (`ddim`), so that a picture rests on its first noise alone.
Published safety checkers are never loaded: they blacken pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.generators.clip_pulls import Eyes, pulls_of
from backends.generators.ddim import DDIM, read_schedule
from backends.generators.guidance import SCALED, Level, asking, at_step, predicted
from backends.generators.memory import Denoiser, best_dtype, place, slower
from backends.generators.published_pull import PublishedPull, change
from backends.generators.pulls import Pull, guided
from backends.generators.sampling import (
    Sampling,
    Wanted,
    one_by_one,
    pixels,
    source_of_noise,
    through,
)
from backends.generators.weights import Part, Weights, taesd
from explorer.protocols import Condition, Option, TrainedOn
from explorer.types import EmbeddingSpace

if TYPE_CHECKING:
    import torch

    from backends.generators.memory import Inputs

PICTURES_AT_ONCE = 16
WORKING = 1.5e9  # bytes one row of 64 x 64 latents may take besides the weights: our choice
WITHOUT = {"self_attention": 0.0, "rescale": 0.0}  # the brain's prediction alone
ADDED = ("image_embeds", "text_embeds", "time_ids")  # what a UNet takes as added_cond_kwargs

# Latents to RGB in -1 ... 1, without decoding (comfyanonymous/ComfyUI, comfy/latent_formats.py)
SD1_COLOURS = (
    *((0.3512, 0.2297, 0.3227), (0.3250, 0.4974, 0.2350)),
    *((-0.2829, 0.1762, 0.2721), (-0.2120, -0.2616, -0.7177)),
)
SDXL_COLOURS = (
    *((0.3920, 0.4054, 0.4549), (-0.2634, -0.0196, 0.0653)),
    *((0.0568, 0.1687, -0.0755), (-0.3112, -0.2359, -0.2076)),
)


class LatentDiffusion(Sampling):
    """What all families share: loading, the loop, guidance, previews.

    ``prediction = uncond + scale * (cond - uncond)``: scale 0 is the generator without the brain,
    1 plain conditional sampling. Only rows that matter are computed, all scales in one batch.

    Parameters
    ----------
    checkpoints
        Its folder ``generators/NAME`` holds the weights, unless ``source`` is given; previews use
        ``taesd`` there or in the folder of the weights.
    device
        Where it computes: in bfloat16 or float16 on a GPU, in float32 elsewhere.
    source
        Another folder in diffusers' layout, or a hub id.

    Attributes
    ----------
    hub, size
        The weights it was made for, and how large they are in all.
    remarks : list of str
        One sentence each about what somebody must know of the weights that were loaded.
    """

    name: str
    hub: str
    size: str
    trained_on: TrainedOn
    accepts: tuple[EmbeddingSpace, ...] = ()
    provenance = "generated"
    guided = True
    needs = ()
    options: tuple[Option, ...] = SCALED
    default_steps = 30
    tiny = "taesd"  # the folder of its tiny autoencoder
    colours: tuple[tuple[float, ...], ...] = SD1_COLOURS  # () has no preview but by a tiny one

    def __init__(
        self, checkpoints: Path, device: str = "cpu", source: str | Path | None = None
    ) -> None:
        usual = Path(checkpoints) / "generators" / self.name
        self.weights = self._weights(usual, source)
        self.device, self.dtype = device, best_dtype(device)
        self._checkpoints = Path(checkpoints)
        self.remarks: list[str] = []
        parts = {part.folder: part for part in self.weights.parts}
        self.unet = self._adapted(self.weights.load(parts[self._denoises], self.dtype))
        side = self.unet.config.sample_size
        placement = place(self.unet, device, WORKING * (side / 64) ** 2)
        self.remarks += slower(self.name, "UNet", device, placement)
        about = self.name, self.size, device, self.dtype, self._added
        self.denoiser = Denoiser(self.unet, *about)
        # in half precision published autoencoders overflow
        self.decoder = self.weights.load(parts[self._decoder]).to(device)
        schedule = parts["scheduler"]
        self.scheduler = read_schedule(
            self.weights.config(schedule),
            str(self.weights.path(schedule) / schedule.files[0]),
            f"name other weights with --generator {self.name}=PATH_OR_ID",
        )
        self.latent_shape = (self.unet.config.in_channels, side, side)
        self._prepare(parts)
        if (self.weights.folder / "safety_checker").is_dir():
            self.remarks.append(
                f"{self.name} does not use the safety checker that lies with its weights: it "
                "would blacken pictures."
            )
        places = [self.weights.folder / self.tiny, self._checkpoints / self.tiny]
        found = next((place for place in places if self.tiny and place.is_dir()), None)
        self._tiny = None if found is None else taesd(found).to(device)

    @property
    def fingerprint(self) -> str:
        """Names the exact files of its weights; reading them all takes seconds, once."""
        return self.weights.fingerprint

    # ----------------------------------------------------------------------- what a family decides

    _denoises, _decoder = "unet", "vae"  # the folders of its networks

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return the parts of its weights; UNet, "scheduler" and decoder are among them."""
        raise NotImplementedError

    def _weights(self, usual: Path, source: str | Path | None) -> Weights:
        """Return its weights, found and checked; arguments as `Weights` has them."""
        return Weights(self.name, self.hub, self.size, self.parts(), usual, source)

    def _adapted(self, unet: Any) -> Any:
        """Return the UNet with what must be built into it before it is placed."""
        return unet

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        """Load and compute what no condition changes."""

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        how: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        """Return what the UNet is told with the embeddings (n, ...), and what without them."""
        raise NotImplementedError

    def _added(self, inputs: Inputs) -> dict[str, Any]:
        return {name: inputs[name] for name in ADDED if name in inputs}

    def _sampler(self, steps: int) -> DDIM:
        """Return the steps from noise to latents."""
        return DDIM(self.scheduler, steps)

    def _noise(self, sources: Sequence[torch.Generator], ddim: DDIM) -> torch.Tensor:
        """Return the noise (n, C, S, S) that pictures begin with, each from its own source."""
        import torch

        return torch.stack([torch.randn(self.latent_shape, generator=g) for g in sources])

    def _begin(
        self,
        noise: torch.Tensor,
        conditions: Sequence[Condition],
        ddim: DDIM,
        how: Mapping[str, float],
    ) -> tuple[torch.Tensor, int]:
        """Return the first latents (n, C, S, S) and how many steps are left out."""
        return noise, 0

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels (1, 3, H, W) in -1 ... 1 of latents (1, C, S, S)."""
        return self.decoder.decode(latents / self.decoder.config.scaling_factor).sample

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return latents (1, C, S, S) of pixels (1, 3, H, W) in -1 ... 1, see `_decode`."""
        found = self.decoder.encode(pixels).latent_dist.mean
        return found * self.decoder.config.scaling_factor

    def autoencoded(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return images uint8 (H, W, 3), encoded and decoded again, uint8 (n, H', W', 3)."""
        blocks = len(self.decoder.config.block_out_channels)  # each but the last halves the side
        side = self.latent_shape[1] * 2 ** (blocks - 1)
        return through(self._encode, self._decode, images, side, self.device)

    # ------------------------------------------------------------------------------------- drawing

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

        noise = [source_of_noise(seed) for seed in seeds]
        embeddings = torch.stack([self._decoded(condition)[1] for condition in conditions])
        cond, null = self._inputs(embeddings, conditions, noise, how)
        ddim = self._sampler(steps)
        start = self._noise(noise, ddim).to(self.device)
        latents, first = self._begin(start, conditions, ddim, how)
        shared = len(conditions) < len(scales)
        n = max(len(conditions), len(scales))
        guidance = torch.tensor([float(s) for s in scales], device=self.device).expand(n)
        latents = latents.expand(n, -1, -1, -1)
        cond = {name: value.expand(n, *value.shape[1:]) for name, value in cond.items()}
        null = {name: value.expand(n, *value.shape[1:]) for name, value in null.items()}
        pulls = [self._pulls(condition, how) for condition in conditions]
        for step in range(first + 1, steps + 1):
            scale = at_step(guidance, step, steps, how)
            given = latents, ddim.level(step - 1), cond, null, scale, how
            acting = [
                [pull for pull in one if pull.acts(step - first, steps - first)] for one in pulls
            ]
            if any(acting):
                prediction = self._pulled(acting * (n // len(acting)), *given)
            else:
                prediction = self._prediction(*given, same=shared and step == first + 1)
            again = partial(self._again, ddim, cond, null, scale, how)
            latents, clean = ddim.step(latents, prediction, step - 1, again)
            yield step, latents if step == steps else clean

    def _again(
        self,
        ddim: DDIM,
        cond: Inputs,
        null: Inputs,
        scale: torch.Tensor,
        how: Mapping[str, float],
        latents: torch.Tensor,
        step: int,
    ) -> torch.Tensor:
        """Return the guided prediction at other latents, of a step 0-based."""
        level = ddim.level(step)
        return self._prediction(latents, level, cond, null, scale, how, same=False)

    def _pulls(self, condition: Condition, how: Mapping[str, float]) -> list[Pull | PublishedPull]:
        """Return what the picture of a condition is pulled towards."""
        return pulls_of(condition, how, self._features, self._checkpoints, self.device)

    @cached_property
    def _features(self) -> Eyes:
        """What guidance sees of pictures; loaded when first seen with."""
        return Eyes(self._checkpoints, self.device)

    def _pulled(
        self,
        pulls: Sequence[Sequence[Pull | PublishedPull]],
        latents: torch.Tensor,
        level: Level,
        cond: Inputs,
        null: Inputs,
        scale: torch.Tensor,
        how: Mapping[str, float],
    ) -> torch.Tensor:
        """Return the prediction (n, C, S, S) with each row's pulls, row by row.

        A gradient through UNet and decoder takes all the memory that one picture may.
        """
        import torch

        found = []
        for i, pull in enumerate(pulls):
            row = slice(i, i + 1)
            told = [{name: value[row] for name, value in one.items()} for one in (cond, null)]
            given = level, *told, scale[row], how
            with self.denoiser.one_picture():
                ask = partial(lambda given, z: self._prediction(z, *given, same=False), given)
                ours = [one for one in pull if isinstance(one, Pull)]
                prediction = guided(latents[row], ask, level.clean, self._decode, ours)[0]
                plain = (*given[:3], torch.ones_like(scale[row]), {**how, **WITHOUT})
                alone = partial(lambda given, z: self._prediction(z, *given, same=False), plain)
                for one in (one for one in pull if isinstance(one, PublishedPull)):
                    prediction = prediction + change(latents[row], level, alone, self._decode, one)
                found.append(prediction)
        return torch.cat(found)

    def _prediction(
        self,
        latents: torch.Tensor,
        level: Level,
        cond: Inputs,
        null: Inputs,
        scale: torch.Tensor,
        how: Mapping[str, float],
        same: bool,
    ) -> torch.Tensor:
        """Return the guided prediction float32 (n, C, S, S).

        ``same``: all rows have the same latents and inputs, so one of each kind is enough.
        """
        predict = asking(self.denoiser, level.timestep, cond, null)
        return predicted(latents, level, scale, predict, self.unet, how, same)

    def _finished(
        self, latents: torch.Tensor, wanted: Sequence[Wanted], how: Mapping[str, float]
    ) -> Iterator[tuple[np.ndarray, str]]:
        return one_by_one(latents, self._decode, self.denoiser)

    def _previews(self, latents: torch.Tensor, how: Mapping[str, float]) -> np.ndarray:
        import torch

        if self._tiny is not None:
            rows = [pixels(self._tiny.decode(row).sample) for row in latents.split(1)]
            return np.concatenate(rows)
        if not self.colours:
            return np.empty((0, 1, 1, 3), np.uint8)
        factors = torch.tensor(self.colours, device=latents.device)
        return pixels(torch.einsum("nchw,cr->nrhw", latents, factors))
