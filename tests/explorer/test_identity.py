"""Tracing a trial: its rows, its picture, its ids, and what is said where nobody tells."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from explorer import identity
from explorer.identity import file_hash, place, sentences, trace, within
from explorer.types import Origin, UserError


class Told:
    """The fake study, which says where its numbers lie."""

    split_by = "a list of mine"

    def __init__(self, study: Any, folder: Path) -> None:
        self.study, self.path = study, folder
        self.title = study.title
        self.image = study.image

    def origins(self, subject: str, trial: int) -> list[Origin]:
        return [Origin(str(self.path / f"{subject}.npy"), trial, note="left")]

    def picture_origin(self, stimulus: str) -> Origin:
        return Origin(str(self.path / "pictures" / f"{stimulus}.png"))

    def ids(self, stimulus: str) -> dict[str, str]:
        return {"mine, from 1": stimulus[-2:]}


@pytest.fixture
def told(fakes: SimpleNamespace, tmp_path: Path) -> tuple[Told, Any]:
    study = fakes.Study()
    folder = tmp_path / "lab" / "study"
    (folder / "pictures").mkdir(parents=True)
    for name in study.subjects():
        np.save(folder / f"{name}.npy", np.zeros(3))
    trials = study.load("sub-01")
    for name in trials.stimuli("test"):
        (folder / "pictures" / f"{name}.png").write_bytes(name.encode())
    return Told(study, folder), trials


def test_every_repeat_is_one_row_with_its_own_numbers(told: tuple[Told, Any]) -> None:
    study, trials = told
    found = trace(study, trials, "test-04", hashed=file_hash)
    expected = trials.rows("test", "test-04")
    assert [row.row for row in found.rows] == expected.tolist() and len(expected) > 1
    for row in found.rows:
        about = trials.table.iloc[row.row]
        assert row.repeat == about["repeat"] + 1
        assert (row.session, row.run) == (str(about["session"]), str(about["run"]))
        np.testing.assert_allclose(row.first, trials.betas[row.row][:3], rtol=1e-5)
        assert row.origins == (Origin(str(study.path / "sub-01.npy"), row.row, note="left"),)
    assert len({row.digest for row in found.rows}) == len(found.rows)
    assert (found.split_by, found.unit) == ("a list of mine", trials.beta_unit)
    assert found.ids == {"mine, from 1": "04"}
    assert set(found.hashes) == {
        str(study.path / "sub-01.npy"),
        str(study.path / "pictures" / "test-04.png"),
    }
    one = trace(study, trials, "test-04", repeats=(1,))
    assert [row.repeat for row in one.rows] == [2] and not one.hashes


def test_another_picture_or_row_has_another_fingerprint(told: tuple[Told, Any]) -> None:
    study, trials = told
    a, b = (trace(study, trials, name) for name in ("test-04", "test-05"))
    assert a.picture_digest != b.picture_digest
    assert {row.digest for row in a.rows}.isdisjoint(row.digest for row in b.rows)


def test_what_nobody_tells_is_not_stated(fakes: SimpleNamespace) -> None:
    study = fakes.Study()
    trials = study.load("sub-01")
    found = trace(study, trials, "test-04")
    assert found.split_by == "not stated" and found.picture is None and not found.ids
    said = dict(sentences(found))
    assert said["its betas lie in"] == "not stated"
    assert said["Split"] == "test; set by not stated"
    with pytest.raises(UserError, match="has no train trial of 'test-04'; choose one of its"):
        trace(study, trials, "test-04", "train")


def test_a_picture_that_cannot_be_read_says_why(told: tuple[Told, Any]) -> None:
    study, trials = told

    def image(stimulus: str) -> np.ndarray:
        raise UserError(f"The picture of {stimulus} is not here; ask for it.")

    study.image = image
    found = trace(study, trials, "test-04")
    assert found.picture_problem == "The picture of test-04 is not here; ask for it."
    assert dict(sentences(found))["Picture"] == found.picture_problem
    assert "its pixels" not in dict(sentences(found))


def test_files_are_told_from_the_folder_on(told: tuple[Told, Any]) -> None:
    study, trials = told
    found = within(trace(study, trials, "test-04", hashed=file_hash), study.path)
    text = json.dumps(found.to_dict())
    assert str(study.path.parent) not in text
    assert found.rows[0].origins[0].file == "study/sub-01.npy"
    assert found.picture.file == "study/pictures/test-04.png"
    assert set(found.hashes) == {"study/sub-01.npy", "study/pictures/test-04.png"}
    elsewhere = within(found, study.path / "pictures")
    assert elsewhere.rows[0].origins[0].file == "sub-01.npy"


def test_a_hash_finds_a_changed_byte_and_says_what_it_covers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "betas.npy"
    file.write_bytes(bytes(100))
    before = file_hash(file)
    file.write_bytes(bytes(50) + b"x" + bytes(50))
    assert before.startswith("sha256 ") and file_hash(file) != before
    monkeypatch.setattr(identity, "WHOLE", 10)
    monkeypatch.setattr(identity, "END", 20)
    file.write_bytes(bytes(200))
    whole = file_hash(file)
    assert whole.startswith("sha256 of both ends and the size ")
    file.write_bytes(bytes(199) + b"x")
    assert file_hash(file) != whole
    with pytest.raises(UserError, match="gone.npy is missing; it was here when"):
        file_hash(tmp_path / "gone.npy")


def test_places_in_words() -> None:
    assert place(Origin("a.h5", 3, "betas", "left")) == "a.h5, betas, row 3 (from 0) (left)"
    assert place(Origin("a.png")) == "a.png"
