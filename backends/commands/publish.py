"""The command ``publish``: a study as a folder of plain files that opens without a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backends.commands import options
from backends.commands.progress import telling
from backends.training.counted import count
from explorer.choosing import default_request
from explorer.folders import cache_folder
from explorer.store import PICTURES
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.site.plan import Plan
    from explorer.workbench import Workbench

MAY_NOT = "Picture left out: its licence does not let it be passed on"
NOT_SHOWN = "Picture left out"
LONG = 60.0  # seconds: what takes longer is told beforehand


def publish(
    dataset: options.Dataset,
    out: Annotated[
        Path, typer.Option(help="A new or empty folder, or a site made here, which is replaced.")
    ],
    subjects: Annotated[
        list[str] | None,
        typer.Option(
            "--subjects", "--subject", help="Participants (may be repeated); default: all."
        ),
    ] = None,
    mappers: Annotated[
        list[str] | None,
        typer.Option(
            "--mappers", "--mapper", help="Mappers (may be repeated) [the page's first]."
        ),
    ] = None,
    generator: Annotated[
        str,
        typer.Option(
            help="Which generator, or NAME=PATH_OR_ID with its weights [the page's first]."
        ),
    ] = "",
    scales: Annotated[
        str, typer.Option(help="Guidance scales, as 0,1,2,4,8 [those the page begins with].")
    ] = "",
    steps: options.Steps = None,
    seed: options.Seed = 0,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Only this many test trials of each subject.")
    ] = None,
    controls: Annotated[
        int, typer.Option(help="Trials whose controls are computed, evenly spaced.")
    ] = 24,
    curves: Annotated[
        int, typer.Option(help="Trials whose sweep curve is computed, evenly spaced.")
    ] = 24,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="gradient, gradient x input or integrated gradients (may be repeated).",
        ),
    ] = None,
    quality: Annotated[int, typer.Option(help="Of pictures as WebP, 1 to 100.")] = 88,
    without_pictures: options.WithoutPictures = False,
    store: options.Store = None,
    evaluation: options.Evaluations = None,
    device: options.Device = "auto",
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
) -> None:
    """Write a study as a folder of plain files: a site that needs no server and no network.

    All test trials with every scale, their maps, statistics and tables; open index.html. Pictures
    come from the store (by default the page's own) and are kept there: a run that was cut off
    goes on from them.
    """
    from explorer.page.links import parse_scales
    from explorer.site.folder import check
    from explorer.site.plan import Plan
    from explorer.site.publishing import publish as write
    from explorer.site.publishing import seconds_expected, size_of

    check(out)
    sources = [generator] if "=" in generator else []
    kept = store or cache_folder() / PICTURES
    name, bench = options.open_bench(
        dataset,
        checkpoints,
        options.device(device),
        sources=sources,
        store=kept,
        evaluations=evaluation or (),
    )
    people = tuple(_several(subjects) or bench.catalogue.subjects(name))
    wanted = {"mapper": mapper} if (mapper := next(iter(_several(mappers)), "")) else {}
    begun = default_request(bench.catalogue, name, people[0], seed=0, **wanted)
    plan = Plan(
        dataset=name,
        subjects=people,
        mappers=tuple(_several(mappers) or [begun.mapper]),
        generator=generator.partition("=")[0] or begun.generator,
        scales=parse_scales(scales) if scales else (),
        steps=steps,
        seed=seed,
        limit=limit,
        controls=controls,
        curves=curves,
        methods=tuple(method or ["gradient"]),
        quality=quality,
        withheld=withheld(bench, name, without_pictures),
    )
    with telling() as say:
        if plan.withheld:
            say(f"{plan.withheld}; captions and scores are there.")
        if (seconds := seconds_expected(bench, plan)) > LONG:
            say(f"The pictures that are not there yet take about {seconds / 60:.0f} min here.")
        page = write(
            bench,
            plan,
            out,
            command=command_of(plan),
            tell=lambda what, done, of: say(count(what, done, of, "trials", "written")),
            say=say,
        )
        say(f"{out} has {size_of(out) / 1e6:.1f} MB.")
    print(page)


def command_of(plan: Plan) -> str:
    """Return what makes a site again, without the paths of whoever made it."""
    words = ["python -m backends publish", "--dataset", plan.dataset]
    words += ["--subjects", ",".join(plan.subjects), "--mappers", ",".join(plan.mappers)]
    words += ["--generator", plan.generator]
    if plan.scales:
        words += ["--scales", ",".join(f"{scale:g}" for scale in plan.scales)]
    for name in ("steps", "seed", "limit", "controls", "curves", "quality"):
        if (value := getattr(plan, name)) is not None:
            words += [f"--{name}", str(value)]
    for method in plan.methods:
        words += ["--method", f"'{method}'" if " " in method else method]
    if plan.withheld:
        words.append("--without-pictures")
    return " ".join([*words, "--out site"])


def withheld(bench: Workbench, dataset: str, wanted: bool) -> str:
    """Return the sentence in the place of pictures that are left out, "" where they are shown."""
    if not bench.catalogue.dataset(dataset).redistributable:
        return MAY_NOT
    return NOT_SHOWN if wanted else ""


def _several(words: list[str] | None) -> list[str]:
    """Return names that were given one by one or parted by commas, each once."""
    names = [name.strip() for word in words or () for name in word.split(",")]
    if words and not any(names):
        raise UserError("A list of names is empty; give names parted by commas, or leave it out.")
    return list(dict.fromkeys(filter(None, names)))
