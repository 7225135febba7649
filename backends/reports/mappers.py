"""One table over mappers, subjects and targets: how near decoded embeddings come to the true ones.

Every number is that of one definition (`SCORES`) and stands with its chance level, N and gallery.
A mapper's own test rows are used, so they must not have chosen anything about it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.reports.aims import render
from backends.training.counted import count
from explorer import metrics
from explorer.evidence import evaluation
from explorer.evidence.evaluation import COLUMNS
from explorer.types import EmbeddingSpace, Trials, UserError, resolve

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from explorer.workbench import Workbench

AVERAGED, SINGLE = "averaged repeats", "single trials"
CEILING, SHUFFLED = "noiseless responses (ceiling)", "averaged repeats, shuffled"
BETAS = (AVERAGED, SINGLE, SHUFFLED, CEILING)  # the order of the rows
FIRST = "ridge"  # the row that others are compared with
SHUFFLES = 20
DRAWN = 300  # candidates of a retrieval in the NSD papers
FILE, MEAN_OF = "mappers", "mean of "
Say = Callable[[str], None]


# ------------------------------------------------------------------------------------- definitions


@dataclass(frozen=True, eq=False)
class Closeness:
    """How near each of N predictions is to each of N true embeddings, row i to its own item i.

    ``correlation``, ``cosine`` and ``error`` (mean squared difference) are (N, N), ``spread`` (N,)
    is the mean squared difference of the true items from their mean.
    """

    correlation: np.ndarray
    cosine: np.ndarray
    error: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, predictions: np.ndarray, truth: np.ndarray) -> Closeness:
        """Return the closeness of predictions to true embeddings, both (N, ...)."""
        centre = truth.mean(axis=0, keepdims=True, dtype=np.float64)
        return cls(
            metrics.correlation_matrix(predictions, truth),
            metrics.cosine_matrix(predictions, truth),
            metrics.squared_error_matrix(predictions, truth),
            metrics.squared_error_matrix(truth, centre)[:, 0],
        )

    def shuffled(self, order: np.ndarray) -> Closeness:
        """Return what it is when item i gets the prediction of item ``order[i]``."""
        return Closeness(
            self.correlation[order], self.cosine[order], self.error[order], self.spread
        )

    @property
    def own(self) -> np.ndarray:
        """Where a prediction's own item is, int (N,)."""
        return np.arange(len(self.spread))


@dataclass(frozen=True)
class Score:
    """One definition.

    ``columns`` gives (N, C) numbers a stimulus and ``value`` the score (...) of their means
    (..., C) over stimuli, None where it is that mean. ``chance`` is a function of the gallery's
    size, NaN where only the shuffled rows can tell.
    """

    title: str
    sentence: str
    better: str
    chance: Callable[[int], float]
    columns: Callable[[Closeness], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray] | None = None

    def of(self, means: np.ndarray) -> np.ndarray:
        """Return the score (...) of the means (..., C) of its columns."""
        return means[..., 0] if self.value is None else self.value(means)


def _column(of: Callable[[Closeness], np.ndarray]) -> Callable[[Closeness], np.ndarray]:
    return lambda near: of(near).astype(np.float64)[:, None]


def _top(k: int) -> Callable[[Closeness], np.ndarray]:
    return _column(lambda near: metrics.retrieval_rank(near.cosine, near.own) <= k)


def _unknown(gallery: int) -> float:
    return math.nan


SCORES: dict[str, Score] = {
    "two-way": Score(
        "two-way identification",
        "Share of the other stimuli whose true embedding correlates (Pearson, over its values) "
        "less with the prediction than the stimulus's own; strict, ties half.",
        "higher",
        lambda gallery: 0.5,
        _column(lambda near: metrics.identification(near.correlation, near.own)),
    ),
    "top-1": Score(
        "top-1",
        "Share of predictions whose own image is the nearest by cosine among all test images; a "
        "tie counts by its middle rank.",
        "higher",
        lambda gallery: 1 / gallery,
        _top(1),
    ),
    "top-5": Score(
        "top-5",
        "The same, among the five nearest.",
        "higher",
        lambda gallery: min(1, 5 / gallery),
        _top(5),
    ),
    "brain-to-image": Score(
        "300-way, brain to image",
        "The chance that a prediction's own image is the nearest by cosine among 300 test images "
        "(all of them where there are fewer): expectation over random draws, a tie is a miss.",
        "higher",
        lambda gallery: 1 / min(DRAWN, gallery),
        _column(lambda near: metrics.n_way_retrieval(near.cosine, near.own, DRAWN)),
    ),
    "image-to-brain": Score(
        "300-way, image to brain",
        "The same with an image's own prediction among 300 predictions.",
        "higher",
        lambda gallery: 1 / min(DRAWN, gallery),
        _column(lambda near: metrics.n_way_retrieval(near.cosine.T, near.own, DRAWN)),
    ),
    "r2": Score(
        "R²",
        "1 - squared error of the raw predictions over the squared distance of the true "
        "embeddings from their mean, each summed over stimuli and values; 0 is that mean.",
        "higher",
        _unknown,
        lambda near: np.column_stack([near.error.diagonal(), near.spread]),
        lambda means: 1 - means[..., 0] / means[..., 1],
    ),
    "cosine": Score(
        "cosine",
        "Cosine of the raw prediction with the true embedding, mean over stimuli.",
        "higher",
        _unknown,
        _column(lambda near: near.cosine.diagonal()),
    ),
    "rmse": Score(
        "RMSE",
        "Root of the mean squared error of the raw predictions over stimuli and values.",
        "lower",
        _unknown,
        _column(lambda near: near.error.diagonal()),
        lambda means: np.sqrt(means[..., 0]),
    ),
}


# --------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True, eq=False)
class Comparison:
    """The table, one number a row (`COLUMNS`), and what could not be compared, a sentence each.

    ``low`` and ``high``: 95 % bootstrap interval over stimuli. ``subject`` is a name or "mean of
    n"; ``score`` a key of `SCORES`; ``N`` counts stimuli. ``trials`` and ``weights`` as in
    `explorer.evidence.evaluation.Evaluation`.
    """

    table: pd.DataFrame
    trials: pd.DataFrame
    weights: Mapping[str, Mapping[str, str]]
    notes: tuple[str, ...]


def compare(
    bench: Workbench,
    dataset: str,
    *,
    subjects: Sequence[str] = (),
    mappers: Sequence[str] = (),
    targets: Sequence[str] = (),
    limit: int | None = None,
    sources: Mapping[str, str] | None = None,
    captions: Mapping[str, str] | None = None,
    progress: Say | None = None,
) -> Comparison:
    """Measure every mapper that is on offer for a data set, ridge first.

    Single trials are scored in rounds: each stimulus gives its first test trial, then its second
    and so on, beginning anew where it has fewer; a stimulus's scores are averaged over rounds.

    Parameters
    ----------
    bench
        What is on offer, with published predictions if any.
    dataset
        The data set's name.
    subjects, mappers, targets
        Only these, by name; () is all.
    limit
        Only the first test stimuli.
    sources
        Embedder -> folder or hub id of its weights, where they are not in the checkpoints.
    captions
        Stimulus -> caption, for spaces of captions, where the data set has none.
    progress
        Called with one sentence now and then.
    """
    import pandas as pd

    say = progress or (lambda sentence: None)
    people = list(dict.fromkeys(subjects)) or bench.catalogue.subjects(dataset)
    for subject in people:
        bench.catalogue.trials(dataset, subject)  # an unknown subject is refused here
    offered = {subject: bench.catalogue.mapper_names(dataset, subject) for subject in people}
    names = list(dict.fromkeys(name for some in offered.values() for name in some))
    _refuse_unknown("mapper", mappers, names, dataset)
    truth, notes = _Truth(bench, dataset, sources or {}, captions or {}, say), []
    spaces = {
        space.name: None
        for subject, some in offered.items()
        for name in some
        for space in bench.catalogue.offer(dataset, subject, name).targets
    }
    _refuse_unknown("target", targets, list(spaces), dataset)
    found: dict[tuple[str, str, str], dict[str, _Scored]] = {}
    ordered = sorted(mappers or names, key=lambda name: (name != FIRST, name))
    jobs = [(name, who) for name in ordered for who in people if name in offered[who]]
    for number, (name, subject) in enumerate(jobs, start=1):
        try:
            scored = _measure(bench, dataset, subject, name, truth, targets, limit)
            for (target, betas), one in scored.items():
                found.setdefault((target, name, betas), {})[subject] = one
        except UserError as error:
            notes.append(f"{name}, {subject}: {error}")
        say(count("mappers", number, len(jobs), "measured", note=f"{name}, {subject}"))
    if not found:
        why = (
            " ".join([*bench.catalogue.problems(), *notes, *truth.notes])
            or "there is none; train one with: python -m backends train ridge."
        )
        raise UserError(f"No mapper of {dataset} could be measured: {why}")
    rows = []
    for (target, name, betas), by_subject in found.items():
        key = {"dataset": dataset, "target": target, "mapper": name, "betas": betas}
        for subject, scored in by_subject.items():
            rows += [key | {"subject": subject} | row for row in _rows([scored])]
        if len(by_subject) > 1:
            mean = {"subject": f"{MEAN_OF}{len(by_subject)}"}
            rows += [key | mean | row for row in _rows(list(by_subject.values()))]
    weights: dict[str, dict[str, str]] = {}
    for (_, name, _), by_subject in found.items():
        of = weights.setdefault(name, {})
        of |= {s: evaluation.weights_of(bench, dataset, s, name) for s in by_subject}
    every = (*bench.catalogue.problems(), *notes, *truth.notes)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return Comparison(table, _trials(found), weights, every)


def _trials(found: Mapping[tuple[str, str, str], Mapping[str, _Scored]]) -> pd.DataFrame:
    """Return one row a target, mapper, subject and stimulus: the scores of averaged repeats."""
    import pandas as pd

    by_trial = [name for name, score in SCORES.items() if score.value is None]
    tables = [
        pd.DataFrame(
            {"target": target, "mapper": name, "subject": subject, "stimulus": scored.stimuli}
            | {score: scored.columns[score][:, 0] for score in by_trial}
        )
        for (target, name, betas), by_subject in found.items()
        for subject, scored in by_subject.items()
        if betas == AVERAGED
    ]
    return pd.concat(tables, ignore_index=True)


def _refuse_unknown(what: str, asked: Sequence[str], known: Sequence[str], dataset: str) -> None:
    for name in asked:
        if name not in known:
            raise UserError(
                f"There is no {what} {name!r} among the mappers of {dataset}; choose one of "
                f"{', '.join(known) or 'none'}."
            )


@dataclass(frozen=True, eq=False)
class _Scored:
    """One subject's numbers: score -> (N, C), in the order of the stimuli."""

    stimuli: tuple[str, ...]
    columns: Mapping[str, np.ndarray]


class _Truth:
    """The true embeddings of stimuli in any space, made once; spaces nobody can make are noted."""

    def __init__(
        self,
        bench: Workbench,
        dataset: str,
        sources: Mapping[str, str],
        captions: Mapping[str, str],
        say: Say,
    ) -> None:
        self.bench, self.dataset, self.say = bench, dataset, say
        self.captions = captions
        self.notes: list[str] = []
        self._known: dict[EmbeddingSpace, dict[str, np.ndarray]] = {}
        self._missing: set[EmbeddingSpace] = set()
        self._sources, self._made = dict(sources), {}

    def of(self, space: EmbeddingSpace, stimuli: Sequence[str]) -> np.ndarray | None:
        """Return the true embeddings (N, ...), or None where they cannot be made."""
        if space in self._missing:
            return None
        known = self._known.setdefault(space, {})
        try:
            if new := [stimulus for stimulus in stimuli if stimulus not in known]:
                known |= self._embed(space, new)
        except UserError as error:
            self._missing.add(space)
            self.notes.append(f"{space.name} is left out: {error}")
            return None
        return np.stack([known[stimulus] for stimulus in stimuli])

    def _embed(self, space: EmbeddingSpace, stimuli: Sequence[str]) -> dict[str, np.ndarray]:
        from backends.embedders.store import embed_stimuli

        for name, entry in self.bench.catalogue.embedders.items():
            cls = resolve(entry)
            if space in (*cls.spaces, *getattr(cls, "text_spaces", ())):
                self.say(f"{len(stimuli)} stimuli to embed in {space.name}")
                study, embedder = (
                    self.bench.catalogue.dataset(self.dataset),
                    self._embedder(name, cls),
                )
                said = {"captions": self.captions}
                return embed_stimuli(study, stimuli, embedder, space, self.say, **said)
        raise UserError("no embedder here makes it, so there is nothing to compare with.")

    def _embedder(self, name: str, cls: type) -> Any:
        if name not in self._sources:
            return self.bench.models.embedder(name)
        if name not in self._made:
            place = {"source": self._sources[name]}
            self._made[name] = cls(
                self.bench.catalogue.checkpoints, self.bench.models.device, **place
            )
        return self._made[name]


def _measure(
    bench: Workbench,
    dataset: str,
    subject: str,
    name: str,
    truth: _Truth,
    targets: Sequence[str],
    limit: int | None,
) -> dict[tuple[str, str], _Scored]:
    """Return (target, betas) -> scores of one mapper for one subject."""
    offer, mapper = (
        bench.catalogue.offer(dataset, subject, name),
        bench.models.mapper(dataset, subject, name),
    )
    stimuli = list(bench.catalogue.gallery(dataset, subject).index)[:limit]
    known = None if offer.published is None else _look_up(offer.published, stimuli)
    stimuli = stimuli if known is None else list(known)
    if len(stimuli) < 2:
        raise UserError(
            f"there are {len(stimuli)} test stimuli to tell apart, and 2 are the least."
        )
    wanted = [space for space in offer.targets if not targets or space.name in targets]
    true = {space: truth.of(space, stimuli) for space in wanted}
    true = {space: z for space, z in true.items() if z is not None}
    sums: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for betas, weight, decoded in _decoded(bench, dataset, subject, mapper, known, stimuli):
        for target, predictions, goal in _pairs(decoded, true):
            near = Closeness.of(predictions, goal)
            _add(sums, (target, betas), near, weight)
            if betas == AVERAGED:
                rng = np.random.default_rng(0)
                for _ in range(SHUFFLES):  # any order, as leaving none in place is below chance
                    order = rng.permutation(len(stimuli))
                    _add(sums, (target, SHUFFLED), near.shuffled(order), 1 / SHUFFLES)
    ordered = sorted(sums, key=lambda key: BETAS.index(key[1]))
    return {key: _Scored(tuple(stimuli), sums[key]) for key in ordered}


def _look_up(
    published: Any, stimuli: Sequence[str]
) -> dict[str, dict[EmbeddingSpace, np.ndarray]]:
    """Return the published predictions, stimulus -> space -> embedding, where there are any."""
    known = {}
    for stimulus in stimuli:
        with contextlib.suppress(UserError):  # only part of the test images was published
            known[stimulus] = published.lookup(stimulus)
    return known


def _decoded(
    bench: Workbench,
    dataset: str,
    subject: str,
    mapper: Any,
    known: Mapping[str, Mapping[EmbeddingSpace, np.ndarray]] | None,
    stimuli: Sequence[str],
) -> Iterator[tuple[str, float, dict[EmbeddingSpace, np.ndarray]]]:
    """Yield which betas, the weight of this round of them, and the decoded embeddings (N, ...)."""
    if known is not None:  # made by others, from averages
        spaces = known[stimuli[0]]
        yield AVERAGED, 1.0, {s: np.stack([known[one][s] for one in stimuli]) for s in spaces}
        return
    study, trials = bench.catalogue.dataset(dataset), bench.catalogue.trials(dataset, subject)
    means = np.stack([trials.average(stimulus) for stimulus in stimuli])
    yield AVERAGED, 1.0, mapper.decode(means, subject)
    rounds = _rounds(trials, stimuli)
    for rows in rounds if len(rounds) > 1 else ():  # one repeat is its own average
        betas = np.asarray(trials.betas[rows], np.float32)
        yield SINGLE, 1 / len(rounds), mapper.decode(betas, subject)
    if hasattr(study, "noiseless_trials"):
        noiseless = study.noiseless_trials(subject)
        means = np.stack([noiseless.average(stimulus) for stimulus in stimuli])
        yield CEILING, 1.0, mapper.decode(means, subject)


def _rounds(trials: Trials, stimuli: Sequence[str]) -> np.ndarray:
    """Return the rows of test trials, int (rounds, N)."""
    rows = [trials.rows("test", stimulus) for stimulus in stimuli]
    return np.array([np.resize(some, max(map(len, rows))) for some in rows]).T


def _pairs(
    decoded: Mapping[EmbeddingSpace, np.ndarray], true: Mapping[EmbeddingSpace, np.ndarray]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield target, predictions and truth (N, ...): each space, then all of them side by side."""
    for space, goal in true.items():
        yield space.name, decoded[space], goal
    if len(true) > 1:
        beside = [
            np.concatenate([metrics.unit(some[s].reshape(len(some[s]), -1)) for s in true], axis=1)
            for some in (decoded, true)
        ]
        yield (" + ".join(space.name for space in true), *beside)


def _add(
    sums: dict[tuple[str, str], dict[str, np.ndarray]],
    key: tuple[str, str],
    near: Closeness,
    weight: float,
) -> None:
    columns = {score: weight * one.columns(near) for score, one in SCORES.items()}
    before = sums.get(key)
    sums[key] = {s: c + before[s] for s, c in columns.items()} if before else columns


def _rows(scored: Sequence[_Scored]) -> list[dict[str, Any]]:
    """Return the numbers of one subject, or the mean over several.

    The mean has an interval where all subjects saw the same test stimuli.
    """
    same = len({one.stimuli for one in scored}) == 1
    sizes = {len(one.stimuli) for one in scored}
    rows = []
    for name, score in SCORES.items():
        value = np.mean([score.of(one.columns[name].mean(axis=0)) for one in scored])
        low = high = math.nan
        if same:
            table = np.stack([one.columns[name] for one in scored], axis=1)  # (N, subjects, C)
            low, high = _interval(score, table)
        rows.append(
            {
                "score": name,
                "value": float(value),
                "low": low,
                "high": high,
                "chance": float(np.mean([score.chance(len(one.stimuli)) for one in scored])),
                "N": len({stimulus for one in scored for stimulus in one.stimuli}),
                "gallery": next(iter(sizes)) if len(sizes) == 1 else math.nan,
            }
        )
    return rows


def _interval(score: Score, table: np.ndarray) -> tuple[float, float]:
    """Return the interval over stimuli of the mean over subjects, from (N, subjects, C)."""
    return metrics.bootstrap_interval(
        table, seed=0, of_means=lambda means: score.of(means).mean(axis=1)
    )


# ----------------------------------------------------------------------------------------- writing


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``mappers.csv``, ``.md``, ``.png``, ``.svg``, as `explorer.evidence.evaluation` reads.

    Each file whole or not at all. Scores of single trials are rounded to four digits.
    """
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    drawn = figure(comparison)
    trials = comparison.trials.round(4)
    numbers = dict.fromkeys(trials.select_dtypes("number"), np.float32)
    makers: dict[str, Callable[[Path], Any]] = {
        evaluation.TABLE: lambda path: comparison.table.to_csv(
            path, index=False, float_format="%.6g"
        ),
        evaluation.TRIALS: lambda path: trials.astype(numbers).to_parquet(
            path, index=False, compression="zstd"
        ),
        evaluation.MEANING: lambda path: path.write_text(meaning(comparison), encoding="utf-8"),
        f"{FILE}.md": lambda path: path.write_text(markdown(comparison), encoding="utf-8"),
        f"{FILE}.png": lambda path: drawn.savefig(path, format="png", dpi=200),
        f"{FILE}.svg": lambda path: drawn.savefig(path, format="svg", metadata={"Date": None}),
    }
    written = []
    for name, make in makers.items():
        part, path = folder / f".{name}.part", folder / name
        with rc_context({"svg.hashsalt": FILE}):  # the same figure is the same file
            make(part)
        os.replace(part, path)
        written.append(path)
    return written


def meaning(comparison: Comparison) -> str:
    """Return what `explorer.evidence.evaluation` must know to show the tables, as JSON."""
    scores = {
        name: {
            "title": score.title,
            "sentence": score.sentence,
            "better": score.better,
            "by_trial": score.value is None,
        }
        for name, score in SCORES.items()
    }
    values = {
        "afterimage": evaluation.FORMAT,
        "dataset": str(comparison.table["dataset"].iloc[0]),
        "scores": scores,
        "betas": dict(zip(evaluation.ROLES, (AVERAGED, SINGLE, SHUFFLED, CEILING), strict=True)),
        "weights": comparison.weights,
        "notes": list(comparison.notes),
    }
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def markdown(comparison: Comparison) -> str:
    """Return the table as Markdown: means over subjects, each subject, definitions, notes."""
    import pandas as pd

    tables = {}
    for target, rows in comparison.table.groupby("target", sort=False):
        means = rows["subject"].str.startswith(MEAN_OF)
        if means.any():
            tables[f"{target}, mean over subjects"] = _wide(rows[means])
        alone = rows[~means & rows["betas"].isin([AVERAGED, SINGLE])]
        tables[f"{target}, each subject"] = _wide(alone)
    tables["Definitions"] = pd.DataFrame(
        [
            {"score": score.title, "better": score.better, "definition": score.sentence}
            for score in SCORES.values()
        ]
    )
    text = render(tables)
    for note in comparison.notes:
        text += f"\n- {note}"
    return text.rstrip("\n") + "\n"


def _wide(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one line a mapper, kind of betas and subject; the first score has its interval."""
    import pandas as pd

    lines = []
    for (mapper, betas, subject), some in rows.groupby(["mapper", "betas", "subject"], sort=False):
        by_score = some.set_index("score")
        line: dict[str, Any] = {"mapper": mapper, "betas": betas, "subject": subject}
        for name, score in SCORES.items():
            line[score.title] = float(by_score["value"][name])
            if name == next(iter(SCORES)):
                interval = by_score.loc[name, ["low", "high"]].to_numpy(float)
                line["95 % interval"] = "" if np.isnan(interval).any() else tuple(interval)
        lines.append(line | {"N": int(by_score["N"].iloc[0])})
    chance = rows.drop_duplicates("score").set_index("score")["chance"]
    line = {"mapper": "chance", "betas": "", "subject": "", "95 % interval": ""}
    line |= {score.title: float(chance[name]) for name, score in SCORES.items()}
    lines.append(line | {"N": ""})
    return pd.DataFrame(lines)


STYLES = {  # betas -> marker, face, edge
    CEILING: ("|", "#222222", "#222222"),
    AVERAGED: ("o", "#2166ac", "#2166ac"),
    SINGLE: ("o", "#ffffff", "#2166ac"),
    SHUFFLED: ("x", "#b2182b", "#b2182b"),
}
PANELS = ("two-way", "top-1")
CHANCE, PEOPLE = "#888888", "#92c5de"


def figure(comparison: Comparison) -> Figure:
    """Return the figure: a row a target, two-way identification and top-1 of every mapper.

    Means over subjects with their intervals; small dots are single subjects' averaged repeats.
    """
    from matplotlib.figure import Figure

    table = comparison.table
    targets = list(dict.fromkeys(table["target"]))
    names = list(dict.fromkeys(table["mapper"]))
    height = 0.8 + len(targets) * (0.9 + 0.3 * len(names))
    drawn = Figure(figsize=(7.2, height), layout="constrained")
    axes = drawn.subplots(len(targets), len(PANELS), squeeze=False)
    for target, line in zip(targets, axes, strict=True):
        rows = table[table["target"] == target]
        for score, ax in zip(PANELS, line, strict=True):
            _panel(ax, rows[rows["score"] == score], names)
            ax.set_xlabel(SCORES[score].title, fontsize=8)
        line[0].set_title(target, loc="left", fontsize=9)
        line[1].tick_params(labelleft=False)
    labelled = [
        pair for ax in axes.flat for pair in zip(*ax.get_legend_handles_labels(), strict=True)
    ]
    named = {label: handle for handle, label in labelled}
    drawn.legend(
        named.values(),
        named.keys(),
        loc="outside lower center",
        ncols=3,
        fontsize=7,
        frameon=False,
    )
    return drawn


def _panel(ax: Axes, rows: pd.DataFrame, names: Sequence[str]) -> None:
    ax.axvline(rows["chance"].iloc[0], color=CHANCE, lw=0.8, ls="--", label="chance")
    together = rows["subject"].str.startswith(MEAN_OF)
    for y, name in enumerate(names):
        mine = rows[rows["mapper"] == name]
        alone = mine[~together[mine.index] & (mine["betas"] == AVERAGED)]
        if len(alone) > 1:
            ax.plot(
                alone["value"], [y + 0.22] * len(alone), ".", color=PEOPLE, ms=4, label="a subject"
            )
        pooled = mine[together[mine.index]]
        shown = pooled if len(pooled) else mine
        for place, (betas, (marker, face, edge)) in enumerate(STYLES.items()):
            for _, row in shown[shown["betas"] == betas].iterrows():
                at = y - 0.08 * place
                style = {"marker": marker, "mfc": face, "mec": edge, "color": edge, "ms": 5}
                ax.plot([row["low"], row["high"]], [at, at], color=edge, lw=1)
                ax.plot([row["value"]], [at], ls="", label=betas, **style)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="x", labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
