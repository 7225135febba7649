"""Releases that many tests read and none changes."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.miniatures.mindeye1 import write_mindeye1
from tests.miniatures.mindeye2 import V, betas2, shown, write_mindeye2, write_shared, write_wds
from tests.miniatures.nsd import (
    VERTEX,
    betas_folder,
    make,
    save_design,
    save_hemisphere,
    save_surface,
)


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


@pytest.fixture(scope="session")
def nsd_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return sessions 1 and 3 of subject 1 and session 1 of subject 4; only to be read."""
    root = tmp_path_factory.mktemp("nsd")
    make(root, (1, 3))
    return make(root, (1,), subject=4)


@pytest.fixture(scope="session")
def nsd_surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return session 2 on fsaverage: left betas are vertex + trial, right ones are negative."""
    root = tmp_path_factory.mktemp("fsaverage")
    save_design(root)
    folder = betas_folder(root, 1, "fsaverage")
    for h, sign in (("lh", 1), ("rh", -1)):
        trials = {t: sign * (VERTEX / 1000 + t) for t in (0, 5, 749)}
        save_hemisphere(folder, h, 2, trials)
        labels = np.where(VERTEX % 3 == 0, -1, 0)
        labels[[7, 20_000] if h == "lh" else [3, 12_000]] = 1
        label = root / "nsddata/freesurfer/fsaverage/label"
        save_surface(label / f"{h}.nsdgeneral.mgz", labels[:, None, None])
    save_hemisphere(folder, "lh", 3, {})
    return root
