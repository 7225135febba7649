"""NSD's regions: which files have them, what their numbers mean, and parcels of the voxels.

Files, below the folder of the release::

    nsddata/ppdata/subj01/func1pt8mm/roi/{,lh.,rh.}NAME.nii.gz     ROI volumes
    nsddata/freesurfer/{subj01,fsaverage}/label/lh.NAME.mgz        ROIs on surfaces
    nsddata/freesurfer/{subj01,fsaverage}/label/NAME.mgz.ctab      what their numbers mean

ROI values are above 0 inside, 0 or -1 outside (github.com/ozcelikfu/brain-diffuser, and the NSD
data manual, cvnlab.slite.page, which names them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.datasets.nsd_files import AGAIN, BUCKET, MIXED, SIDES, VERTICES, read_map
from backends.datasets.nsd_places import at_vertices, native_vertices
from explorer.files import read_text
from explorer.types import Label, Parcellation, UserError

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


class Rois:
    """The regions of everybody in one space.

    Parameters
    ----------
    root
        The folder of the release.
    space
        As `backends.datasets.nsd.NSD` takes it, chosen.
    """

    def __init__(self, root: Path, space: str) -> None:
        self.path, self.space = root, space

    def files(self, subject: str, name: str) -> list[tuple[str, Path]]:
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

    def lacks(self, subject: str, name: str) -> UserError:
        """Return the error for a region that is not there."""
        there = [n for n in (*MASKS, *PARTITIONS) if self.files(subject, n)]
        if self.space == "fsaverage":
            there.append("all")
            what = f"{self._labels('fsaverage')} has no lh.{name}.mgz and rh.{name}.mgz"
        else:
            what = f"{self._roi_folder(subject)} has no {name}.nii.gz"
        others = f", or choose ?roi= one of {', '.join(there)}" if there else ""
        return UserError(
            f"{what}, which says which voxels to read; take it from {BUCKET}{others}."
        )

    def region(self, subject: str, name: str) -> Region | None:
        """Return an atlas of the subject, or None where its files are not."""
        files = self.files(subject, name)
        parts = []
        for i, (side, path) in enumerate(files):
            values = np.nan_to_num(read_map(path), nan=-1)
            if (values % 1 != 0).any() or np.abs(values).max(initial=0) >= 2**31:
                raise UserError(
                    f"{path} holds values that are no labels (whole numbers, -1 outside); it was "
                    f"resampled, or is another map: {AGAIN}."
                )
            if self.space == "fsaverage":
                if path.parent == self._labels(subject):
                    native = native_vertices(self.path, subject, tuple(SIDES)[i])
                    if native is None:
                        return None
                    values = at_vertices(values.ravel(), native, path)
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


def _read_ctab(path: Path) -> dict[int, tuple[str, tuple[int, int, int]]]:
    """Return value -> name and colour of lines "int name" or "int name R G B A", without 0."""
    names, text = {}, read_text(path, AGAIN)
    try:
        for line in text.splitlines():
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            coloured = len(words) >= 6 and all(word.isdigit() for word in words[-4:])
            name = " ".join(words[1:-4] if coloured else words[1:])
            colour = tuple(int(c) for c in words[-4:-1]) if coloured else (128, 128, 128)
            if int(words[0]) > 0:
                names[int(words[0])] = (name, colour)
    except ValueError as error:
        raise UserError(
            f"{path} needs lines of a number and a name ({error}); copy it again."
        ) from error
    return names


def parcellations(
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
