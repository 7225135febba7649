"""mind-vis, neurolens: what these papers fine-tuned to draw what their fMRI encoders give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.generators.ddim import DDIM, PLMS
from backends.generators.finetuned_weights import FILE, MINDVIS, NEUROLENS, Finetuned
from backends.generators.guidance import SCALED, SELF_ATTENTION
from backends.generators.latent_diffusion import LatentDiffusion
from backends.generators.weights import Part, Weights
from explorer.protocols import Condition, Option, TrainedOn
from explorer.types import EmbeddingSpace, UserError

if TYPE_CHECKING:
    import torch

    from backends.generators.memory import Inputs


class NeuroLens(LatentDiffusion):
    """NeuroLens' Stable Diffusion 1.5, fine-tuned on what its fMRI encoder gives (77, 768).

    30 steps of DDIM at 256 x 256 pixels; published pictures have scale 3. Without the brain it
    gets what the mapper gives for no brain: of a converted one what the encoder makes of no
    activity, as published. Its training showed zeros instead, in a tenth of the trials: the option
    ``zero_null``, and what it gets where a mapper gives nothing (yasklop/
    NeuroLens-Brain-Encoding-and-Decoding, dc_ldm/sd15_for_fmri_clipA.py).
    """

    name, size = "neurolens", "about 5 GB"
    hub = "yasklop/NeuroLens-Brain-Encoding-and-Decoding"
    trained_on = TrainedOn("web pictures (LAION), and those of the study it was fine-tuned on")
    accepts = (EmbeddingSpace("neurolens", "context", (77, 768)),)
    options = (
        *SCALED,
        SELF_ATTENTION,
        Option(
            *("zero_null", 0, 1, 0),
            "1 takes zeros for no brain, as NeuroLens' training; 0 what the encoder makes of no "
            "activity, as its published pictures, where the mapper gives that.",
            whole=True,
        ),
    )
    layout = NEUROLENS

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts, all in one file."""
        told = {"in_channels": 4, "cross_attention_dim": cls.accepts[0].shape[1]}
        return (
            Part("unet", "diffusers:UNet2DConditionModel", (FILE,), told),
            Part("vae", "diffusers:AutoencoderKL", (FILE,), {"latent_channels": 4}),
            Part("scheduler", "", (FILE,)),
        )

    def _weights(self, usual: Path, source: str | Path | None) -> Weights:
        about = self.name, self.hub, self.size, self.parts()
        return Finetuned(*about, usual, source, self.layout)

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        how: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        import torch

        (space,) = self.accepts
        zeros = [torch.zeros_like(embedding) for embedding in embeddings]
        nulls = zeros if how["zero_null"] else self._untold(conditions, space, zeros)
        return {"context": embeddings}, {"context": torch.stack(nulls)}


class MindVis(NeuroLens):
    """MinD-Vis' latent diffusion of ImageNet, fine-tuned on what its encoder gives (77, 512).

    The context is attended to, and adds to what the network knows of the time. As published: 250
    steps of PLMS at 256 x 256 pixels, plain conditional sampling (scale 1), and five pictures a
    trial, all of which are scored (`--samples 5`). It was trained without a null, so guidance is
    ours: without the brain it gets what the encoder makes of no activity, or zeros, as `NeuroLens`
    does (Chen et al. 2023, arXiv 2211.06956; zjc062/mind-vis, code/dc_ldm/ldm_for_fmri.py).
    """

    name, size = "mind-vis", "about 4 GB"
    hub = "zjc062/mind-vis"
    trained_on = TrainedOn("ImageNet, and the pictures of the study it was fine-tuned on")
    accepts = (EmbeddingSpace("mind-vis", "context", (77, 512)),)
    default_steps = 250
    tiny, colours = "", ()  # latents of another autoencoder than Stable Diffusion's
    layout = MINDVIS

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts, all in one file."""
        told = {"in_channels": 3, "cross_attention_dim": cls.accepts[0].shape[1]}
        return (
            Part("unet", "diffusers:UNet2DConditionModel", (FILE,), told),
            Part("vae", "diffusers:VQModel", (FILE,), {"latent_channels": 3}),
            Part("scheduler", "", (FILE,)),
        )

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        from torch import nn

        self._time, state = None, self.weights.told()
        if not state:
            return
        (space,) = self.accepts
        tokens, width = space.shape
        out = self.unet.time_embedding.linear_2.out_features
        told = nn.Sequential(
            nn.Conv1d(tokens, tokens // 2, 1),
            nn.Conv1d(tokens // 2, 1, 1),
            nn.Linear(width, out),
        )
        try:
            told.load_state_dict({name: value.float() for name, value in state.items()})
        except RuntimeError as error:
            raise UserError(
                f"{self.weights.checkpoint} tells its network the context in another way than "
                f"MinD-Vis ({' '.join(str(error).split())}); get it again: {self.weights.command}."
            ) from error
        self._time = told.to(self.device).requires_grad_(False)

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        how: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        both = super()._inputs(embeddings, conditions, noise, how)
        if self._time is not None:
            for inputs in both:
                inputs["class_labels"] = self._time(inputs["context"])[:, 0]
        return both

    def _sampler(self, steps: int) -> DDIM:
        spaced = [1 + int(1000 / steps * k) for k in reversed(range(steps))]
        return PLMS(self.scheduler, steps, [min(t, 999) for t in spaced])

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.decoder.encode(pixels).latents

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder.decode(latents).sample
