"""The data curve: what a decoder gains from more training trials, and no word beyond them.

Banville et al. 2025 (arXiv 2501.15322) found scores to grow with the logarithm of the data. A line
is fitted to that, with its interval over test images; where it does not describe the points, its
largest error says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from explorer import metrics, stopping
from explorer.evidence.critique import SEED, Finding, pairwise, rate, row, top_one, two_way, with_n
from explorer.metrics import written
from explorer.splits import Picked
from explorer.types import EmbeddingSpace, Trials

SHARES = tuple(2.0**-k for k in range(5, -1, -1))  # of the training stimuli, 1/32 to all
FEWEST = 20  # training stimuli of a point
TWO_WAY, TOP = "two-way", "top-1"
DEFINITION = (
    "Two-way identification (chance 50 %) and top-1 among all test images of {who}, against "
    "the number of training trials: nested random shares of the training images. The line is "
    "fitted to the logarithm of that number, its interval over test images; other draws of "
    "training images and other people are not in it."
)


@dataclass(frozen=True, eq=False)
class Point:
    """What was decoded (n, ...) of the test images by a decoder of so many training trials."""

    trials: int
    predicted: np.ndarray


def data_curve(points: Sequence[Point], targets: np.ndarray, who: str) -> Finding:
    """Return both scores at each point, and the log-linear fit where there are three or more.

    ``targets`` (n, ...) of the test images; ``who`` was fitted, in a few words.
    """
    import pandas as pd

    points = sorted(points, key=lambda point: point.trials)
    won = [pairwise(point.predicted, targets) for point in points]
    each = {
        TWO_WAY: np.stack([two_way(one) for one in won], axis=1),  # (n, points)
        TOP: np.stack([top_one(one) for one in won], axis=1),
    }
    chance = {TWO_WAY: 0.5, TOP: 1 / len(targets)}
    counts = np.array([point.trials for point in points])
    rows, told = [], []
    for name, values in each.items():
        for count, column in zip(counts, values.T, strict=True):
            one = rate(column, chance[name])
            rows.append(row(f"{count:,} trials: {name}", one) | {"trials": count, "line": name})
        if len(points) >= 3:
            fitted, gain = _fit(counts, values)
            told.append(f"{name} by {_points(gain)} points" + _misfit(fitted, values))
            line = f"fit, {name}"
            rows += [
                {"of": f"{count:,} trials: {line}", "value": at[0], "low": at[1], "high": at[2]}
                | {"chance": chance[name], "N": len(targets), "trials": count, "line": line}
                for count, at in zip(counts, fitted, strict=True)
            ]
    sentence = f"{who[:1].upper()}{who[1:]}: too few numbers of trials for a line."
    if told:
        sentence = (
            f"From {counts[0]:,} to {counts[-1]:,} training trials, each doubling changes, on "
            f"average, {' and '.join(told)}. Nothing is said about more than {counts[-1]:,}."
        )
    return Finding(
        "data curve",
        DEFINITION.format(who=who),
        pd.DataFrame(rows),
        with_n(sentence, len(targets)),
        curve=("trials", "line"),
    )


def _misfit(fitted: np.ndarray, values: np.ndarray) -> str:
    """Return what must be said where a line (points, 3) misses the scores (n, points), or "".

    A point is missed where its own interval over images does not hold the line.
    """
    spans = np.transpose([metrics.bootstrap_interval(c, seed=SEED) for c in values.T])
    if ((spans[0] - 1e-9 <= fitted[:, 0]) & (fitted[:, 0] <= spans[1] + 1e-9)).all():
        return ""
    off = 100 * np.abs(fitted[:, 0] - values.mean(axis=0)).max()
    last = values[:, -1] - values[:, -2]
    gain = float(last.mean()), *metrics.bootstrap_interval(last, seed=SEED)
    return (
        f" (no straight line: it misses a point by {written(off, 1)}, and the last step changes "
        f"{_points(gain)})"
    )


def _points(gain: tuple[float, float, float]) -> str:
    value, low, high = (100 * x for x in gain)
    return f"{written(value, 1)} ({written(low, 1)} to {written(high, 1)})"


def _fit(counts: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Return the line at each count (points, 3: value, low, high), and what a doubling gains.

    Least squares of the mean over images (n, points) on log2 of the counts, which is linear in
    the scores: of each image's own line, means are taken.
    """
    x = np.log2(counts)
    design = np.stack([np.ones_like(x), x], axis=1)
    lines = values @ np.linalg.pinv(design).T  # (n, 2), intercept and slope of each image
    at = lines @ design.T  # (n, points)
    low, high = np.transpose([metrics.bootstrap_interval(c, seed=SEED) for c in at.T])
    slope = lines[:, 1]
    gain = float(slope.mean()), *metrics.bootstrap_interval(slope, seed=SEED)
    return np.stack([at.mean(axis=0), low, high], axis=1), gain


# ------------------------------------------------------------------------------------- refitting


def shares_of(trials: Trials, stimuli: Sequence[str], most: int) -> list[tuple[int, list[str]]]:
    """Return (training trials, training stimuli) of each share that can be fitted, small first.

    Of ``stimuli``, nested, drawn by a seed; a share of fewer than 20 stimuli, or whose trials
    times voxels are more than ``most``, is left out.
    """
    order = np.random.default_rng(SEED).permutation(np.asarray(stimuli, dtype=object))
    shown = trials.table["stimulus"].iloc[trials.rows("train")].value_counts()
    found = []
    for share in SHARES:
        some = order[: round(share * len(order))].tolist()
        count = int(shown.reindex(some).fillna(0).sum())
        if len(some) >= FEWEST and count * trials.subject.voxels.n_voxels <= most:
            found.append((count, some))
    return found


def refitted(
    cls: type,
    trials: Trials,
    stimuli: Sequence[str],
    known: Mapping[str, np.ndarray],
    space: EmbeddingSpace,
    betas: np.ndarray,
) -> np.ndarray:
    """Return what a mapper of a class decodes (n, ...) of betas (n, V), trained on some stimuli.

    ``known``: stimulus -> embedding in ``space``. Work that is no longer wanted ends at the next
    fold.
    """
    rows = trials.rows("train")
    chosen = trials.table["stimulus"].iloc[rows].isin(set(stimuli)).to_numpy()
    rows = np.sort(np.concatenate([rows[chosen], trials.rows("test")]))
    table = trials.table.iloc[rows].reset_index(drop=True)
    part = replace(trials, betas=Picked(trials.betas, rows), table=table)
    goals = {space: {stimulus: known[stimulus] for stimulus in stimuli}}
    stopping.look()
    mapper = cls.fit([part], goals, seed=SEED, progress=lambda sentence: stopping.look())
    return mapper.decode(betas, trials.subject.name)[space]
