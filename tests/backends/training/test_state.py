"""A state that is damaged is noticed and set aside; one that is cut off while written is not."""

import os
import signal

import numpy as np
import pytest
import torch

from backends.training import state
from backends.training.engine import train_network
from backends.training.fit import fit
from backends.training.plan import Plan
from backends.training.state import STATE, read_state, write_state
from explorer.types import UserError
from tests.backends.training.toy import COURSE, problem_of, recorded, same
from tests.backends.training.toy import study as toy_study

KEPT = {"model": {"w": torch.arange(40.0)}, "step": 3, "stopped": ""}


def test_a_state_comes_back_and_none_is_none(tmp_path):
    write_state(KEPT, tmp_path / STATE)
    found = read_state(tmp_path / STATE, KEPT, pytest.fail)
    assert found["step"] == 3 and torch.equal(found["model"]["w"], KEPT["model"]["w"])
    assert read_state(tmp_path / "other", KEPT, pytest.fail) is None
    assert [file.name for file in tmp_path.iterdir()] == [STATE]


def test_every_flipped_bit_is_noticed_or_changes_nothing(tmp_path):
    write_state(KEPT, tmp_path / STATE)
    whole, noticed = (tmp_path / STATE).read_bytes(), 0
    data = whole.index(KEPT["model"]["w"].numpy().tobytes())
    rng = np.random.default_rng(0)
    places = [*range(data, data + 160, 8), *rng.integers(0, len(whole), 120)]
    for place in map(int, places):
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(8))
        (tmp_path / STATE).write_bytes(content)
        said = []
        found = read_state(tmp_path / STATE, KEPT, said.append, mine=False)
        if found is None:
            noticed += 1
        else:
            assert not data <= place < data + 160
            assert set(found) == set(KEPT) and found["step"] == 3
            assert torch.equal(found["model"]["w"], KEPT["model"]["w"])
        assert not said  # another process says it
    assert noticed > 40
    assert (tmp_path / STATE).exists()


@pytest.mark.parametrize(
    "content, why",
    [
        (b"", "it is empty"),
        (b"PK\x03\x04 cut", "File is not a zip file"),
        ("other", "it is no state of a training"),
    ],
)
def test_a_damaged_state_is_set_aside_and_training_begins_anew(tmp_path, content, why):
    run = tmp_path / "run"
    run.mkdir()
    if content == "other":
        torch.save({"weights": torch.zeros(3)}, run / STATE)
    else:
        (run / STATE).write_bytes(content)
    (run / f"{STATE}.damaged").write_bytes(b"an earlier one")
    left = (run / STATE).read_bytes()
    whole, history, losses = recorded(COURSE)
    said = []
    model, other, again = recorded(COURSE, run, progress=said.append)
    assert said[0] == (
        f"toy: {run / STATE} cannot be gone on from ({why}); it is now called "
        "state.pt.damaged-2, and the training begins anew."
    )
    assert (run / "state.pt.damaged-2").read_bytes() == left  # never deleted
    assert (run / "state.pt.damaged").read_bytes() == b"an earlier one"
    assert again == losses and other.validation == history.validation
    same(whole, model, atol=0, rtol=0)


def test_the_models_that_ship_begin_anew_too(tmp_path):
    def trained(**options):
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        ones = torch.ones(4, 2)
        plan = Plan(steps=4, lr=0.1)
        fit("line", model, lambda step, _: model(ones).square().mean(), plan, **options)
        return model.weight.detach().clone()

    whole, said = trained(work=tmp_path), []
    (tmp_path / "line.state.pt").write_bytes(b"")
    again = trained(work=tmp_path, progress=said.append)
    assert torch.equal(whole, again)
    assert said[0].startswith(f"line: {tmp_path / 'line.state.pt'} cannot be gone on from (it is")
    assert (tmp_path / "line.state.pt.damaged").exists()


def test_a_process_killed_while_it_writes_leaves_the_state_before(tmp_path, monkeypatch):
    write_state(KEPT, tmp_path / STATE)
    before = (tmp_path / STATE).read_bytes()
    for point in ("save", "fsync", "replace"):
        pid = os.fork()
        if not pid:
            try:
                write_and_die(point, tmp_path / STATE)
            finally:
                os._exit(7)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, point
        assert (tmp_path / STATE).read_bytes() == before
    write_state({**KEPT, "step": 5}, tmp_path / STATE)  # over what the killed ones left
    assert read_state(tmp_path / STATE, KEPT, pytest.fail)["step"] == 5
    assert [file.name for file in tmp_path.iterdir()] == [STATE]


def write_and_die(point, file):
    def die(*given):
        if point == "save":
            given[1].write(b"PK\x03\x04 half")
            given[1].flush()
        os.kill(os.getpid(), signal.SIGKILL)

    if point == "save":
        torch.save = die
    else:
        setattr(state.os, point, die)
    write_state({**KEPT, "step": 4}, file)


def test_a_folder_that_may_only_be_read_is_one_sentence(tmp_path, monkeypatch):
    """Root may write everywhere, so the system's answer is given in its place."""
    trials, targets, _ = toy_study(noise=0.3)
    model, predict, loss, data = problem_of(trials, targets, 0.3)

    def refused(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("backends.training.state.os.replace", refused)
    with pytest.raises(UserError, match=r"state\.pt cannot be written \(.*Read-only file system"):
        train_network("toy", model, predict, loss, data, COURSE, run=tmp_path, trackers=())
    assert not list(tmp_path.iterdir())  # what was half done does not stay
