"""BOLD5000's betas of the whole brain: one NIfTI a session, read by trials within a mask."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.bold5000_arrays import usable
from backends.datasets.bold5000_files import HEMISPHERES, PEOPLE, RELEASE_2, ROIS, RUN, Found
from backends.datasets.reading import LazyRows, lies_in, stacked, standardised
from explorer.files import open_volume, volume_data
from explorer.types import Label, Parcellation, UserError, VoxelSpace, voxel_hash

if TYPE_CHECKING:
    import pandas as pd

AGAIN = "download it again"


class Sessions:
    """Reads trials of sessions' volumes; the last packed file that was unpacked is kept.

    370 x 191,478 float32 are 283 MB for CSI4, and mean and SD of a session need all its training
    rows anyway.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unpacked: tuple[Path | None, np.ndarray | None] = (None, None)

    def read(self, path: Path, mask: np.ndarray, trials: int, wanted: np.ndarray) -> np.ndarray:
        """Return the wanted of a session's trials, within a mask (X, Y, Z), (len(wanted), V)."""
        with self._lock:
            if path.suffix == ".nii":
                image = _open_volume(path)
                return np.stack([_slice(image, path, i)[mask] for i in wanted])
            known, values = self._unpacked
            if known != path:
                values = np.empty((trials, int(mask.sum())), np.float32)
                self._unpacked = (None, None)  # before the new one is filled: one at a time
                for i, volume in enumerate(_each(_open_volume(path), path)):
                    values[i] = volume[mask]
                self._unpacked = (path, values)
            return values[wanted]


def load_volumes(
    found: Found,
    subject: str,
    kind: str,
    table: pd.DataFrame,
    norm: str,
    source: str,
    sessions: Sessions,
) -> tuple[VoxelSpace, LazyRows, int]:
    """Return a subject's voxels, betas, and how many voxels of the brain were left out.

    ``kind`` is the type of estimate, A to D; ``table`` the trials of the sessions that are here;
    ``norm`` session or none; ``source`` the name that a message gives the data.
    """
    paths = _volume_paths(found, subject, kind)
    affine, alive = _alive_voxels(paths, subject)
    brain = found.brains.get(subject)
    brain = None if brain is None else _mask(brain, subject)
    mask = alive if brain is None else alive & brain
    if not mask.any():
        raise UserError(f"{source}: no voxel has finite betas that vary.")
    parts = []
    for session, path in paths.items():
        train = (table["split"][table["session"] == session] == "train").to_numpy()
        rows = _session(path, mask, len(train), f"{source} ({path.name})", sessions)
        if norm == "session":
            rows = standardised(rows, np.full(len(train), session), train)
        parts.append(rows)
    v = int(mask.sum())
    betas = stacked(parts, source)
    digest = voxel_hash("bold5000", subject, mask, np.asarray(affine, dtype=np.float64))
    rois = _regions(found, subject, mask, digest)
    space = VoxelSpace(
        v, digest, mask=mask, affine=affine, parcellations={r.name: r for r in rois}
    )
    return space, betas, 0 if brain is None else int(brain.sum()) - v


def volume_remarks(found: Found, subject: str, kind: str) -> list[str]:
    """Return what is lacking or special in a subject's volumes, one sentence each."""
    said, paths = [], _volume_paths(found, subject, kind)
    absent = sorted(set(range(1, len(PEOPLE[subject].runs) + 1)) - set(paths))
    if absent:
        said.append(
            f"{subject} lacks session {', '.join(map(str, absent))}, so these trials are left "
            f"out; they come from {RELEASE_2}."
        )
    if subject not in found.brains:
        said.append(
            f"{subject} has no brain mask ({subject}_brainmask.nii.gz of {RELEASE_2}), so every "
            "voxel that changes is taken."
        )
    header = _open_volume(next(iter(paths.values()))).header
    if not (int(header["sform_code"]) or int(header["qform_code"])):
        said.append(
            f"{subject}: the volumes' headers state no position (sform and qform are 0), so their "
            "affine gives voxel sizes only."
        )
    if any(path.suffix == ".gz" for path in paths.values()):
        said.append(
            f"{subject}: packed volumes are unpacked a session at a time, which takes seconds and "
            "some 300 MB; gunzip them and trials are read alone."
        )
    return said


def _alive_voxels(paths: dict[int, Path], subject: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the affine of all sessions and which voxels are alive in each, bool (X, Y, Z)."""
    affine, looks = None, []
    for session, path in paths.items():
        image = _open_volume(path)
        expected = (*PEOPLE[subject].shape, RUN * PEOPLE[subject].runs[session - 1])
        if image.shape != expected:
            owner = [who for who, p in PEOPLE.items() if p.shape == image.shape[:3]]
            whose = f", the volume of {owner[0]}" if owner and owner[0] != subject else ""
            raise UserError(
                f"{path} has shape {image.shape}{whose}; expected {expected} for {subject}'s "
                f"session {session}: another subject's or session's file, or cut short."
            )
        if affine is not None and not np.allclose(affine, image.affine, atol=1e-4):
            raise UserError(
                f"{path} lies elsewhere than {subject}'s other sessions (another affine): two "
                "subjects' files are mixed; download that session again."
            )
        affine = image.affine if affine is None else affine
        looks.append(np.stack([v for _, v in zip(range(2), _each(image, path), strict=False)]))
    return affine, usable(np.stack(looks, axis=1))


def _volume_paths(found: Found, subject: str, wanted: str) -> dict[int, Path]:
    """Return session -> file; unpacked files, whose trials can be read alone, come first."""
    paths: dict[int, Path] = {}
    for (who, kind, session, ending), path in found.volumes.items():
        mine = (who, kind) == (subject, wanted)
        if mine and not 1 <= session <= len(PEOPLE[subject].runs):
            raise UserError(
                f"{path}: {subject} has sessions 1 to {len(PEOPLE[subject].runs)}; take this "
                "file away."
            )
        if mine and (ending == "nii" or session not in paths):
            paths[session] = path
    return dict(sorted(paths.items()))


def _session(
    path: Path, mask: np.ndarray, trials: int, source: str, sessions: Sessions
) -> LazyRows:
    """Return the masked rows of one session's trials."""

    def read(wanted: np.ndarray) -> np.ndarray:
        return sessions.read(path, mask, trials, wanted)

    return LazyRows((trials, int(mask.sum())), read, source, lies_in(path))


def _mask(path: Path, subject: str) -> np.ndarray:
    image = _open_volume(path)
    if image.shape != PEOPLE[subject].shape:
        raise UserError(
            f"{path} has shape {image.shape}, expected {PEOPLE[subject].shape} for {subject}; "
            "take this file away or download it again."
        )
    return _slice(image, path) > 0


def _regions(found: Found, subject: str, mask: np.ndarray, digest: str) -> list[Parcellation]:
    """Return the ROIs of ds001499's ``derivatives/spm`` over the voxels, if they are here."""
    order = [(roi, side) for roi in ROIS for side in HEMISPHERES]
    files = {key[1:]: p for key, p in found.roi_masks.items() if key[0] == subject}
    there = [(roi, side) for roi, side in order if (side, roi) in files]
    if not there:
        return []
    labels = tuple(Label(roi, HEMISPHERES[side], ROIS[roi]) for roi, side in there)
    rows = [_mask(files[side, roi], subject)[mask] for roi, side in there]
    return [Parcellation("ROIs", "masks", labels, np.stack(rows), digest)]


def _open_volume(path: Path) -> Any:
    """Return a NIfTI whose data stay on disk; its file stays open while it is being read."""
    return open_volume(path, "", AGAIN, AGAIN, keep_file_open=True)


def _slice(image: Any, path: Path, index: int | None = None) -> np.ndarray:
    """Return one volume float32 (X, Y, Z), scaled as the header says, or the whole image."""
    part = ... if index is None else (..., index)
    return volume_data(image, path, part, np.float32, AGAIN)


def _each(image: Any, path: Path) -> Iterator[np.ndarray]:
    """Yield the volumes one after another, which unpacks a packed file once."""
    for index in range(image.shape[3]):
        yield _slice(image, path, index)
