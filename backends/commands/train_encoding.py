"""The command ``train-encoding``: fit the model that predicts a subject's betas from images."""

from __future__ import annotations

from typing import Annotated

import typer

from backends.commands import options
from backends.commands.progress import telling
from explorer.types import UserError


def train_encoding(
    dataset: options.Dataset,
    subject: options.Subjects = None,
    space: options.Spaces = None,
    folds: Annotated[int, typer.Option(help="Groups of stimuli for choosing penalties.")] = 5,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    embedder: options.Embedders = None,
    captions: options.Captions = None,
    cache: options.Cache = options.CACHE,
    no_cache: options.NoCache = False,
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
) -> None:
    """Fit the model that predicts each subject's betas from images, and write its checkpoint."""
    from backends.commands.training_data import gather_asked
    from backends.encoders.voxelwise import train_encoding as fit

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
        if chosen := next(iter(asked.trials.values())).split:
            raise UserError(
                "There is one encoding model a subject, trained on the data set's own split; "
                f"leave out ?split={chosen}."
            )
        for person, trials in asked.trials.items():
            folder = checkpoints / "encoding" / asked.dataset / person
            card = fit(
                *(trials, asked.embeddings, folder),
                command=options.command_line(),
                licence=asked.study.licence,
                seed=seed,
                device=device,
                progress=say,
                folds=folds,
            )
            say.result(f"{person}  {card.metrics['test']}  ->  {folder}")
