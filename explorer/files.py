"""Files that others wrote: what is wrong with one becomes one sentence, before it takes memory.

Every reader opens through here. `guard` turns what a library raises about a file into a
`UserError` with the file, what was expected, what was found and what to do. The openers hold a
declared shape against the size of the file first: a header of a few bytes may declare terabytes.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import json
import math
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd
    import torch

COPY = "copy it again"
PLAIN = "save it as a plain array (np.save of numbers, HDF5 or safetensors)"
# Deflate never packs better (zlib.net/zlib_tech.html), so this bounds what a packed file can hold.
DEFLATE = 1032
PACKED = (".gz", ".mgz")
MOST_TEXT = 2**28  # bytes of a text file: our choice, ten times the largest table of NSD
LONGEST = 200  # letters of a library's own words in a sentence


@contextlib.contextmanager
def guard(
    path: str | Path,
    what: str = "",
    do: str = COPY,
    missing: str = "check the path",
    at: str = "",
) -> Iterator[None]:
    """Turn what a library raises about a file into one `UserError`.

    Around calls of libraries alone: their errors about damaged files have no common class, so
    everything but a missing library counts as one.

    Parameters
    ----------
    path
        The file, as the sentence names it.
    what
        What was expected, e.g. "a NIfTI volume".
    do, missing
        How the sentence ends, and how it does where there is no such file.
    at
        The part of the file that is being read, if it has names.
    """
    try:
        yield
    except (UserError, ImportError):
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {missing}.") from error
    except PermissionError as error:
        raise UserError(f"{path} may not be read; give yourself the right to.") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder, expected {what or 'a file'}; {missing}.") from error
    except MemoryError as error:
        raise UserError(
            f"{path} asks for more memory than there is; it is damaged, or too large to be read "
            f"here: {do}."
        ) from error
    except Exception as error:
        why = reason(error).replace(str(path), Path(path).name)  # the sentence has it already
        raise damaged(path, why, what, do, at) from error


def damaged(path: str | Path, why: str, what: str = "", do: str = COPY, at: str = "") -> UserError:
    """Return the error for a file that is not what it should be."""
    where = f" at {at!r}" if at else ""
    wrong = f"cannot be read as {what}" if what else "is damaged or cut short"
    return UserError(f"{path} {wrong}{where} ({why}); {do}.")


def short(text: object, most: int = LONGEST) -> str:
    """Return what a file says of itself in one line, cut where it is long, for a sentence."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[:most]}..."


def reason(error: BaseException) -> str:
    """Return a library's own words in one line without a full stop, or the error's name."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines[1:] and lines[0].endswith(":"):  # "Error(s) in loading state_dict for UNet:"
        lines[:2] = [" ".join(lines[:2])]
    text = lines[0].rstrip(".:; ") if lines else ""
    if isinstance(error, KeyError) or not text:
        text = f"{type(error).__name__} {text}".strip()
    return short(text)


def check_size(
    path: str | Path, shape: Sequence[int], itemsize: int, begin: int = 0, do: str = COPY
) -> None:
    """Refuse a file whose header declares more numbers than the file can hold.

    Parameters
    ----------
    path
        The file; by its ending it counts as packed.
    shape, itemsize
        What its header declares: numbers along each axis, bytes a number.
    begin
        Bytes in front of the numbers.
    """
    path = Path(path)
    with guard(path):
        size = path.stat().st_size
    if any(n < 0 for n in shape):
        raise damaged(path, f"its header declares the shape {_written(shape)}", do=do)
    needed = begin + math.prod(map(int, shape)) * int(itemsize)
    packed = path.suffix.lower() in PACKED
    if needed > size * (DEFLATE if packed else 1):
        raise damaged(
            path,
            f"its header declares the shape {_written(shape)}, {needed:,} bytes, and the file has "
            f"{size:,}{', packed' if packed else ''}",
            do=do,
        )


def _written(shape: Sequence[int]) -> str:
    return f"({', '.join(str(int(n)) for n in shape)})"


# -------------------------------------------------------------------------------------------- text


def read_text(path: str | Path, do: str = COPY, missing: str = "check the path") -> str:
    """Return a text file, UTF-8 with or without a byte order mark."""
    path = Path(path)
    with guard(path, "text in UTF-8", do, missing):
        size = path.stat().st_size
        if size > MOST_TEXT:
            raise UserError(
                f"{path} has {size:,} bytes, expected a text of at most {MOST_TEXT:,}; give the "
                "right file."
            )
        return path.read_text(encoding="utf-8-sig")


def read_json(path: str | Path, do: str = COPY, missing: str = "check the path") -> Any:
    """Return what a JSON file holds, of whatever type; its caller checks that."""
    text = read_text(path, do, missing)
    with guard(path, "JSON", do, missing):
        values = json.loads(text)
        if "\\ud" in text.lower():  # half a letter, which no file or page can be written with
            json.dumps(values, ensure_ascii=False).encode()
        return values


def read_object(
    path: str | Path, do: str = COPY, missing: str = "check the path"
) -> dict[str, Any]:
    """Return a JSON file that holds an object with fields."""
    values = read_json(path, do, missing)
    if not isinstance(values, dict):
        raise UserError(
            f"{path} holds a {type(values).__name__}, expected an object with fields; {do}."
        )
    return values


def read_table(
    path: str | Path,
    separator: str = "\t",
    do: str = COPY,
    missing: str = "check the path",
    **options: Any,
) -> pd.DataFrame:
    """Return a table, all cells as text; a missing cell is "".

    ``options`` go to `pandas.read_csv`.
    """
    import pandas as pd

    kind = "tab" if separator == "\t" else "comma"
    with guard(path, f"a {kind}-separated table", do, missing):
        if Path(path).suffix.lower() not in PACKED and b"\0" in Path(path).read_bytes():
            raise ValueError("it holds a null byte")  # where pandas 2 ends a cell without a word
        table = pd.read_csv(
            path,
            sep=separator,
            encoding="utf-8-sig",
            keep_default_na=False,
            **{"dtype": str, **options},
        )
        if not isinstance(table.index, pd.RangeIndex):  # pandas takes the first as a name
            raise ValueError("its rows have more cells than its header")
        return table.fillna("")  # rows with fewer cells than the header


def unpacked(
    path: str | Path, most: int, do: str = COPY, missing: str = "check the path"
) -> bytes:
    """Return what a ``.gz`` holds; `UserError` where that is more than ``most`` bytes."""
    parts, length = [], 0
    with guard(path, "a gzip file", do, missing), gzip.open(path, "rb") as file:
        while part := file.read(2**20):
            parts.append(part)
            length += len(part)
            if length > most:
                raise damaged(path, f"it unpacks to more than {most:,} bytes", do=do)
    return b"".join(parts)


# ----------------------------------------------------------------------------------------- numbers


def read_array(
    path: str | Path, missing: str = "check the path", mmap: bool = True, instead: str = PLAIN
) -> np.ndarray:
    """Return a ``.npy`` array, mapped so that rows are read on demand; never unpickled.

    A pickle and an archive are refused by name; ``instead`` ends the sentence about a pickle.
    """
    path = Path(path)
    with guard(path, missing=missing):
        with path.open("rb") as file:
            first = file.read(4)
            file.seek(0)
            if first.startswith(b"PK\x03\x04"):
                raise UserError(
                    f"{path} is an archive of arrays (.npz), expected one array; save it with "
                    "np.save."
                )
            if first.startswith(b"\x80"):
                raise pickled(path, do=instead)
            shape, _, dtype, begin = npy_header(file)
        if dtype.hasobject:
            raise pickled(path, do=instead)
        check_size(path, shape, dtype.itemsize, begin)
        return np.load(path, mmap_mode="r" if mmap and math.prod(shape) else None)


def npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return shape, Fortran order, dtype and length of a stream's ``.npy`` header."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"a header of version {version[0]}.{version[1]}, expected 1.0 or 2.0")
    shape, fortran, dtype = readers[version](file)
    return shape, fortran, dtype, file.tell()


def pickled(path: str | Path, name: str = "", do: str = PLAIN) -> UserError:
    """Return the error for pickled objects, which are never loaded."""
    where = f"{path} ({name})" if name else f"{path}"
    return UserError(
        f"{where} holds pickled Python objects, which can run code when they are opened, so it is "
        f"not read; {do}."
    )


# ----------------------------------------------------------------------------------------- tensors


def read_torch(path: str | Path, do: str = COPY, missing: str = "check the path") -> Any:
    """Return what `torch.save` wrote, of whatever type, on the CPU; code in it never runs.

    Tensors of the zip form are mapped from the file. Each one that is used goes through
    `plain_tensor`.
    """
    import torch

    path = Path(path)
    with guard(path, "a file of torch.save", do, missing):
        in_zip = zipfile.is_zipfile(path)
        try:
            return torch.load(path, "cpu", weights_only=True, mmap=in_zip or None)
        except pickle.UnpicklingError as error:
            if "GLOBAL" not in str(error):
                raise ValueError("it is not what torch.save writes") from error
            raise pickled(path, do="save plain tensors (safetensors, or torch.save)") from error


def plain_tensor(value: Any, where: str) -> torch.Tensor:
    """Return a tensor of ordinary numbers that are all there, without a graph.

    Refused are a quantised, sparse or meta tensor, and one that repeats its numbers or declares
    more than are stored; ``where`` says in a sentence which it is.
    """
    import torch

    if not isinstance(value, torch.Tensor):
        raise UserError(f"{where} is a {type(value).__name__}, expected a tensor of numbers.")
    kinds = {
        "quantised": value.is_quantized,
        "sparse": value.layout != torch.strided,
        "without numbers (meta)": value.is_meta,
        "nested": value.is_nested,
        "of complex numbers": value.is_complex(),
    }
    kind = next((name for name, true in kinds.items() if true), "")
    if kind:
        raise UserError(
            f"{where} is {kind}, expected a plain tensor of numbers; save it dense and as float32."
        )
    there, needed = value.untyped_storage().nbytes(), value.numel() * value.element_size()
    if needed > there:
        raise UserError(
            f"{where} has the shape {_written(value.shape)}, {needed:,} bytes, of which {there:,} "
            "are stored; save it with .contiguous(), or copy it again."
        )
    return value.detach()


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, computed once while its size and time stay: 2.5 s a GB."""
    now = path.stat()
    return _sha256(path, now.st_ino, now.st_size, now.st_mtime_ns)


@functools.lru_cache(256)
def _sha256(path: Path, inode: int, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------ images


def open_volume(
    path: str | Path,
    what: str = "a NIfTI volume",
    do: str = COPY,
    missing: str = "check the path",
    **options: Any,
) -> Any:
    """Return an image of nibabel whose numbers stay on disk, its shape held against the file.

    ``options`` go to `nibabel.load`.
    """
    import nibabel

    with guard(path, what, do, missing):
        is_mgh = str(path).endswith((".mgh", ".mgz"))
        image = _opened_mgh(path, options) if is_mgh else nibabel.load(path, **options)
        stored = getattr(image, "dataobj", None)
        if nibabel.is_proxy(stored):
            check_size(path, stored.shape, np.dtype(stored.dtype).itemsize, stored.offset, do)
        return image


def _opened_mgh(path: str | Path, options: dict[str, Any]) -> Any:
    """Return what `nibabel.load` does, which leaves the file open that it read the header from."""
    from nibabel.arrayproxy import ArrayProxy
    from nibabel.freesurfer.mghformat import MGHHeader, MGHImage
    from nibabel.openers import ImageOpener

    with ImageOpener(path, "rb") as file:
        header = MGHHeader.from_fileobj(file)
    return MGHImage(ArrayProxy(str(path), header, **options), header.get_affine(), header)


def volume_data(
    image: Any, path: str | Path, index: Any = ..., dtype: Any = None, do: str = COPY
) -> np.ndarray:
    """Return numbers of an opened image, scaled as its header says; ``index`` picks a part."""
    with guard(path, do=do):
        return np.asarray(image.dataobj[index], dtype=dtype)
