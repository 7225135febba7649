"""DreamSim's networks from its published files, read by the names of their tensors.

A picture is near another where the vision transformers that people's judgements have tuned see the
same (Fu et al. 2023, arXiv 2306.09344; ssundaram21/dreamsim, dreamsim/model.py). The distance is
1 - the cosine of embeddings that have their mean taken away, so 1 - a Pearson correlation. A
folder holds, as the published zips do,

- ``dino_vitbase16_pretrain.pth`` (of facebookresearch/dino, there or in ``checkpoints/``),
  ``clip_vitb16_pretrain.pth.tar``, ``open_clip_vitb16_pretrain.pth.tar``: the networks that were
  tuned, in DINO's layout;
- ``ensemble_lora/adapter_config.json`` and ``adapter_model.safetensors`` (or ``.bin``): low-rank
  changes of some of their matrices, W + alpha / r * B A.

One network alone (``open_clip_vitb32_single_lora`` and so on) is read in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.files import read_object

if TYPE_CHECKING:
    import torch

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_COLOURS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HEAD = 64  # numbers of each attention head, in all of these networks
LAYER = "extractor_list.{}.model.{}"  # names the matrices of network k in the low-rank changes


@dataclass(frozen=True)
class Branch:
    """One network: its files, and what it gives. ``clip``: projected, with CLIP's colours."""

    files: tuple[str, ...]
    clip: bool
    quick: bool = False


DINO = Branch(
    (
        *("dino_vitbase16_pretrain.pth", "checkpoints/dino_vitbase16_pretrain.pth"),
        "hub/checkpoints/dino_vitbase16_pretrain.pth",
    ),
    False,
)
KINDS = {  # folder of the changes -> networks, in the order of their names there
    "ensemble_lora": (
        DINO,
        Branch(("clip_vitb16_pretrain.pth.tar",), True, quick=True),
        Branch(("open_clip_vitb16_pretrain.pth.tar",), True),
    ),
    "dino_vitb16_single_lora": (DINO,),
    "clip_vitb32_single_lora": (Branch(("clip_vitb32_pretrain.pth.tar",), True, quick=True),),
    "open_clip_vitb32_single_lora": (Branch(("open_clip_vitb32_pretrain.pth.tar",), True),),
}


def opened(config: Path) -> torch.nn.Module:
    """Return what maps pixels (n, 3, 224, 224) in 0 ... 1 to embeddings, by a folder's changes.

    ``config``: the ``adapter_config.json`` of one of `KINDS`. What does not fit raises
    `ValueError`, or what torch raises.
    """
    changes, scale = _changes(config.parent)
    branches = []
    for k, branch in enumerate(KINDS[config.parent.name]):
        found = [config.parents[1] / name for name in branch.files]
        file = next((one for one in found if one.is_file()), found[0])
        if not file.is_file():
            raise ValueError(f"{file.name} is not in {file.parent}")
        state = dict(_state(file))
        used = _tune(state, changes, scale, k)
        for name in used:
            del changes[name]
        branches.append(_network(state, branch))
    if changes:
        raise ValueError(f"{sorted(changes)[0]} changes no matrix of these networks")
    return _joined(branches)


def _changes(folder: Path) -> tuple[dict[str, torch.Tensor], float]:
    """Return low-rank matrices by name, without what peft puts in front, and their scale."""
    settings = read_object(folder / "adapter_config.json")
    r, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(r, int) or r < 1 or not isinstance(alpha, int | float):
        raise ValueError(f"adapter_config.json says r = {r!r} and lora_alpha = {alpha!r}")
    if settings.get("bias", "none") != "none" or settings.get("use_rslora"):
        raise ValueError("adapter_config.json says changes of biases, which are not read")
    if (folder / "adapter_model.safetensors").is_file():
        from safetensors.torch import load_file

        found: Mapping[str, Any] = load_file(folder / "adapter_model.safetensors")
    else:
        found = read_state(folder / "adapter_model.bin")
    return {k.partition("base_model.model.")[2] or k: v for k, v in found.items()}, alpha / r


def read_state(file: Path) -> dict[str, Any]:
    """Return the tensors of a file of weights; nothing in it is run."""
    import torch

    return torch.load(file, map_location="cpu", weights_only=True)


def _tune(
    state: dict[str, torch.Tensor], changes: Mapping[str, torch.Tensor], scale: float, k: int
) -> list[str]:
    """Add the changes of network ``k`` to its matrices; return their names."""
    used = []
    for name, low in changes.items():
        layer, end, _ = name.partition(".lora_A.")
        inner = layer.partition(LAYER.format(k, ""))[2]
        if not end or not inner:
            continue
        other = name.replace(".lora_A.", ".lora_B.")
        if f"{inner}.weight" not in state or other not in changes:
            raise ValueError(f"{name} changes no matrix of these networks")
        state[f"{inner}.weight"] = state[f"{inner}.weight"] + scale * (changes[other] @ low)
        used += [name, other]
    return used


def _state(file: Path) -> Mapping[str, torch.Tensor]:
    """Return the tensors of a network in DINO's layout, wherever in the file they lie."""
    found = read_state(file)
    return found.get("state_dict", found)


def _network(state: Mapping[str, torch.Tensor], branch: Branch) -> torch.nn.Module:
    """Return one network with a state in DINO's layout: pixels in 0 ... 1 to its class token.

    A CLIP in that layout has a LayerNorm in the place of the dropout after the positions, and
    its token is normalised and projected; DINO's is as the last block leaves it.
    """
    import timm
    import torch
    from torchvision.transforms import Normalize

    width, patch = state["cls_token"].shape[-1], state["patch_embed.proj.weight"].shape[-1]
    eps = 1e-5 if branch.clip else 1e-6
    network = timm.models.VisionTransformer(
        img_size=round((state["pos_embed"].shape[1] - 1) ** 0.5) * patch,
        patch_size=patch,
        embed_dim=width,
        depth=len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
        num_heads=width // HEAD,
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        num_classes=0,
        norm_layer=partial(torch.nn.LayerNorm, eps=eps),
        act_layer=_quick_gelu() if branch.quick else torch.nn.GELU,
    )
    state = dict(state)
    if branch.clip:
        projection = state.pop("proj").T
        network.norm_pre = torch.nn.LayerNorm(width, eps=eps)
        network.head = torch.nn.Linear(*reversed(projection.shape), bias=False)
        state["head.weight"] = projection
    else:
        network.norm = torch.nn.Identity()
        state = {k: v for k, v in state.items() if not k.startswith(("norm.", "head."))}
    network.load_state_dict({k.replace("pos_drop.", "norm_pre."): v for k, v in state.items()})
    return torch.nn.Sequential(Normalize(*(CLIP_COLOURS if branch.clip else IMAGENET)), network)


def _quick_gelu() -> type[torch.nn.Module]:
    from open_clip.transformer import QuickGELU

    return QuickGELU


def _joined(branches: list[torch.nn.Module]) -> torch.nn.Module:
    """Return networks side by side; what the module ``joined`` gives is the embedding."""
    import torch

    class Joined(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branches, self.joined = torch.nn.ModuleList(branches), torch.nn.Identity()

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.joined(torch.cat([branch(pixels) for branch in self.branches], dim=-1))

    return Joined()
