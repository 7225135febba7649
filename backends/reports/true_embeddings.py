"""What decoded embeddings are compared with: the true ones of a data set's stimuli."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.types import EmbeddingSpace, UserError, resolve

if TYPE_CHECKING:
    from explorer.workbench import Workbench

Say = Callable[[str], None]


class Truth:
    """The true embeddings of stimuli in any space, made once; spaces nobody can make are noted."""

    def __init__(
        self,
        bench: Workbench,
        dataset: str,
        sources: Mapping[str, str],
        captions: Mapping[str, str],
        say: Say,
    ) -> None:
        self.bench, self.dataset, self.say = bench, dataset, say
        self.captions = captions
        self.notes: list[str] = []
        self._known: dict[EmbeddingSpace, dict[str, np.ndarray]] = {}
        self._missing: set[EmbeddingSpace] = set()
        self._sources, self._made = dict(sources), {}

    def of(self, space: EmbeddingSpace, stimuli: Sequence[str]) -> np.ndarray | None:
        """Return the true embeddings (N, ...), or None where they cannot be made."""
        if space in self._missing:
            return None
        known = self._known.setdefault(space, {})
        try:
            if new := [stimulus for stimulus in stimuli if stimulus not in known]:
                made = self.embed(space, new)
                if odd := [s for s, z in made.items() if not np.isfinite(z).all()]:
                    raise UserError(
                        f"the true embeddings of {len(odd)} of {len(made)} stimuli are not finite "
                        f"(first {odd[0]!r}), so there is nothing to compare with."
                    )
                known |= made
        except UserError as error:
            self._missing.add(space)
            self.notes.append(f"{space.name} is left out: {error}")
            return None
        return np.stack([known[stimulus] for stimulus in stimuli])

    def embed(self, space: EmbeddingSpace, stimuli: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the true embeddings of stimuli, none of which is kept."""
        from backends.embedders.store import embed_stimuli

        for name, entry in self.bench.catalogue.embedders.items():
            cls = resolve(entry)
            if space in (*cls.spaces, *getattr(cls, "text_spaces", ())):
                self.say(f"{len(stimuli)} stimuli to embed in {space.name}")
                study, embedder = (
                    self.bench.catalogue.dataset(self.dataset),
                    self._embedder(name, cls),
                )
                said = {"captions": self.captions}
                return embed_stimuli(study, stimuli, embedder, space, self.say, **said)
        raise UserError("no embedder here makes it, so there is nothing to compare with.")

    def ready(self, space: EmbeddingSpace, stimuli: Sequence[str]) -> dict[str, np.ndarray]:
        """Return what `embed` does, from the data set's own store where it lies ready there."""
        models = self.bench.models
        if not self._sources and models.is_embedded(self.dataset, stimuli, space):
            return dict(zip(stimuli, models.embed(self.dataset, stimuli, space), strict=True))
        return self.embed(space, stimuli)

    def _embedder(self, name: str, cls: type) -> Any:
        if name not in self._sources:
            return self.bench.models.embedder(name)
        if name not in self._made:
            place = {"source": self._sources[name]}
            self._made[name] = cls(
                self.bench.catalogue.checkpoints, self.bench.models.device, **place
            )
        return self._made[name]
