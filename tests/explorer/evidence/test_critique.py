"""Planted decoders: one that knows the category alone is called that, a true one is not."""

from __future__ import annotations

import numpy as np
import pytest

from explorer.evidence import critique
from explorer.evidence.bottleneck import bottleneck
from explorer.evidence.collapse import collapse, participation_ratio, span_of_clusters
from explorer.evidence.critique import (
    by_other_brains,
    category_only,
    cluster_identification,
    generalisation,
    pairwise,
    rate,
    similarity_to_training,
)

D, KINDS, PER, TEST = 40, 8, 60, 20


class World:
    """Embeddings of 8 kinds: a centre each, and as much variation inside as between them."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.centres = 3 * rng.standard_normal((KINDS, D))
        self.trained = np.repeat(np.arange(KINDS), PER)
        self.training = self.centres[self.trained] + rng.standard_normal((len(self.trained), D))
        self.kinds = np.repeat(np.arange(KINDS), TEST)
        self.targets = self.centres[self.kinds] + rng.standard_normal((len(self.kinds), D))
        means = [self.training[self.trained == k].mean(axis=0) for k in range(KINDS)]
        self.by_class = np.stack(means)[self.kinds]
        self.by_class = self.by_class + 1e-3 * rng.standard_normal(self.by_class.shape)
        self.true = self.targets + 1.0 * rng.standard_normal(self.targets.shape)
        self.shuffled = self.true[rng.permutation(len(self.true))]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_pairs_are_won_lost_and_tied_as_two_way_counts_them() -> None:
    targets = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]])
    won = pairwise(np.array([[1.0, 0.1, 0], [1, 0.1, 0], [0, 0, 1]]), targets)
    assert np.isnan(np.diag(won)).all()
    assert won[0].tolist()[1:] == [1.0, 0.5]  # the third target is the first's equal
    assert won[1].tolist()[::2] == [0.0, 0.0]


def test_the_rate_of_other_brains_is_lower_for_an_image_unlike_the_rest() -> None:
    targets = np.array([[1.0, 0, 0], [1, 0.1, 0], [1, 0, 0.1], [-1, 0.1, 0.2]])
    blind = by_other_brains(targets, targets)
    assert blind[3] == 0 and blind[0] > 0.5  # nobody else's prediction is like the last one
    some = np.random.default_rng(0).standard_normal((5, 9))
    similar = np.corrcoef(some)  # by hand: how often target i beats target j with brain k
    by_hand = [
        np.mean([(similar[k] < similar[k, i]).sum() / 4 for k in range(5) if k != i])
        for i in range(5)
    ]
    np.testing.assert_allclose(by_other_brains(some, some), by_hand)


def test_participation_ratio_counts_even_directions() -> None:
    rng = np.random.default_rng(1)
    even = rng.standard_normal((20_000, 5)) @ np.eye(5, 12)
    assert participation_ratio(even) == pytest.approx(5, rel=0.01)
    line = np.outer(np.arange(50.0), np.ones(7))
    assert participation_ratio(line) == pytest.approx(1)
    assert np.isnan(participation_ratio(np.ones((4, 3))))


def test_the_span_is_that_of_the_means(world: World) -> None:
    basis = span_of_clusters(world.training, KINDS)
    assert basis.shape == (D, KINDS - 1)
    np.testing.assert_allclose(basis.T @ basis, np.eye(KINDS - 1), atol=1e-8)
    centred = world.centres - world.centres.mean(axis=0)
    inside = ((centred @ basis) ** 2).sum() / (centred**2).sum()
    assert inside > 0.97  # directions of unit vectors' clusters


def test_a_decoder_of_the_class_is_called_that_by_collapse(world: World) -> None:
    found = collapse(world.by_class, world.targets, world.training, KINDS)
    assert found.sentence.endswith("so they say little more than the cluster.")
    shares = found.table.set_index("of")["share in the span of cluster means"]
    assert shares["predictions"] > 0.97 > shares["targets"] + 0.05
    true = collapse(world.true, world.targets, world.training, KINDS)
    assert true.sentence.endswith("so they are more than cluster means.")


def test_within_its_clusters_a_decoder_of_the_class_guesses(world: World) -> None:
    by_class = cluster_identification(world.by_class, world.targets, world.kinds)
    other, same = (by_class.table.set_index("of").loc[n] for n in by_class.table["of"])
    assert other["value"] > 0.95 and same["low"] < 0.5 < same["high"]
    assert by_class.sentence.endswith("so nothing shows that it tells images apart within them.")
    true = cluster_identification(world.true, world.targets, world.kinds)
    assert true.sentence.endswith("so the decoder tells images apart also within them.")
    assert true.table.iloc[1]["low"] > 0.5


def test_rates_are_over_images_and_say_when_there_are_too_few(world: World) -> None:
    alone = cluster_identification(world.true[:30], world.targets[:30], range(30))
    assert alone.table.iloc[1]["N"] == 0
    assert "only 0 test images have another of their own among them" in alone.sentence
    few = cluster_identification(world.true[:6], world.targets[:6], [0, 0, 0, 1, 1, 1])
    assert "only 6 test images" in few.sentence
    assert (
        "With 6 test images that is no evidence yet."
        in collapse(world.true[:6], world.targets[:6], world.training).sentence
    )
    wide, narrow = (rate(np.tile([0.0, 1.0], n)) for n in (10, 1000))
    assert narrow.high - narrow.low < 0.1 < wide.high - wide.low


@pytest.mark.parametrize("seed", range(4))
def test_shuffled_brains_give_chance_in_every_bar(seed: int) -> None:
    world = World(seed)
    sets = {"all": np.ones(len(world.kinds), bool), "half": world.kinds < KINDS // 2}
    found = generalisation(world.shuffled, world.targets, sets)
    for row in found.table.to_dict("records"):
        assert row["value"] == pytest.approx(row["chance"], abs=0.08), row["of"]
    two_way = found.table[found.table["of"].str.contains("all: two-way")].iloc[0]
    assert two_way["low"] < 0.5 < two_way["high"]


def test_bars_compare_sets_at_one_size_of_the_pool(world: World) -> None:
    sets = {
        "all": np.ones(len(world.kinds), bool),
        "one kind": world.kinds == 3,
        "nobody": np.zeros(len(world.kinds), bool),
    }
    found = generalisation(world.by_class, world.targets, sets)
    rows = found.table.set_index("of")
    assert not any(name.startswith("nobody") for name in rows.index)
    assert set(rows["pool"]) == {2, TEST}
    assert rows.loc["all: two-way", "value"] > 0.9
    assert rows.loc["one kind: two-way", "low"] < 0.5 < rows.loc["one kind: two-way", "high"]
    assert rows.loc["all: top-1", "chance"] == pytest.approx(1 / TEST)
    same = generalisation(world.true, world.targets, {"a": sets["all"], "b": sets["all"]})
    wide = same.table.set_index("of")
    assert wide.loc["a: top-1", "value"] == wide.loc["b: top-1", "value"]
    # in a pool of all images, the probability is the plain top-1 rate
    won = pairwise(world.true, world.targets)
    assert wide.loc["a: top-1", "value"] == pytest.approx((np.nanmin(won, axis=1) == 1).mean())


def test_the_class_alone_is_a_row_beside_the_decoder(world: World) -> None:
    names = [f"kind {k}" for k in world.kinds]
    trained = [f"kind {k}" for k in world.trained]
    true = category_only(world.true, world.targets, names, world.training, trained)
    assert "so the decoder knows more than the class" in true.sentence
    alone = true.table.set_index("of").loc["category only", "value"]
    same = TEST - 1
    expected = (0.5 * same + (len(names) - TEST)) / (len(names) - 1)
    assert alone == pytest.approx(expected, abs=0.03)
    itself = category_only(world.by_class, world.targets, names, world.training, trained)
    assert "which does not differ beyond the interval" in itself.sentence
    worse = category_only(world.shuffled, world.targets, names, world.training, trained)
    assert "so knowing the class alone would do better" in worse.sentence
    none = category_only(world.true, world.targets, [""] * len(names), world.training, trained)
    assert "nothing to compare" in none.sentence and not len(none.table)


def test_what_comes_from_alike_training_images_is_seen(world: World) -> None:
    rng = np.random.default_rng(5)
    predicted = world.targets.copy()
    predicted[:80] = rng.standard_normal((80, D))  # nothing of the first half is decoded
    training = np.concatenate([world.training, world.targets[80:] + 0.01])
    found = similarity_to_training(predicted, world.targets, training, threshold=0.999)
    assert found.sentence.startswith("80 of 160 test images lie above the leak threshold of 0.999")
    assert found.sentence.endswith(
        "so part of the rate comes from training images that are alike."
    )
    rows = found.table.set_index("of")
    assert rows.loc["nearest quarter", "value"] > 0.99
    assert rows.loc["farthest quarter", "low"] < 0.5 < rows.loc["farthest quarter", "high"]
    even = similarity_to_training(world.true, world.targets, world.training, threshold=2)
    assert even.sentence.startswith("0 of 160") and even.sentence.endswith("no difference shows.")


def test_the_bottleneck_finds_how_many_dimensions_matter() -> None:
    rng = np.random.default_rng(2)
    v, inside = 60, 6
    carry = np.linalg.qr(rng.standard_normal((v, inside)))[0]
    seen = rng.standard_normal((300, inside))
    betas = 5 * seen @ carry.T + 0.1 * rng.standard_normal((300, v))
    targets = seen[200:] @ rng.standard_normal((inside, 12))
    weights = np.linalg.lstsq(betas[200:], targets, rcond=None)[0]
    found = bottleneck(
        lambda rows: rows @ weights, betas[200:], betas[:200], targets, (1, 2, 6, 20)
    )
    rows = found.table.set_index("of")["value"]
    assert rows["6 components"] == pytest.approx(rows["all dimensions"], abs=0.02)
    assert rows["1 components"] < 0.85 and rows["6 random"] < rows["6 components"] - 0.05
    assert "; 6 of 60 brain dimensions give 95 % of what all give" in found.sentence


def test_reduced_rank_is_the_mappers_own_map_and_has_a_ceiling() -> None:
    rng = np.random.default_rng(4)
    v, d, inside = 30, 20, 3
    weights = rng.standard_normal((v, inside)) @ rng.standard_normal((inside, d))
    training, betas = rng.standard_normal((200, v)), rng.standard_normal((150, v))
    targets = betas @ weights + 2 * rng.standard_normal((150, d))  # most of it no brain can say
    decode = lambda rows: rows @ weights + 1.5  # noqa: E731
    table = bottleneck(decode, betas, training, targets, (1, 3, 10), noiseless=betas).table
    rows = table.set_index("of")["value"]
    assert rows["3 reduced rank"] == pytest.approx(rows["all dimensions"], abs=1e-9)
    assert rows["1 reduced rank"] < rows["3 reduced rank"] < rows["3 ceiling"] <= 1
    assert "10 reduced rank" not in rows and "10 ceiling" not in rows  # the map has three
    assert rows["all dimensions, without noise"] == rows["all dimensions"]
    # by hand: the training fit's first direction alone
    fitted = decode(training)
    first = np.linalg.svd(fitted - fitted.mean(axis=0))[2][:1].T
    alone = (decode(betas) - fitted.mean(axis=0)) @ first @ first.T + fitted.mean(axis=0)
    assert rows["1 reduced rank"] == pytest.approx(np.nanmean(pairwise(alone, targets)))


def test_sets_of_other_images_stand_beside_those_of_these(world: World) -> None:
    other = World(9)
    sets = {"here": np.ones(len(world.kinds), bool)}
    found = generalisation(
        world.true, world.targets, sets, {"elsewhere": (other.shuffled, other.targets)}
    )
    assert set(found.table["pool"]) == {2, len(world.kinds)}
    assert found.sentence.endswith("; on elsewhere nothing shows beyond chance.")
    few = generalisation(
        world.true, world.targets, sets, {"few": (other.true[:5], other.targets[:5])}
    )
    assert few.sentence.endswith("(only 5 images).")  # and no verdict


def test_every_finding_has_a_definition_and_one_sentence(world: World) -> None:
    every = np.ones(len(world.kinds), bool)
    kinds, trained = world.kinds.astype(str), world.trained.astype(str)
    for found in (
        collapse(world.true, world.targets, world.training),
        cluster_identification(world.true, world.targets, world.kinds),
        similarity_to_training(world.true, world.targets, world.training, 0.9),
        category_only(world.true, world.targets, kinds, world.training, trained),
        generalisation(world.true, world.targets, {"all": every}),
    ):
        assert found.definition.endswith(".") and found.sentence.endswith(".")
        assert len(found.table) and critique.LEAST == 20
