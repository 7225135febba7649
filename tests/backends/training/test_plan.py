"""Plans of training: batches, rates, and how time is told."""

import numpy as np
import pytest

from backends.training.machine import best_device
from backends.training.plan import Plan, batches, clock, in_chunks


def test_every_row_comes_once_an_epoch_and_orders_differ():
    epochs = [
        np.concatenate([batches(12, 4, 3 * e + s, seed=1) for s in range(3)]) for e in (0, 1)
    ]
    assert all(sorted(rows) == list(range(12)) for rows in epochs)
    assert not np.array_equal(*epochs)
    assert np.array_equal(batches(12, 4, 5, seed=1), batches(12, 4, 5, seed=1))


def test_the_rate_warms_up_and_falls_to_zero():
    plan = Plan(steps=1000, lr=1.0, warmup=100)
    rates = [plan.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01) and max(rates) == pytest.approx(1.0, abs=0.03)
    assert np.argmax(rates) in range(95, 105) and rates[-1] < 1e-4


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (605, "10 min 05 s")]
)
def test_durations_read_as_people_write_them(seconds, text):
    assert clock(seconds) == text


def test_chunks_cover_the_range_and_a_wanted_device_is_kept():
    assert [i for part in in_chunks(7, 3) for i in range(7)[part]] == list(range(7))
    assert best_device("cuda:1") == "cuda:1" and best_device() in ("cpu", "cuda")
