"""Conditional flows of coupling layers (RealNVP, Dinh et al. 2017, arXiv 1605.08803).

With ActNorm (Kingma & Dhariwal 2018, arXiv 1807.03039). The layers are our own: a conditional
RealNVP of zuko has no ActNorm, so the library would replace forty lines and add a dependency.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from backends.training.ridge_solver import solve

LOG_SCALE = 5.0  # bound of a coupling's log-scale, as in system 1
TAILS = (3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)  # tried for the base


class ActNorm(nn.Module):
    """``z = (x - centre) * exp(log_scale)``, set from the first batch that it sees in training.

    Whether that has happened is a buffer, so that a loaded flow never sets itself again.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.zeros(size))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return z (n, D) and log abs det of the Jacobian, a scalar."""
        if self.training and not self.initialised:
            with torch.no_grad():
                self.centre.copy_(x.mean(0))
                self.log_scale.copy_(-x.std(0, correction=0).clamp_min(1e-3).log())
                self.initialised.fill_(True)
        return (x - self.centre) * self.log_scale.exp(), self.log_scale.sum()

    def inverse(self, z: torch.Tensor) -> torch.Tensor:
        """Return x (n, D)."""
        return z * (-self.log_scale).exp() + self.centre


class Coupling(nn.Module):
    """``b -> b * exp(s) + t`` for the second half b; s and t are nets of the first half and c."""

    def __init__(self, size: int, given: int, hidden: int) -> None:
        super().__init__()
        self.kept = size // 2
        self.net = nn.Sequential(
            nn.Linear(self.kept + given, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 2 * (size - self.kept)),
        )
        nn.init.zeros_(self.net[-1].weight)  # learning begins at the identity
        nn.init.zeros_(self.net[-1].bias)

    def _maps(self, a: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s, t = self.net(torch.cat([a, c], dim=1)).chunk(2, dim=1)
        return LOG_SCALE * torch.tanh(s / LOG_SCALE), t

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return z (n, D) and log abs det of the Jacobian (n,)."""
        a, b = x[:, : self.kept], x[:, self.kept :]
        s, t = self._maps(a, c)
        return torch.cat([a, b * s.exp() + t], dim=1), s.sum(dim=1)

    def inverse(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Return x (n, D)."""
        a, b = z[:, : self.kept], z[:, self.kept :]
        s, t = self._maps(a, c)
        return torch.cat([a, (b - t) * (-s).exp()], dim=1)


class ConditionalFlow(nn.Module):
    """``x -> z`` invertible for every condition c, z standard normal while it learns.

    First a linear prediction of x from c is taken away (which changes no volume), then come
    ``steps`` times ActNorm, a fixed permutation, and a coupling. Permutations come in pairs, a
    random one and a swap of the halves, so that each pair transforms every dimension. Last, z is
    divided by ``base`` and follows a multivariate t distribution of ``tails`` degrees of freedom
    (0: a normal one). Held-out trials decide both numbers: nets are surer of the trials that they
    learned from than of new ones, and too sure of some more than of others.
    """

    def __init__(self, size: int, given: int, steps: int, hidden: int) -> None:
        super().__init__()
        self.size = size
        self.linear = nn.Linear(given, size)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.norms = nn.ModuleList(ActNorm(size) for _ in range(steps))
        self.couplings = nn.ModuleList(Coupling(size, given, hidden) for _ in range(steps))
        self.register_buffer("base", torch.ones(()))
        self.register_buffer("tails", torch.zeros(()))
        for i in range(steps):
            order = (torch.arange(size) + size // 2) % size if i % 2 else torch.randperm(size)
            self.register_buffer(f"order_{i}", order)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return z (n, D) and log abs det of dz/dx (n,) for x (n, D) and conditions c (n, C)."""
        z, total = x - self.linear(c), x.new_zeros(len(x))
        for i, (norm, coupling) in enumerate(zip(self.norms, self.couplings, strict=True)):
            z, volume = norm(z)
            z, more = coupling(z[:, getattr(self, f"order_{i}")], c)
            total = total + volume + more
        return z / self.base, total - self.size * self.base.log()

    def inverse(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Return x (n, D) for z (n, D) and conditions c (n, C)."""
        z = z * self.base
        for i in reversed(range(len(self.norms))):
            z = self.couplings[i].inverse(z, c)
            z = self.norms[i].inverse(z[:, getattr(self, f"order_{i}").argsort()])
        return z + self.linear(c)

    def log_prob(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Return log p(x | c) in nats (n,)."""
        z, volume = self(x, c)
        return volume + base_log_prob(z, self.tails)

    def draw(self, seed: Sequence[int], n: int = 1) -> torch.Tensor:
        """Return n draws of the base, float32 (n, D), that the seed alone decides."""
        rng = np.random.default_rng(list(seed))
        z = rng.standard_normal((n, self.size), dtype=np.float32)
        if self.tails:
            tails = float(self.tails)
            z /= np.sqrt(rng.chisquare(tails, (n, 1)) / tails).astype(np.float32)
        return torch.from_numpy(z)

    @torch.no_grad()
    def initialise(self, x: torch.Tensor, c: torch.Tensor) -> None:
        """Begin as the best linear Gaussian: least squares from c to x, then ActNorms set."""
        weight, bias = solve(c, x, torch.ones(self.size).to(x))
        self.linear.weight.copy_(weight.T)
        self.linear.bias.copy_(bias)
        training = self.training
        self.train()(x, c)
        self.train(training)

    @torch.no_grad()
    def set_base(self, x: torch.Tensor, c: torch.Tensor) -> None:
        """Fit the base to held-out rows: the likeliest ``tails``, and its width by the median.

        ``|z|^2 / D`` of a multivariate t distribution follows F(D, tails), whose median the width
        matches. The mean, which would be the likelihood's, a few rows far out would decide.
        """
        from scipy.stats import chi2, f

        z, _ = self(x, c)
        z = z * self.base
        middle = float(z.square().sum(dim=1).median())
        best = -math.inf
        for tails in (0, *TAILS):
            expected = self.size * f.median(self.size, tails) if tails else chi2.median(self.size)
            width = math.sqrt(middle / expected)
            found = base_log_prob(z / width, torch.tensor(float(tails))).mean().item()
            found -= self.size * math.log(width)
            if found > best:
                best = found
                self.base.fill_(width)
                self.tails.fill_(tails)


def base_log_prob(z: torch.Tensor, tails: torch.Tensor) -> torch.Tensor:
    """Return log p(z) (n,) of a normal (``tails`` 0) or t distribution of unit scale, z (n, D)."""
    size, squares = z.shape[1], z.square().sum(dim=1)
    if not tails:
        return -0.5 * (squares + size * math.log(2 * math.pi))
    half = (tails + size) / 2
    constant = torch.lgamma(half) - torch.lgamma(tails / 2) - size / 2 * (tails * math.pi).log()
    return constant - half * (squares / tails).log1p()
