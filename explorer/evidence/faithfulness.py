"""Faithfulness: whether the importance of parcels says what their lesions do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from explorer import metrics
from explorer.brain import importance
from explorer.brain.maps import attribute_voxels, parcel_importance, parcellation_of
from explorer.decoding import deciding, decode_betas, decoded_space, retrieval_margins
from explorer.evidence.controls import statistics
from explorer.evidence.lesions import lesion_effects, lesioned_rows, parcel_rows, require_lesions
from explorer.evidence.standing import betas_of_test
from explorer.request import Request, View
from explorer.types import Parcellation
from explorer.workbench import Workbench

if TYPE_CHECKING:
    import pandas as pd

TRIALS_AT_ONCE = 10  # of which all lesions are decoded in one batch


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Whether importance says what lesions do: both per parcel, and their rank correlation.

    ``table``: parcel, name, hemisphere, voxels, small; importance and effect, means over ``n``
    of ``of`` trials, and ``size``, the mean of the effects' absolute values: how far a lesion
    moves the margin, whichever way. ``correlation``: Spearman, -1 to 1, over ``parcels`` parcels
    with voxels (chance 0), of importance with its like: the measure "signed" with the effect, the
    others, which have no sign, with the size. ``signed_correlation``: with the effect in any case.
    """

    table: pd.DataFrame
    method: str
    target: str
    measure: str
    correlation: float
    signed_correlation: float
    parcels: int
    n: int
    of: int
    sentence: str


def faithfulness(bench: Workbench, request: Request, view: View) -> Faithfulness:
    """Return how well the importance of a view ranks parcels as their lesions do, in one trial."""
    effects = lesion_effects(bench, request, view.atlas)
    shown = parcel_importance(bench, request, view).table[view.measure].to_numpy()
    table, effect = effects.table, effects.table["effect"].to_numpy()
    return _faithful(
        table.drop(columns=["effect", "shift", "rank"]), shown[None], effect[None], view, 1
    )


def mean_faithfulness(
    bench: Workbench, request: Request, view: View, limit: int | None = None
) -> Iterator[Faithfulness]:
    """Return an iterator of the figure over ever more test trials, the last over all.

    Importance and effects are averaged over trials before they are ranked; ``limit`` takes that
    many stimuli, evenly spaced. The mapper is asked for a batch of lesions at a time; closing the
    iterator stops. What is finished is kept.
    """
    require_lesions(bench, request)
    of_all = replace(deciding(request), stimulus="")
    return _mean_faithfulness(bench, of_all, view, limit)


def _mean_faithfulness(
    bench: Workbench, request: Request, view: View, limit: int | None
) -> Iterator[Faithfulness]:
    parcellation = parcellation_of(bench, request.dataset, request.subject, view.atlas)
    stimuli, betas = betas_of_test(bench, request)
    chosen, table = metrics.evenly(len(stimuli), limit), parcel_rows(parcellation)
    weights, effects = [], []
    for begin in range(0, len(chosen), TRIALS_AT_ONCE):
        part = chosen[begin : begin + TRIALS_AT_ONCE]
        names = tuple(stimuli[i] for i in part)
        found = bench.kept(
            ("faithfulness", view.method, view.target, view.atlas, names),
            lambda names=names, part=part: _both(
                bench, request, view, parcellation, names, betas[part]
            ),
            request,
        )
        weights.append(found[0][view.measure])
        effects.append(found[1])
        yield _faithful(table, np.concatenate(weights), np.concatenate(effects), view, len(chosen))


def _both(
    bench: Workbench,
    request: Request,
    view: View,
    parcellation: Parcellation,
    stimuli: Sequence[str],
    betas: np.ndarray,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return importance by measure and lesion effect, float64 (n, L + 1) each, by parcel."""
    voxels = attribute_voxels(bench, request, view, betas, stimuli)
    weights = importance.parcel_statistics(voxels, parcellation)
    masks, fill = parcellation.masks(), statistics(bench, request)[0]
    rows = np.concatenate([lesioned_rows(one, fill, masks) for one in betas])
    shown = [stimulus for stimulus in stimuli for _ in range(1 + len(masks))]
    decoded = decode_betas(bench, request, rows)[decoded_space(bench, request)]
    margins = retrieval_margins(bench, request, decoded, shown).reshape(len(betas), 1 + len(masks))
    effects = margins[:, :1] - margins[:, 1:]
    effects[:, ~masks.any(axis=1)] = np.nan
    return weights, effects


def _faithful(
    table: pd.DataFrame, weights: np.ndarray, effects: np.ndarray, view: View, of: int
) -> Faithfulness:
    """Return the figure for importance and effects (n, L + 1) of n trials."""
    flat = np.isnan(weights).all(axis=1)  # such a trial prefers no parcel
    kept = weights[~flat] if not flat.all() else weights
    columns = {
        "importance": kept.mean(axis=0),
        "effect": effects.mean(axis=0),
        "size": np.abs(effects).mean(axis=0),
    }
    like = "effect" if view.measure == "signed" else "size"
    found, signed = (
        metrics.spearman(columns["importance"], columns[name]) for name in (like, "effect")
    )
    known, n = int((~np.isnan(columns["importance"] + columns["effect"])).sum()), len(effects)
    which = "this trial" if n == 1 else f"{n} test trials"
    lost = int(flat.sum())
    lacking = f" In {lost} of them the gradient is zero; importance leaves those out." * bool(lost)
    sentence = (
        f"Over {known} parcels, {view.method} ({view.measure}) and the {like} of lesions have "
        f"the rank correlation {metrics.written(found)} in {which}: 1 would mean that the map "
        f"ranks parcels as lesions do, 0 that it tells nothing of them.{lacking}"
        if np.isfinite(found)
        else f"{known} parcels are too few, or too alike, to rank them by importance and lesion."
    )
    return Faithfulness(
        *(table.assign(**columns), view.method, view.target, view.measure),
        *(found, signed, known, n, of, sentence),
    )
