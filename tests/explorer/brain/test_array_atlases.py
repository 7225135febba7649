"""Atlases as arrays of numbers with a table of names."""

import numpy as np
import pytest

from explorer.brain.atlas_files import load_array_atlas
from explorer.types import FSAVERAGE5_VERTICES as N
from explorer.types import Label, UserError

HALF = N // 2


def keys_of(atlas):
    return [label.key for label in atlas.labels]


def test_array_and_table(tmp_path):
    vertices = np.resize([10, 20, 30], N).astype(np.int16)
    vertices[HALF:] = np.resize([20, 30], HALF)  # 10 is of the left hemisphere alone
    np.save(tmp_path / "a.npy", vertices)
    table = tmp_path / "a.tsv"
    table.write_text(
        "index\tname\themisphere\tcolour\n10\tV1\tL\t#ff0080\n20\tunknown\t\t\n30\tNA\t\t\n"
    )
    atlas = load_array_atlas("mine", tmp_path / "a.npy", table)
    assert atlas.labels == (Label("V1", "L", (255, 0, 128)), Label("NA", ""))
    assert atlas.vertices[:3].tolist() == [0, -1, 1]
    assert keys_of(atlas) == ["V1 L", "NA"]


def test_arrays_and_tables_that_cannot_be_read(tmp_path):
    array, table = tmp_path / "a.npy", tmp_path / "a.tsv"
    np.save(array, np.ones(N, dtype=int))
    table.write_text("index\tname\n1\tV1\n")
    with pytest.raises(UserError, match="b.npy is missing"):
        load_array_atlas("x", tmp_path / "b.npy", table)
    with pytest.raises(UserError, match="b.tsv is missing"):
        load_array_atlas("x", array, tmp_path / "b.tsv")
    for text, message in {
        "index\tlabel\n1\tV1\n": "lacks the column 'name'",
        "index\tname\none\tV1\n": "cannot be read .*'one'",
        "index\tname\n2\tV1\n": "20484 vertices have the index 1, which the label table",
        "index\tname\themisphere\n1\tV1\tleftish\n": "hemisphere is L, R or empty, not 'leftish'",
        "index\tname\tcolour\n1\tV1\t#f00\n": "cannot be read",
    }.items():
        table.write_text(text)
        with pytest.raises(UserError, match=message):
            load_array_atlas("x", array, table)
    table.write_text("index\tname\n1\tV1\n")
    np.save(array, np.ones(N))
    with pytest.raises(
        UserError, match=r"whole numbers for 20484 vertices .* found float64 \(204"
    ):
        load_array_atlas("x", array, table)
    np.save(array, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="a.npy holds pickled Python objects, which can run"):
        load_array_atlas("x", array, table)


def test_numbers_may_begin_again_on_the_right(tmp_path):
    vertices = np.zeros(N, np.int32)
    vertices[:150] = np.repeat([1, 2], [100, 50])
    vertices[HALF : HALF + 280] = np.repeat([1, 2], [200, 80])
    np.save(tmp_path / "a.npy", vertices)
    lines = ("0\tunknown\t", "1\tV1\tL", "2\tV2\tL", "1\tV1\tR", "2\tV2\tR")
    (tmp_path / "a.tsv").write_text("\n".join(["index\tname\themisphere", *lines]))
    atlas = load_array_atlas("a", tmp_path / "a.npy", tmp_path / "a.tsv")
    counts = {key: (atlas.vertices == i).nonzero()[0] for i, key in enumerate(keys_of(atlas))}
    assert {key: len(found) for key, found in counts.items()} == {
        "V1 L": 100, "V2 L": 50, "V1 R": 200, "V2 R": 80,
    }  # fmt: skip
    assert counts["V1 L"].max() < HALF <= counts["V1 R"].min()


def test_numbers_of_a_table_that_contradict_each_other_or_the_array(tmp_path):
    array, table = tmp_path / "a.npy", tmp_path / "a.tsv"
    vertices = np.zeros(N, np.int32)
    vertices[:100], vertices[HALF : HALF + 200] = 1, 2
    np.save(array, vertices)
    for lines, message in {
        "1\tV1\t\n1\tV2\t\n2\tV3\t": "a.tsv calls the index 1 both 'V1' and 'V2'; an index has",
        "1\tV1\tR\n2\tV1\tL": "100 vertices of the left hemisphere have the index 1, which .* "
        "gives to V1 of the right one; the array holds the left hemisphere, then the right",
        "1\tV1\t\n2\tV1\t": "names the parcel 'V1' twice",
    }.items():
        table.write_text(f"index\tname\themisphere\n0\tunknown\t\n{lines}\n")
        with pytest.raises(UserError, match=message):
            load_array_atlas("a", array, table)
    np.save(array, vertices[:HALF])
    with pytest.raises(UserError, match="a.npy has 10242 values, which is one hemisphere; give"):
        load_array_atlas("a", array, table)


def test_tables_from_a_spreadsheet_are_read(tmp_path):
    np.save(tmp_path / "a.npy", np.resize([0, 1], N))
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfindex,name\r\n0.0,unknown\r\n1.0,V1\r\n")
    atlas = load_array_atlas("a", tmp_path / "a.npy", tmp_path / "a.csv")
    assert keys_of(atlas) == ["V1"] and atlas.vertices[:2].tolist() == [-1, 0]


@pytest.mark.parametrize(("left", "right"), [("L", "R"), ("lh", "rh"), ("Left", "Right")])
def test_a_tables_hemispheres_are_read_as_they_are_usually_written(tmp_path, left, right):
    index = np.zeros(20_484, np.int64)
    index[:5], index[-5:] = 1, 2
    np.save(tmp_path / "mine.npy", index)
    rows = f"index\tname\themisphere\n0\tunknown\t\n1\tone\t{left}\n2\ttwo\t{right}\n"
    (tmp_path / "mine.tsv").write_text(rows)
    atlas = load_array_atlas("mine", tmp_path / "mine.npy", tmp_path / "mine.tsv")
    assert [(one.name, one.hemisphere) for one in atlas.labels] == [("one", "L"), ("two", "R")]
