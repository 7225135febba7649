"""Published models of open_clip as embedders of pictures and texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.embedders.files import check_network, numbers_in
from backends.embedders.pocket import in_pieces, last_tokens
from backends.embedders.published import Pretrained
from explorer.files import read_object
from explorer.types import EmbeddingSpace

if TYPE_CHECKING:
    import torch


class OpenCLIP(Pretrained):
    """A CLIP of open_clip with its own preprocessing.

    ``image`` and ``text`` are the projected vectors as the model gives them, not of unit length;
    ``tokens`` are the patches' states after the last LayerNorm, without the class token and before
    the projection, as MindEye2 takes them (open_clip's ``output_tokens``;
    MedARC-AI/MindEyeV2, src/generative_models/sgm/modules/encoders/modules.py).

    OpenAI's were trained with another activation, QuickGELU, than others'; with the wrong one of
    the two, embeddings are plausible and wrong. See `quick_gelu_of`.
    """

    files = ("open_clip_config.json", "open_clip_model.safetensors")
    by_openai = False

    def _load(self, folder: Path) -> None:
        import open_clip

        numbers, source = numbers_in(folder / self.files[1]), f"local-dir:{folder}"
        quick, self._heeded = quick_gelu_of(folder, self.by_openai)
        sizes = read_object(folder / self.files[0])["model_cfg"]
        check_network(lambda: open_clip.model.CLIP(**sizes), numbers)
        model, self.prepare = open_clip.create_model_from_pretrained(
            source, force_quick_gelu=quick
        )
        self.tokenizer = open_clip.get_tokenizer(source)
        self.model = model.to(self.device).eval().requires_grad_(False)

    def _encode(self, pixels: torch.Tensor, space: EmbeddingSpace) -> torch.Tensor:
        if space.layer == "tokens":
            return last_tokens(self.model, image=pixels)
        return self.model.encode_image(pixels)

    def see(self, pixels: torch.Tensor, space: EmbeddingSpace) -> torch.Tensor:
        """Return embeddings (n, ...) of square pixels (n, 3, S, S) in -1 ... 1, with a gradient.

        Prepared as pictures are (bicubic), but for the rounding of grey levels.
        """
        import torch
        from torch.nn.functional import interpolate

        visual, how = self.model.visual, self.model.visual.preprocess_cfg
        mean, sd = (torch.tensor(how[key], device=pixels.device) for key in ("mean", "std"))
        shape = {"mode": "bicubic", "antialias": True, "align_corners": False}
        small = interpolate((pixels + 1) / 2, visual.image_size, **shape).clamp(0, 1)
        return self._encode((small - mean[:, None, None]) / sd[:, None, None], space)

    def encode(self, prepared: torch.Tensor, space: EmbeddingSpace) -> torch.Tensor:
        """Return embeddings (n, ...) of pixels that somebody has prepared, with a gradient."""
        return self._encode(prepared, space)

    def embed_text(self, captions: Sequence[str], space: EmbeddingSpace) -> np.ndarray:
        """Return float32 (n, *space.shape) for captions."""

        def encode(part: Sequence[str]) -> torch.Tensor:
            return self._read(part, space)

        return self._checked(in_pieces(captions, encode), space)

    def _read(self, captions: Sequence[str], space: EmbeddingSpace) -> torch.Tensor:
        return self.model.encode_text(self.tokenizer(list(captions)).to(self.device))


class ViTB32(OpenCLIP):
    """OpenAI's CLIP ViT-B/32 (Radford et al. 2021), and what its first six blocks add.

    ``block1`` to ``block6`` are the outputs of the MLPs of these blocks before they are added, the
    class token first: the features that guide NeuralDiffuser. Its hooks call them Linear-2, 4 ...
    12, since each MLP has two linear layers (HaoyyLi/NeuralDiffuser, after MindDiffuser).
    """

    name, hub, size = "ViT-B-32", "timm/vit_base_patch32_clip_224.openai", "605 MB"
    by_openai = True
    spaces = (
        EmbeddingSpace("ViT-B-32", "image", (512,)),
        *(EmbeddingSpace("ViT-B-32", f"block{i}", (50, 768)) for i in range(1, 7)),
    )
    text_spaces = (EmbeddingSpace("ViT-B-32", "text", (512,)),)

    def _encode(self, pixels: torch.Tensor, space: EmbeddingSpace) -> torch.Tensor:
        if space.layer == "image":
            return self.model.encode_image(pixels)
        blocks, found = self.model.visual.transformer.resblocks, []
        block = blocks[int(space.layer.removeprefix("block")) - 1]
        handle = block.mlp.register_forward_hook(lambda *call: found.append(call[-1]))
        try:
            self.model.encode_image(pixels)
        finally:
            handle.remove()
        return found[0]


class ViTL14(OpenCLIP):
    """OpenAI's CLIP ViT-L/14 (Radford et al. 2021), and the contexts of Versatile Diffusion.

    Those are all states after the last LayerNorm, projected and divided by the length of what
    stands for the whole: ``vision-context`` the class token and 256 patches, ``text-context`` a
    caption's 77 positions, padded with its end as there (SHI-Labs/Versatile-Diffusion,
    lib/model_zoo/clip.py). Brain-Diffuser and MindEye1 decode them.
    """

    name, hub, size = "ViT-L-14", "timm/vit_large_patch14_clip_224.openai", "1.7 GB"
    by_openai = True
    spaces = (
        EmbeddingSpace("ViT-L-14", "image", (768,)),
        EmbeddingSpace("ViT-L-14", "tokens", (256, 1024)),
        EmbeddingSpace("ViT-L-14", "vision-context", (257, 768)),
    )
    text_spaces = (
        EmbeddingSpace("ViT-L-14", "text", (768,)),
        EmbeddingSpace("ViT-L-14", "text-context", (77, 768)),
    )

    def _encode(self, pixels: torch.Tensor, space: EmbeddingSpace) -> torch.Tensor:
        if space.layer != "vision-context":
            return super()._encode(pixels, space)
        import torch

        found = self.model.forward_intermediates(
            image=pixels,
            image_indices=1,
            image_output_fmt="NLC",
            image_output_extra_tokens=True,
            normalize_intermediates=True,
            intermediates_only=True,
        )
        names = "image_intermediates_prefix", "image_intermediates"
        states = torch.cat([found[name][-1] for name in names], dim=1) @ self.model.visual.proj
        return states / states[:, :1].norm(dim=-1, keepdim=True)

    def _read(self, captions: Sequence[str], space: EmbeddingSpace) -> torch.Tensor:
        if space.layer != "text-context":
            return super()._read(captions, space)
        ids = self.tokenizer(list(captions)).to(self.device)
        end = ids.argmax(dim=1)  # the last of all words
        rows = range(len(ids))
        after = ids.new_tensor(range(ids.shape[1])) > end[:, None]
        ids = ids.where(~after, ids[rows, end][:, None])
        states = last_tokens(self.model, text=ids) @ self.model.text_projection
        return states / states[rows, end][:, None].norm(dim=-1, keepdim=True)


class ViTH14(OpenCLIP):
    """LAION's CLIP ViT-H/14, whose image vector conditions Stable Diffusion 2.1 unCLIP."""

    name, hub, size = "ViT-H-14", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "3.9 GB"
    spaces = (
        EmbeddingSpace("ViT-H-14", "image", (1024,)),
        EmbeddingSpace("ViT-H-14", "tokens", (256, 1280)),
    )
    text_spaces = (EmbeddingSpace("ViT-H-14", "text", (1024,)),)


class ViTBigG14(OpenCLIP):
    """LAION's CLIP ViT-bigG/14, whose tokens are MindEye2's target."""

    name, hub, size = "ViT-bigG-14", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "10.2 GB"
    spaces = (
        EmbeddingSpace("ViT-bigG-14", "image", (1280,)),
        EmbeddingSpace("ViT-bigG-14", "tokens", (256, 1664)),
    )
    text_spaces = (EmbeddingSpace("ViT-bigG-14", "text", (1280,)),)


def quick_gelu_of(folder: Path, by_openai: bool) -> tuple[bool, tuple[str, ...]]:
    """Return whether weights need QuickGELU, and the file beside their own that says so.

    ``open_clip_config.json`` says it, or else the ``config.json`` beside it: as ``hidden_act`` in
    transformers' words, or in the name of timm's architecture. Where neither does, open_clip would
    take the other activation. Of weights expected ``by_openai`` that is refused, unless their own
    numbers tell: OpenAI published its matrices in float16. Raises `ValueError`, also where the
    two files contradict each other.
    """
    own, beside = folder / OpenCLIP.files[0], folder / "config.json"
    said = read_object(own).get("model_cfg", {}).get("quick_gelu")
    about = read_object(beside) if beside.is_file() else {}
    vision = about.get("vision_config", {})
    other = None
    if vision or about.get("model_type") == "clip":
        # transformers leaves out what is its default
        other = vision.get("hidden_act", "quick_gelu") == "quick_gelu"
    elif "quickgelu" in str(about.get("architecture", "")):
        other = True
    if said is None and other is None:
        if not by_openai:
            return False, ()
        if _in_half(folder / OpenCLIP.files[1]):
            return True, ()
        raise ValueError(
            f"{own.name} does not say whether its weights need QuickGELU, as OpenAI's do; write "
            '"quick_gelu": true into its model_cfg for those, false for others'
        )
    if said is None:
        return bool(other), (beside.name,)
    if other is not None and bool(said) != other:
        raise ValueError(
            f'{own.name} says "quick_gelu": {str(bool(said)).lower()} and {beside.name} the '
            "opposite; correct the wrong one"
        )
    return bool(said), ()


def _in_half(path: Path) -> bool:
    """Return whether a matrix of the first block, in float32, has float16 numbers only."""
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stored:
        name = next((n for n in stored.keys() if n.endswith("mlp.c_fc.weight")), None)
        matrix = None if name is None else stored.get_tensor(name)
    full = matrix is not None and matrix.dtype == torch.float32
    return full and torch.equal(matrix.half().float(), matrix)
