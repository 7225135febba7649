"""The decoder that knows the class alone, as a row of the table over mappers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.reports.class_mean import NAME, ClassMeans
from backends.reports.mapper_tables import markdown, write
from backends.reports.mappers import compare
from backends.reports.true_embeddings import Truth
from explorer import metrics
from explorer.evidence.evaluation import read_evaluation
from explorer.types import UserError


def truth_of(bench: Any) -> Truth:
    return Truth(bench, "fake", {}, {}, lambda sentence: None)


def embedded(fakes: Any, names: list[str]) -> np.ndarray:
    return fakes.Embedder().embed([fakes.picture(name) for name in names])


def test_the_row_is_that_of_the_means_of_both_classes(
    workbench: Any, fakes: Any, tmp_path: Any
) -> None:
    plain = compare(workbench, "fake", subjects=["sub-01"])
    assert NAME not in set(plain.table["mapper"])  # only where it is asked for
    found = compare(workbench, "fake", subjects=["sub-01"], classes=True)
    kinds = workbench.catalogue.dataset("fake").stimuli["category"]
    test = [f"test-{i:02d}" for i in range(1, 11)]
    train = [s for s in kinds.index if s.startswith("train")]
    means = {
        k: embedded(fakes, [s for s in train if kinds[s] == k]).mean(axis=0)
        for k in ("warm", "cold")
    }
    by_hand = metrics.two_way_identification(
        np.stack([means[kinds[s]] for s in test]), embedded(fakes, test)
    )
    rows = found.table[found.table["mapper"] == NAME]
    row = rows[(rows["score"] == "two-way") & (rows["betas"] == "averaged repeats")].iloc[0]
    assert row["value"] == pytest.approx(by_hand) and row["chance"] == 0.5 and row["N"] == 10
    assert any("what lies above it is more than the class" in note for note in found.notes)
    assert NAME not in found.weights and f"| {NAME} |" in markdown(found)
    write(found, tmp_path)
    assert NAME in read_evaluation(tmp_path).mappers("fake-clip/image")


def test_a_class_that_was_never_trained_has_the_mean_of_all(workbench: Any, fakes: Any) -> None:
    table = workbench.catalogue.dataset("fake").stimuli
    table.loc["test-01", "category"] = "new"
    (space,) = fakes.Embedder.spaces
    found, note = ClassMeans(truth_of(workbench)).of("sub-01", space, ["test-01", "test-02"])
    train = [s for s in table.index if s.startswith("train")]
    np.testing.assert_allclose(found[0], embedded(fakes, train).mean(axis=0), rtol=1e-5)
    assert note.startswith("the class of 1 of 2 test images was never trained")


def test_without_classes_there_is_a_note_instead_of_a_row(workbench: Any) -> None:
    workbench.catalogue.dataset("fake").stimuli["category"] = ""
    found = compare(workbench, "fake", subjects=["sub-01"], classes=True)
    assert NAME not in set(found.table["mapper"])
    assert any("names no class of its test stimuli" in note for note in found.notes)
    with pytest.raises(UserError, match="fake names no class of its test stimuli that was"):
        ClassMeans(truth_of(workbench)).of("sub-01", workbench_space(workbench), ["test-01"])


def workbench_space(bench: Any) -> Any:
    name = bench.catalogue.mapper_names("fake", "sub-01")[0]
    return bench.catalogue.offer("fake", "sub-01", name).targets[0]
