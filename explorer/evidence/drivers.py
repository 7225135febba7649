"""What drives a parcel: the images with the highest and lowest response and weight.

Three questions about one parcel, each over the test and the training images: which images it
answered to, which an encoding model says it should, and in which the decoder leans on it. None of
them says what the parcel is for: images differ in many things at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer import stopping
from explorer.brain.maps import parcellation_of
from explorer.brain.parcels import UNASSIGNED
from explorer.brain.predicted import correlation_ceiling
from explorer.decoding import (
    decode_betas,
    decoded_space,
    retrieval_margins,
    similarities,
    uncomputed,
    undecoded,
)
from explorer.evidence.controls import statistics
from explorer.evidence.lesions import parcel_rows
from explorer.metrics import evenly, written
from explorer.models import no_embedder
from explorer.request import Request
from explorer.types import EmbeddingSpace, Parcellation, Trials, UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

MEASURED, PREDICTED, WEIGHT = "measured response", "predicted response", "weight in the decoder"
SPLITS = ("test", "train")
RANKINGS = 3 * len(SPLITS)
OF = {"test": "test images", "train": "training images"}
ROWS = 256  # trials that are read, or decoded, at a time
MOST_EMBEDDED = 2_000  # images for which an embedder is started here; more are told to be stored
WEIGHED = 500  # training images, evenly spaced, whose decoding is compared (our choice, for time)
DEFINITIONS = {
    (MEASURED, "test"): "Mean of the betas over the parcel's voxels, averaged over all repeats.",
    (PREDICTED, "test"): "Mean over the parcel's voxels of the betas that the encoding model "
    "predicts from the image alone: no measurement.",
    (WEIGHT, "test"): "By how much the retrieval margin of the shown image falls, in nats, when "
    "the parcel's betas are replaced by their training mean. Below 0 the parcel speaks against "
    "the shown image.",
    (WEIGHT, "train"): "How far the decoded embedding moves (1 - cosine or correlation, 0 to 2) "
    "when the parcel's betas are replaced by their training mean. The decoder was trained on "
    "these images.",
}


@dataclass(frozen=True, eq=False)
class Ranking:
    """Images of one split by one value of a parcel.

    ``table``: a row an image, the highest first: ``stimulus``, ``value`` (``unit``), ``z`` over
    these images, ``repeats`` (trials averaged). ``sentence``: N and what limits it; ``reason``:
    why there is none, then the table is empty.
    """

    name: str
    split: str
    unit: str
    definition: str
    table: pd.DataFrame
    sentence: str = ""
    reason: str = ""


def drivers(bench: Workbench, request: Request, parcel: str, atlas: str = "") -> Iterator[Ranking]:
    """Return an iterator over the `RANKINGS` of a parcel, each when it is there.

    Parameters
    ----------
    request
        Whose data and which mapper; its trial decides nothing.
    parcel
        `Label.key` of a parcel that holds voxels; anything else raises `UserError`.
    """
    atlas_ = parcellation_of(bench, request.dataset, request.subject, atlas)
    row = _row(atlas_, parcel, request)
    return _rankings(bench, request, atlas_, row)


def _rankings(
    bench: Workbench, request: Request, atlas: Parcellation, row: int
) -> Iterator[Ranking]:
    makers = {MEASURED: _measured, PREDICTED: _predicted, WEIGHT: _weight}
    for name, make in makers.items():
        for split in SPLITS:
            try:
                yield make(bench, request, atlas, row, split)
            except UserError as error:  # this one cannot be had; the others can
                yield _ranking(name, split, "", [], [], [], reason=str(error))


def _row(atlas: Parcellation, parcel: str, request: Request) -> int:
    table = parcel_rows(atlas)
    keys = list(table["parcel"])
    who = f"{request.dataset}/{request.subject}"
    if not atlas.labels:
        raise UserError(f"{who} has no atlas, so it has no parcel to ask about.")
    if parcel not in keys or parcel == UNASSIGNED:
        raise UserError(f"The atlas {atlas.name} has no parcel {parcel!r}; choose one of its.")
    row = keys.index(parcel)
    if not table["voxels"].iloc[row]:
        raise UserError(f"{parcel} has no voxels of {who}; choose another parcel.")
    return row


def _ranking(
    name: str,
    split: str,
    unit: str,
    stimuli: Sequence[str],
    values: Sequence[float],
    repeats: Sequence[int],
    sentence: str = "",
    reason: str = "",
) -> Ranking:
    import pandas as pd

    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    spread = values[known].std() if known.any() else 0.0
    centre = values[known].mean() if known.any() else 0.0
    table = pd.DataFrame(
        {
            "stimulus": np.asarray(stimuli, dtype=object)[known],
            "value": values[known],
            "z": (values[known] - centre) / spread if spread > 0 else np.zeros(known.sum()),
            "repeats": np.asarray(repeats, dtype=int)[known],
        }
    ).sort_values("value", ascending=False, kind="stable", ignore_index=True)
    definition = DEFINITIONS.get((name, split)) or DEFINITIONS[name, "test"]
    if lost := int((~known).sum()):
        sentence += f" Left out, as their betas are not finite: {lost}."
    return Ranking(name, split, unit, definition, table, sentence.strip(), reason)


def _stimuli(trials: Trials, split: str) -> list[str]:
    stimuli = trials.stimuli(split)
    if not stimuli:
        who = f"{trials.subject.dataset}/{trials.subject.name}"
        raise UserError(f"{who} has no trials of {OF[split]}.")
    return stimuli


# --------------------------------------------------------------------------------------- measured


def parcel_means(betas: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the mean over each parcel's finite voxels, float32 (n, L), of betas (n, V).

    ``masks``: bool (L, V). NaN where a parcel has no finite voxel in a row.
    """
    betas = np.asarray(betas, dtype=np.float32)
    finite = np.isfinite(betas)
    weights = masks.T.astype(np.float32)
    if finite.all():
        counts = np.broadcast_to(weights.sum(axis=0), (len(betas), len(masks)))
    else:
        counts = finite.astype(np.float32) @ weights
        betas = np.where(finite, betas, 0)
    out = np.full(counts.shape, np.nan, dtype=np.float32)
    return np.divide(betas @ weights, counts, out=out, where=counts > 0)


def _measured_trials(
    bench: Workbench, request: Request, atlas: Parcellation, split: str
) -> np.ndarray:
    """Return every parcel's mean in every trial of a split, float32 (n, L + 1), read once."""
    trials = bench.catalogue.trials(request.dataset, request.subject)

    def make() -> np.ndarray:
        rows, masks = trials.rows(split), atlas.masks()
        parts = [rows[i : i + ROWS] for i in range(0, len(rows), ROWS)]
        return np.concatenate(
            [parcel_means(trials.betas[part], masks) for part in stopping.steps(parts)]
        )

    key = ("parcel means", request.dataset, request.subject, atlas.name, split)
    return bench.kept_array(key, make)


def _measured(
    bench: Workbench, request: Request, atlas: Parcellation, row: int, split: str
) -> Ranking:
    trials = bench.catalogue.trials(request.dataset, request.subject)
    stimuli = _stimuli(trials, split)
    values = _measured_trials(bench, request, atlas, split)[:, row].astype(np.float64)
    shown = trials.table["stimulus"].iloc[trials.rows(split)].to_numpy()
    place = {stimulus: i for i, stimulus in enumerate(stimuli)}
    index = np.array([place[s] for s in shown])
    repeats = np.bincount(index, minlength=len(stimuli))
    means = np.bincount(index, values, minlength=len(stimuli)) / repeats  # NaN stays NaN
    few, most = repeats.min(), repeats.max()
    over = (
        "1 trial" if most == 1 else f"{few} trials" if few == most else f"{few} to {most} trials"
    )
    told = f"{len(stimuli):,} {OF[split]}, each the average of {over}. {ceiling(values, index)}"
    return _ranking(MEASURED, split, trials.beta_unit, stimuli, means, repeats, told)


def ceiling(values: np.ndarray, index: np.ndarray) -> str:
    """Return the noise ceiling of a response in one sentence.

    Of values (n,) of single trials of the stimuli ``index`` (n,), whole numbers from 0. Noise is
    the variance between repeats, signal what is left of the variance between averages, as Allen et
    al. 2022, Nat. Neurosci. 25:116 have it for voxels.
    """
    known = np.isfinite(values)
    values, index = values[known], index[known]
    counts = np.bincount(index)
    several = counts > 1
    if several.sum() < 3:
        return "No noise ceiling: fewer than 3 of them were shown more than once."
    keep = several[index]
    sums = np.bincount(index[keep], values[keep], minlength=len(counts))
    means = np.divide(sums, counts, out=np.zeros(len(counts)), where=counts > 0)
    residual = values[keep] - means[index[keep]]
    noise = float((residual**2).sum() / (keep.sum() - several.sum()))
    total = float(means[several].var(ddof=1))
    signal = max(0.0, total - noise * float(np.mean(1 / counts[several])))
    ratio = np.sqrt(signal / noise) if noise > 0 else np.inf
    highest = (
        1.0 if np.isinf(ratio) else correlation_ceiling(np.array([ratio]), counts[several])[0]
    )
    return (
        f"Noise ceiling: their order can correlate with a noiseless one by at most "
        f"{written(float(highest))} (from {int(several.sum()):,} images with repeats)."
    )


# -------------------------------------------------------------------------------------- predicted


def _predicted(
    bench: Workbench, request: Request, atlas: Parcellation, row: int, split: str
) -> Ranking:
    dataset, subject = request.dataset, request.subject
    trials = bench.catalogue.trials(dataset, subject)
    encoder = bench.models.encoder(dataset, subject)
    stimuli = _stimuli(trials, split)
    shown = [s for s in stimuli if not bench.catalogue.without_picture(dataset, s)]
    if not shown:
        raise UserError(bench.catalogue.without_picture(dataset, stimuli[0]))
    for space in encoder.spaces:
        ready = bench.models.is_embedded(dataset, shown, space)
        if not ready and not bench.catalogue.embedder_name(space):
            raise UserError(no_embedder(space))
        if not ready and len(shown) > MOST_EMBEDDED:
            raise UserError(
                f"The encoding model needs {len(shown):,} {OF[split]} in {space.name}, more than "
                f"the {MOST_EMBEDDED:,} that are embedded for a page."
            )

    def make() -> np.ndarray:
        given = {space: bench.models.embed(dataset, shown, space) for space in encoder.spaces}
        parts = [slice(i, i + ROWS) for i in range(0, len(shown), ROWS)]
        masks = atlas.masks()
        return np.concatenate(
            [
                parcel_means(encoder.predict({s: z[part] for s, z in given.items()}), masks)
                for part in stopping.steps(parts)
            ]
        )

    weights = bench.models.encoder_hash(dataset, subject)
    key = ("predicted parcel means", dataset, subject, atlas.name, split, weights)
    values = bench.kept_array(key, make)[:, row]
    told = f"{len(shown):,} {OF[split]}, by a {encoder.description}."
    if split == "train":
        told += " It was trained on their measured betas."
    nobody = np.zeros(len(shown), dtype=int)
    return _ranking(PREDICTED, split, trials.beta_unit, shown, values, nobody, told)


# ----------------------------------------------------------------------------------------- weight


def _weight(
    bench: Workbench, request: Request, atlas: Parcellation, row: int, split: str
) -> Ranking:
    if why := uncomputed(bench, request):
        raise UserError(why)
    trials = bench.catalogue.trials(request.dataset, request.subject)
    stimuli = _stimuli(trials, split)
    every = len(stimuli)
    if split == "test":
        if why := undecoded(bench, request):
            raise UserError(why)
        if every < 2:
            raise UserError("There is one test image, so there is no retrieval margin.")
    else:
        stimuli = [stimuli[i] for i in evenly(every, WEIGHED)]
    space, mask = decoded_space(bench, request), atlas.masks()[row]
    mean, _ = statistics(bench, request)
    values = np.full(len(stimuli), np.nan)
    for i in stopping.steps(range(0, len(stimuli), ROWS)):
        names = np.array(stimuli[i : i + ROWS])
        betas = np.stack([trials.average(str(name), split=split) for name in names])
        finite = np.isfinite(betas).all(axis=1)
        if finite.any():
            values[i + np.flatnonzero(finite)] = _change(
                bench, request, betas[finite], names[finite].tolist(), mask, mean, space, split
            )
    repeats = [len(trials.rows(split, s)) for s in stimuli]
    told = f"{len(stimuli):,} {OF[split]}, decoded by {request.mapper} into {space.name}."
    if len(stimuli) < every:
        told = f"Of {every:,} {OF[split]}, evenly spaced: {told}"
    unit = "nats" if split == "test" else "embedding shift"
    return _ranking(WEIGHT, split, unit, stimuli, values, repeats, told)


def _change(
    bench: Workbench,
    request: Request,
    betas: np.ndarray,
    stimuli: Sequence[str],
    mask: np.ndarray,
    mean: np.ndarray,
    space: EmbeddingSpace,
    split: str,
) -> np.ndarray:
    """Return what the lesion of a mask (V,) changes in the decoding of betas (n, V)."""
    without = np.where(mask, mean.astype(np.float32), betas)
    both = decode_betas(bench, request, np.concatenate([betas, without]))[space]
    intact, lesioned = both[: len(betas)], both[len(betas) :]
    if split == "train":
        return 1 - np.diag(similarities(intact, lesioned, space))
    before, after = (retrieval_margins(bench, request, z, stimuli) for z in (intact, lesioned))
    return before - after
