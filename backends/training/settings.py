"""What a person may set of a mapper: the keywords of its ``fit``, as ``KEY=VALUE`` texts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from explorer.types import UserError

# Keywords of a mapper's fit that `train_mapper` gives by itself: none is a person's setting.
OWN = ("seed", "progress", "device", "run", "trackers", "pictures")


def settings_of(cls: type) -> dict[str, Any]:
    """Return what a person may set of a mapper: the keywords of its ``fit`` and their defaults."""
    parameters = inspect.signature(cls.fit).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.name not in OWN and p.default is not p.empty
    }


def read_settings(name: str, cls: type, pairs: Sequence[str]) -> dict[str, Any]:
    """Return the settings that ``key=value`` texts give, in the types of the mapper's defaults.

    ``name`` is the mapper's. A tuple is written with commas; an unknown key or a value of another
    type raises `UserError` with all settings and their defaults.
    """
    known, found = settings_of(cls), {}
    offered = ", ".join(f"{k}={written(v)}" for k, v in known.items()) or "none"
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or key not in known:
            raise UserError(
                f"--set takes KEY=VALUE with a setting of {name}, found {pair!r}; its settings "
                f"are {offered}."
            )
        try:
            found[key] = _read_as(known[key], text)
        except ValueError as error:
            kind = type(known[key]).__name__
            raise UserError(
                f"{key} of {name} is of the kind {kind} like its default {written(known[key])}, "
                f"found {text!r}."
            ) from error
    return found


def written(value: Any) -> str:
    """Return a setting's value as a person writes it after ``KEY=``."""
    if isinstance(value, tuple | list):
        return ",".join(f"{v:g}" for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _read_as(default: Any, text: str) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if isinstance(default, tuple | list):
        return tuple(float(part) for part in text.split(","))
    return type(default)(text)
