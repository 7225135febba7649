"""The command ``guidance``: what scale, feature, brain guidance and best of n do to pictures."""

from __future__ import annotations

from typing import Annotated

import typer

from backends.commands import options
from backends.commands.progress import telling


def guidance(
    subject: Annotated[str, typer.Option(help="Whose trials of the simulated study.")] = "subj01",
    mapper: options.Mapper = "ridge",
    parcel: Annotated[
        list[str] | None,
        typer.Option(help="A parcel whose betas guide, e.g. fusiform (repeated); default: all."),
    ] = None,
    limit: options.Limit = 100,
    steps: options.Steps = 20,
    device: options.Device = "auto",
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
) -> None:
    """Measure what scale, feature, brain guidance and best of n do to pocket-diffusion."""
    from backends.reports.guidance import measure
    from backends.reports.tables import render

    _, bench = options.open_bench("simulated", checkpoints, options.device(device))
    with telling() as say:
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
