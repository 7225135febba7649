"""What the critics' tests must say of the embedded study, where the truth is planted.

A decoder of the class alone is called that and ridge is not; shuffled brains are at chance in
every bar; a planted copy is found by the audit; counterfactual pairs rank the parcels that carry
concepts above all others. The README quotes these figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.reports.leaks import audit
from explorer import metrics, splits
from explorer.brain.maps import parcellation_of
from explorer.choosing import default_request
from explorer.decoding import decoded_space
from explorer.evidence import critique
from explorer.evidence.collapse import collapse
from explorer.evidence.counterfactual import PAIRS, Contrast, contrasts_of
from explorer.evidence.critique import Finding
from explorer.evidence.standing import decoded_test
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

SHUFFLES = 20
TRAINED = 5000  # training stimuli that are asked, evenly among them
CONCEPTS = ("category", "supercategory")  # kinds of features, as the truth of parcels names them
MAPPER = "ridge"
Say = Callable[[str], None]


def planted(
    bench: Workbench, dataset: str, subjects: Sequence[str] = (), progress: Say | None = None
) -> dict[str, pd.DataFrame]:
    """Return the tables of what must hold, by title.

    Raises
    ------
    UserError
        Where a data set has no truth.
    """
    import pandas as pd

    study = bench.catalogue.dataset(dataset)
    if not hasattr(study, "truth"):
        raise UserError(f"{dataset} has no planted truth; the simulated study has.")
    lines: list[list[dict[str, Any]]] = [[], [], [], []]
    pairs = list(study.counterfactuals(PAIRS))
    for subject in subjects or bench.catalogue.subjects(dataset):
        if progress:
            progress(f"{subject}: what must hold")
        known = _Known(bench, dataset, subject)
        lines[0] += _decoders(known)
        lines[1].append({"subject": subject} | _shuffled(known))
        lines[2].append({"subject": subject} | _copied(known))
        lines[3].append({"subject": subject} | _concepts(bench, dataset, subject, pairs))
    titles = (
        "Planted decoders",
        f"Shuffled brains (mean of {SHUFFLES} orders)",
        "A planted copy among the training images",
        f"Counterfactual pairs against the planted parcels ({PAIRS} pairs a concept)",
    )
    return {title: pd.DataFrame(rows) for title, rows in zip(titles, lines, strict=True)}


class _Known:
    """Predictions, targets and training embeddings of one subject, and their classes."""

    def __init__(self, bench: Workbench, dataset: str, subject: str) -> None:
        request = default_request(bench.catalogue, dataset, subject, 0, mapper=MAPPER)
        self.space = decoded_space(bench, request)
        self.study, self.subject = bench.catalogue.dataset(dataset), subject
        self.stimuli, predicted = decoded_test(bench, request)
        every = splits.shown([bench.catalogue.trials(dataset, subject)])[0]
        self.trained = [every[i] for i in metrics.evenly(len(every), TRAINED)]
        embed = bench.models.embed
        self.predicted = critique.flat(predicted)
        self.targets = critique.flat(embed(dataset, self.stimuli, self.space))
        self.training = critique.flat(embed(dataset, self.trained, self.space))
        kinds = self.study.stimuli["category"].astype(str)
        self.classes = kinds.reindex(self.stimuli).to_numpy()
        self.known = kinds.reindex(self.trained).to_numpy()

    @property
    def class_means(self) -> np.ndarray:
        """The mean training embedding of each test image's class, and a little noise."""
        means = {k: self.training[self.known == k].mean(axis=0) for k in set(self.known)}
        rows = np.stack([means[kind] for kind in self.classes])
        noise = np.random.default_rng(0).standard_normal(rows.shape)
        return rows + 1e-3 * rows.std() * noise


def _tests(known: _Known, predicted: np.ndarray) -> Iterator[Finding]:
    yield collapse(predicted, known.targets, known.training, critique.CLUSTERS)
    yield critique.cluster_identification(predicted, known.targets, known.classes, "categories")
    given = predicted, known.targets, known.classes, known.training, known.known
    yield critique.category_only(*given)


def _decoders(known: _Known) -> list[dict[str, Any]]:
    decoders = {MAPPER: known.predicted, "class mean": known.class_means}
    return [
        {"subject": known.subject, "decoder": name, "test": found.name, "it says": found.sentence}
        for name, predicted in decoders.items()
        for found in _tests(known, predicted)
    ]


def _shuffled(known: _Known) -> dict[str, Any]:
    """Return the bar that lies farthest from its chance, on average over shuffled brains."""
    rng = np.random.default_rng(0)
    every = np.ones(len(known.targets), bool)
    far: dict[str, list[float]] = {}
    for _ in range(SHUFFLES):
        moved = known.predicted[rng.permutation(len(every))]
        tables: Mapping[str, Any] = {
            "bars": critique.generalisation(moved, known.targets, {"all": every}).table,
            "categories": critique.cluster_identification(
                moved, known.targets, known.classes, "categories"
            ).table,
            "similarity": critique.similarity_to_training(
                moved, known.targets, known.training, 1.0
            ).table,
        }
        for table in tables.values():
            for row in table.to_dict("records"):
                far.setdefault(row["of"], []).append(row["value"] - row["chance"])
    means = {name: float(np.mean(values)) for name, values in far.items()}
    worst = max(means, key=lambda name: abs(means[name]))
    return {
        "bars": len(means),
        "farthest from chance": worst,
        "by (points)": 100 * means[worst],
    }


def _copied(known: _Known) -> dict[str, Any]:
    """Return whether the audit names a test image that was copied into training."""
    copy = known.stimuli[0]
    features = np.concatenate([known.training, known.targets[:1], known.targets])
    names = [*known.trained, "a copy"]
    told = list(audit(known.study, names, known.stimuli, features, known.space.name))
    found = any(repr(copy) in sentence and "'a copy'" in sentence for sentence in told[:1])
    return {"copied": copy, "found": "yes" if found else "no", "audit": told[0]}


def _concepts(
    bench: Workbench, dataset: str, subject: str, pairs: Sequence[Any]
) -> dict[str, Any]:
    """Return how well effects in parcels rank the planted ones, and what controls have."""
    trials = bench.catalogue.trials(dataset, subject)
    stimuli = trials.stimuli("test")
    encoder = bench.models.encoder(dataset, subject)
    shown = {s: bench.models.embed(dataset, stimuli, s) for s in encoder.spaces}
    measured = np.stack([trials.average(s) for s in stimuli])
    parcellation = parcellation_of(bench, dataset, subject)
    names = [label.key for label in parcellation.labels]
    tested = measured, encoder.predict(shown)
    contrasts, few = contrasts_of(bench, dataset, subject, pairs, parcellation, tested)
    parcels = bench.catalogue.dataset(dataset).truth(subject).parcels
    there = [i for i, name in enumerate(names) if name in parcels.index]
    rows = parcels.loc[[names[i] for i in there]]
    concept = np.array([_has_concept(groups) for groups in rows["groups"].fillna("")])
    control = (rows["role"] != "informative").to_numpy()

    def area_under(which: Callable[[Contrast], np.ndarray]) -> float:
        effect = np.where(few, 0, np.mean([which(c).mean(axis=0) for c in contrasts], axis=0))
        return float(metrics.auc(effect[there], concept))

    return {
        "AUC, against the distractor": area_under(lambda c: c.replaced),
        "AUC, object removed": area_under(lambda c: c.removed),
        "concept parcels": int(concept.sum()),
        "others": int((~concept).sum()),
        "control parcels told of": int((~few[there] & control).sum()),
    }


def _has_concept(groups: str) -> bool:
    return any(part.rpartition(" ")[0] in CONCEPTS for part in groups.split(", "))
