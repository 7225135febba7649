"""Measures the shipped models on the embedded study: what must be true, and what is aimed at.

Averaged test betas, mean over the subjects that are not at honest difficulty, intervals by
bootstrap over stimuli. The guidance scale is chosen on training scenes whose betas a mapper
refitted without them decodes; test trials are used once, for the figures. Everything is seeded, so
a second run prints the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.reports.study import (
    DATASET,
    LABELS,
    SWEEP,
    Say,
    Scores,
    Study,
    balanced,
    closed_form_error,
    drawn,
    gradient_error,
    held_out,
    mean_share,
    parcel_scores,
    permuted_auc,
    shown,
    shuffled,
    sweep_difference,
)
from backends.reports.tables import as_failed
from explorer import metrics
from explorer.brain.maps import parcel_importance, parcellation_of
from explorer.request import METHODS, View

if TYPE_CHECKING:
    import pandas as pd

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # to choose from
HELD_OUT = 24  # training scenes a subject that choose the scale
PERMUTATIONS = 200
NEAR_CHANCE = 0.03
SHOWN, CEILING = "what was shown", "the true embedding (ceiling)"
MEASURED, NOISELESS = "ridge", "ridge, noiseless betas"
NONE = float("nan")
Row = dict[str, Any]
Tables = dict[str, "pd.DataFrame"]


def evaluate(
    *,
    checkpoints: Path,
    limit: int | None = None,
    path: Path | None = None,
    device: str = "auto",
    progress: Say | None = None,
) -> Tables:
    """Return every figure as tables by title; `render` makes them Markdown.

    Parameters
    ----------
    checkpoints
        The folder of trained weights.
    limit
        Only the first test stimuli, and as few training scenes, for a quick look.
    path
        Another copy of the simulated study than the one that ships.
    device
        A torch device, or "auto".
    progress
        Called with one sentence now and then.
    """
    say = progress or (lambda sentence: None)
    return measure(Study.open(checkpoints, limit, path, device, say), limit)


def measure(study: Study, limit: int | None = None) -> Tables:
    """Return the tables of an open study."""
    import pandas as pd

    parcels, permuted = measure_parcels(study)
    laws = measure_laws(study)
    trace = try_scales(study, limit)
    scale, true_scale = best_scale(trace, "decoded"), best_scale(trace, "true")
    pictures = {SHOWN: shown(study), CEILING: drawn(study, study.truth, true_scale, CEILING)}
    decoded: dict[str, dict[str, np.ndarray]] = {MEASURED: {}, NOISELESS: {}}
    for name, by_subject in decoded.items():
        for subject in study.subjects:
            by_subject[subject] = study.decode(subject, noiseless=name == NOISELESS)
            what = f"{name}, {subject}"
            pictures[what] = drawn(study, by_subject[subject], scale, what)
    must = [*measure_chance(study, decoded[MEASURED], pictures), *laws, permuted]
    aims = [
        *ceiling_aims(study, pictures),
        *ridge_aims(study, decoded, pictures),
        *parcel_aims(parcels, len(study.stimuli)),
    ]
    return {
        "What must be true": pd.DataFrame(must),
        "What is aimed at": pd.DataFrame(aims),
        "Pictures": pd.DataFrame([describe(study, *item) for item in pictures.items()]),
        "Parcels": pd.DataFrame(parcels),
        "Guidance scale, on training scenes": pd.DataFrame(trace),
    }


# ------------------------------------------------------------------------------ the guidance scale


def try_scales(study: Study, limit: int | None) -> list[Row]:
    """Return what the judge says of training scenes drawn at every scale."""
    count = HELD_OUT if limit is None else max(2, min(HELD_OUT, limit // 4))
    stimuli, decoded, true = held_out(study, count)
    true = true[: max(2, len(true) // 2)]  # the ceiling's best scale shows with fewer pictures
    labels = study.dataset.stimuli.loc[stimuli, list(LABELS)].reset_index(drop=True)
    trace = []
    for scale in SCALES:
        row: Row = {"scale": scale}
        for what, embeddings in (("decoded", decoded), ("true", true)):
            images = study.draw(embeddings, scale, f"choosing the scale, {what} embeddings")
            said, right = study.judge.classify(list(images)), labels[: len(images)]
            row[f"{what}: category"] = float((said["category"] == right["category"]).mean())
            row[f"{what}: super-category"] = metrics.balanced_accuracy(
                right["supercategory"].to_numpy(), said["supercategory"].to_numpy()
            )
            row[f"{what}: N"] = len(images)
        trace.append(row)
    return trace


def best_scale(trace: Sequence[Mapping[str, Any]], what: str) -> float:
    """Return the scale with the largest sum of both accuracies; the smaller one of equals."""
    score = [row[f"{what}: category"] + row[f"{what}: super-category"] for row in trace]
    return trace[int(np.argmax(score))]["scale"]


# ------------------------------------------------------------------------------- what must be true


def must(what: str, value: float, middle: float, tolerance: float, n: int | str) -> Row:
    """Return one line: ``value`` has to lie within ``tolerance`` of ``middle``."""
    wanted = f"{middle:.3f} ± {tolerance:g}" if middle else f"at most {tolerance:g}"
    verdict = "holds" if abs(value - middle) <= tolerance else "FAILS"
    return {"what": what, "value": value, "wanted": wanted, "verdict": verdict, "N": n}


def measure_chance(
    study: Study, decoded: Mapping[str, np.ndarray], pictures: Mapping[str, Scores]
) -> list[Row]:
    """Return every score with the brains shuffled over stimuli, which has to be at chance."""
    n = len(study.stimuli)
    scores: dict[str, tuple[float, Callable[[str, np.ndarray], float]]] = {
        "two-way identification": (
            1 / 2,
            lambda s, d: metrics.two_way_identification(decoded[s][d], study.truth),
        ),
        "retrieval top-1": (
            1 / n,
            lambda s, d: metrics.top_k(
                metrics.cosine_matrix(decoded[s][d], study.truth), np.arange(n), 1
            ),
        ),
        "super-category balanced accuracy": (
            1 / study.labels["supercategory"].nunique(),
            lambda s, d: balanced(_hits(study, pictures, s, "supercategory", d), study.codes),
        ),
    }
    for label in ("category", "setting"):
        scores[f"{label} top-1"] = (
            1 / study.labels[label].nunique(),
            lambda s, d, label=label: float(_hits(study, pictures, s, label, d).mean()),
        )
    rows = []
    for what, (chance, score) in scores.items():
        each = [shuffled(lambda d, s=s, f=score: f(s, d), n) for s in study.subjects]
        rows.append(must(f"brains shuffled: {what}", np.mean(each), chance, NEAR_CHANCE, n))
    return rows


def _hits(
    study: Study, pictures: Mapping[str, Scores], subject: str, label: str, order: np.ndarray
) -> np.ndarray:
    return pictures[f"{MEASURED}, {subject}"].hits(study, label, order)


def measure_laws(study: Study) -> list[Row]:
    """Return how far gradients, closed forms, shares and sweeps are from what they must be."""
    study.say("gradients, closed forms and sweeps")
    trials = list(zip(study.subjects, study.stimuli, strict=False))  # one trial a subject
    tables = [
        parcel_importance(study.bench, study.request(*trial), View()).table for trial in trials
    ]
    slope = max(gradient_error(study, *trial) for trial in trials)
    closed = max(closed_form_error(study, *trial) for trial in trials)
    shares = max(abs(table["share"].sum() - 1) for table in tables)
    apart = max(sweep_difference(study, *trial) for trial in trials[:2])
    n, drawn_twice = f"{len(trials)} trials", f"{len(trials[:2]) * len(SWEEP)} pictures"
    return [
        must("gradient against finite differences, relative error", slope, 0, 0.01, n),
        must("gradient x input against its closed form, relative error", closed, 0, 1e-4, n),
        must("shares with (unassigned): distance of the sum from 1", shares, 0, 1e-6, n),
        must("picture in a sweep and alone: grey levels apart", apart, 0, 1, drawn_twice),
    ]


# -------------------------------------------------------------------------------- what is aimed at


def aim(
    what: str,
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], float],
    least: float,
    chance: float,
) -> Row:
    """Return one line: ``statistic(scores)`` and its interval over the N rows of ``scores``."""
    value = float(statistic(scores))
    interval = metrics.bootstrap_interval(scores, seed=0, statistic=statistic)
    return aim_row(what, value, least, chance, len(scores), interval)


def aim_row(
    what: str, value: float, least: float, chance: float, n: int, interval: object = ""
) -> Row:
    """Return one line; ``least`` is NaN for a figure that is only reported."""
    verdict = "" if np.isnan(least) else "reached" if value >= least else "missed"
    row = {"what": what, "value": value, "95 % interval": interval, "aim": least}
    return row | {"verdict": verdict, "chance": chance, "N": n}


def ceiling_aims(study: Study, pictures: Mapping[str, Scores]) -> list[Row]:
    """Return the judge's figures for the shown pictures and for those of true embeddings."""
    seen = pictures[SHOWN].hits(study, "supercategory").astype(float)
    top = pictures[CEILING].hits(study, "category").astype(float)
    rows = np.column_stack([pictures[CEILING].hits(study, "supercategory"), study.codes])
    balance = "ceiling: super-category balanced accuracy"
    return [
        aim("judge on what was shown: super-category accuracy", seen, np.mean, 0.97, 1 / 6),
        aim("ceiling: category top-1", top, np.mean, 0.80, 1 / 24),
        aim(balance, rows, _balanced_rows, 0.92, 1 / 6),
    ]


def ridge_aims(
    study: Study,
    decoded: Mapping[str, Mapping[str, np.ndarray]],
    pictures: Mapping[str, Scores],
) -> list[Row]:
    """Return the ridge's figures, mean over subjects, and each as a share of noiseless betas."""
    identified, hits = [], []
    for name, by_subject in decoded.items():
        each = [
            metrics.two_way_identification(z, study.truth, per_item=True)
            for z in by_subject.values()
        ]
        identified.append(np.mean(each, axis=0))
        right = [pictures[f"{name}, {s}"].hits(study, "supercategory") for s in by_subject]
        hits.append(np.mean(right, axis=0))
    pair, rows = np.column_stack(identified), np.column_stack([*hits, study.codes])
    two_way, balance = "ridge: two-way identification", "ridge: super-category balanced accuracy"

    def share_of_two_way(pair: np.ndarray) -> float:
        return pair[:, 0].mean() / pair[:, 1].mean()

    def share_of_balance(rows: np.ndarray) -> float:
        return _balanced_rows(rows[:, [0, 2]]) / _balanced_rows(rows[:, [1, 2]])

    return [
        aim(two_way, pair[:, 0], np.mean, 0.85, 1 / 2),
        aim(f"{two_way}, as a share of noiseless", pair, share_of_two_way, NONE, NONE),
        aim(balance, rows[:, [0, 2]], _balanced_rows, 0.60, 1 / 6),
        aim(f"{balance}, as a share of noiseless", rows, share_of_balance, NONE, NONE),
    ]


def _balanced_rows(rows: np.ndarray) -> float:
    return balanced(rows[:, 0], rows[:, 1])


def describe(study: Study, name: str, scores: Scores) -> Row:
    """Return one line of the table of pictures."""
    hits = {label: scores.hits(study, label) for label in LABELS}
    known, said = as_failed(scores.likeness)
    return {
        "pictures of": name,
        "scale": scores.scale,
        "category top-1": float(hits["category"].mean()),
        "super-category balanced": balanced(hits["supercategory"], study.codes),
        "setting top-1": float(hits["setting"].mean()),
        **{key: float(values.mean()) for key, values in known.items()},
        "N": len(study.stimuli),
    } | ({"undefined": said} if said else {})


# ----------------------------------------------------------------------------------------- parcels


def measure_parcels(study: Study) -> tuple[list[Row], Row]:
    """Return one line a subject and method, and the line of permuted parcel labels."""
    lines, permuted = [], []
    for subject in study.subjects:
        roles = study.dataset.truth(subject).parcels
        parcellation = parcellation_of(study.bench, DATASET, subject)
        for method in METHODS:
            study.say(f"importance by {method}: {len(study.stimuli)} trials of {subject}")
            share = mean_share(study, subject, View(method=method))
            row = {"subject": subject, "method": method}
            lines.append(row | parcel_scores(share, parcellation, roles))
            if method == View().method:
                permuted.append(permuted_auc(share, parcellation, roles, PERMUTATIONS))
    worst = max(permuted, key=lambda value: abs(value - 0.5))
    what = "parcel labels permuted: AUC, the subject farthest from chance"
    return lines, must(what, worst, 0.5, 0.05, f"{PERMUTATIONS} permutations")


def parcel_aims(lines: Sequence[Row], n: int) -> list[Row]:
    """Return the aims, which are for every subject: the worst one counts."""
    default = [line for line in lines if line["method"] == View().method]
    auc, rank = (min(line[key] for line in default) for key in ("AUC", "rank correlation"))
    return [
        aim_row("parcels: AUC of enrichment, worst subject", auc, 0.9, 0.5, n),
        aim_row("parcels: rank correlation with information, worst subject", rank, 0.6, 0, n),
    ]
