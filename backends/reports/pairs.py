"""Rates over pairs: how often a picture is nearer to what was shown than to another shown image.

All pairs of pictures by a few matrix products where a distance has an inner product (MSE, PCC,
LPIPS); the structural similarity from sums over windows, of which only the cross term is a pair's
own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from backends.reports.feature_networks import NETWORKS, read_state
from backends.reports.likeness import PerItem, Pictures, products
from explorer.metrics import varies

LPIPS = "AlexNet, torchvision IMAGENET1K_V1, with LPIPS 0.1"
DISTRACTORS = 50  # where every pair has to be computed
Badness = Callable[[Pictures, Pictures, np.ndarray], np.ndarray]
# Products of centred grey levels, at most 2^14, of which 2^10 add up to an integer that float32
# still holds exactly.
EXACT = 2**10
WINDOW = 7  # scikit-image's SSIM without Gaussian weights
IN_WINDOW = WINDOW**2
BLOCK = 128  # shown images whose sums over windows are kept at once, 3.8 MB each
TIMED = 4  # pairs, before a forecast is made


def pairwise(badness: Badness, most: int | None = DISTRACTORS) -> PerItem:
    """How often a picture is nearer to what was shown than to another shown image.

    ``badness(shown, made, others)`` gives (n, 1 + m): column 0 against its own image, then against
    the images in ``others`` int (n, m). With more than ``most`` others they are that many drawn by
    a seed, otherwise all; None: all. Ties count half; a badness that is NaN is a failed
    comparison, and the rate is NaN where that is the picture's own.
    """

    def rate(shown: Pictures, made: Pictures) -> np.ndarray:
        n = len(shown)
        rng = np.random.default_rng(0)
        every = [np.delete(np.arange(n), i) for i in range(n)]
        if most is not None and n - 1 > most:
            every = [rng.choice(others, most, replace=False) for others in every]
        candidates = np.column_stack([np.arange(n), np.stack(every)])
        bad = badness(shown, made, candidates)
        own, others = bad[:, :1], bad[:, 1:]
        rate = ((own < others) + 0.5 * (own == others)).mean(axis=1)
        return np.where(np.isnan(own[:, 0]), np.nan, rate)

    return rate


def squared_error(shown: Pictures, made: Pictures, candidates: np.ndarray) -> np.ndarray:
    """Mean squared error of values 0 to 1, at 256 x 256: a `pairwise` badness."""
    cross, (squares, theirs), _ = _grey_products(shown, made)
    apart = theirs[:, None] + squares - 2 * cross
    size = shown.small[0].size
    return np.take_along_axis(apart, candidates, axis=1) / (size * 255.0**2)


def uncorrelation(shown: Pictures, made: Pictures, candidates: np.ndarray) -> np.ndarray:
    """Minus the correlation of RGB values at 256 x 256: a `pairwise` badness."""
    cross, squares, sums = _grey_products(shown, made)
    size = shown.small[0].size
    norms = []
    for square, total in zip(squares, sums, strict=True):
        variance = (square - total**2 / size) / size
        known = varies(total / size + 128, np.sqrt(np.maximum(variance, 0)))
        norms.append(np.where(known, np.sqrt(np.maximum(variance, 0) * size), np.nan))
    centred = cross - sums[1][:, None] * sums[0] / size
    alike = centred / (norms[1][:, None] * norms[0])
    return -np.take_along_axis(alike, candidates, axis=1)


def _grey_products(
    shown: Pictures, made: Pictures
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return what pairs of pictures of grey levels minus 128 have in common, all exact integers.

    The products float64 (n, n) of made with shown ones; the sums of squares (n,), and the sums
    (n,), of shown and made ones.
    """

    def found() -> tuple:
        n = len(shown)
        cross = np.zeros((n, n))
        squares, sums = (np.zeros((2, n)) for _ in range(2))
        flat = [[image.reshape(-1) for image in p.small] for p in (shown, made)]
        for begin in range(0, flat[0][0].size, EXACT):
            some = slice(begin, begin + EXACT)
            part = [np.stack([x[some] for x in rows]).astype(np.float32) - 128 for rows in flat]
            cross += part[1] @ part[0].T
            for k, x in enumerate(part):
                squares[k] += np.square(x).sum(axis=1)
                sums[k] += x.sum(axis=1)
        return cross, tuple(squares), tuple(sums)

    return made.kept("grey products", shown, found)


# --------------------------------------------------------------------------- structural similarity


def dissimilarity(shown: Pictures, made: Pictures, candidates: np.ndarray) -> np.ndarray:
    """Minus SSIM in colour at 256 x 256, range 255: a `pairwise` badness.

    Windows of 7 x 7 with equal weights and sample covariance, averaged over the three channels:
    scikit-image's ``structural_similarity(..., data_range=255, channel_axis=-1)``.
    """
    import torch

    bad, workers = np.empty(candidates.shape), torch.get_num_threads()
    forecast = _forecast(shown, made, candidates.size, workers)
    if made.say and forecast:
        made.say(forecast)
    with ThreadPoolExecutor(workers) as pool:
        for begin in range(0, len(shown), BLOCK):
            _fill(
                bad,
                shown,
                made,
                candidates,
                range(begin, min(begin + BLOCK, len(shown))),
                pool,
                workers,
            )
    return bad


def _fill(
    bad: np.ndarray,
    shown: Pictures,
    made: Pictures,
    candidates: np.ndarray,
    block: range,
    pool: ThreadPoolExecutor,
    workers: int,
) -> None:
    """Write into ``bad`` what compares with the shown images of one block."""
    found = pool.map(windows, (shown.small[j] for j in block))
    sums = dict(zip(block, found, strict=True))

    def compare(rows: np.ndarray) -> None:
        own = None  # whose memory serves one picture after the other
        for i in rows:
            columns = [k for k, j in enumerate(candidates[i]) if j in sums]
            if columns:
                own = windows(made.small[i], own)
                bad[i, columns] = [-mean_ssim(own, sums[candidates[i, k]]) for k in columns]

    list(pool.map(compare, np.array_split(np.arange(len(made)), 4 * workers)))


def _forecast(shown: Pictures, made: Pictures, pairs: int, workers: int) -> str:
    """Return how long so many comparisons will take, from a few of them; "" for a second."""
    a, b = windows(shown.small[0]), windows(made.small[0])
    mean_ssim(a, b)
    began = time.perf_counter()
    for _ in range(TIMED):
        mean_ssim(a, b)
    seconds = (time.perf_counter() - began) / TIMED * pairs / workers
    if seconds < 2:
        return ""
    return f"SSIM, two-way: {pairs:,} comparisons, about {length(seconds)}"


def length(seconds: float) -> str:
    """Return a length of time for a sentence."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


Windows = list[tuple[np.ndarray, ...]]


def windows(image: np.ndarray, out: Windows | None = None) -> Windows:
    """Return what one picture uint8 (H, W, 3) brings into `mean_ssim`, by channel, float32.

    Its values minus their mean (H, W), rounded so that sums are exact; and for each window
    (H - 6, W - 6) 7 times the mean of those, sqrt(2) times the mean, its square with half of C1,
    and the variance with half of C2. ``out``: those of another picture of its size, to be
    overwritten.
    """
    half_one, half_two = (np.float32((k * 255) ** 2 / 2) for k in (0.01, 0.03))
    height, width = (side - WINDOW + 1 for side in image.shape[:2])
    if out is None:
        whole = np.empty((3, *image.shape[:2]), np.float32)
        out = [(whole[k], *np.empty((4, height, width), np.float32)) for k in range(3)]
    for levels, kept in zip(np.ascontiguousarray(image.transpose(2, 0, 1)), out, strict=True):
        values, scratch, mean, squared, spread = kept
        middle = np.float32(levels.mean().round())
        np.subtract(levels, middle, out=values)
        total = box(values)
        np.multiply(total, np.float32(1 / WINDOW), out=scratch)
        np.multiply(scratch, scratch, out=squared)
        np.subtract(box(values * values), squared, out=spread)
        spread *= np.float32(1 / (IN_WINDOW - 1))
        spread += half_two
        np.multiply(total, np.float32(1 / IN_WINDOW), out=mean)
        mean += middle
        np.multiply(mean, mean, out=squared)
        squared += half_one
        mean *= np.float32(np.sqrt(2))
    return out


def box(values: np.ndarray) -> np.ndarray:
    """Return the sums over windows of 7 x 7 of the last two axes, each axis 6 shorter."""
    for _ in range(2):
        two = values[..., :-1, :] + values[..., 1:, :]
        seven = two[..., :-5, :] + two[..., 2:-3, :]
        seven += two[..., 4:-1, :]
        seven += values[..., 6:, :]
        values = seven.swapaxes(-1, -2)
    return values


def mean_ssim(a: Windows, b: Windows) -> float:
    """Return the structural similarity of two pictures by their `windows`, mean over channels."""
    twice = np.float32(2 / (IN_WINDOW - 1))
    one, two = np.float32((0.01 * 255) ** 2), np.float32((0.03 * 255) ** 2) / twice
    total = 0.0
    for x, y in zip(a, b, strict=True):  # channel by channel: that stays in a core's cache
        top = box(x[0] * y[0])
        scratch = x[1] * y[1]
        top -= scratch
        top += two
        np.multiply(x[2], y[2], out=scratch)
        scratch += one
        top *= scratch
        np.add(x[3], y[3], out=scratch)
        scratch *= x[4] + y[4]
        top /= scratch
        total += float(top.sum()) / top.size
    return total / 3 * float(twice)


# ------------------------------------------------------------------------------------------- LPIPS


def perceptual(shown: Pictures, made: Pictures, candidates: np.ndarray) -> np.ndarray:
    """LPIPS, see `lpips`: a `pairwise` badness."""
    return np.take_along_axis(lpips(shown, made), candidates, axis=1)


def lpips(shown: Pictures, made: Pictures) -> np.ndarray:
    """Return LPIPS (AlexNet, version 0.1) (n, n) of made picture i and shown picture j, from 0.

    Squared differences of the unit-length features of five layers, weighted per channel, averaged
    over places, summed over layers (Zhang et al. 2018, arXiv 1801.03924): a squared distance,
    which products give to about 1e-6. The weights come with torchmetrics. Pictures are 256 x 256
    and normalised as for ImageNet, which is what the original's own constants amount to.
    """
    weights = dict(zip(NETWORKS["alexnet"].layers, _lpips_weights(), strict=True))

    def weighted(part: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"": np.concatenate([_weighted(part[k], w) for k, w in weights.items()], axis=1)}

    def found() -> np.ndarray:
        cross, squares = products(shown, made, "alexnet", weighted)[""]
        apart = squares[1][:, None] + squares[0] - 2 * cross
        return np.maximum(apart, 0).round(6)

    return made.kept("lpips", shown, found)


def _weighted(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return features (n, C, H, W) as rows whose squared distance is a layer's part of LPIPS."""
    unit = rows / np.sqrt(np.square(rows).sum(axis=1, keepdims=True) + 1e-8)
    places = rows.shape[2] * rows.shape[3]
    return (unit * np.sqrt(weight / places)[:, None, None]).reshape(len(rows), -1)


def _lpips_weights() -> list[np.ndarray]:
    from importlib.resources import as_file, files

    found = files("torchmetrics") / "functional" / "image" / "lpips_models" / "alex.pth"
    with as_file(found) as file:
        state = read_state(file)
    return [state[f"lin{k}.model.1.weight"].numpy().ravel() for k in range(5)]
