"""The evidence about one parcel for the browser: what drives it, and when it matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from explorer.brain.maps import parcellation_of
from explorer.brain.parcels import UNASSIGNED
from explorer.evidence import drivers, lesions, steps
from explorer.evidence.controls import at_scale
from explorer.metrics import evenly
from explorer.page.lab_choices import lesionable
from explorer.page.lab_trial import Parts, first_parcel, parcel_names, rounded
from explorer.page.links import format_number
from explorer.page.pictures import THUMBNAIL, data_uri, shown_uri
from explorer.request import Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

SHOWN = 8  # images at either end of a ranking
STRIP = 10  # steps whose pictures are shown; all have their numbers


def drivers_settings(bench: Workbench, request: Request, view: View) -> dict[str, Any]:
    """Return which parcels there are: nothing is computed for it."""
    parcellation = parcellation_of(bench, request.dataset, request.subject, view.atlas)
    names = parcel_names(parcellation)
    offered = lesionable(bench, request, view.atlas)
    return {
        "parcels": [[key, names[key]] for key in offered if key != UNASSIGNED],
        "chosen": parcel_of(bench, request, view),
    }


def parcel_of(bench: Workbench, request: Request, view: View) -> str:
    """Return the parcel that is asked about: the selected one, or the largest; "" for none."""
    offered = lesionable(bench, request, view.atlas)
    offered.pop(UNASSIGNED, None)
    if view.parcel in offered:
        return view.parcel
    return max(offered, key=lambda key: offered[key], default="")


def drivers_view(bench: Workbench, request: Request, view: View) -> Parts:
    """Send the images that drive a parcel, one ranking after another."""
    parcel = parcel_of(bench, request, view)
    parcellation = parcellation_of(bench, request.dataset, request.subject, view.atlas)
    if not parcel:
        raise UserError(
            f"{request.dataset}/{request.subject} has no parcel with voxels to ask about; choose "
            "another atlas."
        )
    content: dict[str, Any] = {
        "parcel": parcel,
        "label": parcel_names(parcellation)[parcel],
        "voxels": lesionable(bench, request, view.atlas)[parcel],
        "selected": view.parcel == parcel,
        "rankings": [],
    }
    yield content, "Reading this parcel's responses", 0.0
    for number, found in enumerate(drivers.drivers(bench, request, parcel, view.atlas), start=1):
        rankings = [*content["rankings"], _ranking(bench, request, found)]
        content = {**content, "rankings": rankings}
        share = number / drivers.RANKINGS
        yield content, f"{number} of {drivers.RANKINGS} rankings", share


def _ranking(bench: Workbench, request: Request, found: drivers.Ranking) -> dict[str, Any]:
    half = min(SHOWN, len(found.table) // 2)
    return {
        "name": found.name,
        "split": found.split,
        "of": drivers.OF[found.split],
        "unit": found.unit,
        "definition": found.definition,
        "sentence": found.sentence,
        "reason": found.reason,
        "n": len(found.table),
        "highest": _images(bench, request, found, found.table.head(half)),
        "lowest": _images(bench, request, found, found.table.tail(half)[::-1]),
    }


def _images(
    bench: Workbench, request: Request, found: drivers.Ranking, rows: pd.DataFrame
) -> list[dict[str, Any]]:
    gallery = bench.catalogue.gallery(request.dataset, request.subject)
    return [
        {
            "stimulus": row["stimulus"],
            "number": int(gallery.loc[row["stimulus"], "number"]) if found.split == "test" else 0,
            "value": rounded(row["value"], 3),
            "z": rounded(row["z"], 3),
            "repeats": int(row["repeats"]),
            "src": _thumbnail(bench, request.dataset, row["stimulus"]),
        }
        for row in rows.to_dict("records")
    ]


def _thumbnail(bench: Workbench, dataset: str, stimulus: str) -> str:
    try:
        return shown_uri(bench.catalogue, dataset, stimulus, THUMBNAIL)
    except UserError:  # a picture that is not there; its name and value stand
        return ""


# ------------------------------------------------------------------------------------------- steps


def steps_settings(bench: Workbench, request: Request, view: View) -> dict[str, Any]:
    """Return which parcels can be lesioned, and which are."""
    names = parcel_names(parcellation_of(bench, request.dataset, request.subject, view.atlas))
    offered = lesionable(bench, request, view.atlas)
    return {
        "parcels": [[key, names[key]] for key in offered],
        "chosen": list(_lesioned(bench, request, view) or ()),
    }


def _lesioned(bench: Workbench, request: Request, view: View) -> tuple[str, ...] | None:
    """Return the parcels of the lesion, else the selected one; None for neither."""
    if view.parcels:
        return view.parcels
    return (view.parcel,) if view.parcel in lesionable(bench, request, view.atlas) else None


def steps_view(bench: Workbench, request: Request, view: View) -> Parts:
    """Send how a picture with and without a parcel differs, step after step."""
    if reason := lesions.unlesioned(bench, request):
        raise UserError(reason)
    chosen = _lesioned(bench, request, view)
    if chosen is None:
        yield {}, "Lesioning each parcel alone", 0.0
        chosen = first_parcel(lesions.lesion_effects(bench, request, view.atlas, view.fill).table)
    how = lesions.Lesion(chosen, view.gain, view.fill, view.donor)
    names = parcel_names(parcellation_of(bench, request.dataset, request.subject, view.atlas))
    one = at_scale(bench, request)
    drawn = steps.step_differences(bench, request, how, view.atlas)
    of, found = one.steps, []
    content: dict[str, Any] = {
        "chosen": list(chosen),
        "labels": [names[key] for key in chosen],
        "fill": f"{lesions.fill_sentence(bench, request, how)}",
        "gain": view.gain,
        "generator": one.generator,
        "scale": format_number(one.scales[0]),
        "seed": str(one.seed),
        "steps": of,
        "definitions": dict(steps.DEFINITIONS),
        "rows": [],
        "images": [],
        "sentence": "",
    }
    yield content, f"Drawing step 1 of {of}", 0.02
    for step in drawn:
        found.append(step)
        at = {found[i].step: found[i] for i in evenly(len(found), STRIP)}
        content = {
            **content,
            "rows": [*content["rows"], _step(step)],
            "images": [_pair(one) for one in (at | {step.step: step}).values()],
        }
        yield content, f"Step {step.step} of {of}", min(0.99, step.step / of)
    yield {**content, "sentence": steps.when(found, of)}, "", 1.0


def _step(one: steps.Difference) -> dict[str, Any]:
    return {
        "step": one.step,
        "latents": rounded(one.latents),
        "pixels": rounded(one.pixels),
        "similarity": rounded(one.similarity),
        "intact": rounded(one.to_shown[0]),
        "lesioned": rounded(one.to_shown[1]),
    }


def _pair(one: steps.Difference) -> dict[str, Any]:
    rows = one.intact, one.lesioned, lesions.difference(one.intact, one.lesioned)
    return {"step": one.step, "images": [data_uri(image, THUMBNAIL) for image in rows]}
