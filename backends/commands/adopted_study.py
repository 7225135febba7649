"""A plain folder from somebody's own GLM, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.commands.adoption import NAMED, Part, Person, Plan, groups, vertices
from backends.datasets import glmsingle
from backends.datasets.bids_events import in_order
from backends.datasets.folder import Folder
from backends.training.counted import count
from backends.training.plan import Progress
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd


def write(plan: Plan, out: Path, title: str, progress: Progress) -> Path:
    """Write the plain folder whole or not at all, its pictures copied; it must not exist yet."""
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        (part / "stimuli").mkdir(parents=True)
        description = {"title": title, "space": plan.space, "beta_unit": plan.unit}
        (part / "dataset.json").write_text(
            json.dumps(description | {"note": _note(plan)}, indent=2)
        )
        _write_stimuli(plan, part / "stimuli")
        for person in plan.people:
            _write_person(plan, person, part / person.name, progress)
        study = Folder(part, out.name)
        for person in plan.people:
            study.load(person.name)  # what would not open is not left behind
        os.rename(part, out)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error}); make room, or name another."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _note(plan: Plan) -> str:
    files = list(dict.fromkeys(p.file.name for person in plan.people for p in person.parts))
    z = f", z-scored within {plan.zscore} by its training trials" if plan.zscore else ""
    return f"Adopted from GLMsingle's {', '.join(files[:NAMED])}{z}; test is {plan.split_by}."


def _write_stimuli(plan: Plan, folder: Path) -> None:
    import pandas as pd

    rows = []
    for cell, stimulus in plan.stimuli.items():
        picture = plan.pictures[stimulus]
        file = f"{stimulus}{picture.suffix.lower()}"
        shutil.copyfile(picture, folder / file)
        rows.append({"stimulus": stimulus, "file": file, "source": cell})
    _save(pd.DataFrame(rows).drop_duplicates("stimulus"), folder / "stimuli.tsv")


def _write_person(plan: Plan, person: Person, folder: Path, progress: Progress) -> None:
    import nibabel
    import pandas as pd

    folder.mkdir()
    usable, trials = person.usable, person.trials
    split = trials["stimulus"].map(plan.stimuli).map(plan.split)
    columns = {"stimulus": trials["stimulus"].map(plan.stimuli), "split": split}
    numbers = {unit: _numbers(trials[unit]) for unit in ("session", "run")}
    origin = {"events_file": trials["events"], "events_row": trials["row"]}
    files = [(p.file, n) for p in person.sides[0] for n in range(p.array.shape[-1])]
    origin |= {"source_file": [str(f) for f, _ in files], "source_trial": [n for _, n in files]}
    _save(pd.DataFrame(columns | numbers | origin), folder / "trials.tsv")
    grids = [side[0].grid for side in person.sides]
    if grids[0].mask is not None:
        mask = np.zeros(grids[0].mask.shape, np.uint8)
        mask[grids[0].mask] = usable
        nibabel.save(nibabel.Nifti1Image(mask, grids[0].affine), folder / "mask.nii.gz")
    else:
        _save(pd.DataFrame(vertices(person)).loc[usable], folder / "voxels.tsv")
    stored = np.lib.format.open_memmap(
        folder / "betas.npy", "w+", np.float32, (len(trials), int(usable.sum()))
    )
    place = np.cumsum(usable) - usable  # of a voxel among those kept
    begin, train = 0, (split == "train").to_numpy()
    for look, side in zip(person.looks, person.sides, strict=True):
        here = slice(begin, begin + len(look.usable))
        _copy(stored, side, look.usable, place[here], progress)
        begin = here.stop
    if plan.zscore:
        _zscore(stored, groups(trials, plan.zscore).to_numpy(), train)
    stored.flush()


def _copy(
    stored: np.ndarray, parts: Sequence[Part], usable: np.ndarray, at: np.ndarray, tell: Progress
) -> None:
    """Write the betas of one hemisphere, or of all, session below session."""
    row = 0
    for part in parts:
        n, work = part.array.shape[-1], f"{part.subject} {part.file.name}"
        for columns, values in glmsingle.blocks(part.array, part.grid):
            kept = usable[columns]
            where = at[columns][kept]
            if len(where):
                stored[row : row + n, where[0] : where[-1] + 1] = values[kept].T
            tell(count(work, columns.stop, len(usable), "voxels", "written"))
        row += n


def _zscore(stored: np.ndarray, group: np.ndarray, train: np.ndarray) -> None:
    """Z-score in place within groups, by the mean and SD of their training trials."""
    width = max(1, glmsingle.BLOCK // len(stored))
    for begin in range(0, stored.shape[1], width):
        block = np.asarray(stored[:, begin : begin + width], np.float64)
        for name in dict.fromkeys(group.tolist()):
            rows = group == name
            mean, sd = block[rows & train].mean(axis=0), block[rows & train].std(axis=0)
            flat = sd <= 1e-6 * np.abs(mean)
            block[rows] = np.where(flat, 0, (block[rows] - mean) / np.where(flat, 1, sd))
        stored[:, begin : begin + width] = block


def _numbers(labels: pd.Series) -> list[int]:
    """Return whole numbers for labels: their own where all are numbers, else their rank from 1."""
    known = sorted(set(labels), key=in_order)
    whole = all(label.isdecimal() for label in known)
    of = {label: int(label) if whole else rank for rank, label in enumerate(known, 1)}
    return [of[label] for label in labels]


def _save(table: pd.DataFrame, file: Path) -> None:
    table.to_csv(file, sep="\t", index=False)
