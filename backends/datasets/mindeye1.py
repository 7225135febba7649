"""The Natural Scenes Dataset as MindEye1 (Scotti et al. 2023) released it.

huggingface.co/datasets/pscotti/naturalscenesdataset::

    webdataset_avg_split/train/train_subj01_{0..17}.tar, val/val_subj01_0.tar   8,559 + 300 images
    webdataset_avg_split/test/test_subj01_{0..1}.tar                            982 images

A sample of a shard has the members ``KEY.jpg`` (or png), ``KEY.nsdgeneral.npy`` (3, V) with one
row a repeat and rows copied where there were fewer, ``KEY.num_uniques.npy`` (how many there were)
and ``KEY.coco73k.npy``. The paper trains on train and val together. `mindeye_release` says where
these facts were read.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from backends.datasets.mindeye1_shards import (
    HUB1,
    IN_MINDEYE1,
    SHARD,
    Sample,
    Shards,
    find_shards,
    no_shard,
    split_folder,
)
from backends.datasets.mindeye_release import (
    REGIONS,
    SAMPLED,
    Release,
    betas_files,
    names,
    number_of,
    some,
    usable,
)
from backends.datasets.reading import LazyRows
from explorer.types import Origin, Subject, Trials, UserError

SHARDS = {"train": 18, "val": 1, "test": 2}


class MindEye1(Release):
    """MindEye's first release: tar shards with images and betas, 982 test images.

    Opening a subject reads the headers of its shards once and keeps where each member lies;
    betas and images are then read one sample at a time. ``session`` and ``run`` are 0: the
    release does not say them. The column ``part`` tells train from val, which are both training.

    Parameters
    ----------
    path
        The folder that holds ``webdataset_avg_split``, or that folder.
    name
        What the data set is called.
    voxels
        "nsdgeneral": the count must be the subject's; "any": another selection of voxels.
    nsdgeneral
        The path of ``nsdgeneral.nii.gz`` (func1pt8mm), or of a folder with one a subject, to know
        where the voxels lie; without it, one beside the data is used.
    """

    looks_for = "webdataset_avg_split/ with train_subj01_0.tar and on"
    title = "NSD, MindEye1's release (982 test images)"
    citation = (
        "Scotti et al. (2023). Reconstructing the mind's eye: fMRI-to-image with contrastive "
        "learning and diffusion priors. NeurIPS 36. Data: Allen et al. (2022). A massive 7T fMRI "
        "dataset to bridge cognitive neuroscience and artificial intelligence. Nature "
        "Neuroscience 25:116-126."
    )
    note = (
        "MindEye1's test set: the 982 images of NSD's first 37 sessions, which is not MindEye2's "
        "1,000; betas were z-scored per session before release."
    )
    TEST_SET = "MindEye1 test (982)"

    def __init__(
        self, path: Path, name: str, voxels: str = "nsdgeneral", nsdgeneral: str = ""
    ) -> None:
        path = Path(path)
        folder = split_folder(path)
        super().__init__(folder.parent, name, voxels, nsdgeneral)
        self._files = find_shards(folder)
        if not self._files:
            raise UserError(
                f"{path} holds no shard of MindEye1; expected webdataset_avg_split/"
                f"{{train,val,test}}/*_subj0X_N.tar, which come from {HUB1}."
            )
        self._shards = Shards(self._files)

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Say whether a path holds MindEye1's shards (and not MindEye2's betas beside them)."""
        path = Path(path)
        try:
            beside = path.is_dir() and path.name != "webdataset_avg_split" and betas_files(path)
            return not beside and bool(find_shards(split_folder(path)))
        except OSError:
            return False

    def subjects(self) -> list[str]:
        """Return the subjects that have shards; the release has 1, 2, 5 and 7."""
        return sorted({SHARD.fullmatch(file.name)[2] for file in self._files})

    def load(self, subject: str) -> Trials:
        """Return a subject's trials, one row a repeat, betas read from the shards on demand."""
        import pandas as pd

        self._known(subject)
        files = [file for file in self._files if SHARD.fullmatch(file.name)[2] == subject]
        samples = [sample for file in files for sample in self._shards.read(file)]
        v = self._voxel_count(subject, samples)
        self._check_numbers(samples)
        spread = np.unique(np.linspace(0, len(samples) - 1, min(SAMPLED, 32)).astype(int))
        kept = usable(np.concatenate([samples[i].rows() for i in spread]), subject)
        of_trial = np.repeat(np.arange(len(samples)), [s.repeats for s in samples])
        table = pd.DataFrame(
            {
                "stimulus": names()[[samples[i].number for i in of_trial]],
                "split": ["test" if samples[i].part == "test" else "train" for i in of_trial],
                "repeat": np.concatenate([np.arange(s.repeats) for s in samples]),
                "session": 0,
                "run": 0,
                "part": [samples[i].part for i in of_trial],
                "test_set": [self.TEST_SET if samples[i].part == "test" else "" for i in of_trial],
            }
        )
        repeat, columns = table["repeat"].to_numpy(), np.flatnonzero(kept)

        def read(wanted: np.ndarray) -> np.ndarray:
            values = np.empty((len(wanted), len(columns)), np.float32)
            for i in np.unique(of_trial[wanted]):
                here = of_trial[wanted] == i
                rows = samples[i].rows()
                if rows.shape[1] != v:
                    raise UserError(
                        f"{samples[i].where} has {rows.shape[1]} voxels, the rest has {v}."
                    )
                values[here] = rows[repeat[wanted[here]]][:, columns]
            return values

        def lies(row: int) -> list[Origin]:
            sample = samples[of_trial[row]]
            member = f"{sample.key}.nsdgeneral.npy"
            return [Origin(str(sample.shard), sample.stored_row(int(repeat[row])), member)]

        who = Subject(self.name, subject, self._space(subject, kept))
        betas = LazyRows((len(table), len(columns)), read, f"{self.name}/{subject}", lies)
        return Trials(who, betas, "z-score within session (as released)", table)

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture of a sample, uint8 RGB (H, W, 3), or NSD's own where it lies beside.

        Shards are looked through until one has it, so the first picture of a subject that was
        not loaded takes as long as loading it.
        """
        picture = self._shards.picture(number_of(stimulus, self.name))
        beside = self._nsd_pictures() if picture is None else None
        if beside is not None:
            picture = self._picture(beside, stimulus)
        if picture is None:
            raise no_shard(self.name, stimulus)
        return picture

    def picture_origin(self, stimulus: str) -> Origin | None:
        """Return the member of a shard that is the picture, or its row of NSD's own file."""
        sample = self._shards.sample(number_of(stimulus, self.name))
        if sample is None:
            return self._beside(stimulus)
        return Origin(str(sample.shard), None, sample.key, "picture member of the sample")

    def remarks(self) -> list[str]:
        """Return what somebody must know of this copy; counts are of the subjects loaded."""
        said = [
            "Test set: MindEye1's 982 images; MindEye2 tests on 1,000, so scores of the two do "
            "not compare.",
            "Betas (betas_fithrf_GLMdenoise_RR) were z-scored per session before release, over "
            "which trials the release does not say; they are not normalised again.",
            "Training is train and val together, as in the paper; repeats that were copied to "
            "fill up three rows are counted once.",
            "Sessions and runs are not in the release (0 stands for unknown).",
        ]
        for subject in self.subjects():
            there = {SHARD.fullmatch(f.name).group(1, 2, 3) for f in self._files}
            lacking = [
                f"{part}_{subject}_{i}.tar"
                for part, count in SHARDS.items()
                for i in range(count)
                if (part, subject, str(i)) not in there
            ]
            if lacking:
                said.append(
                    f"{subject}: {len(lacking)} of {sum(SHARDS.values())} shards are missing "
                    f"({some(lacking)}); they come from {HUB1}."
                )
        counts: dict[tuple[str, str], int] = {}
        for file, samples in self._shards.samples.items():
            part, subject = SHARD.fullmatch(file.name).group(1, 2)
            counts[subject, part] = counts.get((subject, part), 0) + len(samples)
        for (subject, part), count in sorted(counts.items()):
            if count != IN_MINDEYE1[part] and subject in self._masked:
                said.append(
                    f"{subject}: {count} images in {part}, the release has {IN_MINDEYE1[part]}."
                )
        if (self.path / REGIONS).is_file():
            said.append(
                f"{REGIONS} is MindEye2's: that its voxel order is this release's too is not "
                "documented, only that the counts agree."
            )
        return said + self._shared_remarks()

    # ---------------------------------------------------------------------------------- its shards

    @cached_property
    def _tested(self) -> dict[int, Sample]:
        """The test images of any subject: nobody is trained on them."""
        files = [file for file in self._files if SHARD.fullmatch(file.name)[1] == "test"]
        return {s.number: s for file in files for s in self._shards.read(file)}

    def _test_sets(self) -> dict[str, np.ndarray]:
        return {self.TEST_SET: np.array(sorted(self._tested), dtype=int)}

    def _voxel_count(self, subject: str, samples: list[Sample]) -> int:
        """Return V, which every sample must have: members of one size, one of each size opened."""
        first_of = {sample.voxels[1]: sample for sample in reversed(samples)}
        counts = {}
        for sample in first_of.values():
            counts.setdefault(sample.stored().shape[1], sample)
        for v, sample in counts.items():
            self._check_voxels(subject, v, sample.where)
        if len(counts) > 1:
            (v, one), (w, other) = list(counts.items())[:2]
            raise UserError(
                f"{one.where} has {v} voxels, {other.where} has {w}; two subjects' shards are "
                "mixed."
            )
        return next(iter(counts))

    def _check_numbers(self, samples: list[Sample]) -> None:
        seen: dict[int, Sample] = {}
        for sample in samples:
            name = names()[sample.number]
            test = self._tested.get(sample.number)
            if sample.part != "test" and test is not None:
                raise UserError(
                    f"{sample.where} trains on {name}, which {test.where} tests on; a test image "
                    "is test for all, so one of these shards belongs to another release."
                )
            other = seen.setdefault(sample.number, sample)
            if other is not sample:
                raise UserError(
                    f"{name} is in {other.where} and in {sample.where}; a subject has each image "
                    "once, so remove the copy."
                )
