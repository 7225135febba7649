"""The networks of the mixer, and MindEye2's published weights for them.

Layouts after MindEye2 (Scotti et al. 2024, arXiv 2403.11207; MedARC-AI/MindEyeV2 at c184718,
src/models.py and src/Train.ipynb) and the diffusion prior of DALL-E 2 that it uses (Ramesh et al.
2022, arXiv 2204.06125; lucidrains/DALLE2-pytorch, dalle2_pytorch.py). Every published tensor has a
place here of the same shape, so that published weights give the published outputs. None of these
networks has dropout: what is random while learning comes from the batch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from explorer.types import UserError

LEVELS = 100  # of noise in the prior's diffusion, as published
BUCKETS, FARTHEST = 32, 128  # of distances between tokens, and where the last one begins (T5)
SHARPNESS = 16  # cosines of queries and keys are multiplied by it
ROTARY = 32  # at most so many numbers of a head are rotated by their position


# --------------------------------------------------------------------------------- trunk and heads


class Trunk(nn.Module):
    """Residual MLP-mixer blocks over ``streams`` tokens of ``hidden`` numbers.

    A block mixes the numbers of each token and then the tokens, and the two halves have residual
    paths of their own, as published: ``a' = f(b) + a``, ``b' = g(a') + b``. With one stream, as
    MindEye2 was trained, the second half adds constants: LayerNorm of one number is its bias.
    """

    def __init__(self, streams: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.streams, self.hidden = streams, hidden
        self.within = nn.ModuleList(mlp(hidden) for _ in range(blocks))
        self.across = nn.ModuleList(mlp(streams) for _ in range(blocks))
        for half in (*self.within, *self.across):  # learning begins at the identity
            nn.init.zeros_(half[-1].weight)
            nn.init.zeros_(half[-1].bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, streams * hidden) for (n, streams * hidden)."""
        a = b = x.reshape(len(x), self.streams, self.hidden)
        for within, across in zip(self.within, self.across, strict=True):
            a = within(b) + a
            b = across(a.mT).mT + b
        return b.flatten(1)


def mlp(size: int) -> nn.Sequential:
    """Return LayerNorm, Linear, GELU, Linear, all of one size."""
    return nn.Sequential(
        nn.LayerNorm(size), nn.Linear(size, size), nn.GELU(), nn.Linear(size, size)
    )


def projector(size: int) -> nn.Sequential:
    """Return what turns each token (..., D) into one for the contrastive loss (clip_proj)."""
    parts: list[nn.Module] = []
    for _ in range(3):
        parts += [nn.LayerNorm(size), nn.GELU(), nn.Linear(size, size)]
    return nn.Sequential(*parts)


class TokenHead(nn.Module):
    """Trunk (n, inputs) -> tokens (n, T, D), with the contrastive branch and, if any, the prior.

    ``shape`` is that of the space: (D,) is one token. ``prior`` are the arguments of `Prior`
    after the first two.
    """

    def __init__(
        self, inputs: int, shape: tuple[int, ...], prior: Mapping[str, Any] | None
    ) -> None:
        super().__init__()
        self.tokens, self.size = shape if len(shape) == 2 else (1, *shape)
        self.linear = nn.Linear(inputs, self.tokens * self.size)
        self.project = projector(self.size)
        self.prior = Prior(self.tokens, self.size, **prior) if prior else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return tokens (n, T, D)."""
        return self.linear(x).reshape(-1, self.tokens, self.size)


class LatentHead(nn.Module):
    """Trunk (n, inputs) -> latents (n, C, H, W): a small map, enlarged twice by convolutions.

    The low-level branch. MindEye2's has one more output for a teacher of picture patches, which
    is left out, and the decoder of a large autoencoder as its convolutions.
    """

    def __init__(self, inputs: int, shape: tuple[int, ...], channels: int = 32) -> None:
        super().__init__()
        self.shape, self.small = shape, (-(-shape[1] // 4), -(-shape[2] // 4))
        self.linear = nn.Linear(inputs, channels * math.prod(self.small))
        self.norm = nn.GroupNorm(1, channels)
        self.enter = nn.Conv2d(channels, channels, 3, padding=1)
        self.middle = nn.Conv2d(channels, channels, 3, padding=1)
        self.leave = nn.Conv2d(channels, shape[0], 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return latents (n, C, H, W)."""
        z = self.norm(self.linear(x).reshape(len(x), -1, *self.small))
        for convolution in (self.enter, self.middle):
            z = functional.interpolate(functional.silu(convolution(z)), scale_factor=2)
        return self.leave(z)[:, :, : self.shape[1], : self.shape[2]]


# ------------------------------------------------------------------------------------------- prior


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
        rates = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half).to(noisy))
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

    def sample(self, brain: torch.Tensor, steps: int, seed: int) -> torch.Tensor:
        """Return tokens (n, T, D) by ``steps`` of DDIM without noise (Song et al. 2021).

        All trials begin with the noise that ``seed`` decides, so that a trial's answer is its own;
        differentiable to ``brain``. One step gives the expected embedding of that brain, since
        nearly pure noise says nothing; more steps come nearer to one possible embedding.
        """
        drawn = np.random.default_rng(seed).standard_normal((self.tokens, self.size))
        x = torch.from_numpy(drawn.astype(np.float32)).to(brain).expand_as(brain)
        levels = np.linspace(LEVELS - 1, 0, steps + 1).round().astype(int)[:-1]
        for i, level in enumerate(levels):
            clean = self(x, torch.full((len(x),), int(level), device=x.device), brain)
            if i + 1 == len(levels):
                break
            kept, later = self.kept[int(level)], self.kept[int(levels[i + 1])]
            noise = (x - kept.sqrt() * clean) / (1 - kept).sqrt()
            x = later.sqrt() * clean + (1 - later).sqrt() * noise
        return clean


def noise_schedule() -> torch.Tensor:
    """Return the share of a clean embedding's variance kept at each level, float32 (LEVELS,).

    The cosine schedule (Nichol & Dhariwal 2021, arXiv 2102.09672, with its 0.008).
    """
    x = torch.linspace(0, LEVELS, LEVELS + 1, dtype=torch.float64)
    kept = torch.cos((x / LEVELS + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = (1 - kept[1:] / kept[:-1]).clamp(0, 0.999)
    return (1 - betas).cumprod(0).float()


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


# ------------------------------------------------------------------------------- published weights

# Published parts that have no place here, and why; each is named in what `convert` returns.
WITHOUT_PLACE = {
    "backbone.blin1.": "the low-level branch",
    "backbone.bnorm.": "the low-level branch",
    "backbone.bupsampler.": "the low-level branch",
    "backbone.b_maps_projector.": "the low-level branch's second output",
    "diffusion_prior.net.null_brain_embeds": "used only by guidance, which is off",
    "diffusion_prior.net.null_image_embed": "used only by guidance, which is off",
}
SCHEDULE = "diffusion_prior.noise_scheduler."
FREQUENCIES = ".rotary_emb.freqs"


@dataclass(frozen=True, eq=False)
class Converted:
    """Published weights under our names.

    ``architecture`` are the constructor's settings of a `Mixer`, ``shape`` (T, D) the tokens that
    it gives, ``voxels`` the inputs of each subject's layer, ``state`` all weights (no voxel
    statistics: the published betas are standardised already). ``left_out``: one entry for each
    published part without a place here, its name and why.
    """

    architecture: dict[str, Any]
    shape: tuple[int, int]
    voxels: dict[str, int]
    state: dict[str, torch.Tensor]
    left_out: tuple[str, ...]


def convert(state: Mapping[str, torch.Tensor], subjects: Collection[str]) -> Converted:
    """Return what a published ``model_state_dict`` holds, under our names.

    MindEye2's (``ridge``, ``backbone``, ``diffusion_prior``) and NeuralDiffuser's c and g encoders
    (``voxelenc`` instead of ``ridge``; HaoyyLi/NeuralDiffuser, src/train_c.py, src/train_g.py).
    Sizes are read from the tensors.

    Parameters
    ----------
    state
        Name -> tensor, whatever floating type.
    subjects
        Whose layers ``linears.0``, ``linears.1`` ... are: the file does not say, and a trial that
        passes another subject's layer gives nonsense that looks like a result.

    Raises
    ------
    UserError
        With all unknown and missing names in one sentence; or sizes or a noise schedule that do
        not belong together; or another number of subjects.
    """
    layers = "voxelenc" if any(key.startswith("voxelenc.") for key in state) else "ridge"
    count = _count(state, f"{layers}.linears.")
    if len(set(subjects)) != len(subjects) or len(subjects) != max(count, 1):
        raise UserError(
            f"The checkpoint has the layers of {count} subject(s); name as many subjects, each "
            f"once and in the order it was trained with, found {', '.join(subjects) or 'none'}."
        )
    blocks = _count(state, "backbone.mixer_blocks1.")
    depth = _count(state, "diffusion_prior.net.causal_transformer.layers.")
    has_prior = any(key.startswith("diffusion_prior.") for key in state)
    names = _names(layers, tuple(subjects), blocks, depth, has_prior)
    held_out = {key for key in state if key.startswith(tuple(WITHOUT_PLACE))}
    derived = {key for key in state if key.startswith(SCHEDULE) or key.endswith(FREQUENCIES)}
    unknown = sorted(set(state) - set(names) - held_out - derived)
    missing = sorted(set(names) - set(state))
    if unknown or missing:
        raise UserError(
            "These are not the weights of MindEye2 or of a c or g encoder of NeuralDiffuser as "
            f"published: unknown are {', '.join(unknown) or 'none'}; missing are "
            f"{', '.join(missing) or 'none'}; give the model_state_dict of a file that their "
            "training wrote."
        )
    ours = {names[key]: state[key].detach().float() for key in names}
    hidden = ours["trunk.within.0.0.weight"].shape[0]
    streams = ours["trunk.across.0.0.weight"].shape[0]
    size = ours["heads.0.project.0.weight"].shape[0]
    tokens = ours["heads.0.linear.weight"].shape[0] // size
    width = next(iter(ours.values())).shape[0]
    if width != hidden:
        raise UserError(
            f"The subjects' layers give {width} numbers and the backbone takes {hidden}; the "
            "tensors are of two checkpoints."
        )
    prior = _prior_sizes(state, ours, depth) if has_prior else None
    architecture = {
        "width": width,
        "streams": streams,
        "hidden": hidden,
        "blocks": blocks,
        "prior": prior,
    }
    voxels = {s: ours[f"layers.of_{s}.weight"].shape[1] for s in subjects}
    parts = {prefix: sum(key.startswith(prefix) for key in held_out) for prefix in WITHOUT_PLACE}
    left_out = tuple(
        f"{prefix.rstrip('.')} ({found} tensor(s)): {WITHOUT_PLACE[prefix]}"
        for prefix, found in parts.items()
        if found
    )
    return Converted(architecture, (tokens, size), voxels, ours, left_out)


def _count(state: Collection[str], prefix: str) -> int:
    """Return one more than the largest number that follows ``prefix`` in a name."""
    found = (key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix))
    return 1 + max((int(number) for number in found if number.isdigit()), default=-1)


def _names(
    layers: str, subjects: tuple[str, ...], blocks: int, depth: int, prior: bool
) -> dict[str, str]:
    """Return published name -> ours, for every tensor that has a place."""
    both = ("weight", "bias")
    pairs: dict[str, str] = {}

    def add(theirs: str, ours: str, ends: tuple[str, ...] = both) -> None:
        pairs.update({f"{theirs}.{end}": f"{ours}.{end}" for end in ends})

    for i, subject in enumerate(subjects):
        add(f"{layers}.linears.{i}", f"layers.of_{subject}")
    for half, ours in (("mixer_blocks1", "within"), ("mixer_blocks2", "across")):
        for i in range(max(blocks, 1)):
            # their Sequential in a Sequential has a dropout at 1.2
            for place, mine in (("0", "0"), ("1.0", "1"), ("1.3", "3")):
                add(f"backbone.{half}.{i}.{place}", f"trunk.{ours}.{i}.{mine}")
    add("backbone.backbone_linear", "heads.0.linear")
    for i in (0, 2, 3, 5, 6, 8):
        add(f"backbone.clip_proj.{i}", f"heads.0.project.{i}")
    if not prior:
        return pairs
    net, mine = "diffusion_prior.net", "heads.0.prior"
    for place, layer in (("0.0", 0), ("1.0", 2), ("2", 4)):
        add(f"{net}.to_time_embeds.0.1.net.{place}", f"{mine}.level.{layer}")
    pairs[f"{net}.learned_query"] = f"{mine}.position"
    body = f"{net}.causal_transformer"
    weight = ("weight",)
    add(f"{body}.rel_pos_bias.relative_attention_bias", f"{mine}.distance", weight)
    for i in range(max(depth, 1)):
        attention, gated = f"{mine}.attentions.{i}", f"{mine}.gated.{i}"
        pairs[f"{body}.layers.{i}.0.null_kv"] = f"{attention}.besides"
        add(f"{body}.layers.{i}.0.norm", f"{attention}.norm", ("g",))
        add(f"{body}.layers.{i}.0.to_q", f"{attention}.query", weight)
        add(f"{body}.layers.{i}.0.to_kv", f"{attention}.key_value", weight)
        add(f"{body}.layers.{i}.0.to_out.0", f"{attention}.out", weight)
        add(f"{body}.layers.{i}.0.to_out.1", f"{attention}.out_norm", ("g",))
        add(f"{body}.layers.{i}.1.0", f"{gated}.norm", ("g",))
        add(f"{body}.layers.{i}.1.1", f"{gated}.enter", weight)
        add(f"{body}.layers.{i}.1.5", f"{gated}.leave", weight)
    add(f"{body}.norm", f"{mine}.norm", ("g",))
    add(f"{body}.project_out", f"{mine}.leave", weight)
    return pairs


def _prior_sizes(
    state: Mapping[str, torch.Tensor], ours: Mapping[str, torch.Tensor], depth: int
) -> dict[str, Any]:
    """Return the arguments of `Prior`, after comparing what follows from formulas with them."""
    head_size = ours["heads.0.prior.attentions.0.besides"].shape[1]
    expected = {f"{SCHEDULE}alphas_cumprod": noise_schedule()}
    expected |= {key: rotary_rates(head_size) for key in state if key.endswith(FREQUENCIES)}
    for key, values in expected.items():
        found = state.get(key)
        if found is not None and (
            found.shape != values.shape or not torch.allclose(found.float(), values, atol=1e-3)
        ):
            raise UserError(
                f"{key} is not that of MindEye2's prior ({LEVELS} levels of noise, cosine "
                "schedule, rotary rates to base 10,000); such a prior cannot be held."
            )
    return {
        "width": ours["heads.0.prior.position"].shape[1],
        "depth": depth,
        "heads": ours["heads.0.prior.distance.weight"].shape[1],
        "head_size": head_size,
        "inner": ours["heads.0.prior.gated.0.leave.weight"].shape[1],
        "adds": False,
    }
