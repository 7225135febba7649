"""NSD's main experiment: 73,000 photographs of COCO, of which each person saw up to 10,000.

::

    nsddata/experiments/nsd/nsd_expdesign.mat        which image was shown in which trial
    nsddata/experiments/nsd/nsd_stim_info_merged.csv COCO ids of the 73,000 images (optional)
    nsddata/ppdata/subj01/behav/responses.tsv        one row a trial (optional: a check, and runs)
    nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5     the images

``masterordering``, ``subjectim``, ``sharedix`` and 73KID count from 1, HDF5 rows and our ids
(``nsd-00000`` to ``nsd-72999``) from 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.nsd_design import (
    IMAGES,
    TRIALS,
    Design,
    read_design,
    responses_path,
    stimulus_id,
    table_of,
)
from backends.datasets.nsd_files import AGAIN, BUCKET
from backends.datasets.reading import hdf5_array, hdf5_row, open_hdf5
from explorer.files import read_table, reason
from explorer.types import Origin, UserError

if TYPE_CHECKING:
    import pandas as pd

SIDE = 425  # pixels of an image
STIMULI = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
STIM_INFO = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"


class Main:
    """The experiment that NSD is known for; see `backends.datasets.nsd_parts.Part`.

    Parameters
    ----------
    root
        The folder of the release.
    name
        What the data set is called.
    """

    experiment = ""
    trials = TRIALS
    title = "Natural Scenes Dataset"
    citation = (
        "Allen, St-Yves, Wu, Breedlove, Prince, Dowdle, Nau, Caron, Pestilli, Charest, "
        "Hutchinson, Naselaris, Kay (2022). A massive 7T fMRI dataset to bridge cognitive "
        "neuroscience and artificial intelligence. Nature Neuroscience 25:116-126."
    )
    note = "the test images are the 1,000 that all eight people share."
    split_by = "NSD: the 1,000 images that all eight people share are test"
    test_only = False
    norms = {"session": "z-score within session", "none": "percent signal change"}

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name

    @cached_property
    def design(self) -> Design:
        """Which image each trial shows."""
        return read_design(self.root)

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """The 73,000 images; ``source`` is the photograph in COCO where the table of ids is."""
        import pandas as pd

        source = np.full(IMAGES, "", dtype=object)
        file = self.root / STIM_INFO
        if file.is_file():
            columns = ["cocoId", "cocoSplit", "nsdId"]
            try:
                table = read_table(file, ",", do=AGAIN, usecols=columns)
                ids = table["nsdId"].astype(np.int64).to_numpy()
                if len(ids) != IMAGES or ids.min() != 0 or ids.max() != IMAGES - 1:
                    raise ValueError(f"nsdId runs from {ids.min()} to {ids.max()}")
                source[ids] = [
                    f"COCO {split} {number}"
                    for split, number in zip(table["cocoSplit"], table["cocoId"], strict=True)
                ]
            except ValueError as error:
                raise UserError(
                    f"{file} is damaged or not NSD's ({reason(error)}); it needs cocoId, "
                    f"cocoSplit and nsdId (0 to {IMAGES - 1}): copy it again."
                ) from error
        index = pd.Index([stimulus_id(k) for k in range(IMAGES)], name="stimulus")
        return pd.DataFrame({"caption": "", "category": "", "source": source}, index=index)

    def number(self, stimulus: str) -> int:
        """Return the image's number from 0; an unknown id raises `UserError`."""
        found = re.fullmatch(r"nsd-(\d{5})", stimulus)
        if not found or int(found[1]) >= IMAGES:
            raise UserError(
                f"{self.name} has the stimuli nsd-00000 to nsd-{IMAGES - 1}, not {stimulus!r}."
            )
        return int(found[1])

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture that was shown, uint8 RGB (425, 425, 3)."""
        number, path = self.number(stimulus), self.root / STIMULI
        with open_hdf5(path, f"it holds the images (37 GB) and is in {BUCKET}") as file:
            bricks = hdf5_array(file, "imgBrick", kinds="u", whole=False)
            if bricks.shape != (IMAGES, SIDE, SIDE, 3):
                raise UserError(
                    f"{path} needs imgBrick of shape ({IMAGES}, {SIDE}, {SIDE}, 3), found "
                    f"{bricks.shape}; copy it again."
                )
            return hdf5_row(bricks, number).astype(np.uint8)

    def picture_origin(self, stimulus: str) -> Origin:
        """Return the row of ``imgBrick`` that holds the picture."""
        return Origin(str(self.root / STIMULI), self.number(stimulus), "imgBrick")

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return the 73k id from both bases, the place among the shared images, and COCO's id."""
        number = self.number(stimulus)
        found = {"NSD's 73k, from 0": str(number), "NSD's 73k, from 1": str(number + 1)}
        place = np.flatnonzero(self.design.shared == number)
        if len(place):
            found["NSD's shared1000, from 1"] = str(int(place[0]) + 1)
            found["file name"] = f"shared{place[0] + 1:04d}_nsd{number + 1:05d}.png"
        if coco := str(self.stimuli.loc[stimulus, "source"]):
            found["COCO"] = coco.removeprefix("COCO ")
        return found

    def table(self, subject: str, sessions: Sequence[int]) -> pd.DataFrame:
        """Return one row a trial."""
        return table_of(self.root, self.design, subject, sessions)

    def kept(self, table: pd.DataFrame) -> np.ndarray:
        """Return that every trial is opened."""
        return np.ones(len(table), bool)

    def groups(self, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, int]:
        """Return sessions, whose mean and SD are those of their training trials."""
        return table["session"].to_numpy(), (table["split"] == "train").to_numpy(), 0

    def remarks(self) -> list[str]:
        """Return what the split is, and which files of pictures and ids are missing."""
        found = [
            "The split is by image: the 1,000 images that all eight people share are test; "
            "MindEye1 and Brain-Diffuser read 37 sessions and tested on 982 of them."
        ]
        for path, use in (
            (STIMULI, "no picture can be shown"),
            (STIM_INFO, "COCO's ids are not told"),
        ):
            if not (self.root / path).is_file():
                found.append(f"{path} is missing, so {use}; it is in {BUCKET}.")
        return found

    def remarks_on(self, subject: str) -> list[str]:
        """Return whether the order of images could be held against the responses."""
        if responses_path(self.root, subject).is_file():
            return []
        return [
            f"{subject}: responses.tsv is missing, so the order of images is taken from the "
            "design alone, where a mix-up of subjects cannot be noticed."
        ]
