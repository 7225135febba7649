r"""The plain folder: any study that was written as five kinds of files.

::

    dataset.json            {"title": ...} and, optionally, the keys of `DEFAULTS`
    stimuli/stimuli.tsv     one row a stimulus: file, and optionally stimulus (else the file's name
                            without its ending), caption, category, source, anything else
    stimuli/...             the pictures: PNG, JPEG, WebP ...
    sub-XX/betas.npy        (trials, V): float32, or int16 with a column `scale` in voxels.tsv
    sub-XX/trials.tsv       one row a trial, in the order of betas.npy: stimulus, split (train or
                            test), and optionally repeat (0-based), session, run; which result
                            a beta was: source_file, source_trial, events_file, events_row
    sub-XX/voxels.tsv       one row a voxel, in the order of betas.npy; all columns are optional:
                            vertex   fsaverage5, 0 to 10241 left, 10242 to 20483 right, -1 nowhere
                            fslr     fsLR-32k, 0 to 32491 left, 32492 to 64983 right, -1 nowhere:
                                     where data on fsLR come from, for CIFTI files of their maps
                            parcel   a parcel's name; "V1 L" and "V1 R" name the two hemispheres
                            roi_NAME 0 or 1, masks that may overlap, named NAME
                            ncsnr    noise-ceiling SNR of the voxel, SD of signal over SD of noise
                            scale    what one unit of an int16 beta is worth, above 0
    sub-XX/new/NAME.npz     optional, a trial a file, below those of betas.npy in order of their
                            names (9 before 10): betas (V,) in the same unit, stimulus, and
                            optionally split (else test), session, run. `app.py --watch` shows
                            each as it arrives
    sub-XX/mask.nii.gz      optional, for voxels of a volume: 1 where one is, else 0; the columns
                            of betas.npy are these in C order, as betas[mask] gives them. With
                            {"space": "MNI152NLin2009cAsym"} in dataset.json, or another MNI152
                            space, they are drawn on fsaverage5; in others they have no place there
    sub-XX/surf/            optional, for voxels that are drawn on fsaverage5: FreeSurfer's
                            {lh,rh}.{inflated,pial,sulc,sphere.reg}; maps are then drawn on the
                            subject's own surface too

Tables are tab-separated UTF-8. A notebook writes such a folder in ten lines, given `pictures`
(uint8, H x W x 3, one a stimulus), `betas` (trials, V), and `shown` (the picture's number) and
`split`, one entry a trial::

    import json, numpy as np, pandas as pd, pathlib, PIL.Image
    root = pathlib.Path("my-study"); sub, shots = root / "sub-01", root / "stimuli"
    for folder in (sub, shots): folder.mkdir(parents=True)
    names = [f"{i:03d}.png" for i in range(len(pictures))]
    for name, picture in zip(names, pictures): PIL.Image.fromarray(picture).save(shots / name)
    (root / "dataset.json").write_text(json.dumps({"title": "My study"}))
    pd.DataFrame({"file": names}).to_csv(shots / "stimuli.tsv", sep="\t", index=False)
    np.save(sub / "betas.npy", betas.astype("float32"))
    trials = pd.DataFrame({"stimulus": [f"{i:03d}" for i in shown], "split": split})
    trials.to_csv(sub / "trials.tsv", sep="\t", index=False)

and, where the voxels are vertices of fsaverage5, in one more::

    pd.DataFrame({"vertex": vertex}).to_csv(sub / "voxels.tsv", sep="\t", index=False)

During a scan each trial is one more line, with `new` the folder and `n` the trial's number::

    np.savez(new / f"{n:05d}.npz", betas=betas, stimulus="012", run=3)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets import arriving
from backends.datasets.layout_tables import read_table, shown, truths, whole_numbers
from backends.datasets.layout_voxels import read_voxels, voxel_ncsnr, voxel_scale, voxel_space
from backends.datasets.reading import LazyRows
from explorer import files
from explorer.files import guard, read_json
from explorer.images import read_picture
from explorer.types import SPLITS, Origin, Subject, Trials, UserError

if TYPE_CHECKING:
    import pandas as pd

DEFAULTS: dict[str, Any] = {
    "licence": "not stated",
    "citation": "",
    "simulated": False,
    "redistributable": False,
    "split_unit": "stimulus",
    "note": "",
    "beta_unit": "arbitrary units",
    "atlas": "parcels",  # the name of the atlas in the column `parcel`
    "space": "",  # what betas were made in, as fMRIPrep writes it after space-
}
TRIAL_CELLS = ("stimulus", "split")  # which trials.tsv must have
FINER = "fsLR"  # surfaces of which several vertices lie at one of fsaverage5


def scaled_rows(
    stored: np.ndarray, scale: np.ndarray | None, source: str, notes: Sequence[str] = ()
) -> LazyRows:
    """Return an array on disk (n, V) as float32 rows, times a scale per voxel (V,) or None.

    ``notes``: what is known of where each row came from, one a row, or none.
    """

    def read(rows: np.ndarray) -> np.ndarray:
        values = np.asarray(stored[rows], dtype=np.float32)
        return values if scale is None else values * scale

    def lies(row: int) -> list[Origin]:
        return [Origin(source, row, "", notes[row] if notes else "")]

    return LazyRows(stored.shape, read, source, lies)


def _made_from(table: pd.DataFrame) -> list[str]:
    """Return which result and event each row was, where trials.tsv tells; [] where not."""
    columns = ("source_file", "source_trial", "events_file", "events_row")
    if not set(columns) <= set(table):
        return []
    rows = table[list(columns)].itertuples(index=False)
    of = [("/".join(Path(a).parts[-2:]), n, Path(b).name, m) for a, n, b, m in rows]
    return [f"trial {n} of {a}, row {m} of {b}, both from 0" for a, n, b, m in of]


def read_description(path: Path) -> dict[str, Any]:
    """Return ``dataset.json`` with the defaults filled in and every value's type checked."""
    file = path / "dataset.json"
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the folder that holds dataset.json.")
    if not file.is_file():
        raise UserError(
            f"{file} is missing: a plain data set is a folder with dataset.json, stimuli/ and "
            "sub-XX/ folders."
        )
    found = read_json(file, "mend it")
    if not isinstance(found, dict) or not isinstance(found.get("title"), str):
        raise UserError(f'{file} needs an object with at least a "title", a text.')
    description = {**DEFAULTS, **found}
    for key, default in DEFAULTS.items():
        if not isinstance(description[key], type(default)):
            raise UserError(
                f"{file}: {key!r} must be {'true or false' if default is False else 'a text'}, "
                f"found {description[key]!r}."
            )
    if description["split_unit"] not in ("stimulus", "repeat"):
        raise UserError(
            f'{file}: \'split_unit\' is "stimulus" or "repeat", found '
            f"{description['split_unit']!r}."
        )
    return description


def is_described(path: Path) -> bool:
    """Return whether a folder has a ``dataset.json``, sound or not."""
    try:
        return (path / "dataset.json").is_file()
    except OSError:
        return False  # a folder that may not be entered


def is_simulated(path: Path) -> bool:
    """Return whether a folder's ``dataset.json`` has the recipe of a simulation."""
    try:
        return is_described(path) and isinstance(read_description(path).get("recipe"), dict)
    except UserError:
        return False


def subject_folders(path: Path, description: dict[str, Any]) -> dict[str, Path]:
    """Return name -> folder of the subjects: those of dataset.json, else every ``sub-*``."""
    named = description.get("subjects")
    if named is None:
        folders = {p.name: p for p in sorted(path.glob("sub-*")) if p.is_dir()}
    elif isinstance(named, dict) and all(isinstance(v, str) for v in named.values()):
        folders = {name: _inside(path, folder, "dataset.json") for name, folder in named.items()}
    else:
        raise UserError(
            f'{path / "dataset.json"}: "subjects" maps names to folders, found {named!r}.'
        )
    if not folders:
        raise UserError(f"{path} has no subject; expected at least one folder named sub-XX.")
    return folders


def read_stimuli(path: Path) -> pd.DataFrame:
    """Return the table of stimuli, indexed by id, with file, caption, category and source."""
    file = path / "stimuli" / "stimuli.tsv"
    table = read_table(file, ("file",))
    if "stimulus" not in table:
        table.insert(0, "stimulus", [Path(name).stem for name in table["file"]])
    for column in ("caption", "category", "source"):
        if column not in table:
            table[column] = ""
    for column, what in (("file", "file"), ("stimulus", "id")):
        if (table[column] == "").any():
            row = int(np.flatnonzero(table[column] == "")[0])
            raise UserError(f"{file}: row {row + 1} has no {what}; every stimulus needs one.")
    twice = table["stimulus"][table["stimulus"].duplicated()]
    if len(twice):
        raise UserError(f"{file} names the stimulus {twice.iloc[0]!r} twice; ids must differ.")
    return table.set_index("stimulus")


def read_image(path: Path, stimuli: pd.DataFrame, stimulus: str) -> np.ndarray:
    """Return a stimulus's picture, uint8 RGB (H, W, 3), as `read_picture` reads it."""
    if stimulus not in stimuli.index:
        raise UserError(f"{path} has no stimulus {stimulus!r}; it has {len(stimuli)}.")
    file = _inside(path / "stimuli", stimuli.at[stimulus, "file"], "stimuli.tsv")
    return read_picture(
        file,
        f"The picture of stimulus {stimulus!r}",
        missing="copy it there or mend stimuli.tsv",
    )


def picture_origin(path: Path, stimuli: pd.DataFrame, stimulus: str) -> Origin:
    """Return where a stimulus's picture lies."""
    return Origin(str(_inside(path / "stimuli", stimuli.at[stimulus, "file"], "stimuli.tsv")))


def picture_ids(stimuli: pd.DataFrame, stimulus: str) -> dict[str, str]:
    """Return what names a picture: its file, and its row of ``stimuli.tsv``."""
    row = int(stimuli.index.get_loc(stimulus))
    return {"file name": str(stimuli.at[stimulus, "file"]), "row of stimuli.tsv, from 0": str(row)}


def read_trials(
    folder: Path,
    dataset: str,
    name: str,
    description: dict[str, Any],
    stimuli: pd.DataFrame,
    unfinished: list[str] | None = None,
) -> Trials:
    """Return one subject's trials from ``betas.npy``, ``trials.tsv``, ``voxels.tsv``, ``new/``.

    Parameters
    ----------
    folder
        The subject's folder.
    dataset, name
        What the data set and the subject are called.
    description
        As `read_description` gives it.
    stimuli
        As `read_stimuli` gives it; trials may only show these.
    unfinished
        Given where files may still be written: `betas.npy` then lies in memory, a file that is
        not whole raises `UnfinishedError`, and a bad one of ``new/`` is left out with a sentence
        here.
    """
    live = unfinished is not None
    if live:
        arriving.whole_table(folder / "trials.tsv")
    stored = read_array(folder / "betas.npy", live)
    file, unit = folder / "trials.tsv", description["split_unit"]
    table = read_table(file, TRIAL_CELLS)
    written = len(table)
    if written != len(stored):
        turned = stored.shape[1] == written
        raise UserError(
            f"{folder}: betas.npy has {len(stored)} rows, trials.tsv has {written}; "
            + (
                "its columns are as many as the trials, so save it transposed (np.save of "
                "betas.T)."
                if turned
                else "each trial needs one row in both."
            )
        )
    about = read_voxels(folder, stored.shape[1])
    voxels = voxel_space(folder, about, f"{dataset}/{name}", description)
    ncsnr, scale = voxel_ncsnr(folder, about), voxel_scale(folder, about, stored.dtype)
    subject = Subject(dataset, name, voxels, ncsnr, description["simulated"])
    rows = scaled_rows(stored, scale, str(folder / "betas.npy"), _made_from(table))
    arrived = arriving.read_new(folder, unfinished)
    by_stimulus = unit == "stimulus"
    arrived = arriving.sound(arrived, table, stimuli.index, rows, by_stimulus, unfinished)
    table = checked_trials(arriving.appended(table, arrived), file, stimuli, unit)
    rows = arriving.below(rows, arrived)
    growing = live or bool(arrived)
    return Trials(subject, rows, description["beta_unit"], table, growing=growing)


def _inside(folder: Path, name: str, source: str) -> Path:
    """Return a file of a folder; a name that leads out of it is refused."""
    file = folder / name
    with guard(
        f"{source}: the name {name!r}", "the path of a file", "mend it"
    ):  # too long, or no name of a file
        inside = file.resolve().is_relative_to(folder.resolve())
    if Path(name).is_absolute() or not inside:
        raise UserError(f"{source} names {name!r}, which lies outside {folder}; mend it.")
    return file


def read_array(file: Path, live: bool = False) -> np.ndarray:
    """Return a .npy file of numbers (rows, columns) as a read-only memory map.

    ``live``: in memory, as it may be written anew meanwhile.
    """
    turn = "reshape(-1, n).T of n trials"
    read = arriving.whole_betas if live else files.read_array
    stored = read(
        file,
        missing="each subject needs one",
        instead="save its betas as numbers, trials in rows (of GLMsingle's results, "
        f"results['typed']['betasmd'].{turn})",
    )
    if stored.ndim != 2 or stored.dtype.kind not in "fiu":
        found, do = f"{shown(stored.dtype)} {stored.shape}", "save it so"
        if stored.dtype.kind == "V" and stored.dtype.itemsize == 2:
            found, do = f"{found}, as numpy writes bfloat16", "save it as float32"
        elif stored.ndim > 2:
            do = f"save it with trials in rows (where they are the last axis, betas.{turn})"
        raise UserError(f"{file} needs numbers in rows and columns, found {found}; {do}.")
    return stored


def read_trial_table(file: Path, stimuli: pd.DataFrame, split_unit: str) -> pd.DataFrame:
    """Return ``trials.tsv`` with every column that `Trials` needs, checked."""
    return checked_trials(read_table(file, TRIAL_CELLS), file, stimuli, split_unit)


def checked_trials(
    table: pd.DataFrame, file: Path, stimuli: pd.DataFrame, split_unit: str
) -> pd.DataFrame:
    """Return trials, cells as text, as `Trials` needs them; ``file`` is where they are from."""
    other = table[~table["split"].isin(SPLITS)]
    if len(other):
        raise UserError(
            f"{file}: row {other.index[0] + 1} has the split {other['split'].iloc[0]!r}; it is "
            "train or test."
        )
    unknown = table[~table["stimulus"].isin(stimuli.index)]
    if len(unknown):
        raise UserError(
            f"{file}: row {unknown.index[0] + 1} shows the stimulus "
            f"{unknown['stimulus'].iloc[0]!r}, which stimuli.tsv does not name."
        )
    for column in ("session", "run"):
        table[column] = whole_numbers(table[column], file, column) if column in table else 1
    if "synthetic" in table:
        table["synthetic"] = truths(table["synthetic"], file, "synthetic")
    if "repeat" in table:
        table["repeat"] = whole_numbers(table["repeat"], file, "repeat")
        if table["repeat"].min() > 0:
            raise UserError(
                f"{file}: repeats are numbered from 0, and the lowest is {table['repeat'].min()}; "
                "subtract it, or leave the column out."
            )
    else:
        table["repeat"] = table.groupby(["stimulus", "split"]).cumcount()
    twice = table[table.duplicated(["stimulus", "split", "repeat"])]
    if len(twice):
        raise UserError(
            f"{file}: row {twice.index[0] + 1} gives repeat {twice['repeat'].iloc[0]} of "
            f"{twice['stimulus'].iloc[0]!r} a second time; number repeats from 0 or leave the "
            "column out."
        )
    if split_unit == "stimulus":
        both = set(table["stimulus"][table["split"] == "train"])
        both &= set(table["stimulus"][table["split"] == "test"])
        if both:
            raise UserError(
                f"{file}: the stimulus {min(both)!r} is both train and test; splits are by "
                'stimulus (or say "split_unit": "repeat" in dataset.json).'
            )
    return table
