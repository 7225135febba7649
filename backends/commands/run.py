"""The command ``run``: a grid of pictures on several processes, or on Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backends.commands import options
from backends.commands.drawn_folder import check, claim
from backends.commands.grid import cells, finish, jobs, read_grid
from backends.commands.grid_engine import cell_command, draw_cell, drive, states, table
from backends.commands.progress import telling
from explorer.types import UserError


def run(
    grid: Annotated[
        Path,
        typer.Argument(help="A TOML file: data set, mappers, generators, scales, seeds, blocks."),
    ],
    on: Annotated[str, typer.Option(help="The engine: local, or slurm.")] = "local",
    status: Annotated[bool, typer.Option("--status", help="Only tell how it stands.")] = False,
    cell: Annotated[str, typer.Option(help="Draw this one cell, here.", hidden=True)] = "",
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
) -> None:
    """Draw a grid: subjects x mappers x generators x scales x seeds, in blocks of trials.

    Tells the cells that are done, running, failed and left, and the time left. Whatever is killed,
    the same command goes on; the folders are those that reconstruct --out makes in one process.
    """
    plan, checkpoints = read_grid(grid), checkpoints.resolve()
    device = options.device(plan.device)
    name, bench = options.open_bench(plan.dataset, checkpoints, device, sources=plan.sources)
    every = cells(plan, bench, name)
    if cell:
        found = [one for one in every if one.name == cell]
        if not found:
            raise UserError(f"{grid} has no cell {cell!r}; it was changed since.")
        if not check(bench, found[0].job, found[0].folder):
            raise UserError(f"{found[0].folder} is not begun; give the command without --cell.")
        with telling() as say:
            draw_cell(bench, found[0], plan.place, say)
        return
    if status:
        for folder, job in jobs(plan, bench, name):
            check(bench, job, folder)
        print(table(every, states(every, plan.place, {}), plan.place))
        return
    for folder, job in jobs(plan, bench, name):
        claim(bench, job, folder)
    with telling() as say:
        found_states = drive(
            plan, every, on, lambda one: cell_command(grid.resolve(), plan, one, checkpoints), say
        )
    for made in finish(plan, bench, name):
        print(made)
    if lacking := sum(state != "done" for state in found_states.values()):
        raise UserError(
            f"{lacking} of {len(every)} cells are not done; see {plan.place} and give the command "
            "again."
        )
