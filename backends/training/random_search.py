"""Random search over a mapper's settings, scored on training stimuli that it has not seen.

Random draws cover the settings that matter better than a grid of as many trials (Bergstra &
Bengio 2012, JMLR 13:281). Test trials are never looked at. Which settings trial k tries depends on
the seed and k alone, so a search that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import inspect
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.training.counted import Counted
from backends.training.machine import launched
from backends.training.rows import TrialRows
from backends.training.settings import read_settings, settings_of, written
from backends.training.state import STATE
from explorer.metrics import two_way_identification
from explorer.types import EmbeddingSpace, Trials, UserError
from explorer.writing import csv_text

if TYPE_CHECKING:
    import optuna
    import pandas as pd

JOURNAL, TABLE, BEST = "journal.log", "trials.csv", "best.txt"
KEY, WHY = "searched", "why"
Progress = Callable[[str], None]
Distributions = dict[str, "optuna.distributions.BaseDistribution"]


def read_tries(name: str, cls: type, texts: Sequence[str]) -> Distributions:
    """Return what to draw each setting from, by texts such as ``lr=1e-4..1e-2:log``.

    ``key=low..high`` is drawn evenly (with ``:log``, evenly in its logarithm), ``key=a,b,c`` from
    these values. ``name`` is the mapper's; what it cannot be set to raises `UserError`.
    """
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    known, found = settings_of(cls), {}
    for text in texts:
        key, equals, wanted = text.partition("=")
        if not (equals and wanted) or key not in known or key in found:
            raise UserError(
                "--try takes KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=A,B,C, each setting of "
                f"{name} once, found {text!r}; its settings are {', '.join(known)}."
            )
        if isinstance(known[key], tuple | list):
            raise UserError(
                f"{key} of {name} is a list of numbers, which cannot be searched over; give it "
                "with --set."
            )
        span, _, scale = wanted.partition(":")
        low, dots, high = span.partition("..")
        if not dots:
            choices = [read_settings(name, cls, [f"{key}={one}"])[key] for one in span.split(",")]
            if scale or len(set(choices)) != len(choices):
                raise UserError(f"--try {key}=A,B,C takes different values, found {text!r}.")
            found[key] = CategoricalDistribution(choices)
            continue
        ends = [read_settings(name, cls, [f"{key}={end}"])[key] for end in (low, high)]
        numbers = all(isinstance(end, int | float) for end in ends)
        if (
            not numbers
            or isinstance(ends[0], bool)
            or scale not in ("", "log")
            or not ends[0] < ends[1]
            or (scale and ends[0] <= 0)
        ):
            raise UserError(
                f"--try {key}=LOW..HIGH takes two numbers, the lower first, with :log both above "
                f"0, found {text!r}."
            )
        kind = IntDistribution if isinstance(ends[0], int) else FloatDistribution
        found[key] = kind(*ends, log=bool(scale))
    if not found:
        raise UserError(
            f"There is nothing to search over; give one --try at least, e.g. --try "
            f"{next(iter(known))}=A,B,C."
        )
    return found


def search(
    name: str,
    cls: type,
    trials: Sequence[Trials],
    embeddings: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
    folder: Path,
    *,
    tries: Distributions,
    count: int,
    fixed: Mapping[str, Any] | None = None,
    share: float = 0.2,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Fit ``cls`` with ``count`` random settings and return one row a trial, the best first.

    Parameters
    ----------
    name, cls
        A key of ``MAPPERS`` and its class.
    trials, embeddings
        One entry a subject, and the targets of every training stimulus.
    folder
        Keeps the journal from which a search goes on, the table and what trackers write.
    tries, fixed
        What is drawn (`read_tries`), and settings that all trials have in common.
    count
        How many trials there are in the end, with those of an earlier call.
    share
        Of the training stimuli (of the repeats, where train and test share stimuli): held out
        from every fit, for scoring.
    seed
        Decides what is held out and drawn, and is the mapper's.
    device
        A torch device.
    progress
        Called with sentences.

    Returns
    -------
    pandas.DataFrame
        ``trial``, ``score`` (`held_out_score`; NaN where training failed), one column a setting,
        and ``why`` it failed.
    """
    import optuna

    say = progress or (lambda sentence: None)
    fixed = dict(fixed or {})
    if twice := sorted(set(fixed) & set(tries)):
        raise UserError(f"{twice[0]} is both fixed by --set and drawn by --try; give it once.")
    if count < 1 or not 0 < share < 1:
        raise UserError(
            f"A search has 1 trial or more and holds out a share between 0 and 1, found {count} "
            f"trials and the share {share:g}."
        )
    if launched()[1] > 1:
        raise UserError("A search runs in one process; start it without accelerate launch.")
    fitted, held_out = hold_out(trials, share, seed)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    study = optuna.create_study(
        study_name="search",
        storage=optuna.storages.JournalStorage(backend),
        direction="maximize",
        load_if_exists=True,
    )
    _check_same(study, folder, _key(name, trials, embeddings, tries, fixed, share, seed))
    for stale in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(stale.number, state=optuna.trial.TrialState.FAIL)  # its process was stopped
    while (number := len(_finished(study))) < count:
        drawn = np.random.SeedSequence([seed, number]).generate_state(1)[0]
        study.sampler = optuna.samplers.RandomSampler(seed=int(drawn))
        trial = study.ask(tries)
        say(f"trial {number + 1}/{count}: {_told(trial.params)}")
        run = folder / "runs" / f"{number + 1:03d}"
        try:
            score = held_out_score(
                *(cls, fitted, held_out, embeddings, {**fixed, **trial.params}),
                seed=seed,
                device=device,
                run=run,
                progress=progress,
            )
        except UserError as error:  # such as a loss that is not finite: an answer, too
            trial.set_user_attr(WHY, str(error))
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            say(f"trial {number + 1}/{count}: {error}")
        else:
            trial.set_user_attr(WHY, "")
            study.tell(trial, score)
            note = f"{score:.4f}, best so far {study.best_value:.4f}"
            counted = {"work": "search", "done": number + 1, "total": count, "unit": "trials"}
            say(Counted(f"trial {number + 1}/{count}: {note}", **counted, note=note))
        for state in run.rglob(STATE):
            state.unlink()
        _write(folder / TABLE, csv_text(_table(study, tries)))
    return _table(study, tries)


def hold_out(
    trials: Sequence[Trials], share: float, seed: int
) -> tuple[list[Trials], dict[str, np.ndarray]]:
    """Return trials without the held-out training rows, and subject -> these rows.

    All trials of a stimulus are held out, for all subjects together.
    """
    data = TrialRows(trials)
    _, samples = data.split(share, seed)
    fitted, held_out = [], {}
    for i, one in enumerate(trials):
        rows = np.sort(data.rows[samples[data.subject[samples] == i]])
        if (stimuli := one.table["stimulus"].iloc[rows].nunique()) < 2:
            raise UserError(
                f"{one.subject.dataset}/{one.subject.name} has too few training trials: {stimuli} "
                "stimuli are held out, and 2 are the least that can be told apart; hold out a "
                "larger --share, or leave that subject out."
            )
        split = one.table["split"].to_numpy(dtype=object, copy=True)
        split[rows] = "test"
        fitted.append(replace(one, table=one.table.assign(split=split)))
        held_out[one.subject.name] = rows
    return fitted, held_out


def held_out_score(
    cls: type,
    fitted: Sequence[Trials],
    held_out: Mapping[str, np.ndarray],
    embeddings: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
    settings: Mapping[str, Any],
    *,
    seed: int,
    device: str = "cpu",
    run: Path | None = None,
    progress: Progress | None = None,
) -> float:
    """Fit a mapper and return its two-way identification of held-out stimuli, 0 to 1.

    Betas are averaged over a stimulus's held-out trials; the score is the mean over stimuli, then
    targets, then subjects. Chance is 0.5. A mapper that is not joint is fitted for each subject.
    """
    accepted = inspect.signature(cls.fit).parameters
    scores = []
    joint = getattr(cls, "joint", False)
    for group in [list(fitted)] if joint else [[one] for one in fitted]:
        names = "-".join(one.subject.name for one in group)
        own = {"device": device, "run": run and run / names, "trackers": ("tensorboard",)}
        own = {key: value for key, value in own.items() if key in accepted}
        mapper = cls.fit(group, embeddings, seed=seed, progress=progress, **own, **settings)
        for one in group:
            scores.append(_identify(mapper, one, held_out[one.subject.name], embeddings))
    return float(np.mean(scores))


def _identify(
    mapper: Any,
    trials: Trials,
    rows: np.ndarray,
    embeddings: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
) -> float:
    shown = trials.table["stimulus"].to_numpy()[rows]
    stimuli = list(dict.fromkeys(shown))
    betas = [np.asarray(trials.betas[rows[shown == s]], np.float32).mean(axis=0) for s in stimuli]
    decoded = mapper.decode(np.stack(betas), trials.subject.name)
    for space in embeddings:
        if not np.isfinite(decoded[space]).all():
            raise UserError(f"What the mapper decodes in {space.name} is not finite.")
    each = [
        two_way_identification(decoded[space], np.stack([known[s] for s in stimuli]))
        for space, known in embeddings.items()
    ]
    return float(np.mean(each))


def train_command(
    name: str,
    best: Mapping[str, Any],
    *,
    dataset: str,
    subjects: Sequence[str],
    spaces: Sequence[str],
    seed: int,
) -> str:
    """Return the command line that trains a mapper with these settings on all training trials."""
    words = ["python", "-m", "backends", "train", name, "--dataset", dataset]
    for flag, values in (("--subject", subjects), ("--space", spaces)):
        words += [word for value in values for word in (flag, value)]
    for key, value in best.items():
        words += ["--set", f"{key}={_exact(value)}"]
    return shlex.join([*words, "--seed", str(seed)])


def write_best(folder: Path, command: str) -> None:
    """Write the best command line into a search's folder."""
    _write(folder / BEST, command + "\n")


def best_settings(table: pd.DataFrame, tries: Distributions) -> dict[str, Any]:
    """Return the settings of the first row; a search without any success raises `UserError`."""
    first = table.iloc[0]
    if np.isnan(first["score"]):
        raise UserError(f"None of {len(table)} trials could be trained; the first: {first[WHY]}")
    return {key: first[key] for key in tries}


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that came to an end, in a score or in a reason for none."""
    return [
        trial for trial in study.trials if WHY in trial.user_attrs and trial.state.is_finished()
    ]


def _table(study: optuna.Study, tries: Distributions) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {
            "trial": number,
            "score": np.nan if trial.value is None else trial.value,
            **trial.params,
            WHY: trial.user_attrs[WHY],
        }
        for number, trial in enumerate(_finished(study), start=1)
    ]
    table = pd.DataFrame(rows, columns=["trial", "score", *tries, WHY]).astype(
        dict.fromkeys(tries, object)
    )
    return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)


def _key(
    name: str,
    trials: Sequence[Trials],
    embeddings: Mapping[EmbeddingSpace, Any],
    tries: Distributions,
    fixed: Mapping[str, Any],
    share: float,
    seed: int,
) -> str:
    from optuna.distributions import distribution_to_json

    return json.dumps(
        {
            "mapper": name,
            "trials": TrialRows(trials).fingerprint(),
            "targets": [space.name for space in embeddings],
            "tries": {key: distribution_to_json(one) for key, one in tries.items()},
            "fixed": {key: str(value) for key, value in fixed.items()},
            "share": share,
            "seed": seed,
        },
        sort_keys=True,
    )


def _check_same(study: optuna.Study, folder: Path, key: str) -> None:
    known = study.user_attrs.get(KEY, key)
    if known != key:
        before, now = json.loads(known), json.loads(key)
        other = next(part for part in now if now[part] != before[part])
        raise UserError(
            f"{folder} holds a search with other {other} ({before[other]}, not {now[other]}); "
            "give --out another folder, or delete this one to begin anew."
        )
    study.set_user_attr(KEY, key)


def _told(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={written(value)}" for key, value in settings.items())


def _exact(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(repr(one) for one in value)
    return repr(value) if isinstance(value, float) else str(value)


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
