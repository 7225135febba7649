"""Scenes that differ in one thing: with an object, without it, and with another in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from backends.simulation.scenes import (
    CATEGORIES,
    SUPERCATEGORIES,
    background,
    render,
    sample_scenes,
)
from explorer.protocols import Counterfactual

OFFSET = 5  # from the study's seed: 0 to 2 are its own scenes


def counterfactuals(seed: int, n: int) -> Iterator[Counterfactual]:
    """Yield n pairs of each super-category, of scenes that no split holds.

    The distractor is an object of another super-category that has its colour, size, number, place,
    setting and light.
    """
    rng = np.random.default_rng((seed, OFFSET))
    each = len(CATEGORIES) // len(SUPERCATEGORIES)
    scenes = sample_scenes(len(CATEGORIES) * -(-n // each), seed + OFFSET)
    for concept in SUPERCATEGORIES:
        others = [name for name, of in CATEGORIES.items() if of != concept]
        for scene in [s for s in scenes if s.supercategory == concept][:n]:
            other = replace(scene, category=str(rng.choice(others)))
            yield Counterfactual(concept, render(scene), background(scene), render(other))
