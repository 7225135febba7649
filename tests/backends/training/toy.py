"""For the tests of training: a small contrastive problem with planted maps, ridge fold by fold."""

import os
import signal

import numpy as np
import pandas as pd
import torch

from backends.training.engine import train_network
from backends.training.plan import Course
from backends.training.ridge_solver import solve
from backends.training.rows import TrialRows
from explorer.types import EmbeddingSpace, Subject, Trials, VoxelSpace

SPACE = EmbeddingSpace("toy", "vector", (4,))
VOXELS = {"sub-01": 6, "sub-02": 5}


class Rows:
    """Betas on demand that remember which rows were asked for."""

    def __init__(self, values):
        self.values, self.shape, self.asked = values, values.shape, []

    def __getitem__(self, rows):
        self.asked.append(np.asarray(rows))
        return self.values[rows]


def study(stimuli=40, repeats=2, noise=0.0):
    """Two subjects who saw the same stimuli; ``goal = betas @ truth`` but for noise.

    The last eight stimuli are test, and their betas are not numbers: nobody may look at them.
    """
    rng = np.random.default_rng(5)
    z = rng.standard_normal((stimuli, 4)).astype(np.float32)
    number = np.repeat(np.arange(stimuli), repeats)
    trials, truth = [], {}
    for name, v in VOXELS.items():
        spread, _ = np.linalg.qr(rng.standard_normal((v, 4)))
        betas = z[number] @ spread.T + noise * rng.standard_normal((len(number), v))
        truth[name] = torch.from_numpy(spread.astype(np.float32))
        table = pd.DataFrame({"stimulus": [f"s{i:02d}" for i in number], "session": 1, "run": 1})
        table["split"] = np.where(number < stimuli - 8, "train", "test")
        table["repeat"] = np.tile(np.arange(repeats), stimuli)
        betas[table["split"] == "test"] = np.nan
        subject = Subject("toy", name, VoxelSpace(v, f"hash-{name}"))
        trials.append(Trials(subject, Rows(betas.astype(np.float32)), "units", table))
    return trials, {SPACE: {f"s{i:02d}": row for i, row in enumerate(z)}}, truth


def problem_of(trials, targets, noise=0.0):
    """Return model, predict, loss and data of a small contrastive mapper with noisy inputs."""
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({name: torch.nn.Linear(v, 4) for name, v in VOXELS.items()})

    def predict(batch):
        parts = {}
        for name, betas in batch.betas.items():
            if batch.training and noise:
                betas = betas + noise * batch.random("noise", betas.shape[1:], name)
            parts[name] = {"z": model[name](betas)}
        return batch.merge(parts)

    def loss(found, batch):
        unit = torch.nn.functional.normalize(found["z"], dim=1)
        logits = unit @ torch.nn.functional.normalize(batch.goals[SPACE], dim=1).T / 0.2
        return torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)))

    return model, predict, loss, TrialRows(trials, targets)


def squares(found, batch):
    return (found["z"] - batch.goals[SPACE]).square().mean()


COURSE = Course(epochs=4, batch=16, lr=0.02, validation=0.2, patience=0, seed=3)


def recorded(course, run=None, kill_at=None, noise=0.3, trackers=(), **options):
    """Train the contrastive problem: its model, history, and the loss of every step it took."""
    trials, targets, _ = study(noise=0.3)
    model, predict, loss, data = problem_of(trials, targets, noise)
    losses = []

    def watched(found, batch):
        value = loss(found, batch)
        if batch.training:
            losses.append(float(value.detach()))
        if len(losses) == kill_at:
            (run / "state.part").write_bytes(b"cut short")  # as if it died while writing
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    history = train_network(
        "toy", model, predict, watched, data, course, run=run, trackers=trackers, **options
    )
    return model, history, losses


def same(one, other, **near):
    for key, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value, **near)


def fold_by_fold(voxels, goals, held_out, alphas):
    """Return squared errors (alphas, D) and predictions (alphas, n, D), fitted fold by fold."""
    predicted = torch.zeros(len(alphas), *goals.shape, dtype=goals.dtype)
    for rows in held_out:
        rest = np.setdiff1d(np.arange(len(goals)), rows)
        for a, alpha in enumerate(alphas):
            penalty = torch.full((goals.shape[1],), alpha, dtype=goals.dtype)
            weight, intercept = solve(voxels[rest], goals[rest], penalty)
            predicted[a, rows] = voxels[rows] @ weight + intercept
    return (predicted - goals).square().sum(1), predicted
