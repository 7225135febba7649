"""The brain view: the surface it needs once, what changes with the trial, and what it says."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from explorer.brain import display, palettes, volumes
from explorer.brain.importance import INCOMPLETE
from explorer.brain.maps import CEILING, NCSNR, drawn_on, map_names, parcellation_of, target_names
from explorer.brain.parcels import VoxelMap
from explorer.brain.predicted import ACCURACY, FEWEST, MEASURED, PREDICTED, PREDICTIONS
from explorer.brain.values import on_voxels, told_of
from explorer.page import map_export
from explorer.request import (
    IMPORTANCE,
    LIKELIHOOD,
    MEASURES,
    PARCELS,
    PICTURED,
    SURFACES,
    Request,
    View,
)
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.brain.maps import ParcelMap
    from explorer.types import Parcellation, VoxelSpace
    from explorer.workbench import Workbench

METHOD_SENTENCES = {
    "gradient": (
        "How strongly the decision would change if a voxel's response changed a little, whatever "
        "that response was."
    ),
    "gradient x input": (
        "The gradient times the response in this trial: what each voxel's activity contributed "
        "to this decision."
    ),
    "integrated gradients": (
        "The response times the mean gradient on the way from the average response to this one: "
        "what each voxel contributed, so that all contributions sum to the change of the decision."
    ),
}
TARGET_SENTENCES = {
    "retrieval margin": "",  # the help tells
    "fixed direction": "",
    LIKELIHOOD: (
        "The decision is the density that this decoder, trained on single trials, gives the shown "
        "image's embedding."
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
    "Where a parcel goes beyond them, the bar ends in an arrow and a ≥. "
    "Parcels with fewer than 10 voxels are greyed in the table: they are too small to trust.",
)
# What a view can show, as people call it, and what it says about itself. Other names are those of
# the data set.
_BETAS = (
    "as differences from the mean of the training trials. “r, trial” correlates measured with "
    f"predicted betas over a parcel's voxels, in this trial alone, from {FEWEST} voxels on."
)
SHOWN = {
    IMPORTANCE: ("Importance", "What the decoder rests on", ""),
    MEASURED: ("Measured betas", "What was measured", f"Signal and noise, {_BETAS}"),
    PREDICTED: ("Predicted betas", "What an encoding model predicts", f"Betas {_BETAS}"),
    ACCURACY: (
        "Measured against predicted",
        "How well the image predicts the responses",
        "Each voxel's correlation over test images; “Mean” is that of a parcel's voxels, and "
        "“r, at best” is what the noise leaves to a perfect model (from ncsnr). “r, trial” is "
        f"over a parcel's voxels instead, in this trial alone, from {FEWEST} voxels on.",
    ),
    CEILING: (
        "Noise ceiling",
        "How well anything could predict the responses",
        "The share of a voxel's variance that is due to the image and not to noise, judged by "
        "repeats of images (from ncsnr; Allen et al. 2022). No model explains more.",
    ),
    NCSNR: (
        "Noise-ceiling SNR",
        "How reliable the responses are",
        "The spread of a voxel's responses over images relative to their noise in one trial "
        "(ncsnr; Allen et al. 2022).",
    ),
    PARCELS: (
        "Parcels",
        "Where the parcels are",
        "Each parcel in the colour that its atlas gives it. Of overlapping ROIs the smallest is "
        "drawn.",
    ),
}
OF_MAP = {"shows", "method", "target", "atlas"}  # fields of a view that bring another map
# And those that bring another picture, where the map is drawn as slices or a glass brain.
OF_PICTURE = {"surface", "measure", "threshold", "sequential", "diverging"}
OWN_MAP = "A map that comes with the data set: one number a voxel."
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
    atlases = workbench.catalogue.trials(
        request.dataset, request.subject
    ).subject.voxels.parcellations
    return view.atlas if view.atlas in atlases else next(iter(atlases), "")


def means_work(change: Iterable[str], before: View, now: View) -> bool:
    """Return whether changed fields of a view bring another map, or another picture of it."""
    pictured = {before.surface, now.surface} & set(PICTURED)
    return bool(set(change) & (OF_MAP | (OF_PICTURE if pictured else set())))


def decided_by(request: Request, view: View) -> tuple:
    """Return what a map depends on: two equal tuples are the same map, and picture of it."""
    picture = tuple(str(getattr(view, name)) for name in sorted(OF_PICTURE))
    return (*_map_decided_by(request, view), *(picture if view.surface in PICTURED else ()))


def _map_decided_by(request: Request, view: View) -> tuple:
    if view.shows != IMPORTANCE:
        of_trial = view.shows in (CEILING, *PREDICTIONS)
        trial = (request.stimulus, request.repeats) if of_trial else ()
        return (request.dataset, request.subject, view.shows, view.atlas, *trial)
    return (
        *(request.dataset, request.subject, request.stimulus, request.repeats, request.mapper),
        *(request.generator, view.method, view.target, view.atlas),
    )


def frame(request: Request, view: View, workbench: Workbench, plotly: str) -> dict[str, Any]:
    """Return the brain view without a map yet: its controls, texts and which surface it needs."""
    voxels = workbench.catalogue.trials(request.dataset, request.subject).subject.voxels
    atlas = atlas_of(request, view, workbench)
    nowhere = _nowhere(request, view, workbench)
    parcels = parcellation_of(workbench, request.dataset, request.subject, atlas)
    offered = map_names(workbench, request.dataset, request.subject)
    _, heading, sentence = SHOWN.get(view.shows, (view.shows, view.shows, OWN_MAP))
    return {
        "state": "waiting",
        "key": {"dataset": request.dataset, "subject": request.subject, "atlas": atlas},
        "view": asdict(view),
        "heading": heading[:1].upper() + heading[1:],
        "offered": [[name, SHOWN.get(name, (name,))[0]] for name in offered],
        "atlases": list(voxels.parcellations),
        "targets": target_names(workbench, request.dataset, request.subject, request.mapper),
        "sentences": {
            "shows": sentence,
            "target": TARGET_SENTENCES,
            "method": METHOD_SENTENCES,
            "measure": MEASURE_SENTENCES,
            "help": list(HELP),
        },
        "palettes": {
            kind: {name: list(stops) for name, stops in maps.items()}
            for kind, maps in palettes.PALETTES.items()
        },
        "no_surface": nowhere,
        "surfaces": drawn_on(workbench, request.dataset, request.subject, view),
        "picture": None,
        "files": map_export.offered(voxels, parcels) if view.shows != PARCELS else [],
        "note": nowhere or parcels.note,
        "maps": {},
        "vertices": None,
        "rows": [],
        "plotly": plotly,
    }


def alone(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the brain view for a page that no server answers: without files and slices."""
    surfaces = [name for name in value["surfaces"] if name in SURFACES]
    return {**value, "files": [], "surfaces": surfaces}


def _nowhere(request: Request, view: View, workbench: Workbench) -> str:
    """Return why nothing can be drawn on a surface, and what would help; "" where it can."""
    voxels = workbench.catalogue.trials(request.dataset, request.subject).subject.voxels
    shown = parcellation_of(
        workbench, request.dataset, request.subject, atlas_of(request, view, workbench)
    )
    pictured = view.surface in PICTURED and volumes.offered(voxels)
    if voxels.projection is None and shown.surface is None and not pictured:
        none = (
            f"No surface: this study gives no locations for its {voxels.n_voxels} voxels, so they "
            "cannot be drawn on a brain."
        )
        if shown.labels:
            return (
                f"{none} To paint its ROIs where a group has them, start with --atlas FILE, an "
                "atlas that has parcels of the same names."
            )
        return f"{none} The table counts them as one group."
    if not shown.labels and view.shows in (IMPORTANCE, PARCELS):
        return (
            "No parcels: this study gives its voxels places but no atlas. Start with --atlas FILE "
            "to lay one over them. The table counts them as one group."
        )
    return ""


def with_map(value: Mapping[str, Any], parcel_map: ParcelMap) -> dict[str, Any]:
    """Return the brain view with one trial's importance: a number a parcel and measure."""
    note = value["note"]
    if parcel_map.flat:
        note = "The gradient of this target is zero for every voxel, so there is nothing to map."
    sentences = value["sentences"]
    if parcel_map.completeness is not None:
        told = f"{METHOD_SENTENCES[parcel_map.method]} {_missing(parcel_map.completeness)}"
        sentences = {**sentences, "method": {**sentences["method"], parcel_map.method: told}}
    return {
        **value,
        "state": "done",
        "sentences": sentences,
        "note": note,
        "maps": {measure: display.parcel_values(parcel_map, measure) for measure in MEASURES},
        "rows": rows(parcel_map.table, MEASURES),
    }


def _missing(error: float) -> str:
    """Return what integrated gradients lack of the whole change, in a sentence."""
    if error <= INCOMPLETE:
        return f"Here the sum misses {100 * error:.2g} % of that change."
    return (
        f"Here the sum misses {100 * error:.0f} % of that change, because this mapper's decision "
        "bends sharply on the way: trust another method."
    )


def filled(
    value: Mapping[str, Any],
    shown: ParcelMap | VoxelMap,
    request: Request,
    view: View,
    workbench: Workbench,
) -> dict[str, Any]:
    """Return the brain view with what `Workbench.evidence` gave for it."""
    place = request.dataset, request.subject
    voxels = workbench.catalogue.trials(*place).subject.voxels
    parcellation = parcellation_of(workbench, *place, view.atlas)
    if view.surface in PICTURED and not value["no_surface"]:
        value = {**value, "picture": _picture(shown, parcellation, voxels, view)}
    if not isinstance(shown, VoxelMap):
        return with_map(value, shown)
    return with_voxel_map(value, shown, parcellation, voxels)


def _picture(
    shown: ParcelMap | VoxelMap, parcellation: Parcellation, voxels: VoxelSpace, view: View
) -> dict[str, str]:
    """Return slices or a glass brain as a PNG address, and what they show in words."""
    numbers = told_of(shown, view.measure)
    chosen = {kind: palettes.stops(kind, view) for kind in palettes.PALETTES}
    drawn = volumes.picture(
        *(view.surface, shown, numbers, parcellation, voxels, view.threshold, chosen)
    )
    data = base64.b64encode(drawn).decode("ascii")
    said = volumes.told(voxels, view.surface)
    values = on_voxels(shown, numbers, parcellation)
    lost = display.threshold_sentence(values, view.threshold, "voxels").capitalize()
    told = {"note": said, "hidden": f"{lost}." if lost else ""}
    return {"image": f"data:image/png;base64,{data}", "of": view.surface, **told}


def with_voxel_map(
    value: Mapping[str, Any], shown: VoxelMap, parcellation: Parcellation, voxels: VoxelSpace
) -> dict[str, Any]:
    """Return the brain view with a map of the subject's voxels, or with the parcels themselves."""
    numbers = ("known", "mean", "r_ceiling", "r_trial")
    columns = [name for name in numbers if name in shown.table]
    sentence = f"{value['sentences']['shows']} {shown.sentence}".strip()
    return {
        **value,
        "state": "done",
        "sentences": {**value["sentences"], "shows": sentence},
        "maps": {"mean": display.map_values(shown)},
        "vertices": display.map_payload(shown, parcellation, voxels),
        "rows": rows(shown.table, columns),
    }


def payload(workbench: Workbench, request: Request, view: View, shown: VoxelMap) -> dict[str, Any]:
    """Return a brain of its own: a map of a request's voxels, without the view's controls."""
    place = request.dataset, request.subject
    parcellation = parcellation_of(workbench, *place, view.atlas)
    voxels = workbench.catalogue.trials(*place).subject.voxels
    vertices = display.map_payload(shown, parcellation, voxels)
    atlas = atlas_of(request, view, workbench)
    return {
        "key": {"dataset": request.dataset, "subject": request.subject, "atlas": atlas},
        "vertices": vertices,
        "kind": shown.kind,
        "limits": list(shown.limits),
        "beyond": display.beyond(shown.values, shown.limits),
        "title": shown.title,
        "problem": "This study gives no voxel locations, so no brain is drawn." * (not vertices),
    }


def rows(table: pd.DataFrame, measures: Iterable[str]) -> list[dict[str, Any]]:
    """Return the table: one row a parcel that holds voxels, numbers rounded to 4 digits."""
    out = []
    for row in table.to_dict("records"):
        if row["voxels"]:
            numbers = {m: float(row[m]) for m in measures}
            hemisphere = HEMISPHERE.get(row["hemisphere"], row["hemisphere"])
            name = readable(row["name"])
            out.append(
                {
                    "parcel": row["parcel"],
                    "name": name,
                    "label": f"{name}, {hemisphere}" if hemisphere else name,
                    "hemisphere": row["hemisphere"],
                    "voxels": int(row["voxels"]),
                    "small": bool(row.get("small", False)),
                    **{m: float(f"{v:.4g}") if math.isfinite(v) else None
                       for m, v in numbers.items()},
                }
            )  # fmt: skip
    return out


def surface_server(workbench: Workbench) -> Callable[[dict], dict]:
    """Return the function by which a browser asks for a surface that it does not have yet."""

    def surface(wanted: dict) -> dict:
        """Answer with `display.surface_payload`, without the mesh where ``parcels_only``."""
        try:
            if not isinstance(wanted, dict):
                raise UserError("A surface is asked for with dataset, subject, atlas and surface.")
            name = {k: str(wanted.get(k, "")) for k in ("dataset", "subject", "atlas", "surface")}
            place = name["dataset"], name["subject"]
            space = workbench.catalogue.trials(*place).subject.voxels
            parcellation = parcellation_of(workbench, *place, name["atlas"])
            payload = display.surface_payload(parcellation, space, name["surface"])
        except UserError as error:
            return {"problem": str(error)}
        if wanted.get("parcels_only"):
            for side in ("left", "right"):
                payload[side] = {"parcel": payload[side]["parcel"]}
        return payload

    return surface
