"""Tensors that lie in a file of torch.save, mapped from the disk and held against it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MOST_TENSORS = 2**20
STORAGES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "Untyped": "uint8",
}


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers of a file: their type and count, and how they are found once they are asked for."""

    dtype: str
    key: str
    count: int


def is_storage(name: str) -> bool:
    """Return whether a class's name is that of numbers that are read here."""
    return _kind(name) in STORAGES


def _kind(name: str) -> str:
    return name.rpartition(".")[2].removesuffix("Storage")


def width(dtype: str) -> int:
    """Return the bytes of one number of a type."""
    import torch

    return getattr(torch, dtype).itemsize


class Mapped:
    """The tensors of a file, mapped from the disk.

    ``place``: where a storage begins, and its bytes. ``later``: that is known once everything was
    read, so tensors wait for `fill`.
    """

    def __init__(
        self, path: Path, place: Callable[[str], tuple[int, int]], later: bool = False
    ) -> None:
        self._path, self._place, self._later = path, place, later
        self._whole: Any = None
        self._waiting: list[tuple[torch.Tensor, Storage, tuple[Any, ...]]] = []
        self._made = 0
        self.asked: dict[str, Storage] = {}

    def storage(self, name: str, key: Any, count: Any) -> Storage:
        """Return the numbers that a file refers to, by the name of their class, key and count."""
        if type(count) is not int or count < 0 or not isinstance(key, str | int):
            raise ValueError("its numbers have no count or no name")
        dtype = STORAGES[_kind(name)]
        made = Storage(dtype, str(key), count)
        first = self.asked.setdefault(made.key, made)
        if (first.dtype, first.count) != (dtype, count):
            raise ValueError("two of its tensors name one storage differently")
        return made

    def tensor(
        self, storage: Storage, offset: Any, shape: Any, stride: Any, dtype: str
    ) -> torch.Tensor:
        """Return a tensor of stored numbers; one that needs more of them is refused."""
        import torch

        self._made += 1
        numbers = (offset, *shape, *stride)
        if (
            self._made > MOST_TENSORS
            or len(shape) != len(stride)
            or any(type(n) is not int or not 0 <= n < 2**48 for n in numbers)
        ):
            raise ValueError("a tensor's shape, stride or offset is none")
        kind = getattr(torch, dtype)
        each = width(storage.dtype)
        needed = 0
        if math.prod(shape):
            needed = (
                1 + offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
            )
        if needed * kind.itemsize > storage.count * each:
            raise ValueError(f"a tensor of shape {tuple(shape)} has more numbers than are stored")
        made = torch.empty(0, dtype=kind)
        how = offset, tuple(shape), tuple(stride)
        if self._later:
            self._waiting.append((made, storage, how))
        else:
            self._point(made, storage, how)
        return made

    def fill(self) -> None:
        """Give the tensors that waited their numbers."""
        self._later = False
        for made, storage, how in self._waiting:
            self._point(made, storage, how)

    def _point(self, made: torch.Tensor, storage: Storage, how: tuple[Any, ...]) -> None:
        import torch

        if not storage.count:
            made.set_(torch.UntypedStorage(0), *how)
            return
        begin, length = self._place(storage.key)
        needed = storage.count * width(storage.dtype)
        if length < needed:
            raise ValueError(f"a storage has {length:,} bytes, expected {needed:,}")
        if self._whole is None:
            size = self._path.stat().st_size
            self._whole = torch.UntypedStorage.from_file(str(self._path), False, size)
        made.set_(self._whole[begin : begin + needed], *how)
