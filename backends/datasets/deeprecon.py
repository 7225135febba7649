"""Deep image reconstruction (Shen et al. 2019): natural images, shapes, letters, imagery.

bdpy files, one a person and kind of trial, in two generations: ``sub-01_ImageNetTraining_
fmriprep_volume_native.h5`` (figshare 2022; Generic Object Decoding was published anew in the same
form) and ``sub-01_perceptionNaturalImageTraining_original_VC.h5``. Training and test of natural
images share no category: the reason to decode here. A sample's picture is the text that
``vmap`` gives for its ``stimulus_name``; voxels are an ROI's columns, the same in all files of
one person.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.bdata import BData
from backends.datasets.god_study import one_of, roi_masks
from backends.datasets.reading import chosen, hdf5_rows, stacked, standardised
from explorer.images import ENDINGS, read_picture
from explorer.types import Origin, Subject, Trials, UserError, VoxelSpace, voxel_hash

if TYPE_CHECKING:
    import pandas as pd

# What follows the person's name in a file's, in both generations; the first kind is for training.
KINDS = {
    "training": ("ImageNetTraining", "perceptionNaturalImageTraining"),
    "natural": ("ImageNetTest", "perceptionNaturalImageTest"),
    "shapes": ("ArtificialShapes", "perceptionArtificialImage"),
    "letters": ("AlphabeticalLetters", "perceptionLetterImage"),
    "imagery": ("Imagery", "imagery"),
}
TESTS = tuple(KINDS)[1:]
FILE = re.compile(r"(?P<who>.+?)_(?P<kind>{})_.*\.h5".format("|".join(sum(KINDS.values(), ()))))
NAME = "stimulus_name"
ASK_FOR_PICTURES = "the natural pictures are shared by the Kamitani lab on request"
SYNSET = re.compile(r"(n\d{8})_\d+")


class Deeprecon:
    """Deep image reconstruction, or Generic Object Decoding in the same newer form.

    Parameters
    ----------
    path
        The folder of the bdpy files.
    name
        What the data set is called.
    trials
        Which test trials: "natural", "shapes", "letters" or "imagery"; training is of natural
        images in all.
    roi
        The voxels: VC, V1, LOC ... as the files name them, or "all".
    norm
        "train": by mean and SD (ddof 1) of the training trials, as the paper's code does; "none":
        as published.
    images
        The folder of the pictures, searched whole; default: ``images`` beside the files.
    """

    looks_for = "bdpy files named like sub-01_ImageNetTraining_fmriprep_volume_native.h5"
    title = "Deep image reconstruction (Shen et al. 2019)"
    licence = "as stated on figshare; the pictures are shared on request only"
    citation = (
        "Shen, Horikawa, Majima & Kamitani (2019). Deep image reconstruction from human brain "
        "activity. PLOS Computational Biology 15(1): e1006633."
    )
    simulated = redistributable = False
    split_unit = "stimulus"

    def __init__(
        self,
        path: Path,
        name: str,
        trials: str = "natural",
        roi: str = "VC",
        norm: str = "train",
        images: str = "",
    ) -> None:
        self.path, self.name, self.roi, self.norm = Path(path), name, roi, norm
        one_of(name, "trials", trials, TESTS)
        one_of(name, "norm", norm, ("train", "none"))
        self.trials = trials
        self._images = Path(images).expanduser() if images else self.path / "images"
        if images and not self._images.is_dir():
            raise UserError(f"{name}: images={images} is no folder; check the path.")
        self._people = _people(self.path)
        self._opened: dict[Path, BData] = {}
        lacking = {who for who, of in self._people.items() if not {"training", trials} <= set(of)}
        self._left_out = sorted(lacking)
        self._people = {who: of for who, of in self._people.items() if who not in lacking}
        if not self._people:
            raise UserError(
                f"{self.path}: expected files of training and {trials} trials of one person, "
                f"found {_listed(self.path)}; fetch the missing ones, or choose other ?trials=."
            )

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether somebody's training and test files of this form lie there."""
        return any("training" in of for of in _people(Path(path)).values())

    def relatives(self) -> dict[str, dict[str, str]]:
        """Return the kinds of test trials that lie here, see `explorer.protocols.Dataset`."""
        same = {"roi": self.roi, "norm": self.norm}
        if self._images.is_dir():
            same["images"] = str(self._images)
        there = set.intersection(*(set(of) for of in self._people.values()))
        kinds = {kind: kind for kind in ("shapes", "letters")}
        if {"natural", "imagery"} <= there:
            kinds |= {"natural": "seen", "imagery": "imagined"}
        return {told: same | {"trials": kind} for kind, told in kinds.items() if kind in there}

    @property
    def note(self) -> str:
        """What a visitor must know of the test trials."""
        said = {
            "natural": "Training and test images share no category: what is decoded cannot be "
            "a category that was learned.",
            "shapes": "Test images are artificial shapes, nothing like the training images.",
            "letters": "Test images are letters, nothing like the training images.",
            "imagery": "Test trials are imagined: the picture was not on the screen.",
        }
        return said[self.trials]

    @cached_property
    def _pictures(self) -> dict[str, Path]:
        files = self._images.rglob("*") if self._images.is_dir() else ()
        return {f.stem: f for f in sorted(files) if f.suffix.lower() in ENDINGS}

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """One row a picture, by the name that the files give it; the category is its synset."""
        import pandas as pd

        found: dict[str, None] = {}
        for who in self._people:
            for kind in ("training", self.trials):
                found |= dict.fromkeys(self._named(who, kind)[0])
        rows = [
            {"caption": "", "category": _category(name), "source": name} for name in sorted(found)
        ]
        return pd.DataFrame(rows, index=pd.Index(sorted(found), name="stimulus"))

    def subjects(self) -> list[str]:
        """Return the people of whom training and these test trials are here."""
        return list(self._people)

    def _file(self, subject: str, kind: str) -> BData:
        path = self._people[subject][kind]
        if path not in self._opened:
            self._opened[path] = BData(path)
        return self._opened[path]

    def _named(self, subject: str, kind: str) -> tuple[list[str], np.ndarray]:
        """Return the picture's name of every sample that has one, and those samples' rows."""
        found = self._file(subject, kind)
        texts, values = found.names(NAME), found.label(NAME)
        if not texts:
            raise UserError(
                f"{found.path}: nothing says which picture the numbers of {NAME} are (vmap/{NAME} "
                "is missing); save it again with bdpy, which keeps them."
            )
        rows = np.flatnonzero(np.isfinite(values))
        unknown = [v for v in values[rows] if float(v) not in texts]
        if unknown:
            raise UserError(
                f"{found.path}: {NAME} {unknown[0]:g} is not among the {len(texts)} names of "
                "vmap; the file is damaged, copy it again."
            )
        return [texts[float(v)] for v in values[rows]], rows

    def load(self, subject: str) -> Trials:
        """Return a person's training trials and the chosen kind of test trials."""
        import pandas as pd

        if subject not in self._people:
            raise UserError(
                f"{self.name} has the subjects {', '.join(self._people)}, not {subject!r}."
            )
        parts, tables = [], []
        first = self._file(subject, "training")
        for kind, split in (("training", "train"), (self.trials, "test")):
            found = self._file(subject, kind)
            names, rows = self._named(subject, kind)
            columns = _voxels(found, self.roi)
            _same_voxels(first, found, _voxels(first, self.roi), columns)
            every = hdf5_rows(found.matrix, str(found.path), columns)
            parts.append(chosen(every, rows))
            about = {
                key.lower(): found.whole(key)[rows] if key in found.keys else 1
                for key in ("Session", "Run")
            }
            tables.append(pd.DataFrame({"stimulus": names, "split": split, **about}))
        table = pd.concat(tables, ignore_index=True)
        both = set(tables[0]["stimulus"]) & set(tables[1]["stimulus"])
        if both and self.trials != "imagery":
            raise UserError(
                f"{self._people[subject][self.trials]}: {sorted(both)[0]} and {len(both) - 1} "
                "more of its pictures are in the training file too; test pictures are never "
                "trained."
            )
        table["repeat"] = table.groupby(["stimulus", "split"]).cumcount()
        betas = stacked(parts, str(self.path))
        unit = "response amplitude as published"
        if self.norm == "train":
            trained = (table["split"] == "train").to_numpy()
            betas = standardised(betas, np.zeros(len(table), int), trained, ddof=1)
            unit = "z-score by the training trials"
        return Trials(self._subject(subject, first), betas, unit, table)

    def _subject(self, subject: str, found: BData) -> Subject:
        columns = _voxels(found, self.roi)
        keys = [key for key in ("voxel_x", "voxel_y", "voxel_z") if key in found.keys]
        places = {key: found.described(key, columns) for key in keys}
        digest = voxel_hash("deeprecon", subject, columns, *places.values())
        masks = {
            key.removeprefix("ROI_"): np.isin(columns, found.columns(key))
            for key in found.keys
            if key.startswith("ROI_")
        }
        rois = roi_masks(masks, digest)
        voxels = VoxelSpace(len(columns), digest, parcellations={"ROIs": rois})
        return Subject(self.name, subject, voxels, maps=places)

    def image(self, stimulus: str) -> np.ndarray:
        """Return a picture, uint8 RGB (H, W, 3)."""
        if stimulus not in self.stimuli.index:
            raise UserError(
                f"{self.name} has no stimulus {stimulus!r}; it has {len(self.stimuli)}, such as "
                f"{self.stimuli.index[0]}."
            )
        if stimulus not in self._pictures:
            raise UserError(
                f"{self.name}: the picture of {stimulus} is not in {self._images}; "
                f"{ASK_FOR_PICTURES}; name their folder with ?images=FOLDER."
            )
        return read_picture(self._pictures[stimulus], f"The picture of {stimulus}")

    @property
    def split_by(self) -> str:
        """Who says which trials are test."""
        return f"the authors: the training file is train, test is {self.trials}"

    def picture_origin(self, stimulus: str) -> Origin | None:
        """Return where a picture lies; None where it is not here."""
        file = self._pictures.get(stimulus)
        return None if file is None else Origin(str(file))

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return what names a picture in the label file."""
        synset = stimulus.partition("_")[0]
        return {"stimulus_name": stimulus} | ({"synset": synset} if synset[:1] == "n" else {})

    def remarks(self) -> list[str]:
        """Return what must be known of these files, one sentence each."""
        said = []
        for who in self._people:
            counts = {k: len(self._named(who, k)[0]) for k in self._people[who]}
            said.append(f"{who}: {', '.join(f'{n} {kind}' for kind, n in counts.items())} trials.")
        if self._left_out:
            said.append(
                f"{', '.join(self._left_out)}: files of training or {self.trials} trials are not "
                "here, so these people are left out."
            )
        splits = [
            {_category(n) for n in self._named(next(iter(self._people)), kind)[0]} - {""}
            for kind in ("training", self.trials)
        ]
        shared = sorted(splits[0] & splits[1])
        if shared:
            said.append(
                f"{len(shared)} categories are in training and test ({shared[0]} ...); in the "
                "published files of natural images there is none."
            )
        absent = sum(name not in self._pictures for name in self.stimuli.index)
        if absent:
            said.append(
                f"{absent} of {len(self.stimuli)} pictures are not here: {ASK_FOR_PICTURES}."
            )
        said.append(
            "voxel_x, voxel_y and voxel_z are kept as maps; they are in each person's own space, "
            "so voxels are not put on the surface."
        )
        return said


def _people(path: Path) -> dict[str, dict[str, Path]]:
    """Return subject -> kind of trials -> file."""
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(path.glob("*.h5")) if path.is_dir() else ():
        named = FILE.fullmatch(file.name)
        if named is not None:
            kind = next(kind for kind, words in KINDS.items() if named["kind"] in words)
            of = found.setdefault(named["who"], {})
            if kind in of:
                raise UserError(
                    f"{path}: {of[kind].name} and {file.name} are both the {kind} trials of "
                    f"{named['who']}; keep those of one generation."
                )
            of[kind] = file
    return found


def _listed(path: Path) -> str:
    return ", ".join(f.name for f in sorted(path.glob("*.h5"))[:6]) or "no .h5 file"


def _category(name: str) -> str:
    named = SYNSET.fullmatch(name)
    return named[1] if named else ""


def _voxels(found: BData, roi: str) -> np.ndarray:
    return found.columns("VoxelData" if roi == "all" else f"ROI_{roi}")


def _same_voxels(a: BData, b: BData, of_a: np.ndarray, of_b: np.ndarray) -> None:
    """Refuse files of one person whose voxels differ in number or place."""
    if len(of_a) != len(of_b):
        raise UserError(
            f"{a.path} has {len(of_a)} voxels and {b.path} has {len(of_b)}; both are of one "
            "person, so take them from one generation."
        )
    for key in ("voxel_x", "voxel_y", "voxel_z"):
        if key in a.keys and key in b.keys:
            here, there = a.described(key, of_a), b.described(key, of_b)
            if not np.array_equal(here, there, equal_nan=True):
                raise UserError(
                    f"{a.path} and {b.path} put their voxels at other places ({key}); they are "
                    "not in one order, or not of one person."
                )
