"""kandinsky: the decoder of Kandinsky 2.2, told a ViT-bigG/14 image embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from backends.embedders.clip import ViTBigG14
from backends.generators.latent_diffusion import LatentDiffusion
from backends.generators.weights import TRANSFORMER, Part, pipeline_parts
from explorer.protocols import Condition, TrainedOn

if TYPE_CHECKING:
    import torch

    from backends.generators.memory import Inputs

IMAGE = ViTBigG14.spaces[0]


class Kandinsky(LatentDiffusion):
    """The decoder of Kandinsky 2.2, told a ViT-bigG/14 image embedding and no text at all.

    Without the brain it gets the embedding of an empty picture, as published: that takes the image
    encoder of the prior's repository, once (diffusers, pipeline_kandinsky2_2_prior.py).
    """

    name, size = "kandinsky", "about 9 GB"
    hub = "kandinsky-community/kandinsky-2-2-decoder"
    trained_on = TrainedOn("web pictures (LAION HighRes)")
    accepts = (IMAGE,)
    tiny, colours = "", ()  # latents of another autoencoder than Stable Diffusion's
    _decoder = "movq"

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts, from the repositories of decoder and prior."""
        told = {"encoder_hid_dim_type": "image_proj", "encoder_hid_dim": IMAGE.size}
        encoder = "transformers:CLIPVisionModelWithProjection"
        prior = "kandinsky-community/kandinsky-2-2-prior"
        unet, _, scheduler = pipeline_parts(addition_embed_type="image", **told)
        return (
            unet,
            Part("movq", "diffusers:VQModel", expects={"latent_channels": 4}),
            scheduler,
            Part("image_encoder", encoder, TRANSFORMER, {"projection_dim": IMAGE.size}, prior),
        )

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        import torch

        encoder = self.weights.load(parts["image_encoder"])
        side = encoder.config.image_size
        with torch.inference_mode():
            self._null = encoder(torch.zeros(1, 3, side, side)).image_embeds.to(self.device)

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        how: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        return {"image_embeds": embeddings}, {"image_embeds": self._null.expand_as(embeddings)}

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.decoder.encode(pixels).latents

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder.decode(latents, force_not_quantize=True).sample
