"""The critics' tests on every mapper of a data set, for the terminal and as a table.

What `explorer.evidence.critique` asks of arrays, asked of each mapper and subject; the definitions
and the sentences stand with the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.reports.leaks import usual_similarity
from backends.reports.tables import render, write_files
from explorer.choosing import default_request
from explorer.decoding import decode_betas, decoded_space, undecoded
from explorer.evidence import critique
from explorer.evidence.critique import Finding
from explorer.evidence.standing import betas_of_test, decoded_test
from explorer.metrics import evenly, unit
from explorer.splits import clusters, nearest
from explorer.types import UserError
from explorer.workbench import Workbench
from explorer.writing import csv_text

if TYPE_CHECKING:
    import pandas as pd

Found = dict[tuple[str, str], list[Finding]]
MOST_TRAINED = 5000  # training stimuli that are embedded: our choice
MOST_ROWS = 1000  # training betas whose components are kept in the bottleneck
FILE = "critique"


def examine(
    bench: Workbench,
    dataset: str,
    *,
    subjects: Sequence[str] = (),
    mappers: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Found:
    """Return (mapper, subject) -> what each test finds, for the first target of each mapper.

    Raises
    ------
    UserError
        Where nothing is on offer that can be compared with what was shown.
    """
    found: Found = {}
    problems: list[str] = []
    for subject in subjects or bench.catalogue.subjects(dataset):
        for mapper in mappers or bench.catalogue.mapper_names(dataset, subject):
            if progress:
                progress(f"{mapper}, {subject}: the critics' tests")
            try:
                found[mapper, subject] = list(_of_one(bench, dataset, subject, mapper))
            except UserError as error:
                problems.append(f"{mapper}, {subject}: {error}")
    if not found:
        raise UserError(" ".join(problems) or f"There is no mapper of {dataset} to be tested.")
    if progress:
        for problem in problems:
            progress(problem)
    return found


def _of_one(bench: Workbench, dataset: str, subject: str, mapper: str) -> Iterator[Finding]:
    request = default_request(bench.catalogue, dataset, subject, seed=0, mapper=mapper)
    if why := undecoded(bench, request):
        raise UserError(why)
    space = decoded_space(bench, request)
    stimuli, predicted = decoded_test(bench, request)
    targets = bench.models.embed(dataset, stimuli, space)
    trials = bench.catalogue.trials(dataset, subject)
    tested = set(trials.stimuli("test"))
    every = [s for s in trials.stimuli("train") if s not in tested]
    trained = [every[i] for i in evenly(len(every), MOST_TRAINED)]
    if len(trained) < critique.CLUSTERS:
        raise UserError(
            f"{dataset}/{subject} has {len(trained)} training stimuli that are not test stimuli; "
            f"the tests need {critique.CLUSTERS} or more."
        )
    training = bench.models.embed(dataset, trained, space)
    kinds = bench.catalogue.dataset(dataset).stimuli["category"].fillna("").astype(str)
    classes, known = (kinds.reindex(names).fillna("").tolist() for names in (stimuli, trained))
    flat, true, seen = (rows.reshape(len(rows), -1) for rows in (predicted, targets, training))
    number = clusters(np.concatenate([true, seen]), critique.CLUSTERS)[: len(true)]
    sets = {"all test images": np.ones(len(true), bool), "far from training": _far(true, seen)}
    yield critique.generalisation(flat, true, sets | _by_class(classes, set(known)))
    yield critique.collapse(flat, true, seen, critique.CLUSTERS)
    yield critique.cluster_identification(flat, true, number, "clusters")
    if any(classes):
        yield critique.cluster_identification(flat, true, classes, "categories")
    threshold = usual_similarity(unit(np.asarray(seen, np.float32)))
    yield critique.similarity_to_training(flat, true, seen, threshold)
    yield critique.category_only(flat, true, classes, seen, known)
    if bench.catalogue.offer(dataset, subject, mapper).published is not None:
        return  # looked up: no other betas can be put in
    rows = trials.rows("train")
    betas = np.asarray(trials.betas[rows[evenly(len(rows), MOST_ROWS)]], np.float32)

    def decode(given: np.ndarray) -> np.ndarray:
        return decode_betas(bench, request, given.astype(np.float32))[space]

    yield critique.bottleneck(decode, betas_of_test(bench, request)[1], betas, true)


def _far(targets: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Return the half of the test images whose nearest training image is farthest, bool (n,)."""
    near = nearest(targets, training)
    return near <= np.median(near)


def _by_class(classes: Sequence[str], trained: set[str]) -> dict[str, np.ndarray]:
    """Return sets by class: of classes that were never trained, and of out-of-distribution ones.

    A set that holds all test images, or fewer than two, is none.
    """
    names = np.asarray(classes, dtype=str)
    strange = np.char.startswith(names, "OOD")
    unseen = (names != "") & ~np.isin(names, sorted(trained)) & ~strange
    found = {"classes never trained": unseen, "out of distribution": strange}
    return {name: chosen for name, chosen in found.items() if 1 < chosen.sum() < len(names)}


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
