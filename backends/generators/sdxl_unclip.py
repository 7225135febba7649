"""sdxl-unclip: the SDXL unCLIP that MindEye2 draws with, told ViT-bigG/14 tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.embedders.clip import ViTBigG14
from backends.generators.ddim import DDIM, spaced_as_sgm
from backends.generators.guidance import SCALED, SELF_ATTENTION
from backends.generators.latent_diffusion import SDXL_COLOURS, LatentDiffusion
from backends.generators.sampling import pixels
from backends.generators.sdxl_unclip_weights import Checkpoint, absent, checkpoint_in
from backends.generators.weights import Part, Weights, pipeline_parts
from explorer.protocols import Condition, Option, TrainedOn

if TYPE_CHECKING:
    import torch

    from backends.generators.memory import Inputs

TOKENS = ViTBigG14.spaces[1]
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
    )

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts; the image encoder is left out, as tokens are decoded."""
        told = {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 1024}
        return pipeline_parts(cross_attention_dim=TOKENS.shape[1], **told)

    def _weights(self, usual: Path, source: str | Path | None) -> Weights:
        file = checkpoint_in(source, usual)
        about = self.name, self.hub, self.size
        if file is not None:
            return Checkpoint(file, *about, self.parts())
        if not source and not (usual / "unet").is_dir():
            raise absent(*about, usual)
        return Weights(*about, self.parts(), usual, source)

    def _sampler(self, steps: int) -> DDIM:
        trained = self.scheduler.get("num_train_timesteps", 1000)
        return DDIM(self.scheduler, steps, spaced_as_sgm(steps, trained))

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

        drawn = [torch.randn(TOKENS.shape, generator=g) for g in noise]
        nulls = [
            self._tensor(condition.nulls, TOKENS) if TOKENS in condition.nulls else one
            for condition, one in zip(conditions, drawn, strict=True)
        ]
        n = len(embeddings)
        sizes = {
            "time_ids": torch.tensor(SIZES, device=self.device).expand(n, -1),
            "text_embeds": torch.zeros((n, 0), device=self.device),  # it is told no text
        }
        null = torch.stack([one.to(self.device) for one in nulls])
        return {"context": embeddings, **sizes}, {"context": null, **sizes}

    def _finished(
        self, latents: torch.Tensor, conditions: Sequence[Condition], how: Mapping[str, float]
    ) -> Iterator[tuple[np.ndarray, str]]:
        for row in latents.split(1):
            with self.denoiser.one_picture():
                (picture,) = pixels(toned(self._decode(row), how))
            yield picture, ""

    def _previews(self, latents: torch.Tensor, how: Mapping[str, float]) -> np.ndarray:
        import torch

        seen = torch.from_numpy(super()._previews(latents, how)).permute(0, 3, 1, 2)
        return pixels(toned(seen / 127.5 - 1, how))


def toned(decoded: torch.Tensor, how: Mapping[str, float]) -> torch.Tensor:
    """Return pixels in about -1 ... 1 of decoded ones, in the tone that was chosen."""
    return 2 * (CONTRAST * decoded + LIFT) - 1 if how["published_tone"] else decoded
