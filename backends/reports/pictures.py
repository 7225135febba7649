"""Scores of a folder of drawn pictures: per subject, their mean, published rows beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.reports.aims import render
from backends.reports.picture_folder import load, pictures_of
from backends.reports.scores import EACH, SCORES, SCOTTI, STAND_INS, Features, Score, measure
from backends.training.counted import prefixed
from explorer.brain.maps import parcellation_of
from explorer.metrics import bootstrap_interval
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from explorer.types import EmbeddingSpace
    from explorer.workbench import Workbench

FILE, MEAN_OF = "pictures", "mean of "
NSD_FAMILIES = ("nsd", "mindeye1", "mindeye2")
BRAIN_TITLE = "Brain correlation, all voxels"
BRAIN, FEWEST = "brain-correlation", 10  # voxels whose pattern is correlated: our choice
Say = Callable[[str], None]

# Scotti et al. 2024, arXiv 2403.11207, Table 1: 40 sessions, mean of subjects 1, 2, 5 and 7, 1,000
# test images; the rows of others were evaluated again there.
PUBLISHED_FROM = "Scotti et al. 2024, arXiv 2403.11207, Table 1, mean of 4 subjects, N 1000"
PUBLISHED_IDS = (
    *("pixcorr-425", "ssim-grey-425", "alexnet-2-two-way", "alexnet-5-two-way"),
    *("inception-two-way", "clip-l-14-two-way", "effnet-b1-distance", "swav-distance"),
)
PUBLISHED = {
    "MindEye2": (0.322, 0.431, 0.961, 0.986, 0.954, 0.930, 0.619, 0.344),
    "MindEye2, unrefined": (0.278, 0.328, 0.952, 0.990, 0.964, 0.945, 0.622, 0.343),
    "MindEye1": (0.319, 0.360, 0.928, 0.969, 0.946, 0.933, 0.648, 0.377),
    "Brain-Diffuser": (0.273, 0.365, 0.944, 0.966, 0.913, 0.909, 0.728, 0.421),
    "Takagi & Nishimoto": (0.246, 0.410, 0.789, 0.856, 0.838, 0.821, 0.811, 0.504),
    "MindEye2, low level only (a blur)": (0.399, 0.539, 0.705, 0.651, 0.529, 0.572, 0.984, 0.673),
    "MindEye2, 1 session": (0.195, 0.419, 0.842, 0.906, 0.812, 0.792, 0.810, 0.468),
}


@dataclass(frozen=True, eq=False)
class Report:
    """What was measured.

    ``per_picture``: columns subject, stimulus, sample, score, value. ``table``: one row a subject
    and score, and their mean, with the columns of `backends.reports.scores.measure`.
    ``missing``: score id -> why it is not there. ``settings``: how the pictures were made.
    ``published``: whether the published rows of NSD belong beside them. ``parcels``: as
    ``table``, the brain correlation in each parcel, with the columns parcel, voxels and shown
    image; None without an encoding model.
    """

    per_picture: pd.DataFrame
    table: pd.DataFrame
    missing: dict[str, str]
    settings: dict[str, Any]
    published: bool
    parcels: pd.DataFrame | None = None


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
    progress: Say | None = None,
) -> Report:
    """Measure the pictures that ``reconstruct`` made in a folder.

    On the simulated study the scores of its own small networks come along, under their own names.
    Where the subjects have an encoding model, so does the brain correlation, over all voxels and
    by parcel of ``atlas`` ("" the subject's first).
    """
    import pandas as pd

    settings, table = load(folder)
    if scores is None:
        scores = (*SCORES, *STAND_INS) if settings["dataset"] == "simulated" else SCORES
    per_picture, tables, regions, missing = [], [], [], {}
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
    return Report(every, lines, missing, settings, published, parcels)


def brain_correlation(
    bench: Workbench,
    dataset: str,
    subject: str,
    atlas: str,
    stimuli: Sequence[str],
    shown: Sequence[np.ndarray],
    made: Sequence[Sequence[np.ndarray]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return how well pictures predict what was measured, per picture and as a table.

    The encoding model's betas for a picture against the stimulus' measured ones, averaged over its
    test repeats: Pearson correlation over the voxels of a parcel, both as differences from the
    training mean in units of the training SD (after Scotti et al. 2024, whose betas are z-scored).
    The chance level is the mean correlation with another stimulus' measured betas; "shown image"
    is what the shown picture itself reaches, as encoding models are far from perfect.

    Parameters
    ----------
    atlas
        Whose parcels; "" is the subject's first. Those of fewer than 10 voxels are left out.
    stimuli, shown, made
        As `pictures_of` gives them.

    Returns
    -------
    per_picture
        Columns score ("brain-correlation", and "brain-correlation PARCEL"), item, sample, value.
    table
        The first row is that of all voxels; see `Report`.
    """
    import pandas as pd

    from explorer.metrics import unit

    encoder = bench.models.encoder(dataset, subject)
    mean, sd = encoder.statistics()
    trials = bench.catalogue.trials(dataset, subject)
    parcellation = parcellation_of(bench, dataset, subject, atlas)
    measured = np.stack([trials.average(stimulus) for stimulus in stimuli])
    measured = (measured - mean) / sd
    embedded = [_embed(bench, images, encoder.spaces) for images in (shown, *made)]
    expected = [(encoder.predict(z) - mean) / sd for z in embedded]
    everything = np.ones((1, measured.shape[1]), bool)
    masks = np.concatenate([everything, parcellation.masks()[:-1]])
    names = ["all voxels", *(label.key for label in parcellation.labels)]
    rows, lines = [], []
    for name, mask in zip(names, masks, strict=True):
        if mask.sum() < FEWEST:
            continue
        score = BRAIN if not lines else f"{BRAIN} {name}"
        true, *found = (
            unit(x - x.mean(axis=1, keepdims=True))
            for x in (betas[:, mask].astype(np.float64) for betas in (measured, *expected))
        )
        tables = [predicted @ true.T for predicted in found]  # (n, n): pictures, stimuli
        ceiling, *values = (np.diag(table) for table in tables)
        n, others = len(stimuli), np.mean([table.sum() - np.trace(table) for table in tables[1:]])
        over = np.mean(values, axis=0)
        low, high = bootstrap_interval(over, seed=0)
        best = float(np.max(values, axis=0).mean()) if len(made) > 1 else np.nan
        rows += [
            {"score": score, "item": i, "sample": k, "value": float(value)}
            for k, one in enumerate(values)
            for i, value in enumerate(one)
        ]
        figures = {"value": float(over.mean()), "low": low, "high": high, "best of samples": best}
        about = {"chance": others / (n * (n - 1)), "better": "higher", "N": n}
        lines.append(
            {"id": score, "title": f"Brain correlation, {name}", **figures, **about}
            | {"samples": len(made), "source": f"{SCOTTI}; here a {encoder.description}"}
            | {"parcel": name, "voxels": int(mask.sum()), "shown image": float(ceiling.mean())}
            | {"atlas": parcellation.name}
        )
    return pd.DataFrame(rows, columns=EACH), pd.DataFrame(lines)


def _embed(
    bench: Workbench, images: Sequence[np.ndarray], spaces: Sequence[EmbeddingSpace]
) -> dict[EmbeddingSpace, np.ndarray]:
    """Return the images in the spaces that an encoding model reads."""
    found = {}
    for space in spaces:
        name = bench.catalogue.embedder_name(space)
        if not name:
            raise UserError(
                f"The encoding model reads {space.name}, into which no embedder here puts "
                "pictures; train one on a space of images: python -m backends train-encoding "
                "--space."
            )
        found[space] = bench.models.embedder(name).embed(images, space)
    return found


def _mean(lines: pd.DataFrame, every: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the mean over subjects; the interval needs stimuli that all saw."""
    import pandas as pd

    found = []
    subjects = lines["subject"].nunique()
    for score, of in lines.groupby("id", sort=False):
        line = of.iloc[0].to_dict() | {"subject": f"{MEAN_OF}{subjects}"}
        averaged = ("value", "best of samples", "chance", "shown image", "voxels")
        line |= {key: float(of[key].mean()) for key in averaged if key in of}
        line |= {"low": np.nan, "high": np.nan}
        values = every[every["score"] == score].groupby(["stimulus", "subject"])["value"].mean()
        wide = values.unstack("subject").dropna()
        if len(wide) == line["N"]:
            line["low"], line["high"] = bootstrap_interval(wide.mean(axis=1).to_numpy(), seed=0)
        found.append(line)
    return pd.DataFrame(found)


def markdown(report: Report) -> str:
    """Return how the pictures were made, the scores, published rows, and what is missing."""
    import pandas as pd

    made = report.settings
    lines = [
        {
            "subject": row["subject"],
            "score": row["title"],
            "value": row["value"],
            "95 % interval": ""
            if np.isnan(row["low"])
            else (float(row["low"]), float(row["high"])),
            "best of samples": "" if np.isnan(row["best of samples"]) else row["best of samples"],
            "chance": "" if np.isnan(row["chance"]) else row["chance"],
            "better": row["better"],
            "N": int(row["N"]),
            "samples": int(row["samples"]),
            "definition": row["id"],
            "source": row["source"],
        }
        for row in report.table.to_dict("records")
    ]
    titles = {score.id: score.title for score in (*SCORES, *STAND_INS)} | {BRAIN: BRAIN_TITLE}
    blank = dict.fromkeys(lines[0], "") if lines else {}
    lines += [
        blank | {"score": titles[i], "value": "missing, see below", "definition": i}
        for i in report.missing
    ]
    title = (
        f"Pictures of {made['dataset']}: {made['mapper']} and {made['generator']}, "
        f"scale {made['scale']:g}, {made['steps']} steps"
    )
    tables = {title: pd.DataFrame(lines)}
    if report.parcels is not None:
        tables |= _by_parcel(report.parcels)
    if report.published:
        names = [next(s.title for s in SCORES if s.id == i) for i in PUBLISHED_IDS]
        rows = [{"system": n} | dict(zip(names, v, strict=True)) for n, v in PUBLISHED.items()]
        tables[f"Published ({PUBLISHED_FROM})"] = pd.DataFrame(rows)
    text = render(tables).rstrip("\n") + "\n\n"
    text += "The interval is a bootstrap over stimuli. PixCorr and SSIM reward blur.\n"
    for score, why in report.missing.items():
        text += f"- {score}: {why}\n"
    return text


def _by_parcel(parcels: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the brain correlation as a person reads it, by title."""
    shown = parcels[["subject", "parcel", "voxels", "value"]].copy()
    pairs = zip(parcels["low"], parcels["high"], strict=True)
    shown["95 % interval"] = ["" if np.isnan(a) else (float(a), float(b)) for a, b in pairs]
    shown["voxels"] = [round(count) for count in parcels["voxels"]]  # a mean of subjects too
    for column in ("chance", "shown image", "better", "N"):
        shown[column] = parcels[column]
    title = (
        f"Brain correlation by parcel of {parcels['atlas'].iloc[0]} (betas predicted from a "
        "picture against measured ones; chance: another image's)"
    )
    return {title: shown}


def figure(report: Report) -> Figure:
    """Return one panel a score: every subject with its interval, and the chance level."""
    from matplotlib.figure import Figure

    groups = list(report.table.groupby("id", sort=False))
    columns = min(4, len(groups))
    rows = -(-len(groups) // columns)
    subjects = list(dict.fromkeys(report.table["subject"]))
    drawn = Figure((3 * columns, (0.9 + 0.28 * len(subjects)) * rows), layout="constrained")
    axes = drawn.subplots(rows, columns, squeeze=False).ravel()
    for ax, (_, of) in zip(axes, groups, strict=False):
        of = of.set_index("subject").reindex(subjects)
        at = np.arange(len(subjects))
        values = of["value"].to_numpy(float)
        reach = np.stack([values - of["low"], of["high"] - values]).astype(float)
        ax.errorbar(values, at, xerr=np.nan_to_num(reach), fmt="o", color="#2b5c8a", ms=4)
        chance = float(of["chance"].iloc[0])
        if not np.isnan(chance):
            ax.axvline(chance, color="#999999", lw=1, ls="--")
        better = "higher" if of["better"].iloc[0] == "higher" else "lower"
        ax.set_title(f"{of['title'].iloc[0]} ({better} is better)", fontsize=8)
        ax.set_yticks(at, subjects, fontsize=7)
        ax.tick_params(axis="x", labelsize=7)
        ax.invert_yaxis()
    for ax in axes[len(groups) :]:
        ax.set_visible(False)
    drawn.suptitle("95 % intervals over stimuli; dashed: chance", fontsize=8)
    return drawn


def write(report: Report, folder: Path) -> list[Path]:
    """Write the table (.csv, .md), the figure (.png, .svg) and every picture's scores (.parquet).

    Each file comes whole or not at all.
    """
    if report.table.empty:
        raise UserError("No score could be computed, so nothing was written.")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = figure(report)
    makers: dict[str, Callable[[Path], Any]] = {
        f"{FILE}.csv": lambda path: report.table.to_csv(path, index=False, float_format="%.6g"),
        f"{FILE}.md": lambda path: path.write_text(markdown(report), encoding="utf-8"),
        f"{FILE}.png": lambda path: drawn.savefig(path, format="png", dpi=200),
        f"{FILE}.svg": lambda path: drawn.savefig(path, format="svg", metadata={"Date": None}),
        f"{FILE}-parcels.csv": lambda path: report.parcels.to_csv(
            path, index=False, float_format="%.6g"
        ),
        f"{FILE}-each.csv": lambda path: report.per_picture.to_csv(path, index=False),
        f"{FILE}-each.parquet": lambda path: report.per_picture.to_parquet(path, index=False),
    }
    if report.parcels is None:
        del makers[f"{FILE}-parcels.csv"]
    written = []
    for name, make in makers.items():
        part, path = folder / f".{name}.part", folder / name
        make(part)
        os.replace(part, path)
        written.append(path)
    return written
