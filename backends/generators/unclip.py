"""unclip: Stable Diffusion 2.1 unCLIP, told a ViT-H/14 image embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from backends.embedders.clip import ViTH14
from backends.generators.clip_pulls import PULLS
from backends.generators.guidance import SCALED, SELF_ATTENTION
from backends.generators.latent_diffusion import LatentDiffusion
from backends.generators.weights import Part, pipeline_parts, text_parts
from explorer.files import guard
from explorer.protocols import Condition, Option, TrainedOn

if TYPE_CHECKING:
    import torch

    from backends.generators.memory import Inputs

IMAGE = ViTH14.spaces[0]
LEVELS = 1000  # of noise on the embedding


class StableUnCLIP(LatentDiffusion):
    """Stable Diffusion 2.1 unCLIP: told a ViT-H/14 image embedding beside an empty prompt.

    The embedding is noised as in its training, to a level that it is told too. Without the brain
    it gets zeros (diffusers, pipeline_stable_unclip_img2img.py).
    """

    name, size = "unclip", "5.2 GB"
    hub = "sd2-community/stable-diffusion-2-1-unclip"  # Stability AI took its own away in 2025
    trained_on = TrainedOn("web pictures (LAION-5B)")
    accepts = (IMAGE,)
    needs = ("betas",)
    options = (
        *SCALED,
        SELF_ATTENTION,
        *PULLS,
        Option(
            "noise_level",
            0.0,
            LEVELS - 1.0,
            0.0,
            "How much noise is added to the decoded embedding before drawing: more gives more "
            "varied pictures that follow it less.",
            whole=True,
        ),
    )

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts; the image encoder is left out, as embeddings are decoded."""
        told = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2048}
        normalizer = "diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer"
        return (
            *pipeline_parts(cross_attention_dim=1024, **told),
            *text_parts(),
            Part(
                "image_normalizer",
                f"{normalizer}:StableUnCLIPImageNormalizer",
                expects={"embedding_dim": 1024},
            ),
            Part(
                "image_noising_scheduler",
                "",
                ("scheduler_config.json",),
                {"num_train_timesteps": LEVELS},
            ),
        )

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        from diffusers import DDPMScheduler

        self._context = self.weights.empty_prompt(parts).last_hidden_state.to(self.device)
        normalizer = self.weights.load(parts["image_normalizer"]).to(self.device)
        self._normalizer = normalizer.requires_grad_(False)  # its own `to` makes parameters anew
        noising = parts["image_noising_scheduler"]
        config, again = self.weights.config(noising), f"get it again with: {self.weights.command}"
        with guard(self.weights.path(noising), "a noise schedule", again):
            self._noising = DDPMScheduler.from_config(config)

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        how: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        import torch
        from diffusers.models.embeddings import get_timestep_embedding

        drawn = torch.stack([torch.randn(IMAGE.shape, generator=g) for g in noise])
        level = torch.full((len(embeddings),), int(how["noise_level"]), device=self.device)
        scaled = self._normalizer.scale(embeddings)
        noised = self._noising.add_noise(scaled, drawn.to(self.device), level)
        told = get_timestep_embedding(level, IMAGE.size, True, 0)
        labels = torch.cat([self._normalizer.unscale(noised), told], dim=1)
        context = self._context.expand(len(labels), -1, -1)
        return (
            {"context": context, "class_labels": labels},
            {"context": context, "class_labels": torch.zeros_like(labels)},
        )
