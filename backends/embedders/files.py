"""Files of weights: what names them, and what a library does not refuse by itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# How transformers says which tensors do not fit: its error names none since version 5
MISFITS_TOLD = {"output_loading_info": True, "ignore_mismatched_sizes": True}


def hash_of_files(*files: Path) -> str:
    """Return a short hash of the contents of files, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def refuse_random(found: Mapping[str, Any]) -> None:
    """Raise `ValueError` for the first tensor that a library has filled with random numbers.

    ``found``: its loading info: the names of tensors that the file lacks, and of those with
    another shape than the network's.
    """
    for name in sorted(found["missing_keys"]):
        raise ValueError(f"{name} is missing")
    for name, stored, expected in sorted(found.get("mismatched_keys", ())):
        raise ValueError(f"{name} has the shape {tuple(stored)}, expected {tuple(expected)}")
