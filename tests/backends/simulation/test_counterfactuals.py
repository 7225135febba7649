"""Counterfactual scenes: they differ in one thing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backends.simulation import counterfactuals as module
from backends.simulation.counterfactuals import counterfactuals
from backends.simulation.scenes import CATEGORIES, SUPERCATEGORIES, background, render


def test_a_pair_differs_in_the_object_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(module, "render", lambda scene: drawn.append(scene) or render(scene))
    found = list(counterfactuals(7, 2))
    assert [pair.concept for pair in found] == [c for c in SUPERCATEGORIES for _ in range(2)]
    for pair, scene, other in zip(found, drawn[::2], drawn[1::2], strict=True):
        assert CATEGORIES[scene.category] == pair.concept != CATEGORIES[other.category]
        assert replace(other, category=scene.category) == scene
        np.testing.assert_array_equal(pair.removed, background(scene))
        assert (pair.present != pair.removed).any() and (pair.present != pair.replaced).any()
    again = list(counterfactuals(7, 2))
    np.testing.assert_array_equal(again[3].replaced, found[3].replaced)
