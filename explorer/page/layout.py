"""Where things are on the page and which handler each event calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import gradio as gr

from explorer.page import (
    TITLE,
    api,
    api_evidence,
    api_identity,
    api_map_file,
    api_parcel,
    api_sheet,
    arrivals,
)
from explorer.page.brain import surface_server
from explorer.page.handlers import Handlers
from explorer.page.health import Health
from explorer.page.parts import plotly_script, script
from explorer.page.pickers import ALL
from explorer.page.session import Session
from explorer.page.sheet import sheet_server
from explorer.page.turns import Budget, Turns
from explorer.watching import Watch

if TYPE_CHECKING:
    from explorer.workbench import Workbench

HIDDEN = {"api_visibility": "private", "show_progress": "hidden"}
# What touches a model waits for its turn at them (see `Turns`), not in Gradio's queue, where what
# needs none would wait behind it.
MODEL = {"concurrency_limit": None}
WATCH = "watch"  # a visitor of its own: what arrives waits for no more than one turn


def build_page(
    workbench: Workbench, budget: Budget, watched: str, say: Callable[[str], None]
) -> gr.Blocks:
    """Lay out the page and wire its events."""
    turns = Turns(budget)
    watch = Watch(workbench, watched, partial(turns.held, WATCH), say) if watched else None
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        ui = SimpleNamespace(session=gr.State(Session()))
        ui.masthead = component("masthead", {})
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="side", scale=0, min_width=300):
                _pickers(ui)
            with gr.Column(elem_id="main", scale=1, min_width=320):
                ui.notices = component("notices", {})
                if watch is not None:
                    ui.arrivals = component(
                        "arrivals", {}, server_functions=[arrivals.server(watch)]
                    )
                ui.trial = component("trial", None)
                ui.brain = component("brain", None, **_surfaces(workbench))
                asked = [surface_server(workbench), sheet_server(workbench)]
                ui.lab = component("lab", None, server_functions=asked)
        ui.footer = component("footer", None)
        ui.lecture = component("lecture", None, **_surfaces(workbench))
        _wire(page, ui, Handlers(workbench, ui, plotly_address(), turns, watch))
        api.register(workbench, MODEL, turns)
        api_evidence.register(workbench, MODEL, turns)
        api_parcel.register(workbench, MODEL, turns)
        api_identity.register(workbench, turns)
        api_map_file.register(workbench, MODEL, turns)
        api_sheet.register(workbench, MODEL, turns)
    # asked past the queue, nobody could tell a caller who waits from one who has hung up
    page.turns, page.watch, page.health = turns, watch, Health(workbench, turns)
    return page.queue(api_open=False)


def plotly_address() -> str:
    """Return the address of the plotly package's own script, and allow it to be served."""
    script = plotly_script()
    gr.set_static_paths([script])
    return f"gradio_api/file={script.as_posix()}"


def _surfaces(workbench: Workbench) -> dict[str, list]:
    """Return the setting by which a component's script may ask for a surface."""
    return {"server_functions": [surface_server(workbench)]}


def component(name: str, value: object, **settings: object) -> gr.HTML:
    """Return a component whose markup is fixed and whose data the script writes as text."""
    return gr.HTML(
        value,
        html_template=f'<div class="ai-{name}"></div>',
        js_on_load=script(name),
        apply_default_css=False,
        elem_id=name,
        **settings,
    )


def _pickers(ui: SimpleNamespace) -> None:
    """Add the left column: what was seen by whom, and how it is decoded."""
    choice = {"interactive": True, "min_width": 0}
    with gr.Column(elem_id="pick", min_width=0):
        ui.dataset = gr.Dropdown(label="Study", elem_id="dataset", **choice)
        ui.subject = gr.Dropdown(label="Subject", elem_id="subject", **choice)
        with gr.Row(elem_id="steer"):
            ui.number = gr.Number(label="Trial", elem_id="number", min_width=0)
            ui.previous = gr.Button("‹", elem_id="previous", size="sm", min_width=0)
            ui.next = gr.Button("›", elem_id="next", size="sm", min_width=0)
            ui.random = gr.Button("Random", elem_id="random", size="sm", min_width=0)
        ui.category = gr.Dropdown(
            label="Images", choices=[(ALL, "")], value="", elem_id="category", **choice
        )
        ui.gallery = component("gallery", None)
    with gr.Column(elem_id="decode", min_width=0):
        with gr.Accordion("Decoder", open=True, elem_id="decoder"):
            ui.mapper = gr.Dropdown(label="Mapper", elem_id="mapper", **choice)
            ui.space = gr.Dropdown(label="Target", elem_id="space", visible=False, **choice)
            ui.generator = gr.Dropdown(label="Generator", elem_id="generator", **choice)
            ui.scales = gr.Textbox(label="Scales", max_lines=1, elem_id="scales", **choice)
            ui.repeats = gr.Dropdown(label="Repeats", elem_id="repeats", **choice)
            ui.samples = gr.Dropdown(label="Samples", elem_id="samples", visible=False, **choice)
            ui.axis = gr.Dropdown(label="Rows", elem_id="axis", visible=False, **choice)
            ui.values = gr.Textbox(
                label="Values", max_lines=1, elem_id="values", visible=False, **choice
            )
            with gr.Row(elem_id="exact"):
                # No bounds here: what is out of range gets our sentence, not Gradio's.
                ui.steps = gr.Number(label="Steps", elem_id="steps", **choice)
                ui.seed = gr.Number(label="Seed", elem_id="seed", **choice)
            ui.options = component("options", None)
            ui.rois = gr.Dropdown(
                label="Guiding parcels (none: all voxels)",
                multiselect=True,
                elem_id="rois",
                visible=False,
                **choice,
            )


def _wire(page: gr.Blocks, ui: SimpleNamespace, do: Handlers) -> None:
    """Tie events to handlers: first the choice, at once and outside the queue, then the work."""
    front = [
        *(ui.masthead, ui.notices, ui.dataset, ui.subject, ui.number, ui.category, ui.gallery),
        *(ui.mapper, ui.space, ui.generator, ui.scales, ui.steps, ui.seed, ui.repeats),
        *(ui.samples, ui.axis, ui.values, ui.options, ui.rois),
        *(ui.trial, ui.brain, ui.lab, ui.lecture, ui.footer),
    ]
    quick = {**HIDDEN, "queue": False, "outputs": front}
    slow = {**HIDDEN, **MODEL, "inputs": [ui.session], "outputs": [ui.trial, ui.brain, ui.notices]}

    def then_work(event: gr.events.Dependency) -> None:
        # "once" would drop the work of a second click while that of the first runs
        event.success(do.work, trigger_mode="multiple", **slow)

    def picked(key: str) -> Callable[..., dict]:
        """Return a handler that takes a picker's value for a key of the link."""

        def take(session: Session, value: str | None) -> dict:
            return do.take(session, value, key)

        return take

    then_work(page.load(do.open_link, [ui.session], **quick))
    if do.watch is not None:
        then_work(ui.arrivals.arrived(do.arrive, [ui.session], trigger_mode="multiple", **quick))
    for button, handler in (
        (ui.previous, do.go_back),
        (ui.next, do.go_on),
        (ui.random, do.go_anywhere),
    ):
        then_work(button.click(handler, [ui.session], trigger_mode="multiple", **quick))
    for event, handler in (
        (ui.gallery.select, do.go_to),
        (ui.trial.select, do.go_to),
        (ui.trial.again, do.go_again),
        (ui.options.option, do.take_option),
        (ui.brain.view, do.look),
        (ui.trial.view, do.look),
    ):
        then_work(event(handler, [ui.session], trigger_mode="multiple", **quick))
    for component, handler in (
        (ui.dataset, do.take_dataset),
        (ui.subject, picked("subject")),
        (ui.mapper, picked("mapper")),
        (ui.space, picked("space")),
        (ui.generator, picked("generator")),
        (ui.repeats, picked("repeats")),
        (ui.samples, picked("samples")),
        (ui.axis, picked("axis")),
        (ui.rois, do.take_rois),
    ):
        then_work(component.input(handler, [ui.session, component], **quick))
    for component, handler in (
        (ui.number, do.take_number),
        (ui.scales, do.take_scales),
        (ui.values, picked("values")),
        (ui.steps, do.take_steps),
        (ui.seed, do.take_seed),
    ):
        then_work(component.submit(handler, [ui.session, component], **quick))
        if component is not ui.number:
            # A number that is left by a click on "next" would come after it, and undo it.
            then_work(component.blur(handler, [ui.session, component], **quick))
    ui.category.input(do.take_category, [ui.session, ui.category], **quick)
    ui.gallery.turn(do.turn_page, [ui.session], **quick)
    ui.brain.select(do.pick_parcel, [ui.session], **quick)
    ui.trial.stop(do.stop, [ui.session], **quick)
    lab, small = do.lab, {**quick, "outputs": [ui.lab, ui.masthead, ui.notices]}
    for event, handler in (
        (ui.lab.choose, lab.choose),
        (ui.lab.stop, lab.stop),
        (ui.lab.again, lab.again),
        (ui.lab.draw, lab.draw),
    ):
        event(handler, [ui.session], trigger_mode="multiple", **small)
    ui.lab.work(lab.work, [ui.session], [ui.lab], trigger_mode="multiple", **HIDDEN, **MODEL)
    lecture, spoken = do.lecture, {**HIDDEN, **MODEL, "outputs": [ui.lecture]}
    ui.lecture.go(lecture.go, [ui.session], **{**quick, "outputs": [ui.lecture, ui.masthead]})
    ui.lecture.work(lecture.work, [ui.session], trigger_mode="multiple", **spoken)
    then_work(ui.lab.select(do.go_to, [ui.session], trigger_mode="multiple", **quick))
    then_work(ui.masthead.place(do.open_place, [ui.session], trigger_mode="multiple", **quick))
    opened = ui.masthead.record(do.open_record, [ui.session], front, **HIDDEN, **MODEL)
    then_work(opened)
    ui.brain.export(do.export, [ui.session], [ui.masthead, ui.notices], **HIDDEN, **MODEL)
    ui.masthead.export(do.export, [ui.session], [ui.masthead, ui.notices], **HIDDEN, **MODEL)
