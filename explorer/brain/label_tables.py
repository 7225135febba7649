"""What the numbers of an atlas are called: tables beside its files, and names for no parcel."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from explorer.files import guard, read_table, read_text
from explorer.types import UserError

Colour = tuple[int, int, int]
LabelTable = dict[int, tuple[str, Colour]]  # index -> name and RGB, 0-255
GREY: Colour = (128, 128, 128)
HEMISPHERES = {"l": "L", "lh": "L", "left": "L", "r": "R", "rh": "R", "right": "R"}
AGAIN, MISSING = "copy the file again", "give the path of an atlas file"
TABLES = (".tsv", ".csv", ".ctab", ".txt")  # endings of tables; the last two are FreeSurfer's
# What atlases call cortex without a parcel, and the medial wall: letters and digits alone, without
# hemisphere.
NO_PARCEL = frozenset(
    ("", "0", "unknown", "corpuscallosum", "none", "nan", "unassigned", "undefined")
    + ("unlabeled", "unlabelled", "notlabeled", "notlabelled", "nolabel")
    + ("cortexnotlabeled", "cortexnotlabelled")
)
# A hemisphere at either end of a name, parted from it: lh_unknown, ctx-lh-unknown, V1_L, L_???.
SIDE_OF_NAME = re.compile(
    r"^(?:ctx[._ -])?(?P<first>lh|rh|left|right|l|r)[._ -]"
    r"|[._ -](?P<last>lh|rh|left|right|l|r)$"
    r"|_(?P<inner>[LR]H)_",
    re.IGNORECASE,
)
# Published surfaces whose files hold numbers alone. Wang et al. 2015, Cereb Cortex 25:3911 (the
# list that comes with the atlas); Benson et al. 2014, PLoS Comput Biol 10:e1003538, as numbered in
# neuropythy; Rosenke et al. 2018, NeuroImage 170:257.
PUBLISHED = {
    "wang15_mplbl": (
        *("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4", "VO1", "VO2", "PHC1", "PHC2"),
        *("MST", "hMT", "LO2", "LO1", "V3b", "V3a", "IPS0", "IPS1", "IPS2", "IPS3", "IPS4"),
        *("IPS5", "SPL1", "FEF"),
    ),
    "benson14_varea": (
        *("V1", "V2", "V3", "hV4", "VO1", "VO2", "LO1", "LO2", "TO1", "TO2", "V3b", "V3a"),
    ),
    "rosenke18_vcatlas": ("hOc1", "hOc2", "hOc3v", "hOc4v", "FG1", "FG2", "FG3", "FG4"),
}


class Row(NamedTuple):
    """One line of a table of names; ``hemisphere`` "L", "R" or "" for both."""

    index: int
    name: str
    hemisphere: str
    colour: Colour


def is_parcel(name: str) -> bool:
    """Return whether a label of an atlas is a parcel, rather than a name for the rest."""
    name = SIDE_OF_NAME.sub("", name.strip()).lower()
    plain = re.sub(r"[\W_]", "", name)
    rest = plain in NO_PARCEL or name == "n/a" or "medialwall" in plain
    return not (rest or plain.startswith("background"))


def side_of_names(names: Iterable[str]) -> str:
    """Return "L" or "R" where most parcels are named for one hemisphere and none for the other."""
    parcels = [name for name in names if is_parcel(name)]
    found = [match for match in map(SIDE_OF_NAME.search, parcels) if match]
    sides = {next(part for part in match.groups() if part)[0].upper() for match in found}
    return sides.pop() if len(sides) == 1 and 2 * len(found) > len(parcels) else ""


def refuse_unnamed(index: np.ndarray, known: Iterable[int], where: str) -> None:
    """Raise `UserError` where an index is not among those that a table names (-1 is none)."""
    unnamed = sorted(set(np.unique(index).tolist()) - set(known) - {-1})
    if unnamed:
        raise UserError(
            f"{where}: {int((index == unnamed[0]).sum())} vertices have the index {unnamed[0]}, "
            "which the label table does not name; add it to the table."
        )


def table_of(pairs: Iterable[tuple[int, str, Colour]], where: str | Path) -> LabelTable:
    """Return index -> name and colour; `UserError` where an index has two names."""
    table: LabelTable = {}
    for index, name, colour in pairs:
        if index in table and table[index][0] != name:
            raise UserError(
                f"{where} calls the index {index} both {table[index][0]!r} and {name!r}; an index "
                "has one name, mend the table."
            )
        table.setdefault(index, (name, colour))
    return table


def read_rows(path: str | Path) -> list[Row]:
    """Return the lines of a table of names.

    ``.tsv`` and ``.csv`` have the columns ``index`` and ``name``, and may have ``hemisphere`` (L,
    R or empty) and ``colour`` (``#rrggbb``). ``.ctab`` and ``.txt`` are FreeSurfer's: number, name
    and perhaps red, green, blue and transparency, parted by spaces; ``#`` begins a remark.
    """
    if Path(path).suffix in (".ctab", ".txt"):
        text = read_text(path, AGAIN, MISSING)
        with guard(path, "a table of colours", "a line is a number and a name"):
            return _ctab_rows(text)
    separator = "," if Path(path).suffix == ".csv" else "\t"
    table = read_table(path, separator, AGAIN, MISSING)
    missing = [column for column in ("index", "name") if column not in table]
    if missing:
        raise UserError(
            f"{path} lacks the column {missing[0]!r}; an atlas table names each index."
        )
    with guard(path, "a table of names", AGAIN):
        return [_row(row) for row in table.to_dict("records")]


def _row(row: dict[str, str]) -> Row:
    code = row.get("colour", "").lstrip("#") or "808080"
    told = row.get("hemisphere", "").strip()
    hemisphere = HEMISPHERES.get(told.lower(), told)
    if hemisphere not in ("L", "R", ""):
        raise ValueError(f"hemisphere is L, R or empty, not {told!r}")
    red, green, blue = bytes.fromhex(code)
    return Row(_whole(row["index"]), row["name"], hemisphere, (red, green, blue))


def _whole(text: str) -> int:
    """Return a whole number, also of ``1.0``, as tables that went through a spreadsheet have."""
    return int(re.sub(r"\.0+$", "", text.strip()))


def _ctab_rows(text: str) -> list[Row]:
    rows = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        coloured = len(words) >= 6 and all(word.isdigit() for word in words[-4:])
        name = " ".join(words[1:-4] if coloured else words[1:])
        colour = tuple(min(int(c), 255) for c in words[-4:-1]) if coloured else GREY
        rows.append(Row(int(words[0]), name, "", colour))
    return rows
