"""What MindEye's two releases share: test sets by name, places, masks, whose files they are."""

import re
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from backends.datasets.mindeye1 import MindEye1
from backends.datasets.mindeye2 import MindEye2
from explorer.types import UserError
from tests.miniatures.mindeye1 import mindeye1, row, sample1, shard1, write_mindeye1
from tests.miniatures.mindeye2 import V, betas2, mindeye2, shown, write_full, write_mindeye2
from tests.miniatures.shards import npy


def test_the_two_test_sets_are_kept_apart_by_name(release1, release2):
    old, new = mindeye1(release1), mindeye2(release2)
    assert ("982" in old.title, "1,000" in new.title) == (True, True)
    assert "982" in old.note
    assert "1,000" in new.note
    tested = [set(d.stimuli["test_set"]) - {""} for d in (old, new)]
    assert tested == [{"MindEye1 test (982)"}, {"MindEye2 new_test (1,000)"}]
    for dataset in (old, new):
        table = dataset.load("subj01").table
        ours = dataset.stimuli["test_set"].reindex(table["stimulus"]).to_numpy()
        assert ((ours != "") == (table["split"] == "test")).all()
        assert (table["test_set"] == ours).all()
        assert any("do not compare" in remark for remark in dataset.remarks())


def test_each_release_is_recognised_by_one_class(release1, release2, tmp_path):
    both = write_mindeye1(tmp_path)
    write_full(both, 1, 30000, 15724)
    known = [(c.recognise(p)) for p in (release1, release2, both) for c in (MindEye1, MindEye2)]
    assert known == [True, False, False, True, False, True]
    betas = release2 / "betas_all_subj01_fp32_renorm.hdf5"
    assert MindEye2.recognise(betas)
    assert MindEye2(betas, "study").subjects() == ["subj01", "subj02"]
    for elsewhere in (tmp_path / "nowhere", Path(__file__), Path(__file__).parent):
        assert not MindEye1.recognise(elsewhere)
        assert not MindEye2.recognise(elsewhere)
    with pytest.raises(UserError, match=re.escape("*_subj0X_N.tar, which come from")):
        MindEye1(release2, "study")


def test_voxels_without_values_are_left_out_counted_and_told(tmp_path):
    flat = [np.stack([row(n, r) for r in range(3)]).astype(float) for n in (7, 9, 0, 3)]
    for rows in flat:
        rows[:, 4], rows[0, 5] = 0.5, np.nan
    for i, (part, number) in enumerate((("train", 7), ("train", 9), ("test", 0), ("test", 3))):
        shard1(tmp_path, part, i, [sample1(number, nsdgeneral__npy=npy(flat[i]))])
    dataset = mindeye1(tmp_path)
    trials = dataset.load("subj01")
    assert trials.subject.voxels.n_voxels == V - 2
    assert np.isfinite(np.asarray(trials.betas)).all()
    assert any("subj01: 2 voxels were left out" in remark for remark in dataset.remarks())
    (tmp_path / "whole").mkdir()
    whole = mindeye1(write_mindeye1(tmp_path / "whole")).load("subj01")
    assert trials.subject.voxels.hash != whole.subject.voxels.hash


def test_mindeye2_regions_are_masks_within_nsdgeneral(release2):
    space = mindeye2(release2).load("subj02").subject.voxels
    atlas = space.parcellations["visual areas"]
    assert [label.name for label in atlas.labels] == ["V1", "higher_vis"]
    assert atlas.membership.tolist() == [[True] * 2 + [False] * 5, [False] * 2 + [True] * 5]
    assert space.projection is None


def test_mindeye2_masks_of_ones_are_masks_and_positions_are_refused(tmp_path):
    root = write_mindeye2(tmp_path, (1,))

    def rewrite(values: np.ndarray) -> None:
        with h5py.File(root / "brain_region_masks.hdf5", "a") as file:
            del file["subj01/V1"]
            file["subj01/V1"] = values

    rewrite(np.array([0, 1, 0, 1, 0, 0]))
    dataset = mindeye2(root)
    atlas = dataset.load("subj01").subject.voxels.parcellations["visual areas"]
    assert atlas.membership[0].tolist() == [False, True, False, True, False, False]
    assert any("masks as 0 and 1" in remark for remark in dataset.remarks())
    for wrong in (np.array([1, 3]), np.arange(V), np.ones(V + 1, bool)):
        rewrite(wrong)
        with pytest.raises(UserError, match=r"subj01/V1: a mask within nsdgeneral is bool \(6,\)"):
            mindeye2(root).load("subj01")


def write_mask(file: Path, values: np.ndarray) -> np.ndarray:
    file.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.8, 1.8, 1.8, 1.0])
    nib.save(nib.Nifti1Image(values.astype(np.int16), affine), file)
    return affine


def test_nsdgeneral_says_where_the_voxels_lie(tmp_path):
    root = write_mindeye2(tmp_path, (1,))
    values = np.full((3, 3, 3), -1)  # -1 lies outside, and so does 0
    values[0, 0, 0] = 0
    values.ravel()[[1, 4, 9, 10, 20, 25]] = 1
    file = root / "nsddata" / "ppdata" / "subj01" / "func1pt8mm" / "roi" / "nsdgeneral.nii.gz"
    affine = write_mask(file, values)
    plain = mindeye2(write_mindeye2_elsewhere(tmp_path)).load("subj01").subject.voxels
    space = mindeye2(root).load("subj01").subject.voxels
    np.testing.assert_array_equal(space.mask, values > 0)
    np.testing.assert_allclose(space.affine, affine, rtol=1e-6)
    assert plain.mask is None
    assert plain.hash == space.hash  # the voxels are the same ones
    assert any("not MNI space" in remark for remark in mindeye2(root).remarks())
    other = tmp_path / "other.nii.gz"
    write_mask(other, np.ones((2, 2, 2)))
    with pytest.raises(UserError, match="has 8 voxels above 0, which is nobody's nsdgeneral"):
        mindeye2(root, nsdgeneral=str(other)).load("subj01")
    other.write_bytes(other.read_bytes()[:60])
    with pytest.raises(UserError, match="cannot be read as NIfTI"):
        mindeye2(root, nsdgeneral=str(other)).load("subj01")
    with pytest.raises(UserError, match="there is nothing at nowhere"):
        mindeye2(root, nsdgeneral="nowhere")


def write_mindeye2_elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return write_mindeye2(tmp_path / "elsewhere", (1,))


def test_mindeye2_voxels_left_out_keep_places_and_masks_in_step(tmp_path):
    root = write_mindeye2(tmp_path, (1,))
    with h5py.File(root / "betas_all_subj01_fp32_renorm.hdf5", "a") as file:
        file["betas"][:, 1] = 0
        file["betas"][:, 4] = np.nan
    values = np.zeros((2, 2, 2))
    values.ravel()[1:7] = 1
    write_mask(root / "nsdgeneral.nii.gz", values)
    dataset = mindeye2(root)
    trials = dataset.load("subj01")
    space = trials.subject.voxels
    assert space.n_voxels == 4
    assert np.flatnonzero(space.mask.ravel()).tolist() == [1, 3, 4, 6]
    assert space.parcellations["visual areas"].membership.tolist() == [
        [True, False, False, False],
        [False, True, True, True],
    ]
    stored = betas2(shown(1), V)
    np.testing.assert_array_equal(trials.betas[7], stored[7, [0, 2, 3, 5]])
    assert any("2 voxels were left out" in remark for remark in dataset.remarks())


def test_mindeye2_an_empty_file_is_refused(tmp_path):
    root = write_mindeye2(tmp_path, (1,))
    with h5py.File(root / "betas_all_subj01_fp32_renorm.hdf5", "a") as file:
        file["betas"][:] = 0
    with pytest.raises(UserError, match="no voxel is finite and varies over 64 trials"):
        mindeye2(root).load("subj01")
