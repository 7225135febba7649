"""Files come whole or not at all, and no cell of a table is run as a formula."""

import io
import resource

import numpy as np
import pandas as pd
import pytest

from explorer.types import UserError
from explorer.writing import check_writable, csv_text, quoted, unquoted, write_whole


@pytest.fixture
def full_disk():
    """Let this process write files of 1 kB at most, as a disk does that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_sentence_and_what_was_there_stays(tmp_path, full_disk):
    file = write_whole(tmp_path / "deep" / "table.csv", b"old")
    with pytest.raises(
        UserError, match=r"table.csv cannot be written \(.*large.*\); make room on"
    ):
        write_whole(file, b"x" * 5000)
    assert file.read_bytes() == b"old" and [f.name for f in file.parent.iterdir()] == [file.name]
    with pytest.raises(UserError, match="cannot be written .*; try elsewhere.$"):
        write_whole(file, lambda path: path.write_text("y" * 5000), "try elsewhere")
    assert file.read_bytes() == b"old"
    with pytest.raises(UserError, match="cannot be written"):
        check_writable(tmp_path / "results")
    assert not list((tmp_path / "results").iterdir())


def test_a_library_that_fails_again_while_it_cleans_up_hides_no_full_disk(tmp_path, full_disk):
    def writes(path):
        try:
            path.write_text("y" * 5000)
        finally:
            raise AttributeError("the stream has no end")  # as matplotlib's PDF does

    with pytest.raises(UserError, match=r"a.pdf cannot be written \(.*large.*\); make room on"):
        write_whole(tmp_path / "a.pdf", writes)
    with pytest.raises(AttributeError, match="ours"):
        write_whole(tmp_path / "a.pdf", lambda path: path.ours)
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_no_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written .* name another place with --out"):
        write_whole(tmp_path / "file" / "table.csv", b"x")
    check_writable(tmp_path / "results")
    assert not list((tmp_path / "results").iterdir())


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-x", "@SUM(A1)", "\tx", "'=x", "''-x"])
def test_cells_that_begin_a_formula_are_quoted_and_read_back(cell):
    assert quoted(cell) == f"'{cell}" and unquoted(quoted(cell)) == cell


@pytest.mark.parametrize("cell", ["-0.5", "+3", "-inf", "a=b", "'tis", "", 3, -2.5, None])
def test_other_cells_stay_as_they_are(cell):
    assert quoted(cell) == cell and unquoted(cell) == cell


def test_tables_are_quoted_in_cells_and_columns_but_numbers_are_not():
    table = pd.DataFrame({"=id": ["=1+1", "x"], "value": [-0.5, np.nan], "n": [-1, 2]})
    text = csv_text(table, float_format="%.3g")
    assert text.splitlines() == ["'=id,value,n", "'=1+1,-0.5,-1", "x,,2"]
    assert table.iloc[0, 0] == "=1+1"  # the table itself stays
    back = pd.read_csv(io.StringIO(text))
    assert back["value"][0] == -0.5
