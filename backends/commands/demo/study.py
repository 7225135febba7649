"""The stages around the study itself: its data, its mappers, its encoding models, their tables."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from backends import DATASETS, EMBEDDERS, GENERATORS, MAPPERS
from backends.commands.demo.build import LICENCE, QUICK, Build, device_name
from backends.datasets import simulated
from backends.datasets.simulated import Simulated
from backends.datasets.simulated_parts import GENERALISATION
from backends.embedders.pocket import PocketClip
from backends.embedders.store import embed_stimuli
from backends.encoders.voxelwise import train_encoding
from backends.generators.pocket import IMAGE
from backends.reports.mapper_tables import write
from backends.reports.mappers import compare
from backends.simulation.cortex import NCSNR_FACTOR, easier
from backends.training.mapper_training import train_mapper
from explorer.evidence import evaluation
from explorer.types import EmbeddingSpace, Trials, resolve
from explorer.workbench import Workbench

# The other four systems, one mapper of all subjects each: target layers of pocket-clip, settings.
# Narrow, so that all of them ship in a few megabytes.
SYSTEMS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "contrastive": (
        ("image", "text"),
        {"width": 128, "hidden": 128, "voxel_dropout": 0.5, "noise": 1.0, "epochs": 30},
    ),
    "flow": (("image",), {"epochs": 20}),
    "masked": (("image", "tokens", "context"), {"pretrain_epochs": 4, "epochs": 8}),
    "mixer": (("image", "tokens", "context"), {"epochs": 20, "hidden": 16}),
}
HARDER_SYSTEMS = ("contrastive", "mixer")  # of the two subjects at honest difficulty


def data(build: Build) -> None:
    """Write the simulated study; a finished one is left as it is."""
    if (build.assets / "dataset.json").exists():
        build.progress(f"data: {build.assets} is there already")
        return
    simulated.build(build.assets, build.progress, quick=build.quick)


def mappers(build: Build) -> None:
    """Fit a ridge from betas to pocket-clip/image for every subject."""
    study, embedder, embeddings = _embedded(build, ("image",))
    study.keep_embeddings(embeddings[IMAGE], IMAGE, embedder.fingerprint)
    for subject in easier(study.subjects()):
        train_one(build, "ridge", [study.load(subject)], embeddings, {})


def systems(build: Build) -> None:
    """Train the mappers of the other systems, each on the four subjects together (`SYSTEMS`)."""
    _systems(build, tuple(SYSTEMS), easier)


def encoding(build: Build) -> None:
    """Fit the encoding models, from pocket-clip's image embedding to each subject's betas."""
    _encoding(build, easier)


def harder_ridge(build: Build) -> None:
    """Fit ridge and encoding models of the subjects at honest difficulty."""
    study, _, embeddings = _embedded(build, ("image",))
    for subject in harder(study.subjects()):
        if not _is_there(build, "ridge", [subject]):
            train_one(build, "ridge", [study.load(subject)], embeddings, {})
    _encoding(build, harder)


def harder_systems(build: Build) -> None:
    """Train `HARDER_SYSTEMS` on the subjects at honest difficulty, each on both together."""
    _systems(build, HARDER_SYSTEMS, harder)


def parts(build: Build) -> None:
    """Keep the embeddings of the held-out pictures, so that they lie ready."""
    study = Simulated(build.assets, part=GENERALISATION, progress=build.progress)
    embedder = PocketClip(build.checkpoints, build.device)
    made = embed_stimuli(study, list(study.stimuli.index), embedder, IMAGE)
    study.keep_embeddings(made, IMAGE, embedder.fingerprint)


def harder(subjects: Iterable[str]) -> list[str]:
    """Return the subjects at honest difficulty."""
    return [subject for subject in subjects if subject in NCSNR_FACTOR]


def _embedded(
    build: Build, layers: Sequence[str]
) -> tuple[Simulated, PocketClip, dict[EmbeddingSpace, dict[str, np.ndarray]]]:
    """Return the study, and its stimuli's embeddings in some layers of pocket-clip."""
    study = Simulated(build.assets, progress=build.progress)
    embedder = PocketClip(build.checkpoints, build.device)
    spaces = {space.layer: space for space in (*embedder.spaces, *embedder.text_spaces)}
    stimuli = list(study.stimuli.index)
    return (
        study,
        embedder,
        {
            spaces[layer]: embed_stimuli(study, stimuli, embedder, spaces[layer], build.progress)
            for layer in layers
        },
    )


def _systems(
    build: Build, kinds: Sequence[str], whose: Callable[[Iterable[str]], list[str]]
) -> None:
    """Train mappers of some kinds (`SYSTEMS`) on some subjects together."""
    people = whose(Simulated(build.assets).subjects())
    kinds = [kind for kind in kinds if people and not _is_there(build, kind, people)]
    if not kinds:
        return
    layers = dict.fromkeys(layer for kind in kinds for layer in SYSTEMS[kind][0])
    study, _, embeddings = _embedded(build, tuple(layers))
    every = [study.load(subject) for subject in people]
    for kind in kinds:
        of, settings = SYSTEMS[kind]
        targets = {space: rows for space, rows in embeddings.items() if space.layer in of}
        if build.quick:
            settings = {k: 1 if "epochs" in k else v for k, v in settings.items()}
        train_one(build, kind, every, targets, settings)


def _encoding(build: Build, whose: Callable[[Iterable[str]], list[str]]) -> None:
    study, _, embeddings = _embedded(build, ("image",))
    for subject in whose(study.subjects()):
        card = train_encoding(
            study.load(subject),
            embeddings,
            build.checkpoints / "encoding" / "simulated" / subject,
            command=build.command,
            licence=LICENCE,
            half=True,
            progress=build.progress,
        )
        build.progress(f"encoding of {subject}: {card.metrics['test']}")


def _is_there(build: Build, kind: str, people: Sequence[str]) -> bool:
    """Return whether a mapper of these subjects is finished, and say so."""
    name = "-".join([kind, *people])
    there = (build.checkpoints / "mappers" / "simulated" / name / "card.json").is_file()
    if there:
        build.progress(f"{name} is there already")
    return there


def tables(build: Build) -> None:
    """Compare all mappers on the test trials of the four subjects: the tables on the page."""
    bench = Workbench(
        *(DATASETS, EMBEDDERS, MAPPERS, GENERATORS),
        checkpoints=build.checkpoints,
        paths={"simulated": build.assets},
        device=build.device,
    )
    limit = 24 if build.sizes is QUICK else None
    people = easier(Simulated(build.assets).subjects())
    found = compare(
        bench, "simulated", subjects=people, limit=limit, classes=True, progress=build.progress
    )
    folder = build.checkpoints / evaluation.FOLDER / "simulated"
    folder.mkdir(parents=True, exist_ok=True)
    for path in write(found, build.work / "evaluation"):
        if path.name in (evaluation.TABLE, evaluation.TRIALS, evaluation.MEANING):
            shutil.copyfile(path, folder / f"{path.name}.part")
            (folder / f"{path.name}.part").replace(folder / path.name)


def train_one(
    build: Build,
    kind: str,
    trials: Sequence[Trials],
    targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
    settings: Mapping[str, Any],
) -> None:
    """Train a mapper of some subjects and write its checkpoint."""
    name = "-".join([kind, *(one.subject.name for one in trials)])
    card = train_mapper(
        kind,
        resolve(MAPPERS[kind]),
        trials,
        targets,
        build.checkpoints / "mappers" / "simulated" / name,
        command=build.command,
        licence=LICENCE,
        device=device_name(build.device),
        half=True,
        progress=build.progress,
        run_on=build.device,
        trackers=(),
        **settings,
    )
    build.progress(f"{name}: {card.metrics['test']}")
