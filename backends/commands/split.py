"""The command ``split``: make a named split of a data set, to train and to evaluate on."""

from __future__ import annotations

from typing import Annotated

import typer

from backends.commands import options
from backends.commands.progress import telling


def split(
    name: Annotated[
        str,
        typer.Argument(help="random_0 to random_4, cluster_k5_0 and on, tau, tau_75 ..."),
    ],
    dataset: options.Dataset,
    subject: options.Subjects = None,
    space: options.Spaces = None,
    device: options.Device = "auto",
    embedder: options.Embedders = None,
    captions: options.Captions = None,
    cache: options.Cache = options.CACHE,
    no_cache: options.NoCache = False,
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
) -> None:
    """Make a split that asks more than the data set's own; train and evaluate take its name.

    random_i tests one in five stimuli, cluster_kK_i one whole cluster of K, tau the test stimuli
    that are far from every training stimulus. Features are those of the (first) --space.
    """
    from backends.commands.training_data import find_split
    from backends.embedders.choice import read_sources
    from explorer.splits import split_file

    data, bench = options.open_bench(dataset, checkpoints)
    study = bench.catalogue.dataset(data)
    people = options.people(bench, data, subject)
    trials = {one: bench.catalogue.trials(data, one) for one in people}
    with telling() as say:
        given = {
            "device": options.device(device),
            "sources": read_sources(embedder or []),
            "captions": captions,
            "cache": None if no_cache else cache,
            "progress": say,
        }
        wanted = (space or list(options.SPACES))[0]
        found = find_split(name, study, trials, wanted, checkpoints, given)
        say.result(f"{found.sentence()}  ->  {split_file(checkpoints, data, name)}")
        say.result(
            f"Train on it with --split {name}; open and evaluate with --dataset "
            f"{data}=PATH?split={name}"
        )
