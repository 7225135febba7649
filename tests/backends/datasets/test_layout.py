"""Details of a plain folder that a whole study does not reach."""

import re
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from backends.datasets import layout, layout_voxels
from explorer.types import UserError


def test_a_folder_that_may_not_be_entered_is_not_described():
    assert not layout.is_described(Path("x" * 5000))  # the system refuses such a name


def test_a_name_that_no_file_can_have_is_told_as_such(tmp_path):
    told = re.escape("stimuli.tsv: the name 'a\\x00b' cannot be read as the path of a file")
    with pytest.raises(UserError, match=told + ".*; mend it"):
        layout._inside(tmp_path, "a\0b", "stimuli.tsv")
    assert layout._inside(tmp_path, "a/b.png", "stimuli.tsv") == tmp_path / "a" / "b.png"


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 1), (2, 3, 4, 1, 1), (2, 3, 1)])
def test_a_mask_may_have_axes_of_one_at_its_end(tmp_path, shape):
    values = np.arange(np.prod(shape)).reshape(shape) % 2
    image = nibabel.Nifti1Image(values.astype(np.uint8), np.eye(4))
    nibabel.save(image, tmp_path / "mask.nii.gz")
    mask, affine = layout_voxels.read_mask(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(mask, values.reshape(shape[:3]).astype(bool))
    np.testing.assert_array_equal(affine, np.eye(4))


@pytest.mark.parametrize("shape", [(2, 3, 1, 2), (2, 3, 4, 2), (2, 3)])
def test_a_mask_of_more_or_fewer_axes_is_refused(tmp_path, shape):
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)), tmp_path / "m.nii.gz")
    with pytest.raises(UserError, match=r"has shape .* expected a mask along three axes"):
        layout_voxels.read_mask(tmp_path / "m.nii.gz")


@pytest.mark.parametrize(
    ("vertex", "side"), [(0, "R"), (10_241, "R"), (10_242, "L"), (20_483, "L")]
)
def test_the_first_and_last_vertex_of_a_side_belong_to_it(vertex, side, tmp_path):
    table = pd.DataFrame({"parcel": ["V1", f"V1 {side}"]})
    with pytest.raises(UserError, match=f"row 2 has vertex {vertex}, which lies"):
        layout_voxels._check_sides(table, np.array([-1, vertex]), tmp_path / "voxels.tsv")
    other = pd.DataFrame({"parcel": [f"V1 {side}", "V1 " + "LR"[side == "L"]]})
    nowhere = np.array([-1, vertex])  # the first voxel has no place
    layout_voxels._check_sides(other, nowhere, tmp_path / "voxels.tsv")


def test_rows_tell_of_which_result_and_event_they_were_made():
    table = pd.DataFrame(
        {
            "source_file": ["/data/glm/results/a.npy"],
            "source_trial": [3],
            "events_file": ["/data/func/events.tsv"],
            "events_row": [7],
        }
    )
    told = ["trial 3 of results/a.npy, row 7 of events.tsv, both from 0"]
    assert layout._made_from(table) == told
    assert layout._made_from(table.drop(columns="events_row")) == []


@pytest.mark.parametrize(
    ("own", "vertex", "sentence"),
    [
        ([64_984, 1], [0, 1], "holds 64984, which is outside fsLR-32k: 0 to 64983"),
        ([5, 5], [0, 1], "names a vertex twice; each voxel of fsLR-32k has its own"),
        ([5, 32_491], [0, 10_242], "row 2 has fslr 32491 in one hemisphere and vertex 10242 in"),
    ],
)
def test_vertices_of_fslr_lie_in_their_hemisphere_once(own, vertex, sentence, tmp_path):
    table = pd.DataFrame({"fslr": own, "vertex": vertex}).astype(str)
    with pytest.raises(UserError, match=sentence):
        layout_voxels.voxel_space(tmp_path, table, "a/b", layout.DEFAULTS)


def test_a_subjects_own_surface_and_space_are_known(tmp_path):
    (tmp_path / "surf").mkdir()
    table = pd.DataFrame({"fslr": ["7", "-1"], "vertex": ["3", "10300"]})
    space = layout_voxels.voxel_space(tmp_path, table, "a/b", layout.DEFAULTS)
    assert space.native is None and space.fslr.tolist() == [7, -1] and space.space == ""
    (tmp_path / "surf" / "rh.pial").write_bytes(b"no surface")
    space = layout_voxels.voxel_space(tmp_path, table, "a/b", layout.DEFAULTS)
    with pytest.raises(UserError, match=r"lh\.inflated is missing"):
        space.native()
