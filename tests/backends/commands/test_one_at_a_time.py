"""A second training of the same checkpoint is refused, and is told who holds it."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from backends.__main__ import main
from backends.encoders.voxelwise import train_encoding
from backends.generators.finetuning import finetune
from backends.training.holding import holding
from backends.training.mapper_training import train_mapper
from explorer.types import UserError


@pytest.fixture
def held_elsewhere(tmp_path):
    """Return a folder that another process trains, and that process's number."""
    out, into = os.pipe()
    if not (pid := os.fork()):
        try:
            with holding(tmp_path / "quick"):
                os.write(into, b"1")
                signal.pause()
        finally:
            os._exit(7)
    os.close(into)
    assert os.read(out, 1) == b"1"
    yield tmp_path / "quick", pid
    os.close(out)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    "train, given",
    [
        (train_mapper, ("ridge", None, (), {})),
        (train_encoding, (None, {})),
        (finetune, (None, None, (), {})),
    ],
    ids=["train", "train-encoding", "finetune"],
)
def test_a_second_training_is_refused_before_it_begins(held_elsewhere, train, given):
    folder, pid = held_elsewhere
    with pytest.raises(
        UserError, match=rf"quick is being written by another training \(process {pid} "
    ):
        train(*given, folder, command="", licence="")  # nothing else that is given is looked at
    assert [path.name for path in folder.parent.iterdir()] == [".quick.lock"]


@pytest.mark.parametrize(
    "words",
    [
        ["search", "ridge", "--dataset", "simulated", "--try", "folds=2,3", "--out"],
        ["reconstruct", "--dataset", "simulated", "--out"],
        ["build-demo", "--quick", "--out", "/dev/null/nowhere", "--work"],
    ],
    ids=lambda words: words[0],
)
def test_a_command_that_another_gives_at_the_same_time_is_refused(
    held_elsewhere, words, monkeypatch, capsys
):
    folder, pid = held_elsewhere
    if words[0] == "build-demo":
        folder = folder.parent  # --quick works in a folder of that name

    def built(self, *_, work, **__):
        self.work = work

    asked = SimpleNamespace(dataset="simulated", trials={}, embeddings={})
    monkeypatch.setattr("backends.commands.training_data.gather_asked", lambda *_, **__: asked)
    monkeypatch.setattr("backends.commands.demo.build.Build.__init__", built)
    monkeypatch.setattr("backends.commands.build_demo.run", pytest.fail)
    monkeypatch.setattr("backends.commands.reconstruct.draw", pytest.fail)
    monkeypatch.setattr(sys, "argv", ["backends", *words, str(folder)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert f"quick is being written by another training (process {pid} " in capsys.readouterr().err


def test_other_processes_of_a_launch_leave_the_lock_to_the_first(held_elsewhere, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with holding(held_elsewhere[0]):
        pass


def test_what_a_killed_save_left_is_told_to_who_trains_it_again(tmp_path):
    left = tmp_path / ".there.abcd1234"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".other.abcd1234").mkdir()
    said = []
    with holding(tmp_path / "there", said.append):
        assert not left.exists()
    assert said == [
        f"A save of {Path(tmp_path / 'there')} was cut off: .there.abcd1234, which had not taken "
        "its place, is removed."
    ]
    assert (tmp_path / ".other.abcd1234").exists()  # another's, and not this command's business
