"""What the scores of pictures look like: Markdown with published rows, a figure, and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backends.reports.brain_correlation import BRAIN, BRAIN_TITLE
from backends.reports.definitions import DEFINITIONS
from backends.reports.feature_networks import NETWORKS
from backends.reports.pictures import MEAN_OF, Report, near_misses
from backends.reports.scores import ALSO, SCORES, STAND_INS
from backends.reports.tables import render, write_files
from explorer.evidence.evaluation import MISSES, NEARLY
from explorer.types import UserError
from explorer.writing import csv_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE, FEW = "pictures", 10
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


def markdown(report: Report) -> str:
    """Return how the pictures were made, the scores, published rows, and what is missing."""
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
            "undefined": int(row["undefined"]) or "",
            "samples": int(row["samples"]),
            "compared with": row["pool"],
            "network": row["network"],
            "definition": row["id"],
            "source": row["source"],
        }
        for row in report.table.to_dict("records")
    ]
    known = (*SCORES, *ALSO, *STAND_INS, *(s for one in DEFINITIONS.values() for s in one.scores))
    titles = {score.id: score.title for score in known} | {BRAIN: BRAIN_TITLE}
    networks = {score.id: score.network or score.features[0] for score in known}
    variants = {i: NETWORKS[n].variant for i, n in networks.items() if n in NETWORKS}
    blank = dict.fromkeys(lines[0], "") if lines else {}
    lines += [
        blank
        | {"score": titles[i], "value": "missing, see below", "definition": i}
        | {"network": variants.get(i, "")}
        for i in report.missing
    ]
    title = f"Pictures of {made['dataset']}: {made['mapper']} and {made['generator']}"
    if "scale" in made:
        title += f", scale {made['scale']:g}, {made['steps']} steps"
    tables = {title: pd.DataFrame(lines)}
    missed = near_misses(report.per_picture)
    if missed is not None and len(missed):
        tables[f"Near misses: {NEARLY}; the first {min(FEW, len(missed))} of {len(missed)}"] = (
            missed.head(FEW)
        )
    if report.parcels is not None:
        tables |= _by_parcel(report.parcels)
    if report.references is not None:
        tables |= _references(report.references)
    if report.published:
        names = [next(s.title for s in SCORES if s.id == i) for i in PUBLISHED_IDS]
        rows = [{"system": n} | dict(zip(names, v, strict=True)) for n, v in PUBLISHED.items()]
        tables[f"Published ({PUBLISHED_FROM})"] = pd.DataFrame(rows)
    text = render(tables).rstrip("\n") + "\n\n"
    text += (
        "The interval is a bootstrap over stimuli. PixCorr and SSIM reward blur. A value that is "
        "not defined counts as a failed picture: 0, and 1 of a distance. A two-way rate depends "
        "on the images it compares with: rates of other test sets are no match for it.\n"
    )
    if missed is not None and not len(missed):
        text += f"- Near misses ({NEARLY}): none.\n"
    if made.get("definition"):
        text += f"- {made['definition']}\n"
    for row in report.table.to_dict("records"):
        if row["remark"] and not row["subject"].startswith(MEAN_OF):
            text += f"- {row['title']}, {row['subject']}: {row['remark']}\n"
    for score, why in report.missing.items():
        text += f"- {score}: {why}\n"
    for note in report.notes:
        text += f"- {note}\n"
    return text


def _references(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the references as a person reads them, one line each, those of all subjects once."""
    lines = []
    same = found.groupby(["of", "id"])["value"].nunique().max() == 1
    for (subject, of), rows in found.groupby(["subject", "of"], sort=False):
        if same and subject != found["subject"].iloc[0]:
            continue
        line = {} if same else {"subject": subject}
        line |= {"pictures": of}
        for row in rows.to_dict("records"):
            line[row["title"]] = row["value"]
            line[f"{row['title']}, 95 % interval"] = (float(row["low"]), float(row["high"]))
        lines.append(line | {"N": int(rows["N"].iloc[0])})
    return {"What PixCorr and SSIM reward (no brain made these pictures)": pd.DataFrame(lines)}


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
    drawn = figure(report)
    makers: dict[str, Callable[[Path], Any]] = {
        f"{FILE}.csv": _csv(report.table, float_format="%.6g"),
        f"{FILE}.md": lambda path: path.write_text(markdown(report), encoding="utf-8"),
        f"{FILE}.png": lambda path: drawn.savefig(path, format="png", dpi=200),
        f"{FILE}.svg": lambda path: drawn.savefig(path, format="svg", metadata={"Date": None}),
        f"{FILE}-parcels.csv": _csv(report.parcels, float_format="%.6g"),
        f"{FILE}-references.csv": _csv(report.references, float_format="%.6g"),
        f"{FILE}-each.csv": _csv(report.per_picture),
        f"{FILE}-each.parquet": lambda path: report.per_picture.to_parquet(path, index=False),
    }
    missed = near_misses(report.per_picture)
    if missed is not None:
        makers[MISSES] = _csv(missed, float_format="%.6g")
    if report.parcels is None:
        del makers[f"{FILE}-parcels.csv"]
    if report.references is None:
        del makers[f"{FILE}-references.csv"]
    return write_files(folder, makers)


def _csv(table: pd.DataFrame | None, **options: Any) -> Callable[[Path], Any]:
    return lambda path: path.write_text(csv_text(table, **options), encoding="utf-8")
