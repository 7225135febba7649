"""How the mixer learns: where it begins, blends of trials (BiMixCo), and its losses together.

``mapper`` is a `backends.mappers.mixer.Mixer` everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from backends.mappers.parts.codes import ridge_codes
from backends.mappers.parts.learned import MEASURED, identified
from backends.mappers.parts.losses import bimixco, soft_clip
from backends.mappers.parts.prior import LEVELS
from backends.mappers.parts.trunk import LatentHead
from backends.training.plan import Course
from backends.training.rows import Batch, TrialRows
from explorer.types import EmbeddingSpace, UserError

LAYERS = ("ridge", "learned")
ANSWERS = ("contrastive", "regressed")
LEAST = {  # whole numbers from which sizes make sense
    **{"width": 1, "streams": 3, "hidden": 2, "blocks": 1},
    **{"prior_width": 16, "prior_depth": 1, "prior_steps": 1},
}
SKETCH = 256  # numbers to which a large space is folded before its principal components are taken
MIXED, BETA = 0.5, 0.15  # share of trials that BiMixCo mixes, and both numbers of its Beta


def check_settings(
    layers: str,
    answer: str,
    sizes: Mapping[str, int],
    weights: tuple[float, float, float],
    mix: float,
    temperatures: Sequence[float],
) -> None:
    """Refuse settings of `Mixer.fit` with which nothing can be learned."""
    if layers not in LAYERS:
        raise UserError(f"layers is {' or '.join(LAYERS)}, found {layers!r}.")
    if answer not in ANSWERS:
        raise UserError(f"answer is {' or '.join(ANSWERS)}, found {answer!r}.")
    for name, least in LEAST.items():
        if sizes[name] < least:
            raise UserError(f"{name} is a whole number from {least}, found {sizes[name]}.")
    regression, contrast, low_level = weights
    if min(weights) < 0 or not 0 <= mix <= 1:
        raise UserError(
            "regression, contrast and low_level are not below 0 and mix is a share from 0 to "
            f"1, found regression={regression:g}, contrast={contrast:g}, "
            f"low_level={low_level:g}, mix={mix:g}."
        )
    if len(temperatures) != 3 or min(temperatures) <= 0:
        raise UserError(
            "temperatures are three numbers above 0 (BiMixCo, SoftCLIP at its beginning, at "
            f"its end), found {', '.join(f'{t:g}' for t in temperatures) or 'none'}."
        )


@torch.no_grad()
def solve_layers(
    mapper: Any,
    data: TrialRows,
    folds: int,
    alphas: Sequence[float],
    seed: int,
    device: str,
    progress: Callable[[str], None] | None,
) -> torch.Tensor:
    """Set the subjects' layers; return each sample's code (samples, width) without itself."""
    coordinates = [mapper.coordinates(i) for i in range(len(mapper.targets))]
    sketch = sketch_of(data.goals, coordinates)
    goals = (sketch - mapper.axes_centre) @ mapper.axes.T  # (stimuli, width)
    statistics = {name: mapper.statistics(name) for name in data.trials}
    codes = torch.empty(len(data), goals.shape[1])
    for name, mine, weight, bias, unseen in ridge_codes(
        "Mixer", data, goals, statistics, folds, alphas, seed, device, progress
    ):
        layer = mapper.layers[f"of_{name}"]
        layer.weight.copy_(weight.T)
        layer.bias.copy_(bias)
        codes[torch.from_numpy(mine)] = unseen
    return codes


@torch.no_grad()
def begin_linear(mapper: Any, codes: torch.Tensor, data: TrialRows, course: Course) -> None:
    """Set the heads of tokens to the least squares from codes, where learning begins."""
    train, _ = data.split(course.validation, course.seed)
    inputs = mapper.shared(codes[torch.from_numpy(train)])
    centre = inputs.mean(0)
    away = inputs - centre
    gram = away.T @ away
    gram.diagonal().add_(1e-2 * gram.diagonal().mean())  # of codes that say nothing, nothing
    for i, (space, head) in enumerate(zip(mapper.targets, mapper.heads, strict=True)):
        if isinstance(head, LatentHead):
            continue
        middle, spread = mapper.coordinates(i)
        goals = ((data.goals[space] - middle) / spread).flatten(1)  # (stimuli, T D)
        number = torch.from_numpy(data.stimulus[train])
        sums = away.new_zeros(len(goals), away.shape[1]).index_add(0, number, away)
        weight = torch.linalg.solve(gram, sums.T @ goals)
        head.linear.weight.copy_(weight.T)
        share = torch.bincount(number, minlength=len(goals)) / len(number)
        head.linear.bias.copy_(share @ goals - centre @ weight)


def sketch_of(
    goals: Mapping[EmbeddingSpace, torch.Tensor],
    coordinates: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> torch.Tensor:
    """Return all spaces in standard coordinates side by side, large ones folded (stimuli, ...).

    Folding adds up numbers with random signs (count sketch, Charikar et al. 2002), which keeps
    distances nearly, costs no memory, and needs no matrix to be saved. Every space weighs alike.
    """
    parts = []
    for (space, z), (centre, spread) in zip(goals.items(), coordinates, strict=True):
        flat = ((z - centre) / spread).flatten(1) / space.size**0.5
        if space.size > SKETCH:
            rng = np.random.default_rng(space.size)
            places = torch.from_numpy(rng.integers(SKETCH, size=space.size))
            signs = torch.from_numpy(rng.choice([-1, 1], space.size)).to(flat)
            flat = flat.new_zeros(len(flat), SKETCH).index_add(1, places, flat * signs)
        parts.append(flat)
    return torch.cat(parts, dim=1)


@dataclass(eq=False)
class BlendsLearner:
    """Predictions and losses of a mixer in training.

    ``codes`` (samples, width) are fixed codes, or None where the layers learn; ``mix``,
    ``weights`` (of regression, contrast, low level) and ``temperatures`` as in `Mixer.fit`.
    """

    mapper: Any
    data: TrialRows
    course: Course
    codes: torch.Tensor | None
    mix: float
    weights: tuple[float, float, float]
    temperatures: tuple[float, ...]

    def __post_init__(self) -> None:
        """Find which samples may be blended into others: those of training, by subject."""
        train, _ = self.data.split(self.course.validation, self.course.seed)
        self.pools = [train[self.data.subject[train] == i] for i in range(len(self.data.trials))]
        self.mixing = round(self.mix * self.course.epochs)

    def predict(self, batch: Batch) -> dict[Any, torch.Tensor]:
        """Return (n, ...) per target number and kind: tokens, contrast, prior, or latents."""
        mapper, shares, partners = self.mapper, *self.mixture(batch)
        parts = {}
        for subject, places in batch.places.items():
            code = self._code(batch.samples[places], subject, batch.device)
            blended = np.flatnonzero(shares[places] < 1)
            if len(blended):
                other = self._code(partners[places][blended], subject, batch.device)
                share = torch.from_numpy(shares[places][blended]).to(code)[:, None]
                code = code.index_copy(
                    0,
                    torch.from_numpy(blended).to(batch.device),
                    share * code[blended] + (1 - share) * other,  # layers are linear: as betas
                )
            parts[subject] = {"code": code}
        shared = mapper.shared(batch.merge(parts)["code"])
        found: dict[Any, torch.Tensor] = {}
        for i, head in enumerate(mapper.heads):
            z = head(shared)
            if isinstance(head, LatentHead):
                found[i, "latents"] = z
                continue
            found[i, "tokens"] = z
            found[i, "contrast"] = head.project(z).flatten(1)
            if head.prior is None:
                continue
            drawn = batch.random(f"prior {i}", (1 + head.tokens * head.size,))
            noise = torch.special.ndtri(drawn[:, 1:].clamp(1e-6, 1 - 1e-6)).view_as(z)
            level = (drawn[:, 0] * LEVELS).long().clamp_max(LEVELS - 1)
            noisy = head.prior.add_noise(self._goals(i, batch.stimuli).view_as(z), level, noise)
            found[i, "prior"] = head.prior(noisy, level, z)
        return found

    def loss(self, found: Mapping[Any, torch.Tensor], batch: Batch) -> torch.Tensor:
        """Return the weighted losses, averaged over targets.

        A blend of two images counts for the regressions as far as one outweighs the other. A
        validation batch is judged by SoftCLIP at its last temperature, whatever the epoch.
        """
        shares, partners = self.mixture(batch)
        owned = torch.from_numpy(2 * shares - 1).float().to(batch.device)
        regression, contrast, low_level = self.weights
        losses = []
        for (i, kind), z in found.items():
            goals = self._goals(i, batch.stimuli)
            if kind == "contrast":
                losses.append(contrast * self._contrast(z, i, goals, shares, partners, batch))
            elif kind in ("tokens", "prior"):
                error = (z - goals.view_as(z)).square().flatten(1).mean(1)
                losses.append(regression * (owned * error).mean())
            else:
                error = (z - goals).abs().flatten(1).mean(1)
                losses.append(low_level * (owned * error).mean())
        return torch.stack(losses).sum() / len(self.mapper.targets)

    def measure(self, found: Mapping[Any, torch.Tensor], batch: Batch) -> dict[str, float]:
        """Return two-way identification of validation trials by the contrastive branch."""
        some = batch.stimuli[:MEASURED]
        return identified(
            (self.mapper.targets[i], z, self._goals(i, some))
            for (i, kind), z in found.items()
            if kind == "contrast"
        )

    @torch.no_grad()
    def set_gains(self) -> None:
        """Set the gains from held-out trials, or from all without any."""
        train, held_out = self.data.split(self.course.validation, self.course.seed)
        samples = held_out if len(held_out) else train
        sums: dict[int, float] = {}
        for begin in range(0, len(samples), self.course.batch):
            batch = Batch(self.data, samples[begin : begin + self.course.batch])
            for (i, kind), z in self.predict(batch).items():
                if kind == "contrast":
                    goals = self._goals(i, batch.stimuli).flatten(1)
                    along = float((functional.normalize(z, dim=1) * goals).sum())
                    sums[i] = sums.get(i, 0.0) + along
        for i, total in sums.items():
            # below 0 the mapper would be worse than the centre alone
            getattr(self.mapper, f"gain_{i}").fill_(max(total / len(samples), 1e-3))

    def mixture(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Return each sample's own share (n,), 0.5 to 1, and the sample it is blended with (n,).

        Shares are from a symmetric Beta, the larger one the sample's own; 1 where nothing is
        blended. They depend on sample and epoch alone, so that every process knows of all.
        """
        n = len(batch)
        if not batch.training or batch.epoch >= self.mixing:
            return np.ones(n), batch.samples
        from scipy.special import betaincinv

        chosen, share, partner = batch.random("mixco", (3,)).cpu().double().numpy().T
        share = betaincinv(BETA, BETA, share)
        pools = [self.pools[i] for i in self.data.subject[batch.samples]]
        partners = np.array(
            [pool[int(u * len(pool))] for pool, u in zip(pools, partner, strict=True)]
        )
        return np.where(chosen < MIXED, np.maximum(share, 1 - share), 1.0), partners

    def _contrast(
        self,
        z: torch.Tensor,
        i: int,
        goals: torch.Tensor,
        shares: np.ndarray,
        partners: np.ndarray,
        batch: Batch,
    ) -> torch.Tensor:
        predicted = functional.normalize(z, dim=1)
        first, begin, end = self.temperatures
        if not batch.training:
            return soft_clip(predicted, _unit(goals), end)
        if batch.epoch >= self.mixing:
            done = (batch.epoch - self.mixing) / max(1, self.course.epochs - self.mixing - 1)
            now = end + (begin - end) / 2 * (1 + np.cos(np.pi * done))
            return soft_clip(predicted, _unit(goals), float(now))
        share = torch.from_numpy(shares).to(z)
        other = torch.from_numpy(self.data.stimulus[partners]).to(batch.device)
        blended = share < 1
        seen = torch.cat([batch.stimuli, other[blended]])
        gallery, number = seen.unique(return_inverse=True)
        owned = z.new_zeros(len(z), len(gallery))
        rows = torch.arange(len(z), device=z.device)
        owned[rows, number[: len(z)]] = share
        owned.index_put_((rows[blended], number[len(z) :]), 1 - share[blended], accumulate=True)
        return bimixco(predicted, _unit(self._goals(i, gallery)), owned, first)

    def _code(self, samples: np.ndarray, subject: str, device: str | torch.device) -> torch.Tensor:
        if self.codes is not None:
            return self.codes[torch.from_numpy(samples)].to(device)
        once, back = np.unique(samples, return_inverse=True)  # files want each row once
        betas = Batch(self.data, once, device=device).betas[subject]
        return self.mapper.layer(betas, subject)[torch.from_numpy(back).to(device)]

    def _goals(self, i: int, stimuli: torch.Tensor) -> torch.Tensor:
        """Return true embeddings (n, ...) in standard coordinates, by the stimuli's numbers."""
        goals = self.data.goals[self.mapper.targets[i]][stimuli.cpu()].to(stimuli.device)
        centre, spread = (part.to(stimuli.device) for part in self.mapper.coordinates(i))
        return (goals - centre) / spread


def _unit(goals: torch.Tensor) -> torch.Tensor:
    return functional.normalize(goals.flatten(1), dim=1)
