"""Rows that no brain made, beside the scores of drawn pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from backends.commands.reconstruct import Job, draw
from backends.reports.class_mean import ClassMeans
from backends.reports.feature_networks import Features
from backends.reports.picture_tables import markdown, write
from backends.reports.pictures import score_folder
from backends.reports.reference_rows import CLASS, of_classes, reference_rows
from backends.reports.scores import SCORES
from backends.reports.true_embeddings import Truth
from explorer.evidence.rewards import MEAN, SIGMAS, blur_name
from explorer.types import UserError

SETTINGS = {"dataset": "fake", "generator": "painter", "scale": 2.0, "steps": 2, "seed": 3}


@pytest.fixture
def folder(workbench: Any, tmp_path: Any) -> Any:
    draw(workbench, Job("fake", ("sub-01",), "linear", "painter", 2.0, 2, limit=3), tmp_path / "f")
    return tmp_path / "f"


def test_a_report_has_them_where_they_are_asked_for(
    workbench: Any, folder: Any, tmp_path: Any
) -> None:
    given = workbench, folder, Features(tmp_path)
    assert score_folder(*given, scores=SCORES[:1]).references is None
    report = score_folder(*given, scores=SCORES[:1], references=True, classes=True)
    found = report.references
    wanted = {*map(blur_name, SIGMAS), "another test image", MEAN, CLASS}
    assert set(found["of"]) == wanted and set(found["id"]) == {"pixcorr-425", "ssim-grey-425"}
    values = found.set_index(["of", "id"])["value"]
    assert values[blur_name(SIGMAS[0]), "pixcorr-425"] > values[MEAN, "pixcorr-425"]
    text = markdown(report)
    assert "What PixCorr and SSIM reward" in text and f"| {CLASS} |" in text
    files = write(report, tmp_path / "out")
    table = pd.read_csv(next(f for f in files if f.name == "pictures-references.csv"))
    assert len(table) == len(found)


def test_the_class_is_drawn_from_its_mean_and_named(workbench: Any, monkeypatch: Any) -> None:
    stimuli, told = ["test-01", "test-02"], []
    generator = workbench.models.generator("painter")
    usual = generator.generate

    def listen(conditions: Any, scale: float, seeds: Any, steps: int) -> np.ndarray:
        told.extend((c.label, *c.embeddings.values()) for c in conditions)
        assert (scale, list(seeds), steps) == (2.0, [3, 4], 2)
        return usual(conditions, scale, list(seeds), steps)

    monkeypatch.setattr(generator, "generate", listen)
    made = of_classes(workbench, SETTINGS, "sub-01", stimuli)
    assert len(made) == 2 and [label for label, _ in told] == ["warm", "cold"]
    truth = Truth(workbench, "fake", {}, {}, lambda sentence: None)
    (space,) = workbench.catalogue.generator_class("painter").accepts
    means, _ = ClassMeans(truth).of("sub-01", space, stimuli)
    np.testing.assert_allclose(np.stack([z for _, z in told]), means, rtol=1e-6)


def test_what_cannot_be_had_is_a_note(workbench: Any, fakes: Any, tmp_path: Any) -> None:
    workbench.catalogue.dataset("fake").stimuli["category"] = ""
    shown = [fakes.picture(f"test-0{i}") for i in (1, 2)]
    given = SETTINGS, "sub-01", ["test-01", "test-02"], shown, Features(tmp_path)
    table, notes = reference_rows(workbench, *given, classes=True)
    assert CLASS not in set(table["of"]) and MEAN in set(table["of"])
    assert notes == [
        f"Nothing was {CLASS}: fake names no class of its test stimuli that was trained."
    ]
    workbench.catalogue.pictures["theirs"] = object()
    with pytest.raises(UserError, match="theirs are published pictures"):
        of_classes(workbench, SETTINGS | {"generator": "theirs"}, "sub-01", ["test-01"])
