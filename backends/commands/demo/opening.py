"""The stage that fills what the page opens on: a few trials with all that a person sees first."""

from __future__ import annotations

import json
import shutil

from backends import DATASETS, EMBEDDERS, ENCODERS, GENERATORS, MAPPERS
from backends.commands.demo.build import QUICK, Build
from backends.commands.reconstruct import keep_whole
from backends.training.counted import count
from explorer.choosing import default_request
from explorer.opening import LIST, SEED, TRIALS, drawn_trials
from explorer.store import Store
from explorer.types import UserError
from explorer.workbench import Workbench
from explorer.writing import write_whole

FOLDER = "opening"  # beside the study, in assets


def keep(build: Build) -> None:
    """Keep rank, map, pictures and badges of trials drawn at random; all are made anew."""
    folder, part = build.assets.parent / FOLDER, build.assets.parent / f".{FOLDER}.part"
    shutil.rmtree(part, ignore_errors=True)

    def fails(sentence: str) -> None:
        raise UserError(sentence)

    bench = Workbench(
        *(DATASETS, EMBEDDERS, MAPPERS, GENERATORS),
        checkpoints=build.checkpoints,
        paths={"simulated": build.assets},
        encoders=ENCODERS,
        device=build.device,
        store=Store(part, report=fails),
    )
    dataset, subject = "simulated", bench.catalogue.subjects("simulated")[0]
    gallery = list(bench.catalogue.gallery(dataset, subject).index)
    names = drawn_trials(gallery, 2 if build.sizes is QUICK else TRIALS)
    for number, name in enumerate(names, 1):
        keep_whole(bench, default_request(bench.catalogue, dataset, subject, stimulus=name))
        build.progress(count("opening", number, len(names), "trials", "kept"))
    told = {"dataset": dataset, "subject": subject, "seed": SEED, "stimuli": names}
    write_whole(part / LIST, json.dumps(told, indent=1).encode() + b"\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
