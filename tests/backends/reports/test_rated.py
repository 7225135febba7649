"""Folders of reconstructions as what is rated: ours, others', and what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import app
from backends.__main__ import app as commands
from backends.reports.rated import methods_of, named_folders
from explorer.evidence.rating import Ratings, plan
from explorer.types import UserError


def ours(folder: Path, subjects: tuple[str, ...], colour: int) -> Path:
    """Write a folder as reconstruct does: two samples of three pictures a subject."""
    rows = []
    for subject in subjects:
        (folder / subject).mkdir(parents=True)
        for stimulus in ("test-01", "test-02", "test-03"):
            for sample in (0, 1):
                file = f"{subject}/{stimulus}-{sample}.png"
                Image.new("RGB", (8, 8), (colour, sample, 0)).save(folder / file)
                about = {"subject": subject, "stimulus": stimulus, "sample": sample}
                rows.append({**about, "file": file})
    pd.DataFrame(rows[::-1]).to_parquet(folder / "metrics.parquet")
    settings = {"dataset": "fake", "mapper": "linear", "generator": "painter"}
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


def test_each_subject_of_our_folder_is_a_method_by_its_first_sample(
    workbench: Any, tmp_path: Path
) -> None:
    folder = ours(tmp_path / "ridge", ("sub-01", "sub-02"), 9)
    methods = methods_of(workbench, named_folders([str(folder)]), "fake")
    assert [method.name for method in methods] == ["ridge sub-02", "ridge sub-01"]
    picture = methods[0].pictures["test-02"]()
    np.testing.assert_array_equal(picture[0, 0], [9, 0, 0])
    assert len(methods[0].shown) == 10
    one = methods_of(workbench, named_folders([f"a={folder}?subject=sub-01"]), "fake")
    assert [method.name for method in one] == ["a"]
    assert len(plan([*one, *methods], 0)) == 9


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a={0}?subject=sub-09", "has no pictures of sub-09; it has those of sub-01"),
        ("a={0}?order=ascending", "a folder of reconstruct takes .subject=, not order"),
        ("a={0}x", "there is nothing at"),
    ],
)
def test_what_cannot_be_rated_is_one_sentence(
    workbench: Any, tmp_path: Path, text: str, why: str
) -> None:
    folder = ours(tmp_path / "ridge", ("sub-01",), 9)
    with pytest.raises(UserError, match=why):
        methods_of(workbench, named_folders([text.format(folder)]), "fake")


def test_two_folders_of_one_name_and_another_data_set_are_refused(
    workbench: Any, tmp_path: Path
) -> None:
    folder = ours(tmp_path / "ridge", ("sub-01",), 9)
    with pytest.raises(UserError, match="the name ridge is taken; give each folder one"):
        named_folders([str(folder), f"ridge={folder}"])
    with pytest.raises(UserError, match="holds pictures of fake, and nsd is open"):
        methods_of(workbench, named_folders([str(folder)]), "nsd")


def test_pictures_of_others_are_read_as_published(make_workbench: Any, tmp_path: Path) -> None:
    for i in (1, 2, 3):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"test-0{i}.png")
    bench = make_workbench(
        generators={"published": "backends.generators.published:Published"},
        published={"theirs": (tmp_path, {"dataset": "fake", "subject": "sub-01"})},
    )
    (method,) = methods_of(bench, named_folders([f"theirs={tmp_path}"]), "fake")
    assert set(method.pictures) == {"test-01", "test-02", "test-03"}
    np.testing.assert_array_equal(method.pictures["test-03"]()[0, 0], [3, 0, 0])


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--rate-seed", "-1"], "--rate-seed is a whole number of 0 or more, found -1."),
        (["--rate-limit", "0"], "--rate-limit is 1 or more test images, found 0."),
        (["--rate", "gone"], "--rate gone: there is nothing at gone; check the path."),
    ],
)
def test_the_app_says_what_is_wrong_in_one_sentence(
    capsys: Any, tmp_path: Path, more: list[str], why: str
) -> None:
    folder = ours(tmp_path / "ridge", ("sub-01",), 9)
    asked = ["--rate", str(folder), "--ratings", str(tmp_path / "r"), "--no-browser", *more]
    assert app.main(asked) == 2
    assert capsys.readouterr().err == f"app.py: {why}\n"
    assert not (tmp_path / "r").exists()


def test_the_command_prints_and_writes_the_tables(workbench: Any, tmp_path: Path) -> None:
    folders = [ours(tmp_path / name, ("sub-01",), 9) for name in ("a", "b")]
    methods = methods_of(workbench, named_folders([str(f) for f in folders]), "fake")
    ratings = Ratings(tmp_path / "r", plan(methods, 0), 0, {})
    for rater in ("ann", "ben"):
        while (asked := ratings.next(rater)) is not None:
            own = "left" if asked.left else "right"
            value = own if asked.kind == "choice" else 4
            ratings.answer(rater, asked.order, asked.kind, value, 1)
    done = CliRunner().invoke(commands, ["ratings", str(tmp_path / "r"), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "6 pictures, seed 0, 12 choices" in done.output
    assert "| two-way choice | a | 1.000 | 1.000 | 1.000 | 0.500 | 3 | 2 | 6 |" in done.output
    assert {"methods.csv", "differences.csv", "raters.csv"} <= {p.name for p in tmp_path.iterdir()}
