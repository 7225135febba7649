"""Sweep curve and Compare of a trial that is new: ``python curve_run.py``.

Run it in the root of any build of this project; it prints one line of JSON: wall seconds from the
question to the first curve, processor and wall seconds of the whole curve (seeds, and the test
images behind it), and those of Compare with another mapper. Models are loaded before; what the
curve drew of test images is not there for Compare, as each has a workbench of its own.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import Any

from any_build import bench, found, pictures, requests


def main() -> None:
    """Measure, and print the line."""
    pairs = found("explorer.page.lab_pairs")
    look = found("explorer.request", "explorer.types").View()
    result: dict[str, Any] = {}
    for name, view in (
        ("curve", look),
        ("compare", replace(look, against="mapper:contrastive")),
    ):
        workbench = bench()
        trials = requests(workbench)
        first, asked = next(trials), next(trials)
        pictures(workbench, first)
        if name == "compare":
            pictures(workbench, replace(first, mapper="contrastive"))
        pictures(workbench, asked)  # the page has drawn it before a view is opened
        parts = getattr(pairs, f"{name}_view")(workbench, asked, view)
        processor, wall = time.process_time(), time.perf_counter()
        for content, *_ in parts:
            if content and f"first_{name}_s" not in result:
                result[f"first_{name}_s"] = time.perf_counter() - wall
        result[f"{name}_processor_s"] = time.process_time() - processor
        result[f"{name}_wall_s"] = time.perf_counter() - wall
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
