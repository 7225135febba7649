"""How like pictures are to what was shown: one function a definition, one number a picture.

The number is NaN where it is not defined, as for a picture of one colour, which correlates with
nothing; what it then counts as is said by `backends.reports.scores.Score`. A comparison with
another image that is not defined is a failed one, as in the papers' strict "less than".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from backends.reports.feature_networks import NETWORKS, SIDE, Features, read_state, resized
from explorer.metrics import correlation_matrix, unit, varies
from explorer.types import UserError

NSD_SIDE = 425  # and from there to NSD's own for PixCorr and SSIM
DISTRACTORS = 50  # of the pair-wise rates, where every pair has to be computed


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
        return identified(*(p.feature(network, layer) for p in (made, shown)))

    return rate


def identified(made: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Return (n,): two-way identification of features (n, ...), see `two_way_identification`.

    Features that are constant, or not finite, correlate with nothing. A picture with such ones
    has no score (NaN); a shown image with such ones is a failed comparison for all others.
    """
    unknown = [~_correlates(rows) for rows in (made, shown)]
    made, shown = (
        np.where(bad[:, None], 0, rows.reshape(len(rows), -1))
        for bad, rows in zip(unknown, (made, shown), strict=True)
    )
    similarity = correlation_matrix(made, shown)
    similarity[unknown[0]] = np.nan
    similarity[:, unknown[1]] = np.nan
    own = similarity.diagonal()[:, None]
    tied = np.abs(similarity - own) <= 1e-12
    wins = ((similarity < own) & ~tied).sum(axis=1) + (tied.sum(axis=1) - 1) / 2
    return np.where(np.isnan(own[:, 0]), np.nan, wins / (len(own) - 1))


def _correlates(rows: np.ndarray) -> np.ndarray:
    """Return bool (n,): whether features (n, ...) are finite and vary."""
    rows = np.asarray(rows, np.float64).reshape(len(rows), -1)
    finite = np.isfinite(rows).all(axis=1)
    rows = np.where(finite[:, None], rows, 0)
    return finite & varies(rows.mean(axis=1), rows.std(axis=1))


def distance(network: str, layer: str) -> PerItem:
    """1 - Pearson correlation of the features of a picture and of what was shown, 0 to 2."""

    def apart(shown: Pictures, made: Pictures) -> np.ndarray:
        a, b = (p.feature(network, layer).reshape(len(p), -1) for p in (shown, made))
        return 1 - correlations(a, b)

    return apart


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return (n,): Pearson's correlation of row i with row i.

    NaN where one of the two is constant or not finite.
    """
    known = _correlates(a) & _correlates(b)
    a, b = (np.where(known[:, None], np.asarray(x, np.float64), 0) for x in (a, b))
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.where(known, (a * b).sum(axis=1) / np.where(known, norm, 1), np.nan)


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
    seed, otherwise all. Ties count half; a badness that is NaN is a failed comparison, and the
    rate is NaN where that is the picture's own.
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
        rate = ((own < others) + 0.5 * (own == others)).mean(axis=1)
        return np.where(np.isnan(own[:, 0]), np.nan, rate)

    return rate


def squared_error(shown: Pictures, made: Pictures, candidates: np.ndarray) -> np.ndarray:
    """Mean squared error of values 0 to 1, at 256 x 256: a `pairwise` badness."""
    truth = shown.small.reshape(len(shown), -1).astype(np.float32) / 255
    found = made.small.reshape(len(made), -1).astype(np.float32) / 255
    rows = zip(found, candidates, strict=True)
    return np.stack([np.square(truth[those] - one).mean(axis=1) for one, those in rows])


def uncorrelation(shown: Pictures, made: Pictures, candidates: np.ndarray) -> np.ndarray:
    """Minus the correlation of RGB values at 256 x 256: a `pairwise` badness."""
    truth, found = (
        np.where(_correlates(x)[:, None], unit(x - x.mean(axis=1, keepdims=True)), np.nan)
        for x in (p.small.reshape(len(p), -1).astype(np.float64) for p in (shown, made))
    )
    return np.stack([-(truth[those] @ one) for one, those in zip(found, candidates, strict=True)])


def dissimilarity(shown: Pictures, made: Pictures, candidates: np.ndarray) -> np.ndarray:
    """Minus SSIM in colour at 256 x 256: a `pairwise` badness."""
    from skimage.metrics import structural_similarity as skimage_ssim

    return np.array(
        [
            [-skimage_ssim(shown.small[j], image, data_range=255, channel_axis=-1) for j in those]
            for image, those in zip(made.small, candidates, strict=True)
        ]
    )


def perceptual(shown: Pictures, made: Pictures, candidates: np.ndarray) -> np.ndarray:
    """LPIPS, see `lpips`: a `pairwise` badness."""
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
        state = read_state(file)
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
        known = np.isfinite(truth).all(axis=1) & np.isfinite(found).all(axis=1)
        return np.where(known, hypergeom.cdf(k - 1, classes - 1, likelier, n - 1), np.nan)

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
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError(
            "A Frechet distance is that of all pictures, and features of some are not finite."
        )
    apart = a.mean(axis=0) - b.mean(axis=0)
    a, b = ((x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (a, b))
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(apart @ apart + np.square(a).sum() + np.square(b).sum() - 2 * root)
