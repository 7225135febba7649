"""A store that was filled on another machine, beside the data, where there are no weights."""

import shutil

import pytest

from backends.commands.drawn_folder import Job
from backends.commands.reconstruct import fill
from explorer.brain.maps import parcel_importance
from explorer.choosing import default_request
from explorer.decoding import decode
from explorer.drawing import reconstruct
from explorer.evidence.badges import badges
from explorer.finished import finished_pictures
from explorer.opening import is_kept
from explorer.request import View
from explorer.store import Store
from explorer.types import UserError


@pytest.fixture
def brought(make_workbench, fakes, fake_checkpoints, tmp_path):
    """Fill a store where the weights are, and return both workbenches and how to ask."""

    class Weighty(fakes.Generator):
        hub = "somebody/painter"

    kinds = {"generators": {"painter": Weighty}}
    there = tmp_path / "there"
    shutil.copytree(fake_checkpoints, there)
    (there / "generators" / "painter").mkdir(parents=True)
    filler = make_workbench(store=Store(tmp_path / "store"), checkpoints=there, **kinds)
    fill(filler, Job("fake", ("sub-01",), "linear", "painter", 3.0, 4, 1, 0, 2))
    here = make_workbench(
        store=Store(tmp_path / "store"), checkpoints=tmp_path / "nothing", **kinds
    )
    return filler, here


def test_a_store_filled_elsewhere_shows_its_trials_without_weights(brought, fakes):
    filler, here = brought
    shown = list(here.catalogue.gallery("fake", "sub-01").index)[:2]
    assert here.catalogue.mapper_names("fake", "sub-01") == ["linear"]
    for stimulus in shown:
        request = default_request(here.catalogue, stimulus=stimulus)
        assert (request.mapper, request.generator) == ("linear", "painter")
        assert is_kept(here, request)
        assert len([frame for frame in reconstruct(here, request) if frame.done]) == 5
        assert decode(here, request).rank == decode(filler, request).rank
        assert badges(here, request) == badges(filler, request)
        theirs = parcel_importance(filler, request, View())
        assert parcel_importance(here, request, View()).table.equals(theirs.table)
    assert list(here.models._models._values) == []  # nothing was loaded


def test_what_needs_a_model_says_that_its_weights_are_absent(brought):
    _, here = brought
    names = list(here.catalogue.gallery("fake", "sub-01").index)
    kept = default_request(here.catalogue, stimulus=names[0])
    other = default_request(here.catalogue, stimulus=names[3])
    said = "The weights of the mapper linear are not here, only what a store keeps of it"
    assert finished_pictures(here, other) == []
    for ask in (
        lambda: decode(here, other),
        lambda: parcel_importance(here, kept, View(method="integrated gradients")),
        lambda: list(reconstruct(here, other)),
    ):
        with pytest.raises(UserError, match=said):
            ask()


def test_without_the_store_such_a_mapper_is_not_on_offer(brought, make_workbench, tmp_path):
    empty = make_workbench(store=Store(tmp_path / "empty"), checkpoints=tmp_path / "nothing")
    assert empty.catalogue.mapper_names("fake", "sub-01") != ["linear"]
