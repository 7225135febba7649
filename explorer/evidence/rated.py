"""What ratings say: how often pictures are told apart, how alike they are, and who agrees."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from explorer.metrics import bootstrap_interval

if TYPE_CHECKING:
    import pandas as pd

CHANCE = 0.5  # of a choice between two
MEASURES = {"correct": "two-way choice", "rating": "rating, 1 to 5"}
LEVELS = {"correct": "nominal", "rating": "ordinal"}


def krippendorff_alpha(values: np.ndarray, level: str = "nominal") -> float:
    """Return Krippendorff's alpha of ratings (raters, units), NaN for no rating.

    1 is agreement, 0 what chance gives; NaN where no unit has two ratings, or nothing varies.
    ``level``: "nominal", "ordinal" or "interval". Source: Krippendorff 2011, "Computing
    Krippendorff's Alpha-Reliability", section D with missing data.
    """
    values = np.asarray(values, dtype=np.float64)
    known = np.unique(values[np.isfinite(values)])
    counts = np.array(
        [(values == value).sum(axis=0) for value in known], dtype=float
    )  # (k, units)
    per_unit = counts.sum(axis=0) if len(known) else np.zeros(values.shape[1])
    counts, per_unit = counts[:, per_unit > 1] if len(known) else counts, per_unit[per_unit > 1]
    if not len(per_unit):
        return float("nan")
    weights = counts / (per_unit - 1)
    seen = weights @ counts.T - np.diag(weights.sum(axis=1))  # coincidences
    of = seen.sum(axis=1)
    by_chance = (np.outer(of, of) - np.diag(of)) / (of.sum() - 1)
    apart = _apart(known, of, level)
    expected = (by_chance * apart).sum()
    return float(1 - (seen * apart).sum() / expected) if expected > 0 else float("nan")


def _apart(known: np.ndarray, of: np.ndarray, level: str) -> np.ndarray:
    """Return the squared difference between values (k, k)."""
    if level == "nominal":
        return 1 - np.eye(len(known))
    if level == "interval":
        return (known[:, None] - known) ** 2
    middle = np.cumsum(of) - of / 2  # ordinal: how many ratings lie between two ranks
    return (middle[:, None] - middle) ** 2


def of_methods(answers: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return a row for each method and question: mean over stimuli, 95 % interval, chance and N.

    Answers of several raters to one picture are averaged first: intervals are over stimuli.
    """
    import pandas as pd

    rows = []
    for measure, title in MEASURES.items():
        for method, own in answers.dropna(subset=[measure]).groupby("method", sort=True):
            means = own.groupby("stimulus")[measure].mean().to_numpy()
            low, high = bootstrap_interval(means, seed=seed)
            rows.append(
                {
                    "question": title,
                    "method": method,
                    "mean": float(means.mean()),
                    "low": low,
                    "high": high,
                    "chance": CHANCE if measure == "correct" else float("nan"),
                    "stimuli": len(means),
                    "raters": own["rater"].nunique(),
                    "answers": len(own),
                }
            )
    return pd.DataFrame(rows)


def of_pairs(answers: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return the difference b - a of every two methods over the stimuli that both have."""
    import pandas as pd

    columns = ["question", "a", "b", "difference", "low", "high", "stimuli"]
    rows = []
    for measure, title in MEASURES.items():
        known = answers.dropna(subset=[measure])
        means = known.groupby(["stimulus", "method"])[measure].mean().unstack()
        for a, b in combinations(sorted(means.columns), 2):
            difference = (means[b] - means[a]).dropna().to_numpy()
            if len(difference):
                low, high = bootstrap_interval(difference, seed=seed)
                rows.append([title, a, b, float(difference.mean()), low, high, len(difference)])
    return pd.DataFrame(rows, columns=columns)


def of_raters(answers: pd.DataFrame) -> pd.DataFrame:
    """Return a row a rater: how many answers, their means, and alpha with all others.

    The last row, "all", holds Krippendorff's alpha of all raters. NaN where one rater is alone.
    """
    import pandas as pd

    tables = {measure: _by_rater(answers, measure) for measure in MEASURES}
    rows = []
    for rater, own in answers.groupby("rater", sort=True):
        row = {"rater": rater, "choices": int(own["correct"].notna().sum())}
        row |= {"ratings": int(own["rating"].notna().sum())}
        for measure, name in (("correct", "share correct"), ("rating", "mean rating")):
            row[name] = float(own[measure].mean())
        for measure, table in tables.items():
            row[f"alpha, {MEASURES[measure]}"] = _with_others(table, str(rater), LEVELS[measure])
        rows.append(row)
    everybody = {"rater": "all", "choices": int(answers["correct"].notna().sum())}
    everybody |= {"ratings": int(answers["rating"].notna().sum())}
    everybody |= {"share correct": float(answers["correct"].mean())}
    everybody |= {"mean rating": float(answers["rating"].mean())}
    for measure, table in tables.items():
        value = krippendorff_alpha(table.to_numpy(float), LEVELS[measure])
        everybody[f"alpha, {MEASURES[measure]}"] = value
    return pd.DataFrame([*rows, everybody])


def _by_rater(answers: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return one rater a row and one picture a column."""
    return answers.pivot_table(
        measure, "rater", ["stimulus", "method"], aggfunc="first", dropna=False
    )


def _with_others(table: pd.DataFrame, rater: str, level: str) -> float:
    """Return the mean alpha of a rater with each other one."""
    others = [name for name in table.index if name != rater]
    pairs = [
        krippendorff_alpha(table.loc[[rater, name]].to_numpy(float), level) for name in others
    ]
    known = [alpha for alpha in pairs if np.isfinite(alpha)]
    return float(np.mean(known)) if known else float("nan")
