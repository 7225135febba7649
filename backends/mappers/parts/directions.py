"""Flows of both directions between two codes, and how they learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from backends.mappers.parts.coupling import ConditionalFlow
from backends.training.engine import train_network
from backends.training.plan import Course, History
from backends.training.rows import Batch, TrialRows

SUBJECT_SIZE = 8  # of a subject's learned vector
FAR = 8.0  # standard deviations; a sample further out is no example to learn from


class Directions(nn.Module):
    """Flows A and B of one target space, and the vectors of the subjects."""

    def __init__(
        self, size: int, code: int, subjects: Sequence[str], steps: int, hidden: int
    ) -> None:
        super().__init__()
        self.to_embedding = ConditionalFlow(size, code + SUBJECT_SIZE, steps, hidden)
        self.to_betas = ConditionalFlow(code, size + SUBJECT_SIZE, steps, hidden)
        self.subjects = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(SUBJECT_SIZE)) for name in subjects}
        )

    def given(self, code: torch.Tensor, subject: str) -> torch.Tensor:
        """Return a condition (n, ...): a code beside the subject's vector."""
        return torch.cat([code, self.subjects[subject].expand(len(code), -1)], dim=1)

    def given_each(self, code: torch.Tensor, subject: torch.Tensor) -> torch.Tensor:
        """Return conditions for rows of several subjects, by their position int (n,)."""
        vectors = torch.stack(list(self.subjects.values()))
        return torch.cat([code, vectors[subject]], dim=1)


class DirectionsLearner:
    """One space's codes and losses; ``x`` (stimuli, K) and ``y`` (samples, C)."""

    def __init__(
        self,
        flows: Directions,
        x: torch.Tensor,
        y: torch.Tensor,
        data: TrialRows,
        noise: float,
        cycle: float,
    ) -> None:
        self.flows, self.x, self.y, self.data = flows, x, y, data
        self.noise, self.cycle = noise, cycle

    def initialise(self, samples: np.ndarray) -> None:
        """Set both flows to the linear Gaussian of these samples int (n,)."""
        x, y = self.x[self.data.stimulus[samples]], self.y[samples]
        who = torch.from_numpy(self.data.subject[samples])
        self.flows.to_embedding.initialise(x, self.flows.given_each(y, who))
        self.flows.to_betas.initialise(y, self.flows.given_each(x, who))

    def set_base(self, samples: np.ndarray, seed: int) -> None:
        """Fit both flows' base to held-out samples int (n,); without any it stays 1."""
        if not len(samples):
            return
        x, y = self.x[self.data.stimulus[samples]], self.y[samples]
        who = torch.from_numpy(self.data.subject[samples])
        blur = [normal([seed, i], z.numel()).view_as(z) for i, z in enumerate((x, y))]
        flows = self.flows.eval()
        for flow, z, noise, given in (
            (flows.to_embedding, x, blur[0], y),
            (flows.to_betas, y, blur[1], x),
        ):
            flow.set_base(z + self.noise * noise, self.flows.given_each(given, who))

    def losses(self, batch: Batch) -> torch.Tensor:
        """Return each sample's loss (n,): nats per dimension, both directions, and the cycle.

        A validation batch has no cycle term, so that it measures the densities alone.
        """
        forth, back, device = self.flows.to_embedding, self.flows.to_betas, batch.device
        samples = torch.from_numpy(batch.samples)
        x = self.x[torch.from_numpy(self.data.stimulus[batch.samples])].to(device)
        y = self.y[samples].to(device)
        who = torch.from_numpy(self.data.subject[batch.samples]).to(device)
        size, code = x.shape[1], y.shape[1]
        numbers = 2 * (size + code) if batch.training and self.cycle else size + code
        drawn = batch.random(f"flow {size} {code}", (numbers,))
        drawn = torch.special.ndtri(drawn.clamp(1e-6, 1 - 1e-6))
        given_y, given_x = self.flows.given_each(y, who), self.flows.given_each(x, who)
        x_near = x + self.noise * drawn[:, :size]
        y_near = y + self.noise * drawn[:, size : size + code]
        loss = -forth.log_prob(x_near, given_y) / size - back.log_prob(y_near, given_x) / code
        if numbers == size + code:
            return loss
        with torch.no_grad():
            x_made = forth.inverse(drawn[:, -size - code : -code], given_y).clamp(-FAR, FAR)
            y_made = back.inverse(drawn[:, -code:], given_x).clamp(-FAR, FAR)
        again = back.log_prob(y_near, self.flows.given_each(x_made, who)) / code
        return loss - self.cycle * (
            again + forth.log_prob(x_near, self.flows.given_each(y_made, who)) / size
        )


def normal(seed: Sequence[int], n: int) -> torch.Tensor:
    """Return n standard normal numbers float32 (n,) that the seed alone decides."""
    drawn = np.random.default_rng(list(seed)).standard_normal(n, dtype=np.float32)
    return torch.from_numpy(drawn)


def learn(
    name: str,
    directions: nn.ModuleList,
    x: Sequence[torch.Tensor],
    y: Sequence[torch.Tensor],
    data: TrialRows,
    noise: float,
    cycle: float,
    course: Course,
    options: Mapping[str, Any],
) -> History:
    """Train the flows of every space, from the linear Gaussian on, and fit their bases.

    ``x`` and ``y``: per space the codes of stimuli (stimuli, K) and of samples (samples, C);
    ``noise`` and ``cycle`` as in `backends.mappers.flow.Flow.fit`, the others as in
    `backends.training.engine.train_network`.
    """
    learners = [
        DirectionsLearner(flows, x[i], y[i], data, noise, cycle)
        for i, flows in enumerate(directions)
    ]
    for learner in learners:
        learner.initialise(np.random.default_rng(course.seed).permutation(len(data))[:8192])
    history = train_network(
        name,
        directions,
        lambda part: {i: learner.losses(part) for i, learner in enumerate(learners)},
        lambda found, part: torch.stack([z.mean() for z in found.values()]).mean(),
        data,
        course,
        **options,
    )
    _, held_out = data.split(course.validation, course.seed)
    for learner in learners:
        learner.set_base(held_out, course.seed)
    return history
