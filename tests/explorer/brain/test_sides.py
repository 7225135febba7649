"""Which hemisphere a file is of: by its name in any spelling, and by what is in it."""

import numpy as np
import pytest

from explorer.brain.atlases import open_atlas
from explorer.brain.sides import other_side, side_of, without_side
from explorer.types import UserError
from tests.miniatures.atlases import HALF, write_annot, write_gifti

# A left file's name, that of the right one, and what the atlas is called.
SPELLINGS = [
    ("lh.A", "rh.A", "A"),
    ("LH.A", "RH.A", "A"),
    ("A_LH", "A_RH", "A"),
    ("Lh.A", "Rh.A", "A"),
    ("A_Left", "A_Right", "A"),
    ("A-LEFT", "A-RIGHT", "A"),
    ("A_hemi-L", "A_hemi-R", "A_hemi"),
    ("LeftA", "RightA", "A"),
    ("A_l", "A_r", "A"),
    ("lhA", "rhA", "A"),
    ("V1_Left_B", "V1_Right_B", "V1_B"),
    ("V1LH", "V1RH", "V1"),
    ("A.L.164k", "A.R.164k", "A.164k"),
    ("sub-L03_hemi-L_A", "sub-L03_hemi-R_A", "sub-L03_hemi-A"),
    ("tpl-R_lh.A", "tpl-R_rh.A", "tpl-R_A"),
    ("glasser-L-R_lh", "glasser-L-R_rh", "glasser-L-R"),
    ("lh.A.lh", "rh.A.rh", "A.lh"),
]


@pytest.mark.parametrize(("left", "right", "plain"), SPELLINGS)
def test_sides_are_told_in_any_spelling(left, right, plain):
    assert (side_of(left), side_of(right)) == ("L", "R")
    assert (other_side(left), other_side(right)) == (right, left)
    assert without_side(left) == plain


def test_what_bids_says_comes_before_a_word():
    left, right, plain = "tpl-rh_hemi-L", "tpl-rh_hemi-R", "tpl-rh_hemi"
    assert (side_of(left), side_of(right), other_side(left)) == ("L", "R", right)
    assert without_side(left) == plain


SILENT = ("a1", "flatlh", "Lateral", "leftover", "rhinal")


@pytest.mark.parametrize("name", [*SILENT, "A-L-R", "lh_rh"])
def test_a_name_that_says_no_side_or_both(name):
    assert side_of(name) == ""
    if name in SILENT:
        assert other_side(name) == name == without_side(name)


def pair(tmp_path, left, right):
    """Write an atlas with 100 vertices of its parcel on the left and 200 on the right."""
    for name, count in ((left, 100), (right, 200)):
        write_annot(tmp_path / f"{name}.annot", (np.arange(HALF) < count).astype(int))


def on_each_side(text):
    labelled = open_atlas(text).vertices.reshape(2, HALF) >= 0
    return labelled.sum(axis=1).tolist()


@pytest.mark.parametrize(("left", "right"), [s[:2] for s in SPELLINGS[:9]])
def test_files_in_the_wrong_order_are_exchanged(left, right, tmp_path):
    pair(tmp_path, left, right)
    for given in (
        *(f"{tmp_path}/{left}.annot", f"{tmp_path}/{right}.annot"),
        f"{tmp_path}/{left}.annot,{tmp_path}/{right}.annot",
        f"{tmp_path}/{right}.annot,{tmp_path}/{left}.annot",
    ):
        assert on_each_side(given) == [100, 200]


@pytest.mark.parametrize(("left", "right"), [("lh.A", "a2"), ("a1", "rh.A")])
def test_one_name_that_says_its_side_tells_the_other(left, right, tmp_path):
    pair(tmp_path, left, right)
    files = [f"{tmp_path}/{name}.annot" for name in (left, right)]
    assert on_each_side(",".join(files)) == on_each_side(",".join(files[::-1])) == [100, 200]


def test_files_that_do_not_say_their_side_are_refused(tmp_path):
    pair(tmp_path, "a1", "a2")
    with pytest.raises(UserError, match="Neither a2.annot nor a1.annot says which hemisphere it"):
        open_atlas(f"{tmp_path}/a2.annot,{tmp_path}/a1.annot")


def metadata(tmp_path, **sides):
    for (name, side), count in zip(sides.items(), (100, 200), strict=True):
        index = np.arange(HALF) < count
        name = name.replace("h_", "h.")
        write_gifti(tmp_path / f"{name}.label.gii", index, {0: "???", 1: "A"}, side)


def test_a_gifti_says_its_side_where_its_name_does_not(tmp_path):
    metadata(tmp_path, a1="CortexLeft", a2="CortexRight")
    files = [f"{tmp_path}/{name}.label.gii" for name in ("a1", "a2")]
    assert on_each_side(",".join(files)) == on_each_side(",".join(files[::-1])) == [100, 200]


def test_a_gifti_whose_name_and_content_contradict_each_other_is_refused(tmp_path):
    metadata(tmp_path, lh_b="CortexRight", rh_b="CortexLeft")
    message = "lh.b.label.gii is of the left hemisphere by its name, but its AnatomicalStructureP"
    with pytest.raises(UserError, match=message):
        open_atlas(f"{tmp_path}/lh.b.label.gii")
    metadata(tmp_path, lh_e="CortexLeft", rh_e="CortexLeft")
    with pytest.raises(UserError, match="rh.e.label.gii is of the right hemisphere by its name"):
        open_atlas(f"{tmp_path}/lh.e.label.gii")
    metadata(tmp_path, a1="CortexRight", a2="CortexRight")
    with pytest.raises(UserError, match="same hemisphere, the right one, by what is in them"):
        open_atlas(f"{tmp_path}/a1.label.gii,{tmp_path}/a2.label.gii")


def test_parcels_named_for_a_side_say_it_too(tmp_path):
    index = np.resize([0, 1, 2], HALF)
    for name, side in (("lh.c", "R"), ("rh.c", "L"), ("c1", "R"), ("c2", "L")):
        names = ["???", f"{side}_V1_ROI", f"7Networks_{side}H_Vis_1"]
        write_annot(tmp_path / f"{name}.annot", index, names)
    with pytest.raises(UserError, match="left hemisphere by its name, but its parcels are named"):
        open_atlas(f"{tmp_path}/lh.c.annot")
    atlas = open_atlas(f"{tmp_path}/c1.annot,{tmp_path}/c2.annot")
    assert [label.key for label in atlas.labels[::2]] == ["L_V1_ROI L", "R_V1_ROI R"]
