"""Maps over all test stimuli: importance with its interval, and whether it means anything.

The tests, and the questions they answer, are those of `explorer.evidence.inference`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from explorer import metrics
from explorer.brain.importance import SMALL
from explorer.brain.maps import parcellation_of, target_names
from explorer.brain.parcels import UNASSIGNED
from explorer.decoding import deciding, decoded_space, unexplained
from explorer.evidence.forecast import seconds_of_parts
from explorer.evidence.inference import (
    PERMUTATIONS,
    Progress,
    Randomised,
    Reliability,
    discoveries,
    randomised,
    reliability,
)
from explorer.evidence.map_parts import Parts, measure_parts
from explorer.request import Request, View
from explorer.types import Parcellation, UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

RESAMPLES = 2000
LEVEL = 0.05  # of discoveries: q at most this
LOWEST_CEILING = 5.0  # % of variance; dividing by less than this shows noise (our choice)


@dataclass(frozen=True, eq=False)
class SubjectMap:
    """One subject's map over the test stimuli.

    ``table``: one row a label in the atlas's order, then (unassigned): ``parcel``, ``name``,
    ``hemisphere``, ``voxels``, ``small`` (under 10 voxels); ``value`` of ``measure`` and its
    bootstrap interval ``low``, ``high`` over stimuli; ``evidence`` in SDs of its null
    distribution, ``p_evidence`` and ``q_evidence``; ``p_place`` and ``q_place``, and ``turns``,
    how many rotations (or permutations) that p rests on; ``randomised``, the value for shuffled
    weights; ``ceiling`` (% of variance, mean over voxels) and ``per_ceiling``, value over its
    share of 1. NaN where there is nothing to say: no voxels, too few, no ceiling.

    ``voxels`` float64 (V,): mean share of importance; ``limits``: colour limits by column;
    ``stimuli``: how many; ``tests``: how many parcels are tested; ``found``: those with
    q_evidence at most 0.05. ``banner``: "" or the sentence that takes the place of interpretation.
    ``identification``: (value, low, high) of the two-way identification, chance 0.5. ``null``:
    what ``p_place`` rests on. ``notes``: a sentence each.
    """

    dataset: str
    subject: str
    mapper: str
    atlas: str
    method: str
    target: str
    measure: str
    table: pd.DataFrame
    voxels: np.ndarray
    limits: Mapping[str, tuple[float, float]]
    stimuli: int
    tests: int
    found: int
    permutations: int
    identification: tuple[float, float, float]
    banner: str
    null: str
    repeats: Reliability
    seeds: Reliability
    randomised: Randomised
    notes: tuple[str, ...] = ()


def subject_map(
    workbench: Workbench,
    request: Request,
    view: View,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Progress | None = None,
) -> SubjectMap:
    """Return a subject's map over all test stimuli; `UserError` where there is no importance.

    Parameters
    ----------
    workbench
        Where the data and the mapper are.
    request
        Whose betas, which repeats, which mapper and target space; its stimulus does not matter.
    view
        Method, target, atlas and measure.
    permutations
        Draws of every null distribution.
    seed
        Of all that is drawn.
    progress
        See `Progress`.
    """
    asked, parcellation, key = _question(workbench, request, view, permutations, seed)
    parts = workbench.kept(
        key,
        lambda: measure_parts(workbench, asked, view, parcellation, permutations, seed, progress),
    )
    return _tabulate(asked, view, parcellation, parts, permutations, seed)


def seconds_needed(
    workbench: Workbench,
    request: Request,
    view: View,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> float:
    """Return about how long `subject_map` takes, 0 for one that is kept; parameters as there."""
    asked, parcellation, key = _question(workbench, request, view, permutations, seed)
    if workbench.is_kept(key):
        return 0.0
    return seconds_of_parts(workbench, asked, view, parcellation, permutations)


def _question(
    workbench: Workbench, request: Request, view: View, permutations: int, seed: int
) -> tuple[Request, Parcellation, tuple]:
    """Return what a map is of, over which parcels, and the name under which it is kept."""
    if reason := unexplained(workbench, request):
        raise UserError(reason)
    place = request.dataset, request.subject
    offered = target_names(workbench, *place, request.mapper)
    if view.target not in offered:
        raise UserError(
            f"The mapper {request.mapper} gives an embedding and no density, so it has no "
            f"{view.target}; choose {' or '.join(offered)}."
        )
    first = workbench.catalogue.gallery(*place).index[0]
    space = decoded_space(workbench, request).name  # the generator decided nothing but that
    asked = replace(deciding(request), stimulus=first, generator="", space=space)
    parcellation = parcellation_of(workbench, *place, view.atlas)
    weights = workbench.models.mapper_hash(*place, request.mapper)
    key = "map over stimuli", asked, weights, view.method, view.target, parcellation.name
    return asked, parcellation, (*key, permutations, seed)


def _tabulate(
    request: Request,
    view: View,
    parcellation: Parcellation,
    parts: Parts,
    permutations: int,
    seed: int,
) -> SubjectMap:
    """Return the map of one measure."""
    import pandas as pd

    rows, masks = parts.values[view.measure], parcellation.masks()
    value = rows.mean(axis=0)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), RESAMPLES)
    low, high = np.quantile(counts @ rows / len(rows), (0.025, 0.975), axis=0)
    tested = masks.sum(axis=1) >= SMALL
    tested[-1] = False  # what is in no parcel is no parcel
    shown = np.where(parts.ceiling >= LOWEST_CEILING, parts.ceiling, np.nan)
    labels = parcellation.labels
    table = pd.DataFrame(
        {
            "parcel": [*(label.key for label in labels), UNASSIGNED],
            "name": [*(label.name for label in labels), UNASSIGNED],
            "hemisphere": [*(label.hemisphere for label in labels), ""],
            "voxels": masks.sum(axis=1),
            "small": masks.sum(axis=1) < SMALL,
            "value": value,
            "low": low,
            "high": high,
            "evidence": parts.evidence,
            "p_evidence": parts.p_evidence,
            "q_evidence": discoveries(parts.p_evidence, tested),
            "p_place": parts.p_place,
            "q_place": discoveries(parts.p_place, tested),
            "turns": parts.turns,
            "randomised": parts.randomised[view.measure],
            "ceiling": parts.ceiling,
            "per_ceiling": value / (shown / 100),
        }
    )
    compared = "signed" if view.measure == "signed" else "enrichment"
    own = parts.values[compared].mean(axis=0)
    random = randomised(own[tested], parts.randomised[compared][tested], permutations, seed)
    told_apart = metrics.mean_of(parts.identified, "what is decoded is not finite", 0.0)
    identified = metrics.counted(parts.identified, 0.0)
    identification = (told_apart.value, *metrics.bootstrap_interval(identified, seed=seed))
    remark = f"Of the two-way identification, {told_apart.remark}" if told_apart.remark else ""
    repeats = {name: one[compared][tested] for name, one in parts.repeats.items()}
    seeds = {"this mapper": own, **{n: one[compared] for n, one in parts.seeds.items()}}
    return SubjectMap(
        dataset=request.dataset,
        subject=request.subject,
        mapper=request.mapper,
        atlas=parcellation.name,
        method=view.method,
        target=view.target,
        measure=view.measure,
        table=table,
        voxels=parts.voxels,
        limits=_limits(table, view.measure, tested),
        stimuli=len(rows),
        tests=int(tested.sum()),
        found=int((table["q_evidence"] <= LEVEL).sum()),
        permutations=permutations,
        identification=identification,
        banner=_banner(request, identification, len(parts.identified)),
        null=parts.null,
        repeats=reliability(
            "repeats",
            repeats,
            "There is one repeat of each test image alone, so it cannot be said how alike the "
            "maps of single repeats are.",
        ),
        seeds=reliability(
            "seeds",
            {name: values[tested] for name, values in seeds.items()},
            "No other seed of this mapper is on offer; train one with another --seed to see how "
            "far the map depends on it.",
        ),
        randomised=random,
        notes=(*parts.notes, *([remark] if remark else ())),
    )


def _banner(request: Request, identification: tuple[float, float, float], n: int) -> str:
    value, low, high = (100 * x for x in identification)
    if low > 50:
        return ""
    return (
        f"{request.mapper} is not above chance on {request.subject}: it tells the shown image "
        f"from another in {value:.0f} % of cases (95 % interval {low:.0f} to {high:.0f} %, chance "
        f"50 %, N = {n} test images). What it weighs says nothing, so this map is not interpreted."
    )


def _limits(
    table: pd.DataFrame, measure: str, tested: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Return colour limits of the columns that are drawn, over the parcels that are tested."""
    limits = {}
    drawn = tested if tested.any() else table["voxels"].to_numpy() > 0
    for column in ("value", "evidence", "per_ceiling"):
        known = np.abs(table[column].to_numpy()[drawn])
        top = float(np.nanmax(known)) if np.isfinite(known).any() else 1.0
        both = column == "evidence" or measure == "signed"
        limits[column] = (-top if both else 0.0, top or 1.0)
    return limits | {"randomised": limits["value"]}
