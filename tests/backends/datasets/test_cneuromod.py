"""CNeuroMod-THINGS: every beta keeps its run's picture; the split is by image and is stated."""

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
from scipy.stats import zscore

from backends.datasets.cneuromod import CNeuroModThings
from explorer.types import UserError
from tests.miniatures import cneuromod as mini

NAMES = np.concatenate(mini.shown(1)).tolist()


@pytest.fixture
def root(tmp_path):
    return mini.write_cneuromod(tmp_path, (1,))


def change(root, session, run, change_it):
    file = mini.events_file(root, 1, session, run)
    table = pd.read_csv(file, sep="\t", keep_default_na=False)
    change_it(table).to_csv(file, sep="\t", index=False)
    return file


def test_a_beta_is_that_of_its_runs_row(root):
    trials = CNeuroModThings(root, "c").load("sub-01")
    expected = zscore(mini.betas(1), axis=0)
    np.testing.assert_allclose(trials.betas[:], expected, rtol=1e-5, atol=1e-6)
    assert trials.table["stimulus"].tolist() == NAMES
    runs = [key for key in mini.RUNS for _ in range(mini.PER_RUN)]
    assert list(zip(trials.table["session"], trials.table["run"], strict=True)) == runs
    assert trials.beta_unit == "z-score over all of a person's trials (GLMsingle type D)"


def test_a_row_is_traced_to_its_run(root):
    betas = CNeuroModThings(root, "c").load("sub-01").betas
    (origin,) = betas.lies(3 * mini.PER_RUN + 2)
    assert (origin.key, origin.row) == ("10/1/betas", 2)
    with h5py.File(origin.file, locking=False) as file:
        stored = file[origin.key][origin.row]
    np.testing.assert_allclose(betas[3 * mini.PER_RUN + 2], stored, rtol=1e-6)


def test_columns_are_the_masks_voxels_in_order(root):
    voxels = CNeuroModThings(root, "c").load("sub-01").subject.voxels
    np.testing.assert_array_equal(voxels.mask, mini.mask())
    np.testing.assert_array_equal(voxels.affine, mini.AFFINE)
    assert voxels.projection is None


def test_repeats_count_the_showings_of_an_image(root):
    table = CNeuroModThings(root, "c").load("sub-01").table
    for name in mini.IMAGES:
        assert table["repeat"][table["stimulus"] == name].tolist() == [0, 1, 2]


@pytest.mark.parametrize("where", ["THINGS", "THINGS/glmsingle"])
def test_it_opens_at_any_floor_of_the_clone(root, where):
    trials = CNeuroModThings(root / where, "c").load("sub-01")
    assert trials.table["stimulus"].tolist() == NAMES


def test_whole_images_are_held_out_the_same_for_everybody(root):
    mini.write_cneuromod(root, (1, 3))
    study = CNeuroModThings(root, "c", seed="3")
    split = {}
    for who in study.subjects():
        trials = study.load(who)
        for stimulus, part in zip(trials.table["stimulus"], trials.table["split"], strict=True):
            assert split.setdefault(stimulus, part) == part
    assert set(split.values()) == {"train", "test"}
    other = CNeuroModThings(root, "c", seed="8").load("sub-01")
    assert set(other.stimuli("test")) != {s for s, part in split.items() if part == "test"}
    assert "by the hash of its name, seed 3; the authors state none" in study.split_by


def test_about_one_image_in_ten_is_held_out(root):
    study = CNeuroModThings(root, "c")
    sources = [f"c/c_{i:04d}.jpg" for i in range(4320)]
    assert 370 < study._split(sources).count("test") < 500


def test_concepts_are_held_out_whole(root):
    trials = CNeuroModThings(root, "c", split="category", seed="1").load("sub-01")
    of = {part: {s.rpartition("_")[0] for s in trials.stimuli(part)} for part in ("train", "test")}
    assert of["train"] and of["test"] and not of["train"] & of["test"]


def test_a_split_of_nothing_is_refused(root):
    for seed in range(40):
        study = CNeuroModThings(root, "c", split="category", seed=str(seed))
        if "test" not in study._split([f"{c}/{c}_01s.jpg" for c in mini.CONCEPTS]):
            with pytest.raises(UserError, match="all 16 images of sub-01 are in one split"):
                study.load("sub-01")
            return
    raise AssertionError("no seed of 40 holds out nothing of eight concepts")


def test_means_of_images_need_no_events(root):
    mini.write_images(root, 1)
    for file in (root / "THINGS" / "fmriprep").rglob("*_events.tsv"):
        file.unlink()
    trials = CNeuroModThings(root, "c", betas="images").load("sub-01")
    assert trials.table["stimulus"].tolist() == sorted(mini.IMAGES)
    file = mini.write_images(root / "again", 1)
    with h5py.File(file) as h5:
        for row, name in enumerate(sorted(mini.IMAGES)):
            np.testing.assert_allclose(trials.betas[row], h5[name]["betas"][:], rtol=1e-6)
    assert "answered trials of z-scores within session" in trials.beta_unit
    assert trials.betas.lies(4)[0].key == f"{sorted(mini.IMAGES)[4]}/betas"


def test_means_of_images_have_no_session(root):
    mini.write_images(root, 1)
    with pytest.raises(UserError, match="means of images are over sessions, so norm=session has"):
        CNeuroModThings(root, "c", betas="images", norm="session")


def test_raw_betas_say_so_and_z_scored_ones_go_first(root):
    raw = mini.write_trials(root, 1, zscored=False)
    assert "z-score over" in CNeuroModThings(root, "c").load("sub-01").beta_unit
    raw.with_name(raw.name.replace("_stats", "_desc-zscore_stats")).unlink()
    trials = CNeuroModThings(root, "c").load("sub-01")
    assert trials.beta_unit == "GLMsingle's beta (type D), not z-scored"
    np.testing.assert_allclose(trials.betas[:], mini.betas(1), rtol=1e-5)


def test_z_scores_that_were_scaled_are_refused(root):
    path = mini.write_trials(root, 1)
    with h5py.File(path, "a") as file:
        for session, run in mini.RUNS:
            file[f"{session}/{run}/betas"][...] *= 300
    with pytest.raises(UserError, match="named desc-zscore, .* mean square of about 1, found"):
        CNeuroModThings(root, "c").load("sub-01")
    path = mini.write_images(root, 1)
    with h5py.File(path, "a") as file:
        for name in mini.IMAGES:
            file[f"{name}/betas"][...] /= 100
    with pytest.raises(UserError, match="named desc-zscore, .* mean square of about 1, found"):
        CNeuroModThings(root, "c", betas="images").load("sub-01")


def test_sessions_are_standardised_by_their_training_trials(root):
    trials = CNeuroModThings(root, "c", norm="session").load("sub-01")
    of = ((trials.table["session"] == 1) & (trials.table["split"] == "train")).to_numpy()
    np.testing.assert_allclose(trials.betas[of].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(trials.betas[of].std(axis=0), 1, rtol=1e-3)


def test_ceilings_are_percent_of_a_mean_of_three(root):
    subject = CNeuroModThings(root, "c").load("sub-01").subject
    part = np.linspace(0, 60, 42) / 100
    np.testing.assert_allclose(subject.ncsnr**2 / (subject.ncsnr**2 + 1 / 3), part, atol=1e-6)
    file = mini.write_ceilings(root, 1)
    image = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(image.get_fdata() / 100, mini.AFFINE), file)
    with pytest.raises(UserError, match="ceilings are in percent here, found at most 0.6, which"):
        CNeuroModThings(root, "c").load("sub-01")


def test_maps_in_another_space_are_refused(root):
    for file in (mini.write_ceilings(root, 1), mini.write_roi(root, 1)):
        image = nibabel.load(file)
        elsewhere = nibabel.Nifti1Image(image.get_fdata(), np.diag([3.0, 3.0, 3.0, 1.0]))
        nibabel.save(elsewhere, file)
        with pytest.raises(UserError, match="of another person or in another space, so voxels"):
            CNeuroModThings(root, "c").load("sub-01")
        nibabel.save(image, file)


def test_two_spaces_are_not_mixed(root):
    path = mini.write_trials(root, 1)
    other = path.with_name(path.name.replace("space-T1w", "space-MNI"))
    other.write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"betas in MNI and T1w, .* choose one with \?space=T1w"):
        CNeuroModThings(root, "c")
    assert "MNI" not in CNeuroModThings(root, "c", space="T1w").load("sub-01").betas.source
    assert "MNI" in CNeuroModThings(root, "c", space="MNI").load("sub-01").betas.source


def test_regions_are_the_localisers_masks(root):
    whole = CNeuroModThings(root, "c").load("sub-01")
    rois = whole.subject.voxels.parcellations["ROIs"]
    assert [label.name for label in rois.labels] == ["FFA"]
    assert np.flatnonzero(rois.membership[0]).tolist() == [0, 1, 2, 3, 4]
    part = CNeuroModThings(root, "c", roi="FFA").load("sub-01")
    np.testing.assert_array_equal(part.betas[:], whole.betas[:][:, :5])
    assert part.subject.voxels.mask.sum() == 5
    with pytest.raises(UserError, match="roi is one of all, FFA, not 'V1'"):
        CNeuroModThings(root, "c", roi="V1").load("sub-01")


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t: t.iloc[:-1], r"betas \(12, 42\) for session 2, run 1; its events list 11"),
        (lambda t: t.assign(TrialNumber=t["TrialNumber"] - 1), "TrialNumber counts from 1 in"),
        (lambda t: t.iloc[::-1], "TrialNumber counts from 1 in the order of the betas' rows"),
        (lambda t: t.assign(onset=t["onset"].to_numpy()[::-1]), "onset rises from row to row"),
        (lambda t: t.assign(run_id=4), "says run_id 4, expected 1 as in its name"),
        (lambda t: t.assign(session_id="ses-003"), "says session_id 3, expected 2 as in its"),
        (lambda t: t.assign(subject_id="sub-02"), "says subject_id 2, expected 1 as in its"),
        (lambda t: t.drop(columns="image_path"), "12 rows and no column image_path, which names"),
        (lambda t: t.assign(image_path="camel"), "'camel' is no picture of the concept ''"),
    ],
)
def test_events_that_are_not_those_of_the_betas_are_refused(root, edit, says):
    change(root, 2, 1, edit)
    with pytest.raises(UserError, match=says):
        CNeuroModThings(root, "c").load("sub-01")


def test_a_run_without_events_is_refused(root):
    mini.events_file(root, 1, 2, 1).unlink()
    with pytest.raises(UserError, match="session 2, run 1, and sub-01_ses-02_task.*datalad get"):
        CNeuroModThings(root, "c").load("sub-01")


def test_links_that_were_not_fetched_are_named(root):
    mini.write_cneuromod(root, (1, 3))
    file = next((root / "THINGS").rglob("sub-03_*trialBetas*.h5"))
    file.unlink()
    file.symlink_to("../.git/annex/objects/nothing.h5")
    study = CNeuroModThings(root, "c")
    assert study.subjects() == ["sub-01"]
    assert "sub-03: the betas are links whose content was not fetched" in " ".join(study.remarks())
    events = mini.events_file(root, 1, 1, 1)
    events.unlink()
    events.symlink_to("nothing.tsv")
    with pytest.raises(UserError, match="run-01_events.tsv is missing, .* datalad get"):
        CNeuroModThings(root, "c").load("sub-01")
    next((root / "THINGS").rglob("sub-01_*trialBetas*.h5")).unlink()
    assert CNeuroModThings.recognise(root)
    with pytest.raises(UserError, match="links to betas and none of their content; fetch it: da"):
        CNeuroModThings(root, "c")


def test_sessions_out_of_order_and_lost_runs_are_named(tmp_path):
    mini.write_cneuromod(tmp_path, (6,))
    for session, run in ((2, 1),):
        source = mini.events_file(tmp_path, 6, session, run)
        table = pd.read_csv(source, sep="\t").assign(session_id="ses-020", not_for_memory=True)
        table.to_csv(mini.events_file(tmp_path, 6, 20, run), sep="\t", index=False)
        with h5py.File(next(tmp_path.rglob("*trialBetas*.h5")), "a") as file:
            file.move("2", "20")
    said = " ".join(CNeuroModThings(tmp_path, "c").remarks())
    assert "sub-06: session 20 was given out of the planned order" in said
    assert "all of session 2, 3, 4, 5, 6, 7, 8, 9, 11" in said
    assert "16 images, 16 shown 3 x; planned were 3,840 x 3" in said
    assert "are another showing of their image by the events than by their order here" in said


def test_the_run_that_the_authors_left_out_is_explained(tmp_path):
    mini.write_cneuromod(tmp_path, (6,))
    with h5py.File(next(tmp_path.rglob("*trialBetas*.h5")), "a") as file:
        file.move("2", "8")
    source = mini.events_file(tmp_path, 6, 2, 1)
    table = pd.read_csv(source, sep="\t").assign(session_id="ses-008")
    table.to_csv(mini.events_file(tmp_path, 6, 8, 1), sep="\t", index=False)
    said = " ".join(CNeuroModThings(tmp_path, "c").remarks())
    assert "sub-06 lacks session 8 run 6, " in said
    assert "session 8 run 6: the authors left it out, the brain was not aligned" in said


def test_missing_repeats_are_counted(root):
    def other(table):
        return table.assign(image_path=table["image_path"].mask(table.index == 0, "x/x_01b.jpg"))

    change(root, 1, 1, other)
    said = " ".join(CNeuroModThings(root, "c").remarks())
    assert "17 images, 1 shown 1 x, 1 shown 2 x, 15 shown 3 x; planned were 4,320 x 3" in said


def test_a_mask_that_is_none_and_groups_that_are_no_numbers_are_refused(root):
    path = mini.write_trials(root, 1)
    with h5py.File(path, "a") as file:
        file["mask_array"][0, 0, 0] = 2
    with pytest.raises(UserError, match="mask_array is a volume of 0 and 1 .* values 0 to 2"):
        CNeuroModThings(root, "c").load("sub-01")
    with h5py.File(path, "a") as file:
        file.move("1", "one")
    with pytest.raises(UserError, match="groups session/run, both numbers, found 'one' with 1, 2"):
        CNeuroModThings(root, "c").load("sub-01")
