"""Published checkpoints of others: what is inside a file.

Files are read with ``weights_only=True``. MinD-Vis files also pickle a ``config`` object; its
classes are replaced by one that holds attributes and can do nothing. Layouts: MedARC-AI/MindEyeV2
(src/models.py, src/Train.ipynb), HaoyyLi/NeuralDiffuser (src/train_c.py, src/train_g.py),
zjc062/mind-vis (code/sc_mbm/utils.py, code/dc_ldm/ldm_for_fmri.py, code/config.py).
"""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.files import guard
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

ENDINGS = (".pth", ".pt", ".ckpt", ".safetensors")
STATES = ("model_state_dict", "state_dict", "model")  # where files keep their tensors
CONFIGS = tuple(  # what MinD-Vis calls the class of its config, over its versions
    f"config.Config_{name}"
    for name in ("MAE_fMRI", "MBM_fMRI", "MAE_finetune", "MBM_finetune", "Generative_Model")
)
MAE = "cond_stage_model.mae."
SHOWN = 3  # tensors of a part whose shapes are told


class Inert:
    """What stands for a pickled configuration: it holds attributes and has no method."""


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
        "MinD-Vis' fine-tuned model (finetuned.pth)",
        {
            MAE: "fMRI encoder",
            "cond_stage_model.channel_mapper.": "patches to 77 tokens of context",
            "cond_stage_model.dim_mapper.": "width of the context",
            "model.diffusion_model.": "latent diffusion UNet",
            "model_ema.": "averaged copy of the UNet",
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
    """

    path: Path
    kind: str
    state: Mapping[str, torch.Tensor] = field(repr=False)
    parts: tuple[Part, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    beside: tuple[str, ...]
    config: Mapping[str, Any]

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
        return lines


def open_checkpoint(path: Path) -> Found:
    """Return what a ``.pth``, ``.pt``, ``.ckpt`` or ``.safetensors`` file holds.

    Nothing in it is run; a file that asks for that, or is damaged, raises `UserError`.
    """
    path = Path(path)
    if path.suffix not in ENDINGS or not path.is_file():
        raise UserError(
            f"A checkpoint is a file that ends in {', '.join(ENDINGS)}, found {path}; name that "
            "file."
        )
    content = _read(path)
    state, beside, config = _split(content)
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
    )


def _read(path: Path) -> Any:
    import torch
    from safetensors.torch import load_file

    with guard(path):
        if path.suffix == ".safetensors":
            return load_file(path)
        in_zip = zipfile.is_zipfile(path)
        inert = [(Inert, name) for name in CONFIGS]
        with torch.serialization.safe_globals(inert):
            try:
                asked = (
                    torch.serialization.get_unsafe_globals_in_checkpoint(path) if in_zip else []
                )
                if asked:
                    raise _wants_more(path, asked)
                return torch.load(path, "cpu", weights_only=True, mmap=in_zip or None)
            except pickle.UnpicklingError as error:
                asked = re.findall(r"GLOBAL (\w+(?:\.\w+)+)", str(error))
                raise _wants_more(path, asked or ["something else"]) from error


def _wants_more(path: Path, asked: Sequence[str]) -> UserError:
    return UserError(
        f"{path} is not opened: beside tensors it asks to build {', '.join(sorted(set(asked)))}, "
        "and loading that would run code that the file chooses; ask its authors for a file of "
        "tensors alone (safetensors, or the state dict saved by itself)."
    )


def _split(content: Any) -> tuple[dict[str, torch.Tensor], tuple[str, ...], dict[str, Any]]:
    """Return the tensors of the model, the names of what lies beside them, and the config."""
    import torch

    if not isinstance(content, Mapping):
        return {}, (), {}
    where = next((key for key in STATES if isinstance(content.get(key), Mapping)), None)
    inner = content if where is None else content[where]
    state = {str(k): v for k, v in inner.items() if isinstance(v, torch.Tensor)}
    rest = [key for key in content if key != where] if where is not None else []
    config = content.get("config")
    return state, tuple(map(str, rest)), vars(config) if isinstance(config, Inert) else {}


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
        if any(name.startswith(first) for name in state) and (
            kind.startswith("mind-vis") or any(name.startswith("backbone.") for name in state)
        ):
            return kind
    return ""


def _part(prefix: str, what: str, some: Mapping[str, torch.Tensor]) -> Part:
    shapes = [f"{name} {tuple(z.shape)}" for name, z in some.items()][:SHOWN]
    values = sum(math.prod(z.shape) for z in some.values())
    return Part(prefix, what, len(some), values, tuple(shapes))
