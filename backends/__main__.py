"""The command line: ``python -m backends build-demo | train | evaluate | doctor ...``."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from explorer.types import UserError

ROOT = Path(__file__).resolve().parents[1]
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Build the embedded study, train mappers on your own data, measure, and check folders.",
)
CACHE = Path(".cache/embeddings")
Checkpoints = Annotated[Path, typer.Option(help="The folder of trained weights.")]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=PATH_OR_ID: where the weights of an embedder are, e.g. resnet50=~/resnet50 "
        "(may be repeated)."
    ),
]
Drawing = Annotated[
    list[str] | None,
    typer.Option(
        "--generator",
        help="NAME=PATH_OR_ID: where the weights of a generator are (may be repeated).",
    ),
]
Captions = Annotated[
    Path | None, typer.Option(help="A table of captions, as the command caption writes it.")
]
CacheFolder = Annotated[Path, typer.Option("--cache", help="Where embeddings are kept.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep no embeddings on disk.")]
DataOption = Annotated[
    str,
    typer.Option(
        help="NAME=PATH or NAME=PATH?option=value: the format is recognised by content, or is a "
        "plain folder; or simulated."
    ),
]


def say(text: str) -> None:
    """Print a progress line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


@app.command()
def build_demo(
    quick: Annotated[
        bool, typer.Option(help="Every step in under 4 minutes, for checking the build itself.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Run this stage alone (may be repeated).")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where assets/ and checkpoints/ are written; default: this repository."),
    ] = None,
    work: Annotated[
        Path, typer.Option(help="Where rendered pictures and resume files are kept.")
    ] = Path(".cache/build-demo"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
) -> None:
    """Make the embedded study and its models again from seeds (about two hours on 2 cores)."""
    from backends.commands.build_demo import run
    from backends.commands.demo.build import FULL, QUICK, Build
    from backends.training.machine import best_device

    if quick and out is None:
        raise UserError("--quick makes untrained models; give --out FOLDER to keep the real ones.")
    out = out or ROOT
    build = Build(
        QUICK if quick else FULL,
        assets=out / "assets" / "simulated",
        checkpoints=out / "checkpoints",
        work=work / "quick" if quick else work,
        device=best_device(device),
        command="python -m backends build-demo" + (" --quick" if quick else ""),
        progress=say,
    )
    run(build, only=tuple(only or ()))


@app.command()
def train(
    mapper: Annotated[str, typer.Argument(help="Which mapper, e.g. ridge.")],
    dataset: DataOption,
    subject: Annotated[
        list[str] | None, typer.Option(help="A participant (may be repeated); default: all.")
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(help="Target space, e.g. pixels/10x10 (may be repeated)."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE, a setting of the mapper (may be repeated)."),
    ] = None,
    title: Annotated[
        str, typer.Option("--name", help="What the mapper is called; default: its kind.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Decides the folds and first weights.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Log to Weights & Biases beside TensorBoard.")
    ] = False,
    embedder: Weights = None,
    captions: Captions = None,
    augment: Annotated[
        Path | None,
        typer.Option(help="A folder of further pictures: their betas are predicted, and learned."),
    ] = None,
    generator: Drawing = None,
    cache: CacheFolder = CACHE,
    no_cache: NoCache = False,
    checkpoints: Checkpoints = ROOT / "checkpoints",
) -> None:
    """Fit a mapper to the subjects of a data set, each or all jointly, and write its checkpoint.

    Several processes: accelerate launch --multi_gpu --num_processes N -m backends train ... (also
    on CPUs, with --device cpu after train).
    """
    from backends import GENERATORS, MAPPERS
    from backends.commands.train import (
        check_asked,
        gather,
        pictures_of,
        read_settings,
        train_mapper,
    )
    from backends.embedders.choice import read_sources
    from backends.training.machine import best_device, launched
    from explorer.catalogue import PUBLISHED
    from explorer.naming import named_sources
    from explorer.types import resolve

    trained = [kind for kind in MAPPERS if kind != PUBLISHED]  # those are read, not trained
    if mapper not in trained:
        raise UserError(
            f"There is no mapper {mapper!r} to train; choose one of {', '.join(trained)}."
        )
    cls = resolve(MAPPERS[mapper])
    chosen_settings = read_settings(mapper, cls, settings or [])
    check_asked(mapper, cls, title, wandb, augment is not None)
    places = named_sources(generator or (), GENERATORS)
    first = launched()[0] == 0
    tell = say if first else None
    name, bench = _open(dataset, checkpoints)
    study = bench.catalogue.dataset(name)
    people = list(dict.fromkeys(subject or bench.catalogue.subjects(name)))
    every, embeddings, notes = gather(
        study,
        {person: bench.catalogue.trials(name, person) for person in people},
        space or ["pocket-clip/image"],
        checkpoints,
        device=best_device(device),
        sources=read_sources(embedder or []),
        captions=captions,
        cache=None if no_cache else cache,
        augment=augment,
        progress=tell,
    )
    pictures = None
    if first and "pictures" in inspect.signature(cls.fit).parameters:
        drawing = {kind: entry for kind, entry in GENERATORS.items() if kind != PUBLISHED}
        asked = (study, embeddings, drawing, checkpoints, best_device(device), tell)
        pictures = pictures_of(*asked, sources=places)
    for group in [people] if getattr(cls, "joint", False) else [[person] for person in people]:
        folder = checkpoints / "mappers" / name / "-".join([title or mapper, *group])
        card = train_mapper(
            mapper,
            cls,
            [every[person] for person in group],
            embeddings,
            folder,
            command=" ".join(["python -m backends", *sys.argv[1:]]),
            licence=study.licence,
            seed=seed,
            device=best_device(device),
            progress=tell,
            title=title,
            run_on=best_device(device),
            trackers=("tensorboard", "wandb") if wandb else ("tensorboard",),
            notes=notes,
            pictures=pictures,
            **chosen_settings,
        )
        tested = card.metrics["test"]
        for person in group if first else []:
            for target, figures in (tested if len(group) == 1 else tested[person]).items():
                print(f"{person}  {target}  {figures}  ->  {folder}")


@app.command()
def search(
    mapper: Annotated[str, typer.Argument(help="Which mapper, e.g. contrastive.")],
    dataset: DataOption,
    tries: Annotated[
        list[str] | None,
        typer.Option("--try", help="KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=A,B,C: what to draw."),
    ] = None,
    trials: Annotated[int, typer.Option(help="How many settings are tried in the end.")] = 20,
    subject: Annotated[
        list[str] | None, typer.Option(help="A participant (may be repeated); default: all.")
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(help="Target space, e.g. pixels/10x10 (may be repeated)."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE, a setting that all trials have (may be repeated)."),
    ] = None,
    share: Annotated[
        float, typer.Option(help="Share of the training stimuli held out for scoring.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Decides what is held out and drawn.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the search is kept; default: .cache/search/DATASET/MAPPER."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    embedder: Weights = None,
    captions: Captions = None,
    cache: CacheFolder = CACHE,
    no_cache: NoCache = False,
    checkpoints: Checkpoints = ROOT / "checkpoints",
) -> None:
    """Try random settings of a mapper on held-out training stimuli; the same command goes on."""
    from backends import MAPPERS
    from backends.commands import search as searching
    from backends.commands.train import gather, read_settings
    from backends.embedders.choice import read_sources
    from backends.training.machine import best_device
    from explorer.catalogue import PUBLISHED
    from explorer.types import resolve

    trained = [kind for kind in MAPPERS if kind != PUBLISHED]
    if mapper not in trained:
        raise UserError(
            f"There is no mapper {mapper!r} to train; choose one of {', '.join(trained)}."
        )
    cls = resolve(MAPPERS[mapper])
    fixed = read_settings(mapper, cls, settings or [])
    drawn = searching.read_tries(mapper, cls, tries or [])
    name, bench = _open(dataset, checkpoints)
    people = list(dict.fromkeys(subject or bench.catalogue.subjects(name)))
    spaces = space or ["pocket-clip/image"]
    every, embeddings, _ = gather(
        bench.catalogue.dataset(name),
        {person: bench.catalogue.trials(name, person) for person in people},
        spaces,
        checkpoints,
        device=best_device(device),
        sources=read_sources(embedder or []),
        captions=captions,
        cache=None if no_cache else cache,
        progress=say,
    )
    folder = out or Path(".cache/search") / name / mapper
    table = searching.search(
        *(mapper, cls, list(every.values()), embeddings, folder),
        tries=drawn,
        count=trials,
        fixed=fixed,
        share=share,
        seed=seed,
        device=best_device(device),
        progress=say,
    )
    best = searching.best_settings(table, drawn)
    asked = {"dataset": dataset, "subjects": subject or (), "spaces": spaces, "seed": seed}
    command = searching.train_command(mapper, {**fixed, **best}, **asked)
    searching.write_best(folder, command)
    print(table.head(10).to_string(index=False))
    print(f"{len(table)} trials  ->  {folder}\n{command}")


@app.command()
def train_encoding(
    dataset: DataOption,
    subject: Annotated[
        list[str] | None, typer.Option(help="A participant (may be repeated); default: all.")
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(help="Feature space, e.g. pocket-clip/image (may be repeated)."),
    ] = None,
    folds: Annotated[int, typer.Option(help="Groups of stimuli for choosing penalties.")] = 5,
    seed: Annotated[int, typer.Option(help="Decides the folds.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    embedder: Weights = None,
    captions: Captions = None,
    cache: CacheFolder = CACHE,
    no_cache: NoCache = False,
    checkpoints: Checkpoints = ROOT / "checkpoints",
) -> None:
    """Fit the model that predicts each subject's betas from images, and write its checkpoint."""
    from backends.commands.train import gather
    from backends.embedders.choice import read_sources
    from backends.encoders.voxelwise import train_encoding as fit
    from backends.training.machine import best_device

    name, bench = _open(dataset, checkpoints)
    study, device = bench.catalogue.dataset(name), best_device(device)
    people = list(dict.fromkeys(subject or bench.catalogue.subjects(name)))
    every, embeddings, _ = gather(
        study,
        {person: bench.catalogue.trials(name, person) for person in people},
        space or ["pocket-clip/image"],
        checkpoints,
        device=device,
        sources=read_sources(embedder or []),
        captions=captions,
        cache=None if no_cache else cache,
        progress=say,
    )
    for person, trials in every.items():
        folder = checkpoints / "encoding" / name / person
        card = fit(
            *(trials, embeddings, folder),
            command=" ".join(["python -m backends", *sys.argv[1:]]),
            licence=study.licence,
            seed=seed,
            device=device,
            progress=say,
            folds=folds,
        )
        print(f"{person}  {card.metrics['test']}  ->  {folder}")


@app.command()
def caption(
    dataset: DataOption,
    model: Annotated[
        str, typer.Option(help="GIT's weights: a folder or a hub id; default: checkpoints.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="The table; default: captions.csv beside the data.")
    ] = None,
    augment: Annotated[
        Path | None, typer.Option(help="Also describe the pictures of this folder (see train).")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    checkpoints: Checkpoints = ROOT / "checkpoints",
) -> None:
    """Describe the pictures of a data set that have no caption, for targets made of text."""
    from backends.commands.augment import find_extra
    from backends.embedders.captions import Captioner, caption_stimuli
    from backends.training.machine import best_device
    from explorer.naming import named_path

    name, path, _ = named_path(dataset) if "=" in dataset else (dataset, None, {})
    if out is None:
        if path is None:
            raise UserError(
                f"The data set {name!r} has no folder of its own; name a file with --out FILE.csv."
            )
        place = Path(path).expanduser()
        out = (place if place.is_dir() else place.parent) / "captions.csv"
    _, bench = _open(dataset, checkpoints)
    study = bench.catalogue.dataset(name)
    captioner = Captioner(checkpoints, best_device(device), source=model or None)
    count = caption_stimuli(study, captioner, out, say)
    if augment is not None:
        count += caption_stimuli(find_extra(augment, study, say), captioner, out, say)
    print(f"{count} captions  ->  {out}")


@app.command()
def evaluate(
    dataset: DataOption = "simulated",
    subject: Annotated[
        list[str] | None, typer.Option(help="A participant (may be repeated); default: all.")
    ] = None,
    mapper: Annotated[
        list[str] | None, typer.Option(help="A mapper by its name (may be repeated).")
    ] = None,
    space: Annotated[
        list[str] | None, typer.Option(help="A target space (may be repeated).")
    ] = None,
    published: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH: predictions that others published (may be repeated)."),
    ] = None,
    embedder: Weights = None,
    captions: Captions = None,
    checkpoints: Checkpoints = ROOT / "checkpoints",
    limit: Annotated[
        int | None, typer.Option(help="Only this many test stimuli (faster, less exact).")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write CSV, Markdown and a figure into this folder (--aims and so on: a file)."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
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
    images: Annotated[
        Path | None,
        typer.Option(help="Instead: score the pictures that reconstruct made in this folder."),
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
    if images:
        _evaluate_images(images, dataset, checkpoints, networks, best(device), out, atlas)
        return
    if aims or evidence or statistics:
        from backends.reports.aims import evaluate as measure_aims
        from backends.reports.aims import render
        from backends.reports.evidence import evidence as measure_evidence
        from backends.reports.statistics import measure as measure_statistics

        measure = measure_aims if aims else measure_evidence if evidence else measure_statistics
        text = render(measure(checkpoints=checkpoints, limit=limit, device=device, progress=say))
        print(text)
        if out:
            part = out.with_name(out.name + ".part")
            part.write_text(text, encoding="utf-8")
            part.replace(out)
        return
    from backends.embedders.captions import read_captions
    from backends.embedders.choice import read_sources
    from backends.reports.mappers import compare, markdown, write

    name, bench = _open(dataset, checkpoints, device, published or ())
    found = compare(
        bench,
        name,
        subjects=subject or (),
        mappers=mapper or (),
        targets=space or (),
        limit=limit,
        sources=read_sources(embedder or []),
        captions=read_captions(captions) if captions else None,
        progress=say,
    )
    print(markdown(found))
    for path in write(found, out) if out else ():
        print(path)


def _evaluate_images(
    folder: Path,
    dataset: str,
    checkpoints: Path,
    networks: Path | None,
    device: str,
    out: Path | None,
    atlas: str,
) -> None:
    """Score a folder of pictures and print, or write, the table."""
    from backends.reports.pictures import markdown, score_folder, shipped_functions, write
    from backends.reports.scores import Features

    name, bench = _open(dataset, checkpoints, device)
    own = shipped_functions(bench, checkpoints, device) if name == "simulated" else {}
    features = Features(networks, own, device, checkpoints / "embedders")
    report = score_folder(bench, folder, features, atlas=atlas, progress=say)
    print(markdown(report))
    for path in write(report, out) if out else ():
        print(path)


@app.command()
def guidance(
    subject: Annotated[str, typer.Option(help="Whose trials of the simulated study.")] = "subj01",
    mapper: Annotated[str, typer.Option(help="Which mapper, by its name.")] = "ridge",
    parcel: Annotated[
        list[str] | None,
        typer.Option(help="A parcel whose betas guide, e.g. fusiform (repeated); default: all."),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many test stimuli.")] = 100,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    checkpoints: Checkpoints = ROOT / "checkpoints",
) -> None:
    """Measure what scale, feature, brain guidance and best of n do to pocket-diffusion."""
    from backends.reports.aims import render
    from backends.reports.guidance import measure

    _, bench = _open("simulated", checkpoints, best(device))
    found = measure(
        *(bench, checkpoints, subject),
        mapper=mapper,
        parcels=parcel or (),
        limit=limit,
        steps=steps,
        progress=say,
    )
    where = f"betas of {', '.join(parcel)}" if parcel else "betas of all voxels"
    print(render({f"{subject}, {mapper}, {steps} steps, {where}": found}))


@app.command()
def finetune(
    generator: Annotated[
        str, typer.Argument(help="Which generator: pocket-diffusion or sd15-context.")
    ] = "pocket-diffusion",
    dataset: DataOption = "simulated",
    subject: Annotated[
        list[str] | None, typer.Option(help="A participant (may be repeated); default: the first.")
    ] = None,
    mapper: Annotated[str, typer.Option(help="What decodes the trials, by its name.")] = "masked",
    alignment: Annotated[
        str, typer.Option(help="Towards the shown picture: none, encoder or generator level.")
    ] = "none",
    guidance: Annotated[
        bool, typer.Option(help="Drop a tenth of the conditions for one learned null.")
    ] = True,
    epochs: Annotated[int, typer.Option(help="Passes over the training trials.")] = 2,
    batch: Annotated[int, typer.Option(help="Trials of a step.")] = 16,
    lr: Annotated[float, typer.Option(help="The highest learning rate.")] = 3e-4,
    seed: Annotated[int, typer.Option(help="Decides first weights, order and noise.")] = 0,
    title: Annotated[str, typer.Option("--name", help="What the result is called.")] = "tuned",
    weights: Drawing = None,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablations",
            help="Instead: system 3's four ways, on the simulated study, in one table.",
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(help="--ablations: only this many test stimuli.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    checkpoints: Checkpoints = ROOT / "checkpoints",
) -> None:
    """Fine-tune a generator on what a mapper decodes from training trials (system 3)."""
    from backends import GENERATORS
    from backends.commands import finetune as tuning
    from backends.training.plan import Course
    from explorer.naming import named_sources

    if Path(title).name != title:
        raise UserError(f"--name is a folder's name, found {title!r}.")
    course = Course(epochs=epochs, batch=batch, lr=lr, patience=0, seed=seed)
    sources = named_sources(weights or (), GENERATORS)
    name, bench = _open(dataset, checkpoints, best(device))
    people = list(dict.fromkeys(subject or bench.catalogue.subjects(name)[:1]))
    command = " ".join(["python -m backends", *sys.argv[1:]])
    folder = checkpoints / "generators" / name
    if ablate:
        from backends.reports.aims import render

        run = f"{name}-{people[0]}-{mapper}-{epochs}-{batch}-{lr:g}-{seed}"
        found = tuning.ablations(
            *(bench, checkpoints, people[0], Path(".cache/finetune") / run),
            dataset=name,
            generator=generator,
            mapper=mapper,
            course=course,
            limit=limit,
            command=command,
            progress=say,
        )
        print(render({f"{generator} on {mapper} of {name}, {people[0]}": found}))
        return
    tuning.run(
        *(bench, checkpoints, name, people, mapper, generator, folder / title),
        source=sources.get(generator),
        alignment=alignment,
        guidance=guidance,
        course=course,
        command=command,
        progress=say,
    )
    print(f"{folder / title}\nUse it with: --generator {generator}={folder / title}")


@app.command()
def reconstruct(
    dataset: DataOption,
    out: Annotated[Path, typer.Option(help="A new folder, or one that is to be completed.")],
    subject: Annotated[
        list[str] | None, typer.Option(help="A participant (may be repeated); default: all.")
    ] = None,
    mapper: Annotated[str, typer.Option(help="Which mapper, by its name.")] = "ridge",
    generator: Annotated[
        str, typer.Option(help="Which generator, or NAME=PATH_OR_ID with its weights.")
    ] = "pocket-diffusion",
    scale: Annotated[float, typer.Option(help="The guidance scale.")] = 3.0,
    samples: Annotated[int, typer.Option(help="Pictures of each stimulus.")] = 1,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps; default: the generator's own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first picture; others count on.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Only this many test stimuli.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    checkpoints: Checkpoints = ROOT / "checkpoints",
) -> None:
    """Draw every test picture into a folder of PNG with a table of metrics (Parquet).

    Goes on where it stopped. Several processes: accelerate launch --multi_gpu --num_processes N
    -m backends reconstruct ... (also on CPUs, with --device cpu); the pictures are the same.
    """
    from backends.commands.reconstruct import Job
    from backends.commands.reconstruct import reconstruct as draw

    sources = [generator] if "=" in generator else []
    generator = generator.partition("=")[0]
    name, bench = _open(dataset, checkpoints, best(device), sources=sources)
    people = tuple(dict.fromkeys(subject or bench.catalogue.subjects(name)))
    steps = steps or bench.catalogue.generator_class(generator).default_steps
    job = Job(name, people, mapper, generator, scale, steps, samples, seed, limit)
    print(draw(bench, job, out, say))


def best(device: str) -> str:
    """Return a torch device string; "auto" is a GPU where there is one."""
    from backends.training.machine import best_device

    return best_device(device)


def _open(
    dataset: str,
    checkpoints: Path,
    device: str = "cpu",
    published: Sequence[str] = (),
    sources: Sequence[str] = (),
) -> tuple[str, Any]:
    """Return a data set's name and the workbench that knows it, with published results.

    ``sources``: where weights of generators are, ``NAME=PATH_OR_ID`` each.
    """
    from backends import DATASETS, EMBEDDERS, ENCODERS, GENERATORS, MAPPERS
    from explorer.naming import named_path, named_sources
    from explorer.workbench import Workbench

    name, path, options = named_path(dataset) if "=" in dataset else (dataset, None, {})
    results = [named_path(pair, "--published") for pair in published]
    bench = Workbench(
        *(DATASETS, EMBEDDERS, MAPPERS, GENERATORS),
        checkpoints=checkpoints,
        paths={name: path} if path else {},
        options={name: options},
        published={result: (place, said) for result, place, said in results},
        encoders=ENCODERS,
        sources=named_sources(sources, GENERATORS),
        device=device,
    )
    return name, bench


@app.command()
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A .pth, .pt, .ckpt or .safetensors file.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    convert: Annotated[
        bool, typer.Option("--convert", help="Write what a mapper needs as a checkpoint of ours.")
    ] = False,
    dataset: Annotated[
        str, typer.Option(help="NAME=PATH of the data it was trained on, to convert it.")
    ] = "",
    subject: Annotated[
        list[str] | None,
        typer.Option(help="Whose layers it holds, in the order of its training (repeated)."),
    ] = None,
    space: Annotated[str, typer.Option(help="MODEL/LAYER, what its tokens are.")] = "",
    title: Annotated[
        str, typer.Option("--name", help="What the mapper is called; default: its kind.")
    ] = "",
    checkpoints: Checkpoints = ROOT / "checkpoints",
) -> None:
    """Say what a checkpoint of MindEye2, NeuralDiffuser or MinD-Vis holds, or convert it."""
    from backends.commands import importing
    from backends.embedders.choice import available_spaces

    found = importing.open_checkpoint(file)
    for line in found.told(tensors):
        print(line)
    if not convert:
        return
    people = []
    if dataset:
        name, bench = _open(dataset, checkpoints)
        people = [bench.catalogue.trials(name, person).subject for person in subject or ()]
    mapper, card, left_out = importing.convert(
        found,
        people,
        space,
        title=title,
        command=" ".join(["python -m backends", *sys.argv[1:]]),
        known={name: known for name, (_, known) in available_spaces().items()},
    )
    folder = importing.place(checkpoints, card)
    mapper.save_pretrained(folder, card)
    print("\nNot converted:" if left_out else "")
    for line in left_out:
        print(f"  {line}")
    print(f"\n{importing.use(folder, card)}")


@app.command()
def import_gnet(
    file: Annotated[Path, typer.Argument(help="gnet_multisubject.pt of MindEye2's release.")],
    dataset: DataOption,
    subject: Annotated[
        list[str] | None, typer.Option(help="A participant (may be repeated); default: all.")
    ] = None,
    checkpoints: Checkpoints = ROOT / "checkpoints",
) -> None:
    """Make MindEye2's GNet the encoding model of NSD's subjects, for predicted brains."""
    from backends.encoders.gnet import import_gnet as bring

    name, bench = _open(dataset, checkpoints)
    for person in dict.fromkeys(subject or bench.catalogue.subjects(name)):
        folder = checkpoints / "encoding" / name / person
        command = " ".join(["python -m backends", *sys.argv[1:]])
        card = bring(file, bench.catalogue.trials(name, person), folder, command=command)
        print(f"{person}  {card.voxels[person][0]} voxels  ->  {folder}")


@app.command()
def doctor(
    path: Annotated[str, typer.Argument(help="Where data lie: PATH or PATH?option=value.")],
) -> None:
    """Say which data set lies at a path, what it holds and lacks, and the command to open it."""
    from backends import DATASETS
    from backends.commands.doctor import examine

    lines, well = examine(path, DATASETS)
    for line in lines:
        print(line)
    raise typer.Exit(0 if well else 1)


@app.command()
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            help="miyawaki2008, bold5000; or nsd, mindeye2, god, bold5000-betas: how to get them."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A folder NAME is made in it, or completed.")] = Path(
        "data"
    ),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before downloading.")] = False,
) -> None:
    """Download a data set, after its size and licence, or say how it is asked for by hand."""
    from backends.commands.fetch import BY_HAND, bring, find

    if name in BY_HAND:
        print(BY_HAND[name])
        raise typer.Exit(1)
    offer, folder = find(name), out.expanduser() / name
    print(
        f"{offer.title}\n  size     {offer.size}\n  licence  {offer.licence}\n  to       {folder}"
    )
    if folder.is_dir() and not offer.lacking(folder):
        print("Everything is there already.")
    else:
        if not yes:
            typer.confirm("Download it?", abort=True)
        bring(offer, folder)
        print("Everything came and is whole.")
    if offer.then:
        print(f"\n{offer.then}")
    print(f"\nNext: python -m backends doctor {folder}")


def main() -> None:
    """Run the command line; a person's mistake is one sentence and exit code 2."""
    try:
        app()
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    finally:  # under `accelerate launch`: a process that ends inside its group may be aborted
        if "torch" in sys.modules:
            from torch import distributed

            if distributed.is_available() and distributed.is_initialized():
                distributed.destroy_process_group()


if __name__ == "__main__":
    main()
