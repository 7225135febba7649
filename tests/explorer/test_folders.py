"""A save that is killed at any point loses nothing, and a folder has one writer at a time."""

import os
import re
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import explorer.folders
import explorer.mapper
from explorer.folders import held, mend
from explorer.mapper import is_whole, read_card, read_weights, write_checkpoint
from explorer.offers import mended, read_cards
from explorer.types import FILES, WEIGHTS, Card, UserError

EXPECTED = {"w": torch.zeros(64)}
CARD = Card("mapper", "linear", "ridge", "fake", "test", "MIT")


@contextmanager
def child(work):
    """Run ``work(say)`` in a process of its own; yields its number and what it says."""
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(out)
            work(lambda text: os.write(into, text.encode()))
        finally:
            os._exit(7)
    os.close(into)
    try:
        yield pid, lambda: os.read(out, 1000).decode()
    finally:
        os.close(out)


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def save(folder, value):
    write_checkpoint(folder, {"w": torch.full((64,), float(value))}, CARD)


def value_in(folder):
    return float(read_weights(folder, EXPECTED)["w"][0])


def killed_in(point, folder):
    """Save 2 into a folder in a process that is killed at a point of it."""

    def work(_):
        rename, calls = Path.rename, []

        def renaming(self, target):
            calls.append(self)
            if len(calls) == {"first rename": 1, "between": 2}[point]:
                die()
            return rename(self, target)

        def half(state, file):
            Path(file).write_bytes(b"\x40\x00\x00")
            die()

        def removing(path):
            (path / WEIGHTS).unlink()
            die()

        if point == "weights":
            import safetensors.torch

            safetensors.torch.save_file = half
        elif point == "card":
            explorer.mapper.write_card = die
        elif point in ("after", "removing"):
            explorer.folders.shutil.rmtree = die if point == "after" else removing
        else:
            Path.rename = renaming
        save(folder, 2)

    with child(work) as (pid, _):
        _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def linear(tmp_path):
    return tmp_path / "mappers" / "fake" / "linear-sub-01"


def names(folder):
    return sorted(path.name for path in folder.parent.iterdir())


@pytest.mark.parametrize(
    "point, value, told",
    [
        ("weights", 1, ["which had not taken its place, is removed."]),
        ("card", 1, ["which had not taken its place, is removed."]),
        ("first rename", 1, ["which had not taken its place, is removed."]),
        ("between", 2, ["the new one was whole and is in its place.", "before it, is removed."]),
        ("after", 2, ["the one before it, is removed."]),
        ("removing", 2, ["the one before it, is removed."]),
    ],
)
def test_a_save_killed_at_any_point_is_put_right(tmp_path, point, value, told):
    folder = linear(tmp_path)
    save(folder, 1)
    killed_in(point, folder)
    assert len(names(folder)) > 1
    said = mended(tmp_path)
    assert all(one.startswith(f"A save of {folder} was cut off: ") for one in said)
    assert [one.endswith(end) for one, end in zip(said, told, strict=True)] == [True] * len(told)
    assert value_in(folder) == value and names(folder) == [folder.name]
    assert not mended(tmp_path)
    problems = []
    assert [card.name for _, card in read_cards(tmp_path, problems.append)] == ["linear"]
    assert not problems


@pytest.mark.parametrize("point, whole", [("weights", False), ("first rename", True)])
def test_a_first_save_that_was_killed_is_finished_or_removed(tmp_path, point, whole):
    folder = linear(tmp_path)
    killed_in(point, folder)
    assert not folder.exists()
    (said,) = mended(tmp_path)
    assert names(folder) == ([folder.name] if whole else [])
    assert said.endswith("is in its place." if whole else "is removed.")
    assert not whole or value_in(folder) == 2


def test_the_former_one_is_put_back_where_the_new_one_is_damaged(tmp_path):
    folder = linear(tmp_path)
    save(folder, 1)
    killed_in("between", folder)
    former, new = sorted(folder.parent.glob(".*.????????*"), key=lambda p: p.suffix != ".old")
    flip(new / WEIGHTS, -1)
    said = mended(tmp_path)
    assert said[0].endswith("the former one is in its place.") and len(said) == 2
    assert value_in(folder) == 1 and names(folder) == [folder.name]
    # neither is whole: nothing is thrown away but the half-written new one
    shutil.move(folder, former)
    flip(former / WEIGHTS, -1)
    (said,) = mended(tmp_path)
    assert said.endswith(f"{former.name}, the one before it, is not whole and stays as it is.")
    assert names(folder) == [former.name]


def test_folders_of_others_and_what_is_being_written_are_left_alone(tmp_path):
    folder = linear(tmp_path)
    for name in (".vscode.settings", ".linear-sub-01.abcd1234"):
        (folder.parent / name).mkdir(parents=True)
        (folder.parent / name / "notes.txt").write_text("mine")
    fresh = folder.parent / ".linear-sub-02.abcd1234"
    fresh.mkdir()

    def work(say):
        with held(folder.with_name("linear-sub-02")):
            say("held")
            signal.pause()

    with child(work) as (pid, said):
        assert said() == "held"
        assert mended(tmp_path) == [] and fresh.exists()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert len(mended(tmp_path)) == 1 and not fresh.exists()
    assert (folder.parent / ".vscode.settings" / "notes.txt").read_text() == "mine"
    assert (folder.parent / ".linear-sub-01.abcd1234" / "notes.txt").exists()
    assert mend(tmp_path / "nowhere", is_whole, FILES) == []


def test_one_writer_at_a_time_and_the_other_is_named_until_it_dies(tmp_path):
    folder = tmp_path / "linear"

    def work(say):
        with held(folder):
            say("held")
            signal.pause()

    with child(work) as (pid, said):
        assert said() == "held"
        told = rf"linear is being written by another training \(process {pid} on .*, since 20\d\d-"
        with pytest.raises(UserError, match=told + r".*\); wait until that ends or stop it, or"):
            save(folder, 1)
        assert not folder.exists()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert (tmp_path / ".linear.lock").exists()  # it says nothing any more
    with held(folder) as sure, held(folder) as again:
        assert sure and again
        save(folder, 1)
        assert (tmp_path / ".linear.lock").exists()
    assert names(folder) == ["linear"] and value_in(folder) == 1


def test_a_lock_that_was_removed_while_one_waited_for_it_is_no_lock(tmp_path, monkeypatch):
    """The one before removed the file and let go; a third may have made a new one since."""
    flock, file = explorer.folders.fcntl.flock, tmp_path / ".linear.lock"

    def late(handle, how):
        monkeypatch.setattr(explorer.folders.fcntl, "flock", flock)
        file.unlink()
        return flock(handle, how)

    monkeypatch.setattr(explorer.folders.fcntl, "flock", late)
    with held(tmp_path / "linear") as sure:
        assert sure and re.search(rf'"pid": {os.getpid()}\b', file.read_text())


def test_without_locks_nothing_is_refused_and_nothing_is_mended(tmp_path, monkeypatch):
    def none(handle, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(explorer.folders.fcntl, "flock", none)
    save(tmp_path / "linear", 1)
    (tmp_path / ".linear.abcd1234").mkdir()
    with held(tmp_path / "linear") as sure:
        assert not sure
    assert mended(tmp_path) == [] and (tmp_path / ".linear.abcd1234").exists()


def test_a_place_that_takes_nothing_is_named_before_the_work(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(UserError, match=r"file/linear cannot be written \(.*\); make room on"),
        held(tmp_path / "file" / "linear"),
    ):
        raise AssertionError("held")


# --------------------------------------------------------------------------------------- checksums


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_a_flipped_byte_in_weights_is_noticed_whole_files_are_not_held_up(tmp_path):
    folder = tmp_path / "linear"
    save(folder, 1)
    assert len(read_card(folder).sha256[WEIGHTS]) == 64 and is_whole(folder)
    flip(folder / WEIGHTS, -2)  # within the last number, which stays finite
    assert not is_whole(folder)
    with pytest.raises(UserError, match=r"model\.safetensors is not as it was written: its SHA"):
        value_in(folder)
    flip(folder / WEIGHTS, -2)
    assert value_in(folder) == 1


def test_a_checkpoint_without_checksum_still_loads(tmp_path):
    folder = tmp_path / "linear"
    save(folder, 1)
    explorer.mapper.write_card(folder, CARD)
    card = (folder / "card.json").read_text()
    (folder / "card.json").write_text(re.sub(r',\s*"sha256": \{\}', "", card))
    assert "sha256" not in (folder / "card.json").read_text()
    assert value_in(folder) == 1 and is_whole(folder)
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights[:-4])
    assert not is_whole(folder)  # shorter than its header says
