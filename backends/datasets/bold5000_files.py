"""Which files BOLD5000 has: the people, and folders searched by what names of files say."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from explorer.types import UserError

RUN = 37  # stimuli of a run
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


def recognised(path: Path) -> bool:
    """Return whether a folder holds files named as BOLD5000's are, two levels down at most."""
    if not path.is_dir():
        return False
    for folder, files in _folders(path, 2):
        if folder.name in _OURS and path in (folder, folder.parent):
            return True
        patterns = (_ROI, _VOLUME, _NAMES, _RELEASE_1)
        if any(p.fullmatch(file) for file in files for p in patterns):
            return True
    return False


def find(path: Path) -> Found:
    """Return the files of a folder; lists and images may also lie beside it."""
    found = Found()
    for folder, files in _folders(path, 4):
        found.take(folder, files)
    if not (found.runs or found.names or found.events) or not found.images:
        beside = [up / "BOLD5000_Stimuli" for up in list(path.resolve().parents)[:2]]
        for place in beside:
            if place.is_dir():
                for folder, files in _folders(place, 4):
                    found.take(folder, files)
                break
    return found


def no_betas(path: Path, found: Found) -> str:
    """Return the sentence for a folder without betas: what it holds, and what to do."""
    get = f"download the betas ({RELEASE_2}) into this folder"
    if "release 1" in found.single:
        return (
            f"{path} holds release 1 (time points of ROIs, CSI1_ROIs_TR1 and on), which has no "
            f"betas per trial; {get}."
        )
    if found.events or any(path.glob("sub-CSI[1-4]")):
        return (
            f"{path} is the raw BIDS release (ds001499), which holds events, ROI masks and scans "
            f"but no betas; {get}, or estimate them with GLMsingle."
        )
    if "img_dict.npy" in found.single:
        return (
            f"{found.single['img_dict.npy']} is a pickle, which can run code when it is opened, "
            f"so it is never loaded, and there is nothing else here; {get}, and {STIMULI}."
        )
    if found.runs or found.names or found.images:
        return f"{path} holds lists or images of BOLD5000 but no betas; {get}."
    return (
        f"{path} holds no betas of BOLD5000 (files named CSI1_GLMbetas-TYPED-...); give the "
        "folder they lie in."
    )


def pictures(found: Found) -> dict[str, Path]:
    """Return name without ending, in small letters -> file: endings are .jpg, .JPEG and .jpeg."""
    shown: dict[str, Path] = {}
    # Presented_Stimuli are the images as shown; a folder `stimuli` may hold anything else.
    for folder in sorted(found.images, key=lambda f: "Presented_Stimuli" not in f.parts):
        for entry in os.scandir(folder):
            stem, ending = os.path.splitext(entry.name)
            if ending.lower() in (".jpg", ".jpeg", ".png"):
                shown.setdefault(stem.lower(), Path(entry.path))
    return shown


def where_pictures(found: Found) -> str:
    """Return what to do about a picture that is not there."""
    put = f"put Presented_Stimuli of {STIMULI} there"
    pickle = found.single.get("img_dict.npy")
    if pickle is None:
        return put
    return (
        f"{pickle.name} is a pickle, which can run code when it is opened, so it is never "
        f"loaded: {put}"
    )


def whose(trials: int) -> str:
    """Return ", CSI4's count" where a wrong number of trials is another subject's."""
    owners = [who for who, person in PEOPLE.items() if person.trials == trials]
    return f", the count of {' and '.join(owners)}" if owners else ""
