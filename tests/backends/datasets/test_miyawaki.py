"""The V1 means of Miyawaki et al. 2008: the real file with its known answer, and a miniature."""

from pathlib import Path

import numpy as np
import pytest

from backends.datasets.miyawaki import FIGURES, Miyawaki2008
from explorer.types import UserError
from tests.miniatures.miyawaki import write_means

REAL = (
    Path(__file__).resolve().parents[3].parent
    / "shared"
    / "data"
    / "miyawaki2008_v1_figure"
    / "V1_mean_figure.mat"
)


@pytest.fixture
def real() -> Miyawaki2008:
    if not REAL.exists():
        pytest.skip(f"{REAL.name} is not in ../shared/data")
    return Miyawaki2008(REAL, "miyawaki2008")


def nearest_neighbour(betas: np.ndarray, names: np.ndarray) -> float:
    """Share of trials whose most correlated other trial shows the same figure."""
    similar = np.corrcoef(betas)
    np.fill_diagonal(similar, -np.inf)
    return float(np.mean(names[similar.argmax(axis=1)] == names))


def test_known_answer(real):
    trials = real.load("S1")
    betas, names = np.asarray(trials.betas), trials.table["stimulus"].to_numpy()
    assert betas.shape == (80, 797)
    assert nearest_neighbour(betas, names) == 0.6625
    scored = (betas - betas.mean(axis=0)) / betas.std(axis=0)
    assert nearest_neighbour(scored, names) == 0.7625


def test_pictures_are_the_ten_figures_the_right_way_up(real):
    assert real.stimuli["caption"].tolist() == list(FIGURES)
    assert real.stimuli.index[0] == "pattern-01"
    letter_e = real.image("pattern-07")
    assert letter_e.shape == (160, 160, 3)
    assert set(np.unique(letter_e)) == {0, 255}
    small = letter_e[8::16, 8::16, 0] // 255
    drawn = ["".join("#" if on else "." for on in row[3:7]) for row in small[2:7]]
    assert drawn == ["####", "#..#", "####", "#...", "####"]
    # An r has its bar on top and its stem on the left: seen in row order it would not.
    letter_r = real.image("pattern-09")[8::16, 8::16, 0] // 255
    assert letter_r[2].sum() == 4
    assert letter_r[:, 3].sum() == 5


def test_the_last_two_of_each_figure_are_test(real):
    table = real.load("S1").table
    assert (table.groupby(["stimulus", "split"]).size().unstack() == [2, 6]).all(axis=None)
    for _, rows in table.groupby("stimulus"):
        assert rows["split"].tolist() == ["train"] * 6 + ["test"] * 2
        assert rows["repeat"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert real.split_unit == "repeat"
    assert "split is by repeat" in real.note
    assert "no locations" in real.note


def test_it_has_one_roi_and_no_locations(real):
    voxels = real.load("S1").subject.voxels
    assert voxels.projection is None
    assert [label.key for label in voxels.parcellations["ROIs"].labels] == ["V1"]
    assert voxels.parcellations["ROIs"].membership.all()


def test_ridge_reads_the_pixels_of_held_out_repeats(real):
    from backends.mappers.ridge import Ridge
    from explorer.types import EmbeddingSpace

    space = EmbeddingSpace("pixels", "10x10", (100,))
    pixels = {s: real.image(s)[8::16, 8::16, 0].ravel() / 255.0 for s in real.stimuli.index}
    trials = real.load("S1")
    mapper = Ridge.fit([trials], {space: pixels}, seed=0)
    rows = trials.rows("test")
    found = mapper.decode(trials.betas[rows], "S1")[space]
    candidates = np.stack([pixels[s] for s in real.stimuli.index])
    similar = np.corrcoef(found, candidates)[:20, 20:]
    names = real.stimuli.index[similar.argmax(axis=1)]
    assert np.mean(names == trials.table["stimulus"].iloc[rows]) > 0.6  # chance 0.1
    assert mapper.metrics["S1"][space.name]["cv_r2"] > 0.2


def test_a_folder_will_do(tmp_path):
    write_means(tmp_path / "V1_mean_figure.mat")
    assert Miyawaki2008(tmp_path, "m").load("S1").betas.shape == (16, 5)


@pytest.mark.parametrize(
    ("replace", "sentence"),
    [
        ({"R2": None}, "lacks the variable R2"),
        ({"R2": np.zeros((5, 7))}, r"I2 \(100, n\), found \(5, 7\) and \(100, 16\)"),
        ({"R2": np.full((5, 16), np.nan)}, "R2 holds values that are not finite"),
        ({"I2": np.eye(100, 16)}, "more than 2 repeats .* one has 1"),
    ],
)
def test_another_file_is_refused(tmp_path, replace, sentence):
    write_means(tmp_path / "other.mat", **replace)
    with pytest.raises(UserError, match=sentence):
        Miyawaki2008(tmp_path / "other.mat", "m").load("S1")


@pytest.mark.parametrize("keep", [0, 60, 128, 200, 700, 1200])
def test_a_file_cut_short_is_refused(tmp_path, keep):
    write_means(tmp_path / "whole.mat")
    (tmp_path / "cut.mat").write_bytes((tmp_path / "whole.mat").read_bytes()[:keep])
    with pytest.raises(UserError, match="is damaged or cut short|lacks the variable"):
        Miyawaki2008(tmp_path / "cut.mat", "m").load("S1")


def test_a_real_file_cut_short_is_refused(real, tmp_path):
    (tmp_path / "cut.mat").write_bytes(REAL.read_bytes()[:200_000])
    with pytest.raises(UserError, match="is damaged or cut short"):
        Miyawaki2008(tmp_path / "cut.mat", "m").load("S1")


def test_unknown_names_are_named(tmp_path):
    write_means(tmp_path / "V1_mean_figure.mat")
    study = Miyawaki2008(tmp_path, "m")
    with pytest.raises(UserError, match="m has the subject S1, not 'S2'"):
        study.load("S2")
    with pytest.raises(UserError, match="pattern-01 to pattern-04, not 'pattern-11'"):
        study.image("pattern-11")
    with pytest.raises(UserError, match="is missing; give the path of V1_mean_figure.mat"):
        Miyawaki2008(tmp_path / "nowhere", "m")


def test_the_file_is_known_by_its_variables(real, tmp_path):
    assert Miyawaki2008.recognise(REAL) and Miyawaki2008.recognise(REAL.parent)
    write_means(tmp_path / "V1_mean_figure.mat", R2=None)
    assert not Miyawaki2008.recognise(tmp_path)
    (tmp_path / "V1_mean_figure.mat").write_bytes(b"MATLAB 5.0")
    assert not Miyawaki2008.recognise(tmp_path)
    assert not Miyawaki2008.recognise(tmp_path / "nowhere")
    said = " ".join(real.remarks())
    assert "10 pictures in 80 trials" in said and "no test picture is new" in said
