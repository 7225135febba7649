"""Where embeddings and pictures lie among the test stimuli, and what a trial's badges say.

Everything is asked of a `Workbench`. A rank or a share says nothing without its N and chance, so
each answer carries them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from explorer import metrics, stopping
from explorer.choosing import space_names
from explorer.decoding import (
    deciding,
    decode_betas,
    decoded_space,
    retrieval_margins,
    similarities,
    undecoded,
)
from explorer.drawing import condition_of, seen
from explorer.finished import SIMILARITY
from explorer.protocols import Condition, Neighbour
from explorer.request import Request
from explorer.types import EmbeddingSpace, UserError
from explorer.workbench import Workbench

IDENTIFICATION = "identification"
RANKED_BY = ("similarity", "margin", IDENTIFICATION)
COLLAPSED = 0.5  # of the true effective rank: below it we say so (our choice)
ROWS_AT_ONCE = 64
KEPT_BYTES = 128 * 2**20  # token spaces of a thousand test images are larger


@dataclass(frozen=True)
class Place:
    """Where one embedding lies among the ``n`` test stimuli of a subject.

    ``similarity`` to the shown image: cosine where the space has unit norm, else Pearson
    correlation. ``rank`` of the shown image from 1 (chance (n + 1) / 2; ties share the middle).
    ``identification``: the share of the other test images that are less similar than the shown
    one, 0 to 1 (chance 0.5). ``margin``: the retrieval margin in nats, NaN for pictures. With a
    gallery of one image all but the similarity are NaN.
    """

    similarity: float
    rank: float
    n: int
    identification: float
    margin: float = float("nan")


@dataclass(frozen=True)
class Standing:
    """Where a trial ranks among the test trials of its subject by one of `RANKED_BY`.

    ``position`` counts from 1, the best, among ``n`` test stimuli; ``percentile`` is the share in
    % of the others that fare worse, ties counting half.
    """

    ranked_by: str
    value: float
    position: float
    percentile: float
    n: int
    sentence: str


@dataclass(frozen=True)
class Collapse:
    """How many dimensions ``n`` predictions fill, and the true embeddings of the same images."""

    predicted: float
    true: float
    n: int
    sentence: str


def places(bench: Workbench, request: Request, embeddings: np.ndarray) -> list[Place]:
    """Return where raw embeddings (n, ...) of the request's space lie."""
    found = _places(bench, request, embeddings, decoded_space(bench, request))
    margins = retrieval_margins(bench, request, embeddings)
    return [replace(p, margin=float(m)) for p, m in zip(found, margins, strict=True)]


def picture_place(bench: Workbench, request: Request, image: np.ndarray) -> Place | None:
    """Return where a picture uint8 (H, W, 3) lies by its pocket-clip; None without its weights.

    None, too, where no single picture stands for the stimulus.
    """
    if SIMILARITY not in bench.catalogue.embedders:
        return None
    if bench.catalogue.without_picture(request.dataset, request.stimulus):
        return None
    try:
        embedder = bench.models.embedder(SIMILARITY)
    except UserError as error:
        bench.catalogue.report(f"Pictures are not compared in {SIMILARITY}: {error}")
        return None
    space = embedder.spaces[0]
    return _places(bench, request, seen(bench, embedder, [image]), space)[0]


def _places(
    bench: Workbench, request: Request, embeddings: np.ndarray, space: EmbeddingSpace
) -> list[Place]:
    stimuli = list(bench.catalogue.gallery(request.dataset, request.subject).index)
    gallery, n = bench.models.embed(request.dataset, stimuli, space), len(stimuli)
    similar = similarities(embeddings, gallery, space)
    index = np.full(len(similar), stimuli.index(request.stimulus))
    ranks = shares = np.full(len(similar), np.nan)
    if n > 1:
        ranks = metrics.retrieval_rank(similar, index)
        shares = metrics.identification(similar, index)
    columns = zip(similar[:, index[0]], ranks, shares, strict=True)
    return [Place(float(s), float(r), n, float(i)) for s, r, i in columns]


def decoded_test(bench: Workbench, request: Request) -> tuple[list[str], np.ndarray]:
    """Return the test stimuli and what is decoded from each, raw (N, ...), kept unless huge.

    From the same repeats as the request; stimuli that lack one of them, or whose betas are not
    finite, are left out.
    """
    if reason := undecoded(bench, request):
        raise UserError(reason)
    plain = deciding(replace(request, stimulus=""))
    n, size = (
        len(bench.catalogue.gallery(request.dataset, request.subject)),
        decoded_space(bench, request).size,
    )
    if 4 * n * size > KEPT_BYTES:
        return _decode_test(bench, plain)
    return bench.kept("decoded test trials", lambda: _decode_test(bench, plain), plain)


def left_out(bench: Workbench, request: Request, kept: int) -> str:
    """Return how many test stimuli an answer about ``kept`` of them does not count, "" for none.

    What is left out makes a mean better or worse, so it is said wherever one stands.
    """
    return lost_images(len(bench.catalogue.gallery(request.dataset, request.subject)), kept)


def lost_images(every: int, kept: int) -> str:
    """Return the sentence of `left_out` for ``kept`` of ``every`` test images."""
    lost = every - kept
    if not lost:
        return ""
    return (
        f"{lost} of {every} test images {'is' if lost == 1 else 'are'} left out: no such repeats, "
        "or betas or a prediction that are not finite, or none is published."
    )


def betas_of_test(bench: Workbench, request: Request) -> tuple[list[str], np.ndarray]:
    """Return the test stimuli and their betas float32 (N, V), chosen as in `decoded_test`."""
    trials = bench.catalogue.trials(request.dataset, request.subject)
    kept, rows = [], []
    for stimulus in bench.catalogue.gallery(request.dataset, request.subject).index:
        there = trials.rows("test", stimulus, request.repeats)
        if len(there) < len(request.repeats):
            continue
        betas = trials.average(stimulus, request.repeats)
        if np.isfinite(betas).all():
            kept.append(stimulus)
            rows.append(betas)
    if not kept:
        raise UserError(
            f"{request.dataset}/{request.subject} has no test stimulus with these repeats and "
            "finite betas; choose the average."
        )
    return kept, np.stack(rows)


def _decode_test(bench: Workbench, request: Request) -> tuple[list[str], np.ndarray]:
    space = decoded_space(bench, request)
    if (
        bench.catalogue.offer(request.dataset, request.subject, request.mapper).published
        is not None
    ):
        mapper = bench.models.mapper(request.dataset, request.subject, request.mapper)
        found = {}
        every = bench.catalogue.gallery(request.dataset, request.subject).index
        for stimulus in filter(mapper.holds, every):  # part of the test images may be published
            with contextlib.suppress(UserError):  # not finite: see `left_out`
                found[stimulus] = mapper.lookup(stimulus)[space]
        if not found:
            raise UserError(
                f"{request.mapper} has no usable prediction for any test image of "
                f"{request.dataset}/{request.subject}; choose another mapper."
            )
        return list(found), np.stack(list(found.values()))
    stimuli, betas = betas_of_test(bench, request)
    blocks = stopping.steps(range(0, len(betas), ROWS_AT_ONCE))
    decoded = [decode_betas(bench, request, betas[i : i + ROWS_AT_ONCE])[space] for i in blocks]
    return stimuli, np.concatenate(decoded)


# ------------------------------------------------------------------------------------------ badges


def standing(bench: Workbench, request: Request, ranked_by: str = "similarity") -> Standing:
    """Return where a request's trial ranks among the test trials by what was decoded."""
    if ranked_by not in RANKED_BY:
        raise UserError(
            f"Trials are ranked by {', '.join(RANKED_BY)}, found {ranked_by!r}; choose one."
        )
    stimuli, decoded = decoded_test(bench, request)
    if len(stimuli) < 2 or request.stimulus not in stimuli:
        raise UserError(
            f"A trial is ranked among at least 2 test stimuli that can be decoded, "
            f"{request.dataset}/{request.subject} has {len(stimuli)}; choose other repeats."
        )
    values = trial_values(bench, request, stimuli, decoded, ranked_by)
    own = stimuli.index(request.stimulus)
    position = float(metrics.retrieval_rank(values, own))  # the best value has rank 1
    n = len(stimuli)
    percentile = 100 * (n - position) / (n - 1)
    return Standing(
        ranked_by,
        float(values[own]),
        position,
        percentile,
        n,
        f"By {ranked_by} this trial is decoded better than {percentile:.0f} % of the other "
        f"{n - 1} test images; a typical one stands at 50 %. "
        f"{left_out(bench, request, n)}".rstrip(),
    )


def trial_values(
    bench: Workbench, request: Request, stimuli: Sequence[str], decoded: np.ndarray, name: str
) -> np.ndarray:
    """Return float64 (N,), one of `RANKED_BY` for what was decoded (N, ...) of each stimulus.

    Among the stimuli that are given, in the request's own space; higher is better.
    """
    if name == "margin":
        return retrieval_margins(bench, request, decoded, shown=stimuli)
    space = decoded_space(bench, request)
    every = list(bench.catalogue.gallery(request.dataset, request.subject).index)
    gallery = bench.models.embed(request.dataset, every, space)
    similar = similarities(decoded, gallery[[every.index(s) for s in stimuli]], space)
    return np.diag(similar) if name == "similarity" else _identified(similar)


def _identified(similar: np.ndarray) -> np.ndarray:
    return metrics.identification(similar, np.arange(len(similar)))


def collapse(bench: Workbench, request: Request) -> Collapse:
    """Return how many dimensions the mapper's predictions fill, beside the true embeddings."""
    stimuli, decoded = decoded_test(bench, request)
    space = decoded_space(bench, request)
    every = list(bench.catalogue.gallery(request.dataset, request.subject).index)
    true = bench.models.embed(request.dataset, every, space)
    true = true[[every.index(stimulus) for stimulus in stimuli]]
    ranks = [effective_rank(rows) for rows in (decoded, true)]
    much = ranks[0] / ranks[1]
    meaning = (
        "the mapper gives nearly the same embedding for all images, so pictures will look alike"
        if much < COLLAPSED
        else "predictions are about as varied as the images"
    )
    return Collapse(
        *ranks,
        len(stimuli),
        f"The predictions for {len(stimuli)} test images fill {ranks[0]:.1f} dimensions, their "
        f"true embeddings {ranks[1]:.1f}: {meaning}. "
        f"{left_out(bench, request, len(stimuli))}".rstrip(),
    )


def effective_rank(embeddings: np.ndarray) -> float:
    """Return how many dimensions the rows of (n, ...) fill, 1 to n: exp of an entropy.

    Of the singular values, normalised to sum 1, of the rows at unit length and not centred: rows
    that are all the same give 1, k orthogonal directions used equally give k. NaN for rows of
    zeros. Source: Roy & Vetterli 2007, EUSIPCO, "The effective rank".
    """
    rows = metrics.unit(np.reshape(embeddings, (len(embeddings), -1)))
    values = np.linalg.svd(rows, compute_uv=False)
    if not values.any():
        return float("nan")
    p = values[values > 0] / values.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def no_retrieval(bench: Workbench, request: Request) -> str:
    """Return why the nearest training image cannot be found, in one sentence; "" where it can."""
    if not request.mapper:
        return "There is no mapper here: nothing is decoded that training images could be near to."
    if not _retriever(bench, request):
        return (
            f"No generator here looks for training images by what the mapper {request.mapper} "
            "gives, so the nearest one is not known; choose a mapper to pocket-clip."
        )
    return ""


def nearest_training(
    bench: Workbench, request: Request, image: np.ndarray | None = None
) -> Neighbour:
    """Return the training image nearest to what is decoded, or to a picture uint8 (H, W, 3)."""
    if reason := no_retrieval(bench, request):
        raise UserError(reason)
    name = _retriever(bench, request)
    place = request.dataset, request.subject, request.mapper
    spaces = space_names(bench.catalogue, *place, name)
    space = request.space if request.space in spaces else ""
    condition = condition_of(bench, replace(request, generator=name, space=space, options=()))
    retriever = bench.models.generator(name)
    if image is not None:
        of = next(s for s in retriever.accepts if bench.catalogue.embedder_name(s))
        from_picture = bench.models.embedder(bench.catalogue.embedder_name(of)).embed([image], of)[
            0
        ]
        condition = _with_embedding(condition, of, from_picture)
    return retriever.neighbours(condition)[0]


def _with_embedding(condition: Condition, space: EmbeddingSpace, values: np.ndarray) -> Condition:
    import torch

    return replace(condition, embeddings={space: torch.from_numpy(values)})


def _retriever(bench: Workbench, request: Request) -> str:
    """Return the generator that knows a data set's training images, "" where there is none."""
    names = bench.catalogue.generator_names(request.dataset, request.subject, request.mapper)
    return next(
        (n for n in names if hasattr(bench.catalogue.generator_class(n), "neighbours")), ""
    )
