"""Lesions: what is decoded and drawn when the betas of some parcels are replaced.

The occlusion that gradients are held against: a parcel's lesion effect is how far the retrieval
margin of the shown image falls when the parcel's betas are replaced. It is about this decoder,
not about the brain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from explorer import metrics
from explorer.brain import importance
from explorer.brain.importance import SMALL
from explorer.brain.maps import parcellation_of
from explorer.brain.parcels import UNASSIGNED
from explorer.choosing import check_request
from explorer.decoding import (
    deciding,
    decode_betas,
    decoded_space,
    request_betas,
    similarities,
    uncomputed,
    undecoded,
)
from explorer.drawing import condition_of, draw_condition
from explorer.evidence.controls import at_scale, donor, own_picture, statistics
from explorer.evidence.standing import Place, places
from explorer.finished import Frame
from explorer.request import MOST_GAIN, Request
from explorer.types import Parcellation, UserError
from explorer.workbench import Workbench

if TYPE_CHECKING:
    import pandas as pd

TRAINING_MEAN, ZERO = "training mean", "zero"
ANOTHER, NOISE = "another trial", "matched noise"
FILLS = {
    TRAINING_MEAN: "The parcel says what it says on average over training: for z-scored betas "
    "that is 0, the average response, and not the absence of a brain.",
    ZERO: "The betas are set to 0 in the data's own unit ({unit}): for z-scored betas that is the "
    "average response, nearly the same as the training mean; for percent signal change it is no "
    "response, which the mapper may never have met.",
    ANOTHER: "The parcel says what it said when {donor} was shown: it is not silent, it speaks "
    "for another image.",
    NOISE: "Every voxel gets noise with its own training mean and standard deviation (for "
    "z-scored betas 0 and 1): as loud as before, about nothing.",
}


@dataclass(frozen=True)
class Lesion:
    """Which parcels speak louder, softer, or are replaced.

    ``parcels``: `Label.key`s or ``(unassigned)``. Their betas become ``fill + gain * (betas -
    fill)``: 0 replaces them, 1 changes nothing, 2 doubles what sets them apart from ``fill``, one
    of `FILLS`. ``donor``: the test stimulus of "another trial", "" for one that the seed chooses.
    """

    parcels: tuple[str, ...]
    gain: float = 0.0
    fill: str = TRAINING_MEAN
    donor: str = ""

    def __post_init__(self) -> None:
        """Refuse what no trial could be changed by."""
        object.__setattr__(self, "parcels", tuple(dict.fromkeys(map(str, self.parcels))))
        object.__setattr__(self, "gain", float(self.gain))
        if not self.parcels:
            raise UserError("A lesion needs at least one parcel; choose one on the map.")
        if not 0 <= self.gain <= MOST_GAIN:
            raise UserError(
                f"The gain of a parcel lies between 0 and {MOST_GAIN:g}, found {self.gain:g}."
            )
        if self.fill not in FILLS:
            raise UserError(
                f"Betas are replaced by {', '.join(FILLS)}, found {self.fill!r}; choose one."
            )
        if self.donor and self.fill != ANOTHER:
            raise UserError(
                f"The trial {self.donor} is given and betas are replaced by the {self.fill}; "
                f"choose {ANOTHER!r}, or leave the trial out."
            )


def swap(parcels: Sequence[str], stimulus: str = "") -> Lesion:
    """Return the lesion that gives parcels the pattern of another trial."""
    return Lesion(tuple(parcels), 0.0, ANOTHER, stimulus)


@dataclass(frozen=True, eq=False)
class Lesioned:
    """What is decoded with and without a lesion of ``voxels`` voxels.

    ``shift``: distance between the two embeddings, 1 - cosine (1 - correlation where the space
    has no unit norm), 0 to 2. ``sentence``: what the replacement means; ``donor``: whose betas
    were put in, "" for nobody's. ``warning``: what must be known of this choice of parcels, "".
    """

    lesion: Lesion
    voxels: int
    shift: float
    intact: Place
    lesioned: Place
    sentence: str
    donor: str
    warning: str


@dataclass(frozen=True, eq=False)
class LesionPictures:
    """Both pictures at the same scale and seed, and `difference` between them."""

    intact: Frame
    lesioned: Frame
    difference: np.ndarray


@dataclass(frozen=True, eq=False)
class LesionEffects:
    """What the lesion of each parcel alone does to one trial.

    ``table``: one row a parcel as `importance.per_parcel` has them, (unassigned) last: parcel,
    name, hemisphere, voxels, small; ``effect``: retrieval margin intact less lesioned, in nats
    (above 0 the parcel speaks for the shown image, below 0 against it); ``shift`` as in
    `Lesioned`; ``rank`` of the shown image after the lesion. NaN for parcels without voxels.
    """

    table: pd.DataFrame
    atlas: str
    fill: str
    intact: Place


# ------------------------------------------------------------------------------------- one lesion


def unlesioned(bench: Workbench, request: Request) -> str:
    """Return why a request's betas cannot be lesioned, in one sentence; "" where they can."""
    return uncomputed(bench, request) or undecoded(bench, request)


def lesioned_betas(
    bench: Workbench, request: Request, lesion: Lesion, atlas: str = ""
) -> np.ndarray:
    """Return the betas float32 (V,) of a request after a lesion."""
    mask = _mask(bench, request, lesion.parcels, atlas)
    betas = request_betas(bench, request).astype(np.float64)
    fill = _fill(bench, request, lesion)
    changed = fill + lesion.gain * (betas - fill)
    return np.where(mask, changed, betas).astype(np.float32)


def lesion(bench: Workbench, request: Request, how: Lesion, atlas: str = "") -> Lesioned:
    """Return what a lesion does to what is decoded; ``atlas`` "" is the first."""
    require_lesions(bench, request)
    plain = deciding(request)
    plain = replace(plain, seed=request.seed)  # it chooses the donor and the noise
    return bench.kept(("lesion", how, atlas), lambda: _lesion(bench, plain, how, atlas), plain)


def _lesion(bench: Workbench, request: Request, how: Lesion, atlas: str) -> Lesioned:
    space = decoded_space(bench, request)
    mask = _mask(bench, request, how.parcels, atlas)
    rows = np.stack([request_betas(bench, request), lesioned_betas(bench, request, how, atlas)])
    decoded = decode_betas(bench, request, rows)[space]
    intact, lesioned = places(bench, request, decoded)
    other = _donor(bench, request, how) if how.fill == ANOTHER else ""
    return Lesioned(
        how,
        int(mask.sum()),
        float(1 - similarities(decoded[:1], decoded[1:], space)[0, 0]),
        intact,
        lesioned,
        fill_sentence(bench, request, how),
        other,
        _warning(bench, request, how, mask, atlas),
    )


def lesion_pictures(
    bench: Workbench,
    request: Request,
    how: Lesion,
    atlas: str = "",
    scale: float | None = None,
) -> LesionPictures:
    """Return the pictures with and without a lesion, at one scale (default `sampled_scale`)."""
    require_lesions(bench, request)
    one = at_scale(bench, request, scale)
    betas = lesioned_betas(bench, one, how, atlas)
    intact = own_picture(bench, one)
    lesioned = draw_condition(bench, one, condition_of(bench, one, betas))
    return LesionPictures(intact, lesioned, difference(intact.image, lesioned.image))


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return half of ``after - before`` around mid-grey, uint8 (H, W, 3): 128 is no change.

    Pictures of different sizes are compared at the first one's.
    """
    sized = metrics.match_size(after, *before.shape[:2])
    half = (sized.astype(np.int16) - before.astype(np.int16)) / 2
    return np.clip(np.rint(128 + half), 0, 255).astype(np.uint8)


def fill_sentence(bench: Workbench, request: Request, how: Lesion) -> str:
    """Return what a replacement means for these betas, in one sentence."""
    unit = bench.catalogue.trials(request.dataset, request.subject).beta_unit
    other = _donor(bench, request, how) if how.fill == ANOTHER else ""
    return FILLS[how.fill].format(unit=unit, donor=other)


def require_lesions(bench: Workbench, request: Request) -> None:
    """Raise `UserError` for a request whose betas cannot be lesioned."""
    check_request(bench.catalogue, request, pictures=False)
    if reason := unlesioned(bench, request):
        raise UserError(reason)


def _donor(bench: Workbench, request: Request, how: Lesion) -> str:
    if how.donor == request.stimulus:
        raise UserError(f"{how.donor} is the trial itself; choose another one to take betas from.")
    return how.donor or donor(bench, request)


def _fill(bench: Workbench, request: Request, how: Lesion) -> np.ndarray:
    """Return what replaces the betas of every voxel, float64 (V,)."""
    mean, sd = (part.astype(np.float64) for part in statistics(bench, request))
    if how.fill == TRAINING_MEAN:
        return mean
    if how.fill == ZERO:
        return np.zeros_like(mean)
    if how.fill == NOISE:
        return mean + sd * np.random.default_rng(request.seed).standard_normal(len(mean))
    other = replace(request, stimulus=_donor(bench, request, how))
    check_request(bench.catalogue, other, pictures=False)
    return request_betas(bench, other).astype(np.float64)


def _mask(bench: Workbench, request: Request, parcels: Sequence[str], atlas: str) -> np.ndarray:
    """Return bool (V,): the voxels of some parcels; a parcel without any raises `UserError`."""
    parcellation = parcellation_of(bench, request.dataset, request.subject, atlas)
    masks, keys = parcellation.masks(), _keys(parcellation)
    for parcel in parcels:
        if parcel not in keys:
            raise UserError(
                f"The atlas {parcellation.name} has no parcel {parcel!r}; choose one of its table."
            )
        if not masks[keys.index(parcel)].any():
            raise UserError(
                f"{parcel} has no voxels of {request.dataset}/{request.subject}, so its lesion "
                "would change nothing; choose another parcel."
            )
    return masks[[keys.index(parcel) for parcel in parcels]].any(axis=0)


def _keys(parcellation: Parcellation) -> list[str]:
    return [label.key for label in parcellation.labels] + [UNASSIGNED]


def _warning(bench: Workbench, request: Request, how: Lesion, mask: np.ndarray, atlas: str) -> str:
    n = int(mask.sum())
    if len(bench.catalogue.gallery(request.dataset, request.subject)) < 2:
        return (
            "There is one test image, so there is no rank and no margin that could fall: only the "
            "shift and the pictures tell what the lesion does."
        )
    if mask.all() and how.gain != 1:
        parcellation = parcellation_of(bench, request.dataset, request.subject, atlas)
        what = "all parcels" if parcellation.labels else "all voxels (no atlas divides them)"
        return (
            f"This changes {what}: at gain 0 nothing of the trial is left, and what is decoded is "
            f"the {how.fill} alone."
        )
    if n < SMALL:
        return f"These are {n} voxels, fewer than {SMALL}: what they do may be chance."
    return ""


# ----------------------------------------------------------------------------- all parcels at once


def lesion_effects(
    bench: Workbench, request: Request, atlas: str = "", fill: str = TRAINING_MEAN
) -> LesionEffects:
    """Return what the lesion of each parcel alone does to a trial, computed in one batch."""
    require_lesions(bench, request)
    how = Lesion((UNASSIGNED,), 0.0, fill)  # refuses an unknown fill
    plain = replace(deciding(request), seed=request.seed)
    return bench.kept(
        ("lesion effects", atlas, fill), lambda: _effects(bench, plain, how, atlas), plain
    )


def _effects(bench: Workbench, request: Request, how: Lesion, atlas: str) -> LesionEffects:
    parcellation = parcellation_of(bench, request.dataset, request.subject, atlas)
    masks = parcellation.masks()
    rows = lesioned_rows(request_betas(bench, request), _fill(bench, request, how), masks)
    space = decoded_space(bench, request)
    decoded = decode_betas(bench, request, rows)[space]
    found = places(bench, request, decoded)
    empty = ~masks.any(axis=1)
    columns = {
        "effect": np.array([found[0].margin - place.margin for place in found[1:]]),
        "shift": 1 - similarities(decoded[:1], decoded[1:], space)[0],
        "rank": np.array([place.rank for place in found[1:]]),
    }
    for values in columns.values():
        values[empty] = np.nan
    table = parcel_rows(parcellation).assign(**columns)
    return LesionEffects(table, parcellation.name, how.fill, found[0])


def lesioned_rows(betas: np.ndarray, fill: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return float32 (1 + L, V): the intact betas, then one row for each mask (L, V)."""
    rows = np.tile(np.asarray(betas, np.float32), (1 + len(masks), 1))
    np.copyto(rows[1:], fill.astype(np.float32), where=masks)
    return rows


def parcel_rows(parcellation: Parcellation) -> pd.DataFrame:
    """Return what a table of lesions says of parcels before any lesion, (unassigned) last."""
    nothing = np.zeros(parcellation.n_voxels)
    table = importance.per_parcel(nothing, parcellation)
    return table[["parcel", "name", "hemisphere", "voxels", "small"]]
