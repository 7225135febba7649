"""Brain correlation: how well drawn pictures predict the betas that were measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from backends.reports.likeness import correlations
from backends.reports.scores import EACH, SCOTTI, by_picture, summary
from explorer.brain.maps import parcellation_of
from explorer.metrics import correlation_matrix, mean_of
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.types import EmbeddingSpace
    from explorer.workbench import Workbench

FLAT = "betas that are the same everywhere or not finite"
BRAIN_TITLE = "Brain correlation, all voxels"
BRAIN, FEWEST = "brain-correlation", 10  # voxels whose pattern is correlated: our choice


def brain_correlation(
    bench: Workbench,
    dataset: str,
    subject: str,
    atlas: str,
    stimuli: Sequence[str],
    shown: Sequence[np.ndarray],
    made: Sequence[Sequence[np.ndarray]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return how well pictures predict what was measured, per picture and as a table.

    The encoding model's betas for a picture against the stimulus' measured ones, averaged over its
    test repeats: Pearson correlation over the voxels of a parcel, both as differences from the
    training mean in units of the training SD (after Scotti et al. 2024, whose betas are z-scored).
    The chance level is the mean correlation with another stimulus' measured betas; "shown image"
    is what the shown picture itself reaches, as encoding models are far from perfect.

    Parameters
    ----------
    atlas
        Whose parcels; "" is the subject's first. Those of fewer than 10 voxels are left out.
    stimuli, shown, made
        As `pictures_of` gives them.

    Returns
    -------
    per_picture
        Columns score ("brain-correlation", and "brain-correlation PARCEL"), item, sample, value.
    table
        The first row is that of all voxels; see `Report`.
    """
    import pandas as pd

    encoder = bench.models.encoder(dataset, subject)
    mean, sd = encoder.statistics()
    trials = bench.catalogue.trials(dataset, subject)
    parcellation = parcellation_of(bench, dataset, subject, atlas)
    measured = np.stack([trials.average(stimulus) for stimulus in stimuli])
    measured = (measured - mean) / sd
    embedded = [_embed(bench, images, encoder.spaces) for images in (shown, *made)]
    expected = [(encoder.predict(z) - mean) / sd for z in embedded]
    everything = np.ones((1, measured.shape[1]), bool)
    masks = np.concatenate([everything, parcellation.masks()[:-1]])
    names = ["all voxels", *(label.key for label in parcellation.labels)]
    rows, lines = [], []
    for name, mask in zip(names, masks, strict=True):
        if mask.sum() < FEWEST:
            continue
        score = BRAIN if not lines else f"{BRAIN} {name}"
        true, *found = (betas[:, mask].astype(np.float64) for betas in (measured, *expected))
        values = np.stack([correlations(one, true) for one in found[1:]])
        ceiling = mean_of(correlations(found[0], true), FLAT, 0.0)
        tables = [correlation_matrix(_finite(one), _finite(true)) for one in found[1:]]
        n, others = len(stimuli), np.mean([table.sum() - np.trace(table) for table in tables])
        figures = summary(values, 0.0, FLAT, higher_is_better=True)
        rows += by_picture(score, values, 0.0)
        about = {"chance": others / (n * (n - 1)), "better": "higher", "N": n}
        lines.append(
            {"id": score, "title": f"Brain correlation, {name}", **figures, **about}
            | {"samples": len(made), "source": f"{SCOTTI}; here a {encoder.description}"}
            | {"network": "", "pool": ""}
            | {"parcel": name, "voxels": int(mask.sum()), "shown image": ceiling.value}
            | {"atlas": parcellation.name}
        )
    return pd.DataFrame(rows, columns=EACH), pd.DataFrame(lines)


def _finite(rows: np.ndarray) -> np.ndarray:
    """Return rows (n, V); those that are not finite as zeros, which correlate 0 with all."""
    return np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0)


def _embed(
    bench: Workbench, images: Sequence[np.ndarray], spaces: Sequence[EmbeddingSpace]
) -> dict[EmbeddingSpace, np.ndarray]:
    """Return the images in the spaces that an encoding model reads."""
    found = {}
    for space in spaces:
        name = bench.catalogue.embedder_name(space)
        if not name:
            raise UserError(
                f"The encoding model reads {space.name}, into which no embedder here puts "
                "pictures; train one on a space of images: python -m backends train-encoding "
                "--dataset NAME=PATH --space pocket-clip/image"
            )
        found[space] = bench.models.embedder(name).embed(images, space)
    return found
