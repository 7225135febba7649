"""NSD's betas: which files have them, and sessions read from them.

The main experiment has up to 40 sessions of 750 trials (``betas_session01.hdf5``), NSD-synthetic
and NSD-imagery one each (``nsdsyntheticbetas_fithrf/betas_nsdsynthetic.nii.gz``).

HDF5 holds the 750 trials of a voxel together, ``.nii.gz`` can only be unpacked from its start, so
both are read by whole sessions; unpacked ``.nii`` and ``.mgh`` are read trial by trial.
"""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.nsd_design import TRIALS
from backends.datasets.nsd_files import (
    AGAIN,
    BUCKET,
    MIXED,
    PEOPLE,
    PREPARATIONS,
    SPACES,
    VERTICES,
    open_volume,
    size,
    whose_shape,
)
from backends.datasets.reading import LazyRows, hdf5_array, open_hdf5
from explorer.files import check_size, damaged, guard, volume_data
from explorer.types import UserError

if TYPE_CHECKING:
    import h5py
    import pandas as pd

STORED = 300  # volumes hold int16 = 300 x percent signal change
BLOCK_BYTES = 256 * 2**20  # sessions in memory at once, about ten at 1.8 mm: our choice
TRIALS_AT_ONCE = 25  # unpacked together, about 35 MB at 1.8 mm

# Experiments beside NSD's own, by the prefix of their folders of betas: what each is
# (NSD data manual; Gifford et al. 2026 for synthetic, arXiv 2506.06898 for imagery).
RELATIVES = {
    "nsdimagery": (
        "NSD-imagery (720 betas a subject: vision, attention and imagery of 18 stimuli, z-scored "
        "within each of 12 conditions)"
    ),
    "nsdsynthetic": (
        "NSD-synthetic (744 betas a subject: 284 synthetic images with unequal repeats)"
    ),
}
PARTS = {"main": "", "synthetic": "nsdsynthetic", "imagery": "nsdimagery"}  # -> experiment
_VOLUME = r"betas_{}\.(?:hdf5|nii|nii\.gz)"
_SURFACE = r"(lh|rh)\.betas_{}\.mgh"


class Sessions:
    """Betas of one space, read by sessions or trials; the sessions read last stay in memory.

    Parameters
    ----------
    space
        As `backends.datasets.nsd.NSD` takes it, chosen.
    trials
        Of a session.
    """

    def __init__(self, space: str, trials: int = TRIALS) -> None:
        self.space, self.trials = space, trials
        self._lock = threading.Lock()
        self._blocks: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._tests: dict[Path, np.ndarray] = {}

    def rows(
        self,
        subject: str,
        sessions: Mapping[int, tuple[Path, ...]],
        mask: np.ndarray,
        table: pd.DataFrame,
        source: str,
    ) -> LazyRows:
        """Return percent signal change (n, V), its files checked by their headers.

        Parameters
        ----------
        subject, sessions
            Whose, and session -> its file, or its two.
        mask
            Bool over the whole volume or both surfaces: the voxels that are read.
        table
            The trials, all of every session.
        source
            The name that a message gives the betas.
        """
        order, n = list(sessions), self.trials
        test = (table["split"] == "test").to_numpy().reshape(len(order), n)
        readers = [
            self._reader(subject, sessions[session], mask, np.flatnonzero(test[i]))
            for i, session in enumerate(order)
        ]
        v = int(mask.sum())

        def read(rows: np.ndarray) -> np.ndarray:
            values = np.empty((len(rows), v), np.float32)
            for i in np.unique(rows // n):
                here = rows // n == i
                values[here] = readers[i](rows[here] % n)
            return values

        return LazyRows((len(order) * n, v), read, source)

    def _reader(
        self,
        subject: str,
        paths: tuple[Path, ...],
        mask: np.ndarray,
        test: np.ndarray,
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Return ``read(trials of the session, from 0)`` -> (n, V) in percent signal change."""
        if self.space == "fsaverage":
            surfaces = [open_surface(path, self.trials) for path in paths]
            halves = np.split(mask, [VERTICES])
            kept = [np.flatnonzero(half) for half in halves]

            def read_surfaces(trials: np.ndarray) -> np.ndarray:
                pieces = [
                    np.stack([surface[:, t][keep] for t in trials])
                    for surface, keep in zip(surfaces, kept, strict=True)
                ]
                return np.concatenate(pieces, axis=1)

            return read_surfaces
        (path,) = paths
        shape = _volume_shape(path)
        self._check_shape(subject, path, shape, mask.shape)
        if path.suffix == ".hdf5":
            _check_written(path, shape)
        if path.suffix == ".nii":
            with guard(path, do=AGAIN):
                stored = np.asanyarray(open_volume(path).dataobj)  # a memory map
            return lambda trials: np.stack([stored[..., t][mask] for t in trials]) / STORED
        block = _hdf5_block if path.suffix == ".hdf5" else _unpacked_block
        place = np.full(self.trials, -1)
        place[test] = np.arange(len(test))

        def read_block(trials: np.ndarray) -> np.ndarray:
            with self._lock:
                if path in self._tests and (place[trials] >= 0).all():
                    values = self._tests[path][place[trials]]
                else:
                    whole = self._block(path, lambda: block(path, mask))
                    self._tests.setdefault(path, whole[test])
                    values = whole[trials]
            return values.astype(np.float32) / STORED

        return read_block

    def _block(self, path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return a session int16 (trials, V), from memory if it was among the last ones read."""
        if path in self._blocks:
            self._blocks.move_to_end(path)
            return self._blocks[path]
        block = make()
        self._blocks[path] = block
        while len(self._blocks) > 1 and sum(b.nbytes for b in self._blocks.values()) > BLOCK_BYTES:
            self._blocks.popitem(last=False)
        return block

    def _check_shape(
        self, subject: str, path: Path, shape: tuple[int, ...], expected: tuple[int, ...]
    ) -> None:
        """Refuse betas of another volume than the ROIs, or of another subject."""
        if shape[-1:] != (self.trials,) or len(shape) != 4:
            raise UserError(
                f"{path} has shape {shape} (X, Y, Z, trials), expected {self.trials} trials; "
                "copy it again."
            )
        if shape[:3] != expected:
            raise UserError(
                f"{path} is {size(shape[:3])}{whose_shape(shape[:3], subject)}, but the ROIs of "
                f"{subject} in {self.space} are {size(expected)}"
                f"{whose_shape(expected, subject)}: spaces or {MIXED}."
            )
        if self.space == "func1pt8mm" and whose_shape(expected, subject):
            raise UserError(
                f"{path} is {size(expected)}{whose_shape(expected, subject)}, not of {subject}: "
                f"{MIXED}."
            )


def find_betas(
    root: Path, experiment: str = ""
) -> dict[tuple[str, str], dict[str, dict[int, dict[str, Path]]]]:
    """Return (space, preparation) -> subject -> session -> "" or hemisphere -> file.

    ``experiment``: one of `RELATIVES`, whose only session is 1. HDF5 is preferred to NIfTI, and
    unpacked NIfTI to packed.
    """
    stem = f"(?P<one>{experiment})" if experiment else r"session(?P<session>\d{2})"
    found: dict[tuple[str, str], dict[str, dict[int, dict[str, Path]]]] = {}
    for (space, (prep, folder)), who in product(product(SPACES, PREPARATIONS.items()), PEOPLE):
        place = root / "nsddata_betas/ppdata" / who / space / f"{experiment}{folder}"
        sides = space == "fsaverage"
        named = re.compile((_SURFACE if sides else _VOLUME).format(stem))
        sessions: dict[int, dict[str, Path]] = {}
        names = sorted(p.name for p in place.iterdir()) if place.is_dir() else []
        for name in names:  # betas_session01.hdf5, .nii, .nii.gz: the first is the best
            if m := named.fullmatch(name):
                session = 1 if experiment else int(m["session"])
                side = m[1] if sides else ""
                sessions.setdefault(session, {}).setdefault(side, place / name)
        outside = [s for s in sessions if not 1 <= s <= PEOPLE[who].sessions]
        if outside:
            raise UserError(
                f"{place} has a session {outside[0]}, but {who} came for sessions 1 to "
                f"{PEOPLE[who].sessions}: {MIXED}."
            )
        if sessions:
            found.setdefault((space, prep), {})[who] = dict(sorted(sessions.items()))
    return found


def other_parts(root: Path, part: str) -> dict[str, str]:
    """Return which other parts lie here and of whom, a phrase each -> how it is opened."""
    names = {experiment: name for name, experiment in PARTS.items()}
    return {
        f"{RELATIVES[e]} of {', '.join(who)}": f"?part={names[e]}"
        for e, who in _find_relatives(root).items()
        if names[e] != part
    }


def choose(
    root: Path, betas: Collection[tuple[str, str]], space: str, prep: str, part: str
) -> tuple[str, str]:
    """Return the first space and preparation with betas of a part among those asked for."""
    for s, p in product(SPACES, PREPARATIONS):
        if space in ("auto", s) and prep in ("auto", p) and (s, p) in betas:
            return s, p
    others = other_parts(root, part)
    if others and not betas:
        kind = "NSD's own sessions" if part == "main" else f"the part {part}"
        raise UserError(
            f"{root} holds {' and '.join(others)}, and none of {kind}; open what is here with "
            f"{' or '.join(others.values())}, or take the other betas from {BUCKET}."
        )
    there = ", ".join(f"space={s}&prep={p}" for s, p in betas)
    raise UserError(
        f"{root / 'nsddata_betas' / 'ppdata'} holds no betas of space {space} and preparation "
        f"{prep}{f' of the part {part}' if part != 'main' else ''}; "
        + (
            f"choose among {there}."
            if there
            else "those of func1pt8mm, func1mm and fsaverage can be read (nativesurface and "
            f"MNI cannot) and come from {BUCKET}."
        )
    )


def _find_relatives(root: Path) -> dict[str, list[str]]:
    """Return which of `RELATIVES` have folders of betas here, and whose."""
    found: dict[str, set[str]] = {}
    for folder in root.glob("nsddata_betas/ppdata/subj*/*/nsd*betas_*"):
        name = next((name for name in RELATIVES if folder.name.startswith(f"{name}betas_")), "")
        if name and folder.is_dir():
            found.setdefault(name, set()).add(folder.parts[-3])
    return {name: sorted(who) for name, who in sorted(found.items())}


def _volume_shape(path: Path) -> tuple[int, ...]:
    """Return (X, Y, Z, trials) of a session's betas, by its header; refuse other numbers."""
    if path.suffix == ".hdf5":
        with open_hdf5(path) as file:
            with guard(path, at="betas"):
                lacking = "betas" not in file
            if lacking:
                raise UserError(f"{path} lacks the array betas; {AGAIN}.")
            betas = hdf5_array(file, "betas", whole=False)
            shape, dtype = betas.shape[::-1], betas.dtype  # MATLAB's: h5py sees (trials, Z, Y, X)
    else:
        proxy = open_volume(path).dataobj
        shape, dtype = proxy.shape, proxy.dtype
        if (proxy.slope, proxy.inter) != (1, 0):
            raise UserError(
                f"{path} is scaled by its header ({proxy.slope:g}), NSD's are not; {AGAIN}."
            )
    if dtype != np.int16:
        raise UserError(
            f"{path} holds {dtype}, expected int16 (300 x percent signal change); {AGAIN}."
        )
    return tuple(shape)


def _check_written(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse HDF5 betas int16 that declare more than there is; the rest would be read as zeros."""
    with open_hdf5(path) as file, guard(path, do=AGAIN):
        packed = file["betas"].id.get_create_plist().get_nfilters() > 0
    if not packed:  # asking which of 700,000 chunks are there would take seconds a session
        check_size(path, shape, np.dtype(np.int16).itemsize, do=AGAIN)


def _check_chunks(path: Path, betas: h5py.Dataset) -> None:
    """Refuse betas of which chunks were never written, which would be read as zeros.

    Counting 700,000 chunks takes a fifth of a second: little beside reading a session, much beside
    opening forty.
    """
    if betas.chunks:
        every = math.prod(-(-n // c) for n, c in zip(betas.shape, betas.chunks, strict=True))
        if (there := betas.id.get_num_chunks()) < every:
            why = f"{every - there:,} of {every:,} chunks were never written"
            raise damaged(path, why, do=AGAIN, at="betas")


def open_surface(path: Path, trials: int = TRIALS) -> np.ndarray:
    """Return float32 betas (163842, trials) in percent signal change as a memory map."""
    proxy = open_volume(path).dataobj
    shape, dtype = tuple(map(int, proxy.shape)), proxy.dtype
    if shape != (VERTICES, 1, 1, trials) or dtype != np.dtype(">f4"):
        raise UserError(
            f"{path} holds {dtype.name} {shape}, expected float32 ({VERTICES}, 1, 1, {trials}); "
            f"{AGAIN}."
        )
    with guard(path, do=AGAIN):
        return np.memmap(path, dtype, "r", proxy.offset, (VERTICES, trials), "F")


def _hdf5_block(path: Path, mask: np.ndarray) -> np.ndarray:
    """Return a session int16 (trials, V) from HDF5, voxels in C order of the mask (X, Y, Z).

    Chunks are single voxels with all their trials, so planes are read within the mask's bounds.
    """
    x, y, z = np.nonzero(mask)
    with open_hdf5(path) as file, guard(path, do=AGAIN):
        _check_chunks(path, file["betas"])
        block = np.empty((file["betas"].shape[0], len(x)), np.int16)
        for plane in np.unique(z):
            here = z == plane
            rows, columns = y[here], x[here]
            top, left = rows.min(), columns.min()
            part = file["betas"][:, plane, top : rows.max() + 1, left : columns.max() + 1]
            block[:, here] = part[:, rows - top, columns - left]
    return block


def _unpacked_block(path: Path, mask: np.ndarray) -> np.ndarray:
    """Return a session int16 (trials, V) from ``.nii.gz``, unpacked once from start to end."""
    volume = open_volume(path)
    block = np.empty((volume.shape[-1], int(mask.sum())), np.int16)
    for begin in range(0, len(block), TRIALS_AT_ONCE):
        trials = (..., slice(begin, begin + TRIALS_AT_ONCE))  # of (X, Y, Z, trials)
        part = volume_data(volume, path, trials, do=AGAIN)
        block[begin : begin + TRIALS_AT_ONCE] = part[mask].T
    return block
