"""How the fuzz writes and reads small data sets: what is valid, and what is read of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pandas as pd
from PIL import Image
from scipy.io import savemat

from backends import DATASETS
from backends.commands import doctor
from backends.datasets import bold5000_files
from backends.datasets.bold5000 import BOLD5000
from backends.datasets.laion_fmri import LaionFMRI
from backends.datasets.mindeye1 import MindEye1
from backends.datasets.mindeye2 import MindEye2
from backends.datasets.nsd import NSD
from backends.datasets.simulated import Simulated
from backends.datasets.things import ThingsFMRI
from backends.embedders.sidecar import LaionCLIP
from backends.simulation.shipping import write
from backends.simulation.study import Recipe, Study
from explorer.naming import recognise
from explorer.types import EmbeddingSpace
from tests.miniatures import bold5000, god, nsd, nsd_parts

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints"
SHOWN = "COCO_train2014_000000001000"  # one of the pictures of BOLD5000 in miniature


def read_all(study: Any, *pictures: str) -> list[Any]:
    """Return all that a study says of itself, its betas, and pictures (else the ends of them)."""
    found: list[Any] = [study.stimuli.to_csv(), *study.subjects()]
    for subject in study.subjects():
        trials = study.load(subject)
        found += [trials.table.to_csv(), trials.subject.voxels.hash, trials.subject.ncsnr]
        for atlas in trials.subject.voxels.parcellations.values():
            found += [atlas.membership, *(label.key for label in atlas.labels)]
        found.append(np.asarray(trials.betas[:]))
    ends = [*study.stimuli.index[:3], *study.stimuli.index[-3:]]
    found += [study.image(stimulus) for stimulus in pictures or ends]
    return [*found, *getattr(study, "remarks", list)()]


def read_laion(root: Path) -> list[Any]:
    study = LaionFMRI(root, "s", cache=str(root.with_name("kept")))
    (space,) = LaionCLIP.spaces
    embedded = study.known_embeddings(list(study.stimuli.index[:3]), space, "published")
    return [read_all(study), embedded]


def read_things(root: Path) -> list[Any]:
    kept, sources = root / "kept", ("table", "volumes")
    return [read_all(ThingsFMRI(root, "s", source=of, cache=kept)) for of in sources]


def known(path: Path) -> str:
    """Return which family knows a path; asking never raises."""
    return recognise(path, DATASETS)


def examined(path: Path) -> list[str]:
    """Return what the doctor says; it never raises."""
    return doctor.examine(str(path), DATASETS)[0]


def write_folder(root: Path) -> None:
    """Write the plain folder with every optional column."""
    rng = np.random.default_rng(0)
    (root / "stimuli").mkdir(parents=True)
    names = [f"{i:03d}.png" for i in range(6)]
    for name in names:
        pixels = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "stimuli" / name)
    (root / "dataset.json").write_text(
        json.dumps({"title": "T", "subjects": {"a": "sub-01", "b": "sub-02"}, "atlas": "areas"})
    )
    about = {"file": names, "caption": [f"a {i}" for i in range(6)], "category": "x"}
    pd.DataFrame(about).to_csv(root / "stimuli" / "stimuli.tsv", sep="\t", index=False)
    split = ["train"] * 4 + ["test"] * 2
    trials = {
        "stimulus": [name[:3] for name in names] * 2,
        "split": split * 2,
        "repeat": [0] * 6 + [1] * 6,
        "session": 1,
        "run": np.repeat([1, 2], 6),
        "synthetic": False,
    }
    voxels = {
        "vertex": [3, 4, -1, 10_300, 10_301],
        "parcel": ["V1 L", "V1 L", "", "V1 R", "hV4"],
        "roi_FFA": [0, 1, 1, 0, 1],
        "ncsnr": [0.1, 0.2, 0.3, 0.4, 0.5],
    }
    for subject, kind in (("sub-01", np.float32), ("sub-02", np.int16)):
        folder = root / subject
        folder.mkdir()
        np.save(folder / "betas.npy", (30 * rng.standard_normal((12, 5))).astype(kind))
        pd.DataFrame(trials).to_csv(folder / "trials.tsv", sep="\t", index=False)
        more = {"scale": 0.01} if kind is np.int16 else {}
        pd.DataFrame(voxels | more).to_csv(folder / "voxels.tsv", sep="\t", index=False)


def write_simulated(root: Path) -> None:
    tiny = Recipe(n_train=4, n_test=4, subjects=("subj01",), scale=0.1, n_reference=8)
    write(Study(tiny, root.parent / "cache"), root, None)
    shutil.copytree(SHIPPED / "pocket-judge", root / "unused")  # not read, and so never told


def read_simulated(root: Path) -> list[Any]:
    study = Simulated(root, cache=root.parent / "cache")
    (who,) = study.subjects()
    trials, truth = study.load(who), study.truth(who)
    shipped = len(trials.rows("test"))
    space = EmbeddingSpace("pocket-clip", "image", (128,))
    return [
        *(trials.table.to_csv(), trials.betas[:shipped], trials.subject.ncsnr, truth.information),
        *(truth.noiseless, *truth.roles, study.image("test-0001"), study.scene("test-0001")),
        study.known_embeddings(["test-0001"], space, "x"),
    ]


def write_god(root: Path) -> None:
    god.write_god(root / "Subject1.h5")
    god.write_lists(root, ("image_training_id.csv", "image_test_id.csv"))
    for folder, names in (("training", god.TRAIN), ("test", god.TEST)):
        (root / "images" / folder).mkdir(parents=True)
        for i, name in enumerate(names):
            Image.new("RGB", (6, 5), (i, 9, 9)).save(root / "images" / folder / f"{name}.JPEG")


def write_god_mindvis(root: Path) -> None:
    god.write_mindvis(root, save=np.savez_compressed)
    arrays = dict(np.load(root / "sbj_1.npz"))
    np.savez(root / "sbj_2.npz", **arrays)


def write_bold_arrays(root: Path) -> None:
    bold5000.write_mindvis(root)
    for file in sorted(root.rglob("*RSC.npy")):
        mat = file.with_suffix(".mat")
        if "RH" in mat.name:
            savemat(mat, {"betas": np.load(file)})
        else:  # version 7.3
            with h5py.File(mat, "w") as opened:
                opened["betas"] = np.load(file).T
        file.unlink()


def write_bold_volumes(root: Path) -> None:
    bold5000.write_lists(root)
    bold5000.write_volumes(root, (1,))
    bold5000.write_volumes(root, (2,), "nii")
    ones = np.ones(bold5000.SHAPE, np.uint8)
    nibabel.save(nibabel.Nifti1Image(ones, bold5000.AFFINE), root / "CSI4_brainmask.nii.gz")
    masks = root / "derivatives" / "spm" / "sub-CSI4"
    masks.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(ones, bold5000.AFFINE), masks / "sub-CSI4_mask-LHLOC.nii.gz")


def read_bold_volumes(root: Path) -> list[Any]:
    person = bold5000_files.PEOPLE["CSI4"]
    bold5000_files.PEOPLE["CSI4"] = person._replace(shape=bold5000.SHAPE)  # this process ends here
    study = BOLD5000(root, "b")
    return [*study.stimuli.index, np.asarray(study.load("CSI4").betas[:]), *study.remarks()]


def write_nsd(root: Path) -> None:
    nsd.make(root, (1,))
    nsd.make(root, (1,), "nii.gz", subject=4)
    nsd.save_responses(root, 1, (1,))


def read_nsd(root: Path) -> list[Any]:
    study = NSD(root, "nsd")
    found: list[Any] = [*study.subjects()]
    for subject in study.subjects():
        trials = study.load(subject)
        found += [trials.table.to_csv(), trials.betas[[0, 5, 700]], trials.subject.voxels.hash]
    return [*found, *study.remarks()]


def write_nsd_parts(root: Path) -> None:
    nsd_parts.write_synthetic(nsd.make(root, ()), "hdf5")
    nsd_parts.write_imagery(root)


def read_nsd_parts(root: Path) -> list[Any]:
    found: list[Any] = []
    for part, options in (("synthetic", {}), ("imagery", {"task": "vision"})):
        study = NSD(root, part, part=part, **options)
        trials = study.load("subj01")
        found += [trials.table.to_csv(), trials.betas[[0, 5, 90]], study.stimuli.to_csv()]
        shown = "synthetic-000" if part == "synthetic" else "imagery-A-E"
        found += [study.image(shown), repr(study.ids(shown)), *study.remarks()]
    return found


def read_mindeye1(root: Path) -> list[Any]:
    study = MindEye1(root, "m", voxels="any")
    found: list[Any] = []
    for subject in study.subjects():
        trials = study.load(subject)
        found += [trials.table.to_csv(), np.asarray(trials.betas[:])]
        found += [study.image(stimulus) for stimulus in trials.stimuli("test")[:2]]
    return [*found, *study.remarks()]


def read_mindeye2(root: Path) -> list[Any]:
    study = MindEye2(root, "m", voxels="any")
    found: list[Any] = []
    for subject in study.subjects():
        trials = study.load(subject)
        found += [trials.table.to_csv(), np.asarray(trials.betas[:])]
    return [*found, study.image("nsd-00000"), *study.remarks()]


# ---------------------------------------------------------------------------- results, checkpoints
