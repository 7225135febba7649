"""What is shown, settled from what somebody wants: a link, a picker that changed, a record.

One rule for all: what is on offer is kept, the rest keeps its value or takes the default, and each
replacement is told in one sentence. What is wanted is only data here, never trusted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from explorer.brain.maps import drawn_on, map_names, target_names
from explorer.choosing import (
    can_sample,
    default_request,
    fixed_scales,
    roi_names,
    row_axes,
    space_names,
)
from explorer.opening import opening_trial
from explorer.page import lab_choices, links
from explorer.page.links import short
from explorer.request import (
    ATTENTIONS,
    CAMERAS,
    DIVERGING,
    HEMISPHERES,
    IMPORTANCE,
    MEASURES,
    METHODS,
    SEED,
    SEQUENTIAL,
    Request,
    View,
)
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.protocols import Option
    from explorer.types import Parcellation
    from explorer.workbench import Workbench

# Keys of a link that belong to Gradio or to whoever counts visits, and are left alone.
NOT_OURS = re.compile(r"_|utm_|(view|deep_link|session_hash|fbclid|gclid)$")
LABELS = {
    "data": "data set",
    "trial": "test trial",
    "map": "importance method",
    "show": "map of this subject",
    "colours": "colour map",
    "signed_colours": "colour map of both signs",
    "outlines": "atlas to outline,",
}


@dataclass(frozen=True)
class Choices:
    """What the page shows, and the sentences about what was wanted but is not on offer."""

    request: Request
    view: View = field(default_factory=View)
    notices: tuple[str, ...] = ()


def opened(query: Mapping[str, str], workbench: Workbench) -> Choices:
    """Return what a page opens on: what its address asks for.

    Where that names nothing to decode or draw, one of the trials that ship with their pictures.
    """
    asks = any(query.get(key) for key in links.REQUEST_KEYS)
    ready = "" if asks else opening_trial(workbench)
    return settle({**query, "trial": ready} if ready else query, workbench)


def settle(
    wanted: Mapping[str, str], workbench: Workbench, shown: Choices | None = None
) -> Choices:
    """Return what to show for the ``wanted`` query.

    Parameters
    ----------
    wanted
        Keys and texts as `explorer.page.links.query` writes them. What is missing or empty keeps
        its value of ``shown`` where that is on offer, and else takes the default: for the trial a
        random one, for mapper and generator the first that fit.
    shown
        What was shown before.
    """
    wanted = {key: str(value) for key, value in wanted.items() if str(value)}
    notices = [
        f"The link's {short(key)} means nothing here and was left out."
        for key in wanted
        if key not in (*links.REQUEST_KEYS, *links.VIEW_KEYS)
        and not key.startswith(links.OPTION)
        and not NOT_OURS.match(key)
    ]
    before = shown.request if shown else None
    request = _names(wanted, workbench, before, notices)
    request = _numbers(wanted, workbench, request, before, notices)
    view = _view(wanted, workbench, request, shown.view if shown else View(), notices)
    return Choices(request, view, tuple(notices))


def repeats_of(workbench: Workbench, request: Request) -> list[int]:
    """Return the repeats (0-based) of the shown stimulus among the test trials, in order."""
    trials = workbench.catalogue.trials(request.dataset, request.subject)
    rows = trials.rows("test", request.stimulus)
    return sorted({int(repeat) for repeat in trials.table["repeat"].iloc[rows]})


def _names(
    wanted: Mapping[str, str], workbench: Workbench, before: Request | None, notices: list[str]
) -> Request:
    """Settle data set, subject, trial, mapper and generator, each among what the former offer."""

    def pick(key: str, offered: Iterable[str], kept: str | None, where: str) -> str | None:
        """Return what is wanted or kept if it is on offer, else None, and say so."""
        offered = list(offered)
        if key in wanted and wanted[key] in offered:
            return wanted[key]
        if key in wanted:
            told.append((key, f"{where} has no {LABELS.get(key, key)} {short(wanted[key])}"))
        return kept if kept in offered else None

    told: list[tuple[str, str]] = []
    names = workbench.catalogue.dataset_names()
    dataset = pick("data", names, before and before.dataset, "This app") or names[0]
    subjects = workbench.catalogue.subjects(dataset)
    subject = pick("subject", subjects, before and before.subject, dataset) or subjects[0]
    where = f"{dataset}/{subject}"
    gallery = workbench.catalogue.gallery(dataset, subject)
    chosen: dict[str, Any] = {
        "stimulus": pick("trial", gallery.index, before and before.stimulus, where)
    }
    mappers = workbench.catalogue.mapper_names(dataset, subject)
    chosen["mapper"] = pick("mapper", mappers, before and before.mapper, where)
    usual = default_request(
        workbench.catalogue,
        dataset,
        subject,
        **{key: value for key, value in chosen.items() if value},
    )
    fitting = workbench.catalogue.generator_names(dataset, subject, usual.mapper)
    generator = pick(
        "generator", fitting, before and before.generator, f"The mapper {usual.mapper}"
    )
    if generator:
        usual = replace(
            usual,
            generator=generator,
            steps=workbench.catalogue.generator_class(generator).default_steps,
            scales=fixed_scales(workbench.catalogue, generator) or Request.scales,
        )
    if wanted.get("generator") in workbench.catalogue.unusable():
        told = [(key, text) for key, text in told if key != "generator"]
        reason = workbench.catalogue.lacking(wanted["generator"]).removesuffix(".")
        told.append(("generator", reason))
    for key, sentence in told:
        instead = getattr(usual, {"data": "dataset", "trial": "stimulus"}.get(key, key))
        notices.append(f"{sentence}; {f'showing {instead}' if instead else 'none fits'}.")
    return usual


def _numbers(
    wanted: Mapping[str, str],
    workbench: Workbench,
    request: Request,
    before: Request | None,
    notices: list[str],
) -> Request:
    """Settle scales, steps, seed, repeats and options on top of names that are settled."""
    offered = repeats_of(workbench, request)
    if before is not None:
        request = replace(request, seed=before.seed)
        made_at = fixed_scales(workbench.catalogue, request.generator) if request.generator else ()
        if not made_at or set(before.scales) <= set(made_at):
            request = replace(request, scales=before.scales)
        if before.generator == request.generator:
            request = replace(request, steps=before.steps, options=before.options)
        if before.generator == request.generator or (
            before.axis == SEED in row_axes(workbench.catalogue, request.generator)
        ):
            request = replace(request, axis=before.axis, values=before.values)
        place = request.dataset, request.subject, before.roi_atlas
        if before.rois and set(before.rois) <= set(roi_names(workbench.catalogue, *place)):
            request = replace(request, rois=before.rois, roi_atlas=before.roi_atlas)
        if set(before.repeats) <= set(offered):
            request = replace(request, repeats=before.repeats)
        if can_sample(workbench.catalogue, request):
            request = replace(request, samples=before.samples)
        if before.space in _spaces(workbench, request):
            request = replace(request, space=before.space)
    readers: dict[str, Callable[[str], Any]] = {
        "scales": links.parse_scales,
        "steps": lambda text: links.parse_whole(text, "The number of steps"),
        "seed": lambda text: links.parse_whole(text, "The seed"),
        "repeats": lambda text: links.parse_repeats(text, offered),
        "samples": lambda text: _samples(text, workbench, request),
        "space": lambda text: _space(text, workbench, request),
    }
    for key, read in readers.items():
        if key in wanted:
            try:
                request = replace(request, **{key: read(wanted[key])})
            except UserError as error:
                notices.append(f"{error} {_kept(key, getattr(request, key))}")
    options = dict(request.options)
    for key, text in wanted.items():
        if key.startswith(links.OPTION):
            _set_option(options, key.removeprefix(links.OPTION), text, workbench, request, notices)
    request = replace(request, options=tuple(options.items()))
    request = _rows(wanted, workbench, request, notices)
    return _rois(wanted, workbench, request, notices)


def _rows(
    wanted: Mapping[str, str], workbench: Workbench, request: Request, notices: list[str]
) -> Request:
    """Settle the second axis and its values."""
    axis = wanted.get("axis", request.axis)
    if axis in ("", links.NONE):
        return replace(request, axis="", values=())
    if axis not in (axes := row_axes(workbench.catalogue, request.generator)):
        offered = ", ".join(axes) or "the scale alone"
        notices.append(
            f"Rows cannot vary {short(axis)} with the generator {request.generator}, but "
            f"{offered}; showing one row."
        )
        return replace(request, axis="", values=())
    usual = request.values if axis == request.axis else _usual_values(axis, workbench, request)
    if "values" not in wanted:
        return replace(request, axis=axis, values=usual)
    try:
        values = links.parse_numbers(wanted["values"], f"Values of {axis}", "0, 1, 2")
        rows = replace(request, axis=axis, values=values)
        for value in values if axis != SEED else ():
            _option(axis, workbench, request).check(value)
    except UserError as error:
        notices.append(f"{error} Showing {axis} {links.format_scales(usual)}.")
        return replace(request, axis=axis, values=usual)
    return rows


def _usual_values(axis: str, workbench: Workbench, request: Request) -> tuple[float, ...]:
    """Return three values: seeds from the present one on, or an option's range and its middle."""
    if axis == SEED:
        return tuple(float((request.seed + i) % 2**31) for i in range(3))
    option = _option(axis, workbench, request)
    middle = (option.low + option.high) / 2
    middle = float(int(middle)) if option.whole else middle
    return tuple(dict.fromkeys((float(option.low), middle, float(option.high))))


def _rois(
    wanted: Mapping[str, str], workbench: Workbench, request: Request, notices: list[str]
) -> Request:
    """Settle whose betas guide: parcels of one atlas that hold voxels."""
    if "rois" not in wanted:
        return request
    names, atlas = links.parse_names(wanted["rois"]), wanted.get("roi_atlas", "")
    offered = roi_names(workbench.catalogue, request.dataset, request.subject, atlas)
    unknown = [name for name in names if name not in offered]
    if unknown:
        notices.append(
            f"There is no parcel {short(unknown[0])} with voxels in "
            f"{short(atlas) if atlas else 'this atlas'}; left out."
        )
    kept = tuple(name for name in names if name in offered)
    return replace(request, rois=kept, roi_atlas=atlas if kept else "")


def _samples(text: str, workbench: Workbench, request: Request) -> int:
    """Read a number of samples; one that this mapper cannot give raises `UserError`."""
    samples = links.parse_whole(text, "The number of samples")
    if samples != 1 and not can_sample(workbench.catalogue, request):
        raise UserError(f"The mapper {request.mapper} gives no samples, found {samples}.")
    return samples


def _spaces(workbench: Workbench, request: Request) -> list[str]:
    place = request.dataset, request.subject, request.mapper, request.generator
    return space_names(workbench.catalogue, *place)


def _space(text: str, workbench: Workbench, request: Request) -> str:
    """Read the target that is decoded; the first on offer is "", others raise `UserError`."""
    offered = _spaces(workbench, request)
    if text not in offered:
        raise UserError(
            f"The mapper {request.mapper} gives {' and '.join(offered) or 'nothing'} to draw "
            f"from, found {short(text)}."
        )
    return "" if text == offered[0] else text


def _kept(key: str, value: Any) -> str:
    """Return the sentence about a number that stays as it was."""
    texts = {"scales": links.format_scales, "repeats": links.format_repeats}
    return f"Showing {key} {texts.get(key, str)(value)}."


def _set_option(
    options: dict[str, float],
    name: str,
    text: str,
    workbench: Workbench,
    request: Request,
    notices: list[str],
) -> None:
    """Set one option of the generator, if it has it and the value lies in its range."""
    option = _option(name, workbench, request)
    if option is None:
        notices.append(f"The generator {request.generator} has no option {short(name)}; left out.")
        return
    using = f"using {options.get(name, option.default):g}."
    try:
        value = float(text)
        option.check(value)
    except ValueError:
        notices.append(f"{name} is a number, found {short(text)}; {using}")
        return
    except UserError as error:
        notices.append(f"{str(error).removesuffix('.')}; {using}")
        return
    options.pop(name, None)
    if value != option.default:
        options[name] = value


def _option(name: str, workbench: Workbench, request: Request) -> Option | None:
    known = (
        workbench.catalogue.generator_class(request.generator).options if request.generator else ()
    )
    return next((option for option in known if option.name == name), None)


def _view(
    wanted: Mapping[str, str],
    workbench: Workbench,
    request: Request,
    view: View,
    notices: list[str],
) -> View:
    """Settle how the evidence is shown."""
    atlases = workbench.catalogue.trials(
        request.dataset, request.subject
    ).subject.voxels.parcellations
    if view.atlas not in atlases:
        view = replace(view, atlas="")
    if view.outlines not in atlases:
        view = replace(view, outlines="")
    maps = map_names(workbench, request.dataset, request.subject)
    if view.shows not in maps:
        view = replace(view, shows=IMPORTANCE, threshold=0.0)
    seen = replace(view, shows=wanted.get("show", view.shows))
    surfaces = drawn_on(workbench, request.dataset, request.subject, seen)
    if surfaces and view.surface not in surfaces:
        view = replace(view, surface=surfaces[0])
    targets = target_names(workbench, request.dataset, request.subject, request.mapper)
    if view.target not in targets:
        view = replace(view, target=targets[0])
    offers: dict[str, Sequence[str]] = {
        "show": maps,
        "map": METHODS,
        "measure": MEASURES,
        "target": targets,
        "surface": surfaces,
        "hemisphere": HEMISPHERES,
        "camera": CAMERAS,
        "attention": ATTENTIONS,
        "atlas": list(atlases),
        "colours": SEQUENTIAL,
        "signed_colours": DIVERGING,
        "outlines": list(atlases),
    }
    for key, offered in offers.items():
        name = links.VIEW_KEYS[key]
        if wanted.get(key) in offered:
            view = replace(view, **{name: wanted[key]})
        elif key in wanted:
            first = next(iter(atlases), "none") if key == "atlas" else "none"
            kept = getattr(view, name) or first
            notices.append(
                f"There is no {LABELS.get(key, key)} {short(wanted[key])}; using {kept}."
            )
    if "threshold" in wanted:
        try:
            view = replace(view, threshold=wanted["threshold"])
        except UserError as error:
            notices.append(f"{error} Using {view.threshold:g}.")
    keys = _parcels(atlases.get(view.atlas) or next(iter(atlases.values()), None))
    if wanted.get("parcel") in keys:
        view = replace(view, parcel=wanted["parcel"])
    elif "parcel" in wanted:
        notices.append(f"There is no parcel {short(wanted['parcel'])} in this atlas.")
    view = view if view.parcel in keys else replace(view, parcel="")
    known = set(workbench.catalogue.gallery(request.dataset, request.subject)["category"])
    if "category" in wanted and wanted["category"] not in known:
        notices.append(
            f"There is no category {short(wanted['category'])} among these trials; showing all."
        )
    category = wanted.get("category", view.category)
    view = replace(view, category=category if category in known else "")
    return lab_choices.settle(wanted, workbench, request, view, notices)


def _parcels(atlas: Parcellation | None) -> set[str]:
    return {label.key for label in atlas.labels} if atlas else set()
