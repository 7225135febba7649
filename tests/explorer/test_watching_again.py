"""Trials that arrive out of order, of somebody else, or while something else is at work."""

import contextlib
import shutil
from dataclasses import replace

import numpy as np
import pytest

import explorer.decoding as decoding
import explorer.watching as watching
from explorer.finished import decided_pictures, keep, kept
from explorer.store import Finished
from explorer.types import UserError
from tests.explorer.test_watching import bench, scan, watch, write

__all__ = ["bench", "scan", "watch"]


def named(scan, number, name):
    """Write a trial under a name of its own; return its betas."""
    betas, new = write(scan, number), scan / "sub-01" / "new"
    (new / f"{number:05d}.npz").rename(new / name)
    return betas


def test_the_trial_that_arrived_is_shown_whatever_its_name_sorts_like(scan, bench, watch):
    for number, name in ((9, "9.npz"), (10, "10.npz"), (11, "0-late.npz")):
        betas = named(scan, number, name)
        assert watch.look()
        one = watch.arrivals.newest
        trials = bench.catalogue.trials("scan", "sub-01")
        np.testing.assert_array_equal(trials.average("6", (one.repeat,)), betas)
    assert one.repeat == 2  # before the other two that arrived


def test_subjects_come_and_go(scan, bench, watch):
    shutil.copytree(scan / "sub-01", scan / "sub-02")
    assert watch.look() and bench.catalogue.subjects("scan") == ["sub-01", "sub-02"]
    assert (watch.arrivals.trials, watch.arrivals.newest.subject) == (8, "sub-02")
    shutil.rmtree(scan / "sub-02")
    assert not watch.look() and bench.catalogue.subjects("scan") == ["sub-01"]
    assert watch.arrivals.trials == 4


def test_a_trial_that_finds_the_queue_full_is_read_at_the_next_look(scan, bench):
    full = [UserError("64 questions wait for the models already")]

    @contextlib.contextmanager
    def turn():
        if full:
            raise full.pop()
        yield

    watch = watching.Watch(bench, "scan", turn)
    write(scan)
    with pytest.raises(UserError):
        watch.look()
    assert watch.look() and watch.arrivals.came == 1


def test_a_trial_that_cannot_be_decoded_is_on_offer_and_told(scan, watch, monkeypatch):
    def refuses(*_):
        raise UserError("This mapper reads 12 voxels.")

    monkeypatch.setattr(watching, "decode", refuses)
    write(scan)
    assert watch.look() and (watch.arrivals.revision, watch.arrivals.came) == (1, 1)
    assert watch.heard == ["scan/sub-01: a trial of 6 arrived. This mapper reads 12 voxels."]


def test_what_was_begun_before_a_trial_arrived_is_not_kept_after_it(
    scan, bench, watch, monkeypatch
):
    one = watching.Trial("sub-01", "6", 0)
    asked = replace(watching.request_of(bench.catalogue, "scan", one), repeats=())
    begun, real = decided_pictures(bench, asked)[0], decoding._decode

    def overtaken(*given):
        found = real(*given)
        monkeypatch.setattr(decoding, "_decode", real)
        write(scan)
        assert watch.look()
        return found

    monkeypatch.setattr(decoding, "_decode", overtaken)
    assert decoding.decode(bench, asked).average_of == 2
    assert decoding.decode(bench, asked).average_of == 3
    keep(bench, begun, Finished(np.zeros((2, 2, 3), np.uint8), {}))  # of the average of two
    assert kept(bench, decided_pictures(bench, asked)[0]) is None
    assert "renewals" not in begun.to_dict()


def test_a_stimulus_whose_row_names_another_picture_is_another(scan, bench, watch):
    table, place = scan / "stimuli" / "stimuli.tsv", ("scan", "6")
    before, other = bench.catalogue.image(*place), bench.catalogue.image("scan", "5")
    assert (before != other).any()
    space = bench.catalogue.offer("scan", "sub-01", "ridge (fitted now)").targets[0]
    rows = bench.models.embed("scan", ["5", "6", "7"], space)
    text = "stimulus\tfile\n" + "".join(f"{i}\t{min(i, 5)}.png\n" for i in range(7)) + "7\t7.png\n"
    table.write_text(text)
    watch.look()
    np.testing.assert_array_equal(bench.catalogue.image(*place), other)
    again = bench.models.embed("scan", ["5", "6", "7"], space)
    np.testing.assert_array_equal(again, rows[[0, 0, 2]])


def test_a_damaged_byte_that_asks_for_a_password_ends_no_watch(scan, watch):
    write(scan)
    file = scan / "sub-01" / "new" / "00000.npz"
    whole = file.read_bytes()
    entry = whole.index(b"PK\x01\x02")
    for place, value in ((8, 1), (10, 99)):  # encrypted; packed in an unknown way
        bent = bytearray(whole)
        bent[entry + place] = value
        file.write_bytes(bent)
        assert not watch.look() and "is not whole" in watch._problem
