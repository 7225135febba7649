"""Somebody's own GLMsingle betas as a plain folder: ``python -m backends adopt DIR --events ...``.

First everything is read and told, with the first, middle and last trial beside their events; it is
written with ``--write``, and only while nothing is unclear.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from backends.commands import adopted_stimuli, adopted_study, adoption
from backends.commands.adoption import Person, Plan
from backends.commands.progress import telling
from backends.datasets import glmsingle
from backends.datasets.bids_events import Run, find_events, read_runs
from explorer.files import short
from explorer.types import SPLITS, UserError

ORDER = "stimorder.npy"


def adopt(
    results: Annotated[
        Path, typer.Argument(help="GLMsingle's output folder, or a file of betas.")
    ],
    events: Annotated[
        str, typer.Option(help="BIDS events: a folder, or a pattern of files in quotes.")
    ],
    mask: Annotated[
        str,
        typer.Option(
            help="A NIfTI mask, or a surface: fsaverage5, fsaverage6, fsaverage, fsLR; default: "
            "the surface that paths name (space-fsLR)."
        ),
    ] = "",
    stimuli: Annotated[
        Path | None, typer.Option(help="The pictures; default: BIDS's folder stimuli.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The study; it must not exist.")] = Path("study"),
    write: Annotated[bool, typer.Option("--write", help="Write it; else only tell.")] = False,
    column: Annotated[str, typer.Option(help="Which column of the events names it.")] = "",
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="Rows that are no trials, by trial type or stimulus (blank*)."),
    ] = None,
    test_repeats: Annotated[
        int, typer.Option(min=0, help="Test is what was shown at least so many times.")
    ] = 0,
    split_column: Annotated[str, typer.Option(help="Test is what this column calls test.")] = "",
    test_list: Annotated[
        Path | None, typer.Option(help="Test is what this text names, a stimulus a line.")
    ] = None,
    zscore: Annotated[str, typer.Option(help="session or run: z-score within it.")] = "",
    unit: Annotated[str, typer.Option(help="What a beta is, where it is not percent.")] = "",
    space: Annotated[str, typer.Option(help="The mask's space, where no name tells it.")] = "",
    kind: Annotated[
        str, typer.Option("--type", help="TYPEB, TYPEC or TYPED; else the best.")
    ] = "",
    subject: Annotated[str, typer.Option(help="What the only participant is called.")] = "",
    title: Annotated[str, typer.Option(help="Of the study.")] = "",
) -> None:
    """Make a plain folder of GLMsingle's betas, BIDS events and pictures; tell first what is read.

    Say which stimuli are test with one of --test-repeats, --split-column and --test-list.
    """
    out = out.expanduser()
    _check(zscore, kind, subject)
    if out.exists():
        raise UserError(f"{out} is there already; name another place with --out.")
    runs, column = read_runs(find_events(events), column, leave_out or ())
    files = glmsingle.find_results(results.expanduser(), kind)
    found = adoption.people(files, runs, mask, space, column, subject)
    plan = _plan(found, column, space, (zscore, unit))
    plan.remarks += filter(None, [adoption.unused(found, runs)])
    order = (results if results.is_dir() else results.parent) / ORDER
    if order.is_file():
        plan.remarks.append(adoption.check_order(found, order))
    _split(plan, test_repeats, split_column, test_list)
    _pictures(plan, stimuli, runs)
    with telling() as say:
        adoption.examine(plan, say, bool(unit))
        for line in told(plan, runs):
            print(line)
        if not write:
            print(f"Nothing was written; --write writes it to {out}.")
            raise typer.Exit(1 if plan.unclear else 0)
        if plan.unclear:
            raise UserError(f"{out} was not written: {plan.unclear[0]}")
        adopted_study.write(plan, out, title or f"{out.name} (GLMsingle)", say)
    print(f"{out} is written.\npython -m backends doctor {shlex.quote(str(out))}")


def _check(zscore: str, kind: str, subject: str) -> None:
    for name, value, allowed in (
        ("--zscore", zscore, ("session", "run")),
        ("--type", kind, glmsingle.TYPES),
    ):
        if value and value not in allowed:
            raise UserError(f"{name} is one of {', '.join(allowed)}, found {value!r}.")
    if subject and not (subject.startswith("sub-") and subject[4:].isalnum()):
        raise UserError(f"--subject is written sub-01, found {subject!r}.")


def _plan(found: list[Person], column: str, space: str, units: tuple[str, str]) -> Plan:
    cells = [cell for person in found for cell in person.trials["stimulus"]]
    spaces = list(dict.fromkeys(part.grid.space for p in found for part in p.parts))
    if len(spaces) > 1:
        raise UserError(f"The results are in the spaces {' and '.join(spaces)}; adopt one.")
    if space and space != spaces[0]:
        raise UserError(f"--space says {space}, and the surface is {spaces[0]}.")
    zscore, unit = units
    if zscore:
        unit = f"z-score within {zscore}"
    return Plan(
        found,
        column,
        spaces[0],
        unit or glmsingle.UNIT,
        adopted_stimuli.name_stimuli(cells),
        zscore=zscore,
    )


def _split(plan: Plan, least: int, column: str, listed: Path | None) -> None:
    """Decide which stimuli are test by the one rule that was given."""
    found, stimuli = plan.people, plan.stimuli
    given = [bool(least), bool(column), listed is not None]
    if sum(given) > 1:
        raise UserError("Give one of --test-repeats, --split-column and --test-list.")
    if least:
        plan.split = adopted_stimuli.by_repeats(found, stimuli, least)
        plan.split_by = f"what was shown at least {least} times"
    elif column:
        plan.split = adopted_stimuli.by_column(found, stimuli, column)
        plan.split_by = f"what the events' column {column} calls so"
    elif listed is not None:
        plan.split = adopted_stimuli.by_list(listed.expanduser(), stimuli)
        plan.split_by = f"what {listed.name} names"
    else:
        plan.unclear.append(
            "Nothing says which stimuli are test; give --test-repeats, --split-column or "
            f"--test-list. {_repeats(plan)}"
        )
    for split in SPLITS if plan.split else ():
        if split not in plan.split.values():
            plan.unclear.append(f"No stimulus is {split}, where {plan.split_by} is test.")


def _repeats(plan: Plan) -> str:
    """Return how often stimuli were shown, in a sentence."""
    often = Counter()
    for person in plan.people:
        often += Counter(person.trials["stimulus"].map(plan.stimuli).value_counts().tolist())
    parts = [f"{times} time{'s' * (times > 1)}: {n:,}" for times, n in sorted(often.items())]
    return f"Stimuli by how often they were shown: {short(', '.join(parts))}."


def _pictures(plan: Plan, given: Path | None, runs: Sequence[Run]) -> None:
    folder = given.expanduser() if given else _bids_stimuli(runs[0].file)
    if folder is None:
        plan.unclear.append(
            "No folder of pictures: there is no stimuli beside the events; give --stimuli."
        )
        return
    plan.pictures = adopted_stimuli.find_pictures(plan.stimuli, folder)
    lacking = [i for i in dict.fromkeys(plan.stimuli.values()) if i not in plan.pictures]
    if lacking:
        plan.unclear.append(
            f"{len(lacking):,} of {len(plan.stimuli):,} stimuli have no one picture of their name "
            f"in {folder}, first {short(', '.join(lacking[: adoption.NAMED]))}; the column that "
            f"names them is {plan.column} (--column)."
        )
    else:
        plan.remarks.append(f"Pictures are copied from {folder}.")


def _bids_stimuli(events: Path) -> Path | None:
    """Return BIDS's folder ``stimuli`` at the root of the data set that the events are of."""
    for parent in events.absolute().parents[:5]:
        if (parent / "stimuli").is_dir():
            return parent / "stimuli"
    return None


def told(plan: Plan, runs: Sequence[Run]) -> Iterator[str]:
    """Say what would be read, trial by trial for three, and what is unclear."""
    for person in plan.people:
        usable, sd = person.usable, [f"{look.sd:.3g}" for look in person.looks]
        yield (
            f"{person.name}: {len(person.trials):,} trials, {int(usable.sum()):,} of "
            f"{len(usable):,} voxels; a beta is {plan.unit} (SD over trials {', '.join(sd)}"
            f"{' before' if plan.zscore else ''})"
        )
        for part in person.parts:
            key = "" if part.file.suffix == ".npy" else " betasmd"
            yield f"  betas   {part.file}{key} {tuple(part.array.shape)}"
            counts = ", ".join(f"{run.name}: {len(run.trials)}" for run in part.runs)
            yield f"  events  {len(part.runs)} files, {short(counts)}"
        yield from _three(plan, person)
    left = sum(run.left_out for run in runs)
    yield (
        f"Trials are in the order of subject, session, run and onset; {plan.column} names the "
        f"stimulus, {left:,} rows are no trials."
    )
    shown = Counter(plan.split.values())
    if plan.split:
        train, test = shown["train"], shown["test"]
        yield f"Split: {train:,} train and {test:,} test stimuli (test is {plan.split_by})."
    yield adoption.drawn(plan)
    for title, sentences in (("Remarks", plan.remarks), ("Unclear", plan.unclear)):
        if sentences:
            yield f"{title}:"
            yield from (f"  - {sentence}" for sentence in sentences)


def _three(plan: Plan, person: Person) -> Iterator[str]:
    """Say which event the first, middle and last beta are joined with."""
    sources = [(p.file, n) for p in person.sides[0] for n in range(p.array.shape[-1])]
    for what, trial in (("first", 0), ("middle", len(sources) // 2), ("last", len(sources) - 1)):
        (file, number), row = sources[trial], person.trials.iloc[trial]
        split = plan.split.get(plan.stimuli[row["stimulus"]], "no split")
        yield (
            f"  {what:<6}  trial {trial}: beta {number} of {file.name}, row {row['row']} of "
            f"{Path(row['events']).name} (both from 0), {row['onset']:g} s, "
            f"{short(row['stimulus'])}, {split}"
        )
