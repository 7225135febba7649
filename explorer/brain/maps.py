"""The maps of a request: importance of parcels, and what else is known of a subject's voxels.

Functions of a `Workbench`; maps and their colour limits are kept in its caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import metrics, stopping
from explorer.answers import made_and_remembered, packed, recalled, unpacked
from explorer.brain import importance, predicted, volumes
from explorer.brain.parcels import VoxelMap, voxel_map
from explorer.brain.predicted import ACCURACY, MEASURED, PREDICTIONS
from explorer.brain.surfaces import offered_surfaces
from explorer.choosing import check_request
from explorer.decoding import (
    decided_answer,
    deciding,
    decoded_space,
    margin_target,
    request_betas,
    temperature,
    unexplained,
)
from explorer.request import (
    GLASS,
    IMPORTANCE,
    LIKELIHOOD,
    MEASURES,
    METHODS,
    PARCELS,
    TARGETS,
    Request,
    View,
)
from explorer.types import Parcellation, UserError, voxel_hash

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

LIMIT_TRIALS = 100  # trials that fix the colour limits, evenly spaced over the test stimuli
LIMIT_PERCENTILE = 99  # so that one odd parcel in one trial does not wash out all maps
CEILING, NCSNR = "noise ceiling", "ncsnr"  # the maps that a subject's ncsnr gives


@dataclass(frozen=True, eq=False)
class ParcelMap:
    """How much each parcel weighs in one trial's decoding.

    ``table``: the columns of `importance.per_parcel`; ``voxels`` float32 (V,): the attribution.
    ``limits`` per measure are the same for all trials of one subject, mapper, target and method.
    ``flat``: the gradient is zero everywhere, so no parcel can be preferred. ``completeness``: of
    integrated gradients, see `importance.completeness_error`; None for other methods.
    """

    table: pd.DataFrame
    atlas: str
    method: str
    target: str
    n_voxels: int
    flat: bool
    limits: dict[str, tuple[float, float]]
    voxels: np.ndarray
    completeness: float | None = None


def parcel_importance(bench: Workbench, request: Request, view: View) -> ParcelMap:
    """Return how much each parcel weighs in what was decoded from a request's betas."""
    check_request(bench.catalogue, request, pictures=False)
    if reason := unexplained(bench, request):
        raise UserError(reason)
    offered = target_names(bench, request.dataset, request.subject, request.mapper)
    if view.target not in offered:
        raise UserError(
            f"The mapper {request.mapper} gives an embedding and no density, so it has no "
            f"{view.target}; choose {' or '.join(offered)}."
        )
    plain = deciding(request)

    def make() -> ParcelMap:
        return made_and_remembered(
            bench, lambda: _decided(bench, plain, view), lambda: _map(bench, plain, view), _written
        )

    known = _recalled(bench, request, view)
    return known or bench.caches.maps.get(_map_key(request, view), make)


def is_mapped(bench: Workbench, request: Request, view: View) -> bool:
    """Return whether `shown_map` answers without a model: from what is kept, or from the data."""
    if view.shows != IMPORTANCE:
        return view.shows not in PREDICTIONS
    if not request.mapper or unexplained(bench, request):
        return True  # there is nothing to map
    return _recalled(bench, request, view) is not None


def _map_key(request: Request, view: View) -> tuple:
    return deciding(request), view.method, view.target, view.atlas


def _recalled(bench: Workbench, request: Request, view: View) -> ParcelMap | None:
    """Return importance that was computed before, from memory or a store."""
    key = _map_key(request, view)
    known = bench.caches.maps.peek(key)
    if known is None and bench.stores:
        parcellation = parcellation_of(bench, request.dataset, request.subject, view.atlas)
        decided = _decided(bench, request, view)
        known = recalled(bench, decided, lambda kept: _read(kept, view, parcellation))
        if known is not None:
            bench.caches.maps.put(key, known)
            limits = _limits_key(bench, request, view, parcellation)
            bench.caches.limits.put(limits, known.limits)  # those of all its trials
    return known


def _decided(bench: Workbench, request: Request, view: View) -> dict[str, Any]:
    if not bench.stores:
        return {}
    laid = parcellation_of(bench, request.dataset, request.subject, view.atlas)
    keys = ",".join(label.key for label in laid.labels)
    atlas = voxel_hash(laid.name, keys, laid.membership)
    return decided_answer(bench, request, "importance", view.method, view.target, atlas)


def _written(made: ParcelMap) -> dict[str, Any]:
    """Return a map as plain values, for `_read`; its table follows from the voxels."""
    limits = {name: list(ends) for name, ends in made.limits.items()}
    return {
        "voxels": packed(made.voxels),
        "limits": limits,
        "completeness": made.completeness,
    }


def _read(kept: dict[str, Any], view: View, parcellation: Parcellation) -> ParcelMap:
    limits = {name: (float(a), float(b)) for name, (a, b) in kept["limits"].items()}
    if set(limits) != set(MEASURES):
        raise ValueError("other measures")
    completeness = kept["completeness"]
    voxels = unpacked(kept["voxels"]).reshape(parcellation.n_voxels)
    return _parcel_map(
        voxels, view, parcellation, limits, None if completeness is None else float(completeness)
    )


def target_names(bench: Workbench, dataset: str, subject: str, mapper: str) -> list[str]:
    """Return what importance can be of: the log-likelihood only where a mapper gives one."""
    dense = bench.catalogue.mapper_can(dataset, subject, mapper, "log_prob")
    return [target for target in TARGETS if dense or target != LIKELIHOOD]


def parcellation_of(bench: Workbench, dataset: str, subject: str, atlas: str = "") -> Parcellation:
    """Return an atlas over the subject's voxels; "" is the first.

    Voxels without any atlas give one without parcels, where everything is (unassigned).
    """
    voxels = bench.catalogue.trials(dataset, subject).subject.voxels
    if not voxels.parcellations and not atlas:
        nowhere = np.full(voxels.n_voxels, -1, dtype=np.int32)
        return Parcellation("no atlas", "partition", (), nowhere, voxels.hash)
    name = atlas or next(iter(voxels.parcellations))
    if name not in voxels.parcellations:
        raise UserError(
            f"{dataset}/{subject} has no atlas {name!r}; choose one of "
            f"{', '.join(voxels.parcellations) or 'none'}."
        )
    return voxels.parcellations[name]


def map_names(bench: Workbench, dataset: str, subject: str) -> list[str]:
    """Return what a view can show of a subject: importance, its maps, and the parcels.

    Where an encoding model fits also the betas of a trial as measured and as predicted.
    """
    who = bench.catalogue.trials(dataset, subject).subject
    reliability = [] if who.ncsnr is None else [CEILING, NCSNR]
    known = PREDICTIONS if bench.catalogue.encoder_offer(dataset, subject) else ()
    return list(dict.fromkeys([IMPORTANCE, *known, *reliability, *who.maps, PARCELS]))


def drawn_on(bench: Workbench, dataset: str, subject: str, view: View) -> list[str]:
    """Return what a view's map can be drawn on: surfaces, and pictures of the volume.

    An atlas that is not there counts as the first.
    """
    voxels = bench.catalogue.trials(dataset, subject).subject.voxels
    atlas = view.atlas if view.atlas in voxels.parcellations else ""
    surfaces = offered_surfaces(voxels, parcellation_of(bench, dataset, subject, atlas))
    without = GLASS if view.shows == PARCELS else ""  # which have no values to project
    return [*surfaces, *(kind for kind in volumes.offered(voxels) if kind != without)]


def map_of_voxels(bench: Workbench, request: Request, view: View) -> VoxelMap:
    """Return what ``view.shows`` of a subject beside importance.

    The noise ceiling, and the betas of `PREDICTIONS`, are those of the trials which the
    request averages.
    """
    dataset, subject, name = request.dataset, request.subject, view.shows
    offered = map_names(bench, dataset, subject)[1:]
    if name not in offered:
        raise UserError(
            f"{dataset}/{subject} has no map {name!r} of its voxels; choose one of "
            f"{', '.join([IMPORTANCE, *offered])}."
        )
    trials = bench.catalogue.trials(dataset, subject)
    parcellation = parcellation_of(bench, dataset, subject, view.atlas)
    if name in PREDICTIONS:
        return _prediction(bench, request, name, parcellation)
    if name == PARCELS:
        return voxel_map(name, f"parcels of {parcellation.name}", None, parcellation)
    if name == CEILING:
        n = len(trials.rows("test", request.stimulus, request.repeats))
        title = f"noise ceiling, % of variance ({_trials(n)})"
        ceiling = metrics.noise_ceiling(trials.subject.ncsnr, n)
        return voxel_map(name, title, ceiling, parcellation)
    if name == NCSNR:
        title = "noise-ceiling signal-to-noise ratio (ncsnr)"
        return voxel_map(name, title, trials.subject.ncsnr, parcellation)
    return voxel_map(name, name, trials.subject.maps[name], parcellation)


def _prediction(
    bench: Workbench, request: Request, name: str, parcellation: Parcellation
) -> VoxelMap:
    """Return one of `PREDICTIONS` for a request."""
    place = request.dataset, request.subject
    trials, encoder = bench.catalogue.trials(*place), bench.models.encoder(*place)
    mean, sd = encoder.statistics()
    measured = (request_betas(bench, request) - mean) / sd
    guess = (_predict(bench, request, [request.stimulus])[0] - mean) / sd
    which = _trials(len(trials.rows("test", request.stimulus, request.repeats)))
    spaces = ", ".join(space.name for space in encoder.spaces)
    told = (
        f"Betas are predicted from the shown image ({spaces}) by a {encoder.description} "
        "trained on this subject's training trials."
    )
    if name != ACCURACY:
        top = beta_limit(bench, request)
        title = f"{name}, SD of the training trials" + f" ({which})" * (name == MEASURED)
        return predicted.betas_map(name, title, measured, guess, top, parcellation, told)
    r, ceiling, n = bench.caches.maps.get(("accuracy", *place), lambda: _accuracy(bench, request))
    if lost := len(bench.catalogue.gallery(*place)) - n:
        told += f" Test images left out, as their betas are not finite: {lost}."
    alike = predicted.pattern_correlation(measured, guess, parcellation)
    title = f"r of measured and predicted betas, {n} test images"
    return predicted.accuracy_map(title, r, ceiling, alike, parcellation, told)


def _predict(bench: Workbench, request: Request, stimuli: Sequence[str]) -> np.ndarray:
    """Return predicted betas float32 (n, V) of test stimuli, in the data's own unit."""
    encoder = bench.models.encoder(request.dataset, request.subject)
    gallery = list(bench.catalogue.gallery(request.dataset, request.subject).index)
    rows = [gallery.index(stimulus) for stimulus in stimuli]
    return encoder.predict(
        {s: bench.models.embed(request.dataset, gallery, s)[rows] for s in encoder.spaces}
    )


def _accuracy(bench: Workbench, request: Request) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return `predicted.correlation` (V,) over the test stimuli, its ceiling, and how many."""
    trials = bench.catalogue.trials(request.dataset, request.subject)
    gallery = bench.catalogue.gallery(request.dataset, request.subject)
    averages = _averages(bench, request, list(gallery.index))
    stimuli, ncsnr = list(averages), trials.subject.ncsnr
    r = predicted.correlation(np.stack(list(averages.values())), _predict(bench, request, stimuli))
    repeats = gallery.loc[stimuli, "repeats"]
    ceiling = None if ncsnr is None else predicted.correlation_ceiling(ncsnr, repeats)
    return r, ceiling, len(stimuli)


def beta_limit(bench: Workbench, request: Request) -> float:
    """Return the colour limit of betas in training SD, the same for all trials of a subject."""
    place = request.dataset, request.subject
    return bench.caches.maps.get(
        ("largest beta", *place),
        lambda: _largest_beta(bench, request, *bench.models.encoder(*place).statistics()),
    )


def _largest_beta(bench: Workbench, request: Request, mean: np.ndarray, sd: np.ndarray) -> float:
    size = [abs(b - mean) / sd for b in _averages(bench, request, _even(bench, request)).values()]
    return float(np.percentile(size, LIMIT_PERCENTILE)) or 1.0


def limit_rows(bench: Workbench, request: Request, view: View) -> int:
    """Return how many trials' importance fixes the colours of a view, 0 where that is known."""
    parcellation = parcellation_of(bench, request.dataset, request.subject, view.atlas)
    if bench.caches.limits.peek(_limits_key(bench, request, view, parcellation)) is not None:
        return 0
    return len(_even(bench, request)[:: _every(view)])


def _every(view: View) -> int:
    """Return of how many trials one fixes limits: that many passes its importance takes."""
    return importance.NODES if view.method == METHODS[2] else 1


def _even(bench: Workbench, request: Request) -> list[str]:
    """Return the test stimuli that fix colour limits, evenly spaced over all."""
    stimuli = list(bench.catalogue.gallery(request.dataset, request.subject).index)
    return [stimuli[i] for i in metrics.evenly(len(stimuli), LIMIT_TRIALS)]


def _averages(bench: Workbench, request: Request, stimuli: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the mean test betas (V,) by stimulus, of those that are finite."""
    trials = bench.catalogue.trials(request.dataset, request.subject)
    averages = {stimulus: trials.average(stimulus) for stimulus in stimuli}
    return {s: betas for s, betas in averages.items() if np.isfinite(betas).all()}


def shown_map(bench: Workbench, request: Request, view: View) -> ParcelMap | VoxelMap:
    """Return what ``view.shows``: importance, or what else is known of the voxels."""
    show = parcel_importance if view.shows == IMPORTANCE else map_of_voxels
    return show(bench, request, view)


def _map(bench: Workbench, request: Request, view: View) -> ParcelMap:
    parcellation = parcellation_of(bench, request.dataset, request.subject, view.atlas)
    betas = request_betas(bench, request)[None]
    voxels = attribute_voxels(bench, request, view, betas, [request.stimulus])[0]
    limits = _colour_limits(bench, request, view, parcellation)
    completeness = _completeness(bench, request, view, betas, voxels[None])
    return _parcel_map(voxels, view, parcellation, limits, completeness)


def _parcel_map(
    voxels: np.ndarray,
    view: View,
    parcellation: Parcellation,
    limits: dict[str, tuple[float, float]],
    completeness: float | None,
) -> ParcelMap:
    return ParcelMap(
        table=importance.per_parcel(voxels, parcellation),
        atlas=parcellation.name,
        method=view.method,
        target=view.target,
        n_voxels=voxels.size,
        flat=bool(importance.is_flat(voxels)),
        limits=limits,
        voxels=voxels,
        completeness=completeness,
    )


def _completeness(
    bench: Workbench, request: Request, view: View, betas: np.ndarray, attribution: np.ndarray
) -> float | None:
    """Return how far one trial's integrated gradients are from complete."""
    if view.method != METHODS[2]:
        return None
    mapper = bench.models.mapper(request.dataset, request.subject, request.mapper)
    target, space = (
        _target(bench, request, view, [request.stimulus]),
        decoded_space(bench, request),
    )
    errors = importance.completeness_error(
        mapper, betas, request.subject, target, attribution, space=space
    )
    return float(errors[0])


def attribute_voxels(
    bench: Workbench,
    request: Request,
    view: View,
    betas: np.ndarray,
    shown: Sequence[str],
    mapper: Any = None,
) -> np.ndarray:
    """Return float32 (n, V) for betas (n, V) of the stimuli that were shown.

    ``mapper`` takes the place of the request's own, e.g. one with random weights.
    """
    own = bench.models.mapper(request.dataset, request.subject, request.mapper)
    target, space = _target(bench, request, view, shown), decoded_space(bench, request)
    stopping.look()
    return importance.attribute(
        mapper or own, betas, request.subject, target, view.method, space=space
    )


def _target(
    bench: Workbench, request: Request, view: View, shown: Sequence[str]
) -> importance.Target | importance.LogLikelihood:
    """Return what importance is of, in trials in which these stimuli were shown."""
    space = decoded_space(bench, request)
    stimuli = list(bench.catalogue.gallery(request.dataset, request.subject).index)
    gallery = bench.models.embed(request.dataset, stimuli, space)
    rows = [stimuli.index(stimulus) for stimulus in shown]
    if view.target == TARGETS[0]:
        return margin_target(gallery, rows, space, temperature(bench, request))
    if view.target == LIKELIHOOD:
        return importance.LogLikelihood(gallery[rows])
    return importance.fixed_direction(gallery[rows])  # the shown picture's own embedding


def _colour_limits(
    bench: Workbench, request: Request, view: View, parcellation: Parcellation
) -> dict[str, tuple[float, float]]:
    return bench.caches.limits.get(
        _limits_key(bench, request, view, parcellation),
        lambda: _find_limits(bench, request, view, parcellation),
    )


def _limits_key(
    bench: Workbench, request: Request, view: View, parcellation: Parcellation
) -> tuple:
    space = decoded_space(bench, request)
    key = (request.dataset, request.subject, request.mapper, space)
    return (*key, view.method, view.target, parcellation.name)


def _find_limits(
    bench: Workbench, request: Request, view: View, parcellation: Parcellation
) -> dict[str, tuple[float, float]]:
    averages = _averages(bench, request, _even(bench, request)[:: _every(view)])
    betas = np.stack(list(averages.values()))
    voxels = attribute_voxels(bench, request, view, betas, list(averages))
    values = importance.parcel_statistics(voxels, parcellation)
    sizes = parcellation.masks().sum(axis=1)
    drawn = sizes >= importance.SMALL  # small parcels are greyed, their values are wild
    drawn[-1] = False  # (unassigned) is not on the surface
    drawn = drawn if drawn.any() else sizes > 0
    limits = {}
    for measure in MEASURES:
        known = np.abs(values[measure][:, drawn])
        known = known[np.isfinite(known)]
        top = float(np.percentile(known, LIMIT_PERCENTILE)) if known.size else 0.0
        top = top or 1.0
        limits[measure] = (-top if measure == "signed" else 0.0, top)
    return limits


def _trials(n: int) -> str:
    return "one trial" if n == 1 else f"mean of {n} trials"
