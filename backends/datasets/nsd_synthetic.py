"""NSD-synthetic: 284 artificial and altered pictures, seen by NSD's eight people in one session.

::

    nsddata/experiments/nsdsynthetic/nsdsynthetic_expdesign.mat       masterordering (744,), from 1
    nsddata/experiments/nsdsynthetic/nsdsyntheticimageinformation.csv classes of the 284 (optional)
    nsddata_betas/ppdata/subj01/SPACE/nsdsyntheticPREPARATION/betas_nsdsynthetic.{hdf5,nii.gz}
    nsddata_betas/ppdata/subj01/fsaverage/nsdsynthetic.../{lh,rh}.betas_nsdsynthetic.mgh
    nsddata_stimuli/stimuli/nsdsynthetic/nsdsynthetic_stimuli.hdf5              1 to 220
    nsddata_stimuli/stimuli/nsdsynthetic/nsdsynthetic_colorstimuli_subj01.hdf5  221 to 284, own

Layout: NSD data manual, "Functional data (nsdsynthetic)", and github.com/gifale95/NSD-synthetic:
8 runs of 93 trials, by turns a fixation task and a one-back task; everybody saw the same order, in
which 10 trials of a run show the previous picture again. ``masterordering`` counts from 1, rows of
``imgBrick`` and our ids (``synthetic-000``) from 0; the last 64 pictures are made for each person.
Volumes hold int16 = 300 x percent signal change.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.nsd_files import AGAIN, BUCKET
from backends.datasets.reading import (
    hdf5_array,
    hdf5_row,
    mat_array,
    mat_sizes,
    open_hdf5,
)
from explorer.files import damaged, read_table, reason
from explorer.types import Origin, UserError

if TYPE_CHECKING:
    import pandas as pd

PLACE = "nsddata/experiments/nsdsynthetic"
PICTURES = "nsddata_stimuli/stimuli/nsdsynthetic"
RUNS, OF_RUN = 8, 93
IMAGES, SHARED = 284, 220
SIZE = (714, 1360)
TASKS = ("fixation", "one-back")


class Synthetic:
    """NSD-synthetic; see `backends.datasets.nsd_parts.Part`.

    Parameters
    ----------
    root
        The folder of the release.
    name
        What the data set is called.
    subjects
        Whose pictures in colour there are.
    """

    experiment = "nsdsynthetic"
    trials = RUNS * OF_RUN
    title = "NSD-synthetic"
    citation = (
        "Gifford, Cichy, Naselaris, Kay (2026). A 7T fMRI dataset of synthetic images for "
        "out-of-distribution modeling of vision. Nature Communications, "
        "doi:10.1038/s41467-026-69345-9."
    )
    note = (
        "all 744 trials are test, of 284 pictures that are unlike the photographs of NSD, "
        "shown 2 times or more."
    )
    split_by = "all trials are test; NSD's main experiment has the training trials"
    test_only = True
    norms = {"session": "z-score within session", "none": "percent signal change"}

    def __init__(self, root: Path, name: str, subjects: Sequence[str]) -> None:
        self.root, self.name, self.subjects = root, name, tuple(subjects)

    @cached_property
    def order(self) -> np.ndarray:
        """Int (744,), the picture of each trial, from 0, its numbers checked."""
        path = self.root / PLACE / "nsdsynthetic_expdesign.mat"
        if not path.is_file():
            raise UserError(
                f"{path} is missing; it says which picture was shown in which trial and is in "
                f"{BUCKET}."
            )
        if "masterordering" not in mat_sizes(path):
            raise damaged(path, "it lacks the variable masterordering", do=AGAIN)
        values = mat_array(path, "masterordering").squeeze()
        if values.shape != (self.trials,):
            raise UserError(
                f"{path}: masterordering needs {self.trials} trials, found shape "
                f"{values.shape}; {AGAIN}."
            )
        if not (values == np.round(values)).all():  # not finite, too
            raise UserError(
                f"{path}: masterordering needs whole numbers, found fractions or NaN; {AGAIN}."
            )
        times = np.bincount(np.clip(values.astype(np.int64), 0, IMAGES + 1), minlength=IMAGES + 2)
        if times[0] or times[-1]:
            wrong = values.min() if times[0] else values.max()
            raise UserError(
                f"{path}: masterordering counts from 1 to {IMAGES}, found {wrong:g}; {AGAIN} "
                "(numbers that were made to count from 0 cannot be told from wrong ones)."
            )
        once = np.flatnonzero(times[1:-1] < 2)
        if len(once):
            raise UserError(
                f"{path}: picture {once[0] + 1} (from 1) comes {times[once[0] + 1]} times, in "
                f"NSD-synthetic each comes 2 times or more; {AGAIN}."
            )
        return values.astype(np.int64) - 1

    @cached_property
    def _classes(self) -> pd.DataFrame | None:
        """Name and class of each picture in their order, None where the table is not."""
        path = self.root / PLACE / "nsdsyntheticimageinformation.csv"
        if not path.is_file():
            return None
        try:
            table = read_table(path, ",", do=AGAIN)
            lacking = [c for c in ("Image", "Image class") if c not in table]
            if lacking:
                raise ValueError(f"it lacks the column {lacking[0]!r}")
            if len(table) != IMAGES:
                raise ValueError(f"it has {len(table)} rows, expected {IMAGES}")
            number = table.get("Image number")
            if number is not None and number.astype(float).tolist() != list(range(1, IMAGES + 1)):
                raise ValueError(f"Image number does not run from 1 to {IMAGES}")
        except ValueError as error:
            raise UserError(f"{path} is damaged ({reason(error)}); {AGAIN}.") from error
        return table

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """220 pictures, and 64 for each person; ``category`` is the study's class of images."""
        import pandas as pd

        rows = [(k, "") for k in range(SHARED)]
        rows += [(k, who) for who in self.subjects for k in range(SHARED, IMAGES)]
        number = [k for k, _ in rows]
        named: dict[str, Any] = {"category": "", "source": ""}
        if self._classes is not None:
            named["category"] = self._classes["Image class"].astype(str).to_numpy()[number]
            named["source"] = self._classes["Image"].astype(str).to_numpy()[number]
        index = pd.Index([_id(k, who) for k, who in rows], name="stimulus")
        return pd.DataFrame({"caption": "", **named}, index=index)

    def table(self, subject: str, sessions: Sequence[int]) -> pd.DataFrame:
        """Return one row a trial; ``task`` of its run, ``one_back``: the picture came twice."""
        import pandas as pd

        trial = np.arange(self.trials)
        run = trial // OF_RUN + 1
        again = np.r_[False, (np.diff(self.order) == 0) & (np.diff(run) == 0)]
        return pd.DataFrame(
            {
                "stimulus": [_id(k, subject) for k in self.order],
                "split": "test",
                "session": 1,
                "run": run,
                "trial": trial + 1,
                "task": np.array(TASKS)[(run - 1) % 2],
                "one_back": again,
            }
        )

    def kept(self, table: pd.DataFrame) -> np.ndarray:
        """Return that every trial is opened."""
        return np.ones(len(table), bool)

    def groups(self, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, int]:
        """Return one group: the authors z-score over all trials of the session (SD over n)."""
        return np.zeros(len(table), int), np.ones(len(table), bool), 0

    def _place(self, stimulus: str) -> tuple[Path, int]:
        """Return the file and row of a picture."""
        found = re.fullmatch(r"synthetic-(\d{3})(?:-(subj\d\d))?", stimulus)
        number, who = (int(found[1]), found[2] or "") if found else (IMAGES, "")
        own = SHARED <= number < IMAGES
        if number >= IMAGES or own != bool(who) or (own and who not in self.subjects):
            raise UserError(
                f"{self.name} has the stimuli synthetic-000 to synthetic-{SHARED - 1} and, of "
                f"{', '.join(self.subjects)}, such as {_id(SHARED, self.subjects[0])}, not "
                f"{stimulus!r}."
            )
        if not own:
            return self.root / PICTURES / "nsdsynthetic_stimuli.hdf5", number
        file = f"nsdsynthetic_colorstimuli_{who}.hdf5"
        return self.root / PICTURES / file, number - SHARED

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture that was shown, uint8 RGB (714, 1360, 3)."""
        path, row = self._place(stimulus)
        count = IMAGES - SHARED if "color" in path.name else SHARED
        with open_hdf5(path, f"it holds the pictures and is in {BUCKET}") as file:
            bricks = hdf5_array(file, "imgBrick", kinds="u", whole=False)
            if bricks.shape != (count, *SIZE, 3):
                raise UserError(
                    f"{path} needs imgBrick of shape {(count, *SIZE, 3)}, found {bricks.shape}; "
                    f"{AGAIN}."
                )
            return hdf5_row(bricks, row).astype(np.uint8)

    def picture_origin(self, stimulus: str) -> Origin:
        """Return the row of ``imgBrick`` that holds the picture."""
        path, row = self._place(stimulus)
        return Origin(str(path), row, "imgBrick")

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return the number from both bases, and the study's name of the picture."""
        path, row = self._place(stimulus)
        number = row + SHARED if "color" in path.name else row
        found = {
            "NSD-synthetic's 284, from 0": str(number),
            "NSD-synthetic's 284, from 1": str(number + 1),
        }
        if self._classes is not None:
            found["NSD-synthetic's name"] = str(self._classes["Image"][number])
        return found

    def remarks(self) -> list[str]:
        """Return what the split and the repeats are, and which files are missing."""
        times = np.bincount(self.order, minlength=IMAGES)
        found = [
            f"Each of the {IMAGES} pictures was shown {times.min()} to {times.max()} times in one "
            "session; runs 1, 3, 5, 7 were done with a fixation task, runs 2, 4, 6, 8 with a "
            "one-back task, and trials that repeat the previous picture are kept.",
            "There are no training trials: mappers that were trained on NSD's main experiment, "
            "on the same voxels, decode it.",
        ]
        files = ["nsdsynthetic_stimuli.hdf5"]
        files += [f"nsdsynthetic_colorstimuli_{who}.hdf5" for who in self.subjects]
        absent = [file for file in files if not (self.root / PICTURES / file).is_file()]
        if absent:
            found.append(
                f"{', '.join(absent)} of {PICTURES} are missing, so their pictures cannot be "
                f"shown; they are in {BUCKET}."
            )
        if self._classes is None:
            found.append(
                f"nsdsyntheticimageinformation.csv is missing in {PLACE}, so the classes of "
                f"pictures are not told; it is in {BUCKET}."
            )
        return found

    def remarks_on(self, subject: str) -> list[str]:
        """Return nothing more."""
        return []


def _id(number: int, subject: str) -> str:
    """Return the id of a picture from 0; the last 64 are a person's own."""
    return f"synthetic-{number:03d}" + (f"-{subject}" if number >= SHARED else "")


def unequal_ncsnr(betas: Any, images: Sequence[Any]) -> np.ndarray:
    """Return ncsnr float32 (V,) of betas whose pictures came different numbers of times.

    Noise variance is the variance over the repeats of a picture, pooled over pictures by degrees
    of freedom, sum((n - 1) s^2) / sum(n - 1); signal variance is the variance over all trials
    minus that, 0 where it is negative (stats.stackexchange.com/questions/488911, as in
    prepare_nsdsynthetic_fmri.py of github.com/gifale95/NSD-synthetic). A picture that came once
    says nothing of noise. A voxel without noise gets 0.

    Parameters
    ----------
    betas
        (n, V), any rows-on-demand array; read a picture at a time.
    images
        (n,), which picture each trial shows.
    """
    shown = np.asarray(images)
    v = betas.shape[1]
    within, between, mean = np.zeros(v), np.zeros(v), np.zeros(v)
    freedom = count = 0
    for image in dict.fromkeys(shown.tolist()):
        part = np.asarray(betas[np.flatnonzero(shown == image)], np.float64)
        n, own = len(part), part.mean(axis=0)
        within += ((part - own) ** 2).sum(axis=0)
        freedom += n - 1
        shift = own - mean  # Chan et al. 1983
        between += shift**2 * count * n / (count + n)
        mean += shift * n / (count + n)
        count += n
    if not freedom:
        raise UserError("ncsnr needs pictures that were shown twice or more, found none.")
    noise = within / freedom
    signal = np.maximum((within + between) / (count - 1) - noise, 0)
    return np.sqrt(np.divide(signal, noise, out=np.zeros(v), where=noise > 0)).astype(np.float32)
