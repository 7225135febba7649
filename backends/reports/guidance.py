"""What guidance does to pictures, measured on test trials: the scale, features, betas, best of n.

One repeat of every trial is decoded and guides; the mean of its other repeats judges. So what is
gained on the betas that pull is told apart from what is gained on the brain's answer to the image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.reports.tables import as_failed
from backends.simulation.judge import PocketJudge
from backends.training.counted import Counted
from explorer.brain.maps import parcellation_of
from explorer.choosing import default_request
from explorer.decoding import decode
from explorer.drawing import condition_of, picture_scores
from explorer.metrics import bootstrap_interval, two_way_identification, unit
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.protocols import Condition
    from explorer.workbench import Workbench

DATASET, GENERATOR = "simulated", "pocket-diffusion"
SCALE = 2.0  # at which further guidance is measured
REFERENCE = f"scale {SCALE:g}"  # what it is compared with
BATCH = 16
SCALES = {f"scale {scale:g}": (scale, {}) for scale in (0.0, 1.0, 2.0, 4.0, 8.0)}
FEATURES = {
    f"feature_kappa {kappa:g}": (SCALE, {"feature_kappa": kappa}) for kappa in (0.05, 0.1, 0.2)
}
BRAIN = {f"brain_kappa {kappa:g}": (SCALE, {"brain_kappa": kappa}) for kappa in (0.05, 0.1, 0.2)}
BEST = {
    "best of 4 by embedding": (SCALE, {"candidates": 4}),
    "best of 4 by betas": (SCALE, {"candidates": 4, "best_by": 1}),
}
SETTINGS = SCALES | FEATURES | BRAIN | BEST
# of mappers that decode them too: they say what is where, which the image embedding hardly does
TOKENS_ALONE = {"feature_kappa 0.2, tokens": (SCALE, {"feature_kappa": 0.2, "image_weight": 0})}
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Trial:
    """What one picture is drawn from and judged by.

    ``condition``: decoded from, and holding, the betas of the repeat that guides; its ``voxels``
    are the ROI. ``target`` (D,): the decoded embedding. ``judging`` (V,): the mean of the other
    repeats' betas. ``image``: what was shown.
    """

    stimulus: str
    condition: Condition
    target: np.ndarray
    judging: np.ndarray
    image: np.ndarray


def measure(
    bench: Workbench,
    checkpoints: Path,
    subject: str,
    *,
    mapper: str = "ridge",
    parcels: Sequence[str] = (),
    limit: int | None = 100,
    steps: int = 20,
    settings: Mapping[str, tuple[float, dict[str, float]]] | None = None,
    progress: Say | None = None,
) -> pd.DataFrame:
    """Return one row a setting, see `describe` and `table`.

    Parameters
    ----------
    bench
        Has the simulated study, its mappers, and an encoding model of ``subject``.
    checkpoints
        The folder of pocket-judge.
    subject, mapper
        Whose trials, and what decodes them.
    parcels
        Names of the parcels whose betas guide and are correlated; () takes all voxels.
    limit
        Only the first test stimuli.
    steps
        Denoising steps.
    settings
        Name of a row -> guidance scale and options of the generator; None takes `SETTINGS`, and
        `TOKENS_ALONE` where the mapper decodes tokens.
    """
    trials = gather(bench, subject, mapper, parcels, limit)
    if settings is None:
        tokens = any(space.layer == "tokens" for space in trials[0].condition.embeddings)
        settings = SETTINGS | (TOKENS_ALONE if tokens else {})
    generator, judge = bench.models.generator(GENERATOR), PocketJudge(checkpoints, "cpu")
    scores = {}
    for name, (scale, options) in settings.items():
        pictures = np.concatenate(
            [
                generator.generate(
                    [trial.condition for trial in trials[i : i + BATCH]],
                    scale,
                    range(i, min(i + BATCH, len(trials))),
                    steps,
                    **options,
                )
                for i in range(0, len(trials), BATCH)
            ]
        )
        scores[name] = describe(bench, judge, subject, trials, pictures)
        if progress:
            means = {what: each.mean() for what, each in as_failed(scores[name])[0].items()}
            told = ", ".join(f"{what} {mean:.3f}" for what, mean in means.items())
            done = {"work": "settings", "done": len(scores), "total": len(settings)}
            progress(Counted(f"{name}: {told}", **done, unit="settings"))
    return table(scores)


def table(scores: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Return one row a setting, one column a score, from values (N,) by setting and score.

    A cell is the mean over trials, and after it the mean difference to the row `REFERENCE`, where
    that is among them, with its 95 % interval: a bootstrap over stimuli of paired differences.
    What is not defined counts as 0, and a last column says so where that is.
    """
    import pandas as pd

    rows, known = [], {name: as_failed(each) for name, each in scores.items()}
    for name, (each, said) in known.items():
        row: dict[str, Any] = {"pictures": name}
        for what, values in each.items():
            row[what] = f"{values.mean():.3f}"
            if name != REFERENCE and REFERENCE in scores:
                gain = values - known[REFERENCE][0][what]
                low, high = bootstrap_interval(gain, seed=0)
                row[what] += f" ({gain.mean():+.3f} [{low:+.3f}, {high:+.3f}])"
        rows.append(row | {"N": len(values)} | ({"undefined": said} if said else {}))
    return pd.DataFrame(rows)


def gather(
    bench: Workbench, subject: str, mapper: str, parcels: Sequence[str], limit: int | None
) -> list[Trial]:
    """Return a subject's first test trials, each split into a guiding repeat and the others."""
    from dataclasses import replace

    every = bench.catalogue.trials(DATASET, subject)
    voxels = roi(bench, subject, parcels)
    found = []
    for stimulus in list(bench.catalogue.gallery(DATASET, subject).index)[:limit]:
        repeats = tuple(every.table["repeat"].iloc[every.rows("test", stimulus)])
        if len(repeats) < 2:
            raise UserError(
                f"{DATASET}/{subject} shows {stimulus} once; held-out repeats need two or more."
            )
        request = default_request(
            bench.catalogue,
            DATASET,
            subject,
            stimulus=stimulus,
            mapper=mapper,
            generator=GENERATOR,
            repeats=repeats[:1],
        )
        condition = replace(condition_of(bench, request), voxels=voxels)
        found.append(
            Trial(
                stimulus,
                condition,
                decode(bench, request).embedding,
                every.average(stimulus, repeats[1:]),
                bench.catalogue.image(DATASET, stimulus),
            )
        )
    return found


def roi(bench: Workbench, subject: str, parcels: Sequence[str]) -> np.ndarray | None:
    """Return which voxels lie in parcels of these names, bool (V,); None for all."""
    if not parcels:
        return None
    atlas = parcellation_of(bench, DATASET, subject)
    known = dict.fromkeys(label.name for label in atlas.labels)
    if unknown := [name for name in parcels if name not in known]:
        raise UserError(
            f"The atlas {atlas.name} has no parcel {unknown[0]!r}; it has {', '.join(known)}."
        )
    chosen = [label.name in parcels for label in atlas.labels]
    return atlas.masks()[:-1][chosen].any(axis=0)


def describe(
    bench: Workbench,
    judge: PocketJudge,
    subject: str,
    trials: Sequence[Trial],
    pictures: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return float64 (N,) a score, of one picture a trial, uint8 (N, H, W, 3).

    "to target": pocket-clip cosine to the decoded embedding, "to shown" to the shown image's.
    PixCorr and SSIM. "two-way": how often a picture is nearer to its own shown image than to
    another's in pocket-clip, chance 0.5. "judge": pocket-judge names the same super-category in
    picture and shown image, chance 1/6; guidance never sees that network. "r guiding", "r held
    out": correlation over the ROI of the betas predicted from the picture with those measured in
    the guiding repeat, and in the others, chance 0; the encoding model is the one that guides.
    Higher is better in all.
    """
    embedder, encoder = (
        bench.models.embedder("pocket-clip"),
        bench.models.encoder(DATASET, subject),
    )
    shown = [trial.image for trial in trials]
    space = embedder.spaces[0]
    made, true = embedder.embed(list(pictures), space), embedder.embed(shown, space)
    targets = unit(np.stack([trial.target for trial in trials]))
    scores = [
        picture_scores(bench, DATASET, t.stimulus, p)
        for t, p in zip(trials, pictures, strict=True)
    ]
    named = [judge.classify(images)["supercategory"] for images in (list(pictures), shown)]
    voxels = trials[0].condition.voxels
    mean, sd = encoder.statistics()
    features = {s: embedder.embed(list(pictures), s) for s in encoder.spaces}
    predicted = (encoder.predict(features) - mean) / sd
    each = {
        "to target": (made * targets).sum(1),
        "to shown": (made * true).sum(1),
        "PixCorr": [score["PixCorr"] for score in scores],
        "SSIM": [score["SSIM"] for score in scores],
        "two-way": two_way_identification(made, true, per_item=True),
        "judge": named[0].to_numpy() == named[1].to_numpy(),
        "r guiding": pattern_r(predicted, [t.condition.betas for t in trials], mean, sd, voxels),
        "r held out": pattern_r(predicted, [t.judging for t in trials], mean, sd, voxels),
    }
    return {name: np.asarray(values, np.float64) for name, values in each.items()}


def pattern_r(
    predicted: np.ndarray,
    measured: Sequence[np.ndarray],
    mean: np.ndarray,
    sd: np.ndarray,
    voxels: np.ndarray | None,
) -> np.ndarray:
    """Return one Pearson correlation a trial (N,) over the ROI's voxels.

    ``predicted`` (N, V) in training SD around the training mean, ``measured`` in the data's unit.
    """
    keep = slice(None) if voxels is None else voxels
    a, b = predicted[:, keep], ((np.stack(measured) - mean) / sd)[:, keep]
    a, b = (unit(x - x.mean(axis=1, keepdims=True)) for x in (a, b))
    return (a * b).sum(axis=1)
