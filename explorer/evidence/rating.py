"""Ratings of reconstructions by people: what is asked in which order, and what was answered.

A rater is first asked, for every picture, which of two shown images it is a reconstruction of, and
afterwards how alike each picture and its shown image are, from 1 to 5: the second question shows
the right image, so it must not come before the first. Which method made a picture is not told.

Answers lie in one CSV a rater, written whole after each of them; what is asked follows from the
seed, the pictures and the rater's name alone, so a rater goes on where they stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.files import read_object, read_table
from explorer.folders import held
from explorer.types import UserError
from explorer.writing import csv_text, unquoted, write_whole

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = "settings.json"
COLUMNS = (
    *("rater", "seed", "order", "stimulus", "method", "distractor"),
    *("answer", "correct", "rating", "seconds", "rating_seconds"),
)
CHOICE, RATING = "choice", "rating"
SCALE = (1, 2, 3, 4, 5)
RATER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")  # it names a file
LONGEST = 86_400.0  # seconds: longer and nobody was there
DO = "choose another --ratings folder, or mend that file"
TRIES, PAUSE = 50, 0.1  # of taking a rater's file while another server writes it: seconds
ROOM = "make room on that disk; the last answer was not kept, all before it are"


@dataclass(frozen=True)
class Question:
    """One picture of a method: shown was ``stimulus``, and ``distractor`` is the other image."""

    stimulus: str
    method: str
    distractor: str


@dataclass(frozen=True, eq=False)
class Method:
    """What a method made: stimulus -> what reads its picture uint8 (H, W, 3).

    ``shown``: all test images of the same subject, of which distractors are drawn.
    """

    name: str
    pictures: Mapping[str, Callable[[], np.ndarray]]
    shown: Sequence[str]


@dataclass(frozen=True)
class Asked:
    """What a rater is asked next: a question, its place in their order, and which kind.

    ``left``: whether the shown image stands on the left. ``done`` of ``of`` answers are given.
    """

    question: Question
    order: int
    kind: str
    left: bool
    done: int
    of: int


def plan(methods: Sequence[Method], seed: int, limit: int | None = None) -> list[Question]:
    """Return every question, the same for all raters.

    Of the stimuli that all methods drew, at most ``limit``, chosen by the seed. The distractor of
    a stimulus is another test image, drawn by the seed, the same for all methods: were it another
    each time, the image that comes again would be known to be the right one.
    """
    common = [s for s in methods[0].pictures if all(s in m.pictures for m in methods)]
    common = sorted(s for s in common if s in set(methods[0].shown))
    if not common:
        names = ", ".join(method.name for method in methods)
        raise UserError(f"No test image was drawn by all of {names}, so none can be compared.")
    pool = sorted(set(methods[0].shown).intersection(*(set(m.shown) for m in methods)))
    if len(pool) < 2:
        raise UserError("There is one test image, so there is no other to choose from.")
    rng = np.random.default_rng(seed)
    if limit is not None and limit < len(common):
        common = sorted(rng.choice(common, limit, replace=False).tolist())
    asked = []
    for stimulus in common:
        other = pool[int(rng.integers(len(pool) - 1))]
        other = pool[-1] if other == stimulus else other
        asked += [Question(stimulus, method.name, other) for method in methods]
    return asked


class Ratings:
    """The answers to a plan, in a folder.

    Parameters
    ----------
    folder
        Made where it is not there. One that holds answers to another plan is refused.
    questions
        What `plan` gave.
    seed
        It also decides each rater's order.
    about
        What else is kept in ``settings.json``: data set, subject, methods.
    """

    def __init__(
        self, folder: Path, questions: Sequence[Question], seed: int, about: Mapping[str, Any]
    ) -> None:
        self.folder, self.questions, self.seed = Path(folder), list(questions), seed
        self._lock = threading.Lock()
        told = json.dumps([[q.stimulus, q.method, q.distractor] for q in self.questions])
        digest = hashlib.sha256(f"{seed} {told}".encode()).hexdigest()[:16]
        settings = {"seed": seed, "plan": digest, "questions": len(self.questions), **about}
        file = self.folder / SETTINGS
        with _alone(file):
            self._claim(file, digest, settings)

    def _claim(self, file: Path, digest: str, settings: Mapping[str, Any]) -> None:
        """Write the plan's settings, or refuse a folder of another plan."""
        if file.is_file():
            kept = read_object(file, DO)
            if kept.get("plan") != digest:
                raise UserError(
                    f"{self.folder} holds ratings of other pictures, or by another seed (it has "
                    f"{kept.get('questions')} questions by seed {kept.get('seed')}, these are "
                    f"{len(self.questions)} by seed {self.seed}); choose another --ratings folder."
                )
        else:
            content = json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
            write_whole(file, content.encode(), "choose another --ratings folder")

    def order(self, rater: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a rater's order of the questions, int (n,), and bool (n,): shown on the left."""
        name = int.from_bytes(hashlib.sha256(rater.encode()).digest()[:8], "little")
        rng, n = np.random.default_rng([self.seed, name]), len(self.questions)
        return rng.permutation(n), rng.random(n) < 0.5

    def rows(self, rater: str) -> list[dict[str, str]]:
        """Return what a rater answered, in their order; a file of another plan is refused."""
        file = self._file(rater)
        if not file.is_file():
            return []
        rows = [{k: unquoted(v) for k, v in row.items()} for row in _read(file)]
        order, _ = self.order(rater)
        for number, row in enumerate(rows, start=1):
            question = self.questions[order[number - 1]] if number <= len(order) else None
            own = question and (rater, str(number), question.stimulus, question.method)
            if own != (row["rater"], row["order"], row["stimulus"], row["method"]):
                raise UserError(
                    f"{file}: line {number + 1} is no answer to question {number} of {rater}; "
                    f"{DO}."
                )
        return rows

    def next(self, rater: str) -> Asked | None:
        """Return what a rater is asked next; None once all is answered."""
        return self._next(rater, self.rows(rater))

    def _next(self, rater: str, rows: Sequence[Mapping[str, str]]) -> Asked | None:
        n, rated = len(self.questions), sum(bool(row["rating"]) for row in rows)
        number, kind = (len(rows), CHOICE) if len(rows) < n else (rated, RATING)
        if number == n:
            return None
        order, left = self.order(rater)
        question = self.questions[order[number]]
        return Asked(question, number + 1, kind, bool(left[number]), len(rows) + rated, 2 * n)

    def answer(self, rater: str, order: int, kind: str, value: object, seconds: object) -> bool:
        """Keep an answer, on disk; False, and nothing, where it is none to what is asked now.

        ``value``: "left" or "right" for a choice, 1 to 5 for a rating.
        """
        with self._lock, _alone(self._file(rater)):
            rows = self.rows(rater)
            asked = self._next(rater, rows)
            if asked is None or (asked.order, asked.kind) != (order, kind):
                return False  # asked twice, as in two windows
            took = _seconds(seconds)
            question = asked.question
            if kind == CHOICE:
                if value not in ("left", "right"):
                    raise UserError(f"A choice is left or right, found {str(value)[:20]!r}.")
                right = (value == "left") == asked.left
                row = dict.fromkeys(COLUMNS, "") | {
                    "rater": rater,
                    "seed": str(self.seed),
                    "order": str(order),
                    "stimulus": question.stimulus,
                    "method": question.method,
                    "distractor": question.distractor,
                    "answer": question.stimulus if right else question.distractor,
                    "correct": str(int(right)),
                    "seconds": took,
                }
                rows.append(row)
            else:
                if isinstance(value, bool) or value not in SCALE:
                    raise UserError(f"A rating is 1 to 5, found {str(value)[:20]!r}.")
                rows[order - 1] |= {"rating": str(value), "rating_seconds": took}
            self._write(rater, rows)
            return True

    def _write(self, rater: str, rows: Sequence[Mapping[str, str]]) -> None:
        import pandas as pd

        text = csv_text(pd.DataFrame(rows, columns=list(COLUMNS)))
        write_whole(self._file(rater), text.encode("utf-8"), ROOM)

    def _file(self, rater: str) -> Path:
        if not RATER.fullmatch(rater):
            raise UserError(
                "A rater's name has 1 to 40 letters, digits, dots, dashes and underscores, found "
                f"{rater[:60]!r}."
            )
        return self.folder / f"{rater}.csv"


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold a file while it is read and written anew; another server's answer is waited for."""
    with ExitStack() as holding:
        for attempt in range(TRIES):
            try:
                holding.enter_context(held(file, "rating"))
                break
            except UserError:
                if attempt == TRIES - 1:
                    raise
            time.sleep(PAUSE)
        yield


def _seconds(value: object) -> str:
    """Return how long an answer took, "" where a browser gives no number for it."""
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    return f"{seconds:.2f}" if math.isfinite(seconds) and 0 <= seconds <= LONGEST else ""


def _read(file: Path) -> list[dict[str, str]]:
    table = read_table(file, ",", DO)
    if tuple(table.columns) != COLUMNS:
        raise UserError(
            f"{file} has the columns {', '.join(map(str, table.columns))[:200]}, expected "
            f"{', '.join(COLUMNS)}; {DO}."
        )
    return table.to_dict("records")


def _not_of(row: Mapping[str, str], rater: str, number: int, settings: Mapping[str, Any]) -> str:
    """Return why a row is no answer of a rater to this plan's question, "" where it is one."""
    if row["rater"] != rater:
        return f"is an answer of {row['rater']!r}"
    if row["seed"] != str(settings.get("seed")):
        return f"is of seed {row['seed']}, the plan's is {settings.get('seed')}"
    if row["order"] != str(number) or number > int(settings.get("questions") or 0):
        return f"is an answer to question {row['order']!r}, expected {number}"
    if not row["stimulus"] or not row["method"]:
        return "names no stimulus or no method"
    if (row["answer"] == row["stimulus"]) != (row["correct"] == "1"):
        return "calls an answer correct that is not, or the other way round"
    return ""


def read_ratings(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the settings and all answers of a folder, numbers as numbers, NaN for none.

    ``order``, ``correct`` (0 or 1), ``rating`` (1 to 5), ``seconds`` and ``rating_seconds`` are
    floats; one answer a rater and question.
    """
    import pandas as pd

    if not (folder / SETTINGS).is_file():
        raise UserError(
            f"{folder} has no {SETTINGS}, so it holds no ratings; make some with: python app.py "
            "--rate FOLDER --ratings FOLDER"
        )
    settings = read_object(folder / SETTINGS, DO)
    rows = []
    for file in sorted(folder.glob("*.csv")):
        found = [{k: unquoted(v) for k, v in row.items()} for row in _read(file)]
        for number, row in enumerate(found, start=1):
            if why := _not_of(row, file.stem, number, settings):
                raise UserError(f"{file}: line {number + 1} {why}; {DO}.")
        rows += found
    if not rows:
        raise UserError(f"{folder} holds no answers yet.")
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in ("order", "correct", "rating", "seconds", "rating_seconds"):
        table[name] = pd.to_numeric(table[name], errors="coerce")
    wrong = ~table["correct"].isin((0, 1)) | ~(
        table["rating"].isin(SCALE) | table["rating"].isna()
    )
    if wrong.any() or table.duplicated(["rater", "order"]).any():
        row = table[wrong | table.duplicated(["rater", "order"])].iloc[0]
        raise UserError(
            f"{folder}: answer {row['order']:g} of {row['rater']} is given twice, or is none "
            f"(correct is 0 or 1, a rating 1 to 5); {DO}."
        )
    return settings, table
