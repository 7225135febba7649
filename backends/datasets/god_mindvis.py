"""Generic Object Decoding as MinD-Vis ships it: the arrays ``sbj_1.npz`` to ``sbj_5.npz``."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.god_study import (
    ASK_FOR_PICTURES,
    CITATION,
    SEEN_BY_IMAGENET,
    TITLE,
    VC_VOXELS,
    as_mask,
    one_of,
    person_number,
    read_id_list,
    roi_masks,
    spread,
    varying,
)
from backends.datasets.reading import (
    LazyRows,
    lies_in,
    npz_array,
    npz_names,
    stacked,
    standardised,
)
from explorer.files import read_object
from explorer.types import Origin, Subject, Trials, UserError, VoxelSpace, voxel_hash

if TYPE_CHECKING:
    import pandas as pd

PICTURES = {"train": 1200, "test": 50}
ROUNDING = 1e-3  # of white, by which an interpolation may leave its range


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
        one_of(name, "norm", norm, ("train", "none"))
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
            wrong_kind = pictures.dtype.kind not in "fiu"
            if pictures.ndim != 4 or pictures.shape[3] != 3 or wrong_kind:
                raise UserError(
                    f"{files[0]}: {split}_images needs numbers of shape (n, H, W, 3), found "
                    f"{pictures.dtype} {pictures.shape}."
                )
        return found

    @cached_property
    def _whites(self) -> dict[str, float]:
        """What is white in each split's pictures: such files exist with 1 and with 255."""
        file = next(iter(sorted(self._root.glob("images_*.npz"))), self._root)
        return {
            split: white_of(pictures, f"{file}: {split}_images")
            for split, pictures in self._images.items()
        }

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """The stimulus of every row of ``train_images`` and ``test_images``."""
        first = next(iter(self._subjects.values()))
        lengths = {"train": len(_whole(first, "arr_3")), "test": len(_numbers(first, "arr_2"))}
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
            pairs = list(read_object(file).values())
            if not all(isinstance(p, list) and list(map(type, p)) == [str, str] for p in pairs):
                raise UserError(
                    f'{file} needs pairs of texts, as in "0": ["n01440764", "tench"]; copy it '
                    "again."
                )
            classes = dict(pairs)
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
        training = _numbers(file, "arr_0")
        v = training.shape[1]
        rois = {
            key: as_mask(npz_array(file, key), v, f"{file}, ROI {key}")
            for key in npz_names(file)
            if not key.startswith("arr_")
        }
        one_of(self.name, "roi", self.roi, (*rois, "all"))
        chosen = np.flatnonzero(np.ones(v, bool) if self.roi == "all" else rois[self.roi])
        alive = varying(np.asarray(training[spread(len(training))])[:, chosen])
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
        train, test = (_numbers(file, f"arr_{i}") for i in (0, 2))
        order, names = _whole(file, "arr_3"), self._names
        n = len(train)
        if train.ndim != 2 or test.shape != (len(names["test"]), train.shape[1]):
            raise UserError(
                f"{file}: arr_2 needs shape ({len(names['test'])}, voxels of arr_0), found arr_0 "
                f"{train.shape} and arr_2 {test.shape}."
            )
        if order.shape != (n,) or order.min() < 0 or order.max() >= len(names["train"]):
            raise UserError(
                f"{file}: arr_3 needs one row of train_images, 0 to {len(names['train']) - 1}, "
                f"for each of {n} training trials, found shape {order.shape} with values "
                f"{order.min()} to {order.max()}."
            )
        chosen, _, rois = self._voxels(file)
        parts = [
            LazyRows(
                (len(array), len(chosen)),
                lambda wanted, array=array: np.asarray(array[wanted])[:, chosen],
                str(file),
                lies_in(file, key),
            )
            for key, array in (("arr_0", train), ("arr_2", test))
        ]
        rows = stacked(parts, str(file))
        training = np.arange(len(rows)) < n
        if self.norm == "train":
            rows = standardised(rows, np.zeros(len(rows), int), training)
        table = pd.DataFrame({"stimulus": [names["train"][i] for i in order] + names["test"]})
        table["split"] = np.where(training, "train", "test")
        table["repeat"] = table.groupby(["stimulus", "split"]).cumcount()
        table["session"], table["run"] = 1, 1
        digest = voxel_hash("god-mindvis", subject, train.shape[1], chosen)
        masks = roi_masks({key: mask[chosen] for key, mask in rois.items()}, digest)
        voxels = VoxelSpace(len(chosen), digest, parcellations={"ROIs": masks})
        unit = {"train": "z-score by the training trials", "none": "as in the file"}[self.norm]
        return Trials(Subject(self.name, subject, voxels), rows, unit, table)

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
        return _bytes(picture, self._whites[split], f"{self.name}: the picture of {stimulus}")

    split_by = "the authors: arr_0 is training, arr_2 is test"

    def picture_origin(self, stimulus: str) -> Origin | None:
        """Return where a picture lies; None where the pictures are not here."""
        file = next(iter(sorted(self._root.glob("images_*.npz"))), None)
        if file is None:
            return None
        split = "train" if stimulus in self._names["train"] else "test"
        return Origin(str(file), self._names[split].index(stimulus), f"{split}_images")

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return what names a picture: the name in MinD-Vis's lists and its row there."""
        split = "train" if stimulus in self._names["train"] else "test"
        row = self._names[split].index(stimulus)
        return {"name": stimulus, f"row of {split}_images, from 0": str(row)}

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
            count, number = int(rois["VC"].sum()) if "VC" in rois else 0, person_number(subject)
            if number and "VC" in rois and count != VC_VOXELS[number]:
                said.append(
                    f"{subject} has {count} voxels in VC where the published file has "
                    f"{VC_VOXELS[number]}."
                )
        for split, count in PICTURES.items():
            if len(self._names[split]) != count:
                said.append(
                    f"There are {len(self._names[split])} {split} pictures where {count} were "
                    "published."
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


def _numbers(file: Path, name: str) -> np.ndarray:
    """Return an array of betas (n, V) of a file."""
    found = npz_array(file, name)
    if found.ndim != 2 or not len(found) or found.dtype.kind not in "fiu":
        raise UserError(
            f"{file}: {name} needs numbers in trials and voxels, found {found.dtype} "
            f"{found.shape}."
        )
    return found


def _whole(file: Path, name: str) -> np.ndarray:
    """Return an array of whole numbers of a file, whatever their type, int64."""
    found = np.asarray(npz_array(file, name))
    if (
        found.ndim != 1
        or not found.size
        or found.dtype.kind not in "fiu"
        or (found % 1 != 0).any()
    ):
        raise UserError(
            f"{file}: {name} needs whole numbers in a row, found {found.dtype} {found.shape}."
        )
    return found.astype(np.int64)


# ---------------------------------------------------------------------------------------- pictures


def white_of(pictures: np.ndarray, where: str) -> float:
    """Return which value is white in pictures (n, H, W, 3), 1 or 255, by pictures spread over all.

    Whole numbers go to 255. One floating-point picture cannot tell: a dark one from 0 to 255 may
    end at 1, a bright one from -1 to 1 may have no negative value.
    """
    if pictures.dtype.kind in "iu":
        return 255.0
    ends = [(p.min(), p.max()) for p in (pictures[row] for row in spread(len(pictures)))]
    low, high = (float(f(end[i] for end in ends)) for i, f in enumerate((min, max)))
    for white in (1.0, 255.0):
        if -ROUNDING * white <= low <= high <= (1 + ROUNDING) * white:
            return white
    raise UserError(
        f"{where} has values from {low:g} to {high:g}, expected 0 to 255 or 0 to 1; save it so."
    )


def _bytes(picture: np.ndarray, white: float, where: str) -> np.ndarray:
    """Return a picture uint8 (H, W, 3), given which value is white."""
    low, high = float(picture.min()), float(picture.max())
    if not -ROUNDING * white <= low <= high <= (1 + ROUNDING) * white:  # NaN too
        raise UserError(
            f"{where} has values from {low:g} to {high:g}, where others have 0 to {white:g}; save "
            "all pictures in one range."
        )
    return np.clip(np.round(picture * (255 / white)), 0, 255).astype(np.uint8)
