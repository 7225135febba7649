"""THINGS-fMRI (Hebart et al. 2023): 8,640 pictures seen once, 100 test pictures twelve times.

Layout (figshare 20492835 and OpenNeuro ds004192, ``derivatives``)::

    betas_csv/sub-01_{ResponseData.h5,StimulusMetadata.csv,VoxelMetadata.csv}   `things_tables`
    betas_vol/sub-01/ses-things01/*_run-01_{betas.nii.gz,conditions.tsv}        `things_volumes`
    brainmasks/sub-01_space-T1w_brainmask.nii.gz
    THINGS-images/<concept>/<concept>_01b.jpg                                   osf.io/jum2f
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.bold5000_volumes import Sessions
from backends.datasets.god_study import one_of
from backends.datasets.reading import LazyRows, chosen, standardised
from backends.datasets.things_files import Pictures, masks_atlas, ncsnr_of_percent
from backends.datasets.things_tables import (
    Voxels,
    check_ceilings,
    find_tables,
    read_betas,
    read_trials,
    read_voxels,
)
from backends.datasets.things_volumes import brain_mask, find_runs, trial_table, volume_rows
from explorer.files import short
from explorer.folders import cache_folder
from explorer.types import Origin, Subject, Trials, UserError, VoxelSpace, voxel_hash

if TYPE_CHECKING:
    import pandas as pd

PEOPLE = ("sub-01", "sub-02", "sub-03")
SESSIONS, RUNS = 12, 10
TRAIN, TEST, REPEATS = 8640, 100, 12
NOWHERE = {("sub-02", 3, 7): "session 3 run 7 is not in OpenNeuro's ds004192 either"}
NAMED = 6  # runs that a sentence names
ZERO_SHOT = "neuralfetch's zero_shot_split of Hebart2023ThingsBold"


class ThingsFMRI:
    """THINGS-fMRI as tables or as volumes.

    Parameters
    ----------
    path
        The folder that holds ``betas_csv`` or ``betas_vol`` (or ``derivatives`` with these).
    name
        What the data set is called.
    source
        "table" or "volumes"; default: the table where it is.
    roi
        The voxels: "visual" (every region of the study's own localisers and retinotopy), "all",
        or a column of VoxelMetadata.csv such as V1, FFA (both sides), lFFA, glasser-FFC. Default:
        visual where there is a VoxelMetadata.csv, else all.
    split
        "paper": trial_type. "zero-shot": without the training images of the test's concepts.
    norm
        "none": as published. "session": z-scored within session by its training trials.
    images
        The folder of the pictures; default: THINGS-images beside the betas.
    cache
        Where tables that were turned are kept; default: $AFTERIMAGE_CACHE or ~/.cache/afterimage.
    """

    title = "THINGS-fMRI (Hebart et al. 2023)"
    licence = "betas CC0; the pictures have terms of their own and are not to be redistributed"
    citation = (
        "Hebart et al. 2023, THINGS-data, eLife 12:e82580, doi 10.7554/eLife.82580; Hebart et al. "
        "2019, PLOS ONE 14(10): e0223792"
    )
    simulated = redistributable = False
    split_unit = "stimulus"
    looks_for = "betas_csv/sub-0X_ResponseData.h5, or betas_vol/sub-0X/ses-things01/*_betas.nii.gz"

    def __init__(
        self,
        path: Path,
        name: str,
        source: str = "",
        roi: str = "",
        split: str = "paper",
        norm: str = "none",
        images: str = "",
        cache: str = "",
    ) -> None:
        self.path, self.name, self.roi, self.norm = Path(path), name, roi, norm
        self._cache = (Path(cache).expanduser() if cache else cache_folder()) / "things-fmri"
        root = _root(self.path)
        if root is None:
            raise UserError(f"{self.path}: expected {self.looks_for}, found none; check the path.")
        self._root, self._tables, self._runs = root, find_tables(root), find_runs(root)
        one_of(name, "split", split, ("paper", "zero-shot"))
        one_of(name, "norm", norm, ("none", "session"))
        self.split, self.source = split, source or ("table" if self._tables else "volumes")
        one_of(name, "source", self.source, ("table", "volumes"))
        self._people = list(self._tables if self.source == "table" else self._runs)
        if not self._people:
            other = "volumes" if self.source == "table" else "table"
            raise UserError(f"{name}: there is no {self.source} of betas here, but {other}.")
        self._pictures = Pictures(name, images, (root, root.parent, root.parent.parent))
        self._sessions = Sessions()
        self._known: dict[str, tuple[Subject, np.ndarray, np.ndarray]] = {}

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a table or volumes of the study's betas lie there."""
        return _root(Path(path)) is not None

    @property
    def note(self) -> str:
        """What a visitor must know of the voxels and the split."""
        said = "The voxels lie in each person's own space and have no place on the surface."
        if self.split == "zero-shot":
            return f"No concept of a test image was trained (zero-shot). {said}"
        return f"Other images of the test's concepts were trained. {said}"

    # ------------------------------------------------------------------------------------- stimuli

    @cached_property
    def _tabled(self) -> dict[str, tuple[pd.DataFrame, list[int]]]:
        """Subject -> a row a trial with split and source, and the volumes that each run lists."""
        return {who: self._trials(who) for who in self._people}

    def _trials(self, subject: str) -> tuple[pd.DataFrame, list[int]]:
        files = self._tables.get(subject)
        if self.source == "table":
            table, listed = read_trials(files.trials, subject), []
            table = table.sort_values("trial_id", ignore_index=True)
            where = str(files.trials)
        else:
            table, listed = trial_table(self._runs[subject])
            where = f"{self._root / 'betas_vol' / subject}"
            known = read_trials(files.trials, subject) if files else None
            table["split"] = _split(table, known, where)
        both = set(table["source"][table["split"] == "train"])
        both &= set(table["source"][table["split"] == "test"])
        if both:
            raise UserError(
                f"{where}: {short(min(both))} is shown in training and in test trials; a picture "
                "belongs to one of them."
            )
        return table, listed

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """One row a picture, by its file's name without ending; the category is its concept."""
        import pandas as pd

        sources = sorted({s for table, _ in self._tabled.values() for s in table["source"]})
        columns = {
            "caption": "",
            "category": [source.partition("/")[0] for source in sources],
            "source": sources,
        }
        names = [_stimulus(source) for source in sources]
        return pd.DataFrame(columns, index=pd.Index(names, name="stimulus", dtype=object))

    def subjects(self) -> list[str]:
        """Return the people whose betas are here."""
        return list(self._people)

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture that was shown, uint8 RGB (H, W, 3)."""
        if stimulus not in self.stimuli.index:
            raise UserError(
                f"{self.name} has no stimulus {stimulus!r}; it has {len(self.stimuli)}, such as "
                f"{next(iter(self.stimuli.index), 'none')}."
            )
        return self._pictures.read(stimulus, self.stimuli.at[stimulus, "source"])

    @property
    def split_by(self) -> str:
        """Who says which trials are test."""
        said = "the authors: trial_type of StimulusMetadata.csv"
        if self.source == "volumes" and not self._tables:
            said = "the authors' design: an image of more than one session is a test image"
        if self.split == "zero-shot":
            return f"{said}; without the training images of the test's concepts, as {ZERO_SHOT}"
        return said

    def picture_origin(self, stimulus: str) -> Origin | None:
        """Return where a picture lies; None where it is not here."""
        file = self._pictures.find(self.stimuli.at[stimulus, "source"])
        return None if file is None else Origin(str(file))

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return what names a picture: its file among THINGS' and its concept."""
        source = str(self.stimuli.at[stimulus, "source"])
        return {"THINGS' file": source, "THINGS' concept": source.partition("/")[0]}

    # -------------------------------------------------------------------------------------- trials

    def load(self, subject: str) -> Trials:
        """Return a person's trials, catch trials left out."""
        if subject not in self._people:
            raise UserError(
                f"{self.name} has the subjects {', '.join(self._people)}, not {subject!r}."
            )
        table = self._tabled[subject][0]
        who, betas = self._read(subject, table)
        unit = "beta of a time series z-scored within run"
        if self.norm == "session":
            trained = (table["split"] == "train").to_numpy()
            betas = standardised(betas, table["session"].to_numpy(), trained)
            unit = "z-score within session (by its training trials)"
        keep = np.arange(len(table))
        if self.split == "zero-shot":
            keep = np.flatnonzero(~_of_test_concepts(table))
            table, betas = table.iloc[keep].reset_index(drop=True), chosen(betas, keep)
        shown = table.assign(stimulus=[_stimulus(source) for source in table["source"]])
        shown["repeat"] = shown.groupby("stimulus").cumcount()
        return Trials(who, betas, unit, shown[["stimulus", "split", "repeat", "session", "run"]])

    def _read(self, subject: str, table: pd.DataFrame) -> tuple[Subject, LazyRows]:
        """Return a person's voxels, and the betas of their trials in the table's order."""
        if subject not in self._known:
            files = self._tables.get(subject)
            voxels = read_voxels(files.voxels, subject) if files else None
            ids = np.arange(0) if voxels is None else voxels.ids
            self._known[subject] = (*self._subject(subject, voxels), ids)
        who, which, ids = self._known[subject]
        if self.source == "table":
            file = self._tables[subject].betas
            return who, read_betas(file, table, ids, which, self._cache)
        space, runs = who.voxels, self._runs[subject]
        where = str(self._root / "betas_vol" / subject)
        listed = self._tabled[subject][1]
        return who, volume_rows(
            runs, table, listed, space.mask, space.affine, self._sessions, where
        )

    def _subject(self, subject: str, voxels: Voxels | None) -> tuple[Subject, np.ndarray]:
        """Return a person, and which rows of the table of voxels are theirs."""
        brain = self._root / "brainmasks" / f"{subject}_space-T1w_brainmask.nii.gz"
        mask = affine = None
        if brain.is_file() or self.source == "volumes":
            mask, affine = brain_mask(brain)
        if voxels is None:
            if self.roi not in ("", "all"):
                raise UserError(
                    f"{self.name}: roi={self.roi} needs {subject}_VoxelMetadata.csv in betas_csv, "
                    "which says where regions are; fetch it, or take roi=all."
                )
            digest = voxel_hash("things-fmri", subject, mask, affine)
            space = VoxelSpace(int(mask.sum()), digest, mask=mask, affine=affine)
            return Subject(self.name, subject, space), np.arange(space.n_voxels)
        where = str(self._tables[subject].voxels)
        if mask is not None:
            _check_places(voxels.places, mask, where, str(brain))
        which = np.flatnonzero(self._chosen(voxels))
        places = voxels.places[which]
        digest = voxel_hash("things-fmri", subject, voxels.ids[which], places)
        if mask is not None:
            mask = np.zeros_like(mask)
            mask[tuple(places.T)] = True
        single = ncsnr_of_percent(voxels.maps["nc_singletrial"], 1, f"{where}: nc_singletrial")
        tested = ncsnr_of_percent(voxels.maps["nc_testset"], REPEATS, f"{where}: nc_testset")
        check_ceilings(single, tested, REPEATS, where)
        atlases = {
            name: masks_atlas(name, {label: m[which] for label, m in masks.items()}, digest)
            for name, masks in (("ROIs", voxels.rois), ("Glasser", voxels.glasser))
            if masks
        }
        space = VoxelSpace(len(which), digest, mask=mask, affine=affine, parcellations=atlases)
        maps = {name: values[which] for name, values in voxels.maps.items()}
        return Subject(self.name, subject, space, ncsnr=single[which], maps=maps), which

    def _chosen(self, voxels: Voxels) -> np.ndarray:
        """Return which voxels the option ``roi`` means, bool (V,)."""
        named: dict[str, list[np.ndarray]] = {"all": [np.ones(len(voxels.ids), bool)]}
        for label, mask in voxels.rois.items():
            sided = f"{label.hemisphere.lower()}{label.name}"
            for key in dict.fromkeys(("visual", label.name, sided)):
                named.setdefault(key, []).append(mask)
        for label, mask in voxels.glasser.items():
            named[f"glasser-{label.name}"] = [mask]
        roi = self.roi or ("visual" if "visual" in named else "all")
        if roi not in named:  # a sentence does not list Glasser's 180 areas
            own = [key for key in named if not key.startswith("glasser-")]
            one_of(self.name, "roi", roi, [*own, "glasser-AREA"])
        found = np.any(named[roi], axis=0)
        if not found.any():
            raise UserError(f"{self.name}: roi={roi} has no voxel here; choose another.")
        return found

    # ------------------------------------------------------------------------------------- remarks

    def remarks(self) -> list[str]:
        """Return what is lacking, left out or special here, one sentence each."""
        said = []
        if absent := [who for who in PEOPLE if who not in self._people]:
            said.append(f"{', '.join(absent)} of {', '.join(PEOPLE)} are not here.")
        for who in self._people:
            table, listed = self._tabled[who]
            said += [f"{who}: {_counts(table)}.", *_missing_runs(who, table)]
            if self.source == "volumes":
                said.append(
                    f"{who}: {sum(listed) - len(table):,} catch trials, which show no object, are "
                    "left out; the table of betas has none."
                )
                if any(run.betas.suffix == ".gz" for run in self._runs[who]):
                    said.append(
                        f"{who}: packed volumes are unpacked a run at a time, in seconds; gunzip "
                        "them and trials are read alone, or take the table of betas."
                    )
            drop = int(_of_test_concepts(table).sum())
            if self.split == "zero-shot":
                said.append(f"{who}: {drop:,} training trials are left out, as {ZERO_SHOT}.")
            elif drop:
                said.append(
                    f"{who}: {drop:,} training trials are of concepts that the test has; "
                    f"?split=zero-shot leaves them out, as {ZERO_SHOT}."
                )
            trials = self.load(who)
            space = trials.subject.voxels
            roi = self.roi or ("visual" if "ROIs" in space.parcellations else "all")
            said.append(f"{who}: {space.n_voxels:,} voxels (roi={roi}).")
            size = 4 * space.n_voxels * len(table) / 1e9
            if self.source == "table":
                said.append(
                    f"{who}: the table has a row a voxel, so whatever reads more than a few "
                    f"trials turns it first, into a file of {size:.1f} GB in {self._cache}."
                )
        if self.source == "table":
            said.append(
                "The labels of the columns are pickled in such files: they are read as text here "
                "and nothing of them is run, as pandas.read_hdf would."
            )
            if self._runs:
                said.append("There are volumes too; open them with ?source=volumes.")
        said += self._pictures.absent(self.stimuli["source"])
        said.append(
            "The voxels are in each person's T1w space: nothing is drawn on the surface. The "
            "authors' flat maps are pycortex's and are not read."
        )
        return said


def _root(path: Path) -> Path | None:
    """Return the folder that holds betas of THINGS-fMRI, or None."""
    parent = [path.parent] if path.name in ("betas_csv", "betas_vol") else []
    for root in (*parent, path, path / "derivatives"):
        if find_tables(root) or find_runs(root):
            return root
    return None


def _stimulus(source: str) -> str:
    return source.rpartition("/")[2].rpartition(".")[0]


def _kind(source: str) -> str:
    """Return a concept without numbers, as neuralfetch does: bat1 and bat2 are one word."""
    return re.sub(r"\d", "", source.partition("/")[0])


def _of_test_concepts(table: pd.DataFrame) -> np.ndarray:
    """Return which training trials show a concept that a test image shows, bool (n,)."""
    kinds = table["source"].map(_kind)
    is_test = (table["split"] == "test").to_numpy()
    return ~is_test & kinds.isin(set(kinds[is_test])).to_numpy()


def _split(table: pd.DataFrame, known: pd.DataFrame | None, where: str) -> list[str]:
    """Return train or test for the volumes' trials: by the table of trials, else by the design."""
    if known is None:
        sessions = table.groupby("source")["session"].nunique()
        if table["session"].nunique() < 2 or (sessions < 2).all():
            raise UserError(
                f"{where}: with one session nothing says which images are test; fetch another "
                "session, or betas_csv/*_StimulusMetadata.csv."
            )
        return ["test" if sessions[source] > 1 else "train" for source in table["source"]]
    for (session, run), rows in table.groupby(["session", "run"]):
        of_run = known[(known["session"] == session) & (known["run"] == run)]
        listed = of_run.sort_values("trial_id")["source"].tolist()
        if listed != rows["source"].tolist():
            raise UserError(
                f"{where}: session {session}, run {run} shows {len(rows)} pictures in "
                f"conditions.tsv and StimulusMetadata.csv lists {len(listed)}, or in another "
                "order; both are of one person and one run."
            )
    kinds = dict(zip(known["source"], known["split"], strict=True))
    return [kinds[source] for source in table["source"]]


def _counts(table: pd.DataFrame) -> str:
    """Return how many trials and images there are, and where that is not what was published."""
    train = table["source"][table["split"] == "train"]
    test = Counter(table["source"][table["split"] == "test"])
    times = sorted(set(test.values()))
    said = (
        f"{len(train):,} training trials of {train.nunique():,} images, {len(test)} test images x "
        f"{' or '.join(map(str, times)) or '0'}"
    )
    if (len(train), train.nunique(), len(test), times) == (TRAIN, TRAIN, TEST, [REPEATS]):
        return f"{said}, as published"
    return f"{said}; published are {TRAIN:,} once each and {TEST} x {REPEATS}"


def _missing_runs(subject: str, table: pd.DataFrame) -> list[str]:
    """Return a sentence that names the runs which are not here."""
    here = set(zip(table["session"], table["run"], strict=True))
    every = [(s, r) for s in range(1, SESSIONS + 1) for r in range(1, RUNS + 1)]
    lacking = [key for key in every if key not in here]
    whole = sorted(set(range(1, SESSIONS + 1)) - {s for s, _ in here})
    known = [(s, r) for s, r in lacking if (subject, s, r) in NOWHERE]
    single = known + [key for key in lacking if key[0] not in whole and key not in known]
    named = [f"session {s} run {r}" for s, r in single[:NAMED]]
    if len(single) > NAMED:
        named.append(f"{len(single) - NAMED} more runs")
    if whole:
        named.append(f"all of session {', '.join(map(str, whole))}")
    if not named:
        return []
    why = "".join(f" ({NOWHERE[subject, s, r]})" for s, r in known)
    return [f"{subject} lacks {', '.join(named)}{why}."]


def _check_places(places: np.ndarray, mask: np.ndarray, table: str, brain: str) -> None:
    """Refuse voxels that are not those of the brain mask, in its order."""
    inside = ((places >= 0) & (places < mask.shape)).all()
    found = np.ravel_multi_index(places.T, mask.shape) if inside else np.empty(0, int)
    if not np.array_equal(found, np.flatnonzero(mask)):
        raise UserError(
            f"{table} has {len(places):,} voxels and {brain} {int(mask.sum()):,}, and they are "
            "not the same ones in the order of the volume (indices count from 0); the files are "
            "of two people or two spaces."
        )
