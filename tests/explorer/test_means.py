"""Means say what they are not of: values that are undefined, and how they count."""

import numpy as np
import pytest

from explorer import metrics

NAN, INF = float("nan"), float("inf")


def test_a_mean_says_how_many_values_it_leaves_out_and_why():
    found = metrics.mean_of([0.2, NAN, 0.4, INF], "one colour only")
    assert (found.value, found.n, found.undefined, found.of) == (pytest.approx(0.3), 2, 2, 4)
    assert found.remark == "2 of 4 values are undefined (one colour only) and are left out."
    np.testing.assert_array_equal(metrics.counted([0.2, NAN, 0.4, INF]), [0.2, 0.4])


def test_an_undefined_value_counts_as_failed_where_the_published_number_counts_it():
    found = metrics.mean_of([1, NAN, 1, 1], undefined_as=0.0)
    assert (found.value, found.n, found.undefined, found.of) == (0.75, 4, 1, 4)
    assert found.remark == "1 of 4 values is undefined and counts as 0."
    np.testing.assert_array_equal(metrics.counted([1, NAN], 0.0), [1, 0])
    two = metrics.mean_of([NAN, NAN, 1], undefined_as=0.5)
    assert two.remark == "2 of 3 values are undefined and count as 0.5."


def test_a_mean_of_what_is_all_defined_says_nothing():
    found = metrics.mean_of(np.array([1.0, 2.0]), "one colour only")
    assert (found.value, found.n, found.undefined, found.why) == (1.5, 2, 0, "")
    assert found.remark == "" and found.of == 2


def test_a_mean_of_nothing_is_not_a_number():
    found = metrics.mean_of([NAN])
    assert np.isnan(found.value) and (found.n, found.undefined, found.of) == (0, 1, 1)
    assert found.remark == "1 of 1 values is undefined and is left out."
    assert np.isnan(metrics.mean_of([]).value) and metrics.mean_of([]).remark == ""


@pytest.mark.parametrize("where", [0, 2])  # the true item, another one
def test_no_rank_is_made_up_where_a_similarity_is_not_known(where):
    similar = np.array([[0.9, 0.1, 0.2, 0.3], [0.9, 0.1, 0.2, 0.3]])
    similar[0, where] = NAN
    true = np.array([0, 0])
    for score, best in (
        (metrics.retrieval_rank, 1),
        (metrics.identification, 1),
        (lambda s, i: metrics.n_way_retrieval(s, i, 3), 1),
    ):
        first, second = score(similar, true)
        assert np.isnan(first) and second == best
    assert metrics.top_k(similar, true, 1) == 0.5


def test_a_prediction_that_is_not_finite_is_no_hit_and_no_miss():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(6, 4))
    predicted = truth.copy()
    predicted[2] = NAN
    each = metrics.two_way_identification(predicted, truth, per_item=True)
    assert np.isnan(each[2]) and np.isfinite(np.delete(each, 2)).all()
    assert np.isnan(metrics.two_way_identification(predicted, truth))


def test_each_row_of_tokens_has_length_one():
    rows = metrics.unit(np.array([[[3.0, 4.0], [0.0, 0.0]], [[0.0, 2.0], [5.0, 12.0]]]))
    np.testing.assert_allclose(rows, [[[0.6, 0.8], [0, 0]], [[0, 1], [5 / 13, 12 / 13]]])


def test_a_mean_is_of_defined_values_unless_it_says_otherwise():
    assert metrics.Mean(0.5, 3).remark == "" and metrics.Mean(0.5, 3).of == 3
