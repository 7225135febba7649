"""Images to betas: which voxels answer to which features, voxel by voxel, for one subject.

``betas = ((features - mean) * scale) @ weight * sd + intercept``, a ridge regression with its own
penalty for every voxel. The features are the embeddings of the shown image in one or several
spaces (several layers of a network side by side), as in Naselaris et al. 2011, NeuroImage 56:400.
It serves voxel selection, predicted brains, augmentation and brain guidance.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from backends.training.counted import prefixed
from backends.training.decomposition import decompose
from backends.training.goals import stack
from backends.training.holding import alone
from backends.training.machine import versions
from backends.training.ridge_solver import ALPHAS, cross_validate, grouped_folds, solve
from explorer.brain.predicted import correlation
from explorer.mapper import (
    ROWS_AT_ONCE,
    read_card,
    read_weights,
    training_statistics,
    write_checkpoint,
)
from explorer.matching import check_fits, split_hash
from explorer.metrics import bootstrap_interval, two_way_identification, varies
from explorer.types import Card, EmbeddingSpace, Trials, UserError

Embeddings = Mapping[EmbeddingSpace, Mapping[str, np.ndarray]]


class Encoding(torch.nn.Module):
    """A linear map from the embeddings of an image to one subject's betas.

    Parameters
    ----------
    subject
        Whose betas it predicts.
    n_voxels
        V, the number of that subject's voxels.
    spaces
        The spaces of its features, in the order in which they lie side by side.

    Attributes
    ----------
    weight
        (D, V), per standardised feature, in units of a voxel's standard deviation.
    intercept, voxel_sd
        (V,) in the data's own unit; the deviation is that of the training betas, 1 where a voxel
        never varies.
    feature_mean, feature_scale
        (D,); features are centred on the training trials, divided by their standard deviation,
        and those of a space together have the total variance ``D / spaces``, so that a layer of
        10,000 numbers does not outweigh one of 100.
    alpha
        (V,) the penalty of each voxel.
    correlation
        (V,) Pearson correlation between measured and predicted betas over all training trials,
        each predicted by a model that never saw its stimulus; -1 to 1, chance 0. The penalty was
        chosen on the same trials, which flatters a voxel slightly.
    """

    description = "ridge encoding model"

    def __init__(self, subject: str, n_voxels: int, spaces: Sequence[EmbeddingSpace]) -> None:
        super().__init__()
        self.subject, self.spaces = subject, tuple(spaces)
        self.card: Card | None = None
        size = sum(space.size for space in self.spaces)
        self.weight = torch.nn.Parameter(torch.zeros(size, n_voxels))
        self.intercept = torch.nn.Parameter(torch.zeros(n_voxels))
        for name, length in (
            *(("feature_mean", size), ("feature_scale", size)),
            *(("alpha", n_voxels), ("correlation", n_voxels), ("voxel_sd", n_voxels)),
        ):
            self.register_buffer(name, torch.zeros(length))

    def forward(self, embeddings: Mapping[EmbeddingSpace, torch.Tensor]) -> torch.Tensor:
        """Return betas (n, V) in the data's own unit for embeddings (n, ...) of every space.

        Differentiable; row i depends on image i alone.
        """
        return self._standardised(embeddings) @ self.weight * self.voxel_sd + self.intercept

    @torch.inference_mode()
    def predict(self, embeddings: Mapping[EmbeddingSpace, np.ndarray]) -> np.ndarray:
        """Return betas float32 (n, V) in the data's own unit, no gradient; see ``forward``."""
        given = {
            space: torch.as_tensor(np.asarray(z, np.float32), device=self.weight.device)
            for space, z in embeddings.items()
        }
        return self(given).cpu().numpy()

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation (V,) of the training betas; 1 where they are flat.

        The intercept is that mean, as the features are centred on the same trials.
        """
        return self.intercept.detach().cpu().numpy(), self.voxel_sd.cpu().numpy()

    def select_voxels(self, n: int) -> np.ndarray:
        """Return the columns int (n,), ascending, of the n voxels that it predicts best.

        Ranked by ``correlation``, which only training trials decide.
        """
        if not 1 <= n <= len(self.correlation):
            raise UserError(
                f"{self.subject} has {len(self.correlation)} voxels to select from, found n={n}; "
                f"choose 1 to {len(self.correlation)}."
            )
        best = np.argsort(-self.correlation.cpu().numpy(), kind="stable")[:n]
        return np.sort(best)

    @classmethod
    def fit(
        cls,
        trials: Trials,
        embeddings: Embeddings,
        *,
        seed: int,
        folds: int = 5,
        alphas: Sequence[float] = ALPHAS,
        device: str = "cpu",
        progress: Callable[[str], None] | None = None,
    ) -> Self:
        """Return the model of a subject's training trials, every trial a row of its own.

        Parameters
        ----------
        trials
            One subject's.
        embeddings
            Space -> stimulus -> embedding of the space's shape, for every training stimulus.
        seed
            Decides which stimuli form a fold; all trials of a stimulus are in one. Where train and
            test share stimuli (a study with too few, split by repeat), repeats form the folds.
        folds
            From 2 to the number of training stimuli (or repeats).
        alphas
            Penalties to choose from, positive.
        device
            Where to compute; the model returned is on the CPU.
        progress
            Called with one sentence a fold.
        """
        if not embeddings:
            raise UserError("An encoding model needs embeddings in at least one space, found 0.")
        if not len(alphas) or min(alphas) <= 0:
            raise UserError(f"alphas must be positive numbers, found {list(alphas)}.")
        who, rows = trials.subject.name, trials.rows("train")
        mean, sd = map(torch.from_numpy, training_statistics(trials))
        model = cls(who, trials.subject.voxels.n_voxels, tuple(embeddings))
        stimuli = trials.table["stimulus"].iloc[rows].to_numpy()
        shared = set(stimuli) & set(trials.stimuli("test"))
        groups = trials.table["repeat"].iloc[rows].to_numpy() if shared else stimuli
        held_out = grouped_folds(groups, folds, seed)
        features = {space: stack(space, embeddings[space], stimuli) for space in model.spaces}
        model._set_features(features)
        inputs = model._standardised(features).to(device)  # (n, D)
        goals = ((_training_betas(trials, rows) - mean) / sd).to(device)  # (n, V)
        say = prefixed(progress, f"Encoding for {who}") or (lambda sentence: None)
        parts = decompose(inputs)
        found = cross_validate(parts, goals, held_out, alphas, say)
        weight, intercept = solve(parts, goals, found.alpha)
        model.weight.data.copy_(weight)
        model.intercept.data.copy_(mean + sd * intercept.cpu())
        model.alpha.copy_(found.alpha)
        model.correlation.copy_(found.correlation)
        model.voxel_sd.copy_(sd)
        return model.eval()

    def save(self, folder: str | Path, card: Card, *, half: bool = False) -> None:
        """Write weights and card as a whole; ``half`` stores the weights (D, V) as float16."""
        exact = {name for name in self.state_dict() if name != "weight"}
        write_checkpoint(folder, self.state_dict(), card, half=half, exact=exact)
        self.card = read_card(folder)

    @classmethod
    def load(
        cls, folder: str | Path, trials: Trials | None = None, device: str | torch.device = "cpu"
    ) -> Self:
        """Return a checkpoint folder's model: float32, eval mode, weights without gradient.

        ``trials``: refuse a model that was made for other voxels or another split than these.
        """
        card = read_card(folder)
        if card.kind != "encoding" or len(card.subjects) != 1:
            raise UserError(
                f"{folder} holds a checkpoint of kind {card.kind!r} for {len(card.subjects)} "
                "subjects, expected 'encoding' for one."
            )
        if card.cls != "encoding":
            raise UserError(
                f"{folder} holds an encoding model of the kind {card.cls!r}, and a ridge encoding "
                "model is needed here; train one with: python -m backends train-encoding "
                "--dataset NAME=PATH"
            )
        if trials is not None:
            check_fits(card, trials)
        (subject,) = card.subjects
        model = cls(subject, card.voxels[subject][0], card.targets)
        model.load_state_dict(read_weights(folder, model.state_dict()))
        model.card = card
        return model.to(device).eval().requires_grad_(False)

    def _set_features(self, features: Mapping[EmbeddingSpace, torch.Tensor]) -> None:
        """Take mean and scale of the features from their training rows, float32 (n, size)."""
        means, scales = [], []
        total = sum(space.size for space in self.spaces)
        for space in self.spaces:
            rows = features[space].double()
            mean, sd = rows.mean(0), rows.std(0, correction=0)
            flat = ~varies(mean, sd)
            share = (total / len(self.spaces) / max(1, int((~flat).sum()))) ** 0.5
            means.append(mean)
            scales.append(torch.where(flat, 0, share / sd.clamp_min(1e-30)))
        self.feature_mean.copy_(torch.cat(means))
        self.feature_scale.copy_(torch.cat(scales))

    def _standardised(self, embeddings: Mapping[EmbeddingSpace, torch.Tensor]) -> torch.Tensor:
        """Return features (n, D): every space flat, side by side, centred and scaled."""
        columns = []
        for space in self.spaces:
            if space not in embeddings:
                raise UserError(
                    f"The encoding model for {self.subject} reads {space.name}, found "
                    f"{', '.join(s.name for s in embeddings) or 'nothing'}; embed the images in "
                    "that space too."
                )
            z = embeddings[space].flatten(1)
            if z.shape[1] != space.size:
                raise UserError(
                    f"An embedding in {space.name} has the shape {space.shape}, found "
                    f"{tuple(embeddings[space].shape[1:])} an image."
                )
            columns.append(z)
        return (torch.cat(columns, dim=1) - self.feature_mean) * self.feature_scale


@alone
def train_encoding(
    trials: Trials,
    embeddings: Embeddings,
    folder: Path,
    *,
    command: str,
    licence: str,
    seed: int = 0,
    half: bool = False,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
    **settings: Any,
) -> Card:
    """Fit one subject's encoding model, measure it, and write its checkpoint to ``folder``.

    ``embeddings`` covers the training stimuli, and the test stimuli for the figures on the card.
    On the card ``targets`` are the spaces of the features, and ``metrics`` has
    "cross-validation" (median, mean and 90th percentile of the voxels' correlations on single
    training trials) and "test" (`assess`). Returns the card.
    """
    subject = trials.subject
    began = time.monotonic()
    model = Encoding.fit(
        trials, embeddings, seed=seed, device=device, progress=progress, **settings
    )
    seconds = time.monotonic() - began
    r, alpha = model.correlation.numpy(), model.alpha.numpy()
    card = Card(
        kind="encoding",
        name="encoding",
        cls="encoding",
        dataset=subject.dataset,
        command=command,
        licence=licence,
        subjects=(subject.name,),
        voxels={subject.name: (subject.voxels.n_voxels, subject.voxels.hash)},
        targets=tuple(embeddings),
        split_hash=split_hash(trials),
        normalisation="training mean and standard deviation of each feature; betas as they are",
        settings={"seed": seed, **settings},
        metrics={
            "cross-validation": {
                "correlation": {
                    "median": round(float(np.median(r)), 4),
                    "mean": round(float(r.mean()), 4),
                    "90th percentile": round(float(np.quantile(r, 0.9)), 4),
                },
                "alpha": [float(v) for v in (alpha.min(), np.median(alpha), alpha.max())],
                "n": len(trials.rows("train")),
            },
            "test": assess(model, trials, embeddings),
        },
        seconds=round(seconds, 1),
        device=device,
        versions=versions("torch", "numpy"),
    )
    model.save(folder, card, half=half)
    return card


def assess(model: Encoding, trials: Trials, embeddings: Embeddings) -> dict[str, Any]:
    """Return how well the averaged test betas are predicted.

    "voxel correlation": Pearson over the N test stimuli, median over voxels that vary (higher is
    better, chance 0). "two-way identification": how often a predicted pattern correlates more
    with its own measured pattern than with another's, voxels in units of their training SD around
    the training mean, with its interval over stimuli; higher is better, chance 0.5 (after Kay et
    al. 2008, Nature 452:352, who identify one among all).
    """
    stimuli = [s for s in trials.stimuli("test") if all(s in e for e in embeddings.values())]
    if len(stimuli) < 3:
        return {"N": len(stimuli)}
    measured = np.stack([trials.average(s) for s in stimuli])
    known = np.isfinite(measured).all(axis=1)
    stimuli, measured = [s for s, ok in zip(stimuli, known, strict=True) if ok], measured[known]
    left_out = {"test stimuli left out, their betas are not finite": int((~known).sum())}
    left_out = {} if known.all() else left_out
    if len(stimuli) < 3:
        return {"N": len(stimuli)} | left_out
    given = {space: np.stack([embeddings[space][s] for s in stimuli]) for space in model.spaces}
    predicted = model.predict(given)
    r = correlation(predicted, measured)
    r = r[np.isfinite(r)]
    mean, sd = training_statistics(trials)
    each = two_way_identification((predicted - mean) / sd, (measured - mean) / sd, per_item=True)
    low, high = bootstrap_interval(each, seed=0)
    return {
        "voxel correlation": round(float(np.median(r)), 4) if r.size else None,
        "two-way identification": round(float(each.mean()), 4),
        "95 % interval over stimuli": [round(low, 4), round(high, 4)],
        "chance": 0.5,
        "N": len(stimuli),
    } | left_out


def _training_betas(trials: Trials, rows: np.ndarray) -> torch.Tensor:
    """Return the training betas float32 (n, V), read in blocks."""
    betas = torch.empty(len(rows), trials.subject.voxels.n_voxels)
    for i in range(0, len(rows), ROWS_AT_ONCE):
        block = np.asarray(trials.betas[rows[i : i + ROWS_AT_ONCE]], np.float32)
        betas[i : i + len(block)] = torch.from_numpy(block)
    return betas
