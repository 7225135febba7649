"""Tables that pandas wrote to HDF5 (``DataFrame.to_hdf``), read by slices and never unpickled.

pandas' fixed format keeps the numbers of a frame as one array a dtype (``blockN_values``, rows of
the frame by columns of the block) and the labels of their columns beside them
(``blockN_items``). PyTables pickles labels of mixed types and columns of objects, and
``pandas.read_hdf`` unpickles both, which runs whatever code a file holds. Here the labels are
read off the pickle's instructions, of which none is carried out, and columns of objects are
refused. (``format="table"`` cannot hold thousands of columns: their labels do not fit into an
HDF5 attribute.)
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import pickletools
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backends.datasets.reading import (
    LazyRows,
    check_array,
    hdf5_array,
    hdf5_values,
    lies_in,
    open_hdf5,
)
from explorer.files import guard, pickled, read_array, short
from explorer.types import UserError

if TYPE_CHECKING:
    import h5py

SLAB = 2**23  # values of the source in memory at once while it is turned: 64 MB as float64
FEW = 4  # columns that are read on their own as long as nothing is turned
GAP = 4  # rows that are read over: closer runs of rows come in one piece
MOST_LABELS = 2**20  # bytes a pickle of labels may have; 9,841 of THINGS take 30,000
CONSTANTS = {
    *("INT", "LONG", "LONG1", "BININT", "BININT1", "BININT2"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
KEPT = {"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "FRAME", "PROTO"}  # no value of their own
INSTEAD = "save numbers only (frame.select_dtypes('number').to_hdf)"


class Block(NamedTuple):
    """Columns of one dtype: their labels, and the numbers (rows of the frame, labels)."""

    labels: list[int | str]
    values: h5py.Dataset


def read_blocks(path: Path, needs: str = "") -> list[Block]:
    """Return the blocks of the one frame in a file; nothing but labels is read.

    ``needs`` ends the sentence where the file is missing.
    """
    import h5py

    file = open_hdf5(path, needs)
    with guard(path):
        groups = [group for group in file.values() if isinstance(group, h5py.Group)]
        frames = [group for group in groups if "pandas_type" in group.attrs]
        kinds = [_text(group.attrs["pandas_type"]) for group in frames]
        names = set(frames[0]) if frames else set()
    if kinds != ["frame"]:
        raise UserError(
            f"{path} holds {short(', '.join(kinds)) or 'nothing that pandas wrote'}, expected one "
            "frame in pandas' fixed format (DataFrame.to_hdf); take the file as it was published."
        )
    frame, found = frames[0], []
    while (name := f"block{len(found)}_values") in names:
        labels = _labels(frame, f"block{len(found)}_items")
        with guard(path, at=name):
            values = frame.get(name)
        if isinstance(values, h5py.Dataset) and values.dtype.kind == "O":
            raise pickled(path, f"columns {short(', '.join(map(str, labels)))}", INSTEAD)
        values = hdf5_array(frame, name, 2)
        if values.shape[1] != len(labels):
            raise UserError(
                f"{path}: {name!r} has {values.shape[1]} columns and {len(labels)} labels; the "
                "file is damaged, copy it again."
            )
        found.append(Block(labels, values))
    if not found or len({len(block.values) for block in found}) > 1:
        raise UserError(
            f"{path} has blocks of {[len(block.values) for block in found]} rows, expected one "
            "length; the file is damaged, copy it again."
        )
    return found


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _labels(frame: h5py.Group, name: str) -> list[int | str]:
    """Return the labels of a block's columns."""
    import h5py

    path = Path(frame.file.filename)
    with guard(path, at=name):
        stored = frame.get(name)
    if not isinstance(stored, h5py.Dataset) or stored.ndim != 1:
        raise UserError(f"{path} has no list {name!r} of labels; copy it again.")
    if stored.dtype.kind != "O":
        check_array(stored, name, 1, "iuS")
        values = hdf5_values(stored)
        with guard(path, at=name):
            if values.dtype.kind == "S":
                return [value.decode("utf-8") for value in values.tolist()]
            return [int(value) for value in values]
    if len(stored) != 1:
        raise UserError(f"{path}: {name!r} holds {len(stored)} pickles, expected one list.")
    with guard(path, at=name):
        packed = bytes(stored[0])
        found = plain_labels(packed)
    if found is None:
        raise pickled(path, f"{name}, which are not only numbers and texts", INSTEAD)
    return found


def plain_labels(packed: bytes) -> list[int | str] | None:
    """Return the list in a pickle by reading its instructions; nothing is carried out.

    None where the list holds anything but whole numbers and texts.
    """
    if len(packed) > MOST_LABELS:
        return None
    open_marks: list[list[int | str] | None] = []  # None once something else stands in it
    labels: list[int | str] = []
    last: int | str | None = None
    for code, value, _ in pickletools.genops(packed):
        if code.name == "MARK":
            open_marks.append([])
        elif code.name == "APPENDS":
            part = open_marks.pop()
            if part is None:
                return None
            labels += part
        elif code.name == "APPEND":
            if last is None:
                return None
            labels.append(last)
        elif code.name in CONSTANTS:
            last = value
            if open_marks and open_marks[-1] is not None:
                open_marks[-1].append(value)
        elif code.name not in KEPT:
            last = None
            if code.name in ("TUPLE", "DICT", "LIST", "POP_MARK", "SETITEMS", "ADDITEMS"):
                open_marks.pop()
            if open_marks:
                open_marks[-1] = None
    return labels


# ------------------------------------------------------------------------------------------ turned


def columns_as_rows(block: Block, rows: np.ndarray, folder: Path, source: str) -> LazyRows:
    """Return a block turned: row j holds column j of the frame at some of its rows.

    One column of the file touches a page of every row, so reading more than a `FEW` turns the
    file once, row after row, into a float32 array in a cache, whole or not at all.

    Parameters
    ----------
    block
        (R, n).
    rows
        int (V,), increasing: which of the R rows.
    folder
        Of the cache; what lies there for the same file, its time and these rows is used.
    source
        The name that a message gives the data.
    """
    path, key = Path(block.values.file.filename), str(block.values.name).strip("/")
    kept = folder / f"{path.stem}-{_fingerprint(path, key, rows)}.npy"
    shape = len(block.labels), len(rows)
    lock, turned = threading.Lock(), []

    def read(wanted: np.ndarray) -> np.ndarray:
        with lock:
            if not turned and len(wanted) <= FEW and not kept.is_file():
                mapped = _mapped(block.values)
                if mapped is not None:
                    return mapped[np.ix_(rows, wanted)].T
            if not turned:
                turned.append(_turned(block.values, rows, kept, shape))
        return turned[0][wanted]

    return LazyRows(shape, read, source, lies_in(path, key, "a column; voxels are its rows"))


def _mapped(values: h5py.Dataset) -> np.ndarray | None:
    """Return numbers that lie in one piece and unpacked as a map of the file, else None."""
    if values.chunks or values.compression or values.id.get_offset() is None:
        return None
    path, begin = values.file.filename, values.id.get_offset()
    with guard(path):
        found = np.memmap(path, values.dtype, "r", begin, values.shape)
        if hasattr(mmap, "MADV_RANDOM"):  # else 128 kB are read for every number
            found._mmap.madvise(mmap.MADV_RANDOM)
        return found


def _fingerprint(path: Path, key: str, rows: np.ndarray) -> str:
    with guard(path):
        about = path.stat()
    digest = hashlib.sha256(f"{path.resolve()} {about.st_size} {about.st_mtime_ns} {key}".encode())
    digest.update(np.asarray(rows, np.int64).tobytes())
    return digest.hexdigest()[:16]


def _turned(
    values: h5py.Dataset, rows: np.ndarray, kept: Path, shape: tuple[int, int]
) -> np.ndarray:
    """Return the array in the cache, which is made where it does not lie there whole."""
    with contextlib.suppress(UserError):
        found = read_array(kept)
        if found.shape == shape and found.dtype == np.float32:
            return found
    name_another = "make room there, or name another place in $AFTERIMAGE_CACHE"
    part = kept.with_name(f".{kept.stem}.{os.getpid()}.part")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        room, needed = shutil.disk_usage(kept.parent).free, 4 * shape[0] * shape[1]
        if room < needed:
            raise UserError(
                f"{kept} needs {needed / 1e9:.1f} GB, of which {room / 1e9:.1f} GB are free; "
                f"{name_another}."
            )
        np.lib.format.open_memmap(part, "w+", np.float32, shape)
        done = 0
        for piece in _pieces(values, rows):
            into = np.lib.format.open_memmap(part, "r+")  # anew, so that its pages are let go
            into[:, done : done + len(piece)] = piece.T
            into.flush()
            done += len(piece)
        os.replace(part, kept)
    except OSError as error:
        raise UserError(f"{kept} cannot be written ({error}); {name_another}.") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return read_array(kept)


def _pieces(values: h5py.Dataset, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows float32 (k, n) in their order, of at most `SLAB` values at once."""
    most = max(1, SLAB // max(1, values.shape[1]))
    gap = max(GAP, values.chunks[0] if values.chunks else 0)
    for begin in range(0, len(rows), most):
        part = rows[begin : begin + most]
        into = np.empty((len(part), values.shape[1]), np.float32)
        for run in np.split(np.arange(len(part)), np.flatnonzero(np.diff(part) > gap) + 1):
            times = -(-(part[run[-1]] - part[run[0]] + 1) // most)
            for few in np.array_split(run, min(times, len(run))):
                first, last = int(part[few[0]]), int(part[few[-1]])
                into[few] = hdf5_values(values, slice(first, last + 1))[part[few] - first]
        yield into
