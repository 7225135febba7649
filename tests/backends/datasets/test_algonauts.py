"""Algonauts 2023: every row keeps its image, every column its vertex, and nothing is unpickled."""

import numpy as np
import pytest

from backends.datasets.algonauts import Algonauts2023
from explorer.types import UserError
from tests.miniatures.algonauts import LEFT, RIGHT, TEST, TRAIN, write_algonauts

V = len(LEFT) + len(RIGHT)


@pytest.fixture
def root(tmp_path):
    write_algonauts(tmp_path)
    return tmp_path


def test_rows_are_the_images_that_their_files_name(root):
    study = Algonauts2023(root, "a")
    trials = study.load("subj01")
    assert trials.betas.shape == (len(TRAIN) + len(TEST), V)
    for stimulus, value in zip(trials.table["stimulus"], trials.betas[:, 0], strict=True):
        number = int(stimulus.removeprefix("nsd-"))
        assert number == int(study.stimuli.loc[stimulus, "source"]) == int(value)
        assert study.image(stimulus)[0, 0].tolist() == [number % 251, number // 251 % 251, 7]
    split = dict(zip(trials.table["stimulus"], trials.table["split"], strict=True))
    assert {int(s.removeprefix("nsd-")) for s in split if split[s] == "test"} == set(TEST)


def test_rows_come_in_any_order_and_from_both_splits(root):
    betas = Algonauts2023(root, "a").load("subj01").betas
    rows = np.array([13, 0, 12, 5])
    assert np.array_equal(betas[rows], betas[:][rows])


def test_left_vertices_come_first_and_only_those_of_fsaverage5_are_placed(root):
    subject = Algonauts2023(root, "a").load("subj01").subject
    placed = subject.voxels.projection.tocoo()
    where = dict(zip(placed.col.tolist(), placed.row.tolist(), strict=True))
    assert where == {0: 3, 1: 40, 2: 10_241, 5: 10_242, 6: 10_249}
    betas = Algonauts2023(root, "a").load("subj01").betas
    assert (betas[0][: len(LEFT)] < 1000).all() and (betas[0][len(LEFT) :] >= 1000).all()


def test_regions_have_the_names_that_the_pickles_hold(root):
    rois = Algonauts2023(root, "a").load("subj01").subject.voxels.parcellations["ROIs"]
    masks = dict(zip([label.name for label in rois.labels], rois.masks()[:-1], strict=True))
    assert set(masks) == {"OFA", "FFA-1", "FFA-2"}
    assert np.flatnonzero(masks["OFA"]).tolist() == [1, len(LEFT) + 1]


def test_a_ceiling_is_a_fraction(root):
    subject = Algonauts2023(root, "a").load("subj01").subject
    (ceiling,) = subject.maps.values()
    assert ceiling[[0, len(LEFT) - 1, len(LEFT), V - 1]] == pytest.approx([0.1, 0.9, 0.1, 0.9])
    file = root / "subj01" / "test_split" / "noise_ceiling" / "lh_noise_ceiling.npy"
    np.save(file, 100 * np.load(file))
    with pytest.raises(UserError, match="is a fraction from 0 to 1, found up to 90; divide per"):
        Algonauts2023(root, "a").load("subj01")
    np.save(file, np.full(len(LEFT), "a"))
    with pytest.raises(UserError, match="holds <U1 and has shape .*, expected numbers of"):
        Algonauts2023(root, "a").load("subj01")


def test_without_test_responses_some_training_images_are_held_out_and_it_is_said(tmp_path):
    write_algonauts(tmp_path, tested=False)
    study = Algonauts2023(tmp_path, "a")
    trials = study.load("subj01")
    assert trials.stimuli("test") == [f"nsd-{sorted(TRAIN)[9]:05d}"]
    assert len(trials.table) == len(TRAIN)
    assert "nsd-00100" in study.stimuli.index  # pictures alone
    assert "one in 10 of the training images is held out as test instead" in study.note
    assert any("2 test pictures have no responses here" in said for said in study.remarks())


def test_people_share_the_pictures_that_both_saw(root):
    write_algonauts(root, "subj02")
    study = Algonauts2023(root, "a")
    assert study.subjects() == ["subj01", "subj02"]
    assert len(study.stimuli) == len(TRAIN) + len(TEST)
    assert Algonauts2023(root / "subj02", "b").subjects() == ["subj02"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("drop a picture", "ranks go from 1 to 11 without gaps, and 3 is not there"),
        ("rename", "pictures here are named train-0001_nsd-00013.png; take others out"),
        ("beyond", "counts NSD's 73,000 images from 0, found 73000"),
        ("rows", "has 12 rows and 11 pictures lie in"),
        ("one side", "the left hemisphere has 12 rows and the right 11"),
        ("mask", "all-vertices mark 7 vertices of fsaverage and the responses have 8 columns"),
        ("numbers", "floc-faces has the numbers 1 to 5 .*, found 9"),
        ("pickle", "lh_training_fmri.npy"),
    ],
)
def test_what_does_not_fit_is_refused(root, spoil, message):
    folder = root / "subj01"
    pictures = folder / "training_split" / "training_images"
    files = sorted(pictures.iterdir())
    responses = folder / "training_split" / "training_fmri"
    if spoil == "drop a picture":
        files[2].unlink()
    elif spoil == "rename":
        files[0].rename(pictures / "picture.png")
    elif spoil == "beyond":
        files[-1].rename(pictures / "train-0012_nsd-73000.png")
    elif spoil == "rows":
        files[-1].unlink()
    elif spoil == "one side":
        np.save(responses / "rh_training_fmri.npy", np.zeros((11, len(RIGHT)), np.float32))
    elif spoil == "mask":
        file = folder / "roi_masks" / "lh.all-vertices_fsaverage_space.npy"
        mask = np.load(file)
        mask[3] = 0
        np.save(file, mask)
    elif spoil == "numbers":
        np.save(folder / "roi_masks" / "lh.floc-faces_challenge_space.npy", np.full(len(LEFT), 9))
    else:
        np.save(responses / "lh_training_fmri.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(UserError, match=message):
        Algonauts2023(root, "a").load("subj01")


def test_it_is_known_by_its_content_and_nothing_else_is(root, tmp_path):
    assert Algonauts2023.recognise(root)
    assert Algonauts2023.recognise(root / "subj01")
    assert not Algonauts2023.recognise(root / "subj01" / "roi_masks")
    with pytest.raises(UserError, match="expected folders subjXX with training_split/training_fm"):
        Algonauts2023(root / "subj01" / "roi_masks", "a")
