"""Arrays of numbers, and cells of texts and numbers, in MATLAB files of versions 5 to 7.

Read here, since SciPy's reader ends the process at some damaged files (SciPy 1.17: a segmentation
fault). The format is MathWorks' "MAT-File Format", Level 5: tagged elements padded
to 8 bytes, a variable may be packed by zlib; a matrix has flags (its class in the lowest byte),
sizes, a name and its data, which for a cell array are matrices.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from explorer.files import COPY, DEFLATE, damaged, guard

MOST = 2**20  # bytes of a table of texts: our choice, a thousand times a list of targets
HEADER = 128
MATRIX, PACKED = 14, 15
CELL, CHAR = 1, 4
COMPLEX = 8  # among the bits above the class
ORDERS = {b"IM": "<", b"MI": ">"}
CLASSES = dict(enumerate(("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), start=6))
NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}


def mat_cells(path: Path, name: str, do: str = COPY) -> np.ndarray:
    """Return a cell array as an object array of its shape, each cell a text or a float.

    ``do`` ends the sentence about a file that is damaged or holds something else.
    """
    with guard(path, "a MATLAB file of version 5 to 7", do, at=name):
        size = path.stat().st_size
        if size > MOST:
            raise ValueError(f"it has {size:,} bytes, a table of texts has at most {MOST:,}")
        for matrix, order in _matrices(path, MOST):
            found = _matrix(matrix, order, name)
            if found is not None:
                return found
    raise damaged(path, f"it has no cell array {name}", do=do)


def is_level_5(path: Path) -> bool:
    """Return whether a file is of version 5 to 7 by its header."""
    with path.open("rb") as file:
        return file.read(HEADER)[HEADER - 2 :] in ORDERS


def mat_numbers(path: Path, name: str, do: str = COPY) -> np.ndarray:
    """Return a full array of real numbers, its axes and type as MATLAB has them.

    ``do`` ends the sentence about a file that is damaged or holds something else.
    """
    with guard(path, "", do, at=name):
        for matrix, order in _matrices(path, path.stat().st_size * DEFLATE):
            (flags, sizes, called), parts = _head(matrix, order)
            if called.decode("latin-1") != name:
                continue
            kind, how = _class(flags, order), struct.unpack(f"{order}2I", flags)[0] >> 8
            if kind not in CLASSES or how & COMPLEX or len(parts) != 1:
                raise ValueError("it is no full array of real numbers")
            (stored, content), shape = parts[0], np.frombuffer(sizes, f"{order}i4").tolist()
            if stored not in NUMBERS or min(shape, default=0) < 0:
                raise ValueError(f"its numbers are of type {stored}, its shape is {shape}")
            values = np.frombuffer(content, order + NUMBERS[stored])
            if len(values) != int(np.prod(shape, dtype=float)):
                raise ValueError(f"{len(values)} numbers, its shape says {shape}")
            return values.reshape(shape, order="F").astype(CLASSES[kind])
    raise damaged(path, f"it has no array {name}", do=do)


def _matrices(path: Path, most: int) -> Iterator[tuple[bytes, str]]:
    """Yield the content of each variable, at most ``most`` bytes unpacked, and the byte order."""
    data = path.read_bytes()
    order = ORDERS.get(data[HEADER - 2 : HEADER])
    if order is None:
        raise ValueError("its header is another")
    for kind, content in _elements(data[HEADER:], order):
        packed = kind == PACKED
        inner = _elements(_unpacked(content, most), order) if packed else iter([(kind, content)])
        yield from ((matrix, order) for one, matrix in inner if one == MATRIX)


def _unpacked(content: bytes, most: int) -> bytes:
    found = zlib.decompressobj().decompress(content, most)
    if len(found) == most:
        raise ValueError(f"it unpacks to more than {most:,} bytes")
    return found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the elements that lie one after another."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}2I", data, at)
        if kind >> 16:  # up to four bytes lie in the tag itself
            kind, size, begin, step = kind & 0xFFFF, kind >> 16, at + 4, 8
        else:
            begin, step = at + 8, 8 + (size if kind == PACKED else -(-size // 8) * 8)
        if begin + size > len(data) or (step == 8 and size > 4):
            raise ValueError("an element is longer than the file")
        yield kind, data[begin : begin + size]
        at += step


def _matrix(data: bytes, order: str, name: str) -> np.ndarray | None:
    """Return the cell array of that name, None for another variable."""
    (flags, sizes, called), cells = _head(data, order)
    if called.decode("latin-1") != name:
        return None
    if _class(flags, order) != CELL:
        raise ValueError(f"{name} is no cell array")
    shape = tuple(np.frombuffer(sizes, f"{order}i4").tolist())
    if min(shape, default=0) < 0 or int(np.prod(shape, dtype=float)) != len(cells):
        raise ValueError(f"{len(cells)} cells, its shape says {shape}")
    found = np.empty(len(cells), object)
    found[:] = [_value(content, order) for _, content in cells]
    return found.reshape(shape, order="F")


def _head(data: bytes, order: str) -> tuple[list[bytes], list[tuple[int, bytes]]]:
    """Return flags, sizes and name of a matrix, and the elements of its data."""
    parts = list(_elements(data, order))
    if len(parts) < 3:
        raise ValueError("a matrix is cut short")
    return [content for _, content in parts[:3]], parts[3:]


def _class(flags: bytes, order: str) -> int:
    if len(flags) != 8:
        raise ValueError("a matrix has no class")
    return struct.unpack(f"{order}2I", flags)[0] & 0xFF


def _value(data: bytes, order: str) -> str | float:
    """Return the text or the number of a cell; an empty one is ""."""
    if not data:
        return ""
    (flags, _, _), parts = _head(data, order)
    if not parts:
        return ""
    (kind, content), is_text = parts[0], _class(flags, order) == CHAR
    if is_text and kind in TEXTS:
        wide = TEXTS[kind].removeprefix("utf-") in ("16", "32")
        end = {"<": "-le", ">": "-be"}[order] if wide else ""
        return content.decode(TEXTS[kind] + end)
    if is_text or kind not in NUMBERS:
        raise ValueError(f"a cell holds neither text nor a number (type {kind})")
    values = np.frombuffer(content, order + NUMBERS[kind])
    if len(values) != 1:
        raise ValueError(f"a cell holds {len(values)} numbers, expected one")
    return float(values[0])
