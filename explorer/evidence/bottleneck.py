"""The bottleneck: how many brain dimensions a decoder needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from explorer.evidence.critique import SEED, Finding, each, flat, rate, row, with_n

NEARLY = 0.95  # of the rate above chance: our choice
COMPONENTS, RANDOM, REDUCED, CEILING = "components", "random", "reduced rank", "ceiling"
ALL = "all dimensions"


def bottleneck(
    decode: Callable[[np.ndarray], np.ndarray],
    betas: np.ndarray,
    training: np.ndarray,
    targets: np.ndarray,
    sizes: Sequence[int] = (1, 2, 5, 10, 20, 50, 100),
    noiseless: np.ndarray | None = None,
) -> Finding:
    """Return identification against the number of brain dimensions that are kept.

    Four lines: the betas projected on the first principal components of the training betas; on as
    many random directions; the mapper's own map at reduced rank; and, as a ceiling, the true
    embeddings in what that rank can say, which no decoder through it can pass.

    Parameters
    ----------
    decode
        Betas (n, V) to predictions (n, ...).
    betas, targets
        Of the test images.
    training
        Training betas (m, V), at least 2.
    sizes
        How many dimensions; those that the training betas do not have are left out.
    noiseless
        The betas (n, V) without noise, where they are known: the last row.
    """
    import pandas as pd

    mean = training.mean(axis=0)
    directions = _directions(training)
    most = len(directions)
    fitted = flat(decode(training))
    centre, outputs = fitted.mean(axis=0), _directions(fitted)
    predicted, true = flat(decode(betas)), flat(targets)
    rng, full = np.random.default_rng(SEED), rate(each(predicted, true))
    rows, enough = [], {}
    for k in [k for k in sizes if k <= most]:
        kept, said = directions[:k].T, outputs[:k].T
        random = np.linalg.qr(rng.standard_normal((betas.shape[1], k)))[0]
        found = {
            COMPONENTS: decode((betas - mean) @ kept @ kept.T + mean),
            RANDOM: decode((betas - mean) @ random @ random.T + mean),
        }
        if k <= len(outputs):
            found[REDUCED] = (predicted - centre) @ said @ said.T + centre
            found[CEILING] = (true - centre) @ said @ said.T + centre
        for name, some in found.items():
            one = rate(each(some, true))
            rows.append(row(f"{k} {name}", one) | {"k": k, "line": name})
            if (one.value - 0.5) / max(full.value - 0.5, 1e-12) >= NEARLY:
                enough.setdefault(name, k)
    v = betas.shape[1]
    rows.append(row("all dimensions", full) | {"k": v, "line": ALL})
    if noiseless is not None:
        clean = rate(each(decode(noiseless), true))
        rows.append(row("all dimensions, without noise", clean) | {"k": v, "line": ALL})
    parts = [
        f"{enough[name]} {what} give {100 * NEARLY:.0f} % of what all give above chance"
        for name, what in (
            (COMPONENTS, f"of {v:,} brain dimensions"),
            (REDUCED, "dimensions of its own map"),
        )
        if name in enough
    ]
    told = "; ".join(parts) or "no number of dimensions that was tried comes near it"
    return Finding(
        "bottleneck",
        "Two-way identification with the betas projected on the first k principal components of "
        "the training betas, and on k random directions (Mayo et al. 2024, BrainBits); with the "
        "predictions on the first k components of what is fitted to the training betas, which "
        "for a linear mapper is its reduced-rank regression (Izenman 1975); and, as the ceiling "
        "of that rank, of the true embeddings in the same k directions.",
        pd.DataFrame(rows),
        with_n(f"With all dimensions the shown image is found in {full}; {told}.", len(betas)),
        curve=("k", "line"),
    )


def _directions(rows: np.ndarray) -> np.ndarray:
    """Return the principal directions (k, d) of rows (n, d) that vary, strongest first."""
    centred = rows - rows.mean(axis=0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    return directions[values > 1e-6 * values.max(initial=1e-12)]
