"""LAION-fMRI: five people at 7 T, 25,052 pictures, betas under CC0 and pictures on request.

Betas of single trials lie in one 4D NIfTI a session (`laion_files`, `laion_sessions`); a trial's
picture is named by its label, never by a number. The pictures need a data use agreement, so the
study opens without them: then what is decoded is compared in the embeddings that are published
beside the betas (`laion_sidecars`), and the page says so.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.god_study import one_of
from backends.datasets.laion_files import (
    GLM,
    find_people,
    read_trials,
)
from backends.datasets.laion_sessions import session_rows
from backends.datasets.laion_sidecars import SIDECAR, embeddings, find_sidecars, rows_of
from backends.datasets.laion_splits import OOD, ood_type, read_split, splits_folder
from backends.datasets.laion_voxels import Chosen, choose_voxels, odd_repeats
from backends.datasets.reading import (
    chosen,
    hdf5_array,
    hdf5_row,
    open_hdf5,
    stacked,
    standardised,
)
from explorer.files import guard, read_text
from explorer.folders import cache_folder
from explorer.images import read_picture
from explorer.types import (
    EmbeddingSpace,
    Origin,
    Trials,
    UserError,
)

if TYPE_CHECKING:
    import pandas as pd

SHARED = "shared"  # the split by whether a picture was shown to everybody
ASK = (
    "Ask for the pictures (laion-fmri request-access) and put "
    "task-images_stimuli.h5 and task-images_metadata.csv into stimuli/, or pictures named by "
    "their labels into stimuli/images/"
)


class LaionFMRI:
    """LAION-fMRI as its bucket lies on disk.

    Parameters
    ----------
    path
        The folder with ``derivatives/glmsingle-tedana`` and, if had, ``stimuli``.
    name
        What the data set is called.
    split
        "shared": pictures that everybody saw are test, a person's own are training. Or one of the
        package's: random_0 to random_4, cluster_k5_0 to cluster_k5_4, tau, ood.
    pool
        Of the package's splits: "subject" (the person's own pool) or "shared".
    ood
        With ``split=ood``: which of the nine types are test, parted by commas; "" is all.
    splits
        The folder ``laion_fmri/splits/data``; default: beside the data, else the package.
    mask
        "brain", "R2mean" (above 0) or "R2gt15" (the early release's); default: the first that is
        here, in that order.
    roi
        A region, or "all" voxels of the mask; default: laion-general where it is here, else all.
    norm
        "session": z-scored within session by its training trials. "none": as published.
    cache
        Where packed sessions are kept as rows; default: $AFTERIMAGE_CACHE or ~/.cache/afterimage.
    """

    title = "LAION-fMRI (Zerbe et al. 2026)"
    licence = "betas CC0; the pictures under a data use agreement, not to be redistributed"
    citation = "Zerbe et al. 2026, LAION-fMRI, Vision Sciences Society; laion-fmri.hebartlab.com"
    simulated = redistributable = False
    split_unit = "stimulus"
    looks_for = (
        "derivatives/glmsingle-tedana/sub-XX/ses-XX/func/"
        "sub-XX_ses-XX_task-images_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz"
    )

    def __init__(
        self,
        path: Path,
        name: str,
        split: str = SHARED,
        pool: str = "subject",
        ood: str = "",
        splits: str = "",
        mask: str = "",
        roi: str = "",
        norm: str = "session",
        cache: str = "",
    ) -> None:
        self.path, self.name, self.split, self.roi = Path(path), name, split, roi
        self.norm, self._mask_kind, self._pool = norm, mask, pool
        one_of(name, "pool", pool, ("subject", "shared"))
        one_of(name, "norm", norm, ("session", "none"))
        self._ood = tuple(word for word in ood.split(",") if word)
        for word in self._ood:
            one_of(name, "ood", word, OOD)
        if self._ood and split != "ood":
            raise UserError(f"{name}: ood={ood} chooses test pictures of split=ood; give both.")
        self._people = find_people(self.path)
        if not self._people:
            raise UserError(f"{self.path}: expected {self.looks_for}, found none; check the path.")
        self._splits, self._version = None, ""
        if split != SHARED:
            self._splits, self._version = splits_folder(splits, self.path)
        base = Path(cache).expanduser() if cache else cache_folder()
        self._cache = base / "laion-fmri"
        self._stimuli_folder = self.path / "stimuli"
        self._known: dict[str, Chosen] = {}

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether somebody's single-trial betas lie there."""
        place = Path(path) / GLM
        return place.is_dir() and bool(find_people(Path(path)))

    @property
    def note(self) -> str:
        """What a visitor must know of pictures and places."""
        said = "The voxels lie in each person's own space (T1w) and have no place on the surface."
        if self._pictures:
            return said
        spaces = ", ".join(space.name for space in self._sidecars)
        compared = f"what is decoded is compared in its published embeddings ({spaces})"
        if not spaces:
            compared = "nothing can be compared with what was shown"
        return f"{said} The pictures are not here, so {compared}."

    @property
    def split_by(self) -> str:
        """Who says which pictures are test."""
        if self.split == SHARED:
            return "Afterimage: pictures that everybody saw are test, a person's own are training"
        version = f"version {self._version}" if self._version else "version unknown"
        pool = "the shared pool" if self._pool == "shared" else "each person's pool"
        types = f", test of the types {', '.join(self._ood)}" if self._ood else ""
        return f"the authors: {self.split} of the package laion-fmri, {version}, {pool}{types}"

    # ------------------------------------------------------------------------------------- stimuli

    @cached_property
    def _sidecars(self) -> dict[EmbeddingSpace, Path]:
        return find_sidecars(self._stimuli_folder)

    @cached_property
    def _unembedded(self) -> frozenset[str]:
        """Labels without a valid embedding in some sidecar that is here."""
        return frozenset().union(*(rows_of(file)[1] for file in self._sidecars.values()))

    @cached_property
    def _pictures(self) -> dict[str, int | Path]:
        """Label -> row of the file of pictures, or a file; {} where they are not here."""
        packed = self._stimuli_folder / "task-images_stimuli.h5"
        if packed.is_file():
            return _rows_of_pictures(packed)
        files = (self._stimuli_folder / "images").glob("*.*")
        return {file.name: file for file in sorted(files)}

    @cached_property
    def _tables(self) -> dict[str, pd.DataFrame]:
        """Subject -> every trial of every session, in order, with the session's place in them."""
        import pandas as pd

        found = {}
        for who, person in self._people.items():
            parts = []
            for at, session in enumerate(person.sessions):
                volumes = self._volumes(who, at)
                parts.append(read_trials(session, volumes, who).assign(part=at))
            found[who] = pd.concat(parts, ignore_index=True)
        return found

    def _volumes(self, who: str, at: int) -> int:
        from explorer.files import open_volume

        path = self._people[who].sessions[at].betas
        shape = open_volume(path).shape
        if len(shape) != 4:
            raise UserError(f"{path} has shape {shape}, expected volumes (X, Y, Z, trials).")
        return int(shape[3])

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """One row a picture, by its label; ``category`` is its type of OOD, "" for the others."""
        import pandas as pd

        names = sorted({s for table in self._tables.values() for s in table["stimulus"]})
        columns = {
            "caption": "",
            "category": [f"OOD {kind}" if (kind := ood_type(n)) else "" for n in names],
            "source": names,
        }
        return pd.DataFrame(columns, index=pd.Index(names, name="stimulus", dtype=object))

    def subjects(self) -> list[str]:
        """Return the people whose betas are here."""
        return list(self._people)

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture that was shown, uint8 RGB (H, W, 3)."""
        if stimulus not in self.stimuli.index:
            raise UserError(
                f"{self.name} has no stimulus {stimulus!r}; it has {len(self.stimuli)}, such as "
                f"{self.stimuli.index[0]}."
            )
        if why := self.without_picture(stimulus):
            raise UserError(f"{why} {ASK}.")
        place = self._pictures[stimulus]
        if isinstance(place, Path):
            return read_picture(place, f"The picture of {stimulus}")
        file = self._stimuli_folder / "task-images_stimuli.h5"
        with open_hdf5(file) as opened:
            packed = hdf5_row(hdf5_array(opened, "images", 1, "O", whole=False), place)
        return read_picture(np.asarray(packed, np.uint8).tobytes(), f"The picture of {stimulus}")

    def without_picture(self, stimulus: str) -> str:
        """Return why a picture is not shown, "" where it is here."""
        if stimulus in self._pictures:
            return ""
        return f"The picture of {stimulus} is not here: LAION-fMRI's are had on request."

    def known_embeddings(
        self, stimuli: Sequence[str], space: EmbeddingSpace, fingerprint: str
    ) -> np.ndarray | None:
        """Return published embeddings float32 (n, d) of unit norm, None in any other space."""
        if fingerprint != SIDECAR or space not in self._sidecars:
            return None
        return embeddings(self._sidecars[space], space, stimuli)

    def picture_origin(self, stimulus: str) -> Origin | None:
        """Return where a picture lies; None where it is not here."""
        place = self._pictures.get(stimulus)
        if isinstance(place, Path):
            return Origin(str(place))
        file = self._stimuli_folder / "task-images_stimuli.h5"
        return None if place is None else Origin(str(file), place, "images")

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return what names a picture: its label, and its row where the pictures are here."""
        found = {"LAION-fMRI's label": stimulus}
        row = self._pictures.get(stimulus)
        return found | ({"row of images, from 0": str(row)} if isinstance(row, int) else {})

    # -------------------------------------------------------------------------------------- trials

    def load(self, subject: str) -> Trials:
        """Return a person's trials under the chosen split; sessions are read by rows."""
        if subject not in self._people:
            raise UserError(
                f"{self.name} has the subjects {', '.join(self._people)}, not {subject!r}."
            )
        person, table = self._people[subject], self._tables[subject].copy()
        table["split"] = self._split_of(table["stimulus"], subject)
        who = self._voxels(subject).subject
        space = who.voxels
        parts = [session_rows(s, space.mask, space.affine, self._cache) for s in person.sessions]
        # a session's table is in the order of its volumes, so rows and volumes agree
        betas, unit = stacked(parts, f"{self.name}/{subject}"), "GLMsingle beta, relative units"
        if self.norm == "session":
            trained = (table["split"] == "train").to_numpy()
            betas = standardised(betas, table["session"].to_numpy(), trained)
            unit = "z-score within session (by its training trials)"
        keep = np.flatnonzero((table["split"] != "") & ~table["stimulus"].isin(self._unembedded))
        table = table.iloc[keep].reset_index(drop=True)
        if set(table["split"]) != {"train", "test"}:
            lacking = min({"train", "test"} - set(table["split"]))
            raise UserError(
                f"{self.name}/{subject}: the split {self.split!r} leaves no {lacking} trial of "
                "the sessions that are here; choose another, or get more sessions."
            )
        table["repeat"] = table.groupby(["stimulus", "split"]).cumcount()
        columns = ["stimulus", "split", "repeat", "session", "run"]
        return Trials(who, chosen(betas, keep), unit, table[columns])

    def _split_of(self, stimuli: pd.Series, subject: str) -> pd.Series:
        """Return train, test or "" (in neither) for each trial."""
        if self._splits is None:
            return stimuli.str.startswith("shared_").map({True: "test", False: "train"})
        pool = "shared" if self._pool == "shared" else subject
        train, test = read_split(self._splits, self.split, pool)
        if self._ood:
            test = {label for label in test if ood_type(label) in self._ood}
        if not (train | test) & set(stimuli):
            raise UserError(
                f"{self._splits / pool / self.split}.json names none of {subject}'s pictures; it "
                "is of another release of the labels."
            )
        return stimuli.map(dict.fromkeys(train, "train") | dict.fromkeys(test, "test")).fillna("")

    def _voxels(self, subject: str) -> Chosen:
        if subject not in self._known:
            person = self._people[subject]
            self._known[subject] = choose_voxels(self.name, person, self._mask_kind, self.roi)
        return self._known[subject]

    def remarks(self) -> list[str]:
        """Return what must be known of these files, one sentence each."""
        said = []
        for who, person in self._people.items():
            said += person.remarks
            voxels = self._voxels(who)
            count = voxels.subject.voxels.n_voxels
            said.append(f"{who}: {count:,} voxels of the mask {voxels.mask} and the region.")
            if voxels.lost:
                said.append(
                    f"{who}: {voxels.lost} voxels have no value in some session and are left out."
                )
            said += odd_repeats(who, self._tables[who])
            if any(s.betas.suffix == ".gz" for s in person.sessions):
                size = 4 * count * len(self._tables[who]) / 1e9
                said.append(
                    f"{who}: packed sessions are unpacked once, a minute or two each, into "
                    f"{size:.1f} GB in {self._cache}; gunzip them and trials are read alone."
                )
        lost = sum(name not in self._pictures for name in self.stimuli.index)
        if lost:
            said.append(f"{lost} of {len(self.stimuli)} pictures are not here. {ASK}.")
        without = self._unembedded & set(self.stimuli.index)
        if without:
            said.append(
                f"{len(without)} pictures have no valid published embedding (first "
                f"{min(without)}); their trials are left out."
            )
        if self.split != SHARED and not self._version:
            said.append("Nothing says which version of the package the splits are of.")
        return said


def _rows_of_pictures(packed: Path) -> dict[str, int]:
    """Return label -> row of the file of pictures, by the table that lies beside it."""
    table = packed.with_name("task-images_metadata.csv")
    text = read_text(table, missing="it says which picture each row is; copy it too")
    with guard(table, "a table"):
        named = csv.DictReader(io.StringIO(text.lstrip("\ufeff")))
        names = [(row.get("image_name") or "").strip() for row in named]
    if not names or not all(names):
        raise UserError(f"{table} needs a column image_name without gaps; copy it again.")
    with open_hdf5(packed) as opened:
        count = len(hdf5_array(opened, "images", 1, "O", whole=False))
    if count != len(names):
        raise UserError(
            f"{packed} has {count} pictures, {table.name} {len(names)} rows; they belong together "
            "row by row, so take both of one release."
        )
    found = {name: i for i, name in enumerate(names)}
    if len(found) < len(names):
        raise UserError(f"{table} names a picture twice; copy it again.")
    return found
