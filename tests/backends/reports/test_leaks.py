"""The audit before training: a planted copy is found, strangers are not, the threshold is told."""

from __future__ import annotations

import numpy as np
import pytest

from backends.reports.leaks import audit
from explorer.splits import usual_similarity
from explorer.types import UserError

TRAIN = [f"train-{i:02d}" for i in range(60)]
TEST = [f"test-{i:02d}" for i in range(10)]


class Study:
    """Random pictures; test-03 is train-07 under another id, test-04 cannot be read."""

    def image(self, stimulus: str) -> np.ndarray:
        if stimulus == "test-04":
            raise UserError("The picture of test-04 is not here.")
        seed = {"test-03": "train-07"}.get(stimulus, stimulus)
        rng = np.random.default_rng(list(seed.encode()))
        return rng.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)


@pytest.fixture
def features() -> np.ndarray:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((70, 32))
    rows[63] = rows[7] * 3  # test-03; only the direction counts
    return rows


def test_a_copy_is_found_and_its_picture_told(features: np.ndarray) -> None:
    first, *rest = audit(Study(), TRAIN, TEST, features, "toy/image")
    assert first.startswith(
        "Leak audit in toy/image: 1 of 10 test stimuli (10.0%; 1% is expected)"
    )
    assert "the closest is 'test-03', like 'train-07' (1.000)" in first
    (same,) = [s for s in rest if "have the picture of a training stimulus" in s]
    assert "'test-03', which is 'train-07'" in same


def test_a_placeholder_is_counted_in_training_too_and_said_once(features: np.ndarray) -> None:
    class Gone(Study):
        def image(self, stimulus: str) -> np.ndarray:
            return super().image("card" if stimulus in gone else stimulus)

    gone = {*TRAIN[:6], *TEST[5:8]}
    for stimulus in gone:
        features[[*TRAIN, *TEST].index(stimulus)] = features[0]
    said = list(audit(Gone(), TRAIN, TEST, features, "toy/image"))
    (card,) = [s for s in said if "a placeholder" in s]
    assert card.startswith("9 stimuli have one and the same picture")
    assert "3 of them test stimuli" in card
    (alone,) = audit(Gone(), TRAIN, TEST, features, "toy/image", compared=True)
    assert alone.startswith("Leak audit in toy/image: 4 of 10")


def test_a_picture_that_cannot_be_read_leaves_the_numbers(features: np.ndarray) -> None:
    features[64] = features[9]  # test-04
    sentences = list(audit(Study(), TRAIN, TEST, features, "toy/image"))
    assert "2 of 10 test stimuli" in sentences[0]


def test_strangers_are_told_to_be_strangers(features: np.ndarray) -> None:
    features[63] = np.random.default_rng(2).standard_normal(32)
    (only,) = audit(Study(), TRAIN, TEST, features, "toy/image")
    assert "no test stimulus is closer to a training stimulus than 99% of those" in only
    assert "N 10" in only


def test_the_threshold_is_of_training_stimuli_among_themselves() -> None:
    angle = np.radians([0.0, 10, 30, 60])
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    near = np.cos(np.radians([10, 10, 20, 30]))
    assert usual_similarity(rows) == pytest.approx(np.quantile(near, 0.99))
