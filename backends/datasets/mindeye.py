"""The Natural Scenes Dataset as MindEye (Scotti et al. 2023, 2024) released it, in two formats.

Both hold betas of nsdgeneral at 1.8 mm, z-scored before release, and images by their 0-based
number among NSD's 73,000. They do not share a test set: MindEye1 tests on 982 images, MindEye2 on
1,000, so scores on one are not scores on the other.

`MindEye1`, huggingface.co/datasets/pscotti/naturalscenesdataset::

    webdataset_avg_split/train/train_subj01_{0..17}.tar, val/val_subj01_0.tar   8,559 + 300 images
    webdataset_avg_split/test/test_subj01_{0..1}.tar                            982 images

A sample of a shard has the members ``KEY.jpg`` (or png), ``KEY.nsdgeneral.npy`` (3, V) with one
row a repeat and rows copied where there were fewer, ``KEY.num_uniques.npy`` (how many there were)
and ``KEY.coco73k.npy``. The paper trains on train and val together.

`MindEye2`, huggingface.co/datasets/pscotti/mindeyev2::

    betas_all_subj01_fp32_renorm.hdf5   betas (trials, V), row = global trial, 750 a session
    COCO_73k_subj_indices.hdf5          subj01..subj08 (trials,), the image of each trial
    shared1000.npy                      bool (73000,), the test images
    wds/subj01/{train/0..39,test/0,new_test/0}.tar    KEY.behav.npy (1, 17), one a trial
    coco_images_224_float16.hdf5        images (73000, 3, 224, 224) in [0, 1]
    brain_region_masks.hdf5             subj01/V1 ... (V,), masks within nsdgeneral

Facts that the releases do not state were read in MedARC-AI/MindEyeV2 (src/dataset_creation.ipynb,
src/Train.ipynb, src/final_evaluations.ipynb, README.md) and MedARC-AI/fMRI-reconstruction-NSD
(src/Train_MindEye.py, src/utils.py).
"""

from __future__ import annotations

import functools
import io
import math
import re
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.reading import LazyRows, hdf5_rows, open_hdf5
from explorer.files import read_array
from explorer.images import read_picture
from explorer.types import (
    Label,
    Parcellation,
    Subject,
    Trials,
    UserError,
    VoxelSpace,
    voxel_hash,
)

if TYPE_CHECKING:
    import h5py
    import pandas as pd

IMAGES = 73_000
PER_SESSION = 750
SHARED = 1000  # images that were meant for all eight subjects; the others are each one subject's
# Of each subject: trials, voxels of nsdgeneral at 1.8 mm, shared images seen (NSD data manual,
# cvnlab.slite.page, "NSD data"; voxel counts as in MindEyeV2, src/models.py).
RELEASED = {
    "subj01": (30000, 15724, 1000),
    "subj02": (30000, 14278, 1000),
    "subj03": (24000, 15226, 930),
    "subj04": (22500, 13153, 907),
    "subj05": (30000, 13039, 1000),
    "subj06": (24000, 17907, 930),
    "subj07": (30000, 12682, 1000),
    "subj08": (22500, 14386, 907),
}
IN_MINDEYE1 = {"train": 8559, "val": 300, "test": 982}  # images a subject (Train_MindEye.py)
SHARDS = {"train": 18, "val": 1, "test": 2}
HUB1 = "huggingface.co/datasets/pscotti/naturalscenesdataset"
HUB2 = "huggingface.co/datasets/pscotti/mindeyev2"
INDICES, SHARED_FILE = "COCO_73k_subj_indices.hdf5", "shared1000.npy"
PICTURES, REGIONS = "coco_images_224_float16.hdf5", "brain_region_masks.hdf5"
RENORM = re.compile(r"betas_all_(subj\d\d)_fp32_renorm\.hdf5")
SHARD = re.compile(r"(train|val|test)_(subj\d\d)_(\d+)\.tar")
SAMPLED = 64  # trials in which constant and non-finite voxels are looked for: our choice
PEEKED = 64  # trials of a shard that are held against the table of images: our choice
BEHAV = 17  # columns of behav.npy (MindEyeV2, README.md)
IMAGE, WHO, SESSION, RUN, TRIAL, IS_SHARED = 0, 1, 2, 3, 5, 16


# ------------------------------------------------------------------------------- what both share


class _Release:
    """What the two releases share: whose voxels, where they lie, and NSD's images by number."""

    simulated = False
    redistributable = False
    split_unit = "stimulus"
    licence = (
        "NSD Terms and Conditions: sign the NSD Data Access form (naturalscenesdataset.org); "
        "not to be passed on"
    )

    def __init__(self, path: Path, name: str, voxels: str, nsdgeneral: str) -> None:
        self.path, self.name = path, name
        if voxels not in ("nsdgeneral", "any"):
            raise UserError(
                f"{name}: voxels is nsdgeneral (counts are checked) or any, found {voxels!r}."
            )
        self._any_voxels = voxels == "any"
        self._mask_path = Path(nsdgeneral).expanduser() if nsdgeneral else None
        if self._mask_path is not None and not self._mask_path.exists():
            raise UserError(
                f"{name}: nsdgeneral is the path of nsdgeneral.nii.gz (func1pt8mm) or of a folder "
                f"that holds one a subject, there is nothing at {nsdgeneral}."
            )
        self._masked: dict[str, int] = {}  # voxels left out, of the subjects that were loaded
        self._whole: set[str] = set()  # files whose masks were stored as 0 and 1
        self._lock = threading.RLock()

    def subjects(self) -> list[str]:
        """Return the subjects whose betas are here."""
        raise NotImplementedError

    def _test_sets(self) -> dict[str, np.ndarray]:
        """Return the name of each test set, and the numbers of its images."""
        raise NotImplementedError

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """All 73,000 images of NSD: a release shows some of them.

        The column ``test_set`` says which test set an image is in, "" for none.
        """
        import pandas as pd

        tested = np.full(IMAGES, "", dtype=object)
        for test_set, numbers in self._test_sets().items():
            tested[numbers] = test_set
        columns = {"caption": "", "category": "", "source": "COCO (NSD)", "test_set": tested}
        return pd.DataFrame(columns, index=pd.Index(_names(), name="stimulus"))

    def _known(self, subject: str) -> None:
        if subject not in self.subjects():
            raise UserError(
                f"{self.name} has the subjects {', '.join(self.subjects())}, not {subject!r}."
            )

    def _check_voxels(self, subject: str, count: int, source: Path | str) -> None:
        """Refuse betas whose number of voxels is not the subject's nsdgeneral."""
        expected = RELEASED[subject][1]
        if count != expected and not self._any_voxels:
            raise UserError(
                f"{source} has {count} voxels, which is {_whose(count)}; {subject} has {expected}"
                " (another selection of voxels opens with the option voxels=any)."
            )

    def _space(self, subject: str, kept: np.ndarray) -> VoxelSpace:
        """Return where the voxels lie; ``kept`` bool (V,) are those that are not left out."""
        v = len(kept)
        self._masked[subject] = int(v - kept.sum())
        left_out = () if kept.all() else (np.flatnonzero(~kept),)
        digest = voxel_hash(type(self).__name__, subject, v, *left_out)
        mask, affine = self._place(subject, v) or (None, None)
        if mask is not None:
            inside = np.zeros_like(mask)
            inside[mask] = kept  # numpy's C order of a volume (X, Y, Z), as it was cut
            mask = inside
        atlases = self._regions(subject, kept, digest)
        return VoxelSpace(int(kept.sum()), digest, None, mask, affine, atlases)

    def _regions(self, subject: str, kept: np.ndarray, digest: str) -> dict[str, Parcellation]:
        """Return V1 to V4 and higher visual areas from ``brain_region_masks.hdf5``, if there."""
        file = self.path / REGIONS
        if not file.is_file():
            return {}
        with open_hdf5(file) as opened:
            if subject not in opened:
                return {}
            # nsd_general is every voxel here, so it tells nothing
            names = [name for name in opened[subject] if name != "nsd_general"]
            masks = [self._region(opened[subject][name], file, len(kept)) for name in names]
        if not masks:
            return {}
        labels = tuple(Label(name) for name in names)
        rows = np.stack(masks)[:, kept]
        return {"visual areas": Parcellation("visual areas", "masks", labels, rows, digest)}

    def _region(self, array: h5py.Dataset, file: Path, v: int) -> np.ndarray:
        where, values = f"{file}, {array.name.lstrip('/')}", array[()]
        if values.shape == (v,) and values.dtype == bool:
            return values
        # Zeros and ones used as positions would pick the first two voxels again and again.
        if values.shape == (v,) and values.dtype.kind in "iu" and set(np.unique(values)) <= {0, 1}:
            self._whole.add(str(file))
            return values.astype(bool)
        raise UserError(
            f"{where}: a mask within nsdgeneral is bool ({v},), found {values.dtype} "
            f"{values.shape}; copy {REGIONS} from {HUB2} again."
        )

    def _mask_file(self, subject: str) -> Path | None:
        """Return where nsdgeneral of a subject lies as a volume, None if it does not."""
        tail, base = "nsdgeneral.nii.gz", self._mask_path or self.path
        if base.is_file():
            return base
        roots = (f"nsddata/ppdata/{subject}/func1pt8mm/roi", f"{subject}/func1pt8mm/roi", subject)
        files = [base / root / tail for root in roots] + [base / tail]
        return next((file for file in files if file.is_file()), None)

    def _place(self, subject: str, v: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return nsdgeneral as a volume, bool (X, Y, Z) of V voxels, and its affine, if here."""
        file = self._mask_file(subject)
        if file is None:
            return None
        mask, affine = _read_volume(file)
        found, counts = int(mask.sum()), {voxels for _, voxels, _ in RELEASED.values()}
        if found == v:
            return mask, affine
        if subject not in file.parts and found in counts:
            return None  # one file beside several subjects is another subject's
        raise UserError(
            f"{file} has {found} voxels above 0, which is {_whose(found)}; the betas of {subject} "
            f"have {v}, so give the mask that they were cut with."
        )

    def _picture(self, file: Path, stimulus: str) -> np.ndarray | None:
        """Return an image from NSD's own file of all images, None if it does not have it."""
        with open_hdf5(file) as opened:
            images = opened.get("imgBrick")
            if images is None or images.ndim != 4 or images.shape[3] != 3:
                raise UserError(
                    f"{file} needs imgBrick (73000, 425, 425, 3) of NSD; it has "
                    f"{', '.join(opened) or 'nothing'}."
                )
            number = _number(stimulus)
            return None if number >= len(images) else _read_picture(file, images, number)

    def _nsd_pictures(self) -> Path | None:
        """Return NSD's file of all images if it lies beside the release."""
        places = ("nsd_stimuli.hdf5", "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5")
        return next((self.path / p for p in places if (self.path / p).is_file()), None)

    def _shared_remarks(self) -> list[str]:
        """Return what there is to say of voxels, places and masks."""
        said = []
        if self._any_voxels:
            said.append(
                "voxels=any: voxel and trial counts were not held against NSD's, so files of two "
                "subjects may be mixed up unnoticed."
            )
        for subject, count in self._masked.items():
            if count:
                said.append(
                    f"{subject}: {count} voxels were left out, which are constant or not finite "
                    f"in {SAMPLED} trials spread over the file (only those were looked at)."
                )
        said += [f"{file} stores its masks as 0 and 1; they are read as masks." for file in
                 sorted(self._whole)]  # fmt: skip
        if not (self.path / REGIONS).is_file():
            said.append(
                f"{REGIONS} is missing, so there are no visual areas: it is 0.8 MB in {HUB2}."
            )
        placed = [s for s in self.subjects() if self._mask_file(s)]
        if len(placed) < len(self.subjects()):
            said.append(
                "The betas carry no locations, so nothing can be drawn on the cortex: "
                "nsdgeneral.nii.gz of NSD (nsddata/ppdata/subjXX/func1pt8mm/roi), given by the "
                "option nsdgeneral=PATH, adds where the voxels lie in the subject's volume."
            )
        if placed:
            said.append(
                f"nsdgeneral.nii.gz says where the voxels of {', '.join(placed)} lie in the "
                "subject's own volume; that is not MNI space, so it reaches no surface without "
                "NSD's transforms."
            )
        return said


# -------------------------------------------------------------------------------------- MindEye1


@dataclass(frozen=True)
class _Sample:
    """One image of MindEye1: where its members lie in a shard (offset, bytes)."""

    shard: Path
    part: str  # train, val or test
    key: str
    image: tuple[int, int]
    voxels: tuple[int, int]
    number: int  # of 73,000, from 0
    repeats: int

    @property
    def where(self) -> str:
        """The name that a message gives it."""
        return f"{self.shard}, {self.key}"

    def read(self, member: tuple[int, int]) -> bytes:
        """Return a member's bytes."""
        offset, size = member
        with self.shard.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def rows(self) -> np.ndarray:
        """Return the repeats that were measured (n, V), each once and in order.

        Fewer than three are filled up with copies ([a, b, a]), so a mean over the stored rows
        would count a repeat twice.
        """
        stored = self.stored()
        rows = [row for i, row in enumerate(stored) if not _among(row, stored[:i])]
        if len(rows) != self.repeats:
            raise UserError(
                f"{self.where}: num_uniques says {self.repeats} repeats, nsdgeneral holds "
                f"{len(rows)} different rows; copy the shard again."
            )
        return np.stack(rows)

    def stored(self) -> np.ndarray:
        """Return nsdgeneral as it was stored, (3, V)."""
        source = f"{self.where}.nsdgeneral.npy"
        array = _array(self.read(self.voxels), source)
        if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
            raise UserError(
                f"{source} needs numbers (3, voxels), found {array.dtype} {array.shape}."
            )
        return array


class MindEye1(_Release):
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
        folder = _split_folder(path)
        super().__init__(folder.parent, name, voxels, nsdgeneral)
        self._files = _shards(folder)
        if not self._files:
            raise UserError(
                f"{path} holds no shard of MindEye1; expected webdataset_avg_split/"
                f"{{train,val,test}}/*_subj0X_N.tar, which come from {HUB1}."
            )
        self._samples: dict[Path, list[_Sample]] = {}
        self._found: dict[int, _Sample] = {}

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Say whether a path holds MindEye1's shards (and not MindEye2's betas beside them)."""
        path = Path(path)
        try:
            beside = path.is_dir() and path.name != "webdataset_avg_split" and _betas_files(path)
            return not beside and bool(_shards(_split_folder(path)))
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
        samples = [sample for file in files for sample in self._read(file)]
        v = self._voxel_count(subject, samples)
        self._check_numbers(samples)
        spread = np.unique(np.linspace(0, len(samples) - 1, min(SAMPLED, 32)).astype(int))
        kept = _usable(np.concatenate([samples[i].rows() for i in spread]), subject)
        of_trial = np.repeat(np.arange(len(samples)), [s.repeats for s in samples])
        table = pd.DataFrame(
            {
                "stimulus": _names()[[samples[i].number for i in of_trial]],
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

        who = Subject(self.name, subject, self._space(subject, kept))
        betas = LazyRows((len(table), len(columns)), read, f"{self.name}/{subject}")
        return Trials(who, betas, "z-score within session (as released)", table)

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture of a sample, uint8 RGB (H, W, 3), or NSD's own where it lies beside.

        Shards are looked through until one has it, so the first picture of a subject that was
        not loaded takes as long as loading it.
        """
        number = _number(stimulus, self.name)
        for file in self._files:
            if number in self._found:
                return self._decode(self._found[number])
            self._read(file)
        if number in self._found:
            return self._decode(self._found[number])
        beside = self._nsd_pictures()
        picture = None if beside is None else self._picture(beside, stimulus)
        if picture is None:
            raise UserError(
                f"No shard of {self.name} has the image {stimulus!r}; it was shown to another "
                f"subject, or its shard is missing."
            )
        return picture

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
                    f"({_some(lacking)}); they come from {HUB1}."
                )
        counts: dict[tuple[str, str], int] = {}
        for file, samples in self._samples.items():
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

    def _read(self, file: Path) -> list[_Sample]:
        """Return a shard's samples; its headers are read once."""
        with self._lock:
            if file not in self._samples:
                self._samples[file] = _read_shard(file)
                for sample in self._samples[file]:
                    self._found.setdefault(sample.number, sample)
            return self._samples[file]

    @cached_property
    def _tested(self) -> dict[int, _Sample]:
        """The test images of any subject: nobody is trained on them."""
        files = [file for file in self._files if SHARD.fullmatch(file.name)[1] == "test"]
        return {s.number: s for file in files for s in self._read(file)}

    def _test_sets(self) -> dict[str, np.ndarray]:
        return {self.TEST_SET: np.array(sorted(self._tested), dtype=int)}

    def _voxel_count(self, subject: str, samples: list[_Sample]) -> int:
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

    def _check_numbers(self, samples: list[_Sample]) -> None:
        seen: dict[int, _Sample] = {}
        for sample in samples:
            name = _names()[sample.number]
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

    def _decode(self, sample: _Sample) -> np.ndarray:
        content = sample.read(sample.image)
        return read_picture(content, f"The picture in {sample.where}")


def _split_folder(path: Path) -> Path:
    """Return ``webdataset_avg_split``, given it or the folder that holds it."""
    if path.name == "webdataset_avg_split":
        return path
    return path / "webdataset_avg_split"


def _shards(folder: Path) -> list[Path]:
    """Return the shards of all subjects: train, val, test, each by number."""
    order = {part: i for i, part in enumerate(IN_MINDEYE1)}
    found = [
        (match[2], order[part], int(match[3]), file)
        for part in order
        for file in folder.glob(f"{part}/*.tar")
        if (match := SHARD.fullmatch(file.name)) and match[1] == part and match[2] in RELEASED
    ]
    return [file for *_, file in sorted(found)]


def _read_shard(file: Path) -> list[_Sample]:
    """Return the samples of a shard; only headers and the small members are read."""
    part = SHARD.fullmatch(file.name)[1]
    samples = []
    with file.open("rb") as opened:
        groups: dict[str, dict[str, tuple[int, int]]] = {}
        for name, offset, size in _members(opened, file):
            key, _, kind = name.rpartition("/")[2].partition(".")
            if key and kind:  # webdataset skips other names too
                groups.setdefault(key, {})[kind] = (offset, size)

        def small(key: str, kind: str) -> int:
            (offset, size), source = groups[key][kind], f"{file}, {key}.{kind}"
            opened.seek(offset)
            return _whole(_array(opened.read(size), source), source)

        for key, group in groups.items():
            picture = group.get("jpg") or group.get("png")
            needs = ("nsdgeneral.npy", "coco73k.npy", "num_uniques.npy")
            lacking = [kind for kind in needs if kind not in group]
            if picture is None or lacking:
                raise UserError(
                    f"{file}, {key} lacks the member {(lacking or ['jpg or png'])[0]}; a sample of"
                    f" MindEye1 has jpg, {', '.join(needs)}; copy the shard from {HUB1} again."
                )
            number, repeats = small(key, "coco73k.npy"), small(key, "num_uniques.npy")
            if not 0 <= number < IMAGES:
                raise UserError(f"{file}, {key}.coco73k.npy is {number}; {_range()}")
            if not 1 <= repeats <= 3:
                raise UserError(
                    f"{file}, {key}.num_uniques.npy is {repeats}; an image has 1 to 3 repeats."
                )
            samples.append(
                _Sample(file, part, key, picture, group["nsdgeneral.npy"], number, repeats)
            )
    if not samples:
        raise UserError(f"{file} holds no sample; copy it from {HUB1} again.")
    return samples


# -------------------------------------------------------------------------------------- MindEye2


class MindEye2(_Release):
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
        found = _betas_files(self.path)
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

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Say whether a path holds MindEye2's betas, or is such a file."""
        path = Path(path)
        try:
            if path.is_file():
                return RENORM.fullmatch(path.name) is not None
            return bool(_betas_files(path))
        except OSError:
            return False

    def subjects(self) -> list[str]:
        """Return the subjects whose betas are here, of subj01 to subj08."""
        return list(self._files)

    def load(self, subject: str) -> Trials:
        """Return a subject's trials, one row a trial that is trained or tested on."""
        self._known(subject)
        stored = self._betas(subject)
        table = self._table(subject, len(stored))
        spread = np.unique(np.linspace(0, len(stored) - 1, SAMPLED).astype(int))
        kept = _usable(np.stack([stored[row] for row in spread]), subject)
        columns = None if kept.all() else np.flatnonzero(kept)
        rows = hdf5_rows(stored, str(self._files[subject]), columns)
        trial = table["trial"].to_numpy()

        def read(wanted: np.ndarray) -> np.ndarray:
            return rows[trial[wanted]]

        who = Subject(self.name, subject, self._space(subject, kept))
        betas = LazyRows((len(table), rows.shape[1]), read, rows.source)
        return Trials(who, betas, "z-score within session (test trials included)", table)

    def image(self, stimulus: str) -> np.ndarray:
        """Return an image, uint8 RGB (H, W, 3).

        From ``coco_images_224_float16.hdf5``; where that is missing, from NSD's
        ``nsd_stimuli.hdf5`` or MindEye1's shards if they lie beside.
        """
        number = _number(stimulus, self.name)
        file = self.path / PICTURES
        if file.is_file():
            images = self._file(file).get("images")
            if images is None or images.ndim != 4 or images.shape[1] != 3:
                raise UserError(
                    f"{file} needs images (73000, 3, H, W), found "
                    f"{'none' if images is None else images.shape}; copy it from {HUB2} again."
                )
            if number >= len(images):
                raise UserError(
                    f"{file} has {len(images)} images, so not {stimulus!r}; copy it from {HUB2} "
                    "again."
                )
            pixels = np.asarray(_read_picture(file, images, number), dtype=np.float32)
            return np.rint(pixels.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
        beside = self._nsd_pictures()
        picture = None if beside is None else self._picture(beside, stimulus)
        if picture is not None:
            return picture
        if self._older is not None:
            return self._older.image(stimulus)
        raise UserError(
            f"{file} is missing, so {stimulus!r} cannot be shown; it is about 22 GB and comes from"
            f" {HUB2}."
        )

    def remarks(self) -> list[str]:
        """Return what somebody must know of this copy; loads the subjects to know it."""
        problems = [p for s in self._files if isinstance(p := _attempt(self.load, s), str)]
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
                f"{_some(self._others)} hold other voxels (older or whole-brain) and are not read."
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
    def _older(self) -> MindEye1 | None:
        """MindEye1's shards beside, whose pictures can stand in."""
        if not _shards(_split_folder(self.path)):
            return None
        return MindEye1(self.path, self.name)

    def _betas(self, subject: str) -> h5py.Dataset:
        """Return betas (trials, V) as they are stored, checked against the subject's counts."""
        file = self._files[subject]
        opened = self._file(file)
        stored = opened.get("betas")
        if stored is None or getattr(stored, "ndim", 0) != 2 or stored.dtype.kind != "f":
            raise UserError(
                f"{file} needs betas, numbers (trials, voxels); it has "
                f"{', '.join(opened) or 'nothing'}."
            )
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

    @cached_property
    def _images_of(self) -> dict[str, np.ndarray]:
        """The image of each global trial, int (trials,), for each subject; {} without the file."""
        file = self.path / INDICES
        if not file.is_file():
            return {}
        found = {}
        with open_hdf5(file) as opened:
            for subject in opened:
                numbers = opened[subject][()]
                if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
                    raise UserError(
                        f"{file}, {subject}: expected whole numbers (trials,), found "
                        f"{numbers.dtype} {numbers.shape}."
                    )
                outside = numbers[(numbers < 0) | (numbers >= IMAGES)]
                if len(outside):
                    raise UserError(f"{file}, {subject} has the image {outside[0]}; {_range()}")
                found[subject] = numbers.astype(np.int64)
        return found

    @cached_property
    def _shared(self) -> np.ndarray:
        """Which images are NSD's shared 1,000, bool (73000,); nobody is trained on them.

        From ``shared1000.npy``. Where that is missing, they are the images that two subjects or
        more were shown: 73,000 = 8 x 9,000 + 1,000, each of the 9,000 being one subject's alone.
        """
        seen = np.zeros(IMAGES, dtype=int)
        for numbers in self._images_of.values():
            seen[np.unique(numbers)] += 1
        file = self.path / SHARED_FILE
        if file.is_file():
            shared = read_array(file, mmap=False)
            if shared.dtype != bool or shared.shape != (IMAGES,) or shared.sum() != SHARED:
                raise UserError(
                    f"{file} needs bool (73000,) with {SHARED} true, found {shared.dtype} "
                    f"{shared.shape}; copy it from {HUB2} again."
                )
        elif (seen > 1).sum() == SHARED:
            shared = seen > 1
        else:
            shared = np.zeros(IMAGES, dtype=bool)
            for subject in RELEASED:
                tar = self._tar(subject, "new_test")
                if tar.is_file():
                    shared[_behav(tar, subject)[:, IMAGE]] = True
            if shared.sum() != SHARED:
                raise UserError(
                    f"Which images are test is not known: {file} is missing (73 kB, {HUB2}), and "
                    f"neither {INDICES} nor wds/subj0X/new_test/0.tar give {SHARED} images."
                )
        wrong = np.flatnonzero((seen > 1) & ~shared)
        if len(wrong):
            who = [s for s, numbers in self._images_of.items() if wrong[0] in numbers]
            raise UserError(
                f"{self.path / INDICES}: {' and '.join(who[:2])} were both shown "
                f"{_names()[wrong[0]]}, which is not one of the {SHARED} shared images, so two "
                "subjects' lists are mixed up; copy it again."
            )
        return shared

    def _test_sets(self) -> dict[str, np.ndarray]:
        if self._test == "new_test":
            return {self.TEST_SET: np.flatnonzero(self._shared)}
        files = {s: self._tar(s, "test") for s in self._files}
        numbers = [_behav(file, s)[:, IMAGE] for s, file in files.items() if file.is_file()]
        return {
            self.TEST_SET: np.unique(np.concatenate(numbers)) if numbers else np.array([], int)
        }

    def _tar(self, subject: str, part: str, number: int = 0) -> Path:
        return self.path / "wds" / subject / part / f"{number}.tar"

    def _table(self, subject: str, trials: int) -> pd.DataFrame:
        """Return the trials that are trained or tested on, in the order of the betas."""
        import pandas as pd

        if subject in self._images_of:
            number, session, run = self._from_indices(subject, trials)
        else:
            number, session, run = self._from_behav(subject, trials)
        shared = (number >= 0) & self._shared[number]
        expected = RELEASED[subject][2]
        if not self._any_voxels and len(np.unique(number[shared])) != expected:
            raise UserError(
                f"{subject} was shown {len(np.unique(number[shared]))} of the {SHARED} test "
                f"images, expected {expected}; its list of images is another subject's, or does "
                "not count from 0."
            )
        is_test = shared if self._test == "new_test" else self._in_older_test(subject, number)
        train = (number >= 0) & ~shared
        if self._sessions is not None:
            train &= session <= self._sessions
        used = np.flatnonzero(train | is_test)
        table = pd.DataFrame(
            {
                "stimulus": _names()[number[used]],
                "split": np.where(is_test[used], "test", "train"),
                "session": session[used],
                "run": run[used],
                "trial": used,
                "test_set": np.where(is_test[used], self.TEST_SET, ""),
            }
        )
        table.insert(2, "repeat", table.groupby("stimulus").cumcount())
        return table

    def _from_indices(
        self, subject: str, trials: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return image, session and run (0) of each global trial, each int (trials,)."""
        file, number = self.path / INDICES, self._images_of[subject]
        if len(number) != trials:
            same = [s for s, n in self._images_of.items() if len(n) == trials]
            raise UserError(
                f"{file} lists {len(number)} trials of {subject}, its betas have {trials}"
                + (f", which is as many as {', '.join(same)} have" if same else "")
                + "; the files are of different subjects, or one is cut short."
            )
        # One sequence of trials was used for all subjects, so shared images fall on the same
        # trials in everybody; a list that was shifted or sorted shows here.
        for other, theirs in self._images_of.items():
            n = min(len(theirs), trials)
            either = self._shared[number[:n]] | self._shared[theirs[:n]]
            apart = np.flatnonzero(either & (number[:n] != theirs[:n]))
            if len(apart):
                raise UserError(
                    f"{file}: trial {apart[0]} (from 0) showed {_names()[number[apart[0]]]} to "
                    f"{subject} and {_names()[theirs[apart[0]]]} to {other}; shared images fall "
                    "on the same trials in all subjects, so one list is out of order."
                )
        tar = self._tar(subject, "new_test")
        if tar.is_file():
            behav = _behav(tar, subject, PEEKED)
            wrong = np.flatnonzero(
                (behav[:, TRIAL] >= trials)
                | (number[np.minimum(behav[:, TRIAL], trials - 1)] != behav[:, IMAGE])
            )
            if len(wrong):
                row = behav[wrong[0]]
                raise UserError(
                    f"{tar} says that trial {row[TRIAL]} showed {_names()[row[IMAGE]]}, {INDICES} "
                    "says another image; the files do not belong together."
                )
        return number, np.arange(trials) // PER_SESSION + 1, np.zeros(trials, int)

    def _from_behav(self, subject: str, trials: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the same from ``behav.npy`` in the shards; -1 for trials in no shard."""
        folder = self.path / "wds" / subject / "train"
        shards = sorted(folder.glob("*.tar"), key=lambda file: (len(file.stem), file.stem))
        test = self._tar(subject, "new_test")
        if not shards or not test.is_file():
            raise UserError(
                f"{self.path / INDICES} is missing or lacks {subject}, and so do shards in "
                f"{folder.parent}: one of them must say which image each trial showed; both come "
                f"from {HUB2}."
            )
        train = np.concatenate([_behav(file, subject) for file in shards])
        tested = _behav(test, subject)
        leaked = train[self._shared[train[:, IMAGE]] | (train[:, IS_SHARED] == 1)]
        if len(leaked):
            raise UserError(
                f"{folder} trains on {_names()[leaked[0, IMAGE]]} (trial {leaked[0, TRIAL]}), "
                f"which is one of the {SHARED} test images; the shards are of another split."
            )
        behav = np.concatenate([train, tested])
        order = np.argsort(behav[:, TRIAL], kind="stable")
        behav = behav[order]
        twice = np.flatnonzero(np.diff(behav[:, TRIAL]) == 0)
        if len(twice) or behav[-1, TRIAL] >= trials:
            wrong = behav[twice[0] if len(twice) else -1, TRIAL]
            raise UserError(
                f"{folder.parent}: trial {wrong} is "
                + ("there twice" if len(twice) else f"beyond the {trials} rows of the betas")
                + "; the shards and betas do not belong together."
            )
        number, session, run = np.full(trials, -1), np.zeros(trials, int), np.zeros(trials, int)
        for array, column in ((number, IMAGE), (session, SESSION), (run, RUN)):
            array[behav[:, TRIAL]] = behav[:, column]
        return number, session, run

    def _in_older_test(self, subject: str, number: np.ndarray) -> np.ndarray:
        """Return which trials are in ``wds/subj0X/test``, bool (trials,)."""
        tar = self._tar(subject, "test")
        if not tar.is_file():
            raise UserError(
                f"{tar} is missing: it says which trials the older test set has; copy it from "
                f"{HUB2}, or use test=new_test."
            )
        behav = _behav(tar, subject)
        inside = behav[behav[:, TRIAL] < len(number)]
        if len(inside) < len(behav) or (number[inside[:, TRIAL]] != inside[:, IMAGE]).any():
            raise UserError(f"{tar} and the betas of {subject} do not belong together.")
        if not self._shared[inside[:, IMAGE]].all():
            raise UserError(
                f"{tar} tests on an image that is not one of the {SHARED} shared; it would be "
                "trained on too."
            )
        is_test = np.zeros(len(number), dtype=bool)
        is_test[inside[:, TRIAL]] = True
        return is_test


def _betas_files(folder: Path) -> list[Path]:
    """Return the betas of MindEye2 in a folder, of whichever variant."""
    return sorted(folder.glob("betas_all_subj*.hdf5"))


def _sessions(given: str, name: str) -> int | None:
    """Return how many sessions are trained on, None for all."""
    if str(given) == "all":
        return None
    if not str(given).isdecimal() or not 1 <= int(given) <= 40:
        raise UserError(f"{name}: sessions is all or a number from 1 to 40, found {given!r}.")
    return int(given)


def _behav(file: Path, subject: str, most: int | None = None) -> np.ndarray:
    """Return ``behav.npy`` of a shard's samples as int (n, 17), or of its first ``most``.

    Columns: 0 image (from 0), 1 subject, 2 session, 3 run, 5 global trial (from 0), 16 whether
    the image is shared; NaN is written -1 (MindEyeV2, README.md). Times and the like lose their
    fraction here; they are not used.
    """
    rows = []
    with file.open("rb") as opened:
        for name, offset, size in _members(opened, file):
            if name.rpartition("/")[2].partition(".")[2] != "behav.npy":
                continue
            opened.seek(offset)
            values = _array(opened.read(size), f"{file}, {name}")
            if values.size != BEHAV or values.dtype.kind not in "fiu":
                raise UserError(
                    f"{file}, {name} needs 17 numbers (1, 17), found {values.dtype} "
                    f"{values.shape}."
                )
            rows.append(values.reshape(BEHAV))
            if most is not None and len(rows) == most:
                break
    if not rows:
        raise UserError(f"{file} holds no behav.npy; copy it from {HUB2} again.")
    behav = np.nan_to_num(np.array(rows, dtype=np.float64), nan=-1).astype(np.int64)
    others = behav[behav[:, WHO] != int(subject[-2:])]
    if len(others):
        raise UserError(
            f"{file} holds trials of subject {others[0, WHO]}, not of {subject}; the shards of two"
            " subjects are mixed up."
        )
    outside = behav[(behav[:, IMAGE] < 0) | (behav[:, IMAGE] >= IMAGES) | (behav[:, TRIAL] < 0)]
    if len(outside):
        raise UserError(
            f"{file} has the image {outside[0, IMAGE]} in trial {outside[0, TRIAL]}; {_range()}"
        )
    return behav


# ---------------------------------------------------------------------------- small files, bytes


@functools.cache
def _names() -> np.ndarray:
    """Return the ids of NSD's 73,000 images."""
    return np.array([f"nsd-{i:05d}" for i in range(IMAGES)], dtype=object)


def _number(stimulus: str, dataset: str = "") -> int:
    """Return the 0-based number behind an id."""
    if not re.fullmatch(r"nsd-\d{5}", stimulus) or int(stimulus[4:]) >= IMAGES:
        raise UserError(
            f"{dataset} has the stimuli nsd-00000 to nsd-{IMAGES - 1}, not {stimulus!r}."
        )
    return int(stimulus[4:])


def _range() -> str:
    return f"images are numbered from 0 to {IMAGES - 1} here (NSD's own 73KID is one more)."


def _whose(voxels: int) -> str:
    """Return whose nsdgeneral has this many voxels."""
    for subject, (_, count, _) in RELEASED.items():
        if count == voxels:
            return f"{subject}'s nsdgeneral at 1.8 mm"
    return "nobody's nsdgeneral at 1.8 mm"


def _some(names: list[str]) -> str:
    """Return the first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _usable(rows: np.ndarray, subject: str) -> np.ndarray:
    """Return which voxels are finite and vary over some trials (n, V), as bool (V,)."""
    kept = np.isfinite(rows).all(axis=0)
    if len(rows) > 1:
        kept &= rows.max(axis=0, initial=-np.inf) != rows.min(axis=0, initial=np.inf)
    if not kept.any():
        raise UserError(
            f"{subject}: no voxel is finite and varies over {len(rows)} trials spread over the "
            "file; it is empty or damaged, so copy it again."
        )
    return kept


def _among(row: np.ndarray, others: np.ndarray) -> bool:
    return any(np.array_equal(row, other, equal_nan=True) for other in others)


def _read_picture(file: Path, images: h5py.Dataset, number: int) -> np.ndarray:
    try:
        return images[number]
    except OSError as error:
        raise UserError(f"{file} is damaged or cut short ({error}); copy it again.") from error


def _read_volume(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return where a NIfTI volume is above 0, bool (X, Y, Z), and its affine (4, 4).

    NSD writes -1 around a region, so "not 0" would be wrong.
    """
    import nibabel as nib

    damaged = (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError, zlib.error)
    try:
        image = nib.load(file)
        return np.asanyarray(image.dataobj) > 0, image.affine
    except damaged as error:
        raise UserError(f"{file} cannot be read as NIfTI ({error}); copy it again.") from error


def _attempt(load: Any, subject: str) -> Any:
    """Return what loading a subject gives, or the sentence that says why it cannot be."""
    try:
        return load(subject)
    except UserError as error:
        return f"{subject} cannot be opened: {error}"


def _whole(values: np.ndarray, source: str) -> int:
    """Return the one whole number in a small array."""
    if values.size != 1 or values.dtype.kind not in "fiu" or values.ravel()[0] % 1:
        raise UserError(
            f"{source} needs one whole number, found {values.dtype} {values.shape}; copy it again."
        )
    return int(values.ravel()[0])


def _array(raw: bytes, source: str) -> np.ndarray:
    """Return the array in the bytes of a ``.npy`` member; it is never unpickled."""
    try:
        head = raw[: 10 + int.from_bytes(raw[8:10], "little")]
        shape, fortran, dtype, begin = _npy_header(head)
        if not dtype.hasobject:
            values = np.frombuffer(raw, dtype, math.prod(shape), begin)
            return values.reshape(shape, order="F" if fortran else "C")
    except (ValueError, EOFError) as error:
        raise UserError(f"{source} is damaged or cut short ({error}); copy it again.") from error
    raise UserError(
        f"{source} holds pickled Python objects, which can run code when they are opened, so it "
        "is not read; copy the shard from where it was released."
    )


@functools.lru_cache(maxsize=256)
def _npy_header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return shape, Fortran order, dtype and length of a ``.npy`` header.

    Kept: shards hold tens of thousands of small arrays with the same few headers, and numpy
    takes a tenth of a millisecond for one.
    """
    stream = io.BytesIO(head)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("not a header of version 1.0")
    return (*np.lib.format.read_array_header_1_0(stream), stream.tell())


def _members(opened: io.BufferedReader, file: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size of a tar's regular files, in order, from its headers alone.

    POSIX.1-1988 headers, with the pax records and GNU long names that may precede one. A shard
    has some 50,000 members a subject, for which `tarfile` takes 20 times as long.
    """
    end, at = file.stat().st_size, 0
    given: dict[str, str] = {}  # what pax records and long names say of the next member
    while True:
        opened.seek(at)
        head = opened.read(512)
        if len(head) == 512 and not any(head):
            return
        kind, sized, begin = head[156:157], _octal(head[124:136]), at + 512
        valid = len(head) == 512 and _octal(head[148:156]) == (
            sum(head) - sum(head[148:156]) + 8 * ord(" ")
        )
        if not valid or sized is None:
            raise UserError(
                f"{file} is not a tar file or cut short at byte {at} of {end}; copy it again."
            )
        if kind in b"xL" and kind:
            text = opened.read(sized).decode("utf-8", "replace")
            given |= {"path": text.rstrip("\0")} if kind == b"L" else _pax(text)
        elif kind in (b"0", b"\0"):
            sized = int(given.get("size", sized))
            name, prefix = (_text(head[0:100]), _text(head[345:500]))
            joined = f"{prefix}/{name}" if prefix and head[257:263] == b"ustar\0" else name
            yield given.get("path", joined), begin, sized
            given = {}
        else:
            given = {}
        at = begin + -(-sized // 512) * 512


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def _octal(raw: bytes) -> int | None:
    """Return a number of a tar header, None if it is not one."""
    if raw[:1] == b"\x80":  # GNU: sizes from 8 GB on are written as they are
        return int.from_bytes(raw[1:], "big")
    digits = raw.strip(b" \0")
    return int(digits or b"0", 8) if re.fullmatch(rb"[0-7]*", digits) else None


def _pax(text: str) -> dict[str, str]:
    """Return the pax records ``LENGTH KEY=VALUE`` that matter here."""
    pairs = (line.partition(" ")[2].partition("=") for line in text.splitlines())
    return {key: value for key, _, value in pairs if key in ("path", "size")}
