"""A subject's trials with only part of the training rows: what few data are worth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from explorer.types import Trials, UserError


class _Rows:
    """Some rows of betas, read when they are asked for."""

    def __init__(self, betas: Any, rows: np.ndarray) -> None:
        self._betas, self._rows = betas, rows
        self.shape = (len(rows), betas.shape[1])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return the betas of any index of the first axis."""
        return self._betas[self._rows[rows]]


def fewer(trials: Trials, *, sessions: int = 0, share: float = 1.0, seed: int = 0) -> Trials:
    """Return the trials with fewer training rows; test rows all stay.

    Parameters
    ----------
    trials
        Of one subject.
    sessions
        Only training rows of the first so many sessions that have some, in order of number, as
        MindEye2 counts its hours of scanning (arXiv 2403.11207). 0 takes all.
    share
        Of the training stimuli that remain, this share with all their trials, at least 2 stimuli,
        chosen by ``seed``. Subjects with the same stimuli keep the same ones, and a smaller share
        is part of a larger one.
    seed
        See ``share``.
    """
    if sessions < 0 or not 0 < share <= 1:
        raise UserError(
            "sessions is a whole number from 1 (0 takes all) and share above 0 up to 1, found "
            f"sessions={sessions}, share={share:g}."
        )
    rows = trials.rows("train")
    if sessions:
        session = trials.table["session"].to_numpy()
        known = np.unique(session[rows])
        if sessions > len(known):
            raise UserError(
                f"{trials.subject.dataset}/{trials.subject.name} has {len(known)} session(s) with "
                f"training trials, asked for were {sessions}; choose fewer."
            )
        rows = rows[np.isin(session[rows], known[:sessions])]
    if share < 1:
        stimulus = trials.table["stimulus"].to_numpy()[rows]
        order = np.random.default_rng(seed).permutation(np.unique(stimulus))
        rows = rows[np.isin(stimulus, order[: max(2, round(share * len(order)))])]
    if len(rows) == len(trials.rows("train")):
        return trials
    kept = np.sort(np.concatenate([rows, trials.rows("test")]))
    table = trials.table.iloc[kept].reset_index(drop=True)
    return replace(trials, betas=_Rows(trials.betas, kept), table=table)
