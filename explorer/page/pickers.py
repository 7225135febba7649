"""What the pickers, the head and the foot of the page show for a request: no models, no events."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gradio as gr

from explorer.choosing import can_sample, roi_names, row_axes, space_names, uses_betas
from explorer.page import links, trial
from explorer.page.about import footer
from explorer.page.choices import repeats_of
from explorer.request import SEED, Request, View

if TYPE_CHECKING:
    from explorer.workbench import Workbench

ALL = "all categories"
SAMPLES = (4, 8)  # on offer: a strip, and a strip that takes twice as long


def offers(
    ui: SimpleNamespace, workbench: Workbench, request: Request, view: View
) -> dict[Any, Any]:
    """Return what each picker offers and shows, by component."""
    place = request.dataset, request.subject
    fitting = workbench.catalogue.generator_names(*place, request.mapper)
    titles = [
        (workbench.catalogue.dataset(name).title, name)
        for name in workbench.catalogue.dataset_names()
    ]
    found = trial.categories(workbench, request)
    return {
        ui.dataset: gr.update(choices=titles, value=request.dataset),
        ui.subject: gr.update(
            choices=workbench.catalogue.subjects(request.dataset), value=request.subject
        ),
        ui.category: gr.update(
            choices=[(ALL, ""), *found], value=view.category, visible=bool(found)
        ),
        ui.mapper: gr.update(
            choices=workbench.catalogue.mapper_names(*place), value=request.mapper or None
        ),
        ui.generator: gr.update(choices=fitting, value=request.generator or None),
        **numbers(ui, workbench, request),
        ui.space: spaces(workbench, request),
        ui.samples: samples(workbench, request),
        ui.axis: axis(workbench, request),
        ui.options: options(workbench, request),
        ui.rois: rois(workbench, request, view),
        ui.footer: footer(workbench, request),
    }


def numbers(ui: SimpleNamespace, workbench: Workbench, request: Request) -> dict[Any, Any]:
    """Return what the fields that are typed into show: what is in force, whatever was typed."""
    guided = not request.generator or workbench.catalogue.generator_class(request.generator).guided
    gallery = workbench.catalogue.gallery(request.dataset, request.subject)
    number = int(gallery.loc[request.stimulus, "number"])
    return {
        ui.number: gr.update(value=number, label=f"of {len(gallery)}"),
        ui.scales: gr.update(value=links.format_scales(request.scales), interactive=guided),
        ui.steps: request.steps,
        ui.seed: gr.update(value=request.seed, interactive=request.axis != SEED),
        ui.values: gr.update(
            value=links.format_scales(request.values), visible=bool(request.axis)
        ),
    }


def spaces(workbench: Workbench, request: Request) -> dict[str, Any]:
    """Return which of the mapper's targets can be decoded; hidden where there is but one."""
    place = request.dataset, request.subject, request.mapper
    offered = space_names(workbench.catalogue, *place, request.generator)
    shown = request.space or next(iter(offered), None)
    return gr.update(choices=offered, value=shown, visible=len(offered) > 1)


def samples(workbench: Workbench, request: Request) -> dict[str, Any]:
    """Return how many samples of the mapper can be drawn; hidden where it gives none."""
    offered = sorted({1, *SAMPLES, request.samples})
    return gr.update(
        choices=[("none" if n == 1 else str(n), str(n)) for n in offered],
        value=str(request.samples),
        visible=can_sample(workbench.catalogue, request),
    )


def axis(workbench: Workbench, request: Request) -> dict[str, Any]:
    """Return what the rows of a sweep can vary; hidden where a generator has nothing to vary."""
    found = row_axes(workbench.catalogue, request.generator)
    offered = [("one row", links.NONE), *((trial.option_label(name), name) for name in found)]
    return gr.update(choices=offered, value=request.axis or links.NONE, visible=bool(found))


def options(workbench: Workbench, request: Request) -> dict[str, Any]:
    """Return a generator's options with their sentences and present values.

    The one that the rows vary is left out. The time makes a refused value vanish from its field.
    """
    known, chosen = (), dict(request.options)
    if request.generator:
        known = workbench.catalogue.generator_class(request.generator).options
    return {
        "options": [
            {
                "name": option.name,
                "label": trial.option_label(option.name),
                "value": links.format_number(chosen.get(option.name, option.default)),
                "changed": chosen.get(option.name, option.default) != option.default,
                "range": f"{option.low:g} to {option.high:g}",
                "sentence": option.sentence,
            }
            for option in known
            if option.name != request.axis
        ],
        "at": time.time(),
    }


def rois(workbench: Workbench, request: Request, view: View) -> dict[str, Any]:
    """Return whose betas can guide, of the map's atlas; hidden where betas decide nothing."""
    atlas = request.roi_atlas if request.rois else view.atlas
    return gr.update(
        choices=roi_names(workbench.catalogue, request.dataset, request.subject, atlas),
        value=list(request.rois),
        visible=uses_betas(workbench.catalogue, request),
    )


def repeats(workbench: Workbench, request: Request) -> dict[str, Any]:
    """Return what can be decoded of this trial: the average, or one of several repeats."""
    there = repeats_of(workbench, request)
    offered = [(), *((r,) for r in there if len(there) > 1)]
    shown = dict.fromkeys(map(links.format_repeats, [*offered, request.repeats]))
    return gr.update(choices=list(shown), value=links.format_repeats(request.repeats))
