"""MindEye2's release: trials by their place in HDF5, pictures, and whose files they are."""

import h5py
import numpy as np
import pytest

from backends.datasets.mindeye2 import MindEye2
from explorer.types import UserError
from tests.miniatures.mindeye1 import write_mindeye1
from tests.miniatures.mindeye2 import (
    SHARED,
    T,
    V,
    betas2,
    full_list,
    mindeye2,
    shown,
    write_full,
    write_full_list,
    write_mindeye2,
    write_shared,
)


def test_mindeye2_rows_are_global_trials_and_ids_count_from_zero(release2):
    for subject, number in (("subj01", 1), ("subj02", 2)):
        trials = mindeye2(release2).load(subject)
        everything = np.asarray(trials.betas)
        assert everything.shape == (T, V + number - 1)
        numbers = trials.table["stimulus"].str.removeprefix("nsd-").astype(int)
        np.testing.assert_array_equal(everything[:, 0], numbers)
        np.testing.assert_array_equal(everything[:, 1], trials.table["trial"])
        np.testing.assert_array_equal(numbers, shown(number))
        np.testing.assert_array_equal(trials.table["session"], np.arange(T) // 750 + 1)
        assert set(trials.stimuli("test")) == {f"nsd-{n:05d}" for n in SHARED[:60]} & set(
            trials.table["stimulus"]
        )
        assert not set(trials.stimuli("train")) & set(trials.stimuli("test"))


def test_mindeye2_averages_each_repeat_once(release2):
    trials, numbers = mindeye2(release2).load("subj01"), shown(1)
    stored = betas2(numbers, V)
    counts = {n: int((numbers == n).sum()) for n in SHARED[:60]}
    two = next(n for n, count in counts.items() if count == 2)
    a, b = stored[numbers == two]
    np.testing.assert_allclose(trials.average(f"nsd-{two:05d}"), (a + b) / 2, rtol=1e-5)
    assert not np.allclose((a + b) / 2, (a + b + a) / 3)
    rows = trials.rows("test", f"nsd-{two:05d}")
    assert trials.table["repeat"].iloc[rows].tolist() == [0, 1]


def test_mindeye2_sessions_cut_training_and_never_the_test(release2):
    full, one = mindeye2(release2).load("subj01"), mindeye2(release2, sessions="1").load("subj01")
    assert one.table["session"].iloc[one.rows("train")].unique() == [1]
    assert len(one.rows("train")) == (full.table["session"].iloc[full.rows("train")] == 1).sum()
    assert one.stimuli("test") == full.stimuli("test")
    everything = np.asarray(one.betas)  # rows that are left out do not shift the others
    np.testing.assert_array_equal(everything[:, 1], one.table["trial"])
    np.testing.assert_array_equal(one.betas[5:9], everything[5:9])
    assert any("sessions=1" in r for r in mindeye2(release2, sessions="1").remarks())


def test_mindeye2_pictures_are_bytes_the_right_way_round(release2):
    picture = mindeye2(release2).image("nsd-72999")
    assert (picture.shape, picture.dtype) == ((224, 224, 3), np.uint8)
    assert picture[0, 223].tolist() == [255, 255, 0]  # 72999 / 73000 is 255 green
    assert picture[223, 0].tolist() == [0, 255, 128]
    assert mindeye2(release2).image("nsd-00000")[0, 0].tolist() == [255, 0, 128]


def test_mindeye2_without_pictures_says_which_file(tmp_path):
    root = write_mindeye2(tmp_path, (1,))
    (root / "coco_images_224_float16.hdf5").unlink()
    message = r"coco_images_224_float16.hdf5 is missing, .* about 22 GB .*pscotti/mindeyev2"
    with pytest.raises(UserError, match=message):
        mindeye2(root).image("nsd-00000")
    assert len(mindeye2(root).load("subj01").table) == T  # the trials open nevertheless
    assert any("no image can be shown" in remark for remark in mindeye2(root).remarks())
    write_mindeye1(root)
    assert mindeye2(root).image("nsd-00000").shape == (16, 12, 3)  # MindEye1's shards beside
    assert any("MindEye1's shards" in remark for remark in mindeye2(root).remarks())
    with h5py.File(root / "nsd_stimuli.hdf5", "w") as file:
        shape = (73000, 425, 425, 3)
        images = file.create_dataset("imgBrick", shape, np.uint8, chunks=(1, 425, 425, 3))
        images[0] = np.tile(np.arange(3, dtype=np.uint8), (425, 425, 1))
    nsds_own = mindeye2(root).image("nsd-00000")
    assert (nsds_own == np.arange(3)).all()
    assert nsds_own.shape == (425, 425, 3)


def test_mindeye2_counts_of_the_release_open(tmp_path):
    write_full(tmp_path, 5, 30000, 13039)
    write_full_list(tmp_path, subj05=full_list(5))
    write_shared(tmp_path)
    trials = MindEye2(tmp_path, "study").load("subj05")
    assert trials.betas.shape == (30000, 13039)
    counts = trials.table.groupby("split")["stimulus"].agg(["size", "nunique"])
    assert counts.loc["train"].tolist() == [27000, 9000]
    assert counts.loc["test"].tolist() == [3000, 1000]


@pytest.mark.parametrize(
    ("trials", "voxels", "message"),
    [
        (30000, 13039, "13039 voxels, which is subj05's nsdgeneral at 1.8 mm; subj01 has 15724"),
        (30000, 49329, "49329 voxels, which is nobody's nsdgeneral at 1.8 mm; subj01 has 15724"),
        (24000, 15724, "24000 trials, subj01 has 30000 .24000 is what subj03, subj06 have"),
        (27750, 15724, "27750 trials, subj01 has 30000; copy"),
    ],
)
def test_mindeye2_betas_of_another_are_refused(tmp_path, trials, voxels, message):
    write_full(tmp_path, 1, trials, voxels)
    write_full_list(tmp_path, subj01=full_list(1))
    write_shared(tmp_path)
    with pytest.raises(UserError, match=message):
        MindEye2(tmp_path, "study").load("subj01")


def test_mindeye2_older_betas_are_refused_by_name(tmp_path):
    write_full(tmp_path, 1, 30000, 49329, "betas_all_subj01.hdf5")
    message = r"betas_all_subj01.hdf5 is an older file .*no betas_all_subj0X_fp32_renorm.hdf5"
    assert MindEye2.recognise(tmp_path)  # so that somebody gets to hear it
    with pytest.raises(UserError, match=message):
        MindEye2(tmp_path, "study")
    write_full(tmp_path, 2, 30000, 14278)
    dataset = MindEye2(tmp_path, "study")
    assert dataset.subjects() == ["subj02"]
    assert any("betas_all_subj01.hdf5 hold other voxels" in r for r in dataset.remarks())


def test_mindeye2_truncated_files_are_refused(tmp_path):
    root = write_mindeye2(tmp_path, (1,))
    for name in ("betas_all_subj01_fp32_renorm.hdf5", "COCO_73k_subj_indices.hdf5"):
        file = root / name
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=f"{name} is damaged or cut short"):
            mindeye2(root).load("subj01")
        file.write_bytes(whole)
    (tmp_path / "other").mkdir()  # a reader that refused may still hold the first open
    root = write_mindeye2(tmp_path / "other", (1,))
    with h5py.File(root / "betas_all_subj01_fp32_renorm.hdf5", "a") as file:
        file.move("betas", "beta")
    with pytest.raises(UserError, match=r"needs betas, numbers \(trials, voxels\); it has beta"):
        mindeye2(root).load("subj01")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sessions": "0"}, "sessions is all or a number from 1 to 40, found '0'"),
        ({"sessions": "few"}, "sessions is all or a number from 1 to 40, found 'few'"),
        ({"test": "old"}, "test is new_test .* or test .the older 982., found 'old'"),
        ({"voxels": "V1"}, "voxels is nsdgeneral .* or any, found 'V1'"),
    ],
)
def test_mindeye2_options_are_checked(release2, options, message):
    with pytest.raises(UserError, match=message):
        mindeye2(release2, **options)


def test_mindeye2_what_was_never_written_is_not_read_as_zeros(tmp_path):
    root = write_mindeye2(tmp_path, (1,))
    with pytest.raises(UserError, match="images.*row 5 was never written"):
        mindeye2(root).image("nsd-00005")
    with h5py.File(root / "betas_all_subj01_fp32_renorm.hdf5", "w") as file:
        file.create_dataset("betas", (T, 2**40), np.float32, chunks=(1, 2**20))
    with pytest.raises(UserError, match=r"declares the shape \(1500, 1099511627776\)"):
        mindeye2(root).load("subj01")


def test_mindeye2_pictures_of_another_range_are_refused(tmp_path):
    root = write_mindeye2(tmp_path, (1,))
    with h5py.File(root / "coco_images_224_float16.hdf5", "a") as file:
        file["images"][7], file["images"][8] = np.full((3, 224, 224), 255), np.nan
    with pytest.raises(UserError, match="image 7 .* values from 255 to 255, expected 0 to 1"):
        mindeye2(root).image("nsd-00007")
    with pytest.raises(UserError, match="image 8 .* not finite"):
        mindeye2(root).image("nsd-00008")


def test_mindeye2_links_and_texts_take_one_sentence(tmp_path):
    root = write_mindeye2(tmp_path, (1,))
    file = root / "betas_all_subj01_fp32_renorm.hdf5"
    for value in (h5py.ExternalLink("gone.hdf5", "b"), h5py.SoftLink("/betas"), "a text"):
        with h5py.File(file, "w") as opened:
            opened["betas"] = value
        with pytest.raises(UserError, match="betas_all_subj01"):
            mindeye2(root).load("subj01")
