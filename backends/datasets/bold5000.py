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

import csv
import os
import re
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backends.datasets.reading import LazyRows, open_hdf5, read_array, standardised
from explorer.types import Label, Parcellation, Subject, Trials, UserError, VoxelSpace, voxel_hash

if TYPE_CHECKING:
    import pandas as pd

RUN = 37  # stimuli of a run
REPEATED = 113  # images that were meant to be shown four times
STIMULI = "BOLD5000_Stimuli.zip from bold5000-dataset.github.io/website/download.html"
RELEASE_2 = "release 2 on figshare, figshare.com/articles/dataset/BOLD5000_Release_2_0/14456124"


class Person(NamedTuple):
    """What is known of a participant: the volumes' shape, and how many runs each session has."""

    shape: tuple[int, int, int]
    runs: tuple[int, ...]

    @property
    def trials(self) -> int:
        """How many trials there are over all sessions."""
        return RUN * sum(self.runs)


def _runs(sessions: int, long: tuple[int, ...]) -> tuple[int, ...]:
    """Return the runs of each session: nine, or ten in the long ones (counted in the lists)."""
    return tuple(10 if s in long else 9 for s in range(1, sessions + 1))


PEOPLE = {
    "CSI1": Person((71, 89, 72), _runs(15, (1, 2, 3, 5, 7, 10, 15))),
    "CSI2": Person((72, 92, 70), _runs(15, (1, 3, 4, 5, 11, 12, 14))),
    "CSI3": Person((72, 88, 67), _runs(15, (1, 3, 5, 6, 7, 11, 15))),
    "CSI4": Person((70, 89, 70), _runs(9, (1, 4, 9))),
}
TYPES = {
    "A": "canonical HRF",
    "B": "fitted HRF",
    "C": "fitted HRF, GLMdenoise",
    "D": "fitted HRF, GLMdenoise, ridge",
}
HEMISPHERES = {"LH": "L", "RH": "R"}
ROIS = {
    "EarlyVis": (86, 119, 204),
    "LOC": (219, 109, 67),
    "OPA": (102, 166, 84),
    "PPA": (196, 157, 46),
    "RSC": (151, 92, 178),
}
ALIASES = {"LO": "LOC", "RRSC": "RSC"}  # ds001499's masks of CSI2 and CSI3 are named so

_BETAS = r"(CSI[1-4])_GLMbetas-TY(?:PE|BE)([A-D])(?:-[A-Z-]+)?_"
_ROI = re.compile(_BETAS + r"allses_(LH|RH)([A-Za-z]+)\.(npy|mat)")
_VOLUME = re.compile(_BETAS + r"ses-?(\d+)\.(nii|nii\.gz)")
_BRAIN = re.compile(r"(?:sub-)?(CSI[1-4])_?brain_?mask\.nii(?:\.gz)?", re.IGNORECASE)
_ROI_MASK = re.compile(r"sub-(CSI[1-4])_mask-(LH|RH)([A-Za-z]+)\.nii(?:\.gz)?")
_RUN = re.compile(r"(?:CSI|Subj0?)([1-4]?)_sess(\d+)_run(\d+)\.txt")
_FOLDER = re.compile(r"CSI([1-4])_sess(\d+)")
_EVENTS = re.compile(r"sub-(CSI[1-4])_ses-(\d+)_task-5000scenes_run-?(\d+)_events\.tsv")
_NAMES = re.compile(r"(?:sub-)?CSI0?([1-4])_(?:imgnames|stim_lists)\.txt")
_RELEASE_1 = re.compile(r"CSI[1-4]_ROIs_TR\d+\.(?:mat|h5)")
_IMAGE_FOLDERS = ("coco", "imagenet", "scene", "scenes", "stimuli")
# Large and of no use here; Original_Images are not cropped to what was shown.
_NOT_ENTERED = ("fmriprep", "freesurfer", "mriqc", "anat", "dwi", "fmap", "Original_Images")
_OURS = ("Stimuli_Presentation_Lists", "BOLD5000_Stimuli", *(f"sub-{name}" for name in PEOPLE))
_DAMAGED = (OSError, EOFError, ValueError, zlib.error)


class Part(NamedTuple):
    """Some columns of the betas: a label, how many, and ``read(rows)`` as stored."""

    label: Label
    width: int
    read: Callable[[np.ndarray], np.ndarray]


@dataclass
class Found:
    """Files by what their names say they are; a name that is there twice is refused."""

    rois: dict[tuple[str, str, str, str, str], Path] = field(default_factory=dict)
    volumes: dict[tuple[str, str, int, str], Path] = field(default_factory=dict)
    brains: dict[str, Path] = field(default_factory=dict)
    roi_masks: dict[tuple[str, str, str], Path] = field(default_factory=dict)
    runs: dict[tuple[str, int, int], Path] = field(default_factory=dict)
    events: dict[tuple[str, int, int], Path] = field(default_factory=dict)
    names: dict[str, Path] = field(default_factory=dict)
    single: dict[str, Path] = field(default_factory=dict)  # files of which one is enough
    images: list[Path] = field(default_factory=list)

    def take(self, folder: Path, files: list[str]) -> None:
        """Sort the files of a folder in."""
        if folder.name.lower() in _IMAGE_FOLDERS:
            self.images.append(folder)
        for file in files:
            path = folder / file
            if m := _ROI.fullmatch(file):
                who, kind, side, roi, ending = m.groups()
                _put(self.rois, (who, kind, side, ALIASES.get(roi, roi), ending), path)
            elif m := _VOLUME.fullmatch(file):
                who, kind, session, ending = m.groups()
                _put(self.volumes, (who, kind, int(session), ending), path)
            elif m := _ROI_MASK.fullmatch(file):
                who, side, roi = m.groups()
                _put(self.roi_masks, (who, side, ALIASES.get(roi, roi)), path)
            elif m := _BRAIN.fullmatch(file):
                _put(self.brains, m[1].upper(), path)
            elif m := _EVENTS.fullmatch(file):
                _put(self.events, (m[1], int(m[2]), int(m[3])), path)
            elif m := _RUN.fullmatch(file):
                self._take_run(path, m)
            elif m := _NAMES.fullmatch(file):
                self.names.setdefault(f"CSI{m[1]}", path)
            elif _RELEASE_1.fullmatch(file):
                self.single.setdefault("release 1", path)
            elif file in ("repeated_stimuli_113_list.txt", "imagenet_final_labels.txt"):
                self.single.setdefault(file, path)
            elif file == "img_dict.npy":
                self.single.setdefault(file, path)

    def _take_run(self, path: Path, match: re.Match[str]) -> None:
        number, session, run = match.groups()
        above = _FOLDER.fullmatch(path.parent.name)
        if above and (number or above[1], int(session)) != (above[1], int(above[2])):
            raise UserError(
                f"{path} lies in the folder of another subject or session: two subjects' or "
                "sessions' lists are mixed; unpack Stimuli_Presentation_Lists again."
            )
        if number or above:
            _put(self.runs, (f"CSI{number or above[1]}", int(session), int(run)), path)


def _put(table: dict, key: Any, path: Path) -> None:
    if key in table:
        raise UserError(f"{path.name} is there twice, {table[key]} and {path}; keep one of them.")
    table[key] = path


def _folders(path: Path, levels: int) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and those down to ``levels`` below it, each with the names of its files.

    A folder inside one of the same name, which unpacking a zip makes, costs no level. The files
    of image folders are left out: there are thousands.
    """
    ahead = [(path, levels)]
    while ahead:
        folder, left = ahead.pop(0)
        files, inside = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir():
                        inside.append(entry.name)
                    else:
                        files.append(entry.name)
        except OSError:
            continue  # a folder that may not be read holds nothing for us
        yield folder, sorted(files)
        if folder.name.lower() in _IMAGE_FOLDERS:
            continue
        for name in sorted(inside):
            below = left - (name != folder.name)
            if below >= 0 and not name.startswith(".") and name not in _NOT_ENTERED:
                ahead.append((folder / name, below))


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
        self._files = self._find()
        self.source = self._choose(source)
        self.note = (
            "These voxels are known by region only, so there is a table of parcels and no map."
            if self.source == "roi"
            else "The volumes lie in each person's own space, so there is no map on fsaverage5."
        )
        self._lock = threading.Lock()
        self._unpacked: tuple[Any, np.ndarray | None] = (None, None)  # the last session that was

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a folder holds files named as BOLD5000's are, two levels down at most."""
        path = Path(path)
        if not path.is_dir():
            return False
        for folder, files in _folders(path, 2):
            if folder.name in _OURS and path in (folder, folder.parent):
                return True
            patterns = (_ROI, _VOLUME, _NAMES, _RELEASE_1)
            if any(p.fullmatch(file) for file in files for p in patterns):
                return True
        return False

    # ------------------------------------------------------------------------------------- finding

    def _find(self) -> Found:
        found = Found()
        for folder, files in _folders(self.path, 4):
            found.take(folder, files)
        if not (found.runs or found.names or found.events) or not found.images:
            beside = [up / "BOLD5000_Stimuli" for up in list(self.path.resolve().parents)[:2]]
            for place in beside:
                if place.is_dir():
                    for folder, files in _folders(place, 4):
                        found.take(folder, files)
                    break
        return found

    def _choose(self, source: str) -> str:
        """Return roi or volume, whichever is there and was asked for."""
        kinds = {
            "roi": {key[1] for key in self._files.rois},
            "volume": {key[1] for key in self._files.volumes},
        }
        if not any(kinds.values()):
            raise UserError(self._no_betas())
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

    def _no_betas(self) -> str:
        found, get = self._files, f"download the betas ({RELEASE_2}) into this folder"
        if "release 1" in found.single:
            return (
                f"{self.path} holds release 1 (time points of ROIs, CSI1_ROIs_TR1 and on), which "
                f"has no betas per trial; {get}."
            )
        if found.events or any(self.path.glob("sub-CSI[1-4]")):
            return (
                f"{self.path} is the raw BIDS release (ds001499), which holds events, ROI masks "
                f"and scans but no betas; {get}, or estimate them with GLMsingle."
            )
        if "img_dict.npy" in found.single:
            return (
                f"{found.single['img_dict.npy']} is a pickle, which can run code when it is "
                f"opened, so it is never loaded, and there is nothing else here; {get}, and "
                f"{STIMULI}."
            )
        if found.runs or found.names or found.images:
            return f"{self.path} holds lists or images of BOLD5000 but no betas; {get}."
        return (
            f"{self.path} holds no betas of BOLD5000 (files named CSI1_GLMbetas-TYPED-...); give "
            "the folder they lie in."
        )

    # --------------------------------------------------------------------------------------- lists

    @cached_property
    def _lists(self) -> dict[str, pd.DataFrame]:
        """Subject -> file (without ``rep_``), repeated, session, run of every trial, checked."""
        lists, seen = {}, {}
        for who in PEOPLE:
            table = self._list(who)
            if table is None:
                continue
            shown = tuple(table["file"])
            if shown in seen:
                raise UserError(
                    f"The presentation lists of {seen[shown]} and {who} are the same, but each "
                    f"person saw another order: two subjects' files are mixed; take {STIMULI}."
                )
            lists[who] = table
            seen[shown] = who
        return lists

    def _list(self, who: str) -> pd.DataFrame | None:
        import pandas as pd

        files, person = self._files, PEOPLE[who]
        for runs in (files.runs, files.events):
            mine = {key[1:]: path for key, path in runs.items() if key[0] == who}
            if not mine:
                continue
            rows = []
            for session, expected in enumerate(person.runs, start=1):
                there = sorted(run for s, run in mine if s == session)
                if there != list(range(1, expected + 1)):
                    lacks = sorted(set(range(1, expected + 1)) - set(there)) or there[expected:]
                    raise UserError(
                        f"{who}, session {session}: expected presentation lists of runs 1 to "
                        f"{expected}, found {len(there)} (see run {lacks[0]}); take {STIMULI}."
                    )
                for run in there:
                    rows += [(*shown, session, run) for shown in _read_run(mine[session, run])]
            extra = sorted({s for s, _ in mine} - set(range(1, len(person.runs) + 1)))
            if extra:
                raise UserError(
                    f"{who} has {len(person.runs)} sessions, but there is a presentation list of "
                    f"session {extra[0]}: two subjects' files are mixed; take {STIMULI}."
                )
            return pd.DataFrame(rows, columns=["file", "repeated", "session", "run"])
        if who not in files.names:
            return None
        shown = [_named(line) for line in _lines(files.names[who])]
        if len(shown) != person.trials:
            raise UserError(
                f"{files.names[who]} lists {len(shown)} trials{_whose(len(shown))}, expected "
                f"{person.trials} for {who}; copy it again."
            )
        table = pd.DataFrame(shown, columns=["file", "repeated"])
        session = np.repeat(np.arange(len(person.runs)) + 1, [RUN * n for n in person.runs])
        run = np.concatenate([np.repeat(np.arange(n) + 1, RUN) for n in person.runs])
        return table.assign(session=session, run=run)

    @cached_property
    def _test(self) -> frozenset[str]:
        """The repeated images by stimulus id: those of the list of 113, else of all lists."""
        counts = {who: Counter(map(_stem, table["file"])) for who, table in self._lists.items()}
        several = {name for count in counts.values() for name, n in count.items() if n > 1}
        listed = self._files.single.get("repeated_stimuli_113_list.txt")
        if listed is None:
            marked = (table["file"][table["repeated"]] for table in self._lists.values())
            return frozenset(several.union(*(map(_stem, names) for names in marked)))
        names = {_stem(_named(line)[0]) for line in _lines(listed)}
        if len(names) != REPEATED:
            raise UserError(
                f"{listed} names {len(names)} images, expected the {REPEATED} repeated ones; take "
                f"{STIMULI}."
            )
        if several - names:
            raise UserError(
                f"{min(several - names)} was shown more than once but is not among the repeated "
                f"images of {listed}, so test images would be trained on; take {STIMULI}."
            )
        return frozenset(names)

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """One row an image by file name: caption, category, source and the name it has on disk.

        ``category`` is COCO, ImageNet or Scene, told by the name; ``caption`` the words of the
        WordNet id (ImageNet, from Image_Labels) or the scene's name; ``source`` the WordNet id or
        COCO's number.
        """
        import pandas as pd

        if not self._lists:
            raise UserError(
                f"{self.path} has betas but no presentation list, which says what was shown; take "
                f"Stimuli_Presentation_Lists of {STIMULI}, or CSI1_imgnames.txt of {RELEASE_2}."
            )
        files = sorted({file for table in self._lists.values() for file in table["file"]})
        words = self._words()
        rows = [_describe(file, words) for file in files]
        index = pd.Index([_stem(file) for file in files], name="stimulus")
        return pd.DataFrame(rows, columns=["caption", "category", "source", "file"], index=index)

    def _words(self) -> dict[str, str]:
        """Return WordNet id -> words, of ``Image_Labels/imagenet_final_labels.txt``."""
        path = self._files.single.get("imagenet_final_labels.txt")
        lines = _lines(path) if path else []
        return {wnid: words.strip() for wnid, _, words in (line.partition(" ") for line in lines)}

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
        load = self._load_rois if self.source == "roi" else self._load_volumes
        voxels, betas, lost = load(subject, table)
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
        stimulus = table["file"].map(_stem)
        split = np.where(stimulus.isin(self._test), "test", "train")
        table = table[["session", "run"]].assign(stimulus=stimulus, split=split)
        return table.assign(repeat=table.groupby("stimulus").cumcount())

    def _load_rois(self, subject: str, table: pd.DataFrame) -> tuple[VoxelSpace, LazyRows, int]:
        parts = self._parts(subject)
        n, session = len(table), table["session"].to_numpy()
        train = (table["split"] == "train").to_numpy()
        early = np.flatnonzero(np.r_[True, np.diff(session) > 0])
        early = np.stack([early, early + 1])  # the first two trials of each session
        look = np.concatenate([part.read(early.ravel()) for part in parts], axis=1)
        keep = _usable(look.reshape(*early.shape, -1))
        source = f"{self.name}/{subject}"
        if not keep.any():
            raise UserError(
                f"{source}: no voxel has finite betas that vary; copy the files again."
            )
        of_part = np.repeat(np.arange(len(parts)), [part.width for part in parts])

        def read(rows: np.ndarray) -> np.ndarray:
            return np.concatenate([part.read(rows) for part in parts], axis=1)[:, keep]

        betas = LazyRows((n, int(keep.sum())), read, source)
        if self.norm == "session":
            betas = standardised(betas, session, train)
        labels = tuple(part.label for part in parts)
        # These columns have no coordinates: regions, their sizes and what was left out name them.
        widths = np.array([part.width for part in parts])
        digest = voxel_hash("bold5000", subject, *(label.key for label in labels), widths, keep)
        rois = Parcellation("ROIs", "partition", labels, of_part[keep], digest)
        space = VoxelSpace(betas.shape[1], digest, parcellations={"ROIs": rois})
        return space, betas, int((~keep).sum())

    def _parts(self, subject: str) -> list[Part]:
        """Return a subject's arrays, checked: EarlyVis, LOC, OPA, PPA, RSC, each left first.

        Any other region comes behind. ``.npy`` is preferred to ``.mat``: it is read by rows.
        """
        mine: dict[tuple[str, str], Path] = {}
        for (who, kind, side, roi, ending), path in self._files.rois.items():
            if (who, kind) == (subject, self.type) and (
                ending == "npy" or (roi, side) not in mine
            ):
                mine[roi, side] = path
        known = [*ROIS, *sorted({roi for roi, _ in mine} - set(ROIS))]
        order = [(roi, side) for roi in known for side in HEMISPHERES if (roi, side) in mine]
        parts, expected = [], PEOPLE[subject].trials
        for roi, side in order:
            path = mine[roi, side]
            shape, read = (_npy if path.suffix == ".npy" else _mat)(path, expected)
            if len(shape) != 2 or shape[0] != expected:
                raise UserError(
                    f"{path} has shape {shape}{_whose(shape[0] if shape else 0)}, expected "
                    f"({expected}, voxels) for {subject}'s {expected} trials; copy it again."
                )
            label = Label(roi, HEMISPHERES[side], ROIS.get(roi, (128, 128, 128)))
            parts.append(Part(label, shape[1], read))
        return parts

    # ------------------------------------------------------------------------------------- volumes

    def _load_volumes(self, subject: str, table: pd.DataFrame) -> tuple[VoxelSpace, LazyRows, int]:
        paths = self._volume_paths(subject)
        affine, looks = None, []
        for session, path in paths.items():
            image = _open_volume(path)
            expected = (*PEOPLE[subject].shape, RUN * PEOPLE[subject].runs[session - 1])
            if image.shape != expected:
                owner = [who for who, p in PEOPLE.items() if p.shape == image.shape[:3]]
                whose = f", the volume of {owner[0]}" if owner and owner[0] != subject else ""
                raise UserError(
                    f"{path} has shape {image.shape}{whose}; expected {expected} for {subject}'s "
                    f"session {session}: another subject's or session's file, or cut short."
                )
            if affine is not None and not np.allclose(affine, image.affine, atol=1e-4):
                raise UserError(
                    f"{path} lies elsewhere than {subject}'s other sessions (another affine): two "
                    "subjects' files are mixed; download that session again."
                )
            affine = image.affine if affine is None else affine
            looks.append(np.stack([v for _, v in zip(range(2), _each(image, path), strict=False)]))
        usable = _usable(np.stack(looks, axis=1))
        brain = self._brain(subject)
        mask = usable if brain is None else usable & brain
        if not mask.any():
            raise UserError(f"{self.name}/{subject}: no voxel has finite betas that vary.")
        parts = [
            self._session(subject, session, path, mask, table) for session, path in paths.items()
        ]
        ends = np.cumsum([len(part) for part in parts])

        def read(rows: np.ndarray) -> np.ndarray:
            pieces = []
            for part, end in zip(parts, ends, strict=True):
                inside = rows[(rows >= end - len(part)) & (rows < end)]
                if len(inside):
                    pieces.append(part[inside - (end - len(part))])
            return np.concatenate(pieces)

        v = int(mask.sum())
        betas = LazyRows((int(ends[-1]), v), read, f"{self.name}/{subject}")
        digest = voxel_hash("bold5000", subject, mask, np.asarray(affine, dtype=np.float64))
        rois = self._volume_rois(subject, mask, digest)
        space = VoxelSpace(
            v, digest, mask=mask, affine=affine, parcellations={r.name: r for r in rois}
        )
        return space, betas, 0 if brain is None else int(brain.sum()) - v

    def _volume_paths(self, subject: str) -> dict[int, Path]:
        """Return session -> file; unpacked files, whose trials can be read alone, come first."""
        paths: dict[int, Path] = {}
        for (who, kind, session, ending), path in self._files.volumes.items():
            mine = (who, kind) == (subject, self.type)
            if mine and not 1 <= session <= len(PEOPLE[subject].runs):
                raise UserError(
                    f"{path}: {subject} has sessions 1 to {len(PEOPLE[subject].runs)}; take this "
                    "file away."
                )
            if mine and (ending == "nii" or session not in paths):
                paths[session] = path
        return dict(sorted(paths.items()))

    def _session(
        self, subject: str, session: int, path: Path, mask: np.ndarray, table: pd.DataFrame
    ) -> LazyRows:
        """Return one session's masked rows, z-scored if asked for.

        A packed file is unpacked as a whole, and the last one is kept (370 x 191,478 float32 are
        283 MB for CSI4): its mean and SD need all training rows anyway.
        """
        rows = table[table["session"] == session]
        train = (rows["split"] == "train").to_numpy()

        def read(wanted: np.ndarray) -> np.ndarray:
            with self._lock:
                if path.suffix == ".nii":
                    image = _open_volume(path)
                    return np.stack([_slice(image, path, i)[mask] for i in wanted])
                key, values = self._unpacked
                if key != (subject, session):
                    values = np.empty((len(rows), int(mask.sum())), np.float32)
                    self._unpacked = (None, None)  # before the new one is filled: one at a time
                    for i, volume in enumerate(_each(_open_volume(path), path)):
                        values[i] = volume[mask]
                    self._unpacked = ((subject, session), values)
                return values[wanted]

        betas = LazyRows(
            (len(rows), int(mask.sum())), read, f"{self.name}/{subject} ({path.name})"
        )
        if self.norm == "none":
            return betas
        return standardised(betas, np.full(len(rows), session), train)

    def _brain(self, subject: str) -> np.ndarray | None:
        """Return the brain mask bool (X, Y, Z), or None where there is no file."""
        path = self._files.brains.get(subject)
        return None if path is None else self._mask(path, subject)

    def _mask(self, path: Path, subject: str) -> np.ndarray:
        image = _open_volume(path)
        if image.shape != PEOPLE[subject].shape:
            raise UserError(
                f"{path} has shape {image.shape}, expected {PEOPLE[subject].shape} for {subject}; "
                "take this file away or download it again."
            )
        return _slice(image, path) > 0

    def _volume_rois(self, subject: str, mask: np.ndarray, digest: str) -> list[Parcellation]:
        """Return the ROIs of ds001499's ``derivatives/spm`` over the voxels, if they are here."""
        order = [(roi, side) for roi in ROIS for side in HEMISPHERES]
        files = {key[1:]: p for key, p in self._files.roi_masks.items() if key[0] == subject}
        there = [(roi, side) for roi, side in order if (side, roi) in files]
        if not there:
            return []
        labels = tuple(Label(roi, HEMISPHERES[side], ROIS[roi]) for roi, side in there)
        rows = [self._mask(files[side, roi], subject)[mask] for roi, side in there]
        return [Parcellation("ROIs", "masks", labels, np.stack(rows), digest)]

    # -------------------------------------------------------------------------------------- images

    @cached_property
    def _images(self) -> dict[str, Path]:
        """Name without ending, in small letters -> file: endings are .jpg, .JPEG and .jpeg."""
        shown = {}
        # Presented_Stimuli are the images as shown; a folder `stimuli` may hold anything else.
        for folder in sorted(self._files.images, key=lambda f: "Presented_Stimuli" not in f.parts):
            for entry in os.scandir(folder):
                stem, ending = os.path.splitext(entry.name)
                if ending.lower() in (".jpg", ".jpeg", ".png"):
                    shown.setdefault(stem.lower(), Path(entry.path))
        return shown

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture that was shown, uint8 RGB (H, W, 3)."""
        from PIL import Image

        if stimulus not in self.stimuli.index:
            raise UserError(
                f"{self.name} has no stimulus {stimulus!r}; it has {len(self.stimuli)}, such as "
                f"{self.stimuli.index[0]!r}."
            )
        file = self._images.get(stimulus.lower())
        if file is None:
            raise UserError(
                f"The picture of {stimulus!r} is not in {self.path}; {self._where_images()}."
            )
        try:
            with Image.open(file) as opened:
                return np.asarray(opened.convert("RGB"))
        except (*_DAMAGED, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(
                f"The picture of {stimulus!r} cannot be read ({file}); copy it again."
            ) from error

    def _where_images(self) -> str:
        put = f"put Presented_Stimuli of {STIMULI} there"
        pickle = self._files.single.get("img_dict.npy")
        if pickle is None:
            return put
        return (
            f"{pickle.name} is a pickle, which can run code when it is opened, so it is never "
            f"loaded: {put}"
        )

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
        absent = sorted(
            set(range(1, len(PEOPLE[subject].runs) + 1)) - set(self._sessions(subject))
        )
        if absent:
            said.append(
                f"{subject} lacks session {', '.join(map(str, absent))}, so these trials are left "
                f"out; they come from {RELEASE_2}."
            )
        if subject not in self._files.brains:
            said.append(
                f"{subject} has no brain mask ({subject}_brainmask.nii.gz of {RELEASE_2}), so "
                "every voxel that changes is taken."
            )
        paths = list(self._volume_paths(subject).values())
        header = _open_volume(paths[0]).header
        if not (int(header["sform_code"]) or int(header["qform_code"])):
            said.append(
                f"{subject}: the volumes' headers state no position (sform and qform are 0), so "
                "their affine gives voxel sizes only."
            )
        if any(path.suffix == ".gz" for path in paths):
            said.append(
                f"{subject}: packed volumes are unpacked a session at a time, which takes seconds "
                "and some 300 MB; gunzip them and trials are read alone."
            )

    def _say_images(self, said: list[str]) -> None:
        absent = [name for name in self.stimuli.index if name.lower() not in self._images]
        if absent:
            said.append(
                f"{len(absent)} of {len(self.stimuli)} pictures are not here, such as "
                f"{absent[0]}; {self._where_images()}."
            )


# --------------------------------------------------------------------------------------- functions


def _whose(trials: int) -> str:
    """Return ", CSI4's count" where a wrong number of trials is another subject's."""
    owners = [who for who, person in PEOPLE.items() if person.trials == trials]
    return f", the count of {' and '.join(owners)}" if owners else ""


def _usable(looks: np.ndarray) -> np.ndarray:
    """Return bool (...,) from two trials of each session (2, sessions, ...): finite and alive."""
    alive = (looks[0] != looks[1]).any(axis=0)
    return np.isfinite(looks).all(axis=(0, 1)) & alive


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as text ({error}); copy it again.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _named(line: str) -> tuple[str, bool]:
    """Return a list's line without ``rep_``, and whether it had it.

    The prefix marks presentations of a repeated image, all but one, which need not be the first.
    """
    return line.removeprefix("rep_"), line.startswith("rep_")


def _stem(file: str) -> str:
    """Return a stimulus's id: its file's name without the ending."""
    return os.path.splitext(file)[0]


def _read_run(path: Path) -> list[tuple[str, bool]]:
    """Return (file, marked as repeated) of the trials of a run's list or events table."""
    if path.suffix == ".tsv":
        table = list(csv.DictReader(_lines(path), delimiter="\t"))
        number = path.name[len("sub-CSI")]
        if any(row.get("ImgName") is None or row.get("ImgType") is None for row in table):
            raise UserError(f"{path} needs the columns ImgName and ImgType; copy it again.")
        other = next((row["Subj"] for row in table if row.get("Subj") not in (None, number)), "")
        if other:
            raise UserError(
                f"{path} holds trials of subject {other}: two subjects' files are mixed; download "
                "it again."
            )
        kinds = [row["ImgType"].startswith("rep_") for row in table]
        names = [_named(row["ImgName"]) for row in table]
        shown = [(name, rep or kind) for (name, rep), kind in zip(names, kinds, strict=True)]
    else:
        shown = [_named(line) for line in _lines(path)]
    if len(shown) != RUN:
        raise UserError(f"{path} lists {len(shown)} trials, expected {RUN}; copy it again.")
    return shown


def _describe(file: str, words: dict[str, str]) -> tuple[str, str, str, str]:
    """Return caption, category, source and file; scenes may begin with n too (nursery1.jpg)."""
    stem = _stem(file)
    if m := re.fullmatch(r"COCO_train2014_(\d{12})", stem):
        return "", "COCO", f"COCO {int(m[1])}", file
    if m := re.fullmatch(r"(n\d{8})_\d+", stem):
        return words.get(m[1], ""), "ImageNet", m[1], file
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"\d+$", "", stem))
    return apart.replace("_", " ").strip().lower(), "Scene", "SUN", file


def _npy(path: Path, trials: int) -> tuple[tuple[int, ...], Callable]:
    """Return shape and row reader of an array that stays on disk."""
    array = read_array(path)
    return array.shape, lambda rows: np.asarray(array[rows], dtype=np.float32)


def _mat(path: Path, trials: int) -> tuple[tuple[int, ...], Callable]:
    """Return shape and row reader of a MATLAB file's one array; read as a whole when needed.

    Version 7.3 is HDF5, whose axes h5py gives reversed.
    """
    from scipy.io import loadmat, whosmat

    def damaged(error: Exception) -> UserError:
        return UserError(f"{path} is damaged or cut short ({error}); copy it again.")

    try:
        sizes = {name: tuple(map(int, shape)) for name, shape, _ in whosmat(path)}
    except NotImplementedError:
        with open_hdf5(path) as file:
            sizes = {k: v.shape[::-1] for k, v in file.items() if hasattr(v, "shape")}

        def load(key: str) -> np.ndarray:
            with open_hdf5(path) as file:
                return file[key][()].T
    except (*_DAMAGED, TypeError, IndexError) as error:
        raise damaged(error) from error
    else:

        def load(key: str) -> np.ndarray:
            try:
                return loadmat(path, variable_names=[key])[key]
            except (*_DAMAGED, TypeError, IndexError, KeyError) as error:
                raise damaged(error) from error

    if len(sizes) != 1:
        raise UserError(
            f"{path} should hold one array, found {', '.join(sizes) or 'none'}; take the .npy "
            "files instead."
        )
    (key, shape), whole = next(iter(sizes.items())), cache(load)
    return shape, lambda rows: np.asarray(whole(key)[rows], dtype=np.float32)


def _open_volume(path: Path) -> Any:
    """Return a NIfTI whose data stay on disk; its file stays open while it is being read."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        return nibabel.load(path, keep_file_open=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; download it again.") from error
    except (*_DAMAGED, ImageFileError) as error:
        raise UserError(f"{path} is not a NIfTI or is cut short; download it again.") from error


def _slice(image: Any, path: Path, index: int | None = None) -> np.ndarray:
    """Return one volume float32 (X, Y, Z), scaled as the header says, or the whole image."""
    try:
        data = image.dataobj if index is None else image.dataobj[..., index]
        return np.asarray(data, dtype=np.float32)
    except _DAMAGED as error:
        raise UserError(f"{path} is damaged or cut short; download it again.") from error


def _each(image: Any, path: Path) -> Iterator[np.ndarray]:
    """Yield the volumes one after another, which unpacks a packed file once."""
    for index in range(image.shape[3]):
        yield _slice(image, path, index)
