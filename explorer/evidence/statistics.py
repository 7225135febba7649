"""Maps over all test stimuli: importance with its interval, and whether it means anything.

Two questions are asked of every parcel, and they have different answers.

*Does it carry evidence?* (``p_evidence``.) The decoder reads a brain that has a parcel's betas and
the training mean everywhere else, and what it decodes is compared with the shown image's own
embedding and with those of the other test images. Under the null hypothesis the betas of a parcel
have nothing to do with which image was shown. Then the stimuli are exchangeable: exchanging which
image was shown in which test trials gives an equally likely outcome, so p is uniform whatever the
decoder is, and however voxels and parcels differ in noise. That holds because what is decoded
depends on this parcel's betas alone. (Taking the parcel out of the trial is no such test: in a
decoder that is not linear the loss depends on what all other parcels say about the image.)

*Is importance greater here than elsewhere?* (``p_place``.) The map of importance is compared with
itself at other places: turned on the sphere, which keeps its smoothness, or with voxels exchanged
where there is no sphere. Here places are taken to be exchangeable. That is a statement about the
map, not about information: a decoder that was trained on shuffled labels gives voxels of unlike
noise unlike weights (ridge prefers voxels whose noise is their own), so its p are not uniform. So
a small ``p_place`` without a small ``p_evidence`` is a habit of the decoder.

References: Alexander-Bloch et al. 2018, NeuroImage 178:540 (spin test); Benjamini & Hochberg 1995,
J R Stat Soc B 57:289; Adebayo et al. 2018, arXiv 1810.03292 (randomised weights); Phipson & Smyth
2010, Stat Appl Genet Mol Biol 9:39 (a permutation p is never zero).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import metrics
from explorer.brain import importance
from explorer.brain.importance import SMALL
from explorer.brain.parcels import UNASSIGNED
from explorer.brain.surfaces import bundled
from explorer.request import Request, View
from explorer.types import FSAVERAGE5_VERTICES, Parcellation, UserError, VoxelSpace
from explorer.workbench import similarities

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

PERMUTATIONS = 1000
ROWS_AT_ONCE = 100  # trials a pass: memory, and how often progress is told
RESAMPLES = 2000
LEVEL = 0.05  # of discoveries: q at most this
ENOUGH = 100  # turns that must leave a parcel among voxels, for a p of at least two digits
REACH = 10.0  # mm on the sphere of 100 mm: a turned voxel takes the value of one as near as this
KEPT_SHARE = 0.5  # of a parcel's voxels that must land near others for a turn to count
LOWEST_CEILING = 5.0  # % of variance; dividing by less than this shows noise (our choice)
Progress = Callable[[float, str], None]
"""Called with the share of the work that is done and what is next; what it raises stops the work,
and nothing is kept."""


# ----------------------------------------------------------------------------------------- results


@dataclass(frozen=True, eq=False)
class Reliability:
    """How alike two ways to make one map are: mean Spearman correlation over parcels.

    ``of`` names what differs ("repeats", "seeds"); ``pairs`` holds ``(name, name, correlation)``;
    ``value`` is their mean, NaN without any; ``sentence`` says so, or why there is none.
    """

    of: str
    pairs: tuple[tuple[str, str, float], ...]
    value: float
    sentence: str


@dataclass(frozen=True, eq=False)
class Randomised:
    """The same map of a mapper whose weights were shuffled, and what it has of the trained one.

    ``correlation``: Spearman over parcels; ``low`` and ``high``: where 95 % of correlations lie
    when parcels are exchanged at random. ``within``: whether it lies there, as it should.
    """

    correlation: float
    low: float
    high: float
    within: bool
    sentence: str


@dataclass(frozen=True, eq=False)
class SubjectMap:
    """One subject's map over the test stimuli.

    ``table``: one row a label in the atlas's order, then (unassigned): ``parcel``, ``name``,
    ``hemisphere``, ``voxels``, ``small`` (under 10 voxels); ``value`` of ``measure`` and its
    bootstrap interval ``low``, ``high`` over stimuli; ``evidence`` in SDs of its null
    distribution, ``p_evidence`` and ``q_evidence``; ``p_place`` and ``q_place``, and ``turns``,
    how many rotations (or permutations) that p rests on; ``randomised``, the value for shuffled
    weights; ``ceiling`` (% of variance, mean over voxels) and ``per_ceiling``, value over its
    share of 1. NaN where there is nothing to say: no voxels, too few, no ceiling.

    ``voxels`` float64 (V,): mean share of importance; ``limits``: colour limits by column;
    ``stimuli``: how many; ``tests``: how many parcels are tested; ``found``: those with
    q_evidence at most 0.05. ``banner``: "" or the sentence that takes the place of interpretation.
    ``identification``: (value, low, high) of the two-way identification, chance 0.5. ``null``:
    what ``p_place`` rests on. ``notes``: a sentence each.
    """

    dataset: str
    subject: str
    mapper: str
    atlas: str
    method: str
    target: str
    measure: str
    table: pd.DataFrame
    voxels: np.ndarray
    limits: Mapping[str, tuple[float, float]]
    stimuli: int
    tests: int
    found: int
    permutations: int
    identification: tuple[float, float, float]
    banner: str
    null: str
    repeats: Reliability
    seeds: Reliability
    randomised: Randomised
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class GroupMap:
    """The maps of several subjects, parcel by parcel.

    ``table``: ``parcel``, ``name``, ``hemisphere``; ``subjects`` that have 10 or more voxels
    there, ``value`` (mean over them) with ``low`` and ``high``, a t interval over subjects;
    ``found``: in how many of them q_evidence is at most 0.05; ``p`` and ``q``: t test over
    subjects that evidence is above 0. NaN with fewer than two subjects.

    ``agreement``: mean Spearman correlation between two subjects' maps. ``sentence``: what N
    subjects can and cannot say. ``left_out``: why some are not here, a sentence each.
    """

    dataset: str
    mapper: str
    atlas: str
    method: str
    target: str
    measure: str
    table: pd.DataFrame
    subjects: tuple[SubjectMap, ...]
    agreement: Reliability
    limits: Mapping[str, tuple[float, float]]
    banner: str
    sentence: str
    left_out: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------- one map


def subject_map(
    workbench: Workbench,
    request: Request,
    view: View,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Progress | None = None,
) -> SubjectMap:
    """Return a subject's map over all test stimuli; `UserError` where there is no importance.

    Parameters
    ----------
    workbench
        Where the data and the mapper are.
    request
        Whose betas, which repeats, which mapper and target space; its stimulus does not matter.
    view
        Method, target, atlas and measure.
    permutations
        Draws of every null distribution.
    seed
        Of all that is drawn.
    progress
        See `Progress`.
    """
    if reason := workbench.unexplained(request):
        raise UserError(reason)
    place = request.dataset, request.subject
    offered = workbench.target_names(*place, request.mapper)
    if view.target not in offered:
        raise UserError(
            f"The mapper {request.mapper} gives an embedding and no density, so it has no "
            f"{view.target}; choose {' or '.join(offered)}."
        )
    first = workbench.gallery(*place).index[0]
    plain = {"scales": (1.0,), "steps": 1, "seed": 0, "options": (), "samples": 1}
    space = workbench.space(request).name  # the generator decided nothing but that
    asked = replace(request, stimulus=first, generator="", space=space, **plain)
    parcellation = workbench.parcellation(*place, view.atlas)
    weights = workbench.models.mapper_hash(*place, request.mapper)
    key = "map over stimuli", asked, weights, view.method, view.target, parcellation.name
    parts = workbench.kept(
        (*key, permutations, seed),
        lambda: _measure(workbench, asked, view, parcellation, permutations, seed, progress),
    )
    return _tabulate(asked, view, parcellation, parts, permutations, seed)


@dataclass(frozen=True, eq=False)
class _Parts:
    """What a map is made of, for every measure; L labels and (unassigned)."""

    values: Mapping[str, np.ndarray]  # measure -> (n, L + 1)
    repeats: Mapping[str, Mapping[str, np.ndarray]]  # name -> measure -> (L + 1,)
    seeds: Mapping[str, Mapping[str, np.ndarray]]
    randomised: Mapping[str, np.ndarray]  # measure -> (L + 1,)
    voxels: np.ndarray
    evidence: np.ndarray
    p_evidence: np.ndarray
    p_place: np.ndarray
    turns: np.ndarray
    null: str
    ceiling: np.ndarray
    identified: np.ndarray  # (n,)
    notes: tuple[str, ...]


def _measure(
    workbench: Workbench,
    request: Request,
    view: View,
    parcellation: Parcellation,
    permutations: int,
    seed: int,
    progress: Progress | None,
) -> _Parts:
    place = request.dataset, request.subject
    trials = workbench.trials(*place)
    gallery = list(workbench.gallery(*place).index)
    stimuli, betas = _averages(trials, gallery, request.repeats)
    if len(stimuli) < 2:
        raise UserError(
            f"A map over test images needs at least 2 of them with finite betas, found "
            f"{len(stimuli)} of {'/'.join(place)}; choose other repeats or another subject."
        )
    single = sorted(set(trials.table["repeat"].iloc[trials.rows("test")]))
    wanted = [r for r in single if not request.repeats or r in request.repeats]
    siblings = _siblings(workbench, request)
    random = shuffled_weights(workbench.models.mapper(*place, request.mapper), seed)
    jobs: list[tuple[str, list[str], np.ndarray, Any]] = [
        (f"importance of {len(stimuli)} trials", stimuli, betas, None)
    ]
    for repeat in wanted if len(wanted) > 1 else ():
        jobs.append((f"repeat {repeat + 1}", *_averages(trials, gallery, (int(repeat),)), None))
    jobs.append(("shuffled weights", stimuli, betas, random))
    jobs += [(f"seed {s}", stimuli, betas, mapper) for s, mapper in siblings.items()]
    steps = len(jobs) + 2

    def tell(done: float, what: str) -> None:
        if progress:
            progress(done / steps, what)

    found: dict[str, np.ndarray] = {}
    notes: list[str] = []
    mean = np.full(betas.shape[1], np.nan)
    for number, (what, shown, rows, mapper) in enumerate(jobs):
        try:
            parts = []
            for begin in range(0, len(rows), ROWS_AT_ONCE):
                tell(number + begin / len(rows), what)
                block = slice(begin, begin + ROWS_AT_ONCE)
                parts.append(
                    workbench.attribution(request, view, rows[block], shown[block], mapper)
                )
        except UserError as error:  # random weights may leave a density that is not finite
            if mapper is not random:
                raise
            notes.append(f"There is no map of shuffled weights: {error}")
            continue
        attribution = np.concatenate(parts)
        if number == 0:
            mean = importance.mean_map(attribution)
        found[what] = importance.parcel_statistics(attribution, parcellation)
    space = workbench.space(request)
    truth = workbench.models.embed(request.dataset, gallery, space)
    shown = truth[[gallery.index(stimulus) for stimulus in stimuli]]
    mapper = workbench.models.mapper(*place, request.mapper)
    masks = parcellation.masks()
    z, p = parcel_evidence(
        lambda rows: workbench.decode_betas(request, rows)[space],
        betas,
        mapper.statistics(request.subject)[0].cpu().numpy(),
        masks,
        shown,
        permutations,
        seed,
        lambda done, what: tell(len(jobs) + done, what),
    )
    tell(steps - 1, "importance at other places")
    voxels = trials.subject.voxels
    sources = workbench.kept_array(
        ("turns", voxels.hash, permutations, seed), lambda: turns(voxels, permutations, seed)
    )
    null = (
        f"{permutations} random rotations of the sphere, hemispheres mirrored; a parcel's count "
        f"where half of its voxels land within {REACH:g} mm of others"
        if voxels.projection is not None
        else f"{permutations} permutations of voxels, as there are no places on the surface; "
        "this ignores that neighbours are alike and finds too much"
    )
    p_place, valid = place_test(mean, masks, sources)
    p_place[masks.sum(axis=1) < SMALL] = np.nan
    values = found.pop(jobs[0][0])
    kept = ~np.isnan(values["share"]).all(axis=1)
    if not kept.any():
        raise UserError(
            f"The gradient of {request.mapper} is zero in all {len(stimuli)} trials of "
            f"{'/'.join(place)}, so there is no importance to map; choose another mapper."
        )
    own = {name: _mean_statistics(one) for name, one in found.items()}
    nothing = {measure: np.full(len(masks), np.nan) for measure in values}
    tell(steps, "done")
    return _Parts(
        values={measure: rows[kept] for measure, rows in values.items()},
        repeats={name: one for name, one in own.items() if name.startswith("repeat ")},
        seeds={name: one for name, one in own.items() if name.startswith("seed ")},
        randomised=own.get("shuffled weights", nothing),
        voxels=mean,
        evidence=z,
        p_evidence=p,
        p_place=p_place,
        turns=valid,
        null=null,
        ceiling=_ceilings(trials, request, masks),
        identified=metrics.identification(
            similarities(workbench.decode_betas(request, betas)[space], truth, space),
            np.array([gallery.index(stimulus) for stimulus in stimuli]),
        ),
        notes=tuple(notes),
    )


def _averages(
    trials: Any, gallery: Sequence[str], repeats: tuple[int, ...]
) -> tuple[list[str], np.ndarray]:
    """Return the stimuli that have these repeats, and their mean betas float32 (n, V).

    Stimuli whose betas are not all finite are left out.
    """
    rows = trials.rows("test", repeats=repeats)
    groups = trials.table["stimulus"].iloc[rows].groupby(
        trials.table["stimulus"].iloc[rows].to_numpy(), sort=False
    ).indices  # fmt: skip
    stimuli, means = [], []
    for stimulus in gallery:
        if stimulus in groups:
            own = rows[groups[stimulus]]
            mean = np.asarray(trials.betas[own], dtype=np.float32).mean(axis=0)
            if np.isfinite(mean).all():
                stimuli.append(stimulus)
                means.append(mean)
    empty = np.empty((0, trials.subject.voxels.n_voxels), np.float32)
    return stimuli, np.stack(means) if means else empty


def _siblings(workbench: Workbench, request: Request) -> dict[int, Any]:
    """Return seed -> mapper of those on offer that differ from the request's by seed alone."""
    place = request.dataset, request.subject
    own = workbench.offer(*place, request.mapper).card
    if own is None:
        return {}
    wanted = {k: v for k, v in own.settings.items() if k != "seed"}
    found = {}
    for name in workbench.mapper_names(*place):
        card = workbench.offer(*place, name).card
        if card is None or (card.cls, card.targets) != (own.cls, own.targets):
            continue
        settings = {k: v for k, v in card.settings.items() if k != "seed"}
        other = card.settings.get("seed")
        if settings == wanted and other != own.settings.get("seed"):
            found[other] = workbench.models.mapper(*place, name)
    return found


def _mean_statistics(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the mean over trials (n, L + 1) of each measure, flat trials left out."""
    kept = ~np.isnan(values["share"]).all(axis=1)
    if not kept.any():
        return {m: np.full(rows.shape[1], np.nan) for m, rows in values.items()}
    return {measure: rows[kept].mean(axis=0) for measure, rows in values.items()}


def _ceilings(trials: Any, request: Request, masks: np.ndarray) -> np.ndarray:
    """Return the mean noise ceiling (% of variance) of each parcel, NaN where unknown."""
    if trials.subject.ncsnr is None:
        return np.full(len(masks), np.nan)
    rows = trials.rows("test", repeats=request.repeats)
    n = 1 / np.mean(1 / trials.table["stimulus"].iloc[rows].value_counts().to_numpy())
    ceiling = metrics.noise_ceiling(trials.subject.ncsnr, max(n, 1.0))
    known = masks & np.isfinite(ceiling)
    counts = known.sum(axis=1)
    summed = known @ np.nan_to_num(ceiling)
    return np.divide(summed, counts, out=np.full(len(masks), np.nan), where=counts > 0)


def _tabulate(
    request: Request,
    view: View,
    parcellation: Parcellation,
    parts: _Parts,
    permutations: int,
    seed: int,
) -> SubjectMap:
    """Return the map of one measure."""
    import pandas as pd

    rows, masks = parts.values[view.measure], parcellation.masks()
    value = rows.mean(axis=0)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), RESAMPLES)
    low, high = np.quantile(counts @ rows / len(rows), (0.025, 0.975), axis=0)
    tested = masks.sum(axis=1) >= SMALL
    tested[-1] = False  # what is in no parcel is no parcel
    shown = np.where(parts.ceiling >= LOWEST_CEILING, parts.ceiling, np.nan)
    labels = parcellation.labels
    table = pd.DataFrame(
        {
            "parcel": [*(label.key for label in labels), UNASSIGNED],
            "name": [*(label.name for label in labels), UNASSIGNED],
            "hemisphere": [*(label.hemisphere for label in labels), ""],
            "voxels": masks.sum(axis=1),
            "small": masks.sum(axis=1) < SMALL,
            "value": value,
            "low": low,
            "high": high,
            "evidence": parts.evidence,
            "p_evidence": parts.p_evidence,
            "q_evidence": discoveries(parts.p_evidence, tested),
            "p_place": parts.p_place,
            "q_place": discoveries(parts.p_place, tested),
            "turns": parts.turns,
            "randomised": parts.randomised[view.measure],
            "ceiling": parts.ceiling,
            "per_ceiling": value / (shown / 100),
        }
    )
    compared = "signed" if view.measure == "signed" else "enrichment"
    own = parts.values[compared].mean(axis=0)
    random = _randomised(own[tested], parts.randomised[compared][tested], permutations, seed)
    identification = (
        float(parts.identified.mean()),
        *metrics.bootstrap_interval(parts.identified, seed=seed),
    )
    repeats = {name: one[compared][tested] for name, one in parts.repeats.items()}
    seeds = {"this mapper": own, **{n: one[compared] for n, one in parts.seeds.items()}}
    return SubjectMap(
        dataset=request.dataset,
        subject=request.subject,
        mapper=request.mapper,
        atlas=parcellation.name,
        method=view.method,
        target=view.target,
        measure=view.measure,
        table=table,
        voxels=parts.voxels,
        limits=_limits(table, view.measure, tested),
        stimuli=len(rows),
        tests=int(tested.sum()),
        found=int((table["q_evidence"] <= LEVEL).sum()),
        permutations=permutations,
        identification=identification,
        banner=_banner(request, identification, len(parts.identified)),
        null=parts.null,
        repeats=reliability(
            "repeats",
            repeats,
            "There is one repeat of each test image alone, so it cannot be said how alike the "
            "maps of single repeats are.",
        ),
        seeds=reliability(
            "seeds",
            {name: values[tested] for name, values in seeds.items()},
            "No other seed of this mapper is on offer; train one with python -m backends train "
            "and --seed to see how far the map depends on it.",
        ),
        randomised=random,
        notes=parts.notes,
    )


def _randomised(own: np.ndarray, random: np.ndarray, permutations: int, seed: int) -> Randomised:
    """Compare two maps (L,) over parcels."""
    correlation = metrics.spearman(own, random)
    if math.isnan(correlation):
        sentence = "The map of shuffled weights cannot be compared: it is flat or has too few "
        nan = math.nan
        return Randomised(nan, nan, nan, False, sentence + "parcels.")
    rng = np.random.default_rng(seed)
    drawn = [metrics.spearman(own, rng.permutation(random)) for _ in range(permutations)]
    low, high = (float(q) for q in np.quantile(drawn, (0.025, 0.975)))
    within = low <= correlation <= high
    said = (
        "as it should: the map comes from what was learned"
        if within
        else "so part of the map comes from the architecture or the voxels, not from what was "
        "learned"
    )
    sentence = (
        f"With its weights shuffled the map correlates {metrics.written(correlation)} with this "
        f"one, {'within' if within else 'outside'} what chance gives ({metrics.written(low)} to "
        f"{metrics.written(high)}), {said}."
    )
    return Randomised(correlation, low, high, within, sentence)


def _banner(request: Request, identification: tuple[float, float, float], n: int) -> str:
    value, low, high = (100 * x for x in identification)
    if low > 50:
        return ""
    return (
        f"{request.mapper} is not above chance on {request.subject}: it tells the shown image "
        f"from another in {value:.0f} % of cases (95 % interval {low:.0f} to {high:.0f} %, chance "
        f"50 %, N = {n} test images). What it weighs says nothing, so this map is not interpreted."
    )


def _limits(
    table: pd.DataFrame, measure: str, tested: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Return colour limits of the columns that are drawn, over the parcels that are tested."""
    limits = {}
    drawn = tested if tested.any() else table["voxels"].to_numpy() > 0
    for column in ("value", "evidence", "per_ceiling"):
        known = np.abs(table[column].to_numpy()[drawn])
        top = float(np.nanmax(known)) if np.isfinite(known).any() else 1.0
        both = column == "evidence" or measure == "signed"
        limits[column] = (-top if both else 0.0, top or 1.0)
    return limits | {"randomised": limits["value"]}


# ----------------------------------------------------------------------------------------- a group


def group_map(
    workbench: Workbench,
    request: Request,
    view: View,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Progress | None = None,
) -> GroupMap:
    """Return the maps of all subjects that have the request's mapper, and what they share.

    Parameters as in `subject_map`; the request's subject and stimulus do not matter.
    """
    dataset, maps, left_out = request.dataset, [], []
    people = workbench.subjects(dataset)
    named = workbench.parcellation(dataset, request.subject, view.atlas).name
    for number, subject in enumerate(people):

        def tell(done: float, what: str, number: int = number, subject: str = subject) -> None:
            if progress:
                progress((number + done) / len(people), f"{subject}: {what}")

        try:
            if request.mapper not in workbench.mapper_names(dataset, subject):
                raise UserError(f"it has no mapper {request.mapper}.")
            first = workbench.gallery(dataset, subject).index[0]
            asked = replace(request, subject=subject, stimulus=first)
            maps.append(
                subject_map(
                    *(workbench, asked, replace(view, atlas=named)),
                    permutations=permutations,
                    seed=seed,
                    progress=tell,
                )
            )
        except UserError as error:
            left_out.append(f"{subject}: {error}")
    if not maps:
        raise UserError(f"No subject of {dataset} could be mapped: {' '.join(left_out)}")
    return _group(dataset, request.mapper, maps, tuple(left_out))


def _group(
    dataset: str, mapper: str, maps: Sequence[SubjectMap], left_out: tuple[str, ...]
) -> GroupMap:
    import pandas as pd

    tables = [one.table[~one.table["small"]].set_index("parcel") for one in maps]
    keys = list(dict.fromkeys(key for one in maps for key in one.table["parcel"]))
    names = pd.concat([one.table for one in maps]).drop_duplicates("parcel").set_index("parcel")

    def column(name: str) -> np.ndarray:
        return np.stack([table[name].reindex(keys).to_numpy(float) for table in tables])

    values, evidence, q = column("value"), column("evidence"), column("q_evidence")
    there = np.isfinite(values).sum(axis=0)
    mean, low, high, _ = over_subjects(values)
    *_, p = over_subjects(evidence)
    tested = np.array([key != UNASSIGNED for key in keys])
    table = pd.DataFrame(
        {
            "parcel": keys,
            "name": names.loc[keys, "name"].to_numpy(),
            "hemisphere": names.loc[keys, "hemisphere"].to_numpy(),
            "subjects": there,
            "value": mean,
            "low": low,
            "high": high,
            "found": (q <= LEVEL).sum(axis=0),
            "p": p,
            "q": discoveries(p, tested),
        }
    )
    by_subject = dict(zip((one.subject for one in maps), values[:, tested], strict=True))
    agreement = reliability(
        "subjects", by_subject, "There is one subject, so no agreement between subjects."
    )
    if maps[0].measure == "share" and len(maps) > 1:
        agreement = replace(
            agreement, sentence=f"{agreement.sentence} Parcel sizes are part of that."
        )
    below = [one.subject for one in maps if one.banner]
    top = float(np.nanmax(np.abs(mean[tested]))) if np.isfinite(mean[tested]).any() else 1.0
    first = maps[0]
    return GroupMap(
        dataset=dataset,
        mapper=mapper,
        atlas=first.atlas,
        method=first.method,
        target=first.target,
        measure=first.measure,
        table=table,
        subjects=tuple(maps),
        agreement=agreement,
        limits={"value": (-top if first.measure == "signed" else 0.0, top)},
        banner=(
            f"{mapper} is not above chance on {', '.join(below)}: what it weighs there says "
            "nothing, so the group's map is not interpreted."
            if below
            else ""
        ),
        sentence=_group_sentence(len(maps)),
        left_out=left_out,
    )


def _group_sentence(n: int) -> str:
    if n < 2:
        return "N = 1 subject: nothing can be said about others."
    return (
        f"N = {n} subjects. Intervals and p are random-effects figures: they treat these as drawn "
        f"from the people they are to speak for ({n - 1} degrees of freedom)."
        + (" With so few, only what is alike in all of them can be found." if n < 10 else "")
    )


# --------------------------------------------------------------------------------------- the tests


def parcel_evidence(
    decode: Callable[[np.ndarray], np.ndarray],
    betas: np.ndarray,
    average: np.ndarray,
    masks: np.ndarray,
    shown: np.ndarray,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the evidence of each parcel (L,), in SDs of its null, and its p; see `evidence_test`.

    What is tested is decoded from the parcel's own betas amid the training mean. For a linear
    decoder that is, but for a constant, what the parcel adds to the decoded embedding.

    Parameters
    ----------
    decode
        Betas (n, V) -> raw embeddings (n, ...).
    betas
        (n, V), one row a stimulus.
    average
        (V,) training mean, which takes the place of all other betas.
    masks
        bool (L, V); a parcel with fewer than 10 voxels is not tested and has NaN.
    shown
        (n, ...) the true embedding of each row's stimulus.
    permutations, seed, progress
        As in `subject_map`.
    """
    n = len(betas)
    orders = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (permutations, 1)), axis=1)
    z, p = np.full((2, len(masks)), np.nan)
    for i, mask in enumerate(masks):
        if mask.sum() < SMALL:
            continue
        if progress:
            progress(i / len(masks), "evidence of each parcel")
        z[i], p[i] = evidence_test(decode(np.where(mask, betas, average)), shown, orders)
    return z, p


def evidence_test(
    decoded: np.ndarray, shown: np.ndarray, orders: np.ndarray
) -> tuple[float, float]:
    """Return how far what is decoded from a parcel points to the shown images, in SDs, and its p.

    The statistic is the mean over stimuli of ``decoded . shown / |shown|``, its null distribution
    that of the same decoded embeddings with the shown images exchanged. One-sided; what all
    decoded embeddings have in common does not matter.

    Parameters
    ----------
    decoded
        (n, ...): what is decoded from the parcel in the trials of n stimuli.
    shown
        (n, ...) true embeddings.
    orders
        int (permutations, n): orders of the stimuli.
    """
    rows = np.reshape(decoded, (len(decoded), -1)).astype(np.float64)
    products = (rows - rows.mean(axis=0)) @ metrics.unit(np.reshape(shown, (len(shown), -1))).T
    null = products[np.arange(len(products)), orders].mean(axis=1)
    found = products.diagonal().mean()
    spread, tiny = null.std(), 1e-9 * np.abs(products).max()
    p = (1 + (null >= found - tiny).sum()) / (1 + len(null))
    return float((found - null.mean()) / spread) if spread > tiny else 0.0, float(p)


def place_test(
    values: np.ndarray, masks: np.ndarray, sources: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return p (L,) that a parcel's mean is as large elsewhere, and how many turns p rests on.

    Parameters
    ----------
    values
        (V,) importance.
    masks
        bool (L, V) parcels.
    sources
        int (turns, V), see `turns`; a voxel without a place is V in every turn and left out.

    Notes
    -----
    A turn counts for a parcel where half of its voxels land near others; p is NaN where fewer
    than 100 do (or than all, of fewer turns).
    """
    v = len(values)
    placed = (sources < v).any(axis=0) & np.isfinite(values)
    weights = (masks & placed).astype(np.float64)  # (L, V)
    sizes = weights.sum(axis=1)
    padded = np.append(values, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):  # parcels without voxels are NaN
        found = weights @ np.where(placed, values, 0.0) / sizes
        above, valid = np.zeros((2, len(masks)), dtype=int)
        for begin in range(0, len(sources), ROWS_AT_ONCE):
            turned = padded[sources[begin : begin + ROWS_AT_ONCE]]
            there = np.isfinite(turned)
            landed = there.astype(np.float64) @ weights.T
            mean = np.where(there, turned, 0.0) @ weights.T / landed
            counts = (landed >= KEPT_SHARE * sizes) & (landed > 0)
            above += (counts & (mean >= found * (1 - 1e-12))).sum(axis=0)
            valid += counts.sum(axis=0)
    enough = (valid >= min(ENOUGH, len(sources))) & (sizes > 0)
    return np.where(enough, (1 + above) / (1 + valid), np.nan), valid


def turns(voxels: VoxelSpace, n: int, seed: int) -> np.ndarray:
    """Return int (n, V): whose value each voxel takes when the map is turned, V for nobody's.

    Voxels with places on fsaverage5 (that of their largest weight) are rotated on its sphere,
    uniformly at random, the right hemisphere as the mirror image of the left, and take the value
    of the nearest voxel within 10 mm. Without places voxels are permuted.
    """
    from scipy.spatial import cKDTree
    from scipy.spatial.transform import Rotation

    rng, v = np.random.default_rng(seed), voxels.n_voxels
    kind = np.uint16 if v < 2**16 else np.uint32
    if voxels.projection is None:
        return rng.permuted(np.tile(np.arange(v, dtype=kind), (n, 1)), axis=1)
    vertex = _vertices(voxels)
    half = FSAVERAGE5_VERTICES // 2
    out = np.full((n, v), v, dtype=kind)
    rotations = Rotation.random(n, random_state=rng).as_matrix()
    for side, mirror in (("left", (1, 1, 1)), ("right", (-1, 1, 1))):
        (sphere, _) = bundled(f"sphere_{side}")
        start = half * (side == "right")
        here = np.flatnonzero((vertex >= start) & (vertex < start + half))
        if not len(here):
            continue
        at = sphere[vertex[here] - start].astype(np.float64)
        tree, numbers = cKDTree(at), np.append(here, v)
        for i, rotation in enumerate(rotations):
            moved = (at * mirror) @ rotation.T * mirror
            out[i, here] = numbers[tree.query(moved, distance_upper_bound=REACH)[1]]
    return out


def _vertices(voxels: VoxelSpace) -> np.ndarray:
    """Return int (V,): the vertex on which most of a voxel's weight falls, -1 where none does."""
    weights = abs(voxels.projection).tocoo()
    order = np.lexsort((weights.data, weights.col))  # the last of a column is its largest
    vertex = np.full(voxels.n_voxels, -1)
    vertex[weights.col[order]] = weights.row[order]
    return vertex


def discoveries(p: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Return Benjamini-Hochberg q (L,) of the tests where ``tested`` and p is known, else NaN."""
    from scipy.stats import false_discovery_control

    q = np.full(len(p), np.nan)
    known = tested & np.isfinite(p)
    if known.any():
        q[known] = false_discovery_control(p[known], method="bh")
    return q


def over_subjects(
    values: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, 95 % t interval and one-sided p (above 0) over the subjects of (N, L).

    NaN is left out. Interval and p are NaN where fewer than two subjects have a value, or all
    have the same.
    """
    from scipy.stats import t

    known = np.isfinite(values)
    n = known.sum(axis=0)
    filled = np.where(known, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=0) / n
        spread = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(axis=0) / (n - 1))
        error = np.where((n > 1) & (spread > 0), spread / np.sqrt(n), np.nan)
        degrees = np.maximum(n - 1, 1)
        reach = t.ppf(0.975, degrees) * error
        return mean, mean - reach, mean + reach, t.sf(mean / error, degrees)


def reliability(of: str, maps: Mapping[str, np.ndarray], alone: str) -> Reliability:
    """Return how alike maps (L,) are, pair by pair; ``alone`` is the sentence for fewer than 2."""
    names = list(maps)
    pairs = tuple(
        (a, b, metrics.spearman(maps[a], maps[b]))
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    )
    known = [value for *_, value in pairs if not math.isnan(value)]
    if not known:
        return Reliability(of, pairs, math.nan, alone)
    value = float(np.mean(known))
    said = (
        f"Maps of two {of} correlate {metrics.written(value)} over parcels (mean of {len(known)}"
    )
    return Reliability(of, pairs, value, f"{said} pair{'s' * (len(known) > 1)}).")


def shuffled_weights(mapper: Any, seed: int) -> Any:
    """Return a copy of a mapper in which the values of every weight tensor are shuffled.

    So it has random weights of the same shapes and the same spread. What is known of the voxels
    (their training mean and deviation) stays.
    """
    import torch

    random = copy.deepcopy(mapper)
    kept = {f"{kind}_{subject}" for kind in ("mean", "sd") for subject in mapper.subjects}
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in random.state_dict().items():
            if name not in kept and tensor.is_floating_point() and tensor.numel() > 1:
                order = torch.randperm(tensor.numel(), generator=draw).to(tensor.device)
                tensor.copy_(tensor.flatten()[order].reshape(tensor.shape))
    return random.eval()
