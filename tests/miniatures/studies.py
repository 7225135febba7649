"""One small study of every family, made by what writes its format: name -> how to make it."""

import io
import tarfile
from pathlib import Path

import h5py
import nibabel
import nibabel as nib
import numpy as np
import pandas as pd
import scipy.io
from PIL import Image

from backends import DATASETS
from explorer.protocols import Dataset
from explorer.types import FSAVERAGE5_VERTICES, resolve
from tests.miniatures import nsd
from tests.miniatures.algonauts import write_algonauts
from tests.miniatures.cneuromod import write_cneuromod
from tests.miniatures.deeprecon import SHOWN, TRAIN, write_deeprecon
from tests.miniatures.laion import write_laion
from tests.miniatures.mosaic import write_people
from tests.miniatures.nsd_parts import write_imagery, write_synthetic
from tests.miniatures.things import write_things


def make_simulated(place: Path, **part: str) -> Dataset:
    from backends.simulation.shipping import write
    from backends.simulation.study import Recipe, Study

    tiny = Recipe(n_train=12, n_test=6, subjects=("subj01", "subj02"), scale=0.3, n_reference=12)
    write(Study(tiny, place / "cache"), place / "files")
    return resolve(DATASETS["simulated"])(place / "files", "study", cache=place / "cache", **part)


def make_generalisation(place: Path) -> Dataset:
    return make_simulated(place, part="generalisation")


def make_imagined(place: Path) -> Dataset:
    return make_simulated(place, part="imagery")


def make_folder(place: Path) -> Dataset:
    rng = np.random.default_rng(0)
    root = place / "files"
    for folder in (root / "stimuli", root / "sub-01"):
        folder.mkdir(parents=True)
    (root / "dataset.json").write_text('{"title": "A study"}')
    for i in range(6):
        picture = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
        Image.fromarray(picture).save(root / "stimuli" / f"{i}.png")
    tables = {
        "stimuli/stimuli.tsv": {"file": [f"{i}.png" for i in range(6)]},
        "sub-01/trials.tsv": {
            "stimulus": list("012345" * 2),
            "split": (["train"] * 4 + ["test"] * 2) * 2,
        },
        "sub-01/voxels.tsv": {"vertex": rng.choice(FSAVERAGE5_VERTICES, 11, replace=False)},
    }
    for name, columns in tables.items():
        pd.DataFrame(columns).to_csv(root / name, sep="\t", index=False)
    np.save(root / "sub-01" / "betas.npy", rng.standard_normal((12, 11)).astype(np.float32))
    return resolve(DATASETS["folder"])(root, "study")


def make_miyawaki(place: Path) -> Dataset:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 2, (100, 5)).astype(np.uint8)[:, np.tile(np.arange(5), 4)]
    (place / "files").mkdir()
    values = {"R2": rng.standard_normal((9, 20)), "I2": pictures}
    scipy.io.savemat(place / "files" / "V1_mean_figure.mat", values)
    return resolve(DATASETS["miyawaki2008"])(place / "files", "study")


def make_bold5000(place: Path) -> Dataset:
    """CSI4: a list of 3,108 trials, of which 113 images take two each; two regions."""
    rng = np.random.default_rng(0)
    root = place / "files"
    scenes = root / "BOLD5000_Stimuli" / "Scene_Stimuli"
    shown = scenes / "Presented_Stimuli" / "Scene"
    shown.mkdir(parents=True)
    repeated = [f"harbour{i}.jpg" for i in range(113)]
    names = [*repeated, *(f"street{i}.jpg" for i in range(3108 - 226)), *repeated]
    for name in (*repeated[:3], names[113]):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(shown / name)
    (scenes / "repeated_stimuli_113_list.txt").write_text("\n".join(repeated))
    (root / "CSI4_imgnames.txt").write_text("\n".join(names))
    stem = "CSI4_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_"
    for roi in ("LHEarlyVis", "RHPPA"):
        np.save(root / f"{stem}{roi}.npy", rng.standard_normal((3108, 4)))
    return resolve(DATASETS["bold5000"])(root, "study")


def make_nsd(place: Path) -> Dataset:
    """Two people, session 1 of func1pt8mm; the design is real in size, other images are holes."""
    rng = np.random.default_rng(0)
    root, shape = place / "files", (3, 4, 2)
    design = root / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat"
    design.parent.mkdir(parents=True)
    order = np.tile(rng.permutation(np.r_[1:26, 1001:1226]), 120)  # 250 images, three times over
    ids = rng.permutation(73_000) + 1
    own = np.concatenate([np.tile(ids[:1000], (8, 1)), ids[1000:].reshape(8, 9000)], axis=1)
    keys = {"masterordering": order[None], "subjectim": own, "sharedix": np.sort(ids[:1000])[None]}
    scipy.io.savemat(design, {key: values.astype(float) for key, values in keys.items()})
    for who in ("subj01", "subj02"):
        roi = root / "nsddata" / "ppdata" / who / "func1pt8mm" / "roi" / "nsdgeneral.nii.gz"
        roi.parent.mkdir(parents=True)
        mask = np.where(np.arange(24).reshape(shape) % 3, 1, -1).astype(np.float32)
        nib.save(nib.Nifti1Image(mask, np.eye(4)), roi)
        folder = "func1pt8mm/betas_fithrf_GLMdenoise_RR"
        betas = root / "nsddata_betas" / "ppdata" / who / folder / "betas_session01.hdf5"
        betas.parent.mkdir(parents=True)
        with h5py.File(betas, "w") as h5:  # h5py sees MATLAB's axes reversed
            values = rng.integers(-900, 900, (750, *shape[::-1]), dtype=np.int16)
            h5.create_dataset("betas", data=values, chunks=(750, 1, 1, 1))
    images = root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"
    images.parent.mkdir(parents=True)
    with h5py.File(images, "w") as h5:
        size = (73_000, 425, 425, 3)
        given = {"chunks": (1, *size[1:]), "compression": "gzip", "compression_opts": 1}
        bricks = h5.create_dataset("imgBrick", size, np.uint8, **given)
        for image in np.unique(own[:2, order[:750] - 1]):
            patches = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            bricks[image - 1] = patches.repeat(85, axis=0).repeat(85, axis=1)
    return resolve(DATASETS["nsd"])(root, "study")


def make_god(place: Path) -> Dataset:
    rng = np.random.default_rng(0)
    (place / "files" / "images" / "test").mkdir(parents=True)
    (place / "files" / "images" / "training").mkdir()
    train, test = (
        [f"n0151887{i}_1010{i}" for i in range(6)],
        ["n01443537_22563", "n01621127_19020"],
    )
    for folder, names in (("training", train), ("test", test)):
        for name in names:
            picture = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
            picture.save(place / "files" / "images" / folder / f"{name}.JPEG")
    ids = [int(n[1:9]) + int(n.split("_")[1]) / 1e6 for n in [*train, *test * 3]]
    for number in (1, 2):
        labels = np.column_stack([[1] * 6 + [2] * 6, np.ones(12), ids])
        kinds = np.eye(3, 10)
        voxels = (np.arange(10) >= 3).astype(float)
        marks = {"DataType": kinds[0], "Run": kinds[1], "stimulus_id": kinds[2]}
        marks |= {key: np.where(voxels, 1, np.nan) for key in ("VoxelData", "ROI_VC")}
        with h5py.File(place / "files" / f"Subject{number}.h5", "w") as h5:
            h5["dataset"] = np.hstack([labels, rng.standard_normal((12, 7))])
            h5["metadata/key"] = np.array(list(marks), dtype="S")
            h5["metadata/value"] = np.stack(list(marks.values()))
    return resolve(DATASETS["god"])(place / "files", "study")


def make_mindvis(place: Path) -> Dataset:
    rng = np.random.default_rng(0)
    (place / "files").mkdir()
    for number in (1, 2):
        rows = {"arr_0": 6, "arr_1": 4, "arr_2": 2}
        arrays = {key: rng.standard_normal((n, 7)) for key, n in rows.items()}
        arrays |= {"arr_3": rng.permutation(6), "VC": np.ones(7, bool)}
        np.savez(place / "files" / f"sbj_{number}.npz", **arrays)
    pictures = {
        f"{split}_images": rng.integers(0, 256, (n, 5, 5, 3), dtype=np.uint8)
        for split, n in (("train", 6), ("test", 2))
    }
    np.savez(place / "files" / "images_256.npz", **pictures)
    return resolve(DATASETS["god-mindvis"])(place / "files", "study")


def make_mindeye1(place: Path) -> Dataset:
    rng = np.random.default_rng(0)

    def npy(values) -> bytes:
        stream = io.BytesIO()
        np.save(stream, values)
        return stream.getvalue()

    for part, numbers in (("train", range(4)), ("val", [4]), ("test", [5, 6])):
        file = place / "files" / "webdataset_avg_split" / part / f"{part}_subj01_0.tar"
        file.parent.mkdir(parents=True)
        with tarfile.open(file, "w") as tar:
            for number in numbers:
                rows, picture = rng.standard_normal((3, 9)), io.BytesIO()
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(picture, "JPEG")
                rows[2] = rows[number % 2]  # two repeats and a copy
                members = {
                    "jpg": picture.getvalue(),
                    "nsdgeneral.npy": npy(rows.astype(np.float16)),
                    "coco73k.npy": npy(np.array([number])),
                    "num_uniques.npy": npy(np.array([2])),
                }
                for kind, content in members.items():
                    member = tarfile.TarInfo(f"sample{number:09d}.{kind}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return resolve(DATASETS["mindeye1"])(place / "files", "study", voxels="any")


def make_mindeye2(place: Path) -> Dataset:
    rng, root = np.random.default_rng(0), place / "files"
    root.mkdir()
    shared = np.zeros(73000, bool)
    shared[:1000] = True
    np.save(root / "shared1000.npy", shared)
    for subject, own in (("subj01", 2000), ("subj02", 3000)):
        shown = np.array([0, own, 1, own + 1, 0, own + 1, 1, own + 2])
        with h5py.File(root / f"betas_all_{subject}_fp32_renorm.hdf5", "w") as file:
            file["betas"] = rng.standard_normal((len(shown), 9)).astype(np.float32)
        with h5py.File(root / "COCO_73k_subj_indices.hdf5", "a") as file:
            file[subject] = shown
    with h5py.File(root / "coco_images_224_float16.hdf5", "w") as file:
        file["images"] = rng.random((3003, 3, 4, 4)).astype(np.float16)
    return resolve(DATASETS["mindeye2"])(root, "study", voxels="any")


def make_miyawaki_runs(place: Path) -> Dataset:
    rng = np.random.default_rng(0)
    files = place / "files"
    for folder in ("func", "label", "mask"):
        (files / folder).mkdir(parents=True)
    grid, figures = (3, 4, 2), rng.integers(0, 2, (2, 100))
    for kind in ("random", "figure"):
        for run in (1, 2):
            shown = figures if kind == "figure" else rng.integers(0, 2, (2, 100))
            label = np.concatenate(
                [np.full((2, 100), -1)]
                + [np.repeat([picture, np.full(100, -1)], 3, axis=0) for picture in shown]
            )
            stem = f"data_{kind}_run{run:02d}"
            np.savetxt(files / "label" / f"{stem}_label.csv", label, fmt="%d", delimiter=",")
            volumes = rng.standard_normal((*grid, len(label))).astype(np.float32)
            image = nibabel.Nifti1Image(volumes, np.eye(4))
            nibabel.save(image, files / "func" / f"{stem}.nii.gz")
    mask = nibabel.Nifti1Image(np.ones(grid, np.uint8), np.eye(4))
    nibabel.save(mask, files / "mask" / "mask.nii.gz")
    return resolve(DATASETS["miyawaki2008-nilearn"])(files, "study")


def make_miyawaki_series(place: Path) -> Dataset:
    rng = np.random.default_rng(0)
    (place / "files").mkdir()
    names, volumes = ["test rest", "plus8x8", "cross8x8"], [[1, 5, 9], [2, 3, 4], [6, 7, 8]]
    conditions = [np.concatenate([np.array(at) + 9.0 * run for run in range(3)]) for at in volumes]
    cells = {
        "labels_names": [np.frombuffer(name.encode(), np.uint8).astype("u2") for name in names],
        "inds_conds": conditions,
        "rois_names": [np.frombuffer(b"LH_V1d", np.uint8).astype("u2")],
        "rois_inds": [np.array([1.0, 3.0])],
    }
    with h5py.File(place / "files" / "S2_figureImage.mat", "w") as h5:
        h5["D/data"], h5["D/xyz"] = rng.standard_normal((7, 27)), rng.standard_normal((7, 3))
        h5["D/inds_runs"] = np.array([[1.0, 9.0], [10.0, 18.0], [19.0, 27.0]])
        for key, values in cells.items():
            for i, value in enumerate(values):
                h5[f"#refs#/{key}{i}"] = value[:, None]
            references = [h5[f"#refs#/{key}{i}"].ref for i in range(len(values))]
            h5[f"D/{key}"] = np.array(references, dtype=h5py.ref_dtype)
    return resolve(DATASETS["miyawaki2008-s2"])(place / "files", "study")


def make_algonauts(place: Path) -> Dataset:
    write_algonauts(place / "files")
    return resolve(DATASETS["algonauts2023"])(place / "files", "study")


def make_deeprecon(place: Path) -> Dataset:
    write_deeprecon(place / "files")
    (place / "files" / "images").mkdir()
    for i, name in enumerate((*TRAIN, *SHOWN["natural"])):
        picture = np.random.default_rng(i).integers(0, 256, (5, 4, 3), dtype=np.uint8)
        Image.fromarray(picture).save(place / "files" / "images" / f"{name}.png")
    return resolve(DATASETS["deeprecon"])(place / "files", "study")


def make_mosaic(place: Path) -> Dataset:
    return resolve(DATASETS["mosaic"])(write_people(place / "files"), "study")


def make_things(place: Path) -> Dataset:
    write_things(place / "files")
    return resolve(DATASETS["things-fmri"])(place / "files", "study", cache=place / "cache")


def make_laion(place: Path) -> Dataset:
    write_laion(place / "files")
    return resolve(DATASETS["laion-fmri"])(place / "files", "study", cache=place / "cache")


def make_cneuromod(place: Path) -> Dataset:
    return resolve(DATASETS["cneuromod-things"])(write_cneuromod(place / "files"), "study")


MAKERS = {
    "cneuromod-things": make_cneuromod,
    "mosaic": make_mosaic,
    "laion-fmri": make_laion,
    "things-fmri": make_things,
    "deeprecon": make_deeprecon,
    "algonauts2023": make_algonauts,
    "simulated": make_simulated,
    "folder": make_folder,
    "miyawaki2008": make_miyawaki,
    "miyawaki2008-nilearn": make_miyawaki_runs,
    "miyawaki2008-s2": make_miyawaki_series,
    "mindeye1": make_mindeye1,
    "mindeye2": make_mindeye2,
    "bold5000": make_bold5000,
    "nsd": make_nsd,
    "god": make_god,
    "god-mindvis": make_mindvis,
}


def make_synthetic(place: Path) -> Dataset:
    files = write_synthetic(nsd.make(place / "files"))
    return resolve(DATASETS["nsd"])(files, "study", part="synthetic")


def make_imagery(place: Path) -> Dataset:
    files = write_imagery(nsd.make(place / "files"))
    return resolve(DATASETS["nsd"])(files, "study", part="imagery")


PARTS = {  # of one family
    "nsd-synthetic": make_synthetic,
    "nsd-imagery": make_imagery,
    "simulated-generalisation": make_generalisation,
    "simulated-imagery": make_imagined,
}


# A miniature of a release whose voxel counts are known needs to be opened knowingly.
OPTIONS = {"mindeye1": "?voxels=any", "mindeye2": "?voxels=any"}
OPTIONS |= {name: f"?part={name.rpartition('-')[2]}" for name in PARTS}
