"""Arrays of numbers in MATLAB files, as SciPy writes and reads them, and damaged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from backends.datasets.mat_cells import is_level_5, mat_numbers
from backends.datasets.reading import mat_array
from explorer.types import UserError

RNG = np.random.default_rng(0)
ARRAYS = {
    "doubles": RNG.standard_normal((3, 4)),
    "singles": RNG.standard_normal((2, 3, 4)).astype(np.float32),
    "bytes": RNG.integers(0, 255, (5, 1), dtype=np.uint8),
    "shorts": RNG.integers(-99, 99, (1, 7), dtype=np.int16),
    "longs": RNG.integers(-(2**40), 2**40, (2, 2)),
    "one": np.array([[3.5]]),
    "none": np.zeros((0, 3)),
    "yes_no": np.array([[True, False]]),
}


@pytest.mark.parametrize("packed", [False, True])
def test_numbers_are_those_that_scipy_reads(tmp_path: Path, packed: bool) -> None:
    file = tmp_path / "a.mat"
    savemat(file, ARRAYS | {"text": "no number"}, do_compression=packed)
    assert is_level_5(file)
    theirs = loadmat(file)
    for name in ARRAYS:
        ours = mat_array(file, name)
        np.testing.assert_array_equal(ours, theirs[name])
        assert ours.shape == theirs[name].shape
        assert ours.dtype == theirs[name].dtype or name == "yes_no"


def test_what_is_no_array_of_numbers_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    savemat(file, {"text": "abc", "wave": np.array([[1 + 2j]]), "fine": np.ones((2, 2))})
    for name, why in (
        ("text", "no full array of real numbers"),
        ("wave", "no full array of real numbers"),
        ("gone", "has no array gone"),
    ):
        with pytest.raises(UserError, match=why):
            mat_numbers(file, name)


@pytest.mark.parametrize("packed", [False, True])
def test_every_damaged_byte_gives_numbers_or_a_sentence(tmp_path: Path, packed: bool) -> None:
    file, spoilt = tmp_path / "a.mat", tmp_path / "b.mat"
    savemat(file, {"values": np.arange(6.0).reshape(2, 3)}, do_compression=packed)
    sound = file.read_bytes()
    refused = 0
    for at in range(128, len(sound)):
        spoilt.write_bytes(sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :])
        try:
            mat_numbers(spoilt, "values")
        except UserError:
            refused += 1
    assert refused > (len(sound) - 128) // 3
    for end in range(130, len(sound), 7):
        spoilt.write_bytes(sound[:end])
        with pytest.raises(UserError, match="b.mat"):
            mat_numbers(spoilt, "values")
