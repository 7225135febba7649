"""What a map over test images is made of: importance by trial, its tests and its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import metrics, stopping
from explorer.brain import importance
from explorer.brain.importance import SMALL
from explorer.brain.maps import attribute_voxels
from explorer.decoding import decode_betas, decoded_space, similarities
from explorer.evidence.inference import (
    REACH,
    Progress,
    parcel_evidence,
    place_test,
    shuffled_weights,
    turns,
)
from explorer.evidence.standing import left_out
from explorer.request import Request, View
from explorer.types import Parcellation, UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

ROWS_AT_ONCE = 100  # trials a pass: memory, and how often progress is told


@dataclass(frozen=True, eq=False)
class Parts:
    """What a map is made of, for every measure; L labels and (unassigned)."""

    values: Mapping[str, np.ndarray]  # measure -> (n, L + 1)
    repeats: Mapping[str, Mapping[str, np.ndarray]]  # name -> measure -> (L + 1,)
    seeds: Mapping[str, Mapping[str, np.ndarray]]
    randomised: Mapping[str, np.ndarray]  # measure -> (L + 1,)
    voxels: np.ndarray
    evidence: np.ndarray
    p_evidence: np.ndarray
    p_place: np.ndarray
    turns: np.ndarray
    null: str
    ceiling: np.ndarray
    identified: np.ndarray  # (n,)
    notes: tuple[str, ...]


def measure_parts(
    workbench: Workbench,
    request: Request,
    view: View,
    parcellation: Parcellation,
    permutations: int,
    seed: int,
    progress: Progress | None,
) -> Parts:
    """Return all that a map of any measure needs; parameters as in `statistics.subject_map`."""
    place = request.dataset, request.subject
    trials = workbench.catalogue.trials(*place)
    gallery = list(workbench.catalogue.gallery(*place).index)
    stimuli, betas = _averages(trials, gallery, request.repeats)
    if len(stimuli) < 2:
        raise UserError(
            f"A map over test images needs at least 2 of them with finite betas, found "
            f"{len(stimuli)} of {'/'.join(place)}; choose other repeats or another subject."
        )
    single = sorted(set(trials.table["repeat"].iloc[trials.rows("test")]))
    wanted = [r for r in single if not request.repeats or r in request.repeats]
    siblings = {
        seed_: workbench.models.mapper(*place, name)
        for seed_, name in sibling_names(workbench, request).items()
    }
    random = shuffled_weights(workbench.models.mapper(*place, request.mapper), seed)
    jobs: list[tuple[str, list[str], np.ndarray, Any]] = [
        (f"importance of {len(stimuli)} trials", stimuli, betas, None)
    ]
    for repeat in wanted if len(wanted) > 1 else ():
        jobs.append((f"repeat {repeat + 1}", *_averages(trials, gallery, (int(repeat),)), None))
    jobs.append(("shuffled weights", stimuli, betas, random))
    jobs += [(f"seed {s}", stimuli, betas, mapper) for s, mapper in siblings.items()]
    steps = len(jobs) + 2

    def tell(done: float, what: str) -> None:
        if progress:
            progress(done / steps, what)

    found: dict[str, np.ndarray] = {}
    notes = [lost] if (lost := left_out(workbench, request, len(stimuli))) else []
    mean = np.full(betas.shape[1], np.nan)
    for number, (what, shown, rows, mapper) in enumerate(jobs):
        try:
            parts = []
            for begin in stopping.steps(range(0, len(rows), ROWS_AT_ONCE)):
                tell(number + begin / len(rows), what)
                block = slice(begin, begin + ROWS_AT_ONCE)
                parts.append(
                    attribute_voxels(workbench, request, view, rows[block], shown[block], mapper)
                )
        except UserError as error:  # random weights may leave a density that is not finite
            if mapper is not random:
                raise
            notes.append(f"There is no map of shuffled weights: {error}")
            continue
        attribution = np.concatenate(parts)
        if number == 0:
            mean = importance.mean_map(attribution)
        found[what] = importance.parcel_statistics(attribution, parcellation)
    space = decoded_space(workbench, request)
    truth = workbench.models.embed(request.dataset, gallery, space)
    shown = truth[[gallery.index(stimulus) for stimulus in stimuli]]
    mapper = workbench.models.mapper(*place, request.mapper)
    masks = parcellation.masks()
    z, p = parcel_evidence(
        lambda rows: decode_betas(workbench, request, rows)[space],
        betas,
        mapper.statistics(request.subject)[0].cpu().numpy(),
        masks,
        shown,
        permutations,
        seed,
        lambda done, what: tell(len(jobs) + done, what),
        alone=lambda mask: mapper.decode_alone(betas, request.subject, mask, space),
    )
    tell(steps - 1, "importance at other places")
    voxels = trials.subject.voxels
    sources = workbench.kept_array(
        ("turns", voxels.hash, permutations, seed), lambda: turns(voxels, permutations, seed)
    )
    null = (
        f"{permutations} random rotations of the sphere, hemispheres mirrored; a parcel's count "
        f"where half of its voxels land within {REACH:g} mm of others"
        if voxels.projection is not None
        else f"{permutations} permutations of voxels, as there are no places on the surface; "
        "this ignores that neighbours are alike and finds too much"
    )
    p_place, valid = place_test(mean, masks, sources)
    p_place[masks.sum(axis=1) < SMALL] = np.nan
    values = found.pop(jobs[0][0])
    kept = ~np.isnan(values["share"]).all(axis=1)
    if not kept.any():
        raise UserError(
            f"The gradient of {request.mapper} is zero in all {len(stimuli)} trials of "
            f"{'/'.join(place)}, so there is no importance to map; choose another mapper."
        )
    if flat := int((~kept).sum()):
        notes.append(
            f"In {flat} of {len(kept)} trials the gradient is zero, so they prefer no parcel; "
            "importance leaves them out."
        )
    own = {name: _mean_statistics(one) for name, one in found.items()}
    nothing = {measure: np.full(len(masks), np.nan) for measure in values}
    tell(steps, "done")
    return Parts(
        values={measure: rows[kept] for measure, rows in values.items()},
        repeats={name: one for name, one in own.items() if name.startswith("repeat ")},
        seeds={name: one for name, one in own.items() if name.startswith("seed ")},
        randomised=own.get("shuffled weights", nothing),
        voxels=mean,
        evidence=z,
        p_evidence=p,
        p_place=p_place,
        turns=valid,
        null=null,
        ceiling=_ceilings(trials, request, masks),
        identified=metrics.identification(
            similarities(decode_betas(workbench, request, betas)[space], truth, space),
            np.array([gallery.index(stimulus) for stimulus in stimuli]),
        ),
        notes=tuple(notes),
    )


def _averages(
    trials: Any, gallery: Sequence[str], repeats: tuple[int, ...]
) -> tuple[list[str], np.ndarray]:
    """Return the stimuli that have these repeats, and their mean betas float32 (n, V).

    Stimuli whose betas are not all finite are left out.
    """
    rows = trials.rows("test", repeats=repeats)
    groups = trials.table["stimulus"].iloc[rows].groupby(
        trials.table["stimulus"].iloc[rows].to_numpy(), sort=False
    ).indices  # fmt: skip
    stimuli, means = [], []
    for stimulus in gallery:
        if stimulus in groups:
            own = rows[groups[stimulus]]
            mean = np.asarray(trials.betas[own], dtype=np.float32).mean(axis=0)
            if np.isfinite(mean).all():
                stimuli.append(stimulus)
                means.append(mean)
    empty = np.empty((0, trials.subject.voxels.n_voxels), np.float32)
    return stimuli, np.stack(means) if means else empty


def sibling_names(workbench: Workbench, request: Request) -> dict[int, str]:
    """Return seed -> mapper of those on offer that differ from the request's by seed alone."""
    place = request.dataset, request.subject
    own = workbench.catalogue.offer(*place, request.mapper).card
    if own is None:
        return {}
    wanted = {k: v for k, v in own.settings.items() if k != "seed"}
    found = {}
    for name in workbench.catalogue.mapper_names(*place):
        card = workbench.catalogue.offer(*place, name).card
        if card is None or (card.cls, card.targets) != (own.cls, own.targets):
            continue
        settings = {k: v for k, v in card.settings.items() if k != "seed"}
        other = card.settings.get("seed")
        if settings == wanted and other != own.settings.get("seed"):
            found[other] = name
    return found


def _mean_statistics(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the mean over trials (n, L + 1) of each measure, flat trials left out."""
    kept = ~np.isnan(values["share"]).all(axis=1)
    if not kept.any():
        return {m: np.full(rows.shape[1], np.nan) for m, rows in values.items()}
    return {measure: rows[kept].mean(axis=0) for measure, rows in values.items()}


def _ceilings(trials: Any, request: Request, masks: np.ndarray) -> np.ndarray:
    """Return the mean noise ceiling (% of variance) of each parcel, NaN where unknown."""
    if trials.subject.ncsnr is None:
        return np.full(len(masks), np.nan)
    rows = trials.rows("test", repeats=request.repeats)
    n = 1 / np.mean(1 / trials.table["stimulus"].iloc[rows].value_counts().to_numpy())
    ceiling = metrics.noise_ceiling(trials.subject.ncsnr, n)
    known = masks & np.isfinite(ceiling)
    counts = known.sum(axis=1)
    summed = known @ np.nan_to_num(ceiling)
    return np.divide(summed, counts, out=np.full(len(masks), np.nan), where=counts > 0)
