"""The evidence in a link: what it brings back, and what is not on offer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest

from explorer.page import lab_choices, links
from explorer.page.choices import Choices, settle
from explorer.request import Request, View
from explorer.types import UserError

REQUEST = Request("fake", "sub-01", "test-04", "linear", "painter", steps=4)


FULL = View(
    panel="lesion",
    parcels=("fusiform L", "(unassigned)"),
    gain=1.25,
    fill="another trial",
    donor="test-07",
    against="generator:unguided",
    people="group",
    lecture=3,
)


def test_a_link_brings_the_evidence_back(workbench: Any) -> None:
    view = replace(FULL, parcels=("fusiform L", "precentral R"))
    query = links.query(REQUEST, view)
    assert "panel=lesion&lesion=fusiform+L" in query and "gain=1.25" in query
    assert settle(dict(parse_qsl(query)), workbench) == Choices(REQUEST, view, ())


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"panel": "<b>"}, "The evidence “<b>” is not on offer here"),
        ({"fill": "zeros"}, "The replacement “zeros” is not on offer"),
        ({"donor": "test-99"}, "take betas from, “test-99” is not on offer"),
        ({"against": "mapper:none"}, "compared with, “mapper:none” is not on offer"),
        ({"lesion": "nowhere L"}, "no parcel “nowhere L” with voxels here to lesion"),
        ({"gain": "3"}, "gain of a parcel lies between 0 and 2, found 3. Using a gain of 0."),
        ({"gain": "loud"}, "found “loud”. Using a gain of 0."),
        ({"lecture": "9"}, "The lecture has the steps 1 to 5, found “9”"),
    ],
)
def test_what_is_not_on_offer_is_told(
    workbench: Any, wanted: dict[str, str], sentence: str
) -> None:
    notices: list[str] = []
    assert lab_choices.settle(wanted, workbench, REQUEST, View(), notices) == View()
    assert len(notices) == 1 and sentence in notices[0]


def test_another_trial_drops_a_donor_that_it_is_itself(workbench: Any) -> None:
    view = replace(FULL, parcels=("fusiform L",))
    shown = Choices(REQUEST, view)
    settled = settle({"trial": "test-07"}, workbench, shown)
    assert settled.view.donor == "" and settled.view.parcels == ("fusiform L",)


def test_the_other_side_differs_in_one_thing_and_can_be_drawn(workbench: Any) -> None:
    other = lab_choices.other_side(workbench, REQUEST, "generator:unguided")
    assert (other.generator, other.steps, other.mapper) == ("unguided", 1, "linear")
    assert "generator:painter" not in lab_choices.sides(workbench, REQUEST)
    with pytest.raises(UserError, match=r"sub-02 has no mapper linear; choose another"):
        lab_choices.other_side(workbench, REQUEST, "subject:sub-02")


# -------------------------------------------------------------------------------------- the badges
