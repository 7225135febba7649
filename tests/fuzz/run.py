"""Reads spoilt files in child processes that may take so much memory and time, and no more."""

import hashlib
import json
import os
import pickle
import re
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from explorer.types import UserError
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import Target

MEMORY = 2**30  # bytes beyond what the valid input takes
SECONDS = 20  # of processor time; a valid input takes a few hundredths
BATCH = 25  # inputs of one child: to begin one takes longer than to read one
# a sentence may end with a command, which a full stop would spoil
COMMAND = re.compile(r"(python -m backends|python app.py|hf download|pip install) [^.]*$")
VALID = -1  # the number of the valid input
LONGEST = 1500  # letters of a sentence, and so much of a path
ROOT = Path(__file__).resolve().parents[2]
GOOD = ("refused", "same", "changed")


@dataclass
class Outcome:
    """What became of one spoilt file.

    ``kind``: "refused" (one sentence), "same" or "changed" (it was read, as what is valid or
    otherwise), or a failure: "traceback", "memory", "hang", "crash" or "words" (a sentence that
    is none). ``about`` says where and why.
    """

    number: int
    target: str
    file: str
    how: str
    kind: str
    about: str
    megabytes: float
    seconds: float


def digest(value: Any) -> str:
    """Return a hash of what was read."""
    found = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, list | tuple):
            for one in part:
                add(one)
        elif isinstance(part, torch.Tensor):
            add(part.detach().float().numpy())
        elif isinstance(part, np.ndarray):
            found.update(f"{part.dtype}{part.shape}".encode())
            found.update(np.ascontiguousarray(part).tobytes())
        else:
            found.update(repr(part).encode("utf-8", "surrogateescape"))

    add(value)
    return found.hexdigest()


def place_of(error: BaseException) -> str:
    """Return the error's class and the innermost line of ours that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(str(ROOT)) and "/tests/" not in f.filename]
    at = ours[-1] if ours else frames[-1]
    said = str(error).splitlines()[0][:120] if str(error) else ""
    where = f"{Path(at.filename).name}:{at.lineno} {at.name}"
    return f"{type(error).__name__} at {where}: {said}"


def attempt(target: Target, folder: Path) -> tuple[str, str]:
    """Read a folder and say what came of it."""
    warnings.simplefilter("ignore")
    try:
        return "read", digest(target.read(folder))
    except UserError as error:
        text = str(error)
        if "asks for more memory" in text or isinstance(error.__cause__, MemoryError):
            return "memory", f"{place_of(error)}"
        whole = text.endswith(".") or COMMAND.search(text)
        if "\n" in text or not whole or len(text) > LONGEST + len(str(folder)):
            return "words", f"{place_of(error)} | {text[:200]!r}"
        return "refused", text
    except MemoryError as error:
        return "memory", place_of(error)
    except BaseException as error:
        return "traceback", place_of(error)


class Reader:
    """A target with its valid input on disk, whose files are spoilt one at a time."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.folder = target, folder
        folder.mkdir(parents=True)
        target.write(folder)
        files = sorted(p for p in folder.glob(target.spoilt) if p.is_file())
        self.files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}
        self.valid, self.memory = "", 0

    def chosen(self, number: int, seed: int) -> tuple[str, bytes, str]:
        """Return the name of a file, its bytes spoilt as the numbers say, and how."""
        rng = np.random.default_rng([seed, number])
        # files of one ending are much alike: first an ending, then one of its files
        endings = sorted({Path(name).suffix for name in self.files})
        ending = endings[int(rng.integers(len(endings)))]
        names = [name for name in self.files if Path(name).suffix == ending]
        name = names[int(rng.integers(len(names)))]
        return name, *mutated(self.files[name], name, rng)

    def outcomes(self, numbers: list[int], seed: int) -> Iterator[Outcome]:
        """Spoil a file as ``seed`` and each number say, read all, and mend it.

        A child process reads some of them; another goes on where one was ended.
        """
        (valid,) = self._of_child([VALID], seed, 8 * MEMORY)
        self.valid, self.memory = valid.about, int(valid.megabytes * 2**20)
        if valid.kind != "read":
            raise AssertionError(f"The valid input of {self.target.name}: {valid}")
        ahead = list(numbers)
        while ahead:
            done = list(self._of_child(ahead[:BATCH], seed, self.memory + 2 * MEMORY))
            ahead = ahead[len(done) :]
            yield from map(self._judged, done)

    def _judged(self, one: Outcome) -> Outcome:
        one.megabytes -= self.memory / 2**20
        if one.kind == "read":
            one.kind, one.about = ("same" if one.about == self.valid else "changed"), ""
        if one.megabytes * 2**20 > MEMORY and one.kind not in ("hang", "crash"):
            one.about = f"{one.megabytes:.0f} MB, then {one.kind}: {one.about}"
            one.kind = "memory"
        return one

    def _of_child(self, numbers: list[int], seed: int, allowed: int) -> Iterator[Outcome]:
        """Yield what a child says of the numbers, up to the one that ended it."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(read)
                self._child(numbers, seed, allowed, write)
            finally:
                os._exit(0)
        os.close(write)
        begun: list[Any] = []
        with os.fdopen(read, "rb") as lines:
            while select.select([lines], [], [], 10 * SECONDS)[0]:
                line = lines.readline()
                if not line:
                    break
                said = json.loads(line)
                if len(said) == 3:
                    begun = said
                    continue
                number, name, how = begun
                begun = []
                kind, about, memory, seconds = said
                yield Outcome(
                    *(number, self.target.name, name, how, kind, about),
                    *(memory / 2**20, seconds),
                )
            else:
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if begun:
            number, name, how = begun
            self._mend(name)
            by = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "exit"
            kind = "hang" if by in ("SIGPROF", "SIGALRM", "SIGKILL") else "crash"
            yield Outcome(number, self.target.name, name, how, kind, by, 0.0, float(SECONDS))

    def _child(self, numbers: list[int], seed: int, allowed: int, write: int) -> None:
        """Read inputs one after another, each with its own clock, and write a line about each."""
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1), os.dup2(quiet, 2)
        resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + allowed,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in numbers:
            name, how = "", "valid"
            if number != VALID:
                name, data, how = self.chosen(number, seed)
                (self.folder / name).write_bytes(data)
            os.write(write, json.dumps([number, name, how]).encode() + b"\n")
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            before, began = _status("VmRSS"), time.perf_counter()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process
            signal.setitimer(signal.ITIMER_REAL, 8 * SECONDS)  # for what waits and does not work
            kind, about = attempt(self.target, self.folder)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            memory = max(0, _status("VmHWM") - before)
            told = [kind, about[:2000], memory, round(time.perf_counter() - began, 3)]
            self._mend(name)
            os.write(write, json.dumps(told).encode() + b"\n")

    def _mend(self, name: str) -> None:
        if name:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(self.files[name])


def _status(name: str) -> int:
    """Return bytes of memory of this process, by their name in /proc."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def run(
    targets: tuple[Target, ...], numbers: range, seed: int, folder: Path, jobs: int = 1
) -> list[Outcome]:
    """Return the outcome of every number: number n spoils an input of target n modulo their count.

    Each job is a child process that takes one target after another.
    """
    children = []
    for job in range(jobs):
        child = os.fork()
        children.append(child)
        if child == 0:
            try:
                with open(folder / f"job {job}", "wb") as told:
                    for at in range(job, len(targets), jobs):
                        place = folder / targets[at].name.replace(" ", "-")
                        mine = [n for n in numbers if n % len(targets) == at]
                        found = list(Reader(targets[at], place).outcomes(mine, seed))
                        pickle.dump([asdict(outcome) for outcome in found], told)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
    if any(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children):
        raise AssertionError("A job ended early; see above.")
    found: list[Outcome] = []
    for job in range(jobs):
        with open(folder / f"job {job}", "rb") as told:
            while told.peek(1):
                found += [Outcome(**values) for values in pickle.load(told)]
    return sorted(found, key=lambda outcome: outcome.number)


def report(outcomes: list[Outcome], seconds: float) -> str:
    """Return a table by target, and the classes of failures with an example each."""
    lines, kinds = [], Counter(o.kind for o in outcomes)
    for name in dict.fromkeys(o.target for o in outcomes):
        of = Counter(o.kind for o in outcomes if o.target == name)
        lines.append(f"{name:24} " + ", ".join(f"{n} {kind}" for kind, n in of.most_common()))
    bad = [o for o in outcomes if o.kind not in GOOD]
    classes: dict[tuple[str, str, str], list[Outcome]] = {}
    for one in bad:
        classes.setdefault((one.target, one.kind, one.about.split(": ")[0]), []).append(one)
    for (name, kind, about), of in sorted(classes.items()):
        first = of[0]
        lines.append(f"\n{name}: {len(of)} x {kind}, {about}\n    {first.about}")
        lines.append(f"    --only {first.number}: {first.file}, {first.how}")
    most = max(outcomes, key=lambda o: o.megabytes)
    lines.append(
        f"\n{len(outcomes)} inputs in {seconds:.0f} s: "
        + ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        + f"; at most {most.megabytes:.0f} MB beyond the valid input ({most.target})"
    )
    return "\n".join(lines)


def slowest(outcomes: list[Outcome]) -> str:
    """Return which targets take most of the time."""
    spent: Counter[str] = Counter()
    for one in outcomes:
        spent[one.target] += one.seconds
    return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in spent.most_common(5))


def main_guard() -> None:
    """Refuse a platform that cannot fork or limit a child."""
    if not hasattr(os, "fork") or sys.platform != "linux":
        raise SystemExit("The inputs are read in child processes with limits, which needs Linux.")
