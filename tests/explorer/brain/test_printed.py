"""The map in print follows what was chosen: view, hemisphere, parcel."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from explorer.brain import printed
from explorer.brain.surfaces import HALF, drawn_parcels
from explorer.figures import trial_figure
from explorer.types import VoxelSpace


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
