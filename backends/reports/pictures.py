"""Scores of a folder of drawn pictures: per subject, and their mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.reports.brain_correlation import BRAIN, brain_correlation
from backends.reports.feature_networks import Features
from backends.reports.picture_folder import load, pictures_of
from backends.reports.reference_rows import reference_rows
from backends.reports.scores import SCORES, STAND_INS, Score, measure
from backends.training.counted import prefixed
from explorer.metrics import bootstrap_interval
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

MEAN_OF = "mean of "
NSD_FAMILIES = ("nsd", "mindeye1", "mindeye2")
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
    import pandas as pd

    settings, table = load(folder)
    if scores is None:
        scores = (*SCORES, *STAND_INS) if settings["dataset"] == "simulated" else SCORES
    per_picture, tables, regions, missing = [], [], [], {}
    beside: dict[tuple[str, ...], pd.DataFrame] = {}  # by stimuli: subjects often saw the same
    blind, notes = [], []
    for subject in dict.fromkeys(table["subject"]):
        stimuli, shown, made = pictures_of(bench, folder, subject)
        tell = prefixed(progress, subject)
        rows, lines, lacking = measure(shown, made, features, scores=scores, progress=tell)
        missing |= lacking
        try:
            asked = (bench, settings["dataset"], subject, atlas)
            each, parcels = brain_correlation(*asked, stimuli, shown, made)
        except UserError as error:
            missing[BRAIN] = str(error)
        else:
            rows = pd.concat([rows, each], ignore_index=True) if len(rows) else each
            whole = parcels.iloc[:1][lines.columns]
            lines = pd.concat([lines, whole], ignore_index=True) if len(lines) else whole
            parcels.insert(0, "subject", subject)
            regions.append(parcels)
        if references:
            if tuple(stimuli) not in beside:
                given = bench, settings, subject, stimuli, shown, features
                beside[tuple(stimuli)], told = reference_rows(
                    *given, classes=classes, progress=progress
                )
                notes += told
            blind.append(beside[tuple(stimuli)].assign(subject=subject))
        rows.insert(0, "subject", subject)
        rows.insert(1, "stimulus", [stimuli[i] for i in rows.pop("item")])
        lines.insert(0, "subject", subject)
        per_picture.append(rows)
        tables.append(lines)
    every = pd.concat(per_picture, ignore_index=True)
    lines = pd.concat(tables, ignore_index=True)
    parcels = pd.concat(regions, ignore_index=True) if regions else None
    if len(tables) > 1:
        lines = pd.concat([_mean(lines, every), lines], ignore_index=True)
    if len(regions) > 1:
        parcels = pd.concat([_mean(parcels, every), parcels], ignore_index=True)
    published = bench.catalogue.family(settings["dataset"]) in NSD_FAMILIES
    found = pd.concat(blind, ignore_index=True) if blind else None
    said = tuple(dict.fromkeys(notes))
    return Report(every, lines, missing, settings, published, parcels, found, said)


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
