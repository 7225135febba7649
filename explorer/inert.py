"""What training scripts save, read without running any of it.

``torch.save`` pickles whatever it is given: optimisers and schedulers with bound methods, config
objects, argparse's namespaces, functions by name. `torch.load` with ``weights_only=True`` refuses
a file with one of those. This reader walks the same opcodes, builds tensors and plain containers
by code of its own, and puts a `Placeholder` in place of everything else: nothing that a file
names is imported or called.

Both forms of ``torch.save`` are read: a zip of stored records (since 1.6) and the older stream of
pickles; tensors are mapped from the disk. Layouts: torch/serialization.py; opcodes: Python's
Lib/pickletools.py.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from explorer.files import COPY, guard
from explorer.stored_tensors import STORAGES, Mapped, Storage, is_storage, width

if TYPE_CHECKING:
    pass

MOST_PICKLED = 2**28  # bytes of opcodes: our choice, hundreds of times what a large training has
MAGIC = 0x1950A86A20F9469CFC6C  # of the older form (torch/serialization.py)
DTYPES = (*STORAGES.values(), "float8_e4m3fn", "float8_e5m2")
NUMBERS = re.compile(r"[<>=|]?([biuf])([1248])")  # NumPy's dtypes that are read
BYTES = re.compile(r"[<>=|]?b1?")
REBUILT = {
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
}
PLAIN = {  # modules of what is built, or is a part of that
    *("torch", "torch._utils", "torch._tensor", "torch.nn.parameter"),
    *("collections", "builtins", "__builtin__", "_codecs"),
    *("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.dtypes"),
}
SCALAR = {"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"}
ARRAY = {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}


@dataclass(eq=False)
class Placeholder:
    """What stands for an object that was not built: the name of its class, and what it was given.

    ``args``: of its making. ``state``: the attributes it was to have, {} for none. ``items``: what
    it was to hold, as a list or as pairs.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: Any = field(default_factory=dict)
    items: list[Any] = field(default_factory=list)


def read_inert(
    path: str | Path, do: str = COPY, missing: str = "check the path"
) -> tuple[Any, tuple[str, ...]]:
    """Return what `torch.save` wrote, and the names of what was not built.

    A `Placeholder` stands for whatever is no plain value.

    Plain are numbers, texts, bytes, lists, tuples, sets, dicts, tensors (without a graph, on the
    CPU) and NumPy's numbers and arrays of numbers.

    Raises
    ------
    UserError
        For a file that is damaged, or in neither of the two forms.
    """
    path = Path(path)
    with guard(path, "a file of torch.save", do, missing), path.open("rb") as file:
        if zipfile.is_zipfile(file):
            return _of_zip(path, file)
        file.seek(0)
        return _of_stream(path, file)


def _of_zip(path: Path, file: BinaryIO) -> tuple[Any, tuple[str, ...]]:
    with zipfile.ZipFile(file) as archive:
        names = {info.filename: info for info in archive.infolist()}
        roots = [name[: -len("data.pkl")] for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError("it is a zip, but none that torch.save writes")
        root = roots[0]
        order = names.get(f"{root}byteorder")
        if order is not None and archive.read(order) != b"little":
            raise ValueError("its numbers are in an order of bytes that is not read here")
        size = path.stat().st_size

        def place(name: str) -> tuple[int, int]:
            """Return where a stored record begins in the file, and how many bytes it has."""
            info = names[name]
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"its record {name} is packed, which torch.save does not do")
            file.seek(info.header_offset)
            head = file.read(30)
            if len(head) < 30 or head[:4] != b"PK\x03\x04":
                raise ValueError(f"its record {name} is not where it should be")
            begin = info.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
            if begin + info.file_size > size:
                raise ValueError(f"its record {name} ends behind the file")
            return begin, info.file_size

        begin, length = place(f"{root}data.pkl")
        if length > MOST_PICKLED:
            raise ValueError(f"it has {length:,} bytes beside its tensors")
        file.seek(begin)
        pickled = io.BytesIO(file.read(length))
        reader = _Reader(pickled, Mapped(path, lambda key: place(f"{root}data/{key}")))
        return reader.load(), tuple(sorted(reader.unbuilt))


def _of_stream(path: Path, file: BinaryIO) -> tuple[Any, tuple[str, ...]]:
    """Return the content of the older form: five pickles, then the numbers of each storage."""
    size = path.stat().st_size
    places: dict[str, tuple[int, int]] = {}
    mapped = Mapped(path, lambda key: places[key], later=True)
    first = file.read(4)
    file.seek(0)
    if first == b"PK\x03\x04":
        raise ValueError("its end is missing: the copy was cut short")
    try:
        known = _Reader(file, mapped).load() == MAGIC
    except Exception as error:
        raise ValueError("it is not what torch.save writes") from error
    if not known:
        raise ValueError("it is not what torch.save writes")
    _Reader(file, mapped).load()  # the protocol
    about = _Reader(file, mapped).load()
    if not (isinstance(about, dict) and about.get("little_endian") is True):
        raise ValueError("its numbers are in an order of bytes that is not read here")
    reader = _Reader(file, mapped)
    found = reader.load()
    keys = _Reader(file, mapped).load()
    widths = {name: width(name) for name in STORAGES.values()}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        if str(key) not in mapped.asked:
            raise ValueError("it has numbers of a kind that is not read here")
        known = mapped.asked[str(key)]
        length = count * widths[known.dtype]
        if count != known.count or file.tell() + length > size:
            raise ValueError("its numbers end before they should")
        places[str(key)] = file.tell(), length
        file.seek(length, io.SEEK_CUR)
    mapped.fill()
    return found, tuple(sorted(reader.unbuilt))


class _Bounded:
    """A stream of opcodes that says how much is left before anybody makes room for more."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file, self._left = file, left

    def read(self, size: int = -1) -> bytes:
        if size > self._left:
            raise ValueError("it ends before it should")
        content = self._file.read(size)
        self._left -= len(content)
        return content

    def readline(self) -> bytes:
        line = self._file.readline(self._left + 1)
        self._left -= len(line)
        return line


class _Reader(pickle._Unpickler):  # type: ignore[misc,name-defined]
    """Python's own machine of opcodes, with every opcode that could call something replaced.

    Written in Python, its memo is a dict: an index of 2**31 costs nothing.
    """

    dispatch = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, file: BinaryIO, mapped: Mapped) -> None:
        begin = file.tell()
        left = min(file.seek(0, io.SEEK_END) - begin, MOST_PICKLED)
        file.seek(begin)
        super().__init__(_Bounded(file, left), encoding="utf-8", errors="replace")
        self._mapped = mapped
        self.unbuilt: set[str] = set()

    def find_class(self, module: str, name: str) -> Placeholder:
        """Return what stands for a name; nothing is imported."""
        if module not in PLAIN:
            self.unbuilt.add(f"{module}.{name}")
        return Placeholder(f"{'builtins' if module == '__builtin__' else module}.{name}")

    def get_extension(self, code: int) -> None:
        self.stack.append(Placeholder(f"extension {code}"))  # no registry of this process

    def persistent_load(self, pid: Any) -> Any:
        """Return a storage by what ``torch.save`` says of it."""
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise ValueError("it refers to something outside")
        if len(pid) > 5 and pid[5] is not None:
            raise ValueError("it has views of storages, which torch has not written for long")
        _, kind, key, _, count = pid[:5]
        if not isinstance(kind, Placeholder):
            raise ValueError("it has numbers of no kind")
        if not is_storage(kind.name):
            return Placeholder(kind.name, (key, count))  # quantised or complex numbers
        return self._mapped.storage(kind.name, key, count)

    # ------------------------------------------------------------------------------- making things

    def _make(self, what: Any, args: Any, named: Any = None) -> Any:
        """Return what an opcode that calls would have made."""
        if not isinstance(what, Placeholder) or not isinstance(args, tuple):
            raise ValueError("it calls something that is no name")
        if named:
            return Placeholder(what.name, (*args, named))
        plain = self._plain(what.name, args)
        return Placeholder(what.name, args) if plain is None else plain

    def _plain(self, name: str, args: tuple[Any, ...]) -> Any:
        """Return a plain value for the few names that make one, None for all others."""
        if name in REBUILT and len(args) >= 4 and isinstance(args[0], Storage):
            dtype = args[0].dtype
            if name.endswith("_v3"):
                dtype = _dtype(args[6])
            return self._mapped.tensor(*args[:4], dtype) if dtype else None
        if name == "torch._utils._rebuild_parameter" and args and not _is_stand_in(args[0]):
            return args[0]
        if name == "torch._utils._rebuild_parameter_with_state" and args:
            return None if _is_stand_in(args[0]) else args[0]
        if name == "torch._tensor._rebuild_from_type_v2" and len(args) == 4:
            return self._make(args[0], args[2])
        if name in ("collections.OrderedDict", "builtins.dict", "collections.defaultdict"):
            return (OrderedDict if name.endswith("OrderedDict") else dict)(_pairs(args))
        if name in ("builtins.set", "builtins.frozenset", "builtins.list", "torch.Size"):
            given = args[0] if args and isinstance(args[0], list | tuple | set) else ()
            return {"set": set, "frozenset": frozenset, "list": list}.get(
                name.rpartition(".")[2], tuple
            )(given)
        if name == "_codecs.encode" and len(args) == 2 and args[1] == "latin1":
            return args[0].encode("latin1") if isinstance(args[0], str) else None
        if name == "torch.device":
            return ":".join(map(str, args))
        if name in SCALAR and len(args) == 2:
            kind = _numbers(args[0])
            if kind is not None and isinstance(args[1], bytes) and len(args[1]) == kind.itemsize:
                return np.frombuffer(args[1], kind)[0]
        return None

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], args)

    def load_newobj(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], args)

    def load_newobj_ex(self) -> None:
        named, args = self.stack.pop(), self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], args, named)

    def _instantiate(self, what: Any, args: Any) -> None:
        self.append(self._make(what, tuple(args)))

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, Placeholder):
            if made.name in ARRAY and (array := _array(state)) is not None:
                # what was remembered stands for the same object
                for index, known in self.memo.items():
                    if known is made:
                        self.memo[index] = array
                self.stack[-1] = array
                return
            made.state = state
        elif not isinstance(made, OrderedDict):  # of which torch keeps a state dict's metadata
            raise ValueError("it gives attributes to something that has none")

    # ------------------------------------------------------------------------------ filling things

    def _fill(self, made: Any, items: list[Any], kind: type) -> None:
        if isinstance(made, Placeholder):
            made.items.extend(items)
        elif not isinstance(made, kind):
            raise ValueError("it puts things into something that holds none")
        elif kind is list:
            made.extend(items)
        elif kind is set:
            made.update(items)
        else:
            made.update(items)

    def load_append(self) -> None:
        value = self.stack.pop()
        self._fill(self.stack[-1], [value], list)

    def load_appends(self) -> None:
        items = self.pop_mark()
        self._fill(self.stack[-1], items, list)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill(self.stack[-1], [(key, value)], dict)

    def load_setitems(self) -> None:
        items = self.pop_mark()
        pairs = list(zip(items[::2], items[1::2], strict=True))
        self._fill(self.stack[-1], pairs, dict)

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.stack.append(bytearray(self.read(size)))

    def load_additems(self) -> None:
        items = self.pop_mark()
        self._fill(self.stack[-1], items, set)


for _code, _does in {
    pickle.REDUCE: _Reader.load_reduce,
    pickle.NEWOBJ: _Reader.load_newobj,
    pickle.NEWOBJ_EX: _Reader.load_newobj_ex,
    pickle.BUILD: _Reader.load_build,
    pickle.APPEND: _Reader.load_append,
    pickle.APPENDS: _Reader.load_appends,
    pickle.SETITEM: _Reader.load_setitem,
    pickle.SETITEMS: _Reader.load_setitems,
    pickle.ADDITEMS: _Reader.load_additems,
    pickle.BYTEARRAY8: _Reader.load_bytearray8,
}.items():
    _Reader.dispatch[_code[0]] = _does


def _is_stand_in(value: Any) -> bool:
    return isinstance(value, Placeholder | Storage)


def _pairs(args: tuple[Any, ...]) -> list[Any]:
    """Return the pairs that an OrderedDict was made of, as Python 2 wrote it."""
    given = args[0] if args and isinstance(args[0], list) else []
    return [tuple(pair) for pair in given if isinstance(pair, list | tuple) and len(pair) == 2]


def _dtype(value: Any) -> str:
    """Return the name of torch's dtype that is named, "" for one that is not read."""
    name = value.name.removeprefix("torch.") if isinstance(value, Placeholder) else ""
    return name if name in DTYPES else ""


def _numbers(value: Any) -> np.dtype | None:
    """Return a pickled NumPy dtype of plain numbers, None for any other."""
    if not (isinstance(value, Placeholder) and value.name == "numpy.dtype" and value.args):
        return None
    text = value.args[0]
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "="
    if not isinstance(text, str) or not (NUMBERS.fullmatch(text) or BYTES.fullmatch(text)):
        return None
    return np.dtype(text).newbyteorder(order if order in ("<", ">") else "=")


def _array(state: Any) -> np.ndarray | None:
    """Return NumPy's array of numbers by its pickled state, None for one of objects."""
    if not (isinstance(state, tuple) and len(state) == 5):
        return None
    _, shape, kind, fortran, content = state
    dtype = _numbers(kind)
    good = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if dtype is None or not good or not isinstance(content, bytes):
        return None
    if math.prod(shape) * dtype.itemsize != len(content):
        return None
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C").copy()
