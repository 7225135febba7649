"""Counterfactual pairs: whether a parcel answers to a concept, or to what comes along with it.

An area that is more active for pictures with a concept than without may answer to anything that
the concept brings: contrast, shape, a thing in the middle. So the encoding model is asked about
pictures that differ in the concept alone: present, taken out, and replaced by a correlated
distractor. Only an effect against the distractor is one of the concept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import metrics, stopping
from explorer.brain.predicted import correlation
from explorer.evidence.critique import LEAST, SEED, Finding, Pair
from explorer.images import ENDINGS, read_picture
from explorer.protocols import Counterfactual
from explorer.types import EmbeddingSpace, Parcellation, UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

PAIRS = 30  # of each concept
ROLES = ("present", "removed", "replaced")  # of pictures, and their names in a folder
STRICT = 2.33  # SD of a chance correlation: one voxel in a hundred passes by chance
FEWEST, SHARE = 10, 0.1  # voxels that the model predicts, of a parcel that is told of: our choice
SLIGHT = 0.1  # SD of a voxel: what is surely more than that is an effect, our choice
AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Contrast:
    """One concept's effect in each of P parcels, per pair of pictures, see `effects`.

    ``replaced`` and ``removed`` (n, P): against the distractor, and against nothing; their mean
    over pairs is the squared effect. NaN where the model predicts too few voxels.
    """

    concept: str
    replaced: np.ndarray
    removed: np.ndarray


def effects(differences: np.ndarray, parcels: np.ndarray) -> np.ndarray:
    """Return per pair and parcel (n, P) the squared effect that all pairs have in common.

    Parameters
    ----------
    differences
        (n, V), n at least 2: predicted betas of the picture with the concept minus those of the
        other, in SD of a voxel.
    parcels
        (P, V) bool: which voxels count for a parcel.

    Returns
    -------
    numpy.ndarray
        The mean over voxels of a pair's difference times the mean of the other pairs' differences;
        its mean over pairs estimates the mean squared difference without bias, so that it is 0
        where pairs have nothing in common (as in Nili et al. 2014, PLoS Comput Biol 10:e1003553).
        NaN for a parcel without voxels.
    """
    n, counts = len(differences), parcels.sum(axis=1)
    others = (differences.sum(axis=0) - differences) / (n - 1)
    products = (differences * others) @ parcels.T.astype(np.float64)
    return np.divide(products, counts, out=np.full(products.shape, np.nan), where=counts > 0)


def interval(each: np.ndarray) -> tuple[float, float, float]:
    """Return mean, low and high of an effect over pairs (n,).

    Every pair is in two factors of the estimate, so it varies twice as much as the mean of n
    numbers would (Hoeffding 1948): deviations are doubled before they are resampled.
    """
    mean = float(each.mean())
    return mean, *metrics.bootstrap_interval(mean + 2 * (each - mean), seed=SEED)


def counterfactual(
    contrasts: Sequence[Contrast], parcels: Sequence[str], unknown: Sequence[str]
) -> Finding:
    """Return the effect of concepts in each parcel, and how many concept areas survive.

    ``parcels``: the names of the P parcels; ``unknown``: of which the model predicts too little.
    """
    import pandas as pd

    lines, plain, kept = [], 0, 0
    for p, name in enumerate(parcels):
        if name in unknown:
            continue
        against = {c.concept: interval(c.replaced[:, p]) for c in contrasts}
        nothing = {c.concept: interval(c.removed[:, p]) for c in contrasts}
        areas = [c for c, (_, low, _) in nothing.items() if _root(low) > SLIGHT]
        survive = [c for c in areas if _root(against[c][1]) > SLIGHT]
        plain, kept = plain + len(areas), kept + len(survive)
        every = np.mean([c.replaced[:, p].mean() for c in contrasts])
        low, high = _pooled([c.replaced[:, p] for c in contrasts])
        lines.append(
            {
                "of": name,
                "value": _root(float(every)),
                "low": _root(low),
                "high": _root(high),
                "chance": 0.0,
                "N": sum(len(c.replaced) for c in contrasts),
                "object removed": _root(float(np.mean([m for m, _, _ in nothing.values()]))),
                "concepts": ", ".join(survive) or "none",
            }
        )
    lines.sort(key=lambda line: -line["value"])
    columns = ["of", "value", "low", "high", "chance", "N", "object removed", "concepts"]
    return Finding(
        "counterfactual pairs",
        "By the encoding model: predicted betas of a picture with a concept minus those of the "
        "same picture with a correlated distractor in its place. The effect is what all pairs "
        "have in common (root of the squared effect, in SD of a voxel; 0 for none), over voxels "
        f"that the model predicts on test images, with intervals over pairs. A concept area is a "
        f"parcel with an effect surely above {SLIGHT:g} SD against the picture without the "
        "concept; it survives if it has one against the distractor.",
        pd.DataFrame(lines, columns=columns),
        _sentence(plain, kept, len(lines), unknown, contrasts),
        unit="SD",
    )


def _sentence(
    plain: int, kept: int, told: int, unknown: Sequence[str], contrasts: Sequence[Contrast]
) -> str:
    if not told:
        return "The encoding model predicts too little of every parcel: nothing can be said."
    least = min(len(c.replaced) for c in contrasts)
    said = (
        f"Of {plain} concept areas in the plain contrast (with the concept against without it; "
        f"{len(contrasts)} concepts, {told} parcels), {kept} survive against a distractor"
    )
    if unknown:
        said += (
            f"; of {len(unknown)} further parcels the encoding model predicts too little to say "
            "anything"
        )
    few = "" if least >= LEAST else f" With {least} pairs of a concept that is no evidence yet."
    return f"{said}.{few}"


def _pooled(several: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the interval of the mean over concepts, each with its pairs (n,): normal, 95 %."""
    spread = [4 * each.var(ddof=1) / len(each) for each in several]
    mean = float(np.mean([each.mean() for each in several]))
    half = 1.96 * float(np.sqrt(np.sum(spread))) / len(several)
    return mean - half, mean + half


def _root(value: float) -> float:
    return float(np.sign(value) * np.sqrt(abs(value)))


# ---------------------------------------------------------------------------------- asking a model


def contrasts_of(
    bench: Workbench,
    dataset: str,
    subject: str,
    pairs: Sequence[Counterfactual],
    parcellation: Parcellation,
    tested: Pair,
) -> tuple[list[Contrast], np.ndarray]:
    """Return the effects of every concept with two pairs or more, and what says too little.

    In each of a parcellation's P parcels, over voxels that the model predicts; bool (P,) are
    those with too few.

    Parameters
    ----------
    tested
        Betas (n, V) that were measured of images that the model was not trained on, and those it
        predicts.
    """
    masks = parcellation.masks()[: len(parcellation.labels)]
    parcels, few = counted(masks, reliable(*tested))
    encoder = bench.models.encoder(dataset, subject)
    sd = encoder.statistics()[1]
    predicted = []
    for role in ROLES:
        images = [getattr(pair, role) for pair in pairs]
        predicted.append(predicted_betas(bench, encoder.spaces, encoder, images) / sd)
    names = np.array([pair.concept for pair in pairs])
    found = []
    for concept in dict.fromkeys(names):
        present, removed, replaced = (betas[names == concept] for betas in predicted)
        if len(present) > 1:
            found.append(
                Contrast(
                    str(concept),
                    effects(present - replaced, parcels),
                    effects(present - removed, parcels),
                )
            )
    if not found:
        raise UserError("A concept needs two pairs or more, and none has them.")
    return found, few


def predicted_betas(
    bench: Workbench,
    spaces: Sequence[EmbeddingSpace],
    encoder: Any,
    images: Sequence[np.ndarray],
) -> np.ndarray:
    """Return what an encoding model predicts (n, V) of images uint8 (H, W, 3)."""
    embed = bench.models.embed_images
    blocks = stopping.steps(range(0, len(images), AT_ONCE))
    return np.concatenate(
        [encoder.predict({s: embed(images[i : i + AT_ONCE], s) for s in spaces}) for i in blocks]
    )


def reliable(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return which voxels bool (V,) are predicted better than one in a hundred by chance.

    ``measured`` and ``predicted`` betas (n, V) of images that the model was not trained on.
    """
    r = correlation(measured, predicted)
    return np.nan_to_num(r, nan=-1.0) > STRICT / np.sqrt(len(measured))


def counted(parcels: np.ndarray, voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return parcels bool (P, V) with those voxels (V,) alone, and which (P,) have too few."""
    some = parcels & voxels
    few = some.sum(axis=1) < np.maximum(FEWEST, SHARE * parcels.sum(axis=1))
    return some, few


# ------------------------------------------------------------------------------------- a folder


def read_pairs(folder: Path) -> list[Counterfactual]:
    """Return the pairs of a folder: CONCEPT/PAIR/ with pictures present, removed and replaced.

    Raises
    ------
    UserError
        Where there are none, or one lacks a picture.
    """
    folder = Path(folder)
    places = sorted(p for p in folder.glob("*/*") if p.is_dir()) if folder.is_dir() else []
    if not places:
        raise UserError(
            f"{folder} holds no pairs, expected CONCEPT/PAIR/ with the pictures "
            f"{', '.join(ROLES)} in each."
        )
    found = []
    for place in places:
        files: Mapping[str, Path] = {
            file.stem.lower(): file
            for file in sorted(place.iterdir())
            if file.suffix.lower() in ENDINGS
        }
        lacking = [role for role in ROLES if role not in files]
        if lacking:
            raise UserError(
                f"{place} has no picture called {lacking[0]}; each pair has {', '.join(ROLES)}."
            )
        found.append(
            Counterfactual(place.parent.name, *(read_picture(files[role]) for role in ROLES))
        )
    return found
