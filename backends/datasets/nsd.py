"""The Natural Scenes Dataset (Allen et al. 2022), the raw release as it comes from its bucket.

Three experiments with the same people lie in one tree, each a part: `nsd_main`, `nsd_synthetic`
and `nsd_imagery` know which picture a beta is of. Where betas and voxels lie::

    nsddata/ppdata/subj01/func1pt8mm/roi/            ROIs and places: see `nsd_space`
    nsddata_betas/ppdata/subj01/SPACE/PREPARATION/betas_session01.{hdf5,nii.gz}
    nsddata_betas/ppdata/subj01/fsaverage/PREPARATION/{lh,rh}.betas_session01.mgh
    nsddata_betas/ppdata/subj01/SPACE/nsdimageryPREPARATION/betas_nsdimagery.{hdf5,nii.gz}

Layout and units: NSD data manual (cvnlab.slite.page), github.com/ozcelikfu/brain-diffuser and
github.com/yu-takagi/StableDiffusionReconstruction. A session of the main experiment is 12 runs of
63 and 62 trials by turns (Allen et al. 2022, Methods).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.nsd_betas import (
    PARTS,
    Sessions,
    choose,
    find_betas,
    open_surface,
    other_parts,
)
from backends.datasets.nsd_design import DESIGN, SESSIONS
from backends.datasets.nsd_files import BUCKET, PEOPLE, PREPARATIONS, SPACES
from backends.datasets.nsd_imagery import Imagery
from backends.datasets.nsd_main import Main
from backends.datasets.nsd_parts import Part, without_nan
from backends.datasets.nsd_places import MAPPINGS
from backends.datasets.nsd_space import Brains, Voxels
from backends.datasets.nsd_synthetic import Synthetic, unequal_ncsnr
from backends.datasets.reading import chosen, standardised
from explorer.types import Origin, Subject, Trials, UserError

if TYPE_CHECKING:
    import pandas as pd

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
        ``session`` z-scores every voxel within session by its training trials (NSD-synthetic: by
        all trials), ``condition`` within each of NSD-imagery's 12; ``none`` leaves percent signal
        change; "" is the first of these that the part has.
    part
        ``main``, or one of the two other experiments, which are test only: ``synthetic``,
        ``imagery``. Their voxels are those of the main one, so its mappers decode them.
    ncsnr
        ``main`` takes ncsnr as published for the main experiment; ``own`` computes it from the
        repeats of NSD-synthetic, which reads all its betas on opening.
    mapping
        How volumes reach the surface, ``linear``, ``nearest`` or ``cubic`` between voxels; which
        voxels are read does not depend on it.
    task, targets, cues
        Of NSD-imagery, see `backends.datasets.nsd_imagery.Imagery`.
    """

    looks_for = "nsddata/experiments/nsd/nsd_expdesign.mat or nsddata_betas/ppdata/"
    licence = "NSD Terms and Conditions (by form); the images keep the terms of COCO"
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
        norm: str = "",
        part: str = "main",
        ncsnr: str = "main",
        task: str = "",
        targets: str = "",
        cues: str = "",
        mapping: str = "linear",
    ) -> None:
        self.path, self.name = _root(Path(path)), name
        by_folder = {folder: short for short, folder in PREPARATIONS.items()}
        prep = by_folder.get(prep, prep)
        for option, value, allowed in (
            ("part", part, tuple(PARTS)),
            ("space", space, ("auto", *SPACES)),
            ("prep", prep, ("auto", *PREPARATIONS)),
            ("ncsnr", ncsnr, ("main", "own")),
            ("mapping", mapping, tuple(MAPPINGS)),
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
        if ncsnr == "own" and part != "synthetic":
            raise UserError(
                "ncsnr=own is for part=synthetic, whose repeats it is computed from; leave it out."
            )
        self.roi, self._own = roi, ncsnr == "own"
        self._betas = find_betas(self.path, PARTS[part])
        self.space, self.prep = choose(self.path, self._betas, space, prep, part)
        if mapping != "linear" and self.space == "fsaverage":
            raise UserError(
                f"mapping={mapping} is for volumes, fsaverage needs none; leave it out."
            )
        if roi == "all" and self.space != "fsaverage":
            raise UserError(
                f"roi=all is for space=fsaverage; most voxels of {self.space} lie outside cortex: "
                "choose an ROI such as nsdgeneral, streams or HCP_MMP1."
            )
        own = {"task": task, "targets": targets, "cues": cues}
        own = {key: value for key, value in own.items() if value}
        self._part = _open_part(part, self.path, name, self.subjects(), own)
        self.norm = norm or next(iter(self._part.norms))
        if self.norm not in self._part.norms:
            allowed = ", ".join(self._part.norms)
            raise UserError(f"norm is one of {allowed}; found {norm!r}.")
        self._reader = Sessions(self.space, self._part.trials)
        prep = _voxel_prep(self.path, self.space, self.prep) if part != "main" else self.prep
        self._brains = Brains(self.path, name, self.space, prep, roi, mapping)

    def relatives(self) -> dict[str, dict[str, str]]:
        """Return the further experiments that lie here, see `explorer.protocols.Dataset`."""
        same, found = {"space": self.space, "roi": self.roi}, {}
        there = {part for part in PARTS if self._has(part)}
        if "synthetic" in there:
            found["NSD-synthetic"] = same | {"part": "synthetic"}
        if "imagery" in there:
            task = {"seen": "vision", "imagined": "imagery"}
            found |= {w: same | {"part": "imagery", "task": t} for w, t in task.items()}
        return found

    def _has(self, part: str) -> bool:
        """Return whether betas of a part lie here in the space that is read."""
        return any(space == self.space for space, _ in find_betas(self.path, PARTS[part]))

    @property
    def title(self) -> str:
        """The part's name."""
        return self._part.title

    @property
    def citation(self) -> str:
        """Who is to be cited for the part."""
        return self._part.citation

    @property
    def note(self) -> str:
        """Which betas are read, and which trials are test."""
        return f"Betas {self.prep} in {self.space}, {self.roi}; {self._part.note}"

    @property
    def split_by(self) -> str:
        """Who defined train and test."""
        return self._part.split_by

    @property
    def test_only(self) -> bool:
        """Whether there are no training trials, and mappers of the main experiment serve."""
        return self._part.test_only

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a folder has NSD's design or its folders of betas in their places."""
        root = _root(Path(path))
        try:
            return (root / DESIGN).is_file() or (root / "nsddata_betas" / "ppdata").is_dir()
        except (OSError, ValueError):
            return False  # a folder that may not be entered

    @property
    def stimuli(self) -> pd.DataFrame:
        """The part's pictures."""
        return self._part.stimuli

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture that was shown (main: (425, 425, 3), synthetic: (714, 1360, 3))."""
        return self._part.image(stimulus)

    def without_picture(self, stimulus: str) -> str:
        """Return why no single picture can stand for a stimulus, "" where one does."""
        why = getattr(self._part, "without_picture", None)
        return why(stimulus) if why else ""

    def picture_origin(self, stimulus: str) -> Origin | None:
        """Return where a picture lies, None in no file."""
        return self._part.picture_origin(stimulus)

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return every id of a picture, each kind with its base."""
        return self._part.ids(stimulus)

    def subjects(self) -> list[str]:
        """Return the participants who have betas in this space and preparation."""
        return list(self._betas[self.space, self.prep])

    def load(self, subject: str) -> Trials:
        """Return one participant's trials; betas stay on disk and are read by sessions or trials.

        Voxels whose ncsnr is not a number were not measured in every session and are left out,
        and so are vertices that are not finite in the first trial on disk: by the main
        experiment's files, so that every part has the same voxels. Where another part is NaN, it
        becomes 0. A voxel that never varies within a session becomes 0 there.
        """
        table, rows = self._trials(subject)
        voxels = self._brains.voxels(subject, self._first(subject))
        source = f"{self.name}/{subject}"
        sessions = self._sessions(subject)
        betas = self._reader.rows(subject, sessions, voxels.mask, table, source)
        if self._part.experiment:
            betas = without_nan(betas)
        ncsnr = unequal_ncsnr(betas, table["stimulus"]) if self._own else voxels.ncsnr
        if self.norm != "none":
            group, counts, ddof = self._part.groups(table)
            betas = standardised(betas, group, counts, ddof)
        if len(rows) < len(table):
            betas, table = chosen(betas, rows), table.iloc[rows].reset_index(drop=True)
        table.insert(2, "repeat", table.groupby("stimulus").cumcount())
        who = Subject(self.name, subject, voxels.space, ncsnr)
        return Trials(who, betas, self._part.norms[self.norm], table)

    def _trials(self, subject: str) -> tuple[pd.DataFrame, np.ndarray]:
        """Return a row for every beta on disk, and the numbers of those that are opened."""
        if subject not in self.subjects():
            raise UserError(
                f"{self.name} has the subjects {', '.join(self.subjects())} in {self.space}, "
                f"{self.prep}, not {subject!r}."
            )
        table = self._part.table(subject, list(self._sessions(subject)))
        return table, np.flatnonzero(self._part.kept(table))

    def origins(self, subject: str, trial: int) -> list[Origin]:
        """Return the file, or the two, that hold a row of ``load(subject).betas``."""
        table, rows = self._trials(subject)
        if not 0 <= trial < len(rows):
            raise UserError(
                f"{self.name}/{subject} has the trials 0 to {len(rows) - 1}, not {trial}."
            )
        found = table.iloc[rows[trial]]
        files = self._betas[self.space, self.prep][subject][int(found["session"])]
        norm = "" if self.norm == "none" else f", then {self._part.norms[self.norm]}"
        sides = {"lh": "left hemisphere", "rh": "right hemisphere", "": "int16, divided by 300"}
        return [
            Origin(
                str(path),
                int(found["trial"]) - 1,
                "betas" if path.suffix == ".hdf5" else "",
                f"{sides[side]}{norm}",
            )
            for side, path in files.items()
        ]

    def _sessions(self, subject: str) -> dict[int, tuple[Path, ...]]:
        """Return session -> its file, or its two; a session that lacks a hemisphere is not in."""
        found = self._betas[self.space, self.prep][subject]
        whole = _whole(found, 2 if self.space == "fsaverage" else 1)
        if not whole:
            raise UserError(
                f"{self.name}/{subject}: no session has both hemispheres; the files that lack are "
                f"in {BUCKET}."
            )
        return whole

    @cached_property
    def _main(self) -> dict[tuple[str, str], dict[str, dict[int, dict[str, Path]]]]:
        """The main experiment's betas, which decide which vertices are read."""
        return find_betas(self.path)

    def _first(self, subject: str) -> Callable[[], np.ndarray]:
        """Return what gives the main experiment's first trial on disk over both surfaces.

        The part's own first trial where the main experiment has no betas here.
        """
        trials, sessions = self._part.trials, self._sessions(subject)
        for (space, _), people in (self._main if self._part.experiment else {}).items():
            whole = _whole(people.get(subject, {}), 2)
            if space == self.space == "fsaverage" and whole:
                trials, sessions = Main.trials, whole
                break
        return lambda: np.concatenate(
            [open_surface(path, trials)[:, 0] for path in next(iter(sessions.values()))]
        )

    def remarks(self) -> list[str]:
        """Return what a person should know of this copy, one sentence each."""
        by = "its training trials" if self.norm == "session" else "its own trials"
        if self._part.test_only:
            by = "all its trials"
        found = [_what_is_read(self.prep, self.space, self.roi, self.norm, by)]
        found += _further(self._betas, (self.space, self.prep))
        part = next(n for n, experiment in PARTS.items() if experiment == self._part.experiment)
        if relatives := other_parts(self.path, part):
            found.append(
                f"Here, too, and not read: {' and '.join(relatives)}; open it with "
                f"{' or '.join(relatives.values())}."
            )
        found += self._part.remarks()
        for subject in self.subjects():
            files = self._betas[self.space, self.prep][subject]
            if not self._part.experiment:
                found += _of_sessions(subject, files, self._sessions(subject))
            else:
                voxels = self._brains.voxels(subject, self._first(subject))
                surfaces = self._sessions(subject)[1] if self.space == "fsaverage" else ()
                found += _of_voxels(subject, voxels, surfaces, self._part.trials)
                if voxels.ncsnr is not None and not self._own:
                    found.append(f"{subject}: ncsnr is the main experiment's, as published.")
            found += self._part.remarks_on(subject)
            found += self._brains.remarks(subject, self._first(subject))
        return found


def _what_is_read(prep: str, space: str, roi: str, norm: str, by: str) -> str:
    how = f"every voxel z-scored within {norm} by {by}."
    if norm == "none":
        how = "percent signal change as published."
    return f"Read are betas {prep} ({PREPARATIONS[prep]}) in {space}, {roi}, with {how}"


def _further(betas: Mapping[tuple[str, str], Any], read: tuple[str, str]) -> list[str]:
    others = [
        f"?space={space}&prep={prep} ({', '.join(people)})"
        for (space, prep), people in betas.items()
        if (space, prep) != read
    ]
    return [f"Further betas are here: {'; '.join(others)}."] if others else []


def _open_part(
    part: str, root: Path, name: str, subjects: list[str], options: dict[str, str]
) -> Part:
    if part == "imagery":
        return Imagery(root, name, subjects, **options)
    if options:
        raise UserError(
            f"{next(iter(options))} is an option of part=imagery, and the part is {part}; "
            "leave it out."
        )
    return Synthetic(root, name, subjects) if part == "synthetic" else Main(root, name)


def _whole(found: dict[int, dict[str, Path]], needed: int) -> dict[int, tuple[Path, ...]]:
    """Return session -> its file, or its two; a session that lacks a hemisphere is not in."""
    return {s: tuple(files.values()) for s, files in found.items() if len(files) == needed}


def _voxel_prep(root: Path, space: str, prep: str) -> str:
    """Return the preparation whose ncsnr says which voxels the main experiment measured.

    A part that is here in another preparation has the main experiment's voxels still.
    """
    for one in (prep, *PREPARATIONS):
        place = f"nsddata_betas/ppdata/subj*/{space}/{PREPARATIONS[one]}/*ncsnr.*"
        if next(root.glob(place), None):
            return one
    return prep


def _of_voxels(subject: str, voxels: Voxels, surfaces: tuple[Path, ...], trials: int) -> list[str]:
    """Return how the voxels of another part relate to the main experiment's."""
    found = []
    if voxels.ncsnr is None:
        found.append(
            f"{subject}: the main experiment's ncsnr is not here, which says which voxels it "
            "leaves out, so its mappers may not fit."
        )
    if surfaces:
        first = np.concatenate([open_surface(path, trials)[:, 0] for path in surfaces])
        if nan := int(np.isnan(first[voxels.mask]).sum()):
            found.append(
                f"{subject}: {nan} of {voxels.space.n_voxels} vertices are NaN in this session; "
                "they are read as 0."
            )
    return found


def _of_sessions(
    subject: str, files: dict[int, dict[str, Path]], whole: dict[int, tuple[Path, ...]]
) -> list[str]:
    """Return which sessions of the main experiment are here."""
    found, expected = [], PEOPLE[subject].sessions
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
    return found


def _root(path: Path) -> Path:
    """Return the folder that holds ``nsddata``, also when one of its parts was given."""
    parts = ("nsddata", "nsddata_betas", "nsddata_stimuli")
    return path.parent if path.name in parts and not (path / path.name).is_dir() else path


def _ranges(numbers: list[int]) -> str:
    """Return 1-3, 7 for [1, 2, 3, 7]."""
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    pieces = np.split(np.asarray(numbers), breaks)
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in pieces)
