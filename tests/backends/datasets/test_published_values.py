"""Pictures of others as bytes, and how copies of shown images lie against an order."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from backends.datasets.published import _misplaced, check_range, row, to_bytes
from explorer.types import UserError


def test_a_row_keeps_its_own_type_and_bfloat16_becomes_float32():
    assert row(torch.arange(3), 2).dtype == np.int64
    half = torch.tensor([0.5, 0.25])
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        found = row(half.to(kind), 1)
        assert found.dtype == np.float32 and found == 0.25
    assert row(np.ones((2, 2), np.int16), 1).dtype == np.int16


@pytest.mark.parametrize("shape", [(3, 5, 7), (3, 3, 7), (3, 7, 5), (5, 7, 3), (3, 7, 3)])
def test_channels_come_first_or_last(shape):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = to_bytes(values, "a picture")
    expected = values if shape[-1] == 3 else values.transpose(1, 2, 0)
    np.testing.assert_array_equal(found, expected)


def test_the_whole_range_is_a_picture_and_nothing_beyond_it():
    for kind in (np.int64, np.uint16):
        values = np.array([[[0, 1, 255]]], dtype=kind)
        check_range(values[None], "pictures")
        np.testing.assert_array_equal(to_bytes(values, "a picture"), values)
    floats = np.array([[[0.0, 0.5, 1.0]]])
    check_range(floats[None], "pictures")
    np.testing.assert_array_equal(to_bytes(floats, "a picture"), [[[0, 128, 255]]])
    near = np.array([[[-0.001, 0.5, 1.001]]])  # what an interpolation leaves beyond
    check_range(near[None], "pictures")
    np.testing.assert_array_equal(to_bytes(near, "a picture"), [[[0, 128, 255]]])
    for wrong in (-1, 256):
        beyond = np.array([[[0, 100, wrong]]])
        with pytest.raises(UserError, match="whole numbers .* expected 0 to 255; save it again"):
            check_range(beyond[None], "pictures")
        with pytest.raises(UserError, match="a picture has values from .* expected 0 to 255"):
            to_bytes(beyond, "a picture")
    for wrong in (-0.002, 1.002):
        beyond = np.array([[[0.1, 0.5, wrong]]])
        for check in (lambda v: check_range(v[None], "one"), lambda v: to_bytes(v, "one")):
            with pytest.raises(UserError, match="one has values from .* expected 0 to 1; save"):
                check(beyond)
    with pytest.raises(UserError, match="whole numbers .* from 0 to 1, expected 0 to 255"):
        check_range(np.array([[[[0, 1, 1]]]]), "pictures")  # floats that were cut


def told(fakes, places, count=6):
    """Return what is said of copies that lie at these places of an order: place -> whose copy."""
    names = [f"test-{i:02d}" for i in range(1, count + 1)]
    pairs = {
        f"{place}.png": (names[place], fakes.picture(names[shown]))
        for place, shown in places.items()
    }
    study = SimpleNamespace(image=fakes.picture)
    return _misplaced(pairs, study, names)


def test_how_copies_lie_against_an_order(fakes):
    assert told(fakes, {0: 1, 2: 3, 4: 5}) == "; all are shifted by 1: each is the image 1 later"
    assert told(fakes, {2: 0, 3: 1}) == "; all are shifted by 2: each is the image 2 earlier"
    assert told(fakes, {0: 5, 1: 4, 5: 0}) == "; the copies come in the reverse order"
    said = "; the copies are shuffled: 1 of 3 lie where this order has them"
    assert told(fakes, {0: 0, 1: 3, 2: 1}) == said
    assert told(fakes, {0: 1}) == ""  # one copy tells nothing
    study = SimpleNamespace(image=fakes.picture)
    strange = {f"{i}.png": ("test-01", fakes.picture(f"train-{i:02d}")) for i in range(3)}
    said = _misplaced(strange, study, ["test-01", "test-02"])
    assert said == "; of 3 copies 0 show an image of this order at all"
