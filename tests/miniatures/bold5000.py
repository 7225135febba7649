"""BOLD5000 in miniature: CSI4's lists, arrays, volumes, events and some pictures."""

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

D = "CSI4_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR"
LONG = (1, 4, 9)  # the sessions of CSI4 that have ten runs
RUNS = [(s, r) for s in range(1, 10) for r in range(1, 11 if s in LONG else 10)]
SESSION = np.repeat([s for s, _ in RUNS], 37)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def csi4_list() -> list[str]:
    """3,108 names: 106 repeated images as often as CSI4 saw them, ``rep_`` on all but one."""
    rng = np.random.default_rng(0)
    often = np.repeat([1, 2, 3, 4, 5], [16, 39, 37, 13, 1])
    names, marked = [], []
    for image, times in enumerate(often):
        plain = rng.integers(times)  # which presentation is the one without rep_
        for time in range(times):
            names.append(REPEATED[image])
            marked.append(bool(times > 1 and time != plain))
    single = [f"COCO_train2014_{i:012d}.jpg" for i in range(1000, 2800)]
    single += [f"n{i:08d}_{i}.JPEG" for i in range(2000, 3038)]
    single += ["nursery1.jpg", "nightclub12.jpg", "banquetHall2.jpg", "church6.jpg"]
    single += [f"n{i:08d}_7.jpeg" for i in range(9000, 9004)]
    names += single
    marked += [False] * len(single)
    order = rng.permutation(len(names))
    return ["rep_" * marked[i] + names[i] for i in order]


REPEATED = [f"COCO_train2014_{i:012d}.jpg" for i in range(45)]
REPEATED += [f"n{i:08d}_{i}.JPEG" for i in range(45)] + [f"scene{i}.jpg" for i in range(23)]
LIST = csi4_list()
STEMS = [name.removeprefix("rep_").rpartition(".")[0] for name in LIST]


def write_lists(root: Path, who: str = "CSI4") -> Path:
    """Write the presentation lists in folders, and the list of 113."""
    lists = root / "BOLD5000_Stimuli" / "Stimuli_Presentation_Lists" / who
    for i, (session, run) in enumerate(RUNS):
        folder = lists / f"{who}_sess{session:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        text = "\n".join(LIST[37 * i : 37 * i + 37]) + "\n"
        (folder / f"{who}_sess{session:02d}_run{run:02d}.txt").write_text(text)
    scenes = root / "BOLD5000_Stimuli" / "Scene_Stimuli"
    scenes.mkdir(exist_ok=True)
    (scenes / "repeated_stimuli_113_list.txt").write_text("\n".join(REPEATED) + "\n")
    return lists


WIDTHS = {"EarlyVis": 3, "LOC": 2, "OPA": 1, "PPA": 1, "RSC": 1}


def array(roi: str, side: str, width: int) -> np.ndarray:
    """Float64 (3108, width): a session's mean and a column's own noise; stands for its file."""
    rng = np.random.default_rng([ord(c) for c in side + roi])
    return SESSION[:, None] * 10 + rng.standard_normal((len(LIST), width))


def write_rois(root: Path, stem: str = D, **replace) -> Path:
    folder = root / "BOLD5000_GLMsingle_ROI_betas" / "py"
    folder.mkdir(parents=True, exist_ok=True)
    for roi, width in WIDTHS.items():
        for side in ("LH", "RH"):
            values = replace.get(side + roi, array(roi, side, width))
            if values is not None:
                np.save(folder / f"{stem}_allses_{side}{roi}.npy", values)
    return folder


def write_mindvis(root: Path) -> Path:
    """Write MinD-Vis's folder with CSI4 in it."""
    write_lists(root)
    write_rois(root)
    shown = root / "BOLD5000_Stimuli" / "Scene_Stimuli" / "Presented_Stimuli"
    original = shown.parent / "Original_Images" / "Scene"
    for folder in (original, *(shown / f for f in ("COCO", "ImageNet", "Scene"))):
        folder.mkdir(parents=True)
    Image.new("RGB", (5, 4), "red").save(shown / "COCO" / "COCO_train2014_000000001000.jpg")
    Image.new("L", (4, 4), 200).save(shown / "ImageNet" / "n00009000_7.JPEG")
    Image.new("RGB", (4, 4), "blue").save(shown / "Scene" / "banquethall2.JPG", format="jpeg")
    Image.new("RGB", (9, 9), "white").save(original / "banquetHall2.jpg")
    np.save(shown / "img_dict.npy", {"a": np.zeros(2)}, allow_pickle=True)
    labels = root / "BOLD5000_Stimuli" / "Image_Labels"
    labels.mkdir()
    (labels / "imagenet_final_labels.txt").write_text("n00009000 desk, writing desk\n")
    return root


def copy(mindvis: Path, root: Path) -> Path:
    """Copy the text files and arrays, to be spoilt."""
    for file in mindvis.rglob("*"):
        if file.suffix in (".txt", ".npy") and file.name != "img_dict.npy":
            target = root / file.relative_to(mindvis)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return root


def spoil(root: Path, name: str, change) -> None:
    """Change the bytes of the file of that name."""
    file = next(root.rglob(name))
    file.write_bytes(change(file.read_bytes()))


SHAPE = (5, 4, 3)


def volume(session: int) -> np.ndarray:
    """Float32 (X, Y, Z, trials): the trial's number and each voxel's own noise; a NaN border."""
    rng = np.random.default_rng(session)
    n = int((SESSION == session).sum())
    values = rng.standard_normal((*SHAPE, n)) + 5 * session
    values[0] = np.nan  # outside of the head, as GLMsingle leaves it
    values[1, 0] = 0
    return values.astype(np.float32)


def write_volumes(root: Path, sessions=(1, 5), ending: str = "nii.gz", **replace) -> None:
    for session in sessions:
        image = nibabel.Nifti1Image(replace.get(f"s{session}", volume(session)), AFFINE)
        nibabel.save(image, root / f"{D}_ses-{session:02d}.{ending}")


def write_events(root: Path, change=lambda row: row) -> None:
    """Write events as ds001499 has them: CRLF, plain names, the repeat told by ``ImgType``."""
    kinds = {"C": "coco", "n": "imagenet"}
    for i, (session, run) in enumerate(RUNS):
        folder = root / "sub-CSI4" / f"ses-{session:02d}" / "func"
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"sub-CSI4_ses-{session:02d}_task-5000scenes_run-{run:02d}"
        lines = ["onset\tduration\tSubj\tSess\tRun\tTrial\tImgName\tImgType"]
        for trial, name in enumerate(LIST[37 * i : 37 * i + 37]):
            plain = name.removeprefix("rep_")
            kind = "rep_" * (name != plain) + kinds.get(plain[0], "scenes")
            row = [6 + 10 * trial, 1, 4, session, run, trial + 1, plain, kind]
            lines.append("\t".join(map(str, change(row))))
        (folder / f"{stem}_events.tsv").write_bytes("\r\n".join([*lines, ""]).encode())
    (folder / "sub-CSI4_ses-09_task-localizer_events.tsv").write_text("onset\tduration\n")
