"""CNeuroMod-THINGS: four people, some 4,000 pictures of 720 concepts, each shown three times.

Layout of the DataLad repository (``courtois-neuromod/cneuromod-things``)::

    THINGS/glmsingle/sub-01/glmsingle/output/
        sub-01_task-things_space-T1w_model-fitHrfGLMdenoiseRR_stat-{trial,image}Betas_...h5
        sub-01_task-things_space-T1w_model-fitHrfGLMdenoiseRR_stat-noiseCeilings_statmap.nii.gz
    THINGS/fmriprep/sourcedata/things/sub-01/ses-01/func/*_run-01_events.tsv
    THINGS/fmriprep/sourcedata/things/stimuli/images_fmri/<concept>/<concept>_01b.jpg

Betas of trials are ``[session][run]["betas"]`` (60, V) beside ``mask_array`` and ``mask_affine``;
their rows are the events' rows. Those of images are ``[image]["betas"]`` (V,). The authors state
no split, so images are held out here, by their name.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.cneuromod_betas import (
    image_rows,
    read_ceiling,
    read_mask,
    runs_of,
    trial_rows,
    unit_of,
)
from backends.datasets.cneuromod_files import (
    MODEL,
    Trial,
    ask_for,
    chosen_files,
    fetched,
    find_betas,
    find_events,
    find_rois,
    in_mask,
    read_events,
    stimulus_of,
)
from backends.datasets.god_study import one_of
from backends.datasets.reading import open_hdf5, standardised
from backends.datasets.things_files import Pictures, masks_atlas
from explorer.types import Label, Origin, Subject, Trials, UserError, VoxelSpace, voxel_hash

if TYPE_CHECKING:
    import h5py
    import pandas as pd

SESSIONS = {"sub-01": 36, "sub-02": 36, "sub-03": 36, "sub-06": 33}
IMAGES = {"sub-01": 4320, "sub-02": 4320, "sub-03": 4320, "sub-06": 3840}
FIRST_RUNS, RUNS, REPEATS = 3, 6, 3  # runs of session 1 and of the others; showings of an image
# Sessions that were given out of order (the repository's THINGS/README.md), and the lost run.
ODD = {"sub-03": (24, 25, 26), "sub-06": (19, 20, 21, 22, 23, 24, 25, 26)}
LOST = {("sub-06", 8, 6): "the authors left it out, the brain was not aligned"}
HELD_OUT = 10  # one image in so many is test
NAMED = 6  # runs that a sentence names


class CNeuroModThings:
    """CNeuroMod-THINGS as GLMsingle's betas of trials, or of images.

    Parameters
    ----------
    path
        A clone of cneuromod-things, its THINGS or glmsingle, or the folder of the HDF5 files.
    name
        What the data set is called.
    betas
        "trials", or "images": the authors' means over an image's showings.
    split
        What is held out as one in ten: "image", or "category" (whole concepts).
    seed
        Another number gives another split; the same one is the same for everybody.
    norm
        "none": as published. "session": z-scored within session by its training trials.
    roi
        "all", or a region of the authors' localisers such as FFA or V1.
    space
        Of betas, where files of several are here: T1w, MNI...
    events, images
        The folder of sub-XX/ses-XX/func/*_events.tsv, and that of the pictures.
    """

    title = "CNeuroMod-THINGS"
    licence = "betas CC0; the pictures have terms of their own and are not to be redistributed"
    citation = "St-Laurent et al. 2025, CNeuroMod-THINGS, arXiv 2507.09024"
    simulated = redistributable = False
    split_unit = "stimulus"
    looks_for = f"sub-0X_task-things_space-T1w_{MODEL}_stat-trialBetas_desc-zscore_statseries.h5"

    def __init__(
        self,
        path: Path,
        name: str,
        betas: str = "trials",
        split: str = "image",
        seed: str = "0",
        norm: str = "none",
        roi: str = "all",
        space: str = "",
        events: str = "",
        images: str = "",
    ) -> None:
        self.path, self.name, self.betas, self.split = Path(path), name, betas, split
        self.norm, self.roi = norm, roi
        one_of(name, "betas", betas, ("trials", "images"))
        one_of(name, "split", split, ("image", "category"))
        one_of(name, "norm", norm, ("none", "session"))
        if (betas, norm) == ("images", "session"):
            raise UserError(
                f"{name}: the means of images are over sessions, so norm=session has none; leave "
                "it out, they are z-scored within session as published."
            )
        if not str(seed).isdecimal():
            raise UserError(f"{name}: seed is a whole number from 0, not {seed!r}.")
        self.seed = int(seed)
        found = find_betas(self.path)
        if not found:
            raise UserError(f"{self.path}: expected {self.looks_for}, found none; check the path.")
        self._files = chosen_files(found, betas, space, name)
        self._unfetched = [kind.subject for kind, f in self._files.items() if not fetched(f)]
        here = {kind: f for kind, f in self._files.items() if fetched(f)}
        if not here:
            raise UserError(
                f"{self.path} has links to betas and none of their content; "
                f"{ask_for(next(iter(self._files.values())))}."
            )
        self._files = here
        self._kinds = {kind.subject: kind for kind in here}
        self._things = (self.path / "THINGS", self.path, self.path.parent)
        self._raw = [place / "fmriprep" / "sourcedata" / "things" for place in self._things]
        given = [Path(events).expanduser()] if events else self._raw
        self._events = find_events(given)
        if events and not self._events:
            raise UserError(f"{name}: events={events} has no sub-XX/ses-XX/func/*_events.tsv.")
        places = [*(raw / "stimuli" for raw in self._raw), *self._things]
        self._pictures = Pictures(name, images, places)
        self._opened: dict[str, h5py.File] = {}

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether files of the study's betas lie there, if only as links."""
        return bool(find_betas(Path(path)))

    @property
    def note(self) -> str:
        """What a visitor must know of the split and the voxels."""
        held = "images" if self.split == "image" else "concepts, all images of each,"
        return (
            f"The authors state no split: one in {HELD_OUT} {held} is held out here. People were "
            "asked whether they had seen an image before. The voxels lie in each person's own "
            "space and have no place on the surface."
        )

    # ------------------------------------------------------------------------------------- stimuli

    def _open(self, subject: str) -> h5py.File:
        if subject not in self._opened:
            self._opened[subject] = open_hdf5(self._files[self._kinds[subject]])
        return self._opened[subject]

    @cached_property
    def _shown(self) -> dict[str, dict[tuple[int, int], list[Trial]]]:
        """Subject -> (session, run) -> the trials, in the order of the betas' rows."""
        return {who: self._trials(who) for who in self._kinds}

    def _trials(self, subject: str) -> dict[tuple[int, int], list[Trial]]:
        if self.betas == "images":
            names = [name for name in self._open(subject) if not name.startswith("mask_")]
            sources = [f"{name.rpartition('_')[0]}/{name}.jpg" for name in sorted(names)]
            return {(0, 0): [Trial(source, 0, False) for source in sources]}
        found, of = {}, self._events.get(subject, {})
        file = self._files[self._kinds[subject]]
        for session, run in runs_of(self._open(subject), file):
            if (session, run) not in of:
                raise UserError(
                    f"{file} has betas of session {session}, run {run}, and "
                    f"{subject}_ses-{session:02d}_task-things_run-{run:02d}_events.tsv, which "
                    f"says what was shown, is not in {self._raw[0]}; fetch it with datalad get, "
                    "or name another folder with ?events=FOLDER."
                )
            found[session, run] = read_events(of[session, run], subject, session, run)
        return found

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """One row a picture, by its file's name without ending; the category is its concept."""
        import pandas as pd

        sources = sorted({t.source for of in self._shown.values() for r in of.values() for t in r})
        columns = {
            "caption": "",
            "category": [source.partition("/")[0] for source in sources],
            "source": sources,
        }
        names = [stimulus_of(source) for source in sources]
        return pd.DataFrame(columns, index=pd.Index(names, name="stimulus", dtype=object))

    def subjects(self) -> list[str]:
        """Return the people whose betas are here."""
        return list(self._kinds)

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
        whole = "images" if self.split == "image" else "concepts"
        return (
            f"Afterimage: one in {HELD_OUT} {whole} by the hash of its name, seed {self.seed}; "
            "the authors state none"
        )

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
        """Return a person's trials, or their images' means."""
        import pandas as pd

        if subject not in self._kinds:
            raise UserError(
                f"{self.name} has the subjects {', '.join(self._kinds)}, not {subject!r}."
            )
        kind, shown = self._kinds[subject], self._shown[subject]
        who, columns = self._subject(subject)
        rows = [(s, r, t.source) for (s, r), of in shown.items() for t in of]
        table = pd.DataFrame(rows, columns=["session", "run", "source"])
        table["stimulus"] = table["source"].map(stimulus_of)
        table["split"] = self._split(table["source"].tolist())
        table["repeat"] = table.groupby("stimulus").cumcount()
        if set(table["split"]) != {"train", "test"}:
            raise UserError(
                f"{self.name}: all {table['stimulus'].nunique()} images of {subject} are in one "
                "split, so nothing can be trained and tested; choose another ?seed=."
            )
        file, where = self._open(subject), str(self._files[kind])
        if self.betas == "images":
            betas = image_rows(file, table["stimulus"].tolist(), columns, kind.zscored, where)
        else:
            lengths = {key: len(of) for key, of in shown.items()}
            betas = trial_rows(file, lengths, columns, kind.zscored, where)
        unit = unit_of(kind)
        if self.norm == "session":
            trained = (table["split"] == "train").to_numpy()
            betas = standardised(betas, table["session"].to_numpy(), trained)
            unit = "z-score within session (by its training trials)"
        return Trials(who, betas, unit, table[["stimulus", "split", "repeat", "session", "run"]])

    def _split(self, sources: list[str]) -> list[str]:
        """Return train or test for every trial, the same whoever else is here."""
        of = stimulus_of if self.split == "image" else lambda source: source.partition("/")[0]
        held = {}
        for name in {of(source) for source in sources}:
            digest = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
            held[name] = int.from_bytes(digest[:8], "big") * HELD_OUT < 2**64
        return ["test" if held[of(source)] else "train" for source in sources]

    def _subject(self, subject: str) -> tuple[Subject, np.ndarray]:
        """Return a person, and which of the file's columns are theirs."""
        kind = self._kinds[subject]
        mask, affine = read_mask(self._open(subject), str(self._files[kind]))
        places = (self.path, *self.path.parents[:2])
        files = next((f for place in places if (f := find_rois(place, subject))), {})
        if kind.space != "T1w":
            files = {}  # the authors' masks are in T1w space
        regions = {name: in_mask(f, mask, affine, "a mask") > 0 for name, f in files.items()}
        one_of(self.name, "roi", self.roi, ("all", *regions))
        every = np.ones(int(mask.sum()), bool)
        columns = np.flatnonzero(regions.get(self.roi, every))
        if not len(columns):
            raise UserError(f"{self.name}: roi={self.roi} has no voxel of {subject}'s betas.")
        ceiling = read_ceiling(self._files[kind], kind, mask, affine)
        chosen = np.zeros_like(mask)
        chosen[mask] = regions.get(self.roi, every)
        digest = voxel_hash("cneuromod-things", subject, kind.space, chosen, affine)
        labels = {Label(name): values[columns] for name, values in regions.items()}
        atlases = {"ROIs": masks_atlas("ROIs", labels, digest)} if labels else {}
        where = {"mask": chosen, "affine": affine, "space": kind.space}
        space = VoxelSpace(len(columns), digest, parcellations=atlases, **where)
        ncsnr = None if ceiling is None else ceiling[columns]
        return Subject(self.name, subject, space, ncsnr=ncsnr), columns

    # ------------------------------------------------------------------------------------- remarks

    def remarks(self) -> list[str]:
        """Return what is lacking, left out or special here, one sentence each."""
        said = []
        lacking = [who for who in SESSIONS if who not in self._kinds]
        if lacking:
            said.append(f"{', '.join(lacking)} of {', '.join(SESSIONS)} are not here.")
        if self._unfetched:
            said.append(
                f"{', '.join(self._unfetched)}: the betas are links whose content was not fetched "
                "(datalad get)."
            )
        for who, kind in self._kinds.items():
            trials = self.load(who)
            if self.betas == "trials":
                said += _say_trials(who, self._shown[who])
            else:
                said.append(f"{who}: means of {len(trials.table):,} images.")
            counts = trials.table.groupby("split")["stimulus"].nunique()
            said.append(
                f"{who}: {counts['train']:,} training and {counts['test']:,} test images; "
                f"{trials.subject.voxels.n_voxels:,} voxels in {kind.space}, {trials.beta_unit}."
            )
            if trials.subject.ncsnr is None:
                said.append(f"{who}: the noise ceilings (stat-noiseCeilings) are not here.")
        said.append(f"The split is by {self.split_by}.")
        if any(kind.zscored for kind in self._kinds.values()):
            said.append(
                "The authors' z-scores take mean and SD over all trials, those held out here "
                "included."
            )
        said += self._pictures.absent(self.stimuli["source"])
        said.append("The voxels have no place on the surface.")
        return said


def _say_trials(subject: str, shown: dict[tuple[int, int], list[Trial]]) -> list[str]:
    """Return what is missing or odd in a person's sessions, one sentence each."""
    said = []
    sessions = range(1, SESSIONS.get(subject, 0) + 1)
    every = [(s, r) for s in sessions for r in range(1, (FIRST_RUNS if s == 1 else RUNS) + 1)]
    whole = sorted(set(sessions) - {s for s, _ in shown})
    single = [key for key in every if key not in shown and key[0] not in whole]
    single.sort(key=lambda key: (subject, *key) not in LOST)
    named = [f"session {s} run {r}" for s, r in single[:NAMED]]
    named += [f"{len(single) - NAMED} more runs"] if len(single) > NAMED else []
    named += [f"all of session {', '.join(map(str, whole))}"] if whole else []
    why = "".join(
        f"; session {s} run {r}: {LOST[subject, s, r]}"
        for s, r in single
        if (subject, s, r) in LOST
    )
    if named:
        said.append(f"{subject} lacks {', '.join(named)}{why}.")
    marked = {s for (s, _), trials in shown.items() if any(t.odd for t in trials)}
    odd = sorted(marked | {s for s, _ in shown if s in ODD.get(subject, ())})
    if odd:
        said.append(
            f"{subject}: session {', '.join(map(str, odd))} was given out of the planned order: "
            "the number of an image's showing is not what was planned; the pictures are right."
        )
    seen: Counter[str] = Counter()
    apart = 0
    for trials in shown.values():
        for trial in trials:
            seen[trial.source] += 1
            apart += bool(trial.repetition) and trial.repetition != seen[trial.source]
    if apart:
        said.append(
            f"{subject}: {apart:,} trials are another showing of their image by the events than "
            "by their order here, because of runs that lack or sessions out of order."
        )
    times = Counter(seen.values())
    if len(seen) != IMAGES.get(subject) or set(times) != {REPEATS}:
        listed = ", ".join(f"{times[n]:,} shown {n} x" for n in sorted(times))
        said.append(
            f"{subject}: {len(seen):,} images, {listed}; planned were "
            f"{IMAGES.get(subject, 0):,} x {REPEATS}."
        )
    return said
