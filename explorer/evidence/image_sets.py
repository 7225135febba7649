"""Which test images make a set: by class, by name, by split, and those beside the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from explorer.decoding import decode_betas, decoded_space
from explorer.evidence.beside import IMAGINED, SEEN, beside, decoded, embedded, offered
from explorer.evidence.critique import Pair
from explorer.request import Request
from explorer.splits import nearest, read_split, split_names
from explorer.types import UserError
from explorer.workbench import Workbench

STRANGE = "out of distribution"  # all sets whose names begin with OOD, as LAION-fMRI names them


def far(targets: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Return the half of the test images whose nearest training image is farthest, bool (n,)."""
    near = nearest(targets, training)
    return near <= np.median(near)


def by_class(classes: Sequence[str], trained: set[str]) -> dict[str, np.ndarray]:
    """Return sets by class: of classes that were never trained, and of out-of-distribution ones.

    A set that holds all test images, or fewer than two, is none.
    """
    names = np.asarray(classes, dtype=str)
    strange = np.char.startswith(names, "OOD")
    unseen = (names != "") & ~np.isin(names, sorted(trained)) & ~strange
    found = {"classes never trained": unseen, STRANGE: strange}
    found |= {name: names == name for name in dict.fromkeys(names[strange])}
    return _told(found, len(names))


def by_name(bench: Workbench, dataset: str, stimuli: Sequence[str]) -> dict[str, np.ndarray]:
    """Return sets that are named: in the stimuli's column ``test_set``, and test parts of splits.

    A split is one that lies among the checkpoints, whichever one the data are opened with.
    """
    table, found = bench.catalogue.dataset(dataset).stimuli, {}
    if "test_set" in table:
        named = table["test_set"].reindex(stimuli).fillna("").astype(str).to_numpy()
        found |= _named(named)
    for name in split_names(bench.catalogue.checkpoints, dataset):
        tested = read_split(bench.catalogue.checkpoints, dataset, name).test
        found[f"split {name}"] = np.array([s in tested for s in stimuli], dtype=bool)
    return _told(found, len(stimuli))


def _named(names: np.ndarray) -> dict[str, np.ndarray]:
    """Return a set for each name (n,) but "", and one of all that begin with OOD."""
    found = {name: names == name for name in dict.fromkeys(names) if name}
    strange = [chosen for name, chosen in found.items() if str(name).startswith("OOD")]
    if len(strange) > 1:
        found[STRANGE] = np.logical_or.reduce(strange)
    return found


def _told(sets: dict[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    return {name: chosen for name, chosen in sets.items() if 1 < chosen.sum() < n}


def further(
    bench: Workbench, request: Request, stimuli: Sequence[str], targets: np.ndarray
) -> tuple[dict[str, Pair], str]:
    """Return predictions and targets of the test sets beside a data set's own, and their base.

    Parted by a column ``test_set`` of their stimuli, where there is one. Where they have fewer
    repeats than the test images, a set of these from as few is what they compare with: the base,
    "" where no such set is needed. ``stimuli`` and ``targets`` (n, ...) are those of the request.
    """
    catalogue, place = bench.catalogue, (request.dataset, request.subject)
    if catalogue.offer(*place, request.mapper).published is not None:
        return {}, ""
    space, found, fewest = decoded_space(bench, request), {}, 0
    for what in offered(bench, request.dataset):
        if what in (SEEN, IMAGINED):
            continue
        try:
            there = beside(bench, request, what)
            own = set(catalogue.gallery(*place).index)
            others = [s for s in there.stimuli if s not in own]
            if len(others) < 2:
                continue
            pair = decoded(bench, request, there, others), embedded(bench, there, others, space)
        except UserError as error:
            catalogue.report(f"The test set {what} is not compared: {error}")
            continue
        table, names = there.study.stimuli, np.full(len(others), what, dtype=object)
        if "test_set" in table:
            named = table["test_set"].reindex(others).fillna("").astype(str).to_numpy()
            names = np.where(named != "", named, what)
        sets = {n: c for n, c in _named(names).items() if c.sum() > 1}
        found |= {name: tuple(rows[chosen] for rows in pair) for name, chosen in sets.items()}
        repeats = min(there.repeats(s) for s in others)
        fewest = min(fewest or repeats, repeats)
    return _with_base(bench, request, stimuli, targets, found, fewest)


def _with_base(
    bench: Workbench,
    request: Request,
    stimuli: Sequence[str],
    targets: np.ndarray,
    found: dict[str, Pair],
    repeats: int,
) -> tuple[dict[str, Pair], str]:
    """Return further sets with the test images from as few repeats before them, if need be."""
    trials = bench.catalogue.trials(request.dataset, request.subject)
    rows = [trials.rows("test", stimulus, request.repeats) for stimulus in stimuli]
    if not found or max(map(len, rows)) <= repeats:
        return found, ""
    base = f"all test images, {repeats} repeat(s)"
    means = [np.asarray(trials.betas[r[:repeats]], np.float32).mean(axis=0) for r in rows]
    made = decode_betas(bench, request, np.stack(means))[decoded_space(bench, request)]
    return {base: (made, targets)} | found, base
