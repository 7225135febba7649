"""Scores of made-up pairs of pictures: ``python scores_run.py [PAIRS] [SCORE ...] [--folder F]``.

Run it in the root of any build of this project; it prints one line of JSON: processor and wall
seconds in all and by score, the most resident memory, the values, and what was told of how long it
will take. Networks have the published architectures and random weights, with normalisations that
fit the pictures; they are written once. Default: PixCorr, SSIM, the two-way rates of MSE, PCC and
SSIM, and AlexNet, Inception and EfficientNet-B1.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
from any_build import found

SIDE, DETAILS = 256, 12  # pixels; coarse and fine structure of a made-up picture
PIXELS = ("pixcorr-425", "ssim-grey-425", "mse-two-way", "pcc-two-way", "ssim-two-way")
NETWORKS = (
    *("alexnet-2-two-way", "alexnet-5-two-way", "inception-two-way"),
    "effnet-b1-distance",
)
ARCHITECTURES = {
    "alexnet": ("alexnet-owt-7be5be79.pth", {}),
    "inception_v3": (
        "inception_v3_google-0cc3c7bd.pth",
        {"init_weights": False, "transform_input": True},
    ),
    "efficientnet_b1": ("efficientnet_b1-c27df63c.pth", {}),
}


def pictures(n: int, seed: int, of: np.ndarray | None = None) -> np.ndarray:
    """Return uint8 (n, 256, 256, 3) of smooth blobs and fine noise, more or less like ``of``."""
    from scipy.ndimage import zoom

    rows = np.empty((n, SIDE, SIDE, 3), np.uint8)
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        coarse = rng.random((DETAILS, DETAILS, 3)).astype(np.float32)
        smooth = np.clip(zoom(coarse, (SIDE / DETAILS, SIDE / DETAILS, 1), order=1), 0, 1)
        image = 255 * smooth + 12 * rng.standard_normal(smooth.shape, np.float32)
        if of is not None:
            share = 0.15 + 0.5 * rng.random()
            image = share * of[i] + (1 - share) * image
        rows[i] = np.clip(image, 0, 255)
    return rows


def write_networks(folder: Path) -> None:
    """Write random weights of every architecture, its normalisations set by some pictures."""
    import torch
    from torchvision import models

    folder.mkdir(parents=True, exist_ok=True)
    some = torch.from_numpy(pictures(16, 7)).permute(0, 3, 1, 2).float() / 128 - 1
    for name, (file, settings) in ARCHITECTURES.items():
        if (folder / file).is_file():
            continue
        torch.manual_seed(0)
        network = getattr(models, name)(**settings).train()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the mean over all that it sees
        with torch.no_grad():
            for _ in range(2):
                network(torch.nn.functional.interpolate(some, size=(299, 299)))
        torch.save(network.state_dict(), folder / file)


def main(pairs: int, wanted: tuple[str, ...], folder: Path) -> None:
    """Score, and print what came of it."""
    import torch

    torch.set_num_threads(1)
    scores = found("backends.reports.scores", "backends.scores")
    networks = found("backends.reports.feature_networks", "backends.scores")
    write_networks(folder)
    shown = pictures(pairs, 1)
    made = pictures(pairs, 2, shown)
    chosen = [score for score in scores.SCORES if score.id in wanted]
    steps: list[tuple[float, str]] = []
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    began, wall = time.process_time(), time.perf_counter()
    _, table, missing = scores.measure(
        list(shown),
        [list(made)],
        networks.Features(folder),
        scores=chosen,
        progress=lambda sentence: steps.append((time.process_time() - began, str(sentence))),
    )
    took = {"processor_s": time.process_time() - began, "wall_s": time.perf_counter() - wall}
    steps.append((took["processor_s"], "done"))
    result = {
        "pairs": pairs,
        **took,
        "before_gb": loaded,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "values": dict(zip(table["id"], table["value"], strict=True)),
        "missing": missing,
        "steps": [
            (said, round(after - before, 3))
            for (before, said), (after, _) in zip(steps, steps[1:], strict=False)
        ],
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("pairs", type=int, nargs="?", default=1000)
    parser.add_argument("scores", nargs="*", default=[*PIXELS, *NETWORKS])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/networks"))
    given = parser.parse_args()
    main(given.pairs, tuple(given.scores), given.folder)
