"""The Natural Scenes Dataset as MindEye2 (Scotti et al. 2024) released it.

huggingface.co/datasets/pscotti/mindeyev2::

    betas_all_subj01_fp32_renorm.hdf5   betas (trials, V), row = global trial, 750 a session
    COCO_73k_subj_indices.hdf5          subj01..subj08 (trials,), the image of each trial
    shared1000.npy                      bool (73000,), the test images
    wds/subj01/{train/0..39,test/0,new_test/0}.tar    KEY.behav.npy (1, 17), one a trial
    coco_images_224_float16.hdf5        images (73000, 3, 224, 224) in [0, 1]
    brain_region_masks.hdf5             subj01/V1 ... (V,), masks within nsdgeneral

`mindeye_release` says where these facts were read.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.mindeye1_shards import Shards, find_shards, no_shard, split_folder
from backends.datasets.mindeye2_trials import INDICES, Shown
from backends.datasets.mindeye_release import (
    HUB2,
    RELEASED,
    SAMPLED,
    Release,
    attempt,
    betas_files,
    number_of,
    some,
    usable,
)
from backends.datasets.published import to_bytes
from backends.datasets.reading import (
    check_array,
    chosen,
    hdf5_array,
    hdf5_row,
    hdf5_rows,
    open_hdf5,
)
from explorer.files import guard, short
from explorer.types import Origin, Subject, Trials, UserError

if TYPE_CHECKING:
    import h5py

PICTURES = "coco_images_224_float16.hdf5"
RENORM = re.compile(r"betas_all_(subj\d\d)_fp32_renorm\.hdf5")


class MindEye2(Release):
    """MindEye2's release: betas by global trial in HDF5, 1,000 test images.

    Loading reads the image of every trial and a few rows of betas; all else is read on demand.
    ``trial`` in the table is the global trial from 0, the row in the file. ``run`` is 0 (unknown)
    where trials come from ``COCO_73k_subj_indices.hdf5``, which does not say it.

    Parameters
    ----------
    path
        The folder that holds ``betas_all_subj0X_fp32_renorm.hdf5``.
    name
        What the data set is called.
    sessions
        "all", or how many sessions (the first ones) are trained on; the test set stays the same.
        A subject with fewer sessions gives all of theirs.
    test
        "new_test": every trial of the shared images (1,000; 930 for subjects 3 and 6, 907 for 4
        and 8). "test": the older set in ``wds/subj0X/test``, without the last three sessions.
        Shared images are never trained on, whichever is chosen.
    voxels
        "nsdgeneral": voxels and trials must be the subject's in number; "any": files that only
        agree with each other, such as another selection of voxels.
    nsdgeneral
        The path of ``nsdgeneral.nii.gz`` (func1pt8mm), or of a folder with one a subject, to know
        where the voxels lie; without it, one beside the data is used.
    """

    citation = (
        "Scotti et al. (2024). MindEye2: shared-subject models enable fMRI-to-image with 1 hour "
        "of data. ICML, arXiv:2403.11207. Data: Allen et al. (2022). A massive 7T fMRI dataset to "
        "bridge cognitive neuroscience and artificial intelligence. Nature Neuroscience "
        "25:116-126."
    )

    looks_for = "betas_all_subj01_fp32_renorm.hdf5 and on"

    def __init__(
        self,
        path: Path,
        name: str,
        sessions: str = "all",
        test: str = "new_test",
        voxels: str = "nsdgeneral",
        nsdgeneral: str = "",
    ) -> None:
        path = Path(path)
        super().__init__(path.parent if path.is_file() else path, name, voxels, nsdgeneral)
        self._sessions = _sessions(sessions, name)
        if test not in ("new_test", "test"):
            raise UserError(
                f"{name}: test is new_test (1,000 images, the default) or test (the older 982), "
                f"found {test!r}."
            )
        self._test = test
        found = betas_files(self.path)
        self._files = {m[1]: f for f in found if (m := RENORM.fullmatch(f.name))}
        self._files = {s: f for s, f in sorted(self._files.items()) if s in RELEASED}
        self._others = [f.name for f in found if not RENORM.fullmatch(f.name)]
        if not self._files:
            older = (
                f"{self._others[0]} is an older file with other voxels, and there is no"
                if self._others
                else f"{path} has no"
            )
            raise UserError(
                f"{older} betas_all_subj0X_fp32_renorm.hdf5 in {self.path}; those are the betas of"
                f" MindEye2 and come from {HUB2}."
            )
        which = {"new_test": "new_test, 1,000", "test": "older test, 982"}[test]
        self.title = f"NSD, MindEye2's release ({which} test images)"
        self.TEST_SET = f"MindEye2 {test} ({which.split(', ')[1]})"
        self.note = (
            f"MindEye2's {which} test images at most, which are not MindEye1's 982; betas were "
            "z-scored per session over all trials, test trials included."
            if test == "new_test"
            else "MindEye2's older test set, 982 images at most; betas were z-scored per session "
            "over all trials, test trials included."
        )
        self._opened: dict[Path, h5py.File] = {}
        self._shown = Shown(self.path, exact=not self._any_voxels)

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Say whether a path holds MindEye2's betas, or is such a file."""
        path = Path(path)
        try:
            if path.is_file():
                return RENORM.fullmatch(path.name) is not None
            return bool(betas_files(path))
        except OSError:
            return False

    def subjects(self) -> list[str]:
        """Return the subjects whose betas are here, of subj01 to subj08."""
        return list(self._files)

    def load(self, subject: str) -> Trials:
        """Return a subject's trials, one row a trial that is trained or tested on."""
        self._known(subject)
        stored = self._betas(subject)
        older = self._test == "test"
        table = self._shown.table(subject, len(stored), self.TEST_SET, older, self._sessions)
        spread = np.unique(np.linspace(0, len(stored) - 1, SAMPLED).astype(int))
        kept = usable(np.stack([stored[row] for row in spread]), subject)
        columns = None if kept.all() else np.flatnonzero(kept)
        rows = hdf5_rows(stored, str(self._files[subject]), columns)
        betas = chosen(rows, table["trial"].to_numpy())
        who = Subject(self.name, subject, self._space(subject, kept))
        return Trials(who, betas, "z-score within session (test trials included)", table)

    def image(self, stimulus: str) -> np.ndarray:
        """Return an image, uint8 RGB (H, W, 3).

        From ``coco_images_224_float16.hdf5``; where that is missing, from NSD's
        ``nsd_stimuli.hdf5`` or MindEye1's shards if they lie beside.
        """
        number = number_of(stimulus, self.name)
        file = self.path / PICTURES
        if file.is_file():
            images = hdf5_array(self._file(file), "images", 4, "f", whole=False)
            if images.shape[1] != 3:
                raise UserError(
                    f"{file} needs images (73000, 3, H, W), found {images.shape}; copy it from "
                    f"{HUB2} again."
                )
            if number >= len(images):
                raise UserError(
                    f"{file} has {len(images)} images, so not {stimulus!r}; copy it from {HUB2} "
                    "again."
                )
            return to_bytes(hdf5_row(images, number), f"{file}, image {number} (from 0)")
        beside = self._nsd_pictures()
        picture = None if beside is None else self._picture(beside, stimulus)
        if picture is not None:
            return picture
        if self._older is not None:
            picture = self._older.picture(number)
            if picture is None:
                raise no_shard(self.name, stimulus)
            return picture
        raise UserError(
            f"{file} is missing, so {stimulus!r} cannot be shown; it is about 22 GB and comes from"
            f" {HUB2}."
        )

    def picture_origin(self, stimulus: str) -> Origin | None:
        """Return the row of the release's pictures, or of what lies beside; None for none."""
        number, file = number_of(stimulus, self.name), self.path / PICTURES
        if file.is_file():
            return Origin(str(file), number, "images")
        sample = None if self._older is None else self._older.sample(number)
        if self._nsd_pictures() is None and sample is not None:
            return Origin(str(sample.shard), None, sample.key, "picture member of the sample")
        return self._beside(stimulus)

    def remarks(self) -> list[str]:
        """Return what somebody must know of this copy; loads the subjects to know it."""
        problems = [p for s in self._files if isinstance(p := attempt(self.load, s), str)]
        said = [
            f"Test set: MindEye2's {self._test}"
            + (
                ", 1,000 images (930 for subjects 3 and 6, 907 for 4 and 8)"
                if self._test == "new_test"
                else ", the older one of 982 images at most"
            )
            + "; MindEye1 tests on its own 982, so scores of the two do not compare.",
            "Betas (betas_fithrf) were z-scored per session over all trials, test trials "
            "included, which leaks a little of the test set; they are not normalised again.",
            "An image is the mean of the repeats it has; MindEye2's own code makes three rows of "
            "two repeats ([a, b, a]) and so counts the first twice.",
        ]
        if self._sessions is not None:
            said.append(f"sessions={self._sessions}: training trials of later ones are left out.")
        lacking = [s for s in RELEASED if s not in self._files]
        if lacking:
            said.append(
                f"No betas of {', '.join(lacking)}: betas_all_subj0X_fp32_renorm.hdf5 comes from "
                f"{HUB2}."
            )
        if self._others:
            said.append(
                f"{some(self._others)} hold other voxels (older or whole-brain) and are not read."
            )
        if (self.path / INDICES).is_file():
            said.append(f"{INDICES} does not say runs (0 stands for unknown).")
        if not (self.path / PICTURES).is_file():
            beside = self._nsd_pictures() or (self._older and "MindEye1's shards")
            said.append(
                f"{PICTURES} is missing (about 22 GB, {HUB2}); "
                + (f"images come from {beside}." if beside else "no image can be shown.")
            )
        return problems + said + self._shared_remarks()

    # ----------------------------------------------------------------------------------- its files

    def _file(self, file: Path, needs: str = "") -> h5py.File:
        with self._lock:
            if file not in self._opened:
                self._opened[file] = open_hdf5(file, needs)
            return self._opened[file]

    @cached_property
    def _older(self) -> Shards | None:
        """MindEye1's shards beside, whose pictures can stand in."""
        files = find_shards(split_folder(self.path))
        return Shards(files) if files else None

    def _betas(self, subject: str) -> h5py.Dataset:
        """Return betas (trials, V) as they are stored, checked against the subject's counts."""
        file = self._files[subject]
        opened = self._file(file)
        with guard(file):
            stored = opened.get("betas")
            there = short(", ".join(opened)) or "nothing"
        if stored is None or getattr(stored, "ndim", 0) != 2 or stored.dtype.kind != "f":
            raise UserError(f"{file} needs betas, numbers (trials, voxels); it has {there}.")
        check_array(stored, "betas", 2, "f")
        trials, voxels = stored.shape
        self._check_voxels(subject, voxels, file)
        if trials != RELEASED[subject][0] and not self._any_voxels:
            same = ", ".join(s for s, (t, _, _) in RELEASED.items() if t == trials)
            raise UserError(
                f"{file} has {trials} trials, {subject} has {RELEASED[subject][0]}"
                + (f" ({trials} is what {same} have)" if same else "")
                + f"; copy it from {HUB2} again."
            )
        return stored

    def _test_sets(self) -> dict[str, np.ndarray]:
        if self._test == "new_test":
            return {self.TEST_SET: np.flatnonzero(self._shown.shared)}
        return {self.TEST_SET: self._shown.older_test(list(self._files))}


def _sessions(given: str, name: str) -> int | None:
    """Return how many sessions are trained on, None for all."""
    if str(given) == "all":
        return None
    if not str(given).isdecimal() or not 1 <= int(given) <= 40:
        raise UserError(f"{name}: sessions is all or a number from 1 to 40, found {given!r}.")
    return int(given)
