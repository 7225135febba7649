"""LAION-fMRI in miniature: two sessions of one person, in both generations of paths."""

from __future__ import annotations

import io
import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
from PIL import Image

SHAPE, AFFINE = (5, 4, 3), np.diag([1.8, 1.8, 1.8, 1.0])
SHARED = [
    *(f"shared_12rep_LAION_cluster_{i}_i0.jpg" for i in (3, 8, 11)),
    *("shared_4rep_OOD_shape_dog.png", "shared_4rep_OOD_gabor_1.png"),
]
OWN = [f"unique_p04_LAION_cluster_{i}_i1.jpg" for i in range(20, 29)]  # p04 is sub-03
WHO = "sub-03"


def labels(session: int, seed: int = 0) -> list[str]:
    """Return what a session shows, trial by trial."""
    rng = np.random.default_rng([seed, session])
    return [str(name) for name in rng.permutation([*SHARED, *SHARED, *OWN])]


def beta(session: int, volume: int) -> np.ndarray:
    """Return a volume (5, 4, 3) whose values name their trial."""
    grid = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    return (1000 * session + 10 * volume) + np.sin(grid * (volume + 1) + session)


def picture(label: str) -> np.ndarray:
    """Return a picture of a label, uint8 (8, 8, 3)."""
    rng = np.random.default_rng(list(label.encode()))
    return rng.integers(0, 256, (2, 2, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)


def embedding(label: str, size: int) -> np.ndarray:
    """Return an embedding (size,) of a label."""
    return np.random.default_rng(list(label.encode())).standard_normal(size).astype(np.float16)


def write_laion(
    root: Path,
    *,
    early: bool = False,
    packed: bool = True,
    pictures: bool = True,
    sidecars: bool = True,
    ceiling: float = 60.0,
    who: str = WHO,
) -> Path:
    """Write the study; ``early`` is the generation of May, ``packed`` gives .nii.gz."""
    glm = root / "derivatives" / "glmsingle-tedana" / who
    end = ".nii.gz" if packed else ".nii"
    for session in (1, 2):
        name = f"ses-{session:02d}"
        func = glm / name / "func"
        func.mkdir(parents=True)
        shown = labels(session)
        volumes = np.stack([beta(session, i) for i in range(len(shown))], axis=-1)
        if session == 2:
            volumes[0, 0, 0] = np.nan  # outside what this session covers
        stem = f"{who}_{name}_task-images"
        file = func / f"{stem}_space-T1w_stat-effect_desc-SingletrialBetas_statmap{end}"
        nib.save(nib.Nifti1Image(volumes.astype(np.float32), AFFINE), file)
        table = "desc-GLMsingle_events" if early else "desc-SingletrialBetas_trials"
        rows = [f"{session}\t{1 + i // 12}\t{i}\t{label}" for i, label in enumerate(shown)]
        order = np.random.default_rng(session).permutation(len(rows))  # rows need not be in order
        text = "\n".join(["session\trun\tbeta_index\tlabel", *(rows[i] for i in order)])
        (func / f"{stem}_{table}.tsv").write_text(text + "\n")
    save_mask(root, glm, who, early)
    half = np.zeros(SHAPE, np.uint8)
    half[:, :2] = 1
    for roi, values in (("V1v", half), ("laion-general", np.ones(SHAPE, np.uint8))):
        save_roi(root, who, roi, values, early)
    for kind in ("4rep", "12rep", "Allrep"):
        values = np.full(SHAPE, ceiling, np.float32)
        name = f"{who}_task-images_space-T1w_desc-Noiseceiling{kind}_statmap.nii.gz"
        nib.save(nib.Nifti1Image(values, AFFINE), glm / name)
    stimuli = root / "stimuli"
    stimuli.mkdir(exist_ok=True)
    every = [*SHARED, *OWN, "never_shown.jpg"]
    if pictures:
        with h5py.File(stimuli / "task-images_stimuli.h5", "w") as file:
            kind = h5py.vlen_dtype(np.uint8)
            stored = file.create_dataset("images", (len(every),), dtype=kind)
            for i, label in enumerate(every):
                buffer = io.BytesIO()
                Image.fromarray(picture(label)).save(buffer, "PNG")
                stored[i] = np.frombuffer(buffer.getvalue(), np.uint8)
        text = "\n".join(["image_name,dataset", *(f"{name},LAION" for name in every)])
        (stimuli / "task-images_metadata.csv").write_text(text + "\n")
    if sidecars:
        write_sidecar(stimuli, "CLIP", 1024, [*every[::-1]])
    return root


def save_mask(root: Path, glm: Path, who: str, early: bool) -> None:
    """Write the mask of one generation: all but the last plane."""
    mask = np.ones(SHAPE, np.uint8)
    mask[-1] = 0
    if early:
        file = glm / f"{who}_task-images_space-T1w_desc-meanR2gt15mask_mask.nii.gz"
    else:
        place = root / "derivatives" / "anatomical" / who / "ses-PrismaAnat" / "anat"
        place.mkdir(parents=True)
        file = place / f"{who}_ses-PrismaAnat_space-T1w_res-1pt8_desc-brain_mask.nii.gz"
    nib.save(nib.Nifti1Image(mask, AFFINE), file)


def save_roi(root: Path, who: str, roi: str, values: np.ndarray, early: bool) -> None:
    """Write a region as one generation names it."""
    if early:
        file = root / "derivatives" / "atlases" / who / "rois" / f"{roi}.nii.gz"
    else:
        place = root / "derivatives" / "rois" / who / "retinotopy"
        file = place / f"{who}_space-T1w_res-1pt8_label-{roi}_mask.nii.gz"
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, AFFINE), file)


def write_sidecar(
    stimuli: Path, desc: str, size: int, names: list[str], invalid: tuple[str, ...] = ()
) -> None:
    """Write published embeddings in an order of their own."""
    with h5py.File(stimuli / f"task-images_desc-{desc}_embeddings.h5", "w") as file:
        file["embedding"] = np.stack([embedding(name, size) for name in names])
        file["image_ids"] = np.array(names, dtype=h5py.string_dtype())
        file["valid"] = np.array([name not in invalid for name in names])


def write_splits(folder: Path, splits: dict[str, tuple[list[str], list[str]]], pool: str) -> None:
    """Write splits of a pool as the package has them."""
    (folder / pool).mkdir(parents=True, exist_ok=True)
    (folder / "shared").mkdir(exist_ok=True)
    for name, (train, test) in splits.items():
        values = {"name": name, "variants": [{"train_ids": train, "test_ids": test}]}
        (folder / pool / f"{name}.json").write_text(json.dumps(values))
