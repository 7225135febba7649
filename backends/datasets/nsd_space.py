"""Where NSD's voxels lie and what they are called: ROIs, parcels, ncsnr, places on fsaverage5.

Files, below the folder of the release::

    nsddata/ppdata/subj01/func1pt8mm/roi/{,lh.,rh.}NAME.nii.gz     ROI volumes
    nsddata/freesurfer/{subj01,fsaverage}/label/lh.NAME.mgz        ROIs on surfaces
    nsddata/freesurfer/{subj01,fsaverage}/label/NAME.mgz.ctab      what their numbers mean
    nsddata/freesurfer/fsaverage/surf/lh.sphere
    nsddata/ppdata/subj01/transforms/lh.func1pt8-to-layerB2.mgz    where vertices lie in volumes
    nsddata/ppdata/subj01/transforms/lh.white-to-fsaverage.mgz     native and fsaverage vertices
    nsddata_betas/ppdata/subj01/SPACE/PREPARATION/{ncsnr.nii.gz,lh.ncsnr.mgh,rh.ncsnr.mgh}

ROI values are above 0 inside, 0 or -1 outside (github.com/ozcelikfu/brain-diffuser, and the NSD
data manual, cvnlab.slite.page, which names them). Transforms: github.com/cvnlab/nsdcode,
nsd_mapdata.m, and preprocess_nsd_calculatetransformations.m of github.com/cvnlab/nsddatapaper:
coordinates of volumes count from 1 at the centre of the first voxel, 9999 is nowhere;
``white-to-fsaverage`` holds for each fsaverage vertex the nearest native vertex, from 1; layerB1,
B2 and B3 lie at 25, 50 and 75 % of the depth of the grey matter; func1mm is func1pt0 there.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from explorer.types import (
    FSAVERAGE5_VERTICES,
    Label,
    Parcellation,
    UserError,
    VoxelSpace,
    voxel_hash,
)

if TYPE_CHECKING:
    import scipy.sparse as sp

VERTICES = 163_842  # fsaverage, one hemisphere
NOWHERE = 9999
BUCKET = "s3://natural-scenes-dataset (after the form on naturalscenesdataset.org)"
MIXED = "two subjects' files are mixed; copy them again from their own folders"

SPACES = {"func1pt8mm": "func1pt8", "func1mm": "func1pt0", "fsaverage": ""}  # and in transforms
PREPARATIONS = {
    "b3": "betas_fithrf_GLMdenoise_RR",
    "b2": "betas_fithrf",
    "b1": "betas_assumehrf",
}
SIDES = {"lh": "L", "rh": "R"}
LAYERS = ("layerB1", "layerB2", "layerB3")
# ROIs that may overlap one another are masks together; each of the rest divides the voxels.
MASKS = ("prf-visualrois", "floc-faces", "floc-places", "floc-bodies", "floc-words")
PARTITIONS = ("streams", "prf-eccrois", "Kastner2015", "HCP_MMP1", "corticalsulc", "nsdgeneral")
TABLES = {
    "nsdgeneral": ("nsdgeneral",),
    "prf-visualrois": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    "prf-eccrois": ("ecc0pt5", "ecc1", "ecc2", "ecc4", "ecc4+"),
    "streams": (
        *("early", "midventral", "midlateral", "midparietal"),
        *("ventral", "lateral", "parietal"),
    ),
    "floc-faces": ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    "floc-bodies": ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "floc-places": ("OPA", "PPA", "RSC"),
    "floc-words": ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
}

DAMAGED = (OSError, EOFError, ValueError, TypeError, KeyError, IndexError, zlib.error)


class Person(NamedTuple):
    """What is known of a participant: sessions, nsdgeneral's voxels and the volume at 1.8 mm."""

    sessions: int
    voxels: int
    shape: tuple[int, int, int]


PEOPLE = {
    "subj01": Person(40, 15724, (81, 104, 83)),
    "subj02": Person(40, 14278, (82, 106, 84)),
    "subj03": Person(32, 15226, (81, 106, 82)),
    "subj04": Person(30, 13153, (85, 99, 80)),
    "subj05": Person(40, 13039, (79, 97, 78)),
    "subj06": Person(32, 17907, (85, 113, 83)),
    "subj07": Person(40, 12682, (78, 95, 81)),
    "subj08": Person(30, 14386, (80, 103, 78)),
}  # NSD data manual; voxel counts: MindEyeV2 src/models.py


@dataclass(frozen=True, eq=False)
class Region:
    """An atlas as its files have it.

    ``parts``: hemisphere ("L", "R" or "" for one file of both) and int values over the whole
    volume or both surfaces, above 0 where labelled; ``names``: value -> name and colour.
    """

    name: str
    parts: tuple[tuple[str, np.ndarray], ...]
    names: Mapping[int, tuple[str, tuple[int, int, int]]]

    @property
    def mask(self) -> np.ndarray:
        """Bool over the whole volume or both surfaces: where anything is labelled."""
        return np.logical_or.reduce([values > 0 for _, values in self.parts])

    def label(self, value: int, side: str) -> Label:
        """Return the label of a value; one that no table names is called after the file."""
        name, colour = self.names.get(value, (f"{self.name} {value}", (128, 128, 128)))
        return Label(name, side, colour)


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
    space, prep, roi
        As `NSD` takes them, chosen.
    """

    def __init__(self, root: Path, name: str, space: str, prep: str, roi: str) -> None:
        self.path, self.name = root, name
        self.space, self.prep, self.roi = space, prep, roi
        self._lock = threading.Lock()
        self._known: dict[str, Voxels] = {}

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
            region = None if name == "all" else self._region(subject, name)
            if region is not None:
                regions[name] = region
        if self.roi == "all":
            mask = np.ones(2 * VERTICES, dtype=bool)
        elif self.roi in regions:
            mask = regions[self.roi].mask
        else:
            raise UserError(self._no_roi(subject))
        affine = None
        if not surface:
            affine = np.asarray(open_volume(self._roi_files(subject, self.roi)[0][1]).affine)
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
            projection, lacking = self._project_surface(usable)
        else:
            projection, lacking = self._project_volume(subject, usable)
        atlases, counts = _parcellations(list(regions.values()), usable, digest)
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
        )
        snr = None if ncsnr is None else np.maximum(ncsnr[usable], 0).astype(np.float32)
        return Voxels(space, usable, snr, v - int(usable.sum()), counts, lacking)

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

    def _roi_files(self, subject: str, name: str) -> list[tuple[str, Path]]:
        """Return hemisphere and file of an ROI: one file a hemisphere where there are both."""
        if self.space == "fsaverage":
            folders, end = [self._labels("fsaverage"), self._labels(subject)], "mgz"
        else:
            folders, end = [self._roi_folder(subject)], "nii.gz"
        for folder in folders:
            split = [(side, folder / f"{h}.{name}.{end}") for h, side in SIDES.items()]
            if all(path.is_file() for _, path in split):
                return split
            if (folder / f"{name}.{end}").is_file() and end == "nii.gz":
                return [("", folder / f"{name}.{end}")]
        return []

    def _labels(self, subject: str) -> Path:
        return self.path / "nsddata/freesurfer" / subject / "label"

    def _roi_folder(self, subject: str) -> Path:
        return self.path / "nsddata/ppdata" / subject / self.space / "roi"

    def _no_roi(self, subject: str) -> str:
        there = [n for n in (*MASKS, *PARTITIONS) if self._roi_files(subject, n)]
        if self.space == "fsaverage":
            there.append("all")
            what = f"{self._labels('fsaverage')} has no lh.{self.roi}.mgz and rh.{self.roi}.mgz"
        else:
            what = f"{self._roi_folder(subject)} has no {self.roi}.nii.gz"
        others = f", or choose ?roi= one of {', '.join(there)}" if there else ""
        return f"{what}, which says which voxels to read; take it from {BUCKET}{others}."

    def _region(self, subject: str, name: str) -> Region | None:
        """Return an atlas of the subject, or None where its files are not."""
        files = self._roi_files(subject, name)
        parts = []
        for i, (side, path) in enumerate(files):
            values = np.nan_to_num(read_map(path), nan=-1)
            if self.space == "fsaverage":
                if path.parent == self._labels(subject):
                    native = self._native(subject, tuple(SIDES)[i])
                    if native is None:
                        return None
                    values = _at(values.ravel(), native, path)
                values = _both_surfaces(values, i, path)
            parts.append((side, values.astype(np.int32)))
        if not parts:
            return None
        if len({values.shape for _, values in parts}) > 1:
            raise UserError(f"{files[0][1]} and {files[1][1]} differ in size: {MIXED}.")
        return Region(name, tuple(parts), self._names(subject, name))

    def _names(self, subject: str, name: str) -> dict[int, tuple[str, tuple[int, int, int]]]:
        """Return value -> name and colour, from the table beside the labels or the manual's."""
        grey = (128, 128, 128)
        for folder in (self._labels(subject), self._labels("fsaverage")):
            path = folder / f"{name}.mgz.ctab"
            if path.is_file():
                return _read_ctab(path)
        return {i: (text, grey) for i, text in enumerate(TABLES.get(name, ()), start=1)}

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
        return values

    def _ncsnr_paths(self, subject: str) -> list[Path]:
        folder = self.folder(subject)
        if self.space == "fsaverage":
            return [folder / f"{h}.ncsnr.mgh" for h in SIDES]
        return [folder / "ncsnr.nii.gz"]

    # -------------------------------------------------------------------------------------- places

    @cached_property
    def _nearest(self) -> np.ndarray:
        """For each fsaverage vertex (2 x 163842) the nearest of fsaverage5, -1 where unknown.

        fsaverage5 are the first 10,242 vertices of each hemisphere; what lies between them is
        known from NSD's copy of fsaverage's sphere.
        """
        import nibabel as nib
        from scipy.spatial import cKDTree

        half = FSAVERAGE5_VERTICES // 2
        nearest = []
        for i, path in enumerate(self._spheres()):
            own = np.full(VERTICES, -1)
            own[:half] = np.arange(half)
            if path.is_file():
                try:
                    points = nib.freesurfer.read_geometry(path)[0]
                except DAMAGED as error:
                    raise cut_short(path, error) from error
                if len(points) != VERTICES:
                    raise UserError(
                        f"{path} has {len(points)} vertices, expected fsaverage's {VERTICES}; "
                        "copy it again."
                    )
                own = cKDTree(points[:half]).query(points)[1]
            nearest.append(np.where(own >= 0, own + i * half, -1))
        return np.concatenate(nearest)

    def _spheres(self) -> list[Path]:
        return [self.path / f"nsddata/freesurfer/fsaverage/surf/{h}.sphere" for h in SIDES]

    def _lacking_spheres(self) -> tuple[str, ...]:
        return tuple(str(p.relative_to(self.path)) for p in self._spheres() if not p.is_file())

    def _project_surface(self, mask: np.ndarray) -> tuple[sp.csr_matrix, tuple[str, ...]]:
        vertices = np.flatnonzero(mask)
        v, ones = len(vertices), np.ones(len(vertices))
        projection = _projection(self._nearest[vertices], np.arange(v), ones, v)
        return projection, self._lacking_spheres()

    def _project_volume(
        self, subject: str, mask: np.ndarray
    ) -> tuple[sp.csr_matrix | None, tuple[str, ...]]:
        """Return the mean over depths of what lies at each vertex, or None and what is missing.

        Between voxels by trilinear weights; voxels that are not read have no weight, and what is
        left is made to sum to 1.
        """
        folder = self.path / "nsddata/ppdata" / subject / "transforms"
        number = np.full(mask.shape, -1)
        number[mask] = np.arange(mask.sum())
        pieces, lacking = [], []
        for i, h in enumerate(SIDES):
            native = self._native(subject, h)
            layers = [folder / f"{h}.{SPACES[self.space]}-to-{layer}.mgz" for layer in LAYERS]
            there = [path for path in layers if path.is_file()]
            if native is None:
                lacking.append(f"{h}.white-to-fsaverage.mgz")
            if not there:
                lacking.append(layers[1].name)  # the middle one is enough
            if native is None or not there:
                continue
            nearest = self._nearest[i * VERTICES : (i + 1) * VERTICES]
            known = nearest >= 0
            for path in there:
                at = read_map(path).reshape(-1, 3, order="F")
                at = np.nan_to_num(_at(at, native[known], path), nan=NOWHERE) - 1
                vertex, voxel, weight = _trilinear(at, number)
                pieces.append((nearest[known][vertex], voxel, weight))
        if lacking:
            place = folder.relative_to(self.path)
            return None, tuple(f"{place}/{name}" for name in lacking)
        rows, columns, weights = (np.concatenate(part) for part in zip(*pieces, strict=True))
        return _projection(rows, columns, weights, int(mask.sum())), self._lacking_spheres()

    def _native(self, subject: str, h: str) -> np.ndarray | None:
        """Return for each fsaverage vertex the native one, from 0, or None where it is unknown."""
        path = self.path / "nsddata/ppdata" / subject / f"transforms/{h}.white-to-fsaverage.mgz"
        if not path.is_file():
            return None
        native = np.nan_to_num(read_map(path)).ravel().astype(np.int64) - 1
        if native.shape != (VERTICES,) or native.min() < 0:
            raise UserError(
                f"{path} needs one native vertex, counted from 1, for each of {VERTICES}, found "
                f"{len(native)} down to {native.min() + 1}; copy it again."
            )
        return native

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
        told = [f"{subject}: {placed:,} of {v:,} voxels reach the surface fsaverage5."]
        if voxels.lacking:
            told.append(
                f"{subject}: what lies between the vertices of fsaverage5 has no place, for want "
                f"of {names}; take what is missing from {BUCKET}."
            )
        return told


# ------------------------------------------------------------------------------------------- files


def read_map(path: Path) -> np.ndarray:
    """Return float32 values of a small volume (X, Y, Z) or surface (vertices, 1, 1 ...)."""
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError

    try:
        if path.suffix == ".mgh":  # nibabel would leave the file open
            with open(path, "rb") as file:
                return np.asarray(nib.MGHImage.from_stream(file).dataobj, dtype=np.float32)
        return np.asarray(nib.load(path).dataobj, dtype=np.float32)
    except (*DAMAGED, ImageFileError) as error:
        raise cut_short(path, error) from error


def _read_ctab(path: Path) -> dict[int, tuple[str, tuple[int, int, int]]]:
    """Return value -> name and colour of lines "int name" or "int name R G B A", without 0."""
    names = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            coloured = len(words) >= 6 and all(word.isdigit() for word in words[-4:])
            text = " ".join(words[1:-4] if coloured else words[1:])
            colour = tuple(int(c) for c in words[-4:-1]) if coloured else (128, 128, 128)
            if int(words[0]) > 0:
                names[int(words[0])] = (text, colour)
    except ValueError as error:
        raise UserError(
            f"{path} needs lines of a number and a name ({error}); copy it again."
        ) from error
    return names


def open_volume(path: Path) -> Any:
    """Return a volume of which only the header is read; its file stays open once data are."""
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError

    try:
        return nib.load(path, keep_file_open=True)
    except (*DAMAGED, ImageFileError) as error:
        raise cut_short(path, error) from error


def cut_short(path: Path, error: object) -> UserError:
    """Return the sentence on a file that cannot be read."""
    return UserError(f"{path} is damaged or cut short ({error}); copy it again from {BUCKET}.")


# ------------------------------------------------------------------------------------------- parts


def _parcellations(
    regions: list[Region], mask: np.ndarray, digest: str
) -> tuple[dict[str, Parcellation], dict[str, tuple[int, int]]]:
    """Return atlases over the voxels of a mask, and how many voxels each ROI has in it and at all.

    Functional ROIs are masks and keep those that are empty; parcels of the other atlases that
    have no voxel here are left out.
    """
    atlases: dict[str, Parcellation] = {}
    counts: dict[str, tuple[int, int]] = {}
    members: dict[Label, np.ndarray] = {}

    def count(name: str, inside: int, everywhere: int) -> None:
        before = counts.get(name, (0, 0))
        counts[name] = (before[0] + inside, before[1] + everywhere)  # both hemispheres

    for region in regions:
        if region.name not in MASKS:
            continue
        for value in sorted(set(region.names) | _values(region)):
            for side, values in region.parts:
                label, here = region.label(value, side), values == value
                if label.key in {other.key for other in members}:
                    label = Label(f"{region.name} {label.name}", side, label.colour)
                members[label] = here[mask]
                count(label.name, int(here[mask].sum()), int(here.sum()))
    if members:
        stack = np.stack(list(members.values()))
        atlases["ROIs"] = Parcellation("ROIs", "masks", tuple(members), stack, digest)
    for region in regions:
        if region.name in MASKS:
            continue
        places: dict[Label, int] = {}
        membership = np.full(int(mask.sum()), -1, np.int32)
        for side, values in region.parts:
            inside = values[mask]
            for value in np.unique(inside[inside > 0]).tolist():
                place = places.setdefault(region.label(value, side), len(places))
                membership[(inside == value) & (membership < 0)] = place
            if region.name == "streams":
                for value in sorted(_values(region)):
                    name = f"streams {region.label(value, side).name}"
                    count(name, int((inside == value).sum()), int((values == value).sum()))
        if places:
            atlases[region.name] = Parcellation(
                region.name, "partition", tuple(places), membership, digest
            )
    return atlases, counts


def _values(region: Region) -> set[int]:
    return {int(v) for _, values in region.parts for v in np.unique(values[values > 0])}


def _both_surfaces(values: np.ndarray, hemisphere: int, path: Path) -> np.ndarray:
    """Return one hemisphere's labels (163842,) over both, -1 on the other."""
    if values.size != VERTICES:
        raise UserError(
            f"{path} labels {values.size} vertices, expected fsaverage's {VERTICES}; copy it "
            "again."
        )
    both = np.full(2 * VERTICES, -1, np.float32)
    both[hemisphere * VERTICES : (hemisphere + 1) * VERTICES] = values.ravel()
    return both


def _at(values: np.ndarray, native: np.ndarray, path: Path) -> np.ndarray:
    """Return values of native vertices; a surface that is too small is another subject's."""
    if native.max() >= len(values):
        raise UserError(
            f"{path} has {len(values)} native vertices, but white-to-fsaverage.mgz asks for "
            f"vertex {native.max() + 1}: {MIXED}."
        )
    return values[native]


def _trilinear(at: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return point, voxel and weight of the voxels around points.

    Parameters
    ----------
    at
        (n, 3), coordinates in voxels from 0; those outside the volume touch nothing.
    number
        int (X, Y, Z), the number of each voxel, -1 for none.
    """
    base = np.floor(at).astype(np.int64)
    part = at - base
    points, voxels, weights = [], [], []
    for corner in product((0, 1), repeat=3):
        place = base + corner
        weight = np.where(corner, part, 1 - part).prod(axis=1)
        inside = np.flatnonzero(((place >= 0) & (place < number.shape)).all(axis=1) & (weight > 0))
        voxel = number[tuple(place[inside].T)]
        points.append(inside[voxel >= 0])
        voxels.append(voxel[voxel >= 0])
        weights.append(weight[points[-1]])
    return np.concatenate(points), np.concatenate(voxels), np.concatenate(weights)


def _projection(
    rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, v: int
) -> sp.csr_matrix:
    """Return the sparse (20484, V) with rows that sum to 1; a row of -1 is left out."""
    import scipy.sparse as sp

    known = rows >= 0
    shape = (FSAVERAGE5_VERTICES, v)
    matrix = sp.csr_matrix((weights[known], (rows[known], columns[known])), shape=shape)
    total = np.asarray(matrix.sum(axis=1)).ravel()
    matrix.data /= np.repeat(total, np.diff(matrix.indptr))
    return matrix.astype(np.float32)


def size(shape: tuple[int, ...]) -> str:
    """Return 81 x 104 x 83."""
    return " x ".join(map(str, shape))


def whose_shape(shape: tuple[int, ...], subject: str) -> str:
    """Return whose volume this is in parentheses, or "" for nobody's or the subject's own."""
    owner = [who for who, p in PEOPLE.items() if p.shape == tuple(shape)]
    return f" (the size of {owner[0]} at 1.8 mm)" if owner and owner[0] != subject else ""
