"""NSD-imagery: 18 targets seen, looked for and imagined by NSD's eight people in one session.

::

    nsddata_betas/ppdata/subj01/SPACE/nsdimageryPREPARATION/betas_nsdimagery.{hdf5,nii.gz}
    nsddata_betas/ppdata/subj01/fsaverage/nsdimagery.../{lh,rh}.betas_nsdimagery.mgh
    nsddata/experiments/nsdimagery/rawtargetimages/setA/NAME     the pictures of sets A and B

Set A are bars and crosses, set B photographs, set C concept words (zebra, yellow ...), which no
single picture stands for. Which beta is of which target: `nsd_imagery_tables`. 720 betas a
subject, volumes int16 = 300 x percent signal change; z-scored as published within each of 12
conditions, the runs (SD over n - 1; create_whole_region_imagery_normalized in src/utils.py of
github.com/MedARC-AI/MindEye_Imagery, which adds 1e-6 to the SD). Paper: Kneeland et al. 2025,
arXiv 2506.06898.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.nsd_files import BUCKET
from backends.datasets.nsd_imagery_tables import (
    BETAS,
    PICKLES,
    PLACE,
    read_cues,
    read_pairs,
)
from explorer.images import read_picture
from explorer.types import Origin, UserError

if TYPE_CHECKING:
    import pandas as pd

TASKS = {
    "imagery": "imagined",
    "vision": "seen",
    "attention": "looked for in a stream of pictures",
    "attention-cue": "about to be looked for: only its letter was shown",
}
SETS = {"A": "bars and crosses", "B": "photographs", "C": "concept words"}


class Imagery:
    """NSD-imagery; see `backends.datasets.nsd_parts.Part`.

    Parameters
    ----------
    root
        The folder of the release.
    name
        What the data set is called.
    subjects
        Whose betas there are.
    task
        Which trials are test: ``imagery``, ``vision``, ``attention`` (the stream of pictures of
        each trial) or ``attention-cue`` (the cue before it).
    targets
        ``AB``, the sets that have pictures, or one set; ``C`` has concept words and no pictures.
    cues
        A table like ``nsdimagery_stiminfo.csv`` that lies elsewhere.
    """

    experiment = "nsdimagery"
    trials = BETAS
    title = "NSD-imagery"
    citation = (
        "Kneeland, Scotti, St-Yves, Breedlove, Kay, Naselaris (2025). NSD-Imagery: A benchmark "
        "dataset for extending fMRI vision decoding methods to mental imagery. CVPR 2025, "
        "arXiv 2506.06898."
    )
    split_by = "all trials are test; NSD's main experiment has the training trials"
    test_only = True
    norms = {"condition": "z-score within condition", "none": "percent signal change"}

    def __init__(
        self,
        root: Path,
        name: str,
        subjects: Sequence[str],
        task: str = "imagery",
        targets: str = "AB",
        cues: str = "",
    ) -> None:
        self.root, self.name, self.subjects = root, name, tuple(subjects)
        for option, value, allowed in (
            ("task", task, tuple(TASKS)),
            ("targets", targets, ("AB", *SETS)),
        ):
            if value not in allowed:
                raise UserError(f"{option} is one of {', '.join(allowed)}; found {value!r}.")
        self.task, self.targets = task, targets
        self._cues = Path(cues).expanduser() if cues else None

    @property
    def note(self) -> str:
        """Which of the trials are test, and what the picture beside them is."""
        said = f"test are the trials in which the target was {TASKS[self.task]} (task {self.task})"
        sets = ", and ".join(SETS[s] for s in self.targets)
        if self.targets == "C":
            return f"{said}, of {sets}, which no single picture stands for: nothing is scored."
        seen = "was on the screen" if self.task == "vision" else "was not on the screen by itself"
        return f"{said}, of {sets}; the picture shown beside {seen}."

    @cached_property
    def _pairs(self) -> dict[str, dict[str, str]]:
        """Set -> letter -> file or word; {} where the release's list is not here."""
        return {which: read_pairs(self.root, which) for which in SETS}

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """The targets, by set and letter; ``source`` is a picture's file, or the concept word."""
        import pandas as pd

        table = self.table(self.subjects[0], [1])
        pairs = table[["set", "cue"]].drop_duplicates().sort_values(["set", "cue"])
        rows = []
        for which, letter in pairs.itertuples(index=False):
            named = self._pairs[which].get(letter, "")
            word = Path(named).stem if which == "C" else ""
            rows.append((_id(which, letter), word, SETS[which], named))
        index = pd.Index([row[0] for row in rows], name="stimulus")
        columns = dict(zip(("caption", "category", "source"), list(zip(*rows, strict=True))[1:],
                           strict=True))  # fmt: skip
        return pd.DataFrame({key: list(values) for key, values in columns.items()}, index=index)

    def table(self, subject: str, sessions: Sequence[int]) -> pd.DataFrame:
        """Return one row for each of the 720 betas; ``trial`` is its place from 1."""
        table = read_cues(self.root, subject, self._cues)
        letters = table["target"].where(table["target"] != "", table["cue"])
        table.insert(
            0, "stimulus", [_id(s, c) for s, c in zip(table["set"], letters, strict=True)]
        )
        table.insert(1, "split", "test")
        table.insert(2, "session", 1)
        table["trial"] = np.arange(len(table)) + 1
        return table

    def kept(self, table: pd.DataFrame) -> np.ndarray:
        """Return which betas are of the task and the targets, where the target is known."""
        task, _, cue = self.task.partition("-")
        epoch = {"attention": "detection", "attention-cue": "cue"}.get(self.task, "")
        of_set = table["set"].isin(list(self.targets))
        known = table["target"] != ""
        return ((table["task"] == task) & (table["epoch"] == epoch) & of_set & known).to_numpy()

    def groups(self, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, int]:
        """Return the 12 conditions: z-scores are over all betas of a run, SD over n - 1."""
        return table["part"].to_numpy(), np.ones(len(table), bool), 1

    def _target(self, stimulus: str) -> tuple[str, str]:
        """Return set and letter of a target."""
        if stimulus not in self.stimuli.index:
            raise UserError(
                f"{self.name} has the stimuli {', '.join(self.stimuli.index)}, not {stimulus!r}."
            )
        _, which, letter = stimulus.split("-", 2)
        return which, letter

    def without_picture(self, stimulus: str) -> str:
        """Return why there is no picture of a concept word, "" for the other targets."""
        which, letter = self._target(stimulus)
        if which != "C":
            return ""
        word = self.stimuli.loc[stimulus, "caption"] or f"of the letter {letter}"
        return (
            f"The target was the concept word {word!r}: no single picture stands for it, so none "
            "is shown and nothing is scored."
        )

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture of a target, uint8 RGB (H, W, 3)."""
        if why := self.without_picture(stimulus):
            raise UserError(why)
        origin = self.picture_origin(stimulus)
        if origin is None:
            which, letter = self._target(stimulus)
            raise UserError(
                f"{self.root / PLACE / which}_pair_list.mat says which picture the letter "
                f"{letter} stands for, and is not here; it and rawtargetimages are in {BUCKET}."
            )
        missing = f"it holds the target's picture and is in {BUCKET}"
        return read_picture(origin.file, missing=missing)

    def picture_origin(self, stimulus: str) -> Origin | None:
        """Return the file of a target's picture; None where none is known."""
        which, letter = self._target(stimulus)
        if which == "C" or letter not in self._pairs[which]:
            return None
        folder = self.root / PLACE / "rawtargetimages" / f"set{which}"
        return Origin(str(folder / self._pairs[which][letter]))

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return letter and file of a target; a photograph of NSD has its 73k id there, from 1."""
        which, letter = self._target(stimulus)
        found = {f"NSD-imagery's letter in set {which}": letter}
        named = self._pairs[which].get(letter, "")
        if named:
            found["concept word" if which == "C" else "file name"] = named
        if of_nsd := re.fullmatch(r"shared(\d{4})_nsd(\d{5})\.\w+", named):
            found["NSD's shared1000, from 1"] = str(int(of_nsd[1]))
            found["NSD's 73k, from 0"] = str(int(of_nsd[2]) - 1)
            found["NSD's 73k, from 1"] = str(int(of_nsd[2]))
        return found

    def remarks(self) -> list[str]:
        """Return which trials are read and left out, and which files are missing."""
        table = self.table(self.subjects[0], [1])
        counts = table[["task", "epoch"]].value_counts()
        told = ", ".join(
            f"{n} of {task}{f' ({epoch})' * bool(epoch)}" for (task, epoch), n in counts.items()
        )
        vision = table[table["task"] == "vision"]
        found = [
            f"Of {len(table)} betas ({told}), {int(self.kept(table).sum())} are read: ?task= is "
            f"one of {', '.join(TASKS)}.",
            f"In {int((vision['target'] != vision['cue']).sum())} of {len(vision)} trials of "
            "vision the letter on the screen was not that of the picture; the stimulus is what "
            "was seen.",
        ]
        if unknown := int((table["target"] == "").sum()):
            found.append(
                f"What was seen in {unknown} trials of vision, beside another target's letter, is "
                "not in the table of others; they are left out, and the release's own tables "
                f"(nsddata/bdata/nsdimagery in {BUCKET}) say it."
            )
        if "C" not in self.targets:
            found.append(
                "Set C (concept words) has no single target picture and is left out; ?targets=C "
                "opens it alone, without pictures and scores."
            )
        found.append(
            "There are no training trials: mappers that were trained on NSD's main experiment, "
            "on the same voxels, decode it."
        )
        absent = [f"{which}_pair_list.mat" for which in SETS if not self._pairs[which]]
        if absent:
            found.append(
                f"{', '.join(absent)} of {PLACE} are missing, so pictures and words of these sets "
                f"are unknown; they are in {BUCKET}."
            )
        for pickle in PICKLES:
            if (self.root / pickle).is_file():
                found.append(f"{pickle} is a pickle and is not opened; plain tables are read.")
        return found

    def remarks_on(self, subject: str) -> list[str]:
        """Return nothing more."""
        return []


def _id(which: str, letter: str) -> str:
    """Return the id of a target, e.g. imagery-A-L."""
    return f"imagery-{which}-{letter}"
