"""The command ``search``: try random settings of a mapper on held-out training stimuli."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backends.commands import options
from backends.commands.progress import telling


def search(
    mapper: options.MapperKind,
    dataset: options.Dataset,
    tries: Annotated[
        list[str] | None,
        typer.Option("--try", help="KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=A,B,C: what to draw."),
    ] = None,
    trials: Annotated[int, typer.Option(help="How many settings are tried in the end.")] = 20,
    subject: options.Subjects = None,
    space: options.Spaces = None,
    settings: options.Settings = None,
    share: Annotated[
        float, typer.Option(help="Share of the training stimuli held out for scoring.")
    ] = 0.2,
    seed: options.Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the search is kept; default: .cache/search/DATASET/MAPPER."),
    ] = None,
    device: options.Device = "auto",
    embedder: options.Embedders = None,
    captions: options.Captions = None,
    cache: options.Cache = options.CACHE,
    no_cache: options.NoCache = False,
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
) -> None:
    """Try random settings of a mapper on held-out training stimuli; the same command goes on."""
    from backends.commands.training_data import gather_asked
    from backends.training import random_search
    from backends.training.holding import holding
    from backends.training.settings import read_settings

    cls = options.mapper_class(mapper)
    fixed = read_settings(mapper, cls, settings or [])
    drawn = random_search.read_tries(mapper, cls, tries or [])
    device = options.device(device)
    with telling() as say:
        asked = gather_asked(
            *(dataset, subject, space),
            checkpoints=checkpoints,
            device=device,
            embedders=embedder,
            captions=captions,
            cache=None if no_cache else cache,
            progress=say,
        )
        folder = out or Path(".cache/search") / asked.dataset / mapper
        with holding(folder, work="search"):
            table = random_search.search(
                *(mapper, cls, list(asked.trials.values()), asked.embeddings, folder),
                tries=drawn,
                count=trials,
                fixed=fixed,
                share=share,
                seed=seed,
                device=device,
                progress=say,
            )
    best = random_search.best_settings(table, drawn)
    spaces = space or list(options.SPACES)
    given = {"dataset": dataset, "subjects": subject or (), "spaces": spaces, "seed": seed}
    command = random_search.train_command(mapper, {**fixed, **best}, **given)
    random_search.write_best(folder, command)
    print(table.head(10).to_string(index=False))
    print(f"{len(table)} trials  ->  {folder}\n{command}")
