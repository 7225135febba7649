"""Payloads that decode to what went in, and maps that show each voxel where it is."""

import base64
import colorsys
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from explorer.brain.display import (
    COLOURS,
    TITLES,
    beyond,
    hidden,
    label_colours,
    map_payload,
    map_values,
    parcel_values,
    surface_payload,
    threshold_sentence,
    vertex_values,
)
from explorer.brain.parcels import voxel_map
from explorer.brain.surfaces import HALF, SIDES, centred, drawn_parcels, surface_mesh
from explorer.request import MEASURES
from explorer.types import FSAVERAGE5_VERTICES, Label, Parcellation, UserError, VoxelSpace


def decoded(entry):
    """Read an array as a browser does."""
    little = np.dtype(entry["dtype"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(entry["data"]), little).reshape(entry["shape"])


@pytest.mark.parametrize("surface", ["inflated", "flat"])
def test_surface_payload_decodes_to_what_went_in(surface, sampled):
    payload = json.loads(json.dumps(surface_payload(sampled.parcellation, sampled.space, surface)))
    assert payload["surface"] == surface and payload["atlas"] == "Desikan-Killiany"
    mesh = surface_mesh(surface)
    drawn = drawn_parcels(sampled.parcellation, sampled.space.projection)
    for side, rows in zip(SIDES, (slice(None, HALF), slice(HALF, None)), strict=True):
        part = payload[side]
        np.testing.assert_array_equal(decoded(part["vertices"]), centred(mesh[side]))
        np.testing.assert_array_equal(decoded(part["faces"]), mesh[side]["faces"])
        np.testing.assert_array_equal(decoded(part["parcel"]), drawn[rows])
        assert decoded(part["background"]).shape == (HALF,)
        assert part["vertices"]["dtype"] == "float32" and part["parcel"]["dtype"] == "int16"
    assert set(payload["layouts"]) >= {"lateral", "medial", "ventral", "posterior"}


def test_surface_payload_names_parcels_and_stays_small(sampled):
    payload = surface_payload(sampled.parcellation, sampled.space, "inflated")
    assert len(json.dumps(payload)) < 800_000
    parcels = payload["parcels"]
    assert [p["key"] for p in parcels] == [label.key for label in sampled.parcellation.labels]
    assert sum(p["voxels"] for p in parcels) == (sampled.parcellation.membership >= 0).sum()
    assert all(re.fullmatch("#[0-9a-f]{6}", p["colour"]) for p in parcels)
    for stops in payload["colours"].values():
        assert all(re.fullmatch("#[0-9a-f]{6}", stop) for stop in stops)
    assert payload["colours"]["diverging"][5] == "#f7f7f7" and len(COLOURS["diverging"]) == 11


def test_a_study_without_locations_has_no_surface(sampled):
    nowhere = VoxelSpace(sampled.space.n_voxels, "h")
    with pytest.raises(UserError, match="gives no voxel locations, so there is no surface"):
        surface_payload(replace(sampled.parcellation, surface=None), nowhere, "inflated")


@pytest.mark.parametrize("measure", MEASURES)
def test_parcel_values_are_tiny_and_in_the_order_of_the_payload(measure, sampled):
    told = json.loads(json.dumps(parcel_values(sampled.map, measure), allow_nan=False))
    assert len(json.dumps(told)) < 2000
    parcels = surface_payload(sampled.parcellation, sampled.space, "inflated")["parcels"]
    table = sampled.map.table.set_index("parcel")
    for parcel, value in zip(parcels, told["values"], strict=True):
        expected = table.loc[parcel["key"], measure]
        if parcel["voxels"]:
            assert value == pytest.approx(expected, rel=1e-3)
        else:
            assert value is None and np.isnan(expected)
    assert told["kind"] == ("diverging" if measure == "signed" else "sequential")
    assert told["limits"] == list(sampled.map.limits[measure])
    assert told["title"] == TITLES[measure]
    assert told["reference"] == (1.0 if measure == "enrichment" else None)
    small = [parcels[i]["key"] for i in told["small"]]
    assert small == [p["key"] for p in parcels if p["voxels"] < 10]


def test_parcel_values_of_a_flat_gradient_and_an_unknown_measure(sampled):
    flat = sampled.map_of(np.zeros(sampled.space.n_voxels))
    told = parcel_values(flat, "share")
    assert told["flat"] and set(told["values"]) == {None}
    with pytest.raises(UserError, match="measure is one of enrichment, .*, found 'size'"):
        parcel_values(sampled.map, "size")


def test_a_map_of_voxels_shows_each_where_it_is_and_reaches_a_little_further(sampled):
    """Every fourth vertex has a voxel: all of the cortex is within two vertices of one."""
    y = surface_mesh("pial")
    y = np.concatenate([y[side]["vertices"][:, 1] for side in SIDES])
    seen = np.arange(0, FSAVERAGE5_VERTICES, 4)
    values = y[seen].astype(float)
    values[5] = np.nan
    shown = voxel_map("y", "millimetres to the front", values, sampled.parcellation)
    found = vertex_values(shown, sampled.parcellation, sampled.space)
    rest = np.delete(np.arange(len(seen)), 5)
    np.testing.assert_allclose(found[seen[rest]], values[rest], rtol=1e-5)
    cortex = sampled.parcellation.surface >= 0
    assert np.isfinite(found[cortex]).mean() > 0.99
    near = cortex & np.isfinite(found)
    assert np.median(np.abs(found - y)[near]) < 1 and np.abs(found - y)[near].max() < 15
    unseen = np.setdiff1d(np.flatnonzero(~cortex), seen)
    assert np.isnan(found[unseen]).all()  # the medial wall stays blank
    payload = map_payload(shown, sampled.parcellation, sampled.space)
    np.testing.assert_array_equal(decoded(payload["left"]), found[:HALF])
    np.testing.assert_array_equal(decoded(payload["right"]), found[HALF:])


def test_far_from_any_voxel_nothing_is_shown(sampled):
    one = np.full(sampled.space.n_voxels, np.nan)
    one[100] = 2.0
    shown = voxel_map("x", "x", one, sampled.parcellation)
    found = vertex_values(shown, sampled.parcellation, sampled.space)
    assert 7 <= np.isfinite(found).sum() <= 19  # itself and two rings of at most six and twelve
    assert set(found[np.isfinite(found)]) == {2.0}


def test_a_voxel_reaches_two_rings_of_neighbours_and_each_shows_their_mean(sampled):
    """Against rings that are walked face by face; without an atlas nothing bounds them."""
    faces = surface_mesh("pial")["left"]["faces"]
    around = {}
    for face in faces.tolist():
        for a in face:
            around.setdefault(a, set()).update(set(face) - {a})
    plain = replace(sampled.parcellation, surface=None)
    values = np.full(sampled.space.n_voxels, np.nan)
    values[25], values[1200] = 2.0, 5.0  # of the vertices 100 and 4800
    shown = voxel_map("x", "x", values, sampled.parcellation)
    found = vertex_values(shown, plain, sampled.space)

    def walked(expected):
        for _ in range(2):
            near = {v for known in expected for v in around[known]} - set(expected)
            expected = expected | {
                v: np.mean([expected[n] for n in around[v] if n in expected]) for v in near
            }
        return expected

    def check(found, expected):
        assert set(np.flatnonzero(np.isfinite(found))) == set(expected)
        vertices = list(expected)
        np.testing.assert_allclose(found[vertices], [expected[v] for v in vertices], rtol=1e-5)

    check(found, walked({100: 2.0, 4800: 5.0}))
    # rings that meet show the mean of both, each neighbour counted once
    values[:1200:3] = np.random.default_rng(0).normal(size=400)
    many = walked({4 * i: values[i] for i in np.flatnonzero(np.isfinite(values)).tolist()})
    shown = voxel_map("x", "x", values, sampled.parcellation)
    check(vertex_values(shown, plain, sampled.space), many)
    # the first parcel of an atlas is filled like any other, and nothing beyond the atlas
    whole = replace(plain, surface=np.where(np.arange(FSAVERAGE5_VERTICES) < HALF, 0, -1))
    check(vertex_values(shown, whole, sampled.space), many)
    nowhere = replace(plain, surface=np.full(FSAVERAGE5_VERTICES, -1))
    bare = {4 * i: values[i] for i in np.flatnonzero(np.isfinite(values)).tolist()}
    check(vertex_values(shown, nowhere, sampled.space), bare)


def test_a_map_without_values_or_places_sends_no_vertices(sampled):
    labels = voxel_map("parcels", "x", None, sampled.parcellation)
    assert map_payload(labels, sampled.parcellation, sampled.space) is None
    values = voxel_map("x", "x", np.ones(sampled.space.n_voxels), sampled.parcellation)
    nowhere = VoxelSpace(sampled.space.n_voxels, "h")
    assert map_payload(values, replace(sampled.parcellation, surface=None), nowhere) is None
    assert set(map_payload(values, sampled.parcellation, nowhere)) == {"left", "right"}


def test_what_a_map_tells_is_the_mean_of_each_parcel(sampled):
    values = np.random.default_rng(1).normal(size=sampled.space.n_voxels)
    values[::7] = np.nan
    shown = voxel_map("x", "the title", values, sampled.parcellation)
    told = json.loads(json.dumps(map_values(shown), allow_nan=False))
    member = sampled.parcellation.membership
    expected = [np.nanmean(values[member == i]) for i in range(68)]
    assert told["values"] == pytest.approx(expected, rel=1e-3)
    assert (told["kind"], told["title"], told["measure"]) == ("diverging", "the title", "mean")
    low, high = told["limits"]
    assert low == -high and 2 < high < 3.5


def test_painted_rois_show_their_means_at_the_groups_places(painted):
    rois, space = painted
    shown = voxel_map("x", "x", np.arange(6.0), rois)
    found = vertex_values(shown, rois, space)
    assert set(found[:100]) == {1.5} and set(found[HALF : HALF + 50]) == {2.5}
    assert np.isfinite(found).sum() == 150
    payload = surface_payload(rois, space, "inflated")
    assert decoded(payload["left"]["parcel"])[:101].tolist() == [0] * 100 + [-1]


def test_labels_of_one_colour_are_told_apart(sampled):
    own = label_colours(sampled.parcellation)
    assert own[0] == "#{:02x}{:02x}{:02x}".format(*sampled.parcellation.labels[0].colour)
    labels = tuple(Label(name, side) for side in "LR" for name in ("V1", "V2", "LOC"))
    grey = Parcellation("rois", "partition", labels, np.zeros(3, int), "h")
    colours = label_colours(grey)
    assert colours[:3] == colours[3:] and len(set(colours)) == 3
    red_green_blue = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours[:3]]
    hue, light, vivid = np.transpose([colorsys.rgb_to_hls(*c) for c in red_green_blue])
    golden = 1 - 2 / (1 + 5**0.5)  # of a turn
    np.testing.assert_allclose(np.diff(hue) % 1, golden, atol=0.01)
    np.testing.assert_allclose(light, [0.48, 0.56, 0.64], atol=0.005)
    np.testing.assert_allclose(vivid, 0.55, atol=0.01)
    assert colours[0] == "#be3737"
    assert label_colours(replace(grey, labels=labels[:1])) == ["#808080"]
    assert len(set(label_colours(replace(grey, labels=labels[:2])))) == 2
    nothing = replace(grey, labels=(), membership=np.full(3, -1))
    assert label_colours(nothing) == []


# -------------------------------------------------------------------------- beyond the colour bar


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0.0, 0.5, 1.0], [False, False]),
        ([0.5, 1.0001], [False, True]),
        ([-0.5, 0.5, None, np.nan], [True, False]),
        ([-2, 2], [True, True]),
        ([None, np.nan], [False, False]),
        ([], [False, False]),
    ],
)
def test_what_lies_beyond_the_limits_of_colours(values, found):
    assert beyond(values, (0, 1)) == found


def test_a_parcel_that_is_coloured_like_a_smaller_one_is_told(sampled):
    limits = {**sampled.map.limits, "enrichment": (0, 1.77), "signed": (-1, 1)}
    table = sampled.map.table.assign(enrichment=1.0, signed=0.5)
    shown = SimpleNamespace(table=table, limits=limits, flat=False)
    assert parcel_values(shown, "enrichment")["beyond"] == [False, False]
    assert parcel_values(shown, "signed")["beyond"] == [False, False]
    table.loc[3, ["enrichment", "signed"]] = 2.32, -1.5
    assert parcel_values(shown, "enrichment")["beyond"] == [False, True]
    assert parcel_values(shown, "signed")["beyond"] == [True, False]
    table.loc[3, "small"] = True  # grey, so it has no colour
    assert parcel_values(shown, "enrichment")["beyond"] == [False, False]


def test_a_map_of_voxels_tells_of_voxels_beyond_its_colours(sampled):
    values = np.ones(sampled.space.n_voxels)
    shown = voxel_map("x", "x", values, sampled.parcellation)
    assert map_values(shown)["beyond"] == [False, False]
    values[:3] = 9  # fewer than one in a hundred, and no parcel's mean
    shown = voxel_map("x", "x", values, sampled.parcellation)
    assert map_values(shown)["beyond"] == [False, True]
    assert map_values(voxel_map("parcels", "x", None, sampled.parcellation))["beyond"] == [0, 0]


def test_a_threshold_hides_what_lies_nearer_to_zero_of_both_signs():
    values = [0.5, -0.5, 2.0, -2.0, None, np.nan, 1.0]
    assert hidden(values, 1.0).tolist() == [True, True, False, False, False, False, False]
    assert threshold_sentence(values, 1.0, "parcels") == (
        "not coloured between \N{MINUS SIGN}1 and 1: 2 of 5 parcels"
    )
    assert threshold_sentence([1, 3], 2.0, "voxels") == "not coloured below 2: 1 of 2 voxels"
    assert not hidden(values, 0.0).any() and threshold_sentence(values, 0.0, "parcels") == ""
