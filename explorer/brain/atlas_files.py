"""Files of atlases, one function a format: what every vertex is labelled, and the names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explorer.brain.annot import read_annot
from explorer.brain.label_tables import (
    AGAIN,
    GREY,
    MISSING,
    PUBLISHED,
    Colour,
    LabelTable,
    Row,
    is_parcel,
    read_rows,
    refuse_unnamed,
    side_of_names,
    table_of,
)
from explorer.brain.parcels import HEMISPHERE_VERTICES, Atlas
from explorer.files import guard, open_volume, read_array, unpacked, volume_data
from explorer.types import FSAVERAGE5_VERTICES, Label, UserError

if TYPE_CHECKING:
    from nibabel.gifti import GiftiImage

# The icosahedral meshes of FreeSurfer are nested: the first vertices of a finer one are those of
# the coarser one, so labels (never continuous maps) carry over by cutting off the rest.
NESTED = {HEMISPHERE_VERTICES: "fsaverage5", 40_962: "fsaverage6", 163_842: "fsaverage"}
# Vertices a hemisphere of meshes that cannot be cut; the finest fs_LR has as many as fsaverage, at
# other places.
OTHERS = {642: "fsaverage3", 2_562: "fsaverage4", 4_002: "fs_LR 4k", 7_842: "fs_LR 8k",
          32_492: "fs_LR 32k", 59_292: "fs_LR 59k"}  # fmt: skip
FS_LR = re.compile(r"fs(average)?[._-]?lr", re.IGNORECASE)
ONE_HEMISPHERE = (".annot", ".label.gii", ".label.gii.gz", ".mgz", ".mgh")
SIDES = {"L": "left", "R": "right"}
CIFTI = "a CIFTI file of labels"
LARGEST = 2**26  # bytes of a file of labels, unpacked; the largest known takes 4 MB


@dataclass(frozen=True, eq=False)
class Half:
    """One hemisphere as its file has it: the index of every vertex int64 (n,), and their names.

    ``side`` "L" or "R" where the content says so, else "", and ``says``: by what.
    """

    path: Path
    index: np.ndarray
    table: LabelTable
    side: str = ""
    says: str = ""


def load_atlas(name: str, left: str | Path, right: str | Path) -> Atlas:
    """Read an atlas from one file a hemisphere, see `read_half`.

    As `from_hemispheres`: files on fsaverage6 or fsaverage are cut to fsaverage5. A file whose
    content is of the other hemisphere raises `UserError`.
    """
    return join_halves(name, read_half(left), read_half(right))


def join_halves(name: str, left: Half, right: Half) -> Atlas:
    """Return the atlas of a left and a right hemisphere."""
    for half, side in ((left, "L"), (right, "R")):
        if half.side and half.side != side:
            raise UserError(
                f"{half.path} is given as the {SIDES[side]} hemisphere, but {half.says} of the "
                f"{SIDES[half.side]} one; give the other file, or mend its name."
            )
    return from_hemispheres(
        name, (left.index, left.table), (right.index, right.table), left.path, right.path
    )


def read_half(path: str | Path, rows: Sequence[Row] | None = None) -> Half:
    """Read ``.annot``, ``.label.gii``, ``.label.gii.gz``, ``.mgz`` or ``.mgh``: one hemisphere.

    ``rows``: the names of a file that has none of its own, in place of the table beside it.
    """
    path = Path(path)
    side = says = ""
    if path.name.endswith(".annot"):
        index, table = read_annot(path)
    elif path.name.endswith((".label.gii", ".label.gii.gz")):
        index, table, side = _read_gifti(path)
        says = "its AnatomicalStructurePrimary is"
    elif path.name.endswith((".mgz", ".mgh")):
        index, table = _read_mgh(path, rows)
    else:
        raise UserError(
            f"{path} is not an atlas file that can be read; give .annot, .label.gii, "
            ".label.gii.gz, .mgz, .dlabel.nii or .npy."
        )
    if not side:
        there = set(np.unique(index).tolist())
        side = side_of_names(label for key, (label, _) in table.items() if key in there)
        says = "its parcels are named for those"
    return Half(path, index, table, side, says)


def load_cifti_atlas(name: str, path: str | Path) -> Atlas:
    """Read an atlas from a CIFTI-2 ``.dlabel.nii`` on fsaverage5, fsaverage6 or fsaverage.

    Most such files are on fs_LR, which is refused; so is a file of 163,842 vertices a hemisphere
    whose name does not say fsaverage, because the finest fs_LR has as many.
    """
    from nibabel.cifti2 import BrainModelAxis, Cifti2Image, LabelAxis

    path = Path(path)
    image = open_volume(path, CIFTI, AGAIN, MISSING)
    is_cifti = isinstance(image, Cifti2Image) and image.ndim == 2
    with guard(path, CIFTI, AGAIN):
        axes = [image.header.get_axis(i) for i in (0, 1)] if is_cifti else []
    kinds = [type(axis) for axis in axes]
    if kinds != [LabelAxis, BrainModelAxis]:
        raise UserError(f"{path} is no CIFTI file of labels; give a .dlabel.nii.")
    maps, models = axes
    if len(maps) != 1:
        raise UserError(
            f"{path} holds {len(maps)} maps of labels, expected exactly 1: {_some(maps.name)}; "
            "save one of them alone."
        )
    values = whole(volume_data(image, path, 0, do=AGAIN), path)
    with guard(path, CIFTI, AGAIN):
        table = table_of(_cifti_labels(path, maps.label[0]), path)
        parts = {structure: (rows, part) for structure, rows, part in models.iter_structures()}
    halves = []
    for structure in ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"):
        if structure not in parts:
            raise UserError(f"{path} lacks {structure}; an atlas needs both hemispheres.")
        rows, part = parts[structure]
        with guard(path, CIFTI, AGAIN):
            count = int(part.nvertices[structure])
        refuse_mesh(count, path)
        refuse_unnamed_mesh(count, path)
        with guard(path, CIFTI, AGAIN):
            index = np.full(count, -1, dtype=np.int64)  # such files leave out the medial wall
            index[part.vertex] = values[rows]
        halves.append((index, {-1: ("unknown", (0, 0, 0)), **table}))
    return from_hemispheres(name, *halves, path, path)


def _cifti_labels(path: Path, labels: dict) -> list[tuple[int, str, Colour]]:
    """Return key, name and colour of every label, those with a doubled key twice.

    nibabel keeps the last of equal keys, so the keys are read once more from the file's XML.
    """
    colours = {int(key): _rgb(rgba) for key, (_, rgba) in labels.items()}
    with path.open("rb") as file:
        head = file.read(540 + 2**24)
    text = head.partition(b"<LabelTable")[2].partition(b"</LabelTable>")[0]
    found = re.findall(rb"<Label\s[^>]*?Key\s*=\s*[\"']\s*(-?\d+)\s*[\"'][^>]*>([^<]*)<", text)
    names = [(int(key), name) for key, name in found]
    twice = [key for key, _ in names if len({n for k, n in names if k == key}) > 1]
    if twice:
        said = [n.decode("utf-8", "replace") for k, n in names if k == twice[0]]
        return [(twice[0], name, GREY) for name in said]
    return [(int(key), label, colours[int(key)]) for key, (label, _) in labels.items()]


def from_hemispheres(
    name: str,
    left: tuple[np.ndarray, LabelTable],
    right: tuple[np.ndarray, LabelTable],
    left_source: str | Path,
    right_source: str | Path,
) -> Atlas:
    """Return an atlas from the index of every vertex, int (n,), and a table, per hemisphere.

    On fsaverage6 or fsaverage the index is cut to fsaverage5, and the note says so. "unknown", the
    corpus callosum, the medial wall and their like become -1; a name that no vertex of the file
    has is no parcel of it, as one table may serve both hemispheres or several maps. An index is
    never compared between hemispheres or atlases: parcels are known by name. The sources are named
    where one is refused.
    """
    labels: list[Label] = []
    vertices, notes = [], []
    halves = (("L", left, left_source), ("R", right, right_source))
    for hemisphere, (index, table), source in halves:
        refuse_mesh(len(index), source)
        refuse_unnamed(index, table, f"{source}, the {SIDES[hemisphere]} hemisphere")
        position = np.full(HEMISPHERE_VERTICES, -1, dtype=np.int32)
        there = set(np.unique(index).tolist())
        index, note = _cut(index)
        found: dict[str, int] = {}
        for number, (label, colour) in table.items():
            if number not in there or not is_parcel(label):
                continue
            if label in found:
                raise UserError(
                    f"{source} calls two parcels {label!r} (index {found[label]} and {number}), "
                    "so they cannot be told apart; give each its own name."
                )
            found[label] = number
            position[index == number] = len(labels)
            labels.append(Label(label, hemisphere, colour))
        vertices.append(position)
        notes.append(note)
    return Atlas(name, tuple(labels), np.concatenate(vertices), notes[0] or notes[1])


def load_array_atlas(name: str, vertices: str | Path, table: str | Path) -> Atlas:
    """Read an atlas from ``.npy`` whole numbers, one a vertex, left then right, and a table.

    The array has 20,484 values, or those of fsaverage6 or fsaverage, which are cut. The table is
    that of `read_rows`; a line with a hemisphere is of the vertices of that one, so numbers may
    begin again on the right. Vertices with an index that the table lacks raise `UserError`.
    """
    index, rows = read_array(vertices, MISSING), read_rows(table)
    if index.ndim == 1 and index.size in NESTED:
        raise UserError(
            f"{vertices} has {index.size} values, which is one hemisphere; give both in one array "
            "of twice that length, left then right."
        )
    if index.ndim != 1 or index.size % 2 or index.dtype.kind not in "iu":
        raise UserError(
            f"{vertices} needs whole numbers for {FSAVERAGE5_VERTICES} vertices (left, then "
            f"right), found {index.dtype} {index.shape}."
        )
    refuse_mesh(index.size // 2, vertices)
    refuse_unnamed(index, (row.index for row in rows), f"{vertices} and {table}")
    labels: list[Label] = []
    place: dict[Row, int] = {}
    halves, note = [], ""
    for half, side in zip(np.split(index, 2), "LR", strict=True):
        own = [row for row in rows if row.hemisphere in ("", side)]
        known = table_of(((row.index, row.name, row.colour) for row in own), table)
        _refuse_other_side(half, side, rows, known, vertices, table)
        half, note = _cut(half)
        position = np.full(HEMISPHERE_VERTICES, -1, dtype=np.int32)
        for row in own:
            if is_parcel(row.name):
                if row not in place:
                    place[row] = len(labels)
                    labels.append(Label(row.name, row.hemisphere, row.colour))
                position[half == row.index] = place[row]
        halves.append(position)
    return Atlas(name, tuple(labels), np.concatenate(halves), note)


def _refuse_other_side(
    half: np.ndarray,
    side: str,
    rows: Sequence[Row],
    known: LabelTable,
    vertices: str | Path,
    table: str | Path,
) -> None:
    """Raise where vertices of one hemisphere have an index that is the other's alone."""
    others = {row.index: row.name for row in rows if row.hemisphere not in ("", side)}
    for number in sorted(set(np.unique(half).tolist()) & set(others) - set(known)):
        where, other = SIDES[side], SIDES["R" if side == "L" else "L"]
        raise UserError(
            f"{vertices}: {int((half == number).sum())} vertices of the {where} hemisphere have "
            f"the index {number}, which {table} gives to {others[number]} of the {other} one; the "
            "array holds the left hemisphere, then the right one."
        )


def refuse_mesh(count: int, path: str | Path) -> None:
    """Raise where so many vertices a hemisphere are no mesh that can be cut to fsaverage5."""
    if count in NESTED and not FS_LR.search(Path(path).name):
        return
    mesh = "fs_LR" if FS_LR.search(Path(path).name) else OTHERS.get(count, "")
    raise UserError(
        f"{path} labels {count} vertices{f' of {mesh}' if mesh else ''}, expected "
        f"{HEMISPHERE_VERTICES} a hemisphere (fsaverage5; 40962 and 163842 are cut to it); "
        "resample the atlas to fsaverage."
    )


def refuse_unnamed_mesh(count: int, path: Path) -> None:
    """Raise where only its name could tell whether a file is on fsaverage or on fs_LR."""
    if count == max(NESTED) and "fsaverage" not in path.name:
        raise UserError(
            f"{path} labels {count} vertices a hemisphere, which may be fsaverage or the finest "
            "fs_LR; if it is fsaverage, write that into its name."
        )


def _cut(index: np.ndarray) -> tuple[np.ndarray, str]:
    """Return one hemisphere's labels on fsaverage5, and the note about how they came there."""
    count = len(index)
    if count == HEMISPHERE_VERTICES:
        return index, ""
    note = (
        f"This atlas came on {NESTED[count]} ({count:,} vertices a hemisphere) and is cut to "
        "fsaverage5, whose vertices are the first of those."
    )
    return index[:HEMISPHERE_VERTICES], note


def _read_gifti(path: Path) -> tuple[np.ndarray, LabelTable, str]:
    """Return the key of every vertex, key -> name and colour, and the hemisphere that it tells."""
    with guard(path, "a GIfTI file", AGAIN, MISSING):
        image, labels = _parsed_gifti(path)
    sparse = [a for a in image.darrays if a.intent == 2002]  # NIFTI_INTENT_NODE_INDEX
    arrays = [a for a in image.darrays if a.intent == 1002]  # NIFTI_INTENT_LABEL
    if not arrays:
        arrays = [a for a in image.darrays if a.data.dtype.kind in "iu" and a not in sparse]
    arrays = [a for a in arrays if max(a.data.shape, default=0) == a.data.size > 0]
    if len(arrays) != 1:
        names = [str(a.meta.get("Name", "")) for a in arrays]
        told = f": {_some(names)}" if any(names) else ""
        raise UserError(
            f"{path} holds {len(arrays)} label arrays, expected exactly 1{told}; save one of them "
            "alone."
        )
    if sparse:
        raise UserError(
            f"{path} labels a list of vertices and not all of them; give a file with one label "
            "for every vertex."
        )
    index = whole(arrays[0].data.ravel(), path)
    refuse_mesh(len(index), path)
    refuse_unnamed_mesh(len(index), path)
    table = table_of(labels, path)
    said = [meta.get("AnatomicalStructurePrimary", "") for meta in (image.meta, arrays[0].meta)]
    sides = {{"CortexLeft": "L", "CortexRight": "R"}.get(text, "") for text in said} - {""}
    if len(sides) > 1:
        raise UserError(f"{path} says both CortexLeft and CortexRight; mend its metadata.")
    return index, table, sides.pop() if sides else ""


def _parsed_gifti(path: Path) -> tuple[GiftiImage, list[tuple[int, str, Colour]]]:
    """Return a GIfTI image of nibabel's and its labels; what it unpacks to is held first."""
    import base64
    import zlib

    import nibabel as nib

    if path.name.endswith(".gz"):
        content = unpacked(path, LARGEST, AGAIN, MISSING)
    elif path.stat().st_size > LARGEST:
        raise ValueError(f"it has {path.stat().st_size:,} bytes, no file of labels has that many")
    else:
        content = path.read_bytes()
    if b"GZipBase64Binary" in content:
        room = LARGEST
        for block in re.findall(rb"<Data>([^<]*)</Data>", content):
            room -= len(zlib.decompressobj().decompress(base64.b64decode(block), room + 1))
            if room < 0:
                raise ValueError(f"it unpacks to more than {LARGEST:,} bytes")
    image = nib.gifti.GiftiImage.from_bytes(content)
    if any(array.data is None for array in image.darrays):
        raise ValueError("it has an array without data")
    labels = image.labeltable.labels
    return image, [(int(one.key), str(one.label), _rgb(one.rgba)) for one in labels]


def _read_mgh(path: Path, rows: Sequence[Row] | None) -> tuple[np.ndarray, LabelTable]:
    """Return the number of every vertex, and its names from the table beside it or of its kind."""
    image = open_volume(path, "a file of labels", AGAIN, MISSING)
    count = int(max(image.shape))
    if count != int(np.prod(image.shape)):
        raise UserError(
            f"{path} is an array {tuple(map(int, image.shape))}; a file of labels has one number "
            "for each vertex of a hemisphere."
        )
    refuse_mesh(count, path)
    index = whole(volume_data(image, path, do=AGAIN).ravel(), path)
    index[index < 0] = -1
    rows = _names_of(path) if rows is None else rows
    table = table_of(((row.index, row.name, row.colour) for row in rows), path)
    return index, {-1: ("unknown", (0, 0, 0)), 0: ("unknown", (0, 0, 0))} | table


def _names_of(path: Path) -> list[Row]:
    """Return the names of a file that holds numbers alone."""
    bare = re.sub(r"^(lh|rh)\.|[._-](lh|rh)(?=\.)", "", path.name)
    stem = bare.rpartition(".")[0]
    offered = [f"{s}.{e}" for s in dict.fromkeys((bare, stem)) for e in ("ctab", "tsv", "csv")]
    for beside in (*offered, f"{path.stem}.ctab", f"{path.stem}.tsv", f"{path.stem}.csv"):
        if path.with_name(beside).is_file():
            return read_rows(path.with_name(beside))
    for known, names in PUBLISHED.items():
        if known in path.name:
            return [Row(number, name, "", GREY) for number, name in enumerate(names, start=1)]
    raise UserError(
        f"{path} holds numbers and no names; put a table beside it ({stem}.tsv with the columns "
        f"index and name, or FreeSurfer's {bare}.ctab)."
    )


def whole(values: np.ndarray, path: str | Path) -> np.ndarray:
    """Return values as int64, whatever type a file has them in; broken numbers raise.

    NaN, which some files of floats have on the medial wall, becomes -1.
    """
    values = np.asarray(values)
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), -1, values)
        broken = ~np.isfinite(values) | (values != np.rint(values)) | (np.abs(values) >= 2**53)
        if broken.any():
            raise UserError(
                f"{path} holds {int(broken.sum())} values that are no whole numbers (one is "
                f"{values[broken][0]:g}), so it is a map and no atlas; give a file of labels."
            )
    elif values.dtype.kind not in "iub":
        raise UserError(f"{path} holds {values.dtype}, a file of labels holds whole numbers.")
    return values.astype(np.int64)


def _rgb(rgba: Sequence[float | None]) -> Colour:
    """Return RGB 0-255 of parts from 0 to 1, of which some may be lacking."""
    red, green, blue = (min(max(round(255 * (part or 0)), 0), 255) for part in rgba[:3])
    return red, green, blue


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (" and others" if len(names) > most else "")
