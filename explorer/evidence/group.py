"""The maps of several subjects, parcel by parcel, and what they share."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from explorer.brain.maps import parcellation_of
from explorer.brain.parcels import UNASSIGNED
from explorer.evidence import statistics
from explorer.evidence.inference import (
    PERMUTATIONS,
    Progress,
    Reliability,
    discoveries,
    over_subjects,
    reliability,
)
from explorer.evidence.statistics import LEVEL, SubjectMap, subject_map
from explorer.request import Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench


@dataclass(frozen=True, eq=False)
class GroupMap:
    """The maps of several subjects, parcel by parcel.

    ``table``: ``parcel``, ``name``, ``hemisphere``; ``subjects`` that have 10 or more voxels
    there, ``value`` (mean over them) with ``low`` and ``high``, a t interval over subjects;
    ``found``: in how many of them q_evidence is at most 0.05; ``p`` and ``q``: t test over
    subjects that evidence is above 0. NaN with fewer than two subjects.

    ``agreement``: mean Spearman correlation between two subjects' maps. ``sentence``: what N
    subjects can and cannot say. ``left_out``: why some are not here, a sentence each.
    """

    dataset: str
    mapper: str
    atlas: str
    method: str
    target: str
    measure: str
    table: pd.DataFrame
    subjects: tuple[SubjectMap, ...]
    agreement: Reliability
    limits: Mapping[str, tuple[float, float]]
    banner: str
    sentence: str
    left_out: tuple[str, ...] = ()


def group_map(
    workbench: Workbench,
    request: Request,
    view: View,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Progress | None = None,
) -> GroupMap:
    """Return the maps of all subjects that have the request's mapper, and what they share.

    Parameters as in `subject_map`; the request's subject and stimulus do not matter.
    """
    dataset, maps, left_out = request.dataset, [], []
    people = workbench.catalogue.subjects(dataset)
    named = parcellation_of(workbench, dataset, request.subject, view.atlas).name
    for number, subject in enumerate(people):

        def tell(done: float, what: str, number: int = number, subject: str = subject) -> None:
            if progress:
                progress((number + done) / len(people), f"{subject}: {what}")

        try:
            if request.mapper not in workbench.catalogue.mapper_names(dataset, subject):
                raise UserError(f"it has no mapper {request.mapper}.")
            first = workbench.catalogue.gallery(dataset, subject).index[0]
            asked = replace(request, subject=subject, stimulus=first)
            maps.append(
                subject_map(
                    *(workbench, asked, replace(view, atlas=named)),
                    permutations=permutations,
                    seed=seed,
                    progress=tell,
                )
            )
        except UserError as error:
            left_out.append(f"{subject}: {error}")
    if not maps:
        raise UserError(f"No subject of {dataset} could be mapped: {' '.join(left_out)}")
    return _group(dataset, request.mapper, maps, tuple(left_out))


def seconds_needed(
    workbench: Workbench,
    request: Request,
    view: View,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> float:
    """Return about how long `group_map` takes; parameters as there."""
    named = parcellation_of(workbench, request.dataset, request.subject, view.atlas).name
    total = 0.0
    for subject in workbench.catalogue.subjects(request.dataset):
        with contextlib.suppress(UserError):  # who cannot be mapped costs nothing
            if request.mapper in workbench.catalogue.mapper_names(request.dataset, subject):
                total += statistics.seconds_needed(
                    workbench,
                    replace(request, subject=subject),
                    replace(view, atlas=named),
                    permutations=permutations,
                    seed=seed,
                )
    return total


def _group(
    dataset: str, mapper: str, maps: Sequence[SubjectMap], left_out: tuple[str, ...]
) -> GroupMap:
    import pandas as pd

    tables = [one.table[~one.table["small"]].set_index("parcel") for one in maps]
    keys = list(dict.fromkeys(key for one in maps for key in one.table["parcel"]))
    names = pd.concat([one.table for one in maps]).drop_duplicates("parcel").set_index("parcel")

    def column(name: str) -> np.ndarray:
        return np.stack([table[name].reindex(keys).to_numpy(float) for table in tables])

    values, evidence, q = column("value"), column("evidence"), column("q_evidence")
    there = np.isfinite(values).sum(axis=0)
    mean, low, high, _ = over_subjects(values)
    *_, p = over_subjects(evidence)
    tested = np.array([key != UNASSIGNED for key in keys])
    table = pd.DataFrame(
        {
            "parcel": keys,
            "name": names.loc[keys, "name"].to_numpy(),
            "hemisphere": names.loc[keys, "hemisphere"].to_numpy(),
            "subjects": there,
            "value": mean,
            "low": low,
            "high": high,
            "found": (q <= LEVEL).sum(axis=0),
            "p": p,
            "q": discoveries(p, tested),
        }
    )
    by_subject = dict(zip((one.subject for one in maps), values[:, tested], strict=True))
    agreement = reliability(
        "subjects", by_subject, "There is one subject, so no agreement between subjects."
    )
    if maps[0].measure == "share" and len(maps) > 1:
        agreement = replace(
            agreement, sentence=f"{agreement.sentence} Parcel sizes are part of that."
        )
    below = [one.subject for one in maps if one.banner]
    top = float(np.nanmax(np.abs(mean[tested]))) if np.isfinite(mean[tested]).any() else 1.0
    first = maps[0]
    return GroupMap(
        dataset=dataset,
        mapper=mapper,
        atlas=first.atlas,
        method=first.method,
        target=first.target,
        measure=first.measure,
        table=table,
        subjects=tuple(maps),
        agreement=agreement,
        limits={"value": (-top if first.measure == "signed" else 0.0, top)},
        banner=(
            f"{mapper} is not above chance on {', '.join(below)}: what it weighs there says "
            "nothing, so the group's map is not interpreted."
            if below
            else ""
        ),
        sentence=_group_sentence(len(maps)),
        left_out=left_out,
    )


def _group_sentence(n: int) -> str:
    if n < 2:
        return "N = 1 subject: nothing can be said about others."
    return (
        f"N = {n} subjects. Intervals and p are random-effects figures: they treat these as drawn "
        f"from the people they are to speak for ({n - 1} degrees of freedom)."
        + (" With so few, only what is alike in all of them can be found." if n < 10 else "")
    )
