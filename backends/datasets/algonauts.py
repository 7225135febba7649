"""Algonauts 2023: NSD's responses on fsaverage as the challenge gave them, one folder a person.

Layout (``algonauts_2023``, the challenge's preparation script)::

    subjXX/training_split/training_fmri/{lh,rh}_training_fmri.npy     float32 (images, vertices)
    subjXX/training_split/training_images/train-0001_nsd-00013.png    rank from 1, 73k id from 0
    subjXX/test_split/test_images/test-0001_nsd-XXXXX.png
    subjXX/test_split/test_fmri/{lh,rh}_test_fmri.npy                 not in the first release
    subjXX/test_split/noise_ceiling/{lh,rh}_noise_ceiling.npy         fraction, 0 to 1
    subjXX/roi_masks/{lh,rh}.all-vertices_fsaverage_space.npy         (163842,)
    subjXX/roi_masks/{lh,rh}.{streams,...}_challenge_space.npy        numbers, named by `ROIS`

Responses are z-scored within each session and averaged over an image's repeats, so there is one
row an image and no single trial. ``mapping_*.npy`` are pickles and never read: the names they hold
are NSD's own and stand in `ROIS`.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.god_study import roi_masks
from backends.datasets.layout_voxels import project
from backends.datasets.reading import LazyRows, stacked
from explorer.brain.atlases import desikan_killiany
from explorer.brain.parcels import lay
from explorer.files import read_array
from explorer.images import read_picture
from explorer.types import Origin, Subject, Trials, UserError, VoxelSpace, voxel_hash

if TYPE_CHECKING:
    import pandas as pd

SIDES = {"lh": "L", "rh": "R"}
VERTICES, COARSE = 163_842, 10_242  # fsaverage and fsaverage5, one hemisphere
NSD_IMAGES = 73_000
FILE = re.compile(r"(train|test)-(\d+)_nsd-(\d+)\.png")
# NSD's labels of each kind of region (its .mgz.ctab files), which the pickled mappings repeat.
ROIS = {
    "prf-visualrois": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    "floc-bodies": ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "floc-faces": ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    "floc-places": ("OPA", "PPA", "RSC"),
    "floc-words": ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
    "streams": (
        *("early", "midventral", "midlateral", "midparietal"),
        *("ventral", "lateral", "parietal"),
    ),
}
HELD_OUT = 10  # one image in so many, where the challenge's own test responses are not here


class Algonauts2023:
    """The challenge's folders of one or more of NSD's eight people.

    Parameters
    ----------
    path
        The folder that holds ``subj01`` to ``subj08``, or one of them.
    name
        What the data set is called.
    """

    title = "Algonauts 2023 (NSD on fsaverage)"
    licence = "Natural Scenes Dataset terms; not to be redistributed"
    citation = (
        "Gifford et al. 2023, arXiv 2301.03198; Allen et al. 2022, Nature Neuroscience, "
        "doi 10.1038/s41593-021-00962-x"
    )
    simulated = redistributable = False
    split_unit = "stimulus"
    looks_for = "folders subjXX with training_split/training_fmri/lh_training_fmri.npy"

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = Path(path), name
        self._people = _people(self.path)
        if not self._people:
            raise UserError(f"{self.path}: expected {self.looks_for}, found none; check the path.")

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a folder holds somebody's training responses of the challenge."""
        return bool(_people(Path(path)))

    @property
    def note(self) -> str:
        """What a visitor must know about the test images."""
        lacking = [who for who in self._people if not self._has_test(who)]
        if not lacking:
            return "Responses are averages over an image's repeats: there are no single trials."
        return (
            "Responses are averages over an image's repeats: there are no single trials. The "
            f"challenge's own test responses of {', '.join(lacking)} are not here, so one in "
            f"{HELD_OUT} of the training images is held out as test instead."
        )

    @cached_property
    def _images(self) -> dict[str, dict[str, list[Path]]]:
        """Subject -> split -> pictures in the order of their ranks, which is that of the rows."""
        return {who: _pictures(folder) for who, folder in self._people.items()}

    @cached_property
    def _files(self) -> dict[str, Path]:
        """Stimulus -> picture; what several people saw is one stimulus."""
        found: dict[str, Path] = {}
        for splits in self._images.values():
            for file in (*splits["train"], *splits["test"]):
                found.setdefault(_stimulus(file), file)
        return dict(sorted(found.items()))

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """One row a picture, by ``nsd-XXXXX``; ``source`` is its number of the 73k, from 0."""
        import pandas as pd

        names = list(self._files)
        rows = {
            "caption": "",
            "category": "",
            "source": [str(int(n.removeprefix("nsd-"))) for n in names],
        }
        return pd.DataFrame(rows, index=pd.Index(names, name="stimulus"))

    def subjects(self) -> list[str]:
        """Return the people whose folders are here."""
        return list(self._people)

    def load(self, subject: str) -> Trials:
        """Return a person's responses, one row an image, read from both hemispheres on demand."""
        import pandas as pd

        if subject not in self._people:
            raise UserError(
                f"{self.name} has the subjects {', '.join(self._people)}, not {subject!r}."
            )
        folder, images = self._people[subject], self._images[subject]
        parts = [_responses(folder / "training_split" / "training_fmri", "training")]
        shown, split = list(images["train"]), ["train"] * len(images["train"])
        if self._has_test(subject):
            parts.append(_responses(folder / "test_split" / "test_fmri", "test"))
            shown += images["test"]
            split += ["test"] * len(images["test"])
        else:
            split = [
                "test" if i % HELD_OUT == HELD_OUT - 1 else "train" for i in range(len(shown))
            ]
        for part, kind in zip(parts, ("train", "test"), strict=False):
            if len(part) != len(images[kind]):
                raise UserError(
                    f"{part.source} has {len(part)} rows and {len(images[kind])} pictures lie in "
                    f"{kind}ing_images or {kind}_images; each row is one picture, so copy both "
                    "again whole."
                )
        betas = stacked(parts, str(folder))
        table = pd.DataFrame(
            {"stimulus": [_stimulus(f) for f in shown], "split": split, "repeat": 0}
        ).assign(session=0, run=0)
        who = self._subject(subject, betas.shape[1])
        return Trials(who, betas, "z-score within session, mean of an image's repeats", table)

    def _subject(self, subject: str, v: int) -> Subject:
        folder = self._people[subject]
        masks = {side: _mask(folder, side) for side in SIDES}
        vertices = {side: np.flatnonzero(mask) for side, mask in masks.items()}
        count = sum(map(len, vertices.values()))
        if count != v:
            raise UserError(
                f"{folder / 'roi_masks'}: all-vertices mark {count} vertices of fsaverage and the "
                f"responses have {v} columns; both are of one person, so check which files these "
                "are."
            )
        digest = voxel_hash("algonauts2023", vertices["lh"], vertices["rh"])
        coarse = [
            np.where(at < COARSE, at + COARSE * i, -1) for i, at in enumerate(vertices.values())
        ]
        projection = project(np.concatenate(coarse))
        rois = roi_masks(_regions(folder, {s: len(at) for s, at in vertices.items()}), digest)
        atlas = lay(desikan_killiany(), projection, digest)
        atlases = {"ROIs": rois, atlas.name: atlas}
        voxels = VoxelSpace(v, digest, projection, parcellations=atlases)
        return Subject(self.name, subject, voxels, maps=_ceiling(folder, vertices))

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture that was shown, uint8 RGB (H, W, 3)."""
        if stimulus not in self._files:
            raise UserError(
                f"{self.name} has no stimulus {stimulus!r}; it has {len(self._files)}, such as "
                f"{next(iter(self._files))}."
            )
        return read_picture(self._files[stimulus])

    @property
    def split_by(self) -> str:
        """Who says which images are test."""
        if all(self._has_test(who) for who in self._people):
            return "the challenge: images of the last three sessions are test"
        return f"Afterimage, of the challenge's training images: every {HELD_OUT}th is test"

    def picture_origin(self, stimulus: str) -> Origin:
        """Return where a picture lies."""
        return Origin(str(self._files[stimulus]))

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return what names a picture: its number of NSD's 73k, and its file."""
        number = int(stimulus.removeprefix("nsd-"))
        return {
            "NSD's 73k, from 0": str(number),
            "NSD's 73k, from 1": str(number + 1),
            "file name": self._files[stimulus].name,
        }

    def _has_test(self, subject: str) -> bool:
        place = self._people[subject] / "test_split" / "test_fmri"
        return all((place / f"{side}_test_fmri.npy").is_file() for side in SIDES)

    def remarks(self) -> list[str]:
        """Return what must be known of these files, one sentence each."""
        said = []
        for who in self._people:
            trials = self.load(who)
            placed = np.diff(trials.subject.voxels.projection.tocsc().indptr).astype(bool).sum()
            said.append(
                f"{who}: {int(placed):,} of {trials.subject.voxels.n_voxels:,} vertices are those "
                "of fsaverage5 and are drawn; what lies between them decodes too, but has no "
                "place on this surface."
            )
            if not self._has_test(who):
                pictures = len(self._images[who]["test"])
                said.append(
                    f"{who}: the {pictures} test pictures have no responses here "
                    f"(test_split/test_fmri), so one in {HELD_OUT} training images is test."
                )
        said.append("mapping_*.npy are pickles and are not read; the names of ROIs are built in.")
        said.append(
            "The challenge's test set is not NSD's shared 1,000: it is the images of the last "
            "sessions, so scores on it do not compare with those of MindEye's."
        )
        return said


def _people(path: Path) -> dict[str, Path]:
    """Return subject -> folder, of those that have training responses."""
    folders = [path] if path.name.startswith("subj") else []
    folders += sorted(path.glob("subj[0-9][0-9]")) if path.is_dir() else []
    place = Path("training_split") / "training_fmri" / "lh_training_fmri.npy"
    return {folder.name: folder for folder in folders if (folder / place).is_file()}


def _pictures(folder: Path) -> dict[str, list[Path]]:
    """Return a person's pictures by split and rank; a rank that lacks or doubles is refused."""
    found: dict[str, list[Path]] = {}
    for split, place in (
        ("train", folder / "training_split" / "training_images"),
        ("test", folder / "test_split" / "test_images"),
    ):
        ranked: dict[int, Path] = {}
        for file in sorted(place.glob("*.png")):
            named = FILE.fullmatch(file.name)
            if named is None or named[1] != split:
                raise UserError(
                    f"{file}: pictures here are named {split}-0001_nsd-00013.png; take others out "
                    "of the folder."
                )
            rank, number = int(named[2]), int(named[3])
            if rank in ranked:
                raise UserError(f"{place}: {ranked[rank].name} and {file.name} have one rank.")
            if number >= NSD_IMAGES:
                raise UserError(
                    f"{file}: the number after nsd- counts NSD's 73,000 images from 0, found "
                    f"{number}."
                )
            ranked[rank] = file
        lacking = sorted(set(range(1, len(ranked) + 1)) - set(ranked))
        if lacking:
            raise UserError(
                f"{place}: ranks go from 1 to {len(ranked)} without gaps, and {lacking[0]} is not "
                "there; copy the pictures again."
            )
        found[split] = [ranked[rank] for rank in sorted(ranked)]
    return found


def _stimulus(file: Path) -> str:
    return f"nsd-{FILE.fullmatch(file.name)[3]}"


def _responses(folder: Path, kind: str) -> LazyRows:
    """Return both hemispheres' responses (images, left then right vertices)."""
    files = {side: folder / f"{side}_{kind}_fmri.npy" for side in SIDES}
    arrays = [read_array(file) for file in files.values()]
    for side, array in zip(SIDES, arrays, strict=True):
        if array.ndim != 2 or array.dtype.kind != "f":
            raise UserError(
                f"{folder / f'{side}_{kind}_fmri.npy'} holds {array.dtype} of shape "
                f"{array.shape}, expected real numbers (images, vertices)."
            )
    left, right = arrays
    if len(left) != len(right):
        raise UserError(
            f"{folder}: the left hemisphere has {len(left)} rows and the right {len(right)}; each "
            "image has one in both."
        )
    shape = len(left), left.shape[1] + right.shape[1]

    def lies(row: int) -> list[Origin]:
        return [Origin(str(file), row, note=f"hemisphere {SIDES[s]}") for s, file in files.items()]

    return LazyRows(shape, lambda n: np.hstack([left[n], right[n]]), str(folder), lies)


def _mask(folder: Path, side: str) -> np.ndarray:
    """Return bool (163842,): the vertices of fsaverage that the challenge's columns are."""
    file = folder / "roi_masks" / f"{side}.all-vertices_fsaverage_space.npy"
    mask = read_array(file, missing="it says which vertices the columns are; copy roi_masks too")
    if mask.shape != (VERTICES,) or not np.isin(mask, (0, 1)).all():
        raise UserError(
            f"{file} holds {mask.dtype} of shape {mask.shape}, expected 0 or 1 for each of the "
            f"{VERTICES} vertices of fsaverage."
        )
    return np.asarray(mask, dtype=bool)


def _regions(folder: Path, counts: dict[str, int]) -> dict[str, np.ndarray]:
    """Return region -> bool (V,), left and right together, for the maps that are here."""
    found = {}
    for kind, names in ROIS.items():
        sides = []
        for side, count in counts.items():
            file = folder / "roi_masks" / f"{side}.{kind}_challenge_space.npy"
            if not file.is_file():
                sides.append(np.zeros(count, int))
                continue
            numbers = np.asarray(read_array(file))
            if numbers.shape != (count,):
                raise UserError(
                    f"{file} has shape {numbers.shape}, expected one number for each of the "
                    f"{count} vertices of this hemisphere."
                )
            if numbers.max(initial=0) > len(names):
                raise UserError(
                    f"{file}: {kind} has the numbers 1 to {len(names)} ({', '.join(names)}), "
                    f"found {int(numbers.max())}."
                )
            sides.append(numbers)
        both = np.concatenate(sides)
        found |= {name: both == i for i, name in enumerate(names, start=1)}
    return found


def _ceiling(folder: Path, vertices: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the challenge's noise ceiling (V,) as a map, where it is here."""
    place = folder / "test_split" / "noise_ceiling"
    files = [place / f"{side}_noise_ceiling.npy" for side in SIDES]
    if not all(file.is_file() for file in files):
        return {}
    values = []
    for file, side in zip(files, SIDES, strict=True):
        stored = read_array(file)
        if stored.shape != (len(vertices[side]),) or stored.dtype.kind not in "fiu":
            raise UserError(
                f"{file} holds {stored.dtype} and has shape {stored.shape}, expected numbers of "
                f"{len(vertices[side])} vertices."
            )
        of = np.asarray(stored, dtype=np.float32)
        if np.nanmax(of, initial=0) > 1:
            raise UserError(
                f"{file}: the challenge's noise ceiling is a fraction from 0 to 1, found up to "
                f"{np.nanmax(of):g}; divide per cents by 100."
            )
        values.append(of)
    return {"noise ceiling of the challenge's test set": np.concatenate(values)}
