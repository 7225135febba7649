"""Generic Object Decoding in miniature, as bdpy's and as MinD-Vis's files."""

import json
from pathlib import Path

import h5py
import numpy as np

# Names as published; two of them end in a zero that a text of the id loses.
TRAIN = [
    *("n01518878_10042", "n01518878_5958", "n01518878_14910", "n01639765_22407"),
    *("n01639765_32862", "n01726692_9090"),
]
TEST = ["n01443537_22563", "n01621127_19020"]
ROIS = {"VC": [0, 1, 2, 3, 4, 5], "LVC": [0, 1, 2], "V1": [1, 2], "HVC": [3, 4, 5], "FFA": [5]}
VOXELS = 8  # two of them in no ROI


def number(name: str) -> float:
    """Return the id that a file holds for a stimulus, as a text with six decimals gives it."""
    synset, _, picture = name[1:].partition("_")
    return float(f"{int(synset)}.{int(picture or 0):06d}")


def design() -> list[tuple[int, int, str]]:
    """Return DataType, Run and stimulus of every row; run numbers start again in each type."""
    training = [(1, run, name) for run in (1, 2) for name in TRAIN[::-1]]
    seen = [(2, 1, name) for name in TEST * 3]
    imagined = [(3, 1, name) for name in TEST * 3]
    return training + seen + imagined


def write_god(
    file: Path,
    *,
    rows: list[tuple[int, int, str]] | None = None,
    spelling: tuple[str, str] = ("dataset", "metadata"),
    label: str = "stimulus_id",
    extra: dict[str, list[float]] | None = None,
    change=lambda voxels: voxels,  # noqa: ANN001
    dtype: str = "f8",
    n_voxels: int = VOXELS,
    rois: dict[str, list[int]] = ROIS,
    seed: int = 0,
) -> np.ndarray:
    """Write a bdpy file with the labels before the voxels and return its voxels (n, V)."""
    rows = design() if rows is None else rows
    rng = np.random.default_rng(seed)
    kinds, runs, names = zip(*rows, strict=True)
    columns = {
        "DataType": kinds,
        "Run": runs,
        label: [n if isinstance(n, float) else number(n) for n in names],
        **(extra or {}),
    }
    # Every run has a level of its own, so that a wrong grouping gives other numbers.
    level = 100 * np.array(kinds) + 10 * np.array(runs)
    voxels = change(rng.standard_normal((len(rows), n_voxels)) + level[:, None])
    matrix = np.column_stack([*columns.values(), voxels])
    begin = len(columns)
    marks: dict[str, np.ndarray] = {}
    for at, key in enumerate(columns):
        marks[key] = np.full(matrix.shape[1], np.nan)
        marks[key][at] = 1
    voxel = np.arange(matrix.shape[1]) >= begin
    marks["VoxelData"] = np.where(voxel, 1, np.nan)
    for i, (roi, inside) in enumerate(rois.items()):
        # outside an ROI there is NaN in some files and 0 in others
        marks[f"ROI_{roi}"] = np.where(voxel & (i % 2 == 0), 0, np.nan)
        marks[f"ROI_{roi}"][begin + np.array(inside)] = 1
    for axis in "xyz":
        marks[f"voxel_{axis}"] = np.where(voxel, rng.integers(-3, 3, matrix.shape[1]), np.nan)
    with h5py.File(file, "w") as h5:
        h5[spelling[0]] = matrix.astype(dtype)
        group = h5.create_group(spelling[1])
        group["key"] = np.array(list(marks), dtype="S")
        group["description"] = np.array(list(marks), dtype="S")
        group["value"] = np.stack(list(marks.values()))
    return voxels


def write_lists(folder: Path, names: tuple[str, str]) -> None:
    """Write the two lists: text order, which is not the order of the trials."""
    for file, pictures in zip(names, (TRAIN, TEST), strict=True):
        lines = [
            f'{int(p[1:9])}.{int(p.split("_")[1]):06d},"{p}.JPEG"\n' for p in sorted(pictures)
        ]
        (folder / file).write_text("".join(lines))


def scored(values: np.ndarray, of: np.ndarray | None = None, ddof: int = 0) -> np.ndarray:
    of = values if of is None else of
    return (values - of.mean(axis=0)) / of.std(axis=0, ddof=ddof)


def write_mindvis(folder: Path, *, save=np.savez, pictures=np.uint8, **replace) -> dict:  # noqa: ANN001, ANN003
    """Write one subject and the pictures as MinD-Vis does; return the arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    arrays = {
        "arr_0": 50 + 5 * rng.standard_normal((6, VOXELS)),
        "arr_1": 50 + 5 * rng.standard_normal((70, VOXELS)),
        "arr_2": 50 + 5 * rng.standard_normal((2, VOXELS)),
        "arr_3": np.array([3, 1, 0, 2, 5, 4]),  # not its own inverse
        "VC": np.isin(np.arange(VOXELS), ROIS["VC"]),
        "V1": np.isin(np.arange(VOXELS), ROIS["V1"]).astype(int),
    }
    arrays = {k: v for k, v in {**arrays, **replace}.items() if v is not None}
    save(folder / "sbj_1.npz", **arrays)
    images = {
        f"{split}_images": rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
        for split, n in (("train", 6), ("test", 2))
    }
    scale = 255.0 if pictures == "unit" else 1
    kind = np.float64 if pictures == "unit" else pictures
    save(folder / "images_256.npz", **{k: (v / scale).astype(kind) for k, v in images.items()})
    for word, names in (("training", TRAIN), ("testing", TEST)):
        rows = [f"'{int(n[1:9])}.{int(n.split('_')[1]):06d}','{n}.JPEG'\n" for n in names]
        (folder / f"imagenet_{word}_label.csv").write_text("".join(rows))
    index = {"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}
    (folder / "imagenet_class_index.json").write_text(json.dumps(index))
    return arrays | images
