"""Output-dimension collapse: how many dimensions predictions fill, and what lies beyond clusters.

Shirakawa et al. 2025, arXiv 2405.10078: a decoder whose predictions lie in the span of the means
of training clusters names the cluster and says nothing more.
"""

from __future__ import annotations

import numpy as np

from explorer import metrics
from explorer.evidence.critique import CLUSTERS, SEED, Finding, each, flat, rate, with_n
from explorer.evidence.standing import effective_rank
from explorer.metrics import written
from explorer.splits import clusters

LITTLE = 0.25  # of the targets' own variance beyond cluster means: less counts as collapsed


def participation_ratio(rows: np.ndarray) -> float:
    """Return how many directions carry the variance of rows (n, d): (sum l)^2 / sum l^2.

    ``l`` are the eigenvalues of the covariance; 1 for a line, d for an even ball. Source: Gao et
    al. 2017, bioRxiv 214262. NaN where nothing varies.
    """
    centred = flat(rows) - flat(rows).mean(axis=0)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2
    total = variances.sum()
    return float(total**2 / (variances**2).sum()) if total > 0 else float("nan")


def within_span(rows: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the energy (n, 2) of rows (n, d), centred: in all, and inside a basis (d, k)."""
    centred = flat(rows) - flat(rows).mean(axis=0)
    return np.stack([(centred**2).sum(axis=1), ((centred @ basis) ** 2).sum(axis=1)], axis=1)


def span_of_clusters(training: np.ndarray, k: int = CLUSTERS) -> np.ndarray:
    """Return an orthonormal basis (d, k - 1 at most) of the means of k clusters of rows (m, d)."""
    rows = flat(training)
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
    found = rate(each(predicted, targets))
    n, kept = len(predicted), f"{written(100 * low, 0)} to {written(100 * high, 0)} %"
    said = (
        f"{100 * shares['predictions']:.0f} % of the predictions' variance lies in the span of "
        f"{basis.shape[1] + 1} training-cluster means (of the targets' "
        f"{100 * shares['targets']:.0f} %): beyond it they keep {kept} of what the targets have"
    )
    verdict = "so they say little more than the cluster"
    if not found.above:
        verdict = f"but with {found} in two-way identification nothing shows that it is no noise"
    elif low >= LITTLE:
        verdict = "so they are more than cluster means"
    elif high >= LITTLE:
        verdict = "which does not settle whether they are more than cluster means"
    return Finding(
        "output-dimension collapse",
        "Participation ratio and effective rank of predictions and targets; share of their "
        f"variance inside the span of the means of {k} k-means clusters of training targets.",
        table,
        with_n(f"{said}, {verdict}.", n),
    )
