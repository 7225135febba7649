"""A study as a grid of cells: subject x mapper x generator x scale x seed x block of trials.

A grid is a TOML file. Each mapper, generator, scale and seed has a folder as ``reconstruct --out``
makes it; a cell is a run of batches of one subject in one of them, and is done when their parts
are there. So whoever goes on, after whatever was killed, finds by looking what is left::

    dataset = "nsd=~/data/nsd"
    out = "results"                      # beside this file
    mappers = ["ridge", "mixer"]
    generators = ["sd15-context=~/weights/sd15"]
    scales = [1, 3]
    subjects = ["subj01", "subj02"]      # all, where they are left out
    seeds = [0, 1, 2]                    # [0]
    steps = 30                           # the generator's own
    samples = 1                          # pictures of each trial
    limit = 100                          # test stimuli; all
    block = 96                           # pictures a cell, in whole batches of 32
    processes = 1                        # of `accelerate launch` inside a cell
    device = "auto"

    [local]                              # what the engine on this machine is given
    jobs = 2                             # cells at a time
    gpus_per_node = 1                    # GPUs that each of them sees; none without it
    timeout_min = 600

    [slurm]                              # parameters of submitit's Slurm executor, as they are
    slurm_partition = "gpu"
    gpus_per_node = 1
    timeout_min = 240
    slurm_array_parallelism = 64
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.commands import drawn_folder
from backends.commands.drawn_folder import Job, batches, is_done
from explorer.files import guard, read_text, short
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

MOST_CELLS = 100_000  # a mistyped block would make as many as there are batches
TEXTS = ("dataset", "out", "device")
WHOLE = ("steps", "samples", "limit", "block", "processes")


@dataclass(frozen=True)
class Grid:
    """What a grid's file says; ``folder`` is where it lies. See the module for each field."""

    dataset: str
    out: str
    mappers: tuple[str, ...]
    generators: tuple[str, ...]
    scales: tuple[float, ...]
    folder: Path
    subjects: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    steps: int | None = None
    samples: int = 1
    limit: int | None = None
    block: int = 96
    processes: int = 1
    device: str = "auto"
    local: Mapping[str, Any] = field(default_factory=dict)
    slurm: Mapping[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        """The folder of all results."""
        return self.folder / Path(self.out).expanduser()

    @property
    def sources(self) -> list[str]:
        """Those generators that name where their weights are."""
        return [one for one in self.generators if "=" in one]


@dataclass(frozen=True)
class Cell:
    """A part of a grid: batches ``first`` to before ``last`` of a job's folder, of one subject.

    ``pictures``: how many they are.
    """

    name: str
    folder: Path
    job: Job
    first: int
    last: int
    pictures: int

    def left(self) -> list[int]:
        """Return the numbers of the batches that are not there yet."""
        return [n for n in range(self.first, self.last) if not is_done(self.folder, n)]


def read_grid(path: Path) -> Grid:
    """Return the grid of a TOML file; what it cannot mean is refused in one sentence."""
    with guard(path, "a grid (TOML)", "see the head of backends/commands/grid.py for one"):
        values = tomllib.loads(read_text(path))
    known = {f.name for f in fields(Grid)} - {"folder"}
    if strange := sorted(set(values) - known):
        raise UserError(
            f"{path} says {short(repr(strange[0]))}, which no grid has; it has "
            f"{', '.join(sorted(known))}."
        )
    for name in ("dataset", "out", "mappers", "generators", "scales"):
        if name not in values:
            raise UserError(f"{path} lacks {name!r}; a grid has at least dataset, out, mappers, "
                            "generators and scales.")  # fmt: skip
    made = {name: _checked(path, name, value) for name, value in values.items()}
    return Grid(folder=path.resolve().parent, **made)


def _checked(path: Path, name: str, value: Any) -> Any:
    """Return a value as `Grid` holds it."""

    def refuse(expected: str) -> UserError:
        return UserError(f"{path}: {name} is {expected}, found {short(repr(value))}.")

    if name in ("local", "slurm"):
        if not isinstance(value, dict):
            raise refuse(f"a table, [{name}]")
        return value
    if name in TEXTS:
        if not isinstance(value, str) or not value:
            raise refuse("a text")
        return value
    if name in WHOLE:
        if type(value) is not int or value < 1:
            raise refuse("a whole number from 1")
        return value
    kind, what = str, "texts"
    if name == "scales":
        kind, what = (int, float), "numbers"
    elif name == "seeds":
        kind, what = int, "whole numbers"
    good = isinstance(value, list) and value
    if not good or any(isinstance(v, bool) or not isinstance(v, kind) or v == "" for v in value):
        raise refuse(f"a list of {what} with one or more")
    if len(set(value)) < len(value):
        raise refuse("a list without repeats")
    return tuple(float(v) for v in value) if name == "scales" else tuple(value)


def cells(grid: Grid, bench: Workbench, dataset: str) -> list[Cell]:
    """Return the cells of a grid, those of one folder together.

    Parameters
    ----------
    grid
        What is to be drawn.
    bench, dataset
        The workbench that knows the data set, and its name there.
    """
    found: list[Cell] = []
    places = [folder for folder, _ in jobs(grid, bench, dataset)]
    if len({str(place).casefold() for place in places}) < len(places):
        raise UserError("Two mappers or generators of the grid have one name as a folder's; "
                        "rename one of them, or name it once.")  # fmt: skip
    for folder, job in jobs(grid, bench, dataset):
        every = batches(bench, job)
        start = 0
        for number in range(1, len(every) + 1):
            ends = number == len(every) or every[number][0][0] != every[start][0][0]
            if ends or sum(map(len, every[start:number])) >= grid.block:
                name = f"{_plain(folder.relative_to(grid.place))}.{every[start][0][0]}"
                pictures = sum(map(len, every[start:number]))
                found.append(
                    Cell(f"{_plain(name)}.{start:05}", folder, job, start, number, pictures)
                )
                start = number
        if len(found) > MOST_CELLS:
            raise UserError(
                f"The grid has more than {MOST_CELLS:,} cells; give a larger block or fewer "
                "scales."
            )
    return found


def jobs(grid: Grid, bench: Workbench, dataset: str) -> list[tuple[Path, Job]]:
    """Return the folder and the job of each mapper, generator, scale and seed."""
    people = grid.subjects or tuple(bench.catalogue.subjects(dataset))
    found = []
    for mapper in grid.mappers:
        for generator in (one.partition("=")[0] for one in grid.generators):
            steps = grid.steps or bench.catalogue.generator_class(generator).default_steps
            for scale in grid.scales:
                for seed in grid.seeds:
                    place = Path(_plain(mapper)) / _plain(generator) / f"scale-{scale:g}"
                    job = Job(dataset, people, mapper, generator, scale, steps, grid.samples, seed,
                              grid.limit)  # fmt: skip
                    found.append((grid.place / place / f"seed-{seed}", job))
    return found


def _plain(name: object) -> str:
    """Return a name of a folder or cell: what a shell and every disk take as it is."""
    return re.sub(r"[^\w.-]", "_", str(name))


def finish(grid: Grid, bench: Workbench, dataset: str) -> list[Path]:
    """Write the table of each folder all of whose batches are there; return those tables."""
    tables = []
    for folder, job in jobs(grid, bench, dataset):
        if all(is_done(folder, n) for n in range(len(batches(bench, job)))):
            tables.append(drawn_folder.gather(bench, job, folder))
    return tables


def forecast(
    done: Sequence[tuple[int, float]], left: int, at_once: int, starts: float = 0.0
) -> float | None:
    """Return the seconds that ``left`` pictures take, ``at_once`` cells drawing; None unknown.

    ``done``: pictures and seconds of each cell that was measured; ``starts``: the seconds that
    the cells that are left spend before they draw, in all.
    """
    pictures, seconds = sum(n for n, _ in done), sum(s for _, s in done)
    if not pictures or not at_once:
        return None
    return (left * seconds / pictures + starts) / at_once
