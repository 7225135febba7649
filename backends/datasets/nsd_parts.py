"""What each part of NSD says of itself: the main experiment, NSD-synthetic, NSD-imagery.

A part knows which picture each beta is of. Which voxels are read, and from which files of betas,
is the same for all (`backends.datasets.nsd.NSD`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from backends.datasets.reading import LazyRows
from explorer.types import Origin

if TYPE_CHECKING:
    import pandas as pd


class Part(Protocol):
    """One experiment of NSD.

    ``experiment``: how its folders of betas begin, "" for the main one; ``trials``: of a session;
    ``norms``: normalisation -> unit of what it gives, the part's own first; ``split_by``: who
    defined train and test; ``test_only``: it has no training trials.
    """

    experiment: str
    trials: int
    title: str
    citation: str
    note: str
    split_by: str
    test_only: bool
    norms: Mapping[str, str]

    @property
    def stimuli(self) -> pd.DataFrame:
        """The pictures, see `explorer.protocols.Dataset`."""
        ...

    def table(self, subject: str, sessions: Sequence[int]) -> pd.DataFrame:
        """Return one row for every beta of some sessions, in the order of the files."""
        ...

    def kept(self, table: pd.DataFrame) -> np.ndarray:
        """Return bool (n,): the rows that are opened."""
        ...

    def groups(self, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, int]:
        """Return for `backends.datasets.reading.standardised`: groups, which rows count, ddof."""
        ...

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture, uint8 RGB (H, W, 3)."""
        ...

    def picture_origin(self, stimulus: str) -> Origin | None:
        """Return where the picture lies, None in no file."""
        ...

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return every id of a picture, each kind with its base."""
        ...

    def remarks(self) -> list[str]:
        """Return what a person should know of this copy, one sentence each."""
        ...

    def remarks_on(self, subject: str) -> list[str]:
        """Return what a person should know of a subject's files, one sentence each."""
        ...


def without_nan(rows: LazyRows) -> LazyRows:
    """Return rows whose NaN are 0, as NSD-synthetic's authors set them; still read lazily.

    Surface betas are NaN where a vertex was not measured in that session. The voxels have to be
    those of the main experiment, so such a vertex cannot be left out.
    """

    def read(wanted: np.ndarray) -> np.ndarray:
        values = rows.unchecked(wanted)
        values[np.isnan(values)] = 0
        return values

    return LazyRows(rows.shape, read, rows.source)
