"""Scores of pictures against what was shown, each as the paper that reports it defines it.

A `Score` says what it is: definition id, direction, chance, source, and the network whose features
it compares. A score whose weights are not there says so in a sentence, and the others are still
measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.reports.feature_networks import PLAIN, Features, Look
from backends.reports.likeness import (
    PerItem,
    Pictures,
    agreement,
    cosine,
    distance,
    frechet,
    n_way_top_k,
    pixel_correlation,
    structural_similarity,
    two_way,
)
from backends.reports.objects import caption_similarity, object_overlap
from backends.reports.pairs import (
    DISTRACTORS,
    LPIPS,
    Badness,
    dissimilarity,
    length,
    pairwise,
    perceptual,
    squared_error,
    uncorrelation,
)
from backends.training.counted import count
from explorer.metrics import bootstrap_interval, counted, mean_of
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

FORESEEN, TIMED = 50, 4  # pictures from which on time is foreseen, and how many are timed
RESAMPLES = 100  # of a Frechet distance, which costs a decomposition each
SCOTTI = "Scotti et al. 2024, arXiv 2403.11207"
CHEN = "Chen et al. 2023, arXiv 2211.06956"
OZCELIK = "Ozcelik & VanRullen 2023, Sci Rep 13:15666"
FU = "Fu et al. 2023, arXiv 2306.09344"
PARK = "Park et al. 2026, arXiv 2503.06437"
ONE_COLOUR = "a picture of one colour"
ALL, CLASSES = "all", "classes"  # kinds of pools that a picture is told from, see `pool_of`


@dataclass(frozen=True)
class Score:
    """One number about pictures: what it is, where it comes from, how it is computed.

    ``per_item`` gives (n,) per picture; ``features`` (network, layer) instead for the Frechet
    distance of a whole set. ``chance`` is None where no level is fixed. A value that is not
    defined (``why``: what makes it so) counts as ``undefined_as``: it is a picture that failed,
    and to leave it out would raise the mean. In the papers it makes the whole mean NaN, or is a
    lost comparison. ``network``: whose features are compared, a name of `NETWORKS` or a sentence.
    ``pool``: what a picture is told from, see `pool_of`; "" where nothing is compared.
    ``one_by_one``: every comparison takes its own time.
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
    network: str = ""
    pool: str | int = ""
    one_by_one: bool = False


def pool_of(score: Score, n: int) -> str:
    """Return what each of n pictures is told from, for the table: a two-way rate depends on it."""
    if score.pool == ALL:
        return f"all {n - 1} other images"
    if score.pool == CLASSES:
        return f"{round(1 / (score.chance or 1)) - 1} other of 1,000 ImageNet classes, all draws"
    if isinstance(score.pool, int):
        drawn = f"{score.pool} of {n - 1} other images, drawn with seed 0"
        return drawn if n - 1 > score.pool else f"all {n - 1} other images"
    return score.pool


def compared(
    network: str, layer: str, id: str, title: str, source: str = SCOTTI, **more: Any
) -> Score:
    """Return the two-way identification of a network's layer as a score."""
    rate = two_way(network, layer)
    return Score(id, title, True, 0.5, source, rate, network=network, pool=ALL, **more)


def apart(
    network: str, id: str, title: str, source: str = SCOTTI, layer: str = "avgpool"
) -> Score:
    """Return the correlation distance of a network's pooled features as a score."""
    # what correlates with nothing is at a distance of 1
    found = distance(network, layer)
    return Score(id, title, False, None, source, found, undefined_as=1.0, network=network)


def paired(
    badness: Badness, id: str, title: str, most: int | None = DISTRACTORS, **more: Any
) -> Score:
    """Return how often a picture is nearer to its own image than to another as a score."""
    rate, pool = pairwise(badness, most), ALL if most is None else most
    each = badness is dissimilarity
    return Score(id, title, True, 0.5, CHEN, rate, pool=pool, one_by_one=each, **more)


NSD_PAPERS = (
    Score("pixcorr-425", "PixCorr", True, None, SCOTTI, pixel_correlation, why=ONE_COLOUR),
    Score("ssim-grey-425", "SSIM", True, None, SCOTTI, structural_similarity()),
    compared("alexnet", "features.4", "alexnet-2-two-way", "AlexNet(2)"),
    compared("alexnet", "features.11", "alexnet-5-two-way", "AlexNet(5)"),
    compared("inception", "avgpool", "inception-two-way", "Inception"),
    compared("clip-l-14", "visual", "clip-l-14-two-way", "CLIP"),
    apart("efficientnet-b1", "effnet-b1-distance", "EffNet-B"),
    apart("swav", "swav-distance", "SwAV"),
)
N_WAY = Score(
    *("50-way-top-1", "50-way top-1 (ViT-H/14)", True, 1 / 50, CHEN, n_way_top_k(50, 1)),
    network="vit-h-14",
    pool=CLASSES,
)
FID_64 = Score(
    *("fid-64", "FID (64 features)", False, None, CHEN), features=("fid-inception", "MaxPool_1")
)
SCORES = (
    *NSD_PAPERS,
    N_WAY,
    paired(squared_error, "mse-two-way", "MSE, two-way rate"),
    paired(uncorrelation, "pcc-two-way", "PCC, two-way rate", why=ONE_COLOUR),
    paired(dissimilarity, "ssim-two-way", "SSIM, two-way rate"),
    paired(perceptual, "lpips-two-way", "LPIPS, two-way rate", network=LPIPS),
    FID_64,
    Score(
        *("fid-2048", "FID (2048 features)", False, None),
        "Heusel et al. 2017, arXiv 1706.08500",
        features=("fid-inception", "AvgPool"),
    ),
)
SEEN_BY_PEOPLE = (
    apart("dreamsim", "dreamsim-distance", "DreamSim", FU, "joined"),
    Score(
        *("clip-l-14-cosine", "CLIP score, picture to shown image", True, None),
        "Hessel et al. 2021, arXiv 2104.08718, here with the image in place of its caption",
        cosine("clip-l-14", "visual"),
        network="clip-l-14",
    ),
)
OBJECT_F1 = Score(*("object-f1", "Object F1", True, None, PARK, object_overlap), network="objects")
CAPTION_SIMILARITY = Score(
    *("caption-similarity", "Cap-Sim", True, None, PARK, caption_similarity), network="captions"
)
SCORES = (*SCORES, *SEEN_BY_PEOPLE, OBJECT_F1, CAPTION_SIMILARITY)
# measured where a person has their weights, and not missed where not
ALSO = (
    apart("dreamsim-open-clip", "dreamsim-open-clip-distance", "DreamSim, OpenCLIP", FU, "joined"),
)
JUDGE = "pocket-judge of the simulated study"
STAND_INS = (
    compared("pocket-clip", "", "pocket-clip-two-way", "pocket-clip", "as CLIP above"),
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
    *("chance", "better", "N", "samples", "undefined", "remark", "source", "network", "pool"),
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
    look: Look = PLAIN,
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
    scores, look
        Which scores, and how pictures are brought to their sizes: see
        `backends.reports.definitions`.

    Returns
    -------
    per_picture
        Columns score, item (row of ``shown``), sample, value (NaN where it is not defined),
        counted (what it counts as then).
    table
        One row a score: id, title, value (the mean over samples, then over stimuli), low and high
        (95 % bootstrap over stimuli), best of S (the best sample of each picture; NaN for one
        sample), chance, better ("higher" or "lower"), N, samples, undefined (how many of the N x
        samples values are not defined), remark (why, and what they count as), source, network
        (which one exactly), pool (what each picture is told from).
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
    truth = Pictures(shown, features, look)
    samples = [Pictures(one, features, look, progress) for one in made]
    rows, lines, missing = [], [], {}
    if progress and len(shown) >= FORESEEN:
        progress(forecast(shown, made, features, scores, look))
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
                "network": features.variant(score.network or score.features[0]),
                "pool": pool_of(score, len(shown)),
            }
        )
    if progress:
        progress(count("scores", len(scores), len(scores), "scores"))
    return pd.DataFrame(rows, columns=EACH), pd.DataFrame(lines, columns=COLUMNS), missing


def forecast(
    shown: Sequence[np.ndarray],
    made: Sequence[Sequence[np.ndarray]],
    features: Features,
    scores: Sequence[Score],
    look: Look,
) -> str:
    """Return about how long `measure` will take, a sentence, from a few of its pictures."""
    seconds, n = 0.0, len(shown)
    few = [list(one[:TIMED]) for one in (shown, made[0])]
    for warm in (True, False):  # at first networks are opened
        a, b = (Pictures(one, features, look) for one in few)
        for score in scores:
            began = time.perf_counter()
            try:
                if score.per_item:
                    score.per_item(a, b)
                else:
                    _ = [p.feature(*score.features) for p in (a, b)]
            except UserError:
                continue  # measured it is told, too
            took = 0.0 if warm else time.perf_counter() - began
            if score.one_by_one:
                comparisons = n * (1 + min(n - 1, DISTRACTORS)) * len(made)
                seconds += took / TIMED**2 * comparisons
            else:
                seconds += took / (2 * TIMED) * n * (1 + len(made))
    return f"{len(scores)} scores of {n * len(made):,} pictures: about {length(seconds)}"


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
