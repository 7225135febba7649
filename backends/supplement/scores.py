"""How good a decoder is: the rows of `evaluate` as tables, with chance, N and intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from backends.reports.class_mean import NAME as CLASS_MEAN
from backends.reports.closeness import SCORES
from backends.reports.mappers import compare
from backends.supplement.content import Block, Table, Words, cell
from explorer.evidence import evaluation
from explorer.metrics import written

if TYPE_CHECKING:
    import pandas as pd

    from explorer.notebook.study import Study
    from explorer.workbench import Workbench


def scores_of(
    bench: Workbench, study: Study, people: Sequence[str]
) -> tuple[pd.DataFrame, list[str], dict[str, tuple[str, str, str]]]:
    """Return the rows of `evaluate` for a mapper and subjects, notes, and what scores mean.

    From an evaluation that was made with these weights where there is one, else measured now.
    """
    found = evaluation.find_evaluation(bench, study.name)
    if found is not None and not found.outdated(bench):
        table, notes = found.table, []
        meaning = {n: (d.title, d.better, d.sentence) for n, d in found.scores.items()}
        rows = _of(table, study.mapper, people)
        if set(rows["subject"]) >= set(people):
            return rows, notes, meaning
    made = compare(bench, study.name, subjects=people, mappers=[study.mapper], classes=True)
    meaning = {name: (s.title, s.better, s.sentence) for name, s in SCORES.items()}
    return _of(made.table, study.mapper, people), list(made.notes), meaning


def _of(table: pd.DataFrame, mapper: str, people: Sequence[str]) -> pd.DataFrame:
    """Return the rows of a mapper, and of the decoder that knows the class alone."""
    rows = table[table["subject"].isin(people) & table["mapper"].isin([mapper, CLASS_MEAN])]
    targets = rows.loc[rows["mapper"] == mapper, "target"].unique()
    return rows[rows["target"].isin(targets)].reset_index(drop=True)


def tables(
    table: pd.DataFrame, notes: Sequence[str], definitions: dict[str, tuple[str, str, str]]
) -> Iterator[Block]:
    """Yield a table of scores for each target, and what the scores mean."""
    used = [name for name in definitions if name in set(table["score"])]
    heads = ("subject", "mapper", "betas", *(definitions[name][0] for name in used), "N")
    for target, rows in table.groupby("target", sort=False):
        lines = []
        for key, some in rows.groupby(["subject", "mapper", "betas"], sort=False):
            by_score = some.set_index("score")
            cells = [_with_interval(by_score.loc[n]) if n in by_score.index else "–" for n in used]
            lines.append((*map(str, key), *cells, f"{int(some['N'].iloc[0]):,}"))
        chance = rows.drop_duplicates("score").set_index("score")["chance"]
        cells = [cell(chance[name]) if name in chance else "–" for name in used]
        lines.append(("chance", "", "", *cells, ""))
        yield Table(
            f"Target {target}: values, with 95 % intervals over images",
            heads,
            tuple(lines),
            (0, 1, 2),
        )
    meant = tuple(definitions[name] for name in used)
    columns = ("score", "better", "definition")
    caption = "What the scores are; the intervals are bootstraps over test images"
    yield Table(caption, columns, meant, (0, 1, 2))
    yield from (Words(text, "note") for text in notes)


def _with_interval(row: pd.Series) -> str:
    """Return a value and its interval as one cell."""
    ends = [written(row[end], 3) for end in ("low", "high") if np.isfinite(row[end])]
    return cell(float(row["value"])) + (f" ({' to '.join(ends)})" if len(ends) == 2 else "")
