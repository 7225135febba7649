"""Data of a site as scripts of their own: from a disk a browser reads no other file.

Each is ``afterimage.take(name, value)``, see ``assets/page/site.js``. Pictures that a value holds
several times are written once, and a value that is nearly another's as what differs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from explorer.writing import write_whole

DATA = "data"  # the folder of scripts
PICTURE = "data:image/"
SAME = object()


def write_script(site: Path, name: str, value: Any) -> int:
    """Write a value as the script ``data/NAME.js`` of a site and return its bytes."""
    content = script(name, value)
    write_whole(site / DATA / f"{name}.js", content)
    return len(content)


def script(name: str, value: Any) -> bytes:
    """Return the script that gives a value to the page; no text in it can end a script."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return f"afterimage.take({json.dumps(name)},{text});\n".encode()


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

    Dicts with equal keys, and lists of equal length, are compared part by part.
    """
    parts: list[tuple[str, Any, Any]] | None = None
    if isinstance(base, dict) and isinstance(value, dict) and list(base) == list(value):
        parts = [(key, base[key], value[key]) for key in base]
    elif _of_dicts(base) and _of_dicts(value) and len(base) == len(value):
        parts = [(str(i), *pair) for i, pair in enumerate(zip(base, value, strict=True))]
    if parts is None:
        same = type(base) is type(value) and base == value
        return SAME if same else [value]
    found = {key: differs(one, other) for key, one, other in parts}
    changed = {key: part for key, part in found.items() if part is not SAME}
    return changed or SAME


def _of_dicts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
