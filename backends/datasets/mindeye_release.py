"""What MindEye's two releases share: whose voxels, where they lie, and NSD's images by number.

Both hold betas of nsdgeneral at 1.8 mm, z-scored before release, and images by their 0-based
number among NSD's 73,000. They do not share a test set: MindEye1 tests on 982 images, MindEye2 on
1,000, so scores on one are not scores on the other.

Facts that the releases do not state were read in MedARC-AI/MindEyeV2 (src/dataset_creation.ipynb,
src/Train.ipynb, src/final_evaluations.ipynb, README.md) and MedARC-AI/fMRI-reconstruction-NSD
(src/Train_MindEye.py, src/utils.py).
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.reading import hdf5_array, hdf5_row, hdf5_values, open_hdf5
from explorer.files import guard, open_volume, volume_data
from explorer.types import Label, Origin, Parcellation, UserError, VoxelSpace, voxel_hash

if TYPE_CHECKING:
    import h5py
    import pandas as pd

    from explorer.types import Trials

IMAGES = 73_000
SIDE = 425  # pixels of an image in NSD's own file
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
HUB2 = "huggingface.co/datasets/pscotti/mindeyev2"
REGIONS = "brain_region_masks.hdf5"
SAMPLED = 64  # trials in which constant and non-finite voxels are looked for: our choice
RANGE = f"images are numbered from 0 to {IMAGES - 1} here (NSD's own 73KID is one more)."


class Release:
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
        return pd.DataFrame(columns, index=pd.Index(names(), name="stimulus"))

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
                f"{source} has {count} voxels, which is {whose(count)}; {subject} has {expected}"
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
            # nsd_general is every voxel here, so it tells nothing
            with guard(file, at=subject):
                if subject not in opened:
                    return {}
                names = [name for name in opened[subject] if name != "nsd_general"]
            arrays = [hdf5_array(opened, f"{subject}/{name}") for name in names]
            masks = [self._region(array, file, len(kept)) for array in arrays]
        if not masks:
            return {}
        labels = tuple(Label(name) for name in names)
        rows = np.stack(masks)[:, kept]
        return {"visual areas": Parcellation("visual areas", "masks", labels, rows, digest)}

    def _region(self, array: h5py.Dataset, file: Path, v: int) -> np.ndarray:
        where, values = f"{file}, {array.name.lstrip('/')}", hdf5_values(array)
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
            f"{file} has {found} voxels above 0, which is {whose(found)}; the betas of {subject} "
            f"have {v}, so give the mask that they were cut with."
        )

    def _picture(self, file: Path, stimulus: str) -> np.ndarray | None:
        """Return an image from NSD's own file of all images, None if it does not have it."""
        with open_hdf5(file) as opened:
            images = hdf5_array(opened, "imgBrick", 4, "u", whole=False)
            if images.shape[1:] != (SIDE, SIDE, 3):
                raise UserError(
                    f"{file} needs imgBrick (73000, {SIDE}, {SIDE}, 3) of NSD, found "
                    f"{images.shape}; copy it again."
                )
            number = number_of(stimulus)
            return None if number >= len(images) else hdf5_row(images, number)

    @property
    def split_by(self) -> str:
        """Who says which images are test."""
        return f"{' and '.join(self._test_sets())}: the release's own test files"

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return what names an image of NSD's 73,000."""
        number = number_of(stimulus, self.name)
        return {"NSD's 73k, from 0": str(number), "NSD's 73k, from 1": str(number + 1)}

    def _beside(self, stimulus: str) -> Origin | None:
        """Return where NSD's own picture lies, if its file lies beside the release."""
        file = self._nsd_pictures()
        return None if file is None else Origin(str(file), number_of(stimulus), "imgBrick")

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


@functools.cache
def names() -> np.ndarray:
    """Return the ids of NSD's 73,000 images."""
    return np.array([f"nsd-{i:05d}" for i in range(IMAGES)], dtype=object)


def number_of(stimulus: str, dataset: str = "") -> int:
    """Return the 0-based number behind an id."""
    if not re.fullmatch(r"nsd-\d{5}", stimulus) or int(stimulus[4:]) >= IMAGES:
        raise UserError(
            f"{dataset} has the stimuli nsd-00000 to nsd-{IMAGES - 1}, not {stimulus!r}."
        )
    return int(stimulus[4:])


def whose(voxels: int) -> str:
    """Return whose nsdgeneral has this many voxels."""
    for subject, (_, count, _) in RELEASED.items():
        if count == voxels:
            return f"{subject}'s nsdgeneral at 1.8 mm"
    return "nobody's nsdgeneral at 1.8 mm"


def some(names: list[str]) -> str:
    """Return the first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def usable(rows: np.ndarray, subject: str) -> np.ndarray:
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


def _read_volume(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return where a NIfTI volume is above 0, bool (X, Y, Z), and its affine (4, 4).

    NSD writes -1 around a region, so "not 0" would be wrong.
    """
    image = open_volume(file, "NIfTI")
    return volume_data(image, file) > 0, image.affine


def attempt(load: Callable[[str], Trials], subject: str) -> Trials | str:
    """Return what loading a subject gives, or the sentence that says why it cannot be."""
    try:
        return load(subject)
    except UserError as error:
        return f"{subject} cannot be opened: {error}"


def betas_files(folder: Path) -> list[Path]:
    """Return the betas of MindEye2 in a folder, of whichever variant."""
    return sorted(folder.glob("betas_all_subj*.hdf5"))
