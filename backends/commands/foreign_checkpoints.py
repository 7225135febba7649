"""Published checkpoints of others: what is inside a file.

Files of torch.save are read by `explorer.inert`: optimisers, schedulers, configurations and
whatever else a training pickled beside its tensors is told, and never built. Layouts:
MedARC-AI/MindEyeV2 (src/models.py, src/Train.ipynb), HaoyyLi/NeuralDiffuser (src/train_c.py,
src/train_g.py),
zjc062/mind-vis (code/sc_mbm/utils.py, code/dc_ldm/ldm_for_fmri.py, code/config.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.files import guard, read_object, short
from explorer.inert import Placeholder, read_inert
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

ENDINGS = (".pth", ".pt", ".ckpt", ".safetensors")
# Where files keep their tensors; "module" is DeepSpeed's.
STATES = ("model_state_dict", "state_dict", "model", "module")
AVERAGED = (  # where they keep an exponential moving average of them
    *("ema_state_dict", "state_dict_ema", "model_ema_state_dict", "ema_model", "model_ema", "ema"),
)
REBUILT = "torch._utils._rebuild_"  # how pickled tensors begin
KINDS = {"q": "quantised", "sparse": "sparse", "nested": "nested"}
SHADOWS = ("shadow", "state_dict", "module", "shadow_params")  # within an average
INDEX = ".index.json"  # of a checkpoint in several files
MAE = "cond_stage_model.mae."
MANY = 8  # names of what is not built that are told
SHOWN = 3  # tensors of a part whose shapes are told


@dataclass(frozen=True)
class Layout:
    """What one kind of published file holds: parts by the beginning of their names.

    ``needed``: beginnings without which it is not that kind's mapper.
    """

    title: str
    parts: Mapping[str, str]
    needed: tuple[str, ...]


_BACKBONE = {
    "backbone.mixer_blocks1.": "mixer within streams",
    "backbone.mixer_blocks2.": "mixer across streams",
    "backbone.backbone_linear.": "linear layer to tokens",
    "backbone.clip_proj.": "contrastive (retrieval) projection",
    "backbone.blin1.": "low-level branch",
    "backbone.bnorm.": "low-level branch",
    "backbone.bupsampler.": "low-level branch",
    "backbone.b_maps_projector.": "low-level branch, second output",
    "diffusion_prior.": "diffusion prior",
}
_MIXES = tuple(_BACKBONE)[:4]
_SCHEDULE = (
    *("betas", "alphas_cumprod", "sqrt_", "log_one_minus_alphas_cumprod", "posterior_"),
    *("lvlb_weights", "scale_factor", "logvar"),
)
LAYOUTS: dict[str, Layout] = {
    "mindeye2": Layout(
        "MindEye2's training checkpoint",
        {"ridge.linears.": "linear layer of each subject", **_BACKBONE},
        ("ridge.linears.", *_MIXES),
    ),
    "neuraldiffuser": Layout(
        "a c or g encoder of NeuralDiffuser",
        {"voxelenc.linears.": "linear layer of each subject", **_BACKBONE},
        ("voxelenc.linears.", *_MIXES),
    ),
    "neuraldiffuser-z": Layout(
        "the z encoder of NeuralDiffuser (latents)",
        {
            "voxelenc.linears.": "layer of each subject",
            "voxel2sd.mlp.": "residual blocks",
            "voxel2sd.lin1.": "linear layer to a small map",
            "voxel2sd.norm.": "norm of that map",
            "voxel2sd.upsampler.": "decoder that enlarges it to latents",
            "voxel2sd.maps_projector.": "contrastive branch of its training",
        },
        ("voxel2sd.mlp.", "voxelenc.linears.", "voxel2sd.lin1.", "voxel2sd.upsampler."),
    ),
    "mind-vis": Layout(
        "MinD-Vis' fMRI encoder (fmri_encoder.pth)",
        {
            "patch_embed.": "patches of voxels",
            "cls_token": "encoder",
            "pos_embed": "encoder, positions",
            "blocks.": "encoder, transformer",
            "norm.": "encoder",
            "mask_token": "decoder of masked patches",
            "decoder_": "decoder of masked patches",
            "nature_img_": "decoder of pictures",
        },
        ("patch_embed.", "cls_token", "pos_embed", "blocks.", "norm."),
    ),
    "mind-vis-finetuned": Layout(
        "MinD-Vis' or NeuroLens' fine-tuned model (finetuned.pth)",
        {
            MAE: "fMRI encoder",
            "cond_stage_model.channel_mapper.": "patches to 77 tokens of context",
            "cond_stage_model.dim_mapper.": "width of the context",
            "cond_stage_model.clip_": "head that was aligned to CLIP (NeuroLens)",
            "model.diffusion_model.": "latent diffusion UNet",
            "model_ema.": "averaged copy of the UNet",
            "unet.": "Stable Diffusion's UNet (NeuroLens)",
            "vae.": "Stable Diffusion's autoencoder (NeuroLens)",
            "clip_model.": "CLIP that was aligned to (NeuroLens)",
            "first_stage_model.": "autoencoder of pictures",
            **dict.fromkeys(_SCHEDULE, "noise schedule"),
        },
        (MAE,),
    ),
}


@dataclass(frozen=True)
class Part:
    """Tensors whose names begin alike: how many, their values, and the shapes of the first."""

    name: str
    what: str
    tensors: int
    values: int
    shapes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Found:
    """What a file holds. ``kind`` is a key of `LAYOUTS`, "" for an unknown file.

    ``unknown`` and ``missing``: names (or beginnings of names) that its layout does not have, and
    that the file lacks. ``beside``: what else is in the file, not tensors of a model.
    ``averaged``: where the file has an average of its weights (EMA), and ``taken`` whether these
    are that. ``unbuilt``: names of what was pickled beside and is not built.
    """

    path: Path
    kind: str
    state: Mapping[str, torch.Tensor] = field(repr=False)
    parts: tuple[Part, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    beside: tuple[str, ...]
    config: Mapping[str, Any]
    averaged: str = ""
    taken: bool = False
    unbuilt: tuple[str, ...] = ()

    def told(self, tensors: bool = False) -> list[str]:
        """Return what a person wants to know, line by line; ``tensors`` names each of them."""
        title = LAYOUTS[self.kind].title if self.kind else "no published checkpoint known here"
        lines = [f"{self.path.name}: {title}", ""]
        for part in self.parts:
            lines.append(
                f"  {part.name:<36} {part.tensors:>5} tensors {part.values:>14,} values  "
                f"{part.what}"
            )
            more = part.tensors - len(part.shapes)
            shapes = [*part.shapes, f"and {more} more"] if more else part.shapes
            lines += [] if tensors else [f"  {'':<36} {', '.join(shapes)}"]
            lines += [
                f"      {name} {tuple(z.shape)} {str(z.dtype).removeprefix('torch.')}"
                for name, z in (self.state.items() if tensors else ())
                if name.startswith(part.name)
            ]
        lines += ["", f"Unknown: {', '.join(self.unknown) or 'none'}"]
        lines.append(f"Missing: {', '.join(self.missing) or 'none'}")
        if self.beside:
            lines.append(f"Also in the file, not used: {', '.join(self.beside)}")
        if self.averaged:
            which = "the average is read" if self.taken else "add --ema to read the average"
            lines.append(f"Also an average of the weights ({self.averaged}): {which}")
        if self.unbuilt:
            more = len(self.unbuilt) - MANY
            some = [*self.unbuilt[:MANY], f"and {more} more"] if more > 0 else self.unbuilt
            lines.append(f"Pickled beside them, and not built: {', '.join(some)}")
        return lines


def open_checkpoint(path: Path, ema: bool = False) -> Found:
    """Return what a ``.pth``, ``.pt``, ``.ckpt`` or ``.safetensors`` file holds.

    Nothing in it is run. ``ema``: read the average of the weights, of a file that has one. A
    ``.safetensors.index.json`` names the files of a checkpoint that lies in several.
    """
    path = Path(path)
    if not (path.suffix in ENDINGS or path.name.endswith(INDEX)) or not path.is_file():
        raise UserError(
            f"A checkpoint is a file that ends in {', '.join((*ENDINGS, INDEX))}, found {path}; "
            "name that file."
        )
    content, unbuilt = _read(path)
    state, beside, config, averaged = _split(path, content, ema)
    if ema and not averaged:
        raise UserError(f"{path} holds no average of its weights; leave out --ema.")
    if not state:
        raise UserError(f"{path} holds no tensors of a model; name the file that training wrote.")
    state = _unwrapped(path, state, ("module", "_orig_mod"))
    kind = _recognise(state)
    if not kind:
        bare = _unwrapped(path, state, ("model",), first=True)
        kind = _recognise(bare)
        state = bare if kind else state
    known = LAYOUTS[kind].parts if kind else {}
    parts = {prefix: {} for prefix in known}
    unknown = {}
    for name, tensor in state.items():
        prefix = next((prefix for prefix in known if name.startswith(prefix)), None)
        (unknown if prefix is None else parts[prefix])[name] = tensor
    if not kind:
        for name in state:
            parts.setdefault(name.split(".")[0], {})[name] = state[name]
        unknown = {}
    return Found(
        path,
        kind,
        state,
        tuple(_part(p, known.get(p, ""), some) for p, some in parts.items() if some),
        tuple(unknown),
        tuple(p for p in (LAYOUTS[kind].needed if kind else ()) if not parts[p]),
        beside,
        config,
        averaged,
        ema,
        unbuilt,
    )


def _read(path: Path) -> tuple[Any, tuple[str, ...]]:
    """Return the content of a file, and the names of what was not built of it."""
    from safetensors.torch import load_file

    if path.name.endswith(INDEX):
        return _shards(path), ()
    if path.suffix == ".safetensors":
        with guard(path):
            return load_file(path), ()
    return read_inert(path)


def _shards(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint in several files, which an index names."""
    from safetensors.torch import load_file

    places = read_object(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise UserError(f"{path} has no weight_map of tensors and their files; copy it again.")
    found: dict[str, torch.Tensor] = {}
    for name in sorted(set(places.values())):
        file = path.parent / name
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(f"{path} names {short(repr(name))}, expected a file beside it.")
        with guard(file, missing=f"copy it beside {path.name}"):
            tensors = load_file(file)
        for key, tensor in tensors.items():
            if places.get(key) != name:
                raise UserError(
                    f"{file} holds {short(repr(key))}, which {path.name} does not look for there; "
                    "copy the files again."
                )
            found[key] = tensor
    if lacking := sorted(set(places) - set(found)):
        raise UserError(
            f"{path.name} names {short(repr(lacking[0]))} in {places[lacking[0]]}, which does not "
            "hold it; copy the files again."
        )
    return found


def _split(
    path: Path, content: Any, ema: bool
) -> tuple[dict[str, torch.Tensor], tuple[str, ...], dict[str, Any], str]:
    """Return the tensors of the model, the names of what lies beside, the config, and the average.

    The last is where an average of the weights lies, "" for nowhere.
    """
    import torch

    if not isinstance(content, Mapping):
        return {}, (), {}, ""
    averaged = next((key for key in AVERAGED if _within(content.get(key))), "")
    states = [key for key in STATES if _tensors(content.get(key))]
    where = averaged if ema and averaged else next(iter(states), None)
    if where is None and averaged and not _tensors(content):
        raise UserError(f"{path} holds nothing but an average of weights; add --ema to read it.")
    inner = content if where is None else content[where]
    if where == averaged:
        inner = _within(inner)
    state = {str(k): v for k, v in inner.items() if isinstance(v, torch.Tensor)}
    for name, value in inner.items():
        if isinstance(value, Placeholder) and value.name.startswith(REBUILT):
            kind = value.name.removeprefix(REBUILT).partition("tensor")[0].rstrip("_")
            raise UserError(
                f"{path}: {short(repr(name))} is {KINDS.get(kind, 'of another kind')}, expected a "
                "plain tensor of numbers; save it dense and as float32."
            )
    rest = [key for key in content if key != where] if where is not None else []
    config = content.get("config")
    told = config.state if isinstance(config, Placeholder) else {}
    return state, tuple(map(str, rest)), told if isinstance(told, dict) else {}, averaged


def _within(average: Any) -> Any:
    """Return the state of an average, which may lie beside its rate of decay; None for none."""
    if not isinstance(average, Mapping):
        return None
    inner = next((average[key] for key in SHADOWS if _tensors(average.get(key))), average)
    return inner if _tensors(inner) else None


def _tensors(value: Any) -> bool:
    """Return whether a value is a state: a dict that holds a tensor."""
    import torch

    held = value.values() if isinstance(value, Mapping) else ()
    return any(isinstance(one, torch.Tensor) for one in held)


def _unwrapped(
    path: Path, state: Mapping[str, torch.Tensor], wrappers: Sequence[str], first: bool = False
) -> dict[str, torch.Tensor]:
    """Return tensors by the names they have without what wraps a model, or a part of it.

    ``module`` is written by parallel training, ``_orig_mod`` by `torch.compile`, ``model`` (only
    as the ``first`` part of a name, where it is no part of the model) by Lightning and others.
    """
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        parts = name.split(".")
        kept = [part for i, part in enumerate(parts) if part not in wrappers or (first and i)]
        bare = ".".join(kept)
        if bare in found:
            raise UserError(
                f"{path} holds {bare} twice, once as {name}; save the model's own state alone."
            )
        found[bare] = tensor
    return found


def _recognise(state: Mapping[str, torch.Tensor]) -> str:
    for kind, layout in LAYOUTS.items():
        first = layout.needed[0]
        mixes = "backbone." if first.endswith(".linears.") else ""
        if all(any(name.startswith(mark) for name in state) for mark in (first, mixes)):
            return kind
    return ""


def _part(prefix: str, what: str, some: Mapping[str, torch.Tensor]) -> Part:
    shapes = [f"{name} {tuple(z.shape)}" for name, z in some.items()][:SHOWN]
    values = sum(math.prod(z.shape) for z in some.values())
    return Part(prefix, what, len(some), values, tuple(shapes))
