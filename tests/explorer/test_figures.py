"""Figures that hold what they should, and files of them."""

import io
import resource
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from explorer.brain.display import COLOURS, TITLES
from explorer.brain.parcels import voxel_map
from explorer.figures import figure_bytes, installed_versions, provenance_line, trial_figure
from explorer.request import Request
from explorer.types import UserError, VoxelSpace

ALARM = "three <b>red</b> cars costing $5 or ${x}$_^"


REQUEST = Request("simulated", "sub-01", "test-0012", "ridge", "pocket-diffusion", seed=7)


def frame(index, scale, done=True, row=0):
    image = np.full((16, 16, 3), 10 * index, dtype=np.uint8)
    scores = {"PixCorr": 0.125, "SSIM": -0.5, "pocket-clip": 0.75} if done else {}
    place = {"index": index, "row": row, "scale": scale}
    return SimpleNamespace(**place, image=image, done=done, scores=scores)


def draw(sampled=None, scales=(0, 1, 2.5), **changes):
    frames = [frame(i, s) for i, s in enumerate(scales)]
    truth = np.full((16, 16, 3), 255, dtype=np.uint8)
    kwargs = {"caption": ALARM, "decoding": SimpleNamespace(rank=3, n=300)}
    if sampled is not None:
        kwargs["parcel_map"] = sampled.map
        kwargs |= {"parcellation": sampled.parcellation, "voxel_space": sampled.space}
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


def test_a_figure_holds_truth_sweep_brain_and_foot(sampled):
    figure = draw(sampled)
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


def test_colours_on_the_brain_are_those_of_the_colour_bar(sampled):
    """One parcel alone has a value at the top of the limits: only its faces have that colour."""
    values = np.zeros(sampled.space.n_voxels)
    index = [label.key for label in sampled.parcellation.labels].index("pericalcarine L")
    values[sampled.parcellation.membership == index] = 1
    single = sampled.map_of(values)
    single.limits["share"] = (0, 1)
    figure = draw(sampled, parcel_map=single, measure="share")
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


def test_without_locations_the_highest_parcels_are_bars(sampled):
    nowhere = VoxelSpace(sampled.space.n_voxels, "h")
    rois = replace(sampled.parcellation, surface=None)
    figure = draw(sampled, voxel_space=nowhere, parcellation=rois)
    (bars,) = [axes for axes in figure.axes if axes.patches and not axes.images]
    table = sampled.map.table[~sampled.map.table["small"]].iloc[:-1]
    expected = table.sort_values("enrichment", ascending=False)["parcel"].head(10).tolist()
    assert [label.get_text() for label in bars.get_yticklabels()][::-1] == expected
    assert bars.get_xlabel() == TITLES["enrichment"] and not surfaces(figure)


def test_a_figure_of_a_map_has_its_own_bar_and_colours(sampled):
    values = np.linspace(0, 10, sampled.space.n_voxels)
    shown = voxel_map("ncsnr", "reliability", values, sampled.parcellation)
    figure = draw(sampled, parcel_map=shown, surface="flat")
    (bar,) = [axes for axes in figure.axes if axes.get_xlabel() == "reliability"]
    assert bar.get_xlim() == pytest.approx((0, 9.9), rel=1e-3)
    assert "grey: no voxels" in words(figure)
    left, right = (axes.collections[0].get_facecolor()[:, :3] for axes in surfaces(figure))
    assert np.median(left, axis=0)[1] > np.median(right, axis=0)[1]  # low is light, high is dark
    rois = replace(sampled.parcellation, surface=None)
    bars = draw(parcel_map=shown, parcellation=rois, voxel_space=VoxelSpace(5121, "h"))
    (axes,) = [axes for axes in bars.axes if axes.patches and not axes.images]
    assert axes.get_xlabel() == "reliability" and axes.get_yticklabels()[-1].get_text()[-1] == "R"


def test_a_figure_of_parcels_has_the_atlas_colours_and_no_bar(sampled):
    shown = voxel_map("parcels", "parcels of dk", None, sampled.parcellation)
    figure = draw(sampled, parcel_map=shown)
    assert "parcels of dk" in words(figure) and len(surfaces(figure)) == 8
    assert not any(axes.get_xlabel() for axes in figure.axes)
    index = [label.key for label in sampled.parcellation.labels].index("lateraloccipital L")
    colour = np.array(sampled.parcellation.labels[index].colour) / 255
    lateral = surfaces(figure)[0].collections[0].get_facecolor()[:, :3]
    assert (np.abs(lateral - colour).max(axis=1) < 0.01).sum() > 200


def test_a_figure_of_painted_rois_says_whose_places_they_are(painted):
    rois, space = painted
    shown = voxel_map("x", "x", np.arange(6.0), rois)
    figure = draw(parcel_map=shown, parcellation=rois, voxel_space=space)
    assert len(surfaces(figure)) == 8
    assert any("Group location, not." in said for said in words(figure))


def test_without_parcels_there_are_pictures_only(sampled):
    nothing = SimpleNamespace(
        table=sampled.map.table.tail(1), limits=sampled.map.limits, flat=False
    )
    figure = draw(parcel_map=nothing)
    assert len(figure.axes) == 4 and all(axes.images for axes in figure.axes)


def test_a_flat_gradient_is_said_and_drawn_grey(sampled):
    flat = sampled.map_of(np.zeros(sampled.space.n_voxels))
    figure = draw(sampled, parcel_map=flat, surface="flat")
    assert "the gradient is zero for every voxel: nothing to map" in words(figure)
    assert len(surfaces(figure)) == 2
    for axes in surfaces(figure):
        colours = axes.collections[0].get_facecolor()[:, :3]
        assert np.ptp(colours, axis=1).max() < 1e-6


# ------------------------------------------------------------------------------------------ saving


def test_files_of_each_format(sampled):
    figure = draw(sampled, surface="flat")
    png = figure_bytes(figure, "png")
    with Image.open(io.BytesIO(png)) as image:
        assert image.width == 2160 and image.info["Description"] == "Simulated data: foot"
    drawn = figure_bytes(figure, "svg")
    svg = drawn.decode()
    assert "retrieval rank 3 of 300" in svg and "<text" in svg  # text is text
    assert "three &lt;b&gt;red&lt;/b&gt; cars costing $5 or ${x}$_^" in svg
    assert "Simulated data: foot" in svg and "<script" not in svg
    pdf = figure_bytes(figure, "pdf")
    assert pdf.startswith(b"%PDF") and b"/FontFile2" in pdf  # an embedded TrueType font
    assert max(map(len, (png, drawn, pdf))) < 2_000_000


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_figure_gives_the_same_bytes(kind):
    assert figure_bytes(draw(), kind) == figure_bytes(draw(), kind)


def test_another_format_is_refused():
    with pytest.raises(UserError, match="saved as png, svg, pdf, found 'jpg'"):
        figure_bytes(draw(), "jpg")


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_figure_needs_no_room_on_a_disk(kind):
    """A server whose disk is full still gives figures away."""
    figure_bytes(draw(), kind)  # fonts are read and kept
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        assert len(figure_bytes(draw(), kind)) > 10_000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_drawing_in_threads_leaves_no_figure_and_no_setting_behind(sampled):
    import matplotlib
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    problems, drawn = [], {}

    def work(number):
        try:
            drawn[number] = figure_bytes(draw(sampled, scales=(number,), surface="flat"), "svg")
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
        assert f"scale {number}" in drawn[number].decode()
