"""The report on guidance: its arithmetic, and that judging repeats never guide."""

from pathlib import Path

import numpy as np
import pytest

from backends import DATASETS, EMBEDDERS, ENCODERS, GENERATORS, MAPPERS
from backends.reports import guidance as report
from explorer.types import UserError
from explorer.workbench import Workbench

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"


@pytest.fixture
def on_fakes(monkeypatch):
    monkeypatch.setattr(report, "DATASET", "fake")
    monkeypatch.setattr(report, "GENERATOR", "painter")


def test_differences_are_paired_with_the_reference():
    rng = np.random.default_rng(0)
    base = rng.standard_normal(200) * 10
    scores = {
        "scale 2": {"SSIM": base, "PixCorr": base},
        "more": {"SSIM": base + 0.5, "PixCorr": base + rng.standard_normal(200) / 10},
    }
    rows = report.table(scores).set_index("pictures")
    assert rows.loc["scale 2", "SSIM"] == f"{base.mean():.3f}"
    # the same gain in every trial has no spread, however much the trials differ
    expected = f"{base.mean() + 0.5:.3f} (+0.500 [+0.500, +0.500])"
    assert rows.loc["more", "SSIM"] == expected
    low, high = rows.loc["more", "PixCorr"].split("[")[1].rstrip("])").split(", ")
    assert -0.03 < float(low) < 0 < float(high) < 0.03
    assert rows.loc["more", "N"] == 200


def test_patterns_are_correlated_over_the_chosen_voxels():
    rng = np.random.default_rng(1)
    mean, sd = rng.standard_normal(30) * 5, rng.random(30) + 0.5
    predicted, measured = rng.standard_normal((4, 30)), rng.standard_normal((4, 30))
    voxels = np.arange(30) < 12
    found = report.pattern_r(predicted, list(measured * sd + mean), mean, sd, voxels)
    expected = [
        np.corrcoef(a[:12], b[:12])[0, 1] for a, b in zip(predicted, measured, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_one_repeat_guides_and_the_others_judge(on_fakes, workbench):
    trials = report.gather(workbench, "sub-01", "linear", ("pericalcarine",), 3)
    every = workbench.catalogue.trials("fake", "sub-01")
    assert [trial.stimulus for trial in trials] == ["test-01", "test-02", "test-03"]
    for trial in trials:
        np.testing.assert_array_equal(trial.judging, every.average(trial.stimulus, (1,)))
        alone = every.average(trial.stimulus, (0,))[None]
        mapper = workbench.models.mapper("fake", "sub-01", "linear")
        (decoded,) = mapper.decode(alone, "sub-01").values()
        np.testing.assert_allclose(trial.target, decoded[0], rtol=1e-5)
        (given,) = trial.condition.embeddings.values()
        np.testing.assert_allclose(given, decoded[0], rtol=1e-5)
    assert trials[0].condition.voxels.sum() == 50  # 25 in each hemisphere


def test_the_shipped_model_is_measured_row_by_row():
    bench = Workbench(
        *(DATASETS, EMBEDDERS, MAPPERS, GENERATORS), checkpoints=CHECKPOINTS, encoders=ENCODERS
    )
    settings = {"scale 2": (2.0, {}), "scale 0": (0.0, {})}
    told = []
    rows = report.measure(
        *(bench, CHECKPOINTS, "subj01"), limit=3, steps=4, settings=settings, progress=told.append
    )
    assert rows["pictures"].tolist() == ["scale 2", "scale 0"] and set(rows["N"]) == {3}
    with_brain, without = (float(cell.split()[0]) for cell in rows["to target"])
    assert with_brain > 0.5 > without
    assert "(" not in rows["judge"][0] and "(-" in rows["to target"][1]
    assert [line.split(":")[0] for line in told] == ["scale 2", "scale 0"]


def test_parcels_are_chosen_by_name(on_fakes, workbench):
    assert report.roi(workbench, "sub-01", ()) is None
    both = report.roi(workbench, "sub-01", ("fusiform", "pericalcarine"))
    assert both.sum() == 100
    with pytest.raises(UserError, match="has no parcel 'V9'; it has .*fusiform"):
        report.roi(workbench, "sub-01", ("V9",))
