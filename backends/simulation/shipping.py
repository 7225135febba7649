"""What ships of a simulated study, as the plain folder of ``backends.datasets.layout``.

The truth lies beside it, and the further parts (`further.PARTS`) in folders of their own::

    PART/stimuli/           as stimuli/, of held-out pictures; imagery shows those of stimuli/
    PART/trials.tsv         the trials of every subject
    PART/sub-XX/betas.npy   int8 (trials, V); scale.npy float32 (V,) is what one unit is worth
    truth/imagery/areas.tsv what is left of an imagined signal, see `imagery`
    truth/imagery/sub-XX/   noiseless.npy int8 (stimuli, V) above baseline, scale.npy, partners.npy
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.simulation.brains import estimate_ncsnr
from backends.simulation.cortex import AREAS, NCSNR_FACTOR
from backends.simulation.further import GENERALISATION, IMAGERY, PARTS, held_out
from backends.simulation.held_out import picture
from backends.simulation.imagery import WEAKNESS, partners
from backends.simulation.scenes import render
from backends.simulation.study import (
    Progress,
    Recipe,
    Study,
    counter,
    save_array,
    scenes,
    stimulus_table,
    trial_table,
)
from explorer.folders import held, replacing

if TYPE_CHECKING:
    import pandas as pd

WEBP_QUALITY = 90  # about 3 kB a picture, and no difference to be seen
BETA_UNIT = "simulated percent signal change"


def write(study: Study, path: Path, progress: Progress | None = None) -> None:
    """Write what ships of a study into a folder, which appears whole or not at all.

    Parameters
    ----------
    study
        What to write: test pictures (WebP), test betas (int16 with a scale per vertex; int8 of the
        harder subjects), the further parts (int8), the truth.
    path
        The folder; one that is there is replaced.
    progress
        Called with one sentence now and then.
    """
    with held(path, "build"), replacing(path) as fresh:
        _write_description(study.recipe, fresh)
        _write_stimuli(study.recipe, fresh / "stimuli", progress)
        parcels = []
        for subject in study.recipe.subjects:
            if progress:
                progress(f"Writing the test trials of {subject} (simulated)")
            parcels.append(_write_subject(study, subject, fresh, progress))
        _write_parcels(parcels, fresh / "truth" / "parcels.tsv")
        for part in PARTS:
            _write_part(study, part, fresh, progress)


def folder_of(subject: str) -> str:
    """Return the folder of a subject: ``sub-01`` for subj01."""
    return f"sub-{subject.removeprefix('subj')}"


def quantise(values: np.ndarray, kind: type[np.signedinteger]) -> tuple[np.ndarray, np.ndarray]:
    """Return whole numbers (n, V) and the scale float32 (V,) that turns them back into values."""
    highest = np.iinfo(kind).max
    scale = np.abs(values).max(axis=0).astype(np.float64) / highest
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    return np.round(values / scale).clip(-highest, highest).astype(kind), scale


def _write_description(recipe: Recipe, folder: Path) -> None:
    description = {
        "title": "Simulated scenes and brains",
        "licence": "MIT",
        "citation": "Made by Afterimage's simulation; no brain was scanned.",
        "simulated": True,
        "redistributable": True,
        "split_unit": "stimulus",
        "note": "Simulated data with a known truth: a program drew the pictures and computed the "
        f"brain responses{_harder(recipe)}",
        "beta_unit": BETA_UNIT,
        "subjects": {subject: folder_of(subject) for subject in recipe.subjects},
        "recipe": asdict(recipe),
    }
    text = json.dumps(description, indent=2) + "\n"
    (folder / "dataset.json").write_text(text, encoding="utf-8")


def _harder(recipe: Recipe) -> str:
    """Return how the note ends: which subjects are at honest difficulty, if any."""
    names = [subject for subject in recipe.subjects if subject in NCSNR_FACTOR]
    if not names:
        return ", to teach and to test with."
    verb = "is" if len(names) == 1 else "are"
    return f". {' and '.join(names)} {verb} much noisier: as hard to decode as people."


def _write_stimuli(recipe: Recipe, folder: Path, progress: Progress | None) -> None:
    _write_pictures(recipe, "test", map(render, scenes(recipe, "test")), folder, progress)


def _write_pictures(
    recipe: Recipe,
    split: str,
    pictures: Iterable[np.ndarray],
    folder: Path,
    progress: Progress | None,
) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    table = stimulus_table(recipe, split)
    table.insert(0, "file", [f"{stimulus}.webp" for stimulus in table.index])
    count = counter(f"Drawing {len(table)} {split} scenes", progress)
    for i, (pixels, file) in enumerate(zip(pictures, table["file"], strict=True), 1):
        drawn = Image.fromarray(pixels)
        drawn.save(folder / file, "WEBP", quality=WEBP_QUALITY, method=6)
        if i % 50 == 0:
            count(i, len(table))
    table.to_csv(folder / "stimuli.tsv", sep="\t")


def _write_part(study: Study, part: str, path: Path, progress: Progress | None) -> None:
    """Write a part's pictures, trials and betas (int8 with a scale per vertex), and its truth."""
    import pandas as pd

    recipe, folder, truth = study.recipe, path / part, path / "truth" / part
    folder.mkdir()
    if part == GENERALISATION:
        shown = held_out(recipe.n_test, recipe.seed)
        _write_pictures(recipe, part, map(picture, shown), folder / "stimuli", progress)
    trial_table(recipe, part).to_csv(folder / "trials.tsv", sep="\t", index=False)
    for subject in recipe.subjects:
        if progress:
            progress(f"Writing the part {part} of {subject} (simulated)")
        (folder / folder_of(subject)).mkdir()
        _write_scaled(study.betas(subject, part, progress), folder / folder_of(subject), "betas")
        if part == IMAGERY:
            (truth / folder_of(subject)).mkdir(parents=True)
            clean = study.noiseless(subject, part) - study.brain(subject).baseline
            _write_scaled(clean, truth / folder_of(subject), "noiseless")
            save_array(truth / folder_of(subject) / "partners.npy", partners(study.brain(subject)))
    if part == IMAGERY:
        rows = [{"area": area, **asdict(weakness)} for area, weakness in WEAKNESS.items()]
        pd.DataFrame(rows).to_csv(truth / "areas.tsv", sep="\t", index=False)


def _write_scaled(values: np.ndarray, folder: Path, name: str) -> None:
    """Write ``name.npy`` int8 (n, V), and ``scale.npy`` float32 (V,), what a unit is worth."""
    stored, scale = quantise(values, np.int8)
    save_array(folder / f"{name}.npy", stored)
    save_array(folder / "scale.npy", scale)


def _write_subject(
    study: Study, subject: str, path: Path, progress: Progress | None
) -> pd.DataFrame:
    """Write one subject's test trials and truth; return the truth per parcel."""
    import pandas as pd

    brain, table = study.brain(subject, progress), trial_table(study.recipe, "test")
    folder, truth = path / folder_of(subject), path / "truth" / folder_of(subject)
    folder.mkdir()
    truth.mkdir(parents=True)
    # A hundredth of the noise is lost in int8, where a trial is nearly all noise.
    kind = np.int8 if subject in NCSNR_FACTOR else np.int16
    stored, scale = quantise(study.betas(subject, "test", progress), kind)
    save_array(folder / "betas.npy", stored)
    table.to_csv(folder / "trials.tsv", sep="\t", index=False)
    order = table.sort_values(["stimulus", "repeat"]).index.to_numpy()
    shape = (study.recipe.n_test, study.recipe.repeats, -1)
    estimated = estimate_ncsnr((stored[order] * scale).reshape(shape))
    voxels = {"vertex": brain.vertices, "scale": scale, "ncsnr": np.round(estimated, 4)}
    pd.DataFrame(voxels).to_csv(folder / "voxels.tsv", sep="\t", index=False, float_format="%.7g")

    # Controls answer to nothing, so only informative columns are kept; the others have scale 0.
    on, clean_scale = brain.informative, np.zeros(len(scale), np.float32)
    signal = (study.noiseless(subject, "test") - brain.baseline)[:, on]
    clean, clean_scale[on] = quantise(signal, np.int8)
    save_array(truth / "noiseless.npy", clean)
    known = pd.DataFrame(
        {
            "vertex": brain.vertices,
            "parcel": brain.parcels,
            "ncsnr": brain.ncsnr,
            "information": brain.information,
            "noise_sd": brain.noise_sd,
            "baseline": brain.baseline,
            "noiseless_scale": clean_scale,
        }
    )
    known.to_csv(truth / "voxels.tsv", sep="\t", index=False, float_format="%.6g")
    parcels = known.groupby("parcel", sort=False)["information"].agg(["size", "mean", "sum"])
    parcels.columns = ["vertices", "information_mean", "information_sum"]
    parcels.insert(0, "subject", subject)
    return parcels.reset_index()


def _write_parcels(parcels: list[pd.DataFrame], path: Path) -> None:
    import pandas as pd

    table = pd.concat(parcels, ignore_index=True)
    areas = [AREAS[parcel.rpartition(" ")[0]] for parcel in table["parcel"]]
    for column in ("role", "pool", "sentence", "source"):
        table[column] = [getattr(area, column) for area in areas]
    table["groups"] = [", ".join(f"{g} {s:.2f}" for g, s in a.shares.items()) for a in areas]
    table.to_csv(path, sep="\t", index=False, float_format="%.6g")
