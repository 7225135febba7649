"""How like pictures are to what was shown: one function a definition, one number a picture.

The number is NaN where it is not defined, as for a picture of one colour, which correlates with
nothing; what it then counts as is said by `backends.reports.scores.Score`. A comparison with
another image that is not defined is a failed one, as in the papers' strict "less than".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from backends.reports.feature_networks import NETWORKS, PLAIN, SIDE, Features, Look, resized
from explorer.metrics import correlation_matrix, varies
from explorer.types import UserError

KEPT = 2**29  # bytes of a wide layer's features that are kept at once: our choice
AT_ONCE = 2**13  # values that float32 adds up before float64 does
TIED = 1e-12  # correlations nearer than this are equal
TIED_WIDE = 1e-7  # of a wide layer, which is multiplied in float32


class Pictures:
    """n pictures uint8 (H, W, 3) in the forms that scores need, each computed once.

    Parameters
    ----------
    images
        The pictures.
    features
        Where networks come from.
    look
        How they are brought to the sizes that are compared.
    say
        What is told of what takes long.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        features: Features,
        look: Look = PLAIN,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.images, self.features = list(images), features
        self.look, self.say = look, say
        self._found: dict[str, dict[str, np.ndarray]] = {}
        self._kept: dict[str, tuple[Pictures, Any]] = {}

    def __len__(self) -> int:
        """Return n."""
        return len(self.images)

    def feature(self, network: str, layer: str = "") -> np.ndarray:
        """Return float32 (n, ...) of a network's layer, or of a function by its name."""
        if network not in self._found:
            self._found[network] = self.features.of(network, self.images, self.look)
        return self._found[network][layer or network]

    def batches(self, network: str) -> Iterator[dict[str, np.ndarray]]:
        """Yield the features of a few pictures after the other, by layer; nothing is kept."""
        if network in self._found:
            yield self._found[network]
        else:
            yield from self.features.batches(network, self.images, self.look)

    def kept(self, what: str, shown: Pictures, find: Callable[[], Any]) -> Any:
        """Return what was found of these and the shown pictures; found only once."""
        if what not in self._kept or self._kept[what][0] is not shown:
            self._kept[what] = shown, find()
        return self._kept[what][1]

    def resized(self) -> Iterator[np.ndarray]:
        """Yield float32 (3, S, S) in 0 ... 1 at the side of PixCorr and SSIM."""
        look = self.look
        for image in self.images:
            sides = look.sides(look.pixels)
            yield resized([image], *sides, bicubic=look.pixels_bicubic, look=look)[0].numpy()

    @cached_property
    def small(self) -> list[np.ndarray]:
        """Return uint8 (256, 256, 3) of each picture; one of that size as it is."""
        rows = []
        for image in self.images:
            if image.shape[:2] != (SIDE, SIDE):
                levels = (resized([image], SIDE, look=self.look)[0].numpy() * 255).round()
                image = np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))
            rows.append(image)
        return rows


PerItem = Callable[[Pictures, Pictures], np.ndarray]


def two_way(network: str, layer: str = "") -> PerItem:
    """Two-way identification of features, per picture: see `two_way_identification`."""

    def rate(shown: Pictures, made: Pictures) -> np.ndarray:
        if network in NETWORKS and NETWORKS[network].wide:
            return identified_by(similarities(shown, made, network)[layer], TIED_WIDE)
        return identified(*(p.feature(network, layer) for p in (made, shown)))

    return rate


def similarities(shown: Pictures, made: Pictures, network: str) -> dict[str, np.ndarray]:
    """Return float64 (n, n) by layer: the correlation of made picture i with shown picture j.

    NaN where features are constant or not finite. Of the layers that two-way rates compare.
    """
    layers = NETWORKS[network].wide

    def found() -> dict[str, np.ndarray]:
        def form(part: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {layer: _standardised(part[layer]) for layer in layers}

        return {k: cross for k, (cross, _) in products(shown, made, network, form).items()}

    return made.kept(f"similarities of {network}", shown, found)


def _standardised(rows: np.ndarray) -> np.ndarray:
    """Return float32 (n, D) of mean 0 and length 1, whose products are Pearson correlations."""
    centred, length, known = _centred(rows.reshape(len(rows), -1))
    return (centred * np.where(known, 1 / np.where(known, length, 1), np.nan)[:, None]).astype(
        np.float32
    )


def _centred(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return float64 (n, D) less each row's mean, lengths (n,), and which are finite and vary."""
    with np.errstate(invalid="ignore", over="ignore"):  # of what is not finite
        rows = np.asarray(rows, np.float64)
        mean = rows.mean(axis=1)
        centred = rows - mean[:, None]
        squares = np.einsum("ij,ij->i", centred, centred)
        known = np.isfinite(squares) & varies(mean, np.sqrt(squares / rows.shape[1]))
    return centred, np.sqrt(squares), known


Form = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
Squares = tuple[np.ndarray, np.ndarray]


def products(
    shown: Pictures, made: Pictures, network: str, form: Form
) -> dict[str, tuple[np.ndarray, Squares]]:
    """Return the products of features of made and shown pictures, without keeping all features.

    The shown pictures' features are kept in blocks of half a gigabyte, and for each block the
    made pictures go through the network again, a few at a time.

    Parameters
    ----------
    shown, made
        n pictures each.
    network
        Whose features.
    form
        What makes float32 rows (m, D) by a name of a network's layers (m, ...).

    Returns
    -------
    products
        Name -> float64 (n, n) of made picture i and shown picture j, and the products of the
        shown, and of the made pictures with themselves (n,).
    """
    n, found = len(shown), {}
    for begin, block in _blocks(shown, network, form):
        for name, theirs in block.items():
            cross, squares = found.setdefault(name, (np.empty((n, n)), (np.empty(n), np.empty(n))))
            squares[0][begin : begin + len(theirs)] = _squared(theirs)
        row = 0
        for part in made.batches(network):
            for name, rows in form(part).items():
                (cross, squares), theirs = found[name], block[name]
                end = row + len(rows)
                cross[row:end, begin : begin + len(theirs)] = _multiplied(rows, theirs)
                squares[1][row:end] = _squared(rows)
            row = end
    return found


def _blocks(
    pictures: Pictures, network: str, form: Form
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield where a block begins, and its rows by name, of as many pictures as may be kept.

    The next block takes the memory of the one before.
    """
    kept: dict[str, np.ndarray] = {}
    begin = filled = 0
    for part in pictures.batches(network):
        found = form(part)
        count = len(next(iter(found.values())))
        if not kept:
            each = sum(rows[0].nbytes for rows in found.values())
            most = min(len(pictures), max(KEPT // each, count))
            kept = {k: np.empty((most, *v.shape[1:]), v.dtype) for k, v in found.items()}
        if filled + count > len(next(iter(kept.values()))):
            yield begin, {name: rows[:filled] for name, rows in kept.items()}
            begin, filled = begin + filled, 0
        for name, rows in found.items():
            kept[name][filled : filled + count] = rows
        filled += count
    if filled:
        yield begin, {name: rows[:filled] for name, rows in kept.items()}


def _squared(rows: np.ndarray) -> np.ndarray:
    return np.array([_multiplied(row[None], row[None])[0, 0] for row in rows])


def _multiplied(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return float64 (n, m) of float32 rows (n, D) and (m, D)."""
    total = np.zeros((len(a), len(b)))
    for begin in range(0, a.shape[1], AT_ONCE):
        total += a[:, begin : begin + AT_ONCE] @ b[:, begin : begin + AT_ONCE].T
    return total


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
    return identified_by(similarity, TIED)


def identified_by(similarity: np.ndarray, tolerance: float) -> np.ndarray:
    """Return (n,): the share of other shown images that are less similar than a picture's own.

    ``similarity`` (n, n) of picture i with shown image j; NaN is a failed comparison, and no score
    where it is the own. Differences up to ``tolerance`` are ties, which count half.
    """
    own = similarity.diagonal()[:, None]
    tied = np.abs(similarity - own) <= tolerance
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


def cosine(network: str, layer: str) -> PerItem:
    """Cosine of the features of a picture and of what was shown, -1 to 1; NaN for zeros."""

    def alike(shown: Pictures, made: Pictures) -> np.ndarray:
        a, b = (p.feature(network, layer).reshape(len(p), -1) for p in (shown, made))
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        known = np.isfinite(norm) & (norm > 0)
        return np.where(known, (a * b).sum(axis=1) / np.where(known, norm, 1), np.nan)

    return alike


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return (n,): Pearson's correlation of row i with row i.

    NaN where one of the two is constant or not finite.
    """
    (a, one, known), (b, two, also) = (_centred(x.reshape(len(x), -1)) for x in (a, b))
    known &= also
    with np.errstate(invalid="ignore", over="ignore"):
        products = np.einsum("ij,ij->i", a, b)
    return np.where(known, products / np.where(known, one * two, 1), np.nan)


def pixel_correlation(shown: Pictures, made: Pictures) -> np.ndarray:
    """Pearson's correlation of all RGB values at 425 x 425."""
    return _of_pixels(shown, made)[0]


def structural_similarity(*, columns: bool = False) -> PerItem:
    """SSIM in grey at 425 x 425: Gaussian weights of sigma 1.5, population covariance, range 1.

    The NSD papers pass ``multichannel=True`` with a grey image, which versions of scikit-image
    read differently: those from 0.19 on see one grey channel; the older ones, Brain-Diffuser's
    0.17 among them, take each column of pixels for a channel (``columns``), so that weights run
    along columns only.
    """

    def similarity(shown: Pictures, made: Pictures) -> np.ndarray:
        if not columns:
            return _of_pixels(shown, made)[1]
        pairs = zip(shown.resized(), made.resized(), strict=True)
        return np.array([_grey_ssim(*pair, channel_axis=-1) for pair in pairs])

    return similarity


def _of_pixels(shown: Pictures, made: Pictures) -> np.ndarray:
    """Return PixCorr and SSIM (2, n): pictures are resized once for both."""

    def found() -> np.ndarray:
        rows = []
        for a, b in zip(shown.resized(), made.resized(), strict=True):
            alike = correlations(a.reshape(1, -1), b.reshape(1, -1))[0]
            rows.append([alike, _grey_ssim(a, b, channel_axis=None)])
        return np.array(rows).T

    return made.kept("pixels", shown, found)


def _grey_ssim(a: np.ndarray, b: np.ndarray, channel_axis: int | None) -> float:
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity as skimage_ssim

    return skimage_ssim(
        *(rgb2gray(image, channel_axis=0) for image in (a, b)),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=channel_axis,
    )


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
