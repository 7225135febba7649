"""What masked modelling brings where few trials are labelled: mappers with it and without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from backends.mappers.masked import Masked
from explorer.metrics import two_way_identification
from explorer.types import EmbeddingSpace, Trials


def pretraining_gain(
    trials: Sequence[Trials],
    targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
    *,
    share: float = 0.1,
    seeds: Sequence[int] = (0, 1, 2),
    progress: Callable[[str], None] | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Return what masked modelling brings to a mapper fine-tuned on few trials, ready to plot.

    One row a seed, subject, target and ``pretrained`` (False, True): ``error`` is the squared
    error on the averaged test betas over that of the mean training embedding (lower is better, 1
    is the mean), ``two_way`` their two-way identification (chance 0.5). Both mappers of a seed
    learn from the same share of the same trials; ``settings`` are those of `Masked.fit`. From the
    command line the same is ``python -m backends train masked --set share=0.1``, once more with
    ``--set pretrain_epochs=0``.
    """
    rows = []
    for seed in seeds:
        for pretrained in (False, True):
            chosen = settings if pretrained else settings | {"pretrain_epochs": 0}
            mapper = Masked.fit(
                trials, targets, seed=seed, share=share, progress=progress, **chosen
            )
            for one in trials:
                stimuli = one.stimuli("test")
                betas = np.stack([one.average(stimulus) for stimulus in stimuli])
                for i, (space, z) in enumerate(mapper.decode(betas, one.subject.name).items()):
                    truth = np.stack([targets[space][stimulus] for stimulus in stimuli])
                    centre = mapper.get_buffer(f"centre_{i}").numpy().reshape(space.shape)
                    error = np.square(z - truth).sum() / np.square(centre - truth).sum()
                    rows.append(
                        {
                            "seed": seed,
                            "pretrained": pretrained,
                            "subject": one.subject.name,
                            "space": space.name,
                            "error": float(error),
                            "two_way": float(two_way_identification(z, truth)),
                        }
                    )
    return rows
