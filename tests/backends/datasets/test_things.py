"""THINGS-fMRI: every beta keeps its voxel, trial and picture, from the table and the volumes."""

import numpy as np
import pandas as pd
import pytest

from backends.datasets.things import ThingsFMRI
from backends.datasets.things_files import ncsnr_of_percent
from explorer.types import Label, UserError
from tests.miniatures import things

STIMULI = [*things.trials()["stimulus"].str.removesuffix(".jpg")]


@pytest.fixture
def root(tmp_path):
    return things.write_tables(tmp_path / "files")


@pytest.fixture
def opened(root, tmp_path):
    def open_it(**options):
        return ThingsFMRI(root, "t", cache=str(tmp_path / "cache"), **options)

    return open_it


def table_of(root, kind, subject=1):
    file = root / "betas_csv" / f"sub-{subject:02d}_{kind}.csv"
    return pd.read_csv(file), file


def change(root, kind, **columns):
    table, file = table_of(root, kind)
    table.assign(**columns).to_csv(file, index=False)


def test_a_beta_is_that_of_its_voxel_and_trial(opened):
    trials = opened(roi="all").load("sub-01")
    np.testing.assert_allclose(trials.betas[:], things.betas().T, rtol=1e-6)
    assert trials.table["stimulus"].tolist() == STIMULI
    assert trials.table["session"].tolist() == things.trials()["session"].tolist()
    assert trials.table["split"].tolist() == things.trials()["trial_type"].tolist()


def test_few_trials_are_read_without_the_cache_and_are_the_same(opened, tmp_path):
    betas = opened(roi="all").load("sub-01").betas
    alone = betas[[5, 2]]
    assert not (tmp_path / "cache").exists()
    every = betas[:]
    np.testing.assert_array_equal(alone, every[[5, 2]])
    (file,) = (tmp_path / "cache" / "things-fmri").iterdir()
    assert np.load(file).shape == every.shape and "sub-01" in file.name
    np.testing.assert_array_equal(opened(roi="all").load("sub-01").betas[:], every)


def test_another_file_or_choice_of_voxels_has_a_cache_of_its_own(opened, root, tmp_path):
    opened(roi="V1").load("sub-01").betas[:]
    small = opened(roi="FFA").load("sub-01").betas[:]
    np.testing.assert_allclose(small, things.betas().T[:, [20, 21, 22, 40]], rtol=1e-6)
    file = root / "betas_csv" / "sub-01_ResponseData.h5"
    things.write_frame(-things.frame().assign(voxel_id=-things.frame()["voxel_id"]), file)
    np.testing.assert_allclose(opened(roi="FFA").load("sub-01").betas[:], -small, rtol=1e-6)
    assert len(list((tmp_path / "cache" / "things-fmri").iterdir())) == 3


def test_rows_and_columns_are_joined_by_name(opened, root):
    order = np.random.default_rng(0).permutation(len(STIMULI))
    table, file = table_of(root, "StimulusMetadata")
    table.iloc[order].to_csv(file, index=False)
    frame = things.frame()
    shuffled = frame[["voxel_id", *np.roll(order, 3).tolist()]]
    things.write_frame(shuffled, root / "betas_csv" / "sub-01_ResponseData.h5")
    trials = opened(roi="all").load("sub-01")
    np.testing.assert_allclose(trials.betas[:], things.betas().T, rtol=1e-6)
    assert trials.table["stimulus"].tolist() == STIMULI
    assert trials.betas.lies(4)[0].row == np.roll(order, 3).tolist().index(4)


def test_a_packed_table_is_read_alike(opened, root):
    file = root / "betas_csv" / "sub-01_ResponseData.h5"
    things.write_frame(things.frame(), file, complib="zlib", complevel=4)
    betas = opened(roi="all").load("sub-01").betas
    np.testing.assert_allclose(betas[[3]], things.betas().T[[3]], rtol=1e-6)


def test_regions_are_masks_with_their_sides(opened):
    atlases = opened(roi="all").load("sub-01").subject.voxels.parcellations
    rois = dict(zip(atlases["ROIs"].labels, atlases["ROIs"].membership, strict=True))
    assert np.flatnonzero(rois[Label("FFA", "L")]).tolist() == [20, 21, 22]
    assert np.flatnonzero(rois[Label("LO1 (prf)")]).tolist() == [4, 5, 6, 7, 8]
    glasser = atlases["Glasser"]
    assert [label.name for label in glasser.labels] == ["V1", "p9-46v"]


def test_default_voxels_are_those_of_the_studys_own_regions(opened):
    trials = opened().load("sub-01")
    expected = [*range(9), 20, 21, 22, 40]
    np.testing.assert_allclose(trials.betas[0], things.betas()[expected, 0], rtol=1e-6)
    assert "13 voxels (roi=visual)" in " ".join(opened().remarks())
    with pytest.raises(UserError, match="roi is one of all, visual, V1, .*FFA.*, glasser-AREA"):
        opened(roi="V9").load("sub-01")


def test_ceilings_in_percent_give_the_authors_ncsnr():
    # nc_singletrial and nc_testset of voxels 1, 2 and 4 in the authors' fmri_usage.ipynb
    single = np.array([1.102513, 2.134454, 0.446367])
    tested = np.array([11.799193, 20.743164, 5.105714])
    np.testing.assert_allclose(
        ncsnr_of_percent(single, 1, "a"), ncsnr_of_percent(tested, 12, "b"), rtol=1e-4
    )
    assert ncsnr_of_percent(np.array([50.0]), 1, "a") == pytest.approx(1)


def test_ceilings_that_are_fractions_or_of_other_files_are_refused(opened, root):
    table, _ = table_of(root, "VoxelMetadata")
    change(root, "VoxelMetadata", nc_singletrial=table["nc_singletrial"] / 100)
    with pytest.raises(UserError, match="in percent here, found at most 0.4, which are fractions"):
        opened().load("sub-01")
    change(root, "VoxelMetadata", nc_singletrial=table["nc_singletrial"] * 3)
    with pytest.raises(UserError, match="lies from 0 to below 100, found 0 to 120"):
        opened().load("sub-01")
    change(root, "VoxelMetadata", nc_singletrial=table["nc_singletrial"][::-1].to_numpy())
    with pytest.raises(UserError, match="give voxel .* for 1 and 12 trials; both are one number"):
        opened().load("sub-01")


def test_scaled_betas_are_refused(opened, root):
    frame = things.frame()
    wild = np.random.default_rng(0).normal(0, 0.1, things.betas().shape)
    frame[list(range(len(STIMULI)))] = 300 * wild
    things.write_frame(frame, root / "betas_csv" / "sub-01_ResponseData.h5")
    with pytest.raises(UserError, match="an SD of some 0.1 over trials, found [23].*scaled"):
        opened().load("sub-01")


def test_trial_ids_that_count_from_1_are_refused(opened, root):
    change(root, "StimulusMetadata", trial_id=np.arange(1, len(STIMULI) + 1))
    wrong = r"trials 0 to 15 \(16\) and the StimulusMetadata the trial_ids 1 to 16 \(16\)"
    with pytest.raises(UserError, match=wrong):
        opened().load("sub-01")


def test_sessions_and_runs_that_count_from_0_are_refused(opened, root):
    for name in ("session", "run"):
        change(root, "StimulusMetadata", **{name: things.trials()[name] - 1})
        with pytest.raises(UserError, match=f"{name}s are counted from 1 in this study, found 0"):
            opened().load("sub-01")
        things.write_tables(root)


def test_files_of_two_people_are_refused(opened, root):
    for kind in ("StimulusMetadata", "VoxelMetadata"):
        change(root, kind, subject_id=2)
        with pytest.raises(UserError, match=f"sub-01_{kind}.csv says that it is of subject 2"):
            opened().load("sub-01")
        things.write_tables(root)
    change(root, "VoxelMetadata", voxel_id=np.arange(42) + 1)
    with pytest.raises(UserError, match="row 0 is voxel 0 and that of the VoxelMeta.* is voxel 1"):
        opened().load("sub-01")
    table, file = table_of(root, "VoxelMetadata")
    table.iloc[:-1].to_csv(file, index=False)
    with pytest.raises(UserError, match="has 42 voxels and the VoxelMetadata 41"):
        opened().load("sub-01")


def test_voxels_of_another_space_than_the_brain_mask_are_refused(opened, root):
    things.write_mask(root)
    table, _ = table_of(root, "VoxelMetadata")
    space = opened(roi="V1").load("sub-01").subject.voxels
    assert space.mask.sum() == 6 and (space.mask <= things.brain()).all()
    np.testing.assert_array_equal(space.affine, things.AFFINE)
    change(root, "VoxelMetadata", voxel_z=table["voxel_z"] + 1)
    with pytest.raises(UserError, match="not the same ones in the order of the volume .indices"):
        opened().load("sub-01")


def test_a_picture_that_is_not_of_its_concept_is_refused(opened, root):
    change(root, "StimulusMetadata", concept=np.roll(things.trials()["concept"], 1))
    with pytest.raises(UserError, match="'dog_12s.jpg' is no picture of the concept 'candelabra'"):
        opened().load("sub-01")


def test_a_picture_of_both_splits_and_catch_trials_in_the_table_are_refused(opened, root):
    kinds = things.trials()["trial_type"].to_numpy(copy=True)
    kinds[1] = "train"
    change(root, "StimulusMetadata", trial_type=kinds)
    with pytest.raises(UserError, match="candelabra_14s.jpg is shown in training and in test"):
        opened().load("sub-01")
    kinds[1] = "catch"
    change(root, "StimulusMetadata", trial_type=kinds)
    with pytest.raises(UserError, match="train or test in the table .*, found 'catch'"):
        opened().load("sub-01")


def test_what_the_tables_lack_is_named(opened, root):
    table, file = table_of(root, "VoxelMetadata")
    for columns, says in (
        (table.drop(columns="voxel_y"), "has no column voxel_y; it has voxel_id, subject_id, vox"),
        (table.assign(V1=table["V1"] * 2), "V1 marks a region with 0 and 1, found up to 2"),
        (table.iloc[:0], "VoxelMetadata.csv has no row, expected one for every voxel"),
    ):
        columns.to_csv(file, index=False)
        with pytest.raises(UserError, match=says):
            opened().load("sub-01")
    file.unlink()
    with pytest.raises(UserError, match="VoxelMetadata.csv is missing; it says what each voxel"):
        opened().load("sub-01")
    (root / "betas_csv" / "sub-01_StimulusMetadata.csv").unlink()
    with pytest.raises(UserError, match="StimulusMetadata.csv is missing; it says which picture"):
        opened().load("sub-01")


def test_zero_shot_leaves_out_training_images_of_test_concepts(opened, root):
    trials = opened(split="zero-shot").load("sub-01")
    kept = [i for i, s in enumerate(STIMULI) if s != "mango_12s"]
    assert trials.table["stimulus"].tolist() == [STIMULI[i] for i in kept]
    every = opened().load("sub-01").betas[:]
    np.testing.assert_array_equal(trials.betas[:], every[kept])
    assert "neuralfetch" in opened(split="zero-shot").split_by
    assert "1 training trials are left out" in " ".join(opened(split="zero-shot").remarks())
    # Numbers tell homonyms apart and are dropped, as there: bat1 goes where bat2 is tested.
    kinds = things.trials()["trial_type"].mask(things.trials()["concept"] == "bat2", "test")
    change(root, "StimulusMetadata", trial_type=kinds)
    assert "bat1_05b" not in set(opened(split="zero-shot").load("sub-01").table["stimulus"])


def test_sessions_are_standardised_by_their_training_trials(opened):
    trials = opened(norm="session", roi="V1").load("sub-01")
    for session in (1, 2):
        of = (trials.table["session"] == session) & (trials.table["split"] == "train")
        part = trials.betas[of.to_numpy()]
        np.testing.assert_allclose(part.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(part.std(axis=0), 1, rtol=1e-3)
    assert trials.beta_unit == "z-score within session (by its training trials)"


def test_what_differs_from_the_published_counts_is_named(opened, root):
    said = " ".join(opened().remarks())
    assert "8 training trials of 8 images, 2 test images x 4; published are 8,640 once" in said
    assert "sub-02, sub-03 of sub-01, sub-02, sub-03 are not here" in said
    assert "all of session 3, 4, 5, 6, 7, 8, 9, 10, 11, 12" in said
    table, file = table_of(root, "StimulusMetadata")
    table[table["trial_id"] != 15].to_csv(file, index=False)
    file = root / "betas_csv" / "sub-01_ResponseData.h5"
    things.write_frame(things.frame().drop(columns=15), file)
    assert "2 test images x 3 or 4; published" in " ".join(opened().remarks())


def test_the_run_that_openneuro_lacks_is_named_for_that_person(root, tmp_path):
    things.write_tables(root, 2)
    first, second = (
        next(line for line in ThingsFMRI(root, "t").remarks() if line.startswith(f"{who} lacks"))
        for who in ("sub-01", "sub-02")
    )
    assert "session 3 run 7 is not in OpenNeuro's ds004192 either" in second
    assert "OpenNeuro" not in first


def test_it_opens_without_pictures_and_says_so(opened, root):
    study = opened()
    assert study.picture_origin("dog_12s") is None
    with pytest.raises(UserError, match=r"picture of dog_12s .* osf.io/jum2f .*\?images=FOLDER"):
        study.image("dog_12s")
    assert "10 of 10 pictures are not here" in " ".join(study.remarks())
    sources = (*things.TRAIN, *things.TESTS)
    things.write_pictures(root)
    assert opened().stimuli.loc["mango_12s", "category"] == "mango"
    assert opened().ids("mango_12s") == {
        "THINGS' file": "mango/mango_12s.jpg",
        "THINGS' concept": "mango",
    }
    for source in sources:
        name = source.split("/")[1].removesuffix(".jpg")
        assert opened().picture_origin(name).file.endswith(f"THINGS-images/{source}")


# ----------------------------------------------------------------------------------------- volumes


def test_volumes_give_the_same_betas_without_catch_trials(tmp_path):
    study = ThingsFMRI(things.write_volumes(tmp_path), "t")
    trials = study.load("sub-01")
    np.testing.assert_allclose(trials.betas[:], things.betas().T, rtol=1e-6)
    assert trials.table["stimulus"].tolist() == STIMULI
    assert trials.table["split"].tolist() == things.trials()["trial_type"].tolist()
    assert trials.betas.lies(1)[0].row == 2  # the catch trial came second
    assert "4 catch trials, which show no object, are left out" in " ".join(study.remarks())
    assert "an image of more than one session is a test image" in study.split_by


def test_unpacked_volumes_are_read_trial_by_trial(tmp_path):
    import gzip

    root = things.write_volumes(tmp_path)
    assert "packed volumes are unpacked a run at a time" in " ".join(
        ThingsFMRI(root, "t").remarks()
    )
    for file in (root / "betas_vol").rglob("*.nii.gz"):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
    study = ThingsFMRI(root, "t")
    np.testing.assert_allclose(study.load("sub-01").betas[:], things.betas().T, rtol=1e-6)
    assert study.load("sub-01").betas.lies(1)[0].file.endswith("run-01_betas.nii")
    assert "packed" not in " ".join(study.remarks())


def test_volumes_take_regions_and_split_from_the_tables(root):
    things.write_volumes(root)
    trials = ThingsFMRI(root, "t", source="volumes", roi="FFA").load("sub-01")
    expected = things.betas().T[:, [20, 21, 22, 40]]
    np.testing.assert_allclose(trials.betas[:], expected, rtol=1e-6)
    rows = things.trials().assign(stimulus=np.roll(things.trials()["stimulus"], 2))
    change(root, "StimulusMetadata", stimulus=rows["stimulus"], concept=np.roll(rows.concept, 2))
    with pytest.raises(UserError, match="session 1, run 1 shows 4 pictures .*or in another"):
        ThingsFMRI(root, "t", source="volumes").load("sub-01")


def test_one_session_alone_does_not_say_which_images_are_test(tmp_path):
    root = things.write_volumes(tmp_path)
    for file in (root / "betas_vol" / "sub-01" / "ses-things02").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="with one session nothing says which images are test"):
        ThingsFMRI(root, "t").load("sub-01")


def test_volumes_of_another_place_or_length_are_refused(tmp_path):
    import nibabel

    root = things.write_volumes(tmp_path)
    file = next((root / "betas_vol").rglob("*ses-things02_run-01_betas.nii.gz"))
    data = nibabel.load(file).get_fdata()
    for values, affine, says in (
        (data, np.diag([3.0, 3, 3, 1]), "lies elsewhere than the brain mask .another affine"),
        (data[:, :3], things.AFFINE, "expected volumes of .3, 4, 5. as the brain mask has"),
        (data[..., :-1], things.AFFINE, "has 4 volumes and .*_conditions.tsv lists 5"),
    ):
        nibabel.save(nibabel.Nifti1Image(values, affine), file)
        with pytest.raises(UserError, match=says):
            ThingsFMRI(root, "t").load("sub-01")


def test_scaled_volumes_are_refused(tmp_path):
    import nibabel

    root = things.write_volumes(tmp_path)
    file = next((root / "betas_vol").rglob("*ses-things01_run-01_betas.nii.gz"))
    data = 300 * nibabel.load(file).get_fdata()
    nibabel.save(nibabel.Nifti1Image(data, things.AFFINE), file)
    with pytest.raises(UserError, match="an SD of some 0.1 over voxels, found 36.4; they were"):
        ThingsFMRI(root, "t").load("sub-01")
