"""Two conditional flows: the density of an image's embedding given betas, and the reverse.

After system 1 (NCC): conditional RealNVPs (Dinh et al. 2017, arXiv 1605.08803) with ActNorm
(Kingma & Dhariwal 2018, arXiv 1807.03039). For each target space:

- *embedding code* x (K,): the embedding's principal components over training stimuli, whitened,
  with a little noise added while learning, so that the density is proper on a sphere and on a
  finite set of images;
- *betas code* y (C,): a linear map of a subject's standardised betas, the ridge prediction of x,
  whitened. Subjects thereby share one space, and the flows are shared;
- flow A: p(x | y), flow B: p(y | x), both also given a small learned vector of the subject.

The linear maps are solved, not descended to, and the flows learn from codes that are honest: each
training trial's comes from the map of all other stimuli. A code fitted to the very trial would
look better than that of a new one, and the densities would be too narrow.

The layers are our own: a conditional RealNVP of zuko has no ActNorm, so the library would replace
forty lines and add a dependency.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from backends.training.engine import train_network
from backends.training.plan import Course
from backends.training.ridge_solver import (
    ALPHAS,
    cross_validate,
    decompose,
    grouped_folds,
    leave_out,
    solve,
)
from backends.training.rows import Batch, TrialRows
from explorer.mapper import (
    ROWS_AT_ONCE,
    Mapper,
    read_card,
    training_statistics,
    write_checkpoint,
)
from explorer.types import Card, EmbeddingSpace, Trials, UserError

SUBJECT_SIZE = 8  # of a subject's learned vector
LOG_SCALE = 5.0  # bound of a coupling's log-scale, as in system 1
FAR = 8.0  # standard deviations; a sample further out is no example to learn from
TAILS = (3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)  # tried for the base
LEAST = 1e-4  # of the largest variance; directions of the betas code below it hold only rounding


# ------------------------------------------------------------------------------------------ layers


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


# ------------------------------------------------------------------------------------------ mapper


class Flow(Mapper):
    """Betas -> density of the embedding, samples of it, and a central estimate; and back.

    ``forward`` is flow A's image of z = 0, the base's mean: deterministic, differentiable, and the
    conditional mean exactly where the conditional density is Gaussian. ``history`` tells how the
    training went; ``metrics`` describes each space for the card.

    Parameters
    ----------
    targets, voxels
        As in `Mapper`.
    sizes
        For each target, the dimensions of its embedding code and of its betas code.
    steps, hidden
        Coupling layers of a flow, and width of their nets.
    noise
        Standard deviation of the noise in whitened codes with which the densities were learned.
    """

    joint = True  # several subjects make one mapper

    def __init__(
        self,
        targets: Sequence[EmbeddingSpace],
        voxels: Mapping[str, int],
        sizes: Sequence[Sequence[int]],
        steps: int = 6,
        hidden: int = 128,
        noise: float = 0.05,
    ) -> None:
        sizes = [[int(k) for k in pair] for pair in sizes]
        super().__init__(targets, voxels, sizes=sizes, steps=steps, hidden=hidden, noise=noise)
        self.noise = noise
        self.metrics: dict[str, Any] = {}
        self.history: dict[str, Any] = {}
        self.directions = nn.ModuleList()
        for i, (space, (size, code)) in enumerate(zip(self.targets, sizes, strict=True)):
            self.directions.append(Directions(size, code, self.subjects, steps, hidden))
            self.register_buffer(f"centre_{i}", torch.zeros(space.size))
            self.register_buffer(f"axes_{i}", torch.zeros(size, space.size))  # orthonormal rows
            self.register_buffer(f"spread_{i}", torch.ones(size))
            for subject, v in voxels.items():
                shapes = {"encode": (v, code), "encode_bias": (code,)}
                shapes |= {"decode": (code, v), "decode_bias": (v,)}
                for name, shape in shapes.items():
                    parameter = nn.Parameter(torch.zeros(shape))
                    self.register_parameter(f"{name}_{subject}_{i}", parameter)

    # ------------------------------------------------------------------------------ what it offers

    def forward(self, betas: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return raw embeddings (n, ...) per target for betas (n, V) in the data's own unit.

        What principal components left out stays at the training mean.
        """
        found = {}
        for i, space in enumerate(self.targets):
            flow = self.directions[i].to_embedding
            given = self._given_betas(betas, subject, i)
            middle = flow.inverse(given.new_zeros(len(given), flow.size), given)
            found[space] = self._embedding(middle, i)
        return found

    def log_prob(
        self,
        betas: torch.Tensor,
        embedding: torch.Tensor,
        subject: str,
        *,
        space: EmbeddingSpace | None = None,
    ) -> torch.Tensor:
        """Return log p(embedding | betas) in nats (n,), differentiable to both.

        The density is that of the embedding's coordinates along its K orthonormal principal axes,
        in the space's own unit, and of embeddings blurred by the training noise; what lies outside
        the axes is not judged. It was learned on single trials: averages over repeats say more
        than it takes them to say. Higher is more likely; values of different spaces, or of
        different K, do not compare.

        Parameters
        ----------
        betas
            (n, V) in the data's own unit.
        embedding
            (n, ...) raw, one a trial.
        space
            One of ``targets``; the first by default.
        """
        i = self._position(space)
        given = self._given_betas(betas, subject, i)
        code = self._code(embedding, i)
        volume = getattr(self, f"spread_{i}").log().sum()
        return self.directions[i].to_embedding.log_prob(code, given) - volume

    def log_prob_betas(
        self,
        betas: torch.Tensor,
        embedding: torch.Tensor,
        subject: str,
        *,
        space: EmbeddingSpace | None = None,
    ) -> torch.Tensor:
        """Return log p(betas' code | embedding) in nats (n,): flow B, arguments as `log_prob`."""
        i = self._position(space)
        flow = self.directions[i]
        given = flow.given(self._code(embedding, i), subject)
        return flow.to_betas.log_prob(self.betas_code(betas, subject, space=space), given)

    @torch.inference_mode()
    def sample(
        self,
        betas: torch.Tensor,
        subject: str,
        n: int,
        *,
        seed: int = 0,
        space: EmbeddingSpace | None = None,
    ) -> torch.Tensor:
        """Return n samples of the embedding for each trial, raw, (B, n, ...).

        Sample s of every trial comes from the same draw of the base, decided by ``seed`` and s
        alone: a trial's samples do not depend on the trials beside it, nor on n.
        """
        if n < 1:
            raise UserError(f"Ask for 1 sample or more of each trial, found n={n}.")
        i = self._position(space)
        flow = self.directions[i].to_embedding
        given = self._given_betas(betas, subject, i)
        draws = torch.cat([flow.draw([seed, s]) for s in range(n)]).to(given)
        codes = flow.inverse(draws.repeat(len(given), 1), given.repeat_interleave(n, dim=0))
        return self._embedding(codes, i).unflatten(0, (len(given), n))

    def predict_betas(
        self, embedding: torch.Tensor, subject: str, *, space: EmbeddingSpace | None = None
    ) -> torch.Tensor:
        """Return betas (n, V) in the data's own unit for raw embeddings (n, ...), differentiable.

        Flow B's image of z = 0, taken to the voxels by a ridge regression on it.
        """
        mean, sd = self.statistics(subject)
        i = self._position(space)
        standard = self._middle_betas(self._code(embedding, i), subject, i)
        weight, bias = (getattr(self, f"{k}_{subject}_{i}") for k in ("decode", "decode_bias"))
        return (standard @ weight + bias) * sd + mean

    @torch.inference_mode()
    def density_rank(
        self,
        betas: torch.Tensor,
        embedding: torch.Tensor,
        subject: str,
        n: int = 99,
        *,
        seed: int = 0,
        space: EmbeddingSpace | None = None,
    ) -> np.ndarray:
        """Return for each trial the rank of the true embedding's density among n samples'.

        float64 (B,) in (0, 1): (samples that are less likely + a uniform number) / (n + 1).
        Uniform over trials where the densities are right; near 0, the truth lies where the flow
        expects nothing (too narrow); near 1, the flow is too wide. The truth is blurred by the
        training noise, as the samples are. Draws differ from trial to trial, so that ranks of
        different stimuli are independent.
        """
        i = self._position(space)
        flow = self.directions[i].to_embedding
        given = self._given_betas(betas, subject, i)
        blur = torch.stack([_normal([seed, 0, b], flow.size) for b in range(len(given))])
        truth = flow.log_prob(self._code(embedding, i) + self.noise * blur.to(given), given)
        ranks = np.empty(len(given))
        for b in range(len(given)):
            z = flow.draw([seed, 1, b], n).to(given)
            rows = given[b].expand(n, -1)
            others = flow.log_prob(flow.inverse(z, rows), rows)
            ranks[b] = int((others < truth[b]).sum())
        return (ranks + np.random.default_rng([seed, 2]).random(len(ranks))) / (n + 1)

    def betas_code(
        self, betas: torch.Tensor, subject: str, *, space: EmbeddingSpace | None = None
    ) -> torch.Tensor:
        """Return the betas' code (n, C) for a target space, of unit variance over trials."""
        i, voxels = self._position(space), self.standardise(betas, subject)
        weight, bias = (getattr(self, f"{k}_{subject}_{i}") for k in ("encode", "encode_bias"))
        return voxels @ weight + bias

    def save_pretrained(self, folder: str | Path, card: Card, *, half: bool = False) -> None:
        """Write weights and card as `Mapper` does; whitening also stays exact with ``half``."""
        kinds = ("mean_", "sd_", "centre_", "spread_")
        exact = {name for name in self.state_dict() if name.startswith(kinds)}
        state = self.state_dict()
        write_checkpoint(
            folder, state, card, half=half, exact=exact, architecture=self.architecture
        )
        self.card = read_card(folder)

    # ------------------------------------------------------------------------------------ learning

    @classmethod
    def fit(
        cls,
        trials: Sequence[Trials],
        targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
        *,
        seed: int,
        progress: Callable[[str], None] | None = None,
        components: int = 128,
        variance: float = 0.99,
        noise: float = 0.05,
        steps: int = 6,
        hidden: int = 128,
        cycle: float = 0.1,
        folds: int = 5,
        alphas: Sequence[float] = ALPHAS,
        epochs: int = 40,
        batch: int = 256,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        patience: int = 5,
        validation: float = 0.1,
        device: str = "cpu",
        run: Path | None = None,
        trackers: Sequence[str] = ("tensorboard",),
    ) -> Self:
        """Return a mapper trained on the training rows of all ``trials`` together.

        Parameters
        ----------
        trials
            One entry a subject.
        targets
            Space -> stimulus -> embedding of the space's shape, for every training stimulus.
        seed
            Decides folds, first weights, validation stimuli, order and noise.
        progress
            Called with a sentence now and then.
        components, variance
            An embedding is described by the principal components that hold this share of its
            variance over training stimuli, and no more than this many.
        noise
            Standard deviation of the noise added to whitened codes.
        steps, hidden
            See the class.
        cycle
            Weight of the cycle term: what flow A samples for some betas is an example for flow B
            with those betas, and the reverse. Without a gradient through the sampling the true
            densities remain the optimum, which a distance between the two means would shift.
        folds, alphas
            Of the ridge regressions, see `backends.mappers.ridge.Ridge.fit`.
        epochs, batch, lr, weight_decay, patience, validation
            See `backends.training.plan.Course`.
        device, run, trackers
            See `backends.training.engine.train_network`.
        """
        if components < 1 or not 0 < variance <= 1:
            raise UserError(
                "components is a whole number from 1 and variance a share above 0 up to 1, found "
                f"components={components}, variance={variance:g}."
            )
        if steps < 1 or hidden < 1 or not noise > 0 or cycle < 0:
            raise UserError(
                "steps and hidden are whole numbers from 1, noise is above 0 and cycle not below "
                f"0, found steps={steps}, hidden={hidden}, noise={noise:g}, cycle={cycle:g}."
            )
        course = Course(
            epochs=epochs,
            batch=batch,
            lr=lr,
            weight_decay=weight_decay,
            patience=patience,
            validation=validation,
            precision="fp32",  # a density of many dimensions adds up what bf16 rounds away
            seed=seed,
        )
        data = TrialRows(trials, targets)
        whitenings = [
            principal_axes(goals.flatten(1), components, variance, seed, space.name)
            for space, goals in data.goals.items()
        ]
        x = [  # per space (stimuli, K)
            (goals.flatten(1) - centre) @ axes.T / spread
            for goals, (centre, axes, spread) in zip(data.goals.values(), whitenings, strict=True)
        ]
        voxels = {one.subject.name: one.subject.voxels.n_voxels for one in trials}
        maps, codes = _ridge_codes(data, x, folds, alphas, seed, device, progress)
        sizes = [
            [len(axes), y.shape[1]] for (_, axes, _), y in zip(whitenings, codes, strict=True)
        ]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            mapper = cls(tuple(targets), voxels, sizes, steps, hidden, noise)
        for one in trials:
            mapper.set_statistics(one)
            for i, (weight, bias) in enumerate(maps[one.subject.name]):
                mapper._set(f"encode_{one.subject.name}_{i}", weight)
                mapper._set(f"encode_bias_{one.subject.name}_{i}", bias)
        for i, whitening in enumerate(whitenings):
            for name, value in zip(("centre", "axes", "spread"), whitening, strict=True):
                mapper._set(f"{name}_{i}", value)
        learners = [
            _Learner(flows, x[i], codes[i], data, noise, cycle)
            for i, flows in enumerate(mapper.directions)
        ]
        for learner in learners:
            learner.initialise(np.random.default_rng(seed).permutation(len(data))[:8192])
        mapper.history = train_network(
            f"Flow for {', '.join(voxels)}",
            mapper.directions,
            lambda part: {i: learner.losses(part) for i, learner in enumerate(learners)},
            lambda found, part: torch.stack([z.mean() for z in found.values()]).mean(),
            data,
            course,
            run=run,
            device=device,
            progress=progress,
            trackers=trackers,
        ).to_dict()
        _, held_out = data.split(course.validation, course.seed)
        for learner in learners:
            learner.set_base(held_out, seed)
        for one in trials:
            mapper._fit_voxels(one, x, data, folds, alphas, seed, device)
            mapper.metrics[one.subject.name] = {
                space.name: {"embedding code": sizes[i][0], "betas code": sizes[i][1]}
                for i, space in enumerate(mapper.targets)
            }
        return mapper.eval()

    @torch.no_grad()
    def _fit_voxels(
        self,
        trials: Trials,
        x: Sequence[torch.Tensor],
        data: TrialRows,
        folds: int,
        alphas: Sequence[float],
        seed: int,
        device: str,
    ) -> None:
        """Set the maps from flow B's middle to the subject's voxels, by ridge regression."""
        name = trials.subject.name
        mine = data.subject == list(data.trials).index(name)
        voxels = _standardised_rows(trials).to(device)
        held_out = grouped_folds(data.group[mine], folds, seed)
        for i, codes in enumerate(x):
            middle = self._middle_betas(codes, name, i)[data.stimulus[mine]].to(device)
            parts = decompose(middle)
            alpha = cross_validate(parts, voxels, held_out, alphas).alpha
            weight, bias = solve(parts, voxels, alpha)
            self._set(f"decode_{name}_{i}", weight)
            self._set(f"decode_bias_{name}_{i}", bias)

    # --------------------------------------------------------------------------------------- parts

    def _position(self, space: EmbeddingSpace | None) -> int:
        if space is not None and space not in self.targets:
            raise UserError(
                f"This mapper's spaces are {', '.join(s.name for s in self.targets)}, not "
                f"{space.name}; train one for that space."
            )
        return 0 if space is None else self.targets.index(space)

    def _given_betas(self, betas: torch.Tensor, subject: str, i: int) -> torch.Tensor:
        code = self.betas_code(betas, subject, space=self.targets[i])
        return self.directions[i].given(code, subject)

    def _middle_betas(self, code: torch.Tensor, subject: str, i: int) -> torch.Tensor:
        """Return flow B's image of z = 0 (n, C) for embedding codes (n, K)."""
        given = self.directions[i].given(code, subject)
        flow = self.directions[i].to_betas
        return flow.inverse(given.new_zeros(len(given), flow.size), given)

    def _code(self, embedding: torch.Tensor, i: int) -> torch.Tensor:
        """Return the whitened code (n, K) of raw embeddings (n, ...)."""
        space = self.targets[i]
        if tuple(embedding.shape[1:]) != space.shape:
            raise UserError(
                f"An embedding in {space.name} has the shape {space.shape}, found "
                f"{tuple(embedding.shape[1:])}."
            )
        centre, axes, spread = self._whitening(i)
        return (embedding.flatten(1) - centre) @ axes.T / spread

    def _embedding(self, code: torch.Tensor, i: int) -> torch.Tensor:
        """Return raw embeddings (n, ...) of codes (n, K)."""
        centre, axes, spread = self._whitening(i)
        return (code * spread @ axes + centre).reshape(-1, *self.targets[i].shape)

    def _whitening(self, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return tuple(getattr(self, f"{name}_{i}") for name in ("centre", "axes", "spread"))

    def _set(self, name: str, values: torch.Tensor) -> None:
        getattr(self, name).data.copy_(values)


class _Learner:
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
        blur = [_normal([seed, i], z.numel()).view_as(z) for i, z in enumerate((x, y))]
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


def principal_axes(
    rows: torch.Tensor, limit: int, variance: float, seed: int, name: str, at_most: int = 4096
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean (D,), orthonormal axes (K, D) and standard deviations (K,) of rows (n, D).

    K is the number of components that hold the share ``variance``, up to ``limit``. Of more than
    ``at_most`` rows a random choice, decided by ``seed``, is looked at: components converge with
    thousands, and the cost grows with the cube.
    """
    if len(rows) > at_most:
        chosen = np.random.default_rng(seed).permutation(len(rows))[:at_most]
        rows = rows[torch.from_numpy(np.sort(chosen))]
    centre = rows.double().mean(0)
    away = rows.double() - centre
    if len(away) < away.shape[1]:
        values, vectors = torch.linalg.eigh(away @ away.T)
        vectors = away.T @ vectors / values.clamp_min(1e-300).sqrt()
    else:
        values, vectors = torch.linalg.eigh(away.T @ away)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    if not values[0] > 0:
        raise UserError(
            f"All training stimuli have the same embedding in {name}; choose another space."
        )
    held = values.cumsum(0) / values.sum()
    solid = int((values > 1e-9 * values[0]).sum())  # the rest is rounding
    k = min(limit, solid, 1 + int((held < variance - 1e-12).sum()))
    spread = (values[:k] / len(away)).sqrt()
    return centre.float(), vectors[:, :k].T.contiguous().float(), spread.float()


def _ridge_codes(
    data: TrialRows,
    x: Sequence[torch.Tensor],
    folds: int,
    alphas: Sequence[float],
    seed: int,
    device: str,
    progress: Callable[[str], None] | None,
) -> tuple[dict[str, list[tuple[torch.Tensor, torch.Tensor]]], list[torch.Tensor]]:
    """Return each subject's maps to the betas codes, and the samples' codes (samples, C).

    One ridge regression predicts all spaces' codes x; then each space's predictions, made without
    the stimulus in question, are whitened over all subjects' trials. Maps: per space weight (V, C)
    and bias (C,).
    """
    if not len(alphas) or min(alphas) <= 0:
        raise UserError(f"alphas must be positive numbers, found {list(alphas)}.")
    sizes = [codes.shape[1] for codes in x]
    goals = torch.cat(list(x), dim=1)
    solved, predicted = {}, []
    for number, (name, one) in enumerate(data.trials.items()):

        def say(sentence: str, name: str = name) -> None:
            if progress:
                progress(f"Flow for {name}, ridge: {sentence}")

        mine = data.subject == number
        wanted = goals[data.stimulus[mine]].to(device)
        held_out = grouped_folds(data.group[mine], folds, seed)
        parts = decompose(_standardised_rows(one).to(device))
        alpha = cross_validate(parts, wanted, held_out, alphas, say).alpha
        solved[name] = [z.cpu() for z in solve(parts, wanted, alpha)]
        predicted.append(leave_out(parts, wanted, alpha, data.group[mine]).cpu())
    maps: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in solved}
    codes = []
    for i, part in enumerate(torch.cat(predicted).split(sizes, dim=1)):
        away = part.double() - part.double().mean(0)
        values, vectors = torch.linalg.eigh(away.T @ away / len(away))
        kept = values > LEAST * values[-1]
        turn = (vectors[:, kept] / values[kept].sqrt()).float()
        centre = part.mean(0)
        codes.append((part - centre) @ turn)
        for name, (weight, bias) in solved.items():
            mine = slice(sum(sizes[:i]), sum(sizes[: i + 1]))
            maps[name].append((weight[:, mine] @ turn, (bias[mine] - centre) @ turn))
    return maps, codes


def _standardised_rows(trials: Trials) -> torch.Tensor:
    """Return the training betas float32 (n, V), standardised, read in blocks."""
    rows, (mean, sd) = trials.rows("train"), training_statistics(trials)
    voxels = torch.empty(len(rows), trials.subject.voxels.n_voxels)
    for i in range(0, len(rows), ROWS_AT_ONCE):
        block = np.asarray(trials.betas[rows[i : i + ROWS_AT_ONCE]], np.float32)
        voxels[i : i + len(block)] = torch.from_numpy((block - mean) / sd)
    return voxels


def _normal(seed: Sequence[int], n: int) -> torch.Tensor:
    """Return n standard normal numbers float32 (n,) that the seed alone decides."""
    drawn = np.random.default_rng(list(seed)).standard_normal(n, dtype=np.float32)
    return torch.from_numpy(drawn)
