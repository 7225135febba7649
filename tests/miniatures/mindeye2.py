"""MindEye2's release in miniature, with planted truths; and files of full size that take no room.

Betas encode what they belong to (voxel 0 the image, voxel 1 the trial), so that a row or an id
that slips by one is seen.
"""

import zlib
from pathlib import Path

import h5py
import numpy as np

from backends.datasets.mindeye2 import MindEye2
from tests.miniatures.shards import npy, write_tar

V = 6
SHARED = np.arange(1000) * 73  # any 1,000 of the 73,000; 0 is one of them
SESSIONS = 2
T = 750 * SESSIONS


def shown(subject: int, trials: int = T) -> np.ndarray:
    """Images of a subject's trials: one sequence for all, shared images on the same trials.

    Every tenth trial shows a shared image, twice to three times; the rest is the subject's own.
    """
    rng = np.random.default_rng(5)
    position = rng.integers(0, 400, trials)  # the same for everybody
    shared = np.arange(trials) % 10 == 0
    own = np.setdiff1d(np.arange(73000), SHARED)[(subject - 1) * 9000 :][:400]
    return np.where(shared, SHARED[position % 60], own[position])


def betas2(numbers: np.ndarray, v: int) -> np.ndarray:
    """Voxel 0 says the image, voxel 1 the global trial."""
    noise = np.random.default_rng(1).standard_normal((len(numbers), v)).astype(np.float32)
    noise[:, 0], noise[:, 1] = numbers, np.arange(len(numbers))
    return noise


def behav(subject: int, trial: int, number: int) -> np.ndarray:
    """One row of 17 columns as MindEye2's README lists them; -1 where there is no value."""
    run, of_run = trial % 750 // 63 + 1, trial % 750 % 63 + 1
    known = [number, subject, trial // 750 + 1, run, of_run, trial, 737000, 0, 1, 812.5]
    return np.array([[*known, -1, -1, -1, 3, 4, 1, number in SHARED]], dtype=np.float64)


def sample2(subject: int, trial: int, number: int) -> dict[str, bytes]:
    one = behav(subject, trial, number)
    return {
        "behav.npy": npy(one),
        "past_behav.npy": npy(np.full((15, 17), -1.0)),
        "future_behav.npy": npy(np.full((15, 17), -1.0)),
        "olds_behav.npy": npy(np.full((3, 17), -1.0)),
    }


def write_wds(root: Path, subject: int, trials: int = T) -> None:
    numbers, place = shown(subject, trials), root / "wds" / f"subj0{subject}"
    shared = np.isin(numbers, SHARED)
    for session in range(trials // 750):
        rows = np.flatnonzero(~shared[: 750 * (session + 1)])
        rows = rows[rows >= 750 * session]
        write_tar(
            place / "train" / f"{session}.tar", [sample2(subject, t, numbers[t]) for t in rows]
        )
    tested = np.flatnonzero(shared)
    write_tar(place / "new_test" / "0.tar", [sample2(subject, t, numbers[t]) for t in tested])
    early = tested[tested < 750]
    write_tar(place / "test" / "0.tar", [sample2(subject, t, numbers[t]) for t in early])


def write_shared(root: Path) -> None:
    shared = np.zeros(73000, bool)
    shared[SHARED] = True
    np.save(root / "shared1000.npy", shared)


def write_mindeye2(root: Path, subjects=(1, 2)) -> Path:
    for s in subjects:
        with h5py.File(root / f"betas_all_subj0{s}_fp32_renorm.hdf5", "w") as file:
            file["betas"] = betas2(shown(s), V + s - 1)
    with h5py.File(root / "COCO_73k_subj_indices.hdf5", "w") as file:
        for s in subjects:
            file[f"subj0{s}"] = shown(s)
    write_shared(root)
    with h5py.File(root / "coco_images_224_float16.hdf5", "w") as file:
        shape = (73000, 3, 224, 224)
        images = file.create_dataset("images", shape, np.float16, chunks=(1, 3, 224, 224))
        for number in (0, SHARED[1], 72999):
            images[number] = picture2(number)
    with h5py.File(root / "brain_region_masks.hdf5", "w") as file:
        for s in subjects:
            v = V + s - 1
            masks = {"nsd_general": np.ones(v, bool), "V1": np.arange(v) < 2}
            masks["higher_vis"] = np.arange(v) >= 2
            for name, mask in masks.items():
                file[f"subj0{s}/{name}"] = mask
    return root


def picture2(number: int) -> np.ndarray:
    """Float16 (3, 224, 224) in [0, 1]: red above, blue on the left, green by number."""
    pixels = np.zeros((3, 224, 224), np.float16)
    pixels[0, :112] = 1
    pixels[2, :, :112] = 0.5
    pixels[1] = number / 73000
    return pixels


def write_full(root: Path, subject: int, trials: int, voxels: int, name: str = "") -> Path:
    """Betas of full size, nearly all zeros, which take no room packed."""
    file = root / (name or f"betas_all_subj0{subject}_fp32_renorm.hdf5")
    at_once = 25
    nothing = zlib.compress(bytes(4 * at_once * voxels))
    with h5py.File(file, "w") as opened:
        given = {"chunks": (at_once, voxels), "compression": "gzip"}
        rows = opened.create_dataset("betas", (trials, voxels), np.float32, **given)
        for first in range(0, trials, at_once):
            rows.id.write_direct_chunk((first, 0), nothing)
        rows[0] = np.random.default_rng(0).standard_normal(voxels)
    return file


def write_full_list(root: Path, **lists: np.ndarray) -> None:
    with h5py.File(root / "COCO_73k_subj_indices.hdf5", "w") as opened:
        for subject, numbers in lists.items():
            opened[subject] = numbers


def full_list(subject: int, trials: int = 30000) -> np.ndarray:
    """Every one of 10,000 images three times, the shared ones on the same trials for all."""
    order = np.random.default_rng(2).permutation(np.repeat(np.arange(10000), 3))
    own = np.setdiff1d(np.arange(73000), SHARED)[(subject - 1) * 9000 : subject * 9000]
    return np.concatenate([SHARED, own])[order][:trials]


def mindeye2(root: Path, **options) -> MindEye2:
    return MindEye2(root, "study", **{"voxels": "any", **options})
