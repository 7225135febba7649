"""Which image each of NSD's trials showed, held against what the subject's responses say.

``masterordering``, ``subjectim``, ``sharedix`` and 73KID count from 1, our ids (``nsd-00000`` to
``nsd-72999``) from 0. A session is 12 runs of 63 and 62 trials by turns (Allen et al. 2022,
Methods).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.nsd_files import AGAIN, BUCKET, MIXED, PEOPLE
from backends.datasets.reading import mat_array, mat_sizes
from explorer.files import damaged, read_table, reason
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

IMAGES = 73_000
OWN_IMAGES = 10_000  # of each subject, the shared ones first
SHARED = 1_000
SESSIONS, TRIALS = 40, 750
RUNS = np.repeat(np.arange(12) + 1, [63, 62] * 6)  # the run of each trial of a session
DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"


@dataclass(frozen=True, eq=False)
class Design:
    """Which image each of 30,000 trials shows; the same positions are shared for everybody.

    ``image`` int (8, 30000), from 0; ``test`` bool (30000,); ``shared`` int (1000,), the shared
    images from 0 in the order that numbers them.
    """

    image: np.ndarray
    test: np.ndarray
    shared: np.ndarray


def read_design(root: Path) -> Design:
    """Return the design of a release, its numbers checked."""
    path, keys = root / DESIGN, ("masterordering", "subjectim", "sharedix")
    if not path.is_file():
        raise UserError(
            f"{path} is missing; it says which image was shown in which trial and is in {BUCKET}."
        )
    there = mat_sizes(path)
    missing = [key for key in keys if key not in there]
    if missing:
        raise damaged(path, f"it lacks the variable {missing[0]}", do=AGAIN)
    order, images, shared = (_whole(mat_array(path, key), path, key) for key in keys)
    shapes = ((SESSIONS * TRIALS,), (len(PEOPLE), OWN_IMAGES), (SHARED,))
    for key, values, shape, top in (
        ("masterordering", order, shapes[0], OWN_IMAGES),
        ("subjectim", images, shapes[1], IMAGES),
        ("sharedix", shared, shapes[2], IMAGES),
    ):
        if values.shape != shape:
            raise UserError(
                f"{path}: {key} needs shape {shape}, found {values.shape}; copy it again."
            )
        if values.min() < 1 or values.max() > top:
            wrong = values.min() if values.min() < 1 else values.max()
            raise UserError(
                f"{path}: {key} counts from 1 to {top}, found {wrong}; copy it again (numbers "
                "that were made to count from 0 cannot be told from wrong ones)."
            )
    if (np.sort(images[:, :SHARED], axis=1) != np.sort(shared)).any():
        raise UserError(
            f"{path}: the first {SHARED} images of every subject must be those of sharedix; "
            "copy it again."
        )
    if np.isin(images[:, SHARED:], shared).any():
        raise UserError(
            f"{path}: shared images are also among a subject's own, so test images would be "
            "trained on; copy it again."
        )
    return Design(images[:, order - 1] - 1, order <= SHARED, np.sort(shared) - 1)


def _whole(values: np.ndarray, path: Path, key: str) -> np.ndarray:
    """Return MATLAB's whole numbers, which are doubles mostly, as int64."""
    if not (values == np.round(values)).all():  # not finite, too
        raise UserError(f"{path}: {key} needs whole numbers, found fractions or NaN; {AGAIN}.")
    return values.astype(np.int64).squeeze()


def table_of(root: Path, design: Design, subject: str, sessions: Sequence[int]) -> pd.DataFrame:
    """Return one row a trial of some sessions; a trial's number is its place of 750.

    Where the subject's ``responses.tsv`` is, it must say the same, and it says the runs.
    """
    import pandas as pd

    number = int(subject[4:])
    trials = ((np.asarray(sessions) - 1)[:, None] * TRIALS + np.arange(TRIALS)).ravel()
    image, test = design.image[number - 1, trials], design.test[trials]
    table = pd.DataFrame(
        {
            "stimulus": [stimulus_id(k) for k in image],
            "split": np.where(test, "test", "train"),
            "session": trials // TRIALS + 1,
            "run": np.tile(RUNS, len(sessions)),
            "trial": trials % TRIALS + 1,
        }
    )
    responses = _responses(responses_path(root, subject))
    if responses is not None:
        for session in sessions:
            told = responses[responses["SESSION"] == session]
            here = table["session"] == session
            _check(
                responses_path(root, subject), subject, told, image[here.to_numpy()] + 1, session
            )
            table.loc[here, "run"] = told["RUN"].to_numpy()
    return table


def responses_path(root: Path, subject: str) -> Path:
    """Return where a subject's responses lie."""
    return root / "nsddata/ppdata" / subject / "behav" / "responses.tsv"


def _responses(path: Path) -> pd.DataFrame | None:
    """Return ``responses.tsv`` in the order of trials, or None where it is not."""
    if not path.is_file():
        return None
    columns = ["SUBJECT", "SESSION", "RUN", "TRIAL", "73KID"]
    try:
        told = read_table(path, do=AGAIN, usecols=columns)[columns].astype(float)
        if (told % 1 != 0).any(axis=None):  # not finite, too
            raise ValueError("numbers that are not whole")
    except ValueError as error:
        raise UserError(
            f"{path} is damaged or lacks a column ({reason(error)}); {AGAIN}."
        ) from error
    return told.astype(np.int64).sort_values(["SESSION", "RUN", "TRIAL"], kind="stable")


def _check(
    path: Path, subject: str, told: pd.DataFrame, expected: np.ndarray, session: int
) -> None:
    """Refuse responses of another subject, or that show other images than the design."""
    number = int(subject[4:])
    if len(told) != TRIALS:
        raise UserError(
            f"{path} has {len(told)} trials of session {session}, expected {TRIALS}; copy it "
            "again."
        )
    others = set(told["SUBJECT"]) - {number}
    if others:
        raise UserError(f"{path} is of subject {min(others)}, not {number}: {MIXED}.")
    ids = told["73KID"].to_numpy()
    outside = (ids < 1) | (ids > IMAGES)
    if outside.any():
        raise UserError(
            f"{path}: 73KID counts from 1 to {IMAGES}, found {ids[outside][0]} in session "
            f"{session}; copy it again."
        )
    if (ids != expected).any():
        t = int(np.flatnonzero(ids != expected)[0])
        raise UserError(
            f"{path}: trial {t + 1} of session {session} shows 73KID {ids[t]}, but "
            f"nsd_expdesign.mat says {expected[t]} for {subject}: {MIXED}."
        )


def stimulus_id(image: int) -> str:
    """Return the id of an image, from its number from 0."""
    return f"nsd-{image:05d}"
