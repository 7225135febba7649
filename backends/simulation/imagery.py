"""Imagined scenes: the responses to seen ones, weaker and out of place, by a planted truth.

Imagery reaches high-level areas more than early ones, and what it evokes there is coarser and
lies elsewhere than what seeing evokes (Breedlove et al. 2020; Favila, Kuhl & Winawer 2022). Here
the imagined signal of a vertex is ``gain`` times a mixture of its own signal when seeing and of
that of one other vertex of its parcel and hemisphere, its ``partner``:

    imagined = gain (sqrt(1 - shift) own + sqrt(shift) partner), each in units of its SD
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backends.simulation import cortex

if TYPE_CHECKING:
    from backends.simulation.brains import Brain


@dataclass(frozen=True)
class Weakness:
    """What is left of the signal: its ``gain``, and the share ``shift`` that lies elsewhere."""

    gain: float
    shift: float


# Our choice within what the papers above report; frozen before any decoder saw a trial.
EARLY, MIDDLE, HIGH = Weakness(0.2, 0.5), Weakness(0.3, 0.35), Weakness(0.45, 0.2)
WEAKNESS: dict[str, Weakness] = {
    name: {
        **dict.fromkeys(("pericalcarine", "cuneus", "lingual"), EARLY),
        **dict.fromkeys(("lateraloccipital", "superiorparietal", "inferiorparietal"), MIDDLE),
    }.get(name, HIGH)
    for name, area in cortex.AREAS.items()
    if area.role == "informative"
}


def partners(brain: Brain) -> np.ndarray:
    """Return the number of every vertex's partner, int32 (V,); −1 at controls.

    A ring through the vertices of each parcel in an order of the subject's own, so that nobody is
    his own partner.
    """
    found = np.full(len(brain.vertices), -1, np.int32)
    for parcel in dict.fromkeys(brain.parcels[brain.informative].tolist()):
        rng = np.random.default_rng((*brain.entropy, 7, zlib.crc32(parcel.encode())))
        ring = rng.permutation(np.flatnonzero(brain.parcels == parcel))
        found[ring] = np.roll(ring, 1)
    return found


def imagined(brain: Brain, seen: np.ndarray) -> np.ndarray:
    """Return the betas without noise of scenes that are imagined.

    Parameters
    ----------
    brain
        A subject.
    seen
        float32 (n, V), what `brains.noiseless` gives of the same scenes.

    Returns
    -------
    numpy.ndarray
        float32 (n, V), percent signal change; the baseline at control vertices.
    """
    on = brain.informative
    amplitude = np.where(on, brain.ncsnr * brain.noise_sd, 1.0)
    signal = (seen - brain.baseline) / amplitude
    weak = [WEAKNESS.get(p.rpartition(" ")[0], Weakness(0.0, 0.0)) for p in brain.parcels]
    gain, shift = (np.array([getattr(w, k) for w in weak], np.float32) for k in ("gain", "shift"))
    mixed = np.sqrt(1 - shift) * signal + np.sqrt(shift) * signal[:, partners(brain)]
    return (brain.baseline + amplitude * gain * np.where(on, mixed, 0)).astype(np.float32)
