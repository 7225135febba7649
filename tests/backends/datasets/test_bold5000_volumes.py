"""BOLD5000's volumes in miniature: one NIfTI a session, masks and regions."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from backends.datasets import bold5000_files
from backends.datasets.bold5000 import BOLD5000
from explorer.types import UserError
from tests.miniatures.bold5000 import (
    AFFINE,
    SESSION,
    SHAPE,
    STEMS,
    D,
    spoil,
    volume,
    write_lists,
    write_rois,
    write_volumes,
)


@pytest.fixture(autouse=True)
def small_volumes(monkeypatch):
    """Make CSI4's volumes small: 436,100 voxels a trial are no test."""
    monkeypatch.setitem(
        bold5000_files.PEOPLE, "CSI4", bold5000_files.PEOPLE["CSI4"]._replace(shape=SHAPE)
    )


@pytest.fixture
def volumes(tmp_path) -> Path:
    write_lists(tmp_path)
    write_volumes(tmp_path)
    brain = np.ones(SHAPE, np.uint8)
    brain[-1] = 0
    nibabel.save(nibabel.Nifti1Image(brain, AFFINE), tmp_path / "CSI4_brainmask.nii.gz")
    masks = tmp_path / "derivatives" / "spm" / "sub-CSI4"
    masks.mkdir(parents=True)
    loc = np.zeros(SHAPE, np.int16)
    loc[2, 1, :2] = 1
    nibabel.save(nibabel.Nifti1Image(loc, AFFINE), masks / "sub-CSI4_mask-LHLOC.nii.gz")
    return tmp_path


def test_the_published_shapes_of_the_volumes(monkeypatch):
    monkeypatch.undo()
    shapes = [(71, 89, 72), (72, 92, 70), (72, 88, 67), (70, 89, 70)]
    assert [person.shape for person in bold5000_files.PEOPLE.values()] == shapes


@pytest.mark.parametrize("ending", ["nii.gz", "nii"])
def test_volumes_are_read_within_the_mask(volumes, ending):
    for file in volumes.glob("*_ses-*"):
        file.unlink()
    write_volumes(volumes, ending=ending)
    trials = BOLD5000(volumes, "b", norm="none").load("CSI4")
    voxels = trials.subject.voxels
    mask = np.ones(SHAPE, bool)
    mask[0] = mask[-1] = mask[1, 0] = False
    np.testing.assert_array_equal(voxels.mask, mask)
    np.testing.assert_array_equal(voxels.affine, AFFINE)
    assert voxels.projection is None
    assert trials.table["session"].unique().tolist() == [1, 5]
    assert trials.table["stimulus"].tolist() == [
        s for s, n in zip(STEMS, SESSION, strict=True) if n in (1, 5)
    ]
    for row, session, trial in ((0, 1, 0), (369, 1, 369), (370, 5, 0), (702, 5, 332)):
        np.testing.assert_array_equal(trials.betas[row], volume(session)[mask][:, trial])
    some = trials.betas[[700, 3, 400]]
    np.testing.assert_array_equal(some[1], volume(1)[mask][:, 3])


def test_volumes_are_z_scored_within_session_from_training_trials(volumes):
    trials = BOLD5000(volumes, "b", source="volume").load("CSI4")
    betas, table = trials.betas[:], trials.table
    for session in (1, 5):
        rows = ((table["session"] == session) & (table["split"] == "train")).to_numpy()
        np.testing.assert_allclose(betas[rows].mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(betas[rows].std(axis=0), 1, atol=1e-4)
    for _, rows in table.groupby(["stimulus", "split"]):
        assert rows["repeat"].tolist() == list(range(len(rows)))


def test_region_masks_lie_over_the_volume(volumes):
    voxels = BOLD5000(volumes, "b").load("CSI4").subject.voxels
    rois = voxels.parcellations["ROIs"]
    assert (rois.kind, [label.key for label in rois.labels]) == ("masks", ["LOC L"])
    x, y, z = np.nonzero(voxels.mask)
    places = set(
        zip(x[rois.membership[0]], y[rois.membership[0]], z[rois.membership[0]], strict=True)
    )
    assert places == {(2, 1, 0), (2, 1, 1)}


def test_volumes_say_what_is_lacking_and_why_there_is_no_map(volumes):
    said = BOLD5000(volumes, "b").remarks()
    assert any("CSI4 lacks session 2, 3, 4, 6, 7, 8, 9, so these trials" in r for r in said)
    assert any("own space and are not drawn on fsaverage5: that needs" in r for r in said)
    assert any(r.startswith("CSI4: 15 voxels were left out") for r in said)
    assert any("gunzip them" in r for r in said)
    write_rois(volumes)
    assert (
        "There are volume betas too; open them with ?source=volume."
        in BOLD5000(volumes, "b").remarks()
    )


def test_without_a_mask_the_voxels_that_change_are_taken(volumes):
    (volumes / "CSI4_brainmask.nii.gz").unlink()
    dataset = BOLD5000(volumes, "b")
    mask = np.ones(SHAPE, bool)
    mask[0] = mask[1, 0] = False
    np.testing.assert_array_equal(dataset.load("CSI4").subject.voxels.mask, mask)
    assert any("CSI4 has no brain mask (CSI4_brainmask.nii.gz of" in r for r in dataset.remarks())


def test_a_header_without_position_is_told(volumes):
    image = nibabel.Nifti1Image(volume(1), AFFINE)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nibabel.save(image, volumes / f"{D}_ses-01.nii.gz")
    (volumes / f"{D}_ses-05.nii.gz").unlink()
    assert any("state no position (sform and qform" in r for r in BOLD5000(volumes, "b").remarks())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"s5": np.zeros((72, 92, 70, 2), np.uint8)},
            r"shape \(72, 92, 70, 2\), the volume of CSI2; expected \(5, 4, 3, 333\) for CSI4's "
            "session 5",
        ),
        ({"s5": volume(5)[..., :-1]}, r"has shape \(5, 4, 3, 332\); expected \(5, 4, 3, 333\)"),
        ({"s1": volume(5)}, r"shape \(5, 4, 3, 333\); expected \(5, 4, 3, 370\) .* session 1"),
    ],
)
def test_another_volume_is_refused(volumes, change, sentence):
    write_volumes(volumes, **change)
    with pytest.raises(UserError, match=sentence):
        BOLD5000(volumes, "b").load("CSI4")


def test_a_session_that_lies_elsewhere_is_refused(volumes):
    image = nibabel.Nifti1Image(volume(5), AFFINE + np.eye(4) * [0.5, 0, 0, 0])
    nibabel.save(image, volumes / f"{D}_ses-05.nii.gz")
    with pytest.raises(UserError, match="another affine.*two subjects' files are mixed"):
        BOLD5000(volumes, "b").load("CSI4")


def test_a_tenth_session_of_csi4_is_refused(volumes):
    (volumes / f"{D}_ses-05.nii.gz").rename(volumes / f"{D}_ses-10.nii.gz")
    with pytest.raises(UserError, match="ses-10.nii.gz: CSI4 has sessions 1 to 9"):
        BOLD5000(volumes, "b").load("CSI4")


@pytest.mark.parametrize("keep", [0, 100, 20_000])
def test_a_volume_cut_short_is_refused(volumes, keep):
    spoil(volumes, "*ses-05.nii.gz", lambda b: b[:keep])
    with pytest.raises(
        UserError, match="ses-05.nii.gz is damaged or cut short .*; download it again"
    ) as caught:
        np.asarray(BOLD5000(volumes, "b").load("CSI4").betas[[500]])
    assert "\n" not in str(caught.value)


def test_an_unpacked_volume_cut_short_is_refused(volumes):
    (volumes / f"{D}_ses-05.nii.gz").unlink()
    write_volumes(volumes, sessions=(5,), ending="nii")
    spoil(volumes, "*ses-05.nii", lambda b: b[:-400])
    with pytest.raises(UserError, match="ses-05.nii is damaged or cut short .*; download it"):
        np.asarray(BOLD5000(volumes, "b").load("CSI4").betas[[-1]])


def test_a_mask_of_another_shape_is_refused(volumes):
    image = nibabel.Nifti1Image(np.ones((3, 3, 3), np.uint8), AFFINE)
    nibabel.save(image, volumes / "CSI4_brainmask.nii.gz")
    with pytest.raises(
        UserError, match=r"brainmask.nii.gz has shape \(3, 3, 3\), expected \(5, 4"
    ):
        BOLD5000(volumes, "b").load("CSI4")
