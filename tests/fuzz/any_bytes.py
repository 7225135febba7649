"""Ways in which any bytes go wrong, whatever they stood for."""

import gzip
import io
import re
import zipfile
from collections.abc import Callable

import h5py
import numpy as np

Rng = np.random.Generator
Mutation = Callable[[bytes, Rng], bytes]
EDGES = (0, 1, -1, 2, 127, 255, 32_767, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1)


def pick(rng: Rng, options):
    return options[int(rng.integers(len(options)))]


def cut(data: bytes, rng: Rng) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def empty(data: bytes, rng: Rng) -> bytes:
    return b""


def flip(data: bytes, rng: Rng) -> bytes:
    """Flip bits of up to eight bytes."""
    changed = bytearray(data or b"\0")
    for _ in range(int(rng.integers(1, 9))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def flip_head(data: bytes, rng: Rng) -> bytes:
    return flip(data[:256], rng) + data[256:]


def noise(data: bytes, rng: Rng) -> bytes:
    """Put zeros, ones or noise in place of a piece."""
    at, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 200))
    length = min(length, len(data) - at)
    piece = pick(rng, (bytes(length), b"\xff" * length, rng.bytes(length)))
    return data[:at] + piece + data[at + length :]


def shift(data: bytes, rng: Rng) -> bytes:
    """Leave bytes out, put bytes in, or repeat a piece."""
    at, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 64))
    kind = int(rng.integers(3))
    if kind == 0:
        return data[:at] + data[at + length :]
    return data[:at] + (rng.bytes(length) if kind == 1 else data[at : at + length] * 2) + data[at:]


def number(data: bytes, rng: Rng) -> bytes:
    """Write a number at the edge of its type, most often into the header."""
    size = pick(rng, (1, 2, 4, 8))
    reach = len(data) if rng.random() < 0.3 else min(len(data), 400)
    at = int(rng.integers(max(1, reach - size))) // size * size
    value = (pick(rng, EDGES) % 2 ** (8 * size)).to_bytes(size, pick(rng, ("little", "big")))
    return data[:at] + value + data[at + size :]


def digits(data: bytes, rng: Rng) -> bytes:
    """Write another number where digits stand as text."""
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", data[:20_000]))
    if not found:
        return flip(data, rng)
    at = pick(rng, found)
    new = (b"0", b"-1", b"4294967297", b"9" * 25, b"1e400", b"nan", b"0.5", b"", b"x", b"1000000")
    return data[: at.start()] + pick(rng, new) + data[at.end() :]


def other(data: bytes, rng: Rng) -> bytes:
    """Put a file of another kind in its place."""
    stream = io.BytesIO()
    np.save(stream, pick(rng, (np.zeros(3), np.zeros((2, 2, 2), "i2"), np.array(["a"]))))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a", "b")
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        file["a"] = np.zeros(3)
    others = (
        *(stream.getvalue(), archive.getvalue(), held.getvalue(), gzip.compress(b"text", mtime=0)),
        *(b"<html>404 Not Found</html>", b"\x89PNG\r\n\x1a\n" + bytes(40), b"\xff\xd8\xff\xe0"),
        *(b"\x80\x04N.", bytes(1000), b"\n", b"[]", b"{}", b"null", b"0", b"\xef\xbb\xbf{}"),
        *(b"[" * 100_000, b'{"a":' * 50_000, b"a\tb\n1\t2\n", b"a,b\n1,2\n", b"\xff\xfe\x00a"),
    )
    return pick(rng, others)


ANY: tuple[Mutation, ...] = (
    *(cut, cut, empty, flip, flip, flip_head, noise, shift, number, number, digits, other),
)
