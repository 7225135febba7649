"""``trace`` and what ``doctor`` shows of a study: three trials, and folders nobody knows."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from backends import DATASETS
from backends.__main__ import app
from backends.commands.doctor import examine
from backends.commands.trace import chosen_trial
from backends.reports.traces import SHADES, sketch
from backends.reports.unknown import explain
from explorer.types import UserError
from tests.miniatures.studies import make_folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory):
    return make_folder(tmp_path_factory.mktemp("study"))


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_a_trial_by_id_and_by_number_is_the_same(study) -> None:
    place = f"mine={study.path}"
    by_number = run("trace", "--dataset", place, "--trial", "2")
    assert "mine/sub-01, 5" in by_number  # the test stimuli are 4 and 5
    assert "betas.npy, row 5 (from 0)" in by_number and "betas.npy, row 11" in by_number
    assert f"{study.path}/stimuli/5.png" in by_number
    assert run("trace", "--dataset", place, "--trial", "5") == by_number
    told = json.loads(run("trace", "--dataset", place, "--trial", "5", "--json"))
    assert [row["row"] for row in told["rows"]] == [5, 11]
    np.testing.assert_allclose(
        told["rows"][1]["first"], np.load(study.path / "sub-01" / "betas.npy")[11][:3], rtol=1e-5
    )
    train = json.loads(
        run("trace", "--dataset", place, "--trial", "0", "--split", "train", "--json")
    )
    assert [row["row"] for row in train["rows"]] == [0, 6]


def test_a_trial_that_is_not_there_is_refused(study) -> None:
    trials = study.load("sub-01")
    with pytest.raises(UserError, match="or its number from 1 to 2; found '3'"):
        chosen_trial(trials, "3", "test", ["4", "5"])
    with pytest.raises(UserError, match="--split is train or test, found 'val'"):
        run("trace", "--dataset", f"mine={study.path}", "--split", "val")


def test_doctor_shows_the_first_middle_and_last_trial(study) -> None:
    lines, well = examine(str(study.path), DATASETS)
    traced = [line for line in lines if line.startswith("    trial ")]
    assert [line.split()[1] for line in traced] == ["0", "6", "11"] and well
    assert "betas.npy, row 11 (from 0)" in traced[2]
    shown = [line for line in lines if line.startswith("      shows ")]
    assert "shows 5 (file name: 5.png" in shown[2]


def test_the_small_picture_is_light_where_the_picture_is() -> None:
    class Half:
        def image(self, stimulus: str) -> np.ndarray:
            picture = np.zeros((100, 100, 3), np.uint8)
            picture[:50] = 255
            return picture

    lines = sketch(Half(), "any")
    assert set("".join(lines[:4])) == {SHADES[-1]} and set("".join(lines[-4:])) == {SHADES[0]}


def test_a_folder_nobody_knows_is_explained(tmp_path: Path) -> None:
    (tmp_path / "subj01").mkdir()
    np.save(tmp_path / "subj01" / "betas.npy", np.array([[1.5, -2.5], [np.nan, 4]]))
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object))
    with h5py.File(tmp_path / "betas_session01.hdf5", "w") as file:
        file.create_dataset("betas", data=np.arange(6, dtype=np.int16).reshape(3, 2))
    (tmp_path / "trials.tsv").write_text("stimulus\tsplit\n1\ttrain\n2\ttest\n")
    (tmp_path / "cues.pkl").write_bytes(b"cos\nsystem\n")
    said = "\n".join(explain(tmp_path, DATASETS))
    assert (
        "betas.npy: float64 2 × 2; values from \N{MINUS SIGN}2.5 to 4, mean 1, 1 not finite"
        in said
    )
    assert "keys betas; betas int16 3 × 2; values from 0 to 5" in said
    assert "trials.tsv: 2 rows, columns stimulus, split; first row 1, train" in said
    assert "objects.npy: cannot be read" in said and "pickled" in said
    assert "cues.pkl: a pickle or a file of torch" in said
    closest = said.partition("Readers that came closest:\n")[2]
    assert "algonauts2023 (" in closest and "subjXX): " in closest
    assert "expected folders subjXX" in closest
    assert run("doctor", str(tmp_path), "--explain").count("Readers that came closest") == 1


def test_an_empty_folder_is_explained_too(tmp_path: Path) -> None:
    assert list(explain(tmp_path, DATASETS)) == [f"Files of {tmp_path}:", "  none"]
