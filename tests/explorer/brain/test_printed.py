"""The map in print follows what was chosen: view, hemisphere, parcel."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from explorer.brain import printed
from explorer.brain.surfaces import HALF, drawn_parcels
from explorer.figures import trial_figure


def draw(sampled, **chosen):
    truth = np.full((16, 16, 3), 255, dtype=np.uint8)
    told = {"parcel_map": sampled.map, "parcellation": sampled.parcellation}
    return trial_figure(truth, [], "foot", voxel_space=sampled.space, **told, **chosen)


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
