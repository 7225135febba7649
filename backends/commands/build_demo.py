"""The command ``build-demo``: data, pocket models and mappers of the embedded study, from seeds.

On two cores the study, the pocket models and ridge take under 110 minutes, the mappers of the
other systems some 15 more, what belongs to the two harder subjects and the further test sets some
15 again, and ``--quick`` under 4 in all. Every stage resumes where it stopped;
a finished one is skipped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backends.commands import options
from backends.commands.progress import telling
from backends.training.plan import clock
from explorer.types import UserError, resolve

if TYPE_CHECKING:
    from backends.commands.demo.build import Build

ROOMS = "backends.commands.demo."
STAGES = {  # name -> "module:function" of a build, in order
    "data": ROOMS + "study:data",
    "clip": ROOMS + "pocket_clip:train",
    "autoencoder": ROOMS + "pocket_diffusion:autoencoder",
    "judge": ROOMS + "pocket_judge:train",
    "denoiser": ROOMS + "pocket_diffusion:denoiser",
    "solver": ROOMS + "pocket_solver:fit_steps",
    "adapters": ROOMS + "pocket_adapters:train",
    "mappers": ROOMS + "study:mappers",
    "systems": ROOMS + "study:systems",
    "encoding": ROOMS + "study:encoding",
    "harder-ridge": ROOMS + "study:harder_ridge",
    "harder-systems": ROOMS + "study:harder_systems",
    "parts": ROOMS + "study:parts",
    "evaluation": ROOMS + "study:tables",
    "opening": ROOMS + "opening:keep",
}


def build_demo(
    quick: Annotated[
        bool, typer.Option(help="Every step in under 4 minutes, for checking the build itself.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Run this stage alone (may be repeated).")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where assets/ and checkpoints/ are written; default: this repository."),
    ] = None,
    work: Annotated[
        Path, typer.Option(help="Where rendered pictures and resume files are kept.")
    ] = Path(".cache/build-demo"),
    device: options.Device = "auto",
) -> None:
    """Make the embedded study and its models again from seeds (about two hours on 2 cores)."""
    if quick and out is None:
        raise UserError("--quick makes untrained models; give --out FOLDER to keep the real ones.")
    from backends.commands.demo.build import FULL, QUICK, Build
    from backends.training.holding import holding

    out = out or options.ROOT
    with telling() as say:
        build = Build(
            QUICK if quick else FULL,
            assets=out / "assets" / "simulated",
            checkpoints=out / "checkpoints",
            work=work / "quick" if quick else work,
            device=options.device(device),
            command="python -m backends build-demo" + (" --quick" if quick else ""),
            progress=say,
        )
        with holding(build.work, work="build"):
            run(build, only=tuple(only or ()))


def run(build: Build, only: Sequence[str] = ()) -> None:
    """Run all stages in order, or those named in ``only``; each resumes where it stopped."""
    unknown = [stage for stage in only if stage not in STAGES]
    if unknown:
        raise UserError(f"There is no stage {unknown[0]!r}; choose from {', '.join(STAGES)}.")
    began = time.monotonic()
    for stage in only or STAGES:
        resolve(STAGES[stage])(build)
    build.progress(f"done in {clock(time.monotonic() - began)}")
