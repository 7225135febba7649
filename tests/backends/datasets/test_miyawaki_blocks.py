"""Volumes made betas of blocks, against least squares and nilearn."""

import numpy as np

from backends.datasets.miyawaki_blocks import block_amplitudes, estimates, spans


def test_blocks_are_runs_of_one_picture():
    shown = np.array([-1, -1, 3, 3, 3, -1, 0, 0, 1, 1, -1, -1, 2])
    # two pictures without rest between them are two blocks; the last one is seen too late
    assert spans(shown) == [(2, 5), (6, 8), (8, 10)]
    assert spans(np.full(4, -1)) == []


def test_means_are_of_the_delayed_volumes_of_the_block():
    rng = np.random.default_rng(0)
    series = rng.standard_normal((40, 3)) + [100, 0, -5] + np.arange(40)[:, None] * [3, 0, 1]
    t = np.arange(40)
    trend = np.column_stack([np.ones(40), t])
    flat = series - trend @ np.linalg.lstsq(trend, series, rcond=None)[0]
    flat /= flat.std(axis=0)
    found = estimates(series, [(4, 7), (37, 40)], "mean")
    expected = [flat[6:9].mean(axis=0), flat[39:].mean(axis=0)]  # cut at the end of the run
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_still_voxel_is_zero():
    series = np.random.default_rng(0).standard_normal((20, 2)).astype(np.float32)
    series[:, 1] = 1234.5678
    assert (estimates(series, [(2, 5)], "mean")[:, 1] == 0).all()


def test_amplitudes_are_what_was_put_into_the_signal():
    """Responses made with nilearn's own haemodynamic response come back, overlap or not."""
    from nilearn.glm.first_level import compute_regressor

    parts, true = [(5, 8), (10, 13), (15, 21), (30, 36)], np.array([1.0, -2.0, 3.0, 0.5])
    frames = np.arange(60) * 2.0
    signal = np.zeros(60)
    for (begin, end), size in zip(parts, true, strict=True):
        condition = np.array([[begin * 2.0], [(end - begin) * 2.0], [1.0]])
        signal += size * compute_regressor(condition, "glover", frames)[0][:, 0]
    found = block_amplitudes(np.column_stack([signal, 2 * signal]), parts)
    np.testing.assert_allclose(found, true[:, None] * [1, 2], atol=1e-8)
