"""reconstruct --store: what the page begins with, drawn beforehand."""

from dataclasses import replace

import pytest

from backends.commands.drawn_folder import Job
from backends.commands.reconstruct import fill, reconstruct
from explorer.choosing import default_request
from explorer.finished import finished_pictures, is_drawn
from explorer.store import ENDING, Store
from explorer.types import UserError

JOB = Job("fake", ("sub-01",), "linear", "painter", scale=2.0, steps=2, limit=3)


def begun(bench, number):
    """Return what the page begins with for a trial."""
    stimulus = bench.catalogue.gallery("fake", "sub-01").index[number]
    return default_request(
        bench.catalogue, stimulus=stimulus, mapper="linear", generator="painter", steps=2
    )


def pictures_in(folder):
    """Return how many pictures a store keeps, beside ranks, maps and badges."""
    return len(list(folder.rglob(f"*{ENDING}")))


def test_the_page_finds_every_trial_drawn(make_workbench, tmp_path):
    fill(make_workbench(store=Store(tmp_path)), JOB)
    page = make_workbench(store=Store(tmp_path))
    assert [is_drawn(page, begun(page, number)) for number in range(4)] == [True] * 3 + [False]
    assert pictures_in(tmp_path) == 3 * len(begun(page, 0).scales)


def test_several_processes_fill_one_store_and_nothing_is_drawn_twice(
    make_workbench, tmp_path, monkeypatch
):
    said = []
    for rank in range(2):
        fill(make_workbench(store=Store(tmp_path)), JOB, (1.0,), said.append, (rank, 2))
    page = make_workbench(store=Store(tmp_path))
    assert pictures_in(tmp_path) == 3 and finished_pictures(
        page, replace(begun(page, 2), scales=(1.0,))
    )
    assert [(one.done, one.total) for one in said] == [(1, 2), (2, 2), (1, 1)]
    monkeypatch.setattr(page.models, "generator", None)
    fill(page, JOB, (1.0,))


def test_a_folder_or_a_store_but_not_both(tmp_path):
    for given in ({"out": None}, {"out": tmp_path, "store": tmp_path}):
        with pytest.raises(UserError, match="Give --out FOLDER for files and a table, or --store"):
            reconstruct("simulated", **given)
    with pytest.raises(UserError, match="--samples is for --out"):
        fill(None, replace(JOB, samples=2))
