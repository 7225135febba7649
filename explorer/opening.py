"""The trials that ship with their pictures: a page can open on one of them before a model loads.

They are drawn once, by a seed and not by how well they come out, and named in ``trials.json`` of
the folder that holds them (see `explorer.store`). Whatever no longer fits the weights and the data
is not used: the page then opens on any trial, and computes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from explorer import drawing
from explorer.brain.maps import is_mapped
from explorer.choosing import default_request
from explorer.decoding import is_decoded
from explorer.files import read_object
from explorer.finished import is_drawn
from explorer.request import Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

LIST = "trials.json"
TRIALS, SEED = 24, 0  # how many ship, and which
UNASKED = 20.0  # seconds after which models load though nobody came; our choice
BEHIND = 4.0  # seconds for a first page to draw what it was sent
TRIES = 3  # trials that are looked at before the page opens on any


def drawn_trials(stimuli: Sequence[str], count: int = TRIALS, seed: int = SEED) -> list[str]:
    """Return ``count`` of the test stimuli, each equally likely, in the order of the gallery."""
    rows = np.random.default_rng(seed).permutation(len(stimuli))[:count]
    return [stimuli[row] for row in sorted(rows)]


def shipped_trials(bench: Workbench, dataset: str, subject: str) -> list[str]:
    """Return the trials of a subject that ship with their pictures, [] for none."""
    if bench.shipped is None:
        return []

    def make() -> tuple[tuple[str, str], list[str]]:
        try:
            known = read_object(bench.shipped.folder / LIST)
        except UserError:  # not there, or damaged: nothing ships
            known = {}
        place = str(known.get("dataset", "")), str(known.get("subject", ""))
        return place, [str(name) for name in known.get("stimuli", ())]

    place, names = bench.kept(("trials that ship",), make)
    if place != (dataset, subject):
        return []
    there = bench.catalogue.gallery(dataset, subject).index
    return [name for name in names if name in there]


def opening_trial(bench: Workbench) -> str:
    """Return one of the trials that ship, at random, whose whole view is kept; "" for none."""
    plain = default_request(bench.catalogue)
    names = shipped_trials(bench, plain.dataset, plain.subject)
    for name in np.random.default_rng().permutation(names)[:TRIES]:
        request = default_request(bench.catalogue, stimulus=str(name))
        if is_kept(bench, request):
            return request.stimulus
    return ""


def is_kept(bench: Workbench, request: Request) -> bool:
    """Return whether all that a page begins with is kept: rank, map and pictures."""
    return (
        is_decoded(bench, request)
        and is_mapped(bench, request, View())
        and is_drawn(bench, request)
    )


def load_behind(
    bench: Workbench,
    answered: threading.Event,
    turn: Callable[[], contextlib.AbstractContextManager],
) -> None:
    """Load what the first trial needs; behind it where it ships, as loading would slow it down.

    ``answered``: set once somebody has a first trial. ``turn`` as in `explorer.drawing.warm`.
    """
    if opening_trial(bench) and answered.wait(UNASKED):
        time.sleep(BEHIND)
    drawing.warm(bench, default_request(bench.catalogue), turn)
