"""One table over mappers, subjects and targets: how near decoded embeddings come to the true ones.

Every number is that of one definition (`SCORES`) and stands with its chance level, N and gallery.
A mapper's own test rows are used, so they must not have chosen anything about it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.reports.class_mean import MEANING, ClassMeans
from backends.reports.class_mean import NAME as CLASS_MEAN
from backends.reports.closeness import SCORES, Closeness, Score
from backends.reports.retrieval_branch import MEANING as BRANCHES
from backends.reports.retrieval_branch import branches, has_branch
from backends.reports.true_embeddings import Truth
from backends.training.counted import count
from explorer import metrics
from explorer.evidence import evaluation
from explorer.evidence.evaluation import COLUMNS
from explorer.types import EmbeddingSpace, Trials, UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

AVERAGED, SINGLE = "averaged repeats", "single trials"
CEILING, SHUFFLED = "noiseless responses (ceiling)", "averaged repeats, shuffled"
BETAS = (AVERAGED, SINGLE, SHUFFLED, CEILING)  # the order of the rows
FIRST = "ridge"  # the row that others are compared with
SHUFFLES = 20
MEAN_OF, UNDEFINED = "mean of ", "undefined"
Say = Callable[[str], None]


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
    classes: bool = False,
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
    classes
        Also a row of a decoder that knows the class of what was seen and no brain, which takes
        the embeddings of training stimuli, see `backends.reports.class_mean`.
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
    truth, notes = Truth(bench, dataset, sources or {}, captions or {}, say), []
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
            asked = list(bench.catalogue.gallery(dataset, subject).index)[:limit]
            notes += [f"{name}, {subject}: {told}" for told in _lacking(scored, asked)]
            for row, more in _branches(bench, dataset, subject, name, truth, targets, limit):
                for (target, betas), one in more.items():
                    found.setdefault((target, row, betas), {})[subject] = one
        except UserError as error:
            notes.append(f"{name}, {subject}: {error}")
        say(count("mappers", number, len(jobs), "measured", note=f"{name}, {subject}"))
    if not found:
        why = (
            " ".join([*bench.catalogue.problems(), *notes, *truth.notes])
            or "there is none; train one with: python -m backends train ridge --dataset "
            f"{dataset}=PATH"
        )
        raise UserError(f"No mapper of {dataset} could be measured: {why}")
    means = ClassMeans(truth)
    for subject in people if classes else ():
        try:
            for (target, betas), one in _class_means(means, subject, found, limit, notes).items():
                found.setdefault((target, CLASS_MEAN, betas), {})[subject] = one
        except UserError as error:
            notes.append(f"{CLASS_MEAN}, {subject}: {error}")
    if any(name == CLASS_MEAN for _, name, _ in found):
        notes.append(f"{CLASS_MEAN}: {MEANING}.")
    known = {name for _, name, _ in found}
    for words, meaning in BRANCHES.items():
        if any(name.endswith(words) for name in known):
            notes.append(f"{words.strip()}: {meaning}.")
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
        if name not in names:  # a row that is no mapper's own
            continue
        of = weights.setdefault(name, {})
        of |= {s: evaluation.weights_of(bench, dataset, s, name) for s in by_subject}
    first = bench.catalogue.trials(dataset, people[0])
    about = [f"Split {first.split}: {first.split_by}."] if first.split else []
    every = (*about, *bench.catalogue.problems(), *notes, *truth.notes)
    table = pd.DataFrame(rows).assign(split=first.split or evaluation.OWN)[list(COLUMNS)]
    return Comparison(table, _trials(found), weights, every)


def _lacking(scored: Mapping[tuple[str, str], _Scored], asked: Sequence[str]) -> Iterator[str]:
    """Yield a sentence where test images have no prediction, or one that is not finite."""
    for one in list(scored.values())[:1]:
        if absent := sorted(set(asked) - set(one.stimuli)):
            yield (
                f"{len(absent)} of {len(asked)} test images have no published prediction (first "
                f"{absent[0]!r}); they are left out, and the others are told apart among "
                f"themselves."
            )
    for (target, betas), one in scored.items():
        if one.failed and betas != SHUFFLED:
            yield (
                f"the predictions of {len(one.failed)} of {len(one.stimuli)} test images in "
                f"{target} ({betas}) are not finite (first {one.failed[0]!r}) and count as failed."
            )


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
    """One subject's numbers: score -> (N, C), in the order of the stimuli.

    ``undefined`` (N,): the share of a stimulus' predictions that are not finite.
    """

    stimuli: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    undefined: np.ndarray

    @property
    def failed(self) -> list[str]:
        """The stimuli with a prediction that is not finite."""
        return [self.stimuli[i] for i in np.flatnonzero(self.undefined)]


def _measure(
    bench: Workbench,
    dataset: str,
    subject: str,
    name: str,
    truth: Truth,
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
    return _scored(_decoded(bench, dataset, subject, mapper, known, stimuli), true, stimuli)


def _branches(
    bench: Workbench,
    dataset: str,
    subject: str,
    name: str,
    truth: Truth,
    targets: Sequence[str],
    limit: int | None,
) -> Iterator[tuple[str, dict[tuple[str, str], _Scored]]]:
    """Yield the further rows of a mapper with a retrieval branch: a row's name and its scores."""
    if bench.catalogue.offer(dataset, subject, name).published is not None:
        return
    mapper = bench.models.mapper(dataset, subject, name)
    if not has_branch(mapper):
        return
    stimuli = list(bench.catalogue.gallery(dataset, subject).index)[:limit]
    trials = bench.catalogue.trials(dataset, subject)
    for words, decoded in branches(mapper, trials, subject, stimuli).items():
        wanted = [space for space in decoded if not targets or space.name in targets]
        true = {space: truth.of(space, stimuli) for space in wanted}
        true = {space: z for space, z in true.items() if z is not None}
        yield name + words, _scored([(AVERAGED, 1.0, decoded)], true, stimuli)


def _class_means(
    means: ClassMeans,
    subject: str,
    found: Mapping[tuple[str, str, str], Mapping[str, _Scored]],
    limit: int | None,
    notes: list[str],
) -> dict[tuple[str, str], _Scored]:
    """Return the scores of the class mean in every target that was measured; notes grow."""
    catalogue, dataset = means.truth.bench.catalogue, means.truth.dataset
    measured = {target for (target, _, _), by_subject in found.items() if subject in by_subject}
    stimuli = list(catalogue.gallery(dataset, subject).index)[:limit]
    offered = (
        catalogue.offer(dataset, subject, m) for m in catalogue.mapper_names(dataset, subject)
    )
    spaces = dict.fromkeys(s for offer in offered for s in offer.targets if s.name in measured)
    true = {space: means.truth.of(space, stimuli) for space in spaces}
    true = {space: z for space, z in true.items() if z is not None}
    said = {space: means.of(subject, space, stimuli) for space in true}
    told = dict.fromkeys(note for _, note in said.values() if note)
    notes += [f"{CLASS_MEAN}, {subject}: {note}" for note in told]
    rounds = [(AVERAGED, 1.0, {space: z for space, (z, _) in said.items()})]
    scored = _scored(rounds, true, stimuli)
    return {key: one for key, one in scored.items() if key[0] in measured}


def _scored(
    rounds: Iterable[tuple[str, float, Mapping[EmbeddingSpace, np.ndarray]]],
    true: Mapping[EmbeddingSpace, np.ndarray],
    stimuli: Sequence[str],
) -> dict[tuple[str, str], _Scored]:
    """Return (target, betas) -> scores of what rounds of betas decode to, and of it shuffled."""
    sums: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for betas, weight, decoded in rounds:
        for target, predictions, goal in _pairs(decoded, true):
            near = Closeness.of(predictions, goal)
            _add(sums, (target, betas), near, weight)
            if betas == AVERAGED:
                rng = np.random.default_rng(0)
                for _ in range(SHUFFLES):  # any order, as leaving none in place is below chance
                    order = rng.permutation(len(stimuli))
                    _add(sums, (target, SHUFFLED), near.shuffled(order), 1 / SHUFFLES)
    for target in {target for target, betas in sums if betas == SHUFFLED}:  # all met all of them
        sums[target, SHUFFLED][UNDEFINED] = sums[target, AVERAGED][UNDEFINED]
    ordered = sorted(sums, key=lambda key: BETAS.index(key[1]))
    return {key: _Scored(tuple(stimuli), sums[key], sums[key].pop(UNDEFINED)) for key in ordered}


def _look_up(
    published: Any, stimuli: Sequence[str]
) -> dict[str, dict[EmbeddingSpace, np.ndarray]]:
    """Return the published predictions, stimulus -> space -> embedding, where there are any.

    NaN where the published row is not finite.
    """
    known = {}
    for stimulus in filter(published.holds, stimuli):
        try:
            known[stimulus] = published.lookup(stimulus)
        except UserError:  # a row that is not finite: a prediction that failed, not a lacking one
            known[stimulus] = {s: np.full(s.shape, np.nan, np.float32) for s in published.targets}
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
    columns = {score: weight * one.each(near) for score, one in SCORES.items()}
    columns[UNDEFINED] = weight * near.undefined
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
                "undefined": sum(len(one.failed) for one in scored),
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
