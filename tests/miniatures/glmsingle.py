"""What GLMsingle 1.2 (Python) writes for a simulated time series, and the BIDS files beside it.

Keys, dtypes and axes are those that its own ``fit`` wrote for data (4, 5, 3, time) and (60, time).
"""

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
from PIL import Image

SHAPE, RUNS, EACH = (4, 5, 3), 3, 12
PICTURES = 8


def shown() -> np.ndarray:
    """Return int (runs, trials of a run): which picture each trial showed, each once and more."""
    rng = np.random.default_rng(3)
    return np.array(
        [rng.permutation([*range(PICTURES), *range(run, run + 4)]) for run in range(RUNS)]
    )


def single_trials() -> np.ndarray:
    """Return betas float32 (X, Y, Z, trials), of which the picture can be told."""
    rng = np.random.default_rng(4)
    patterns = rng.normal(0, 2, (PICTURES, *SHAPE))
    betas = patterns[shown().ravel()] + rng.normal(0, 0.5, (RUNS * EACH, *SHAPE))
    return np.moveaxis(betas, 0, -1).astype(np.float32)


def write_results(folder: Path, betas: np.ndarray | None = None, kind: str = "TYPED") -> Path:
    """Write one HDF5 file as ``wanthdf5`` makes it; ``betas`` may be (voxels, 1, 1, trials)."""
    names = {"TYPED": "_FITHRF_GLMDENOISE_RR", "TYPEC": "_FITHRF_GLMDENOISE", "TYPEB": "_FITHRF"}
    betas = single_trials() if betas is None else betas
    folder.mkdir(parents=True, exist_ok=True)
    file, space = folder / f"{kind}{names[kind]}.hdf5", betas.shape[:-1]
    rng = np.random.default_rng(5)
    with h5py.File(file, "w") as out:
        out["betasmd"] = betas
        for key in ("R2", "FRACvalue", "meanvol"):
            out[key] = rng.random(space).astype(np.float32)
        for key in ("noisepool", "pcvoxels"):
            out[key] = rng.random(space) < 0.5
        out["HRFindex"] = rng.integers(0, 20, space)
        out["R2run"] = rng.random((*space, RUNS)).astype(np.float32)
        out["xvaltrend"] = rng.random(11).astype(np.float32)
        out.attrs["pcnum"] = 8
    return file


def write_bids(root: Path, subject: str = "01", session: str = "", blanks: bool = True) -> Path:
    """Write events of three runs (the rows of each shuffled), pictures and a mask."""
    rng = np.random.default_rng(6)
    (root / "stimuli").mkdir(parents=True, exist_ok=True)
    for i in range(PICTURES):
        picture = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(picture).save(root / "stimuli" / f"p{i}.png")
    named = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    folder = root / named.replace("_", "/") / "func"
    folder.mkdir(parents=True)
    for run, pictures in enumerate(shown(), start=1):
        onsets = 4.0 + 7.0 * np.arange(EACH)
        table = pd.DataFrame({"onset": onsets, "duration": 3, "trial_type": "image"})
        table["stim_file"] = [f"p{i}.png" for i in pictures]
        if blanks:
            blank = {"onset": 20.5, "duration": 3, "trial_type": "blank", "stim_file": "n/a"}
            table = pd.concat([table, pd.DataFrame([blank])])
        table = table.sample(frac=1, random_state=run)
        file = folder / f"{named}_task-x_run-{run}_events.tsv"
        table.to_csv(file, sep="\t", index=False)
    return root


def write_mask(file: Path, left_out: int = 1) -> np.ndarray:
    """Write a mask without the first voxels, and return it bool (X, Y, Z)."""
    mask = np.ones(SHAPE, bool)
    mask.ravel()[:left_out] = False
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -24, -96, -12  # occipital, where it is read as MNI space
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), affine), file)
    return mask
