"""S2_figureImage.mat: the real file with its known answer, and a miniature."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from backends.datasets.miyawaki import Miyawaki2008
from backends.datasets.miyawaki_series import Miyawaki2008S2
from explorer.types import UserError
from tests.miniatures.miyawaki import write_means, write_series

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
REAL = SHARED / "miyawaki2008_v1_figure" / "V1_mean_figure.mat"
SERIES = SHARED / "miyawaki2008_s2_timeseries" / "S2_figureImage.mat"


@pytest.fixture
def real() -> Miyawaki2008:
    if not REAL.exists():
        pytest.skip(f"{REAL.name} is not in ../shared/data")
    return Miyawaki2008(REAL, "miyawaki2008")


@pytest.fixture
def series_file() -> Path:
    if not SERIES.exists():
        pytest.skip(f"{SERIES.name} is not in ../shared/data")
    return SERIES


def nearest_centroid(trials) -> int:  # noqa: ANN001
    """Count blocks whose best correlated centroid of the other runs is their own figure's."""
    betas, table = np.asarray(trials.betas), trials.table
    right = 0
    for run in table["run"].unique():
        others = (table["run"] != run).to_numpy()
        names = sorted(table["stimulus"].unique())
        centroids = [
            betas[others & (table["stimulus"] == n).to_numpy()].mean(axis=0) for n in names
        ]
        held = betas[~others]
        similar = np.corrcoef(held, np.stack(centroids))[: len(held), len(held) :]
        found = np.array(names)[similar.argmax(axis=1)]
        right += int((found == table["stimulus"].to_numpy()[~others]).sum())
    return right


@pytest.mark.parametrize(("betas", "right"), [("mean", 40), ("glm", 39)])
def test_time_series_known_answer(series_file, betas, right):
    trials = Miyawaki2008S2(series_file, "m", betas=betas).load("S2")
    assert trials.betas.shape == (40, 910)
    assert nearest_centroid(trials) == right  # of 40, chance 8
    assert "z-scored within run" in trials.beta_unit
    # voxels shuffled within each run break it, so the count can fail
    shuffled = np.random.default_rng(0).permuted(np.asarray(trials.betas), axis=1)
    assert nearest_centroid(SimpleNamespace(betas=shuffled, table=trials.table)) < 20


def test_time_series_on_plain_z_scores_too(series_file):
    """The known answer as it was first stated: z-scored per run, without taking out a trend."""
    study = Miyawaki2008S2(series_file, "m")
    file, (blocks, _), table = study._file, study._blocks, study.load("S2").table
    scored = np.concatenate(
        [(s - s.mean(axis=0)) / s.std(axis=0) for s in (file.series[b:e] for b, e in file.runs)]
    )
    means = np.stack([scored[b + 2 : min(e + 2, 130 * run)].mean(axis=0) for run, b, e in blocks])
    assert nearest_centroid(SimpleNamespace(betas=means, table=table)) == 40


def test_time_series_trials_places_and_areas(series_file):
    study = Miyawaki2008S2(series_file.parent, "m")
    trials = study.load("S2")
    table = trials.table
    # in the file's first run: square, small frame, plus, cross, large frame, plus ...
    first = ["square8x8", "smallFrame8x8", "plus8x8", "cross8x8", "largeFrame8x8", "plus8x8"]
    assert table["stimulus"][:6].tolist() == first
    assert (table.groupby(["run", "stimulus"]).size() == 2).all()
    assert table["split"].tolist() == ["train"] * 30 + ["test"] * 10
    assert sorted(table.loc[table.split == "train", "repeat"].unique()) == list(range(6))
    rois = trials.subject.voxels.parcellations["ROIs"]
    sizes = dict(zip([x.key for x in rois.labels], rois.membership.sum(axis=1), strict=True))
    assert sizes == {"V1d L": 338, "V1v L": 243, "V1d R": 243, "V1v R": 229}
    # the left hemisphere lies at negative x
    x = trials.subject.maps["voxel_x"]
    assert x[rois.membership[0]].mean() < -5 < 5 < x[rois.membership[2]].mean()
    said = " ".join(study.remarks())
    assert "40 blocks of 5 figures in 4 runs, 910 voxels of V1" in said
    assert "S2_outlierVoxInd.mat, the authors' choice of 899 voxels, is not applied" in said
    assert Miyawaki2008S2.recognise(series_file) and Miyawaki2008S2.recognise(series_file.parent)
    assert not Miyawaki2008.recognise(series_file)
    assert "drawn from their names" in study.note and "split is by run" in study.note


def test_figures_are_drawn_as_the_2008_file_shows_them(real, series_file):
    study = Miyawaki2008S2(series_file, "m")
    for name, caption in study.stimuli["caption"].items():
        shown = real.stimuli.index[real.stimuli["caption"] == caption][0]
        np.testing.assert_array_equal(study.image(name), real.image(shown))
    with pytest.raises(UserError, match="has the stimuli square8x8, .* not 'circle'"):
        study.image("circle")
    with pytest.raises(UserError, match="has the subject S2, not 'S1'"):
        study.load("S1")


def test_matlab_counts_from_one(tmp_path):
    write_series(tmp_path / "S2_figureImage.mat")
    study = Miyawaki2008S2(tmp_path, "m")
    assert study._file.runs == [(0, 14), (14, 28)]
    np.testing.assert_array_equal(
        study._file.shown[:14], [-1, -1, 1, 1, 1, -1, -1, 2, 2, 2, -1, -1, -1, -1]
    )
    trials = study.load("S2")
    assert trials.table["stimulus"].tolist() == ["plus8x8", "cross8x8"] * 2
    rois = trials.subject.voxels.parcellations["ROIs"]
    assert [label.key for label in rois.labels] == ["V1d L", "V1"]
    np.testing.assert_array_equal(np.flatnonzero(rois.membership[1]), [0, 5])


@pytest.mark.parametrize(
    ("replace", "sentence"),
    [
        ({"labels_names": ["rest", "plus8x8", "circle"]}, "condition 'circle', of which no pict"),
        ({"xyz": np.zeros((5, 3))}, "has 6 voxels and 28 volumes, D/xyz 5 voxels"),
        ({"data": np.full((6, 28), np.nan)}, "D/data holds values that are not finite"),
        ({"rois_inds": None}, "not laid out as S2_figureImage.mat"),
    ],
)
def test_another_series_is_refused(tmp_path, replace, sentence):
    write_series(tmp_path / "a.mat", **replace)
    with pytest.raises(UserError, match=sentence):
        Miyawaki2008S2(tmp_path / "a.mat", "m").load("S2")


def test_what_is_no_series_is_refused(tmp_path):
    write_means(tmp_path / "V1_mean_figure.mat")
    with pytest.raises(UserError, match=r"holds no MATLAB 7.3 file with D/data"):
        Miyawaki2008S2(tmp_path, "m")
    write_series(tmp_path / "a.mat")
    with pytest.raises(UserError, match="betas is one of mean, glm, not 'b3'"):
        Miyawaki2008S2(tmp_path, "m", betas="b3")
    data = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(data[: len(data) // 2])
    assert not Miyawaki2008S2.recognise(tmp_path / "a.mat")
