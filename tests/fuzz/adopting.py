"""Somebody's own GLM for the fuzz tests: what ``adopt`` reads, and the study that it makes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from backends.commands import adopt
from backends.datasets.folder import Folder
from tests.miniatures.glmsingle import shown, write_bids, write_mask, write_results


def write_glm(root: Path) -> None:
    """Write HDF5 results, their order, events, pictures and a mask in MNI space."""
    write_results(root / "glm")
    np.save(root / "glm" / adopt.ORDER, shown().ravel())
    write_bids(root / "bids")
    write_mask(root / "sub-01_space-MNI152NLin2009cAsym_mask.nii.gz")


def read_glm(root: Path) -> list[Any]:
    """Adopt it and return the betas that were written."""
    (mask,) = root.glob("*mask.nii.gz")
    try:
        adopt.adopt(
            *(root / "glm", str(root / "bids"), str(mask)),
            out=root / "study",
            write=True,
            test_repeats=5,
        )
        trials = Folder(root / "study", "s").load("sub-01")
        return [trials.table.to_csv(), np.asarray(trials.betas[:])]
    finally:
        shutil.rmtree(root / "study", ignore_errors=True)
