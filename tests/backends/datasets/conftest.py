"""Releases that many tests read and none changes."""

from pathlib import Path

import h5py
import pytest

from tests.miniatures.mindeye1 import write_mindeye1
from tests.miniatures.mindeye2 import V, betas2, shown, write_mindeye2, write_shared, write_wds


@pytest.fixture(scope="session")
def release1(tmp_path_factory) -> Path:
    root = write_mindeye1(tmp_path_factory.mktemp("mindeye1"))
    return write_mindeye1(root, "subj02", V + 1)


@pytest.fixture(scope="session")
def release2(tmp_path_factory) -> Path:
    return write_mindeye2(tmp_path_factory.mktemp("mindeye2"))


@pytest.fixture(scope="session")
def wds_only(tmp_path_factory) -> Path:
    """Betas and shards, as somebody has who did not take the table of images."""
    root = tmp_path_factory.mktemp("wds")
    with h5py.File(root / "betas_all_subj01_fp32_renorm.hdf5", "w") as file:
        file["betas"] = betas2(shown(1), V)
    write_wds(root, 1)
    write_shared(root)
    return root
