"""fsLR-32k on fsaverage5: sides stay sides, the whole cortex is covered, folds meet folds."""

import numpy as np
import pytest

from explorer.brain.atlases import desikan_killiany
from explorer.brain.fslr import CORTEX, GRAYORDINATES, VERTICES, cortex, fsaverage5_vertices
from explorer.types import FSAVERAGE5_VERTICES, UserError

HALF, LEFT = FSAVERAGE5_VERTICES // 2, 29_696  # grayordinates of the left cortex


def test_the_three_lengths_agree_with_each_other():
    every, inside = fsaverage5_vertices(VERTICES), cortex()
    assert (int(inside[: VERTICES // 2].sum()), int(inside.sum())) == (LEFT, CORTEX)
    np.testing.assert_array_equal(every >= 0, inside)
    np.testing.assert_array_equal(every[inside], fsaverage5_vertices(CORTEX))
    whole = fsaverage5_vertices(GRAYORDINATES)
    np.testing.assert_array_equal(whole[:CORTEX], every[inside])
    assert set(whole[CORTEX:]) == set(every[~inside]) == {-1}
    with pytest.raises(ValueError, match="read-only"):  # it is kept for everybody
        inside[0] = False
    with pytest.raises(UserError, match=r"59,412 of the cortex or 91,282 grayordinates, found 7"):
        fsaverage5_vertices(7)


def test_hemispheres_stay_apart_and_the_cortex_is_covered():
    vertex = fsaverage5_vertices(CORTEX)
    assert vertex[:LEFT].max() < HALF <= vertex[LEFT:].min()
    hit = np.bincount(vertex, minlength=FSAVERAGE5_VERTICES) > 0
    labelled = desikan_killiany().vertices >= 0
    assert hit[labelled].mean() > 0.995
    assert hit[~labelled].mean() < 0.25  # the medial wall of one is that of the other


def test_both_hemispheres_are_laid_the_same_way():
    """A vertex of fsLR has the same number in both: its places must mirror each other."""
    from explorer.brain.surfaces import surface_mesh

    mesh, every = surface_mesh("pial"), fsaverage5_vertices(VERTICES)
    left, right = every[: VERTICES // 2], every[VERTICES // 2 :]
    both = (left >= 0) & (right >= 0)
    here = mesh["left"]["vertices"][left[both]] * (-1, 1, 1)
    there = mesh["right"]["vertices"][right[both] - HALF]
    assert np.median(np.linalg.norm(here - there, axis=1)) < 8  # mm; 40 where a sphere is turned
