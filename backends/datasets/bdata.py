"""bdpy's container of fMRI data: a matrix in HDF5 and metadata that say what each column is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.reading import hdf5_array, hdf5_values, open_hdf5
from explorer.files import guard, short
from explorer.types import UserError

if TYPE_CHECKING:
    import h5py


class BData:
    """A bdpy file: a matrix (samples, columns) and metadata that say what each column is.

    Layout: bdpy's ``BData.save``. ``dataset`` (n, columns), ``metadata/key`` and
    ``metadata/value`` (keys, columns) with 1 at the columns of a key, NaN or 0 elsewhere; older
    files spell the groups ``dataSet`` and ``metaData``. ``vmap/KEY/NUMBER`` gives texts for
    numbers. ``needs`` ends the sentence when the file is missing.
    """

    def __init__(self, path: Path, needs: str = "") -> None:
        self.path = path
        self._file = open_hdf5(path, needs)
        self.matrix: h5py.Dataset = hdf5_array(
            self._file, self._spelling("dataset", "dataSet"), 2, "fiu"
        )
        about = self._spelling("metadata", "metaData")
        with guard(path, at=about):
            group = self._file[about]
            if "key" not in group or "value" not in group:
                raise UserError(f"{path}: /{about} lacks key or value; it is no bdpy file.")
        texts = hdf5_values(hdf5_array(group, "key", 1, "SO"))
        self.keys = {_text(key).strip(): row for row, key in enumerate(texts)}
        self._values = hdf5_values(hdf5_array(group, "value", 2, "fiu"))
        expected = (len(texts), self.matrix.shape[1])
        if self._values.shape != expected:
            raise UserError(
                f"{path}: metadata values for {expected[0]} keys and {expected[1]} columns have "
                f"shape {expected}, found {self._values.shape}; copy it again."
            )

    def _spelling(self, *spellings: str) -> str:
        with guard(self.path):
            there = list(self._file)
        for name in spellings:
            if name in there:
                return name
        raise UserError(
            f"{self.path} has no {' or '.join(spellings)}, so it is no bdpy file; it has "
            f"{short(', '.join(there)) or 'nothing'}."
        )

    def columns(self, key: str) -> np.ndarray:
        """Return the columns that a key marks, in order."""
        if key not in self.keys:
            raise UserError(
                f"{self.path} lacks the key {key}; it has {short(', '.join(self.keys))}."
            )
        return np.flatnonzero(self._values[self.keys[key]] == 1)

    def described(self, key: str, columns: np.ndarray) -> np.ndarray:
        """Return a key's metadata values at some columns, e.g. where voxels lie."""
        return self._values[self.keys[key]][columns]

    def label(self, key: str) -> np.ndarray:
        """Return the one column of the matrix that a key marks: a label per sample, (n,)."""
        columns = self.columns(key)
        if len(columns) != 1:
            raise UserError(
                f"{self.path}: the key {key} marks one column of labels, found {len(columns)}."
            )
        return hdf5_values(self.matrix, (slice(None), columns[0]))

    def whole(self, key: str) -> np.ndarray:
        """Return a label per sample that is a whole number, int64 (n,)."""
        values = self.label(key)
        if not np.isfinite(values).all() or (values % 1 != 0).any():
            raise UserError(f"{self.path}: {key} needs whole numbers; copy the file again.")
        return values.astype(np.int64)

    def names(self, key: str) -> dict[float, str]:
        """Return the text for each number of a label, {} when the file has none."""
        with guard(self.path, at=f"vmap/{key}"):
            texts = self._file.get(f"vmap/{key}", {})
            return {float(number): _text(texts[number][()]) for number in texts}

    def close(self) -> None:
        """Close the file; rows can no longer be read."""
        self._file.close()


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
