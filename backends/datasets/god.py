"""Generic Object Decoding: 1,200 training and 50 test pictures seen, and 50 categories imagined.

Horikawa and Kamitani 2017, as the bdpy files ``Subject1.h5`` to ``Subject5.h5`` (figshare
7387130). `god_study` says how stimuli are named.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.bdata import BData
from backends.datasets.god_study import (
    ASK_FOR_PICTURES,
    CITATION,
    SEEN_BY_IMAGENET,
    TITLE,
    VC_VOXELS,
    image_name,
    one_of,
    person_number,
    read_id_list,
    roi_masks,
    spread,
    varying,
)
from backends.datasets.reading import chosen, hdf5_rows, hdf5_values, standardised
from explorer.images import read_picture
from explorer.types import Origin, Subject, Trials, UserError, VoxelSpace, voxel_hash

if TYPE_CHECKING:
    import pandas as pd

WHERE = "github.com/KamitaniLab/GenericObjectDecoding"
DATA_TYPES = {1: "training", 2: "perception", 3: "imagery"}
SPLIT_LISTS = {
    "train": ("image_training_id.csv", "imageID_training.csv"),
    "test": ("image_test_id.csv", "imageID_test.csv"),
}
PICTURE_FOLDERS = ("images/training", "images/test", "training", "test")
FEW_ROWS = 5  # below this a z-score within run says little


class GOD:
    """Generic Object Decoding as bdpy files.

    Parameters
    ----------
    path
        The folder of ``Subject1.h5`` to ``Subject5.h5``, or one of them. ``image_training_id.csv``
        and ``image_test_id.csv`` (or GenericObjectDecoding's ``imageID_*.csv``) and
        ``images/training``, ``images/test`` are found beside them.
    name
        What the data set is called.
    roi
        The voxels: VC (all of visual cortex), LVC, HVC, V1 to V4, LOC, FFA, PPA, or "all".
    trials
        Which test trials: "perception" (DataType 2) or "imagery" (DataType 3). Training is
        perception (DataType 1) in both.
    norm
        "run": z-scored within each run by all of its own trials, as the field does (no label is
        used); runs are told apart by DataType, Run and, where it is given, Session, since run
        numbers start again. "train": by mean and SD (ddof 1) of the training trials, as the
        paper's code does. "none": as published.
    images
        Another folder for lists and pictures.
    """

    looks_for = "bdpy files, Subject1.h5 to Subject5.h5, with DataType, Run and stimulus_id"
    title = TITLE
    licence = "as stated on figshare (7387130); the pictures are shared on request only"
    citation = CITATION
    simulated = False
    redistributable = False
    split_unit = "stimulus"

    def __init__(
        self,
        path: Path,
        name: str,
        roi: str = "VC",
        trials: str = "perception",
        norm: str = "run",
        images: str = "",
    ) -> None:
        self.path, self.name, self.roi, self.norm = Path(path), name, roi, norm
        one_of(name, "trials", trials, ("perception", "imagery"))
        one_of(name, "norm", norm, ("run", "train", "none"))
        self.trials = trials
        self._root = self.path if self.path.is_dir() else self.path.parent
        self._images = Path(images).expanduser() if images else self._root
        self._subjects = {file.stem: file for file in _god_files(self.path)}
        self._opened: dict[str, BData] = {}
        if not self._subjects:
            if self.path.is_file():
                _check_keys(_opened(self.path))
            raise UserError(
                f"{self.path} holds no file of Generic Object Decoding; give the folder of "
                f"Subject1.h5 to Subject5.h5 (see {WHERE})."
            )
        if images and not self._images.is_dir():
            raise UserError(f"{name}: images={images} is no folder; check the path.")

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether bdpy files with DataType, Run and stimulus ids lie there."""
        return bool(_god_files(Path(path)))

    def relatives(self) -> dict[str, dict[str, str]]:
        """Return both kinds of test trials, see `explorer.protocols.Dataset`."""
        same = {"roi": self.roi, "norm": self.norm, "images": str(self._images)}
        return {
            "seen": same | {"trials": "perception"},
            "imagined": same | {"trials": "imagery"},
        }

    @property
    def note(self) -> str:
        """What a person should know of the trials they see."""
        places = "the voxels have no place on the cortical surface"
        if self.trials == "imagery":
            return (
                "Nothing was shown in the test trials: a category was imagined, and the picture "
                f"beside it is the one test picture of that category; {places}."
            )
        return (
            "The 50 test pictures, shown 35 times each, are of categories that no training "
            f"picture has; {places}."
        )

    @cached_property
    def _lists(self) -> dict[str, dict[str, str]]:
        """Picture file by stimulus for each split whose list was found."""
        return _find_lists(self._images)

    @cached_property
    def _pictures(self) -> dict[str, Path]:
        """Every picture that was found, by stimulus."""
        return _find_pictures(self._images)

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """The pictures: by the lists, or where these are missing by the ids in the data."""
        import pandas as pd

        by_split = {split: list(names) for split, names in self._lists.items()}
        for split, kind in (("train", 1), ("test", 2)):
            if split not in by_split:
                shown: set[str] = set()
                for subject in self._subjects:
                    kinds, names = self._labels(subject)
                    shown |= set(names[kinds == kind])
                by_split[split] = sorted(shown)
        names = list(dict.fromkeys([*by_split["train"], *by_split["test"]]))
        files = {n: f for files in self._lists.values() for n, f in files.items()}
        columns = {
            "caption": "",
            "category": [n.partition("_")[0] for n in names],
            "source": [files.get(n, "") for n in names],
        }
        return pd.DataFrame(columns, index=pd.Index(names, name="stimulus", dtype=object))

    def subjects(self) -> list[str]:
        """Return the subjects, named as their files."""
        return list(self._subjects)

    def _bdata(self, subject: str) -> BData:
        """Return a subject's file; the wrong subject's file is refused."""
        if subject not in self._subjects:
            raise UserError(
                f"{self.name} has the subjects {', '.join(self._subjects)}, not {subject!r}."
            )
        if subject in self._opened:
            return self._opened[subject]
        found = _opened(self._subjects[subject])
        count, number = len(found.columns("ROI_VC")), person_number(subject)
        other = {voxels: k for k, voxels in VC_VOXELS.items() if k != number}
        if number and count in other:
            raise UserError(
                f"{found.path} has {count} voxels in VC, as Subject{other[count]} has, where "
                f"{subject} has {VC_VOXELS[number]}; two subjects' files are mixed up."
            )
        self._opened[subject] = found
        return found

    def _labels(self, subject: str) -> tuple[np.ndarray, np.ndarray]:
        """Return DataType int (n,) and stimulus name (n,) of every row of a subject's file.

        Imagery rows name the category's test picture, whether the file gives that picture's id
        (the first release) or only the category's.
        """
        found = self._bdata(subject)
        kinds = found.label("DataType")
        if not np.isin(kinds, list(DATA_TYPES)).all():
            odd = kinds[~np.isin(kinds, list(DATA_TYPES))][0]
            raise UserError(f"{found.path}: DataType is 1, 2 or 3, found {odd:g}.")
        key, names = _label_key(found), found.names(_label_key(found))
        if found.matrix.dtype.itemsize < 8 and not names:
            raise UserError(
                f"{found.path} holds {found.matrix.dtype}, in which stimulus ids lose their "
                "decimals; float64 is needed, copy the file as published."
            )
        numbers = found.label(key)
        values, back = np.unique(numbers, return_inverse=True)
        texts = [names[v].partition(".")[0] if v in names else image_name(v) for v in values]
        named = np.array(texts, dtype=object)[back]
        shown = {*named[kinds == 2], *self._lists.get("test", ())}
        by_category = {name.partition("_")[0]: name for name in sorted(shown)}
        imagined = kinds == 3
        named[imagined] = [by_category.get(n.partition("_")[0], n) for n in named[imagined]]
        return kinds.astype(np.int64), named

    def load(self, subject: str) -> Trials:
        """Return a subject's training trials and the chosen kind of test trials."""
        import pandas as pd

        found = self._bdata(subject)
        kinds, names = self._labels(subject)
        test_kind = next(k for k, text in DATA_TYPES.items() if text == self.trials)
        for kind in (1, test_kind):
            if not (kinds == kind).any():
                raise UserError(
                    f"{found.path} has no {DATA_TYPES[kind]} trial (DataType {kind}); it has "
                    f"{_counts(kinds)}."
                )
        keep = np.flatnonzero((kinds == 1) | (kinds == test_kind))
        split = np.where(kinds[keep] == 1, "train", "test")
        _check_names(found.path, names[keep], split, self._lists)
        run = found.whole("Run")[keep]
        session = found.whole("Session")[keep] if "Session" in found.keys else 1
        table = pd.DataFrame(
            {"stimulus": names[keep], "split": split, "session": session, "run": run}
        )
        table["data_type"] = kinds[keep]
        table["repeat"] = table.groupby(["stimulus", "split"]).cumcount()

        columns, _ = voxel_columns(found, self.roi, self.name)
        rows = hdf5_rows(found.matrix, str(found.path), columns)
        # Statistics are of whole runs, so rows are chosen after that.
        if self.norm == "run":
            rows = standardised(rows, runs(found, kinds)[0], np.ones(len(kinds), bool))
        elif self.norm == "train":
            rows = standardised(rows, np.zeros(len(kinds), int), kinds == 1, ddof=1)
        betas = chosen(rows, keep)
        units = {
            "run": "z-score within run (by all trials of the run, also in test runs)",
            "train": "z-score by the training trials",
            "none": "response amplitude as published",
        }
        return Trials(_subject(found, self.name, subject, columns), betas, units[self.norm], table)

    def image(self, stimulus: str) -> np.ndarray:
        """Return a picture, uint8 RGB (H, W, 3)."""
        if stimulus not in self.stimuli.index:
            raise UserError(
                f"{self.name} has no stimulus {stimulus!r}; it has {len(self.stimuli)}, such as "
                f"{self.stimuli.index[0]}."
            )
        file = self._pictures.get(stimulus)
        if file is None:
            raise UserError(
                f"{self.name}: the picture of {stimulus} is not in {self._images / 'images'}; "
                f"{ASK_FOR_PICTURES}, and they belong in images/training and images/test there."
            )
        return read_picture(file, f"The picture of {stimulus}")

    @property
    def split_by(self) -> str:
        """Who says which trials are test."""
        return f"the authors: DataType 1 is training, test is {self.trials}"

    def picture_origin(self, stimulus: str) -> Origin | None:
        """Return where a picture lies; None where it is not here."""
        file = self._pictures.get(stimulus)
        return None if file is None else Origin(str(file))

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return what names a picture: ImageNet's id, its synset, and its file."""
        file = str(self.stimuli.at[stimulus, "source"])
        found = {"ImageNet": stimulus, "synset": stimulus.partition("_")[0]}
        return found | ({"file name": file} if file else {})

    def remarks(self) -> list[str]:
        """Return what is missing, masked or special in these files, one sentence each."""
        said = []
        missing = [f"Subject{k}" for k in VC_VOXELS if f"Subject{k}" not in self._subjects]
        if self.path.is_dir() and missing:
            said.append(f"{', '.join(missing)} of Subject1 to Subject5 are not here.")
        for subject in self._subjects:
            found = self._bdata(subject)
            kinds, _ = self._labels(subject)
            said.append(f"{subject}: {_counts(kinds)}.")
            count, number = len(found.columns("ROI_VC")), person_number(subject)
            if number and count != VC_VOXELS[number]:
                said.append(
                    f"{subject} has {count} voxels in VC where the published file has "
                    f"{VC_VOXELS[number]}."
                )
            masked = voxel_columns(found, self.roi, self.name)[1]
            if masked:
                said.append(
                    f"{subject}: {masked} voxels of {self.roi} are NaN or constant and masked out."
                )
            group, says = runs(found, kinds)
            small = [says[i] for i, size in enumerate(np.bincount(group)) if size < FEW_ROWS]
            if self.norm == "run" and small:
                said.append(
                    f"{subject}: {len(small)} runs have fewer than {FEW_ROWS} trials "
                    f"({small[0]}), too few for a z-score within run; norm=train does without."
                )
        for split, names in SPLIT_LISTS.items():
            if split not in self._lists:
                said.append(
                    f"{' or '.join(names)} is not here, so {split} stimuli are named by the ids "
                    f"in the data; the lists come with {WHERE} or with the pictures."
                )
        absent = sum(name not in self._pictures for name in self.stimuli.index)
        if absent:
            said.append(
                f"{absent} of {len(self.stimuli)} pictures are not here: {ASK_FOR_PICTURES}."
            )
        said.append(f"{SEEN_BY_IMAGENET}.")
        said.append(
            "voxel_x, voxel_y and voxel_z are kept as maps; in which space they lie is not "
            "documented, so voxels are not put on the surface."
        )
        return said


# --------------------------------------------------------------------------------- rows and voxels


def runs(found: BData, kinds: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Return the run of every row as a number, and what each number means."""
    keys = ["Session", "Run"] if "Session" in found.keys else ["Run"]
    labels = np.stack([kinds, *(found.label(key) for key in keys)], axis=1)
    which, group = np.unique(labels, axis=0, return_inverse=True)
    says = {
        i: f"{DATA_TYPES[int(row[0])]}, "
        + ", ".join(f"{k} {v:g}" for k, v in zip(keys, row[1:], strict=True))
        for i, row in enumerate(which)
    }
    return group.reshape(-1), says


def voxel_columns(found: BData, roi: str, name: str) -> tuple[np.ndarray, int]:
    """Return the columns of an ROI's voxels, and how many more are NaN or constant.

    Finding those would need every row; they are known by 64 rows spread over the file, which
    catches voxels outside the scan. A NaN elsewhere is refused when its row is read. ``name`` is
    the data set's, for messages.
    """
    rois = [key.removeprefix("ROI_") for key in found.keys if key.startswith("ROI_")]
    one_of(name, "roi", roi, (*rois, "all"))
    columns = found.columns("VoxelData" if roi == "all" else f"ROI_{roi}")
    rows = spread(len(found.matrix))
    alive = varying(np.stack([hdf5_values(found.matrix, row)[columns] for row in rows]))
    if not alive.any():
        raise UserError(f"{found.path} has no voxel that varies in {roi}; copy it again.")
    return columns[alive], int((~alive).sum())


def _subject(found: BData, name: str, subject: str, columns: np.ndarray) -> Subject:
    keys = [key for key in ("voxel_x", "voxel_y", "voxel_z") if key in found.keys]
    places = {key: found.described(key, columns) for key in keys}
    digest = voxel_hash("god", subject, columns, *places.values())
    masks = {
        key.removeprefix("ROI_"): np.isin(columns, found.columns(key))
        for key in found.keys
        if key.startswith("ROI_")
    }
    rois = roi_masks(masks, digest)
    voxels = VoxelSpace(len(columns), digest, parcellations={"ROIs": rois})
    return Subject(name, subject, voxels, maps=places)


def _check_names(
    path: Path, names: np.ndarray, split: np.ndarray, lists: dict[str, dict[str, str]]
) -> None:
    """Refuse a stimulus that no list has, or that is both training and test."""
    train, test = set(names[split == "train"]), set(names[split == "test"])
    if train & test:
        raise UserError(
            f"{path}: {min(train & test)} is shown in training and in test trials; a stimulus "
            "belongs to one of them."
        )
    for kind, shown in (("train", train), ("test", test)):
        unknown = sorted(shown - set(lists.get(kind, shown)))
        if unknown:
            raise UserError(
                f"{path}: {unknown[0]} is among the {kind} trials and not in "
                f"{' or '.join(SPLIT_LISTS[kind])}; both must come from one release."
            )
    bare = sorted(name for name in test if "_" not in name)
    if bare:
        raise UserError(
            f"{path}: the imagined category {bare[0]} has no test picture, neither in the "
            f"perception trials nor in {' or '.join(SPLIT_LISTS['test'])}."
        )


# ------------------------------------------------------------------------------------------- files


def _find_lists(root: Path) -> dict[str, dict[str, str]]:
    """Return picture file by stimulus for each split whose list is found under a folder."""
    found = {}
    for split, names in SPLIT_LISTS.items():
        places = [root / sub / n for sub in ("", "images", "data") for n in names]
        file = next((place for place in places if place.is_file()), None)
        if file is not None:
            found[split] = read_id_list(file)
    return found


def _find_pictures(root: Path) -> dict[str, Path]:
    """Return every picture under a folder, by stimulus."""
    found: dict[str, Path] = {}
    for folder in PICTURE_FOLDERS:
        place = root / folder
        found |= {p.stem: p for p in (place.iterdir() if place.is_dir() else ())}
    return found


def _opened(path: Path) -> BData:
    return BData(path, f"the fMRI data are on figshare, see {WHERE}")


def _god_files(path: Path) -> list[Path]:
    """Return the bdpy files of GOD at a path, in order; never raises."""
    files = sorted(path.glob("*.h5")) if path.is_dir() else [path]
    return [file for file in files if file.is_file() and _has_god_keys(file)]


def _has_god_keys(file: Path) -> bool:
    if file.suffix not in (".h5", ".hdf5"):
        return False
    try:
        found = _opened(file)
        _check_keys(found)
        found.close()
    except UserError:
        return False
    return True


def _check_keys(found: BData) -> None:
    """Refuse a bdpy file of another study."""
    lacking = [k for k in ("VoxelData", "ROI_VC", "DataType", "Run") if k not in found.keys]
    if lacking or not _label_key(found):
        raise UserError(
            f"{found.path} is a bdpy file without {(lacking or ['stimulus_id or Label'])[0]}, so "
            f"it is not of Generic Object Decoding; it has {', '.join(found.keys)}."
        )


def _label_key(found: BData) -> str:
    return next((key for key in ("stimulus_id", "Label") if key in found.keys), "")


def _counts(kinds: np.ndarray) -> str:
    parts = [f"{int((kinds == kind).sum()):,} {text}" for kind, text in DATA_TYPES.items()]
    return f"{', '.join(parts)} trials"
