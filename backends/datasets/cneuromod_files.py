"""CNeuroMod-THINGS on disk: which files are there or only linked by DataLad, and its events."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backends.datasets.god_study import one_of
from backends.datasets.things_files import source_of
from explorer.files import guard, open_volume, read_text, volume_data
from explorer.types import UserError

MODEL = "model-fitHrfGLMdenoiseRR"
BETAS = re.compile(
    rf"(sub-\d+)_task-things_space-(\w+)_{MODEL}_stat-(trial|image)Betas_(desc-zscore_)?"
    r"statseries\.h5"
)
EVENTS = re.compile(r"(sub-\d+)_ses-(\d+)_task-things_run-(\d+)_events\.tsv")
ROI_FOLDERS = {  # of masks on the grid of the betas, and what names a region in their files
    "fLoc/rois/{who}/rois/task-derived": re.compile(r".*_space-T1w_.*_roi-(\w+)_cutoff-.*_mask.*"),
    "retinotopy/prf/{who}/rois": re.compile(
        r".*_space-T1w_res-func_.*_label-(\w+)_desc-nn_mask.*"
    ),
}
TRUE = ("True", "TRUE", "true", "1", "1.0")


class Kind(NamedTuple):
    """One person's file of betas."""

    subject: str
    space: str
    of: str  # trial or image
    zscored: bool


class Trial(NamedTuple):
    """One row of an events file that is a row of the betas: ``concept/file`` and what it says."""

    source: str
    repetition: int  # from 1; 0 where it is not said
    odd: bool  # its session was given out of order


def find_betas(path: Path) -> dict[Kind, Path]:
    """Return the files of betas at a path or in a clone of the repository below it."""
    found: dict[Kind, Path] = {}
    for place in ("THINGS/glmsingle", "glmsingle", "."):
        for pattern in ("sub-*/glmsingle/output/*_statseries.h5", "*_statseries.h5"):
            for file in sorted((path / place).glob(pattern)):
                named = BETAS.fullmatch(file.name)
                if named:
                    kind = Kind(named[1], named[2], named[3], bool(named[4]))
                    found.setdefault(kind, file)
    return found


def chosen_files(found: dict[Kind, Path], betas: str, space: str, name: str) -> dict[Kind, Path]:
    """Return one file a person: of these betas, z-scored where there are both, in one space."""
    of = {kind: file for kind, file in found.items() if kind.of == betas.removesuffix("s")}
    if not of:
        other = sorted({kind.of for kind in found})[0]
        raise UserError(f"{name}: betas of {betas} are not here; there are ?betas={other}s.")
    spaces = sorted({kind.space for kind in of})
    if space:
        one_of(name, "space", space, spaces)
    elif len(spaces) > 1:
        raise UserError(
            f"{name}: there are betas in {' and '.join(spaces)}, which have other voxels; choose "
            f"one with ?space={spaces[-1]}."
        )
    chosen: dict[str, Kind] = {}
    for kind in sorted(of, key=lambda kind: kind.zscored):
        if kind.space == (space or spaces[0]):
            chosen[kind.subject] = kind
    return {chosen[who]: of[chosen[who]] for who in sorted(chosen)}


def stimulus_of(source: str) -> str:
    """Return a picture's id: the name of its file without ending."""
    return source.rpartition("/")[2].rpartition(".")[0]


def fetched(file: Path) -> bool:
    """Return whether a file's content is here; a DataLad clone has links that lead nowhere."""
    return file.is_file()


def ask_for(file: Path) -> str:
    """Return how a file of a DataLad clone is fetched."""
    return f"fetch it: datalad get {file}"


def find_events(places: Iterable[Path]) -> dict[str, dict[tuple[int, int], Path]]:
    """Return subject -> (session, run) -> events file, of the first place that has any."""
    for place in places:
        found: dict[str, dict[tuple[int, int], Path]] = {}
        for file in sorted(place.glob("sub-*/ses-*/func/*_events.tsv")):
            named = EVENTS.fullmatch(file.name)
            if named:
                found.setdefault(named[1], {})[int(named[2]), int(named[3])] = file
        if found:
            return found
    return {}


def read_events(file: Path, subject: str, session: int, run: int) -> list[Trial]:
    """Return the trials of a run in the order of time, which is that of the betas' rows."""
    if not fetched(file):
        raise UserError(f"{file} is missing, and says which picture each row is; {ask_for(file)}.")
    text = read_text(file)
    with guard(file, "a tab-separated table"):
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", strict=True))
    columns = set(rows[0]) if rows else set()
    if "image_path" not in columns:
        raise UserError(
            f"{file} has {len(rows)} rows and no column image_path, which names the picture; take "
            "the file as it was published."
        )
    if any(None in row or None in row.values() for row in rows):
        raise UserError(f"{file} has rows of other lengths than its header; fetch it again.")
    said = {"subject_id": int(subject.removeprefix("sub-")), "session_id": session, "run_id": run}
    for name, expected in said.items():
        others = {_digits(row[name]) for row in rows if name in columns} - {expected}
        if others:
            raise UserError(
                f"{file} says {name} {min(others)}, expected {expected} as in its name; the file "
                "is another run's, fetch it again."
            )
    _check_rising(rows, "TrialNumber", 1, file)
    _check_rising(rows, "onset", None, file)
    found = []
    for row in rows:
        name = row["image_path"].replace("\\", "/").rpartition("/")[2]
        source = source_of(name, name.rpartition("_")[0], str(file))
        repetition = _digits(row.get("repetition") or "0")
        found.append(Trial(source, repetition, row.get("not_for_memory", "") in TRUE))
    return found


def _digits(text: str) -> int:
    """Return the number at the end of a label such as ses-024, of 2 or of 2.0; -1 for none."""
    named = re.fullmatch(r"\D*(\d{1,9})(\.0*)?", text)
    return int(named[1]) if named else -1


def _check_rising(rows: list[dict[str, str]], name: str, first: int | None, file: Path) -> None:
    """Refuse rows that are not in the order of time; where ``first`` is given, counted from it."""
    if name not in rows[0]:
        return
    with guard(file, "a table of trials", at=name):
        values = np.array([float(row[name]) for row in rows])
    if not (np.diff(values) > 0).all() or (first is not None and values[0] != first):
        says = "rises from row to row" if first is None else f"counts from {first}"
        raise UserError(
            f"{file}: {name} {says} in the order of the betas' rows, found {values[0]:g} to "
            f"{values[-1]:g} in another order; take the file as it was published."
        )


# ----------------------------------------------------------------------------------------- volumes


def in_mask(file: Path, mask: np.ndarray, affine: np.ndarray, what: str) -> np.ndarray:
    """Return a volume's numbers (V,) inside the betas' mask; one on another grid is refused."""
    image = open_volume(file, what)
    if image.shape != mask.shape or not np.allclose(image.affine, affine, atol=1e-3):
        raise UserError(
            f"{file} has shape {image.shape} or another affine than the betas' mask_array "
            f"{mask.shape}: it is of another person or in another space, so voxels would be mixed "
            "up; take the one in the betas' space (space-T1w, res-func)."
        )
    return volume_data(image, file)[mask]


def find_rois(root: Path, subject: str) -> dict[str, Path]:
    """Return region -> mask file, of those whose content is here."""
    found = {}
    for folder, naming in ROI_FOLDERS.items():
        for file in sorted((root / folder.format(who=subject)).glob("*.nii.gz")):
            named = naming.fullmatch(file.name)
            if named and fetched(file):
                found.setdefault(named[1], file)
    return found
