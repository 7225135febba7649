"""What train, search and train-encoding learn from: trials, embeddings and extra pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backends.commands import options
from backends.embedders.captions import read_captions
from backends.embedders.choice import make_embedders, read_sources, weights_of
from backends.embedders.store import embed_stimuli
from backends.training.plan import Progress
from backends.training.splits import make_split, needs_features
from explorer.naming import takes_split
from explorer.protocols import Dataset, Embedder
from explorer.splits import Split, read_split, resplit, shown, split_file, write_split
from explorer.types import EmbeddingSpace, Trials, UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench


class Asked(NamedTuple):
    """What the options of a command ask for: an open data set, and what is learned from it."""

    dataset: str
    bench: Workbench
    study: Dataset
    trials: dict[str, Trials]
    embeddings: dict[EmbeddingSpace, dict[str, np.ndarray]]
    notes: dict[str, Any]


def gather_asked(
    dataset: str,
    subjects: Sequence[str] | None,
    spaces: Sequence[str] | None,
    *,
    checkpoints: Path,
    device: str,
    embedders: Sequence[str] | None,
    captions: Path | None,
    cache: Path | None,
    augment: Path | None = None,
    split: str = "",
    progress: Progress | None = None,
) -> Asked:
    """Open a data set and return what the options of a command ask for; see `gather`.

    ``split`` names another than the data set's own; it is made where it was not yet.
    """
    name, bench = options.open_bench(dataset, checkpoints)
    study = bench.catalogue.dataset(name)
    trials = {
        one: bench.catalogue.trials(name, one) for one in options.people(bench, name, subjects)
    }
    if split:
        given = {"device": device, "captions": captions, "cache": cache, "progress": progress}
        given["sources"] = read_sources(embedders or [])
        found = find_split(split, study, trials, (spaces or options.SPACES)[0], checkpoints, given)
        trials = {who: resplit(one, found) for who, one in trials.items()}
    if bench.catalogue.test_only(name) and not any(len(t.rows("train")) for t in trials.values()):
        raise UserError(
            f"{name} is {study.title}, a further test set without training trials: train on the "
            f"data set that has these people's, and open {name} with the mapper that it gives."
        )
    return Asked(
        name,
        bench,
        study,
        *gather(
            study,
            trials,
            spaces or options.SPACES,
            checkpoints,
            device=device,
            sources=read_sources(embedders or []),
            captions=captions,
            cache=cache,
            augment=augment,
            progress=progress,
        ),
    )


def find_split(
    name: str,
    study: Dataset,
    trials: Mapping[str, Trials],
    space: str,
    checkpoints: Path,
    given: Mapping[str, Any],
) -> Split:
    """Return a split of a data set: the one that was made, else it is made and written.

    ``space`` names the features that clusters and distances are of; ``given`` is what `gather`
    takes beside (device, sources, captions, cache, progress).
    """
    said = next((one.split for one in trials.values() if one.split), "")
    if said:
        raise UserError(f"The data are open with the split {said!r} already; leave out --split.")
    if takes_split(type(study)):
        raise UserError(
            f"{study.name} has splits of its own; open it with --dataset {study.name}=PATH?split="
            f"{name} and leave out --split."
        )
    if split_file(checkpoints, study.name, name).is_file():
        return read_split(checkpoints, study.name, name)
    train, test = shown(list(trials.values()))
    features = None
    if needs_features(name):
        embeddings = gather(study, trials, [space], checkpoints, **given)[1]
        (known,) = embeddings.values()
        features = np.stack([known[stimulus] for stimulus in (*train, *test)])
    made = make_split(name, study.name, train, test, features, space)
    write_split(checkpoints, made)
    return made


def gather(
    study: Dataset,
    trials: Mapping[str, Trials],
    spaces: Sequence[str],
    checkpoints: Path,
    *,
    device: str = "cpu",
    sources: Mapping[str, str] | None = None,
    captions: Path | None = None,
    cache: Path | None = None,
    augment: Path | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Trials], dict[EmbeddingSpace, dict[str, np.ndarray]], dict[str, Any]]:
    """Return what a mapper learns from and towards: trials, embeddings, and notes for its card.

    Parameters
    ----------
    study, trials
        The data set, and subject -> trials of it.
    spaces
        Names of the targets.
    checkpoints, device, sources
        See `make_embedders`.
    captions
        A table written by `backends.embedders.captions`, for spaces of captions.
    cache
        A folder in which embeddings are kept, None keeps nothing.
    augment
        A folder of pictures that become synthetic training rows (`backends.commands.augment`).
    progress
        Called with sentences.
    """
    from backends.commands.augment import encoding_for, extend, find_extra

    makers = make_embedders(spaces, checkpoints, device, sources)
    said = {} if captions is None else read_captions(captions)
    extra = None
    encodings: dict[str, Any] = {}
    readers: dict[EmbeddingSpace, Embedder] = {}
    if augment is not None:
        encodings = {who: encoding_for(one, checkpoints) for who, one in trials.items()}
        read = {space.name: space for model in encodings.values() for space in model.spaces}
        others = [name for name in read if name not in {s.name for s in makers}]
        readers = make_embedders(others, checkpoints, device, sources)
        extra = find_extra(augment, study, progress)
        texts = [s.name for s, e in makers.items() if s in getattr(e, "text_spaces", ())]
        without = [name for name in extra.files if not said.get(name, "").strip()]
        if texts and without:
            raise UserError(
                f"{texts[0]} is made of captions, and {len(without)} of {len(extra.files)} "
                f"pictures in {augment} have none (first {without[0]!r}); write them with python "
                f"-m backends caption --dataset {study.name}=PATH --augment {augment} --model "
                "PATH_OR_ID and name that file with --captions, or choose spaces of pictures."
            )
    embeddings: dict[EmbeddingSpace, dict[str, np.ndarray]] = {space: {} for space in makers}
    for person, one in trials.items():
        stimuli = dict.fromkeys([*one.stimuli("train"), *one.stimuli("test")])
        for space, maker in makers.items():
            new = [s for s in stimuli if s not in embeddings[space]]
            if progress:
                progress(f"{person}: {len(new)} stimuli to embed in {space.name}")
            embeddings[space] |= embed_stimuli(
                *(study, new, maker, space, progress), captions=said, cache=cache
            )
    notes: dict[str, Any] = {}
    if weights := weights_of(makers):
        notes["embedders"] = weights
    if extra is None:
        return dict(trials), embeddings, notes
    names = list(extra.files)
    features = {
        space: embed_stimuli(extra, names, maker, space, progress, captions=said, cache=cache)
        for space, maker in {**makers, **readers}.items()
    }
    for space, known in embeddings.items():
        known |= features[space]
    notes["augmentation"] = extra.told()
    more = {who: extend(one, encodings[who], features, names) for who, one in trials.items()}
    return more, embeddings, notes
