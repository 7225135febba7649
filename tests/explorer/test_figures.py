"""Payloads that decode to what went in, and figures that hold what they should."""

import base64
import json
import re
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from PIL import Image

from explorer.brain.atlases import desikan_killiany
from explorer.brain.importance import per_parcel
from explorer.brain.parcels import lay, voxel_map
from explorer.brain.surfaces import HALF, SIDES, centred, drawn_parcels, surface_mesh
from explorer.figures import (
    COLOURS,
    TITLES,
    installed_versions,
    label_colours,
    map_payload,
    map_values,
    parcel_values,
    provenance_line,
    save_figure,
    surface_payload,
    trial_figure,
    vertex_values,
)
from explorer.request import MEASURES, Request
from explorer.types import FSAVERAGE5_VERTICES, Label, Parcellation, UserError, VoxelSpace

ALARM = "three <b>red</b> cars costing $5 or ${x}$_^"


@pytest.fixture(scope="module")
def study():
    """Return a voxel space that samples every fourth vertex, its atlas, and one trial's map."""
    atlas = desikan_killiany()
    vertices = np.arange(0, FSAVERAGE5_VERTICES, 4)
    columns = np.arange(len(vertices))
    shape = (FSAVERAGE5_VERTICES, len(vertices))
    projection = sp.csr_matrix((np.ones(len(vertices)), (vertices, columns)), shape)
    parcellation = lay(atlas, projection, "h")
    space = VoxelSpace(len(vertices), "h", projection, parcellations={"dk": parcellation})
    values = np.random.default_rng(0).normal(size=len(vertices))
    return SimpleNamespace(
        parcellation=parcellation, space=space, map=make_map(values, parcellation)
    )


def make_map(values, parcellation):
    limits = {"enrichment": (0, 2), "share": (0, 0.1), "mean": (0, 2), "signed": (-30, 30)}
    table = per_parcel(values, parcellation)
    return SimpleNamespace(table=table, limits=limits, flat=not values.any())


def decoded(entry):
    """Read an array as a browser does."""
    little = np.dtype(entry["dtype"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(entry["data"]), little).reshape(entry["shape"])


# ---------------------------------------------------------------------------------------- payloads


@pytest.mark.parametrize("surface", ["inflated", "flat"])
def test_surface_payload_decodes_to_what_went_in(surface, study):
    payload = json.loads(json.dumps(surface_payload(study.parcellation, study.space, surface)))
    assert payload["surface"] == surface and payload["atlas"] == "Desikan-Killiany"
    mesh = surface_mesh(surface)
    drawn = drawn_parcels(study.parcellation, study.space.projection)
    for side, rows in zip(SIDES, (slice(None, HALF), slice(HALF, None)), strict=True):
        part = payload[side]
        np.testing.assert_array_equal(decoded(part["vertices"]), centred(mesh[side]))
        np.testing.assert_array_equal(decoded(part["faces"]), mesh[side]["faces"])
        np.testing.assert_array_equal(decoded(part["parcel"]), drawn[rows])
        assert decoded(part["background"]).shape == (HALF,)
        assert part["vertices"]["dtype"] == "float32" and part["parcel"]["dtype"] == "int16"
    assert set(payload["layouts"]) >= {"lateral", "medial", "ventral", "posterior"}


def test_surface_payload_names_parcels_and_stays_small(study):
    payload = surface_payload(study.parcellation, study.space, "inflated")
    assert len(json.dumps(payload)) < 800_000
    parcels = payload["parcels"]
    assert [p["key"] for p in parcels] == [label.key for label in study.parcellation.labels]
    assert sum(p["voxels"] for p in parcels) == (study.parcellation.membership >= 0).sum()
    assert all(re.fullmatch("#[0-9a-f]{6}", p["colour"]) for p in parcels)
    for stops in payload["colours"].values():
        assert all(re.fullmatch("#[0-9a-f]{6}", stop) for stop in stops)
    assert payload["colours"]["diverging"][5] == "#f7f7f7" and len(COLOURS["diverging"]) == 11


def test_a_study_without_locations_has_no_surface(study):
    nowhere = VoxelSpace(study.space.n_voxels, "h")
    with pytest.raises(UserError, match="gives no voxel locations, so there is no surface"):
        surface_payload(replace(study.parcellation, surface=None), nowhere, "inflated")


@pytest.mark.parametrize("measure", MEASURES)
def test_parcel_values_are_tiny_and_in_the_order_of_the_payload(measure, study):
    told = json.loads(json.dumps(parcel_values(study.map, measure), allow_nan=False))
    assert len(json.dumps(told)) < 2000
    parcels = surface_payload(study.parcellation, study.space, "inflated")["parcels"]
    table = study.map.table.set_index("parcel")
    for parcel, value in zip(parcels, told["values"], strict=True):
        expected = table.loc[parcel["key"], measure]
        if parcel["voxels"]:
            assert value == pytest.approx(expected, rel=1e-3)
        else:
            assert value is None and np.isnan(expected)
    assert told["kind"] == ("diverging" if measure == "signed" else "sequential")
    assert told["limits"] == list(study.map.limits[measure])
    assert told["title"] == TITLES[measure]
    assert told["reference"] == (1.0 if measure == "enrichment" else None)
    small = [parcels[i]["key"] for i in told["small"]]
    assert small == [p["key"] for p in parcels if p["voxels"] < 10]


def test_parcel_values_of_a_flat_gradient_and_an_unknown_measure(study):
    flat = make_map(np.zeros(study.space.n_voxels), study.parcellation)
    told = parcel_values(flat, "share")
    assert told["flat"] and set(told["values"]) == {None}
    with pytest.raises(UserError, match="measure is one of enrichment, .*, found 'size'"):
        parcel_values(study.map, "size")


def test_a_map_of_voxels_shows_each_where_it_is_and_reaches_a_little_further(study):
    """Every fourth vertex has a voxel: all of the cortex is within two vertices of one."""
    y = surface_mesh("pial")
    y = np.concatenate([y[side]["vertices"][:, 1] for side in SIDES])
    seen = np.arange(0, FSAVERAGE5_VERTICES, 4)
    values = y[seen].astype(float)
    values[5] = np.nan
    shown = voxel_map("y", "millimetres to the front", values, study.parcellation)
    found = vertex_values(shown, study.parcellation, study.space)
    rest = np.delete(np.arange(len(seen)), 5)
    np.testing.assert_allclose(found[seen[rest]], values[rest], rtol=1e-5)
    cortex = study.parcellation.surface >= 0
    assert np.isfinite(found[cortex]).mean() > 0.99
    near = cortex & np.isfinite(found)
    assert np.median(np.abs(found - y)[near]) < 1 and np.abs(found - y)[near].max() < 15
    unseen = np.setdiff1d(np.flatnonzero(~cortex), seen)
    assert np.isnan(found[unseen]).all()  # the medial wall stays blank
    payload = map_payload(shown, study.parcellation, study.space)
    np.testing.assert_array_equal(decoded(payload["left"]), found[:HALF])
    np.testing.assert_array_equal(decoded(payload["right"]), found[HALF:])


def test_far_from_any_voxel_nothing_is_shown(study):
    one = np.full(study.space.n_voxels, np.nan)
    one[100] = 2.0
    shown = voxel_map("x", "x", one, study.parcellation)
    found = vertex_values(shown, study.parcellation, study.space)
    assert 7 <= np.isfinite(found).sum() <= 19  # itself and two rings of at most six and twelve
    assert set(found[np.isfinite(found)]) == {2.0}


def test_what_a_map_tells_is_the_mean_of_each_parcel(study):
    values = np.random.default_rng(1).normal(size=study.space.n_voxels)
    values[::7] = np.nan
    shown = voxel_map("x", "the title", values, study.parcellation)
    told = json.loads(json.dumps(map_values(shown), allow_nan=False))
    member = study.parcellation.membership
    expected = [np.nanmean(values[member == i]) for i in range(68)]
    assert told["values"] == pytest.approx(expected, rel=1e-3)
    assert (told["kind"], told["title"], told["measure"]) == ("diverging", "the title", "mean")
    low, high = told["limits"]
    assert low == -high and 2 < high < 3.5


@pytest.fixture
def painted():
    """Return two ROIs without places that an atlas paints, and the voxel space they are of."""
    surface = np.full(FSAVERAGE5_VERTICES, -1)
    surface[:100], surface[HALF : HALF + 50] = 0, 1
    member = np.arange(6) < np.array([[4], [6]])
    labels = (Label("V1"), Label("LOC"))
    rois = Parcellation("ROIs on a", "masks", labels, member, "h", surface, "Group location, not.")
    return rois, VoxelSpace(6, "h", parcellations={"ROIs on a": rois})


def test_painted_rois_show_their_means_at_the_groups_places(painted):
    rois, space = painted
    shown = voxel_map("x", "x", np.arange(6.0), rois)
    found = vertex_values(shown, rois, space)
    assert set(found[:100]) == {1.5} and set(found[HALF : HALF + 50]) == {2.5}
    assert np.isfinite(found).sum() == 150
    payload = surface_payload(rois, space, "inflated")
    assert decoded(payload["left"]["parcel"])[:101].tolist() == [0] * 100 + [-1]
    figure = draw(parcel_map=shown, parcellation=rois, voxel_space=space)
    assert len(surfaces(figure)) == 8
    assert any("Group location, not." in said for said in words(figure))


def test_labels_of_one_colour_are_told_apart(study):
    own = label_colours(study.parcellation)
    assert own[0] == "#{:02x}{:02x}{:02x}".format(*study.parcellation.labels[0].colour)
    labels = tuple(Label(name, side) for side in "LR" for name in ("V1", "V2", "LOC"))
    grey = Parcellation("rois", "partition", labels, np.zeros(3, int), "h")
    colours = label_colours(grey)
    assert colours[:3] == colours[3:] and len(set(colours)) == 3
    assert label_colours(replace(grey, labels=labels[:1])) == ["#808080"]


# ---------------------------------------------------------------------------------------- figures


REQUEST = Request("simulated", "sub-01", "test-0012", "ridge", "pocket-diffusion", seed=7)


def frame(index, scale, done=True, row=0):
    image = np.full((16, 16, 3), 10 * index, dtype=np.uint8)
    scores = {"PixCorr": 0.125, "SSIM": -0.5, "pocket-clip": 0.75} if done else {}
    place = {"index": index, "row": row, "scale": scale}
    return SimpleNamespace(**place, image=image, done=done, scores=scores)


def draw(study=None, scales=(0, 1, 2.5), **changes):
    frames = [frame(i, s) for i, s in enumerate(scales)]
    truth = np.full((16, 16, 3), 255, dtype=np.uint8)
    kwargs = {"caption": ALARM, "decoding": SimpleNamespace(rank=3, n=300)}
    if study is not None:
        kwargs["parcel_map"] = study.map
        kwargs |= {"parcellation": study.parcellation, "voxel_space": study.space}
    return trial_figure(truth, frames, "Simulated data: foot", **{**kwargs, **changes})


def words(figure):
    return [t.get_text() for t in figure.texts]


def surfaces(figure):
    return [axes for axes in figure.axes if axes.name == "3d"]


def test_provenance_says_what_makes_it_again():
    line = provenance_line(
        REQUEST, dataset="Scenes", simulated=True, averaged=3,
        checkpoints={"ridge": "0123456789abcdef"}, versions={"torch": "2.15"},
    )  # fmt: skip
    assert line == (
        "Simulated data: Scenes, sub-01, stimulus test-0012, mean of 3 trials. Mapper ridge, "
        "generator pocket-diffusion, 20 steps, seed 7. Checkpoints: ridge 01234567. "
        "Made with Afterimage (torch 2.15)."
    )
    one = Request("d", "s", "t", "m", "g", repeats=(1,), options=(("eta", 0.5),))
    line = provenance_line(one, dataset="D", simulated=False, averaged=1, checkpoints={})
    assert line.startswith("Data: D, s, stimulus t, repeat 2. ") and "seed 0, eta 0.5." in line
    guided = replace(one, rois=("V1 L", "FFA"))
    line = provenance_line(guided, dataset="D", simulated=False, averaged=1, checkpoints={})
    assert "eta 0.5, betas of V1 L and FFA." in line
    for axis, told in (("seed", "20 steps, seeds 4, 2."), ("eta", "seed 0, eta 4, 2.")):
        rows = replace(one, options=(), axis=axis, values=(4, 2))
        line = provenance_line(rows, dataset="D", simulated=False, averaged=1, checkpoints={})
        assert told in line
    assert f"torch {installed_versions()['torch']}" in line and "Checkpoints" not in line


def test_a_figure_holds_truth_sweep_brain_and_foot(study):
    figure = draw(study)
    said = words(figure)
    assert {"ground truth", "scale 0", "scale 1", "scale 2.5", ALARM} <= set(said)
    assert "generated\nPixCorr 0.12\nSSIM -0.50\npocket-clip 0.75" in said
    assert "retrieval rank 3 of 300 (chance 150.5)" in said
    assert "Simulated data: foot" in said
    pictures = [axes for axes in figure.axes if axes.images]
    shown = [axes.images[0].get_array()[0, 0, 0] for axes in pictures]
    assert shown == [255, 0, 10, 20]
    assert len(surfaces(figure)) == 8  # four views of two hemispheres
    bars = [axes for axes in figure.axes if axes.get_xlabel() == TITLES["enrichment"]]
    assert len(bars) == 1 and bars[0].get_xlim() == (0, 2)


def test_colours_on_the_brain_are_those_of_the_colour_bar(study):
    """One parcel alone has a value at the top of the limits: only its faces have that colour."""
    values = np.zeros(study.space.n_voxels)
    index = [label.key for label in study.parcellation.labels].index("pericalcarine L")
    values[study.parcellation.membership == index] = 1
    single = make_map(values, study.parcellation)
    single.limits["share"] = (0, 1)
    figure = draw(study, parcel_map=single, measure="share")
    top, low = [tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in
                (COLOURS["sequential"][-1], COLOURS["sequential"][0])]  # fmt: skip
    counts = []
    for axes in surfaces(figure):
        colours = np.round(axes.collections[0].get_facecolor()[:, :3] * 255)
        counts.append([int((np.abs(colours - c).max(axis=1) <= 1).sum()) for c in (top, low)])
    left, right = counts[:4], counts[4:]
    assert all(on > 50 and off > 1000 for on, off in left)
    assert all(on == 0 and off > 1000 for on, off in right)


def test_unfinished_frames_are_left_out_and_order_is_that_of_the_scales():
    truth = np.zeros((16, 16, 3), np.uint8)
    frames = [frame(2, 8), frame(0, 1), frame(1, 4, done=False)]
    said = [w for w in words(trial_figure(truth, frames, "foot")) if w.startswith("scale")]
    assert said == ["scale 1", "scale 8"]


def test_rows_of_a_sweep_stand_below_each_other():
    truth = np.zeros((16, 16, 3), np.uint8)
    frames = [frame(i, s, row=row) for row in range(3) for i, s in enumerate((1, 2))]
    rows = ["seed 0", "seed 1", "seed 2"]
    figure = trial_figure(truth, frames[:-1], "foot", rows=rows)
    heights = {t.get_text(): t.get_position()[1] for t in figure.texts}
    assert heights["seed 0"] > heights["seed 1"] > heights["seed 2"]
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == 6  # the truth, two rows of two, and a row that was stopped
    levels = [round(box.y0, 4) for box in boxes]
    assert levels[1] == levels[2] > levels[3] == levels[4] > levels[5]
    assert boxes[1].x0 == boxes[3].x0 == boxes[5].x0 < boxes[2].x0
    assert any(t.startswith("generated\nPixCorr") for t in words(figure))


def test_an_unguided_generator_has_no_scale():
    said = words(draw(scales=(1,), guided=False))
    assert "reconstruction" in said and "scale 1" not in said


@pytest.mark.parametrize("count", [0, 1, 5, 16])
def test_any_number_of_scales_fits_on_the_page(count):
    figure = draw(scales=tuple(range(count)))
    for axes in figure.axes:
        box = axes.get_position()
        assert box.x0 > 0 and box.y0 > 0 and box.x1 < 1 and box.y1 < 1
    pictures = [axes.get_position() for axes in figure.axes if axes.images]
    assert len(pictures) == count + 1
    for i, a in enumerate(pictures):
        assert not any(a.overlaps(b) for b in pictures[:i])


def test_without_locations_the_highest_parcels_are_bars(study):
    nowhere = VoxelSpace(study.space.n_voxels, "h")
    rois = replace(study.parcellation, surface=None)
    figure = draw(study, voxel_space=nowhere, parcellation=rois)
    (bars,) = [axes for axes in figure.axes if axes.patches and not axes.images]
    table = study.map.table[~study.map.table["small"]].iloc[:-1]
    expected = table.sort_values("enrichment", ascending=False)["parcel"].head(10).tolist()
    assert [label.get_text() for label in bars.get_yticklabels()][::-1] == expected
    assert bars.get_xlabel() == TITLES["enrichment"] and not surfaces(figure)


def test_a_figure_of_a_map_has_its_own_bar_and_colours(study):
    values = np.linspace(0, 10, study.space.n_voxels)
    shown = voxel_map("ncsnr", "reliability", values, study.parcellation)
    figure = draw(study, parcel_map=shown, surface="flat")
    (bar,) = [axes for axes in figure.axes if axes.get_xlabel() == "reliability"]
    assert bar.get_xlim() == pytest.approx((0, 9.9), rel=1e-3)
    assert "grey: no voxels" in words(figure)
    left, right = (axes.collections[0].get_facecolor()[:, :3] for axes in surfaces(figure))
    assert np.median(left, axis=0)[1] > np.median(right, axis=0)[1]  # low is light, high is dark
    rois = replace(study.parcellation, surface=None)
    bars = draw(parcel_map=shown, parcellation=rois, voxel_space=VoxelSpace(5121, "h"))
    (axes,) = [axes for axes in bars.axes if axes.patches and not axes.images]
    assert axes.get_xlabel() == "reliability" and axes.get_yticklabels()[-1].get_text()[-1] == "R"


def test_a_figure_of_parcels_has_the_atlas_colours_and_no_bar(study):
    shown = voxel_map("parcels", "parcels of dk", None, study.parcellation)
    figure = draw(study, parcel_map=shown)
    assert "parcels of dk" in words(figure) and len(surfaces(figure)) == 8
    assert not any(axes.get_xlabel() for axes in figure.axes)
    index = [label.key for label in study.parcellation.labels].index("lateraloccipital L")
    colour = np.array(study.parcellation.labels[index].colour) / 255
    lateral = surfaces(figure)[0].collections[0].get_facecolor()[:, :3]
    assert (np.abs(lateral - colour).max(axis=1) < 0.01).sum() > 200


def test_without_parcels_there_are_pictures_only(study):
    nothing = SimpleNamespace(table=study.map.table.tail(1), limits=study.map.limits, flat=False)
    figure = draw(parcel_map=nothing)
    assert len(figure.axes) == 4 and all(axes.images for axes in figure.axes)


def test_a_flat_gradient_is_said_and_drawn_grey(study):
    flat = make_map(np.zeros(study.space.n_voxels), study.parcellation)
    figure = draw(study, parcel_map=flat, surface="flat")
    assert "the gradient is zero for every voxel: nothing to map" in words(figure)
    assert len(surfaces(figure)) == 2
    for axes in surfaces(figure):
        colours = axes.collections[0].get_facecolor()[:, :3]
        assert np.ptp(colours, axis=1).max() < 1e-6


# ------------------------------------------------------------------------------------------ saving


def test_files_of_each_format(study, tmp_path):
    figure = draw(study, surface="flat")
    png = save_figure(figure, tmp_path / "a.png")
    with Image.open(png) as image:
        assert image.width == 2160 and image.info["Description"] == "Simulated data: foot"
    svg = save_figure(figure, tmp_path / "a.svg").read_text()
    assert "retrieval rank 3 of 300" in svg and "<text" in svg  # text is text
    assert "three &lt;b&gt;red&lt;/b&gt; cars costing $5 or ${x}$_^" in svg
    assert "Simulated data: foot" in svg and "<script" not in svg
    pdf = save_figure(figure, tmp_path / "b", "PDF").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/FontFile2" in pdf  # an embedded TrueType font
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "a.svg", "b"}
    assert max(p.stat().st_size for p in tmp_path.iterdir()) < 2_000_000


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    for kind in ("png", "svg", "pdf"):
        first = save_figure(draw(), tmp_path / f"1.{kind}").read_bytes()
        assert first == save_figure(draw(), tmp_path / f"2.{kind}").read_bytes()


def test_saving_refuses_and_leaves_nothing_behind(tmp_path):
    with pytest.raises(UserError, match="saved as png, svg, pdf, found 'jpg'"):
        save_figure(draw(), tmp_path / "a.jpg")
    with pytest.raises(UserError, match="a.png cannot be written .No such file or directory"):
        save_figure(draw(), tmp_path / "gone" / "a.png")
    kept = tmp_path / "a.png"
    kept.write_bytes(b"before")
    figure = draw()
    figure.axes[0].draw = None  # drawing fails half-way
    with pytest.raises(TypeError):
        save_figure(figure, kept)
    assert kept.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_drawing_in_threads_leaves_no_figure_and_no_setting_behind(study, tmp_path):
    import matplotlib
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    problems = []

    def work(number):
        try:
            save_figure(draw(study, scales=(number,), surface="flat"), tmp_path / f"{number}.svg")
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems and pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
    for number in range(3):
        assert f"scale {number}" in (tmp_path / f"{number}.svg").read_text()
