"""The data curve: a planted gain a doubling is found, and a line that does not fit says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from explorer.choosing import default_request
from explorer.evidence import critics
from explorer.evidence.critique import pairwise
from explorer.evidence.data_curve import Point, data_curve, refitted, shares_of

N, D = 240, 60


def decoder(share_right: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions of which a share are the targets and the others noise, and targets."""
    targets = np.random.default_rng(0).standard_normal((N, D))
    wrong = np.random.default_rng(seed + 1).standard_normal((N, D))
    right = np.arange(N) < round(share_right * N)
    return np.where(right[:, None], targets, wrong), targets


def test_a_planted_gain_a_doubling_is_found() -> None:
    shares = {100: 0.3, 200: 0.4, 400: 0.5, 800: 0.6}
    points = [Point(n, decoder(share)[0]) for n, share in shares.items()]
    targets = decoder(0)[1]
    found = data_curve(points[::-1], targets, "a planted decoder")
    rows = found.table.set_index("of")
    for n, share in shares.items():
        right = rows.loc[f"{n} trials: top-1"]
        assert right["value"] == pytest.approx(share, abs=0.02) and right["trials"] == n
        fit = rows.loc[f"{n} trials: fit, top-1"]
        assert fit["value"] == pytest.approx(share, abs=0.02)
        assert fit["low"] < fit["value"] < fit["high"]
    assert rows.loc["100 trials: top-1", "chance"] == pytest.approx(1 / N)
    assert found.sentence.startswith("From 100 to 800 training trials, each doubling changes")
    assert "top-1 by 10.0 (" in found.sentence and "no straight line" not in found.sentence
    assert found.sentence.endswith("Nothing is said about more than 800.")
    assert found.curve == ("trials", "line")


def test_where_growth_ends_the_line_is_not_believed() -> None:
    shares = {100: 0.1, 200: 0.9, 400: 0.95, 800: 0.95, 1600: 0.95}
    points = [Point(n, decoder(share)[0]) for n, share in shares.items()]
    told = data_curve(points, decoder(0)[1], "x").sentence
    top = told.split("top-1 by ")[1]
    assert "no straight line: it misses a point by" in top
    assert "the last step changes 0.0 (0.0 to 0.0)" in top


def test_two_points_make_no_line() -> None:
    points = [Point(n, decoder(0.5)[0]) for n in (50, 100)]
    found = data_curve(points, decoder(0)[1], "ridge")
    assert found.sentence == "Ridge: too few numbers of trials for a line."
    assert not found.table["line"].str.startswith("fit").any() and len(found.table) == 4


def test_shares_are_nested_and_end_where_betas_do_not_fit(workbench: Any) -> None:
    trials = workbench.catalogue.trials("fake", "sub-01")
    test = set(trials.stimuli("test"))
    stimuli = [s for s in trials.stimuli("train") if s not in test]
    found = shares_of(trials, stimuli, 10**9)
    assert [len(some) for _, some in found] == [30, 60]  # fewer than 20 are no point
    assert set(found[0][1]) < set(found[1][1])
    rows = trials.table.iloc[trials.rows("train")]["stimulus"]
    assert [count for count, _ in found] == [rows.isin(some).sum() for _, some in found]
    v = trials.subject.voxels.n_voxels
    assert len(shares_of(trials, stimuli, found[1][0] * v - 1)) == 1


def test_a_share_is_fitted_to_its_stimuli_alone(workbench: Any, fakes: Any) -> None:
    trials = workbench.catalogue.trials("fake", "sub-01")
    test = set(trials.stimuli("test"))
    stimuli = [s for s in trials.stimuli("train") if s not in test][:25]
    (space,) = fakes.Embedder.spaces
    rows = fakes.Embedder().embed([fakes.picture(s) for s in stimuli])
    known = dict(zip(stimuli, rows, strict=True))  # the others have none: they would be missed
    betas = np.asarray(trials.betas[trials.rows("test")], np.float32)
    part = trials.table["stimulus"].isin([*stimuli, *test])
    alone = replace(
        trials,
        betas=trials.betas[part.to_numpy()],
        table=trials.table[part].reset_index(drop=True),
    )
    expected = fakes.Linear.fit([alone], {space: known}, seed=0).decode(betas, "sub-01")[space]
    made = refitted(fakes.Linear, trials, stimuli, known, space, betas)
    np.testing.assert_allclose(made, expected, rtol=1e-5)


def test_checkpoints_of_shares_are_the_points_where_there_are_three(
    workbench: Any, monkeypatch: Any
) -> None:
    request = default_request(workbench.catalogue, "fake", "sub-01", 0, mapper="linear")
    shares = {"linear": 1.0, "half": 0.5, "quarter": 0.25}
    monkeypatch.setattr(critics, "_by_share", lambda bench, request: list(shares.items()))
    asked = []

    def decoded(bench: Any, request: Any) -> tuple[list[str], np.ndarray]:
        asked.append(request.mapper)
        return [], np.random.default_rng(len(asked)).standard_normal((10, 8))

    monkeypatch.setattr(critics, "decoded_test", decoded)
    tested = np.eye(10, 8), np.eye(10, 8) + 0.1
    given = workbench, request, None, {}, tested, 10**9
    (found,) = critics._data_curve(*given)
    every = len(workbench.catalogue.trials("fake", "sub-01").rows("train"))
    counts = found.table["trials"].unique().tolist()
    assert counts == sorted(round(s * every) for s in shares.values())
    assert asked == ["half", "quarter"]
    own = np.nanmean(pairwise(*tested))
    assert found.table.set_index("of").loc[f"{every} trials: two-way", "value"] == own


def test_only_the_own_kind_trained_with_a_share_counts(workbench: Any) -> None:
    request = default_request(workbench.catalogue, "fake", "sub-01", 0, mapper="linear")
    assert critics._by_share(workbench, request) == [("linear", 1.0)]
