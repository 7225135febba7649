"""The Natural Scenes Dataset (Allen et al. 2022), the raw release as it comes from its bucket.

::

    nsddata/experiments/nsd/nsd_expdesign.mat        which image was shown in which trial
    nsddata/experiments/nsd/nsd_stim_info_merged.csv COCO ids of the 73,000 images (optional)
    nsddata/ppdata/subj01/behav/responses.tsv        one row a trial (optional: a check, and runs)
    nsddata/ppdata/subj01/func1pt8mm/roi/            ROIs and places: see `nsd_space`
    nsddata_betas/ppdata/subj01/SPACE/PREPARATION/betas_session01.{hdf5,nii.gz}
    nsddata_betas/ppdata/subj01/fsaverage/PREPARATION/{lh,rh}.betas_session01.mgh
    nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5     the images

Layout and units: NSD data manual (cvnlab.slite.page), github.com/ozcelikfu/brain-diffuser and
github.com/yu-takagi/StableDiffusionReconstruction. ``masterordering``, ``subjectim``, ``sharedix``
and 73KID count from 1, HDF5 rows and our ids (``nsd-00000`` to ``nsd-72999``) from 0. A session is
12 runs of 63 and 62 trials by turns (Allen et al. 2022, Methods).
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.nsd_space import (
    BUCKET,
    DAMAGED,
    MIXED,
    PEOPLE,
    PREPARATIONS,
    SPACES,
    VERTICES,
    Brains,
    cut_short,
    open_volume,
    size,
    whose_shape,
)
from backends.datasets.reading import LazyRows, open_hdf5, standardised
from explorer.types import Subject, Trials, UserError

if TYPE_CHECKING:
    import pandas as pd

IMAGES = 73_000
OWN_IMAGES = 10_000  # of each subject, the shared ones first
SHARED = 1_000
SESSIONS, TRIALS = 40, 750
RUNS = np.repeat(np.arange(12) + 1, [63, 62] * 6)  # the run of each trial of a session
STORED = 300  # volumes hold int16 = 300 x percent signal change
BLOCK_BYTES = 256 * 2**20  # sessions in memory at once, about ten at 1.8 mm: our choice
TRIALS_AT_ONCE = 25  # unpacked together, about 35 MB at 1.8 mm

DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
STIMULI = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
_VOLUME = re.compile(r"betas_session(\d{2})\.(hdf5|nii|nii\.gz)")
_SURFACE = re.compile(r"(lh|rh)\.betas_session(\d{2})\.mgh")
_ROI_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, eq=False)
class Design:
    """Which image each of 30,000 trials shows; the same positions are shared for everybody.

    ``image`` int (8, 30000), from 0; ``test`` bool (30000,).
    """

    image: np.ndarray
    test: np.ndarray


class NSD:
    """Eight people, up to 30,000 trials each; the 1,000 images that all eight share are test.

    What a trial costs: in HDF5 the 750 trials of a voxel lie together, and ``.nii.gz`` can only be
    unpacked from its start, so that one trial takes as long as its session (HDF5: the bounds of
    the ROI; ``.nii.gz``: about 1 GB at 1.8 mm). A session is therefore read as a whole, the last
    ones stay in memory (256 MB), and so do the test trials of every session that was read (94 MB
    for 40 sessions at 1.8 mm), because ranking among the test images asks for all of them.
    Unpacked ``.nii`` and ``.mgh`` are read trial by trial. Z-scores need every training trial of a
    session once.

    Parameters
    ----------
    path
        The folder that holds ``nsddata`` and ``nsddata_betas``.
    name
        What the data set is called.
    space
        ``func1pt8mm``, ``func1mm`` or ``fsaverage``; ``auto`` is the first of these with betas.
    prep
        ``b3`` (fitted HRF, GLMdenoise, ridge), ``b2`` (fitted HRF) or ``b1`` (assumed HRF);
        ``auto`` is the first of these with betas.
    roi
        The ROI whose voxels are read, by the name of its file, where its values are above 0; on
        fsaverage also ``all``.
    norm
        ``session`` z-scores every voxel within session by its training trials; ``none`` leaves
        percent signal change.
    """

    looks_for = "nsddata/experiments/nsd/nsd_expdesign.mat or nsddata_betas/ppdata/"
    title = "Natural Scenes Dataset"
    licence = "NSD Terms and Conditions (by form); the images keep the terms of COCO"
    citation = (
        "Allen, St-Yves, Wu, Breedlove, Prince, Dowdle, Nau, Caron, Pestilli, Charest, "
        "Hutchinson, Naselaris, Kay (2022). A massive 7T fMRI dataset to bridge cognitive "
        "neuroscience and artificial intelligence. Nature Neuroscience 25:116-126."
    )
    simulated = False
    redistributable = False
    split_unit = "stimulus"

    def __init__(
        self,
        path: Path,
        name: str,
        space: str = "auto",
        prep: str = "auto",
        roi: str = "nsdgeneral",
        norm: str = "session",
    ) -> None:
        self.path, self.name = _root(Path(path)), name
        by_folder = {folder: short for short, folder in PREPARATIONS.items()}
        prep = by_folder.get(prep, prep)
        for option, value, allowed in (
            ("space", space, ("auto", *SPACES)),
            ("prep", prep, ("auto", *PREPARATIONS)),
            ("norm", norm, ("session", "none")),
        ):
            if value not in allowed:
                raise UserError(f"{option} is one of {', '.join(allowed)}; found {value!r}.")
        if not _ROI_NAME.fullmatch(roi):
            raise UserError(f"roi is the name of an ROI file, such as nsdgeneral; found {roi!r}.")
        if not self.recognise(self.path):
            raise UserError(
                f"{path} does not hold NSD; give the folder that has nsddata and nsddata_betas "
                f"as they lie in {BUCKET}."
            )
        self.roi, self.norm = roi, norm
        self._betas = _find_betas(self.path)
        self.space, self.prep = self._choose(space, prep)
        if roi == "all" and self.space != "fsaverage":
            raise UserError(
                f"roi=all is for space=fsaverage; most voxels of {self.space} lie outside cortex: "
                "choose an ROI such as nsdgeneral, streams or HCP_MMP1."
            )
        self.note = (
            f"Betas {self.prep} in {self.space}, {roi}; the test images are the 1,000 that all "
            "eight people share."
        )
        self._lock = threading.Lock()
        self._blocks: OrderedDict[Any, np.ndarray] = OrderedDict()
        self._tests: dict[Any, np.ndarray] = {}
        self._brains = Brains(self.path, name, self.space, self.prep, roi)

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a folder has NSD's design or its folders of betas in their places."""
        root = _root(Path(path))
        try:
            return (root / DESIGN).is_file() or (root / "nsddata_betas" / "ppdata").is_dir()
        except (OSError, ValueError):
            return False  # a folder that may not be entered

    def _choose(self, space: str, prep: str) -> tuple[str, str]:
        """Return the first space and preparation with betas among those asked for."""
        for s, p in product(SPACES, PREPARATIONS):
            if space in ("auto", s) and prep in ("auto", p) and (s, p) in self._betas:
                return s, p
        there = ", ".join(f"space={s}&prep={p}" for s, p in self._betas)
        raise UserError(
            f"{self.path / 'nsddata_betas' / 'ppdata'} holds no betas of space {space} and "
            f"preparation {prep}; "
            + (
                f"choose among {there}."
                if there
                else "those of func1pt8mm, func1mm and fsaverage can be read (nativesurface and "
                f"MNI cannot) and come from {BUCKET}."
            )
        )

    # -------------------------------------------------------------------------------------- images

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """The 73,000 images; ``source`` is the photograph in COCO where the table of ids is."""
        import pandas as pd

        source = np.full(IMAGES, "", dtype=object)
        file = self.path / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
        if file.is_file():
            columns = ["cocoId", "cocoSplit", "nsdId"]
            try:
                table = pd.read_csv(file, usecols=columns)
                ids = table["nsdId"].to_numpy(dtype=np.int64)
                if len(ids) != IMAGES or ids.min() != 0 or ids.max() != IMAGES - 1:
                    raise ValueError(f"nsdId runs from {ids.min()} to {ids.max()}")
                source[ids] = [
                    f"COCO {split} {number}"
                    for split, number in zip(table["cocoSplit"], table["cocoId"], strict=True)
                ]
            except DAMAGED as error:
                raise UserError(
                    f"{file} is damaged or not NSD's ({error}); it needs cocoId, cocoSplit and "
                    f"nsdId (0 to {IMAGES - 1}): copy it again."
                ) from error
        index = pd.Index([_stimulus(k) for k in range(IMAGES)], name="stimulus")
        return pd.DataFrame({"caption": "", "category": "", "source": source}, index=index)

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture that was shown, uint8 RGB (425, 425, 3)."""
        found = re.fullmatch(r"nsd-(\d{5})", stimulus)
        if not found or int(found[1]) >= IMAGES:
            raise UserError(
                f"{self.name} has the stimuli nsd-00000 to nsd-{IMAGES - 1}, not {stimulus!r}."
            )
        path = self.path / STIMULI
        with open_hdf5(path, f"it holds the images (37 GB) and is in {BUCKET}") as file:
            bricks = file.get("imgBrick")
            shape = getattr(bricks, "shape", None)
            if shape is None or len(shape) != 4 or (shape[0], shape[3]) != (IMAGES, 3):
                raise UserError(
                    f"{path} needs imgBrick of shape ({IMAGES}, 425, 425, 3), found {shape}; copy "
                    "it again."
                )
            try:
                return np.asarray(bricks[int(found[1])], dtype=np.uint8)
            except DAMAGED as error:
                raise cut_short(path, error) from error

    # -------------------------------------------------------------------------------------- trials

    def subjects(self) -> list[str]:
        """Return the participants who have betas in this space and preparation."""
        return list(self._betas[self.space, self.prep])

    def load(self, subject: str) -> Trials:
        """Return one participant's trials; betas stay on disk and are read by sessions or trials.

        Voxels whose ncsnr is not a number were not measured in every session and are left out,
        and so are vertices that are not finite in the first trial on disk. A voxel that never
        varies within a session becomes 0 there.
        """
        if subject not in self.subjects():
            raise UserError(
                f"{self.name} has the subjects {', '.join(self.subjects())} in {self.space}, "
                f"{self.prep}, not {subject!r}."
            )
        sessions = self._sessions(subject)
        table = self._table(subject, list(sessions))
        voxels = self._brains.voxels(subject, self._first(subject))
        betas = self._rows(subject, sessions, voxels.mask, table)
        if self.norm == "session":
            train = (table["split"] == "train").to_numpy()
            betas = standardised(betas, table["session"].to_numpy(), train)
        who = Subject(self.name, subject, voxels.space, voxels.ncsnr)
        unit = "z-score within session" if self.norm == "session" else "percent signal change"
        return Trials(who, betas, unit, table)

    @cached_property
    def _design(self) -> Design:
        path = self.path / DESIGN
        found = _read_design(path)
        order, images, shared = (
            np.asarray(found[key]).astype(np.int64).squeeze()
            for key in ("masterordering", "subjectim", "sharedix")
        )
        shapes = ((SESSIONS * TRIALS,), (len(PEOPLE), OWN_IMAGES), (SHARED,))
        for key, values, shape, top in (
            ("masterordering", order, shapes[0], OWN_IMAGES),
            ("subjectim", images, shapes[1], IMAGES),
            ("sharedix", shared, shapes[2], IMAGES),
        ):
            if values.shape != shape:
                raise UserError(
                    f"{path}: {key} needs shape {shape}, found {values.shape}; copy it again."
                )
            if values.min() < 1 or values.max() > top:
                wrong = values.min() if values.min() < 1 else values.max()
                raise UserError(
                    f"{path}: {key} counts from 1 to {top}, found {wrong}; copy it again (numbers "
                    "that were made to count from 0 cannot be told from wrong ones)."
                )
        if (np.sort(images[:, :SHARED], axis=1) != np.sort(shared)).any():
            raise UserError(
                f"{path}: the first {SHARED} images of every subject must be those of sharedix; "
                "copy it again."
            )
        if np.isin(images[:, SHARED:], shared).any():
            raise UserError(
                f"{path}: shared images are also among a subject's own, so test images would be "
                "trained on; copy it again."
            )
        return Design(images[:, order - 1] - 1, order <= SHARED)

    def _table(self, subject: str, sessions: list[int]) -> pd.DataFrame:
        """Return one row a trial of the sessions on disk; a trial's number is its place of 750."""
        import pandas as pd

        number = int(subject[4:])
        trials = ((np.asarray(sessions) - 1)[:, None] * TRIALS + np.arange(TRIALS)).ravel()
        image, test = self._design.image[number - 1, trials], self._design.test[trials]
        table = pd.DataFrame(
            {
                "stimulus": [_stimulus(k) for k in image],
                "split": np.where(test, "test", "train"),
                "session": trials // TRIALS + 1,
                "run": np.tile(RUNS, len(sessions)),
                "trial": trials % TRIALS + 1,
            }
        )
        table.insert(2, "repeat", table.groupby("stimulus").cumcount())
        responses = self._responses(subject)
        if responses is not None:
            for session in sessions:
                told = responses[responses["SESSION"] == session]
                here = table["session"] == session
                self._check(subject, session, told, image[here.to_numpy()] + 1)
                table.loc[here, "run"] = told["RUN"].to_numpy()
        return table

    def _responses(self, subject: str) -> pd.DataFrame | None:
        """Return a subject's ``responses.tsv`` in the order of trials, or None where it is not."""
        import pandas as pd

        path = self._responses_path(subject)
        if not path.is_file():
            return None
        columns = ["SUBJECT", "SESSION", "RUN", "TRIAL", "73KID"]
        try:
            table = pd.read_csv(path, sep="\t", usecols=columns)[columns].astype(np.int64)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"{path} is damaged or lacks a column ({error}); copy it again from {BUCKET}."
            ) from error
        return table.sort_values(["SESSION", "RUN", "TRIAL"], kind="stable")

    def _responses_path(self, subject: str) -> Path:
        return self.path / "nsddata/ppdata" / subject / "behav" / "responses.tsv"

    def _check(self, subject: str, session: int, told: pd.DataFrame, expected: np.ndarray) -> None:
        """Refuse responses of another subject, or that show other images than the design."""
        path, number = self._responses_path(subject), int(subject[4:])
        if len(told) != TRIALS:
            raise UserError(
                f"{path} has {len(told)} trials of session {session}, expected {TRIALS}; copy it "
                "again."
            )
        others = set(told["SUBJECT"]) - {number}
        if others:
            raise UserError(f"{path} is of subject {min(others)}, not {number}: {MIXED}.")
        ids = told["73KID"].to_numpy()
        outside = (ids < 1) | (ids > IMAGES)
        if outside.any():
            raise UserError(
                f"{path}: 73KID counts from 1 to {IMAGES}, found {ids[outside][0]} in session "
                f"{session}; copy it again."
            )
        if (ids != expected).any():
            t = int(np.flatnonzero(ids != expected)[0])
            raise UserError(
                f"{path}: trial {t + 1} of session {session} shows 73KID {ids[t]}, but "
                f"nsd_expdesign.mat says {expected[t]} for {subject}: {MIXED}."
            )

    # --------------------------------------------------------------------------------------- betas

    def _sessions(self, subject: str) -> dict[int, tuple[Path, ...]]:
        """Return session -> its file, or its two; a session that lacks a hemisphere is not in."""
        found = self._betas[self.space, self.prep][subject]
        needed = 2 if self.space == "fsaverage" else 1
        whole = {s: tuple(files.values()) for s, files in found.items() if len(files) == needed}
        if not whole:
            raise UserError(
                f"{self.name}/{subject}: no session has both hemispheres; the files that lack are "
                f"in {BUCKET}."
            )
        return whole

    def _first(self, subject: str) -> Callable[[], np.ndarray]:
        """Return what gives the first trial on disk over both surfaces."""
        paths = next(iter(self._sessions(subject).values()))
        return lambda: np.concatenate([_open_surface(path)[:, 0] for path in paths])

    def _rows(
        self,
        subject: str,
        sessions: Mapping[int, tuple[Path, ...]],
        mask: np.ndarray,
        table: pd.DataFrame,
    ) -> LazyRows:
        """Return percent signal change (n, V), its files checked by their headers."""
        order = list(sessions)
        test = (table["split"] == "test").to_numpy().reshape(len(order), TRIALS)
        readers = [
            self._reader(subject, sessions[session], mask, np.flatnonzero(test[i]))
            for i, session in enumerate(order)
        ]
        v = int(mask.sum())

        def read(rows: np.ndarray) -> np.ndarray:
            values = np.empty((len(rows), v), np.float32)
            for i in np.unique(rows // TRIALS):
                here = rows // TRIALS == i
                values[here] = readers[i](rows[here] % TRIALS)
            return values

        return LazyRows((len(order) * TRIALS, v), read, f"{self.name}/{subject}")

    def _reader(
        self,
        subject: str,
        paths: tuple[Path, ...],
        mask: np.ndarray,
        test: np.ndarray,
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Return ``read(trials of the session, from 0)`` -> (n, V) in percent signal change."""
        if self.space == "fsaverage":
            surfaces = [_open_surface(path) for path in paths]
            halves = np.split(mask, [VERTICES])
            kept = [np.flatnonzero(half) for half in halves]

            def read_surfaces(trials: np.ndarray) -> np.ndarray:
                pieces = [
                    np.stack([surface[:, t][keep] for t in trials])
                    for surface, keep in zip(surfaces, kept, strict=True)
                ]
                return np.concatenate(pieces, axis=1)

            return read_surfaces
        (path,) = paths
        self._check_shape(subject, path, _volume_shape(path), mask.shape)
        if path.suffix == ".nii":
            volume = open_volume(path)
            stored = np.asanyarray(volume.dataobj)  # a memory map
            return lambda trials: np.stack([stored[..., t][mask] for t in trials]) / STORED
        block = _hdf5_block if path.suffix == ".hdf5" else _unpacked_block
        place = np.full(TRIALS, -1)
        place[test] = np.arange(len(test))

        def read_block(trials: np.ndarray) -> np.ndarray:
            with self._lock:
                if path in self._tests and (place[trials] >= 0).all():
                    values = self._tests[path][place[trials]]
                else:
                    whole = self._block(path, lambda: block(path, mask))
                    self._tests.setdefault(path, whole[test])
                    values = whole[trials]
            return values.astype(np.float32) / STORED

        return read_block

    def _block(self, path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return a session int16 (750, V), from memory where it was among the last ones read."""
        if path in self._blocks:
            self._blocks.move_to_end(path)
            return self._blocks[path]
        block = make()
        self._blocks[path] = block
        while len(self._blocks) > 1 and sum(b.nbytes for b in self._blocks.values()) > BLOCK_BYTES:
            self._blocks.popitem(last=False)
        return block

    def _check_shape(
        self, subject: str, path: Path, shape: tuple[int, ...], expected: tuple[int, ...]
    ) -> None:
        """Refuse betas of another volume than the ROIs, or of another subject."""
        if shape[-1:] != (TRIALS,) or len(shape) != 4:
            raise UserError(
                f"{path} has shape {shape} (X, Y, Z, trials), expected {TRIALS} trials; copy it "
                "again."
            )
        if shape[:3] != expected:
            raise UserError(
                f"{path} is {size(shape[:3])}{whose_shape(shape[:3], subject)}, but the ROIs of "
                f"{subject} in {self.space} are {size(expected)}"
                f"{whose_shape(expected, subject)}: spaces or {MIXED}."
            )
        if self.space == "func1pt8mm" and whose_shape(expected, subject):
            raise UserError(
                f"{path} is {size(expected)}{whose_shape(expected, subject)}, not of {subject}: "
                f"{MIXED}."
            )

    # ------------------------------------------------------------------------------------- remarks

    def remarks(self) -> list[str]:
        """Return what a person should know of this copy, one sentence each."""
        found = [
            f"Read are betas {self.prep} ({PREPARATIONS[self.prep]}) in {self.space}, "
            f"{self.roi}, with "
            + (
                "every voxel z-scored within session by its training trials."
                if self.norm == "session"
                else "percent signal change as published."
            )
        ]
        others = [
            f"?space={s}&prep={p} ({', '.join(people)})"
            for (s, p), people in self._betas.items()
            if (s, p) != (self.space, self.prep)
        ]
        if others:
            found.append(f"Further betas are here: {'; '.join(others)}.")
        found.append(
            "The split is by image: the 1,000 images that all eight people share are test; "
            "MindEye1 and Brain-Diffuser read 37 sessions and tested on 982 of them."
        )
        for path, use in (
            (STIMULI, "no picture can be shown"),
            ("nsddata/experiments/nsd/nsd_stim_info_merged.csv", "COCO's ids are not told"),
        ):
            if not (self.path / path).is_file():
                found.append(f"{path} is missing, so {use}; it is in {BUCKET}.")
        for subject in self.subjects():
            found += self._remarks_on(subject)
        return found

    def _remarks_on(self, subject: str) -> list[str]:
        files, found = self._betas[self.space, self.prep][subject], []
        whole, expected = self._sessions(subject), PEOPLE[subject].sessions
        absent = [s for s in range(1, expected + 1) if s not in files]
        if absent:
            found.append(
                f"{subject}: {len(whole)} of {expected} sessions are here; the trials of session "
                f"{_ranges(absent)} are left out, and the betas are in {BUCKET}."
            )
        else:
            short = " (the others were never measured)" if expected < SESSIONS else ""
            found.append(f"{subject}: all {expected} sessions are here{short}.")
        for session in sorted(set(files) - set(whole)):
            (has,) = files[session]
            other = "rh" if has == "lh" else "lh"
            found.append(
                f"{subject}: session {session} lacks {other}.betas_session{session:02d}.mgh and "
                f"is left out; it is in {BUCKET}."
            )
        if not self._responses_path(subject).is_file():
            found.append(
                f"{subject}: responses.tsv is missing, so the order of images is taken from the "
                "design alone, where a mix-up of subjects cannot be noticed."
            )
        return found + self._brains.remarks(subject, self._first(subject))


# ------------------------------------------------------------------------------------------- files


def _root(path: Path) -> Path:
    """Return the folder that holds ``nsddata``, also when one of its parts was given."""
    parts = ("nsddata", "nsddata_betas", "nsddata_stimuli")
    return path.parent if path.name in parts and not (path / path.name).is_dir() else path


def _find_betas(root: Path) -> dict[tuple[str, str], dict[str, dict[int, dict[str, Path]]]]:
    """Return (space, preparation) -> subject -> session -> "" or hemisphere -> file.

    HDF5 is preferred to NIfTI, and unpacked NIfTI to packed.
    """
    found: dict[tuple[str, str], dict[str, dict[int, dict[str, Path]]]] = {}
    for (space, (prep, folder)), who in product(product(SPACES, PREPARATIONS.items()), PEOPLE):
        place = root / "nsddata_betas/ppdata" / who / space / folder
        sessions: dict[int, dict[str, Path]] = {}
        names = sorted(p.name for p in place.iterdir()) if place.is_dir() else []
        for name in names:  # betas_session01.hdf5, .nii, .nii.gz: the first is the best
            if space == "fsaverage" and (m := _SURFACE.fullmatch(name)):
                sessions.setdefault(int(m[2]), {})[m[1]] = place / name
            elif space != "fsaverage" and (m := _VOLUME.fullmatch(name)):
                sessions.setdefault(int(m[1]), {}).setdefault("", place / name)
        outside = [s for s in sessions if not 1 <= s <= PEOPLE[who].sessions]
        if outside:
            raise UserError(
                f"{place} has a session {outside[0]}, but {who} came for sessions 1 to "
                f"{PEOPLE[who].sessions}: {MIXED}."
            )
        if sessions:
            found.setdefault((space, prep), {})[who] = dict(sorted(sessions.items()))
    return found


def _read_design(path: Path) -> dict[str, np.ndarray]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    keys = ("masterordering", "subjectim", "sharedix")
    if not path.is_file():
        raise UserError(
            f"{path} is missing; it says which image was shown in which trial and is in {BUCKET}."
        )
    try:
        found = loadmat(path, variable_names=keys)
    except (*DAMAGED, MatReadError, NotImplementedError) as error:
        raise cut_short(path, error) from error
    missing = [key for key in keys if key not in found]
    if missing:
        raise UserError(f"{path} lacks the variable {missing[0]}; copy it again from {BUCKET}.")
    return found


def _volume_shape(path: Path) -> tuple[int, ...]:
    """Return (X, Y, Z, trials) of a session's betas, by its header; refuse other numbers."""
    if path.suffix == ".hdf5":
        with open_hdf5(path) as file:
            betas = file.get("betas")
            shape, dtype = getattr(betas, "shape", None), getattr(betas, "dtype", None)
        if shape is None:
            raise UserError(f"{path} lacks the array betas; copy it again from {BUCKET}.")
        shape = shape[::-1]  # MATLAB wrote it: h5py sees (trials, Z, Y, X)
    else:
        proxy = open_volume(path).dataobj
        shape, dtype = proxy.shape, proxy.dtype
        if (proxy.slope, proxy.inter) != (1, 0):
            raise UserError(
                f"{path} is scaled by its header ({proxy.slope:g}), NSD's are not; copy it again "
                f"from {BUCKET}."
            )
        if path.suffix == ".nii":
            _require_bytes(path, proxy.offset, shape, dtype)
    if dtype != np.int16:
        raise UserError(
            f"{path} holds {dtype}, expected int16 (300 x percent signal change); copy it again "
            f"from {BUCKET}."
        )
    return tuple(shape)


def _open_surface(path: Path) -> np.ndarray:
    """Return float32 betas (163842, 750) in percent signal change as a memory map."""
    from nibabel.freesurfer.mghformat import MGHError, MGHHeader

    try:
        with open(path, "rb") as file:
            header = MGHHeader.from_fileobj(file)
            shape = tuple(map(int, header.get_data_shape()))
            dtype, offset = header.get_data_dtype(), header.get_data_offset()
    except (*DAMAGED, MGHError) as error:
        raise cut_short(path, error) from error
    if shape != (VERTICES, 1, 1, TRIALS) or dtype != np.dtype(">f4"):
        raise UserError(
            f"{path} holds {dtype.name} {shape}, expected float32 ({VERTICES}, 1, 1, {TRIALS}); "
            f"copy it again from {BUCKET}."
        )
    _require_bytes(path, offset, shape, dtype)
    return np.memmap(path, dtype, "r", offset, (VERTICES, TRIALS), "F")


def _require_bytes(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
    needed = offset + int(np.prod(shape)) * dtype.itemsize
    if path.stat().st_size < needed:
        raise cut_short(path, f"{path.stat().st_size} of {needed} bytes")


def _hdf5_block(path: Path, mask: np.ndarray) -> np.ndarray:
    """Return a session int16 (750, V) from HDF5, voxels in C order of the mask (X, Y, Z).

    Chunks are single voxels with all their trials, so planes are read within the mask's bounds.
    """
    x, y, z = np.nonzero(mask)
    block = np.empty((TRIALS, len(x)), np.int16)
    with open_hdf5(path) as file:
        try:
            for plane in np.unique(z):
                here = z == plane
                rows, columns = y[here], x[here]
                top, left = rows.min(), columns.min()
                part = file["betas"][:, plane, top : rows.max() + 1, left : columns.max() + 1]
                block[:, here] = part[:, rows - top, columns - left]
        except DAMAGED as error:
            raise cut_short(path, error) from error
    return block


def _unpacked_block(path: Path, mask: np.ndarray) -> np.ndarray:
    """Return a session int16 (750, V) from ``.nii.gz``, unpacked once from start to end."""
    block = np.empty((TRIALS, int(mask.sum())), np.int16)
    proxy = open_volume(path).dataobj
    try:
        for begin in range(0, TRIALS, TRIALS_AT_ONCE):
            part = np.asarray(proxy[..., begin : begin + TRIALS_AT_ONCE])  # (X, Y, Z, trials)
            block[begin : begin + TRIALS_AT_ONCE] = part[mask].T
    except DAMAGED as error:
        raise cut_short(path, error) from error
    return block


def _stimulus(image: int) -> str:
    return f"nsd-{image:05d}"


def _ranges(numbers: list[int]) -> str:
    """Return 1-3, 7 for [1, 2, 3, 7]."""
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    pieces = np.split(np.asarray(numbers), breaks)
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in pieces)
