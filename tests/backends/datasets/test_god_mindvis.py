"""GOD as MinD-Vis's arrays, in miniature."""

import numpy as np
import pytest

from backends.datasets.god import GOD
from backends.datasets.god_mindvis import GODMindVis
from explorer.types import UserError
from tests.miniatures.god import ROIS, TEST, TRAIN, VOXELS, scored, write_mindvis


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_mindvis_trials_are_scaled_by_raw_training_trials(tmp_path, save):
    given = write_mindvis(tmp_path / "npz", save=save)
    trials = GODMindVis(tmp_path, "g").load("sbj_1")
    raw = np.concatenate([given["arr_0"], given["arr_2"]])[:, ROIS["VC"]]
    expected = scored(raw, of=raw[:6])
    np.testing.assert_allclose(np.asarray(trials.betas), expected, rtol=1e-4, atol=1e-4)
    # MinD-Vis's own test values, scaled by scaled training trials, would be near 50
    assert np.abs(trials.betas[6:]).max() < 10
    plain = GODMindVis(tmp_path / "npz", "g", norm="none").load("sbj_1")
    np.testing.assert_allclose(np.asarray(plain.betas), raw, rtol=1e-6)
    assert GODMindVis.recognise(tmp_path) and GODMindVis.recognise(tmp_path / "npz")
    assert not GOD.recognise(tmp_path / "npz") and not GODMindVis.recognise(tmp_path / "x")


def test_mindvis_trials_show_the_row_of_arr_3(tmp_path):
    given = write_mindvis(tmp_path)
    study = GODMindVis(tmp_path, "g")
    trials = study.load("sbj_1")
    assert trials.table["stimulus"].tolist() == [*(TRAIN[i] for i in given["arr_3"]), *TEST]
    assert trials.table["repeat"].tolist() == [0] * 8  # arr_1 has no known order
    np.testing.assert_array_equal(study.image(TRAIN[3]), given["train_images"][3])
    np.testing.assert_array_equal(study.image(TEST[1]), given["test_images"][1])
    assert study.stimuli.loc[TEST[0], "category"] == "goldfish"
    assert study.stimuli.loc[TEST[1], "category"] == "n01621127"  # not one of the thousand
    said = " ".join(study.remarks())
    assert "arr_1, the single test trials, is not used" in said
    assert "sbj_2, sbj_3, sbj_4, sbj_5 of sbj_1 to sbj_5 are not here" in said
    assert "There are 2 test pictures where 50 were published" in said
    assert "sbj_1 has 6 voxels in VC where the published file has 4466" in said


@pytest.mark.parametrize("pictures", [np.uint8, np.float32, "unit"])
def test_mindvis_pictures_of_any_scale_are_bytes(tmp_path, pictures):
    given = write_mindvis(tmp_path, pictures=pictures)
    picture = GODMindVis(tmp_path, "g").image(TEST[0])
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, given["test_images"][0])


def pictures_of(tmp_path, change) -> dict:
    """Write the study with its pictures changed; return the pictures as they were."""
    given = write_mindvis(tmp_path)
    names = ("train_images", "test_images")
    np.savez(tmp_path / "images_256.npz", **change({name: given[name] for name in names}))
    return given


@pytest.mark.parametrize(
    "change",
    [
        lambda i: {k: v / np.float32(255) for k, v in i.items()},
        lambda i: {k: (v / 255).astype("f2") for k, v in i.items()},
        lambda i: {k: v.astype("i8") for k, v in i.items()},
        lambda i: {k: np.asfortranarray(v.astype(">f4")) for k, v in i.items()},
        lambda i: {**i, "test_images": i["test_images"] / 255},  # each split has its own range
    ],
)
def test_mindvis_pictures_of_any_range_are_the_same(tmp_path, change):
    given = pictures_of(tmp_path, change)
    study = GODMindVis(tmp_path, "g")
    for split, names in (("train", TRAIN), ("test", TEST)):
        for row, name in enumerate(names):
            found, shown = study.image(name).astype(int), given[f"{split}_images"][row]
            assert np.abs(found - shown).max() <= 1  # float16 rounds


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda v: v / 127.5 - 1, "train_images has values from -0.99"),
        (lambda v: v * 257.0, "train_images has values from 257 to 65535, expected 0 to 255"),
        (lambda v: v * np.nan, "train_images has values from nan to nan, expected 0 to 255"),
        (
            lambda v: v.astype("i4") * 2,
            "picture of .* has values from 12 to 486, where",
        ),
        (
            lambda v: v.transpose(0, 3, 1, 2),
            r"numbers of shape .n, H, W, 3., found uint8 .6, 3",
        ),
        (lambda v: v[..., 0], r"numbers of shape .n, H, W, 3., found uint8 .6, 4, 4"),
        (lambda v: v.astype("U3"), "numbers of shape .n, H, W, 3., found <U3"),
    ],
)
def test_mindvis_pictures_of_no_known_range_are_refused(tmp_path, change, sentence):
    pictures_of(tmp_path, lambda i: {k: change(v) for k, v in i.items()})
    with pytest.raises(UserError, match=sentence):
        GODMindVis(tmp_path, "g").image(TRAIN[0])


def test_mindvis_a_bright_picture_does_not_hide_the_range_of_the_others(tmp_path):
    """From -1 to 1 without a negative value it would be read as 0 to 1, paler than shown."""

    def change(images):
        images = {k: v / 127.5 - 1 for k, v in images.items()}
        images["train_images"][0] = 0.5
        return images

    pictures_of(tmp_path, change)
    with pytest.raises(UserError, match="train_images has values from -0.99.* to 1, expected"):
        GODMindVis(tmp_path, "g").image(TRAIN[0])


def test_mindvis_order_as_floating_point_numbers(tmp_path):
    write_mindvis(tmp_path)
    expected = GODMindVis(tmp_path, "g").load("sbj_1").table
    write_mindvis(tmp_path, arr_3=np.array([3, 1, 0, 2, 5, 4.0]))
    assert GODMindVis(tmp_path, "g").load("sbj_1").table.equals(expected)


@pytest.mark.parametrize("kind", [bool, np.int64, np.uint8, float, "columns"])
def test_rois_of_zeros_and_ones_are_masks_not_columns(tmp_path, kind):
    inside = np.array([2, 4, 5])
    given = inside if kind == "columns" else np.isin(np.arange(VOXELS), inside).astype(kind)
    write_mindvis(tmp_path, VC=given)
    study = GODMindVis(tmp_path, "g", norm="none")
    arrays = write_mindvis(tmp_path, VC=given)
    trials = study.load("sbj_1")
    # as an index, a mask of ints would have given eight voxels, all of them voxel 0 or 1
    np.testing.assert_allclose(np.asarray(trials.betas[:6]), arrays["arr_0"][:, inside], rtol=1e-6)
    rois = trials.subject.voxels.parcellations["ROIs"]
    assert dict(zip([x.key for x in rois.labels], rois.membership.sum(axis=1), strict=True)) == {
        **{"VC": 3, "V1": 1}
    }


def test_mindvis_arrays_are_mapped_not_read(tmp_path):
    write_mindvis(tmp_path)
    study = GODMindVis(tmp_path, "g")
    assert isinstance(study._images["train"], np.memmap)
    assert not study._images["train"].flags.writeable


@pytest.mark.parametrize(
    ("replace", "sentence"),
    [
        ({"arr_3": np.arange(1, 7)}, "arr_3 needs one row .* 0 to 5, .* values 1 to 6"),
        ({"arr_3": np.arange(6) + 0.5}, "arr_3 needs whole numbers in a row, found float64 .6,."),
        (
            {"arr_3": np.arange(6)[:, None]},
            "arr_3 needs whole numbers in a row, found int64",
        ),
        (
            {"arr_0": np.zeros((6, VOXELS), "V2")},
            "arr_0 needs numbers in trials and voxels",
        ),
        (
            {"arr_0": np.zeros((0, VOXELS))},
            "arr_0 needs numbers in trials and voxels, found f",
        ),
        ({"V1": np.array(["a"] * VOXELS)}, "ROI V1 needs numbers, found <U1"),
        ({"arr_2": np.zeros((3, VOXELS))}, r"arr_2 needs shape \(2, voxels of arr_0\), found"),
        ({"arr_0": np.array([{"a": 1}] * 6)}, r"sbj_1.npz \(arr_0\) holds pickled Python objects"),
        ({"V1": np.zeros(5, bool)}, "ROI V1 needs a mask over 8 voxels .* bool \\(5,\\)"),
        ({"VC": None}, "roi is one of V1, all, not 'VC'"),
        ({"arr_0": np.ones((6, VOXELS))}, "no voxel that varies in VC"),
    ],
)
def test_mindvis_files_that_cannot_be_right_are_refused(tmp_path, replace, sentence):
    write_mindvis(tmp_path, **replace)
    with pytest.raises(UserError, match=sentence):
        GODMindVis(tmp_path, "g").load("sbj_1")


def test_mindvis_without_names_or_pictures(tmp_path):
    write_mindvis(tmp_path)
    for file in tmp_path.glob("im*"):
        file.unlink()
    study = GODMindVis(tmp_path, "g")
    assert study.load("sbj_1").table["stimulus"].tolist()[-2:] == ["test-0000", "test-0001"]
    with pytest.raises(UserError, match=r"images_256.npz is not in .* Kamitani lab"):
        study.image("test-0000")
    said = " ".join(study.remarks())
    assert "pictures are named by their row" in said and "images_256.npz is not here" in said
    with pytest.raises(UserError, match="norm is one of train, none, not 'run'"):
        GODMindVis(tmp_path, "g", norm="run")


def test_mindvis_list_of_another_length_is_refused(tmp_path):
    write_mindvis(tmp_path)
    file = tmp_path / "imagenet_testing_label.csv"
    file.write_text(file.read_text().splitlines()[0])
    with pytest.raises(UserError, match="has 1 pictures where 2 are needed"):
        GODMindVis(tmp_path, "g").load("sbj_1")


def test_a_mindvis_file_cut_short_is_refused(tmp_path):
    write_mindvis(tmp_path)
    file = tmp_path / "images_256.npz"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match=r"images_256.npz is damaged or cut short"):
        GODMindVis(tmp_path, "g").image(TEST[0])
    (tmp_path / "sbj_1.npz").write_bytes(b"PK nothing")
    assert not GODMindVis.recognise(tmp_path)
