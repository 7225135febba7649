"""Predicted brains: betas as measured and as an encoding model expects them, and their agreement.

Betas are compared as differences from the mean of the training trials, in units of their standard
deviation: what all images have in common would make any two patterns look alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from explorer.brain.parcels import VoxelMap, voxel_map
from explorer.metrics import noise_ceiling, varies
from explorer.types import Parcellation

MEASURED, PREDICTED, ACCURACY = "measured betas", "predicted betas", "encoding accuracy"
PREDICTIONS = (MEASURED, PREDICTED, ACCURACY)  # the maps that an encoding model adds
FEWEST = 10  # voxels of a parcel whose pattern is correlated (our choice); fewer give noise


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Pearson correlations float64 (...,) of (n, ...) over the first axis; chance 0.

    NaN where one of both does not vary.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    both = varies(a.mean(axis=0), a.std(axis=0)) & varies(b.mean(axis=0), b.std(axis=0))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = np.sqrt(np.square(a).sum(axis=0) * np.square(b).sum(axis=0))
    return np.divide((a * b).sum(axis=0), norm, out=np.full(norm.shape, np.nan), where=both)


def pattern_correlation(
    measured: np.ndarray, predicted: np.ndarray, parcellation: Parcellation
) -> np.ndarray:
    """Return how alike two patterns (V,) are in each parcel, float64 (n_labels + 1,).

    Pearson correlation over a parcel's voxels, the last entry is (unassigned); NaN where it has
    fewer than 10.
    """
    return np.array(
        [
            float(correlation(measured[mask], predicted[mask])) if mask.sum() >= FEWEST else np.nan
            for mask in parcellation.masks()
        ]
    )


def correlation_ceiling(ncsnr: np.ndarray, repeats: Sequence[int]) -> np.ndarray:
    """Return the highest correlation (V,) that noise leaves to a perfect prediction, 0 to 1.

    The root of the share of variance in `metrics.noise_ceiling`, for stimuli that were averaged
    over ``repeats`` trials each: their noise variances average, so 1 / n does.
    """
    equal = 1 / np.mean(1 / np.asarray(repeats, dtype=np.float64))
    return np.sqrt(noise_ceiling(ncsnr, equal) / 100)


def betas_map(
    name: str,
    title: str,
    measured: np.ndarray,
    predicted: np.ndarray,
    top: float,
    parcellation: Parcellation,
    sentence: str,
) -> VoxelMap:
    """Return the map of one of both patterns (V,), its colours from ``-top`` to ``top``.

    The table adds ``r_trial``, see `pattern_correlation`.
    """
    shown = voxel_map(name, title, measured if name == MEASURED else predicted, parcellation)
    alike = pattern_correlation(measured, predicted, parcellation)
    table = shown.table.assign(r_trial=alike)
    return replace(shown, table=table, kind="diverging", limits=(-top, top), sentence=sentence)


def accuracy_map(
    title: str,
    accuracy: np.ndarray,
    ceiling: np.ndarray | None,
    alike: np.ndarray,
    parcellation: Parcellation,
    sentence: str,
) -> VoxelMap:
    """Return the map of correlations (V,) over stimuli.

    The table's ``mean`` is that over a parcel's voxels; it adds ``r_ceiling``, the mean of
    `correlation_ceiling` over the same voxels where that is known, and ``r_trial``, ``alike``.
    """
    shown = voxel_map(ACCURACY, title, accuracy, parcellation)
    table = shown.table.assign(r_trial=alike)
    if ceiling is not None:
        same = np.where(np.isfinite(accuracy), ceiling, np.nan)
        highest = voxel_map(ACCURACY, "", same, parcellation).table["mean"]
        table.insert(table.columns.get_loc("r_trial"), "r_ceiling", highest)
    return replace(shown, table=table, sentence=sentence)
