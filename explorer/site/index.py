"""A group's trials as a sheet: the page's own view of all trials, with pictures as files.

Numbers lie in rows, so that the list of some hundred trials is there before the first picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from explorer.evidence import sheet as sheets
from explorer.evidence.sheet_view import name_of, payload
from explorer.images import small_picture
from explorer.writing import csv_text, write_whole

if TYPE_CHECKING:
    from explorer.finished import Frame
    from explorer.site.plan import Group
    from explorer.workbench import Workbench

THUMBS = "thumbs"
Scores = Mapping[str, Mapping[float, Mapping[str, float]]]
"""Stimulus -> scale -> the scores of a picture."""


def finished_sheet(bench: Workbench, group: Group, scores: Scores) -> sheets.Sheet:
    """Return the sheet of a group's trials; ``scores``: those of its pictures."""
    found = sheets.begin(bench, group.first)
    tiles = [replace(tile, pictures=scores.get(tile.stimulus, {})) for tile in found.tiles]
    found = replace(found, tiles=tuple(tiles))
    if group.first.mapper:
        found = sheets.ranked(bench, found)
    found = sheets.with_chance(bench, found)
    return replace(found, tiles=tuple(t for t in found.tiles if t.stimulus in scores))


def write_thumbs(
    site: Path, group: Group, number: int, shown: np.ndarray | None, frames: Sequence[Frame]
) -> None:
    """Write the thumbnails of a trial's first row of pictures, and of what was shown if given."""
    if shown is not None:
        packed = small_picture(shown, sheets.THUMBNAIL)
        write_whole(site / shown_thumb(group, number), packed)
    for frame in frames:
        if not frame.row:
            name = f"{number:04d}-{name_of(frame.scale)}.webp"
            packed = small_picture(frame.image, sheets.THUMBNAIL)
            write_whole(site / THUMBS / group.name / name, packed)


def shown_thumb(group: Group, number: int) -> str:
    """Return the file of the thumbnail of what was shown in a trial."""
    return f"{THUMBS}/{group.people}/{number:04d}.webp"


def plain_name(name: str) -> str:
    """Return a name as a part of a file's name, alike on every disk and in every address."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in name)


def packed(bench: Workbench, group: Group, sheet: sheets.Sheet, withheld: bool) -> dict[str, Any]:
    """Return the payload of a sheet with its trials as rows of numbers.

    The browser writes them out again, see ``assets/page/site_sheet.js``.
    """
    value = payload(bench, sheet)
    trials = value.pop("trials")
    keys = {"trial": _keys(t["scores"] for t in trials)}
    keys["picture"] = _keys(one["scores"] for t in trials for one in t["pictures"].values())
    rows = [
        [
            *(t["id"], t["number"], t["caption"], t["category"], t["why"]),
            bool(t["pictured"] and not withheld),
            [t["scores"].get(name) for name in keys["trial"]],
            {
                scale: [one["scores"].get(name) for name in keys["picture"]]
                for scale, one in t["pictures"].items()
            },
        ]
        for t in trials
    ]
    hidden = withheld and value["made"] != "generated"
    return {
        **value,
        "keys": keys,
        "rows": rows,
        "thumbs": "" if hidden else f"{THUMBS}/{group.name}",
        "shown": f"{THUMBS}/{group.people}",
    }


def _keys(scores: Any) -> list[str]:
    return list(dict.fromkeys(name for one in scores for name in one))


def trials_csv(sheet: sheets.Sheet) -> str:
    """Return every score of every trial as CSV: one row a trial and scale, "" for its decoding."""
    rows: list[dict[str, Any]] = []
    for tile in sheet.tiles:
        named = {
            "trial": tile.stimulus,
            "number": tile.number,
            "caption": tile.caption,
            "category": tile.category,
        }
        rows.append({**named, "scale": "", **dict(tile.scores)})
        rows += [
            {**named, "scale": name_of(scale), **dict(scores)}
            for scale, scores in dict(tile.pictures).items()
        ]
    return csv_text(pd.DataFrame(rows))


def scores_csv(sheet: sheets.Sheet, scales: Sequence[float]) -> str:
    """Return what each score means, its mean over the trials, chance and N, as CSV."""
    rows = []
    for score in sheet.scores:
        for scale in scales if score.of == sheets.PICTURE else [None]:
            values = [tile.value(score, scale) for tile in sheet.tiles]
            known = [v for v in values if not math.isnan(v)]
            rows.append(
                {
                    "score": score.title,
                    "scale": "" if scale is None else name_of(scale),
                    "mean": sum(known) / len(known) if known else float("nan"),
                    "chance": dict(score.chance or {}).get(scale, float("nan")),
                    "N": len(known),
                    "better": score.better,
                    "definition": score.sentence,
                    "chance is": score.chance_of,
                }
            )
    return csv_text(pd.DataFrame(rows))
