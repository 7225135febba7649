"""MindEye1's release in miniature, with planted truths.

Betas encode what they belong to (voxel 0 the image, voxel 1 the repeat), so that a row or an id
that slips by one is seen.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from backends.datasets.mindeye1 import MindEye1
from tests.miniatures.shards import npy, write_tar

V = 6
TRAIN = [[(7, (0, 1, 2)), (9, (0, 1, 0))], [(11, (0, 0, 0)), (13, (0, 1, 1))]]
VAL = [(15, (0, 1, 2))]
TEST = [[(72999, (0, 1, 0)), (0, (0, 1, 2))], [(3, (0, 0, 1))]]


def jpeg(number: int) -> bytes:
    """Return a picture whose top is as bright as its number and whose bottom is black."""
    pixels = np.zeros((16, 12, 3), np.uint8)
    pixels[:8] = number % 200 + 50
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def row(number: int, repeat: int, v: int = V) -> np.ndarray:
    return np.concatenate([[number % 1000, repeat], np.full(v - 2, number % 7 + repeat)])


def sample1(number: int, stored=(0, 1, 2), v: int = V, **changed: bytes) -> dict[str, bytes]:
    """Return a sample of MindEye1; ``stored`` are the repeats in its three rows, with copies."""
    rows = np.stack([row(number, r, v) for r in stored]).astype(np.float16)
    members = {
        "jpg": jpeg(number),
        "nsdgeneral.npy": npy(rows),
        "trial.npy": npy([number]),
        "coco73k.npy": npy([number]),
        "num_uniques.npy": npy([len(set(stored))]),
        "wholebrain_3d.npy": npy(np.zeros((3, 2, 2, 2), np.float16)),
    }
    members |= {kind.replace("__", "."): content for kind, content in changed.items()}
    return {kind: content for kind, content in members.items() if content is not None}


def write_mindeye1(root: Path, subject: str = "subj01", v: int = V) -> Path:
    folder, first = root / "webdataset_avg_split", 0
    for part, shards in (("train", TRAIN), ("val", [VAL]), ("test", TEST)):
        for i, shard in enumerate(shards):
            file = folder / part / f"{part}_{subject}_{i}.tar"
            write_tar(file, [sample1(n, stored, v) for n, stored in shard], first)
            first += len(shard)
    (folder / f"metadata_{subject}.json").write_text('{"totals": {"train": 4}}')
    return root


def shard1(root: Path, part: str, number: int, samples: list[dict[str, bytes]], **options) -> Path:
    file = root / "webdataset_avg_split" / part / f"{part}_subj01_{number}.tar"
    write_tar(file, samples, 100 * (number + 1), **options)
    return file


def mindeye1(root: Path, **options) -> MindEye1:
    return MindEye1(root, "study", **{"voxels": "any", **options})
