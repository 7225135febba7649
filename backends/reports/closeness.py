"""How near decoded embeddings come to the true ones: every definition, its chance and sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from explorer import metrics

DRAWN = 300  # candidates of a retrieval in the NSD papers


@dataclass(frozen=True, eq=False)
class Closeness:
    """How near each of N predictions is to each of N true embeddings, row i to its own item i.

    ``correlation``, ``cosine`` and ``error`` (mean squared difference) are (N, N), ``spread`` (N,)
    is the mean squared difference of the true items from their mean. ``undefined`` bool (N,):
    predictions that are not finite; their rows mean nothing.
    """

    correlation: np.ndarray
    cosine: np.ndarray
    error: np.ndarray
    spread: np.ndarray
    undefined: np.ndarray

    @classmethod
    def of(cls, predictions: np.ndarray, truth: np.ndarray) -> Closeness:
        """Return the closeness of predictions to true embeddings, both (N, ...)."""
        centre = truth.mean(axis=0, keepdims=True, dtype=np.float64)
        flat = np.reshape(predictions, (len(predictions), -1))
        undefined = ~np.isfinite(flat).all(axis=1)
        if undefined.any():
            predictions = np.where(undefined[:, None], 0, flat).reshape(np.shape(predictions))
        return cls(
            metrics.correlation_matrix(predictions, truth),
            metrics.cosine_matrix(predictions, truth),
            metrics.squared_error_matrix(predictions, truth),
            metrics.squared_error_matrix(truth, centre)[:, 0],
            undefined,
        )

    def shuffled(self, order: np.ndarray) -> Closeness:
        """Return what it is when item i gets the prediction of item ``order[i]``."""
        moved = (self.correlation[order], self.cosine[order], self.error[order])
        return Closeness(*moved, self.spread, self.undefined[order])

    @property
    def own(self) -> np.ndarray:
        """Where a prediction's own item is, int (N,)."""
        return np.arange(len(self.spread))


@dataclass(frozen=True)
class Score:
    """One definition.

    ``columns`` gives (N, C) numbers a stimulus and ``value`` the score (...) of their means
    (..., C) over stimuli, None where it is that mean. ``chance`` is a function of the gallery's
    size, NaN where only the shuffled rows can tell. ``failed`` gives (N, C), or what broadcasts to
    it: the numbers of predictions that are not finite.
    """

    title: str
    sentence: str
    better: str
    chance: Callable[[int], float]
    columns: Callable[[Closeness], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray] | None = None
    failed: Callable[[Closeness], np.ndarray] = lambda near: np.zeros((1, 1))

    def each(self, near: Closeness) -> np.ndarray:
        """Return (N, C) numbers a stimulus; a prediction that is not finite has failed."""
        return np.where(near.undefined[:, None], self.failed(near), self.columns(near))

    def of(self, means: np.ndarray) -> np.ndarray:
        """Return the score (...) of the means (..., C) of its columns."""
        return means[..., 0] if self.value is None else self.value(means)


def _column(of: Callable[[Closeness], np.ndarray]) -> Callable[[Closeness], np.ndarray]:
    return lambda near: of(near).astype(np.float64)[:, None]


def _top(k: int) -> Callable[[Closeness], np.ndarray]:
    return _column(lambda near: metrics.retrieval_rank(near.cosine, near.own) <= k)


def _unknown(gallery: int) -> float:
    return math.nan


def _image_to_brain(near: Closeness) -> np.ndarray:
    """Return the chance of each image's own prediction; one that is not finite beats all others.

    Nobody knows whether it is less similar, and to take it as such would make the task easier.
    """
    similarity = np.where(near.undefined[:, None], np.inf, near.cosine)
    return metrics.n_way_retrieval(similarity.T, near.own, DRAWN)


FAILED = " A prediction that is not finite counts as 0."
AS_MEAN = " A prediction that is not finite counts as the mean of the true embeddings."
SCORES: dict[str, Score] = {
    "two-way": Score(
        "two-way identification",
        "Share of the other stimuli whose true embedding correlates (Pearson, over its values) "
        f"less with the prediction than the stimulus's own; strict, ties half.{FAILED}",
        "higher",
        lambda gallery: 0.5,
        _column(lambda near: metrics.identification(near.correlation, near.own)),
    ),
    "top-1": Score(
        "top-1",
        "Share of predictions whose own image is the nearest by cosine among all test images; a "
        f"tie counts by its middle rank.{FAILED}",
        "higher",
        lambda gallery: 1 / gallery,
        _top(1),
    ),
    "top-5": Score(
        "top-5",
        f"The same, among the five nearest.{FAILED}",
        "higher",
        lambda gallery: min(1, 5 / gallery),
        _top(5),
    ),
    "brain-to-image": Score(
        "300-way, brain to image",
        "The chance that a prediction's own image is the nearest by cosine among 300 test images "
        "(all of them where there are fewer): expectation over random draws, a tie is a miss."
        + FAILED,
        "higher",
        lambda gallery: 1 / min(DRAWN, gallery),
        _column(lambda near: metrics.n_way_retrieval(near.cosine, near.own, DRAWN)),
    ),
    "image-to-brain": Score(
        "300-way, image to brain",
        f"The same with an image's own prediction among 300 predictions.{FAILED} It also counts "
        "as more similar to any other image, where it is drawn.",
        "higher",
        lambda gallery: 1 / min(DRAWN, gallery),
        _column(_image_to_brain),
    ),
    "r2": Score(
        "R²",
        "1 - squared error of the raw predictions over the squared distance of the true "
        "embeddings from their mean, each summed over stimuli and values; 0 is that mean."
        + AS_MEAN,
        "higher",
        _unknown,
        lambda near: np.column_stack([near.error.diagonal(), near.spread]),
        lambda means: 1 - means[..., 0] / means[..., 1],
        lambda near: np.column_stack([near.spread, near.spread]),
    ),
    "cosine": Score(
        "cosine",
        f"Cosine of the raw prediction with the true embedding, mean over stimuli.{FAILED}",
        "higher",
        _unknown,
        _column(lambda near: near.cosine.diagonal()),
    ),
    "rmse": Score(
        "RMSE",
        "Root of the mean squared error of the raw predictions over stimuli and values." + AS_MEAN,
        "lower",
        _unknown,
        _column(lambda near: near.error.diagonal()),
        lambda means: np.sqrt(means[..., 0]),
        lambda near: near.spread[:, None],
    ),
}
