"""The command ``import-gnet``: make MindEye2's GNet the encoding model of NSD's subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backends.commands import options


def import_gnet(
    file: Annotated[Path, typer.Argument(help="gnet_multisubject.pt of MindEye2's release.")],
    dataset: options.Dataset,
    subject: options.Subjects = None,
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
) -> None:
    """Make MindEye2's GNet the encoding model of NSD's subjects, for predicted brains."""
    from backends.encoders.gnet import import_gnet as bring

    name, bench = options.open_bench(dataset, checkpoints)
    for person in options.people(bench, name, subject):
        folder = checkpoints / "encoding" / name / person
        card = bring(
            *(file, bench.catalogue.trials(name, person), folder), command=options.command_line()
        )
        print(f"{person}  {card.voxels[person][0]} voxels  ->  {folder}")
