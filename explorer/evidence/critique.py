"""Is it decoding, or naming the category? Tests of predictions against targets, as arrays alone.

Good pictures and high two-way rates can come from a decoder that knows which kind of image was
seen and nothing more (Shirakawa et al. 2025, arXiv 2405.10078). Every test here takes predictions
(n, d), the true embeddings (n, d) of the same test images, and what was trained on, and ends in
one sentence that says no more than its interval; below `LEAST` images it says that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer import metrics
from explorer.metrics import written
from explorer.splits import nearest

if TYPE_CHECKING:
    import pandas as pd

LEAST = 20  # test images from which a rate is told: an interval of 20 is some 0.2 wide
CLUSTERS = 20  # of k-means of training targets: our choice, as many as the embedded categories
TOP = (1, 5)
SEED = 0
Pair = tuple[np.ndarray, np.ndarray]  # predictions and targets (n, ...) of the same images


@dataclass(frozen=True, eq=False)
class Finding:
    """One test: its table, a row a number, and what it says in one sentence.

    ``curve``: the columns of the table that are the abscissa and the line of a curve; () for bars.
    ``unit``: of the values, "%" for rates from 0 to 1, a word otherwise.
    """

    name: str
    definition: str
    table: pd.DataFrame
    sentence: str
    curve: tuple[str, ...] = ()
    unit: str = "%"


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
    similar = metrics.correlation_matrix(flat(predicted), flat(targets))
    own = np.diag(similar)[:, None]
    won = np.where(similar < own, 1.0, np.where(similar == own, 0.5, 0.0))
    np.fill_diagonal(won, np.nan)
    return won


def two_way(won: np.ndarray) -> np.ndarray:
    """Return two-way identification (n,) of comparisons (n, n), NaN where there is none."""
    known = (~np.isnan(won)).sum(axis=1)
    return np.where(known > 0, np.nansum(won, axis=1) / np.maximum(known, 1), np.nan)


def top_one(won: np.ndarray) -> np.ndarray:
    """Return 1 for each image (n,) that won all its comparisons (n, n), ties not counted, or 0."""
    return (np.nanmin(won, axis=1) == 1).astype(float)


def by_other_brains(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return two-way identification (n,) of every image by the predictions of the others.

    The chance level of some images among all: a target that is unlike most is beaten more often.
    """
    from scipy.stats import rankdata

    similar = metrics.correlation_matrix(flat(predicted), flat(targets))
    ranks = rankdata(np.nan_to_num(similar, nan=-2.0), axis=1)  # ties share the middle
    shares = (ranks - 1) / max(len(similar) - 1, 1)
    np.fill_diagonal(shares, np.nan)
    return np.nanmean(shares, axis=0)


# ------------------------------------------------------------------------------------- the tests


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
    table = pd.DataFrame([row(f"among {name} {of}", found) for name, found in rates.items()])
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
    found = each(predicted, targets)
    quarter = np.clip(np.searchsorted(np.quantile(near, [0.25, 0.5, 0.75]), near, "right"), 0, 3)
    names = ("farthest", "second", "third", "nearest")
    blind = by_other_brains(predicted, targets)
    chances = [blind[quarter == i].mean() if (quarter == i).any() else 0.5 for i in range(4)]
    rates = [rate(found[quarter == i], float(chance)) for i, chance in enumerate(chances)]
    table = pd.DataFrame([row(f"{n} quarter", r) for n, r in zip(names, rates, strict=True)])
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
        "two-way identification in quarters of it, among all test images. Chance is the rate of "
        "the other images' predictions: it is below 50 % for images that are unlike the rest.",
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

    rows, known = flat(training), np.asarray(trained, dtype=str)
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
    won = each(alone, flat(targets)[has])
    own = each(flat(predicted)[has], flat(targets)[has])
    low, high = metrics.bootstrap_interval(own - won, seed=SEED)
    one, other = rate(won), rate(own)
    verdict = "which does not differ beyond the interval"
    if low > 0:
        verdict = "so the decoder knows more than the class"
    elif high < 0:
        verdict = "so knowing the class alone would do better"
    table = pd.DataFrame([row("category only", one), row("this decoder", other)])
    said = (
        f"A decoder of the class alone reaches {one}, this one {other} (difference "
        f"{written(100 * (own - won).mean(), 1)} points, {written(100 * low, 1)} to "
        f"{written(100 * high, 1)}), {verdict}."
    )
    return Finding("category-only decoder", definition, table, with_n(said, int(has.sum())))


def generalisation(
    predicted: np.ndarray,
    targets: np.ndarray,
    sets: Mapping[str, np.ndarray],
    further: Mapping[str, Pair] | None = None,
    base: str = "",
) -> Finding:
    """Return identification on several sets of test images, at one size of the pool.

    ``sets``: name -> bool (n,), the first of them what the others are compared with. ``further``:
    name -> predictions and targets of other images, or from other repeats, compared with that of
    them called ``base``, if any. Two-way does not depend on the pool's size; top-k is the
    probability over random pools of the size of the smallest set that is told of (hypergeometric),
    so that sets of different sizes compare.
    """
    import pandas as pd
    from scipy.stats import hypergeom

    every = {name: (flat(predicted)[m], flat(targets)[m]) for name, m in sets.items()}
    every |= {name: (flat(p), flat(t)) for name, (p, t) in (further or {}).items()}
    every = {name: pair for name, pair in every.items() if len(pair[0]) > 1}
    sizes = [len(p) for p, _ in every.values()]
    pool = min([n for n in sizes if n >= LEAST] or sizes, default=0)
    rows, rates = [], {}
    for name, pair in every.items():
        won, n = pairwise(*pair), len(pair[0])
        better = np.nansum(won < 0.5, axis=1) + 0.5 * np.nansum(won == 0.5, axis=1)
        rates[name] = rate(two_way(won))
        rows.append(row(f"{name}: two-way", rates[name]) | {"pool": 2})
        for k in (k for k in TOP if k < pool <= n):
            hit = hypergeom.cdf(k - 1, n - 1, np.rint(better), pool - 1)
            rows.append(row(f"{name}: top-{k}", rate(hit, k / pool)) | {"pool": pool})
    return Finding(
        "generalisation",
        f"Two-way identification (chance 50 %), and top-1 and top-5 in pools of {pool} images of "
        "the same set, with intervals over test images.",
        pd.DataFrame(rows),
        _compared(rates, list(further or ()), base) if rates else "No set has two test images.",
    )


def _compared(rates: Mapping[str, Rate], further: Sequence[str], base: str) -> str:
    """Return the rates of sets, and which of them differ from what they compare with."""
    first, lost, lower, known = next(iter(rates)), [], {}, 0
    for name, found in rates.items():
        other = base if base in rates and name in further else first
        if name in (first, base) or min(found.n, rates[other].n) < LEAST:
            continue
        known += 1
        if not found.above:
            lost.append(name)
        elif found.high < rates[other].low:
            lower.setdefault(other, []).append(name)
    said = "; ".join(f"{name} {r}{_few(r.n)}" for name, r in rates.items())
    if lost:
        said += f"; on {' and '.join(lost)} nothing shows beyond chance"
    for other, names in lower.items():
        said += f"; on {' and '.join(names)} it is lower than on {other}"
    if known and not lost and not lower and (not further or base in rates):
        said += "; no set shows less than the first"
    return f"Two-way identification: {said}."


def _few(n: int) -> str:
    return "" if n >= LEAST else f" (only {n} images)"


# ----------------------------------------------------------------------------------------- helpers


def each(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return two-way identification of every image (n,)."""
    return two_way(pairwise(predicted, targets))


def flat(rows: np.ndarray) -> np.ndarray:
    """Return rows (n, ...) as float64 (n, d)."""
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)


def row(of: str, found: Rate) -> dict[str, object]:
    """Return a row of a finding's table."""
    return {
        "of": of,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "chance": found.chance,
        "N": found.n,
    }


def with_n(sentence: str, n: int) -> str:
    """Return a sentence, with a warning where it rests on too few test images."""
    return sentence if n >= LEAST else f"{sentence} With {n} test images that is no evidence yet."
