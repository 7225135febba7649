"""Files that come whole or not at all, and tables whose cells no spreadsheet runs as formulas."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

# What a spreadsheet reads as a formula, also behind quotes that were put there before
# (OWASP, "CSV Injection").
FORMULA = re.compile(r"'*[=+\-@\t\r]")
ROOM = "make room on that disk, or name another place with --out"


def or_none(value: float) -> float | None:
    """Return a number for JSON, which has no NaN and no infinity: None for these."""
    return float(value) if math.isfinite(value) else None


def json_in_script(value: Any) -> str:
    """Return a value as JSON in which no text can end the script or element that holds it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def write_whole(path: Path, content: bytes | Callable[[Path], Any], do: str = ROOM) -> Path:
    """Write a file whole or not at all: under another name first. Returns the path.

    Parameters
    ----------
    path
        Its folder is made.
    content
        The bytes, or what writes to the path that it is given.
    do
        What a person can do where the disk is full, read-only or no folder: the end of that
        sentence.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(part)
        else:
            part.write_bytes(content)
        os.replace(part, path)
    except Exception as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if (cause := _of_the_disk(error)) is None:
            raise
        raise UserError(f"{path} cannot be written ({cause}); {do}.") from error
    return path


def _of_the_disk(error: BaseException | None) -> OSError | None:
    """Return the disk's error behind a library's, which may fail again while it cleans up."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def check_writable(folder: Path, do: str = ROOM) -> None:
    """Refuse a folder into which nothing can be written, before hours are spent on its content."""
    probe = write_whole(folder / ".probe", b"x" * 4096, do)
    probe.unlink(missing_ok=True)


def quoted(cell: Any) -> Any:
    """Return a cell of a CSV; text that a spreadsheet would run gets a quote in front of it."""
    if not isinstance(cell, str) or not FORMULA.match(cell) or _is_number(cell):
        return cell
    return f"'{cell}"


def unquoted(cell: Any) -> Any:
    """Return the cell that `quoted` was given."""
    if isinstance(cell, str) and cell.startswith("'") and FORMULA.match(cell):
        return cell[1:]
    return cell


def csv_text(table: pd.DataFrame, **options: Any) -> str:
    """Return a table as CSV without its index, with `quoted` cells; ``options`` of pandas."""
    safe = table.rename(columns=quoted)
    for place, (_, column) in enumerate(table.items()):
        if column.dtype.kind not in "biufc":
            safe.isetitem(place, column.map(quoted))
    return safe.to_csv(index=False, **options)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
