"""Which image each trial of MindEye2's release showed: from its table of images, or its shards."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.mindeye_release import HUB2, IMAGES, RANGE, RELEASED, names
from backends.datasets.reading import hdf5_array, hdf5_values, open_hdf5
from backends.datasets.webdataset import array_of, members
from explorer.files import guard, read_array
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

PER_SESSION = 750
SHARED = 1000  # images that were meant for all eight subjects; the others are each one subject's
INDICES, SHARED_FILE = "COCO_73k_subj_indices.hdf5", "shared1000.npy"
PEEKED = 64  # trials of a shard that are held against the table of images: our choice
BEHAV = 17  # columns of behav.npy (MindEyeV2, README.md)
IMAGE, WHO, SESSION, RUN, TRIAL, IS_SHARED = 0, 1, 2, 3, 5, 16


class Shown:
    """Which image each trial showed, in the folder of a release.

    Parameters
    ----------
    path
        The folder.
    exact
        Whether a subject must have been shown as many test images as in the release; else files
        must only agree with each other.
    """

    def __init__(self, path: Path, exact: bool) -> None:
        self.path, self._exact = path, exact

    @cached_property
    def images_of(self) -> dict[str, np.ndarray]:
        """The image of each global trial, int (trials,), for each subject; {} without the file."""
        file = self.path / INDICES
        if not file.is_file():
            return {}
        found = {}
        with open_hdf5(file) as opened:
            for subject in opened:
                numbers = hdf5_values(hdf5_array(opened, subject))
                if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
                    raise UserError(
                        f"{file}, {subject}: expected whole numbers (trials,), found "
                        f"{numbers.dtype} {numbers.shape}."
                    )
                outside = numbers[(numbers < 0) | (numbers >= IMAGES)]
                if len(outside):
                    raise UserError(f"{file}, {subject} has the image {outside[0]}; {RANGE}")
                found[subject] = numbers.astype(np.int64)
        return found

    @cached_property
    def shared(self) -> np.ndarray:
        """Which images are NSD's shared 1,000, bool (73000,); nobody is trained on them.

        From ``shared1000.npy``. Where that is missing, they are the images that two subjects or
        more were shown: 73,000 = 8 x 9,000 + 1,000, each of the 9,000 being one subject's alone.
        """
        seen = np.zeros(IMAGES, dtype=int)
        for numbers in self.images_of.values():
            seen[np.unique(numbers)] += 1
        file = self.path / SHARED_FILE
        if file.is_file():
            shared = read_array(file, mmap=False)
            if shared.dtype != bool or shared.shape != (IMAGES,) or shared.sum() != SHARED:
                raise UserError(
                    f"{file} needs bool (73000,) with {SHARED} true, found {shared.dtype} "
                    f"{shared.shape}; copy it from {HUB2} again."
                )
        elif (seen > 1).sum() == SHARED:
            shared = seen > 1
        else:
            shared = np.zeros(IMAGES, dtype=bool)
            for subject in RELEASED:
                tar = self._tar(subject, "new_test")
                if tar.is_file():
                    shared[read_behav(tar, subject)[:, IMAGE]] = True
            if shared.sum() != SHARED:
                raise UserError(
                    f"Which images are test is not known: {file} is missing (73 kB, {HUB2}), and "
                    f"neither {INDICES} nor wds/subj0X/new_test/0.tar give {SHARED} images."
                )
        wrong = np.flatnonzero((seen > 1) & ~shared)
        if len(wrong):
            who = [s for s, numbers in self.images_of.items() if wrong[0] in numbers]
            raise UserError(
                f"{self.path / INDICES}: {' and '.join(who[:2])} were both shown "
                f"{names()[wrong[0]]}, which is not one of the {SHARED} shared images, so two "
                "subjects' lists are mixed up; copy it again."
            )
        return shared

    def older_test(self, subjects: Sequence[str]) -> np.ndarray:
        """Return the images of the older test set of some subjects, int, each once."""
        files = {s: self._tar(s, "test") for s in subjects}
        numbers = [read_behav(file, s)[:, IMAGE] for s, file in files.items() if file.is_file()]
        return np.unique(np.concatenate(numbers)) if numbers else np.array([], int)

    def _tar(self, subject: str, part: str, number: int = 0) -> Path:
        return self.path / "wds" / subject / part / f"{number}.tar"

    def table(
        self, subject: str, trials: int, test_set: str, older: bool, sessions: int | None
    ) -> pd.DataFrame:
        """Return the trials that are trained or tested on, in the order of the betas.

        Parameters
        ----------
        subject, trials
            Whose, and how many rows the betas have.
        test_set, older
            What the test set is called, and whether it is the one in ``wds/subj0X/test``.
        sessions
            How many of the first sessions are trained on; None for all.
        """
        import pandas as pd

        if subject in self.images_of:
            number, session, run = self._from_indices(subject, trials)
        else:
            number, session, run = self._from_behav(subject, trials)
        self._check_base(subject, number)
        shared = (number >= 0) & self.shared[number]
        expected = RELEASED[subject][2]
        if self._exact and len(np.unique(number[shared])) != expected:
            raise UserError(
                f"{subject} was shown {len(np.unique(number[shared]))} of the {SHARED} test "
                f"images, expected {expected}; its list of images is another subject's, or does "
                "not count from 0."
            )
        is_test = self._in_older_test(subject, number) if older else shared
        train = (number >= 0) & ~shared
        if sessions is not None:
            train &= session <= sessions
        used = np.flatnonzero(train | is_test)
        table = pd.DataFrame(
            {
                "stimulus": names()[number[used]],
                "split": np.where(is_test[used], "test", "train"),
                "session": session[used],
                "run": run[used],
                "trial": used,
                "test_set": np.where(is_test[used], test_set, ""),
            }
        )
        table.insert(2, "repeat", table.groupby("stimulus").cumcount())
        return table

    def _check_base(self, subject: str, number: np.ndarray) -> None:
        """Refuse numbers of images of which more are shared once they are moved by one."""
        known, shared = np.unique(number[number >= 0]), np.flatnonzero(self.shared)
        seen = {by: int(np.isin(known + by, shared).sum()) for by in (0, -1, 1)}
        best = max(seen, key=lambda by: seen[by])
        if seen[best] > seen[0]:
            raise UserError(
                f"{self.path}: {seen[0]} images that {subject} was shown are test images, and "
                f"{seen[best]} are if one is {'subtracted' if best < 0 else 'added'}: its list "
                f"of images does not count from 0, as {SHARED_FILE} does. "
                f"{RANGE[0].upper()}{RANGE[1:]}"
            )

    def _from_indices(
        self, subject: str, trials: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return image, session and run (0) of each global trial, each int (trials,)."""
        file, number = self.path / INDICES, self.images_of[subject]
        if len(number) != trials:
            same = [s for s, n in self.images_of.items() if len(n) == trials]
            raise UserError(
                f"{file} lists {len(number)} trials of {subject}, its betas have {trials}"
                + (f", which is as many as {', '.join(same)} have" if same else "")
                + "; the files are of different subjects, or one is cut short."
            )
        # One sequence of trials was used for all subjects, so shared images fall on the same
        # trials in everybody; a list that was shifted or sorted shows here.
        for other, theirs in self.images_of.items():
            n = min(len(theirs), trials)
            either = self.shared[number[:n]] | self.shared[theirs[:n]]
            apart = np.flatnonzero(either & (number[:n] != theirs[:n]))
            if len(apart):
                raise UserError(
                    f"{file}: trial {apart[0]} (from 0) showed {names()[number[apart[0]]]} to "
                    f"{subject} and {names()[theirs[apart[0]]]} to {other}; shared images fall "
                    "on the same trials in all subjects, so one list is out of order."
                )
        tar = self._tar(subject, "new_test")
        if tar.is_file():
            behav = read_behav(tar, subject, PEEKED)
            wrong = np.flatnonzero(
                (behav[:, TRIAL] >= trials)
                | (number[np.minimum(behav[:, TRIAL], trials - 1)] != behav[:, IMAGE])
            )
            if len(wrong):
                row = behav[wrong[0]]
                raise UserError(
                    f"{tar} says that trial {row[TRIAL]} showed {names()[row[IMAGE]]}, {INDICES} "
                    "says another image; the files do not belong together."
                )
        return number, np.arange(trials) // PER_SESSION + 1, np.zeros(trials, int)

    def _from_behav(self, subject: str, trials: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the same from ``behav.npy`` in the shards; -1 for trials in no shard."""
        folder = self.path / "wds" / subject / "train"
        shards = sorted(folder.glob("*.tar"), key=lambda file: (len(file.stem), file.stem))
        test = self._tar(subject, "new_test")
        if not shards or not test.is_file():
            raise UserError(
                f"{self.path / INDICES} is missing or lacks {subject}, and so do shards in "
                f"{folder.parent}: one of them must say which image each trial showed; both come "
                f"from {HUB2}."
            )
        train = np.concatenate([read_behav(file, subject) for file in shards])
        tested = read_behav(test, subject)
        leaked = train[self.shared[train[:, IMAGE]] | (train[:, IS_SHARED] == 1)]
        if len(leaked):
            raise UserError(
                f"{folder} trains on {names()[leaked[0, IMAGE]]} (trial {leaked[0, TRIAL]}), "
                f"which is one of the {SHARED} test images; the shards are of another split."
            )
        behav = np.concatenate([train, tested])
        order = np.argsort(behav[:, TRIAL], kind="stable")
        behav = behav[order]
        twice = np.flatnonzero(np.diff(behav[:, TRIAL]) == 0)
        if len(twice) or behav[-1, TRIAL] >= trials:
            wrong = behav[twice[0] if len(twice) else -1, TRIAL]
            raise UserError(
                f"{folder.parent}: trial {wrong} is "
                + ("there twice" if len(twice) else f"beyond the {trials} rows of the betas")
                + "; the shards and betas do not belong together."
            )
        number, session, run = np.full(trials, -1), np.zeros(trials, int), np.zeros(trials, int)
        for array, column in ((number, IMAGE), (session, SESSION), (run, RUN)):
            array[behav[:, TRIAL]] = behav[:, column]
        return number, session, run

    def _in_older_test(self, subject: str, number: np.ndarray) -> np.ndarray:
        """Return which trials are in ``wds/subj0X/test``, bool (trials,)."""
        tar = self._tar(subject, "test")
        if not tar.is_file():
            raise UserError(
                f"{tar} is missing: it says which trials the older test set has; copy it from "
                f"{HUB2}, or use test=new_test."
            )
        behav = read_behav(tar, subject)
        inside = behav[behav[:, TRIAL] < len(number)]
        if len(inside) < len(behav) or (number[inside[:, TRIAL]] != inside[:, IMAGE]).any():
            raise UserError(f"{tar} and the betas of {subject} do not belong together.")
        if not self.shared[inside[:, IMAGE]].all():
            raise UserError(
                f"{tar} tests on an image that is not one of the {SHARED} shared; it would be "
                "trained on too."
            )
        is_test = np.zeros(len(number), dtype=bool)
        is_test[inside[:, TRIAL]] = True
        return is_test


def read_behav(file: Path, subject: str, most: int | None = None) -> np.ndarray:
    """Return ``behav.npy`` of a shard's samples as int (n, 17), or of its first ``most``.

    Columns: 0 image (from 0), 1 subject, 2 session, 3 run, 5 global trial (from 0), 16 whether
    the image is shared; NaN is written -1 (MindEyeV2, README.md). Times and the like lose their
    fraction here; they are not used.
    """
    rows = []
    with guard(file), file.open("rb") as opened:
        for name, offset, size in members(opened, file):
            if name.rpartition("/")[2].partition(".")[2] != "behav.npy":
                continue
            opened.seek(offset)
            values = array_of(opened.read(size), f"{file}, {name}")
            if values.size != BEHAV or values.dtype.kind not in "fiu":
                raise UserError(
                    f"{file}, {name} needs 17 numbers (1, 17), found {values.dtype} "
                    f"{values.shape}."
                )
            rows.append(values.reshape(BEHAV))
            if most is not None and len(rows) == most:
                break
    if not rows:
        raise UserError(f"{file} holds no behav.npy; copy it from {HUB2} again.")
    told = np.nan_to_num(np.array(rows, dtype=np.float64), nan=-1, posinf=-1, neginf=-1)
    if (told[:, [IMAGE, WHO, SESSION, RUN, TRIAL]] % 1 != 0).any():
        raise UserError(
            f"{file}: images, subjects, sessions, runs and trials are whole numbers, found "
            f"fractions; copy it from {HUB2} again."
        )
    behav = told.astype(np.int64)
    others = behav[behav[:, WHO] != int(subject[-2:])]
    if len(others):
        raise UserError(
            f"{file} holds trials of subject {others[0, WHO]}, not of {subject}; the shards of two"
            " subjects are mixed up."
        )
    outside = behav[(behav[:, IMAGE] < 0) | (behav[:, IMAGE] >= IMAGES) | (behav[:, TRIAL] < 0)]
    if len(outside):
        raise UserError(
            f"{file} has the image {outside[0, IMAGE]} in trial {outside[0, TRIAL]}; {RANGE}"
        )
    return behav
