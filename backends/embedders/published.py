"""Published models as embedders: timm, and text tower and autoencoder of Stable Diffusion.

Their weights do not ship. They are read from ``checkpoints/embedders/NAME``, or from the folder or
hub id that a person names; the hub is never asked otherwise. Each model prepares pictures as the
configuration beside its own weights says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.embedders.files import (
    HUB_ID,
    MISFITS_TOLD,
    check_config,
    check_network,
    hash_of_files,
    numbers_in,
    refuse_random,
)
from backends.embedders.pocket import in_pieces
from explorer.files import read_object, reason
from explorer.types import EmbeddingSpace, UserError

if TYPE_CHECKING:
    import torch

AT_ONCE = 16  # pictures of 224 x 224 in ViT-bigG/14 take 2 GB


class Pretrained:
    """An embedder whose weights somebody else published.

    Parameters
    ----------
    checkpoints
        Its folder ``embedders/NAME`` holds the weights, unless ``source`` is given.
    device
        Where it computes.
    source
        Another folder, or a hub id, from which the files are then downloaded (and kept by the
        hub's own cache).

    Attributes
    ----------
    hub, files, size
        The weights it was made for: hub id, files within, and the size of the download.
    fingerprint : str
        Names the exact files that were loaded.
    kind, option
        The folder of the checkpoints, and the option of the command line, that its messages name.
    """

    name: str
    kind = "embedders"
    option = "--embedder {}="
    at_once = AT_ONCE  # pictures
    hub: str
    files: tuple[str, ...]
    size: str
    _heeded: tuple[str, ...] = ()  # further files that decide what it computes
    spaces: tuple[EmbeddingSpace, ...] = ()
    text_spaces: tuple[EmbeddingSpace, ...] = ()

    def __init__(
        self, checkpoints: Path, device: str = "cpu", source: str | Path | None = None
    ) -> None:
        self.folder = self._find(Path(checkpoints) / self.kind / self.name, source)
        self.source, self.device = str(source or ""), device
        try:
            for file in self.files:
                if file.endswith("config.json"):
                    again = f"copy it again from {self.hub}"
                    check_config(read_object(self.folder / file, again))
            self._load(self.folder)
        except UserError:
            raise
        except Exception as error:  # each library has its own for files that do not fit
            raise UserError(
                f"The weights in {self.folder} cannot be loaded as {self.name} "
                f"({type(error).__name__}: {reason(error)}); it was made for {self.hub}, copy "
                f"its files again or name others with {self.flag}PATH_OR_ID."
            ) from error
        files = (*self.files, *self._heeded)
        self.fingerprint = hash_of_files(*(self.folder / file for file in files))

    @property
    def flag(self) -> str:
        """The option that names other weights, up to its value."""
        return self.option.format(self.name)

    def _find(self, usual: Path, source: str | Path | None) -> Path:
        """Return the folder that holds all files, downloading them only for a hub id."""
        folder = Path(source).expanduser() if source else usual
        if source and not folder.is_dir():
            if not HUB_ID.fullmatch(str(source)):
                raise UserError(
                    f"{self.flag}{source} is neither a folder nor a hub id such as {self.hub}."
                )
            folder = self._download(str(source))
        missing = [file for file in self.files if not (folder / file).is_file()]
        if missing:
            raise UserError(
                f"{self.name} needs the weights of {self.hub} ({self.size}), and {folder} has no "
                f"{missing[0]}; get them with hf download {self.hub} {' '.join(self.files)} "
                f"--local-dir {usual}, or give a folder or hub id with {self.flag}PATH_OR_ID."
            )
        return folder

    def _download(self, repository: str) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError

        try:
            return Path(snapshot_download(repository, allow_patterns=list(self.files)))
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise UserError(
                f"The weights of {repository} ({self.size}) could not be downloaded "
                f"({reason(error)}); bring the files {', '.join(self.files)} here by another way "
                f"and name their folder with {self.flag}PATH."
            ) from error

    def _load(self, folder: Path) -> None:
        """Set the model and how it prepares pictures or captions."""
        raise NotImplementedError

    def embed(self, images: Sequence[np.ndarray], space: EmbeddingSpace) -> np.ndarray:
        """Return float32 (n, *space.shape) for images uint8 (H, W, 3) of any size."""
        rows = in_pieces(
            images, lambda part: self._encode(self._pixels(part), space), self.at_once
        )
        return self._checked(rows, space)

    def _encode(self, pixels: torch.Tensor, space: EmbeddingSpace) -> torch.Tensor:
        """Return embeddings of pixels as the model takes them."""
        raise NotImplementedError

    def _pixels(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        import torch
        from PIL import Image

        prepared = [self.prepare(Image.fromarray(image)) for image in images]
        return torch.stack(prepared).to(self.device)

    prepare: Callable[[Any], torch.Tensor]

    def _checked(self, rows: np.ndarray, space: EmbeddingSpace) -> np.ndarray:
        if not np.isfinite(rows).all():
            raise UserError(
                f"An embedding in {space.name} came out as NaN or infinite, so the weights in "
                f"{self.folder} are damaged; copy those of {self.hub} again."
            )
        if rows.shape[1:] != space.shape:
            raise UserError(
                f"An embedding in {space.name} has the shape {space.shape}, the weights in "
                f"{self.folder} give {rows.shape[1:]}; they are of another architecture than "
                f"{self.hub}."
            )
        return rows


class Timm(Pretrained):
    """A model of timm with its own preprocessing, from ``config.json`` and safetensors."""

    files = ("config.json", "model.safetensors")

    def _load(self, folder: Path) -> None:
        import timm
        from timm.data import create_transform, resolve_model_data_config

        numbers = numbers_in(folder / self.files[-1])
        check_network(lambda: timm.create_model(f"local-dir:{folder}"), numbers)
        # with its classifier, so that the weights are loaded strictly
        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
        about = resolve_model_data_config(model, use_test_size=True)
        self.prepare = create_transform(**about, is_training=False)
        self.model = model.to(self.device).eval().requires_grad_(False)


class ResNet50(Timm):
    """ResNet-50 (He et al. 2016), torchvision's ImageNet weights of 2022.

    ``pooled`` is the mean over places of the last of four stages, what the classifier reads;
    ``layer1`` to ``layer3`` are the means of the stages before.
    """

    name, hub, size = "resnet50", "timm/resnet50.tv2_in1k", "102 MB"
    spaces = (
        EmbeddingSpace("resnet50", "pooled", (2048,)),
        EmbeddingSpace("resnet50", "layer1", (256,)),
        EmbeddingSpace("resnet50", "layer2", (512,)),
        EmbeddingSpace("resnet50", "layer3", (1024,)),
    )

    def _encode(self, pixels: torch.Tensor, space: EmbeddingSpace) -> torch.Tensor:
        stage = 4 if space.layer == "pooled" else int(space.layer.removeprefix("layer"))
        # stage 0 is the stem
        (maps,) = self.model.forward_intermediates(pixels, [stage], intermediates_only=True)
        return maps.mean(dim=(2, 3))


class ViTB16(Timm):
    """ViT-B/16 (Dosovitskiy et al. 2021) trained on ImageNet-21k.

    ``pooled`` is the class token after the last LayerNorm, ``tokens`` it and those of 14 x 14
    patches.
    """

    name, hub, size = "vit-b16", "timm/vit_base_patch16_224.augreg_in21k", "410 MB"
    spaces = (
        EmbeddingSpace("vit-b16", "pooled", (768,)),
        EmbeddingSpace("vit-b16", "tokens", (197, 768)),
    )

    def _encode(self, pixels: torch.Tensor, space: EmbeddingSpace) -> torch.Tensor:
        tokens = self.model.forward_features(pixels)
        if space.layer == "tokens":
            return tokens
        return self.model.forward_head(tokens, pre_logits=True)


class StableDiffusionText(Pretrained):
    """What Stable Diffusion 1.x is conditioned on: the last states of CLIP ViT-L/14's text tower.

    ``context`` has a caption's 77 positions, padded and cut as in the published pipeline. A folder
    of the whole pipeline will do.
    """

    name, hub = "stable-diffusion", "stable-diffusion-v1-5/stable-diffusion-v1-5"
    size = "492 MB"
    files = (
        *("text_encoder/config.json", "text_encoder/model.safetensors"),
        *("tokenizer/tokenizer_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"),
    )
    text_spaces = (EmbeddingSpace("stable-diffusion", "context", (77, 768)),)

    def _load(self, folder: Path) -> None:
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

        config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
        numbers = numbers_in(folder / self.files[1])
        check_network(lambda: CLIPTextModel(config), numbers)
        model, found = CLIPTextModel.from_pretrained(
            folder / "text_encoder",
            local_files_only=True,
            use_safetensors=True,
            **MISFITS_TOLD,
        )
        refuse_random(found)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        self.model = model.to(self.device).float().eval().requires_grad_(False)

    def embed_text(self, captions: Sequence[str], space: EmbeddingSpace) -> np.ndarray:
        """Return float32 (n, *space.shape) for captions."""

        def encode(part: Sequence[str]) -> torch.Tensor:
            ids = self.tokenizer(
                list(part),
                padding="max_length",
                max_length=self.tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            return self.model(ids.to(self.device)).last_hidden_state

        return self._checked(in_pieces(captions, encode, AT_ONCE), space)


class StableDiffusionLatents(Pretrained):
    """Where Stable Diffusion 1.x draws: its autoencoder's latents of a picture of 512 x 512.

    ``latents`` is the mean of the posterior, scaled as the UNet sees it, so that decoded ones can
    begin a drawing. A folder of the whole pipeline will do.
    """

    name, hub = "sd-vae", "stable-diffusion-v1-5/stable-diffusion-v1-5"
    size = "335 MB"
    files = ("vae/config.json", "vae/diffusion_pytorch_model.safetensors")
    spaces = (EmbeddingSpace("sd-vae", "latents", (4, 64, 64)),)
    at_once = 2  # of 512 x 512 take 2 GB

    def _load(self, folder: Path) -> None:
        import torch
        from diffusers import AutoencoderKL
        from diffusers.image_processor import VaeImageProcessor

        config = AutoencoderKL.load_config(folder / "vae")
        numbers = numbers_in(folder / self.files[1])
        check_network(lambda: AutoencoderKL.from_config(config), numbers)
        model, found = AutoencoderKL.from_pretrained(
            folder / "vae",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            torch_dtype=torch.float32,  # in half precision it overflows
        )
        refuse_random(found)
        side = self.spaces[0].shape[-1] * 2 ** (len(model.config.block_out_channels) - 1)
        processor = VaeImageProcessor()
        self.prepare = lambda image: processor.preprocess(image, side, side)[0]
        self.model = model.to(self.device).eval().requires_grad_(False)

    def _encode(self, pixels: torch.Tensor, space: EmbeddingSpace) -> torch.Tensor:
        return self.model.encode(pixels).latent_dist.mean * self.model.config.scaling_factor


class LowLevelLatents(StableDiffusionLatents):
    """The same latents of a picture of 224 x 224: what MindEye2's low-level branch regresses.

    Any autoencoder of Stable Diffusion 1.x will do (MedARC-AI/MindEyeV2, src/Train.ipynb).
    """

    name = "sd-vae-224"
    spaces = (EmbeddingSpace("sd-vae-224", "latents", (4, 28, 28)),)
    at_once = 8
