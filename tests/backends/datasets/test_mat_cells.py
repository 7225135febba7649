"""Cell arrays of MATLAB files, held to SciPy's reader and to spoilt bytes."""

import numpy as np
import pytest
import scipy.io

from backends.datasets.mat_cells import mat_cells
from explorer.types import UserError


def cells() -> np.ndarray:
    found = np.empty((4, 3), object)
    texts = ("a", "seven letters", "größer", "shared0385_nsd28752.png")
    for k, text in enumerate(texts):
        found[k] = [float(k) - 0.5, text, np.int16(-k)]
    return found


@pytest.mark.parametrize("packed", [False, True])
def test_cells_are_those_that_scipy_reads(tmp_path, packed):
    path = tmp_path / "x.mat"
    beside = {"other": np.arange(5.0), "text": "pair_list", "pair_list": cells(), "z": 1}
    scipy.io.savemat(path, beside, do_compression=packed)
    found = mat_cells(path, "pair_list")
    expected = scipy.io.loadmat(path, squeeze_me=True)["pair_list"]
    assert found.shape == (4, 3)
    assert found.tolist() == expected.tolist() == cells().tolist()


def test_other_variables_and_files_are_refused(tmp_path):
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"pair_list": cells(), "numbers": np.arange(3.0)})
    with pytest.raises(UserError, match="it has no cell array pairs"):
        mat_cells(path, "pairs")
    with pytest.raises(UserError, match="numbers is no cell array"):
        mat_cells(path, "numbers")
    nested = np.empty((1, 1), object)
    nested[0, 0] = cells()
    scipy.io.savemat(path, {"pair_list": nested})
    with pytest.raises(UserError, match="a cell holds neither text nor a number"):
        mat_cells(path, "pair_list")
    nested[0, 0] = np.arange(4.0)
    scipy.io.savemat(path, {"pair_list": nested})
    with pytest.raises(UserError, match="a cell holds 4 numbers, expected one"):
        mat_cells(path, "pair_list")
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    with pytest.raises(UserError, match="x.mat is no MATLAB file of version 5 to 7|its header is"):
        mat_cells(path, "pair_list")


@pytest.mark.parametrize("packed", [False, True])
def test_every_spoilt_byte_is_read_or_refused_in_one_sentence(tmp_path, packed):
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"pair_list": cells()}, do_compression=packed)
    whole = path.read_bytes()
    for at in range(0, len(whole), 1 + len(whole) // 120):
        for spoilt in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1 :]):
            path.write_bytes(spoilt)
            try:
                assert mat_cells(path, "pair_list").ndim >= 1
            except UserError as error:
                assert "\n" not in str(error)
