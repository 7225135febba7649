"""A folder of finished pictures and answers that outlives the server, each with what decided it.

``ab/abcd....png``: its name is a hash of everything that decides the picture (choices, hashes of
weights and data), which also stands inside the file, with scores and a hash of the pixels. An
answer (what was decoded, a map, badges) is ``ab/abcd....json.gz`` likewise. An entry is held
against both when it is read; what does not agree is thrown away and made again. Several processes
may share a store; the entries that were not asked for longest go first.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import math
import os
import re
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from explorer.images import read_lossless, write_lossless
from explorer.protocols import Neighbour
from explorer.types import UserError
from explorer.writing import or_none

FORMAT = 4  # raise it when the same choices give another picture or another score
ANSWERS = 1  # likewise of answers
MOST_ANSWER = 2**26  # bytes of one answer unpacked: MindEye2's widest embedding takes 0.3 MB
MOST = 2 * 2**30  # bytes that are kept: some 60,000 of the embedded study's pictures
ROOM = 0.9  # of them stay when it is full, so that not every picture makes room
PICTURES = "pictures"  # what its folder is called in the cache folder
ENDING, ANSWER, PART = ".png", ".json.gz", ".part"
OURS = re.compile(r"(?P<name>[0-9a-f]{64})\.(?:png|json\.gz)|\.(?P<part>[0-9a-f]{64})\..*\.part")
STALE = 3600.0  # seconds after which a half-written file is nobody's


class Finished(NamedTuple):
    """A finished picture uint8 (H, W, 3) and what belongs to it, as in `Step`."""

    image: np.ndarray
    scores: Mapping[str, float]
    note: str = ""
    neighbours: tuple[Neighbour, ...] = ()


class Store:
    """Pictures and answers on disk.

    Parameters
    ----------
    folder
        Made when the first picture comes.
    most
        Bytes that are kept.
    report
        Is told once, in a sentence, when nothing more can be written; work goes on.
    read_only
        Nothing in the folder is ever written, removed or marked as used: it is not ours.
    """

    def __init__(
        self,
        folder: Path,
        most: int = MOST,
        report: Callable[[str], object] | None = None,
        read_only: bool = False,
    ) -> None:
        self.folder, self._most = Path(folder), most
        self._report, self._lock = report, threading.Lock()
        self._total: int | None = None  # bytes, once they were counted
        self._read_only = self._closed = read_only

    def get(self, decided: Mapping[str, Any]) -> Finished | None:
        """Return the picture that these choices decide, None where it is not there."""
        path = self._path(decided)
        if not os.access(path, os.R_OK):  # not there, or another user's alone
            return None
        try:
            pixels, text = read_lossless(path)
            record = json.loads(text)
            if record["decided"] != _plain(decided) or record["pixels"] != _hash(pixels):
                raise ValueError("it holds another picture than its name says")
            scores = {str(k): _number(v) for k, v in record["scores"].items()}
            near = tuple(Neighbour(str(p), str(n), float(s)) for p, n, s in record["neighbours"])
            found = Finished(pixels, scores, str(record["note"]), near)
        except (UserError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._throw_away(path)
            return None
        self._use(path)
        return found

    def put(self, decided: Mapping[str, Any], picture: Finished) -> None:
        """Keep a picture; what cannot be written is reported once, and nothing more is tried."""
        if self._closed:
            return
        record = {
            "format": FORMAT,
            "decided": _plain(decided),
            "pixels": _hash(picture.image),
            "scores": {k: or_none(v) for k, v in picture.scores.items()},
            "note": picture.note,
            "neighbours": [[n.picture, n.label, float(n.similarity)] for n in picture.neighbours],
        }
        content = write_lossless(picture.image, json.dumps(record, ensure_ascii=False))
        self._keep(self._path(decided), content)

    def answer(self, decided: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the answer that these choices decide, None where it is not there."""
        path = self._path(decided, ANSWER)
        if not os.access(path, os.R_OK):
            return None
        try:
            record = json.loads(_unpacked(path))
            answer = record["answer"]
            if record["decided"] != _plain(decided) or record["hash"] != _digest(answer):
                raise ValueError("it holds another answer than its name says")
        except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, RecursionError):
            self._throw_away(path)
            return None
        self._use(path)
        return answer

    def put_answer(self, decided: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Keep an answer of plain values, as `put` does a picture."""
        if self._closed:
            return
        plain = json.loads(_canonical(answer))
        record = {"decided": _plain(decided), "answer": plain, "hash": _digest(plain)}
        content = gzip.compress(_canonical(record).encode(), mtime=0)
        self._keep(self._path(decided, ANSWER), content)

    def _keep(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, content)
        except OSError as error:
            self._closed = True
            if self._report:
                self._report(
                    f"Pictures are not kept in {self.folder} any more ({error.strerror}); make "
                    "room there or name another folder with --store."
                )
            return
        self._make_room(len(content))

    def _throw_away(self, path: Path) -> None:
        if not self._read_only:
            _remove(path)

    def _use(self, path: Path) -> None:
        if not self._read_only:
            _touch(path)

    def __len__(self) -> int:
        return len(self._entries())

    def _path(self, decided: Mapping[str, Any], ending: str = ENDING) -> Path:
        form = FORMAT if ending == ENDING else f"answer {ANSWERS}"
        name = hashlib.sha256(f"{form} {_canonical(decided)}".encode()).hexdigest()
        return self.folder / name[:2] / f"{name}{ending}"

    def _entries(self) -> list[tuple[float, int, Path]]:
        """Return (last use, bytes, path) of every entry; half-written files go when they are old.

        Other processes add and take away meanwhile.
        """
        found, now = [], time.time()
        for path in self.folder.glob("[0-9a-f][0-9a-f]/*"):
            ours = OURS.fullmatch(path.name)
            if ours is None or not (ours["name"] or ours["part"]).startswith(path.parent.name):
                continue  # somebody's own, which is left alone
            try:
                known = path.stat()
                if ours["name"]:
                    found.append((known.st_mtime, known.st_size, path))
                elif now - known.st_mtime > STALE:
                    path.unlink()
            except OSError:
                continue
        return found

    def _make_room(self, added: int) -> None:
        with self._lock:
            if self._total is not None:
                self._total += added
                if self._total <= self._most:
                    return
            entries = self._entries()  # counted anew: others write here too
            self._total = sum(size for _, size, _ in entries)
            if self._total <= self._most:
                return
            for _, size, path in sorted(entries):
                if self._total <= ROOM * self._most:
                    return
                _remove(path)
                self._total -= size


def _write(path: Path, content: bytes) -> None:
    handle, part = tempfile.mkstemp(PART, f".{path.stem}.", path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(part, 0o644)  # mkstemp's 0600 would keep it from whoever serves
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _remove(path: Path) -> None:
    """Remove an entry; one of a folder that may only be read stays."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    """Mark an entry as used; a store that is read only stays as it is."""
    try:
        os.utime(path)
    except OSError:
        return


def _canonical(decided: Mapping[str, Any]) -> str:
    return json.dumps(decided, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _plain(decided: Mapping[str, Any]) -> Any:
    return json.loads(_canonical(decided))


def _unpacked(path: Path) -> bytes:
    """Return what a gzip file holds, of a bounded size: the folder may come from elsewhere."""
    with gzip.open(path) as file:
        content = file.read(MOST_ANSWER + 1)
    if len(content) > MOST_ANSWER:
        raise ValueError(f"it unpacks to more than {MOST_ANSWER:,} bytes")
    return content


def _digest(answer: Any) -> str:
    return hashlib.sha256(_canonical(answer).encode()).hexdigest()


def _hash(pixels: np.ndarray) -> str:
    whole = np.ascontiguousarray(pixels, np.uint8)
    return hashlib.sha256(str(whole.shape).encode() + whole.tobytes()).hexdigest()


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
