"""Options that several commands have, declared once, and what the words after them open."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = ROOT / "checkpoints"
CACHE = Path(".cache/embeddings")
SPACES = ("pocket-clip/image",)  # the targets where no --space is given

MapperKind = Annotated[str, typer.Argument(help="Which kind of mapper, e.g. ridge.")]
Dataset = Annotated[
    str,
    typer.Option(
        "--dataset",
        help="NAME=PATH or NAME=PATH?option=value (without NAME= it has the folder's name, or the "
        "format's): the format is recognised by content, or is a plain folder; or simulated.",
    ),
]
Subjects = Annotated[
    list[str] | None,
    typer.Option("--subject", help="A participant (may be repeated); default: all."),
]
Mapper = Annotated[str, typer.Option("--mapper", help="A mapper by its name.")]
Mappers = Annotated[
    list[str] | None,
    typer.Option("--mapper", help="A mapper by its name (may be repeated); default: all."),
]
Spaces = Annotated[
    list[str] | None,
    typer.Option(
        "--space",
        help="A space of embeddings, e.g. pixels/10x10 (may be repeated); default: "
        f"{', '.join(SPACES)}.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE, a setting of the mapper (may be repeated)."),
]
Embedders = Annotated[
    list[str] | None,
    typer.Option(
        "--embedder",
        help="NAME=PATH_OR_ID: where the weights of an embedder are, e.g. resnet50=~/resnet50 "
        "(may be repeated).",
    ),
]
Generators = Annotated[
    list[str] | None,
    typer.Option(
        "--generator",
        help="NAME=PATH_OR_ID: where the weights of a generator are (may be repeated).",
    ),
]
Captions = Annotated[
    Path | None,
    typer.Option("--captions", help="A table of captions, as the command caption writes it."),
]
Split = Annotated[
    str,
    typer.Option(
        "--split",
        help="A split that is not the data set's own: random_0, cluster_k5_0, tau, or one that "
        "was made (python -m backends split).",
    ),
]
Augment = Annotated[
    Path | None,
    typer.Option(
        "--augment",
        help="A folder of further pictures: their betas are predicted, and learned.",
    ),
]
Cache = Annotated[Path, typer.Option("--cache", help="Where embeddings are kept.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep no embeddings on disk.")]
Checkpoints = Annotated[Path, typer.Option("--checkpoints", help="The folder of trained weights.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")]
Seed = Annotated[int, typer.Option("--seed", help="Decides whatever is drawn at random.")]
Name = Annotated[str, typer.Option("--name", help="What the result is called; default: its kind.")]
Limit = Annotated[
    int | None,
    typer.Option("--limit", help="Only this many test stimuli (faster, less exact)."),
]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Denoising steps; default: the generator's own.")
]


Evaluations = Annotated[
    list[Path] | None,
    typer.Option("--evaluation", help="A folder that evaluate --out wrote (may be repeated)."),
]
WithoutPictures = Annotated[
    bool,
    typer.Option(
        "--without-pictures",
        help="Leave the shown pictures out; always where the data's licence asks for it.",
    ),
]
Store = Annotated[
    Path | None,
    typer.Option("--store", help="A folder in which finished pictures are kept and looked for."),
]


def command_line() -> str:
    """Return the command as it was given, for a card."""
    return " ".join(["python -m backends", *sys.argv[1:]])


def device(wanted: str) -> str:
    """Return a torch device string; "auto" is a GPU where there is one."""
    from backends.training.machine import best_device

    return best_device(wanted)


def mapper_class(kind: str) -> type:
    """Return the class of a kind of mapper that can be trained; others are refused."""
    from backends import MAPPERS
    from explorer.catalogue import PUBLISHED
    from explorer.types import resolve

    # those are read, or made of others, and not trained
    trained = [name for name in MAPPERS if name not in (PUBLISHED, "joined")]
    if kind not in trained:
        raise UserError(
            f"There is no mapper {kind!r} to train; choose one of {', '.join(trained)}."
        )
    return resolve(MAPPERS[kind])


def open_bench(
    dataset: str,
    checkpoints: Path,
    device: str = "cpu",
    published: Sequence[str] = (),
    sources: Sequence[str] = (),
    store: Path | None = None,
    atlases: Sequence[str] = (),
    evaluations: Sequence[Path] = (),
) -> tuple[str, Workbench]:
    """Return a data set's name and the workbench that knows it, with published results.

    Parameters
    ----------
    dataset
        ``NAME``, or ``NAME=PATH?option=value``.
    checkpoints, device
        As the workbench takes them.
    published
        Results of others, ``NAME=PATH`` each.
    sources
        Where weights of generators are, ``NAME=PATH_OR_ID`` each.
    store
        Where finished pictures are kept, None for nowhere.
    atlases
        Further atlases for every subject, as `explorer.brain.atlases.open_atlas` reads them.
    evaluations
        Folders that ``evaluate --out`` wrote.
    """
    from backends import DATASETS, EMBEDDERS, ENCODERS, GENERATORS, MAPPERS
    from backends.training.machine import launched
    from explorer.brain.atlases import open_atlas
    from explorer.naming import named_path, named_sources
    from explorer.offers import mended
    from explorer.store import Store
    from explorer.workbench import Workbench

    if "=" in dataset or (dataset not in DATASETS and Path(dataset).expanduser().exists()):
        name, path, options = named_path(dataset, datasets=DATASETS)
    else:
        name, path, options = dataset, None, {}
    results = [named_path(pair, "--published") for pair in published]
    if launched()[0] == 0:
        for sentence in mended(checkpoints):
            print(sentence)
    bench = Workbench(
        *(DATASETS, EMBEDDERS, MAPPERS, GENERATORS),
        checkpoints=checkpoints,
        paths={name: path} if path else {},
        options={name: options},
        atlases=[open_atlas(text) for text in atlases],
        published={result: (place, said) for result, place, said in results},
        encoders=ENCODERS,
        sources=named_sources(sources, GENERATORS),
        evaluations=evaluations,
        device=device,
        store=None if store is None else Store(store, report=print),
    )
    return name, bench


def people(bench: Workbench, dataset: str, wanted: Sequence[str] | None) -> list[str]:
    """Return the participants that were asked for, each once; all where none was."""
    return list(dict.fromkeys(wanted or bench.catalogue.subjects(dataset)))
