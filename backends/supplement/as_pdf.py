"""A report as PDF: A4 pages whose text can be selected, numbered, with the source at the foot."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.supplement.content import Block, Facts, Picture, Pictures, Report, Table, Words

if TYPE_CHECKING:
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

PAPER = (8.27, 11.69)  # inches: A4
LEFT, TOP, BOTTOM = 0.8, 0.75, 0.8
WIDTH = PAPER[0] - 2 * LEFT
INK, FAINT, RULE, RED = "#1d1e20", "#6a6863", "#d6d1c7", "#b2182b"
LEADING = 1.35  # line height in sizes of the type
COLUMNS = 5  # of pictures
GAP = 0.12


def write(report: Report, path: Path) -> None:
    """Write a report to a path; the same report gives the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_pdf import PdfPages

    about = {"Title": report.title, "Subject": report.subtitle, "Creator": "Afterimage"}
    settings = {"pdf.fonttype": 42, "font.family": "DejaVu Sans"}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in another script
        with PdfPages(path, metadata={**about, "CreationDate": None}) as pages:
            paper = _Paper(pages, report.provenance)
            paper.words(report.title, 18)
            paper.words(report.subtitle, 10, FAINT)
            for part in report.parts:
                paper.heading(part.title)
                for block in part.blocks:
                    _draw(paper, block)
            paper.close()


class _Paper:
    """Pages that are filled from above; a new one begins where something does not fit."""

    def __init__(self, pages: PdfPages, foot: str) -> None:
        self.pages, self.foot, self.number = pages, foot, 0
        self.figure: Figure | None = None
        self.at = 0.0  # inches from the upper edge
        self.begin()

    def begin(self) -> None:
        """Begin a page."""
        from matplotlib.figure import Figure

        self.close()
        self.number += 1
        self.figure, self.at = Figure(figsize=PAPER, facecolor="white"), TOP

    def close(self) -> None:
        """Finish the present page."""
        if self.figure is None:
            return
        lines = wrapped(self.foot, 7, WIDTH - 0.5)
        self.text(LEFT, PAPER[1] - 0.5, lines[0] + (" …" if len(lines) > 1 else ""), 7, FAINT)
        self.text(PAPER[0] - LEFT, PAPER[1] - 0.5, str(self.number), 7, FAINT, align="right")
        self.pages.savefig(self.figure)
        self.figure = None

    def room(self, inches: float) -> bool:
        """Begin a page where so much does not fit on the present one; return whether it did."""
        if self.at + inches <= PAPER[1] - BOTTOM or self.at == TOP:
            return False
        self.begin()
        return True

    def text(
        self, x: float, y: float, words: str, size: float, colour: str = INK, **style: str
    ) -> None:
        """Write one line, its upper left corner at inches from the upper left of the page."""
        self.figure.text(
            x / PAPER[0],
            1 - y / PAPER[1],
            words,
            fontsize=size,
            color=colour,
            va="top",
            ha=style.get("align", "left"),
            weight=style.get("weight", "normal"),
            parse_math=False,
        )

    def words(
        self,
        text: str,
        size: float = 9,
        colour: str = INK,
        weight: str = "normal",
        left: float = 0,
    ) -> None:
        """Write a paragraph."""
        for line in wrapped(text, size, WIDTH - left, weight):
            self.room(height(size))
            self.text(LEFT + left, self.at, line, size, colour, weight=weight)
            self.at += height(size)
        self.at += 0.06

    def heading(self, title: str) -> None:
        """Write a section's title, never as the last line of a page."""
        self.at += 0.2
        self.room(1.4)
        self.rule(RULE)
        self.at += 0.1
        self.words(title, 13, weight="bold")
        self.at += 0.02

    def rule(self, colour: str) -> None:
        """Draw a line over the width of the text."""
        from matplotlib.lines import Line2D

        y = 1 - self.at / PAPER[1]
        ends = [LEFT / PAPER[0], 1 - LEFT / PAPER[0]]
        self.figure.add_artist(Line2D(ends, [y, y], color=colour, linewidth=0.5))

    def image(self, image: np.ndarray, left: float, width: float, tall: float) -> None:
        """Draw an image into a box whose upper edge is where the page is now."""
        box = (left / PAPER[0], 1 - (self.at + tall) / PAPER[1], width / PAPER[0], tall / PAPER[1])
        axes = self.figure.add_axes(box)
        axes.imshow(image, interpolation="none", aspect="auto")
        axes.set_axis_off()


def _draw(paper: _Paper, block: Block) -> None:
    if isinstance(block, Words):
        colour = {"note": FAINT, "warning": RED}.get(block.kind, INK)
        paper.words(block.text, 7.5 if block.kind == "note" else 9, colour)
    elif isinstance(block, Facts):
        _facts(paper, block)
    elif isinstance(block, Table):
        _table(paper, block)
    elif block.wide:
        _wide(paper, block)
    else:
        _pictures(paper, block)


def _facts(paper: _Paper, block: Facts) -> None:
    size, column = 8.5, 1.45
    for name, said in block.rows:
        lines = wrapped(said, size, WIDTH - column) if said else []
        for number, line in enumerate(lines):
            paper.room(height(size))
            if not number:
                paper.text(LEFT, paper.at, name, size, FAINT)
            paper.text(LEFT + column, paper.at, line, size)
            paper.at += height(size)
    paper.at += 0.1


def _table(paper: _Paper, table: Table, size: float = 7) -> None:
    if table.caption:
        paper.room(1.0)
        paper.words(table.caption, 8.5, weight="bold")
    widths = column_widths(table, size)
    starts = LEFT + np.concatenate([[0], np.cumsum(widths)[:-1]])

    def line(cells: tuple[str, ...], weight: str = "normal") -> None:
        split = [
            wrapped(cell, size, width - GAP, weight)
            for cell, width in zip(cells, widths, strict=True)
        ]
        deep = max(map(len, split))
        if paper.room(deep * height(size) + 0.06) and weight == "normal":
            line(table.columns, "bold")
        for i, (lines, start, width) in enumerate(zip(split, starts, widths, strict=True)):
            words = i in table.texts
            x, align = (start, "left") if words else (start + width - GAP, "right")
            for number, text in enumerate(lines):
                y = paper.at + number * height(size)
                paper.text(x, y, text, size, weight=weight, align=align)
        paper.at += deep * height(size) + 0.03
        paper.rule(RULE)
        paper.at += 0.03

    line(table.columns, "bold")
    for row in table.rows:
        line(row)
    paper.at += 0.12


def column_widths(table: Table, size: float) -> np.ndarray:
    """Return inches for each column: what it needs, and where all need more, wide ones share."""
    beside = GAP + 0.01  # so that rounding breaks no word
    widths = np.array([measured(head, size, "bold") + beside for head in table.columns])
    for row in table.rows:
        widths = np.maximum(widths, [measured(cell, size) + beside for cell in row])
    fair = np.sort(widths)
    left, count = WIDTH, len(widths)
    for need in fair:  # narrow columns take what they need; the rest share what is left
        if need > left / count:
            break
        left, count = left - need, count - 1
    if not count:
        return widths * (WIDTH / widths.sum() if widths.sum() > WIDTH else 1)
    wide = widths > left / count
    asked = np.sqrt(widths[wide])  # longer texts get more, but not all
    widths[wide] = left * asked / asked.sum()
    heads = [[measured(word, size, "bold") for word in head.split()] for head in table.columns]
    least = np.array(
        [max(words, default=0.0) + beside for words in heads]
    )  # breaks no head's word
    widths = np.maximum(widths, least)
    over, slack = widths.sum() - WIDTH, widths - least
    if over > 0:
        widths -= slack * min(1.0, over / slack.sum()) if slack.sum() else 0.0
    return widths * min(1.0, WIDTH / widths.sum())


def _wide(paper: _Paper, block: Pictures) -> None:
    for one in block.pictures:
        if one.image is None:
            continue
        tall = WIDTH * one.image.shape[0] / one.image.shape[1]
        paper.room(tall + 0.4)
        paper.image(one.image, LEFT, WIDTH, tall)
        paper.at += tall + 0.04
    paper.words(block.caption, 7.5, FAINT)


def _pictures(paper: _Paper, block: Pictures, size: float = 7) -> None:
    side = (WIDTH - (COLUMNS - 1) * GAP) / COLUMNS
    rows = [block.pictures[i : i + COLUMNS] for i in range(0, len(block.pictures), COLUMNS)]
    for number, row in enumerate(rows):
        deep = max(len(one.lines) for one in row)
        tall = side + (deep + 2) * height(size) + 0.3
        paper.room(tall * (2.4 if block.keep else 1))
        if not number:
            paper.words(block.caption, 8.5, weight="bold")
        for place, one in enumerate(row):
            _picture(paper, one, LEFT + place * (side + GAP), side, size)
        paper.at += side + (deep + 1) * height(size) + 0.12


def _picture(paper: _Paper, one: Picture, left: float, side: float, size: float) -> None:
    paper.text(left, paper.at, wrapped(one.title, size, side)[0], size)
    top, paper.at = paper.at, paper.at + height(size)
    if one.image is None:
        paper.image(np.full((1, 1, 3), 236, np.uint8), left, side, side)
        paper.text(left + 0.1, paper.at + side / 2, "left out", size, FAINT)
    else:
        paper.image(one.image, left, side, side)
    for number, line in enumerate(one.lines):
        y = paper.at + side + 0.04 + number * height(size)
        paper.text(left, y, line, size, FAINT)
    paper.at = top


def height(size: float) -> float:
    """Return the height of a line in inches, for a size in points."""
    return size * LEADING / 72


@lru_cache(maxsize=20_000)
def measured(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of a text in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    if not text:
        return 0.0
    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return width / 72


def wrapped(text: str, size: float, width: float, weight: str = "normal") -> list[str]:
    """Return a text in lines that are at most so many inches wide; a longer word is broken."""
    lines, line, used = [], "", 0.0
    space = measured("n n", size, weight) - measured("nn", size, weight)
    for word in " ".join(text.split(" ")).replace("\n", " ").split(" "):
        for piece in _broken(word, size, width, weight):
            wide = measured(piece, size, weight)
            if line and used + space + wide > width:
                lines.append(line)
                line, used = piece, wide
            else:
                used += (space if line else 0) + wide
                line = f"{line} {piece}" if line else piece
    return [*lines, line]


def _broken(word: str, size: float, width: float, weight: str) -> list[str]:
    """Return a word, in pieces where it is wider than a line."""
    pieces = []
    while len(word) > 1 and measured(word, size, weight) > width:
        cut = len(word) - 1
        while cut > 1 and measured(word[:cut], size, weight) > width:
            cut = max(1, int(cut * 0.8))
        pieces.append(word[:cut])
        word = word[cut:]
    return [*pieces, word]
