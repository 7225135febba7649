"""Any study as a plain folder; ``backends.datasets.layout`` documents the files."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets import arriving, layout
from backends.datasets.layout_voxels import MNI
from explorer.types import Origin, Trials, UserError

if TYPE_CHECKING:
    import pandas as pd

LIVE_FILES = ("betas.npy", "trials.tsv", "voxels.tsv")


class Folder:
    """A study in a plain folder.

    Parameters
    ----------
    path
        The folder that holds ``dataset.json``.
    name
        What the data set is called.
    live
        "yes" while a scan adds trials: what is not whole is left out and told, see `remarks`.
    """

    looks_for = "a folder with dataset.json"

    def __init__(self, path: Path, name: str, live: str = "no") -> None:
        if live not in ("yes", "no"):
            raise UserError(f"{name}: live is yes or no, found {live!r}.")
        self.path, self.name, self.live = Path(path), name, live == "yes"
        self._unfinished: dict[str, list[str]] = {}
        self._description = layout.read_description(self.path)
        self.title: str = self._description["title"]
        self.licence: str = self._description["licence"]
        self.citation: str = self._description["citation"]
        self.simulated: bool = self._description["simulated"]
        self.redistributable: bool = self._description["redistributable"]
        self.split_unit: str = self._description["split_unit"]
        self.note: str = self._description["note"]
        self._folders = layout.subject_folders(self.path, self._description)

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a folder has a description, sound or not, that is not a simulation's."""
        return layout.is_described(path) and not layout.is_simulated(path)

    def stamp(self) -> Hashable:
        """Return what changes whenever a file of trials or the table of stimuli does."""
        tables = [self.path / "stimuli" / "stimuli.tsv"]
        try:  # of the subjects that there are now
            folders = layout.subject_folders(self.path, self._description)
        except UserError:
            folders = self._folders
        for folder in folders.values():
            tables += [folder / name for name in (*LIVE_FILES, arriving.NEW)]
        return arriving.stamp(tables)

    def unfinished(self) -> list[str]:
        """Return which files of trials were not whole when they were read, one sentence each."""
        return [sentence for of_one in self._unfinished.values() for sentence in of_one]

    def remarks(self) -> list[str]:
        """Return what the folder leaves open, one sentence each."""
        said = self.unfinished()
        if not (self.stimuli["caption"] != "").any():
            said.append("The pictures have no captions; stimuli.tsv may have a column caption.")
        for name, folder in self._folders.items():
            if (folder / "mask.nii.gz").is_file():
                space = self._description["space"]
                if not space.startswith(MNI):
                    said.append(
                        f"{name}: the mask lies in {space or 'a space that nobody named'}, and "
                        f"only {MNI} spaces are drawn on the surface."
                    )
            elif not (folder / "voxels.tsv").is_file():
                said.append(
                    f"{name} has no voxels.tsv, so nothing says where its voxels lie, and "
                    "importance cannot be drawn or sorted into parcels."
                )
        return said

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """One row a stimulus, indexed by id: file, caption, category, source and what else."""
        if self.live:
            arriving.whole_table(self.path / "stimuli" / "stimuli.tsv")
        return layout.read_stimuli(self.path)

    def subjects(self) -> list[str]:
        """Return the names of the participants."""
        return list(self._folders)

    def load(self, subject: str) -> Trials:
        """Return one participant's trials; betas stay on disk and are read by rows."""
        if subject not in self._folders:
            raise UserError(
                f"{self.name} has the subjects {', '.join(self._folders)}, not {subject!r}."
            )
        folder = self._folders[subject]
        found: list[str] = []
        asked = folder, self.name, subject, self._description, self.stimuli
        trials = layout.read_trials(*asked, unfinished=found if self.live else None)
        self._unfinished[subject] = found
        return trials

    split_by = "trials.tsv of the folder, column split"

    def picture_origin(self, stimulus: str) -> Origin:
        """Return where a picture lies."""
        return layout.picture_origin(self.path, self.stimuli, stimulus)

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return what names a picture in stimuli.tsv."""
        return layout.picture_ids(self.stimuli, stimulus)

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture that was shown, uint8 RGB (H, W, 3)."""
        return layout.read_image(self.path, self.stimuli, stimulus)
