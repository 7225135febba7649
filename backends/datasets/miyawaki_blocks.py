"""What the forms of Miyawaki et al. 2008 share: volumes made betas of blocks, and the figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from explorer.types import UserError

CITATION = (
    "Miyawaki et al. (2008). Visual image reconstruction from human brain activity using a "
    "combination of multiscale local image decoders. Neuron 60:915-929."
)
SUBJECT = "S1"
SIDE = 10  # pixels of a picture
ENLARGED = 16  # each pixel is shown as 16 x 16, so that a person can see it
SECONDS = 2.0  # between two volumes
DELAY = 2  # volumes by which blood lags behind the picture, as in nilearn's example
ESTIMATES = ("mean", "glm")
BETA_UNITS = {
    "mean": "mean over the block, 4 s later, of the voxel's signal, z-scored within run",
    "glm": "amplitude of the block in a GLM of the voxel's signal, z-scored within run",
}
# The upper left quarter of each figure of S2_figureImage.mat; the rest mirrors it.
QUARTERS = {
    "square8x8": ".....|.....|.....|...##|...##",
    "smallFrame8x8": ".....|.....|.....|...##|...#.",
    "largeFrame8x8": ".....|.####|.####|.##..|.##..",
    "plus8x8": ".....|....#|....#|....#|.####",
    "cross8x8": ".....|.##..|.###.|..###|...##",
}
CAPTIONS = {
    "square8x8": "small square",
    "smallFrame8x8": "small frame",
    "largeFrame8x8": "large frame",
    "plus8x8": "plus",
    "cross8x8": "cross",
}


# -------------------------------------------------------------------------------- volumes to betas


def spans(shown: np.ndarray) -> list[tuple[int, int]]:
    """Return first volume and end of each block: equal numbers in a row, -1 is rest.

    A block that begins too late for its delayed volumes to be in the run is left out.
    """
    edges = np.flatnonzero(np.diff(shown)) + 1
    parts = np.split(np.arange(len(shown)), edges)
    return [
        (int(p[0]), int(p[-1]) + 1)
        for p in parts
        if len(p) and shown[p[0]] >= 0 and p[0] + DELAY < len(shown)
    ]


def estimates(series: np.ndarray, parts: Sequence[tuple[int, int]], how: str) -> np.ndarray:
    """Return the betas float32 (blocks, V) of a run's volumes (t, V), z-scored within the run.

    A linear trend is taken out first, as nilearn's example does; a voxel that never varies is 0.
    """
    t = np.linspace(-1, 1, len(series))[:, None]
    signal = series - series.mean(axis=0, dtype=np.float64)
    signal = signal - t * (t * signal).sum(axis=0) / (t**2).sum()
    sd = signal.std(axis=0)
    signal = signal / np.where(sd > 1e-6 * np.abs(series).max(axis=0), sd, np.inf)
    function = {"mean": block_means, "glm": block_amplitudes}[how]
    return function(signal, parts).astype(np.float32)


def block_means(signal: np.ndarray, parts: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the mean signal (blocks, V) of each block's volumes, two volumes (4 s) later."""
    return np.stack([signal[begin + DELAY : end + DELAY].mean(axis=0) for begin, end in parts])


def block_amplitudes(signal: np.ndarray, parts: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the amplitude (blocks, V) of each block in one GLM of the run.

    Every block is a regressor of its own (nilearn's "least squares, all"), convolved with Glover's
    haemodynamic response, beside nilearn's cosine drifts; ordinary least squares.
    """
    import pandas as pd
    from nilearn.glm.first_level import make_first_level_design_matrix, run_glm

    names = [f"block {i:03d}" for i in range(len(parts))]
    events = pd.DataFrame(
        {
            "onset": [begin * SECONDS for begin, _ in parts],
            "duration": [(end - begin) * SECONDS for begin, end in parts],
            "trial_type": names,
        }
    )
    design = make_first_level_design_matrix(
        np.arange(len(signal)) * SECONDS, events, hrf_model="glover", drift_model="cosine"
    )
    _, found = run_glm(signal, design.to_numpy(), noise_model="ols")
    (fit,) = found.values()  # ordinary least squares has one noise model for all voxels
    return fit.theta[[design.columns.get_loc(name) for name in names]]


def check_estimate(name: str, betas: str) -> None:
    """Raise `UserError` for a way of making betas that there is not."""
    if betas not in ESTIMATES:
        raise UserError(f"{name}: betas is one of {', '.join(ESTIMATES)}, not {betas!r}.")


# ---------------------------------------------------------------------------------------- pictures


def enlarged(picture: np.ndarray) -> np.ndarray:
    """Return a picture bool (10, 10) as uint8 RGB (160, 160, 3), white on black."""
    large = np.kron(picture, np.ones((ENLARGED, ENLARGED), dtype=bool))
    return np.repeat(np.where(large, 255, 0).astype(np.uint8)[..., None], 3, axis=2)


def figure(name: str) -> np.ndarray:
    """Return one of the five figures by its name in ``S2_figureImage.mat``, bool (10, 10)."""
    left = np.array([[c == "#" for c in row] for row in QUARTERS[name].split("|")])
    top = np.hstack([left, left[:, ::-1]])
    return np.vstack([top, top[::-1]])
