"""The table of four ways to fine-tune: rows against their reference, one difference at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from backends.generators.pocket import PocketDiffusion
from backends.reports.ablations import ABLATIONS, ablations, table
from explorer.types import UserError

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"


def test_the_table_pairs_a_row_with_its_reference():
    base = np.tile([0.0, 1.0], 50)
    scores = {"plain": {"category": base}, "tuned": {"category": np.ones(100)}}
    rows = table(scores, {"plain": "plain", "tuned": "plain"}).set_index("pictures")
    mean, interval = rows.loc["plain", "category"].split(" ", 1)
    low, high = json.loads(interval)
    assert mean == "0.500" and 0.36 < low < 0.45 and 0.55 < high < 0.64
    own, gain = rows.loc["tuned", "category"].split(" (")
    assert own == "1.000 [1.000, 1.000]" and gain.startswith("+0.500 [+0.4")
    assert rows["N"].tolist() == [100, 100]


def test_ablations_differ_in_one_thing_at_a_time():
    alignment, guidance, scales = zip(*ABLATIONS.values(), strict=True)
    assert alignment == ("none", "none", "encoder", "generator")
    assert guidance == (False, True, True, True)
    assert scales == (1.0, 3.0, 3.0, 3.0)


def test_a_study_with_other_categories_is_refused(make_workbench, tmp_path):
    bench = make_workbench(generators={"pocket-diffusion": PocketDiffusion})

    def tune(*arguments, **how):
        raise AssertionError("nothing may be trained")

    with pytest.raises(
        UserError, match="pocket-judge knows the categories of the simulated study"
    ):
        ablations(*(bench, CHECKPOINTS, "sub-01", tmp_path, tune), dataset="fake", mapper="linear")
