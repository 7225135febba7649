"""Fits a mapper to subjects of any data set and writes its checkpoint with a card."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.embedders.choice import make_embedders, weights_of
from backends.embedders.store import embed_stimuli
from backends.training.machine import launched, versions
from backends.training.rows import Batch
from backends.training.state import STATE
from explorer.protocols import Condition, Dataset, Embedder
from explorer.types import Card, EmbeddingSpace, Trials, UserError, resolve

Progress = Callable[[str], None]
PICTURE_SCALE = 2.0  # guidance of pictures in the tracker: our choice
# Keywords of a mapper's fit that `train_mapper` gives by itself: none is a person's setting.
OWN = ("seed", "progress", "device", "run", "trackers", "pictures")


def gather(
    study: Dataset,
    trials: Mapping[str, Trials],
    spaces: Sequence[str],
    checkpoints: Path,
    *,
    device: str = "cpu",
    sources: Mapping[str, str] | None = None,
    captions: Path | None = None,
    cache: Path | None = None,
    augment: Path | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Trials], dict[EmbeddingSpace, dict[str, np.ndarray]], dict[str, Any]]:
    """Return what a mapper learns from and towards: trials, embeddings, and notes for its card.

    Parameters
    ----------
    study, trials
        The data set, and subject -> trials of it.
    spaces
        Names of the targets.
    checkpoints, device, sources
        See `make_embedders`.
    captions
        A table written by `backends.embedders.captions`, for spaces of captions.
    cache
        A folder in which embeddings are kept, None keeps nothing.
    augment
        A folder of pictures that become synthetic training rows (`backends.commands.augment`).
    progress
        Called with sentences.
    """
    from backends.commands.augment import encoding_for, extend, find_extra
    from backends.embedders.captions import read_captions

    makers = make_embedders(spaces, checkpoints, device, sources)
    said = {} if captions is None else read_captions(captions)
    extra = None
    encodings: dict[str, Any] = {}
    readers: dict[EmbeddingSpace, Embedder] = {}
    if augment is not None:
        encodings = {who: encoding_for(one, checkpoints) for who, one in trials.items()}
        read = {space.name: space for model in encodings.values() for space in model.spaces}
        others = [name for name in read if name not in {s.name for s in makers}]
        readers = make_embedders(others, checkpoints, device, sources)
        extra = find_extra(augment, study, progress)
        texts = [s.name for s, e in makers.items() if s in getattr(e, "text_spaces", ())]
        without = [name for name in extra.files if not said.get(name, "").strip()]
        if texts and without:
            raise UserError(
                f"{texts[0]} is made of captions, and {len(without)} of {len(extra.files)} "
                f"pictures in {augment} have none (first {without[0]!r}); write them with python "
                f"-m backends caption --dataset {study.name}=PATH --augment {augment} --model "
                "PATH_OR_ID and name that file with --captions, or choose spaces of pictures."
            )
    embeddings: dict[EmbeddingSpace, dict[str, np.ndarray]] = {space: {} for space in makers}
    for person, one in trials.items():
        stimuli = dict.fromkeys([*one.stimuli("train"), *one.stimuli("test")])
        for space, maker in makers.items():
            new = [s for s in stimuli if s not in embeddings[space]]
            if progress:
                progress(f"{person}: {len(new)} stimuli to embed in {space.name}")
            embeddings[space] |= embed_stimuli(
                *(study, new, maker, space, progress), captions=said, cache=cache
            )
    notes: dict[str, Any] = {}
    if weights := weights_of(makers):
        notes["embedders"] = weights
    if extra is None:
        return dict(trials), embeddings, notes
    names = list(extra.files)
    features = {
        space: embed_stimuli(extra, names, maker, space, progress, captions=said, cache=cache)
        for space, maker in {**makers, **readers}.items()
    }
    for space, known in embeddings.items():
        known |= features[space]
    notes["augmentation"] = extra.told()
    more = {who: extend(one, encodings[who], features, names) for who, one in trials.items()}
    return more, embeddings, notes


def pictures_of(
    study: Dataset,
    spaces: Collection[EmbeddingSpace],
    generators: Mapping[str, Any],
    checkpoints: Path,
    device: str = "cpu",
    progress: Progress | None = None,
    sources: Mapping[str, str] | None = None,
) -> Callable[[Any, Batch], np.ndarray] | None:
    """Return what draws validation trials for `train_network`: shown left, reconstructed right.

    The first of the ``generators`` (name -> class) that draws from one of ``spaces`` and needs
    nothing else but betas is used, every trial always with the same seed; None where there is
    none, or its weights lack. ``sources``: generator -> folder or hub id of its weights.
    """
    fitting = (
        name
        for name, cls in ((name, resolve(entry)) for name, entry in generators.items())
        if set(cls.accepts) & set(spaces) and not set(cls.needs) - {"betas"}
    )
    name = next(fitting, None)
    if name is None:
        return None
    cls = resolve(generators[name])
    own = {"source": sources[name]} if sources and name in sources else {}
    try:
        generator = cls(checkpoints, device, **own)
    except UserError as error:
        if progress:
            progress(f"The tracker shows no pictures: {error}")
        return None

    def draw(mapper: Any, batch: Batch) -> np.ndarray:
        import torch

        from explorer.metrics import match_size

        conditions: dict[int, Condition] = {}
        for subject, rows in batch.betas.items():
            betas = rows.cpu().numpy()
            decoded = mapper.decode(betas, subject)
            for row, place in enumerate(batch.places[subject]):
                given = [space for space in cls.accepts if space in decoded]
                parts = {space: torch.from_numpy(decoded[space][row]) for space in given}
                given_betas = betas[row] if "betas" in cls.needs else None
                conditions[int(place)] = Condition(parts, betas=given_betas)
        ordered = [conditions[place] for place in range(len(batch))]
        seeds, steps = range(len(ordered)), generator.default_steps
        made = generator.generate(ordered, PICTURE_SCALE, seeds, steps)
        names = batch.data.names[batch.stimuli.cpu().numpy()]
        shown = [match_size(study.image(name), *made.shape[1:3]) for name in names]
        return np.concatenate([np.stack(shown), made], axis=2)

    return draw


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


def check_asked(name: str, cls: type, title: str, wandb: bool, augment: bool = False) -> None:
    """Refuse a title that is no folder's name, and what a mapper solved at once cannot use."""
    if title and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", title):
        raise UserError(
            f"--name is made of letters, digits, - and _, as folders are called by it; found "
            f"{title!r}."
        )
    if "trackers" in inspect.signature(cls.fit).parameters:
        return
    if wandb:
        raise UserError(
            f"{name} is solved at once and not step by step, so there is nothing to log; leave "
            "out --wandb."
        )
    if augment:
        raise UserError(
            f"{name} is solved at once from measured trials, and would only learn the encoding "
            "model back from predicted ones; choose another mapper, or leave out --augment."
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

    from explorer.mapper import split_hash

    several = [trials] if isinstance(trials, Trials) else list(trials)
    subjects = [one.subject for one in several]
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
    from explorer.metrics import bootstrap_interval, two_way_identification

    each = two_way_identification(decoded, truth, per_item=True)
    low, high = bootstrap_interval(each, seed=0)
    return {
        "two-way identification": round(float(each.mean()), 4),
        "95 % interval over stimuli": [round(low, 4), round(high, 4)],
        "chance": 0.5,
        "N": len(each),
    }
