"""A layer of each subject, an MLP-mixer shared by all, and heads for several spaces at once.

After MindEye2 (Scotti et al. 2024, arXiv 2403.11207) and NeuralDiffuser, which uses its network
for text context (c), autoencoder latents (z) and CLIP layers (g). Each target space gets a head by
its shape: (D,) and (T, D) tokens with a contrastive branch and a diffusion prior, (C, H, W) a
low-level branch. In NeuralDiffuser's names g_2, g_4 ... g_12 the numbers count hooked layers: they
are the MLP outputs of CLIP's transformer blocks 1, 2 ... 6, and an embedder should name them so.

A trial passes the layer of its own subject and no other, because layers are found by the subject's
name; the original finds them by position and met one subject's betas with another's layer.

How much it gains over ridge from other subjects' data, on a tenth of a new subject's trials:

    python -m backends train mixer --dataset simulated --name three \
        --subject subj01 --subject subj02 --subject subj03
    python -m backends train mixer --dataset simulated --name tenth --subject subj04 \
        --set share=0.1 \
        --set from_checkpoint=checkpoints/mappers/simulated/three-subj01-subj02-subj03
    python -m backends train ridge --dataset simulated --name ridge-tenth --subject subj04 \
        --set share=0.1

Each prints two-way identification of the test stimuli and writes it to its card; with the same
seed (0 by default) both learn from the same trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from backends.mappers.mixer_parts import LEVELS, LatentHead, TokenHead, Trunk, convert
from backends.training.engine import train_network
from backends.training.fewer import fewer
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
from explorer.mapper import ROWS_AT_ONCE, Mapper
from explorer.metrics import two_way_identification
from explorer.types import EmbeddingSpace, Trials, UserError

LAYERS = ("ridge", "learned")
ANSWERS = ("contrastive", "regressed")
SKETCH = 256  # numbers to which a large space is folded before its principal components are taken
MIXED, BETA = 0.5, 0.15  # share of trials that BiMixCo mixes, and both numbers of its Beta


class Mixer(Mapper):
    """Voxels -> a layer of the subject -> mixer trunk -> tokens or latents of each target.

    Everything is learned in standard coordinates, ``(embedding - centre) / spread`` with the mean
    training embedding and one standard deviation a space. What ``forward`` gives for a space of
    tokens is the prior's sample where there is a prior, which is conditioned on the regressed
    tokens; without one it is what ``answer`` says. Latents are always regressed.

    - ``regress`` gives the heads' tokens, which come nearest to the true ones.
    - ``retrieve`` gives the contrastive branch made from them, which tells trials apart best. As
      the loss knows only its direction, it is ``centre + spread * gain * direction`` with the gain
      that brings it nearest to the truth on validation trials (least squares), one a space.

    Parameters
    ----------
    targets, voxels
        See `Mapper`.
    width
        Outputs of a subject's layer: voxels x width are most of the weights.
    streams, hidden, blocks
        Of the trunk. A linear layer widens to streams x hidden, where width is not that already.
    prior
        Arguments of `mixer_parts.Prior` after tokens and size; None for none.
    steps, start
        Of the prior's sampling, and the seed of the noise that it begins with.
    answer
        "contrastive" or "regressed", where there is no prior.
    sketch
        Numbers in which a new subject's code is sought, see `_code`; 0 in published weights.
    """

    joint = True  # several subjects make one mapper

    def __init__(
        self,
        targets: Sequence[EmbeddingSpace],
        voxels: Mapping[str, int],
        width: int,
        streams: int,
        hidden: int,
        blocks: int,
        prior: Mapping[str, Any] | None,
        steps: int = 1,
        start: int = 0,
        answer: str = "regressed",
        sketch: int = 0,
    ) -> None:
        super().__init__(
            targets,
            voxels,
            width=width,
            streams=streams,
            hidden=hidden,
            blocks=blocks,
            prior=dict(prior) if prior else None,
            steps=steps,
            start=start,
            answer=answer,
            sketch=sketch,
        )
        self.steps, self.start, self.answer = steps, start, answer
        self.history: dict[str, Any] = {}
        self.layers = nn.ModuleDict({f"of_{s}": nn.Linear(v, width) for s, v in voxels.items()})
        inputs = streams * hidden
        self.widen = nn.Identity() if width == inputs else nn.Linear(width, inputs)
        self.trunk = Trunk(streams, hidden, blocks)
        self.heads = nn.ModuleList()
        for i, space in enumerate(self.targets):
            if len(space.shape) > 3:
                raise UserError(
                    f"The mixer has heads for spaces of shape (D,), (T, D) and (C, H, W), found "
                    f"{space.shape} in {space.name}; choose another space."
                )
            low = len(space.shape) == 3
            self.heads.append(
                LatentHead(inputs, space.shape) if low else TokenHead(inputs, space.shape, prior)
            )
            self.register_buffer(f"centre_{i}", torch.zeros(space.shape))
            self.register_buffer(f"spread_{i}", torch.ones(()))
            self.register_buffer(f"gain_{i}", torch.tensor(space.size**0.5))  # a usual length
        if sketch:
            self.register_buffer("axes", torch.zeros(width, sketch))
            self.register_buffer("axes_centre", torch.zeros(sketch))

    # ------------------------------------------------------------------------------ what it offers

    def forward(self, betas: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return raw embeddings (n, ...) per target for betas (n, V) in the data's own unit."""
        shared = self._shared(self._layer(betas, subject))
        found = {}
        for i, (space, head) in enumerate(zip(self.targets, self.heads, strict=True)):
            z = head(shared)
            if isinstance(head, TokenHead):
                if head.prior is not None:
                    z = head.prior.sample(z, self.steps, self.start)
                elif self.answer == "contrastive":
                    z = self._contrastive(z, i)
            found[space] = self._raw(z, i)
        return found

    def regress(self, betas: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return what the heads regress, before any prior, raw, arguments as `forward`."""
        shared = self._shared(self._layer(betas, subject))
        return {
            space: self._raw(head(shared), i)
            for i, (space, head) in enumerate(zip(self.targets, self.heads, strict=True))
        }

    def retrieve(self, betas: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return the contrastive branch for spaces of tokens, raw, arguments as `forward`."""
        shared = self._shared(self._layer(betas, subject))
        return {
            space: self._raw(self._contrastive(head(shared), i), i)
            for i, (space, head) in enumerate(zip(self.targets, self.heads, strict=True))
            if isinstance(head, TokenHead)
        }

    @classmethod
    def from_published(
        cls,
        state: Mapping[str, torch.Tensor],
        voxels: Mapping[str, int],
        space: EmbeddingSpace,
        *,
        steps: int = 20,
    ) -> tuple[Self, tuple[str, ...]]:
        """Return a mapper with MindEye2's or NeuralDiffuser's weights, and what it lacks of them.

        Parameters
        ----------
        state
            The file's ``model_state_dict``, see `mixer_parts.convert`.
        voxels
            Subject -> number of voxels, in the order in which the file's layers were trained.
        space
            What its tokens are, of shape (T, D).
        steps
            Of the prior's sampling; published results take 20.
        """
        found = convert(state, tuple(voxels))
        if dict(voxels) != found.voxels:
            wrong = [s for s, v in voxels.items() if found.voxels[s] != v]
            raise UserError(
                f"The checkpoint's layer of {wrong[0]} reads {found.voxels[wrong[0]]} voxels, the "
                f"data have {voxels[wrong[0]]}; name the subjects in the order of its training."
            )
        if space.shape != found.shape:
            raise UserError(
                f"The checkpoint gives tokens of shape {found.shape}, {space.name} has "
                f"{space.shape}; name the space that it was trained to."
            )
        mapper = cls([space], voxels, **found.architecture, steps=steps)
        own = {k: v for k, v in mapper.state_dict().items() if k not in found.state}
        mapper.load_state_dict(own | found.state)
        return mapper.eval(), found.left_out

    # ------------------------------------------------------------------------------------ learning

    @classmethod
    def fit(
        cls,
        trials: Sequence[Trials],
        targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
        *,
        seed: int,
        progress: Callable[[str], None] | None = None,
        share: float = 1.0,
        sessions: int = 0,
        layers: str = "ridge",
        width: int = 64,
        streams: int = 4,
        hidden: int = 64,
        blocks: int = 2,
        prior: bool = False,
        prior_width: int = 64,
        prior_depth: int = 2,
        prior_steps: int = 1,
        answer: str = "contrastive",
        regression: float = 1.0,
        contrast: float = 1.0,
        low_level: float = 0.5,
        mix: float = 1 / 3,
        temperatures: Sequence[float] = (0.1, 0.05, 0.1),
        folds: int = 5,
        alphas: Sequence[float] = ALPHAS,
        epochs: int = 40,
        batch: int = 256,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        patience: int = 8,
        validation: float = 0.1,
        accumulate: int = 1,
        precision: str = "auto",
        from_checkpoint: str = "",
        device: str = "cpu",
        run: Path | None = None,
        trackers: Sequence[str] = ("tensorboard",),
        pictures: Callable[[Mapper, Batch], np.ndarray] | None = None,
    ) -> Self:
        """Return a mapper trained on the training rows of all ``trials`` together.

        Parameters
        ----------
        trials
            One entry a subject.
        targets
            Space -> stimulus -> embedding of the space's shape, for every training stimulus.
        seed
            Decides which trials a share is, folds, first weights, validation stimuli and order.
        progress
            Called with a sentence now and then.
        share, sessions
            Learn from part of the training trials, see `backends.training.fewer.fewer`.
        layers
            "ridge" solves each subject's layer, as the ridge regression to a code of the targets
            (their leading principal components), and keeps it; the rest learns from codes that
            are honest, each trial's from the layer without its stimulus. "learned" trains the
            layers with the rest, as MindEye2 does.
        width, streams, hidden, blocks
            See the class. With "ridge" no wider than the targets have dimensions.
        prior, prior_width, prior_depth, prior_steps
            Whether spaces of tokens get a diffusion prior, of which size, and its sampling steps:
            1 gives the expected embedding, more come nearer to one possible embedding.
        answer
            What is decoded without a prior, see the class.
        regression, contrast, low_level
            Weights of the mean squared errors of the regressed tokens and of the prior, of the
            contrastive loss, and of the mean absolute error of latents. MindEye2 has 30 (of the
            prior alone), 1 and 0.5, in the coordinates of its space.
        mix
            Share of training with BiMixCo, where half of the trials are blends of two; SoftCLIP
            follows.
        temperatures
            Of BiMixCo, and of SoftCLIP at its beginning and end (published 0.006, 0.004, 0.0075,
            for cosines of 425,984 numbers that are not centred).
        folds, alphas
            Of the ridge regressions, see `backends.mappers.ridge.Ridge.fit`.
        epochs, batch, lr, weight_decay, patience, validation, accumulate, precision
            See `backends.training.plan.Course`.
        from_checkpoint
            A folder of a mixer trained on other subjects: trunk and heads begin as its, the
            layers of the subjects in ``trials`` are new. Sizes and prior are that mixer's.
        device, run, trackers, pictures
            See `backends.training.engine.train_network`.
        """
        if layers not in LAYERS:
            raise UserError(f"layers is {' or '.join(LAYERS)}, found {layers!r}.")
        if answer not in ANSWERS:
            raise UserError(f"answer is {' or '.join(ANSWERS)}, found {answer!r}.")
        for name, value, least in (
            *(("width", width, 1), ("streams", streams, 3), ("hidden", hidden, 2)),
            *(("blocks", blocks, 1), ("prior_width", prior_width, 16)),
            *(("prior_depth", prior_depth, 1), ("prior_steps", prior_steps, 1)),
        ):
            if value < least:
                raise UserError(f"{name} is a whole number from {least}, found {value}.")
        if min(regression, contrast, low_level) < 0 or not 0 <= mix <= 1:
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
        if not len(alphas) or min(alphas) <= 0:
            raise UserError(f"alphas must be positive numbers, found {list(alphas)}.")
        course = Course(
            epochs=epochs,
            batch=batch,
            lr=lr,
            weight_decay=weight_decay,
            patience=patience,
            validation=validation,
            accumulate=accumulate,
            precision=precision,
            seed=seed,
        )
        trials = [fewer(one, sessions=sessions, share=share, seed=seed) for one in trials]
        data = TrialRows(trials, targets)
        voxels = {one.subject.name: one.subject.voxels.n_voxels for one in trials}
        source = cls._source(from_checkpoint, targets, layers) if from_checkpoint else None
        if source is None:
            coordinates = [_coordinates(goals) for goals in data.goals.values()]
            code = principal_axes(_sketch(data.goals, coordinates), width)
            sizes = {
                "width": len(code[0]) if layers == "ridge" else width,
                "streams": streams,
                "hidden": hidden,
                "blocks": blocks,
                "prior": _prior(prior_width, prior_depth) if prior else None,
                "steps": prior_steps,
                "start": seed,
                "answer": answer,
                "sketch": code[0].shape[1] if layers == "ridge" else 0,
            }
        else:
            sizes = source.architecture
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            mapper = cls(tuple(targets), voxels, **sizes)
        if source is not None:
            mapper._take(source)
        else:
            for i, (centre, spread) in enumerate(coordinates):
                mapper._set(f"centre_{i}", centre)
                mapper._set(f"spread_{i}", spread)
            if layers == "ridge":
                mapper._set("axes", code[0])
                mapper._set("axes_centre", code[1])
        for one in trials:
            mapper.set_statistics(one)
        codes = None
        if layers == "ridge":
            codes = mapper._solve_layers(data, folds, alphas, seed, device, progress)
            mapper.layers.requires_grad_(False)
        if codes is not None and source is None:
            mapper._begin_linear(codes, data, course)
        weights = (regression, contrast, low_level)
        learner = _Learner(mapper, data, course, codes, mix, weights, tuple(temperatures))
        history = train_network(
            f"Mixer for {', '.join(voxels)}",
            mapper,
            learner.predict,
            learner.loss,
            data,
            course,
            run=run,
            device=device,
            progress=progress,
            trackers=trackers,
            measure=learner.measure,
            pictures=pictures,
        )
        learner.set_gains()
        counts = {name: int(n) for name, n in zip(voxels, np.bincount(data.subject), strict=True)}
        mapper.history = history.to_dict() | {"training trials": counts}
        return mapper.requires_grad_(True)

    @torch.no_grad()
    def _solve_layers(
        self,
        data: TrialRows,
        folds: int,
        alphas: Sequence[float],
        seed: int,
        device: str,
        progress: Callable[[str], None] | None,
    ) -> torch.Tensor:
        """Set the subjects' layers; return each sample's code (samples, width) without itself."""
        coordinates = [self._coordinates(i) for i in range(len(self.targets))]
        sketch = _sketch(data.goals, coordinates)
        goals = (sketch - self.axes_centre) @ self.axes.T  # (stimuli, width)
        codes = torch.empty(len(data), goals.shape[1])
        for number, (name, one) in enumerate(data.trials.items()):

            def say(sentence: str, name: str = name) -> None:
                if progress:
                    progress(f"Mixer for {name}, ridge: {sentence}")

            mine = data.subject == number
            voxels = torch.empty(int(mine.sum()), one.subject.voxels.n_voxels)
            rows = data.rows[mine]
            for i in range(0, len(rows), ROWS_AT_ONCE):
                block = np.asarray(one.betas[rows[i : i + ROWS_AT_ONCE]], np.float32)
                voxels[i : i + len(block)] = self.standardise(torch.from_numpy(block), name)
            parts, wanted = decompose(voxels.to(device)), goals[data.stimulus[mine]].to(device)
            groups = data.group[mine]
            held_out = grouped_folds(groups, folds, seed)
            alpha = cross_validate(parts, wanted, held_out, alphas, say).alpha
            weight, bias = solve(parts, wanted, alpha)
            layer = self.layers[f"of_{name}"]
            layer.weight.copy_(weight.T)
            layer.bias.copy_(bias)
            codes[torch.from_numpy(mine)] = leave_out(parts, wanted, alpha, groups).cpu()
        return codes

    @torch.no_grad()
    def _begin_linear(self, codes: torch.Tensor, data: TrialRows, course: Course) -> None:
        """Set the heads of tokens to the least squares from codes, where learning begins."""
        train, _ = data.split(course.validation, course.seed)
        inputs = self._shared(codes[torch.from_numpy(train)])
        centre = inputs.mean(0)
        away = inputs - centre
        gram = away.T @ away
        gram.diagonal().add_(1e-2 * gram.diagonal().mean())  # of codes that say nothing, nothing
        for i, (space, head) in enumerate(zip(self.targets, self.heads, strict=True)):
            if isinstance(head, LatentHead):
                continue
            middle, spread = self._coordinates(i)
            goals = ((data.goals[space] - middle) / spread).flatten(1)  # (stimuli, T D)
            number = torch.from_numpy(data.stimulus[train])
            sums = away.new_zeros(len(goals), away.shape[1]).index_add(0, number, away)
            weight = torch.linalg.solve(gram, sums.T @ goals)
            head.linear.weight.copy_(weight.T)
            share = torch.bincount(number, minlength=len(goals)) / len(number)
            head.linear.bias.copy_(share @ goals - centre @ weight)

    # --------------------------------------------------------------------------------------- parts

    def _layer(self, betas: torch.Tensor, subject: str) -> torch.Tensor:
        """Return the code (n, width) of betas (n, V), by this subject's layer."""
        voxels = self.standardise(betas, subject)
        return self.layers[f"of_{subject}"](voxels)

    def _shared(self, code: torch.Tensor) -> torch.Tensor:
        return self.trunk(self.widen(code))

    def _contrastive(self, tokens: torch.Tensor, i: int) -> torch.Tensor:
        """Return the contrastive branch (n, T * D) in standard coordinates."""
        away = functional.normalize(self.heads[i].project(tokens).flatten(1), dim=1)
        return getattr(self, f"gain_{i}") * away

    def _raw(self, z: torch.Tensor, i: int) -> torch.Tensor:
        """Return raw embeddings (n, ...) of standard coordinates."""
        centre, spread = self._coordinates(i)
        return centre + spread * z.reshape(-1, *self.targets[i].shape)

    def _coordinates(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return getattr(self, f"centre_{i}"), getattr(self, f"spread_{i}")

    def _set(self, name: str, values: torch.Tensor) -> None:
        getattr(self, name).copy_(values)

    @classmethod
    def _source(cls, folder: str, targets: Mapping[EmbeddingSpace, Any], layers: str) -> Self:
        source = cls.from_pretrained(folder)
        if source.targets != tuple(targets):
            raise UserError(
                f"The mixer in {folder} gives {', '.join(s.name for s in source.targets)}, asked "
                f"for were {', '.join(s.name for s in targets)}; name the same spaces in the same "
                "order."
            )
        if layers == "ridge" and not source.architecture["sketch"]:
            raise UserError(
                f"The mixer in {folder} was made with learned layers and has no code to which a "
                "new subject's could be solved; add layers=learned."
            )
        return source

    def _take(self, source: Mixer) -> None:
        """Take everything of another mixer but its subjects' layers and statistics."""
        own = tuple(f"{kind}_{s}" for s in source.subjects for kind in ("mean", "sd"))
        theirs = {
            key: value
            for key, value in source.state_dict().items()
            if not key.startswith("layers.") and key not in own
        }
        self.load_state_dict(self.state_dict() | theirs)


@dataclass(eq=False)
class _Learner:
    """Predictions and losses of a mixer in training.

    ``codes`` (samples, width) are fixed codes, or None where the layers learn; ``mix``,
    ``weights`` (of regression, contrast, low level) and ``temperatures`` as in `Mixer.fit`.
    """

    mapper: Mixer
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
        shared = mapper._shared(batch.merge(parts)["code"])
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
        some = slice(0, 1000)  # the share among all pairs, near enough
        return {
            f"validation two-way identification, {self.mapper.targets[i].name}": float(
                two_way_identification(
                    z[some].numpy(), self._goals(i, batch.stimuli[some]).flatten(1).numpy()
                )
            )
            for (i, kind), z in found.items()
            if kind == "contrast"
        }

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
        return self.mapper._layer(betas, subject)[torch.from_numpy(back).to(device)]

    def _goals(self, i: int, stimuli: torch.Tensor) -> torch.Tensor:
        """Return true embeddings (n, ...) in standard coordinates, by the stimuli's numbers."""
        goals = self.data.goals[self.mapper.targets[i]][stimuli.cpu()].to(stimuli.device)
        centre, spread = (part.to(stimuli.device) for part in self.mapper._coordinates(i))
        return (goals - centre) / spread


# ------------------------------------------------------------------------------------------ losses


def bimixco(
    predicted: torch.Tensor, gallery: torch.Tensor, shares: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the contrastive loss of blends, in both directions (MindEye, arXiv 2305.18274).

    ``predicted`` (n, D) and ``gallery`` (m, D) of unit length, ``shares`` (n, m) of each image in
    each trial, rows adding up to 1. Without blends, each trial of another image, it is InfoNCE.
    """
    logits = predicted @ gallery.T / temperature
    forth = -(logits.log_softmax(1) * shares).sum()
    back = -(logits.log_softmax(0) * shares).sum()
    return (forth + back) / (2 * len(predicted))


def soft_clip(predicted: torch.Tensor, true: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the contrastive loss whose answers are the true vectors' own resemblances.

    Both (n, D) of unit length; cross-entropy of ``predicted . true`` against the softmax of
    ``true . true``, both over ``temperature``, averaged over both directions (arXiv 2305.18274).
    """
    logits = predicted @ true.T / temperature
    answers = (true @ true.T / temperature).softmax(1)
    forth = functional.cross_entropy(logits, answers)
    return (forth + functional.cross_entropy(logits.T, answers)) / 2


def _unit(goals: torch.Tensor) -> torch.Tensor:
    return functional.normalize(goals.flatten(1), dim=1)


# ------------------------------------------------------------------------------ codes and checks


def _coordinates(goals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean (...) of embeddings (stimuli, ...) and one standard deviation of all."""
    centre = goals.mean(0)
    return centre, (goals - centre).square().mean().sqrt().clamp_min(1e-6)


def _sketch(
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


def principal_axes(rows: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return axes (K, D) that make whitened principal components of rows (n, D), and their mean.

    K is at most ``limit``, and leaves out directions of less than a thousandth of the largest
    standard deviation.
    """
    centre = rows.double().mean(0)
    away = rows.double() - centre
    values, vectors = torch.linalg.eigh(away.T @ away / len(away))
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    k = min(limit, int((values > 1e-6 * values[0]).sum()))
    if k < 1:
        raise UserError(
            "All training stimuli have the same embedding; choose another space or other stimuli."
        )
    return (vectors[:, :k] / values[:k].sqrt()).T.float().contiguous(), centre.float()


def _prior(width: int, depth: int) -> dict[str, Any]:
    """Return a small prior's arguments: heads of 16 numbers, gated layers twice as wide."""
    return {
        "width": width,
        "depth": depth,
        "heads": max(1, width // 16),
        "head_size": 16,
        "inner": 2 * width,
        "adds": True,
    }
