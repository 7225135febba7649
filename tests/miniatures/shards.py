"""Shards of webdataset, written as its TarWriter does."""

import io
import tarfile
import time
from pathlib import Path

import numpy as np


def npy(values) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(values))
    return stream.getvalue()


def write_tar(file: Path, samples: list[dict[str, bytes]], first: int = 0, **options) -> None:
    """Write samples as webdataset's TarWriter does: times with a fraction, so pax headers."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", **options) as tar:
        for i, sample in enumerate(samples):
            for kind, content in sample.items():
                member = tarfile.TarInfo(f"sample{first + i:09d}.{kind}")
                member.size, member.mtime = len(content), time.time()
                tar.addfile(member, io.BytesIO(content))
