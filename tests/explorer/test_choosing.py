"""Requests that are checked against what is on offer, and the one made for a visitor."""

import dataclasses

import pytest

from explorer.choosing import check_request, default_request
from explorer.decoding import decode
from explorer.drawing import reconstruct
from explorer.request import Request
from explorer.types import UserError


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dataset": "nsd"}, "no data set 'nsd' here; choose one of fake.*--dataset nsd=PATH"),
        ({"subject": "sub-09"}, "fake has no subject 'sub-09'; choose one of sub-01, sub-02"),
        ({"stimulus": "test-99"}, "no test stimulus 'test-99'; choose one of its 10, test-01 to"),
        ({"stimulus": "train-01"}, "fake/sub-01 has no test stimulus 'train-01'"),
        ({"repeats": (2,)}, "no repeat 3 of test-03 in its test trials; choose 1, 2 or the aver"),
        ({"mapper": "mlp"}, "no mapper 'mlp' for fake/sub-01; choose one of linear"),
        ({"generator": "sdxl"}, "no generator 'sdxl'; choose one of painter, unguided"),
        ({"options": (("hue", 1.0),)}, "painter has no option 'hue', it has contrast; leave"),
        ({"options": (("contrast", 3.0),)}, "contrast lies between 0 and 2, found 3"),
        (
            {"axis": "hue", "values": (1,)},
            "painter cannot vary 'hue' from row to row, only seed, contrast; choose another",
        ),
        ({"axis": "contrast", "values": (1, 3)}, "contrast lies between 0 and 2, found 3"),
        ({"rois": ("V1",)}, "fake/sub-01 has no parcel 'V1' with voxels in the atlas that comes"),
        ({"rois": ("cuneus L",)}, "no parcel 'cuneus L' with voxels.*choose among .*fusiform L"),
        ({"rois": ("fusiform L",), "roi_atlas": "Glasser"}, "in the atlas Glasser; choose among"),
    ],
)
def test_each_choice_that_is_not_on_offer_is_named_in_one_sentence(workbench, changed, message):
    request = Request("fake", "sub-01", "test-03", "linear", "painter")
    check_request(workbench.catalogue, request)
    wrong = dataclasses.replace(request, **changed)
    with pytest.raises(UserError, match=message):
        check_request(workbench.catalogue, wrong)
    for ask in (reconstruct, decode):  # reconstruct refuses before it yields
        if ask is reconstruct or "generator" not in changed and "options" not in changed:
            with pytest.raises(UserError, match=message):
                ask(workbench, wrong)


def test_a_request_without_a_generator_is_enough_to_decode(workbench):
    request = Request("fake", "sub-01", "test-03", "linear", "")
    check_request(workbench.catalogue, request, pictures=False)
    assert decode(workbench, request).n == 10
    with pytest.raises(UserError, match="no generator ''"):
        reconstruct(workbench, request)


def test_the_default_request_is_a_random_trial_that_a_seed_decides(workbench):
    first = default_request(workbench.catalogue, seed=3)
    assert first == default_request(workbench.catalogue, seed=3)
    assert (first.mapper, first.generator, first.steps) == ("linear", "painter", 4)
    check_request(workbench.catalogue, first)
    drawn = {default_request(workbench.catalogue, seed=seed).stimulus for seed in range(60)}
    assert len(drawn) == 10


def test_choices_are_kept_and_steps_follow_the_generator(workbench):
    request = default_request(
        workbench.catalogue, "fake", "sub-01", generator="unguided", scales=(3, 1)
    )
    assert (request.generator, request.steps, request.scales) == ("unguided", 1, (3.0, 1.0))
    assert default_request(workbench.catalogue, steps=7).steps == 7


def test_a_trial_can_be_looked_at_where_no_mapper_fits(make_workbench):
    request = default_request(make_workbench(embedders={}).catalogue, "fake", "sub-02", seed=0)
    assert (request.mapper, request.generator) == ("", "")
