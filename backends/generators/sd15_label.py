"""sd15-label: Stable Diffusion with the class name of the nearest pictures as its prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backends.embedders.clip import ViTB32, ViTBigG14, ViTH14, ViTL14
from backends.embedders.pocket import PocketClip
from backends.embedders.published import ResNet50, ViTB16
from backends.generators.gallery import Galleries
from backends.generators.guidance import SCALED
from backends.generators.latent_diffusion import LatentDiffusion
from backends.generators.weights import Part, pipeline_parts, said, text_parts
from explorer.protocols import Condition, Embedder, Neighbour, Option, Step, TrainedOn
from explorer.types import EmbeddingSpace

if TYPE_CHECKING:
    import torch

    from backends.generators.memory import Inputs

SHOWN = 5  # neighbours beside a picture that was drawn from their name


class StableLabel(LatentDiffusion):
    """Stable Diffusion 1.4 or 1.5 with a class name as its prompt: that of the nearest pictures.

    The decoded embedding is compared with a gallery, by default the data set's own training
    stimuli; ``source`` ``PATH_OR_ID?gallery=FOLDER`` names a folder with one sub-folder a class.
    Only the name reaches the picture: where and how large things are was not decoded. Without the
    brain the prompt is empty. As ridge with nearest neighbours on GOD was published, but with
    names as a person writes them.
    """

    name, size = "sd15-label", "4.3 GB"
    hub = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    trained_on = TrainedOn("web pictures (LAION-2B-en)")
    embedders = (ViTL14, ViTH14, ViTBigG14, ViTB32, ResNet50, ViTB16, PocketClip)
    accepts = tuple(cls.spaces[0] for cls in embedders)
    needs = ("dataset",)
    options = (
        *SCALED,
        Option(
            "votes",
            1,
            25,
            1,
            "How many of the nearest pictures decide the class name, by majority; 1 takes the "
            "nearest one's.",
            whole=True,
        ),
    )

    def __init__(
        self,
        checkpoints: Path,
        device: str = "cpu",
        source: str | Path | None = None,
        cache: Path | None = None,
    ) -> None:
        weights, _, folder = str(source or "").partition("?gallery=")
        self._galleries = Galleries(self.name, folder or None, cache)
        self._embedders: dict[EmbeddingSpace, Embedder] = {}
        super().__init__(checkpoints, device, weights or None)

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts, as in Stable Diffusion 1.x."""
        return (*pipeline_parts(cross_attention_dim=768), *text_parts())

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        words, encoder = self.weights.words(parts)
        self._text = words, encoder.to(self.device)
        self._null = self.weights.empty_prompt(parts, text=self._text).last_hidden_state

    def sweep(
        self,
        condition: Condition,
        scales: Sequence[float],
        steps: int,
        seed: int,
        **options: float,
    ) -> Iterator[Step]:
        """Yield steps that say the class name and its neighbours; see `LatentDiffusion.sweep`."""
        prompt, found = self.prompt(condition, **options)
        gallery, votes = self._galleries.of(condition), int(self._chosen(options)["votes"])
        whose = f"most of the {votes} nearest" if votes > 1 else "the nearest"
        note = (
            f'drawn from the words "{prompt}" alone, the class of {whose} of {len(gallery)} '
            f"{gallery.title}; nothing else of the image was decoded"
        )
        for step in super().sweep(condition, scales, steps, seed, **options):
            yield replace(step, note=note, neighbours=found)

    def prompt(self, condition: Condition, **options: float) -> tuple[str, tuple[Neighbour, ...]]:
        """Return a condition's class name, and its nearest pictures (5, or as many as vote).

        A condition with a label of its own has no pictures.
        """
        if condition.label:
            return condition.label, ()
        votes = int(self._chosen(options)["votes"])
        space, z = self._decoded(condition)
        given = z.cpu().numpy(), space, self._embedder(space)
        gallery = self._galleries.of(condition)
        words, found = gallery.prompt(*given, votes, majority=votes > 1)
        return words, found if votes > SHOWN else gallery.nearest(*given, SHOWN)

    def _embedder(self, space: EmbeddingSpace) -> Embedder:
        if space not in self._embedders:
            cls = next(cls for cls in self.embedders if space in cls.spaces)
            self._embedders[space] = cls(self._checkpoints, self.device)
        return self._embedders[space]

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        how: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        import torch

        prompts = [self.prompt(condition, **how)[0] for condition in conditions]
        context = torch.cat([said(*self._text, one).last_hidden_state for one in prompts])
        return {"context": context}, {"context": self._null.expand_as(context)}
