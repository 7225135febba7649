"""The embeddings that LAION-fMRI publishes beside its betas, in spaces of their own.

``task-images_desc-{CLIP,DINOv2,PEcore,SigLIP2}_embeddings.h5``: ``embedding`` (n, d) float16,
``image_ids`` and ``valid`` (n,). Rows are found by id, never by their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from backends.datasets.reading import hdf5_array, hdf5_values, open_hdf5
from explorer.metrics import unit
from explorer.types import EmbeddingSpace, UserError

SIDECAR = "published"  # the fingerprint of what has no weights here
SPACES = {
    desc: EmbeddingSpace(f"laion-{desc.lower()}", "image", (size,), unit_norm=True)
    for desc, size in (("CLIP", 1024), ("DINOv2", 1024), ("PEcore", 1024), ("SigLIP2", 1152))
}


def find_sidecars(folder: Path) -> dict[EmbeddingSpace, Path]:
    """Return the spaces whose embeddings lie in a folder of stimuli."""
    files = {SPACES[d]: folder / f"task-images_desc-{d}_embeddings.h5" for d in SPACES}
    return {space: file for space, file in files.items() if file.is_file()}


@lru_cache(maxsize=8)
def rows_of(file: Path) -> tuple[dict[str, int], frozenset[str]]:
    """Return id -> row of the valid embeddings in a file, and the ids without one."""
    with open_hdf5(file) as opened:
        stored = hdf5_array(opened, "embedding", 2, "f")
        ids = hdf5_values(hdf5_array(opened, "image_ids", 1, "SO"))
        valid = np.ones(len(ids), bool)
        if "valid" in opened:
            valid = np.asarray(hdf5_values(hdf5_array(opened, "valid", 1, "biu"))).astype(bool)
        if not len(ids) == len(valid) == len(stored):
            raise UserError(
                f"{file} has {len(stored)} embeddings, {len(ids)} image_ids and {len(valid)} "
                "valid; they must be equal, copy it again."
            )
    names = [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in ids]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise UserError(f"{file} names the picture {twice} twice; copy it again.")
    found = {name: i for i, name in enumerate(names) if valid[i]}
    return found, frozenset(name for i, name in enumerate(names) if not valid[i])


def embeddings(file: Path, space: EmbeddingSpace, stimuli: Sequence[str]) -> np.ndarray:
    """Return float32 (n, d) of unit norm for pictures by their labels.

    Raises
    ------
    UserError
        For a picture without a valid embedding, or an array of another width than the space.
    """
    rows, _ = rows_of(file)
    lost = [s for s in stimuli if s not in rows]
    if lost:
        raise UserError(
            f"{file} has no valid embedding of {len(lost)} of {len(stimuli)} pictures (first "
            f"{lost[0]}); choose another space."
        )
    at = np.array([rows[s] for s in stimuli], dtype=int)
    with open_hdf5(file) as opened:
        stored = hdf5_array(opened, "embedding", 2, "f")
        if stored.shape[1:] != space.shape:
            raise UserError(
                f"{file} has embeddings of {stored.shape[1]} numbers, expected {space.shape[0]} "
                f"of {space.name}; it is another model's."
            )
        order, back = np.unique(at, return_inverse=True)
        found = np.asarray(hdf5_values(stored, order), dtype=np.float32)[back]
    if not np.isfinite(found).all():
        bad = stimuli[int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])]
        raise UserError(f"{file}: the embedding of {bad} is not finite though it counts as valid.")
    return unit(found)
