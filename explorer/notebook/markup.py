"""HTML of what a notebook shows: pictures inside it, words as text, nothing from elsewhere.

Whatever comes from a study or a file is escaped here, once.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.metrics import written

if TYPE_CHECKING:
    import pandas as pd

PICTURE = 96  # pixels a side, of a picture in a strip
# Colours that stand on light and on dark notebooks alike; no class names, as all outputs share a
# page.
FAINT = "opacity:.7;font-size:12px;line-height:1.4"
BOX = "font-family:system-ui,sans-serif;font-size:13px;line-height:1.45;max-width:920px"
CELL = "text-align:left;vertical-align:top;padding:2px 14px 2px 0;border:0;background:none"


def text(words: object) -> str:
    """Return words as HTML that shows them."""
    return html.escape(str(words), quote=True)


def picture(image: np.ndarray, side: int | None = None) -> str:
    """Return an image uint8 (H, W, 3) as a ``data:`` address, shrunk to a longest side."""
    from PIL import Image

    shown = Image.fromarray(np.ascontiguousarray(image, dtype=np.uint8))
    if side is not None and max(shown.size) > side:
        shown.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "webp", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def figure(src: str, title: str, lines: Iterable[str] = (), strong: bool = False) -> str:
    """Return one picture of a strip with its name above and further lines below."""
    weight = "600" if strong else "400"
    below = "".join(f'<div style="{FAINT}">{text(line)}</div>' for line in lines)
    return (
        f'<figure style="margin:0;width:{PICTURE + 12}px">'
        f'<figcaption style="font-size:12px;font-weight:{weight};overflow:hidden;'
        f'text-overflow:ellipsis;white-space:nowrap" title="{text(title)}">{text(title)}'
        f'</figcaption><img src="{text(src)}" alt="{text(title)}" '
        f'style="width:{PICTURE}px;height:{PICTURE}px;object-fit:cover;margin:2px 0;'
        f'border-radius:3px">{below}</figure>'
    )


def strip(figures: Iterable[str]) -> str:
    """Return pictures in a row that wraps."""
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:8px;margin:6px 0">{"".join(figures)}</div>'
    )


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Return names and what they are, a line each; empty ones are left out."""
    lines = "".join(
        f'<tr style="background:none"><th style="{CELL};font-weight:600;white-space:nowrap">'
        f'{text(name)}</th><td style="{CELL}">{text(said)}</td></tr>'
        for name, said in rows
        if said
    )
    return f'<table style="border:0;margin:4px 0;border-collapse:collapse">{lines}</table>'


def table(rows: pd.DataFrame, most: int = 10) -> str:
    """Return the first rows of a table, numbers with three digits."""
    style = f"{CELL};font-variant-numeric:tabular-nums"

    def cell(value: Any) -> str:
        return f'<td style="{style}">{text(number(value))}</td>'

    head = "".join(f'<th style="{style};font-weight:600">{text(name)}</th>' for name in rows)
    body = "".join(
        f'<tr style="background:none">{"".join(map(cell, row))}</tr>'
        for row in rows.head(most).itertuples(index=False)
    )
    more = f'<div style="{FAINT}">{most} of {len(rows)} rows</div>' * (len(rows) > most)
    return (
        '<table style="border:0;margin:4px 0;border-collapse:collapse"><thead>'
        f"<tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
    )


def number(value: Any) -> str:
    """Return a cell's value as people read it."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        if not np.isfinite(value):
            return "–"
        small = value != 0 and abs(value) < 0.001
        return f"{value:.1e}".replace("-", "\N{MINUS SIGN}") if small else written(value, 3)
    return str(value)


def heading(title: str, beside: str = "") -> str:
    """Return a title line with a fainter remark beside it."""
    remark = f' <span style="{FAINT}">{text(beside)}</span>' if beside else ""
    return f'<div style="font-size:15px;font-weight:600">{text(title)}{remark}</div>'


def note(sentence: str) -> str:
    """Return a sentence in small type, "" for none."""
    return f'<div style="{FAINT};margin:3px 0">{text(sentence)}</div>' if sentence else ""


def box(parts: Sequence[str]) -> str:
    """Return parts as one output."""
    return f'<div style="{BOX}">{"".join(parts)}</div>'


def colour_bar(colours: Sequence[str], low: float, high: float, title: str) -> str:
    """Return a bar of hex colours with its ends and what it is of."""
    ends = [f"{v:.3g}".replace("-", "\N{MINUS SIGN}") for v in (low, high)]
    return (
        f'<div style="display:flex;gap:8px;align-items:center;{FAINT}"><span>{ends[0]}</span>'
        f'<span style="width:160px;height:9px;background:linear-gradient(90deg,'
        f'{",".join(colours)})"></span><span>{ends[1]}</span><span>{text(title)}</span></div>'
    )
