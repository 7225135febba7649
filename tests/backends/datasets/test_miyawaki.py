"""Miyawaki 2008 in three forms: the real files with their known answers, and miniatures."""

from pathlib import Path
from types import SimpleNamespace

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io

from backends.datasets.miyawaki import (
    FIGURES,
    Miyawaki2008,
    Miyawaki2008Runs,
    Miyawaki2008S2,
    block_amplitudes,
    estimates,
    spans,
)
from explorer.types import UserError

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
REAL = SHARED / "miyawaki2008_v1_figure" / "V1_mean_figure.mat"
SERIES = SHARED / "miyawaki2008_s2_timeseries" / "S2_figureImage.mat"


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
    write(tmp_path / "V1_mean_figure.mat")
    assert Miyawaki2008(tmp_path, "m").load("S1").betas.shape == (16, 5)


def write(file: Path, **replace) -> None:
    """Write a small file of the same kind: 4 figures x 4 repeats, 5 voxels."""
    rng = np.random.default_rng(0)
    figures = rng.integers(0, 2, (100, 4)).astype(np.uint8)
    values = {"R2": rng.standard_normal((5, 16)), "I2": figures[:, np.tile(np.arange(4), 4)]}
    values = {k: v for k, v in {**values, **replace}.items() if v is not None}
    scipy.io.savemat(file, values)


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
    write(tmp_path / "other.mat", **replace)
    with pytest.raises(UserError, match=sentence):
        Miyawaki2008(tmp_path / "other.mat", "m").load("S1")


@pytest.mark.parametrize("keep", [0, 60, 128, 200, 700, 1200])
def test_a_file_cut_short_is_refused(tmp_path, keep):
    write(tmp_path / "whole.mat")
    (tmp_path / "cut.mat").write_bytes((tmp_path / "whole.mat").read_bytes()[:keep])
    with pytest.raises(UserError, match="is damaged or cut short|lacks the variable"):
        Miyawaki2008(tmp_path / "cut.mat", "m").load("S1")


def test_a_real_file_cut_short_is_refused(real, tmp_path):
    (tmp_path / "cut.mat").write_bytes(REAL.read_bytes()[:200_000])
    with pytest.raises(UserError, match="is damaged or cut short"):
        Miyawaki2008(tmp_path / "cut.mat", "m").load("S1")


def test_unknown_names_are_named(tmp_path):
    write(tmp_path / "V1_mean_figure.mat")
    study = Miyawaki2008(tmp_path, "m")
    with pytest.raises(UserError, match="m has the subject S1, not 'S2'"):
        study.load("S2")
    with pytest.raises(UserError, match="pattern-01 to pattern-04, not 'pattern-11'"):
        study.image("pattern-11")
    with pytest.raises(UserError, match="is missing; give the path of V1_mean_figure.mat"):
        Miyawaki2008(tmp_path / "nowhere", "m")


def test_the_file_is_known_by_its_variables(real, tmp_path):
    assert Miyawaki2008.recognise(REAL) and Miyawaki2008.recognise(REAL.parent)
    write(tmp_path / "V1_mean_figure.mat", R2=None)
    assert not Miyawaki2008.recognise(tmp_path)
    (tmp_path / "V1_mean_figure.mat").write_bytes(b"MATLAB 5.0")
    assert not Miyawaki2008.recognise(tmp_path)
    assert not Miyawaki2008.recognise(tmp_path / "nowhere")
    said = " ".join(real.remarks())
    assert "10 pictures in 80 trials" in said and "no test picture is new" in said


# ------------------------------------------------------------------------------- volumes to betas


def test_blocks_are_runs_of_one_picture():
    shown = np.array([-1, -1, 3, 3, 3, -1, 0, 0, 1, 1, -1, -1, 2])
    # two pictures without rest between them are two blocks; the last one is seen too late
    assert spans(shown) == [(2, 5), (6, 8), (8, 10)]
    assert spans(np.full(4, -1)) == []


def test_means_are_of_the_delayed_volumes_of_the_block():
    rng = np.random.default_rng(0)
    series = rng.standard_normal((40, 3)) + [100, 0, -5] + np.arange(40)[:, None] * [3, 0, 1]
    t = np.arange(40)
    trend = np.column_stack([np.ones(40), t])
    flat = series - trend @ np.linalg.lstsq(trend, series, rcond=None)[0]
    flat /= flat.std(axis=0)
    found = estimates(series, [(4, 7), (37, 40)], "mean")
    expected = [flat[6:9].mean(axis=0), flat[39:].mean(axis=0)]  # cut at the end of the run
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_still_voxel_is_zero():
    series = np.random.default_rng(0).standard_normal((20, 2)).astype(np.float32)
    series[:, 1] = 1234.5678
    assert (estimates(series, [(2, 5)], "mean")[:, 1] == 0).all()


def test_amplitudes_are_what_was_put_into_the_signal():
    """Responses made with nilearn's own haemodynamic response come back, overlap or not."""
    from nilearn.glm.first_level import compute_regressor

    parts, true = [(5, 8), (10, 13), (15, 21), (30, 36)], np.array([1.0, -2.0, 3.0, 0.5])
    frames = np.arange(60) * 2.0
    signal = np.zeros(60)
    for (begin, end), size in zip(parts, true, strict=True):
        condition = np.array([[begin * 2.0], [(end - begin) * 2.0], [1.0]])
        signal += size * compute_regressor(condition, "glover", frames)[0][:, 0]
    found = block_amplitudes(np.column_stack([signal, 2 * signal]), parts)
    np.testing.assert_allclose(found, true[:, None] * [1, 2], atol=1e-8)


# ------------------------------------------------------------------- the time series, real and not


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


def write_series(file: Path, **replace) -> None:  # noqa: ANN003
    """Write a small MATLAB 7.3 file: 2 runs of 14 volumes, cells as references, counted from 1."""
    names = ["test rest", "plus8x8", "cross8x8"]
    volumes = [[1, 2, 6, 7, 11, 12, 13, 14], [3, 4, 5], [8, 9, 10]]
    values = {
        "data": np.random.default_rng(0).standard_normal((6, 28)),
        "labels_names": names,
        "inds_conds": [[*at, *(14 + np.array(at))] for at in volumes],
        "inds_runs": np.array([[1.0, 14.0], [15.0, 28.0]]),
        "xyz": np.arange(18.0).reshape(6, 3),
        "rois_names": ["VOX_LH_V1d", "V1"],
        "rois_inds": [[1, 2], [1, 6]],
    }
    values = {k: v for k, v in {**values, **replace}.items() if v is not None}
    with h5py.File(file, "w") as h5:
        for key, value in values.items():
            if isinstance(value, np.ndarray):
                h5[f"D/{key}"] = value
                continue
            references = []
            for i, cell in enumerate(value):
                numbers = [ord(c) for c in cell] if isinstance(cell, str) else cell
                h5[f"#refs#/{key}{i}"] = np.array(
                    numbers, "u2" if isinstance(cell, str) else "f8"
                )[:, None]
                references.append(h5[f"#refs#/{key}{i}"].ref)
            h5[f"D/{key}"] = np.array(references, dtype=h5py.ref_dtype)[:, None]


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
    write(tmp_path / "V1_mean_figure.mat")
    with pytest.raises(UserError, match=r"holds no MATLAB 7.3 file with D/data"):
        Miyawaki2008S2(tmp_path, "m")
    write_series(tmp_path / "a.mat")
    with pytest.raises(UserError, match="betas is one of mean, glm, not 'b3'"):
        Miyawaki2008S2(tmp_path, "m", betas="b3")
    data = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(data[: len(data) // 2])
    assert not Miyawaki2008S2.recognise(tmp_path / "a.mat")


# ------------------------------------------------------------------------ the folder of nilearn

PLUS = "0000000000|0000110000|0000110000|0000110000|0111111110"
GRID = (5, 4, 3)


def pictures() -> dict[str, np.ndarray]:
    """Return pictures as a person sees them, bool (10, 10): three random ones and two figures."""
    rng = np.random.default_rng(3)
    top = np.array([[c == "1" for c in row] for row in PLUS.split("|")])
    letter = np.zeros((10, 10), bool)
    letter[2:8, 3] = letter[2, 3:7] = True  # an r: it tells rows from columns
    random = {f"random {i}": rng.random((10, 10)) > 0.5 for i in range(4)}
    return {**random, "plus": np.vstack([top, top[::-1]]), "r": letter}


def write_run(folder: Path, kind: str, number: int, order: list[str], **replace) -> np.ndarray:  # noqa: ANN003
    """Write a run as nilearn's archive has it: 3 volumes a block, 3 of rest; (t, X, Y, Z)."""
    rng = np.random.default_rng(number)
    shown = [None, None, *(p for name in order for p in [name] * 3 + [None] * 3)]
    # patches in column order, as MATLAB writes a picture out
    lines = [
        np.full(100, -1) if name is None else pictures()[name].T.ravel().astype(int)
        for name in shown
    ]
    (folder / "label").mkdir(parents=True, exist_ok=True)
    (folder / "func").mkdir(exist_ok=True)
    stem = f"data_{kind}_run{number:02d}"
    table = replace.get("label", np.stack(lines))
    np.savetxt(folder / "label" / f"{stem}_label.csv", table, fmt="%d", delimiter=",")
    volumes = (1000 + 30 * rng.standard_normal((len(shown), *GRID))).astype(np.int16)
    volumes[:, 0, 0, 0] = 500  # inside the mask, and still
    image = nibabel.Nifti1Image(np.moveaxis(volumes, 0, -1), AFFINE)
    nibabel.save(image, folder / "func" / f"{stem}.nii.gz")
    return volumes


AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


def write_folder(folder: Path) -> dict[tuple[str, int], np.ndarray]:
    """Write two random runs, two figure runs, the mask and three areas."""
    runs = {
        ("random", 1): write_run(folder, "random", 1, ["random 0", "random 1"]),
        ("random", 2): write_run(folder, "random", 2, ["random 2", "random 3"]),
        ("figure", 1): write_run(folder, "figure", 1, ["r", "plus"]),
        ("figure", 2): write_run(folder, "figure", 2, ["plus", "r"]),
    }
    mask = np.zeros(GRID, np.int16)
    mask[:3] = 1
    (folder / "mask").mkdir()
    for name, inside in {
        "mask": mask,
        "LHV1d": mask * (np.arange(5) == 1)[:, None, None],
        "RHV3A": mask * (np.arange(5) == 2)[:, None, None],
        "LHlag0to1": mask,
        "RHV4v": np.roll(mask, 3, axis=0) * (np.arange(5) > 2)[:, None, None],  # outside the mask
    }.items():
        image = nibabel.Nifti1Image(inside.astype(np.int16), AFFINE)
        nibabel.save(image, folder / "mask" / f"{name}.nii.gz")
    return runs


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
