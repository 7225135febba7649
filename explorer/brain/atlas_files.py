"""Files of atlases, one function a format: what every vertex is labelled, and the names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from explorer.brain.parcels import HEMISPHERE_VERTICES, Atlas
from explorer.types import FSAVERAGE5_VERTICES, Label, UserError

# The icosahedral meshes of FreeSurfer are nested: the first vertices of a finer one are those of
# the coarser one, so labels (never continuous maps) carry over by cutting off the rest.
NESTED = {HEMISPHERE_VERTICES: "fsaverage5", 40_962: "fsaverage6", 163_842: "fsaverage"}
# Vertices a hemisphere of meshes that cannot be cut; the finest fs_LR has as many as fsaverage, at
# other places.
OTHERS = {642: "fsaverage3", 2_562: "fsaverage4", 4_002: "fs_LR 4k", 7_842: "fs_LR 8k",
          32_492: "fs_LR 32k", 59_292: "fs_LR 59k"}  # fmt: skip
FS_LR = re.compile(r"fs_?lr", re.IGNORECASE)
# What atlases call cortex without a parcel, and the medial wall.
NO_PARCEL = frozenset(
    ("", "???", "unknown", "corpuscallosum", "medialwall", "medial_wall", "background", "none")
)
Read = TypeVar("Read")
LabelTable = dict[int, tuple[str, tuple[int, int, int]]]  # index -> name and RGB, 0-255


def load_atlas(name: str, left: str | Path, right: str | Path) -> Atlas:
    """Read an atlas from one file a hemisphere: ``.annot``, ``.label.gii`` or ``.label.gii.gz``.

    As `from_hemispheres`: files on fsaverage6 or fsaverage are cut to fsaverage5.
    """
    return from_hemispheres(name, _read_labels(Path(left)), _read_labels(Path(right)), left, right)


def load_cifti_atlas(name: str, path: str | Path) -> Atlas:
    """Read an atlas from a CIFTI-2 ``.dlabel.nii`` on fsaverage5, fsaverage6 or fsaverage.

    Most such files are on fs_LR, which is refused; so is a file of 163,842 vertices a hemisphere
    whose name does not say fsaverage, because the finest fs_LR has as many.
    """
    import nibabel as nib
    from nibabel.cifti2 import BrainModelAxis, Cifti2Image, LabelAxis

    path = Path(path)
    image = guarded(lambda: nib.load(path), path)
    is_cifti = isinstance(image, Cifti2Image) and image.ndim == 2
    maps, models = (image.header.get_axis(i) for i in (0, 1)) if is_cifti else (None, None)
    if not isinstance(maps, LabelAxis) or not isinstance(models, BrainModelAxis):
        raise UserError(f"{path} is no CIFTI file of labels; give a .dlabel.nii.")
    if len(maps) != 1:
        raise UserError(f"{path} holds {len(maps)} maps of labels, expected exactly 1.")
    values = guarded(lambda: np.asarray(image.dataobj[0]).astype(np.int64), path)
    parts = {structure: (rows, part) for structure, rows, part in models.iter_structures()}
    halves = []
    for structure in ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"):
        if structure not in parts:
            raise UserError(f"{path} lacks {structure}; an atlas needs both hemispheres.")
        rows, part = parts[structure]
        count = int(part.nvertices[structure])
        if count == max(NESTED) and "fsaverage" not in path.name:
            raise UserError(
                f"{path} labels {count} vertices a hemisphere, which may be fsaverage or the "
                "finest fs_LR; if it is fsaverage, write that into its name."
            )
        index = np.full(count, -1, dtype=np.int64)  # the medial wall is left out of such files
        index[part.vertex] = values[rows]
        there = {-1, *np.unique(index).tolist()}  # one table serves both hemispheres
        table = {
            int(key): (label, tuple(round(255 * c) for c in rgba[:3]))
            for key, (label, rgba) in maps.label[0].items()
            if key in there
        }
        halves.append((index, {-1: ("unknown", (0, 0, 0)), **table}))
    return from_hemispheres(name, *halves, path, path)


def load_array_atlas(name: str, vertices: str | Path, table: str | Path) -> Atlas:
    """Read an atlas from ``.npy`` whole numbers, one a vertex, left then right, and a table.

    The array has 20,484 values, or those of fsaverage6 or fsaverage, which are cut. The table
    (tab-separated, or by commas where it ends in .csv) has the columns ``index`` and ``name``, and
    may have ``hemisphere`` (L, R or empty) and ``colour`` (``#rrggbb``). Vertices with an index
    that the table lacks raise `UserError`.
    """
    import pandas as pd

    index = guarded(lambda: np.load(vertices, allow_pickle=False), vertices)
    separator = "," if Path(table).suffix == ".csv" else "\t"
    rows = guarded(
        lambda: pd.read_csv(table, sep=separator, dtype=str, keep_default_na=False), table
    )
    missing = [c for c in ("index", "name") if c not in rows]
    if missing:
        raise UserError(
            f"{table} lacks the column {missing[0]!r}; an atlas table names each index."
        )
    if index.ndim != 1 or index.size % 2 or index.dtype.kind not in "iu":
        raise UserError(
            f"{vertices} needs whole numbers for {FSAVERAGE5_VERTICES} vertices (left, then "
            f"right), found {index.dtype} {index.shape}."
        )
    halves = [_cut(half, vertices) for half in np.split(index, 2)]
    index, note = np.concatenate([half for half, _ in halves]), halves[0][1]
    position = np.full(len(index), -1, dtype=np.int32)
    labels, known = [], []
    for row in rows.to_dict("records"):
        number = guarded(lambda row=row: int(row["index"]), table)
        known.append(number)
        if is_parcel(row["name"]):
            position[index == number] = len(labels)
            label = guarded(lambda row=row: _label_of_row(row), table)
            labels.append(label)
    refuse_unnamed(index, known, f"{vertices} and {table}")
    return Atlas(name, tuple(labels), position, note)


def from_hemispheres(
    name: str,
    left: tuple[np.ndarray, LabelTable],
    right: tuple[np.ndarray, LabelTable],
    left_source: str | Path,
    right_source: str | Path,
) -> Atlas:
    """Return an atlas from the index of every vertex, int (n,), and a table, per hemisphere.

    On fsaverage6 or fsaverage the index is cut to fsaverage5, and the note says so. "unknown", the
    corpus callosum, the medial wall and their like become -1. An index is never compared between
    hemispheres or atlases: parcels are known by name. The sources are named where one is refused.
    """
    labels: list[Label] = []
    vertices, notes = [], []
    halves = (("L", left, left_source), ("R", right, right_source))
    for hemisphere, (index, table), source in halves:
        index, note = _cut(index, source)
        position, found = _positions(index, table, hemisphere, len(labels))
        labels += found
        vertices.append(position)
        notes.append(note)
    return Atlas(name, tuple(labels), np.concatenate(vertices), notes[0] or notes[1])


def _cut(index: np.ndarray, path: str | Path) -> tuple[np.ndarray, str]:
    """Return one hemisphere's labels on fsaverage5, and the note about how they came there."""
    count = len(index)
    if count not in NESTED or FS_LR.search(Path(path).name):
        mesh = "fs_LR" if FS_LR.search(Path(path).name) else OTHERS.get(count, "")
        raise UserError(
            f"{path} labels {count} vertices{f' of {mesh}' if mesh else ''}, expected "
            f"{HEMISPHERE_VERTICES} a hemisphere (fsaverage5; 40962 and 163842 are cut to it); "
            "resample the atlas to fsaverage."
        )
    if count == HEMISPHERE_VERTICES:
        return index, ""
    note = (
        f"This atlas came on {NESTED[count]} ({count:,} vertices a hemisphere) and is cut to "
        "fsaverage5, whose vertices are the first of those."
    )
    return index[:HEMISPHERE_VERTICES], note


def _read_labels(path: Path) -> tuple[np.ndarray, LabelTable]:
    """Return the index of every vertex of one hemisphere and index -> (name, colour)."""
    import nibabel as nib

    if path.name.endswith(".annot"):
        index, colours, names = guarded(lambda: nib.freesurfer.read_annot(path), path)
        table = {
            i: (name.decode("utf-8"), tuple(int(c) for c in colour[:3]))
            for i, (name, colour) in enumerate(zip(names, colours, strict=True))
        }
        table[-1] = ("unknown", (0, 0, 0))  # nibabel's mark for a vertex without annotation
        return index.astype(np.int64), table
    if path.name.endswith((".label.gii", ".label.gii.gz")):
        image = guarded(lambda: nib.load(path), path)
        arrays = [a for a in image.darrays if a.data.ndim == 1 and a.data.dtype.kind in "iu"]
        if len(arrays) != 1:
            raise UserError(f"{path} holds {len(arrays)} label arrays, expected exactly 1.")
        table = {
            int(label.key): (label.label, tuple(round(255 * (c or 0)) for c in label.rgba[:3]))
            for label in image.labeltable.labels
        }
        return arrays[0].data.astype(np.int64), table
    raise UserError(
        f"{path} is not an atlas file that can be read; give .annot, .label.gii, .label.gii.gz, "
        ".dlabel.nii or .npy."
    )


def _positions(
    index: np.ndarray,
    names: LabelTable,
    hemisphere: str,
    start: int,
) -> tuple[np.ndarray, list[Label]]:
    """Renumber one hemisphere from ``start`` in the order of its table, -1 for no parcel."""
    refuse_unnamed(index, names, f"the {'left' if hemisphere == 'L' else 'right'} hemisphere")
    position, labels = np.full(len(index), -1, dtype=np.int32), []
    for number, (name, colour) in names.items():
        if is_parcel(name):
            position[index == number] = start + len(labels)
            labels.append(Label(name, hemisphere, colour))
    return position, labels


def is_parcel(name: str) -> bool:
    """Return whether a label of an atlas is a parcel, rather than a name for the rest."""
    return name.lower() not in NO_PARCEL and not name.lower().startswith("background")


def refuse_unnamed(index: np.ndarray, known: Iterable[int], where: str) -> None:
    """Raise `UserError` where an index is not among those that a table names (-1 is none)."""
    unnamed = sorted(set(np.unique(index).tolist()) - set(known) - {-1})
    if unnamed:
        raise UserError(
            f"{where}: {int((index == unnamed[0]).sum())} vertices have the index {unnamed[0]}, "
            "which the label table does not name."
        )


def _label_of_row(row: dict[str, str]) -> Label:
    code = row.get("colour", "").lstrip("#") or "808080"
    hemisphere = row.get("hemisphere", "")
    if hemisphere not in ("L", "R", ""):
        raise ValueError(f"hemisphere is L, R or empty, not {hemisphere!r}")
    red, green, blue = bytes.fromhex(code)
    return Label(row["name"], hemisphere, (red, green, blue))


def guarded(read: Callable[[], Read], path: str | Path) -> Read:
    """Call ``read``; what cannot be read becomes one sentence with the file's name."""
    import zlib
    from xml.parsers.expat import ExpatError

    from nibabel.filebasedimages import ImageFileError

    damaged = (ImageFileError, ExpatError, ValueError, EOFError, IndexError, zlib.error)
    try:
        return read()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; give the path of an atlas file.") from error
    except (OSError, *damaged) as error:
        raise UserError(f"{path} cannot be read ({error}); copy the file again.") from error
