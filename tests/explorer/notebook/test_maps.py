"""Maps for nilearn: a parcel's vertices hold the parcel's number, a voxel's vertex the voxel's."""

from __future__ import annotations

import numpy as np
import pytest

from explorer.brain.parcels import voxel_map
from explorer.brain.snapshot import snapshot, vertex_colours
from explorer.brain.surfaces import HALF, SIDES, drawn_parcels, surface_mesh
from explorer.notebook.maps import BrainMap, of_shown
from explorer.types import UserError, VoxelSpace


@pytest.fixture
def weighed(sampled):
    shown = sampled.map
    shown.voxels = np.arange(sampled.space.n_voxels, dtype=np.float32)
    shown.method, shown.target, shown.completeness = "gradient", "retrieval margin", None
    return of_shown(shown, "enrichment", sampled.parcellation, sampled.space)


def test_a_surface_image_has_the_parcels_numbers_where_the_parcels_are(weighed, sampled):
    image = weighed.surface("signed")
    table = weighed.table.set_index("parcel")
    drawn = drawn_parcels(sampled.parcellation, sampled.space.projection)
    assert set(image.data.parts) == set(SIDES) and image.shape[0] == 2 * HALF
    for side, rows in (("left", slice(None, HALF)), ("right", slice(HALF, None))):
        values = np.ravel(image.data.parts[side])
        for index in np.unique(drawn[rows]):
            here = values[drawn[rows] == index]
            if index < 0:
                assert np.isnan(here).all()
            else:
                key = sampled.parcellation.labels[index].key
                assert np.allclose(here, table.loc[key, "signed"])
        mesh = image.mesh.parts[side]
        assert np.array_equal(mesh.coordinates, surface_mesh("pial")[side]["vertices"])
    flat = weighed.surface(mesh="flat").mesh.parts["left"]
    assert np.array_equal(flat.faces, surface_mesh("flat")["left"]["faces"])


def test_voxels_are_seen_at_the_vertices_that_they_lie_on(weighed):
    seen = weighed.vertices("voxels")
    assert np.allclose(seen[::4], weighed.voxels)


def test_nilearn_draws_what_is_given(weighed):
    from matplotlib import pyplot as plt
    from nilearn.plotting import plot_surf

    drawn = plot_surf(surf_map=weighed.surface(), hemi="left", engine="matplotlib")
    plt.close(drawn)
    means = weighed.surface("share").data.parts["left"]
    assert np.nanmax(means) <= 1


def test_what_cannot_be_drawn_is_said(weighed, sampled):
    with pytest.raises(UserError, match="no column 'x' to draw; choose one of enrichment, share"):
        weighed.surface("x")
    with pytest.raises(UserError, match="no place in a volume; use surface"):
        weighed.volume()
    parcels = voxel_map("parcels", "parcels of dk", None, sampled.parcellation)
    of_parcels = of_shown(parcels, "enrichment", sampled.parcellation, sampled.space)
    with pytest.raises(UserError, match="is of parcels, not of voxels"):
        of_parcels.surface("voxels")
    assert np.nanmax(of_parcels.vertices()) == len(sampled.parcellation.labels) - 1
    assert "data:image" in of_parcels._repr_html_()


def test_a_volume_has_each_voxel_at_its_place(sampled):
    mask = np.zeros((3, 4, 2), bool)
    mask[1, 2, 0] = mask[2, 0, 1] = True
    space = VoxelSpace(2, "v", mask=mask, affine=np.diag([2.0, 2, 2, 1]))
    nowhere = type(sampled.parcellation)("none", "partition", (), np.full(2, -1), "v")
    shown = voxel_map("ncsnr", "ncsnr", np.array([0.5, 0.25]), nowhere)
    found = of_shown(shown, "enrichment", nowhere, space)
    values = found.volume().get_fdata()
    assert values[1, 2, 0] == 0.5 and values[2, 0, 1] == 0.25
    assert np.isnan(values).sum() == mask.size - 2
    assert found.volume().affine[0, 0] == 2
    assert "<img" not in found._repr_html_()  # there is no surface, and the table is there
    with pytest.raises(UserError, match="no voxel locations, so there is no surface"):
        found.surface()


def test_the_largest_come_first_and_small_parcels_do_not(weighed):
    weighed.table.loc[0, ["signed", "small"]] = [99.0, True]
    found = BrainMap(
        *("t", weighed.table, "signed", weighed.columns, None),
        *(weighed.parcellation, weighed.space),
    )
    sizes = found.top["signed"].abs()
    assert sizes.is_monotonic_decreasing and sizes.iloc[0] < 99


def test_colours_lie_between_the_stops_and_unknown_ones_show_the_folding():
    values = np.array([0.0, 2.0, 9.0, np.nan])
    colours = vertex_colours(values, "sequential", (0, 2))
    assert np.array_equal(colours[:3], [[255, 255, 204], [128, 0, 38], [128, 0, 38]])
    assert np.isnan(colours[3]).all()
    labels = vertex_colours(np.array([1.0, np.nan]), "labels", (), ["#000000", "#0a0b0c"])
    assert np.array_equal(labels[0], [10, 11, 12])


def test_a_snapshot_shows_each_hemisphere_on_its_side():
    colours = np.full((2 * HALF, 3), np.nan)
    colours[:HALF] = 255, 0, 0
    picture = snapshot(colours, ("dorsal",), height=60).astype(int)
    red = picture[..., 0] - picture[..., 1] > 60
    middle = picture.shape[1] // 2
    assert red[:, :middle].mean() > 0.4 and not red[:, middle + 2 :].any()
    below = snapshot(colours, ("ventral",), height=60).astype(int)  # seen from below: swapped
    assert (below[..., 0] - below[..., 1] > 60)[:, below.shape[1] // 2 + 2 :].any()
