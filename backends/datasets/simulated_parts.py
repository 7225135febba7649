"""The further test sets of the embedded study: held-out kinds of pictures, imagined scenes.

How their files lie is in `backends.simulation.shipping`. Each is of the study's own people and
voxels, so mappers that were trained on its main part decode them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets import layout
from backends.datasets.reading import chosen, stacked
from backends.datasets.simulated_files import AGAIN, Truth
from explorer.types import Trials, UserError

if TYPE_CHECKING:
    import pandas as pd

    from backends.simulation.study import Study

MAIN, GENERALISATION, IMAGERY = "main", "generalisation", "imagery"
TASKS = {"imagery": "imagined", "vision": "seen"}  # as of NSD-imagery
HELD_OUT = "held-out-"  # how the ids of held-out pictures begin
# Of each ordinary test image as many repeats are read as a held-out or imagined one has, so that
# both are equally noisy.
REPEATS = 2


@dataclass(frozen=True)
class About:
    """What a part says of itself: see `explorer.protocols.Dataset`."""

    title: str
    note: str
    remarks: tuple[str, ...]


SPLIT_BY = "all trials are test; the main part of the simulated study has the training trials"
ABOUT: dict[str, About] = {
    GENERALISATION: About(
        "held-out kinds of pictures",
        "Pictures that differ in kind from everything trained on (the column test_set names the "
        "set), and the ordinary test images beside them, two repeats of each.",
        (
            "New categories have a known super-category; new settings, and the colours of other "
            "palettes, have no named channel in the simulated cortex (backends/simulation/"
            "held_out.py says what is assumed of each set).",
        ),
    ),
    IMAGERY: About(
        "imagined scenes",
        "One test scene of every category, {told} twice; the response to an imagined scene is "
        "weaker and lies partly elsewhere, and by how much is known.",
        (
            "?task=imagery opens the imagined trials, ?task=vision the same scenes as they were "
            "seen; truth/imagery/areas.tsv says what is left of the signal in each area.",
        ),
    ),
}


def relatives(path: Path) -> dict[str, dict[str, str]]:
    """Return the parts that lie in a study's folder, name -> the options that open each."""
    found = {}
    if (path / GENERALISATION).is_dir():
        found["held out"] = {"part": GENERALISATION}
    if (path / IMAGERY).is_dir():
        found |= {told: {"part": IMAGERY, "task": task} for task, told in TASKS.items()}
    return found


def check(part: str, task: str) -> str:
    """Return the task of a part, "" of those that have none; refuse what is neither."""
    if part not in (MAIN, *ABOUT):
        raise UserError(f"part is one of {', '.join((MAIN, *ABOUT))}; found {part!r}.")
    if task and part != IMAGERY:
        raise UserError("task is for part=imagery; leave it out.")
    task = task or ("imagery" if part == IMAGERY else "")
    if task and task not in TASKS:
        raise UserError(f"task is one of {', '.join(TASKS)}; found {task!r}.")
    return task


def part_stimuli(path: Path, part: str, main: pd.DataFrame) -> pd.DataFrame:
    """Return a part's stimuli, those of its own first; ``main``: the study's test stimuli."""
    import pandas as pd

    if part == IMAGERY:
        file = path / part / "trials.tsv"
        table = layout.read_trial_table(file, main, "stimulus")
        return main[main.index.isin(table["stimulus"])]
    held = layout.read_stimuli(path / part)
    if "test_set" not in held:
        raise UserError(f"{path / part / 'stimuli'} lacks the column 'test_set'; {AGAIN}.")
    other = [stimulus for stimulus in held.index if not stimulus.startswith(HELD_OUT)]
    if other:
        raise UserError(
            f"{path / part / 'stimuli'} names the stimulus {other[0]!r}; ids of held-out pictures "
            f"begin with {HELD_OUT}: {AGAIN}."
        )
    return pd.concat([held, main]).fillna("")


def part_trials(
    path: Path, part: str, task: str, name: str, main: Trials, stimuli: pd.DataFrame
) -> Trials:
    """Return a subject's trials of a part.

    Parameters
    ----------
    path, part, task
        The study's folder, and what is read of it.
    name
        The subject's folder, in each part.
    main
        The subject's test trials of the main part, nothing else.
    stimuli
        As `part_stimuli` gives them.
    """
    import pandas as pd

    columns = ["stimulus", "split", "repeat", "session", "run"]
    few = main.table["repeat"] < REPEATS
    if task == "vision":
        rows = np.flatnonzero(main.table["stimulus"].isin(stimuli.index) & few)
        table = main.table.iloc[rows][columns].reset_index(drop=True).assign(task=task)
        return replace(main, betas=chosen(main.betas, rows), table=table)
    table = layout.read_trial_table(path / part / "trials.tsv", stimuli, "stimulus")[columns]
    stored = layout.read_array(path / part / name / "betas.npy")
    scale = _scale(path / part / name, stored, (len(table), main.subject.voxels.n_voxels))
    betas = layout.scaled_rows(stored, scale, str(path / part / name / "betas.npy"))
    if part == IMAGERY:
        return replace(main, betas=betas, table=table.assign(task=task))
    rows = np.flatnonzero(few)
    ordinary = main.table.iloc[rows][columns]
    return replace(
        main,
        betas=stacked([betas, chosen(main.betas, rows)], f"{main.subject.dataset}/{name}"),
        table=pd.concat([table, ordinary], ignore_index=True),
    )


def part_truth(
    path: Path, part: str, task: str, name: str, main: Truth, stimuli: pd.DataFrame, study: Study
) -> Truth:
    """Return the truth of a part: the noiseless responses to its stimuli, in their order.

    Those to held-out pictures are made again, in some seconds; ``main``: the main part's truth.
    """
    shown = tuple(stimuli.index)
    place = {stimulus: row for row, stimulus in enumerate(main.stimuli)}
    known = main.noiseless[[place[s] for s in shown if s in place]]
    if part == GENERALISATION:
        made = study.noiseless(main.subject, part)
        return replace(main, stimuli=shown, noiseless=np.concatenate([made, known]))
    if task == "vision":
        return replace(main, stimuli=shown, noiseless=known)
    folder = path / "truth" / part / name
    stored = layout.read_array(folder / "noiseless.npy")
    scale = _scale(folder, stored, known.shape)
    clean = main.voxels["baseline"].to_numpy(np.float32) + stored * scale
    return replace(main, stimuli=shown, noiseless=clean.astype(np.float32))


def _scale(folder: Path, stored: Any, shape: tuple[int, int]) -> np.ndarray:
    """Return what one unit of stored values is worth, float32 (V,), after a look at both files."""
    from explorer.files import read_array

    scale = np.asarray(read_array(folder / "scale.npy", missing=AGAIN))
    if stored.shape != shape or stored.dtype != np.int8:
        raise UserError(
            f"{folder} holds {stored.dtype} {stored.shape}, expected int8 {shape}; {AGAIN}."
        )
    if scale.shape != shape[1:] or scale.dtype.kind != "f" or not (scale > 0).all():
        raise UserError(
            f"{folder / 'scale.npy'} needs {shape[1]} numbers above 0, found {scale.dtype} "
            f"{scale.shape}; {AGAIN}."
        )
    if not np.isfinite(scale).all():
        raise UserError(f"{folder / 'scale.npy'} holds a value that is not finite; {AGAIN}.")
    return scale
