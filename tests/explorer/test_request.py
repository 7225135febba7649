"""Requests and views: what each refuses, by the text of its message."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from explorer import request as choices
from explorer.request import MAX_SCALES, Request, View
from explorer.types import UserError


def request(**changes):
    return replace(Request("d", "s", "t", "m", "g"), **changes)


def test_requests_are_hashable_and_canonical():
    a = request(scales=[0, 2], repeats=[np.int64(1)], options=[("eta", 1)])
    b = request(scales=(0.0, 2.0), repeats=(1,), options=(("eta", 1.0),))
    assert a == b and hash(a) == hash(b) and isinstance(a.scales, tuple)
    assert Request(**json.loads(json.dumps(asdict(a)))) == a


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scales": ()}, f"1 to {MAX_SCALES} guidance scales, found 0"),
        ({"scales": range(200)}, f"1 to {MAX_SCALES} guidance scales, found 200"),
        ({"scales": (1e9,)}, r"between 0 and 30, found 1e\+09"),
        ({"scales": (-1,)}, "between 0 and 30, found -1"),
        ({"scales": (float("nan"),)}, "between 0 and 30, found nan"),
        ({"scales": (float("inf"),)}, "between 0 and 30, found inf"),
        ({"scales": (1, 2, 1)}, "may be given once; remove the repeated one"),
        ({"steps": 0}, "steps lies between 1 and 100, found 0"),
        ({"steps": 101}, "steps lies between 1 and 100, found 101"),
        ({"seed": -1}, "seed lies between 0 and 2147483647, found -1"),
        ({"seed": 2**31}, "found 2147483648"),
    ],
)
def test_requests_outside_what_a_sweep_can_do(changes, message):
    with pytest.raises(UserError, match=message):
        request(**changes)


@pytest.mark.parametrize(
    "name", ["method", "measure", "surface", "hemisphere", "camera", "target", "attention"]
)
def test_views_that_are_not_on_offer(name):
    with pytest.raises(UserError, match=f"^{name} is one of .+, found '<b>x</b>'.$"):
        View(**{name: "<b>x</b>"})


def test_every_default_and_offer_of_a_view_is_valid():
    assert View().measure == "enrichment"
    for name, offered in {
        "method": choices.METHODS,
        "measure": choices.MEASURES,
        "surface": choices.SURFACES,
        "hemisphere": choices.HEMISPHERES,
        "camera": choices.CAMERAS,
        "target": choices.TARGETS,
        "attention": choices.ATTENTIONS,
    }.items():
        for value in offered:
            assert getattr(View(**{name: value}), name) == value


def test_rows_are_plain_requests_that_differ_by_their_value():
    plain = request(options=(("a", 1), ("b", 2)), seed=7)
    assert plain.rows() == (plain,)
    seeds = replace(plain, axis="seed", values=(3, 0)).rows()
    assert seeds == (replace(plain, seed=3), replace(plain, seed=0))
    options = replace(plain, axis="a", values=(0.5,)).rows()
    assert options == (replace(plain, options=(("b", 2), ("a", 0.5))),)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"values": (1,)}, "1 values are given and nothing that they are of"),
        ({"axis": "a"}, "Give 1 to 8 values of a, a row each; found 0"),
        ({"axis": "a", "values": range(9)}, "Give 1 to 8 values of a, a row each; found 9"),
        ({"axis": "a", "values": (1, 1.0)}, "Each value of a may be given once"),
        ({"axis": "seed", "values": (0.5,)}, "A seed is a whole number .*, found 0.5"),
        (
            {"axis": "seed", "values": (2**31,)},
            "A seed is a whole number between 0 and 2147483647",
        ),
    ],
)
def test_rows_that_cannot_be(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        request(**changes)
