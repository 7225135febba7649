"""The command ``caption``: describe the pictures of a data set that have no caption."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backends.commands import options
from backends.commands.progress import telling
from explorer.types import UserError


def caption(
    dataset: options.Dataset,
    model: Annotated[
        str, typer.Option(help="GIT's weights: a folder or a hub id; default: checkpoints.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="The table; default: captions.csv beside the data.")
    ] = None,
    augment: options.Augment = None,
    device: options.Device = "auto",
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
) -> None:
    """Describe the pictures of a data set that have no caption, for targets made of text.

    With --augment, also the pictures of that folder.
    """
    from backends.commands.augment import find_extra
    from backends.embedders.captions import Captioner, caption_stimuli
    from explorer.naming import named_path

    name, path, _ = named_path(dataset) if "=" in dataset else (dataset, None, {})
    if out is None:
        if path is None:
            raise UserError(
                f"The data set {name!r} has no folder of its own; name a file with --out FILE.csv."
            )
        place = Path(path).expanduser()
        out = (place if place.is_dir() else place.parent) / "captions.csv"
    _, bench = options.open_bench(dataset, checkpoints)
    study = bench.catalogue.dataset(name)
    captioner = Captioner(checkpoints, options.device(device), source=model or None)
    with telling() as say:
        count = caption_stimuli(study, captioner, out, say)
        if augment is not None:
            count += caption_stimuli(find_extra(augment, study, say), captioner, out, say)
    print(f"{count} captions  ->  {out}")
