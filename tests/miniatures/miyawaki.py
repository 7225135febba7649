"""Miyawaki et al. 2008 in miniature, in its three forms."""

from pathlib import Path

import h5py
import nibabel
import numpy as np
import scipy.io


def write_means(file: Path, **replace) -> None:
    """Write a small file of the same kind: 4 figures x 4 repeats, 5 voxels."""
    rng = np.random.default_rng(0)
    figures = rng.integers(0, 2, (100, 4)).astype(np.uint8)
    values = {"R2": rng.standard_normal((5, 16)), "I2": figures[:, np.tile(np.arange(4), 4)]}
    values = {k: v for k, v in {**values, **replace}.items() if v is not None}
    scipy.io.savemat(file, values)


def write_series(file: Path, **replace) -> None:  # noqa: ANN003
    """Write a small MATLAB 7.3 file: 2 runs of 14 volumes, cells as references, counted from 1."""
    names = ["test rest", "plus8x8", "cross8x8"]
    volumes = [[1, 2, 6, 7, 11, 12, 13, 14], [3, 4, 5], [8, 9, 10]]
    values = {
        "data": np.random.default_rng(0).standard_normal((6, 28)),
        "labels_names": names,
        "inds_conds": [[*at, *(14 + np.array(at))] for at in volumes],
        "inds_runs": np.array([[1.0, 14.0], [15.0, 28.0]]),
        "xyz": np.arange(18.0).reshape(6, 3),
        "rois_names": ["VOX_LH_V1d", "V1"],
        "rois_inds": [[1, 2], [1, 6]],
    }
    values = {k: v for k, v in {**values, **replace}.items() if v is not None}
    with h5py.File(file, "w") as h5:
        for key, value in values.items():
            if isinstance(value, np.ndarray):
                h5[f"D/{key}"] = value
                continue
            references = []
            for i, cell in enumerate(value):
                numbers = [ord(c) for c in cell] if isinstance(cell, str) else cell
                h5[f"#refs#/{key}{i}"] = np.array(
                    numbers, "u2" if isinstance(cell, str) else "f8"
                )[:, None]
                references.append(h5[f"#refs#/{key}{i}"].ref)
            h5[f"D/{key}"] = np.array(references, dtype=h5py.ref_dtype)[:, None]


PLUS = "0000000000|0000110000|0000110000|0000110000|0111111110"
GRID = (5, 4, 3)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


def pictures() -> dict[str, np.ndarray]:
    """Return pictures as a person sees them, bool (10, 10): three random ones and two figures."""
    rng = np.random.default_rng(3)
    top = np.array([[c == "1" for c in row] for row in PLUS.split("|")])
    letter = np.zeros((10, 10), bool)
    letter[2:8, 3] = letter[2, 3:7] = True  # an r: it tells rows from columns
    random = {f"random {i}": rng.random((10, 10)) > 0.5 for i in range(4)}
    return {**random, "plus": np.vstack([top, top[::-1]]), "r": letter}


def write_run(folder: Path, kind: str, number: int, order: list[str], **replace) -> np.ndarray:  # noqa: ANN003
    """Write a run as nilearn's archive has it: 3 volumes a block, 3 of rest; (t, X, Y, Z)."""
    rng = np.random.default_rng(number)
    shown = [None, None, *(p for name in order for p in [name] * 3 + [None] * 3)]
    # patches in column order, as MATLAB writes a picture out
    lines = [
        np.full(100, -1) if name is None else pictures()[name].T.ravel().astype(int)
        for name in shown
    ]
    (folder / "label").mkdir(parents=True, exist_ok=True)
    (folder / "func").mkdir(exist_ok=True)
    stem = f"data_{kind}_run{number:02d}"
    table = replace.get("label", np.stack(lines))
    np.savetxt(folder / "label" / f"{stem}_label.csv", table, fmt="%d", delimiter=",")
    volumes = (1000 + 30 * rng.standard_normal((len(shown), *GRID))).astype(np.int16)
    volumes[:, 0, 0, 0] = 500  # inside the mask, and still
    image = nibabel.Nifti1Image(np.moveaxis(volumes, 0, -1), AFFINE)
    nibabel.save(image, folder / "func" / f"{stem}.nii.gz")
    return volumes


def write_folder(folder: Path) -> dict[tuple[str, int], np.ndarray]:
    """Write two random runs, two figure runs, the mask and three areas."""
    runs = {
        ("random", 1): write_run(folder, "random", 1, ["random 0", "random 1"]),
        ("random", 2): write_run(folder, "random", 2, ["random 2", "random 3"]),
        ("figure", 1): write_run(folder, "figure", 1, ["r", "plus"]),
        ("figure", 2): write_run(folder, "figure", 2, ["plus", "r"]),
    }
    mask = np.zeros(GRID, np.int16)
    mask[:3] = 1
    (folder / "mask").mkdir()
    for name, inside in {
        "mask": mask,
        "LHV1d": mask * (np.arange(5) == 1)[:, None, None],
        "RHV3A": mask * (np.arange(5) == 2)[:, None, None],
        "LHlag0to1": mask,
        "RHV4v": np.roll(mask, 3, axis=0) * (np.arange(5) > 2)[:, None, None],  # outside the mask
    }.items():
        image = nibabel.Nifti1Image(inside.astype(np.int16), AFFINE)
        nibabel.save(image, folder / "mask" / f"{name}.nii.gz")
    return runs
