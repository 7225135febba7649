"""What both forms of Generic Object Decoding share: its people, stimulus ids, lists and regions.

A stimulus is called ``n01443537_22563``: WordNet synset, then the number of the picture in it. In
the bdpy files it is the float 1443537.022563, of which a text may have lost the last zeros. So ids
are compared as whole millionths, and lists are joined by id, never by row: the training list is
sorted as text, other lists of the same pictures as numbers.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from explorer.files import read_text, reason, short
from explorer.types import Label, Parcellation, UserError

TITLE = "Generic Object Decoding (Horikawa and Kamitani 2017)"
CITATION = (
    "Horikawa & Kamitani (2017). Generic decoding of seen and imagined objects using hierarchical "
    "visual features. Nature Communications 8:15037."
)
ASK_FOR_PICTURES = (
    "the pictures are not public, the Kamitani lab shares them on request "
    "(https://forms.gle/ujvA34948Xg49jdn9)"
)
# Voxels in ROI_VC of each subject; GenericObjectDecoding's files and MinD-Vis's agree on them.
VC_VOXELS = {1: 4466, 2: 4404, 3: 4643, 4: 4133, 5: 4370}
LOOKED_AT = 64  # rows by which a constant voxel is known
SEEN_BY_IMAGENET = (
    "20 of the 50 test pictures belong to the ILSVRC 2012 training set, so features of networks "
    "trained on ImageNet have seen them"
)


def image_name(number: float) -> str:
    """Return the name behind a GOD id: 1443537.022563 is n01443537_22563.

    An imagery id has no picture, only a category: 1443537 is n01443537. Raises `UserError` for a
    number that is no id.
    """
    millionths = round(number * 1e6) if np.isfinite(number) else 0
    synset, picture = divmod(millionths, 10**6)
    if not 0 < synset < 10**8:
        raise UserError(
            f"A GOD stimulus id is a WordNet number and six decimals, as in 1443537.022563; found "
            f"{number}."
        )
    return f"n{synset:08d}_{picture}" if picture else f"n{synset:08d}"


def read_id_list(path: Path) -> dict[str, str]:
    """Return picture file by stimulus, in the order of a list of ``id,"nXXXXXXXX_YYYY.JPEG"``.

    The list has no header. An id that is not its file's name raises `UserError`.
    """
    found: dict[str, str] = {}
    lines = read_text(path).splitlines()
    try:
        rows = [[cell.strip(" '\"") for cell in row] for row in csv.reader(lines) if row]
        for line, row in enumerate(rows, 1):
            stimulus = image_name(float(row[0]))
            if Path(row[1]).stem != stimulus:
                raise UserError(
                    f"{path}, line {line}: the id {row[0]} is {stimulus}, not {short(row[1])}; "
                    "the list is mixed up."
                )
            found[stimulus] = row[1]
    except (ValueError, IndexError, csv.Error) as error:
        raise UserError(
            f'{path} needs rows of id,"file" as in 1443537.022563,"n01443537_22563.JPEG" '
            f"({reason(error)})."
        ) from error
    return found


def as_mask(values: np.ndarray, n_voxels: int, what: str) -> np.ndarray:
    """Return an ROI as bool (V,), given as a bool mask, as zeros and ones, or as columns.

    As an index, the integers 0 and 1 of a mask would silently pick the first two voxels again and
    again, so an array of V zeros and ones is a mask.
    """
    if values.dtype.kind not in "biuf":
        raise UserError(f"{what} needs numbers, found {values.dtype} {values.shape}.")
    if values.shape == (n_voxels,) and np.isin(values, (0, 1)).all():
        return np.asarray(values).astype(bool)
    whole = values.dtype.kind in "iu" and values.ndim == 1
    if whole and len(np.unique(values)) == len(values) and np.isin(values, range(n_voxels)).all():
        mask = np.zeros(n_voxels, bool)
        mask[values] = True
        return mask
    raise UserError(
        f"{what} needs a mask over {n_voxels} voxels or a list of their columns, found "
        f"{values.dtype} {values.shape}."
    )


def spread(n: int) -> np.ndarray:
    """Return rows, spread over a file of n, by which a constant voxel is known."""
    return np.unique(np.linspace(0, n - 1, min(LOOKED_AT, n)).astype(int))


def varying(values: np.ndarray) -> np.ndarray:
    """Return which columns are finite and vary, bool (V,)."""
    return np.isfinite(values).all(axis=0) & (values != values[:1]).any(axis=0)


def roi_masks(masks: dict[str, np.ndarray], digest: str) -> Parcellation:
    """Return ROIs as an atlas of overlapping masks, without those that have no voxel here."""
    kept = {name: mask for name, mask in masks.items() if mask.any()}
    n = len(next(iter(masks.values()), ()))
    membership = np.stack(list(kept.values())) if kept else np.zeros((0, n), bool)
    return Parcellation("ROIs", "masks", tuple(map(Label, kept)), membership, digest)


def one_of(name: str, option: str, value: str, allowed: Iterable[str]) -> None:
    """Raise `UserError` for an option's value that is not allowed."""
    if value not in allowed:
        raise UserError(f"{name}: {option} is one of {', '.join(allowed)}, not {value!r}.")


def person_number(subject: str) -> int:
    """Return which of the five a file's name says, 0 when it says none."""
    return {f"{word}{k}": k for word in ("Subject", "sbj_") for k in VC_VOXELS}.get(subject, 0)
