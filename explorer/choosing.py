"""What may be asked of a catalogue: a request to begin with, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.request import SEED, Request
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.catalogue import Catalogue


def default_request(
    catalogue: Catalogue,
    dataset: str | None = None,
    subject: str | None = None,
    seed: int | None = None,
    **choices: Any,
) -> Request:
    """Return a request for a random test trial (``seed`` None: another one each time).

    Mapper and generator are the first that fit, a mapper with a generator before one without, ""
    where none does, so that the trial can still be looked at. ``choices`` are fields of `Request`
    that are wanted as given.
    """
    dataset = dataset or catalogue.dataset_names()[0]
    subject = subject or catalogue.subjects(dataset)[0]
    stimuli = catalogue.gallery(dataset, subject).index
    drawn = stimuli[np.random.default_rng(seed).integers(len(stimuli))]
    chosen = {"dataset": dataset, "subject": subject, "stimulus": str(drawn), **choices}
    if "mapper" not in chosen:
        mappers = catalogue.mapper_names(dataset, subject)
        drawing = (m for m in mappers if catalogue.generator_names(dataset, subject, m))
        chosen["mapper"] = next(drawing, next(iter(mappers), ""))  # decoding needs no generator
    if "generator" not in chosen:
        fitting = catalogue.generator_names(dataset, subject, chosen["mapper"])
        chosen["generator"] = next(iter(fitting), "")
    if chosen["generator"]:
        steps = catalogue.generator_class(chosen["generator"]).default_steps
        chosen.setdefault("steps", steps)
        if scales := fixed_scales(catalogue, chosen["generator"]):
            chosen.setdefault("scales", scales)
    return Request(**chosen)


def check_request(catalogue: Catalogue, request: Request, *, pictures: bool = True) -> None:
    """Refuse a request that names something not on offer, in one sentence.

    Without ``pictures`` it may lack a generator: decoding and importance need none.
    """
    trials = catalogue.trials(request.dataset, request.subject)
    who = f"{request.dataset}/{request.subject}"
    gallery = catalogue.gallery(request.dataset, request.subject)
    if request.stimulus not in gallery.index:
        raise UserError(
            f"{who} has no test stimulus {request.stimulus!r}; choose one of its "
            f"{len(gallery)}, {gallery.index[0]} to {gallery.index[-1]}."
        )
    there = sorted(trials.table["repeat"].iloc[trials.rows("test", request.stimulus)])
    lacking = [repeat for repeat in request.repeats if repeat not in there]
    if lacking:
        raise UserError(
            f"{who} has no repeat {lacking[0] + 1} of {request.stimulus} in its test trials; "
            f"choose {', '.join(str(r + 1) for r in there)} or the average."
        )
    fitting = catalogue.generator_names(request.dataset, request.subject, request.mapper)
    if not request.mapper and request.generator not in fitting:
        catalogue.offer(request.dataset, request.subject, "")  # says that there is none
    for name in (request.mapper, request.generator):
        if request.repeats and name in {*catalogue.pictures, *catalogue.predictions}:
            raise UserError(
                f"{name} was made by others from the average of all repeats; choose the average."
            )
    if request.space:
        place = request.dataset, request.subject, request.mapper
        offered = space_names(catalogue, *place, request.generator)
        if request.space not in offered:
            raise UserError(
                f"The mapper {request.mapper or 'none'} decodes no {request.space} that is "
                f"drawn from here; choose {' or '.join(offered) or 'another mapper'}."
            )
    if not request.generator and not pictures:
        return
    if not request.generator and not fitting:
        spaces = catalogue.offer(request.dataset, request.subject, request.mapper).targets
        raise UserError(
            f"No generator here draws from {' or '.join(s.name for s in spaces)}, which the "
            f"mapper {request.mapper} gives; choose another mapper to see pictures."
        )
    options = {o.name: o for o in catalogue.generator_class(request.generator).options}
    if request.generator not in fitting:
        if reason := catalogue.lacking(request.generator):
            raise UserError(reason)
        raise UserError(
            f"The generator {request.generator} does not accept what the mapper "
            f"{request.mapper} gives; choose {' or '.join(fitting) or 'another mapper'}."
        )
    if request.samples > 1 and not can_sample(catalogue, request):
        raise UserError(
            f"There are no samples of the mapper {request.mapper} for the generator "
            f"{request.generator}: that takes a mapper that gives a density; choose 1."
        )
    for name, value in request.options:
        if name not in options:
            raise UserError(
                f"The generator {request.generator} has no option {name!r}, it has "
                f"{', '.join(options) or 'none'}; leave it out."
            )
        options[name].check(value)
    if request.axis and request.axis not in (axes := row_axes(catalogue, request.generator)):
        raise UserError(
            f"The generator {request.generator} cannot vary {request.axis!r} from row to row, "
            f"only {', '.join(axes) or 'the scale'}; choose another or none."
        )
    for value in request.values if request.axis != SEED else ():
        options[request.axis].check(value)
    if request.rois:
        known = roi_names(catalogue, request.dataset, request.subject, request.roi_atlas)
        unknown = [name for name in request.rois if name not in known]
        if unknown:
            raise UserError(
                f"{who} has no parcel {unknown[0]!r} with voxels in the atlas "
                f"{request.roi_atlas or 'that comes first'}; choose among "
                f"{', '.join(known) or 'none'}."
            )


def can_sample(catalogue: Catalogue, request: Request) -> bool:
    """Return whether samples of a request's mapper can be drawn by its generator."""
    place = request.dataset, request.subject, request.mapper
    drawn = request.generator and catalogue.generator_class(request.generator).accepts
    return bool(drawn) and catalogue.mapper_can(*place, "sample")


def row_axes(catalogue: Catalogue, generator: str) -> list[str]:
    """Return what a sweep can vary besides the scale: the seed, and a generator's options."""
    if not generator:
        return []
    cls = catalogue.generator_class(generator)
    noise = [SEED] if cls.provenance == "generated" else []
    return [*noise, *(option.name for option in cls.options)]


def uses_betas(catalogue: Catalogue, request: Request) -> bool:
    """Return whether options of a request let betas decide, so that their parcels matter."""
    if not request.generator:
        return False
    asked = [o for o in catalogue.generator_class(request.generator).options if o.betas]
    return any(
        dict(row.options).get(option.name, option.default) > 0
        for row in (request.rows() if asked else ())
        for option in asked
    )


def roi_names(catalogue: Catalogue, dataset: str, subject: str, atlas: str = "") -> list[str]:
    """Return the parcels of an atlas ("" the first) that hold voxels of a subject."""
    atlases = catalogue.trials(dataset, subject).subject.voxels.parcellations
    parcellation = atlases.get(atlas or next(iter(atlases), ""))
    if parcellation is None:
        return []
    counts = parcellation.masks().sum(axis=1)[:-1]
    return [label.key for label, count in zip(parcellation.labels, counts, strict=True) if count]


def space_names(
    catalogue: Catalogue, dataset: str, subject: str, mapper: str, generator: str
) -> list[str]:
    """Return what can be decoded: the mapper's targets, those that the generator draws from.

    In the order of the generator's preference; all targets where no generator is chosen.
    """
    targets = catalogue.offer(dataset, subject, mapper).targets if mapper else ()
    accepted = catalogue.generator_class(generator).accepts if generator else targets
    return [space.name for space in accepted if space in targets]


def fixed_scales(catalogue: Catalogue, generator: str) -> tuple[float, ...]:
    """Return the only guidance scales a generator has; () where any will do."""
    return tuple(getattr(catalogue.generator_class(generator), "scales", ()))
