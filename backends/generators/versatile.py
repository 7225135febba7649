"""versatile: Versatile Diffusion, told image and text contexts of CLIP ViT-L/14."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.embedders.clip import ViTL14
from backends.generators.guidance import SCALED
from backends.generators.latent_diffusion import LatentDiffusion
from backends.generators.low_level import STRENGTH, begun
from backends.generators.older_weights import OlderWeights
from backends.generators.weights import NETWORK, TRANSFORMER, Part, pipeline_parts, text_parts
from explorer.protocols import Condition, Option, TrainedOn
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

    from backends.generators.ddim import DDIM
    from backends.generators.memory import Inputs

VISION, TEXT = ViTL14.spaces[-1], ViTL14.text_spaces[-1]


class Versatile(LatentDiffusion):
    """Versatile Diffusion (Xu et al. 2023, arXiv 2211.08332), as Brain-Diffuser draws with it.

    Told 257 image tokens and 77 text tokens, whose attentions are mixed; where a mapper decodes
    only one of the two, that one alone. Without the brain it gets the contexts of a black picture
    and of the empty prompt, in the same mixture (ozcelikfu/brain-diffuser,
    scripts/versatilediffusion_reconstruct_images.py), unless the mapper learned its own. Where the
    mapper also decodes latents of Stable Diffusion's autoencoder, drawing starts from them.
    Published pictures have scale 7.5 and 50 steps.
    """

    name, size = "versatile", "about 7 GB"
    hub = "shi-labs/versatile-diffusion"
    trained_on = TrainedOn("web pictures (LAION-2B-en, COYO-700M)")
    accepts = (VISION, TEXT)
    default_steps = 50
    options = (
        *SCALED,
        Option(
            *("mixing", 0.0, 1.0, 0.4),
            "The share of the text context beside the image context, where the mapper gives both; "
            "0 is the image context alone, and Brain-Diffuser has 0.4.",
        ),
        STRENGTH,
    )
    _denoises = "image_unet"

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts: two UNets, of which one lends its transformers, and both encoders."""
        _, *rest = pipeline_parts()
        unet = {"in_channels": 4, "cross_attention_dim": VISION.shape[1]}
        encoder = "transformers:CLIPVisionModelWithProjection"
        return (
            Part("image_unet", "diffusers:UNet2DConditionModel", expects=unet),
            Part("text_unet", "", NETWORK, {"cross_attention_dim": TEXT.shape[1]}),
            *rest,
            Part("image_encoder", encoder, TRANSFORMER, {"projection_dim": VISION.shape[1]}),
            *text_parts(cls="CLIPTextModelWithProjection"),
        )

    def _weights(self, usual: Path, source: str | Path | None) -> OlderWeights:
        return OlderWeights(self.name, self.hub, self.size, self.parts(), usual, source)

    def _adapted(self, unet: Any) -> Any:
        from backends.generators.dual_attention import doubled

        part = next(part for part in self.weights.parts if part.folder == "text_unet")
        try:
            return doubled(unet, self.weights.tensors(part))
        except ValueError as error:
            raise UserError(
                f"{self.weights.path(part)} does not go with the image_unet beside it ({error}); "
                f"get both again with: {self.weights.command}."
            ) from error

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        import torch

        encoder = self.weights.load(parts["image_encoder"])
        side = encoder.config.image_size
        # the mean and SD that CLIP's pixels are prepared with (openai/CLIP, clip/clip.py)
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
        sd = torch.tensor([0.26862954, 0.26130258, 0.27577711])
        black = (-mean / sd)[None, :, None, None].expand(1, 3, side, side)
        words, reader = self.weights.words(parts)
        said = self.weights.empty_prompt(parts, text=(words, reader))
        with torch.inference_mode():
            tower = encoder.vision_model
            states = tower.post_layernorm(encoder(black).last_hidden_state)
            seen = encoder.visual_projection(states)
            read = reader.text_projection(said.last_hidden_state)
        vision = seen / seen[:, :1].norm(dim=-1, keepdim=True)
        text = read / said.text_embeds[:, None].norm(dim=-1, keepdim=True)
        self._nulls = {VISION: vision[0], TEXT: text[0]}
        for space, null in self._nulls.items():
            if null.shape != space.shape:
                raise UserError(
                    f"The encoders in {self.weights.folder} give {tuple(null.shape)} in the place "
                    f"of {space.name} {space.shape}, so they are not those of CLIP ViT-L/14; get "
                    f"them again with: {self.weights.command}."
                )

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        how: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        import torch

        spaces = [
            tuple(space for space in (TEXT, VISION) if space in condition.embeddings)
            for condition in conditions
        ]
        if len(set(spaces)) > 1:
            raise UserError(
                f"Of {len(conditions)} conditions some have {TEXT.name} or {VISION.name} and "
                "others have not; draw them apart."
            )

        def context(tensors: Sequence[Mapping[Any, torch.Tensor]]) -> torch.Tensor:
            rows = [
                torch.cat([self._tensor(values, space) for space in spaces[0]])
                for values in tensors
            ]
            return torch.stack(rows)

        n = len(embeddings)
        mix = torch.full((n, 1), float(how["mixing"]), device=self.device)
        told = context([condition.embeddings for condition in conditions])
        untold = context([{**self._nulls, **condition.nulls} for condition in conditions])
        return {"context": told, "mix": mix}, {"context": untold, "mix": mix}

    def _added(self, inputs: Inputs) -> dict[str, Any]:
        return {"mix": inputs["mix"]}

    def _begin(
        self,
        noise: torch.Tensor,
        conditions: Sequence[Condition],
        ddim: DDIM,
        how: Mapping[str, float],
    ) -> tuple[torch.Tensor, int]:
        return begun(self.name, self.latent_shape, noise, conditions, ddim, how["strength"])
