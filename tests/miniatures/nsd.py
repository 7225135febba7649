"""NSD's raw release in miniature: its files, bases, axes and units.

Volumes are 6 x 7 x 5 voxels, everything else has its real size. Betas are planted: a voxel holds
100 x + 10 y + z plus, by turns, the low or the high byte of the image's 73KID (from 1), so that a
wrong image, voxel order, axis or unit shows in every single value.
"""

from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import scipy.io

SHAPE = (6, 7, 5)
AFFINE = np.diag([1.8, 1.8, 1.8, 1.0])
B3 = "betas_fithrf_GLMdenoise_RR"
FSAVERAGE = 163_842
X, Y, Z = np.indices(SHAPE)
BASE = 100 * X + 10 * Y + Z
LOW = (X + Y + Z) % 2 == 0
INSIDE = (X > 0) & (X < 5) & (Y > 1) & (Z > 0)  # nsdgeneral, 4 x 5 x 4
VERTEX = np.arange(FSAVERAGE, dtype=np.float32)


def make_design() -> dict[str, np.ndarray]:
    """Sessions 1 to 3 show 75 shared and 675 own images three times each, in any order."""
    rng = np.random.default_rng(0)
    early = np.r_[1:75, 1000, 1001:1676]  # 1000 is the last position that is shared
    late = np.setdiff1d(np.arange(1, 10_001), early)
    order = np.concatenate([rng.permutation(np.tile(part, 3)) for part in (early, late)])
    ids = rng.permutation(73_000) + 1
    shared, own = ids[:1000], ids[1000:].reshape(8, 9000)
    subjects = np.concatenate([np.tile(shared, (8, 1)), own], axis=1)
    # MATLAB's numbers are doubles, and everything has two dimensions
    found = {
        "masterordering": order[None],
        "subjectim": subjects,
        "sharedix": np.sort(shared)[None],
    }
    return {key: values.astype(np.float64) for key, values in found.items()}


DESIGN = make_design()


def ids_of(subject: int, session: int) -> np.ndarray:
    """Return 73KID (from 1) of each of a session's 750 trials, trial by trial as in MATLAB."""
    found = []
    for trial in range((session - 1) * 750 + 1, session * 750 + 1):
        position = DESIGN["masterordering"][0, trial - 1]
        found.append(int(DESIGN["subjectim"][subject - 1, int(position) - 1]))
    return np.array(found)


def planted(ids: np.ndarray) -> np.ndarray:
    """Return int16 (X, Y, Z, trials) betas."""
    code = np.where(LOW[..., None], ids % 256, ids // 256)
    return (BASE[..., None] + code).astype(np.int16)


def save_volume(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, AFFINE), path)
    return path


def save_surface(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.MGHImage(np.asarray(values, np.float32), np.eye(4)), path)
    return path


def save_betas(folder: Path, session: int, values: np.ndarray, ending: str = "hdf5") -> Path:
    """Write a session's betas int16 (X, Y, Z, 750) as NSD does."""
    path = folder / f"betas_session{session:02d}.{ending}"
    folder.mkdir(parents=True, exist_ok=True)
    if ending != "hdf5":
        return save_volume(path, values)
    with h5py.File(path, "w") as file:  # MATLAB's (X, Y, Z, 750), chunks [1 1 1 750]
        file.create_dataset("betas", data=values.T, chunks=(values.shape[-1], 1, 1, 1))
    return path


def betas_folder(root: Path, subject: int = 1, space: str = "func1pt8mm", prep: str = B3) -> Path:
    return root / "nsddata_betas" / "ppdata" / f"subj{subject:02d}" / space / prep


def roi_folder(root: Path, subject: int = 1, space: str = "func1pt8mm") -> Path:
    return root / "nsddata" / "ppdata" / f"subj{subject:02d}" / space / "roi"


def nsdgeneral() -> np.ndarray:
    """1 inside, 0 and -1 outside: that -1 is what `!= 0` takes for a label."""
    return np.where(INSIDE, 1, np.where(X == 0, -1, 0)).astype(np.float32)


def save_design(root: Path, **changed: np.ndarray) -> Path:
    path = root / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {**DESIGN, **changed})
    return path


def save_responses(root: Path, subject: int, sessions: tuple[int, ...], **changed) -> Path:
    n = 750 * len(sessions)
    columns = {
        "SUBJECT": np.full(n, subject),
        "SESSION": np.repeat(sessions, 750),
        "RUN": np.tile(np.repeat(np.arange(12) + 1, [63, 62] * 6), len(sessions)),
        "TRIAL": np.tile(np.concatenate([np.arange(k) + 1 for k in [63, 62] * 6]), len(sessions)),
        "73KID": np.concatenate([ids_of(subject, s) for s in sessions]),
        "ISCORRECT": np.where(np.arange(n) % 9 == 0, np.nan, 1),
    }
    path = root / f"nsddata/ppdata/subj{subject:02d}/behav/responses.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({**columns, **changed}).to_csv(path, sep="\t", index=False, na_rep="NaN")
    return path


def make(
    root: Path, sessions: tuple[int, ...] = (1,), ending: str = "hdf5", subject: int = 1
) -> Path:
    """Write one subject's volumes; the design is the same for everybody."""
    save_design(root)
    save_volume(roi_folder(root, subject) / "nsdgeneral.nii.gz", nsdgeneral())
    for session in sessions:
        values = planted(ids_of(subject, session))
        save_betas(betas_folder(root, subject), session, values, ending)
    return root


def decode(betas: np.ndarray) -> np.ndarray:
    """Return the 73KID that is planted in betas (n, V) of percent signal change."""
    code = np.round(betas * 300) - BASE[INSIDE]
    low, high = code[:, LOW[INSIDE]], code[:, ~LOW[INSIDE]]
    assert (low == low[:, :1]).all() and (high == high[:, :1]).all(), "voxels disagree"
    return (256 * high[:, 0] + low[:, 0]).astype(int)


def save_images(root: Path, rows: dict[int, np.ndarray], shape=(73_000, 425, 425, 3)) -> Path:
    """Write ``imgBrick`` at full size; what is not written takes no room."""
    path = root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        bricks = file.create_dataset("imgBrick", shape, np.uint8, chunks=(1, *shape[1:]))
        for row, image in rows.items():
            bricks[row] = image
    return path


def volume(*places: tuple[tuple[int, int, int], int]) -> np.ndarray:
    """Return an ROI volume: -1 outside, 0 in a slice of cortex without label, and values."""
    values = np.full(SHAPE, -1, np.float32)
    values[2] = 0
    for place, value in places:
        values[place] = value
    return values


def save_native(root: Path, layers: tuple[str, ...] = ("layerB2",)) -> dict[str, np.ndarray]:
    """Write transforms of a surface of 50 native vertices; return native of each fsaverage vertex.

    Fsaverage vertex j lies at native vertex j % 50. Native vertex n of the left hemisphere lies,
    counted from 1, at voxel (2, 3, 2) + (n / 50, 0, 0), the right one at (5, 6, 4), but vertices
    48 and 49 lie nowhere.
    """
    folder = root / "nsddata/ppdata/subj01/transforms"
    native = np.arange(FSAVERAGE) % 50
    for h, place in (("lh", (2, 3, 2)), ("rh", (5, 6, 4))):
        save_surface(folder / f"{h}.white-to-fsaverage.mgz", native[:, None, None] + 1)
        at = np.tile(np.array(place, float), (50, 1))
        if h == "lh":
            at[:, 0] += np.arange(50) / 50
        at[48:] = 9999
        for i, layer in enumerate(layers):  # deeper layers lie 0.5 voxels further in y
            shifted = np.where(at == 9999, at, at + [0, 0.5 * i, 0])
            path = folder / f"{h}.func1pt8-to-{layer}.mgz"
            save_surface(path, shifted[:, None, None, :])
    return {"lh": native, "rh": native}


def save_spheres(root: Path) -> np.ndarray:
    """Write fsaverage's spheres; return for each vertex the nearest of the first 10,242."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((10_242, 3))
    points *= 100 / np.linalg.norm(points, axis=1, keepdims=True)
    nearest = np.r_[np.arange(10_242), rng.integers(0, 10_242, FSAVERAGE - 10_242)]
    folder = root / "nsddata/freesurfer/fsaverage/surf"
    folder.mkdir(parents=True, exist_ok=True)
    for h in ("lh", "rh"):
        nib.freesurfer.write_geometry(
            folder / f"{h}.sphere", points[nearest], np.array([[0, 1, 2]])
        )
    return nearest


def save_hemisphere(
    folder: Path, h: str, session: int, trials: dict[int, np.ndarray], count: int = 750
) -> Path:
    """Write ``.mgh`` betas at full size, of which only some trials take room on disk."""
    path = folder / f"{h}.betas_session{session:02d}.mgh"
    folder.mkdir(parents=True, exist_ok=True)
    header = nib.MGHImage(np.zeros((1, 1, 1, 1), np.float32), np.eye(4)).header
    header["dims"] = (FSAVERAGE, 1, 1, count)
    with open(path, "wb") as file:
        file.write(header.binaryblock[:284].ljust(284, b"\0"))
        file.truncate(284 + 4 * FSAVERAGE * count)
        for trial, values in trials.items():
            file.seek(284 + 4 * FSAVERAGE * trial)
            file.write(values.astype(">f4").tobytes())
    return path
