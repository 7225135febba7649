"""The brain view: the surface it needs once, what changes with the trial, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from explorer import figures
from explorer.types import MEASURES, TARGETS, Request, UserError, View

if TYPE_CHECKING:
    from explorer.workbench import ParcelMap, Workbench

METHOD_SENTENCES = {
    "gradient": (
        "How strongly the decision would change if a voxel's response changed a little, whatever "
        "that response was."
    ),
    "gradient x input": (
        "The gradient times the response in this trial: what each voxel's activity contributed "
        "to this decision."
    ),
}
MEASURE_SENTENCES = {
    "enrichment": (
        "A parcel's share of all importance over its share of the voxels. 1 is an even spread, so "
        "large parcels gain nothing by their size."
    ),
    "share": (
        "The part of all importance that falls on a parcel. All shares sum to 1, and large "
        "parcels have more voxels to sum over."
    ),
    "mean": "The mean size of a voxel's importance, in units of the target per unit of response.",
    "signed": (
        "The sum with its sign: positive pushes the decision towards the image that was shown, "
        "negative away from it. Opposite voxels cancel."
    ),
}
HELP = (
    "Importance is for this decoder, not for the brain. It says on which voxels this decoder's "
    "decision rests, by the gradient of its target: by default the retrieval margin, how far the "
    "shown image stands out from all other test images.",
    "A parcel that knows nothing about the image can rightly get weight: where it shares noise "
    "with informative parcels, a good decoder subtracts that noise, and needs the parcel to do "
    "so. And an informative parcel can get little where others carry the same information.",
    "Colours keep their limits over all trials of a subject, so that two maps can be compared. "
    "Parcels with fewer than 10 voxels are greyed in the table: they are too small to trust.",
)
# How the Desikan-Killiany atlas spells its parcels, and how people do.
READABLE = {
    "bankssts": "banks of superior temporal sulcus",
    "caudalanteriorcingulate": "caudal anterior cingulate",
    "caudalmiddlefrontal": "caudal middle frontal",
    "frontalpole": "frontal pole",
    "inferiorparietal": "inferior parietal",
    "inferiortemporal": "inferior temporal",
    "isthmuscingulate": "isthmus cingulate",
    "lateraloccipital": "lateral occipital",
    "lateralorbitofrontal": "lateral orbitofrontal",
    "medialorbitofrontal": "medial orbitofrontal",
    "middletemporal": "middle temporal",
    "parsopercularis": "pars opercularis",
    "parsorbitalis": "pars orbitalis",
    "parstriangularis": "pars triangularis",
    "posteriorcingulate": "posterior cingulate",
    "rostralanteriorcingulate": "rostral anterior cingulate",
    "rostralmiddlefrontal": "rostral middle frontal",
    "superiorfrontal": "superior frontal",
    "superiorparietal": "superior parietal",
    "superiortemporal": "superior temporal",
    "temporalpole": "temporal pole",
    "transversetemporal": "transverse temporal",
}
HEMISPHERE = {"L": "left", "R": "right", "": ""}


def readable(name: str) -> str:
    """Return a parcel's name as people write it; unknown names stay as they are."""
    return READABLE.get(name, name)


def atlas_of(request: Request, view: View, workbench: Workbench) -> str:
    """Return the atlas that is shown: the view's, else the first, "" where there is none."""
    atlases = workbench.trials(request.dataset, request.subject).subject.voxels.parcellations
    return view.atlas if view.atlas in atlases else next(iter(atlases), "")


def decided_by(request: Request, view: View) -> tuple:
    """Return what a map depends on: two equal tuples are the same map."""
    return (
        *(request.dataset, request.subject, request.stimulus, request.repeats, request.mapper),
        *(request.generator, view.method, view.target, view.atlas),
    )


def frame(request: Request, view: View, workbench: Workbench, plotly: str) -> dict[str, Any]:
    """Return the brain view without a map yet: its controls, texts and which surface it needs."""
    voxels = workbench.trials(request.dataset, request.subject).subject.voxels
    nowhere = "" if voxels.projection is not None and voxels.parcellations else (
        f"No surface: this study gives no locations for its {voxels.n_voxels} voxels, so they "
        "cannot be drawn on a brain or sorted into parcels. The table counts them as one group."
    )  # fmt: skip
    return {
        "state": "waiting",
        "key": {
            "dataset": request.dataset,
            "subject": request.subject,
            "atlas": atlas_of(request, view, workbench),
        },
        "view": asdict(view),
        "atlases": list(voxels.parcellations),
        "targets": list(TARGETS),
        "sentences": {
            "method": METHOD_SENTENCES,
            "measure": MEASURE_SENTENCES,
            "help": list(HELP),
        },
        "colours": {kind: list(stops) for kind, stops in figures.COLOURS.items()},
        "no_surface": nowhere,
        "note": nowhere,
        "maps": {},
        "rows": [],
        "plotly": plotly,
    }


def with_map(value: Mapping[str, Any], parcel_map: ParcelMap) -> dict[str, Any]:
    """Return the brain view with one trial's importance: a number a parcel and measure."""
    note = value["no_surface"]
    if parcel_map.flat:
        note = "The gradient of this target is zero for every voxel, so there is nothing to map."
    return {
        **value,
        "state": "done",
        "note": note,
        "maps": {measure: figures.parcel_values(parcel_map, measure) for measure in MEASURES},
        "rows": rows(parcel_map),
    }


def rows(parcel_map: ParcelMap) -> list[dict[str, Any]]:
    """Return the table: one row a parcel that holds voxels, numbers rounded to 4 digits."""
    out = []
    for row in parcel_map.table.to_dict("records"):
        if row["voxels"]:
            numbers = {m: float(row[m]) for m in MEASURES}
            hemisphere = HEMISPHERE.get(row["hemisphere"], row["hemisphere"])
            name = readable(row["name"])
            out.append(
                {
                    "parcel": row["parcel"],
                    "name": name,
                    "label": f"{name}, {hemisphere}" if hemisphere else name,
                    "hemisphere": row["hemisphere"],
                    "voxels": int(row["voxels"]),
                    "small": bool(row["small"]),
                    **{m: float(f"{v:.4g}") if math.isfinite(v) else None
                       for m, v in numbers.items()},
                }
            )  # fmt: skip
    return out


def surface_server(workbench: Workbench) -> Callable[[dict], dict]:
    """Return the function by which a browser asks for a surface that it does not have yet."""

    def surface(wanted: dict) -> dict:
        """Answer with `figures.surface_payload`, without the mesh where ``parcels_only``."""
        try:
            if not isinstance(wanted, dict):
                raise UserError("A surface is asked for with dataset, subject, atlas and surface.")
            name = {k: str(wanted.get(k, "")) for k in ("dataset", "subject", "atlas", "surface")}
            space = workbench.trials(name["dataset"], name["subject"]).subject.voxels
            if name["atlas"] not in space.parcellations:
                raise UserError(f"{name['dataset']} has no atlas {name['atlas']!r}.")
            parcellation = space.parcellations[name["atlas"]]
            payload = figures.surface_payload(parcellation, space, name["surface"])
        except UserError as error:
            return {"problem": str(error)}
        if wanted.get("parcels_only"):
            for side in ("left", "right"):
                payload[side] = {"parcel": payload[side]["parcel"]}
        return payload

    return surface
