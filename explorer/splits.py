"""Named splits: which stimuli are trained on and which are tested, as an object of its own.

A data set has its own split. Another is a file among the checkpoints, splits/DATASET/NAME.json,
and ``--dataset DATASET=PATH?split=NAME`` opens the data with it; what is in neither of its parts
is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from explorer.files import read_object, short
from explorer.metrics import unit
from explorer.types import Origin, Trials, UserError
from explorer.writing import write_whole

FOLDER = "splits"  # among the checkpoints, with one folder a data set
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # checkpoints are called by it
ROWS = 512  # of similarities at a time
USUAL = 0.99  # of training stimuli are farther from each other than the leak threshold: our choice
SAMPLE = 1_000  # training stimuli whose nearest other one is looked for
STARTS = 4  # of k-means; the best is kept
FIELDS = ("name", "by", "dataset", "train", "test")


@dataclass(frozen=True)
class Split:
    """Which stimuli of a data set are train and which are test.

    ``by``: how it was made, in one phrase that ends a sentence ("k-means of ... into 5 clusters").
    """

    name: str
    by: str
    dataset: str
    train: frozenset[str]
    test: frozenset[str]

    def __post_init__(self) -> None:
        """Refuse a stimulus that is trained and tested, and a part without any."""
        both = self.train & self.test
        if both:
            raise UserError(
                f"The split {self.name!r} has {len(both)} stimuli in train and in test (first "
                f"{min(both)!r}); a stimulus is in one of them."
            )
        if not self.train or not self.test:
            lacking = "training" if not self.train else "test"
            raise UserError(f"The split {self.name!r} has no {lacking} stimuli; make it again.")

    def sentence(self) -> str:
        """Return what a table or page says of it."""
        return (
            f"Split {self.name} ({self.by}): {len(self.train):,} training and "
            f"{len(self.test):,} test stimuli."
        )


class Picked:
    """Certain rows of betas (n, V), read when they are asked for."""

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, betas: Any, rows: np.ndarray) -> None:
        self.shape: tuple[int, int] = (len(rows), int(betas.shape[1]))
        self._betas, self._rows = betas, rows

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return the rows of any index of the first axis."""
        if isinstance(rows, tuple):
            return self[rows[0]][(..., *rows[1:])]
        return self._betas[self._rows[rows]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows."""
        return np.asarray(self[:], dtype=dtype)

    def lies(self, row: int) -> list[Origin] | None:
        """Return where a row lies, if that is known."""
        lies = getattr(self._betas, "lies", None)
        return None if lies is None else lies(int(self._rows[row]))


def resplit(trials: Trials, split: Split) -> Trials:
    """Return trials under another split: rows of its stimuli, in their order, numbered anew.

    Raises
    ------
    UserError
        Where the subject has no training or no test trial in it.
    """
    of = {s: "train" for s in split.train} | {s: "test" for s in split.test}
    given = trials.table["stimulus"].map(of)
    rows = np.flatnonzero(given.notna())
    who = f"{trials.subject.dataset}/{trials.subject.name}"
    lacking = {"train", "test"} - set(given.iloc[rows])
    if lacking:
        raise UserError(
            f"The split {split.name!r} has no {min(lacking)} stimulus that {who} saw; it was made "
            "for other subjects or another copy of the data: make it again under another name."
        )
    table = trials.table.iloc[rows].reset_index(drop=True)
    table["split"] = given.iloc[rows].to_numpy()
    table["repeat"] = table.groupby(["stimulus", "split"]).cumcount()
    betas = trials.betas if len(rows) == len(given) else Picked(trials.betas, rows)
    return replace(trials, betas=betas, table=table, split=split.name, split_by=split.by)


def split_file(checkpoints: Path, dataset: str, name: str) -> Path:
    """Return where a split of a data set lies, or would."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"A split's name is made of letters, digits, - and _; found {short(name)!r}."
        )
    return Path(checkpoints) / FOLDER / dataset / f"{name}.json"


def split_names(checkpoints: Path, dataset: str) -> list[str]:
    """Return the splits of a data set that were made here."""
    return sorted(file.stem for file in (Path(checkpoints) / FOLDER / dataset).glob("*.json"))


def read_split(checkpoints: Path, dataset: str, name: str) -> Split:
    """Return a split that was written; `UserError` where there is none, or it is damaged."""
    path = split_file(checkpoints, dataset, name)
    known = split_names(checkpoints, dataset)
    if not path.is_file():
        raise UserError(
            f"{dataset} has no split {name!r} here ({', '.join(known) or 'none was made'}); make "
            f"it with: python -m backends split {name} --dataset {dataset}=PATH"
        )
    values = read_object(path)
    lists = [values.get(part) for part in ("train", "test")]
    sound = (
        set(values) == set(FIELDS)
        and all(isinstance(values[key], str) for key in FIELDS[:3])
        and all(isinstance(v, list) and all(isinstance(s, str) for s in v) for v in lists)
    )
    if not sound or (values["name"], values["dataset"]) != (name, dataset):
        raise UserError(
            f"{path} is no split {name!r} of {dataset}: it needs {', '.join(FIELDS)}, names as "
            "texts; make it again."
        )
    given = {**values, "train": frozenset(values["train"]), "test": frozenset(values["test"])}
    return Split(**given)


def write_split(checkpoints: Path, split: Split) -> Path:
    """Write a split beside the checkpoints, whole or not at all, and return its file."""
    path = split_file(checkpoints, split.dataset, split.name)
    values = {
        "name": split.name,
        "by": split.by,
        "dataset": split.dataset,
        "train": sorted(split.train),
        "test": sorted(split.test),
    }
    text = json.dumps(values, indent=0, ensure_ascii=False)
    return write_whole(path, text.encode(), "make room on that disk, or choose --checkpoints")


def shown(several: Sequence[Trials]) -> tuple[list[str], list[str]]:
    """Return the training and the test stimuli of subjects, each once; test wins over train."""
    test = list(dict.fromkeys(s for trials in several for s in trials.stimuli("test")))
    known = set(test)
    train = dict.fromkeys(s for trials in several for s in trials.stimuli("train"))
    return [s for s in train if s not in known], test


# ---------------------------------------------------------------------------- what is near to what


def clusters(features: np.ndarray, k: int) -> np.ndarray:
    """Return the cluster (n,) of every row of features (n, ...), by size: 0 is the largest.

    k-means of unit vectors (Lloyd), as on a sphere; the same for the same features.
    """
    from sklearn.cluster import KMeans

    rows = unit(np.asarray(features, dtype=np.float32).reshape(len(features), -1))
    if not 2 <= k <= len(rows):
        raise UserError(f"{len(rows)} stimuli make 2 to {len(rows)} clusters, found k = {k}.")
    found = KMeans(k, n_init=STARTS, random_state=0).fit_predict(rows)
    order = np.argsort(-np.bincount(found, minlength=k), kind="stable")
    return np.argsort(order)[found]


def nearest(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return for each row (n, ...) its highest cosine similarity (n,) to one of ``among``."""
    if not len(among):
        raise UserError("There are no training stimuli to be near to.")
    a, b = (unit(np.asarray(x, np.float32).reshape(len(x), -1)) for x in (rows, among))
    return np.concatenate(
        [(part @ b.T).max(axis=1) for part in np.array_split(a, len(a) // ROWS + 1)]
    )


def usual_similarity(rows: np.ndarray) -> float:
    """Return the cosine similarity that `USUAL` of rows (n, d) have at most with their nearest.

    Rows are of unit norm; of many, evenly spaced ones are asked.
    """
    asked = np.unique(np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(int))
    similarity = rows[asked] @ rows.T
    similarity[np.arange(len(asked)), asked] = -np.inf
    return float(np.quantile(similarity.max(axis=1), USUAL))
