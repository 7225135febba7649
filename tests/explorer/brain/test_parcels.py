"""How parcels pass from vertices to voxels and back, and are painted and averaged."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from explorer.brain.atlas_files import load_atlas
from explorer.brain.atlases import desikan_killiany
from explorer.brain.parcels import Atlas, lay, paint, vertex_parcels, voxel_map
from explorer.types import FSAVERAGE5_VERTICES as N
from explorer.types import Label, Parcellation, UserError

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "parcellations_fsaverage5"
needs_data = pytest.mark.skipif(
    not DATA.exists(), reason="shared/data/parcellations_fsaverage5 is not next to the repository"
)
HALF = N // 2


def files(name):
    return [DATA / f"fsa5_{h}_{name}.annot" for h in ("lh", "rh")]


def keys_of(atlas):
    return [label.key for label in atlas.labels]


@pytest.fixture(scope="module")
def atlas():
    return desikan_killiany()


@pytest.fixture
def halves():
    """Return an atlas of two parcels a hemisphere, front and back, each last vertex blank."""
    vertices = np.tile(np.arange(HALF) // (HALF // 2), 2)
    vertices[HALF:] += 2
    vertices[[HALF - 1, N - 1]] = -1
    labels = tuple(Label(n, h) for h in "LR" for n in ("front", "back"))
    return Atlas("halves", labels, vertices)


def project(*pairs, voxels):
    """Return a projection from (vertex, voxel, weight)."""
    rows, columns, weights = zip(*pairs, strict=True)
    return sp.csr_matrix((weights, (rows, columns)), shape=(N, voxels), dtype=np.float32)


# ----------------------------------------------------------------------------- voxels and vertices


def test_an_atlas_off_its_mesh_or_labels():
    with pytest.raises(UserError, match=r"each of 20484 vertices, found shape \(5,\)"):
        Atlas("x", (Label("a"),), np.zeros(5, int))
    with pytest.raises(UserError, match="one index from -1 to 0 .* values up to 1"):
        Atlas("x", (Label("a"),), np.ones(N, int))
    for odd in (-2, 1):
        vertices = np.zeros(N, int)
        vertices[7] = odd
        with pytest.raises(UserError, match="one index from -1 to 0"):
            Atlas("x", (Label("a"),), vertices)
    with pytest.raises(UserError, match="Atlas 'x' names the parcel 'b L' twice; names must diff"):
        Atlas("x", (Label("a", "L"), Label("b", "L"), Label("b", "L")), np.zeros(N, int))


def test_vertex_data_take_the_label_of_their_vertex(atlas):
    sampled = np.arange(3, N, 7)
    ones = np.ones(len(sampled))
    columns = np.arange(len(sampled))
    projection = sp.csr_matrix((ones, (sampled, columns)), shape=(N, len(sampled)))
    laid = lay(atlas, projection, "hash")
    np.testing.assert_array_equal(laid.membership, atlas.vertices[sampled])
    assert laid.voxel_hash == "hash" and laid.kind == "partition" and laid.labels == atlas.labels
    np.testing.assert_array_equal(laid.surface, atlas.vertices)
    drawn = vertex_parcels(laid, projection)
    np.testing.assert_array_equal(drawn[sampled], atlas.vertices[sampled])
    assert (np.delete(drawn, sampled) == -1).all()


def test_a_voxel_of_a_volume_goes_where_most_of_its_weight_is(halves):
    back, wall = HALF // 2 + 5, HALF - 1
    projection = project(
        (0, 0, 0.4), (1, 0, 0.4), (back, 0, 0.6),  # 0.8 front against 0.6 back
        (0, 1, 0.2), (back, 1, 0.7),
        (0, 2, 0.3), (wall, 2, 0.6),  # mostly medial wall
        (0, 3, 0.5), (wall, 3, 0.5),  # a tie goes to the parcel
        (HALF, 4, -1.0),  # the size of a weight counts, as in resampling with lobes
        voxels=6,  # the last is nowhere on the surface
    )  # fmt: skip
    assert lay(halves, projection, "h").membership.tolist() == [0, 1, -1, 0, 2, -1]


def test_a_vertex_shows_the_parcel_with_most_weight_on_it(halves):
    laid = Parcellation("halves", "partition", halves.labels, np.array([0, 1, -1, 1]), "h")
    projection = project(
        (10, 0, 0.6), (10, 1, 0.5),
        (11, 0, 0.6), (11, 1, 0.4), (11, 3, 0.4),  # two voxels of one parcel join
        (12, 2, 0.9), (12, 0, 0.1),  # mostly unassigned
        voxels=4,
    )  # fmt: skip
    assert vertex_parcels(laid, projection)[9:14].tolist() == [-1, 0, 1, -1, -1]


def test_the_smallest_of_overlapping_masks_is_shown():
    member = np.array([[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)
    rois = Parcellation("rois", "masks", (Label("VC"), Label("FFA"), Label("none")), member, "h")
    projection = project(*[(v, v, 1.0) for v in range(4)], voxels=4)
    assert vertex_parcels(rois, projection)[:5].tolist() == [0, 1, 0, -1, -1]


def test_another_voxel_count_is_refused_with_both_numbers(halves):
    laid = Parcellation("halves", "partition", halves.labels, np.array([0, 1]), "h")
    with pytest.raises(UserError, match="covers 2 voxels, the projection 3"):
        vertex_parcels(laid, project((0, 0, 1.0), voxels=3))


# ---------------------------------------------------------------------------- ROIs without places


def rois_of(*labels):
    member = np.eye(len(labels), 6, dtype=bool)
    return Parcellation("ROIs", "masks", labels, member, "h")


def test_rois_are_painted_where_an_atlas_has_their_names():
    names = ("L_V1_ROI", "V2", "LOC", "front")
    vertices = np.tile(np.arange(HALF) % 5, 2)
    vertices[vertices == 4] = -1
    vertices[HALF:] += np.where(vertices[HALF:] >= 0, 4, 0)
    labels = [Label(n, "L") for n in names] + [Label(n.replace("L_", "R_"), "R") for n in names]
    atlas = Atlas("areas", tuple(labels), vertices)
    rois = rois_of(Label("V1"), Label("v2", "R"), Label("lh.LOC", "L"), Label("PPA"))
    painted = paint(rois, atlas)
    assert painted.name == "ROIs on areas"
    assert painted.labels == rois.labels and painted.membership is rois.membership
    assert painted.surface[:5].tolist() == [0, -1, 2, -1, -1]  # V1, LOC; V2 is the right one's
    assert painted.surface[HALF : HALF + 5].tolist() == [0, 1, -1, -1, -1]
    assert painted.note == (
        "Group location, not this subject's: ROIs are painted where the atlas areas has parcels "
        "of the same name. It has none for PPA."
    )


def test_rois_that_no_parcel_is_called_like(halves):
    with pytest.raises(
        UserError, match="None of the ROIs V1, FFA is called like a parcel of the "
    ):
        paint(rois_of(Label("V1"), Label("FFA", "L")), halves)
    six, seven = ([Label(f"area{i}") for i in range(n)] for n in (6, 7))
    with pytest.raises(UserError, match="ROIs area0, .*, area5 is called"):
        paint(rois_of(*six), halves)
    with pytest.raises(UserError, match="ROIs area0, .*, area5 and others is called"):
        paint(rois_of(*seven), halves)


@needs_data
def test_early_visual_rois_are_painted_on_glassers_areas():
    glasser = load_atlas("glasser", *files("glasser_360"))
    painted = paint(rois_of(Label("V1"), Label("V2", "L"), Label("LOC")), glasser)
    keys = keys_of(glasser)
    v1 = np.isin(glasser.vertices, [keys.index("V1 L"), keys.index("V1 R")])
    np.testing.assert_array_equal(painted.surface == 0, v1)
    np.testing.assert_array_equal(painted.surface == 1, glasser.vertices == keys.index("V2 L"))
    assert "none for LOC" in painted.note


# --------------------------------------------------------------------------------- maps of voxels


def test_a_map_is_averaged_over_the_known_voxels_of_each_parcel(halves):
    laid = Parcellation("halves", "partition", halves.labels, np.array([0, 0, 1, 1, -1]), "h")
    shown = voxel_map("r2", "variance", np.array([1.0, 3.0, 5.0, np.nan, 9.0]), laid)
    table = shown.table.set_index("parcel")
    assert list(table.index) == ["front L", "back L", "front R", "back R", "(unassigned)"]
    assert table["voxels"].tolist() == [2, 2, 0, 0, 1]
    assert table["known"].tolist() == [2, 1, 0, 0, 1]
    np.testing.assert_array_equal(table["mean"], [2, 5, np.nan, np.nan, 9])


@pytest.mark.parametrize(
    ("values", "kind", "limits"),
    [
        (np.arange(101.0), "sequential", (0, 99)),
        (-np.arange(101.0), "sequential", (-99, 0)),
        (np.arange(-50.0, 151.0), "diverging", (-148, 148)),
        (np.r_[np.arange(101.0), np.nan], "sequential", (0, 99)),
        (np.zeros(4), "sequential", (0, 1)),
        (np.full(3, np.nan), "sequential", (0, 1)),
        (np.array([True, False, True]), "sequential", (0, 1)),
    ],
)
def test_colours_begin_at_zero_or_are_symmetric_about_it(values, kind, limits):
    laid = Parcellation("a", "partition", (Label("a"),), np.zeros(len(values), int), "h")
    shown = voxel_map("x", "x", values, laid)
    assert (shown.kind, shown.limits) == (kind, pytest.approx(limits))


def test_parcels_are_a_map_without_values(halves):
    laid = Parcellation("halves", "partition", halves.labels, np.array([0, 1]), "h")
    shown = voxel_map("parcels", "parcels of halves", None, laid)
    assert shown.kind == "labels" and shown.values is None and "mean" not in shown.table
    assert shown.limits == (0, 1)
