"""Importance over test images: ``python importance_run.py ridge|mixer [TRIALS] [VOXELS] [DRAWS]``.

Run it in the root of any build of this project; it prints one line of JSON: processor and wall
seconds in all and by step, the most resident memory, and sums that two builds must agree on. What
`measure_parts` does for a map over test images is done here on made-up betas, with weights that
are random: importance of every trial to 69 parcels, the same for shuffled weights, evidence of
each parcel, importance at other places, and the comparison with shuffled weights. The mixer has
this project's own widths (64, four streams, two blocks), not MindEye2's 4,096, unless WIDTH is
given after DRAWS.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import numpy as np
from any_build import found

PARCELS, TARGETS, AT_ONCE, SEED = 69, 1664, 100, 0


def made(kind: str, voxels: int, width: int) -> Any:
    """Return a mapper with random weights."""
    import torch

    from explorer.types import EmbeddingSpace

    space = EmbeddingSpace("made-up", "wide", (TARGETS,))
    torch.manual_seed(SEED)
    if kind == "ridge":
        from backends.mappers.ridge import Ridge

        mapper = Ridge((space,), {"subj01": voxels})
        weight, intercept = mapper.weights("subj01", space)
        torch.nn.init.normal_(weight, std=0.01)
        torch.nn.init.normal_(intercept)
    else:
        from backends.mappers.mixer import Mixer

        sizes = {"width": width, "streams": 4, "hidden": width, "blocks": 2}
        mapper = Mixer((space,), {"subj01": voxels}, prior=None, **sizes)
    mean, sd = mapper.statistics("subj01")
    torch.nn.init.normal_(mean, std=3)
    torch.nn.init.uniform_(sd, 0.5, 2)
    return mapper.eval().requires_grad_(False)


def main(kind: str, trials: int, voxels: int, draws: int, width: int) -> None:
    """Do each step, and print what came of it."""
    import torch

    sys.path.insert(0, ".")
    torch.set_num_threads(1)
    importance = found("explorer.brain.importance", "explorer.importance")
    inference = found("explorer.evidence.inference", "explorer.statistics")
    from explorer.types import Label, Parcellation, VoxelSpace

    mapper = made(kind, voxels, width)
    space = mapper.targets[0]
    rng = np.random.default_rng(SEED)
    betas = 3 * rng.standard_normal((trials, voxels), np.float32)
    membership = np.sort(rng.integers(0, PARCELS, voxels)).astype(np.int32)
    labels = tuple(Label(f"p{i}", "left") for i in range(PARCELS))
    parcellation = Parcellation("made-up", "partition", labels, membership, "made-up")
    shown = rng.standard_normal((trials, TARGETS), np.float32)
    shown += mapper.decode(betas, "subj01")[space]
    took, before = {}, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    began, wall = time.process_time(), time.perf_counter()

    def step(name: str) -> None:
        took[name] = round(time.process_time() - began - sum(took.values()), 3)

    def explained(of: Any) -> tuple[np.ndarray, dict]:
        parts = []
        for begin in range(0, trials, AT_ONCE):
            rows = slice(begin, begin + AT_ONCE)
            target = importance.retrieval_margin(shown, np.arange(trials)[rows])
            parts.append(importance.attribute(of, betas[rows], "subj01", target))
        whole = np.concatenate(parts)
        return importance.mean_map(whole), importance.parcel_statistics(whole, parcellation)

    mean, own = explained(mapper)
    step("importance")
    random = inference.shuffled_weights(mapper, SEED)
    step("shuffling weights")
    _, other = explained(random)
    step("importance, shuffled weights")
    average = mapper.statistics("subj01")[0].numpy()
    more = {}
    if hasattr(mapper, "decode_alone"):
        more["alone"] = lambda mask: mapper.decode_alone(betas, "subj01", mask, space)
    z, p = inference.parcel_evidence(
        lambda rows: mapper.decode(rows, "subj01")[space],
        *(betas, average, parcellation.masks(), shown, draws, SEED),
        **more,
    )
    step("evidence of each parcel")
    sources = inference.turns(VoxelSpace(voxels, "made-up"), draws, SEED)
    step("places drawn")
    place, valid = inference.place_test(mean, parcellation.masks(), sources)
    step("importance at other places")
    a, b = (one["enrichment"].mean(axis=0)[:PARCELS] for one in (own, other))
    compare = getattr(inference, "randomised", None) or inference._randomised
    compared = compare(a, b, draws, SEED)
    step("compared with shuffled weights")
    result = {
        "kind": kind,
        "trials": trials,
        "voxels": voxels,
        "draws": draws,
        "width": width,
        "processor_s": time.process_time() - began,
        "wall_s": time.perf_counter() - wall,
        "before_gb": before,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "steps": took,
        "sums": {
            "share": float(np.nansum(own["share"][:, :5])),
            "signed": float(np.nansum(np.abs(own["signed"]))),
            "mean map": float(np.square(mean).sum()),
            "z": float(np.nansum(np.abs(z))),
            "p": float(np.nansum(p)),
            "p place": float(np.nansum(place)),
            "turns": int(valid.sum()),
            "randomised": [compared.correlation, compared.low, compared.high],
        },
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    sizes = [int(given.get(i, size)) for i, size in enumerate((1000, 15_724, 10_000, 64), 2)]
    main(given.get(1, "ridge"), *sizes)
