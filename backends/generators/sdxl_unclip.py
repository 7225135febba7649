"""sdxl-unclip: the SDXL unCLIP that MindEye2 draws with, told ViT-bigG/14 tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.embedders.clip import ViTBigG14
from backends.embedders.published import LowLevelLatents
from backends.generators.guidance import SCALED, SELF_ATTENTION
from backends.generators.latent_diffusion import SDXL_COLOURS, WORKING, LatentDiffusion
from backends.generators.mindeye2 import (
    BLUR_FILE,
    CONVERTER_FILE,
    Blur,
    Captioner,
    Refiner,
    blended,
    sgm_steps,
)
from backends.generators.sampling import Wanted, pixels, source_of_noise
from backends.generators.sdxl_unclip_weights import Checkpoint, absent, checkpoint_in
from backends.generators.weights import Part, Weights, path_and_options, pipeline_parts
from explorer import stopping
from explorer.protocols import Condition, Option, TrainedOn
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

    from backends.generators.ddim import DDIM
    from backends.generators.memory import Inputs

TOKENS = ViTBigG14.spaces[1]
(LOW,) = LowLevelLatents.spaces
FURTHER = ("refiner", "captioner", "vae")  # weights that options need, named behind the path
REFINING = 2**32  # added to a seed, so that refinement has noise of its own
OFFSET = 0.04  # SD of what the first noise has on average (offset_noise_level)
SIZES = (768.0, 768.0, 0.0, 0.0)  # original height and width, top and left of the crop
CONTRAST, LIFT = 0.8, 0.2  # of -1 ... 1 to 0 ... 1, where 0.5 and 0.5 would be usual


class SDXLUnCLIP(LatentDiffusion):
    """Stable Diffusion XL as an unCLIP, fine-tuned for MindEye2: told 256 tokens of ViT-bigG/14.

    As MindEye2 draws (Scotti et al. 2024, arXiv 2403.11207; MedARC-AI/MindEyeV2, src/utils.py,
    unclip_recon): beside the tokens the sizes 768 x 768 without a crop; 38 Euler steps on the
    spacing of Stability's generative-models (`ddim.spaced_as_sgm`) from noise with an offset a
    picture. Without the brain it gets tokens of normal noise, drawn anew for each picture, and
    published pictures have scale 5.
    """

    name, size = "sdxl-unclip", "about 18 GB"
    hub = "pscotti/mindeyev2"  # a repository of data
    trained_on = TrainedOn("web pictures (of Stable Diffusion XL; LAION)")
    accepts = (TOKENS,)
    default_steps = 38
    tiny, colours = "taesdxl", SDXL_COLOURS
    options = (
        *SCALED,
        SELF_ATTENTION,
        Option(
            "published_tone",
            0,
            1,
            1,
            "1 gives pictures MindEye2's own tone, 0.8 x + 0.2 of decoded pixels x in -1 ... 1, "
            "as its published ones; 0 the autoencoder's, 0.5 x + 0.5, which is brighter.",
            whole=True,
        ),
        Option(
            "refine",
            0,
            1,
            0,
            "1 draws the picture anew from the middle with Stable Diffusion XL and a caption of "
            'the tokens, as MindEye2\'s refined pictures; 0 is its "unrefined".',
            whole=True,
        ),
        Option(
            "low_level",
            0.0,
            1.0,
            0.0,
            "The share of the blurry picture that the mapper's low-level branch gives; MindEye2's "
            'refined pictures have 0.25, and 1 is its "low-level only".',
        ),
    )

    def __init__(
        self, checkpoints: Path, device: str = "cpu", source: str | Path | None = None
    ) -> None:
        """Load its weights; ``source`` may end ``?refiner=FOLDER&captioner=FOLDER&vae=FOLDER``."""
        path, named = path_and_options(source, FURTHER)
        super().__init__(checkpoints, device, path or None)
        self._further(named)

    @property
    def fingerprint(self) -> str:
        """Names the exact files of all its weights."""
        found = (part for part in (self._refiner, self._captioner, self._blur) if part)
        return super().fingerprint + "".join(part.fingerprint for part in found)

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts; the image encoder is left out, as tokens are decoded."""
        told = {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 1024}
        return pipeline_parts(cross_attention_dim=TOKENS.shape[1], **told)

    def _further(self, named: Mapping[str, str]) -> None:
        """Find the weights of what is done after drawing; none is loaded before it is asked for.

        Those that are not named are taken where they lie beside the generator's own.
        """
        home = self.weights.folder

        def found(option: str, beside: Path) -> Path | None:
            if option in named:
                return Path(named[option]).expanduser()
            return beside if beside.exists() else None

        refiner, captioner = (found(name, home / name) for name in FURTHER[:2])
        blur = found("vae", home / BLUR_FILE)
        self._refiner = Refiner(refiner, self.device) if refiner else None
        self._blur = Blur(blur, self.device) if blur else None
        self._captioner = None
        if captioner:
            self._captioner = Captioner(captioner, home / CONVERTER_FILE, self.device)

    def _weights(self, usual: Path, source: str | Path | None) -> Weights:
        file = checkpoint_in(source, usual)
        about = self.name, self.hub, self.size
        if file is not None:
            return Checkpoint(file, *about, self.parts())
        if not source and not (usual / "unet").is_dir():
            raise absent(*about, usual)
        return Weights(*about, self.parts(), usual, source)

    def _sampler(self, steps: int) -> DDIM:
        return sgm_steps(self.scheduler, steps)

    def _noise(self, sources: Sequence[torch.Generator], ddim: DDIM) -> torch.Tensor:
        """Return first latents: in sgm's ``z + sigma * (noise + offset)`` z adds to the noise."""
        import torch

        start = super()._noise(sources, ddim)
        offsets = torch.stack([torch.randn((), generator=g) for g in sources])
        return start + OFFSET * ddim.level(0).noise * offsets[:, None, None, None]

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        how: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        import torch

        drawn = [torch.randn(TOKENS.shape, generator=g).to(self.device) for g in noise]
        nulls = self._untold(conditions, TOKENS, drawn)
        n = len(embeddings)
        sizes = {
            "time_ids": torch.tensor(SIZES, device=self.device).expand(n, -1),
            "text_embeds": torch.zeros((n, 0), device=self.device),  # it is told no text
        }
        return {"context": embeddings, **sizes}, {"context": torch.stack(nulls), **sizes}

    def _chosen(self, options: Mapping[str, float]) -> dict[str, float]:
        how = super()._chosen(options)
        drawn = how["low_level"] < 1
        needed = {
            "refiner": (self._refiner, drawn and how["refine"], "refine"),
            "captioner": (self._captioner, drawn and how["refine"], "refine"),
            "vae": (self._blur, how["low_level"], "low_level"),
        }
        lacking = {name: option for name, (part, on, option) in needed.items() if on and not part}
        if lacking:
            behind = "&".join(f"{name}=FOLDER" for name in lacking)
            raise UserError(
                f"{self.name} has no {' and no '.join(lacking)} for its option "
                f"{next(iter(lacking.values()))}; name the weights with --generator "
                f'"{self.name}=PATH?{behind}", or set it to 0.'
            )
        return how

    def _draw(
        self,
        conditions: Sequence[Condition],
        scales: Sequence[float],
        seeds: Sequence[int],
        steps: int,
        how: Mapping[str, float],
    ) -> Iterator[tuple[int, torch.Tensor]]:
        if how["low_level"] < 1:
            yield from super()._draw(conditions, scales, seeds, steps, how)
            return
        import torch

        n = max(len(conditions), len(scales))  # the low-level branch's picture needs no drawing
        yield steps, torch.zeros((n, *self.latent_shape), device=self.device)

    def _finished(
        self, latents: torch.Tensor, wanted: Sequence[Wanted], how: Mapping[str, float]
    ) -> Iterator[tuple[np.ndarray, str]]:
        import torch

        for row, one in zip(latents.split(1), wanted, strict=True):
            stopping.look()
            with self.denoiser.one_picture(), torch.no_grad():
                picture, note = self._picture(row, one, how)
                (seen,) = pixels(picture)
            yield seen, note

    def _picture(
        self, row: torch.Tensor, wanted: Wanted, how: Mapping[str, float]
    ) -> tuple[torch.Tensor, str]:
        """Return pixels (1, 3, H, W) in about -1 ... 1 of latents (1, C, S, S), and a note.

        At scale 0 neither caption nor blur know the brain: no words, and latents of 0.
        """
        share, note = how["low_level"], ""
        if share == 1:
            return self._blurred(
                wanted
            ), "the low-level branch alone: no guidance scale acts on it"
        picture = toned(self._decode(row), how)
        if how["refine"]:
            tokens = self._decoded(wanted.condition)[1]
            words = self._captioner.words(tokens) if wanted.scale else ""
            source = source_of_noise(int(wanted.seed) + REFINING)
            working = WORKING * (self.latent_shape[1] / 64) ** 2
            picture = self._refiner.refined(picture.clamp(-1, 1), words, source, working)
            note = f'refined with the words "{words}"'
        return (blended(picture, self._blurred(wanted), share) if share else picture), note

    def _blurred(self, wanted: Wanted) -> torch.Tensor:
        known = wanted.condition.embeddings
        if LOW not in known:
            raise UserError(
                f"{self.name} blends in what a mapper decodes in {LOW.name}, and this one gives "
                f"{', '.join(space.name for space in known) or 'none'}; set low_level to 0 or "
                "choose a mapper with that target, as MindEye2's."
            )
        latents = self._tensor(known, LOW)
        return self._blur.picture(latents if wanted.scale else latents * 0)

    def _previews(self, latents: torch.Tensor, how: Mapping[str, float]) -> np.ndarray:
        import torch

        seen = torch.from_numpy(super()._previews(latents, how)).permute(0, 3, 1, 2)
        return pixels(toned(seen / 127.5 - 1, how))


def toned(decoded: torch.Tensor, how: Mapping[str, float]) -> torch.Tensor:
    """Return pixels in about -1 ... 1 of decoded ones, in the tone that was chosen."""
    return 2 * (CONTRAST * decoded + LIFT) - 1 if how["published_tone"] else decoded
