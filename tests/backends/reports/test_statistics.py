"""The report on statistics: its verdicts on p that are known to be right or wrong."""

import numpy as np
import pandas as pd
import pytest

from backends.reports.statistics import controls, on_truth, under_null
from explorer.evidence.inference import Randomised, Reliability
from explorer.evidence.statistics import SubjectMap

NAN = float("nan")


def test_uniform_p_hold_and_others_do_not():
    rng = np.random.default_rng(0)
    p = rng.random(2000)
    tests = pd.DataFrame(
        {
            "subject": np.repeat(["a", "b"], 1000),
            "study": np.tile(np.repeat(np.arange(25), 40), 2),
            "p_evidence": p,
            "q_evidence": 1.0,
            "p_place": p**2,
            "q_place": np.where(np.arange(2000) % 80 == 7, 0.01, 0.9),
        }
    )
    evidence, place = under_null(tests)
    assert evidence["KS p"] > 0.05 > place["KS p"] and evidence["parcel tests"] == 2000
    assert evidence["studies"] == 50 and evidence["false discovery rate of BH at 5 %"] == 0
    assert place["false discovery rate of BH at 5 %"] == 0.5  # every other study has one
    assert place["p at most 0.05"] == pytest.approx(np.sqrt(0.05), abs=0.03)
    assert evidence["at most"] == pytest.approx(0.05 + 1.96 * np.sqrt(0.05 * 0.95 / 50))


def test_power_and_false_discoveries_are_counted():
    truth = pd.DataFrame(
        {"role": ["informative", "informative", "white noise", "shared noise"]},
        index=["v1 L", "v1 R", "motor L", "motor R"],
    )
    table = pd.DataFrame(
        {
            "parcel": ["motor R", "v1 R", "v1 L", "motor L", "elsewhere L"],
            "q_evidence": [0.04, 0.01, 0.2, 0.5, 0.01],
            "q_place": [0.9, 0.9, 0.9, 0.9, NAN],
        }
    )
    found = SubjectMap(
        *("simulated", "subj01", "ridge", "atlas", "gradient", "retrieval margin", "enrichment"),
        *(table, np.zeros(3), {}, 10, 4, 2, 100, (0.9, 0.8, 1.0), "", "null"),
        Reliability("repeats", (), 0.9, ""),
        Reliability("seeds", (), NAN, ""),
        Randomised(0.1, -0.3, 0.3, True, ""),
    )
    line = on_truth(found, truth)
    assert line["evidence: power"] == 0.5 and line["evidence: controls found"] == 0.5
    assert line["evidence: false among found"] == 0.5
    assert line["place: power"] == 0 and line["place: false among found"] == 0
    assert (line["informative"], line["controls"]) == (2, 2)
    told = controls(found)
    assert told["within"] == "yes" and told["95 % of permutations"] == (-0.3, 0.3)
    assert told["banner"] == "none" and told["correlation of repeats"] == 0.9
