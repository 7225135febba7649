"""Scores of pictures against what was shown, each as the paper that reports it defines it.

A `Score` says what it is: definition id, direction, chance, source, and the network whose features
it compares. A score whose weights are not there says so in a sentence, and the others are still
measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.reports.feature_networks import Features
from backends.reports.likeness import (
    PerItem,
    Pictures,
    agreement,
    dissimilarity,
    distance,
    frechet,
    n_way_top_k,
    pairwise,
    perceptual,
    pixel_correlation,
    squared_error,
    structural_similarity,
    two_way,
    uncorrelation,
)
from backends.training.counted import count
from explorer.metrics import bootstrap_interval, counted, mean_of
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 100  # of a Frechet distance, which costs a decomposition each
SCOTTI = "Scotti et al. 2024, arXiv 2403.11207"
CHEN = "Chen et al. 2023, arXiv 2211.06956"


@dataclass(frozen=True)
class Score:
    """One number about pictures: what it is, where it comes from, how it is computed.

    ``per_item`` gives (n,) per picture; ``features`` (network, layer) instead for the Frechet
    distance of a whole set. ``chance`` is None where no level is fixed. A value that is not
    defined (``why``: what makes it so) counts as ``undefined_as``: it is a picture that failed,
    and to leave it out would raise the mean. In the papers it makes the whole mean NaN, or is a
    lost comparison.
    """

    id: str
    title: str
    higher_is_better: bool
    chance: float | None
    source: str
    per_item: PerItem | None = None
    features: tuple[str, str] = ("", "")
    undefined_as: float = 0.0
    why: str = "features that are constant or not finite"


ONE_COLOUR = "a picture of one colour"
SCORES = (
    Score("pixcorr-425", "PixCorr", True, None, SCOTTI, pixel_correlation, why=ONE_COLOUR),
    Score("ssim-grey-425", "SSIM", True, None, SCOTTI, structural_similarity),
    Score("alexnet-2-two-way", "AlexNet(2)", True, 0.5, SCOTTI, two_way("alexnet", "features.4")),
    Score("alexnet-5-two-way", "AlexNet(5)", True, 0.5, SCOTTI, two_way("alexnet", "features.11")),
    Score("inception-two-way", "Inception", True, 0.5, SCOTTI, two_way("inception", "avgpool")),
    Score("clip-l-14-two-way", "CLIP", True, 0.5, SCOTTI, two_way("clip-l-14", "visual")),
    Score(
        "effnet-b1-distance",
        "EffNet-B",
        False,
        None,
        SCOTTI,
        distance("efficientnet-b1", "avgpool"),
        undefined_as=1.0,  # the distance of what correlates with nothing
    ),
    Score(
        *("swav-distance", "SwAV", False, None, SCOTTI, distance("swav", "avgpool")),
        undefined_as=1.0,
    ),
    Score("50-way-top-1", "50-way top-1 (ViT-H/14)", True, 1 / 50, CHEN, n_way_top_k(50, 1)),
    Score("mse-two-way", "MSE, two-way rate", True, 0.5, CHEN, pairwise(squared_error)),
    Score(
        *("pcc-two-way", "PCC, two-way rate", True, 0.5, CHEN, pairwise(uncorrelation)),
        why=ONE_COLOUR,
    ),
    Score("ssim-two-way", "SSIM, two-way rate", True, 0.5, CHEN, pairwise(dissimilarity)),
    Score("lpips-two-way", "LPIPS, two-way rate", True, 0.5, CHEN, pairwise(perceptual)),
    Score(
        "fid-64", "FID (64 features)", False, None, CHEN, features=("fid-inception", "MaxPool_1")
    ),
    Score(
        "fid-2048",
        "FID (2048 features)",
        False,
        None,
        "Heusel et al. 2017, arXiv 1706.08500",
        features=("fid-inception", "AvgPool"),
    ),
)
JUDGE = "pocket-judge of the simulated study"
STAND_INS = (
    Score(
        "pocket-clip-two-way", "pocket-clip", True, 0.5, "as CLIP above", two_way("pocket-clip")
    ),
    Score("judge-category", "category", True, 1 / 24, JUDGE, agreement("judge-category")),
    Score(
        *("judge-supercategory", "super-category", True, 1 / 6, JUDGE),
        agreement("judge-supercategory"),
    ),
    Score("judge-setting", "setting", True, 1 / 8, JUDGE, agreement("judge-setting")),
    Score(
        *("fid-pocket-clip", "FID (128 features of pocket-clip)", False, None, "as FID above"),
        features=("pocket-clip", ""),
    ),
)


EACH = ["score", "item", "sample", "value", "counted"]
COLUMNS = [
    *("id", "title", "value", "low", "high", "best of samples"),
    *("chance", "better", "N", "samples", "undefined", "remark", "source"),
]


def summary(
    values: np.ndarray, undefined_as: float, why: str, higher_is_better: bool
) -> dict[str, Any]:
    """Return one line about scores (S, n) of S samples of n pictures; see `measure`."""
    mean = mean_of(values, why, undefined_as)
    known = counted(values, undefined_as).reshape(values.shape)
    best = known.max(axis=0) if higher_is_better else known.min(axis=0)
    low, high = bootstrap_interval(known.mean(axis=0), seed=0)
    found = {"value": mean.value, "low": low, "high": high}
    found["best of samples"] = float(best.mean()) if len(values) > 1 else np.nan
    return found | {"undefined": mean.undefined, "remark": mean.remark}


def by_picture(score: str, values: np.ndarray, undefined_as: float) -> list[dict[str, Any]]:
    """Return one row a picture for scores (S, n): see `measure`."""
    known = counted(values, undefined_as).reshape(values.shape)
    return [
        {"score": score, "item": i, "sample": k, "value": float(value)}
        | {"counted": float(known[k, i])}
        for k, one in enumerate(values)
        for i, value in enumerate(one)
    ]


def measure(
    shown: Sequence[np.ndarray],
    made: Sequence[Sequence[np.ndarray]],
    features: Features,
    *,
    scores: Sequence[Score] = SCORES,
    progress: Callable[[str], None] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """Return every score per picture, the table of scores, and why others are missing.

    Parameters
    ----------
    shown
        n images uint8 (H, W, 3), one a stimulus.
    made
        S samples of n pictures each, in the order of ``shown``.
    features
        Where networks come from.

    Returns
    -------
    per_picture
        Columns score, item (row of ``shown``), sample, value (NaN where it is not defined),
        counted (what it counts as then).
    table
        One row a score: id, title, value (the mean over samples, then over stimuli), low and high
        (95 % bootstrap over stimuli), best of S (the best sample of each picture; NaN for one
        sample), chance, better ("higher" or "lower"), N, samples, undefined (how many of the N x
        samples values are not defined), remark (why, and what they count as), source.
    missing
        Id of a score -> one sentence.
    """
    import pandas as pd

    if not made or any(len(one) != len(shown) for one in made) or len(shown) < 2:
        found = ", ".join(str(len(one)) for one in made) or "none"
        raise UserError(
            f"Scores need one picture per shown image in each sample, of 2 images or more; found "
            f"{len(shown)} images and samples of {found}."
        )
    truth = Pictures(shown, features)
    samples = [Pictures(one, features) for one in made]
    rows, lines, missing = [], [], {}
    for number, score in enumerate(scores):
        if progress:
            progress(count("scores", number, len(scores), "scores", note=score.title))
        try:
            if score.per_item:
                values = np.stack([score.per_item(truth, one) for one in samples])
                better = score.higher_is_better
                line = summary(values, score.undefined_as, score.why, better)
                rows += by_picture(score.id, values, score.undefined_as)
            else:
                line = _frechet_of(score, truth, samples)
        except UserError as error:
            missing[score.id] = str(error)
            continue
        lines.append(
            {"id": score.id, "title": score.title}
            | line
            | {
                "chance": np.nan if score.chance is None else score.chance,
                "better": "higher" if score.higher_is_better else "lower",
                "N": len(shown),
                "samples": len(samples),
                "source": score.source,
            }
        )
    if progress:
        progress(count("scores", len(scores), len(scores), "scores"))
    return pd.DataFrame(rows, columns=EACH), pd.DataFrame(lines, columns=COLUMNS), missing


def _frechet_of(score: Score, truth: Pictures, samples: Sequence[Pictures]) -> dict[str, float]:
    """Return value, low and high of a Frechet distance, the mean over samples of n pictures.

    The interval is normal, with the standard deviation over resampled stimuli.
    """

    def rows(pictures: Pictures) -> np.ndarray:
        found = pictures.feature(*score.features)
        return found.reshape(*found.shape[:2], -1).mean(axis=2)

    a, others = rows(truth), [rows(one) for one in samples]
    rng = np.random.default_rng(0)

    def of(chosen: np.ndarray) -> float:
        return float(np.mean([frechet(a[chosen], b[chosen]) for b in others]))

    # resampling repeats pictures, which raises every drawn distance: only their spread is used
    spread = np.std([of(rng.integers(0, len(a), len(a))) for _ in range(RESAMPLES)])
    value = of(np.arange(len(a)))
    interval = {"low": value - 1.96 * spread, "high": value + 1.96 * spread}
    more = {"best of samples": np.nan, "undefined": 0, "remark": ""}
    return {"value": value} | interval | more
