"""Which voxels of LAION-fMRI are read, and what is known of them: masks, regions, ceilings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backends.datasets.god_study import roi_masks
from backends.datasets.laion_files import CEILINGS, Person, read_map, read_mask
from backends.datasets.laion_sessions import covered
from backends.datasets.things_files import ncsnr_of_percent
from explorer.files import short
from explorer.types import Subject, UserError, VoxelSpace, voxel_hash

if TYPE_CHECKING:
    import pandas as pd

USUAL_ROI = "laion-general"
REPEATS = {"shared_12rep": 12, "shared_4rep": 4}  # others, each person's own, are shown 4 times
USUAL = 4


class Chosen(NamedTuple):
    """A subject's voxels, the kind of mask, and how many of it lack values in some session."""

    subject: Subject
    mask: str
    lost: int


def choose_voxels(dataset: str, person: Person, mask: str, roi: str) -> Chosen:
    """Return the voxels of a mask and region that have values in every session.

    ``mask`` and ``roi`` "" take the defaults, see `backends.datasets.laion_fmri.LaionFMRI`.
    """
    who, kinds = f"{dataset}/{person.name}", person.masks
    kind = mask or next(iter(kinds), "")
    if kind not in kinds:
        raise UserError(
            f"{who} has the masks {', '.join(kinds) or 'none'}, not {kind or 'any'!r}; get its "
            "brain mask (derivatives/anatomical) or choose ?mask=."
        )
    brain, affine = read_mask(kinds[kind], kind)
    rois = _regions(person, brain.shape)
    named = roi or (USUAL_ROI if USUAL_ROI in rois else "all")
    if named != "all" and named not in rois:
        raise UserError(
            f"{who} has no region {named!r} at the betas' resolution; it has "
            f"{short(', '.join(rois)) or 'none'}, or all."
        )
    inside = brain & rois[named] if named != "all" else brain
    finite = np.ones(brain.shape, bool)
    for session in person.sessions:
        finite &= covered(session, brain.shape)
    kept = inside & finite
    if not kept.any():
        raise UserError(f"{who}: no voxel of {named} has values in every session.")
    digest = voxel_hash("laion-fmri", person.name, kept, affine)
    atlas = roi_masks({name: values[kept] for name, values in rois.items()}, digest)
    parcels = {"ROIs": atlas} if len(atlas.labels) else {}
    space = VoxelSpace(int(kept.sum()), digest, mask=kept, affine=affine, parcellations=parcels)
    ceilings = _ceilings(person, kept)
    maps = {f"noise ceiling of {name}, percent": values for name, values in ceilings.items()}
    subject = Subject(dataset, person.name, space, _ncsnr(person, ceilings), maps=maps)
    return Chosen(subject, kind, int((inside & ~finite).sum()))


def _regions(person: Person, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return region -> bool (X, Y, Z), of those drawn at the betas' resolution."""
    found = {}
    for name, files in person.rois.items():
        values = next((m for f in files if (m := read_map(f, shape)) is not None), None)
        if values is not None:
            found[name] = values > 0
    return found


def _ceilings(person: Person, kept: np.ndarray) -> dict[str, np.ndarray]:
    found = {}
    for kind, file in person.ceilings.items():
        values = read_map(file, kept.shape)
        if values is not None:
            found[kind] = values[kept].astype(np.float32)
    return found


def _ncsnr(person: Person, ceilings: dict[str, np.ndarray]) -> np.ndarray | None:
    """Return ncsnr (V,) from a ceiling whose number of repeats is known, else None."""
    for kind, repeats in CEILINGS.items():
        if repeats and kind in ceilings:
            return ncsnr_of_percent(ceilings[kind], repeats, str(person.ceilings[kind]))
    return None


def odd_repeats(who: str, table: pd.DataFrame) -> list[str]:
    """Return what there is to say of pictures shown less or more often than planned."""
    said, counts = [], table["stimulus"].value_counts()
    due = {
        s: next((n for k, n in REPEATS.items() if s.startswith(k)), USUAL) for s in counts.index
    }
    missing = [s for s in counts.index if counts[s] < due[s]]
    if missing:
        said.append(
            f"{who}: {len(missing)} of {len(counts)} pictures have fewer repeats than planned in "
            f"the sessions that are here (first {missing[0]}, {counts[missing[0]]} of "
            f"{due[missing[0]]})."
        )
    more = [s for s in counts.index if counts[s] > due[s]]
    if more:
        said.append(
            f"{who}: {len(more)} pictures have more trials than planned (first {more[0]}, "
            f"{counts[more[0]]}, planned {due[more[0]]}); is a session here twice?"
        )
    return said
