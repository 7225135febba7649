"""LAION-fMRI's betas a session at a time: packed volumes are unpacked once, within the mask.

A session is some 12 GB unpacked (143 x 143 x 143 x 1,050) and its voxels under a mask under 1 GB,
so a packed one goes through memory a volume at a time into a file of rows that stays.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from backends.datasets.laion_files import COPY, Session
from backends.datasets.reading import LazyRows, lies_in
from explorer.files import open_volume, volume_data
from explorer.types import UserError
from explorer.writing import write_whole

DO = "make room, or name another folder with ?cache="


def session_rows(
    session: Session,
    mask: np.ndarray,
    affine: np.ndarray,
    cache: Path,
    say: Callable[[str], None] | None = None,
) -> LazyRows:
    """Return a session's betas (volumes, V) within a mask (X, Y, Z), read as they are asked for.

    Raises
    ------
    UserError
        Where the volumes lie on another grid than the mask.
    """
    image = open_volume(session.betas, "", COPY, COPY, keep_file_open=True)
    _check_grid(session, image, mask.shape)
    if not np.allclose(image.affine, affine, atol=1e-3):
        raise UserError(
            f"{session.betas} lies elsewhere than the mask (another affine); the files are of two "
            "releases or subjects."
        )
    shape, lock = (int(image.shape[3]), int(mask.sum())), threading.Lock()
    known: dict[str, Any] = {}

    def unpacked() -> np.ndarray:
        with lock:
            if "rows" not in known:
                known["rows"] = _kept(session, image, mask, shape, cache, say)
            return known["rows"]

    def read(wanted: np.ndarray) -> np.ndarray:
        if session.betas.suffix == ".gz":
            return np.asarray(unpacked()[wanted])
        with lock:
            parts = [_volume(image, session.betas, int(row))[mask] for row in wanted]
        return np.stack(parts)

    return LazyRows(shape, read, str(session.betas), lies_in(session.betas, note="a volume"))


def covered(session: Session, shape: tuple[int, ...]) -> np.ndarray:
    """Return where a session has values, bool (X, Y, Z), by its first volume."""
    image = open_volume(session.betas, "", COPY, COPY)
    _check_grid(session, image, shape)
    return np.isfinite(_volume(image, session.betas, 0))


def _check_grid(session: Session, image: Any, shape: tuple[int, ...]) -> None:
    if len(image.shape) != 4 or tuple(image.shape[:3]) != tuple(shape):
        raise UserError(
            f"{session.betas} has shape {tuple(image.shape)}, the mask {tuple(shape)}; betas and "
            "masks of different resolutions or releases are mixed."
        )


def _volume(image: Any, path: Path, index: int) -> np.ndarray:
    return volume_data(image, path, (..., index), np.float32, COPY)


def _kept(
    session: Session,
    image: Any,
    mask: np.ndarray,
    shape: tuple[int, int],
    cache: Path,
    say: Callable[[str], None] | None,
) -> np.ndarray:
    """Return the rows of a packed session, mapped from a file that is made where it is not yet."""
    about = session.betas.stat()
    digest = hashlib.sha256(
        f"{session.betas.resolve()}{about.st_size}{about.st_mtime_ns}".encode()
    )
    digest.update(np.packbits(mask).tobytes())
    file = cache / f"{session.betas.name.partition('_task')[0]}-{digest.hexdigest()[:16]}.npy"
    if not _whole(file, shape):

        def unpack(part: Path) -> None:
            # written and not mapped: mapped pages would stay resident, all of the session
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            with part.open("wb") as rows:
                np.lib.format.write_array_header_1_0(rows, header)
                for index in range(shape[0]):
                    row = _volume(image, session.betas, index)[mask]
                    rows.write(row.astype("<f4", copy=False).tobytes())
                    if say and index % 100 == 0:
                        say(f"{session.betas.name}: {index} of {shape[0]} volumes are unpacked")

        write_whole(file, unpack, DO)
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _whole(file: Path, shape: tuple[int, int]) -> bool:
    if not file.is_file():
        return False
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False).shape == shape
    except (OSError, ValueError):
        return False
