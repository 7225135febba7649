"""Fits a mapper to subjects of any data set and writes its checkpoint with a card."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends import EMBEDDERS
from backends.training import STATE, launched, versions
from explorer.types import Card, Dataset, Embedder, EmbeddingSpace, Trials, UserError, resolve

Progress = Callable[[str], None]
# Keywords of a mapper's fit that `train_mapper` gives by itself: none is a person's setting.
OWN = ("seed", "progress", "device", "run", "trackers")


def available_spaces() -> dict[str, tuple[str, EmbeddingSpace]]:
    """Return every space an embedder can make: its name -> (embedder's name, space).

    Spaces of pictures first, then those of captions.
    """
    found = {}
    for kind in ("spaces", "text_spaces"):
        for name, entry in EMBEDDERS.items():
            found |= {s.name: (name, s) for s in getattr(resolve(entry), kind, ())}
    return found


def find_space(name: str) -> tuple[str, EmbeddingSpace]:
    """Return the embedder's name and the space called ``name``; unknown ones raise `UserError`."""
    spaces = available_spaces()
    if name not in spaces:
        raise UserError(f"There is no space {name!r}; choose one of {', '.join(spaces)}.")
    return spaces[name]


def embed_stimuli(
    dataset: Dataset,
    stimuli: Sequence[str],
    embedder: Embedder,
    space: EmbeddingSpace,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Return stimulus -> embedding of the space's shape, reading the pictures in blocks.

    In a space of captions, each stimulus's caption is embedded; a data set that lacks some raises
    `UserError`.
    """
    embeddings: dict[str, np.ndarray] = {}
    if space in getattr(embedder, "text_spaces", ()):
        captions = dataset.stimuli["caption"].reindex(stimuli).fillna("")
        without = [stimulus for stimulus, caption in captions.items() if not caption.strip()]
        if without:
            raise UserError(
                f"{space.name} is made of captions, and {dataset.name} has none for "
                f"{len(without)} of {len(stimuli)} stimuli (first {without[0]!r}); choose a space "
                "of pictures, or add the captions to its table of stimuli."
            )
        return dict(zip(stimuli, embedder.embed_text(list(captions)), strict=True))
    told = time.monotonic()
    for begin in range(0, len(stimuli), 128):
        block = stimuli[begin : begin + 128]
        rows = embedder.embed([dataset.image(stimulus) for stimulus in block], space)
        embeddings.update(zip(block, rows, strict=True))
        if progress and time.monotonic() - told > 10:
            told = time.monotonic()
            progress(f"{space.name}: {len(embeddings)}/{len(stimuli)} pictures embedded")
    return embeddings


def settings_of(cls: type) -> dict[str, Any]:
    """Return what a person may set of a mapper: the keywords of its ``fit`` and their defaults."""
    parameters = inspect.signature(cls.fit).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.name not in OWN and p.default is not p.empty
    }


def read_settings(name: str, cls: type, pairs: Sequence[str]) -> dict[str, Any]:
    """Return the settings that ``key=value`` texts give, in the types of the mapper's defaults.

    ``name`` is the mapper's. A tuple is written with commas; an unknown key or a value of another
    type raises `UserError` with all settings and their defaults.
    """
    known, found = settings_of(cls), {}
    offered = ", ".join(f"{k}={_written(v)}" for k, v in known.items()) or "none"
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or key not in known:
            raise UserError(
                f"--set takes KEY=VALUE with a setting of {name}, found {pair!r}; its settings "
                f"are {offered}."
            )
        try:
            found[key] = _read_as(known[key], text)
        except ValueError as error:
            kind = type(known[key]).__name__
            raise UserError(
                f"{key} of {name} is of the kind {kind} like its default {_written(known[key])}, "
                f"found {text!r}."
            ) from error
    return found


def check_asked(name: str, cls: type, title: str, wandb: bool) -> None:
    """Refuse a title that is no folder's name, and a tracker where there is nothing to track."""
    if title and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", title):
        raise UserError(
            f"--name is made of letters, digits, - and _, as folders are called by it; found "
            f"{title!r}."
        )
    if wandb and "trackers" not in inspect.signature(cls.fit).parameters:
        raise UserError(
            f"{name} is solved at once and not step by step, so there is nothing to log; leave "
            "out --wandb."
        )


def _written(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(f"{v:g}" for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _read_as(default: Any, text: str) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if isinstance(default, tuple | list):
        return tuple(float(part) for part in text.split(","))
    return type(default)(text)


def train_mapper(
    name: str,
    cls: type,
    trials: Trials | Sequence[Trials],
    embeddings: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
    folder: Path,
    *,
    command: str,
    licence: str,
    seed: int = 0,
    device: str = "cpu",
    half: bool = False,
    progress: Progress | None = None,
    title: str = "",
    run_on: str = "cpu",
    trackers: Sequence[str] = ("tensorboard",),
    **settings: Any,
) -> Card:
    """Fit ``cls`` to the training rows, measure it on the averaged test betas, write ``folder``.

    Several `Trials` make one mapper of all these subjects. ``embeddings`` covers the training
    stimuli, and the test stimuli for the figures on the card: two-way identification per space
    with its interval over stimuli, chance and N (per subject, where there are several).

    A mapper that can be interrupted keeps its state and what trackers write in ``folder`` with
    the ending ``.run``; the state goes when the checkpoint is written. ``name`` is the key in
    ``MAPPERS``, ``title`` what the mapper is called if not that, ``device`` what the card says and
    ``run_on`` where it is computed. Under ``accelerate launch`` the first process writes.
    """
    from explorer.mapper import split_hash

    several = [trials] if isinstance(trials, Trials) else list(trials)
    subjects = [one.subject for one in several]
    run = folder.with_name(f"{folder.name}.run")
    own = {"device": run_on, "run": run, "trackers": tuple(trackers)}
    accepted = inspect.signature(cls.fit).parameters
    own = {key: value for key, value in own.items() if key in accepted}
    began = time.monotonic()
    mapper = cls.fit(several, embeddings, seed=seed, progress=progress, **own, **settings)
    seconds = time.monotonic() - began
    held_out = {
        subject.name: getattr(mapper, "metrics", {}).get(subject.name, {}) for subject in subjects
    }
    tested = {one.subject.name: identify(mapper, one, embeddings) for one in several}
    alone = subjects[0].name if len(subjects) == 1 else None
    metrics = {
        "cross-validation": held_out[alone] if alone else held_out,
        "test": tested[alone] if alone else tested,
    }
    if history := getattr(mapper, "history", None):
        metrics["training"] = history
    card = Card(
        kind="mapper",
        name=title or name,
        cls=name,
        dataset=subjects[0].dataset,
        command=command,
        licence=licence,
        subjects=tuple(subject.name for subject in subjects),
        voxels={s.name: (s.voxels.n_voxels, s.voxels.hash) for s in subjects},
        targets=tuple(embeddings),
        split_hash=split_hash(*several),
        normalisation="training mean and standard deviation of each voxel",
        settings={"seed": seed, **settings},
        metrics=metrics,
        seconds=round(seconds, 1),
        device=device,
        versions=versions("torch", "numpy"),
    )
    if launched()[0] == 0:
        mapper.save_pretrained(folder, card, half=half)
        (run / STATE).unlink(missing_ok=True)  # the same command then trains anew
    return card


def identify(
    mapper: Any,
    trials: Trials,
    embeddings: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
) -> dict[str, dict[str, Any]]:
    """Return two-way identification on averaged test betas per space: value, interval, chance, N.

    Several spaces give one more line, of their unit vectors side by side.
    """
    from explorer.metrics import unit

    stimuli = [s for s in trials.stimuli("test") if all(s in e for e in embeddings.values())]
    if len(stimuli) < 2:
        none = {"two-way identification": None, "N": len(stimuli)}
        return {space.name: none for space in embeddings}
    betas = np.stack([trials.average(stimulus) for stimulus in stimuli])
    decoded = mapper.decode(betas, trials.subject.name)
    truth = {space: np.stack([e[s] for s in stimuli]) for space, e in embeddings.items()}
    found = {space.name: _figures(decoded[space], truth[space]) for space in embeddings}
    if len(found) > 1:
        beside = [
            np.concatenate([unit(rows[s].reshape(len(stimuli), -1)) for s in embeddings], axis=1)
            for rows in (decoded, truth)
        ]
        found[" + ".join(found)] = _figures(*beside)
    return found


def _figures(decoded: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    from explorer.metrics import bootstrap_interval, two_way_identification

    each = two_way_identification(decoded, truth, per_item=True)
    low, high = bootstrap_interval(each, seed=0)
    return {
        "two-way identification": round(float(each.mean()), 4),
        "95 % interval over stimuli": [round(low, 4), round(high, 4)],
        "chance": 0.5,
        "N": len(each),
    }
