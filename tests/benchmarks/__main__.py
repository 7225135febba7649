"""Prints the speed and size of the app as figures of one run: ``python tests/benchmarks``.

``--against turn-1`` compares with an earlier build instead, by turns, see ``pairs.py``.

Not a test: nothing here fails. The shipped models are timed in a process of their own, then the
app is started as a person starts it and looked at in Chromium, then asked by twenty programs at
once, then data sets of full size are opened, and ridge is fitted beside other solvers (this part
alone takes an hour on two cores). Stable Diffusion is timed where there is a GPU.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import platform
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

from load import measure_load  # noqa: E402  (after the path is set)
from on_data import measure_data  # noqa: E402
from on_gpu import measure_gpu  # noqa: E402
from on_models import measure_models  # noqa: E402  (after the path is set)
from on_page import measure_page  # noqa: E402
from on_training import measure_training  # noqa: E402
from pairs import PARTS, compared, earlier, this_build  # noqa: E402

from explorer.folders import cache_folder  # noqa: E402
from explorer.types import UserError  # noqa: E402


def main() -> int:
    """Run all parts and print one line a figure."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__)
    parser.add_argument("--checkpoints", type=Path, default=ROOT / "checkpoints")
    parser.add_argument("--simulated", type=Path, help="another copy of the embedded study")
    parser.add_argument("--only", choices=("models", "page", "load", "data", "training", "gpu"))
    parser.add_argument(
        "--small", action="store_true", help="the part of the GPU in miniature, on any device"
    )
    parser.add_argument(
        "--against", metavar="NAME", help="a tag, branch or commit: both builds by turns"
    )
    parser.add_argument("--part", choices=PARTS, action="append", help="of --against [all]")
    parser.add_argument("--pairs", type=int, help="runs of each build [7, of long ones 3]")
    parser.add_argument(
        "--python", type=Path, help="of an environment for the earlier build [one is made]"
    )
    args = parser.parse_args()
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    sys.stdout.write(f"Figures of one run: {os.cpu_count()} cores, OMP_NUM_THREADS {threads}, ")
    sys.stdout.write(f"load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}\n\n")
    if args.against:
        return against(args)
    sys.stdout.write("| what | figure | aim |\n|---|---|---|\n")
    parts = {
        "models": measure_models,
        "page": measure_page,
        "load": measure_load,
        "data": measure_data,
        "training": measure_training,
        "gpu": functools.partial(measure_gpu, small=args.small),
    }
    for name, part in parts.items():
        if args.only in (None, name):
            # a process of its own: cold is cold, and resident memory is that of one part
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                for what, value, aim in pool.apply(part, (args.checkpoints, args.simulated)):
                    sys.stdout.write(f"| {what} | {value} | {aim} |\n")
                    sys.stdout.flush()
    return 0


def against(args: argparse.Namespace) -> int:
    """Print a line for each figure of two builds; 1 where a part failed or values differ."""
    builds = earlier(args.against, args.python, cache_folder() / "benchmarks"), this_build()
    sys.stdout.write("| what | figure |\n|---|---|\n")
    wrong = 0
    for name in args.part or PARTS:
        for what, figure in compared(PARTS[name], builds, args.pairs):
            wrong |= figure.startswith(("failed", "NOT EQUAL"))
            sys.stdout.write(f"| {what} | {figure} |\n")
            sys.stdout.flush()
    return int(wrong)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(str(error))
