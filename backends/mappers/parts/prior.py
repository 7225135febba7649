"""The diffusion prior of DALL-E 2 as MindEye2 uses it: from a brain's tokens to an image's.

Ramesh et al. 2022, arXiv 2204.06125; lucidrains/DALLE2-pytorch, dalle2_pytorch.py. Every published
tensor has a place here of the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from explorer.types import UserError

SAMPLERS = ("ddim", "published")
LEVELS = 100  # of noise in the prior's diffusion, as published
BUCKETS, FARTHEST = 32, 128  # of distances between tokens, and where the last one begins (T5)
SHARPNESS = 16  # cosines of queries and keys are multiplied by it
ROTARY = 32  # at most so many numbers of a head are rotated by their position


class Gain(nn.Module):
    """LayerNorm with a gain and no bias; ``steady`` first divides by the largest number."""

    def __init__(self, size: int, steady: bool = False) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(size))
        self.steady = steady

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same shape."""
        if self.steady:
            x = x / x.amax(dim=-1, keepdim=True).detach()
        return functional.layer_norm(x, x.shape[-1:]) * self.g


class Attention(nn.Module):
    """Every token looks at all: many queries, one key and value, and one learned pair besides."""

    def __init__(self, width: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads, self.head_size = heads, head_size
        self.norm = Gain(width)
        self.besides = nn.Parameter(torch.randn(2, head_size))
        self.query = nn.Linear(width, heads * head_size, bias=False)
        self.key_value = nn.Linear(width, 2 * head_size, bias=False)
        self.out = nn.Linear(heads * head_size, width, bias=False)
        self.out_norm = Gain(width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return (n, N, width) for the same; ``bias`` (heads, N, N + 1) by distance."""
        n, count = x.shape[:2]
        x = self.norm(x)
        q = self.query(x).reshape(n, count, self.heads, self.head_size).transpose(1, 2)
        k, v = self.key_value(x).chunk(2, dim=-1)  # (n, N, head_size), shared by all heads
        q, k = rotate(q), rotate(k)
        k, v = (
            torch.cat([more.expand(n, 1, -1), z], dim=1)
            for more, z in zip(self.besides, (k, v), strict=True)
        )
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        scores = SHARPNESS * q @ k[:, None].mT + bias  # (n, heads, N, N + 1)
        found = scores.softmax(dim=-1) @ v[:, None]
        return self.out_norm(self.out(found.transpose(1, 2).flatten(2)))


class Gated(nn.Module):
    """The transformer's second half: a gated layer (SwiGLU, Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm = Gain(width)
        self.enter = nn.Linear(width, 2 * inner, bias=False)
        self.leave = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same shape."""
        x, gate = self.enter(self.norm(x)).chunk(2, dim=-1)
        return self.leave(x * functional.silu(gate))


class Prior(nn.Module):
    """Noisy tokens, the level of noise and what the brain gave -> the clean tokens (x0).

    A transformer over the brain's T tokens, one for the level and T noisy ones; the last T give
    the answer. The condition is never dropped while learning, because guidance is not used:
    MindEye2 too samples at scale 1. With ``adds`` the transformer gives only what the brain's
    tokens lack, and learning begins with nothing, so that few trials do no harm; the published
    one gives the whole.

    Parameters
    ----------
    tokens, size
        T and D of the space.
    width
        Of the transformer; D, as published, needs no layers into it.
    depth, heads, head_size, inner
        Layers, and what they are made of.
    adds
        See above.
    """

    def __init__(
        self,
        tokens: int,
        size: int,
        width: int,
        depth: int,
        heads: int,
        head_size: int,
        inner: int,
        adds: bool,
    ) -> None:
        super().__init__()
        self.tokens, self.size, self.width, self.adds = tokens, size, width, adds
        same = width == size
        self.enter_brain = nn.Identity() if same else nn.Linear(size, width)
        self.enter_noisy = nn.Identity() if same else nn.Linear(size, width)
        self.level = nn.Sequential(
            nn.Linear(width // 2 * 2, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, width),
        )
        self.position = nn.Parameter(torch.randn(tokens, width) * width**-0.5)
        self.distance = nn.Embedding(BUCKETS, heads)
        self.attentions = nn.ModuleList(Attention(width, heads, head_size) for _ in range(depth))
        self.gated = nn.ModuleList(Gated(width, inner) for _ in range(depth))
        self.norm = Gain(width, steady=True)
        self.leave = nn.Linear(width, size, bias=False)
        if adds:
            nn.init.zeros_(self.leave.weight)
        self.register_buffer("kept", noise_schedule(), persistent=False)

    def forward(
        self, noisy: torch.Tensor, level: torch.Tensor, brain: torch.Tensor
    ) -> torch.Tensor:
        """Return clean tokens (n, T, D) for noisy ones, levels (n,) and the brain's (n, T, D)."""
        half = self.width // 2
        rates = torch.exp(-math.log(10_000) / max(half - 1, 1) * torch.arange(half).to(noisy))
        angles = level.to(noisy)[:, None] * rates
        time = self.level(torch.cat([angles.sin(), angles.cos()], dim=-1))[:, None]
        noisy = self.enter_noisy(noisy) + self.position
        x = torch.cat([self.enter_brain(brain), time, noisy], dim=1)  # (n, 2 T + 1, width)
        bias = self.distance(buckets(x.shape[1]).to(x.device)).permute(2, 0, 1)
        for attention, gated in zip(self.attentions, self.gated, strict=True):
            x = attention(x, bias) + x
            x = gated(x) + x
        found = self.leave(self.norm(x[:, -self.tokens :]))
        return brain + found if self.adds else found

    def add_noise(
        self, clean: torch.Tensor, level: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """Return ``sqrt(a) clean + sqrt(1 - a) noise``, a the share kept at a level (n,)."""
        kept = self.kept[level][:, None, None]
        return kept.sqrt() * clean + (1 - kept).sqrt() * noise

    def sample(
        self, brain: torch.Tensor, steps: int, seed: int, sampler: str = "ddim"
    ) -> torch.Tensor:
        """Return tokens (n, T, D) for the brain's (n, T, D), differentiable to them.

        All noise is decided by ``seed`` and the same for all trials, so that a trial's answer is
        its own. "ddim" takes ``steps`` of DDIM without noise (Song et al. 2021): one step gives
        the expected embedding of that brain, since nearly pure noise says nothing; more steps come
        nearer to one possible embedding. "published" is `as_published`.
        """
        rng = np.random.default_rng(seed)

        def drawn() -> torch.Tensor:
            noise = rng.standard_normal((self.tokens, self.size)).astype(np.float32)
            return torch.from_numpy(noise).to(brain).expand_as(brain)

        if sampler == "published":
            return self.as_published(brain, steps, drawn)
        x = drawn()
        levels = np.linspace(LEVELS - 1, 0, steps + 1).round().astype(int)[:-1]
        for i, level in enumerate(levels):
            clean = self._clean(x, int(level), brain)
            if i + 1 == len(levels):
                break
            kept, later = self.kept[int(level)], self.kept[int(levels[i + 1])]
            noise = (x - kept.sqrt() * clean) / (1 - kept).sqrt()
            x = later.sqrt() * clean + (1 - later).sqrt() * noise
        return clean

    def as_published(
        self, brain: torch.Tensor, steps: int, drawn: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """Return tokens (n, T, D) as DALLE2-pytorch's prior and MindEye2's give them.

        Fewer steps than `LEVELS`: DDIM with eta 1, so that each step adds new noise, over levels
        spaced from -1. As there, ``steps`` levels make ``steps - 1`` steps, and a step is made by
        the shares kept one level before those by which its noise is told. `LEVELS` steps: DDPM,
        by the posterior's mean and variance. ``drawn`` gives noise (n, T, D) whenever it is asked.
        """
        x, before = drawn(), torch.cat([self.kept.new_ones(1), self.kept[:-1]])
        if steps == LEVELS:
            for level, clean_share, noisy_share, spread in _posterior():
                mean = clean_share * self._clean(x, level, brain) + noisy_share * x
                x = mean + spread * drawn() if level else mean
            return x
        levels = torch.linspace(-1.0, LEVELS, steps + 1)[:-1].int().tolist()[::-1]
        for level, later in zip(levels, levels[1:], strict=False):
            clean, kept = self._clean(x, level, brain), self.kept[level]
            if later < 0:
                return clean
            noise = (x / kept.sqrt() - clean) / (1 / kept - 1).sqrt()
            now, next_ = before[level], before[later]
            fresh = ((1 - now / next_) * (1 - next_) / (1 - now)).sqrt()
            x = clean * next_.sqrt() + (1 - next_ - fresh.square()).sqrt() * noise
            x = x + fresh * drawn() if later else x
        return x

    def _clean(self, x: torch.Tensor, level: int, brain: torch.Tensor) -> torch.Tensor:
        return self(x, torch.full((len(x),), level, device=x.device), brain)


def check_sampler(sampler: str, steps: int) -> None:
    """Refuse a sampler of the prior that is none, or steps that it cannot take."""
    if sampler not in SAMPLERS:
        raise UserError(f"The prior's sampler is {' or '.join(SAMPLERS)}, found {sampler!r}.")
    if sampler == "published" and not 2 <= steps <= LEVELS:
        raise UserError(
            f"The prior's published sampler takes 2 to {LEVELS} steps (published: 20), found "
            f"{steps}."
        )


def noise_schedule() -> torch.Tensor:
    """Return the share of a clean embedding's variance kept at each level, float32 (LEVELS,).

    The cosine schedule (Nichol & Dhariwal 2021, arXiv 2102.09672, with its 0.008).
    """
    return (1 - _betas()).cumprod(0).float()


def _betas() -> torch.Tensor:
    """Return the noise that each level adds, float64 (LEVELS,)."""
    x = torch.linspace(0, LEVELS, LEVELS + 1, dtype=torch.float64)
    kept = torch.cos((x / LEVELS + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - kept[1:] / kept[:-1]).clamp(0, 0.999)


def _posterior() -> Iterator[tuple[int, float, float, float]]:
    """Yield level, factors of clean and noisy tokens, and SD of DDPM's steps, noisiest first.

    The posterior q(x before | x, clean) of Ho et al. 2020, arXiv 2006.11239, eq. 7.
    """
    betas = _betas()
    kept = (1 - betas).cumprod(0)
    for level in reversed(range(LEVELS)):
        beta, later = float(betas[level]), float(kept[level])
        before = float(kept[level - 1]) if level else 1.0
        shares = beta * before**0.5, (1 - before) * (1 - beta) ** 0.5
        spread = (beta * (1 - before) / (1 - later)) ** 0.5
        yield level, shares[0] / (1 - later), shares[1] / (1 - later), spread


def rotary_rates(head_size: int) -> torch.Tensor:
    """Return the radians a position turns each pair of a head's first numbers (pairs,)."""
    size = min(ROTARY, head_size)
    return 10_000.0 ** (-torch.arange(0, size, 2)[: size // 2].float() / size)


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Return (..., N, head_size) with neighbouring pairs turned by their token's position.

    Rotary embeddings (Su et al. 2021, arXiv 2104.09864) of the first `ROTARY` numbers.
    """
    rates = rotary_rates(x.shape[-1]).to(x)
    angles = torch.arange(x.shape[-2]).to(x)[:, None] * rates  # (N, pairs)
    turned, rest = x[..., : 2 * len(rates)], x[..., 2 * len(rates) :]
    a, b = turned[..., 0::2], turned[..., 1::2]
    pairs = [a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()]
    return torch.cat([torch.stack(pairs, dim=-1).flatten(-2), rest], dim=-1)


def buckets(count: int) -> torch.Tensor:
    """Return int64 (count, count + 1): how far back each key lies, in T5's buckets.

    Distances up to 15 have their own, longer ones share by their logarithm; whatever lies ahead
    is in bucket 0. Keys have one more place, as the learned pair comes first.
    """
    back = (torch.arange(count)[:, None] - torch.arange(count + 1)[None]).clamp_min(0)
    own = BUCKETS // 2
    far = (back.clamp_min(1).float() / own).log() / math.log(FARTHEST / own) * (BUCKETS - own)
    return torch.where(back < own, back, (own + far.long()).clamp_max(BUCKETS - 1))
