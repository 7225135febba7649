"""The log names no home folder, and folders that were given by their names."""

from __future__ import annotations

import io
import sys
import traceback
from pathlib import Path

import pytest

from explorer.page import logs
from explorer.page.logs import PROJECT, Private, keep_private


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setenv("HOME", str(tmp_path / "people" / "ann"))
    return io.StringIO()


def test_a_traceback_with_planted_paths_shows_none_of_them(
    log: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "people" / "ann" / "patients" / "study 7"
    notes = data.parents[1] / "notes"
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    keep_private({"<lab>": data})
    keep_private({"<lab>": data})  # a second page in one process
    try:
        raise OSError(f"{data}/betas.npy and {notes} are gone")
    except OSError:
        traceback.print_exc()
    text = log.getvalue()
    assert "OSError: <lab>/betas.npy and ~/notes are gone" in text
    assert f'File "./{Path(__file__).relative_to(PROJECT)}", line' in text
    for private in (str(tmp_path), "ann", "patients", str(PROJECT)):
        assert private not in text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/home/bob/data/x.npy", "~/data/x.npy"),
        ("'/Users/Bob/x', C:\\Users\\Bob\\x", "'~/x', ~\\x"),
        (f"{PROJECT}/app.py: no", "./app.py: no"),
        (f"{PROJECT}-data/x", f"{PROJECT}-data/x"),  # another folder
        ("/data/one/x /data/one2/x /data/one", "<a>/x /data/one2/x <a>"),
        ("GET /home HTTP/1.1 at /", "GET /home HTTP/1.1 at /"),
    ],
)
def test_places_are_told_by_name(log: io.StringIO, text: str, clean: str) -> None:
    stream = Private(log, {"<a>": Path("/data/one"), "<root>": Path("/")})
    assert stream.cleaned(text) == clean
    assert stream.write(text) == len(text) and log.getvalue() == clean
    assert not stream.isatty() and logs.HOMES.search(clean) is None
