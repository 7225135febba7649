"""GOD as bdpy files: real lists and containers, and miniatures in which every trap is laid."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from backends.datasets.bdata import BData
from backends.datasets.god import GOD
from backends.datasets.god_study import image_name
from explorer.types import UserError
from tests.miniatures.god import (
    ROIS,
    TEST,
    TRAIN,
    VOXELS,
    design,
    number,
    scored,
    write_god,
    write_lists,
)

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
IDS = SHARED / "god_metadata"
CONTAINERS = SHARED / "bdata_h5"


def real(folder: Path, name: str) -> Path:
    if not (folder / name).exists():
        pytest.skip(f"{name} is not in ../shared/data/{folder.name}")
    return folder / name


def test_the_real_lists_name_the_stimuli(tmp_path):
    real(IDS, "imageID_test.csv")
    write_god(tmp_path / "Subject1.h5")
    study = GOD(tmp_path, "god", images=str(IDS))
    assert len(study.stimuli) == 1250
    assert study.stimuli.loc["n01621127_19020", "source"] == "n01621127_19020.JPEG"
    trained = study.load("Subject1").table["stimulus"][:6]
    assert trained.tolist() == TRAIN[::-1]


@pytest.mark.parametrize("name", ["sample_vmap.h5", "sample_vmap_nomap.h5"])
def test_real_bdpy_containers_open(name):
    file = real(CONTAINERS, name)
    found = BData(file)
    assert found.matrix.shape == (8, 11)
    assert list(found.keys) == ["Data", "Label"]
    np.testing.assert_array_equal(found.columns("Data"), np.arange(10))  # NaN is not 1
    np.testing.assert_array_equal(found.columns("Label"), [10])
    np.testing.assert_array_equal(found.label("Label"), [1, 3, 4, 2, 3, 1, 2, 4])
    names = found.names("Label")
    assert sorted(names) == ([1.0, 2.0, 3.0, 4.0] if name == "sample_vmap.h5" else [])
    assert all(isinstance(text, str) and not text.startswith("b'") for text in names.values())
    with pytest.raises(UserError, match="marks one column of labels, found 10"):
        found.label("Data")
    with pytest.raises(UserError, match="lacks the key Run; it has Data, Label"):
        found.columns("Run")
    assert not GOD.recognise(file)
    with pytest.raises(UserError, match="bdpy file without VoxelData, .* it has Data, Label"):
        GOD(file, "god")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_god(tmp_path / "Subject1.h5")
    write_lists(tmp_path, ("image_training_id.csv", "image_test_id.csv"))
    return tmp_path


def test_both_generations_of_files_give_the_same(folder, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    write_god(old / "Subject1.h5", spelling=("dataSet", "metaData"), label="Label")
    new, legacy = GOD(folder, "g").load("Subject1"), GOD(old, "g").load("Subject1")
    np.testing.assert_array_equal(np.asarray(new.betas), np.asarray(legacy.betas))
    assert new.table.equals(legacy.table)
    assert new.subject.voxels.hash == legacy.subject.voxels.hash
    assert GOD.recognise(folder) and GOD.recognise(old) and GOD.recognise(old / "Subject1.h5")
    assert GOD(old / "Subject1.h5", "g").subjects() == ["Subject1"]


def test_labels_are_not_voxels_and_rois_overlap(folder):
    voxels = write_god(folder / "Subject1.h5")
    trials = GOD(folder, "g", norm="none").load("Subject1")
    np.testing.assert_allclose(np.asarray(trials.betas), voxels[:18, :6], rtol=1e-6)
    rois = trials.subject.voxels.parcellations["ROIs"]
    found = {
        label.key: np.flatnonzero(m) for label, m in zip(rois.labels, rois.membership, strict=True)
    }
    assert {name: at.tolist() for name, at in found.items()} == ROIS
    few = GOD(folder, "g", roi="V1", norm="none").load("Subject1")
    np.testing.assert_allclose(np.asarray(few.betas), voxels[:18, 1:3], rtol=1e-6)
    assert [label.key for label in few.subject.voxels.parcellations["ROIs"].labels] == [
        *("VC", "LVC", "V1")
    ]
    everything = GOD(folder, "g", roi="all").load("Subject1").subject
    assert everything.voxels.n_voxels == VOXELS
    assert set(everything.maps) == {"voxel_x", "voxel_y", "voxel_z"}
    with h5py.File(folder / "Subject1.h5", locking=False) as h5:
        row = list(h5["metadata/key"][()]).index(b"voxel_y")
        np.testing.assert_array_equal(everything.maps["voxel_y"], h5["metadata/value"][row, 3:])


def test_trials_are_named_by_id_whatever_the_order_of_a_list(folder):
    trials = GOD(folder, "g").load("Subject1")
    assert trials.table["stimulus"].tolist() == [*TRAIN[::-1] * 2, *TEST * 3]
    assert sorted(TRAIN) != TRAIN[::-1]  # a join by row would have gone wrong
    assert trials.table["split"].tolist() == ["train"] * 12 + ["test"] * 6
    assert trials.table["repeat"].tolist() == [0] * 6 + [1] * 6 + [0, 0, 1, 1, 2, 2]
    assert trials.table["run"].tolist() == [1] * 6 + [2] * 6 + [1] * 6


def test_ids_are_compared_as_millionths(tmp_path):
    # a float that a text with fewer digits, or arithmetic, has moved a little
    moved = [(t, r, np.nextafter(number(n), 0) if t < 3 else n) for t, r, n in design()]
    write_god(tmp_path / "Subject1.h5", rows=moved)
    write_lists(tmp_path, ("imageID_training.csv", "imageID_test.csv"))
    study = GOD(tmp_path, "g")
    assert study.load("Subject1").table["stimulus"].tolist() == [*TRAIN[::-1] * 2, *TEST * 3]
    assert image_name(1621127.01902) == "n01621127_19020"
    assert image_name(1443537.0) == "n01443537"
    assert image_name(12345678.000007) == "n12345678_7"
    for wrong in (0.5, -1443537.022563, np.nan, 123456789.5):
        with pytest.raises(UserError, match="WordNet number and six decimals"):
            image_name(wrong)


def test_runs_of_another_type_are_other_runs(folder):
    voxels = write_god(folder / "Subject1.h5")[:, :6]
    trials = GOD(folder, "g").load("Subject1")
    expected = np.concatenate(
        [scored(voxels[:6]), scored(voxels[6:12]), scored(voxels[12:18])]
    )  # run 1 of training, run 2, run 1 of the test: by Run alone the first and last would mix
    np.testing.assert_allclose(np.asarray(trials.betas), expected, rtol=1e-4, atol=1e-4)
    assert "within run" in trials.beta_unit and "test runs" in trials.beta_unit


def test_sessions_keep_runs_apart(tmp_path):
    session = [1.0] * 6 + [2.0] * 6 + [1.0] * 12
    rows = [(kind, 1, name) for kind, _, name in design()]
    voxels = write_god(tmp_path / "Subject1.h5", rows=rows, extra={"Session": session})[:, :6]
    trials = GOD(tmp_path, "g").load("Subject1")
    np.testing.assert_allclose(
        np.asarray(trials.betas[:6]), scored(voxels[:6]), rtol=1e-4, atol=1e-4
    )
    assert trials.table["session"].tolist() == [1] * 6 + [2] * 6 + [1] * 6


def test_train_statistics_are_of_training_trials_alone(folder):
    voxels = write_god(folder / "Subject1.h5")[:, :6]
    trials = GOD(folder, "g", norm="train").load("Subject1")
    expected = scored(voxels[:18], of=voxels[:12], ddof=1)
    np.testing.assert_allclose(np.asarray(trials.betas), expected, rtol=1e-4)
    assert trials.beta_unit == "z-score by the training trials"


@pytest.mark.parametrize("release", ["first", "second"])
def test_imagined_categories_are_shown_as_their_test_picture(tmp_path, release):
    """The first release gives imagery trials the picture's id, the second the category's."""
    rows = design()
    if release == "second":
        rows = [(t, r, n if t < 3 else n.split("_")[0]) for t, r, n in rows]
    voxels = write_god(tmp_path / "Subject1.h5", rows=rows)[:, :6]
    study = GOD(tmp_path, "g", trials="imagery")
    trials = study.load("Subject1")
    assert trials.table["stimulus"].tolist() == [*TRAIN[::-1] * 2, *TEST * 3]
    np.testing.assert_allclose(
        np.asarray(trials.betas[12:]), scored(voxels[18:]), rtol=1e-4, atol=1e-4
    )
    assert "Nothing was shown" in study.note and "test picture of that category" in study.note
    assert set(trials.table["data_type"]) == {1, 3}
    assert "12 training, 6 perception, 6 imagery trials" in " ".join(study.remarks())


def test_dead_voxels_are_masked_and_counted(tmp_path):
    def change(voxels: np.ndarray) -> np.ndarray:
        voxels[:, 1] = np.nan
        voxels[:, 4] = 7.0
        return voxels

    voxels = write_god(tmp_path / "Subject1.h5", change=change)
    study = GOD(tmp_path, "g", norm="none")
    trials = study.load("Subject1")
    np.testing.assert_allclose(np.asarray(trials.betas), voxels[:18, [0, 2, 3, 5]], rtol=1e-6)
    assert "Subject1: 2 voxels of VC are NaN or constant and masked out." in study.remarks()


def test_remarks_name_what_is_missing(folder):
    said = " ".join(GOD(folder, "g").remarks())
    assert "Subject2, Subject3, Subject4, Subject5 of Subject1 to Subject5 are not here" in said
    assert "8 of 8 pictures are not here: the pictures are not public, the Kamitani lab" in said
    assert "Subject1 has 6 voxels in VC where the published file has 4466" in said
    assert "fewer than 5" not in said
    assert "so train stimuli" not in said
    (folder / "image_training_id.csv").unlink()
    assert "image_training_id.csv or imageID_training.csv is not here, so train stimuli are" in (
        " ".join(GOD(folder, "g").remarks())
    )
    rows = [(k, run if k == 1 else i // 3, n) for i, (k, run, n) in enumerate(design())]
    write_god(folder / "Subject1.h5", rows=rows)
    few = " ".join(GOD(folder, "g").remarks())
    assert "Subject1: 4 runs have fewer than 5 trials (perception, Run 4)" in few
    assert "fewer than 5" not in " ".join(GOD(folder, "g", norm="train").remarks())


def test_pictures_are_found_beside_and_asked_for(folder):
    study = GOD(folder, "g")
    with pytest.raises(UserError, match="n01621127_19020 is not in .* Kamitani lab .* request"):
        study.image("n01621127_19020")
    (folder / "images" / "test").mkdir(parents=True)
    grey = Image.fromarray(np.full((5, 7), 200, np.uint8))
    grey.save(folder / "images" / "test" / "n01621127_19020.JPEG")  # ImageNet has grey ones
    (folder / "images" / "test" / "n01443537_22563.JPEG").write_bytes(b"\xff\xd8 cut short")
    study = GOD(folder, "g")
    assert study.image("n01621127_19020").shape == (5, 7, 3)
    with pytest.raises(UserError, match=r"picture of n01443537_22563 cannot be read"):
        study.image("n01443537_22563")
    with pytest.raises(UserError, match="no stimulus 'n00000001_1'; it has 8"):
        study.image("n00000001_1")
    assert "6 of 8 pictures are not here" in " ".join(study.remarks())


def test_the_other_subject_s_file_is_refused(tmp_path):
    rows = [(1, 1, TRAIN[0]), (1, 1, TRAIN[1]), (2, 1, TEST[0]), (2, 1, TEST[1])]
    vc = {"VC": list(range(4404))}
    write_god(tmp_path / "Subject1.h5", rows=rows, n_voxels=4404, rois=vc)
    with pytest.raises(UserError, match="4404 voxels in VC, as Subject2 has, where Subject1 has"):
        GOD(tmp_path, "g").load("Subject1")
    (tmp_path / "Subject1.h5").rename(tmp_path / "Subject2.h5")
    study = GOD(tmp_path, "g")
    assert study.load("Subject2").subject.voxels.n_voxels == 4404
    assert "voxels in VC" not in " ".join(study.remarks())


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({"rows": [(2, 1, TEST[0]), (2, 1, TEST[1])]}, r"no training trial \(DataType 1\)"),
        ({"rows": [(4, 1, TEST[0]), (2, 1, TEST[1])]}, "DataType is 1, 2 or 3, found 4"),
        ({"rows": [*design(), (1, 1, TEST[0])]}, "n01443537_22563 is shown in training and in"),
        ({"rows": [*design(), (1, 1, "n01518878_7")]}, "n01518878_7 is among the train trials"),
        ({"rows": [*design(), (2, 1, 0.25)]}, "WordNet number and six decimals, .* 0.25"),
        ({"dtype": "f4"}, "float32, in which stimulus ids lose their decimals"),
        ({"change": lambda v: v * 0}, "no voxel that varies in VC"),
    ],
)
def test_files_that_cannot_be_right_are_refused(folder, written, sentence):
    write_god(folder / "Subject1.h5", **written)
    with pytest.raises(UserError, match=sentence):
        GOD(folder, "g").load("Subject1")


def test_an_imagined_category_without_test_picture_is_refused(tmp_path):
    write_god(tmp_path / "Subject1.h5", rows=[*design(), (3, 1, "n02071294")])
    GOD(tmp_path, "g").load("Subject1")
    with pytest.raises(UserError, match="imagined category n02071294 has no test picture"):
        GOD(tmp_path, "g", trials="imagery").load("Subject1")


def test_a_nan_in_one_trial_is_refused_when_it_is_read(tmp_path):
    rows = [(1, 1 + i // 40, name) for i, name in enumerate(TRAIN * 40)] + design()[12:]

    def change(voxels: np.ndarray) -> np.ndarray:
        voxels[9, 2] = np.nan  # not among the rows by which dead voxels are known
        return voxels

    write_god(tmp_path / "Subject1.h5", rows=rows, change=change)
    betas = GOD(tmp_path, "g", norm="none").load("Subject1").betas
    assert betas.shape == (246, 6)
    assert np.isfinite(betas[10:20]).all()
    with pytest.raises(UserError, match="not finite in trial 9, voxel 2"):
        betas[9]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"roi": "V9"}, "roi is one of VC, LVC, V1, HVC, FFA, all, not 'V9'"),
        ({"norm": "z"}, "norm is one of run, train, none, not 'z'"),
        ({"trials": "dreams"}, "trials is one of perception, imagery, not 'dreams'"),
        ({"images": "/nowhere"}, "images=/nowhere is no folder"),
    ],
)
def test_options_say_what_they_take(folder, options, sentence):
    with pytest.raises(UserError, match=sentence):
        GOD(folder, "g", **options).load("Subject1")


def test_other_files_are_not_god(tmp_path):
    (tmp_path / "Subject1.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    assert not GOD.recognise(tmp_path)
    with pytest.raises(UserError, match="is damaged or cut short"):
        GOD(tmp_path / "Subject1.h5", "g")
    with pytest.raises(UserError, match="holds no file of Generic Object Decoding"):
        GOD(tmp_path, "g")
    with h5py.File(tmp_path / "betas.h5", "w") as h5:
        h5["betas"] = np.zeros((2, 3))
    assert not GOD.recognise(tmp_path / "betas.h5")
    with pytest.raises(UserError, match="has no dataset or dataSet, .* it has betas"):
        GOD(tmp_path / "betas.h5", "g")
    write_god(tmp_path / "whole.h5")
    data = (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    assert not GOD.recognise(tmp_path / "cut.h5")


@pytest.mark.parametrize("lacking", ["key", "value"])
def test_metadata_need_both_keys_and_values(tmp_path, lacking):
    write_god(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as h5:
        del h5[f"metadata/{lacking}"]
    with pytest.raises(UserError, match="/metadata lacks key or value; it is no bdpy file"):
        BData(tmp_path / "a.h5")


def test_a_closed_container_reads_no_rows(tmp_path):
    write_god(tmp_path / "a.h5")
    found = BData(tmp_path / "a.h5")
    assert found.matrix[0].shape == (3 + VOXELS,)
    found.close()
    assert not found.matrix


def test_stimuli_that_the_file_names_are_known_without_their_ending(tmp_path):
    write_god(tmp_path / "Subject1.h5")
    with h5py.File(tmp_path / "Subject1.h5", "a") as h5:
        for name in (*TRAIN, *TEST):
            h5[f"vmap/stimulus_id/{number(name)!r}"] = f"{name}.JPEG"
    trials = GOD(tmp_path, "god").load("Subject1")
    assert set(trials.stimuli("train")) == set(TRAIN) and set(trials.stimuli("test")) == set(TEST)
