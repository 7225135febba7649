"""The command ``train``: fit a mapper to the subjects of a data set, and write its checkpoint."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from backends.commands import options
from backends.commands.progress import telling
from explorer.protocols import Condition
from explorer.types import UserError, resolve

if TYPE_CHECKING:
    from backends.commands.training_data import Asked
    from backends.training.plan import Progress
    from backends.training.rows import Batch
    from explorer.protocols import Dataset
    from explorer.types import EmbeddingSpace

PICTURE_SCALE = 2.0  # guidance of pictures in the tracker: our choice


def train(
    mapper: options.MapperKind,
    dataset: options.Dataset,
    subject: options.Subjects = None,
    space: options.Spaces = None,
    settings: options.Settings = None,
    title: options.Name = "",
    seed: options.Seed = 0,
    device: options.Device = "auto",
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Log to Weights & Biases beside TensorBoard.")
    ] = False,
    embedder: options.Embedders = None,
    captions: options.Captions = None,
    augment: options.Augment = None,
    split: options.Split = "",
    generator: options.Generators = None,
    cache: options.Cache = options.CACHE,
    no_cache: options.NoCache = False,
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
) -> None:
    """Fit a mapper to the subjects of a data set, each or all jointly, and write its checkpoint.

    Several processes: accelerate launch --multi_gpu --num_processes N -m backends train ... (also
    on CPUs, with --device cpu after train).
    """
    from backends import GENERATORS
    from backends.commands.training_data import gather_asked
    from backends.training.machine import launched
    from backends.training.mapper_training import train_mapper
    from backends.training.settings import read_settings
    from explorer.catalogue import PUBLISHED
    from explorer.naming import named_sources

    cls = options.mapper_class(mapper)
    chosen_settings = read_settings(mapper, cls, settings or [])
    check_asked(mapper, cls, title, wandb, augment is not None)
    places = named_sources(generator or (), GENERATORS)
    device, first = options.device(device), launched()[0] == 0
    with telling() as say:
        tell = say if first else None
        asked = gather_asked(
            *(dataset, subject, space),
            checkpoints=checkpoints,
            device=device,
            embedders=embedder,
            captions=captions,
            cache=None if no_cache else cache,
            augment=augment,
            split=split,
            progress=tell,
        )
        pictures = None
        if first and "pictures" in inspect.signature(cls.fit).parameters:
            drawing = {kind: entry for kind, entry in GENERATORS.items() if kind != PUBLISHED}
            given = (asked.study, asked.embeddings, drawing, checkpoints, device, tell)
            pictures = pictures_of(*given, sources=places)
        for sentence in told_leaks(asked) if first else ():
            say(sentence)
        people = list(asked.trials)
        chosen = next(iter(asked.trials.values())).split
        # One trained on another split lies beside the usual one and never takes its place.
        title = title or (f"{mapper}-{chosen}" if chosen else "")
        for group in [people] if getattr(cls, "joint", False) else [[one] for one in people]:
            folder = checkpoints / "mappers" / asked.dataset / "-".join([title or mapper, *group])
            card = train_mapper(
                mapper,
                cls,
                [asked.trials[person] for person in group],
                asked.embeddings,
                folder,
                command=options.command_line(),
                licence=asked.study.licence,
                seed=seed,
                device=device,
                progress=tell,
                title=title,
                run_on=device,
                trackers=("tensorboard", "wandb") if wandb else ("tensorboard",),
                notes=asked.notes,
                pictures=pictures,
                **chosen_settings,
            )
            tested = card.metrics["test"]
            for person in group if first else []:
                for target, figures in (tested if len(group) == 1 else tested[person]).items():
                    say.result(f"{person}  {target}  {figures}  ->  {folder}")


def told_leaks(asked: Asked) -> Iterator[str]:
    """Yield what the audit of test stimuli against training stimuli finds, in the first target."""
    from backends.reports.leaks import audit
    from explorer.splits import shown

    if asked.study.split_unit != "stimulus" and not next(iter(asked.trials.values())).split:
        return  # the same stimuli are trained and tested, and the page says so
    space, known = next(iter(asked.embeddings.items()))
    train, test = ([s for s in part if s in known] for part in shown(list(asked.trials.values())))
    if train and test:
        rows = np.stack([known[stimulus] for stimulus in (*train, *test)])
        yield from audit(asked.study, train, test, rows, space.name)


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
