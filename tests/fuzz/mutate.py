"""Ways in which a file goes wrong: cut, flipped, of another kind, or declaring what is not there.

A mutation is a function of the file's bytes and a random generator. Each kind of file has its own,
which know where its header and its numbers lie, beside those that fit any bytes.
"""

import gzip
import io
import json
import math
import re
import struct
import zipfile
import zlib

import h5py
import numpy as np
import torch

from tests.fuzz.any_bytes import ANY, EDGES, Mutation, Rng, cut, pick


def mutated(data: bytes, name: str, rng: Rng) -> tuple[bytes, str]:
    """Return a file's bytes spoilt once or twice, and how."""
    told = []
    for _ in range(1 if rng.random() < 0.8 else 2):
        own = kinds_of(name, data)
        change = pick(rng, own) if own and rng.random() < 0.6 else pick(rng, ANY)
        try:
            data = change(data, rng)
        except Exception as error:  # what was spoilt before may no longer be understood
            told.append(f"{change.__name__} ({type(error).__name__})")
            data = cut(data, rng)
        else:
            told.append(change.__name__)
    return data, " + ".join(told)


# ------------------------------------------------------------------------------------------ texts


WRONG = (
    *(None, True, False, 0, -1, 2, 1e308, 10**30, 0.5, "", "x", "a" * 3000, "\ud800", "a\0b"),
    *("../..", [], {}, [[]], [None], [1, "a"], {"": None}, {"a": {"b": []}}, float("nan")),
)


def json_value(data: bytes, rng: Rng) -> bytes:
    """Put a value of another type somewhere, or take a key away."""
    root = {"": json.loads(data)}
    at, key = root, ""
    while isinstance(at[key], dict | list) and at[key] and rng.random() < 0.8:
        at = at[key]
        key = pick(rng, list(at)) if isinstance(at, dict) else int(rng.integers(len(at)))
    if rng.random() < 0.2 and at is not root:
        del at[key]
    elif rng.random() < 0.1 and isinstance(at, dict) and at is not root:
        at[pick(rng, ("other", "", "a\0b"))] = at.pop(key)
    else:
        at[key] = pick(rng, WRONG)
    return json.dumps(root[""]).encode()


def json_deep(data: bytes, rng: Rng) -> bytes:
    depth = pick(rng, (500, 3000, 100_000))
    return b'{"title": ' + b"[" * depth + b"]" * depth + b"}"


CELLS = (
    *(
        "",
        "x",
        "-1",
        "0.5",
        "nan",
        "inf",
        "1e400",
        "9" * 30,
        "9007199254740993",
        '"',
        "a\tb",
        "\0",
    ),
    *("../../a", "/etc/passwd", "a" * 5000, "\u202e", "١", "true", "1_0", " 1", "test", "train"),
)


def cell(data: bytes, rng: Rng) -> bytes:
    """Change a cell, a row or a column of a table."""
    text = data.decode("utf-8", "surrogateescape")
    mark = "\t" if "\t" in text else "," if "," in text else None
    rows = [line.split(mark) for line in text.splitlines()] or [[""]]
    row = int(rng.integers(len(rows)))
    column = int(rng.integers(max(1, len(rows[row]))))
    kind = int(rng.integers(8))
    if kind <= 2:
        rows[row][column : column + 1] = [pick(rng, CELLS)]
    elif kind == 3:
        rows = [[c for i, c in enumerate(r) if i != column] for r in rows]
    elif kind == 4:
        rows.insert(row, rows[int(rng.integers(len(rows)))])
    elif kind == 5:
        rows = [[*r, r[min(column, len(r) - 1)] if r else ""] for r in rows]
    elif kind == 6:
        rows = rows[:1] + [rows[i] for i in 1 + rng.permutation(len(rows) - 1)]
    else:
        rows = [[pick(rng, CELLS) if i == column and n else c for i, c in enumerate(r)]
                for n, r in enumerate(rows)]  # fmt: skip
    lines = [(mark or " ").join(r) for r in rows]
    return "\n".join([*lines, ""]).encode("utf-8", "surrogateescape")


def marked(data: bytes, rng: Rng) -> bytes:
    """Give a text a byte order mark, other line ends or another encoding."""
    text = data.decode("utf-8", "replace")
    return pick(
        rng,
        (
            *(b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r\n"), data.replace(b"\n", b"\r")),
            *(text.encode("utf-16"), (text + "é").encode("latin-1", "replace"), data + b"\0"),
        ),
    )


def xml(data: bytes, rng: Rng) -> bytes:
    """Change an attribute, or put in entities that grow."""
    if rng.random() < 0.2:
        names = [f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "0" * 10}">' for i in range(12)]
        return data.replace(b"<GIFTI", f"<!DOCTYPE g [{''.join(names)}]>\n<GIFTI".encode(), 1)
    found = list(re.finditer(rb'="([^"]*)"', data))
    at = pick(rng, found)
    new = (b"", b"-1", b"0", b"99999999999", b"x", b"NIFTI_TYPE_FLOAT32", b"NIFTI_TYPE_RGB24",
           b"ASCII", b"Base64Binary", b"GZipBase64Binary", b"ExternalFileBinary")  # fmt: skip
    return data[: at.start(1)] + pick(rng, new) + data[at.end(1) :]


# ----------------------------------------------------------------------------------------- arrays


def npy(data: bytes, rng: Rng) -> bytes:
    """Let a ``.npy`` header declare another shape or type."""
    stream = io.BytesIO(data)
    np.lib.format.read_magic(stream)
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    n = math.prod(shape)
    shapes = ((), (0,), (n,), shape[::-1], (1, *shape), (*shape, 1), (-1, 4), (10**6, 10**6),
              (2**40, 2**40), (len(shape) and shape[0], 10**9), (0, 3), (3, 0))  # fmt: skip
    types = ("|O", "<f8", "<f2", ">f4", "<i2", "<i8", "|u1", "|b1", "|V2", "<U4", "|S3", "<c8",
             "<M8[s]", [("a", "<f4")], "<f16")  # fmt: skip
    wide = rng.random() < 0.6
    about = {
        "shape": pick(rng, shapes) if wide else shape,
        "descr": np.lib.format.dtype_to_descr(dtype) if wide else pick(rng, types),
        "fortran_order": bool(rng.random() < 0.2),
    }
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, about)
    return out.getvalue() + stream.read()


def npy_values(data: bytes, rng: Rng) -> bytes:
    """Save other values, of another type or shape, soundly."""
    values = np.load(io.BytesIO(data), allow_pickle=False)
    kinds = ("f8", "f2", "i8", "i2", "u1", "?", "c8", "O", "U5", "V2")
    ways = (
        lambda: values.astype(pick(rng, kinds)),
        lambda: values.T,
        lambda: values[..., None],
        lambda: values.ravel(),
        lambda: values[:-1],
        lambda: np.concatenate([values, values]),
        lambda: np.full(values.shape, pick(rng, (np.nan, np.inf, -1.0, 1e300))),
        lambda: values * pick(rng, (0, -1, 1000)),
        lambda: values[:0],
    )
    out = io.BytesIO()
    np.save(out, pick(rng, ways)(), allow_pickle=True)
    return out.getvalue()


def npz(data: bytes, rng: Rng) -> bytes:
    """Spoil, rename or leave out one of an archive's arrays."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = pick(rng, list(members))
    kind = int(rng.integers(4))
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[pick(rng, ("x.npy", "", "../a.npy"))] = members.pop(name)
    else:
        members[name] = pick(rng, (npy, npy_values, *ANY))(members[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for member, content in members.items():
            file.writestr(member, content)
    return out.getvalue()


def gz(data: bytes, rng: Rng) -> bytes:
    """Spoil what is packed, and pack it again."""
    inner = gzip.decompress(data)
    ways = (nifti, *ANY) if inner[344:347] == b"n+1" else ANY
    return gzip.compress(pick(rng, ways)(inner, rng), 1, mtime=0)


def nifti(data: bytes, rng: Rng) -> bytes:
    """Write into the header of NIfTI-1: axes, types, where the numbers begin, how they scale."""
    places = (
        *((40, "h", (0, 1, 2, 4, 7, -1, 8, 32_767)), (42, "h", (0, -1, 1, 30_000))),
        *((44, "h", (0, -1, 30_000)), (46, "h", (0, -1, 30_000)), (48, "h", (0, 2, -1, 32_767))),
        *((70, "h", (0, 1, 2, 16, 64, 128, 512, 1792, 2304, -1)), (72, "h", (0, 1, 8, 64, -1))),
        *((76, "f", (0, np.nan, -1)), (80, "f", (0, np.nan, np.inf, -1))),
        *((108, "f", (0, 1, -1, 1e30, np.nan, 353)), (112, "f", (0, np.nan, np.inf, 2))),
        *((116, "f", (np.nan, np.inf, 5)), (252, "h", (0, -1, 99)), (254, "h", (0, -1, 99))),
        *((280, "f", (np.nan, np.inf, 0)), (344, "i", (0, -1)), (0, "i", (0, 540, -1))),
    )
    at, kind, values = pick(rng, places)
    piece = struct.pack(f"<{kind}", pick(rng, values))
    return data[:at] + piece + data[at + len(piece) :]


def png(data: bytes, rng: Rng) -> bytes:
    """Write another size, depth or colour into a PNG's header, its checksum right."""
    at, size = pick(rng, ((0, 4), (4, 4), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1)))
    head = bytearray(data[16:29])
    value = pick(rng, (0, 1, 3, 16, 12_000, 30_000, 2**31 - 1)) % 2 ** (8 * size)
    head[at : at + size] = value.to_bytes(size, "big")
    if rng.random() < 0.5:  # both sides: a small file, a huge picture
        head[:8] = struct.pack(">II", *(pick(rng, (12_000, 65_535)) for _ in range(2)))
    check = struct.pack(">I", zlib.crc32(b"IHDR" + bytes(head)))
    return data[:16] + bytes(head) + check + data[33:]


# ------------------------------------------------------------------------------------- containers


def hdf5(data: bytes, rng: Rng) -> bytes:
    """Put another array, a group or a link in the place of a member."""
    stream = io.BytesIO(data)
    with h5py.File(stream, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = pick(rng, names)
        old = file[name]
        shape = getattr(old, "shape", None) or (3,)
        values = old[()] if isinstance(old, h5py.Dataset) else np.zeros(3)
        del file[name]
        text = h5py.string_dtype()
        ways = (
            lambda: None,
            lambda: file.create_group(name),
            lambda: file.__setitem__(name, h5py.SoftLink("/nowhere")),
            lambda: file.__setitem__(name, h5py.SoftLink(f"/{name}")),
            lambda: file.__setitem__(name, h5py.ExternalLink("other.h5", "/a")),
            lambda: file.__setitem__(name, h5py.SoftLink("/")),
            lambda: file.create_dataset(name, data=np.zeros(shape).astype(pick(rng, "fidq?B"))),
            lambda: file.create_dataset(name, data=np.zeros((*shape, 1))),
            lambda: file.create_dataset(name, data=np.ravel(values)),
            lambda: file.create_dataset(name, data=values[:1] if np.ndim(values) else values),
            lambda: file.create_dataset(name, data=h5py.Empty("f8")),
            lambda: file.create_dataset(name, data=["a", "b"], dtype=text),
            lambda: file.create_dataset(name, data=np.full(shape, np.nan)),
            lambda: file.create_dataset(name, data=np.full(shape, pick(rng, (-1, 1e300, 0.5)))),
            lambda: file.create_dataset(name, data=np.zeros(2, [("a", "f4"), ("b", "i4")])),
            lambda: file.create_dataset(name, (10**6, 10**5), "f4"),
            lambda: file.create_dataset(name, (10**6, 10**5), "f4", chunks=(10, 10)),
            lambda: file.create_dataset(
                name, (10**6, 10**5), "f4", chunks=(10**4, 10**5), compression="gzip"
            ),
            lambda: file.create_dataset(name, shape, "f4"),
        )
        pick(rng, ways)()
    return stream.getvalue()


def safetensors(data: bytes, rng: Rng) -> bytes:
    """Change the header: a shape, a type, where a tensor's bytes lie, or how long it is."""
    (length,) = struct.unpack("<Q", data[:8])
    head, rest = data[8 : 8 + length], data[8 + length :]
    kind = int(rng.integers(5))
    if kind == 0:
        return struct.pack("<Q", pick(rng, EDGES) % 2**64) + head + rest
    if kind == 1:
        new = json_value(head, rng)
    else:
        values = json.loads(head)
        tensor = values[pick(rng, [k for k in values if k != "__metadata__"])]
        tensor |= pick(
            rng,
            (
                *({"dtype": d} for d in ("F16", "I64", "BF16", "F8_E4M3", "BOOL", "X")),
                *({"shape": s} for s in ([], [-1], [10**6, 10**6], tensor["shape"][::-1], [0])),
                *({"data_offsets": o} for o in ([0, 0], [0, 2**62], [8, 4])),
            ),
        )
        new = json.dumps(values).encode()
    return struct.pack("<Q", len(new)) + new + rest


def pt(data: bytes, rng: Rng) -> bytes:
    """Save other tensors soundly: with a graph, of other kinds, or none at all."""
    held = torch.load(io.BytesIO(data), weights_only=True)
    keys = list(held) if isinstance(held, dict) else []
    key = pick(rng, keys) if keys else ""
    old = held[key] if keys else held
    old = old if isinstance(old, torch.Tensor) else torch.zeros(2, 2)
    floats = old.float()
    ways = (
        lambda: floats.clone().requires_grad_(),
        lambda: torch.nn.Parameter(floats),
        lambda: old.bfloat16(),
        lambda: old.half(),
        lambda: old.double(),
        lambda: old.long(),
        lambda: floats * np.nan,
        lambda: floats.to_sparse(),
        lambda: torch.zeros(old.shape, device="meta"),
        lambda: torch.zeros(old.shape, dtype=torch.complex64),
        lambda: torch.zeros(old.shape, dtype=torch.float8_e4m3fn),
        lambda: torch.zeros(1).expand(10**6, 10**6),
        lambda: old[..., None],
        lambda: old.reshape(-1),
        lambda: old[:0],
        lambda: old.T if old.ndim == 2 else old[:1],
        lambda: pick(rng, (None, "text", 3, [], {}, [old], {"a": old}, float("nan"))),
        lambda: np.zeros(3),
    )
    new = pick(rng, ways)()
    if keys and rng.random() < 0.9:
        held = {**held, key: new}
    else:
        held = new
    out = io.BytesIO()
    torch.save(held, out, _use_new_zipfile_serialization=bool(rng.random() < 0.8))
    return out.getvalue()


def tar(data: bytes, rng: Rng) -> bytes:
    """Write into a header of a tar: a size, a kind or a name, its checksum right."""
    heads = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    at = pick(rng, heads)
    head = bytearray(data[at : at + 512])
    where, new = pick(
        rng,
        (
            *((124, b"00000000000\0"), (124, b"77777777777\0"), (124, b"-0000000001\0")),
            *((124, b"\x80" + b"\xff" * 11), (124, b"xxxxxxxxxxx\0"), (156, b"2"), (156, b"L")),
            *((156, b"x"), (156, b"5"), (0, b"../../a\0"), (0, bytes(100)), (0, b"\xff" * 20)),
        ),
    )
    head[where : where + len(new)] = new
    if rng.random() < 0.8:
        head[148:156] = b" " * 8
        head[148:156] = f"{sum(head):06o}\0 ".encode()
    return data[:at] + bytes(head) + data[at + 512 :]


def matlab(data: bytes, rng: Rng) -> bytes:
    """Write into a tag of MATLAB 5: a kind or a count of bytes, anywhere."""
    at = 128 + 4 * int(rng.integers(max(1, (len(data) - 132) // 4)))
    value = struct.pack("<I", pick(rng, (0, 1, 5, 6, 14, 15, 99, 2**31 - 1, 2**32 - 1)))
    return data[:at] + value + data[at + 4 :]


OWN: dict[str, tuple[Mutation, ...]] = {
    ".json": (json_value, json_value, json_value, json_deep, marked),
    ".tsv": (cell, cell, cell, marked),
    ".csv": (cell, cell, cell, marked),
    ".txt": (cell, cell, marked),
    ".ctab": (cell, marked),
    ".npy": (npy, npy_values),
    ".npz": (npz,),
    ".gz": (gz,),
    ".mgz": (gz,),
    ".nii": (nifti,),
    ".gii": (xml,),
    ".png": (png,),
    ".safetensors": (safetensors,),
    ".pt": (pt,),
    ".pth": (pt,),
    ".tar": (tar,),
    ".mat": (matlab,),
}


def kinds_of(name: str, data: bytes) -> tuple[Mutation, ...]:
    if data[:4] == b"\x89HDF" or data[512:516] == b"\x89HDF":
        return (hdf5,)
    return next((own for ending, own in OWN.items() if name.lower().endswith(ending)), ())
