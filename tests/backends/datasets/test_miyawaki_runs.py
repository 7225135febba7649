"""nilearn's folder of Miyawaki et al. 2008, in miniature."""

import numpy as np
import pytest

from backends.datasets.miyawaki import Miyawaki2008
from backends.datasets.miyawaki_blocks import estimates
from backends.datasets.miyawaki_runs import Miyawaki2008Runs
from explorer.types import UserError
from tests.miniatures.miyawaki import AFFINE, GRID, pictures, write_folder, write_run


def test_runs_become_blocks(tmp_path):
    runs = write_folder(tmp_path / "miyawaki2008")
    assert Miyawaki2008Runs.recognise(tmp_path)
    assert Miyawaki2008Runs.recognise(tmp_path / "miyawaki2008")
    with pytest.raises(UserError, match="folder of runs opens as miyawaki2008-nilearn"):
        Miyawaki2008(tmp_path / "miyawaki2008", "m")
    study = Miyawaki2008Runs(tmp_path, "m")
    trials = study.load("S1")
    assert trials.table["stimulus"].tolist() == [
        *("random-01-01", "random-01-02", "random-02-01", "random-02-02"),
        *("figure-01", "figure-02", "figure-02", "figure-01"),
    ]
    assert trials.table["split"].tolist() == ["train"] * 4 + ["test"] * 4
    assert trials.table["session"].tolist() == [1] * 4 + [2] * 4
    assert trials.table["run"].tolist() == [1, 1, 2, 2] * 2
    assert trials.table["repeat"].tolist() == [0] * 6 + [1, 1]
    mask = np.zeros(GRID, bool)
    mask[:3] = True
    mask[0, 0, 0] = False  # the still voxel
    np.testing.assert_array_equal(trials.subject.voxels.mask, mask)
    np.testing.assert_array_equal(trials.subject.voxels.affine, AFFINE)
    assert trials.subject.voxels.projection is None
    # the second trial of figure run 2: volumes 8 to 10 of the run show it, seen 2 volumes later
    series = runs["figure", 2][:, mask]
    expected = estimates(series, [(8, 11)], "mean")[0]
    np.testing.assert_allclose(trials.betas[7], expected, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(trials.betas[[7, 0, 7]])[2], expected, rtol=1e-5)
    said = " ".join(study.remarks())
    assert "1 voxels of the mask are NaN or constant and masked out" in said
    assert "2 of 20 random runs are here" in said and "2 of 12 figure runs are here" in said


def test_pictures_of_runs_stand_upright(tmp_path):
    write_folder(tmp_path)
    study = Miyawaki2008Runs(tmp_path, "m")
    small = study.image("figure-01")[8::16, 8::16, 0] > 0
    np.testing.assert_array_equal(small, pictures()["r"])
    np.testing.assert_array_equal(
        study.image("random-02-01")[8::16, 8::16, 0] > 0, pictures()["random 2"]
    )
    assert study.stimuli.loc["figure-02", "caption"] == "plus"
    assert study.stimuli.loc["figure-01", "caption"] == "figure 01"
    assert study.stimuli.loc["random-01-01", "category"] == "random"
    with pytest.raises(UserError, match="no stimulus 'figure-09'; it has 6, such as random-01-01"):
        study.image("figure-09")
    with pytest.raises(UserError, match="has the subject S1, not 'S2'"):
        study.load("S2")


def test_areas_and_lag_bands_are_masks(tmp_path):
    write_folder(tmp_path)
    atlases = Miyawaki2008Runs(tmp_path, "m").load("S1").subject.voxels.parcellations
    sizes = {
        name: dict(zip([x.key for x in a.labels], a.membership.sum(axis=1), strict=True))
        for name, a in atlases.items()
    }
    assert sizes == {"ROIs": {"V1d L": 12, "V3A R": 12}, "lag bands": {"lag0to1 L": 35}}


def test_amplitudes_of_runs(tmp_path):
    write_folder(tmp_path)
    trials = Miyawaki2008Runs(tmp_path, "m", betas="glm").load("S1")
    assert "GLM" in trials.beta_unit
    assert trials.betas[2:4].shape == (2, 35)
    assert not np.allclose(trials.betas[2], Miyawaki2008Runs(tmp_path, "m").load("S1").betas[2])


def test_a_run_without_its_labels_is_left_out(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "label" / "data_random_run01_label.csv").unlink()
    study = Miyawaki2008Runs(tmp_path, "m")
    assert study.load("S1").table["stimulus"].tolist()[:2] == ["random-02-01", "random-02-02"]
    (tmp_path / "label" / "data_random_run02_label.csv").unlink()
    with pytest.raises(UserError, match="found 0 of random and 2 of figure; nilearn.datasets"):
        Miyawaki2008Runs(tmp_path, "m")


def test_labels_and_volumes_must_fit(tmp_path):
    write_folder(tmp_path)
    write_run(tmp_path, "random", 2, ["random 2"], label=np.full((5, 100), -1))
    with pytest.raises(UserError, match=r"needs shape \(5, 4, 3, 5\), .* found \(5, 4, 3, 8\)"):
        np.asarray(
            Miyawaki2008Runs(tmp_path, "m")._series(
                Miyawaki2008Runs(tmp_path, "m")._runs[1], np.ones(GRID, bool)
            )
        )
    write_run(tmp_path, "random", 2, ["random 2"], label=np.full((8, 64), 1))
    with pytest.raises(UserError, match="needs 100 columns of 1, 0, or -1 .* found 64 columns"):
        Miyawaki2008Runs(tmp_path, "m").load("S1")
    write_run(tmp_path, "random", 2, ["r"])
    with pytest.raises(UserError, match="random-02-01 is shown in random and in figure runs"):
        Miyawaki2008Runs(tmp_path, "m").load("S1")


def test_damaged_volumes_are_named(tmp_path):
    write_folder(tmp_path)
    file = tmp_path / "func" / "data_random_run02.nii.gz"
    file.write_bytes(file.read_bytes()[:-300])
    trials = Miyawaki2008Runs(tmp_path, "m").load("S1")
    assert np.isfinite(trials.betas[0]).all()
    with pytest.raises(UserError, match=r"data_random_run02.nii.gz is damaged or cut short"):
        trials.betas[2]
    (tmp_path / "mask" / "mask.nii.gz").unlink()
    with pytest.raises(UserError, match=r"mask.nii.gz is missing; nilearn"):
        Miyawaki2008Runs(tmp_path, "m").load("S1")
