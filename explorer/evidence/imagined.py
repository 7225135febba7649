"""Seen against imagined: the same decoder, the same images, the same pool.

What is decoded from imagery is the harder claim (Kneeland et al. 2025, arXiv 2506.06898): a
decoder of what meets the eye need not say anything of what is thought of.
"""

from __future__ import annotations

import numpy as np

from explorer import metrics
from explorer.decoding import decoded_space
from explorer.evidence.beside import IMAGINED, SEEN, beside, decoded, embedded
from explorer.evidence.critique import (
    LEAST,
    SEED,
    Finding,
    pairwise,
    rate,
    row,
    top_one,
    two_way,
    with_n,
)
from explorer.metrics import written
from explorer.request import Request
from explorer.types import UserError
from explorer.workbench import Workbench


def seen_against_imagined(
    seen: np.ndarray, imagined: np.ndarray, targets: np.ndarray, repeats: int
) -> Finding:
    """Return both rates, and their difference paired over the images.

    ``seen``, ``imagined`` and ``targets`` (n, ...): what was decoded, and the true embeddings, of
    the same n images, which are the pool of both; from ``repeats`` trials each.
    """
    import pandas as pd

    rows, each, n = [], {}, len(targets)
    for name, predicted in ((SEEN, seen), (IMAGINED, imagined)):
        won = pairwise(predicted, targets)
        each[name] = two_way(won)
        rows.append(row(f"{name}: two-way", rate(each[name])) | {"pool": n})
        rows.append(row(f"{name}: top-1", rate(top_one(won), 1 / n)) | {"pool": n})
    lost = each[SEEN] - each[IMAGINED]
    low, high = metrics.bootstrap_interval(lost, seed=SEED)
    rates = {name: rate(values) for name, values in each.items()}
    if n < LEAST:
        verdict = "too few images to say more"
    elif rates[IMAGINED].above:
        verdict = "so something of what was imagined is decoded"
        verdict += ", and less than of what was seen" if low > 0 else ""
    else:
        verdict = "so nothing shows that what was imagined is decoded"
    return Finding(
        "seen against imagined",
        f"Two-way identification (chance 50 %) and top-1 by the same decoder among the same {n} "
        f"images, from {repeats} trial(s) of each that were seen, and as many that were "
        "imagined; the difference is paired over images.",
        pd.DataFrame(rows),
        with_n(
            f"The decoder finds the seen image in {rates[SEEN]} of cases and the imagined one in "
            f"{rates[IMAGINED]} (difference {written(100 * lost.mean(), 1)} points, "
            f"{written(100 * low, 1)} to {written(100 * high, 1)}): {verdict}.",
            n,
        ),
    )


def imagined_of(bench: Workbench, request: Request) -> Finding:
    """Return `seen_against_imagined` for a request's mapper and subject.

    Raises
    ------
    UserError
        Where fewer than two images were seen and imagined, or a part cannot be read.
    """
    both = {what: beside(bench, request, what) for what in (SEEN, IMAGINED)}
    known = set(both[IMAGINED].stimuli)
    stimuli = [s for s in both[SEEN].stimuli if s in known]
    if len(stimuli) < 2:
        raise UserError(
            f"{len(stimuli)} images were both seen and imagined by {request.subject}, and two "
            "are told apart."
        )
    repeats = min(there.repeats(s) for there in both.values() for s in stimuli)
    targets = embedded(bench, both[SEEN], stimuli, decoded_space(bench, request))
    made = (decoded(bench, request, both[what], stimuli, repeats) for what in (SEEN, IMAGINED))
    return seen_against_imagined(*made, targets, repeats)
