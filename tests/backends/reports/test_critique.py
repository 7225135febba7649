"""The critics' tests over a workbench: what is asked of whom, and how it is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from backends.reports import critique
from explorer.evidence import critics, image_sets
from explorer.splits import Split, write_split
from explorer.types import UserError


def test_every_mapper_and_subject_is_asked(
    workbench: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(critics.critique, "CLUSTERS", 4)
    told = critique.examine(workbench, "fake")
    subjects = workbench.catalogue.subjects("fake")
    assert set(told) == {
        (m, s) for s in subjects for m in workbench.catalogue.mapper_names("fake", s)
    }
    names = [one.name for one in next(iter(told.values()))]
    assert names[0] == "generalisation" and names[-1] == "bottleneck"
    assert "output-dimension collapse" in names and "category-only decoder" in names
    files = critique.write(told, tmp_path / "out")
    table = pd.read_csv(files[0])
    assert set(table["test"]) <= set(names) and set(table["subject"]) == set(subjects)
    assert table["of"].str.startswith("all test images: two-way").any()
    text = files[1].read_text()
    assert text.count("- **output-dimension collapse**") == len(told) + 1  # and its definition
    assert "# Definitions" in text


def test_an_unknown_mapper_is_a_sentence(workbench: Any) -> None:
    with pytest.raises(UserError, match="none, sub-01: There is no mapper 'none'"):
        critique.examine(workbench, "fake", subjects=["sub-01"], mappers=["none"])


def test_too_few_training_stimuli_are_a_sentence(workbench: Any, monkeypatch: Any) -> None:
    trained = len(workbench.catalogue.trials("fake", "sub-01").stimuli("train"))
    monkeypatch.setattr(critics.critique, "CLUSTERS", trained + 1)
    with pytest.raises(
        UserError, match=f"has {trained} training stimuli .* need {trained + 1} or"
    ):
        critique.examine(workbench, "fake", subjects=["sub-01"])


def test_sets_by_class_are_those_never_trained_and_strange_ones() -> None:
    found = image_sets.by_class(["dog", "", "cat", "OOD gabor", "OOD shape", "cat"], {"dog"})
    assert found["classes never trained"].tolist() == [False, False, True, False, False, True]
    assert found["out of distribution"].tolist() == [False, False, False, True, True, False]
    assert image_sets.by_class(["cat", "cat"], {"dog"}) == {}  # all: no set of its own
    ahead, aside = np.array([[1.0, 0]]), np.array([[1.0, 0], [0, 1], [0.9, 0.1], [0.1, 1]])
    assert image_sets.far(aside, ahead).tolist() == [False, True, False, True]


def test_sets_are_named_by_the_stimuli_and_by_splits(workbench: Any) -> None:
    bench, names = workbench, list(workbench.catalogue.gallery("fake", "sub-01").index)
    table = bench.catalogue.dataset("fake").stimuli
    table["test_set"] = ""
    table.loc[names[:3], "test_set"] = "new settings"
    table.loc[names[3], "test_set"] = "alone"
    train = frozenset(bench.catalogue.trials("fake", "sub-01").stimuli("train")) - set(names)
    write_split(
        bench.catalogue.checkpoints, Split("far", "a test", "fake", train, frozenset(names[1:3]))
    )
    write_split(
        bench.catalogue.checkpoints, Split("all", "a test", "fake", train, frozenset(names))
    )
    found = image_sets.by_name(bench, "fake", names)
    assert set(found) == {"new settings", "split far"}  # one image, or all of them, is no set
    assert np.flatnonzero(found["new settings"]).tolist() == [0, 1, 2]
    assert np.flatnonzero(found["split far"]).tolist() == [1, 2]
