"""The evidence about one trial, as values that the browser draws: controls and lesions.

Each view sends what it has after each part, what comes next, and the share that is done.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.brain.maps import parcellation_of
from explorer.brain.parcels import UNASSIGNED
from explorer.evidence import controls, lesions
from explorer.evidence.faithfulness import Faithfulness, faithfulness, mean_faithfulness
from explorer.evidence.standing import Place
from explorer.finished import Frame
from explorer.metrics import written
from explorer.page.brain import HEMISPHERE, readable
from explorer.page.lab_choices import lesionable
from explorer.page.links import format_number
from explorer.page.pictures import THUMBNAIL, data_uri, found_uri, shown_uri
from explorer.request import MOST_GAIN, Request, View
from explorer.types import Parcellation, UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

Parts = Iterator[tuple[dict[str, Any], str, float]]
SHOWN = "shown image"
ALONE = (
    "There is one test image, so nothing stands out from others: there is no retrieval margin, no "
    "lesion effect and no importance. Parcels come in the order in which they shift the embedding."
)
FAITHFUL_TRIALS = 60  # evenly spaced test trials behind the mean figure (our choice, for the time)
TITLES = {
    controls.TRUE: "The true embedding",
    controls.NOISELESS: "The response without noise",
    controls.AVERAGE: "Average over repeats",
    controls.ANOTHER: "Another trial's brain",
    controls.MEAN: "The average brain",
    controls.NONE: "No brain",
    controls.NEAREST: "Nearest training image",
}


def rounded(value: float | None, digits: int = 4) -> float | None:
    """Return a number for the browser, None where it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def format_rank(rank: float) -> str:
    """Return a rank, with a half where a tie was shared."""
    return "–" if math.isnan(rank) else f"{rank:g}"


def format_signed(value: float, digits: int = 2) -> str:
    """Return a number with its sign, a true minus."""
    return "–" if math.isnan(value) else f"{value:+.{digits}f}".replace("-", "−")


def scores_of(scores: Mapping[str, float]) -> list[list[str]]:
    """Return a picture's scores as they stand under it."""
    return [[name, written(value)] for name, value in scores.items()]


def parcel_names(parcellation: Parcellation) -> dict[str, str]:
    """Return how people call each parcel of an atlas, (unassigned) among them."""
    names = {UNASSIGNED: "voxels in no parcel"}
    for label in parcellation.labels:
        side = HEMISPHERE.get(label.hemisphere, label.hemisphere)
        name = readable(label.name)
        names[label.key] = f"{name}, {side}" if side else name
    return names


# ---------------------------------------------------------------------------------------- controls


def controls_view(bench: Workbench, request: Request, view: View) -> Parts:
    """Send the strip of controls, a card at a time."""
    asked = controls.controls(bench, request)
    one = controls.at_scale(bench, request)
    truth = {
        "title": "The shown image",
        "sentence": "What the person saw.",
        "src": shown_uri(bench.catalogue, request.dataset, request.stimulus),
    }
    cards = [_card(SHOWN) | truth | {"state": "done"}, *map(_card, controls.CONTROLS)]
    made = bench.catalogue.generator_class(request.generator).provenance
    guided = bench.catalogue.generator_class(request.generator).guided
    told = {"scale": format_number(one.scales[0]) if guided else "", "seed": str(one.seed)}
    told["generator"] = request.generator
    yield {**told, "cards": cards}, "Drawing the controls", 0.0
    for number, control in enumerate(asked, start=1):
        cards = [*cards]
        cards[number] = _control_card(control, made)
        done = f"Drawing the controls: {number} of {len(controls.CONTROLS)}"
        yield {**told, "cards": cards}, done, number / len(controls.CONTROLS)


def _card(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "title": TITLES.get(name, name[:1].upper() + name[1:]),
        "state": "empty",
        "src": "",
        "sentence": "",
        "note": "",
        "reason": "",
        "scores": [],
        "rank": "",
        "identified": None,
    }


def _control_card(control: controls.Control, made: str) -> dict[str, Any]:
    card = _card(control.name)
    if control.reason:
        return {**card, "state": "none", "reason": control.reason, "sentence": ""}
    rank = ""
    if control.decoded is not None and not math.isnan(control.decoded.rank):
        rank = f"{format_rank(control.decoded.rank)} of {control.decoded.n}"
    return {
        **card,
        "state": "done",
        "src": found_uri(control.image, "retrieved" if control.name == controls.NEAREST else made),
        "sentence": control.sentence,
        "note": control.note,
        "scores": scores_of(control.scores),
        "rank": rank,
        "identified": rounded(control.drawn.identification) if control.drawn else None,
    }


# ----------------------------------------------------------------------------------------- lesions


def lesion_settings(bench: Workbench, request: Request, view: View) -> dict[str, Any]:
    """Return what a lesion can be of: nothing is decoded for it."""
    parcellation = parcellation_of(bench, request.dataset, request.subject, view.atlas)
    names = parcel_names(parcellation)
    offered = lesionable(bench, request, view.atlas)
    gallery = bench.catalogue.gallery(request.dataset, request.subject)
    number = int(gallery.loc[view.donor, "number"]) if view.donor else None
    return {
        "parcels": [
            {"parcel": key, "label": names[key], "voxels": count} for key, count in offered.items()
        ],
        "chosen": list(view.parcels),
        "gain": view.gain,
        "most": MOST_GAIN,
        "fill": view.fill,
        "fills": list(lesions.FILLS),
        "donor": number,
        "stimuli": [str(name) for name in gallery.index] if view.fill == lesions.ANOTHER else [],
    }


def lesion_view(bench: Workbench, request: Request, view: View) -> Parts:
    """Send the effect of every parcel, one lesion in numbers and pictures, then the figure."""
    if reason := lesions.unlesioned(bench, request):
        raise UserError(reason)
    parcellation = parcellation_of(bench, request.dataset, request.subject, view.atlas)
    names = parcel_names(parcellation)
    yield {}, "Lesioning each parcel alone", 0.0
    effects = lesions.lesion_effects(bench, request, view.atlas, view.fill)
    alone = len(bench.catalogue.gallery(request.dataset, request.subject)) == 1
    own = None if alone else faithfulness(bench, request, view)
    chosen = view.parcels or first_parcel(effects.table)
    how = lesions.Lesion(chosen, view.gain, view.fill, view.donor)
    content: dict[str, Any] = {
        "chosen": list(chosen),
        "labels": [names[key] for key in chosen],
        "unchosen": not view.parcels,
        "rows": _effect_rows(effects.table, own, names),
        "intact": _place(effects.intact),
        "fill": effects.fill,
        "scatter": {"trial": own and _scatter(own, names), "mean": None},
        "alone": ALONE if alone else "",
        "lesion": None,
        "pictures": None,
    }
    yield content, "Decoding without these parcels", 0.2
    found = lesions.lesion(bench, request, how, view.atlas)
    content = {**content, "lesion": _lesion(bench, request, found)}
    yield content, "Drawing both pictures", 0.3
    try:
        drawn = lesions.lesion_pictures(bench, request, how, view.atlas)
        content = {**content, "pictures": _pictures(drawn)}
    except UserError as error:  # what is decoded can be told without pictures
        content = {**content, "undrawn": str(error)}
    yield content, "Lesions in other test trials", 0.5
    if alone:
        return
    for mean in mean_faithfulness(bench, request, view, FAITHFUL_TRIALS):
        content = {**content, "scatter": {**content["scatter"], "mean": _scatter(mean, names)}}
        done = f"Lesions in other test trials: {mean.n} of {mean.of}"
        yield content, done, 0.5 + 0.5 * mean.n / mean.of


def first_parcel(effects: pd.DataFrame) -> tuple[str, ...]:
    """Return the parcel whose lesion moves the margin most, small ones aside where possible.

    Without margins, as with one test image, the parcel that shifts the embedding most.
    """
    by = "effect" if effects["effect"].notna().any() else "shift"
    table = effects[effects[by].notna()]
    for rows in (table[~table["small"] & (table["parcel"] != UNASSIGNED)], table):
        if len(rows):
            return (str(rows["parcel"].iloc[int(rows[by].abs().argmax())]),)
    raise UserError("No parcel here holds a voxel, so there is nothing to lesion.")


def _effect_rows(
    effects: pd.DataFrame, own: Faithfulness | None, names: Mapping[str, str]
) -> list[dict[str, Any]]:
    weights: dict[str, float] = {}
    if own is not None:
        weights = dict(zip(own.table["parcel"], own.table["importance"], strict=True))
    return [
        {
            "parcel": row["parcel"],
            "label": names[row["parcel"]],
            "voxels": int(row["voxels"]),
            "small": bool(row["small"]),
            "effect": rounded(row["effect"]),
            "shift": rounded(row["shift"]),
            "importance": rounded(weights.get(row["parcel"])),
            "rank": format_rank(row["rank"]),
        }
        for row in effects.to_dict("records")
        if row["voxels"]
    ]


def _scatter(found: Faithfulness, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the faithfulness figure: what is set against importance is what it is ranked with."""
    against = "effect" if found.measure == "signed" else "size"
    table = found.table[np.isfinite(found.table["importance"] + found.table[against])]
    return {
        "points": [
            {
                "parcel": row["parcel"],
                "label": names[row["parcel"]],
                "small": bool(row["small"]),
                "x": rounded(row["importance"]),
                "y": rounded(row[against]),
            }
            for row in table.to_dict("records")
        ],
        "measure": found.measure,
        "against": against,
        "correlation": written(found.correlation) if len(table) > 1 else "–",
        "n": found.n,
        "of": found.of,
        "sentence": found.sentence,
    }


def _place(place: Place) -> dict[str, Any]:
    return {
        "rank": format_rank(place.rank),
        "n": place.n,
        "margin": "–" if math.isnan(place.margin) else written(place.margin),
        "similarity": written(place.similarity),
    }


def _lesion(bench: Workbench, request: Request, found: lesions.Lesioned) -> dict[str, Any]:
    before, after = _place(found.intact), _place(found.lesioned)
    rows = [
        ["Rank of the shown image", before["rank"], after["rank"], f"of {before['n']}"],
        ["Retrieval margin", before["margin"], after["margin"], "nats"],
        ["Similarity to the shown image", before["similarity"], after["similarity"], ""],
        ["Embedding shift", "0", written(found.shift, 3), "0 none, 1 unrelated"],
    ]
    donor = None
    if found.donor:
        gallery = bench.catalogue.gallery(request.dataset, request.subject)
        donor = {
            "stimulus": found.donor,
            "number": int(gallery.loc[found.donor, "number"]),
            "caption": str(gallery.loc[found.donor, "caption"]),
            "src": shown_uri(bench.catalogue, request.dataset, found.donor, THUMBNAIL),
        }
    return {
        "voxels": found.voxels,
        "rows": rows,
        "sentence": found.sentence,
        "warning": found.warning,
        "donor": donor,
    }


def _pictures(drawn: lesions.LesionPictures) -> list[dict[str, Any]]:
    return [
        picture("Intact", drawn.intact),
        picture("Lesioned", drawn.lesioned),
        {**picture("Difference", None), "src": data_uri(drawn.difference)},
    ]


def picture(label: str, frame: Frame | None) -> dict[str, Any]:
    """Return one picture with its label and scores, empty without a frame."""
    if frame is None:
        return {"label": label, "src": "", "scores": [], "note": ""}
    return {
        "label": label,
        "src": data_uri(frame.image),
        "scores": scores_of(frame.scores),
        "note": frame.note,
    }
