"""Maps of several subjects: their mean, who is left out, and what N can say."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from explorer.brain.parcels import UNASSIGNED
from explorer.evidence.group import _group, group_map, seconds_needed
from explorer.request import Request, View
from explorer.types import UserError

REQUEST = Request("fake", "sub-01", "test-04", "linear", "painter")


def test_a_group_is_the_mean_of_its_subjects(fakes, make_workbench, tmp_path):
    bench = make_workbench(checkpoints=tmp_path)  # nothing trained: a ridge is fitted for both
    name = bench.catalogue.mapper_names("fake", "sub-01")[0]
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
    assert seconds_needed(workbench, REQUEST, View(), permutations=50) == 0  # kept
    assert seconds_needed(workbench, REQUEST, View(), permutations=60) > 0


def test_no_subject_at_all_is_refused(workbench):
    with pytest.raises(
        UserError, match="No subject of fake could be mapped: sub-01: it has no map"
    ):
        group_map(workbench, dataclasses.replace(REQUEST, mapper="other"), View())


@pytest.mark.parametrize("measure", ["share", "enrichment", "signed"])
def test_limits_and_what_agreement_rests_on_follow_the_measure(make_workbench, tmp_path, measure):
    bench = make_workbench(checkpoints=tmp_path)
    name = bench.catalogue.mapper_names("fake", "sub-01")[0]
    request = dataclasses.replace(REQUEST, mapper=name)
    found = group_map(bench, request, View(measure=measure), permutations=20)
    low, high = found.limits["value"]
    inside = found.table["parcel"] != UNASSIGNED
    assert high == pytest.approx(np.nanmax(np.abs(found.table["value"][inside])))
    assert low == (-high if measure == "signed" else 0)
    told = "Parcel sizes are part of that." in found.agreement.sentence
    assert told == (measure == "share")  # the sizes are in a share, and divided out elsewhere
    assert (found.measure, found.mapper, found.dataset) == (measure, name, "fake")


# ------------------------------------------------------------------------------- planted subjects


def planted(subject, values, measure="enrichment", banner=""):
    """Return a subject's map of two parcels on the left, one on the right, and what is in none.

    The last parcel of the first subject is small, so that subject has no value there.
    """
    keys = ["V1 L", "V1 R", "V2 L", UNASSIGNED]
    table = pd.DataFrame(
        {
            "parcel": keys,
            "name": ["V1", "V1", "V2", UNASSIGNED],
            "hemisphere": ["L", "R", "L", ""],
            "small": [False, False, subject == "one", False],
            "value": values,
            "evidence": [5.0, 0.1, 3.0, 9.0],
            "q_evidence": [0.05, 0.5, 0.01, np.nan],
        }
    )
    told = {"atlas": "areas", "method": "gradient", "target": "margin", "measure": measure}
    return SimpleNamespace(subject=subject, table=table, banner=banner, **told)


def test_planted_maps_have_known_means_intervals_and_counts():
    maps = [planted("one", [2.0, 1.0, 7.0, 40.0]), planted("two", [4.0, 1.5, 3.0, 60.0])]
    found = _group("study", "ridge", maps, ("three: gone.",))
    table = found.table.set_index("parcel")
    assert table["subjects"].tolist() == [2, 2, 1, 2]
    assert table["value"].tolist() == [3, 1.25, 3, 50]
    assert table["found"].tolist() == [2, 0, 1, 0]
    reach = 12.7062 * np.array([1, 0.25])  # t of one degree of freedom, times the standard error
    np.testing.assert_allclose(table["high"][:2], [3, 1.25] + reach, rtol=1e-5)
    np.testing.assert_allclose(table["low"][:2], [3, 1.25] - reach, rtol=1e-5)
    assert table[["low", "high"]].iloc[2].isna().all()
    assert table["hemisphere"].tolist() == ["L", "R", "L", ""]
    assert table["name"].tolist() == ["V1", "V1", "V2", UNASSIGNED]
    assert found.limits == {"value": (0, 3)}  # what is in no parcel colours nothing
    assert (found.dataset, found.mapper, found.atlas) == ("study", "ridge", "areas")
    assert (found.method, found.target) == ("gradient", "margin")
    assert found.left_out == ("three: gone.",) and found.banner == ""
    assert "10 or more" not in found.sentence and "(1 degrees of freedom)" in found.sentence


@pytest.mark.parametrize(
    ("measure", "limits"), [("enrichment", (0, 1)), ("share", (0, 1)), ("signed", (-1, 1))]
)
def test_where_no_parcel_has_a_value_colours_end_at_one(measure, limits):
    nothing = planted("two", [np.nan, np.nan, np.nan, 8.0], measure, "not above chance")
    found = _group("study", "ridge", [nothing], ())
    assert found.limits == {"value": limits}
    assert found.banner.startswith("ridge is not above chance on two: what it weighs there says")
    assert "Parcel sizes" not in found.agreement.sentence


def test_few_subjects_find_only_what_all_share():
    for n in (9, 10):
        found = _group("s", "m", [planted(str(i), [2.0 + i, 1, 3, 0]) for i in range(n)], ())
        assert ("what is alike in all" in found.sentence) == (n == 9)
        assert f"({n - 1} degrees of freedom)" in found.sentence
