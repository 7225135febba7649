"""FreeSurfer's ``.annot``: a colour for every vertex of a hemisphere, and whose colours they are.

Layout (big-endian 32-bit integers; FreeSurfer's wiki, LabelsClutsAnnotationFiles): the number of
vertices; for each its number and its colour, red + 256 green + 65,536 blue; a tag; then a table in
one of two forms. The older one is the number of entries, a file name, and for each entry its name
and red, green, blue, transparency. The newer one is minus the version (-2), one more than the
highest structure, a file name, the number of entries, and each entry preceded by its structure. A
text is its length, then so many bytes, the last of them 0.

A vertex is known by its colour alone, so what two entries share is in neither. Colour 0 is also
that of a vertex which belongs to nothing.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from explorer.brain.label_tables import AGAIN, MISSING, LabelTable, is_parcel
from explorer.files import guard
from explorer.types import UserError

LARGEST = 2**26  # bytes; fsaverage takes 1.3 MB
Entry = tuple[str, tuple[int, int, int]]


def read_annot(path: str | Path) -> tuple[np.ndarray, LabelTable]:
    """Return the entry of every vertex, int64 (n,), -1 for none, and entry -> name and RGB.

    Names that are not UTF-8 are read as Latin-1. A vertex whose colour the table lacks raises, and
    so do a colour that two parcels share and a black parcel, where a vertex has that colour.
    """
    path = Path(path)
    with guard(path, "an .annot", AGAIN, MISSING):
        numbers, colours, entries = _parsed(_bounded(path))
    n = len(numbers)
    if not np.array_equal(np.sort(numbers), np.arange(n)):
        raise UserError(
            f"{path} does not give each of its {n} vertices one colour (some number comes twice "
            "or lies beyond them); copy the file again."
        )
    if not entries:
        raise UserError(
            f"{path} has no table of colours, so nobody knows what its parcels are called; give "
            "the .annot that FreeSurfer wrote."
        )
    by_vertex = np.empty(n, dtype=np.int64)
    by_vertex[numbers] = colours
    by_colour: dict[int, list[int]] = {}
    for i, (_, (red, green, blue)) in enumerate(entries):
        by_colour.setdefault(red + (green << 8) + (blue << 16), []).append(i)
    index = np.full(n, -1, dtype=np.int64)
    for colour, count in zip(*np.unique(by_vertex, return_counts=True), strict=True):
        sharing = by_colour.get(int(colour), [])
        parcels = [i for i in sharing if is_parcel(entries[i][0])]
        names = list(dict.fromkeys(entries[i][0] for i in sharing))
        _refuse_unclear(path, int(colour), int(count), names, parcels)
        if parcels:
            index[by_vertex == colour] = parcels[0]
    return index, {i: entry for i, entry in enumerate(entries)} | {-1: ("unknown", (0, 0, 0))}


def _refuse_unclear(
    path: Path, colour: int, count: int, names: list[str], parcels: list[int]
) -> None:
    """Raise where nobody can say what the vertices of one colour belong to."""
    rgb = " ".join(str(colour >> shift & 255) for shift in (0, 8, 16))
    rgb = rgb if 0 <= colour < 2**24 else f"number {colour}"
    if not names and colour:
        raise UserError(
            f"{path}: {count} vertices have the colour {rgb}, which its table does not name; give "
            "a file whose table is complete."
        )
    if parcels and len(names) > 1:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        raise UserError(
            f"{path}: {count} vertices have the colour {rgb}, which its table gives to "
            f"{', '.join(names[:4])}{more}, so nobody knows which they belong to; give a file in "
            "which every parcel has a colour of its own."
        )
    if parcels and not colour:
        raise UserError(
            f"{path}: its parcel {names[0]} is black, which is also the colour of the vertices "
            f"without a parcel ({count} vertices have it); give it another colour."
        )


def _bounded(path: Path) -> bytes:
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"it has {size:,} bytes, no atlas of one hemisphere has that many")
    return path.read_bytes()


def _parsed(content: bytes) -> tuple[np.ndarray, np.ndarray, list[Entry]]:
    """Return vertices' numbers (n,) and colours (n,), and the entries of the table."""
    place = 0

    def number() -> int:
        nonlocal place
        (value,) = struct.unpack_from(">i", content, place)
        place += 4
        return value

    def text() -> str:
        nonlocal place
        length = number()
        if not 0 <= length <= len(content) - place:
            raise ValueError(f"a name of {length} bytes at byte {place} of {len(content)}")
        raw, place = content[place : place + length], place + length
        raw = raw.partition(b"\0")[0]
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def entry() -> Entry:
        name = text()
        red, green, blue, _ = (number() for _ in range(4))
        if not all(0 <= part <= 255 for part in (red, green, blue)):
            raise ValueError(f"{name!r} has the colour {red} {green} {blue}")
        return name, (red, green, blue)

    n = number()
    if not 0 < n <= (len(content) - place) // 8:
        raise ValueError(f"it declares {n} vertices and has {len(content)} bytes")
    pairs = np.frombuffer(content, ">i4", 2 * n, place).reshape(n, 2)
    place += 8 * n
    if place == len(content) or number() == 0:
        return pairs[:, 0], pairs[:, 1], []
    count = number()
    newer = count < 0
    if newer:
        if count != -2:
            raise ValueError(f"a table of version {-count}")
        number()  # one more than the highest structure; tables may leave some out
    text()
    count = number() if newer else count
    entries = []
    for _ in range(count):
        if newer:
            number()  # of the structure, by which no vertex is known
        entries.append(entry())
    return pairs[:, 0], pairs[:, 1], entries
