"""What PixCorr and SSIM reward: a blur, a mean image, and what a decoder looks up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from explorer import metrics
from explorer.evidence import rewards as module
from explorer.evidence.rewards import ANOTHER, MEAN, NEAREST, SIGMAS, blur_name, blurred, rewards
from explorer.types import UserError


def test_a_blur_keeps_the_mean_and_loses_the_edges() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 200
    soft = blurred(image, 0.05)
    assert soft.dtype == np.uint8 and soft.mean() == pytest.approx(image.mean(), abs=1)
    steps = np.abs(np.diff(soft[10, :, 0].astype(int)))
    assert steps.max() < 40 and blurred(image, 0.1)[10, 34, 0] < soft[10, 34, 0]
    wide = blurred(np.repeat(image, 2, axis=1), 0.05)  # of the width, not of the height
    assert np.abs(np.diff(wide[10, :, 0].astype(int))).max() < steps.max()


def test_the_mean_image_is_that_of_training_pictures_alone(workbench: Any, fakes: Any) -> None:
    train = workbench.catalogue.trials("fake", "sub-01").stimuli("train")
    test = set(workbench.catalogue.trials("fake", "sub-01").stimuli("test"))
    train = [s for s in train if s not in test]
    pictures = np.stack([fakes.picture(name) for name in train])
    found = module.mean_image(workbench, "fake", "sub-01", pictures.shape[1:3])
    assert np.abs(found - pictures.mean(axis=0)).max() <= 0.5


def test_every_reference_has_both_scores(workbench: Any, fakes: Any) -> None:
    names = list(workbench.catalogue.gallery("fake", "sub-01").index)
    found = rewards(workbench, "fake", "sub-01", names, retrieved=names[1:] + names[:1])
    rows = found.table.set_index("of")
    wanted = [*map(blur_name, SIGMAS), ANOTHER, MEAN, NEAREST]
    assert set(rows.index) == {f"{s}: {name}" for s in ("PixCorr", "SSIM") for name in wanted}
    values = [rows.loc[f"PixCorr: {blur_name(s)}", "value"] for s in SIGMAS]
    assert values == sorted(values, reverse=True) and values[0] > 0.8
    pairs = zip(names, names[1:] + names[:1], strict=True)
    by_hand = np.mean([metrics.pixcorr(fakes.picture(a), fakes.picture(b)) for a, b in pairs])
    assert rows.loc[f"PixCorr: {NEAREST}", "value"] == pytest.approx(by_hand)
    assert rows["chance"].nunique() == 2 and found.unit == ""
    assert "Scores up to these need no sharp picture and no brain." in found.sentence
    assert found.sentence.endswith("With 10 test images that is no evidence yet.")


def test_without_training_pictures_the_others_stand(workbench: Any, monkeypatch: Any) -> None:
    def refuse(*given: object) -> np.ndarray:
        raise UserError("The training pictures are not here.")

    monkeypatch.setattr(module, "mean_image", refuse)
    names = list(workbench.catalogue.gallery("fake", "sub-01").index)
    found = rewards(workbench, "fake", "sub-01", names)
    assert f"SSIM: {blur_name(SIGMAS[0])}" in set(found.table["of"])
    assert not found.table["of"].str.contains(MEAN).any()
    assert "The training pictures are not here." in found.sentence
