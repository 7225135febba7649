"""What a site says of all trials of one subject and mapper: maps, statistics, tables."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.brain import display
from explorer.brain.maps import (
    CEILING,
    map_names,
    map_of_voxels,
    parcellation_of,
)
from explorer.brain.predicted import PREDICTIONS
from explorer.decoding import unexplained
from explorer.page import brain
from explorer.page.lab_tables import evaluation_view, statistics_settings, statistics_view
from explorer.request import IMPORTANCE, MEASURES, SURFACES, Request, View
from explorer.site.scripts import write_script
from explorer.site.trials import PLOTLY, evidence
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.site.plan import Group
    from explorer.workbench import Workbench

STEPS = 2**15 - 1  # of a coordinate from its middle: 0.004 mm


def statistics(bench: Workbench, request: Request, atlas: str) -> dict[str, Any]:
    """Return measure -> the map over all test images with its statistics."""
    if unexplained(bench, request):
        return {}
    found = {}
    for measure in MEASURES:
        view = View(measure=measure, atlas=atlas)
        value = evidence("statistics", statistics_view, bench, request, view)
        settings = statistics_settings(bench, request, view)
        # of one subject: a map of all of them belongs to no single group of a site
        found[measure] = {**value, "settings": {**settings, "offered": settings["offered"][:1]}}
    return found


def evaluated(bench: Workbench, request: Request) -> dict[str, Any]:
    """Return the tables of an evaluation; the page marks the trial that is shown in them."""
    return evidence("evaluation", evaluation_view, bench, request, View())


def other_maps(bench: Workbench, group: Group, atlases: list[str]) -> dict[str, dict[str, Any]]:
    """Return what else is known of a subject's voxels: one map for all of its trials.

    ``atlas|name`` or, for the noise ceiling of so many repeats, ``atlas|name|repeats`` -> the
    value of the page's brain component. Maps of a single trial's betas are left out.
    """
    first = group.first
    place = first.dataset, first.subject
    stimuli = bench.catalogue.gallery(*place)
    wanted = {request.stimulus for request in group.requests}
    some = stimuli[stimuli.index.isin(wanted)].drop_duplicates("repeats")
    found = {}
    for name in map_names(bench, *place):
        if name in (IMPORTANCE, *PREDICTIONS):
            continue
        for atlas in atlases:
            view = View(shows=name, atlas=atlas)
            for stimulus, row in some.iterrows() if name == CEILING else [(first.stimulus, None)]:
                request = replace(first, stimulus=str(stimulus))
                shown = map_of_voxels(bench, request, view)
                frame = brain.alone(brain.frame(request, view, bench, PLOTLY))
                key = f"{atlas}|{name}" + (f"|{int(row['repeats'])}" if name == CEILING else "")
                found[key] = brain.filled(frame, shown, request, view, bench)
    return found


class Surfaces:
    """The meshes of a site and the parcels on them, each array written once.

    Coordinates are whole numbers of `STEPS` from the middle to the farthest one.
    """

    def __init__(self, site: Path) -> None:
        self._site, self._written = site, set()
        self._parcels: dict[str, str] = {}

    def add(self, bench: Workbench, dataset: str, subject: str, atlas: str) -> str:
        """Write what draws an atlas of a subject; return the script's name, "" for no surface."""
        space = bench.catalogue.trials(dataset, subject).subject.voxels
        parcellation = parcellation_of(bench, dataset, subject, atlas)
        try:
            payloads = {s: display.surface_payload(parcellation, space, s) for s in SURFACES}
        except UserError:
            return ""
        for name, payload in payloads.items():
            self._mesh(name, payload)
        first = payloads[SURFACES[0]]
        parcels = {
            "parcels": first["parcels"],
            "colours": first["colours"],
            "atlas": first["atlas"],
            **{side: {"parcel": first[side]["parcel"]} for side in ("left", "right")},
        }
        name = f"surfaces/parcels-{_hash(parcels)}"
        self._write(name, parcels)
        return name

    def _mesh(self, surface: str, payload: dict[str, Any]) -> None:
        if f"surfaces/{surface}" in self._written:
            return
        mesh: dict[str, Any] = {"surface": surface, "layouts": payload["layouts"]}
        for side in ("left", "right"):
            arrays = {k: v for k, v in payload[side].items() if k != "parcel"}
            arrays["vertices"] = quantised(arrays["vertices"])
            mesh[side] = {}
            for part, array in arrays.items():
                name = f"surfaces/array-{_hash(array)}"
                self._write(name, array)
                mesh[side][part] = name
        self._write(f"surfaces/{surface}", mesh)

    def _write(self, name: str, value: Any) -> None:
        if name not in self._written:
            write_script(self._site, name, value)
            self._written.add(name)


def quantised(array: dict[str, Any]) -> dict[str, Any]:
    """Return an encoded float array as int16 and the ``unit`` that one step stands for."""
    values = np.frombuffer(base64.b64decode(array["data"]), array["dtype"])
    unit = float(np.abs(values).max()) / STEPS or 1.0
    steps = np.round(values / unit).astype("<i2")
    data = base64.b64encode(steps.tobytes()).decode("ascii")
    return {"dtype": "int16", "shape": array["shape"], "data": data, "unit": unit}


def _hash(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
