"""What fine-tuning a generator in four ways does to its pictures, on the simulated study.

Scores are of one picture a stimulus, never of the best of several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.generators.finetuning import COURSE, Goals
from backends.reports.tables import as_failed
from backends.simulation.judge import PocketJudge
from backends.simulation.scenes import CATEGORIES
from backends.training.counted import Counted
from backends.training.plan import Course, Progress, in_chunks
from explorer.choosing import default_request
from explorer.drawing import condition_of, picture_scores
from explorer.metrics import bootstrap_interval, two_way_identification, unit
from explorer.protocols import Condition
from explorer.types import CARD, UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

SCALE = 3.0  # of guidance, at which NeuroLens samples
ROWS_AT_ONCE = 64
SHIPPED = "not fine-tuned"
# A row of the table: alignment, guidance, and the scale at which it is drawn. What has learned no
# null is drawn as a plain conditional model.
ABLATIONS: dict[str, tuple[str, bool, float]] = {
    "no guidance": ("none", False, 1.0),
    "guidance only": ("none", True, SCALE),
    "guidance, encoder level": ("encoder", True, SCALE),
    "guidance, generator level": ("generator", True, SCALE),
}


def ablations(
    bench: Workbench,
    checkpoints: Path,
    subject: str,
    folder: Path,
    tune: Callable[..., Goals],
    *,
    dataset: str = "simulated",
    generator: str = "pocket-diffusion",
    mapper: str = "masked",
    course: Course = COURSE,
    limit: int | None = None,
    steps: int = 20,
    command: str = "",
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Fine-tune in each way of `ABLATIONS` and return what the pictures are, one row a way.

    The weights go into ``folder``, one checkpoint a row, and one that is there is not trained
    again. The first two rows are the generator as it ships, at the same two scales. See `table`.

    Parameters
    ----------
    bench
        Has the simulated study, the mapper, and pocket-clip.
    checkpoints
        The folder of pocket-judge and of the generator.
    subject
        Whose trials: training ones to learn from, test ones averaged over repeats to draw.
    folder
        Where the weights go.
    tune
        `backends.commands.finetune.run`.
    course
        Of each fine-tuning.
    limit
        Only the first test stimuli.
    steps
        Denoising steps.
    """
    gallery = list(bench.catalogue.gallery(dataset, subject).index)[:limit]
    unknown = set(bench.catalogue.dataset(dataset).stimuli.loc[gallery, "category"]) - set(
        CATEGORIES
    )
    if unknown:
        raise UserError(
            f"pocket-judge knows the categories of the simulated study, and {dataset} has "
            f"{min(unknown)!r}; leave out --ablations, or choose --dataset simulated."
        )
    sources: dict[str, tuple[Path | None, float]] = {
        f"{SHIPPED}, scale {scale:g}": (None, scale) for scale in (1.0, SCALE)
    }
    goals: Goals | None = None
    for name, (alignment, guidance, scale) in ABLATIONS.items():
        place = folder / name.replace(",", "").replace(" ", "-")
        sources[f"{name}, scale {scale:g}"] = (place, scale)
        if not (place / CARD).is_file():
            how = {"alignment": alignment, "guidance": guidance, "course": course, "goals": goals}
            goals = tune(
                *(bench, checkpoints, dataset, [subject], mapper, generator, place),
                **how,
                command=command,
                progress=progress,
            )
    request = {"mapper": mapper, "generator": generator}
    conditions = [
        condition_of(
            bench, default_request(bench.catalogue, dataset, subject, stimulus=one, **request)
        )
        for one in gallery
    ]
    cls, device = bench.catalogue.generator_class(generator), bench.models.device
    judge, scores = PocketJudge(checkpoints, device), {}
    for name, (place, scale) in sources.items():
        own = {"source": place} if place else {}
        pictures = draw(cls(checkpoints, device, **own), conditions, scale, steps)
        scores[name] = describe(bench, judge, dataset, gallery, pictures)
        if progress:
            means = {what: each.mean() for what, each in as_failed(scores[name])[0].items()}
            told = ", ".join(f"{what} {mean:.3f}" for what, mean in means.items())
            done = {"work": "settings", "done": len(scores), "total": len(sources)}
            progress(Counted(f"{name}: {told}", **done, unit="settings"))
    return table(scores, {name: f"{SHIPPED}, scale {s:g}" for name, (_, s) in sources.items()})


def draw(generator: Any, conditions: Sequence[Condition], scale: float, steps: int) -> np.ndarray:
    """Return one picture a condition uint8 (n, H, W, 3); the i-th starts from the seed i."""
    parts = [
        generator.generate(conditions[part], scale, range(len(conditions))[part], steps)
        for part in in_chunks(len(conditions), ROWS_AT_ONCE)
    ]
    return np.concatenate(parts)


def describe(
    bench: Workbench, judge: PocketJudge, dataset: str, stimuli: Sequence[str], made: np.ndarray
) -> dict[str, np.ndarray]:
    """Return float64 (N,) a score, of one picture a stimulus, uint8 (N, H, W, 3).

    "category" and "super-category": pocket-judge names that of the stimulus, chance 1/24 and 1/6;
    no training saw that network. "two-way": in pocket-clip a picture is nearer to its own shown
    image than to another's, chance 0.5. "PixCorr". Higher is better in all.
    """
    said = judge.classify(list(made))
    right = bench.catalogue.dataset(dataset).stimuli.loc[list(stimuli), "category"].to_numpy()
    embedder = bench.models.embedder("pocket-clip")
    space, shown = (
        embedder.spaces[0],
        [bench.catalogue.image(dataset, stimulus) for stimulus in stimuli],
    )
    drawn, true = embedder.embed(list(made), space), embedder.embed(shown, space)
    scores = [
        picture_scores(bench, dataset, s, picture)
        for s, picture in zip(stimuli, made, strict=True)
    ]
    each = {
        "category": said["category"].to_numpy() == right,
        "super-category": said["supercategory"].to_numpy() == [CATEGORIES[c] for c in right],
        "two-way": two_way_identification(unit(drawn), unit(true), per_item=True),
        "PixCorr": [score["PixCorr"] for score in scores],
    }
    return {name: np.asarray(values, np.float64) for name, values in each.items()}


def table(
    scores: Mapping[str, Mapping[str, np.ndarray]], references: Mapping[str, str]
) -> pd.DataFrame:
    """Return one row a setting, one column a score, from values (N,) by setting and score.

    A cell is the mean with its 95 % interval, then the mean difference to the row's reference with
    the interval of that: both bootstraps over stimuli, of paired differences in the second. What
    is not defined counts as 0, and a last column says so where that is.
    """
    import pandas as pd

    rows, known = [], {name: as_failed(each) for name, each in scores.items()}
    for name, (each, said) in known.items():
        row: dict[str, Any] = {"pictures": name}
        for what, values in each.items():
            row[what] = _with_interval(values, "{:.3f} [{:.3f}, {:.3f}]")
            if references[name] != name:
                gain = values - known[references[name]][0][what]
                row[what] += _with_interval(gain, " ({:+.3f} [{:+.3f}, {:+.3f}])")
        rows.append(row | {"N": len(values)} | ({"undefined": said} if said else {}))
    return pd.DataFrame(rows)


def _with_interval(values: np.ndarray, form: str) -> str:
    return form.format(values.mean(), *bootstrap_interval(values, seed=0))
