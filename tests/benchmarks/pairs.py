"""Two builds of the app measured side by side: ``python tests/benchmarks --against turn-1``.

A part is one of the scripts of this folder that run in the root of any build and print a line of
JSON. Each is run in the earlier build and in this one by turns (A B A B ...), in processes of
their own; the ratio is the median of the pairs' ratios, with its quartiles. What a loaded machine
does to one run it does to the next as well, and processor time stands beside wall time.

The earlier build comes out of the repository by its name, and runs in an environment of its own
that holds what its requirements.txt names; both are kept for the next time.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FIGURES = {  # key of a script's answer -> what it is, and its unit
    "processor_s": ("processor time", "s"),
    "wall_s": ("wall time", "s"),
    "peak_gb": ("most memory", "GB"),
}


@dataclass(frozen=True)
class Build:
    """A build of the app: where it lies, and the Python that runs it."""

    name: str
    root: Path
    python: Path


@dataclass(frozen=True)
class Part:
    """A script and what it is given; ``figures``: further keys of its answer that are compared.

    ``pairs``: how many pairs are run where nothing else is said, as some take minutes. ``same``:
    the key of values on which both builds must agree, within ``within`` of each other. A key
    ``before>after`` compares one of the earlier build's with another of this one's.
    """

    title: str
    script: str
    arguments: tuple[str, ...] = ()
    figures: dict[str, tuple[str, str]] = field(default_factory=lambda: FIGURES)
    aim: float | None = None
    pairs: int = 7
    same: str = ""
    within: float = 1e-3


PAGE = {
    "first_picture_s": ("python app.py to the first finished picture", "s"),
    "map_s": ("... to the first map", "s"),
    "sweep_s": ("... to the end of the sweep", "s"),
    "processor_s": ("processor time of the server until then", "s"),
    "first_kb": ("sent until then", "kB"),
    "next_kb": ("sent for the next trial, with its pictures", "kB"),
    "again_kb": ("sent to a browser that was here before", "kB"),
}
SWEEP = {
    **FIGURES,
    "plain_wall_s>wall_s": ("over five plain guided calls of diffusers, 20 steps, wall", "s"),
    "plain_processor_s>processor_s": ("over them, processor time", "s"),
}
CURVE = {
    "first_curve_s": ("new trial to its first curve, wall", "s"),
    "curve_processor_s": ("Sweep curve, processor time", "s"),
    "compare_processor_s": ("Compare, processor time", "s"),
}
PARTS = {
    "page": Part("cold start, embedded study", "page_run.py", figures=PAGE),
    "sweep": Part("warm sweep of five scales", "sweep_run.py", figures=SWEEP, aim=0.4),
    "curve": Part(
        "Sweep curve and Compare of a new trial", "curve_run.py", figures=CURVE, aim=0.2, pairs=3
    ),
    "importance": Part(
        "importance of 1,000 trials x 15,724 voxels, ridge, 10,000 permutations",
        "importance_run.py",
        ("ridge",),
        aim=0.25,
        pairs=3,
        same="sums",
    ),
    "mixer": Part(
        "the same, mixer of width 64", "importance_run.py", ("mixer",), aim=0.25, pairs=3
    ),
    "scores": Part(
        "scores of 1,000 pairs, three networks",
        "scores_run.py",
        aim=0.1,
        pairs=3,
        same="values",
    ),
    "ridge": Part(
        "ridge, 6,000 x 4,000 -> 1,664", "ridge_run.py", ("6000", "4000", "1664"), pairs=3
    ),
}


def earlier(name: str, python: Path | None, cache: Path) -> Build:
    """Return a build from the repository by the name of its tag, branch or commit.

    ``python``: of an environment that can run it; else one is made in ``cache`` and kept.
    """
    commit = _git("rev-parse", "--verify", f"{name}^{{commit}}").strip()
    root = cache / commit[:12]
    if not (root / "app.py").is_file():
        root.parent.mkdir(parents=True, exist_ok=True)
        _git("worktree", "prune")
        _git("worktree", "add", "--detach", "--force", str(root), commit)
    if python is None:
        home = cache / f"{commit[:12]}-python"
        python = home / "bin" / "python"
        if not (home / "ready").is_file():
            venv.create(home, with_pip=True, clear=True)
            needs = ["-r", str(root / "requirements.txt"), "playwright", "psutil"]
            subprocess.run([python, "-m", "pip", "install", "--quiet", *needs], check=True)
            (home / "ready").write_text(commit)
    return Build(name, root, python)


def this_build() -> Build:
    """Return the build that this file belongs to."""
    return Build("now", ROOT, Path(sys.executable))


def compared(
    part: Part, builds: Sequence[Build], pairs: int | None = None
) -> Iterator[tuple[str, str]]:
    """Run a part in two builds by turns; yield a line of figures each, as (what, figure).

    A script that fails ends the part with a line that says so: one build's figures alone say
    nothing.
    """
    answers: list[list[dict[str, Any]]] = [[], []]
    for _ in range(pairs or part.pairs):
        for of_one, build in zip(answers, builds, strict=True):
            try:
                of_one.append(answer(part, build))
            except (subprocess.CalledProcessError, ValueError) as error:
                yield part.title, f"failed in {build.name}: {_last_line(error)}"
                return
    for key, (what, unit) in part.figures.items():
        keys = key.partition(">")[0], key.rpartition(">")[2]
        a, b = (
            [one[k] for one in of_one if k in one] for k, of_one in zip(keys, answers, strict=True)
        )
        if len(a) == len(b) == len(answers[0]):
            yield f"{part.title}: {what}", told(a, b, unit, builds, part.aim)
    if part.same:
        yield f"{part.title}: values", agreement(*(one[-1][part.same] for one in answers), part)


def answer(part: Part, build: Build) -> dict[str, Any]:
    """Run a script in a build's root; return the JSON of its last line."""
    environment = os.environ | {"PYTHONPATH": str(build.root)}
    command = [str(build.python), str(HERE / part.script), *part.arguments]
    done = subprocess.run(
        command, cwd=build.root, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def told(
    a: Sequence[float],
    b: Sequence[float],
    unit: str,
    builds: Sequence[Build],
    aim: float | None = None,
) -> str:
    """Return both sides' medians, the median of the pairs' ratios (b over a) and its quartiles."""
    ratios = [
        after / before if before else float("nan") for before, after in zip(a, b, strict=True)
    ]
    low, middle, high = quartiles(ratios)
    sides = " ".join(
        f"{build.name} {statistics.median(values):.3g} {unit},"
        for build, values in zip(builds, (a, b), strict=True)
    )
    spread = f" ({low:.2f} to {high:.2f}, {len(ratios)} pairs)" if len(ratios) > 1 else " (1 pair)"
    wanted = "" if aim is None else f", aim {aim:g}"
    return f"{sides} {middle:.2f} x{spread}{wanted}"


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile of one value or more."""
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def agreement(a: Any, b: Any, part: Part) -> str:
    """Return whether what both builds computed is the same, and by how much it is not."""
    worst, where = _farthest(a, b)
    if worst <= part.within:
        return f"equal within {part.within:g} (largest relative difference {worst:.1e})"
    return f"NOT EQUAL: {where} differs by {worst:.2g} of itself"


def _farthest(a: Any, b: Any, where: str = "value") -> tuple[float, str]:
    """Return the largest relative difference of two answers of one shape, and where it is."""
    if isinstance(a, dict) and isinstance(b, dict):
        shared = [key for key in a if key in b]
        found = [_farthest(a[key], b[key], key) for key in shared]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        found = [_farthest(x, y, where) for x, y in zip(a, b, strict=True)]
    elif isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) / max(abs(a), abs(b), 1e-12), where
    else:
        return (0.0 if a == b else float("inf")), where
    return max(found, default=(0.0, where))


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout


def _last_line(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    return said.strip().splitlines()[-1] if said.strip() else "no word"
