"""The embedded study's further test sets and harder subjects: all that is claimed of them."""

import hashlib
import shutil

import numpy as np
import pytest
import torch

from backends.datasets.simulated import SHIPPED, Simulated
from backends.embedders.pocket import PocketClip
from backends.generators.pocket import IMAGE
from backends.mappers.ridge import Ridge
from backends.simulation.brains import trial_noise
from backends.simulation.cortex import NCSNR_FACTOR
from backends.simulation.held_out import SETS, STYLES, picture, sample_held_out
from backends.simulation.imagery import WEAKNESS, imagined, partners
from backends.simulation.scenes import CATEGORIES, GROUND, SETTINGS, group_extent, sample_scenes
from backends.simulation.shipping import write
from backends.simulation.study import Recipe, Study
from explorer import metrics
from explorer.types import UserError

CHECKPOINTS = SHIPPED.parents[1] / "checkpoints"
TINY = Recipe(seed=11, n_train=12, n_test=24, subjects=("subj01",), scale=0.4, n_reference=24)
# Of the four first subjects' betas, truth and test pictures, before there were more subjects.
FIRST_FOUR = "4bb3fa05865fe64216112ba7932e0679c3c1386bf4314861b157e7ae8cc7bcb9"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    write(Study(TINY, folder / "cache"), folder / "study")
    return folder


def opened(place, **part):
    return Simulated(place / "study", cache=place / "cache", **part)


def test_the_first_four_subjects_are_what_they_always_were():
    digest = hashlib.sha256()
    names = [f"sub-0{i}" for i in range(1, 5)]
    folders = [SHIPPED / n for n in names] + [SHIPPED / "truth" / n for n in names]
    for folder in (*folders, SHIPPED / "stimuli"):
        for file in sorted(folder.iterdir()):
            digest.update(f"{folder.name}/{file.name}".encode() + file.read_bytes())
    assert digest.hexdigest() == FIRST_FOUR


@pytest.mark.parametrize("subject", sorted(NCSNR_FACTOR))
def test_ridge_of_the_harder_subjects_is_right_as_often_as_is_said(subject):
    study = Simulated()
    trials = study.load(subject)
    ridge = Ridge.from_pretrained(CHECKPOINTS / "mappers" / "simulated" / f"ridge-{subject}")
    rows = trials.rows("test")
    table = trials.table.iloc[rows].reset_index(drop=True)
    betas = np.asarray(trials.betas[rows])
    shown = trials.stimuli("test")
    known = study.known_embeddings(shown, IMAGE, PocketClip.fingerprint_of(CHECKPOINTS))
    place = {stimulus: row for row, stimulus in enumerate(shown)}
    number = table["stimulus"].map(place).to_numpy()
    averaged = np.zeros((len(shown), betas.shape[1]), np.float32)
    np.add.at(averaged, number, betas / 3)

    def scores(given, index):
        with torch.inference_mode():
            found = ridge(torch.from_numpy(given), subject)[IMAGE].numpy()
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        pairs = metrics.correlation_matrix(found, known)
        two_way = metrics.identification(pairs, index).mean()
        return two_way, metrics.top_k(metrics.cosine_matrix(found, known), index, 1)

    two_way, first = scores(averaged, np.arange(len(shown)))
    assert 0.80 <= two_way <= 0.90
    assert 0.05 <= first <= 0.20
    single, single_first = scores(betas, number)
    assert single < two_way - 0.08
    assert single_first < first / 2
    study_easy = study.truth("subj01").information.mean()
    assert study.truth(subject).information.mean() < study_easy / 8


def test_what_is_held_out_occurs_in_no_training_picture():
    shown = sample_held_out(30, 10)
    by_set = {name: [s for s in shown if s.test_set == name] for name in (*SETS, *STYLES)}
    assert [len(some) for some in by_set.values()] == [30] * 3 + [10] * 4
    trained = sample_scenes(600, 7)  # as all training pictures, those of the pocket models too
    assert {s.category for s in trained} == set(CATEGORIES)
    assert {s.setting for s in trained} == set(SETTINGS)
    new = by_set["new categories"]
    assert len({s.scene.category for s in new}) == 8
    assert not {s.scene.category for s in new} & set(CATEGORIES)
    assert {s.scene.setting for s in new} <= set(SETTINGS)
    new = by_set["new settings"]
    assert len({s.scene.setting for s in new}) == 4
    assert not {s.scene.setting for s in new} & set(SETTINGS)
    assert {s.scene.category for s in new} <= set(CATEGORIES)
    pairs = [s for s in by_set["new combinations"] if s.other]
    high = [s.scene for s in by_set["new combinations"] if not s.other]
    assert len(pairs) == len(high) == 15
    assert all(s.scene.supercategory != s.other.supercategory for s in pairs)

    def feet(scene):
        return scene.y + group_extent(scene.count, scene.size)[1]

    assert max(map(feet, high)) < GROUND <= min(map(feet, trained)) + 1e-9


def test_each_set_has_a_name_in_the_table_and_ordinary_images_have_none(place):
    study = opened(place, part="generalisation")
    stimuli = study.stimuli
    held = stimuli.index.str.startswith("held-out-")
    assert set(stimuli["test_set"][held]) == {*SETS, *STYLES}
    assert (stimuli["test_set"][~held] == "").all() and (~held).sum() == TINY.n_test
    trials = study.load("subj01")
    assert (trials.table.groupby("stimulus").size() == 2).all()
    assert sorted(trials.stimuli("test")) == sorted(stimuli.index)
    textures = stimuli[stimuli["test_set"] == "OOD textures"]
    assert (textures["category"] == "").all() and (textures["caption"] != "").all()
    main = opened(place).load("subj01")
    stimulus = "test-0005"
    two = main.betas[main.rows("test", stimulus, (0, 1))]
    np.testing.assert_array_equal(trials.betas[trials.rows("test", stimulus)], two)
    assert "test_set" not in opened(place).stimuli


def test_the_response_follows_from_the_picture_that_is_shown(place):
    study = opened(place, part="generalisation")
    made, (shown, *_) = Study(TINY, place / "cache"), sample_held_out(2, 14)
    trials, brain = study.load("subj01"), made.brain("subj01")
    clean = made.noiseless("subj01", "generalisation")
    np.testing.assert_allclose(study.truth("subj01").noiseless[: len(clean)], clean, atol=1e-5)
    row = trials.rows("test", "held-out-003", (1,))
    expected = clean[2] + trial_noise(brain, [(2, 2, 1)])[0]
    np.testing.assert_allclose(trials.betas[row][0], expected, atol=0.05)
    stored = study.image("held-out-001").astype(int)
    assert np.abs(stored - picture(shown)).mean() < 6
    from backends.simulation.features import GROUPS

    features = made.features("generalisation").astype(float)
    sets = study.stimuli["test_set"].to_numpy()[: len(features)]
    silent = {
        "category": ("new categories", "OOD textures"),
        "supercategory": ("OOD textures",),
        "setting": ("new settings", "OOD silhouettes", "OOD textures"),
        "number": ("OOD textures",),
    }
    for group, names in silent.items():
        quiet = (features[:, GROUPS[group]] == 0).all(axis=1)
        assert quiet.tolist() == np.isin(sets, names).tolist(), group
    assert (features[:, GROUPS["energy"]].max(axis=1) > 0).all()


def test_the_planted_weakness_of_imagery_is_in_its_truth():
    imagery, seen = Simulated(part="imagery"), Simulated(part="imagery", task="vision")
    for subject in ("subj01", "subj06"):
        truth, shown = imagery.truth(subject), seen.truth(subject)
        assert truth.stimuli == shown.stimuli and len(truth.stimuli) == 24
        base = truth.voxels["baseline"].to_numpy()
        strength = (truth.voxels["ncsnr"] * truth.voxels["noise_sd"]).to_numpy()
        other = np.load(SHIPPED / "truth" / "imagery" / f"sub-0{subject[-1]}" / "partners.npy")
        on = strength > 0
        assert ((other >= 0) == on).all() and (other != np.arange(len(other)))[on].all()
        z, y = ((t.noiseless - base)[:, on] / strength[on] for t in (shown, truth))
        z, y = z.astype(float), y.astype(float)
        back = np.full(len(on), -1)
        back[on] = np.arange(on.sum())
        z_other = z[:, back[other[on]]]
        areas = truth.voxels["parcel"].str.rpartition(" ")[0].to_numpy()[on]
        for area, planted in WEAKNESS.items():
            here = areas == area
            design = np.stack([z[:, here].ravel(), z_other[:, here].ravel()], axis=1)
            own, away = np.linalg.lstsq(design, y[:, here].ravel(), rcond=None)[0]
            assert np.hypot(own, away) == pytest.approx(planted.gain, rel=0.04), area
            assert away**2 / (own**2 + away**2) == pytest.approx(planted.shift, abs=0.04), area


def test_imagined_trials_are_of_the_scenes_that_were_seen(place):
    imagery = opened(place, part="imagery")
    vision = opened(place, part="imagery", task="vision")
    one, two = imagery.load("subj01"), vision.load("subj01")
    assert set(one.stimuli("test")) == set(two.stimuli("test")) == set(imagery.stimuli.index)
    assert imagery.stimuli["category"].is_unique
    assert (set(one.table["task"]), set(two.table["task"])) == ({"imagery"}, {"vision"})
    assert one.subject.voxels.hash == two.subject.voxels.hash
    assert "imagined" in imagery.note and "seen" in vision.note
    main, stimulus = opened(place).load("subj01"), two.stimuli("test")[3]
    first = main.betas[main.rows("test", stimulus, (0, 1))]
    np.testing.assert_allclose(two.average(stimulus), first.mean(axis=0), rtol=1e-5)
    assert not np.allclose(one.average(stimulus), two.average(stimulus), atol=0.5)
    brain = Study(TINY, place / "cache").brain("subj01")
    controls = ~brain.informative
    flat = imagined(brain, np.asarray(main.betas[:4]))[:, controls]
    np.testing.assert_allclose(flat, np.tile(brain.baseline[controls], (4, 1)), rtol=1e-5)
    for parcel in set(brain.parcels[brain.informative]):
        here = np.flatnonzero(brain.parcels == parcel)
        assert sorted(partners(brain)[here]) == here.tolist()


def test_a_part_or_task_that_there_is_not_is_one_sentence(place):
    with pytest.raises(UserError, match="part is one of main, generalisation, imagery; found 'x'"):
        opened(place, part="x")
    with pytest.raises(UserError, match="task is one of imagery, vision; found 'attention'"):
        opened(place, part="imagery", task="attention")
    with pytest.raises(UserError, match="task is for part=imagery; leave it out"):
        opened(place, task="vision")


@pytest.mark.parametrize(
    ("part", "file", "values", "said"),
    [
        ("imagery", "imagery/sub-01/scale.npy", np.ones(3, np.float32), "needs .* numbers above"),
        ("imagery", "imagery/sub-01/betas.npy", np.ones((2, 3), np.int8), r"holds int8 \(2, 3\)"),
        ("generalisation", "generalisation/sub-01/betas.npy", np.ones((1, 1)), "expected int8"),
        ("imagery", "truth/imagery/sub-01/noiseless.npy", np.ones((1, 1), np.int8), "expected"),
    ],
)
def test_damaged_files_of_a_part_are_one_sentence(place, part, file, values, said):
    path = place / "study" / file
    sound = path.read_bytes()
    try:
        np.save(path, values)
        study = opened(place, part=part)
        with pytest.raises(UserError, match=said):
            study.load("subj01")
            study.truth("subj01")
    finally:
        path.write_bytes(sound)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("test_set", "sets", "lacks the column 'test_set'"),
        ("held-out-002\t", "test-0002\t", "names the stimulus 'test-0002'; ids of held-out"),
    ],
)
def test_a_damaged_table_of_held_out_pictures_is_one_sentence(place, tmp_path, old, new, said):
    shutil.copytree(place / "study", tmp_path / "s")
    file = tmp_path / "s" / "generalisation" / "stimuli" / "stimuli.tsv"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=said):
        _ = Simulated(tmp_path / "s", part="generalisation").stimuli


def test_embeddings_of_held_out_pictures_lie_ready():
    study, clip = Simulated(part="generalisation"), PocketClip(CHECKPOINTS)
    ids = ["held-out-120", "test-0004", "held-out-001"]
    rows = study.known_embeddings(ids, IMAGE, clip.fingerprint)
    drawn = clip.embed([study.image(stimulus) for stimulus in ids], IMAGE)
    np.testing.assert_allclose(rows, drawn, atol=1e-3)
    assert study.known_embeddings(ids, IMAGE, "other weights") is None
