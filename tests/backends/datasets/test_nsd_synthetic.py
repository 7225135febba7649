"""NSD-synthetic: every trial shows its picture, repeats are unequal, voxels are NSD's own."""

import h5py
import numpy as np
import pandas as pd
import pytest

from backends.datasets.nsd import NSD
from backends.datasets.nsd_synthetic import unequal_ncsnr
from explorer.types import UserError
from tests.miniatures.nsd import (
    B3,
    FSAVERAGE,
    INSIDE,
    betas_folder,
    make,
    save_hemisphere,
    save_surface,
    save_volume,
)
from tests.miniatures.nsd_parts import (
    CLASSES,
    ORDER,
    ORDER_PLACE,
    numbered,
    save_order,
    save_part,
    trial_of,
    write_synthetic,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Session 1 of the main experiment and NSD-synthetic of subject 1; only to be read."""
    return write_synthetic(make(tmp_path_factory.mktemp("synthetic")))


def opened(root, **options) -> NSD:
    return NSD(root, "nsd-synthetic", part="synthetic", **options)


@pytest.mark.parametrize("ending", ["hdf5", "nii", "nii.gz"])
def test_every_trial_is_the_row_its_betas_were_planted_in(tmp_path, ending):
    save_order(make(tmp_path, ()))
    save_part(tmp_path, "synthetic", numbered(744), ending)
    trials = opened(tmp_path, norm="none").load("subj01")
    betas = trials.betas[:]
    assert (betas.shape, betas.dtype) == ((744, 80), np.float32)
    assert trial_of(betas).tolist() == list(range(1, 745))
    np.testing.assert_allclose(betas[700], numbered(744)[..., 700][INSIDE] / 300, rtol=1e-6)
    assert trials.beta_unit == "percent signal change"


def test_the_order_counts_from_1_and_the_last_64_are_a_persons_own(root):
    trials = opened(root).load("subj01")
    number = [int(s.split("-")[1]) for s in trials.table["stimulus"]]
    np.testing.assert_array_equal(number, ORDER - 1)
    own = {s for s in trials.table["stimulus"] if s.endswith("-subj01")}
    assert own == {f"synthetic-{k}-subj01" for k in range(220, 284)}
    assert set(trials.table["split"]) == {"test"}
    assert trials.table["run"].tolist() == np.repeat(np.arange(8) + 1, 93).tolist()
    tasks = trials.table.groupby("run")["task"].unique()
    assert [list(t) for t in tasks] == [["fixation"], ["one-back"]] * 4
    table = trials.table
    again = table["one_back"].to_numpy()
    assert again.sum() >= 80
    assert (table["stimulus"].to_numpy()[again] == table["stimulus"].shift()[again]).all()
    for _, rows in table.groupby("stimulus"):
        assert rows["repeat"].tolist() == list(range(len(rows)))
        assert len(rows) >= 2


def test_the_first_trial_of_a_run_repeats_nothing_of_the_run_before(tmp_path):
    root = write_synthetic(make(tmp_path, ()))
    order = np.sort(ORDER)
    assert (order[93::93] == order[92:-1:93]).any()
    save_order(root, order)
    again = opened(root).load("subj01").table["one_back"].to_numpy()
    assert not again[::93].any()
    assert again.sum() > 400


def test_voxels_are_those_of_the_main_experiment(tmp_path):
    root = write_synthetic(make(tmp_path))
    main, part = NSD(root, "nsd").load("subj01"), opened(root).load("subj01")
    assert part.subject.voxels.hash == main.subject.voxels.hash
    unusable = np.zeros(INSIDE.shape, np.float32)
    unusable[2, 3, 1] = np.nan  # was not measured in a session of the main experiment
    save_volume(betas_folder(root) / "ncsnr.nii.gz", unusable + 0.5)
    main, part = NSD(root, "nsd").load("subj01"), opened(root).load("subj01")
    assert main.subject.voxels.n_voxels == 79
    assert part.subject.voxels.hash == main.subject.voxels.hash
    np.testing.assert_array_equal(part.subject.ncsnr, main.subject.ncsnr)
    folder = betas_folder(root, prep="nsdsynthetic" + B3)
    folder.rename(folder.with_name("nsdsyntheticbetas_fithrf"))  # another preparation than main's
    part = opened(root)
    assert part.prep == "b2"
    assert part.load("subj01").subject.voxels.hash == main.subject.voxels.hash


def test_z_scores_are_over_all_trials_of_the_session(tmp_path):
    root = write_synthetic(make(tmp_path, ()))
    stored = np.random.default_rng(1).integers(-900, 900, (*INSIDE.shape, 744), dtype=np.int16)
    stored[2, 3, 1] = 7
    save_part(root, "synthetic", stored)
    trials = opened(root).load("subj01")
    assert trials.beta_unit == "z-score within session"
    values = stored[INSIDE].T / 300
    sd = values.std(axis=0)
    expected = (values - values.mean(axis=0)) / np.where(sd > 1e-9, sd, np.inf)
    np.testing.assert_allclose(trials.betas[:], expected, atol=1e-4)


def test_a_picture_is_its_row_of_its_file(root):
    study = opened(root)
    for name, row, own in (
        ("synthetic-000", 0, 0),
        ("synthetic-219", 219, 0),
        ("synthetic-220-subj01", 0, 1),
        ("synthetic-283-subj01", 63, 1),
    ):
        picture = study.image(name)
        assert (picture.shape, picture.dtype) == ((714, 1360, 3), np.uint8)
        assert picture[-1, 0].tolist() == [row, own, 255 - row]
        assert (picture[: 3 + row] == 255).all()
        origin = study.picture_origin(name)
        assert (origin.row, origin.key) == (row, "imgBrick")
        with h5py.File(origin.file) as file:
            np.testing.assert_array_equal(file["imgBrick"][origin.row], picture)
    for wrong in ("synthetic-284", "synthetic-220", "synthetic-000-subj01", "synthetic-220-subj02",
                  "nsd-00000"):  # fmt: skip
        with pytest.raises(UserError, match="has the stimuli synthetic-000 to synthetic-219 and"):
            study.image(wrong)


def test_ids_are_told_with_their_bases_and_classes_by_row(root):
    study = opened(root)
    assert study.ids("synthetic-081") == {
        "NSD-synthetic's 284, from 0": "81",
        "NSD-synthetic's 284, from 1": "82",
        "NSD-synthetic's name": "picture_82",
    }
    assert study.stimuli.loc["synthetic-283-subj01", "category"] == CLASSES[3]
    assert study.stimuli.loc["synthetic-079", "category"] == CLASSES[0]
    assert study.test_only
    (origin,) = study.origins("subj01", 300)
    assert origin.file.endswith(f"nsdsynthetic{B3}/betas_nsdsynthetic.nii.gz")
    assert origin.row == 300
    assert origin.note == "int16, divided by 300, then z-score within session"


def test_ncsnr_of_unequal_repeats_finds_what_was_planted(root):
    """Known answers: by hand for three pictures, and a planted ratio over many."""
    betas = np.array([[1.0], [3.0], [0.0], [0.0], [3.0], [7.0]])
    images = ["a", "a", "b", "b", "b", "c"]
    noise = (2.0 + 6.0) / (1 + 2)  # squares within a and b over their degrees of freedom
    signal = np.var(betas, ddof=1) - noise
    np.testing.assert_allclose(unequal_ncsnr(betas, images), np.sqrt(signal / noise), rtol=1e-6)
    rng = np.random.default_rng(0)
    shown = np.repeat(np.arange(900), rng.integers(2, 9, 900))
    true = rng.normal(0, 1.5, (900, 4))
    many = true[shown] + rng.normal(0, 1, (len(shown), 4)) * [1, 2, 0, 1e6]
    many[:, 2] = 5
    found = unequal_ncsnr(many, shown)
    np.testing.assert_allclose(found[:2], [1.5, 0.75], rtol=0.08)
    assert found[2] == 0
    assert found[3] < 0.2
    with pytest.raises(UserError, match="ncsnr needs pictures that were shown twice or more"):
        unequal_ncsnr(betas[:2], ["a", "b"])
    raw = opened(root, norm="none").load("subj01")
    own = opened(root, ncsnr="own").load("subj01").subject.ncsnr
    np.testing.assert_allclose(own, unequal_ncsnr(raw.betas[:], raw.table["stimulus"]))
    assert opened(root).load("subj01").subject.ncsnr is None  # the main experiment's is not here


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (ORDER - 1, "masterordering counts from 1 to 284, found 0; copy it again .* count from 0"),
        (ORDER + 1, "counts from 1 to 284, found 285"),
        (ORDER[:-1], r"masterordering needs 744 trials, found shape \(743,\)"),
        (np.where(ORDER == 9, 8, ORDER), r"picture 9 \(from 1\) comes 0 times, in NSD-synthetic"),
        (ORDER + 0.5, "masterordering needs whole numbers, found fractions or NaN"),
    ],
)
def test_an_order_that_is_not_nsds_is_refused(tmp_path, wrong, sentence):
    root = write_synthetic(make(tmp_path, ()))
    save_order(root, wrong)
    with pytest.raises(UserError, match=sentence):
        opened(root).load("subj01")


def test_files_that_are_wrong_or_missing_take_one_sentence(tmp_path):
    root = make(tmp_path, ())
    save_part(root, "synthetic", numbered(744))
    with pytest.raises(UserError, match=r"nsdsynthetic_expdesign.mat is missing; it says which"):
        opened(root).load("subj01")
    save_order(root)
    told = " ".join(opened(root).remarks())
    assert "nsdsynthetic_stimuli.hdf5, nsdsynthetic_colorstimuli_subj01.hdf5 of" in told
    assert "nsdsyntheticimageinformation.csv is missing" in told
    assert "subj01: the main experiment's ncsnr is not here" in told
    with pytest.raises(UserError, match="nsdsynthetic_stimuli.hdf5 is missing; it holds the pict"):
        opened(root).image("synthetic-000")
    table = (root / ORDER_PLACE).with_name("nsdsyntheticimageinformation.csv")
    pd.DataFrame({"Image": ["a"] * 284, "Image class": ["b"] * 284,
                  "Image number": range(284)}).to_csv(table)  # fmt: skip
    with pytest.raises(UserError, match="Image number does not run from 1 to 284"):
        _ = opened(root).stimuli
    save_part(root, "synthetic", numbered(750))
    with pytest.raises(UserError, match=r"has shape .* expected 744 trials"):
        opened(root).load("subj01")
    save_part(root, "synthetic", numbered(744) / np.float32(300))
    with pytest.raises(UserError, match="holds float32, expected int16 .300 x percent signal"):
        opened(root).load("subj01")


def test_vertices_that_are_nan_are_read_as_0_and_told(tmp_path):
    root = save_order(make(tmp_path, ())).parents[3]
    main, part = (betas_folder(root, 1, "fsaverage", f"{p}{B3}") for p in ("", "nsdsynthetic"))
    values = np.arange(FSAVERAGE, dtype=np.float32)
    label = root / "nsddata/freesurfer/fsaverage/label"
    for h in ("lh", "rh"):
        labels = np.zeros(FSAVERAGE)
        labels[[7, 20_000, 20_001]] = 1
        save_surface(label / f"{h}.nsdgeneral.mgz", labels[:, None, None])
        lost = values.copy()
        lost[20_001] = np.nan  # not measured in the main experiment: no voxel of either
        save_hemisphere(main, h, 1, {0: lost})
        nan = values.copy()
        nan[[7, 20_001]] = np.nan
        path = save_hemisphere(part, h, 1, {t: nan + t for t in (0, 3)}, 744)
        path.rename(part / f"{h}.betas_nsdsynthetic.mgh")
    study = NSD(root, "s", space="fsaverage", norm="none", part="synthetic")
    trials = study.load("subj01")
    assert (
        trials.subject.voxels.hash
        == NSD(root, "m", "fsaverage").load("subj01").subject.voxels.hash
    )
    np.testing.assert_array_equal(trials.betas[[0, 3]], [[0, 20_000] * 2, [0, 20_003] * 2])
    told = " ".join(study.remarks())
    assert "subj01: 2 of 4 vertices are NaN in this session; they are read as 0" in told
    assert [o.note for o in study.origins("subj01", 3)] == ["left hemisphere", "right hemisphere"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"part": "nsdsynthetic"}, "part is one of main, synthetic, imagery; found 'nsdsynth"),
        ({"part": "synthetic", "norm": "condition"}, "norm is one of session, none; found 'cond"),
        ({"part": "synthetic", "task": "vision"}, "task is an option of part=imagery, and the"),
        ({"ncsnr": "own"}, "ncsnr=own is for part=synthetic"),
        ({"part": "imagery"}, "NSD-synthetic .* and none of the part imagery; open what is here"),
    ],
)
def test_options_of_parts_that_are_not_on_offer(tmp_path, options, sentence):
    root = write_synthetic(make(tmp_path, ()))
    with pytest.raises(UserError, match=sentence):
        NSD(root, "study", **options)
