"""Ratings: what is asked, what is kept whatever happens, and what is made of the answers."""

from __future__ import annotations

import csv
import fcntl
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer.evidence import rated, rating
from explorer.evidence.rated import krippendorff_alpha
from explorer.evidence.rating import CHOICE, COLUMNS, RATING, Method, Ratings, plan, read_ratings
from explorer.types import UserError

SHOWN = [f"test-{i:02d}" for i in range(12)]
NAN = float("nan")


def method(name: str, stimuli: list[str] = SHOWN) -> Method:
    return Method(name, {s: lambda: np.zeros((4, 4, 3), np.uint8) for s in stimuli}, SHOWN)


@pytest.fixture
def ratings(tmp_path: Path) -> Ratings:
    return Ratings(tmp_path / "ratings", plan([method("a"), method("b")], 7), 7, {"dataset": "x"})


def answer_all(ratings: Ratings, rater: str, right: Any, score: Any, most: int = 10**6) -> None:
    """Answer as a rater does whose choice and rating of a question are known."""
    while (asked := ratings.next(rater)) is not None and asked.done < most:
        side = "left" if asked.left == bool(right(asked.question)) else "right"
        value = side if asked.kind == CHOICE else score(asked.question)
        assert ratings.answer(rater, asked.order, asked.kind, value, 1.5)


# ------------------------------------------------------------------------------- what is asked


def test_every_picture_is_asked_about_with_one_distractor_a_stimulus() -> None:
    questions = plan([method("a"), method("b", SHOWN[2:])], 3)
    assert len(questions) == 2 * 10  # only what both drew
    other: dict[str, set[str]] = {}
    for q in questions:
        other.setdefault(q.stimulus, set()).add(q.distractor)
    assert all(len(names) == 1 and stimulus not in names for stimulus, names in other.items())
    assert questions == plan([method("a"), method("b", SHOWN[2:])], 3)
    assert questions != plan([method("a"), method("b", SHOWN[2:])], 4)
    few = plan([method("a"), method("b")], 3, limit=4)
    assert len(few) == 8 and len({q.stimulus for q in few}) == 4


def test_each_other_image_is_as_likely_to_be_the_distractor() -> None:
    drawn = [q.distractor for seed in range(300) for q in plan([method("a")], seed)]
    counts = np.array([drawn.count(name) for name in SHOWN])
    assert counts.sum() == 3600 and counts.min() > 240 and counts.max() < 360  # 300 each


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(UserError, match="No test image was drawn by all of a, b"):
        plan([method("a", SHOWN[:3]), method("b", SHOWN[3:])], 0)
    with pytest.raises(UserError, match="There is one test image"):
        plan([Method("a", method("a").pictures, SHOWN[:1])], 0)


def test_choices_come_before_ratings_in_an_order_of_each_raters_own(ratings: Ratings) -> None:
    kinds = []
    while (asked := ratings.next("ann")) is not None:
        kinds.append(asked.kind)
        value = "left" if asked.kind == CHOICE else 3
        ratings.answer("ann", asked.order, asked.kind, value, 1)
    assert kinds == [CHOICE] * 24 + [RATING] * 24
    (ann, left), (ben, _) = ratings.order("ann"), ratings.order("ben")
    assert sorted(ann) == sorted(ben) == list(range(24)) and not np.array_equal(ann, ben)
    assert 4 < left.sum() < 20
    np.testing.assert_array_equal(ann, ratings.order("ann")[0])


# -------------------------------------------------------------------------------- what is kept


def test_each_answer_is_on_disk_at_once_and_a_rater_goes_on(ratings: Ratings) -> None:
    answer_all(ratings, "ann", lambda q: q.method == "a", lambda q: 2, most=5)
    with (ratings.folder / "ann.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 5
    for row in rows:
        right = row["method"] == "a"
        assert row["correct"] == str(int(right)) and row["rating"] == ""
        assert row["answer"] == row["stimulus" if right else "distractor"]
        assert (row["seed"], row["seconds"]) == ("7", "1.50")
    again = Ratings(ratings.folder, ratings.questions, 7, {})
    assert again.next("ann").order == 6 and again.next("ben").order == 1
    answer_all(again, "ann", lambda q: True, lambda q: 4)
    assert again.next("ann") is None
    assert [row["rating"] for row in again.rows("ann")] == ["4"] * 24
    assert not list(ratings.folder.glob(".*"))


def test_an_answer_given_twice_counts_once(ratings: Ratings) -> None:
    assert ratings.answer("ann", 1, CHOICE, "left", 1)
    assert not ratings.answer("ann", 1, CHOICE, "right", 1)  # another window
    assert not ratings.answer("ann", 1, RATING, 3, 1)  # not asked yet
    assert len(ratings.rows("ann")) == 1


def test_another_server_that_writes_a_raters_file_is_waited_for(
    ratings: Ratings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = ratings.folder / ".ann.csv.lock"
    with lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with monkeypatch.context() as patched:
            patched.setattr(rating, "TRIES", 1)
            with pytest.raises(UserError, match="ann.csv is being written by another process"):
                ratings.answer("ann", 1, CHOICE, "left", 1)
        assert ratings.answer("ben", 1, CHOICE, "left", 1)  # whose file nobody holds
        ends = threading.Timer(0.15, lambda: fcntl.flock(other, fcntl.LOCK_UN))
        ends.start()
        assert ratings.answer("ann", 1, CHOICE, "left", 1)
        ends.join()
    assert len(ratings.rows("ann")) == 1 and not lock.exists()


def test_a_full_disk_loses_no_answer(ratings: Ratings, monkeypatch: pytest.MonkeyPatch) -> None:
    ratings.answer("ann", 1, CHOICE, "left", 1)
    before = (ratings.folder / "ann.csv").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match="cannot be written .*the last answer was not kept"):
            ratings.answer("ann", 2, CHOICE, "left", 1)
    assert (ratings.folder / "ann.csv").read_bytes() == before
    assert ratings.next("ann").order == 2


@pytest.mark.parametrize("value", ["both", None, 1, True])
def test_a_choice_that_is_none_is_refused(ratings: Ratings, value: Any) -> None:
    with pytest.raises(UserError, match="A choice is left or right, found"):
        ratings.answer("ann", 1, CHOICE, value, 1)
    assert ratings.rows("ann") == []


@pytest.mark.parametrize("value", [0, 6, "3", None, True, 2.5])
def test_a_rating_that_is_none_is_refused(ratings: Ratings, value: Any) -> None:
    answer_all(ratings, "ann", lambda q: True, lambda q: 1, most=24)
    with pytest.raises(UserError, match="A rating is 1 to 5, found"):
        ratings.answer("ann", 1, RATING, value, 1)


@pytest.mark.parametrize("seconds", [NAN, -1, 1e9, "soon", None])
def test_a_time_that_is_none_is_left_out(ratings: Ratings, seconds: Any) -> None:
    ratings.answer("ann", 1, CHOICE, "left", seconds)
    assert ratings.rows("ann")[0]["seconds"] == ""


@pytest.mark.parametrize("name", ["", "../ann", "a/b", ".hidden", "x" * 41, "a b", "ann\n"])
def test_a_name_that_is_no_files_is_refused(ratings: Ratings, name: str) -> None:
    with pytest.raises(UserError, match="A rater's name has 1 to 40 letters"):
        ratings.answer(name, 1, CHOICE, "left", 1)


def test_another_plan_or_an_edited_file_is_refused(ratings: Ratings) -> None:
    with pytest.raises(UserError, match="holds ratings of other pictures, or by another seed"):
        Ratings(ratings.folder, plan([method("a"), method("b")], 8), 8, {})
    ratings.answer("ann", 1, CHOICE, "left", 1)
    file = ratings.folder / "ann.csv"
    content = file.read_text()
    file.write_text(content.replace(",a,", ",c,").replace(",b,", ",c,"))
    with pytest.raises(UserError, match="line 2 is no answer to question 1 of ann"):
        ratings.next("ann")
    file.write_text(content.replace("distractor", "other"))
    with pytest.raises(UserError, match="expected rater, seed, order"):
        ratings.next("ann")


# ------------------------------------------------------------------------------ what is made of it

# Krippendorff 2011, section C and D: four observers, twelve units.
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)


@pytest.mark.parametrize(
    ("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_is_that_of_its_authors_example(level: str, alpha: float) -> None:
    assert krippendorff_alpha(OBSERVERS, level) == pytest.approx(alpha, abs=5e-4)


def test_alpha_of_agreement_of_chance_and_of_nothing() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(1, 6, 3000).astype(float)
    assert krippendorff_alpha(np.stack([one, one]), "ordinal") == pytest.approx(1)
    assert abs(krippendorff_alpha(np.stack([one, rng.permutation(one)]), "ordinal")) < 0.06
    assert np.isnan(krippendorff_alpha(np.array([[1.0, NAN], [NAN, 2.0]])))
    assert np.isnan(krippendorff_alpha(np.ones((2, 5))))
    assert np.isnan(krippendorff_alpha(np.full((2, 5), NAN)))


def test_results_are_the_planted_ones(ratings: Ratings) -> None:
    answer_all(ratings, "ann", lambda q: q.method == "a", lambda q: 5 if q.method == "a" else 2)
    answer_all(ratings, "ben", lambda q: q.method == "a", lambda q: 4 if q.method == "a" else 1)
    settings, answers = read_ratings(ratings.folder)
    assert settings["seed"] == 7 and settings["dataset"] == "x" and len(answers) == 48
    table = rated.of_methods(answers).set_index(["question", "method"])
    choice, score = rated.MEASURES["correct"], rated.MEASURES["rating"]
    assert table["mean"].tolist() == [1.0, 0.0, 4.5, 1.5]
    assert table.loc[(choice, "a"), "chance"] == 0.5 and np.isnan(
        table.loc[(score, "a"), "chance"]
    )
    assert set(table["stimuli"]) == {12} and set(table["answers"]) == {24}
    pairs = rated.of_pairs(answers)
    assert pairs[["a", "b", "difference", "stimuli"]].values.tolist() == [
        ["a", "b", -1.0, 12],
        ["a", "b", -3.0, 12],
    ]
    people = rated.of_raters(answers).set_index("rater")
    assert people.loc["ann", "mean rating"] == 3.5 and people.loc["all", "choices"] == 48
    assert people.loc["all", f"alpha, {choice}"] == pytest.approx(1)
    agreed = people.loc["all", f"alpha, {score}"]
    assert 0 < agreed < 1 and people.loc["ann", f"alpha, {score}"] == pytest.approx(agreed)


def test_a_random_rater_is_at_chance(tmp_path: Path) -> None:
    many = [f"s{i:03d}" for i in range(400)]
    pictures = {s: lambda: np.zeros((1, 1, 3), np.uint8) for s in many}
    questions = plan([Method("a", pictures, many)], 0)
    ratings = Ratings(tmp_path / "r", questions, 0, {})
    rows, (order, left) = [], ratings.order("ann")
    for number, (at, own) in enumerate(zip(order, left, strict=True), start=1):
        q = questions[at]  # who always says left
        row = dict.fromkeys(COLUMNS, "") | {"rater": "ann", "order": str(number), "seed": "0"}
        row |= {"answer": q.stimulus if own else q.distractor, "distractor": q.distractor}
        rows.append(row | {"stimulus": q.stimulus, "method": "a", "correct": str(int(own))})
    ratings._write("ann", rows)
    row = rated.of_methods(read_ratings(tmp_path / "r")[1]).iloc[0]
    assert row["low"] < 0.5 < row["high"] and row["high"] - row["low"] < 0.12


def test_a_folder_without_answers_says_so(ratings: Ratings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no answers yet"):
        read_ratings(ratings.folder)
    with pytest.raises(UserError, match="has no settings.json, so it holds no ratings"):
        read_ratings(tmp_path)
    ratings.answer("ann", 1, CHOICE, "left", 1)
    file = ratings.folder / "ann.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(UserError, match="line 3 is an answer to question '1', expected 2"):
        read_ratings(ratings.folder)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("rater", "bob", "line 2 is an answer of 'bob'"),
        ("seed", "99", "line 2 is of seed 99, the plan's is 7"),
        ("order", "-5", "line 2 is an answer to question '-5', expected 1"),
        ("method", "", "line 2 names no stimulus or no method"),
        ("answer", "test-xx", "calls an answer correct that is not, or the other way round"),
        ("correct", "2", "calls an answer correct|correct is 0 or 1"),
    ],
)
def test_answers_of_another_plan_or_that_contradict_themselves_are_refused(
    ratings: Ratings, column: str, value: str, said: str
) -> None:
    asked = ratings.next("ann")
    ratings.answer("ann", 1, CHOICE, "left" if asked.left else "right", 1)
    read_ratings(ratings.folder)
    file = ratings.folder / "ann.csv"
    with file.open(newline="") as opened:
        (row,) = csv.DictReader(opened)
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, COLUMNS)
        writer.writeheader()
        writer.writerow(row | {column: value})
    with pytest.raises(UserError, match=said):
        read_ratings(ratings.folder)


def test_tables_are_not_written_among_the_answers(ratings: Ratings) -> None:
    from backends.commands.ratings import ratings as command

    ratings.answer("raters", 1, CHOICE, "left", 1)
    kept = (ratings.folder / "raters.csv").read_bytes()
    with pytest.raises(UserError, match="holds the answers themselves; name another folder"):
        command(ratings.folder, out=ratings.folder / ".")
    assert (ratings.folder / "raters.csv").read_bytes() == kept
