"""The embedded study: what ships is what the code makes, and its truth is the truth."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from backends.datasets.simulated import SHIPPED, Simulated
from backends.simulation.brains import estimate_ncsnr, make_brain, trial_noise
from backends.simulation.features import features
from backends.simulation.imagery import partners
from backends.simulation.scenes import render
from backends.simulation.shipping import quantise, write
from backends.simulation.study import QUICK, Recipe, Study, scenes, stimulus_ids, trial_table
from explorer.types import UserError

CHECKPOINTS = SHIPPED.parents[1] / "checkpoints"
TINY = Recipe(
    seed=11, n_train=40, n_test=12, subjects=("subj01", "subj02"), scale=0.4, n_reference=24
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    said = []
    write(Study(TINY, folder / "cache"), folder / "study", said.append)
    assert any("subj02" in sentence for sentence in said)
    return folder


@pytest.fixture
def study(place) -> Simulated:
    return Simulated(place / "study", cache=place / "cache")


def test_it_says_that_it_is_simulated(study):
    assert study.simulated
    assert "imulated" in study.title
    assert "imulated" in study.note
    trials = study.load("subj01")
    assert trials.subject.simulated
    assert "simulated" in trials.beta_unit


def test_trials_are_the_shipped_test_rows_and_then_the_training_rows(study):
    trials = study.load("subj01")
    assert trials.betas.shape[0] == 12 * 3 + 40
    assert trials.table["split"].tolist() == ["test"] * 36 + ["train"] * 40
    assert trials.subject.voxels.projection is not None
    assert list(trials.subject.voxels.parcellations) == ["Desikan-Killiany"]
    sessions = trials.table[trials.table["split"] == "test"].groupby("stimulus")["session"]
    assert (sessions.nunique() == 3).all()


def test_training_rows_are_made_once_when_first_read_and_are_exact(place):
    said: list[str] = []
    cache = place / "other-cache"
    study = Simulated(place / "study", cache=cache, progress=said.append)
    trials = study.load("subj02")
    test_only = trials.betas[trials.rows("test")]
    assert not said
    assert not cache.exists()
    rows = trials.rows("train")
    some = trials.betas[rows[[5, 2]]]
    assert any("training trials of subj02" in sentence for sentence in said)
    made = Study(TINY, place / "third-cache").betas("subj02", "train")
    np.testing.assert_allclose(some, made[[5, 2]], rtol=1e-3, atol=1e-3)
    count = len(said)
    np.testing.assert_array_equal(trials.betas[rows[2]], some[1])
    assert len(said) == count
    assert test_only.dtype == some.dtype == np.float32
    files = sorted(p.name for p in cache.rglob("*") if p.is_file())
    assert files == ["features-reference.npy", "features-train.npy", "subj02-train.npy"]


def test_rows_of_both_kinds_in_any_order(study):
    betas = study.load("subj01").betas
    mixed = [60, 3, 35, 36, -1]
    together = betas[mixed]
    for i, row in enumerate(mixed):
        np.testing.assert_array_equal(together[i], betas[row])
    np.testing.assert_array_equal(betas[30:40], betas[np.arange(30, 40)])
    mask = np.isin(np.arange(len(betas)), [1, 50])
    np.testing.assert_array_equal(betas[mask], betas[[1, 50]])
    np.testing.assert_array_equal(betas[[1, 50], 7:9], betas[[1, 50]][:, 7:9])
    assert np.asarray(betas).shape == betas.shape


def test_the_truth_is_what_betas_are_without_their_noise(place, study):
    truth, trials = study.truth("subj01"), study.load("subj01")
    brain = Study(TINY, place / "cache").brain("subj01")
    np.testing.assert_allclose(truth.voxels["ncsnr"], brain.ncsnr, atol=1e-5)
    np.testing.assert_allclose(truth.information, brain.information, atol=1e-5)
    number = {s: i for i, s in enumerate(truth.stimuli)}
    for row in (0, 7, 35):
        stimulus, repeat = trials.table.loc[row, ["stimulus", "repeat"]]
        noise = trials.betas[row] - truth.noiseless[number[stimulus]]
        expected = trial_noise(brain, [(1, number[stimulus], int(repeat))])[0]
        np.testing.assert_allclose(noise, expected, atol=0.03)


def test_parcels_add_up_and_only_informative_ones_inform(study):
    truth = study.truth("subj02")
    for parcel, row in truth.parcels.iterrows():
        here = (truth.voxels["parcel"] == parcel).to_numpy()
        assert here.sum() == row["vertices"]
        assert row["information_sum"] == pytest.approx(truth.information[here].sum(), rel=1e-3)
        assert row["information_mean"] == pytest.approx(truth.information[here].mean(), rel=1e-3)
        assert (row["information_sum"] > 0) == (row["role"] == "informative")
        assert row["sentence"]
    assert truth.roles["fusiform L"] == "informative"
    assert truth.roles["insula R"] == "white noise"
    atlas = study.load("subj02").subject.voxels.parcellations["Desikan-Killiany"]
    keys = [atlas.labels[i].key for i in atlas.membership]
    assert keys == truth.voxels["parcel"].tolist()


def test_noiseless_trials_are_trials(study):
    clean, noisy = study.noiseless_trials("subj01"), study.load("subj01")
    assert clean.subject.voxels.hash == noisy.subject.voxels.hash
    assert clean.stimuli("test") == stimulus_ids(TINY, "test")
    np.testing.assert_array_equal(clean.average("test-0003"), study.truth("subj01").noiseless[2])


def test_ncsnr_of_the_subject_is_estimated_from_repeats(study):
    trials = study.load("subj01")
    order = trials.table[:36].sort_values(["stimulus", "repeat"]).index.to_numpy()
    expected = estimate_ncsnr(trials.betas[order].reshape(12, 3, -1))
    np.testing.assert_allclose(trials.subject.ncsnr, expected, atol=1e-3)


def test_pictures_and_scenes_belong_together(study):
    for stimulus, tolerance in (("test-0004", 6.0), ("train-00033", 0.0)):
        scene, picture = study.scene(stimulus), study.image(stimulus)
        assert picture.shape == (128, 128, 3)
        assert picture.dtype == np.uint8
        difference = np.abs(picture.astype(int) - render(scene).astype(int)).mean()
        assert difference <= tolerance
        assert study.stimuli.at[stimulus, "caption"] == scene.caption
        assert study.stimuli.at[stimulus, "category"] == scene.category
    np.testing.assert_array_equal(study.training_images(2)[1], study.image("train-00002"))
    assert len(study.scenes("train")) == 40
    assert study.stimuli.index.tolist() == [
        *stimulus_ids(TINY, "test"),
        *stimulus_ids(TINY, "train"),
    ]


def test_no_test_scene_is_a_training_or_reference_scene():
    seeds = {split: {s.seed for s in scenes(TINY, split)} for split in ("train", "test")}
    seeds["reference"] = {s.seed for s in scenes(TINY, "reference")}
    assert sum(map(len, seeds.values())) == len(set().union(*seeds.values()))


def test_writing_again_gives_the_same_bytes_and_leaves_nothing_behind(place, tmp_path):
    write(Study(TINY, tmp_path / "cache"), tmp_path / "again")
    first = sorted(p.relative_to(place / "study") for p in (place / "study").rglob("*"))
    second = sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*"))
    assert first == second
    for name in first:
        if (place / "study" / name).is_file():
            same = (place / "study" / name).read_bytes() == (
                tmp_path / "again" / name
            ).read_bytes()
            assert same, name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "cache"]
    assert oct((tmp_path / "again" / "sub-01" / "betas.npy").stat().st_mode)[-3:] == "644"


def test_quantising_loses_less_than_half_a_step():
    values = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32) * [1, 9, 0, 1e-4]
    for kind in (np.int16, np.int8):
        stored, scale = quantise(values, kind)
        assert stored.dtype == kind
        assert (np.abs(stored * scale - values) <= 0.5001 * scale).all()


def test_trials_of_a_full_study_fill_six_sessions_of_ten_runs():
    for split in ("train", "test"):
        table = trial_table(Recipe(), split)
        assert table["session"].value_counts().nunique() == 1
        assert set(table["session"]) == set(range(1, 7))
        assert set(table["run"]) == set(range(1, 11))


def test_bad_input_is_named(study, place, tmp_path):
    with pytest.raises(UserError, match="has the subjects subj01, subj02, not 'subj09'"):
        study.load("subj09")
    with pytest.raises(UserError, match="has no stimulus 'test-9999'"):
        study.scene("test-9999")
    with pytest.raises(UserError, match="has no stimulus 'train-x'"):
        study.image("train-x")
    description = json.loads((place / "study" / "dataset.json").read_text())
    plain = {k: v for k, v in description.items() if k != "recipe"}
    (tmp_path / "dataset.json").write_text(json.dumps(plain))
    with pytest.raises(UserError, match="is a plain folder, not the simulated data set"):
        Simulated(tmp_path)
    (tmp_path / "sub-01").mkdir()
    (tmp_path / "sub-02").mkdir()
    description["recipe"]["version"] = 0
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="made by version 0 of the simulation"):
        Simulated(tmp_path).study  # noqa: B018
    description["recipe"]["colour"] = "red"
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="disagree about 'colour'"):
        Simulated(tmp_path).study  # noqa: B018


def test_embeddings_that_lie_ready_are_those_of_the_pictures(place, shipped, tmp_path):
    from backends.embedders.pocket import PocketClip
    from backends.generators.gallery import Gallery

    clip, space = PocketClip(CHECKPOINTS), PocketClip.spaces[0]
    ids = ["train-00007", "train-00001", "train-04800"]
    rows = shipped.known_embeddings(ids, space, clip.fingerprint)
    drawn = clip.embed([shipped.image(stimulus) for stimulus in ids], space)
    np.testing.assert_allclose(rows, drawn, atol=1e-3)
    assert shipped.known_embeddings(ids, space, "other weights") is None
    assert shipped.known_embeddings(ids, PocketClip.spaces[1], clip.fingerprint) is None
    assert shipped.known_embeddings(["test-0001", *ids], space, clip.fingerprint) is None
    tested = ["test-0300", "test-0001"]
    exact = clip.embed([shipped.image(stimulus) for stimulus in tested], space)
    known = shipped.known_embeddings(tested, space, PocketClip.fingerprint_of(CHECKPOINTS))
    np.testing.assert_allclose(known, exact, atol=1e-4)
    assert PocketClip.fingerprint_of(tmp_path) == ""

    gallery = Gallery.of_training(shipped, "subj01")
    gallery.image = None  # no picture is drawn
    found = gallery.nearest(drawn[0], space, clip, k=1)[0]
    assert found.picture == ids[0] and found.similarity == pytest.approx(1, abs=1e-4)

    copy = tmp_path / "study"
    shutil.copytree(place / "study", copy)
    study = Simulated(copy)
    assert study.known_embeddings(["train-00001"], space, "mine") is None
    rows = {s: np.arange(128) * 1e-3 + i for i, s in enumerate(study.stimuli.index)}
    study.keep_embeddings(rows, space, "mine")
    for stimulus in ("train-00002", "test-0003"):
        found = study.known_embeddings([stimulus], space, "mine")
        np.testing.assert_allclose(found[0], rows[stimulus], rtol=1e-3)


def test_the_cache_goes_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("AFTERIMAGE_CACHE", str(tmp_path))
    assert Study(TINY).folder.parent == tmp_path
    assert Study(TINY).folder != Study(QUICK).folder
    assert not os.listdir(tmp_path)


# ---------------------------------------------------------------------------------- what ships


@pytest.fixture(scope="module")
def shipped() -> Simulated:
    if not (SHIPPED / "dataset.json").exists():
        pytest.skip("assets/simulated is not there; run: python -m backends build-demo")
    return Simulated()


def test_what_ships_is_small_enough_and_complete(shipped):
    files = [p for p in SHIPPED.parent.rglob("*") if p.is_file()]
    kept = {p for p in files if p.is_relative_to(SHIPPED.parent / "opening")}
    assert sum(p.stat().st_size for p in kept) <= 6_000_000
    assert sum(p.stat().st_size for p in files if p not in kept) <= 45_000_000
    assert shipped.study.recipe == Recipe()
    assert len(shipped.subjects()) == 6
    for subject in shipped.subjects():
        trials = shipped.load(subject)
        assert 3000 <= trials.subject.voxels.n_voxels <= 6000
        assert len(trials.stimuli("test")) >= 300
        assert len(trials.stimuli("train")) >= 4000
        assert (trials.table[: len(trials.rows("test"))].groupby("stimulus").size() == 3).all()
        roles = shipped.truth(subject).parcels["role"]
        for side in "LR":
            controls = roles[roles.index.str.endswith(side) & (roles != "informative")]
            assert len(controls) >= 8


def test_what_ships_is_what_the_code_makes(shipped, tmp_path):
    # Guards against a change of the renderer or of the simulation that forgets to build again.
    numbers = [0, 131, 299]
    shown = [shipped.scenes("test")[i] for i in numbers]
    for i, scene in zip(numbers, shown, strict=True):
        picture = shipped.image(f"test-{i + 1:04d}").astype(int)
        assert np.abs(picture - render(scene)).mean() < 6
    from backends.simulation.brains import noiseless

    brain = Study(Recipe(), tmp_path).brain("subj03")
    clean = noiseless(brain, features(shown))
    trials, truth = shipped.load("subj03"), shipped.truth("subj03")
    np.testing.assert_array_equal(truth.voxels["vertex"], brain.vertices)
    np.testing.assert_allclose(truth.noiseless[numbers], clean, atol=0.04)
    for i, one in zip(numbers, clean, strict=True):
        row = trials.rows("test", f"test-{i + 1:04d}", (2,))
        noisy = one + trial_noise(brain, [(1, i, 2)])[0]
        np.testing.assert_allclose(trials.betas[row][0], noisy, atol=0.01)
    # Strength and partners do not depend on the scenes that define the unit of a signal.
    harder = make_brain("subj06", 5, Recipe().seed, features(shown))
    truth = shipped.truth("subj06")
    np.testing.assert_allclose(truth.voxels["ncsnr"], harder.ncsnr, atol=1e-5)
    kept = np.load(SHIPPED / "truth" / "imagery" / "sub-06" / "partners.npy")
    np.testing.assert_array_equal(kept, partners(harder))


def test_ncsnr_that_ships_is_like_nsds(shipped):
    medians = []
    for subject in ("subj01", "subj02", "subj03", "subj04"):  # two more are harder on purpose
        truth = shipped.truth(subject)
        inside = truth.voxels["ncsnr"][truth.information > 0]
        medians.append(inside.median())
        assert ((inside > 0.15) & (inside < 1.0)).mean() > 0.9
        estimated = shipped.load(subject).subject.ncsnr
        assert np.median(estimated[truth.information == 0]) < 0.1
        assert np.median(estimated[truth.information > 0]) == pytest.approx(medians[-1], abs=0.03)
    assert 0.25 < np.median(medians) < 0.35
    assert max(medians) - min(medians) > 0.05


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("truth/sub-01/voxels.tsv", "baseline", "other", "lacks the column 'baseline'"),
        ("truth/sub-01/voxels.tsv", "\n", "\nx", "cannot be read as the truth of a simulation"),
        ("truth/parcels.tsv", "role", "other", "lacks the column 'role'"),
        ("dataset.json", '"n_train": ', '"n_train": 1e', "n_train is .*, expected a whole number"),
        ("dataset.json", '"scale": ', '"scale": -', "scale is -.*, expected a number above 0"),
        ("dataset.json", '"n_test": ', '"n_test": 99999999', "from 1 to 100000"),
    ],
)
def test_a_damaged_truth_or_recipe_is_one_sentence(place, tmp_path, file, old, new, said):
    shutil.copytree(place / "study", tmp_path / "s")
    text = (tmp_path / "s" / file).read_text()
    assert old in text
    (tmp_path / "s" / file).write_text(text.replace(old, new, 1))
    study = Simulated(tmp_path / "s", cache=tmp_path / "c")
    with pytest.raises(UserError, match=said):
        study.truth(study.subjects()[0])
        study.study  # noqa: B018


def test_what_is_damaged_in_the_cache_is_made_again(tmp_path):
    study = Study(TINY, tmp_path)
    sound = np.array(study.training_betas("subj01"))
    (file,) = study.folder.glob("subj01-train.npy")
    for data in (b"", file.read_bytes()[:-1], file.read_bytes()[:200]):
        file.write_bytes(data)
        assert np.array_equal(study.training_betas("subj01"), sound)
        assert np.array_equal(np.load(file), sound)
    np.save(file, sound[:-1])  # a sound file, of another recipe's length
    assert np.array_equal(study.training_betas("subj01"), sound)
