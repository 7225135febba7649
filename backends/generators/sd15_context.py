"""sd15-context: Stable Diffusion with a decoded text context in the place of a prompt's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.embedders.files import hash_of_files
from backends.embedders.published import StableDiffusionText
from backends.generators.clip_pulls import PULLS
from backends.generators.guidance import SCALED, SELF_ATTENTION
from backends.generators.latent_diffusion import LatentDiffusion
from backends.generators.low_level import STRENGTH, begun
from backends.generators.weights import Part, pipeline_parts, text_parts
from explorer.protocols import Condition, TrainedOn
from explorer.types import CARD, WEIGHTS, UserError

if TYPE_CHECKING:
    import torch

    from backends.generators.ddim import DDIM
    from backends.generators.memory import Inputs
    from backends.generators.tuning import Trainee

(CONTEXT,) = StableDiffusionText.text_spaces


class StableContext(LatentDiffusion):
    """Stable Diffusion 1.4 or 1.5 with a decoded text context (77, 768) in place of a prompt's.

    Without the brain it gets the null that the mapper has learned, or else the context of the
    empty prompt, as the model was trained; a fine-tuned one gets its own. Where the mapper also
    decodes latents z, drawing starts from them with noise up to the share ``strength`` of the
    steps, as published image-to-image.
    """

    name, size = "sd15-context", "4.3 GB"
    hub = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    trained_on = TrainedOn("web pictures (LAION-2B-en)")
    accepts = (CONTEXT,)
    needs = ("betas",)
    options = (
        *SCALED,
        SELF_ATTENTION,
        *PULLS,
        STRENGTH,
    )

    def __init__(
        self, checkpoints: Path, device: str = "cpu", source: str | Path | None = None
    ) -> None:
        """Load its weights, and those fine-tuned from them in ``source``."""
        from backends.generators.tuning import tuned_card, tuned_remarks

        self._tuned, self._source = tuned_card(source, self.name), source
        began = (self._tuned.settings["base"] or None) if self._tuned else source
        super().__init__(checkpoints, device, began)
        if self._tuned:
            self.remarks += tuned_remarks(self._tuned)

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts, as in Stable Diffusion 1.x."""
        return (*pipeline_parts(cross_attention_dim=768), *text_parts())

    @classmethod
    def for_training(cls, checkpoints: Path, source: str | Path | None = None) -> Trainee:
        """Return what `finetuning` trains; it begins with published weights."""
        from backends.generators.tuning import NoiseTrainee, tuned_card

        if tuned_card(source, cls.name):
            raise UserError(
                f"{source} is fine-tuned already; name the weights that it began with: "
                f"--generator {cls.name}=PATH_OR_ID."
            )
        made = cls(checkpoints, "cpu", source)
        side = made.latent_shape[1] * 2 ** (len(made.decoder.config.block_out_channels) - 1)
        return NoiseTrainee(
            made.decoder,
            made.scheduler,
            generator=cls.name,
            space=CONTEXT,
            unet=made.unet,
            null=made._null,
            base=made.fingerprint,
            source=made.weights.source,
            shape=made.latent_shape,
            side=side,
        )

    @property
    def fingerprint(self) -> str:
        """Names the exact files of its weights, fine-tuned ones included."""
        if not self._tuned:
            return super().fingerprint
        folder = Path(self._source).expanduser()
        return super().fingerprint + hash_of_files(folder / CARD, folder / WEIGHTS)

    def _adapted(self, unet: Any) -> Any:
        import torch

        from backends.generators.tuning import Learned, read_tuned

        if self._tuned:
            learned = Learned(CONTEXT, unet, torch.zeros(CONTEXT.shape))
            read_tuned(self._source, self._tuned, learned, self.weights.fingerprint)
            self._projection = learned.projection.to(self.device)
            self._null = learned.null.to(self.device)
        return unet

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        if not self._tuned:
            self._null = self.weights.empty_prompt(parts).last_hidden_state[0].to(self.device)

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        how: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        import torch

        if self._tuned:  # one null in training and here, whatever a mapper has
            null = self._null.expand(len(embeddings), -1, -1)
            return {"context": self._projection(embeddings)}, {"context": null}
        nulls = self._untold(conditions, CONTEXT, [self._null] * len(conditions))
        return {"context": embeddings}, {"context": torch.stack(nulls)}

    def _begin(
        self,
        noise: torch.Tensor,
        conditions: Sequence[Condition],
        ddim: DDIM,
        how: Mapping[str, float],
    ) -> tuple[torch.Tensor, int]:
        return begun(self.name, self.latent_shape, noise, conditions, ddim, how["strength"])
