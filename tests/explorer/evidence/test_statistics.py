"""Maps over test stimuli: planted parcels, known nulls, and whether p says what it should."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from explorer.brain import importance
from explorer.brain.maps import attribute_voxels, parcellation_of
from explorer.evidence.statistics import subject_map
from explorer.matching import split_hash
from explorer.request import Request, View
from explorer.types import Card, UserError

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
    stimuli = list(workbench.catalogue.gallery("fake", "sub-01").index)
    betas = np.stack([workbench.catalogue.trials("fake", "sub-01").average(s) for s in stimuli])
    voxels = attribute_voxels(workbench, REQUEST, View(), betas, stimuli)
    parcellation = parcellation_of(workbench, "fake", "sub-01")
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
    ncsnr = workbench.catalogue.trials("fake", "sub-01").subject.ncsnr
    atlas = parcellation_of(workbench, "fake", "sub-01")
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
    subject_map(workbench, REQUEST, View(), permutations=50, seed=0, progress=told.append)
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


# ------------------------------------------------------------------------------- the shipped study


@pytest.mark.skipif(
    not (ROOT / "checkpoints" / "mappers" / "simulated" / "ridge-subj01").exists(),
    reason="the shipped mappers are not here",
)
def test_on_the_truth_informative_parcels_are_found():
    from backends import DATASETS, EMBEDDERS, GENERATORS, MAPPERS
    from explorer.workbench import Workbench

    bench = Workbench(DATASETS, EMBEDDERS, MAPPERS, GENERATORS, checkpoints=ROOT / "checkpoints")
    stimulus = bench.catalogue.gallery("simulated", "subj01").index[0]
    asked = Request("simulated", "subj01", stimulus, "ridge", "pocket-diffusion")
    found = subject_map(bench, asked, View(), permutations=400)
    truth = bench.catalogue.dataset("simulated").truth("subj01").parcels
    q = found.table.set_index("parcel")["q_evidence"].loc[truth.index]
    informative = truth["role"] == "informative"
    assert (q[informative] <= 0.05).all() and (q[~informative] <= 0.05).mean() < 0.15
    assert found.randomised.within and found.repeats.value > 0.9 and not found.banner
