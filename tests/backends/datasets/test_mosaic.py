"""MOSAIC: trials by their names, grayordinates that are finite, places, merged files, refusals."""

import h5py
import numpy as np
import pytest

from backends.commands.doctor import examine
from backends.datasets.mosaic import Mosaic
from explorer.brain.fslr import CORTEX, fsaverage5_vertices
from explorer.types import UserError
from tests.miniatures.mosaic import (
    ARTIFICIAL,
    GRAYORDINATES,
    LOST,
    TEST,
    TRAIN,
    betas_of,
    merge,
    name_of,
    trials,
    write_mosaic,
    write_pictures,
)

KEPT = np.setdiff1d(np.arange(GRAYORDINATES), LOST)
ROWS = [t for t in trials() if t[0] not in ARTIFICIAL]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write two people of two data sets, and merge them; nobody writes there."""
    root = tmp_path_factory.mktemp("mosaic")
    singles = [write_mosaic(root / "single", "sub-01_NSD")]
    singles.append(write_mosaic(root / "single", "sub-02_deeprecon"))
    (root / "ind").mkdir()
    (root / "chunks").mkdir()
    merge(singles, root / "ind" / "mosaic_ind.hdf5")
    merge(singles, root / "chunks" / "mosaic_chunks.hdf5", rows=True)
    write_pictures(root / "pictures")
    return root


@pytest.mark.parametrize("form", ["single", "chunks", "chunks/mosaic_chunks.hdf5"])
def test_every_form_gives_the_authors_betas(files, form):
    assert Mosaic.recognise(files / form)
    study = Mosaic(files / form, "m")
    assert study.subjects() == ["sub-01_NSD", "sub-02_deeprecon"]
    for who in study.subjects():
        found = study.load(who)
        assert found.table["stimulus"].tolist() == [stem for stem, _, _ in ROWS]
        expected = np.stack([betas_of(stem, repeat, who)[KEPT] for stem, _, repeat in ROWS])
        np.testing.assert_array_equal(found.betas[:], expected)
        np.testing.assert_array_equal(found.betas[[6, 1]], expected[[6, 1]])
        assert found.stimuli("test") == list(TEST) and found.stimuli("train") == list(TRAIN)
    assert found.table["repeat"].tolist() == [0, 1] * 5  # rep-0 and rep-2 of the training trials


def test_a_merged_file_without_order_says_that_artificial_stimuli_are_test(files):
    study = Mosaic(files / "ind", "m")
    found = study.load("sub-01_NSD")
    assert set(found.stimuli("test")) == {*TEST, *ARTIFICIAL}
    row = found.table.index[found.table["stimulus"] == TRAIN[1]][1]
    np.testing.assert_array_equal(found.betas[row], betas_of(TRAIN[1], 2)[KEPT])
    assert "the file lost the order of writing" in study.remarks()[0]


def test_artificial_stimuli_are_those_written_last(files):
    file = files / "single" / "sub-01_NSD.hdf5"
    shown = {
        test: Mosaic(file, "m", test=test).load("sub-01_NSD") for test in ("artificial", "all")
    }
    assert shown["artificial"].stimuli("test") == list(ARTIFICIAL)
    assert shown["all"].stimuli("test") == [*TEST, *ARTIFICIAL]
    assert shown["artificial"].stimuli("train") == list(TRAIN)
    assert "1 trials of artificial stimuli are left out" in Mosaic(file, "m").remarks()[0]
    with pytest.raises(UserError, match="test is one of natural, artificial, all, not 'x'"):
        Mosaic(file, "m", test="x")


def test_places_and_ceilings(files):
    who = Mosaic(files / "single", "m").load("sub-01_NSD").subject
    vertex = fsaverage5_vertices(GRAYORDINATES)[KEPT]
    found = who.voxels.projection.tocoo()
    assert found.nnz == CORTEX - 2  # two of the lost lie in the cortex
    np.testing.assert_array_equal(vertex[found.col], found.row)
    np.testing.assert_allclose(who.voxels.projection.sum(axis=1).max(), 1, rtol=1e-5)
    share = np.linspace(0, 60, GRAYORDINATES, dtype=np.float32)[KEPT]
    np.testing.assert_allclose(who.ncsnr**2 / (who.ncsnr**2 + 1), share / 100, atol=1e-6)
    np.testing.assert_array_equal(who.maps["noise ceiling of test, n avg, percent"], share)
    cortex = Mosaic(files / "single", "m", voxels="cortex").load("sub-01_NSD")
    assert cortex.betas.shape == (len(ROWS), CORTEX - 2)
    expected = betas_of(*ROWS[3][::2])[KEPT[: CORTEX - 2]]
    np.testing.assert_array_equal(cortex.betas[3], expected)


def test_units_are_each_data_sets_own(files):
    study = Mosaic(files / "single", "m")
    assert study.load("sub-01_NSD").beta_unit == "z-score within session by its training trials"
    assert "test sessions by themselves" in study.load("sub-02_deeprecon").beta_unit


def test_it_opens_without_pictures_and_shows_those_of_a_folder(files):
    bare = Mosaic(files / "single", "m")
    lines, well = examine(str(files / "single"), {"mosaic": Mosaic})
    assert well, lines
    assert any("5 of 5 pictures are not here" in line for line in lines)
    with pytest.raises(UserError, match=f"m: The picture of {TEST[0]} is not here; MOSAIC has no"):
        bare.image(TEST[0])
    assert bare.without_picture(TEST[0]).startswith("The picture of")
    study = Mosaic(files / "single", "m", pictures=str(files / "pictures"))
    assert study.without_picture(TEST[1]) == ""
    expected = np.random.default_rng(1).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(study.image(TEST[1]), expected)
    assert study.ids(TEST[0]) == {"MOSAIC's stimulus": TEST[0], "COCO": "9"}
    assert study.stimuli.at[TEST[0], "source"] == "NSD, deeprecon"
    with pytest.raises(UserError, match="pictures=/nowhere is no folder"):
        Mosaic(files / "single", "m", pictures="/nowhere")


def test_people_of_one_data_set_alone(files):
    assert Mosaic(files / "single", "m", data="NSD").subjects() == ["sub-01_NSD"]
    with pytest.raises(UserError, match="data is one of NSD, deeprecon, not 'GOD'"):
        Mosaic(files / "single", "m", data="GOD")


def test_origins_name_the_place_and_the_trial(files):
    for form, key in (("single", "betas/{}"), ("chunks", "sub-01_NSD/betas")):
        study = Mosaic(files / form, "m")
        (origin,) = study.origins("sub-01_NSD", 5)
        name = name_of("sub-01_NSD", *ROWS[5])
        assert (origin.row, origin.key) == (5, key.format(name))
        with h5py.File(origin.file, locking=False) as file:
            stored = file[origin.key][()]
        stored = stored if stored.ndim == 1 else stored[origin.row]
        np.testing.assert_array_equal(stored[KEPT], study.load("sub-01_NSD").betas[5])


def test_origins_count_in_the_file_not_among_the_chosen_trials(files):
    study = Mosaic(files / "single", "m", test="artificial")
    table = study.load("sub-01_NSD").table
    (last,) = np.flatnonzero(table["split"] == "test")
    (origin,) = study.origins("sub-01_NSD", int(last))
    assert (origin.row, int(last)) == (len(trials()) - 1, len(table) - 1)
    assert ARTIFICIAL[0] in origin.key


def test_one_group_of_several_people_as_the_authors_package_merges(files, tmp_path):
    path = tmp_path / "mosaic_mine.hdf5"
    with h5py.File(path, "w") as out:
        for file in sorted((files / "single").glob("*.hdf5")):
            with h5py.File(file, locking=False) as single:
                for name in single["betas"]:
                    out[f"betas/{name}"] = single["betas"][name][()]
    study = Mosaic(path, "m")
    assert study.subjects() == ["sub-01_NSD", "sub-02_deeprecon"]
    found = study.load("sub-02_deeprecon")
    row = int(np.flatnonzero(found.table["stimulus"] == TRAIN[1])[1])
    np.testing.assert_array_equal(
        found.betas[row], betas_of(TRAIN[1], 2, "sub-02_deeprecon")[KEPT]
    )
    assert study.origins("sub-02_deeprecon", row)[0].key.startswith("betas/sub-02_deeprecon_")


def test_people_without_repeats_have_no_ceiling_and_crc_names_are_known(tmp_path):
    write_mosaic(tmp_path, "sub-11_NOD", "sub-11_NOD_crc32-0a1b2c3d.hdf5", ceilings=False)
    study = Mosaic(tmp_path, "m")
    assert study.load("sub-11_NOD").subject.ncsnr is None
    sentence = "sub-11_NOD: the file has no noise ceiling of single test trials (no stimulus was"
    assert any(s.startswith(sentence) for s in study.remarks())


def test_ceilings_in_another_unit_are_used_for_nothing(tmp_path):
    file = write_mosaic(tmp_path)
    with h5py.File(file, "a") as opened:
        opened["noiseceilings/sub-01_NSD_phase-test_n-1_noiseceiling"][:] /= 100
    study = Mosaic(tmp_path, "m")
    assert study.load("sub-01_NSD").subject.ncsnr is None
    assert any("ceilings go from 0 to 0.6, expected percent" in s for s in study.remarks())


def test_a_file_without_its_list_of_lost_grayordinates(tmp_path):
    file = write_mosaic(tmp_path)
    with h5py.File(file, "a") as opened:
        del opened["nan_indices_all"], opened["noiseceilings"]
    found = Mosaic(tmp_path, "m").load("sub-01_NSD")
    np.testing.assert_array_equal(found.betas[1], betas_of(*ROWS[1][::2])[KEPT])


def test_a_training_trial_of_a_test_stimulus_is_left_out(tmp_path):
    file = write_mosaic(tmp_path)
    with h5py.File(file, "a") as opened:
        betas = opened["betas"]
        old = name_of("sub-01_NSD", TRAIN[2], "train", 2)
        betas.move(old, name_of("sub-01_NSD", TEST[0], "train", 2))
    study = Mosaic(tmp_path, "m")
    found = study.load("sub-01_NSD")
    assert len(found.table) == len(ROWS) - 1 and found.stimuli("train") == list(TRAIN)
    assert "1 training trials showed test stimuli and are left out" in study.remarks()[0]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda f: f["betas"].move(list(f["betas"])[0], "trial1"), "a trial is named 'trial1'"),
        (
            lambda f: f.__setitem__("betas/" + name_of("sub-01_NSD", "x", "train", 0), [1.0, 2.0]),
            "has 2 numbers, expected 91,282 grayordinates",
        ),
        (
            lambda f: f["nan_indices_all"].write_direct(np.array([0, 1, 91_282])),
            "found up to 91282",
        ),
        (lambda f: f.__delitem__("betas"), "has no 'betas'"),
    ],
)
def test_what_is_not_mosaics_is_refused(tmp_path, spoil, sentence):
    with h5py.File(write_mosaic(tmp_path), "a") as file:
        spoil(file)
    with pytest.raises(UserError, match=sentence):
        Mosaic(tmp_path, "m").load("sub-01_NSD").betas[:]


def test_files_that_hold_other_people_are_refused(tmp_path):
    write_mosaic(tmp_path, "sub-01_NSD", "sub-02_NSD.hdf5")
    with pytest.raises(UserError, match="has no trial of sub-02_NSD, whom its name tells"):
        Mosaic(tmp_path, "m").load("sub-02_NSD")
    write_mosaic(tmp_path / "a", "sub-03_NSD")
    write_mosaic(tmp_path / "b", "sub-03_NSD")
    with pytest.raises(UserError, match="both hold sub-03_NSD; keep one of them"):
        Mosaic(tmp_path, "m")
