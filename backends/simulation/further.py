"""The further parts of a study: held-out kinds of pictures, and scenes that are imagined.

Both are test trials of the same subjects. ``generalisation`` shows `held_out.sample_held_out`
twice each; ``imagery`` asks for one test scene of every category, twice as well.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from backends.simulation.held_out import Shown, sample_held_out
from backends.simulation.scenes import sample_scenes

if TYPE_CHECKING:
    import pandas as pd

GENERALISATION, IMAGERY = "generalisation", "imagery"
PARTS = (GENERALISATION, IMAGERY)
REPEATS = 2  # of the six subjects more would not fit into the repository
FIRST_SESSION = {GENERALISATION: 7, IMAGERY: 9}  # after the six of the main part
HELD_OUT_SHARE = 30 / 300  # pictures of one set for each test scene of the study: our choice
RUNS = 10


@lru_cache(maxsize=2)
def held_out(n_test: int, seed: int) -> tuple[Shown, ...]:
    """Return what the held-out pictures of a study show, set after set."""
    return tuple(sample_held_out(max(1, round(n_test * HELD_OUT_SHARE)), seed + 3))


def held_out_ids(n_test: int, seed: int) -> list[str]:
    """Return ``held-out-001`` ..., in the order of `held_out`."""
    return [f"held-out-{i + 1:03d}" for i in range(len(held_out(n_test, seed)))]


def imagined_numbers(n_test: int, seed: int) -> list[int]:
    """Return which test scenes are imagined, numbers from 0: the first of every category."""
    first: dict[str, int] = {}
    for number, scene in enumerate(sample_scenes(n_test, seed + 1)):
        first.setdefault(scene.category, number)
    return sorted(first.values())


def further_trials(part: str, ids: list[str]) -> pd.DataFrame:
    """Return the trials of a part in the order of its betas, see `study.trial_table`."""
    import pandas as pd

    number, repeat = np.divmod(np.arange(len(ids) * REPEATS), REPEATS)
    columns = {
        "repeat": repeat,
        "session": FIRST_SESSION[part] + repeat,
        "run": number * RUNS // len(ids) + 1,
    }
    table = pd.DataFrame({"stimulus": np.array(ids)[number], "split": "test", **columns})
    return table.sort_values(["session", "run"], kind="stable", ignore_index=True)
