"""The command ``trace``: which file and row a trial's betas and its picture are from."""

from __future__ import annotations

from typing import Annotated

import typer

from backends.commands import options
from explorer.types import SPLITS, Trials, UserError


def trace(
    dataset: options.Dataset,
    subject: Annotated[str, typer.Option(help="The participant; default: the first.")] = "",
    trial: Annotated[
        str,
        typer.Option(help="A stimulus by its id, or its number as the page counts."),
    ] = "1",
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which file, row, session and repeat a trial is, and every id that names its picture."""
    import json

    from explorer.identity import file_hash, sentences
    from explorer.identity import trace as traced

    name, bench = options.open_bench(dataset, options.CHECKPOINTS)
    study = bench.catalogue.dataset(name)
    trials = bench.catalogue.trials(name, subject or study.subjects()[0])
    if split not in SPLITS:
        raise UserError(f"--split is train or test, found {split!r}.")
    numbered = list(bench.catalogue.gallery(name, trials.subject.name).index)  # as the page counts
    shown = numbered if split == "test" else trials.stimuli(split)
    found = traced(
        study, trials, chosen_trial(trials, trial, split, shown), split, hashed=file_hash
    )
    if as_json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return
    said = sentences(found)
    width = max(len(key) for key, _ in said)
    for key, text in said:
        print(f"{key:<{width}}  {text}")


def chosen_trial(trials: Trials, trial: str, split: str, shown: list[str]) -> str:
    """Return the stimulus that a text names: by its id, else by its place in ``shown``, from 1."""
    if trial in shown:
        return trial
    if trial.isdecimal() and trial.isascii() and 1 <= int(trial) <= len(shown):
        return shown[int(trial) - 1]
    raise UserError(
        f"--trial is the id of a {split} stimulus of {trials.subject.dataset}/"
        f"{trials.subject.name}, or its number from 1 to {len(shown)}; found {trial!r}."
    )
