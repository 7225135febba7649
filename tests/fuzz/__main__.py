"""``python -m tests.fuzz``: spoil the files of every reader and say what is not one sentence."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # a child of a process with threads may wait for ever

from tests.fuzz.run import GOOD, Reader, main_guard, report, run, slowest  # noqa: E402
from tests.fuzz.targets import TARGETS  # noqa: E402


def main() -> int:
    """Run it; 1 where a file was not refused in one sentence or took too much."""
    main_guard()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="how many files are spoilt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--target", action="append", default=[], help="only this reader")
    parser.add_argument("--only", type=int, help="one input again, with its traceback")
    given = parser.parse_args()
    chosen = tuple(t for t in TARGETS if not given.target or t.name in given.target)
    with tempfile.TemporaryDirectory() as folder:
        if given.only is not None:
            return again(Path(folder), given.only, given.seed)
        os.environ["AFTERIMAGE_CACHE"] = f"{folder}/cache"
        began = time.perf_counter()
        outcomes = run(chosen, range(given.inputs), given.seed, Path(folder), given.jobs)
        print(report(outcomes, time.perf_counter() - began))
        print(f"Most of the time: {slowest(outcomes)}.")
    return int(any(outcome.kind not in GOOD for outcome in outcomes))


def again(folder: Path, number: int, seed: int) -> int:
    """Read one spoilt input in this process."""
    reader = Reader(TARGETS[number % len(TARGETS)], folder / "input")
    name, data, how = reader.chosen(number, seed)
    (reader.folder / name).write_bytes(data)
    print(f"{reader.target.name}: {name}, {how}")
    reader.target.read(reader.folder)
    print("It was read.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
