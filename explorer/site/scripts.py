"""Data of a site as scripts of their own: from a disk a browser reads no other file.

Each is ``afterimage.take(name, value)``, see ``assets/page/site.js``. Pictures that a value holds
several times are written once, and a value that is nearly another's as what differs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from explorer.writing import json_in_script, write_whole

DATA = "data"  # the folder of scripts
PICTURE = "data:image/"
SAME, COLUMNS = object(), "|"


def write_script(site: Path, name: str, value: Any) -> int:
    """Write a value as the script ``data/NAME.js`` of a site and return its bytes."""
    content = script(name, value)
    write_whole(site / DATA / f"{name}.js", content)
    return len(content)


def script(name: str, value: Any) -> bytes:
    """Return the script that gives a value to the page; no text in it can end a script."""
    return f"afterimage.take({json.dumps(name)},{json_in_script(value)});\n".encode()


def pooled(value: Any) -> dict[str, Any]:
    """Return ``pictures`` (``data:`` addresses, each once) and the ``value`` that points at them.

    A picture stands in the value as ``{"@": place}``.
    """
    places: dict[str, int] = {}

    def point(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: point(one) for key, one in part.items()}
        if isinstance(part, list | tuple):
            return [point(one) for one in part]
        if isinstance(part, str) and part.startswith(PICTURE):
            return {"@": places.setdefault(part, len(places))}
        return part

    pointed = point(value)
    return {"pictures": list(places), "value": pointed}


def differs(base: Any, value: Any) -> Any:
    """Return what turns ``base`` into ``value``: `SAME`, ``[value]``, or a dict of parts.

    Dicts with equal keys are compared part by part. Of rows, dicts with the same keys, the columns
    that differ are told as ``{"|": {name: numbers}}``.
    """
    if (
        _rows(base)
        and _rows(value)
        and len(base) == len(value)
        and list(base[0]) == list(value[0])
    ):
        columns = {key: [row[key] for row in value] for key in base[0]}
        changed = {k: c for k, c in columns.items() if c != [row[k] for row in base]}
        return {COLUMNS: changed} if changed else SAME
    if isinstance(base, dict) and isinstance(value, dict) and list(base) == list(value):
        found = {key: differs(base[key], value[key]) for key in base}
        return {key: part for key, part in found.items() if part is not SAME} or SAME
    return SAME if type(base) is type(value) and base == value else [value]


def _rows(value: Any) -> bool:
    """Return whether a value is a list of dicts with the same keys."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    return all(isinstance(row, dict) and list(row) == list(value[0]) for row in value)
