"""Text to values and back: the readable query string of what is shown, and its parts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any
from urllib.parse import urlencode

from explorer.request import Request, View
from explorer.types import UserError

AVERAGE = "average"
REQUEST_KEYS = (
    *("data", "subject", "trial", "mapper", "generator"),
    *("scales", "steps", "seed", "repeats", "samples", "space"),
    *("axis", "values", "rois", "roi_atlas"),
)
# Keys of a link that decide how evidence is shown, and the fields of View they stand for.
VIEW_KEYS = {
    "show": "shows",
    "map": "method",
    "measure": "measure",
    "target": "target",
    "atlas": "atlas",
    "surface": "surface",
    "hemisphere": "hemisphere",
    "camera": "camera",
    "parcel": "parcel",
    "attention": "attention",
    "panel": "panel",
    "lesion": "parcels",
    "gain": "gain",
    "fill": "fill",
    "donor": "donor",
    "against": "against",
    "people": "people",
    "lecture": "lecture",
    "category": "category",
    "threshold": "threshold",
    "colours": "sequential",
    "signed_colours": "diverging",
    "outlines": "outlines",
}
ALWAYS = ("map", "measure")  # in every link, for those who read it
OPTION = "option."
NONE = "none"  # what a picker sends to take something back
LONGEST_RECORD = 200_000  # characters; a record has about 2,000


def short(text: object, length: int = 40) -> str:
    """Return ``text`` in quotes on one line, cut to ``length`` characters, for a sentence."""
    line = " ".join(str(text).split())
    return f"“{line if len(line) <= length else line[: length - 1] + '…'}”"


def format_number(value: float) -> str:
    """Return a number as people write it (``4``, ``7.5``), with as many digits as it has."""
    brief = f"{value:g}"
    return brief if float(brief) == value else repr(float(value))


def format_scales(scales: Sequence[float], separator: str = ", ") -> str:
    """Return guidance scales as `parse_scales` reads them."""
    return separator.join(map(format_number, scales))


def parse_scales(text: str) -> tuple[float, ...]:
    """Read guidance scales such as ``0, 1, 2, 4, 8``: numbers parted by commas or spaces.

    Range, count and doubles are checked by `Request`; what is no number raises `UserError`.
    """
    return parse_numbers(text, "Guidance scales", "0, 1, 2, 4, 8")


def parse_numbers(text: str, name: str, example: str) -> tuple[float, ...]:
    """Read numbers parted by commas or spaces; anything else raises `UserError`.

    ``name`` and ``example``: what the sentence calls them, and how they look.
    """
    words = [word for word in re.split(r"[,;\s]+", str(text).strip()) if word]
    if not words:
        raise UserError(f"{name} are numbers such as {example}; the field is empty.")
    numbers = []
    for word in words:
        try:
            numbers.append(float(word))
        except ValueError:
            raise UserError(
                f"{name} are numbers such as {example}; found {short(word)}."
            ) from None
    return tuple(numbers)


def parse_options(text: str) -> dict[str, str]:
    """Read options such as ``feature_kappa=0.3; candidates=4`` as the keys of a link.

    Commas part them too.
    """
    found = {}
    for word in (w.strip() for w in re.split("[,;]", str(text))):
        name, equals, value = word.partition("=")
        if word and not equals:
            raise UserError(
                f"Options are written name=value, parted by semicolons; found {short(word)}."
            )
        if word:
            found[OPTION + name.strip()] = value.strip()
    return found


def format_names(names: Sequence[str]) -> str:
    """Return the keys of parcels as `parse_names` reads them; some have commas."""
    return ";".join(names)


def parse_names(text: str) -> tuple[str, ...]:
    """Read names parted by semicolons."""
    return tuple(name.strip() for name in str(text).split(";") if name.strip())


def parse_whole(text: object, name: str) -> int:
    """Read a whole number; anything else raises `UserError` that calls it ``name``."""
    try:
        number = float(str(text))
        if number != int(number):
            raise ValueError
    except (ValueError, OverflowError):
        raise UserError(f"{name} is a whole number, found {short(text)}.") from None
    return int(number)


def format_repeats(repeats: Sequence[int]) -> str:
    """Return ``average`` for () and else the 1-based numbers, parted by commas."""
    return ",".join(str(r + 1) for r in repeats) or AVERAGE


def parse_repeats(text: str, offered: Sequence[int]) -> tuple[int, ...]:
    """Read `format_repeats`; numbers that are not ``offered`` (0-based) raise `UserError`."""
    if text == AVERAGE:
        return ()
    words = re.split("[,;]", str(text))
    numbers = tuple(parse_whole(word, "A repeat") - 1 for word in words)
    lacking = [number + 1 for number in numbers if number not in offered]
    if lacking:
        there = ", ".join(str(number + 1) for number in offered)
        raise UserError(
            f"This trial has the repeats {there}, or their average; found {lacking[0]}."
        )
    return tuple(sorted(set(numbers)))


def query(request: Request, view: View) -> str:
    """Return the query string (no ``?``) of what is shown, without view fields at their default.

    `explorer.page.choices.settle` on the same workbench gives back both.
    """
    values: dict[str, object] = {
        "data": request.dataset,
        "subject": request.subject,
        "trial": request.stimulus,
        "mapper": request.mapper,
        "generator": request.generator,
        "scales": format_scales(request.scales, ","),
        "steps": request.steps,
        "seed": request.seed,
        "repeats": format_repeats(request.repeats),
        "samples": request.samples if request.samples > 1 else "",
        "space": request.space,
        "axis": request.axis,
        "values": format_scales(request.values, ","),
        "rois": format_names(request.rois),
        "roi_atlas": request.roi_atlas,
    }
    values |= {OPTION + name: format_number(value) for name, value in request.options}
    default = {field.name: field.default for field in fields(View)}
    for key, field in VIEW_KEYS.items():
        if key in ALWAYS or getattr(view, field) != default[field]:
            values[key] = _text(getattr(view, field))
    return urlencode({key: value for key, value in values.items() if value != ""}, safe=",:;()")


def _text(value: object) -> object:
    """Return a field of a view as it stands in a link."""
    if isinstance(value, tuple):
        return ";".join(value)
    return format_number(value) if isinstance(value, float) else value


def parse_record(text: str) -> dict[str, Any]:
    """Return the JSON object of an exported record; anything else raises `UserError`."""
    advice = "choose a .json file that this page exported"
    if len(text) > LONGEST_RECORD:
        raise UserError(
            f"A record has at most {LONGEST_RECORD} characters, found {len(text)}; {advice}."
        )
    try:
        record = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        raise UserError(f"The file is not JSON; {advice}.") from None
    if not isinstance(record, dict):
        raise UserError(f"The file holds no record; {advice}.")
    return record
