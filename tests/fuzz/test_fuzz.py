"""A sample of spoilt files, each refused in one sentence; and that the script sees what is not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from explorer.files import guard
from explorer.types import UserError
from tests.fuzz import run as fuzz
from tests.fuzz.mutate import ANY, OWN
from tests.fuzz.run import Reader, report
from tests.fuzz.targets import Target

ROOT = Path(__file__).resolve().parents[2]


def test_a_sample_of_spoilt_files_takes_one_sentence_each():
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", "93", "--seed", "5", "--jobs", "1"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "93 inputs in" in said.stdout


# ------------------------------------------------------------------------- what the script can see


SOUND = b'{"title": "sound", "numbers": [1, 2, 3]}'


def write(folder: Path) -> None:
    (folder / "a.json").write_bytes(SOUND)


def outcomes(tmp_path, read, numbers=range(8)) -> list[fuzz.Outcome]:
    """Spoil a file for a reader that reads it one way while it is sound, and ``read`` after."""

    def either(folder: Path):
        data = (folder / "a.json").read_bytes()
        return "sound" if data == SOUND else read(data)

    return list(Reader(Target("planted", write, either), tmp_path / "f").outcomes([*numbers], 0))


def spoilt(found: list[fuzz.Outcome]) -> set[str]:
    return {one.kind for one in found} - {"same"}


def refused(text: str):
    def read(data: bytes):
        raise UserError(text)

    return read


def needs_much(data: bytes) -> int:
    return int(np.ones(2**24).sum())  # 128 MB, all of it written


def asks_for_much(data: bytes) -> None:
    with guard("a.json"):
        bytearray(2**50)


def goes_round(data: bytes) -> None:
    while True:
        pass


def ends(data: bytes) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (refused("a.json is damaged; copy it again."), "refused"),
        (refused("Make it: python -m backends evaluate --out FOLDER"), "refused"),
        (refused("a.json is damaged; copy it again"), "words"),
        (refused("a.json is damaged.\nCopy it."), "words"),
        (refused("a" * 3000 + "."), "words"),
        (lambda data: data[10**9], "traceback"),
        (lambda data: len(data), "changed"),
        (needs_much, "memory"),
        (asks_for_much, "memory"),
        (ends, "crash"),
    ],
)
def test_each_failure_is_told_by_its_kind(tmp_path, monkeypatch, read, kind):
    monkeypatch.setattr(fuzz, "MEMORY", 2**26)
    found = outcomes(tmp_path, read)
    assert spoilt(found) == {kind}
    assert [one.number for one in found] == list(range(8))
    assert (tmp_path / "f" / "a.json").read_bytes() == SOUND
    told = report(found, 1.0)
    assert f"{sum(one.kind == kind for one in found)} {kind}" in told
    assert ("--only" in told) == (kind not in ("refused", "changed"))


def test_what_never_ends_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    assert spoilt(outcomes(tmp_path, goes_round, range(1))) == {"hang"}


def test_a_seed_spoils_the_same_way_again(tmp_path):
    reader = Reader(Target("planted", write, len), tmp_path / "f")
    first = [reader.chosen(number, 3) for number in range(40)]
    assert first == [reader.chosen(number, 3) for number in range(40)]
    assert first != [reader.chosen(number, 4) for number in range(40)]
    ways = {how.split(" ")[0] for _, _, how in first}
    assert len(ways) > 6 and ways <= {change.__name__ for change in (*ANY, *OWN[".json"])}


def test_a_valid_input_that_is_refused_stops_the_script(tmp_path):
    reader = Reader(Target("planted", write, lambda folder: refused("No.")(b"")), tmp_path / "f")
    with pytest.raises(AssertionError, match="valid input of planted: .*refused"):
        list(reader.outcomes([0], 0))
