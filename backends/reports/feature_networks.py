"""Networks whose features scores compare: their files of weights, and how pictures are given them.

They take their weights from files of torchvision and others; what is not there is named with the
command that gets it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.embedders.dreamsim import CLIP_COLOURS, IMAGENET, read_state
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

SIDE = 256  # the NSD papers bring all pictures to this size before anything else
ROWS_AT_ONCE = 8  # memory: 0.2 GB of the largest network on pictures of 342 pixels


@dataclass(frozen=True)
class Look:
    """How pictures are brought to the size that is compared: what papers differ in.

    ``first``: the side of the square that every picture becomes before anything else; None: it
    stays as it is. ``side``: what networks are given instead of their own side; None: their own.
    ``pixels``: the side at which PixCorr and SSIM compare; ``pillow``: resized as 8-bit pictures
    by Pillow (always antialiased), else as tensors by torch, antialiased where ``antialias`` says
    so. ``pixels_bicubic``: so are pixels resized, else bilinearly.
    """

    first: int | None = SIDE
    side: int | None = None
    pixels: int = 425
    pillow: bool = False
    antialias: bool = True
    pixels_bicubic: bool = False

    def sides(self, side: int) -> tuple[int, ...]:
        """Return the sides that a picture becomes one after the other, ``side`` the last."""
        return (side,) if self.first is None else (self.first, side)


PLAIN = Look()


@dataclass(frozen=True)
class Network:
    """A feature network: its file of weights, how it is opened, and how pictures are given to it.

    ``variant``: which one exactly, for a table. ``side`` and ``normalise``: resized to a square,
    then (x - mean) / sd per channel. ``layers`` are the names of the modules whose flattened
    outputs are features; ``wide`` are those that two-way rates compare and that are too large to
    be kept for all pictures. ``with_it``: files that must lie beside ``file``; then ``url`` is a
    repository of the hub. ``zip``: what ``url`` is, with ``file`` inside. ``look``: how pictures
    are given to it whatever a paper says, where that belongs to the network.
    """

    variant: str
    file: str
    url: str
    megabytes: int
    open: Callable[[Path], torch.nn.Module]
    layers: tuple[str, ...]
    side: int
    normalise: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    bicubic: bool = False
    with_it: tuple[str, ...] = ()
    wide: tuple[str, ...] = ()
    look: Look | None = None
    zip: str = ""

    def command(self, file: Path) -> str:
        """Return what a person types to get ``file``."""
        if self.zip:
            place = file.parents[1]
            told = (
                f"curl -L -o {place / self.zip} {self.url} and unzip -d {place} {place / self.zip}"
            )
            return f"{told}, with DINO's own dino_vitbase16_pretrain.pth beside it"
        if self.with_it:
            return (
                f"hf download {self.url} {' '.join((*self.with_it, file.name))} --local-dir "
                + str(file.parent)
            )
        return f"curl -L -o {file} {self.url}"


def _torchvision(name: str, **settings: Any) -> Callable[[Path], torch.nn.Module]:
    """Return what opens a network of torchvision, with what its published weights switch on."""

    def opened(file: Path) -> torch.nn.Module:
        from torchvision import models

        network = getattr(models, name)(**settings)
        network.load_state_dict(read_state(file))
        return _folded(network)

    return opened


def _alexnet(file: Path) -> torch.nn.Module:
    """Open AlexNet without its classifier, nine tenths of its weights, which no score reads."""
    from torch import nn

    network = _torchvision("alexnet")(file)
    network.avgpool = network.classifier = nn.Identity()
    return network


def _folded(network: torch.nn.Module) -> torch.nn.Module:
    """Return a network whose normalisations are part of the convolutions before them.

    The same function to about 1e-6 in half the time, with channels last in memory. For networks
    whose modules are called in the order in which they are listed, as torchvision's are.
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    network.eval()
    for module in list(network.modules()):
        children = list(module.named_children())
        for (name, one), (after, two) in zip(children, children[1:], strict=False):
            if isinstance(one, torch.nn.Conv2d) and isinstance(two, torch.nn.BatchNorm2d):
                module.add_module(name, fuse_conv_bn_eval(one, two))
                module.add_module(after, torch.nn.Identity())
    return network.to(memory_format=torch.channels_last)


def _swav(file: Path) -> torch.nn.Module:
    """Open SwAV's ResNet-50: a state of a DataParallel model with a projection head behind it."""
    from torch import nn
    from torchvision.models import resnet50

    network = resnet50()
    network.fc = nn.Identity()
    state = {k.removeprefix("module."): v for k, v in read_state(file).items()}
    heads = ("projection_head.", "prototypes.")
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith(heads)})
    return _folded(network)


def _fid_inception(file: Path) -> torch.nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3("inception", ["2048"], str(file))


def _clip(file: Path) -> torch.nn.Module:
    """Open the image tower of a CLIP in open_clip's layout."""
    from torch import nn

    from backends.embedders.clip import ViTL14

    towers = ViTL14(file.parent, source=file.parent).model
    return nn.Sequential(OrderedDict(visual=towers.visual))


def _dreamsim(file: Path) -> torch.nn.Module:
    from backends.embedders.dreamsim import opened

    return opened(file)


TORCHVISION = "https://download.pytorch.org/models/"
DREAMSIM = "https://github.com/ssundaram21/dreamsim/releases/download/"
NETWORKS = {
    "alexnet": Network(
        "AlexNet, torchvision IMAGENET1K_V1",
        "alexnet-owt-7be5be79.pth",
        TORCHVISION + "alexnet-owt-7be5be79.pth",
        233,
        _alexnet,
        ("features.1", "features.4", "features.7", "features.9", "features.11"),
        256,
        wide=("features.4", "features.11"),
    ),
    "inception": Network(
        "Inception v3, torchvision IMAGENET1K_V1 with transform_input",
        "inception_v3_google-0cc3c7bd.pth",
        TORCHVISION + "inception_v3_google-0cc3c7bd.pth",
        104,
        _torchvision("inception_v3", init_weights=False, transform_input=True),
        ("avgpool",),
        342,
    ),
    "clip-l-14": Network(
        "CLIP ViT-L/14, OpenAI's weights",
        "ViT-L-14/open_clip_model.safetensors",
        "timm/vit_large_patch14_clip_224.openai",
        1711,
        _clip,
        ("visual",),
        224,
        CLIP_COLOURS,
        with_it=("open_clip_config.json",),
    ),
    "efficientnet-b1": Network(
        "EfficientNet-B1, torchvision IMAGENET1K_V2",
        "efficientnet_b1-c27df63c.pth",
        TORCHVISION + "efficientnet_b1-c27df63c.pth",
        30,
        _torchvision("efficientnet_b1"),
        ("avgpool",),
        255,
    ),
    # what Brain-Diffuser's `efficientnet_b1(weights=True)` of torchvision 0.13 loads
    "efficientnet-b1-v1": Network(
        "EfficientNet-B1, torchvision IMAGENET1K_V1",
        "efficientnet_b1_rwightman-bac287d4.pth",
        TORCHVISION + "efficientnet_b1_rwightman-bac287d4.pth",
        30,
        _torchvision("efficientnet_b1"),
        ("avgpool",),
        240,
    ),
    "swav": Network(
        "SwAV ResNet-50, 800 epochs",
        "swav_800ep_pretrain.pth.tar",
        "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
        108,
        _swav,
        ("avgpool",),
        224,
    ),
    "vit-h-14": Network(
        "ViT-H/14 at 518, torchvision IMAGENET1K_SWAG_E2E_V1",
        "vit_h_14_swag-80465313.pth",
        TORCHVISION + "vit_h_14_swag-80465313.pth",
        2417,
        _torchvision("vit_h_14", image_size=518),
        ("heads",),
        518,
        bicubic=True,
    ),
    "dreamsim": Network(
        "DreamSim, ensemble of DINO, CLIP and OpenCLIP ViT-B/16, v0.2.0",
        "dreamsim/ensemble_lora/adapter_config.json",
        DREAMSIM + "v0.2.0-checkpoints/dreamsim_ensemble_checkpoint.zip",
        1100,
        _dreamsim,
        ("joined",),
        224,
        ((0.0,) * 3, (1.0,) * 3),  # each of its networks normalises by itself
        bicubic=True,
        look=Look(first=None, pillow=True),
        zip="dreamsim.zip",
    ),
    "dreamsim-open-clip": Network(
        "DreamSim, OpenCLIP ViT-B/32 alone, v0.2.0",
        "dreamsim/open_clip_vitb32_single_lora/adapter_config.json",
        DREAMSIM + "v0.2.0-checkpoints/dreamsim_open_clip_vitb32_checkpoint.zip",
        350,
        _dreamsim,
        ("joined",),
        224,
        ((0.0,) * 3, (1.0,) * 3),
        bicubic=True,
        look=Look(first=None, pillow=True),
        zip="dreamsim.zip",
    ),
    "fid-inception": Network(
        "Inception of the TensorFlow FID, 2015-12-05",
        "weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        96,
        _fid_inception,
        ("MaxPool_1", "AvgPool"),
        SIDE,  # it resizes as the first TensorFlow did, and normalises, by itself
        ((0.0,) * 3, (1.0,) * 3),
    ),
}


GIVEN_BY = {  # functions that a person gives as folders of models
    "objects": "give a detector as transformers saves one with --detector FOLDER",
    "captions": "give a captioner with --captioner FOLDER and what embeds sentences with "
    "--sentences FOLDER",
}


class Features:
    """The features that scores compare: of networks in a folder, and of functions given by name.

    Parameters
    ----------
    folder
        Where the files of `NETWORKS` lie; by default where torch.hub keeps its downloads.
    embedders
        A second such folder, of the embedders' weights: ViT-L/14 may be there already.
    functions
        Further features by name, e.g. ``"pocket-clip"``: images uint8 (H, W, 3) to (n, D). An
        attribute ``variant`` says which one it is.
    device
        Where networks compute.
    """

    def __init__(
        self,
        folder: Path | None = None,
        functions: Mapping[str, Callable[[Sequence[np.ndarray]], np.ndarray]] | None = None,
        device: str = "cpu",
        embedders: Path | None = None,
    ) -> None:
        self._folder, self._embedders, self.device = folder, embedders, device
        self.functions = dict(functions or {})
        self._opened: dict[str, tuple[torch.nn.Module, dict[str, torch.Tensor]]] = {}

    def variant(self, name: str) -> str:
        """Return which network a name stands for exactly, for a table."""
        if name in NETWORKS:
            return NETWORKS[name].variant
        return getattr(self.functions.get(name), "variant", name)

    def holds(self, name: str) -> bool:
        """Return whether the weights of a network are there, without opening them."""
        places = [self.folder, *([self._embedders] if self._embedders else [])]
        return any((place / NETWORKS[name].file).is_file() for place in places)

    @property
    def folder(self) -> Path:
        """Where the weights are looked for."""
        import torch

        return self._folder or Path(torch.hub.get_dir()) / "checkpoints"

    def of(
        self, name: str, images: Sequence[np.ndarray], look: Look = PLAIN
    ) -> dict[str, np.ndarray]:
        """Return float32 (n, ...) by layer of a network, or under ``name`` of a function.

        Weights that are missing, damaged or of another network raise `UserError`.
        """
        parts = list(self.batches(name, images, look))
        return {layer: np.concatenate([part[layer] for part in parts]) for layer in parts[0]}

    def batches(
        self, name: str, images: Sequence[np.ndarray], look: Look = PLAIN
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield what `of` returns for a few pictures after the other, so that wide layers fit."""
        import torch

        if name in self.functions:
            yield {name: np.asarray(self.functions[name](images), np.float32)}
            return
        if name not in NETWORKS:
            how = f"; {GIVEN_BY[name]}" if name in GIVEN_BY else ""
            raise UserError(f"{name} is not at hand{how}; this score is left out.")
        network, caught = self._open(name)
        recipe = NETWORKS[name]
        mean, sd = (torch.tensor(v)[:, None, None] for v in recipe.normalise)
        look = recipe.look or look
        sides = look.sides(recipe.side if look.side is None else look.side)
        with torch.inference_mode():
            for begin in range(0, len(images), ROWS_AT_ONCE):
                part = resized(
                    images[begin : begin + ROWS_AT_ONCE],
                    *sides,
                    bicubic=recipe.bicubic,
                    look=look,
                )
                part = ((part - mean) / sd).to(self.device)
                if name == "fid-inception":
                    part = (part * 255).round().to(torch.uint8)
                network(part)
                yield {layer: caught[layer].float().cpu().numpy() for layer in recipe.layers}

    def _open(self, name: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
        if name in self._opened:
            return self._opened[name]
        recipe = NETWORKS[name]
        file = self.folder / recipe.file
        if not file.is_file() and self._embedders and (self._embedders / recipe.file).is_file():
            file = self._embedders / recipe.file
        if not file.is_file():
            raise UserError(
                f"{recipe.file} ({recipe.megabytes} MB) is not in {self.folder}; get it with "
                f"{recipe.command(file)}"
            )
        try:
            network = recipe.open(file).to(self.device).eval().requires_grad_(False)
        except UserError:
            raise
        except Exception as error:  # torch raises many kinds for damaged and foreign files
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{file} does not hold the weights of {name} ({reason}); download it again."
            ) from error
        caught: dict[str, torch.Tensor] = {}
        for layer in recipe.layers:
            network.get_submodule(layer).register_forward_hook(
                lambda module, given, found, layer=layer: caught.__setitem__(layer, found)
            )
        self._opened[name] = network, caught
        return self._opened[name]


def resized(
    images: Sequence[np.ndarray], *sides: int, bicubic: bool = False, look: Look = PLAIN
) -> torch.Tensor:
    """Return float32 (n, 3, side, side) in 0 ... 1, resized to one side after the other.

    Bilinear unless ``bicubic``; whether with antialiasing is said explicitly, because
    torchvision's default has changed: see `Look`.
    """
    import torch
    from PIL import Image
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    if look.pillow:
        how = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
        rows = []
        for image in images:
            for side in sides:
                if image.shape[:2] != (side, side):
                    image = np.asarray(Image.fromarray(image).resize((side, side), how))
            rows.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255)
        return torch.stack(rows)
    mode = InterpolationMode.BICUBIC if bicubic else InterpolationMode.BILINEAR
    rows = []
    for image in images:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255
        for side in sides:
            if pixels.shape[-2:] != (side, side):
                pixels = transforms.resize(pixels, [side, side], mode, antialias=look.antialias)
        rows.append(pixels.clamp(0, 1))
    return torch.stack(rows)
