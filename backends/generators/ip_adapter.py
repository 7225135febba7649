"""ip-adapter, ip-adapter-xl: Stable Diffusion told a ViT-H/14 image embedding by IP-Adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backends.embedders.clip import ViTH14
from backends.generators.latent_diffusion import SDXL_COLOURS, LatentDiffusion
from backends.generators.weights import Part, pipeline_parts, text_parts
from explorer.files import reason
from explorer.protocols import Condition, TrainedOn
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

    from backends.generators.memory import Inputs

IMAGE = ViTH14.spaces[0]


class IPAdapter(LatentDiffusion):
    """IP-Adapter on Stable Diffusion 1.5: told a ViT-H/14 image embedding beside an empty prompt.

    Without the brain it gets zeros in its place, as in its training (Ye et al. 2023, arXiv
    2308.06721).
    """

    name, size = "ip-adapter", "4.3 GB"
    hub = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    trained_on = TrainedOn("web pictures (LAION-2B-en, COYO-700M)")
    adapter = ("models", "ip-adapter_sd15.safetensors")
    accepts = (IMAGE,)

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return the parts of Stable Diffusion 1.5, and the adapter's own file."""
        return (*pipeline_parts(cross_attention_dim=768), *text_parts(), cls._adapter_part())

    @classmethod
    def _adapter_part(cls) -> Part:
        folder, file = cls.adapter
        return Part(folder, "", (file,), hub="h94/IP-Adapter")

    def _adapted(self, unet: Any) -> Any:
        from diffusers.loaders import IPAdapterMixin

        class Loader(IPAdapterMixin):
            """What diffusers' own loader takes for a pipeline."""

            unet: Any

        part = self._adapter_part()
        path = self.weights.file(part, part.files[0])
        loader = Loader()
        loader.unet = unet
        try:
            loader.load_ip_adapter(
                str(path.parent), subfolder="", weight_name=path.name, local_files_only=True
            )
            width = unet.encoder_hid_proj.image_projection_layers[0].image_embeds.in_features
            if width != IMAGE.size:
                raise ValueError(f"it reads embeddings of {width} values, not {IMAGE.size}")
        except Exception as error:  # whatever diffusers says of a file that does not fit
            raise UserError(
                f"{path} cannot be loaded as an IP-Adapter of {self.name} "
                f"({type(error).__name__}: {reason(error)}); get it again with: "
                f"{self.weights.command}."
            ) from error
        return unet.eval().requires_grad_(False)

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        self._prompt = {"context": self.weights.empty_prompt(parts).last_hidden_state}

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        how: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        import torch

        n, image = len(embeddings), embeddings[:, None]  # one picture each
        prompt = {
            name: value.to(self.device).expand(n, *value.shape[1:])
            for name, value in self._prompt.items()
        }
        zeros = torch.zeros_like(image)
        return {**prompt, "image_embeds": image}, {**prompt, "image_embeds": zeros}

    def _added(self, inputs: Inputs) -> dict[str, Any]:
        return super()._added(inputs) | {"image_embeds": [inputs["image_embeds"]]}


class IPAdapterXL(IPAdapter):
    """IP-Adapter on Stable Diffusion XL, with a ViT-H/14 image embedding like the smaller one.

    The prompt is empty with and without the brain, as in the adapter's training: the zeros that
    the published pipeline takes for an absent negative prompt would make guidance about text too.
    """

    name, size = "ip-adapter-xl", "7.6 GB"
    hub = "stabilityai/stable-diffusion-xl-base-1.0"
    trained_on = TrainedOn("web pictures (of Stable Diffusion XL; LAION-2B-en, COYO-700M)")
    adapter = ("sdxl_models", "ip-adapter_sdxl_vit-h.safetensors")
    tiny, colours = "taesdxl", SDXL_COLOURS

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return the parts of Stable Diffusion XL in half precision, and the adapter's file."""
        told = {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 2816}
        full = (
            *pipeline_parts(cross_attention_dim=2048, **told),
            *text_parts(),
            *text_parts("_2", "CLIPTextModelWithProjection"),
        )
        return (*(part.in_half() for part in full), cls._adapter_part())

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        import torch

        # as in pipeline_stable_diffusion_xl.py: the last but one states of both encoders
        one, two = self.weights.empty_prompt(parts), self.weights.empty_prompt(parts, "_2")
        context = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
        factor = 2 ** (len(self.decoder.config.block_out_channels) - 1)
        pixels = float(self.latent_shape[1] * factor)
        size = torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]])  # original, crop, target
        self._prompt = {"context": context, "text_embeds": two.text_embeds, "time_ids": size}
