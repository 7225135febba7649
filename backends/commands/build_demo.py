"""Builds everything the embedded study needs, from seeds: data, pocket models, mappers.

``python -m backends build-demo``. On two cores the study, the pocket models and ridge take under
110 minutes, the mappers of the other systems some 15 more, and ``--quick`` under 4 in all. Every
stage resumes where it stopped; a finished one is skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from backends.commands.demo import (
    pocket_adapters,
    pocket_clip,
    pocket_diffusion,
    pocket_judge,
    study,
)
from backends.commands.demo.build import Build
from backends.training.plan import clock
from explorer.types import UserError

STAGES: dict[str, Callable[[Build], None]] = {
    "data": study.data,
    "clip": pocket_clip.train,
    "autoencoder": pocket_diffusion.autoencoder,
    "judge": pocket_judge.train,
    "denoiser": pocket_diffusion.denoiser,
    "adapters": pocket_adapters.train,
    "mappers": study.mappers,
    "systems": study.systems,
    "encoding": study.encoding,
    "evaluation": study.tables,
}


def run(build: Build, only: Sequence[str] = ()) -> None:
    """Run all stages in order, or those named in ``only``; each resumes where it stopped."""
    unknown = [stage for stage in only if stage not in STAGES]
    if unknown:
        raise UserError(f"There is no stage {unknown[0]!r}; choose from {', '.join(STAGES)}.")
    began = time.monotonic()
    for stage in only or STAGES:
        STAGES[stage](build)
    build.progress(f"done in {clock(time.monotonic() - began)}")
