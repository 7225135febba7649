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

The blocks are our own: their names and those of their weights are the published files' (timm's),
and timm would be seconds of import for thirty lines.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from backends.training.engine import train_network
from backends.training.fewer import fewer
from backends.training.plan import Course
from backends.training.rows import Batch, TrialRows
from explorer.mapper import Mapper
from explorer.metrics import two_way_identification
from explorer.types import EmbeddingSpace, Subject, Trials, UserError

ORDERS = ("voxel", "roi")
ENCODER = ("patch", "positions", "width", "depth", "heads", "mlp_ratio")  # what makes an encoder
# In the published files beside the encoder: the decoder of masked patches, which we learn anew,
# and that of pictures (zjc062/mind-vis, code/sc_mbm/mae_for_fmri.py).
NOT_ENCODER = ("mask_token", "decoder_", "nature_img_")
BLOCK = tuple(
    f"{part}.{kind}"
    for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    for kind in ("weight", "bias")
)


# ------------------------------------------------------------------------------------------ layers


class Attention(nn.Module):
    """Self-attention of tokens (n, k, width) with several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens (n, k, width)."""
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm transformer block as in timm's vision transformer."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        layers = {"fc1": nn.Linear(width, hidden), "act": nn.GELU()}
        self.mlp = nn.Sequential(OrderedDict(layers | {"fc2": nn.Linear(hidden, width)}))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens (n, k, width)."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


def sine_positions(count: int, width: int) -> torch.Tensor:
    """Return float32 (1, 1 + count, width): zeros for the class token, then one row a position.

    Sines then cosines of position / 10000^(2 i / width), as in MinD-Vis (get_1d_sincos_pos_embed).
    """
    rates = 10_000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    rows = torch.cat([angles.sin(), angles.cos()], dim=1).float()
    return torch.cat([torch.zeros(1, width), rows])[None]


class Encoder(nn.Module):
    """Patches of voxels -> tokens; module for module the encoder of MinD-Vis.

    Parameters
    ----------
    patch
        Voxels of a patch.
    positions
        The longest sequence, in patches.
    width, depth, heads, mlp_ratio
        Of its blocks; MinD-Vis has 1024, 24, 16 and 1.0.
    """

    def __init__(
        self, patch: int, positions: int, width: int, depth: int, heads: int, mlp_ratio: float
    ) -> None:
        super().__init__()
        values = (patch, positions, width, depth, heads, mlp_ratio)
        self.architecture = dict(zip(ENCODER, values, strict=True))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv1d(1, width, patch, stride=patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_embed", sine_positions(positions, width))
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.cls_token, std=0.02)
        self.apply(_initialise)

    def forward(
        self,
        patches: torch.Tensor,
        added: torch.Tensor | float = 0.0,
        places: torch.Tensor | None = None,
        class_token: bool = True,
    ) -> torch.Tensor:
        """Return tokens (n, 1 + k, width), the class token first.

        Parameters
        ----------
        patches
            Standardised voxels (n, L, patch).
        added
            To the patches' embeddings, (n, L, width).
        places
            int (n, k), the patches that are read; all L without.
        class_token
            False leaves it out, (n, k, width), as MinD-Vis does after pretraining.
        """
        proj = self.patch_embed["proj"]  # a convolution whose windows do not overlap: a product
        tokens = functional.linear(patches, proj.weight[:, 0], proj.bias) + added
        tokens = tokens + self.pos_embed[:, 1 : 1 + patches.shape[1]]
        if places is not None:
            tokens = _take(tokens, places)
        if class_token:
            first = self.cls_token + self.pos_embed[:, :1]
            tokens = torch.cat([first.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    @torch.no_grad()
    def take(self, source: Encoder) -> None:
        """Take another encoder's weights; positions beyond its longest sequence stay sines."""
        state = source.state_dict()
        known = min(self.pos_embed.shape[1], source.pos_embed.shape[1])
        positions = self.pos_embed.clone()
        positions[:, :known] = source.pos_embed[:, :known]
        self.load_state_dict({**state, "pos_embed": positions})


def published_encoder(
    state: Mapping[str, torch.Tensor], heads: int = 16, prefix: str = ""
) -> Encoder:
    """Return the encoder with the weights of a published MinD-Vis checkpoint.

    Parameters
    ----------
    state
        Names and tensors: the entry ``model`` of ``fmri_encoder.pth``, or ``model_state_dict`` of
        ``finetuned.pth``. Sizes are read from the shapes.
    heads
        Attention heads, which no shape tells; 16 in MinD-Vis' configuration.
    prefix
        Of the encoder's names: "" or "cond_stage_model.mae.". Other names are not looked at.

    Raises
    ------
    UserError
        When names are missing or unknown, with all of them, or when shapes do not belong together.
        The decoders of the same file are known and left out.
    """
    given = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    given = {k: v.float() for k, v in given.items() if not k.startswith(NOT_ENCODER)}
    found = [re.match(r"blocks\.(\d+)\.", name) for name in given]
    depth = 1 + max((int(m[1]) for m in found if m), default=0)
    wanted = {"cls_token", "pos_embed", "norm.weight", "norm.bias"}
    wanted |= {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    wanted |= {f"blocks.{i}.{name}" for i in range(depth) for name in BLOCK}
    missing, unknown = sorted(wanted - set(given)), sorted(set(given) - wanted)
    if missing or unknown:
        raise UserError(
            "These are not the weights of a MinD-Vis encoder: missing "
            f"{', '.join(missing) or 'none'}; unknown {', '.join(unknown) or 'none'}; choose a "
            "file of fmri_encoder.pth's layout."
        )
    width, _, patch = given["patch_embed.proj.weight"].shape
    if width % heads:
        raise UserError(
            f"This encoder is {width} wide, which {heads} attention heads cannot share; give the "
            "number of heads of its configuration."
        )
    ratio = given["blocks.0.mlp.fc1.weight"].shape[0] / width
    encoder = Encoder(patch, given["pos_embed"].shape[1] - 1, width, depth, heads, ratio)
    odd = [k for k, v in encoder.state_dict().items() if v.shape != given[k].shape]
    if odd:
        raise UserError(
            f"The weights of this encoder do not belong together: {', '.join(odd)} have other "
            f"shapes than the width {width} and the MLPs' ratio {ratio:g} ask for; copy the file "
            "again."
        )
    encoder.load_state_dict(given)
    return encoder


class Own(nn.Module):
    """What belongs to one subject: the order of the voxels, their tuning, the patches' weights.

    ``order`` int32 (L * patch,): the voxel at each place of the sequence, -1 is padding.
    ``tuning`` (L, patch, tuning): a vector of each voxel. ``mix`` (1 + L, latents): how tokens,
    the class token first, add up to latents.
    """

    def __init__(self, patches: int, patch: int, tuning: int, latents: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.full((patches * patch,), -1, dtype=torch.int32))
        if tuning:
            self.tuning = nn.Parameter(torch.randn(patches, patch, tuning) / patch**0.5)
        self.mix = nn.Parameter(torch.randn(1 + patches, latents) / (1 + patches) ** 0.5)


class TokensHead(nn.Module):
    """Latents (n, Q, width) -> tokens (n, T, D): first the sequence, then the width is mapped.

    As MinD-Vis' ``channel_mapper`` and ``dim_mapper`` do, without what lies between them.
    """

    def __init__(self, latents: int, width: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.sequence, self.values = nn.Linear(latents, shape[0]), nn.Linear(width, shape[1])

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Return (n, T * D)."""
        return self.values(self.sequence(latents.transpose(1, 2)).transpose(1, 2)).flatten(1)


# ------------------------------------------------------------------------------------------ mapper


class Masked(Mapper):
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

    Attributes
    ----------
    history : dict
        How both stages went, for the card; a loaded mapper has an empty one.
    """

    joint = True  # several subjects make one mapper

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
    ) -> None:
        encoder = dict(
            zip(ENCODER, (patch, positions, width, depth, heads, mlp_ratio), strict=True)
        )
        super().__init__(
            targets,
            voxels,
            patches=dict(patches),
            **encoder,
            tuning=tuning,
            latents=latents,
            condition_dropout=condition_dropout,
        )
        self.history: dict[str, Any] = {}
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
        if not self.architecture["condition_dropout"]:
            raise UserError(
                "This mapper was trained without condition dropout, so it has learned no null; "
                "train it with condition_dropout above 0."
            )
        return {space: z[0] for space, z in self._embeddings(self.null[None]).items()}

    def patches(self, betas: torch.Tensor, subject: str) -> torch.Tensor:
        """Return standardised voxels in patches (n, L, patch), zero where there is no voxel."""
        voxels = functional.pad(self.standardise(betas, subject), (0, 1))  # the last one is zero
        order = self._own(subject).order.long()
        return voxels[:, order].unflatten(1, (-1, self.architecture["patch"]))

    def tokens(
        self, patches: torch.Tensor, subject: str, places: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the encoder's tokens (n, 1 + k, width) of the patches at ``places``, or of all.

        ``patches`` (n, L, patch) as `patches` gives them, ``places`` int (n, k).
        """
        added: torch.Tensor | float = 0.0
        if self.architecture["tuning"]:
            own = torch.einsum("nlp,lpr->nlr", patches, self._own(subject).tuning)
            added = self.tuned(own)
        return self.encoder(patches, added, places)

    def brain(
        self, patches: torch.Tensor, subject: str, places: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return what a brain adds to the null (n, Q, width); arguments as for `tokens`."""
        tokens, mix = self.tokens(patches, subject, places), self._own(subject).mix
        if places is None:
            return torch.einsum("nlw,lq->nqw", tokens, mix)
        left_out = patches.shape[1] / places.shape[1]  # the patches that are there stand for all
        weights = torch.cat(
            [mix[:1].expand(len(places), 1, -1), left_out * mix[1:][places]], dim=1
        )
        return torch.einsum("nlw,nlq->nqw", tokens, weights)

    def _own(self, subject: str) -> Own:
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
        epochs: int = 12,
        batch: int = 128,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        patience: int = 4,
        validation: float = 0.1,
        accumulate: int = 1,
        precision: str = "auto",
        from_checkpoint: str = "",
        device: str = "cpu",
        run: Path | None = None,
        trackers: Sequence[str] = ("tensorboard",),
        pictures: Callable[[Mapper, Batch], np.ndarray] | None = None,
    ) -> Self:
        """Return a mapper pretrained and fine-tuned on the training rows of all ``trials``.

        Parameters
        ----------
        trials
            One entry a subject.
        targets
            Space -> stimulus -> embedding of the space's shape, for every training stimulus. The
            losses of several targets are averaged.
        seed
            Decides first weights, validation stimuli, order, masks and what is left out.
        progress
            Called with a sentence now and then.
        patch, width, depth, heads, mlp_ratio, tuning, latents
            See the class; MinD-Vis has 16, 1024, 24, 16, 1.0, none, and 77 latents.
        patch_order
            "voxel", in the order of the data set; "roi", sorted by parcel, each parcel padded to
            whole patches, so that no patch mixes parcels.
        atlas
            Whose parcels; "" takes the first of each subject. Where ROIs overlap, a voxel belongs
            to the first that has it; voxels without any come last.
        mask_ratio
            Share of patches to be filled in.
        decoder_width, decoder_depth
            Of the network that fills in; it is not kept.
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
        epochs, batch, lr, weight_decay, patience, validation, accumulate, precision
            See `backends.training.plan.Course`; ``epochs`` and ``lr`` are of fine-tuning.
        from_checkpoint
            A folder of a mapper like this, from which learning begins, masked modelling included:
            its encoder, null, heads of the same targets, and the parts of subjects with the same
            voxels. Its sizes are kept.
        device, run, trackers, pictures
            See `backends.training.engine.train_network`; each stage has its own folder in ``run``.
        """
        if patch_order not in ORDERS:
            raise UserError(f"patch_order is {' or '.join(ORDERS)}, found {patch_order!r}.")
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
        if min(patch, depth, heads, latents, decoder_depth) < 1 or min(tuning, mlp_ratio) < 0:
            raise UserError(
                "patch, depth, heads, latents and decoder_depth are whole numbers from 1, tuning "
                f"and mlp_ratio not below 0, found patch={patch}, depth={depth}, heads={heads}, "
                f"latents={latents}, decoder_depth={decoder_depth}, tuning={tuning}, "
                f"mlp_ratio={mlp_ratio:g}."
            )
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
        sizes = {"patch": patch, "width": width, "depth": depth, "heads": heads}
        sizes |= {"mlp_ratio": mlp_ratio, "tuning": tuning, "latents": latents}
        source = cls.from_pretrained(from_checkpoint) if from_checkpoint else None
        if source is not None:
            sizes = {name: source.architecture[name] for name in sizes}
        for name, found in (("width", sizes["width"]), ("decoder_width", decoder_width)):
            if found < 2 or found % 2 or found % sizes["heads"]:
                raise UserError(
                    f"{name} is an even number that {sizes['heads']} heads can share, found "
                    f"{found}."
                )
        data = TrialRows([fewer(one, share=share, seed=seed) for one in trials], targets)
        orders = {
            one.subject.name: order_of_voxels(one.subject, sizes["patch"], patch_order, atlas)
            for one in trials
        }
        counts = {name: len(order) // sizes["patch"] for name, order in orders.items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            mapper = cls(
                tuple(targets),
                {one.subject.name: one.subject.voxels.n_voxels for one in trials},
                patches=counts,
                positions=max(counts.values()),
                condition_dropout=condition_dropout,
                **sizes,
            )
            filling = Filling(mapper, decoder_width, decoder_depth, mask_ratio)
        for one in trials:
            mapper.set_statistics(one)
            mapper._own(one.subject.name).order.copy_(torch.from_numpy(orders[one.subject.name]))
        if source is not None:
            mapper._begin_at(source, trials)
        options = {"device": device, "progress": progress, "trackers": trackers}
        who = ", ".join(counts)
        before = {}
        if source is not None and source.card is not None:
            before = source.card.metrics.get("training", {}).get("pretraining", {})
            before = {"before": {"checkpoint": source.card.name, **before}}
        if pretrain_epochs:
            told = filling.learn(
                [_all_training(one) for one in trials] if pretrain_on_test else trials,
                replace(course, epochs=pretrain_epochs, lr=pretrain_lr),
                name=f"Masked modelling for {who}",
                run=run / "pretraining" if run else None,
                **options,
            )
            before = {"betas": READ[pretrain_on_test], **told, **before}
        mapper._set_units(data)
        history = train_network(
            f"Masked for {who}",
            mapper,
            lambda part: mapper._predict(part, patch_dropout),
            lambda found, part: mapper._loss(found, part, alignment, temperature),
            data,
            course,
            run=run / "fine-tuning" if run else None,
            measure=mapper._measure,
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
        there = torch.ones(len(batch), dtype=torch.bool, device=batch.device)
        if batch.training:
            there = batch.random("condition", (1,))[:, 0] >= self.architecture["condition_dropout"]
        losses = []
        for space, z in found.items():
            goals = self._goals(space, batch)
            losses.append((z - goals).square().mean())
            if alignment and there.any():
                a, b = (functional.normalize(x[there], dim=1) for x in (z, goals))
                losses.append(alignment * _info_nce(a, b, batch.stimuli[there], temperature))
        return torch.stack(losses).sum() / len(found)

    def _goals(self, space: EmbeddingSpace, batch: Batch) -> torch.Tensor:
        """Return the true embeddings (n, D), centred and in units of the target's deviation."""
        centre, scale = self._unit(self.targets.index(space))
        return (batch.goals[space].flatten(1) - centre.to(batch.device)) / scale.to(batch.device)

    def _measure(
        self, found: Mapping[EmbeddingSpace, torch.Tensor], batch: Batch
    ) -> dict[str, float]:
        """Return two-way identification of validation trials among each other, chance 0.5."""
        some = slice(0, 1000)  # the share among all pairs, near enough
        return {
            f"validation two-way identification, {space.name}": float(
                two_way_identification(z[some].numpy(), self._goals(space, batch)[some].numpy())
            )
            for space, z in found.items()
        }

    def _set_units(self, data: TrialRows) -> None:
        """Set each target's mean and deviation; every stimulus counts once, whoever saw it."""
        rows = torch.from_numpy(np.unique(data.stimulus))
        for i, goals in enumerate(data.goals.values()):
            centre, scale = self._unit(i)
            known = goals[rows].flatten(1)
            centre.copy_(known.mean(0))
            spread = (known - centre).square().mean().sqrt()
            scale.copy_(spread if spread > 0 else torch.ones(()))

    def _begin_at(self, source: Masked, trials: Sequence[Trials]) -> None:
        """Take what another mapper has in common with this one."""
        self.encoder.take(source.encoder)
        if self.architecture["tuning"]:
            self.tuned.load_state_dict(source.tuned.state_dict())
        self.null.data.copy_(source.null)
        for space, head in zip(self.targets, self.heads, strict=True):
            if space in source.targets:
                theirs = source.heads[source.targets.index(space)]
                head.load_state_dict(theirs.state_dict())
        for one in trials:
            name, space = one.subject.name, one.subject.voxels
            if source.card.voxels.get(name) != (space.n_voxels, space.hash):
                continue
            mine, theirs = self._own(name), source._own(name)
            if torch.equal(mine.order, theirs.order):
                mine.load_state_dict(theirs.state_dict())


# -------------------------------------------------------------------------------- masked modelling


READ = {False: "training trials", True: "training and test trials, as pretrain_on_test asked for"}


class Filling(nn.Module):
    """A mapper's encoder over some patches, and a decoder that fills in the others.

    A hidden patch's token begins as the mask token plus the mean of what is shown: on as little
    as one study's trials, attention alone was slow to find that there is something to carry over.
    What a voxel is predicted to be is a linear map of its patch's token, shared by all patches,
    plus the product of another with the voxel's own tuning.
    """

    def __init__(self, mapper: Masked, width: int, depth: int, mask_ratio: float) -> None:
        super().__init__()
        sizes = mapper.architecture
        self.mapper, self.mask_ratio = mapper, mask_ratio
        self.enter = nn.Linear(sizes["width"], width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        positions = sine_positions(sizes["positions"], width)
        self.register_buffer("pos_embed", positions, persistent=False)
        self.blocks = nn.ModuleList(
            Block(width, sizes["heads"], sizes["mlp_ratio"]) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.voxels = nn.Linear(width, sizes["patch"])
        if sizes["tuning"]:
            self.tuned = nn.Linear(width, sizes["tuning"])
        for module in (self.enter, self.blocks):
            module.apply(_initialise)
        for layer in (self.voxels, *([self.tuned] if sizes["tuning"] else [])):
            nn.init.zeros_(layer.weight)  # learning begins at the mean of each voxel
            nn.init.zeros_(layer.bias)

    def forward(
        self, betas: torch.Tensor, subject: str, drawn: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return predicted patches (n, L, patch) and which voxels were hidden, bool of that shape.

        Parameters
        ----------
        betas
            (n, V) in the data's own unit; predictions are standardised.
        drawn
            Numbers (n, L); the patches with the lowest are shown. Padding is never counted as
            hidden.
        """
        patches = self.mapper.patches(betas, subject)
        n, count, _ = patches.shape
        shown = max(1, int(count * (1 - self.mask_ratio)))
        places = drawn.argsort(1)[:, :shown]
        entered = self.enter(self.mapper.tokens(patches, subject, places))
        seen = entered[:, 1:].mean(1, keepdim=True)
        tokens = (seen + self.mask_token.to(seen.dtype)).repeat(1, count, 1)
        tokens = tokens.scatter(1, _wide(places, entered), entered[:, 1:])
        tokens = torch.cat([entered[:, :1], tokens], dim=1) + self.pos_embed[:, : 1 + count]
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)[:, 1:]
        predicted = self.voxels(tokens)
        own = self.mapper._own(subject)
        if hasattr(own, "tuning"):
            theirs = torch.einsum("nlr,lpr->nlp", self.tuned(tokens), own.tuning)
            predicted = predicted + theirs
        hidden = torch.ones(n, count, dtype=torch.bool, device=betas.device)
        hidden = hidden.scatter(1, places, False)
        real = (own.order >= 0).view(count, -1)
        return predicted, hidden[..., None] & real

    def errors(self, betas: torch.Tensor, subject: str, drawn: torch.Tensor) -> torch.Tensor:
        """Return each trial's mean squared error (n, 1) over hidden voxels; 1 is their mean's."""
        predicted, hidden = self(betas, subject, drawn)
        wrong = (predicted - self.mapper.patches(betas, subject)).square() * hidden
        return (wrong.sum((1, 2)) / hidden.sum((1, 2)))[:, None]

    def learn(
        self, trials: Sequence[Trials], course: Course, *, name: str, **options: Any
    ) -> dict[str, Any]:
        """Train encoder, tunings and decoder on the training rows; return how that went."""
        mapper = self.mapper
        for subject, count in mapper.architecture["patches"].items():
            if count < 2:
                raise UserError(
                    f"All voxels of {subject} fit into one patch of "
                    f"{mapper.architecture['patch']}, and masked modelling hides some patches and "
                    "shows others; choose a smaller patch, or pretrain_epochs=0."
                )

        def predict(batch: Batch) -> dict[str, torch.Tensor]:
            parts = {}
            for subject, betas in batch.betas.items():
                count = mapper.architecture["patches"][subject]
                drawn = batch.random("mask", (count,), subject)
                parts[subject] = {"error": self.errors(betas, subject, drawn)}
            return batch.merge(parts)

        # what masked modelling does not reach must not decay
        mapper.requires_grad_(False)
        for key, parameter in mapper.named_parameters():
            reached = key.startswith(("encoder.", "tuned.")) or key.endswith(".tuning")
            parameter.requires_grad_(reached)
        history = train_network(
            name,
            self,
            predict,
            lambda found, _: found["error"].mean(),
            TrialRows(trials),
            course,
            **options,
        )
        mapper.requires_grad_(True)
        return history.to_dict()


def order_of_voxels(subject: Subject, patch: int, patch_order: str, atlas: str = "") -> np.ndarray:
    """Return int32 (L * patch,): the voxel at each place of a subject's sequence, -1 is padding.

    ``patch_order`` and ``atlas`` as in `Masked.fit`.
    """
    count = subject.voxels.n_voxels
    groups = [np.arange(count)]
    if patch_order == "roi":
        atlases = subject.voxels.parcellations
        if not atlases or (atlas and atlas not in atlases):
            raise UserError(
                f"patch_order=roi needs the atlas {atlas or 'of some name'!r} for "
                f"{subject.dataset}/{subject.name}, which has {', '.join(atlases) or 'none'}; "
                "choose one of these, or patch_order=voxel."
            )
        masks = atlases[atlas or next(iter(atlases))].masks()
        parcel = masks.argmax(axis=0)  # the first that has a voxel; the last row is (unassigned)
        groups = [np.flatnonzero(parcel == p) for p in np.unique(parcel)]
    padded = [np.pad(g, (0, -len(g) % patch), constant_values=-1) for g in groups]
    return np.concatenate(padded).astype(np.int32)


def pretraining_gain(
    trials: Sequence[Trials],
    targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
    *,
    share: float = 0.1,
    seeds: Sequence[int] = (0, 1, 2),
    progress: Callable[[str], None] | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Return what masked modelling brings to a mapper fine-tuned on few trials, ready to plot.

    One row a seed, subject, target and ``pretrained`` (False, True): ``error`` is the squared
    error on the averaged test betas over that of the mean training embedding (lower is better, 1
    is the mean), ``two_way`` their two-way identification (chance 0.5). Both mappers of a seed
    learn from the same share of the same trials; ``settings`` are those of `Masked.fit`. From the
    command line the same is ``python -m backends train masked --set share=0.1``, once more with
    ``--set pretrain_epochs=0``.
    """
    rows = []
    for seed in seeds:
        for pretrained in (False, True):
            chosen = settings if pretrained else settings | {"pretrain_epochs": 0}
            mapper = Masked.fit(
                trials, targets, seed=seed, share=share, progress=progress, **chosen
            )
            for one in trials:
                stimuli = one.stimuli("test")
                betas = np.stack([one.average(stimulus) for stimulus in stimuli])
                for i, (space, z) in enumerate(mapper.decode(betas, one.subject.name).items()):
                    truth = np.stack([targets[space][stimulus] for stimulus in stimuli])
                    centre = mapper._unit(i)[0].numpy().reshape(space.shape)
                    error = np.square(z - truth).sum() / np.square(centre - truth).sum()
                    rows.append(
                        {
                            "seed": seed,
                            "pretrained": pretrained,
                            "subject": one.subject.name,
                            "space": space.name,
                            "error": float(error),
                            "two_way": float(two_way_identification(z, truth)),
                        }
                    )
    return rows


def _all_training(trials: Trials) -> Trials:
    return replace(trials, table=trials.table.assign(split="train"))


def _info_nce(
    predicted: torch.Tensor, true: torch.Tensor, stimuli: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the symmetric InfoNCE of unit vectors (n, D); 0 is the best, log(n) is chance.

    Trials of one stimulus are each other's right answers in equal shares, never negatives.
    """
    logits = predicted @ true.T / temperature
    same = (stimuli[:, None] == stimuli[None]).to(logits)
    right = same / same.sum(1, keepdim=True)
    return 0.5 * (
        functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)
    )


def _wide(places: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return places[..., None].expand(-1, -1, tokens.shape[2])


def _take(tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return the tokens (n, k, width) at places int (n, k) of tokens (n, L, width)."""
    return tokens.gather(1, _wide(places, tokens))


def _initialise(module: nn.Module) -> None:
    """Set first weights as published: uniform after Glorot, no bias."""
    if isinstance(module, nn.Linear | nn.Conv1d):
        nn.init.xavier_uniform_(module.weight.flatten(1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
