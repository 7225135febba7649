"""The view of all trials at once, below a trial: what is sent, drawn on request, and asked for."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

from explorer.evidence import sheet as sheets
from explorer.evidence.sheet_view import name_of, payload
from explorer.finished import finished_pictures
from explorer.page import links, trial
from explorer.page.choices import settle
from explorer.page.lab_trial import Parts
from explorer.page.pictures import data_uri, shown_uri
from explorer.page.turns import Budget
from explorer.request import Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

MOST_ASKED = 60  # thumbnails of trials in one answer
WITHOUT_MODEL = 2  # the first parts of the view, which read what is finished


class Drawing(NamedTuple):
    """A wish to draw the rest at a scale: of which sheet, as `lab.decided_by` tells them apart."""

    key: tuple
    scale: float


def sheet_view(
    bench: Workbench,
    request: Request,
    view: View,
    budget: Budget | None = None,
    drawing: Drawing | None = None,
) -> Parts:
    """Send what is finished, then ranks and chance, then pictures as they are drawn, if asked."""
    budget = budget or Budget(asks=True)
    found = sheets.begin(bench, request)
    if drawing is not None and drawing.scale not in found.scales:
        drawing = None
    yield _content(bench, found), "Reading the finished pictures", 0.0
    for scale in found.scales:
        found = sheets.with_pictures(bench, found, scale)
    yield _content(bench, found), "Decoding all trials", 0.0
    if request.mapper:
        found = sheets.ranked(bench, found)
        yield _content(bench, found), "Measuring chance", 0.0
    seconds = {}
    for scale in found.scales if not drawing else ():
        seconds[scale] = sheets.seconds_each(bench, found, scale)
    if drawing is None:
        found = sheets.with_chance(bench, found)
        yield _content(bench, found, seconds, budget), "", 1.0
        return
    most = _affordable(budget, sheets.seconds_each(bench, found, drawing.scale))
    for found, done, of in sheets.draw(bench, found, drawing.scale, most):  # noqa: B020
        told = f"At scale {links.format_number(drawing.scale)}: {done} of {of}"
        yield _content(bench, found), told, min(0.999, done / of)
    for scale in found.scales:
        seconds[scale] = sheets.seconds_each(bench, found, scale)
    yield _content(bench, sheets.with_chance(bench, found), seconds, budget), "", 1.0


def _affordable(budget: Budget, each: float) -> int | None:
    """Return how many pictures one request may draw, None for all; on one's own machine all."""
    if budget.asks or each <= 0:
        return None
    most = int(budget.seconds // each)
    if not most:
        raise UserError(budget.refusal(each, "choose another generator or fewer steps"))
    return most


def _content(
    bench: Workbench,
    found: sheets.Sheet,
    seconds: dict[float, float] | None = None,
    budget: Budget | None = None,
) -> dict[str, Any]:
    offers = {}
    for scale, each in (seconds or {}).items():
        if lacking := len(found.lacking(scale)):
            made = bench.catalogue.generator_class(found.request.generator).provenance
            verb = "Draw" if made == "generated" else "Show"
            offers[name_of(scale)] = f"{verb} {_offer(lacking, each, budget)}"
    link = links.query(found.request, View())
    shown = {"link": link, "offers": offers, "measured": seconds is not None}
    return {**payload(bench, found), **shown}


def _offer(lacking: int, each: float, budget: Budget | None) -> str:
    """Return what is left to draw, as much as one request may take, and how long that takes."""
    try:
        most = _affordable(budget or Budget(asks=True), each) or lacking
    except UserError:
        most = 1
    time = f": {trial.duration(most * each)}" if each else ""
    if most < lacking:
        return f"{most} of the remaining {lacking}{time}"
    return f"the remaining {lacking}{time}"


def sheet_server(workbench: Workbench) -> Callable[[dict], dict]:
    """Return the function by which a browser asks for pictures of a sheet; it computes none."""

    def sheet(wanted: dict) -> dict:
        """Answer with thumbnails of ``ids`` at a scale, or with all whole pictures of one."""
        try:
            if not isinstance(wanted, dict) or not isinstance(wanted.get("ids"), list):
                raise UserError("Pictures of a sheet are asked for with link, scale and ids.")
            names = [str(name) for name in wanted["ids"][:MOST_ASKED]]
            query = dict(parse_qsl(str(wanted.get("link", ""))[: links.LONGEST_RECORD]))
            request = settle(query, workbench).request
            every = workbench.catalogue.gallery(request.dataset, request.subject).index
            names = [name for name in names if name in every]
            if wanted.get("full"):
                return {name: _whole(workbench, request, name) for name in names[:1]}
            scale = links.parse_scales(wanted.get("scale") or "1")[0]
            return {name: _small(workbench, request, name, scale) for name in names}
        except UserError as error:
            return {"problem": str(error)}

    return sheet


def _small(bench: Workbench, request: Request, name: str, scale: float) -> dict[str, str]:
    found = {"truth": sheets.shown_thumbnail(bench, request, name)}
    if request.generator:
        found["drawn"] = sheets.thumbnail(bench, request, name, scale)
    return {key: _address(packed) for key, packed in found.items() if packed}


def _address(packed: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(packed).decode('ascii')}"


def _whole(bench: Workbench, request: Request, name: str) -> dict[str, Any]:
    plain = sheets.shared(bench, request)
    one = replace(plain, stimulus=name)
    drawn = {}
    if request.generator:
        frames = finished_pictures(bench, one)
        drawn = {name_of(frame.scale): data_uri(frame.image) for frame in frames}
    return {"truth": shown_uri(bench.catalogue, one.dataset, name), "drawn": drawn}
