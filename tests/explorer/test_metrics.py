"""Metrics against known answers, other libraries and chance."""

import importlib
import itertools

import numpy as np
import pytest

from explorer import metrics
from explorer.types import UserError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def picture(rng, height=40, width=32):
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


# ------------------------------------------------------------------------------------ two pictures


def test_a_picture_equals_itself(rng):
    image = picture(rng)
    assert metrics.pixcorr(image, image) == pytest.approx(1)
    assert metrics.ssim(image, image) == pytest.approx(1)


def test_pixcorr_by_algebra(rng):
    image = picture(rng)
    assert metrics.pixcorr(image, 255 - image) == pytest.approx(-1)
    other = picture(rng)
    expected = np.corrcoef(image.ravel().astype(float), other.ravel().astype(float))[0, 1]
    assert metrics.pixcorr(image, other) == pytest.approx(expected, abs=1e-12)
    darker = image // 2  # an affine change, up to rounding
    assert metrics.pixcorr(image, darker) == pytest.approx(1, abs=1e-4)
    assert np.isnan(metrics.pixcorr(image, np.full_like(image, 7)))


def test_ssim_equals_its_definition(rng):
    """The formula of Wang et al. 2004 written out with Gaussian windows of 11 x 11."""
    from scipy.ndimage import gaussian_filter

    truth = picture(rng)
    image = np.clip(truth.astype(int) + rng.integers(-60, 60, truth.shape), 0, 255)
    image = image.astype(np.uint8)
    a, b = (x.astype(float) @ [0.2125, 0.7154, 0.0721] / 255 for x in (truth, image))

    def blur(x):
        return gaussian_filter(x, 1.5, truncate=3.5)

    mean_a, mean_b = blur(a), blur(b)
    covariance = blur(a * b) - mean_a * mean_b
    spread = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
    c1, c2 = 0.01**2, 0.03**2
    values = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    values /= (mean_a**2 + mean_b**2 + c1) * (spread + c2)
    assert metrics.ssim(truth, image) == pytest.approx(values[5:-5, 5:-5].mean(), abs=1e-9)


def test_ssim_ignores_hue_of_equal_luminance_and_sees_structure(rng):
    image = picture(rng)
    assert metrics.ssim(image, np.ascontiguousarray(image[::-1])) < 0.3


@pytest.mark.parametrize("score", [metrics.pixcorr, metrics.ssim])
def test_pictures_that_cannot_be_compared(score, rng):
    image = picture(rng)
    with pytest.raises(UserError, match="found 32 x 40 and 32 x 20; use match_size"):
        score(image, image[:20])
    with pytest.raises(UserError, match=r"uint8 RGB \(H, W, 3\), found float64 \(40, 32, 3\)"):
        score(image, image / 255)
    with pytest.raises(UserError, match=r"found uint8 \(40, 32\)"):
        score(image[..., 0], image)


def test_ssim_refuses_pictures_smaller_than_its_window(rng):
    image = picture(rng, 10, 10)
    with pytest.raises(UserError, match="windows of 11 x 11 pixels, found images of 10 x 10"):
        metrics.ssim(image, image)
    for height, width in ((10, 11), (11, 10)):
        flat = picture(rng, height, width)
        with pytest.raises(UserError, match=f"found images of {width} x {height}"):
            metrics.ssim(flat, flat)
    assert metrics.ssim(picture(rng, 11, 11), picture(rng, 11, 11)) < 1


def test_match_size(rng):
    image = picture(rng)
    assert metrics.match_size(image, 40, 32) is image
    assert metrics.match_size(image, 20, 64).shape == (20, 64, 3)
    even = np.full((13, 9, 3), (10, 200, 30), dtype=np.uint8)
    resized = metrics.match_size(even, 50, 4)
    assert (resized == (10, 200, 30)).all()


# ---------------------------------------------------------------------------------------
# embeddings


def test_cosine():
    assert metrics.cosine([1, 0], [5, 0]) == pytest.approx(1)
    assert metrics.cosine([1, 0], [0, 2]) == pytest.approx(0)
    assert metrics.cosine([[1, 1]], [-1, -1]) == pytest.approx(-1)
    assert np.isnan(metrics.cosine([0, 0], [1, 1]))
    with pytest.raises(UserError, match="one size, found 2 and 3"):
        metrics.cosine([1, 2], [1, 2, 3])


def test_cosine_matrix_equals_cosine(rng):
    a, b = rng.normal(size=(3, 2, 4)), rng.normal(size=(5, 8))
    table = metrics.cosine_matrix(a, b)
    assert table.shape == (3, 5)
    assert table[1, 4] == pytest.approx(metrics.cosine(a[1], b[4]))
    with pytest.raises(UserError, match="8 values and gallery items 7"):
        metrics.cosine_matrix(a, b[:, 1:])


def test_rank_counts_from_one_and_shares_ties():
    similarity = np.array([0.1, 0.9, 0.5, 0.5])
    assert metrics.retrieval_rank(similarity, 1) == 1
    assert metrics.retrieval_rank(similarity, 0) == 4
    assert metrics.retrieval_rank(similarity, 2) == 2.5
    assert metrics.retrieval_rank(np.zeros(9), 3) == 5  # chance, (N + 1) / 2
    assert np.isnan(metrics.retrieval_rank(np.array([np.nan, 1]), 0))
    both = metrics.retrieval_rank(np.stack([similarity, similarity]), np.array([1, 2]))
    assert both.tolist() == [1, 2.5]


def test_top_k(rng):
    similarity = np.eye(6)
    assert metrics.top_k(similarity, np.arange(6), 1) == 1
    assert metrics.top_k(-similarity, np.arange(6), 5) == 0
    chance = metrics.top_k(rng.random((4000, 20)), rng.integers(0, 20, 4000), 5)
    assert chance == pytest.approx(0.25, abs=0.03)


def slow_identification(predictions, truth):
    """Follow the definition, pair by pair."""
    scores = []
    for i, p in enumerate(predictions):
        r = [np.corrcoef(p, t)[0, 1] for t in truth]
        others = [j for j in range(len(truth)) if j != i]
        scores.append(np.mean([(r[j] < r[i]) + 0.5 * (r[j] == r[i]) for j in others]))
    return np.array(scores)


def test_identification_equals_its_definition(rng):
    truth = rng.normal(size=(15, 8))
    predictions = truth + rng.normal(size=truth.shape) * 1.5
    expected = slow_identification(predictions, truth)
    found = metrics.two_way_identification(predictions, truth, per_item=True)
    np.testing.assert_allclose(found, expected)
    assert 0.5 < expected.mean() < 1
    mean = metrics.two_way_identification(predictions, truth)
    assert mean == pytest.approx(expected.mean())


def test_identification_at_its_ends(rng):
    truth = rng.normal(size=(30, 8))
    assert metrics.two_way_identification(truth, truth) == 1
    assert metrics.two_way_identification(-truth, truth) == 0
    assert metrics.two_way_identification(np.ones_like(truth), truth) == 0.5  # ties count half
    twins = np.concatenate([truth, truth])  # every item has one exact rival
    expected = (58 + 0.5) / 59
    assert metrics.two_way_identification(twins, twins) == pytest.approx(expected)


def test_identification_at_chance_under_derangements(rng):
    truth = rng.normal(size=(60, 16))
    scores = [
        metrics.two_way_identification(truth[metrics.derangement(60, rng)], truth)
        for _ in range(20)
    ]
    assert np.mean(scores) == pytest.approx(0.5, abs=0.03)


def test_identification_refuses_what_is_not_paired(rng):
    with pytest.raises(UserError, match=r"shapes \(3, 4\) and \(2, 4\)"):
        metrics.two_way_identification(np.ones((3, 4)), np.ones((2, 4)))
    with pytest.raises(UserError, match="at least 2 items"):
        metrics.two_way_identification(np.ones((1, 4)), np.ones((1, 4)))


def test_identification_in_a_gallery_follows_the_order_of_similarity():
    similarity = np.array([[0.9, 0.1, 0.5, 0.5], [0.9, 0.1, 0.5, 0.5 + 1e-15]])
    assert metrics.identification(similarity, np.array([0, 1])).tolist() == [1, 0]
    tied = metrics.identification(similarity, np.array([2, 3]))  # one worse, one equal, one better
    assert tied == pytest.approx([0.5, 0.5])


def test_correlations_with_a_gallery_are_numpys(rng):
    a, b = rng.normal(size=(3, 2, 4)), rng.normal(size=(5, 8)) + 7
    expected = np.corrcoef(a.reshape(3, 8), b)[:3, 3:]
    np.testing.assert_allclose(metrics.correlation_matrix(a, b), expected)
    assert not metrics.correlation_matrix(np.ones((1, 8)), b).any()


def test_a_constant_correlates_with_nothing_however_it_is_rounded():
    rows = np.array([[0.1] * 13, [127.3] * 13, [*range(13)]])
    assert all((row - row.mean()).any() for row in rows)  # as sums are rounded
    found = metrics.correlation_matrix(rows, rows)
    np.testing.assert_allclose(found, np.diag([0.0, 0.0, 1.0]), atol=1e-12)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_rounding_is_not_variation(library):
    numbers = importlib.import_module(library)
    mean = numbers.asarray([0.0, 0.0, 2.0, -2.0, -2.0, 1e-20])
    sd = numbers.asarray([0.0, 1e-30, 2e-6, 1e-6, 3e-6, 1e-20])
    assert metrics.varies(mean, sd).tolist() == [False, True, False, False, True, True]


def test_squared_errors_are_scikit_learns(rng):
    from sklearn.metrics import mean_squared_error

    a, b = rng.normal(size=(3, 2, 4)), rng.normal(size=(5, 8))
    table = metrics.squared_error_matrix(a, b)
    assert table.shape == (3, 5)
    assert table[2, 1] == pytest.approx(mean_squared_error(b[1], a[2].ravel()))
    assert metrics.squared_error_matrix(b, b).diagonal() == pytest.approx(0, abs=1e-14)
    far = 1e3 * rng.normal(size=(20, 30))  # rounding of large squares gives no error below 0
    assert 0 <= metrics.squared_error_matrix(far, far).diagonal().min() < 1e-9
    with pytest.raises(UserError, match="8 values and gallery items 7"):
        metrics.squared_error_matrix(a, b[:, 1:])


def test_n_way_retrieval_is_the_mean_over_random_draws(rng):
    similarity, index = rng.random((6, 9)), np.array([4, 1, 0, 8, 3, 3])
    for row, true in enumerate(index):  # ranks 1 to 6
        best = np.sort(similarity[row])[::-1]
        similarity[row, similarity[row].argsort()[::-1][row]] = similarity[row, true]
        similarity[row, true] = best[row]
    found = metrics.n_way_retrieval(similarity, index, 4)
    for row, true in enumerate(index):
        others = np.delete(np.arange(9), true)
        hits = [
            (similarity[row, list(some)] < similarity[row, true]).all()
            for some in itertools.combinations(others, 3)
        ]
        assert found[row] == pytest.approx(np.mean(hits))
    assert found[0] == 1 and found[5] == pytest.approx(1 / 56)


def test_n_way_retrieval_at_its_ends(rng):
    similarity, index = rng.random((2000, 12)), rng.integers(0, 12, 2000)
    chance = metrics.n_way_retrieval(similarity, index, 4).mean()
    assert chance == pytest.approx(1 / 4, abs=0.02)
    whole = metrics.n_way_retrieval(similarity, index, 300)  # all twelve are candidates
    assert whole.mean() == metrics.top_k(similarity, index, 1)
    assert not metrics.n_way_retrieval(np.zeros((1, 12)), np.array([0]), 2).any()  # ties miss


# ------------------------------------------------------------------------------ labels and
# rankings


def test_balanced_accuracy_weighs_classes_equally():
    truth = np.array(["a"] * 8 + ["b"] * 2)
    assert metrics.balanced_accuracy(truth, np.array(["a"] * 10)) == 0.5
    assert metrics.balanced_accuracy(truth, truth) == 1
    half = np.array(["a"] * 8 + ["b", "a"])
    assert metrics.balanced_accuracy(truth, half) == 0.75
    with pytest.raises(UserError, match=r"found shapes \(9,\) and \(10,\)"):
        metrics.balanced_accuracy(truth, half[1:])


def test_balanced_accuracy_equals_scikit_learn(rng):
    from sklearn.metrics import balanced_accuracy_score

    truth, predicted = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    expected = balanced_accuracy_score(truth, predicted)
    assert metrics.balanced_accuracy(truth, predicted) == pytest.approx(expected)


def test_spearman_equals_scipy_and_leaves_nan_out(rng):
    from scipy.stats import spearmanr

    a = rng.integers(0, 6, 40).astype(float)
    b = a + rng.integers(0, 6, 40)
    expected = spearmanr(a, b).statistic
    assert metrics.spearman(a, b) == pytest.approx(expected)
    with_gap = metrics.spearman(np.append(a, np.nan), np.append(b, 3))
    assert with_gap == pytest.approx(expected)
    assert metrics.spearman(np.arange(5), np.arange(5) ** 3) == pytest.approx(1)
    assert np.isnan(metrics.spearman(np.ones(5), np.arange(5)))
    assert np.isnan(metrics.spearman([1, 2], [1, 2]))
    with pytest.raises(UserError, match=r"found \(2,\) and \(3,\)"):
        metrics.spearman([1, 2], [1, 2, 3])


def test_auc_equals_scikit_learn(rng):
    from sklearn.metrics import roc_auc_score

    scores = rng.integers(0, 9, 80).astype(float)  # with many ties
    positives = rng.random(80) < 0.3
    assert metrics.auc(scores, positives) == pytest.approx(roc_auc_score(positives, scores))
    with_gap = metrics.auc(np.append(scores, np.nan), np.append(positives, True))
    assert with_gap == pytest.approx(metrics.auc(scores, positives))


def test_auc_at_its_ends_and_under_permutation(rng):
    scores = np.arange(68.0)
    positives = scores >= 40
    assert metrics.auc(scores, positives) == 1
    assert metrics.auc(-scores, positives) == 0
    assert metrics.auc(np.ones(68), positives) == 0.5
    assert np.isnan(metrics.auc(scores, np.ones(68, bool)))
    permuted = [metrics.auc(scores, rng.permutation(positives)) for _ in range(200)]
    assert np.mean(permuted) == pytest.approx(0.5, abs=0.05)
    with pytest.raises(UserError, match=r"found shapes \(68,\) and \(67,\)"):
        metrics.auc(scores, positives[1:])


# --------------------------------------------------------------------------------------
# uncertainty


def test_bootstrap_interval_of_a_mean(rng):
    scores = rng.normal(size=400)
    low, high = metrics.bootstrap_interval(scores, seed=1)
    error = scores.std() / np.sqrt(400)
    assert low == pytest.approx(scores.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(scores.mean() + 1.96 * error, abs=0.3 * error)
    assert (low, high) == metrics.bootstrap_interval(scores, seed=1)
    assert (low, high) != metrics.bootstrap_interval(scores, seed=2)
    narrow = metrics.bootstrap_interval(scores, seed=1, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    slowly = metrics.bootstrap_interval(scores, seed=1, statistic=np.mean)
    assert (low, high) == pytest.approx(slowly, abs=1e-12)


def test_bootstrap_of_another_statistic_resamples_whole_stimuli():
    table = np.arange(40.0).reshape(20, 2)
    difference = metrics.bootstrap_interval(
        table, seed=0, statistic=lambda t: (t[:, 1] - t[:, 0]).mean()
    )
    assert difference == (1, 1)  # the two columns of a stimulus stay together
    ratio = metrics.bootstrap_interval(
        table, seed=0, statistic=lambda t: t[:, 0].mean() / t[:, 1].mean()
    )
    quickly = metrics.bootstrap_interval(table, seed=0, of_means=lambda m: m[:, 0] / m[:, 1])
    assert quickly == pytest.approx(ratio, abs=1e-12) and quickly[0] < quickly[1]


def test_bootstrap_is_over_stimuli_and_never_over_their_pairs(rng):
    """Nine values that are one say no more than one: resampling pairs would say three times."""
    scores = rng.normal(size=60)
    alone = metrics.bootstrap_interval(scores, seed=3)
    for pairs in (np.tile(scores[:, None], 9), np.tile(scores[:, None, None], (1, 3, 3))):
        assert metrics.bootstrap_interval(pairs, seed=3) == pytest.approx(alone, abs=1e-12)
        slowly = metrics.bootstrap_interval(pairs, seed=3, statistic=np.mean)
        assert slowly == pytest.approx(alone, abs=1e-12)
    quickly = metrics.bootstrap_interval(
        np.tile(scores[:, None], 9), seed=3, of_means=lambda means: means.mean(axis=1)
    )
    assert quickly == pytest.approx(alone, abs=1e-12)


def test_bootstrap_covers_the_truth_as_often_as_it_says(rng):
    covered = 0
    for seed in range(200):
        low, high = metrics.bootstrap_interval(rng.normal(size=50), seed=seed, resamples=300)
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_bootstrap_refuses_nothing_and_nonsense():
    for level in (0, 1):
        with pytest.raises(UserError, match=f"found 3 stimuli and level {level}"):
            metrics.bootstrap_interval(np.ones(3), seed=0, level=level)
    with pytest.raises(UserError, match="found 0 stimuli and level 0.95"):
        metrics.bootstrap_interval(np.array([]), seed=0)
    with pytest.raises(UserError, match="found 3 stimuli and level 95"):
        metrics.bootstrap_interval(np.ones(3), seed=0, level=95)


def test_derangement_moves_everything_and_is_fair(rng):
    for n in (2, 3, 50):
        order = metrics.derangement(n, rng)
        assert sorted(order) == list(range(n)) and (order != np.arange(n)).all()
    seen = {}
    for _ in range(1800):
        order = tuple(metrics.derangement(4, rng).tolist())
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 9  # all derangements of four
    assert min(seen.values()) > 130 and max(seen.values()) < 270
    with pytest.raises(UserError, match="at least 2 things to swap, found 1"):
        metrics.derangement(1, rng)


# ------------------------------------------------------------------------------------- reliability


def test_the_noise_ceiling_is_what_averages_of_repeats_reach():
    """A voxel of signal 0.5 and noise 1: the squared correlation of signal and averages."""
    assert metrics.noise_ceiling(np.array([0.0, 1.0, 3.0]), 1) == pytest.approx([0, 50, 90])
    rng = np.random.default_rng(0)
    signal = 0.5 * rng.standard_normal(40_000)
    for n in (1, 3):
        averages = signal + rng.standard_normal((n, signal.size)).mean(axis=0)
        reached = 100 * np.corrcoef(signal, averages)[0, 1] ** 2
        assert metrics.noise_ceiling(np.array([0.5]), n)[0] == pytest.approx(reached, rel=0.03)
    assert np.isnan(metrics.noise_ceiling(np.array([np.nan]), 3)[0])
    with pytest.raises(UserError, match="that of 1 trial or more, found 0"):
        metrics.noise_ceiling(np.ones(2), 0)


def test_evenly_takes_both_ends():
    assert list(metrics.evenly(10, None)) == list(range(10))
    assert list(metrics.evenly(10, 4)) == [0, 3, 6, 9]
    assert list(metrics.evenly(3, 99)) == [0, 1, 2]


def test_numbers_are_written_with_a_true_minus_and_no_minus_zero():
    assert metrics.written(-1.236) == "\N{MINUS SIGN}1.24"
    assert metrics.written(-4e-4, 3) == metrics.written(np.float32(4e-4), 3) == "0.000"
    assert metrics.written(-5.01e-4, 3) == "\N{MINUS SIGN}0.001"
    assert metrics.written(float("nan")) == "nan"
