"""LAION-fMRI's files: both generations of paths of 2026, and what names each.

Sources: ViCCo-Group/LAION-fMRI, ``laion_fmri/_paths.py`` at eee8400 (2026-05-05) and its later
form with ``derivatives/rois`` and masks of the brain. Sessions lie below
``derivatives/glmsingle-tedana/{sub}/{ses}/func``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explorer.files import open_volume, read_table, short, volume_data
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

GLM = Path("derivatives") / "glmsingle-tedana"
COPY = "download it again"
SUBJECT = re.compile(r"sub-\d+")
SESSION = re.compile(r"ses-(\d+)")
BETAS = "task-images_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii"
TRIALS = ("desc-SingletrialBetas_trials.tsv", "desc-GLMsingle_events.tsv")  # now, early releases
CEILINGS = {"4rep": 4, "12rep": 12, "Allrep": 0}
SESSIONS = range(1, 31)  # of each person; 31 to 34 are held out
# Whose own pictures a name says, which is not the order of the subjects.
OWNER = {"p01": "sub-01", "p02": "sub-06", "p03": "sub-05", "p04": "sub-03", "p05": "sub-07"}
OWN = re.compile(r"(?<![a-zA-Z0-9])(p0[1-5])(?![a-zA-Z0-9])")


@dataclass(frozen=True)
class Session:
    """One session's files."""

    number: int
    betas: Path
    trials: Path


@dataclass
class Person:
    """What lies of one subject: sessions in order, masks by kind, ROIs and ceilings by name."""

    name: str
    sessions: list[Session]
    masks: dict[str, Path]
    rois: dict[str, list[Path]]
    ceilings: dict[str, Path]
    remarks: list[str] = field(default_factory=list)


def find_people(root: Path) -> dict[str, Person]:
    """Return the subjects whose betas are below a root, with their files."""
    found = {}
    for folder in sorted((root / GLM).glob("sub-*")):
        if SUBJECT.fullmatch(folder.name) and (sessions := _sessions(folder)):
            found[folder.name] = _person(root, folder, sessions)
    return found


def _sessions(folder: Path) -> list[Session]:
    who, found = folder.name, []
    for place in sorted(folder.glob("ses-*")):
        number = SESSION.fullmatch(place.name)
        stem = place / "func" / f"{who}_{place.name}_{BETAS}"
        there = [p for p in (stem, stem.with_name(f"{stem.name}.gz")) if p.is_file()]
        if number is None or not there:
            continue
        names = [place / "func" / f"{who}_{place.name}_task-images_{end}" for end in TRIALS]
        trials = next((name for name in names if name.is_file()), names[0])
        found.append(Session(int(number[1]), there[0], trials))
    return found


def _person(root: Path, folder: Path, sessions: list[Session]) -> Person:
    who, said = folder.name, []
    early = [s.number for s in sessions if s.trials.name.endswith(TRIALS[1])]
    if early and len(early) < len(sessions):
        said.append(
            f"{who}: sessions {_listed(early)} have the early release's table of trials and the "
            "others the later one; betas of two releases may differ, so take one of them whole."
        )
    lacking = [n for n in SESSIONS if n not in {s.number for s in sessions}]
    if lacking:
        said.append(f"{who} lacks the sessions {_listed(lacking)} of 1 to 30.")
    rois, told = _rois(root, who)
    return Person(who, sessions, _masks(root, folder), rois, _ceilings(folder), said + told)


def _masks(root: Path, folder: Path) -> dict[str, Path]:
    """Return the masks that are here, the loader's own default first."""
    who = folder.name
    anatomy = root / "derivatives" / "anatomical" / who / "ses-PrismaAnat" / "anat"
    kinds = {
        "brain": anatomy.glob(f"{who}_ses-PrismaAnat_space-T1w_res-1pt8_desc-brain_mask.nii*"),
        "R2mean": folder.glob(f"{who}_*space-T1w_stat-rsquare_desc-R2mean_statmap.nii*"),
        "R2gt15": folder.glob(f"{who}_*desc-meanR2gt15mask_mask.nii*"),
    }
    return {
        kind: file for kind, files in kinds.items() if (file := next(iter(sorted(files)), None))
    }


def _rois(root: Path, who: str) -> tuple[dict[str, list[Path]], list[str]]:
    """Return region -> its files (at several resolutions); the later release's count more."""
    later: dict[str, list[Path]] = {}
    place = root / "derivatives" / "rois" / who
    for file in sorted(place.glob(f"*/{who}_space-T1w_res-*_label-*_mask.nii*")):
        later.setdefault(file.name.partition("_label-")[2].partition("_mask.nii")[0], []).append(
            file
        )
    early = {
        file.name.partition(".nii")[0]: [file]
        for file in sorted((root / "derivatives" / "atlases" / who / "rois").glob("*.nii*"))
    }
    said = []
    if later and early:
        said.append(f"{who}: ROIs of two releases are here; those of derivatives/rois are read.")
    return later or early, said


def _ceilings(folder: Path) -> dict[str, Path]:
    found = {}
    for kind in CEILINGS:
        name = f"{folder.name}_task-images_space-T1w_desc-Noiseceiling{kind}_statmap.nii*"
        if files := sorted(folder.glob(name)):
            found[kind] = files[0]
    return found


def read_trials(session: Session, volumes: int, who: str) -> pd.DataFrame:
    """Return a session's trials: ``stimulus`` (the label), ``run``, ``volume`` (from 0), in order.

    Raises
    ------
    UserError
        Where the table has no labels, or other volumes than the betas.
    """
    import pandas as pd

    table = read_table(session.trials, missing="it says which picture each volume is; copy it too")
    if "label" not in table:
        raise UserError(
            f"{session.trials} has the columns {', '.join(map(str, table.columns))}, expected "
            "label, the name of each trial's picture; take the file as it was published."
        )
    given = table["beta_index"] if "beta_index" in table else range(len(table))
    volume = pd.to_numeric(pd.Series(list(given)), errors="coerce").to_numpy(float)
    if len(table) != volumes or sorted(volume.tolist()) != list(range(volumes)):
        at = (
            ""
            if not np.isfinite(volume).all()
            else f" (beta_index {volume.min():g} to {volume.max():g})"
        )
        raise UserError(
            f"{session.trials} has {len(table)} trials{at}, {session.betas.name} has {volumes} "
            "volumes, counted from 0; the two are of different sessions or releases."
        )
    for column, what in (("session", "session"), ("subject", "subject")):
        if column in table and (
            odd := _other(table[column], session.number if what == "session" else who)
        ):
            raise UserError(f"{session.trials} is of {what} {odd}, by its column {column}.")
    names = table["label"].astype(str).str.strip()
    _check_owner(names, who, session.trials)
    found = {"stimulus": names, "run": table["run"] if "run" in table else 0, "volume": volume}
    frame = pd.DataFrame(found).astype({"volume": int}).sort_values("volume", ignore_index=True)
    runs = frame["run"].astype(str).str.extract(r"(\d{1,6})")[0]  # run-03, 3 or 3.0
    frame["run"] = pd.to_numeric(runs).fillna(0).astype(int)
    return frame.assign(session=session.number)


def _other(values: pd.Series, expected: int | str) -> str:
    """Return a value of a column that names another session or subject, "" where none does."""
    digits = re.sub(r"\D", "", str(expected))
    for value in values.astype(str).unique():
        found = re.sub(r"\D", "", value.partition(".")[0])
        if found and found.lstrip("0") != digits.lstrip("0"):
            return short(value)
    return ""


def _check_owner(names: pd.Series, who: str, where: Path) -> None:
    """Refuse trials whose own pictures are another subject's."""
    owners = {OWNER[match[1]] for name in names.unique() if (match := OWN.search(name))}
    others = owners - {who}
    if others and who in OWNER.values():
        raise UserError(
            f"{where} shows the own pictures of {', '.join(sorted(others))}, not of {who} (p01 to "
            "p05 in their names are not in the order of the subjects); the file is another "
            "subject's."
        )


def read_mask(file: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask bool (X, Y, Z) and its affine; of R2mean where it is above 0."""
    image = open_volume(file, "a mask", COPY)
    values = volume_data(image, file, do=COPY)
    if values.ndim != 3:
        raise UserError(f"{file} has shape {values.shape}, expected one volume.")
    if kind != "R2mean" and not np.isin(values, (0, 1)).all():
        raise UserError(f"{file} holds other values than 0 and 1, so it is no mask; {COPY}.")
    mask = np.nan_to_num(values) > 0
    if not mask.any():
        raise UserError(f"{file} marks no voxel; {COPY}.")
    return mask, np.asarray(image.affine, dtype=np.float64)


def read_map(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return a volume (X, Y, Z) of that shape; None for one of another resolution."""
    image = open_volume(file, "a map", COPY)
    if tuple(image.shape[:3]) != tuple(shape):
        return None
    return volume_data(image, file, do=COPY).reshape(shape)


def _listed(numbers: list[int]) -> str:
    """Return numbers with runs of them shortened: 1, 3 to 6."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]} to {p[-1]}" if len(p) > 2 else ", ".join(map(str, p)) for p in parts)
