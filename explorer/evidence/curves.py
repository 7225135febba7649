"""Scores against the guidance scale: of one trial over seeds, and of the test images behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from explorer import metrics
from explorer.choosing import check_request
from explorer.drawing import picture_scores, reconstruct
from explorer.evidence.standing import IDENTIFICATION, picture_place
from explorer.finished import Frame
from explorer.request import Request
from explorer.types import UserError
from explorer.workbench import Workbench

SEEDS = 3
MOST_SEEDS = 16
SAMPLE = 24  # test images behind the curve (our choice: about a minute on the shipped model)


@dataclass(frozen=True, eq=False)
class Curve:
    """One trial's scores at every scale, so far for ``seeds`` of ``of`` seeds.

    ``values``: score -> float64 (seeds, scales); "identification" is that of the picture.
    ``images``: the first seed's pictures uint8 (H, W, 3), one a scale. A value may be undefined,
    NaN; means leave it out and `remark` says so.
    """

    scales: tuple[float, ...]
    seeds: tuple[int, ...]
    of: int
    values: Mapping[str, np.ndarray]
    images: tuple[np.ndarray, ...]

    def mean(self, score: str) -> np.ndarray:
        """Return the mean over seeds (scales,), NaN where no seed has a value."""
        return _means(self.values[score])

    def spread(self, score: str) -> np.ndarray:
        """Return the standard deviation over seeds (scales,); NaN for one seed."""
        columns = [metrics.counted(column) for column in self.values[score].T]
        return np.array([c.std(ddof=1) if len(c) > 1 else np.nan for c in columns])

    @property
    def remark(self) -> str:
        """What the means leave out, one sentence; "" where every value is defined."""
        return _undefined(self.values)


@dataclass(frozen=True, eq=False)
class Background:
    """What test images in general score at every scale, so far for ``n`` of ``of`` of them.

    ``mean`` and ``chance``: score -> float64 (scales,); ``interval``: score -> (scales, 2), 95 %
    bootstrap over stimuli, NaN for one. Chance is 0.5 for identification; of the other scores it
    is measured: each picture against the shown image of another trial of the sample. ``remark``:
    what the means leave out, as of a `Curve`.
    """

    scales: tuple[float, ...]
    n: int
    of: int
    mean: Mapping[str, np.ndarray]
    chance: Mapping[str, np.ndarray]
    interval: Mapping[str, np.ndarray]
    remark: str = ""


def no_curve(bench: Workbench, request: Request) -> str:
    """Return why there is no curve over scales, in one sentence; "" where there is one."""
    if not request.generator:
        return "There is no generator here, so nothing is drawn at any scale."
    if not bench.catalogue.generator_class(request.generator).guided:
        return f"{request.generator} has no guidance: its picture is the same at every scale."
    if len(request.scales) < 2:
        return "A curve over scales takes at least 2 of them; add one to the sweep."
    return ""


def curve(bench: Workbench, request: Request, seeds: int = SEEDS) -> Iterator[Curve]:
    """Return an iterator of a trial's curve over ever more seeds, from the request's own on.

    Finished pictures are kept and closing the iterator stops. A bad request raises here.
    """
    plain = _checked(bench, request)
    if not 1 <= seeds <= MOST_SEEDS:
        raise UserError(f"The number of seeds lies between 1 and {MOST_SEEDS}, found {seeds}.")
    return _curve(bench, plain, seeds)


def _checked(bench: Workbench, request: Request) -> Request:
    check_request(bench.catalogue, request)
    if reason := no_curve(bench, request):
        raise UserError(reason)
    return replace(request.rows()[0], samples=1)


def _curve(bench: Workbench, request: Request, of: int) -> Iterator[Curve]:
    seeds, rows, images = [], [], ()
    for seed in range(request.seed, request.seed + of):
        frames = _sweep(bench, replace(request, seed=seed))
        images = images or tuple(frame.image for frame in frames)
        rows.append(_scores(bench, request, frames))
        seeds.append(seed)
        values = {score: np.stack([row[score] for row in rows]) for score in rows[0]}
        yield Curve(request.scales, tuple(seeds), of, values, images)


def _sweep(bench: Workbench, request: Request) -> list[Frame]:
    """Return the finished pictures in the order of the scales."""
    finished = {frame.index: frame for frame in reconstruct(bench, request) if frame.done}
    return [finished[index] for index in range(len(request.scales))]


def _scores(
    bench: Workbench, request: Request, frames: Sequence[Frame], shown: str = ""
) -> dict[str, np.ndarray]:
    """Return score -> (scales,) against the request's stimulus, or another that was shown."""
    rows = []
    for frame in frames:
        row = (
            picture_scores(bench, request.dataset, shown, frame.image)
            if shown
            else dict(frame.scores)
        )
        place = None if shown else picture_place(bench, request, frame.image)
        rows.append(row | ({} if place is None else {IDENTIFICATION: place.identification}))
    return {score: np.array([row[score] for row in rows]) for score in rows[0]}


def background(bench: Workbench, request: Request, sample: int = SAMPLE) -> Iterator[Background]:
    """Return an iterator of the test images' means and chance, over ever more of a fixed sample.

    ``sample`` test stimuli, evenly spaced, with the request's own seed. What is drawn for one
    stimulus is kept for the next trial's curve; closing the iterator stops. A bad request, or a
    gallery of one image, raises here.
    """
    plain = _checked(bench, request)
    stimuli = list(bench.catalogue.gallery(request.dataset, request.subject).index)
    if len(stimuli) < 2 or sample < 2:
        raise UserError(
            f"The mean over test images and chance take at least 2 of them, found "
            f"{min(len(stimuli), sample)}."
        )
    chosen = [stimuli[i] for i in metrics.evenly(len(stimuli), sample)]
    return _background(bench, plain, chosen)


def _background(bench: Workbench, request: Request, stimuli: list[str]) -> Iterator[Background]:
    own, other = [], []
    for stimulus, another in zip(stimuli, [*stimuli[1:], stimuli[0]], strict=True):
        of_one = replace(request, stimulus=stimulus)
        rows = bench.kept(
            ("background", another),
            lambda of_one=of_one, another=another: _own_and_other(bench, of_one, another),
            of_one,
        )
        own.append(rows[0])
        other.append(rows[1])
        values = {score: np.stack([row[score] for row in own]) for score in own[0]}
        chance = {score: _means(np.stack([row[score] for row in other])) for score in other[0]}
        if IDENTIFICATION in values:
            chance[IDENTIFICATION] = np.full(len(request.scales), 0.5)
        yield Background(
            request.scales,
            len(own),
            len(stimuli),
            {score: _means(rows) for score, rows in values.items()},
            chance,
            {score: _intervals(rows) for score, rows in values.items()},
            _undefined(values),
        )


def _own_and_other(
    bench: Workbench, request: Request, another: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    frames = _sweep(bench, request)
    return _scores(bench, request, frames), _scores(bench, request, frames, shown=another)


def _means(rows: np.ndarray) -> np.ndarray:
    """Return (scales,) for scores (n, scales), over those that are defined."""
    return np.array([metrics.mean_of(column).value for column in rows.T])


def _intervals(rows: np.ndarray) -> np.ndarray:
    """Return (scales, 2) for scores (n, scales), over those that are defined."""
    columns = [metrics.counted(column) for column in rows.T]
    unknown = (float("nan"),) * 2
    return np.array(
        [metrics.bootstrap_interval(c, seed=0) if len(c) > 1 else unknown for c in columns]
    )


def _undefined(values: Mapping[str, np.ndarray]) -> str:
    """Return which scores (n, scales) lack values, one sentence, "" for none."""
    lost = {score: int((~np.isfinite(rows)).sum(axis=0).max()) for score, rows in values.items()}
    told = [
        f"{score} of {count} of {len(values[score])} pictures"
        for score, count in lost.items()
        if count
    ]
    if not told:
        return ""
    return (
        f"Means leave out what is undefined, as the correlation of a picture in one colour: at "
        f"one scale {' and '.join(told)}."
    )
