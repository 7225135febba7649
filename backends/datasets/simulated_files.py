"""What lies beside the embedded study's trials: its truth, ready embeddings, rows made anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets import layout
from backends.datasets.layout_tables import read_table
from explorer.files import damaged, guard
from explorer.types import EmbeddingSpace, Origin, UserError

if TYPE_CHECKING:
    import pandas as pd

EMBEDDED = "embeddings.safetensors"
TRUTH, AGAIN = "the truth of a simulation", "make it again (python -m backends build-demo)"
VOXELS = ("vertex", "ncsnr", "information", "noise_sd", "baseline", "noiseless_scale")
PARCELS = {"vertices": int, "information_mean": float, "information_sum": float}
Numbers = Mapping[str, Mapping[str, int]]  # split -> stimulus -> its number, from 0


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known about one simulated subject.

    ``parcels`` has one row a parcel, indexed by key ("fusiform L"): role ("informative", "white
    noise", "structured noise" or "shared noise"), pool (of shared noise), vertices,
    information_mean, information_sum, groups (share of the signal per kind of feature), sentence
    and source. ``voxels`` has one row a voxel, in the order of the betas: vertex, parcel, ncsnr
    (the true one), information (share of one trial's variance that the picture explains, 0 to 1),
    noise_sd and baseline (percent signal change). ``noiseless`` float32 (test stimuli, V) are the
    betas without noise, ``stimuli`` their ids.
    """

    subject: str
    parcels: pd.DataFrame
    voxels: pd.DataFrame
    stimuli: tuple[str, ...]
    noiseless: np.ndarray

    @property
    def information(self) -> np.ndarray:
        """Information per voxel (V,), in [0, 1)."""
        return self.voxels["information"].to_numpy()

    @property
    def roles(self) -> dict[str, str]:
        """Parcel key -> role."""
        return self.parcels["role"].to_dict()


class MadeRows:
    """Test rows from disk, then training rows that are made when one is first read."""

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, shipped: Any, n_made: int, make: Callable[[], np.ndarray], v: int) -> None:
        self.shape: tuple[int, int] = (len(shipped) + n_made, v)
        self._shipped, self._make = shipped, make

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return float32 rows of any index of the first axis."""
        if isinstance(rows, tuple):
            return self[rows[0]][(..., *rows[1:])]
        numbers = np.arange(len(self))[rows]
        if numbers.ndim == 0:
            return self[[int(numbers)]][0]
        values = np.empty((len(numbers), self.shape[1]), np.float32)
        made = numbers >= len(self._shipped)
        values[~made] = self._shipped[numbers[~made]]
        if made.any():
            values[made] = self._make()[numbers[made] - len(self._shipped)]
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows."""
        return np.asarray(self[:], dtype=dtype)

    def lies(self, row: int) -> list[Origin]:
        """Return where a test row lies; training rows are made again, and lie nowhere."""
        return self._shipped.lies(row) if row < len(self._shipped) else []


def known_embeddings(
    path: Path,
    numbers: Numbers,
    stimuli: Sequence[str],
    space: EmbeddingSpace,
    fingerprint: str,
) -> np.ndarray | None:
    """Return stored embeddings float32 (n, *space.shape) of stimuli of one split, or None.

    They save loading the embedder before the first trial, and drawing thousands of training
    pictures before the nearest one can be named. They count only for the weights, by
    ``fingerprint``, that made them. ``path``: the study's folder.
    """
    from safetensors import SafetensorError, safe_open

    split = "test" if stimuli and stimuli[0] in numbers["test"] else "train"
    rows = [numbers.get(split, {}).get(stimulus) for stimulus in stimuli]
    try:
        with safe_open(path / EMBEDDED, "np") as opened:
            made_by = (opened.metadata() or {}).get(space.name)
            if made_by != fingerprint or None in rows:
                return None
            kept = opened.get_tensor(f"{space.name} {split}")
    except (OSError, SafetensorError):
        return None
    if kept.shape != (len(numbers[split]), *space.shape) or not np.isfinite(kept).all():
        return None  # damaged: the embedder gives them again
    return kept[rows].astype(np.float32)


def keep_embeddings(
    path: Path,
    numbers: Numbers,
    embeddings: Mapping[str, np.ndarray],
    space: EmbeddingSpace,
    fingerprint: str,
) -> None:
    """Store the embeddings (*space.shape) of all stimuli; training ones as float16."""
    from safetensors.numpy import save

    kinds = {"test": np.float32, "train": np.float16}
    stored = {
        f"{space.name} {split}": np.stack([embeddings[s] for s in ids]).astype(kinds[split])
        for split, ids in numbers.items()
    }
    part = path / f"{EMBEDDED}.part"
    part.write_bytes(save(stored, {space.name: fingerprint}))
    part.replace(path / EMBEDDED)


def read_truth(path: Path, name: str, subject: str, shown: tuple[str, ...]) -> Truth:
    """Return what is known about a participant of the study in ``path``.

    ``name``: the subject's folder. ``shown``: the test stimuli, in the order of the rows.
    """
    folder = path / "truth" / name
    file = folder / "voxels.tsv"
    voxels = read_table(file, ("parcel", *VOXELS))
    with guard(file, TRUTH, AGAIN):
        voxels = voxels.astype({c: float for c in voxels if c != "parcel"})
        voxels = voxels.astype({"vertex": int})
    file = path / "truth" / "parcels.tsv"
    parcels = read_table(file, ("subject", "parcel", "role", *PARCELS))
    with guard(file, TRUTH, AGAIN):
        parcels = parcels[parcels["subject"] == subject].set_index("parcel")
        parcels = parcels.drop(columns="subject").astype(PARCELS)
    stored = layout.read_array(folder / "noiseless.npy")
    scale = voxels.pop("noiseless_scale").to_numpy()
    on = scale > 0
    if stored.shape != (len(shown), on.sum()):
        raise UserError(
            f"{folder / 'noiseless.npy'} has shape {stored.shape}, expected "
            f"({len(shown)}, {on.sum()}); run: python -m backends build-demo"
        )
    if not np.isfinite(voxels.drop(columns="parcel").to_numpy(float)).all():
        raise damaged(folder / "voxels.tsv", "a value is not finite", TRUTH, AGAIN)
    noiseless = np.tile(voxels["baseline"].to_numpy(np.float32), (len(shown), 1))
    noiseless[:, on] += stored * scale[on]
    return Truth(subject, parcels, voxels, shown, noiseless)
