"""Masked modelling of betas, then fine-tuning to images, tokens and text contexts.

After system 3 (MinD-Vis, Chen et al. 2023, arXiv 2211.06956): a vision transformer reads betas as
a sequence of patches of 16 voxels. It first learns to fill in patches that were left out (He et
al. 2022, arXiv 2111.06377), which needs no pictures, then to give embeddings. What differs, and
why:

- Padding is zeros, the training mean of a standardised voxel, and no loss is taken there. The
  original wraps the brain around: the same voxel in two patches gives a masked one away.
- No test trial is read in any stage unless ``pretrain_on_test`` asks for it; the original's second
  stage learned from the test trials.
- Every voxel has a small vector of its own (``tuning``) beside the weights that all patches share,
  both to read its patch and to fill it in: voxel 7 of a patch is another one in every brain.
- The same null stands for "no brain" in training and in sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from backends.mappers.parts.codes import units
from backends.mappers.parts.filling import Filling, pretrained
from backends.mappers.parts.learned import Learned, identified, seeded
from backends.mappers.parts.losses import info_nce
from backends.mappers.parts.patches import ENCODER, Encoder, Own, TokensHead, order_of_voxels
from backends.training.engine import train_network
from backends.training.fewer import fewer
from backends.training.plan import Course
from backends.training.rows import Batch, TrialRows
from explorer.types import EmbeddingSpace, Trials, UserError


class Masked(Learned):
    """Betas -> patches -> encoder -> latents -> one linear head a target.

    Latents (n, Q, width) are what all subjects and targets share: a learned null plus what the
    brain adds to it. Without a brain only the null is left; see `unconditional`.

    Parameters
    ----------
    targets, voxels
        See `Mapper`.
    patches
        Subject -> L, how many patches hold its voxels.
    patch, positions, width, depth, heads, mlp_ratio
        See `Encoder`.
    tuning
        Size of the vector that every voxel has of its own; 0 for none, as in MinD-Vis.
    latents
        Q.
    condition_dropout
        Share of trials whose brain was left out in training; 0 has learned no null.
    published
        As MinD-Vis and NeuroLens fine-tune: no class token, no brain is a brain without activity.
    """

    course = Course(epochs=12, batch=128, lr=1e-3, weight_decay=0.05, patience=4)

    def __init__(
        self,
        targets: Sequence[EmbeddingSpace],
        voxels: Mapping[str, int],
        patches: Mapping[str, int],
        patch: int,
        positions: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        tuning: int,
        latents: int,
        condition_dropout: float,
        published: bool = False,
    ) -> None:
        encoder = dict(
            zip(ENCODER, (patch, positions, width, depth, heads, mlp_ratio), strict=True)
        )
        own = {"tuning": tuning, "latents": latents, "condition_dropout": condition_dropout}
        own |= {"published": True} if published else {}
        super().__init__(targets, voxels, patches=dict(patches), **encoder, **own)
        self.encoder = Encoder(**encoder)
        if tuning:
            self.tuned = nn.Linear(tuning, width, bias=False)
        self.own = nn.ModuleDict(
            {f"of_{s}": Own(patches[s], patch, tuning, latents) for s in self.subjects}
        )
        self.null = nn.Parameter(0.02 * torch.randn(latents, width))
        self.heads = nn.ModuleList()
        for i, space in enumerate(self.targets):
            vector = nn.Sequential(nn.Flatten(), nn.Linear(latents * width, space.size))
            tokens = len(space.shape) == 2
            self.heads.append(TokensHead(latents, width, space.shape) if tokens else vector)
            self.register_buffer(f"centre_{i}", torch.zeros(space.size))
            self.register_buffer(f"scale_{i}", torch.ones(()))

    # ------------------------------------------------------------------------------ what it offers

    def forward(self, betas: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return raw embeddings (n, ...) per target for betas (n, V) in the data's own unit."""
        return self._embeddings(self.null + self.brain(self.patches(betas, subject), subject))

    def unconditional(self) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return the embedding of no brain at all, (...) per target, from the null alone.

        It is what training showed in place of a trial whose brain was left out, so a generator
        that takes embeddings uses it as the unconditional branch of classifier-free guidance:
        scale 0 shows it, scale 1 the decoded trial.
        """
        if self.architecture.get("published"):
            latents = self.null + self.brain(_still(self), self.subjects[0])
            return {space: z[0].detach() for space, z in self._embeddings(latents).items()}
        if not self.architecture["condition_dropout"]:
            raise UserError(
                "This mapper was trained without condition dropout, so it has learned no null; "
                "train it with condition_dropout above 0."
            )
        return {space: z[0] for space, z in self._embeddings(self.null[None]).items()}

    def patches(self, betas: torch.Tensor, subject: str) -> torch.Tensor:
        """Return standardised voxels in patches (n, L, patch), zero where there is no voxel."""
        voxels = functional.pad(self.standardise(betas, subject), (0, 1))  # the last one is zero
        order = self.of(subject).order.long()
        return voxels[:, order].unflatten(1, (-1, self.architecture["patch"]))

    def tokens(
        self, patches: torch.Tensor, subject: str, places: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the encoder's tokens (n, 1 + k, width) of the patches at ``places``, or of all.

        ``patches`` (n, L, patch) as `patches` gives them, ``places`` int (n, k).
        """
        added: torch.Tensor | float = 0.0
        if self.architecture["tuning"]:
            own = torch.einsum("nlp,lpr->nlr", patches, self.of(subject).tuning)
            added = self.tuned(own)
        if self.architecture.get("published"):
            tokens = self.encoder(patches, added, places, class_token=False)
            return functional.pad(tokens, (0, 0, 1, 0))
        return self.encoder(patches, added, places)

    def brain(
        self, patches: torch.Tensor, subject: str, places: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return what a brain adds to the null (n, Q, width); arguments as for `tokens`."""
        tokens, mix = self.tokens(patches, subject, places), self.of(subject).mix
        if places is None:
            return torch.einsum("nlw,lq->nqw", tokens, mix)
        left_out = patches.shape[1] / places.shape[1]  # the patches that are there stand for all
        weights = torch.cat(
            [mix[:1].expand(len(places), 1, -1), left_out * mix[1:][places]], dim=1
        )
        return torch.einsum("nlw,nlq->nqw", tokens, weights)

    def of(self, subject: str) -> Own:
        """Return what belongs to one subject."""
        return self.own[f"of_{subject}"]

    def _embeddings(self, latents: torch.Tensor) -> dict[EmbeddingSpace, torch.Tensor]:
        found = {}
        for i, (space, head) in enumerate(zip(self.targets, self.heads, strict=True)):
            centre, scale = self._unit(i)
            found[space] = (centre + scale * head(latents)).unflatten(1, space.shape)
        return found

    def _unit(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a target's training mean (D,) and the deviation from it, one number."""
        return getattr(self, f"centre_{i}"), getattr(self, f"scale_{i}")

    # ------------------------------------------------------------------------------------ learning

    @classmethod
    def fit(
        cls,
        trials: Sequence[Trials],
        targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
        *,
        seed: int,
        progress: Callable[[str], None] | None = None,
        patch: int = 16,
        patch_order: str = "voxel",
        atlas: str = "",
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        mlp_ratio: float = 1.0,
        tuning: int = 16,
        latents: int = 32,
        mask_ratio: float = 0.75,
        decoder_width: int = 32,
        decoder_depth: int = 1,
        pretrain_epochs: int = 8,
        pretrain_lr: float = 2e-3,
        pretrain_on_test: bool = False,
        share: float = 1.0,
        patch_dropout: float = 0.5,
        condition_dropout: float = 0.1,
        alignment: float = 0.1,
        temperature: float = 0.1,
        from_checkpoint: str = "",
        **training: Any,
    ) -> Self:
        """Return a mapper pretrained and fine-tuned on the training rows of all ``trials``.

        Parameters
        ----------
        trials, targets, progress
            See `Mapper.fit`; the losses of several targets are averaged.
        seed
            Decides first weights, validation stimuli, order, masks and what is left out.
        patch, width, depth, heads, mlp_ratio, tuning, latents
            See the class; MinD-Vis has 16, 1024, 24, 16, 1.0, none, and 77 latents.
        patch_order
            "voxel", in the order of the data set; "roi", sorted by parcel, each parcel padded to
            whole patches, so that no patch mixes parcels.
        atlas
            Whose parcels; "" takes the first of each subject. Where ROIs overlap, a voxel belongs
            to the first that has it; voxels without any come last.
        mask_ratio, decoder_width, decoder_depth
            Share of patches to be filled in, and size of what fills them, which is not kept.
        pretrain_epochs, pretrain_lr
            Of masked modelling; 0 epochs leave it out.
        pretrain_on_test
            Whether masked modelling also reads the test trials' betas, as MinD-Vis' second stage
            does. Scores on them are then transductive; the card tells.
        share
            Of each subject's training stimuli that are fine-tuned with. Masked modelling reads
            all training trials: their betas, not what was shown.
        patch_dropout
            Share of patches that a trial lacks in an epoch of fine-tuning.
        condition_dropout
            Share of trials that are replaced by the null in an epoch; see `unconditional`.
        alignment, temperature
            Weight of the contrastive loss beside the squared error (in units of a target's
            variance), and by which its cosines are divided.
        from_checkpoint
            A folder of a mapper like this, from which learning begins, masked modelling included:
            its encoder, null, heads of the same targets, and the parts of subjects with the same
            voxels. Its sizes are kept.
        **training
            Course and options of the training, see `Learned`; ``epochs`` and ``lr`` are of
            fine-tuning, and each stage has its own folder in ``run``.
        """
        _check_shares(mask_ratio, share, alignment, temperature, patch_dropout, condition_dropout)
        sizes = {"patch": patch, "width": width, "depth": depth, "heads": heads}
        sizes |= {"mlp_ratio": mlp_ratio, "tuning": tuning, "latents": latents}
        _check_sizes(**sizes, decoder_depth=decoder_depth)
        course, options = cls.how(seed, progress, training)
        source = cls.from_pretrained(from_checkpoint) if from_checkpoint else None
        if source is not None:
            sizes = {name: source.architecture[name] for name in sizes}
        _check_widths(sizes, decoder_width)
        data = TrialRows([fewer(one, share=share, seed=seed) for one in trials], targets)
        orders = {
            one.subject.name: order_of_voxels(one.subject, sizes["patch"], patch_order, atlas)
            for one in trials
        }
        counts = {name: len(order) // sizes["patch"] for name, order in orders.items()}
        voxels = {one.subject.name: one.subject.voxels.n_voxels for one in trials}
        with seeded(seed):
            sizes |= {"positions": max(counts.values()), "condition_dropout": condition_dropout}
            mapper = cls(tuple(targets), voxels, counts, **sizes)
            filling = Filling(mapper, decoder_width, decoder_depth, mask_ratio)
        for one in trials:
            mapper.set_statistics(one)
            mapper.of(one.subject.name).order.copy_(torch.from_numpy(orders[one.subject.name]))
        if source is not None:
            _begin_at(mapper, source, trials)
        run, pictures = options.pop("run"), options.pop("pictures")
        before = pretrained(source)
        if pretrain_epochs:
            stage = replace(course, epochs=pretrain_epochs, lr=pretrain_lr)
            own = run / "pretraining" if run else None
            told = filling.learn(trials, stage, on_test=pretrain_on_test, run=own, **options)
            before = told | before
        for i, (space, goals) in enumerate(data.goals.items()):
            centre, scale = units(space, goals.flatten(1))
            mapper.put(f"centre_{i}", centre)
            mapper.put(f"scale_{i}", scale)
        history = train_network(
            f"Masked for {', '.join(mapper.subjects)}",
            mapper,
            lambda part: mapper._predict(part, patch_dropout),
            lambda found, part: mapper._loss(found, part, alignment, temperature),
            data,
            course,
            run=run / "fine-tuning" if run else None,
            measure=lambda found, part: identified(
                (space, z, mapper._goals(space, part)) for space, z in found.items()
            ),
            pictures=pictures,
            **options,
        )
        mapper.history = history.to_dict() | {"pretraining": before}
        return mapper

    def _predict(self, batch: Batch, patch_dropout: float) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return embeddings (n, D) per target in the unit of the loss, the target's own."""
        parts, left_out = {}, self.architecture["condition_dropout"]
        for subject, betas in batch.betas.items():
            patches, places = self.patches(betas, subject), None
            count = patches.shape[1]
            kept = max(1, round(count * (1 - patch_dropout)))
            if batch.training and kept < count:
                places = batch.random("patches", (count,), subject).argsort(1)[:, :kept]
            brain = self.brain(patches, subject, places)
            if batch.training:
                drawn = batch.random("condition", (1,), subject)
                brain = brain * (drawn >= left_out)[..., None]
            latents = self.null + brain
            parts[subject] = {
                space: head(latents) for space, head in zip(self.targets, self.heads, strict=True)
            }
        return batch.merge(parts)

    def _loss(
        self,
        found: Mapping[EmbeddingSpace, torch.Tensor],
        batch: Batch,
        alignment: float,
        temperature: float,
    ) -> torch.Tensor:
        """Return squared error plus weighted alignment, averaged over targets.

        The mean training embedding has an error of 1. Trials without a brain are not aligned.
        """
        goals = {space: self._goals(space, batch) for space in found}
        return _mean_loss(self, found, goals, batch, alignment, temperature)

    def _goals(self, space: EmbeddingSpace, batch: Batch) -> torch.Tensor:
        """Return the true embeddings (n, D), centred and in units of the target's deviation."""
        centre, scale = self._unit(self.targets.index(space))
        return (batch.goals[space].flatten(1) - centre.to(batch.device)) / scale.to(batch.device)


def _mean_loss(
    mapper: Masked,
    found: Mapping[EmbeddingSpace, torch.Tensor],
    goals: Mapping[EmbeddingSpace, torch.Tensor],
    batch: Batch,
    alignment: float,
    temperature: float,
) -> torch.Tensor:
    """Return what `Masked._loss` does, given the true embeddings ``goals``."""
    there = torch.ones(len(batch), dtype=torch.bool, device=batch.device)
    if batch.training:
        there = batch.random("condition", (1,))[:, 0] >= mapper.architecture["condition_dropout"]
    losses = []
    for space, z in found.items():
        losses.append((z - goals[space]).square().mean())
        if alignment and there.any():
            a, b = (functional.normalize(x[there], dim=1) for x in (z, goals[space]))
            losses.append(alignment * info_nce(a, b, batch.stimuli[there], temperature))
    return torch.stack(losses).sum() / len(found)


def _still(mapper: Masked) -> torch.Tensor:
    """Return patches (1, L, patch) of the first subject without activity."""
    length = mapper.architecture["patches"][mapper.subjects[0]]
    return mapper.null.new_zeros(1, length, mapper.architecture["patch"])


def _begin_at(mapper: Masked, source: Masked, trials: Sequence[Trials]) -> None:
    """Take what another mapper has in common with this one."""
    mapper.encoder.take(source.encoder)
    if mapper.architecture["tuning"]:
        mapper.tuned.load_state_dict(source.tuned.state_dict())
    mapper.null.data.copy_(source.null)
    for space, head in zip(mapper.targets, mapper.heads, strict=True):
        if space in source.targets:
            theirs = source.heads[source.targets.index(space)]
            head.load_state_dict(theirs.state_dict())
    for one in trials:
        name, space = one.subject.name, one.subject.voxels
        if source.card.voxels.get(name) != (space.n_voxels, space.hash):
            continue
        mine, theirs = mapper.of(name), source.of(name)
        if torch.equal(mine.order, theirs.order):
            mine.load_state_dict(theirs.state_dict())


def _check_shares(
    mask_ratio: float,
    share: float,
    alignment: float,
    temperature: float,
    patch_dropout: float,
    condition_dropout: float,
) -> None:
    if not 0 < mask_ratio < 1 or not 0 < share <= 1 or alignment < 0 or temperature <= 0:
        raise UserError(
            "mask_ratio is above 0 and below 1, share above 0 and up to 1, alignment not "
            f"below 0 and temperature above 0, found mask_ratio={mask_ratio:g}, "
            f"share={share:g}, alignment={alignment:g}, temperature={temperature:g}."
        )
    if not (0 <= patch_dropout < 1 and 0 <= condition_dropout < 1):
        raise UserError(
            "patch_dropout and condition_dropout are shares from 0 to below 1, found "
            f"patch_dropout={patch_dropout:g}, condition_dropout={condition_dropout:g}."
        )


def _check_sizes(
    patch: int,
    width: int,
    depth: int,
    heads: int,
    mlp_ratio: float,
    tuning: int,
    latents: int,
    decoder_depth: int,
) -> None:
    if min(patch, depth, heads, latents, decoder_depth) < 1 or min(tuning, mlp_ratio) < 0:
        raise UserError(
            "patch, depth, heads, latents and decoder_depth are whole numbers from 1, tuning "
            f"and mlp_ratio not below 0, found patch={patch}, depth={depth}, heads={heads}, "
            f"latents={latents}, decoder_depth={decoder_depth}, tuning={tuning}, "
            f"mlp_ratio={mlp_ratio:g}."
        )


def _check_widths(sizes: Mapping[str, int], decoder_width: int) -> None:
    for name, found in (("width", sizes["width"]), ("decoder_width", decoder_width)):
        if found < 2 or found % 2 or found % sizes["heads"]:
            raise UserError(
                f"{name} is an even number that {sizes['heads']} heads can share, found {found}."
            )
