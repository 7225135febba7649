"""Test sets beside a data set's own: imagined images, and further sets of the bars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from explorer.choosing import default_request
from explorer.evidence import imagined as module
from explorer.evidence.critique import generalisation, pairwise
from explorer.evidence.image_sets import further
from explorer.evidence.imagined import imagined_of, seen_against_imagined
from explorer.request import Request
from explorer.types import Trials, UserError
from explorer.workbench import Workbench

N, D = 60, 30


def planted(noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    targets = np.random.default_rng(0).standard_normal((N, D))
    return targets + noise * np.random.default_rng(seed).standard_normal((N, D)), targets


def test_the_difference_is_paired_and_the_verdict_keeps_to_it() -> None:
    (seen, targets), (weak, _), (none, _) = planted(1, 1), planted(3, 2), planted(1e3, 3)
    found = seen_against_imagined(seen, weak, targets, 2)
    assert found.sentence.endswith(
        "so something of what was imagined is decoded, and less than of what was seen."
    )
    rows = found.table.set_index("of")
    assert rows.loc["imagined: two-way", "value"] == pytest.approx(
        np.nanmean(pairwise(weak, targets))
    )
    assert set(rows["pool"]) == {N} and rows.loc["seen: top-1", "chance"] == pytest.approx(1 / N)
    blind = seen_against_imagined(seen, none, targets, 2)
    assert blind.sentence.endswith("so nothing shows that what was imagined is decoded.")
    same = seen_against_imagined(seen, seen, targets, 2)
    assert "(difference 0.0 points, 0.0 to 0.0): so something" in same.sentence
    few = seen_against_imagined(seen[:8], weak[:8], targets[:8], 1)
    assert few.sentence.endswith(
        "too few images to say more. With 8 test images that is no evidence yet."
    )


# --------------------------------------------------------------------------- over a study of fakes


class Beside:
    """A study whose test images were also imagined, and two new pictures of its own."""

    def __init__(self, study: type, **shift: Any) -> None:
        self.study, self.shift = study, shift

    def make(self) -> type:
        shift = self.shift

        class Study(self.study):
            def __init__(self, path: Any = None, name: str = "fake", part: str = "main") -> None:
                super().__init__(path, name)
                self.part = part
                if part == "new":
                    sets = [f"set {i % 2}" for i in range(len(self.stimuli))]
                    self.stimuli = self.stimuli.assign(test_set=sets)

            def relatives(self) -> dict[str, dict[str, str]]:
                return {"seen": {"part": "seen"}, "imagined": {"part": "imagined"},
                        "new": {"part": "new"}}  # fmt: skip

            def load(self, subject: str) -> Trials:
                trials = super().load(subject)
                if self.part == "main":
                    return trials
                rows = trials.rows("train" if self.part == "new" else "test")[:12]
                table = trials.table.iloc[rows].reset_index(drop=True).assign(split="test")
                betas = trials.betas[rows] + shift.get(self.part, 0)
                if "voxels" in shift:  # another person's
                    other = super().load("sub-02").subject
                    return replace(trials, betas=betas, table=table, subject=other)
                return replace(trials, betas=betas, table=table)

        return Study


@pytest.fixture
def asked(make_workbench: Callable[..., Workbench], fakes: Any) -> Callable[..., Any]:
    def ask(**shift: Any) -> tuple[Workbench, Request]:
        bench = make_workbench(datasets={"fake": Beside(fakes.Study, **shift).make()})
        return bench, default_request(bench.catalogue, "fake", "sub-01", 0, mapper="linear")

    return ask


def test_what_was_imagined_is_decoded_from_its_own_trials(asked: Callable[..., Any]) -> None:
    bench, request = asked()
    found = imagined_of(bench, request).table.set_index("of")["value"]
    assert found["seen: two-way"] == found["imagined: two-way"] > 0.9  # the same betas
    rng = np.random.default_rng(0)
    bench, request = asked(imagined=1e3 * rng.standard_normal((12, 200)))
    other = imagined_of(bench, request).table.set_index("of")["value"]
    assert other["seen: two-way"] == found["seen: two-way"] > other["imagined: two-way"] + 0.1


def test_as_many_repeats_are_averaged_of_both(
    asked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, request = asked()
    table = bench.catalogue.trials("fake", "sub-01").table
    rows = table.index[table["split"] == "test"][:12]
    counts = table.loc[rows, "stimulus"].value_counts()
    asked_for, usual = [], module.decoded

    def listen(*given: Any) -> np.ndarray:
        asked_for.append(given[-1])
        return usual(*given)

    monkeypatch.setattr(module, "decoded", listen)
    told = imagined_of(bench, request).definition
    assert f"from {counts.min()} trial(s) of each that were seen" in told
    assert asked_for == [counts.min()] * 2 and counts.min() < counts.max()


def test_another_brain_is_refused(asked: Callable[..., Any]) -> None:
    bench, request = asked(voxels=True)
    with pytest.raises(UserError, match="so no mapper reads both; open both with the same"):
        imagined_of(bench, request)
    found, base = further(bench, request, [], np.zeros((0, 8)))
    assert not found and any("The test set new is not" in p for p in bench.catalogue.problems())


def test_further_sets_are_parted_by_name_and_compared_at_their_repeats(
    asked: Callable[..., Any], fakes: Any
) -> None:
    bench, request = asked()
    names = list(bench.catalogue.gallery("fake", "sub-01").index)
    targets = fakes.Embedder().embed([fakes.picture(name) for name in names])
    found, base = further(bench, request, names, targets)
    assert base == "all test images, 1 repeat(s)"  # training images were shown once
    assert list(found) == [base, "set 0", "set 1"]
    assert sum(len(p) for p, _ in list(found.values())[1:]) == 12
    trials = bench.catalogue.trials("fake", "sub-01")
    first = np.stack([trials.betas[trials.rows("test", name)[0]] for name in names])
    mapper = bench.models.mapper("fake", "sub-01", "linear")
    decoded = mapper.decode(first.astype(np.float32), "sub-01")[fakes.space]
    np.testing.assert_allclose(found[base][0], decoded, rtol=1e-5)


def test_a_further_set_is_held_against_its_base() -> None:
    (good, targets), (worse, _) = planted(0.5, 1), planted(3, 2)
    every = np.ones(N, bool)
    sets = {"base": (worse, targets), "new": (worse, targets)}
    told = generalisation(good, targets, {"all": every}, sets, "base").sentence
    assert told.endswith("; no set shows less than the first.")
    alone = generalisation(good, targets, {"all": every}, {"new": (worse, targets)}).sentence
    assert alone.endswith("; on new it is lower than on all.")
    small = {"few": (good[:5], targets[:5])}
    table = generalisation(good, targets, {"all": every}, small).table
    assert set(table["pool"]) == {2, N}  # five images are told of, and set no pool
    assert isinstance(table, pd.DataFrame) and "few: top-1" not in set(table["of"])
