"""Where files that others wrote come in: what a library says of them becomes one sentence.

Sizes that a file declares are held against the file before memory is taken for them, so that a
damaged or made-up header costs nothing.
"""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from explorer.types import UserError

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

Read = TypeVar("Read")
AGAIN = "copy the file again"
GROWTH = 1032  # bytes that one byte of deflate can become at most (RFC 1951: 258 for two bits)
NIFTI = {348: (40, "h", 70, 108, "f"), 540: (16, "q", 12, 168, "q")}  # dim, type, offset of data
MGH_HEADER, MGH_BYTES = 284, {0: 1, 1: 4, 3: 4, 4: 2, 10: 2}  # bytes a value, by its type


def guarded(read: Callable[[], Read], path: str | Path, needs: str = AGAIN) -> Read:
    """Call ``read``, which opens a file by a library; any error becomes a `UserError`.

    Libraries raise whatever a damaged file leads them to, so nothing is let through: keep what is
    called here to that library. ``needs``: what to do, the end of the sentence.
    """
    try:
        return read()
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; give the path of a file that is there.") from error
    except MemoryError as error:
        raise UserError(f"{path} asks for more memory than this machine has; {needs}.") from error
    except Exception as error:
        said = str(error).strip().partition("\n")[0][:200].rstrip(" .") or type(error).__name__
        raise UserError(f"{path} cannot be read ({said}); {needs}.") from error


def read_npy(path: str | Path, needs: str = AGAIN) -> np.ndarray:
    """Return the array of a ``.npy``, mapped read-only, without Python objects.

    A shape that the file is too small for raises before memory is taken.
    """

    def read() -> np.ndarray:
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if "Python objects" in str(error):
                raise ValueError("it holds Python objects, allow_pickle=False") from error
            raise

    return guarded(read, path, needs)


def gunzip(path: str | Path, most: int, needs: str = AGAIN) -> bytes:
    """Return what a ``.gz`` holds; `UserError` where that is more than ``most`` bytes."""

    def read() -> bytes:
        parts, length = [], 0
        with gzip.open(path, "rb") as file:
            while block := file.read(2**20):
                parts.append(block)
                length += len(block)
                if length > most:
                    raise UserError(
                        f"{path} unpacks to more than the {most:,} bytes that such a file can "
                        f"take; {needs}."
                    )
        return b"".join(parts)

    return guarded(read, path, needs)


def open_volume(path: str | Path, needs: str = AGAIN) -> SpatialImage:
    """Return a NIfTI or MGH image of nibabel's, its header read and its data still on disk.

    The shape that the header declares is held against the size of the file; a packed file can
    hold at most `GROWTH` times its size.
    """
    import nibabel as nib

    path = Path(path)
    declared = guarded(lambda: _declared(path), path, needs)
    packed = path.name.endswith((".gz", ".mgz"))
    there = path.stat().st_size * (GROWTH if packed else 1)
    if declared > there:
        raise UserError(
            f"{path} declares {declared:,} bytes and can hold no more than {there:,}; {needs}."
        )
    return guarded(lambda: nib.load(path), path, needs)


def _declared(path: Path) -> int:
    """Return the bytes that the header of a volume declares, itself included."""
    opened = gzip.open if path.name.endswith((".gz", ".mgz")) else open
    with opened(path, "rb") as file:
        head = file.read(540)
    if path.name.endswith((".mgh", ".mgz")):
        version, *shape, kind = struct.unpack_from(">6i", head)
        if version != 1 or kind not in MGH_BYTES:
            raise ValueError(f"it is no MGH file: version {version}, type {kind}")
        return MGH_HEADER + _size(shape) * MGH_BYTES[kind]
    for order in "<>":
        (first,) = struct.unpack_from(f"{order}i", head)
        if first in NIFTI:
            dim, letter, kind, offset, of_offset = NIFTI[first]
            count, *shape = struct.unpack_from(f"{order}8{letter}", head, dim)
            (bits,) = struct.unpack_from(f"{order}h", head, kind + 2)
            (begin,) = struct.unpack_from(f"{order}{of_offset}", head, offset)
            if not 1 <= count <= 7 or bits < 1 or not 0 <= begin < 2**62:
                raise ValueError(f"its header is damaged: {count} dimensions, {bits} bits a value")
            return int(begin) + _size(shape[:count]) * bits // 8
    raise ValueError("it has no NIfTI header")


def _size(shape: Sequence[int]) -> int:
    if min(shape) < 0:
        raise ValueError(f"its shape is {tuple(shape)}")
    return math.prod(shape)
