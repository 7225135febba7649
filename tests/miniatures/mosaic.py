"""A person of MOSAIC in miniature, written as the authors' ``create_hdf5_pkl.py`` does."""

from pathlib import Path

import h5py
import numpy as np
from PIL import Image

GRAYORDINATES = 91_282
LOST = (7, 3, 59_412)  # not finite in some trial: two of the cortex, the first below it
TEST, TRAIN = ("000000000009", "000000000025"), ("000000000030", "000000000034", "000000000036")
ARTIFICIAL = ("shared0001_grid",)
REPEATS = {"test": (0, 1), "train": (0, 2), "artificial": (0,)}  # fillers are left out


def betas_of(stem: str, repeat: int, who: str = "sub-01_NSD") -> np.ndarray:
    """Return a trial float32 (91282,), NaN where the authors' are."""
    seed = [*stem.encode(), repeat, *who.encode()]
    values = np.random.default_rng(seed).standard_normal(GRAYORDINATES, dtype=np.float32)
    values[list(LOST[: 2 + repeat % 2])] = np.nan
    return values


def trials() -> list[tuple[str, str, int]]:
    """Return stem, phase as the script names it, and repetition, in the order of writing."""
    stems = {"test": TEST, "train": TRAIN, "artificial": ARTIFICIAL}
    return [
        (stem, "train" if kind == "train" else "test", repeat)
        for kind in stems
        for stem in stems[kind]
        for repeat in REPEATS[kind]
    ]


def name_of(who: str, stem: str, phase: str, repeat: int) -> str:
    """Return what a trial's data set is called."""
    return f"{who}_stimulus-{stem}_phase-{phase}_rep-{repeat}"


def write_mosaic(
    root: Path, who: str = "sub-01_NSD", file: str = "", ceilings: bool = True
) -> Path:
    """Write one person's file, ``sub-01_NSD.hdf5``."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / (file or f"{who}.hdf5")
    with h5py.File(path, "w") as out:
        out.attrs.create("subjectID", who.partition("_")[0])
        out.attrs.create("dataset_name", "NaturalScenesDataset")
        out.attrs.create("beta_pipeline", "GLMsinglev1.2")
        if ceilings:
            group = out.create_group("noiseceilings", track_order=True)
            for n in ("1", "avg"):
                values = np.linspace(0, 60, GRAYORDINATES, dtype=np.float32)
                name = f"{who}_phase-test_n-{n}_noiseceiling"
                made = group.create_dataset(name, data=values, track_order=True)
                made.attrs.create("n", n)
                made.attrs.create("phase", "test")
        group = out.create_group("betas", track_order=True)
        for stem, phase, repeat in trials():
            values = betas_of(stem, repeat, who)
            name = name_of(who, stem, phase, repeat)
            made = group.create_dataset(name, data=values, track_order=True)
            made.attrs.create("nan_indices", np.flatnonzero(np.isnan(values)))
            made.attrs.create("phase", phase)
            made.attrs.create("repetition", repeat)
            made.attrs.create("presented_stimulus_filename", f"{stem}.jpg")
        out.create_dataset("nan_indices_all", data=np.array(LOST))
    return path


def merge(files: list[Path], path: Path, rows: bool = False) -> Path:
    """Write a merged file, a group a person; ``rows``: with betas as one array."""
    with h5py.File(path, "w") as out:
        for file in files:
            with h5py.File(file) as single:
                person = out.create_group(file.stem)
                single.copy("noiseceilings", person)
                if not rows:
                    betas = person.create_group("betas")  # which loses the order of writing
                    for name in single["betas"]:
                        single.copy(f"betas/{name}", betas)
                    single.copy("nan_indices_all", person)
                    continue
                names = list(single["betas"])
                table = np.stack([single["betas"][name][()] for name in names])
                person.create_dataset("betas", data=table, chunks=(4, GRAYORDINATES))
                lost = person.create_group("nan_indices", track_order=True)
                for name in names:
                    lost[name] = single["betas"][name].attrs["nan_indices"]
        out["nan_indices_all"] = np.array(LOST)
    return path


def write_pictures(folder: Path) -> None:
    """Write a picture for every stimulus."""
    folder.mkdir(parents=True)
    for i, stem in enumerate((*TEST, *TRAIN, *ARTIFICIAL)):
        picture = np.random.default_rng(i).integers(0, 256, (5, 4, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{stem}.png")


def write_person(root: Path) -> Path:
    """Write one person of NSD and the pictures."""
    write_mosaic(root)
    write_pictures(root / "pictures")
    return root


def write_people(root: Path) -> Path:
    """Write two people of NSD and their pictures."""
    write_mosaic(root, "sub-02_NSD")
    return write_person(root)
