"""NSD-synthetic and NSD-imagery in miniature, beside the main experiment of `nsd`.

Volumes are 6 x 7 x 5, everything else has its real size. Every beta is planted: 100 x + 10 y + z
plus, by turns, the low or the high byte of a number that names the trial (from 1), so that a wrong
row, voxel order, axis or unit shows in every value.
"""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.io
from PIL import Image

from tests.miniatures.nsd import B3, betas_folder, planted, save_volume

ORDER_PLACE = "nsddata/experiments/nsdsynthetic/nsdsynthetic_expdesign.mat"
CLASSES = ("Natural scenes", "Noise", "Single words", "Chromatic noise")
LETTERS = {"A": "EHLPRV", "B": "BCDKTW", "C": "FMNSYZ"}
WORDS = dict(
    zip("FMNSYZ", ("fruit", "mammal", "banana", "stripes", "yellow", "zebra"), strict=True)
)
# (run, task, set, betas of a trial) in the order of the files
RUNS = (
    ("visA", "A", 1), ("attA", "A", 2), ("imgA_1", "A", 1),
    ("visB", "B", 1), ("attB", "B", 2), ("imgB_1", "B", 1),
    ("visC", "C", 1), ("attC", "C", 2), ("imgC_1", "C", 1),
    ("imgA_2", "A", 1), ("imgB_2", "B", 1), ("imgC_2", "C", 1),
)  # fmt: skip


def make_order() -> np.ndarray:
    """744 pictures from 1 in 8 runs of 93: two or more of each, 10 of a run straight again."""
    rng = np.random.default_rng(3)
    fresh = np.concatenate([np.tile(np.arange(1, 285), 2), rng.integers(1, 285, 96)])
    runs = []
    for part in rng.permutation(fresh).reshape(8, 83):
        at = rng.choice(83, 10, replace=False)
        runs.append(np.repeat(part, np.where(np.isin(np.arange(83), at), 2, 1)))
    return np.concatenate(runs)


ORDER = make_order()


def save_order(root: Path, order: np.ndarray = ORDER) -> Path:
    path = root / ORDER_PLACE
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"masterordering": order[None].astype(np.float64)})
    return path


def save_part(root: Path, part: str, values: np.ndarray, ending: str = "nii.gz", who: int = 1):
    """Write int16 betas (X, Y, Z, trials) of ``synthetic`` or ``imagery`` as NSD does."""
    folder = betas_folder(root, who, prep=f"nsd{part}{B3}")
    path = folder / f"betas_nsd{part}.{ending}"
    if ending != "hdf5":
        return save_volume(path, values)
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=values.T, chunks=(values.shape[-1], 1, 1, 1))
    return path


def numbered(trials: int) -> np.ndarray:
    """Return int16 (X, Y, Z, trials) betas that name their trial, from 1."""
    return planted(np.arange(1, trials + 1))


def write_synthetic(root: Path, ending: str = "nii.gz", who: int = 1) -> Path:
    save_order(root)
    names = {"Image number": np.arange(1, 285), "Image": [f"picture_{k}" for k in range(1, 285)]}
    names["Image class"] = [CLASSES[k // 80] for k in range(284)]
    pd.DataFrame(names).to_csv(
        (root / ORDER_PLACE).with_name("nsdsyntheticimageinformation.csv"), index=False
    )
    save_part(root, "synthetic", numbered(744), ending, who)
    place = root / "nsddata_stimuli/stimuli/nsdsynthetic"
    place.mkdir(parents=True, exist_ok=True)
    for file, count, own in (
        ("nsdsynthetic_stimuli.hdf5", 220, 0),
        (f"nsdsynthetic_colorstimuli_subj{who:02d}.hdf5", 64, who),
    ):
        with h5py.File(place / file, "w") as h5:  # what is not written takes no room
            size = (count, 714, 1360, 3)
            bricks = h5.create_dataset(
                "imgBrick", size, np.uint8, chunks=(1, *size[1:]), compression=1
            )
            first = (ORDER[:6] - 1) if not own else ORDER[:6] - 221
            for row in {0, 1, count - 1, *(k for k in first.tolist() if 0 <= k < count)}:
                picture = np.full(size[1:], [row, own, 255 - row], np.uint8)
                picture[: 3 + row] = 255
                bricks[row] = picture
    return root


def cue_rows(who: int = 1) -> dict[str, pd.DataFrame]:
    """Return run -> its 48 trials: TRIAL, CUE and CONDITION; a vision cue is wrong in half."""
    rng, tables = np.random.default_rng(7), {}
    for run, which, _ in RUNS:
        seen = rng.permutation(np.repeat(list(LETTERS[which]), 8))
        cue = seen.copy()
        if run.startswith("vis"):
            for k, letter in enumerate(LETTERS[which]):  # every letter is shown eight times
                others = [LETTERS[which][(k + step) % 6] for step in (1, 2, 3, 4)]
                cue[np.flatnonzero(seen == letter)[4:]] = others
        tables[run] = pd.DataFrame({"TRIAL": np.arange(48) + 1, "CUE": cue, "CONDITION": seen})
    return tables


def save_cues(root: Path, who: int = 1) -> Path:
    """Write the release's 12 tables, rows in any order, and its lists of targets."""
    place = root / "nsddata/bdata/nsdimagery"
    place.mkdir(parents=True, exist_ok=True)
    for run, table in cue_rows().items():
        path = place / f"nsdimagery_subj{who:02d}_{run}.tsv"
        table.assign(RT=0.5).iloc[::-1].to_csv(path, sep="\t", index=False)
    return place


def save_pairs(root: Path) -> Path:
    place = root / "nsddata/experiments/nsdimagery"
    for which, letters in LETTERS.items():
        cells = np.empty((6, 3), object)
        for k, letter in enumerate(letters):
            file = (
                f"target_{letter}.png"
                if which == "A"
                else f"shared{k + 1:04d}_nsd{k + 100:05d}.png"
            )
            cells[k] = [float(k + 1), WORDS.get(letter, file), letter]
            if which != "C":
                path = place / "rawtargetimages" / f"set{which}" / file
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = np.full((20, 24, 3), 128, np.uint8)
                picture[: 3 + 2 * k, : 20 - 2 * k] = ord(letter)
                Image.fromarray(picture).save(path)
        scipy.io.savemat(place / f"{which}_pair_list.mat", {"pair_list": cells})
    return place


def save_stim_info(path: Path, **changed) -> Path:
    """Write the table of others, a row a beta, as its authors do."""
    rows = []
    for run, which, epochs in RUNS:
        kind = {"vis": 0, "att": 1, "img": 2}[run[:3]] + run.endswith("_2")
        for cue, seen in cue_rows()[run][["CUE", "CONDITION"]].itertuples(index=False):
            there = float(cue == seen) if kind < 2 else np.nan
            said = f"['{WORDS[cue]}']" if which == "C" and kind > 1 else f"[{ord(seen)}]"
            rows += [(float(kind), float("ABC".index(which)), there, cue, said)] * epochs
    names = ["TaskType", "StimType", "StimCond(0/1)", "Cue", "Image(s) seen/imagined"]
    table = pd.DataFrame(rows, columns=names)
    table.insert(0, "betas", np.arange(len(table)))
    path.parent.mkdir(parents=True, exist_ok=True)
    table.assign(**changed).to_csv(path, index=False)
    return path


def write_imagery(root: Path, ending: str = "nii.gz", who: int = 1) -> Path:
    save_cues(root, who)
    save_pairs(root)
    save_part(root, "imagery", numbered(720), ending, who)
    return root


def trial_of(betas: np.ndarray) -> np.ndarray:
    """Return the trial (from 1) that is planted in betas (n, V) of percent signal change."""
    from tests.miniatures.nsd import decode

    return decode(betas)
