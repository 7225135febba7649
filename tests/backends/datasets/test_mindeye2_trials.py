"""Which image each trial of MindEye2 showed: tables, shards, and those of another."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from backends.datasets.mindeye2 import MindEye2
from explorer.types import UserError
from tests.miniatures.mindeye2 import (
    SHARED,
    T,
    V,
    behav,
    betas2,
    full_list,
    mindeye2,
    sample2,
    shown,
    write_full,
    write_full_list,
    write_mindeye2,
    write_shared,
)
from tests.miniatures.shards import npy, write_tar


def test_mindeye2_trials_from_shards_are_those_of_the_table(release2, wds_only):
    table = mindeye2(release2).load("subj01").table
    trials = mindeye2(wds_only).load("subj01")
    assert table["stimulus"].tolist() == trials.table["stimulus"].tolist()
    for column in ("split", "repeat", "session", "trial"):
        assert table[column].tolist() == trials.table[column].tolist(), column
    # and shards know the run, which the table of images does not
    expected = [behav(1, t, 0)[0, 3] for t in range(T)]
    assert trials.table["run"].tolist() == expected
    assert set(table["run"]) == {0}
    np.testing.assert_array_equal(np.asarray(trials.betas)[:, 1], np.arange(T))


def test_mindeye2_older_test_set_on_request(wds_only):
    dataset = mindeye2(wds_only, test="test")
    trials, numbers = dataset.load("subj01"), shown(1)
    shared = np.isin(numbers, SHARED)
    tested = trials.table["trial"].iloc[trials.rows("test")]
    assert tested.tolist() == np.flatnonzero(shared[:750]).tolist()
    assert len(trials.rows("train")) == (~shared).sum()  # the others are not trained on
    assert set(dataset.stimuli["test_set"]) == {"", "MindEye2 test (982)"}
    assert "older" in dataset.title
    assert "older test set" in dataset.note
    assert any("the older one of 982" in remark for remark in dataset.remarks())


def test_mindeye2_older_test_set_needs_its_shard(release2):
    with pytest.raises(UserError, match=r"test/0.tar is missing: .* or use test=new_test"):
        mindeye2(release2, test="test").load("subj01")


def test_mindeye2_shared_images_are_those_two_subjects_saw(tmp_path):
    write_full(tmp_path, 5, 30000, 13039)
    write_full_list(tmp_path, **{f"subj0{s}": full_list(s) for s in (1, 5)})
    trials = MindEye2(tmp_path, "study").load("subj05")  # no shared1000.npy
    assert trials.stimuli("test")[0] in {f"nsd-{n:05d}" for n in SHARED}
    assert len(trials.stimuli("test")) == 1000
    write_full_list(tmp_path, subj05=full_list(5))
    with pytest.raises(UserError, match="shared1000.npy is missing .73 kB"):
        MindEye2(tmp_path, "study").load("subj05")


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"subj01": full_list(3, 24000)}, "24000 trials of subj01, its betas have 30000"),
        (
            {"subj01": full_list(3, 24000), "subj03": full_list(1)},
            "which is as many as subj03 have; the files are of different subjects",
        ),
        ({"subj01": full_list(2), "subj02": full_list(2)}, "subj01 and subj02 were both shown"),
        ({"subj01": full_list(1) + 1}, "was shown 0 of the 1000|was shown .* does not count from"),
        ({"subj01": full_list(1) + 7000}, "has the image 7.*; images are numbered from 0 to"),
        (
            {"subj01": full_list(1), "subj02": np.roll(full_list(2), 1)},
            "trial .* showed nsd-.* to subj01 and nsd-.* to subj02; shared images",
        ),
        (
            {"subj01": full_list(1).astype(float)},
            "expected whole numbers .trials,., found float64",
        ),
    ],
)
def test_mindeye2_lists_of_another_are_refused(tmp_path, lists, message):
    write_full(tmp_path, 1, 30000, 15724)
    write_full_list(tmp_path, **lists)
    write_shared(tmp_path)
    with pytest.raises(UserError, match=message):
        MindEye2(tmp_path, "study").load("subj01")


def test_mindeye2_shards_of_another_are_refused(tmp_path):
    root = write_mindeye2(tmp_path, (1,))
    numbers = shown(1)
    file = root / "wds" / "subj01" / "new_test" / "0.tar"
    write_tar(file, [sample2(2, t, numbers[t]) for t in (0, 10)])
    with pytest.raises(UserError, match="holds trials of subject 2, not of subj01"):
        mindeye2(root).load("subj01")
    write_tar(file, [sample2(1, t + 1, numbers[t]) for t in (0, 10)])  # slipped by one
    with pytest.raises(UserError, match="says that trial 1 showed .* do not belong together"):
        mindeye2(root).load("subj01")
    write_tar(file, [{"behav.npy": npy(np.zeros((1, 16)))}])
    with pytest.raises(UserError, match=r"needs 17 numbers \(1, 17\), found float64 \(1, 16\)"):
        mindeye2(root).load("subj01")
    write_tar(file, [{"jpg": b""}])
    with pytest.raises(UserError, match=r"0.tar holds no behav.npy"):
        mindeye2(root).load("subj01")


def small_wds(root: Path, train: list, test: list) -> MindEye2:
    """Ten trials in shards: (trial, image) pairs."""
    with h5py.File(root / "betas_all_subj01_fp32_renorm.hdf5", "w") as file:
        file["betas"] = betas2(np.arange(10), V)
    write_shared(root)
    place = root / "wds" / "subj01"
    write_tar(place / "train" / "0.tar", [sample2(1, *pair) for pair in train])
    write_tar(place / "new_test" / "0.tar", [sample2(1, *pair) for pair in test])
    return mindeye2(root)


def test_mindeye2_order_is_the_global_trial_whatever_the_order_of_samples(tmp_path):
    table = small_wds(tmp_path, [(8, 5), (1, 4)], [(3, 73), (0, 0)]).load("subj01").table
    assert table["trial"].tolist() == [0, 1, 3, 8]
    assert table["stimulus"].tolist() == ["nsd-00000", "nsd-00004", "nsd-00073", "nsd-00005"]
    assert table["split"].tolist() == ["test", "train", "test", "train"]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([(1, 4), (2, 73)], [(0, 0)], "trains on nsd-00073 .trial 2., which is one of the 1000"),
        ([(1, 4), (1, 5)], [(0, 0)], "trial 1 is there twice"),
        ([(1, 4), (10, 5)], [(0, 0)], "trial 10 is beyond the 10 rows"),
        ([(1, 73000)], [(0, 0)], "has the image 73000 in trial 1; images are numbered from 0"),
    ],
)
def test_mindeye2_wrong_shards_are_refused(tmp_path, train, test, message):
    with pytest.raises(UserError, match=message):
        small_wds(tmp_path, train, test).load("subj01")


def test_mindeye2_without_any_table_of_images(tmp_path):
    write_full(tmp_path, 1, 30000, 15724)
    with pytest.raises(UserError, match="COCO_73k_subj_indices.hdf5 is missing or lacks subj01"):
        MindEye2(tmp_path, "study").load("subj01")
    # and doctor is told, not stopped
    remarks = MindEye2(tmp_path, "study").remarks()
    assert remarks[0].startswith("subj01 cannot be opened: ")


@pytest.mark.parametrize("wrong", [SHARED, np.zeros(73000, bool), np.ones(72999, bool)])
def test_mindeye2_shared1000_must_be_a_mask_of_a_thousand(release2, tmp_path, wrong):
    root = write_mindeye2(tmp_path, (1,))
    np.save(root / "shared1000.npy", wrong)
    with pytest.raises(UserError, match=r"needs bool \(73000,\) with 1000 true"):
        mindeye2(root).load("subj01")


@pytest.mark.parametrize(("by", "word"), [(1, "subtracted"), (-1, "added")])
def test_mindeye2_lists_that_count_from_elsewhere_are_refused(tmp_path, by, word):
    """With voxels=any nothing else is counted, and a few neighbours would be the whole test."""
    root = write_mindeye2(tmp_path, (1,))
    numbers = shown(1)
    numbers[numbers == 0] = 73  # so that all numbers are within the range
    write_full_list(root, subj01=numbers + by)
    message = rf"\d+ images that subj01 was shown are test images, and \d+ are if one is {word}"
    with pytest.raises(UserError, match=message):
        mindeye2(root).load("subj01")
    write_full_list(root, subj01=numbers)
    assert len(mindeye2(root).load("subj01").stimuli("test")) == 50


def test_mindeye2_two_mixed_lists_among_several_are_named(tmp_path):
    write_full(tmp_path, 1, 30000, 15724)
    write_full_list(tmp_path, subj01=full_list(1), subj02=full_list(2), subj05=full_list(2))
    write_shared(tmp_path)
    with pytest.raises(UserError, match=": subj02 and subj05 were both shown nsd-"):
        MindEye2(tmp_path, "study").load("subj01")


def test_mindeye2_the_last_image_is_one_like_any_other(tmp_path):
    """Where it is shared, trials in no shard are not taken for it."""
    small_wds(tmp_path, [(8, 5), (1, 72998)], [(3, 72999), (0, 73)])
    shared = np.load(tmp_path / "shared1000.npy")
    shared[[0, 72999]] = False, True
    np.save(tmp_path / "shared1000.npy", shared)
    table = mindeye2(tmp_path).load("subj01").table
    assert table["trial"].tolist() == [0, 1, 3, 8]
    assert table["stimulus"].tolist() == ["nsd-00073", "nsd-72998", "nsd-72999", "nsd-00005"]
    assert table["split"].tolist() == ["test", "train", "test", "train"]


@pytest.mark.parametrize("trial", [10, 11])
def test_mindeye2_an_older_test_set_beyond_the_betas_is_refused(tmp_path, trial):
    small_wds(tmp_path, [(8, 5), (1, 4)], [(3, 73), (0, 0)])
    older = tmp_path / "wds" / "subj01" / "test" / "0.tar"
    write_tar(older, [sample2(1, 3, 73), sample2(1, trial, 0)])
    with pytest.raises(UserError, match="0.tar and the betas of subj01 do not belong together"):
        mindeye2(tmp_path, test="test").load("subj01")


def test_mindeye2_a_shard_beside_the_list_must_be_of_its_trials(tmp_path):
    root = write_mindeye2(tmp_path, (1,))
    numbers, expected = shown(1), mindeye2(root).load("subj01").table
    file = root / "wds" / "subj01" / "new_test" / "0.tar"
    write_tar(file, [sample2(1, t, numbers[t]) for t in (0, T - 10)])  # the last one of them
    assert mindeye2(root).load("subj01").table.equals(expected)
    write_tar(file, [sample2(1, T, numbers[T - 1])])
    with pytest.raises(UserError, match=f"says that trial {T} showed .* do not belong together"):
        mindeye2(root).load("subj01")
