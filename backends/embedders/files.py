"""Files of weights that others published: what names them, and what a library would not refuse.

A configuration of a few bytes may describe a network of terabytes, or one of a thousand million
layers: both are held against the file of weights before anything of that size is made. What is
wrong raises `ValueError` here, since each reader says in its own words what to do about it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.files import reason
from explorer.types import WEIGHTS, UserError

if TYPE_CHECKING:
    import torch

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# How transformers says which tensors do not fit: its error names none since version 5
MISFITS_TOLD = {"output_loading_info": True, "ignore_mismatched_sizes": True}
DTYPES = ("F32", "F16", "BF16", "F64", "I64", "I32", "BOOL")  # whole numbers: positions of tokens
MOST_LAYERS = 1000  # in a stack: our choice, published ones have up to 60
LARGEST = 10**7  # whole number in a configuration: our choice, vocabularies have up to 10**6
SPARE = 2  # a network may have this many times the numbers of its file, if some are made anew


def hash_of_files(*files: Path) -> str:
    """Return a short hash of the contents of files, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def numbers_in(path: Path) -> int:
    """Return how many numbers a safetensors file holds; only its header is read.

    A file that is damaged or cut short, or holds numbers of another type than `DTYPES`, as
    quantised ones are, raises `ValueError`.
    """
    from safetensors import SafetensorError, safe_open

    total = 0
    try:
        with safe_open(path, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - it is no mapping
                part = stored.get_slice(name)
                if (dtype := part.get_dtype()) not in DTYPES:
                    raise ValueError(
                        f"{path.name} holds numbers of the type {dtype} (first in {name}), "
                        "expected float32, float16 or bfloat16"
                    )
                numbers = 1
                for length in part.get_shape():
                    numbers *= length
                total += numbers
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} is damaged or was downloaded in part ({error})") from error
    return total


def check_config(config: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a whole number that no network's configuration holds."""
    for key, value in _whole_numbers(config):
        most = MOST_LAYERS if "layers" in key or "depth" in key else LARGEST
        if value > most:
            raise ValueError(f"its {key} is {value}, expected at most {most}")


def _whole_numbers(values: Any, key: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _whole_numbers(value, str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _whole_numbers(value, key)
    elif isinstance(values, int):
        yield key, values


def check_network(make: Callable[[], torch.nn.Module], numbers: int) -> None:
    """Raise `ValueError` where a network needs many more numbers than its file holds.

    ``make``: what builds it, called where tensors take no memory; what it raises there is left
    to the real call.
    """
    import torch

    try:
        with torch.device("meta"):
            needed = sum(parameter.numel() for parameter in make().parameters())
    except Exception:  # noqa: BLE001 - such as a library that reads numbers while it builds
        return
    if needed > SPARE * numbers:
        raise ValueError(
            f"its configuration describes a network of {needed:,} numbers, and the file of "
            f"weights holds {numbers:,}"
        )


def described(folder: Path, make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """Return the network that the card in a folder describes; `UserError` where it describes none.

    Its weights are read afterwards, and say themselves what is wrong with their file.
    """
    try:
        numbers = numbers_in(folder / WEIGHTS)
    except ValueError:
        numbers = 0
    try:
        if numbers:
            check_network(make, numbers)
        return make()
    except Exception as error:  # whatever a network raises of sizes that it cannot have
        raise UserError(
            f"The card in {folder} describes no network that goes with its weights "
            f"({reason(error)}); copy the folder again."
        ) from error


def refuse_random(found: Mapping[str, Any]) -> None:
    """Raise `ValueError` for the first tensor that a library has filled with random numbers.

    ``found``: its loading info: the names of tensors that the file lacks, and of those with
    another shape than the network's.
    """
    for name in sorted(found["missing_keys"]):
        raise ValueError(f"{name} is missing")
    for name, stored, expected in sorted(found.get("mismatched_keys", ())):
        raise ValueError(f"{name} has the shape {tuple(stored)}, expected {tuple(expected)}")
