"""Miyawaki et al. 2008 as nilearn's ``fetch_miyawaki2008`` lays it out: volumes of 32 runs."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.miyawaki_blocks import (
    BETA_UNITS,
    CAPTIONS,
    CITATION,
    SIDE,
    SUBJECT,
    check_estimate,
    enlarged,
    estimates,
    figure,
    spans,
)
from backends.datasets.reading import LazyRows
from explorer.files import guard, open_volume, read_text, volume_data
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
    import pandas as pd

RUNS = {"random": 20, "figure": 12}  # runs of each session, as nilearn stores them
SESSIONS = {"random": 1, "figure": 2}


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
        check_estimate(name, betas)
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

        drawn = {figure(key).tobytes(): text for key, text in CAPTIONS.items()}
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
        file = self.path / "mask" / "mask.nii.gz"
        image = _volume(file)
        inside = _inside(image, file)
        if inside.ndim != 3:
            raise UserError(
                f"{file} needs 3 dimensions, found shape {image.shape}; fetch it again."
            )
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
        return volume_data(image, run.func, do="fetch it again")[mask].T

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

        def lies(row: int) -> list[Origin]:
            block = blocks[row]
            volumes = f"estimate ({self.betas}) from volumes {block.begin} to {block.end - 1}"
            return [Origin(str(block.run.func), block.begin, note=volumes)]

        rows = LazyRows((len(blocks), v), read, str(self.path), lies)
        return Trials(Subject(self.name, SUBJECT, space), rows, BETA_UNITS[self.betas], table)

    def _atlases(self, mask: np.ndarray, digest: str) -> dict[str, Parcellation]:
        """Return the areas and the lag bands that lie beside the mask."""
        found: dict[str, dict[Label, np.ndarray]] = {"ROIs": {}, "lag bands": {}}
        for file in sorted((self.path / "mask").glob("[LR]H*.nii.gz")):
            name = file.name.removesuffix(".nii.gz")
            image = _volume(file)
            if image.shape[:3] != mask.shape or image.shape[3:] not in ((), (1,)):
                raise UserError(
                    f"{file} needs shape {mask.shape}, the mask's, found {image.shape}."
                )
            inside = _inside(image, file).reshape(mask.shape)[mask]
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

    split_by = "the authors: random patterns are training, figures are test"

    def picture_origin(self, stimulus: str) -> Origin:
        """Return the label file whose rows of a block draw the picture."""
        block = next(b for b in self._shown[1] if b.stimulus == stimulus)
        return Origin(str(block.run.label), block.begin, note="a line of labels a volume")

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return what names a picture: the order of first appearance."""
        return {"name by first appearance": stimulus}

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


# ------------------------------------------------------------------------------------------- files


def _nilearn_folder(path: Path) -> Path:
    """Return the folder of func and label: this one, or miyawaki2008 in it."""
    return path if (path / "func").is_dir() else path / "miyawaki2008"


def _volume(path: Path) -> Any:
    """Return an opened NIfTI volume; its numbers are not read yet."""
    do = "fetch it again"
    return open_volume(path, "", do, "nilearn.datasets.fetch_miyawaki2008 fetches it")


def _inside(image: Any, path: Path) -> np.ndarray:
    """Return where a volume is above 0, bool (X, Y, Z)."""
    return volume_data(image, path, do="fetch it again") > 0


def _patches(path: Path) -> np.ndarray:
    """Return a label file: int (volumes, 100), 1 or 0 for a patch, all -1 at rest."""
    lines = read_text(path, "fetch it again").splitlines()
    with guard(path, "a table of numbers", "fetch it again"):
        if not lines:
            raise ValueError("it is empty")
        patches = np.loadtxt(lines, delimiter=",", ndmin=2)
        if not patches.size:
            raise ValueError("it holds no numbers")
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
