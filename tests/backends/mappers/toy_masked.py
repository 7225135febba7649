"""Subjects with planted maps, and a small masked mapper, for the tests of masked modelling."""

import numpy as np
import pandas as pd

from explorer.types import Card, EmbeddingSpace, Subject, Trials, VoxelSpace

IMAGE = EmbeddingSpace("toy", "image", (24,), unit_norm=True)
TOKENS = EmbeddingSpace("toy", "tokens", (3, 4))
SIZES = {"patch": 4, "width": 16, "depth": 1, "heads": 2, "tuning": 8, "latents": 8}
SMALL = SIZES | {"decoder_width": 8, "pretrain_epochs": 1, "epochs": 1, "batch": 32}
VOXELS = {"sub-01": 30, "sub-02": 21}  # neither is a multiple of the patch
TEST = 30


def planted(train=60, noise=0.5, causes=4, seed=0, voxels=VOXELS):
    """Subjects with other training stimuli, the same test stimuli, and a map of their own."""
    rng = np.random.default_rng(seed)
    n = len(voxels) * train + TEST
    cause = rng.standard_normal((n, causes))
    image = cause @ rng.standard_normal((causes, 24)) + 1.0
    tokens = cause @ rng.standard_normal((causes, 12))
    names, trials = [f"s{i}" for i in range(n)], []
    for k, (name, count) in enumerate(voxels.items()):
        number = np.r_[k * train : (k + 1) * train, n - TEST : n]
        betas = cause[number] @ rng.standard_normal((causes, count)) / causes**0.5
        betas += noise * rng.standard_normal(betas.shape)
        table = pd.DataFrame({"stimulus": [names[i] for i in number], "session": 1, "run": 1})
        table["split"], table["repeat"] = ["train"] * train + ["test"] * TEST, 0
        subject = Subject("toy", name, VoxelSpace(count, f"hash-{k}"))
        trials.append(Trials(subject, (5 + 3 * betas).astype(np.float32), "units", table))
    targets = {IMAGE: image, TOKENS: tokens.reshape(n, 3, 4)}
    return trials, {
        s: dict(zip(names, z.astype(np.float32), strict=True)) for s, z in targets.items()
    }


def only(targets, *spaces):
    return {space: targets[space] for space in spaces}


def save(mapper, trials, folder):
    voxels = {t.subject.name: (t.subject.voxels.n_voxels, t.subject.voxels.hash) for t in trials}
    card = Card(
        *("mapper", "source", "masked", "toy", "test", "MIT"),
        subjects=mapper.subjects, voxels=voxels, targets=mapper.targets,
        metrics={"training": mapper.history},
    )  # fmt: skip
    mapper.save_pretrained(folder, card)
    return str(folder)
