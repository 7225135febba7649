"""Is it decoding, or naming the category? Tests of predictions against targets, as arrays alone.

Good pictures and high two-way rates can come from a decoder that knows which kind of image was
seen and nothing more (Shirakawa et al. 2025, arXiv 2405.10078). Every test here takes predictions
(n, d), the true embeddings (n, d) of the same test images, and what was trained on, and ends in
one sentence that says no more than its interval; below `LEAST` images it says that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer import metrics
from explorer.evidence.standing import effective_rank
from explorer.metrics import written
from explorer.splits import clusters, nearest

if TYPE_CHECKING:
    import pandas as pd

LEAST = 20  # test images from which a rate is told: an interval of 20 is some 0.2 wide
CLUSTERS = 20  # of k-means of training targets: our choice, as many as the embedded categories
LITTLE = 0.25  # of the targets' own variance beyond cluster means: less counts as collapsed
NEARLY = 0.95  # of the rate above chance: our choice
TOP = (1, 5)
SEED = 0


@dataclass(frozen=True, eq=False)
class Finding:
    """One test: its table, a row a number, and what it says in one sentence."""

    name: str
    definition: str
    table: pd.DataFrame
    sentence: str


@dataclass(frozen=True)
class Rate:
    """A mean over test images with its 95 % interval over them; ``n`` images had a value."""

    value: float
    low: float
    high: float
    n: int
    chance: float = 0.5

    @property
    def above(self) -> bool:
        """Whether the interval lies above chance."""
        return self.n >= LEAST and self.low > self.chance

    def __str__(self) -> str:
        """Return it for a sentence."""
        if not self.n:
            return "undefined"
        return f"{100 * self.value:.0f} % ({100 * self.low:.0f} to {100 * self.high:.0f})"


def rate(values: np.ndarray, chance: float = 0.5) -> Rate:
    """Return the mean of per-image values (n,) and its interval; NaN is left out and not in n."""
    known = metrics.counted(values)
    if not len(known):
        return Rate(float("nan"), float("nan"), float("nan"), 0, chance)
    low, high = metrics.bootstrap_interval(known, seed=SEED)
    return Rate(float(known.mean()), low, high, len(known), chance)


def pairwise(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (n, n): 1 where prediction i is closer to its own target than to target j, ties 0.5.

    By correlation, as in two-way identification; the diagonal is NaN.
    """
    similar = metrics.correlation_matrix(_flat(predicted), _flat(targets))
    own = np.diag(similar)[:, None]
    won = np.where(similar < own, 1.0, np.where(similar == own, 0.5, 0.0))
    np.fill_diagonal(won, np.nan)
    return won


# ------------------------------------------------------------------------------------- the tests


def participation_ratio(rows: np.ndarray) -> float:
    """Return how many directions carry the variance of rows (n, d): (sum l)^2 / sum l^2.

    ``l`` are the eigenvalues of the covariance; 1 for a line, d for an even ball. Source: Gao et
    al. 2017, bioRxiv 214262. NaN where nothing varies.
    """
    centred = _flat(rows) - _flat(rows).mean(axis=0)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2
    total = variances.sum()
    return float(total**2 / (variances**2).sum()) if total > 0 else float("nan")


def within_span(rows: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the energy (n, 2) of rows (n, d), centred: in all, and inside a basis (d, k)."""
    centred = _flat(rows) - _flat(rows).mean(axis=0)
    return np.stack([(centred**2).sum(axis=1), ((centred @ basis) ** 2).sum(axis=1)], axis=1)


def span_of_clusters(training: np.ndarray, k: int = CLUSTERS) -> np.ndarray:
    """Return an orthonormal basis (d, k - 1 at most) of the means of k clusters of rows (m, d)."""
    rows = _flat(training)
    k = min(k, len(rows))
    number = clusters(rows, k)
    means = np.stack([rows[number == c].mean(axis=0) for c in range(k)])
    _, values, directions = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    return directions[values > 1e-6 * values.max(initial=1e-12)].T


def collapse(
    predicted: np.ndarray, targets: np.ndarray, training: np.ndarray, k: int = CLUSTERS
) -> Finding:
    """Return how many dimensions predictions fill, and how much they say beyond cluster means."""
    import pandas as pd

    basis = span_of_clusters(training, k)
    energy = {"predictions": within_span(predicted, basis), "targets": within_span(targets, basis)}
    shares = {name: float(e[:, 1].sum() / max(e[:, 0].sum(), 1e-12)) for name, e in energy.items()}
    both = np.stack([energy["predictions"], energy["targets"]], axis=1)  # (n, 2, 2)

    def beyond(rows: np.ndarray) -> float:
        totals = rows.sum(axis=0)
        own = 1 - totals[:, 1] / np.maximum(totals[:, 0], 1e-12)
        return float(own[0] / max(own[1], 1e-12))

    low, high = metrics.bootstrap_interval(both, seed=SEED, statistic=beyond, resamples=500)
    table = pd.DataFrame(
        {
            "of": list(energy),
            "participation ratio": [participation_ratio(predicted), participation_ratio(targets)],
            "effective rank": [effective_rank(predicted), effective_rank(targets)],
            "share in the span of cluster means": list(shares.values()),
        }
    )
    n, kept = len(predicted), f"{100 * low:.0f} to {100 * high:.0f} %"
    said = (
        f"{100 * shares['predictions']:.0f} % of the predictions' variance lies in the span of "
        f"{basis.shape[1] + 1} training-cluster means (of the targets' "
        f"{100 * shares['targets']:.0f} %): beyond it they keep {kept} of what the targets have"
    )
    verdict = "so they say little more than the cluster"
    if low >= LITTLE:
        verdict = "so they are more than cluster means"
    elif high >= LITTLE:
        verdict = "which does not settle whether they are more than cluster means"
    return Finding(
        "output-dimension collapse",
        "Participation ratio and effective rank of predictions and targets; share of their "
        f"variance inside the span of the means of {k} k-means clusters of training targets.",
        table,
        _with_n(f"{said}, {verdict}.", n),
    )


def cluster_identification(
    predicted: np.ndarray, targets: np.ndarray, labels: Sequence[object], of: str = "clusters"
) -> Finding:
    """Return two-way rates among images of other clusters and among those of the same."""
    import pandas as pd

    labels = np.asarray([str(label) for label in labels])
    won, same = pairwise(predicted, targets), labels[:, None] == labels[None]
    rates = {}
    for name, chosen in (("other", ~same), ("same", same & ~np.eye(len(labels), dtype=bool))):
        count = chosen.sum(axis=1)
        sums = np.where(chosen, np.nan_to_num(won), 0).sum(axis=1)
        rates[name] = rate(np.where(count > 0, sums / np.maximum(count, 1), np.nan))
    other, own = rates["other"], rates["same"]
    if own.n < LEAST:
        verdict = (
            f"only {own.n} test images have another of their own among them, too few to say "
            "whether the decoder tells them apart"
        )
    elif own.above:
        verdict = "so the decoder tells images apart also within them"
    elif own.high < 0.5:
        verdict = "within them it does worse than guessing"
    else:
        verdict = "so nothing shows that it tells images apart within them"
    table = pd.DataFrame([_row(f"among {name} {of}", found) for name, found in rates.items()])
    return Finding(
        f"identification within {of}",
        "Two-way identification (chance 50 %) with the other image from another one, and from the "
        f"same, of the {of}; interval over test images.",
        table,
        f"Among images of other {of} the shown one is found in {other} of cases, among those of "
        f"the same in {own}: {verdict}.",
    )


def similarity_to_training(
    predicted: np.ndarray, targets: np.ndarray, training: np.ndarray, threshold: float
) -> Finding:
    """Return identification by how near a test image's nearest training image is, in quarters."""
    import pandas as pd

    near = nearest(targets, training)
    each = np.nanmean(pairwise(predicted, targets), axis=1)
    quarter = np.clip(np.searchsorted(np.quantile(near, [0.25, 0.5, 0.75]), near, "right"), 0, 3)
    names = ("farthest", "second", "third", "nearest")
    rates = [rate(each[quarter == i]) for i in range(4)]
    table = pd.DataFrame([_row(f"{n} quarter", r) for n, r in zip(names, rates, strict=True)])
    over = int((near >= threshold).sum())
    far, close = rates[0], rates[3]
    verdict = f"images far from all training images are found in {far}, the nearest in {close}"
    if far.n < LEAST:
        verdict += ", too few to compare"
    elif far.high < close.low:
        verdict += ", so part of the rate comes from training images that are alike"
    else:
        verdict += ", so no difference shows"
    return Finding(
        "train-test similarity",
        "Cosine similarity of each test image's nearest training image, in the target's space; "
        "two-way identification in quarters of it.",
        table,
        f"{over} of {len(near)} test images lie above the leak threshold of {threshold:.3f}; "
        f"{verdict}.",
    )


def category_only(
    predicted: np.ndarray,
    targets: np.ndarray,
    categories: Sequence[str],
    training: np.ndarray,
    trained: Sequence[str],
) -> Finding:
    """Return the score of a decoder that knows the class name alone, beside this decoder's."""
    import pandas as pd

    rows, known = _flat(training), np.asarray(trained, dtype=str)
    means = {c: rows[known == c].mean(axis=0) for c in set(known) if c}
    has = np.array([c in means for c in categories], dtype=bool)
    definition = (
        "Two-way identification of the mean training embedding of the shown image's own class, a "
        "decoder that is right about the class and knows nothing else."
    )
    if has.sum() < 2:
        empty = pd.DataFrame(columns=["of", "value", "low", "high", "chance", "N"])
        told = "No class of a test image was trained, or there are no classes: nothing to compare."
        return Finding("category-only decoder", definition, empty, told)
    alone = np.stack([means[c] for c, there in zip(categories, has, strict=True) if there])
    won = np.nanmean(pairwise(alone, _flat(targets)[has]), axis=1)
    own = np.nanmean(pairwise(_flat(predicted)[has], _flat(targets)[has]), axis=1)
    low, high = metrics.bootstrap_interval(own - won, seed=SEED)
    one, other = rate(won), rate(own)
    verdict = "which does not differ beyond the interval"
    if low > 0:
        verdict = "so the decoder knows more than the class"
    elif high < 0:
        verdict = "so knowing the class alone would do better"
    table = pd.DataFrame([_row("category only", one), _row("this decoder", other)])
    said = (
        f"A decoder of the class alone reaches {one}, this one {other} (difference "
        f"{written(100 * (own - won).mean(), 1)} points, {written(100 * low, 1)} to "
        f"{written(100 * high, 1)}), {verdict}."
    )
    return Finding("category-only decoder", definition, table, _with_n(said, int(has.sum())))


def generalisation(
    predicted: np.ndarray, targets: np.ndarray, sets: Mapping[str, np.ndarray]
) -> Finding:
    """Return identification on several sets of test images, at one size of the pool.

    ``sets``: name -> bool (n,). Two-way does not depend on the pool's size; top-k is the
    probability over random pools of the smallest set's size (hypergeometric), so that sets of
    different sizes compare.
    """
    import pandas as pd
    from scipy.stats import hypergeom

    pool = min((int(chosen.sum()) for chosen in sets.values() if chosen.sum() > 1), default=0)
    rows, told = [], []
    for name, chosen in sets.items():
        n = int(chosen.sum())
        if n < 2:
            continue
        won = pairwise(_flat(predicted)[chosen], _flat(targets)[chosen])
        better = np.nansum(won < 0.5, axis=1) + 0.5 * np.nansum(won == 0.5, axis=1)
        found = rate(np.nanmean(won, axis=1))
        rows.append(_row(f"{name}: two-way", found) | {"pool": 2})
        for k in (k for k in TOP if k < pool):
            hit = hypergeom.cdf(k - 1, n - 1, np.rint(better), pool - 1)
            rows.append(_row(f"{name}: top-{k}", rate(hit, k / pool)) | {"pool": pool})
        told.append(f"{name} {found}" + ("" if n >= LEAST else f" (only {n} images)"))
    return Finding(
        "generalisation",
        f"Two-way identification (chance 50 %), and top-1 and top-5 in pools of {pool} images of "
        "the same set, with intervals over test images.",
        pd.DataFrame(rows),
        f"Two-way identification: {'; '.join(told)}." if told else "No set has two test images.",
    )


def bottleneck(
    decode: Callable[[np.ndarray], np.ndarray],
    betas: np.ndarray,
    training: np.ndarray,
    targets: np.ndarray,
    sizes: Sequence[int] = (1, 2, 5, 10, 20, 50, 100),
) -> Finding:
    """Return identification against the number of brain dimensions that are kept.

    Parameters
    ----------
    decode
        Betas (n, V) to predictions (n, d).
    betas, targets
        Of the test images.
    training
        Training betas (m, V): their principal components are kept, or as many random directions.
    sizes
        How many dimensions; those that the training betas do not have are left out.
    """
    import pandas as pd

    mean = training.mean(axis=0)
    _, values, directions = np.linalg.svd(training - mean, full_matrices=False)
    most = int((values > 1e-6 * values.max(initial=1e-12)).sum())
    rng, full = np.random.default_rng(SEED), rate(_each(decode(betas), targets))
    rows, enough = [], None
    for k in [k for k in sizes if k <= most]:
        kept = directions[:k].T
        random = np.linalg.qr(rng.standard_normal((betas.shape[1], k)))[0]
        found = {
            name: rate(_each(decode((betas - mean) @ basis @ basis.T + mean), targets))
            for name, basis in (("components", kept), ("random", random))
        }
        rows += [_row(f"{k} {name}", r) | {"k": k} for name, r in found.items()]
        above = (found["components"].value - 0.5) / max(full.value - 0.5, 1e-12)
        if enough is None and above >= NEARLY:
            enough = k
    rows.append(_row("all dimensions", full) | {"k": betas.shape[1]})
    said = "no number of dimensions that was tried comes near it"
    if enough is not None:
        said = (
            f"{enough} of {betas.shape[1]:,} brain dimensions give {100 * NEARLY:.0f} % of what "
            "all give above chance"
        )
    return Finding(
        "bottleneck",
        "Two-way identification with the betas projected on the first k principal components of "
        "the training betas, and on k random directions (Mayo et al. 2024, BrainBits).",
        pd.DataFrame(rows),
        _with_n(f"With all dimensions the shown image is found in {full}; {said}.", len(betas)),
    )


# ----------------------------------------------------------------------------------------- helpers


def _each(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.nanmean(pairwise(predicted, targets), axis=1)


def _flat(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)


def _row(of: str, found: Rate) -> dict[str, object]:
    return {
        "of": of,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "chance": found.chance,
        "N": found.n,
    }


def _with_n(sentence: str, n: int) -> str:
    return sentence if n >= LEAST else f"{sentence} With {n} test images that is no evidence yet."
