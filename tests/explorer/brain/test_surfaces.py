"""The surface: nilearn as oracle, known anatomy for the views, and what a vertex shows."""

import socket

import numpy as np
import pytest
import scipy.sparse as sp

from explorer.brain.atlases import desikan_killiany
from explorer.brain.parcels import lay
from explorer.brain.surfaces import (
    HALF,
    SIDES,
    background,
    centred,
    drawn_parcels,
    layouts,
    surface_mesh,
)
from explorer.request import CAMERAS, SURFACES
from explorer.types import FSAVERAGE5_VERTICES, Label, Parcellation, UserError


@pytest.fixture(scope="module")
def atlas():
    return desikan_killiany()


def sampling(vertices):
    """Return the projection of one voxel at each of these vertices."""
    shape = (FSAVERAGE5_VERTICES, len(vertices))
    return sp.csr_matrix((np.ones(len(vertices)), (vertices, np.arange(len(vertices)))), shape)


@pytest.mark.parametrize("surface", SURFACES)
def test_meshes_are_those_of_nilearn_and_need_no_network(surface, monkeypatch):
    from nilearn.datasets import load_fsaverage, load_fsaverage_data

    def refuse(*args, **kwargs):
        raise AssertionError("a mesh was looked for on the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    ours = surface_mesh(surface)
    theirs = load_fsaverage("fsaverage5")[surface]
    sulc = load_fsaverage_data(mesh="fsaverage5", mesh_type="inflated", data_type="sulcal")
    for side in SIDES:
        np.testing.assert_array_equal(ours[side]["vertices"], theirs.parts[side].coordinates)
        np.testing.assert_array_equal(ours[side]["faces"], theirs.parts[side].faces)
        np.testing.assert_array_equal(ours[side]["sulc"], sulc.data.parts[side].ravel())
        assert ours[side]["vertices"].shape == (HALF, 3)


def test_a_surface_that_does_not_exist():
    with pytest.raises(UserError, match="surface is one of inflated, pial, flat, found 'sphere'"):
        surface_mesh("sphere")


# ------------------------------------------------------------------------------------------- views


def placed(surface, camera):
    """Return both hemispheres' vertices where the layout puts them."""
    mesh = surface_mesh(surface)
    layout = layouts(mesh, surface)[camera]
    return {
        side: centred(mesh[side]) @ np.array(layout[side]["rotation"]).T
        + [layout[side]["offset"], 0, 0]
        for side in SIDES
    }, layout


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("camera", CAMERAS)
def test_hemispheres_do_not_overlap_and_fit_their_extent(surface, camera):
    points, layout = placed(surface, camera)
    left, right = (points[side][:, 0] for side in SIDES)
    if surface != "flat" and camera in ("anterior", "ventral"):
        left, right = right, left  # seen from the front, left is on the right
    assert left.max() < right.min()
    both = np.concatenate(list(points.values()))
    for axis in range(3):
        assert np.abs(both[:, axis]).max() <= layout["extent"][axis] / 2 + 1e-3
    for side in SIDES:
        rotation = np.array(layout[side]["rotation"])
        np.testing.assert_array_equal(rotation @ rotation.T, np.eye(3))
        assert np.linalg.det(rotation) == pytest.approx(1)  # turned, never mirrored


@pytest.mark.parametrize(
    ("camera", "near", "far"),
    [
        ("lateral", "supramarginal", "precuneus"),
        ("medial", "precuneus", "supramarginal"),
        ("ventral", "fusiform", "superiorfrontal"),
        ("dorsal", "superiorparietal", "fusiform"),
        ("anterior", "frontalpole", "pericalcarine"),
        ("posterior", "lateraloccipital", "frontalpole"),
    ],
)
def test_views_show_what_anatomy_says(camera, near, far, atlas):
    points, _ = placed("pial", camera)
    keys = [label.key for label in atlas.labels]
    for side, letter, rows in zip(SIDES, "LR", (slice(0, HALF), slice(HALF, None)), strict=True):
        middles = {
            name: points[side][atlas.vertices[rows] == keys.index(f"{name} {letter}")].mean(axis=0)
            for name in ("frontalpole", "lateraloccipital", "precentral", "fusiform", near, far)
        }
        assert middles[near][1] < middles[far][1]  # smaller depth is nearer to the viewer
        if camera in ("lateral", "medial"):
            outward = -1 if side == "left" else 1  # the left hemisphere looks to the left
            outward *= 1 if camera == "lateral" else -1
            front = middles["frontalpole"][0] - middles["lateraloccipital"][0]
            assert np.sign(front) == outward
            assert middles["precentral"][2] > middles["fusiform"][2]  # up is up


def test_one_flat_view_whatever_the_camera():
    found = layouts(surface_mesh("flat"), "flat")
    assert all(found[camera] == found["lateral"] for camera in CAMERAS)
    points, _ = placed("flat", "lateral")
    assert all(np.ptp(points[side][:, 1]) == 0 for side in SIDES)


def test_flat_vertices_of_the_medial_wall_do_not_reach_out():
    part = surface_mesh("flat")["left"]
    used = np.unique(part["faces"])
    unused = np.setdiff1d(np.arange(HALF), used)
    assert len(unused) and (centred(part)[unused] == 0).all()


def test_background_is_grey_between_gyri_and_sulci():
    shades = background(np.array([-2.0, 0, 2.0]))
    assert shades.dtype == np.uint8
    assert shades[0] > shades[1] > shades[2] > 100


# ---------------------------------------------------------------------------- what a vertex shows


def test_parcels_with_voxels_are_drawn_whole_and_others_not_at_all(atlas):
    rng = np.random.default_rng(0)
    wanted = np.isin(atlas.vertices, np.unique(atlas.vertices)[1::3])
    vertices = np.flatnonzero(wanted & (rng.random(len(wanted)) < 0.1))
    projection = sampling(vertices)
    drawn = drawn_parcels(lay(atlas, projection, "h"), projection)
    np.testing.assert_array_equal(drawn, np.where(wanted, atlas.vertices, -1))


def test_a_single_voxel_on_the_medial_wall_draws_nothing(atlas):
    projection = sampling(np.flatnonzero(atlas.vertices < 0)[:1])
    assert (drawn_parcels(lay(atlas, projection, "h"), projection) == -1).all()


def test_without_an_atlas_on_the_surface_only_samples_are_shown(atlas):
    projection = sampling([5, 9])
    laid = lay(atlas, projection, "h")
    plain = Parcellation(laid.name, laid.kind, laid.labels, laid.membership, "h")
    assert np.flatnonzero(drawn_parcels(plain, projection) >= 0).tolist() == [5, 9]


def test_every_parcel_of_an_atlas_can_be_drawn():
    """The first and the last label too; vertices without a label show none of them."""
    surface = np.full(2 * HALF, -1)
    surface[:3], surface[10:14] = 0, 1
    labels, member = (Label("a"), Label("b")), np.array([1, 0, 1])
    atlas = Parcellation("x", "partition", labels, member, "h", surface)
    assert drawn_parcels(atlas, None)[:14].tolist() == surface[:14].tolist()
    only = Parcellation("x", "partition", labels, np.array([1, 1, -1]), "h", surface)
    assert drawn_parcels(only, None)[:14].tolist() == [-1] * 10 + [1] * 4


def test_hemispheres_lie_a_gap_apart():
    mesh = surface_mesh("pial")
    for camera in CAMERAS:
        entry = layouts(mesh, "pial")[camera]
        width = entry["single"][0]
        apart = abs(entry["right"]["offset"] - entry["left"]["offset"])
        assert apart == pytest.approx(1.06 * width)
        assert entry["extent"][0] == pytest.approx(2.06 * width)
