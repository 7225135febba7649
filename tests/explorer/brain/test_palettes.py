"""Colour maps that colour-blind readers can read: lightness tells where hue may not."""

from itertools import pairwise

import numpy as np
import pytest
from skimage.color import rgb2lab

from explorer import request
from explorer.brain.palettes import PALETTES, stops
from explorer.request import View

# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
}  # fmt: skip


def lab(hexes, blind=None):
    rgb = np.array([[int(h[k : k + 2], 16) / 255 for k in (1, 3, 5)] for h in hexes])
    if blind:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        linear = np.clip(linear @ np.array(BLIND[blind]).T, 0, 1)
        low = linear <= 0.0031308
        rgb = np.where(low, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb2lab(rgb)


def names(kind):
    return [pytest.param(kind, name, id=name) for name in PALETTES[kind]]


@pytest.mark.parametrize("blind", [None, *BLIND])
@pytest.mark.parametrize(("kind", "name"), [*names("sequential"), *names("diverging")])
def test_lightness_follows_the_values_for_everybody(kind, name, blind):
    light = lab(PALETTES[kind][name], blind)[:, 0]
    middle = len(light) // 2
    arms = [light] if kind == "sequential" else [light[: middle + 1], light[middle:][::-1]]
    for arm in arms:
        steps = np.array([b - a for a, b in pairwise(arm)])
        assert (np.sign(steps) == np.sign(arm[-1] - arm[0])).all(), steps
        assert abs(arm[-1] - arm[0]) > 55


@pytest.mark.parametrize("blind", [None, *BLIND])
@pytest.mark.parametrize(("kind", "name"), names("diverging"))
def test_the_signs_differ_in_hue_for_everybody(kind, name, blind):
    """Halfway out on each side, where the lightness is the same."""
    hexes = PALETTES[kind][name]
    half = len(hexes) // 4
    a, b = lab([hexes[half], hexes[-1 - half]], blind)
    assert np.hypot(*(a - b)[1:]) > 30


def test_a_view_chooses_among_them_by_kind():
    offered = {"sequential": request.SEQUENTIAL, "diverging": request.DIVERGING}
    assert {kind: tuple(maps) for kind, maps in PALETTES.items()} == offered
    view = View(sequential="cividis", diverging="vik")
    assert stops("sequential", view)[0] == "#00224e" and stops("diverging", view)[0] == "#001261"
