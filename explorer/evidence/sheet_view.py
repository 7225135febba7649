"""A sheet of all trials as values for a browser, and as a piece of a page that stands alone.

`payload` is JSON: text, numbers and addresses of pictures, never markup. ``assets/page/sheet.js``
draws it, on the page and in plain files, where `fragment` puts it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.evidence.sheet import PICTURE, Sheet
from explorer.writing import json_in_script

if TYPE_CHECKING:
    from explorer.workbench import Workbench

ASSETS = Path(__file__).parents[2] / "assets" / "page"
SCRIPTS, STYLES = ("common.js", "sheet.js"), ("sheet.css",)  # in this order
Address = Callable[[str, float | None], str]
"""Where the picture of a stimulus at a scale lies (None: the shown one), "" for nowhere."""


def payload(
    bench: Workbench,
    sheet: Sheet,
    *,
    small: Address | None = None,
    full: Address | None = None,
    href: Callable[[str], str] | None = None,
) -> dict[str, Any]:
    """Return what ``assets/page/sheet.js`` draws, ready for JSON.

    Parameters
    ----------
    small, full
        Addresses of thumbnails and of whole pictures, for files; without them the browser asks
        its server.
    href
        The address of a trial's own page, for files.
    """
    request, catalogue = sheet.request, bench.catalogue
    study = catalogue.dataset(request.dataset)
    repeats = ", ".join(str(r + 1) for r in request.repeats)
    made = "generated"
    about = [request.subject, request.mapper or "no mapper"]
    if request.generator:
        made = catalogue.generator_class(request.generator).provenance
        about.append(request.generator)
        if made == "generated":
            about += [f"{request.steps} steps", f"seed {request.seed}"]
    about.append(f"repeat {repeats}" if repeats else "average over repeats")
    guided = request.generator and catalogue.generator_class(request.generator).guided
    trials = []
    for tile in sheet.tiles:
        pictured = not catalogue.without_picture(request.dataset, tile.stimulus)
        pictures = {
            name_of(scale): {
                "scores": {k: _rounded(v) for k, v in dict(scores).items()},
                **_addresses(small, full, tile.stimulus, scale),
            }
            for scale, scores in dict(tile.pictures).items()
        }
        trials.append(
            {
                "id": tile.stimulus,
                "number": tile.number,
                "caption": tile.caption,
                "category": tile.category,
                "why": tile.why,
                "pictured": pictured,
                "scores": {k: _rounded(v) for k, v in dict(tile.scores).items()},
                "pictures": pictures,
                **(_addresses(small, full, tile.stimulus, None) if pictured else {}),
                **({"href": href(tile.stimulus)} if href else {}),
            }
        )
    return {
        "about": about,
        "title": study.title,
        "simulated": bool(study.simulated),
        "data_note": study.note,
        "made": made,
        "notes": list(sheet.notes),
        "scales": [
            {"key": name_of(s), "label": f"scale {s:g}" if guided else request.generator}
            for s in sheet.scales
        ],
        "scale": name_of(sheet.scale),
        "scores": [_score(score) for score in sheet.scores],
        "categories": sorted({tile.category for tile in sheet.tiles if tile.category}),
        "trials": trials,
        "lacking": {name_of(s): len(sheet.lacking(s)) for s in sheet.scales},
    }


def name_of(scale: float) -> str:
    """Return a scale as the key of a payload, e.g. ``2`` or ``7.5``."""
    return repr(float(scale)).removesuffix(".0")


def fragment(value: Mapping[str, Any], identifier: str = "sheet") -> str:
    """Return the HTML of a sheet for a page that has `SCRIPTS` and `STYLES`, in that order.

    An element of this id, and the payload beside it as JSON that no caption can leave.
    """
    text = json_in_script(value)
    return (
        f'<div id="{identifier}"></div>\n'
        f'<script type="application/json" id="{identifier}-data">{text}</script>\n'
        f'<script>showSheet("{identifier}");</script>\n'
    )


def _addresses(
    small: Address | None, full: Address | None, stimulus: str, scale: float | None
) -> dict[str, str]:
    found = {"thumb": small, "full": full}
    return {name: of(stimulus, scale) for name, of in found.items() if of}


def _score(score: Any) -> dict[str, Any]:
    chance = {} if not score.chance else dict(score.chance)
    return {
        "key": score.key,
        "title": score.title,
        "sentence": score.sentence,
        "better": score.better,
        "by_scale": score.of == PICTURE,
        "chance": {"" if s is None else name_of(s): _rounded(v) for s, v in chance.items()},
        "chance_of": score.chance_of,
    }


def _rounded(value: float) -> float | None:
    """Return a number as it stands in JSON, by which it is sorted: six decimals."""
    return round(float(value), 6) if math.isfinite(value) else None
