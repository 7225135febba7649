"""Folders that come whole or not at all, one writer each, and what a killed writer leaves.

A folder NAME is written as its neighbour ``.NAME.random`` and then takes its place; the one that
was there is ``.NAME.random.old`` until the new one has the name. A process that is killed in
between leaves one or both, and `mend` puts them right. Whoever writes NAME holds a lock on
``.NAME.lock``, which the system lets go when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from explorer.types import UserError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

LEFT = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}(?P<old>\.old)?")  # as `tempfile.mkdtemp` names
_ours: dict[Path, int] = {}  # what this process holds, and how often
_guard = threading.Lock()


def cache_folder() -> Path:
    """Return where what can be made again is kept: $AFTERIMAGE_CACHE, or ~/.cache/afterimage."""
    return Path(os.environ.get("AFTERIMAGE_CACHE") or Path.home() / ".cache" / "afterimage")


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty neighbour folder that takes the place of ``folder`` when all went well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    fresh.chmod(0o755)  # mkdtemp's 0700 would hide a shared checkpoint from others
    try:
        yield fresh
        if folder.exists():
            old = fresh.with_name(f"{fresh.name}.old")
            folder.rename(old)
            try:
                fresh.rename(folder)
            except OSError:
                old.rename(folder)
                raise
            shutil.rmtree(old)
        else:
            fresh.rename(folder)
    finally:
        if fresh.exists():
            shutil.rmtree(fresh)


@contextlib.contextmanager
def held(folder: Path, work: str = "training") -> Iterator[bool]:
    """Hold a folder that is written, so that no other process writes it meanwhile.

    Held again by the same process, it is still held. Yields False where the file system knows no
    locks; it is not held then.

    Parameters
    ----------
    folder
        It need not exist; its parent is made.
    work
        What the folder is held for, as another process is told.

    Raises
    ------
    UserError
        Where another process holds it, naming that one; or where its parent cannot be written.
    """
    place = Path(os.path.abspath(folder))
    file = place.with_name(f".{place.name}.lock")
    with _guard:
        again = place in _ours
        locked = None if again else _lock(folder, file, work)
        _ours[place] = _ours.get(place, 0) + 1
    try:
        yield again or locked is not None
    finally:
        with _guard:
            _ours[place] -= 1
            if not _ours[place]:
                del _ours[place]
            if locked is not None:
                with contextlib.suppress(OSError):
                    file.unlink()  # while it is locked: nobody can hold it in between
        if locked is not None:
            os.close(locked)


def _lock(folder: Path, file: Path, work: str) -> int | None:
    """Return the open file that holds the lock, None where there are no locks."""
    if fcntl is None:
        return None
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written ({error}); make room on that disk or choose another."
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _holder(handle)
            os.close(handle)
            raise UserError(
                f"{folder} is being written by {who}; wait until that ends or stop it, or give "
                "this one another name or folder."
            ) from None
        except OSError:  # ENOLCK, ENOTSUP
            os.close(handle)
            return None
        if _is_there(handle, file):
            break
        os.close(handle)  # the one who held it has removed it since: once more
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    told = {"work": work, "pid": os.getpid(), "host": socket.gethostname(), "since": now}
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(told).encode(), 0)
    except OSError:  # a full disk: it is held all the same
        pass
    except BaseException:  # such as Ctrl+C
        file.unlink(missing_ok=True)
        os.close(handle)
        raise
    return handle


def _is_there(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(file))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> str:
    """Return who holds a lock, by what that process wrote into its file."""
    try:
        told = json.loads(os.pread(handle, 4096, 0))
        who = f"process {int(told['pid'])} on {told['host']}, since {told['since']}"
        return f"another {told['work']} ({who})"
    except (OSError, ValueError, KeyError, TypeError):  # it has not written that yet
        return "another process"


def was_cut_off(parent: Path) -> bool:
    """Say whether something lies in a folder that a killed writer may have left."""
    try:
        return any(LEFT.fullmatch(path.name) for path in parent.iterdir())
    except OSError:
        return False


def mend(
    parent: Path, is_whole: Callable[[Path], bool], files: Collection[str], name: str = ""
) -> list[str]:
    """Put right what killed writers left in a folder, and say what was done, a sentence each.

    Parameters
    ----------
    parent
        The folder of the folders that were to be written.
    is_whole
        Whether a folder holds all that it should.
    files
        What a save writes. A folder that holds anything else is somebody's own, and stays.
    name
        Only what was left of this one; "" for all.

    Notes
    -----
    Where NAME is gone, a new folder that is whole gets the name, else the former one that is. A
    former one goes only when NAME is whole, and a new one when NAME is there or it is half
    written. What somebody is writing now is left alone, and so is what cannot be changed here.
    """
    left: dict[str, list[Path]] = {}
    try:
        for path in sorted(parent.iterdir()):
            found = LEFT.fullmatch(path.name)
            if found and name in ("", found["name"]) and _is_ours(path, files):
                left.setdefault(found["name"], []).append(path)
    except OSError:
        return []
    said: list[str] = []
    for one, paths in left.items():
        try:
            with held(parent / one, "repair") as sure:
                if sure:
                    said += _mended(parent / one, [p for p in paths if p.exists()], is_whole)
        except (UserError, OSError):  # held by another, or not ours to change
            continue
    return said


def _is_ours(path: Path, files: Collection[str]) -> bool:
    """Say whether a folder holds nothing but what a save writes (what begins with a dot, too)."""
    if path.is_symlink() or not path.is_dir():
        return False
    return all(
        one.is_file() and (one.name in files or one.name.startswith(".")) for one in path.iterdir()
    )


def _mended(folder: Path, left: list[Path], is_whole: Callable[[Path], bool]) -> Iterator[str]:
    cut = f"A save of {folder} was cut off"
    former = [path for path in left if path.name.endswith(".old")]
    new = [path for path in left if path not in former]
    if not folder.exists():
        back = next((path for path in (*new, *former) if is_whole(path)), None)
        if back is not None:
            back.rename(folder)
            which = "former one is" if back in former else "new one was whole and is"
            yield f"{cut}: the {which} in its place."
    for path in new:
        if path.exists() and (folder.exists() or not is_whole(path)):
            shutil.rmtree(path)
            yield f"{cut}: {path.name}, which had not taken its place, is removed."
    for path in (path for path in former if path.exists()):
        if folder.exists() and is_whole(folder):
            shutil.rmtree(path)
            yield f"{cut}: {path.name}, the one before it, is removed."
        else:
            yield f"{cut}: {path.name}, the one before it, is not whole and stays as it is."
