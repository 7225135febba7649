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
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from backends.mappers.parts.codes import check_alphas, units, whitening_axes
from backends.mappers.parts.foreign import misshapen
from backends.mappers.parts.learned import Learned
from backends.mappers.parts.mindeye2 import Converted, convert
from backends.mappers.parts.mixing import (
    BlendsLearner,
    begin_linear,
    check_settings,
    sketch_of,
    solve_layers,
)
from backends.mappers.parts.prior import check_sampler
from backends.mappers.parts.trunk import TokenHead, Trunk
from backends.mappers.parts.upsampler import head_of
from backends.training.engine import train_network
from backends.training.fewer import fewer
from backends.training.plan import Course
from backends.training.ridge_solver import ALPHAS
from backends.training.rows import TrialRows
from explorer.types import EmbeddingSpace, Trials, UserError

UNPUBLISHED = ("mean_", "sd_", "centre_", "spread_", "gain_")  # standard in published weights
STEPS = 20  # of the prior's sampling, in published results


class Mixer(Learned):
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
        Arguments of `parts.prior.Prior` after tokens and size; None for none.
    steps, start, sampler
        Of the prior's sampling, the seed of its noise, and which it is, see `Prior.sample`.
    answer
        "contrastive" or "regressed", where there is no prior.
    sketch
        Numbers in which a new subject's code is sought, see `parts.mixing.sketch_of`; 0 in
        published weights.
    upsampler
        Arguments of `UpsamplerHead` for published latents; None for those of `LatentHead`.
    """

    course = Course(lr=1e-3)

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
        sampler: str = "ddim",
        upsampler: Mapping[str, Any] | None = None,
    ) -> None:
        check_sampler(sampler, steps)
        settings = {"width": width, "streams": streams, "hidden": hidden, "blocks": blocks}
        settings |= {"prior": dict(prior) if prior else None, "steps": steps, "start": start}
        settings |= {"upsampler": dict(upsampler)} if upsampler else {}
        settings |= {"answer": answer, "sketch": sketch, "sampler": sampler}
        super().__init__(targets, voxels, **settings)
        self.steps, self.start, self.answer, self.sampler = steps, start, answer, sampler
        self.layers = nn.ModuleDict({f"of_{s}": nn.Linear(v, width) for s, v in voxels.items()})
        inputs = streams * hidden
        self.widen = nn.Identity() if width == inputs else nn.Linear(width, inputs)
        self.trunk = Trunk(streams, hidden, blocks)
        self.heads = nn.ModuleList()
        for i, space in enumerate(self.targets):
            self.heads.append(head_of(space, inputs, prior, upsampler))
            self.register_buffer(f"centre_{i}", torch.zeros(space.shape))
            self.register_buffer(f"spread_{i}", torch.ones(()))
            self.register_buffer(f"gain_{i}", torch.tensor(space.size**0.5))  # a usual length
        if sketch:
            self.register_buffer("axes", torch.zeros(width, sketch))
            self.register_buffer("axes_centre", torch.zeros(sketch))

    # ------------------------------------------------------------------------------ what it offers

    def forward(self, betas: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return raw embeddings (n, ...) per target for betas (n, V) in the data's own unit."""
        shared = self.shared(self.layer(betas, subject))
        found = {}
        for i, (space, head) in enumerate(zip(self.targets, self.heads, strict=True)):
            z = head(shared)
            if isinstance(head, TokenHead):
                if head.prior is not None:
                    z = head.prior.sample(z, self.steps, self.start, self.sampler)
                elif self.answer == "contrastive":
                    z = self._contrastive(z, i)
            found[space] = self._raw(z, i)
        return found

    def regress(self, betas: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return what the heads regress, before any prior, raw, arguments as `forward`."""
        shared = self.shared(self.layer(betas, subject))
        return {
            space: self._raw(head(shared), i)
            for i, (space, head) in enumerate(zip(self.targets, self.heads, strict=True))
        }

    def retrieve(self, betas: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return the contrastive branch for spaces of tokens, raw, arguments as `forward`."""
        shared = self.shared(self.layer(betas, subject))
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
        low: EmbeddingSpace | None = None,
        steps: int = STEPS,
        sampler: str = "published",
    ) -> tuple[Self, tuple[str, ...]]:
        """Return a mapper with MindEye2's or NeuralDiffuser's weights, and what it lacks of them.

        Parameters
        ----------
        state
            The file's ``model_state_dict``, see `parts.mindeye2.convert`.
        voxels
            Subject -> number of voxels, in the order in which the file's layers were trained.
        space
            What its tokens are, of shape (T, D).
        low
            What its low-level branch gives, of shape (C, H, W); None leaves the branch out.
        steps, sampler
            Of the prior's sampling, see `Prior.sample`.
        """
        found = convert(state, tuple(voxels), low=low is not None)
        found.check(voxels, space, low)
        targets = [space, *([low] if low else [])]
        how = found.architecture | {"steps": steps, "sampler": sampler}
        mapper = _filled(lambda: cls(targets, voxels, **how), found)
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
        from_checkpoint: str = "",
        **training: Any,
    ) -> Self:
        """Return a mapper trained on the training rows of all ``trials`` together.

        Parameters
        ----------
        trials, targets, progress
            See `Mapper.fit`.
        seed
            Decides which trials a share is, folds, first weights, validation stimuli and order.
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
        from_checkpoint
            A folder of a mixer trained on other subjects: trunk and heads begin as its, the
            layers of the subjects in ``trials`` are new. Sizes and prior are that mixer's.
        **training
            Course and options of the training, see `Learned`.
        """
        sizes = {"width": width, "streams": streams, "hidden": hidden, "blocks": blocks}
        more = {"prior_width": prior_width, "prior_depth": prior_depth, "prior_steps": prior_steps}
        weights = (regression, contrast, low_level)
        check_settings(layers, answer, sizes | more, weights, mix, temperatures)
        check_alphas(alphas)
        course, options = cls.how(seed, progress, training)
        trials = [fewer(one, sessions=sessions, share=share, seed=seed) for one in trials]
        data = TrialRows(trials, targets)
        source = cls._source(from_checkpoint, targets, layers) if from_checkpoint else None
        if source is None:
            coordinates = [units(space, goals) for space, goals in data.goals.items()]
            code = whitening_axes(sketch_of(data.goals, coordinates), width)
            sizes |= {
                "width": len(code[0]) if layers == "ridge" else width,
                "prior": _prior(prior_width, prior_depth) if prior else None,
                "steps": prior_steps,
                "start": seed,
                "answer": answer,
                "sketch": code[0].shape[1] if layers == "ridge" else 0,
            }
        else:
            sizes = source.architecture
        mapper = cls.begin(seed, trials, targets, **sizes)
        if source is not None:
            _take(mapper, source)
        else:
            for i, (centre, spread) in enumerate(coordinates):
                mapper.put(f"centre_{i}", centre)
                mapper.put(f"spread_{i}", spread)
            if layers == "ridge":
                mapper.put("axes", code[0])
                mapper.put("axes_centre", code[1])
        codes = None
        if layers == "ridge":
            codes = solve_layers(mapper, data, folds, alphas, seed, options["device"], progress)
            mapper.layers.requires_grad_(False)
        if codes is not None and source is None:
            begin_linear(mapper, codes, data, course)
        learner = BlendsLearner(mapper, data, course, codes, mix, weights, tuple(temperatures))
        history = train_network(
            f"Mixer for {', '.join(mapper.subjects)}",
            mapper,
            learner.predict,
            learner.loss,
            data,
            course,
            measure=learner.measure,
            **options,
        )
        learner.set_gains()
        counts = map(int, np.bincount(data.subject))
        told = {"training trials": dict(zip(mapper.subjects, counts, strict=True))}
        mapper.history = history.to_dict() | told
        return mapper.requires_grad_(True)

    # --------------------------------------------------------------------------------------- parts

    def layer(self, betas: torch.Tensor, subject: str) -> torch.Tensor:
        """Return the code (n, width) of betas (n, V), by this subject's layer."""
        voxels = self.standardise(betas, subject)
        return self.layers[f"of_{subject}"](voxels)

    def shared(self, code: torch.Tensor) -> torch.Tensor:
        """Return the trunk's outputs (n, streams * hidden) for codes (n, width)."""
        return self.trunk(self.widen(code))

    def _contrastive(self, tokens: torch.Tensor, i: int) -> torch.Tensor:
        """Return the contrastive branch (n, T * D) in standard coordinates."""
        away = functional.normalize(self.heads[i].project(tokens).flatten(1), dim=1)
        return getattr(self, f"gain_{i}") * away

    def _raw(self, z: torch.Tensor, i: int) -> torch.Tensor:
        """Return raw embeddings (n, ...) of standard coordinates."""
        centre, spread = self.coordinates(i)
        return centre + spread * z.reshape(-1, *self.targets[i].shape)

    def coordinates(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a target's mean training embedding (...) and its standard deviation."""
        return getattr(self, f"centre_{i}"), getattr(self, f"spread_{i}")

    @classmethod
    def _source(cls, folder: str, targets: Mapping[EmbeddingSpace, Any], layers: str) -> Self:
        source = cls.source(folder, targets)
        if layers == "ridge" and not source.architecture["sketch"]:
            raise UserError(
                f"The mixer in {folder} was made with learned layers and has no code to which a "
                "new subject's could be solved; add layers=learned."
            )
        return source


def _filled(make: Callable[[], Mixer], found: Converted) -> Mixer:
    """Return a new mixer with published weights; nothing that learns may stay as it was made."""
    if odd := misshapen(make, found.state):
        raise UserError(
            f"The weights do not belong together: {', '.join(odd)} (our names) have other shapes "
            "than the rest asks for; copy the file again."
        )
    mapper = make()
    own = {k: v for k, v in mapper.state_dict().items() if k.startswith(UNPUBLISHED)}
    mapper.load_state_dict(own | found.state)
    return mapper


def _take(mapper: Mixer, source: Mixer) -> None:
    """Take everything of another mapper but its subjects' layers and statistics."""
    own = tuple(f"{kind}_{s}" for s in source.subjects for kind in ("mean", "sd"))
    theirs = {
        key: value
        for key, value in source.state_dict().items()
        if not key.startswith("layers.") and key not in own
    }
    mapper.load_state_dict(mapper.state_dict() | theirs)


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
