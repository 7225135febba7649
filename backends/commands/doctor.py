"""What lies at a path, and what is wrong with it: ``python -m backends doctor PATH``.

Every family of data sets is asked whether it knows the path; the one that does is opened, and what
its reader finds is told in plain lines. Of plain folders everything is read once, too.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from backends.commands.options import CHECKPOINTS, SPACES
from backends.datasets import layout, layout_voxels
from backends.reports.alike import Look, look, same_pictures
from backends.reports.traces import three_traces
from backends.reports.unknown import explain as explained
from explorer.naming import (
    PLAIN_FOLDER,
    open_dataset,
    own_name,
    path_and_options,
    recognise,
)
from explorer.offers import mended
from explorer.protocols import Dataset
from explorer.types import SPLITS, Trials, UserError, VoxelSpace, resolve

if TYPE_CHECKING:
    import pandas as pd

MOST_COMPARED = 6000  # pictures that are read of data that are no plain folder: half a minute
MOST_PER_KIND = 5  # sentences of one kind before the rest is counted
ROWS_AT_ONCE = 512  # of betas


def doctor(
    path: Annotated[str, typer.Argument(help="Where data lie: PATH or PATH?option=value.")],
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Also say what every file looks like, and which reader came closest.",
        ),
    ] = False,
) -> None:
    """Say which data set lies at a path, what it holds and lacks, and the command to open it."""
    from backends import DATASETS

    lines, well = examine(path, DATASETS)
    lines = [*mended(CHECKPOINTS), *lines]
    if explain:
        lines = [*lines, *explained(path_and_options(path, "doctor")[0], DATASETS)]
    for line in lines:
        print(line)
    raise typer.Exit(0 if well else 1)


def examine(given: str, datasets: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Return what lies at ``PATH`` or ``PATH?option=value``, line by line, and whether it is well.

    The last line is the command that opens it, unless it cannot be opened at all: then the last
    line says why. ``datasets``: name -> class or ``"module:Class"``, as in ``backends``.
    """
    try:
        path, options = path_and_options(given, "doctor")
    except UserError as error:
        return [str(error)], False
    family = recognise(path, datasets)
    if not family:
        return list(_unknown(path, datasets)), False
    name = own_name(path, datasets, options.get("part", ""))
    try:
        study = open_dataset(resolve(datasets[family]), path, name, options, f"doctor: {family}")
        names = study.subjects()
    except UserError as error:
        first = [f"{path} looks like {family}, but cannot be opened."]
        problems = _of_folder(path, layout.is_described(path))
        return [*first, *dict.fromkeys([*problems, str(error)])], False
    lines = [f"{path} is {family}: {study.title}", *([study.note] if study.note else [])]
    problems: list[str] = []
    loaded, shown = 0, {split: set() for split in SPLITS}
    of: dict[str, dict[str, set[str]]] = {split: {} for split in SPLITS}
    for subject in names:
        try:
            trials = study.load(subject)
            _try_one(study, trials)
        except UserError as error:
            problems.append(f"{subject}: {error}")
            continue
        for split, stimuli in shown.items():
            of[split][subject] = set(trials.stimuli(split))
            stimuli |= of[split][subject]
        loaded += 1
        lines.append(_of_trials(trials))
        lines += three_traces(study, trials)
    plain = family == PLAIN_FOLDER or layout.is_simulated(path)
    count = len(set().union(*shown.values()))
    if plain:
        problems += diagnose(path)
    try:
        remarks = list(getattr(study, "remarks", list)())
    except UserError as error:
        remarks, problems = [], [*problems, str(error)]
    if not plain and study.split_unit == "stimulus":
        problems += _of_splits(of["train"], of["test"])
    if layout.is_simulated(path):
        pass  # its scenes are drawn from causes that differ
    elif count > MOST_COMPARED:
        untold = "near copies in an embedding" if plain else "equal ones under two ids"
        remarks.append(
            f"{count:,} pictures are too many to be looked at here, so {untold} are not told."
        )
    else:
        unreadable, alike = ([], []) if plain else _of_pictures(study, shown)
        remarks, problems = remarks + unreadable, problems + alike
        if study.split_unit == "stimulus":
            remarks += _near_in_embedding(study, shown, compared=not plain)
    lines += _listed("Remarks", remarks) + _listed("Problems", list(dict.fromkeys(problems)))
    may = "may be shown to others" if study.redistributable else "may not be shown to others"
    lines.append(f"Licence: {study.licence or 'not stated'}; its images {may} (app.py --share).")
    if study.citation:
        lines.append(f"Cite: {study.citation}")
    if not loaded:
        return [*lines, f"{path}: no subject can be opened, for the reasons above."], False
    return [*lines, f"python app.py --dataset {shlex.quote(f'{name}={given}')}"], not problems


def _unknown(path: Path, datasets: Mapping[str, Any]) -> Iterator[str]:
    """Say what each family looks for, where none knows the path."""
    yield f"{path} is no data set that is known here. Each is known by its files:"
    for name, entry in datasets.items():
        yield f"  {name}: {getattr(resolve(entry), 'looks_for', 'see its class')}"
    yield (
        "Give the folder that holds those; any other study can be written as a plain folder "
        "(backends/datasets/layout.py), and results of others are opened with app.py --published. "
        "With --explain, doctor says what each file looks like and which reader came closest."
    )


def _of_trials(trials: Trials) -> str:
    """Return one line about a subject: voxels, trials, images, repeats and sessions."""
    table, who = trials.table, trials.subject
    counts = []
    for split, rows in table.groupby("split", sort=False):
        repeats = rows["stimulus"].value_counts()
        low, high = int(repeats.min()), int(repeats.max())
        times = f"{low}" if low == high else f"{low} to {high}"
        counts.append(
            f"{len(rows):,} {split} (images: {len(repeats):,}, each shown {times} "
            f"time{'s' if high > 1 else ''})"
        )
    sessions = sorted(set(table["session"]))
    when = f", {len(sessions)} sessions" if len(sessions) > 1 else ""
    ceiling = ", noise ceiling known" if who.ncsnr is not None else ""
    places = "on the surface" if who.voxels.projection is not None else "without places"
    atlases = f", {', '.join(who.voxels.parcellations)}" if who.voxels.parcellations else ""
    return (
        f"  {who.name}: {who.voxels.n_voxels:,} voxels ({places}{ceiling}{atlases}); "
        f"{len(table):,} trials{when}: {', '.join(counts)}; a beta is {trials.beta_unit}"
    )


def _try_one(study: Dataset, trials: Trials) -> None:
    """Read one test trial and its picture, so that what cannot be read is told."""
    rows = trials.rows("test")
    if len(rows):
        np.asarray(trials.betas[rows[:1]])
        stimulus = str(trials.table["stimulus"].iloc[rows[0]])
        if not _without_picture(study, stimulus):
            study.image(stimulus)


def _without_picture(study: Dataset, stimulus: str) -> str:
    return getattr(study, "without_picture", lambda _: "")(stimulus)


def _of_folder(path: Path, plain: bool) -> list[str]:
    return diagnose(path) if plain else []


def _of_pictures(study: Dataset, shown: dict[str, set[str]]) -> tuple[list[str], list[str]]:
    """Look at every picture of a study that is no plain folder.

    Returns what cannot be shown, in one sentence, since studies are often had without some of
    their pictures; and which are the same.
    """
    pictures: dict[str, Look] = {}
    unreadable = []
    for stimulus in sorted(shown["train"] | shown["test"]):
        if _without_picture(study, stimulus):
            continue
        try:
            pictures[stimulus] = look(study.image(stimulus))
        except UserError as error:
            unreadable.append(str(error))
    said = []
    if pictures and unreadable:  # where all are absent, the first of each subject told that
        count = len(pictures) + len(unreadable)
        said = [f"{len(unreadable)} of {count} pictures cannot be shown; first: {unreadable[0]}"]
    by_stimulus = study.split_unit == "stimulus"
    return said, list(same_pictures(pictures, **shown, by_stimulus=by_stimulus))


def _near_in_embedding(study: Dataset, shown: dict[str, set[str]], compared: bool) -> list[str]:
    """Return what the audit says in the embedder that ships, where its weights are here.

    ``compared``: the pictures themselves were, and equal ones are told.
    """
    from backends.embedders.choice import make_embedders
    from backends.reports.leaks import audit

    if not (CHECKPOINTS / SPACES[0].partition("/")[0]).is_dir():
        return []
    ((space, embedder),) = make_embedders(SPACES, CHECKPOINTS).items()
    rows: dict[str, np.ndarray] = {}
    every = [*sorted(shown["train"] - shown["test"]), *sorted(shown["test"])]
    for begin in range(0, len(every), ROWS_AT_ONCE):
        pictures = {}
        for stimulus in every[begin : begin + ROWS_AT_ONCE]:
            with contextlib.suppress(UserError):  # told elsewhere
                pictures[stimulus] = study.image(stimulus)
        if pictures:
            found = embedder.embed(list(pictures.values()), space)
            rows |= dict(zip(pictures, found, strict=True))
    test = [s for s in rows if s in shown["test"]]
    train = [s for s in rows if s not in shown["test"]]
    if not (test and train):
        return []
    features = np.stack([*rows.values()])
    return list(audit(study, train, test, features, space.name, compared))


def _listed(title: str, sentences: list[str]) -> list[str]:
    return [f"{title}:", *(f"  - {sentence}" for sentence in sentences)] if sentences else []


def diagnose(path: str | Path) -> list[str]:
    """Return what is wrong with a plain folder, one sentence each; an empty list means fine.

    Reads everything once, betas in blocks: every picture is opened and every value looked at,
    which loading a data set does not do. Changes nothing.
    """
    return list(_problems(Path(path)))


def _problems(path: Path) -> Iterator[str]:
    try:
        description = layout.read_description(path)
        folders = layout.subject_folders(path, description)
        stimuli = layout.read_stimuli(path)
    except UserError as error:
        yield str(error)  # nothing more can be read without these
        return
    pictures: dict[str, Look] = {}
    yield from _first(_unreadable(path, stimuli, pictures), "more pictures cannot be read")
    test_of: dict[str, set[str]] = {}
    train_of: dict[str, set[str]] = {}
    for name, folder in folders.items():
        if not folder.is_dir():
            yield f"{folder} is missing; dataset.json names it as the folder of {name}."
            continue
        try:
            trials = layout.read_trials(folder, path.name, name, description, stimuli)
        except UserError as error:
            yield from _of_files(folder, description, stimuli, str(error))
            continue
        yield from _of_subject(folder, trials, "recipe" in description)
        train_of[name], test_of[name] = set(trials.stimuli("train")), set(trials.stimuli("test"))
    by_stimulus = description["split_unit"] == "stimulus"
    if by_stimulus:
        yield from _of_splits(train_of, test_of)
    train, test = (set().union(*of.values()) for of in (train_of, test_of))
    yield from same_pictures(pictures, train, test, by_stimulus)


def _unreadable(path: Path, stimuli: pd.DataFrame, pictures: dict[str, Look]) -> Iterator[str]:
    """Yield what is wrong with each picture, and note the look of the others."""
    for stimulus in stimuli.index:
        try:
            pictures[stimulus] = look(layout.read_image(path, stimuli, stimulus))
        except UserError as error:
            yield str(error)


def _of_files(
    folder: Path, description: dict[str, Any], stimuli: pd.DataFrame, first: str
) -> Iterator[str]:
    """Say what is wrong with each file by itself, once it is known that they cannot be read."""
    found = [first]

    def note(read: Callable[[], Any]) -> Any:
        try:
            return read()
        except UserError as error:
            found.append(str(error))

    split = description["split_unit"]
    stored = note(lambda: layout.read_array(folder / "betas.npy"))
    note(lambda: layout.read_trial_table(folder / "trials.tsv", stimuli, split))
    if stored is not None:
        table = note(lambda: layout_voxels.read_voxels(folder, stored.shape[1]))
        if table is not None:
            note(lambda: layout_voxels.voxel_ncsnr(folder, table))
            note(lambda: layout_voxels.voxel_scale(folder, table, stored.dtype))
            voxels = note(
                lambda: layout_voxels.voxel_space(folder, table, folder.name, description)
            )
            found += [] if voxels is None else _of_voxels(folder, voxels)
    yield from dict.fromkeys(found)


def _of_subject(folder: Path, trials: Trials, makes_training: bool) -> Iterator[str]:
    """``makes_training``: the simulated data set ships without training rows, and makes them."""
    if not trials.stimuli("train") and not makes_training:
        yield f"{folder}: no trial has the split train, so no mapper can be trained."
    if not trials.stimuli("test"):
        yield f"{folder}: no trial has the split test, so there is nothing to look at."
    yield from _of_betas(folder / "betas.npy", trials)
    yield from _of_voxels(folder, trials.subject.voxels)


def _of_betas(file: Path, trials: Trials) -> Iterator[str]:
    stored: Any = layout.read_array(file)
    bad_trials, bad_voxels = [], np.zeros(stored.shape[1], bool)
    low, high = np.full(stored.shape[1], np.inf), np.full(stored.shape[1], -np.inf)
    train = trials.rows("train")
    is_train = np.zeros(len(stored), bool)
    is_train[train] = True
    for start in range(0, len(stored), ROWS_AT_ONCE):
        block = np.asarray(stored[start : start + ROWS_AT_ONCE], np.float64)
        finite = np.isfinite(block)
        bad_trials += (start + np.flatnonzero(~finite.all(axis=1))).tolist()
        bad_voxels |= ~finite.all(axis=0)
        kept = np.where(finite, block, np.nan)[is_train[start : start + len(block)]]
        if len(kept):
            low, high = np.fmin(low, np.fmin.reduce(kept)), np.fmax(high, np.fmax.reduce(kept))
    if bad_trials:
        yield (
            f"{file}: {len(bad_trials)} of {len(stored)} trials hold values that are not finite "
            f"(first trial {bad_trials[0]}, from 0; {int(bad_voxels.sum())} of {len(bad_voxels)} "
            "voxels are affected); leave those trials or voxels out."
        )
    flat = np.flatnonzero(low == high)
    if len(flat):
        yield (
            f"{file}: {len(flat)} of {len(low)} voxels never vary over training trials (first "
            f"voxel {flat[0]}, from 0); leave them out."
        )


def _of_voxels(folder: Path, voxels: VoxelSpace) -> Iterator[str]:
    if voxels.projection is not None:
        placed = np.asarray((voxels.projection != 0).sum(axis=0)).ravel() > 0
        if not placed.any():
            yield f"{folder}: no voxel of voxels.tsv has a vertex; leave the column out."
        crowded = int((np.diff(voxels.projection.indptr) > 1).sum())
        finer = layout.read_description(folder.parent)["space"].startswith(layout.FINER)
        if crowded and voxels.mask is None and not finer:
            yield (
                f"{folder}: {crowded} vertices hold more than one voxel, so the surface shows "
                "their mean; is voxels.tsv right?"
            )


def _of_splits(train: dict[str, set[str]], test: dict[str, set[str]]) -> Iterator[str]:
    """Name stimuli that one subject is tested on and another trained on."""

    def shared() -> Iterator[str]:
        for tested, stimuli in test.items():
            for trained, others in train.items():
                both = stimuli & others
                if both and tested != trained:
                    yield (
                        f"{len(both)} stimuli are test for {tested} but train for {trained} (e.g. "
                        f"{min(both)!r}); a stimulus that is test for one subject is test for all."
                    )

    yield from _first(shared(), "more pairs of subjects share stimuli across splits")


def _first(sentences: Iterator[str], rest: str) -> Iterator[str]:
    """Yield the first few sentences, then how many more there are."""
    more = 0
    for i, sentence in enumerate(sentences):
        if i < MOST_PER_KIND:
            yield sentence
        else:
            more += 1
    if more:
        yield f"... and {more} {rest}."
