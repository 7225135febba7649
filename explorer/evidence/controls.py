"""Controls: the same generator, scale and seed, given something else than this trial's brain.

Side by side they tell how much of a picture comes from the brain and how much from the generator.
A control that cannot be shown says why instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from explorer.choosing import check_request, fixed_scales
from explorer.decoding import decoded_space, uncomputed, undecoded
from explorer.drawing import condition_of, draw_condition, picture_scores, reconstruct
from explorer.evidence.standing import Place, nearest_training, picture_place, places
from explorer.finished import Frame, sampled_scale
from explorer.protocols import Condition
from explorer.request import Request
from explorer.types import Trials, UserError
from explorer.workbench import Workbench

REPEATS = 3  # single repeats that are shown beside their average
TRUE, AVERAGE, NOISELESS = "true embedding", "average over repeats", "noiseless response"
ANOTHER, MEAN, NONE = "another trial's brain", "training-mean brain", "no brain"
NEAREST = "nearest training image"
SINGLES = tuple(f"repeat {i + 1} alone" for i in range(REPEATS))
CONTROLS = (TRUE, NOISELESS, AVERAGE, *SINGLES, ANOTHER, MEAN, NONE, NEAREST)

SENTENCES = {
    TRUE: "The generator is given the shown image's own embedding: the best it can do, whatever "
    "the brain says.",
    NOISELESS: "Decoded from the response without noise, which only simulated brains have: what a "
    "perfect measurement would give.",
    AVERAGE: "Decoded from the mean of all repeats of this image.",
    ANOTHER: "Decoded from the response to another image, {}: what looks right here too is not "
    "read from this brain.",
    MEAN: "Decoded from the average training response: what the mapper says when it knows nothing "
    "of the trial.",
    NONE: "Guidance scale 0: the generator alone, which sees no brain at all.",
    NEAREST: "The photograph from training nearest to what is decoded, {}: if it is as good, "
    "looking one up would do.",
} | {name: "Decoded from one measurement, with all its noise." for name in SINGLES}


@dataclass(frozen=True, eq=False)
class Control:
    """One picture of the strip, uint8 (H, W, 3), or in ``reason`` why there is none.

    ``scores`` as in `Frame`. ``decoded``: where the embedding that was drawn lies among the test
    stimuli, and ``drawn``: where the picture does, in pocket-clip; None where there is no such
    thing. ``stimulus``: whose brain, or which training image; ``similarity``: of the nearest
    training image to what is decoded. ``note`` must stand beside the picture.
    """

    name: str
    sentence: str
    image: np.ndarray | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    decoded: Place | None = None
    drawn: Place | None = None
    note: str = ""
    stimulus: str = ""
    similarity: float = float("nan")
    reason: str = ""


def controls(
    bench: Workbench,
    request: Request,
    names: Sequence[str] = CONTROLS,
    scale: float | None = None,
) -> Iterator[Control]:
    """Return an iterator over the controls of a request, each as soon as it is finished.

    At one guidance scale, by default `sampled_scale`; closing the iterator stops. A bad request
    raises here. Pictures are kept, so that the same strip comes at once the next time.
    """
    unknown = [name for name in names if name not in CONTROLS]
    if unknown:
        raise UserError(f"There is no control {unknown[0]!r}; choose among {', '.join(CONTROLS)}.")
    one = at_scale(bench, request, scale)
    return (control(bench, one, name) for name in names)


def at_scale(bench: Workbench, request: Request, scale: float | None = None) -> Request:
    """Return a checked request for one picture at one scale, by default `sampled_scale`."""
    check_request(bench.catalogue, request)
    wanted = sampled_scale(request) if scale is None else scale
    return replace(request.rows()[0], scales=(wanted,), samples=1)


def control(bench: Workbench, request: Request, name: str) -> Control:
    """Return one of `CONTROLS` at the request's first scale."""
    request = replace(request, scales=request.scales[:1], samples=1)
    makers: dict[str, Callable[[], Control]] = {
        TRUE: partial(_true, bench, request),
        NOISELESS: partial(_noiseless, bench, request),
        AVERAGE: partial(_repeats, bench, request, AVERAGE, ()),
        ANOTHER: partial(_another, bench, request),
        MEAN: partial(_mean, bench, request),
        NONE: partial(_none, bench, request),
        NEAREST: partial(_nearest, bench, request),
    }
    makers |= {s: partial(_repeats, bench, request, s, (i,)) for i, s in enumerate(SINGLES)}
    try:
        return makers[name]()
    except UserError as error:  # this one cannot be had; the others can
        return Control(name, SENTENCES[name].format("none"), reason=str(error))


# ---------------------------------------------------------------------------------- each of them


def _true(bench: Workbench, request: Request) -> Control:
    _require_brain(bench, request)
    condition = condition_of(bench, request)
    known = [space for space in condition.embeddings if bench.catalogue.embedder_name(space)]
    if not known:
        names = " and ".join(space.name for space in condition.embeddings)
        raise UserError(
            f"No embedder here puts images into {names}, so the shown image's own embedding is "
            "not known; choose another mapper."
        )
    stimuli = list(bench.catalogue.gallery(request.dataset, request.subject).index)
    index = stimuli.index(request.stimulus)
    true = {s: bench.models.embed(request.dataset, stimuli, s)[index] for s in known}
    return _drawn(bench, request, TRUE, replace(condition, embeddings=_tensors(true)))


def _noiseless(bench: Workbench, request: Request) -> Control:
    _require_brain(bench, request)
    betas = noiseless(bench, request.dataset, request.subject).average(request.stimulus)
    return _drawn(bench, request, NOISELESS, condition_of(bench, request, betas))


def noiseless(bench: Workbench, dataset: str, subject: str) -> Trials:
    """Return the test trials without noise of a data set that knows them, else `UserError`."""
    study = bench.catalogue.dataset(dataset)
    if not hasattr(study, "noiseless_trials"):
        raise UserError(
            f"{dataset} is measured, so nobody knows its responses without noise; only a "
            "simulated data set can show this."
        )
    return bench.kept(("noiseless", dataset, subject), lambda: study.noiseless_trials(subject))


def _repeats(bench: Workbench, request: Request, name: str, repeats: tuple[int, ...]) -> Control:
    _require_brain(bench, request)
    there = int(
        bench.catalogue.gallery(request.dataset, request.subject).loc[request.stimulus, "repeats"]
    )
    if name == AVERAGE and there < 2:
        raise UserError(f"{request.stimulus} was shown once, so there is nothing to average.")
    of = replace(request, repeats=repeats)
    frame = own_picture(bench, of)
    return _of_frame(bench, of, name, frame, _place(bench, of, condition_of(bench, of)))


def _another(bench: Workbench, request: Request) -> Control:
    _require_brain(bench, request)
    other = donor(bench, request)
    condition = condition_of(bench, replace(request, stimulus=other))
    if condition.stimulus is not None:  # the generator is told whose picture it is to make
        condition = replace(condition, stimulus=request.stimulus)
    return _drawn(bench, request, ANOTHER, condition, stimulus=other)


def donor(bench: Workbench, request: Request) -> str:
    """Return another test stimulus, of another category where there is one.

    The seed and the stimulus decide it, so that the same request shows the same one.
    """
    gallery = bench.catalogue.gallery(request.dataset, request.subject)
    others = gallery[gallery.index != request.stimulus]
    apart = others[others["category"] != gallery.loc[request.stimulus, "category"]]
    if request.repeats:
        apart, others = (t[t["repeats"] > max(request.repeats)] for t in (apart, others))
    offered = list((apart if len(apart) else others).index)
    if not offered:
        raise UserError(
            f"{request.dataset}/{request.subject} has no other test image with such trials, so no "
            "other brain can be put in."
        )
    number = int(gallery.loc[request.stimulus, "number"])
    return str(np.random.default_rng((request.seed, number)).choice(offered))


def _mean(bench: Workbench, request: Request) -> Control:
    _require_brain(bench, request)
    return _drawn(
        bench, request, MEAN, condition_of(bench, request, statistics(bench, request)[0])
    )


def statistics(bench: Workbench, request: Request) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation float32 (V,) of the training betas, as the mapper has."""
    if reason := uncomputed(bench, request):
        raise UserError(reason)
    mapper = bench.models.mapper(request.dataset, request.subject, request.mapper)
    mean, sd = mapper.statistics(request.subject)
    return mean.cpu().numpy(), sd.cpu().numpy()


def _none(bench: Workbench, request: Request) -> Control:
    _require_brain(bench, request)
    generator = bench.catalogue.generator_class(request.generator)
    offered = fixed_scales(bench.catalogue, request.generator)
    if not generator.guided or (offered and 0.0 not in offered):
        raise UserError(
            f"{request.generator} cannot draw at scale 0: it has no picture without a brain to "
            "compare with."
        )
    frame = own_picture(bench, replace(request, scales=(0.0,)))
    return _of_frame(bench, request, NONE, frame, None)


def _nearest(bench: Workbench, request: Request) -> Control:
    found = nearest_training(bench, request)
    image = bench.catalogue.image(request.dataset, found.picture)
    return Control(
        NEAREST,
        SENTENCES[NEAREST].format(found.picture),
        image,
        picture_scores(bench, request.dataset, request.stimulus, image),
        drawn=picture_place(bench, request, image),
        note="retrieved photograph, not a reconstruction",
        stimulus=found.picture,
        similarity=found.similarity,
    )


def _require_brain(bench: Workbench, request: Request) -> None:
    """Refuse pictures that were made elsewhere: nothing else can be put in their brain's place."""
    if request.generator in bench.catalogue.pictures or not request.mapper:
        raise UserError(
            f"The pictures of {request.generator} were published as they are: no other brain can "
            "be put in; choose a generator that draws here."
        )


def _drawn(
    bench: Workbench, request: Request, name: str, condition: Condition, stimulus: str = ""
) -> Control:
    frame = draw_condition(bench, request, condition)
    return _of_frame(bench, request, name, frame, _place(bench, request, condition), stimulus)


def _place(bench: Workbench, request: Request, condition: Condition) -> Place | None:
    z = condition.embeddings.get(decoded_space(bench, request))
    if z is None or undecoded(bench, request):
        return None
    return places(bench, request, z.cpu().numpy()[None])[0]


def own_picture(bench: Workbench, request: Request) -> Frame:
    """Return the finished picture of a request at its first scale: the one that a sweep shows."""
    one = replace(request, scales=request.scales[:1], samples=1)
    return next(frame for frame in reconstruct(bench, one) if frame.done)


def _of_frame(
    bench: Workbench,
    request: Request,
    name: str,
    frame: Frame,
    place: Place | None,
    stimulus: str = "",
) -> Control:
    return Control(
        name,
        SENTENCES[name].format(stimulus),
        frame.image,
        frame.scores,
        place,
        picture_place(bench, request, frame.image),
        frame.note,
        stimulus,
    )


def _tensors(rows: Mapping) -> dict:
    import torch

    return {space: torch.from_numpy(np.ascontiguousarray(z)) for space, z in rows.items()}
