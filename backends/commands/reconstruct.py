"""The command ``reconstruct``: every test picture of a data set, on one process or several.

`backends.reports.picture_folder` says what the folder holds. Pictures are drawn in batches that
are the same whoever draws them, and a batch that is there is not drawn again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backends.commands import options
from backends.commands.progress import telling
from backends.reports.picture_folder import (
    AGAIN,
    METRICS,
    SETTINGS,
    file_names,
    write_index,
    write_table,
)
from backends.training.counted import count
from backends.training.holding import holding
from backends.training.machine import launched
from backends.training.plan import Progress
from explorer import drawing
from explorer.choosing import default_request
from explorer.drawing import condition_of, picture_scores, whose_pictures
from explorer.files import read_object
from explorer.request import Request
from explorer.types import UserError
from explorer.writing import check_writable, write_whole

if TYPE_CHECKING:
    from explorer.workbench import Workbench

BATCH = 32
PARTS = ".parts"


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


@dataclass(frozen=True)
class Job:
    """What is drawn: ``samples`` pictures of every test stimulus of ``subjects``.

    Sample k of stimulus i (in the order of the gallery) starts from the seed
    ``seed + i + k * number of stimuli``, whatever else is drawn.
    """

    dataset: str
    subjects: tuple[str, ...]
    mapper: str
    generator: str
    scale: float
    steps: int
    samples: int = 1
    seed: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.samples < 1:
            raise UserError(f"--samples is 1 or more, found {self.samples}.")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit is 1 or more test stimuli, found {self.limit}.")


def draw(
    bench: Workbench,
    job: Job,
    out: Path,
    progress: Progress | None = None,
    share: tuple[int, int] | None = None,
) -> Path:
    """Draw a job's pictures into ``out`` and return the path of the table of their metrics.

    ``share`` (rank, processes) says which batches are drawn here, as ``accelerate launch`` does by
    default; the first process writes the table once all are done. A folder with pictures of other
    settings raises `UserError`.
    """
    rank, processes = share or launched()
    settings = asdict(job) | {"checkpoints": _hashes(bench, job)}
    batches, names = _batches(bench, job), _names(bench, job)
    if rank == 0:
        check_writable(out)
        _claim(out, settings)
        write_index(out, _index(batches, names))
    _wait()
    mine = [batch for number, batch in enumerate(batches) if number % processes == rank]
    drawn, total = 0, sum(map(len, mine))
    for number, batch in enumerate(batches):
        part = out / PARTS / f"{number:05}.json"
        if number % processes != rank:
            continue
        if _is_done(out, part):
            drawn += len(batch)
            continue
        rows = _batch(bench, job, batch, out, names)
        write_whole(part, json.dumps(rows).encode(), AGAIN)
        drawn += len(rows)
        if progress:
            progress(count(f"{out}", drawn, total, "pictures", "drawn"))
    _wait()
    table = out / METRICS
    if rank == 0:
        parts = [out / PARTS / f"{number:05}.json" for number in range(len(batches))]
        write_table([row for part in parts for row in json.loads(part.read_text())], table)
    _wait()
    return table


def fill(
    bench: Workbench,
    job: Job,
    scales: Sequence[float] | None = None,
    progress: Progress | None = None,
    share: tuple[int, int] | None = None,
) -> None:
    """Draw what the page begins with for every test trial, and keep it in the bench's store.

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
        for _ in drawing.reconstruct(bench, request):
            pass
        if progress:
            progress(count(f"{job.generator}", number, len(mine), "trials", "drawn"))
    _wait()


def _hashes(bench: Workbench, job: Job) -> dict[str, dict[str, str]]:
    found = {}
    for subject in job.subjects:
        first = bench.catalogue.gallery(job.dataset, subject).index[0]
        found[subject] = bench.checkpoint_hashes(_request(job, subject, first))
    return found


def _request(job: Job, subject: str, stimulus: str) -> Request:
    return Request(
        *(job.dataset, subject, stimulus, job.mapper, job.generator),
        scales=(job.scale,),
        steps=job.steps,
        seed=job.seed,
    )


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Write the settings into the folder, or compare them with those of the pictures there."""
    file = out / SETTINGS
    settings = json.loads(json.dumps(settings))  # tuples as the file has them
    if not file.exists():
        if any(out.iterdir()):
            raise UserError(f"{out} holds other files; choose a new or empty folder.")
        write_whole(file, json.dumps(settings, indent=2).encode(), AGAIN)
        return
    there = read_object(file)
    for key in sorted(set(there) | set(settings)):
        if there.get(key) != settings.get(key):
            raise UserError(
                f"{out} holds pictures of {key} {there.get(key)!r}, asked for is "
                f"{settings.get(key)!r}; choose another folder."
            )


def _batches(bench: Workbench, job: Job) -> list[list[tuple[str, str, int, int]]]:
    """Return batches of (subject, stimulus, sample, seed), of one subject each."""
    found = []
    for subject in job.subjects:
        stimuli = list(bench.catalogue.gallery(job.dataset, subject).index)
        every = [
            (subject, stimulus, sample, job.seed + i + sample * len(stimuli))
            for sample in range(job.samples)
            for i, stimulus in enumerate(stimuli[: job.limit])
        ]
        found += [every[i : i + BATCH] for i in range(0, len(every), BATCH)]
    return found


def _names(bench: Workbench, job: Job) -> dict[str, dict[str, str]]:
    """Return subject -> stimulus -> what its files are called."""
    galleries = {who: bench.catalogue.gallery(job.dataset, who).index for who in job.subjects}
    return {who: file_names(list(stimuli)) for who, stimuli in galleries.items()}


def _index(
    batches: Sequence[Sequence[tuple[str, str, int, int]]], names: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, list[str]]]:
    """Return subject -> stimulus -> one file a sample."""
    found: dict[str, dict[str, list[str]]] = {}
    for subject, stimulus, sample, _ in (row for batch in batches for row in batch):
        files = found.setdefault(subject, {}).setdefault(stimulus, [])
        files.append(f"{subject}/{names[subject][stimulus]}-{sample}.png")
    return found


def _is_done(out: Path, part: Path) -> bool:
    try:
        rows = json.loads(part.read_text(encoding="utf-8"))
        return all((out / row["file"]).is_file() for row in rows)
    except (OSError, ValueError, TypeError, KeyError):  # not there, or damaged: drawn again
        return False


def _batch(
    bench: Workbench,
    job: Job,
    batch: Sequence[tuple[str, str, int, int]],
    out: Path,
    names: Mapping[str, Mapping[str, str]],
) -> list[dict[str, Any]]:
    from io import BytesIO

    from PIL import Image

    requests = [_request(job, subject, stimulus) for subject, stimulus, _, _ in batch]
    conditions = [condition_of(bench, request) for request in requests]
    seeds = [seed for *_, seed in batch]
    pictures = bench.models.generator(job.generator).generate(
        conditions, job.scale, seeds, job.steps
    )
    rows = []
    for (subject, stimulus, sample, seed), picture in zip(batch, pictures, strict=True):
        file = f"{subject}/{names[subject][stimulus]}-{sample}.png"
        packed = BytesIO()
        Image.fromarray(picture).save(packed, "png")
        write_whole(out / file, packed.getvalue(), AGAIN)
        row = {"subject": subject, "stimulus": stimulus, "sample": sample, "seed": seed}
        row |= {"scale": job.scale, "file": file}
        rows.append(row | picture_scores(bench, job.dataset, stimulus, picture))
    return rows


def _wait() -> None:
    """Wait until all processes are here."""
    if launched()[1] > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
