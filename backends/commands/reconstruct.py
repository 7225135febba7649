"""The command ``reconstruct``: every test picture of a data set, on one process or several.

`backends.reports.picture_folder` says what the folder holds. Pictures are drawn in batches that
are the same whoever draws them, and a batch that is there is not drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backends.commands import options
from backends.commands.drawn_folder import Job, draw, wait
from backends.commands.progress import telling
from backends.training.counted import count
from backends.training.holding import holding
from backends.training.machine import launched
from backends.training.plan import Progress
from explorer import drawing
from explorer.answers import remember_models
from explorer.brain.maps import parcel_importance
from explorer.choosing import default_request
from explorer.decoding import decode, undecoded, unexplained
from explorer.drawing import whose_pictures
from explorer.evidence.badges import badges
from explorer.request import Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench


def reconstruct(
    dataset: options.Dataset,
    out: Annotated[
        Path | None, typer.Option(help="A new folder, or one that is to be completed.")
    ] = None,
    store: options.Store = None,
    subject: options.Subjects = None,
    mapper: options.Mapper = "ridge",
    generator: Annotated[
        str, typer.Option(help="Which generator, or NAME=PATH_OR_ID with its weights.")
    ] = "pocket-diffusion",
    scale: Annotated[
        float | None,
        typer.Option(help="The guidance scale [3; with --store all that the page begins with]."),
    ] = None,
    samples: Annotated[int, typer.Option(help="Pictures of each stimulus.")] = 1,
    steps: options.Steps = None,
    seed: Annotated[int, typer.Option(help="Of the first picture; others count on.")] = 0,
    limit: options.Limit = None,
    device: options.Device = "auto",
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
) -> None:
    """Draw every test picture into a folder of PNG with a table of metrics (Parquet).

    With --store instead of --out it draws what the page begins with for every trial, and keeps it
    there: python app.py --store FOLDER then shows every trial at once.
    Goes on where it stopped. Several processes: accelerate launch --multi_gpu --num_processes N
    -m backends reconstruct ... (also on CPUs, with --device cpu); the pictures are the same.
    """
    sources = [generator] if "=" in generator else []
    generator = generator.partition("=")[0]
    if (out is None) == (store is None):
        raise UserError("Give --out FOLDER for files and a table, or --store FOLDER for the page.")
    name, bench = options.open_bench(
        dataset, checkpoints, options.device(device), sources=sources, store=store
    )
    people = tuple(options.people(bench, name, subject))
    steps = steps or bench.catalogue.generator_class(generator).default_steps
    job = Job(
        *(name, people, mapper, generator, 3.0 if scale is None else scale),
        *(steps, samples, seed, limit),
    )
    with telling() as say:
        if told := whose_pictures(bench, generator, name):
            say(told)
        if out is None:
            fill(bench, job, None if scale is None else (scale,), say)
            print(store)
            return
        with holding(out, work="reconstruct"):
            table = draw(bench, job, out, say)
    print(table)


def fill(
    bench: Workbench,
    job: Job,
    scales: Sequence[float] | None = None,
    progress: Progress | None = None,
    share: tuple[int, int] | None = None,
) -> None:
    """Make what the page begins with for every test trial, and keep it in the bench's store.

    A job's seed is that of every trial, as on the page; None are the page's own ``scales``. What
    is kept already is not drawn again. ``share`` as in `draw`, of trials.
    """
    if job.samples > 1:
        raise UserError("--samples is for --out: the page begins with one picture a scale.")
    rank, processes = share or launched()
    wanted = {"mapper": job.mapper, "generator": job.generator}
    wanted |= {"steps": job.steps, "seed": job.seed} | (
        {"scales": tuple(scales)} if scales else {}
    )
    requests = [
        replace(
            default_request(bench.catalogue, job.dataset, subject, stimulus=stimulus, **wanted),
            seed=job.seed,
        )
        for subject in job.subjects
        for stimulus in list(bench.catalogue.gallery(job.dataset, subject).index)[: job.limit]
    ]
    mine = requests[rank::processes]
    for number, request in enumerate(mine, 1):
        remember_models(bench, request)
        keep_whole(bench, request)
        if progress:
            progress(count(f"{job.generator}", number, len(mine), "trials", "drawn"))
    wait()


def keep_whole(bench: Workbench, request: Request) -> None:
    """Make all that the page shows of a trial at first: rank, map, pictures, badges.

    Each is kept in the bench's store; what is there is not made again.
    """
    if request.mapper and not undecoded(bench, request):
        decode(bench, request)
        badges(bench, request)
    if request.mapper and not unexplained(bench, request):
        parcel_importance(bench, request, View())
    for _ in drawing.reconstruct(bench, request):
        pass
