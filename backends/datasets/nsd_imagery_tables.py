"""Which target each of NSD-imagery's 720 betas is of, from the tables that say so.

::

    nsddata/bdata/nsdimagery/nsdimagery_subj01_visA.tsv   one for each of 12 runs: 48 trials each
    nsddata/experiments/nsdimagery/A_pair_list.mat        pair_list (6, 3): number, file, letter
    nsddata/experiments/nsdimagery/nsdimagery_stiminfo.csv    of others, for everybody: see below

Betas come in the order of `RUNS`; a trial of attention has two, of its cue and of the stream of
pictures in which the target was looked for (NSD data manual, "Functional data (nsdimagery)"; order
and counts: github.com/MedARC-AI/MindEye_Imagery, src/utils.py). The tables of the release have a
row a trial: ``TRIAL`` (from 1), ``CUE`` and ``CONDITION``, both letters of targets; what was seen
in a vision run is CONDITION, and in half of its trials CUE is another target's.

``nsdimagery_stiminfo.csv`` (github.com/Ashsr/NaselarisLab) has a row a beta: ``betas`` (from 0),
``TaskType`` (0 vision, 1 attention, 2 and 3 imagery), ``StimType`` (0 A, 1 B, 2 C),
``StimCond(0/1)`` (1: the cue's target was there), ``Cue``. It does not say which target was seen
where another's letter was shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backends.datasets.mat_cells import mat_cells
from backends.datasets.nsd_files import AGAIN, BUCKET
from explorer.files import read_table, reason
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

RESPONSES = "nsddata/bdata/nsdimagery"
PLACE = "nsddata/experiments/nsdimagery"
STIM_INFO = "nsdimagery_stiminfo.csv"
TRIALS = 48  # of a run
TARGETS = 6  # of a set
PICKLES = (
    "nsddata_stimuli/stimuli/nsdimagery_stimuli.pkl3",
    "nsddata_stimuli/stimuli/nsd/nsdimagery_stimuli.pkl3",
    "nsddata_stimuli/stimuli/nsdimagery/nsdimagery_stimuli.pkl3",
)


class Run(NamedTuple):
    """A run: its name in the files, task, set of targets, and betas of a trial."""

    name: str
    task: str
    targets: str
    epochs: int


RUNS = (
    *(
        Run(f"{stem}{which}{'_1' * (stem == 'img')}", task, which, 1 + (stem == "att"))
        for which in "ABC"
        for stem, task in (("vis", "vision"), ("att", "attention"), ("img", "imagery"))
    ),
    *(Run(f"img{which}_2", "imagery", which, 1) for which in "ABC"),
)
BETAS = sum(TRIALS * run.epochs for run in RUNS)


def read_cues(root: Path, subject: str, given: Path | None) -> pd.DataFrame:
    """Return one row a beta: run, task, set, cue and target (letters, "" unknown), epoch.

    ``given``: a table like ``nsdimagery_stiminfo.csv`` that somebody named, else None. Where the
    release's tables and that one are both here, their cues must agree.
    """
    info = given or root / PLACE / STIM_INFO
    own = _of_responses(root, subject)
    other = _of_stim_info(info) if given or info.is_file() else None
    if own is not None and other is not None:
        wrong = np.flatnonzero((own["cue"] != other["cue"]).to_numpy())
        if len(wrong):
            k = int(wrong[0])
            raise UserError(
                f"{info} says the cue of beta {k} (from 0) is {other['cue'][k]}, but "
                f"{root / RESPONSES} says {own['cue'][k]} for {subject}; leave out the one that "
                "is wrong."
            )
    found = own if own is not None else other
    if found is None:
        raise UserError(_lacking(root, subject))
    return found


def _lacking(root: Path, subject: str) -> str:
    """Return what to do about tables that are not there; a pickle is named, and never opened."""
    take = (
        f"take nsdimagery_{subject}_visA.tsv and the 11 others of {RESPONSES} from {BUCKET}, or "
        f"give a table like {STIM_INFO} with ?cues=FILE"
    )
    pickle = next((p for p in PICKLES if (root / p).is_file()), "")
    if pickle:
        return (
            f"{root / pickle} is a pickle, which could run any code and is not opened; which "
            f"target a beta is of is said by plain tables, too: {take}."
        )
    return (
        f"{root / RESPONSES} has no tables of {subject}, which say what each beta is of; {take}."
    )


def _of_responses(root: Path, subject: str) -> pd.DataFrame | None:
    """Return the betas by the release's 12 tables of a subject, None where there is none."""
    import pandas as pd

    paths = {run: root / RESPONSES / f"nsdimagery_{subject}_{run.name}.tsv" for run in RUNS}
    absent = [path.name for path in paths.values() if not path.is_file()]
    if len(absent) == len(paths):
        return None
    if absent:
        raise UserError(
            f"{root / RESPONSES} lacks {', '.join(absent)}; without every run no beta can be "
            f"told its trial: take them from {BUCKET}."
        )
    pieces = []
    for run, path in paths.items():
        try:
            table = read_table(path, do=AGAIN, usecols=["TRIAL", "CUE", "CONDITION"])
            table["TRIAL"] = table["TRIAL"].astype(float)
            table = table.sort_values("TRIAL", kind="stable")
            if table["TRIAL"].tolist() != list(range(1, TRIALS + 1)):
                raise ValueError(f"TRIAL needs 1 to {TRIALS}, found {len(table)} rows")
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged ({reason(error)}); {AGAIN}.") from error
        cue, seen = (table[c].astype(str).str.strip().to_numpy() for c in ("CUE", "CONDITION"))
        target = seen if run.task == "vision" else cue
        _check_counts(path, target)
        pieces.append(_rows(run, np.repeat(cue, run.epochs), np.repeat(target, run.epochs)))
    return pd.concat(pieces, ignore_index=True)


def _rows(run: Run, cue: np.ndarray, target: np.ndarray) -> pd.DataFrame:
    import pandas as pd

    epoch = np.tile(["cue", "detection"], TRIALS) if run.epochs == 2 else ""
    return pd.DataFrame(
        {
            "run": RUNS.index(run) + 1,
            "part": run.name,
            "task": run.task,
            "set": run.targets,
            "cue": cue,
            "target": target,
            "epoch": epoch,
        }
    )


def _check_counts(path: Path, target: np.ndarray, what: str = "") -> None:
    """Refuse a run whose six targets do not come equally often."""
    names, times = np.unique(target, return_counts=True)
    if len(names) != TARGETS or set(times) != {TRIALS // TARGETS}:
        told = ", ".join(f"{n} {k}" for n, k in zip(names.tolist(), times.tolist(), strict=True))
        raise UserError(
            f"{path}{what}: {TARGETS} targets come {TRIALS // TARGETS} times each in a run, found "
            f"{told}; {AGAIN}."
        )


def _of_stim_info(path: Path) -> pd.DataFrame:
    """Return the betas by a table of others, see the head of this file."""
    import pandas as pd

    columns = ["betas", "TaskType", "StimType", "StimCond(0/1)", "Cue"]
    again = "take it again from github.com/Ashsr/NaselarisLab, NSD_Imagery_Access/meta_data"
    try:
        table = read_table(path, ",", do=again, usecols=columns)[columns]
        numbers = table[columns[:3]].astype(float)
        there = table["StimCond(0/1)"].replace("", "nan").astype(float).to_numpy()
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged or lacks a column ({reason(error)}).") from error
    if numbers["betas"].tolist() != list(range(BETAS)):
        raise UserError(
            f"{path}: betas counts from 0 to {BETAS - 1}, found {len(table)} rows from "
            f"{table['betas'].iloc[0] if len(table) else 'nothing'}; {again}."
        )
    cues = table["Cue"].astype(str).str.strip().to_numpy()
    types = {"vision": (0,), "attention": (1,), "imagery": (2, 3)}
    pieces, begin = [], 0
    for run in RUNS:
        rows = slice(begin, begin + TRIALS * run.epochs)
        begin = rows.stop
        kind = types[run.task][run.name.endswith("_2")]
        told = numbers.iloc[rows, 1:].drop_duplicates().to_numpy().tolist()
        if told != [[kind, "ABC".index(run.targets)]]:
            raise UserError(
                f"{path}: betas {rows.start} to {rows.stop - 1} are of {run.name}, expected "
                f"TaskType {kind} and StimType {'ABC'.index(run.targets)}, found {told}; {again}."
            )
        cue = cues[rows]
        if (cue.reshape(TRIALS, run.epochs) != cue[:: run.epochs, None]).any():
            raise UserError(f"{path}: the two betas of a trial in {run.name} differ; {again}.")
        _check_counts(path, cue[:: run.epochs], f", {run.name}")
        unknown = (there[rows] != 1) & (run.task == "vision")
        pieces.append(_rows(run, cue, np.where(unknown, "", cue)))
    return pd.concat(pieces, ignore_index=True)


def read_pairs(root: Path, which: str) -> dict[str, str]:
    """Return letter -> file of the picture, or concept word, of a set; {} where it is unknown."""
    path = root / PLACE / f"{which}_pair_list.mat"
    if not path.is_file():
        return {}
    cells = mat_cells(path, "pair_list", AGAIN)
    if cells.shape != (TARGETS, 3):
        raise UserError(
            f"{path}: pair_list needs {TARGETS} rows of number, name and letter, found shape "
            f"{cells.shape}; {AGAIN}."
        )
    found = {str(letter).strip(): str(name).strip() for _, name, letter in cells}
    if len(found) != TARGETS or any(Path(name).name != name for name in found.values()):
        raise UserError(f"{path}: pair_list needs {TARGETS} letters and file names; {AGAIN}.")
    return found
