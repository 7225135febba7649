"""A decoder that knows the class of what was seen and nothing else: the row to beat.

It is never shown a brain: it names the class, without error, and gives the mean training
embedding of that class (Shirakawa et al. 2025, arXiv 2405.10078).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backends.reports.true_embeddings import Truth
from explorer import splits
from explorer.metrics import evenly
from explorer.types import EmbeddingSpace, UserError

NAME = "class mean (no brain)"
MEANING = (
    "the mean training embedding of the class of what was seen, from a decoder that names the "
    "class without error and knows nothing else; what lies above it is more than the class"
)
MOST = 5000  # training stimuli whose mean is taken, evenly among them: our choice
AT_ONCE = 256  # embeddings held at a time


class ClassMeans:
    """Mean training embeddings by class, of the stimuli that a subject was trained on.

    Test stimuli are in no mean.
    """

    def __init__(self, truth: Truth) -> None:
        self.truth, self._known = truth, {}

    def of(
        self, subject: str, space: EmbeddingSpace, stimuli: Sequence[str]
    ) -> tuple[np.ndarray, str]:
        """Return the mean (N, ...) of the class of each of N test stimuli, and a note ("": none).

        A class that was never trained has the mean of all training stimuli instead, and the note
        says of how many stimuli. `UserError` where no class of a test stimulus was trained, or no
        classes are named.
        """
        bench, dataset = self.truth.bench, self.truth.dataset
        trials = bench.catalogue.trials(dataset, subject)
        named = bench.catalogue.dataset(dataset).stimuli["category"].fillna("").astype(str)
        trained = splits.shown([trials])[0]
        trained = tuple(trained[i] for i in evenly(len(trained), MOST))
        wanted = named.reindex(stimuli).fillna("").tolist()
        kinds = dict(zip(trained, named.reindex(trained).fillna(""), strict=True))
        if not set(wanted) & set(kinds.values()) - {""}:
            raise UserError(f"{dataset} names no class of its test stimuli that was trained.")
        if (space, trained) not in self._known:
            self._known[space, trained] = self._means(space, kinds)
        means = self._known[space, trained]
        lacking = sum(kind not in means for kind in wanted)
        note = (
            f"the class of {lacking} of {len(wanted)} test images was never trained; the mean of "
            "all training images stands for it."
        )
        rows = [means.get(kind, means[""]) for kind in wanted]
        return np.stack(rows), note if lacking else ""

    def _means(self, space: EmbeddingSpace, kinds: dict[str, str]) -> dict[str, np.ndarray]:
        """Return class -> mean embedding of stimuli (stimulus -> class); "" is that of all."""
        sums: dict[str, np.ndarray] = {}
        counts: dict[str, int] = {}
        trained = list(kinds)
        for begin in range(0, len(trained), AT_ONCE):
            block = self.truth.ready(space, trained[begin : begin + AT_ONCE])
            for stimulus, z in block.items():
                for kind in {kinds[stimulus], ""}:
                    sums[kind] = sums.get(kind, 0) + np.asarray(z, np.float64)
                    counts[kind] = counts.get(kind, 0) + 1
        return {kind: total / counts[kind] for kind, total in sums.items()}
