"""The command ``evaluate``: every mapper of a data set, or a folder of pictures, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backends.commands import options
from backends.commands.progress import Teller, telling
from explorer.types import UserError
from explorer.writing import check_writable, write_whole


def evaluate(
    dataset: options.Dataset = "simulated",
    subject: options.Subjects = None,
    mapper: options.Mappers = None,
    space: Annotated[
        list[str] | None,
        typer.Option(help="A target space (may be repeated); default: all of the mappers."),
    ] = None,
    published: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH: predictions that others published (may be repeated)."),
    ] = None,
    embedder: options.Embedders = None,
    captions: options.Captions = None,
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
    limit: options.Limit = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write CSV, Markdown and a figure into this folder (--aims and so on: a file)."
        ),
    ] = None,
    device: options.Device = "auto",
    aims: Annotated[
        bool,
        typer.Option(
            "--aims", help="Instead: laws and aims of what ships, with pictures and parcels."
        ),
    ] = False,
    evidence: Annotated[
        bool,
        typer.Option("--evidence", help="Instead: what controls and lesions of what ships show."),
    ] = False,
    statistics: Annotated[
        bool,
        typer.Option(
            "--statistics",
            help="Instead: whether the p of parcel maps hold on permuted labels and on the truth "
            "(--limit: permuted studies a subject).",
        ),
    ] = False,
    critique: Annotated[
        bool,
        typer.Option(
            "--critique",
            help="Instead: is it decoding? Collapse, identification within clusters, similarity "
            "to training images, the class alone, and a bottleneck, of every mapper.",
        ),
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="Instead: score the pictures that reconstruct made in this folder."),
    ] = None,
    classes: Annotated[
        bool,
        typer.Option(
            "--classes",
            help="With --images: also draw from the class alone, with the same generator (as many "
            "pictures again).",
        ),
    ] = False,
    networks: Annotated[
        Path | None,
        typer.Option(help="Where the weights of feature networks lie; default: torch.hub's."),
    ] = None,
    atlas: Annotated[
        str,
        typer.Option(
            help="With --images: whose parcels brain correlation is told of; default: the first."
        ),
    ] = "",
) -> None:
    """Compare all mappers of a data set on its test trials, in one table with chance and N."""
    device = options.device(device)
    if out:  # before hours are spent on what goes into it
        check_writable(out.parent if aims or evidence or statistics else out)
    with telling() as say:
        if images:
            _of_images(images, dataset, checkpoints, networks, device, out, atlas, classes, say)
            return
        if aims or evidence or statistics:
            from backends.reports.aims import evaluate as measure_aims
            from backends.reports.evidence import evidence as measure_evidence
            from backends.reports.statistics import measure as measure_statistics
            from backends.reports.tables import render

            measure = (
                measure_aims if aims else measure_evidence if evidence else measure_statistics
            )
            given = {"limit": limit, "device": device, "progress": say}
            text = render(measure(checkpoints=checkpoints, **given))
            say.result(text)
            if out:
                write_whole(out, text.encode())
            return
        if critique:
            from backends.reports import critique as critics

            name, bench = options.open_bench(dataset, checkpoints, device, published or ())
            told = critics.examine(
                bench, name, subjects=subject or (), mappers=mapper or (), progress=say
            )
            say.result(critics.markdown(told))
            for path in critics.write(told, out) if out else ():
                say.result(str(path))
            return
        from backends.embedders.captions import read_captions
        from backends.embedders.choice import read_sources
        from backends.reports.mapper_tables import markdown, write
        from backends.reports.mappers import compare

        name, bench = options.open_bench(dataset, checkpoints, device, published or ())
        found = compare(
            bench,
            name,
            subjects=subject or (),
            mappers=mapper or (),
            targets=space or (),
            limit=limit,
            sources=read_sources(embedder or []),
            captions=read_captions(captions) if captions else None,
            classes=True,
            progress=say,
        )
        say.result(markdown(found))
        for path in write(found, out) if out else ():
            say.result(str(path))


def _of_images(
    folder: Path,
    dataset: str,
    checkpoints: Path,
    networks: Path | None,
    device: str,
    out: Path | None,
    atlas: str,
    classes: bool,
    say: Teller,
) -> None:
    """Score a folder of pictures and print, or write, the table."""
    from backends.reports.feature_networks import Features
    from backends.reports.picture_folder import load
    from backends.reports.picture_tables import markdown, write
    from backends.reports.pictures import score_folder, shipped_functions

    name, bench = options.open_bench(dataset, checkpoints, device)
    drawn_of = load(folder)[0]["dataset"]
    if drawn_of != name:
        raise UserError(
            f"{folder} holds pictures of {drawn_of}, and --dataset opens {name}; score them with: "
            f"python -m backends evaluate --dataset {drawn_of}=PATH --images {folder}"
        )
    own = shipped_functions(bench, checkpoints, device) if name == "simulated" else {}
    features = Features(networks, own, device, checkpoints / "embedders")
    report = score_folder(
        bench, folder, features, atlas=atlas, references=True, classes=classes, progress=say
    )
    say.result(markdown(report))
    for path in write(report, out) if out else ():
        say.result(str(path))
