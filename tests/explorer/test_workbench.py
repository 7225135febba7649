"""Models behind a workbench: fitted on the spot, hashed, and asked by several visitors."""

import dataclasses
import re
import shutil
import threading

import numpy as np
import pytest

from explorer.choosing import default_request
from explorer.decoding import decode
from explorer.drawing import reconstruct, warm
from explorer.models import content_hash
from explorer.request import Request
from explorer.types import UserError
from tests.explorer.asking import REQUEST, done, every_trial


def test_a_mapper_is_fitted_on_the_spot_and_named_as_such(workbench):
    requests = every_trial(workbench, "sub-02", "ridge (fitted now)")
    assert np.mean([decode(workbench, request).rank for request in requests]) < 2
    card = workbench.models.card(requests[0])
    trials = workbench.catalogue.trials("fake", "sub-02")
    assert (card.name, card.cls, card.subjects) == ("ridge (fitted now)", "ridge", ("sub-02",))
    assert card.voxels["sub-02"] == (200, trials.subject.voxels.hash)


def test_a_fit_is_the_same_each_time_and_hashed_by_its_weights(make_workbench):
    request = Request("fake", "sub-02", "test-01", "ridge (fitted now)", "painter")
    first, second = (make_workbench().checkpoint_hashes(request) for _ in range(2))
    assert first == second and re.fullmatch("[0-9a-f]{16}", first["mapper"])
    workbench = make_workbench()
    mapper = workbench.models.mapper("fake", "sub-02", "ridge (fitted now)")
    mapper.get_parameter("weight_sub-02").data[0, 0] += 1
    assert workbench.checkpoint_hashes(request)["mapper"] != first["mapper"]


def test_other_weights_make_other_pictures(make_workbench, fake_checkpoints, tmp_path):
    root = tmp_path / "checkpoints"
    shutil.copytree(fake_checkpoints, root)
    (root / "painter").mkdir()
    (root / "painter" / "model.safetensors").write_bytes(b"one")
    before = make_workbench(checkpoints=root).checkpoint_hashes(REQUEST)
    (root / "painter" / "model.safetensors").write_bytes(b"two")
    after = make_workbench(checkpoints=root).checkpoint_hashes(REQUEST)
    assert before["mapper"] == after["mapper"] and before["generator"] != after["generator"]
    assert content_hash(root / "nowhere") == "none"


def test_two_visitors_at_once_load_a_model_once(make_workbench, fakes):
    loads, barrier = [], threading.Barrier(6)

    class Counted(fakes.Linear):
        @classmethod
        def from_pretrained(cls, folder, device="cpu"):
            loads.append(folder)
            return super().from_pretrained(folder, device)

    workbench = make_workbench(mappers={"linear": Counted})

    def visit():
        barrier.wait()
        warm(workbench, REQUEST)

    threads = [threading.Thread(target=visit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1


def test_visitors_at_once_get_their_own_answers(workbench):
    requests = every_trial(workbench)
    alone = {r.stimulus: done(reconstruct(workbench, r))[-1].image for r in requests}
    fresh = {}

    def visit(request):
        frames = done(reconstruct(workbench, dataclasses.replace(request, scales=(8.0, 1.5))))
        fresh[request.stimulus] = next(f.image for f in frames if f.scale == 8)

    threads = [threading.Thread(target=visit, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(fresh) == set(alone)
    for stimulus, image in fresh.items():
        np.testing.assert_array_equal(image, alone[stimulus])


def test_warming_up_leaves_nothing_to_load(make_workbench, fakes):
    made = []

    class Counted(fakes.Generator):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    workbench = make_workbench(generators={"painter": Counted})
    warm(workbench, default_request(workbench.catalogue, seed=0))
    assert len(made) == 1
    list(reconstruct(workbench, REQUEST))
    assert len(made) == 1
    warm(workbench, dataclasses.replace(REQUEST, mapper="", generator=""))  # only the trial itself


def test_a_device_that_is_not_there_is_one_sentence(make_workbench):
    with pytest.raises(UserError, match="device 'abacus' cannot be used here .*; choose cpu or a"):
        decode(make_workbench(device="abacus"), REQUEST)
    assert make_workbench(device="auto").models.device in ("cpu", "cuda")
