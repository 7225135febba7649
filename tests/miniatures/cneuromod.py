"""CNeuroMod-THINGS in miniature, its HDF5 files made as the authors' scripts make them.

GLMsingle_betasPerTrial.py z-scores all trials of a person at once and keeps them by session and
run; GLMsingle_betasPerImg.py z-scores within session and averages an image's answered trials.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
from PIL import Image
from scipy.stats import zscore

SHAPE, AFFINE = (3, 4, 5), np.diag([2.0, 2.0, 2.0, 1.0])
RUNS = ((1, 1), (1, 2), (2, 1), (10, 1))  # session, run: as texts, 10 comes before 2
CONCEPTS = ("camel", "bat1", "bat2", "velcro", "axe", "cow", "dog", "pear")
IMAGES = [f"{concept}_{i:02d}s" for concept in CONCEPTS for i in (1, 2)]  # each shown three times
PER_RUN = 3 * len(IMAGES) // len(RUNS)
STEM = "task-things_space-T1w_model-fitHrfGLMdenoiseRR_stat"


def mask() -> np.ndarray:
    """Return bool (3, 4, 5): 42 voxels, not a box."""
    return np.arange(60).reshape(SHAPE) % 10 > 2


def shown(subject: int) -> list[list[str]]:
    """Return the images of each run in the order of time."""
    order = np.random.default_rng(subject).permutation(IMAGES * 3)
    return [list(map(str, part)) for part in np.split(order, len(RUNS))]


def betas(subject: int) -> np.ndarray:
    """Return GLMsingle's own betas (trials, voxels), before any z-score."""
    rng = np.random.default_rng(100 + subject)
    return rng.normal(3, 2, (3 * len(IMAGES), int(mask().sum())))


def output(root: Path, subject: int) -> Path:
    who = f"sub-{subject:02d}"
    folder = root / "THINGS" / "glmsingle" / who / "glmsingle" / "output"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{who}_{STEM}"


def events_file(root: Path, subject: int, session: int, run: int) -> Path:
    who = f"sub-{subject:02d}"
    folder = root / "THINGS/fmriprep/sourcedata/things" / who / f"ses-{session:02d}" / "func"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{who}_ses-{session:02d}_task-things_run-{run:02d}_events.tsv"


def write_mask_of(file: h5py.File) -> None:
    file.create_dataset("mask_array", data=mask().astype(float))
    file.create_dataset("mask_affine", data=AFFINE)


def write_trials(root: Path, subject: int, zscored: bool = True) -> Path:
    """Write the betas of trials by session and run."""
    values = betas(subject)
    values = zscore(values, axis=0) if zscored else values
    name = "-trialBetas_desc-zscore_statseries.h5" if zscored else "-trialBetas_statseries.h5"
    path = Path(f"{output(root, subject)}{name}")
    with h5py.File(path, "w") as file:
        for (session, run), part in zip(RUNS, np.split(values, len(RUNS)), strict=True):
            file.require_group(str(session)).create_group(str(run))
            file[str(session)][str(run)].create_dataset("betas", data=part)
        write_mask_of(file)
    return path


def write_images(root: Path, subject: int) -> Path:
    """Write the means of images over their trials."""
    names = np.concatenate(shown(subject))
    session = np.repeat([s for s, _ in RUNS], PER_RUN)
    values = betas(subject)
    for one in np.unique(session):
        values[session == one] = zscore(values[session == one], axis=0)
    path = Path(f"{output(root, subject)}-imageBetas_desc-zscore_statseries.h5")
    with h5py.File(path, "w") as file:
        for name in np.unique(names):
            group = file.create_group(str(name))
            group.create_dataset("betas", data=values[names == name].mean(axis=0))
            group.create_dataset("num_reps", data=[3])
            group.create_dataset("blanks", data=[0])
        write_mask_of(file)
    return path


def write_events(root: Path, subject: int) -> None:
    """Write a table for each run, with the columns that a reader looks at and one more."""
    seen: dict[str, int] = {}
    for (session, run), names in zip(RUNS, shown(subject), strict=True):
        rows = []
        for i, name in enumerate(names):
            seen[name] = seen.get(name, 0) + 1
            rows.append(
                {
                    "subject_id": f"sub-{subject:02d}",
                    "session_id": f"ses-{session:03d}",
                    "TrialNumber": i + 1,
                    "image_path": f"data/images/{name.rpartition('_')[0]}/{name}.jpg",
                    "repetition": seen[name],
                    "run_id": run,
                    "onset": 6.0 + 4.47 * i,
                    "response_txt": "seen",
                    "not_for_memory": False,
                }
            )
        file = events_file(root, subject, session, run)
        pd.DataFrame(rows).to_csv(file, sep="\t", index=False)


def write_ceilings(root: Path, subject: int) -> Path:
    """Write noise ceilings in percent for the mean of three showings, 0 to 60."""
    values = np.zeros(SHAPE)
    values[mask()] = np.linspace(0, 60, int(mask().sum()))
    path = Path(f"{output(root, subject)}-noiseCeilings_statmap.nii.gz")
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)
    return path


def write_roi(root: Path, subject: int, name: str = "FFA") -> Path:
    """Write the mask of a region of the functional localiser: the first five voxels."""
    who = f"sub-{subject:02d}"
    folder = root / "fLoc" / "rois" / who / "rois" / "task-derived"
    folder.mkdir(parents=True, exist_ok=True)
    values = np.zeros(SHAPE)
    values[mask()] = np.arange(int(mask().sum())) < 5
    stem = f"{who}_task-floc_space-T1w_stat-tscores_contrast-face_roi-{name}_cutoff-3.72"
    path = folder / f"{stem}_desc-unsmooth_mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)
    return path


def write_pictures(root: Path) -> None:
    folder = root / "THINGS/fmriprep/sourcedata/things/stimuli/images_fmri"
    for number, name in enumerate(IMAGES):
        file = folder / name.rpartition("_")[0] / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(picture).save(file)


def write_cneuromod(root: Path, subjects: tuple[int, ...] = (1, 3)) -> Path:
    """Write a clone of the repository with everything fetched."""
    for subject in subjects:
        write_trials(root, subject)
        write_events(root, subject)
        write_ceilings(root, subject)
        write_roi(root, subject)
    write_pictures(root)
    return root
