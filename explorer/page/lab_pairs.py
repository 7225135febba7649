"""The evidence that sets one thing against another: two sides of a trial, and its guidance scales.

Values for the browser, as in `lab_trial`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.brain.display import beyond
from explorer.brain.maps import parcellation_of
from explorer.decoding import unexplained
from explorer.evidence import comparison, curves
from explorer.evidence.standing import IDENTIFICATION
from explorer.finished import TYPICAL_SCALE
from explorer.page.brain import atlas_of
from explorer.page.lab_choices import KINDS, other_side, sides
from explorer.page.lab_trial import Parts, format_rank, parcel_names, picture, rounded
from explorer.page.links import format_number
from explorer.page.pictures import data_uri, shown_uri
from explorer.request import Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

BARS = 12  # parcels whose two values are drawn: those that differ most
SEEDS = 3


def compare_settings(bench: Workbench, request: Request, view: View) -> dict[str, Any]:
    """Return what a trial can be compared with, by kind."""
    offered = sides(bench, request)
    return {
        "offered": [
            {"kind": kind, "sides": [s for s in offered if s.startswith(f"{kind}:")]}
            for kind in KINDS
        ],
        "chosen": view.against or next(iter(offered), ""),
    }


def compare_view(bench: Workbench, request: Request, view: View) -> Parts:
    """Send both sides, then decoding over the test images, maps, subjects, and pictures."""
    against = view.against or next(iter(sides(bench, request)), "")
    if not against:
        raise UserError(
            "There is nothing to compare this with: this study has one subject, one mapper and "
            "one generator here."
        )
    other = other_side(bench, request, against)
    yield {}, "Drawing both sides", 0.0
    pair = comparison.compare(bench, request, other)
    kind = against.partition(":")[0]
    content: dict[str, Any] = {
        "kind": kind,
        "a": _side(pair.a, _name(request, request, kind)),
        "b": _side(pair.b, _name(other, request, kind)),
        "difference": {**picture("Difference", None), "src": data_uri(pair.difference)},
        "sentence": pair.sentence,
        "tests": [],
        "maps": None,
        "subjects": [],
    }
    yield content, "Decoding all test images with both", 0.15
    tests = [_tested(bench, request, other, metric) for metric in comparison.OF_EMBEDDINGS]
    content = {**content, "tests": [one for one in tests if one]}
    yield content, "Mapping both", 0.3
    content = {**content, "maps": _maps(bench, request, other, view)}
    yield content, "Drawing all subjects", 0.4
    people = bench.catalogue.subjects(request.dataset)
    if len(people) > 1:
        for number, side in enumerate(comparison.across_subjects(bench, request), start=1):
            own = _side(side, side.request.subject)
            content = {**content, "subjects": [*content["subjects"], own]}
            told = f"Drawing all subjects: {number} of {len(people)}"
            yield content, told, 0.4 + 0.15 * number / len(people)
    tests = content["tests"]
    try:
        for found in comparison.paired_pictures(bench, request, other, IDENTIFICATION):
            content = {**content, "tests": [*tests, _test(found, "pictures")]}
            told = f"Drawing test images with both: {found.n} of {found.of}"
            yield content, told, 0.55 + 0.45 * found.n / found.of
    except UserError as error:  # too few test images, or no embedder for pictures
        content = {
            **content,
            "tests": [*tests, {"metric": "picture identified", "reason": str(error)}],
        }
        yield content, "", 1.0


def _name(request: Request, first: Request, kind: str) -> str:
    """Return what one side is called: what differs, and a generator that had to differ too."""
    name = getattr(request, kind)
    changed = kind != "generator" and request.generator != first.generator
    return f"{name}, drawn by {request.generator}" if changed else str(name)


def _side(side: comparison.Side, label: str) -> dict[str, Any]:
    rank = ""
    if side.decoded is not None and not math.isnan(side.decoded.rank):
        rank = f"{format_rank(side.decoded.rank)} of {side.decoded.n}"
    identified = rounded(side.drawn.identification) if side.drawn else None
    return {
        **picture(label, side.frame),
        "rank": rank,
        "identified": identified,
        "reason": side.reason,
    }


def _tested(bench: Workbench, a: Request, b: Request, metric: str) -> dict[str, Any]:
    """Return one row over the test images, {} where neither side decodes anything."""
    try:
        return _test(comparison.paired_difference(bench, a, b, metric), "embeddings")
    except UserError as error:
        return {"metric": metric, "of": "embeddings", "reason": str(error)}


def _test(found: comparison.PairedDifference, of: str) -> dict[str, Any]:
    low, high = found.interval
    return {
        "metric": found.metric,
        "of": of,
        "a": rounded(found.a),
        "b": rounded(found.b),
        "difference": rounded(found.difference),
        "low": rounded(low),
        "high": rounded(high),
        "better": found.better,
        "chance": rounded(found.chance),
        "n": found.n,
        "sentence": found.sentence,
        "reason": "",
    }


def _maps(bench: Workbench, a: Request, b: Request, view: View) -> dict[str, Any]:
    try:
        for request in (a, b):
            if reason := unexplained(bench, request):
                raise UserError(reason)
        pair = comparison.compare_maps(bench, a, b, view)
    except UserError as error:
        return {"reason": str(error)}
    names = parcel_names(parcellation_of(bench, a.dataset, a.subject, view.atlas))
    table = pair.table[pair.table["difference"].notna()]
    far = table.reindex(table["difference"].abs().sort_values(ascending=False).index)
    kind = "diverging" if view.measure == "signed" else "sequential"
    drawn = []
    for request, side, limits, colours in (
        (a, "a", pair.limits, kind),
        (b, "b", pair.limits, kind),
        (a, "difference", pair.difference_limits, "diverging"),
    ):
        column = zip(pair.table["parcel"], pair.table[side], strict=True)
        values = {key: rounded(v) for key, v in column}
        title = "difference" if side == "difference" else pair.measure
        drawn.append(surface_map(bench, request, view, values, colours, limits, title))
    return {
        "reason": "",
        "measure": pair.measure,
        "brains": drawn,
        "rows": [
            {"label": names[row["parcel"]], "a": rounded(row["a"]), "b": rounded(row["b"])}
            for row in far.head(BARS).to_dict("records")
        ],
        "sentence": pair.sentence,
    }


def surface_map(
    bench: Workbench,
    request: Request,
    view: View,
    values: Mapping[str, float | None],
    kind: str,
    limits: tuple[float, float],
    title: str,
) -> dict[str, Any]:
    """Return a number a parcel for a small view of the surface, or why there is none."""
    atlas = atlas_of(request, view, bench)
    voxels = bench.catalogue.trials(request.dataset, request.subject).subject.voxels
    parcellation = parcellation_of(bench, request.dataset, request.subject, view.atlas)
    nowhere = voxels.projection is None and parcellation.surface is None
    return {
        "key": {"dataset": request.dataset, "subject": request.subject, "atlas": atlas},
        "values": values,
        "kind": kind,
        "limits": list(limits),
        "beyond": beyond(values.values(), limits),
        "title": title,
        "problem": "This study gives no voxel locations, so no brain is drawn." * nowhere,
    }


# ------------------------------------------------------------------------------------------ curves


def curve_view(bench: Workbench, request: Request, view: View) -> Parts:
    """Send a trial's scores at every scale, seed by seed, then the test images' behind them."""
    drawn = curves.curve(bench, request, SEEDS)
    yield {}, "Drawing all scales", 0.0
    content: dict[str, Any] = {}
    for found in drawn:
        content = {
            "scales": [format_number(scale) for scale in found.scales],
            "typical": int(np.abs(np.array(found.scales) - TYPICAL_SCALE).argmin()),
            "images": [data_uri(image) for image in found.images],
            "truth": shown_uri(bench.catalogue, request.dataset, request.stimulus),
            "seeds": len(found.seeds),
            "behind": 0,
            "remark": found.remark,
            "scores": {name: _scored(found, name) for name in found.values},
        }
        told = f"Seed {len(found.seeds)} of {found.of}"
        yield content, told, 0.4 * len(found.seeds) / found.of
    try:
        behind = curves.background(bench, request)
    except UserError as error:  # a gallery of one image
        yield {**content, "reason": str(error)}, "", 1.0
        return
    for over in behind:
        scores = {name: {**own, **_behind(over, name)} for name, own in content["scores"].items()}
        told = f"The mean over test images: {over.n} of {over.of}"
        yield (
            {
                **content,
                "scores": scores,
                "behind": over.n,
                "remark": " ".join(filter(None, (content["remark"], over.remark))),
            },
            told,
            0.4 + 0.6 * over.n / over.of,
        )


def _scored(found: curves.Curve, name: str) -> dict[str, Any]:
    rows = found.values[name]
    return {
        "mean": [rounded(v) for v in found.mean(name)],
        "low": [rounded(v) for v in np.fmin.reduce(rows, axis=0)],  # fmin passes over NaN
        "high": [rounded(v) for v in np.fmax.reduce(rows, axis=0)],
    }


def _behind(over: curves.Background, name: str) -> dict[str, Any]:
    if name not in over.mean:
        return {}
    interval = np.asarray(over.interval[name])
    chance = over.chance.get(name)
    return {
        "test": [rounded(v) for v in over.mean[name]],
        "test_low": [rounded(v) for v in interval[:, 0]],
        "test_high": [rounded(v) for v in interval[:, 1]],
        "chance": None if chance is None else [rounded(v) for v in chance],
    }
