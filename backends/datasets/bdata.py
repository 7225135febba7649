"""bdpy's container of fMRI data: a matrix in HDF5 and metadata that say what each column is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.reading import open_hdf5
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
        self.matrix: h5py.Dataset = self._member("dataset", "dataSet")
        about = self._member("metadata", "metaData")
        if "key" not in about or "value" not in about:
            raise UserError(f"{path}: {about.name} lacks key or value; it is no bdpy file.")
        texts = [k.decode() if isinstance(k, bytes) else str(k) for k in about["key"][()]]
        self.keys = {key.strip(): row for row, key in enumerate(texts)}
        self._values = about["value"][()]
        expected = (len(texts), self.matrix.shape[-1])
        if self._values.shape != expected:
            raise UserError(
                f"{path}: metadata values for {expected[0]} keys and {expected[1]} columns have "
                f"shape {expected}, found {self._values.shape}; copy it again."
            )

    def _member(self, *spellings: str) -> Any:
        for name in spellings:
            if name in self._file:
                return self._file[name]
        raise UserError(
            f"{self.path} has no {' or '.join(spellings)}, so it is no bdpy file; it has "
            f"{', '.join(self._file) or 'nothing'}."
        )

    def columns(self, key: str) -> np.ndarray:
        """Return the columns that a key marks, in order."""
        if key not in self.keys:
            raise UserError(f"{self.path} lacks the key {key}; it has {', '.join(self.keys)}.")
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
        return self.matrix[:, columns[0]]

    def names(self, key: str) -> dict[float, str]:
        """Return the text for each number of a label, {} when the file has none."""
        texts = self._file.get(f"vmap/{key}", {})
        return {float(number): _text(texts[number][()]) for number in texts}

    def close(self) -> None:
        """Close the file; rows can no longer be read."""
        self._file.close()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
