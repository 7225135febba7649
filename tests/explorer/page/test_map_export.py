"""The map of a view as a file: its name, what is in it, and what it says of itself."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from explorer.brain.maps import parcel_importance, parcellation_of
from explorer.brain.surfaces import HALF, drawn_parcels
from explorer.page import brain, export, map_export
from explorer.page.api_map_file import MapFiles
from explorer.request import Request, View
from explorer.types import UserError

SHOWN = Request("fake", "sub-01", "test-04", "linear", "painter", steps=4)
LINK = "data=fake&subject=sub-01&trial=test-04&mapper=linear&measure=share"


def half(file: export.File) -> tuple[np.ndarray, dict[str, str]]:
    image = nib.GiftiImage.from_bytes(file.content)
    (array,) = image.darrays
    return array.data, dict(image.meta)


def test_parcels_are_spread_over_their_own_vertices(workbench: Any) -> None:
    view = View(measure="share", threshold=0.5)  # which only the drawing follows
    found = parcel_importance(workbench, SHOWN, view)
    parcellation = parcellation_of(workbench, "fake", "sub-01")
    space = workbench.catalogue.trials("fake", "sub-01").subject.voxels
    drawn = drawn_parcels(parcellation, space.projection)
    row = int(np.flatnonzero(~found.table["small"][:-1] & (found.table["share"][:-1] > 0))[0])
    for i, side in enumerate(("left", "right")):
        file = export.make(workbench, SHOWN, view, f"{side}.func.gii")
        letter = "LR"[i]
        assert file.name == (
            f"afterimage_fake_sub-01_test-04_linear_share_space-fsaverage5_hemi-{letter}.func.gii"
        )
        data, told = half(file)
        own = drawn[i * HALF : (i + 1) * HALF] == row
        expected = np.float32(found.table["share"][row])
        assert (data[own] == expected).all()
        side_of_row = found.table["hemisphere"][row]
        assert own.any() == (side_of_row == letter)
        assert told["Units"] == "fraction" and told["Mapper"] == "linear"
        assert told["Description"].startswith("Importance is for this decoder, not for the brain.")
        small = np.flatnonzero(found.table["small"][:-1])
        assert np.isnan(data[np.isin(drawn[i * HALF : (i + 1) * HALF], small)]).all()


def test_each_voxel_has_its_own_importance(workbench: Any) -> None:
    found = parcel_importance(workbench, SHOWN, View())
    projection = workbench.catalogue.trials("fake", "sub-01").subject.voxels.projection
    vertex = int(np.flatnonzero(projection.getnnz(axis=1))[0])
    weights = np.asarray(projection[vertex].todense()).ravel()
    side = "left" if vertex < HALF else "right"
    file = export.make(workbench, SHOWN, View(), f"voxels.{side}.func.gii")
    assert "_linear_voxel-importance_space-fsaverage5_hemi-" in file.name
    data, told = half(file)
    expected = weights @ found.voxels / weights.sum()
    assert data[vertex % HALF] == pytest.approx(expected, rel=1e-5)
    both = projection.getnnz(axis=1)[:HALF] if side == "left" else projection.getnnz(axis=1)[HALF:]
    assert np.isfinite(data).sum() == (both > 0).sum()  # nothing is filled in between
    assert told["Units"] == map_export.PER_VOXEL


def test_another_map_names_no_mapper_and_parcels_are_no_map(workbench: Any) -> None:
    view = View(shows="noise ceiling")
    file = export.make(workbench, SHOWN, view, "dscalar.nii")
    name = "afterimage_fake_sub-01_test-04_noise-ceiling_space-fsaverage5.dscalar.nii"
    assert file.name == name
    image = nib.Cifti2Image.from_bytes(file.content)
    assert image.shape == (1, 2 * HALF)
    assert image.header.get_axis(0).meta[0]["Units"] == "% of variance"
    with pytest.raises(UserError, match="The parcels are labels and no map of values"):
        export.make(workbench, SHOWN, replace(view, shows="parcels"), "dscalar.nii")
    with pytest.raises(UserError, match=r"gives no volume for its \d+ voxels; save left\.func"):
        export.make(workbench, SHOWN, view, "nii.gz")
    offered = brain.frame(SHOWN, view, workbench, "plotly.js")["files"]
    assert [form for form, _ in offered] == ["left.func.gii", "right.func.gii", "dscalar.nii"]


def test_the_endpoint_gives_the_file_of_a_link(workbench: Any) -> None:
    ask = MapFiles(workbench)
    answer = ask.map_file(f"?{LINK}", "right.func.gii")
    head, _, data = answer["file"].partition(",")
    assert head == "data:application/xml;base64" and answer["name"].endswith("hemi-R.func.gii")
    own = export.make(workbench, SHOWN, View(measure="share"), "right.func.gii")
    np.testing.assert_array_equal(
        half(export.File("", "", base64.b64decode(data)))[0], half(own)[0]
    )
    with pytest.raises(Exception, match=r"A map is saved as left\.func\.gii, .*found “jpeg”"):
        ask.map_file(LINK, "jpeg")
