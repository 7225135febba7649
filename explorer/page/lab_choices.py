"""What the evidence below a trial is of: settled from a link, a click or a record, as all else is.

A lesion's parcels, gain and replacement, what is compared, whose statistics, which step of the
lecture: what is on offer is kept, the rest is left out and told in one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.brain.maps import parcellation_of
from explorer.brain.parcels import UNASSIGNED
from explorer.evidence.lesions import ANOTHER, FILLS
from explorer.page import links
from explorer.page.links import short
from explorer.request import LECTURE_STEPS, PANELS, PEOPLE, Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

KINDS = ("mapper", "generator", "subject")  # what can differ between two sides
QUESTIONS = {
    "controls": "How much of this picture comes from the brain, and how much from the generator?",
    "lesion": "What is lost when a parcel falls silent, and does the map above tell which?",
    "compare": "Which of two gives more, on this trial and over the test images?",
    "curve": "What does more guidance buy, here and in general?",
    "drivers": "Which images drive this parcel, and in which does the decoder lean on it?",
    "steps": "At which step of the picture do this parcel's betas matter?",
    "statistics": "Which parcels does the decoder rest on over all test images, beyond chance?",
    "evaluation": "How well do the mappers decode, and where does this trial stand?",
    "critique": "Is it decoding, or does it name the category of what was seen?",
    "own": "What would this brain do with a picture of yours, and what would be decoded?",
    "identity": "Which image is this beta, and which file, row and session is it from?",
    "sheet": "How do all the test images come out, and not only this one?",
}
NONE = "none"  # takes the chosen parcels, donor or side back
SAID = {
    "panel": "The evidence",
    "fill": "The replacement",
    "donor": "The trial to take betas from,",
    "against": "What is compared with,",
    "people": "Statistics of",
}


def settle(
    wanted: Mapping[str, str],
    workbench: Workbench,
    request: Request,
    view: View,
    notices: list[str],
) -> View:
    """Return ``view`` with what is ``wanted`` of the evidence; adds to ``notices``."""
    if view.parcels:
        offered = lesionable(workbench, request, view.atlas)
        view = replace(view, parcels=tuple(p for p in view.parcels if p in offered))
    if view.donor not in _donors(workbench, request):
        view = replace(view, donor="")
    if view.against not in sides(workbench, request):
        view = replace(view, against="")
    offers: dict[str, Sequence[str]] = {
        "panel": PANELS,
        "fill": list(FILLS),
        "donor": _donors(workbench, request),
        "against": sides(workbench, request),
        "people": PEOPLE,
    }
    for key, offered in offers.items():
        if wanted.get(key) in offered:
            view = replace(view, **{links.VIEW_KEYS[key]: wanted[key]})
        elif wanted.get(key) == NONE:
            view = replace(view, **{links.VIEW_KEYS[key]: ""})
        elif key in wanted:
            notices.append(f"{SAID[key]} {short(wanted[key])} is not on offer here; left out.")
    if view.donor and view.fill != ANOTHER:
        view = replace(view, donor="")
    if "lesion" in wanted:
        view = _lesion(wanted["lesion"], workbench, request, view, notices)
    if "gain" in wanted:
        try:
            gain = links.parse_scales(wanted["gain"])[0]
            view = replace(view, gain=gain)
        except UserError as error:
            notices.append(f"{error} Using a gain of {view.gain:g}.")
    if "lecture" in wanted:
        step = wanted["lecture"]
        if step.isdigit() and int(step) <= LECTURE_STEPS:
            view = replace(view, lecture=int(step))
        else:
            notices.append(f"The lecture has the steps 1 to {LECTURE_STEPS}, found {short(step)}.")
    return view


def sides(workbench: Workbench, request: Request) -> list[str]:
    """Return what a trial can be compared with, as ``kind:name``, without what it is itself."""
    place = request.dataset, request.subject
    mappers = workbench.catalogue.mapper_names(*place)
    generators = workbench.catalogue.generator_names(*place, request.mapper)
    people = workbench.catalogue.subjects(request.dataset)
    offered = zip(KINDS, (mappers, generators, people), strict=True)
    return [
        f"{kind}:{name}"
        for kind, names in offered
        for name in names
        if name != getattr(request, kind)
    ]


def other_side(workbench: Workbench, request: Request, against: str) -> Request:
    """Return the request that differs from another in ``against`` (``kind:name``) alone.

    A mapper that the generator cannot draw from takes the first generator that can.
    """
    kind, _, name = against.partition(":")
    other = replace(request, **{kind: name}, space="", samples=1)
    if kind == "subject" and other.mapper not in workbench.catalogue.mapper_names(
        other.dataset, name
    ):
        raise UserError(f"{name} has no mapper {other.mapper}; choose another mapper first.")
    fitting = workbench.catalogue.generator_names(other.dataset, other.subject, other.mapper)
    if other.generator not in fitting:
        if not fitting:
            raise UserError(
                f"No generator here draws from what the mapper {other.mapper} gives; choose "
                "another."
            )
        other = replace(other, generator=fitting[0])
    if other.generator != request.generator:
        steps = workbench.catalogue.generator_class(other.generator).default_steps
        other = replace(other, options=(), steps=steps)
    return other


def lesionable(workbench: Workbench, request: Request, atlas: str) -> dict[str, int]:
    """Return the parcels of an atlas that hold voxels, (unassigned) last, and how many."""
    parcellation = parcellation_of(workbench, request.dataset, request.subject, atlas)
    keys = [*(label.key for label in parcellation.labels), UNASSIGNED]
    counts = parcellation.masks().sum(axis=1)
    return {key: int(n) for key, n in zip(keys, counts, strict=True) if n}


def lesion_only(parcel: str, workbench: Workbench, request: Request, view: View) -> View:
    """Return ``view`` with one parcel to lesion; as it is where that holds no voxels."""
    offered = lesionable(workbench, request, view.atlas)
    return replace(view, parcels=(parcel,)) if parcel in offered else view


def _lesion(
    text: str, workbench: Workbench, request: Request, view: View, notices: list[str]
) -> View:
    """Settle the parcels that are lesioned; "none" for the first again."""
    if text == NONE:
        return replace(view, parcels=())
    offered = lesionable(workbench, request, view.atlas)
    names = [name.strip() for name in text.split(";") if name.strip()]
    unknown = [name for name in names if name not in offered]
    if unknown:
        notices.append(f"There is no parcel {short(unknown[0])} with voxels here to lesion.")
    return replace(view, parcels=tuple(name for name in names if name in offered))


def _donors(workbench: Workbench, request: Request) -> list[str]:
    gallery = workbench.catalogue.gallery(request.dataset, request.subject)
    return [str(stimulus) for stimulus in gallery.index if stimulus != request.stimulus]
