"""Opens releases of full size: sparse files of the real shapes, in a temporary folder.

What is timed is what a person waits for: the first look at a subject, a trial, all averages. Files
come from the page cache; one that was never read adds what its disk needs. Processor time stands
beside, which other work on the machine does not stretch.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from on_models import Line, resident

TRIALS, VOXELS = 30_000, 15_724  # subject 1 of NSD
IMAGES, SHARED = 73_000, 1000
SAMPLES = {"train": (18, 8559), "val": (1, 300), "test": (2, 982)}  # MindEye1: shards, images
LOOKS = 50


def measure_data(checkpoints: Path, simulated: Path | None) -> list[Line]:
    """Return the lines of the data sets' part; no model and no study that ships is looked at."""
    with tempfile.TemporaryDirectory(prefix="full-size-") as folder:
        write_mindeye2(Path(folder))
        write_mindeye1(Path(folder) / "one")
        return [*mindeye2(Path(folder)), *mindeye1(Path(folder) / "one")]


def timed(work: Callable[[], Any]) -> tuple[str, Any]:
    """Return how long some work took, in words, and what it returned."""
    began, processor = time.perf_counter(), time.process_time()
    result = work()
    took, used = time.perf_counter() - began, time.process_time() - processor
    return f"{took:.2f} s ({used:.2f} s of processor time)", result


def mindeye2(folder: Path) -> list[Line]:
    """Time a subject of MindEye2's release."""
    import h5py  # noqa: F401  (libraries are loaded before the clock starts)
    import pandas  # noqa: F401
    import scipy.sparse  # noqa: F401

    from backends.datasets.mindeye2 import MindEye2

    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of writing the files
    before = resident()[0]
    dataset = MindEye2(folder, "mindeye2")
    loaded, (trials, stimuli) = timed(lambda: (dataset.load("subj01"), dataset.stimuli))
    most = resident()[1]
    tested = trials.stimuli("test")
    assert (len(tested), len(stimuli), len(trials.table)) == (SHARED, IMAGES, TRIALS)
    rows = np.random.default_rng(1).choice(trials.rows("test"), LOOKS, replace=False)
    looks = []
    for row in rows:
        began = time.perf_counter()
        np.asarray(trials.betas[int(row)])
        dataset.image(trials.table["stimulus"].iloc[row])
        looks.append(time.perf_counter() - began)
    averaged, _ = timed(lambda: [trials.average(stimulus) for stimulus in tested])
    grown = (resident()[1] - before) * 1000
    return [
        (f"MindEye2 subject, {TRIALS} x {VOXELS}: opened and loaded", loaded, "< 3 s"),
        ("... memory for it beyond the libraries", f"{(most - before) * 1000:.0f} MB", "< 500 MB"),
        (
            "... one trial's betas and image, median and longest",
            f"{np.median(looks) * 1000:.1f}, {max(looks) * 1000:.1f} ms",
            "< 50 ms",
        ),
        (f"... averages of all test images, {SHARED} x 3", averaged, "< 20 s"),
        ("... memory after all of this, at most", f"{grown:.0f} MB", ""),
    ]


def mindeye1(folder: Path) -> list[Line]:
    """Time a subject of MindEye1's release."""
    from backends.datasets.mindeye1 import MindEye1

    loaded, trials = timed(lambda: MindEye1(folder, "mindeye1").load("subj01"))
    assert len(trials.stimuli("test")) == SAMPLES["test"][1]
    rows = np.random.default_rng(1).choice(len(trials.table), LOOKS, replace=False)
    began = time.perf_counter()
    for row in rows:
        np.asarray(trials.betas[int(row)])
    taken = time.perf_counter() - began
    return [
        ("MindEye1 subject, 9,841 images in 21 shards: loaded", loaded, "< 3 s"),
        ("... one trial's betas", f"{taken / LOOKS * 1000:.1f} ms", "< 50 ms"),
    ]


def write_mindeye2(folder: Path) -> None:
    """Write what one subject needs: rows of test trials hold noise, the rest is holes."""
    import h5py

    rng = np.random.default_rng(0)
    shown = rng.permutation(np.repeat(np.arange(10_000), 3))  # the first 1,000 are shared
    shared = np.zeros(IMAGES, dtype=bool)
    shared[:SHARED] = True
    np.save(folder / "shared1000.npy", shared)
    with h5py.File(folder / "COCO_73k_subj_indices.hdf5", "w") as file:
        file["subj01"] = shown
    with h5py.File(folder / "betas_all_subj01_fp32_renorm.hdf5", "w") as file:
        betas = file.create_dataset("betas", (TRIALS, VOXELS), np.float32)
        for row in [0, *np.flatnonzero(shown < SHARED)]:
            betas[row] = rng.standard_normal(VOXELS, dtype=np.float32)
    with h5py.File(folder / "coco_images_224_float16.hdf5", "w") as file:
        images = file.create_dataset("images", (IMAGES, 3, 224, 224), np.float16)
        for number in range(SHARED):
            images[number] = rng.random(dtype=np.float32)


def write_mindeye1(folder: Path) -> None:
    """Write a subject's shards: first and last sample hold noise, the bytes between are holes."""
    rng, number, last = np.random.default_rng(0), 0, sum(n for _, n in SAMPLES.values()) - 1
    stream = io.BytesIO()
    np.save(stream, np.zeros((3, VOXELS), np.float16))
    head, size = stream.getvalue()[:128], len(stream.getvalue())
    for part, (shards, images) in SAMPLES.items():
        (folder / "webdataset_avg_split" / part).mkdir(parents=True)
        for shard in range(shards):
            place = folder / "webdataset_avg_split" / part / f"{part}_subj01_{shard}.tar"
            with place.open("wb") as file:
                for _ in range(images // shards + (shard < images % shards)):
                    noise = rng.standard_normal((1, VOXELS)) if number in (0, last) else None
                    rows = b"" if noise is None else noise.repeat(3, 0).astype("f2").tobytes()
                    add(file, f"sample{number:09d}.jpg", b"", 40_000)
                    add(file, f"sample{number:09d}.nsdgeneral.npy", head + rows, size)
                    for kind, value in (("coco73k", number), ("num_uniques", 1), ("trial", 0)):
                        small = io.BytesIO()
                        np.save(small, np.array([value]))
                        content = small.getvalue()
                        add(file, f"sample{number:09d}.{kind}.npy", content, len(content))
                    number += 1
                file.write(bytes(1024))


def add(file: io.BufferedWriter, name: str, content: bytes, size: int) -> None:
    """Append a member to a tar; what ``content`` leaves of ``size`` is a hole."""
    member = tarfile.TarInfo(name)
    member.size, member.mtime = size, time.time()
    file.write(member.tobuf(tarfile.PAX_FORMAT))
    end = file.tell() + -(-size // 512) * 512
    file.write(content)
    file.seek(end)
