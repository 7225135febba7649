"""Scores of a folder of drawn pictures: per subject, and their mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.reports.brain_correlation import BRAIN, brain_correlation
from backends.reports.definitions import Definition
from backends.reports.feature_networks import PLAIN, Features
from backends.reports.foreign_pictures import Shown
from backends.reports.picture_folder import load, pictures_of
from backends.reports.reference_rows import reference_rows
from backends.reports.scores import ALSO, SCORES, STAND_INS, Score, measure
from backends.training.counted import prefixed
from explorer.metrics import bootstrap_interval
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

MEAN_OF = "mean of "
NSD_FAMILIES = ("nsd", "mindeye1", "mindeye2")
NEAR = 0.95  # of a two-way rate, from which a picture counts as taken for the right one
SEEN_ALIKE = ("clip-l-14-two-way", "pocket-clip-two-way")
SHOWS_ANOTHER = {"object-f1": 0.2, "judge-category": 0.5, "50-way-top-1": 0.5}  # id -> below this
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Report:
    """What was measured.

    ``per_picture``: columns subject, stimulus, score, sample, value, counted. ``table``: one row
    a subject and score, and their mean; both as `backends.reports.scores.measure` has them.
    ``missing``: score id -> why it is not there. ``settings``: how the pictures were made.
    ``published``: whether the published rows of NSD belong beside them. ``parcels``: as
    ``table``, the brain correlation in each parcel, with the columns parcel, voxels and shown
    image; None without an encoding model. ``references``: PixCorr and SSIM of pictures that no
    brain made, one row a subject, reference and score; None where they were not asked for.
    ``notes``: what else must be said.
    """

    per_picture: pd.DataFrame
    table: pd.DataFrame
    missing: dict[str, str]
    settings: dict[str, Any]
    published: bool
    parcels: pd.DataFrame | None = None
    references: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()


def shipped_functions(
    bench: Workbench, checkpoints: Path, device: str
) -> dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]]:
    """Return the features of the small models that ship, for `backends.reports.scores.Features`.

    ``pocket-clip`` (n, 128), and what pocket-judge sees, (n, 1) as a number of its vocabulary.
    """
    from backends.simulation.judge import PocketJudge
    from backends.simulation.scenes import CATEGORIES, SETTINGS

    embedder = bench.models.embedder("pocket-clip")
    judge = PocketJudge(checkpoints, device)
    known = {
        "category": list(CATEGORIES),
        "supercategory": sorted(set(CATEGORIES.values())),
        "setting": list(SETTINGS),
    }

    def seen(what: str, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([[known[what].index(name)] for name in judge.classify(images)[what]])

    functions = {f"judge-{what}": partial(seen, what) for what in known}
    return functions | {"pocket-clip": lambda images: embedder.embed(images, embedder.spaces[0])}


def score_folder(
    bench: Workbench,
    folder: Path,
    features: Features,
    *,
    scores: Sequence[Score] | None = None,
    definition: Definition | None = None,
    atlas: str = "",
    references: bool = False,
    classes: bool = False,
    progress: Say | None = None,
) -> Report:
    """Measure the pictures that ``reconstruct`` made in a folder.

    On the simulated study the scores of its own small networks come along, under their own names.
    Where the subjects have an encoding model, so does the brain correlation, over all voxels and
    by parcel of ``atlas`` ("" the subject's first). With ``references`` come the rows of
    `backends.reports.reference_rows`, and with ``classes`` among them pictures of the class alone.
    """
    settings, table = load(folder)
    if scores is None and definition is None and settings["dataset"] == "simulated":
        scores = (*SCORES, *STAND_INS)
    sets = (
        Shown(subject, *pictures_of(bench, folder, subject))
        for subject in dict.fromkeys(table["subject"])
    )

    def beside(one: Shown) -> tuple[pd.DataFrame, list[str]]:
        given = bench, settings, one.subject, one.stimuli, one.shown, features
        return reference_rows(*given, classes=classes, progress=progress)

    more = {"scores": scores, "definition": definition, "progress": progress}
    more["references"] = beside if references else None
    return score_pairs(sets, features, settings, bench=bench, atlas=atlas, **more)


def score_pairs(
    sets: Iterable[Shown],
    features: Features,
    settings: dict[str, Any],
    *,
    bench: Workbench | None = None,
    scores: Sequence[Score] | None = None,
    definition: Definition | None = None,
    atlas: str = "",
    references: Callable[[Shown], tuple[pd.DataFrame, list[str]]] | None = None,
    progress: Say | None = None,
) -> Report:
    """Measure pictures against what was shown, by subject.

    Parameters
    ----------
    sets
        One a subject; read one after the other.
    features
        Where networks come from.
    settings
        How they were made, as `Report` keeps them.
    bench
        Where the data set lies that ``settings`` name, for the brain correlation; None: none.
    scores, definition
        Which scores; by default `SCORES`, or those of a paper.
    atlas
        Whose parcels, with ``bench``.
    references
        What measures pictures that no brain made beside those of a set, and what it has to say.
    """
    import pandas as pd

    if scores is None:
        scores = definition.scores if definition else SCORES
        scores += tuple(s for s in ALSO if not definition and features.holds(s.network))
    look, settings = definition.look if definition else PLAIN, dict(settings)
    settings["definition"] = definition.sentence if definition else ""
    per_picture, tables, regions, missing = [], [], [], {}
    beside: dict[tuple[str, ...], pd.DataFrame] = {}  # by stimuli: subjects often saw the same
    blind, notes = [], []
    for one in sets:
        notes += one.notes
        tell = prefixed(progress, one.subject)
        asked = (one.shown, one.made, features)
        rows, lines, lacking = measure(*asked, scores=scores, look=look, progress=tell)
        missing |= lacking
        try:
            if bench is not None:
                whose = (bench, settings["dataset"], one.subject, atlas)
                each, parcels = brain_correlation(*whose, one.stimuli, one.shown, one.made)
        except UserError as error:
            missing[BRAIN] = str(error)
        else:
            if bench is not None:
                rows = pd.concat([rows, each], ignore_index=True) if len(rows) else each
                whole = parcels.iloc[:1][lines.columns]
                lines = pd.concat([lines, whole], ignore_index=True) if len(lines) else whole
                parcels.insert(0, "subject", one.subject)
                regions.append(parcels)
        if references is not None:
            if tuple(one.stimuli) not in beside:
                beside[tuple(one.stimuli)], told = references(one)
                notes += told
            blind.append(beside[tuple(one.stimuli)].assign(subject=one.subject))
        rows.insert(0, "subject", one.subject)
        rows.insert(1, "stimulus", [one.stimuli[i] for i in rows.pop("item")])
        lines.insert(0, "subject", one.subject)
        per_picture.append(rows)
        tables.append(lines)
    every = pd.concat(per_picture, ignore_index=True)
    lines = pd.concat(tables, ignore_index=True)
    parcels = pd.concat(regions, ignore_index=True) if regions else None
    if len(tables) > 1:
        lines = pd.concat([_mean(lines, every), lines], ignore_index=True)
    if len(regions) > 1:
        parcels = pd.concat([_mean(parcels, every), parcels], ignore_index=True)
    found = pd.concat(blind, ignore_index=True) if blind else None
    family = bench.catalogue.family(settings["dataset"]) if bench else ""
    said = tuple(dict.fromkeys(notes))
    of_nsd = family in NSD_FAMILIES
    return Report(every, lines, missing, settings, of_nsd, parcels, found, said)


# ------------------------------------------------------------------------------------ near misses


def near_misses(per_picture: pd.DataFrame) -> pd.DataFrame | None:
    """Return the pictures that networks take for the right one and that show something else.

    Those that CLIP tells from at least 95 % of the other images, and whose objects or category
    are others than those shown: a high rate in the table does not tell them from good pictures
    (Park et al. 2026, arXiv 2503.06437, call that saturation). The limits are our choice.

    Parameters
    ----------
    per_picture
        As `Report` has it.

    Returns
    -------
    misses
        Columns subject, stimulus, sample, rate (two-way), told by (ids of the scores that are
        low), the most similar first; None where one of the two kinds of scores was not measured.
    """
    kinds = per_picture["score"].str.rpartition("/")[2]
    near = per_picture[kinds.isin(SEEN_ALIKE)]
    wrong = per_picture[kinds.isin(SHOWS_ANOTHER)]
    if near.empty or wrong.empty:
        return None
    key = ["subject", "stimulus", "sample"]
    limits = kinds[wrong.index].map(SHOWS_ANOTHER)
    low = wrong[wrong["counted"] < limits]
    told = low.groupby(key, sort=False)["score"].agg(", ".join).rename("told by")
    rates = near[near["counted"] >= NEAR].groupby(key, sort=False)["counted"].max().rename("rate")
    found = rates.to_frame().join(told, how="inner").reset_index()
    return found.sort_values("rate", ascending=False, kind="stable", ignore_index=True)


def _mean(lines: pd.DataFrame, every: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the mean over subjects; the interval needs stimuli that all saw."""
    import pandas as pd

    found = []
    subjects = lines["subject"].nunique()
    for score, of in lines.groupby("id", sort=False):
        line = of.iloc[0].to_dict() | {"subject": f"{MEAN_OF}{subjects}"}
        line |= {"undefined": int(of["undefined"].sum()), "remark": _remarks(of)}
        averaged = ("value", "best of samples", "chance", "shown image", "voxels")
        line |= {key: float(of[key].mean()) for key in averaged if key in of}
        line |= {"low": np.nan, "high": np.nan}
        values = every[every["score"] == score].groupby(["stimulus", "subject"])["counted"].mean()
        wide = values.unstack("subject").dropna()
        if len(wide) == line["N"]:
            line["low"], line["high"] = bootstrap_interval(wide.mean(axis=1).to_numpy(), seed=0)
        found.append(line)
    return pd.DataFrame(found)


def _remarks(of: pd.DataFrame) -> str:
    """Return what the subjects' lines of one score say of undefined values."""
    said = zip(of["subject"], of["remark"], strict=True)
    return " ".join(f"{subject}: {remark}" for subject, remark in said if remark)
