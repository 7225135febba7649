"""``S2_figureImage.mat``: volumes of four runs of Miyawaki's five figures (Yamada et al. 2015)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.miyawaki_blocks import (
    BETA_UNITS,
    CAPTIONS,
    CITATION,
    QUARTERS,
    check_estimate,
    enlarged,
    estimates,
    figure,
    spans,
)
from backends.datasets.reading import check_array, hdf5_array, hdf5_values, open_hdf5
from explorer.files import guard
from explorer.types import (
    Label,
    Origin,
    Parcellation,
    Subject,
    Trials,
    UserError,
    VoxelSpace,
    voxel_hash,
)

if TYPE_CHECKING:
    import h5py
    import pandas as pd

LAYOUT = "S2_figureImage.mat"
PARTS = ("data", "xyz", "inds_runs", "labels_names", "inds_conds", "rois_names", "rois_inds")


@dataclass(frozen=True, eq=False)
class _TimeSeries:
    """``S2_figureImage.mat`` with everything counted from 0.

    ``series`` (t, V); ``runs`` first volume and end of each; ``conditions`` names; ``shown`` (t,)
    the condition at each volume or -1 at rest; ``xyz`` (V, 3); ``rois`` masks bool (V,).
    """

    series: np.ndarray
    runs: list[tuple[int, int]]
    conditions: list[str]
    shown: np.ndarray
    xyz: np.ndarray
    rois: dict[Label, np.ndarray]


class Miyawaki2008S2:
    """Four runs of five figures: the volumes of one participant's V1, cut into blocks.

    Layout (MATLAB 7.3, so HDF5 with cells as object references): ``D/data`` (910 voxels, 520
    volumes), ``D/labels_names`` and ``D/inds_conds`` (names of the conditions and the volumes of
    each, from 1), ``D/inds_runs`` (first and last volume of each run, from 1), ``D/xyz`` (910, 3),
    ``D/rois_names`` and ``D/rois_inds`` (voxels of each area, from 1).

    Parameters
    ----------
    path
        ``S2_figureImage.mat``, or the folder that holds it.
    name
        What the data set is called.
    betas
        "mean" of a block's volumes, two volumes later, or "glm" (`block_amplitudes`); before
        either, a voxel's signal is detrended and z-scored within its run. The nearest centroid
        (by correlation) of the other runs names 40 of 40 blocks rightly from the means, 39 of 40
        from the GLM (chance 1 in 5).
    """

    looks_for = "S2_figureImage.mat, volumes in time (VBCCA)"
    title = "Yamada et al. 2015: five figures in V1, in time"
    licence = "Open Data Commons Attribution (ODC-BY 1.0)"
    citation = (
        "Yamada, Miyawaki & Kamitani (2015). Inter-subject neural code converter for visual image "
        f"representation. NeuroImage 113:289-297. The figures are of {CITATION}"
    )
    simulated = False
    redistributable = True
    split_unit = "repeat"
    note = (
        "The file holds no pictures: the five figures are drawn from their names, as Miyawaki et "
        "al. 2008 showed them. Only five were shown, so the split is by run (the last run is "
        "test: every test picture was seen in training), and voxels are not put on the surface."
    )

    def __init__(self, path: Path, name: str, betas: str = "mean") -> None:
        path = Path(path)
        self.name, self.betas = name, betas
        check_estimate(name, betas)
        found = [file for file in _mat_files(path) if _is_time_series(file)]
        if not found:
            raise UserError(
                f"{path} holds no MATLAB 7.3 file with D/data, D/labels_names and D/inds_conds; "
                "S2_figureImage.mat of github.com/KamitaniLab/NeuralCodeConverter is one."
            )
        self.path = found[0]

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether such a file lies there."""
        return any(_is_time_series(file) for file in _mat_files(Path(path)))

    @cached_property
    def _file(self) -> _TimeSeries:
        return _read_time_series(self.path)

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """The five figures, named as in the file."""
        import pandas as pd

        names = [name for name in self._file.conditions if name in QUARTERS]
        columns = {
            "caption": [CAPTIONS[name] for name in names],
            "category": "shape",
            "source": "drawn from the name",
        }
        return pd.DataFrame(columns, index=pd.Index(names, name="stimulus", dtype=object))

    def subjects(self) -> list[str]:
        """Return the one participant."""
        return ["S2"]

    @cached_property
    def _blocks(self) -> tuple[list[tuple[int, int, int]], np.ndarray]:
        """Run (from 1) and first and last volume of every block, and its betas float32 (n, V)."""
        blocks, betas = [], []
        for run, (begin, end) in enumerate(self._file.runs, 1):
            parts = spans(self._file.shown[begin:end])
            betas.append(estimates(self._file.series[begin:end], parts, self.betas))
            blocks += [(run, begin + first, begin + last) for first, last in parts]
        return blocks, np.concatenate(betas)

    def load(self, subject: str) -> Trials:
        """Return every block of a figure as a trial; the last run is test."""
        import pandas as pd

        if subject not in self.subjects():
            raise UserError(f"{self.name} has the subject S2, not {subject!r}.")
        file, (blocks, betas) = self._file, self._blocks
        table = pd.DataFrame(
            {
                "stimulus": [file.conditions[file.shown[begin]] for _, begin, _ in blocks],
                "session": 1,
                "run": [run for run, *_ in blocks],
            }
        )
        table["split"] = np.where(table.run == table.run.max(), "test", "train")
        table["repeat"] = table.groupby(["stimulus", "split"]).cumcount()
        digest = voxel_hash("miyawaki2008-s2", file.xyz)
        rois = Parcellation(
            "ROIs", "masks", tuple(file.rois), np.stack([*file.rois.values()]), digest
        )
        voxels = VoxelSpace(len(file.xyz), digest, parcellations={"ROIs": rois})
        maps = {f"voxel_{axis}": file.xyz[:, i] for i, axis in enumerate("xyz")}
        who = Subject(self.name, "S2", voxels, maps=maps)
        return Trials(who, betas, BETA_UNITS[self.betas], table)

    def image(self, stimulus: str) -> np.ndarray:
        """Return a figure drawn from its name, white on black, uint8 RGB (160, 160, 3)."""
        if stimulus not in self.stimuli.index:
            raise UserError(
                f"{self.name} has the stimuli {', '.join(self.stimuli.index)}, not {stimulus!r}."
            )
        return enlarged(figure(stimulus))

    split_by = "Afterimage: the last run is test"

    def origins(self, subject: str, trial: int) -> list[Origin]:
        """Return the volumes that a block's betas are estimated from."""
        _, begin, last = self._blocks[0][trial]
        note = f"estimate ({self.betas}) from volumes {begin} to {last - 1}"
        return [Origin(str(self.path), begin, "D/data", note)]

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return what names a figure: the file's own name of its condition."""
        return {"D/labels_names": stimulus}

    def remarks(self) -> list[str]:
        """Return what is special about this file, one sentence each."""
        blocks, betas = self._blocks
        still = int((self._file.series == self._file.series[:1]).all(axis=0).sum())
        said = [
            f"{len(blocks)} blocks of {len(self.stimuli)} figures in {len(self._file.runs)} runs, "
            f"{betas.shape[1]} voxels of V1; rest is left out.",
            "Test blocks are z-scored within their own run, by all its volumes, without labels.",
            "voxel_x, voxel_y and voxel_z are kept as maps; they are of the participant's own "
            "space, so voxels are not put on the surface.",
        ]
        if still:
            said.append(f"{still} voxels never vary and are 0 in every trial.")
        if (self.path.parent / "S2_outlierVoxInd.mat").is_file():
            said.append("S2_outlierVoxInd.mat, the authors' choice of 899 voxels, is not applied.")
        return said


# ------------------------------------------------------------------------------------------- files


def _mat_files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.mat")) if path.is_dir() else [path]
    return [file for file in files if file.is_file() and file.suffix == ".mat"]


def _is_time_series(path: Path) -> bool:
    try:
        with open_hdf5(path) as file, guard(path):
            return all(f"D/{key}" in file for key in ("data", "labels_names", "inds_conds"))
    except UserError:
        return False


def _read_time_series(path: Path) -> _TimeSeries:
    """Return the file's volumes and labels; MATLAB counts from 1 and stores columns first."""
    with open_hdf5(path) as file:
        with guard(path, LAYOUT):
            lacking = [name for name in PARTS if f"D/{name}" not in file]
        if lacking:
            raise UserError(
                f"{path} is not laid out as {LAYOUT}: it lacks D/{lacking[0]}; copy it again."
            )
        series = hdf5_values(hdf5_array(file, "D/data", 2, "fiu")).T
        xyz = hdf5_values(hdf5_array(file, "D/xyz", 2, "fiu"))
        if len(xyz) != series.shape[1]:
            raise UserError(
                f"{path}: D/data has {series.shape[1]} voxels and {len(series)} volumes, D/xyz "
                f"{len(xyz)} voxels; they must be equal."
            )
        runs = _runs(hdf5_values(hdf5_array(file, "D/inds_runs", 2, "fiu")), len(series), path)
        conditions = [_text(cell, path) for cell in _cells(file, "labels_names")]
        volumes = [_positions(c, len(series), path) for c in _cells(file, "inds_conds")]
        areas = [_text(cell, path) for cell in _cells(file, "rois_names")]
        voxels = [_positions(c, len(xyz), path) for c in _cells(file, "rois_inds")]
    strange = [c for c in conditions if c not in QUARTERS and not c.endswith("rest")]
    if strange:
        raise UserError(
            f"{path} has the condition {strange[0]!r}, of which no picture is known; known are "
            f"{', '.join(QUARTERS)}, and rest."
        )
    if not np.isfinite(series).all():
        raise UserError(f"{path}: D/data holds values that are not finite numbers.")
    if len(conditions) != len(volumes) or len(areas) != len(voxels):
        raise UserError(
            f"{path} names {len(conditions)} conditions and {len(areas)} areas and has the places "
            f"of {len(volumes)} and {len(voxels)}; copy it again."
        )
    shown = np.full(len(series), -1)
    for i, (name, at) in enumerate(zip(conditions, volumes, strict=True)):
        if name in QUARTERS:
            shown[at] = i
    rois = {}
    for area, at in zip(areas, voxels, strict=True):
        side, name = re.search(r"(?:([LR])H_)?([^_]*)\Z", area).groups(default="")
        rois[Label(name, side)] = np.isin(np.arange(len(xyz)), at)
    return _TimeSeries(series, runs, conditions, shown, xyz, rois)


def _runs(ends: np.ndarray, volumes: int, path: Path) -> list[tuple[int, int]]:
    """Return first volume and end of each run, from 0; they follow each other to the last."""
    whole = np.isfinite(ends).all() and (ends % 1 == 0).all() and ends.shape[1] == 2
    runs = [(int(first) - 1, int(last)) for first, last in ends] if whole else []
    ahead = [0, *(end for _, end in runs)]
    if (
        [begin for begin, _ in runs] != ahead[:-1]
        or ahead[-1] != volumes
        or ahead != sorted(ahead)
    ):
        raise UserError(
            f"{path}: D/inds_runs needs first and last volume of each run, from 1 to {volumes}, "
            f"the volumes of D/data, found {ends.tolist()[:3]}; copy it again."
        )
    return runs


def _cells(file: h5py.File, name: str) -> list[h5py.Dataset]:
    """Return what the references of a MATLAB cell array point to."""
    import h5py

    path, found = file.filename, hdf5_array(file, f"D/{name}", kinds="O")
    if h5py.check_ref_dtype(found.dtype) is not h5py.Reference:
        raise UserError(
            f"{path}: D/{name} needs a cell array, found {found.dtype}; copy it again."
        )
    with guard(path, at=f"D/{name}"):
        cells = [file[reference] for reference in np.ravel(found[()])]
    for cell in cells:
        if not isinstance(cell, h5py.Dataset):
            raise UserError(f"{path}: D/{name} points to a group, expected arrays; copy it again.")
        check_array(cell, str(cell.name), kinds="fiu")
    return cells


def _text(cell: h5py.Dataset, path: Path) -> str:
    """Return a MATLAB string, which is stored as numbers of letters."""
    with guard(path, at=str(cell.name)):
        return "".join(chr(int(letter)) for letter in np.ravel(cell[()]))


def _positions(cell: h5py.Dataset, count: int, path: Path) -> np.ndarray:
    """Return MATLAB positions among ``count``, counted from 0."""
    values = np.ravel(hdf5_values(cell))
    if not (np.isfinite(values) & (values % 1 == 0) & (1 <= values) & (values <= count)).all():
        raise UserError(
            f"{path}: {cell.name} needs whole numbers from 1 to {count}; copy the file again."
        )
    return values.astype(np.int64) - 1
