"""NSD's raw release: every trial shows its image, in every format; images and choices."""

import h5py
import numpy as np
import pandas as pd
import pytest

from backends.datasets.nsd import NSD
from backends.datasets.nsd_files import SPACES
from explorer.types import UserError
from tests.miniatures.nsd import (
    B3,
    DESIGN,
    INSIDE,
    SHAPE,
    betas_folder,
    decode,
    ids_of,
    make,
    nsdgeneral,
    planted,
    roi_folder,
    save_betas,
    save_images,
    save_volume,
)


@pytest.mark.parametrize("ending", ["hdf5", "nii", "nii.gz"])
def test_every_trial_shows_the_image_its_betas_were_planted_with(tmp_path, ending):
    """Off by one in any base, a reversed axis, another voxel order or unit: each breaks it."""
    study = NSD(make(tmp_path, (1, 2), ending), "study", norm="none")
    trials = study.load("subj01")
    betas = trials.betas[:]
    assert (betas.shape, betas.dtype) == ((1500, 80), np.float32)
    shown = [f"nsd-{k - 1:05d}" for k in decode(betas)]
    assert trials.table["stimulus"].tolist() == shown
    # nibabel's (X, Y, Z) in C order, as volume[mask > 0] gives it
    ids = np.concatenate([ids_of(1, 1), ids_of(1, 2)])
    np.testing.assert_allclose(betas[7], planted(ids)[..., 7][INSIDE] / 300, rtol=1e-6)
    assert trials.beta_unit == "percent signal change"


def test_every_format_gives_the_same_voxels_in_the_same_order(tmp_path):
    loaded = []
    for ending in ("hdf5", "nii", "nii.gz"):
        root = make(tmp_path / ending.replace(".", ""), (1,), ending)
        loaded.append(NSD(root, "study", norm="none").load("subj01"))
    assert len({trials.subject.voxels.hash for trials in loaded}) == 1
    for trials in loaded[1:]:
        np.testing.assert_array_equal(trials.betas[[5, 700, 5]], loaded[0].betas[[5, 700, 5]])


def test_the_shared_images_are_test_for_everybody(nsd_release):
    study = NSD(nsd_release, "study")
    assert study.subjects() == ["subj01", "subj04"]
    tables = [study.load(subject).table for subject in study.subjects()]
    everybody = {f"nsd-{int(k) - 1:05d}" for k in DESIGN["sharedix"][0]}
    for table in tables:
        test = set(table["stimulus"][table["split"] == "test"])
        assert len(test) > 50
        assert test <= everybody
        assert not set(table["stimulus"][table["split"] == "train"]) & everybody
    # The shared images come at the same trials in everybody, the others never do.
    first, second = (table["stimulus"].to_numpy()[:750] for table in tables)
    np.testing.assert_array_equal(first == second, tables[0]["split"][:750] == "test")


def test_a_missing_session_takes_its_own_trials_away_and_no_others(nsd_release):
    trials = NSD(nsd_release, "study", norm="none").load("subj01")
    assert trials.table["session"].unique().tolist() == [1, 3]
    assert [f"nsd-{k - 1:05d}" for k in decode(trials.betas[:])] == trials.table[
        "stimulus"
    ].tolist()
    assert trials.table["trial"].tolist() == [*range(1, 751)] * 2
    counts = trials.table.groupby("stimulus").size()
    assert set(counts) == {1, 2, 3}
    for _, rows in trials.table.groupby("stimulus"):
        assert rows["repeat"].tolist() == list(range(len(rows)))


def test_incomplete_subjects_are_told_from_missing_files(nsd_release):
    told = " ".join(NSD(nsd_release, "study").remarks())
    assert "subj01: 2 of 40 sessions are here; the trials of session 2, 4-40 are left out" in told
    assert "subj04: 1 of 30 sessions are here; the trials of session 2-30 are left out" in told


def test_all_sessions_of_a_subject_who_came_for_30(tmp_path):
    root = make(tmp_path, (), subject=8)
    for session in range(1, 31):
        path = betas_folder(root, 8) / f"betas_session{session:02d}.hdf5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["betas"] = np.zeros((750, *SHAPE[::-1]), np.int16)
    study = NSD(root, "study")
    trials = study.load("subj08")
    assert len(trials.table) == 22_500
    assert len(set(trials.table["stimulus"])) == len(set(DESIGN["masterordering"][0, :22_500]))
    assert any("subj08: all 30 sessions are here (the others" in s for s in study.remarks())
    (betas_folder(root, 8) / "betas_session31.hdf5").write_bytes(b"")
    with pytest.raises(UserError, match="session 31, but subj08 came for sessions 1 to 30: two"):
        NSD(root, "study")


def test_z_scores_come_from_the_training_trials_of_a_session(tmp_path):
    root = make(tmp_path, (1, 2))
    rng = np.random.default_rng(1)
    stored = rng.integers(-900, 900, (2, *SHAPE, 750), dtype=np.int16)
    stored[1, 2, 3, 1] = 0  # was not measured in session 2: a constant
    test = DESIGN["masterordering"][0, :1500].reshape(2, 750) <= 1000
    stored[..., :] += np.where(test, 5000, 0)[:, None, None, None].astype(np.int16)
    for i, values in enumerate(stored):
        save_betas(betas_folder(root), i + 1, values)
    stored[1, 2, 3, 1] = 0
    save_betas(betas_folder(root), 2, stored[1])
    trials = NSD(root, "study").load("subj01")
    assert trials.beta_unit == "z-score within session"
    found = trials.betas[:].reshape(2, 750, 80)
    for i in range(2):
        values = stored[i][INSIDE].T / 300  # (750, V)
        mean, sd = values[~test[i]].mean(axis=0), values[~test[i]].std(axis=0)
        expected = np.divide(values - mean, sd, out=np.zeros_like(values), where=sd > 0)
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-4)
    dead = np.flatnonzero((np.argwhere(INSIDE) == (2, 3, 1)).all(axis=1))
    assert (found[1][:, dead] == 0).all()
    assert found[0][:, dead].std() > 0
    np.testing.assert_allclose(trials.betas[1400], found.reshape(1500, 80)[1400])


def test_an_image_is_its_row_counted_from_0(tmp_path):
    root = make(tmp_path)
    pictures = {}
    for row in (0, 41, 42, 43, 72_999):
        pictures[row] = np.full((425, 425, 3), row % 251, np.uint8)
        pictures[row][:100, :, 0] = 255  # red on top
    save_images(root, pictures)
    study = NSD(root, "study")
    for row, picture in pictures.items():
        found = study.image(f"nsd-{row:05d}")
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, picture)


def test_images_that_are_missing_or_of_another_shape_take_one_sentence(tmp_path):
    root = make(tmp_path)
    study = NSD(root, "study")
    with pytest.raises(UserError, match=r"nsd_stimuli.hdf5 is missing; it holds the images \(37"):
        study.image("nsd-00000")
    assert any("no picture can be shown" in sentence for sentence in study.remarks())
    path = save_images(root, {}, (73_000, 3, 9, 9))
    with pytest.raises(UserError, match=r"needs imgBrick of shape .* found \(73000, 3, 9, 9\)"):
        study.image("nsd-00000")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UserError, match="nsd_stimuli.hdf5 is damaged or cut short"):
        study.image("nsd-00000")
    for name in ("nsd-73000", "nsd-0", "nsd-000001", "73000", "nsd-00001\n"):
        with pytest.raises(UserError, match="has the stimuli nsd-00000 to nsd-72999, not"):
            study.image(name)


def test_stimuli_are_all_73000_with_their_place_in_coco(tmp_path):
    root = make(tmp_path)
    stimuli = NSD(root, "study").stimuli
    assert (len(stimuli), stimuli.index[0], stimuli.index[-1]) == (
        73_000,
        "nsd-00000",
        "nsd-72999",
    )
    assert set(stimuli["source"]) == {""}
    order = np.random.default_rng(0).permutation(73_000)  # joined by nsdId, never by row
    table = pd.DataFrame({"cocoId": order + 500, "cocoSplit": "train2017", "nsdId": order})
    path = root / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    table.assign(shared1000=False).to_csv(path)
    stimuli = NSD(root, "study").stimuli
    assert stimuli.loc["nsd-00042", "source"] == "COCO train2017 542"
    table.assign(nsdId=order + 1).to_csv(path)
    with pytest.raises(UserError, match="nsd_stim_info_merged.csv is damaged or not NSD's"):
        _ = NSD(root, "study").stimuli


def test_the_best_betas_are_chosen_and_the_others_are_told(tmp_path):
    root = make(tmp_path)
    values = planted(ids_of(1, 1))
    for space, prep in (("func1pt8mm", "betas_fithrf"), ("func1mm", B3)):
        save_betas(betas_folder(root, 1, space, prep), 1, values)
    save_volume(roi_folder(root, 1, "func1mm") / "nsdgeneral.nii.gz", nsdgeneral())
    study = NSD(root, "study")
    assert (study.space, study.prep) == ("func1pt8mm", "b3")
    assert "b3 in func1pt8mm" in study.note
    told = " ".join(study.remarks())
    assert "Further betas are here: ?space=func1pt8mm&prep=b2 (subj01); ?space=func1mm" in told
    for chosen in ({"prep": "b2"}, {"prep": "betas_fithrf"}, {"space": "func1mm"}):
        assert NSD(root, "study", **chosen).load("subj01").betas.shape == (750, 80)
    hashes = {NSD(root, "s", space=s).load("subj01").subject.voxels.hash for s in SPACES
              if s != "fsaverage"}  # fmt: skip
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"space": "MNI"}, "space is one of auto, func1pt8mm, func1mm, fsaverage; found 'MNI'"),
        ({"prep": "b4"}, "prep is one of auto, b3, b2, b1; found 'b4'"),
        ({"norm": "run"}, "norm is one of session, none; found 'run'"),
        ({"roi": "../../secret"}, "roi is the name of an ROI file, such as nsdgeneral; found"),
        ({"roi": "all"}, "roi=all is for space=fsaverage"),
        ({"prep": "b1"}, "no betas of space auto and preparation b1; choose among space=func1pt8"),
    ],
)
def test_options_that_are_not_on_offer(nsd_release, options, sentence):
    with pytest.raises(UserError, match=sentence):
        NSD(nsd_release, "study", **options)


def test_a_release_without_betas_says_which_can_be_read(tmp_path):
    root = make(tmp_path, ())
    folder = betas_folder(root, 1, "nativesurface")
    folder.mkdir(parents=True)
    (folder / "lh.betas_session01.hdf5").write_bytes(b"")
    assert NSD.recognise(root)
    with pytest.raises(UserError, match=r"holds no betas .* \(nativesurface and MNI cannot\)"):
        NSD(root, "study")


def test_it_is_recognised_by_its_folders(nsd_release, tmp_path):
    for place in (nsd_release, nsd_release / "nsddata", nsd_release / "nsddata_betas"):
        assert NSD.recognise(place)
        assert NSD(place, "study").subjects() == ["subj01", "subj04"]
    (tmp_path / "nsddata").mkdir()
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file", tmp_path / "nowhere", tmp_path / "nsddata"):
        assert NSD.recognise(place) is False
    with pytest.raises(UserError, match="does not hold NSD; give the folder that has nsddata and"):
        NSD(tmp_path, "study")


def test_people_without_betas_are_not_offered(nsd_release):
    with pytest.raises(UserError, match="subjects subj01, subj04 in func1pt8mm, b3, not 'subj02'"):
        NSD(nsd_release, "study").load("subj02")


def test_other_experiments_of_nsd_are_named(tmp_path):
    from backends import DATASETS
    from backends.commands.doctor import examine

    root = make(tmp_path, ())
    for subject, prep in (
        (1, "nsdimagerybetas_fithrf"),
        (2, "nsdimagerybetas_fithrf_GLMdenoise_RR"),
    ):
        folder = betas_folder(root, subject, prep=prep)
        folder.mkdir(parents=True)
        (folder / "betas_nsdimagery.nii.gz").write_bytes(b"")
    lines, well = examine(str(root), DATASETS)
    assert not well
    assert "holds NSD-imagery (720 betas a subject: " in lines[-1]
    assert "of subj01, subj02, and none of NSD's own sessions" in lines[-1]
    folder = betas_folder(root, 1, "fsaverage", "nsdsyntheticbetas_fithrf_GLMdenoise_RR")
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match=r"NSD-imagery .* and NSD-synthetic \(744 betas .* subj01"):
        NSD(root, "study")
    save_betas(betas_folder(root), 1, planted(ids_of(1, 1)))
    told = [s for s in NSD(root, "study").remarks() if "not read" in s]
    assert len(told) == 1
    assert "NSD-synthetic (744 betas" in told[0]


def test_pictures_that_were_never_written_are_not_shown_black(tmp_path):
    root = make(tmp_path)
    save_images(root, {5: np.full((425, 425, 3), 9, np.uint8)})
    assert NSD(root, "study").image("nsd-00005").max() == 9
    with pytest.raises(UserError, match="imgBrick.*row 6 was never written"):
        NSD(root, "study").image("nsd-00006")
