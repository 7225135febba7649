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
                            parcel   a parcel's name; "V1 L" and "V1 R" name the two hemispheres
                            roi_NAME 0 or 1, masks that may overlap, named NAME
                            ncsnr    noise-ceiling SNR of the voxel, SD of signal over SD of noise
                            scale    what one unit of an int16 beta is worth, above 0
    sub-XX/mask.nii.gz      optional, for voxels of a volume: 1 where one is, else 0; the columns
                            of betas.npy are these in C order, as betas[mask] gives them. With
                            {"space": "MNI152NLin2009cAsym"} in dataset.json, or another MNI152
                            space, they are drawn on fsaverage5; in others they have no place there

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
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.reading import LazyRows
from explorer import files
from explorer.brain.projection import project_volume
from explorer.files import guard, read_json, short
from explorer.images import read_picture
from explorer.types import (
    FSAVERAGE5_VERTICES,
    SPLITS,
    Label,
    Origin,
    Parcellation,
    Subject,
    Trials,
    UserError,
    VoxelSpace,
    voxel_hash,
)

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

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
SIDES = {"L": "left", "R": "right"}
# A ratio of 3 is a noise ceiling of 90 % in a single trial, which one voxel in twenty never has.
MOST_NCSNR = 3.0
MNI = "MNI152"  # how the names of spaces begin that a volume is drawn in (templateflow.org)
FINER = "fsLR"  # surfaces of which several vertices lie at one of fsaverage5
FARTHEST = 1e6  # millimetres that a scan may span: our choice, beyond all
NOT_IDENTITY = ("ncsnr", "scale")  # columns of voxels.tsv that do not say which voxel it is


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


def read_table(file: Path, required: tuple[str, ...] = ()) -> pd.DataFrame:
    """Return a tab-separated table, all cells as text (a missing cell is "")."""
    table = files.read_table(
        file, do="mend it", missing="python -m backends doctor checks a whole folder"
    )
    for column in required:
        if column not in table:
            raise UserError(
                f"{file} lacks the column {column!r}; it has "
                f"{short(', '.join(map(str, table.columns)))}."
            )
    return table


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
    folder: Path, dataset: str, name: str, description: dict[str, Any], stimuli: pd.DataFrame
) -> Trials:
    """Return one subject's trials from ``betas.npy``, ``trials.tsv`` and ``voxels.tsv``.

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
    """
    stored = read_array(folder / "betas.npy")
    table = read_trial_table(folder / "trials.tsv", stimuli, description["split_unit"])
    if len(table) != len(stored):
        turned = stored.shape[1] == len(table)
        raise UserError(
            f"{folder}: betas.npy has {len(stored)} rows, trials.tsv has {len(table)}; "
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
    return Trials(subject, rows, description["beta_unit"], table)


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


def read_array(file: Path) -> np.ndarray:
    """Return a .npy file of numbers (rows, columns) as a read-only memory map."""
    turn = "reshape(-1, n).T of n trials"
    stored = files.read_array(
        file,
        missing="each subject needs one",
        instead="save its betas as numbers, trials in rows (of GLMsingle's results, "
        f"results['typed']['betasmd'].{turn})",
    )
    if stored.ndim != 2 or stored.dtype.kind not in "fiu":
        found, do = f"{_short(stored.dtype)} {stored.shape}", "save it so"
        if stored.dtype.kind == "V" and stored.dtype.itemsize == 2:
            found, do = f"{found}, as numpy writes bfloat16", "save it as float32"
        elif stored.ndim > 2:
            do = f"save it with trials in rows (where they are the last axis, betas.{turn})"
        raise UserError(f"{file} needs numbers in rows and columns, found {found}; {do}.")
    return stored


def read_trial_table(file: Path, stimuli: pd.DataFrame, split_unit: str) -> pd.DataFrame:
    """Return ``trials.tsv`` with every column that `Trials` needs, checked."""
    table = read_table(file, ("stimulus", "split"))
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
        table[column] = _whole(table[column], file, column) if column in table else 1
    if "synthetic" in table:
        table["synthetic"] = _truth(table["synthetic"], file, "synthetic")
    if "repeat" in table:
        table["repeat"] = _whole(table["repeat"], file, "repeat")
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


def _short(value: Any) -> str:
    """Return a number, or a type that may name hundreds of columns, for a sentence."""
    if isinstance(value, np.floating):
        return f"{value:g}".replace("-", "\N{MINUS SIGN}")
    return str(value) if len(str(value)) <= 40 else f"{str(value)[:40]}..."


def _whole(column: pd.Series, file: Path, name: str, nowhere: bool = False) -> np.ndarray:
    """Return whole numbers from 0 (or -1, ``nowhere``), int64, exactly as they are written."""
    try:
        values = [_number(cell) for cell in column]
    except (ValueError, OverflowError) as error:
        raise UserError(f"{file}: the column {name!r} needs numbers ({error}).") from error
    if not all(isinstance(v, int) and (-1 if nowhere else 0) <= v < 2**63 for v in values):
        more = ", or \u22121 for nowhere" if nowhere else ""
        raise UserError(f"{file}: the column {name!r} needs whole numbers from 0{more}.")
    return np.array(values, dtype=np.int64)


def _number(cell: str) -> int | float:
    """Return a cell's number, whole where it is exactly that."""
    try:
        return int(cell)
    except ValueError:
        value = float(cell)
        # floats above 2**53 stand for several whole numbers each
        return int(value) if value.is_integer() and abs(value) <= 2**53 else value


def _truth(column: pd.Series, file: Path, name: str) -> np.ndarray:
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    other = sorted({cell for cell in column if cell.lower() not in known})
    if other:
        raise UserError(
            f"{file}: the column {name!r} holds true or false, found {other[0]!r}; mend it."
        )
    return np.array([known[cell.lower()] for cell in column], dtype=bool)


def read_voxels(folder: Path, v: int) -> pd.DataFrame:
    """Return ``voxels.tsv``, one row for each of v voxels; without columns where it is missing."""
    import pandas as pd

    file = folder / "voxels.tsv"
    if not file.exists():
        return pd.DataFrame(index=range(v))
    table = read_table(file)
    if len(table) != v:
        raise UserError(
            f"{folder}: betas.npy has {v} voxels, voxels.tsv has {len(table)} rows; each voxel "
            "needs one."
        )
    return table


def voxel_ncsnr(folder: Path, table: pd.DataFrame) -> np.ndarray | None:
    """Return the noise-ceiling SNR of every voxel (V,), None where voxels.tsv has none."""
    if "ncsnr" not in table:
        return None
    file = folder / "voxels.tsv"
    values = _numbers(table["ncsnr"], file, "ncsnr")
    if values.min(initial=0) < 0:
        raise UserError(
            f"{file}: ncsnr is a ratio from 0, found {values.min():g}; mend it or leave "
            "the column out."
        )
    if len(values) and np.quantile(values, 0.95) > MOST_NCSNR:
        raise UserError(
            f"{file}: ncsnr is the SD of signal over the SD of noise, found up to "
            f"{values.max():g}, which looks like a noise ceiling in percent; for a ceiling p of n "
            "averaged trials write sqrt(p / (100 - p) / n)."
        )
    return values


def voxel_scale(folder: Path, table: pd.DataFrame, dtype: np.dtype) -> np.ndarray | None:
    """Return what one unit of a beta is worth, (V,); None for floating-point betas."""
    file = folder / "voxels.tsv"
    if "scale" not in table:
        if dtype.kind == "f":
            return None
        raise UserError(
            f"{folder}: betas.npy holds whole numbers ({dtype}), so voxels.tsv needs the column "
            "'scale'."
        )
    scale = _numbers(table["scale"], file, "scale")
    if dtype.kind == "f" and (scale != 1).any():
        raise UserError(
            f"{file}: the column 'scale' is for whole numbers, and betas.npy holds {dtype}; leave "
            "the column out, or store the betas as int16."
        )
    if (scale <= 0).any():
        row = int(np.flatnonzero(scale <= 0)[0])
        raise UserError(
            f"{file}: row {row + 1} of the column 'scale' is {_short(scale[row])}; it says what "
            "one unit of a beta is worth and is above 0."
        )
    return scale if dtype.kind != "f" else None


def voxel_space(
    folder: Path, table: pd.DataFrame, who: str, description: dict[str, Any]
) -> VoxelSpace:
    """Return where the voxels of a subject lie, with the atlases laid over them."""
    file, v = folder / "voxels.tsv", len(table)
    identity = [c for c in table if c not in NOT_IDENTITY]
    projection, atlases, volume = None, {}, _volume(folder, v)
    if "vertex" in table:
        vertex = _whole(table["vertex"], file, "vertex", nowhere=True)
        if vertex.max(initial=0) >= FSAVERAGE5_VERTICES:
            raise UserError(
                f"{file}: vertex {vertex.max()} is outside fsaverage5, which has 0 to "
                f"{FSAVERAGE5_VERTICES - 1} (left, then right)."
            )
        _check_sides(table, vertex, file)
        digest = voxel_hash("fsaverage5", vertex)
        projection = project(vertex)
    elif volume:
        mask, affine = volume
        digest = voxel_hash("volume", np.packbits(mask), str(mask.shape), np.round(affine, 4))
        if description["space"].startswith(MNI):
            projection = project_volume(mask, affine)
    elif identity:
        digest = voxel_hash(table[identity].to_csv(sep="\t", index=False))
    else:
        digest = voxel_hash(who, v)
    if "parcel" in table:
        atlas = _partition(description["atlas"], table["parcel"], digest)
        atlases[atlas.name] = atlas
    if any(c.startswith("roi_") for c in table):
        atlases["ROIs"] = _masks(table, file, digest)
    if projection is not None:
        from explorer.brain.atlases import desikan_killiany
        from explorer.brain.parcels import lay

        atlas = lay(desikan_killiany(), projection, digest)
        atlases.setdefault(atlas.name, atlas)
    mask, affine = volume or (None, None)
    return VoxelSpace(v, digest, projection, mask, affine, atlases)


def _volume(folder: Path, v: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return mask bool (X, Y, Z) of v voxels and affine (4, 4), None where there is no mask."""
    file = folder / "mask.nii.gz"
    if not file.exists():
        return None
    mask, affine = read_mask(file)
    if mask.sum() != v:
        raise UserError(
            f"{folder}: betas.npy has {v} voxels, mask.nii.gz marks {int(mask.sum())}; each voxel "
            "needs one."
        )
    return mask, affine


def read_mask(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a NIfTI mask as bool (X, Y, Z), and its affine (4, 4)."""
    image = files.open_volume(file, "a NIfTI mask", "mend it")
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise UserError(f"{file} has shape {shape}, expected a mask along three axes.")
    values = files.volume_data(image, file).reshape(shape)
    if values.dtype.kind not in "fiub" or not np.isin(values, (0, 1)).all():
        raise UserError(
            f"{file} holds more than 0 and 1, expected a mask of which voxels there are; save "
            "(values > 0) as one, where that is what it means."
        )
    if not values.any():
        raise UserError(f"{file} marks no voxel; give the mask that the betas were made with.")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not (abs(affine) < FARTHEST).all() or np.linalg.matrix_rank(affine) < 4:  # NaN too
        raise UserError(f"{file} has an affine that is none: {short(affine.tolist())}; mend it.")
    return values.astype(bool), affine


def _check_sides(table: pd.DataFrame, vertex: np.ndarray, file: Path) -> None:
    """Refuse a voxel whose vertex lies in one hemisphere and its parcel in the other."""
    sides = np.where(vertex < 0, "", np.where(vertex < FSAVERAGE5_VERTICES // 2, "L", "R"))
    named = {"parcel": table["parcel"]} if "parcel" in table else {}
    for column in (c for c in table if c.startswith("roi_")):
        named[column] = table[column].map({"1": column.removeprefix("roi_")}).fillna("")
    for column, names in named.items():
        said = np.array([_label(name).hemisphere for name in names])
        wrong = np.flatnonzero((sides != "") & (said != "") & (sides != said))
        if len(wrong):
            row = int(wrong[0])
            raise UserError(
                f"{file}: row {row + 1} has vertex {vertex[row]}, which lies {SIDES[sides[row]]}, "
                f"and the parcel {names.iloc[row]!r} of {column!r}, which lies "
                f"{SIDES[said[row]]}; vertices are numbered left (0 to 10241), then right."
            )


def project(vertex: np.ndarray) -> sp.csr_matrix:
    """Return the projection (20,484, V) of voxels that each lie at one vertex (-1: nowhere).

    Voxels at the same vertex share its weight of 1.
    """
    import scipy.sparse as sp

    placed = np.flatnonzero(vertex >= 0)
    there = vertex[placed]
    weight = 1 / np.bincount(there, minlength=FSAVERAGE5_VERTICES)[there]
    shape = (FSAVERAGE5_VERTICES, len(vertex))
    return sp.csr_matrix((weight.astype(np.float32), (there, placed)), shape=shape)


def _numbers(column: pd.Series, file: Path, name: str) -> np.ndarray:
    try:
        values = column.replace("", "nan").astype(np.float32).to_numpy()
    except ValueError as error:
        raise UserError(f"{file}: the column {name!r} needs numbers ({error}).") from error
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise UserError(f"{file}: row {row + 1} of the column {name!r} is not a finite number.")
    return values


def _label(name: str) -> Label:
    """Return the label of a parcel's name; a final " L" or " R" is its hemisphere."""
    base, _, side = name.rpartition(" ")
    return Label(base, side) if base and side in ("L", "R") else Label(name)


def _partition(name: str, column: pd.Series, digest: str) -> Parcellation:
    names = [n for n in dict.fromkeys(column) if n]
    index = {n: i for i, n in enumerate(names)}
    membership = np.array([index.get(n, -1) for n in column], dtype=np.int32)
    return Parcellation(name, "partition", tuple(map(_label, names)), membership, digest)


def _masks(table: pd.DataFrame, file: Path, digest: str) -> Parcellation:
    columns = [c for c in table if c.startswith("roi_")]
    for column in columns:
        other = sorted(set(table[column]) - {"0", "1"})
        if other:
            raise UserError(f"{file}: the column {column!r} holds 0 or 1, found {other[0]!r}.")
    masks = np.array([(table[c] == "1").to_numpy() for c in columns])
    labels = tuple(_label(c.removeprefix("roi_")) for c in columns)
    return Parcellation("ROIs", "masks", labels, masks, digest)
