"""Shards of webdataset: tar files whose members are arrays and pictures, read by headers alone.

A sample of a shard is the members ``KEY.KIND`` that share a key.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from explorer.files import guard
from explorer.types import UserError

MOST_ABOUT = 2**20  # bytes of a long name or of pax records: our choice


def whole_number(values: np.ndarray, source: str) -> int:
    """Return the one whole number in a small array."""
    if values.size != 1 or values.dtype.kind not in "fiu" or values.ravel()[0] % 1:
        raise UserError(
            f"{source} needs one whole number, found {values.dtype} {values.shape}; copy it again."
        )
    return int(values.ravel()[0])


def array_of(raw: bytes, source: str) -> np.ndarray:
    """Return the array in the bytes of a ``.npy`` member; it is never unpickled."""
    with guard(source):
        head = raw[: 10 + int.from_bytes(raw[8:10], "little")]
        shape, fortran, dtype, begin = _npy_header(head)
        if not dtype.hasobject:
            values = np.frombuffer(raw, dtype, math.prod(shape), begin)
            return values.reshape(shape, order="F" if fortran else "C")
    raise UserError(
        f"{source} holds pickled Python objects, which can run code when they are opened, so it "
        "is not read; copy the shard from where it was released."
    )


@functools.lru_cache(maxsize=256)
def _npy_header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return shape, Fortran order, dtype and length of a ``.npy`` header.

    Kept: shards hold tens of thousands of small arrays with the same few headers, and numpy
    takes a tenth of a millisecond for one.
    """
    stream = io.BytesIO(head)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("not a header of version 1.0")
    return (*np.lib.format.read_array_header_1_0(stream), stream.tell())


def members(opened: io.BufferedReader, file: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size of a tar's regular files, in order, from its headers alone.

    POSIX.1-1988 headers, with the pax records and GNU long names that may precede one. A shard
    has some 50,000 members a subject, for which `tarfile` takes 20 times as long.
    """
    end, at = file.stat().st_size, 0
    given: dict[str, str] = {}  # what pax records and long names say of the next member
    while True:
        opened.seek(at)
        head = opened.read(512)
        if len(head) == 512 and not any(head):
            return
        kind, sized, begin = head[156:157], _octal(head[124:136]), at + 512
        valid = len(head) == 512 and _octal(head[148:156]) == (
            sum(head) - sum(head[148:156]) + 8 * ord(" ")
        )
        about = kind in b"xL" and kind  # what precedes a member: a name, mostly
        if not valid or sized is None or (about and sized > MOST_ABOUT):
            raise UserError(
                f"{file} is not a tar file or cut short at byte {at} of {end}; copy it again."
            )
        if about:
            text = opened.read(sized).decode("utf-8", "replace")
            given |= {"path": text.rstrip("\0")} if kind == b"L" else _pax(text)
        elif kind in (b"0", b"\0"):
            with guard(file, at=given.get("path", "")):
                sized = int(given.get("size", sized))
            name, prefix = (_text(head[0:100]), _text(head[345:500]))
            joined = f"{prefix}/{name}" if prefix and head[257:263] == b"ustar\0" else name
            yield given.get("path", joined), begin, sized
            given = {}
        else:
            given = {}
        at = begin + -(-sized // 512) * 512


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def _octal(raw: bytes) -> int | None:
    """Return a number of a tar header, None if it is not one."""
    if raw[:1] == b"\x80":  # GNU: sizes from 8 GB on are written as they are
        return int.from_bytes(raw[1:], "big")
    digits = raw.strip(b" \0")
    return int(digits or b"0", 8) if re.fullmatch(rb"[0-7]*", digits) else None


def _pax(text: str) -> dict[str, str]:
    """Return the pax records ``LENGTH KEY=VALUE`` that matter here."""
    pairs = (line.partition(" ")[2].partition("=") for line in text.splitlines())
    return {key: value for key, _, value in pairs if key in ("path", "size")}
