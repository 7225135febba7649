"""The tests behind maps over test images, as functions of arrays.

Two questions are asked of every parcel, and they have different answers.

*Does it carry evidence?* (``p_evidence``.) The decoder reads a brain that has a parcel's betas and
the training mean everywhere else, and what it decodes is compared with the shown image's own
embedding and with those of the other test images. Under the null hypothesis the betas of a parcel
have nothing to do with which image was shown. Then the stimuli are exchangeable: exchanging which
image was shown in which test trials gives an equally likely outcome, so p is uniform whatever the
decoder is, and however voxels and parcels differ in noise. That holds because what is decoded
depends on this parcel's betas alone. (Taking the parcel out of the trial is no such test: in a
decoder that is not linear the loss depends on what all other parcels say about the image.)

*Is importance greater here than elsewhere?* (``p_place``.) The map of importance is compared with
itself at other places: turned on the sphere, which keeps its smoothness, or with voxels exchanged
where there is no sphere. Here places are taken to be exchangeable. That is a statement about the
map, not about information: a decoder that was trained on shuffled labels gives voxels of unlike
noise unlike weights (ridge prefers voxels whose noise is their own), so its p are not uniform. So
a small ``p_place`` without a small ``p_evidence`` is a habit of the decoder.

References: Alexander-Bloch et al. 2018, NeuroImage 178:540 (spin test); Benjamini & Hochberg 1995,
J R Stat Soc B 57:289; Adebayo et al. 2018, arXiv 1810.03292 (randomised weights); Phipson & Smyth
2010, Stat Appl Genet Mol Biol 9:39 (a permutation p is never zero).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer import metrics, stopping
from explorer.brain.importance import SMALL
from explorer.brain.surfaces import bundled
from explorer.types import FSAVERAGE5_VERTICES, VoxelSpace

PERMUTATIONS = 1000
TURNS_AT_ONCE = 100  # memory
PRODUCTS = 300_000_000  # bytes of decoded embeddings times shown ones, of some parcels at a time
ORDERS_AT_ONCE = 512  # of the stimuli
ENOUGH = 100  # turns that must leave a parcel among voxels, for a p of at least two digits
REACH = 10.0  # mm on the sphere of 100 mm: a turned voxel takes the value of one as near as this
KEPT_SHARE = 0.5  # of a parcel's voxels that must land near others for a turn to count
Progress = Callable[[float, str], None]
"""Called with the share of the work that is done and what is next; what it raises stops the work,
and nothing is kept."""


def parcel_evidence(
    decode: Callable[[np.ndarray], np.ndarray],
    betas: np.ndarray,
    average: np.ndarray,
    masks: np.ndarray,
    shown: np.ndarray,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    alone: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the evidence of each parcel (L,), in SDs of its null, and its p; see `evidence_test`.

    What is tested is decoded from the parcel's own betas amid the training mean. For a linear
    decoder that is, but for a constant, what the parcel adds to the decoded embedding.

    Parameters
    ----------
    decode
        Betas (n, V) -> raw embeddings (n, ...).
    betas
        (n, V), one row a stimulus.
    average
        (V,) training mean, which takes the place of all other betas.
    masks
        bool (L, V); a parcel with fewer than 10 voxels is not tested and has NaN.
    shown
        (n, ...) the true embedding of each row's stimulus.
    permutations, seed, progress
        As in `explorer.evidence.statistics.subject_map`.
    alone
        A mask (V,) -> what ``decode`` makes of these voxels' betas amid ``average``, where a
        mapper knows a shorter way (`Mapper.decode_alone`).
    """
    n = len(betas)
    orders = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (permutations, 1)), axis=1)
    taken, unit = np.ascontiguousarray(orders.T, dtype=np.int32), _units(shown)
    z, p = np.full((2, len(masks)), np.nan)
    tested = [i for i, mask in enumerate(masks) if mask.sum() >= SMALL]
    few = max(1, PRODUCTS // (4 * n * n))
    for begin in range(0, len(tested), few):
        some = tested[begin : begin + few]
        products = np.empty((n, n, len(some)), np.float32)
        for k, i in stopping.steps(enumerate(some)):
            if progress:
                progress(i / len(masks), "evidence of each parcel")
            found = alone(masks[i]) if alone else decode(np.where(masks[i], betas, average))
            products[..., k] = _products(found, unit)
        z[some], p[some] = _exchanged(products, taken)
    return z, p


def evidence_test(
    decoded: np.ndarray, shown: np.ndarray, orders: np.ndarray
) -> tuple[float, float]:
    """Return how far what is decoded from a parcel points to the shown images, in SDs, and its p.

    The statistic is the mean over stimuli of ``decoded . shown / |shown|``, its null distribution
    that of the same decoded embeddings with the shown images exchanged. One-sided; what all
    decoded embeddings have in common does not matter.

    Parameters
    ----------
    decoded
        (n, ...): what is decoded from the parcel in the trials of n stimuli.
    shown
        (n, ...) true embeddings.
    orders
        int (permutations, n): orders of the stimuli.
    """
    products = _products(decoded, _units(shown))[..., None]
    z, p = _exchanged(products, np.ascontiguousarray(orders.T, dtype=np.int32))
    return float(z[0]), float(p[0])


def _units(shown: np.ndarray) -> np.ndarray:
    return metrics.unit(np.reshape(shown, (len(shown), -1))).astype(np.float32)


def _products(decoded: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return float32 (n, n): decoded row i, less the mean row, along the shown image j."""
    rows = np.reshape(decoded, (len(decoded), -1))
    mean = rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)
    return np.asarray(rows - mean, np.float32) @ unit.T


def _exchanged(products: np.ndarray, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return z (L,) and p (L,) of products (n, n, L), ``taken`` (n, permutations) by stimulus."""
    n, permutations = taken.shape
    null = np.zeros((permutations, products.shape[2]))
    for begin in stopping.steps(range(0, permutations, ORDERS_AT_ONCE)):
        sums = null[begin : begin + ORDERS_AT_ONCE]  # which stay in a core's cache
        buffer = np.empty(sums.shape, np.float32)
        for rows, columns in zip(products, taken[:, begin : begin + ORDERS_AT_ONCE], strict=True):
            sums += rows.take(columns, axis=0, out=buffer, mode="clip")
    null /= n
    every = np.arange(n)
    found = products[every, every].mean(axis=0, dtype=np.float64)
    spread, tiny = null.std(axis=0), 1e-9 * np.abs(products).max(axis=(0, 1))
    p = (1 + (null >= found - tiny).sum(axis=0)) / (1 + permutations)
    varied = spread > tiny
    return np.where(varied, (found - null.mean(axis=0)) / np.where(varied, spread, 1), 0.0), p


def place_test(
    values: np.ndarray, masks: np.ndarray, sources: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return p (L,) that a parcel's mean is as large elsewhere, and how many turns p rests on.

    Parameters
    ----------
    values
        (V,) importance.
    masks
        bool (L, V) parcels.
    sources
        int (turns, V), see `turns`; a voxel without a place is V in every turn and left out.

    Notes
    -----
    A turn counts for a parcel where half of its voxels land near others; p is NaN where fewer
    than 100 do (or than all, of fewer turns).
    """
    v = len(values)
    if np.isfinite(values).all() and sources.max(initial=0) < v:
        return _all_placed(values, masks, sources)
    placed = (sources < v).any(axis=0) & np.isfinite(values)
    weights = (masks & placed).astype(np.float64)  # (L, V)
    sizes = weights.sum(axis=1)
    padded = np.append(values, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):  # parcels without voxels are NaN
        found = weights @ np.where(placed, values, 0.0) / sizes
        above, valid = np.zeros((2, len(masks)), dtype=int)
        for begin in stopping.steps(range(0, len(sources), TURNS_AT_ONCE)):
            turned = padded[sources[begin : begin + TURNS_AT_ONCE]]
            there = np.isfinite(turned)
            landed = there.astype(np.float64) @ weights.T
            mean = np.where(there, turned, 0.0) @ weights.T / landed
            counts = (landed >= KEPT_SHARE * sizes) & (landed > 0)
            above += (counts & (mean >= found * (1 - 1e-12))).sum(axis=0)
            valid += counts.sum(axis=0)
    enough = valid >= min(ENOUGH, len(sources))
    return np.where(enough, (1 + above) / (1 + valid), np.nan), valid


def _all_placed(
    values: np.ndarray, masks: np.ndarray, sources: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `place_test` does where every voxel has a place in every turn."""
    weights = masks.T.astype(np.float64)  # (V, L)
    sizes = weights.sum(axis=0)
    found, above = values @ weights, np.zeros(len(masks), dtype=int)
    for begin in stopping.steps(range(0, len(sources), TURNS_AT_ONCE)):
        turned = values.take(sources[begin : begin + TURNS_AT_ONCE]) @ weights
        above += (turned >= found * (1 - 1e-12)).sum(axis=0)
    valid = np.where(sizes > 0, len(sources), 0)
    return np.where(sizes > 0, (1 + above) / (1 + len(sources)), np.nan), valid


def turns(voxels: VoxelSpace, n: int, seed: int) -> np.ndarray:
    """Return int (n, V): whose value each voxel takes when the map is turned, V for nobody's.

    Voxels with places on fsaverage5 (that of their largest weight) are rotated on its sphere,
    uniformly at random, the right hemisphere as the mirror image of the left, and take the value
    of the nearest voxel within 10 mm. Without places voxels are permuted.
    """
    from scipy.spatial import cKDTree
    from scipy.spatial.transform import Rotation

    rng, v = np.random.default_rng(seed), voxels.n_voxels
    kind = np.uint16 if v < 2**16 else np.uint32
    if voxels.projection is None:
        out = np.empty((n, v), dtype=kind)
        for begin in stopping.steps(range(0, n, TURNS_AT_ONCE)):
            some = out[begin : begin + TURNS_AT_ONCE]
            some[:] = np.arange(v, dtype=kind)
            rng.permuted(some, axis=1, out=some)
        return out
    vertex = _vertices(voxels)
    half = FSAVERAGE5_VERTICES // 2
    out = np.full((n, v), v, dtype=kind)
    rotations = Rotation.random(n, random_state=rng).as_matrix()
    for side, mirror in (("left", (1, 1, 1)), ("right", (-1, 1, 1))):
        (sphere, _) = bundled(f"sphere_{side}")
        start = half * (side == "right")
        here = np.flatnonzero((vertex >= start) & (vertex < start + half))
        if not len(here):
            continue
        at = sphere[vertex[here] - start].astype(np.float64)
        tree, numbers = cKDTree(at), np.append(here, v)
        for i, rotation in stopping.steps(enumerate(rotations)):
            moved = (at * mirror) @ rotation.T * mirror
            out[i, here] = numbers[tree.query(moved, distance_upper_bound=REACH)[1]]
    return out


def _vertices(voxels: VoxelSpace) -> np.ndarray:
    """Return int (V,): the vertex on which most of a voxel's weight falls, -1 where none does."""
    weights = abs(voxels.projection).tocoo()
    order = np.lexsort((weights.data, weights.col))  # the last of a column is its largest
    vertex = np.full(voxels.n_voxels, -1)
    vertex[weights.col[order]] = weights.row[order]
    return vertex


def discoveries(p: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Return Benjamini-Hochberg q (L,) of the tests where ``tested`` and p is known, else NaN."""
    from scipy.stats import false_discovery_control

    q = np.full(len(p), np.nan)
    known = tested & np.isfinite(p)
    if known.any():
        q[known] = false_discovery_control(p[known], method="bh")
    return q


def over_subjects(
    values: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, 95 % t interval and one-sided p (above 0) over the subjects of (N, L).

    NaN is left out. Interval and p are NaN where fewer than two subjects have a value, or all
    have the same.
    """
    from scipy.stats import t

    known = np.isfinite(values)
    n = known.sum(axis=0)
    filled = np.where(known, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=0) / n
        spread = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(axis=0) / (n - 1))
        error = np.where((n > 1) & (spread > 0), spread / np.sqrt(n), np.nan)
        degrees = np.maximum(n - 1, 1)
        reach = t.ppf(0.975, degrees) * error
        return mean, mean - reach, mean + reach, t.sf(mean / error, degrees)


@dataclass(frozen=True, eq=False)
class Reliability:
    """How alike two ways to make one map are: mean Spearman correlation over parcels.

    ``of`` names what differs ("repeats", "seeds"); ``pairs`` holds ``(name, name, correlation)``;
    ``value`` is their mean, NaN without any; ``sentence`` says so, or why there is none.
    """

    of: str
    pairs: tuple[tuple[str, str, float], ...]
    value: float
    sentence: str


def reliability(of: str, maps: Mapping[str, np.ndarray], alone: str) -> Reliability:
    """Return how alike maps (L,) are, pair by pair; ``alone`` is the sentence for fewer than 2."""
    names = list(maps)
    pairs = tuple(
        (a, b, metrics.spearman(maps[a], maps[b]))
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    )
    known = [value for *_, value in pairs if not math.isnan(value)]
    if not known:
        return Reliability(of, pairs, math.nan, alone)
    value = float(np.mean(known))
    said = (
        f"Maps of two {of} correlate {metrics.written(value)} over parcels (mean of {len(known)} "
        f"pair{'s' * (len(known) > 1)})."
    )
    lost = len(pairs) - len(known)
    said += f" {lost} more cannot be compared: too few parcels, or a flat map." * bool(lost)
    return Reliability(of, pairs, value, said)


@dataclass(frozen=True, eq=False)
class Randomised:
    """The same map of a mapper whose weights were shuffled, and what it has of the trained one.

    ``correlation``: Spearman over parcels; ``low`` and ``high``: where 95 % of correlations lie
    when parcels are exchanged at random. ``within``: whether it lies there, as it should.
    """

    correlation: float
    low: float
    high: float
    within: bool
    sentence: str


def randomised(own: np.ndarray, random: np.ndarray, permutations: int, seed: int) -> Randomised:
    """Compare two maps (L,) over parcels."""
    correlation = metrics.spearman(own, random)
    if math.isnan(correlation):
        sentence = "The map of shuffled weights cannot be compared: it is flat or has too few "
        nan = math.nan
        return Randomised(nan, nan, nan, False, sentence + "parcels.")
    rng = np.random.default_rng(seed)
    draws = stopping.steps(range(permutations))
    if np.isnan(own).any() or np.isnan(random).any():
        drawn = [metrics.spearman(own, rng.permutation(random)) for _ in draws]
    else:  # ranks are exchanged as values are
        a, b = (metrics.ranks(x) - (len(x) + 1) / 2 for x in (own, random))
        norm = np.sqrt((a @ a) * (b @ b))
        drawn = [a @ rng.permutation(b) / norm for _ in draws]
    low, high = (float(q) for q in np.quantile(drawn, (0.025, 0.975)))
    within = low <= correlation <= high
    said = (
        "as it should: the map comes from what was learned"
        if within
        else "so part of the map comes from the architecture or the voxels, not from what was "
        "learned"
    )
    sentence = (
        f"With its weights shuffled the map correlates {metrics.written(correlation)} with this "
        f"one, {'within' if within else 'outside'} what chance gives ({metrics.written(low)} to "
        f"{metrics.written(high)}), {said}."
    )
    return Randomised(correlation, low, high, within, sentence)


def shuffled_weights(mapper: Any, seed: int) -> Any:
    """Return a copy of a mapper in which the values of every weight tensor are shuffled.

    So it has random weights of the same shapes and the same spread. What is known of the voxels
    (their training mean and deviation) stays.
    """
    import torch

    random = copy.deepcopy(mapper)
    kept = {f"{kind}_{subject}" for kind in ("mean", "sd") for subject in mapper.subjects}
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in random.state_dict().items():
            if name not in kept and tensor.is_floating_point() and tensor.numel() > 1:
                order = torch.randperm(tensor.numel(), generator=draw).to(tensor.device)
                tensor.copy_(tensor.flatten()[order].reshape(tensor.shape))
    return random.eval()
