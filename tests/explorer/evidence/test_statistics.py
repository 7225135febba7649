"""Maps over test stimuli: planted parcels, known nulls, and whether p says what it should."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest, ttest_1samp

from explorer.brain import importance
from explorer.evidence import statistics
from explorer.evidence.statistics import (
    discoveries,
    evidence_test,
    group_map,
    over_subjects,
    parcel_evidence,
    place_test,
    shuffled_weights,
    subject_map,
    turns,
)
from explorer.mapper import split_hash
from explorer.request import Request, View
from explorer.types import Card, UserError, VoxelSpace

ROOT = Path(__file__).resolve().parents[3]
REQUEST = Request("fake", "sub-01", "test-04", "linear", "painter")


@pytest.fixture(scope="module")
def found(fakes, fake_checkpoints):
    """Return the map of the fake study's first subject, whose informative parcels are known."""
    return subject_map(bench_of(fakes, fake_checkpoints), REQUEST, View(), permutations=200)


def bench_of(fakes, checkpoints, **changed):
    from explorer.workbench import Workbench

    arguments = {
        "datasets": {"fake": fakes.Study},
        "embedders": {"pocket-clip": fakes.Embedder},
        "mappers": {"linear": fakes.Linear, "ridge": fakes.Linear},
        "generators": {"painter": fakes.Generator},
        "checkpoints": checkpoints,
    }
    return Workbench(**(arguments | changed))


def checkpoint(fakes, folder, name="linear", seed=None, scale=1.0):
    """Write a mapper of sub-01 whose weights are noise."""
    import torch

    trials = fakes.Study().load("sub-01")
    voxels = trials.subject.voxels
    mapper = fakes.Linear((fakes.space,), {"sub-01": voxels.n_voxels})
    mapper.set_statistics(trials)
    draw = torch.Generator().manual_seed(seed or 0)
    mapper.weight_sub = None
    weight = mapper.get_parameter("weight_sub-01")
    weight.data.copy_(scale * torch.randn(weight.shape, generator=draw))
    card = Card(
        kind="mapper",
        name=name,
        cls="linear",
        dataset="fake",
        command="made by a test",
        licence="CC0",
        subjects=("sub-01",),
        voxels={"sub-01": (voxels.n_voxels, voxels.hash)},
        targets=(fakes.space,),
        split_hash=split_hash(trials),
        settings={} if seed is None else {"seed": seed},
    )
    mapper.save_pretrained(folder / "mappers" / "fake" / f"{name}-sub-01", card)


# --------------------------------------------------------------------------------- a subject's map


def test_the_informative_parcels_are_found_and_no_others(found, fakes):
    table = found.table[found.table["voxels"] > 0]
    informative = table["name"].isin(fakes.informative)
    assert informative.sum() == 4 and found.tests == len(table) == 8
    assert (table["q_evidence"][informative] <= 0.05).all()
    assert table["evidence"][informative].min() > 4 > table["evidence"][~informative].max()
    assert found.found == (table["q_evidence"] <= 0.05).sum() < 6
    assert table["value"][informative].min() > 1 > table["value"][~informative].max()
    assert found.banner == "" and found.identification[1] > 0.5 and found.stimuli == 10
    assert found.atlas == "Desikan-Killiany" and "rotations of the sphere" in found.null


def test_values_are_the_mean_over_trials_and_lie_in_their_interval(found, workbench):
    stimuli = list(workbench.gallery("fake", "sub-01").index)
    betas = np.stack([workbench.trials("fake", "sub-01").average(s) for s in stimuli])
    voxels = workbench.attribution(REQUEST, View(), betas, stimuli)
    parcellation = workbench.parcellation("fake", "sub-01")
    expected = importance.per_parcel(voxels, parcellation)
    np.testing.assert_allclose(found.table["value"], expected["enrichment"])
    np.testing.assert_allclose(found.voxels, importance.mean_map(voxels))
    known = found.table[found.table["voxels"] > 0]
    assert (known["low"] < known["value"]).all() and (known["value"] < known["high"]).all()
    empty = found.table[found.table["voxels"] == 0]
    columns = ["value", "low", "p_evidence", "q_evidence", "p_place", "randomised", "per_ceiling"]
    assert len(empty) == 61 and empty[columns].isna().all(axis=None)


def test_dividing_by_the_ceiling_needs_one(found, workbench):
    """The fake study's controls have no signal, so their ceiling is 0 and nothing is divided."""
    table = found.table[found.table["voxels"] > 0].set_index("parcel")
    informative = table[table["name"].isin(["pericalcarine", "fusiform"])]
    np.testing.assert_allclose(
        informative["per_ceiling"], informative["value"] / informative["ceiling"] * 100
    )
    assert table[~table.index.isin(informative.index)]["per_ceiling"].isna().all()
    ncsnr = workbench.trials("fake", "sub-01").subject.ncsnr
    atlas = workbench.parcellation("fake", "sub-01")
    fusiform = ncsnr[atlas.membership == [label.key for label in atlas.labels].index("fusiform L")]
    ceiling = 100 * np.mean(fusiform**2 / (fusiform**2 + 1 / 2))  # of two repeats
    assert table.loc["fusiform L", "ceiling"] == pytest.approx(ceiling)


def test_repeats_seeds_and_shuffled_weights_are_told(found):
    (pair,) = found.repeats.pairs
    assert pair[:2] == ("repeat 1", "repeat 2") and 0.5 < found.repeats.value <= 1
    assert found.repeats.sentence.startswith("Maps of two repeats correlate 0.")
    assert math.isnan(found.seeds.value) and "No other seed of this mapper" in found.seeds.sentence
    random = found.randomised
    assert random.within and random.low < random.correlation < random.high
    assert "within what chance gives" in random.sentence


@pytest.mark.parametrize("measure", ["share", "mean", "signed"])
def test_every_measure_has_its_values_and_the_same_tests(measure, found, workbench):
    other = subject_map(workbench, REQUEST, View(measure=measure), permutations=200)
    assert other.measure == measure
    assert not np.allclose(other.table["value"], found.table["value"], equal_nan=True)
    for column in ("p_evidence", "p_place"):
        np.testing.assert_array_equal(other.table[column], found.table[column])
    low, high = other.limits["value"]
    assert (low < 0) == (measure == "signed") and high > 0


def test_the_trial_on_screen_does_not_matter_and_nothing_is_made_twice(workbench):
    told = []
    first = subject_map(
        workbench, REQUEST, View(), permutations=50, progress=lambda *a: told.append(a)
    )
    count = len(told)
    shares = [done for done, _ in told]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    other = dataclasses.replace(REQUEST, stimulus="test-07", seed=5, scales=(3.0,))
    again = subject_map(
        workbench, other, View(), permutations=50, progress=lambda *a: told.append(a)
    )
    assert len(told) == count
    assert first.table.equals(again.table)


def test_what_progress_raises_stops_and_keeps_nothing(workbench):
    class Stop(Exception):
        pass

    def stop(done, what):
        if done > 0.5:
            raise Stop

    with pytest.raises(Stop):
        subject_map(workbench, REQUEST, View(), permutations=50, progress=stop)
    told = []
    subject_map(workbench, REQUEST, View(), permutations=50, progress=lambda *a: told.append(a))
    assert told


def test_one_repeat_alone_can_be_asked_for(workbench):
    alone = subject_map(
        workbench, dataclasses.replace(REQUEST, repeats=(1,)), View(), permutations=50
    )
    assert not alone.repeats.pairs and "one repeat of each test image" in alone.repeats.sentence
    ceiling = alone.table["ceiling"].dropna()
    both = subject_map(workbench, REQUEST, View(), permutations=50).table["ceiling"].dropna()
    assert (ceiling <= both).all() and (ceiling < both).any()


def test_a_decoder_at_chance_is_not_interpreted(fakes, tmp_path):
    checkpoint(fakes, tmp_path)
    found = subject_map(bench_of(fakes, tmp_path), REQUEST, View(), permutations=200)
    assert found.identification[1] <= 0.5
    assert found.banner.startswith("linear is not above chance on sub-01: it tells the shown")
    assert "chance 50 %, N = 10 test images" in found.banner


def test_mappers_that_differ_by_seed_are_compared(fakes, tmp_path):
    for seed in (0, 1):
        checkpoint(fakes, tmp_path, f"linear{seed}", seed)
    asked = dataclasses.replace(REQUEST, mapper="linear0")
    found = subject_map(bench_of(fakes, tmp_path), asked, View(), permutations=50)
    assert [pair[:2] for pair in found.seeds.pairs] == [("this mapper", "seed 1")]
    assert -1 <= found.seeds.value <= 1


def test_what_cannot_be_mapped_says_why(fakes, tmp_path, workbench, monkeypatch):
    with pytest.raises(UserError, match="linear gives an embedding and no density, so it has no"):
        subject_map(workbench, REQUEST, View(target="log-likelihood"))
    few = dataclasses.replace(REQUEST, repeats=(7,))
    with pytest.raises(UserError, match="at least 2 of them with finite betas, found 0 of fake/"):
        subject_map(workbench, few, View())
    checkpoint(fakes, tmp_path, scale=0.0)
    with pytest.raises(UserError, match="gradient of linear is zero in all 10 trials of fake/sub"):
        subject_map(bench_of(fakes, tmp_path), REQUEST, View(), permutations=10)


def test_without_places_voxels_are_permuted_and_it_says_so(fakes, fake_checkpoints):
    class Nowhere(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            voxels = dataclasses.replace(trials.subject.voxels, projection=None)
            return dataclasses.replace(
                trials, subject=dataclasses.replace(trials.subject, voxels=voxels)
            )

    bench = bench_of(fakes, fake_checkpoints, datasets={"fake": Nowhere})
    found = subject_map(bench, REQUEST, View(), permutations=200)
    assert "permutations of voxels, as there are no places" in found.null
    table = found.table[found.table["voxels"] > 0]
    assert (table["turns"] == 200).all()
    assert (table["q_place"] <= 0.05).equals(table["name"].isin(fakes.informative))


# ----------------------------------------------------------------------------------------- a group


def test_a_group_is_the_mean_of_its_subjects(fakes, tmp_path):
    bench = bench_of(fakes, tmp_path)  # nothing trained: a ridge is fitted for both
    name = bench.mapper_names("fake", "sub-01")[0]
    told = []
    group = group_map(
        *(bench, dataclasses.replace(REQUEST, mapper=name), View()),
        permutations=50,
        progress=lambda *a: told.append(a),
    )
    assert [one.subject for one in group.subjects] == ["sub-01", "sub-02"]
    known = group.table[group.table["subjects"] > 0]
    assert len(known) == 8 and (known["subjects"] == 2).all()
    own = [one.table.set_index("parcel")["value"].loc[known["parcel"]] for one in group.subjects]
    np.testing.assert_allclose(known["value"], np.mean(own, axis=0))
    informative = known["name"].isin(fakes.informative)
    assert (known["found"][informative] == 2).all()
    assert group.agreement.pairs[0][:2] == ("sub-01", "sub-02") and group.agreement.value > 0.5
    assert (
        group.sentence.startswith("N = 2 subjects.") and "1 degrees of freedom" in group.sentence
    )
    assert group.banner == "" and group.left_out == ()
    assert told[0][1].startswith("sub-01: ") and told[-1] == (1.0, "sub-02: done")


def test_a_subject_without_the_mapper_is_left_out_and_named(workbench):
    group = group_map(workbench, REQUEST, View(), permutations=50)
    assert [one.subject for one in group.subjects] == ["sub-01"]
    assert group.left_out == ("sub-02: it has no mapper linear.",)
    assert group.sentence == "N = 1 subject: nothing can be said about others."
    assert group.table[["low", "high", "p", "q"]].isna().all(axis=None)


def test_no_subject_at_all_is_refused(workbench):
    with pytest.raises(
        UserError, match="No subject of fake could be mapped: sub-01: it has no map"
    ):
        group_map(workbench, dataclasses.replace(REQUEST, mapper="other"), View())


# --------------------------------------------------------------------------------------- the tests


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
        assert np.abs(before - after).max() < 2 * statistics.REACH
        apart = np.linalg.norm(moved[twin] - mirrored[turn[half:] - half], axis=1)
        assert apart.max() < 2 * statistics.REACH
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


# ------------------------------------------------------------------------------- the shipped study


@pytest.mark.skipif(
    not (ROOT / "checkpoints" / "mappers" / "simulated" / "ridge-subj01").exists(),
    reason="the shipped mappers are not here",
)
def test_on_the_truth_informative_parcels_are_found():
    from backends import DATASETS, EMBEDDERS, GENERATORS, MAPPERS
    from explorer.workbench import Workbench

    bench = Workbench(DATASETS, EMBEDDERS, MAPPERS, GENERATORS, checkpoints=ROOT / "checkpoints")
    stimulus = bench.gallery("simulated", "subj01").index[0]
    asked = Request("simulated", "subj01", stimulus, "ridge", "pocket-diffusion")
    found = subject_map(bench, asked, View(), permutations=400)
    truth = bench.dataset("simulated").truth("subj01").parcels
    q = found.table.set_index("parcel")["q_evidence"].loc[truth.index]
    informative = truth["role"] == "informative"
    assert (q[informative] <= 0.05).all() and (q[~informative] <= 0.05).mean() < 0.15
    assert found.randomised.within and found.repeats.value > 0.9 and not found.banner
