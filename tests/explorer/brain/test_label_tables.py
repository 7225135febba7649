"""Names: which are parcels, what sides they tell, and tables of them."""

import numpy as np
import pytest

from explorer.brain.label_tables import (
    Row,
    is_parcel,
    read_rows,
    refuse_unnamed,
    side_of_names,
    table_of,
)
from explorer.types import UserError

REST = [
    *("???", "unknown", "Unknown", "UNKNOWN", "Medial_wall", "Medial wall", "medial wall"),
    *("MEDIAL.WALL", "medialwall", "FreeSurfer_Defined_Medial_Wall", "lh_unknown", "L_???"),
    *("Background+FreeSurfer_Defined_Medial_Wall", "R_unknown", "unknown_lh", "ctx-lh-unknown"),
    *("lh_Background+FreeSurfer_Defined_Medial_Wall", "L_Medial_wall", "None", "NONE", "n/a"),
    *("cortex_not_labelled", "0", "Unassigned", "unlabeled", "", "Corpus_callosum"),
    *("corpuscallosum", "Background", "?", "????"),
]
PARCELS = [
    *("V1", "NA", "L_V1_ROI", "7Networks_LH_Default_PFC_1", "medialorbitofrontal", "insula", "1"),
    *("S_oc-temp_med&Lingual", "Vis", "rhinal", "10", "視覚野", "lh.V1", "Nonemotional"),
]


@pytest.mark.parametrize("name", REST)
def test_names_for_the_rest_are_no_parcels(name):
    assert not is_parcel(name)


@pytest.mark.parametrize("name", PARCELS)
def test_names_of_parcels_are(name):
    assert is_parcel(name)


@pytest.mark.parametrize(
    ("names", "side"),
    [
        (["L_V1_ROI", "L_V2_ROI", "???"], "L"),
        (["V1_R", "V2_R"], "R"),
        (["7Networks_RH_Vis_1", "7Networks_RH_Vis_2"], "R"),
        (["lh.V1", "V2", "V3"], ""),  # most say nothing
        (["lh.V1", "V2"], ""),
        (["lh.V1", "lh.V2", "V3"], "L"),
        (["L_V1", "R_V1", "L_V2"], ""),
        (["L_???", "V1", "V2"], ""),  # the wall says nothing
        (["V1", "V2"], ""),
        ([], ""),
    ],
)
def test_what_side_names_tell(names, side):
    assert side_of_names(names) == side


def test_tables_of_freesurfer_are_read(tmp_path):
    path = tmp_path / "a.ctab"
    path.write_text("#$Id\n\n  0  Unknown 0 0 0 0\n1 G and S 1 2 300 0\n2 V2\n")
    grey = (128, 128, 128)
    assert read_rows(path) == [
        *(Row(0, "Unknown", "", (0, 0, 0)), Row(1, "G and S", "", (1, 2, 255))),
        Row(2, "V2", "", grey),
    ]
    path.write_text("3 Area 5\n4 V1 of 7 9 11 x\n5 a 1 2 3 4 5\n")
    assert [row[1::2] for row in read_rows(path)] == [
        *(("Area 5", grey), ("V1 of 7 9 11 x", grey), ("a 1", (2, 3, 4))),
    ]
    path.write_text("one V1\n")
    with pytest.raises(UserError, match="a.ctab cannot be read .*; a line is a number and a name"):
        read_rows(path)


def test_an_index_has_one_name():
    grey = (128, 128, 128)
    assert table_of([(1, "A", grey), (1, "A", (0, 0, 0))], "x") == {1: ("A", grey)}
    with pytest.raises(UserError, match="x calls the index 1 both 'A' and 'B'; an index has one"):
        table_of([(1, "A", grey), (1, "B", grey)], "x")


def test_an_index_without_a_name_is_refused_and_minus_one_is_none():
    refuse_unnamed(np.array([-1, 0, 3, -1]), (0, 3), "a file")
    for index in (-2, 1):
        with pytest.raises(UserError, match=f"a file: 2 vertices have the index {index}, which"):
            refuse_unnamed(np.array([-1, 3, index, index]), (0, 3), "a file")
