"""The judge names what it sees, and its shipped weights keep what the issue of a judge asks."""

from pathlib import Path

import numpy as np

from backends.datasets.simulated import Simulated
from backends.simulation.judge import PocketJudge, names
from backends.simulation.scenes import CATEGORIES, SETTINGS

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"


def test_names_follow_the_largest_logit_and_the_summed_probability():
    categories = list(CATEGORIES)
    logits = np.full((1, len(categories) + len(SETTINGS)), -9.0)
    logits[0, categories.index("pizza")] = 1.0
    for animal in (c for c, s in CATEGORIES.items() if s == "animal"):
        logits[0, categories.index(animal)] = 0.9  # four together outweigh the pizza
    logits[0, len(categories) + SETTINGS.index("desert")] = 3.0
    said = names(logits)
    assert said == {"category": ["pizza"], "supercategory": ["animal"], "setting": ["desert"]}


def test_the_shipped_judge_knows_the_test_images():
    study = Simulated()
    stimuli = list(study.truth("subj01").stimuli)
    said = PocketJudge(CHECKPOINTS).classify([study.image(s) for s in stimuli])
    scenes = [study.scene(s) for s in stimuli]
    right = np.mean(
        [s.supercategory == x for s, x in zip(scenes, said.supercategory, strict=True)]
    )
    assert len(stimuli) >= 300 and right >= 0.97  # chance 1/6
