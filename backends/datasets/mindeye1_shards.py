"""The tar shards of MindEye1's release: which samples they hold, and where each member lies."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.datasets.mindeye_release import IMAGES, RANGE, RELEASED
from backends.datasets.webdataset import array_of, members, whole_number
from explorer.files import guard
from explorer.images import read_picture
from explorer.types import UserError

IN_MINDEYE1 = {"train": 8559, "val": 300, "test": 982}  # images a subject (Train_MindEye.py)
HUB1 = "huggingface.co/datasets/pscotti/naturalscenesdataset"
SHARD = re.compile(r"(train|val|test)_(subj\d\d)_(\d+)\.tar")


@dataclass(frozen=True)
class Sample:
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
        with guard(self.shard), self.shard.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def rows(self) -> np.ndarray:
        """Return the repeats that were measured (n, V), each once and in order.

        Fewer than three are filled up with copies ([a, b, a]), so a mean over the stored rows
        would count a repeat twice.
        """
        stored = self.stored()
        return stored[self._measured(stored)]

    def stored_row(self, repeat: int) -> int:
        """Return which row of the stored nsdgeneral a repeat is, both from 0."""
        return self._measured(self.stored())[repeat]

    def _measured(self, stored: np.ndarray) -> list[int]:
        rows = [i for i, row in enumerate(stored) if not _among(row, stored[:i])]
        if len(rows) != self.repeats:
            raise UserError(
                f"{self.where}: num_uniques says {self.repeats} repeats, nsdgeneral holds "
                f"{len(rows)} different rows; copy the shard again."
            )
        return rows

    def stored(self) -> np.ndarray:
        """Return nsdgeneral as it was stored, (3, V)."""
        source = f"{self.where}.nsdgeneral.npy"
        array = array_of(self.read(self.voxels), source)
        if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
            raise UserError(
                f"{source} needs numbers (3, voxels), found {array.dtype} {array.shape}."
            )
        return array


class Shards:
    """The samples of some shards, each of which is read once, when it is first asked for.

    Parameters
    ----------
    files
        The shards, see `find_shards`.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.samples: dict[Path, list[Sample]] = {}  # of the shards that were read
        self._found: dict[int, Sample] = {}
        self._lock = threading.RLock()

    def read(self, file: Path) -> list[Sample]:
        """Return a shard's samples."""
        with self._lock:
            if file not in self.samples:
                self.samples[file] = read_shard(file)
                for sample in self.samples[file]:
                    self._found.setdefault(sample.number, sample)
            return self.samples[file]

    def sample(self, number: int) -> Sample | None:
        """Return the sample of an image by its number of 73,000; None for none."""
        for file in self.files:
            if number in self._found:
                break
            self.read(file)
        return self._found.get(number)

    def picture(self, number: int) -> np.ndarray | None:
        """Return an image, uint8 RGB (H, W, 3), by its number of 73,000; None for none."""
        sample = self.sample(number)
        if sample is None:
            return None
        return read_picture(sample.read(sample.image), f"The picture in {sample.where}")


def no_shard(name: str, stimulus: str) -> UserError:
    """Return the error for an image that no shard of a data set has."""
    return UserError(
        f"No shard of {name} has the image {stimulus!r}; it was shown to another subject, or its "
        "shard is missing."
    )


def split_folder(path: Path) -> Path:
    """Return ``webdataset_avg_split``, given it or the folder that holds it."""
    if path.name == "webdataset_avg_split":
        return path
    return path / "webdataset_avg_split"


def find_shards(folder: Path) -> list[Path]:
    """Return the shards of all subjects: train, val, test, each by number."""
    order = {part: i for i, part in enumerate(IN_MINDEYE1)}
    found = [
        (match[2], order[part], int(match[3]), file)
        for part in order
        for file in folder.glob(f"{part}/*.tar")
        if (match := SHARD.fullmatch(file.name)) and match[1] == part and match[2] in RELEASED
    ]
    return [file for *_, file in sorted(found)]


def read_shard(file: Path) -> list[Sample]:
    """Return the samples of a shard; only headers and the small members are read."""
    part = SHARD.fullmatch(file.name)[1]
    samples = []
    with guard(file), file.open("rb") as opened:
        groups: dict[str, dict[str, tuple[int, int]]] = {}
        for name, offset, size in members(opened, file):
            key, _, kind = name.rpartition("/")[2].partition(".")
            if key and kind:  # webdataset skips other names too
                groups.setdefault(key, {})[kind] = (offset, size)

        def small(key: str, kind: str) -> int:
            (offset, size), source = groups[key][kind], f"{file}, {key}.{kind}"
            opened.seek(offset)
            return whole_number(array_of(opened.read(size), source), source)

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
                raise UserError(f"{file}, {key}.coco73k.npy is {number}; {RANGE}")
            if not 1 <= repeats <= 3:
                raise UserError(
                    f"{file}, {key}.num_uniques.npy is {repeats}; an image has 1 to 3 repeats."
                )
            samples.append(
                Sample(file, part, key, picture, group["nsdgeneral.npy"], number, repeats)
            )
    if not samples:
        raise UserError(f"{file} holds no sample; copy it from {HUB1} again.")
    return samples


def _among(row: np.ndarray, others: np.ndarray) -> bool:
    return any(np.array_equal(row, other, equal_nan=True) for other in others)
