"""Images and captions to embeddings, by what ships; `published` has the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.embedders.files import described, hash_of_files
from explorer import stopping
from explorer.types import CARD, WEIGHTS, EmbeddingSpace

if TYPE_CHECKING:
    import torch

CONTEXT_LENGTH = 24
ROWS_AT_ONCE = 128
WORDS = re.compile(r"[a-z0-9]+")


def words(caption: str) -> list[str]:
    """Return a caption's lower-case words and numbers."""
    return WORDS.findall(caption.lower())


class WordTokenizer:
    """Whole words of a closed vocabulary to ids: 0 pads, 1 is unknown, the last id ends the text.

    open_clip's byte-pair table would be 49,408 rows wide, most of the model; the captions of the
    simulated scenes use fewer than 300 words. The end has the highest id because open_clip's text
    tower pools at the position of the largest id.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.vocabulary = tuple(vocabulary)
        self._ids = {word: i + 2 for i, word in enumerate(self.vocabulary)}

    @property
    def size(self) -> int:
        """The number of ids: the words, padding, unknown and the end."""
        return len(self.vocabulary) + 3

    @classmethod
    def learn(cls, captions: Sequence[str]) -> WordTokenizer:
        """Return a tokenizer of every word in ``captions``, in alphabetical order."""
        return cls(sorted({word for caption in captions for word in words(caption)}))

    def __call__(self, captions: Sequence[str]) -> torch.Tensor:
        """Return int64 (n, 24); longer captions lose their last words, never the end mark."""
        import torch

        ids = torch.zeros(len(captions), CONTEXT_LENGTH, dtype=torch.long)
        for row, caption in enumerate(captions):
            found = [self._ids.get(word, 1) for word in words(caption)][: CONTEXT_LENGTH - 1]
            ids[row, : len(found) + 1] = torch.tensor([*found, self.size - 1])
        return ids


def clip_model(vocabulary_size: int, width: int = 192, layers: int = 4) -> torch.nn.Module:
    """Return an untrained open_clip model of pocket size for 128 x 128 pictures, 128-d.

    Four convolutions of stride 2 make the tokens of 16 x 16 pixels instead of one matrix
    (Xiao et al. 2021, arXiv 2106.14881): shapes are learned from a third of the pictures.
    """
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
    from torch import channels_last, nn

    model = CLIP(
        embed_dim=128,
        vision_cfg=CLIPVisionCfg(
            layers=layers,
            width=width,
            head_width=64,
            patch_size=16,
            image_size=128,
            pool_type="avg",
            output_tokens=False,
        ),
        text_cfg=CLIPTextCfg(
            context_length=CONTEXT_LENGTH,
            vocab_size=vocabulary_size,
            width=96,
            heads=4,
            layers=3,
        ),
    )
    stem: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        stem += [
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(8, after),
            nn.GELU(),
        ]
    stem.append(nn.Conv2d(128, width, 3, stride=2, padding=1, bias=False))
    model.visual.conv1 = nn.Sequential(*stem).to(memory_format=channels_last)
    return model


def to_tensor(images: Sequence[np.ndarray] | np.ndarray, size: int) -> torch.Tensor:
    """Return float32 (n, 3, size, size) in -1 ... 1 for images uint8 (H, W, 3) of any size."""
    import torch
    from PIL import Image

    square = [
        image
        if image.shape[:2] == (size, size)
        else np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
        for image in images
    ]
    pixels = torch.from_numpy(np.stack(square))
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


class PocketClip:
    """A small CLIP (open_clip) trained on the simulated scenes and their captions.

    Of a picture: ``pocket-clip/image``, the image tower's output, unit norm, 128-d, and
    ``pocket-clip/tokens``, what its last block says of each of 8 x 8 patches (after the last
    LayerNorm, before pooling and projection). Of a caption: ``pocket-clip/text``, comparable with
    ``image``, and ``pocket-clip/context``, the text tower's last states of all 24 positions, which
    is what a generator of images from text is conditioned on.

    Attributes
    ----------
    fingerprint : str
        Names the exact weights and vocabulary.
    """

    spaces = (
        EmbeddingSpace("pocket-clip", "image", (128,), unit_norm=True),
        EmbeddingSpace("pocket-clip", "tokens", (64, 192)),
    )
    text_spaces = (
        EmbeddingSpace("pocket-clip", "text", (128,), unit_norm=True),
        EmbeddingSpace("pocket-clip", "context", (CONTEXT_LENGTH, 96)),
    )

    def __init__(self, checkpoints: Path, device: str = "cpu") -> None:
        """Load ``pocket-clip`` from the checkpoints' folder; a damaged one raises `UserError`."""
        from explorer.mapper import read_card, read_weights

        folder = Path(checkpoints) / "pocket-clip"
        settings = read_card(folder).settings
        self.tokenizer = WordTokenizer(())

        def make() -> torch.nn.Module:
            sizes = dict(settings["architecture"])
            self.tokenizer = WordTokenizer(sizes.pop("vocabulary"))
            return clip_model(self.tokenizer.size, **sizes)

        model = described(folder, make)
        model.load_state_dict(read_weights(folder, model.state_dict()))
        self.fingerprint = self.fingerprint_of(checkpoints)
        self.model = model.to(device).eval().requires_grad_(False)
        self.device = device

    @staticmethod
    def fingerprint_of(checkpoints: Path) -> str:
        """Return the fingerprint without loading the weights; "" where there are none."""
        folder = Path(checkpoints) / "pocket-clip"
        files = [folder / WEIGHTS, folder / CARD]
        return hash_of_files(*files) if all(file.is_file() for file in files) else ""

    def embed(self, images: Sequence[np.ndarray], space: EmbeddingSpace) -> np.ndarray:
        """Return float32 (n, *space.shape) for images uint8 (H, W, 3)."""
        encode = self.encode if space.layer == "image" else self.encode_tokens
        return in_pieces(images, lambda part: encode(to_tensor(part, 128)))

    def embed_text(self, captions: Sequence[str], space: EmbeddingSpace) -> np.ndarray:
        """Return float32 (n, *space.shape) for captions."""
        encode = self.encode_text if space.layer == "text" else self.encode_context
        return in_pieces(captions, lambda part: encode(self.tokenizer(part)))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return unit-norm embeddings (n, 128) for pixels (n, 3, 128, 128) in -1 ... 1."""
        return self.model.encode_image(pixels.to(self.device), normalize=True)

    def encode_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return tokens (n, 64, 192), row by row from the top left, for pixels as above."""
        return last_tokens(self.model, image=pixels.to(self.device))

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        """Return unit-norm embeddings (n, 128) for words' ids (n, 24)."""
        return self.model.encode_text(ids.to(self.device), normalize=True)

    def encode_context(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the text tower's last states (n, 24, 96) for words' ids (n, 24)."""
        return last_tokens(self.model, text=ids.to(self.device))


def last_tokens(model: torch.nn.Module, **given: torch.Tensor) -> torch.Tensor:
    """Return (n, T, width): a tower's last states after its LayerNorm, before pooling.

    ``image=`` pixels or ``text=`` ids. An image's class token is left out, as by open_clip's
    ``output_tokens``.
    """
    (kind,) = given
    found = model.forward_intermediates(
        **given,
        **{f"{kind}_indices": 1, f"{kind}_output_fmt": "NLC"},
        normalize_intermediates=True,
        intermediates_only=True,
    )
    return found[f"{kind}_intermediates"][-1]


def in_pieces(
    items: Sequence[Any], embed: Callable[[Sequence[Any]], torch.Tensor], size: int = ROWS_AT_ONCE
) -> np.ndarray:
    """Return float32 (n, ...), ``size`` items embedded at a time and without gradient."""
    import torch

    with torch.inference_mode():
        begins = stopping.steps(range(0, len(items), size))
        parts = [embed(items[i : i + size]).float().cpu().numpy() for i in begins]
    return np.concatenate(parts)
