"""The tables of a plain folder: tab-separated cells of text, and what they must be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import files
from explorer.files import short
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd


def read_table(file: Path, required: tuple[str, ...] = ()) -> pd.DataFrame:
    """Return a tab-separated table, all cells as text (a missing cell is "")."""
    table = files.read_table(
        file, do="mend it", missing="python -m backends doctor checks a whole folder"
    )
    for column in required:
        if column not in table:
            raise UserError(
                f"{file} lacks the column {column!r}; it has "
                f"{short(', '.join(map(str, table.columns)))}."
            )
    return table


def shown(value: Any) -> str:
    """Return a number, or a type that may name hundreds of columns, for a sentence."""
    if isinstance(value, np.floating):
        return f"{value:g}".replace("-", "\N{MINUS SIGN}")
    return str(value) if len(str(value)) <= 40 else f"{str(value)[:40]}..."


def whole_numbers(column: pd.Series, file: Path, name: str, nowhere: bool = False) -> np.ndarray:
    """Return whole numbers from 0 (or -1, ``nowhere``), int64, exactly as they are written."""
    try:
        values = [_number(cell) for cell in column]
    except (ValueError, OverflowError) as error:
        raise UserError(f"{file}: the column {name!r} needs numbers ({error}).") from error
    if not all(isinstance(v, int) and (-1 if nowhere else 0) <= v < 2**63 for v in values):
        more = ", or \u22121 for nowhere" if nowhere else ""
        raise UserError(f"{file}: the column {name!r} needs whole numbers from 0{more}.")
    return np.array(values, dtype=np.int64)


def _number(cell: str) -> int | float:
    """Return a cell's number, whole where it is exactly that."""
    try:
        return int(cell)
    except ValueError:
        value = float(cell)
        # floats above 2**53 stand for several whole numbers each
        return int(value) if value.is_integer() and abs(value) <= 2**53 else value


def truths(column: pd.Series, file: Path, name: str) -> np.ndarray:
    """Return a column of true and false as bool (n,)."""
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    other = sorted({cell for cell in column if cell.lower() not in known})
    if other:
        raise UserError(
            f"{file}: the column {name!r} holds true or false, found {other[0]!r}; mend it."
        )
    return np.array([known[cell.lower()] for cell in column], dtype=bool)


def numbers(column: pd.Series, file: Path, name: str) -> np.ndarray:
    """Return a column of finite numbers as float32 (n,)."""
    try:
        values = column.replace("", "nan").astype(np.float32).to_numpy()
    except ValueError as error:
        raise UserError(f"{file}: the column {name!r} needs numbers ({error}).") from error
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise UserError(f"{file}: row {row + 1} of the column {name!r} is not a finite number.")
    return values
