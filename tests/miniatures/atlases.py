"""Small files of atlases on fsaverage5 and finer, in every format that is read."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis, LabelAxis

HALF = 10_242
NAMES = ["unknown", "V1", "Medial_wall", "V2"]
COLOURS = np.array([[0, 0, 0, 0], [255, 0, 10, 0], [5, 5, 5, 0], [0, 200, 0, 0]])
TABLE = {0: ("???", (0, 0, 0, 0)), 1: ("L_V1_ROI", (1, 0, 0, 1)), 2: ("R_V1_ROI", (0, 0, 1, 1))}


def write_annot(path, index, names=NAMES):
    nib.freesurfer.write_annot(path, index, COLOURS[: len(names)], names, fill_ctab=True)
    return path


def colour(red, green, blue):
    return red + (green << 8) + (blue << 16)


def write_raw_annot(path, colours, entries, *, structures=None, version=2, numbers=None):
    """Write an .annot byte by byte: ``entries`` are (name, red, green, blue)."""
    n = len(colours)
    pairs = np.empty((n, 2), ">i4")
    pairs[:, 0], pairs[:, 1] = np.arange(n) if numbers is None else numbers, colours
    structures = range(len(entries)) if structures is None else structures
    out = [struct.pack(">i", n), pairs.tobytes(), struct.pack(">i", 1)]
    head = [len(entries)] if version == 1 else [-2, max(structures, default=0) + 1]
    out += [struct.pack(f">{len(head)}i", *head), struct.pack(">i", 4), b"lut\0"]
    if version == 2:
        out.append(struct.pack(">i", len(entries)))
    for structure, (name, *rgb) in zip(structures, entries, strict=True):
        raw = (name if isinstance(name, bytes) else name.encode()) + b"\0"
        out += [struct.pack(">i", structure)] if version == 2 else []
        out += [struct.pack(">i", len(raw)), raw, struct.pack(">4i", *rgb, 0)]
    Path(path).write_bytes(b"".join(out))
    return path


def write_gifti(path, index, table, side="", kind="INT32", intent="LABEL"):
    """Write a .label.gii; ``table``: key -> name, or pairs of them."""
    labels = nib.gifti.GiftiLabelTable()
    for key, name in table.items() if isinstance(table, dict) else table:
        label = nib.gifti.GiftiLabel(key, 1.0, 0.5, 0.0, 1.0)
        label.label = name
        labels.labels.append(label)
    kinds = {"INT32": np.int32, "FLOAT32": np.float32, "UINT8": np.uint8}
    told = {"AnatomicalStructurePrimary": side} if side else {}
    array = nib.gifti.GiftiDataArray(
        np.asarray(index).astype(kinds[kind]),
        intent=f"NIFTI_INTENT_{intent}",
        datatype=f"NIFTI_TYPE_{kind}",
        meta=nib.gifti.GiftiMetaData(told),
    )
    nib.save(nib.gifti.GiftiImage(labeltable=labels, darrays=[array]), path)
    return path


def write_dlabel(path, vertices=HALF, maps=1, sides=("LEFT", "RIGHT"), axis=None):
    """Write a .dlabel.nii that holds one vertex in fifty: HCP files leave the medial wall out."""
    cortex = np.arange(vertices) % 50 == 7
    models = [BrainModelAxis.from_mask(cortex, name=f"CIFTI_STRUCTURE_CORTEX_{s}") for s in sides]
    whole = models[0] if len(models) == 1 else models[0] + models[1]
    side = np.repeat([1, 2][: len(sides)], cortex.sum())
    values = np.where(np.arange(len(side)) % 2, side, 0)  # every second vertex has a parcel
    axis = axis or LabelAxis([f"map {i}" for i in range(maps)], TABLE)
    image = nib.Cifti2Image(np.tile(values, (maps, 1)).astype(np.float32), (axis, whole))
    nib.save(image, path)
    return cortex


def write_mgh(path, values):
    """Write numbers, one a vertex, as FreeSurfer keeps them on a surface."""
    nib.save(nib.MGHImage(np.asarray(values).reshape(-1, 1, 1), np.eye(4)), path)
    return path


def write_all(folder: Path) -> dict[str, tuple[str, Path]]:
    """Write one valid atlas in each format: name -> (what --atlas is given, a file of it)."""
    folder, index = Path(folder), np.resize([0, 1, 2, 3], HALF)
    for side in ("lh", "rh"):
        write_annot(folder / f"{side}.a.annot", index)
        write_gifti(folder / f"{side}.g.label.gii", index, dict(enumerate(NAMES)))
        packed = (folder / f"{side}.g.label.gii").read_bytes()
        (folder / f"{side}.z.label.gii.gz").write_bytes(gzip.compress(packed))
        write_mgh(folder / f"{side}.m.mgz", index.astype(np.int32))
        write_mgh(folder / f"{side}.h.mgh", index.astype(np.float32))
    for name in ("m", "h"):
        (folder / f"{name}.ctab").write_text("0 Unknown 0 0 0 0\n1 V1 9 9 9 0\n2 V2\n3 V3\n")
    write_dlabel(folder / "c.dlabel.nii")
    np.save(folder / "n.npy", np.tile(index, 2))
    (folder / "n.tsv").write_text("index\tname\n0\tunknown\n1\tV1\n2\tV2\n3\tV3\n")
    files = {
        "annot": "lh.a.annot", "gifti": "lh.g.label.gii", "packed gifti": "rh.z.label.gii.gz",
        "mgz": "lh.m.mgz", "mgh": "rh.h.mgh", "cifti": "c.dlabel.nii", "array": "n.npy",
    }  # fmt: skip
    found = {name: (str(folder / file), folder / file) for name, file in files.items()}
    found["table"] = (str(folder / "n.npy"), folder / "n.tsv")
    found["colour table"] = (str(folder / "lh.m.mgz"), folder / "m.ctab")
    return found
