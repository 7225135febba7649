"""NSD's regions and reliability: labels of voxels, and which voxels are read."""

import gzip

import numpy as np
import pytest

from backends.datasets.nsd import NSD
from explorer.types import UserError
from tests.miniatures.nsd import (
    BASE,
    INSIDE,
    betas_folder,
    ids_of,
    make,
    nsdgeneral,
    planted,
    roi_folder,
    save_volume,
    volume,
)


def test_another_subjects_nsdgeneral_is_known_by_its_count(tmp_path):
    """13,039 voxels: the whole mask of subject 5 in the folder of subject 1."""
    root = make(tmp_path, ())
    folder = betas_folder(root)
    folder.mkdir(parents=True)
    (folder / "betas_session01.hdf5").write_bytes(b"")  # the ROI is looked at first
    mask = (np.arange(30 * 29 * 16) < 13_039).reshape(30, 29, 16).astype(np.float32)
    save_volume(roi_folder(root) / "nsdgeneral.nii.gz", mask)
    with pytest.raises(UserError, match=r"13,039 is subject 5's nsdgeneral at 1\.8 mm: two subj"):
        NSD(root, "study").load("subj01")


def test_an_roi_cut_short_takes_one_sentence(tmp_path):
    root = make(tmp_path)
    path = roi_folder(root) / "nsdgeneral.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:700]))
    with pytest.raises(UserError, match="nsdgeneral.nii.gz is damaged or cut short"):
        NSD(root, "study").load("subj01")


def test_functional_rois_overlap_may_be_empty_and_never_hold_minus_1(tmp_path):
    root = make(tmp_path)
    folder = roi_folder(root)
    # PPA: three voxels, of which two lie in nsdgeneral; V1v and PPA share one; RSC is nowhere.
    save_volume(
        folder / "floc-places.nii.gz", volume(((1, 2, 1), 2), ((1, 2, 2), 2), ((0, 0, 0), 2))
    )
    save_volume(folder / "lh.prf-visualrois.nii.gz", volume(((1, 2, 1), 1), ((1, 3, 1), 7)))
    save_volume(folder / "rh.prf-visualrois.nii.gz", volume(((4, 2, 1), 1)))
    save_volume(folder / "prf-visualrois.nii.gz", volume(((4, 4, 4), 3)))  # split files win
    study = NSD(root, "study")
    voxels = study.load("subj01").subject.voxels
    atlas = voxels.parcellations["ROIs"]
    assert atlas.kind == "masks"
    keys = [label.key for label in atlas.labels]
    assert keys[:2] == ["V1v L", "V1v R"]
    assert keys[-3:] == ["OPA", "PPA", "RSC"]
    places = np.argwhere(INSIDE).tolist()
    members = {key: np.flatnonzero(row).tolist() for key, row in zip(keys, atlas.membership)}  # noqa: B905
    assert members["PPA"] == [places.index([1, 2, 1]), places.index([1, 2, 2])]
    assert members["V1v L"] == [places.index([1, 2, 1])]
    assert members["V1v R"] == [places.index([4, 2, 1])]
    assert members["hV4 L"] == [places.index([1, 3, 1])]
    assert members["RSC"] == members["V2v L"] == []
    told = " ".join(study.remarks())
    assert "voxels of each ROI in nsdgeneral: V1v 2 of 2," in told
    assert "PPA 2 of 3, RSC 0 of 0" in told


def test_streams_reach_out_of_nsdgeneral_and_can_be_read_themselves(tmp_path):
    root = make(tmp_path)
    save_volume(
        roi_folder(root) / "streams.nii.gz",
        volume(((1, 2, 1), 1), ((5, 6, 4), 1), ((5, 5, 4), 5), ((1, 4, 3), 5)),
    )
    study = NSD(root, "study")
    atlas = study.load("subj01").subject.voxels.parcellations["streams"]
    assert atlas.kind == "partition"
    assert [label.name for label in atlas.labels] == ["early", "ventral"]
    assert np.bincount(atlas.membership + 1).tolist() == [78, 1, 1]
    assert any("streams early 1 of 2, streams ventral 1 of 2" in s for s in study.remarks())
    trials = NSD(root, "study", roi="streams", norm="none").load("subj01")
    space = trials.subject.voxels
    assert space.n_voxels == 4
    assert space.parcellations["streams"].membership.tolist() == [0, 1, 1, 0]
    assert space.parcellations["nsdgeneral"].membership.tolist() == [0, 0, -1, -1]
    order = [(1, 2, 1), (1, 4, 3), (5, 5, 4), (5, 6, 4)]
    expected = [planted(ids_of(1, 1))[(*place, 3)] / 300 for place in order]
    np.testing.assert_allclose(trials.betas[3], expected, rtol=1e-6)


def test_hcp_numbers_repeat_on_both_sides_and_stay_apart(tmp_path):
    root = make(tmp_path)
    folder = roi_folder(root)
    save_volume(folder / "lh.HCP_MMP1.nii.gz", volume(((1, 2, 1), 1), ((1, 3, 1), 4)))
    save_volume(folder / "rh.HCP_MMP1.nii.gz", volume(((4, 2, 1), 1), ((4, 3, 1), 180)))
    label = root / "nsddata/freesurfer/fsaverage/label"
    label.mkdir(parents=True)
    (label / "HCP_MMP1.mgz.ctab").write_text("0 Unknown\n1 V1\n4 V2 10 20 30 0\n")
    atlas = NSD(root, "study").load("subj01").subject.voxels.parcellations["HCP_MMP1"]
    keys = [label.key for label in atlas.labels]
    assert keys == ["V1 L", "V2 L", "V1 R", "HCP_MMP1 180 R"]
    assert [label.colour for label in atlas.labels][:2] == [(128, 128, 128), (10, 20, 30)]
    assert np.bincount(atlas.membership + 1).tolist() == [76, 1, 1, 1, 1]
    (label / "HCP_MMP1.mgz.ctab").write_text("V1 one\n")
    with pytest.raises(UserError, match="HCP_MMP1.mgz.ctab needs lines of a number and a name"):
        NSD(root, "study").load("subj01")


def test_an_roi_that_is_missing_is_named_with_what_is_there(tmp_path):
    root = make(tmp_path)
    save_volume(roi_folder(root) / "streams.nii.gz", volume(((1, 2, 1), 1)))
    with pytest.raises(UserError, match=r"no Kastner2015.nii.gz.* one of streams, nsdgeneral"):
        NSD(root, "study", roi="Kastner2015").load("subj01")


def test_rois_of_another_space_are_refused(tmp_path):
    root = make(tmp_path)
    save_volume(roi_folder(root) / "streams.nii.gz", np.ones((9, 9, 9), np.float32))
    with pytest.raises(UserError, match="streams is 9 x 9 x 9, but nsdgeneral is 6 x 7 x 5"):
        NSD(root, "study").load("subj01")


def test_ncsnr_follows_the_voxels_and_what_was_not_measured_is_left_out(tmp_path):
    root = make(tmp_path)
    before = NSD(root, "study", norm="none")
    assert before.load("subj01").subject.ncsnr is None
    assert any("ncsnr.nii.gz is missing" in sentence for sentence in before.remarks())
    values = (BASE / 1000).astype(np.float32)
    values[0] = np.nan  # outside the ROI
    values[2, 3, 1] = values[3, 3, 1] = np.nan
    save_volume(betas_folder(root) / "ncsnr.nii.gz", values)
    study = NSD(root, "study", norm="none")
    trials = study.load("subj01")
    keep = INSIDE & np.isfinite(values)
    np.testing.assert_allclose(trials.subject.ncsnr, values[keep])
    assert trials.subject.voxels.n_voxels == 78
    np.testing.assert_array_equal(trials.subject.voxels.mask, keep)
    expected = planted(ids_of(1, 1))[..., 9][keep] / 300
    np.testing.assert_allclose(trials.betas[9], expected, rtol=1e-6)
    assert trials.subject.voxels.hash != before.load("subj01").subject.voxels.hash
    assert any("2 of 80 voxels of nsdgeneral are not numbers" in s for s in study.remarks())
    save_volume(betas_folder(root) / "ncsnr.nii.gz", values[1:])
    with pytest.raises(UserError, match="ncsnr.nii.gz is 5 x 7 x 5, but the ROIs of subj01"):
        NSD(root, "study").load("subj01")


def test_a_noise_ceiling_in_percent_is_not_taken_for_a_ratio(tmp_path):
    root = make(tmp_path)
    file = betas_folder(root) / "ncsnr.nii.gz"
    save_volume(file, (BASE / 10).astype(np.float32))
    with pytest.raises(UserError, match=r"ncsnr.nii.gz holds values up to .* ceiling in percent"):
        NSD(root, "study").load("subj01")


@pytest.mark.parametrize("wrong", [0.5, 3e10, np.inf])
def test_regions_are_whole_numbers(tmp_path, wrong):
    root = make(tmp_path)
    values = nsdgeneral()
    values[2, 3, 1] = wrong  # half inside would be read as outside
    save_volume(roi_folder(root) / "nsdgeneral.nii.gz", values)
    with pytest.raises(UserError, match="nsdgeneral.nii.gz holds values that are no labels"):
        NSD(root, "study").load("subj01")
