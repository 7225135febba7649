"""Scores of pictures against what was shown, each as the paper that reports it defines it.

A `Score` says what it is: definition id, direction, chance, source, and the network whose features
it compares. Networks take their weights from files of torchvision and others; a score whose
weights are not there says so in a sentence, and the others are still measured.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.training.counted import count
from explorer.metrics import bootstrap_interval, two_way_identification, unit
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd
    import torch

SIDE = 256  # the NSD papers bring all pictures to this size before anything else
NSD_SIDE = 425  # and from there to NSD's own for PixCorr and SSIM
ROWS_AT_ONCE = 32
RESAMPLES = 100  # of a Frechet distance, which costs a decomposition each
DISTRACTORS = 50  # of the pair-wise rates, where every pair has to be computed
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_COLOURS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SCOTTI = "Scotti et al. 2024, arXiv 2403.11207"
CHEN = "Chen et al. 2023, arXiv 2211.06956"

# ------------------------------------------------------------------------------- feature networks


@dataclass(frozen=True)
class Network:
    """A feature network: its file of weights, how it is opened, and how pictures are given to it.

    ``side`` and ``normalise``: resized to a square (bilinear, antialiased), then (x - mean) / sd
    per channel. ``layers`` are the names of the modules whose flattened outputs are features.
    ``with_it``: files that must lie beside ``file``; then ``url`` is a repository of the hub.
    """

    file: str
    url: str
    megabytes: int
    open: Callable[[Path], torch.nn.Module]
    layers: tuple[str, ...]
    side: int
    normalise: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    bicubic: bool = False
    with_it: tuple[str, ...] = ()

    def command(self, file: Path) -> str:
        """Return what a person types to get ``file``."""
        if self.with_it:
            return (
                f"hf download {self.url} {' '.join((*self.with_it, file.name))} --local-dir "
                + str(file.parent)
            )
        return f"curl -L -o {file} {self.url}"


def _torchvision(name: str, **settings: Any) -> Callable[[Path], torch.nn.Module]:
    def opened(file: Path) -> torch.nn.Module:
        from torchvision import models

        network = getattr(models, name)(**settings)
        network.load_state_dict(_state(file))
        return network

    return opened


def _swav(file: Path) -> torch.nn.Module:
    """Open SwAV's ResNet-50: a state of a DataParallel model with a projection head behind it."""
    from torch import nn
    from torchvision.models import resnet50

    network = resnet50()
    network.fc = nn.Identity()
    state = {k.removeprefix("module."): v for k, v in _state(file).items()}
    heads = ("projection_head.", "prototypes.")
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith(heads)})
    return network


def _fid_inception(file: Path) -> torch.nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3("inception", ["2048"], str(file))


def _clip(file: Path) -> torch.nn.Module:
    """Open the image tower of a CLIP in open_clip's layout."""
    from torch import nn

    from backends.embedders.clip import ViTL14

    towers = ViTL14(file.parent, source=file.parent).model
    return nn.Sequential(OrderedDict(visual=towers.visual))


def _state(file: Path) -> dict[str, Any]:
    import torch

    return torch.load(file, map_location="cpu", weights_only=True)


TORCHVISION = "https://download.pytorch.org/models/"
NETWORKS = {
    "alexnet": Network(
        "alexnet-owt-7be5be79.pth",
        TORCHVISION + "alexnet-owt-7be5be79.pth",
        233,
        _torchvision("alexnet"),
        ("features.1", "features.4", "features.7", "features.9", "features.11"),
        256,
    ),
    "inception": Network(
        "inception_v3_google-0cc3c7bd.pth",
        TORCHVISION + "inception_v3_google-0cc3c7bd.pth",
        104,
        _torchvision("inception_v3", init_weights=False),
        ("avgpool",),
        342,
    ),
    "clip-l-14": Network(
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
        "efficientnet_b1-c27df63c.pth",
        TORCHVISION + "efficientnet_b1-c27df63c.pth",
        30,
        _torchvision("efficientnet_b1"),
        ("avgpool",),
        255,
    ),
    "swav": Network(
        "swav_800ep_pretrain.pth.tar",
        "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
        108,
        _swav,
        ("avgpool",),
        224,
    ),
    "vit-h-14": Network(
        "vit_h_14_swag-80465313.pth",
        TORCHVISION + "vit_h_14_swag-80465313.pth",
        2417,
        _torchvision("vit_h_14", image_size=518),
        ("heads",),
        518,
        bicubic=True,
    ),
    "fid-inception": Network(
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


class Features:
    """The features that scores compare: of networks in a folder, and of functions given by name.

    Parameters
    ----------
    folder
        Where the files of `NETWORKS` lie; by default where torch.hub keeps its downloads.
    embedders
        A second such folder, of the embedders' weights: ViT-L/14 may be there already.
    functions
        Further features by name, e.g. ``"pocket-clip"``: images uint8 (H, W, 3) to (n, D).
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

    @property
    def folder(self) -> Path:
        """Where the weights are looked for."""
        import torch

        return self._folder or Path(torch.hub.get_dir()) / "checkpoints"

    def of(self, name: str, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Return float32 (n, ...) by layer of a network, or under ``name`` of a function.

        Weights that are missing, damaged or of another network raise `UserError`.
        """
        import torch

        if name in self.functions:
            return {name: np.asarray(self.functions[name](images), np.float32)}
        if name not in NETWORKS:
            raise UserError(f"{name} is not at hand; this score is left out.")
        network, caught = self._open(name)
        recipe = NETWORKS[name]
        rows: dict[str, list[np.ndarray]] = {layer: [] for layer in recipe.layers}
        mean, sd = (torch.tensor(v)[:, None, None] for v in recipe.normalise)
        with torch.inference_mode():
            for begin in range(0, len(images), ROWS_AT_ONCE):
                part = resized(
                    images[begin : begin + ROWS_AT_ONCE],
                    *(SIDE, recipe.side),
                    bicubic=recipe.bicubic,
                )
                part = ((part - mean) / sd).to(self.device)
                if name == "fid-inception":
                    part = (part * 255).round().to(torch.uint8)
                network(part)
                for layer in recipe.layers:
                    rows[layer].append(caught[layer].float().cpu().numpy())
        return {layer: np.concatenate(found) for layer, found in rows.items()}

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


def resized(images: Sequence[np.ndarray], *sides: int, bicubic: bool = False) -> torch.Tensor:
    """Return float32 (n, 3, side, side) in 0 ... 1, resized to one side after the other.

    Bilinear with antialiasing, said explicitly because torchvision's default has changed.
    """
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    mode = InterpolationMode.BICUBIC if bicubic else InterpolationMode.BILINEAR
    rows = []
    for image in images:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        for side in sides:
            if pixels.shape[-2:] != (side, side):
                pixels = transforms.resize(pixels, [side, side], mode, antialias=True)
        rows.append(pixels.clamp(0, 1))
    return torch.stack(rows)


# ------------------------------------------------------------------------------------- pictures


class Pictures:
    """n pictures uint8 (H, W, 3) in the forms that scores need, each computed once."""

    def __init__(self, images: Sequence[np.ndarray], features: Features) -> None:
        self.images, self.features = list(images), features
        self._found: dict[str, dict[str, np.ndarray]] = {}

    def __len__(self) -> int:
        """Return n."""
        return len(self.images)

    def feature(self, network: str, layer: str = "") -> np.ndarray:
        """Return float32 (n, ...) of a network's layer, or of a function by its name."""
        if network not in self._found:
            self._found[network] = self.features.of(network, self.images)
        return self._found[network][layer or network]

    @cached_property
    def pixels(self) -> np.ndarray:
        """float32 (n, 3, 425, 425) in 0 ... 1, by way of 256 x 256."""
        return resized(self.images, SIDE, NSD_SIDE).numpy()

    @cached_property
    def small(self) -> np.ndarray:
        """uint8 (n, 256, 256, 3)."""
        grey_levels = (resized(self.images, SIDE).numpy() * 255).round().astype(np.uint8)
        return grey_levels.transpose(0, 2, 3, 1)


PerItem = Callable[[Pictures, Pictures], np.ndarray]


def two_way(network: str, layer: str = "") -> PerItem:
    """Two-way identification of features, per picture: see `two_way_identification`."""

    def rate(shown: Pictures, made: Pictures) -> np.ndarray:
        found = (p.feature(network, layer) for p in (made, shown))
        return two_way_identification(*found, per_item=True)

    return rate


def distance(network: str, layer: str) -> PerItem:
    """1 - Pearson correlation of the features of a picture and of what was shown, 0 to 2."""

    def apart(shown: Pictures, made: Pictures) -> np.ndarray:
        a, b = (p.feature(network, layer).reshape(len(p), -1) for p in (shown, made))
        return 1 - correlations(a, b)

    return apart


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return (n,): Pearson's correlation of row i with row i; NaN where one is constant."""
    a, b = (
        np.asarray(x, np.float64) - np.mean(x, axis=1, dtype=np.float64)[:, None] for x in (a, b)
    )
    norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.where(norm > 0, (a * b).sum(axis=1) / np.where(norm > 0, norm, 1), np.nan)


def pixel_correlation(shown: Pictures, made: Pictures) -> np.ndarray:
    """Pearson's correlation of all RGB values at 425 x 425."""
    return np.array(
        [
            correlations(a.reshape(1, -1), b.reshape(1, -1))[0]
            for a, b in zip(shown.pixels, made.pixels, strict=True)
        ]
    )


def structural_similarity(shown: Pictures, made: Pictures) -> np.ndarray:
    """SSIM in grey at 425 x 425: Gaussian weights of sigma 1.5, population covariance, range 1.

    The NSD papers pass ``multichannel=True`` with a grey image, which versions of scikit-image
    read differently; one grey channel is what all but the oldest do.
    """
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity as skimage_ssim

    return np.array(
        [
            skimage_ssim(
                rgb2gray(a, channel_axis=0),
                rgb2gray(b, channel_axis=0),
                data_range=1.0,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for a, b in zip(shown.pixels, made.pixels, strict=True)
        ]
    )


def pairwise(badness: Callable[[Pictures, Pictures, np.ndarray], np.ndarray]) -> PerItem:
    """How often a picture is nearer to what was shown than to another shown image.

    ``badness(shown, made, others)`` gives (n, 1 + m): column 0 against its own image, then against
    the images in ``others`` int (n, m). With more than 51 images the others are 50 drawn by a
    seed, otherwise all. Ties count half.
    """

    def rate(shown: Pictures, made: Pictures) -> np.ndarray:
        n = len(shown)
        rng = np.random.default_rng(0)
        every = [np.delete(np.arange(n), i) for i in range(n)]
        if n - 1 > DISTRACTORS:
            every = [rng.choice(others, DISTRACTORS, replace=False) for others in every]
        candidates = np.column_stack([np.arange(n), np.stack(every)])
        bad = badness(shown, made, candidates)
        own, others = bad[:, :1], bad[:, 1:]
        return ((own < others) + 0.5 * (own == others)).mean(axis=1)

    return rate


def _squared_error(shown: Pictures, made: Pictures, candidates: np.ndarray) -> np.ndarray:
    truth = shown.small.reshape(len(shown), -1).astype(np.float32) / 255
    found = made.small.reshape(len(made), -1).astype(np.float32) / 255
    rows = zip(found, candidates, strict=True)
    return np.stack([np.square(truth[those] - one).mean(axis=1) for one, those in rows])


def _uncorrelation(shown: Pictures, made: Pictures, candidates: np.ndarray) -> np.ndarray:
    truth, found = (
        unit(x - x.mean(axis=1, keepdims=True))
        for x in (p.small.reshape(len(p), -1).astype(np.float64) for p in (shown, made))
    )
    return np.stack([-(truth[those] @ one) for one, those in zip(found, candidates, strict=True)])


def _dissimilarity(shown: Pictures, made: Pictures, candidates: np.ndarray) -> np.ndarray:
    from skimage.metrics import structural_similarity as skimage_ssim

    return np.array(
        [
            [-skimage_ssim(shown.small[j], image, data_range=255, channel_axis=-1) for j in those]
            for image, those in zip(made.small, candidates, strict=True)
        ]
    )


def _perceptual(shown: Pictures, made: Pictures, candidates: np.ndarray) -> np.ndarray:
    return np.array(
        [[lpips(shown, made, int(j), i) for j in those] for i, those in enumerate(candidates)]
    )


def lpips(shown: Pictures, made: Pictures, i: int, j: int) -> float:
    """Return LPIPS (AlexNet, version 0.1) of shown picture i and made picture j, from 0 (equal).

    Squared differences of the unit-length features of five layers, weighted per channel, averaged
    over places, summed over layers (Zhang et al. 2018, arXiv 1801.03924). The weights come with
    torchmetrics. Pictures are 256 x 256 and normalised as for ImageNet, which is what the
    original's own constants amount to.
    """
    total = 0.0
    for layer, weight in zip(NETWORKS["alexnet"].layers, _lpips_weights(), strict=True):
        a, b = (p.feature("alexnet", layer)[k] for p, k in ((shown, i), (made, j)))
        a, b = (x / np.sqrt(np.square(x).sum(axis=0) + 1e-8) for x in (a, b))
        total += float((weight[:, None, None] * np.square(a - b)).sum(axis=0).mean())
    return total


def _lpips_weights() -> list[np.ndarray]:
    from importlib.resources import as_file, files

    found = files("torchmetrics") / "functional" / "image" / "lpips_models" / "alex.pth"
    with as_file(found) as file:
        state = _state(file)
    return [state[f"lin{k}.model.1.weight"].numpy().ravel() for k in range(5)]


def n_way_top_k(n: int = 50, k: int = 1) -> PerItem:
    """Whether the class of the shown image is among the k likeliest of n classes.

    The class is the one the network finds in the shown image, not a label; the n - 1 others are
    drawn at random from the network's 1,000. What is returned is the expectation over all draws
    (hypergeometric), where the papers average 50 or 1,000 of them.
    """

    def share(shown: Pictures, made: Pictures) -> np.ndarray:
        from scipy.stats import hypergeom

        truth, found = (p.feature("vit-h-14", "heads") for p in (shown, made))
        classes = truth.shape[1]
        own = np.take_along_axis(found, truth.argmax(axis=1)[:, None], axis=1)
        likelier = (found > own).sum(axis=1)
        return hypergeom.cdf(k - 1, classes - 1, likelier, n - 1)

    return share


def agreement(name: str) -> PerItem:
    """Whether a classifier, one number a picture, finds the same in both: 0 or 1."""

    def same(shown: Pictures, made: Pictures) -> np.ndarray:
        a, b = (p.feature(name) for p in (shown, made))
        return (a == b).astype(float).reshape(len(shown))

    return same


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Frechet distance of Gaussians fitted to rows (n, D) and (m, D), from 0.

    |mean difference|^2 + trace(A + B - 2 (A B)^(1/2)), covariances with n - 1 (Heusel et al. 2017,
    arXiv 1706.08500). The trace of the root is the sum of the singular values of the product of
    the centred rows, which needs no D x D matrix.
    """
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    if min(len(a), len(b)) < 2:
        raise UserError("A Frechet distance needs at least 2 pictures on each side.")
    apart = a.mean(axis=0) - b.mean(axis=0)
    a, b = ((x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (a, b))
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(apart @ apart + np.square(a).sum() + np.square(b).sum() - 2 * root)


# -------------------------------------------------------------------------------------- the scores


@dataclass(frozen=True)
class Score:
    """One number about pictures: what it is, where it comes from, how it is computed.

    ``per_item`` gives (n,) per picture; ``features`` (network, layer) instead for the Frechet
    distance of a whole set. ``chance`` is None where no level is fixed.
    """

    id: str
    title: str
    higher_is_better: bool
    chance: float | None
    source: str
    per_item: PerItem | None = None
    features: tuple[str, str] = ("", "")


SCORES = (
    Score("pixcorr-425", "PixCorr", True, None, SCOTTI, pixel_correlation),
    Score("ssim-grey-425", "SSIM", True, None, SCOTTI, structural_similarity),
    Score("alexnet-2-two-way", "AlexNet(2)", True, 0.5, SCOTTI, two_way("alexnet", "features.4")),
    Score("alexnet-5-two-way", "AlexNet(5)", True, 0.5, SCOTTI, two_way("alexnet", "features.11")),
    Score("inception-two-way", "Inception", True, 0.5, SCOTTI, two_way("inception", "avgpool")),
    Score("clip-l-14-two-way", "CLIP", True, 0.5, SCOTTI, two_way("clip-l-14", "visual")),
    Score(
        "effnet-b1-distance",
        "EffNet-B",
        False,
        None,
        SCOTTI,
        distance("efficientnet-b1", "avgpool"),
    ),
    Score("swav-distance", "SwAV", False, None, SCOTTI, distance("swav", "avgpool")),
    Score("50-way-top-1", "50-way top-1 (ViT-H/14)", True, 1 / 50, CHEN, n_way_top_k(50, 1)),
    Score("mse-two-way", "MSE, two-way rate", True, 0.5, CHEN, pairwise(_squared_error)),
    Score("pcc-two-way", "PCC, two-way rate", True, 0.5, CHEN, pairwise(_uncorrelation)),
    Score("ssim-two-way", "SSIM, two-way rate", True, 0.5, CHEN, pairwise(_dissimilarity)),
    Score("lpips-two-way", "LPIPS, two-way rate", True, 0.5, CHEN, pairwise(_perceptual)),
    Score(
        "fid-64", "FID (64 features)", False, None, CHEN, features=("fid-inception", "MaxPool_1")
    ),
    Score(
        "fid-2048",
        "FID (2048 features)",
        False,
        None,
        "Heusel et al. 2017, arXiv 1706.08500",
        features=("fid-inception", "AvgPool"),
    ),
)
JUDGE = "pocket-judge of the simulated study"
STAND_INS = (
    Score(
        "pocket-clip-two-way", "pocket-clip", True, 0.5, "as CLIP above", two_way("pocket-clip")
    ),
    Score("judge-category", "category", True, 1 / 24, JUDGE, agreement("judge-category")),
    Score(
        *("judge-supercategory", "super-category", True, 1 / 6, JUDGE),
        agreement("judge-supercategory"),
    ),
    Score("judge-setting", "setting", True, 1 / 8, JUDGE, agreement("judge-setting")),
    Score(
        *("fid-pocket-clip", "FID (128 features of pocket-clip)", False, None, "as FID above"),
        features=("pocket-clip", ""),
    ),
)


EACH = ["score", "item", "sample", "value"]
COLUMNS = [
    *("id", "title", "value", "low", "high", "best of samples"),
    *("chance", "better", "N", "samples", "source"),
]


def measure(
    shown: Sequence[np.ndarray],
    made: Sequence[Sequence[np.ndarray]],
    features: Features,
    *,
    scores: Sequence[Score] = SCORES,
    progress: Callable[[str], None] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """Return every score per picture, the table of scores, and why others are missing.

    Parameters
    ----------
    shown
        n images uint8 (H, W, 3), one a stimulus.
    made
        S samples of n pictures each, in the order of ``shown``.
    features
        Where networks come from.

    Returns
    -------
    per_picture
        Columns score, item (row of ``shown``), sample, value.
    table
        One row a score: id, title, value (the mean over samples, then over stimuli), low and high
        (95 % bootstrap over stimuli), best of S (the best sample of each picture; NaN for one
        sample), chance, better ("higher" or "lower"), N, samples, source.
    missing
        Id of a score -> one sentence.
    """
    import pandas as pd

    if not made or any(len(one) != len(shown) for one in made) or len(shown) < 2:
        found = ", ".join(str(len(one)) for one in made) or "none"
        raise UserError(
            f"Scores need one picture per shown image in each sample, of 2 images or more; found "
            f"{len(shown)} images and samples of {found}."
        )
    truth = Pictures(shown, features)
    samples = [Pictures(one, features) for one in made]
    rows, lines, missing = [], [], {}
    for number, score in enumerate(scores):
        if progress:
            progress(count("scores", number, len(scores), "scores", note=score.title))
        try:
            if score.per_item:
                values = np.stack([score.per_item(truth, one) for one in samples])
            else:
                values = None
                whole = _frechet_of(score, truth, samples)
        except UserError as error:
            missing[score.id] = str(error)
            continue
        line = {"id": score.id, "title": score.title}
        if values is not None:
            best = values.max(axis=0) if score.higher_is_better else values.min(axis=0)
            line["value"] = float(np.nanmean(values))
            line["low"], line["high"] = bootstrap_interval(np.nanmean(values, axis=0), seed=0)
            line["best of samples"] = float(np.nanmean(best)) if len(samples) > 1 else np.nan
            rows += [
                {"score": score.id, "item": i, "sample": k, "value": value}
                for k, one in enumerate(values)
                for i, value in enumerate(one)
            ]
        else:
            line |= whole
        lines.append(
            line
            | {
                "chance": np.nan if score.chance is None else score.chance,
                "better": "higher" if score.higher_is_better else "lower",
                "N": len(shown),
                "samples": len(samples),
                "source": score.source,
            }
        )
    if progress:
        progress(count("scores", len(scores), len(scores), "scores"))
    return pd.DataFrame(rows, columns=EACH), pd.DataFrame(lines, columns=COLUMNS), missing


def _frechet_of(score: Score, truth: Pictures, samples: Sequence[Pictures]) -> dict[str, float]:
    """Return value, low and high of a Frechet distance, the mean over samples of n pictures.

    The interval is normal, with the standard deviation over resampled stimuli.
    """

    def rows(pictures: Pictures) -> np.ndarray:
        found = pictures.feature(*score.features)
        return found.reshape(*found.shape[:2], -1).mean(axis=2)

    a, others = rows(truth), [rows(one) for one in samples]
    rng = np.random.default_rng(0)

    def of(chosen: np.ndarray) -> float:
        return float(np.mean([frechet(a[chosen], b[chosen]) for b in others]))

    # resampling repeats pictures, which raises every drawn distance: only their spread is used
    spread = np.std([of(rng.integers(0, len(a), len(a))) for _ in range(RESAMPLES)])
    value = of(np.arange(len(a)))
    interval = {"low": value - 1.96 * spread, "high": value + 1.96 * spread}
    return {"value": value} | interval | {"best of samples": np.nan}
