"""Maps of several subjects: their mean, who is left out, and what N can say."""

import dataclasses

import numpy as np
import pytest

from explorer.brain.parcels import UNASSIGNED
from explorer.evidence.group import group_map
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
