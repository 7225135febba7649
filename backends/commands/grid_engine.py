"""Handing the cells of a grid to an engine that exists: submitit, on this machine or on Slurm.

What is true of a cell stands on disk, not in the engine: done when its parts are there, running
while a process holds its lock, failed when it left a reason. So a driver that is killed loses
nothing, and the next one takes up where things are.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.commands.drawn_folder import draw_batches, wait
from backends.commands.grid import Cell, Grid, forecast
from backends.training.machine import launched
from backends.training.plan import Progress, clock
from explorer.files import read_object, short
from explorer.folders import held
from explorer.types import UserError
from explorer.writing import write_whole

if TYPE_CHECKING:
    from submitit import Job as Submitted

    from explorer.workbench import Workbench

CELLS = ".cells"  # in the folder of results: what each cell left, and the engine's logs
ENGINES = ("local", "slurm")
# What both engines of submitit are given in the same words; each has more, with its own name in
# front. The name of the jobs is ours.
COUNTS = ("timeout_min", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")
SHARED = (*COUNTS, "mem_gb", "stderr_to_stdout")
ATTEMPTS = 2  # of a cell within one call that ends without a word, as when it is killed
TRIES, PAUSE = 5, 0.4  # of taking a cell's lock: a driver looks at it for a moment
STATES = ("done", "running", "queued", "failed", "waiting")
QUEUED = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESIZING", "SUSPENDED"}
RUNNING = {"RUNNING", "COMPLETING"}
GRACE = 600.0  # seconds until Slurm must know of a job, else it is given again
Given = tuple["Submitted", float]  # a job, and the time when the engine took it
Starts = Callable[[Sequence[Cell]], "list[Submitted]"]


def draw_cell(bench: Workbench, cell: Cell, place: Path, progress: Progress | None = None) -> None:
    """Draw what is left of a cell; why that failed stays in a file until it is done.

    On all processes of ``accelerate launch``. `UserError` where another process draws it.
    """
    rank, processes = launched()
    notes = place / CELLS
    with _held_by_first(notes / cell.name):
        age = _age()
        began, left = time.monotonic(), cell.left()
        wait()
        try:
            draw_batches(bench, cell.job, cell.folder, left[rank::processes], progress)
        except Exception as error:
            write_whole(notes / f"{cell.name}.failed", _reason(error).encode())
            raise
        wait()
        if rank == 0:
            (notes / f"{cell.name}.failed").unlink(missing_ok=True)
            if len(left) == cell.last - cell.first:  # all of it, so that its time is telling
                took = {"pictures": cell.pictures, "seconds": time.monotonic() - began}
                told = json.dumps(took | {"start": age})
                write_whole(notes / f"{cell.name}.json", told.encode())


def _age() -> float:
    """Return the seconds since this process began: what a cell spends before it draws."""
    import psutil

    return max(0.0, time.time() - psutil.Process().create_time())


@contextmanager
def _held_by_first(cell: Path) -> Iterator[None]:
    if launched()[0]:
        yield
        return
    for attempt in range(TRIES):
        try:
            with held(cell, "drawing"):
                yield
            return
        except UserError:
            if attempt == TRIES - 1 or not _is_held(cell):
                raise
            time.sleep(PAUSE)


def _is_held(cell: Path) -> bool:
    if not cell.with_name(f".{cell.name}.lock").exists():
        return False
    try:
        with held(cell, "looking"):
            return False
    except UserError:
        return True


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def states(
    cells: Sequence[Cell],
    place: Path,
    submitted: Mapping[str, Given],
    done: set[str] | None = None,
) -> dict[str, str]:
    """Return the state of each cell by name, one of `STATES`.

    ``submitted``: what the engine was given by this or an earlier driver, and when. ``done``:
    cells that need not be looked at again; those that are found done join them.
    """
    done = set() if done is None else done
    found = {}
    for cell in cells:
        state = "done"
        if cell.name not in done:
            state = _state(cell, place / CELLS, *submitted.get(cell.name, (None, 0.0)))
        if state == "done":
            done.add(cell.name)
        found[cell.name] = state
    return found


def _state(cell: Cell, notes: Path, job: Submitted | None, given: float) -> str:
    if not cell.left():
        return "done"
    if _is_held(notes / cell.name):
        return "running"
    if job is not None:
        said = job.state.split(" ")[0]
        if said in RUNNING:
            return "running"
        if said in QUEUED or (said == "UNKNOWN" and time.time() - given < GRACE):
            return "queued"
    return "failed" if (notes / f"{cell.name}.failed").exists() else "waiting"


def measured(place: Path) -> list[tuple[int, float]]:
    """Return pictures and seconds of every cell that was drawn whole."""
    return [(pictures, seconds) for pictures, seconds, _ in _times(place)]


def start(place: Path) -> float:
    """Return the mean seconds that a cell spent before it drew, 0 where none was measured."""
    known = [seconds for *_, seconds in _times(place) if seconds]
    return sum(known) / len(known) if known else 0.0


def _times(place: Path) -> list[tuple[int, float, float]]:
    found = []
    for path in sorted((place / CELLS).glob("*.json")):
        if path.name == JOBS:
            continue
        try:
            took = read_object(path)
            began = float(took.get("start", 0.0))  # earlier versions did not measure it
            found.append((int(took["pictures"]), float(took["seconds"]), began))
        except (UserError, KeyError, TypeError, ValueError):
            continue  # cut short by a full disk: it tells nothing
    return found


def table(cells: Sequence[Cell], found: dict[str, str], place: Path) -> str:
    """Return how many cells and pictures are in each state, the time left, and what failed."""
    numbers = Counter(found[cell.name] for cell in cells)
    pictures: Counter[str] = Counter()
    for cell in cells:
        pictures[found[cell.name]] += cell.pictures
    lines = [
        f"{state:8} {numbers[state]:6,} cells {pictures[state]:9,} pictures"
        for state in STATES
        if numbers[state] or state == "done"
    ]
    left = sum(pictures[state] for state in STATES if state != "done")
    to_start = len(cells) - numbers["done"] - numbers["running"]
    starts = to_start * start(place)
    seconds = forecast(measured(place), left, max(numbers["running"], 1), starts)
    if left:
        lines.append(f"time left: {'unknown' if seconds is None else clock(seconds)}")
    for cell in cells:
        if found[cell.name] == "failed":
            why = (place / CELLS / f"{cell.name}.failed").read_text(encoding="utf-8")
            lines.append(f"{cell.name}: {why}")
    return "\n".join(lines)


JOBS = (
    "jobs.json"  # cell -> the engine's id and when, so that the next driver knows what is queued
)


def drive(
    grid: Grid,
    cells: Sequence[Cell],
    on: str,
    command: Callable[[Cell], list[str]],
    say: Progress,
    every: float = 2.0,
) -> dict[str, str]:
    """Hand the cells that are left to an engine, wait for them, and return all states.

    Parameters
    ----------
    grid, cells
        What is drawn; their folders are claimed.
    on
        "local" or "slurm".
    command
        Gives the command line that draws a cell.
    say
        Is told how it goes, whenever that changes.
    every
        Seconds between looks.
    """
    place = grid.place
    (place / CELLS).mkdir(parents=True, exist_ok=True)
    begin, at_once = _engine(grid, on, command)
    submitted, attempts, told = _known_jobs(place, on), Counter[str](), ""
    done: set[str] = set()
    for cell in cells:
        (place / CELLS / f"{cell.name}.failed").unlink(missing_ok=True)  # tried again
    try:
        while True:
            found = states(cells, place, submitted, done)
            busy = sum(state in ("running", "queued") for state in found.values())
            ready = [
                cell
                for cell in cells
                if found[cell.name] == "waiting" and attempts[cell.name] < ATTEMPTS
            ]
            now = ready if at_once is None else ready[: max(at_once - busy, 0)]
            if now:
                for cell, job in zip(now, begin(now), strict=True):
                    submitted[cell.name] = job, time.time()
                    attempts[cell.name] += 1
                _write_jobs(place, submitted)
                found = states(cells, place, submitted, done)
                busy = sum(state in ("running", "queued") for state in found.values())
            if (text := table(cells, found, place)) != told:
                say(told := text)
            if not busy and not any(
                state == "waiting" and attempts[name] < ATTEMPTS for name, state in found.items()
            ):
                return found
            time.sleep(every)
    except KeyboardInterrupt:
        if on == "local":
            for job, _ in submitted.values():
                job.cancel()
        raise
    finally:
        for job, _ in submitted.values() if on == "local" else ():
            while not job.done():  # its pictures are there, its process ends in a moment
                time.sleep(0.01)


def _engine(
    grid: Grid, on: str, command: Callable[[Cell], list[str]]
) -> tuple[Starts, int | None]:
    """Return what starts cells, and how many may be busy at a time (None: the engine's affair)."""
    import subprocess

    import submitit

    if on not in ENGINES:
        raise UserError(f"--on is one of {', '.join(ENGINES)}, found {on!r}.")
    if on == "slurm" and shutil.which("sbatch") is None:
        raise UserError(
            "--on slurm needs Slurm's sbatch, which is not on this machine; give the command on a "
            "login node, or use --on local."
        )
    settings = dict(grid.local if on == "local" else grid.slurm)
    _check_settings(settings, on)
    jobs = settings.pop("jobs", 1) if on == "local" else None
    settings.setdefault("timeout_min", 24 * 60)
    executor = submitit.AutoExecutor(grid.place / CELLS / "logs", cluster=on)
    try:
        executor.update_parameters(name="afterimage", **settings)
    except (TypeError, ValueError, NameError, AssertionError) as error:
        said = short(str(error).partition("\n")[0], 200)
        raise UserError(f"The table [{on}] of the grid is refused by submitit: {said}") from error

    def begin(some: Sequence[Cell]) -> list[Any]:
        # a function of the standard library: nothing of ours has to be importable over there
        with executor.batch():
            return [executor.submit(subprocess.run, command(cell), check=True) for cell in some]

    return begin, jobs


def _check_settings(settings: Mapping[str, Any], on: str) -> None:
    """Refuse a key of an engine's table that it does not have, or a value that it cannot mean."""
    known = (*(("jobs",) if on == "local" else ()), *SHARED)
    for name, value in settings.items():
        if name not in known and not name.startswith(f"{on}_"):
            own = "local_setup" if on == "local" else "Slurm's own as slurm_partition and the like"
            raise UserError(
                f"The table [{on}] of the grid is refused by submitit: it has no key "
                f"{short(repr(name))}; it takes {', '.join(known)}, and {own}."
            )
        least = 0 if name == "gpus_per_node" else 1
        if name in ("jobs", *COUNTS) and (type(value) is not int or value < least):
            raise UserError(
                f"[{on}] {name} is a whole number from {least}, found {short(repr(value))}."
            )


def _known_jobs(place: Path, on: str) -> dict[str, Given]:
    """Return what an earlier driver gave the engine; on this machine locks say it instead."""
    if on == "local":
        return {}
    from submitit import SlurmJob

    try:
        ids = read_object(place / CELLS / JOBS)
    except UserError:
        return {}
    logs = place / CELLS / "logs"
    known = {}
    for name, one in ids.items():
        if isinstance(one, list) and len(one) == 2:
            known[name] = SlurmJob(folder=logs, job_id=str(one[0]), tasks=[0]), float(one[1])
    return known


def _write_jobs(place: Path, submitted: Mapping[str, Given]) -> None:
    ids = {name: [job.job_id, given] for name, (job, given) in submitted.items()}
    write_whole(place / CELLS / JOBS, json.dumps(ids).encode())


def cell_command(grid_file: Path, grid: Grid, cell: Cell, checkpoints: Path) -> list[str]:
    """Return the command line that draws a cell, under ``accelerate launch`` for processes."""
    drawn = ["-m", "backends", "run", str(grid_file), "--cell", cell.name]
    drawn += ["--checkpoints", str(checkpoints)]
    if grid.processes == 1:
        return [sys.executable, *drawn]
    kind = "--cpu" if grid.device == "cpu" else "--multi_gpu"
    launch = ["-m", "accelerate.commands.launch", kind, "--num_processes", str(grid.processes)]
    return [sys.executable, *launch, *drawn]
