"""MindEye1's and MindEye2's releases: miniatures in the exact layout, with planted truths.

Betas encode what they belong to (voxel 0 the image, voxel 1 the trial or repeat), so that a row
or an id that slips by one is seen. Real counts are tested on sparse files of full size.
"""

from __future__ import annotations

import io
import re
import tarfile
import time
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from backends.datasets.mindeye import MindEye1, MindEye2
from explorer.types import UserError

V = 6
SHARED = np.arange(1000) * 73  # any 1,000 of the 73,000; 0 is one of them


# ------------------------------------------------------------------------------- what tars hold


def npy(values) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(values))
    return stream.getvalue()


def jpeg(number: int) -> bytes:
    """Return a picture whose top is as bright as its number and whose bottom is black."""
    pixels = np.zeros((16, 12, 3), np.uint8)
    pixels[:8] = number % 200 + 50
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def write_tar(file: Path, samples: list[dict[str, bytes]], first: int = 0, **options) -> None:
    """Write samples as webdataset's TarWriter does: times with a fraction, so pax headers."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", **options) as tar:
        for i, sample in enumerate(samples):
            for kind, content in sample.items():
                member = tarfile.TarInfo(f"sample{first + i:09d}.{kind}")
                member.size, member.mtime = len(content), time.time()
                tar.addfile(member, io.BytesIO(content))


# --------------------------------------------------------------------------------------- MindEye1


def row(number: int, repeat: int, v: int = V) -> np.ndarray:
    return np.concatenate([[number % 1000, repeat], np.full(v - 2, number % 7 + repeat)])


def sample1(number: int, stored=(0, 1, 2), v: int = V, **changed: bytes) -> dict[str, bytes]:
    """Return a sample of MindEye1; ``stored`` are the repeats in its three rows, with copies."""
    rows = np.stack([row(number, r, v) for r in stored]).astype(np.float16)
    members = {
        "jpg": jpeg(number),
        "nsdgeneral.npy": npy(rows),
        "trial.npy": npy([number]),
        "coco73k.npy": npy([number]),
        "num_uniques.npy": npy([len(set(stored))]),
        "wholebrain_3d.npy": npy(np.zeros((3, 2, 2, 2), np.float16)),
    }
    members |= {kind.replace("__", "."): content for kind, content in changed.items()}
    return {kind: content for kind, content in members.items() if content is not None}


TRAIN = [[(7, (0, 1, 2)), (9, (0, 1, 0))], [(11, (0, 0, 0)), (13, (0, 1, 1))]]
VAL = [(15, (0, 1, 2))]
TEST = [[(72999, (0, 1, 0)), (0, (0, 1, 2))], [(3, (0, 0, 1))]]


def write_mindeye1(root: Path, subject: str = "subj01", v: int = V) -> Path:
    folder, first = root / "webdataset_avg_split", 0
    for part, shards in (("train", TRAIN), ("val", [VAL]), ("test", TEST)):
        for i, shard in enumerate(shards):
            file = folder / part / f"{part}_{subject}_{i}.tar"
            write_tar(file, [sample1(n, stored, v) for n, stored in shard], first)
            first += len(shard)
    (folder / f"metadata_{subject}.json").write_text('{"totals": {"train": 4}}')
    return root


@pytest.fixture(scope="module")
def release1(tmp_path_factory) -> Path:
    root = write_mindeye1(tmp_path_factory.mktemp("mindeye1"))
    return write_mindeye1(root, "subj02", V + 1)


def mindeye1(root: Path, **options) -> MindEye1:
    return MindEye1(root, "study", **{"voxels": "any", **options})


def shard1(root: Path, part: str, number: int, samples: list[dict[str, bytes]], **options) -> Path:
    file = root / "webdataset_avg_split" / part / f"{part}_subj01_{number}.tar"
    write_tar(file, samples, 100 * (number + 1), **options)
    return file


def test_mindeye1_rows_are_the_repeats_of_each_image(release1):
    trials = mindeye1(release1).load("subj01")
    table = trials.table
    assert trials.betas.shape == (3 + 2 + 1 + 2 + 3 + 2 + 3 + 2, V)
    everything = np.asarray(trials.betas)
    assert everything.dtype == np.float32
    numbers = table["stimulus"].str.removeprefix("nsd-").astype(int).to_numpy()
    np.testing.assert_array_equal(everything[:, 0], numbers % 1000)
    np.testing.assert_array_equal(everything[:, 1], table["repeat"])
    assert trials.stimuli("train") == [f"nsd-{n:05d}" for n in (7, 9, 11, 13, 15)]
    assert trials.stimuli("test") == ["nsd-72999", "nsd-00000", "nsd-00003"]
    assert table["part"][table["stimulus"] == "nsd-00015"].unique() == ["val"]
    assert "z-score within session" in trials.beta_unit


@pytest.mark.parametrize("number", [72999, 3])  # stored as [a, b, a] and as [a, a, b]
def test_mindeye1_never_counts_a_copied_repeat_twice(release1, number):
    trials = mindeye1(release1).load("subj01")
    expected = (row(number, 0) + row(number, 1)) / 2
    np.testing.assert_allclose(trials.average(f"nsd-{number:05d}"), expected)


def test_mindeye1_shards_come_in_the_order_of_their_numbers(tmp_path):
    root = write_mindeye1(tmp_path)
    for i, number in ((10, 21), (2, 23)):
        shard1(root, "train", i, [sample1(number)])
    order = mindeye1(root).load("subj01").stimuli("train")
    assert order[-3:] == ["nsd-00023", "nsd-00021", "nsd-00015"]


def test_mindeye1_pictures_are_those_of_the_sample_and_upright(release1):
    dataset = mindeye1(release1)
    for number in (7, 13, 72999):
        picture = dataset.image(f"nsd-{number:05d}")
        assert (picture.shape, picture.dtype) == ((16, 12, 3), np.uint8)
        assert abs(int(picture[2, 5, 0]) - (number % 200 + 50)) <= 3
        assert picture[13].max() <= 3


def test_mindeye1_png_and_a_folder_given_by_itself(tmp_path):
    root = write_mindeye1(tmp_path)
    stream = io.BytesIO()
    Image.new("L", (4, 4), 90).save(stream, "PNG")
    shard1(root, "train", 5, [sample1(40, jpg=None, png=stream.getvalue())])
    dataset = mindeye1(root / "webdataset_avg_split")
    assert dataset.image("nsd-00040").tolist() == [[[90] * 3] * 4] * 4


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_kind_are_read(tmp_path, style):
    root = write_mindeye1(tmp_path)
    file = root / "webdataset_avg_split" / "train" / "train_subj01_0.tar"
    deep = "a" * 60 + "/" + "b" * 60 if style == tarfile.USTAR_FORMAT else "a" * 150
    with tarfile.open(file, "w", format=style) as tar:
        tar.addfile(tarfile.TarInfo("empty") if style == tarfile.USTAR_FORMAT else folder("d"))
        for kind, content in sample1(41).items():
            member = tarfile.TarInfo(f"{deep}/sample000000000.{kind}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert "nsd-00041" in mindeye1(root).load("subj01").stimuli("train")


def folder(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    return member


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


def test_mindeye1_remarks_name_what_is_missing(release1):
    dataset = mindeye1(release1)
    dataset.load("subj01")
    said = dataset.remarks()
    assert any("subj01: 16 of 21 shards are missing (train_subj01_2.tar" in r for r in said)
    assert any("subj01: 4 images in train, the release has 8559" in remark for remark in said)
    assert any("carry no locations" in remark for remark in said)
    assert not any("subj02" in remark and "images in train" in remark for remark in said)


def test_mindeye1_voxels_must_be_the_subjects(tmp_path):
    write_mindeye1(tmp_path, v=14278)
    with pytest.raises(UserError, match="14278 voxels, which is subj02's .* subj01 has 15724"):
        MindEye1(tmp_path, "study").load("subj01")
    write_mindeye1(tmp_path, v=15724)
    assert MindEye1(tmp_path, "study").load("subj01").betas.shape[1] == 15724


def test_mindeye1_two_subjects_in_one_are_refused(tmp_path):
    root = write_mindeye1(tmp_path)
    shard1(root, "train", 3, [sample1(50, v=V + 3)])
    with pytest.raises(UserError, match=r"has 6 voxels, .*has 9; two subjects' shards are mixed"):
        mindeye1(root).load("subj01")


def test_mindeye1_test_images_in_training_are_refused(tmp_path):
    root = write_mindeye1(tmp_path)
    write_tar(root / "webdataset_avg_split" / "test" / "test_subj02_0.tar", [sample1(9, v=V + 1)])
    # a test image of one subject is a test image of all
    with pytest.raises(UserError, match="trains on nsd-00009, which .*test_subj02_0.*tests on"):
        mindeye1(root).load("subj01")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"coco73k__npy": npy([73000])}, "is 73000; images are numbered from 0 to 72999"),
        ({"coco73k__npy": npy([-1])}, "is -1; images are numbered from 0"),
        ({"coco73k__npy": npy([1, 2])}, "needs one whole number, found int64"),
        ({"coco73k__npy": npy([7])}, "nsd-00007 is in .*_0.tar.* and in .*_4.tar"),
        ({"num_uniques__npy": npy([4])}, "num_uniques.npy is 4; an image has 1 to 3"),
        ({"num_uniques__npy": None}, "lacks the member num_uniques.npy"),
        ({"jpg": None}, "lacks the member jpg or png"),
        ({"num_uniques__npy": npy([2])}, "num_uniques says 2 repeats, nsdgeneral holds 3"),
        ({"nsdgeneral__npy": npy(np.zeros(V))}, r"needs numbers \(3, voxels\), found float64"),
        ({"nsdgeneral__npy": npy(np.ones((3, V)))[:-9]}, "damaged or cut short"),
        ({"coco73k__npy": b"nothing"}, "coco73k.npy is damaged or cut short"),
    ],
)
def test_mindeye1_bad_samples_are_refused(tmp_path, changed, message):
    root = write_mindeye1(tmp_path)
    shard1(root, "train", 4, [sample1(60, **changed)])
    with pytest.raises(UserError, match=message):
        np.asarray(mindeye1(root).load("subj01").betas)


def test_a_pickled_member_is_never_unpickled(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    root = write_mindeye1(tmp_path)
    shard1(root, "train", 4, [sample1(60, coco73k__npy=stream.getvalue())])
    with pytest.raises(UserError, match="holds pickled Python objects, .* so it is not read"):
        mindeye1(root).load("subj01")


def test_a_tar_that_is_cut_short_is_refused(tmp_path):
    root = write_mindeye1(tmp_path)
    file = shard1(root, "test", 1, [sample1(61), sample1(62)])
    whole = file.read_bytes()
    last = whole.rstrip(b"\0")
    # inside a member, inside a header, and after a member, where nothing marks the end
    for length in (len(last) - 700, 1030, 512 * (-(-len(last) // 512))):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"test_subj01_1.tar is not a tar file or cut short"):
            mindeye1(root).load("subj01")
    file.write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(UserError, match="is not a tar file or cut short at byte 0"):
        mindeye1(root).load("subj01")


def test_mindeye1_says_what_it_has_not(release1):
    dataset = mindeye1(release1)
    with pytest.raises(UserError, match="No shard of study has the image 'nsd-00500'"):
        dataset.image("nsd-00500")
    with pytest.raises(UserError, match="has the subjects subj01, subj02, not 'subj05'"):
        dataset.load("subj05")
    with pytest.raises(UserError, match="voxels is nsdgeneral .* or any, found 'some'"):
        mindeye1(release1, voxels="some")


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


# --------------------------------------------------------------------------------------- MindEye2

SESSIONS = 2
T = 750 * SESSIONS


def shown(subject: int, trials: int = T) -> np.ndarray:
    """Images of a subject's trials: one sequence for all, shared images on the same trials.

    Every tenth trial shows a shared image, twice to three times; the rest is the subject's own.
    """
    rng = np.random.default_rng(5)
    position = rng.integers(0, 400, trials)  # the same for everybody
    shared = np.arange(trials) % 10 == 0
    own = np.setdiff1d(np.arange(73000), SHARED)[(subject - 1) * 9000 :][:400]
    return np.where(shared, SHARED[position % 60], own[position])


def betas2(numbers: np.ndarray, v: int) -> np.ndarray:
    """Voxel 0 says the image, voxel 1 the global trial."""
    noise = np.random.default_rng(1).standard_normal((len(numbers), v)).astype(np.float32)
    noise[:, 0], noise[:, 1] = numbers, np.arange(len(numbers))
    return noise


def behav(subject: int, trial: int, number: int) -> np.ndarray:
    """One row of 17 columns as MindEye2's README lists them; -1 where there is no value."""
    run, of_run = trial % 750 // 63 + 1, trial % 750 % 63 + 1
    known = [number, subject, trial // 750 + 1, run, of_run, trial, 737000, 0, 1, 812.5]
    return np.array([[*known, -1, -1, -1, 3, 4, 1, number in SHARED]], dtype=np.float64)


def sample2(subject: int, trial: int, number: int) -> dict[str, bytes]:
    one = behav(subject, trial, number)
    return {
        "behav.npy": npy(one),
        "past_behav.npy": npy(np.full((15, 17), -1.0)),
        "future_behav.npy": npy(np.full((15, 17), -1.0)),
        "olds_behav.npy": npy(np.full((3, 17), -1.0)),
    }


def write_wds(root: Path, subject: int, trials: int = T) -> None:
    numbers, place = shown(subject, trials), root / "wds" / f"subj0{subject}"
    shared = np.isin(numbers, SHARED)
    for session in range(trials // 750):
        rows = np.flatnonzero(~shared[: 750 * (session + 1)])
        rows = rows[rows >= 750 * session]
        write_tar(
            place / "train" / f"{session}.tar", [sample2(subject, t, numbers[t]) for t in rows]
        )
    tested = np.flatnonzero(shared)
    write_tar(place / "new_test" / "0.tar", [sample2(subject, t, numbers[t]) for t in tested])
    early = tested[tested < 750]
    write_tar(place / "test" / "0.tar", [sample2(subject, t, numbers[t]) for t in early])


def write_shared(root: Path) -> None:
    shared = np.zeros(73000, bool)
    shared[SHARED] = True
    np.save(root / "shared1000.npy", shared)


def write_mindeye2(root: Path, subjects=(1, 2)) -> Path:
    for s in subjects:
        with h5py.File(root / f"betas_all_subj0{s}_fp32_renorm.hdf5", "w") as file:
            file["betas"] = betas2(shown(s), V + s - 1)
    with h5py.File(root / "COCO_73k_subj_indices.hdf5", "w") as file:
        for s in subjects:
            file[f"subj0{s}"] = shown(s)
    write_shared(root)
    with h5py.File(root / "coco_images_224_float16.hdf5", "w") as file:
        shape = (73000, 3, 224, 224)
        images = file.create_dataset("images", shape, np.float16, chunks=(1, 3, 224, 224))
        for number in (0, SHARED[1], 72999):
            images[number] = picture2(number)
    with h5py.File(root / "brain_region_masks.hdf5", "w") as file:
        for s in subjects:
            v = V + s - 1
            masks = {"nsd_general": np.ones(v, bool), "V1": np.arange(v) < 2}
            masks["higher_vis"] = np.arange(v) >= 2
            for name, mask in masks.items():
                file[f"subj0{s}/{name}"] = mask
    return root


def picture2(number: int) -> np.ndarray:
    """Float16 (3, 224, 224) in [0, 1]: red above, blue on the left, green by number."""
    pixels = np.zeros((3, 224, 224), np.float16)
    pixels[0, :112] = 1
    pixels[2, :, :112] = 0.5
    pixels[1] = number / 73000
    return pixels


@pytest.fixture(scope="module")
def release2(tmp_path_factory) -> Path:
    return write_mindeye2(tmp_path_factory.mktemp("mindeye2"))


def mindeye2(root: Path, **options) -> MindEye2:
    return MindEye2(root, "study", **{"voxels": "any", **options})


@pytest.fixture(scope="module")
def wds_only(tmp_path_factory) -> Path:
    """Betas and shards, as somebody has who did not take the table of images."""
    root = tmp_path_factory.mktemp("wds")
    with h5py.File(root / "betas_all_subj01_fp32_renorm.hdf5", "w") as file:
        file["betas"] = betas2(shown(1), V)
    write_wds(root, 1)
    write_shared(root)
    return root


def test_mindeye2_rows_are_global_trials_and_ids_count_from_zero(release2):
    for subject, number in (("subj01", 1), ("subj02", 2)):
        trials = mindeye2(release2).load(subject)
        everything = np.asarray(trials.betas)
        assert everything.shape == (T, V + number - 1)
        numbers = trials.table["stimulus"].str.removeprefix("nsd-").astype(int)
        np.testing.assert_array_equal(everything[:, 0], numbers)
        np.testing.assert_array_equal(everything[:, 1], trials.table["trial"])
        np.testing.assert_array_equal(numbers, shown(number))
        np.testing.assert_array_equal(trials.table["session"], np.arange(T) // 750 + 1)
        assert set(trials.stimuli("test")) == {f"nsd-{n:05d}" for n in SHARED[:60]} & set(
            trials.table["stimulus"]
        )
        assert not set(trials.stimuli("train")) & set(trials.stimuli("test"))


def test_mindeye2_averages_each_repeat_once(release2):
    trials, numbers = mindeye2(release2).load("subj01"), shown(1)
    stored = betas2(numbers, V)
    counts = {n: int((numbers == n).sum()) for n in SHARED[:60]}
    two = next(n for n, count in counts.items() if count == 2)
    a, b = stored[numbers == two]
    np.testing.assert_allclose(trials.average(f"nsd-{two:05d}"), (a + b) / 2, rtol=1e-5)
    assert not np.allclose((a + b) / 2, (a + b + a) / 3)
    rows = trials.rows("test", f"nsd-{two:05d}")
    assert trials.table["repeat"].iloc[rows].tolist() == [0, 1]


def test_mindeye2_sessions_cut_training_and_never_the_test(release2):
    full, one = mindeye2(release2).load("subj01"), mindeye2(release2, sessions="1").load("subj01")
    assert one.table["session"].iloc[one.rows("train")].unique() == [1]
    assert len(one.rows("train")) == (full.table["session"].iloc[full.rows("train")] == 1).sum()
    assert one.stimuli("test") == full.stimuli("test")
    everything = np.asarray(one.betas)  # rows that are left out do not shift the others
    np.testing.assert_array_equal(everything[:, 1], one.table["trial"])
    np.testing.assert_array_equal(one.betas[5:9], everything[5:9])
    assert any("sessions=1" in r for r in mindeye2(release2, sessions="1").remarks())


def test_mindeye2_trials_from_shards_are_those_of_the_table(release2, wds_only):
    table = mindeye2(release2).load("subj01").table
    trials = mindeye2(wds_only).load("subj01")
    assert table["stimulus"].tolist() == trials.table["stimulus"].tolist()
    for column in ("split", "repeat", "session", "trial"):
        assert table[column].tolist() == trials.table[column].tolist(), column
    # and shards know the run, which the table of images does not
    expected = [behav(1, t, 0)[0, 3] for t in range(T)]
    assert trials.table["run"].tolist() == expected
    assert set(table["run"]) == {0}
    np.testing.assert_array_equal(np.asarray(trials.betas)[:, 1], np.arange(T))


def test_mindeye2_older_test_set_on_request(wds_only):
    dataset = mindeye2(wds_only, test="test")
    trials, numbers = dataset.load("subj01"), shown(1)
    shared = np.isin(numbers, SHARED)
    tested = trials.table["trial"].iloc[trials.rows("test")]
    assert tested.tolist() == np.flatnonzero(shared[:750]).tolist()
    assert len(trials.rows("train")) == (~shared).sum()  # the others are not trained on
    assert set(dataset.stimuli["test_set"]) == {"", "MindEye2 test (982)"}
    assert "older" in dataset.title
    assert "older test set" in dataset.note
    assert any("the older one of 982" in remark for remark in dataset.remarks())


def test_mindeye2_older_test_set_needs_its_shard(release2):
    with pytest.raises(UserError, match=r"test/0.tar is missing: .* or use test=new_test"):
        mindeye2(release2, test="test").load("subj01")


def test_mindeye2_pictures_are_bytes_the_right_way_round(release2):
    picture = mindeye2(release2).image("nsd-72999")
    assert (picture.shape, picture.dtype) == ((224, 224, 3), np.uint8)
    assert picture[0, 223].tolist() == [255, 255, 0]  # 72999 / 73000 is 255 green
    assert picture[223, 0].tolist() == [0, 255, 128]
    assert mindeye2(release2).image("nsd-00000")[0, 0].tolist() == [255, 0, 128]


def test_mindeye2_without_pictures_says_which_file(tmp_path):
    root = write_mindeye2(tmp_path, (1,))
    (root / "coco_images_224_float16.hdf5").unlink()
    message = r"coco_images_224_float16.hdf5 is missing, .* about 22 GB .*pscotti/mindeyev2"
    with pytest.raises(UserError, match=message):
        mindeye2(root).image("nsd-00000")
    assert len(mindeye2(root).load("subj01").table) == T  # the trials open nevertheless
    assert any("no image can be shown" in remark for remark in mindeye2(root).remarks())
    write_mindeye1(root)
    assert mindeye2(root).image("nsd-00000").shape == (16, 12, 3)  # MindEye1's shards beside
    assert any("MindEye1's shards" in remark for remark in mindeye2(root).remarks())
    with h5py.File(root / "nsd_stimuli.hdf5", "w") as file:
        shape = (73000, 425, 425, 3)
        images = file.create_dataset("imgBrick", shape, np.uint8, chunks=(1, 425, 425, 3))
        images[0] = np.tile(np.arange(3, dtype=np.uint8), (425, 425, 1))
    nsds_own = mindeye2(root).image("nsd-00000")
    assert (nsds_own == np.arange(3)).all()
    assert nsds_own.shape == (425, 425, 3)


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


# -------------------------------------------------------------- whose files they are, at full size


def write_full(root: Path, subject: int, trials: int, voxels: int, name: str = "") -> Path:
    """Betas of full size on paper: rows that are not written take no room."""
    file = root / (name or f"betas_all_subj0{subject}_fp32_renorm.hdf5")
    with h5py.File(file, "w") as opened:
        rows = opened.create_dataset("betas", (trials, voxels), np.float32, chunks=(1, voxels))
        rows[0] = np.random.default_rng(0).standard_normal(voxels)
    return file


def write_full_list(root: Path, **lists: np.ndarray) -> None:
    with h5py.File(root / "COCO_73k_subj_indices.hdf5", "w") as opened:
        for subject, numbers in lists.items():
            opened[subject] = numbers


def full_list(subject: int, trials: int = 30000) -> np.ndarray:
    """Every one of 10,000 images three times, the shared ones on the same trials for all."""
    order = np.random.default_rng(2).permutation(np.repeat(np.arange(10000), 3))
    own = np.setdiff1d(np.arange(73000), SHARED)[(subject - 1) * 9000 : subject * 9000]
    return np.concatenate([SHARED, own])[order][:trials]


def test_mindeye2_counts_of_the_release_open(tmp_path):
    write_full(tmp_path, 5, 30000, 13039)
    write_full_list(tmp_path, subj05=full_list(5))
    write_shared(tmp_path)
    trials = MindEye2(tmp_path, "study").load("subj05")
    assert trials.betas.shape == (30000, 13039)
    counts = trials.table.groupby("split")["stimulus"].agg(["size", "nunique"])
    assert counts.loc["train"].tolist() == [27000, 9000]
    assert counts.loc["test"].tolist() == [3000, 1000]


def test_mindeye2_shared_images_are_those_two_subjects_saw(tmp_path):
    write_full(tmp_path, 5, 30000, 13039)
    write_full_list(tmp_path, **{f"subj0{s}": full_list(s) for s in (1, 5)})
    trials = MindEye2(tmp_path, "study").load("subj05")  # no shared1000.npy
    assert trials.stimuli("test")[0] in {f"nsd-{n:05d}" for n in SHARED}
    assert len(trials.stimuli("test")) == 1000
    write_full_list(tmp_path, subj05=full_list(5))
    with pytest.raises(UserError, match="shared1000.npy is missing .73 kB"):
        MindEye2(tmp_path, "study").load("subj05")


@pytest.mark.parametrize(
    ("trials", "voxels", "message"),
    [
        (30000, 13039, "13039 voxels, which is subj05's nsdgeneral at 1.8 mm; subj01 has 15724"),
        (30000, 49329, "49329 voxels, which is nobody's nsdgeneral at 1.8 mm; subj01 has 15724"),
        (24000, 15724, "24000 trials, subj01 has 30000 .24000 is what subj03, subj06 have"),
        (27750, 15724, "27750 trials, subj01 has 30000; copy"),
    ],
)
def test_mindeye2_betas_of_another_are_refused(tmp_path, trials, voxels, message):
    write_full(tmp_path, 1, trials, voxels)
    write_full_list(tmp_path, subj01=full_list(1))
    write_shared(tmp_path)
    with pytest.raises(UserError, match=message):
        MindEye2(tmp_path, "study").load("subj01")


def test_mindeye2_older_betas_are_refused_by_name(tmp_path):
    write_full(tmp_path, 1, 30000, 49329, "betas_all_subj01.hdf5")
    message = r"betas_all_subj01.hdf5 is an older file .*no betas_all_subj0X_fp32_renorm.hdf5"
    assert MindEye2.recognise(tmp_path)  # so that somebody gets to hear it
    with pytest.raises(UserError, match=message):
        MindEye2(tmp_path, "study")
    write_full(tmp_path, 2, 30000, 14278)
    dataset = MindEye2(tmp_path, "study")
    assert dataset.subjects() == ["subj02"]
    assert any("betas_all_subj01.hdf5 hold other voxels" in r for r in dataset.remarks())


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"subj01": full_list(3, 24000)}, "24000 trials of subj01, its betas have 30000"),
        (
            {"subj01": full_list(3, 24000), "subj03": full_list(1)},
            "which is as many as subj03 have; the files are of different subjects",
        ),
        ({"subj01": full_list(2), "subj02": full_list(2)}, "subj01 and subj02 were both shown"),
        ({"subj01": full_list(1) + 1}, "was shown 0 of the 1000|was shown .* does not count from"),
        ({"subj01": full_list(1) + 7000}, "has the image 7.*; images are numbered from 0 to"),
        (
            {"subj01": full_list(1), "subj02": np.roll(full_list(2), 1)},
            "trial .* showed nsd-.* to subj01 and nsd-.* to subj02; shared images",
        ),
        (
            {"subj01": full_list(1).astype(float)},
            "expected whole numbers .trials,., found float64",
        ),
    ],
)
def test_mindeye2_lists_of_another_are_refused(tmp_path, lists, message):
    write_full(tmp_path, 1, 30000, 15724)
    write_full_list(tmp_path, **lists)
    write_shared(tmp_path)
    with pytest.raises(UserError, match=message):
        MindEye2(tmp_path, "study").load("subj01")


def test_mindeye2_shards_of_another_are_refused(tmp_path):
    root = write_mindeye2(tmp_path, (1,))
    numbers = shown(1)
    file = root / "wds" / "subj01" / "new_test" / "0.tar"
    write_tar(file, [sample2(2, t, numbers[t]) for t in (0, 10)])
    with pytest.raises(UserError, match="holds trials of subject 2, not of subj01"):
        mindeye2(root).load("subj01")
    write_tar(file, [sample2(1, t + 1, numbers[t]) for t in (0, 10)])  # slipped by one
    with pytest.raises(UserError, match="says that trial 1 showed .* do not belong together"):
        mindeye2(root).load("subj01")
    write_tar(file, [{"behav.npy": npy(np.zeros((1, 16)))}])
    with pytest.raises(UserError, match=r"needs 17 numbers \(1, 17\), found float64 \(1, 16\)"):
        mindeye2(root).load("subj01")
    write_tar(file, [{"jpg": b""}])
    with pytest.raises(UserError, match=r"0.tar holds no behav.npy"):
        mindeye2(root).load("subj01")


def small_wds(root: Path, train: list, test: list) -> MindEye2:
    """Ten trials in shards: (trial, image) pairs."""
    with h5py.File(root / "betas_all_subj01_fp32_renorm.hdf5", "w") as file:
        file["betas"] = betas2(np.arange(10), V)
    write_shared(root)
    place = root / "wds" / "subj01"
    write_tar(place / "train" / "0.tar", [sample2(1, *pair) for pair in train])
    write_tar(place / "new_test" / "0.tar", [sample2(1, *pair) for pair in test])
    return mindeye2(root)


def test_mindeye2_order_is_the_global_trial_whatever_the_order_of_samples(tmp_path):
    table = small_wds(tmp_path, [(8, 5), (1, 4)], [(3, 73), (0, 0)]).load("subj01").table
    assert table["trial"].tolist() == [0, 1, 3, 8]
    assert table["stimulus"].tolist() == ["nsd-00000", "nsd-00004", "nsd-00073", "nsd-00005"]
    assert table["split"].tolist() == ["test", "train", "test", "train"]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([(1, 4), (2, 73)], [(0, 0)], "trains on nsd-00073 .trial 2., which is one of the 1000"),
        ([(1, 4), (1, 5)], [(0, 0)], "trial 1 is there twice"),
        ([(1, 4), (10, 5)], [(0, 0)], "trial 10 is beyond the 10 rows"),
        ([(1, 73000)], [(0, 0)], "has the image 73000 in trial 1; images are numbered from 0"),
    ],
)
def test_mindeye2_wrong_shards_are_refused(tmp_path, train, test, message):
    with pytest.raises(UserError, match=message):
        small_wds(tmp_path, train, test).load("subj01")


def test_mindeye2_without_any_table_of_images(tmp_path):
    write_full(tmp_path, 1, 30000, 15724)
    with pytest.raises(UserError, match="COCO_73k_subj_indices.hdf5 is missing or lacks subj01"):
        MindEye2(tmp_path, "study").load("subj01")
    # and doctor is told, not stopped
    remarks = MindEye2(tmp_path, "study").remarks()
    assert remarks[0].startswith("subj01 cannot be opened: ")


@pytest.mark.parametrize("wrong", [SHARED, np.zeros(73000, bool), np.ones(72999, bool)])
def test_mindeye2_shared1000_must_be_a_mask_of_a_thousand(release2, tmp_path, wrong):
    root = write_mindeye2(tmp_path, (1,))
    np.save(root / "shared1000.npy", wrong)
    with pytest.raises(UserError, match=r"needs bool \(73000,\) with 1000 true"):
        mindeye2(root).load("subj01")


def test_mindeye2_truncated_files_are_refused(tmp_path):
    root = write_mindeye2(tmp_path, (1,))
    for name in ("betas_all_subj01_fp32_renorm.hdf5", "COCO_73k_subj_indices.hdf5"):
        file = root / name
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=f"{name} is damaged or cut short"):
            mindeye2(root).load("subj01")
        file.write_bytes(whole)
    with h5py.File(root / "betas_all_subj01_fp32_renorm.hdf5", "a") as file:
        file.move("betas", "beta")
    with pytest.raises(UserError, match=r"needs betas, numbers \(trials, voxels\); it has beta"):
        mindeye2(root).load("subj01")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sessions": "0"}, "sessions is all or a number from 1 to 40, found '0'"),
        ({"sessions": "few"}, "sessions is all or a number from 1 to 40, found 'few'"),
        ({"test": "old"}, "test is new_test .* or test .the older 982., found 'old'"),
        ({"voxels": "V1"}, "voxels is nsdgeneral .* or any, found 'V1'"),
    ],
)
def test_mindeye2_options_are_checked(release2, options, message):
    with pytest.raises(UserError, match=message):
        mindeye2(release2, **options)


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
