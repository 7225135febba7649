"""Betas and embeddings brought together by a contrastive loss, over subjects and targets jointly.

A linear layer of each subject leads into one trunk; symmetric InfoNCE (van den Oord et al. 2018,
arXiv 1807.03748; Radford et al. 2021, arXiv 2103.00020) pulls a trial towards the embedding of the
image that was shown and away from the others of its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch.nn import functional

from backends.encoders.voxelwise import Encoding
from backends.mappers.parts.codes import units
from backends.mappers.parts.learned import Learned, disturbed, identified
from backends.mappers.parts.losses import info_nce
from backends.training.engine import train_network
from backends.training.plan import Course
from backends.training.rows import Batch, TrialRows
from explorer.types import EmbeddingSpace, Trials, UserError

ACTIVATIONS: dict[str, type[torch.nn.Module]] = {
    "identity": torch.nn.Identity,
    "gelu": torch.nn.GELU,
}


class Contrastive(Learned):
    """Selected voxels -> a layer of the subject -> shared trunk -> a direction in each target.

    ``trunk``: LayerNorm, Linear to ``hidden``, activation; then one Linear a target. What comes
    out has unit length, as the loss knows directions only; the embedding is ``centre + gain *
    direction``. ``centre`` is the mean training embedding of a target, and ``gain``, one number a
    subject and target, brings the embedding nearest to the truth on validation trials (least
    squares), so that generators meet embeddings of the usual size.

    Parameters
    ----------
    targets, voxels
        See `Mapper`.
    selected
        Subject -> N, how many voxels are read; their columns are the buffer ``columns_<subject>``.
    width, hidden
        Outputs of a subject's layer and of the trunk.
    activation
        "identity" or "gelu".
    """

    course = Course(batch=512, lr=1e-3)

    def __init__(
        self,
        targets: Sequence[EmbeddingSpace],
        voxels: Mapping[str, int],
        selected: Mapping[str, int],
        width: int,
        hidden: int,
        activation: str,
    ) -> None:
        super().__init__(
            targets,
            voxels,
            selected=dict(selected),
            width=width,
            hidden=hidden,
            activation=activation,
        )
        self.layers = torch.nn.ModuleDict()
        for subject in voxels:
            count = selected[subject]
            self.register_buffer(f"columns_{subject}", torch.arange(count))
            self.register_buffer(f"gain_{subject}", torch.ones(len(self.targets)))
            self.layers[f"of_{subject}"] = torch.nn.Linear(count, width)
        self.trunk = torch.nn.Sequential(
            torch.nn.LayerNorm(width), torch.nn.Linear(width, hidden), ACTIVATIONS[activation]()
        )
        self.heads = torch.nn.ModuleList(torch.nn.Linear(hidden, s.size) for s in self.targets)
        for i, space in enumerate(self.targets):
            self.register_buffer(f"centre_{i}", torch.zeros(space.size))

    def voxel_weights(self, subject: str) -> dict[str, int]:
        """Return {}: which voxels are read is a selection of its own."""
        return {}

    def select(self, betas: torch.Tensor, subject: str) -> torch.Tensor:
        """Return the standardised betas (n, N) of the selected voxels, from betas (n, V)."""
        return self.standardise(betas, subject)[:, getattr(self, f"columns_{subject}")]

    def directions(self, voxels: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return unit vectors (n, D) per target, D its size, from selected voxels (n, N)."""
        shared = self.trunk(self.layers[f"of_{subject}"](voxels))
        return {
            space: functional.normalize(head(shared), dim=1)
            for space, head in zip(self.targets, self.heads, strict=True)
        }

    def forward(self, betas: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return raw embeddings (n, ...) per target for betas (n, V) in the data's own unit."""
        found = self.directions(self.select(betas, subject), subject)
        gain = getattr(self, f"gain_{subject}")
        return {
            space: (self.centre(space) + gain[i] * found[space]).reshape(-1, *space.shape)
            for i, space in enumerate(self.targets)
        }

    def centre(self, space: EmbeddingSpace) -> torch.Tensor:
        """Return the mean training embedding (D,) of a target."""
        return getattr(self, f"centre_{self.targets.index(space)}")

    @classmethod
    def fit(
        cls,
        trials: Sequence[Trials],
        targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
        *,
        seed: int,
        progress: Callable[[str], None] | None = None,
        voxels: int = 10_000,
        width: int = 512,
        hidden: int = 512,
        activation: str = "identity",
        temperature: float = 0.1,
        voxel_dropout: float = 0.0,
        noise: float = 0.0,
        from_checkpoint: str = "",
        **training: Any,
    ) -> Self:
        """Return a mapper trained on the training rows of all ``trials`` together.

        Parameters
        ----------
        trials
            One entry a subject.
        targets
            Space -> stimulus -> embedding of the space's shape, for every training stimulus. The
            losses of several targets are averaged.
        seed
            Decides first weights, validation stimuli, order and noise.
        progress
            Called with a sentence now and then.
        voxels
            How many voxels of a subject are read: those whose betas the encoding model predicts
            best for training stimuli it has not seen. All, where there are no more.
        width, hidden, activation
            See the class; the network of the "Semantic alignment of BOLD5000 with CLIP" had
            10,000 voxels, 4096, 2048 and identity.
        temperature
            By which cosines are divided in the loss.
        voxel_dropout, noise
            Share of voxels that are silent in a trial of an epoch, and standard deviation of the
            noise added, in units of a voxel's own.
        from_checkpoint
            A folder of a mapper like this: its trunk and heads are taken and kept, and only the
            layers of the subjects in ``trials`` are learned. Width, hidden and activation are
            that mapper's.
        **training
            Course and options of the training, see `Learned`.
        """
        if activation not in ACTIVATIONS:
            raise UserError(f"activation is {' or '.join(ACTIVATIONS)}, found {activation!r}.")
        if temperature <= 0 or not 0 <= voxel_dropout < 1 or noise < 0:
            raise UserError(
                "temperature is above 0, voxel_dropout from 0 to below 1 and noise not below 0, "
                f"found temperature={temperature:g}, voxel_dropout={voxel_dropout:g}, "
                f"noise={noise:g}."
            )
        if min(voxels, width, hidden) < 1:
            raise UserError(
                f"voxels, width and hidden are whole numbers from 1, found voxels={voxels}, "
                f"width={width}, hidden={hidden}."
            )
        course, options = cls.how(seed, progress, training)
        data = TrialRows(trials, targets)
        source = cls.source(from_checkpoint, targets) if from_checkpoint else None
        if source is not None:
            width, hidden = source.architecture["width"], source.architecture["hidden"]
            activation = source.architecture["activation"]
        counts = {one.subject.name: one.subject.voxels.n_voxels for one in trials}
        selected = {name: min(voxels, count) for name, count in counts.items()}
        mapper = cls.begin(seed, trials, targets, selected, width, hidden, activation)
        for one in trials:
            if selected[one.subject.name] < counts[one.subject.name]:
                encoding = Encoding.fit(
                    one, targets, seed=seed, device=options["device"], progress=progress
                )
                columns = encoding.select_voxels(selected[one.subject.name])
                mapper.put(f"columns_{one.subject.name}", columns)
        for i, (space, goals) in enumerate(data.goals.items()):
            mapper.put(f"centre_{i}", units(space, goals.flatten(1))[0])
        if source is not None:
            mapper._take(source)
        mapper.history = train_network(
            f"Contrastive for {', '.join(counts)}",
            mapper,
            lambda part: mapper._predict(part, voxel_dropout, noise),
            lambda found, part: mapper._loss(found, part, temperature),
            data,
            course,
            measure=mapper._measure,
            **options,
        ).to_dict()
        mapper._set_gains(data, course)
        return mapper.requires_grad_(True)

    # ------------------------------------------------------------------------------------ learning

    def _predict(
        self, batch: Batch, voxel_dropout: float, noise: float
    ) -> dict[EmbeddingSpace, torch.Tensor]:
        parts = {}
        for subject, betas in batch.betas.items():
            voxels = self.select(betas, subject)
            voxels = disturbed(voxels, batch, subject, voxel_dropout, noise)
            parts[subject] = self.directions(voxels, subject)
        return batch.merge(parts)

    def _loss(
        self, found: Mapping[EmbeddingSpace, torch.Tensor], batch: Batch, temperature: float
    ) -> torch.Tensor:
        """Return symmetric InfoNCE, averaged over targets."""
        losses = [
            info_nce(z, self._goal_directions(space, batch), batch.stimuli, temperature)
            for space, z in found.items()
        ]
        return torch.stack(losses).mean()

    def _goal_directions(self, space: EmbeddingSpace, batch: Batch) -> torch.Tensor:
        """Return the true embeddings (n, D) seen from the centre, of unit length."""
        centre = self.centre(space).to(batch.device)
        return functional.normalize(batch.goals[space].flatten(1) - centre, dim=1)

    def _measure(
        self, found: Mapping[EmbeddingSpace, torch.Tensor], batch: Batch
    ) -> dict[str, float]:
        return identified(
            (space, z, self._goal_directions(space, batch)) for space, z in found.items()
        )

    @torch.no_grad()
    def _set_gains(self, data: TrialRows, course: Course) -> None:
        """Set each subject's gains from the held-out trials, or from all without any."""
        train, held_out = data.split(course.validation, course.seed)
        samples = held_out if len(held_out) else train
        sums = {s: torch.zeros(len(self.targets)) for s in self.subjects}
        counts = dict.fromkeys(self.subjects, 0)
        for begin in range(0, len(samples), course.batch):
            batch = Batch(data, samples[begin : begin + course.batch])
            found = self._predict(batch, 0.0, 0.0)
            for subject, places in batch.places.items():
                counts[subject] += len(places)
                for i, space in enumerate(self.targets):
                    away = batch.goals[space].flatten(1) - self.centre(space)
                    sums[subject][i] += (found[space] * away)[torch.from_numpy(places)].sum()
        for subject, total in sums.items():
            if counts[subject]:  # a subject may have seen none of the held-out stimuli
                # below 0 the mapper would be worse than the centre alone
                self.put(f"gain_{subject}", (total / counts[subject]).clamp_min(1e-3))

    # --------------------------------------------------------------------------- a further subject

    def _take(self, source: Contrastive) -> None:
        """Take trunk, heads and centres of another mapper; none of these learns."""
        for mine, theirs in ((self.trunk, source.trunk), (self.heads, source.heads)):
            mine.load_state_dict(theirs.state_dict())
            mine.requires_grad_(False)
        for space in self.targets:
            self.centre(space).copy_(source.centre(space))
