"""Drawing a request: its sweep over guidance scales, samples, scores, and how long it takes.

Functions of a `Workbench`; finished pictures are kept in its caches.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import metrics, stopping
from explorer.brain.maps import parcel_importance, parcellation_of
from explorer.choosing import check_request
from explorer.decoding import (
    decode,
    decode_betas,
    decoded_embeddings,
    decoded_space,
    request_betas,
    undecoded,
    unexplained,
)
from explorer.finished import (
    SIMILARITY,
    Decided,
    Frame,
    condition_hash,
    decided_pictures,
    decided_samples,
    finished_pictures,
    finished_samples,
    keep,
    kept,
    sampled_scale,
    telling_options,
)
from explorer.protocols import Condition, Embedder, TrainedOn
from explorer.request import Request, View
from explorer.store import Finished
from explorer.types import CARD, EmbeddingSpace, UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

SETTING_UP = 5.0  # seconds: a step that took longer is not timed again


def reconstruct(bench: Workbench, request: Request) -> Iterator[Frame]:
    """Return an iterator of previews and one finished `Frame` per scale of every row.

    A generator without guidance gives one picture, for the first scale. Finished pictures are
    kept and come at once when asked for again, whatever the other scales are; closing the
    iterator stops the work and keeps what is finished. A bad request raises here, not at the
    first frame.
    """
    check_request(bench.catalogue, request)
    return _frames(bench, request)


def _frames(bench: Workbench, request: Request) -> Iterator[Frame]:
    yield from finished_pictures(bench, request)
    for number, row in enumerate(request.rows()):
        with _memory_told(request.generator):
            for frame in _sweep(bench, row):
                yield replace(frame, row=number)


def _sweep(bench: Workbench, request: Request) -> Iterator[Frame]:
    """Yield the frames of one row's pictures that are not there yet."""
    wanted = decided_pictures(bench, request)
    missing = [i for i, one in enumerate(wanted) if kept(bench, one) is None]
    alike = _without_brain(bench, request) if missing else None
    known = None if alike is None else bench.caches.arrays.peek(alike)
    if known is not None and (zero := [i for i in missing if request.scales[i] == 0]):
        scores = picture_scores(bench, request.dataset, request.stimulus, known)
        for index in zero:
            keep(bench, wanted[index], Finished(known, scores))
            steps = request.steps
            yield Frame(index, 0.0, steps, steps, known, True, scores)
        missing = [i for i in missing if i not in zero]
    if not missing:
        return
    generator, condition = bench.models.generator(request.generator), condition_of(bench, request)
    mark, spent = stopping.clock(), 0.0
    sweep = generator.sweep(
        condition,
        [request.scales[index] for index in missing],
        request.steps,
        request.seed,
        **dict(request.options),
    )
    with contextlib.closing(sweep):
        for step in stopping.steps(sweep):
            index, scores = missing[step.index], {}
            if step.done:
                scores = picture_scores(bench, request.dataset, request.stimulus, step.image)
                picture = Finished(step.image, scores, step.note, step.neighbours)
                keep(bench, wanted[index], picture)
                if alike is not None and request.scales[index] == 0:
                    bench.caches.arrays.put(alike, step.image)
            spent += stopping.clock() - mark
            yield Frame(
                index,
                request.scales[index],
                step.step,
                step.steps,
                step.image,
                step.done,
                scores,
                step.note,
                step.neighbours,
            )
            mark = stopping.clock()  # neither who reads nor who goes first makes it slower
    work = len(missing) * request.steps
    bench.caches.paces[_drawing(bench, request)] = spent / work


def _without_brain(bench: Workbench, request: Request) -> tuple | None:
    """Return what decides a request's picture at scale 0 where no trial does; None elsewhere."""
    generator = bench.models.generator(request.generator)
    if not hasattr(generator, "alike_without_brain"):
        return None
    if not generator.alike_without_brain(**dict(request.options)):
        return None
    weights = bench.models.hashes(request)["generator"]
    return ("without brain", *_drawing(bench, request), request.steps, request.seed, weights)


def seconds_needed(bench: Workbench, request: Request) -> float:
    """Return about how long the pictures of a request take that are not there yet.

    From the last sweep with the same generator and options. Before the first a step of one
    picture is timed; several in a batch take less each, so that is rather too long.
    """
    check_request(bench.catalogue, request)
    if bench.catalogue.generator_class(request.generator).provenance != "generated":
        return 0.0  # looked up, not drawn
    work = []
    for row in request.rows():
        wanted = decided_pictures(bench, row)
        work.append((row, sum(kept(bench, one) is None for one in wanted)))
    plain = replace(request, axis="", values=())
    lacking = len(decided_samples(bench, plain)) - len(finished_samples(bench, plain))
    total = 0.0
    for row, pictures in [*work, (plain, lacking)]:
        if pictures:
            total += pictures * row.steps * _pace(bench, row)
    return total


def _pace(bench: Workbench, request: Request) -> float:
    """Return the seconds that one step of one picture takes with a request's options."""
    drawing = _drawing(bench, request)
    if drawing in bench.caches.paces:
        return bench.caches.paces[drawing]
    generator, condition = bench.models.generator(request.generator), condition_of(bench, request)
    scales, options = request.scales[-1:], dict(request.options)

    def took(steps: int) -> float:
        began = stopping.clock()
        with _memory_told(request.generator):
            sweep = generator.sweep(condition, scales, steps, request.seed, **options)
            with contextlib.closing(sweep):
                for _ in stopping.steps(sweep):
                    pass
        return stopping.clock() - began

    pace = took(1)  # the first call also sets up what later ones find
    if pace < SETTING_UP:
        one = took(1)
        pace = max(took(2) - one, one / 10)  # a step alone, without decoding
    return bench.caches.paces.setdefault(drawing, pace)


def _drawing(bench: Workbench, request: Request) -> tuple:
    return request.generator, telling_options(bench, request)


def draw_together(bench: Workbench, requests: Sequence[Request]) -> None:
    """Draw what is not there yet of requests' pictures at their first scale, many in a batch.

    `reconstruct` finds them then. Requests may differ in trial, subject, mapper and seed; those
    that differ in more, and generators that cannot tell a batch's notes, are left to it.
    """
    by_drawing: dict[tuple, list[tuple[Request, Decided]]] = {}
    for request in requests:
        row = replace(request.rows()[0], scales=request.scales[:1], samples=1)
        (decided,) = decided_pictures(bench, row)
        if kept(bench, decided) is None:
            drawing = (*_drawing(bench, row), row.scales, row.steps)
            by_drawing.setdefault(drawing, []).append((row, decided))
    for wanted in by_drawing.values():
        first = wanted[0][0]
        generator = bench.models.generator(first.generator)
        if len(wanted) < 2 or not hasattr(generator, "noted"):
            continue
        conditions = [condition_of(bench, request) for request, _ in wanted]
        seeds = [request.seed for request, _ in wanted]
        with _memory_told(first.generator):
            drawn = generator.noted(
                conditions, first.scales[0], seeds, first.steps, **dict(first.options)
            )
        if SIMILARITY in bench.catalogue.embedders:
            with contextlib.suppress(UserError):  # without weights: the scores say so
                seen(bench, bench.models.embedder(SIMILARITY), [image for image, _ in drawn])
        for (request, decided), (image, note) in zip(wanted, drawn, strict=True):
            scores = picture_scores(bench, request.dataset, request.stimulus, image)
            keep(bench, decided, Finished(image, scores, note))


def draw_condition(bench: Workbench, request: Request, condition: Condition) -> Frame:
    """Return the finished picture of a condition at the request's first scale, kept.

    Generator, steps, seed, options and the stimulus to score against are the request's.
    """
    request = request.rows()[0]
    (decided,) = decided_pictures(bench, replace(request, scales=request.scales[:1]))
    decided = replace(decided, condition=condition_hash(condition))
    scale, steps = request.scales[0], request.steps
    picture = kept(bench, decided)
    if picture is None:
        sweep = bench.models.generator(request.generator).sweep(
            condition, [scale], steps, request.seed, **dict(request.options)
        )
        with contextlib.closing(sweep), _memory_told(request.generator):
            step = next(step for step in stopping.steps(sweep) if step.done)
        scores = picture_scores(bench, request.dataset, request.stimulus, step.image)
        picture = Finished(step.image, scores, step.note, step.neighbours)
        keep(bench, decided, picture)
    return Frame(0, scale, steps, steps, picture.image, True, *picture[1:])


def draw_samples(bench: Workbench, request: Request) -> list[Frame]:
    """Return one finished picture for each sample from the mapper's density; [] for one.

    All start from the seed's noise and are drawn at `sampled_scale`, so that they differ by
    the samples alone. ``index`` counts samples; one sample does not depend on how many.
    """
    check_request(bench.catalogue, request)
    missing = request.samples - len(finished_samples(bench, request))
    if request.samples > 1 and missing:
        import torch

        space = decoded_space(bench, request)
        mapper = bench.models.mapper(request.dataset, request.subject, request.mapper)
        rows = torch.from_numpy(request_betas(bench, request)[None]).to(bench.models.device)
        drawn = mapper.sample(
            rows, request.subject, request.samples, seed=request.seed, space=space
        )
        condition = condition_of(bench, request)
        with _memory_told(request.generator):
            images = bench.models.generator(request.generator).generate(
                [replace(condition, embeddings={space: z}) for z in drawn[0, -missing:].cpu()],
                sampled_scale(request),
                [request.seed] * missing,
                request.steps,
                **dict(request.options),
            )
        wanted = decided_samples(bench, request)[-missing:]
        for decided, image in stopping.steps(zip(wanted, images, strict=True)):
            scores = picture_scores(bench, request.dataset, request.stimulus, image)
            keep(bench, decided, Finished(image, scores))
    return finished_samples(bench, request)


def condition_of(bench: Workbench, request: Request, betas: np.ndarray | None = None) -> Condition:
    """Return what a request's generator draws from; ``betas`` (V,) replace the trial's."""
    import torch

    cls = bench.catalogue.generator_class(request.generator)
    needs, decoded = cls.needs, {}
    if cls.accepts and betas is None:
        decoded = decoded_embeddings(bench, request)
    elif cls.accepts:
        decoded = {s: z[0] for s, z in decode_betas(bench, request, betas[None]).items()}
    if request.space:  # and no other that the generator might prefer
        others = {space for space in cls.accepts if space.name != request.space}
        decoded = {space: z for space, z in decoded.items() if space not in others}
    if "betas" not in needs:
        betas = None
    elif betas is None:
        betas = request_betas(bench, request)
    return Condition(
        embeddings={s: torch.from_numpy(z) for s, z in decoded.items()},
        nulls=_nulls(bench, request) if cls.accepts else {},
        stimulus=request.stimulus if "stimulus" in needs else None,
        betas=betas,
        voxels=_chosen_voxels(bench, request) if "betas" in needs else None,
        dataset=bench.catalogue.dataset(request.dataset) if "dataset" in needs else None,
        subject=bench.catalogue.trials(request.dataset, request.subject).subject
        if needs
        else None,
    )


def _chosen_voxels(bench: Workbench, request: Request) -> np.ndarray | None:
    """Return bool (V,): the voxels of the parcels that a request chose; None for all."""
    if not request.rois:
        return None
    atlas = parcellation_of(bench, request.dataset, request.subject, request.roi_atlas)
    chosen = [label.key in request.rois for label in atlas.labels]
    return atlas.masks()[:-1][chosen].any(axis=0)


def _nulls(bench: Workbench, request: Request) -> dict[EmbeddingSpace, Any]:
    """Return what a request's mapper learned to give for no brain, {} for nothing."""
    if not bench.catalogue.mapper_can(
        request.dataset, request.subject, request.mapper, "unconditional"
    ):
        return {}
    mapper = bench.models.mapper(request.dataset, request.subject, request.mapper)
    try:
        return {space: z.cpu() for space, z in mapper.unconditional().items()}
    except UserError:  # it could have learned one: then the generator's own null serves
        return {}


def trained_on(bench: Workbench, generator: str) -> TrainedOn | None:
    """Return what pictures a generator was trained on, None for one that shows what is there.

    Weights that were fine-tuned on a study's pictures know that study too.
    """
    from explorer.mapper import read_card

    known = getattr(bench.catalogue.generator_class(generator), "trained_on", None)
    folder = Path(bench.catalogue.sources.get(generator) or "").expanduser()
    if known is None or not known.datasets or not (folder / CARD).is_file():
        return known
    return known._replace(datasets=(*known.datasets, read_card(folder).dataset))


def whose_pictures(bench: Workbench, generator: str, dataset: str) -> str:
    """Return what must stand beside a generator's pictures of a data set, "" for nothing."""
    known = trained_on(bench, generator) if generator else None
    return known.sentence(generator, dataset) if known else ""


def picture_scores(
    bench: Workbench, dataset: str, stimulus: str, image: np.ndarray
) -> dict[str, float]:
    """Return PixCorr, SSIM and pocket-clip similarity of a picture to the shown one.

    At the shown picture's size (enlarged where SSIM's window would not fit). The similarity is
    left out where pocket-clip has no weights; `problems` then says so. No scores at all where no
    single picture stands for the stimulus.
    """
    if bench.catalogue.without_picture(dataset, stimulus):
        return {}
    return likeness(bench, bench.catalogue.image(dataset, stimulus), image, (dataset, stimulus))


def likeness(
    bench: Workbench, truth: np.ndarray, image: np.ndarray, named: tuple[str, str] | None = None
) -> dict[str, float]:
    """Return `picture_scores` against any picture; ``named``: the stimulus that it shows."""
    factor = -(-11 // min(truth.shape[:2]))  # SSIM compares windows of 11 x 11 pixels
    height, width = (factor * side for side in truth.shape[:2])
    shown = metrics.match_size(truth, height, width)
    sized = metrics.match_size(image, height, width)
    scores = {"PixCorr": metrics.pixcorr(shown, sized), "SSIM": metrics.ssim(shown, sized)}
    if SIMILARITY in bench.catalogue.embedders:
        try:
            embedder = bench.models.embedder(SIMILARITY)
        except UserError as error:
            bench.catalogue.report(f"Pictures are not compared in {SIMILARITY}: {error}")
            return scores
        space = embedder.spaces[0]

        def see() -> np.ndarray:
            return embedder.embed([truth], space)

        true = bench.caches.shown.get(named, see) if named else see()
        scores[SIMILARITY] = metrics.cosine(true, seen(bench, embedder, [image]))
    return scores


def seen(bench: Workbench, embedder: Embedder, images: Sequence[np.ndarray]) -> np.ndarray:
    """Return drawn pictures uint8 (H, W, 3) in an embedder's first space, (n, D), each seen once.

    A picture has its scores, its place among the test images, and its chance from one look.
    """
    space, cache = embedder.spaces[0], bench.caches.seen
    keys = [(space, one.shape, hashlib.sha256(one.tobytes()).digest()) for one in images]
    known = {key: cache.peek(key) for key in keys}
    new = {
        key: one for key, one in zip(keys, images, strict=True) if known[key] is None
    }  # each once
    if new:
        rows = embedder.embed(list(new.values()), space)
        for key, row in zip(new, rows, strict=True):
            known[key] = row
            cache.put(key, row)
    return np.stack([known[key] for key in keys])


def warm(
    bench: Workbench,
    request: Request,
    turn: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> None:
    """Load everything that a request needs, so that the first visitor waits less.

    ``turn``: held for each part of it, as for all that asks a model; visitors go in between.
    """
    with turn():
        if request.mapper and not undecoded(bench, request):
            decode(bench, request)
    with turn():
        if request.mapper and not unexplained(bench, request):
            parcel_importance(bench, request, View())
    if not request.generator:
        return
    with turn():
        bench.models.generator(request.generator)
    with turn():
        seconds_needed(bench, request)  # times a step of it
    if not bench.catalogue.without_picture(request.dataset, request.stimulus):
        with turn():
            truth = bench.catalogue.image(request.dataset, request.stimulus)
            picture_scores(bench, request.dataset, request.stimulus, truth)


@contextlib.contextmanager
def _memory_told(generator: str) -> Iterator[None]:
    """Turn running out of memory into a sentence; a generator that can retries by itself."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not full and "not enough memory" not in str(error):
            raise
        raise UserError(
            f"{generator} ran out of memory; give fewer guidance scales, close other programs, or "
            "choose another generator or device."
        ) from error
