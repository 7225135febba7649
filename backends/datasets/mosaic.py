"""MOSAIC (Lahner et al. 2025): eight data sets of pictures and films on one surface, fsLR-32k.

Layout (the authors' ``create_hdf5_pkl.py``), one file a person, ``sub-01_NSD.hdf5``, some with
``_crc32-...`` in their names::

    betas/{who}_stimulus-{stem}_phase-{train|test}_rep-{n}     (91282,), a data set a trial, with
                                                               presented_stimulus_filename
    noiseceilings/{who}_phase-{train|test|artificial}_n-{1|avg}_noiseceiling      (91282,), percent
    nan_indices_all                                            grayordinates that are not finite
                                                               in some trial, unordered

``who`` is ``sub-01_NSD``. Merged files have a group of that name for each person, with the same in
it, or with ``betas`` (trials, 91282) and the trials' names in ``nan_indices``; or one ``betas`` of
several people. Rows are read where they lie: to open a trial's data set takes a tenth of a
millisecond, so a copy of all (11 GB for a person of NSD) would save 3 s in reading 30,000.

The script writes test, train and then artificial stimuli (NSD-synthetic), and calls the latter's
phase ``test``. Files keep that order, so test trials that follow training trials are artificial.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.god_study import one_of, spread
from backends.datasets.layout_voxels import project
from backends.datasets.reading import (
    LazyRows,
    hdf5_array,
    hdf5_values,
    open_hdf5,
)
from explorer.brain.atlases import desikan_killiany
from explorer.brain.fslr import CORTEX, GRAYORDINATES, fsaverage5_vertices, vertices
from explorer.brain.parcels import lay
from explorer.files import guard, short
from explorer.images import ENDINGS, read_picture
from explorer.types import Origin, Subject, Trials, UserError, VoxelSpace, voxel_hash

if TYPE_CHECKING:
    import h5py
    import pandas as pd

# What the authors z-score over, by the mean and SD of its training trials (organize_betas_*.py).
SCORED = {
    "NSD": "session",
    "BMD": "session",
    "BOLD5000": "group of sessions",
    "THINGS": "group of sessions",
    "GOD": "person",
    "HAD": "person",
    "NOD": "person",
}
OWN = "deeprecon"  # of which each session is z-scored by itself, test sessions too
FILMS = ("BMD", "HAD")
WHO = re.compile(r"sub-\d+_(?:NSD|BOLD5000|BMD|GOD|deeprecon|THINGS|NOD|HAD)")
FILE = re.compile(rf"({WHO.pattern})(?:_crc32-[0-9a-fA-F]+)?\.(?:hdf5|h5)")
TRIAL = re.compile(rf"({WHO.pattern})_stimulus-(.+)_phase-(train|test|artificial)_rep-(\d+)")
CEILING = re.compile(rf"{WHO.pattern}_phase-(train|test|artificial)_n-(1|avg)(?:_.*)?")
ENDS = (".hdf5", ".h5")
TESTS = ("natural", "artificial", "all")
VOXELS = {"all": GRAYORDINATES, "cortex": CORTEX}
NO_PICTURES = "MOSAIC has no pictures; name a folder of the data sets' own with ?pictures=FOLDER"


@dataclass(frozen=True, eq=False)
class Shelf:
    """Where a person's trials lie: a file, and the group in it that has ``betas``."""

    who: str
    file: Path
    group: str = "/"

    @cached_property
    def opened(self) -> h5py.Group:
        """The group, which stays open."""
        return _member(open_hdf5(self.file), self.group)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The trials in the order of the file: name, at (row, or place in the group), stimulus ...

        Further columns: ``phase`` (train, test or artificial) and ``rep``.
        """
        import pandas as pd

        names, ordered = _names(self.opened, self.file)
        rows = []
        for at, name in enumerate(names):
            told = TRIAL.fullmatch(name)
            if told is None:
                raise UserError(
                    f"{self.file}: a trial is named {short(name)!r}, expected "
                    "sub-01_NSD_stimulus-NAME_phase-train_rep-0; take the file as it was "
                    "published."
                )
            if told[1] == self.who:
                rows.append((name, at, told[2], told[3], int(told[4])))
        table = pd.DataFrame(rows, columns=["name", "at", "stimulus", "phase", "rep"])
        if not len(table):
            raise UserError(
                f"{self.file} has no trial of {self.who}, whom its name tells; it has "
                f"{short(names[0])}. Name the file as it was published."
            )
        if ordered:
            trained = (table["phase"] == "train").cummax()
            table.loc[trained & (table["phase"] == "test"), "phase"] = "artificial"
        return table

    @property
    def ordered(self) -> bool:
        """Whether the file keeps the order in which trials were written."""
        return _names(self.opened, self.file)[1]


class Mosaic:
    """MOSAIC's files of one or more people.

    Parameters
    ----------
    path
        A folder of files, or one; merged ones too.
    name
        What the data set is called.
    pictures
        A folder with the data sets' pictures, searched whole, named as MOSAIC's stimuli;
        default: ``pictures`` beside the files.
    test
        Which test trials: "natural", "artificial" (NSD-synthetic) or "all".
    voxels
        "all": cortex and the voxels below it, which have no place on the surface; "cortex".
    data
        Only people of these data sets, e.g. "NSD,GOD"; "" is all.
    """

    title = "MOSAIC (Lahner et al. 2025)"
    licence = "the terms of each of its data sets; NSD's forbid passing it on"
    citation = (
        "Lahner, Deb, Murty & Oliva (2025). MOSAIC. bioRxiv, doi 10.64898/2025.11.28.690060; and "
        "each data set's own paper."
    )
    simulated = redistributable = False
    split_unit = "stimulus"
    looks_for = "HDF5 files named like sub-01_NSD.hdf5, with a data set a trial in betas"
    split_by = "MOSAIC's authors, by each trial's phase (no test picture resembles a training one)"

    def __init__(
        self,
        path: Path,
        name: str,
        pictures: str = "",
        test: str = "natural",
        voxels: str = "all",
        data: str = "",
    ) -> None:
        self.path, self.name, self.test, self.voxels = Path(path), name, test, voxels
        one_of(name, "test", test, TESTS)
        one_of(name, "voxels", voxels, VOXELS)
        self._folder = Path(pictures).expanduser() if pictures else self.path / "pictures"
        if pictures and not self._folder.is_dir():
            raise UserError(f"{name}: pictures={pictures} is no folder; check the path.")
        self._people = _people(self.path)
        wanted = [word for word in data.split(",") if word]
        for word in wanted:
            one_of(name, "data", word, sorted({_study(who) for who in self._people}))
        if wanted:
            self._people = {w: s for w, s in self._people.items() if _study(w) in wanted}
        if not self._people:
            raise UserError(f"{self.path}: expected {self.looks_for}, found none; check the path.")

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a file, or a folder of them, has trials named as MOSAIC's are."""
        try:
            return any(_is_mosaic(file) for file in _files(Path(path))[:3])
        except OSError:
            return False

    @property
    def note(self) -> str:
        """What a visitor must know of these betas."""
        films = sorted({_study(who) for who in self._people} & set(FILMS))
        said = (
            "Betas on fsLR-32k are drawn on fsaverage5 by the nearest vertex on HCP's common "
            "sphere; voxels below the cortex have no place there."
        )
        return said + (f" {' and '.join(films)} showed films, not pictures." if films else "")

    @cached_property
    def _pictures(self) -> dict[str, Path]:
        files = self._folder.rglob("*") if self._folder.is_dir() else ()
        return {f.stem: f for f in sorted(files) if f.suffix.lower() in ENDINGS}

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """One row a stimulus, by its file's stem; ``source`` names the data sets with it."""
        import pandas as pd

        found: dict[str, dict[str, None]] = {}
        for who, shelf in self._people.items():
            for stimulus in self._shown(shelf)["stimulus"].unique():
                found.setdefault(stimulus, {})[_study(who)] = None
        names = sorted(found)
        rows = {"caption": "", "category": "", "source": [", ".join(found[n]) for n in names]}
        return pd.DataFrame(rows, index=pd.Index(names, name="stimulus"))

    def subjects(self) -> list[str]:
        """Return the people, ``sub-01_NSD`` each."""
        return list(self._people)

    def _shelf(self, subject: str) -> Shelf:
        if subject not in self._people:
            raise UserError(
                f"{self.name} has the subjects {short(', '.join(self._people))}, not {subject!r}."
            )
        return self._people[subject]

    def _shown(self, shelf: Shelf) -> pd.DataFrame:
        """Return the trials that are kept: those of the chosen test stimuli, none trained on."""
        table = shelf.trials
        tests = {"natural": ["test"], "artificial": ["artificial"], "all": ["test", "artificial"]}
        is_test = table["phase"].isin(tests[self.test])
        tested = set(table["stimulus"][is_test])
        return table[is_test | ((table["phase"] == "train") & ~table["stimulus"].isin(tested))]

    def load(self, subject: str) -> Trials:
        """Return a person's trials; each is read where it lies."""
        shelf = self._shelf(subject)
        table = self._shown(shelf).reset_index(drop=True)
        table["split"] = np.where(table["phase"] == "train", "train", "test")
        if (table["split"] == "test").sum() == 0:
            raise UserError(
                f"{shelf.file}: {subject} has no {self.test} test trial; choose another ?test=, "
                f"one of {', '.join(TESTS)}."
            )
        order = table.sort_values("rep", kind="stable")
        table["repeat"] = order.groupby(["stimulus", "split"]).cumcount()  # some were left out
        table = table.assign(session=0, run=0)
        kept = _kept(shelf, VOXELS[self.voxels])
        rows = _rows(shelf, table, kept)
        columns = ["stimulus", "split", "repeat", "session", "run"]
        return Trials(self._subject(shelf, kept), rows, _unit(subject), table[columns])

    def _subject(self, shelf: Shelf, kept: np.ndarray) -> Subject:
        at = np.flatnonzero(kept)
        digest = voxel_hash("fsLR-32k", shelf.who, at)
        projection = project(fsaverage5_vertices(GRAYORDINATES)[at])
        atlas = lay(desikan_killiany(), projection, digest)
        own = vertices(GRAYORDINATES)[at]
        atlases = {atlas.name: atlas}
        voxels = VoxelSpace(len(at), digest, projection, parcellations=atlases, fslr=own)
        ceilings = {key: values[at] for key, values in _ceilings(shelf).items()}
        ncsnr = None
        if not _ceiling_problem(shelf, kept):
            share = ceilings["test", "1"]
            ncsnr = np.sqrt(share / (100 - share))  # percent of variance in a single trial
        maps = {f"noise ceiling of {p}, n {n}, percent": v for (p, n), v in ceilings.items()}
        return Subject(self.name, shelf.who, voxels, ncsnr, maps=maps)

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture that was shown, uint8 RGB (H, W, 3), where a folder was named."""
        if stimulus not in self.stimuli.index:
            raise UserError(
                f"{self.name} has no stimulus {stimulus!r}; it has {len(self.stimuli):,}, such as "
                f"{self.stimuli.index[0]}."
            )
        if absent := self.without_picture(stimulus):
            raise UserError(f"{self.name}: {absent}")
        return read_picture(self._pictures[stimulus], f"The picture of {stimulus}")

    def without_picture(self, stimulus: str) -> str:
        """Return why no picture is shown, "" where one is here."""
        if stimulus in self._pictures:
            return ""
        return f"The picture of {stimulus} is not here; {NO_PICTURES}."

    def origins(self, subject: str, trial: int) -> list[Origin]:
        """Return where a row of betas lies: its place in the order of the file, and its name."""
        shelf = self._shelf(subject)
        row = self._shown(shelf).iloc[trial]
        group = "" if shelf.group == "/" else f"{shelf.group}/"
        note = "the place in the order of betas" if _is_group(shelf.opened) else row["name"]
        key = f"{group}betas/{row['name']}" if _is_group(shelf.opened) else f"{group}betas"
        return [Origin(str(shelf.file), int(row["at"]), key, note)]

    def picture_origin(self, stimulus: str) -> Origin | None:
        """Return where a picture lies; None where it is not here."""
        file = self._pictures.get(stimulus)
        return None if file is None else Origin(str(file))

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return the name in MOSAIC, and COCO's number where NSD showed it under that."""
        named = {"MOSAIC's stimulus": stimulus}
        if stimulus.isdecimal() and "NSD" in self.stimuli.at[stimulus, "source"]:
            named["COCO"] = str(int(stimulus))
        return named

    def remarks(self) -> list[str]:
        """Return what must be known of these files, one sentence each."""
        said = [f"{who}: {_told(self, shelf)}" for who, shelf in self._people.items()]
        for who, shelf in self._people.items():
            problem = _ceiling_problem(shelf, _kept(shelf, VOXELS[self.voxels]))
            said += [f"{who}: {problem}"] if problem else []
        absent = sum(name not in self._pictures for name in self.stimuli.index)
        if absent:
            said.append(
                f"{absent:,} of {len(self.stimuli):,} pictures are not here; {NO_PICTURES}."
            )
        return said


# ------------------------------------------------------------------------------------------- files


def _files(path: Path) -> list[Path]:
    """Return the files at a path that may be MOSAIC's: itself, or those up to two folders down."""
    if path.is_file():
        return [path] if path.suffix in ENDS else []
    found = [f for at in ("*", "*/*") for end in ENDS for f in path.glob(at + end)]
    named = [f for f in found if FILE.fullmatch(f.name) or "mosaic" in f.name.lower()]
    return sorted(named, key=lambda f: (f.name, f))


def _is_mosaic(file: Path) -> bool:
    try:
        return bool(_shelves(file))
    except (UserError, OSError):
        return False


def _people(path: Path) -> dict[str, Shelf]:
    """Return person -> where its trials lie; a person in two files is refused."""
    found: dict[str, Shelf] = {}
    for file in _files(path):
        named = FILE.fullmatch(file.name)
        shelves = [Shelf(named[1], file)] if named else _shelves(file)
        for shelf in shelves:
            if shelf.who in found:
                raise UserError(
                    f"{found[shelf.who].file} and {file} both hold {shelf.who}; keep one of them."
                )
            found[shelf.who] = shelf
    return dict(sorted(found.items(), key=lambda item: _place(item[0])))


def _place(who: str) -> tuple[str, int]:
    return _study(who), int(who.partition("_")[0].removeprefix("sub-"))


def _study(who: str) -> str:
    return who.partition("_")[2]


def _shelves(file: Path) -> list[Shelf]:
    """Return the people in a file, by its groups or by the names of its trials."""
    with open_hdf5(file) as opened, guard(file):
        if "betas" not in opened:
            return [
                Shelf(who, file, who)
                for who in opened
                if WHO.fullmatch(who) and "betas" in opened[who]
            ]
        names, _ = _names(opened, file)
        told = [TRIAL.fullmatch(name) for name in names]
        return [Shelf(who, file) for who in dict.fromkeys(t[1] for t in told if t)]


def _member(group: h5py.Group, name: str) -> Any:
    """Return a group or array of an HDF5 file; a link that leads nowhere is refused."""
    path = group.file.filename
    with guard(path, at=name):
        found = group.get(name)
    if found is None:
        raise UserError(f"{path} has no {name!r}; take the file as it was published.")
    return found


def _is_group(opened: h5py.Group) -> bool:
    return not hasattr(opened["betas"], "shape")


def _names(opened: h5py.Group, file: Path) -> tuple[list[str], bool]:
    """Return the names of trials in the order of the file, and whether it kept that of writing."""
    import h5py

    betas = _member(opened, "betas")
    listed = betas if isinstance(betas, h5py.Group) else _member(opened, "nan_indices")
    if not isinstance(listed, h5py.Group):
        raise UserError(f"{file}: {listed.name} is no group; take the file as it was published.")
    with guard(file, at=str(listed.name)):
        names = list(listed)
        tracked = listed.id.get_create_plist().get_link_creation_order()
    if not names:
        raise UserError(f"{file}: {listed.name} is empty, expected a name for each trial.")
    if listed is not betas and len(names) != betas.shape[:1][0]:
        raise UserError(
            f"{file}: {betas.name} has {betas.shape[0]} rows and {listed.name} names {len(names)} "
            "trials; each row needs one."
        )
    return names, bool(tracked & h5py.h5p.CRT_ORDER_TRACKED)


# ----------------------------------------------------------------------------------------- numbers


def _kept(shelf: Shelf, count: int) -> np.ndarray:
    """Return bool (91282,): the grayordinates, up to ``count``, that are finite in all trials."""
    kept = np.arange(GRAYORDINATES) < count
    opened = shelf.opened
    place = opened if "nan_indices_all" in opened else opened.file
    if "nan_indices_all" in place:
        stored = hdf5_array(place, "nan_indices_all", kinds="fiu")
        lost = np.asarray(hdf5_values(stored)).ravel()
        if lost.size and not (np.isin(lost, np.arange(GRAYORDINATES))).all():
            raise UserError(
                f"{shelf.file}: nan_indices_all counts grayordinates from 0 to "
                f"{GRAYORDINATES - 1}, found up to {lost.max():g}."
            )
        kept[lost.astype(np.int64)] = False
    else:  # as in files that the authors' package merged
        some = shelf.trials.iloc[spread(len(shelf.trials))]
        for row in _stored(shelf, some["name"].tolist(), some["at"].to_numpy()):
            kept &= np.isfinite(row)
    if not kept.any():
        raise UserError(f"{shelf.file}: no grayordinate is finite in all trials.")
    return kept


def _stored(shelf: Shelf, names: list[str], at: np.ndarray) -> Iterator[np.ndarray]:
    """Yield whole rows float (91282,), each read where it lies."""
    betas = shelf.opened["betas"]
    table = None if _is_group(shelf.opened) else hdf5_array(shelf.opened, "betas", 2, "f")
    for name, row in zip(names, at, strict=True):
        stored = hdf5_array(betas, name, 1, "f") if table is None else table
        if stored.shape[-1] != GRAYORDINATES:
            raise UserError(
                f"{shelf.file}: {name!r} has {stored.shape[-1]:,} numbers, expected "
                f"{GRAYORDINATES:,} grayordinates; take the file as it was published."
            )
        yield hdf5_values(stored, () if table is None else int(row))


def _rows(shelf: Shelf, table: pd.DataFrame, kept: np.ndarray) -> LazyRows:
    """Return trials (n, V) of a person, read on demand."""
    names, at = table["name"].tolist(), table["at"].to_numpy()
    columns, lock = np.flatnonzero(kept), threading.Lock()

    def read(wanted: np.ndarray) -> np.ndarray:
        values = np.empty((len(wanted), len(columns)), np.float32)
        with lock:
            whole = _stored(shelf, [names[n] for n in wanted], at[wanted])
            for i, row in enumerate(whole):
                values[i] = row[columns]
        return values

    return LazyRows((len(names), len(columns)), read, str(shelf.file))


def _ceilings(shelf: Shelf) -> dict[tuple[str, str], np.ndarray]:
    """Return (phase, n) -> noise ceiling float32 (91282,) in percent, of those that are there."""
    import h5py

    with guard(shelf.file, at="noiseceilings"):
        group = shelf.opened.get("noiseceilings")
        names = list(group) if isinstance(group, h5py.Group) else []
    found = {}
    for name in names:
        told = CEILING.fullmatch(name)
        if told is not None and name.startswith(f"{shelf.who}_"):
            stored = hdf5_array(group, name, 1, "f")
            if len(stored) != GRAYORDINATES:
                raise UserError(
                    f"{shelf.file}: {name!r} has {len(stored):,} numbers, expected "
                    f"{GRAYORDINATES:,} grayordinates; take the file as it was published."
                )
            found[told[1], told[2]] = np.asarray(hdf5_values(stored), np.float32)
    return found


def _ceiling_problem(shelf: Shelf, kept: np.ndarray) -> str:
    """Say why there is no ceiling for single trials, "" where there is one."""
    share = _ceilings(shelf).get(("test", "1"))
    if share is None:
        why = " (no stimulus was repeated)" if _study(shelf.who) in ("HAD", "NOD") else ""
        return f"the file has no noise ceiling of single test trials{why}."
    low, high = float(share[kept].min()), float(share[kept].max())
    if not (low >= 0 and 1 < high < 100):  # NaN too
        return (
            f"its noise ceilings go from {low:g} to {high:g}, expected percent of variance; they "
            "are shown as a map and used for nothing."
        )
    return ""


def _unit(who: str) -> str:
    study = _study(who)
    if study == OWN:
        return "z-score within session, test sessions by themselves"
    return f"z-score within {SCORED[study]} by its training trials"


def _told(study: Mosaic, shelf: Shelf) -> str:
    """Return what a person's file holds, in one sentence."""
    kept = _kept(shelf, VOXELS[study.voxels])
    lost = int((~kept[: VOXELS[study.voxels]]).sum())
    drawn = int(kept[:CORTEX].sum())
    phases = shelf.trials["phase"].value_counts()
    said = (
        f"{int(kept.sum()):,} grayordinates ({lost:,} are not finite in some trial and left out), "
        f"{drawn:,} of the cortex drawn; betas are {_unit(shelf.who)}"
    )
    if phases.get("artificial", 0) and study.test == "natural":
        said += f"; {phases['artificial']:,} trials of artificial stimuli are left out (?test=)"
    elif not shelf.ordered:
        said += "; the file lost the order of writing, so artificial stimuli count as test"
    overlap = len(shelf.trials) - len(study._shown(shelf)) - phases.get("artificial", 0)
    if study.test == "natural" and overlap > 0:
        said += f"; {overlap:,} training trials showed test stimuli and are left out"
    return f"{said}."
