"""Arrays read by rows: every kind of index, z-scores by hand, files that are not what they say."""

import os
import threading
import zipfile

import h5py
import numpy as np
import pytest

from backends.datasets import reading
from backends.datasets.reading import LazyRows, hdf5_rows, open_hdf5, stacked, standardised
from explorer.types import UserError

STORED = np.arange(28, dtype=np.int16).reshape(7, 4)


@pytest.fixture
def asked() -> list[list[int]]:
    return []


@pytest.fixture
def rows(asked) -> LazyRows:
    """Seven rows of four voxels that write down what was asked of the file."""

    def read(wanted: np.ndarray) -> np.ndarray:
        assert wanted.dtype == np.int64
        assert (np.diff(wanted) > 0).all(), "h5py takes strictly increasing rows only"
        asked.append(wanted.tolist())
        return STORED[wanted]

    return LazyRows(STORED.shape, read, "study/sub-01")


# ----------------------------------------------------------------------------------------- indices


@pytest.mark.parametrize(
    "index",
    [
        *(3, -1, np.int64(2)),
        *(slice(None), slice(2, 5), slice(None, None, -2), slice(4, 4)),
        *([4, 0, 4], [-1, 0, -7], [], np.array([6, 6, 6])),
        np.array([], dtype=np.int64),
        np.array([True, False, True, False, False, False, True]),
        np.zeros(7, dtype=bool),
        np.array([[0, 1], [6, 0]]),
        *((2, 3), (slice(1, 3), 2), ([3, 1], slice(0, 2)), (-1, [0, 3])),
        (slice(None), np.array([True, False, False, True])),
        Ellipsis,
    ],
)
def test_every_index_gives_what_numpy_gives(rows, index):
    # of a pair, the first picks rows and the second voxels of each row
    pair = isinstance(index, tuple)
    expected = STORED[index[0]][(..., *index[1:])] if pair else STORED[index]
    found = rows[index]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_only_what_is_asked_for_is_read(rows, asked):
    rows[[5, 1, 5]]
    rows[2]
    rows[np.zeros(7, dtype=bool)]
    assert asked == [[1, 5], [2]]


def test_it_counts_as_an_array(rows):
    assert (len(rows), rows.shape, rows.ndim, rows.dtype) == (7, (7, 4), 2, np.float32)
    np.testing.assert_array_equal(np.asarray(rows), STORED)
    assert np.asarray(rows, dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize("index", [7, -8, [0, 7], np.ones(6, dtype=bool)])
def test_rows_that_do_not_exist_are_an_error(rows, asked, index):
    with pytest.raises(IndexError):
        rows[index]
    assert asked == []


def test_a_value_that_is_not_finite_is_named_by_its_own_trial():
    values = np.ones((5, 3), dtype=np.float32)
    values[3, 1] = np.nan
    rows = LazyRows(values.shape, lambda wanted: values[wanted], "study/sub-01")
    np.testing.assert_array_equal(rows[[0, 4]], values[[0, 4]])
    with pytest.raises(UserError, match=r"study/sub-01 holds .* trial 3, voxel 1 \(both from 0\)"):
        rows[[4, 3, 1]]


# ---------------------------------------------------------------------------------------- z-scores


def of(values: list[list[float]]) -> LazyRows:
    stored = np.array(values, dtype=np.float32)
    return LazyRows(stored.shape, lambda wanted: stored[wanted], "study/sub-01")


def test_z_scores_by_hand_from_training_rows_alone():
    # Session 1: training rows 1, 3, 5 (mean 3, SD sqrt(8/3)), a test row far away. Session 2:
    # training rows 10, 20 (mean 15, SD 5). The second voxel is twice the first, minus 1.
    first = np.array([1, 10, 100, 3, 20, 5, 40], dtype=float)
    rows = of(np.stack([first, 2 * first - 1], axis=1))
    session = np.array([1, 2, 1, 1, 2, 1, 2])
    train = np.array([True, True, False, True, True, True, False])
    scored = standardised(rows, session, train)
    sd = np.sqrt(8 / 3)
    expected = [-2 / sd, -1, 97 / sd, 0, 1, 2 / sd, 5]
    np.testing.assert_allclose(scored[:], np.stack([expected, expected], axis=1), rtol=1e-6)
    assert (scored.shape, scored.dtype) == ((7, 2), np.float32)
    # One trial alone, and out of order, is what it is among the others.
    np.testing.assert_array_equal(scored[4], scored[:][4])
    np.testing.assert_array_equal(scored[[6, 0, 6]], scored[:][[6, 0, 6]])


def test_the_sample_sd_is_there_too():
    scored = standardised(of([[1.0], [3.0], [5.0]]), np.zeros(3), np.ones(3, bool), ddof=1)
    np.testing.assert_allclose(scored[:, 0], [-1, 0, 1], rtol=1e-6)


def test_a_voxel_that_never_varies_becomes_zero_there_and_nowhere_else():
    rows = of([[7.0, 1.0], [7.0, 3.0], [9.0, 5.0], [7.0, 1.0], [5.0, 3.0]])
    train = np.array([True, True, False, True, True])
    scored = standardised(rows, np.array([1, 1, 1, 2, 2]), train)
    np.testing.assert_allclose(scored[:, 0], [0, 0, 0, 1, -1], rtol=1e-6)
    np.testing.assert_allclose(scored[:, 1], [-1, 1, 3, -1, 1], rtol=1e-6)


def test_rounding_alone_is_no_variance():
    rows = of([[1e6], [1e6 + 0.0625], [1e6]])
    np.testing.assert_array_equal(standardised(rows, np.zeros(3), np.ones(3, bool))[:], 0)


def test_a_group_without_training_rows_is_refused_when_it_is_read():
    rows = of([[1.0], [2.0], [3.0]])
    train = np.array([True, True, False])
    scored = standardised(rows, np.array(["a", "a", "b"]), train)
    np.testing.assert_allclose(scored[:2], [[-1], [1]])
    with pytest.raises(UserError, match="'b' has no training trial .* cannot be z-scored"):
        scored[2]


def test_statistics_are_taken_when_needed_and_once(rows, asked):
    scored = standardised(rows, np.array([1, 1, 1, 2, 2, 2, 2]), np.ones(7, bool))
    assert asked == []
    scored[5]
    assert asked == [[3, 4, 5, 6], [5]]  # nothing of the other group
    scored[4]
    assert asked[2:] == [[4]]


def test_a_group_is_finished_before_the_next_is_read(rows, asked):
    scored = standardised(rows, np.array([1, 2, 1, 2, 1, 2, 1]), np.arange(7) < 4)
    scored[:]
    assert asked == [[0, 2], [0, 2, 4, 6], [1, 3], [1, 3, 5]]


def test_many_threads_get_the_same(rows):
    scored = standardised(rows, np.arange(7) // 3, np.ones(7, bool))
    expected, found = scored[:], {}
    again = standardised(rows, np.arange(7) // 3, np.ones(7, bool))
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: again[i % 7]})) for i in range(14)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, row in found.items():
        np.testing.assert_array_equal(row, expected[i % 7])
    assert len(found) == 14


def test_mean_and_sd_do_not_depend_on_the_chunks(monkeypatch):
    values = np.random.default_rng(0).normal(50, 3, (23, 4)).astype(np.float32)
    which = np.array([0, 3, 4, 5, 9, 11, 12, 13, 20, 21, 22])
    for chunk in (1, 4, 11, 256):
        monkeypatch.setattr(reading, "CHUNK_ROWS", chunk)
        mean, sd = reading.mean_and_sd(values, which)
        np.testing.assert_allclose(mean, values[which].mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(sd, values[which].std(axis=0), rtol=1e-5)
        sample = reading.mean_and_sd(values, which, ddof=1)[1]
        np.testing.assert_allclose(sample, values[which].std(axis=0, ddof=1), rtol=1e-5)


def test_the_sd_of_one_row_is_zero():
    mean, sd = reading.mean_and_sd(np.array([[2.0, -3.0]]), np.array([0]), ddof=1)
    assert (mean.tolist(), sd.tolist()) == ([2, -3], [0, 0])


# -------------------------------------------------------------------------------------------- HDF5


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "betas.hdf5"
    with h5py.File(path, "w") as written:
        written["betas"] = np.arange(60, dtype=np.int16).reshape(12, 5)
    return path


@pytest.mark.parametrize("columns", [None, slice(1, 4), [3, 0], np.arange(5) % 2 == 0])
def test_rows_of_hdf5(file, columns):
    with open_hdf5(file) as opened:
        stored = opened["betas"][:]
        expected = stored if columns is None else stored[:, columns]
        rows = hdf5_rows(opened["betas"], "study/sub-01", columns)
        assert rows.shape == expected.shape
        for index in (3, slice(None), [11, 0, 1, 2, 7, 0], np.arange(12) % 3 == 0, -1):
            np.testing.assert_array_equal(rows[index], expected[index])


def test_neighbours_are_read_in_one_piece():
    class Counted:
        shape, reads = (12, 2), []  # noqa: RUF012

        def __getitem__(self, rows):
            self.reads.append((rows.start, rows.stop))
            return np.repeat(np.arange(rows.start, rows.stop)[:, None], 2, axis=1)

    array = Counted()
    np.testing.assert_array_equal(hdf5_rows(array, "s")[[9, 2, 3, 4, 0]][:, 0], [9, 2, 3, 4, 0])
    assert array.reads == [(0, 1), (2, 5), (9, 10)]


def test_hdf5_is_opened_for_reading_only(file):
    with open_hdf5(file) as opened, pytest.raises((ValueError, OSError)):
        opened["betas"][0, 0] = 1


def test_missing_and_cut_hdf5_take_one_sentence(file, tmp_path):
    with pytest.raises(UserError, match=r"nowhere.hdf5 is missing; it holds the images\.$"):
        open_hdf5(tmp_path / "nowhere.hdf5", "it holds the images")
    with pytest.raises(UserError, match=r"is missing; check the path\.$"):
        open_hdf5(tmp_path / "nowhere.hdf5")
    for keep in (0, 100, 1500):
        cut = tmp_path / f"cut{keep}.hdf5"
        cut.write_bytes(file.read_bytes()[:keep])
        with pytest.raises(UserError, match="is damaged or cut short .*; copy it again"):
            open_hdf5(cut)


# -------------------------------------------------------------------------------------------- .npz


class Trap:
    """Would leave a file behind if it were ever unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_an_npz_come_one_by_one(tmp_path, save):
    arrays = {
        "arr_0": np.random.default_rng(0).standard_normal((3, 4)),
        "fortran": np.asfortranarray(STORED),
        "VC": np.array([True, False]),
        "nothing": np.zeros((0, 3)),
        "name": np.array("sub-01"),
    }
    save(tmp_path / "sbj.npz", **arrays)
    assert set(reading.npz_names(tmp_path / "sbj.npz")) == set(arrays)
    for name, array in arrays.items():
        found = reading.npz_array(tmp_path / "sbj.npz", name)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
    if save is np.savez:
        assert isinstance(reading.npz_array(tmp_path / "sbj.npz", "arr_0"), np.memmap)


def test_an_npz_that_is_not_one_takes_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "bad.npz", pickled=np.array([Trap()], dtype=object), fine=np.ones(500))
    with pytest.raises(UserError, match=r"bad.npz \(pickled\) holds pickled Python objects"):
        reading.npz_array(tmp_path / "bad.npz", "pickled")
    assert not (tmp_path / "unpickled").exists()
    with pytest.raises(UserError, match="bad.npz has no array 'arr_9'; it has pickled, fine"):
        reading.npz_array(tmp_path / "bad.npz", "arr_9")
    whole = (tmp_path / "bad.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:1000])
    for ask in (reading.npz_names, lambda path: reading.npz_array(path, "fine")):
        with pytest.raises(UserError, match="cut.npz is damaged or cut short"):
            ask(tmp_path / "cut.npz")
        with pytest.raises(UserError, match="nowhere.npz is missing; check the path"):
            ask(tmp_path / "nowhere.npz")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("fine.npy", "this is no array")
    with pytest.raises(UserError, match="text.npz is damaged or cut short at 'fine'"):
        reading.npz_array(tmp_path / "text.npz", "fine")


# ---------------------------------------------------------- HDF5 arrays that are not what they say


def test_an_array_of_hdf5_is_what_its_reader_needs(file):
    with h5py.File(file, "a") as written:
        written["names"] = ["a", "b"]
        written["gone"] = h5py.SoftLink("/nowhere")
        written["loop"] = h5py.SoftLink("/loop")
        written.create_group("group")
        written["nothing"] = h5py.Empty("f4")
    with open_hdf5(file) as opened:
        assert reading.hdf5_array(opened, "betas", 2, "iu").shape == (12, 5)
        for name in ("absent", "gone"):
            with pytest.raises(UserError, match=f"betas.hdf5 has no array '{name}'; it has betas"):
                reading.hdf5_array(opened, name)
        with pytest.raises(UserError, match="betas.hdf5 is damaged or cut short at 'loop'"):
            reading.hdf5_array(opened, "loop")
        for name, ndim, sentence in (
            ("group", None, "has a group, expected an array, 'group'; it has betas"),
            ("names", None, "'names' needs numbers, found object .2,.; take the file"),
            ("nothing", None, "'nothing' needs numbers, found float32; take"),
            ("betas", 3, r"'betas' needs numbers along 3 axes, found int16 \(12, 5\); take"),
        ):
            with pytest.raises(UserError, match=sentence):
                reading.hdf5_array(opened, name, ndim)


@pytest.mark.parametrize(
    "options",
    [
        {},  # contiguous, never written
        {"chunks": (100, 100)},
        {"chunks": (100, 100), "compression": "gzip"},
        {"chunks": (100_000, 10_000), "compression": "gzip"},  # few chunks, none written
    ],
)
def test_numbers_that_were_never_written_are_refused(tmp_path, options):
    """A file of some kilobytes may declare gigabytes, which would all be read as 0."""
    with h5py.File(tmp_path / "sparse.h5", "w") as written:
        written.create_dataset("betas", (1_000_000, 10_000), "f4", **options)
    with open_hdf5(tmp_path / "sparse.h5") as opened:
        with pytest.raises(
            UserError, match=r"sparse.h5 is damaged or cut short at 'betas' .*40,000,000,000 bytes"
        ):
            reading.hdf5_array(opened, "betas")


def test_a_chunk_that_was_never_written_is_refused(tmp_path):
    with h5py.File(tmp_path / "half.h5", "w") as written:
        for name, more in (("plain", {}), ("packed", {"compression": "gzip"})):
            array = written.create_dataset(name, (8, 4), "f4", chunks=(2, 4), **more)
            array[:6] = 1  # the last of four chunks is missing
    with open_hdf5(tmp_path / "half.h5") as opened:
        for name in ("plain", "packed"):
            with pytest.raises(UserError, match="128 bytes, of which at most 96 are there"):
                reading.hdf5_array(opened, name)


def test_numbers_in_other_files_are_not_opened(tmp_path, file):
    layout = h5py.VirtualLayout((12, 5), "i2")
    layout[:] = h5py.VirtualSource(file, "betas", (12, 5))
    with h5py.File(tmp_path / "other.h5", "w") as written:
        written.create_virtual_dataset("virtual", layout)
        outside = [(str(tmp_path / "raw"), 0, 8)]
        written.create_dataset("external", (4,), "i2", external=outside)
    with open_hdf5(tmp_path / "other.h5") as opened:
        for name in ("virtual", "external"):
            with pytest.raises(UserError, match=f"numbers of '{name}' lie in other files"):
                reading.hdf5_array(opened, name)


def test_a_packed_row_that_is_damaged_is_named_when_it_is_read(tmp_path):
    path = tmp_path / "packed.h5"
    with h5py.File(path, "w") as written:
        values = np.random.default_rng(0).integers(0, 9, (64, 64))
        written.create_dataset("betas", data=values, chunks=(32, 64), compression="gzip")
        where = written["betas"].id.get_chunk_info(1).byte_offset
    harmed = bytearray(path.read_bytes())
    harmed[where + 20 : where + 60] = bytes(40)
    path.write_bytes(harmed)
    with open_hdf5(path) as opened:
        array = reading.hdf5_array(opened, "betas")
        assert hdf5_rows(array, "study/sub-01")[:32].shape == (32, 64)
        with pytest.raises(UserError, match=r"study/sub-01 is damaged or cut short \("):
            hdf5_rows(array, "study/sub-01")[40]
        with pytest.raises(UserError, match="packed.h5 is damaged or cut short at 'betas'"):
            reading.hdf5_values(array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_array_that_declares_too_much_takes_no_memory(tmp_path, save):
    save(tmp_path / "a.npz", betas=np.ones((3, 4)))
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        member = archive.read("betas.npy")
    with zipfile.ZipFile(tmp_path / "huge.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        # as long as the other text, so that the header's length stays
        archive.writestr("betas.npy", member.replace(b"(3, 4), }      ", b"(3, 400000000)}"))
    with pytest.raises(UserError, match=r"huge.npz is damaged .* at 'betas' .*\(3, 400000000\)"):
        reading.npz_array(tmp_path / "huge.npz", "betas")


def test_stacked_rows_are_those_of_their_parts_and_of_one_width():
    parts = [np.arange(6.0).reshape(3, 2), 10 + np.arange(4.0).reshape(2, 2)]
    lazy = [LazyRows(part.shape, part.__getitem__, "a file") for part in parts]
    whole = stacked(lazy, "files")
    assert whole.shape == (5, 2)
    np.testing.assert_array_equal(whole[np.array([2, 3, 4])], np.vstack(parts)[2:])
    wide = LazyRows((1, 3), np.ones((1, 3)).__getitem__, "a file")
    with pytest.raises(UserError, match="files: the parts have .* columns"):
        stacked([*lazy, wide], "files")
