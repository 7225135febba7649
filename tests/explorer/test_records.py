"""A record of what is shown, and what is no record."""

import dataclasses
import json
import re

import numpy as np
import pytest

from explorer import records
from explorer.decoding import decode
from explorer.drawing import reconstruct
from explorer.finished import finished_pictures
from explorer.protocols import Neighbour
from explorer.records import make_record
from explorer.request import View
from explorer.types import UserError
from tests.explorer.asking import REQUEST, done


def test_what_must_stand_beside_a_picture_is_kept_and_recorded(make_workbench, fakes):
    near = (Neighbour("train-01", "warm", 0.5), Neighbour("train-02", "", float("nan")))

    class Noting(fakes.Generator):
        def sweep(self, condition, *args, **options):
            for step in super().sweep(condition, *args, **options):
                yield dataclasses.replace(step, note="retrieved", neighbours=near)

    bench = make_workbench(generators={"painter": Noting})
    for frames in (done(reconstruct(bench, REQUEST)), finished_pictures(bench, REQUEST)):
        assert {(frame.note, frame.neighbours) for frame in frames} == {("retrieved", near)}
    notes = make_record(bench, REQUEST, View())["notes"]
    assert [note["scale"] for note in notes] == list(REQUEST.scales)
    assert notes[0]["neighbours"] == [["train-01", "warm", 0.5], ["train-02", "", None]]
    assert make_record(make_workbench(), REQUEST, View())["notes"] == []


def test_a_record_makes_the_same_request_and_view_again(workbench):
    request = dataclasses.replace(REQUEST, repeats=(1,), options=(("contrast", 0.5),))
    view = View(measure="signed", parcel="fusiform L")
    record = json.loads(json.dumps(make_record(workbench, request, view), allow_nan=False))
    assert records.from_record(record) == (request, view)
    assert records.changes(workbench, record) == []
    assert record["decoding"]["rank"] == decode(workbench, request).rank
    assert record["data"]["simulated"] is True and record["scores"] == []
    (row,) = record["identity"]["rows"]  # of the one repeat that was asked for
    assert row["repeat"] == 2 and record["identity"]["stimulus"] == REQUEST.stimulus


def test_a_record_holds_the_scores_of_what_is_finished(workbench):
    sweep = reconstruct(workbench, REQUEST)
    first = next(frame for frame in sweep if frame.done)
    sweep.close()
    (entry,) = make_record(workbench, REQUEST, View())["scores"]
    assert entry == {"scale": 0.0, **first.scores}


def test_a_score_that_is_no_number_is_null_in_the_record(make_workbench, fakes):
    class Grey(fakes.Generator):
        def _paint(self, *_):
            return np.full((32, 32, 3), 127, np.uint8)

    workbench = make_workbench(generators={"painter": Grey})
    assert np.isnan(done(reconstruct(workbench, REQUEST))[0].scores["PixCorr"])
    text = json.dumps(make_record(workbench, REQUEST, View()), allow_nan=False)
    assert json.loads(text)["scores"][0]["PixCorr"] is None


def test_a_record_of_other_weights_or_voxels_says_what_changed(workbench):
    record = make_record(workbench, REQUEST, View())
    record["checkpoints"]["mapper"] = "0" * 16
    record["data"]["voxel_hash"] = "feed"
    weights, voxels = records.changes(workbench, record)
    assert re.match("The weights of the mapper are others .* not 0000000000000000", weights)
    assert re.match(r"The voxels are others than the record's \(hash \w+, not feed\)", voxels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: [record], 'no record of Afterimage: it lacks "afterimage": 1'),
        (lambda record: record | {"afterimage": 2}, "no record of Afterimage"),
        (lambda record: record | {"view": None}, "record's 'view' holds fields among against, at"),
        (
            lambda record: record | {"request": {"mood": 1}},
            "'request' holds fields among axis, dataset",
        ),
        (lambda record: record | {"request": {"dataset": "fake"}}, "'request' is damaged .*missi"),
        (
            lambda record: record | {"request": record["request"] | {"scales": [-1]}},
            "A guidance scale lies between 0 and 30",
        ),
    ],
)
def test_what_is_no_record_is_refused(workbench, change, message):
    with pytest.raises(UserError, match=message):
        records.from_record(change(make_record(workbench, REQUEST, View())))
