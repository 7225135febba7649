"""Figures on a grid of 10 x 10 patches, and the visual cortex that saw them: Miyawaki et al. 2008.

Three forms of it are read. ``V1_mean_figure.mat`` (github.com/KamitaniLab/VBCCA, sample/data):
``R2`` (797, 80), the mean response of V1 voxels to each of 80 blocks, and ``I2`` (100, 80), the
10 x 10 pictures as columns in MATLAB's column order; ten figures were shown eight times each. The
folder of `nilearn.datasets.fetch_miyawaki2008`: volumes of 20 runs of random patterns and 12 runs
of figures. ``S2_figureImage.mat`` (github.com/KamitaniLab/NeuralCodeConverter, data): volumes of
four runs of five figures, seen by a participant of Yamada et al. 2015.
"""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.reading import LazyRows, open_hdf5
from explorer.types import (
    Label,
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

CITATION = (
    "Miyawaki et al. (2008). Visual image reconstruction from human brain activity using a "
    "combination of multiscale local image decoders. Neuron 60:915-929."
)
FILE = "V1_mean_figure.mat"
SUBJECT = "S1"
SIDE = 10  # pixels of a picture
ENLARGED = 16  # each pixel is shown as 16 x 16, so that a person can see it
TEST_REPEATS = 2
# What the ten pictures are, in the order in which they were first shown; seen in the pixels.
FIGURES = (
    "small square", "small frame", "plus", "cross", "large frame",
    "letter n", "letter e", "letter u", "letter r", "letter o",
)  # fmt: skip

SECONDS = 2.0  # between two volumes
DELAY = 2  # volumes by which blood lags behind the picture, as in nilearn's example
ESTIMATES = ("mean", "glm")
BETA_UNITS = {
    "mean": "mean over the block, 4 s later, of the voxel's signal, z-scored within run",
    "glm": "amplitude of the block in a GLM of the voxel's signal, z-scored within run",
}
# The upper left quarter of each figure of S2_figureImage.mat; the rest mirrors it.
QUARTERS = {
    "square8x8": ".....|.....|.....|...##|...##",
    "smallFrame8x8": ".....|.....|.....|...##|...#.",
    "largeFrame8x8": ".....|.####|.####|.##..|.##..",
    "plus8x8": ".....|....#|....#|....#|.####",
    "cross8x8": ".....|.##..|.###.|..###|...##",
}
S2_CAPTIONS = {
    "square8x8": "small square",
    "smallFrame8x8": "small frame",
    "largeFrame8x8": "large frame",
    "plus8x8": "plus",
    "cross8x8": "cross",
}
RUNS = {"random": 20, "figure": 12}  # runs of each session, as nilearn stores them
SESSIONS = {"random": 1, "figure": 2}


class Miyawaki2008:
    """Ten figures seen by one person, split by repeat.

    Parameters
    ----------
    path
        ``V1_mean_figure.mat``, or the folder that holds it.
    name
        What the data set is called.
    """

    looks_for = "V1_mean_figure.mat (R2 and I2, VBCCA)"
    title = "Miyawaki et al. 2008: ten figures in V1"
    licence = "as stated by the VBCCA sample (ATR, BSD-3 style)"
    citation = CITATION
    simulated = False
    redistributable = False
    split_unit = "repeat"
    note = (
        "Only ten pictures were shown, so the split is by repeat (the last two of each picture "
        "are test: every test picture was seen in training), and the voxels have no locations."
    )

    def __init__(self, path: Path, name: str) -> None:
        path = Path(path)
        self.path, self.name = (path / FILE if path.is_dir() else path), name
        if not self.path.is_file():
            raise UserError(
                f"{self.path} is missing; give the path of {FILE} or of its folder (nilearn's "
                "folder of runs opens as miyawaki2008-nilearn, S2_figureImage.mat as "
                "miyawaki2008-s2)."
            )

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a MATLAB file with R2 and I2 lies there."""
        path = Path(path)
        file = path / FILE if path.is_dir() else path
        if file.suffix != ".mat" or not file.is_file():
            return False
        from scipy.io import whosmat

        try:
            return {"R2", "I2"} <= {name for name, *_ in whosmat(file)}
        except _damaged():
            return False

    @cached_property
    def _file(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Betas float32 (n, V), pictures bool (figures, 10, 10), and each trial's figure (n,)."""
        responses, columns = _read(self.path)
        figures, number = np.unique(columns, axis=1, return_inverse=True)
        # In the order of first appearance, whatever order np.unique sorts them into.
        order = np.unique(number, return_index=True)[1].argsort()
        pictures = figures.T[order].reshape(-1, SIDE, SIDE).swapaxes(1, 2)  # column order
        return responses.T.astype(np.float32), pictures > 0, order.argsort()[number]

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """The figures: pattern-01 and on, with what they show."""
        import pandas as pd

        n = len(self._file[1])
        names = FIGURES if n == len(FIGURES) else [f"figure {i + 1}" for i in range(n)]
        kinds = ["letter" if name.startswith("letter") else "shape" for name in names]
        index = pd.Index([f"pattern-{i + 1:02d}" for i in range(n)], name="stimulus")
        columns = {"caption": names, "category": kinds, "source": "I2"}
        return pd.DataFrame(columns, index=index)

    def subjects(self) -> list[str]:
        """Return the one participant."""
        return [SUBJECT]

    def load(self, subject: str) -> Trials:
        """Return the participant's 80 averaged trials, in the order of the file."""
        import pandas as pd

        if subject != SUBJECT:
            raise UserError(f"{self.name} has the subject {SUBJECT}, not {subject!r}.")
        betas, pictures, number = self._file
        v = betas.shape[1]
        digest = voxel_hash("miyawaki2008", SUBJECT, "V1", v)
        everywhere = np.ones((1, v), dtype=bool)
        rois = Parcellation("ROIs", "masks", (Label("V1"),), everywhere, digest)
        voxels = VoxelSpace(v, digest, parcellations={"ROIs": rois})
        table = pd.DataFrame({"stimulus": self.stimuli.index[number], "session": 1, "run": 1})
        shown = table.groupby("stimulus").cumcount()
        first_test = table.groupby("stimulus")["stimulus"].transform("size") - TEST_REPEATS
        table["split"] = np.where(shown < first_test, "train", "test")
        table["repeat"] = shown.where(shown < first_test, shown - first_test)
        who = Subject(self.name, SUBJECT, voxels)
        return Trials(who, betas, "mean response of a block, as published", table)

    def image(self, stimulus: str) -> np.ndarray:
        """Return a figure, white on black, each of its 10 x 10 pixels enlarged to 16 x 16.

        uint8 RGB (160, 160, 3); averaging the blocks gives the 10 x 10 picture back.
        """
        if stimulus not in self.stimuli.index:
            raise UserError(
                f"{self.name} has the stimuli {self.stimuli.index[0]} to "
                f"{self.stimuli.index[-1]}, not {stimulus!r}."
            )
        return enlarged(self._file[1][self.stimuli.index.get_loc(stimulus)])

    def remarks(self) -> list[str]:
        """Return what is special about this file, one sentence each."""
        betas, pictures, _ = self._file
        return [
            f"{len(pictures)} pictures in {len(betas)} trials, each the mean of a block: the last "
            f"{TEST_REPEATS} trials of each picture are test, so no test picture is new.",
            "The file says neither run nor session, nor where its voxels lie.",
        ]


class Miyawaki2008Runs:
    """Random patterns (training) and figures (test), one trial per block of volumes.

    Layout (`nilearn.datasets.fetch_miyawaki2008`): ``func/data_random_run01.nii.gz`` and on,
    ``func/data_figure_run01.nii.gz`` and on; for each ``label/data_random_run01_label.csv``, a row
    per volume of the 100 patches in column order, all -1 at rest; ``mask/mask.nii.gz``, and beside
    it areas (``LHV1d``) and bands of the lag of retinotopic mapping (``LHlag0to1``).

    Parameters
    ----------
    path
        The folder of func, label and mask, or nilearn's data folder above it.
    name
        What the data set is called.
    betas
        "mean" of a block's volumes, two volumes later, or "glm" (`block_amplitudes`); before
        either, a voxel's signal is detrended and z-scored within its run.
    """

    looks_for = "nilearn's miyawaki2008/ with func/, label/ and mask/"
    title = "Miyawaki et al. 2008: random patterns and figures in visual cortex"
    licence = "unknown, says nilearn's description of it"
    citation = CITATION
    simulated = False
    redistributable = False
    split_unit = "stimulus"
    note = (
        "Training pictures are random patterns of 10 x 10 patches, test pictures are figures; "
        "volumes lie in the participant's own space, so voxels are not put on the surface."
    )

    def __init__(self, path: Path, name: str, betas: str = "mean") -> None:
        self.path, self.name, self.betas = _nilearn_folder(Path(path)), name, betas
        _check_estimate(name, betas)
        found = {kind: self._files(kind) for kind in RUNS}
        if not all(found.values()):
            counts = " and ".join(f"{len(runs)} of {kind}" for kind, runs in found.items())
            raise UserError(
                f"{path} needs runs func/data_random_run*.nii.gz (training) and "
                f"func/data_figure_run*.nii.gz (test) with label/*_label.csv, found {counts}; "
                "nilearn.datasets.fetch_miyawaki2008 fetches them."
            )
        self._runs = [run for runs in found.values() for run in runs]

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether nilearn's folder of runs and labels lies there."""
        root = _nilearn_folder(Path(path))
        return any((root / "func").glob("data_figure_run*.nii.gz")) and (root / "label").is_dir()

    def _files(self, kind: str) -> list[_Run]:
        """Return the runs of a session that have volumes and labels, in order."""
        runs = []
        for func in sorted((self.path / "func").glob(f"data_{kind}_run*.nii.gz")):
            stem = func.name.removesuffix(".nii.gz")
            number, label = stem.rpartition("run")[2], self.path / "label" / f"{stem}_label.csv"
            if number.isdecimal() and label.is_file():
                runs.append(_Run(kind, int(number), func, label))
        return runs

    @cached_property
    def _pictures(self) -> dict[str, np.ndarray]:
        """Every picture by stimulus, bool (10, 10)."""
        return self._shown[0]

    @cached_property
    def _shown(self) -> tuple[dict[str, np.ndarray], list[_Block]]:
        """The pictures, and every block of every run.

        Random patterns are named by run and place in it, since each was shown once; figures are
        numbered as they first appear.
        """
        pictures: dict[str, np.ndarray] = {}
        known: dict[bytes, str] = {}
        blocks = []
        for run in self._runs:
            patches = _patches(run.label)
            for place, (begin, end) in enumerate(spans(_numbered(patches)), 1):
                pixels = patches[begin] > 0
                fresh = f"random-{run.number:02d}-{place:02d}"
                if run.kind == "figure":
                    fresh = f"figure-{1 + sum(n.startswith('figure') for n in pictures):02d}"
                name = known.setdefault(pixels.tobytes(), fresh)
                pictures[name] = pixels.reshape(SIDE, SIDE).T  # column order
                blocks.append(_Block(run, begin, end, name))
        return pictures, blocks

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """The random patterns and figures."""
        import pandas as pd

        drawn = {figure(key).tobytes(): text for key, text in S2_CAPTIONS.items()}
        names = list(self._pictures)
        figures = [name.startswith("figure") for name in names]
        texts = [
            drawn.get(self._pictures[name].tobytes(), name.replace("-", " ")) for name in names
        ]
        columns = {
            "caption": np.where(figures, texts, "random pattern").tolist(),
            "category": np.where(figures, "figure", "random").tolist(),
            "source": "label/*_label.csv",
        }
        return pd.DataFrame(columns, index=pd.Index(names, name="stimulus", dtype=object))

    def subjects(self) -> list[str]:
        """Return the one participant."""
        return [SUBJECT]

    @cached_property
    def _mask(self) -> tuple[np.ndarray, np.ndarray, int]:
        """The voxels bool (X, Y, Z), the affine, and how many of the mask are left out.

        Left out are voxels that are NaN or never vary in the first run; a later NaN is refused
        when it is read.
        """
        image = _volume(self.path / "mask" / "mask.nii.gz")
        inside = np.asanyarray(image.dataobj) > 0
        series = self._series(self._runs[0], inside)
        alive = np.isfinite(series).all(axis=0) & (series != series[:1]).any(axis=0)
        if not alive.any():
            raise UserError(f"{self._runs[0].func} does not vary inside mask/mask.nii.gz.")
        mask = np.zeros_like(inside)
        mask[inside] = alive
        return mask, np.asarray(image.affine), int((~alive).sum())

    def _series(self, run: _Run, mask: np.ndarray) -> np.ndarray:
        """Return a run's volumes inside a mask, (t, V)."""
        image, volumes = _volume(run.func), len(_patches(run.label))
        if image.shape != (*mask.shape, volumes):
            raise UserError(
                f"{run.func} needs shape {(*mask.shape, volumes)}, the mask's and a volume for "
                f"each row of {run.label.name}, found {image.shape}."
            )
        try:
            return np.asanyarray(image.dataobj)[mask].T
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise UserError(
                f"{run.func} is damaged or cut short ({error}); fetch it again."
            ) from error

    def load(self, subject: str) -> Trials:
        """Return every block as a trial: session 1 is of random patterns, 2 of figures."""
        import pandas as pd

        if subject != SUBJECT:
            raise UserError(f"{self.name} has the subject {SUBJECT}, not {subject!r}.")
        blocks = self._shown[1]
        mask, affine, _ = self._mask
        table = pd.DataFrame(
            {
                "stimulus": [block.stimulus for block in blocks],
                "split": ["train" if b.run.kind == "random" else "test" for b in blocks],
                "session": [SESSIONS[block.run.kind] for block in blocks],
                "run": [block.run.number for block in blocks],
            }
        )
        both = set(table.stimulus[table.split == "train"]) & set(
            table.stimulus[table.split == "test"]
        )
        if both:
            raise UserError(
                f"{self.path}: {min(both)} is shown in random and in figure runs; label files are "
                "mixed up."
            )
        table["repeat"] = table.groupby(["stimulus", "split"]).cumcount()
        digest = voxel_hash("miyawaki2008-nilearn", np.packbits(mask), affine, *mask.shape)
        v = int(mask.sum())
        atlases = self._atlases(mask, digest)
        space = VoxelSpace(v, digest, mask=mask, affine=affine, parcellations=atlases)
        known: dict[int, np.ndarray] = {}  # betas of a run: 1 MB at most, so all are kept
        lock = threading.Lock()

        def of_run(run: _Run) -> np.ndarray:
            with lock:
                if id(run) not in known:
                    parts = [(b.begin, b.end) for b in blocks if b.run is run]
                    known[id(run)] = estimates(self._series(run, mask), parts, self.betas)
                return known[id(run)]

        first = {
            id(run): next(i for i, b in enumerate(blocks) if b.run is run) for run in self._runs
        }

        def read(wanted: np.ndarray) -> np.ndarray:
            runs = [blocks[i].run for i in wanted]
            return np.stack(
                [of_run(run)[i - first[id(run)]] for i, run in zip(wanted, runs, strict=True)]
            )

        rows = LazyRows((len(blocks), v), read, str(self.path))
        return Trials(Subject(self.name, SUBJECT, space), rows, BETA_UNITS[self.betas], table)

    def _atlases(self, mask: np.ndarray, digest: str) -> dict[str, Parcellation]:
        """Return the areas and the lag bands that lie beside the mask."""
        found: dict[str, dict[Label, np.ndarray]] = {"ROIs": {}, "lag bands": {}}
        for file in sorted((self.path / "mask").glob("[LR]H*.nii.gz")):
            name = file.name.removesuffix(".nii.gz")
            image = _volume(file)
            if image.shape[:3] != mask.shape:
                raise UserError(
                    f"{file} needs shape {mask.shape}, the mask's, found {image.shape}."
                )
            inside = np.asanyarray(image.dataobj).reshape(mask.shape)[mask] > 0
            if inside.any():
                atlas = "lag bands" if name[2:].startswith("lag") else "ROIs"
                found[atlas][Label(name[2:], name[0])] = inside
        return {
            name: Parcellation(name, "masks", tuple(m), np.stack(list(m.values())), digest)
            for name, m in found.items()
            if m
        }

    def image(self, stimulus: str) -> np.ndarray:
        """Return a picture, white on black, each patch enlarged to 16 x 16 pixels."""
        if stimulus not in self._pictures:
            raise UserError(
                f"{self.name} has no stimulus {stimulus!r}; it has {len(self._pictures)}, such as "
                f"{next(iter(self._pictures))}."
            )
        return enlarged(self._pictures[stimulus])

    def remarks(self) -> list[str]:
        """Return what is missing, masked or special in this folder, one sentence each."""
        said = []
        for kind, expected in RUNS.items():
            here = sum(run.kind == kind for run in self._runs)
            if here < expected:
                said.append(
                    f"{here} of {expected} {kind} runs are here with their labels; "
                    "nilearn.datasets.fetch_miyawaki2008 fetches the rest."
                )
        if self._mask[2]:
            said.append(f"{self._mask[2]} voxels of the mask are NaN or constant and masked out.")
        said.append(
            "Random patterns are training and figures are test, as in the paper and in nilearn's "
            "example."
        )
        said.append(
            "Test blocks are z-scored within their own run, by all its volumes, without labels."
        )
        return said


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
        _check_estimate(name, betas)
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
            "caption": [S2_CAPTIONS[name] for name in names],
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


# ------------------------------------------------------------------------------- volumes to betas


def spans(shown: np.ndarray) -> list[tuple[int, int]]:
    """Return first volume and end of each block: equal numbers in a row, -1 is rest.

    A block that begins too late for its delayed volumes to be in the run is left out.
    """
    edges = np.flatnonzero(np.diff(shown)) + 1
    parts = np.split(np.arange(len(shown)), edges)
    return [
        (int(p[0]), int(p[-1]) + 1)
        for p in parts
        if len(p) and shown[p[0]] >= 0 and p[0] + DELAY < len(shown)
    ]


def estimates(series: np.ndarray, parts: Sequence[tuple[int, int]], how: str) -> np.ndarray:
    """Return the betas float32 (blocks, V) of a run's volumes (t, V), z-scored within the run.

    A linear trend is taken out first, as nilearn's example does; a voxel that never varies is 0.
    """
    t = np.linspace(-1, 1, len(series))[:, None]
    signal = series - series.mean(axis=0, dtype=np.float64)
    signal = signal - t * (t * signal).sum(axis=0) / (t**2).sum()
    sd = signal.std(axis=0)
    signal = signal / np.where(sd > 1e-6 * np.abs(series).max(axis=0), sd, np.inf)
    function = {"mean": block_means, "glm": block_amplitudes}[how]
    return function(signal, parts).astype(np.float32)


def block_means(signal: np.ndarray, parts: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the mean signal (blocks, V) of each block's volumes, two volumes (4 s) later."""
    return np.stack([signal[begin + DELAY : end + DELAY].mean(axis=0) for begin, end in parts])


def block_amplitudes(signal: np.ndarray, parts: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the amplitude (blocks, V) of each block in one GLM of the run.

    Every block is a regressor of its own (nilearn's "least squares, all"), convolved with Glover's
    haemodynamic response, beside nilearn's cosine drifts; ordinary least squares.
    """
    import pandas as pd
    from nilearn.glm.first_level import make_first_level_design_matrix, run_glm

    names = [f"block {i:03d}" for i in range(len(parts))]
    events = pd.DataFrame(
        {
            "onset": [begin * SECONDS for begin, _ in parts],
            "duration": [(end - begin) * SECONDS for begin, end in parts],
            "trial_type": names,
        }
    )
    design = make_first_level_design_matrix(
        np.arange(len(signal)) * SECONDS, events, hrf_model="glover", drift_model="cosine"
    )
    _, found = run_glm(signal, design.to_numpy(), noise_model="ols")
    (fit,) = found.values()  # ordinary least squares has one noise model for all voxels
    return fit.theta[[design.columns.get_loc(name) for name in names]]


# --------------------------------------------------------------------------------------- pictures


def enlarged(picture: np.ndarray) -> np.ndarray:
    """Return a picture bool (10, 10) as uint8 RGB (160, 160, 3), white on black."""
    large = np.kron(picture, np.ones((ENLARGED, ENLARGED), dtype=bool))
    return np.repeat(np.where(large, 255, 0).astype(np.uint8)[..., None], 3, axis=2)


def figure(name: str) -> np.ndarray:
    """Return one of the five figures by its name in ``S2_figureImage.mat``, bool (10, 10)."""
    left = np.array([[c == "#" for c in row] for row in QUARTERS[name].split("|")])
    top = np.hstack([left, left[:, ::-1]])
    return np.vstack([top, top[::-1]])


# ------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class _Run:
    """A run of nilearn's folder: kind "random" or "figure", number from 1."""

    kind: str
    number: int
    func: Path
    label: Path


@dataclass(frozen=True)
class _Block:
    """A block: volumes from begin up to end of a run, and what was shown."""

    run: _Run
    begin: int
    end: int
    stimulus: str


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


def _nilearn_folder(path: Path) -> Path:
    """Return the folder of func and label: this one, or miyawaki2008 in it."""
    return path if (path / "func").is_dir() else path / "miyawaki2008"


def _volume(path: Path) -> Any:
    """Return an opened NIfTI volume; its numbers are not read yet."""
    import nibabel

    try:
        return nibabel.load(path)
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing; nilearn.datasets.fetch_miyawaki2008 fetches it."
        ) from error
    except (OSError, EOFError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}); fetch it again.") from error


def _patches(path: Path) -> np.ndarray:
    """Return a label file: int (volumes, 100), 1 or 0 for a patch, all -1 at rest."""
    try:
        patches = np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no table of numbers ({error}); fetch it again.") from error
    if patches.shape[1] != SIDE**2 or not np.isin(patches, (-1, 0, 1)).all():
        raise UserError(
            f"{path} needs {SIDE**2} columns of 1, 0, or -1 for rest, found {patches.shape[1]} "
            f"columns with values {patches.min():g} to {patches.max():g}."
        )
    return patches.astype(np.int8)


def _numbered(patches: np.ndarray) -> np.ndarray:
    """Return a number for each volume's picture, -1 at rest."""
    number = np.unique(patches, axis=0, return_inverse=True)[1].reshape(-1)
    return np.where((patches < 0).any(axis=1), -1, number)


def _mat_files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.mat")) if path.is_dir() else [path]
    return [file for file in files if file.is_file() and file.suffix == ".mat"]


def _is_time_series(path: Path) -> bool:
    try:
        with open_hdf5(path) as file:
            return all(f"D/{key}" in file for key in ("data", "labels_names", "inds_conds"))
    except (UserError, KeyError):
        return False


def _read_time_series(path: Path) -> _TimeSeries:
    """Return the file's volumes and labels; MATLAB counts from 1 and stores columns first."""
    with open_hdf5(path) as file:
        try:
            found = file["D"]
            series = found["data"][()].T
            runs = [(int(first) - 1, int(last)) for first, last in found["inds_runs"]]
            conditions = [_text(cell) for cell in _cells(file, "labels_names")]
            volumes = [_positions(cell) for cell in _cells(file, "inds_conds")]
            xyz = found["xyz"][()]
            areas = [_text(cell) for cell in _cells(file, "rois_names")]
            voxels = [_positions(cell) for cell in _cells(file, "rois_inds")]
        except (KeyError, OSError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path} is damaged or not laid out as S2_figureImage.mat ({error}); copy it "
                "again."
            ) from error
    strange = [c for c in conditions if c not in QUARTERS and not c.endswith("rest")]
    if strange:
        raise UserError(
            f"{path} has the condition {strange[0]!r}, of which no picture is known; known are "
            f"{', '.join(QUARTERS)}, and rest."
        )
    if len(xyz) != series.shape[1] or runs[-1][1] != len(series):
        raise UserError(
            f"{path}: D/data has {series.shape[1]} voxels and {len(series)} volumes, D/xyz "
            f"{len(xyz)} voxels and D/inds_runs {runs[-1][1]} volumes; they must be equal."
        )
    if not np.isfinite(series).all():
        raise UserError(f"{path}: D/data holds values that are not finite numbers.")
    shown = np.full(len(series), -1)
    for i, (name, at) in enumerate(zip(conditions, volumes, strict=True)):
        if name in QUARTERS:
            shown[at] = i
    rois = {}
    for area, at in zip(areas, voxels, strict=True):
        side, name = re.search(r"(?:([LR])H_)?([^_]*)$", area).groups(default="")
        rois[Label(name, side)] = np.isin(np.arange(len(xyz)), at)
    return _TimeSeries(series, runs, conditions, shown, xyz, rois)


def _cells(file: h5py.File, name: str) -> list[h5py.Dataset]:
    """Return what the references of a MATLAB cell array point to."""
    return [file[reference] for reference in np.ravel(file[f"D/{name}"][()])]


def _text(cell: h5py.Dataset) -> str:
    """Return a MATLAB string, which is stored as numbers of letters."""
    return "".join(map(chr, np.ravel(cell[()])))


def _positions(cell: h5py.Dataset) -> np.ndarray:
    """Return MATLAB positions counted from 0."""
    return np.ravel(cell[()]).astype(np.int64) - 1


def _check_estimate(name: str, betas: str) -> None:
    if betas not in ESTIMATES:
        raise UserError(f"{name}: betas is one of {', '.join(ESTIMATES)}, not {betas!r}.")


def _damaged() -> tuple[type[Exception], ...]:
    """Return what scipy raises at a MATLAB file that is damaged or of another version."""
    from scipy.io.matlab import MatReadError

    kinds = (MatReadError, OSError, ValueError, TypeError, EOFError, NotImplementedError)
    return (*kinds, IndexError, KeyError, zlib.error)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return R2 (V, n) and I2 (100, n), checked."""
    from scipy.io import loadmat

    try:
        found = loadmat(path, variable_names=("R2", "I2"))
    except _damaged() as error:
        raise UserError(f"{path} is damaged or cut short ({error}); copy it again.") from error
    missing = [name for name in ("R2", "I2") if name not in found]
    if missing:
        raise UserError(f"{path} lacks the variable {missing[0]}; {FILE} holds R2 and I2.")
    responses, pictures = found["R2"], found["I2"]
    if responses.ndim != 2 or pictures.shape != (SIDE**2, responses.shape[1]):
        raise UserError(
            f"{path}: R2 needs shape (voxels, n) and I2 ({SIDE**2}, n), found {responses.shape} "
            f"and {pictures.shape}."
        )
    if responses.dtype.kind not in "fiu" or not np.isfinite(responses).all():
        raise UserError(f"{path}: R2 holds values that are not finite numbers.")
    counts = np.unique(pictures, axis=1, return_counts=True)[1]
    if counts.min(initial=TEST_REPEATS + 1) <= TEST_REPEATS:
        raise UserError(
            f"{path}: every picture needs more than {TEST_REPEATS} repeats to be split by repeat, "
            f"one has {counts.min()}."
        )
    return responses, pictures
