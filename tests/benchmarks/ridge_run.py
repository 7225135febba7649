"""One fit of a ridge on made-up data in memory maps: ``python ridge_run.py [N] [V] [D] [FOLDER]``.

Run it in the root of any build of this project; it prints one line of JSON: processor and wall
seconds, the most resident memory (of it what is mapped from files), what the folds gave, and a
sum that two builds must agree on. Its steps go to standard error, a line each with the processor
seconds so far. Data are written once, and again only for other sizes.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CAUSES = 24  # dimensions of what pictures and betas have in common
REPEATS = 3  # every picture is shown three times, as in NSD
AT_ONCE = 500


def made(folder: Path, trials: int, voxels: int, targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Return betas (n, V) and embeddings (n / 3, D), float32, mapped from files made once."""
    rng = np.random.default_rng(0)
    pictures = trials // REPEATS
    cause = rng.standard_normal((pictures, CAUSES), np.float32)
    # voxels and targets of unlike noise, so that many penalties are chosen
    tuning = rng.standard_normal((CAUSES, voxels), np.float32)
    readout = rng.standard_normal((CAUSES, targets), np.float32)
    noise = np.geomspace(0.5, 200, targets, dtype=np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / f"betas-{trials}-{voxels}.npy", folder / f"goals-{pictures}-{targets}.npy"
    for kind, (file, columns) in enumerate(zip(files, (voxels, targets), strict=True)):
        if file.is_file():
            continue
        rows = trials if kind == 0 else pictures
        part = file.with_suffix(".part.npy")
        out = np.lib.format.open_memmap(part, "w+", np.float32, (rows, columns))
        for begin in range(0, rows, AT_ONCE):
            some = np.arange(begin, min(rows, begin + AT_ONCE))
            error = np.random.default_rng([kind, begin]).standard_normal(
                (len(some), columns), np.float32
            )
            if kind == 0:
                out[some] = cause[some % pictures] @ tuning + 8 * error
            else:
                out[some] = cause[some] @ readout + noise * error
        out.flush()
        del out
        part.rename(file)
    return tuple(np.load(file, mmap_mode="r") for file in files)


def study(betas: np.ndarray, goals: np.ndarray) -> tuple[Any, dict]:
    """Return a subject's training trials and the embeddings of what was shown."""
    import pandas as pd

    from explorer.types import EmbeddingSpace, Subject, Trials, VoxelSpace

    number = np.arange(len(betas)) % len(goals)
    table = pd.DataFrame({"stimulus": [f"s{i}" for i in number], "session": 1, "run": 1})
    table["repeat"] = np.arange(len(betas)) // len(goals)
    table["split"] = "train"
    who = Subject("made-up", "subj01", VoxelSpace(betas.shape[1], "made-up"))
    space = EmbeddingSpace("made-up", "wide", (goals.shape[1],))
    embeddings = {space: {f"s{i}": goals[i] for i in range(len(goals))}}
    return Trials(who, betas, "made up", table), embeddings


def most_resident() -> dict[str, float]:
    """Return the most resident memory in GB so far, and what of the present is of files."""
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
    )
    of_files = int(status["RssFile"].split()[0]) / 1e6
    return {
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "of_files_gb": of_files,
    }


def main(trials: int, voxels: int, targets: int, folder: Path) -> None:
    """Fit, and print what came of it."""
    import torch

    sys.path.insert(0, ".")
    from backends.mappers.ridge import Ridge

    torch.set_num_threads(1)
    one, embeddings = study(*made(folder, trials, voxels, targets))
    loaded = most_resident()["peak_gb"]
    began, wall = time.process_time(), time.perf_counter()

    def say(sentence: str) -> None:
        now = time.process_time() - began
        sys.stderr.write(f"{now:9.1f} s {most_resident()['peak_gb']:5.2f} GB {sentence}\n")

    mapper = Ridge.fit([one], embeddings, seed=0, progress=say)
    figures = mapper.metrics["subj01"]["made-up/wide"]
    space = mapper.targets[0]
    found = {
        "trials": trials,
        "voxels": voxels,
        "targets": targets,
        "processor_s": time.process_time() - began,
        "wall_s": time.perf_counter() - wall,
        "libraries_gb": loaded,
        **most_resident(),
        "cv_r2": figures["cv_r2"],
        "cv_correlation": figures["cv_correlation"],
        "alpha": figures["alpha"],
        "weights": float(np.abs(mapper.weights("subj01", space)[0][:200].detach().numpy()).sum()),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    sizes = [int(value) for value in sys.argv[1:4]]
    main(*(sizes or (27_000, 15_724, 1_664)), Path(sys.argv[4] if sys.argv[4:] else "/tmp/ridge"))
