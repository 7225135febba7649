"""What must hold: each of the critics' tests, asked of decoders whose knowledge is planted.

One decoder knows the class alone, one knows the image, one knows neither.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from explorer.evidence.bottleneck import bottleneck
from explorer.evidence.collapse import collapse
from explorer.evidence.critique import (
    Finding,
    cluster_identification,
    generalisation,
    similarity_to_training,
)
from explorer.metrics import unit
from explorer.splits import usual_similarity

D, KINDS, NEW, PER, TEST = 40, 8, 4, 50, 40
SHUFFLES, POINTS = 20, 0.03


class Planted:
    """12 kinds, 8 of them trained; 40 test images of each."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        centres = 2 * rng.standard_normal((KINDS + NEW, D))
        trained = np.repeat(np.arange(KINDS), PER)
        self.training = centres[trained] + rng.standard_normal((len(trained), D))
        self.kinds = np.repeat(np.arange(KINDS + NEW), TEST)
        self.targets = centres[self.kinds] + rng.standard_normal((len(self.kinds), D))
        self.true = self.targets + rng.standard_normal(self.targets.shape)
        means = np.stack([self.training[trained == k].mean(axis=0) for k in range(KINDS)])
        # the class of what the brain says, which for a new kind is the nearest of those trained
        nearest = np.argmax(unit(self.true) @ unit(means).T, axis=1)
        self.by_class = means[nearest] + 1e-3 * rng.standard_normal(self.targets.shape)
        new = self.kinds >= KINDS
        self.sets = {"trained kinds": ~new, "new kinds": new}

    def bars(self, predicted: np.ndarray) -> Finding:
        return generalisation(predicted, self.targets, self.sets)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


def test_a_decoder_of_the_class_is_called_that_by_all_three(planted: Planted) -> None:
    known = planted.sets["trained kinds"]
    rows = planted.by_class[known], planted.targets[known]
    assert "little more than the cluster" in collapse(*rows, planted.training, KINDS).sentence
    within = cluster_identification(*rows, planted.kinds[known])
    assert "nothing shows that it tells images apart within" in within.sentence
    bars = planted.bars(planted.by_class)
    assert bars.sentence.endswith("; on new kinds it is lower than on trained kinds.")
    rates = bars.table.set_index("of")["value"]
    assert rates["new kinds: two-way"] < rates["trained kinds: two-way"] - 0.1


def test_a_decoder_that_knows_the_image_is_not(planted: Planted) -> None:
    known = planted.sets["trained kinds"]
    rows = planted.true[known], planted.targets[known]
    assert "more than cluster means" in collapse(*rows, planted.training, KINDS).sentence
    within = cluster_identification(*rows, planted.kinds[known])
    assert within.sentence.endswith("tells images apart also within them.")
    assert planted.bars(planted.true).sentence.endswith("; no set shows less than the first.")


def test_a_planted_duplicate_lies_above_the_threshold(planted: Planted) -> None:
    training = np.concatenate([planted.training, planted.targets[7:8] + 1e-4])
    threshold = usual_similarity(unit(training))
    args = planted.true, planted.targets
    found = similarity_to_training(*args, training, threshold)
    clean = similarity_to_training(*args, planted.training, threshold)
    counts = [int(one.sentence.split()[0]) for one in (found, clean)]
    assert counts[0] == counts[1] + 1


def averaged(planted: Planted, ask: Callable[[np.ndarray], pd.DataFrame]) -> pd.DataFrame:
    """Return a table whose values are means over brains that are shuffled again and again."""
    rng = np.random.default_rng(11)
    tables = [ask(planted.true[rng.permutation(len(planted.true))]) for _ in range(SHUFFLES)]
    values = np.mean([table["value"] for table in tables], axis=0)
    return tables[0].assign(value=values)


@pytest.mark.parametrize("test", ["bars", "clusters", "similarity"])
def test_shuffled_brains_give_chance_in_every_bar(planted: Planted, test: str) -> None:
    ask = {
        "bars": lambda p: planted.bars(p).table,
        "clusters": lambda p: cluster_identification(p, planted.targets, planted.kinds).table,
        "similarity": lambda p: (
            similarity_to_training(p, planted.targets, planted.training, 0.9).table
        ),
    }[test]
    table = averaged(planted, ask)
    for row in table.to_dict("records"):
        assert row["value"] == pytest.approx(row["chance"], abs=POINTS), row["of"]


def test_shuffled_brains_give_chance_at_every_bottleneck(planted: Planted) -> None:
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((60, D))
    training, betas = rng.standard_normal((80, 60)), rng.standard_normal((300, 60))
    targets = (betas @ weights)[rng.permutation(300)]
    table = bottleneck(lambda rows: rows @ weights, betas, training, targets, (2, 10)).table
    blind = table[table["line"] != "ceiling"]
    assert len(blind) == 7
    np.testing.assert_allclose(blind["value"], 0.5, atol=POINTS)


def test_noise_and_constants_are_not_called_more_than_cluster_means() -> None:
    """Their variance lies outside the span as well, and says nothing."""
    world, rng = Planted(), np.random.default_rng(9)
    noise = rng.standard_normal(world.targets.shape)
    for predicted in (noise, np.ones_like(noise) + 1e-9 * noise):
        said = collapse(predicted, world.targets, world.training, KINDS).sentence
        assert "more than cluster means" not in said
        assert "nothing shows that it is no noise" in said
