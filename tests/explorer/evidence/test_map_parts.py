"""What a map is made of: means and ceilings with known answers, jobs that fail, progress."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from explorer.brain.maps import parcellation_of
from explorer.evidence import map_parts
from explorer.evidence.map_parts import (
    Parts,
    _averages,
    _ceilings,
    _mean_statistics,
    measure_parts,
)
from explorer.evidence.statistics import _banner, _tabulate, subject_map
from explorer.request import Request, View
from explorer.types import Label, Parcellation, UserError

REQUEST = Request("fake", "sub-01", "test-04", "linear", "painter")


def parts_of(bench, request=REQUEST):
    """Return the parts of a map with few permutations, and what was told on the way."""
    told = []
    parcellation = parcellation_of(bench, "fake", "sub-01")
    progress = lambda *about: told.append(about)  # noqa: E731
    return measure_parts(bench, request, View(), parcellation, 5, 0, progress), told


def test_progress_counts_blocks_within_a_job_and_jobs_within_the_whole(workbench, monkeypatch):
    monkeypatch.setattr(map_parts, "ROWS_AT_ONCE", 4)
    _, told = parts_of(workbench)
    steps = 6  # the map, two repeats, shuffled weights, evidence and places
    assert [done * steps for done, _ in told[:7]] == pytest.approx([0, 0.4, 0.8, 1, 1.4, 1.8, 2])
    assert [what for _, what in told[:4]] == ["importance of 10 trials"] * 3 + ["repeat 1"]
    assert told[-2:] == [(5 / steps, "importance at other places"), (1, "done")]


def test_of_one_repeat_there_is_no_second_map(workbench):
    parts, told = parts_of(workbench, replace(REQUEST, repeats=(1,)))
    assert parts.repeats == {} and not any(what.startswith("repeat") for _, what in told)


def test_weights_that_give_no_map_cost_no_other_map(workbench, monkeypatch):
    """Shuffled weights may leave a density that is not finite; other seeds still have theirs."""
    whole, random = map_parts.attribute_voxels, map_parts.shuffled_weights

    def shuffled(mapper, seed):  # noqa: ANN001, ANN202
        made = random(mapper, seed)
        made.shuffled = True
        return made

    def attribute(bench, request, view, betas, shown, mapper=None):  # noqa: ANN001, ANN202
        if hasattr(mapper, "shuffled"):
            raise UserError("the density is not finite.")
        return whole(bench, request, view, betas, shown, mapper)

    monkeypatch.setattr(map_parts, "shuffled_weights", shuffled)
    monkeypatch.setattr(map_parts, "attribute_voxels", attribute)
    monkeypatch.setattr(map_parts, "sibling_names", lambda *about: {3: "linear"})
    parts, _ = parts_of(workbench)
    assert list(parts.repeats) == ["repeat 1", "repeat 2"] and list(parts.seeds) == ["seed 3"]
    own = parts.values["share"].mean(axis=0)
    np.testing.assert_allclose(parts.seeds["seed 3"]["share"], own)
    assert np.isnan(parts.randomised["share"]).all()
    assert parts.notes == ("There is no map of shuffled weights: the density is not finite.",)


def test_siblings_differ_by_seed_and_by_nothing_else():
    def card(cls="linear", targets=("clip",), **settings):  # noqa: ANN001, ANN003, ANN202
        return SimpleNamespace(cls=cls, targets=targets, settings=settings)

    cards = {
        "own": card(seed=0, width=4),
        "other seed": card(seed=1, width=4),
        "wider": card(seed=2, width=8),
        "other class": card("mlp", seed=3, width=4),
        "other target": card(targets=("dino",), seed=4, width=4),
        "same seed": card(seed=0, width=4),
        "fitted now": None,
    }
    catalogue = SimpleNamespace(
        offer=lambda dataset, subject, name: SimpleNamespace(card=cards[name]),
        mapper_names=lambda dataset, subject: list(cards),
    )
    bench = SimpleNamespace(catalogue=catalogue)
    of = lambda name: map_parts.sibling_names(bench, replace(REQUEST, mapper=name))  # noqa: E731
    assert of("own") == {1: "other seed"}
    assert of("other seed") == {0: "same seed"}
    assert of("wider") == of("fitted now") == {}


def test_flat_trials_leave_the_mean_and_nothing_but_flat_ones_has_none():
    share = np.array([[0.2, 0.8], [np.nan, np.nan], [0.4, 0.6]])
    signed = np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 6.0]])
    found = _mean_statistics({"share": share, "signed": signed})
    np.testing.assert_allclose(found["share"], [0.3, 0.7])
    np.testing.assert_allclose(found["signed"], [2, 4])
    flat = _mean_statistics({"share": share[1:2], "signed": signed[1:2]})
    for measure in ("share", "signed"):
        assert flat[measure].shape == (2,) and np.isnan(flat[measure]).all()


def test_the_ceiling_of_unequal_repeats_is_that_of_their_harmonic_mean():
    table = pd.DataFrame({"stimulus": ["a", "b", "b", "b"]})
    trials = SimpleNamespace(
        subject=SimpleNamespace(ncsnr=np.array([1.0, 2.0, np.nan, 0.5])),
        table=table,
        rows=lambda split, repeats: np.arange(4),
    )
    masks = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]], dtype=bool)
    n = 2 / (1 + 1 / 3)  # of one and three trials
    of = lambda ncsnr: 100 * ncsnr**2 / (ncsnr**2 + 1 / n)  # noqa: E731
    expected = [np.mean([of(1.0), of(2.0)]), np.nan, of(0.5), np.nan]
    np.testing.assert_allclose(_ceilings(trials, REQUEST, masks), expected)
    trials.subject.ncsnr = None
    assert np.isnan(_ceilings(trials, REQUEST, masks)).tolist() == [True] * 4


def test_averages_are_of_finite_betas_in_the_order_of_the_gallery():
    table = pd.DataFrame({"stimulus": ["b", "a", "b", "c"]})
    betas = np.array([[1, 2], [5, 5], [3, 6], [np.nan, 0]], dtype=np.float32)
    voxels = SimpleNamespace(n_voxels=2)
    trials = SimpleNamespace(table=table, betas=betas, subject=SimpleNamespace(voxels=voxels))
    trials.rows = lambda split, repeats: np.arange(4 if repeats == () else 0)
    names, means = _averages(trials, ["a", "b", "c", "d"], ())
    assert names == ["a", "b"] and means.tolist() == [[5, 5], [2, 4]]
    names, means = _averages(trials, ["a", "b"], (7,))
    assert names == [] and means.shape == (0, 2)


def test_a_map_of_one_test_image_is_refused(make_workbench, fakes):
    bench = make_workbench(datasets={"fake": fakes.OneImage})
    name = bench.catalogue.mapper_names("fake", "sub-01")[0]
    alone = replace(REQUEST, stimulus="test-01", mapper=name)
    with pytest.raises(UserError, match="at least 2 of them with finite betas, found 1 of fake/"):
        subject_map(bench, alone, View(), permutations=5)


# ------------------------------------------------------------------------------ what becomes of it


def planted(values, **changed):  # noqa: ANN001, ANN003, ANN202
    """Return parts of a map of three parcels and what is in none, of two trials."""
    nothing = np.full(4, np.nan)
    given = {
        "values": {"enrichment": np.array(values), "signed": -np.array(values)},
        "repeats": {},
        "seeds": {},
        "randomised": {"enrichment": np.arange(4.0), "signed": np.arange(4.0)},
        "voxels": np.zeros(60),
        "evidence": np.array([1.0, -3.0, 2.0, 50.0]),
        "p_evidence": np.array([0.001, 0.05, 0.02, 0.001]),
        "p_place": nothing,
        "turns": np.zeros(4, int),
        "null": "",
        "ceiling": np.array([5.0, 4.9, 20.0, 90.0]),
        "identified": np.ones(2),
        "notes": (),
    }
    return Parts(**given | changed)


def tabulated(parts, measure="enrichment"):  # noqa: ANN001, ANN202
    """Return the map of parts over parcels of 9, 10 and 25 voxels, 16 being in none."""
    labels = tuple(Label(name, "L") for name in ("small", "ten", "large"))
    member = np.repeat([0, 1, 2, -1], [9, 10, 25, 16])
    parcellation = Parcellation("areas", "partition", labels, member, "h")
    return _tabulate(REQUEST, View(measure=measure), parcellation, parts, 20, 0)


def test_ten_voxels_are_tested_nine_and_what_is_in_no_parcel_are_not():
    found = tabulated(planted([[1.0, 2.0, 3.0, 70.0], [1.0, 4.0, 5.0, 90.0]]))
    table = found.table
    assert table["voxels"].tolist() == [9, 10, 25, 16]
    assert table["small"].tolist() == [True, False, False, False]
    assert table["value"].tolist() == [1, 3, 4, 80]
    assert found.tests == 2 and found.found == 2 and found.stimuli == 2
    np.testing.assert_allclose(table["q_evidence"], [np.nan, 0.05, 0.04, np.nan])
    np.testing.assert_allclose(table["per_ceiling"], [20, np.nan, 20, 80 / 0.9])
    assert found.limits == {
        "value": (0, 4),
        "randomised": (0, 4),
        "evidence": (-3, 3),
        "per_ceiling": (0, 20),
    }
    signed = tabulated(planted([[1.0, 2.0, 3.0, 70.0], [1.0, 4.0, 5.0, 90.0]]), "signed")
    assert signed.limits["value"] == (-4, 4) and signed.table["value"].tolist()[1:3] == [-3, -4]


def test_where_nothing_is_known_colours_end_at_one():
    nothing = np.full(4, np.nan)
    found = tabulated(planted([[0.0] * 4] * 2, ceiling=nothing, evidence=nothing))
    assert found.limits["per_ceiling"] == (0, 1) and found.limits["evidence"] == (-1, 1)
    assert found.limits["value"] == (0, 1)


@pytest.mark.parametrize(("low", "interpreted"), [(0.495, 0), (0.5, 0), (0.505, 1)])
def test_a_map_is_interpreted_where_the_whole_interval_is_above_chance(low, interpreted):
    told = _banner(REQUEST, (0.6, low, 0.7), 10)
    assert (told == "") == interpreted
    assert interpreted or told.startswith("linear is not above chance on sub-01: it tells the")
