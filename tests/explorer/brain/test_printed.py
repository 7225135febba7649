"""The map in print follows what was chosen: view, hemisphere, parcel."""

from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import MagicMock

import nilearn.plotting
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from explorer.brain import printed
from explorer.brain.parcels import UNASSIGNED, voxel_map
from explorer.brain.surfaces import HALF, background, drawn_parcels, surface_mesh
from explorer.figures import trial_figure
from explorer.types import Label, VoxelSpace


def draw(sampled, **chosen):
    truth = np.full((16, 16, 3), 255, dtype=np.uint8)
    told = {"parcel_map": sampled.map, "parcellation": sampled.parcellation}
    told |= {"voxel_space": sampled.space}
    return trial_figure(truth, [], "foot", **told | chosen)


def surfaces(figure):
    return [axes for axes in figure.axes if axes.name == "3d"]


def inked(axes):
    """Return how many faces of a drawn surface have the colour of the outline."""
    colours = axes.collections[0].get_facecolor()[:, :3]
    return int(np.isclose(colours, to_rgb(printed.INK), atol=2e-3).all(axis=1).sum())


def test_the_chosen_view_comes_first(sampled):
    said = [t.get_text() for t in draw(sampled, camera="dorsal").texts]
    views = [word for word in said if word in (*printed.VIEWS, "dorsal", "anterior")]
    assert views == ["dorsal", "lateral", "medial", "ventral"]
    said = [t.get_text() for t in draw(sampled, camera="ventral").texts]
    assert [word for word in said if word in printed.VIEWS][0] == "ventral"


@pytest.mark.parametrize(
    ("hemisphere", "letters"), [("both", "LR"), ("left", "L"), ("right", "R")]
)
def test_only_the_chosen_hemisphere_is_drawn(sampled, hemisphere, letters):
    figure = draw(sampled, hemisphere=hemisphere)
    assert len(surfaces(figure)) == len(printed.VIEWS) * len(letters)
    assert "".join(t.get_text() for t in figure.texts if t.get_text() in "LR") == letters


def test_the_chosen_parcel_has_an_outline_on_its_own_side(sampled):
    drawn = drawn_parcels(sampled.parcellation, sampled.space.projection)
    keys = [label.key for label in sampled.parcellation.labels]
    left = next(key for i, key in enumerate(keys) if (drawn[:HALF] == i).any())
    sides = surfaces(draw(sampled, parcel=left))
    count = [inked(axes) for axes in sides]
    half = len(printed.VIEWS)
    assert all(count[:half])
    assert not any(count[half:]) or (drawn[HALF:] == keys.index(left)).any()
    assert not any(inked(axes) for axes in surfaces(draw(sampled, parcel="no such parcel")))


def ends(figure):
    """Return what stands at the ends of the colour bar, and whether they are arrows."""
    (bar,) = [axes for axes in figure.axes if axes.get_xlabel()]
    return [text.get_text() for text in bar.texts], len(bar.patches)


def test_a_bar_that_some_value_lies_beyond_ends_in_an_arrow(sampled):
    limits = {**sampled.map.limits, "enrichment": (0, 1.77), "signed": (-3, 3)}
    table = sampled.map.table.assign(enrichment=1.0, signed=0.5)
    shown = SimpleNamespace(table=table, limits=limits, flat=False)
    quick = {"parcel_map": shown, "surface": "flat", "hemisphere": "left"}
    assert ends(draw(sampled, **quick)) == ([], 0)
    high, low = table["voxels"][:-1].nlargest(2).index
    table.loc[high, ["enrichment", "signed"]] = 2.32, 4.0
    table.loc[low, "signed"] = -3.5
    assert ends(draw(sampled, **quick)) == (["≥ 1.77"], 1)
    assert ends(draw(sampled, measure="signed", **quick)) == (["≤ −3", "≥ 3"], 2)


def test_bars_are_on_the_scale_of_the_colours(sampled):
    """As long as in other trials; a longer bar lengthens the axis and is never cut."""
    nowhere = VoxelSpace(sampled.space.n_voxels, "h")
    rois = replace(sampled.parcellation, surface=None)
    limits = {**sampled.map.limits, "enrichment": (0, 9.0)}
    shown = SimpleNamespace(table=sampled.map.table, limits=limits, flat=False)
    where = {"voxel_space": nowhere, "parcellation": rois}
    bars = draw(sampled, parcel_map=shown, **where).axes[-1]
    assert bars.get_xlim() == (0, 9)
    limits["enrichment"] = (0, 0.1)
    longest = max(bar.get_width() for bar in bars.patches)
    bars = draw(sampled, parcel_map=shown, **where).axes[-1]
    assert bars.get_xlim() == (0, longest)


def test_names_of_parcels_in_bars_are_text_and_no_formulas(sampled):
    table = sampled.map.table.copy()
    table.loc[table["parcel"] != UNASSIGNED, "parcel"] = "$V_1$ L"
    shown = SimpleNamespace(table=table, limits=sampled.map.limits, flat=False)
    axes = Figure().subplots()
    printed.draw_bars(axes, shown, "enrichment")
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == ["$V_1$ L"] * 10
    assert not any(label.get_parse_math() for label in labels)


def test_a_face_has_the_colour_of_its_parcel_where_all_its_corners_lie_in_it():
    assert printed._inside(np.array([2.0, 2.0, 2.0])) == 2
    for corners in ([1.0, 2.0, 2.0], [2.0, 1.0, 2.0], [2.0, 2.0, 1.0], [np.nan] * 3):
        assert np.isnan(printed._inside(np.array(corners)))


# ------------------------------------------------------------------------------ where things stand

TOP = 5.0  # inches from the upper edge of the figure


@pytest.fixture
def lay_out(sampled, monkeypatch):
    """Return a function that places a map and says where; brains are not drawn, which is slow."""
    drawn = []
    monkeypatch.setattr(nilearn.plotting, "plot_surf", lambda mesh, on, **k: drawn.append(k))
    monkeypatch.setattr(nilearn.plotting, "plot_surf_contours", lambda *a, **k: None)
    monkeypatch.setattr(printed, "_fit", lambda *about: None)

    def lay(parcel_map=sampled.map, **chosen):
        found = SimpleNamespace(brains=[], words={}, bar=None, drawn=drawn)
        drawn.clear()

        def place(x, y, width, height, **kind):
            if kind:
                found.brains.append((x, y, width, height))
                return MagicMock()
            found.at, found.bar = (x, y, width, height), Figure().add_axes((0, 0, 1, 1))
            return found.bar

        def write(x, y, text, *size, **how):
            found.words.setdefault(text, []).append((x, y, how.get("ha", "left")))

        where = (sampled.parcellation, sampled.space, chosen.pop("surface", "inflated"))
        printed.draw_surface(place, write, TOP, parcel_map, "enrichment", *where, **chosen)
        return found

    return lay


@pytest.mark.parametrize("surface", ["inflated", "flat"])
@pytest.mark.parametrize("hemisphere", ["both", "left", "right"])
def test_brains_stand_in_the_middle_above_their_bar_and_within_the_page(
    lay_out, surface, hemisphere
):
    found = lay_out(surface=surface, hemisphere=hemisphere)
    x, y, width, height = found.at  # of the bar
    assert x + width / 2 == pytest.approx(printed.WIDTH / 2)
    assert TOP < y < y + height < TOP + printed.BRAINS and height < width / 10
    centres = [(left + wide / 2, top + high / 2) for left, top, wide, high in found.brains]
    rows = sorted({round(at, 3) for _, at in centres})
    assert len(rows) == (2 if (surface, hemisphere) == ("inflated", "both") else 1)
    assert np.mean(rows) == pytest.approx((TOP + y) / 2, abs=0.1)
    assert all(b - a > 1 for a, b in zip(rows, rows[1:], strict=False))
    across = sorted({round(at, 3) for at, _ in centres})
    assert 0 < across[0] < printed.WIDTH / 2 < across[-1] < printed.WIDTH or len(across) == 1
    assert np.mean(across) == pytest.approx(printed.WIDTH / 2, abs=0.2)
    sides = "LR" if hemisphere == "both" else hemisphere[0].upper()
    for letter in sides:  # a letter stands left of its own brains, at their height
        ((left, at, _),) = found.words[letter]
        assert left < across[0] or surface == "flat"
        assert at == pytest.approx(rows[sides.index(letter) if len(rows) > 1 else 0], abs=1e-3)
    names = [name for name in printed.VIEWS if name in found.words]
    if surface == "flat":
        assert not names and len(found.brains) == len(sides)
    else:
        assert names == list(printed.VIEWS)
        for name, middle in zip(names, across, strict=True):
            ((left, at, how),) = found.words[name]
            assert (left, how) == (pytest.approx(middle, abs=1e-3), "center")
            assert TOP < at < rows[0]


def test_folds_are_as_dark_as_on_the_page_and_shades_keep_their_side(lay_out):
    found = lay_out()
    sides = [one["hemi"] for one in found.drawn]
    assert sides == ["left"] * 4 + ["right"] * 4
    for one in found.drawn:
        grey = background(surface_mesh("inflated")[one["hemi"]]["sulc"])
        np.testing.assert_allclose(one["bg_map"], 1 - grey / 255)
        assert (one["vmin"], one["vmax"]) == (0, 2)


def test_labels_have_a_title_in_place_of_a_bar(lay_out, sampled):
    found = lay_out(voxel_map("parcels", "the parcels", None, sampled.parcellation))
    ((x, y, how),) = found.words["the parcels"]
    assert (x, how) == (printed.WIDTH / 2, "center") and TOP + 2 < y < TOP + printed.BRAINS
    assert found.bar is None
    assert (found.drawn[0]["vmin"], found.drawn[0]["vmax"]) == (-0.5, 67.5)  # of 68 colours


@pytest.mark.parametrize(
    ("limits", "marked"),
    [((0, 2), [1.0]), ((0, 1), []), ((1, 3), []), ((0, 0.9), []), ((1.1, 2), [])],
)
def test_no_preference_is_marked_where_it_lies_on_the_bar(lay_out, sampled, limits, marked):
    table = sampled.map.table.assign(enrichment=sum(limits) / 2)
    shown = SimpleNamespace(table=table, limits={"enrichment": limits}, flat=False)
    bar = lay_out(shown, surface="flat", hemisphere="left").bar
    assert [line.get_xdata()[0] for line in bar.lines] == marked


def test_the_words_at_the_ends_of_a_bar_stand_beside_it(lay_out, sampled):
    table = sampled.map.table.assign(enrichment=1.0)
    table.loc[table["voxels"][:-1].nlargest(2).index, "enrichment"] = 0.1, 9.0
    shown = SimpleNamespace(table=table, limits={"enrichment": (0.5, 2)}, flat=False)
    low, high = lay_out(shown, surface="flat", hemisphere="left").bar.texts
    assert (low.get_text(), high.get_text()) == ("\u2264 0.5", "\u2265 2")
    assert (low.get_ha(), high.get_ha()) == ("right", "left")
    assert low.get_position()[1] == high.get_position()[1] == 0.5
    assert -0.2 < low.get_position()[0] < 0 and 1 < high.get_position()[0] < 1.2


def coloured(figure):
    """Return how many faces of each drawn surface have a colour and no grey."""
    found = []
    for axes in surfaces(figure):
        colours = axes.collections[0].get_facecolor()[:, :3]
        found.append(int((np.ptp(colours, axis=1) > 0.1).sum()))
    return found


def test_what_a_threshold_hides_is_grey_in_print_and_counted(sampled):
    quick = {"surface": "flat", "hemisphere": "left", "measure": "signed"}
    table = sampled.map.table.assign(signed=0.5, small=False)
    high, low = table["voxels"][table["hemisphere"] == "L"].nlargest(2).index
    table.loc[high, "signed"], table.loc[low, "signed"] = 20.0, -20.0
    shown = SimpleNamespace(table=table, limits=sampled.map.limits, flat=False)
    quick["parcel_map"] = shown
    (both,) = coloured(draw(sampled, threshold=10, **quick))
    table.loc[low, "signed"] = -5.0
    figure = draw(sampled, threshold=10, **quick)
    (one,) = coloured(figure)
    assert 0 < one < both
    assert coloured(draw(sampled, threshold=21, **quick)) == [0]
    n = int(table["signed"][:-1][table["voxels"][:-1] > 0].notna().sum())
    said = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert f"not coloured between \N{MINUS SIGN}10 and 10: {n - 1} of {n} parcels" in said


def test_print_takes_the_chosen_colours_and_another_atlas_outlines(sampled):
    quick = {"surface": "flat", "hemisphere": "left"}
    blue = {"sequential": ("#0000ff", "#0000ff"), "diverging": ("#0000ff", "#0000ff")}
    figure = draw(sampled, palettes=blue, **quick)
    colours = surfaces(figure)[0].collections[0].get_facecolor()[:, :3]
    assert (colours[np.ptp(colours, axis=1) > 0.1].argmax(axis=1) == 2).all()
    half = np.where(np.arange(2 * HALF) % HALF < HALF // 2, 0, 1)
    other = replace(
        sampled.parcellation,
        name="halves",
        labels=(Label("low"), Label("high")),
        membership=np.arange(sampled.space.n_voxels) % 2,
        surface=half,
    )
    figure = draw(sampled, outlines=other, **quick)
    colours = surfaces(figure)[0].collections[0].get_facecolor()[:, :3]
    lines = np.isclose(colours, to_rgb(printed.OUTLINE), atol=2e-3).all(axis=1).sum()
    faces = surface_mesh("flat")["left"]["faces"]
    met = (half[:HALF][faces] != half[:HALF][faces][:, :1]).any(axis=1).sum()
    assert 0.9 * met <= lines <= 1.2 * met and met > 100
    assert any("outlines: halves" in text.get_text() for text in figure.texts)
