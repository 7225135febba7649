"""What the page gives away as files: the figure, the table and a record that makes both again."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from explorer import figures
from explorer.brain import palettes
from explorer.brain.maps import is_mapped, parcellation_of, shown_map
from explorer.choosing import uses_betas
from explorer.decoding import decode, is_decoded, undecoded, unexplained
from explorer.drawing import whose_pictures
from explorer.evidence.attention import attention_of
from explorer.finished import finished_pictures, finished_samples
from explorer.page import map_export, trial
from explorer.records import make_record
from explorer.request import IMPORTANCE, Request, View
from explorer.types import UserError
from explorer.writing import csv_text

if TYPE_CHECKING:
    from explorer.workbench import Workbench

FIGURES = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"}
FORMATS = (*FIGURES, "csv", "json", *map_export.FORMS)


@dataclass(frozen=True)
class File:
    """A file to save: its name, what it is, and its bytes."""

    name: str
    mime: str
    content: bytes


def make(
    workbench: Workbench,
    request: Request,
    view: View,
    form: str,
    evidence: dict[str, Any] | None = None,
) -> File:
    """Return the present trial as a figure, ``csv`` (parcels), ``json`` or its map as a file.

    Pictures that are not finished are left out; nothing is drawn for an export. ``evidence`` that
    is open below the trial goes into the record.
    """
    if form not in FORMATS:
        raise UserError(f"An export is one of {', '.join(FORMATS)}, found {form!r}.")
    if form in map_export.FORMS:
        return File(*map_export.make(workbench, request, view, form))
    parts = ("afterimage", request.dataset, request.subject, request.stimulus)
    name = f"{'_'.join(re.sub(r'[^A-Za-z0-9.-]+', '-', part) for part in parts)}.{form}"
    if form == "csv":
        table = shown_map(workbench, request, view).table
        if view.shows != IMPORTANCE:
            table = table.assign(map=view.shows)
        return File(name, "text/csv", csv_text(table).encode("utf-8"))
    if form == "json":
        record = make_record(workbench, request, view)
        if evidence:
            record["evidence"] = evidence
        text = json.dumps(record, indent=2, ensure_ascii=False)
        return File(name, "application/json", text.encode("utf-8"))
    return File(name, FIGURES[form], _figure(workbench, request, view, form))


def is_there(workbench: Workbench, request: Request, view: View, form: str) -> bool:
    """Return whether an export holds only what is kept, so that it needs no model."""
    if form == "csv" or form in map_export.FORMS:
        return is_mapped(workbench, request, view)
    attends = view.attention != "off"
    return is_decoded(workbench, request) and is_mapped(workbench, request, view) and not attends


def _figure(workbench: Workbench, request: Request, view: View, form: str) -> bytes:
    decoding = None if undecoded(workbench, request) else decode(workbench, request)
    lacking = view.shows == IMPORTANCE and unexplained(workbench, request)
    shown = None if lacking else shown_map(workbench, request, view)
    trials = workbench.catalogue.trials(request.dataset, request.subject)
    study = workbench.catalogue.dataset(request.dataset)
    space = trials.subject.voxels
    rows = [trial.row_label(request.axis, value) for value in request.values]
    told = (
        request
        if uses_betas(workbench.catalogue, request)
        else replace(request, rois=(), roi_atlas="")
    )
    row = workbench.catalogue.gallery(request.dataset, request.subject).loc[request.stimulus]
    figure = figures.trial_figure(
        workbench.catalogue.image(request.dataset, request.stimulus),
        list(finished_pictures(workbench, request)),
        figures.provenance_line(
            told,
            dataset=study.title,
            simulated=study.simulated,
            averaged=len(trials.rows("test", request.stimulus, request.repeats)),
            checkpoints=workbench.checkpoint_hashes(request, view),
            trained_on=whose_pictures(workbench, request.generator, request.dataset),
        ),
        caption=str(row["caption"]),
        guided=workbench.catalogue.generator_class(request.generator).guided,
        made=workbench.catalogue.generator_class(request.generator).provenance,
        rows=rows,
        samples=finished_samples(workbench, request),
        decoding=decoding,
        attention=attention_of(workbench, request)
        if decoding and view.attention != "off"
        else None,
        parcel_map=shown,
        measure=view.measure,
        parcellation=parcellation_of(workbench, request.dataset, request.subject, view.atlas),
        voxel_space=space,
        surface=view.surface,
        camera=view.camera,
        hemisphere=view.hemisphere,
        parcel=view.parcel,
        threshold=view.threshold,
        palettes={kind: palettes.stops(kind, view) for kind in palettes.PALETTES},
        outlines=trials.subject.voxels.parcellations.get(view.outlines),
    )
    return figures.figure_bytes(figure, form)
