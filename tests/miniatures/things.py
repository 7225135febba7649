"""People of THINGS-fMRI in miniature: the tables, and the same trials as volumes."""

from __future__ import annotations

import warnings
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from PIL import Image

SHAPE, AFFINE = (3, 4, 5), np.diag([2.0, 2.0, 2.0, 1.0])
TESTS = ("candelabra/candelabra_14s.jpg", "mango/mango_13s.jpg")
TRAIN = (
    *("dog/dog_12s.jpg", "mango/mango_12s.jpg", "spatula/spatula_12s.jpg", "panda/panda_12s.jpg"),
    *("bat1/bat1_05b.jpg", "bat2/bat2_03s.jpg", "axe/axe_14n.jpg", "cow/cow_16n.jpg"),
)
RUNS = ((1, 1), (1, 2), (2, 1), (2, 2))  # session, run; two training images and both tests in each


def trials() -> pd.DataFrame:
    """Return the published columns of StimulusMetadata.csv; row i is column i of the betas."""
    rows = []
    for part, (session, run) in enumerate(RUNS):
        shown = [TRAIN[2 * part], TESTS[part % 2], TRAIN[2 * part + 1], TESTS[(part + 1) % 2]]
        for source in shown:
            kind = "test" if source in TESTS else "train"
            concept, name = source.split("/")
            rows.append((kind, session, run, 1, len(rows), name, concept))
    names = ["trial_type", "session", "run", "subject_id", "trial_id", "stimulus", "concept"]
    return pd.DataFrame(rows, columns=names)


def brain() -> np.ndarray:
    """Return bool (3, 4, 5): 42 voxels, not a box."""
    return np.arange(60).reshape(SHAPE) % 10 > 2


def betas() -> np.ndarray:
    """Return float64 (voxels, trials): voxel / 100 + trial / 10,000."""
    voxels, n = int(brain().sum()), len(trials())
    return np.arange(voxels)[:, None] / 100 + np.arange(n) / 10_000


def voxels(subject: int = 1) -> pd.DataFrame:
    """Return the published kinds of columns of VoxelMetadata.csv; voxel 0 has no signal."""
    x, y, z = np.nonzero(brain())
    n = len(x)
    single = np.linspace(0, 40, n)
    snr = single / (100 - single)
    at = np.arange(n)
    return pd.DataFrame(
        {
            "voxel_id": at,
            "subject_id": subject,
            "voxel_x": x,
            "voxel_y": y,
            "voxel_z": z,
            "nc_singletrial": single,
            "nc_testset": 100 * snr / (snr + 1 / 12),
            "splithalf_corrected": 0.5,
            "prf-size": 2.5,
            "V1": (at < 6).astype(float),
            "LO1 (prf)": ((at >= 4) & (at < 9)).astype(float),
            "lFFA": ((at >= 20) & (at < 23)).astype(float),
            "rFFA": (at == 40).astype(float),
            "glasser-V1": (at < 3).astype(int),
            "glasser-p9-\n46v": (at == 41).astype(int),
        }
    )


def write_frame(frame: pd.DataFrame, file: Path, **options: object) -> None:
    """Write a frame as the authors did, with labels that PyTables pickles."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it pickles labels is what is wanted
        frame.to_hdf(file, key="ResponseData", mode="w", **options)


def frame() -> pd.DataFrame:
    """Return the frame of ResponseData.h5: ``voxel_id``, then the trials' numbers."""
    found = pd.DataFrame(betas())
    found.insert(0, "voxel_id", np.arange(len(found)))
    return found


def write_tables(root: Path, subject: int = 1) -> Path:
    """Write one person's three tables into ``root/betas_csv``."""
    folder = root / "betas_csv"
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"sub-{subject:02d}"
    trials().assign(subject_id=subject).to_csv(
        folder / f"{stem}_StimulusMetadata.csv", index=False
    )
    voxels(subject).to_csv(folder / f"{stem}_VoxelMetadata.csv", index=False)
    write_frame(frame(), folder / f"{stem}_ResponseData.h5")
    return root


def write_mask(root: Path, subject: int = 1) -> None:
    (root / "brainmasks").mkdir(exist_ok=True)
    image = nibabel.Nifti1Image(brain().astype(np.uint8), AFFINE)
    name = f"sub-{subject:02d}_space-T1w_brainmask.nii.gz"
    nibabel.save(image, root / "brainmasks" / name)


def write_volumes(root: Path, subject: int = 1) -> Path:
    """Write the same trials as volumes, a catch trial second in each run, and the brain mask."""
    root.mkdir(parents=True, exist_ok=True)
    write_mask(root, subject)
    table, values = trials(), betas()
    for session, run in RUNS:
        rows = np.flatnonzero((table["session"] == session) & (table["run"] == run))
        shown = [f"{table['concept'][i]}/{table['stimulus'][i]}" for i in rows]
        columns = [values[:, i] for i in rows]
        shown.insert(1, "catch008.jpg")
        columns.insert(1, np.full(len(values), -9.0))
        data = np.zeros((*SHAPE, len(columns)))
        data[brain()] = np.stack(columns, axis=1)
        folder = root / "betas_vol" / f"sub-{subject:02d}" / f"ses-things{session:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"sub-{subject:02d}_ses-things{session:02d}_run-{run:02d}"
        nibabel.save(nibabel.Nifti1Image(data, AFFINE), folder / f"{stem}_betas.nii.gz")
        listed = pd.DataFrame({"image_filename": shown})
        listed.to_csv(folder / f"{stem}_conditions.tsv", sep="\t")
    return root


def write_pictures(root: Path, sources: tuple[str, ...] = (*TRAIN, *TESTS)) -> None:
    """Write THINGS' pictures; the first pixel says which of ``sources`` it is."""
    for number, source in enumerate(sources):
        file = root / "THINGS-images" / source
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(picture).save(file, "JPEG")


def write_shown(root: Path) -> None:
    """Write one person's tables, volumes and pictures."""
    write_tables(root)
    write_volumes(root)
    write_pictures(root)


def write_things(root: Path) -> Path:
    """Write two people's tables, the first one's brain mask, and every picture."""
    for subject in (1, 2):
        write_tables(root, subject)
    write_mask(root)
    write_pictures(root)
    return root
