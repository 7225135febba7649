"""What must hold of the embedded study: its truth, asked with fewer pairs and orders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backends import DATASETS, EMBEDDERS, ENCODERS, MAPPERS
from backends.reports import critique_truth
from backends.reports.critique_truth import planted
from explorer.types import UserError
from explorer.workbench import Workbench

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"


def test_the_planted_truth_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critique_truth, "PAIRS", 2)
    monkeypatch.setattr(critique_truth, "SHUFFLES", 6)
    monkeypatch.setattr(critique_truth, "TRAINED", 600)
    given = {"checkpoints": CHECKPOINTS, "encoders": ENCODERS}
    bench = Workbench(DATASETS, EMBEDDERS, MAPPERS, {}, **given)
    decoders, shuffled, copied, concepts = planted(bench, "simulated", ["subj01"]).values()
    said = decoders.set_index(["decoder", "test"])["it says"]
    assert "little more than the cluster" in said["class mean", "output-dimension collapse"]
    assert "more than cluster means" in said["ridge", "output-dimension collapse"]
    within = "identification within categories"
    assert "nothing shows that it tells images apart within" in said["class mean", within]
    assert said["ridge", within].endswith("tells images apart also within them.")
    assert "does not differ" in said["class mean", "category-only decoder"]
    assert "knows more than the class" in said["ridge", "category-only decoder"]
    assert shuffled["by (points)"].abs().max() <= 3 and shuffled["bars"].iloc[0] == 9
    assert copied["found"].tolist() == ["yes"]
    assert concepts["AUC, against the distractor"].iloc[0] >= 0.9
    assert concepts["concept parcels"].iloc[0] == 12 and concepts["others"].iloc[0] == 30
    assert concepts["control parcels told of"].iloc[0] == 0


def test_measured_data_have_no_truth(workbench: Any) -> None:
    with pytest.raises(UserError, match="fake has no planted truth; the simulated study has"):
        planted(workbench, "fake")
