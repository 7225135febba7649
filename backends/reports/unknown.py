"""What the files of a folder look like, and which reader came closest to knowing it.

For a folder that nobody knows: shapes, keys and ranges of values, read from headers and a few
rows, never from a pickle.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backends.datasets.reading import mat_sizes, npz_array, npz_names, open_hdf5
from explorer.files import guard, open_volume, read_array, read_json, read_table, short
from explorer.images import picture_size
from explorer.types import UserError, resolve

MOST_FILES = 10_000  # that are looked for
SHOWN = 3  # files of one kind that are described
KEYS = 12  # keys or columns that are listed
SAMPLE = 65_536  # numbers of an array whose range is told
CLOSEST = 3  # readers that are named
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
PICKLES = (".pkl", ".pickle", ".pkl3", ".pt", ".pth", ".joblib")


def explain(path: Path, datasets: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines: what each kind of file looks like, then the readers that came closest.

    Parameters
    ----------
    path
        A folder or file.
    datasets
        Name -> class or ``"module:Class"``, as in ``backends``.
    """
    path = Path(path)
    files = [path] if path.is_file() else list(itertools.islice(_files(path), MOST_FILES))
    yield f"Files of {path}:"
    if not files:
        yield "  none"
        return
    groups: dict[tuple[str, str], list[Path]] = {}
    for file in files:
        groups.setdefault((str(file.parent), _kind(file)), []).append(file)
    for (folder, kind), members in sorted(groups.items()):
        yield f"  {len(members)} × {kind} in {folder}"
        for file in members[:SHOWN]:
            yield f"    {file.name}: {look_at(file)}"
        if len(members) > SHOWN:
            yield f"    … and {len(members) - SHOWN} more"
    if len(files) == MOST_FILES:
        yield f"  … only the first {MOST_FILES} files were looked for"
    yield "Readers that came closest:"
    closest = list(itertools.islice(_closest(path, files, datasets), CLOSEST))
    yield from closest or ["  none: no file has a name that a reader looks for"]


def look_at(file: Path) -> str:
    """Return what a file looks like in a few words: shapes, keys, a range of values."""
    kind = _kind(file)
    look = _LOOKS.get(kind)
    if kind in PICTURES:
        look = _picture
    if kind in PICKLES:
        return (
            "a pickle or a file of torch, which can run code when it is opened; it is not looked "
            "into"
        )
    if look is None:
        return f"{file.stat().st_size:,} bytes"
    try:
        with guard(file):
            return look(file)
    except UserError as error:
        return f"cannot be read: {short(error)}"


def _files(path: Path) -> Iterator[Path]:
    for file in sorted(path.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            yield file


def _kind(file: Path) -> str:
    """Return the ending that says what a file is: .nii.gz and not .gz."""
    endings = [e.lower() for e in file.suffixes[-2:]]
    return "".join(endings) if endings[-1:] == [".gz"] else "".join(endings[-1:]) or "no ending"


def _numbers(array: Any) -> str:
    """Return dtype, shape and, of the first numbers, the range of an array that can be sliced."""
    shape, dtype = tuple(array.shape), np.dtype(array.dtype)
    said = f"{dtype} {' × '.join(map(str, shape)) or 'one value'}"
    if dtype.kind not in "fiub" or not np.prod(shape, dtype=float):
        return said
    width = int(np.prod(shape[1:], dtype=np.int64)) if len(shape) > 1 else 1
    if width > SAMPLE:
        part = np.asarray(array[(0,) * (len(shape) - 1)][:SAMPLE])
    else:
        part = np.asarray(array[: max(1, SAMPLE // width)] if shape else array[()])
    part = np.asarray(part, dtype=float).ravel()
    fine = part[np.isfinite(part)]
    bad = f", {len(part) - len(fine)} not finite" if len(fine) < len(part) else ""
    of = f"first {len(part):,} " if len(part) < np.prod(shape, dtype=float) else ""
    if not len(fine):
        return f"{said}; {of}values: none is finite"
    low, high = _written(fine.min()), _written(fine.max())
    return f"{said}; {of}values from {low} to {high}, mean {_written(fine.mean())}{bad}"


def _written(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _npy(file: Path) -> str:
    return _numbers(read_array(file))


def _npz(file: Path) -> str:
    names = npz_names(file)
    parts = [f"{name} {_numbers(npz_array(file, name))}" for name in names[:SHOWN]]
    return f"arrays {_list(names)}; " + "; ".join(parts)


def _hdf5(file: Path) -> str:
    import h5py

    found: list[str] = []
    with open_hdf5(file) as opened:

        def note(name: str, value: Any) -> bool | None:
            if isinstance(value, h5py.Dataset) and value.shape is not None:
                found.append(f"{name} {_numbers(value)}" if len(found) < SHOWN else name)
            return True if len(found) > 10 * KEYS else None  # enough: ends the visit

        opened.visititems(note)
        top = list(itertools.islice(opened, KEYS + 1))
    arrays = "; ".join(found[:SHOWN]) or "no arrays"
    return f"keys {_list(top)}; {arrays}"


def _mat(file: Path) -> str:
    sizes = mat_sizes(file)
    said = [f"{name} {' × '.join(map(str, shape))}" for name, shape in sizes.items()]
    return f"variables {_list(said)}"


def _volume(file: Path) -> str:
    image = open_volume(file)
    zooms = " × ".join(f"{float(z):.3g}" for z in image.header.get_zooms()[:3])
    shape = " × ".join(map(str, image.shape))
    return f"{image.get_data_dtype()} {shape}, voxels of {zooms} mm"


def _table(file: Path) -> str:
    table = read_table(file)
    columns = [str(column) for column in table.columns]
    first = "" if table.empty else "; first row " + short(", ".join(map(str, table.iloc[0])), 80)
    return f"{len(table):,} rows, columns {_list(columns)}{first}"


def _json(file: Path) -> str:
    value = read_json(file)
    if isinstance(value, dict):
        return f"an object with the keys {_list([str(key) for key in value])}"
    return f"a list of {len(value):,}" if isinstance(value, list) else type(value).__name__


def _picture(file: Path) -> str:
    width, height = picture_size(file)
    return f"a picture of {width} × {height} pixels"


def _list(names: list[str]) -> str:
    more = len(names) - KEYS
    return short(", ".join(names[:KEYS]), 400) + (f" and {more} more" if more > 0 else "")


_LOOKS: dict[str, Callable[[Path], str]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".mat": _mat,
    ".nii": _volume,
    ".nii.gz": _volume,
    ".mgh": _volume,
    ".mgz": _volume,
    ".csv": _table,
    ".tsv": _table,
    ".json": _json,
}


def _closest(path: Path, files: list[Path], datasets: Mapping[str, Any]) -> Iterator[str]:
    """Yield the readers by how many of the names they look for are here, and why each declined."""
    above = path.parent if path.is_file() else path
    here = {part for file in files for part in file.relative_to(above).parts}
    scored = []
    for name, entry in datasets.items():
        cls = resolve(entry)
        wanted = _names(str(getattr(cls, "looks_for", "")))
        hits = [w for w in wanted if any(_pattern(w).fullmatch(there) for there in here)]
        if wanted and hits:
            scored.append((len(hits) / len(wanted), name, cls, hits))
    for share, name, cls, hits in sorted(scored, key=lambda s: (-s[0], s[1])):
        try:
            cls(path, name)
            why = "it opens, though it is not recognised by content"
        except UserError as error:
            why = short(error, 400)
        yield f"  {name} ({share:.0%} of the names it looks for: {', '.join(hits)}): {why}"


def _names(looks_for: str) -> list[str]:
    """Return the words of a reader's ``looks_for`` that are names of files or keys."""
    words = re.findall(r"[\w./*<>-]+", looks_for)
    parts = [part for word in words for part in word.strip(".").split("/")]
    return list(dict.fromkeys(p for p in parts if re.search(r"[._]|XX|\w{4}\d", p)))


def _pattern(name: str) -> re.Pattern[str]:
    """Return what a name matches in which digits and XX may be others, and * anything."""
    text = re.escape(name.rstrip(".").removesuffix("...")).replace(r"\*", ".*")
    return re.compile(re.sub(r"X{2,}|\d+", r"\\w+", text) + ".*", re.IGNORECASE)
