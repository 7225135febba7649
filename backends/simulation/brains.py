"""Simulated brains: betas of a subject whose tuning, noise and truth are known exactly.

A vertex's signal is a sum of responses to the feature groups of its parcel (``cortex.AREAS``),
with tuning that varies smoothly over cortex, a compressive non-linearity, and a standard deviation
that its ncsnr dictates. Every trial's noise comes from a seed of its own, so any row can be made
again without the others.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.simulation import cortex
from backends.simulation.features import (
    CHANNELS,
    FREQUENCIES,
    GRID,
    GROUPS,
    OPPONENCIES,
    ORIENTATIONS,
)
from backends.simulation.scenes import CATEGORIES, SUPERCATEGORIES

if TYPE_CHECKING:
    import scipy.sparse as sp

VERSION = 1  # raise it when anything changes that a beta depends on
HEMISPHERE_VERTICES = 10_242
FOURIER = 256  # random Fourier features of a smooth map; the error falls with the root of it
ROWS_AT_ONCE = 512  # scenes a block: 3 MB of energies a channel


@dataclass(frozen=True, eq=False)
class Brain:
    """One subject: what each of V vertices (left hemisphere first) answers to and how noisily.

    ``vertices`` (V,) are fsaverage5 indices, ``parcels`` (V,) names such as "fusiform L".
    ``ncsnr`` (V,) is the true signal SD over the SD of one trial's noise, ``noise_sd`` and
    ``baseline`` (V,) are in percent signal change. The other fields are the tuning and are used by
    the functions here.
    """

    name: str
    entropy: tuple[int, int]  # seed of the study, number of the subject
    vertices: np.ndarray
    parcels: np.ndarray
    ncsnr: np.ndarray
    noise_sd: np.ndarray
    baseline: np.ndarray
    weights: Mapping[str, np.ndarray]  # group -> (features, V), 0 where the group plays no part
    fields: np.ndarray  # (GRID * GRID, V), receptive fields, columns sum to 1
    shares: Mapping[str, np.ndarray]  # group -> (V,), of the signal variance
    scaling: Mapping[str, tuple[np.ndarray, np.ndarray]]  # group or "sum" -> mean and SD (V,)
    smoothing: sp.csr_matrix  # (V, V)
    loadings: np.ndarray  # (latents, V)
    white: np.ndarray  # (V,), SD of the independent part of the unit noise

    @property
    def informative(self) -> np.ndarray:
        """Bool (V,): vertices that carry information."""
        return self.ncsnr > 0

    @property
    def information(self) -> np.ndarray:
        """Share of one trial's variance that the picture explains, (V,) in [0, 1)."""
        return self.ncsnr**2 / (1 + self.ncsnr**2)


def estimate_ncsnr(betas: np.ndarray) -> np.ndarray:
    """Return the noise-ceiling SNR as a study estimates it from repeats (Allen et al. 2022).

    Parameters
    ----------
    betas
        (images, repeats, V), at least two of each; any unit.

    Returns
    -------
    numpy.ndarray
        float32 (V,), from 0: signal SD over noise SD. The noise variance is the mean over images
        of the variance over repeats; the rest of the total variance is signal, 0 if negative.
    """
    noise = betas.var(axis=1, ddof=1, dtype=np.float64).mean(axis=0)
    total = betas.reshape(-1, betas.shape[-1]).var(axis=0, ddof=1, dtype=np.float64)
    signal = np.clip(total - noise, 0, None)
    return np.sqrt(signal / np.where(noise > 0, noise, np.inf)).astype(np.float32)


def make_brain(
    name: str, number: int, seed: int, reference: np.ndarray, scale: float = 1.0
) -> Brain:
    """Return a subject.

    Parameters
    ----------
    name, number
        The subject's name, which decides whether it is harder (`cortex.NCSNR_FACTOR`), and the
        0-based number that decides its median ncsnr.
    seed
        The study's; subjects of one seed share part of their tuning.
    reference
        float16 (scenes, N_FEATURES) of scenes used for nothing else: they define what a signal SD
        of 1 is, so the truth does not depend on how many scenes a study has.
    scale
        Factor on the number of vertices, for quick tests.
    """
    surface = _surface()
    vertices, parcels = _sample(surface, (seed, number), scale)
    areas = np.array([p.rpartition(" ")[0] for p in parcels])
    where = _Where(surface.sphere[vertices], vertices >= HEMISPHERE_VERTICES, (seed, number))
    roles = np.array([cortex.AREAS[a].role for a in areas])
    informative = roles == "informative"

    shares = _shares(areas, where)
    weights, fields = _tuning(surface, vertices, areas, where, shares)
    smoothing, loadings, white = _noise_structure(areas, roles, where)
    relative = np.array([cortex.AREAS[a].snr for a in areas])
    rng = where.generator("strength")
    spread = cortex.SPREAD_SMOOTH * where.maps(1, "ncsnr")[0]
    spread += cortex.SPREAD_VERTEX * rng.standard_normal(len(vertices))
    ncsnr = relative * np.exp(spread)
    ncsnr *= cortex.MEDIAN_NCSNR[number % len(cortex.MEDIAN_NCSNR)] / np.median(ncsnr[informative])
    ncsnr = np.where(informative, ncsnr.clip(cortex.LOWEST_NCSNR, cortex.HIGHEST_NCSNR), 0.0)
    ncsnr *= cortex.NCSNR_FACTOR.get(name, 1.0)
    strength = np.array([cortex.STRENGTH[r] for r in roles]) * cortex.NOISE_SD
    noise_sd = strength * np.exp(0.25 * where.maps(1, "noise")[0])
    baseline = np.where(informative, 1.2, 0.2) + 0.4 * where.maps(1, "baseline")[0]

    def build(scaling: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Brain:
        return Brain(
            name, (seed, number), vertices, parcels, ncsnr.astype(np.float32),
            noise_sd.astype(np.float32), baseline.astype(np.float32), weights, fields, shares,
            scaling, smoothing, loadings, white,
        )  # fmt: skip

    scaling: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for group in (*weights, "sum"):  # each is measured with those before it already in place
        raw = _drive(build(scaling), reference, group)
        sd = raw.std(axis=0)
        scaling[group] = (raw.mean(axis=0), np.where(sd > 1e-6, sd, 1.0).astype(np.float32))
    return build(scaling)


def noiseless(brain: Brain, features: np.ndarray) -> np.ndarray:
    """Return the betas without noise.

    Parameters
    ----------
    brain
        A subject.
    features
        float16 (n, N_FEATURES) as ``features.features`` gives them.

    Returns
    -------
    numpy.ndarray
        float32 (n, V), percent signal change; constant over scenes at control vertices.
    """
    betas = np.empty((len(features), len(brain.vertices)), np.float32)
    amplitude = brain.ncsnr * brain.noise_sd
    mean, sd = brain.scaling["sum"]
    for i in range(0, len(features), ROWS_AT_ONCE):
        block = slice(i, i + ROWS_AT_ONCE)
        signal = (_drive(brain, features[block], "sum") - mean) / sd
        betas[block] = brain.baseline + amplitude * signal
    return betas


def trial_noise(brain: Brain, keys: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Return the noise of trials, each from a seed of its own.

    Parameters
    ----------
    brain
        A subject.
    keys
        n tuples of non-negative integers that name a trial: (split, stimulus, repeat).

    Returns
    -------
    numpy.ndarray
        float32 (n, V), percent signal change, SD ``brain.noise_sd``; partly smooth and low-rank
        over cortex, independent between trials.
    """
    v, latents = len(brain.vertices), len(brain.loadings)
    noise = np.empty((len(keys), v), np.float32)
    for i in range(0, len(keys), ROWS_AT_ONCE):
        block = keys[i : i + ROWS_AT_ONCE]
        draws = np.empty((len(block), 2 * v + latents), np.float32)
        for row, key in zip(draws, block, strict=True):
            rng = np.random.default_rng((*brain.entropy, *key))
            rng.standard_normal(dtype=np.float32, out=row)
        unit = brain.white * draws[:, :v]
        unit += (brain.smoothing @ draws[:, v : 2 * v].T).T
        unit += draws[:, 2 * v :] @ brain.loadings
        noise[i : i + len(block)] = unit * brain.noise_sd
    return noise


# ------------------------------------------------------------------------------------------ pieces


@dataclass(frozen=True, eq=False)
class _Surface:
    """fsaverage5: ``sphere`` and ``white`` (20,484, 3) in mm, and ``parcels``, names."""

    sphere: np.ndarray
    white: np.ndarray
    parcels: np.ndarray


@dataclass(frozen=True, eq=False)
class _Where:
    """Vertices on the sphere, and the random maps that a study and a subject draw over them."""

    sphere: np.ndarray  # (V, 3)
    right: np.ndarray  # (V,)
    entropy: tuple[int, int]

    def generator(self, tag: str) -> np.random.Generator:
        """Return the subject's random generator for one purpose."""
        return np.random.default_rng((*self.entropy, 1, zlib.crc32(tag.encode())))

    def maps(self, n: int, tag: str, length: float = cortex.TUNING_LENGTH) -> np.ndarray:
        """Return n smooth maps float32 (n, V), mean 0 and SD about 1 over draws.

        Gaussian processes with a Gaussian kernel of ``length`` mm on the sphere, by random Fourier
        features (Rahimi & Recht 2007); homologous places of the hemispheres share a part, subjects
        of one study another.
        """
        study, number, code = *self.entropy, zlib.crc32(tag.encode())
        mirrored = self.sphere * np.where(self.right, -1, 1)[:, None] ** np.array([1, 0, 0])
        total = np.zeros((n, len(mirrored)))
        for share, entropy, sides in (
            (cortex.COMMON_TUNING, (study, 0, 2, code), 1),
            (cortex.HEMISPHERE_TUNING, (study, 0, 3, code), 2),
            (cortex.OWN_TUNING, (study, number, 4, code), 2),
        ):
            rng = np.random.default_rng(entropy)
            waves = rng.standard_normal((3, FOURIER)) / length
            basis = np.cos(mirrored @ waves + rng.uniform(0, 2 * np.pi, FOURIER))  # (V, FOURIER)
            for side in range(sides):
                amplitudes = rng.standard_normal((n, FOURIER)) * np.sqrt(2 * share / FOURIER)
                here = (self.right == bool(side)) | (sides == 1)
                total[:, here] += amplitudes @ basis[here].T
        return total.astype(np.float32)


def _surface() -> _Surface:
    """Read fsaverage5 and its Desikan-Killiany parcels; both come with installed packages."""
    import nilearn
    from nilearn.surface import load_surf_mesh

    from explorer.brain.atlases import desikan_killiany

    folder = Path(nilearn.__file__).parent / "datasets" / "data" / "fsaverage5"

    def points(kind: str) -> np.ndarray:
        sides = (load_surf_mesh(folder / f"{kind}_{s}.gii.gz") for s in ("left", "right"))
        return np.concatenate([mesh.coordinates for mesh in sides]).astype(np.float64)

    atlas = desikan_killiany()
    keys = np.array([label.key for label in atlas.labels] + [""])
    return _Surface(points("sphere"), points("white"), keys[atlas.vertices])


def _sample(
    surface: _Surface, entropy: tuple[int, int], scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Choose a subject's vertices: int64 (V,) in ascending order, and their parcels (V,)."""
    rng = np.random.default_rng((*entropy, 5))
    chosen = []
    for side in "LR":
        for name, area in cortex.AREAS.items():
            there = np.flatnonzero(surface.parcels == f"{name} {side}")
            n = round(area.vertices * scale * rng.uniform(0.9, 1.1))
            chosen.append(rng.choice(there, min(max(n, 2), len(there)), replace=False))
    vertices = np.sort(np.concatenate(chosen))
    return vertices, surface.parcels[vertices]


def _shares(areas: np.ndarray, where: _Where) -> dict[str, np.ndarray]:
    """Return group -> share of the signal variance float32 (V,), smooth inside parcels."""
    groups = [g for g in GROUPS if any(g in a.shares for a in cortex.AREAS.values())]
    raw = np.array([[cortex.AREAS[a].shares.get(g, 0.0) for a in areas] for g in groups])
    raw *= np.exp(cortex.SHARE_SPREAD * where.maps(len(groups), "shares"))
    total = raw.sum(axis=0)
    raw /= np.where(total > 0, total, 1.0)
    return {g: row.astype(np.float32) for g, row in zip(groups, raw, strict=True)}


def _tuning(
    surface: _Surface,
    vertices: np.ndarray,
    areas: np.ndarray,
    where: _Where,
    shares: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return group -> weights (features, V) and the receptive fields (GRID * GRID, V)."""
    eccentricity, polar = _retinotopy(surface, vertices, areas, where)
    side = np.where(where.right, -1.0, 1.0)  # the right hemisphere sees the left half
    x = 0.5 + side * eccentricity * np.cos(polar) / cortex.DEGREES
    y = 0.5 - eccentricity * np.sin(polar) / cortex.DEGREES
    factor = np.array([cortex.FIELD_SIZE.get(a, 1.0) for a in areas])
    size = factor * (0.3 + 0.16 * eccentricity) / cortex.DEGREES
    centres = (np.arange(GRID) + 0.5) / GRID
    across = np.exp(-((centres[:, None] - x) ** 2) / (2 * size**2))  # (GRID, V)
    down = np.exp(-((centres[:, None] - y) ** 2) / (2 * size**2))
    fields = (down[:, None] * across[None]).reshape(GRID * GRID, -1)
    fields /= fields.sum(axis=0)

    weights = {}
    for group, share in shares.items():
        if group == "energy":
            # Preferred frequency falls with eccentricity (Henriksson et al. 2008).
            preferred = np.log(14.0) - 0.22 * eccentricity + 0.25 * where.maps(1, "frequency")[0]
            frequency = np.exp(-((np.log(FREQUENCIES)[:, None] - preferred) ** 2) / (2 * 0.6**2))
            angle = np.arctan2(*where.maps(2, "orientation"))  # twice the preferred orientation
            angles = 2 * np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS
            orientation = 1 + 0.8 * np.cos(angles[:, None] - angle)
            maps = (frequency[:, None] * orientation[None]).reshape(CHANNELS, -1)
        elif group == "opponent":
            maps = where.maps(OPPONENCIES, group)
        else:
            width = GROUPS[group]
            maps = where.maps(width.stop - width.start, group)
            kinds = {"category": CATEGORIES.values(), "supercategory": SUPERCATEGORIES}
            for row, kind in zip(maps, kinds.get(group, ()), strict=False):
                row *= [cortex.AREAS[a].focus.get(kind, 1.0) for a in areas]
        weights[group] = np.where(share > 0, maps, 0.0).astype(np.float32)
    return weights, fields.astype(np.float32)


def _retinotopy(
    surface: _Surface, vertices: np.ndarray, areas: np.ndarray, where: _Where
) -> tuple[np.ndarray, np.ndarray]:
    """Return eccentricity (V,) in degrees and polar angle (V,) in radians above the horizontal.

    The fovea lies at the occipital pole and eccentricity grows forwards with the cortical
    magnification of Horton & Hoyt (1991); the polar angle follows height (``cortex.POLAR``).
    """
    forward, height = np.zeros(len(vertices)), np.zeros(len(vertices))
    for parcel in set(zip(areas, where.right, strict=True)):
        here = (areas == parcel[0]) & (where.right == parcel[1])
        there = surface.white[surface.parcels == f"{parcel[0]} {'LR'[int(parcel[1])]}"]
        for rank, axis in ((forward, 1), (height, 2)):
            order = np.sort(there[:, axis])
            rank[here] = np.searchsorted(order, surface.white[vertices[here], axis]) / len(order)
    own = where.maps(2, "retinotopy")
    along = (forward + 0.08 * own[0]).clip(0, 1)
    magnification = np.log1p(cortex.FARTHEST / 0.75)
    eccentricity = 0.75 * np.expm1(along * magnification)
    start, end = np.array([cortex.POLAR.get(a, (60.0, -60.0)) for a in areas]).T
    polar = np.radians(start + (end - start) * height + 12 * own[1])
    return eccentricity, polar.clip(-np.pi / 2, np.pi / 2)


def _noise_structure(
    areas: np.ndarray, roles: np.ndarray, where: _Where
) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Return smoothing (V, V), loadings (latents, V) and SD of the white part (V,), for SD 1."""
    import scipy.sparse as sp
    from scipy.spatial import cKDTree

    pools = np.array([cortex.AREAS[a].pool for a in areas])
    part = {
        kind: np.array([cortex.NOISE[r].get(kind, 0.0) for r in roles])
        for kind in ("white", "smooth", "common", "pool")
    }
    part["white"] += np.where(pools == "", part["pool"], 0.0)
    part["pool"] = np.where(pools == "", 0.0, part["pool"])

    # Hemispheres are put far apart, and only informative vertices are smoothed into each other:
    # a control that shares no noise must share none across its border either.
    apart = where.sphere + 1000.0 * where.right[:, None]
    smooth = np.flatnonzero(part["smooth"] > 0)
    tree = cKDTree(apart[smooth])
    near = tree.sparse_distance_matrix(tree, 3 * cortex.NOISE_LENGTH, output_type="coo_matrix")
    kernel = np.exp(-(near.data**2) / (2 * cortex.NOISE_LENGTH**2))
    shape = (len(areas), len(areas))
    matrix = sp.csr_matrix((kernel, (smooth[near.row], smooth[near.col])), shape=shape)
    norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scale = np.sqrt(part["smooth"]) / np.where(norm > 0, norm, 1.0)
    matrix = (sp.diags(scale) @ matrix).astype(np.float32).tocsr()

    rng = where.generator("loadings")
    rows = []
    for name in ("common", *sorted({a.pool for a in cortex.AREAS.values()} - {""})):
        rank = cortex.COMMON_RANK if name == "common" else cortex.POOL_RANK
        share = part["common"] if name == "common" else np.where(pools == name, part["pool"], 0.0)
        drawn = rng.standard_normal((rank, len(areas)))
        rows.append(drawn / np.linalg.norm(drawn, axis=0) * np.sqrt(share))
    loadings = np.concatenate(rows).astype(np.float32)
    return matrix, loadings, np.sqrt(part["white"]).astype(np.float32)


def _drive(brain: Brain, features: np.ndarray, group: str) -> np.ndarray:
    """Return the response (n, V) to one group before scaling, or to their "sum", compressed.

    Pooled contrast energy is raised to the power 0.5 (Kay et al. 2013); the sum of all groups
    goes through a soft rectification, since responses fall less far below rest than above it.
    """
    if group == "sum":
        total = np.zeros((len(features), len(brain.vertices)), np.float32)
        for name, share in brain.shares.items():
            on = np.flatnonzero(share > 0)
            mean, sd = brain.scaling[name]
            response = _response(brain, features, name, on)
            total[:, on] += np.sqrt(share[on]) * (response - mean[on]) / sd[on]
        return np.logaddexp(0, total + 0.5, dtype=np.float32) ** np.float32(0.8)
    response = np.zeros((len(features), len(brain.vertices)), np.float32)
    on = np.flatnonzero(brain.shares[group] > 0)
    response[:, on] = _response(brain, features, group, on)
    return response


def _response(brain: Brain, features: np.ndarray, group: str, on: np.ndarray) -> np.ndarray:
    rows = features[:, GROUPS[group]].astype(np.float32)
    weights = brain.weights[group][:, on]
    if group not in ("energy", "opponent"):
        return rows @ weights
    maps = rows.reshape(len(rows), -1, GRID * GRID)
    fields = brain.fields[:, on]
    total = np.zeros((len(rows), len(on)), np.float32)
    for channel, tuning in enumerate(weights):
        total += (maps[:, channel] @ fields) * tuning
    return np.sqrt(total) if group == "energy" else total
