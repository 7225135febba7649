"""A parcel against the steps: the same noise, known differences, and the step that is told."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from explorer import stopping
from explorer.evidence import lesions, steps
from explorer.evidence.lesions import Lesion
from explorer.page.api_parcel import Parcels
from explorer.page.lab_parcel import steps_view
from explorer.request import Request, View
from explorer.types import UserError

REQUEST = Request("fake", "sub-01", "test-04", "linear", "painter", (2.0,), steps=4)
DRIVEN = Lesion(("fusiform L",))


def found(bench: Any, request: Request = REQUEST, how: Lesion = DRIVEN) -> list[steps.Difference]:
    return list(steps.step_differences(bench, request, how))


def test_the_last_step_is_the_lesions_own_pictures(workbench: Any) -> None:
    rows = found(workbench)
    pictures = lesions.lesion_pictures(workbench, REQUEST, DRIVEN)
    assert [row.step for row in rows] == [1, 2, 3, 4]
    np.testing.assert_array_equal(rows[-1].intact, pictures.intact.image)
    np.testing.assert_array_equal(rows[-1].lesioned, pictures.lesioned.image)
    shown = pictures.intact.scores["pocket-clip"], pictures.lesioned.scores["pocket-clip"]
    assert rows[-1].to_shown == pytest.approx(shown, abs=1e-6)
    pixels = [row.pixels for row in rows]
    assert pixels == sorted(pixels) and pixels[0] > 0  # the painter adds the brain step by step
    assert np.isnan(rows[0].latents)


def test_betas_that_are_kept_change_nothing_at_any_step(workbench: Any) -> None:
    rows = found(workbench, how=Lesion(DRIVEN.parcels, gain=1.0))
    assert all(row.pixels == pytest.approx(0, abs=1e-9) for row in rows)
    assert steps.when(rows, 4).startswith("Both pictures are the same at every step")


def test_what_has_no_steps_is_refused(
    workbench: Any, fakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes.Generator, "provenance", "retrieved")
    with pytest.raises(UserError, match="painter draws nothing, so there are no steps"):
        steps.step_differences(workbench, REQUEST, DRIVEN)


def one(step: int, latents: float, pixels: float = 0.5) -> steps.Difference:
    image = np.zeros((2, 2, 3), np.uint8)
    return steps.Difference(step, image, image, latents, pixels, 0.0, (0.0, 0.0))


def test_the_step_at_which_it_matters_is_the_planted_one() -> None:
    rows = [one(i + 1, v) for i, v in enumerate([0.01, 0.02, 0.60, 0.70, 0.72])]
    told = steps.when(rows, 5)
    assert "grows most in step 3 of 5, and half of what it is at the end (0.72, by" in told
    assert told.endswith("by latents) is there after step 3.")
    rising = [one(i + 1, v) for i, v in enumerate([0.5, 0.1, 0.2, 0.3])]  # half is lost again
    assert "grows most in step 1 of 4" in steps.when(rising, 4)
    assert "there after step 3; it was largest, 0.50, after step 1." in steps.when(rising, 4)
    by_pixels = [one(i, np.nan, v) for i, v in ((2, 0.1), (4, 0.4))]
    assert "by pixels" in steps.when(by_pixels, 4)
    assert steps.when(by_pixels, 4).endswith("the generator shows 2 of its 4 steps.")


def test_work_that_nobody_wants_ends_within_a_step(workbench: Any, fakes: Any) -> None:
    painted = fakes.Generator.painted
    wanted = [True]
    with stopping.until(lambda: not wanted[0]), pytest.raises(stopping.StoppedError):
        for row in steps.step_differences(workbench, REQUEST, DRIVEN):
            assert row.step == 1
            wanted[0] = False
    assert fakes.Generator.painted == painted


def test_the_view_sends_a_part_a_step(workbench: Any) -> None:
    view = View(panel="steps", parcels=DRIVEN.parcels)
    parts = [content for content, *_ in steps_view(workbench, REQUEST, view)]
    assert [len(content["rows"]) for content in parts] == [0, 1, 2, 3, 4, 4]
    assert "grows most in step" in parts[-1]["sentence"]
    assert [pair["step"] for pair in parts[-1]["images"]] == [1, 2, 3, 4]
    long = [c for c, *_ in steps_view(workbench, replace(REQUEST, steps=30), view)][-1]
    assert (len(long["rows"]), len(long["images"])) == (30, 10)
    assert (long["images"][0]["step"], long["images"][-1]["step"]) == (1, 30)
    selected = View(panel="steps", parcel="fusiform L")
    assert [*steps_view(workbench, REQUEST, selected)][-1][0]["chosen"] == ["fusiform L"]


def test_the_endpoint(workbench: Any) -> None:
    ask = Parcels(workbench).steps
    sent = ask(trial="test-04", parcels="fusiform L", scale=2.0, steps=4, mapper="linear")
    rows = found(workbench)
    assert [one["pixels"] for one in sent["steps"]] == pytest.approx([r.pixels for r in rows])
    assert sent["steps"][0]["latents"] is None and "panel=steps" in sent["link"]
    assert sent["sentence"] == steps.when(rows, 4)
    with pytest.raises(gr.Error, match="has no parcel 'nowhere'"):
        ask(trial="test-04", parcels="nowhere")


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_generator_in_steps_gives_every_step_from_one_noise(
    fakes: SimpleNamespace, at_once: int
) -> None:
    import torch

    from backends.generators.sampling import Sampling
    from explorer.protocols import Condition

    class Adding(Sampling):
        name, accepts, options, device = "adding", (fakes.space,), (), "cpu"

        def _at_once(self, how: Any) -> int:
            return at_once

        def _draw(self, conditions: Any, scales: Any, seeds: Any, count: int, how: Any) -> Any:
            noise = torch.tensor([float(seed) for seed in seeds])[:, None]
            z = torch.stack([self._decoded(c)[1].sum() for c in conditions])[:, None]
            for step in range(1, count + 1):
                yield step, noise + step * scales[0] * z

        def _finished(self, latents: Any, conditions: Any, how: Any) -> Any:
            for row in latents:
                yield np.full((2, 2, 3), int(row.abs()) % 256, np.uint8), ""

    conditions = [Condition({fakes.space: torch.full((8,), v)}) for v in (1.0, 2.0)]
    moments = list(Adding().moments(conditions, 0.5, 3, 4))
    assert [moment.step for moment in moments] == [1, 2, 3, 4]
    assert moments[1].latents.tolist() == [[3 + 8], [3 + 16]]
    assert moments[1].images[:, 0, 0, 0].tolist() == [11, 19]
