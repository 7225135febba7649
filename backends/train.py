"""Fits one mapper to one subject of any data set and writes its checkpoint with a card."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends import EMBEDDERS
from backends.training import versions
from explorer.types import Card, Dataset, Embedder, EmbeddingSpace, Trials, UserError, resolve

Progress = Callable[[str], None]


def available_spaces() -> dict[str, tuple[str, EmbeddingSpace]]:
    """Return every space an embedder can make: its name -> (embedder's name, space)."""
    return {
        space.name: (name, space)
        for name, entry in EMBEDDERS.items()
        for space in resolve(entry).spaces
    }


def find_space(name: str) -> tuple[str, EmbeddingSpace]:
    """Return the embedder's name and the space called ``name``; unknown ones raise `UserError`."""
    spaces = available_spaces()
    if name not in spaces:
        raise UserError(f"There is no space {name!r}; choose one of {', '.join(spaces)}.")
    return spaces[name]


def embed_stimuli(
    dataset: Dataset,
    stimuli: Sequence[str],
    embedder: Embedder,
    space: EmbeddingSpace,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Return stimulus -> embedding of the space's shape, reading the pictures in blocks."""
    embeddings: dict[str, np.ndarray] = {}
    told = time.monotonic()
    for begin in range(0, len(stimuli), 128):
        block = stimuli[begin : begin + 128]
        rows = embedder.embed([dataset.image(stimulus) for stimulus in block], space)
        embeddings.update(zip(block, rows, strict=True))
        if progress and time.monotonic() - told > 10:
            told = time.monotonic()
            progress(f"{space.name}: {len(embeddings)}/{len(stimuli)} pictures embedded")
    return embeddings


def train_mapper(
    name: str,
    cls: type,
    trials: Trials,
    embeddings: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
    folder: Path,
    *,
    command: str,
    licence: str,
    seed: int = 0,
    device: str = "cpu",
    half: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Card:
    """Fit ``cls`` to the training rows, measure it on the averaged test betas, write ``folder``.

    ``embeddings`` covers the training stimuli, and the test stimuli for the figures on the card:
    two-way identification per space with its interval over stimuli, chance and N.
    """
    from explorer.mapper import split_hash

    subject, voxels = trials.subject, trials.subject.voxels
    began = time.monotonic()
    mapper = cls.fit([trials], embeddings, seed=seed, progress=progress, **settings)
    seconds = time.monotonic() - began
    card = Card(
        kind="mapper",
        name=name,
        cls=name,
        dataset=subject.dataset,
        command=command,
        licence=licence,
        subjects=(subject.name,),
        voxels={subject.name: (voxels.n_voxels, voxels.hash)},
        targets=tuple(embeddings),
        split_hash=split_hash(trials),
        normalisation="training mean and standard deviation of each voxel",
        settings={"seed": seed, **settings},
        metrics={
            "cross-validation": getattr(mapper, "metrics", {}).get(subject.name, {}),
            "test": {
                space.name: identify(mapper, trials, space, e) for space, e in embeddings.items()
            },
        },
        seconds=round(seconds, 1),
        device=device,
        versions=versions("torch", "numpy"),
    )
    mapper.save_pretrained(folder, card, half=half)
    return card


def identify(
    mapper: Any, trials: Trials, space: EmbeddingSpace, embeddings: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Return two-way identification on averaged test betas: value, interval, chance, N."""
    from explorer.metrics import bootstrap_interval, two_way_identification

    stimuli = [s for s in trials.stimuli("test") if s in embeddings]
    if len(stimuli) < 2:
        return {"two-way identification": None, "N": len(stimuli)}
    betas = np.stack([trials.average(stimulus) for stimulus in stimuli])
    decoded = mapper.decode(betas, trials.subject.name)[space]
    truth = np.stack([embeddings[stimulus] for stimulus in stimuli])
    each = two_way_identification(decoded, truth, per_item=True)
    low, high = bootstrap_interval(each, seed=0)
    return {
        "two-way identification": round(float(each.mean()), 4),
        "95 % interval over stimuli": [round(low, 4), round(high, 4)],
        "chance": 0.5,
        "N": len(stimuli),
    }
