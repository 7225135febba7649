"""Scores of pictures, embeddings and importance: pure functions, arrays in, numbers out.

Every docstring states the direction (which end is better), the chance level, N and the source. A
number without its N and chance is not comparable: the published names hide different definitions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer.types import UserError

ROUNDING = 1e-6  # of a mean: more than float32 sums of a constant are off by

# ------------------------------------------------------------------------------------ two pictures


def match_size(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return an image uint8 (H, W, 3) resized to (height, width, 3); the same size is the same.

    Bicubic with antialiasing: Pillow's filter, which widens with the reduction.
    """
    from PIL import Image

    _require_image(image)
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def pixcorr(truth: np.ndarray, image: np.ndarray) -> float:
    """Return the Pearson correlation of all RGB values of two uint8 (H, W, 3) images, -1 to 1.

    Higher is better. No fixed chance level: unrelated photographs correlate above 0, and a blur
    scores well, so compare with shuffled pairs. N = 1 pair at the images' own size. NaN when one
    is a single colour value. Source: Ozcelik & VanRullen 2023, Sci Rep 13:15666 (there at 425
    pixels).
    """
    _require_pair(truth, image)
    a, b = (x.astype(np.float64).ravel() - x.mean(dtype=np.float64) for x in (truth, image))
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else float("nan")


def ssim(truth: np.ndarray, image: np.ndarray) -> float:
    """Return the structural similarity of two uint8 (H, W, 3) images in grey, -1 to 1.

    Higher is better. No fixed chance level; blur is rewarded. N = 1 pair at the images' own size.
    Gaussian weights of sigma 1.5, population covariance, data range 1 and one grey channel, the
    definition of the NSD papers with its ``multichannel`` slip removed. Source: Wang et al. 2004,
    IEEE TIP 13:600; Scotti et al. 2024, arXiv 2403.11207 (there at 425 pixels).
    """
    _require_pair(truth, image)
    if min(truth.shape[:2]) < 11:
        raise UserError(
            f"SSIM compares windows of 11 x 11 pixels, found images of {truth.shape[1]} x "
            f"{truth.shape[0]}; enlarge both with match_size."
        )
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            rgb2gray(truth),
            rgb2gray(image),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=None,
        )
    )


# ------------------------------------------------------------------------------- what is constant


def varies(mean: Any, sd: Any) -> Any:
    """Say of numbers with this mean and standard deviation whether they vary, element by element.

    The rule for all: a deviation up to a millionth of the mean is what float32 rounding makes of a
    constant, and whatever is divided by it is made up. Arrays or tensors of one shape.
    """
    return sd > ROUNDING * abs(mean)


# -------------------------------------------------------------------------------------- embeddings


def unit(rows: np.ndarray) -> np.ndarray:
    """Return float64 rows (..., D) scaled to length 1; a row of zeros stays zero."""
    rows = np.asarray(rows, dtype=np.float64)
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of two embeddings of equal shape (flattened), -1 to 1.

    Higher is better. Chance depends on the space (embeddings of unrelated images are rarely
    orthogonal). N = 1 pair. NaN when one of them is zero.
    """
    a, b = (np.asarray(x, dtype=np.float64).ravel() for x in (a, b))
    if a.shape != b.shape:
        raise UserError(f"A cosine compares embeddings of one size, found {a.size} and {b.size}.")
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm > 0 else float("nan")


def cosine_matrix(predictions: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Return float64 (n, N): the cosine of each prediction (n, ...) with each item (N, ...)."""
    a, b = (unit(np.reshape(x, (len(x), -1))) for x in (predictions, gallery))
    if a.shape[1] != b.shape[1]:
        raise UserError(
            f"Predictions have {a.shape[1]} values and gallery items {b.shape[1]}; both must be "
            "of one embedding space."
        )
    return a @ b.T


def correlation_matrix(predictions: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Return float64 (n, N): each prediction's Pearson correlation with each item of the gallery.

    Over the values of an embedding; a constant one correlates 0 with all, one with NaN gives NaN.
    """

    def centred(rows: np.ndarray) -> np.ndarray:
        rows = np.reshape(rows, (len(rows), -1)).astype(np.float64)
        mean, sd = rows.mean(axis=1, keepdims=True), rows.std(axis=1, keepdims=True)
        return np.where(varies(mean, sd) | np.isnan(sd), rows - mean, 0)

    return cosine_matrix(centred(predictions), centred(gallery))


def squared_error_matrix(predictions: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Return float64 (n, N): the mean over values of (prediction - item) squared; 0 is the best.

    Computed by products, so that it is exact to about 1e-15 of the squared length of a row.
    """
    a, b = (np.reshape(x, (len(x), -1)).astype(np.float64) for x in (predictions, gallery))
    if a.shape[1] != b.shape[1]:
        raise UserError(
            f"Predictions have {a.shape[1]} values and gallery items {b.shape[1]}; both must be "
            "of one embedding space."
        )
    lengths = [np.square(x).sum(axis=1) for x in (a, b)]
    apart = lengths[0][:, None] + lengths[1] - 2 * (a @ b.T)
    return np.maximum(apart, 0) / a.shape[1]


def retrieval_rank(similarity: np.ndarray, index: int | np.ndarray) -> float | np.ndarray:
    """Return the rank of the true item among N candidates: 1 is the best, N the worst.

    ``similarity`` (N,) with one ``index``, or (n, N) with (n,). Lower is better; chance is
    (N + 1) / 2. Ties share their ranks: a rank is 1 + candidates that are strictly more similar +
    half of those equally similar, so that a constant prediction sits at chance. Where a similarity
    is NaN, nobody knows what is better, and the rank is NaN.
    """
    rows = np.atleast_2d(np.asarray(similarity, dtype=np.float64))
    true = np.take_along_axis(rows, np.broadcast_to(index, len(rows)).reshape(-1, 1), axis=1)
    better = (rows > true).sum(axis=1)
    tied = (rows == true).sum(axis=1) - 1
    rank = np.where(np.isnan(rows).any(axis=1), np.nan, 1 + better + tied / 2)
    return float(rank[0]) if np.ndim(similarity) == 1 else rank


def top_k(similarity: np.ndarray, index: np.ndarray, k: int) -> float:
    """Return the share of trials whose true item is among the ``k`` most similar, 0 to 1.

    ``similarity`` (n, N), ``index`` (n,). Higher is better; chance is k / N. N is the gallery, n
    the trials. A tie counts by its middle rank (see `retrieval_rank`): a constant row is a miss
    unless k reaches (N + 1) / 2, and a row whose rank is NaN always.
    """
    return float(np.mean(retrieval_rank(np.atleast_2d(similarity), index) <= k))


def n_way_retrieval(similarity: np.ndarray, index: np.ndarray, n: int) -> np.ndarray:
    """Return (rows,): the chance that the true item is the first of ``n`` candidates, 0 to 1.

    ``similarity`` (rows, N), ``index`` (rows,). The other n - 1 candidates are drawn at random
    from the N - 1 others; where there are fewer, all are candidates. What is returned is the
    expectation over all draws, C(worse, n - 1) / C(N - 1, n - 1), not the result of some. Higher
    is better; chance is 1 / min(n, N). A tie is a miss, a row that holds NaN gives NaN. Source:
    the retrieval of Scotti et al. 2024, arXiv 2403.11207 (n = 300, there 30 draws; predictions
    find images, or images, by the transposed similarity, find predictions).
    """
    rows = np.atleast_2d(np.asarray(similarity, dtype=np.float64))
    true = np.take_along_axis(rows, np.reshape(index, (-1, 1)), axis=1)
    others = rows.shape[1] - 1
    drawn = min(n - 1, others)
    # as or more similar: one more of them lets fewer draws pass, by the factor below
    better = (rows >= true).sum(axis=1) - 1
    before = np.arange(others)
    passed = np.cumprod(np.maximum(others - drawn - before, 0) / (others - before))
    found = np.concatenate([[1.0], passed])[better]
    return np.where(np.isnan(rows).any(axis=1), np.nan, found)


def identification(similarity: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return (n,): the share of the other candidates that are less similar than the true item.

    ``similarity`` (n, N), ``index`` (n,). Strictly less; ties (within 1e-12, as equal items differ
    by rounding) count half. Higher is better; chance is 0.5 whatever N. A row that holds NaN, as
    that of a prediction which is not finite, gives NaN.
    """
    own = np.take_along_axis(similarity, np.reshape(index, (-1, 1)), axis=1)
    tied = np.abs(similarity - own) <= 1e-12
    wins = ((similarity < own) & ~tied).sum(axis=1) + (tied.sum(axis=1) - 1) / 2
    return np.where(np.isnan(similarity).any(axis=1), np.nan, wins / (similarity.shape[1] - 1))


def two_way_identification(
    predictions: np.ndarray, truth: np.ndarray, *, per_item: bool = False
) -> float | np.ndarray:
    """Return how often a prediction is closer to its own item than to another one, 0 to 1.

    For each i: the share of the other j != i with r(prediction_i, truth_j) < r(prediction_i,
    truth_i), strictly, ties counting half; r is the Pearson correlation over the values of an
    embedding. Higher is better; chance is 0.5, and N, the number of items, does not change it.
    The pairs are not independent: infer over items (``per_item=True`` returns (N,), for
    `bootstrap_interval`). Source: the definition of Scotti et al. 2024, arXiv 2403.11207, without
    its count of j = i and with ties.
    """
    if len(predictions) != len(truth) or len(truth) < 2:
        raise UserError(
            f"Two-way identification needs one prediction for each of at least 2 items, found "
            f"shapes {np.shape(predictions)} and {np.shape(truth)}."
        )
    scores = identification(correlation_matrix(predictions, truth), np.arange(len(truth)))
    return scores if per_item else float(scores.mean())


# ----------------------------------------------------------------------------- labels and rankings


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean over the true classes of the share labelled correctly, 0 to 1.

    Higher is better; chance is 1 / number of classes for any constant or random answer. N items;
    every class that occurs in ``truth`` counts the same. Source: Brodersen et al. 2010, ICPR.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape or truth.ndim != 1 or not len(truth):
        raise UserError(
            "Accuracy needs one predicted label for each true one, found shapes "
            f"{predicted.shape} and {truth.shape}."
        )
    return float(
        np.mean([(predicted[truth == label] == label).mean() for label in np.unique(truth)])
    )


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation of two vectors (N,), -1 to 1; ties share their mean rank.

    Higher is closer agreement; chance is 0. Pairs with a NaN are left out; NaN when fewer than
    three are left or one side is constant. Source: Spearman 1904.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    if a.shape != b.shape or a.ndim != 1:
        raise UserError(
            f"A rank correlation needs two vectors of one length, found {a.shape} and {b.shape}."
        )
    both = ~(np.isnan(a) | np.isnan(b))
    x, y = (ranks(v[both]) - (both.sum() + 1) / 2 for v in (a, b))
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if both.sum() > 2 and norm > 0 else float("nan")


def auc(scores: np.ndarray, positives: np.ndarray) -> float:
    """Return the chance that a positive outscores a negative, ties counting half, 0 to 1.

    ``scores`` (N,), ``positives`` bool (N,). Higher is better; chance is 0.5. Scores that are NaN
    are left out; NaN when no positive or no negative is left. Source: Hanley & McNeil 1982,
    Radiology 143:29 (the Mann-Whitney form of the area under the ROC curve).
    """
    scores, positives = np.asarray(scores, dtype=np.float64), np.asarray(positives, dtype=bool)
    if scores.shape != positives.shape or scores.ndim != 1:
        raise UserError(
            f"AUC needs one score for each label, found shapes {scores.shape} and "
            f"{positives.shape}."
        )
    known = ~np.isnan(scores)
    scores, positives = scores[known], positives[known]
    n, m = int(positives.sum()), int((~positives).sum())
    if not n or not m:
        return float("nan")
    return float((ranks(scores)[positives].sum() - n * (n + 1) / 2) / (n * m))


# ------------------------------------------------------------------------------------------- means


@dataclass(frozen=True)
class Mean:
    """A mean, how many values it is over, and how many were undefined.

    ``value``: NaN where none was defined. ``n``: the values it is over; undefined ones among them
    where they count as ``undefined_as``, else None: they are left out. ``why``: what makes a value
    undefined, in a few words.
    """

    value: float
    n: int
    undefined: int = 0
    why: str = ""
    undefined_as: float | None = None

    @property
    def of(self) -> int:
        """How many values were given, defined or not."""
        return self.n if self.undefined_as is not None else self.n + self.undefined

    @property
    def remark(self) -> str:
        """What must stand beside the mean, one sentence; "" where every value was defined."""
        if not self.undefined:
            return ""
        are, count = ("is", "counts") if self.undefined == 1 else ("are", "count")
        out = self.undefined_as is None
        done = f"{are} left out" if out else f"{count} as {self.undefined_as:g}"
        why = f" ({self.why})" if self.why else ""
        return f"{self.undefined} of {self.of} values {are} undefined{why} and {done}."


def counted(values: np.ndarray, undefined_as: float | None = None) -> np.ndarray:
    """Return float64 (n,), the values that a mean is over: without NaN, or with what it counts as.

    An infinite value is undefined too. For `bootstrap_interval` beside `mean_of`.
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    known = np.isfinite(values)
    return values[known] if undefined_as is None else np.where(known, values, undefined_as)


def mean_of(values: np.ndarray, why: str = "", undefined_as: float | None = None) -> Mean:
    """Return the mean of ``values`` (N,), of which some may be undefined: not finite.

    Leaving values out can raise a mean (the worst pictures are the ones without a score), so it is
    never done in silence: see `Mean.remark`. Give ``undefined_as`` where the published number
    counts such a value as a failure.
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    over = counted(values, undefined_as)
    undefined = int((~np.isfinite(values)).sum())
    value = float(over.mean()) if len(over) else float("nan")
    return Mean(value, len(over), undefined, why if undefined else "", undefined_as)


# ------------------------------------------------------------------------------------ uncertainty


def bootstrap_interval(
    scores: np.ndarray,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 2000,
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    of_means: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval (low, high) over stimuli.

    ``scores`` (N, ...): the first axis is what inference is over, one entry a *stimulus*: average
    repeats, subjects or pairs first, or keep them on the other axes. ``statistic`` maps resampled
    scores (N, ...) to a number; the mean by default. ``of_means``, which is faster, maps the means
    over stimuli of all resamples (resamples, ...) to one number each. The interval says how far
    other stimuli would move the score, not how far other subjects would. Source: Efron &
    Tibshirani 1993, chapter 13.
    """
    scores = np.asarray(scores)
    if not len(scores) or not 0 < level < 1:
        raise UserError(
            f"A bootstrap needs at least one stimulus and a level between 0 and 1, found "
            f"{len(scores)} stimuli and level {level}."
        )
    rng, n = np.random.default_rng(seed), len(scores)
    if statistic is None:
        means = scores[rng.integers(0, n, (resamples, n))].mean(axis=1)
        drawn = of_means(means) if of_means else means.reshape(resamples, -1).mean(axis=1)
    else:
        drawn = [statistic(scores[rng.integers(0, n, n)]) for _ in range(resamples)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return a permutation of ``range(n)`` that leaves nothing in place, all equally likely.

    Drawn by rejection: about e = 2.7 draws on average, whatever n.
    """
    if n < 2:
        raise UserError(f"A derangement needs at least 2 things to swap, found {n}.")
    while True:
        order = rng.permutation(n)
        if (order != np.arange(n)).all():
            return order


def noise_ceiling(ncsnr: np.ndarray, n: float) -> np.ndarray:
    """Return the share of variance, 0 to 100 %, that a perfect model could explain of each voxel.

    ``100 * ncsnr**2 / (ncsnr**2 + 1 / n)`` for responses averaged over ``n`` trials of a stimulus,
    with ``ncsnr`` (V,) the ratio of the standard deviations of signal and noise in one trial, from
    0. Higher is better; more trials raise it. Source: Allen et al. 2022, Nat Neurosci 25:116,
    Methods, "Noise ceiling estimation".
    """
    if n < 1:
        raise UserError(f"A noise ceiling is that of 1 trial or more, found {n}.")
    signal = np.square(np.asarray(ncsnr, dtype=np.float64))
    return 100 * signal / (signal + 1 / n)


def ranks(values: np.ndarray) -> np.ndarray:
    """Return 1-based ranks; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _require_image(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"An image is uint8 RGB (H, W, 3), found {image.dtype} {image.shape}.")


def _require_pair(truth: np.ndarray, image: np.ndarray) -> None:
    _require_image(truth)
    _require_image(image)
    if truth.shape != image.shape:
        raise UserError(
            f"Two images are compared at one size, found {truth.shape[1]} x {truth.shape[0]} and "
            f"{image.shape[1]} x {image.shape[0]}; use match_size."
        )


def evenly(n: int, limit: int | None) -> np.ndarray:
    """Return positions of at most ``limit`` of n things (None: all), evenly spaced."""
    count = n if limit is None else min(limit, n)
    return np.unique(np.linspace(0, n - 1, count).round().astype(int))


def written(value: float, digits: int = 2) -> str:
    """Return a number as a sentence shows it, with a true minus sign; 0 has none."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")
