"""Measures on the embedded study whether controls and lesions say what they must.

Its truth says which parcels carry the setting, which the category, and which nothing. Intervals
are bootstraps over stimuli of means over subjects; one guidance scale, one seed a stimulus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.reports.study import DATASET, MAPPER, Say, Study, finite
from explorer import metrics
from explorer.brain.parcels import UNASSIGNED
from explorer.decoding import decode_betas, decoded_space, request_betas
from explorer.evidence import controls, lesions
from explorer.evidence.controls import ANOTHER, AVERAGE, MEAN, NOISELESS, NONE, SINGLES, TRUE
from explorer.evidence.faithfulness import mean_faithfulness
from explorer.evidence.lesions import Lesion
from explorer.request import METHODS, View

if TYPE_CHECKING:
    import pandas as pd

STIMULI = 100
SUBJECTS = 2
FAITHFUL = 40  # test trials a subject and mapper for the faithfulness of maps
SCALE = 2.0  # `explorer.workbench.TYPICAL_SCALE`: where controls and lesions are shown
CARRIES = 0.5  # at least this share of a parcel's signal: then it carries that
GROUPS = {"setting": ("setting",), "category": ("category", "supercategory")}
CONTROL = "nothing (controls)"
ORDER = (TRUE, NOISELESS, AVERAGE, SINGLES[0])  # from the best
BRAINLESS = (ANOTHER, MEAN, NONE)
LEAST_FAITHFUL = 0.8
Row = dict[str, Any]


def evidence(
    *,
    checkpoints: Path,
    limit: int | None = None,
    path: Path | None = None,
    device: str = "auto",
    progress: Say | None = None,
) -> dict[str, pd.DataFrame]:
    """Return every figure as tables by title, for `backends.reports.tables.render`.

    ``limit``: how many test stimuli, evenly spaced (None: 100); the rest as in
    `backends.reports.aims.evaluate`.
    """
    import pandas as pd

    say = progress or (lambda sentence: None)
    study = Study.open(checkpoints, None, path, device, say)
    few = metrics.evenly(len(study.stimuli), limit or STIMULI)
    study = replace(
        study,
        stimuli=[study.stimuli[i] for i in few],
        labels=study.labels.iloc[few].reset_index(drop=True),
        truth=study.truth[few],
        subjects=study.subjects[:SUBJECTS],
    )
    laws = measure_laws(study)
    faithful = measure_faithfulness(study, min(FAITHFUL, len(few)))
    rows, order = measure_controls(study)
    parcels, accuracies, drops = measure_lesions(study)
    tables = {
        "What must be true of controls and lesions": [*laws, *faithful[1], *order, *drops[1]],
        "Controls": rows,
        "Judge's accuracy after lesions": accuracies,
        "What a lesion costs": drops[0],
        "Which parcels carry what": parcels,
        "Faithfulness of parcel maps": faithful[0],
    }
    return {title: pd.DataFrame(table) for title, table in tables.items()}


def must(what: str, value: Any, wanted: str, holds: bool, n: int | str, interval: Any = "") -> Row:
    """Return one line of what must be true."""
    row = {"what": what, "value": value, "95 % interval": interval, "wanted": wanted}
    return row | {"verdict": "holds" if holds else "FAILS", "N": n}


# -------------------------------------------------------------------------------------------- laws


def measure_laws(study: Study) -> list[Row]:
    """Return how far gain 1 is from intact, and the lesion of everything from the mean brain."""
    bench, subject = study.bench, study.subjects[0]
    gain = whole = 0.0
    mappers = bench.catalogue.mapper_names(DATASET, subject)
    for mapper in mappers:
        request = replace(study.request(subject, study.stimuli[0]), mapper=mapper)
        table = lesions.lesion_effects(bench, request).table
        parcels = tuple(table["parcel"][table["voxels"] > 0])
        every = tuple(dict.fromkeys([*parcels, *_unassigned(table)]))
        betas = np.stack(
            [
                request_betas(bench, request),
                lesions.lesioned_betas(bench, request, Lesion(parcels[:3], 1.0)),
                controls.statistics(bench, request)[0],
                lesions.lesioned_betas(bench, request, Lesion(every)),
            ]
        )
        z = decode_betas(bench, request, betas)[decoded_space(bench, request)].reshape(4, -1)
        size = np.abs(z[0]).max()
        gain = max(gain, float(np.abs(z[1] - z[0]).max() / size))
        whole = max(whole, float(np.abs(z[3] - z[2]).max() / size))
    n = f"{len(mappers)} mappers"
    return [
        must("gain 1 against intact, relative error", gain, "at most 1e-05", gain <= 1e-5, n),
        must(
            "lesion of everything against the mean brain, relative error",
            *(whole, "at most 1e-05", whole <= 1e-5, n),
        ),
    ]


def _unassigned(table: pd.DataFrame) -> list[str]:
    last = table.iloc[-1]
    return [UNASSIGNED] if last["voxels"] > 0 else []


# ------------------------------------------------------------------------------------ faithfulness


def measure_faithfulness(study: Study, trials: int) -> tuple[list[Row], list[Row]]:
    """Return one line a mapper, method and measure, and what must hold for the ridge."""
    bench, lines = study.bench, []
    for mapper in bench.catalogue.mapper_names(DATASET, study.subjects[0]):
        for method in METHODS:
            for measure in ("share", "signed"):
                view = View(method=method, measure=measure)
                study.say(f"faithfulness of {mapper}: {method}, {measure}")
                lines.append(_faithful(study, mapper, view, trials))
    return lines, [_faithful_must(lines, measure) for measure in ("share", "signed")]


def _faithful_must(lines: list[Row], measure: str) -> Row:
    """Return the line of the ridge's best method: shares with sizes, signs with signed effects."""
    best = max(
        (line for line in lines if (line["mapper"], line["measure"]) == (MAPPER, measure)),
        key=lambda line: line["correlation, worst subject"],
    )
    value, against = best["correlation, worst subject"], best["against"]
    what = f"faithfulness of {MAPPER}: {best['method']}, {measure} with {against}, worst subject"
    holds = value >= LEAST_FAITHFUL
    return must(what, value, f"at least {LEAST_FAITHFUL}", holds, f"{best['trials']} a subject")


def _faithful(study: Study, mapper: str, view: View, trials: int) -> Row:
    each, tables = [], []
    for subject in study.subjects:
        request = replace(study.request(subject, study.stimuli[0]), mapper=mapper)
        *_, last = mean_faithfulness(study.bench, request, view, trials)
        each.append(last)
        tables.append(last.table.set_index("parcel")[["importance", "effect"]])
    group = sum(tables) / len(tables)
    row = {"mapper": mapper, "method": view.method, "measure": view.measure}
    return row | {
        "against": "effect" if view.measure == "signed" else "size of effect",
        "correlation": float(np.mean([one.correlation for one in each])),
        "correlation, worst subject": min(one.correlation for one in each),
        "with the signed effect": float(np.mean([one.signed_correlation for one in each])),
        "with the signed effect, mean over subjects first": metrics.spearman(
            group["importance"].to_numpy(), group["effect"].to_numpy()
        ),
        "parcels": each[0].parcels,
        "trials": each[0].n,
    }


# ---------------------------------------------------------------------------------------- controls


def measure_controls(study: Study) -> tuple[list[Row], list[Row]]:
    """Return two-way identification of every control, and whether they order themselves."""
    rows, scores = [], {}
    for name in (*ORDER, *BRAINLESS):
        # the true embedding and no brain at all are the same for every subject
        subjects = study.subjects[:1] if name in (TRUE, NONE) else study.subjects
        embeddings = [_control(study, subject, name) for subject in subjects]
        scale = 0.0 if name == NONE else SCALE
        identified, hits = [], []
        for z in embeddings:
            images = study.draw(z, scale, name)
            space = study.space
            embedder = study.bench.models.embedder(study.bench.catalogue.embedder_name(space))
            seen = embedder.embed(list(images), space)
            identified.append(_identified(seen, study.truth))
            said = study.judge.classify(list(images))["category"].to_numpy()
            hits.append(said == study.labels["category"].to_numpy())
        scores[name] = np.mean(identified, axis=0)
        row: Row = {"control": name}
        if name != NONE:
            decoded = np.mean([_identified(z, study.truth) for z in embeddings], axis=0)
            row |= _with_interval("embedding: two-way identification", decoded)
        else:
            row |= _with_interval("embedding: two-way identification", np.full(2, np.nan))
        row |= _with_interval("picture: two-way identification", scores[name])
        row |= _with_interval("picture: category top-1", np.mean(hits, axis=0))
        rows.append(row | {"N": len(study.stimuli)})
    return rows, [*_in_order(scores), *_at_chance(scores)]


def _control(study: Study, subject: str, name: str) -> np.ndarray:
    """Return the embeddings (N, D) that a control draws from; what is drawn at scale 0 is any."""
    bench, space = study.bench, study.space
    if name in (TRUE, NONE):
        return study.truth
    requests = [study.request(subject, stimulus) for stimulus in study.stimuli]
    if name == NOISELESS:
        known = controls.noiseless(bench, DATASET, subject)
        betas = [known.average(request.stimulus) for request in requests]
    elif name == MEAN:
        betas = [controls.statistics(bench, request)[0] for request in requests]
    else:
        repeats = (0,) if name == SINGLES[0] else ()
        of = [
            controls.donor(bench, request) if name == ANOTHER else request.stimulus
            for request in requests
        ]
        pairs = zip(requests, of, strict=True)
        betas = [request_betas(bench, replace(r, stimulus=s, repeats=repeats)) for r, s in pairs]
    return finite(decode_betas(bench, requests[0], np.stack(betas))[space], subject)


def _identified(embeddings: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return metrics.two_way_identification(embeddings, truth, per_item=True)


def _with_interval(what: str, values: np.ndarray) -> Row:
    known = not np.isnan(values).any()
    interval: Any = metrics.bootstrap_interval(values, seed=0) if known else ""
    return {what: float(values.mean()), f"{what}, 95 %": interval}


def _in_order(scores: Mapping[str, np.ndarray]) -> list[Row]:
    """Return whether each control is at least as good as the next, by the pictures."""
    rows = []
    pairs = [*zip(ORDER[:-1], ORDER[1:], strict=True), *((ORDER[-1], name) for name in BRAINLESS)]
    for better, worse in pairs:
        change = scores[better] - scores[worse]
        low, high = metrics.bootstrap_interval(change, seed=0)
        strictly = worse in BRAINLESS
        holds = low > 0 if strictly else high >= 0
        wanted = "above 0" if strictly else "not below 0"
        what = f"pictures' two-way identification: {better} less {worse}"
        rows.append(must(what, float(change.mean()), wanted, holds, len(change), (low, high)))
    return rows


def _at_chance(scores: Mapping[str, np.ndarray]) -> list[Row]:
    rows = []
    for name in BRAINLESS:
        low, high = metrics.bootstrap_interval(scores[name], seed=0)
        what, value = f"pictures' two-way identification: {name}", float(scores[name].mean())
        holds = low <= 0.5 <= high
        rows.append(must(what, value, "0.5 within", holds, len(scores[name]), (low, high)))
    return rows


# ----------------------------------------------------------------------------------------- lesions


def carriers(parcels: pd.DataFrame, label: str) -> list[str]:
    """Return the parcels that carry a label: half of their signal or more is of its kind.

    ``parcels``: `Truth.parcels`; ``label`` a key of `GROUPS`, or `CONTROL` for those with no
    signal at all.
    """
    if label == CONTROL:
        return list(parcels.index[parcels["role"] != "informative"])
    share = parcels["groups"].map(lambda text: sum(_shares(text).get(g, 0) for g in GROUPS[label]))
    return list(parcels.index[share >= CARRIES])


def _shares(text: Any) -> dict[str, float]:
    """Return feature group -> share for "setting 0.60, light 0.22"; {} for controls."""
    words = [part.split() for part in str(text).split(",") if len(part.split()) == 2]
    return {name: float(share) for name, share in words}


def measure_lesions(
    study: Study,
) -> tuple[list[Row], list[Row], tuple[list[Row], list[Row]]]:
    """Return who carries what, the judge's accuracies, what lesions cost, and what must hold."""
    kinds = [*GROUPS, CONTROL]
    parcels = [_carried(study, kind) for kind in kinds]
    intact = _judged(study, "intact", None)
    accuracies, drops, musts = [_accuracy("intact", intact)], [], []
    for kind in kinds:
        hits = _judged(study, f"lesion of {kind}", kind)
        accuracies.append(_accuracy(f"lesion of {kind}", hits))
        change = {label: intact[label] - hits[label] for label in hits}
        drops.append({"lesion of parcels that carry": kind} | _costs(change))
        musts += _lesion_musts(kind, change)
    return parcels, accuracies, (drops, musts)


def _carried(study: Study, kind: str) -> Row:
    subject = study.subjects[0]
    truth = study.dataset.truth(subject).parcels
    keys = carriers(truth, kind)
    names = sorted({key.rpartition(" ")[0] for key in keys})
    row = {"carries": kind, "parcels, both hemispheres": ", ".join(names)}
    return row | {f"voxels of {subject}": int(truth.loc[keys, "vertices"].sum())}


def _judged(study: Study, what: str, kind: str | None) -> dict[str, np.ndarray]:
    """Return label -> (N,) the share of subjects whose picture the judge names rightly."""
    labels, hits = ("setting", "category", "supercategory"), []
    for subject in study.subjects:
        requests = [study.request(subject, stimulus) for stimulus in study.stimuli]
        if kind is None:
            betas = [request_betas(study.bench, request) for request in requests]
        else:
            how = Lesion(tuple(carriers(study.dataset.truth(subject).parcels, kind)))
            betas = [lesions.lesioned_betas(study.bench, request, how) for request in requests]
        z = finite(decode_betas(study.bench, requests[0], np.stack(betas))[study.space], subject)
        said = study.judge.classify(list(study.draw(z, SCALE, f"{what}, {subject}")))
        hits.append({label: (said[label] == study.labels[label]).to_numpy() for label in labels})
    return {label: np.mean([one[label] for one in hits], axis=0) for label in labels}


def _accuracy(what: str, hits: Mapping[str, np.ndarray]) -> Row:
    row: Row = {"pictures": what}
    for label, values in hits.items():
        row |= _with_interval(label, values)
    return row | {"N": len(hits["setting"])}


def _costs(change: Mapping[str, np.ndarray]) -> Row:
    row: Row = {}
    for label, values in change.items():
        row |= _with_interval(f"{label} accuracy lost", values)
    more = change["setting"] - change["category"]
    return row | _with_interval("setting less category", more) | {"N": len(more)}


def _lesion_musts(kind: str, change: Mapping[str, np.ndarray]) -> list[Row]:
    if kind == CONTROL:
        rows = []
        for label in ("setting", "category"):
            low, high = metrics.bootstrap_interval(change[label], seed=0)
            what, value = f"lesion of controls: {label} accuracy lost", float(change[label].mean())
            n = len(change[label])
            rows.append(must(what, value, "0 within", low <= 0 <= high, n, (low, high)))
        return rows
    other = next(label for label in GROUPS if label != kind)
    more = change[kind] - change[other]
    low, high = metrics.bootstrap_interval(more, seed=0)
    what = f"lesion of what carries the {kind}: {kind} accuracy lost less {other}"
    return [must(what, float(more.mean()), "above 0", low > 0, len(more), (low, high))]
