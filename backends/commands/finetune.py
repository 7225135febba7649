"""The command ``finetune``: a generator learns from what a mapper decodes (system 3).

`backends.generators.finetuning` says how, `backends.reports.ablations` compares four ways of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backends.commands import options
from backends.commands.progress import telling
from backends.training.plan import Course, Progress
from explorer.types import UserError

if TYPE_CHECKING:
    from backends.generators.finetuning import Goals
    from explorer.workbench import Workbench


def finetune(
    generator: Annotated[
        str, typer.Argument(help="Which generator: pocket-diffusion or sd15-context.")
    ] = "pocket-diffusion",
    dataset: options.Dataset = "simulated",
    subject: Annotated[
        list[str] | None, typer.Option(help="A participant (may be repeated); default: the first.")
    ] = None,
    mapper: options.Mapper = "masked",
    alignment: Annotated[
        str, typer.Option(help="Towards the shown picture: none, encoder or generator level.")
    ] = "none",
    guidance: Annotated[
        bool, typer.Option(help="Drop a tenth of the conditions for one learned null.")
    ] = True,
    epochs: Annotated[int, typer.Option(help="Passes over the training trials.")] = 2,
    batch: Annotated[int, typer.Option(help="Trials of a step.")] = 16,
    lr: Annotated[float, typer.Option(help="The highest learning rate.")] = 3e-4,
    seed: options.Seed = 0,
    title: Annotated[str, typer.Option("--name", help="What the result is called.")] = "tuned",
    weights: options.Generators = None,
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
    device: options.Device = "auto",
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
) -> None:
    """Fine-tune a generator on what a mapper decodes from training trials (system 3)."""
    from backends import GENERATORS
    from explorer.naming import named_sources

    if Path(title).name != title:
        raise UserError(f"--name is a folder's name, found {title!r}.")
    course = Course(epochs=epochs, batch=batch, lr=lr, patience=0, seed=seed)
    sources = named_sources(weights or (), GENERATORS)
    name, bench = options.open_bench(dataset, checkpoints, options.device(device))
    people = list(dict.fromkeys(subject or bench.catalogue.subjects(name)[:1]))
    command, folder = options.command_line(), checkpoints / "generators" / name
    with telling() as say:
        if ablate:
            from backends.reports.ablations import ablations
            from backends.reports.tables import render

            tried = f"{name}-{people[0]}-{mapper}-{epochs}-{batch}-{lr:g}-{seed}"
            found = ablations(
                *(bench, checkpoints, people[0], Path(".cache/finetune") / tried, run),
                dataset=name,
                generator=generator,
                mapper=mapper,
                course=course,
                limit=limit,
                command=command,
                progress=say,
            )
            say.result(render({f"{generator} on {mapper} of {name}, {people[0]}": found}))
            return
        run(
            *(bench, checkpoints, name, people, mapper, generator, folder / title),
            source=sources.get(generator),
            alignment=alignment,
            guidance=guidance,
            course=course,
            command=command,
            progress=say,
        )
    print(f"{folder / title}\nUse it with: --generator {generator}={folder / title}")


def run(
    bench: Workbench,
    checkpoints: Path,
    dataset: str,
    subjects: Sequence[str],
    mapper: str,
    generator: str,
    folder: Path,
    *,
    source: str | None = None,
    alignment: str = "none",
    guidance: bool = True,
    course: Course | None = None,
    goals: Goals | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Goals:
    """Fine-tune a generator by its name on what a mapper decodes of subjects.

    See `backends.generators.finetuning.finetune`. ``source``: the weights that it begins with,
    where they are not in ``checkpoints``. Alignment is about pocket-clip's image embedding, which
    ships and has a gradient. ``goals``: what an earlier call of the same generator and subjects
    returned.
    """
    from backends.generators import finetuning

    cls = bench.catalogue.generator_class(generator)
    if not hasattr(cls, "for_training"):
        raise UserError(
            f"{generator} cannot be fine-tuned: it has no cross-attention to decoded embeddings; "
            "choose pocket-diffusion or sd15-context."
        )
    decoders = {subject: bench.models.mapper(dataset, subject, mapper) for subject in subjects}
    if len(set(map(id, decoders.values()))) > 1:
        raise UserError(
            f"Each of {', '.join(subjects)} has a mapper {mapper} of its own, and a generator is "
            "fine-tuned on one mapper; give one --subject, or a mapper of them all."
        )
    (decoder,) = set(decoders.values())
    finetuning.check(alignment, generator, cls.accepts[0], decoder)
    trainee = cls.for_training(checkpoints, source)
    trials = [bench.catalogue.trials(dataset, subject) for subject in subjects]
    about = {"device": bench.models.device, "progress": progress}
    embedder = bench.models.embedder("pocket-clip")
    if goals is None:
        goals = finetuning.goals_of(
            trainee, trials, lambda name: bench.catalogue.image(dataset, name), embedder, **about
        )
    try:
        finetuning.finetune(
            *(trainee, decoder, trials, goals, folder),
            alignment=alignment,
            guidance=guidance,
            embedder=embedder,
            course=course or finetuning.COURSE,
            command=command,
            licence=bench.catalogue.dataset(dataset).licence,
            **about,
        )
    finally:
        decoder.to(bench.models.device)  # others decode with it too
    return goals
