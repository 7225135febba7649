"""The critics' tests on every mapper of a data set, for the terminal and as a table.

What `explorer.evidence.critique` asks of arrays, asked of each mapper and subject; the definitions
and the sentences stand with the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.reports.tables import render, write_files
from explorer.choosing import default_request
from explorer.evidence.counterfactual import read_pairs
from explorer.evidence.critics import findings
from explorer.evidence.critique import Finding
from explorer.types import UserError
from explorer.workbench import Workbench
from explorer.writing import csv_text

if TYPE_CHECKING:
    import pandas as pd

Found = dict[tuple[str, str], list[Finding]]
FILE = "critique"
FIT_LIMIT = 2_000_000_000  # training trials x voxels that the data curve fits, 8 GB as float32


def examine(
    bench: Workbench,
    dataset: str,
    *,
    subjects: Sequence[str] = (),
    mappers: Sequence[str] = (),
    pairs: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Found:
    """Return (mapper, subject) -> what each test finds, for the first target of each mapper.

    ``pairs``: a folder of counterfactual pairs, see `explorer.evidence.counterfactual.read_pairs`.

    Raises
    ------
    UserError
        Where nothing is on offer that can be compared with what was shown.
    """
    found: Found = {}
    given = read_pairs(pairs) if pairs else ()
    problems: list[str] = []
    for subject in subjects or bench.catalogue.subjects(dataset):
        for mapper in mappers or bench.catalogue.mapper_names(dataset, subject):
            if progress:
                progress(f"{mapper}, {subject}: the critics' tests")
            try:
                request = default_request(bench.catalogue, dataset, subject, 0, mapper=mapper)
                each = findings(bench, request, FIT_LIMIT, given)
                found[mapper, subject] = list({one.name: one for one in each}.values())
            except UserError as error:
                problems.append(f"{mapper}, {subject}: {error}")
    if not found:
        raise UserError(" ".join(problems) or f"There is no mapper of {dataset} to be tested.")
    if progress:
        for problem in problems:
            progress(problem)
    return found


def table(found: Found) -> pd.DataFrame:
    """Return every number, a row each, with its mapper, subject and test."""
    import pandas as pd

    parts = [
        one.table.assign(mapper=mapper, subject=subject, test=one.name)
        for (mapper, subject), several in found.items()
        for one in several
        if len(one.table)
    ]
    every = pd.concat(parts, ignore_index=True)
    first = ["mapper", "subject", "test", "of"]
    return every[[*first, *(c for c in every if c not in first)]]


def markdown(found: Found) -> str:
    """Return the sentences of each mapper and subject, their numbers, and the definitions."""
    lines: list[str] = []
    for (mapper, subject), several in found.items():
        lines += [f"# {mapper}, {subject}", ""]
        lines += [f"- **{one.name}**: {one.sentence}" for one in several] + [""]
        lines += [render({one.name: one.table for one in several if len(one.table)})]
    definitions = {one.name: one.definition for several in found.values() for one in several}
    lines += ["# Definitions", "", *(f"- **{k}**: {v}" for k, v in definitions.items())]
    return "\n".join(lines) + "\n"


def write(found: Found, folder: Path) -> list[Path]:
    """Write ``critique.csv`` and ``critique.md`` into a folder, each whole or not at all."""
    numbers, text = csv_text(table(found), float_format="%.6g"), markdown(found)
    return write_files(
        folder,
        {
            f"{FILE}.csv": lambda path: path.write_text(numbers, encoding="utf-8"),
            f"{FILE}.md": lambda path: path.write_text(text, encoding="utf-8"),
        },
    )
