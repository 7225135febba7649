"""Two requests side by side on one stimulus, all subjects on it, and differences over test images.

Differences are paired: both sides answer for the same stimuli, so what makes a stimulus easy or
hard falls out of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from explorer import metrics
from explorer.brain.maps import ParcelMap, parcel_importance
from explorer.choosing import check_request
from explorer.decoding import decode, decoded_space, similarities, undecoded
from explorer.drawing import draw_together
from explorer.evidence.controls import at_scale, own_picture
from explorer.evidence.lesions import difference
from explorer.evidence.standing import (
    IDENTIFICATION,
    Place,
    decoded_test,
    lost_images,
    picture_place,
    places,
)
from explorer.finished import Frame
from explorer.request import Request, View
from explorer.types import UserError
from explorer.workbench import Workbench

if TYPE_CHECKING:
    import pandas as pd

RANK, TWO_WAY, SIMILAR = "retrieval rank", "two-way identification", "similarity"
OF_EMBEDDINGS = (TWO_WAY, RANK, SIMILAR)  # what is decoded
NORMALISED = ("enrichment", "share")  # within a map, so that two maps can be held together
AT_ONCE = 8  # of these, both sides in one batch: fewer would come sooner, more cost no less
SAMPLE = 24  # test images whose pictures are drawn for a paired difference (our choice)


@dataclass(frozen=True, eq=False)
class Side:
    """What one request gives for a stimulus: its picture, and where picture and embedding lie.

    ``decoded`` and ``drawn`` as in `controls.Control`. ``reason``: why there is nothing, "".
    """

    request: Request
    frame: Frame | None = None
    decoded: Place | None = None
    drawn: Place | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two sides, the `lesions.difference` from a to b, and what of them may be compared."""

    a: Side
    b: Side
    difference: np.ndarray
    sentence: str


@dataclass(frozen=True, eq=False)
class MapPair:
    """Two parcel maps on common limits.

    ``table``: parcel, name, hemisphere, a, b and difference (b - a) in ``measure``, one row a
    parcel that both have; ``limits`` for both maps, ``difference_limits`` symmetric around 0.
    ``correlation``: Spearman over parcels with voxels on both sides, chance 0.
    """

    a: ParcelMap
    b: ParcelMap
    measure: str
    table: pd.DataFrame
    limits: tuple[float, float]
    difference_limits: tuple[float, float]
    correlation: float
    sentence: str


@dataclass(frozen=True)
class PairedDifference:
    """Means of a metric over ``n`` of ``of`` test stimuli, and of the difference b - a.

    ``undefined``: stimuli left out because one side has no value, e.g. the correlation of a
    picture in one colour; so that both means are over the same stimuli.
    ``interval``: 95 % bootstrap over stimuli, NaN for one stimulus. ``better``: "a", "b", or "" if
    the interval holds 0. ``chance``: of the metric, NaN where it is not known.
    """

    metric: str
    a: float
    b: float
    difference: float
    interval: tuple[float, float]
    better: str
    chance: float
    n: int
    of: int
    sentence: str
    undefined: int = 0


# ------------------------------------------------------------------------------------ one stimulus


def compare(bench: Workbench, a: Request, b: Request, scale: float | None = None) -> Pair:
    """Return two requests' pictures of one stimulus at one scale (default a's `sampled_scale`)."""
    _same_stimulus(a, b)
    one = at_scale(bench, a, scale)
    sides = [side(bench, one), side(bench, at_scale(bench, b, one.scales[0]))]
    change = difference(sides[0].frame.image, sides[1].frame.image)
    return Pair(*sides, change, comparable(bench, a, b))


def side(bench: Workbench, request: Request) -> Side:
    """Return what a request gives at its first scale."""
    frame = own_picture(bench, request)
    decoded = None
    if not undecoded(bench, request):
        decoded = places(bench, request, decode(bench, request).embedding[None])[0]
    return Side(request, frame, decoded, picture_place(bench, request, frame.image))


def across_subjects(
    bench: Workbench, request: Request, scale: float | None = None
) -> Iterator[Side]:
    """Return an iterator over the data set's subjects on a request's stimulus, own one included.

    Each with the mapper of the same name; who has not seen the stimulus, or has no such mapper,
    comes with a reason.
    """
    one = at_scale(bench, request, scale)
    for subject in bench.catalogue.subjects(request.dataset):
        other = replace(one, subject=subject)
        try:
            check_request(bench.catalogue, other)
            found = side(bench, other)
        except UserError as error:
            found = Side(other, reason=str(error))
        yield found


def comparable(bench: Workbench, a: Request, b: Request) -> str:
    """Return what of two requests may be compared, in one sentence."""
    if not (a.mapper and b.mapper):
        return "Only the pictures can be compared: on one side nothing is decoded."
    spaces = [decoded_space(bench, request) for request in (a, b)]
    if spaces[0] == spaces[1]:
        return f"Both are decoded into {spaces[0].name}, so all their figures can be compared."
    return (
        f"One is decoded into {spaces[0].name}, the other into {spaces[1].name}: similarities and "
        "margins of two spaces cannot be compared; ranks and identification can, as each counts "
        "within its own space among the same test images."
    )


def compare_maps(bench: Workbench, a: Request, b: Request, view: View) -> MapPair:
    """Return the parcel maps of two requests on common limits, and their difference."""
    _same_stimulus(a, b)
    same = (a.subject, a.mapper) == (b.subject, b.mapper)
    if view.measure not in NORMALISED and not same:
        raise UserError(
            f"{view.measure} is in each mapper's own unit, so two mappers' maps of it have no "
            f"difference; choose {' or '.join(NORMALISED)}."
        )
    shown = [parcel_importance(bench, request, view) for request in (a, b)]
    tables = [one.table.set_index("parcel") for one in shown]
    keys = [key for key in tables[0].index if key in tables[1].index]
    values = [table.loc[keys, view.measure].to_numpy() for table in tables]
    table = tables[0].loc[keys, ["name", "hemisphere"]].reset_index()
    table = table.assign(a=values[0], b=values[1], difference=values[1] - values[0])
    ends = np.array([one.limits[view.measure] for one in shown])
    change = table["difference"].abs().max()
    top = float(change) if np.isfinite(change) and change > 0 else 1.0
    found, n = metrics.spearman(*values), int(np.isfinite(values[0] + values[1]).sum())
    sentence = (
        f"Over {n} parcels the two maps have the rank correlation {metrics.written(found)} in "
        f"{view.measure}."
        if np.isfinite(found)
        else f"The two maps share {n} parcels with voxels, too few to correlate."
    )
    return MapPair(
        *(*shown, view.measure, table, (float(ends[:, 0].min()), float(ends[:, 1].max()))),
        *((-top, top), found, sentence),
    )


def _same_stimulus(a: Request, b: Request) -> None:
    if (a.dataset, a.stimulus) != (b.dataset, b.stimulus):
        raise UserError(
            f"Two sides are compared on one stimulus, found {a.dataset}/{a.stimulus} and "
            f"{b.dataset}/{b.stimulus}; choose the same trial for both."
        )


# ----------------------------------------------------------------------------------- over test set


def paired_difference(
    bench: Workbench, a: Request, b: Request, metric: str = TWO_WAY
) -> PairedDifference:
    """Return how much better one side decodes, over the test stimuli that both have.

    ``metric``: one of `OF_EMBEDDINGS`. Ranks and identification are among these stimuli, each in
    its side's own space; a similarity of two spaces is refused.
    """
    if metric not in OF_EMBEDDINGS:
        raise UserError(
            f"What is decoded is compared by {', '.join(OF_EMBEDDINGS)}, found {metric!r}."
        )
    spaces = [decoded_space(bench, request) for request in (a, b)]
    if metric == SIMILAR and spaces[0] != spaces[1]:
        raise UserError(
            f"A similarity in {spaces[0].name} and one in {spaces[1].name} are different scales; "
            f"choose {TWO_WAY} or {RANK}."
        )
    decoded = [decoded_test(bench, request) for request in (a, b)]
    both = [s for s in decoded[0][0] if s in set(decoded[1][0])]
    if len(both) < 2:
        raise UserError(
            f"A paired difference takes at least 2 test stimuli that both sides have, found "
            f"{len(both)}; choose two requests of one data set."
        )
    values = [
        decoded_values(bench, request, stimuli, rows, both, metric)
        for request, (stimuli, rows) in zip((a, b), decoded, strict=True)
    ]
    n = len(both)
    chance = {TWO_WAY: 0.5, RANK: (n + 1) / 2, SIMILAR: float("nan")}[metric]
    shared = set.intersection(
        *(set(bench.catalogue.gallery(r.dataset, r.subject).index) for r in (a, b))
    )
    return _paired(metric, *values, chance, n, lost_images(len(shared), n))


def decoded_values(
    bench: Workbench,
    request: Request,
    stimuli: Sequence[str],
    decoded: np.ndarray,
    chosen: Sequence[str],
    metric: str,
) -> np.ndarray:
    """Return the metric float64 (n,) of the chosen stimuli, among them alone."""
    every = list(bench.catalogue.gallery(request.dataset, request.subject).index)
    space = decoded_space(bench, request)
    gallery = bench.models.embed(request.dataset, every, space)
    rows = decoded[[stimuli.index(s) for s in chosen]]
    similar = similarities(rows, gallery[[every.index(s) for s in chosen]], space)
    index = np.arange(len(chosen))
    if metric == SIMILAR:
        return np.diag(similar)
    score = metrics.retrieval_rank if metric == RANK else metrics.identification
    return score(similar, index)


def paired_pictures(
    bench: Workbench,
    a: Request,
    b: Request,
    metric: str = IDENTIFICATION,
    *,
    scale: float | None = None,
    sample: int = SAMPLE,
) -> Iterator[PairedDifference]:
    """Return an iterator of the difference in a score of pictures, over ever more test images.

    ``metric``: a score of `Frame`, or "identification" (`Place`, of the picture). One picture a
    side and stimulus, of ``sample`` stimuli that both have, evenly spaced and always the same;
    closing the iterator stops, and what is drawn is kept.
    """
    requests = [at_scale(bench, request, scale) for request in (a, b)]
    galleries = [list(bench.catalogue.gallery(r.dataset, r.subject).index) for r in requests]
    both = [stimulus for stimulus in galleries[0] if stimulus in set(galleries[1])]
    if a.dataset != b.dataset or len(both) < 2:
        raise UserError(
            "Pictures of two sides are compared over at least 2 test stimuli that both have; "
            "choose two requests of one data set."
        )
    chosen = [both[i] for i in metrics.evenly(len(both), sample)]
    return _paired_pictures(bench, requests, chosen, metric)


def _paired_pictures(
    bench: Workbench, requests: Sequence[Request], stimuli: Sequence[str], metric: str
) -> Iterator[PairedDifference]:
    values: list[list[float]] = [[], []]
    chance = 0.5 if metric == IDENTIFICATION else float("nan")
    for i, stimulus in enumerate(stimuli):
        if i % AT_ONCE == 0:
            coming = stimuli[i : i + AT_ONCE]
            draw_together(bench, [replace(r, stimulus=s) for s in coming for r in requests])
        for request, row in zip(requests, values, strict=True):
            found = picture_scores(bench, replace(request, stimulus=stimulus))
            if metric not in found:
                raise UserError(
                    f"Pictures have no score {metric!r} here; choose {' or '.join(found)}."
                )
            row.append(found[metric])
        yield _paired(metric, *map(np.array, values), chance, len(stimuli))


def picture_scores(bench: Workbench, request: Request) -> dict[str, float]:
    """Return the scores of a request's picture at its first scale, and its identification."""

    def make() -> dict[str, float]:
        frame = own_picture(bench, request)
        place = picture_place(bench, request, frame.image)
        return dict(frame.scores) | (
            {} if place is None else {IDENTIFICATION: place.identification}
        )

    return bench.kept("picture scores", make, request)


def _paired(
    metric: str, a: np.ndarray, b: np.ndarray, chance: float, of: int, lost: str = ""
) -> PairedDifference:
    """Return the difference over the stimuli at which both sides have a value.

    ``lost``: a sentence about stimuli that are not among them.
    """
    change = metrics.mean_of(b - a, "one side has no value, as a picture in one colour has none")
    both = np.isfinite(b - a)
    a, b = a[both], b[both]
    n, mean = change.n, change.value
    interval = metrics.bootstrap_interval(b - a, seed=0) if n > 1 else (float("nan"),) * 2
    upwards, downwards = interval[0] > 0, interval[1] < 0
    better = ""
    if upwards or downwards:
        better = "b" if upwards != (metric == RANK) else "a"
    sentence = f"B - A in {metric} is {mean:+.3g} over {n} test images"
    if not n:
        sentence = f"B - A in {metric} is not known for any of {change.of} test images"
    if n > 1:
        low, high = (f"{end:+.3g}" for end in interval)
        verdict = f"{better.upper()} is better" if better else "the difference may be chance"
        sentence += f" (95 % interval {low} to {high}, over stimuli): {verdict}"
    means = (metrics.mean_of(a).value, metrics.mean_of(b).value)
    return PairedDifference(
        *(metric, *means, mean, interval, better, chance, n, of),
        " ".join(part for part in (f"{sentence}.", change.remark, lost) if part),
        change.undefined,
    )
