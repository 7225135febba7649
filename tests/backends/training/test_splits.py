"""Kinds of splits on planted features: whole clusters, far stimuli, folds that do not move."""

from __future__ import annotations

import numpy as np
import pytest

from backends.training.splits import make_split, needs_features
from explorer.splits import clusters, nearest
from explorer.types import UserError

IDS = [f"s{i:03d}" for i in range(100)]


@pytest.fixture
def planted() -> tuple[np.ndarray, np.ndarray]:
    """Features of 100 stimuli in three clusters of 60, 30 and 10, mixed; and the cluster."""
    rng = np.random.default_rng(0)
    of = rng.permutation(np.repeat([0, 1, 2], [60, 30, 10]))
    return np.eye(8)[of] * 5 + 0.1 * rng.standard_normal((100, 8)), of


def test_clusters_are_found_and_numbered_by_size(planted: tuple) -> None:
    features, of = planted
    np.testing.assert_array_equal(clusters(features, 3), of)
    np.testing.assert_array_equal(clusters(features * 7, 3), of)  # length says nothing


def test_a_cluster_is_tested_whole(planted: tuple) -> None:
    features, of = planted
    split = make_split("cluster_k3_1", "fake", IDS[:80], IDS[80:], features, "toy")
    assert split.test == {s for s, c in zip(IDS, of, strict=True) if c == 1}
    assert split.train == set(IDS) - split.test
    assert split.by == "cluster 1 of k-means of toy into 3, the largest is 0"


def test_random_folds_cover_everything_once_and_stay() -> None:
    folds = [make_split(f"random_{i}", "fake", IDS[:80], IDS[80:]).test for i in range(5)]
    assert sorted(s for fold in folds for s in fold) == IDS
    assert all(10 <= len(fold) <= 30 for fold in folds)
    fewer = make_split("random_2", "fake", IDS[40:80], IDS[80:])
    assert fewer.test == folds[2] & set(IDS[40:])  # the same fold, whoever saw it


def test_tau_keeps_the_test_stimuli_that_are_far() -> None:
    angle = np.radians(np.r_[np.zeros(4), [0, 10, 20, 30, 40, 50, 60, 70]])
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    split = make_split("tau_75", "fake", IDS[:4], IDS[4:12], features, "toy")
    assert split.test == {"s010", "s011"}  # at 60 and 70 degrees
    assert split.train == set(IDS[:4])
    assert make_split("tau", "fake", IDS[:4], IDS[4:12], features, "toy").test == set(IDS[8:12])
    np.testing.assert_allclose(nearest(features[4:], features[:4]), np.cos(angle[4:]), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("random_5", "random splits are random_0 to random_4"),
        ("cluster_k3_3", "clusters of 'cluster_k3_3' are 0 to 2, found 3"),
        ("cluster_k1_0", "100 stimuli make 2 to 100 clusters, found k = 1"),
        ("tau_0", "a quantile lies between 1 and 99 %, found 0"),
        ("ood", "no kind of split 'ood'; choose one of random_0"),
    ],
)
def test_what_cannot_be_split_so_is_refused(planted: tuple, name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_split(name, "fake", IDS[:80], IDS[80:], planted[0], "toy")


def test_features_of_all_stimuli_are_needed(planted: tuple) -> None:
    assert needs_features("tau") and not needs_features("random_1")
    with pytest.raises(UserError, match="rests on features of all 100 stimuli"):
        make_split("cluster_k3_0", "fake", IDS[:80], IDS[80:], planted[0][:99], "toy")
