"""A folder of a job's pictures, drawn batch by batch: claimed, drawn in part, gathered.

Each batch leaves a file among ``.parts`` once its pictures are there, so that whoever goes on,
another process or another machine, draws what is lacking and nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.reports.picture_folder import (
    AGAIN,
    METRICS,
    SETTINGS,
    file_names,
    write_index,
    write_table,
)
from backends.training.counted import count
from backends.training.machine import launched
from backends.training.plan import Progress
from explorer.drawing import condition_of, picture_scores
from explorer.files import read_object
from explorer.request import Request
from explorer.types import UserError
from explorer.writing import check_writable, write_whole

if TYPE_CHECKING:
    from explorer.workbench import Workbench

BATCH = 32
PARTS = ".parts"
Row = tuple[str, str, int, int]  # subject, stimulus, sample, seed


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
    if rank == 0:
        claim(bench, job, out)
    wait()
    draw_batches(bench, job, out, range(rank, len(batches(bench, job)), processes), progress)
    wait()
    if rank == 0:
        gather(bench, job, out)
    wait()
    return out / METRICS


def claim(bench: Workbench, job: Job, out: Path) -> None:
    """Make a folder that of a job, or refuse it; its index is written."""
    check_writable(out)
    if not check(bench, job, out):
        if any(out.iterdir()):
            raise UserError(f"{out} holds other files; choose a new or empty folder.")
        write_whole(out / SETTINGS, json.dumps(_settings(bench, job), indent=2).encode(), AGAIN)
    write_index(out, _index(batches(bench, job), _names(bench, job)))


def check(bench: Workbench, job: Job, out: Path) -> bool:
    """Return whether a folder is claimed; `UserError` where it is, for another job or weights."""
    if not (out / SETTINGS).exists():
        return False
    there, settings = read_object(out / SETTINGS), _settings(bench, job)
    for key in sorted(set(there) | set(settings)):
        if there.get(key) != settings.get(key):
            raise UserError(
                f"{out} holds pictures of {key} {there.get(key)!r}, asked for is "
                f"{settings.get(key)!r}; choose another folder."
            )
    return True


def draw_batches(
    bench: Workbench,
    job: Job,
    out: Path,
    numbers: Sequence[int],
    progress: Progress | None = None,
) -> None:
    """Draw those of the numbered batches that are not there yet, into a claimed folder."""
    every, names = batches(bench, job), _names(bench, job)
    drawn, total = 0, sum(len(every[number]) for number in numbers)
    for number in numbers:
        if not is_done(out, number):
            rows = _batch(bench, job, every[number], out, names)
            write_whole(_part(out, number), json.dumps(rows).encode(), AGAIN)
            if progress:
                done = drawn + len(rows)
                progress(count(f"{out}", done, total, "pictures", "drawn"))
        drawn += len(every[number])


def gather(bench: Workbench, job: Job, out: Path) -> Path:
    """Write the table of a folder all of whose batches are there, and return its path."""
    parts = [_part(out, number) for number in range(len(batches(bench, job)))]
    rows = [row for part in parts for row in json.loads(part.read_text(encoding="utf-8"))]
    write_table(rows, out / METRICS)
    return out / METRICS


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


def _settings(bench: Workbench, job: Job) -> dict[str, Any]:
    """Return what decides a job's pictures, as JSON gives it back."""
    return json.loads(json.dumps(asdict(job) | {"checkpoints": _hashes(bench, job)}))


def batches(bench: Workbench, job: Job) -> list[list[Row]]:
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
    every: Sequence[Sequence[Row]], names: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, list[str]]]:
    """Return subject -> stimulus -> one file a sample."""
    found: dict[str, dict[str, list[str]]] = {}
    for subject, stimulus, sample, _ in (row for batch in every for row in batch):
        files = found.setdefault(subject, {}).setdefault(stimulus, [])
        files.append(f"{subject}/{names[subject][stimulus]}-{sample}.png")
    return found


def is_done(out: Path, number: int) -> bool:
    """Return whether a batch and all its pictures are there."""
    try:
        rows = json.loads(_part(out, number).read_text(encoding="utf-8"))
        return all((out / row["file"]).is_file() for row in rows)
    except (OSError, ValueError, TypeError, KeyError):  # not there, or damaged: drawn again
        return False


def _part(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:05}.json"


def _batch(
    bench: Workbench,
    job: Job,
    batch: Sequence[Row],
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


def wait() -> None:
    """Wait until all processes are here."""
    if launched()[1] > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
