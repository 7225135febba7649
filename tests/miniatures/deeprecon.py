"""Deep image reconstruction in miniature: bdpy files, one a kind of trial."""

from pathlib import Path

import h5py
import numpy as np

TRAIN = ["n01518878_10042", "n01518878_5958", "n01639765_22407", "n01726692_9090"]
SHOWN = {
    "natural": ["n01443537_22563", "n01621127_19020"],
    "shapes": ["colorExpStim01_red_square", "colorExpStim06_blue_circle"],
}
FILES = {
    "training": "{who}_ImageNetTraining_fmriprep_volume_native.h5",
    "natural": "{who}_ImageNetTest_fmriprep_volume_native.h5",
    "shapes": "{who}_ArtificialShapes_fmriprep_volume_native.h5",
}
ROIS = {"VC": [0, 1, 2, 3], "V1": [0, 1]}
VOXELS = 6


def write_kind(
    file: Path,
    names: list[str],
    repeats: int,
    seed: int = 0,
    named: bool = True,
    places: np.ndarray | None = None,
) -> np.ndarray:
    """Write one bdpy file, a resting sample first, and return its voxels (n, V)."""
    rng = np.random.default_rng(seed)
    order = names * repeats
    numbers = [np.nan, *(1.0 + sorted(set(names)).index(name) for name in order)]
    runs = [1.0, *(1.0 + i // len(names) for i in range(len(order)))]
    voxels = rng.standard_normal((len(numbers), VOXELS)) + 5
    labels = {"Session": np.ones(len(numbers)), "Run": runs, "stimulus_name": numbers}
    matrix = np.column_stack([voxels, *labels.values()])
    width = matrix.shape[1]
    voxel = np.arange(width) < VOXELS
    marks = {"VoxelData": np.where(voxel, 1, np.nan)}
    for roi, inside in ROIS.items():
        marks[f"ROI_{roi}"] = np.where(voxel, 0.0, np.nan)
        marks[f"ROI_{roi}"][inside] = 1
    for at, key in enumerate(labels, start=VOXELS):
        marks[key] = np.full(width, np.nan)
        marks[key][at] = 1
    places = np.arange(VOXELS, dtype=float) if places is None else places
    for axis in "xyz":
        marks[f"voxel_{axis}"] = np.full(width, np.nan)
        marks[f"voxel_{axis}"][:VOXELS] = places
    with h5py.File(file, "w") as h5:
        h5["dataset"] = matrix
        group = h5.create_group("metadata")
        group["key"] = np.array(list(marks), dtype="S")
        group["description"] = np.array(list(marks), dtype="S")
        group["value"] = np.stack(list(marks.values()))
        if named:
            texts = h5.create_group("vmap/stimulus_name")
            for i, name in enumerate(sorted(set(names)), start=1):
                texts[str(float(i))] = name
    return voxels[1:]


def write_deeprecon(root: Path, who: str = "sub-01") -> dict[str, np.ndarray]:
    """Write a person's training, natural and shape trials; return the voxels of each."""
    root.mkdir(parents=True, exist_ok=True)
    shown = {
        "training": (TRAIN, 2),
        "natural": (SHOWN["natural"], 3),
        "shapes": (SHOWN["shapes"], 2),
    }
    return {
        kind: write_kind(root / FILES[kind].format(who=who), names, repeats, seed)
        for seed, (kind, (names, repeats)) in enumerate(shown.items())
    }
