"""What readers of real data sets share: arrays read by rows, and files opened without surprises.

Nothing is converted or copied: a reader keeps its files open read-only and gives `LazyRows`.
"""

from __future__ import annotations

import math
import os
import struct
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.mat_cells import is_level_5, mat_numbers
from explorer.files import DEFLATE, damaged, guard, npy_header, pickled, short
from explorer.types import Origin, UserError

if TYPE_CHECKING:
    import h5py

CHUNK_ROWS = 256  # rows in memory at once while statistics are gathered
CHUNK_NUMBERS = 2**24  # and numbers: 128 MB
MOST_CHUNKS = 100_000  # of an HDF5 array: counting them takes a tenth of a second
KINDS = {"fiub": "numbers", "fiu": "numbers", "iu": "whole numbers", "SO": "texts"}


Lies = Callable[[int], list[Origin]]


class LazyRows:
    """Betas on disk as a float32 array (n, V) of which only the rows asked for are read.

    Parameters
    ----------
    shape
        (n, V).
    read
        ``read(rows)`` with int64 rows, **strictly increasing** (what h5py asks for), gives
        (len(rows), V) of any numeric type.
    source
        The name that a message gives the data.
    lies
        ``lies(row)``: the files and rows that this one is made of; None where a reader cannot
        tell. What is made of these rows (`chosen`, `stacked`, `standardised`) tells it too.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(
        self,
        shape: tuple[int, int],
        read: Callable[[np.ndarray], np.ndarray],
        source: str,
        lies: Lies | None = None,
    ) -> None:
        self.shape: tuple[int, int] = (int(shape[0]), int(shape[1]))
        self.source, self.lies = source, lies
        self._read = read

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return the rows of any index of the first axis; one that is not finite is refused."""
        if isinstance(rows, tuple):
            return self[rows[0]][(..., *rows[1:])]
        numbers = np.arange(len(self))[rows]
        wanted, back = np.unique(np.atleast_1d(numbers), return_inverse=True)
        values = np.empty((0, self.shape[1]), np.float32)
        if len(wanted):
            values = self.unchecked(wanted)
        bad = ~np.isfinite(values)
        if bad.any():
            trial, voxel = np.argwhere(bad)[0]
            raise UserError(
                f"{self.source} holds a value that is not finite in trial {wanted[trial]}, "
                f"voxel {voxel} (both from 0); leave that trial or that voxel out."
            )
        return values[back.reshape(np.shape(numbers))]

    def unchecked(self, rows: np.ndarray) -> np.ndarray:
        """Return float32 rows, strictly increasing, finite or not."""
        return np.asarray(self._read(rows), dtype=np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows."""
        return np.asarray(self[:], dtype=dtype)


def chosen(rows: LazyRows, which: np.ndarray) -> LazyRows:
    """Return certain rows, ``which`` int (n,), still read lazily."""
    lies = rows.lies
    return LazyRows(
        (len(which), rows.shape[1]),
        lambda n: rows[which[n]],
        rows.source,
        lies and (lambda n: lies(int(which[n]))),
    )


def lies_in(file: Path | str, key: str = "", note: str = "") -> Lies:
    """Return where rows lie that are those of one array, in its order."""
    return lambda row: [Origin(str(file), row, key, note)]


def stacked(parts: list[LazyRows], source: str) -> LazyRows:
    """Return the rows of several arrays of one width below each other, still read lazily."""
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise UserError(f"{source}: the parts have {' and '.join(map(str, widths))} columns.")
    starts = np.cumsum([0, *map(len, parts)])

    def read(rows: np.ndarray) -> np.ndarray:
        of = [rows[(rows >= a) & (rows < b)] - a for a, b in zip(starts, starts[1:], strict=False)]
        return np.vstack([part[n] for part, n in zip(parts, of, strict=True)])

    def lies(row: int) -> list[Origin]:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[part].lies(row - int(starts[part]))

    known = all(part.lies for part in parts)
    return LazyRows((int(starts[-1]), widths.pop()), read, source, lies if known else None)


def standardised(rows: LazyRows, group: np.ndarray, counts: np.ndarray, ddof: int = 0) -> LazyRows:
    """Return rows z-scored within groups (sessions, runs), still read lazily.

    Mean and SD of a group come from its rows where ``counts`` is true (training rows), are
    gathered when one of its rows is first read, and kept. A voxel that never varies in a group
    becomes 0 there.

    Parameters
    ----------
    rows
        (n, V).
    group
        (n,), the group of every row.
    counts
        bool (n,), the rows that statistics are taken from; a group without any raises `UserError`
        when it is read.
    ddof
        0 for the population SD, 1 for the sample SD.
    """
    group, counts = np.asarray(group), np.asarray(counts, dtype=bool)
    known: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
    lock = threading.Lock()

    def statistics(name: Any) -> tuple[np.ndarray, np.ndarray]:
        with lock:
            if name not in known:
                of_group = np.flatnonzero((group == name) & counts)
                if not len(of_group):
                    raise UserError(
                        f"{rows.source}: {name!r} has no training trial to take its mean and SD "
                        "from, so its trials cannot be z-scored."
                    )
                known[name] = mean_and_sd(rows, of_group, ddof)
            return known[name]

    def read(wanted: np.ndarray) -> np.ndarray:
        values = np.empty((len(wanted), rows.shape[1]), np.float32)
        for name in dict.fromkeys(group[wanted].tolist()):
            mean, sd = statistics(name)  # next to the rows: what was read for one serves the other
            here = group[wanted] == name
            values[here] = (rows[wanted[here]] - mean) / np.where(sd > 0, sd, np.inf)
        return values

    return LazyRows(rows.shape, read, rows.source, rows.lies)


def mean_and_sd(rows: Any, which: np.ndarray, ddof: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 mean (V,) and SD (V,) of some rows, read in chunks (Chan et al. 1983).

    The SD of a voxel that only rounding moves is 0.
    """
    count, mean, square = 0, np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    step = int(np.clip(CHUNK_NUMBERS // max(rows.shape[1], 1), 8, CHUNK_ROWS))
    for begin in range(0, len(which), step):
        part = np.asarray(rows[which[begin : begin + step]], dtype=np.float64)
        n, part_mean = len(part), part.mean(axis=0)
        shift = part_mean - mean
        square += ((part - part_mean) ** 2).sum(axis=0) + shift**2 * count * n / (count + n)
        mean += shift * n / (count + n)
        count += n
    sd = np.sqrt(square / max(count - ddof, 1))
    sd[sd <= 1e-6 * np.abs(mean)] = 0
    return mean.astype(np.float32), sd.astype(np.float32)


def open_hdf5(path: Path, needs: str = "") -> h5py.File:
    """Return an HDF5 file opened read-only.

    ``needs`` ends the sentence when it is missing, e.g. "it holds the images and comes from ...".
    """
    import h5py

    with guard(path, missing=needs or "check the path"):
        return h5py.File(path, "r", locking=False)


def hdf5_array(
    group: h5py.Group,
    name: str,
    ndim: int | None = None,
    kinds: str = "fiub",
    whole: bool = True,
) -> h5py.Dataset:
    """Return an array of an HDF5 file whose numbers are there; nothing of it is read.

    Parameters
    ----------
    group
        The file or a group in it.
    name
        Of the array; a link that leads nowhere counts as missing.
    ndim, kinds
        What it must be: axes, and numpy's kinds of dtype.
    whole
        Whether all of it must have been written; else see `hdf5_row`.
    """
    import h5py

    path = group.file.filename
    with guard(path, at=name):
        found = group.get(name)
        absent = not isinstance(found, h5py.Dataset)
        there = short(", ".join(map(str, group))) if absent else ""  # may be 30,000
    if absent:
        what = "has no array" if found is None else "has a group, expected an array,"
        raise UserError(f"{path} {what} {name!r}; it has {there or 'nothing'}.")
    check_array(found, name, ndim, kinds, whole)
    return found


def check_array(
    found: h5py.Dataset,
    name: str,
    ndim: int | None = None,
    kinds: str = "fiub",
    whole: bool = True,
) -> None:
    """Refuse an HDF5 array of another kind, or whose numbers are not there; see `hdf5_array`."""
    path = found.file.filename
    if found.shape is None or found.dtype.kind not in kinds or ndim not in (None, found.ndim):
        shape = "" if found.shape is None else f" {found.shape}"
        axes = "" if ndim is None else f" along {ndim} axes"
        raise UserError(
            f"{path}: {name!r} needs {KINDS.get(kinds, 'numbers')}{axes}, found "
            f"{found.dtype}{shape}; take the file as it was published."
        )
    if whole:
        with guard(path, at=name):
            _check_allocated(found, path, name)


def hdf5_row(array: h5py.Dataset, index: int) -> np.ndarray:
    """Return one row of an HDF5 array; one that was never written would be read as zeros."""
    path, name = array.file.filename, str(array.name).strip("/")
    if not 0 <= index < len(array):
        raise UserError(f"{path}: {name!r} has the rows 0 to {len(array) - 1}, not {index}.")
    with guard(path, at=name):
        size = math.prod(array.shape[1:]) * array.dtype.itemsize
        if size > os.path.getsize(path) * DEFLATE:
            raise damaged(path, f"it declares rows of {size:,} bytes", at=name)
        if array.chunks:
            corner = (index // array.chunks[0] * array.chunks[0], *[0] * (array.ndim - 1))
            there = array.id.get_chunk_info_by_coord(corner).byte_offset is not None
        else:
            there = array.id.get_storage_size() > 0
    if not there:
        raise damaged(path, f"row {index} was never written", at=name)
    return hdf5_values(array, index)


def hdf5_values(array: h5py.Dataset, index: Any = ()) -> np.ndarray:
    """Return numbers of an HDF5 array, which may be damaged where they lie."""
    with guard(array.file.filename, at=str(array.name).strip("/")):
        return array[index]


def _check_allocated(array: h5py.Dataset, path: str, name: str) -> None:
    """Refuse numbers that lie in other files, or that were never written and read as zeros."""
    about = array.id.get_create_plist()
    if array.is_virtual or about.get_external_count():
        raise UserError(
            f"{path}: the numbers of {name!r} lie in other files, which are not opened; copy them "
            "into one file (h5repack, or h5py)."
        )
    declared, size = math.prod(array.shape) * array.dtype.itemsize, os.path.getsize(path)
    there = size * DEFLATE
    if not about.get_nfilters():
        there = array.id.get_storage_size()
    if array.chunks:
        chunks = math.prod(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))
        if declared <= there and chunks <= MOST_CHUNKS:
            written = array.id.get_num_chunks()
            there = declared * written // chunks if written < chunks else declared
    if declared > there:
        raise damaged(
            path,
            f"it declares the shape {array.shape}, {declared:,} bytes, of which at most {there:,} "
            "are there",
            at=name,
        )


def hdf5_rows(array: h5py.Dataset, source: str, columns: np.ndarray | None = None) -> LazyRows:
    """Return an HDF5 dataset (n, V) as lazy rows, or only some of its columns.

    Rows that lie far apart are read one by one: h5py's own list selection takes milliseconds a
    row on a contiguous dataset.
    """
    width = array.shape[1] if columns is None else len(np.arange(array.shape[1])[columns])
    lock = threading.Lock()  # h5py serialises anyway; this keeps a file's reads together

    def read(wanted: np.ndarray) -> np.ndarray:
        values = np.empty((len(wanted), width), np.float32)
        with lock, guard(source):
            # consecutive rows come in one piece
            for run in np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(wanted) > 1) + 1):
                part = array[wanted[run[0]] : wanted[run[-1]] + 1]
                values[run] = part if columns is None else part[:, columns]
        return values

    def lies(row: int) -> list[Origin]:
        return [Origin(array.file.filename, row, str(array.name).strip("/"))]

    return LazyRows((array.shape[0], width), read, source, lies)


def mat_sizes(path: Path, needs: str = "") -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the arrays in a MATLAB file of any version; nothing is read.

    Version 7.3 is HDF5, whose axes h5py gives reversed.
    """
    import h5py
    from scipy.io import whosmat

    if h5py.is_hdf5(path):
        with open_hdf5(path) as file, guard(path):
            return {name: v.shape[::-1] for name, v in file.items() if getattr(v, "shape", None)}
    with guard(path, missing=needs or "check the path"):
        return {name: tuple(map(int, shape)) for name, shape, _ in whosmat(path)}


def mat_array(path: Path, name: str) -> np.ndarray:
    """Return one array of numbers of a MATLAB file of any version, its axes as MATLAB has them."""
    import h5py
    from scipy.io import loadmat

    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            return hdf5_values(hdf5_array(file, name)).T
    if is_level_5(path):
        return mat_numbers(path, name)
    with guard(path, at=name):
        found = loadmat(path, variable_names=[name]).get(name)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiub":
        what = "nothing" if found is None else f"{getattr(found, 'dtype', type(found).__name__)}"
        raise UserError(f"{path}: {name!r} needs numbers, found {what}; copy it again.")
    return found


def npz_names(path: Path, needs: str = "") -> list[str]:
    """Return the names of the arrays in a ``.npz`` file; nothing else of it is read."""
    with _opened_zip(path, needs) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def npz_array(path: Path, name: str) -> np.ndarray:
    """Return one array of a ``.npz`` file, never unpickled; a pickle is refused by name.

    A ``.npz`` is a zip of ``.npy`` files. ``np.savez`` stores them as they are, and such an array
    is a memory map of its place in the file, whatever its size; what ``np.savez_compressed`` wrote
    is unpacked into memory.
    """
    with _opened_zip(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            raise UserError(
                f"{path} has no array {name!r}; it has {short(', '.join(npz_names(path)))}."
            )
        info = archive.getinfo(f"{name}.npy")
        with guard(path, at=name):
            with archive.open(info) as member:
                shape, fortran, dtype, skip = npy_header(member)
            if dtype.hasobject:
                raise pickled(path, name)
            stored, size = info.compress_type == zipfile.ZIP_STORED, math.prod(shape)
            most = info.compress_size * (1 if stored else DEFLATE)
            if skip + size * dtype.itemsize > min(info.file_size, most):
                raise damaged(path, f"it declares the shape {shape}, and is smaller", at=name)
            if not stored or not size:
                with archive.open(info) as member:
                    return np.lib.format.read_array(member, allow_pickle=False)
            with open(path, "rb") as file:  # the local header: 30 bytes, then a name and extras
                file.seek(info.header_offset + 26)
                begin = info.header_offset + 30 + sum(struct.unpack("<2H", file.read(4)))
            order = "F" if fortran else "C"
            return np.memmap(path, dtype, "r", begin + skip, shape, order)


def _opened_zip(path: Path, needs: str = "") -> zipfile.ZipFile:
    with guard(path, missing=needs or "check the path"):
        return zipfile.ZipFile(path)
