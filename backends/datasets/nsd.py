"""The Natural Scenes Dataset (Allen et al. 2022), the raw release as it comes from its bucket.

::

    nsddata/experiments/nsd/nsd_expdesign.mat        which image was shown in which trial
    nsddata/experiments/nsd/nsd_stim_info_merged.csv COCO ids of the 73,000 images (optional)
    nsddata/ppdata/subj01/behav/responses.tsv        one row a trial (optional: a check, and runs)
    nsddata/ppdata/subj01/func1pt8mm/roi/            ROIs and places: see `nsd_space`
    nsddata_betas/ppdata/subj01/SPACE/PREPARATION/betas_session01.{hdf5,nii.gz}
    nsddata_betas/ppdata/subj01/fsaverage/PREPARATION/{lh,rh}.betas_session01.mgh
    nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5     the images

Layout and units: NSD data manual (cvnlab.slite.page), github.com/ozcelikfu/brain-diffuser and
github.com/yu-takagi/StableDiffusionReconstruction. ``masterordering``, ``subjectim``, ``sharedix``
and 73KID count from 1, HDF5 rows and our ids (``nsd-00000`` to ``nsd-72999``) from 0. A session is
12 runs of 63 and 62 trials by turns (Allen et al. 2022, Methods).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.nsd_betas import Sessions, find_betas, find_relatives, open_surface
from backends.datasets.nsd_design import (
    DESIGN,
    IMAGES,
    SESSIONS,
    Design,
    read_design,
    responses_path,
    stimulus_id,
    table_of,
)
from backends.datasets.nsd_files import AGAIN, BUCKET, PEOPLE, PREPARATIONS, SPACES
from backends.datasets.nsd_space import Brains
from backends.datasets.reading import hdf5_array, hdf5_row, open_hdf5, standardised
from explorer.files import read_table, reason
from explorer.types import Subject, Trials, UserError

if TYPE_CHECKING:
    import pandas as pd

SIDE = 425  # pixels of an image
STIMULI = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
_ROI_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class NSD:
    """Eight people, up to 30,000 trials each; the 1,000 images that all eight share are test.

    What a trial costs: in HDF5 the 750 trials of a voxel lie together, and ``.nii.gz`` can only be
    unpacked from its start, so that one trial takes as long as its session (HDF5: the bounds of
    the ROI; ``.nii.gz``: about 1 GB at 1.8 mm). A session is therefore read as a whole, the last
    ones stay in memory (256 MB), and so do the test trials of every session that was read (94 MB
    for 40 sessions at 1.8 mm), because ranking among the test images asks for all of them.
    Unpacked ``.nii`` and ``.mgh`` are read trial by trial. Z-scores need every training trial of a
    session once.

    Parameters
    ----------
    path
        The folder that holds ``nsddata`` and ``nsddata_betas``.
    name
        What the data set is called.
    space
        ``func1pt8mm``, ``func1mm`` or ``fsaverage``; ``auto`` is the first of these with betas.
    prep
        ``b3`` (fitted HRF, GLMdenoise, ridge), ``b2`` (fitted HRF) or ``b1`` (assumed HRF);
        ``auto`` is the first of these with betas.
    roi
        The ROI whose voxels are read, by the name of its file, where its values are above 0; on
        fsaverage also ``all``.
    norm
        ``session`` z-scores every voxel within session by its training trials; ``none`` leaves
        percent signal change.
    """

    looks_for = "nsddata/experiments/nsd/nsd_expdesign.mat or nsddata_betas/ppdata/"
    title = "Natural Scenes Dataset"
    licence = "NSD Terms and Conditions (by form); the images keep the terms of COCO"
    citation = (
        "Allen, St-Yves, Wu, Breedlove, Prince, Dowdle, Nau, Caron, Pestilli, Charest, "
        "Hutchinson, Naselaris, Kay (2022). A massive 7T fMRI dataset to bridge cognitive "
        "neuroscience and artificial intelligence. Nature Neuroscience 25:116-126."
    )
    simulated = False
    redistributable = False
    split_unit = "stimulus"

    def __init__(
        self,
        path: Path,
        name: str,
        space: str = "auto",
        prep: str = "auto",
        roi: str = "nsdgeneral",
        norm: str = "session",
    ) -> None:
        self.path, self.name = _root(Path(path)), name
        by_folder = {folder: short for short, folder in PREPARATIONS.items()}
        prep = by_folder.get(prep, prep)
        for option, value, allowed in (
            ("space", space, ("auto", *SPACES)),
            ("prep", prep, ("auto", *PREPARATIONS)),
            ("norm", norm, ("session", "none")),
        ):
            if value not in allowed:
                raise UserError(f"{option} is one of {', '.join(allowed)}; found {value!r}.")
        if not _ROI_NAME.fullmatch(roi):
            raise UserError(f"roi is the name of an ROI file, such as nsdgeneral; found {roi!r}.")
        if not self.recognise(self.path):
            raise UserError(
                f"{path} does not hold NSD; give the folder that has nsddata and nsddata_betas "
                f"as they lie in {BUCKET}."
            )
        self.roi, self.norm = roi, norm
        self._betas = find_betas(self.path)
        self.space, self.prep = self._choose(space, prep)
        if roi == "all" and self.space != "fsaverage":
            raise UserError(
                f"roi=all is for space=fsaverage; most voxels of {self.space} lie outside cortex: "
                "choose an ROI such as nsdgeneral, streams or HCP_MMP1."
            )
        self.note = (
            f"Betas {self.prep} in {self.space}, {roi}; the test images are the 1,000 that all "
            "eight people share."
        )
        self._reader = Sessions(self.space)
        self._brains = Brains(self.path, name, self.space, self.prep, roi)

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a folder has NSD's design or its folders of betas in their places."""
        root = _root(Path(path))
        try:
            return (root / DESIGN).is_file() or (root / "nsddata_betas" / "ppdata").is_dir()
        except (OSError, ValueError):
            return False  # a folder that may not be entered

    def _choose(self, space: str, prep: str) -> tuple[str, str]:
        """Return the first space and preparation with betas among those asked for."""
        for s, p in product(SPACES, PREPARATIONS):
            if space in ("auto", s) and prep in ("auto", p) and (s, p) in self._betas:
                return s, p
        others = find_relatives(self.path)
        if others and not self._betas:
            raise UserError(
                f"{self.path} holds {' and '.join(others)}, and none of NSD's own sessions; that "
                "experiment cannot be opened as NSD: write its betas (volumes hold 300 x percent "
                f"signal change) as a plain folder, or take NSD's betas from {BUCKET}."
            )
        there = ", ".join(f"space={s}&prep={p}" for s, p in self._betas)
        raise UserError(
            f"{self.path / 'nsddata_betas' / 'ppdata'} holds no betas of space {space} and "
            f"preparation {prep}; "
            + (
                f"choose among {there}."
                if there
                else "those of func1pt8mm, func1mm and fsaverage can be read (nativesurface and "
                f"MNI cannot) and come from {BUCKET}."
            )
        )

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """The 73,000 images; ``source`` is the photograph in COCO where the table of ids is."""
        import pandas as pd

        source = np.full(IMAGES, "", dtype=object)
        file = self.path / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
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

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture that was shown, uint8 RGB (425, 425, 3)."""
        found = re.fullmatch(r"nsd-(\d{5})", stimulus)
        if not found or int(found[1]) >= IMAGES:
            raise UserError(
                f"{self.name} has the stimuli nsd-00000 to nsd-{IMAGES - 1}, not {stimulus!r}."
            )
        path = self.path / STIMULI
        with open_hdf5(path, f"it holds the images (37 GB) and is in {BUCKET}") as file:
            bricks = hdf5_array(file, "imgBrick", kinds="u", whole=False)
            if bricks.shape != (IMAGES, SIDE, SIDE, 3):
                raise UserError(
                    f"{path} needs imgBrick of shape ({IMAGES}, {SIDE}, {SIDE}, 3), found "
                    f"{bricks.shape}; copy it again."
                )
            return hdf5_row(bricks, int(found[1])).astype(np.uint8)

    def subjects(self) -> list[str]:
        """Return the participants who have betas in this space and preparation."""
        return list(self._betas[self.space, self.prep])

    def load(self, subject: str) -> Trials:
        """Return one participant's trials; betas stay on disk and are read by sessions or trials.

        Voxels whose ncsnr is not a number were not measured in every session and are left out,
        and so are vertices that are not finite in the first trial on disk. A voxel that never
        varies within a session becomes 0 there.
        """
        if subject not in self.subjects():
            raise UserError(
                f"{self.name} has the subjects {', '.join(self.subjects())} in {self.space}, "
                f"{self.prep}, not {subject!r}."
            )
        sessions = self._sessions(subject)
        table = table_of(self.path, self._design, subject, list(sessions))
        voxels = self._brains.voxels(subject, self._first(subject))
        source = f"{self.name}/{subject}"
        betas = self._reader.rows(subject, sessions, voxels.mask, table, source)
        if self.norm == "session":
            train = (table["split"] == "train").to_numpy()
            betas = standardised(betas, table["session"].to_numpy(), train)
        who = Subject(self.name, subject, voxels.space, voxels.ncsnr)
        unit = "z-score within session" if self.norm == "session" else "percent signal change"
        return Trials(who, betas, unit, table)

    @cached_property
    def _design(self) -> Design:
        return read_design(self.path)

    def _sessions(self, subject: str) -> dict[int, tuple[Path, ...]]:
        """Return session -> its file, or its two; a session that lacks a hemisphere is not in."""
        found = self._betas[self.space, self.prep][subject]
        needed = 2 if self.space == "fsaverage" else 1
        whole = {s: tuple(files.values()) for s, files in found.items() if len(files) == needed}
        if not whole:
            raise UserError(
                f"{self.name}/{subject}: no session has both hemispheres; the files that lack are "
                f"in {BUCKET}."
            )
        return whole

    def _first(self, subject: str) -> Callable[[], np.ndarray]:
        """Return what gives the first trial on disk over both surfaces."""
        paths = next(iter(self._sessions(subject).values()))
        return lambda: np.concatenate([open_surface(path)[:, 0] for path in paths])

    def remarks(self) -> list[str]:
        """Return what a person should know of this copy, one sentence each."""
        found = [
            f"Read are betas {self.prep} ({PREPARATIONS[self.prep]}) in {self.space}, "
            f"{self.roi}, with "
            + (
                "every voxel z-scored within session by its training trials."
                if self.norm == "session"
                else "percent signal change as published."
            )
        ]
        others = [
            f"?space={s}&prep={p} ({', '.join(people)})"
            for (s, p), people in self._betas.items()
            if (s, p) != (self.space, self.prep)
        ]
        if others:
            found.append(f"Further betas are here: {'; '.join(others)}.")
        relatives = find_relatives(self.path)
        if relatives:
            found.append(f"Here, too, and not read: {' and '.join(relatives)}.")
        found.append(
            "The split is by image: the 1,000 images that all eight people share are test; "
            "MindEye1 and Brain-Diffuser read 37 sessions and tested on 982 of them."
        )
        for path, use in (
            (STIMULI, "no picture can be shown"),
            ("nsddata/experiments/nsd/nsd_stim_info_merged.csv", "COCO's ids are not told"),
        ):
            if not (self.path / path).is_file():
                found.append(f"{path} is missing, so {use}; it is in {BUCKET}.")
        for subject in self.subjects():
            found += self._remarks_on(subject)
        return found

    def _remarks_on(self, subject: str) -> list[str]:
        files, found = self._betas[self.space, self.prep][subject], []
        whole, expected = self._sessions(subject), PEOPLE[subject].sessions
        absent = [s for s in range(1, expected + 1) if s not in files]
        if absent:
            found.append(
                f"{subject}: {len(whole)} of {expected} sessions are here; the trials of session "
                f"{_ranges(absent)} are left out, and the betas are in {BUCKET}."
            )
        else:
            short = " (the others were never measured)" if expected < SESSIONS else ""
            found.append(f"{subject}: all {expected} sessions are here{short}.")
        for session in sorted(set(files) - set(whole)):
            (has,) = files[session]
            other = "rh" if has == "lh" else "lh"
            found.append(
                f"{subject}: session {session} lacks {other}.betas_session{session:02d}.mgh and "
                f"is left out; it is in {BUCKET}."
            )
        if not responses_path(self.path, subject).is_file():
            found.append(
                f"{subject}: responses.tsv is missing, so the order of images is taken from the "
                "design alone, where a mix-up of subjects cannot be noticed."
            )
        return found + self._brains.remarks(subject, self._first(subject))


def _root(path: Path) -> Path:
    """Return the folder that holds ``nsddata``, also when one of its parts was given."""
    parts = ("nsddata", "nsddata_betas", "nsddata_stimuli")
    return path.parent if path.name in parts and not (path / path.name).is_dir() else path


def _ranges(numbers: list[int]) -> str:
    """Return 1-3, 7 for [1, 2, 3, 7]."""
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    pieces = np.split(np.asarray(numbers), breaks)
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in pieces)
