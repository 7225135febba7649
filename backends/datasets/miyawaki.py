"""Figures on a grid of 10 x 10 patches, and the visual cortex that saw them: Miyawaki et al. 2008.

``V1_mean_figure.mat`` (github.com/KamitaniLab/VBCCA, sample/data): ``R2`` (797, 80), the mean
response of V1 voxels to each of 80 blocks, and ``I2`` (100, 80), the 10 x 10 pictures as columns
in MATLAB's column order; ten figures were shown eight times each. Two other forms hold volumes:
`miyawaki_runs`, the folder of `nilearn.datasets.fetch_miyawaki2008` with 20 runs of random
patterns and 12 of figures, and `miyawaki_series`, ``S2_figureImage.mat``
(github.com/KamitaniLab/NeuralCodeConverter, data) with four runs of five figures, seen by a
participant of Yamada et al. 2015.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.miyawaki_blocks import CITATION, SIDE, SUBJECT, enlarged
from backends.datasets.reading import mat_array, mat_sizes
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

FILE = "V1_mean_figure.mat"
TEST_REPEATS = 2
# What the ten pictures are, in the order in which they were first shown; seen in the pixels.
FIGURES = (
    "small square", "small frame", "plus", "cross", "large frame",
    "letter n", "letter e", "letter u", "letter r", "letter o",
)  # fmt: skip


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
        try:
            return {"R2", "I2"} <= set(mat_sizes(file))
        except UserError:
            return False

    @cached_property
    def _file(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Betas float32 (n, V), pictures bool (figures, 10, 10), and each trial's figure (n,)."""
        responses, columns = _read(self.path)
        figures, number = np.unique(columns, axis=1, return_inverse=True)
        number = number.reshape(-1)  # NumPy 2.0.0 gives it a second axis
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

    split_by = f"Afterimage: the last {TEST_REPEATS} blocks of each picture are test"

    def origins(self, subject: str, trial: int) -> list[Origin]:
        """Return the column of R2 that a trial is."""
        return [Origin(str(self.path), trial, "R2", "a column")]

    def picture_origin(self, stimulus: str) -> Origin:
        """Return the first column of I2 that is this picture."""
        number = self._file[2]
        first = int(np.flatnonzero(number == self.stimuli.index.get_loc(stimulus))[0])
        return Origin(str(self.path), first, "I2", "a column")

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return what names a figure: its place in the order of first appearance."""
        return {"figure, from 1": str(self.stimuli.index.get_loc(stimulus) + 1)}

    def remarks(self) -> list[str]:
        """Return what is special about this file, one sentence each."""
        betas, pictures, _ = self._file
        return [
            f"{len(pictures)} pictures in {len(betas)} trials, each the mean of a block: the last "
            f"{TEST_REPEATS} trials of each picture are test, so no test picture is new.",
            "The file says neither run nor session, nor where its voxels lie.",
        ]


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return R2 (V, n) and I2 (100, n), checked."""
    found = mat_sizes(path)
    missing = [name for name in ("R2", "I2") if name not in found]
    if missing:
        raise UserError(f"{path} lacks the variable {missing[0]}; {FILE} holds R2 and I2.")
    responses, pictures = (mat_array(path, name) for name in ("R2", "I2"))
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
