"""The command ``report``: what a decoder is and how good, as one HTML file and a PDF."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from backends.commands import options
from backends.commands.progress import telling
from explorer.folders import cache_folder
from explorer.store import PICTURES
from explorer.types import UserError
from explorer.writing import check_writable, write_whole


def report(
    dataset: options.Dataset = "simulated",
    out: Annotated[
        Path, typer.Option(help="The HTML file; a PDF of the same name lies beside it.")
    ] = Path("report.html"),
    subject: options.Subjects = None,
    mapper: Annotated[
        str, typer.Option("--mapper", help="A mapper by its name; default: the first that fits.")
    ] = "",
    generator: Annotated[
        str,
        typer.Option(help="A generator, or NAME=PATH_OR_ID with its weights [the first]."),
    ] = "",
    published: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH: predictions that others published (may be repeated)."),
    ] = None,
    permutations: Annotated[
        int, typer.Option(help="Draws of the null distributions of the map.")
    ] = 1000,
    without_critique: Annotated[
        bool, typer.Option("--without-critique", help="Leave the critics' tests out (faster).")
    ] = False,
    without_pictures: options.WithoutPictures = False,
    evaluation: options.Evaluations = None,
    store: options.Store = None,
    device: options.Device = "auto",
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
) -> None:
    """Write a report of a decoder for a paper's supplement: one HTML file, and a PDF beside it.

    What data, what decoder, how good with chance, N and intervals, what it rests on, controls,
    and limits. Nothing in it is fetched from elsewhere.
    """
    from backends.commands.publish import withheld
    from backends.supplement import as_html, as_pdf
    from backends.supplement.gathering import Asked, described, gather

    if out.suffix.lower() != ".html":
        raise UserError(f"--out is a file that ends in .html, found {out.name!r}.")
    if permutations < 1:
        raise UserError(f"--permutations is 1 or more, found {permutations}.")
    check_writable(out.parent)
    name, bench = options.open_bench(
        dataset,
        checkpoints,
        options.device(device),
        published or (),
        [generator] if "=" in generator else [],
        store or cache_folder() / PICTURES,
        evaluations=evaluation or (),
    )
    people = tuple(options.people(bench, name, subject))
    for person in people:
        bench.catalogue.trials(name, person)  # an unknown one is refused before anything is made
    asked = Asked(
        dataset=name,
        subjects=people,
        mapper=mapper,
        generator=generator.partition("=")[0],
        permutations=permutations,
        critique=not without_critique,
        withheld=withheld(bench, name, without_pictures),
    )
    with telling() as say:
        if asked.withheld:
            say(f"{asked.withheld}; scores and maps are there.")
        made = gather(bench, described(asked), say)
        pdf = write_whole(out.with_suffix(".pdf"), partial(as_pdf.write, made))
        page = write_whole(out, as_html.document(made).encode())
    print(page)
    print(pdf)
