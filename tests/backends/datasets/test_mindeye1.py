"""MindEye1's release: samples of shards as trials, their pictures, and what is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from backends.datasets.mindeye1 import MindEye1
from explorer.types import UserError
from tests.miniatures.mindeye1 import V, mindeye1, row, sample1, shard1, write_mindeye1
from tests.miniatures.shards import npy, write_tar


def test_mindeye1_rows_are_the_repeats_of_each_image(release1):
    trials = mindeye1(release1).load("subj01")
    table = trials.table
    assert trials.betas.shape == (3 + 2 + 1 + 2 + 3 + 2 + 3 + 2, V)
    everything = np.asarray(trials.betas)
    assert everything.dtype == np.float32
    numbers = table["stimulus"].str.removeprefix("nsd-").astype(int).to_numpy()
    np.testing.assert_array_equal(everything[:, 0], numbers % 1000)
    np.testing.assert_array_equal(everything[:, 1], table["repeat"])
    assert trials.stimuli("train") == [f"nsd-{n:05d}" for n in (7, 9, 11, 13, 15)]
    assert trials.stimuli("test") == ["nsd-72999", "nsd-00000", "nsd-00003"]
    assert table["part"][table["stimulus"] == "nsd-00015"].unique() == ["val"]
    assert "z-score within session" in trials.beta_unit


@pytest.mark.parametrize("number", [72999, 3])  # stored as [a, b, a] and as [a, a, b]
def test_mindeye1_never_counts_a_copied_repeat_twice(release1, number):
    trials = mindeye1(release1).load("subj01")
    expected = (row(number, 0) + row(number, 1)) / 2
    np.testing.assert_allclose(trials.average(f"nsd-{number:05d}"), expected)


def test_mindeye1_shards_come_in_the_order_of_their_numbers(tmp_path):
    root = write_mindeye1(tmp_path)
    for i, number in ((10, 21), (2, 23)):
        shard1(root, "train", i, [sample1(number)])
    order = mindeye1(root).load("subj01").stimuli("train")
    assert order[-3:] == ["nsd-00023", "nsd-00021", "nsd-00015"]


def test_mindeye1_pictures_are_those_of_the_sample_and_upright(release1):
    dataset = mindeye1(release1)
    for number in (7, 13, 72999):
        picture = dataset.image(f"nsd-{number:05d}")
        assert (picture.shape, picture.dtype) == ((16, 12, 3), np.uint8)
        assert abs(int(picture[2, 5, 0]) - (number % 200 + 50)) <= 3
        assert picture[13].max() <= 3


def test_mindeye1_png_and_a_folder_given_by_itself(tmp_path):
    root = write_mindeye1(tmp_path)
    stream = io.BytesIO()
    Image.new("L", (4, 4), 90).save(stream, "PNG")
    shard1(root, "train", 5, [sample1(40, jpg=None, png=stream.getvalue())])
    dataset = mindeye1(root / "webdataset_avg_split")
    assert dataset.image("nsd-00040").tolist() == [[[90] * 3] * 4] * 4


def test_mindeye1_remarks_name_what_is_missing(release1):
    dataset = mindeye1(release1)
    dataset.load("subj01")
    said = dataset.remarks()
    assert any("subj01: 16 of 21 shards are missing (train_subj01_2.tar" in r for r in said)
    assert any("subj01: 4 images in train, the release has 8559" in remark for remark in said)
    assert any("carry no locations" in remark for remark in said)
    assert not any("subj02" in remark and "images in train" in remark for remark in said)


def test_mindeye1_voxels_must_be_the_subjects(tmp_path):
    write_mindeye1(tmp_path, v=14278)
    with pytest.raises(UserError, match="14278 voxels, which is subj02's .* subj01 has 15724"):
        MindEye1(tmp_path, "study").load("subj01")
    write_mindeye1(tmp_path, v=15724)
    assert MindEye1(tmp_path, "study").load("subj01").betas.shape[1] == 15724


def test_mindeye1_two_subjects_in_one_are_refused(tmp_path):
    root = write_mindeye1(tmp_path)
    shard1(root, "train", 3, [sample1(50, v=V + 3)])
    with pytest.raises(UserError, match=r"has 6 voxels, .*has 9; two subjects' shards are mixed"):
        mindeye1(root).load("subj01")


def test_mindeye1_test_images_in_training_are_refused(tmp_path):
    root = write_mindeye1(tmp_path)
    write_tar(root / "webdataset_avg_split" / "test" / "test_subj02_0.tar", [sample1(9, v=V + 1)])
    # a test image of one subject is a test image of all
    with pytest.raises(UserError, match="trains on nsd-00009, which .*test_subj02_0.*tests on"):
        mindeye1(root).load("subj01")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"coco73k__npy": npy([73000])}, "is 73000; images are numbered from 0 to 72999"),
        ({"coco73k__npy": npy([-1])}, "is -1; images are numbered from 0"),
        ({"coco73k__npy": npy([1, 2])}, "needs one whole number, found int64"),
        ({"coco73k__npy": npy([7])}, "nsd-00007 is in .*_0.tar.* and in .*_4.tar"),
        ({"num_uniques__npy": npy([4])}, "num_uniques.npy is 4; an image has 1 to 3"),
        ({"num_uniques__npy": None}, "lacks the member num_uniques.npy"),
        ({"jpg": None}, "lacks the member jpg or png"),
        ({"num_uniques__npy": npy([2])}, "num_uniques says 2 repeats, nsdgeneral holds 3"),
        ({"nsdgeneral__npy": npy(np.zeros(V))}, r"needs numbers \(3, voxels\), found float64"),
        ({"nsdgeneral__npy": npy(np.ones((3, V)))[:-9]}, "damaged or cut short"),
        ({"coco73k__npy": b"nothing"}, "coco73k.npy is damaged or cut short"),
    ],
)
def test_mindeye1_bad_samples_are_refused(tmp_path, changed, message):
    root = write_mindeye1(tmp_path)
    shard1(root, "train", 4, [sample1(60, **changed)])
    with pytest.raises(UserError, match=message):
        np.asarray(mindeye1(root).load("subj01").betas)


def test_mindeye1_says_what_it_has_not(release1):
    dataset = mindeye1(release1)
    with pytest.raises(UserError, match="No shard of study has the image 'nsd-00500'"):
        dataset.image("nsd-00500")
    with pytest.raises(UserError, match="has the subjects subj01, subj02, not 'subj05'"):
        dataset.load("subj05")
    with pytest.raises(UserError, match="voxels is nsdgeneral .* or any, found 'some'"):
        mindeye1(release1, voxels="some")
