"""Scores as one paper's own code defines them, by the paper's name.

What differs between papers that use the same words: how pictures are resized, which weights a
network has, what SSIM takes for a channel, and how many images a rate compares with. Each is what
the paper's pinned versions of libraries compute, not what today's would.

- MindEye2 (MedARC-AI/MindEyeV2, src/final_evaluations.ipynb, src/setup.sh): tensors resized by
  torchvision 0.16, whose default is without antialiasing.
- Brain-Diffuser (ozcelikfu/brain-diffuser, scripts/eval_extract_features.py and
  evaluate_reconstruction.py, environment.yml): 8-bit pictures resized by Pillow, all networks at
  224 pixels, the first weights of EfficientNet-B1, and SSIM of scikit-image 0.17, for which each
  column of pixels is a channel.
- MinD-Vis (zjc062/mind-vis, code/eval_metrics.py, code/gen_eval.py): rates over all other images,
  PSM (LPIPS), and the class of ViT-H/14.
- SEED (Concarne2/SEED, seed/metrics.py): objects, captions and EfficientNet-B1, see
  `backends.reports.objects`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backends.reports.feature_networks import PLAIN, Look
from backends.reports.likeness import Pictures, pixel_correlation, structural_similarity
from backends.reports.objects import caption_similarity, object_overlap
from backends.reports.pairs import (
    LPIPS,
    dissimilarity,
    perceptual,
    squared_error,
    uncorrelation,
)
from backends.reports.scores import (
    CAPTION_SIMILARITY,
    FID_64,
    N_WAY,
    NSD_PAPERS,
    OBJECT_F1,
    ONE_COLOUR,
    OZCELIK,
    PARK,
    Score,
    apart,
    compared,
    paired,
)
from explorer.types import UserError


@dataclass(frozen=True)
class Definition:
    """A paper's scores, how it brings pictures to their sizes, and one sentence about both."""

    name: str
    scores: tuple[Score, ...]
    look: Look
    sentence: str


def _named(name: str, scores: tuple[Score, ...]) -> tuple[Score, ...]:
    """Return scores under ids of their own: numbers of one id can be compared."""
    return tuple(replace(score, id=f"{name}/{score.id}") for score in scores)


SEED_NETWORKS = "the three above"
BRAIN_DIFFUSER = (
    Score("pixcorr-425", "PixCorr", True, None, OZCELIK, pixel_correlation, why=ONE_COLOUR),
    Score(
        *("ssim-columns-425", "SSIM, column by column", True, None, OZCELIK),
        structural_similarity(columns=True),
    ),
    compared("alexnet", "features.4", "alexnet-2-two-way", "AlexNet(2)", OZCELIK),
    compared("alexnet", "features.11", "alexnet-5-two-way", "AlexNet(5)", OZCELIK),
    compared("inception", "avgpool", "inception-two-way", "Inception", OZCELIK),
    compared("clip-l-14", "visual", "clip-l-14-two-way", "CLIP", OZCELIK),
    apart("efficientnet-b1-v1", "effnet-b1-distance", "EffNet-B", OZCELIK),
    apart("swav", "swav-distance", "SwAV", OZCELIK),
)
MIND_VIS = (
    paired(squared_error, "mse-two-way", "MSE, two-way rate", None),
    paired(uncorrelation, "pcc-two-way", "PCC, two-way rate", None, why=ONE_COLOUR),
    paired(dissimilarity, "ssim-two-way", "SSIM, two-way rate", None),
    paired(perceptual, "psm-two-way", "PSM (LPIPS), two-way rate", None, network=LPIPS),
    N_WAY,
    FID_64,
)
EFFNET = apart("efficientnet-b1", "effnet-b1-distance", "EffNet-B", PARK)


def _seed(shown: Pictures, made: Pictures) -> np.ndarray:
    """Mean of Object F1, Cap-Sim and 1 - EffNet's distance."""
    objects, captions = object_overlap(shown, made), caption_similarity(shown, made)
    return (objects + captions + 1 - EFFNET.per_item(shown, made)) / 3


SEED = (
    OBJECT_F1,
    CAPTION_SIMILARITY,
    EFFNET,
    Score("seed", "SEED", True, None, PARK, _seed, network=SEED_NETWORKS),
)
DEFINITIONS = {
    "mindeye2": Definition(
        "mindeye2",
        _named("mindeye2", NSD_PAPERS),
        replace(PLAIN, antialias=False),
        "As MindEye2 computed them: by way of 256 pixels, resized without antialiasing, which was "
        "torchvision 0.16's default for tensors.",
    ),
    "brain-diffuser": Definition(
        "brain-diffuser",
        _named("brain-diffuser", BRAIN_DIFFUSER),
        Look(first=None, side=224, pillow=True, pixels_bicubic=True),
        "As Brain-Diffuser computed them: 8-bit pictures resized by Pillow, all networks at 224 "
        "pixels, EfficientNet-B1 with its first weights, and SSIM column by column of pixels, as "
        "scikit-image 0.17 reads a grey image with multichannel=True.",
    ),
    "mind-vis": Definition(
        "mind-vis",
        _named("mind-vis", MIND_VIS),
        Look(pillow=True),
        "As MinD-Vis computed them: rates against all other images, and the class that ViT-H/14 "
        "finds in the shown image among 50, as the mean over all draws.",
    ),
    "seed": Definition(
        "seed",
        _named("seed", SEED),
        Look(first=None),
        "As SEED computes them: the categories that a detector finds at 18 thresholds, the "
        "cosine of sentences about both pictures, EfficientNet-B1, and the mean of the three. Its "
        "own numbers are those of MM-Grounding-DINO-L, GIT-large (COCO) and all-MiniLM-L6-v2.",
    ),
}


def definition(name: str) -> Definition:
    """Return a paper's definition by its name; others are refused with the names there are."""
    if name not in DEFINITIONS:
        raise UserError(
            f"There are no scores as {name!r} defines them; choose one of "
            f"{', '.join(DEFINITIONS)}, or leave it out."
        )
    return DEFINITIONS[name]
