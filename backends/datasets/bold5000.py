"""BOLD5000 (Chang et al. 2019), release 2, as its authors and MinD-Vis lay it out on disk.

::

    BOLD5000_GLMsingle_ROI_betas/py/CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_LHEarlyVis.npy
    BOLD5000_GLMsingle_ROI_betas/mat/...     the same arrays, one variable a file
    CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_ses-01.nii.gz      whole brain, one file a session
    CSI1_brainmask.nii.gz
    derivatives/spm/sub-CSI1/sub-CSI1_mask-LHLOC.nii.gz         ROIs in the volumes (ds001499)
    BOLD5000_Stimuli/Stimuli_Presentation_Lists/CSI1/CSI1_sess01/CSI1_sess01_run01.txt
    CSI1_imgnames.txt                        the same lists in one file (also sub-CSI1_imgnames)
    sub-CSI1/ses-01/func/sub-CSI1_ses-01_task-5000scenes_run-01_events.tsv   and in ds001499
    BOLD5000_Stimuli/Scene_Stimuli/repeated_stimuli_113_list.txt
    BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli/{COCO,ImageNet,Scene}/*
    stimuli/*                                the same images in ds001499, snapshot 1.2.0 only

Rows of the betas are the lists in the order of sessions and runs. Sources: README of
github.com/BOLD5000-dataset/BOLD5000 (names, sizes, units, z-scoring within session; type B is
spelt TYBEB there); github.com/zjc062/mind-vis (folders, columns by ROI); the lists of
github.com/nchang430/BOLD5000-Scripts, of github.com/tarrlab/BOLD5000-GLMs and the events of
ds001499 1.3.1, which agree on every trial of all four people once ``rep_`` is taken off.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.bold5000_arrays import load_regions
from backends.datasets.bold5000_files import (
    HEMISPHERES,
    PEOPLE,
    RELEASE_2,
    ROIS,
    STIMULI,
    find,
    no_betas,
    pictures,
    recognised,
    where_pictures,
)
from backends.datasets.bold5000_lists import (
    REPEATED,
    describe_images,
    read_lists,
    repeated_images,
    stem,
)
from backends.datasets.bold5000_volumes import Sessions, load_volumes, volume_remarks
from explorer.images import read_picture
from explorer.types import Label, Origin, Subject, Trials, UserError

if TYPE_CHECKING:
    import pandas as pd

TYPES = {
    "A": "canonical HRF",
    "B": "fitted HRF",
    "C": "fitted HRF, GLMdenoise",
    "D": "fitted HRF, GLMdenoise, ridge",
}


class BOLD5000:
    """Four people who saw nearly 5,000 photographs; betas of release 2 by ROI or whole brain.

    Test stimuli are the 113 repeated images (CSI4 saw 106 of them), for everybody.

    Parameters
    ----------
    path
        The folder that holds the betas; lists and images lie in it or beside it.
    name
        What the data set is called.
    source
        ``roi`` (arrays, one a region), ``volume`` (NIfTI, one a session), or ``auto``: ROI arrays
        where there are any.
    type
        How the betas were estimated, ``A`` to ``D``; D is what the authors recommend.
    norm
        ``session`` z-scores every voxel within session by its training trials, as the authors
        recommend; ``none`` leaves percent signal change.
    """

    looks_for = "CSI1_GLMbetas-TYPED-..., arrays of ROIs or volumes, and lists of trials"
    title = "BOLD5000 (release 2)"
    licence = "fMRI CC0; the images keep the terms of COCO, ImageNet and SUN"
    citation = (
        "Chang, Pyles, Marcus, Gupta, Tarr, Aminoff (2019). BOLD5000, a public fMRI dataset while "
        "viewing 5000 visual images. Scientific Data 6:49."
    )
    simulated = False
    redistributable = False
    split_unit = "stimulus"

    def __init__(
        self, path: Path, name: str, source: str = "auto", type: str = "D", norm: str = "session"
    ) -> None:
        self.path, self.name = Path(path), name
        for option, value, allowed in (
            ("source", source, ("auto", "roi", "volume")),
            ("type", type.upper(), tuple(TYPES)),
            ("norm", norm, ("session", "none")),
        ):
            if value not in allowed:
                raise UserError(f"{option} is one of {', '.join(allowed)}; found {value!r}.")
        if not self.path.is_dir():
            raise UserError(f"{self.path} is not a folder; give the one with BOLD5000's betas.")
        self.type, self.norm = type.upper(), norm
        self._files = find(self.path)
        self.source = self._choose(source)
        self.note = (
            "These voxels are known by region only, so there is a table of parcels and no map."
            if self.source == "roi"
            else "The volumes lie in each person's own space, so there is no map on fsaverage5."
        )
        self._volumes = Sessions()

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a folder holds files named as BOLD5000's are, two levels down at most."""
        return recognised(Path(path))

    # ------------------------------------------------------------------------------------- finding

    def _choose(self, source: str) -> str:
        """Return roi or volume, whichever is there and was asked for."""
        kinds = {
            "roi": {key[1] for key in self._files.rois},
            "volume": {key[1] for key in self._files.volumes},
        }
        if not any(kinds.values()):
            raise UserError(no_betas(self.path, self._files))
        if source == "auto":
            source = "roi" if self.type in kinds["roi"] or not kinds["volume"] else "volume"
        if self.type not in kinds[source]:
            there = [
                f"{kind} of type {t}" for kind in kinds for t in sorted(kinds[kind])
            ]  # source and type of what could be opened instead
            raise UserError(
                f"{self.path} has no {source} betas of type {self.type}; it has "
                f"{', '.join(there)}: choose with ?source= and ?type=."
            )
        return source

    # --------------------------------------------------------------------------------------- lists

    @cached_property
    def _lists(self) -> dict[str, pd.DataFrame]:
        return read_lists(self._files)

    @cached_property
    def _test(self) -> frozenset[str]:
        return repeated_images(self._files, self._lists)

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """One row an image by file name: caption, category, source and the name it has on disk.

        ``category`` is COCO, ImageNet or Scene, told by the name; ``caption`` the words of the
        WordNet id (ImageNet, from Image_Labels) or the scene's name; ``source`` the WordNet id or
        COCO's number.
        """
        if not self._lists:
            raise UserError(
                f"{self.path} has betas but no presentation list, which says what was shown; take "
                f"Stimuli_Presentation_Lists of {STIMULI}, or CSI1_imgnames.txt of {RELEASE_2}."
            )
        return describe_images(self._files, self._lists)

    # -------------------------------------------------------------------------------------- trials

    def subjects(self) -> list[str]:
        """Return the participants who have betas of this source and type."""
        keys = self._files.rois if self.source == "roi" else self._files.volumes
        return sorted({key[0] for key in keys if key[1] == self.type})

    def load(self, subject: str) -> Trials:
        """Return one participant's trials; betas stay on disk and are read by rows.

        Voxels that are not finite, or that do not change between the first two trials of any
        session, are left out: GLMsingle writes NaN or a constant for a whole session, so that
        this cheap look finds them.
        """
        return self._load(subject)[0]

    def _load(self, subject: str) -> tuple[Trials, int]:
        """Return the trials and how many voxels were left out."""
        if subject not in self.subjects():
            raise UserError(
                f"{self.name} has the subjects {', '.join(self.subjects())}, not {subject!r}."
            )
        if subject not in self._lists:
            raise UserError(
                f"{subject} has betas but no presentation list in {self.path}; take "
                f"Stimuli_Presentation_Lists of {STIMULI}."
            )
        table = self._table(subject)
        source = f"{self.name}/{subject}"
        about = (self._files, subject, self.type, table, self.norm, source)
        if self.source == "roi":
            voxels, betas, lost = load_regions(*about)
        else:
            voxels, betas, lost = load_volumes(*about, self._volumes)
        z = self.norm == "session"
        unit = "z-score within session" if z else "percent signal change"
        return Trials(Subject(self.name, subject, voxels), betas, unit, table), lost

    def _sessions(self, subject: str) -> list[int]:
        """Return the sessions whose betas are here."""
        if self.source == "roi":
            return list(range(1, len(PEOPLE[subject].runs) + 1))
        keys = self._files.volumes
        return sorted({key[2] for key in keys if key[:2] == (subject, self.type)})

    def _table(self, subject: str) -> pd.DataFrame:
        """Return one row a trial of the sessions that are here."""
        table = self._lists[subject]
        table = table[table["session"].isin(self._sessions(subject))].reset_index(drop=True)
        stimulus = table["file"].map(stem)
        split = np.where(stimulus.isin(self._test), "test", "train")
        table = table[["session", "run"]].assign(stimulus=stimulus, split=split)
        return table.assign(repeat=table.groupby("stimulus").cumcount())

    # -------------------------------------------------------------------------------------- images

    @cached_property
    def _images(self) -> dict[str, Path]:
        return pictures(self._files)

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture that was shown, uint8 RGB (H, W, 3)."""
        if stimulus not in self.stimuli.index:
            raise UserError(
                f"{self.name} has no stimulus {stimulus!r}; it has {len(self.stimuli)}, such as "
                f"{self.stimuli.index[0]!r}."
            )
        file = self._images.get(stimulus.lower())
        if file is None:
            raise UserError(
                f"The picture of {stimulus!r} is not in {self.path}; "
                f"{where_pictures(self._files)}."
            )
        return read_picture(file, f"The picture of {stimulus!r}")

    split_by = "the authors: images shown more than once (113 of their list) are test"

    def picture_origin(self, stimulus: str) -> Origin | None:
        """Return where a picture lies; None where it is not here."""
        file = self._images.get(stimulus.lower())
        return None if file is None else Origin(str(file))

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return what names a picture: its file, and COCO's number or the WordNet id."""
        about = self.stimuli.loc[stimulus]
        kind = {"COCO": "COCO", "ImageNet": "WordNet"}.get(str(about["category"]))
        found = {"file name": stimulus}
        return found | ({kind: str(about["source"])} if kind and about["source"] else {})

    # ------------------------------------------------------------------------------------- remarks

    def remarks(self) -> list[str]:
        """Return what is lacking, left out or special here, one sentence each."""
        said: list[str] = []
        files = self._files
        other = {"roi": files.volumes, "volume": files.rois}[self.source]
        if other:
            there = "volume" if self.source == "roi" else "roi"
            said.append(f"There are {there} betas too; open them with ?source={there}.")
        try:
            self._say_lists(said)
            for subject in self.subjects():
                self._say_subject(subject, said)
            if self._lists:
                self._say_images(said)
        except UserError as error:
            return [*said, str(error)]
        if self.source == "volume":
            said.append(
                "The volumes lie in each person's own space and are not drawn on fsaverage5: that "
                "needs the person's FreeSurfer surfaces (ds001499, derivatives/freesurfer) and a "
                "registration of the volumes to them, which is not read here."
            )
            if not files.roi_masks:
                said.append(
                    "There are no ROI masks; sub-CSI1_mask-LHLOC.nii.gz and the others come from "
                    "derivatives/spm of ds001499 (python -m backends fetch bold5000)."
                )
        if self.norm == "session":
            said.append(
                "Betas are z-scored within session by training trials, as the authors recommend; "
                "MinD-Vis takes one mean over all trials and voxels, test included, and pads each "
                "row, so neither its numbers nor its voxel counts compare."
            )
        return said

    def _say_lists(self, said: list[str]) -> None:
        for who in self.subjects():
            if who not in self._lists:
                said.append(
                    f"{who} has betas but no presentation list, so it cannot be opened; take "
                    f"{STIMULI}."
                )
        if self._lists and len(self._test) < REPEATED:
            said.append(
                f"Only {len(self._test)} of the {REPEATED} repeated images can be told from these "
                "lists, and the others count as training; repeated_stimuli_113_list.txt of "
                f"{STIMULI} names them all."
            )

    def _say_subject(self, subject: str, said: list[str]) -> None:
        if subject not in self._lists:
            return
        trials, lost = self._load(subject)
        table = trials.table
        test = table["stimulus"][table["split"] == "test"].value_counts()
        counts = Counter(test)
        shown = ", ".join(f"{counts[n]} of them {n} times" for n in sorted(counts, reverse=True))
        said.append(f"{subject}: {len(test)} of the {REPEATED} test images were shown, {shown}.")
        if lost:
            said.append(
                f"{subject}: {lost} voxels were left out, because they are not finite or do not "
                f"change; {trials.betas.shape[1]} remain."
            )
        if self.source == "roi":
            have = {label.key for label in trials.subject.voxels.parcellations["ROIs"].labels}
            want = [Label(roi, side).key for roi in ROIS for side in HEMISPHERES.values()]
            lacking = [key for key in want if key not in have]
            if lacking:
                said.append(
                    f"{subject} lacks the array of {', '.join(lacking)}; it comes with "
                    f"BOLD5000_GLMsingle_ROI_betas.zip of {RELEASE_2}."
                )
            return
        said += volume_remarks(self._files, subject, self.type)

    def _say_images(self, said: list[str]) -> None:
        absent = [name for name in self.stimuli.index if name.lower() not in self._images]
        if absent:
            said.append(
                f"{len(absent)} of {len(self.stimuli)} pictures are not here, such as "
                f"{absent[0]}; {where_pictures(self._files)}."
            )
