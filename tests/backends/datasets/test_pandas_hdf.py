"""pandas' HDF5 tables: labels are read off their pickles, and no pickle is ever carried out."""

import contextlib
import os
import pickle

import h5py
import numpy as np
import pandas as pd
import pytest

from backends.datasets import pandas_hdf
from backends.datasets.pandas_hdf import columns_as_rows, plain_labels, read_blocks
from explorer.types import UserError
from tests.miniatures.things import write_frame


class Bomb:
    """What leaves a file behind when somebody unpickles it."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def frame(n: int = 5, columns: int = 3000) -> pd.DataFrame:
    """More labels than a pickle takes in one go (1,000), and numbers that tell their place."""
    found = pd.DataFrame(np.arange(n)[:, None] + np.arange(columns) / 10_000)
    found.insert(0, "voxel_id", np.arange(n))
    return found


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("labels", [["voxel_id", *range(2500)], list(range(300)), ["a"], [7], []])
def test_labels_are_those_that_unpickling_gives(protocol, labels):
    assert plain_labels(pickle.dumps(np.array(labels, object), protocol)) == labels
    assert plain_labels(pickle.dumps(labels, protocol)) == labels


@pytest.mark.parametrize("other", [1.5, None, (1, 2), ["a"], b"a", {"a": 1}, {3}])
def test_labels_of_other_kinds_are_none(other):
    assert plain_labels(pickle.dumps(np.array(["a", other, 3], object))) is None
    assert plain_labels(pickle.dumps(["a", other, 3], 2)) is None


def test_a_pickle_is_never_carried_out(tmp_path):
    for labels in (Bomb(tmp_path / "ran"), ["voxel_id", Bomb(tmp_path / "ran"), 1]):
        packed = pickle.dumps(labels)
        assert not plain_labels(packed)
    file = tmp_path / "a.h5"
    write_frame(frame(columns=4), file)
    with h5py.File(file, "a") as h5:
        for name in ("axis0", "block0_items"):
            h5[f"ResponseData/{name}"][0] = np.frombuffer(packed, np.uint8)
    with pytest.raises(UserError, match="block0_items, .* holds pickled Python objects"):
        read_blocks(file)
    assert not (tmp_path / "ran").exists()
    with contextlib.suppress(Exception):
        pd.read_hdf(file)
    assert (tmp_path / "ran").exists(), "pandas carries it out, which is why it is not asked"


def test_columns_of_objects_are_refused_by_name(tmp_path):
    odd = frame(columns=3)
    odd["note"] = [{"a": 1}] * len(odd)
    write_frame(odd, tmp_path / "a.h5")
    with pytest.raises(UserError, match=r"\(columns note\) holds pickled Python objects"):
        read_blocks(tmp_path / "a.h5")


@pytest.mark.parametrize("labels", ["mixed", "texts", "numbers"])
def test_blocks_have_the_labels_and_numbers_of_the_frame(tmp_path, labels):
    table = frame()
    if labels == "texts":
        table.columns = [str(name) for name in table.columns]
    if labels == "numbers":
        table = table.drop(columns="voxel_id")
    write_frame(table, tmp_path / "a.h5")
    block = read_blocks(tmp_path / "a.h5")[0]
    assert block.labels == [name for name in table.columns if name != "voxel_id"]
    np.testing.assert_array_equal(block.values[:], table[block.labels].to_numpy())


def test_pandas_other_form_and_foreign_files_are_refused(tmp_path):
    table = frame(columns=3)
    table.columns = [str(name) for name in table.columns]
    write_frame(table, tmp_path / "a.h5", format="table")
    with pytest.raises(UserError, match="holds frame_table, expected one frame in pandas' fixed"):
        read_blocks(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as h5:
        h5["block0_values"] = np.zeros((2, 2))
    with pytest.raises(UserError, match="nothing that pandas wrote, expected one frame"):
        read_blocks(tmp_path / "b.h5")


def test_labels_that_are_too_few_are_refused(tmp_path):
    write_frame(frame(columns=4), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as h5:
        short = pickle.dumps(np.array([0, 1, 2], object))
        h5["ResponseData/block0_items"][0] = np.frombuffer(short, np.uint8)
    with pytest.raises(UserError, match="has 4 columns and 3 labels; the file is damaged"):
        read_blocks(tmp_path / "a.h5")


@pytest.mark.parametrize("options", [{}, {"complib": "zlib", "complevel": 1}])
def test_columns_become_rows_in_pieces(tmp_path, monkeypatch, options):
    monkeypatch.setattr(pandas_hdf, "SLAB", 40)
    monkeypatch.setattr(pandas_hdf, "GAP", 2)
    table = frame(60, 9)
    write_frame(table, tmp_path / "a.h5", **options)
    block = read_blocks(tmp_path / "a.h5")[0]
    rows = np.array([0, 1, 2, 4, 5, 6, 7, 8, 9, 20, 22, 24, 40, 59])
    turned = columns_as_rows(block, rows, tmp_path / "kept", "a.h5")
    expected = table[block.labels].to_numpy()[rows].T.astype(np.float32)
    np.testing.assert_array_equal(turned[:], expected)
    np.testing.assert_array_equal(turned[[8, 0]], expected[[8, 0]])
    assert [file.suffix for file in (tmp_path / "kept").iterdir()] == [".npy"]


def test_what_breaks_off_leaves_nothing_behind(tmp_path, monkeypatch):
    write_frame(frame(60, 9), tmp_path / "a.h5")
    block = read_blocks(tmp_path / "a.h5")[0]
    turned = columns_as_rows(block, np.arange(60), tmp_path / "kept", "a.h5")
    monkeypatch.setattr(pandas_hdf, "SLAB", 40)
    real, calls = pandas_hdf.hdf5_values, []

    def breaks_off(*of):
        calls.append(of)
        if len(calls) == 3:
            raise UserError("cut short")
        return real(*of)

    monkeypatch.setattr(pandas_hdf, "hdf5_values", breaks_off)
    with pytest.raises(UserError, match="cut short"):
        turned[:]
    assert list((tmp_path / "kept").iterdir()) == []
    np.testing.assert_array_equal(turned[:][:, 7], block.values[7].astype(np.float32))


def test_a_cache_that_does_not_fit_is_refused_with_its_size(tmp_path, monkeypatch):
    write_frame(frame(60, 9), tmp_path / "a.h5")
    block = read_blocks(tmp_path / "a.h5")[0]
    turned = columns_as_rows(block, np.arange(60), tmp_path / "kept", "a.h5")
    monkeypatch.setattr(pandas_hdf.shutil, "disk_usage", lambda _: type("", (), {"free": 2_000})())
    with pytest.raises(UserError, match="needs 0.0 GB, of which 0.0 GB are free; make room there"):
        turned[:]


def test_a_damaged_cache_is_made_again(tmp_path):
    write_frame(frame(60, 9), tmp_path / "a.h5")
    block = read_blocks(tmp_path / "a.h5")[0]
    expected = columns_as_rows(block, np.arange(60), tmp_path / "kept", "a.h5")[:]
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    again = columns_as_rows(block, np.arange(60), tmp_path / "kept", "a.h5")[:]
    np.testing.assert_array_equal(again, expected)
