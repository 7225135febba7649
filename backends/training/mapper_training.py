"""Fits a mapper to subjects, measures it on their test betas and writes it with its card."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.training.holding import alone
from backends.training.machine import launched, versions
from backends.training.plan import Progress
from backends.training.rows import Batch
from backends.training.state import STATE
from explorer.types import Card, EmbeddingSpace, Trials, UserError


@alone
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
    notes: Mapping[str, Any] | None = None,
    pictures: Callable[[Any, Batch], np.ndarray] | None = None,
    **settings: Any,
) -> Card:
    """Fit ``cls`` to the training rows, measure it on the averaged test betas, write ``folder``.

    Several `Trials` make one mapper of all these subjects. ``embeddings`` covers the training
    stimuli, and the test stimuli for the figures on the card: two-way identification per space
    with its interval over stimuli, chance and N (per subject, where there are several).

    A mapper that can be interrupted keeps its state and what trackers write in ``folder`` with
    the ending ``.run``; the state goes when the checkpoint is written. ``name`` is the key in
    ``MAPPERS``, ``title`` what the mapper is called if not that, ``device`` what the card says and
    ``run_on`` where it is computed; ``notes`` go on the card beside the settings,
    and ``pictures`` (see `pictures_of`) are what trackers show of validation trials. Under
    ``accelerate launch`` the first process writes.
    """
    from safetensors import SafetensorError

    from explorer.matching import split_hash

    several = [trials] if isinstance(trials, Trials) else list(trials)
    subjects = [one.subject for one in several]
    for subject in subjects:
        if set(subject.name) & set("/\\"):
            raise UserError(
                f"A mapper cannot be made for the subject {subject.name!r}: its folder is called "
                "by that name, which has a slash; rename the subject."
            )
    run = folder.with_name(f"{folder.name}.run")
    own = {"device": run_on, "run": run, "trackers": tuple(trackers), "pictures": pictures}
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
        split=several[0].split,
        normalisation="training mean and standard deviation of each voxel",
        settings={"seed": seed, **settings, **(notes or {})},
        metrics=metrics,
        seconds=round(seconds, 1),
        device=device,
        versions=versions("torch", "numpy"),
    )
    if launched()[0] == 0:
        try:
            mapper.save_pretrained(folder, card, half=half)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{folder} cannot be written ({error}); make room on that disk and give the same "
                "command again, it goes on from its last state if it keeps one."
            ) from error
        for state in run.rglob(STATE):  # one a stage
            state.unlink()  # the same command then trains anew
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


class Together:
    """Mappers that were trained apart, decoded as one: every target from the mapper that has it.

    `identify` then measures their predictions side by side, as those of a joint mapper.
    """

    def __init__(self, mappers: Sequence[Any]) -> None:
        self.mappers = tuple(mappers)
        self.targets = tuple(space for mapper in mappers for space in mapper.targets)
        twice = [space.name for space in self.targets if self.targets.count(space) > 1]
        if twice:
            raise UserError(
                f"Mappers are put side by side where each has other targets, and {twice[0]} "
                "belongs to two of them; leave one of these out."
            )

    def decode(self, betas: np.ndarray, subject: str) -> dict[EmbeddingSpace, np.ndarray]:
        """Return raw embeddings float32 (n, ...) per target of all mappers for betas (n, V)."""
        found: dict[EmbeddingSpace, np.ndarray] = {}
        for mapper in self.mappers:
            found |= mapper.decode(betas, subject)
        return found


def _figures(decoded: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    from explorer.metrics import bootstrap_interval, counted, mean_of, two_way_identification

    each = two_way_identification(decoded, truth, per_item=True)
    mean = mean_of(each, "what was decoded is not finite", undefined_as=0.0)
    low, high = bootstrap_interval(counted(each, 0.0), seed=0)
    figures = {
        "two-way identification": round(mean.value, 4),
        "95 % interval over stimuli": [round(low, 4), round(high, 4)],
        "chance": 0.5,
        "N": len(each),
    }
    return figures | ({"undefined": mean.remark} if mean.undefined else {})
