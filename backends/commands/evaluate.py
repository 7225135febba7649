"""The command ``evaluate``: every mapper of a data set, or a folder of pictures, in one table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backends.commands import options
from backends.commands.progress import Teller, telling
from explorer.types import UserError
from explorer.writing import check_writable, write_whole

if TYPE_CHECKING:
    from backends.reports.definitions import Definition
    from backends.reports.foreign_pictures import Shown
    from explorer.workbench import Workbench


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
    truth: Annotated[
        bool,
        typer.Option(
            "--truth",
            help="With --critique: also what must hold where the truth is planted (the embedded "
            "study): planted decoders, shuffled brains, a planted copy, concept parcels.",
        ),
    ] = False,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="With --critique: a folder of counterfactual pairs, CONCEPT/PAIR/ with pictures "
            "present, removed and replaced."
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            help="Instead: score pictures, those that reconstruct made in a folder, or anybody's: "
            "a folder, a zip, .pt or .npy, or the NAME of --published."
        ),
    ] = None,
    classes: Annotated[
        bool,
        typer.Option(
            "--classes",
            help="With --images: also draw from the class alone, with the same generator (as many "
            "pictures again).",
        ),
    ] = False,
    shown: Annotated[
        Path | None,
        typer.Option(
            help="With --images: what was shown, a folder, a zip, .pt or .npy; then no data set "
            "is needed."
        ),
    ] = None,
    defined_as: Annotated[
        str,
        typer.Option(
            "--as",
            help="With --images: scores as defined by mindeye2, brain-diffuser, mind-vis or seed.",
        ),
    ] = "",
    detector: Annotated[
        Path | None,
        typer.Option(help="With --images: a folder of a detector of objects, for Object F1."),
    ] = None,
    captioner: Annotated[
        Path | None,
        typer.Option(
            help="With --images: a folder of a captioner, for the similarity of captions."
        ),
    ] = None,
    sentences: Annotated[
        Path | None,
        typer.Option(help="With --captioner: a folder of what embeds its sentences."),
    ] = None,
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
            from backends.reports.definitions import definition

            wanted = definition(defined_as) if defined_as else None
            asked = Asked(images, dataset, tuple(subject or ()), tuple(published or ()), shown)
            judges = _judges(detector, captioner, sentences, device)
            _of_images(
                asked, wanted, judges, checkpoints, networks, device, out, atlas, classes, say
            )
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
                bench,
                name,
                subjects=subject or (),
                mappers=mapper or (),
                pairs=pairs,
                progress=say,
            )
            say.result(critics.markdown(told))
            for path in critics.write(told, out) if out else ():
                say.result(str(path))
            if truth:
                from backends.reports.critique_truth import planted
                from backends.reports.tables import render

                say.result(render(planted(bench, name, subject or (), say)))
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


def _judges(
    detector: Path | None, captioner: Path | None, sentences: Path | None, device: str
) -> dict[str, Any]:
    """Return what finds objects and what captions, by the names that scores know them by."""
    from backends.reports.objects import Captions, Detector

    if (captioner is None) != (sentences is None):
        raise UserError(
            "--captioner says what describes pictures and --sentences what embeds its sentences; "
            "give both."
        )
    found: dict[str, Any] = {"objects": Detector(detector, device)} if detector else {}
    if captioner and sentences:
        found["captions"] = Captions(captioner, sentences, device)
    return found


@dataclass(frozen=True)
class Asked:
    """Which pictures are to be scored, as they were given on the command line."""

    images: str
    dataset: str
    subjects: tuple[str, ...]
    published: tuple[str, ...]
    shown: Path | None


def _of_images(
    asked: Asked,
    wanted: Definition | None,
    judges: dict[str, Any],
    checkpoints: Path,
    networks: Path | None,
    device: str,
    out: Path | None,
    atlas: str,
    classes: bool,
    say: Teller,
) -> None:
    """Score pictures and print, or write, the table."""
    from backends.reports.feature_networks import Features
    from backends.reports.picture_folder import METRICS, SETTINGS, load
    from backends.reports.picture_tables import markdown, write
    from backends.reports.pictures import score_folder, score_pairs, shipped_functions
    from explorer.naming import path_and_options

    named = dict(pair.partition("=")[::2] for pair in asked.published)
    given = named.get(asked.images, asked.images)
    place, said = path_and_options(given, f"--images {asked.images}")

    def features(name: str, bench: Workbench | None) -> Features:
        simulated = bench is not None and name == "simulated"
        own = shipped_functions(bench, checkpoints, device) if simulated else {}
        return Features(networks, own | judges, device, checkpoints / "embedders")

    more = {"definition": wanted, "atlas": atlas, "progress": say}
    if (place / METRICS).is_file() or (place / SETTINGS).is_file():
        name, bench = options.open_bench(asked.dataset, checkpoints, device)
        drawn_of = load(place)[0]["dataset"]
        if drawn_of != name:
            raise UserError(
                f"{place} holds pictures of {drawn_of}, and --dataset opens {name}; score them "
                f"with: python -m backends evaluate --dataset {drawn_of}=PATH --images {place}"
            )
        again = {"references": True, "classes": classes}
        report = score_folder(bench, place, features(name, bench), **again, **more)
    else:
        name, one, bench = _foreign(asked, place, said, checkpoints, device)
        settings = {"dataset": name, "mapper": place.name, "generator": "published"}
        report = score_pairs([one], features(name, bench), settings, bench=bench, **more)
    say.result(markdown(report))
    for path in write(report, out) if out else ():
        say.result(str(path))


def _foreign(
    asked: Asked, place: Path, said: dict[str, str], checkpoints: Path, device: str
) -> tuple[str, Shown, Workbench | None]:
    """Return what is shown, the pictures that others made of it, and the bench of a data set."""
    from backends import DATASETS
    from backends.reports.foreign_pictures import has_copies, pairs_of, published_of

    whose = asked.dataset != "simulated" or bool(asked.subjects) or {"subject", "order"} & {*said}
    if asked.shown is not None or (not whose and has_copies(place)):
        odd = sorted({*said} - {"samples"})
        if odd:
            raise UserError(
                f"--images: {odd[0]} says which test images of a data set pictures are of, and "
                "these have copies of what was shown; leave it out, or --shown."
            )
        one = pairs_of(place, asked.shown, said.get("samples", ""))
        return (asked.shown or place).name, one, None
    if not whose:
        raise UserError(
            f"{place} holds no pictures of reconstruct and no copies of what was shown; say "
            "what was shown with --shown FOLDER_OR_FILE, or whose test images they are with "
            "--dataset NAME=PATH --subject SUBJECT and, for numbered ones, ?order= after the path."
        )
    if len(asked.subjects) == 1:
        said = {"subject": asked.subjects[0]} | said
    if asked.dataset in DATASETS:  # which has no path of its own
        said = {"dataset": asked.dataset} | said
    name = re.sub(r"[^\w.-]", "_", place.stem, flags=re.ASCII)
    tail = "&".join(f"{key}={value}" for key, value in said.items())
    pair = f"{name}={place}?{tail}" if tail else f"{name}={place}"
    _, bench = options.open_bench(asked.dataset, checkpoints, device, [pair])
    return (*published_of(bench, name), bench)
