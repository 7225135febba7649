"""Counterfactual pairs: effects that are planted are found, what pairs share by chance is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from explorer.choosing import default_request
from explorer.evidence import critics
from explorer.evidence.counterfactual import (
    Contrast,
    counted,
    counterfactual,
    effects,
    interval,
    read_pairs,
    reliable,
)
from explorer.protocols import Counterfactual
from explorer.types import UserError

N, V = 30, 40
PARCELS = np.array([np.arange(V) < 20, (np.arange(V) >= 20) & (np.arange(V) < 39)])


def differences(seed: int, planted: float) -> np.ndarray:
    """Return pairs that share a pattern in the first parcel, and nothing in the second."""
    rng = np.random.default_rng(seed)
    pattern = np.where(np.arange(V) < 20, np.resize([planted, -planted], V), 0)
    return pattern + rng.standard_normal((N, V))


def test_the_effect_is_what_all_pairs_share_without_bias() -> None:
    found = np.mean(
        [effects(differences(s, 0.5), PARCELS).mean(axis=0) for s in range(60)], axis=0
    )
    assert found[0] == pytest.approx(0.25, abs=0.02)  # its signs differ between voxels
    assert found[1] == pytest.approx(0, abs=0.005)
    d = differences(0, 0.5)[:3]  # three pairs by hand
    first = d[0] * (d[1] + d[2]) / 2
    assert effects(d, PARCELS)[0, 1] == pytest.approx(first[PARCELS[1]].mean())
    assert np.isnan(effects(d, np.zeros((1, V), bool))).all()


def test_the_interval_over_pairs_holds_the_truth_as_often_as_it_says() -> None:
    held = []
    for seed in range(120):
        _, low, high = interval(effects(differences(seed, 0.5), PARCELS)[:, 0])
        held.append(low <= 0.25 <= high)
    assert np.mean(held) > 0.88
    # halved, as if pairs were independent, it holds the truth far less often
    found = [effects(differences(seed, 0.5), PARCELS)[:, 0] for seed in range(120)]
    narrow = [abs(f.mean() - 0.25) < 1.96 * f.std() / np.sqrt(N) for f in found]
    assert np.mean(narrow) < np.mean(held)


def contrasts() -> list[Contrast]:
    """Return two concepts: parcel a answers to the first, b to whatever is there."""

    def each(a: float, b: float, seed: int) -> np.ndarray:
        noise = 0.02 * np.random.default_rng(seed).standard_normal((N, 3))
        return np.array([a, b, np.nan]) + noise

    return [
        Contrast("face", replaced=each(0.25, 0.0, 1), removed=each(0.36, 0.3, 2)),
        Contrast("tool", replaced=each(0.0, 0.0, 3), removed=each(0.04, 0.3, 4)),
    ]


def test_areas_of_the_plain_contrast_survive_only_against_the_distractor() -> None:
    found = counterfactual(contrasts(), ["a", "b", "blind"], ["blind"])
    assert found.sentence == (
        "Of 4 concept areas in the plain contrast (with the concept against without it; 2 "
        "concepts, 2 parcels), 1 survive against a distractor; of 1 further parcels the encoding "
        "model predicts too little to say anything."
    )
    rows = found.table.set_index("of")
    assert list(rows.index) == ["a", "b"] and found.unit == "SD"
    assert rows.loc["a", "concepts"] == "face" and rows.loc["b", "concepts"] == "none"
    assert rows.loc["a", "value"] == pytest.approx(np.sqrt(0.125), abs=0.02)
    assert rows.loc["b", "object removed"] == pytest.approx(np.sqrt(0.3), abs=0.02)
    assert rows.loc["a", "low"] > 0.3 and rows.loc["b", "low"] < 0.06
    few = counterfactual([Contrast("x", c.replaced[:5], c.removed[:5]) for c in contrasts()[:1]],
                         ["a"], [])  # fmt: skip
    assert few.sentence.endswith("With 5 pairs of a concept that is no evidence yet.")
    none = counterfactual(contrasts(), ["a"], ["a"])
    assert "nothing can be said" in none.sentence and not len(none.table)


def test_only_voxels_that_are_predicted_count() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.standard_normal((200, 1000))
    measured = rng.standard_normal((200, 1000))
    measured[:, :100] += predicted[:, :100]
    found = reliable(measured, predicted)
    assert found[:100].all() and found[100:].mean() < 0.03
    parcels = np.zeros((3, 1000), bool)
    parcels[0, :50] = parcels[1, 100:400] = parcels[2, 95:104] = True
    some, few = counted(parcels, found)
    assert few.tolist() == [False, True, True]  # of the last, nine voxels at most
    assert some[0].sum() == 50


def test_pairs_that_are_given_are_asked_of_the_encoding_model(predicting: Any, fakes: Any) -> None:
    request = default_request(predicting.catalogue, "fake", "sub-01", 0)
    names = list(predicting.catalogue.gallery("fake", "sub-01").index)
    assert not list(critics._counterfactuals(predicting, request, names, ()))  # it makes none
    images = [fakes.picture(f"train-{i:02d}") for i in range(12)]
    pairs = [Counterfactual("warm", *images[3 * i : 3 * i + 3]) for i in range(4)]
    (found,) = critics._counterfactuals(predicting, request, names, pairs)
    assert set(found.table["N"]) == {4} and found.name == "counterfactual pairs"
    with pytest.raises(UserError, match="A concept needs two pairs or more"):
        list(critics._counterfactuals(predicting, request, names, pairs[:1]))


def test_a_folder_of_pairs_is_read_and_a_lacking_picture_named(tmp_path: Path) -> None:
    for i, (concept, pair) in enumerate((("face", "1"), ("face", "2"), ("tool", "x"))):
        place = tmp_path / concept / pair
        place.mkdir(parents=True)
        for k, (role, ending) in enumerate(
            (("present", "png"), ("removed", "jpg"), ("Replaced", "png"))
        ):
            picture = np.full((8, 8, 3), 40 * i + 10 * k, np.uint8)
            Image.fromarray(picture).save(place / f"{role}.{ending}")
    found = read_pairs(tmp_path)
    assert [pair.concept for pair in found] == ["face", "face", "tool"]
    assert found[2].present[0, 0, 0] == 80 and found[2].replaced[0, 0, 0] == 100
    (tmp_path / "face" / "2" / "removed.jpg").unlink()
    with pytest.raises(UserError, match="2 has no picture called removed; each pair has present"):
        read_pairs(tmp_path)
    with pytest.raises(UserError, match="holds no pairs, expected CONCEPT/PAIR/"):
        read_pairs(tmp_path / "nowhere")
