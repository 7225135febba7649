"""What was shown to BOLD5000's people, trial by trial: presentation lists and events, checked."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets.bold5000_files import PEOPLE, RUN, STIMULI, Found, whose
from explorer.files import read_text
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

REPEATED = 113  # images that were meant to be shown four times


def read_lists(found: Found) -> dict[str, pd.DataFrame]:
    """Return subject -> file (without ``rep_``), repeated, session and run of every trial."""
    lists, seen = {}, {}
    for who in PEOPLE:
        table = _list(found, who)
        if table is None:
            continue
        shown = tuple(table["file"])
        if shown in seen:
            raise UserError(
                f"The presentation lists of {seen[shown]} and {who} are the same, but each person "
                f"saw another order: two subjects' files are mixed; take {STIMULI}."
            )
        lists[who] = table
        seen[shown] = who
    return lists


def _list(found: Found, who: str) -> pd.DataFrame | None:
    import pandas as pd

    person = PEOPLE[who]
    for runs in (found.runs, found.events):
        mine = {key[1:]: path for key, path in runs.items() if key[0] == who}
        if mine:
            rows = _rows_of_runs(who, mine)
            return pd.DataFrame(rows, columns=["file", "repeated", "session", "run"])
    if who not in found.names:
        return None
    shown = [_named(line) for line in _lines(found.names[who])]
    if len(shown) != person.trials:
        raise UserError(
            f"{found.names[who]} lists {len(shown)} trials{whose(len(shown))}, expected "
            f"{person.trials} for {who}; copy it again."
        )
    table = pd.DataFrame(shown, columns=["file", "repeated"])
    session = np.repeat(np.arange(len(person.runs)) + 1, [RUN * n for n in person.runs])
    run = np.concatenate([np.repeat(np.arange(n) + 1, RUN) for n in person.runs])
    return table.assign(session=session, run=run)


def _rows_of_runs(
    who: str, files: dict[tuple[int, int], Path]
) -> list[tuple[str, bool, int, int]]:
    """Return (file, repeated, session, run) of every trial from one file a run."""
    person, rows = PEOPLE[who], []
    for session, expected in enumerate(person.runs, start=1):
        there = sorted(run for s, run in files if s == session)
        if there != list(range(1, expected + 1)):
            lacks = sorted(set(range(1, expected + 1)) - set(there)) or there[expected:]
            raise UserError(
                f"{who}, session {session}: expected presentation lists of runs 1 to {expected}, "
                f"found {len(there)} (see run {lacks[0]}); take {STIMULI}."
            )
        for run in there:
            rows += [(*shown, session, run) for shown in _read_run(files[session, run])]
    extra = sorted({s for s, _ in files} - set(range(1, len(person.runs) + 1)))
    if extra:
        raise UserError(
            f"{who} has {len(person.runs)} sessions, but there is a presentation list of session "
            f"{extra[0]}: two subjects' files are mixed; take {STIMULI}."
        )
    return rows


def repeated_images(found: Found, lists: dict[str, pd.DataFrame]) -> frozenset[str]:
    """Return the repeated images by stimulus id: of the list of 113, else of all lists."""
    counts = {who: Counter(map(stem, table["file"])) for who, table in lists.items()}
    several = {name for count in counts.values() for name, n in count.items() if n > 1}
    listed = found.single.get("repeated_stimuli_113_list.txt")
    if listed is None:
        marked = (table["file"][table["repeated"]] for table in lists.values())
        return frozenset(several.union(*(map(stem, names) for names in marked)))
    names = {stem(_named(line)[0]) for line in _lines(listed)}
    if len(names) != REPEATED:
        raise UserError(
            f"{listed} names {len(names)} images, expected the {REPEATED} repeated ones; take "
            f"{STIMULI}."
        )
    if several - names:
        raise UserError(
            f"{min(several - names)} was shown more than once but is not among the repeated "
            f"images of {listed}, so test images would be trained on; take {STIMULI}."
        )
    return frozenset(names)


def describe_images(found: Found, lists: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row an image: caption, category, source and the name it has on disk."""
    import pandas as pd

    files = sorted({file for table in lists.values() for file in table["file"]})
    listed = found.single.get("imagenet_final_labels.txt")
    # WordNet id -> words, of Image_Labels
    pairs = (line.partition(" ") for line in (_lines(listed) if listed else []))
    words = {wnid: text.strip() for wnid, _, text in pairs}
    rows = [_describe(file, words) for file in files]
    index = pd.Index([stem(file) for file in files], name="stimulus")
    return pd.DataFrame(rows, columns=["caption", "category", "source", "file"], index=index)


def _lines(path: Path) -> list[str]:
    text = read_text(path)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _named(line: str) -> tuple[str, bool]:
    """Return a list's line without ``rep_``, and whether it had it.

    The prefix marks presentations of a repeated image, all but one, which need not be the first.
    """
    return line.removeprefix("rep_"), line.startswith("rep_")


def stem(file: str) -> str:
    """Return a stimulus's id: its file's name without the ending."""
    return os.path.splitext(file)[0]


def _read_run(path: Path) -> list[tuple[str, bool]]:
    """Return (file, marked as repeated) of the trials of a run's list or events table."""
    if path.suffix == ".tsv":
        table = list(csv.DictReader(_lines(path), delimiter="\t"))
        number = path.name[len("sub-CSI")]
        if any(row.get("ImgName") is None or row.get("ImgType") is None for row in table):
            raise UserError(f"{path} needs the columns ImgName and ImgType; copy it again.")
        other = next((row["Subj"] for row in table if row.get("Subj") not in (None, number)), "")
        if other:
            raise UserError(
                f"{path} holds trials of subject {other}: two subjects' files are mixed; download "
                "it again."
            )
        kinds = [row["ImgType"].startswith("rep_") for row in table]
        names = [_named(row["ImgName"]) for row in table]
        shown = [(name, rep or kind) for (name, rep), kind in zip(names, kinds, strict=True)]
    else:
        shown = [_named(line) for line in _lines(path)]
    if len(shown) != RUN:
        raise UserError(f"{path} lists {len(shown)} trials, expected {RUN}; copy it again.")
    return shown


def _describe(file: str, words: dict[str, str]) -> tuple[str, str, str, str]:
    """Return caption, category, source and file; scenes may begin with n too (nursery1.jpg)."""
    name = stem(file)
    if m := re.fullmatch(r"COCO_train2014_(\d{12})", name):
        return "", "COCO", f"COCO {int(m[1])}", file
    if m := re.fullmatch(r"(n\d{8})_\d+", name):
        return words.get(m[1], ""), "ImageNet", m[1], file
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"\d+$", "", name))
    return apart.replace("_", " ").strip().lower(), "Scene", "SUN", file
