"""MindEye2's and NeuralDiffuser's published weights under the names of the mixer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from backends.mappers.parts import upsampler
from backends.mappers.parts.foreign import shape_of
from backends.mappers.parts.prior import LEVELS, noise_schedule, rotary_rates
from explorer.types import EmbeddingSpace, UserError

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
    published part without a place here, its name and why. ``latents`` (C, H, W): what the
    low-level branch gives, where it was taken.
    """

    architecture: dict[str, Any]
    shape: tuple[int, int]
    voxels: dict[str, int]
    state: dict[str, torch.Tensor]
    left_out: tuple[str, ...]
    latents: tuple[int, ...] = ()

    def check(
        self, voxels: Mapping[str, int], space: EmbeddingSpace, low: EmbeddingSpace | None = None
    ) -> None:
        """Refuse what this mapper cannot be: of other voxels, of time steps, of another space."""
        wrong = [subject for subject, count in voxels.items() if self.voxels[subject] != count]
        if wrong:
            raise UserError(
                f"The checkpoint's layer of {wrong[0]} reads {self.voxels[wrong[0]]} voxels, the "
                f"data have {voxels[wrong[0]]}; name the subjects in the order of its training."
            )
        if self.architecture["streams"] > 1:
            raise UserError(
                f"The checkpoint reads {self.architecture['streams']} time steps of every voxel "
                "(seq_len), and a trial here has one beta a voxel; convert one that was trained "
                "with seq_len 1, as MindEye2's published ones were."
            )
        if space.shape != self.shape:
            raise UserError(
                f"The checkpoint gives tokens of shape {self.shape}, {space.name} has "
                f"{space.shape}; name the space that it was trained to."
            )
        if low is not None and low.shape != self.latents:
            raise UserError(
                f"The checkpoint's low-level branch gives latents of shape {self.latents}, "
                f"{low.name} has {low.shape}; leave the branch out."
            )


def convert(
    state: Mapping[str, torch.Tensor], subjects: Collection[str], *, low: bool = False
) -> Converted:
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
    low
        Whether the low-level branch is taken too, which the file must then have.

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
    enlarges, latents = upsampler.published_sizes(state) if low else ({}, ())
    if low:
        names |= upsampler.places(enlarges, latents, "heads.1")
    held_out = {key for key in state if key.startswith(tuple(WITHOUT_PLACE))} - set(names)
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
    (hidden,) = shape_of(ours, "trunk.within.0.0.weight", 1)
    (streams,) = shape_of(ours, "trunk.across.0.0.weight", 1)
    (size,) = shape_of(ours, "heads.0.project.0.weight", 1)
    tokens, rest = divmod(shape_of(ours, "heads.0.linear.weight", 2)[0], size)
    layer_shapes = [shape_of(ours, f"layers.of_{s}.weight", 2) for s in subjects]
    width = layer_shapes[0][0]
    if rest or not tokens:
        raise UserError(
            f"The layer to tokens gives {tokens * size + rest} numbers, which are no tokens of "
            f"{size} as the projection takes; the tensors are of two checkpoints."
        )
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
    if low:
        architecture["upsampler"] = enlarges
    voxels = {s: shape[1] for s, shape in zip(subjects, layer_shapes, strict=True)}
    parts = {prefix: sum(key.startswith(prefix) for key in held_out) for prefix in WITHOUT_PLACE}
    left_out = tuple(
        f"{prefix.rstrip('.')} ({found} tensor(s)): {WITHOUT_PLACE[prefix]}"
        for prefix, found in parts.items()
        if found
    )
    return Converted(architecture, (tokens, size), voxels, ours, left_out, latents)


def _count(state: Collection[str], prefix: str) -> int:
    """Return how many numbers follow ``prefix`` in names; a gap among them is a name missing."""
    found = (key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix))
    return len({number for number in found if number.isdecimal()})


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
    head_size = shape_of(ours, "heads.0.prior.attentions.0.besides", 2)[1]
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
        "width": shape_of(ours, "heads.0.prior.position", 2)[1],
        "depth": depth,
        "heads": shape_of(ours, "heads.0.prior.distance.weight", 2)[1],
        "head_size": head_size,
        "inner": shape_of(ours, "heads.0.prior.gated.0.leave.weight", 2)[1],
        "adds": False,
    }
