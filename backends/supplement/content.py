"""What a report is made of, whatever it is written as: parts of words, tables and pictures.

All text is plain: whoever writes it escapes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.metrics import written

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Words:
    """A paragraph; ``kind``: "text", "warning" (what must be read first) or "note" (small)."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Facts:
    """Names and what they are, a line each."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """Cells as they are read. ``texts``: positions of columns that are words, not numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: tuple[int, ...] = (0,)


@dataclass(frozen=True, eq=False)
class Picture:
    """An image uint8 (H, W, 3) with its title and lines below; None where it is left out."""

    title: str
    image: np.ndarray | None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures side by side.

    ``wide``: a single one that takes the width of the page. ``keep``: on one page with those that
    follow, where there are pages.
    """

    caption: str
    pictures: tuple[Picture, ...]
    wide: bool = False
    keep: bool = False


Block = Words | Facts | Table | Pictures


@dataclass(frozen=True, eq=False)
class Part:
    """A section, which the table of contents names."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, eq=False)
class Report:
    """The whole of it. ``provenance``: what made it, at the foot of every page."""

    title: str
    subtitle: str
    parts: tuple[Part, ...]
    provenance: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)


def table_of(
    frame: pd.DataFrame, caption: str = "", names: Mapping[str, str] | None = None, most: int = 0
) -> Table:
    """Return a table of a data frame: numbers as text, with its columns renamed.

    ``most``: that many rows at most, which the caption then says; 0 for all.
    """
    shown = frame.head(most) if most else frame
    if most and len(frame) > most:
        caption = f"{caption} ({most} of {len(frame)} rows)".strip()
    columns = [str((names or {}).get(name, name)) for name in frame]
    texts = [i for i, (_, c) in enumerate(frame.items()) if c.dtype.kind not in "biufc"]
    rows = [tuple(map(cell, row)) for row in shown.itertuples(index=False)]
    return Table(caption, tuple(columns), tuple(rows), tuple(texts))


def cell(value: Any) -> str:
    """Return a table's value as it is read: whole numbers plain, others with three digits."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        if not np.isfinite(value):
            return "–"
        if value == int(value) and abs(value) >= 2:
            return f"{int(value):,}".replace("-", "\N{MINUS SIGN}")
        if value and abs(value) < 0.001:
            return f"{value:.1e}".replace("-", "\N{MINUS SIGN}")
        return written(value, 3)
    return str(value)


def percent(value: float, digits: int = 1) -> str:
    """Return a share as a percentage with a true space before its sign."""
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def joined(names: Sequence[str]) -> str:
    """Return names as a list in a sentence."""
    return ", ".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"
