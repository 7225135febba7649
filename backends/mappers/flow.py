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
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from backends.mappers.parts.codes import (
    check_alphas,
    principal_axes,
    ridge_codes,
    standardised_rows,
)
from backends.mappers.parts.directions import Directions, learn, normal
from backends.mappers.parts.learned import Learned
from backends.training.decomposition import decompose
from backends.training.plan import Course
from backends.training.ridge_solver import ALPHAS, cross_validate, grouped_folds, solve
from backends.training.rows import TrialRows
from explorer.mapper import training_statistics
from explorer.types import EmbeddingSpace, Trials, UserError

LEAST = 1e-4  # of the largest variance; directions of the betas code below it hold only rounding


class Flow(Learned):
    """Betas -> density of the embedding, samples of it, and a central estimate; and back.

    ``forward`` is flow A's image of z = 0, the base's mean: deterministic, differentiable, and the
    conditional mean exactly where the conditional density is Gaussian. ``metrics`` describes
    each space for the card.

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

    course = Course(lr=1e-3, patience=5, precision="fp32")  # bf16 rounds away what densities add
    settable = ("epochs", "batch", "lr", "weight_decay", "patience", "validation")
    options = {"device": "cpu", "run": None, "trackers": ("tensorboard",)}
    exact = (*Learned.exact, "centre_", "spread_")  # of the whitening

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
        blur = torch.stack([normal([seed, 0, b], flow.size) for b in range(len(given))])
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
        **training: Any,
    ) -> Self:
        """Return a mapper trained on the training rows of all ``trials`` together.

        Parameters
        ----------
        trials, targets, progress
            See `Mapper.fit`.
        seed
            Decides folds, first weights, validation stimuli, order and noise.
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
        **training
            Course and options of the training, see `Learned`.
        """
        _check(components, variance, steps, hidden, noise, cycle)
        check_alphas(alphas)
        course, options = cls.how(seed, progress, training)
        device, data = options["device"], TrialRows(trials, targets)
        whitenings, x = _embedding_codes(data, components, variance, seed)
        maps, codes = _betas_codes(data, x, folds, alphas, seed, device, progress)
        sizes = [
            [len(axes), y.shape[1]] for (_, axes, _), y in zip(whitenings, codes, strict=True)
        ]
        mapper = cls.begin(seed, trials, targets, sizes, steps, hidden, noise)
        for i, whitening in enumerate(whitenings):
            for subject, found in maps.items():
                for name, value in zip(("encode", "encode_bias"), found[i], strict=True):
                    mapper.put(f"{name}_{subject}_{i}", value)
            for name, value in zip(("centre", "axes", "spread"), whitening, strict=True):
                mapper.put(f"{name}_{i}", value)
        name = f"Flow for {', '.join(mapper.subjects)}"
        mapper.history = learn(
            name, mapper.directions, x, codes, data, noise, cycle, course, options
        ).to_dict()
        for one in trials:
            _solve_voxels(mapper, one, x, data, folds, alphas, seed, device)
            mapper.metrics[one.subject.name] = {
                space.name: {"embedding code": sizes[i][0], "betas code": sizes[i][1]}
                for i, space in enumerate(mapper.targets)
            }
        return mapper.eval()

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


def _embedding_codes(
    data: TrialRows, components: int, variance: float, seed: int
) -> tuple[list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], list[torch.Tensor]]:
    """Return each space's centre, axes and spread, and its stimuli's codes x (stimuli, K)."""
    whitenings = [
        principal_axes(goals.flatten(1), components, variance, seed, space.name)
        for space, goals in data.goals.items()
    ]
    codes = [
        (goals.flatten(1) - centre) @ axes.T / spread
        for goals, (centre, axes, spread) in zip(data.goals.values(), whitenings, strict=True)
    ]
    return whitenings, codes


def _betas_codes(
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
    sizes = [codes.shape[1] for codes in x]
    statistics = {
        name: tuple(map(torch.from_numpy, training_statistics(one)))
        for name, one in data.trials.items()
    }
    solved, predicted = {}, []
    for name, _, weight, bias, unseen in ridge_codes(
        "Flow", data, torch.cat(list(x), dim=1), statistics, folds, alphas, seed, device, progress
    ):
        solved[name] = weight, bias
        predicted.append(unseen)
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


@torch.no_grad()
def _solve_voxels(
    mapper: Flow,
    trials: Trials,
    x: Sequence[torch.Tensor],
    data: TrialRows,
    folds: int,
    alphas: Sequence[float],
    seed: int,
    device: str,
) -> None:
    """Set the maps from flow B's middle to a subject's voxels, by ridge regression."""
    name = trials.subject.name
    mine = data.subject == list(data.trials).index(name)
    voxels = standardised_rows(trials, data.rows[mine], *mapper.statistics(name)).to(device)
    held_out = grouped_folds(data.group[mine], folds, seed)
    for i, codes in enumerate(x):
        middle = mapper._middle_betas(codes, name, i)[data.stimulus[mine]].to(device)
        parts = decompose(middle)
        alpha = cross_validate(parts, voxels, held_out, alphas).alpha
        weight, bias = solve(parts, voxels, alpha)
        mapper.put(f"decode_{name}_{i}", weight)
        mapper.put(f"decode_bias_{name}_{i}", bias)


def _check(
    components: int, variance: float, steps: int, hidden: int, noise: float, cycle: float
) -> None:
    """Refuse settings of `Flow.fit` with which nothing can be learned."""
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
