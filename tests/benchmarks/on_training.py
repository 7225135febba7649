"""Ridge with a penalty of its own for every target, against himalaya's and scikit-learn's solvers.

The first part fits the same arrays (float32), penalties and folds by all of them, folds over
stimuli; what a solver defines otherwise stands in its line. The second part is of the size of a
subject of NSD, with betas that are made when they are read.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from on_models import Line, resident, seconds

TRIALS, VOXELS, TARGETS, NEW = 4_000, 6_000, 512, 500
FOLDS, ALPHAS = 5, tuple(np.logspace(1, 6, 6).tolist())
NSD_TRIALS, NSD_VOXELS, IMAGE, CONTEXT = 27_000, 15_724, 768, 77 * 768
WIDE = (2_000, 1_500)  # trials and voxels of the fit that measures memory for the widest target
CAUSES = 24  # dimensions of what pictures and betas have in common


def measure_training(checkpoints: Path, simulated: Path | None) -> list[Line]:
    """Return the lines of the training part; nothing that ships is looked at."""
    return [*against_others(), *wide(), *nsd_size()]


# ----------------------------------------------------------------------------------- other solvers


def against_others(
    trials: int = TRIALS, voxels: int = VOXELS, targets: int = TARGETS
) -> list[Line]:
    """Time all solvers on the same arrays, and compare their predictions of new trials."""
    import torch

    from backends.training.ridge_solver import grouped_folds, solve

    rng = np.random.default_rng(0)
    cause = rng.standard_normal((trials // 2, CAUSES))
    number = np.repeat(np.arange(len(cause)), 2)  # every picture was shown twice
    tuning, readout = rng.standard_normal((CAUSES, voxels)), rng.standard_normal((CAUSES, targets))
    fresh = rng.standard_normal((NEW, CAUSES))
    x, new = (
        (c @ tuning + 8 * rng.standard_normal((len(c), voxels))).astype(np.float32)
        for c in (cause[number], fresh)
    )
    mean, sd = x.mean(0), x.std(0)
    x, new = (x - mean) / sd, (new - mean) / sd
    error = np.geomspace(0.3, 300, targets) * rng.standard_normal((len(cause), targets))
    y = ((cause @ readout + error)[number] + 1).astype(np.float32)
    held_out = grouped_folds(number, FOLDS, 0)
    folds = [(np.setdiff1d(np.arange(trials), rows), rows) for rows in held_out]

    mine, (alpha, predicted) = seconds(lambda: ours(x, y, new, folds), 2)
    lines = [
        (
            f"ridge, {trials} x {voxels} -> {targets}, penalties 10 to 1e6 by tens, {FOLDS} folds "
            f"over {len(cause)} stimuli",
            f"{mine:.2f} s, {len(set(alpha.tolist()))} penalties chosen",
            "",
        )
    ]
    fastest, few = np.inf, slice(0, trials, trials // 50)
    for name, work in RIVALS.items():
        try:  # libraries are loaded before the clock starts
            work(x[few, :20], y[few, :2], new[:, :20], [(np.arange(25), np.arange(25, 50))])
        except ImportError as error:
            lines.append((name, f"not measured ({error}); pip install himalaya scikit-learn", ""))
            continue
        theirs, (their_alpha, their_predicted) = seconds(partial(work, x, y, new, folds), 1)
        fastest = min(fastest, theirs)
        wanted, agree = predicted, np.isclose(their_alpha, alpha, rtol=1e-3)
        if work is grid:
            one = torch.full((targets,), float(their_alpha[0]))
            weight, intercept = solve(torch.from_numpy(x), torch.from_numpy(y), one)
            wanted, agree = (torch.from_numpy(new) @ weight + intercept).numpy(), agree | True
        apart = np.abs(their_predicted - wanted)[:, agree].max() / wanted.std()
        lines.append(
            (
                f"{name}: ours takes this share of its time; largest difference of predictions, "
                "in their SD, where the penalty is the same",
                f"{theirs:.2f} s, {mine / theirs:.2f}x; {apart:.1g} ({agree.mean():.0%} of the "
                "targets)",
                "equal to 1e-3",
            )
        )
    lines.append(("ours over the fastest of them", f"{mine / fastest:.2f}x", "<= 1"))
    return lines


Fitted = tuple[np.ndarray, np.ndarray]  # penalties (targets,), predictions of new trials


def ours(x: np.ndarray, y: np.ndarray, new: np.ndarray, folds: list) -> Fitted:
    """Return our penalties and predictions."""
    import torch

    from backends.training.decomposition import decompose
    from backends.training.ridge_solver import cross_validate, solve

    parts, goals = decompose(torch.from_numpy(x)), torch.from_numpy(y)
    alpha = cross_validate(parts, goals, [rows for _, rows in folds], ALPHAS).alpha
    weight, intercept = solve(parts, goals, alpha)
    return alpha.numpy(), (torch.from_numpy(new) @ weight + intercept).numpy()


def himalayas(
    model: str, backend: str, x: np.ndarray, y: np.ndarray, new: np.ndarray, folds: list
) -> Fitted:
    """Return himalaya's penalties and predictions, chosen by squared error as ours are.

    All folds are of one size, so the mean over folds is that over trials.
    """
    from himalaya import kernel_ridge, ridge
    from himalaya.backend import set_backend
    from himalaya.scoring import l2_neg_loss

    used = set_backend(backend)
    given = {"alphas": np.array(ALPHAS, np.float32), "fit_intercept": True, "cv": folds}
    own = {"score_func": l2_neg_loss}
    if model == "kernel":
        fitted = kernel_ridge.KernelRidgeCV(**given, solver_params=own, warn=False)
    else:
        fitted = ridge.RidgeCV(**given, solver_params=own | {"warn": False})
    fitted.fit(used.asarray(x), used.asarray(y))
    predicted = used.to_numpy(fitted.predict(used.asarray(new)))
    alpha = used.to_numpy(fitted.best_alphas_)
    set_backend("numpy")
    return alpha, predicted


def leave_one_out(x: np.ndarray, y: np.ndarray, new: np.ndarray, folds: list) -> Fitted:
    """Return scikit-learn's penalties and predictions by its closed form for single trials."""
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(ALPHAS, alpha_per_target=True).fit(x, y)
    return model.alpha_, model.predict(new)


def grid(x: np.ndarray, y: np.ndarray, new: np.ndarray, folds: list) -> Fitted:
    """Return scikit-learn's penalty and predictions, chosen on the same folds for all targets."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(
        Ridge(), {"alpha": ALPHAS}, cv=folds, scoring="neg_mean_squared_error"
    ).fit(x, y)
    return np.full(y.shape[1], search.best_params_["alpha"]), search.predict(new)


RIVALS: Mapping[str, Callable[..., Fitted]] = {
    "himalaya KernelRidgeCV": partial(himalayas, "kernel", "numpy"),
    "himalaya KernelRidgeCV, torch": partial(himalayas, "kernel", "torch"),
    "himalaya RidgeCV": partial(himalayas, "ridge", "numpy"),
    "himalaya RidgeCV, torch": partial(himalayas, "ridge", "torch"),
    "scikit-learn RidgeCV (leaves out a trial, not a fold)": leave_one_out,
    "scikit-learn GridSearchCV of Ridge (one penalty for all)": grid,
}


# -------------------------------------------------------------------------------------- real sizes


def study(trials: int, voxels: int, targets: int) -> tuple[Any, dict]:
    """Return a subject's trials, made when they are read, and embeddings; shown three times."""
    import pandas as pd

    from backends.datasets.reading import LazyRows
    from explorer.types import EmbeddingSpace, Subject, Trials, VoxelSpace

    rng = np.random.default_rng(0)
    cause = rng.standard_normal((trials // 3 + 100, CAUSES), np.float32)
    tuning = rng.standard_normal((CAUSES, voxels), np.float32)
    number = np.concatenate([np.repeat(np.arange(trials // 3), 3), trials // 3 + np.arange(100)])

    def read(rows: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(int(rows[0])).standard_normal(
            (len(rows), voxels), np.float32
        )
        return cause[number[rows]] @ tuning + 8 * noise

    table = pd.DataFrame({"stimulus": [f"s{i}" for i in number], "repeat": 0, "session": 1})
    table["split"] = ["train"] * (len(number) - 100) + ["test"] * 100
    table["run"] = 1
    betas = LazyRows((len(number), voxels), read, "made up")
    who = Subject("made-up", "subj01", VoxelSpace(voxels, "made-up"))
    readout = rng.standard_normal((CAUSES, targets), np.float32)
    rows = cause @ readout + 4 * rng.standard_normal((len(cause), targets), np.float32)
    space = EmbeddingSpace("made-up", "wide", (targets,))
    embeddings = {space: {f"s{i}": row for i, row in enumerate(rows)}}
    return Trials(who, betas, "made up", table), embeddings


def forget_peak() -> float:
    """Begin a new measurement of the most resident memory, and return what is resident, in GB."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident()[0]


def wide(size: tuple[int, int] = WIDE, targets: int = CONTEXT) -> list[Line]:
    """Measure the memory of fitting, saving and loading the widest target, from fewer trials."""
    from backends.mappers.ridge import Ridge, bytes_needed
    from explorer.matching import split_hash
    from explorer.types import Card

    trials, embeddings = study(*size, targets)
    before, began = forget_peak(), time.perf_counter()
    mapper = Ridge.fit([trials], embeddings, seed=0, alphas=ALPHAS, folds=FOLDS)
    took, fitting = time.perf_counter() - began, resident()[1] - before
    weights = 4e-9 * size[1] * targets
    needed = bytes_needed(len(trials.rows("train")), size[1], targets, FOLDS) / 1e9
    card = Card(
        *("mapper", "ridge", "ridge", "made-up", "a benchmark", "CC0"),
        subjects=("subj01",),
        voxels={"subj01": (size[1], "made-up")},
        targets=tuple(embeddings),
        split_hash=split_hash(trials),
    )
    lines = [
        (
            f"ridge, {size[0]} x {size[1]} -> {targets}: memory beyond the embeddings, at most",
            f"{fitting:.2f} GB, foreseen {needed:.2f} GB; {took:.0f} s",
            "",
        )
    ]
    with tempfile.TemporaryDirectory(prefix="wide-") as folder:
        for half in (False, True):
            before = forget_peak()
            mapper.save_pretrained(Path(folder) / "ridge", card, half=half)
            saving = resident()[1] - before
            before = forget_peak()
            Ridge.from_pretrained(Path(folder) / "ridge")
            loading = resident()[1] - before
            lines.append(
                (
                    f"... saving and loading {'float16' if half else 'float32'}, memory beside "
                    f"what was there, in shares of its float32 weights ({weights:.2f} GB)",
                    f"{saving / weights:.1f} and {loading / weights:.1f}",
                    "",
                )
            )
    return lines


def nsd_size(trials: int = NSD_TRIALS, voxels: int = NSD_VOXELS) -> list[Line]:
    """Time a fit of NSD's size, and what each further target adds to it."""
    from backends.mappers import ridge
    from backends.training.goals import Columns
    from backends.training.ridge_solver import ALPHAS as ALL
    from backends.training.ridge_solver import cross_validate, grouped_folds

    held: list[Any] = []
    plain = ridge.decompose

    def decompose(voxels: Any) -> Any:
        began = time.perf_counter()
        held.extend([plain(voxels), time.perf_counter() - began])
        return held[0]

    one, embeddings = study(trials, voxels, IMAGE)
    before, began = forget_peak(), time.perf_counter()
    ridge.decompose = decompose
    try:
        mapper = ridge.Ridge.fit([one], embeddings, seed=0)
    finally:
        ridge.decompose = plain
    took, most = time.perf_counter() - began, resident()[1] - before
    parts, decomposing = held
    figures = mapper.metrics["subj01"]["made-up/wide"]
    stimuli = one.table["stimulus"].iloc[one.rows("train")].to_numpy()
    folds = grouped_folds(stimuli, 5, 0)
    each = []
    for targets in (IMAGE, IMAGE + 1024):
        goals = Columns(study(trials, 1, targets)[1], stimuli)
        began = time.perf_counter()
        cross_validate(parts, goals, folds, (1e3,))
        each.append(time.perf_counter() - began)
    context = took + len(ALL) * (each[1] - each[0]) / 1024 * (CONTEXT - IMAGE)
    needed = [ridge.bytes_needed(trials, voxels, d, 5) / 1e9 for d in (IMAGE, CONTEXT)]
    given = trials // 3 * CONTEXT * 4e-9
    return [
        (
            f"ridge, {trials} x {voxels} -> {IMAGE}, {len(ALL)} penalties, 5 folds",
            f"{took:.0f} s, of which {decomposing:.0f} s decomposing; held-out r "
            f"{figures['cv_correlation']:.2f}",
            "",
        ),
        ("... memory, at most", f"{most:.1f} GB, foreseen {needed[0]:.1f} GB", "< 16 GB"),
        (
            f"... -> {CONTEXT} by the time of 1,024 further targets; memory foreseen",
            f"{context / 3600:.1f} h; {needed[1]:.1f} GB and {given:.1f} GB of embeddings",
            "< 16 GB",
        ),
    ]
