"""Pictures that others published: in a folder, or in a zip that is never unpacked to disk.

Beside them may lie ``image_ids.csv``, which says what image each file is of (CortexDecoder:
``final.zip`` with 998 PNG and the columns of file and 73k number, from 0).
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from explorer.files import DEFLATE, damaged, guard, short
from explorer.images import ENDINGS, LARGEST, picture_size, read_picture
from explorer.types import UserError

ZIP = ".zip"
IDS = "image_ids.csv"
FILE_COLUMNS = ("file", "filename", "file_name", "image", "png")
ID_COLUMNS = ("image_id", "nsd_id", "id", "id_73k", "73k", "stimulus", "image_ids", "cocoid_73k")
MOST_BYTES = 2**28  # of one packed picture, or of the list: our choice


@dataclass(frozen=True)
class PictureFile:
    """One picture: a file, or a ``member`` of a zip."""

    path: Path
    member: str = ""

    @property
    def name(self) -> str:
        """Its file name."""
        return PurePosixPath(self.member).name if self.member else self.path.name

    @property
    def stem(self) -> str:
        """Its file name without the ending."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> Path:
        """The folder or the zip that holds it."""
        return self.path if self.member else self.path.parent

    def __str__(self) -> str:
        """Return what a sentence calls it."""
        return f"{self.path}, {self.member}" if self.member else str(self.path)

    def read(self, largest: int | None = LARGEST) -> np.ndarray:
        """Return its pixels, uint8 RGB (H, W, 3), see `read_picture`."""
        if not self.member:
            return read_picture(self.path, largest=largest)
        return read_picture(packed(self.path, self.member), str(self), largest=largest)

    def size(self) -> tuple[int, int]:
        """Return its width and height."""
        return picture_size(packed(self.path, self.member) if self.member else self.path)


def is_zip(path: Path) -> bool:
    """Return whether a path is a zip by its name and content."""
    return path.suffix.lower() == ZIP and path.is_file() and zipfile.is_zipfile(path)


def pictures_in(place: Path) -> list[PictureFile]:
    """Return the pictures of a folder, or of a zip that holds them in one folder, by name."""
    if not is_zip(place):
        files = (f for f in place.iterdir() if f.suffix.lower() in ENDINGS and f.is_file())
        return [PictureFile(file) for file in sorted(files)]
    names = [name for name in members(place) if PurePosixPath(name).suffix.lower() in ENDINGS]
    folders = sorted({str(PurePosixPath(name).parent) for name in names})
    if len(folders) > 1:
        raise UserError(
            f"{place} holds pictures in {len(folders)} folders ({short(', '.join(folders))}); "
            "unpack it and give one of them."
        )
    return [PictureFile(place, name) for name in sorted(names)]


def members(place: Path) -> tuple[str, ...]:
    """Return the names of a zip's files, without what macOS adds."""
    return _members(place, place.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _members(place: Path, _: int) -> tuple[str, ...]:
    with guard(place, "a zip"), zipfile.ZipFile(place) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
    ours = (PurePosixPath(name).parts for name in names)
    return tuple(
        name
        for name, parts in zip(names, ours, strict=True)
        if parts[0] != "__MACOSX" and not parts[-1].startswith(".")
    )


def packed(place: Path, member: str) -> bytes:
    """Return one file of a zip; one that declares more than it can hold is refused."""
    with guard(place, "a zip", at=member), zipfile.ZipFile(place) as archive:
        info = archive.getinfo(member)
        if info.file_size > min(MOST_BYTES, info.compress_size * DEFLATE + DEFLATE):
            raise damaged(place, f"it declares {info.file_size:,} bytes", "a zip", at=member)
        return archive.read(info)


def listed_ids(place: Path) -> dict[str, str] | None:
    """Return file name -> id by ``image_ids.csv`` in a folder or zip; None where there is none.

    Ids are as they are written; what they count from is the reader's to find
    (`backends.datasets.published.named_stimuli`).
    """
    import pandas as pd

    if is_zip(place):
        found = [name for name in members(place) if PurePosixPath(name).name == IDS]
        source: object = io.BytesIO(packed(place, found[0])) if found else None
    else:
        source = place / IDS if (place / IDS).is_file() else None
    if source is None:
        return None
    where = f"{place}, {IDS}"
    with guard(where, "a table"):
        table = pd.read_csv(source, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    columns = {str(name).strip().lower(): name for name in table}
    file = next((columns[name] for name in FILE_COLUMNS if name in columns), None)
    ids = [columns[name] for name in ID_COLUMNS if name in columns and columns[name] != file]
    if file is None or len(ids) != 1:
        raise UserError(
            f"{where} has the columns {short(', '.join(map(str, table)))}; it needs one of file "
            f"names ({', '.join(FILE_COLUMNS)}) and one of ids ({', '.join(ID_COLUMNS)})."
        )
    names = [PurePosixPath(name.strip()).name for name in table[file]]
    found = dict(zip(names, (value.strip() for value in table[ids[0]]), strict=True))
    if len(found) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{where} names the file {twice} twice; each is of one image.")
    return found
