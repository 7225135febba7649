"""Rows beside the scores of drawn pictures: what PixCorr and SSIM give to no brain at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.reports.class_mean import ClassMeans
from backends.reports.feature_networks import Features
from backends.reports.scores import SCORES, measure
from backends.reports.true_embeddings import Truth
from explorer.evidence.rewards import references
from explorer.metrics import match_size
from explorer.protocols import Condition
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

PIXELS = SCORES[:2]  # PixCorr and SSIM, at 425 x 425
CLASS = "drawn from the class alone (no brain)"
AT_ONCE = 32
Say = Callable[[str], None]


def reference_rows(
    bench: Workbench,
    settings: Mapping[str, Any],
    subject: str,
    stimuli: Sequence[str],
    shown: Sequence[np.ndarray],
    features: Features,
    *,
    classes: bool = False,
    progress: Say | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Return PixCorr and SSIM of every reference of a subject's pictures, and what is missing.

    Parameters
    ----------
    settings
        How the pictures were made, see `backends.reports.picture_folder.load`.
    stimuli, shown
        What was shown, and its images uint8 (H, W, 3).
    classes
        Also draw, with the pictures' own generator, from the class alone: its name where the
        generator draws from words, else the mean training embedding of the class.

    Returns
    -------
    table
        Columns as `backends.reports.scores.measure` has them, with ``of`` first.
    notes
        A sentence for each reference that is missing.
    """
    import pandas as pd

    dataset, generator = settings["dataset"], settings["generator"]
    drawn = "" if generator in bench.catalogue.pictures else generator
    tables, notes = [], []

    def add(name: str, pictures: Sequence[np.ndarray]) -> None:
        if progress:
            progress(f"{subject}: PixCorr and SSIM of {name}")
        lines = measure(shown, [list(pictures)], features, scores=PIXELS)[1]
        lines.insert(0, "of", name)
        tables.append(lines)

    try:
        for name, pictures in references(bench, dataset, subject, shown, drawn):
            add(name, list(pictures))
    except UserError as error:
        notes.append(f"A reference is missing: {error}")
    if classes:
        try:
            made = of_classes(bench, settings, subject, stimuli, progress)
            pairs = zip(made, shown, strict=True)
            add(CLASS, [match_size(m, *image.shape[:2]) for m, image in pairs])
        except UserError as error:
            notes.append(f"Nothing was {CLASS}: {error}")
    return pd.concat(tables, ignore_index=True), notes


def of_classes(
    bench: Workbench,
    settings: Mapping[str, Any],
    subject: str,
    stimuli: Sequence[str],
    progress: Say | None = None,
) -> np.ndarray:
    """Return pictures uint8 (n, H, W, 3) that the settings' generator draws from classes alone.

    A generator of words is told the name of the class; each also has the mean training embedding
    of the class. Seeds are those of `reconstruct`.
    """
    import torch

    dataset, name = settings["dataset"], settings["generator"]
    say = progress or (lambda sentence: None)
    if name in bench.catalogue.pictures:
        raise UserError(f"{name} are published pictures, and nobody here can draw others.")
    accepted = bench.catalogue.generator_class(name).accepts
    space = next((s for s in accepted if bench.catalogue.embedder_name(s)), None)
    if space is None:
        raise UserError(f"No embedder here puts images into what {name} draws from.")
    means, note = ClassMeans(Truth(bench, dataset, {}, {}, say)).of(subject, space, stimuli)
    if note:
        say(f"{CLASS}: {note}")
    generator, found = bench.models.generator(name), []
    labels = bench.catalogue.dataset(dataset).stimuli["category"].reindex(stimuli).fillna("")
    conditions = [
        Condition(
            {space: torch.from_numpy(np.asarray(z, np.float32))},
            dataset=bench.catalogue.dataset(dataset),
            label=str(label),
        )
        for z, label in zip(means, labels, strict=True)
    ]
    first = int(settings.get("seed", 0))
    for begin in range(0, len(conditions), AT_ONCE):
        some = conditions[begin : begin + AT_ONCE]
        seeds = range(first + begin, first + begin + len(some))
        say(f"{subject}: {begin + len(some)} of {len(conditions)} pictures {CLASS}")
        made = generator.generate(some, settings["scale"], seeds, settings["steps"])
        found.append(made)
    return np.concatenate(found)
