"""The tests behind maps: known nulls, known answers, and whether p says what it should."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import kstest, ttest_1samp

from explorer import metrics
from explorer.brain import importance
from explorer.evidence import inference
from explorer.evidence.inference import (
    discoveries,
    evidence_test,
    over_subjects,
    parcel_evidence,
    place_test,
    shuffled_weights,
    turns,
)
from explorer.types import VoxelSpace


def test_evidence_by_hand():
    """Three stimuli, all six orders: the true one is the largest mean, reached once."""
    from itertools import permutations

    orders = np.array(list(permutations(range(3))))
    shown = np.eye(3) * 7  # its length must not matter
    z, p = evidence_test(np.diag([3.0, 2.0, 1.0]), shown, orders)
    means = [np.diag([3.0, 2.0, 1.0])[np.arange(3), order].mean() for order in orders]
    assert p == pytest.approx(2 / 7) and z == pytest.approx((2 - np.mean(means)) / np.std(means))
    assert evidence_test(-np.diag([3.0, 2.0, 1.0]), shown, orders)[1] == 1
    assert evidence_test(np.zeros((3, 3)), shown, orders) == (0.0, 1.0)


def test_evidence_of_parcels_equals_that_of_each_by_plain_loops(monkeypatch):
    rng = np.random.default_rng(5)
    betas, weight = rng.standard_normal((12, 60)), rng.standard_normal((60, 7))
    shown, average = rng.standard_normal((12, 7)) + 2, rng.standard_normal(60)
    masks = np.repeat(np.eye(4, dtype=bool), 15, axis=1)
    masks[3, :8] = False
    masks[3, 45:55] = False  # five voxels: not tested
    decode = lambda rows: rows @ weight + 1  # noqa: E731
    z, p = parcel_evidence(decode, betas, average, masks, shown, 99, seed=3)
    orders = np.random.default_rng(3).permuted(np.tile(np.arange(12), (99, 1)), axis=1)
    unit = shown / np.linalg.norm(shown, axis=1, keepdims=True)
    for i in range(3):
        rows = decode(np.where(masks[i], betas, average))
        rows -= rows.mean(axis=0)
        null = [np.mean([rows[k] @ unit[order[k]] for k in range(12)]) for order in orders]
        found = np.mean([rows[k] @ unit[k] for k in range(12)])
        assert z[i] == pytest.approx((found - np.mean(null)) / np.std(null), rel=1e-5)
        assert p[i] == (1 + sum(value >= found for value in null)) / 100
    assert np.isnan(z[3]) and np.isnan(p[3])
    monkeypatch.setattr(inference, "PRODUCTS", 1)  # one parcel at a time
    monkeypatch.setattr(inference, "ORDERS_AT_ONCE", 7)
    alone = parcel_evidence(
        None, betas, average, masks, shown, 99, 3,
        alone=lambda mask: decode(np.where(mask, betas, average)),
    )  # fmt: skip
    np.testing.assert_allclose(alone, (z, p), rtol=1e-6)


def test_places_and_shuffled_weights_equal_the_general_way():
    rng = np.random.default_rng(6)
    values, masks = rng.random(300), rng.random((5, 300)) < [[0.1], [0.3], [0.02], [0.0], [0.9]]
    sources = turns(VoxelSpace(300, "plain"), 250, seed=4)
    plain = np.random.default_rng(4).permuted(np.tile(np.arange(300), (250, 1)), axis=1)
    np.testing.assert_array_equal(sources, plain)
    found = place_test(values, masks, sources)
    # one more voxel, in no parcel and without a place, asks for the general way
    padded = np.hstack([sources.astype(int), np.full((250, 1), 301)])
    general = place_test(np.append(values, 0.5), np.pad(masks, ((0, 0), (0, 1))), padded)
    np.testing.assert_allclose(found[0], general[0])
    np.testing.assert_array_equal(found[1], general[1])
    own, random = rng.random((2, 30)).round(1)  # with ties
    draw = np.random.default_rng(8)
    drawn = [metrics.spearman(own, draw.permutation(random)) for _ in range(200)]
    got = inference.randomised(own, random, 200, seed=8)
    assert (got.low, got.high) == pytest.approx(np.quantile(drawn, (0.025, 0.975)))


def test_evidence_is_uniform_under_its_null_though_noise_is_shared_and_unequal():
    rng, p = np.random.default_rng(0), []
    shown = rng.standard_normal((20, 6))
    for _ in range(500):
        common = rng.standard_normal((20, 1)) * rng.exponential(size=(20, 1))
        change = common + 0.1 * rng.standard_normal((20, 6)) + [5, 0, 0, 0, 0, 0]
        orders = rng.permuted(np.tile(np.arange(20), (99, 1)), axis=1)
        p.append(evidence_test(change, shown, orders)[1])
    assert kstest(p, "uniform").pvalue > 0.05
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.03)


def test_p_of_evidence_is_uniform_where_labels_were_permuted_before_training(fakes):
    """70 permuted studies of 8 parcels, each with a mapper of its own: 560 true nulls."""
    trials, embedder = fakes.Study().load("sub-01"), fakes.Embedder()
    atlas = next(iter(trials.subject.voxels.parcellations.values()))
    masks = atlas.masks()[atlas.masks().sum(axis=1) >= importance.SMALL]
    train, test = trials.stimuli("train"), trials.stimuli("test")
    known = {s: embedder.embed([fakes.picture(s)])[0] for s in train}
    shown = embedder.embed([fakes.picture(s) for s in test])
    betas = np.stack([trials.average(s) for s in test])
    p, false = [], []
    for study in range(70):
        rng = np.random.default_rng(study)
        permuted = dict(zip(train, [known[s] for s in rng.permutation(train)], strict=True))
        mapper = fakes.Linear.fit([trials], {fakes.space: permuted}, seed=0)
        _, own = parcel_evidence(
            lambda rows, mapper=mapper: mapper.decode(rows, "sub-01")[fakes.space],
            betas,
            mapper.statistics("sub-01")[0].numpy(),
            masks,
            rng.permutation(shown),
            permutations=199,
            seed=study,
        )
        p.append(own)
        false.append((discoveries(own, np.ones(8, bool)) <= 0.05).any())
    assert np.size(p) == 560 and kstest(np.ravel(p), "uniform").pvalue > 0.05
    assert np.mean(false) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 70)


def test_places_by_hand():
    values = np.array([5.0, 5, 1, 1, 1, 1])
    masks = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0] * 6, [0, 0, 0, 0, 1, 1]], bool)
    v = 6
    sources = np.array([np.roll(np.arange(6), k) for k in range(1, 6)])
    sources[:, 5] = v  # the last voxel has no place
    p, valid = place_test(values, masks, sources)
    # rolled by k, parcel 0 sees voxels (6 - k, 7 - k): its mean of 5 is not reached; parcel 1
    # reaches its mean of 1 in every turn; parcel 2 is empty, parcel 3 has one voxel left
    np.testing.assert_allclose(p, [1 / 6, 1, np.nan, 1])
    np.testing.assert_array_equal(valid, [5, 5, 0, 5])
    few = np.full((200, 6), v)
    few[:99, :5] = np.arange(5)  # 99 turns in which anything is near: too few for a p
    assert np.isnan(place_test(values, masks, few)[0]).all()
    few[99, :5] = np.arange(5)  # 100 are enough
    np.testing.assert_array_equal(np.isfinite(place_test(values, masks, few)[0]), [1, 1, 0, 1])


def test_a_turn_keeps_neighbours_together_and_mirrors_the_hemispheres():
    import scipy.sparse as sp

    from explorer.brain.surfaces import bundled

    rows = np.r_[0:2562, 10242 : 10242 + 2562]  # a coarser sphere of the same vertices
    places = (np.ones(len(rows), np.float32), (rows, np.arange(len(rows))))
    voxels = VoxelSpace(len(rows), "h", sp.csr_matrix(places, shape=(20_484, len(rows))))
    turned = turns(voxels, 5, seed=1).astype(int)
    half = len(rows) // 2
    assert turned.shape == (5, 5124) and turned.max() < 5124  # the whole sphere is within reach
    assert (turned[:, :half] < half).all() and (turned[:, half:] >= half).all()
    sphere = {side: bundled(f"sphere_{side}")[0].astype(float) for side in ("left", "right")}
    left, right = sphere["left"][:half], sphere["right"][:half]
    mirrored = right * [-1, 1, 1]
    twin = np.array([np.linalg.norm(left - place, axis=1).argmin() for place in mirrored])
    for turn in turned:
        assert len(set(turn[:half])) > 0.6 * half  # hardly anything is shown twice
        moved = left[turn[:half]]
        before, after = (np.linalg.norm(at[:200] - at[200:400], axis=1) for at in (left, moved))
        assert np.abs(before - after).max() < 2 * inference.REACH
        apart = np.linalg.norm(moved[twin] - mirrored[turn[half:] - half], axis=1)
        assert apart.max() < 2 * inference.REACH
    assert np.linalg.norm(left[turned[0, :half]] - left, axis=1).mean() > 20
    np.testing.assert_array_equal(turns(voxels, 5, seed=1), turned)
    plain = dataclasses.replace(voxels, projection=None)
    np.testing.assert_array_equal(np.sort(turns(plain, 3, 0), axis=1), [np.arange(5124)] * 3)


def test_discoveries_are_benjamini_and_hochbergs():
    p = np.array([0.01, 0.04, 0.03, np.nan, 0.5])
    tested = np.array([True, True, True, True, False])
    q = discoveries(p, tested)
    np.testing.assert_allclose(q, [0.03, 0.04, 0.04, np.nan, np.nan])
    assert np.isnan(discoveries(p, np.zeros(5, bool))).all()


def test_random_effects_are_a_t_test_over_subjects():
    values = np.random.default_rng(0).normal(0.5, size=(4, 3))
    values[0, 2] = np.nan
    mean, low, high, p = over_subjects(values)
    for i, column in enumerate(values.T):
        known = column[np.isfinite(column)]
        test = ttest_1samp(known, 0, alternative="greater")
        interval = ttest_1samp(known, 0).confidence_interval(0.95)
        found = (mean[i], low[i], high[i], p[i])
        np.testing.assert_allclose(found, (known.mean(), *interval, test.pvalue))
    alone = over_subjects(values[:1, :2])
    np.testing.assert_array_equal(alone[0], values[0, :2])
    assert np.isnan(alone[1:]).all()


def test_shuffled_weights_are_the_same_numbers_elsewhere(workbench):
    mapper = workbench.models.mapper("fake", "sub-01", "linear")
    before = {name: value.clone() for name, value in mapper.state_dict().items()}
    random = shuffled_weights(mapper, 0)
    for name, value in random.state_dict().items():
        assert mapper.state_dict()[name].equal(before[name])
        assert value.flatten().sort().values.equal(before[name].flatten().sort().values)
        assert value.equal(before[name]) == name.startswith(("mean_", "sd_"))
    again, other = shuffled_weights(mapper, 0), shuffled_weights(mapper, 1)
    name = "weight_sub-01"
    assert again.state_dict()[name].equal(random.state_dict()[name])
    assert not other.state_dict()[name].equal(random.state_dict()[name])
