"""Tables of ``evaluate --out``, read back: a round trip, and every way in which they go wrong."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from backends.reports.mapper_tables import write
from backends.reports.mappers import compare
from explorer.evidence.evaluation import MISSES, find_evaluation, read_evaluation
from explorer.types import UserError

SHIPPED = Path(__file__).resolve().parents[3] / "checkpoints" / "evaluation" / "simulated"


@pytest.fixture(scope="module")
def comparison(fakes, fake_checkpoints):
    from explorer.workbench import Workbench

    bench = Workbench(
        {"fake": fakes.Study},
        {"pocket-clip": fakes.Embedder},
        {"linear": fakes.Linear, "ridge": fakes.Linear},
        {"painter": fakes.Generator},
        checkpoints=fake_checkpoints,
    )
    return compare(bench, "fake")


@pytest.fixture(scope="module")
def written(comparison, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    write(comparison, folder)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "tables")


def test_what_was_written_is_read(comparison, written, workbench):
    found = read_evaluation(written)
    assert found.dataset == "fake" and found.notes == comparison.notes
    assert found.targets == ["fake-clip/image"]
    assert set(found.mappers("fake-clip/image")) == {"linear", "ridge (fitted now)"}
    assert set(found.subjects("fake-clip/image")) == {"sub-01", "sub-02"}
    pd.testing.assert_frame_equal(found.table, comparison.table, rtol=1e-5)
    assert list(found.scores)[:2] == ["two-way", "top-1"]
    assert found.scores["r2"].title == "R²" and not found.scores["r2"].by_trial
    assert found.outdated(workbench) == []
    hashes = [one for by_subject in found.weights.values() for one in by_subject.values()]
    assert len(set(hashes)) == 2 and "none" not in hashes


def test_near_misses_of_pictures_beside_it_become_a_note(folder):
    assert not any("Near misses" in note for note in read_evaluation(folder).notes)
    file = folder / MISSES
    file.write_text("subject,stimulus,sample,rate,told by\n")
    assert read_evaluation(folder).notes[-1].endswith("show something else): none.")
    rows = [f"sub-01,test-{i:02d},0,0.99,object-f1\n" for i in range(1, 8)]
    file.write_text(file.read_text() + "".join(rows))
    note = read_evaluation(folder).notes[-1]
    assert "something else): 7, first test-01 (sub-01), test-02 (sub-01)" in note
    assert note.endswith("test-05 (sub-01).")
    file.write_text("who,what\na,b\n")
    with pytest.raises(UserError, match="lacks the column 'subject'; make it again .*--images"):
        read_evaluation(folder)


def test_trials_average_to_the_table(written):
    found = read_evaluation(written)
    rows = found.rows("fake-clip/image", "two-way")
    alone = rows[rows["mapper"] == "linear"].iloc[0]
    trials = found.distribution("fake-clip/image", "two-way", "linear", "sub-01")
    assert list(trials.index) == [f"test-{i:02d}" for i in range(1, 11)]
    assert trials.mean() == pytest.approx(alone["value"], abs=1e-4)
    assert alone["low"] <= alone["value"] <= alone["high"] and alone["chance"] == 0.5
    shuffled = found.rows("fake-clip/image", "two-way", "shuffled")
    np.testing.assert_allclose(shuffled["value"], 0.5, atol=0.2)
    assert found.rows("fake-clip/image", "two-way", "ceiling").empty  # nobody knows it here


def test_a_table_of_other_weights_is_told(folder, workbench):
    values = json.loads((folder / "mappers.json").read_text())
    values["weights"]["linear"]["sub-01"] = "0123"
    (folder / "mappers.json").write_text(json.dumps(values))
    (sentence,) = read_evaluation(folder).outdated(workbench)
    assert sentence.startswith("The table was made with other weights of linear than are here for")
    assert (
        f"sub-01; run python -m backends evaluate --dataset fake=PATH --out {folder}" in sentence
    )


def test_given_tables_come_before_shipped_ones(folder, make_workbench, fake_checkpoints, tmp_path):
    assert find_evaluation(make_workbench(), "fake") is None
    copied = shutil.copytree(fake_checkpoints, tmp_path / "checkpoints")
    shipped = shutil.copytree(folder, copied / "evaluation" / "fake")
    assert find_evaluation(make_workbench(checkpoints=copied), "fake").folder == shipped
    both = make_workbench(checkpoints=copied, evaluations=[folder])
    assert find_evaluation(both, "fake").folder == folder
    assert find_evaluation(both, "other") is None


def test_what_is_not_in_a_table_is_refused(written):
    found = read_evaluation(written)
    with pytest.raises(UserError, match="no target 'x'; choose one of fake-clip/image"):
        found.rows("x", "two-way")
    with pytest.raises(UserError, match="no score 'x'; choose one of two-way, top-1"):
        found.rows("fake-clip/image", "x")
    with pytest.raises(UserError, match="R² is of all test images together and has no value"):
        found.distribution("fake-clip/image", "r2", "linear", "sub-01")
    with pytest.raises(UserError, match="no trials of linear for sub-02 and fake-clip/image"):
        found.distribution("fake-clip/image", "two-way", "linear", "sub-02")


def test_damaged_folders_say_what_is_wrong(folder, tmp_path):
    def refused(match):
        with pytest.raises(UserError, match=match):
            read_evaluation(folder)

    with pytest.raises(UserError, match=r"has no mappers.csv, so it is no folder of python -m"):
        read_evaluation(tmp_path)
    table, meaning = folder / "mappers.csv", folder / "mappers.json"
    whole, said = table.read_text(), meaning.read_text()
    table.write_text(whole.replace(",two-way,", ",three-way,"))
    refused("has the score 'three-way', mappers.json knows two-way, top-1")
    table.write_text(whole.replace("fake,", "other,"))
    refused("has the dataset 'other', mappers.json knows fake")
    table.write_text(whole.replace(",chance,", ",luck,", 1))
    refused("mappers.csv lacks the column 'chance'; make it again")
    lines = whole.splitlines()
    table.write_text(lines[0] + "\n")
    refused("mappers.csv has no row; make it again")
    table.write_text("\n".join([*lines, lines[1].replace(",0.5,", ",half,")]))
    refused("mappers.csv has no numbers in its column 'chance'")
    table.write_text("")
    refused("cannot be read .No columns to parse from file.; make it again")
    table.write_text(whole)
    meaning.write_text("{")
    refused("mappers.json cannot be read as JSON")
    meaning.write_text('{"afterimage": 99}')
    refused("mappers.json is of format 99, this version reads 1")
    meaning.write_text(said.replace('"better"', '"best"'))
    refused("mappers.json lacks or misnames a part")
    meaning.write_text(said)
    (folder / "trials.parquet").write_bytes(b"PAR1 nothing")
    refused("cannot be read .*; make it again")
    (folder / "trials.parquet").unlink()
    refused("has no trials.parquet")


def test_names_that_begin_a_formula_are_quoted_in_the_file_alone(comparison, tmp_path):
    table = comparison.table.assign(mapper=comparison.table["mapper"].replace("linear", "=1+1"))
    trials = comparison.trials
    trials = trials.assign(mapper=trials["mapper"].replace("linear", "=1+1"))
    write(replace(comparison, table=table, trials=trials), tmp_path)
    assert ",'=1+1," in (tmp_path / "mappers.csv").read_text()
    assert "=1+1" in read_evaluation(tmp_path).mappers("fake-clip/image")


@pytest.mark.parametrize("lines", [-1, -9, 20, 1])
def test_a_table_that_was_cut_is_refused(folder, lines):
    table = folder / "mappers.csv"
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join(rows[: lines if lines < 0 else 1 + lines]))
    with pytest.raises(UserError, match=r"mappers.csv is cut short: rows of some mapper, subject"):
        read_evaluation(folder)


def test_a_table_that_was_cut_within_its_last_line_is_refused(folder):
    table = folder / "mappers.csv"
    whole = table.read_bytes()
    for cut in (1, 2, 5):  # the end of a line, of a number, and a column
        table.write_bytes(whole[:-cut])
        with pytest.raises(UserError, match="mappers.csv is cut short"):
            read_evaluation(folder)
    table.write_bytes(whole)
    read_evaluation(folder)


@pytest.mark.parametrize("column", ["subject", "value"])
def test_a_table_of_which_a_column_is_empty_is_refused(folder, column):
    table = folder / "mappers.csv"
    whole = pd.read_csv(table)
    gone = (
        whole.assign(**{column: np.nan}) if column == "value" else whole.astype({column: object})
    )
    gone.loc[0, column] = np.nan  # one name is enough, and of values all
    gone.to_csv(table, index=False)
    with pytest.raises(UserError, match="mappers.csv is cut short"):
        read_evaluation(folder)


def test_a_table_from_before_undefined_values_were_counted_opens(folder):
    table = folder / "mappers.csv"
    old = pd.read_csv(table).drop(columns="undefined")
    old.to_csv(table, index=False)
    assert read_evaluation(folder).table["undefined"].isna().all()


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="no table ships")
def test_the_shipped_table_can_be_read():
    found = read_evaluation(SHIPPED)
    assert found.dataset == "simulated" and len(found.subjects("pocket-clip/image")) == 4
    rows = found.rows("pocket-clip/image", "two-way", "ceiling")
    assert set(rows["mapper"]) == set(found.weights) and (rows["value"] > 0.9).all()
    assert "none" not in {one for of in found.weights.values() for one in of.values()}
