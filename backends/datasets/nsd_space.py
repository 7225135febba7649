"""NSD's voxels: which of them are read, how reliable they are, and what lies on them.

Files, below the folder of the release, beside those of `nsd_rois` and `nsd_places`::

    nsddata_betas/ppdata/subj01/SPACE/PREPARATION/{ncsnr.nii.gz,lh.ncsnr.mgh,rh.ncsnr.mgh}
    nsddata/freesurfer/subj01/surf/{lh,rh}.{inflated,pial,sulc}       the subject's own surface
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from backends.datasets.layout_voxels import MOST_NCSNR
from backends.datasets.nsd_files import (
    BUCKET,
    MIXED,
    PEOPLE,
    PREPARATIONS,
    SIDES,
    VERTICES,
    open_volume,
    read_map,
    size,
)
from backends.datasets.nsd_places import (
    lacking_spheres,
    native_vertices,
    nearest_of_fsaverage5,
    project_surface,
    project_volume,
)
from backends.datasets.nsd_rois import MASKS, PARTITIONS, Rois, parcellations
from explorer.brain.native import native_surface
from explorer.types import FSAVERAGE5_VERTICES, UserError, VoxelSpace, voxel_hash


@dataclass(frozen=True, eq=False)
class Voxels:
    """A subject's voxels and what lies on them; ``lost`` were left out of the ROI."""

    space: VoxelSpace
    mask: np.ndarray
    ncsnr: np.ndarray | None
    lost: int
    counts: Mapping[str, tuple[int, int]]  # ROI -> voxels here, voxels of all
    lacking: tuple[str, ...]  # files without which there are no places


class Brains:
    """The voxels of everybody in one space, those of one ROI, with the atlases over them.

    Parameters
    ----------
    root
        The folder of the release.
    name
        What the data set is called.
    space, prep, roi, mapping
        As `backends.datasets.nsd.NSD` takes them, chosen.
    """

    def __init__(
        self, root: Path, name: str, space: str, prep: str, roi: str, mapping: str = "linear"
    ) -> None:
        self.path, self.name, self.mapping = root, name, mapping
        self.space, self.prep, self.roi = space, prep, roi
        self._lock = threading.Lock()
        self._known: dict[str, Voxels] = {}
        self._rois = Rois(root, space)

    def folder(self, subject: str) -> Path:
        """Return where a subject's betas lie."""
        return self.path / "nsddata_betas/ppdata" / subject / self.space / PREPARATIONS[self.prep]

    def voxels(self, subject: str, first: Callable[[], np.ndarray]) -> Voxels:
        """Return a subject's voxels, found once.

        ``first()`` gives one trial over both surfaces; it is asked for on fsaverage without ncsnr,
        to leave out what is not finite there (the int16 of volumes cannot say so).
        """
        with self._lock:
            if subject not in self._known:
                self._known[subject] = self._find(subject, first)
            return self._known[subject]

    def _find(self, subject: str, first: Callable[[], np.ndarray]) -> Voxels:
        surface = self.space == "fsaverage"
        regions = {}
        for name in dict.fromkeys((*MASKS, *PARTITIONS, self.roi)):
            region = None if name == "all" else self._rois.region(subject, name)
            if region is not None:
                regions[name] = region
        if self.roi == "all":
            mask = np.ones(2 * VERTICES, dtype=bool)
        elif self.roi in regions:
            mask = regions[self.roi].mask
        else:
            raise self._rois.lacks(subject, self.roi)
        affine = None
        if not surface:
            affine = np.asarray(open_volume(self._rois.files(subject, self.roi)[0][1]).affine)
        for region in regions.values():
            if region.mask.shape != mask.shape:
                raise UserError(
                    f"{subject}'s {region.name} is {size(region.mask.shape)}, but {self.roi} is "
                    f"{size(mask.shape)} in {self.space}: spaces or {MIXED}."
                )
        v = int(mask.sum())
        self._check_count(subject, v)
        ncsnr = self._ncsnr(subject, mask.shape)
        if ncsnr is not None:
            usable = mask & np.isfinite(ncsnr)
        else:
            usable = mask & np.isfinite(first()) if surface else mask
        if not usable.any():
            raise UserError(
                f"{self.name}/{subject}: {self.roi} has no voxel that was measured; choose "
                "another ROI or copy the files again."
            )
        digest = voxel_hash("nsd", subject, self.space, usable)
        if self.roi == "nsdgeneral":
            del regions["nsdgeneral"]  # every voxel is in it
        if surface:
            projection = project_surface(usable, self._nearest)
            lacking = lacking_spheres(self.path)
        else:
            projection, lacking = project_volume(
                self.path, self.space, subject, usable, lambda: self._nearest, self.mapping
            )
        atlases, counts = parcellations(list(regions.values()), usable, digest)
        if projection is not None:
            from explorer.brain.atlases import desikan_killiany
            from explorer.brain.parcels import lay

            atlas = lay(desikan_killiany(), projection, digest)
            atlases[atlas.name] = atlas
        space = VoxelSpace(
            int(usable.sum()),
            digest,
            projection,
            None if surface else usable,
            affine,
            atlases,
            native=self._native(subject),
        )
        snr = None if ncsnr is None else np.maximum(ncsnr[usable], 0).astype(np.float32)
        return Voxels(space, usable, snr, v - int(usable.sum()), counts, lacking)

    def _native(self, subject: str) -> Callable[[], Any] | None:
        """Return what reads a subject's own surface, at the vertices of NSD's transform."""

        def places(h: str) -> np.ndarray | None:
            native = native_vertices(self.path, subject, h)
            return None if native is None else native[: FSAVERAGE5_VERTICES // 2]

        return native_surface(self.path / "nsddata/freesurfer" / subject / "surf", places)

    @cached_property
    def _nearest(self) -> np.ndarray:
        return nearest_of_fsaverage5(self.path)

    def _check_count(self, subject: str, v: int) -> None:
        """Refuse another subject's nsdgeneral, which its number of voxels gives away."""
        if self.roi != "nsdgeneral" or self.space != "func1pt8mm":
            return
        owner = [who for who, p in PEOPLE.items() if p.voxels == v]
        if owner and owner[0] != subject:
            raise UserError(
                f"{subject}'s nsdgeneral has {v:,} voxels, expected {PEOPLE[subject].voxels:,}; "
                f"{v:,} is subject {int(owner[0][4:])}'s nsdgeneral at 1.8 mm: {MIXED}."
            )

    def _ncsnr(self, subject: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return ncsnr over the whole volume or both surfaces, or None where it is not."""
        paths = self._ncsnr_paths(subject)
        if not all(path.is_file() for path in paths):
            return None
        maps = [read_map(path) for path in paths]
        values = np.concatenate([m.ravel() for m in maps]) if len(maps) > 1 else maps[0]
        if values.shape != shape:
            raise UserError(
                f"{paths[0]} is {size(values.shape)}, but the ROIs of {subject} in {self.space} "
                f"are {size(shape)}: spaces or {MIXED}."
            )
        known = values[np.isfinite(values)]
        if len(known) and np.quantile(known, 0.95) > MOST_NCSNR:
            raise UserError(
                f"{paths[0]} holds values up to {known.max():g}, and ncsnr is the SD of signal "
                "over the SD of noise; this looks like a noise ceiling in percent: take "
                f"{paths[0].name} from {BUCKET}, or leave it out."
            )
        return values

    def _ncsnr_paths(self, subject: str) -> list[Path]:
        folder = self.folder(subject)
        if self.space == "fsaverage":
            return [folder / f"{h}.ncsnr.mgh" for h in SIDES]
        return [folder / "ncsnr.nii.gz"]

    def remarks(self, subject: str, first: Callable[[], np.ndarray]) -> list[str]:
        """Return what a person should know of a subject's voxels, one sentence each."""
        voxels, found = self.voxels(subject, first), []
        v = voxels.space.n_voxels + voxels.lost
        if self.roi == "nsdgeneral" and self.space == "func1pt8mm":
            if v != PEOPLE[subject].voxels:
                found.append(
                    f"{subject}: nsdgeneral has {v:,} voxels, in NSD {PEOPLE[subject].voxels:,}."
                )
            else:
                found.append(f"{subject}: nsdgeneral has {v:,} voxels, as it should.")
        if voxels.lost:
            found.append(
                f"{subject}: {voxels.lost} of {v} voxels of {self.roi} are not numbers and are "
                "left out."
            )
        if voxels.ncsnr is None:
            names = " and ".join(path.name for path in self._ncsnr_paths(subject))
            found.append(
                f"{subject}: {names} is missing, so there is no noise ceiling; it lies with the "
                f"betas in {BUCKET}."
            )
        if voxels.counts:
            told = ", ".join(f"{n} {k} of {total}" for n, (k, total) in voxels.counts.items())
            found.append(f"{subject}: voxels of each ROI in {self.roi}: {told}.")
        return found + self._remarks_on_places(subject, voxels)

    def _remarks_on_places(self, subject: str, voxels: Voxels) -> list[str]:
        names = ", ".join(voxels.lacking)
        projection, v = voxels.space.projection, voxels.space.n_voxels
        if projection is None:
            return [
                f"{subject}: there is no map on the brain, for want of {names}; take what is "
                f"missing from {BUCKET}."
            ]
        placed = int((projection.getnnz(axis=0) > 0).sum())
        how = "" if self.space == "fsaverage" else f" ({self.mapping} mapping)"
        told = [f"{subject}: {placed:,} of {v:,} voxels reach the surface fsaverage5{how}."]
        if voxels.lacking:
            told.append(
                f"{subject}: what lies between the vertices of fsaverage5 has no place, for want "
                f"of {names}; take what is missing from {BUCKET}."
            )
        return told
