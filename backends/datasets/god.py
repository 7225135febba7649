"""Generic Object Decoding: 1,200 training and 50 test pictures seen, and 50 categories imagined.

Horikawa and Kamitani 2017, in two forms: the bdpy files ``Subject1.h5`` to ``Subject5.h5``
(figshare 7387130), and the arrays ``sbj_1.npz`` to ``sbj_5.npz`` that MinD-Vis ships.

A stimulus is called ``n01443537_22563``: WordNet synset, then the number of the picture in it. In
the bdpy files it is the float 1443537.022563, of which a text may have lost the last zeros. So ids
are compared as whole millionths, and lists are joined by id, never by row: the training list is
sorted as text, other lists of the same pictures as numbers.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.reading import (
    LazyRows,
    hdf5_rows,
    npz_array,
    npz_names,
    open_hdf5,
    standardised,
)
from explorer.types import (
    Label,
    Parcellation,
    Subject,
    Trials,
    UserError,
    VoxelSpace,
    voxel_hash,
)

if TYPE_CHECKING:
    import h5py
    import pandas as pd

TITLE = "Generic Object Decoding (Horikawa and Kamitani 2017)"
CITATION = (
    "Horikawa & Kamitani (2017). Generic decoding of seen and imagined objects using hierarchical "
    "visual features. Nature Communications 8:15037."
)
WHERE = "github.com/KamitaniLab/GenericObjectDecoding"
ASK_FOR_PICTURES = (
    "the pictures are not public, the Kamitani lab shares them on request "
    "(https://forms.gle/ujvA34948Xg49jdn9)"
)
# Voxels in ROI_VC of each subject; GenericObjectDecoding's files and MinD-Vis's agree on them.
VC_VOXELS = {1: 4466, 2: 4404, 3: 4643, 4: 4133, 5: 4370}
DATA_TYPES = {1: "training", 2: "perception", 3: "imagery"}
SPLIT_LISTS = {
    "train": ("image_training_id.csv", "imageID_training.csv"),
    "test": ("image_test_id.csv", "imageID_test.csv"),
}
PICTURE_FOLDERS = ("images/training", "images/test", "training", "test")
FEW_ROWS = 5  # below this a z-score within run says little
LOOKED_AT = 64  # rows, spread over the file, by which a constant voxel is known
SEEN_BY_IMAGENET = (
    "20 of the 50 test pictures belong to the ILSVRC 2012 training set, so features of networks "
    "trained on ImageNet have seen them"
)


def image_name(number: float) -> str:
    """Return the name behind a GOD id: 1443537.022563 is n01443537_22563.

    An imagery id has no picture, only a category: 1443537 is n01443537. Raises `UserError` for a
    number that is no id.
    """
    millionths = round(number * 1e6) if np.isfinite(number) else 0
    synset, picture = divmod(millionths, 10**6)
    if not 0 < synset < 10**8:
        raise UserError(
            f"A GOD stimulus id is a WordNet number and six decimals, as in 1443537.022563; found "
            f"{number}."
        )
    return f"n{synset:08d}_{picture}" if picture else f"n{synset:08d}"


class BData:
    """A bdpy file: a matrix (samples, columns) and metadata that say what each column is.

    Layout: bdpy's ``BData.save``. ``dataset`` (n, columns), ``metadata/key`` and
    ``metadata/value`` (keys, columns) with 1 at the columns of a key, NaN or 0 elsewhere; older
    files spell the groups ``dataSet`` and ``metaData``. ``vmap/KEY/NUMBER`` gives texts for
    numbers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_hdf5(path, f"the fMRI data are on figshare, see {WHERE}")
        self.matrix: h5py.Dataset = self._member("dataset", "dataSet")
        about = self._member("metadata", "metaData")
        if "key" not in about or "value" not in about:
            raise UserError(f"{path}: {about.name} lacks key or value; it is no bdpy file.")
        texts = [k.decode() if isinstance(k, bytes) else str(k) for k in about["key"][()]]
        self.keys = {key.strip(): row for row, key in enumerate(texts)}
        self._values = about["value"][()]
        expected = (len(texts), self.matrix.shape[-1])
        if self._values.shape != expected:
            raise UserError(
                f"{path}: metadata values for {expected[0]} keys and {expected[1]} columns have "
                f"shape {expected}, found {self._values.shape}; copy it again."
            )

    def _member(self, *spellings: str) -> Any:
        for name in spellings:
            if name in self._file:
                return self._file[name]
        raise UserError(
            f"{self.path} has no {' or '.join(spellings)}, so it is no bdpy file; it has "
            f"{', '.join(self._file) or 'nothing'}."
        )

    def columns(self, key: str) -> np.ndarray:
        """Return the columns that a key marks, in order."""
        if key not in self.keys:
            raise UserError(f"{self.path} lacks the key {key}; it has {', '.join(self.keys)}.")
        return np.flatnonzero(self._values[self.keys[key]] == 1)

    def described(self, key: str, columns: np.ndarray) -> np.ndarray:
        """Return a key's metadata values at some columns, e.g. where voxels lie."""
        return self._values[self.keys[key]][columns]

    def label(self, key: str) -> np.ndarray:
        """Return the one column of the matrix that a key marks: a label per sample, (n,)."""
        columns = self.columns(key)
        if len(columns) != 1:
            raise UserError(
                f"{self.path}: the key {key} marks one column of labels, found {len(columns)}."
            )
        return self.matrix[:, columns[0]]

    def names(self, key: str) -> dict[float, str]:
        """Return the text for each number of a label, {} when the file has none."""
        texts = self._file.get(f"vmap/{key}", {})
        return {float(number): _text(texts[number][()]) for number in texts}

    def close(self) -> None:
        """Close the file; rows can no longer be read."""
        self._file.close()


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
        _one_of(name, "trials", trials, ("perception", "imagery"))
        _one_of(name, "norm", norm, ("run", "train", "none"))
        self.trials = trials
        self._root = self.path if self.path.is_dir() else self.path.parent
        self._images = Path(images).expanduser() if images else self._root
        self._subjects = {file.stem: file for file in _god_files(self.path)}
        self._opened: dict[str, BData] = {}
        if not self._subjects:
            if self.path.is_file():
                _check_keys(BData(self.path))
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
        found = {}
        for split, names in SPLIT_LISTS.items():
            places = [self._images / sub / n for sub in ("", "images", "data") for n in names]
            file = next((place for place in places if place.is_file()), None)
            if file is not None:
                found[split] = read_id_list(file)
        return found

    @cached_property
    def _pictures(self) -> dict[str, Path]:
        """Every picture that was found, by stimulus."""
        found: dict[str, Path] = {}
        for folder in PICTURE_FOLDERS:
            place = self._images / folder
            found |= {p.stem: p for p in (place.iterdir() if place.is_dir() else ())}
        return found

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
        found = BData(self._subjects[subject])
        count, number = len(found.columns("ROI_VC")), _number(subject)
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

    def _groups(self, found: BData, kinds: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
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

    def _columns(self, found: BData) -> tuple[np.ndarray, int]:
        """Return the columns of the chosen voxels, and how many more are NaN or constant.

        Finding those would need every row; they are known by 64 rows spread over the file, which
        catches voxels outside the scan. A NaN elsewhere is refused when its row is read.
        """
        rois = [key.removeprefix("ROI_") for key in found.keys if key.startswith("ROI_")]
        _one_of(self.name, "roi", self.roi, (*rois, "all"))
        columns = found.columns("VoxelData" if self.roi == "all" else f"ROI_{self.roi}")
        n = len(found.matrix)
        rows = np.unique(np.linspace(0, n - 1, min(LOOKED_AT, n)).astype(int))
        alive = _alive(np.stack([found.matrix[row][columns] for row in rows]))
        if not alive.any():
            raise UserError(f"{found.path} has no voxel that varies in {self.roi}; copy it again.")
        return columns[alive], int((~alive).sum())

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
        self._check_names(found.path, names[keep], split)
        run = found.label("Run").astype(np.int64)[keep]
        session = found.label("Session").astype(np.int64)[keep] if "Session" in found.keys else 1
        table = pd.DataFrame(
            {"stimulus": names[keep], "split": split, "session": session, "run": run}
        )
        table["data_type"] = kinds[keep]
        table["repeat"] = table.groupby(["stimulus", "split"]).cumcount()

        columns, _ = self._columns(found)
        rows = hdf5_rows(found.matrix, str(found.path), columns)
        # Statistics are of whole runs, so rows are chosen after that.
        if self.norm == "run":
            rows = standardised(rows, self._groups(found, kinds)[0], np.ones(len(kinds), bool))
        elif self.norm == "train":
            rows = standardised(rows, np.zeros(len(kinds), int), kinds == 1, ddof=1)
        betas = LazyRows((len(keep), len(columns)), lambda n: rows[keep[n]], rows.source)
        units = {
            "run": "z-score within run (by all trials of the run, also in test runs)",
            "train": "z-score by the training trials",
            "none": "response amplitude as published",
        }
        return Trials(self._subject(found, subject, columns), betas, units[self.norm], table)

    def _check_names(self, path: Path, names: np.ndarray, split: np.ndarray) -> None:
        """Refuse a stimulus that no list has, or that is both training and test."""
        train, test = set(names[split == "train"]), set(names[split == "test"])
        if train & test:
            raise UserError(
                f"{path}: {min(train & test)} is shown in training and in test trials; a stimulus "
                "belongs to one of them."
            )
        for kind, shown in (("train", train), ("test", test)):
            unknown = sorted(shown - set(self._lists.get(kind, shown)))
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

    def _subject(self, found: BData, subject: str, columns: np.ndarray) -> Subject:
        keys = [key for key in ("voxel_x", "voxel_y", "voxel_z") if key in found.keys]
        places = {key: found.described(key, columns) for key in keys}
        digest = voxel_hash("god", subject, columns, *places.values())
        masks = {
            key.removeprefix("ROI_"): np.isin(columns, found.columns(key))
            for key in found.keys
            if key.startswith("ROI_")
        }
        rois = _roi_masks(masks, digest)
        voxels = VoxelSpace(len(columns), digest, parcellations={"ROIs": rois})
        return Subject(self.name, subject, voxels, maps=places)

    def image(self, stimulus: str) -> np.ndarray:
        """Return a picture, uint8 RGB (H, W, 3)."""
        from PIL import Image

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
        try:
            with Image.open(file) as opened:
                return np.asarray(opened.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(
                f"The picture of {stimulus} cannot be read ({file}); copy it again."
            ) from error

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
            count, number = len(found.columns("ROI_VC")), _number(subject)
            if number and count != VC_VOXELS[number]:
                said.append(
                    f"{subject} has {count} voxels in VC where the published file has "
                    f"{VC_VOXELS[number]}."
                )
            masked = self._columns(found)[1]
            if masked:
                said.append(
                    f"{subject}: {masked} voxels of {self.roi} are NaN or constant and masked out."
                )
            group, says = self._groups(found, kinds)
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


class GODMindVis:
    """Generic Object Decoding as MinD-Vis ships it, arrays in ``sbj_N.npz``.

    Layout (MinD-Vis, ``create_Kamitani_dataset``): ``arr_0`` (1200, V) training trials, ``arr_1``
    (1750, V) single test trials in an order that nothing documents, ``arr_2`` (50, V) their
    averages in the order of the test pictures, ``arr_3`` (1200,) the row of ``train_images`` that
    each training trial shows, from 0; every other array is an ROI over the V voxels. So a test
    stimulus has one trial here, the average. MinD-Vis scales test trials by the mean and SD of
    training trials that it has scaled before; here both are scaled once, by the raw ones.

    Parameters
    ----------
    path
        The folder of ``sbj_1.npz`` to ``sbj_5.npz``, the folder above it, or one of the files.
        ``images_256.npz``, ``imagenet_*_label.csv`` and ``imagenet_class_index.json`` lie beside.
    name
        What the data set is called.
    roi
        The voxels: VC, or another ROI of the file, or "all".
    norm
        "train": by each voxel's mean and SD over the training trials. "none": as in the file.
    """

    looks_for = "sbj_1.npz to sbj_5.npz with arr_0 to arr_3 (MinD-Vis, Kamitani/npz)"
    title = f"{TITLE}, arrays of MinD-Vis"
    licence = "as stated by MinD-Vis and the Kamitani lab; the pictures may not be passed on"
    citation = CITATION
    simulated = False
    redistributable = False
    split_unit = "stimulus"
    note = (
        "Each of the 50 test pictures has one trial, the average of its 35; their categories are "
        "in no training picture; the voxels have no place on the cortical surface."
    )

    def __init__(self, path: Path, name: str, roi: str = "VC", norm: str = "train") -> None:
        self.path, self.name, self.roi, self.norm = Path(path), name, roi, norm
        _one_of(name, "norm", norm, ("train", "none"))
        self._subjects = {file.stem: file for file in _mindvis_files(self.path)}
        if not self._subjects:
            raise UserError(
                f"{self.path} holds no sbj_1.npz to sbj_5.npz with arr_0 to arr_3; give the "
                "folder Kamitani/npz of MinD-Vis."
            )
        self._root = next(iter(self._subjects.values())).parent

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether ``sbj_N.npz`` with the four arrays lie there."""
        return bool(_mindvis_files(Path(path)))

    @cached_property
    def _images(self) -> dict[str, np.ndarray]:
        """The pictures of each split (n, H, W, 3), mapped from the file; {} when it is missing."""
        files = sorted(self._root.glob("images_*.npz"))
        if not files:
            return {}
        found = {s: npz_array(files[0], f"{s}_images") for s in ("train", "test")}
        for split, pictures in found.items():
            if pictures.ndim != 4 or pictures.shape[3] != 3:
                raise UserError(
                    f"{files[0]}: {split}_images needs shape (n, H, W, 3), found {pictures.shape}."
                )
        return found

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """The stimulus of every row of ``train_images`` and ``test_images``."""
        first = next(iter(self._subjects.values()))
        lengths = {"train": len(npz_array(first, "arr_3")), "test": len(npz_array(first, "arr_2"))}
        lengths |= {split: len(pictures) for split, pictures in self._images.items()}
        names = {}
        for split, word in (("train", "training"), ("test", "testing")):
            file = self._root / f"imagenet_{word}_label.csv"
            names[split] = [f"{split}-{i:04d}" for i in range(lengths[split])]
            if file.is_file():
                names[split] = list(read_id_list(file))
            if len(names[split]) != lengths[split]:
                raise UserError(
                    f"{file} has {len(names[split])} pictures where {lengths[split]} are needed; "
                    "the files belong to different releases."
                )
        if set(names["train"]) & set(names["test"]):
            both = min(set(names["train"]) & set(names["test"]))
            raise UserError(f"{self.path}: {both} is listed as training and as test picture.")
        return names

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """The pictures, with the ImageNet class of those whose synset is one of the thousand."""
        import pandas as pd

        classes, file = {}, self._root / "imagenet_class_index.json"
        if file.is_file():
            try:
                classes = dict(json.loads(file.read_text(encoding="utf-8")).values())
            except (ValueError, AttributeError) as error:
                raise UserError(f"{file} is damaged ({error}); copy it again.") from error
        names = [*self._names["train"], *self._names["test"]]
        synsets = [name.partition("_")[0] if "_" in name else "" for name in names]
        columns = {
            "caption": "",
            "category": [classes.get(s, s).replace("_", " ") for s in synsets],
            "source": [f"{split}_images" for split, ids in self._names.items() for _ in ids],
        }
        return pd.DataFrame(columns, index=pd.Index(names, name="stimulus", dtype=object))

    def subjects(self) -> list[str]:
        """Return the subjects, named as their files."""
        return list(self._subjects)

    def _voxels(self, file: Path) -> tuple[np.ndarray, int, dict[str, np.ndarray]]:
        """Return the chosen voxels, how many of them are masked out, and all ROIs bool (V,)."""
        training = npz_array(file, "arr_0")
        v = training.shape[1]
        rois = {
            key: as_mask(npz_array(file, key), v, f"{file}, ROI {key}")
            for key in npz_names(file)
            if not key.startswith("arr_")
        }
        _one_of(self.name, "roi", self.roi, (*rois, "all"))
        chosen = np.flatnonzero(np.ones(v, bool) if self.roi == "all" else rois[self.roi])
        rows = np.unique(np.linspace(0, len(training) - 1, LOOKED_AT).astype(int))
        alive = _alive(np.asarray(training[rows])[:, chosen])
        if not alive.any():
            raise UserError(f"{file} has no voxel that varies in {self.roi}; copy it again.")
        return chosen[alive], int((~alive).sum()), rois

    def load(self, subject: str) -> Trials:
        """Return a subject's training trials, then the 50 averaged test trials."""
        import pandas as pd

        if subject not in self._subjects:
            raise UserError(
                f"{self.name} has the subjects {', '.join(self._subjects)}, not {subject!r}."
            )
        file = self._subjects[subject]
        train, test, order = (npz_array(file, f"arr_{i}") for i in (0, 2, 3))
        n, names = len(train), self._names
        if train.ndim != 2 or test.shape != (len(names["test"]), train.shape[1]):
            raise UserError(
                f"{file}: arr_2 needs shape ({len(names['test'])}, voxels of arr_0), found arr_0 "
                f"{train.shape} and arr_2 {test.shape}."
            )
        order = np.asarray(order)
        if order.shape != (n,) or order.min() < 0 or order.max() >= len(names["train"]):
            raise UserError(
                f"{file}: arr_3 needs one row of train_images, 0 to {len(names['train']) - 1}, "
                f"for each of {n} training trials, found shape {order.shape} with values "
                f"{order.min()} to {order.max()}."
            )
        chosen, _, rois = self._voxels(file)

        def read(wanted: np.ndarray) -> np.ndarray:
            parts = train[wanted[wanted < n]], test[wanted[wanted >= n] - n]
            return np.concatenate([np.asarray(part)[:, chosen] for part in parts])

        rows = LazyRows((n + len(test), len(chosen)), read, str(file))
        training = np.arange(len(rows)) < n
        if self.norm == "train":
            rows = standardised(rows, np.zeros(len(rows), int), training)
        table = pd.DataFrame({"stimulus": [names["train"][i] for i in order] + names["test"]})
        table["split"] = np.where(training, "train", "test")
        table["repeat"] = table.groupby(["stimulus", "split"]).cumcount()
        table["session"], table["run"] = 1, 1
        digest = voxel_hash("god-mindvis", subject, train.shape[1], chosen)
        masks = _roi_masks({key: mask[chosen] for key, mask in rois.items()}, digest)
        voxels = VoxelSpace(len(chosen), digest, parcellations={"ROIs": masks})
        unit = {"train": "z-score by the training trials", "none": "as in the file"}[self.norm]
        return Trials(Subject(self.name, subject, voxels), rows, unit, table)

    @cached_property
    def _scale(self) -> float:
        """What a float picture is multiplied by: such files exist with 0 to 1 and with 0 to 255.

        A file is 0 to 1 when none of its first eight pictures has a value above 1.
        """
        first = self._images["train"][:8]
        return 1.0 if first.dtype == np.uint8 or first.max() > 1 else 255.0

    def image(self, stimulus: str) -> np.ndarray:
        """Return a picture, uint8 RGB (H, W, 3)."""
        split = next((s for s, names in self._names.items() if stimulus in names), None)
        if split is None:
            raise UserError(
                f"{self.name} has no stimulus {stimulus!r}; it has {len(self.stimuli)}, such as "
                f"{self.stimuli.index[0]}."
            )
        if not self._images:
            raise UserError(
                f"{self.name}: images_256.npz is not in {self._root}; it comes with MinD-Vis's "
                f"data, {ASK_FOR_PICTURES}."
            )
        picture = self._images[split][self._names[split].index(stimulus)]
        return np.clip(np.round(picture * self._scale), 0, 255).astype(np.uint8)

    def remarks(self) -> list[str]:
        """Return what is missing, masked or special in these files, one sentence each."""
        said = [
            "arr_1, the single test trials, is not used: nothing says in which order they lie, so "
            "each test picture has one trial, the average in arr_2.",
            "MinD-Vis scales test trials by already scaled training trials, in effect not at all; "
            "here both are scaled by the raw training trials, so its checkpoints see new values.",
        ]
        missing = [f"sbj_{k}" for k in VC_VOXELS if f"sbj_{k}" not in self._subjects]
        if self.path.is_dir() and missing:
            said.append(f"{', '.join(missing)} of sbj_1 to sbj_5 are not here.")
        for subject, file in self._subjects.items():
            _, masked, rois = self._voxels(file)
            if masked:
                said.append(
                    f"{subject}: {masked} voxels of {self.roi} are NaN or constant and masked out."
                )
            count, number = int(rois["VC"].sum()) if "VC" in rois else 0, _number(subject)
            if number and "VC" in rois and count != VC_VOXELS[number]:
                said.append(
                    f"{subject} has {count} voxels in VC where the published file has "
                    f"{VC_VOXELS[number]}."
                )
        if not self._images:
            said.append(f"images_256.npz is not here: {ASK_FOR_PICTURES}.")
        lists = [self._root / f"imagenet_{word}_label.csv" for word in ("training", "testing")]
        if all(file.is_file() for file in lists):
            said.append(
                "Pictures are named by the rows of imagenet_*_label.csv, as MinD-Vis joins them; "
                "the arrays themselves hold no names."
            )
        else:
            said.append("imagenet_*_label.csv is not here, so pictures are named by their row.")
        return [*said, f"{SEEN_BY_IMAGENET}."]


# ------------------------------------------------------------------------------------------- files


def read_id_list(path: Path) -> dict[str, str]:
    """Return picture file by stimulus, in the order of a list of ``id,"nXXXXXXXX_YYYY.JPEG"``.

    The list has no header. An id that is not its file's name raises `UserError`.
    """
    found: dict[str, str] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as opened:
            rows = [[cell.strip(" '\"") for cell in row] for row in csv.reader(opened) if row]
        for line, row in enumerate(rows, 1):
            stimulus = image_name(float(row[0]))
            if Path(row[1]).stem != stimulus:
                raise UserError(
                    f"{path}, line {line}: the id {row[0]} is {stimulus}, not {row[1]}; the list "
                    "is mixed up."
                )
            found[stimulus] = row[1]
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise UserError(
            f'{path} needs rows of id,"file" as in 1443537.022563,"n01443537_22563.JPEG" '
            f"({error})."
        ) from error
    return found


def as_mask(values: np.ndarray, n_voxels: int, what: str) -> np.ndarray:
    """Return an ROI as bool (V,), given as a bool mask, as zeros and ones, or as columns.

    As an index, the integers 0 and 1 of a mask would silently pick the first two voxels again and
    again, so an array of V zeros and ones is a mask.
    """
    if values.shape == (n_voxels,) and np.isin(values, (0, 1)).all():
        return np.asarray(values).astype(bool)
    whole = values.dtype.kind in "iu" and values.ndim == 1
    if whole and len(np.unique(values)) == len(values) and np.isin(values, range(n_voxels)).all():
        mask = np.zeros(n_voxels, bool)
        mask[values] = True
        return mask
    raise UserError(
        f"{what} needs a mask over {n_voxels} voxels or a list of their columns, found "
        f"{values.dtype} {values.shape}."
    )


def _god_files(path: Path) -> list[Path]:
    """Return the bdpy files of GOD at a path, in order; never raises."""
    files = sorted(path.glob("*.h5")) if path.is_dir() else [path]
    return [file for file in files if file.is_file() and _has_god_keys(file)]


def _has_god_keys(file: Path) -> bool:
    if file.suffix not in (".h5", ".hdf5"):
        return False
    try:
        found = BData(file)
        _check_keys(found)
        found.close()
    except (UserError, OSError, ValueError, TypeError, AttributeError, KeyError):
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


def _mindvis_files(path: Path) -> list[Path]:
    """Return MinD-Vis's ``sbj_N.npz`` at a path, in order; never raises."""
    if path.is_file():
        files = [path] if path.match("sbj_*.npz") else []
    else:
        files = sorted(path.glob("sbj_*.npz")) or sorted(path.glob("npz/sbj_*.npz"))
    return [file for file in files if _has_arrays(file)]


def _has_arrays(file: Path) -> bool:
    try:
        return {"arr_0", "arr_1", "arr_2", "arr_3"} <= set(npz_names(file))
    except UserError:
        return False


# ------------------------------------------------------------------------------------------- small


def _alive(values: np.ndarray) -> np.ndarray:
    """Return which columns are finite and vary, bool (V,)."""
    return np.isfinite(values).all(axis=0) & (values != values[:1]).any(axis=0)


def _roi_masks(masks: dict[str, np.ndarray], digest: str) -> Parcellation:
    """Return ROIs as an atlas of overlapping masks, without those that have no voxel here."""
    kept = {name: mask for name, mask in masks.items() if mask.any()}
    n = len(next(iter(masks.values()), ()))
    membership = np.stack(list(kept.values())) if kept else np.zeros((0, n), bool)
    return Parcellation("ROIs", "masks", tuple(map(Label, kept)), membership, digest)


def _one_of(name: str, option: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise UserError(f"{name}: {option} is one of {', '.join(allowed)}, not {value!r}.")


def _number(subject: str) -> int:
    """Return which of the five a file's name says, 0 when it says none."""
    return {f"{word}{k}": k for word in ("Subject", "sbj_") for k in VC_VOXELS}.get(subject, 0)


def _counts(kinds: np.ndarray) -> str:
    parts = [f"{int((kinds == kind).sum()):,} {text}" for kind, text in DATA_TYPES.items()]
    return f"{', '.join(parts)} trials"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
