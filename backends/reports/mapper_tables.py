"""A comparison of mappers as Markdown, as a figure, and as the files that the page reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.reports.closeness import SCORES
from backends.reports.mappers import AVERAGED, CEILING, MEAN_OF, SHUFFLED, SINGLE, Comparison
from backends.reports.tables import render, write_files
from explorer.evidence import evaluation
from explorer.writing import csv_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE = "mappers"


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``mappers.csv``, ``.md``, ``.png``, ``.svg``, as `explorer.evidence.evaluation` reads.

    Each file whole or not at all. Scores of single trials are rounded to four digits.
    """
    from matplotlib import rc_context

    drawn = figure(comparison)
    trials = comparison.trials.round(4)
    numbers = dict.fromkeys(trials.select_dtypes("number"), np.float32)
    makers: dict[str, Callable[[Path], Any]] = {
        evaluation.TABLE: lambda path: path.write_text(
            csv_text(comparison.table, float_format="%.6g"), encoding="utf-8"
        ),
        evaluation.TRIALS: lambda path: trials.astype(numbers).to_parquet(
            path, index=False, compression="zstd"
        ),
        evaluation.MEANING: lambda path: path.write_text(meaning(comparison), encoding="utf-8"),
        f"{FILE}.md": lambda path: path.write_text(markdown(comparison), encoding="utf-8"),
        f"{FILE}.png": lambda path: drawn.savefig(path, format="png", dpi=200),
        f"{FILE}.svg": lambda path: drawn.savefig(path, format="svg", metadata={"Date": None}),
    }
    with rc_context({"svg.hashsalt": FILE}):  # the same figure is the same file
        return write_files(folder, makers)


def meaning(comparison: Comparison) -> str:
    """Return what `explorer.evidence.evaluation` must know to show the tables, as JSON."""
    scores = {
        name: {
            "title": score.title,
            "sentence": score.sentence,
            "better": score.better,
            "by_trial": score.value is None,
        }
        for name, score in SCORES.items()
    }
    values = {
        "afterimage": evaluation.FORMAT,
        "dataset": str(comparison.table["dataset"].iloc[0]),
        "scores": scores,
        "betas": dict(zip(evaluation.ROLES, (AVERAGED, SINGLE, SHUFFLED, CEILING), strict=True)),
        "weights": comparison.weights,
        "notes": list(comparison.notes),
    }
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def markdown(comparison: Comparison) -> str:
    """Return the table as Markdown: means over subjects, each subject, definitions, notes."""
    import pandas as pd

    tables = {}
    for target, rows in comparison.table.groupby("target", sort=False):
        means = rows["subject"].str.startswith(MEAN_OF)
        if means.any():
            tables[f"{target}, mean over subjects"] = _wide(rows[means])
        alone = rows[~means & rows["betas"].isin([AVERAGED, SINGLE])]
        tables[f"{target}, each subject"] = _wide(alone)
    tables["Definitions"] = pd.DataFrame(
        [
            {"score": score.title, "better": score.better, "definition": score.sentence}
            for score in SCORES.values()
        ]
    )
    text = render(tables)
    for note in comparison.notes:
        text += f"\n- {note}"
    return text.rstrip("\n") + "\n"


def _wide(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one line a mapper, kind of betas and subject; the first score has its interval."""
    import pandas as pd

    lines = []
    for (mapper, betas, subject), some in rows.groupby(["mapper", "betas", "subject"], sort=False):
        by_score = some.set_index("score")
        line: dict[str, Any] = {"mapper": mapper, "betas": betas, "subject": subject}
        for name, score in SCORES.items():
            line[score.title] = float(by_score["value"][name])
            if name == next(iter(SCORES)):
                interval = by_score.loc[name, ["low", "high"]].to_numpy(float)
                line["95 % interval"] = "" if np.isnan(interval).any() else tuple(interval)
        lines.append(line | {"N": int(by_score["N"].iloc[0]), "split": by_score["split"].iloc[0]})
    chance = rows.drop_duplicates("score").set_index("score")["chance"]
    line = {"mapper": "chance", "betas": "", "subject": "", "95 % interval": ""}
    line |= {score.title: float(chance[name]) for name, score in SCORES.items()}
    lines.append(line | {"N": "", "split": ""})
    return pd.DataFrame(lines)


STYLES = {  # betas -> marker, face, edge
    CEILING: ("|", "#222222", "#222222"),
    AVERAGED: ("o", "#2166ac", "#2166ac"),
    SINGLE: ("o", "#ffffff", "#2166ac"),
    SHUFFLED: ("x", "#b2182b", "#b2182b"),
}
PANELS = ("two-way", "top-1")
CHANCE, PEOPLE = "#888888", "#92c5de"


def figure(comparison: Comparison) -> Figure:
    """Return the figure: a row a target, two-way identification and top-1 of every mapper.

    Means over subjects with their intervals; small dots are single subjects' averaged repeats.
    """
    from matplotlib.figure import Figure

    table = comparison.table
    targets = list(dict.fromkeys(table["target"]))
    names = list(dict.fromkeys(table["mapper"]))
    height = 0.8 + len(targets) * (0.9 + 0.3 * len(names))
    drawn = Figure(figsize=(7.2, height), layout="constrained")
    axes = drawn.subplots(len(targets), len(PANELS), squeeze=False)
    for target, line in zip(targets, axes, strict=True):
        rows = table[table["target"] == target]
        for score, ax in zip(PANELS, line, strict=True):
            _panel(ax, rows[rows["score"] == score], names)
            ax.set_xlabel(SCORES[score].title, fontsize=8)
        line[0].set_title(target, loc="left", fontsize=9)
        line[1].tick_params(labelleft=False)
    labelled = [
        pair for ax in axes.flat for pair in zip(*ax.get_legend_handles_labels(), strict=True)
    ]
    named = {label: handle for handle, label in labelled}
    drawn.legend(
        named.values(),
        named.keys(),
        loc="outside lower center",
        ncols=3,
        fontsize=7,
        frameon=False,
    )
    return drawn


def _panel(ax: Axes, rows: pd.DataFrame, names: Sequence[str]) -> None:
    ax.axvline(rows["chance"].iloc[0], color=CHANCE, lw=0.8, ls="--", label="chance")
    together = rows["subject"].str.startswith(MEAN_OF)
    for y, name in enumerate(names):
        mine = rows[rows["mapper"] == name]
        alone = mine[~together[mine.index] & (mine["betas"] == AVERAGED)]
        if len(alone) > 1:
            ax.plot(
                alone["value"], [y + 0.22] * len(alone), ".", color=PEOPLE, ms=4, label="a subject"
            )
        pooled = mine[together[mine.index]]
        shown = pooled if len(pooled) else mine
        for place, (betas, (marker, face, edge)) in enumerate(STYLES.items()):
            for _, row in shown[shown["betas"] == betas].iterrows():
                at = y - 0.08 * place
                style = {"marker": marker, "mfc": face, "mec": edge, "color": edge, "ms": 5}
                ax.plot([row["low"], row["high"]], [at, at], color=edge, lw=1)
                ax.plot([row["value"]], [at], ls="", label=betas, **style)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="x", labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
