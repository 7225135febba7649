"""Deep image reconstruction: names from vmap, one order of voxels, no category in both splits."""

import h5py
import numpy as np
import pytest
from PIL import Image

from backends.datasets.deeprecon import Deeprecon
from explorer.types import UserError
from tests.miniatures.deeprecon import FILES, SHOWN, TRAIN, VOXELS, write_deeprecon, write_kind


@pytest.fixture
def written(tmp_path):
    return tmp_path, write_deeprecon(tmp_path)


def test_samples_carry_the_names_of_vmap_and_rest_is_left_out(written):
    root, voxels = written
    trials = Deeprecon(root, "d", norm="none").load("sub-01")
    assert trials.table["stimulus"].tolist() == TRAIN * 2 + SHOWN["natural"] * 3
    assert trials.table["split"].tolist() == ["train"] * 8 + ["test"] * 6
    assert trials.table["repeat"].tolist() == [0] * 4 + [1] * 4 + [0, 0, 1, 1, 2, 2]
    expected = np.vstack([voxels["training"], voxels["natural"]])[:, :4]  # ROI_VC
    assert np.allclose(trials.betas[:], expected, atol=1e-6)
    assert np.allclose(trials.betas[[13, 0, 8]], expected[[13, 0, 8]], atol=1e-6)


def test_test_trials_are_scaled_by_the_training_trials_alone(written):
    root, voxels = written
    betas = Deeprecon(root, "d", roi="all").load("sub-01").betas[:]
    mean, sd = voxels["training"].mean(axis=0), voxels["training"].std(axis=0, ddof=1)
    assert betas.shape == (14, VOXELS)
    assert np.allclose(betas[8:], (voxels["natural"] - mean) / sd, atol=1e-4)


def test_shapes_are_another_test_and_what_is_not_here_is_said(written):
    root, _ = written
    study = Deeprecon(root, "d", trials="shapes")
    assert study.load("sub-01").stimuli("test") == SHOWN["shapes"]
    assert "nothing like" in study.note
    with pytest.raises(UserError, match="expected files of training and letters trials of one"):
        Deeprecon(root, "d", trials="letters")
    with pytest.raises(UserError, match="trials is one of natural, shapes, letters, imagery, not"):
        Deeprecon(root, "d", trials="dreams")


def test_categories_are_synsets_and_pictures_are_found_by_name(written):
    root, _ = written
    (root / "images" / "training").mkdir(parents=True)
    Image.new("RGB", (5, 4), (9, 8, 7)).save(root / "images" / "training" / f"{TRAIN[0]}.png")
    study = Deeprecon(root, "d")
    assert study.stimuli.loc[TRAIN[0], "category"] == "n01518878"
    assert study.image(TRAIN[0])[0, 0].tolist() == [9, 8, 7]
    with pytest.raises(
        UserError, match="the picture of n01443537_22563 is not in .*images; the n"
    ):
        study.image("n01443537_22563")
    assert any("5 of 6 pictures are not here" in said for said in study.remarks())
    assert not any("categories are in training and test" in said for said in study.remarks())


def test_a_category_in_both_splits_is_told(tmp_path):
    write_deeprecon(tmp_path)
    write_kind(tmp_path / FILES["natural"].format(who="sub-01"), ["n01518878_1", "n09_2"], 1)
    (said,) = [s for s in Deeprecon(tmp_path, "d").remarks() if "in training and test" in s]
    assert said.startswith("1 categories are in training and test (n01518878 ...)")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("no names", "nothing says which picture the numbers of stimulus_name are"),
        ("other voxels", r"put their voxels at other places \(voxel_x\)"),
        ("trained test", "n01518878_5958 and 0 more of its pictures are in the training file too"),
        ("a name missing", "stimulus_name 2 is not among the 1 names of vmap"),
        (
            "two generations",
            "are both the training trials of sub-01; keep those of one generation",
        ),
    ],
)
def test_what_does_not_fit_is_refused(written, spoil, message):
    root, _ = written
    natural = root / FILES["natural"].format(who="sub-01")
    if spoil == "no names":
        write_kind(natural, SHOWN["natural"], 3, named=False)
    elif spoil == "other voxels":
        write_kind(natural, SHOWN["natural"], 3, places=np.arange(VOXELS)[::-1].astype(float))
    elif spoil == "trained test":
        write_kind(natural, ["n01443537_22563", TRAIN[1]], 3)
    elif spoil == "a name missing":
        with h5py.File(natural, "r+") as h5:
            del h5["vmap/stimulus_name/2.0"]
    else:
        write_kind(root / "sub-01_perceptionNaturalImageTraining_original_VC.h5", TRAIN, 1)
    with pytest.raises(UserError, match=message):
        Deeprecon(root, "d").load("sub-01")


def test_people_without_both_files_are_left_out_and_said(written):
    root, _ = written
    write_kind(root / FILES["training"].format(who="sub-02"), TRAIN, 1)
    study = Deeprecon(root, "d")
    assert study.subjects() == ["sub-01"]
    assert any(said.startswith("sub-02: files of training or natural") for said in study.remarks())
