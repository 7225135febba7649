"""Somebody's own GLM: which betas, events and voxels belong together, and what is unclear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets import glmsingle
from backends.datasets.bids_events import Run, entities, excess, in_order
from backends.datasets.glmsingle import Grid, Look
from backends.datasets.layout_voxels import MNI, read_mask
from backends.training.counted import count
from backends.training.plan import Progress
from explorer.files import read_array, short
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

NAMED = 3  # things that a sentence names before it counts


@dataclass(frozen=True, eq=False)
class Part:
    """One file of betas: whose, of which session and hemisphere ("" for all), and its runs."""

    file: Path
    subject: str
    session: str
    hemisphere: str
    runs: tuple[Run, ...]
    grid: Grid

    @cached_property
    def array(self) -> Any:
        """The betas, opened."""
        return glmsingle.open_betas(self.file)


@dataclass(eq=False)
class Person:
    """A participant: betas by hemisphere and session, trials in their order, and places.

    ``trials``: columns stimulus (the cell), session, run, events (its file), row, onset and those
    of the events. ``looks``: one a hemisphere, once all was read.
    """

    name: str
    parts: list[Part]
    trials: pd.DataFrame
    looks: list[Look] = field(default_factory=list)

    @property
    def sides(self) -> list[list[Part]]:
        """Its files, one list a hemisphere (one list for both), each in the order of sessions."""
        order = dict.fromkeys(part.hemisphere for part in self.parts)
        return [[p for p in self.parts if p.hemisphere == side] for side in sorted(order)]

    @property
    def usable(self) -> np.ndarray:
        """Bool (V,): the voxels that are kept, left then right."""
        return np.concatenate([look.usable for look in self.looks])


@dataclass(eq=False)
class Plan:
    """What would be read. ``remarks`` are facts; while ``unclear`` has any, nothing is written.

    ``stimuli``: cell that names it -> its id. ``pictures``: id -> file. ``split``: id -> split.
    """

    people: list[Person]
    column: str
    space: str
    unit: str
    stimuli: dict[str, str]
    pictures: dict[str, Path] = field(default_factory=dict)
    split: dict[str, str] = field(default_factory=dict)
    split_by: str = ""
    zscore: str = ""
    remarks: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)


def people(
    results: Sequence[Path], runs: Sequence[Run], where: str, space: str, column: str, name: str
) -> list[Person]:
    """Return the participants of some results, with the trials of their runs.

    Parameters
    ----------
    results
        Files of betas.
    runs
        Of everybody, in order.
    where
        The mask: a file, a folder with one a subject, or the name of a surface.
    space
        "" to read it from the names of files.
    column
        Of the events, for sentences.
    name
        What the only participant is called, "" for what files' names say.
    """
    of: dict[str, list[Path]] = {}
    for file in results:
        of.setdefault(entities(file.absolute()).get("sub", ""), []).append(file)
    known = list(dict.fromkeys(run.subject for run in runs))
    if name and len(of) > 1:
        raise UserError(f"--subject names one participant, and the results are of {len(of)}.")
    found = []
    for label, files in sorted(of.items(), key=lambda item: in_order(item[0])):
        unnamed = not label and len(known) > 1 or len(of) > 1 and "" in (label, *known)
        mine = [run for run in runs if not label or run.subject in ("", label)]
        if unnamed or not mine:
            of_whom = ", ".join(f"sub-{k}" if k else "nobody named" for k in known)
            raise UserError(
                f"{files[0]} is of {f'sub-{label}' if label else 'nobody named'}, and the events "
                f"are of {of_whom}; give results and events whose paths name the same people "
                "(sub-01)."
            )
        called = name or f"sub-{label or mine[0].subject or '01'}"
        found.append(
            _person(called, label or mine[0].subject, files, mine, (where, space), column)
        )
    return found


def _person(
    name: str,
    label: str,
    files: Sequence[Path],
    runs: Sequence[Run],
    grid: tuple[str, str],
    column: str,
) -> Person:
    parts = []
    for file in files:
        named = entities(file.absolute())
        session, side = named.get("ses", ""), named.get("hemi", "").upper()
        if side not in ("", "L", "R"):
            raise UserError(f"{file}: hemispheres are named hemi-L and hemi-R, found hemi-{side}.")
        mine = [run for run in runs if not session or run.session == session]
        if not mine:
            raise UserError(f"{file} is of ses-{session}, of which --events gives no file.")
        array = glmsingle.open_betas(file)
        place = _grid(*grid, label, side, array.shape, file)
        part = Part(file, name, session, side, tuple(mine), place)
        glmsingle.check_axes(array.shape, place, sum(len(run.trials) for run in mine), str(file))
        _check_count(part, column)
        parts.append(part)
    parts.sort(key=lambda part: in_order(part.session))
    places = [(part.hemisphere, part.session) for part in parts]
    sessions = {side: [s for h, s in places if h == side] for side, _ in places}
    if len(set(places)) < len(places) or any("" in s and len(s) > 1 for s in sessions.values()):
        raise UserError(
            f"{' and '.join(str(f) for f in files[:NAMED])} hold betas of {name}, and their paths "
            "do not tell sessions (ses-01) or hemispheres (hemi-L) apart; put them into folders "
            "that do, or give one."
        )
    if len({tuple(s) for s in sessions.values()}) > 1 or ("" in sessions and len(sessions) > 1):
        raise UserError(f"{name}: the hemispheres' results are not of the same sessions.")
    return Person(name, parts, _trials([p for p in parts if p.hemisphere == parts[0].hemisphere]))


def _check_count(part: Part, column: str) -> None:
    """Refuse another number of betas than of events, with the counts of each run."""
    n, m = part.array.shape[-1], sum(len(run.trials) for run in part.runs)
    if n == m:
        return
    counts = ", ".join(f"{run.name}: {len(run.trials)}" for run in part.runs)
    one = short(excess(part.runs, column, n))
    hint = (
        f"leaving out {one!r} would make them equal (--leave-out {one!r})"
        if one
        else "give the runs that the GLM was made of with --events, and leave out catch trials "
        "and blanks with --leave-out"
    )
    raise UserError(
        f"{part.file} has {n} trials, the events have {m} ({short(counts)}); each beta needs one "
        f"event: {hint}."
    )


def _trials(parts: Sequence[Part]) -> pd.DataFrame:
    import pandas as pd

    runs = [run for part in parts for run in part.runs]
    tables = [
        run.trials.assign(session=run.session, run=run.run, events=str(run.file)) for run in runs
    ]
    return pd.concat(tables, ignore_index=True)


def _grid(
    where: str, space: str, label: str, side: str, shape: tuple[int, ...], file: Path
) -> Grid:
    """Return where the voxels of a file lie."""
    named = entities(file.absolute()).get("space", "")
    where = where or (named if named in glmsingle.SURFACES else "")
    if where in glmsingle.SURFACES:
        if named and not named.startswith(where):
            raise UserError(f"{file} is named space-{named}, and --mask says {where}.")
        fitting = [n for n in shape if n in glmsingle.lengths(where, side)]
        count = fitting[0] if fitting else max(shape[:-1])
        glmsingle.surface(where, count, side)
        return Grid(where, count)
    if side:
        raise UserError(
            f"{file} is of one hemisphere (hemi-{side}), so its betas lie on a surface; name it "
            f"with --mask, one of {', '.join(glmsingle.SURFACES)}."
        )
    if not where:
        raise UserError(
            "--mask says where the voxels lie: the NIfTI mask that GLMsingle was run with, or a "
            f"surface ({', '.join(glmsingle.SURFACES)})."
        )
    mask_file = _mask_file(Path(where).expanduser(), label)
    mask, affine = read_mask(mask_file)
    own = entities(Path(mask_file.name)).get("space", "")
    if own and named and own != named:
        raise UserError(
            f"{mask_file.name} is in the space {own}, and {file} is named space-{named}; give the "
            "mask of the same space."
        )
    return Grid(space or own or named, int(mask.sum()), mask, affine)


def _mask_file(given: Path, label: str) -> Path:
    if given.is_file():
        return given
    found = sorted(given.rglob("*mask.nii*")) if given.is_dir() else []
    mine = [f for f in found if entities(f).get("sub", "") == label]
    if len(mine) != 1:
        raise UserError(
            f"--mask {given} {'has ' + str(len(mine)) if found else 'has no'} masks "
            f"(*mask.nii.gz) of sub-{label}, expected one; give a NIfTI file, or one of the "
            f"surfaces {', '.join(glmsingle.SURFACES)}."
        )
    return mine[0]


def unused(found: Sequence[Person], runs: Sequence[Run]) -> str:
    """Say which runs have events and no betas, "" where all have."""
    used = {run.file for person in found for part in person.parts for run in part.runs}
    names = [
        " ".join(filter(None, [f"sub-{run.subject}" if run.subject else "", run.name]))
        for run in runs
        if run.file not in used
    ]
    if not names:
        return ""
    return (
        f"{len(names)} of {len(runs)} runs with events have no betas here and are not used: "
        f"{short(', '.join(names))}."
    )


def check_order(found: Sequence[Person], order: Path) -> str:
    """Hold GLMsingle's own order of conditions against the events'; return what was found.

    ``order``: plain ``.npy`` of ``DESIGNINFO``'s ``stimorder``, a number a trial. One condition
    must be one stimulus throughout.
    """
    numbers = np.asarray(read_array(order)).ravel()
    (person,) = found if len(found) == 1 else (None,)
    if person is None or len(numbers) != len(person.trials):
        raise UserError(
            f"{order} has {len(numbers)} conditions, expected one for each of the "
            f"{sum(len(p.trials) for p in found)} trials of one participant."
        )
    of, back = {}, {}
    for trial, (number, cell) in enumerate(
        zip(numbers.tolist(), person.trials["stimulus"], strict=True)
    ):
        if of.setdefault(number, cell) != cell or back.setdefault(cell, number) != number:
            raise UserError(
                f"{order}: trial {trial} (from 0) is condition {number}, which was "
                f"{short(of[number])!r} before, and the events show {short(cell)!r}; the events "
                "are in another order than the GLM's runs, or are those of another design."
            )
    return f"{order.name}: GLMsingle's {len(of)} conditions are one stimulus each, in this order."


def examine(plan: Plan, progress: Progress, unit_given: bool) -> None:
    """Read every beta once, and note what is unclear or must be known."""
    for person in plan.people:
        for side in person.sides:
            looks = []
            for part in side:
                work = f"{person.name} {part.file.name}"
                looks.append(
                    glmsingle.look(
                        part.array,
                        part.grid,
                        lambda done, total, work=work: progress(
                            count(work, done, total, "voxels", "looked at")
                        ),
                    )
                )
            person.looks.append(_joined(looks))
        _of_voxels(plan, person)
        if not unit_given and not plan.zscore:
            _of_unit(plan, person)
    if plan.zscore:
        _of_zscore(plan)
    elif not unit_given:
        plan.remarks.append(
            f"No file tells GLMsingle's wantpercentbold; betas are taken as {glmsingle.UNIT}, its "
            "default (--unit)."
        )


def _joined(looks: Sequence[Look]) -> Look:
    """Return what several sessions' looks say of the same voxels."""
    absent = np.logical_and.reduce([look.absent for look in looks])
    broken = np.logical_or.reduce([look.broken | look.absent for look in looks]) & ~absent
    flat = np.logical_and.reduce([look.flat for look in looks])
    sd = float(np.median([look.sd for look in looks]))
    return Look(absent, broken, flat, sd, all(look.scored for look in looks))


def _of_voxels(plan: Plan, person: Person) -> None:
    kept = int(person.usable.sum())
    kinds = (("absent", "are not finite in any trial"), ("flat", "never vary"))
    for kind, what in (*kinds, ("broken", "are not finite in some trials")):
        lost = sum(int(getattr(look, kind).sum()) for look in person.looks)
        if lost:
            plan.remarks.append(
                f"{person.name}: {lost:,} of {len(person.usable):,} voxels {what} and are left "
                "out."
            )
    if not kept:
        raise UserError(f"{person.name}: no voxel is finite in every trial; check the results.")


def _of_unit(plan: Plan, person: Person) -> None:
    for look in person.looks:
        low, high = glmsingle.LEAST_SD, glmsingle.MOST_SD
        if look.scored:
            said = "has mean 0 and SD 1, so they look z-scored"
        elif not low <= look.sd <= high:
            said = f"has the SD {look.sd:.3g}, and in percent it is a few"
        else:
            continue
        plan.unclear.append(
            f"{person.name}: over trials a voxel's beta {said}; say what their unit is with "
            "--unit."
        )
        return


def _of_zscore(plan: Plan) -> None:
    for person in plan.people:
        trials = person.trials
        split = trials["stimulus"].map(plan.stimuli).map(plan.split)
        for name, rows in split.groupby(groups(trials, plan.zscore), sort=False):
            if (rows == "train").sum() < 2:
                plan.unclear.append(
                    f"{person.name}: {plan.zscore} {name} has fewer than 2 training trials, so "
                    "nothing gives its mean and SD; z-score within session, or not at all."
                )


def drawn(plan: Plan) -> str:
    """Return one sentence about where the voxels can be drawn."""
    space, person = plan.space, plan.people[0]
    if person.parts[0].grid.mask is None:
        vertex = vertices(person)["vertex"]
        placed, whole = int((vertex >= 0).sum()), len(vertex)
        if placed == whole:
            return f"Space {space}: every voxel is drawn on fsaverage5."
        return (
            f"Space {space}: {placed:,} of {whole:,} voxels have a vertex of fsaverage5 and are "
            "drawn; the others decode, but have no place on that surface."
        )
    if space.startswith(MNI):
        return f"Space {space}: the voxels of the cortex are drawn on fsaverage5, approximately."
    known = f"Space {space}" if space else "The names of files tell no space (space-...)"
    return (
        f"{known}: voxels decode, and cannot be drawn on the surface, for which fMRIPrep's "
        f"{MNI}NLin2009cAsym or fsaverage5 is needed."
    )


def vertices(person: Person) -> dict[str, np.ndarray]:
    """Return int (V,), the vertex of each voxel of a surface, -1 nowhere, by column of voxels.tsv.

    ``vertex`` of fsaverage5, and of data on fsLR ``fslr`` of fsLR-32k.
    """
    first = [side[0] for side in person.sides]
    grids = [(p.grid.space, p.grid.count, p.hemisphere) for p in first]
    columns = {"vertex": np.concatenate([glmsingle.surface(*grid) for grid in grids])}
    if all(space == "fsLR" for space, _, _ in grids):
        columns["fslr"] = np.concatenate([glmsingle.own_fslr(*grid[1:]) for grid in grids])
    return columns


def groups(trials: pd.DataFrame, unit: str) -> pd.Series:
    """Return the session, or the run of a session, of every trial."""
    return trials["session"] if unit == "session" else trials["session"] + "/" + trials["run"]
